"""Estimators within scikit-learn's pipelines and searches, and dask-ml's wrappers and searches."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import emcube as em


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    """Three phases in 360 pixels of 200 counts, 40 channels, in an order without meaning."""
    rng = np.random.default_rng(5)
    spectra = rng.dirichlet(np.full(40, 0.3), 3)
    return rng.poisson(200 * spectra[rng.integers(0, 3, 360)]).astype(np.uint16)


def test_pipelines(matrix):
    steps = make_pipeline(em.IncrementalPCA(3), em.KMeans(3, features="counts", random_state=0))
    labels = steps.fit(matrix).predict(matrix)
    assert isinstance(labels, np.ndarray)
    by_hand = em.KMeans(3, features="counts", random_state=0)
    scores = em.IncrementalPCA(3).fit_transform(matrix)
    np.testing.assert_array_equal(labels, by_hand.fit(scores).predict(scores))


@pytest.mark.parametrize(
    ("model", "grid"),
    [
        (em.IncrementalPCA(), {"n_components": [1, 3]}),
        (em.MiniBatchNMF(random_state=0), {"n_components": [1, 3]}),
        (em.KMeans(random_state=0), {"n_clusters": [1, 3]}),
    ],
)
def test_searches(matrix, model, grid):
    from dask_ml.model_selection import GridSearchCV as DaskGridSearchCV

    ((name, values),) = grid.items()
    for search in (
        GridSearchCV(model, grid, cv=2, error_score="raise"),
        DaskGridSearchCV(model, grid, cv=2),
    ):
        found = search.fit(matrix)
        assert found.best_params_ == {name: values[-1]}


def test_fitted_models_are_applied_block_by_block(matrix):
    from dask_ml.wrappers import ParallelPostFit

    lazy = da.from_array(matrix, chunks=(100, 40))
    wrapped = ParallelPostFit(em.MiniBatchNMF(3, random_state=0)).fit(matrix)
    loadings = wrapped.transform(lazy)
    assert isinstance(loadings, da.Array)
    np.testing.assert_allclose(loadings.compute(), wrapped.estimator.transform(matrix), atol=1e-9)


def test_incremental_wrapper_feeds_partial_fit(matrix):
    from dask_ml.wrappers import Incremental

    lazy = da.from_array(matrix, chunks=(100, 40))
    wrapped = Incremental(em.IncrementalPCA(3), shuffle_blocks=False).fit(lazy)
    whole = em.IncrementalPCA(3).fit(matrix)
    found = wrapped.estimator_
    assert found.n_samples_seen_ == 360
    np.testing.assert_allclose(found.explained_variance_, whole.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(found.components_, whole.components_, atol=1e-10)
