"""What is given to be compared: run folders, or masks by scene; and what to call each of them."""

import itertools
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from jointnet.evaluation import OVERALL
from jointnet.mask_evaluation import without_suffix
from jointnet.metrics import METRICS, Counts, paired_difference
from jointnet.run_comparison import (
    describe_runs,
    is_run,
    mask_text,
    read_runs,
    run_text,
)
from preprocessing.errors import DatasetError, LabelError, OutputError, RunError
from preprocessing.layouts import place_of
from preprocessing.output_files import (
    folder_beside,
    publish,
    refuse_existing,
    write_csv,
    write_json,
)
from preprocessing.scenes import NAMES_SHOWN, RASTER_SUFFIXES, short_names
from preprocessing.tiling import VOID, Window

if TYPE_CHECKING:
    from preprocessing.raster_access import RasterInfo
    from preprocessing.rasters import GreyMaskReader


SUFFIX = "_output"
MOST_MASKS = 12


@dataclass(frozen=True)
class MaskSet:
    """Masks of one origin.

    Attributes:
        name: what tables call it.
        path: the file or folder given.
        files: the mask of each scene, by the scene's name.
    """

    name: str
    path: Path
    files: dict[str, Path]


def mask_sets(paths: Sequence[Path], truth: Path | None) -> list[MaskSet]:
    """Masks of several origins that have the same scenes; the truth, if there is one, comes last.

    A scene is known by its stem without ``_output``, as ``infer.py`` names masks. Where a folder
    holds files with that ending, the pictures beside them are left out. Files alone make one scene,
    whatever they are called; a file beside folders stands for the one scene of its name.

    Args:
        paths: files, or folders of masks.
        truth: the same of the truth; None for none.

    Raises:
        DatasetError: nothing to compare with, no masks, a file or folder that is not there, or
            scenes that one has and another has not; all of them are counted, and named in part.
    """
    given = [*paths, *([] if truth is None else [truth])]
    if not 2 <= len(given) <= MOST_MASKS:
        raise DatasetError(
            f"got {len(paths)} input(s){'' if truth is None else ' and a truth'}; give two to "
            f"{MOST_MASKS} files or folders of masks, one with --truth, or run folders: results/*"
        )
    found = [_masks_of(path) for path in given]
    folders = [path for path in given if path.is_dir()]
    if not folders:
        scene = next(iter(found[0]))
        found = [{scene: next(iter(masks.values()))} for masks in found]
    elif len(folders) < len(given):
        wanted = {
            scene
            for path, masks in zip(given, found, strict=True)
            if not path.is_dir()
            for scene in masks
        }
        found = [{s: file for s, file in masks.items() if s in wanted} for masks in found]
    else:
        wanted = set()
    scenes = set().union(*found, wanted if folders else ())
    missing = [
        f"{path} has no mask of {_listed(sorted(scenes - masks.keys()))}"
        for path, masks in zip(given, found, strict=True)
        if scenes - masks.keys()
    ]
    if missing:
        raise DatasetError(
            f"masks pair by file name without suffix and {SUFFIX}: {'; '.join(missing)}"
        )
    names = short_names(given)
    return [
        MaskSet(name, path, dict(sorted(masks.items())))
        for name, path, masks in zip(names, given, found, strict=True)
    ]


def _masks_of(path: Path) -> dict[str, Path]:
    """Masks by scene of a file or folder."""
    if not path.is_dir():
        if not path.is_file():
            raise DatasetError(f"{path}: no such file or folder")
        if path.suffix.lower() not in RASTER_SUFFIXES:
            raise DatasetError(
                f"{path} is no mask: known are {', '.join(sorted(RASTER_SUFFIXES))}; evaluate.py "
                "--labels takes polygons"
            )
        return {path.stem.removesuffix(SUFFIX): path}
    files = without_suffix(path, SUFFIX)
    if not files:
        raise DatasetError(f"{path} holds no masks ({', '.join(sorted(RASTER_SUFFIXES))})")
    times = Counter(plain.stem for plain in files)
    shared = sorted(file.name for plain, file in files.items() if times[plain.stem] > 1)
    if shared:
        raise DatasetError(f"{path} holds several masks of one name: {_listed(shared)}")
    return {plain.stem: file for plain, file in files.items()}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


_CHUNK = 1 << 20


