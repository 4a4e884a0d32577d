"""Runs side by side: settings that differ, figures, and differences on the same scenes."""

import csv
import json
import os
from pathlib import Path

import pytest

from jointnet.metrics import Counts
from jointnet.run_comparison import (
    _broken,
    _shortened,
    compare_runs,
    describe_runs,
    differing,
    flatten,
    is_run,
    read_run,
    read_runs,
    run_differences,
    run_text,
    setting,
)
from preprocessing.errors import RunError

RESULTS = Path(__file__).resolve().parents[1] / "results"


def row(place: str, counts: Counts, **more: object) -> dict:
    return {"place": place, "threshold": 0.6, **counts.metrics(), **vars(counts), **more}


def make(folder: Path, found: dict[str, Counts] | None = None, kept: bool = True, **training: int):
    """A run with counts by scene, each its own place; ``kept`` says whether scenes are."""
    folder.mkdir(parents=True)
    config = {"network": {"class": "JointNet", "arguments": {"growth_rates": [4, 8]}}}
    config |= {"parameters": 5, "recipe": {"name": "r", "training": training}}
    (folder / "config.json").write_text(json.dumps(config))
    if found is None:
        return folder
    pooled = sum(found.values(), Counts())
    summary = [row(name, one, scenes=1) for name, one in found.items()]
    summary.append(row("overall", pooled, scenes=len(found)))
    metrics = {"best_epoch": {"epoch": 3}, "epochs": 4, "scenes": summary}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    if kept:
        scenes = [row(name, one, name=name) for name, one in found.items()]
        evaluation = {"summary": summary, "scenes": scenes}
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


# Of 20 target pixels in each scene, 10 and 12 are found.
WORSE = {f"s{n}": Counts(10, 5, 10, 75) for n in range(7)}
BETTER = {f"s{n}": Counts(12, 5, 8, 75) for n in range(7)}


def test_settings_are_flat_but_for_what_is_one():
    blur = {"strength": 0.1, "probability": 0.5}
    nested = {"a": {"b": 1, "c": {"d": [1, 2]}}, "blur": blur, "source_shares": {"x": 1.0}}
    assert flatten(nested) == {
        "a.b": 1,
        "a.c.d": [1, 2],
        "blur": blur,
        "source_shares": {"x": 1.0},
    }


def test_only_what_differs_and_none_is_as_absent(tmp_path):
    a = make(tmp_path / "a", batch_size=4, epochs=3, seed=0, clip=None)
    b = make(tmp_path / "b", batch_size=4, epochs=5, seed=0)
    runs, _ = read_runs([a, b])
    assert differing(runs) == {"recipe.training.epochs": [3, 5]}
    assert differing(runs[:1]) == {}


def test_steps_are_those_up_to_the_kept_epoch(tmp_path):
    assert read_run(make(tmp_path / "a", WORSE, steps_per_epoch=100)).steps == 300
    assert read_run(make(tmp_path / "b", WORSE)).steps is None


def test_a_run_that_is_not_measured_yet(tmp_path):
    run = read_run(make(tmp_path / "a", epochs=3))
    assert (run.measured, run.summary, run.scenes, run.kept_epoch) == (None, [], {}, None)
    assert describe_runs([run])["differences"] == []


@pytest.mark.parametrize(
    ("kept", "unit", "file"),
    [(True, "scenes", "evaluation.json"), (False, "places", "metrics.json")],
)
def test_differences_over_scenes_or_else_places(tmp_path, kept, unit, file):
    a, b = make(tmp_path / "a", WORSE), make(tmp_path / "b", BETTER, kept)
    runs, _ = read_runs([a, b])
    assert runs[1].measured == file
    rows, others = run_differences(runs)
    iou = next(row for row in rows if row["metric"] == "iou")
    # 12 of 25 against 10 of 25, in every scene, so the interval is a point.
    assert [iou[key] for key in ("value", "low", "high")] == pytest.approx([0.08] * 3)
    assert (iou["first"], iou["second"], iou["threshold"]) == ("a", "b", 0.6)
    assert (iou["number"], iou["unit"], iou["verdict"]) == (7, unit, "higher")
    assert others == []


