"""Penalised, known and composed NMF against slow, obvious twins written from the formulas."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy import optimize
from threadpoolctl import threadpool_limits

import emcube as em
from emcube.kernels.coupled_loadings import SHARE, Coupling, coupled_frobenius, coupled_poisson
from emcube.kernels.poisson_nmf import floored
from emcube.kernels.rows import rows_from_dense
from emcube.kernels.volume import log_volume
from emcube.models.nmf_losses import FrobeniusLoss, PoissonLoss
from emcube.models.nmf_structure import StructuredLoss, coefficients_of

SHAPE = (4, 5)


def minimize(*arguments, **options):
    """General solver of SciPy; on problems this small several threads mostly wait for each other."""
    with threadpool_limits(1):
        return optimize.minimize(*arguments, **options)


def divergence(x, mu):
    """Kullback-Leibler divergence, with 0 log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(x > 0, x * np.log(x / np.maximum(mu, 1e-300)), 0.0)
    return float((terms - x + mu).sum())


@functools.cache
def pairs(shape):
    """Every pair of neighbours of an image once."""
    number = np.arange(np.prod(shape)).reshape(shape)
    along = [
        (number[:-1].ravel(), number[1:].ravel()),
        (number[:, :-1].ravel(), number[:, 1:].ravel()),
    ]
    return np.concatenate([np.column_stack(p) for p in along])


def naive_objective(x, h, s, *, counts, sparsity=0.0, smoothness=0.0, closed=False, shape=SHAPE):
    """The objective as it is written on the page, pixel by pixel and pair by pair."""
    total = x.sum(axis=1)
    if counts:
        value = divergence(x, h @ s)
        for p in range(len(x)):
            if sparsity and total[p] > 0:
                value += sparsity * sum(
                    np.log1p(h[p, k] / (SHARE * total[p])) for k in range(h.shape[1])
                )
    else:
        value = 0.5 * float(((x - h @ s) ** 2).sum()) + sparsity * float(h.sum())
    a = h / total[:, None] if closed else h
    p, q = pairs(shape).T
    return value + 0.5 * smoothness * float(((a[p] - a[q]) ** 2).sum())


def naive_slope(x, h, s, *, counts, sparsity=0.0, smoothness=0.0, closed=False, shape=SHAPE):
    """Its gradient by the loadings: a general solver without it takes minutes."""
    total = x.sum(axis=1)
    if counts:
        slope = (1.0 - x / np.maximum(h @ s, 1e-300)) @ s.T
        if sparsity:
            slope = slope + sparsity / (h + SHARE * total[:, None])
    else:
        slope = (h @ s - x) @ s.T + sparsity
    by = (total if closed else np.ones(len(x)))[:, None]
    p, q = pairs(shape).T
    apart = smoothness * (h[p] / by[p] - h[q] / by[q])
    np.add.at(slope, p, apart / by[p])
    np.add.at(slope, q, -apart / by[q])
    return slope


def neighbours(shape):
    found = [[] for _ in range(int(np.prod(shape)))]
    for p, q in pairs(shape):
        found[p].append(q)
        found[q].append(p)
    near = np.full((len(found), 4), -1)
    for p, others in enumerate(found):
        near[p, : len(others)] = others
    return near


def coupling(k, *, sparsity=0.0, smoothness=0.0, closed=False, shape=SHAPE):
    n = int(np.prod(shape))
    return Coupling(sparsity, smoothness, closed, neighbours(shape), np.zeros((n, k)), np.zeros(n))


@pytest.fixture(scope="module")
def problem():
    """20 pixels of some 60 counts in 15 channels, and three components."""
    rng = np.random.default_rng(5)
    s = floored(rng.dirichlet(np.full(15, 0.6), 3))
    h = rng.dirichlet(np.full(3, 0.5), 20) * rng.uniform(30, 90, (20, 1))
    return rng.poisson(h @ s), s


def least(x, s, start, **options):
    """Least objective over loadings with a general solver, from some start."""

    def f(flat):
        h = flat.reshape(start.shape)
        return naive_objective(x, h, s, **options), naive_slope(x, h, s, **options).ravel()

    found = minimize(
        f, start.ravel(), jac=True, method="L-BFGS-B", bounds=[(0, None)] * start.size,
        options={"ftol": 1e-14, "gtol": 1e-8, "maxiter": 2000, "maxfun": 10**6},
    )  # fmt: skip
    return found.fun


