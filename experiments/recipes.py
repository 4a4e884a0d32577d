"""Recipes: what to train on what and how, as functions whose docstrings say what to expect.

A recipe is run by ``experiments/train_jointnet.py --recipe NAME``, or from Python by
``experiments.training_run.run(recipes.NAME(), ...)``. Those with the published settings are in
``published_recipes``, those behind the weights that come with the project in ``open_recipes``.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from experiments.open_recipes import (
    open_buildings,
    open_buildings_on,
    open_buildings_recall,
    open_roads,
)
from experiments.published_recipes import (
    inria_buildings,
    massachusetts_buildings,
    massachusetts_roads,
)
from experiments.recipe import Recipe, Validation
from jointnet.settings import TrainingSettings
from preprocessing.inria import inria_scenes
from preprocessing.output_files import folder_beside
from preprocessing.patch_store import PatchSettings
from preprocessing.scenes import Scene


def sample() -> Recipe:
    """Generated scenes, to see everything work in minutes on a CPU.

    Source: ``preprocessing.sample_scenes``; the network is JointNet at a quarter of its width.
    Data: 12 scenes of 512 x 512 pixels, generated into ``<data>/sample_scenes`` where they are
    missing; scene 1 of both places is held back.
    Command: ``python experiments/train_jointnet.py --recipe sample``
    Time: under 8 minutes on 2 cores. Score: validation IoU above 0.75 at 0.6.
    """

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        folder = data / "sample_scenes"
        if not folder.exists():
            from preprocessing.sample_scenes import write_sample_scenes

            # All scenes or none: a folder with some of them would pass for the whole.
            with folder_beside(folder) as beside:
                write_sample_scenes(beside / "scenes", scenes=12, size=512, seed=0)
                (beside / "scenes").rename(folder)
        return inria_scenes(folder, validation or (1,))

    return Recipe(
        name="sample",
        scenes=scenes,
        variant="jointnet_quarter",
        patches=PatchSettings(patch_size=256, stride=128, validation_size=128),
        training=TrainingSettings(
            crop_size=128,
            batch_size=8,
            epochs=11,
            steps_per_epoch=60,
            learning_rate=3e-3,
            schedule="cosine",
            warmup_steps=30,
            loss="cross_entropy+dice",
            precision="mixed_bfloat16",
        ),
    )


def polygons(where: str | None = None, buffer_m: float | None = None) -> Recipe:
    """Your own rasters with your own polygons.

    Source: settings of ``open_buildings``; with lines those of ``open_roads``.
    Data: ``<data>/images`` with georeferenced rasters and ``<data>/polygons`` with a GeoJSON,
    GeoPackage or Shapefile of the same stem for each, in any CRS. Every fifth raster is held
    back unless ``--validation`` names others.
    Command: ``python experiments/train_jointnet.py --recipe polygons --data FOLDER``
    Time: 2,520 steps, about 100 minutes on 2 cores. Score: depends on the data.

    Args:
        where: which features count, as an SQL condition such as ``building = 'yes'``.
        buffer_m: metres by which lines are widened to either side; needed for lines, which
            are taken for roads.
    """

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        from preprocessing.layouts import polygon_scenes

        found = polygon_scenes(data / "images", data / "polygons", validation)
        return [replace(scene, where=where, buffer_m=buffer_m) for scene in found]

    if buffer_m is None:
        return replace(open_buildings(), name="polygons", scenes=scenes)
    roads = replace(open_roads(), name="polygons", scenes=scenes).with_training(source_shares=None)
    return replace(roads, patches=replace(open_buildings().patches, target="roads"))


RECIPES: dict[str, Callable[..., Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        sample,
        inria_buildings,
        massachusetts_roads,
        massachusetts_buildings,
        polygons,
        open_buildings,
        open_buildings_on,
        open_buildings_recall,
        open_roads,
    )
}
