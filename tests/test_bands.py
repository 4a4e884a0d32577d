import pytest
from rasterio.enums import ColorInterp as C

from preprocessing.bands import choose_bands, named_bands
from preprocessing.errors import RasterError

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
        ((C.gray, C.undefined), ["has 2 bands,", "takes 3"]),
        ((*RGB[:2], C.alpha), ["has 2 bands beside alpha", "takes 3"]),
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


def test_palette_indices_are_no_grey_values():
    with pytest.raises(RasterError, match="-expand gray"):
        choose_bands((C.palette,), 1, "a.tif")


def test_named_bands_are_taken_as_named():
    assert named_bands([4, 4, 1], 4, 3, "a.tif") == (4, 4, 1)


@pytest.mark.parametrize("bands", [(1, 2), (0, 1, 2), (1, 2, 5), (-1, 1, 2)])
def test_named_bands_must_be_there(bands):
    with pytest.raises(RasterError, match=r"^a\.tif: "):
        named_bands(bands, 4, 3, "a.tif")
