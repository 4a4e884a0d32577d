"""Histograms and statistics of bands: as numpy has them, in flat memory, whatever the order."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocessing import band_statistics
from preprocessing.band_statistics import (
    CELLS,
    PERCENTILES,
    BandHistogram,
    BandStatistics,
    value_range,
)
from preprocessing.errors import RasterError
from preprocessing.rasters import read_image

DTYPES = [np.uint8, np.uint16, np.int16, np.float32]


def statistics(image: np.ndarray, valid: np.ndarray | None = None) -> BandStatistics:
    result = BandStatistics(image.shape[-1])
    result.update(image, np.ones(image.shape[:-1], bool) if valid is None else valid)
    return result


def one_band(values: np.ndarray) -> BandStatistics:
    return statistics(values.reshape(1, -1, 1))


# Mean and standard deviation


def test_four_pixels_by_hand():
    image = np.array([[[0, 10], [2, 10]], [[4, 30], [6, 30]]], np.uint8)
    result = statistics(image)
    assert result.count == 4
    assert result.mean == [3.0, 20.0]
    assert result.std == [5**0.5, 10.0]


def test_void_pixels_do_not_count():
    image = np.array([[[1], [3], [255]]], np.uint8)
    result = statistics(image, np.array([[True, True, False]]))
    assert (result.count, result.mean, result.std) == (2, [2.0], [1.0])
    assert result.percentiles["100"] == [3.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_as_numpy_where_nothing_is_clipped(dtype):
    rng = np.random.default_rng(1)
    image = (rng.random((40, 30, 3)) * 250).astype(dtype)
    valid = rng.random((40, 30)) < 0.7
    result = statistics(image, valid)
    pixels = image[valid].astype(np.float64)
    # Floats are known to the width of a cell of their histogram.
    tolerance = {"rtol": 1e-5 if dtype == np.float32 else 1e-12}
    np.testing.assert_allclose(result.mean, pixels.mean(axis=0), **tolerance)
    np.testing.assert_allclose(result.std, pixels.std(axis=0), **tolerance)
    for share in PERCENTILES:
        expected = np.percentile(pixels, float(share), axis=0)
        np.testing.assert_allclose(result.percentiles[share], expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_figures_are_equal_however_the_images_are_cut(dtype, data):
    image, valid = data.draw(arrays(dtype, (6, 4, 2))), data.draw(arrays(bool, (6, 4)))
    cut = data.draw(st.integers(0, 6))
    whole = statistics(image, valid)
    parts = BandStatistics(2)
    parts.update(image[cut:], valid[cut:])
    parts.update(image[:cut], valid[:cut])
    for name in ("count", "mean", "std", "limits", "percentiles"):
        assert getattr(parts, name) == getattr(whole, name)


def test_a_large_image_is_taken_in_parts(monkeypatch):
    image = np.random.default_rng(3).integers(0, 2000, (50, 30, 2)).astype(np.int16)
    valid = image[..., 0] > 100
    whole = statistics(image, valid)
    monkeypatch.setattr(band_statistics, "_PIXELS_AT_ONCE", 100)
    parts = statistics(image, valid)
    assert (parts.count, parts.mean) == (whole.count, whole.mean) and parts.count == valid.sum()


# Limits


def test_eight_bits_are_not_clipped():
    values = np.append(np.full(1000, 100), 255).astype(np.uint8)
    result = one_band(values)
    assert result.limits is None
    assert (result.mean, result.std) == ([values.mean()], [pytest.approx(values.std())])


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_limits_by_hand(dtype):
    # 0 to 100: 2 to 98 %, moved outwards by 96.
    (pair,) = one_band(np.arange(101).astype(dtype)).limits
    assert pair == pytest.approx([-94, 194])


@pytest.mark.parametrize(
    ("dtype", "garbage"),
    [
        (np.uint16, 65535),
        (np.int16, -32768),
        (np.int16, -9999),
        (np.float32, -3.4e38),
        (np.float32, 1e36),
        (np.float32, -9999),
    ],
)
def test_a_hundredth_of_garbage_changes_little(dtype, garbage):
    random = np.random.default_rng(0)
    clean = random.gamma(4, 100, 20_000).astype(dtype)
    dirty = np.append(clean, np.full(200, garbage)).astype(dtype)
    before, after = one_band(clean), one_band(dirty)
    span = before.percentiles["98"][0] - before.percentiles["2"][0]
    np.testing.assert_allclose(after.limits, before.limits, atol=0.5 * span)
    np.testing.assert_allclose(after.mean, before.mean, atol=0.05 * span)
    np.testing.assert_allclose(after.std, before.std, rtol=0.25)
    # Garbage is no further off than a bright roof, and the rest keeps its contrast.
    scaled = (np.clip(dirty, *after.limits[0]) - after.mean[0]) / after.std[0]
    assert np.abs(scaled).max() < 12
    assert 0.7 < scaled[: len(clean)].std() < 1.1


@pytest.mark.parametrize(
    ("dtype", "draw"),
    [
        (np.float32, lambda r: r.beta(2, 8, 50_000)),
        (np.float32, lambda r: r.normal(2000, 1500, 50_000).clip(-400, 8000)),
        (np.uint16, lambda r: r.gamma(4, 100, 50_000).clip(0, 2047)),
        (np.int16, lambda r: r.normal(300, 500, 50_000)),
    ],
    ids=["reflectance", "elevation", "11 bits", "int16"],
)
def test_what_is_imagery_stays_apart(dtype, draw):
    """Clipped are a few in a thousand at most, and none to the value of its neighbours' roofs."""
    values = draw(np.random.default_rng(0)).astype(dtype)
    ((low, high),) = one_band(values).limits
    assert ((values < low) | (values > high)).mean() < 3e-3
    result = one_band(values)
    scaled = (values - result.mean[0]) / result.std[0]
    assert abs(scaled.mean()) < 0.01 and abs(scaled.std() - 1) < 0.02


