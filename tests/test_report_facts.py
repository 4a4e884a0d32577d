"""What a report says of how its figures were made."""

import json
from pathlib import Path

from jointnet.report import mask_origin, read_history, run_origin
from jointnet.runs import WEIGHTS, Run
from preprocessing.output_files import hash_file
from tests.helpers import CONFIG


def run_folder(folder: Path, **files: object) -> Run:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / WEIGHTS).write_bytes(b"weights")
    config = CONFIG | {"network": {"class": "JointNet"}, "parameters": 1234567}
    return Run(folder, None, config)


def test_a_run_says_all_that_it_wrote_down(tmp_path):
    scenes = [
        {"name": "a1", "split": "validation"},
        {"name": "a2", "split": "train"},
        {"name": "b2", "split": "train"},
    ]
    run = run_folder(
        tmp_path,
        data={
            "scenes": scenes,
            "manifest_sha256": "ab12",
            "patches": {"train": 9, "validation": 2},
        },
        metrics={"best_epoch": {"epoch": 3}, "epochs": 5},
        environment={
            "command": "train_jointnet.py --recipe x",
            "python": "3.11",
            "commit": "c0ffee",
        },
    )
    origin = run_origin(run, 0.5, ["a1"], augment=True)
    facts = dict(origin.facts)
    assert facts["network"].startswith("JointNet, 1,234,567 parameters, 3 bands of uint8")
    assert facts["weights"] == f"SHA-256 {hash_file(tmp_path / WEIGHTS)}"
    assert facts["trained on"] == "2 scenes: a2, b2" and facts["scenes"] == "a1"
    assert facts["patches"] == "9 to train, 2 to validate" and "ab12" in facts["patch store"]
    assert facts["weights kept"].startswith("epoch 3, of 5 epochs") and origin.best_epoch == 3
    assert facts["training: command"] == "train_jointnet.py --recipe x"
    assert facts["training: commit"] == "c0ffee"
    assert "eight flips" in facts["prediction"] and "threshold 0.5" in facts["prediction"]
    assert str(tmp_path) not in " ".join(facts.values())


def test_what_a_run_did_not_write_down_is_left_out(tmp_path):
    (tmp_path / "metrics.json").write_text("[1, 2")
    facts = dict(run_origin(run_folder(tmp_path), 0.5, ["a1"], augment=False).facts)
    assert facts["training: machine"] == "not written down"
    assert not {"weights kept", "trained on", "patch store", "training: command"} & facts.keys()
    assert "report: software" in facts


def test_masks_say_their_folders_by_their_last_names(tmp_path):
    names = [f"s{number}" for number in range(45)]
    origin = mask_origin(tmp_path / "found", tmp_path / "labels", names, ["s1: aligned"])
    facts = dict(origin.facts)
    assert origin.title == "found against labels" and origin.threshold is None
    assert facts["masks"] == "folder found" and facts["note"] == "s1: aligned"
    assert facts["scenes"].endswith("s39 and 5 more")
    assert str(tmp_path) not in " ".join([origin.title, *facts.values()])


def test_a_history_is_read_as_numbers(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,note\n1,0.5,x\n2,,y\n,3,z\n")
    assert read_history(path) == [{"epoch": 1, "loss": 0.5}, {"epoch": 2}]
    assert read_history(tmp_path / "none.csv") == []
