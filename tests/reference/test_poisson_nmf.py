"""The kernels of NMF against slow, obvious twins written from the formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize, nnls
from sklearn.decomposition import non_negative_factorization

import emcube as em
from emcube.kernels.freedom import spectral_freedom
from emcube.kernels.frobenius_nmf import frobenius_loadings, frobenius_pass, pieces
from emcube.kernels.held_out import held_out_counts, thin
from emcube.kernels.poisson_nmf import as_rows, floored, poisson_loadings, poisson_pass
from emcube.kernels.pooling import n_tiles, pool, tile_index
from emcube.kernels.quasi_newton import LONGEST, REMEMBERED, SHORTEST, Memory
from emcube.kernels.rows import rows_from_dense
from emcube.kernels.subspace import scatter_image
from emcube.kernels.vertices import find_vertices
from emcube.kernels.volume import (
    frobenius_step,
    log_volume,
    poisson_step,
    project_to_simplex,
    volume_slope,
)
from emcube.models.nmf_losses import PoissonLoss


def divergence(x, mu):
    """Kullback-Leibler divergence, with 0 log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(x > 0, x * np.log(x / mu), 0.0)
    return float((terms - x + mu).sum())


def naive_loadings(x, components):
    """Minimise one pixel's divergence with a general solver over log loadings and then on the bounds."""

    def f(h):
        mu = h @ components
        value = h.sum() - (x * np.log(np.maximum(mu, 1e-300))).sum()
        return value, components.sum(axis=1) - components @ (x / np.maximum(mu, 1e-300))

    best = None
    for start in (np.full(len(components), x.sum() / len(components)),):
        found = minimize(
            f,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, None)] * len(components),
            options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000},
        )
        best = found if best is None or found.fun < best.fun else best
    return best.x


@pytest.fixture
def problem():
    rng = np.random.default_rng(3)
    components = floored(rng.dirichlet(np.full(60, 0.4), 4))
    true = rng.dirichlet(np.full(4, 0.4), 80) * rng.uniform(0.5, 200, (80, 1))
    counts = rng.poisson(true @ components)
    counts[5] = 0
    counts[6] = 0
    counts[6, 3] = 1
    return counts, components


def test_loadings_reach_the_minimum_of_a_general_solver(problem):
    counts, components = problem
    loadings = poisson_loadings(rows_from_dense(counts), components)
    assert (loadings >= 0).all()
    np.testing.assert_array_equal(loadings[5], 0)
    np.testing.assert_allclose(loadings.sum(axis=1), counts.sum(axis=1), rtol=1e-9)
    for x, h in zip(counts, loadings, strict=True):
        if x.sum() == 0:
            continue
        naive = naive_loadings(x, components)
        assert divergence(x, h @ components) <= divergence(x, naive @ components) + 1e-7


def test_loadings_meet_the_conditions_of_optimality(problem):
    counts, components = problem
    loadings = poisson_loadings(rows_from_dense(counts), components)
    for x, h in zip(counts, loadings, strict=True):
        if x.sum() == 0:
            continue
        gradient = 1.0 - components @ (x / (h @ components))
        assert (gradient > -1e-5).all()
        assert np.abs(gradient * h).max() < 1e-5 * x.sum()


def test_pass_gives_divergence_and_its_gradient(problem):
    counts, components = problem
    rows = rows_from_dense(counts)
    result = poisson_pass(rows, components, 1e-12)
    loadings = poisson_loadings(rows, components)
    assert result.divergence == pytest.approx(divergence(counts, loadings @ components), rel=1e-9)
    assert result.total == counts.sum()
    assert result.square == (counts.sum(axis=1) ** 2).sum()
    np.testing.assert_allclose(result.loadings, loadings.sum(axis=0), rtol=1e-6)
    mu = np.maximum(loadings @ components, 1e-300)
    np.testing.assert_allclose(
        result.counts, components * (loadings.T @ (counts / mu)), rtol=1e-6, atol=1e-9
    )
    # Envelope theorem: the profile objective's own derivative, by differences. Moving a component
    # along a direction that keeps its sum needs no term for the normalisation.
    rng = np.random.default_rng(0)
    direction = rng.normal(size=components.shape) * components
    direction -= components * direction.sum(axis=1, keepdims=True)
    step = 1e-5

    def profile(s):
        h = poisson_loadings(rows, s)
        return divergence(counts, h @ s)

    slope = (profile(components + step * direction) - profile(components - step * direction)) / (
        2 * step
    )
    assert -(result.counts / components * direction).sum() == pytest.approx(slope, rel=1e-4)


