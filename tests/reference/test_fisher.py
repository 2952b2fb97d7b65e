"""Fisher information, score intervals and measurements made again, against slow and obvious twins."""

from __future__ import annotations

import numpy as np
import pytest

from emcube.kernels.fisher import (
    CLAIM,
    HALF,
    component_information,
    component_shares,
    flat_intervals,
    poisson_intervals,
    shared_variance,
    unpacked,
)
from emcube.kernels.resampling import (
    area_index,
    area_shape,
    drawn_again,
    flipped,
    split,
    weighed,
)
from emcube.kernels.rows import rows_from_dense


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(4)
    components = rng.dirichlet(np.full(20, 0.6), 3)
    loadings = rng.gamma(1.0, 20.0, (30, 3))
    loadings[:5, 0] = 0.0
    loadings[5:8, 1:] = 0.0
    loadings[8] = 0.0
    return components, loadings


def naive_interval(h, components, z, shared, moved):
    """One pixel: a loop for each loading, the information as it is written, the quadratic solved."""
    mu = (h + HALF) @ components
    out = np.zeros((len(h), 3))
    for k in range(len(h)):
        free = [j for j in range(len(h)) if j == k or h[j] > 0]
        s = components[free]
        information = (s / mu) @ s.T
        inverse = np.linalg.inv(information)
        a = inverse[free.index(k)] @ (s / mu)  # the weights of the estimate of loading k
        variance = (a * a * (h @ components)).sum() + shared[k]
        slope = (a * a * components[k]).sum()
        low, high = sorted(np.roots([1.0, -z * z * slope, -z * z * variance]).real)
        claimed = variance + (CLAIM - 1) * shared[k]
        there = h[k] + min(np.roots([1.0, -z * z * slope, -z * z * claimed]).real)
        there -= CLAIM * moved[k]
        low = max(h[k] + low - moved[k], 0.0) if there > 0 else 0.0
        out[k] = np.sqrt(inverse[free.index(k), free.index(k)]), low, h[k] + high + moved[k]
    return out


def test_loadings_intervals_are_those_of_the_formulas(parts):
    components, loadings = parts
    shared = np.abs(np.random.default_rng(0).normal(size=loadings.shape))
    moved = np.abs(np.random.default_rng(1).normal(size=loadings.shape))
    found = poisson_intervals(loadings, components, 1.645, shared, moved)
    for p in range(len(loadings)):
        expected = naive_interval(loadings[p], components, 1.645, shared[p], moved[p])
        np.testing.assert_allclose(found[p], expected, rtol=1e-6, atol=1e-8)


def test_one_component_has_wilsons_interval():
    h = np.array([[0.0], [3.0], [50.0]])
    z = 1.645
    found = poisson_intervals(h, np.full((1, 7), 1 / 7), z, np.zeros_like(h))
    middle = h[:, 0] + z * z / 2
    half = z * np.sqrt(h[:, 0] + z * z / 4)
    np.testing.assert_allclose(found[:, 0, 1], np.maximum(middle - half, 0), atol=1e-9)
    np.testing.assert_allclose(found[:, 0, 2], middle + half, rtol=1e-9)
    np.testing.assert_allclose(found[:, 0, 0], np.sqrt(h[:, 0] + HALF), rtol=1e-9)


def test_least_squares_has_the_textbook_covariance(parts):
    components, loadings = parts
    found = flat_intervals(loadings, components, 2.0, np.zeros_like(loadings), 0.3)
    for h, one in zip(loadings, found, strict=True):
        free = np.flatnonzero(h > 0)
        if free.size == 3:
            sd = np.sqrt(0.3 * np.diagonal(np.linalg.inv(components @ components.T)))
            np.testing.assert_allclose(one[:, 0], sd, rtol=1e-6)
            np.testing.assert_allclose(one[:, 2], h + 2 * sd, rtol=1e-6)


def test_information_of_the_components_is_the_sum_over_pixels(parts):
    components, loadings = parts
    naive = np.zeros((20, 3, 3))
    for h in loadings:
        if h.sum() > 0:
            mu = h @ components
            for e in range(20):
                naive[e] += np.outer(h, h) / mu[e]
    found = unpacked(component_information(loadings, components), 3)
    np.testing.assert_allclose(found, naive, rtol=1e-10)


