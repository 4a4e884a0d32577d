"""Rasters that break naive readers, each through ``infer.py``: a right result, or one line.

The real ones lie in ``geo_cases`` of the real imagery. Generated ones of the same names are odd in
the same ways, so that the same is tested where there is no real imagery. Every raster goes in as
it is, and as a copy of three bands of uint8 with its geometry and its void.
"""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import cv2
import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp as C
from rasterio.transform import GCPTransformer
from rasterio.warp import transform_geom

from experiments import infer
from jointnet.runs import Run, load_run
from preprocessing.mask_outlines import polygonise
from tests.helpers import CONFIG, blotches

ROOT = Path(__file__).resolve().parents[1]
RGB = [C.red, C.green, C.blue]

# Notes or, of what is refused, words of the line.
AS_IT_IS = {
    "201404_rgbnir_nodata.tif": ["0.15 m per pixel, the model was trained at 0.3 m"],
    "RGB-PanSharpen_AOI_2_Vegas_img0.tif": [],
    "RGB-PanSharpen_img1447.tif": [
        "Pixels of 0.2 m x 0.3 m (width x height), the model was trained at 0.3 m: "
    ],
    "alpha.tif": ["3.1 m per pixel"],
    "riotiler_cog_rgb_mask.tif": ["0.15 m per pixel"],
    "tanzania_sample.tif": ["0.078 m per pixel"],
}
REFUSED = {
    "RGBA.uint16.tif": ["pixels are uint16, the model takes uint8; `gdal_translate -ot Byte"],
    "all-nodata.tif": ["pixels are uint16, the model takes uint8; `gdal_translate -ot Byte "],
    "corrupt.tif": ["corrupt or truncated, cannot read the window of", "at row 512, column 512"],
    "riotiler_cog_gcps.tif": ["has 1 band, the model takes 3; `--bands 1,1,1` repeats"],
    "riotiler_inverted_lat.tif": ["has 1 band, the model takes 3; `--bands 1,1,1` repeats"],
    "rotated.tif": ["has 1 band, the model takes 3; `--bands 1,1,1` repeats"],
}
CASES = sorted([*AS_IT_IS, *REFUSED])
NO_GROUND = {"rotated.tif"}
"""Has an affine, and no CRS that would say where it leads."""


class Smooth:
    """A local stand-in for a network that finds what is bright, in few pieces."""

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """``(batch, height, width, bands)`` to ``(batch, height, width, 1)``."""
        grey = images.mean(axis=3, dtype=np.float32)
        smooth = np.stack([cv2.blur(image, (9, 9)) for image in grey])
        return (1 / (1 + np.exp((120 - smooth) / 16)))[..., None].astype(np.float32)


def smooth_run(bands: int = 3) -> Run:
    return Run(Path("smooth"), Smooth(), CONFIG | {"window": 256, "overlap": 64, "bands": bands})


# Generated rasters


def bent(column, row):
    """A place in degrees that no affine gives: a swath, with pixels of about 200 m."""
    u, v = column / 60 - 1, row / 40 - 1
    return 77 + 0.11 * u - 0.02 * v + 0.004 * u * v, 10 - 0.02 * u - 0.07 * v + 0.005 * u * u


def write(path: Path, bands: np.ndarray, kinds=None, mask=None, **profile: Any) -> None:
    """Write ``(bands, height, width)``, with the colour interpretation and an internal mask."""
    count, height, width = bands.shape
    profile = {"count": count, "height": height, "width": width, "dtype": bands.dtype} | profile
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver="GTiff", photometric="MINISBLACK", **profile) as file:
            if kinds:
                file.colorinterp = kinds
            file.write(bands)
            if mask is not None:
                file.write_mask(mask)


def north_up(crs: str, x: float, y: float, pixel: float) -> dict:
    return {"crs": crs, "transform": Affine(pixel, 0, x, 0, -pixel, y)}


