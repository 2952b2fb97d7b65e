"""The randomized solver: angles that it promises, against the exact answer; its space and its bounds."""

from __future__ import annotations

import pickle

import dask.array as da
import numpy as np
import pytest
from scipy.linalg import subspace_angles

import emcube as em
from emcube.engine import use_threads
from emcube.models import subspace
from emcube.models.noise import PoissonNoise
from emcube.models.subspace import Subspace, SubspaceSweep, angle_bounds, new_directions, separated


def counts(n_pixels=600, n_channels=420, seed=0, level=4.0):
    """Five patterns, the last ones rare, in dense counts."""
    rng = np.random.default_rng(seed)
    spectra = rng.gamma(1.0, size=(5, n_channels))
    mix = np.array([8.0, 4.0, 2.0, 1.0, 0.5]) * rng.gamma(0.5, size=(n_pixels, 5))
    mix /= mix.sum(axis=1, keepdims=True)
    return rng.poisson(level * mix @ spectra).astype(np.uint16)


def exact(values, noise):
    """Eigenvalues and vectors of X'X, written out."""
    x = values.astype(float)
    scale = np.ones(x.shape[1])
    if noise == "poisson":
        g, h = x.sum(axis=1), x.sum(axis=0)
        scale = np.sqrt(h.sum() / h)
        x = x * scale / np.sqrt(g)[:, None]
    else:
        x = x - x.mean(axis=0)
    found, vectors = np.linalg.eigh(x.T @ x)
    return found[::-1], vectors[:, ::-1], scale


def angles_of(pca, vectors, scale):
    """Largest angle of the first k components to the exact ones, k = 1, 2, ..."""
    found = np.asarray(pca.components_).T * scale[:, None]
    return np.array(
        [
            np.degrees(subspace_angles(found[:, :k], vectors[:, :k]).max())
            for k in range(1, found.shape[1] + 1)
        ]
    )


@pytest.mark.parametrize("noise", ["poisson", None])
@pytest.mark.parametrize("k", [5, 12])
@pytest.mark.parametrize("level", [0.05, 4.0])
def test_angles_are_within_what_is_said(noise, k, level):
    values = counts(level=level)
    values[:, 0] = np.maximum(values[:, 0], 1)
    values[0] = np.maximum(values[0], 1)
    values[1:][values[1:].sum(axis=1) == 0, 3] = 1
    pca = em.IncrementalPCA(k, noise=noise, svd_solver="randomized", random_state=1).fit(
        da.from_array(values, chunks=(130, -1))
    )
    found, vectors, scale = exact(values, noise)
    true, said = angles_of(pca, vectors, scale), np.asarray(pca.angle_)
    assert pca.converged_
    assert (true <= said * 1.01 + 1e-4).all()
    apart = found[1 : k + 1] < 0.85 * found[:k]
    assert (said[apart] <= pca.tol).all()
    if level > 1:
        assert apart.sum() >= 3


def test_exact_solvers_say_zero_and_many_components_are_told_not_to_be_apart():
    values = counts()
    np.testing.assert_array_equal(em.IncrementalPCA(3, svd_solver="gram").fit(values).angle_, 0)
    many = em.IncrementalPCA(30, svd_solver="randomized", random_state=0).fit(values)
    assert many.angle_[0] == 0  # the mean spectrum is known
    assert (many.angle_[10:] > 1).all()


def test_a_small_space_is_cut_down_and_ends_at_the_same_answer(monkeypatch):
    values = counts()
    fit = em.IncrementalPCA(5, svd_solver="randomized", random_state=0, tol=1e-3, max_iter=60)
    whole = em.IncrementalPCA(**fit.get_params()).fit(values)
    monkeypatch.setattr(subspace, "MAX_SPACE_BYTES", 0)
    small = fit.fit(values)
    assert small.converged_
    assert small.n_iter_ >= whole.n_iter_
    _, vectors, scale = exact(values, "poisson")
    assert angles_of(small, vectors, scale).max() < 2e-3
    assert angles_of(whole, vectors, scale).max() < 2e-3


def test_it_says_where_passes_ran_out():
    pca = em.IncrementalPCA(5, svd_solver="randomized", random_state=0, max_iter=2).fit(counts())
    assert not pca.converged_
    assert pca.n_iter_ == 2
    assert pca.angle_.max() > pca.tol