def test_variances_are_those_of_repeated_measurements(parts):
    """Components of known loadings, fitted to many draws by weighted least squares in each channel."""
    components, loadings = parts
    loadings = loadings[9:] * 30.0
    information = unpacked(component_information(loadings, components), 3)
    covariance, variance = component_shares(information, components)
    rng = np.random.default_rng(1)
    mu = loadings @ components
    draws = rng.poisson(mu, (3000, *mu.shape))
    fits = np.empty((3000, 3, 20))
    for e in range(20):
        weighted = loadings / mu[:, e : e + 1]
        solver = np.linalg.solve(weighted.T @ loadings, weighted.T)
        fits[:, :, e] = draws[:, :, e] @ solver.T
    big = components > 0.01
    own = np.einsum("ekk->ke", covariance)
    np.testing.assert_allclose(fits.var(axis=0)[big], own[big], rtol=0.15)
    shares = fits / fits.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(shares.var(axis=0)[big], variance[big], rtol=0.15)
    # What these errors do to the loadings of one pixel, the data of which stay as they are.
    h, weights = np.array([50.0, 20.0, 80.0]), 1.0 / (loadings.mean(axis=0) @ components)
    quadratic = shared_variance(covariance, components, weights)
    expected = np.array([h @ q @ h for q in quadratic])
    pixel = h @ components
    solved = []
    for s in fits:
        weighted = s * weights
        solved.append(np.linalg.solve(weighted @ s.T, weighted @ pixel))
    np.testing.assert_allclose(np.var(solved, axis=0), expected, rtol=0.2)


def test_counts_drawn_again_are_poisson_about_the_counts():
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (400, 30)).astype(np.uint8)
    rows = rows_from_dense(counts)
    draws = np.array([drawn_again(rows, np.random.default_rng(i)).to_dense() for i in range(200)])
    assert (draws[:, counts == 0] == 0).all()
    for value in (1, 3, 6):
        some = draws[:, counts == value]
        assert some.mean() == pytest.approx(value, rel=0.02)
        assert some.var() == pytest.approx(value, rel=0.03)
    large = rows_from_dense(np.full((1, 1), 65530, dtype=np.uint16))
    drawn = [int(drawn_again(large, np.random.default_rng(i)).total()) for i in range(40)]
    assert max(drawn) > 65535  # wider, not wrapped


def test_thinned_parts_are_independent_poisson_and_add_up():
    rng = np.random.default_rng(0)
    counts = rng.poisson(20.0, (2000, 4)).astype(np.uint16)
    rows = rows_from_dense(counts)
    a, b = (part.to_dense() for part in split(rows, (0.5, 0.5), np.random.default_rng(5)))
    np.testing.assert_array_equal(a + b, counts)
    for part in (a, b):
        assert part.mean() == pytest.approx(10.0, rel=0.02)
        assert part.var() == pytest.approx(10.0, rel=0.08)
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.04
    c, d = (part.to_dense() for part in split(rows, (0.25, 0.25), np.random.default_rng(5)))
    assert (c + d <= counts).all()
    assert c.mean() == pytest.approx(5.0, rel=0.03)
    assert d.mean() == pytest.approx(5.0, rel=0.03)


def test_weights_count_pixels_as_often():
    counts = np.arange(12, dtype=np.uint8).reshape(4, 3)
    times = np.array([0, 1, 2, 3])
    found = weighed(rows_from_dense(counts), times, counts=True).to_dense()
    np.testing.assert_array_equal(found, counts * times[:, None])
    squares = weighed(counts.astype(float), times, counts=False)
    np.testing.assert_allclose(np.square(squares), np.square(counts) * times[:, None])


def test_flipped_residuals_keep_their_size():
    model = np.ones((50, 4))
    data = model + np.random.default_rng(0).normal(size=(50, 4))
    found = flipped(data, model, np.random.default_rng(1))
    np.testing.assert_allclose(np.abs(found - model), np.abs(data - model))
    assert 0.3 < np.mean(np.sign(found - model) == np.sign(data - model)) < 0.7


def test_areas_cover_the_field_evenly():
    assert area_shape((5, 40, 24)) == (1, 8, 8)
    assert area_shape((100,)) == (64,)
    assert area_shape((3, 2)) == (3, 2)
    y, x = np.mgrid[:40, :24]
    index = area_index(np.column_stack((y.ravel(), x.ravel())), (40, 24)).reshape(40, 24)
    sizes = np.bincount(index.ravel())
    assert sizes.size == 64
    assert (sizes == 15).all()
    assert (index[:5, :3] == 0).all()
