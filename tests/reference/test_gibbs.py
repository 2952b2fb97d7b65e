"""Gibbs kernels against distributions known in closed form, and convergence measures against slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from emcube.kernels import gibbs as kernel
from emcube.kernels.convergence import effective_size, split_r_hat
from emcube.kernels.rows import rows_from_dense


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, np.inf), (-0.3, 0.4), (-4.0, 3.0), (2.5, np.inf), (2.0, 2.3), (-9.0, -3.0)]
)
def test_normal_numbers_between_bounds(low, high):
    draws = kernel.between(0.5, 2.0, low, high, 20000, 7)
    known = stats.truncnorm((low - 0.5) / 2, (high - 0.5) / 2, 0.5, 2.0)
    assert draws.min() >= low
    assert draws.max() <= high
    assert stats.kstest(draws, known.cdf).pvalue > 1e-3


def grid_posterior(x, spectra, rates, shape, n=400, most=60.0):
    """Means, variances of two loadings, by summing the posterior on a grid."""
    h = (np.arange(n) + 0.5) * most / n
    a, b = np.meshgrid(h, h, indexing="ij")
    logs = (shape - 1) * (np.log(a) + np.log(b)) - (1 + rates[0]) * a - (1 + rates[1]) * b
    for count, s, t in zip(x, *spectra, strict=True):
        logs = logs + count * np.log(a * s + b * t)
    p = np.exp(logs - logs.max())
    p /= p.sum()
    means = np.array([(p * a).sum(), (p * b).sum()])
    squares = np.array([(p * a * a).sum(), (p * b * b).sum()])
    return means, squares - means**2


@pytest.mark.parametrize("shape", [1.0, 2.0])
def test_loadings_of_counts_have_the_right_posterior(shape):
    spectra = np.array([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])
    rates = np.array([0.05, 0.2])
    pixels = np.array([[9, 6, 2], [0, 0, 3], [0, 0, 0]], np.uint8)
    for x in pixels:
        rows = rows_from_dense(np.repeat(x[None], 500, axis=0))
        stream = kernel.streams((3, 1), 500)
        loadings = np.ones((500, 2))
        kernel.poisson_draws(rows, spectra, loadings, rates, stream, shape=shape, n_steps=50)
        moments = np.zeros((3, 500, 2))
        kernel.poisson_draws(
            rows, spectra, loadings, rates, stream, shape=shape, n_steps=40, moments=moments
        )
        mean, square, own = moments.mean(axis=1) / 40
        expected, variance = grid_posterior(x, spectra, rates, shape)
        np.testing.assert_allclose(mean, expected, rtol=0.03, atol=0.02)
        np.testing.assert_allclose(own + square - mean**2, variance, rtol=0.08, atol=0.02)


def test_laplace_starts_near_the_posterior():
    """Three steps from there the loadings are where many steps lead."""
    rng = np.random.default_rng(0)
    spectra = rng.dirichlet(np.full(30, 0.6), 3)
    spectra = 0.5 * spectra + 0.5 * spectra.mean(axis=0)
    x = rng.poisson(np.array([40.0, 20.0, 0.0]) @ spectra).astype(np.uint8)
    rows = rows_from_dense(np.repeat(x[None], 4000, axis=0))
    from emcube.kernels.poisson_nmf import poisson_loadings

    modes, rates = poisson_loadings(rows, spectra), np.full(3, 0.05)
    stream = kernel.streams((5,), 4000)
    few = kernel.scattered(rows, spectra, modes, rates, stream)
    kernel.poisson_draws(rows, spectra, few, rates, stream, n_steps=3)
    many = few.copy()
    kernel.poisson_draws(rows, spectra, many, rates, stream, n_steps=200)
    deviation = many.std(axis=0)
    assert (np.abs(few.mean(axis=0) - many.mean(axis=0)) < 0.25 * deviation).all()
    np.testing.assert_allclose(few.std(axis=0), deviation, rtol=0.2)


def test_counts_are_given_away_whole():
    counts = np.random.default_rng(0).poisson(2.0, (50, 12)).astype(np.uint8)
    rows = rows_from_dense(counts)
    spectra = np.random.default_rng(1).dirichlet(np.ones(12), 3)
    counted = np.zeros((12, 3))
    kernel.poisson_draws(
        rows, spectra, np.ones((50, 3)), np.full(3, 0.1), kernel.streams((1,), 50), counted=counted
    )
    np.testing.assert_array_equal(counted.sum(axis=1), counts.sum(axis=0))
    np.testing.assert_array_equal(counted, np.rint(counted))


def test_positive_loadings_of_dense_values():
    """One component: the cut normal. Two: a grid."""
    spectra = np.array([[1.0, 0.5, 0.0], [0.2, 0.5, 1.0]])
    x = np.array([0.9, 0.6, 0.1])
    products, gram = np.repeat((spectra @ x)[None], 500, axis=0), spectra @ spectra.T
    loadings, draws = np.ones((500, 2)), np.zeros((40, 500, 2))
    stream = kernel.streams((2,), 500)
    kernel.gaussian_draws(products, gram, 0.04, loadings, stream, simplex=False, n_steps=30)
    kernel.gaussian_draws(
        products, gram, 0.04, loadings, stream, simplex=False, n_steps=40, draws=draws
    )
    h = (np.arange(500) + 0.5) * 2.5 / 500
    a, b = np.meshgrid(h, h, indexing="ij")
    left = sum((v - a * s - b * t) ** 2 for v, s, t in zip(x, *spectra, strict=True))
    p = np.exp(-0.5 * (left - left.min()) / 0.04)
    p /= p.sum()
    expected = [(p * a).sum(), (p * b).sum()]
    np.testing.assert_allclose(draws.mean(axis=(0, 1)), expected, rtol=0.03)


def test_loadings_on_the_simplex():
    spectra = np.array([[1.0, 0.5, 0.0], [0.2, 0.5, 1.0]])
    x = np.array([0.9, 0.5, 0.1])
    products, gram = np.repeat((spectra @ x)[None], 500, axis=0), spectra @ spectra.T
    loadings, draws = np.full((500, 2), 0.5), np.zeros((40, 500, 2))
    stream = kernel.streams((2,), 500)
    kernel.gaussian_draws(
        products, gram, 0.09, loadings, stream, simplex=True, n_steps=40, draws=draws
    )
    np.testing.assert_allclose(draws.sum(axis=-1), 1.0, atol=1e-12)
    a = (np.arange(2000) + 0.5) / 2000
    left = ((x[:, None] - a * spectra[0][:, None] - (1 - a) * spectra[1][:, None]) ** 2).sum(axis=0)
    p = np.exp(-0.5 * (left - left.min()) / 0.09)
    assert draws[5:, :, 0].mean() == pytest.approx((p * a).sum() / p.sum(), rel=0.02)


def test_streams_hang_on_the_content_alone():
    counts = np.random.default_rng(0).poisson(0.5, (30, 9)).astype(np.uint8)
    counts[7] = counts[3]
    rows = rows_from_dense(counts)
    first = kernel.content_streams(1, rows)
    assert first[7] == first[3]
    assert np.unique(first).size == np.unique(counts, axis=0).shape[0]
    np.testing.assert_array_equal(kernel.content_streams(1, rows.take(np.arange(5, 9))), first[5:9])
    assert (kernel.content_streams(2, rows) != first).all()
    dense = kernel.content_streams(1, counts.astype(np.float32))
    np.testing.assert_array_equal(dense[5:9], kernel.content_streams(1, counts[5:9].astype(float)))


def naive_r_hat(draws):
    half = draws.shape[1] // 2
    chains = [c for d in draws for c in (d[:half], d[len(d) - half :])]
    within = np.mean([np.var(c, ddof=1) for c in chains])
    between = half * np.var([np.mean(c) for c in chains], ddof=1)
    return np.sqrt(((half - 1) / half * within + between / half) / within)


def test_r_hat_and_effective_size():
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(2, 40)) + np.array([[0.0], [3.0]])
    even = rng.normal(size=(4, 500))
    assert split_r_hat(apart) == pytest.approx(naive_r_hat(apart))
    assert split_r_hat(apart) > 1.5
    assert split_r_hat(even) == pytest.approx(1.0, abs=0.02)
    assert effective_size(even) == pytest.approx(2000, rel=0.2)
    slow = np.zeros((4, 2000))
    for i in range(1, 2000):
        slow[:, i] = 0.8 * slow[:, i - 1] + rng.normal(size=4)
    # Of an autoregression: (1 - 0.8) / (1 + 0.8).
    assert effective_size(slow) == pytest.approx(8000 / 9, rel=0.25)
    both = split_r_hat(np.stack([even, np.zeros((4, 500))], axis=-1))
    assert both.shape == (2,)
    assert np.isnan(both[1])
