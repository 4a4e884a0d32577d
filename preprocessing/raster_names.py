"""Names of rasters as GDAL takes them: files, and much that is none."""

import os
import re
from pathlib import Path, PurePath
from typing import Self
from urllib.parse import parse_qs

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WITH_OPTIONS = "/vsicurl?"
# Marks of a signed address: of its query, nothing then says which file it is.
_SIGNED = re.compile(r"(^|&)(X-Amz-Signature|X-Goog-Signature|Signature|sig)=")


class RasterName(str):
    """The name of a raster, kept as it was given.

    A ``pathlib.Path`` makes one slash of the two in ``/vsicurl/https://host/a.tif``,
    ``/vsizip//folder/a.zip/a.tif`` and ``s3://bucket/a.tif``, and GDAL then finds nothing. This is
    text, with what a path is asked for.

    Args:
        name: a path; a name of GDAL's file systems (``/vsi...``); an address as rasterio takes it
            (``s3://``, ``https://``, ``zip://``); a subdataset (``NETCDF:"a.nc":red``).
    """

    def __new__(cls, name: str | os.PathLike) -> Self:
        """Of text or of a path."""
        return super().__new__(cls, os.fspath(name))

    @property
    def is_virtual(self) -> bool:
        """Whether it is for GDAL alone: no path of the operating system."""
        return self.startswith("/vsi") or _SCHEME.match(self) is not None

    @property
    def url(self) -> str:
        """The ``http(s)://`` address in it; '' where there is none."""
        match = re.search("https?://.*", self._place)
        return match[0] if match else ""

    @property
    def unsigned_url(self) -> str:
        """The address without the query of a signed one, which differs from day to day."""
        address, _, query = self.url.partition("?")
        return address if _SIGNED.search(query) else self.url

    @property
    def name(self) -> str:
        """The last part of it, without the query of an address."""
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
        """Whether it is a file of the operating system."""
        return not self.is_virtual and Path(self).is_file()

    def resolve(self) -> "Path | RasterName":
        """What tells it from other rasters: a file's path without links, else the name."""
        return Path(self).resolve() if self.is_file() else self
