"""Gibbs kernels against distributions known in closed form, and convergence measures against slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from emcube.kernels import gibbs as kernel
from emcube.kernels.convergence import effective_size, split_r_hat, tail_size
from emcube.kernels.rows import rows_from_dense


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, np.inf), (-0.3, 0.4), (-4.0, 3.0), (2.5, np.inf), (2.0, 2.3), (-9.0, -3.0)],
)
def test_normal_numbers_between_bounds(low, high):
    draws = kernel.between(0.5, 2.0, low, high, 20000, 7)
    known = stats.truncnorm((low - 0.5) / 2, (high - 0.5) / 2, 0.5, 2.0)
    assert draws.min() >= low
    assert draws.max() <= high
    assert stats.kstest(draws, known.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("trials", "p"), [(5, 0.3), (40, 0.02), (200, 0.9), (60, 0.5), (100000, 0.37)]
)
def test_binomial_numbers(trials, p):
    draws = kernel.binomials(trials, p, 20000, 11)
    known = stats.binom(trials, p)
    assert draws.mean() == pytest.approx(known.mean(), abs=4 * known.std() / 140)
    assert draws.var() == pytest.approx(known.var(), rel=0.05)
    edges = np.unique(known.ppf([0.1, 0.25, 0.5, 0.75, 0.9]))
    found = np.array([(draws <= edge).mean() for edge in edges])
    np.testing.assert_allclose(found, known.cdf(edges), atol=0.015)


def share_posterior(x, spectra, odds, alpha, n=2000):
    """Of two components: chances of holding either alone or both, and mean share of the first, on a grid."""
    s, t = spectra
    chances = [odds[0] * np.prod(s**x), odds[1] * np.prod(t**x)]
    w = (np.arange(n) + 0.5) / n
    prior = stats.beta(alpha, alpha).pdf(w)
    likelihood = np.prod((w[:, None] * s + (1 - w[:, None]) * t) ** x, axis=1)
    chances.append(odds[0] * odds[1] * (prior * likelihood).mean())
    inside = (prior * likelihood * w).mean() / (prior * likelihood).mean()
    chances = np.array(chances) / np.sum(chances)
    return chances, chances[0] + chances[2] * inside


@pytest.mark.parametrize("alpha", [1.0, 2.5])
@pytest.mark.parametrize("n_tries", [None, 1])
def test_shares_have_the_right_posterior(alpha, n_tries):
    """Births, deaths, changes of place, dealing and drawing together, against a sum over a grid."""
    spectra = np.array([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])
    odds = np.array([0.4, 2.0])
    for x in np.array([[9, 6, 2], [0, 0, 3], [2, 0, 0], [0, 0, 0], [30, 25, 20]]):
        rows = np.repeat(x[None].astype(float), 500, axis=0)
        stream = kernel.streams((3, 1), 500)
        shares = np.full((500, 2), 0.5)
        some = {"concentration": alpha, "n_tries": n_tries}
        kernel.poisson_draws(rows, spectra, shares, odds, stream, n_steps=40, **some)
        draws = np.zeros((80, 500, 2))
        kernel.poisson_draws(rows, spectra, shares, odds, stream, n_steps=80, draws=draws, **some)
        np.testing.assert_allclose(draws.sum(axis=-1), 1.0, atol=1e-12)
        chances, mean = share_posterior(x, spectra, odds, alpha)
        both = (draws > 0).all(axis=-1).mean()
        alone = (draws[..., 1] == 0).mean()
        assert alone == pytest.approx(chances[0], abs=0.02)
        assert both == pytest.approx(chances[2], abs=0.02)
        assert draws[..., 0].mean() == pytest.approx(mean, abs=0.015)


class NaiveSampler:
    """The same model, as slowly and as plainly as can be: every choice by its full list of chances.

    Two components. Shares are a point of a grid or an end of it; each count is dealt by `choice`.
    """

    def __init__(self, alpha, chances, channel_prior, rng, n=60):
        self.alpha, self.chances, self.channel_prior, self.rng = alpha, chances, channel_prior, rng
        self.grid = np.concatenate([[1.0, 0.0], (np.arange(n) + 0.5) / n])
        odds = chances / (1 - chances)
        inner = stats.beta(alpha, alpha).pdf(self.grid[2:]) / n
        self.prior = np.concatenate([[odds[0], odds[1]], odds[0] * odds[1] * inner])

    def share(self, x, spectra):
        mean = self.grid[:, None] * spectra[0] + (1 - self.grid[:, None]) * spectra[1]
        weights = self.prior * np.prod(mean**x, axis=1)
        w = self.rng.choice(self.grid, p=weights / weights.sum())
        return np.array([w, 1 - w])

    def step(self, x, spectra):
        """Shares (P, 2) and components after one pass."""
        shares = np.array([self.share(row, spectra) for row in x])
        counted = np.zeros(spectra.shape)
        for row, share in zip(x, shares, strict=True):
            for channel, count in enumerate(row):
                for _ in range(count):
                    part = share * spectra[:, channel]
                    counted[self.rng.choice(2, p=part / part.sum()), channel] += 1
        return shares, np.array([self.rng.dirichlet(c + self.channel_prior) for c in counted])


def test_a_pass_agrees_with_the_naive_twin():
    """Components and shares of a small scene: means and deviations of both samplers' chains."""
    rng = np.random.default_rng(5)
    true = np.array([[0.55, 0.3, 0.1, 0.05], [0.05, 0.15, 0.3, 0.5]])
    w = np.concatenate([np.ones(8), np.zeros(8), rng.random(8)])
    x = rng.poisson(25 * (w[:, None] * true[0] + (1 - w[:, None]) * true[1])).astype(np.uint8)
    chances = np.array([0.6, 0.7])
    naive = NaiveSampler(1.0, chances, 0.5, np.random.default_rng(6))
    spectra, slow = true, []
    for i in range(260):
        shares, spectra = naive.step(x, spectra)
        if i >= 20:
            slow.append(np.concatenate([spectra.ravel(), shares[:, 0]]))
    rows, quick = rows_from_dense(x), []
    shares, spectra = np.full((24, 2), 0.5), true
    stream, draw = kernel.streams((1,), 24), np.random.default_rng(7)
    for i in range(2100):
        kernel.poisson_draws(x, spectra, shares, chances / (1 - chances), stream, n_steps=2)
        counted = kernel.dealt(rows, spectra, shares, stream)
        spectra = np.array([draw.dirichlet(c + 0.5) for c in counted])
        if i >= 100:
            quick.append(np.concatenate([spectra.ravel(), shares[:, 0]]))
    slow, quick = np.array(slow), np.array(quick)
    deviation = slow.std(axis=0)
    error = deviation / np.sqrt(effective_size(slow[None])) + 0.01
    assert (np.abs(slow.mean(axis=0) - quick.mean(axis=0)) < 4 * error).all()
    np.testing.assert_allclose(quick.std(axis=0), deviation, atol=0.04)