@pytest.mark.parametrize("value", [np.uint8(7), np.uint16(7), np.float32(0.1), np.float32(1e6)])
def test_a_constant_band_becomes_0(value):
    result = statistics(np.full((9, 11, 2), value))
    assert result.std == [1.0, 1.0]
    assert result.mean == [float(value)] * 2
    if value.dtype != np.uint8:
        assert result.limits == [[float(value)] * 2] * 2


def test_a_band_that_is_mostly_one_value_keeps_the_others():
    """Such as a mask of what is rare: its 98th percentile is its second."""
    values = np.zeros(10_000, np.float32)
    values[:100] = 1
    assert one_band(values).limits == [[-1, 2]]
    # Less than one in a thousand is garbage.
    values[5:100] = 0
    values[:5] = 3e38
    assert one_band(values).limits == [[0, 0]]


@pytest.mark.parametrize("fill", [-9999, -32768, -3.4028235e38, 9.96921e36])
def test_a_fill_value_that_is_not_declared_is_refused(fill):
    values = np.random.default_rng(0).random(1000).astype(np.float32)
    values[:50] = fill
    result = statistics(np.stack([np.ones_like(values), values], axis=-1)[None])
    with pytest.raises(RasterError, match="band 2: 2 % or more .* -a_nodata") as caught:
        _ = result.limits
    assert "\n" not in str(caught.value)


# What cannot be


def test_without_valid_pixels_scaling_would_change_nothing():
    for result in (
        BandStatistics(2),
        statistics(np.ones((3, 3, 2), np.uint16), np.zeros((3, 3), bool)),
        statistics(np.ones((0, 3, 2), np.float32)),
    ):
        assert (result.count, result.mean, result.std) == (0, [0.0, 0.0], [1.0, 1.0])
        assert result.limits is result.percentiles is None


def test_what_lies_in_void_may_be_nan_but_valid_pixels_may_not():
    image = np.array([[[1.0], [np.nan]]], np.float32)
    assert statistics(image, np.array([[True, False]])).mean == [1.0]
    with pytest.raises(RasterError, match="NaN or infinite"):
        statistics(image)


def test_other_shapes_and_dtypes_are_refused():
    result = statistics(np.ones((2, 2, 3), np.uint8))
    with pytest.raises(RasterError, match="3 bands cannot take"):
        result.update(np.ones((2, 2, 4), np.uint8), np.ones((2, 2), bool))
    with pytest.raises(RasterError, match=r"validity of \(2, 3\)"):
        result.update(np.ones((2, 2, 3), np.uint8), np.ones((2, 3), bool))
    with pytest.raises(RasterError, match="uint8 images cannot take one of uint16"):
        result.update(np.ones((2, 2, 3), np.uint16), np.ones((2, 2), bool))
    assert result.count == 4
    with pytest.raises(RasterError, match="no histogram of float64"):
        statistics(np.ones((2, 2, 3)))


# For the augmentation


