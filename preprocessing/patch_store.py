"""Read a patch store: memory-mapped arrays and a manifest, with numpy alone.

A store is a folder:

- ``manifest.json``: where the patches are from (see ``patches.build_store``),
- ``train/images.npy`` ``(patches, size, size, bands)`` in the rasters' dtype and
  ``train/masks.npy`` ``(patches, size, size)`` uint8 of 0, 1 and 255 (void),
- ``validation/images.npy`` and ``validation/masks.npy``, which show the label of each pixel of the
  validation scenes exactly once.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from preprocessing.errors import StoreError
from preprocessing.output_files import hash_file
from preprocessing.tiling import VOID

FORMAT = "jointnet patch store 1"
SPLITS = ("train", "validation")
_AGAIN = "delete the store and make it again"
# What training and evaluation need of a manifest. Older ones lack ``band_limits`` and
# ``band_percentiles``.
_OF_ALL = {"target", "bands", "dtype", "band_mean", "band_std", "gsd", "settings"}
_OF_A_SCENE = {"name", "place", "split", "height", "width", "image", "label"}
_OF_A_PATCH = {"scene", "window", "extent", "valid_share", "target_share"}


@dataclass(frozen=True)
class PatchSettings:
    """How scenes are cut; sizes are in pixels.

    Attributes:
        patch_size: side of a training patch; training crops are drawn inside it.
        stride: distance between training patches, at most ``patch_size``.
        validation_size: side of a validation patch: that of the windows trained on.
        bands: number of bands.
        target: what the labels show, such as ``"buildings"``.
        band_numbers: 1-based bands of the files, in the order fed; they are imagery even if tagged
            alpha. None to choose by colour interpretation (see ``preprocessing.rasters``).

    Raises:
        ValueError: another number of ``band_numbers`` than ``bands``, or one below 1.
    """

    patch_size: int = 512
    stride: int = 512
    validation_size: int = 512
    bands: int = 3
    target: str = "buildings"
    band_numbers: tuple[int, ...] | None = None

    def __post_init__(self):
        """Check the band numbers, and turn a list from JSON into a tuple."""
        if self.band_numbers is None:
            return
        object.__setattr__(self, "band_numbers", tuple(self.band_numbers))
        if len(self.band_numbers) != self.bands or min(self.band_numbers, default=0) < 1:
            raise ValueError(
                f"band_numbers must be {self.bands} numbers from 1, as many as bands; "
                f"got {self.band_numbers}"
            )


@dataclass(frozen=True)
class PatchSet:
    """The patches of one split.

    Attributes:
        images: memory map as the module says; so is ``masks``.
        extents: ``(patches, 2)`` int, rows and columns of a patch that lie in its scene; less
            than ``size`` only if the scene is smaller than a patch.
        target_shares: ``(patches,)`` float, share of target among the valid pixels.
        valid_shares: ``(patches,)`` float, share of pixels that are not void.
        scenes: name of the scene of each patch.
        sources: data set of the scene of each patch, None if unnamed; empty if all are.
    """

    images: np.ndarray
    masks: np.ndarray
    extents: np.ndarray
    target_shares: np.ndarray
    valid_shares: np.ndarray
    scenes: tuple[str, ...]
    sources: tuple[str | None, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """The side of the patches in pixels."""
        return self.images.shape[1]


@dataclass(frozen=True)
class PatchStore:
    """An open store; ``settings`` in its manifest are completed to all of ``PatchSettings``."""

    folder: Path
    manifest: dict
    train: PatchSet
    validation: PatchSet

    @property
    def settings(self) -> PatchSettings:
        """How the scenes were cut."""
        return PatchSettings(**self.manifest["settings"])

    @property
    def sha256(self) -> str:
        """The hash of the manifest, which holds the hashes of all sources."""
        return hash_file(self.folder / "manifest.json")


def open_store(folder: Path) -> PatchStore:
    """Open a store for reading; its arrays stay on disk.

    Sources that exist must be those that were cut: of the same size and time of change or, if only
    the time differs (a copy), of the same hash. Missing sources do not matter, as a store may be
    copied to a machine alone.

    Raises:
        StoreError: no store there, or it is damaged, truncated, of another format, or stale.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    if not path.is_file():
        raise StoreError(
            f"{folder} is not a patch store: it has no manifest.json; "
            "make one with experiments/train_jointnet.py on the data"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}); {_AGAIN}") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise StoreError(f"{path} is of format {found!r}, this version reads {FORMAT!r}; {_AGAIN}")
    try:
        _refuse_missing(manifest)
        # Settings that an older version did not know have their defaults.
        manifest["settings"] = asdict(PatchSettings(**manifest["settings"]))
        _refuse_stale(folder, manifest)
        train, validation = (_open_split(folder, manifest, name) for name in SPLITS)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise StoreError(
            f"{path} is damaged ({type(error).__name__}: {error}); {_AGAIN}"
        ) from error
    return PatchStore(folder, manifest, train, validation)


