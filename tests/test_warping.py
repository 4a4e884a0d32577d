"""Symmetries are exact, and one affine map moves image and mask alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.errors import LabelError
from preprocessing.image_operations import affine_matrix, dihedral, dihedral_inverse, warp

SIZES = [(8, 8), (9, 9), (64, 64), (255, 255)]


def noise(shape, dtype=np.uint8, seed=0) -> np.ndarray:
    image = np.random.default_rng(seed).random(shape, np.float32)
    return image if dtype == np.float32 else (image * np.iinfo(dtype).max).astype(dtype)


def labels(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([0, 1, 255], np.uint8), shape)


def ramp(height, width) -> np.ndarray:
    """Bands are x and y."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.dstack([columns, rows])


def disc(size: int, radius: float) -> np.ndarray:
    centre = (size - 1) / 2
    rows, columns = np.ogrid[:size, :size]
    return (np.hypot(rows - centre, columns - centre) < radius).astype(np.uint8)


def test_the_eight_symmetries_by_eye():
    square = np.array([[1, 2], [3, 4]])
    drawn = [dihedral(square, k).tolist() for k in range(8)]
    assert drawn == [
        [[1, 2], [3, 4]],
        [[2, 4], [1, 3]],
        [[4, 3], [2, 1]],
        [[3, 1], [4, 2]],
        [[2, 1], [4, 3]],
        [[4, 2], [3, 1]],
        [[3, 4], [1, 2]],
        [[1, 3], [2, 4]],
    ]
    assert len({str(one) for one in drawn}) == 8


@settings(deadline=None)
@given(k=st.integers(0, 7), height=st.integers(0, 5), width=st.integers(0, 5), flat=st.booleans())
def test_every_symmetry_has_its_inverse(k, height, width, flat):
    shape = (height, width) if flat else (height, width, 3)
    array = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(dihedral_inverse(dihedral(array, k), k), array)
    np.testing.assert_array_equal(dihedral(dihedral_inverse(array, k), k), array)


@pytest.mark.parametrize("k", [-1, 8])
def test_there_is_no_ninth_symmetry(k):
    for function in (dihedral, dihedral_inverse):
        with pytest.raises(ValueError, match="0 to 7"):
            function(np.zeros((2, 2)), k)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_quarter_turns_are_exact(size, bands, dtype):
    image, mask = noise((*size, bands), dtype), labels(size)
    for quarters in (0, 1, 2, 3, -1):
        turned, turned_mask = warp(image, mask, affine_matrix(size, turn=quarters / 4))
        np.testing.assert_array_equal(turned_mask, np.rot90(mask, quarters))
        # A coordinate that is off by the last bit of a cosine mixes in so much of a neighbour.
        tolerance = 1e-4 if dtype == np.float32 else 0
        np.testing.assert_allclose(turned, np.rot90(image, quarters), rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", [(5, 9), (1, 6), (6, 1), (1, 1), (30, 70)])
def test_half_a_turn_of_any_shape_and_identity_are_exact(shape):
    image, mask = noise((*shape, 4)), labels(shape)
    same, same_mask = warp(image, mask, affine_matrix(shape))
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(same_mask, mask)
    turned, turned_mask = warp(image, mask, affine_matrix(shape, turn=0.5))
    np.testing.assert_array_equal(turned, image[::-1, ::-1])
    np.testing.assert_array_equal(turned_mask, mask[::-1, ::-1])


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_bands_are_warped_alike_and_on_their_own(bands, dtype):
    image, mask = noise((12, 17, bands), dtype), labels((12, 17))
    high = 1 if dtype == np.float32 else np.iinfo(dtype).max
    matrix = affine_matrix((12, 17), 0.07, 1.2, 0.1, 0.3)
    moved, moved_mask = warp(image, mask, matrix)
    assert (moved.shape, moved.dtype) == (image.shape, image.dtype)
    assert (moved_mask.shape, moved_mask.dtype) == (mask.shape, mask.dtype)
    for band in range(bands):
        alone, _ = warp(image[..., band : band + 1], mask, matrix)
        # By the number of bands OpenCV has other code, with weights in 32 steps to a pixel.
        np.testing.assert_allclose(moved[..., band], alone[..., 0], rtol=0, atol=high / 25)


@settings(deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    turn=st.floats(-1, 1),
    factor=st.floats(0.5, 2),
    slant=st.floats(-1, 1),
    direction=st.floats(0, 1),
)
def test_the_map_turns_scales_and_keeps_areas_and_the_centre(
    height, width, turn, factor, slant, direction
):
    matrix = affine_matrix((height, width), turn, factor, slant, direction)
    centre = np.array([(width - 1) / 2, (height - 1) / 2, 1])
    np.testing.assert_allclose(matrix @ centre, centre[:2], atol=1e-9)
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(factor**-2)


@settings(deadline=None)
@given(
    turn=st.floats(-1, 1),
    factor=st.floats(0.5, 2),
    slant=st.floats(-1, 1),
    direction=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_target_pixel_comes_from_a_target_pixel_and_what_comes_from_nowhere_is_void(
    turn, factor, slant, direction, seed
):
    shape = (23, 31)
    mask = labels(shape, seed)
    matrix = affine_matrix(shape, turn, factor, slant, direction)
    _, moved = warp(noise((*shape, 1)), mask, matrix)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    x, y = np.moveaxis(np.dstack([columns, rows, np.ones(shape)]) @ matrix.T, -1, 0)
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
    expected = np.full(shape, 255, np.uint8)
    expected[inside] = mask[row[inside], column[inside]]
    # Half way between two centres either is the nearest.
    clear = (np.abs(x - np.floor(x) - 0.5) > 2e-3) & (np.abs(y - np.floor(y) - 0.5) > 2e-3)
    np.testing.assert_array_equal(moved[clear], expected[clear])


@pytest.mark.parametrize("turn", [0.02, 0.125, -0.3])
def test_image_and_mask_stay_aligned(turn):
    """A ramp says where each pixel came from; the mask is its left half."""
    size = (41, 41)
    image = ramp(*size)
    mask = (image[..., 0] > 19.5).astype(np.uint8)
    moved, moved_mask = warp(image, mask, affine_matrix(size, turn, 1.1, 0.1, 0.4))
    counted = moved_mask != 255
    assert counted.mean() > 0.5
    far = counted & (np.abs(moved[..., 0] - 19.5) > 0.05)
    np.testing.assert_array_equal(moved[far][:, 0] > 19.5, moved_mask[far] == 1)


def test_the_image_is_bilinear():
    size = (21, 21)
    matrix = affine_matrix(size, 0.06, 1.3, 0.1, 0.2)
    moved, moved_mask = warp(ramp(*size), np.zeros(size, np.uint8), matrix)
    rows, columns = np.mgrid[:21, :21]
    expected = np.dstack([columns, rows, np.ones(size)]) @ matrix.T
    inside = ((expected > 0) & (expected < 20)).all(axis=-1)
    # Older OpenCV takes weights from a table of 32 steps to a pixel.
    np.testing.assert_allclose(moved[inside], expected[inside], atol=1 / 32 + 1e-3)
    assert (moved_mask[inside] == 0).all()


def test_turning_anticlockwise_and_back():
    size = 101
    mask = np.zeros((size, size), np.uint8)
    mask[20:40, 45:75] = 1
    image = np.repeat(mask[..., None] * np.uint8(200), 3, axis=2)
    forth = warp(image, mask, affine_matrix(mask.shape, turn=1 / 12))
    # What was at the top goes to the left.
    assert np.nonzero(forth[1] == 1)[1].mean() < np.nonzero(mask)[1].mean() - 5
    back, back_mask = warp(*forth, affine_matrix(mask.shape, turn=-1 / 12))
    counted = back_mask != 255
    overlap = (back_mask == 1) & (mask == 1)
    assert overlap.sum() / ((back_mask == 1) | ((mask == 1) & counted)).sum() > 0.93
    inner = np.zeros_like(mask, bool)
    inner[23:37, 48:72] = True
    assert (back[inner] == 200).all()


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"turn": 0.1}, 1.0),
        ({"slant": 0.3, "direction": 0.2}, 1.0),
        ({"factor": 1.25}, 1.25**2),
        ({"factor": 0.8, "turn": 0.3}, 0.8**2),
    ],
)
def test_areas_of_targets(changes, factor):
    mask = disc(201, 50)
    image = np.zeros((201, 201, 1), np.uint8)
    _, moved = warp(image, mask, affine_matrix(mask.shape, **changes))
    assert (moved == 1).sum() == pytest.approx(factor * mask.sum(), rel=0.01)


