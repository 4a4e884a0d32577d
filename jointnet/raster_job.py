"""One raster to predict: with which network and options, and what of it is there already."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jointnet.band_files import BandFiles
from jointnet.job_inputs import (
    absolute_name,
    compare_files,
    files_of,
    precision_of,
    raster_of,
    weights_of,
)
from jointnet.prediction import batch_of, predict_band
from jointnet.raster_checks import bands_of, fed_steps
from jointnet.raster_outputs import MASK, output_paths
from jointnet.runs import WEIGHTS, Run
from jointnet.symmetries import mean_over_symmetries
from jointnet.window_bands import Band, WindowGrid
from preprocessing.errors import OutputError, RasterError, RunError
from preprocessing.raster_names import RasterName
from preprocessing.tiling import Window

if TYPE_CHECKING:
    from preprocessing.rasters import RasterReader
    from preprocessing.resampling import ResampledReader, WhiteIsVoid

FORMAT = "jointnet prediction 1"
KEY_TAG = "JOINTNET_PREDICTION"
"""Name of the tag in the mask that holds the key of the job that made it."""


@dataclass(frozen=True)
class PredictionOptions:
    """What may be chosen for a prediction.

    Attributes:
        bands: 1-based bands to feed; None for those named in training, else by colour
            interpretation.
        threshold: probability from which a pixel is target, 0..1; None for the run's own.
        probabilities: write ``<stem>_probabilities.tif`` too, float32, NaN where void.
        batch_size: windows predicted at once; None for ``prediction.batch_of`` the run's window.
        augment: predict every window in its eight flips and rotations, and take the mean; eight
            times the time.
        gsd: ground metres per pixel of the raster, where it does not say or says it wrong; None
            for what it says; ``"native"`` to feed it as it is, whatever it says.
        void_white: white areas are void, see ``preprocessing.resampling``.
    """

    bands: Sequence[int] | None = None
    threshold: float | None = None
    probabilities: bool = False
    batch_size: int | None = None
    augment: bool = False
    gsd: float | str | None = None
    void_white: bool = False


class RasterJob:
    """A raster, the network that predicts it, and where its outputs go.

    A raster whose ground resolution is another than the network's is resampled to it as it is read
    (see ``raster_checks.fed_steps``).

    Attributes: ``run``, ``target``, ``image``, ``folder``, ``options``, ``info`` (of the raster),
    ``size`` (rows and columns that the network sees) and ``grid``, the windows over these.

    Args:
        run: the network, from ``jointnet.runs.load_run``.
        image: anything GDAL reads, see ``raster_names.RasterName``.
        folder: where the outputs go.
        options: what was chosen.

    Raises:
        RasterError: no such raster, or not the bands.
    """

    def __init__(
        self, run: Run, image: str | os.PathLike, folder: Path, options: PredictionOptions
    ):
        from preprocessing.rasters import RasterReader
        from preprocessing.resampling import size_at

        self.run, self.options, self.target = run, options, run.config["target"]
        self.image, self.folder = RasterName(image), Path(folder)
        self._bands = bands_of(run, options.bands)
        self._reader = lambda: RasterReader(self.image, self._bands, run.config["bands"])
        with self._reader() as reader:
            self.info = reader.info
            self._marks = [*reader.bands, *reader.validity.marks]
        if options.void_white:
            # Refuses what has no white.
            self._imagery().close()
        self.size = (self.info.height, self.info.width)
        if (steps := fed_steps(run, self.info.steps, options.gsd)) is not None:
            self.size = size_at(*self.size, steps, run.config["gsd"])
        self.grid = WindowGrid(*self.size, run.config["window"], run.config["overlap"])
        self._begun = files_of(self.image)

    @property
    def resumable(self) -> bool:
        """Whether another start can go on from the bands: not for weights that have no file."""
        return (self.run.folder / WEIGHTS).is_file()

    @property
    def threshold(self) -> float:
        """Probability from which a pixel is target."""
        given = self.options.threshold
        return self.run.config["threshold"] if given is None else given

    @property
    def batch_size(self) -> int:
        """Windows predicted at once."""
        return self.options.batch_size or batch_of(self.run.config["window"])

    @property
    def paths(self) -> dict[str, Path]:
        """Where the outputs go, by kind."""
        return output_paths(self.image, self.folder, self.options.probabilities, self.target)

    @cached_property
    def described(self) -> dict[str, Any]:
        """All that the outputs depend on, plain values."""
        options = asdict(self.options) | {"threshold": self.threshold, "target": self.target}
        options |= {"batch_size": self.batch_size, "bands": self._bands and list(self._bands)}
        return {
            "format": FORMAT,
            "weights": weights_of(self.run),
            "network": self.run.config.get("network"),
            "precision": precision_of(self.run),
            "window": self.run.config["window"],
            "overlap": self.run.config["overlap"],
            "raster": raster_of(self.info, self._marks, self.image),
            "size": list(self.size),
            "image": self._begun,
            "options": options,
        }

    @cached_property
    def key(self) -> str:
        """Hash of ``described``, hexadecimal."""
        return hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()

    @cached_property
    def files(self) -> BandFiles:
        """The bands that are predicted already."""
        name = f".{self.image.stem[:80]}_{self.key[:12]}.bands"
        return BandFiles(self.folder / name, self.grid)

    def begin(self) -> list[Band]:
        """Make the folder for the bands, or find it; which of them are missing.

        Raises:
            OutputError: it cannot be made, or the disk has no room.
        """
        try:
            place = {"run": os.path.abspath(self.run.folder), "path": absolute_name(self.image)}
            options = {"options": asdict(self.options)}
            self.files.begin(self.described | place | options | {"key": self.key})
        except OutputError as error:
            # The user named another folder than the hidden one.
            words = str(error).split(": ", 1)[-1]
            raise OutputError(f"{self.paths[MASK]}: {words}") from error
        except OSError as error:
            words = error.strerror or " ".join(str(error).split())
            raise OutputError(f"{self.paths[MASK]}: cannot be written: {words}") from error
        return self.files.missing()

    def is_done(self) -> bool:
        """Whether all outputs are there, made by this very job."""
        from preprocessing.rasters import raster_tags

        if not all(path.is_file() for path in self.paths.values()):
            return False
        try:
            return raster_tags(self.paths[MASK]).get(KEY_TAG) == self.key
        except RasterError:
            return False

    def predict(self, band: Band, advance: Any = None) -> None:
        """Predict one band and keep it.

        Args:
            band: one of ``files.bands``.
            advance: called after each window that was read.

        Raises:
            RasterError: the raster cannot be read there, or has changed since the job began.
            RunError: the network gives what is not finite.
            OutputError: the band cannot be written.
        """
        self.refuse_changed()
        with self._fed() as reader:

            def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
                if advance is not None:
                    advance()
                return reader.read(window)

            # Closed before the raster is: another thread may be reading it.
            strips = predict_band(read, self.grid, band, self._finite, self.batch_size)
            with closing(strips):
                self.files.save(band, self._unchanged(strips))

    def reader(self) -> "RasterReader":
        """The raster, opened with the bands that the network is fed, at its own size."""
        return self._reader()

    def strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Probabilities of all bands on the raster's own grid.

        Yields:
            First row and ``(rows, width)`` float32 of consecutive strips; NaN where void.

        Raises:
            OutputError: a band is missing or damaged.
            RasterError: the raster cannot be read.
        """
        from preprocessing.resampling import resampled_strips

        own = (self.info.height, self.info.width)
        if self.size == own:
            yield from self.files.strips()
            return
        with self._imagery() as reader:
            for first, strip in resampled_strips(self.files.strips(), self.size, own):
                _, valid = reader.read(Window(first, 0, *strip.shape))
                # Imagery too little to be fed has no target.
                yield first, np.where(valid, np.nan_to_num(strip), np.float32(np.nan))

    def _fed(self) -> "RasterReader | ResampledReader | WhiteIsVoid":
        """The raster at the size that the network sees."""
        from preprocessing.resampling import ResampledReader

        if self.size == (self.info.height, self.info.width):
            return self._imagery()
        return ResampledReader(self._imagery(), *self.size)

    def _imagery(self) -> "RasterReader | WhiteIsVoid":
        """The raster at its own size, with what counts as void."""
        from preprocessing.resampling import WhiteIsVoid

        return WhiteIsVoid(self._reader()) if self.options.void_white else self._reader()

    def refuse_changed(self) -> None:
        """Refuse a raster that has changed since the job began.

        Raises:
            RasterError: it has, or it is gone.
        """
        found = compare_files(self._begun, files_of(self.image))
        if found == "gone":
            raise RasterError(
                f"{self.image}: gone, in whole or in part, or not to be reached any more; once it "
                "is there again as it was, the same command goes on from what is predicted"
            )
        if found == "changed":
            # Of no use to any other start: the key is another one then.
            self.files.remove()
            raise RasterError(
                f"{self.image}: changed while it was predicted; start again once it is complete"
            )

    def _unchanged(self, strips: Any) -> Any:
        yield from strips
        # Before the band counts as finished.
        self.refuse_changed()

    def _finite(self, images: np.ndarray) -> np.ndarray:
        predict = self.run.model.predict_on_batch
        results = (mean_over_symmetries(predict) if self.options.augment else predict)(images)
        if not np.isfinite(results).all():
            raise RunError(
                f"{self.image}: the network gives values that are not finite; are the "
                "pixels in the range it was trained on?"
            )
        return results
