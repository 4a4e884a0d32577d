"""The run folder: written whole, read back, and refused in one line where it is not one."""

import json
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from jointnet import JointNet
from jointnet.runs import (
    CONFIG_KEYS,
    WEIGHTS,
    build_network,
    describe_network,
    environment,
    load_run,
    save_weights,
)
from preprocessing.errors import OutputError, RunError
from preprocessing.output_files import write_csv, write_json
from tests.helpers import make_run
from tests.training_fixtures import NETWORK


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "original")


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / "copy")


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    return JointNet(**NETWORK)


def datasets(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, node: (
                found.update({name: node[...]}) if isinstance(node, h5py.Dataset) else None
            )
        )
    return found


# Files


def test_json_is_written_and_replaced(tmp_path):
    for content in ({"a": [1, 2.5, None]}, {"b": "ü"}):
        write_json(tmp_path / "a.json", content)
        assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [object(), {"a": {1, 2}}])
def test_what_is_no_json_leaves_the_older_file(tmp_path, content):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", content)
    assert (tmp_path / "a.json").read_text() == "1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_csv_has_a_header_and_a_row_each(tmp_path):
    write_csv(tmp_path / "a.csv", [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": 1e-9}])
    text = (tmp_path / "a.csv").read_text()
    assert text.splitlines() == ["epoch,loss", "1,0.30000000000000004", "2,1e-09"]


def test_a_failed_csv_leaves_the_older_file(tmp_path):
    write_csv(tmp_path / "a.csv", [{"a": 1}])
    with pytest.raises(ValueError, match="b"):
        write_csv(tmp_path / "a.csv", [{"a": 1}, {"b": 2}])
    assert (tmp_path / "a.csv").read_text().splitlines() == ["a", "1"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_json(tmp_path / "file" / "a.json", 1)


# Networks


@pytest.mark.parametrize(
    "arguments",
    [
        {"bands": 4, "band_offset": [1.0, 2.0, 3.0, 4.0], "band_scale": [5.0, 6.0, 7.0, 8.0]},
        {"downsample_from": "block_input", "groups": "doubling", "growth_rates": (32, 16, 32)},
    ],
)
def test_building_undoes_describing_through_json(arguments):
    model = JointNet(**{**NETWORK, **arguments})
    described = json.loads(json.dumps(describe_network(model)))
    again = build_network(described)
    assert describe_network(again) == describe_network(model)
    assert [v.shape for v in again.weights] == [v.shape for v in model.weights]
    assert all(describe_network(again)["arguments"][key] == v for key, v in arguments.items())


def test_precision_belongs_to_the_use_and_not_to_the_network(network):
    described = describe_network(network)
    assert "dtype" not in described["arguments"]
    mixed = build_network(described, "mixed_bfloat16")
    assert mixed.dtype_policy.name == "mixed_bfloat16"
    assert describe_network(mixed) == described


def test_an_unknown_network_is_refused_with_the_known_ones():
    with pytest.raises(RunError, match="unknown network 'UNet'; known: JointNet"):
        build_network({"class": "UNet", "arguments": {}})


# Weights


def test_weights_are_halved_and_keras_own_loader_reads_them(network, tmp_path):
    network.save_weights(tmp_path / "whole.weights.h5")
    save_weights(network, tmp_path / WEIGHTS)
    arrays = datasets(tmp_path / WEIGHTS)
    assert {array.dtype for array in arrays.values()} == {np.dtype("float16")}
    assert sum(array.size for array in arrays.values()) == network.count_params()
    other = JointNet(**NETWORK)
    other.load_weights(tmp_path / WEIGHTS)
    for loaded, exact in zip(other.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, exact.astype(np.float16).astype(np.float32))


def test_the_file_is_half_as_large(tmp_path):
    """Of a network that is large enough for its numbers to count, not HDF5's tables."""
    model = JointNet(growth_rates=(16, 32, 64), bridge_filters=128)
    model.save_weights(tmp_path / "whole.weights.h5")
    save_weights(model, tmp_path / WEIGHTS)
    sizes = [(tmp_path / name).stat().st_size for name in (WEIGHTS, "whole.weights.h5")]
    assert 0.4 < sizes[0] / sizes[1] < 0.6
    assert sizes[0] < 2.2 * model.count_params() + 300_000


def test_weights_of_a_mixed_precision_network_are_those_of_a_plain_one(network, tmp_path):
    mixed = JointNet(**NETWORK, dtype="mixed_bfloat16")
    mixed.set_weights(network.get_weights())
    save_weights(network, tmp_path / "a.weights.h5")
    save_weights(mixed, tmp_path / "b.weights.h5")
    one, other = datasets(tmp_path / "a.weights.h5"), datasets(tmp_path / "b.weights.h5")
    assert set(one) == set(other)
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_writing_weights_leaves_the_network_and_no_other_file(network, tmp_path):
    before = network.get_weights()
    save_weights(network, tmp_path / WEIGHTS)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]
    assert all(map(np.array_equal, before, network.get_weights()))


def test_a_failure_while_writing_weights_leaves_the_older_file(network, tmp_path, monkeypatch):
    save_weights(network, tmp_path / WEIGHTS)
    before = (tmp_path / WEIGHTS).read_bytes()

    def disk_full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jointnet.runs._repack", disk_full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_weights(network, tmp_path / WEIGHTS)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]
    assert (tmp_path / WEIGHTS).read_bytes() == before


# Run folders


def test_a_run_is_its_network_its_weights_and_its_configuration(folder):
    run = load_run(folder)
    assert run.folder == folder and run.name == "copy"
    assert run.config == json.loads((folder / "config.json").read_text())
    keras.utils.set_random_seed(0)
    expected = [w.astype(np.float16) for w in JointNet(**NETWORK).get_weights()]
    assert all(map(np.array_equal, run.model.get_weights(), expected))
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    probabilities = run.model.predict_on_batch(image)
    assert probabilities.shape == (1, 16, 16, 1)
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_a_run_can_be_used_in_another_precision(folder):
    assert load_run(folder, "mixed_bfloat16").model.dtype_policy.name == "mixed_bfloat16"


def refusal(folder: Path) -> str:
    with pytest.raises(RunError) as caught:
        load_run(folder)
    message = str(caught.value)
    assert "\n" not in message and message.strip()
    return message


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_folder_that_lacks_a_part_is_no_run(folder, name):
    (folder / name).unlink()
    assert f"copy is not a run folder: it has no {name};" in refusal(folder)


def test_a_file_or_nothing_is_no_run(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "nothing"):
        assert f"{path} is not a run folder" in refusal(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"network": {}}'])
def test_a_damaged_configuration_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    assert "copy cannot be loaded" in refusal(folder)


@pytest.mark.parametrize("key", CONFIG_KEYS)
def test_a_configuration_that_lacks_what_prediction_needs_is_refused(folder, key):
    config = json.loads((folder / "config.json").read_text())
    del config[key]
    write_json(folder / "config.json", config)
    assert f"config.json has no {key}" in refusal(folder)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ({"class": "UNet", "arguments": {}}, "unknown network 'UNet'"),
        ({"class": "JointNet", "arguments": {"depth": 3}}, "depth"),
        ({"class": "JointNet", "arguments": {"groups": "four"}}, "groups"),
        ({"class": "JointNet"}, "arguments"),
        ({"class": "JointNet", "arguments": {}}, "copy cannot be loaded"),
    ],
)
def test_a_network_that_is_unknown_or_does_not_fit_is_refused(folder, network, expected):
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"network": network})
    assert expected in refusal(folder)


@pytest.mark.parametrize("share", [0, 0.5])
def test_truncated_weights_are_refused(folder, share):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "copy cannot be loaded" in refusal(folder)


# Environment


def test_the_environment_says_versions_backend_device_and_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/some/where/train_jointnet.py", "--data", "/my/own/data"])
    found = json.loads(json.dumps(environment()))
    # Where a folder lay on this machine helps nobody.
    assert found["packages"]["keras"] == keras.__version__
    assert found["backend"] == keras.backend.backend()
    assert found["devices"] and found["cores"] >= 1 and found["processor"] is not None
    assert found["command"] == "train_jointnet.py --data data"
    assert {"python", "platform", "commit"} <= set(found)


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert environment()["commit"] is None