def test_looser_tolerance_changes_little(problem):
    counts, components = problem
    rows = rows_from_dense(counts)
    exact, quick = poisson_pass(rows, components, 1e-14), poisson_pass(rows, components)
    assert quick.divergence - exact.divergence < 1e-4
    assert quick.n_steps < exact.n_steps


def test_floats_count_as_they_are(problem):
    counts, components = problem
    halves = as_rows(counts / 2.0)
    np.testing.assert_allclose(
        poisson_loadings(halves, components),
        poisson_loadings(rows_from_dense(counts), components) / 2.0,
        rtol=1e-5,
        atol=1e-6,
    )


def test_pieces_add(problem):
    counts, components = problem
    whole = poisson_pass(rows_from_dense(counts), components)
    parts = [poisson_pass(rows_from_dense(c), components) for c in np.split(counts, [3, 11, 50])]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    np.testing.assert_allclose(total.counts, whole.counts, rtol=1e-12)
    assert total.divergence == pytest.approx(whole.divergence, rel=1e-12)


def test_least_squares_loadings_equal_scipy():
    rng = np.random.default_rng(0)
    components = rng.dirichlet(np.full(30, 0.5), 4)
    x = rng.dirichlet(np.ones(4), 50) @ components * 100 + rng.normal(0, 0.3, (50, 30))
    ours = frobenius_loadings(x, components)
    naive = np.array([nnls(components.T, row)[0] for row in x])
    np.testing.assert_allclose(ours, naive, atol=1e-7)
    result = frobenius_pass(x, components)
    assert result.divergence == pytest.approx(
        0.5 * np.square(x - ours @ components).sum(), rel=1e-9
    )
    np.testing.assert_allclose(result.gram, ours.T @ ours)
    np.testing.assert_allclose(result.products, ours.T @ x)


def test_least_squares_takes_rows_of_counts():
    rng = np.random.default_rng(1)
    counts = rng.poisson(0.4, (40, 25))
    components = rng.dirichlet(np.full(25, 0.5), 3)
    dense, sparse = (
        frobenius_pass(counts, components),
        frobenius_pass(rows_from_dense(counts), components),
    )
    np.testing.assert_allclose(sparse.products, dense.products, atol=1e-10)
    assert sparse.divergence == pytest.approx(dense.divergence)


@pytest.mark.parametrize("strength", [0.0, 3.0, 300.0])
def test_poisson_step_lowers_the_penalised_bound(problem, strength):
    counts, components = problem
    result = poisson_pass(rows_from_dense(counts), components)
    weights = 1.0 / components.mean(axis=0)
    delta = 0.05

    def value(s):
        return -(result.counts * np.log(s)).sum() + strength * log_volume(s, weights, delta)

    new = poisson_step(components, result.counts, weights, strength, delta)
    np.testing.assert_allclose(new.sum(axis=1), 1.0, rtol=1e-9)
    assert (new > 0).all()
    assert value(new) < value(components)
    if strength == 0.0:
        np.testing.assert_allclose(
            new, floored(result.counts / result.counts.sum(axis=1, keepdims=True)), rtol=1e-9
        )


@pytest.mark.parametrize("strength", [0.0, 30.0])
def test_frobenius_step_lowers_the_penalised_loss(strength):
    rng = np.random.default_rng(5)
    components = rng.dirichlet(np.ones(30), 3)
    h = rng.gamma(1.0, 50.0, (100, 3))
    x = h @ rng.dirichlet(np.ones(30), 3) + rng.normal(0, 0.1, (100, 30))
    result = frobenius_pass(x, components)
    ones = np.ones(30)

    def value(s):
        loss = 0.5 * (result.gram * (s @ s.T)).sum() - (result.products * s).sum()
        return loss + strength * log_volume(s, ones, 0.01)

    new = frobenius_step(components, result.products, result.gram, strength, 0.01)
    assert value(new) < value(components)
    np.testing.assert_allclose(new.sum(axis=1), 1.0)