@dataclass(frozen=True)
class ComparedScene:
    """What was counted in one scene.

    Attributes:
        name: the scene.
        place: where it was taken.
        patterns: ``(2 ** masks,)`` int64, pixels by who has target there: mask i has bit i.
        void: pixels that are void in at least one mask.
        void_in_some: of these, those that another mask has.
        notes: how masks were brought into shape, each "mask: what was done (details)".
    """

    name: str
    place: str
    patterns: np.ndarray
    void: int = 0
    void_in_some: int = 0
    notes: tuple[str, ...] = ()

    def counts(self, truth: int, mask: int) -> Counts:
        """The confusion matrix of two masks by their numbers, the first taken as the truth."""
        pattern = np.arange(len(self.patterns))
        wanted, found = pattern >> truth & 1 == 1, pattern >> mask & 1 == 1
        pairs = (wanted & found, ~wanted & found, wanted & ~found, ~wanted & ~found)
        return Counts(*(int(self.patterns[pair].sum()) for pair in pairs))


def count_patterns(masks: Sequence[np.ndarray]) -> tuple[np.ndarray, int, int]:
    """Pixels by who has target there.

    Args:
        masks: uint8 of 0, 1 and 255 (void), up to 16 of one shape.

    Returns:
        ``patterns``, ``void`` and ``void_in_some`` of ``ComparedScene``.
    """
    dtype = np.uint8 if len(masks) <= 8 else np.uint16
    index, void, covered = np.zeros(masks[0].shape, dtype), False, False
    for bit, mask in enumerate(masks):
        index |= (mask == 1).astype(dtype) << dtype(bit)
        gap = mask == VOID
        void, covered = void | gap, covered | ~gap
    dropped = int(np.count_nonzero(void))
    counted = index[~void] if dropped else index.ravel()
    patterns = np.zeros(2 ** len(masks), np.int64)
    # numpy counts in eight bytes a pixel.
    for first in range(0, counted.size, _CHUNK):
        patterns += np.bincount(counted[first : first + _CHUNK], minlength=patterns.size)
    return patterns, dropped, int(np.count_nonzero(void & covered)) if dropped else 0


def compare_masks(
    sets: Sequence[MaskSet],
    has_truth: bool = False,
    align: bool = False,
    maps: dict[tuple[str, str], Path] | None = None,
) -> list[ComparedScene]:
    """Count, scene by scene, in strips of rows; memory does not grow with the rasters.

    Args:
        sets: masks of the same scenes (``mask_sets``); grey ones are thresholded
            at 128 (``preprocessing.rasters``).
        has_truth: whether the last is the truth. The others are laid onto its grid, or onto that
            of the first where there is none.
        align: bring masks of another size or place onto that grid, by nearest neighbour.
        maps: paths of the error maps to write, by name of the mask and scene; None for none.
            Without a truth the first of the masks takes its part.

    Raises:
        RasterError: a mask that cannot be read, or has no place on the ground and shall be aligned.
        LabelError: values that no mask has; a size or place of its own; no common ground.
        OutputError: a map cannot be written.
    """
    base = len(sets) - 1 if has_truth else 0
    bar = tqdm(sets[0].files, desc="comparing", unit="scene", leave=False, disable=None)
    return [_compare_scene(scene, sets, base, align, maps or {}) for scene in bar]


def _compare_scene(
    scene: str,
    sets: Sequence[MaskSet],
    base: int,
    align: bool,
    maps: dict[tuple[str, str], Path],
) -> ComparedScene:
    from preprocessing.image_operations import error_classes
    from preprocessing.raster_access import raster_info
    from preprocessing.raster_writers import BLOCK, ErrorMapWriter

    paths = [one.files[scene] for one in sets]
    onto = raster_info(paths[base])
    patterns, void, in_some = np.zeros(2 ** len(sets), np.int64), 0, 0
    notes = []
    with ExitStack() as stack:
        readers, moved = [], []
        for path in paths:
            reader, note = _open(stack, path, paths[base], onto, align)
            readers.append(reader)
            moved.append(note)
        writers = {
            number: stack.enter_context(ErrorMapWriter(maps[one.name, scene], onto))
            for number, one in enumerate(sets)
            if (one.name, scene) in maps
        }
        empty = np.zeros(len(sets), np.int64)
        for row in range(0, onto.height, BLOCK):
            strip = Window(row, 0, min(BLOCK, onto.height - row), onto.width)
            masks = [reader.read(strip) for reader in readers]
            found, strip_void, strip_some = count_patterns(masks)
            patterns, void, in_some = patterns + found, void + strip_void, in_some + strip_some
            if strip_void:
                empty += [np.count_nonzero(mask == VOID) for mask in masks]
            for number, writer in writers.items():
                writer.write(strip, error_classes(masks[base], masks[number]))
        pixels = onto.height * onto.width
        for one, reader, note, gaps in zip(sets, readers, moved, empty.tolist(), strict=True):
            reader.check_whole()
            notes += [f"{one.name}: {text}" for text in (note, reader.note) if text]
            if note and gaps == pixels:
                raise LabelError(
                    f"{reader.path} and {paths[base]} share no ground to be aligned on"
                )
    if in_some:
        notes.append(f"void in some masks, so left out of all ({in_some / pixels:.2%})")
    return ComparedScene(scene, place_of(scene)[0], patterns, void, in_some, tuple(notes))


