"""Bare matrices as people have them: every form of the same numbers gives the same answer, and what cannot be
used is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import emcube as em
from emcube.errors import EmcubeError, InputError

MODELS: dict[str, Callable[[], Any]] = {
    "pca": lambda: em.IncrementalPCA(2, noise=None),
    "pca randomized": lambda: em.IncrementalPCA(
        2, noise=None, svd_solver="randomized", random_state=0
    ),
    "nmf": lambda: em.MiniBatchNMF(2, random_state=0),
    "nmf frobenius": lambda: em.MiniBatchNMF(2, beta_loss="frobenius", random_state=0),
    "kmeans": lambda: em.KMeans(2, features="counts", random_state=0),
    "kmeans profiles": lambda: em.KMeans(2, features="profiles", random_state=0),
    "gaussian mixture": lambda: em.GaussianMixture(2, features="profiles", random_state=0),
    "poisson mixture": lambda: em.PoissonMixture(2, random_state=0),
}


def some_counts() -> np.ndarray:
    """60 pixels of 30 counts in 20 channels; a pixel and a channel are empty."""
    rng = np.random.default_rng(0)
    spectra = rng.dirichlet(np.full(20, 0.4), 3)
    counts = rng.poisson(30 * rng.dirichlet(np.full(3, 0.4), 60) @ spectra).astype(np.uint8)
    counts[5] = 0
    counts[:, 7] = 0
    return counts


COUNTS = some_counts()


def every_other(dtype: Any, axis: int) -> np.ndarray:
    """A view that is contiguous nowhere."""
    return np.repeat(COUNTS.astype(dtype), 2, axis=axis)[:: 1 + (axis == 0), :: 1 + (axis == 1)]


def read_only() -> np.ndarray:
    counts = COUNTS.copy()
    counts.flags.writeable = False
    return counts


def with_duplicates() -> sp.coo_matrix:
    coo = sp.coo_matrix(COUNTS.astype(np.int64))
    data = np.concatenate([coo.data - 1, np.ones_like(coo.data)])
    place = (np.tile(coo.row, 2), np.tile(coo.col, 2))
    return sp.coo_matrix((data, place), shape=coo.shape)


def unsorted_rows() -> sp.csr_matrix:
    rows = sp.csr_matrix(COUNTS)
    for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        rows.indices[start:stop] = rows.indices[start:stop][::-1].copy()
        rows.data[start:stop] = rows.data[start:stop][::-1].copy()
    rows.has_sorted_indices = False
    return rows


def wide_indices() -> sp.csr_matrix:
    rows = sp.csr_matrix(COUNTS)
    rows.indices, rows.indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    return rows


def with_zeros() -> sp.csr_matrix:
    """All cells are stored, zeros too."""
    place = np.indices(COUNTS.shape).reshape(2, -1)
    rows = sp.csr_matrix((COUNTS.ravel(), tuple(place)), shape=COUNTS.shape)
    assert rows.nnz == COUNTS.size
    return rows


def lazy(chunks: Any = (17, 20), dtype: Any = np.uint8) -> da.Array:
    return da.from_array(COUNTS.astype(dtype), chunks=chunks)


FORMS: dict[str, Callable[[], Any]] = {
    **{
        f"dtype {name}": lambda name=name: COUNTS.astype(name)
        for name in ("i1", "i8", "u4", "f2", "f4", "f8", "longdouble", ">u2", ">f8")
    },
    "Fortran order": lambda: np.asfortranarray(COUNTS.astype(np.float32)),
    "read-only": read_only,
    "every other row": lambda: every_other(np.uint8, 0),
    "every other column": lambda: every_other(np.float64, 1),
    "reversed twice": lambda: COUNTS[::-1].copy()[::-1],
    "masked nowhere": lambda: np.ma.masked_array(COUNTS),
    "list": COUNTS.tolist,
    "frame": lambda: pd.DataFrame(COUNTS),
    "frame of nullable integers": lambda: pd.DataFrame(COUNTS).astype("Int64"),
    "frame of several dtypes": lambda: pd.DataFrame(
        {i: COUNTS[:, i].astype("f8" if i % 2 else "i4") for i in range(20)}
    ),
    "frame of sparse columns": lambda: pd.DataFrame.sparse.from_spmatrix(sp.csr_matrix(COUNTS)),
    "csc": lambda: sp.csc_matrix(COUNTS),
    "csr array of floats": lambda: sp.csr_array(COUNTS.astype(float)),
    "lil": lambda: sp.lil_matrix(COUNTS),
    "stored zeros": with_zeros,
    "duplicates": with_duplicates,
    "unsorted rows": unsorted_rows,
    "indices of 64 bits": wide_indices,
    "chunks along both": lambda: lazy((17, 7)),
    "empty chunks": lambda: lazy(((0, 30, 0, 30), (20,))),
    "lazy, big-endian": lambda: lazy(dtype=">u2"),
    "lazy, sparse chunks": lambda: lazy().map_blocks(sp.csr_matrix),
    "lazy, masked nowhere": lambda: da.from_array(np.ma.masked_array(COUNTS), chunks=(17, 20)),
}


def answers(make: Callable[[], Any], X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Spectra, and maps of the data they come from."""
    model = make().fit(X)
    spectra = model.cluster_centers_ if hasattr(model, "predict") else model.components_
    return np.asarray(spectra), np.asarray(model.transform(X))


