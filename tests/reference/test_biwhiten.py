"""Biwhitening against a slow twin: loops, a dense Sinkhorn scaling and a full SVD."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, sparse

import emcube as em
from emcube.engine import ArraySource, SparseSource, resident, run_sweep
from emcube.kernels import biwhiten
from emcube.kernels.rows import rows_from_dense
from emcube.kernels.sampling import alias_tables
from emcube.models import n_components
from emcube.models.sweeps import TotalsSweep


def naive_groups(totals, minimum):
    groups, held = [[]], 0.0
    for i, t in enumerate(totals):
        if held >= minimum:
            groups.append([])
            held = 0.0
        groups[-1].append(i)
        held += t
    if held < minimum and len(groups) > 1:
        last = groups.pop()
        groups[-1] += last
    return groups


def naive_pool(counts, pixel_minimum, channel_minimum):
    pixels = naive_groups(counts.sum(axis=1), pixel_minimum)
    channels = naive_groups(counts.sum(axis=0), channel_minimum)
    return np.array([[counts[np.ix_(p, c)].sum() for c in channels] for p in pixels], float)


def naive_biwhiten(pooled):
    """Scale pooled counts until their rows sum to E and their columns to P; singular values."""
    n_rows, n_columns = pooled.shape
    u, v = np.ones(n_rows), np.ones(n_columns)
    for _ in range(500):
        u = n_columns / (pooled @ v)
        v = n_rows / (pooled.T @ u)
    whitened = np.sqrt(u)[:, None] * pooled * np.sqrt(v)
    return np.linalg.svd(whitened, compute_uv=False)


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    spectra = rng.dirichlet(np.full(150, 0.7), 3)
    return rng.poisson(rng.dirichlet(np.ones(3), 900) @ spectra * 60)


def test_estimate_equals_the_slow_twin(counts):
    got = em.estimate_n_components(counts)
    pooled = naive_pool(counts, 100, 20)
    assert (got.noise["pixels"], got.noise["channels"]) == pooled.shape
    expected = naive_biwhiten(pooled)[: got.curve.sizes["component"]]
    np.testing.assert_allclose(got.curve["singular_value"], expected, rtol=1e-4)
    assert got.n_components == 3


@pytest.mark.parametrize("sparse", [True, False])
def test_pool(sparse):
    rng = np.random.default_rng(1)
    counts = rng.poisson(0.3, (40, 25)).astype(np.uint8)
    groups, n_groups = biwhiten.group_pixels(counts.sum(axis=1), 30)
    channels, _ = biwhiten.group_channels(counts.sum(axis=0), 25, 1000)
    block = rows_from_dense(counts) if sparse else counts
    got = biwhiten.pool(block, groups, n_groups, channels, int(channels[-1]) + 1)
    dense = got.to_dense() if sparse else got
    np.testing.assert_array_equal(dense, naive_pool(counts, 30, 25))


def test_too_few_counts_make_no_group():
    groups, n_groups = biwhiten.group_pixels(np.array([1, 2, 3]), 10)
    assert n_groups == 0
    rows = rows_from_dense(np.ones((3, 2), np.uint8))
    assert biwhiten.pool(rows, groups, 0, np.arange(2), 2).n_pixels == 0
    assert biwhiten.pool(np.ones((3, 2)), groups, 0, np.arange(2), 2).shape == (0, 2)


def test_more_channels_than_allowed_are_joined():
    groups, minimum = biwhiten.group_channels(np.ones(1000), 1, 64)
    assert groups[-1] + 1 <= 64
    assert (np.diff(groups) >= 0).all()
    assert np.bincount(groups).min() >= minimum - 1


@pytest.mark.parametrize("curvature", [0.0, 0.2])
def test_scaled_sums(curvature):
    rng = np.random.default_rng(2)
    counts = rng.poisson(0.5, (30, 12)).astype(np.uint8)
    counts[3] = 0
    v = rng.random(12)
    variance = counts + curvature * counts.astype(float) ** 2
    for block in (rows_from_dense(counts), counts.astype(float)):
        u, sums = biwhiten.scaled_sums(block, v, curvature)
        for i in range(30):
            total = variance[i] @ v
            assert u[i] == pytest.approx(12 / total if total else 0.0)
        np.testing.assert_allclose(sums, variance.T @ u)


def test_sums_of_groups_are_those_of_the_pooled_block():
    rng = np.random.default_rng(3)
    rows = rows_from_dense(rng.poisson(0.4, (50, 20)).astype(np.uint16))
    groups, n_groups = biwhiten.group_pixels(rows.pixel_totals(), 12)
    channels, _ = biwhiten.group_channels(rows.channel_totals(), 30, 100)
    v = rng.random(int(channels[-1]) + 1)
    pooled = biwhiten.pool(rows, groups, n_groups, channels, v.size)
    _, expected = biwhiten.scaled_sums(pooled, v, 0.0)
    got = biwhiten.scaled_sums_of_groups(rows, groups, channels, v)
    np.testing.assert_allclose(got, expected)


@pytest.mark.parametrize("ratio", [0.05, 0.5, 1.0])
def test_marchenko_pastur(ratio):
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2

    def density(x):
        return np.sqrt(max((high - x) * (x - low), 0)) / (2 * np.pi * ratio * max(x, 1e-12))

    for x in np.linspace(low, high, 7)[1:-1]:
        expected, _ = integrate.quad(density, low, x, limit=200)
        assert biwhiten.marchenko_pastur_cdf(np.array([x]), ratio)[0] == pytest.approx(
            expected, abs=2e-3
        )
    middle = biwhiten.marchenko_pastur_median(ratio)
    assert biwhiten.marchenko_pastur_cdf(np.array([middle]), ratio)[0] == pytest.approx(
        0.5, abs=1e-6
    )


def test_noise_follows_the_law_and_stays_below_its_edge():
    rng = np.random.default_rng(4)
    beyond = 0
    for _ in range(60):
        noise = rng.normal(size=(200, 60))
        values = np.linalg.svd(noise, compute_uv=False)
        beyond += values[0] > biwhiten.noise_edge(200, 60)
        assert biwhiten.spectrum_distance(values**2 / 200, 0.3) < 0.06
    assert beyond <= 3
    assert biwhiten.noise_edge(10**6, 1000) == pytest.approx(1000 + np.sqrt(1000), rel=1e-3)


def test_spectrum_distance_of_something_else():
    assert biwhiten.spectrum_distance(np.full(50, 3.0), 0.3) == pytest.approx(1.0)
    assert biwhiten.spectrum_distance(np.zeros(0), 0.3) == 1.0


def test_elbow():
    assert biwhiten.elbow(np.array([1e4, 5e3, 2e3, 9, 8.5, 8, 7.6, 7.2, 7, 6.9])) == 3
    assert biwhiten.elbow(np.array([5.0])) == 1


@pytest.mark.parametrize("n_channels", [3, 64, 65, 200])
def test_pooled_rows_of_any_width(n_channels):
    rng = np.random.default_rng(6)
    values = rng.poisson(0.3, (80, n_channels)).astype(np.uint16)
    values[10:20] = 0
    rows = rows_from_dense(values)
    pixels, channels = np.arange(80) // 7, np.minimum(np.arange(n_channels) // 2, n_channels - 2)
    pooled = biwhiten.pool(rows, pixels, 12, channels, int(channels[-1]) + 1)
    expected = np.zeros(pooled.shape, int)
    np.add.at(expected, (pixels[:, None], channels), values)
    np.testing.assert_array_equal(pooled.to_dense(int), expected)


def test_groups_of_one_are_the_block_itself():
    rows = rows_from_dense(np.eye(5, dtype=np.uint8))
    assert biwhiten.pool(rows, np.arange(5), 5, np.arange(5), 5) is rows


@pytest.mark.parametrize("curvature", [0.0, 0.3])
def test_row_scales_are_those_of_the_scaled_sums(curvature):
    rng = np.random.default_rng(7)
    values = rng.poisson(0.5, (40, 9)).astype(np.uint16)
    values[4] = 0
    v = rng.random(9)
    expected = np.array(
        [9 / t if t else 0 for t in ((y + curvature * y**2) @ v for y in values.astype(float))]
    )
    for block in (values.astype(float), rows_from_dense(values)):
        got = biwhiten.row_scales(block, v, curvature)
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        np.testing.assert_array_equal(biwhiten.scaled_sums(block, v, curvature)[0], got)


def test_events_are_counted():
    rng = np.random.default_rng(8)
    n_events = rng.poisson(5, 30)
    channels = rng.integers(0, 70, n_events.sum())
    rows = biwhiten.rows_of_events(n_events, channels, 70)
    expected = np.zeros((30, 70), int)
    np.add.at(expected, (np.repeat(np.arange(30), n_events), channels), 1)
    np.testing.assert_array_equal(rows.to_dense(int), expected)
    np.testing.assert_array_equal(rows.pixel_totals(), n_events)


def test_the_extrapolated_scaling_ends_where_the_plain_one_does(monkeypatch):
    rng = np.random.default_rng(11)
    spectra = rng.dirichlet(np.full(40, 0.7), 3)
    counts = 1 + rng.poisson(rng.dirichlet(np.full(3, 0.2), 300) @ spectra * 2000)
    pooling = n_components._Pooling(1.0, np.arange(40), 40)
    sweep = n_components.ScalingSweep(pooling, 0.0, np.ones(40))
    source = SparseSource.from_matrix(sparse.csr_array(counts))
    monkeypatch.setattr(n_components, "SCALING_TOLERANCE", 1e-9)
    quick = run_sweep(sweep, source, max_rounds=60)
    monkeypatch.setattr(n_components, "MEMORY", 0)
    plain = run_sweep(sweep, source, max_rounds=3000)
    assert quick.converged
    assert plain.converged
    np.testing.assert_allclose(quick.state.columns, plain.state.columns, rtol=1e-5)
    assert quick.n_rounds < 0.6 * plain.n_rounds


@pytest.mark.parametrize("n", [1, 2, 50, 300])
def test_the_second_eigenvalue(n):
    values = np.random.default_rng(9).normal(size=(900, n)) + 0.3
    gram = values.T @ values
    expected = np.linalg.eigvalsh(gram)[-2] if n > 1 else 0.0
    assert n_components._second_eigenvalue(gram) == pytest.approx(expected, rel=1e-10)
    assert n_components._second_eigenvalue(np.zeros((n, n))) == 0.0


def test_events_and_cells_simulate_the_same_counts():
    """The same moments of each cell, by both ways of drawing."""
    rng = np.random.default_rng(10)
    totals = rng.dirichlet(np.full(30, 0.5)) * 1e6 + 1
    grams = []
    for per_pixel in (20.0, 40.0):  # less and more than one count a cell
        blocks = n_components._as_blocks(np.full(40_000, per_pixel))
        assert blocks.plan.n_blocks == n_components.NULL_BLOCKS
        sweep = n_components.ParallelSweep(totals, None, False, alias_tables(totals))
        parts = [sweep.map(blocks.load(i), None, (3, 0, i)) for i in range(blocks.plan.n_blocks)]
        gram = np.triu(sum(parts)) / 40_000
        mean = totals / totals.sum()
        expected = np.triu(per_pixel * np.outer(mean, mean) + np.diag(mean))
        np.testing.assert_allclose(gram, expected, rtol=0.05, atol=2e-3)
        grams.append(gram)
    assert not np.allclose(*grams, rtol=0.05)


def test_the_estimate_reads_once_a_round_and_twice_besides(counts):
    loads = []

    class Watched(ArraySource):
        def load(self, block_id):
            loads.append(block_id)
            return super().load(block_id)

    with resident(limit=0):
        source = ArraySource.from_array(counts, 1)
        watched = Watched(source.plan, source.selection, "watched", source.array)
        totals = run_sweep(TotalsSweep(counts=True), watched).state
        fit = n_components._best_fit(watched, totals, "poisson", True, 100.0, 20.0, 0)
        assert n_components._parallel(fit, 0) == 3
    assert len(loads) == (2 + fit.scaling.n_rounds) * source.plan.n_blocks


@pytest.mark.parametrize("n_above", [0, 3, 8, 20])
@pytest.mark.parametrize("n", [40, 250])
def test_the_vectors_above_a_bound(n, n_above):
    rng = np.random.default_rng(12)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    values = np.concatenate((rng.random(n - n_above), 10 + np.arange(n_above)))
    gram = basis * values @ basis.T
    found = n_components._vectors_above(0.5 * (gram + gram.T), 5.0)
    assert found.shape == (n, n_above)
    overlap = np.abs(found.T @ basis[:, n - n_above :])
    np.testing.assert_allclose(overlap, np.eye(n_above), atol=1e-8)