def generate(folder: Path) -> None:
    """Rasters that are odd as those of ``geo_cases`` are, under the same names."""
    town = np.moveaxis(blotches(90, 120, 3), -1, 0)
    inside = np.ones((90, 120), bool)
    inside[:, :25] = inside[60:, 80:] = False
    opaque = inside[None] * np.uint8(255)
    colorado = north_up("EPSG:26913", 519_467, 4_311_669, 0.15)

    write(
        folder / "201404_rgbnir_nodata.tif",
        np.concatenate([town * inside, opaque]),
        [*RGB, C.alpha],
        nodata=0,
        **colorado,
    )
    write(folder / "riotiler_cog_rgb_mask.tif", town, RGB, mask=inside, **colorado)
    write(
        folder / "RGBA.uint16.tif",
        np.concatenate([town.astype(np.uint16) * 60, opaque]),
        [*RGB[::-1], C.alpha],
        **north_up("EPSG:32612", 733_268, 4_078_301, 1.38),
    )
    write(
        folder / "all-nodata.tif",
        np.zeros((4, 90, 120), np.uint16),
        [*RGB[::-1], C.undefined],
        nodata=0,
        **north_up("EPSG:32628", 341_970, 1_603_902, 3),
    )
    placed = north_up("EPSG:3857", 19_474_931, -4_794_130, 4)
    write(folder / "alpha.tif", np.concatenate([town, opaque]), [*RGB, C.alpha], **placed)
    placed = north_up("EPSG:4326", -115.17, 36.24, 2.7e-6)
    full = np.full_like(opaque, 255)
    name = "RGB-PanSharpen_AOI_2_Vegas_img0.tif"
    write(folder / name, np.concatenate([town, full]), [*RGB, C.alpha], **placed)
    placed = north_up("EPSG:4326", 2.28, 48.98, 2.7e-6)
    write(folder / "RGB-PanSharpen_img1447.tif", town, RGB, **placed)
    placed = north_up("EPSG:32737", 532_854, 9_366_840, 0.0775)
    write(folder / "tanzania_sample.tif", town, RGB, **placed)

    large = np.moveaxis(blotches(600, 600, 3), -1, 0)
    path, placed = folder / "corrupt.tif", north_up("EPSG:3857", 14_321_853, 4_533_021, 0.597)
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    write(path, large, RGB, interleave="pixel", **placed, **tiles)
    # Tiles follow each other in the file; the last one is at the bottom right.
    path.write_bytes(path.read_bytes()[:-500])

    swath = [(c, r) for r in range(0, 81, 10) for c in range(0, 121, 10)]
    points = [GroundControlPoint(r, c, *bent(c, r), 400) for c, r in swath]
    radar = town[:1, :80].astype(np.uint16) * 3
    write(folder / "riotiler_cog_gcps.tif", radar, gcps=points, crs="EPSG:4326")
    world = np.where(inside[None], town[:1], -9999).astype(np.float32)
    south_up = Affine(1.5, 0, -90, 0, 1, -45)
    name = "riotiler_inverted_lat.tif"
    write(folder / name, world, nodata=-9999, crs="EPSG:4326", transform=south_up)
    turned = Affine.translation(100, 200) @ Affine.rotation(30) @ Affine.scale(20, -10)
    write(folder / "rotated.tif", town[:1], transform=turned)


@pytest.fixture(scope="module", params=["generated", pytest.param("real", marks=pytest.mark.slow)])
def cases(request, tmp_path_factory) -> Path:
    """A folder in which each case lies under its name."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "generated":
        generate(folder)
    else:
        for path in (request.getfixturevalue("real_data") / "geo_cases").rglob("*.tif"):
            (folder / path.name).symlink_to(path)
    assert sorted(path.name for path in folder.iterdir()) == CASES
    return folder


# What is read of them, independently of the readers here


def opened(path: Path) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rasterio.open(path)


def imagery(path: Path) -> np.ndarray:
    """Where a case has imagery, by GDAL, which knows the kinds of void that are in them."""
    with opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return file.dataset_mask() > 0


def ground_of(path: Path, polygon: shapely.Geometry) -> shapely.Geometry:
    """A polygon in pixels, in degrees: by the affine, or the control points taken to the letter."""
    with opened(path) as file:
        gcps, crs = file.gcps
        if not gcps:
            placed = shapely.affinity.affine_transform(polygon, file.transform.to_shapely())
            return shapely.geometry.shape(transform_geom(file.crs, "EPSG:4326", placed))
        with GCPTransformer(gcps, tps=True) as spline:
            xy = shapely.get_coordinates(polygon)
            placed = np.stack(spline.xy(xy[:, 1], xy[:, 0], offset="ul"), axis=1)
        assert crs.to_epsg() == 4326
        return shapely.set_coordinates(polygon, placed)


def found_by(path: Path, folder: Path, *options: str) -> tuple[Any, str, Path]:
    """Predict; the result of the command, its output, and the outputs' common name."""
    words = ["--image", str(path), "--output", str(folder), *options]
    result = CliRunner().invoke(infer.main, words)
    return result, result.output, folder / path.stem


