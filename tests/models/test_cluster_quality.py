"""How good clusters are: separation and stability on scenes where both are known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

import emcube as em
from emcube.engine import use_threads
from emcube.errors import InputError


def counts_of(spread: float, n: int = 1500, seed: int = 0) -> np.ndarray:
    """Pixels of three spectra that are the more alike the smaller `spread` is."""
    rng = np.random.default_rng(seed)
    spectra = rng.dirichlet(np.full(20, 1.0), 3)
    spectra = spread * spectra + (1 - spread) * spectra.mean(axis=0)
    return rng.poisson(300 * spectra[np.arange(n) % 3]).astype(np.uint16)


MODELS = {
    "kmeans": lambda: em.KMeans(3, random_state=0),
    "gaussian": lambda: em.GaussianMixture(3, random_state=0),
    "poisson": lambda: em.PoissonMixture(3, random_state=0),
}


@pytest.mark.parametrize("name", MODELS)
def test_clear_clusters_are_far_apart_and_found_again(name):
    counts = counts_of(1.0)
    found = em.cluster_quality(MODELS[name]().fit(counts), counts, n_samples=600, n_repeats=3)
    assert found.sizes == {"cluster": 3}
    assert (found.silhouette > 0.6).all()
    assert (found.silhouette_error < 0.1).all()
    assert (found.stability > 0.97).all()
    assert found.attrs["agreement"] > 0.97
    assert 500 < found.attrs["n_samples"] <= 600
    assert int(found.sampled.sum()) == found.attrs["n_samples"]


@pytest.mark.parametrize("name", MODELS)
def test_clusters_of_noise_are_neither(name):
    counts = counts_of(0.0)
    found = em.cluster_quality(MODELS[name]().fit(counts), counts, n_samples=600, n_repeats=4)
    assert found.attrs["silhouette"] < 0.5
    assert found.attrs["agreement"] < 0.7
    assert (found.stability_least <= found.stability).all()


def test_the_silhouette_is_scikit_learns():
    """Of all pixels, where as many are asked for."""
    values = np.random.default_rng(0).normal(size=(300, 2))
    values[::2] += 3
    model = em.KMeans(2, features="counts", random_state=0).fit(values)
    found = em.cluster_quality(model, values, n_samples=300, n_repeats=1)
    assert found.attrs["silhouette"] == pytest.approx(silhouette_score(values, model.labels_))


def test_the_same_on_any_number_of_threads():
    cube = em.make_cube(
        counts_of(0.5).reshape(30, 50, 20), dims=("y", "x", "energy"), sig_dims=("energy",)
    ).chunk(y=5)
    model = em.KMeans(3, random_state=0).fit(cube)
    found = []
    for n in (1, 4):
        with use_threads(n):
            found.append(em.cluster_quality(model, cube, n_samples=200, n_repeats=2))
    assert found[0].identical(found[1])


def test_only_selected_pixels_are_drawn():
    counts = counts_of(1.0, 300)
    model = em.KMeans(3, random_state=0).fit(counts)
    first = np.arange(300) % 3 == 0
    found = em.cluster_quality(model, counts, where=first, n_samples=1000, n_repeats=1)
    assert found.attrs["n_samples"] == 100
    assert (found.sampled > 0).sum() == 1
    assert np.isnan(found.silhouette).all()


def test_what_has_no_clusters_is_refused():
    counts = counts_of(1.0, 60)
    nmf = em.MiniBatchNMF(2, random_state=0).fit(counts)
    with pytest.raises(InputError, match="got MiniBatchNMF, expected KMeans"):
        em.cluster_quality(nmf, counts)
    model = em.KMeans(3, random_state=0).fit(counts)
    with pytest.raises(InputError, match="n_repeats must be a whole number from 1, got 0"):
        em.cluster_quality(model, counts, n_repeats=0)
    with pytest.raises(InputError, match="n_samples"):
        em.cluster_quality(model, counts, n_samples=5)
    with pytest.raises(InputError, match="4 pixels that hold anything were drawn, 6 are needed"):
        em.cluster_quality(model, counts, where=np.arange(60) < 4)


def test_the_figure_has_a_bar_for_each_cluster():
    counts = counts_of(1.0, 300)
    found = em.cluster_quality(em.KMeans(3, random_state=0).fit(counts), counts, n_repeats=2)
    figure = em.plot.cluster_quality(found)
    assert [len(axes.patches) for axes in figure.axes] == [3, 3]
    with pytest.raises(InputError, match="'silhouette' is missing"):
        em.plot.cluster_quality(found.drop_vars("silhouette"))