def test_projection_to_the_simplex_is_the_nearest_point():
    rng = np.random.default_rng(2)
    for point in rng.normal(0, 1, (5, 8)):
        found = project_to_simplex(point)
        naive = minimize(
            lambda s, p=point: np.square(s - p).sum(),
            np.full(8, 1 / 8),
            bounds=[(0, 1)] * 8,
            constraints={"type": "eq", "fun": lambda s: s.sum() - 1},
            options={"ftol": 1e-14},
        ).x
        np.testing.assert_allclose(found, naive, atol=1e-6)


@pytest.mark.parametrize("kind", ["rows", "uint8", "float32"])
def test_pooling_adds_pixels(kind):
    rng = np.random.default_rng(0)
    box, tile = (5, 7), (2, 3)
    counts = rng.poisson(0.5, (*box, 9)).astype(np.uint8)
    naive = np.array(
        [
            counts[i : i + 2, j : j + 3].reshape(-1, 9).sum(axis=0, dtype=int)
            for i in range(0, 5, 2)
            for j in range(0, 7, 3)
        ]
    )
    cells = counts.reshape(-1, 9)
    data = rows_from_dense(cells) if kind == "rows" else cells.astype(kind)
    groups = tile_index(box, tile)
    assert n_tiles(box, tile) == (3, 3)
    found = pool(data, groups, 9)
    np.testing.assert_array_equal(found.to_dense() if kind == "rows" else found, naive)
    # Selected pixels only; a tile without any stays, empty.
    kept = groups != 4
    some = pool(data.take(kept) if kind == "rows" else data[kept], groups[kept], 9)
    naive[4] = 0
    np.testing.assert_array_equal(some.to_dense() if kind == "rows" else some, naive)


def test_pooled_counts_do_not_overflow():
    rows = rows_from_dense(np.full((3, 2), 60000, np.uint16))
    found = pool(rows, np.zeros(3, np.int64), 1)
    np.testing.assert_array_equal(found.to_dense(np.int64), [[180000, 180000]])


def test_corners_of_a_noisy_simplex():
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(4, 4)) * 3
    shares = rng.dirichlet(np.full(4, 0.3), 5000)
    noise = np.full(5000, 0.05)
    points = shares @ corners + rng.normal(0, 0.05, (5000, 4))
    found = find_vertices(
        points,
        np.ones(5000),
        noise,
        4,
        n_average=20,
        covariance=lambda corner: np.eye(4),
        rng=np.random.default_rng(0),
    )
    distance = np.linalg.norm(found[:, None] - corners[None], axis=2)
    assert sorted(distance.argmin(axis=0)) == [0, 1, 2, 3]
    assert distance.min(axis=0).max() < 0.15


def test_thinned_halves_add_up_and_score_the_truth_best(problem):
    counts, components = problem
    rows = rows_from_dense(counts)
    first, second = thin(rows, np.random.default_rng(0))
    np.testing.assert_array_equal(first.to_dense(int) + second.to_dense(int), counts)
    rng = np.random.default_rng(1)
    right = held_out_counts(rows, components, np.random.default_rng(0))
    wrong = held_out_counts(rows, rng.dirichlet(np.ones(60), 4), np.random.default_rng(0))
    assert right[1] == wrong[1] == counts.sum()
    assert right[0] > wrong[0]


def test_bare_likelihood_reaches_that_of_scikit_learn():
    """With volume=0 the objective is scikit-learn's, and our optimum no worse than its best of three."""
    rng = np.random.default_rng(7)
    true = rng.dirichlet(np.full(40, 0.3), 3)
    counts = rng.poisson(rng.dirichlet(np.full(3, 0.5), 300) @ true * 200)
    theirs = min(
        divergence(counts, w @ h)
        for w, h, _ in (
            non_negative_factorization(
                counts.astype(float),
                n_components=3,
                init="random",
                solver="mu",
                max_iter=2000,
                beta_loss="kullback-leibler",
                tol=1e-7,
                random_state=seed,
            )
            for seed in range(3)
        )
    )
    model = em.MiniBatchNMF(3, volume=0, tol=0, max_iter=2000, random_state=0).fit(counts)
    ours = divergence(counts, model.transform(counts) @ model.components_)
    assert model.pool_ == 1
    assert model.objective_ == pytest.approx(ours, rel=1e-6)
    assert ours < theirs * (1 + 1e-4)


