import warnings

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp as C

from preprocessing.errors import RasterError
from preprocessing.raster_access import open_raster
from preprocessing.rasters import Validity, choose_bands, named_bands
from preprocessing.tiling import Window

RGB = (C.red, C.green, C.blue)


@pytest.mark.parametrize(
    ("kinds", "count", "bands", "said"),
    [
        (RGB, 3, (1, 2, 3), False),
        ((C.blue, C.green, C.red, C.undefined), 3, (3, 2, 1), False),
        ((C.alpha, *RGB), 3, (2, 3, 4), False),
        ((*RGB, C.undefined, C.alpha), 4, (1, 2, 3, 4), True),
        ((C.undefined, *RGB), 4, (2, 3, 4, 1), True),
        ((C.gray, C.undefined, C.undefined), 3, (1, 2, 3), True),
        ((C.gray, C.alpha, C.undefined, C.undefined), 3, (1, 3, 4), True),
        # A file that marks only some of the colours is taken in its own order.
        ((C.green, C.red, C.undefined), 3, (1, 2, 3), True),
        ((C.gray,), 1, (1,), True),
    ],
)
def test_colours_come_first_and_alpha_never(kinds, count, bands, said):
    chosen, note = choose_bands(kinds, count, "a.tif")
    assert chosen == bands
    assert bool(note) == said
    assert "\n" not in note


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ((C.gray,), ["has 1 band,", "takes 3", "--bands 1,1,1"]),
        ((C.alpha, C.gray), ["has 1 band beside alpha", "takes 3", "--bands 2,2,2"]),
        ((C.gray, C.undefined), ["has 2 bands,", "takes 3", "use another raster"]),
        ((*RGB[:2], C.alpha), ["has 2 bands beside alpha", "takes 3", "`--bands 1,2,3`"]),
        ((C.alpha,), ["has 0 bands beside alpha", "takes 3"]),
        ((C.palette,), ["palette", "takes 3", "-expand rgb"]),
    ],
)
def test_too_few_bands_say_how_many_and_what_works(kinds, words):
    with pytest.raises(RasterError) as error:
        choose_bands(kinds, 3, "a.tif")
    line = str(error.value)
    assert line.startswith("a.tif: ") and "\n" not in line
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("kinds", "count", "named"),
    [
        ((*RGB, C.alpha), 4, "1,2,3,4"),
        ((*RGB[::-1], C.alpha), 4, "3,2,1,4"),
        ((C.alpha, C.gray, C.undefined, C.undefined), 4, "2,3,4,1"),
        ((*RGB, C.alpha), 5, None),
        ((*RGB, C.undefined), 5, None),
    ],
)
def test_near_infrared_tagged_alpha_must_be_named(kinds, count, named):
    with pytest.raises(RasterError, match=f"takes {count}; ") as error:
        choose_bands(kinds, count, "a.tif")
    line = str(error.value)
    if named:
        assert f"`--bands {named}` takes the band tagged alpha too, if it is near infrared" in line
        assert named_bands(map(int, named.split(",")), len(kinds), count, "a.tif")
    else:
        assert line.endswith("use another raster")


def test_palette_indices_are_no_grey_values():
    with pytest.raises(RasterError, match="-expand gray"):
        choose_bands((C.palette,), 1, "a.tif")


def test_named_bands_are_taken_as_named():
    assert named_bands([4, 4, 1], 4, 3, "a.tif") == (4, 4, 1)


@pytest.mark.parametrize("bands", [(1, 2), (0, 1, 2), (1, 2, 5), (-1, 1, 2)])
def test_named_bands_must_be_there(bands):
    with pytest.raises(RasterError, match=r"^a\.tif: "):
        named_bands(bands, 4, 3, "a.tif")


# Validity

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "float32", "float64"]
WHOLE = Window(0, 0, 2, 3)


def write(path, pixels, alpha=None, mask=None, **profile):
    """Write ``(bands, 2, 3)``, the band ``alpha`` (from 1) tagged so, with an internal mask."""
    count, height, width = pixels.shape
    options = {"driver": "GTiff", "height": height, "width": width, "dtype": pixels.dtype}
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", count=count, photometric="MINISBLACK", **options, **profile
        ) as file:
            kinds = [*RGB, *[C.undefined] * count][:count]
            if alpha is not None:
                kinds[alpha - 1] = C.alpha
            file.colorinterp = kinds
            file.write(pixels)
            if mask is not None:
                file.write_mask(np.asarray(mask, bool))
    return path


def valid(path, fed=(1, 2, 3)):
    with open_raster(path) as dataset:
        return Validity(dataset, fed).read(WHOLE).astype(int).tolist()


def five(bands, dtype="uint8"):
    return np.full((bands, 2, 3), 5, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("bands", "alpha"), [(2, 2), (4, 4), (5, 4), (5, 5), (4, 1)])
def test_alpha_counts_in_every_dtype_and_place(tmp_path, dtype, bands, alpha):
    """GDAL's dataset mask knows it in two of four cases, and in uint8 and uint16 only."""
    pixels = five(bands, dtype)
    pixels[alpha - 1] = [[0, 1, 100], [100, 100, 0]]
    fed = [band for band in range(1, bands + 1) if band != alpha]
    assert valid(write(tmp_path / "a.tif", pixels, alpha), fed) == [[0, 1, 1], [1, 1, 0]]


def test_an_alpha_that_is_not_a_number_or_below_0(tmp_path):
    pixels = five(4, "float32")
    pixels[3, 0] = np.nan, -1, 0.25
    assert valid(write(tmp_path / "a.tif", pixels, 4)) == [[0, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("int16", -9999), ("float32", -9999)])