def manifest_of(image: np.ndarray) -> dict:
    """As it comes back from a file."""
    result = statistics(image)
    written = {
        "bands": image.shape[-1],
        "dtype": str(image.dtype),
        "band_percentiles": result.percentiles,
    }
    return json.loads(json.dumps(written))


def test_the_range_of_a_typical_band():
    ramp = np.arange(101, dtype=np.float32)[None, :, None]
    # 2 to 98, 12 to 108 and 1960 to 98,040.
    image = np.concatenate([ramp, ramp + 10, ramp * 1000 - 40], axis=-1)
    assert value_range(manifest_of(image)) == pytest.approx((12, 108), rel=1e-3)
    assert value_range(manifest_of(ramp.astype(np.int16) - 50)) == (-48, 48)


def test_a_band_of_one_value_has_a_range_all_the_same():
    assert value_range(manifest_of(np.full((2, 2, 1), 5, np.uint16))) == (5, 6)


def test_eight_bits_and_stores_without_percentiles_have_the_range_of_their_dtype():
    assert value_range(manifest_of(np.arange(9, dtype=np.uint8).reshape(3, 3, 1))) is None
    assert value_range({"dtype": "uint16", "bands": 3}) is None


# Real imagery


@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("RGBA.uint16.tif", 3),
        ("all-nodata.tif", 4),
        ("riotiler_cog_gcps.tif", 1),
        ("riotiler_inverted_lat.tif", 1),
    ],
)
def test_rasters_of_other_depths_have_numpy_s_percentiles(real_data, name, bands):
    image, valid = read_image(real_data / "geo_cases" / name, band_count=bands)
    result = statistics(image, valid)
    pixels = image[valid].astype(float)
    assert image.dtype != np.uint8 and result.count == len(pixels)
    if not len(pixels):
        assert result.limits is None
        return
    span = np.maximum(*np.abs(np.percentile(pixels, (0.1, 99.9), axis=0)))
    for share in PERCENTILES:
        expected = np.percentile(pixels, float(share), axis=0)
        assert (np.abs(result.percentiles[share] - expected) <= 1e-4 * span).all()
    low, high = np.array(result.limits).T
    clipped = pixels.clip(low, high)
    np.testing.assert_allclose(result.mean, clipped.mean(axis=0), atol=1e-4 * span.max())
    np.testing.assert_allclose(result.std, clipped.std(axis=0), atol=1e-4 * span.max())
    assert ((pixels < low) | (pixels > high)).mean() < 0.01


SHARES = (0, 0.1, 1, 2, 25, 50, 75, 98, 99, 99.9, 100)
INTEGERS = [np.uint8, np.int8, np.uint16, np.int16]
few = settings(max_examples=40, deadline=None)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def counted(histogram: BandHistogram) -> int:
    return int(histogram._counts.sum())


def histogram(*parts: np.ndarray) -> BandHistogram:
    result = BandHistogram(parts[0].dtype)
    for part in parts:
        result.add(part)
    return result


def test_five_values_by_hand():
    for dtype in (*INTEGERS, np.float32):
        result = histogram(np.array([1, 5, 2, 4, 3], dtype))
        assert counted(result) == 5
        assert result.percentiles((0, 25, 50, 90, 100)) == [1, 2, 3, pytest.approx(4.6), 5]
        assert result.moments() == (3, pytest.approx(2**0.5))
        # 2, 2, 3, 4, 4.
        assert result.moments((2, 4)) == (3, pytest.approx(0.8**0.5))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_ends_of_an_integer_dtype(dtype):
    limits = np.iinfo(dtype)
    result = histogram(np.array([limits.min, limits.max], dtype))
    assert result.percentiles((0, 100)) == [limits.min, limits.max]