def test_corners_are_not_drawn_outwards_by_noise():
    """Pixels of two pure phases only: the corners are the phases, not the tails of the noise."""
    rng = np.random.default_rng(0)
    corners = np.array([[1.0, 0.0], [0.0, 1.0]])
    points = np.repeat(corners, 2000, axis=0) + rng.normal(0, 0.1, (4000, 2))
    found = find_vertices(
        points,
        np.ones(4000),
        np.full(4000, 0.1),
        2,
        n_average=20,
        covariance=lambda corner: np.eye(2),
        rng=rng,
    )
    assert np.abs(np.sort(found, axis=0) - np.sort(corners, axis=0)).max() < 0.08  # the tails: 0.27


def test_freedom_is_the_share_that_can_be_taken_out():
    rng = np.random.default_rng(0)
    pure = np.zeros((2, 40))
    pure[0, :30] = rng.uniform(1, 2, 30)
    pure[1, 10:] = rng.uniform(1, 2, 30)
    pure /= pure.sum(axis=1, keepdims=True)
    mixed = np.stack([0.7 * pure[0] + 0.3 * pure[1], pure[1]])
    shares = spectral_freedom(mixed, np.full(mixed.shape, 1e-5))
    assert shares[0, 1] == pytest.approx(0.3, abs=0.01)
    assert shares[1, 0] == pytest.approx(0.0, abs=0.01)
    np.testing.assert_array_equal(np.diagonal(shares), 0.0)
    assert spectral_freedom(mixed, np.full(mixed.shape, 1e-2))[0, 1] > 0.4


@pytest.mark.parametrize("n_components", [1, 2, 3, 4, 5, 7, 9])
def test_loadings_are_optimal_for_any_number_of_components(n_components):
    """Components much alike, few counts, large counts: all the ways that a step can end on its bounds."""
    rng = np.random.default_rng(n_components)
    components = rng.dirichlet(np.full(30, 0.5), n_components)
    components = floored(0.3 * components + 0.7 * components.mean(axis=0))
    components[0, :5] = 0.0
    components = floored(components)
    means = rng.dirichlet(np.full(n_components, 0.2), 150) @ components
    counts = rng.poisson(means * 10.0 ** rng.uniform(0, 5, (150, 1)))
    rows = rows_from_dense(counts)
    loadings = poisson_loadings(rows, components)
    totals = counts.sum(axis=1)
    np.testing.assert_allclose(loadings.sum(axis=1), totals, rtol=1e-9)
    for x, h, total in zip(counts, loadings, totals, strict=True):
        if total:
            gradient = 1.0 - components @ (x / (h @ components))
            assert gradient.min() > -1e-4
            assert np.abs(gradient * h).max() < 1e-4 * np.sqrt(total)
    result = poisson_pass(rows, components, 1e-12)
    full = totals > 0
    exact = sum(
        divergence(x, h @ components) for x, h in zip(counts[full], loadings[full], strict=True)
    )
    assert result.divergence == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 8, 9, 1000, 4_000_000_000])
def test_logarithms_of_products_are_those_of_the_counts(count):
    """Counts of every size, ratios far from one."""
    rng = np.random.default_rng(count % 1000)
    components = floored(rng.dirichlet(np.full(40, 0.02), 2))
    counts = np.where(rng.random((6, 40)) < 0.7, count, 0).astype(np.uint32)
    rows = rows_from_dense(counts)
    result = poisson_pass(rows, components, 1e-10)
    loadings = poisson_loadings(rows, components)
    assert result.divergence == pytest.approx(divergence(counts, loadings @ components), rel=1e-7)


def test_slope_of_the_objective_is_its_derivative(problem):
    """By differences along the logarithms of the components, which are made to sum to one again."""
    counts, components = problem
    rows = rows_from_dense(counts)
    weights, strength, delta = 1.0 / components.mean(axis=0), 40.0, 0.05
    loss = PoissonLoss()
    slope = loss.slope(components, poisson_pass(rows, components, 1e-14), weights, strength, delta)
    move = np.random.default_rng(0).normal(size=components.shape)

    def value(t):
        s = loss.moved(components, t * move)
        return poisson_pass(rows, s, 1e-14).divergence + strength * log_volume(s, weights, delta)

    by_differences = (value(1e-4) - value(-1e-4)) / 2e-4
    assert float((slope.gradient * move).sum()) == pytest.approx(by_differences, rel=1e-4)
    assert (slope.scale > 0).all()
    gradient, curvature = volume_slope(components, weights, delta)
    assert gradient.shape == curvature.shape == components.shape


