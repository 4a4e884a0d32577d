"""JointNet of nothing but ``keras.layers``: what this project's layers are measured against."""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
from affine import Affine
from tqdm import tqdm

from experiments.measurements import blocks, peak_megabytes, restart_peak, stored_patches, times
from experiments.recipes import inria_buildings
from jointnet.batches import TrainingBatches
from jointnet.device_patches import DevicePatches
from jointnet.model import JointNet
from jointnet.resnet import ResNetUNet
from jointnet.runs import jit_setting
from jointnet.training import loading_threads, set_rematerialisation
from jointnet.training_settings import TrainingSettings
from layers.dense_atrous_block import DILATION_RATES
from preprocessing.augmentation import STRONG, Augmentation
from preprocessing.inria import CITIES, GSD, TILE_SIZE, TILES_PER_CITY
from preprocessing.output_files import replacing
from preprocessing.patch_store import open_store
from preprocessing.patches import build_store
from preprocessing.sample_scenes import CORNER, CRS, GAP, render_scene


def plain_jointnet(
    side: int,
    batch: int | None = None,
    growth_rates: tuple[int, int, int] = (32, 64, 128),
    bridge_filters: int = 256,
    dtype: str = "float32",
) -> keras.Model:
    """The function of ``jointnet.JointNet`` with its defaults, for patches of one size.

    Its weights are those of ``JointNet``, convolutions and normalisations each in the same order.
    The size is fixed because bilinear ``keras.layers.UpSampling2D`` takes no free one in
    graph mode.

    Args:
        side: height and width of the input in pixels, a multiple of 8.
        batch: samples, or None for any number.
        growth_rates: growth rate of each encoder block; the first is also the decoder block's.
        bridge_filters: channels of the bridge.
        dtype: dtype policy.

    Returns:
        A network from ``(batch, side, side, 3)`` pixels, 0..255, to ``(batch, side, side, 1)``
        float32 probabilities.
    """
    policy = {"dtype": dtype}

    def convolution(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        return keras.layers.Conv2D(filters, 1, activation="relu", **policy)(x)

    def block(x: keras.KerasTensor, growth_rate: int) -> keras.KerasTensor:
        for rate in DILATION_RATES:
            y = keras.layers.Conv2D(
                growth_rate, 3, padding="same", dilation_rate=rate, activation="relu", **policy
            )(x)
            y = keras.layers.GroupNormalization(8, epsilon=0.1, **policy)(y)
            x = keras.layers.Concatenate(**policy)([x, y])
        return convolution(x, 4 * growth_rate)

    inputs = keras.Input((side, side, 3), batch)
    x = keras.layers.Rescaling(1 / 127.5, -1, dtype="float32")(inputs)
    skips = []
    for growth in growth_rates:
        x = block(x, growth)
        skips.append(x)
        # Every second pixel, as in JointNet: a strided 1x1 convolution's training corrupts memory
        # in TensorFlow on a CPU.
        x = convolution(keras.layers.AveragePooling2D(1, 2, **policy)(x), growth)
    x = convolution(x, bridge_filters)
    for growth, skip in reversed(list(zip(growth_rates, skips, strict=True))):
        x = keras.layers.UpSampling2D(interpolation="bilinear", **policy)(x)
        x = keras.layers.Concatenate(**policy)([x, skip])
        x = block(x, growth) if skip is skips[0] else convolution(x, growth)
    logits = keras.layers.Conv2D(1, 1, **policy)(x)
    return keras.Model(inputs, keras.layers.Activation("sigmoid", dtype="float32")(logits))


# Patches of 512 px that the tiles of Inria's training side give.
INRIA_PATCHES = 15_500
NETWORKS = {
    "keras.layers": lambda crop, precision: plain_jointnet(crop, dtype=precision),
    "JointNet": lambda crop, precision: JointNet(dtype=precision),
    "ResNetUNet": lambda crop, precision: ResNetUNet(dtype=precision),
}


def training(
    network: str,
    precision: str,
    crop: int,
    repeats: int,
    batch: int = 1,
    micro_batch: int | None = None,
    rematerialise: str | None = None,
    xla: bool | None = None,
) -> dict[str, Any]:
    """Training steps on a constant batch.

    Args:
        network: one of ``NETWORKS``.
        precision: dtype policy.
        crop: side of a patch in pixels.
        repeats: steps that are timed, after the first; none where 0.
        batch: patches in a batch.
        micro_batch: patches in memory at a time; None for the batch.
        rematerialise: see ``TrainingSettings``.
        xla: whether XLA compiles the step; None for what a training run would do.

    Returns:
        See ``figures``; and ``xla``, whether it did.
    """
    keras.utils.set_random_seed(0)
    settings = TrainingSettings(
        crop_size=crop,
        batch_size=batch,
        micro_batch_size=micro_batch,
        precision=precision,
        rematerialise=rematerialise,
    )
    # Counted on a small patch: what a large one took would be held before the first step.
    operations = convolution_operations(NETWORKS[network](64, precision), 64)
    model = NETWORKS[network](crop, precision)
    if rematerialise is not None:
        set_rematerialisation(model, rematerialise)
    model.compile(
        settings.make_optimizer(repeats + 1),
        settings.make_loss(),
        jit_compile=jit_setting() if xla is None else xla,
    )
    images, masks = patches(batch // settings.parts, crop)

    def step() -> None:
        for _ in range(settings.parts):
            model.train_on_batch(images, masks)

    found = figures(step, repeats, batch, crop, operations, peak_operations, precision)
    return {"xla": bool(model.jit_compile), **found}


def figures(
    step: Callable[[], None],
    repeats: int,
    batch: int,
    crop: int,
    operations: float,
    peak: Callable[[str], float],
    precision: str,
) -> dict[str, Any]:
    """Time and memory of a training step.

    Args:
        step: one step.
        repeats: how many are timed, after the first.
        batch: patches in a batch.
        crop: side of a patch in pixels.
        operations: of the convolutions of one forward pass, per pixel.
        peak: see ``peak_operations``.
        precision: what the peak is measured in.

    Returns:
        ``megabytes`` that the process, or the accelerator, came to hold more than before the first
        step; and, with repeats, median seconds and processor seconds of a step, patches per
        second, tera-operations per second of forward pass, gradients of inputs and of weights
        (what is computed twice counts once), the machine's in a large matrix product, the share
        of these, and the hours of an epoch of ``INRIA_PATCHES`` patches of 512 px at this rate.
    """
    held = restart_peak()
    step()
    result = {"megabytes": device_peak_megabytes() or peak_megabytes() - held}
    if not repeats:
        return result
    seconds, processor = [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        step()
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    second = statistics.median(seconds)
    reached, possible = 3 * operations * batch * crop**2 / second, peak(precision)
    return result | {
        "step_seconds": second,
        "step_seconds_range": [min(seconds), max(seconds)],
        "step_processor_seconds": statistics.median(processor),
        "patches_per_second": batch / second,
        "teraflops": reached / 1e12,
        "matrix_product_teraflops": possible / 1e12,
        "share_of_peak": reached / possible,
        "inria_epoch_hours": INRIA_PATCHES * (512 / crop) ** 2 * second / batch / 3600,
    }


def convolution_operations(model: keras.Model, side: int) -> float:
    """Operations of the convolutions of a forward pass per pixel of the input.

    Args:
        model: a network that takes ``(1, side, side, 3)`` pixels.
        side: height and width to count with.

    Returns:
        Two for each multiplication.
    """
    counted = []
    plain = keras.layers.Conv2D.call

    def call(layer: keras.layers.Conv2D, inputs: Any) -> Any:
        outputs = plain(layer, inputs)
        counted.append(2 * math.prod(layer.kernel.shape) * math.prod(outputs.shape[1:3]))
        return outputs

    with mock.patch.object(keras.layers.Conv2D, "call", call):
        model(np.zeros((1, side, side, 3), np.uint8))
    return sum(counted) / side**2


def peak_operations(precision: str, side: int = 4096) -> float:
    """Operations per second of a product of two square matrices, the median of seven.

    Args:
        precision: dtype policy in whose compute dtype to multiply.
        side: rows and columns.
    """
    dtype = keras.dtype_policies.get(precision).compute_dtype
    matrix = keras.random.normal((side, side), dtype=dtype)

    def multiply() -> None:
        keras.ops.convert_to_numpy(keras.ops.cast((matrix @ matrix)[:1, :1], "float32"))

    multiply()
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(seconds)


def patches(batch: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(batch, side, side, 3)`` and masks ``(batch, side, side, 1)``, uint8."""
    grey = np.stack([blocks(side, seed) for seed in range(batch)])[..., None]
    return np.repeat(grey, 3, axis=-1), (grey > 170).astype(np.uint8)


def device_peak_megabytes() -> float | None:
    """The most that the accelerator has held in this process; None on a CPU."""
    if all(device.startswith("cpu") for device in keras.distribution.list_devices()):
        return None
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


# What the published recipes do.
PUBLISHED = Augmentation()


class Constant(keras.utils.PyDataset):
    """One batch, again and again.

    Args:
        batch: the batch.
        length: how often.
    """

    def __init__(self, batch: Sequence[Any], length: int):
        super().__init__()
        self.batch = tuple(batch)
        self.length = length

    def __len__(self) -> int:
        """How often."""
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """The batch."""
        return self.batch


class StepTimes(keras.callbacks.Callback):
    """Seconds from the end of one step to the end of the next."""

    def __init__(self):
        super().__init__()
        self.seconds: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Note the time; reading the loss waits for the step on every backend."""
        float((logs or {})["loss"])
        now = time.perf_counter()
        if batch:
            self.seconds.append(now - self._before)
        self._before = now


def input_cost(crop: int, batch: int, precision: str, repeats: int, rounds: int) -> dict[str, Any]:
    """Steps of full-width JointNet in ``fit``, by where its batches come from.

    Args:
        crop: side of a sample in pixels.
        batch: samples in a batch.
        precision: dtype policy.
        repeats: steps that are timed of each, in each round.
        rounds: how often the kinds take turns.

    Returns:
        Median seconds of a step on a constant batch, on crops of a store in memory maps as the
        published recipes augment them, on such crops with every augmentation, and on crops of a
        store on the device as the published recipes augment them; and
        the ratios of the last three to the first, medians over the rounds.
    """
    keras.utils.set_random_seed(0)
    settings = TrainingSettings(crop_size=crop, batch_size=batch, precision=precision)
    model = JointNet(dtype=precision)
    model.compile(settings.make_optimizer(repeats), settings.make_loss(), jit_compile=jit_setting())
    with tempfile.TemporaryDirectory() as folder:
        patches = stored_patches(Path(folder), 3 * crop // 2)
        on_device = DevicePatches(patches, crop)

        def batches(augmentation: Augmentation, **where: Any) -> TrainingBatches:
            kept = {"steps": repeats + 1, "workers": loading_threads()}
            return TrainingBatches(patches, 0, 0, batch, crop, augmentation, **kept, **where)

        plain = batches(PUBLISHED)
        sources = {
            "constant": Constant(plain[0], repeats + 1),
            "published": plain,
            "augmented": batches(STRONG),
            "on_device": batches(PUBLISHED, on_device=on_device),
        }
        found: dict[str, list[float]] = {name: [] for name in sources}
        model.fit(Constant(plain[0], 1), verbose=0)
        for _ in range(rounds):
            for name, source in sources.items():
                watch = StepTimes()
                model.fit(source, shuffle=False, verbose=0, callbacks=[watch])
                found[name].append(statistics.median(watch.seconds))
    ratios = {
        f"{name}_over_constant": statistics.median(
            seconds / constant
            for seconds, constant in zip(found[name], found["constant"], strict=True)
        )
        for name in ("published", "augmented", "on_device")
    }
    seconds = {f"{name}_step_seconds": statistics.median(s) for name, s in found.items()}
    return seconds | ratios


# Scenes are rendered at this side and laid out over a tile, which takes a second, not minutes.
_RENDERED = 1000


def write_stand_in(
    data: Path, tiles: int = TILES_PER_CITY, size: int = TILE_SIZE, seed: int = 0
) -> Path:
    """Write ``AerialImageDataset/train/{images,gt}`` as Inria has it, with generated pixels.

    Every city has its own generated scene, repeated over its tiles and shifted from tile to tile,
    so that no two files are equal; names, sizes, dtypes and label values are Inria's, files are
    uncompressed strips as Inria's, and no two tiles share ground.

    Args:
        data: folder that comes to hold ``AerialImageDataset``.
        tiles: tiles of each city, numbered from 1.
        size: side of a tile in pixels of 0.3 m.
        seed: number that the pixels depend on.

    Returns:
        The folder ``AerialImageDataset``. Files that exist are replaced.

    Raises:
        OutputError: the folder cannot be written.
    """
    train = Path(data) / "AerialImageDataset" / "train"
    repeats = -(-size // _RENDERED)
    for column, city in enumerate(CITIES):
        image, _, mask = render_scene(_RENDERED, (seed, column))
        layers = np.tile(np.dstack([image, mask * np.uint8(255)]), (repeats, repeats, 1))
        for index in tqdm(range(1, tiles + 1), desc=f"writing {city}", unit="tile", disable=None):
            moved = np.roll(layers, (7 * index, 13 * index), axis=(0, 1))[:size, :size]
            step = size * GSD + GAP
            west, north = CORNER[0] + step * column, CORNER[1] - step * index
            place = Affine(GSD, 0, west, 0, -GSD, north)
            _write(train / "images" / f"{city}{index}.tif", moved[..., :3], place)
            _write(train / "gt" / f"{city}{index}.tif", moved[..., 3:], place)
    return train.parent


def _write(path: Path, pixels: np.ndarray, place: Affine) -> None:
    import rasterio

    height, width, count = pixels.shape
    profile = {"driver": "GTiff", "dtype": "uint8", "crs": CRS, "transform": place}
    profile |= {"height": height, "width": width, "count": count}
    with replacing(path, overwrite=True) as partial, rasterio.open(partial, "w", **profile) as out:
        out.write(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def cutting(data: str, store: str) -> dict[str, Any]:
    """Cut the data set into patches as ``--recipe inria_buildings`` does.

    Args:
        data: folder that holds ``AerialImageDataset``.
        store: where the patch store comes to lie; must not exist.

    Returns:
        Tiles, patches of both splits, seconds, megapixels per second, gigabytes of the store.
    """
    recipe = inria_buildings()
    began = time.perf_counter()
    scenes = recipe.scenes(Path(data), None)
    made = build_store(Path(store), scenes, recipe.patches)
    seconds = time.perf_counter() - began
    pixels = sum(scene["height"] * scene["width"] for scene in made.manifest["scenes"])
    size = sum(path.stat().st_size for path in Path(store).rglob("*") if path.is_file())
    return {
        "tiles": len(scenes),
        "training_patches": len(made.train),
        "validation_patches": len(made.validation),
        "cutting_seconds": seconds,
        "cutting_megapixels_per_second": pixels / 1e6 / seconds,
        "store_gigabytes": size / 1e9,
    }


def schedule(store: str, batch: int, precision: str, variant: str, repeats: int) -> dict[str, Any]:
    """Training steps and predictions of the recipe from its store, and what all of them take.

    Args:
        store: the patch store.
        batch: samples in a batch.
        precision: dtype policy.
        variant: one of ``jointnet.model.VARIANTS``.
        repeats: training steps, and batches predicted, after the first of each.

    Returns:
        Median seconds of a step with the loading of its batch, and of the step alone; patches
        and megapixels per second; hours of an epoch, of a validation, and days of the recipe's
        epochs with their validations, computed from these.
    """
    opened = open_store(Path(store))
    settings = inria_buildings().with_training(batch_size=batch, precision=precision).training
    keras.utils.set_random_seed(0)
    scaling = {"band_offset": opened.manifest["band_mean"]}
    scaling["band_scale"] = opened.manifest["band_std"]
    model = JointNet.from_variant(variant, dtype=precision, **scaling)
    model.compile(settings.make_optimizer(repeats), settings.make_loss(), jit_compile=jit_setting())
    batches = TrainingBatches(
        opened.train, 0, 0, batch, settings.crop_size, settings.augmentation, repeats + 1
    )
    model.train_on_batch(*batches[0])
    loaded, alone = [], []
    for index in range(1, repeats + 1):
        began = time.perf_counter()
        images, masks = batches[index]
        ready = time.perf_counter()
        model.train_on_batch(images, masks)
        ended = time.perf_counter()
        loaded.append(ended - began)
        alone.append(ended - ready)
    peak = peak_megabytes()
    images = np.asarray(opened.validation.images[:batch])
    model.predict_on_batch(images)
    predicted = statistics.median(times(lambda: model.predict_on_batch(images), repeats))
    step = statistics.median(loaded)
    epoch_hours = len(opened.train) / batch * step / 3600
    validation_hours = len(opened.validation) / batch * predicted / 3600
    return {
        "step_seconds": step,
        "step_alone_seconds": statistics.median(alone),
        "patches_per_second": batch / step,
        "megapixels_per_second": batch * settings.crop_size**2 / 1e6 / step,
        "training_peak_megabytes": peak,
        "predicted_patches_per_second": batch / predicted,
        "epoch_hours": epoch_hours,
        "validation_hours": validation_hours,
        "epochs": settings.epochs,
        "schedule_days": settings.epochs * (epoch_hours + validation_hours) / 24,
    }
