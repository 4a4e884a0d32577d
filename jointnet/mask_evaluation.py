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
from preprocessing.errors import DatasetError, LabelError, listed
from preprocessing.layouts import labels_in, place_of
from preprocessing.objects import count_objects
from preprocessing.scenes import Scene, images_in, pair_by_stem
from preprocessing.tiling import VOID, Window

if TYPE_CHECKING:
    from preprocessing.raster_access import RasterInfo

STRIP_ROWS = 256
MASK_ENDING, PROBABILITIES_ENDING = "_output", "_probabilities"
"""Endings of the names that ``infer.py`` gives to its masks, and to probabilities beside them."""


@dataclass(frozen=True)
class MaskMeasures:
    """What is measured beside the pixels of finished masks.

    Attributes:
        relaxed_buffer: pixels within which the relaxed metrics match (``jointnet.metrics``);
            None for no relaxed metrics.
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
    measures: MaskMeasures | None = None,
) -> list[SceneCounts]:
    """Count finished masks against labels, paired by stem.

    Args:
        predictions: folder of masks of {0, 1} or {0, 255}; void where their dataset mask is 0.
        labels: folder of labels of the same sizes; or, for georeferenced masks, a folder of
            vector files (where it holds no raster), or one vector file for all masks.
        where: which features of the vector files count, as an SQL condition; None for all.
        buffer_m: metres by which the vector files' lines are widened to either side.
        measures: what is measured beside the pixels; None for nothing.

    Raises:
        DatasetError: masks without partner, or `where` or `buffer_m` for rasters.
        LabelError: other values, or sizes or places that differ.
        PolygonError: a vector file that cannot be read, or placed on its mask's pixels.
        RasterError: probabilities outside of 0..1 or on another grid than their mask; or a mask
            without a place on the ground that is to be aligned.
    """
    measures = measures or MaskMeasures()
    scenes, found = mask_scenes(predictions, labels, where, buffer_m), {}
    if measures.probabilities is not None:
        files = masks_in(measures.probabilities, PROBABILITIES_ENDING)
        found = {plain.stem: path for plain, path in files.items()}
        missing = sorted({scene.name for scene in scenes} - found.keys())
        if missing:
            raise DatasetError(
                f"{measures.probabilities} has no probabilities of {len(missing)} mask(s): "
                f"{listed(missing)}; they are named <stem>{PROBABILITIES_ENDING}"
            )
    return [_count_mask(scene, measures, found.get(scene.name)) for scene in scenes]


def mask_scenes(
    predictions: Path, labels: Path, where: str | None = None, buffer_m: float | None = None
) -> list[Scene]:
    """Pair masks with labels, as ``evaluate_masks`` does; the mask stands as a scene's image."""
    masks = masks_in(predictions)
    files, kind = labels_in(labels)
    if kind == "raster" and (where, buffer_m) != (None, None):
        raise DatasetError(
            f"{labels} holds label rasters; features are chosen and lines widened in vector files"
        )
    if isinstance(files, Path):
        pairs = [(plain, files) for plain, _ in pair_by_stem(masks, masks)]
    else:
        pairs = pair_by_stem(masks, files)
    if not pairs:
        raise DatasetError(f"no masks in {predictions}")
    return [
        Scene(
            name=plain.stem,
            place=place_of(plain.stem)[0],
            index=None,
            split="validation",
            image=masks[plain],
            label=label,
            label_kind=kind,
            where=where,
            buffer_m=buffer_m,
        )
        for plain, label in pairs
    ]


def masks_in(folder: Path, ending: str = MASK_ENDING) -> dict[Path, Path]:
    """Return the masks of a folder by their paths without the ending.

    Where a raster has the ending, the others are left out: ``infer.py`` writes them beside its
    masks. Where none has it, all rasters are masks but those that are named as probabilities.
    """
    rasters = images_in(folder)
    ours = [path for path in rasters if path.stem.endswith(ending)]
    if ours:
        return {path.with_stem(path.stem.removesuffix(ending)): path for path in ours}
    return {path: path for path in rasters if not path.stem.endswith(PROBABILITIES_ENDING)}


