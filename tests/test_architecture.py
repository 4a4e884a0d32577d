"""The plan of the house: which module may import which, how large they are, and their names.

The arrows are held twice: by reading every import statement, which names the guilty line, and by
importing in a fresh process, which also sees what comes in through others.
"""

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("layers", "losses", "preprocessing", "jointnet", "experiments")
TOP_LEVEL = {
    *PACKAGES,
    *("tests", "results", "README.md", "requirements.txt", "pyproject.toml", "LICENSE"),
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", ".gitignore", ".ci"),
}
LONGEST_MODULE = 600
MOST_MODULES = 32
# Modules of one first word are a sub-package that nobody has made: two are enough.
MOST_OF_A_FAMILY = 2

COMMANDS = {
    *("benchmark", "compare", "evaluate", "export", "infer", "inspect_network", "prepare"),
    *("report", "submit", "train_jointnet", "train_resnet", "vectorise"),
}
# Facts that every data set has.
ALIKE = {"main", "GSD", "SPLITS"}

# pyogrio and pyproj come with geopandas, h5py with keras.
RASTERS_AND_POLYGONS = {"rasterio", "affine", "shapely", "geopandas", "pyogrio", "pyproj"}
# Beside the standard library and the package itself.
AT_IMPORT = {
    "layers": {"keras", "numpy"},
    "losses": {"keras", "numpy"},
    "preprocessing": {"numpy", "cv2", "tqdm", *RASTERS_AND_POLYGONS},
    "jointnet": {"keras", "h5py", "numpy", "tqdm", "layers", "losses", "preprocessing"},
}
# Inside functions, further: preprocessing.rasters is one of those of preprocessing.
WHEN_CALLED = {
    # One operation that Keras has no name for, where TensorFlow is the backend.
    "layers": {"tensorflow"},
    "jointnet": {
        *("dask", "distributed", "jax", "matplotlib", "tensorboard", "tensorflow"),
        *("ai_edge_litert", "onnx", "onnxruntime"),
    },
    "preprocessing": {"buildingregulariser", "pyarrow", "scipy", "skimage"},
}

# What loading a package must not bring in, directly or through others.
KERAS_AND_BACKENDS = {"keras", "tensorflow", "jax", "torch"}
NEVER_LOADED = {
    "layers": {"losses", "preprocessing", "jointnet", "experiments", *RASTERS_AND_POLYGONS},
    "losses": {"layers", "preprocessing", "jointnet", "experiments", *RASTERS_AND_POLYGONS},
    "preprocessing": {"layers", "losses", "jointnet", "experiments", *KERAS_AND_BACKENDS},
    "jointnet": {"experiments", "click", *RASTERS_AND_POLYGONS},
}


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).glob("*.py"))


MODULES = [path for package in PACKAGES for path in modules_of(package)]
every_module = pytest.mark.parametrize(
    "path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES]
)


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_in(tree: ast.AST, in_function: bool = False) -> Iterator[tuple[str, int, bool]]:
    """Yield top-level name, line, and whether it is inside a function, of each import.

    What is imported for type checkers alone does not count.
    """
    for node in ast.iter_child_nodes(tree):
        if is_for_type_checkers(node):
            continue
        if isinstance(node, ast.Import):
            yield from (
                (alias.name.split(".")[0], node.lineno, in_function) for alias in node.names
            )
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0], node.lineno, in_function
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports_in(node, in_function or is_function)


def forbidden_imports(package: str, source: str) -> list[str]:
    at_import = AT_IMPORT[package] | {package} | sys.stdlib_module_names
    when_called = at_import | WHEN_CALLED.get(package, set())
    return [
        f"line {line}: {name}"
        for name, line, in_function in imports_in(ast.parse(source))
        if name not in (when_called if in_function else at_import)
    ]


def public_functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the public functions, and the public methods and constructors of public classes."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
            node.name == "__init__" or not node.name.startswith("_")
        ):
            yield node


