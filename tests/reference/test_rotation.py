"""Varimax and FastICA against slow and obvious twins, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import ortho_group
from sklearn.decomposition import FastICA

from emcube.kernels.rotation import independent, varimax, varimax_criterion


def naive_criterion(rows, gamma):
    total = 0.0
    for column in rows.T:
        total += np.mean(column**4) - gamma * np.mean(column**2) ** 2
    return total


def kaiser(rows, gamma=1.0):
    """Kaiser 1958: pairs of columns are turned in their plane by the best angle, found on a grid."""
    turned = rows.copy()
    k = rows.shape[1]
    for _ in range(60):
        for i in range(k):
            for j in range(i + 1, k):
                angles = np.linspace(-np.pi / 4, np.pi / 4, 721)
                for _ in range(4):
                    values = []
                    for a in angles:
                        pair = turned[:, [i, j]] @ [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
                        values.append(naive_criterion(pair, gamma))
                    best = angles[int(np.argmax(values))]
                    step = angles[1] - angles[0]
                    angles = np.linspace(best - step, best + step, 41)
                turn = [[np.cos(best), -np.sin(best)], [np.sin(best), np.cos(best)]]
                turned[:, [i, j]] = turned[:, [i, j]] @ turn
        if abs(best) < 1e-9:
            break
    return turned


@pytest.fixture(scope="module")
def simple():
    """Rows of simple structure, three columns, turned."""
    rng = np.random.default_rng(0)
    rows = np.eye(3)[rng.integers(0, 3, 120)] * rng.uniform(0.5, 1.5, (120, 1))
    rows += rng.normal(scale=0.05, size=rows.shape)
    return rows, rows @ ortho_group.rvs(3, random_state=1)


@pytest.mark.parametrize("gamma", [1.0, 0.0])
def test_varimax_is_as_high_as_kaisers_turns_of_pairs(simple, gamma):
    _, turned = simple
    rotation, _, converged = varimax(turned, gamma=gamma, tol=1e-14)
    assert converged
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    found = varimax_criterion(turned @ rotation, gamma)
    assert found == pytest.approx(naive_criterion(turned @ rotation, gamma), rel=1e-12)
    assert found >= naive_criterion(kaiser(turned, gamma), gamma) * (1 - 1e-6)


def test_varimax_undoes_a_rotation(simple):
    rows, turned = simple
    rotation, _, _ = varimax(turned)
    back = np.abs((turned @ rotation).T @ rows)
    back /= back.max(axis=1, keepdims=True)
    assert np.sort(back, axis=1)[:, :-1].max() < 0.1


def test_varimax_does_not_depend_on_units(simple):
    _, turned = simple
    first, _, _ = varimax(turned)
    second, _, _ = varimax(turned * 1e100)
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_one_step_that_is_all_says_that_it_did_not_converge(simple):
    _, turned = simple
    assert not varimax(turned, max_iter=1)[2]


@pytest.mark.parametrize("fun", ["logcosh", "exp", "cube"])
def test_independent_is_scikit_learns_answer(fun):
    rng = np.random.default_rng(0)
    rows = rng.laplace(size=(800, 3)) @ rng.normal(size=(3, 3)) * [1.0, 1e3, 1e-3]
    found, n_iter, converged = independent(rows, fun=fun, max_iter=500, tol=1e-10, seed=3)
    assert converged
    assert n_iter > 0
    # The same directions but for order and sign: of several starts the best is taken.
    peer = FastICA(3, fun=fun, max_iter=500, tol=1e-10, random_state=3, whiten="unit-variance")
    peer.fit(rows / rows.std(axis=0))
    between = found * rows.std(axis=0) @ np.linalg.inv(peer.components_)
    assert np.sort(np.abs(between), axis=1)[:, :-1].max() < 1e-5
    np.testing.assert_allclose(np.abs(between).max(axis=1), 1.0, rtol=1e-5)
    sources = rows @ found.T
    np.testing.assert_allclose(np.cov(sources.T, bias=True), np.eye(3), atol=1e-8)


def test_independent_directions_are_extremes_of_the_contrast():
    """No rotation in the plane of two sources makes both together less Gaussian."""
    rng = np.random.default_rng(1)
    rows = rng.laplace(size=(5000, 2)) @ [[1.0, 0.4], [-0.3, 1.0]]
    found, _, _ = independent(rows, fun="cube", max_iter=500, tol=1e-12, seed=0)
    sources = (rows - rows.mean(axis=0)) @ found.T

    def gaussian(a):
        turned = sources @ [[np.cos(a[0]), -np.sin(a[0])], [np.sin(a[0]), np.cos(a[0])]]
        return -float((turned**4).mean(axis=0).sum())

    best = minimize(gaussian, [0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
    assert abs(best.x[0]) < 1e-3


def test_too_few_steps_are_told_not_warned_of(monkeypatch):
    monkeypatch.setattr("emcube.kernels.rotation.FEW", 100)
    rows = np.random.default_rng(0).laplace(size=(300, 4))
    assert not independent(rows, fun="logcosh", max_iter=1, tol=1e-12, seed=0)[2]