def test_a_shear_shifts_rows_against_each_other():
    mask = np.zeros((41, 41), np.uint8)
    mask[:, 20] = 1
    _, moved = warp(mask[..., None], mask, affine_matrix(mask.shape, slant=0.5))
    shifts = [np.flatnonzero(row == 1)[0] - 20 for row in moved[[0, 10, 20, 30, 40]]]
    assert shifts == [-10, -5, 0, 5, 10]
    mask = np.ascontiguousarray(mask.T)
    _, moved = warp(mask[..., None], mask, affine_matrix(mask.shape, slant=0.5))
    np.testing.assert_array_equal((moved == 1)[20], (mask == 1)[20])


def test_what_comes_from_outside_is_mirrored_and_void():
    image = np.arange(1, 9, dtype=np.uint8).reshape(1, 8, 1)
    image = np.repeat(image, 8, axis=0)
    mask = np.ones((8, 8), np.uint8)
    moved, moved_mask = warp(image, mask, affine_matrix(mask.shape, factor=0.5))
    # Column x of the result was at 2 x - 3.5.
    inside = (moved_mask == 1).any(axis=0)
    assert inside.tolist() == [False, False, True, True, True, True, False, False]
    assert ((moved_mask == 1) | (moved_mask == 255)).all()
    assert (moved_mask == 255).sum() == 64 - 16
    assert moved[4, 2:6, 0] == pytest.approx([1.5, 3.5, 5.5, 7.5], abs=0.5)
    assert moved[4, :2, 0] == pytest.approx([4, 2.5], abs=1)
    np.testing.assert_array_equal(moved[:4], moved[:3:-1])


def test_void_stays_void_and_an_all_void_mask_too():
    shape = (50, 50)
    image = noise((*shape, 3))
    matrix = affine_matrix(shape, 0.11, 1.2, 0.1, 0.7)
    _, moved = warp(image, np.full(shape, 255, np.uint8), matrix)
    assert (moved == 255).all()


def test_a_mask_that_cannot_hold_void_is_refused():
    image = noise((4, 4, 3))
    for dtype in (bool, np.int8, np.float32):
        with pytest.raises(LabelError, match="uint8"):
            warp(image, np.zeros((4, 4), dtype), affine_matrix((4, 4), 0.1))
