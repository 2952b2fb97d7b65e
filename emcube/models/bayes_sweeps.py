"""The passes over blocks that `emcube.models.bayes` is made of: a pass is a Gibbs step of all chains.

A chain's state is its components and a few numbers. The loadings of a pixel are drawn anew in every pass,
from a start that depends on its values, the components and the random numbers of (seed, chain, round, block)
alone: nothing is kept for a pixel between passes, and a block that is mapped twice gives the same twice.

Letters: P pixels, E used channels, K components, C chains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from emcube.errors import InputError
from emcube.kernels.frobenius_nmf import frobenius_loadings, pieces
from emcube.kernels.gibbs import (
    content_streams,
    gaussian_draws,
    poisson_draws,
    scattered,
    streams,
)
from emcube.kernels.poisson_nmf import PASS_TOLERANCE, as_rows, floored, poisson_loadings
from emcube.kernels.rows import CountRows
from emcube.models.labels import require_finite_counts, require_finite_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey

__all__ = ["Chain", "CountModel", "DenseModel", "GibbsSweep", "Moments", "UnmixingModel"]

CHANNEL_PRIOR = 0.5
"""Counts of a channel that a component has beforehand (Jeffreys' prior of a multinomial)."""

COUNT_STEPS, DENSE_STEPS = 3, 20
"""Gibbs steps of the loadings in a pass. Counts begin at Laplace's approximation, dense values at the
mode."""

SPECTRUM_STEPS = 3
"""Gibbs steps of the components of dense values in a pass, given all loadings."""

TILE_PIXELS = 4096
"""Pixels whose draws are held at a time."""


@dataclass(frozen=True, eq=False)
class Moments:
    """What a pass tells a chain of its components; it adds.

    Attributes
    ----------
    crossed : ndarray, shape (K, E)
        Counts given to each component; of dense values sum_p h_pk x_p.
    gram : ndarray, shape (K, K)
        sum_p h_pk h_pj (dense values; else zeros).
    totals : ndarray, shape (K,)
        sum_p h_pk.
    square : float
        sum x^2 (dense values).
    n_pixels : float
        Pixels; those without counts are not among them.
    """

    crossed: NDArray[np.float64]
    gram: NDArray[np.float64]
    totals: NDArray[np.float64]
    square: float
    n_pixels: float

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.crossed + other.crossed,
            self.gram + other.gram,
            self.totals + other.totals,
            self.square + other.square,
            self.n_pixels + other.n_pixels,
        )

    def times(self, factor: float) -> Moments:
        """All of it multiplied."""
        return Moments(
            self.crossed * factor,
            self.gram * factor,
            self.totals * factor,
            self.square * factor,
            self.n_pixels * factor,
        )

    def taken(self, order: NDArray[np.int64]) -> Moments:
        """The components in another order."""
        gram = self.gram[np.ix_(order, order)]
        return Moments(self.crossed[order], gram, self.totals[order], self.square, self.n_pixels)


@dataclass(frozen=True, eq=False)
class Chain:
    """Where one chain stands, and the draws that it has kept.

    Attributes
    ----------
    spectra : ndarray, shape (K, E)
    rates : ndarray, shape (K,)
        Of the prior of the loadings (counts); else zeros.
    variance : float
        Of the noise (dense values); else zero.
    kept_spectra, kept_rates, kept_totals : tuple of ndarray
        A draw each.
    kept_variances : tuple of float
    summed : Moments or None
        Of the passes that were kept.
    """

    spectra: NDArray[np.float64]
    rates: NDArray[np.float64]
    variance: float
    kept_spectra: tuple[NDArray[np.float64], ...] = ()
    kept_rates: tuple[NDArray[np.float64], ...] = ()
    kept_totals: tuple[NDArray[np.float64], ...] = ()
    kept_variances: tuple[float, ...] = ()
    summed: Moments | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Workers need no draws.
        bare = Chain(self.spectra, self.rates, self.variance)
        return dict(vars(bare))

    def keeping(self, moments: Moments) -> Chain:
        """With what it is now as a further draw."""
        return replace(
            self,
            kept_spectra=(*self.kept_spectra, self.spectra),
            kept_rates=(*self.kept_rates, self.rates),
            kept_totals=(*self.kept_totals, moments.totals),
            kept_variances=(*self.kept_variances, self.variance),
            summed=moments if self.summed is None else self.summed + moments,
        )


