from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from emcube.errors import InputError
from emcube.kernels.rows import rows_from_dense, rows_from_sparse

DTYPES = ["u1", "u2", "u4", "u8", "i2", "i8", "bool", ">u2"]


@given(
    st.integers(0, 9),
    st.integers(1, 40),
    st.sampled_from(DTYPES),
    st.floats(0, 2),
    st.integers(0, 100),
)
def test_rows_hold_what_the_block_holds(n_pixels, n_channels, dtype, mean, seed):
    rng = np.random.default_rng(seed)
    block = np.minimum(rng.poisson(mean, (n_pixels, n_channels)), 250).astype(dtype)
    rows = rows_from_dense(block)
    expected = block.astype(np.float64)
    np.testing.assert_array_equal(rows.to_dense(), expected)
    np.testing.assert_array_equal(rows.pixel_totals(), expected.sum(axis=1))
    np.testing.assert_array_equal(rows.channel_totals(), expected.sum(axis=0))
    assert rows.total() == expected.sum()
    assert rows.nnz == np.count_nonzero(block)
    if n_pixels:
        pixels = rng.integers(0, n_pixels, 5)
        np.testing.assert_array_equal(rows.take(pixels).to_dense(), expected[pixels])
    used = rng.random(n_channels) < 0.5
    np.testing.assert_array_equal(rows.take_channels(used).to_dense(), expected[:, used])
    right, left = rng.normal(size=(n_channels, 3)), rng.normal(size=(n_pixels, 2))
    np.testing.assert_allclose(rows.matmul(right), expected @ right, atol=1e-9)
    np.testing.assert_allclose(rows.rmatmul(left), left.T @ expected, atol=1e-9)
    sparse = rows_from_sparse(scipy.sparse.csr_matrix(expected))
    np.testing.assert_array_equal(sparse.to_dense(), expected)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("n_channels", [1, 7, 901, 4096])
def test_rows_of_blocks_that_are_searched_in_pieces(dtype, n_channels):
    rng = np.random.default_rng(n_channels)
    n_pixels = 300_000 // n_channels
    block = (rng.random((n_pixels, n_channels)) < 0.05) * rng.integers(1, 200)
    block = block.astype(dtype)
    # Empty pixels at both ends and a run of them within.
    for gone in (slice(0, 2), slice(n_pixels // 3, n_pixels // 2), slice(n_pixels - 1, None)):
        block[gone] = 0
    rows = rows_from_dense(block)
    pixels, channels = np.nonzero(block)
    np.testing.assert_array_equal(np.repeat(np.arange(n_pixels), np.diff(rows.indptr)), pixels)
    np.testing.assert_array_equal(rows.channels, channels)
    np.testing.assert_array_equal(rows.counts, block[pixels, channels])


def test_large_counts_and_many_channels_take_the_wide_form():
    assert rows_from_dense(np.full((2, 3), 70_000, np.uint32)).counts.dtype == np.uint32
    assert rows_from_dense(np.ones((1, 70_000), np.uint8)).channels.dtype == np.uint32
    assert rows_from_dense(np.full((2, 3), 65_535, np.uint32)).counts.dtype == np.uint16
    with pytest.raises(InputError, match="32 bits"):
        rows_from_dense(np.full((1, 1), 2**33, np.uint64))


def test_a_block_that_is_not_of_counts_is_refused():
    with pytest.raises(InputError, match="integers, got float64"):
        rows_from_dense(np.zeros((2, 2)))
    with pytest.raises(InputError, match="pixel 1 of the block, channel 0 holds -3"):
        rows_from_dense(np.array([[1, 2], [-3, 0]], np.int16))
    with pytest.raises(InputError, match="shape"):
        rows_from_dense(np.zeros(3, np.uint8))


def test_too_dense_a_block_gives_none():
    assert rows_from_dense(np.ones((4, 4), np.uint8), max_density=0.5) is None


def test_products_of_other_shapes_are_refused():
    rows = rows_from_dense(np.ones((4, 5), np.uint8))
    with pytest.raises(InputError, match=r"shape \(5, K\)"):
        rows.matmul(np.ones((4, 2)))
    with pytest.raises(InputError, match=r"shape \(4, K\)"):
        rows.rmatmul(np.ones((5, 2)))
