"""Finished masks, of any origin, counted against labels that are rasters or polygons."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jointnet.evaluation import SceneCounts
from jointnet.metrics import Counts, PatchGrid, RelaxedCounts, count, count_relaxed
from jointnet.thresholds import ProbabilityHistogram
from preprocessing.errors import DatasetError, LabelError
from preprocessing.layouts import labels_in, place_of
from preprocessing.objects import count_objects
from preprocessing.scenes import NAMES_SHOWN, Scene, images_in, pair_by_stem
from preprocessing.tiling import VOID, Window

if TYPE_CHECKING:
    from preprocessing.raster_access import RasterInfo

STRIP_ROWS = 256


@dataclass(frozen=True)
class MaskMeasures:
    """What is measured beside the pixels of finished masks.

    Attributes:
        relaxed_buffer: pixels within which the relaxed measures match (``jointnet.metrics``);
            None for no relaxed measures.
        probabilities: folder of the probabilities that the masks were made of, on their grids,
            named ``<stem>_probabilities`` as ``infer.py`` does, or ``<stem>``; None for none.
        histogram: gets these probabilities.
        objects: count objects too (``preprocessing.objects``), scored where there are
            probabilities. Masks are then held whole, about 20 bytes a pixel.
        align: bring masks of another size or place onto the pixels of their label rasters
            (``preprocessing.resampling``), where they are refused without.
    """

    relaxed_buffer: int | None = None
    probabilities: Path | None = None
    histogram: ProbabilityHistogram | None = None
    objects: bool = False
    align: bool = False


def evaluate_masks(
    predictions: Path,
    labels: Path,
    where: str | None = None,
    buffer_m: float | None = None,
    relaxed_buffer: int | None = None,
    measures: MaskMeasures | None = None,
) -> list[SceneCounts]:
    """Count finished masks against labels, paired by stem.

    Where the folder holds files named ``<stem>_output``, as ``infer.py`` names its masks, those
    are taken and the pictures beside them are not. The place is read from the stem (``austin``
    of ``austin12``) or is the stem itself.

    Args:
        predictions: folder of masks of {0, 1} or {0, 255}; void where their dataset mask is 0.
        labels: folder of labels of the same sizes; or, for masks that are georeferenced, a
            folder of vector files (where it holds no raster), or one vector file for all masks.
        where: which features of the vector files count, as an SQL condition; None for all.
        buffer_m: metres by which the vector files' lines are widened to either side.
        relaxed_buffer: that of ``measures``, for short.
        measures: what else is measured; None for nothing but ``relaxed_buffer``.

    Raises:
        DatasetError: masks without partner, or `where` or `buffer_m` for rasters.
        LabelError: other values, or sizes or places that differ.
        PolygonError: a vector file that cannot be read, or placed on its mask's pixels.
        RasterError: probabilities outside of 0..1 or on another grid than their mask; or a mask
            without a place on the ground that shall be aligned.
    """
    measures = measures or MaskMeasures(relaxed_buffer)
    scenes = mask_scenes(predictions, labels, where, buffer_m)
    probable = _probabilities_of(scenes, measures.probabilities)
    return [_count_mask(scene, measures, probable.get(scene.name)) for scene in scenes]


def mask_scenes(
    predictions: Path, labels: Path, where: str | None = None, buffer_m: float | None = None
) -> list[Scene]:
    """Pair masks with labels, as ``evaluate_masks`` does; the mask stands as a scene's image.

    Raises:
        DatasetError: masks without partner, or `where` or `buffer_m` for rasters.
    """
    ours = without_suffix(predictions, "_output")
    files, kind = labels_in(labels)
    if kind == "raster" and (where, buffer_m) != (None, None):
        raise DatasetError(
            f"{labels} holds label rasters; features are chosen and lines widened in vector files"
        )
    if isinstance(files, Path):
        pairs = [(plain, files) for plain, _ in pair_by_stem(list(ours), list(ours))]
    else:
        pairs = pair_by_stem(list(ours), files)
    if not pairs:
        raise DatasetError(f"no masks in {predictions} and no labels in {labels}")
    return [
        Scene(
            name=plain.stem,
            place=place_of(plain.stem)[0],
            index=None,
            split="validation",
            image=ours[plain],
            label=label,
            label_kind=kind,
            where=where,
            buffer_m=buffer_m,
        )
        for plain, label in pairs
    ]


def without_suffix(folder: Path, suffix: str) -> dict[Path, Path]:
    """Rasters of a folder by their paths without a suffix of the stem; all, if none has it."""
    every = {path.with_stem(path.stem.removesuffix(suffix)): path for path in images_in(folder)}
    return {plain: path for plain, path in every.items() if plain != path} or every


def _probabilities_of(scenes: list[Scene], folder: Path | None) -> dict[str, Path]:
    """The raster of probabilities of each scene, by name; none without a folder of them."""
    if folder is None:
        return {}
    by_stem = {plain.stem: path for plain, path in without_suffix(folder, "_probabilities").items()}
    missing = sorted({scene.name for scene in scenes} - by_stem.keys())
    if missing:
        more = ", ..." if len(missing) > NAMES_SHOWN else ""
        raise DatasetError(
            f"{folder} has no probabilities of {len(missing)} mask(s): "
            f"{', '.join(missing[:NAMES_SHOWN])}{more}; they are named <stem>_probabilities"
        )
    return by_stem


def _count_mask(scene: Scene, measures: MaskMeasures, probable: Path | None) -> SceneCounts:
    """Counts of a mask, which stands as the scene's image; read in strips of rows."""
    counts, relaxed, buffer = Counts(), RelaxedCounts(), measures.relaxed_buffer
    halo = buffer or 0
    with ExitStack() as stack:
        files = stack.enter_context(open_mask(scene, measures.align, probable))
        height, width = files.info.height, files.info.width
        patches = PatchGrid(height, width)
        whole = _whole(height, width, probable is not None) if measures.objects else None
        void = 0
        for row in range(0, height, STRIP_ROWS):
            rows = min(STRIP_ROWS, height - row)
            # What matches a pixel may lie in the strip above or below.
            strip = Window(row - halo, 0, rows + 2 * halo, width).clipped(height, width)
            label, found = files.read_label(strip), files.read_mask(strip)
            inside = slice(row - strip.row, row - strip.row + rows)
            counts += count(label[inside], found[inside])
            patches.add(row, label[inside], found[inside])
            void += int(np.count_nonzero(found[inside] == VOID))
            if buffer is not None:
                truth = np.full_like(label, VOID)
                truth[inside] = label[inside]
                relaxed += count_relaxed(truth, found, buffer, label)
            strips = [label[inside], found[inside]]
            if files.read_probabilities is not None:
                strips.append(files.read_probabilities(Window(row, 0, rows, width)))
                if measures.histogram is not None:
                    measures.histogram.add(strips[0], strips[2])
            for array, part in zip(whole or (), strips, strict=bool(whole)):
                array[row : row + rows] = part
        if files.aligned and void == height * width:
            raise LabelError(f"{scene.image} and {scene.label} share no ground to be aligned on")
        return SceneCounts(
            name=scene.name,
            place=scene.place,
            threshold=None,
            counts=counts,
            relaxed=relaxed,
            relaxed_buffer_px=buffer,
            polygons=files.polygons,
            patches=patches.counts(),
            objects=None if whole is None else count_objects(*whole, info=files.info),
            aligned=files.aligned and f"{files.aligned}; {void / (height * width):.1%} is void",
        )


