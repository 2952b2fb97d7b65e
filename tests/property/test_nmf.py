"""MiniBatchNMF over any chunking, dtype and holes: the same answer, and its invariants."""

from __future__ import annotations

import dask.array as da
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import emcube as em

SPECTRA = np.random.default_rng(0).dirichlet(np.full(24, 0.4), 3)


def _cube(seed, n_y, n_x, dtype, empty):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(3, 0.5), (n_y, n_x))
    counts = rng.poisson(shares @ SPECTRA * 60).astype(dtype)
    counts.reshape(-1, 24)[:empty] = 0
    return counts


def _chunks(draw, length):
    cuts = sorted(draw(st.sets(st.integers(1, length - 1), max_size=3)))
    return tuple(int(n) for n in np.diff([0, *cuts, length]))


@settings(max_examples=15)
@given(st.data())
def test_chunks_and_dtypes_change_nothing_but_rounding(data):
    draw = data.draw
    n_y, n_x = draw(st.integers(5, 12)), draw(st.integers(5, 12))
    dtype = draw(st.sampled_from(["uint8", "uint16", "int32", "float32", "float64"]))
    counts = _cube(draw(st.integers(0, 9)), n_y, n_x, dtype, draw(st.integers(0, 4)))

    def cube(values):
        return em.make_cube(values, dims=("y", "x", "energy"), sig_dims=("energy",))

    chunks = (_chunks(draw, n_y), _chunks(draw, n_x), _chunks(draw, 24))
    start = SPECTRA[::-1]
    parameters = {"init": start, "n_epochs": 0, "pool": 1, "tol": 0, "max_iter": 4}
    whole = em.MiniBatchNMF(3, random_state=0, **parameters).fit(cube(counts.astype("uint16")))
    pieces = em.MiniBatchNMF(3, random_state=0, **parameters).fit(
        cube(da.from_array(counts, chunks=chunks))
    )
    np.testing.assert_allclose(pieces.components_, whole.components_, atol=1e-7)
    assert (pieces.components_ >= 0).all()
    np.testing.assert_allclose(pieces.components_.sum("energy"), 1.0)
    loadings = pieces.transform(cube(da.from_array(counts, chunks=chunks)))
    assert (loadings >= 0).all()
    np.testing.assert_allclose(loadings.sum("component"), counts.sum(axis=-1), rtol=1e-6)
