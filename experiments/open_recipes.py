"""Recipes behind the weights that come with the project, for two CPU cores."""

from dataclasses import replace
from pathlib import Path

from experiments.recipe import Recipe, Validation
from jointnet.settings import TrainingSettings
from preprocessing.augmentation import Augmentation, Change
from preprocessing.errors import DatasetError
from preprocessing.inria import inria_scenes
from preprocessing.layouts import folder_scenes
from preprocessing.patch_store import PatchSettings
from preprocessing.scenes import Scene


def open_buildings() -> Recipe:
    """Buildings at 0.3 m from open imagery; ``open_buildings_on`` goes on with it.

    Source: architecture of Zhang and Wang 2019 at half width; training set up for two CPU cores.
    Data: ``aerial_buildings`` (16 tiles of five places, Inria layout) and ``inria_patches``
    (41 patches of two Inria tiles) beside each other in the data folder. Tiles of index 1 and
    all patches of chicago1 are held back for validation.
    Command: ``python experiments/train_jointnet.py --recipe open_buildings --data DATA``
    Time: about 100 minutes on 2 cores. Score: see README.md.
    """

    def scenes(data: Path, validation: Validation) -> list[Scene]:
        if validation is not None:
            raise DatasetError("the split of open_buildings is fixed; leave --validation out")
        scenes = [
            *inria_scenes(data / "aerial_buildings", validation=(1,)),
            *inria_scenes(data / "inria_patches", validation=("chicago1",)),
        ]
        # Batches are mixed by place: two thirds of the patches are of one town.
        return [replace(scene, source=scene.place) for scene in scenes]

    return Recipe(
        name="open_buildings",
        scenes=scenes,
        variant="jointnet_half",
        # Patches larger than the crops give every epoch other crops of the few scenes.
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
    """Buildings at 0.3 m: goes on with the weights of ``open_buildings``, for other places.

    Source: as ``open_buildings``. Batches are mixed by place, as two thirds of the patches are
    of one town; light changes more, and patches are rotated, scaled and sheared; target pixels
    count more in the cross-entropy, as recall at 0.6 was far below precision; the weights are
    averaged.
    Data: as ``open_buildings``.
    Command: ``python experiments/train_jointnet.py --recipe open_buildings_on --data DATA --from
    RUN``, where RUN is a run of ``open_buildings``.
    Time: about 75 minutes on 2 cores. Score: see README.md.
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
    """Buildings at 0.3 m: goes on with the weights of ``open_buildings_on``, for recall at 0.6.

    Source: as ``open_buildings_on``, whose weights are too careful: on the validation scenes the
    threshold that is best for them is 0.19. Target pixels count 9 : 1 in the cross-entropy, so
    that 0.6 is nearer to the best threshold.
    Data: as ``open_buildings``.
    Command: ``python experiments/train_jointnet.py --recipe open_buildings_recall --data DATA
    --from RUN``, where RUN is a run of ``open_buildings_on``.
    Time: about 80 minutes on 2 cores. Score: see README.md.
    """
    second = open_buildings_on()
    return replace(
        second,
        name="open_buildings_recall",
        # Better on the validation scenes than the crops' 256, at the same cost on large rasters:
        # experiments/benchmark.py windows.
        window=512,
        training=replace(second.training, cross_entropy_alpha=0.9),
    )


def open_roads() -> Recipe:
    """Roads at 1 m from a sample of Massachusetts: the recipe behind the road weights.

    Source: architecture of Zhang and Wang 2019 at half width; training set up for two CPU cores.
    Data: ``massachusetts_roads`` (25 training and 5 valid tiles of 1500 px, white margins void)
    and ``massachusetts_roads_crops/{images,labels}`` (230 crops of 400 px of other tiles) beside
    each other in the data folder. The valid tiles are held back; half of each batch comes from
    the tiles, half from the crops. The loss is that of ``open_buildings``: with the focal loss
    few pixels reach the threshold of 0.6 (results/README.md).
    Command: ``python experiments/train_jointnet.py --recipe open_roads --data DATA``
    Time: 114 minutes on 2 cores that were busy with other work too. Score: see README.md.
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
