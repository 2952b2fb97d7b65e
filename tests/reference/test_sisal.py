"""The smallest simplex, as published and within noise, against slow and obvious twins."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import linprog, minimize

from emcube.kernels.bands import component_bands, grouped_channels
from emcube.kernels.corners import log_volume, shares_of, vertex_components
from emcube.kernels.extremes import extreme_turns, slack_of
from emcube.kernels.facets import NODES, NoisyCloud, deficits, smallest_within_noise
from emcube.kernels.interior import Interior
from emcube.kernels.sisal import smallest_simplex


def capped(k: int, n: int = 400, seed: int = 0, cap: float = 0.8):
    """Mixtures, none of which is pure, of k corners in the plane where the first coordinate is one."""
    rng = np.random.default_rng(seed)
    corners = np.column_stack([np.ones(k), 3.0 * np.eye(k)[:, 1:] + rng.normal(size=(k, k - 1))])
    shares = rng.dirichlet(np.full(k, 0.5), 6 * n)
    shares = shares[shares.max(axis=1) < cap][:n]
    return corners, shares @ corners


def naive_mvsa(points, first):
    """Li et al. 2015: maximise |det Q| with all shares >= 0 and Q 1 = 1, by a general solver."""
    k = len(first)
    shares = points @ np.linalg.inv(first)
    found = minimize(
        lambda q: -np.linalg.slogdet(q.reshape(k, k))[1],
        np.eye(k).ravel(),
        method="SLSQP",
        constraints=[
            {"type": "ineq", "fun": lambda q: (shares @ q.reshape(k, k)).ravel()},
            {"type": "eq", "fun": lambda q: q.reshape(k, k).sum(axis=1) - 1.0},
        ],
        options={"maxiter": 500, "ftol": 1e-10},
    )
    assert found.success
    return np.linalg.inv(found.x.reshape(k, k)) @ first


def wide(points, k):
    """A simplex well around all points."""
    corners = np.column_stack([np.ones(k), 3.0 * np.eye(k)[:, 1:]])
    centre = points.mean(axis=0)
    for factor in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0):
        grown = centre + factor * (corners - corners.mean(axis=0))
        if shares_of(points, grown).min() > 0.0:
            return grown
    raise AssertionError("no simplex holds the points")


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_steep_hinge_gives_the_smallest_simplex_that_holds_all(k):
    _, points = capped(k)
    first = wide(points, k)
    expected = naive_mvsa(points, first)
    found, _, _ = smallest_simplex(points, first, hinge=1000.0, max_iter=2000, tol=1e-6)
    assert log_volume(found) == pytest.approx(log_volume(expected), abs=1e-5)
    assert shares_of(points, found).min() > -1e-5


def test_without_noise_the_corners_are_found_though_no_point_is_pure():
    corners, points = capped(3, n=2000)
    found, _, done = smallest_simplex(points, wide(points, 3), hinge=100.0, max_iter=2000, tol=1e-6)
    assert done
    for corner in corners:
        assert np.abs(found - corner).max(axis=1).min() < 2e-4


def naive_deficit(z, n_rounds=800):
    """The two mixing distributions, each by many steps of EM over the points themselves."""

    def best(atoms):
        density = np.exp(-0.5 * np.square(z[:, None] - atoms)) / np.sqrt(2.0 * np.pi)
        weights = np.full(atoms.size, 1.0 / atoms.size)
        for _ in range(n_rounds):
            weights = weights * (density / (density @ weights)[:, None]).mean(axis=0)
        return float(np.log(density @ weights).sum())

    atoms = np.arange(-8.0, 6.01, 0.125)
    return best(atoms) - best(atoms[atoms >= 0.0])


@pytest.mark.parametrize("cut", [0.0, 0.3, 1.0, 2.0])
def test_the_cost_of_a_facet_is_that_of_the_best_mixing_distributions(cut):
    """A facet through the true edge costs next to nothing, one that cuts points off the more of them."""
    rng = np.random.default_rng(1)
    true = np.where(rng.random(600) < 0.4, 0.0, rng.exponential(3.0, 600))
    z = np.minimum(true - cut + rng.normal(size=600), NODES[-1])
    value, _ = deficits(z[:, None])
    assert value[0] == pytest.approx(naive_deficit(z), abs=1.5, rel=0.03)
    if cut == 0.0:
        assert value[0] < 1.5


def test_slopes_are_those_of_the_values():
    corners, points = capped(3)
    rng = np.random.default_rng(0)
    noise = rng.uniform(0.02, 0.1, len(points))
    noisy = points + noise[:, None] * rng.normal(size=points.shape) * [0.0, 1.0, 1.0]
    cloud = NoisyCloud.of(
        noisy, noise, lambda corner: np.diag([0.0, 1.0, 1.0]), 0.9 * corners + 0.1
    )
    back = np.eye(3) + 0.02 * rng.normal(size=(3, 3))
    _, slope, _ = cloud.deficit(back)
    turn = 1e-4 * rng.normal(size=(3, 3))
    ahead, behind = cloud.deficit(back + turn)[0], cloud.deficit(back - turn)[0]
    assert 2.0 * float((slope * turn).sum()) == pytest.approx(ahead - behind, rel=0.05, abs=0.02)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_noise_does_not_make_the_simplex_larger(k):
    """Where noise is as large as a tenth of the simplex, the hinge is far out and the likelihood is not."""
    corners, points = capped(k, n=4000, cap=1.1)
    rng = np.random.default_rng(2)
    flat = np.diag([0.0, *np.ones(k - 1)])
    size = np.full(len(points), 0.3)
    noisy = points + size[:, None] * rng.normal(size=points.shape) * np.sqrt(np.diagonal(flat))
    largest = vertex_components(
        noisy, np.ones(len(noisy)), size, k, n_average=20, n_init=10, rng=np.random.default_rng(0)
    )
    largest /= largest[:, :1]
    found, _, _, done = smallest_within_noise(
        noisy, size, lambda corner: flat, largest, max_iter=500, tol=1e-4
    )
    assert done
    plain, _, _ = smallest_simplex(noisy, wide(noisy, k), hinge=1000.0, max_iter=2000, tol=1e-6)
    truth = log_volume(corners)
    assert abs(log_volume(found) - truth) < 0.25
    assert log_volume(plain) > truth + 0.4


def test_the_slack_is_half_of_chi_square():
    assert slack_of(0.9, 2) == pytest.approx(stats.chi2.ppf(0.9, 2) / 2)
    assert slack_of(0.95, 4) == pytest.approx(stats.chi2.ppf(0.95, 12) / 2)


def test_the_range_of_two_components_is_known_exactly():
    """Two corners: shares of one in the other from where data begin to where a channel is zero."""
    rng = np.random.default_rng(0)
    share = rng.uniform(0.2, 0.7, 4000)
    points = np.column_stack([share, 1.0 - share])
    size = np.full(len(points), 1e-3)
    spectra = np.array([[0.5, 0.4, 0.1], [0.1, 0.3, 0.6]])
    found = np.array([[0.7, 0.3], [0.2, 0.8]])
    cloud = NoisyCloud.of(points, size, lambda corner: np.eye(2), found)
    own = found @ spectra
    turns = extreme_turns(cloud, own, np.full((2, 3), 1e-6), 2.0)
    low, high = component_bands(turns, own, np.full((2, 3), 1e-6))
    # Along s_1 + t (s_1 - s_2) the third channel is the first to vanish, and the other way the first.
    ends = np.array([[0.58, 0.42, 0.0], [0.0, 0.275, 0.725]])
    np.testing.assert_allclose(low, np.minimum(own, ends), atol=0.01)
    np.testing.assert_allclose(high, np.maximum(own, ends), atol=0.01)


def far_within(seed: int = 0, n: int = 1500):
    """A cloud near one corner of three, and the spectra of these.

    At most a seventh of two others, one of which lacks on each of two sides; both are empty over most of
    the channels.
    """
    rng = np.random.default_rng(seed)
    fill, side = rng.uniform(0.09, 0.14, n), rng.beta(0.3, 0.3, n)
    side[: n // 2] = rng.random(n // 2) < 0.5
    shares = np.column_stack([1.0 - fill, fill * side, fill * (1.0 - side)])
    x = np.linspace(0.0, 1.0, 120)
    spectra = np.stack([np.exp(-x), (x > 0.6) * np.exp(-x), np.maximum(x - 0.7, 0.0)])
    return shares, spectra / spectra.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_where_there_is_much_room_the_truth_is_reached_from_far_off(seed):
    """Corners a seventh of the way from the cloud to the true ones: each true row lies in the box."""
    shares, spectra = far_within(seed)
    rng = np.random.default_rng(100 + seed)
    size = np.full(len(shares), 1e-3)
    flat = np.eye(3) - 1.0 / 3.0
    noisy = shares + 1e-3 * rng.normal(size=shares.shape) @ flat
    start = np.array([[0.95, 0.02, 0.03], [0.84, 0.16, 0.0], [0.84, 0.0, 0.16]])
    cloud = NoisyCloud.of(noisy, size, lambda corner: flat, start)
    turns = extreme_turns(cloud, start @ spectra, np.full((3, 120), 2e-6), slack_of(0.9, 3))
    np.testing.assert_allclose(turns.sum(axis=2), 1.0, atol=1e-8)
    np.testing.assert_array_equal(turns[0], np.eye(3))
    truth = np.linalg.inv(start)
    for low, true, high in zip(turns.min(axis=0), truth, turns.max(axis=0), strict=True):
        assert (low <= true + 0.1).all()
        assert (true <= high + 0.1).all()


def test_inside_is_clear_of_points_and_of_zero():
    shares, spectra = far_within()
    size = np.full(len(shares), 1e-3)
    start = np.array([[0.95, 0.02, 0.03], [0.84, 0.16, 0.0], [0.84, 0.0, 0.16]])
    cloud = NoisyCloud.of(shares, size, lambda corner: np.eye(3) - 1.0 / 3.0, start)
    grouped, errors = grouped_channels(start @ spectra, np.full((3, 120), 2e-6))
    interior = Interior.of(cloud, grouped, errors)
    turn = interior.entered(np.eye(3))
    assert turn is not None
    ends = interior.farthest(turn, 1, 0, -1.0)
    # The weaker the barriers, the farther.
    assert (np.diff([end[1, 0] for end in ends]) < 0.0).all()
    assert ends[-1][1, 0] < turn[1, 0]
    for end in (turn, *ends):
        # The outermost points stand for all.
        back = np.linalg.inv(end)
        sigma = np.sqrt(cloud.variance(back))
        assert (cloud.shares @ back >= -1.5 * sigma).all()
        assert (end @ grouped >= -3.0 * np.sqrt(np.square(end) @ np.square(errors))).all()
    # No simplex of these spectra holds points beyond them.
    far = shares.mean(axis=0) + 40.0 * (shares - shares.mean(axis=0))
    beyond = NoisyCloud.of(far, size, lambda corner: np.eye(3) - 1.0 / 3.0, start)
    assert Interior.of(beyond, grouped, errors).entered(np.eye(3)) is None


@pytest.mark.parametrize("k", [3, 5])
def test_bands_are_the_extremes_of_the_polytope(k):
    """Each channel by a linear program of its own."""
    rng = np.random.default_rng(k)
    spectra = rng.dirichlet(np.full(30, 0.5), k)
    errors = np.full((k, 30), 2e-3)
    turns = np.concatenate([np.eye(k)[None], np.eye(k) + 0.2 * rng.normal(size=(6, k, k))])
    turns /= turns.sum(axis=2, keepdims=True)
    low, high = component_bands(turns, spectra, errors)
    group = np.floor(np.cumsum(spectra.mean(axis=0)) * 64).astype(int)
    sums = np.array([np.bincount(group, s) for s in spectra])
    square = np.array([np.bincount(group, e * e) for e in errors])
    for i in range(k):
        bounds = [(turns[:, i, j].min(), turns[:, i, j].max()) for j in range(k)]
        most = np.square(np.abs(turns[:, i]).max(axis=0))
        bounds[i] = (None, None)
        for e in (0, 11, 29):
            for sign, ends in ((1.0, low), (-1.0, high)):
                answer = linprog(
                    sign * spectra[:, e],
                    A_ub=-sums.T,
                    b_ub=3.0 * np.sqrt(most @ square),
                    A_eq=np.ones((1, k)),
                    b_eq=[1.0],
                    bounds=bounds,
                )
                value = spectra[:, e] @ answer.x
                assert ends[i, e] == pytest.approx(max(value, 0.0), abs=1e-8)


def test_beyond_six_components_bands_are_those_of_the_box():
    rng = np.random.default_rng(0)
    k = 8
    spectra = rng.dirichlet(np.full(40, 0.5), k)
    turns = np.concatenate([np.eye(k)[None], np.eye(k) + 0.05 * rng.normal(size=(4, k, k))])
    turns /= turns.sum(axis=2, keepdims=True)
    low, high = component_bands(turns, spectra, np.full((k, 40), 1e-3))
    turned = np.maximum(np.einsum("nkl,le->nke", turns, spectra), 0.0)
    assert (low <= turned.min(axis=0) + 1e-12).all()
    assert (high >= turned.max(axis=0) - 1e-12).all()


def test_negative_channels_are_no_signal_of_a_group():
    """Corners far outside have channels below zero; these go with their neighbours."""
    rng = np.random.default_rng(0)
    spectra = rng.dirichlet(np.ones(60), 3)
    spectra[:, :5] -= 0.02  # the first ones of all
    spectra /= spectra.sum(axis=1, keepdims=True)
    grouped, errors = grouped_channels(spectra, np.full((3, 60), 1e-3))
    np.testing.assert_allclose(grouped.sum(axis=1), 1.0)
    np.testing.assert_allclose(np.square(errors).sum(axis=1), 60 * 1e-6)
