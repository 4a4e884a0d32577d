"""What a prediction depends on, in short: the network's weights and the raster's files.

None of it holds where things lie: the same files under another mount point are the same job.
"""

import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable
from http.client import HTTPException
from typing import TYPE_CHECKING, Literal

from jointnet.runs import WEIGHTS, Run
from preprocessing.output_files import hash_file
from preprocessing.raster_names import RasterName

if TYPE_CHECKING:
    from preprocessing.rasters import RasterInfo

_SECONDS_TO_ANSWER = 30


def precision_of(run: Run) -> str:
    """Name of the dtype policy that the network computes in."""
    return getattr(getattr(run.model, "dtype_policy", None), "name", "float32")


def files_of(image: RasterName) -> list[list]:
    """Name, size and time of change of all files of a raster, without reading their pixels.

    Names are bare, as machines may see a shared file system under different paths; it is taken to
    tell all of them the same size and time, as NFS, SMB and Lustre do. A copy keeps the time by
    ``cp -p`` or ``rsync -t``. Of an archive, it is that of the archive.

    A server of http is asked once, for a single byte: size, and ``Last-Modified`` or else
    ``ETag``. The request knows nothing of GDAL's own settings (passwords, headers). Where a server
    says neither, and of all other remote files (``/vsis3/`` and its like), a change is not noticed
    unless size, bands, dtype or place of the raster are others.

    Returns:
        The raster's own file, then the others: ``[name, size in bytes, change]``, the last two
        None where they are unknown. A remote name is the whole address, without a signature.

    Raises:
        RasterError: no such file, or no raster.
    """
    from preprocessing.rasters import raster_files

    return [_entry(RasterName(name)) for name in raster_files(image)]


def compare_files(was: list[list], now: list[list]) -> Literal["same", "gone", "changed"]:
    """What has become of files, by ``files_of``.

    Args:
        was: what they were; what was unknown then is not compared.
        now: what they are.

    Returns:
        "gone" where files are missing, or servers say nothing of them any more, while all others
        are what they were.
    """
    unknown = {name for name, *stamp in was if stamp == [None, None]}
    was, now = ([entry for entry in found if entry[0] not in unknown] for found in (was, now))
    if was == now:
        return "same"
    left = [entry for entry in now if entry[1:] != [None, None]]
    return "gone" if all(entry in was for entry in left) else "changed"


def raster_of(info: "RasterInfo", marks: list, image: RasterName) -> list:
    """What a raster is beside its files, plain values.

    Args:
        info: of the raster.
        marks: numbers of the bands that are fed, and what says where they are void.
        image: the raster; of a subdataset, a member of an archive or a remote file the name
            counts, without the folders of this machine.
    """
    if image.is_file():
        name = ""
    elif image.url:
        name = image.replace(image.url, image.unsigned_url)
    else:
        name = _with_paths(image, os.path.basename)
    crs = info.crs.to_wkt() if info.crs else None
    points = [[p.row, p.col, p.x, p.y] for p in info.gcps]
    return [name, info.band_count, info.dtype, crs, list(info.transform), points, *map(str, marks)]


def absolute_name(image: RasterName) -> str:
    """The raster's name for processes that run in another folder."""
    return os.path.abspath(image) if image.is_file() else _with_paths(image, os.path.abspath)


def weights_of(run: Run) -> str:
    """Hash of a run's weights; one of its own for a network that was never written."""
    path = run.folder / WEIGHTS
    return hash_file(path) if path.is_file() else uuid.uuid4().hex


def _entry(name: RasterName) -> list:
    if name.url:
        return [name.unsigned_url, *_told_by_server(name)]
    path = _on_disk(name)
    try:
        stat = os.stat(path)
    except OSError:
        # Not a file of this machine.
        return [str(name), None, None]
    return [os.path.basename(path), stat.st_size, stat.st_mtime_ns]


def _with_paths(image: RasterName, change: Callable[[str], str]) -> str:
    """A name with the paths in it changed."""
    from preprocessing.rasters import raster_files

    name = str(image)
    for path in {_on_disk(file) for file in raster_files(image)}:
        if os.path.isfile(path):
            name = name.replace(path, change(path), 1)
    return name


def _on_disk(name: str) -> str:
    """The file itself, or the archive that holds it."""
    if not name.startswith("/vsi"):
        return name
    inside = name.split("/", 2)[-1]
    return next(filter(os.path.isfile, _shorter_and_shorter(inside)), name)


def _shorter_and_shorter(path: str) -> Iterable[str]:
    """A path, the folder it lies in, and so on: one of them is the archive of a member."""
    while path.strip("/"):
        yield path
        path = path.rpartition("/")[0]


def _told_by_server(name: RasterName) -> tuple[int | None, str | None]:
    """Size and time (or tag) of a remote file, or of the archive that holds it."""
    plain = name.startswith(("/vsicurl", "http"))
    for url in [name.url] if plain else _shorter_and_shorter(name.url):
        # One byte: some servers that give files refuse to describe them (HEAD).
        request = urllib.request.Request(url, headers={"Range": "bytes=0-0"})
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS_TO_ANSWER) as answer:
                told = answer.headers
        except urllib.error.HTTPError:
            continue
        except (OSError, ValueError, HTTPException):
            break
        size = told.get("Content-Range", "").rpartition("/")[2] or told.get("Content-Length", "")
        change = told.get("Last-Modified") or told.get("ETag")
        return int(size) if size.isdecimal() else None, change
    return None, None