def missing_hints(source: str) -> list[str]:
    missing = []
    for function in public_functions(ast.parse(source)):
        a = function.args
        every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        for argument in every:
            if argument.annotation is None and argument.arg not in ("self", "cls"):
                missing.append(f"{function.name}({argument.arg})")
        if function.returns is None and function.name != "__init__":
            missing.append(f"{function.name} -> ?")
    return missing


@cache
def loaded_by(names: tuple[str, ...], **environment: str) -> frozenset[str]:
    """Import modules in a fresh process and return the names of all that it then holds."""
    code = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        cwd=ROOT,
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return frozenset(json.loads(done.stdout.splitlines()[-1]))


@cache
def own_imports() -> dict[str, set[str]]:
    """Return which modules of the project each one imports, wherever the statement stands."""
    names = {f"{path.parent.name}.{path.stem}" for path in MODULES}
    return {
        f"{path.parent.name}.{path.stem}": set(
            modules_in(ast.parse(path.read_text(encoding="utf-8")), names)
        )
        for path in MODULES
    }


def modules_in(tree: ast.AST, names: set[str]) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if is_for_type_checkers(node):
            continue
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                yield from {node.module, f"{node.module}.{alias.name}"} & names
        elif isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & names
        yield from modules_in(node, names)


def top_level_names(source: str) -> set[str]:
    """Return the public names that a module defines."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def all_names(package: str) -> tuple[str, ...]:
    named = [path.stem for path in modules_of(package) if path.stem != "__init__"]
    return (package, *(f"{package}.{name}" for name in named))


def test_import_statements_are_told_apart_and_found_wherever_they_stand():
    source = "import a.b, c\nif 1:\n  from d.e import f\ndef g():\n  import h\nfrom . import i\n"
    found = list(imports_in(ast.parse(source)))
    assert found == [("a", 1, False), ("c", 1, False), ("d", 3, False), ("h", 5, True)]


def test_imports_of_own_modules_are_found():
    source = (
        "from a import b\nfrom c.d import e\nif TYPE_CHECKING:\n  import f.g\n"
        "def h():\n  import f.i\n"
    )
    names = {"a.b", "c.d", "f.g", "f.i"}
    assert list(modules_in(ast.parse(source), names)) == ["a.b", "c.d", "f.i"]


def test_top_level_names_are_the_public_ones():
    source = "A, B = 1, 2\n_C = 3\nD: int = 4\ndef e(): f = 5\nclass G: h = 6\n"
    assert top_level_names(source) == {"A", "B", "D", "e", "G"}


@pytest.mark.parametrize(
    ("package", "source", "found"),
    [
        ("layers", "import keras, math, layers.x\n", []),
        ("layers", "from preprocessing.tiling import cut\n", ["line 1: preprocessing"]),
        ("losses", "def f():\n  import tensorflow\n", ["line 2: tensorflow"]),
        ("preprocessing", "import rasterio.windows\nimport keras\n", ["line 2: keras"]),
        ("preprocessing", "def f():\n  import jointnet\n", ["line 2: jointnet"]),
        ("jointnet", "def f():\n  from preprocessing.rasters import read_image\n", []),
        ("jointnet", "import rasterio\n", ["line 1: rasterio"]),
        ("jointnet", "def f():\n  import shapely\n", ["line 2: shapely"]),
        ("jointnet", "import matplotlib\ndef f():\n  import matplotlib\n", ["line 1: matplotlib"]),
        ("jointnet", "import experiments.recipes\n", ["line 1: experiments"]),
    ],
)
def test_a_forbidden_import_is_named_with_its_line(package, source, found):
    assert forbidden_imports(package, source) == found


def test_a_missing_hint_is_named():
    source = (
        "def f(a: int, b, *c, **d) -> int: ...\ndef g(a: int): ...\ndef _h(a): ...\n"
        "class K:\n  def __init__(self, e): ...\n  def m(self, x: int) -> int: ...\n"
        "class _L:\n  def m(self, x): ...\n"
    )
    assert missing_hints(source) == ["f(b)", "f(c)", "f(d)", "g -> ?", "__init__(e)"]


@every_module
def test_imports_follow_the_arrows(path):
    if path.parent.name != "experiments":
        found = forbidden_imports(path.parent.name, path.read_text(encoding="utf-8"))
        assert not found, "; ".join(found)


@every_module
def test_a_module_says_what_it_is_and_is_not_too_long(path):
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), "no module docstring"
    assert len(source.splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_holds_few_modules_and_no_families(package):
    stems = [path.stem for path in modules_of(package) if path.stem != "__init__"]
    assert len(stems) <= MOST_MODULES
    families = Counter(stem.split("_")[0] for stem in stems if "_" in stem.strip("_"))
    assert [word for word, count in families.items() if count > MOST_OF_A_FAMILY] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_modules_of_a_folder_share_a_public_name(package):
    homes: dict[str, list[str]] = {}
    for path in modules_of(package):
        for name in top_level_names(path.read_text(encoding="utf-8")) - ALIKE:
            homes.setdefault(name, []).append(path.stem)
    assert {name: stems for name, stems in homes.items() if len(stems) > 1} == {}


def test_modules_import_each_other_in_no_circle():
    try:
        TopologicalSorter(own_imports()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_module_imports_a_command():
    commands = {f"experiments.{name}" for name in COMMANDS}
    assert commands <= own_imports().keys()
    assert {
        name: found & commands for name, found in own_imports().items() if found & commands
    } == {}


def test_every_module_has_a_user_besides_its_test():
    imported = set().union(*own_imports().values())
    alone = {name for name in own_imports() if not name.endswith("__")} - imported
    # The benchmark runs these by their names, each function in a process of its own.
    by_name = {"benchmark_prediction", "benchmark_training"}
    assert alone == {f"experiments.{name}" for name in COMMANDS | by_name}


@every_module
def test_public_functions_have_type_hints(path):
    missing = missing_hints(path.read_text(encoding="utf-8"))
    assert not missing, ", ".join(missing)


def test_preprocessing_itself_imports_nothing():
    tree = ast.parse((ROOT / "preprocessing" / "__init__.py").read_text(encoding="utf-8"))
    assert len(tree.body) == 1
    assert sorted({"numpy", "rasterio"} & loaded_by(("preprocessing",))) == []


@pytest.mark.parametrize("package", NEVER_LOADED)
def test_loading_every_module_brings_in_nothing_that_must_stay_out(package):
    loaded = loaded_by(all_names(package), KERAS_BACKEND="jax")
    assert package in loaded
    assert sorted(NEVER_LOADED[package] & loaded) == []
    # On the JAX backend TensorFlow need not even be installed.
    assert "tensorflow" not in loaded


def test_what_jointnet_takes_from_preprocessing_needs_numpy_alone():
    """A machine that trains from a patch store has JAX, Keras and numpy, and perhaps no more.

    Looked at without Keras, which loads OpenCV and matplotlib itself where they are.
    """
    loaded = loaded_by(all_names("jointnet"), KERAS_BACKEND="jax")
    taken = tuple(sorted(name for name in loaded if name.split(".")[0] == "preprocessing"))
    assert sorted(AT_IMPORT["preprocessing"] & loaded_by(taken)) == ["numpy"]


def test_tracked_names_at_the_top_are_the_layout():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so nothing says which files belong to the project")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = {path.split("/")[0] for path in listed.stdout.split("\0") if path}
    assert names <= TOP_LEVEL


def test_modules_stand_flat_in_their_folders():
    for package in PACKAGES:
        nested = [path for path in (ROOT / package).rglob("*.py") if path.parent.name != package]
        assert nested == []
