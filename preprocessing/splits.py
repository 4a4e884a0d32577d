"""Which scenes are held back for validation, where a data set brings no split of its own."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from preprocessing.errors import DatasetError
from preprocessing.inria import STEM
from preprocessing.scenes import Scene

HELD_BACK = 5
"""Without a split of one's own, one raster in so many is held back for validation."""

# Patches named by the row and column at which they were cut out of a tile.
_CUT = re.compile(r"(?P<tile>.*[^_])_[0-9]+_[0-9]+")


def hold_back(
    scenes: Sequence[Scene], validation: Collection[int | str] | float | None, folder: object
) -> list[Scene]:
    """Put some scenes on the validation side and all others on the training side.

    Patches of one tile stay together, whatever is asked for: ``austin1_7`` and ``austin1_8``, or
    by row and column ``town_0_512`` and ``town_512_0``. Where by row and column all are patches
    of one tile, each counts as a tile, see ``patch_note``.

    Args:
        scenes: of one data set or several.
        validation: what is held back: names (of scenes, of tiles of which patches were cut, of
            places) and indices, which count for every place, or names that are numbers
            (``7`` for ``007.tif``); or the share of the tiles, above 0
            and below 1, taken at even distances in the order of their names. None for the first
            tile and every fifth after it.
        folder: where the scenes are from, for messages.

    Returns:
        The scenes in their order.

    Raises:
        DatasetError: a name that no scene has, a share that is none, or no scene left on a side.
    """
    tile_of = _tiles(scenes)
    tiles = sorted(set(tile_of))
    if validation is None:
        chosen = set(tiles[::HELD_BACK])
    elif isinstance(validation, float):
        chosen = set(_spread(tiles, validation))
    else:
        chosen = _named(scenes, tile_of, validation, folder)
    held_back = [tile in chosen for tile in tile_of]
    if all(held_back) or not any(held_back):
        side = "training" if any(held_back) else "validation"
        raise DatasetError(
            f"no {side} scene among {len(scenes)} raster(s) in {folder}: two or more are needed, "
            "some of them, but not all, named for validation"
        )
    return [
        replace(scene, split="validation" if held else "train")
        for scene, held in zip(scenes, held_back, strict=True)
    ]


def patch_note(scenes: Sequence[Scene]) -> str | None:
    """One sentence where names say that all scenes were cut out of one tile, None elsewhere.

    ``hold_back`` then splits the tile, and cannot keep patches apart that overlap.

    Args:
        scenes: of one data set or several.
    """
    tiles, cut = _by_name(scenes), _by_row_and_column(scenes)
    if tiles == cut or len(set(cut)) > 1:
        return None
    return (
        f"by their names ({scenes[0].name}, ...) all scenes are patches of {cut[0][1]}: if "
        "they overlap, the same ground is trained on and validated on; hold back patches that lie "
        "apart from the others by --validation"
    )


def _tiles(scenes: Sequence[Scene]) -> list[tuple[str, str]]:
    """Source and tile of each scene; patches of the only tile are tiles of their own."""
    cut = _by_row_and_column(scenes)
    return cut if len(set(cut)) > 1 else _by_name(scenes)


def _by_name(scenes: Sequence[Scene]) -> list[tuple[str, str]]:
    return [(scene.source or "", _tile(scene.name)) for scene in scenes]


def _by_row_and_column(scenes: Sequence[Scene]) -> list[tuple[str, str]]:
    return [
        (source, match["tile"] if match and tile == scene.name else tile)
        for scene, (source, tile) in zip(scenes, _by_name(scenes), strict=True)
        for match in [_CUT.fullmatch(scene.name)]
    ]


def _tile(name: str) -> str:
    match = STEM.fullmatch(name)
    return match["tile"] if match else name


def _spread(tiles: list[tuple[str, str]], share: float) -> list[tuple[str, str]]:
    """So many tiles at even distances: one or more, and not all where there are several."""
    if not 0 < share < 1:
        raise DatasetError(
            f"validation is {share}; as a share it lies between 0 and 1, such as 0.2"
        )
    count = max(1, min(round(share * len(tiles)), len(tiles) - 1))
    return [tiles[number * len(tiles) // count] for number in range(count)]


def _named(
    scenes: Sequence[Scene],
    tile_of: list[tuple[str, str]],
    validation: Collection[int | str],
    folder: object,
) -> set[tuple[str, str]]:
    """The tiles that names and indices stand for."""
    known: dict[int | str | None, set[tuple[str, str]]] = {}
    for scene, tile in zip(scenes, tile_of, strict=True):
        names = (scene.name, tile[1])
        # Where a name is a number, nothing tells it from an index.
        numbers = (int(name) for name in names if name.isdecimal())
        for item in (*names, scene.place, scene.index, *numbers):
            known.setdefault(item, set()).add(tile)
    unknown = [item for item in validation if isinstance(item, str) and item not in known]
    if unknown:
        raise DatasetError(f"validation names no raster of {folder}: {', '.join(unknown)}")
    return set().union(*(known.get(item, set()) for item in validation))