def _whole(height: int, width: int, probable: bool) -> list[np.ndarray]:
    """Room for a label, a mask and, if there are any, probabilities."""
    dtypes = [np.uint8, np.uint8, np.float32]
    return [np.empty((height, width), dtype) for dtype in dtypes[: 3 if probable else 2]]


@dataclass(frozen=True)
class MaskFiles:
    """What belongs to one mask, opened, on one grid: readers of windows, and notes."""

    info: "RasterInfo"
    read_mask: Callable[[Window], np.ndarray]
    read_label: Callable[[Window], np.ndarray]
    read_probabilities: Callable[[Window], np.ndarray] | None
    polygons: dict | None
    aligned: str | None


@contextmanager
def open_mask(
    scene: Scene, align: bool = False, probable: Path | None = None
) -> Iterator[MaskFiles]:
    """Open a mask, its label and its probabilities, aligned where that is asked for and needed.

    Raises:
        LabelError, PolygonError, RasterError: see ``evaluate_masks``.
    """
    from preprocessing.ground import grid_difference
    from preprocessing.raster_access import raster_info
    from preprocessing.rasters import LabelReader, ProbabilityReader
    from preprocessing.resampling import aligned

    with ExitStack() as stack:
        path, note = scene.image, None
        if align and scene.label_kind == "raster":
            own, wanted = raster_info(scene.image), raster_info(scene.label)
            if grid_difference(own, wanted, "its label"):
                path = stack.enter_context(aligned(scene.image, wanted))
                note = (
                    f"{own.width} x {own.height} pixels aligned with the label's "
                    f"{wanted.width} x {wanted.height} by nearest neighbour"
                )
                if probable is not None:
                    probable = stack.enter_context(aligned(probable, wanted))
        mask = stack.enter_context(LabelReader(path))
        # Errors name the file, not the virtual one.
        mask.path = scene.image
        read_label, polygons = stack.enter_context(_label_of(scene, mask.info))
        reader = None
        if probable is not None:
            reader = stack.enter_context(ProbabilityReader(probable, mask.info)).read
        yield MaskFiles(mask.info, mask.read, read_label, reader, polygons, note)


@contextmanager
def _label_of(
    scene: Scene, info: "RasterInfo"
) -> Iterator[tuple[Callable[[Window], np.ndarray], dict | None]]:
    """Reads windows of a scene's label, and says what became of its polygons."""
    from preprocessing.ground import grid_difference
    from preprocessing.patches import load_label
    from preprocessing.rasters import LabelReader

    if scene.label_kind == "polygons":
        label, polygons = load_label(scene, info)
        yield lambda window: label[window.slices], polygons
        return
    with LabelReader(scene.label) as reader:
        if difference := grid_difference(info, reader.info, f"its label {scene.label}"):
            raise LabelError(f"{scene.image} {difference}; they must lie on one grid, or --align")
        yield reader.read, None