def _open(
    stack: ExitStack, path: Path, base: Path, onto: "RasterInfo", align: bool
) -> tuple["GreyMaskReader", str | None]:
    """Open a mask on the grid of another; with a sentence where it was brought onto it."""
    from preprocessing.ground import grid_difference
    from preprocessing.raster_access import raster_info
    from preprocessing.rasters import GreyMaskReader
    from preprocessing.resampling import aligned

    own, note = raster_info(path), None
    difference = None if path == base else grid_difference(own, onto, str(base))
    opened = path
    if difference is not None:
        if not align:
            raise LabelError(f"{path} {difference}; they must lie on one grid, or --align")
        opened = stack.enter_context(aligned(path, onto))
        note = (
            f"aligned by nearest neighbour ({own.width} x {own.height} pixels with the "
            f"{onto.width} x {onto.height} of {base.name})"
        )
    reader = stack.enter_context(GreyMaskReader(opened))
    # Errors and notes name the file, not the virtual one.
    reader.path = type(reader.path)(path)
    return reader, note


def describe_comparison(
    scenes: Sequence[ComparedScene], sets: Sequence[MaskSet], has_truth: bool
) -> dict:
    """The content of ``comparison.json`` of masks.

    Returns:
        ``masks`` and ``truth``, names with paths; ``agreement``, of each pair of masks and place,
        the last of them ``overall``: ``equal`` (share of pixels), ``iou`` and ``kappa``; with a
        truth ``metrics``, of each mask and place, and ``differences``, of each pair and metric;
        and ``scenes``, each with its counts and notes.
    """
    names = [one.name for one in sets]
    truth = len(sets) - 1 if has_truth else None
    compared = [number for number in range(len(sets)) if number != truth]
    pairs = list(itertools.combinations(compared, 2))
    content = {
        "masks": {names[number]: str(sets[number].path) for number in compared},
        "truth": None if truth is None else str(sets[truth].path),
        "agreement": [
            {"first": names[i], "second": names[j], **head, **agreement(counts)}
            for i, j in pairs
            for head, counts in _places(scenes, i, j)
        ],
    }
    if truth is not None:
        content["metrics"] = [
            {"mask": names[i], **head, **counts.metrics(), **vars(counts)}
            for i in compared
            for head, counts in _places(scenes, truth, i)
        ]
        by_scene = [[scene.counts(truth, i) for scene in scenes] for i in compared]
        content["differences"] = [
            {"first": names[i], "second": names[j], "metric": metric, "unit": "tiles"}
            | paired_difference(by_scene[i], by_scene[j], metric).described()
            for i, j in pairs
            for metric in METRICS
        ]
    content["scenes"] = [_scene(scene, names, compared, truth) for scene in scenes]
    return content


def agreement(counts: Counts) -> dict[str, float]:
    """How far two masks agree, neither being the truth.

    Returns:
        ``equal``, the share of pixels, 1 without any; ``iou`` of their targets, 1 where neither
        has any; and ``kappa`` (Cohen 1960), -1..1, which is 0 where they agree as often as
        masks of their shares of target would by chance, and 1 where they are equal.
    """
    figures = counts.metrics()
    total, equal = counts.pixels, figures["accuracy"]
    first = counts.true_positive + counts.false_negative
    second = counts.true_positive + counts.false_positive
    kappa = 1.0
    if equal < 1:
        chance = (first * second + (total - first) * (total - second)) / total**2
        kappa = (equal - chance) / (1 - chance)
    return {"equal": equal, "iou": figures["iou"], "kappa": kappa}


def _places(scenes: Sequence[ComparedScene], truth: int, mask: int) -> list[tuple[dict, Counts]]:
    """Counts added per place and over everything; a single place stands for everything."""
    names = sorted({scene.place for scene in scenes})
    rows = []
    for place in [*(names if len(names) > 1 else []), OVERALL]:
        members = [scene for scene in scenes if place in (scene.place, OVERALL)]
        counts = sum((scene.counts(truth, mask) for scene in members), Counts())
        rows.append(({"place": place, "scenes": len(members), "pixels": counts.pixels}, counts))
    return rows


