"""The rasters that ``--image`` names: files, folders, patterns, lists and what only GDAL opens."""

import glob
from collections.abc import Sequence
from pathlib import Path

from jointnet.raster_outputs import output_paths
from preprocessing.errors import RasterError
from preprocessing.raster_names import RasterName
from preprocessing.scenes import images_in

TEST_IMAGES = Path("AerialImageDataset", "test", "images")
LIST_SUFFIX = ".txt"


def find_images(values: Sequence[str], data: Path) -> list[RasterName]:
    """Find the rasters that ``--image`` names.

    Args:
        values: files; folders, of which the rasters are taken, not those of folders in them;
            glob patterns, ``**`` for folders in folders; lists (see ``read_list``); what GDAL
            opens though it is no file (see ``raster_names.RasterName``). A bare name or pattern
            that is not in the working directory is sought among the Inria test images.
        data: folder of the data sets.

    Returns:
        Each raster once, in the order named; those of a folder or pattern sorted by name, and
        without what an earlier prediction wrote beside them.

    Raises:
        RasterError: nothing is there by that name; of a list, the line is named.
    """
    found: dict[Path | RasterName, RasterName] = {}
    for value in values:
        listed = value.lower().endswith(LIST_SUFFIX) and Path(value).is_file()
        for image in read_list(Path(value)) if listed else _named(value, data):
            found.setdefault(image.resolve(), image)
    return list(found.values())


def read_list(path: Path) -> list[RasterName]:
    """The rasters of a text file that names one (or a folder, or a pattern) a line.

    Relative paths start at the folder of the list. Empty lines, and lines that begin with ``#``,
    are left out.

    Raises:
        RasterError: no text, no names in it, or a line that names nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RasterError(f"{path}: a list is text with a path a line; got {error}") from error
    found: list[RasterName] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and not line.startswith("#"):
            images = _found_at(line, path.parent)
            if not images:
                raise RasterError(
                    f"{path}, line {number}: {line}: no such image (paths start at the list's "
                    "folder)"
                )
            found += images
    if not found:
        raise RasterError(f"{path}: names no image; a list has one path a line")
    return found


def _named(value: str, data: Path) -> list[RasterName]:
    """What one value names that is no list."""
    if images := _found_at(value, Path()):
        return images
    bare = Path(value).name == value
    if bare and (images := _images_at(data / TEST_IMAGES, value)):
        return images
    if Path(value).is_dir():
        raise RasterError(f"{value}: folder without images (GeoTIFF, JPEG, PNG, VRT, ...)")
    also = f", neither here nor in {data / TEST_IMAGES}" if bare else ""
    raise RasterError(
        f"{value}: no such image{also}; --image takes files, folders, patterns, lists (.txt) and "
        "what GDAL opens (/vsicurl/https://..., s3://...)"
    )


def _found_at(value: str, folder: Path) -> list[RasterName]:
    """What a name is from a folder on; none where nothing is there."""
    name = RasterName(value)
    if name.is_virtual:
        return [name]
    # A subdataset is no file.
    return _images_at(folder, value) or ([name] if ":" in value else [])


def _images_at(folder: Path, value: str) -> list[RasterName]:
    """The rasters that a path or a pattern names from a folder on; the folder is no pattern."""
    place = folder / value
    if place.is_file():
        return [RasterName(place)]
    images = images_in(place) if place.is_dir() else _matching(folder, value)
    outputs = {
        path.name
        for image in images
        for target in ("buildings", "roads")
        for path in output_paths(image, "", probabilities=True, target=target).values()
    }
    return [RasterName(image) for image in images if image.name not in outputs]


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The files of a pattern, sorted."""
    found = glob.glob(pattern, root_dir=folder, recursive=True)
    return sorted(filter(Path.is_file, (folder / name for name in found)))
