"""Finished masks, of any origin, counted against labels that are rasters or polygons."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from jointnet.evaluation import SceneCounts
from jointnet.metrics import VOID, Counts, count
from jointnet.relaxed import RelaxedCounts, count_relaxed
from preprocessing.errors import DatasetError, LabelError
from preprocessing.inria import STEM
from preprocessing.scenes import RASTER_SUFFIXES, Scene, images_in, pair_by_stem
from preprocessing.tiling import Window

if TYPE_CHECKING:
    from preprocessing.rasters import RasterInfo

STRIP_ROWS = 1024


def evaluate_masks(
    predictions: Path,
    labels: Path,
    where: str | None = None,
    buffer_m: float | None = None,
    relaxed_buffer: int | None = None,
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
        relaxed_buffer: pixels within which the relaxed measures match (``jointnet.relaxed``);
            None for no relaxed measures.

    Raises:
        DatasetError: masks without partner, or `where` or `buffer_m` for rasters.
        LabelError: other values, or sizes or places that differ.
        PolygonError: a vector file that cannot be read, or placed on its mask's pixels.
    """
    masks = images_in(predictions)
    ours = {path.with_stem(path.stem.removesuffix("_output")): path for path in masks}
    ours = {plain: path for plain, path in ours.items() if plain != path} or ours
    files, kind = _labels_in(labels)
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
    scenes = [
        Scene(
            name=plain.stem,
            place=_place(plain.stem),
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
    return [_count_mask(scene, relaxed_buffer) for scene in scenes]


def _labels_in(labels: Path) -> tuple[list[Path] | Path, Literal["raster", "polygons"]]:
    """Label files of a folder, or the one vector file, and which kind they are."""
    if labels.is_file() and labels.suffix.lower() not in RASTER_SUFFIXES:
        return labels, "polygons"
    rasters = images_in(labels)
    if rasters:
        return rasters, "raster"
    from preprocessing.vectors import vector_files

    return vector_files(labels), "polygons"


def _place(stem: str) -> str:
    match = STEM.fullmatch(stem)
    return match["place"] if match else stem


def _count_mask(scene: Scene, relaxed_buffer: int | None) -> SceneCounts:
    """Counts of a mask, which stands as the scene's image; read in strips of rows."""
    from preprocessing.rasters import LabelReader

    counts, relaxed, halo = Counts(), RelaxedCounts(), relaxed_buffer or 0
    with LabelReader(scene.image) as mask, _label_of(scene, mask.info) as (read_label, polygons):
        height, width = mask.height, mask.width
        for row in range(0, height, STRIP_ROWS):
            rows = min(STRIP_ROWS, height - row)
            # What matches a pixel may lie in the strip above or below.
            strip = Window(row - halo, 0, rows + 2 * halo, width).clipped(height, width)
            label, found = read_label(strip), mask.read(strip)
            inside = slice(row - strip.row, row - strip.row + rows)
            counts += count(label[inside], found[inside])
            if relaxed_buffer is not None:
                truth = np.full_like(label, VOID)
                truth[inside] = label[inside]
                relaxed += count_relaxed(truth, found, relaxed_buffer, label)
    return SceneCounts(scene.name, scene.place, None, counts, relaxed, relaxed_buffer, polygons)


@contextmanager
def _label_of(
    scene: Scene, info: "RasterInfo"
) -> Iterator[tuple[Callable[[Window], np.ndarray], dict | None]]:
    """Reads windows of a scene's label, and says what became of its polygons."""
    from preprocessing.patches import load_label, refuse_elsewhere
    from preprocessing.rasters import LabelReader

    if scene.label_kind == "polygons":
        label, polygons = load_label(scene, info)
        yield lambda window: label[window.slices], polygons
        return
    with LabelReader(scene.label) as reader:
        if (reader.height, reader.width) != (info.height, info.width):
            raise LabelError(
                f"{scene.image} has {info.width} x {info.height} pixels, its label {scene.label} "
                f"{reader.width} x {reader.height}; they must have one size"
            )
        refuse_elsewhere(scene, info, reader.info)
        yield reader.read, None