@pytest.fixture(scope="module")
def expected() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {name: answers(make, COUNTS) for name, make in MODELS.items()}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_the_same_numbers_give_the_same_answer(form, expected):
    X = FORMS[form]()
    for name, make in MODELS.items():
        for got, want in zip(answers(make, X), expected[name], strict=True):
            size = np.abs(want).max()
            np.testing.assert_allclose(got, want, rtol=0.02, atol=2e-3 * size, err_msg=name)


def with_value(value: float, dtype: Any = float) -> np.ndarray:
    values = COUNTS.astype(dtype)
    values[3, 4] = value
    return values


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no pixels": (lambda: COUNTS[:0], r"got 0|of 0 pixels"),
    "no channels": (lambda: COUNTS[:, :0], r"0 feature\(s\)"),
    "one dim": (lambda: COUNTS[0], "must have the shape"),
    "three dims": (lambda: COUNTS[None], "must have the shape"),
    "nothing": (lambda: None, "must have the shape"),
    "ragged": (lambda: [[1, 2], [3]], "matrix of numbers"),
    "NaN": (lambda: with_value(np.nan), r"position \(3,\), used channel 4 holds nan"),
    "sparse NaN": (lambda: sp.csr_matrix(with_value(np.nan)), "used channel 4 holds nan"),
    "infinite": (lambda: with_value(-np.inf), "used channel 4 holds -inf"),
    "sparse infinite": (lambda: sp.csr_matrix(with_value(np.inf)), "used channel 4 holds inf"),
    "lazy NaN": (lambda: da.from_array(with_value(np.nan), chunks=(17, 20)), "4 holds nan"),
    "too large": (lambda: 1e200 * COUNTS, "too large|mean square|sum of all|on average"),
    "objects": (lambda: COUNTS.astype(object), "real numbers, got dtype object"),
    "words": (lambda: COUNTS.astype(str), "real numbers"),
    "dates": (lambda: COUNTS.astype("M8[s]"), "real numbers"),
    "complex": (lambda: COUNTS * 1j, "Complex data not supported"),
    "masked": (lambda: np.ma.masked_equal(COUNTS, 3), "values are hidden"),
    "lazy, masked": (
        lambda: da.from_array(np.ma.masked_equal(COUNTS, 3), chunks=(60, 20)),
        "values are hidden",
    ),
    "frame with gaps": (
        lambda: pd.DataFrame(COUNTS).astype("Int64").mask(COUNTS == 3),
        "missing values",
    ),
    "unknown chunks": (lambda: lazy()[lazy().sum(axis=1) > 0], "compute_chunk_sizes"),
}


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("form", sorted(REFUSED))
def test_what_cannot_be_used_is_refused(form, name):
    make_data, words = REFUSED[form]
    with pytest.raises(EmcubeError, match=words) as caught:
        MODELS[name]().fit(make_data())
    assert isinstance(caught.value, InputError)


def test_a_dask_frame_says_how_to_convert_it():
    frames = pytest.importorskip("dask.dataframe")
    frame = frames.from_pandas(pd.DataFrame(COUNTS), npartitions=3)
    with pytest.raises(InputError, match=r"to_dask_array\(lengths=True\)"):
        MODELS["pca"]().fit(frame)
    found = MODELS["pca"]().fit(frame.to_dask_array(lengths=True))
    np.testing.assert_allclose(
        found.components_, MODELS["pca"]().fit(COUNTS).components_, atol=1e-9
    )


def test_masked_chunks_are_refused_when_a_model_is_applied():
    model = MODELS["nmf"]().fit(COUNTS)
    masked = da.from_array(np.ma.masked_equal(COUNTS, 3), chunks=(60, 20))
    with pytest.raises(InputError, match="values are hidden"):
        model.transform(masked).compute()


@pytest.mark.parametrize("name", ["pca", "kmeans"])
def test_large_and_negative_integers_are_taken_as_they_are(name):
    values = COUNTS.astype(np.int64) - 5
    sparse = sp.csr_matrix(values)
    for got, want in zip(
        answers(MODELS[name], sparse), answers(MODELS[name], values.astype(float)), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    large = sp.csr_matrix(COUNTS.astype(np.int64) * 2**33)
    got, _ = answers(MODELS[name], large)
    want, _ = answers(MODELS[name], COUNTS.astype(float))
    scale = 1.0 if name == "pca" else 2.0**33
    np.testing.assert_allclose(got / scale, want, rtol=1e-6, atol=1e-6)


def test_one_pixel_and_one_channel():
    assert em.IncrementalPCA(1, noise=None).fit(COUNTS[:1]).components_.shape == (1, 20)
    assert em.MiniBatchNMF(1, random_state=0).fit(COUNTS[:1]).transform(COUNTS[:1]).shape == (1, 1)
    assert em.MiniBatchNMF(1, random_state=0).fit(COUNTS[:, :1]).components_.tolist() == [[1.0]]
    assert em.KMeans(1, features="counts").fit(COUNTS[:1]).labels_.tolist() == [0]
    one = em.KMeans(2, features="counts", random_state=0).fit(COUNTS[:, :1])
    assert set(one.labels_.tolist()) == {0, 1}
