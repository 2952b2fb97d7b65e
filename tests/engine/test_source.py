from __future__ import annotations

import pickle
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from emcube.engine import (
    ArraySource,
    DaskSource,
    SparseSource,
    plan_blocks,
    project_memory,
    resident,
)
from emcube.engine.source import _identity, compress
from emcube.errors import InputError
from emcube.kernels.rows import CountRows


def counts(shape, seed=0, mean=0.1, dtype=np.uint8):
    return np.random.default_rng(seed).poisson(mean, shape).astype(dtype)


def gather(source):
    """All blocks, laid back into one array (nav..., E); NaN where not selected."""
    out = np.full((*source.plan.nav_shape, source.n_channels), np.nan)
    for i in range(source.plan.n_blocks):
        block = source.load(i)
        out[source.plan.slices(i)] = block.expand(block.dense(), np.nan)
    return out


def split(source, nav, channels, target):
    return replace(source, plan=plan_blocks(nav, channels, 1, None, target_bytes=target))


@given(st.tuples(st.integers(1, 5), st.integers(1, 7)), st.integers(1, 400), st.booleans())
def test_blocks_of_memory_and_dask_hold_the_cube(nav, target, select):
    values = counts((*nav, 6, 3))
    rng = np.random.default_rng(1)
    pixels = rng.random(nav) < 0.6 if select else None
    channels = np.array([0, 3, 17]) if select else None
    flat = values.reshape(*nav, 18).astype(float)
    expected = flat if channels is None else flat[..., channels]
    if pixels is not None:
        expected = np.where(pixels[..., None], expected, np.nan)
    memory = ArraySource.from_array(values, 2, pixels=pixels, channels=channels)
    lazy = DaskSource.from_array(
        da.from_array(values, chunks=(2, 3, 4, 3)), 2, pixels=pixels, channels=channels
    )
    for source in (split(memory, nav, 18, target), lazy):
        np.testing.assert_array_equal(gather(source), expected)
        part = pickle.loads(pickle.dumps(source.part(range(source.plan.n_blocks))))
        np.testing.assert_array_equal(gather(part), expected)
        assert source.n_pixels == (nav[0] * nav[1] if pixels is None else pixels.sum())


def test_sparse_matrices():
    dense = counts((57, 9), dtype=np.int64)
    for matrix in (scipy.sparse.csr_matrix(dense), scipy.sparse.coo_array(dense)):
        source = SparseSource.from_matrix(matrix, pixels=np.arange(57) % 2 == 0)
        np.testing.assert_array_equal(gather(source)[::2], dense[::2])
        part = source.part([0])
        np.testing.assert_array_equal(gather(part)[::2], dense[::2])
    with pytest.raises(InputError, match="whole numbers"):
        SparseSource.from_matrix(scipy.sparse.csr_matrix(dense * 0.5))
    with pytest.raises(InputError, match="0 to 2"):
        SparseSource.from_matrix(scipy.sparse.csr_matrix(-dense))


def test_rare_counts_become_rows_and_others_stay_dense():
    assert isinstance(compress(counts((50, 40))), CountRows)
    assert isinstance(compress(counts((50, 40), mean=3)), np.ndarray)
    assert isinstance(compress(counts((50, 40)).astype(np.float32)), np.ndarray)
    assert isinstance(compress(-counts((50, 40), dtype=np.int16)), np.ndarray)
    assert compress(counts((5, 4), mean=3, dtype=">u2")).dtype.isnative


def test_a_subset_of_a_block():
    values = counts((4, 5, 6))
    block = ArraySource.from_array(values, 2, pixels=np.arange(20).reshape(4, 5) % 3 > 0).load(0)
    some = block.subset(np.array([7, 2]))
    np.testing.assert_array_equal(some.dense(), block.dense()[[2, 7]])
    np.testing.assert_array_equal(some.box_index(), block.box_index()[[2, 7]])


def test_an_address_that_is_used_again_is_another_array():
    names = set()
    for _ in range(50):
        array = np.zeros(1000)
        names.add(_identity(array))
        assert _identity(array) in names
        del array
    assert len(names) == 50


def test_unknown_chunk_sizes_are_refused():
    array = da.from_array(np.arange(12).reshape(6, 2), chunks=(3, 2))
    with pytest.raises(InputError, match="compute_chunk_sizes"):
        DaskSource.from_array(array[array[:, 0] > 3], 1)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("mean", [0.2, 40.0])
def test_blocks_are_kept_in_no_more_than_was_said(dtype, mean):
    values = counts((9, 11, 40), mean=mean, dtype=dtype)
    source = ArraySource.from_array(values, 2, pixels=np.arange(99).reshape(9, 11) % 3 > 0)
    kept = sum(source.load(i).data.nbytes for i in range(source.plan.n_blocks))
    rows_ends = 8 * (source.n_pixels + 1)
    assert kept <= source.kept_bytes + rows_ends
    if mean > 1:
        assert kept == source.n_pixels * 40 * values.dtype.itemsize
    sparse = SparseSource.from_matrix(scipy.sparse.csr_matrix(counts((57, 9), dtype=np.int64)))
    assert abs(sparse.kept_bytes - sparse.rows.nbytes) < sparse.plan.n_blocks


def test_a_projection_never_keeps_more_than_the_cube():
    values = counts((9, 11, 40), mean=40.0)
    source = ArraySource.from_array(values, 2)
    with resident(limit=10**9):
        found = project_memory(None, source, 2)
    assert found.resident == source.kept_bytes < 2 * values.nbytes
    with resident(limit=100):
        assert project_memory(None, source, 2).resident == 100