def test_void_is_what_nodata_or_alpha_says(tmp_path, dtype, nodata):
    pixels = five(4, dtype)
    # Colours without data under an opaque alpha; transparent colours; one band only; all four.
    pixels[:3, 0, 0] = nodata
    pixels[3, 0, 1] = 0
    pixels[1, 0, 2] = nodata
    pixels[:, 1, 0] = nodata
    path = write(tmp_path / "a.tif", pixels, 4, nodata=nodata)
    assert valid(path) == [[0, 0, 1], [0, 1, 1]]


def test_void_is_what_the_mask_or_alpha_says(tmp_path):
    pixels = five(4)
    pixels[3, 1, 1] = 0
    path = write(tmp_path / "a.tif", pixels, 4, mask=[[0, 1, 1], [1, 1, 1]])
    assert valid(path) == [[0, 1, 1], [1, 0, 1]]


def test_a_mask_stands_in_for_nodata(tmp_path):
    pixels = five(3)
    pixels[:, 0, 0] = 9
    path = write(tmp_path / "a.tif", pixels, nodata=9, mask=[[1, 1, 1], [1, 1, 0]])
    assert valid(path) == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, [[1, 1, 1], [1, 1, 1]]),
        ({"nodata": 0}, [[1, 0, 1], [1, 1, 1]]),
        ({"mask": [[1, 1, 1], [1, 1, 0]]}, [[1, 1, 1], [1, 1, 0]]),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_a_band_that_is_fed_is_no_alpha(tmp_path, dtype, said, expected):
    """Near infrared is 0 over water, and with nodata 0 it is a fourth band that differs."""
    pixels = five(4, dtype)
    pixels[3, 0, 0] = 0
    pixels[:, 0, 1] = 0
    pixels[:3, 0, 2] = 0
    path = write(tmp_path / "a.tif", pixels, 4, **said)
    assert valid(path, [1, 2, 3, 4]) == expected
    with open_raster(path) as dataset:
        note = Validity(dataset, [1, 2, 3, 4]).note
        assert "Band 4 is tagged alpha and fed as imagery" in note and "\n" not in note
        assert ("all is valid" in note) == (not said)
        assert Validity(dataset, [1, 2, 3]).note == ""


def vrt(path, pixels, nodata):
    """A VRT, in which each band has a nodata of its own, of whatever range."""
    write(path.with_suffix(".tif"), pixels)
    kind = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "float32": "Float32"}
    bands = "".join(
        f'<VRTRasterBand dataType="{kind[str(pixels.dtype)]}" band="{band}">'
        + ("" if value is None else f"<NoDataValue>{value}</NoDataValue>")
        + f'<SimpleSource><SourceFilename relativeToVRT="1">{path.stem}.tif</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band, value in enumerate(nodata, 1)
    )
    path.write_text(f'<VRTDataset rasterXSize="3" rasterYSize="2">{bands}</VRTDataset>')
    return path


LOWEST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize(
    ("dtype", "nodata", "void", "one_band"),
    [
        ("uint8", (0, 255, 7), (0, 255, 7), (0, 9, 9)),
        ("uint16", (65_535,) * 3, (65_535,) * 3, (65_535, 0, 0)),
        ("int16", (-9999,) * 3, (-9999,) * 3, (1, -9999, 1)),
        ("float32", ("nan",) * 3, (np.nan,) * 3, (1, 1, np.nan)),
        ("float32", (repr(LOWEST),) * 3, (LOWEST,) * 3, (1, 1, LOWEST)),
        ("float32", ("nan", -9999, 0), (np.nan, -9999, 0), (1, -9999, 1)),
    ],
)
def test_every_band_has_its_own_nodata(tmp_path, dtype, nodata, void, one_band):
    pixels = five(3, dtype)
    pixels[:, 0, 0], pixels[:, 0, 1] = void, one_band
    assert valid(vrt(tmp_path / "a.vrt", pixels, nodata)) == [[0, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("nodata", [-9999, 300, "nan", 1e30])
def test_a_nodata_that_no_pixel_can_have_hides_none(tmp_path, nodata):
    pixels = five(3)
    pixels[:, 0] = 0, 255, 44
    assert valid(vrt(tmp_path / "a.vrt", pixels, [nodata] * 3)) == [[1, 1, 1], [1, 1, 1]]


def test_a_band_without_nodata_always_differs(tmp_path):
    path = vrt(tmp_path / "a.vrt", five(3), [5, 5, None])
    assert valid(path) == [[1, 1, 1], [1, 1, 1]]


def test_bands_that_are_not_fed_are_asked_too(tmp_path):
    pixels = five(4)
    pixels[:3, 0, 0] = pixels[:, 0, 1] = 0
    assert valid(write(tmp_path / "a.tif", pixels, nodata=0)) == [[1, 0, 1], [1, 1, 1]]


def test_near_infrared_tagged_alpha_is_told_from_alpha(tmp_path):
    random = np.random.default_rng(0)
    infrared = random.integers(0, 256, (200, 300), np.uint8)
    opaque = np.full((200, 300), 255, np.uint8)
    opaque[:90] = 0
    # JPEG leaves noise at an alpha's edges.
    noisy = opaque.copy()
    noisy[85:95] = random.integers(1, 256, (10, 300))
    colours = random.integers(1, 256, (3, 200, 300), np.uint8)
    for band, found in ((infrared, 4), (opaque, None), (noisy, None), (opaque * 0, None)):
        path = write(tmp_path / "a.tif", np.concatenate([colours, band[None]]), 4)
        with open_raster(path) as dataset:
            assert Validity(dataset, [1, 2, 3]).imagery_tagged_alpha() == found
            assert Validity(dataset, [1, 2, 3, 4]).imagery_tagged_alpha() is None
