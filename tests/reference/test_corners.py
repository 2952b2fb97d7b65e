"""VCA, N-FINDR and constrained least squares against slow and obvious twins."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from emcube.kernels.corners import log_volume, n_finder, shares_of, vertex_components
from emcube.kernels.fcls import constrained_shares


def cloud(n: int, k: int, seed: int = 0):
    """Mixtures of k corners in the plane where the first coordinate is one."""
    rng = np.random.default_rng(seed)
    corners = np.column_stack([np.ones(k), rng.normal(size=(k, k - 1))])
    points = rng.dirichlet(np.full(k, 0.7), n) @ corners
    return corners, points, np.ones(n), np.zeros(n)


def naive_vca(points, k, rng):
    """Nascimento and Bioucas-Dias 2005, with projections by pseudo-inverses."""
    known = points.mean(axis=0)[:, None]
    chosen = []
    for _ in range(k):
        drawn = rng.standard_normal(points.shape[1])
        direction = drawn - known @ np.linalg.pinv(known) @ drawn
        far = max(range(len(points)), key=lambda i: abs(points[i] @ direction))
        chosen.append(far)
        known = points[chosen].T
    return chosen


def best_of_all(points, k):
    """The k points of the largest simplex, by trying all."""
    return max(combinations(range(len(points)), k), key=lambda c: log_volume(points[list(c)]))


def naive_fcls(x, spectra, weights, total):
    """The best of the constrained minima on all supports."""
    k = len(spectra)
    best, answer = np.inf, None
    for n in range(1, k + 1):
        for support in combinations(range(k), n):
            s = spectra[list(support)]
            system = np.zeros((n + 1, n + 1))
            system[:n, :n] = (s * weights) @ s.T
            system[:n, n] = system[n, :n] = 1.0
            found = np.linalg.lstsq(system, np.append((s * weights) @ x, total), rcond=None)[0][:n]
            if found.min() < -1e-12:
                continue
            left = float(np.square(x - found @ s) @ weights)
            if left < best - 1e-12:
                best, answer = left, np.zeros(k)
                answer[list(support)] = found
    return answer


@pytest.mark.parametrize("k", [2, 3, 5])
def test_vca_takes_the_pixels_of_the_published_method(k):
    _, points, ones, none = cloud(300, k)
    found = vertex_components(
        points, ones, none, k, n_average=1, n_init=1, rng=np.random.default_rng(4)
    )
    expected = points[naive_vca(points, k, np.random.default_rng(4))]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_vca_of_pure_pixels_finds_them_all():
    corners, points, ones, none = cloud(500, 4)
    points[[3, 77, 204, 400]] = corners
    found = vertex_components(
        points, ones, none, 4, n_average=1, n_init=1, rng=np.random.default_rng(0)
    )
    for corner in corners:
        assert np.abs(found - corner).max(axis=1).min() < 1e-12


@pytest.mark.parametrize("k", [2, 3, 4])
def test_n_findr_ends_where_no_replacement_helps(k):
    _, points, ones, _ = cloud(22, k, seed=k)
    rng = np.random.default_rng(0)
    best = -np.inf
    for _ in range(8):
        first = points[rng.choice(len(points), k, replace=False)]
        found, sweeps, done = n_finder(points, ones, first, n_average=1)
        assert done
        assert sweeps >= 1
        assert np.abs(shares_of(points, found)).max() <= 1 + 1e-8
        assert log_volume(found) >= log_volume(first) - 1e-12
        best = max(best, log_volume(found))
    assert best == pytest.approx(log_volume(points[list(best_of_all(points, k))]), abs=1e-9)


def test_means_of_several_points_span_a_smaller_simplex():
    _, points, ones, none = cloud(2000, 3)
    sizes = [
        log_volume(
            vertex_components(
                points, ones, none, 3, n_average=n, n_init=5, rng=np.random.default_rng(1)
            )
        )
        for n in (1, 20, 200)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_constrained_least_squares_is_the_best_of_all_supports(k):
    rng = np.random.default_rng(k)
    spectra = rng.dirichlet(np.full(12, 0.5), k)
    weights = rng.uniform(0.5, 2.0, 12)
    x = rng.dirichlet(np.full(k, 0.4), 60) @ spectra * 30 + rng.normal(size=(60, 12))
    totals = x.sum(axis=1)
    totals[7] = -1.0
    found = constrained_shares(x @ (spectra * weights).T, (spectra * weights) @ spectra.T, totals)
    assert (found[7] == 0).all()
    for i in np.flatnonzero(totals > 0):
        expected = naive_fcls(x[i], spectra, weights, totals[i])
        np.testing.assert_allclose(found[i], expected, atol=1e-7 * abs(totals[i]) + 1e-9)
    np.testing.assert_allclose(found[totals > 0].sum(axis=1), totals[totals > 0], rtol=1e-12)


def test_two_equal_components_do_not_fail():
    spectra = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    x = np.array([[3.0, 3.0, 0.0], [1.0, 2.0, 3.0]])
    found = constrained_shares(x @ spectra.T, spectra @ spectra.T, x.sum(axis=1))
    assert (found >= 0).all()
    np.testing.assert_allclose(found[0] @ spectra, x[0], atol=1e-6)
