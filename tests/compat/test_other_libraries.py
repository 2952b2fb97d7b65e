"""Estimators within scikit-learn's pipelines and searches, and dask-ml's wrappers and searches."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
import sklearn.exceptions
import xarray as xr
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

import emcube as em
from emcube.errors import InputError, NotFittedError

MODELS: dict[str, Callable[[], Any]] = {
    "pca": lambda: em.IncrementalPCA(3),
    "nmf": lambda: em.MiniBatchNMF(3, random_state=0),
    "kmeans": lambda: em.KMeans(3, random_state=0),
    "ica": lambda: em.FastICA(3, random_state=0),
    "varimax": lambda: em.Varimax(3, random_state=0),
    "mcr": lambda: em.MCRALS(3, random_state=0),
    "vca": lambda: em.VCA(3, random_state=0),
    "nfindr": lambda: em.NFINDR(3, random_state=0),
    "gaussian_mixture": lambda: em.GaussianMixture(3, random_state=0),
    "poisson_mixture": lambda: em.PoissonMixture(3, random_state=0),
}

KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": lambda matrix: matrix,
    "sparse": scipy.sparse.csr_matrix,
    "dask": lambda matrix: da.from_array(matrix, chunks=(100, 40)),
    "cube": lambda matrix: as_cube(matrix),
    "lazy cube": lambda matrix: as_cube(matrix).chunk(y=6),
}


def as_cube(matrix: np.ndarray) -> xr.DataArray:
    return em.make_cube(
        matrix.reshape(18, 20, 40),
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": 0.1 * np.arange(40)},
        units={"energy": "keV"},
    )


@pytest.fixture(params=sorted(MODELS))
def model(request) -> Any:
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    """Three phases in 360 pixels of 200 counts, 40 channels, in an order without meaning."""
    rng = np.random.default_rng(5)
    spectra = rng.dirichlet(np.full(40, 0.3), 3)
    return rng.poisson(200 * spectra[rng.integers(0, 3, 360)]).astype(np.uint16)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("first", ["pca", "nmf"])
def test_a_pipeline_takes_every_kind_of_data(matrix, kind, first):
    data = KINDS[kind](matrix)
    steps = make_pipeline(MODELS[first](), em.KMeans(3, random_state=0))
    labels = steps.fit(data).predict(data)
    want = {"dask": da.Array, "cube": xr.DataArray, "lazy cube": xr.DataArray}
    assert type(labels) is want.get(kind, np.ndarray)
    by_hand = MODELS[first]().fit(data)
    second = em.KMeans(3, random_state=0).fit(by_hand.transform(data))
    np.testing.assert_array_equal(labels, second.predict(by_hand.transform(data)))
    assert isinstance(steps.score(data), float)
    twin = pickle.loads(pickle.dumps(steps))
    np.testing.assert_array_equal(twin.predict(data), labels)


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
        (em.FastICA(random_state=0), {"n_components": [1, 3]}),
        (em.MCRALS(random_state=0), {"n_components": [1, 3]}),
        (em.VCA(random_state=0), {"n_components": [1, 3]}),
        (em.GaussianMixture(random_state=0), {"n_clusters": [1, 3]}),
        (em.PoissonMixture(random_state=0), {"n_clusters": [1, 3]}),
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


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_volume_is_chosen_by_held_out_counts(matrix, kind):
    """The same folds in every kind of data: one volume collapses the components, the other does not."""
    from dask_ml.model_selection import GridSearchCV as DaskGridSearchCV

    data = KINDS[kind](matrix)
    grid = {"volume": [1.0, 300.0]}
    search = DaskGridSearchCV(MODELS["nmf"](), grid, cv=2).fit(data)
    assert search.best_params_ == {"volume": 1.0}
    good, bad = search.cv_results_["mean_test_score"]
    assert good > bad + 0.05
    labelled = isinstance(search.best_estimator_.components_, xr.DataArray)
    assert labelled == isinstance(data, xr.DataArray)
    here = GridSearchCV(MODELS["nmf"](), grid, cv=2, error_score="raise").fit(data)
    assert here.best_params_ == {"volume": 1.0}
    np.testing.assert_allclose(here.cv_results_["mean_test_score"], [good, bad], rtol=1e-9)


def test_steps_of_a_pipeline_are_searched_at_random(matrix):
    from dask_ml.model_selection import RandomizedSearchCV

    steps = make_pipeline(em.IncrementalPCA(), em.KMeans(3, features="counts", random_state=0))
    search = RandomizedSearchCV(
        steps,
        {"incrementalpca__n_components": [1, 2, 3], "kmeans__n_init": [1, 2]},
        n_iter=3,
        cv=2,
        random_state=0,
    )
    found = search.fit(matrix)
    assert len(found.cv_results_["params"]) == 3
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    assert found.predict(matrix).shape == (360,)


def test_cross_validation_prefers_the_right_number_of_components(matrix):
    scores = [
        cross_val_score(em.MiniBatchNMF(k, random_state=0), matrix, cv=3).mean() for k in (1, 2, 3)
    ]
    assert scores[0] < scores[1] < scores[2]


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


def test_incremental_wrapper_feeds_every_model(matrix, model):
    from dask_ml.wrappers import Incremental

    lazy = da.from_array(matrix, chunks=(100, 40))
    wrapped = Incremental(model, shuffle_blocks=False).fit(lazy)
    by_hand = clone(model)
    for start in range(0, 360, 100):
        by_hand.partial_fit(matrix[start : start + 100])
    answers = wrapped.transform(lazy)
    assert isinstance(answers, da.Array)
    np.testing.assert_allclose(answers.compute(), by_hand.transform(matrix), rtol=1e-9, atol=1e-9)


def test_labels_and_scores_through_the_wrapper(matrix):
    from dask_ml.wrappers import ParallelPostFit

    lazy = da.from_array(matrix, chunks=(100, 40))
    wrapped = ParallelPostFit(MODELS["kmeans"]()).fit(matrix)
    labels = wrapped.predict(lazy)
    assert isinstance(labels, da.Array)
    np.testing.assert_array_equal(labels.compute(), wrapped.estimator.labels_)
    assert wrapped.score(lazy, None) == pytest.approx(-wrapped.estimator.inertia_, rel=1e-9)


def test_columns_of_frames_are_remembered(matrix, model):
    frame = pd.DataFrame(matrix, columns=[f"channel {i}" for i in range(40)])
    model.fit(frame)
    assert model.feature_names_in_.tolist() == frame.columns.tolist()
    assert model.n_features_in_ == 40
    np.testing.assert_array_equal(
        model.transform(frame), clone(model).fit(matrix).transform(matrix)
    )
    with pytest.raises(InputError, match="feature names should match"):
        model.transform(frame[frame.columns[::-1]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.transform(matrix)
    model.fit(matrix)
    assert not hasattr(model, "feature_names_in_")
    model.fit(as_cube(matrix))
    assert not hasattr(model, "feature_names_in_")


def test_frames_come_out_where_they_are_asked_for(matrix, model):
    names = [f"{type(model).__name__.lower()}{i}" for i in range(3)]
    plain = clone(model).fit_transform(matrix)
    model.set_output(transform="pandas")
    frame = model.fit_transform(matrix)
    assert isinstance(frame, pd.DataFrame)
    assert frame.columns.tolist() == names == model.get_feature_names_out().tolist()
    np.testing.assert_array_equal(frame, plain)
    lazy = da.from_array(matrix, chunks=(100, 40))
    assert isinstance(model.transform(lazy), pd.DataFrame)


def test_labelled_cubes_stay_labelled_whatever_the_output(matrix, model):
    cube = as_cube(matrix)
    with sklearn.config_context(transform_output="pandas"):
        assert model.fit_transform(cube).dims[:2] == ("y", "x")
        assert isinstance(model.transform(cube), xr.DataArray)


def test_a_model_that_is_not_fitted_says_so_in_the_words_of_both(matrix, model):
    with pytest.raises(sklearn.exceptions.NotFittedError) as caught:
        model.transform(matrix)
    assert isinstance(caught.value, NotFittedError)
    twin = pickle.loads(pickle.dumps(caught.value))
    assert str(twin) == str(caught.value)


def test_tags_tell_what_is_taken():
    tags = {name: make().__sklearn_tags__() for name, make in MODELS.items()}
    assert all(t.input_tags.sparse for t in tags.values())
    assert tags["kmeans"].estimator_type == "clusterer"
    assert tags["nmf"].input_tags.positive_only
    assert not em.MiniBatchNMF(beta_loss="frobenius").__sklearn_tags__().input_tags.positive_only
    assert em.IncrementalPCA(noise="poisson").__sklearn_tags__().input_tags.positive_only


def test_the_score_of_all_components_is_that_of_the_whole_covariance(matrix):
    from sklearn.decomposition import PCA

    values = matrix[:, :12] * 0.25
    ours = em.IncrementalPCA(noise=None).fit(values)
    assert ours.score(values) == pytest.approx(PCA().fit(values).score(values), rel=1e-9)
    few = matrix[:8].astype(float)
    with pytest.raises(InputError, match="needs noise to be left"):
        em.IncrementalPCA(noise=None).fit(few).score(few)


def test_pca_refuses_values_that_are_not_finite_when_it_is_applied(matrix):
    values = matrix.astype(float)
    pca = em.IncrementalPCA(3).fit(values)
    values[7, 3] = np.nan
    with pytest.raises(InputError, match=r"position \(7,\), used channel 3 holds nan"):
        pca.transform(values)
