"""From a mask to the features of a layer, batch by batch; ``mask_layers`` says of what kind.

Memory holds one strip of the rasters, the shapes that are open (see ``outline_stream``) and one
batch, never the mask or the layer as a whole; beside it GDAL's cache of blocks fills up, to 256 MB
unless ``GDAL_CACHEMAX`` says otherwise (``raster_access.gdal_quiet``).
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import geopandas
import numpy as np
import shapely

from preprocessing.outline_stream import outline_batches
from preprocessing.outlines import fill_holes
from preprocessing.pixel_sums import ProbabilityReader, check_grid
from preprocessing.placement import placement
from preprocessing.raster_access import raster_info
from preprocessing.rasters import LabelReader
from preprocessing.simplification import require_right_angles
from preprocessing.tiling import Window

# Metres: about the half width of a road and a bit, which is what the bumps of its edge add.
PRUNE_M = 10.0

Read = Callable[[Window], np.ndarray]
Features = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]
"""Geometries, their sizes, and sums and counts of the probabilities, if there are any."""
Probabilities = str | os.PathLike | Read | None
"""A raster on the mask's grid; or what reads windows of one, float64, NaN where void; or none."""


@dataclass(frozen=True)
class FeatureSettings:
    """What may be chosen for features.

    Attributes:
        min_area_m2: smaller footprints, or connected pieces of road, are left out.
        fill_holes_m2: holes smaller than this are filled, unless they hold void, with what lies
            in them; 0 for none.
        simplify_m: metres by which outlines and lines may move to have fewer vertices; None for
            0 of footprints, which then follow the pixels' edges, and the side of a pixel of
            centre lines, which takes off the steps of the raster.
        right_angles: turn edges of footprints to right angles, by buildingregulariser.
        prune_m: side branches of centre lines that end in nothing and are shorter than this are
            removed, the shortest first, until none is left.

    Raises:
        JointNetError: ``right_angles`` without buildingregulariser.
    """

    min_area_m2: float = 0.0
    fill_holes_m2: float = 0.0
    simplify_m: float | None = None
    right_angles: bool = False
    prune_m: float = PRUNE_M

    def __post_init__(self):
        """Look for the library before any work is done."""
        if self.right_angles:
            require_right_angles()


class MaskFeatures(ABC):
    """Features of one mask; iterating, once, reads it and gives frames with ids that run on.

    Frames have the columns ``id`` (int64, from 1), that of the size, with probabilities
    ``mean_probability`` (float64, NaN where no pixel has one), and ``geometry``, in the mask's CRS
    or, without a place on the ground, in pixels. There is always one frame, if only an empty one.

    Attributes: ``place`` (``Placement`` of the mask), ``count`` and ``total``: features given so
    far, and the sum of their sizes; ``notes`` too are complete after the last frame.

    Args:
        mask: path of a mask or label raster.
        probabilities: of the target, on the grid of the mask.
        settings: what was chosen.

    Raises:
        RasterError: no such file, no raster, or probabilities of another grid; on iterating too,
            where one is corrupt.
        LabelError: on iterating: the mask has values other than {0, 1} or {0, 255}.
    """

    geometry_type: ClassVar[str]
    noun: ClassVar[str]
    _size: ClassVar[str]
    _corners: ClassVar[bool]

    def __init__(
        self,
        mask: str | os.PathLike,
        probabilities: Probabilities = None,
        settings: FeatureSettings | None = None,
    ) -> None:
        self.mask, self.probabilities = mask, probabilities
        self.settings = FeatureSettings() if settings is None else settings
        self.place = placement(raster_info(mask))
        if probabilities is not None and not callable(probabilities):
            check_grid(probabilities, self.place.info)
        self.count, self.total = 0, 0.0
        self._unplaced = 0

    @property
    @abstractmethod
    def unit(self) -> str:
        """Of the sizes: "m2", "m" or "px"."""

    @property
    def size_column(self) -> str:
        """Name of the column of sizes, such as ``area_m2``."""
        return f"{self._size}_{self.unit}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences worth reading: how the mask was placed, what was kept as it was."""
        notes = [self.place.note] if self.place.note else []
        if self.place.crs is None and self._measured:
            notes = [f"{self.place.note[:-1]}; nothing that is measured in metres is done."]
        if self._unplaced:
            notes.append(f"{self._unplaced:,} lie where the CRS leads nowhere, and are left out.")
        return (*notes, *self._kept())

    def __iter__(self) -> Iterator[geopandas.GeoDataFrame]:
        """The frames."""
        info, filled = self.place.info, self._fills
        with ExitStack() as stack:
            mask = stack.enter_context(LabelReader(self.mask))
            read = self.probabilities
            if read is not None and not callable(read):
                read = stack.enter_context(ProbabilityReader(read, info)).read
            batches = outline_batches(
                mask.read, info.height, info.width, corners=self._corners, enclosed=filled
            )
            given = False
            for outlines in batches:
                frame = self._frame(outlines, read)
                if len(frame):
                    given = True
                    yield frame
            if not given:
                yield self._frame(np.zeros(0, object), read)

    @property
    def _fills(self) -> bool:
        return self.settings.fill_holes_m2 > 0 and self.place.crs is not None

    @property
    def _measured(self) -> bool:
        """Whether anything was asked for that needs metres."""
        return True

    def _kept(self) -> list[str]:
        """Notes on what was kept as it was."""
        return []

    def _frame(self, outlines: np.ndarray, read: Read | None) -> geopandas.GeoDataFrame:
        """The features of one batch."""
        place = self.place
        if place.crs is None:
            areas = shapely.area(outlines)
        else:
            if self._fills:
                outlines = fill_holes(outlines, place, self.settings.fill_holes_m2, self.mask)
            areas = place.areas(place.outlines(outlines))
            placed = np.isfinite(areas)
            self._unplaced += int((~placed).sum())
            outlines, areas = outlines[placed], areas[placed]
        geometries, sizes, sums = self._features(outlines, areas, read)
        columns = {"id": np.arange(1, len(geometries) + 1) + self.count, self.size_column: sizes}
        if sums is not None:
            none = np.full(len(sizes), np.nan)
            columns["mean_probability"] = np.divide(*sums, out=none, where=sums[1] > 0)
        self.count += len(geometries)
        self.total += float(sizes.sum())
        return geopandas.GeoDataFrame(columns, geometry=geometries, crs=place.crs)

    @abstractmethod
    def _features(self, outlines: np.ndarray, areas: np.ndarray, read: Read | None) -> Features:
        """The features of outlines of so many pixels or square metres."""