class UnmixingModel(Protocol):
    """What a sweep asks of a model of the data."""

    def moments(self, block: Block, chain: Chain, seed: tuple[int, ...]) -> Moments:
        """Draw the loadings of a block and sum what they tell of the components."""
        ...

    def drawn(self, chain: Chain, moments: Moments, rng: np.random.Generator) -> Chain:
        """Draw components and the rest, given all loadings."""
        ...

    def posterior(
        self, block: Block, chains: tuple[Chain, ...], seed: int, level: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean (p, K), standard deviation (p, K) and interval (p, K, 2) of the loadings, over given draws."""
        ...


@dataclass(frozen=True, eq=False)
class GibbsSweep:
    """Gibbs steps of C chains in the same passes: loadings on the workers, components in the client."""

    model: Any
    chains: tuple[Chain, ...]
    n_warmup: int
    n_draws: int
    seed: int
    earlier: Moments | None = None
    name: str = "Gibbs sampling"

    def start(self) -> tuple[Chain, ...]:
        """The given chains."""
        return self.chains

    def map(self, block: Block, state: tuple[Chain, ...], rng_key: RngKey) -> tuple[Moments, ...]:
        """Moments of one block for each chain."""
        return tuple(
            self.model.moments(block, chain, (*rng_key, i)) for i, chain in enumerate(state)
        )

    def combine(self, a: tuple[Moments, ...], b: tuple[Moments, ...]) -> tuple[Moments, ...]:
        """Add, chain by chain."""
        return tuple(x + y for x, y in zip(a, b, strict=True))

    def step(
        self, state: tuple[Chain, ...], statistic: tuple[Moments, ...], round_number: int
    ) -> tuple[tuple[Chain, ...], bool]:
        """Draw the components of each chain."""
        new = []
        for i, (chain, moments) in enumerate(zip(state, statistic, strict=True)):
            rng = np.random.default_rng((self.seed, round_number, i))
            seen = moments if self.earlier is None else moments + self.earlier
            moved = self.model.drawn(chain, seen, rng)
            new.append(moved.keeping(moments) if round_number >= self.n_warmup else moved)
        return tuple(new), round_number + 1 >= self.n_warmup + self.n_draws

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * len(self.chains) * self.chains[0].spectra.size

    def state_bytes(self, n_channels: int) -> int:
        """Bytes of the chains with all their draws."""
        return (self.n_draws + 3) * self.statistic_bytes(n_channels)


# -------------------------------------------------------------------------------------------- counts


@dataclass(frozen=True)
class CountModel:
    """Poisson counts, gamma loadings, Dirichlet components.

    Parameters
    ----------
    shape : float
        Of the prior of the loadings.
    n_steps : int
        Gibbs steps of the loadings in a pass.
    """

    shape: float
    n_steps: int = COUNT_STEPS

    def moments(self, block: Block, chain: Chain, seed: tuple[int, ...]) -> Moments:
        """Draw the loadings of a block, and whose its counts are."""
        rows = whole_counts(block)
        spectra = floored(chain.spectra)
        stream = streams(seed, rows.n_pixels)
        modes = poisson_loadings(rows, spectra, PASS_TOLERANCE)
        loadings = scattered(rows, spectra, modes, chain.rates, stream)
        counted = np.zeros((rows.n_channels, len(spectra)))
        poisson_draws(
            rows,
            spectra,
            loadings,
            chain.rates,
            stream,
            shape=self.shape,
            n_steps=self.n_steps,
            counted=counted,
        )
        full = np.flatnonzero(np.diff(rows.indptr))
        k = len(spectra)
        totals = loadings[full].sum(axis=0)
        crossed = np.ascontiguousarray(counted.T)
        return Moments(crossed, np.zeros((k, k)), totals, 0.0, float(full.size))

    def drawn(self, chain: Chain, moments: Moments, rng: np.random.Generator) -> Chain:
        """Dirichlet components; gamma rates."""
        seen = moments.crossed.any(axis=0)
        weights = rng.standard_gamma(moments.crossed + np.where(seen, CHANNEL_PRIOR, 0.0))
        shapes = self.shape * max(1.0, moments.n_pixels)
        rates = rng.standard_gamma(shapes, size=len(weights)) / np.maximum(moments.totals, 1e-300)
        spectra = weights / weights.sum(axis=1, keepdims=True)
        return replace(chain, spectra=spectra, rates=rates)

    def posterior(
        self, block: Block, chains: tuple[Chain, ...], seed: int, level: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Moments of the loadings, and the interval of the gamma distribution that has them."""
        rows = whole_counts(block)
        k = len(chains[0].spectra)
        mean, square = np.zeros((rows.n_pixels, k)), np.zeros((rows.n_pixels, k))
        for start in range(0, rows.n_pixels, TILE_PIXELS):
            some = rows.take(np.arange(start, min(start + TILE_PIXELS, rows.n_pixels)))
            found = self._sums(some, chains, seed)
            mean[start : start + some.n_pixels] = found[0]
            square[start : start + some.n_pixels] = found[1]
        deviation = np.sqrt(square)
        return mean, deviation, gamma_interval(mean, deviation, level)

    def _sums(
        self, rows: CountRows, chains: tuple[Chain, ...], seed: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of the loadings of some pixels."""
        stream = content_streams(seed, rows)
        middle = floored(np.mean([chain.spectra for chain in chains], axis=0))
        modes = poisson_loadings(rows, middle, PASS_TOLERANCE)
        loadings = scattered(rows, middle, modes, chains[0].rates, stream)
        poisson_draws(
            rows, middle, loadings, chains[0].rates, stream, shape=self.shape, n_steps=self.n_steps
        )
        moments = np.zeros((3, *loadings.shape))
        for chain in chains:
            poisson_draws(
                rows,
                floored(chain.spectra),
                loadings,
                chain.rates,
                stream,
                shape=self.shape,
                n_steps=self.n_steps,
                moments=moments,
            )
        moments /= len(chains) * self.n_steps
        mean, squares, own = moments
        return mean, own + np.maximum(squares - mean * mean, 0.0)


def whole_counts(block: Block) -> CountRows:
    """Rows of a block of counts.

    Raises
    ------
    InputError
        A value is negative, or no whole number.
    """
    require_finite_counts(block)
    data = block.data
    if not isinstance(data, CountRows) and data.dtype.kind == "f":
        broken = np.flatnonzero((data != np.rint(data)).any(axis=1))
        if broken.size:
            pixel = int(broken[0])
            value = data[pixel][data[pixel] != np.rint(data[pixel])][0]
            raise InputError(
                f"the gamma-poisson model needs whole counts, pixel {pixel} of a block holds {value}",
                hint="use model='gaussian' for values that are no counts",
            )
    return as_rows(data)


def gamma_interval(
    mean: NDArray[np.float64], deviation: NDArray[np.float64], level: float
) -> NDArray[np.float64]:
    """Intervals (..., 2) that hold a share `level` of gamma distributions of given moments.

    With equal tails; where zero lies within the same number of standard deviations of the mean, from zero on
    with one tail: a lower bound above it would say that something is there.
    """
    from scipy.special import gammaincinv, ndtri

    tail = 0.5 * (1.0 - level)
    variance = np.square(deviation)
    flat = (variance <= 0.0) | (mean <= 0.0)
    scale = np.where(flat, 1.0, variance) / np.where(flat, 1.0, mean)
    shape = np.where(flat, 1.0, mean) / scale
    reach = float(ndtri(1.0 - tail))
    near = shape < reach * reach
    # Far from zero a gamma distribution is a normal one, whose quantiles need no series.
    far = shape > 1e6
    safe = np.where(far, 1.0, shape)
    upper = gammaincinv(safe, np.where(near, level, 1.0 - tail)) * scale
    lower = np.where(near, 0.0, gammaincinv(safe, tail) * scale)
    upper = np.where(far, mean + reach * deviation, upper)
    lower = np.where(far, mean - reach * deviation, lower)
    both = np.stack([np.where(flat, mean, lower), np.where(flat, mean, upper)], axis=-1)
    return np.asarray(both)


# -------------------------------------------------------------------------------------- dense values


@dataclass(frozen=True)
class DenseModel:
    """Normal noise of one size, positive components, loadings positive or (`simplex`) summing to one too."""

    simplex: bool
    n_steps: int = DENSE_STEPS

    def moments(self, block: Block, chain: Chain, seed: tuple[int, ...]) -> Moments:
        """Draw the loadings of a block."""
        require_finite_values(block)
        spectra, k = chain.spectra, len(chain.spectra)
        stream = streams(seed, block.n_pixels)
        out = Moments(np.zeros(spectra.shape), np.zeros((k, k)), np.zeros(k), 0.0, 0.0)
        for first, part in pieces(block.data):
            n = part.shape[0]
            own = np.ascontiguousarray(stream[first : first + n])
            products = _products(part, spectra)
            loadings = self._start(part, spectra)
            gaussian_draws(
                products,
                spectra @ spectra.T,
                chain.variance,
                loadings,
                own,
                simplex=self.simplex,
                n_steps=self.n_steps,
            )
            sparse = isinstance(part, CountRows)
            crossed = part.rmatmul(loadings) if sparse else loadings.T @ part
            values = part.counts if sparse else part
            out = out + Moments(
                crossed,
                loadings.T @ loadings,
                loadings.sum(axis=0),
                float(np.square(values, dtype=np.float64).sum()),
                float(n),
            )
        return out

    def _start(self, part: Any, spectra: NDArray[np.float64]) -> NDArray[np.float64]:
        """Least squares without negative loadings, which on the simplex are divided by their sum."""
        loadings = frobenius_loadings(part, spectra)
        if not self.simplex:
            return loadings
        sums = loadings.sum(axis=1, keepdims=True)
        even = np.full(loadings.shape, 1.0 / loadings.shape[1])
        return np.where(sums > 0.0, loadings / np.where(sums > 0.0, sums, 1.0), even)

    def drawn(self, chain: Chain, moments: Moments, rng: np.random.Generator) -> Chain:
        """Variance of the noise (inverse gamma), then components (normal, cut at zero)."""
        spectra, gram = chain.spectra.copy(), moments.gram
        left = moments.square - 2.0 * float((spectra * moments.crossed).sum())
        left += float(((spectra @ spectra.T) * gram).sum())
        n_values = moments.n_pixels * spectra.shape[1]
        # A model that describes all values exactly has no noise; a trifle keeps the draws defined.
        left = max(left, 1e-12 * moments.square)
        variance = 0.5 * left / float(rng.standard_gamma(0.5 * n_values))
        for _ in range(SPECTRUM_STEPS):
            for k in range(len(spectra)):
                others = gram[k] @ spectra - gram[k, k] * spectra[k]
                own = max(float(gram[k, k]), 1e-300)
                mean = (moments.crossed[k] - others) / own
                spectra[k] = _positive_normal(mean, np.sqrt(variance / own), rng)
        if not self.simplex:
            # Loadings carry the scale: they are drawn anew for these components.
            sums = spectra.sum(axis=1, keepdims=True)
            spectra = spectra / np.where(sums > 0.0, sums, 1.0)
        return replace(chain, spectra=spectra, variance=variance)

    def posterior(
        self, block: Block, chains: tuple[Chain, ...], seed: int, level: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Moments and quantiles of the draws of the loadings."""
        require_finite_values(block)
        p, k = block.n_pixels, len(chains[0].spectra)
        mean, deviation, interval = np.zeros((p, k)), np.zeros((p, k)), np.zeros((p, k, 2))
        for first, piece in pieces(block.data):
            for start in range(0, piece.shape[0], TILE_PIXELS):
                stop = min(start + TILE_PIXELS, piece.shape[0])
                some = slice(first + start, first + stop)
                rows = isinstance(piece, CountRows)
                part = piece.take(np.arange(start, stop)) if rows else piece[start:stop]
                draws = self._draws(part, chains, seed)
                mean[some] = draws.mean(axis=0)
                deviation[some] = draws.std(axis=0)
                interval[some] = self._interval(draws, level)
        return mean, deviation, interval

    def _draws(self, part: Any, chains: tuple[Chain, ...], seed: int) -> NDArray[np.float64]:
        """Loadings (draws, p, K) of some pixels: some steps at each draw of the components."""
        stream = content_streams(seed, part)
        middle = np.mean([chain.spectra for chain in chains], axis=0)
        loadings = self._start(part, middle)
        kept = max(1, -(-MIN_DENSE_DRAWS // len(chains)))
        out = np.empty((len(chains) * kept, *loadings.shape))
        for i, chain in enumerate(chains):
            gram, products = chain.spectra @ chain.spectra.T, _products(part, chain.spectra)
            some: dict[str, Any] = {"simplex": self.simplex}
            gaussian_draws(
                products, gram, chain.variance, loadings, stream, n_steps=self.n_steps, **some
            )
            held = out[i * kept : (i + 1) * kept]
            gaussian_draws(
                products, gram, chain.variance, loadings, stream, n_steps=kept, draws=held, **some
            )
        return out

    def _interval(self, draws: NDArray[np.float64], level: float) -> NDArray[np.float64]:
        """Equal tails, or one tail where a bound lies within the same number of deviations of the mean."""
        from scipy.special import ndtri

        tail = 0.5 * (1.0 - level)
        reach = float(ndtri(1.0 - tail)) * draws.std(axis=0)
        mean = draws.mean(axis=0)
        low, high, one_up, one_down = np.quantile(
            draws, [tail, 1.0 - tail, level, 1.0 - level], axis=0
        )
        at_zero = mean < reach
        at_one = (1.0 - mean < reach) & ~at_zero if self.simplex else np.zeros_like(at_zero)
        low = np.where(at_zero, 0.0, np.where(at_one, one_down, low))
        high = np.where(at_zero, one_up, np.where(at_one, 1.0, high))
        return np.stack([low, high], axis=-1)


MIN_DENSE_DRAWS = 200
"""Draws of each dense pixel's loadings, at least, of which quantiles are taken."""


def _products(part: Any, spectra: NDArray[np.float64]) -> NDArray[np.float64]:
    if isinstance(part, CountRows):
        return part.matmul(np.ascontiguousarray(spectra.T))
    return np.ascontiguousarray(part @ spectra.T)


def _positive_normal(
    mean: NDArray[np.float64], deviation: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Normal numbers above zero, by the inverse of their distribution."""
    above = log_ndtr(mean / deviation)
    u = 1.0 - rng.random(mean.shape)
    return np.asarray(np.maximum(mean - deviation * ndtri_exp(np.log(u) + above), 0.0))
