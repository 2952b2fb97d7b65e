"""Sums of the diagnostics, and dealt counts, against what NumPy makes of dense arrays."""

from __future__ import annotations

import numpy as np
import pytest

from emcube.kernels.levels import level_edges, level_guide, level_sums
from emcube.kernels.misfit import lagged, residual_slab
from emcube.kernels.resampling import ONE_BY_ONE, split
from emcube.kernels.rows import rows_from_dense


def test_what_is_left_is_summed_as_it_would_be_by_hand():
    rng = np.random.default_rng(0)
    loadings, components = rng.gamma(1.0, 20.0, (40, 3)), rng.dirichlet(np.ones(17), 3)
    loadings[rng.random(loadings.shape) < 0.3] = 0.0
    model = loadings @ components
    values = rng.poisson(model).astype(float)
    rest, roots = values - model, rng.random(17)
    starts = np.array([0, 2, 3, 9])
    square, expected, along = np.ones(17), np.ones(17), np.zeros((4, 3))
    grouped = np.empty((40, 4))
    residual_slab(
        values.copy(), loadings, components, starts, roots, square, expected, along, grouped
    )
    np.testing.assert_allclose(square, 1.0 + np.square(rest).sum(axis=0))
    np.testing.assert_allclose(expected, 1.0 + model.sum(axis=0))
    np.testing.assert_allclose(grouped, np.add.reduceat(rest, starts, axis=1), atol=1e-12)
    for lag in range(1, 5):
        a, b = (rest * roots)[:, :-lag], (rest * roots)[:, lag:]
        product = (a * b).sum(axis=1)
        mean = 0.5 * (np.square(a) + np.square(b)).sum()
        by_hand = product.sum(), np.square(product).sum(), mean
        np.testing.assert_allclose(along[lag - 1], by_hand, rtol=1e-9)
    # Fewer channels than lags say nothing of the others.
    narrow = np.zeros((6, 3))
    residual_slab(
        values[:, :3].copy(),
        loadings,
        np.ascontiguousarray(components[:, :3]),
        starts[:2],
        roots[:3],
        square[:3],
        expected[:3],
        narrow,
        grouped[:, :2].copy(),
    )
    assert (narrow[2:] == 0.0).all()
    assert (narrow[:2, 2] > 0.0).all()


def test_squares_that_are_known_change_nothing():
    rng = np.random.default_rng(0)
    rest, used = rng.normal(size=(7, 5, 3)), rng.random((7, 5)) > 0.2
    squares = np.square(rest).sum(axis=-1)
    for axis, lag in ((0, 1), (1, 2)):
        np.testing.assert_allclose(
            lagged(rest, used, axis, lag, squares=squares), lagged(rest, used, axis, lag)
        )


def test_levels_hold_the_cells_that_belong_to_them():
    rng = np.random.default_rng(0)
    n_pixels, n_channels, k = 50, 31, 2
    scores, vectors = rng.normal(size=(2, n_pixels, k)), rng.normal(size=(2, k, n_channels))
    vectors *= 10.0 ** rng.uniform(-4.0, 3.0, n_channels)  # over all levels and beyond both ends
    factors, shares = rng.random((2, n_pixels)) + 1.0, rng.random((2, n_pixels))
    weights, expected = rng.random((2, n_channels)), rng.random(n_channels)
    totals = rng.random(n_pixels) * 100.0
    counts = rng.poisson(0.7, (n_pixels, n_channels))
    rows = rows_from_dense(counts.astype(np.uint16))
    edges = np.append(level_edges(1e-3, 5.0, 24), np.inf)
    out = np.zeros((25, 6))
    level_sums(
        scores,
        shares,
        factors,
        vectors,
        weights,
        expected,
        rows.indptr,
        rows.channels,
        rows.counts,
        totals,
        edges,
        *level_guide(edges),
        out,
    )
    one, two = ((scores[i] * factors[i][:, None]) @ vectors[i] for i in (0, 1))
    level = np.searchsorted(edges, 0.5 * (one + two), side="right")
    assert set(level.ravel()) == set(range(25))
    hoped = totals[:, None] * expected
    u, v = shares[..., None], weights[:, None]
    theory = (u + v - u * v).mean(axis=0)
    each = np.ones_like(one), one, counts, 0.5 * np.square(one - two), theory * hoped, hoped
    for column, values in enumerate(each):
        by_hand = np.bincount(level.ravel(), values.ravel(), minlength=25)
        np.testing.assert_allclose(out[:, column], by_hand, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shares", [(0.5, 0.3), (0.5, 0.5)])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_dealt_counts_are_binomial_and_add_up(dtype, shares):
    """Parts of one deal, few counts and many: shares, variances and what they have in common."""
    rng = np.random.default_rng(0)
    means = np.array([0.5, 4.0, ONE_BY_ONE, 60.0])
    counts = rng.poisson(np.tile(means, (20_000, 1))).astype(dtype)
    rows = rows_from_dense(counts)
    parts = split(rows, shares, np.random.default_rng(1))
    first, second = (part.to_dense() for part in parts)
    rest = counts - first - second
    assert (rest >= 0).all()
    told = [(first, shares[0]), (second, shares[1]), (rest, 1.0 - sum(shares))]
    for part, share in told[: 3 if rest.any() else 2]:
        error = np.sqrt(share * means / len(counts))
        assert (np.abs(part.mean(axis=0) - share * means) < 5.0 * error).all()
        # Poisson: the variance is the mean.
        np.testing.assert_allclose(part.var(axis=0), share * means, rtol=0.06)
    for a, b in ((first, second), (first, rest))[: 2 if rest.any() else 1]:
        together = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)]
        assert np.abs(together).max() < 5.0 / np.sqrt(len(counts))
    for i, part in enumerate((first, second)):
        (alone,) = split(rows, shares, np.random.default_rng(1), only=i)
        np.testing.assert_array_equal(alone.to_dense(), part)


def test_all_counts_are_dealt_where_shares_sum_to_one():
    counts = np.random.default_rng(0).poisson(3.0, (500, 9)).astype(np.uint16)
    rows = rows_from_dense(counts)
    parts = split(rows, (0.1,) * 10, np.random.default_rng(0))
    np.testing.assert_array_equal(sum(part.to_dense() for part in parts), counts)


def test_whole_parts_of_other_values_are_dealt():
    rows = rows_from_dense(np.array([[2, 0, 40], [1, 1, 0]], dtype=np.uint16))
    values = type(rows)(rows.indptr, rows.channels, rows.counts + 0.75, rows.n_channels)
    first, second = split(values, (0.5, 0.5), np.random.default_rng(0))
    np.testing.assert_array_equal(first.to_dense() + second.to_dense(), rows.to_dense())
