"""The training command, and the run from a recipe to a finished folder behind it."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import click
import h5py
import matplotlib.image
import numpy as np
import pytest
from click.testing import CliRunner, Result

from experiments import recipes
from experiments.options import parse_validation
from experiments.train_jointnet import main
from experiments.training_command import (
    choose_recipe,
    default_store,
    polygon_report,
    run_folder,
)
from jointnet import JointNet
from jointnet import recipe as recipe_module
from jointnet.distribution import Devices
from jointnet.metrics import threshold_mask
from jointnet.prediction import predict_image
from jointnet.recipe import prepare_store, refuse_other_scenes, train_recipe
from jointnet.runs import WEIGHTS, load_run
from preprocessing.errors import RunError, StoreError
from preprocessing.patch_store import open_store, validation_scenes
from tests.helpers import error
from tests.test_event_log import read_events
from tests.training_fixtures import (
    NETWORK,
    PATCHES,
    run_python,
    squares,
    tiny_recipe,
    tiny_store,
    trained,
    write_inria,
)

pytestmark = pytest.mark.usefixtures("plain_graphs")

NO_LABELS = {"where": None, "buffer_m": None}


def train(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def copy(tmp_path, eager) -> Path:
    """A copy of a finished run."""
    return shutil.copytree(trained().folder, tmp_path / "copy")


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


# The run folder


def test_a_run_folder_holds_what_is_promised():
    folder = trained().folder
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "environment.json",
        "data.json",
        "history.csv",
        "metrics.json",
        "curves.png",
        "pictures",
        "checkpoints",
        "events",
        WEIGHTS,
    }


def test_the_configuration_says_what_use_and_repetition_depend_on():
    done = trained()
    config = read(done.folder / "config.json")
    arguments = config["network"]["arguments"]
    assert config["network"]["class"] == "JointNet"
    assert arguments["growth_rates"] == list(NETWORK["growth_rates"])
    assert arguments["band_offset"] == done.store.manifest["band_mean"]
    assert arguments["band_scale"] == done.store.manifest["band_std"]
    assert config["parameters"] == done.run.model.count_params()
    expected = {"bands": 3, "dtype": "uint8", "target": "buildings", "threshold": 0.6}
    assert expected.items() <= config.items()
    assert config["gsd"] == pytest.approx(0.3, rel=1e-3)
    assert (config["window"], config["overlap"]) == (16, 4)
    assert config["recipe"]["name"] == "tiny"
    assert config["recipe"]["training"]["epochs"] == 2
    assert config["recipe"]["patches"]["patch_size"] == 32


def test_the_data_say_which_scenes_stood_where_and_of_what_pixels():
    done = trained()
    data = read(done.folder / "data.json")
    assert data["manifest_sha256"] == done.store.sha256
    assert data["patches"] == {"train": 5, "validation": 8}
    assert [(s["name"], s["split"]) for s in data["scenes"]] == [
        ("ashby1", "validation"),
        ("ashby2", "train"),
        ("borth1", "validation"),
        ("borth2", "train"),
    ]
    for scene, described in zip(data["scenes"], done.store.manifest["scenes"], strict=True):
        assert scene["image_sha256"] == described["image"]["sha256"]
        assert scene["label_sha256"] == described["label"]["sha256"]
    # No path: the folder is read on other machines, and put into git.
    for name in ("data.json", "config.json", "metrics.json"):
        assert str(done.data) not in (done.folder / name).read_text()


def test_the_metrics_are_those_of_the_weights_as_written_on_whole_scenes(eager):
    done = trained()
    metrics = read(done.folder / "metrics.json")
    history = read(done.folder / "checkpoints" / "state.json")["history"]
    assert metrics["epochs"] == 2 and metrics["best_epoch"] in history
    assert metrics["best_epoch"]["validation_iou"] == max(r["validation_iou"] for r in history)
    overall = [row for row in metrics["scenes"] if row["place"] == "overall"]
    assert [row["threshold"] for row in overall] == [0.5, 0.6]
    found = wanted = both = 0
    for scene in validation_scenes(done.store):
        probabilities = predict_image(
            done.run.model.predict_on_batch, scene.image, window=16, overlap=4
        )
        mask = threshold_mask(probabilities, 0.6)
        found, wanted = found + (mask == 1).sum(), wanted + (scene.mask == 1).sum()
        both += ((mask == 1) & (scene.mask == 1)).sum()
    assert overall[1]["true_positive"] == both
    assert overall[1]["false_positive"] == found - both
    assert overall[1]["false_negative"] == wanted - both


def test_the_weights_are_those_of_the_best_epoch_in_half_precision():
    done = trained()
    with (
        h5py.File(done.folder / WEIGHTS) as ours,
        h5py.File(done.folder / "checkpoints" / "best.weights.h5") as best,
    ):
        names = []
        ours.visititems(
            lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None
        )
        assert len(names) == len(done.run.model.weights)
        for name in names:
            assert np.array_equal(ours[name][...], best[name][...].astype(np.float16))


def test_pictures_and_curves_are_there():
    folder = trained().folder
    for path in (folder / "curves.png", folder / "pictures" / "ashby1.png"):
        assert matplotlib.image.imread(path).shape[0] > 200


def test_it_ends_with_the_picture_and_the_line_that_predicts_with_it():
    done = trained()
    lines = done.printed.strip().splitlines()
    assert lines[-2] == f"picture of ashby1: {done.folder / 'pictures' / 'ashby1.png'}"
    *command, flag, model, option, image = shlex.split(lines[-1].split(": ", 1)[1])
    assert command == ["python", "experiments/infer.py"]
    assert (flag, option) == ("--model", "--image")
    assert Path(model) == done.folder and " " in model
    assert Path(image) == done.data / "images" / "ashby1.tif"
    assert load_run(Path(model)).config == done.run.config
    # Above them the table, whose last line is all scenes at 0.6.
    assert lines[-3].split()[:4] == ["0.6", "overall", "2", "1,240"]


def test_the_run_is_what_its_folder_loads(eager):
    done = trained()
    assert done.run.config == read(done.folder / "config.json")
    image = squares(16, 16)[0][None]
    again = load_run(done.folder).model.predict_on_batch(image)
    np.testing.assert_array_equal(again, done.run.model.predict_on_batch(image))


# Resuming


def refusal(folder: Path, resume: bool, recipe=None, store=None) -> str:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(RunError) as caught:
        train_recipe(recipe or trained().recipe, store or trained().store, folder, resume)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_is_not_overwritten(copy):
    assert "holds a run already; go on with --resume" in refusal(copy, resume=False)


def test_there_must_be_a_run_to_resume(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no run to go on with" in refusal(tmp_path / "empty", resume=True)
    assert "holds no run to go on with" in refusal(tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("recipe", "differing"),
    [
        (tiny_recipe(epochs=3), "recipe"),
        (tiny_recipe(seed=1), "recipe"),
        (replace(tiny_recipe(), variant="jointnet_block_input"), "network, parameters, recipe"),
        (replace(tiny_recipe(), network=NETWORK | {"bridge_filters": 16}), "network, parameters"),
        (tiny_recipe(threshold=0.5), "recipe, threshold"),
    ],
)
def test_a_run_of_other_options_is_not_resumed(copy, recipe, differing):
    message = refusal(copy, resume=True, recipe=recipe)
    assert f"was begun with another {differing};" in message


def test_a_run_on_other_scenes_is_not_resumed(copy):
    """Other labels, say: the same bands, sizes and settings, so that nothing else differs."""
    manifest = json.loads(json.dumps(trained().store.manifest))
    manifest["scenes"][1]["label"]["sha256"] = "0" * 64
    message = refusal(copy, resume=True, store=replace(trained().store, manifest=manifest))
    assert "was begun with another data;" in message


def test_a_run_moved_with_its_store_can_be_resumed(copy, monkeypatch):
    """Paths in the manifest, and with them its hash, may change; the pixels may not."""
    manifest = json.loads(json.dumps(trained().store.manifest).replace("/data/", "/moved/"))
    called = []
    monkeypatch.setattr(recipe_module, "train", lambda *arguments: called.append(arguments))
    monkeypatch.setattr(recipe_module, "save_weights", lambda *arguments: None)
    monkeypatch.setattr(recipe_module, "_judge", lambda *arguments: None)
    train_recipe(trained().recipe, replace(trained().store, manifest=manifest), copy, resume=True)
    assert called[0][-1] is True


@pytest.mark.parametrize(
    ("name", "text"), [("config.json", "{"), ("config.json", "[]"), ("data.json", "[]")]
)
def test_a_damaged_record_is_not_resumed(copy, name, text):
    (copy / name).write_text(text)
    assert "cannot be resumed" in refusal(copy, resume=True)


def test_a_run_begun_before_an_option_existed_can_be_resumed(copy, monkeypatch):
    """What its config.json does not know was not used."""
    config = read(copy / "config.json")
    before = {key: value for key, value in config["recipe"].items() if value is not None}
    before["training"] = {k: v for k, v in before["training"].items() if v is not None}
    assert before != config["recipe"]
    (copy / "config.json").write_text(json.dumps(config | {"recipe": before}))
    monkeypatch.setattr(recipe_module, "train", lambda *arguments: None)
    monkeypatch.setattr(recipe_module, "save_weights", lambda *arguments: None)
    monkeypatch.setattr(recipe_module, "_judge", lambda *arguments: "done")
    assert train_recipe(trained().recipe, trained().store, copy, resume=True) == "done"


def test_a_run_killed_in_its_first_epoch_begins_again(copy, monkeypatch):
    shutil.rmtree(copy / "checkpoints")
    (copy / WEIGHTS).unlink()
    called = []
    monkeypatch.setattr(recipe_module, "train", lambda *arguments: called.append(arguments))
    monkeypatch.setattr(recipe_module, "save_weights", lambda *arguments: None)
    monkeypatch.setattr(recipe_module, "_judge", lambda *arguments: None)
    train_recipe(trained().recipe, trained().store, copy, resume=True)
    assert called[0][-1] is False


def test_a_finished_run_is_only_written_again(copy):
    """Resumed after its last epoch: the same weights and figures, also where they were lost."""
    before = {name: (copy / name).read_bytes() for name in ("metrics.json", "history.csv")}
    (copy / "metrics.json").unlink()
    (copy / WEIGHTS).unlink()
    again = train_recipe(trained().recipe, trained().store, copy, resume=True)
    assert {name: (copy / name).read_bytes() for name in before} == before
    for one, other in zip(
        again.model.get_weights(), trained().run.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


# The store


def test_a_store_is_cut_once_and_opened_after_that(tmp_path):
    data = write_inria(tmp_path / "data")
    cut = prepare_store(tiny_recipe(), data, tmp_path / "store")
    shutil.rmtree(data)
    again = prepare_store(tiny_recipe(), tmp_path / "nowhere", tmp_path / "store")
    assert again.sha256 == cut.sha256


def test_a_store_of_other_settings_is_refused_with_both(tmp_path):
    tiny_store(tmp_path)
    other = replace(tiny_recipe(), patches=replace(PATCHES, stride=32))
    with pytest.raises(StoreError, match=r"stride=16.*the recipe asks for .*stride=32"):
        prepare_store(other, tmp_path / "data", tmp_path / "store")


def test_a_store_of_fewer_scenes_than_the_data_have_by_now_is_refused(tmp_path):
    store = tiny_store(tmp_path)
    recipe = tiny_recipe()
    refuse_other_scenes(store, recipe, tmp_path / "data")
    with pytest.raises(StoreError, match=r"they differ in ashby2 \((train|validation)\)"):
        refuse_other_scenes(store, replace(recipe, validation=[1, "ashby2"]), tmp_path / "data")
    for folder in ("images", "gt"):
        source = tmp_path / "data" / folder
        shutil.copy(source / "borth2.tif", source / "borth3.tif")
    with pytest.raises(StoreError, match=r"4 scenes, .* has 5, .* borth3 \(train\)"):
        refuse_other_scenes(store, recipe, tmp_path / "data")


def test_what_became_of_polygons_is_added_up_and_said(tmp_path):
    store = tiny_store(tmp_path)
    assert polygon_report(store) == []
    for number, scene in enumerate(store.manifest["scenes"]):
        scene["polygons"] = {"read": number, "repaired": 1} if number else None
    assert polygon_report(store) == ["polygons of 3 scenes: 6 read, 3 repaired"]


# Choices of the command


def test_without_a_name_it_is_inria_where_inria_lies(tmp_path, capsys):
    write_inria(tmp_path / "AerialImageDataset" / "train", {"austin1": (8, 8)})
    assert choose_recipe(None, tmp_path, NO_LABELS).name == "inria_buildings"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Training on Inria in ")


def test_without_inria_the_first_line_says_so_plainly(tmp_path, capsys):
    assert choose_recipe(None, tmp_path, NO_LABELS).name == "sample"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("No Inria in ") and "generated sample scenes instead" in line


def test_a_named_recipe_is_taken_and_nothing_said(tmp_path, capsys):
    for name in recipes.RECIPES:
        assert choose_recipe(name, tmp_path, NO_LABELS).name == name
    assert capsys.readouterr().out == ""


def test_polygon_options_belong_to_polygons(tmp_path):
    with pytest.raises(click.UsageError, match="belong to --recipe polygons"):
        choose_recipe("sample", tmp_path, {"where": "a = 1", "buffer_m": None})


def test_runs_are_numbered(here):
    results = here / "results"
    assert run_folder("sample", None, False) == Path("results/sample")
    (results / "sample").mkdir(parents=True)
    assert run_folder("sample", None, False) == Path("results/sample-2")
    (results / "sample-2").mkdir()
    assert run_folder("sample", None, False) == Path("results/sample-3")
    # The latest goes on; a name is a name.
    assert run_folder("sample", None, True) == Path("results/sample-2")
    assert run_folder("polygons", None, True) == Path("results/polygons")
    for resume in (True, False):
        assert run_folder("sample", "mine", resume) == Path("results/mine")


def test_each_way_to_cut_has_a_store_of_its_own(tmp_path):
    recipe = tiny_recipe()
    ways = [
        default_store(recipe, tmp_path, None, None),
        default_store(recipe, tmp_path, "a = 1", None),
        default_store(recipe, tmp_path, None, 2.0),
        default_store(replace(recipe, validation=[1]), tmp_path, None, None),
        default_store(replace(recipe, validation=["a1"]), tmp_path, None, None),
        default_store(replace(recipe, patches=replace(PATCHES, stride=8)), tmp_path, None, None),
        default_store(recipe, tmp_path / "other", None, None),
    ]
    assert len(set(ways)) == len(ways)
    assert all(way.parent.name == "patches" for way in ways)
    # Training may change without another cut.
    assert default_store(tiny_recipe(epochs=9), tmp_path, None, None) == ways[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", [1]), ("1,2, austin7 ,3", [1, 2, "austin7", 3]), ("a_b", ["a_b"]), (None, None)],
)
def test_what_is_held_back_is_read_as_numbers_and_names(text, expected):
    assert parse_validation(None, None, text) == expected


@pytest.mark.parametrize("text", ["", " ", ","])
def test_holding_back_nothing_is_refused(text):
    with pytest.raises(click.BadParameter, match="give tile numbers or names"):
        parse_validation(None, None, text)


# The command


def test_help_names_the_recipes_and_the_options():
    result = train("--help")
    assert result.exit_code == 0
    for word in (*recipes.RECIPES, "--resume", "--precision", "--early-stopping", "--store"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--recipe", "nonsense"], "'nonsense'"),
        (["--nonsense", "1"], "--nonsense"),
        (["--recipe", "sample", "--variant", "resnet"], "resnet"),
        (["--recipe", "sample", "--epochs", "0"], "--epochs"),
        (["--recipe", "sample", "--precision", "float16"], "float16"),
        (["--recipe", "sample", "--validation", ","], "give tile numbers"),
        (["--recipe", "sample", "--where", "a = 1"], "--recipe polygons"),
        (["--recipe", "sample", "--resume"], "holds no run to go on with"),
        (["--recipe", "sample", "--run", "mine", "--resume"], "holds no run to go on with"),
        (["--recipe", "polygons"], "is not a folder"),
        (["--recipe", "inria_buildings"], "no data set of the Inria layout"),
        (["--recipe", "sample", "--from", "mine"], "mine is not a run folder"),
        (["--recipe", "sample", "--from", "a", "--variant", "jointnet"], "leave it or --variant"),
        (["--recipe", "sample", "--run", "../mine"], "no plain name"),
        (["--recipe", "sample", "--run", ""], "no plain name"),
        (["--recipe", "open_buildings", "--validation", "1"], "leave --validation out"),
        (["extra"], "extra"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_made(here, arguments, expected):
    assert expected in error(train(*arguments))
    assert list(here.iterdir()) == []


def test_a_run_that_exists_is_refused_before_anything_is_generated(here):
    (here / "results" / "mine").mkdir(parents=True)
    (here / "results" / "mine" / "config.json").write_text("{}")
    message = error(train("--recipe", "sample", "--run", "mine"))
    assert "results/mine holds a run already" in message
    assert not (here / "data").exists()


def test_a_store_that_exists_keeps_its_split(here):
    tiny_store(here)
    message = error(train("--recipe", "sample", "--store", "store", "--validation", "2"))
    assert "store exists" in message and "--validation" in message


def test_a_store_of_another_recipe_is_refused(here):
    tiny_store(here)
    assert "store was cut with" in error(train("--recipe", "sample", "--store", "store"))
    assert not (here / "results").exists()


def test_options_reach_the_recipe(here, monkeypatch):
    """All the way to what is trained, with everything else as the recipe has it."""
    called, opened = [], trained().store
    monkeypatch.setattr(recipe_module, "train_recipe", lambda *arguments: called.append(arguments))
    monkeypatch.setattr(
        recipe_module, "prepare_store", lambda *arguments: called.append(arguments) or opened
    )
    monkeypatch.setattr(recipe_module, "refuse_other_scenes", lambda *arguments: None)
    options = "--epochs 3 --steps 5 --batch-size 2 --precision float32 --early-stopping 4 --seed 7"
    result = train(
        *("--recipe", "sample", "--variant", "jointnet_half", "--validation", "2,modelton1"),
        *options.split(),
    )
    assert result.exit_code == 0, result.output
    (recipe, data, _), (same, store, folder, resume, network, devices) = called
    assert recipe == same and store is opened and network is JointNet
    assert devices == Devices()
    assert (data, folder, resume) == (Path("data"), Path("results/sample"), False)
    assert recipe.variant == "jointnet_half" and recipe.validation == [2, "modelton1"]
    assert recipe.training == replace(
        recipes.sample().training,
        epochs=3,
        steps_per_epoch=5,
        batch_size=2,
        precision="float32",
        early_stopping=4,
        seed=7,
    )
    assert "5 training and 8 validation patches" in result.stdout
    assert "results/sample" in result.stdout


@pytest.mark.slow
def test_the_sample_recipe_runs_from_nothing_to_a_picture(here, monkeypatch):
    """Cut short: one epoch of two steps at a quarter of the width."""
    options = "--epochs 1 --steps 2 --variant jointnet_quarter --precision float32"
    result = train(*options.split())
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("No Inria in data/AerialImageDataset")
    assert "the run is written to results/sample" in lines[1]
    picture = Path(lines[-2].split(": ")[1])
    assert picture.parent == Path("results/sample/pictures") and picture.is_file()
    assert lines[-1].startswith(
        "predict with it: python experiments/infer.py --model results/sample --image /"
    )
    assert Path(shlex.split(lines[-1])[-1]).is_file()
    assert len(list((here / "data" / "sample_scenes" / "train" / "images").iterdir())) == 12
    store = open_store(next((here / "data" / "patches").iterdir()))
    assert set(store.validation.scenes) == {"modelton1", "sampleville1"}
    environment = read(here / "results" / "sample" / "environment.json")
    assert environment["backend"] and environment["command"]
    # No accelerator, or one for which Keras decides.
    assert environment["xla"] is any("cpu" not in device for device in environment["devices"])
    # The same again is another run, and going on needs the same options.
    assert "was begun with another recipe" in error(train("--resume", "--recipe", "sample"))
    assert not (here / "results" / "sample-2").exists()


# Without TensorFlow and GDAL

JAX = """
import os
from pathlib import Path
import numpy as np
from experiments import recipes
from jointnet.training_settings import TrainingSettings
from preprocessing.patch_store import PatchSettings

