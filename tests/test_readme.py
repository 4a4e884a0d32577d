"""README's commands exist as it writes them."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"python experiments/[^\n`)]+", README)))


def test_ci_runs_the_test_command_of_readme():
    command = re.search(r"^    (python3 -m venv .*-m pytest)$", README, re.MULTILINE)[1]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_readme_names_commands():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_a_command_exist(command):
    words = shlex.split(command)
    script = ROOT / words[1]
    module = importlib.import_module(f"experiments.{script.stem}")
    known = {option for parameter in module.main.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_pictures_and_links_exist():
    for link in re.findall(r"\]\(([^)h#][^)]*)\)", README):
        assert (ROOT / link).exists(), link


def test_python_example_imports():
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    for module, names in re.findall(r"^from (\S+) import (.+)$", block, re.MULTILINE):
        imported = importlib.import_module(module)
        for name in names.split(", "):
            assert hasattr(imported, name), f"{module}.{name}"
