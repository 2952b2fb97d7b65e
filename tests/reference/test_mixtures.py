"""Kernels of mixtures against slow, obvious twins."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multinomial, multivariate_normal

from emcube.kernels import mixtures as kernel
from emcube.kernels.kmeans import take
from emcube.kernels.mixtures import Categories, Gaussians
from emcube.kernels.rows import rows_from_dense


def some_pixels(n=60, f=3):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n, f)) + 2.0 * rng.integers(0, 2, (n, 1))
    weights = rng.gamma(2.0, size=n)
    weights[[3, 40]] = 0.0
    return values, weights


def some_gaussians(kind, k=3, f=3):
    rng = np.random.default_rng(1)
    shares, means = rng.dirichlet(np.ones(k)), rng.normal(size=(k, f))
    if kind == "diag":
        return Gaussians.of(kind, shares, means, rng.gamma(2.0, size=(k, f)))
    roots = rng.normal(size=(1 if kind == "tied" else k, f, f))
    return Gaussians.of(kind, shares, means, roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(f))


def whole_covariances(model):
    """(K, F, F), whatever the kind."""
    k, f = model.means.shape
    if model.kind == "diag":
        return np.stack([np.diag(v) for v in model.covariances])
    return np.broadcast_to(model.covariances, (k, f, f))


def naive_posterior(values, weights, model):
    k = len(model.shares)
    posterior, evidence = np.zeros((len(values), k)), np.zeros(len(values))
    for p, (x, w) in enumerate(zip(values, weights, strict=True)):
        if w == 0:
            continue
        logs = [
            np.log(model.shares[j])
            + multivariate_normal(model.means[j], whole_covariances(model)[j] / w).logpdf(x)
            for j in range(k)
        ]
        evidence[p] = logsumexp(logs)
        posterior[p] = np.exp(np.array(logs) - evidence[p])
    return posterior, evidence


def naive_step(values, weights, posterior, kind, ridge):
    """Shares, means and covariances (K, F, F) of the largest expected likelihood."""
    n, k = posterior.shape
    f = values.shape[1]
    counts = np.array([posterior[:, j].sum() for j in range(k)])
    means, covariances = np.zeros((k, f)), np.zeros((k, f, f))
    for j in range(k):
        w = posterior[:, j] * weights
        means[j] = sum(w[p] * values[p] for p in range(n)) / w.sum()
        for p in range(n):
            apart = values[p] - means[j]
            covariances[j] += w[p] * np.outer(apart, apart)
    if kind == "tied":
        covariances[:] = covariances.sum(axis=0) / counts.sum()
    else:
        covariances /= counts[:, None, None]
    if kind == "diag":
        covariances *= np.eye(f)
    return counts / counts.sum(), means, covariances + ridge * np.eye(f)


@pytest.mark.parametrize("kind", kernel.KINDS)
def test_posterior_and_step_of_gaussians(kind):
    values, weights = some_pixels()
    model = some_gaussians(kind)
    posterior, evidence = kernel.gaussian_posterior(values, weights, model)
    expected, logs = naive_posterior(values, weights, model)
    np.testing.assert_allclose(posterior, expected, atol=1e-12)
    np.testing.assert_allclose(evidence, logs, atol=1e-12)
    sums = kernel.gaussian_sums(values, weights, model)
    assert sums.n_pixels == 58
    assert sums.log_likelihood == pytest.approx(logs.sum())
    new = kernel.maximised(sums, model.means, kind, 1e-3, model)
    shares, means, covariances = naive_step(values, weights, expected, kind, 1e-3)
    np.testing.assert_allclose(new.shares, shares)
    np.testing.assert_allclose(new.means, means)
    np.testing.assert_allclose(whole_covariances(new), covariances)


@pytest.mark.parametrize("kind", kernel.KINDS)
def test_sums_add_and_move(kind):
    """Halves make the whole, and sums about one place are those about another."""
    values, weights = some_pixels()
    model = some_gaussians(kind)
    whole = kernel.gaussian_sums(values, weights, model)
    halves = kernel.gaussian_sums(values[:25], weights[:25], model) + kernel.gaussian_sums(
        values[25:], weights[25:], model
    )
    for name in ("counts", "weights", "first", "second", "log_likelihood"):
        np.testing.assert_allclose(getattr(halves, name), getattr(whole, name))
    move = np.random.default_rng(2).normal(size=model.means.shape)
    moved = whole.about(move)
    a = kernel.maximised(moved, model.means + move, kind, 0.1, None)
    b = kernel.maximised(whole, model.means, kind, 0.1, None)
    np.testing.assert_allclose(a.means, b.means)
    np.testing.assert_allclose(a.covariances, b.covariances, atol=1e-12)


@pytest.mark.parametrize("kind", kernel.KINDS)
def test_hard_sums_are_those_of_the_nearest_centers(kind):
    values, weights = some_pixels()
    centers = np.random.default_rng(3).normal(size=(3, 3))
    sums = kernel.hard_gaussian_sums(values, weights, centers, kind)
    posterior = np.zeros((60, 3))
    for p, x in enumerate(values):
        posterior[p, np.argmin([np.square(x - c).sum() for c in centers])] = weights[p] > 0
    new = kernel.maximised(sums, centers, kind, 1e-3, None)
    shares, means, covariances = naive_step(values, weights, posterior, kind, 1e-3)
    np.testing.assert_allclose(new.shares, shares)
    np.testing.assert_allclose(new.means, means)
    np.testing.assert_allclose(whole_covariances(new), covariances)


@pytest.mark.parametrize("kind", kernel.KINDS)
def test_a_cluster_that_nobody_belongs_to_keeps_its_place(kind):
    values, weights = some_pixels()
    centers = np.array([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [1e3, 1e3, 1e3]])
    first = kernel.maximised(
        kernel.hard_gaussian_sums(values, weights, centers, kind), centers, kind, 1e-6, None
    )
    assert first.shares[2] == 0
    np.testing.assert_array_equal(first.means[2], centers[2])
    again = kernel.maximised(
        kernel.gaussian_sums(values, weights, first), first.means, kind, 1e-6, first
    )
    np.testing.assert_array_equal(again.means[2], centers[2])
    assert np.isfinite(again.covariances).all()


@pytest.mark.parametrize("sparse", [True, False])
def test_posterior_and_sums_of_counts(sparse):
    rng = np.random.default_rng(0)
    spectra = rng.dirichlet(np.full(12, 0.5), 3)
    counts = np.concatenate([rng.poisson(20 * s, (30, 12)) for s in spectra]).astype(np.uint8)
    counts[[5, 50]] = 0
    shares = np.array([0.5, 0.3, 0.2])
    cells = rows_from_dense(counts) if sparse else counts.astype(np.float32)
    model = Categories(shares, np.log(spectra))
    posterior, evidence = kernel.category_posterior(cells, model)
    for p, x in enumerate(counts):
        if not x.any():
            assert not posterior[p].any()
            assert evidence[p] == 0
            continue
        logs = [multinomial.logpmf(x, x.sum(), s) for s in spectra] + np.log(shares)
        np.testing.assert_allclose(posterior[p], np.exp(logs - logsumexp(logs)), atol=1e-9)
        # Up to the coefficient, which is the same for all clusters.
        coefficient = multinomial.logpmf(x, x.sum(), spectra[0]) - float(x @ np.log(spectra[0]))
        assert evidence[p] == pytest.approx(logsumexp(logs) - coefficient)
    sums = kernel.category_sums(cells, model)
    expected = sum(np.outer(r, x.astype(float)) for r, x in zip(posterior, counts, strict=True))
    np.testing.assert_allclose(sums.spectra, expected)
    np.testing.assert_allclose(sums.counts, posterior.sum(axis=0))
    assert sums.n_pixels == 88
    assert sums.log_likelihood == pytest.approx(evidence.sum())
    half = np.arange(40)
    both = kernel.category_sums(take(cells, half), model) + kernel.category_sums(
        take(cells, np.arange(40, 90)), model
    )
    np.testing.assert_allclose(both.spectra, sums.spectra)


def test_hard_sums_of_counts_leave_out_what_has_no_label():
    counts = np.random.default_rng(0).poisson(2.0, (20, 6)).astype(np.uint8)
    labels = (np.arange(20) % 4 - 1).astype(np.int32)
    sums = kernel.hard_category_sums(rows_from_dense(counts), labels, 3)
    for k in range(3):
        np.testing.assert_array_equal(sums.spectra[k], counts[labels == k].sum(axis=0))
    np.testing.assert_array_equal(sums.counts, [5, 5, 5])
    assert sums.n_pixels == 15