def probabilities_beside(predictions: Path) -> tuple[Path | None, str | None]:
    """Return the folder of masks if each has its probabilities beside it, else None.

    Where only some have them, a note for the user comes with it.
    """
    rasters, masks = {path.stem for path in images_in(predictions)}, masks_in(predictions)
    lacking = [plain for plain in masks if f"{plain.stem}{PROBABILITIES_ENDING}" not in rasters]
    if len(lacking) == len(masks):
        return None, None
    if lacking:
        few = f"{len(lacking)} of {len(masks)} masks have no probabilities beside them"
        return None, f"note: {few}; none are used"
    return predictions, None


def _count_mask(scene: Scene, measures: MaskMeasures, probable: Path | None) -> SceneCounts:
    """Count a mask, which stands as the scene's image, in strips of rows."""
    counts, relaxed, buffer = Counts(), RelaxedCounts(), measures.relaxed_buffer
    halo, void = buffer or 0, 0
    with open_mask(scene, measures.align, probable) as files:
        height, width = files.info.height, files.info.width
        patches = PatchGrid(height, width)
        dtypes = [np.uint8, np.uint8, *([] if probable is None else [np.float32])]
        whole = [np.empty((height, width), dtype) for dtype in dtypes if measures.objects]
        for row in range(0, height, STRIP_ROWS):
            rows = min(STRIP_ROWS, height - row)
            # What matches a pixel may lie in the strip above or below.
            strip = Window(row - halo, 0, rows + 2 * halo, width).clipped(height, width)
            inside = slice(row - strip.row, row - strip.row + rows)
            label, found = files.read_label(strip), files.read_mask(strip)
            if buffer is not None:
                truth = np.full_like(label, VOID)
                truth[inside] = label[inside]
                relaxed += count_relaxed(truth, found, buffer, label)
            arrays = [label[inside], found[inside]]
            counts += count(*arrays)
            patches.add(row, *arrays)
            void += int(np.count_nonzero(arrays[1] == VOID))
            if files.read_probabilities is not None:
                arrays.append(files.read_probabilities(Window(row, 0, rows, width)))
                if measures.histogram is not None:
                    measures.histogram.add(arrays[0], arrays[2])
            for array, part in zip(whole, arrays, strict=False):
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
            objects=count_objects(*whole, info=files.info) if whole else None,
            aligned=files.aligned and f"{files.aligned}; {void / (height * width):.1%} is void",
        )


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

    Errors are those of ``evaluate_masks``.
    """
    from preprocessing.patches import load_label
    from preprocessing.rasters import LabelReader, ProbabilityReader
    from preprocessing.resampling import aligned

    with ExitStack() as stack:
        path, note, polygons, read = scene.image, None, None, None
        if scene.label_kind == "raster":
            label = stack.enter_context(LabelReader(scene.label))
            path, note = on_grid(stack, path, scene.label, label.info, align)
            if note and probable is not None:
                probable = stack.enter_context(aligned(probable, label.info))
        mask = stack.enter_context(LabelReader(path))
        # Errors name the file, not the virtual one.
        mask.path = scene.image
        if scene.label_kind == "raster":
            read_label = label.read
        else:
            pixels, polygons = load_label(scene, mask.info)

            def read_label(window: Window) -> np.ndarray:
                return pixels[window.slices]

        if probable is not None:
            read = stack.enter_context(ProbabilityReader(probable, mask.info)).read
        yield MaskFiles(mask.info, mask.read, read_label, read, polygons, note)


def on_grid(
    stack: ExitStack, path: Path, other: Path, onto: "RasterInfo", align: bool
) -> tuple[Path, str | None]:
    """Return what to open to have a mask on the grid of another raster, and what was done.

    The second is None where the mask lies on that grid, ``onto``, already. Otherwise ``align``
    makes a virtual raster, which the stack closes.

    Raises:
        LabelError: the grids differ and ``align`` is off.
        RasterError: the grids differ, and one of the two has no place on the ground.
    """
    from preprocessing.ground import grid_difference
    from preprocessing.raster_access import raster_info
    from preprocessing.resampling import aligned

    own = raster_info(path)
    difference = grid_difference(own, onto, str(other))
    if difference is None:
        return path, None
    if not align:
        raise LabelError(f"{path} {difference}; they must lie on one grid, or --align")
    return stack.enter_context(aligned(path, onto)), (
        f"aligned by nearest neighbour ({own.width} x {own.height} pixels with the "
        f"{onto.width} x {onto.height} of {other.name})"
    )