def _refuse_missing(manifest: dict) -> None:
    entries = [(manifest, _OF_ALL), *((scene, _OF_A_SCENE) for scene in manifest["scenes"])]
    for split in SPLITS:
        entries += [(patch, _OF_A_PATCH) for patch in manifest["splits"][split]["patches"]]
    for entry, needed in entries:
        if not needed <= set(entry):
            raise KeyError(", ".join(sorted(needed - set(entry))))


@dataclass(frozen=True)
class StoredScene:
    """A validation scene joined again from its patches; its raster ``path`` may be gone by now.

    The image is ``(height, width, bands)`` raw pixels, the mask ``(height, width)`` uint8 of 0, 1
    and 255.
    """

    name: str
    place: str
    path: Path
    image: np.ndarray
    mask: np.ndarray


def stored_scenes(store: PatchStore) -> Iterator[StoredScene]:
    """Yield the whole validation scenes of a store: the inverse of ``validation_patches``."""
    patches = store.manifest["splits"]["validation"]["patches"]
    for number, scene in enumerate(store.manifest["scenes"]):
        if scene["split"] != "validation":
            continue
        shape = scene["height"], scene["width"]
        image = np.zeros((*shape, store.manifest["bands"]), store.manifest["dtype"])
        mask = np.full(shape, VOID, np.uint8)
        for position, patch in enumerate(patches):
            if patch["scene"] != number:
                continue
            (row, column, *_), (height, width) = patch["window"], patch["extent"]
            where = slice(row, row + height), slice(column, column + width)
            image[where] = store.validation.images[position, :height, :width]
            labels = store.validation.masks[position, :height, :width]
            # A pixel has its label in one patch, and is void in the others.
            mask[where] = np.minimum(mask[where], labels)
        yield StoredScene(scene["name"], scene["place"], Path(scene["image"]["path"]), image, mask)


def _open_split(folder: Path, manifest: dict, split: str) -> PatchSet:
    described = manifest["splits"][split]
    patches, size = described["patches"], described["patch_size"]
    scenes = [manifest["scenes"][patch["scene"]] for patch in patches]
    shape, dtype = (len(patches), size, size), np.dtype(manifest["dtype"])
    return PatchSet(
        images=_open_array(folder / split / "images.npy", (*shape, manifest["bands"]), dtype),
        masks=_open_array(folder / split / "masks.npy", shape, np.dtype(np.uint8)),
        extents=np.array([patch["extent"] for patch in patches], int).reshape(-1, 2),
        target_shares=np.array([patch["target_share"] for patch in patches], float),
        valid_shares=np.array([patch["valid_share"] for patch in patches], float),
        scenes=tuple(scene["name"] for scene in scenes),
        sources=tuple(scene.get("source") for scene in scenes),
    )


def _open_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r") if shape[0] else np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{path} is missing or truncated ({error}); {_AGAIN}") from None
    if array.shape != shape:
        raise StoreError(f"{path} has shape {array.shape}, its manifest says {shape}; {_AGAIN}")
    if array.dtype != dtype:
        raise StoreError(f"{path} is of dtype {array.dtype}, it should be {dtype}; {_AGAIN}")
    return array


def _refuse_stale(folder: Path, manifest: dict) -> None:
    for scene in manifest["scenes"]:
        # Older stores have no sidecars and no time.
        for source in (scene["image"], scene["label"], *scene.get("sidecars", [])):
            path = Path(source["path"])
            if path.is_file() and not _unchanged(path, source):
                raise StoreError(
                    f"{folder} is stale: {path} has changed since its patches were cut; {_AGAIN}"
                )


def _unchanged(path: Path, source: dict) -> bool:
    stat = path.stat()
    if stat.st_size != source["bytes"]:
        return False
    return stat.st_mtime_ns == source.get("mtime_ns") or hash_file(path) == source["sha256"]
