"""What ``--image`` names: a file, folder, glob, list, address or archive member."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Self
from urllib.parse import parse_qs

from preprocessing.errors import RasterError, one_line
from preprocessing.scenes import images_in

TEST_IMAGES = Path("AerialImageDataset", "test", "images")
LIST_SUFFIX = ".txt"
OutputsOf = Callable[[Path], Iterable[Path]]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WITH_OPTIONS = "/vsicurl?"
# Marks of a signed address, whose query does not say which file it is.
_SIGNED = re.compile(r"(^|&)(X-Amz-Signature|X-Goog-Signature|Signature|sig)=")


class RasterName(str):
    """The name of a raster as it was given, with some properties of a path.

    A ``pathlib.Path`` would make one slash of the two in ``/vsicurl/https://host/a.tif``,
    ``/vsizip//folder/a.zip/a.tif`` and ``s3://bucket/a.tif``, and GDAL would find nothing.

    Args:
        name: a path; a name of GDAL's file systems (``/vsi...``); an address as rasterio takes it
            (``s3://``, ``https://``, ``zip://``); a subdataset (``NETCDF:"a.nc":red``).
    """

    def __new__(cls, name: str | os.PathLike) -> Self:
        """Take text or a path."""
        return super().__new__(cls, os.fspath(name))

    @property
    def is_virtual(self) -> bool:
        """Whether only GDAL can open it: it is no path of the operating system."""
        return self.startswith("/vsi") or _SCHEME.match(self) is not None

    @property
    def url(self) -> str:
        """The ``http(s)://`` address in it; empty where there is none."""
        match = re.search("https?://.*", self._place)
        return match[0] if match else ""

    @property
    def unsigned_url(self) -> str:
        """The address, without its query if it is signed: that differs from day to day."""
        address, _, query = self.url.partition("?")
        return address if _SIGNED.search(query) else self.url

    @property
    def name(self) -> str:
        """The last part, without the query of an address."""
        place = self._place
        return PurePath(place.partition("?")[0] if "://" in place else place).name

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return PurePath(self.name).stem

    @property
    def _place(self) -> str:
        if self.startswith(_WITH_OPTIONS):
            return parse_qs(self.removeprefix(_WITH_OPTIONS)).get("url", [""])[-1]
        return self

    def is_file(self) -> bool:
        """Return whether it is a file of the operating system."""
        return not self.is_virtual and Path(self).is_file()

    def resolve(self) -> "Path | RasterName":
        """Return what tells it from other rasters: a file's path without links, else the name."""
        return Path(self).resolve() if self.is_file() else self


def find_images(
    values: Sequence[str], data: Path, outputs_of: OutputsOf = lambda image: ()
) -> list[RasterName]:
    """Find the rasters that ``--image`` names.

    A value is a file; a folder, without its inner folders; a glob pattern, ``**`` for folders in
    folders; a list (see ``read_list``); or what else GDAL opens (see ``RasterName``). A bare name
    or pattern that is not in the working directory is looked up among the Inria test images in
    ``data``.

    Returns:
        Each raster once, in the order named; those of a folder or pattern sorted by name, without
        what a prediction of one of them writes beside it (``outputs_of``).

    Raises:
        RasterError: there is nothing of that name; of a list, the line is named.
    """
    found: dict[Path | RasterName, RasterName] = {}
    for value in values:
        if value.lower().endswith(LIST_SUFFIX) and Path(value).is_file():
            images = read_list(Path(value), outputs_of)
        else:
            images = _named(value, data, outputs_of)
        for image in images:
            found.setdefault(image.resolve(), image)
    return list(found.values())


def read_list(path: Path, outputs_of: OutputsOf) -> list[RasterName]:
    """Read the rasters of a text file that names one (or a folder, or a pattern) a line.

    Relative paths start at the folder of the list. Empty lines and lines that begin with ``#`` are
    skipped.

    Raises:
        RasterError: no text, no names in it, or a line that names nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RasterError(
            f"{path}: a list is text with a path a line; got {one_line(error)}"
        ) from error
    found: list[RasterName] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and not line.startswith("#"):
            images = _found_at(line, path.parent, outputs_of)
            if not images:
                raise RasterError(
                    f"{path}, line {number}: {line}: no such image (paths start at the list's "
                    "folder)"
                )
            found += images
    if not found:
        raise RasterError(f"{path}: names no image; a list has one path a line")
    return found


def _named(value: str, data: Path, outputs_of: OutputsOf) -> list[RasterName]:
    if images := _found_at(value, Path(), outputs_of):
        return images
    bare = Path(value).name == value
    if bare and (images := _images_at(data / TEST_IMAGES, value, outputs_of)):
        return images
    if Path(value).is_dir():
        raise RasterError(f"{value}: folder without images (GeoTIFF, JPEG, PNG, VRT, ...)")
    also = f", neither here nor in {data / TEST_IMAGES}" if bare else ""
    raise RasterError(
        f"{value}: no such image{also}; --image takes files, folders, patterns, lists (.txt) and "
        "what GDAL opens (/vsicurl/https://..., s3://...)"
    )


def _found_at(value: str, folder: Path, outputs_of: OutputsOf) -> list[RasterName]:
    """Find what a name or pattern names, relative to a folder; nothing is a case."""
    name = RasterName(value)
    if name.is_virtual:
        return [name]
    # With a colon it may be a subdataset, which is no file.
    return _images_at(folder, value, outputs_of) or ([name] if ":" in value else [])


def _images_at(folder: Path, value: str, outputs_of: OutputsOf) -> list[RasterName]:
    """Find the files that a path or a pattern names, relative to a folder that is no pattern."""
    place = folder / value
    if place.is_file():
        return [RasterName(place)]
    if place.is_dir():
        images = images_in(place)
    else:
        matches = glob.glob(value, root_dir=folder, recursive=True)
        images = sorted(filter(Path.is_file, (folder / name for name in matches)))
    outputs = {path.name for image in images for path in outputs_of(image)}
    return [RasterName(image) for image in images if image.name not in outputs]
