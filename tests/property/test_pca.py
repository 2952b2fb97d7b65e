"""PCA does not depend on how the cube is cut, nor on the dtype that holds its counts."""

from __future__ import annotations

import itertools

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emcube as em

P, E = 40, 12

# Some of the drawn matrices fall apart into blocks, which is told and does not matter here.
pytestmark = pytest.mark.filterwarnings("ignore:.*as strong as the mean spectrum:UserWarning")


@st.composite
def cuts(draw, size):
    places = draw(st.lists(st.integers(1, size - 1), max_size=5, unique=True))
    edges = [0, *sorted(places), size]
    return [b - a for a, b in itertools.pairwise(edges)]


@st.composite
def counts(draw):
    seed = draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    values = rng.poisson(rng.gamma(0.5, 4.0, (P, 2)) @ rng.gamma(0.3, 2.0, (2, E)))
    values[draw(st.integers(0, P - 1))] = 0
    values[:, draw(st.integers(0, E - 1))] = 0
    values[0, 0] += 1
    return np.minimum(values, 255)


def variances(model):
    return np.asarray(model.explained_variance_)


@given(counts(), cuts(P), st.sampled_from(["u1", "<u2", ">u4", "i8", "f4"]))
@settings(max_examples=25)
def test_chunks_and_dtypes(values, parts, dtype):
    whole = em.IncrementalPCA(5, noise="poisson").fit(values)
    lazy = da.from_array(values.astype(dtype), chunks=(tuple(parts), E))
    cut = em.IncrementalPCA(5, noise="poisson").fit(lazy)
    np.testing.assert_allclose(
        variances(cut), variances(whole), rtol=0, atol=1e-12 * variances(whole)[0]
    )


@given(counts(), cuts(P), st.sampled_from(["poisson", None]))
@settings(max_examples=25)
def test_partial_fits(values, parts, noise):
    whole = em.IncrementalPCA(5, noise=noise).fit(values)
    model = em.IncrementalPCA(5, noise=noise)
    start = 0
    for n in parts:
        model.partial_fit(values[start : start + n])
        start += n
    np.testing.assert_allclose(
        variances(model), variances(whole), rtol=0, atol=1e-10 * variances(whole)[0]
    )
    assert model.n_samples_seen_ == P
