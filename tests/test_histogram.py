"""The histogram of a band: percentiles and moments as numpy has them, in flat memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocessing.band_statistics import CELLS, BandHistogram
from preprocessing.errors import RasterError

SHARES = (0, 0.1, 1, 2, 25, 50, 75, 98, 99, 99.9, 100)
INTEGERS = [np.uint8, np.int8, np.uint16, np.int16]
few = settings(max_examples=40, deadline=None)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def histogram(*parts: np.ndarray) -> BandHistogram:
    result = BandHistogram(parts[0].dtype)
    for part in parts:
        result.add(part)
    return result


def test_five_values_by_hand():
    for dtype in (*INTEGERS, np.float32):
        result = histogram(np.array([1, 5, 2, 4, 3], dtype))
        assert result.count == 5
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
    assert parts.count == whole.count == len(values)
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
        assert result.cells <= CELLS
    assert result.count == len(values) == 65_280
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
        assert (empty.count, empty.percentiles((2, 98)), empty.moments()) == (0, [0, 0], (0, 0))


@pytest.mark.parametrize("dtype", [np.int32, np.float64, bool, np.complex64])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(RasterError, match=f"no histogram of {np.dtype(dtype)}: give integers"):
        BandHistogram(dtype)