def test_other_labels_and_other_places_are_not_compared(tmp_path):
    changed = WORSE | {"s3": Counts(10, 5, 11, 74)}
    elsewhere = {"t": Counts(1, 1, 1, 1)}
    paths = [
        make(tmp_path / name, found)
        for name, found in (("a", WORSE), ("b", changed), ("c", elsewhere))
    ]
    rows, others = run_differences(read_runs(paths)[0])
    assert rows == []
    assert others == [
        "a and b: other scenes, labels or thresholds",
        "2 pair(s) of runs that were measured in other places",
    ]


def test_what_is_no_run_is_skipped_with_the_reason(tmp_path):
    make(tmp_path / "run", WORSE)
    (tmp_path / "README.md").touch()
    for name, content in (("torn", "{"), ("other", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    runs, skipped = read_runs([*sorted(tmp_path.iterdir()), tmp_path / "gone", tmp_path / "run"])
    assert [run.name for run in runs] == ["run"]
    assert skipped["README.md"] == "no run"
    assert skipped["gone"] == "no such file or folder"
    assert "cannot be read" in skipped["torn"]
    assert "names no network" in skipped["other"]
    with pytest.raises(RunError, match=r"no runs among .*README.md: no run"):
        read_runs([tmp_path / "README.md"])


@pytest.mark.parametrize("content", [{"summary": [{}]}, {"scenes": [{"name": "a"}]}, {"scenes": 5}])
def test_figures_of_another_form_are_refused(tmp_path, content):
    folder = make(tmp_path / "a", WORSE)
    (folder / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="evaluation.json is not what a command writes"):
        read_run(folder)


def test_the_runs_of_this_project_can_be_listed():
    content = describe_runs(*read_runs(sorted(RESULTS.iterdir())))
    runs = {run["name"]: run for run in content["runs"]}
    assert runs["open_buildings"]["measured"] == "evaluation.json"
    assert runs["open_buildings_resnet"]["network"] == "ResNetUNet"
    assert content["differing"]["target"]["open_roads"] == "roads"
    assert content["skipped"]["README.md"] == "no run"
    pairs = {(row["first"], row["second"], row["unit"]) for row in content["differences"]}
    assert ("open_buildings", "open_buildings_resnet", "places") in pairs
    json.dumps(content)


def test_a_run_has_a_config(tmp_path):
    assert is_run(make(tmp_path / "run"))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.tif").touch()
    assert not is_run(tmp_path / "masks")
    assert not is_run(tmp_path / "masks" / "a.tif")


def test_runs_are_listed(tmp_path):
    runs = [make(tmp_path / "a", WORSE, epochs=1), make(tmp_path / "b", BETTER, epochs=2)]
    content = compare_runs([*runs, tmp_path / "none"], output=tmp_path / "out")
    assert set(os.listdir(tmp_path / "out")) == {"comparison.json", "comparison.csv"}
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == content
    with (tmp_path / "out" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["name"], r["place"]) for r in rows if r["place"] == "overall"] == [
        ("a", "overall"),
        ("b", "overall"),
    ]
    text = run_text(content)
    assert "Skipped: none: no such file or folder" in text
    assert "epochs   1  2" in text
    assert "b - a              0.6  higher   +0.080  +0.080 to +0.080  7 scenes" in text


# Text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("dice", "dice"),
        (True, "true"),
        (0.00123456, "0.001235"),
        ([16, 32], "16, 32"),
        ({"strength": 0.25, "probability": 0.5}, "0.25 (p 0.5)"),
        ({"a": 0.5, "b": 0.5}, "a 0.5, b 0.5"),
        ("x" * 19, "x" * 15 + "..."),
    ],
)
def test_settings_in_few_characters(value, text):
    assert setting(value) == text


def test_long_names_are_broken_and_lose_nothing():
    assert _broken("massachusetts_buildings_sample") == ["massachusetts_", "buildings_sample"]
    assert _broken("a/b") == ["a/b"]
    for name in ("x" * 50, "_-_", "many_short_parts_in_one_name/and-more"):
        assert "".join(_broken(name)) == name
        assert max(map(len, _broken(name))) <= 18


def test_beginnings_are_left_out_where_that_is_clear():
    keys = ["recipe.training.epochs", "recipe.training.threshold", "threshold"]
    assert _shortened(keys) == {
        "recipe.training.epochs": "epochs",
        "recipe.training.threshold": "recipe.training.threshold",
        "threshold": "threshold",
    }
