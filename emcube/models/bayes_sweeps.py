"""The passes over blocks that `emcube.models.bayes` is made of: a pass is a Gibbs step of all chains.

A chain's state is its components and a few numbers. The loadings of a pixel are drawn anew in every pass,
from a start that depends on its values, the components and the random numbers of (seed, round, block, chain)
alone: nothing is kept for a pixel between passes, and a block that is mapped twice gives the same twice.

Letters: P pixels, E used channels, K components, C chains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.special import log_ndtr, ndtri, ndtri_exp

from emcube.errors import InputError
from emcube.kernels.frobenius_nmf import frobenius_loadings, pieces
from emcube.kernels.gibbs import (
    content_streams,
    dealt,
    gammas,
    gaussian_draws,
    grouped,
    poisson_draws,
    scattered,
    streams,
)
from emcube.kernels.poisson_nmf import PASS_TOLERANCE, as_rows, floored, poisson_loadings
from emcube.kernels.products import gram_of
from emcube.kernels.rows import CountRows
from emcube.models.labels import require_finite_counts, require_finite_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey

__all__ = ["Chain", "CountModel", "DenseModel", "GibbsSweep", "Moments", "Posterior"]
__all__ += ["PresenceSweep", "UnmixingModel", "gamma_interval", "posterior"]

CHANNEL_PRIOR = 0.5
"""Counts of a channel that a component has beforehand (Jeffreys' prior of a multinomial)."""

TOTAL_SHAPE = 0.5
"""Shape of the prior of a pixel's total (as Jeffreys' prior of a Poisson mean): how spread totals are."""

COUNT_STEPS, DENSE_STEPS = 10, 20
"""Gibbs steps of the loadings in a pass. Counts begin at Laplace's approximation, dense values at the
mode."""

SPECTRUM_STEPS = 3
"""Gibbs steps of the components of dense values in a pass, given all loadings."""

TRIES = 2
"""Components in each step that are tried for a birth or death."""

TILE_PIXELS = 2048
"""Pixels whose draws are held at a time."""

PIXEL_WARMUP = 12
"""Steps of a pixel's loadings before any are kept."""

PIXEL_DRAWS = 128
"""Draws of a pixel's loadings that are kept, at least."""


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
    present : ndarray, shape (K,)
        Pixels that hold the component (counts; else zeros).
    square : float
        sum x^2 (dense values).
    n_pixels : float
        Pixels; those without counts are not among them.
    """

    crossed: NDArray[np.float64]
    gram: NDArray[np.float64]
    totals: NDArray[np.float64]
    present: NDArray[np.float64]
    square: float
    n_pixels: float

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.crossed + other.crossed,
            self.gram + other.gram,
            self.totals + other.totals,
            self.present + other.present,
            self.square + other.square,
            self.n_pixels + other.n_pixels,
        )

    def times(self, factor: float) -> Moments:
        """All of it multiplied."""
        return Moments(
            self.crossed * factor,
            self.gram * factor,
            self.totals * factor,
            self.present * factor,
            self.square * factor,
            self.n_pixels * factor,
        )

    def taken(self, order: NDArray[np.int64]) -> Moments:
        """The components in another order."""
        return Moments(
            self.crossed[order],
            self.gram[np.ix_(order, order)],
            self.totals[order],
            self.present[order],
            self.square,
            self.n_pixels,
        )


@dataclass(frozen=True, eq=False)
class Chain:
    """Where one chain stands, and the draws that it has kept.

    Attributes
    ----------
    spectra : ndarray, shape (K, E)
    presence : ndarray, shape (K,)
        Chance, beforehand, that a pixel holds the component (counts; else ones).
    rate : float
        Of the prior of the totals (counts); else zero.
    variance : float
        Of the noise (dense values); else zero.
    kept : tuple of Chain
        The draws.
    kept_totals : tuple of ndarray
        Sums of the loadings at each draw.
    summed : Moments or None
        Of the passes that were kept.
    """

    spectra: NDArray[np.float64]
    presence: NDArray[np.float64]
    rate: float
    variance: float
    kept: tuple[Chain, ...] = ()
    kept_totals: tuple[NDArray[np.float64], ...] = ()
    summed: Moments | None = None

    @property
    def bare(self) -> Chain:
        """Where it stands, without its draws."""
        return Chain(self.spectra, self.presence, self.rate, self.variance)

    def __getstate__(self) -> dict[str, Any]:
        # Workers need no draws.
        return dict(vars(self.bare))

    def keeping(self, moments: Moments) -> Chain:
        """With what it is now as a further draw."""
        return replace(
            self,
            kept=(*self.kept, self.bare),
            kept_totals=(*self.kept_totals, moments.totals),
            summed=moments if self.summed is None else self.summed + moments,
        )

    def taken(self, order: NDArray[np.int64]) -> Chain:
        """The components in another order."""
        return Chain(self.spectra[order], self.presence[order], self.rate, self.variance)


def middle_of(chains: tuple[Chain, ...]) -> Chain:
    """Mean of several draws."""
    return Chain(
        np.mean([chain.spectra for chain in chains], axis=0),
        np.mean([chain.presence for chain in chains], axis=0),
        float(np.mean([chain.rate for chain in chains])),
        float(np.mean([chain.variance for chain in chains])),
    )


class UnmixingModel(Protocol):
    """What a sweep asks of a model of the data."""

    def moments(self, block: Block, chain: Chain, seed: tuple[int, ...]) -> Moments:
        """Draw the loadings of a block and sum what they tell of the components."""
        ...

    def drawn(self, chain: Chain, moments: Moments, rng: np.random.Generator) -> Chain:
        """Draw components and the rest, given all loadings."""
        ...

    def checked(self, block: Block) -> CountRows | NDArray[Any]:
        """Values of a block; refuses what cannot be."""
        ...

    def tile_draws(
        self, part: CountRows | NDArray[Any], chains: tuple[Chain, ...], seed: int
    ) -> NDArray[np.float64]:
        """Draws (n, p, K) of the loadings of some pixels over given draws of the components."""
        ...

    def interval(self, draws: NDArray[np.float64], level: float) -> NDArray[np.float64]:
        """Credible intervals (p, K, 2) from draws (n, p, K)."""
        ...


@dataclass(frozen=True, eq=False)
class GibbsSweep:
    """Gibbs steps of C chains in the same passes: loadings on the workers, components in the client.

    Parameters
    ----------
    model : UnmixingModel
    chains : tuple of Chain
        Where they start.
    n_warmup, n_draws : int
        Passes that are not kept, and that are.
    seed : int
    earlier : Moments, optional
        What other pixels have told.
    """

    model: UnmixingModel
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


@dataclass(frozen=True, eq=False)
class PresenceSweep:
    """Learn from single pixels of counts how often they hold a component; components stay as they are.

    Parameters
    ----------
    model : CountModel
    chain : Chain
        Where it starts.
    n_warmup, n_draws : int
        Passes that are not kept, and that are.
    seed : int
    chance : float
        Of a pixel to be looked at.
    """

    model: CountModel
    chain: Chain
    n_warmup: int
    n_draws: int
    seed: int
    chance: float = 1.0
    name: str = "Gibbs sampling (pixels)"

    def start(self) -> Chain:
        """The given chain."""
        return self.chain

    def map(self, block: Block, state: Chain, rng_key: RngKey) -> Moments:
        """Moments of some pixels of a block, without their counts in channels."""
        rows = whole_counts(block)
        if self.chance < 1.0:
            picked = np.random.default_rng((*rng_key, 1)).random(rows.n_pixels) < self.chance
            rows = rows.take(picked)
        return self.model.held(rows, state, (*rng_key, 0))

    def combine(self, a: Moments, b: Moments) -> Moments:
        """Add."""
        return a + b

    def step(self, state: Chain, statistic: Moments, round_number: int) -> tuple[Chain, bool]:
        """Draw the chances of presence, and how spread totals are."""
        rng = np.random.default_rng((self.seed, round_number, 0))
        moved = self.model.chances(state, statistic, rng)
        kept = moved.keeping(statistic) if round_number >= self.n_warmup else moved
        return kept, round_number + 1 >= self.n_warmup + self.n_draws

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * len(self.chain.spectra) ** 2


# ----------------------------------------------------------------------------------- what pixels hold


@dataclass(frozen=True, eq=False)
class Posterior:
    """Posterior of the loadings of a block's pixels.

    Attributes
    ----------
    mean, deviation : ndarray, shape (p, K)
    interval : ndarray, shape (p, K, 2)
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    interval: NDArray[np.float64]


def posterior(
    model: UnmixingModel, block: Block, chains: tuple[Chain, ...], seed: int, level: float
) -> Posterior:
    """Draw the loadings of a block's pixels over given draws of the components, some pixels at a time.

    Parameters
    ----------
    model : UnmixingModel
    block : Block
    chains : tuple of Chain
        Draws of the components, which stay as they are.
    seed : int
        With a pixel's values it decides what is drawn.
    level : float
        Of the intervals.
    """
    data, k = model.checked(block), len(chains[0].spectra)
    p = block.n_pixels
    found = Posterior(np.zeros((p, k)), np.zeros((p, k)), np.zeros((p, k, 2)))
    for first, piece in pieces(data):
        for start in range(0, piece.shape[0], TILE_PIXELS):
            stop = min(start + TILE_PIXELS, piece.shape[0])
            rows = isinstance(piece, CountRows)
            part = piece.take(np.arange(start, stop)) if rows else piece[start:stop]
            draws = model.tile_draws(part, chains, seed)
            some = slice(first + start, first + stop)
            found.mean[some] = draws.mean(axis=0)
            found.deviation[some] = draws.std(axis=0)
            found.interval[some] = model.interval(draws, level)
    return found


def quantiles(draws: NDArray[np.float64], shares: tuple[float, ...]) -> list[NDArray[np.float64]]:
    """Quantiles of draws (n, ...), each (...): a further draw lies below with just this chance.

    References
    ----------
    R. J. Hyndman, Y. Fan, Am. Stat. 50 (1996) 361, doi:10.1080/00031305.1996.10473566 (definition 6).
    """
    ordered = np.sort(np.ascontiguousarray(np.moveaxis(draws, 0, -1)), axis=-1)
    n = ordered.shape[-1]
    found = []
    for share in shares:
        place = min(max(share * (n + 1) - 1.0, 0.0), n - 1.0)
        low = min(int(place), n - 2) if n > 1 else 0
        high = min(low + 1, n - 1)
        rest = place - low
        found.append((1.0 - rest) * ordered[..., low] + rest * ordered[..., high])
    return found


def upper_quantile(
    draws: NDArray[np.float64], last: NDArray[np.int64], share: float
) -> NDArray[np.float64]:
    """Quantile of the largest so many (p, K) of draws (n, p, K), as `quantiles`; zero without any."""
    ordered = np.sort(draws, axis=0)
    n = len(ordered)
    place = np.clip(share * (last + 1) - 1.0, 0.0, np.maximum(last - 1.0, 0.0))
    low = place.astype(np.int64)
    rest = place - low
    first = np.minimum(n - last + low, n - 1)[None]
    second = np.minimum(first + 1, n - 1)
    values = (1.0 - rest) * np.take_along_axis(ordered, first, axis=0)[0]
    values += rest * np.take_along_axis(ordered, second, axis=0)[0]
    return np.where(last > 0, values, 0.0)


# -------------------------------------------------------------------------------------------- counts


@dataclass(frozen=True, eq=False)
class CountModel:
    """Poisson counts, gamma totals, Dirichlet shares of the components that a pixel holds.

    Parameters
    ----------
    groups : ndarray of int, shape (E,)
        Group of each channel (see `channel_groups`): over groups counts are summed where shares are drawn.
    concentration : float
        Of the shares' prior.
    n_steps : int
        Gibbs steps of the loadings in a pass.
    sparse : bool
        Whether components may be absent.
    """

    groups: NDArray[np.int64]
    concentration: float = 1.0
    n_steps: int = COUNT_STEPS
    sparse: bool = True

    def checked(self, block: Block) -> CountRows:
        """Rows of whole counts."""
        return whole_counts(block)

    def moments(self, block: Block, chain: Chain, seed: tuple[int, ...]) -> Moments:
        """Draw the loadings of a block, and whose its counts are."""
        rows, shares, stream = self._drawn_shares(whole_counts(block), chain, seed)
        counted = dealt(rows, floored(chain.spectra), shares, stream)
        return self._moments(rows, shares, counted, chain, stream)

    def held(self, rows: CountRows, chain: Chain, seed: tuple[int, ...]) -> Moments:
        """Draw the loadings of some pixels, and nothing that only components ask about."""
        rows, shares, stream = self._drawn_shares(rows, chain, seed)
        return self._moments(rows, shares, np.zeros((len(chain.spectra), 0)), chain, stream)

    def _drawn_shares(
        self, rows: CountRows, chain: Chain, seed: tuple[int, ...]
    ) -> tuple[CountRows, NDArray[np.float64], NDArray[np.uint64]]:
        """Pixels that hold counts, their shares (p, K), and their streams."""
        full = np.diff(rows.indptr) > 0
        if not full.all():
            rows = rows.take(full)
        stream = streams(seed, rows.n_pixels)
        cells = grouped(rows, self.groups)
        narrow = summed(floored(chain.spectra), self.groups)
        shares = self._begun(cells, narrow, stream)
        poisson_draws(
            cells,
            narrow,
            shares,
            self._odds(chain),
            stream,
            concentration=self.concentration,
            n_steps=self.n_steps,
            n_tries=min(TRIES, len(narrow)),
        )
        return rows, shares, stream

    def _moments(
        self,
        rows: CountRows,
        shares: NDArray[np.float64],
        counted: NDArray[np.float64],
        chain: Chain,
        stream: NDArray[np.uint64],
    ) -> Moments:
        k = len(chain.spectra)
        counts = rows.pixel_totals().astype(np.float64)
        return Moments(
            counted,
            np.zeros((k, k)),
            self._totals(counts, chain.rate, stream) @ shares,
            np.count_nonzero(shares, axis=0).astype(np.float64),
            0.0,
            float(rows.n_pixels),
        )

    def _begun(
        self,
        cells: NDArray[np.float64],
        spectra: NDArray[np.float64],
        stream: NDArray[np.uint64],
    ) -> NDArray[np.float64]:
        """Shares that scatter about the most probable ones, which may be zero."""
        rows = as_rows(cells)
        modes = poisson_loadings(rows, spectra, PASS_TOLERANCE)
        loadings = scattered(rows, spectra, modes, np.zeros(len(spectra)), stream)
        if self.sparse:
            loadings[modes <= 1e-6 * modes.sum(axis=1, keepdims=True)] = 0.0
        sums = loadings.sum(axis=1, keepdims=True)
        even = 1.0 / len(spectra)
        return np.where(sums > 0.0, loadings / np.where(sums > 0.0, sums, 1.0), even)

    def _odds(self, chain: Chain) -> NDArray[np.float64]:
        if not self.sparse:
            return np.full(len(chain.presence), np.inf)
        chance = np.clip(chain.presence, 1e-9, 1.0 - 1e-9)
        return np.asarray(chance / (1.0 - chance))

    def _totals(
        self, counts: NDArray[np.float64], rate: float, stream: NDArray[np.uint64]
    ) -> NDArray[np.float64]:
        """Brightness of each pixel: its counts alone tell of it."""
        return gammas(counts + TOTAL_SHAPE, stream) / (1.0 + rate)

    def drawn(self, chain: Chain, moments: Moments, rng: np.random.Generator) -> Chain:
        """Dirichlet components; beta chances of presence; the gamma rate of the totals."""
        seen = moments.crossed.any(axis=0)
        weights = rng.standard_gamma(moments.crossed + np.where(seen, CHANNEL_PRIOR, 0.0))
        spectra = weights / weights.sum(axis=1, keepdims=True)
        return replace(self.chances(chain, moments, rng), spectra=spectra)

    def chances(self, chain: Chain, moments: Moments, rng: np.random.Generator) -> Chain:
        """Draw all but the components."""
        n = moments.n_pixels
        presence = chain.presence
        if self.sparse and n > 0:
            # A pixel holds something: those of the prior that would hold nothing were not seen, and are
            # drawn (their number is negative binomial) so that the chances have a beta law.
            something = 1.0 - float(np.prod(1.0 - presence))
            unseen = float(rng.negative_binomial(n, something)) if something < 1.0 else 0.0
            held = moments.present
            presence = rng.beta(1.0 + held, 1.0 + np.maximum(n - held, 0.0) + unseen)
        total = float(moments.totals.sum())
        rate = float(rng.standard_gamma(TOTAL_SHAPE * max(1.0, n))) / max(total, 1e-300)
        return replace(chain, presence=presence, rate=rate)

    def tile_draws(
        self, part: CountRows | NDArray[Any], chains: tuple[Chain, ...], seed: int
    ) -> NDArray[np.float64]:
        """Loadings (n, p, K): shares go on from one draw of the components to the next."""
        assert isinstance(part, CountRows)
        stream = content_streams(seed, part)
        middle, cells = middle_of(chains), grouped(part, self.groups)
        counts = cells.sum(axis=1)
        narrow = summed(floored(middle.spectra), self.groups)
        shares = self._begun(cells, narrow, stream)
        some: dict[str, Any] = {"concentration": self.concentration, "n_tries": 1}
        poisson_draws(
            cells, narrow, shares, self._odds(middle), stream, n_steps=PIXEL_WARMUP, **some
        )
        kept = -(-PIXEL_DRAWS // len(chains))
        out = np.empty((len(chains) * kept, *shares.shape))
        for i, chain in enumerate(chains):
            held = out[i * kept : (i + 1) * kept]
            narrow = summed(floored(chain.spectra), self.groups)
            poisson_draws(
                cells,
                narrow,
                shares,
                self._odds(chain),
                stream,
                n_steps=kept,
                draws=held,
                **some,
            )
            for one in held:
                one *= self._totals(counts, chain.rate, stream)[:, None]
        return out

    def interval(self, draws: NDArray[np.float64], level: float) -> NDArray[np.float64]:
        """Equal tails; from zero on where a component may be absent, up to what it is at most if it is there.

        Without the last the end would be zero, too, as soon as presence is improbable: pixels of few counts
        and small shares would be missed more often than others are.
        """
        tail = 0.5 * (1.0 - level)
        low, high = quantiles(draws, (tail, 1.0 - tail))
        if self.sparse:
            there = np.count_nonzero(draws, axis=0)
            # Of ordered draws those of a component that is there are the last ones.
            high = np.maximum(high, upper_quantile(draws, there, 1.0 - tail))
        return np.stack([low, high], axis=-1)


def summed(spectra: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Components (K, E) over groups of channels, (K, G)."""
    n = int(groups.max()) + 1
    return np.array([np.bincount(groups, weights=one, minlength=n) for one in spectra])


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
                hint="use noise=None for values that are no counts",
            )
    return as_rows(data)


def gamma_interval(
    mean: NDArray[np.float64], deviation: NDArray[np.float64], level: float
) -> NDArray[np.float64]:
    """Intervals (..., 2) that hold a share `level` of gamma distributions of given moments.

    With equal tails; where zero lies within the same number of standard deviations of the mean, from zero on
    with one tail: a lower bound above it would say that something is there.
    """
    from scipy.special import gammaincinv

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
        nothing = np.zeros(k)
        out = Moments(np.zeros(spectra.shape), np.zeros((k, k)), nothing, nothing, 0.0, 0.0)
        for first, part in pieces(block.data):
            n = part.shape[0]
            own = np.ascontiguousarray(stream[first : first + n])
            products = _products(part, spectra)
            loadings = self._start(part, spectra)
            gaussian_draws(
                products,
                gram_of(spectra),
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
                nothing,
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

    def checked(self, block: Block) -> CountRows | NDArray[Any]:
        """Finite values."""
        require_finite_values(block)
        return block.data

    def tile_draws(
        self, part: CountRows | NDArray[Any], chains: tuple[Chain, ...], seed: int
    ) -> NDArray[np.float64]:
        """Loadings (n, p, K): some steps at each draw of the components."""
        stream = content_streams(seed, part)
        loadings = self._start(part, middle_of(chains).spectra)
        kept = -(-PIXEL_DRAWS // len(chains))
        out = np.empty((len(chains) * kept, *loadings.shape))
        for i, chain in enumerate(chains):
            gram, products = gram_of(chain.spectra), _products(part, chain.spectra)
            some: dict[str, Any] = {"simplex": self.simplex}
            gaussian_draws(
                products, gram, chain.variance, loadings, stream, n_steps=self.n_steps, **some
            )
            held = out[i * kept : (i + 1) * kept]
            gaussian_draws(
                products, gram, chain.variance, loadings, stream, n_steps=kept, draws=held, **some
            )
        return out

    def interval(self, draws: NDArray[np.float64], level: float) -> NDArray[np.float64]:
        """Equal tails, or one tail where a bound lies within the same number of deviations of the mean.

        A law without a lump at the bound never has it in its middle: with equal tails a loading that is zero
        would never be held.
        """
        tail = 0.5 * (1.0 - level)
        reach = float(ndtri(1.0 - tail)) * draws.std(axis=0)
        mean = draws.mean(axis=0)
        low, high, one_up, one_down = quantiles(draws, (tail, 1.0 - tail, level, 1.0 - level))
        at_zero = mean < reach
        at_one = (1.0 - mean < reach) & ~at_zero if self.simplex else np.zeros_like(at_zero)
        low = np.where(at_zero, 0.0, np.where(at_one, one_down, low))
        high = np.where(at_zero, one_up, np.where(at_one, 1.0, high))
        return np.stack([low, high], axis=-1)


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