def check_outputs(path: Path, base: Path, valid: np.ndarray) -> geopandas.GeoDataFrame:
    """Size and place of the mask are the raster's, void is where it is, footprints lie in it."""
    with opened(path) as source, opened(f"{base}_output.tif") as mask:
        assert (mask.height, mask.width) == (source.height, source.width)
        assert mask.transform.almost_equals(source.transform, 1e-9)
        assert mask.crs == source.crs and mask.gcps[1] == source.gcps[1]
        places = [[(p.row, p.col, p.x, p.y, p.z) for p in file.gcps[0]] for file in (source, mask)]
        np.testing.assert_allclose(*places, rtol=1e-12)
        np.testing.assert_array_equal(mask.dataset_mask() > 0, valid)
        pixels = mask.read(1)
        assert not pixels[~valid].any() and set(np.unique(pixels)) <= {0, 255}
        gcps = mask.gcps[0]
    picture = cv2.imread(f"{base}_overlay.png")
    if valid.shape == picture.shape[:2]:
        assert (picture[~valid] == 200).all()
    content = json.loads(Path(f"{base}_footprints.geojson").read_text())
    assert "crs" not in content
    frame = geopandas.read_file(f"{base}_footprints.geojson")
    outlines = polygonise(Path(f"{base}_output.tif"))
    assert len(frame) == len(outlines) and frame.geometry.is_valid.all()
    if path.name in NO_GROUND:
        assert sorted(frame.area_px) == sorted(outline.area for outline in outlines)
        return frame
    # Where GDAL says that the outlines lie; a pixel off the points is what a fit may be.
    for outline, footprint in list(zip(outlines, frame.geometry, strict=True))[:40]:
        expected = ground_of(path, outline)
        allowed = 1e-7
        if gcps:
            allowed = ground_of(path, shapely.box(0, 0, 1, 1)).length / 4
        for there, here in zip(expected.bounds, footprint.bounds, strict=True):
            assert here == pytest.approx(there, abs=allowed)
    return frame


# As they are


@pytest.mark.parametrize("name", CASES)
def test_each_as_it_is(cases, name, tmp_path, monkeypatch):
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: smooth_run())
    result, output, base = found_by(cases / name, tmp_path / "out")
    if name in REFUSED:
        assert result.exit_code == 2 and result.stderr.count("\n") == 1
        assert result.stderr.startswith(f"error: {cases / name}: ")
        assert all(words in result.stderr for words in REFUSED[name]), output
        assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []
        return
    assert result.exit_code == 0, output
    *notes, _ = output.splitlines()
    assert len(notes) == len(AS_IT_IS[name]), notes
    for note, words in zip(notes, AS_IT_IS[name], strict=True):
        assert note.startswith(f"{name}: {words}")
    frame = check_outputs(cases / name, base, imagery(cases / name))
    if name != "alpha.tif":
        assert len(frame) > 0


def test_bands_named_and_then_what_is_next(cases, tmp_path, monkeypatch):
    """What the line of a raster of one band says leads on: to a result, or to the next line."""
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: smooth_run())
    bands = ["--bands", "1,1,1"]
    result, output, base = found_by(cases / "rotated.tif", tmp_path, *bands)
    assert (
        result.exit_code == 0 and "No CRS: the vector layer will be in pixel coordinates" in output
    )
    check_outputs(cases / "rotated.tif", base, imagery(cases / "rotated.tif"))
    for name, dtype in (("riotiler_cog_gcps.tif", "uint16"), ("riotiler_inverted_lat.tif", "fl")):
        result, output, _ = found_by(cases / name, tmp_path, *bands)
        assert result.exit_code == 2 and output.count("\n") == 1
        assert f"pixels are {dtype}" in output and "`gdal_translate -ot Byte" in output


def test_near_infrared_tagged_alpha_is_fed_where_it_is_named(cases, tmp_path, monkeypatch):
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: smooth_run(bands=4))
    path = cases / "201404_rgbnir_nodata.tif"
    result, output, _ = found_by(path, tmp_path)
    assert result.exit_code == 2 and output.count("\n") == 1
    assert "has 3 bands beside alpha, the model takes 4; `--bands 1,2,3,4`" in output
    result, output, base = found_by(path, tmp_path, "--bands", "1,2,3,4")
    assert result.exit_code == 0
    assert "Band 4 is tagged alpha and fed as imagery: what is void is said by its nodata" in output
    with opened(path) as file:
        valid = (file.read() != 0).any(axis=0)
    check_outputs(path, base, valid)