def test_data_and_parameters_drawn_in_turn_keep_the_prior():
    """Geweke's joint test: draw all from the prior, then data and parameters given each other.

    J. Geweke, J. Am. Stat. Assoc. 99 (2004) 799, doi:10.1198/016214504000001132.
    """
    rng = np.random.default_rng(1)
    n_chains, p, k, e, alpha, prior = 300, 4, 2, 5, 1.5, 2.0
    chances = np.array([0.7, 0.5])

    def of_prior():
        spectra = rng.dirichlet(np.full(e, prior), k)
        holds = np.zeros((p, k), bool)
        for row in holds:
            while not row.any():
                row[:] = rng.random(k) < chances
        shares = np.where(holds, rng.gamma(alpha, size=(p, k)), 0.0)
        return spectra, shares / shares.sum(axis=1, keepdims=True)

    def looked_at(spectra, shares):
        first = shares[:, 0]
        return [
            (shares[:, 0] == 0).mean(),
            (shares[:, 1] == 0).mean(),
            first.mean(),
            (first * first).mean(),
            spectra[0, 0],
            spectra[0, 0] * spectra[1, 1],
            (first * spectra[0, 2]).mean(),
        ]

    fresh = np.array([looked_at(*of_prior()) for _ in range(6000)])
    after = []
    for chain in range(n_chains):
        spectra, shares = of_prior()
        stream = kernel.streams((2, chain), p)
        for step in range(12):
            x = rng.poisson(9.0 * shares @ spectra).astype(np.uint8)
            odds = chances / (1 - chances)
            kernel.poisson_draws(x, spectra, shares, odds, stream, concentration=alpha)
            counted = kernel.dealt(rows_from_dense(x), spectra, shares, stream)
            spectra = np.array([rng.dirichlet(c + prior) for c in counted])
            if step >= 8:
                after.append(looked_at(spectra, shares))
    after = np.array(after).reshape(n_chains, 4, -1).mean(axis=1)
    error = np.hypot(after.std(axis=0) / np.sqrt(n_chains), fresh.std(axis=0) / np.sqrt(6000))
    assert (np.abs(after.mean(axis=0) - fresh.mean(axis=0)) < 4 * error).all()


def test_laplace_starts_near_the_posterior():
    """Four steps from there the shares are where many steps lead."""
    rng = np.random.default_rng(0)
    spectra = rng.dirichlet(np.full(30, 0.6), 3)
    spectra = 0.5 * spectra + 0.5 * spectra.mean(axis=0)
    x = rng.poisson(np.array([40.0, 20.0, 10.0]) @ spectra).astype(np.uint8)
    rows = rows_from_dense(np.repeat(x[None], 4000, axis=0))
    from emcube.kernels.poisson_nmf import poisson_loadings

    modes, odds = poisson_loadings(rows, spectra), np.full(3, 1.0)
    stream = kernel.streams((5,), 4000)
    few = kernel.scattered(rows, spectra, modes, np.zeros(3), stream)
    few /= few.sum(axis=1, keepdims=True)
    cells = rows.to_dense()
    kernel.poisson_draws(cells, spectra, few, odds, stream, n_steps=4)
    many = few.copy()
    kernel.poisson_draws(cells, spectra, many, odds, stream, n_steps=100)
    deviation = many.std(axis=0)
    assert (np.abs(few.mean(axis=0) - many.mean(axis=0)) < 0.25 * deviation).all()
    np.testing.assert_allclose(few.std(axis=0), deviation, rtol=0.2)