def _scene(
    scene: ComparedScene, names: Sequence[str], compared: Sequence[int], truth: int | None
) -> dict:
    """The entry of one scene."""
    described = {"name": scene.name, "place": scene.place, "void": scene.void}
    if scene.notes:
        described["notes"] = list(scene.notes)
    if truth is not None:
        described["metrics"] = {
            names[i]: counts.metrics() | vars(counts)
            for i in compared
            for counts in [scene.counts(truth, i)]
        }
    described["agreement"] = {
        f"{names[i]}, {names[j]}": agreement(scene.counts(i, j))
        for i, j in itertools.combinations(compared, 2)
    }
    return described


FILES = ("comparison.json", "comparison.csv")


def compare(
    paths: Sequence[Path],
    truth: Path | None = None,
    align: bool = False,
    output: Path | None = None,
    overwrite: bool = False,
    maps: bool = True,
) -> dict:
    """Compare masks with each other and with a truth, or list runs.

    Args:
        paths: run folders, among which whatever else there is is skipped; or, where none is a run,
            files and folders of masks (``mask_sets``).
        truth: file or folder of the true masks; None for none, and for runs, which were measured
            when they were evaluated.
        align: bring masks of another size or place onto the grid of the truth or first mask.
        output: folder for ``comparison.json``, ``comparison.csv`` and, of masks, the error maps
            (``preprocessing.raster_writers``) as ``errors/<mask>/<scene>.tif`` or, without a truth,
            ``differences/<mask>/<scene>.tif`` against the first; None to write nothing. All
            files appear at the end, or none.
        overwrite: replace outputs that exist.
        maps: whether maps are written.

    Returns:
        What the JSON holds: ``run_comparison.describe_runs`` where any path is a run, else
        ``describe_comparison``.

    Raises:
        JointNetError: of the kind that says what is wrong.
    """
    paths = [Path(path) for path in paths]
    if any(map(is_run, paths)):
        if truth is not None or align:
            raise RunError(
                "a truth and --align are for masks; a run is measured by `evaluate.py --model RUN` "
                "and listed with what that found"
            )
        _refuse(output, [], overwrite)
        content = describe_runs(*read_runs(paths))
        _write(output, content, _run_rows(content))
        return content
    sets = mask_sets(paths, None if truth is None else Path(truth))
    places = _map_paths(sets, truth is not None) if maps and output is not None else {}
    _refuse(output, places.values(), overwrite)
    if output is None:
        return describe_comparison(compare_masks(sets, truth is not None, align), sets, bool(truth))
    with folder_beside(output / FILES[0]) as beside:
        hidden = {key: beside / f"{number}.tif" for number, key in enumerate(places)}
        scenes = compare_masks(sets, truth is not None, align, hidden)
        content = describe_comparison(scenes, sets, truth is not None)
        for key, place in places.items():
            try:
                (output / place).parent.mkdir(parents=True, exist_ok=True)
                publish(hidden[key], output / place, overwrite)
            except OSError as error:
                raise OutputError(f"{output / place}: cannot be written: {error}") from error
    _write(output, content, _mask_rows(content))
    return content


def comparison_text(content: dict) -> str:
    """All that a command prints of what ``compare`` returns."""
    return run_text(content) if "runs" in content else mask_text(content)


def _map_paths(sets: Sequence[MaskSet], has_truth: bool) -> dict[tuple[str, str], Path]:
    """Where maps go, by name of the mask and scene."""
    kind, compared = ("errors", sets[:-1]) if has_truth else ("differences", sets[1:])
    return {
        (one.name, scene): Path(kind, one.name.replace("/", "_"), f"{scene}.tif")
        for one in compared
        for scene in one.files
    }


def _refuse(output: Path | None, maps: Sequence[Path], overwrite: bool) -> None:
    if output is not None:
        for name in (*FILES, *maps):
            refuse_existing(output / name, overwrite)


def _write(output: Path | None, content: dict, rows: Sequence[dict]) -> None:
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / FILES[0], content)
    columns = dict.fromkeys(key for row in rows for key in row)
    write_csv(output / FILES[1], [dict.fromkeys(columns, "") | row for row in rows])


def _mask_rows(content: dict) -> list[dict]:
    """Rows of the CSV: all tables under each other, told apart by their first column."""
    kinds = ("metrics", "agreement", "differences")
    return [{"table": kind, **row} for kind in kinds for row in content.get(kind, [])]


def _run_rows(content: dict) -> list[dict]:
    heads = ("name", "network", "parameters", "steps", "kept_epoch", "epochs", "measured")
    rows = [
        {"table": "results", **{key: run[key] for key in heads}, **row}
        for run in content["runs"]
        for row in run["results"] or [{}]
    ]
    return rows + [{"table": "differences", **row} for row in content["differences"]]
