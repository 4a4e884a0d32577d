"""Finished masks compared with each other and with a truth: pairing, counts, tables, maps."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jointnet.evaluation import OVERALL, refuse_tables, text_table, write_tables
from jointnet.mask_evaluation import MASK_ENDING, masks_in, on_grid
from jointnet.metrics import METRICS, Counts
from jointnet.run_comparison import NAMES, difference_rows, differences_text
from preprocessing.errors import DatasetError, LabelError, listed
from preprocessing.layouts import place_of
from preprocessing.output_files import cannot_write, folder_beside, publish, refuse_existing
from preprocessing.scenes import RASTER_SUFFIXES, short_names
from preprocessing.tiling import VOID, Window

MOST_MASKS = 12
# numpy counts in eight bytes a pixel.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class MaskSet:
    """Masks of one origin, a file or folder: ``files`` by the name of their scene."""

    name: str
    path: Path
    files: dict[str, Path]


Maps = dict[tuple[str, str], Path]
"""Paths of error maps, by name of the mask and scene."""


# Pairing


def mask_sets(paths: Sequence[Path], truth: Path | None) -> list[MaskSet]:
    """Pair masks of several origins by scene; the truth, if there is one, comes last.

    A scene is known by its stem without ``_output``, as ``mask_evaluation.masks_in`` finds it.
    Files alone make one scene, whatever they are called; a file beside folders stands for the one
    scene of its name.

    Raises:
        DatasetError: nothing to compare with, no masks, a file or folder that is not there, or
            scenes that one has and another has not.
    """
    given = [*paths, *([] if truth is None else [truth])]
    if not 2 <= len(given) <= MOST_MASKS:
        raise DatasetError(
            f"got {len(paths)} input(s){'' if truth is None else ' and a truth'}; give two to "
            f"{MOST_MASKS} files or folders of masks, one with --truth, or run folders: results/*"
        )
    found = [_masks_of(path) for path in given]
    of_files = [masks for path, masks in zip(given, found, strict=True) if not path.is_dir()]
    if len(of_files) == len(given):
        # Files alone are one scene, whatever they are called.
        found, of_files = [dict.fromkeys(found[0], *masks.values()) for masks in found], []
    scenes = set().union(*(of_files or found))
    if of_files:
        found = [{s: file for s, file in masks.items() if s in scenes} for masks in found]
    missing = {path: scenes - masks.keys() for path, masks in zip(given, found, strict=True)}
    lacks = [
        f"{path} lacks {len(names)} of {len(scenes)} masks: {listed(sorted(names))}"
        for path, names in missing.items()
        if names
    ]
    if lacks:
        raise DatasetError(
            f"masks pair by file name without suffix and {MASK_ENDING}; {'; '.join(lacks)}"
        )
    return [
        MaskSet(name, path, dict(sorted(masks.items())))
        for name, path, masks in zip(short_names(given), given, found, strict=True)
    ]


def _masks_of(path: Path) -> dict[str, Path]:
    """Return the masks of a file or folder by scene."""
    if not path.is_dir():
        if not path.is_file():
            raise DatasetError(f"{path}: no such file or folder")
        if path.suffix.lower() not in RASTER_SUFFIXES:
            raise DatasetError(
                f"{path} is no mask: known are {', '.join(sorted(RASTER_SUFFIXES))}; evaluate.py "
                "--labels takes polygons"
            )
        return {path.stem.removesuffix(MASK_ENDING): path}
    files = masks_in(path)
    if not files:
        raise DatasetError(f"{path} holds no masks ({', '.join(sorted(RASTER_SUFFIXES))})")
    times = Counter(plain.stem for plain in files)
    shared = sorted(file.name for plain, file in files.items() if times[plain.stem] > 1)
    if shared:
        raise DatasetError(f"{path} holds several masks of one name: {listed(shared)}")
    return {plain.stem: file for plain, file in files.items()}


# Counting


@dataclass(frozen=True)
class ComparedScene:
    """What was counted in one scene.

    Attributes:
        patterns: ``(2 ** masks,)`` int64, pixels by who has target there: mask i has bit i.
        void: pixels that are void in at least one mask.
        void_in_some: those of them that are not void in all.
        notes: how masks were brought into shape, each "mask: what was done (details)".
    """

    name: str
    place: str
    patterns: np.ndarray
    void: int = 0
    void_in_some: int = 0
    notes: tuple[str, ...] = ()

    def counts(self, truth: int, mask: int) -> Counts:
        """Return the confusion matrix of two masks, by number, of which the first is the truth."""
        pattern = np.arange(len(self.patterns))
        wanted, found = pattern >> truth & 1 == 1, pattern >> mask & 1 == 1
        pairs = (wanted & found, ~wanted & found, wanted & ~found, ~wanted & ~found)
        return Counts(*(int(self.patterns[pair].sum()) for pair in pairs))


def count_patterns(masks: Sequence[np.ndarray]) -> tuple[np.ndarray, int, int]:
    """Return ``patterns``, ``void`` and ``void_in_some`` of ``ComparedScene``.

    There are up to 16 masks, uint8 of 0, 1 and 255 (void) and of one shape.
    """
    dtype = np.uint8 if len(masks) <= 8 else np.uint16
    index, void, covered = np.zeros(masks[0].shape, dtype), False, False
    for bit, mask in enumerate(masks):
        index |= (mask == 1).astype(dtype) << dtype(bit)
        gap = mask == VOID
        void, covered = void | gap, covered | ~gap
    counted = index[~void]
    patterns = np.zeros(2 ** len(masks), np.int64)
    for first in range(0, counted.size, _CHUNK):
        patterns += np.bincount(counted[first : first + _CHUNK], minlength=patterns.size)
    return patterns, int(np.count_nonzero(void)), int(np.count_nonzero(void & covered))


def count_masks(
    sets: Sequence[MaskSet], has_truth: bool = False, align: bool = False, maps: Maps | None = None
) -> list[ComparedScene]:
    """Count, scene by scene, in strips of rows; memory does not grow with the rasters.

    Args:
        sets: masks of the same scenes (``mask_sets``); grey ones are thresholded at 128.
        has_truth: whether the last is the truth, whose grid is that of all. Without one the first
            takes its part.
        align: bring masks of another size or place onto that grid, by nearest neighbour.
        maps: the error maps to write; None for none.

    Raises:
        RasterError: a mask that cannot be read, or has no place on the ground and is to be
            aligned.
        LabelError: values that no mask has; a size or place of its own; no common ground.
        OutputError: a map cannot be written.
    """
    base = len(sets) - 1 if has_truth else 0
    bar = tqdm(sets[0].files, desc="comparing", unit="scene", leave=False, disable=None)
    return [_count_scene(scene, sets, base, align, maps or {}) for scene in bar]


def _count_scene(
    scene: str, sets: Sequence[MaskSet], base: int, align: bool, maps: Maps
) -> ComparedScene:
    from preprocessing.image_operations import error_classes
    from preprocessing.raster_access import raster_info
    from preprocessing.raster_writers import BLOCK, ErrorMapWriter
    from preprocessing.rasters import GreyMaskReader

    paths = [one.files[scene] for one in sets]
    onto = raster_info(paths[base])
    with ExitStack() as stack:
        readers, deeds, notes = [], [], []
        for path in paths:
            opened, deed = on_grid(stack, path, paths[base], onto, align)
            readers.append(stack.enter_context(GreyMaskReader(opened)))
            # Errors and notes name the file, not the virtual one.
            readers[-1].path = type(readers[-1].path)(path)
            deeds.append(deed)
        writers = {
            number: stack.enter_context(ErrorMapWriter(maps[one.name, scene], onto))
            for number, one in enumerate(sets)
            if (one.name, scene) in maps
        }
        counted, empty = [], np.zeros(len(sets), np.int64)
        for row in range(0, onto.height, BLOCK):
            strip = Window(row, 0, min(BLOCK, onto.height - row), onto.width)
            masks = [reader.read(strip) for reader in readers]
            counted.append(count_patterns(masks))
            empty += [np.count_nonzero(mask == VOID) for mask in masks]
            for number, writer in writers.items():
                writer.write(strip, error_classes(masks[base], masks[number]))
        pixels = onto.height * onto.width
        for one, reader, deed, gaps in zip(sets, readers, deeds, empty.tolist(), strict=True):
            reader.check_whole()
            notes += [f"{one.name}: {text}" for text in (deed, reader.note) if text]
            if deed and gaps == pixels:
                raise LabelError(
                    f"{reader.path} and {paths[base]} share no ground to be aligned on"
                )
    patterns, void, in_some = map(sum, zip(*counted, strict=True))
    if in_some:
        notes.append(f"void in some masks, so left out of all ({in_some / pixels:.2%})")
    return ComparedScene(scene, place_of(scene)[0], patterns, void, in_some, tuple(notes))


# Comparing


def compare_masks(
    paths: Sequence[Path],
    truth: Path | None = None,
    align: bool = False,
    output: Path | None = None,
    overwrite: bool = False,
    maps: bool = True,
) -> dict:
    """Compare masks with each other and with a truth, and write tables and error maps.

    ``mask_sets`` says which paths there can be, ``count_masks`` what ``align`` does. ``output`` is
    the folder for ``comparison.json``, ``comparison.csv`` and, unless ``maps`` is off, the error
    maps ``errors/<mask>/<scene>.tif`` or, without a truth, ``differences/<mask>/<scene>.tif``
    against the first; None to write nothing. All files appear at the end.

    Returns what the JSON holds, see ``describe_comparison``.
    """
    has_truth = truth is not None
    sets = mask_sets(paths, truth)
    refuse_tables(output, "comparison", overwrite)
    if output is None:
        return describe_comparison(count_masks(sets, has_truth, align), sets, has_truth)
    kind, compared = ("errors", sets[:-1]) if has_truth else ("differences", sets[1:])
    places = {
        (one.name, scene): output / kind / one.name.replace("/", "_") / f"{scene}.tif"
        for one in compared
        for scene in one.files
        if maps
    }
    for place in places.values():
        refuse_existing(place, overwrite)
    with folder_beside(output / "comparison.json") as beside:
        hidden = {key: beside / f"{number}.tif" for number, key in enumerate(places)}
        scenes = count_masks(sets, has_truth, align, hidden)
        content = describe_comparison(scenes, sets, has_truth)
        for key, place in places.items():
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                publish(hidden[key], place, overwrite)
            except OSError as error:
                raise cannot_write(place, error) from error
    # All tables under each other, told apart by the first column.
    kinds = ("metrics", "agreement", "differences")
    rows = [{"table": kind, **row} for kind in kinds for row in content.get(kind, [])]
    write_tables(output, "comparison", content, rows)
    return content


def describe_comparison(
    scenes: Sequence[ComparedScene], sets: Sequence[MaskSet], has_truth: bool
) -> dict:
    """Return the content of ``comparison.json`` of masks.

    That is ``masks`` and ``truth``, names with paths; the ``agreement`` of each pair of masks and
    place, the last of them ``overall``; with a truth ``metrics``, of each mask and place, and
    ``differences``, of each pair and metric; and ``scenes``, each with its counts and notes.
    """
    names = [one.name for one in sets]
    truth = len(sets) - 1 if has_truth else None
    compared = [number for number in range(len(sets)) if number != truth]
    pairs = list(itertools.combinations(compared, 2))
    content: dict[str, Any] = {
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
        content["differences"] = []
        for i, j in pairs:
            head = {"first": names[i], "second": names[j]}
            content["differences"] += difference_rows(head, "tiles", by_scene[i], by_scene[j])
    content["scenes"] = []
    for scene in scenes:
        described = {"name": scene.name, "place": scene.place, "void": scene.void}
        if scene.notes:
            described["notes"] = list(scene.notes)
        if truth is not None:
            counted = {names[i]: scene.counts(truth, i) for i in compared}
            described["metrics"] = {n: one.metrics() | vars(one) for n, one in counted.items()}
        described["agreement"] = {
            f"{names[i]}, {names[j]}": agreement(scene.counts(i, j)) for i, j in pairs
        }
        content["scenes"].append(described)
    return content


def agreement(counts: Counts) -> dict[str, float]:
    """Return how far two masks agree where neither is the truth.

    ``equal`` is the share of pixels, 1 without any; ``iou`` that of their targets, 1 where neither
    has any; and ``kappa`` (Cohen 1960), -1..1, is 0 where they agree as often as masks with as
    much target would by chance, and 1 where they are equal.
    """
    metrics = counts.metrics()
    total, equal = counts.pixels, metrics["accuracy"]
    first = counts.true_positive + counts.false_negative
    second = counts.true_positive + counts.false_positive
    kappa = 1.0
    if equal < 1:
        chance = (first * second + (total - first) * (total - second)) / total**2
        kappa = (equal - chance) / (1 - chance)
    return {"equal": equal, "iou": metrics["iou"], "kappa": kappa}


def _places(
    scenes: Sequence[ComparedScene], truth: int, mask: int
) -> Iterator[tuple[dict, Counts]]:
    """Yield counts added per place and over everything; a single place stands for everything."""
    names = sorted({scene.place for scene in scenes})
    for place in [*(names if len(names) > 1 else []), OVERALL]:
        members = [scene for scene in scenes if place in (scene.place, OVERALL)]
        counts = sum((scene.counts(truth, mask) for scene in members), Counts())
        yield {"place": place, "scenes": len(members), "pixels": counts.pixels}, counts


# Printing


def mask_text(content: dict) -> str:
    """Return all that is printed of ``describe_comparison``."""
    parts = [notes_text(content["scenes"])]
    head = ("place", "scenes", "pixels")
    if content["agreement"]:
        rows = [{"masks": f"{r['first']}, {r['second']}", **r} for r in content["agreement"]]
        parts.append(
            "Agreement: share of pixels that are equal, IoU of each other, Cohen's kappa\n"
            + _table(rows, ("masks", *head, "equal", "iou", "kappa"))
        )
    if "metrics" in content:
        table = _table(content["metrics"], ("mask", *head, *METRICS))
        parts.append(f"Against {content['truth']}\n{table}")
    parts.append(differences_text(content.get("differences", [])))
    return "\n\n".join(filter(None, parts))


def _table(rows: Sequence[dict], columns: Sequence[str]) -> str:
    heading = [NAMES.get(column, column) for column in columns]
    return text_table([heading, *([row[column] for column in columns] for row in rows)], left=2)


def notes_text(scenes: Sequence[dict]) -> str:
    """Return a line for each thing that was done; without details if it was in several scenes."""
    by_deed: dict[str, list[str]] = {}
    for scene in scenes:
        for note in scene.get("notes", []):
            by_deed.setdefault(note.partition(" (")[0], []).append(note)
    return "\n".join(
        notes[0] if len(notes) == 1 else f"{deed} ({len(notes)} of {len(scenes)} scenes)"
        for deed, notes in by_deed.items()
    )
