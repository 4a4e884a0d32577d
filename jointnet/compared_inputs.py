"""What is given to be compared: run folders, or masks by scene; and what to call each of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jointnet.mask_evaluation import without_suffix
from preprocessing.errors import DatasetError
from preprocessing.scenes import NAMES_SHOWN, RASTER_SUFFIXES

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


def is_run(path: Path) -> bool:
    """Whether it is a run folder: one that holds ``config.json``."""
    return (path / "config.json").is_file()


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as tell them apart; a path given twice gets a number."""
    resolved = [path.resolve() for path in paths]
    distinct = list(dict.fromkeys(resolved))
    names = {}
    for path in distinct:
        for length in range(1, len(path.parts) + 1):
            end = path.parts[-length:]
            if sum(other.parts[-length:] == end for other in distinct) == 1:
                break
        names[path] = "/".join(end)
    times: Counter[Path] = Counter()
    short = []
    for path in resolved:
        times[path] += 1
        short.append(names[path] + (f" ({times[path]})" if times[path] > 1 else ""))
    return short


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