def test_counts_are_given_away_whole():
    counts = np.random.default_rng(0).poisson(2.0, (50, 12)).astype(np.uint16)
    counts[7, 3] = 5000  # dealt by binomial numbers
    rows = rows_from_dense(counts)
    spectra = np.random.default_rng(1).dirichlet(np.ones(12), 3)
    shares = np.tile([0.5, 0.5, 0.0], (50, 1))
    counted = kernel.dealt(rows, spectra, shares, kernel.streams((1,), 50))
    np.testing.assert_array_equal(counted.sum(axis=0), counts.sum(axis=0))
    np.testing.assert_array_equal(counted, np.rint(counted))
    assert (counted[2] == 0).all()
    chance = spectra[:2, 3] / spectra[:2, 3].sum()
    assert counted[0, 3] == pytest.approx(5000 * chance[0], abs=200)


def test_groups_of_channels_lose_little():
    """Sums over groups tell as much of the shares as the channels do."""
    rng = np.random.default_rng(2)
    spectra = rng.dirichlet(np.full(800, 0.4), 3)
    spectra = 0.6 * spectra + 0.4 * spectra.mean(axis=0)
    labels = kernel.channel_groups(spectra)
    assert np.unique(labels).size == kernel.N_GROUPS
    narrow = np.array([np.bincount(labels, weights=s) for s in spectra])
    for shares in ([0.34, 0.33, 0.33], [0.9, 0.08, 0.02], [0.05, 0.05, 0.9]):
        whole = (spectra / (shares @ spectra)) @ spectra.T
        part = (narrow / (shares @ narrow)) @ narrow.T
        apart = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]])
        whole, part = apart @ whole @ apart.T, apart @ part @ apart.T
        kept = np.linalg.eigvals(np.linalg.solve(whole, part)).real
        assert kept.min() > 0.97
    np.testing.assert_array_equal(kernel.channel_groups(spectra[:, :20]), np.arange(20))
    counts = rng.poisson(300 * spectra).astype(np.uint8)
    cells = kernel.grouped(rows_from_dense(counts), labels)
    np.testing.assert_array_equal(cells, [np.bincount(labels, weights=c) for c in counts])


def test_gamma_numbers():
    shapes = np.repeat([0.5, 3.0, 200.0], 20000)
    draws = kernel.gammas(shapes, kernel.streams((4,), shapes.size)).reshape(3, -1)
    for shape, some in zip([0.5, 3.0, 200.0], draws, strict=True):
        assert stats.kstest(some, stats.gamma(shape).cdf).pvalue > 1e-3


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
    """Of ranks' scores of split chains: of the values, and of their distances from the median."""
    half = draws.shape[1] // 2
    chains = np.array([c for d in draws for c in (d[:half], d[len(d) - half :])])

    def plain(values):
        ranks = stats.rankdata(values).reshape(values.shape)
        z = stats.norm.ppf((ranks - 3 / 8) / (values.size + 1 / 4))
        within = np.mean([np.var(c, ddof=1) for c in z])
        between = half * np.var([np.mean(c) for c in z], ddof=1)
        return np.sqrt(((half - 1) / half * within + between / half) / within)

    return max(plain(chains), plain(np.abs(chains - np.median(chains))))


def test_r_hat_and_effective_size():
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(2, 40)) + np.array([[0.0], [3.0]])
    even = rng.normal(size=(4, 500))
    assert split_r_hat(apart) == pytest.approx(naive_r_hat(apart))
    assert split_r_hat(apart) > 1.5
    assert split_r_hat(even) == pytest.approx(1.0, abs=0.02)
    # Chains that agree in place and not in spread; a mean that does not exist.
    wide = even * np.array([[1.0], [1.0], [4.0], [4.0]])
    assert split_r_hat(wide) == pytest.approx(naive_r_hat(wide))
    assert split_r_hat(wide) > 1.1
    assert split_r_hat(np.tan(np.pi * (rng.random((4, 500)) - 0.5))) < 1.02
    assert effective_size(even) == pytest.approx(2000, rel=0.2)
    assert tail_size(even) == pytest.approx(2000, rel=0.3)
    slow = np.zeros((4, 2000))
    for i in range(1, 2000):
        slow[:, i] = 0.8 * slow[:, i - 1] + rng.normal(size=4)
    # Of an autoregression: (1 - 0.8) / (1 + 0.8).
    assert effective_size(slow) == pytest.approx(8000 / 9, rel=0.25)
    assert tail_size(slow) < 2500
    both = split_r_hat(np.stack([even, np.zeros((4, 500))], axis=-1))
    assert both.shape == (2,)
    assert np.isnan(both[1])
    assert np.isnan(effective_size(np.zeros((2, 3))))