@pytest.mark.parametrize("smoothness", [0.003, 0.3])
def test_smooth_loadings_of_counts_reach_the_minimum_of_a_general_solver(problem, smoothness):
    x, s = problem
    asked = coupling(3, smoothness=smoothness)
    loadings, found, penalty = coupled_poisson(rows_from_dense(x), s, asked, exact=True)
    value = naive_objective(x, loadings, s, counts=True, smoothness=smoothness)
    assert found.divergence + penalty == pytest.approx(value, rel=1e-9)
    slow = least(x, s, np.full((20, 3), 20.0), counts=True, smoothness=smoothness)
    assert value <= slow + 1e-6 * abs(slow)


def test_closed_loadings_keep_their_sum_and_no_move_along_it_is_better(problem):
    x, s = problem
    smoothness = 30.0
    asked = coupling(3, smoothness=smoothness, closed=True)
    loadings, found, penalty = coupled_poisson(rows_from_dense(x), s, asked, exact=True)
    np.testing.assert_allclose(loadings.sum(axis=1), x.sum(axis=1), rtol=1e-12)
    options = {"counts": True, "smoothness": smoothness, "closed": True}
    value = naive_objective(x, loadings, s, **options)
    assert found.divergence + penalty == pytest.approx(value, rel=1e-9)

    def f(flat):
        logits = flat.reshape(20, 3)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        h = shares * x.sum(axis=1, keepdims=True)
        slope = naive_slope(x, h, s, **options) * x.sum(axis=1, keepdims=True)
        slope = shares * (slope - (slope * shares).sum(axis=1, keepdims=True))
        return naive_objective(x, h, s, **options), slope.ravel()

    limits = {"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-8}
    slow = minimize(f, np.zeros(60), jac=True, method="L-BFGS-B", options=limits)
    assert value <= slow.fun + 1e-5 * abs(slow.fun)


def test_sparse_loadings_of_counts_are_a_minimum(problem):
    x, s = problem
    asked = Coupling.apart(20, 3, 1.5)
    loadings, found, penalty = coupled_poisson(rows_from_dense(x), s, asked, exact=True)
    plain, _, _ = coupled_poisson(rows_from_dense(x), s, Coupling.apart(20, 3, 0.0), exact=True)
    assert (loadings == 0).sum() > (plain == 0).sum()
    value = naive_objective(x, loadings, s, counts=True, sparsity=1.5)
    assert found.divergence + penalty == pytest.approx(value, rel=1e-9)
    # The logarithm has several minima: this is one of them, and no worse than the start.
    assert value <= least(x, s, loadings, counts=True, sparsity=1.5) + 1e-6 * abs(value)
    assert value < naive_objective(x, plain, s, counts=True, sparsity=1.5)


def test_l1_of_counts_would_only_scale(problem):
    """Why the penalty of counts is a logarithm: with components that sum to one L1 divides all loadings."""
    x, s = problem
    h, _, _ = coupled_poisson(rows_from_dense(x), s, Coupling.apart(20, 3, 0.0), exact=True)
    weight = 0.7

    def f(flat):
        loadings = flat.reshape(20, 3)
        slope = naive_slope(x, loadings, s, counts=True) + weight
        return divergence(x, loadings @ s) + weight * flat.sum(), slope.ravel()

    at, _ = f((h / (1.0 + weight)).ravel())
    found = minimize(f, h.ravel(), jac=True, method="L-BFGS-B", bounds=[(0, None)] * 60)
    assert at <= found.fun + 1e-6 * abs(found.fun)


@pytest.mark.parametrize(("sparsity", "smoothness"), [(0.0, 0.2), (1.0, 0.0), (1.0, 0.2)])
def test_penalised_squares_reach_the_minimum_of_a_general_solver(problem, sparsity, smoothness):
    x, s = problem
    x = x + np.random.default_rng(0).normal(0, 1, x.shape)
    asked = coupling(3, sparsity=sparsity, smoothness=smoothness)
    loadings, found, penalty = coupled_frobenius(x, s, asked, exact=True)
    options = {"counts": False, "sparsity": sparsity, "smoothness": smoothness}
    value = naive_objective(x, loadings, s, **options)
    assert found.divergence + penalty == pytest.approx(value, rel=1e-9)
    assert value <= least(x, s, np.full((20, 3), 20.0), **options) + 1e-6 * abs(value)


def test_what_a_pass_tells_is_the_gradient_of_the_penalised_objective(problem):
    x, s = problem
    smoothness = 0.1

    def profile(spectra):
        asked = coupling(3, smoothness=smoothness)
        h, _, _ = coupled_poisson(rows_from_dense(x), spectra, asked, exact=True)
        return naive_objective(x, h, spectra, counts=True, smoothness=smoothness)

    asked = coupling(3, smoothness=smoothness)
    _, found, _ = coupled_poisson(rows_from_dense(x), s, asked, exact=True)
    direction = np.random.default_rng(0).normal(size=s.shape) * s
    direction -= s * direction.sum(axis=1, keepdims=True)
    step = 1e-4
    slope = (profile(s + step * direction) - profile(s - step * direction)) / (2 * step)
    assert slope == pytest.approx(-float((found.counts / s * direction).sum()), rel=2e-3)


# ------------------------------------------------------------------------------------- whole fits


def cube_of(x, shape=SHAPE):
    return em.make_cube(
        x.reshape(*shape, -1).astype(np.uint16), dims=("y", "x", "energy"), sig_dims=("energy",)
    )


BARE = {"volume": 0, "tol": 0, "max_iter": 3000, "random_state": 0, "pool": 1}


@pytest.fixture(scope="module")
def image():
    """8 x 9 pixels of 300 counts in 15 channels that change slowly over the image."""
    rng = np.random.default_rng(2)
    s = floored(rng.dirichlet(np.full(15, 0.4), 2))
    y, x = np.mgrid[:8, :9]
    share = 1.0 / (1.0 + np.exp((x - 4.0) / 1.5 + 0.2 * y - 0.7))
    h = np.stack([share, 1.0 - share], axis=-1).reshape(-1, 2)
    return rng.poisson(300 * h @ s), s


def joint_minimum(x, h, s, n_known=0, basis=None, **options):
    """Least objective over loadings and spectra together with a general solver, from a start."""
    k, width = len(s), (x.shape[1] if basis is None else len(basis))
    unit = x.sum(axis=1).mean()  # of loadings, near those of the logits: else the solver crawls
    first = s if basis is None else coefficients_of(s, basis)

    def parts(flat):
        loadings = unit * flat[: h.size].reshape(h.shape)
        logits = flat[h.size :].reshape(k, width)
        numbers = np.exp(logits - logits.max(axis=1, keepdims=True))
        numbers = numbers / numbers.sum(axis=1, keepdims=True)
        spectra = numbers if basis is None else numbers @ basis
        return loadings, np.concatenate((s[:n_known], spectra[n_known:]))

    def f(flat):
        loadings, spectra = parts(flat)
        mu = np.maximum(loadings @ spectra, 1e-300)
        value = naive_objective(x, loadings, spectra, counts=True, shape=(8, 9), **options)
        by_h = naive_slope(x, loadings, spectra, counts=True, shape=(8, 9), **options)
        by_s = loadings.T @ (1.0 - x / mu)
        by_s[:n_known] = 0.0
        logits = flat[h.size :].reshape(k, width)
        numbers = np.exp(logits - logits.max(axis=1, keepdims=True))
        numbers = numbers / numbers.sum(axis=1, keepdims=True)
        by_n = by_s if basis is None else by_s @ basis.T
        by_l = numbers * (by_n - (by_n * numbers).sum(axis=1, keepdims=True))
        return value, np.concatenate((unit * by_h.ravel(), by_l.ravel()))

    start = np.concatenate((h.ravel() / unit, np.log(np.maximum(first, 1e-9)).ravel()))
    bounds = [(0, None)] * h.size + [(-30, 30)] * (k * width)
    found = minimize(
        f, start, jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": 4000, "maxfun": 20000, "ftol": 1e-13, "gtol": 1e-7},
    )  # fmt: skip
    return float(found.fun)


def test_a_smooth_fit_reaches_the_objective_of_a_general_solver(image):
    x, s = image
    cube = cube_of(x, (8, 9))
    model = em.MiniBatchNMF(2, smoothness=1.0, init=s, **BARE).fit(cube)
    tau = model.smoothness_strength_
    loadings = model.transform(cube).values.reshape(-1, 2)
    told = naive_objective(
        x, loadings, model.components_.values, counts=True, smoothness=tau, shape=(8, 9)
    )
    assert model.objective_ == pytest.approx(told, rel=1e-5)
    slow = joint_minimum(x, 300 * np.full((72, 2), 0.5), s, smoothness=tau)
    assert model.objective_ == pytest.approx(slow, rel=1e-4)  # the solver is there, too


def test_blocks_come_to_the_objective_of_a_single_one(image, monkeypatch):
    """In blocks of 4 x 5 pixels the penalty across borders is the same, and so is the answer."""
    x, s = image
    cube = cube_of(x, (8, 9))
    whole = em.MiniBatchNMF(2, smoothness=1.0, init=s, **BARE).fit(cube)
    a = whole.transform(cube).values
    lazy = cube.chunk(y=4, x=5)
    # Else chunks that small are joined to one block.
    monkeypatch.setattr("emcube.engine.plan.plan_blocks.__kwdefaults__", {"target_bytes": 1})
    few = {**BARE, "max_iter": 300}
    parts = em.MiniBatchNMF(2, smoothness=1.0, init=s, **few).fit(lazy)
    assert parts._anchors.plan.grid == (2, 2)
    assert (np.diff(parts.objective_path_) <= 1e-9 * parts.objective_).all()
    assert parts.objective_ == pytest.approx(whole.objective_, rel=1e-4)
    np.testing.assert_allclose(a, parts.transform(lazy).values, atol=0.02 * a.max())


def test_a_fit_with_a_known_spectrum_reaches_the_objective_of_a_general_solver(image):
    x, s = image
    model = em.MiniBatchNMF(2, known=s[:1], init=s, **BARE).fit(cube_of(x, (8, 9)))
    np.testing.assert_allclose(model.components_.values[0], s[0], atol=1e-12)
    slow = joint_minimum(x, 300 * np.full((72, 2), 0.5), s, n_known=1)
    assert model.objective_ == pytest.approx(slow, rel=1e-4)  # the solver is there, too


def test_a_fit_in_a_basis_reaches_the_objective_of_a_general_solver(image):
    x, s = image
    rng = np.random.default_rng(0)
    basis = np.concatenate((s, rng.dirichlet(np.ones(15), 4)))
    model = em.MiniBatchNMF(2, basis=basis, init=s, **BARE).fit(cube_of(x, (8, 9)))
    coefficients = model.coefficients_.values
    np.testing.assert_allclose(coefficients.sum(axis=1), 1.0)
    np.testing.assert_allclose(model.components_.values, coefficients @ basis, atol=1e-9)
    slow = joint_minimum(x, 300 * np.full((72, 2), 0.5), s, basis=floored(basis))
    assert model.objective_ == pytest.approx(slow, rel=1e-4)  # the solver is there, too


# ------------------------------------------------------------------------------ steps of components


@pytest.mark.parametrize("strength", [0.0, 5.0])
@pytest.mark.parametrize("counts", [True, False])
def test_steps_of_coefficients_lower_loss_plus_volume(problem, counts, strength):
    x, s = problem
    rng = np.random.default_rng(1)
    basis = rng.dirichlet(np.ones(15), 6)
    inner = PoissonLoss() if counts else FrobeniusLoss()
    loss = StructuredLoss(inner, s[:1], basis)
    numbers = floored(rng.dirichlet(np.ones(6), 3))
    found = loss.evaluate(x, numbers)
    loadings = inner.loadings(x, loss.spectra(numbers))
    weights = inner.channel_weights(x.sum(axis=0).astype(float))

    def value(a):
        spectra = loss.spectra(a)
        data = naive_objective(x, loadings, spectra, counts=counts)
        return data + strength * log_volume(spectra, weights, 1e-3)

    before, after = value(numbers), value(loss.step(numbers, found, weights, strength, 1e-3))
    assert after < before
    if counts:
        slope = loss.slope(numbers, found, weights, strength, 1e-3)
        np.testing.assert_array_equal(slope.gradient[0], 0.0)
        move = rng.normal(size=numbers.shape) * 1e-5
        move[0] = 0.0
        profiles = []
        for sign in (1.0, -1.0):
            moved = inner.moved(numbers, sign * move)
            spectra = loss.spectra(moved)
            h = inner.loadings(x, spectra)
            profiles.append(
                naive_objective(x, h, spectra, counts=True)
                + strength * log_volume(spectra, weights, 1e-3)
            )
        wanted = 0.5 * (profiles[0] - profiles[1])
        assert float(np.vdot(slope.gradient, move)) == pytest.approx(wanted, rel=0.02)