@pytest.mark.parametrize("noise", ["poisson", None])
def test_fewer_directions_than_are_asked_for(noise):
    # Rank two, and half of the channels empty: four of six components are nothing.
    rng = np.random.default_rng(3)
    values = rng.integers(1, 5, (60, 2)) @ rng.integers(0, 3, (2, 40))
    values[:, ::2] = 0
    pca = em.IncrementalPCA(6, noise=noise, svd_solver="randomized", random_state=0).fit(values)
    found, _, _ = exact(values[:, values.any(axis=0)], noise)
    assert pca.converged_
    np.testing.assert_allclose(
        np.asarray(pca.singular_values_) ** 2, found[:6], atol=1e-6 * found[0]
    )
    assert np.isfinite(pca.components_).all()


def test_an_empty_cube():
    pca = em.IncrementalPCA(2, svd_solver="randomized", random_state=0).fit(
        np.zeros((8, 5), np.uint8)
    )
    np.testing.assert_array_equal(pca.explained_variance_, [0, 0])
    assert pca.converged_


def test_all_components_of_a_small_matrix():
    values = counts(12, 30)
    pca = em.IncrementalPCA(12, noise=None, svd_solver="randomized", random_state=0).fit(values)
    found, _, _ = exact(values, None)
    np.testing.assert_allclose(
        np.asarray(pca.singular_values_) ** 2, found[:12], atol=1e-6 * found[0]
    )


def test_bounds_hold_for_any_space():
    rng = np.random.default_rng(4)
    turn, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    values = np.concatenate(([50.0, 30.0, 12.0], np.linspace(5, 0, 37)))
    matrix = (turn * values) @ turn.T
    for noise in (0.3, 0.03, 0.003):
        basis, _ = np.linalg.qr(turn[:, :8] + noise * rng.normal(size=(40, 8)))
        ritz, inner = np.linalg.eigh(basis.T @ matrix @ basis)
        ritz, vectors = ritz[::-1], basis @ inner[:, ::-1]
        lengths = np.linalg.norm(matrix @ vectors - vectors * ritz, axis=0)
        said = angle_bounds(ritz[:5], lengths[:5], 4)
        true = [np.degrees(subspace_angles(vectors[:, :j], turn[:, :j]).max()) for j in (1, 2, 3)]
        assert (true <= said[:3]).all()
    assert said[2] < 3
    assert said[3] > 20  # 5.0 and 4.86 are not far enough apart
    assert separated(ritz[:5], lengths[:5], 4).tolist() == [True, True, True, False]
    # Nothing is known of what follows the last value, unless it is all there is.
    assert angle_bounds(ritz[:3], lengths[:3], 3)[2] == 90
    assert angle_bounds(ritz[:3], lengths[:3], 3, complete=True)[2] < 3


def test_new_directions_are_new():
    rng = np.random.default_rng(5)
    old, _ = np.linalg.qr(rng.normal(size=(30, 4)))
    image = np.column_stack((rng.normal(size=(30, 2)), 5 * old[:, :2], np.zeros(30)))
    found = new_directions(image, (old[:, :1], old[:, 1:]), 20)
    assert found.shape == (30, 2)
    np.testing.assert_allclose(found.T @ found, np.eye(2), atol=1e-14)
    np.testing.assert_allclose(old.T @ found, 0, atol=1e-14)
    assert new_directions(image, (old,), 1).shape == (30, 1)
    assert new_directions(0 * image, old, 5).shape == (30, 0)


def test_workers_get_the_newest_vectors_alone():
    front = np.eye(300)[:, :3]
    sweep = SubspaceSweep(
        PoissonNoise(), np.ones(300), None, None, front, 2, tol=0.1, n_dims=300, max_rounds=5
    )
    state, done = sweep.step(
        sweep.start(), (np.random.default_rng(6).normal(size=(300, 3)), 1.0), 0
    )
    assert not done
    sent = pickle.loads(pickle.dumps(state))
    assert isinstance(sent, Subspace)
    np.testing.assert_array_equal(sent.front, state.front)
    assert sent.space is None
    assert len(pickle.dumps(state)) < state.front.nbytes + 2000
    assert sweep.state_bytes(300) >= 16 * 300 * 15


@pytest.mark.parametrize("noise", ["poisson", None])
@pytest.mark.parametrize("dense", [True, False])
def test_the_same_bits_on_threads_and_processes(noise, dense, cluster_client):
    values = da.from_array(counts(level=4.0 if dense else 0.1), chunks=(70, -1))

    def fit():
        model = em.IncrementalPCA(4, noise=noise, svd_solver="randomized", random_state=0)
        return model.fit(values)

    fits = []
    for n in (1, 2, 4):
        with use_threads(n):
            fits.append(fit())
    with cluster_client.as_current():
        fits.append(fit())
    for other in fits[1:]:
        np.testing.assert_array_equal(other.components_, fits[0].components_)
        np.testing.assert_array_equal(other.angle_, fits[0].angle_)