@pytest.mark.parametrize("dtype", INTEGERS)
@few
@given(data=st.data())
def test_integers_have_numpy_s_percentiles_and_moments(dtype, data):
    values = data.draw(arrays(dtype, st.integers(1, 60)))
    result = histogram(values)
    expected = np.percentile(values.astype(float), SHARES)
    np.testing.assert_allclose(result.percentiles(SHARES), expected, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(result.moments(), (values.mean(), values.std()), atol=1e-9)


@few
@given(values=arrays(np.float32, st.integers(1, 60), elements=FINITE))
def test_any_floats_are_known_to_a_2048th(values):
    """An order statistic is known to the width of its cell, what lies between two to both."""
    found = histogram(values).percentiles(SHARES)
    wide = values.astype(np.float64)
    for method, sign in (("lower", -1), ("higher", 1)):
        bound = np.percentile(wide, SHARES, method=method)
        # Below the smallest normal number the steps are equal.
        bound += sign * np.maximum(np.abs(bound) / 2048, 1e-38)
        assert (sign * np.array(found) <= sign * bound).all()


@few
@given(values=arrays(np.float32, st.integers(1, 60), elements=st.floats(12.5, 49.5, width=32)))
def test_floats_within_two_octaves_are_exact_to_a_millionth(values):
    found = histogram(values).percentiles(SHARES)
    np.testing.assert_allclose(found, np.percentile(values.astype(float), SHARES), rtol=2e-6)


@few
@given(values=arrays(np.float32, st.integers(0, 60), elements=FINITE), cut=st.integers(0, 60))
def test_order_and_pieces_do_not_matter(values, cut):
    whole, parts = histogram(values), histogram(values[cut:], values[:cut][::-1])
    assert counted(parts) == counted(whole) == len(values)
    assert parts.percentiles(SHARES) == whole.percentiles(SHARES)
    assert parts.moments() == whole.moments()


SAMPLES = {
    "reflectance": lambda r: r.beta(2, 8, 300_000),
    "elevation": lambda r: r.normal(1500, 1800, 300_000).clip(-400, 8000),
    "kelvin": lambda r: r.uniform(290, 310, 300_000),
    "a narrow band": lambda r: r.uniform(1e6, 1e6 + 1, 300_000),
    "around zero": lambda r: r.normal(0, 1e-3, 300_000),
    "mostly zero": lambda r: r.exponential(5, 300_000) * (r.random(300_000) < 0.1),
    "heavy tails": lambda r: r.standard_cauchy(300_000),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_imagery_is_known_to_a_ten_thousandth_of_its_range(name):
    values = SAMPLES[name](np.random.default_rng(0)).astype(np.float32)
    expected = np.percentile(values.astype(float), SHARES)
    span = np.subtract(*np.percentile(values.astype(float), (98, 2)))
    found = histogram(*np.array_split(values, 7))
    np.testing.assert_allclose(found.percentiles(SHARES)[3:-3], expected[3:-3], atol=1e-4 * span)
    clipped = values.astype(float).clip(expected[3], expected[7])
    moments = found.moments((expected[3], expected[7]))
    np.testing.assert_allclose(moments, (clipped.mean(), clipped.std()), atol=1e-4 * span)


@pytest.mark.parametrize("garbage", [-3.4e38, 1e30, -9999])
def test_garbage_costs_the_rest_no_precision(garbage):
    random = np.random.default_rng(0)
    values = random.beta(2, 8, 300_000).astype(np.float32)
    values[random.random(300_000) < 0.01] = garbage
    found = histogram(values).percentiles((2, 50, 98))
    np.testing.assert_allclose(found, np.percentile(values.astype(float), (2, 50, 98)), atol=1e-5)


def test_memory_stays_flat_over_the_whole_range_of_float32():
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    result = BandHistogram(np.float32)
    for part in np.array_split(values, 5):
        result.add(part)
        assert result._counts.size <= CELLS
    assert counted(result) == len(values) == 65_280
    assert result.percentiles((50,))[0] == pytest.approx(0, abs=1e-38)
    largest = float(values.max())
    assert result.percentiles((0, 100)) == pytest.approx([-largest, largest], rel=1e-3)


def test_integers_are_summed_exactly():
    values = np.full(3_000_001, 65535, np.uint16)
    values[::2] = 65534
    mean, std = histogram(values, values, values).moments()
    assert mean == 65534 + 1_500_000 / 3_000_001
    assert std == pytest.approx(0.5, rel=1e-12)


def test_a_small_spread_on_a_large_float_is_kept():
    assert histogram(np.array([1e6, 1e6 + 0.5], np.float32)).moments() == (1e6 + 0.25, 0.25)


@pytest.mark.parametrize("dtype", [*INTEGERS, np.float32])
def test_without_values(dtype):
    for empty in (BandHistogram(dtype), histogram(np.empty(0, dtype))):
        assert (counted(empty), empty.percentiles((2, 98)), empty.moments()) == (0, [0, 0], (0, 0))


@pytest.mark.parametrize("dtype", [np.int32, np.float64, bool, np.complex64])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(RasterError, match=f"no histogram of {np.dtype(dtype)}: give integers"):
        BandHistogram(dtype)