def test_quasi_newton_directions_are_those_of_the_full_update():
    """The two loops against the BFGS matrix written out (Nocedal 1980)."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(6, 6))
    matrix = half @ half.T + np.eye(6)
    scale = rng.uniform(0.5, 2.0, 6)
    memory, naive = Memory(), []
    for _ in range(4):
        move = 0.1 * rng.normal(size=6)
        memory = memory.with_pair(move, matrix @ move, scale)
        naive.append((move, matrix @ move))
    s, y = naive[-1]
    inverse = np.diag(1.0 / scale) * max((s @ y) / (y @ (y / scale)), SHORTEST)
    for s, y in naive:
        left = np.eye(6) - np.outer(s, y) / (s @ y)
        inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
    gradient = 0.1 * rng.normal(size=6)
    np.testing.assert_allclose(memory.direction(gradient, scale), -inverse @ gradient, rtol=1e-9)
    np.testing.assert_allclose(Memory().direction(gradient, scale), -gradient / scale)
    assert np.abs(memory.direction(1e6 * gradient, scale)).max() == LONGEST
    # Along a move on which the gradient falls there is no minimum: not remembered.
    assert memory.with_pair(naive[0][0], -naive[0][1], scale) is memory
    for _ in range(20):
        memory = memory.with_pair(*naive[0], scale)
    assert len(memory.pairs) == REMEMBERED


def test_least_value_is_reached_in_fewer_passes_than_by_em(problem):
    """The same start and bare objective: plain EM written out, and ours."""
    counts, components = problem
    rng = np.random.default_rng(4)
    first = floored(0.5 * components + 0.5 * rng.dirichlet(np.ones(60), 4))
    rows, em_only = rows_from_dense(counts), first
    for _ in range(40):
        em_only = floored(poisson_pass(rows, em_only).counts)
    model = em.MiniBatchNMF(4, volume=0, tol=0, max_iter=25, init=first, n_epochs=0)
    path = model.fit(counts).objective_path_
    assert (np.diff(path) <= 0).all()
    assert path[-1] < poisson_pass(rows, em_only).divergence


@pytest.mark.parametrize("q", [1, 8, 13])
@pytest.mark.parametrize("by_counts", [True, False])
def test_scatter_matrix_times_a_basis(problem, q, by_counts):
    counts = problem[0].astype(float)
    basis = np.random.default_rng(0).normal(size=(60, q))
    image, inner = scatter_image(rows_from_dense(problem[0]), basis, by_counts=by_counts)
    totals = counts.sum(axis=1)
    weights = np.where(totals > 0, 1.0 / np.maximum(totals, 1.0), 0.0) if by_counts else 1.0
    matrix = counts.T @ (counts * np.reshape(weights, (-1, 1)))
    np.testing.assert_allclose(image, matrix @ basis, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(inner, basis.T @ matrix @ basis, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("kind", ["float32", "float64", "int16", "big-endian", "strided"])
def test_pieces_are_the_matrix_in_double_precision(kind):
    """More than one piece, whatever the values lie in; a pass over them is that over the whole."""
    rng = np.random.default_rng(0)
    values = rng.integers(-300, 300, (70, 4000))
    data = {"big-endian": values.astype(">f4"), "strided": values.astype(float)[:, ::2]}.get(kind)
    data = values.astype(kind) if data is None else data
    seen = []
    for first, part in pieces(data):
        assert part.dtype == np.float64
        np.testing.assert_array_equal(part, data[first : first + len(part)])
        seen.append(len(part))
    assert sum(seen) == 70
    assert len(seen) > 1
    components = rng.dirichlet(np.ones(data.shape[1]), 3)
    result = frobenius_pass(data, components)
    whole = np.array([nnls(components.T, row)[0] for row in data.astype(float)])
    np.testing.assert_allclose(frobenius_loadings(data, components), whole, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(result.products, whole.T @ data, rtol=1e-6, atol=1e-2)
    residual = data - whole @ components
    assert result.divergence == pytest.approx(0.5 * np.square(residual).sum(), rel=1e-9)
