"""The recipes, each with its source, data, command, time and score; and the scenes of a run.

``jointnet.training_settings`` says what the settings mean. ``--set NAME=VALUE`` of the training
commands changes one, as ``Recipe.with_training`` does.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jointnet.training_settings import Recipe, TrainingSettings, Validation
from preprocessing.augmentation import Augmentation, Change
from preprocessing.band_statistics import value_range
from preprocessing.errors import DatasetError, RunError
from preprocessing.inria import OFFICIAL_VALIDATION, inria_scenes
from preprocessing.output_files import folder_beside, hash_file
from preprocessing.patch_store import PatchSettings, PatchStore
from preprocessing.scenes import Scene, folder_scenes

if TYPE_CHECKING:
    from jointnet.runs import Run

# Name of the recipe of stores, and of its run folders.
STORED = "store"
# As in open_buildings: what fits two CPU cores and 4 GB of memory.
PIXELS_PER_BATCH = 4 * 256**2


def inria_buildings() -> Recipe:
    """Buildings on the Inria Aerial Image Labeling data set.

    Source: the public Keras implementation of JointNet, which extends Zhang and Wang 2019 to
    Inria: full width, 512 px patches, Adam 1e-4, dice loss, flips and rotations, threshold 0.6.
    Tiles 1 to 5 of every city are held back.
    Data: ``<data>/AerialImageDataset/train/{images,gt}``, 180 tiles of 5000 x 5000 pixels;
    the patch store takes 19 GB of disk.
    Command: ``python experiments/train_jointnet.py --recipe inria_buildings``; on a GPU add
    ``--precision mixed_bfloat16 --batch-size 8``, as for Massachusetts.
    Time: 15,500 patches and, on 2 cores in bfloat16, 28 hours an epoch
    (``results/benchmark/inria.md``), so for a GPU.
    Score: not measured on the whole data set; the paper has none.
    """

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        return inria_scenes(data / "AerialImageDataset", validation or OFFICIAL_VALIDATION)

    return _published("inria_buildings", scenes, "buildings", epochs=60)


def massachusetts_roads() -> Recipe:
    """Roads on the Massachusetts Roads data set.

    Source: Zhang and Wang 2019; settings as for ``inria_buildings``, but focal loss (gamma 2,
    alpha 0.25). The valid tiles are held back, with ``--validation test`` the test tiles.
    Data: ``<data>/massachusetts_roads/{train,valid,test}/{sat,map}``, 1108, 14 and 49 tiles of
    1500 x 1500 pixels; white margins are void. The patch store takes 11 GB of disk.
    Command: ``python experiments/train_jointnet.py --recipe massachusetts_roads``
    Time: 10,000 patches an epoch, for a GPU. Score: not measured on the whole data set.
    """
    return _massachusetts("roads")


def massachusetts_buildings() -> Recipe:
    """Buildings on the Massachusetts Buildings data set.

    Source: as ``massachusetts_roads``, with the dice loss.
    Data: ``<data>/massachusetts_buildings/{train,valid,test}/{sat,map}``, 137, 4 and 10 tiles of
    1500 x 1500 pixels.
    Command: ``python experiments/train_jointnet.py --recipe massachusetts_buildings``
    Time: 1,200 patches an epoch, for a GPU. Score: not measured on the whole data set.
    """
    return _massachusetts("buildings")


def _massachusetts(target: str) -> Recipe:
    name = f"massachusetts_{target}"

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        from preprocessing.massachusetts import massachusetts_scenes

        folders = list(validation or ("valid",))
        if len(folders) > 1 or folders[0] not in ("valid", "test"):
            raise DatasetError(f"{name} holds back valid or test; got --validation {folders}")
        return massachusetts_scenes(data / name, folders[0])

    return _published(name, scenes, target, epochs=100)


def _published(
    name: str, scenes: Callable[[Path, Validation], list[Scene]], target: str, epochs: int
) -> Recipe:
    return Recipe(
        name=name,
        scenes=scenes,
        variant="jointnet",
        patches=PatchSettings(patch_size=512, stride=512, validation_size=512, target=target),
        training=TrainingSettings(
            crop_size=512,
            batch_size=4,
            epochs=epochs,
            learning_rate=1e-4,
            # The public implementation chooses its loss by target.
            loss={"buildings": "dice", "roads": "focal"}[target],
            early_stopping=10,
        ),
    )


def open_buildings() -> Recipe:
    """Buildings at 0.3 m from open imagery, the first of three steps to the building weights.

    Source: architecture of Zhang and Wang 2019 at half width; our training, for two CPU cores.
    Data: ``aerial_buildings`` (16 tiles of five places, Inria layout) and ``inria_patches``
    (41 patches of two Inria tiles) in the data folder. Tiles of index 1 and all patches of
    chicago1 are held back.
    Command: ``python experiments/train_jointnet.py --recipe open_buildings --data DATA``
    Time: about 100 minutes on 2 cores. Score: results/README.md.
    """

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        if validation is not None:
            raise DatasetError("the split of open_buildings is fixed; leave --validation out")
        scenes = [
            *inria_scenes(data / "aerial_buildings", validation=(1,)),
            *inria_scenes(data / "inria_patches", validation=("chicago1",)),
        ]
        # open_buildings_on mixes batches by place: two thirds of the patches show one town.
        return [replace(scene, source=scene.place) for scene in scenes]

    return Recipe(
        name="open_buildings",
        scenes=scenes,
        variant="jointnet_half",
        # Patches are larger than crops, so that every epoch sees other crops of the few scenes.
        patches=PatchSettings(patch_size=384, stride=256, validation_size=256),
        training=TrainingSettings(
            crop_size=256,
            batch_size=4,
            epochs=36,
            steps_per_epoch=70,
            learning_rate=1e-3,
            schedule="cosine",
            warmup_steps=140,
            weight_decay=1e-2,
            loss="cross_entropy+dice",
            target_weight=0.5,
            augmentation=Augmentation(
                brightness=0.15, contrast=0.3, saturation=0.4, hue=0.04, gamma=0.3
            ),
            precision="mixed_bfloat16",
        ),
    )


def open_buildings_on() -> Recipe:
    """Buildings at 0.3 m, the second step: for places that nobody trained on.

    Source: as ``open_buildings``, but batches mix the places; light changes more, and patches are
    rotated, scaled and sheared; target pixels count more in the cross-entropy, as recall at 0.6
    was far below precision; weights are averaged.
    Data: as ``open_buildings``.
    Command: ``python experiments/train_jointnet.py --recipe open_buildings_on --data DATA --from
    RUN``, where RUN is a run of ``open_buildings``.
    Time: about 75 minutes on 2 cores. Score: results/README.md.
    """
    first = open_buildings()
    return replace(
        first,
        name="open_buildings_on",
        training=replace(
            first.training,
            epochs=17,
            steps_per_epoch=100,
            learning_rate=8e-4,
            warmup_steps=60,
            weight_average=0.99,
            cross_entropy_alpha=0.7,
            target_weight=0.3,
            source_shares={
                "austin": 0.25,
                "barnarp": 0.2,
                "nairobi": 0.2,
                "zanzibar": 0.2,
                "nepal": 0.1,
                "philippines": 0.05,
            },
            augmentation=Augmentation(
                brightness=0.25,
                contrast=0.5,
                saturation=0.6,
                hue=0.1,
                gamma=0.5,
                grayscale=Change(1.0, 0.15),
                rotation=Change(0.125, 0.5),
                scale=Change(0.35, 0.7),
                shear=Change(0.1, 0.3),
                blur=Change(0.25, 0.15),
                gaussian_noise=Change(0.03, 0.2),
            ),
        ),
    )


def open_buildings_recall() -> Recipe:
    """Buildings at 0.3 m, the third step: for recall at the threshold of 0.6.

    Source: as ``open_buildings_on``, whose best threshold on the validation scenes is 0.19.
    Target pixels count 9 : 1 in the cross-entropy, which brings it nearer to 0.6.
    Data: as ``open_buildings``.
    Command: ``python experiments/train_jointnet.py --recipe open_buildings_recall --data DATA
    --from RUN``, where RUN is a run of ``open_buildings_on``.
    Time: about 80 minutes on 2 cores. Score: results/README.md.
    """
    second = open_buildings_on()
    return replace(
        second,
        name="open_buildings_recall",
        # On the validation scenes better than 256, the crops' size, and no slower.
        window=512,
        training=replace(second.training, cross_entropy_alpha=0.9),
    )


def open_roads() -> Recipe:
    """Roads at 1 m from a sample of Massachusetts: the recipe behind the road weights.

    Source: as ``open_buildings``, loss included: with the focal loss few pixels reach 0.6
    (results/README.md). Half of each batch comes from whole tiles, half from crops.
    Data: ``massachusetts_roads`` (25 training and 5 valid tiles of 1500 px, white margins void)
    and ``massachusetts_roads_crops/{images,labels}`` (230 crops of 400 px of other tiles) in the
    data folder. The valid tiles are held back.
    Command: ``python experiments/train_jointnet.py --recipe open_roads --data DATA``
    Time: 114 minutes on 2 busy cores. Score: results/README.md.
    """

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        from preprocessing.massachusetts import GSD, massachusetts_scenes

        if validation is not None:
            raise DatasetError("the split of open_roads is fixed; leave --validation out")
        crops = data / "massachusetts_roads_crops"
        return [
            *massachusetts_scenes(data / "massachusetts_roads"),
            *folder_scenes(
                crops / "images", crops / "labels", "train", "massachusetts_roads_crops", GSD
            ),
        ]

    buildings = open_buildings()
    return replace(
        buildings,
        name="open_roads",
        scenes=scenes,
        patches=PatchSettings(patch_size=400, stride=400, validation_size=256, target="roads"),
        training=replace(
            buildings.training,
            epochs=10,
            steps_per_epoch=210,
            source_shares={"massachusetts_roads": 0.5, "massachusetts_roads_crops": 0.5},
        ),
    )


def sample() -> Recipe:
    """Generated scenes, to see everything work in minutes on a CPU.

    Source: ``preprocessing.sample_scenes``; the network is JointNet at a quarter of its width.
    Data: 12 scenes of 512 x 512 pixels, generated into ``<data>/sample_scenes`` once; scene 1
    of both places is held back.
    Command: ``python experiments/train_jointnet.py --recipe sample``
    Time: under 8 minutes on 2 cores. Score: validation IoU above 0.75 at 0.6.
    """

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        folder = data / "sample_scenes"
        if not folder.exists():
            from preprocessing.sample_scenes import write_sample_scenes

            # All scenes or none, as a folder with some of them would pass for complete.
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
    Time: about 100 minutes on 2 cores. Score: depends on the data.

    Features that meet ``where``, such as ``building = 'yes'``, count. ``buffer_m`` widens lines to
    either side, in metres, and takes them for roads.
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


def stored_recipe(store: PatchStore) -> Recipe:
    """Any store that ``experiments/prepare.py`` wrote.

    Source: settings of ``open_roads`` if the target is roads, else of ``open_buildings``. Crops
    have the size of the validation patches, and a batch has as many pixels as there. Sources
    with a valid pixel have equal shares of each batch, however many patches they have.
    Augmentation refers to the range of values that the store holds.
    Data: the store alone.
    Command: ``python experiments/train_jointnet.py --store STORE``
    Time: about 100 minutes on 2 cores. Score: depends on the data.
    """
    settings = store.settings
    base = open_roads() if settings.target == "roads" else open_buildings()
    patches = zip(store.train.sources, store.train.valid_shares, strict=True)
    sources = sorted({source for source, valid in patches if source is not None and valid})
    crop = settings.validation_size
    return replace(
        base,
        name=STORED,
        scenes=_refuse_to_list,
        patches=settings,
        training=replace(
            base.training,
            crop_size=crop,
            batch_size=max(1, PIXELS_PER_BATCH // crop**2),
            source_shares={name: 1 / len(sources) for name in sources} if sources[1:] else None,
            augmentation=replace(
                base.training.augmentation, value_range=value_range(store.manifest)
            ),
        ),
    )


def _refuse_to_list(data: Path, validation: Validation) -> NoReturn:
    raise DatasetError("a run on a store takes its scenes from there; give it by --store")


def scenes_of(run: "Run", data: Path) -> list[Scene]:
    """Find the scenes in the data folder that were held back when a run was trained.

    Raises:
        RunError: the run does not say what was held back, its recipe is unknown, or a scene is
            missing or not the same.
        DatasetError: the data folder does not have the layout that the recipe reads.
    """
    recipe = run.config["recipe"]
    name = recipe["name"]
    if name == STORED:
        raise RunError(
            f"{run.folder} was trained on a patch store, which does not say where its scenes lie "
            "now; predict them with infer.py and compare with --predictions and --labels"
        )
    if name not in RECIPES:
        raise RunError(f"{run.folder} was trained by an unknown recipe {name!r}")
    try:
        described = json.loads((run.folder / "data.json").read_text(encoding="utf-8"))
        held_back = {s["name"]: s for s in described["scenes"] if s["split"] == "validation"}
    except (OSError, ValueError, KeyError):
        raise RunError(
            f"{run.folder} has no readable data.json, which says what was held back"
        ) from None
    scenes = {s.name: s for s in RECIPES[name]().scenes(data, recipe.get("validation"))}
    missing = sorted(set(held_back) - set(scenes))
    if missing:
        raise RunError(
            f"{len(missing)} validation scene(s) of {run.folder} are not in {data}, such as "
            f"{missing[0]}; give the folder it was trained on by --data"
        )
    found = []
    for name, entry in held_back.items():
        scene = scenes[name]
        for path, kind in ((scene.image, "image"), (scene.label, "label")):
            if hash_file(path) != entry[f"{kind}_sha256"]:
                raise RunError(f"{path} is not the {kind} that {run.folder} held back under {name}")
        # Older runs do not say what is void.
        labelled = {key: entry.get(key) for key in ("where", "buffer_m")}
        found.append(replace(scene, white_border=entry.get("white_border", False), **labelled))
    return found