def test_every_line_at_once(cases, tmp_path, monkeypatch):
    """In a folder, the first raster that cannot be fed stops the command before any work."""
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: smooth_run())
    result, output, _ = found_by(cases, tmp_path / "out")
    assert result.exit_code == 2 and not (tmp_path / "out").exists()
    assert output.splitlines()[-1].startswith("error: ")


# As copies of three bands of uint8


def copy(source: Path, path: Path) -> np.ndarray:
    """Copy three bands as uint8: same geometry, and void said in the way of the source.

    Returns:
        Where there is imagery.
    """
    with opened(source) as file:
        rows, columns = (512, 512) if source.name == "corrupt.tif" else file.shape
        area = rasterio.windows.Window(0, 0, columns, rows)
        kinds = list(file.colorinterp)
        order = [kinds.index(kind) + 1 for kind in RGB] if set(RGB) <= set(kinds) else [1, 1, 1]
        bands = file.read(order, window=area).astype(float)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            valid = file.dataset_mask(window=area) > 0
        gcps, crs = file.gcps
        placed = {"crs": file.crs, "transform": file.transform}
        if gcps:
            placed = {"crs": crs, "gcps": gcps}
        nodata, alpha = file.nodata is not None, C.alpha in kinds
    low, high = np.percentile(bands[:, valid], (2, 98)) if valid.any() else (0, 1)
    bands = (1 + np.clip((bands - low) / max(high - low, 1), 0, 1) * 254).astype(np.uint8)
    if nodata:
        write(path, bands * valid, RGB, nodata=0, **placed)
    elif alpha:
        opaque = valid[None] * np.uint8(255)
        write(path, np.concatenate([bands, opaque]), [*RGB, C.alpha], **placed)
    else:
        write(path, bands, RGB, mask=None if valid.all() else valid, **placed)
    return valid


PLACED_BY_POINTS = "Placed by polynomials of order 2 fitted to its "


@pytest.mark.parametrize("name", CASES)
def test_each_as_a_copy_of_three_bands(cases, name, tmp_path, monkeypatch):
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: smooth_run())
    valid = copy(cases / name, tmp_path / name)
    result, output, base = found_by(tmp_path / name, tmp_path / "out")
    assert result.exit_code == 0, output
    frame = check_outputs(tmp_path / name, base, valid)
    last = output.splitlines()[-1]
    if not valid.any():
        assert len(frame) == 0 and "all void: outputs empty" in last
    if name == "riotiler_cog_gcps.tif":
        assert output.startswith(f"{name}: {PLACED_BY_POINTS}")
        assert "less than a pixel" in output and " m per pixel, the model was trained" in output
    if name in NO_GROUND:
        assert "No CRS: the vector layer will be in pixel coordinates" in output


def test_control_points_place_the_footprints_and_their_area(cases, tmp_path, monkeypatch):
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: smooth_run())
    path = tmp_path / "riotiler_cog_gcps.tif"
    copy(cases / path.name, path)
    result, output, base = found_by(path, tmp_path / "out")
    assert result.exit_code == 0
    frame = geopandas.read_file(f"{base}_footprints.geojson")
    with opened(path) as file, opened(f"{base}_output.tif") as mask:
        west, south, east, north = ground_of(
            path, shapely.box(0, 0, file.width, file.height)
        ).bounds
        targets = int((mask.read(1) == 255).sum())
    gsd = float(re.search(r"([\d.]+) m per pixel", output)[1])
    # Pixels of a swath differ in size from one side to the other.
    assert frame.area_m2.sum() == pytest.approx(targets * gsd**2, rel=0.1)
    # Inside the raster, and all over it, but for a pixel.
    margin = 0.004
    outer = shapely.box(west - margin, south - margin, east + margin, north + margin)
    assert outer.contains(shapely.box(*frame.total_bounds))
    assert np.ptp(frame.total_bounds[::2]) > 0.5 * (east - west)


@pytest.mark.slow
def test_the_network_that_comes_with_the_project(cases, tmp_path, monkeypatch):
    name = "riotiler_cog_rgb_mask.tif"
    run = load_run(ROOT / "results" / "open_buildings")
    monkeypatch.setattr("jointnet.runs.load_run", lambda folder: run)
    valid = copy(cases / name, tmp_path / name)
    result, output, base = found_by(tmp_path / name, tmp_path / "out")
    assert result.exit_code == 0, output
    check_outputs(tmp_path / name, base, valid)
