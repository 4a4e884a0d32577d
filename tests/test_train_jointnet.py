"""The training command: what its options choose, and a run from nothing to a picture."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from experiments import recipes
from experiments.options import parse_validation
from experiments.train_jointnet import main
from experiments.training_command import (
    choose_recipe,
    default_store,
    describe_polygons,
    run_folder,
)
from jointnet import JointNet
from jointnet import recipe as recipe_module
from jointnet.distribution import Devices
from jointnet.runs import load_run
from preprocessing import sample_scenes
from preprocessing.patch_store import open_store
from tests.helpers import error
from tests.training_fixtures import (
    NETWORK,
    PATCHES,
    read_events,
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


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_what_became_of_polygons_is_added_up_and_said(tmp_path):
    store = tiny_store(tmp_path)
    assert describe_polygons(store) == []
    for number, scene in enumerate(store.manifest["scenes"]):
        counts = {"read": 5 * number, "repaired": 1, "dropped": 2, "outside": 1, "partly": 3}
        scene["polygons"] = counts if number else None
    (line,) = describe_polygons(store)
    assert line == (
        "vector labels of 3 scenes: 21 of 30 polygons used (9 partly outside the raster), "
        "3 repaired, 6 dropped, 3 outside"
    )


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
    for word in (*recipes.RECIPES, "--resume", "--precision", "--set", "--store"):
        assert word in result.stdout
    assert len(main.params) == 12


HELP = """
from experiments import prepare, train_jointnet, train_resnet

for command in (prepare, train_jointnet, train_resnet):
    try:
        command.main(["--help"])
    except SystemExit as end:
        assert end.code == 0
"""


def test_help_waits_for_no_engine():
    done = run_python(HELP, blocked=("keras", "tensorflow", "rasterio", "cv2", "matplotlib"))
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.count("Usage:") == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--recipe", "nonsense"], "'nonsense'"),
        (["--nonsense", "1"], "--nonsense"),
        (["--recipe", "sample", "--set", "variant=resnet"], "there are jointnet, jointnet_block"),
        (["--recipe", "sample", "--set", "epochs=0"], "epochs must be positive; got 0"),
        (["--recipe", "sample", "--set", "epohcs=3"], "no such setting; there are epochs, "),
        (["--set", "crop_size=64"], "--set crop_size=64: no such setting; there are epochs, "),
        (["--set", "epochs=many"], "--set epochs=many: not a whole number"),
        (["--set", "learning_rate=fast"], "--set learning_rate=fast: not a number"),
        (["--set", "learning_rate=nan"], "learning_rate must be positive; got nan"),
        (["--set", "seed=-1"], "seed must lie in 0..4294967295; got -1"),
        (["--set", "epochs=none"], "--set epochs=none: not a whole number"),
        (["--set", "loss=hinge"], "loss must be one of dice, focal, cross_entropy+dice"),
        (["--set", "rematerialise=all"], "one of None, concatenations, blocks; got 'all'"),
        (["--set", "epochs"], "--set epochs: has no value; write epochs=VALUE"),
        (["--set", "batch_size=4"], "--set batch_size: give --batch-size"),
        (["--set", "precision=float32"], "--set precision: give --precision"),
        (["--recipe", "sample", "--precision", "float16"], "float16"),
        (["--recipe", "sample", "--validation", ","], "give tile numbers"),
        (["--recipe", "sample", "--where", "a = 1"], "--recipe polygons"),
        (["--recipe", "sample", "--resume"], "holds no run to go on with"),
        (["--recipe", "sample", "--run", "mine", "--resume"], "holds no run to go on with"),
        (["--recipe", "polygons"], "is not a folder"),
        (["--recipe", "inria_buildings"], "no data set of the Inria layout"),
        (["--recipe", "sample", "--from", "mine"], "mine is not a run folder"),
        (
            ["--recipe", "sample", "--from", "a", "--set", "variant=jointnet"],
            "leave it or --set variant out",
        ),
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
    settings = {"epochs": 3, "steps_per_epoch": 5, "early_stopping": 4, "seed": 7}
    settings |= {"learning_rate": 2e-4, "loss": "focal", "weight_average": 0.9}
    result = train(
        *("--recipe", "sample", "--set", "variant=jointnet_half", "--validation", "2,modelton1"),
        *("--batch-size", 2, "--precision", "float32", "--set", "rematerialise=none"),
        *(word for item in settings.items() for word in ("--set", "{}={}".format(*item))),
    )
    assert result.exit_code == 0, result.output
    (recipe, data, _), (same, store, folder, resume, network, devices) = called
    assert recipe == same and store is opened and network is JointNet
    assert devices == Devices()
    assert (data, folder, resume) == (Path("data"), Path("results/sample"), False)
    assert recipe.variant == "jointnet_half" and recipe.validation == [2, "modelton1"]
    assert recipe.training == replace(
        recipes.sample().training,
        batch_size=2,
        precision="float32",
        **settings,
    )
    assert "5 training and 8 validation patches" in result.stdout
    assert "results/sample" in result.stdout


@pytest.mark.slow
def test_the_sample_recipe_runs_from_nothing_to_a_picture(here, monkeypatch, eager):
    """Cut short: smaller scenes, and one epoch of two steps at a quarter of the width."""
    write = sample_scenes.write_sample_scenes
    monkeypatch.setattr(
        sample_scenes,
        "write_sample_scenes",
        lambda folder, **options: write(folder, **options | {"size": 256}),
    )
    options = "--set epochs=1 --set steps_per_epoch=2 --batch-size 2 --precision float32"
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
