"""Alternating least squares against a slow and obvious twin; curves of one peak against all of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn.isotonic import isotonic_regression

import emcube as em
from emcube.kernels.unimodal import unimodal
from emcube.models.mcr_sweeps import Constraints, spectra_step


def naive_unimodal(values, weights, positive):
    """The best of a rising and a falling fit, for each place of the peak."""
    low = 0.0 if positive else None
    best, answer = np.inf, None
    for peak in range(len(values) + 1):
        parts = []
        if peak:
            parts.append(
                isotonic_regression(values[:peak], sample_weight=weights[:peak], y_min=low)
            )
        if peak < len(values):
            parts.append(
                isotonic_regression(
                    values[peak:], sample_weight=weights[peak:], y_min=low, increasing=False
                )
            )
        curve = np.concatenate(parts)
        error = float(weights @ np.square(values - curve))
        if error < best - 1e-12:
            best, answer = error, curve
    return answer, best


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_curves_of_one_peak_are_the_best_of_all(positive, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=17) + (2 * np.exp(-((np.arange(17) - 8) ** 2) / 20) if seed else 0)
    weights = rng.uniform(0.2, 2.0, 17)
    found = unimodal(values, weights, positive=positive)
    _, best = naive_unimodal(values, weights, positive)
    assert float(weights @ np.square(values - found)) == pytest.approx(best, abs=1e-10)
    top = int(np.argmax(found))
    assert (np.diff(found[: top + 1]) >= -1e-12).all()
    assert (np.diff(found[top:]) <= 1e-12).all()
    assert not positive or found.min() >= 0


def test_a_curve_of_one_peak_stays_as_it_is():
    values = np.array([0.0, 1.0, 3.0, 3.0, 2.0, 0.5])
    np.testing.assert_array_equal(unimodal(values, np.ones(6), positive=True), values)
    np.testing.assert_array_equal(unimodal(-values, np.ones(6), positive=True), 0.0)


def naive_als(counts, spectra, rounds, *, fixed=0):
    """Weighted ALS on the projection of the data onto their K leading weighted singular vectors."""
    d = counts.astype(float)
    g, h, n = d.sum(axis=1), d.sum(axis=0), d.sum()
    scale = np.sqrt(n / np.where(h == 0, 1, h))
    x = d * scale / np.sqrt(g)[:, None]
    k = len(spectra)
    vectors = np.linalg.svd(x, full_matrices=False)[2][:k]
    x = x @ vectors.T @ vectors
    left = []
    for _ in range(rounds):
        weighted = spectra * scale
        # A pixel's loadings over the root of its total.
        loadings = np.array([nnls(weighted.T, row)[0] for row in x])
        left.append(float(np.square(x - loadings @ weighted).sum()))
        best = spectra
        known = loadings[:, :fixed] @ weighted[:fixed]
        new = np.array([nnls(loadings[:, fixed:], column)[0] for column in (x - known).T]).T / scale
        spectra = np.concatenate((spectra[:fixed], new))
        spectra = spectra / spectra.sum(axis=1, keepdims=True)
    return best, np.sqrt(np.array(left) / np.square(x).sum())


@pytest.mark.parametrize("fixed", [0, 1])
def test_rounds_are_those_of_the_twin(fixed):
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.full(25, 0.4), 3)
    counts = rng.poisson(400 * rng.dirichlet(np.full(3, 0.5), 150) @ true)
    counts[:, 5] = 0
    start = rng.dirichlet(np.full(25, 2.0), 3)
    start[:, 5] = 0
    start /= start.sum(axis=1, keepdims=True)
    known = start[:fixed] if fixed else None
    model = em.MCRALS(3, init=start, known=known, pool=1, tol=0.0, max_iter=6, random_state=0).fit(
        counts
    )
    expected, path = naive_als(counts, start, 6, fixed=fixed)
    np.testing.assert_allclose(model.lack_of_fit_path_, path, rtol=1e-6)
    found = model.components_
    for one in expected:
        assert np.abs(found - one).max(axis=1).min() < 1e-7
    if fixed:
        np.testing.assert_allclose(found[0], start[0], rtol=1e-12)


def test_spectra_are_the_least_squares_of_the_loadings():
    rng = np.random.default_rng(1)
    loadings = rng.gamma(1.0, size=(40, 3))
    data = loadings @ rng.dirichlet(np.full(15, 0.5), 3) + 0.02 * rng.normal(size=(40, 15))
    start = rng.dirichlet(np.full(15, 1.0), 3)
    gram, products = loadings.T @ loadings, loadings.T @ data
    bounded = spectra_step(start, gram, products, np.ones(15), 0, Constraints())
    expected = np.array([nnls(loadings, column)[0] for column in data.T]).T
    np.testing.assert_allclose(bounded, expected / expected.sum(axis=1, keepdims=True), atol=1e-9)
    free = spectra_step(start, gram, products, np.ones(15), 0, Constraints(spectra=False))
    expected = np.linalg.lstsq(loadings, data, rcond=None)[0]
    np.testing.assert_allclose(free, expected / expected.sum(axis=1, keepdims=True), atol=1e-9)