store, here, network = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
recipes.RECIPES["tiny"] = lambda: recipes.Recipe(
    name="tiny", scenes=None, variant="jointnet", network=network,
    patches=PatchSettings(patch_size=32, stride=16, validation_size=16),
    training=TrainingSettings(
        crop_size=16, batch_size=2, epochs=2, steps_per_epoch=2, learning_rate=1e-3,
        schedule="cosine", weight_decay=0.01, loss="cross_entropy+dice", weight_average=0.9,
    ),
)
from experiments.options import parse_validation
from experiments.train_jointnet import main
from jointnet.runs import load_run

os.chdir(here)
try:
    main(["--recipe", "tiny", "--store", str(store), "--run", "jax"])
except SystemExit as end:
    assert end.code == 0, end.code
image = np.load("image.npy")
np.save("probabilities.npy", load_run(Path("results/jax")).model.predict_on_batch(image))
assert not {"tensorflow", "rasterio", "shapely"} & {n for n, m in sys.modules.items() if m}
"""


@pytest.mark.slow
def test_a_machine_with_jax_and_numpy_trains_what_tensorflow_then_loads(tmp_path):
    pytest.importorskip("jax")
    store = tiny_store(tmp_path)
    image = squares(32, 32)[0][None]
    np.save(tmp_path / "image.npy", image)
    blocked = ("tensorflow", "rasterio", "affine", "shapely", "geopandas", "pyogrio", "pyproj")
    done = run_python(
        JAX,
        *(store.folder, tmp_path, NETWORK),
        blocked=blocked,
        KERAS_BACKEND="jax",
        # Compiles twice as fast; what is compiled runs a few times.
        XLA_FLAGS="--xla_backend_optimization_level=0",
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "jax"
    assert {path.name for path in folder.iterdir()} == {
        path.name for path in trained().folder.iterdir()
    }
    environment = read(folder / "environment.json")
    assert (environment["backend"], environment["xla"]) == ("jax", True)
    assert set(read_events(folder / "events")) >= {"loss", "validation_iou"}
    assert (folder / "pictures" / "ashby1.png").is_file()
    assert len(read(folder / "checkpoints" / "state.json")["history"]) == 2
    found = load_run(folder).model.predict_on_batch(image)
    np.testing.assert_allclose(found, np.load(tmp_path / "probabilities.npy"), atol=1e-5)
    # They are trained weights: not those of a fresh network.
    assert np.ptp(found) > 1e-4
