"""How many components the counts support: biwhitening, with elbow and parallel analysis beside it.

The noise of counts differs from cell to cell. Biwhitening scales pixels and channels so that the noise
has variance one on average in every row and column (Sinkhorn scaling of the variance estimate, which
for Poisson counts is the counts themselves). Singular values of pure noise then end at
sqrt(P) + sqrt(E), and those below follow the Marchenko-Pastur law. How well they do is measured, and
where they do not the answer is a refusal instead of a number.

Letters: P pixels, E channels, both after pooling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh

from emcube.engine import ArraySource, plan_blocks, resident, run_sweep
from emcube.engine.threads import single_threaded_blas
from emcube.errors import EngineError, InputError
from emcube.feedback.events import group
from emcube.kernels.biwhiten import (
    elbow,
    group_channels,
    group_pixels,
    marchenko_pastur_median,
    noise_edge,
    pool,
    row_scales,
    rows_of_events,
    scaled_sums,
    scaled_sums_of_groups,
    spectrum_distance,
)
from emcube.kernels.gram import add_symmetric, add_upper, weighted_gram
from emcube.kernels.rows import CountRows
from emcube.kernels.sampling import AliasTables, alias_tables
from emcube.models.base import resolve_seed
from emcube.models.labels import as_source
from emcube.models.sweeps import Totals, TotalsSweep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource, RngKey

__all__ = ["Margin", "NComponentsEstimate", "estimate_n_components"]

METHODS = ("biwhitening", "parallel", "elbow")

PIXEL_COUNTS = 100.0
"""Neighbouring pixels are summed until they hold as many counts. With less the variance estimates of
a pixel, its counts, are too rough for Sinkhorn scaling: maps of 10 to 60 counts a pixel fit the
Marchenko-Pastur law three to ten times worse unpooled, and the scaling may not converge at all."""

CHANNEL_COUNTS = 20.0
"""Neighbouring channels are summed until they hold as many counts. A channel of one count or so makes
a spurious singular value just above the threshold, and a plateau of equal ones where there are many."""

MAX_POOLINGS = 6
"""The pixels' pooling is doubled up to so many times while the noise does not follow the law."""

MAX_CHANNELS = 2048
"""More channels than this are pooled: their Gram matrix would cost more than it tells."""

MIN_SIDE = 50
"""With fewer pooled pixels or channels the fit of the noise cannot be judged."""

DISTANCE = {"poisson": 0.10, "quadratic": 0.05}
"""Largest Kolmogorov-Smirnov distance to the Marchenko-Pastur law that is taken for a fit. Stricter
where the scale of the noise was fitted as well."""

CROWD = 4
"""So many singular values within 5 % above the threshold are not components but a noise spectrum that
goes on smoothly across it, as correlated noise does."""

OWN_NOISE = 0.5
"""The factor that scales a pixel is made of the pixel's own counts. What that bends would be a component
of its own from where the square of its singular value is this share of sqrt(P E) on (see `_own_noise`);
then the factors are found anew, from the components that are clear."""

SPLIT = 0.4
"""Share of the counts that pixels are scaled by where their own noise must not enter at all."""

LEEWAY = 1.1
"""The edge of noise is then as for so many times the channels: how unevenly pixels are weighed is known only
so well, and among millions of pixels a twentieth of the noise's width is no component that matters."""

GLANCE = 50_000
"""Pixels, after pooling, in which clear components are looked for (about)."""

CLEAR = 1.02
"""Components this far above the threshold, relative to it, are clear."""

LEAST_WEIGHT = 0.1
"""Least variance of a pixel, per count, in units of the mean one, where it is found from components."""

SCALING_TOLERANCE = 1e-4
SCALING_ROUNDS = 60

MEMORY = 3
"""Rounds of the scaling that are extrapolated from; see `_extrapolated`."""

RANGE = 1e30
"""Column factors that differ by more have run away: where zeros leave no scaling, they part for ever."""

CURVATURES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Candidates of b / a in var = a m + b m^2, in units of one over the mean cell."""

CURVATURE_STEPS = 3
"""The best candidate is refined so many times, each time with half the distance on a log axis."""

NULL_CELLS = 1e7
"""Cells drawn for the parallel analysis, at most."""

NULL_BLOCKS = 8
"""They are drawn in so many blocks."""

NULL_COPIES = 5
"""Copies of a small matrix that are drawn, at most; the largest value of all is the bound."""

FEW = 8
"""More clear components than these are looked for among all eigenvectors."""

KRYLOV = 80
"""Steps to the second eigenvalue of simulated counts: it is exact to ten digits after so many."""


class Margin(NamedTuple):
    """Distance of the nearest singular values from the threshold, in percent of it.

    `above`: of the last one that counts as a component (NaN where none does); `below`: of the next one.
    """

    above: float
    below: float

    def __str__(self) -> str:
        return (
            f"last component {self.above:.1f} % above, next {self.below:.1f} % below the threshold"
        )


@dataclass(frozen=True, eq=False)
class NComponentsEstimate:
    """Answer of `estimate_n_components`.

    Attributes
    ----------
    n_components : int or None
        Number of components by the method asked for; None where it is refused.
    reason : str
        Why it is that number, or why there is none.
    method : str
        "biwhitening", "parallel" or "elbow".
    trusted : bool
        Whether the noise follows the Marchenko-Pastur law, so that biwhitening's number can be relied on.
    margin : Margin
        How far the last component is above the threshold and the next value below, in percent.
    threshold : float
        Largest singular value of pure noise, in the unit of the noise (see `noise_edge`).
    curve : Dataset
        Over `component` (from 1): `singular_value` of the biwhitened matrix in units of the noise,
        `relative` (over the threshold), `accepted`; scalar `threshold`.
    alternatives : dict
        Number by each method: "biwhitening", "parallel", "elbow".
    noise : dict
        What was found of the noise: `model`, `gain` (a, noise variance per count), `curvature` (b / a),
        `distance` (to the Marchenko-Pastur law), `pixels` and `channels` after pooling,
        `pixel_counts` and `channel_counts` (the least that each holds), `scaling_rounds`.
    """

    n_components: int | None
    reason: str
    method: str
    trusted: bool
    margin: Margin
    threshold: float
    curve: xr.Dataset
    alternatives: dict[str, int | None]
    noise: dict[str, Any] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        from emcube._hooks import provided

        return str(provided("estimate_page")(self))

    @property
    def refused(self) -> bool:
        """Whether there is no number."""
        return self.n_components is None

    def plot(self, **kwargs: Any) -> Any:
        """Draw the scree with the threshold (see `emcube.plot.scree`)."""
        from emcube.plot import scree

        if not self.curve.sizes["component"]:
            raise InputError(f"there is no curve to draw: {self.reason}")
        shown = {"n_components": self.n_components, "trivial_first": True, **kwargs}
        return scree(self.curve, **shown)

    def __str__(self) -> str:
        number = "refused" if self.refused else str(self.n_components)
        return f"number of components: {number} ({self.reason})"

    __repr__ = __str__


@dataclass(frozen=True, eq=False)
class _Pooling:
    """How pixels and channels are summed before anything else."""

    pixel_counts: float
    channel_groups: NDArray[np.int64]
    n_channels: int

    def pixels(self, data: CountRows | NDArray[Any]) -> tuple[NDArray[np.int64], int]:
        """Groups of a block's pixels."""
        if self.pixel_counts <= 0:
            return np.arange(data.shape[0]), int(data.shape[0])
        if isinstance(data, CountRows):
            return group_pixels(data.pixel_totals(), self.pixel_counts)
        return group_pixels(data.sum(axis=1, dtype=np.float64), self.pixel_counts)

    def __call__(self, data: CountRows | NDArray[Any]) -> CountRows | NDArray[np.float64]:
        """Pooled block."""
        groups, n_groups = self.pixels(data)
        return pool(data, groups, n_groups, self.channel_groups, self.n_channels)


@dataclass(frozen=True, eq=False)
class _Scaling:
    """State of the Sinkhorn scaling: v, and how far the column sums are from P.

    `tried`: logarithms of v and of what a round made of it, of the last rounds.
    """

    columns: NDArray[np.float64]
    deviation: float = math.inf
    n_pixels: int = 0
    n_rounds: int = 0
    tried: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...] = ()


@dataclass(frozen=True, eq=False)
class ScalingSweep:
    """Sinkhorn scaling over blocks: row factors are local, only column sums travel.

    u_i = E / sum_j V_ij v_j in `map`, v_j = P / sum_i u_i V_ij in `step`.
    """

    pooling: _Pooling
    curvature: float
    first: NDArray[np.float64]
    name: str = "noise scaling"

    def start(self) -> _Scaling:
        """Begin at the given column factors."""
        return _Scaling(self.first)

    def map(
        self, block: Block, state: _Scaling, rng_key: RngKey
    ) -> tuple[NDArray[np.float64], int]:
        """Column sums of the row-scaled variances of one block, and its pooled pixels."""
        data = block.data
        if isinstance(data, CountRows) and self.curvature == 0:
            groups, n_groups = self.pooling.pixels(data)
            if not n_groups:
                return np.zeros(self.pooling.n_channels), 0
            sums = scaled_sums_of_groups(data, groups, self.pooling.channel_groups, state.columns)
            return sums, n_groups
        rows, sums = scaled_sums(self.pooling(data), state.columns, self.curvature)
        return sums, int(np.count_nonzero(rows))

    def combine(
        self, a: tuple[NDArray[np.float64], int], b: tuple[NDArray[np.float64], int]
    ) -> tuple[NDArray[np.float64], int]:
        """Add."""
        return a[0] + b[0], a[1] + b[1]

    def step(
        self, state: _Scaling, statistic: tuple[NDArray[np.float64], int], round_number: int
    ) -> tuple[_Scaling, bool]:
        """Make the columns sum to P, and look ahead where rounds before show the way."""
        sums, n_pixels = statistic
        if not n_pixels or not (sums > 0).all():
            return replace(state, n_pixels=n_pixels, n_rounds=round_number + 1, tried=()), True
        deviation = float(np.abs(state.columns * sums / n_pixels - 1).max())
        scaling = _Scaling(n_pixels / sums, deviation, n_pixels, round_number + 1)
        if deviation < SCALING_TOLERANCE or not _in_range(scaling.columns):
            return scaling, True
        # What was extrapolated did not come nearer: forget, and go on in plain rounds.
        known = state.tried if deviation < state.deviation else ()
        tried = (*known, (np.log(state.columns), np.log(scaling.columns)))[-MEMORY - 1 :]
        return replace(scaling, columns=_extrapolated(tried), tried=tried), False

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * self.pooling.n_channels


def _extrapolated(
    tried: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...],
) -> NDArray[np.float64]:
    """Column factors for which the changes of the last rounds, combined, come nearest to none.

    References
    ----------
    D. G. Anderson, "Iterative procedures for nonlinear integral equations", J. ACM 12 (1965) 547.
    https://doi.org/10.1145/321296.321305
    """
    after = tried[-1][1]
    if len(tried) > 1:
        changes = np.array([made - given for given, made in tried])
        steps, *_ = np.linalg.lstsq(np.diff(changes, axis=0).T, changes[-1], rcond=1e-10)
        ahead = after - steps @ np.diff(np.array([made for _, made in tried]), axis=0)
        if np.ptp(ahead) <= math.log(RANGE):
            after = ahead
    return np.asarray(np.exp(after))


def _in_range(columns: NDArray[np.float64]) -> bool:
    """Whether column factors are comparable numbers."""
    return bool(columns.min() > 0 and columns.max() <= RANGE * columns.min())


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Gram matrix (or pixels) of biwhitened pixels, totals of some of them, and how many there are."""

    gram: NDArray[np.float64]
    drawn: NDArray[np.float64]
    n_pixels: int


@dataclass(frozen=True, eq=False)
class ScaledGramSweep:
    """Gram matrix of the biwhitened pixels, sum_i u_i y_i y_i', over the shorter side.

    With fewer pixels than channels the scaled pixels themselves are gathered, at most
    `MAX_CHANNELS` of them, since the Gram matrix between pixels needs all pairs. The totals of some pixels,
    each drawn with the same `chance`, come along for the parallel analysis. Of every so many blocks one is
    looked at, where a rough answer will do.
    """

    pooling: _Pooling
    curvature: float
    columns: NDArray[np.float64]
    gather: bool
    chance: float
    every: int = 1
    name: str = "noise spectrum"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> _Scaled | None:
        """Gram matrix of one block before the columns are scaled, or its scaled pixels; drawn totals."""
        if block.id % self.every:
            return None
        pooled = self.pooling(block.data)
        weights = row_scales(pooled, self.columns, self.curvature)
        # Other numbers than those of the simulation.
        drawn = np.random.default_rng((*rng_key, 1)).random(weights.size) < self.chance
        totals = pooled.pixel_totals() if isinstance(pooled, CountRows) else pooled.sum(axis=1)
        return _Scaled(
            _gram_or_rows(pooled, weights, self.gather),
            totals[drawn].astype(np.float64),
            int(np.count_nonzero(weights)),
        )

    def combine(self, a: _Scaled | None, b: _Scaled | None) -> _Scaled | None:
        """Add, or append."""
        if a is None or b is None:
            return a or b
        joined = np.concatenate((a.gram, b.gram)) if self.gather else a.gram + b.gram
        return _Scaled(joined, np.concatenate((a.drawn, b.drawn)), a.n_pixels + b.n_pixels)

    def combine_into(self, a: _Scaled | None, b: _Scaled | None) -> _Scaled | None:
        """Add to the first, or append."""
        if a is None or b is None or self.gather:
            return self.combine(a, b)
        gram = add_upper(a.gram, b.gram)
        return _Scaled(gram, np.concatenate((a.drawn, b.drawn)), a.n_pixels + b.n_pixels)

    def step(
        self, state: Any, statistic: _Scaled | None, round_number: int
    ) -> tuple[_Scaled, bool]:
        """Gram matrix after the columns are scaled, and drawn totals."""
        if statistic is None:  # the first block is always looked at
            raise EngineError(f"{self.name}: no block was looked at")
        gram = _scaled(statistic.gram, np.sqrt(self.columns), self.gather)
        return replace(statistic, gram=gram), True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * self.pooling.n_channels**2


@dataclass(frozen=True, eq=False)
class _Even:
    """Sums over evenly scaled pixels: their Gram matrix and channels, how many, and the factors' own noise.

    `noise`: relative variances of the pixels' factors from counting, summed.
    """

    gram: NDArray[np.float64]
    channels: NDArray[np.float64]
    n_pixels: int
    noise: float

    def plus(self, other: _Even, gram: NDArray[np.float64]) -> _Even:
        """Sum of both, with the Gram matrices' sum given."""
        return _Even(
            gram,
            self.channels + other.channels,
            self.n_pixels + other.n_pixels,
            self.noise + other.noise,
        )


@dataclass(frozen=True, eq=False)
class EvenGramSweep:
    """Gram matrix of the biwhitened pixels, with pixels scaled by what clear components say of them.

    u_i = E / sum_j m_j Y_ij, where the weights m have the same sum as v over every clear component, so
    that the mean of u is as before, but its own counting noise hardly enters; then v_j = P / sum_i u_i Y_ij,
    in the same pass. Poisson counts only.

    Parameters
    ----------
    weights : ndarray of float64, shape (E,)
        m.
    least : float
        sum_j m_j Y_ij counts as at least this times the pixel's total.
    split : float
        Share of the counts, drawn one by one, that the factors are made of; the Gram matrix is then of the
        others, which are independent of them. 0: all counts serve for both.
    """

    pooling: _Pooling
    weights: NDArray[np.float64]
    least: float
    split: float = 0.0
    name: str = "noise spectrum"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> _Even:
        """Sums of one block."""
        counts = judged = self.pooling(block.data)
        if self.split:
            counts, judged = _parted(counts, self.split, np.random.default_rng((*rng_key, 2)))
        columns = np.column_stack([self.weights, np.square(self.weights)])
        if isinstance(judged, CountRows):
            sums, totals = judged.matmul(columns), judged.pixel_totals()
        else:
            sums, totals = judged @ columns, judged.sum(axis=1)
        scale = np.maximum(sums[:, 0], self.least * totals)
        rows, noise = np.zeros(scale.size), np.zeros(scale.size)
        np.divide(float(self.weights.size), scale, out=rows, where=totals > 0)
        np.divide(sums[:, 1], np.square(scale), out=noise, where=totals > 0)
        if isinstance(counts, CountRows):
            channels = counts.rmatmul(rows[:, None])[0]
        else:
            channels = rows @ counts
        gram = weighted_gram(counts, rows)
        return _Even(gram, channels, int(np.count_nonzero(rows)), float(noise.sum()))

    def combine(self, a: _Even, b: _Even) -> _Even:
        """Add."""
        return a.plus(b, a.gram + b.gram)

    def combine_into(self, a: _Even, b: _Even) -> _Even:
        """Add to the first."""
        return a.plus(b, add_upper(a.gram, b.gram))

    def step(self, state: Any, statistic: _Even, round_number: int) -> tuple[_Even, bool]:
        """Gram matrix after the columns are scaled, with their factors v in place of the channels' sums."""
        columns = statistic.n_pixels / statistic.channels
        gram = _scaled(statistic.gram, np.sqrt(columns), gather=False)
        return replace(statistic, gram=gram, channels=columns), True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * self.pooling.n_channels**2


def _parted(
    counts: CountRows | NDArray[np.float64], share: float, rng: np.random.Generator
) -> tuple[CountRows | NDArray[np.float64], CountRows | NDArray[np.float64]]:
    """The counts in two parts, each count drawn by itself: the rest, and a share.

    Parts of Poisson counts are independent Poisson counts (binomial thinning).
    """
    if not isinstance(counts, CountRows):
        drawn = rng.binomial(np.rint(counts).astype(np.int64), share).astype(np.float64)
        return counts - drawn, drawn
    taken = rng.binomial(counts.counts, share).astype(counts.counts.dtype)
    return _without_zeros(counts, counts.counts - taken), _without_zeros(counts, taken)


def _without_zeros(rows: CountRows, values: NDArray[Any]) -> CountRows:
    """Rows with other counts in the same places, those of zero left out."""
    kept = values > 0
    before = np.concatenate(([0], np.cumsum(kept)))
    return CountRows(before[rows.indptr], rows.channels[kept], values[kept], rows.n_channels)


@dataclass(frozen=True, eq=False)
class ParallelSweep:
    """Second largest eigenvalue of simulated counts that have a single spectrum.

    Simulated pixels have the totals of real ones, which are the blocks here (shape (p, 1)), and the mean
    spectrum. With one spectrum the scaling of Keenan and Kotula, 1 / g and N / h, is the biwhitening of
    Poisson counts; noise of another kind is drawn as what biwhitening leaves of it.
    """

    totals: NDArray[np.float64]
    gain: float | None
    gather: bool
    tables: AliasTables
    name: str = "parallel analysis"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> NDArray[np.float64]:
        """Gram matrix (or pixels) of some simulated pixels."""
        per_pixel = block.dense(np.float64)[:, 0]
        rng = np.random.default_rng(rng_key)
        weights = 1 / per_pixel
        simulated: CountRows | NDArray[np.float64]
        if self.gain is None and per_pixel.sum() < per_pixel.size * self.totals.size:
            # Event by event: the same distribution, at the cost of the counts instead of the cells.
            n_events = rng.poisson(per_pixel)
            place = rng.random(int(n_events.sum())) * self.totals.size
            channel = place.astype(np.int64)
            stays = place - channel < self.tables.keep[0][channel]
            channel = np.where(stays, channel, self.tables.other[0][channel])
            simulated = rows_of_events(n_events, channel, self.totals.size)
        elif self.gain is None:
            mean = per_pixel[:, None] * (self.totals / self.totals.sum())
            simulated = rng.poisson(mean).astype(np.float64)
        else:
            # Drawn as it is after scaling, with variance one, and put back to where `step` scales it.
            mean = per_pixel[:, None] * (self.totals / self.totals.sum())
            even = np.sqrt(mean / self.gain) + rng.standard_normal(mean.shape)
            simulated = even / np.sqrt(self.totals.sum() / self.totals)
            weights = np.ones(per_pixel.size)
        return _gram_or_rows(simulated, weights, self.gather)

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add, or append."""
        return np.concatenate((a, b)) if self.gather else a + b

    def combine_into(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add to the first, or append."""
        return np.concatenate((a, b)) if self.gather else add_upper(a, b)

    def step(
        self, state: Any, statistic: NDArray[np.float64], round_number: int
    ) -> tuple[float, bool]:
        """Second eigenvalue."""
        scale = np.sqrt(self.totals.sum() / self.totals)
        return _second_eigenvalue(_scaled(statistic, scale, self.gather)), True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * self.totals.size**2


def _gram_or_rows(
    block: CountRows | NDArray[np.float64], weights: NDArray[np.float64], gather: bool
) -> NDArray[np.float64]:
    """sum_i w_i y_i y_i' (upper triangle), or the pixels sqrt(w_i) y_i."""
    if not gather:
        return weighted_gram(block, weights)
    dense = block.to_dense() if isinstance(block, CountRows) else np.asarray(block, np.float64)
    return dense * np.sqrt(weights)[:, None]


def _scaled(
    statistic: NDArray[np.float64], scale: NDArray[np.float64], gather: bool
) -> NDArray[np.float64]:
    """Gram matrix after the columns are scaled."""
    if gather:
        rows = statistic * scale
        return np.asarray(rows @ rows.T)
    gram = add_symmetric(statistic)
    gram *= scale
    gram *= scale[:, None]
    return gram


def _second_eigenvalue(gram: NDArray[np.float64]) -> float:
    """Second largest eigenvalue of a Gram matrix; 0 where there is none."""
    n = gram.shape[0]
    if n < 2 or not gram.any():
        return 0.0
    if n <= 2 * KRYLOV:
        return max(0.0, float(np.linalg.eigvalsh(gram)[-2]))
    start = _krylov_start(gram)
    return float(
        eigsh(
            gram, k=2, which="LA", ncv=KRYLOV, v0=start, tol=1e-10, return_eigenvectors=False
        ).min()
    )


def _krylov_start(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """First vector of a Krylov space: fixed, so that the same matrix gives the same bits."""
    n = gram.shape[0]
    return np.asarray(np.sqrt(np.maximum(np.diagonal(gram), 0.0)) + np.arange(n) / n)


@dataclass(frozen=True, eq=False)
class _Fit:
    """Noise spectrum at one pooling, and what it says."""

    model: str
    pooling: _Pooling
    channel_counts: float
    totals: NDArray[np.float64]
    scaling: _Scaling
    curvature: float = 0.0
    gain: float = 1.0
    singular_values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    threshold: float = math.nan
    n_above: int = 0
    distance: float = 1.0
    fault: str = ""
    drawn: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def sides(self) -> tuple[int, int]:
        return self.scaling.n_pixels, self.pooling.n_channels


@group("number of components")
def estimate_n_components(
    cube: Any,
    method: str = "biwhitening",
    where: Any = None,
    *,
    noise: str = "auto",
    pixel_counts: float = PIXEL_COUNTS,
    channel_counts: float = CHANNEL_COUNTS,
    n_shown: int = 30,
    random_state: Any = 0,
) -> NComponentsEstimate:
    """Estimate how many components the data support, or say that they do not tell.

    Parameters
    ----------
    cube : DataArray, or matrix of shape (P, E)
        Counts, or values whose noise variance is a mean + b mean^2.
    method : {"biwhitening", "parallel", "elbow"}
        Whose number is `n_components`; the others are in `alternatives`. Only biwhitening refuses.
    where : DataArray of bool, optional
        What is used (True), over navigation dims, signal dims or both.
    noise : {"auto", "poisson", "quadratic"}
        "poisson": the variance is the count. "quadratic": a mean + b mean^2, with a and b estimated from
        the spectrum of the noise. "auto": "poisson" for integers (and "quadratic" where that does not
        fit and cells hold several counts), "quadratic" for everything else.
    pixel_counts, channel_counts : float
        Neighbouring pixels (channels) are summed until they hold as many counts; of integer data only.
        The pixels' is doubled while the noise does not follow its law.
    n_shown : int
        Length of the curve.
    random_state : int, Generator or None
        Of the simulated counts of the parallel analysis.

    Returns
    -------
    NComponentsEstimate

    Raises
    ------
    InputError
        An unknown method or noise; values that are not finite; negative counts.

    Notes
    -----
    Some six to thirty passes over the blocks, which stay in memory as far as the budget goes; beside
    them E^2 numbers of 8 bytes. The first component is the mean spectrum and is counted.
    The threshold is sqrt(P) + sqrt(E) plus what a matrix of finite size may exceed it by.

    References
    ----------
    B. Landa, T. T. C. K. Zhang, Y. Kluger, SIAM J. Math. Data Sci. 4 (2022) 1420.
    https://doi.org/10.1137/21M1456807

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> spectra = rng.dirichlet(np.ones(120), 2) * 200
    >>> counts = rng.poisson(rng.dirichlet(np.ones(2), 500) @ spectra)
    >>> em.estimate_n_components(counts).n_components
    2
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if noise not in ("auto", "poisson", "quadratic"):
        raise InputError(f"noise must be 'auto', 'poisson' or 'quadratic', got {noise!r}")
    value: Any
    for name, value in (("pixel_counts", pixel_counts), ("channel_counts", channel_counts)):
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not (number and np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a positive number, got {value!r}")
    value = n_shown
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise InputError(f"n_shown must be a whole number from 1 on, got {value!r}")
    seed = resolve_seed(random_state)
    source, _ = as_source(cube, where)
    integers = _dtype(cube).kind in "iub"
    # One thread for the eigenvalues too: their bits must not depend on the machine's load.
    with resident(), single_threaded_blas():
        totals = run_sweep(TotalsSweep(counts=noise == "poisson"), source).state
        fit = _best_fit(source, totals, noise, integers, pixel_counts, channel_counts, seed)
        parallel = _parallel(fit, seed) if fit.singular_values.size else None
    return _answer(fit, method, parallel, n_shown)


def _dtype(cube: Any) -> np.dtype[Any]:
    found = getattr(cube, "dtype", None)
    return np.dtype(np.asarray(cube).dtype if found is None else found)


def _best_fit(
    source: BlockSource,
    totals: Totals,
    noise: str,
    integers: bool,
    pixel_counts: float,
    channel_counts: float,
    seed: int,
) -> _Fit:
    """The first pooling whose noise follows the law, or else the one that comes nearest."""
    fits: list[_Fit] = []
    if noise == "poisson" or (noise == "auto" and integers and totals.minimum >= 0):
        fits = _poisson_fits(source, totals, pixel_counts, channel_counts, seed)
        if not fits[-1].fault:
            return fits[-1]
        cells = max(1, totals.n_pixels * totals.channels.size)
        if noise == "poisson" or totals.total / cells < 5:
            return min(fits, key=_badness)
    fits += _quadratic_fits(source, totals, integers, channel_counts, seed)
    good = [f for f in fits if not f.fault]
    return min(good or fits, key=_badness)


def _badness(fit: _Fit) -> tuple[bool, float]:
    """Order of fits; a fitted curvature must be worth a tenth of the distance."""
    return not fit.singular_values.size, fit.distance * (1.1 if fit.curvature else 1.0)


def _poisson_fits(
    source: BlockSource, totals: Totals, pixel_counts: float, channel_counts: float, seed: int
) -> list[_Fit]:
    groups, least = group_channels(totals.channels, channel_counts, MAX_CHANNELS)
    sums = np.bincount(groups, weights=totals.channels).astype(np.float64)
    pooling = _Pooling(pixel_counts, groups, sums.size)
    first = totals.total / np.maximum(sums, 1e-300) / sums.size
    fits: list[_Fit] = []
    for _ in range(MAX_POOLINGS + 1):
        fit = _fit(source, _Fit("poisson", pooling, least, sums, _Scaling(first)), seed)
        fits.append(fit)
        if not fit.fault or min(fit.sides) < MIN_SIDE or totals.total <= 0:
            break
        if len(fits) > 1 and _is_scaled(fits[-2]) and fit.distance > 0.95 * fits[-2].distance:
            # Fuller pixels do not help, so rare counts are not what is wrong.
            break
        held = totals.total / max(1, fit.sides[0])
        pooling = replace(pooling, pixel_counts=max(2 * pooling.pixel_counts, 0.75 * held))
        # The next pooling's scaling is near this one's, unless this one ran away.
        if fit.scaling.deviation < 0.1:
            first = fit.scaling.columns
    return fits


def _quadratic_fits(
    source: BlockSource, totals: Totals, integers: bool, channel_counts: float, seed: int
) -> list[_Fit]:
    positive = np.maximum(totals.channels, 0.0)
    if positive.sum() <= 0:
        pooling = _Pooling(0.0, np.zeros(positive.size, dtype=np.int64), 1)
        nothing = _Fit("quadratic", pooling, 0.0, positive[:1], _Scaling(np.ones(1)))
        return [replace(nothing, fault="there is no signal: no channel has a positive total")]
    least = channel_counts if integers else 1e-6 * positive.mean()
    groups, least = group_channels(positive, least, MAX_CHANNELS)
    sums = np.bincount(groups, weights=positive).astype(np.float64)
    pooling = _Pooling(0.0, groups, sums.size)
    mean = positive.sum() / (totals.n_pixels * sums.size)
    first = positive.sum() / sums / sums.size

    def try_curvature(factor: float) -> _Fit:
        # Scalings of neighbouring curvatures are near each other.
        # Those that ran away are near nothing.
        known = (f for f in fits if f.scaling.deviation < 0.1)
        near = min(known, key=lambda f: abs(f.curvature * mean - factor), default=None)
        begin = first if near is None else near.scaling.columns
        start = _Fit("quadratic", pooling, least, sums, _Scaling(begin), float(factor / mean))
        return _fit(source, start, seed)

    fits: list[_Fit] = []
    for factor in CURVATURES:
        fits.append(try_curvature(factor))
        if not fits[-1].singular_values.size:
            return fits
    step = math.sqrt(CURVATURES[2] / CURVATURES[1])
    for _ in range(CURVATURE_STEPS):
        best = min(fits, key=_badness).curvature * mean
        if best == 0:
            break
        fits += [try_curvature(best / step), try_curvature(best * step)]
        step = math.sqrt(step)
    return fits


def _fit(source: BlockSource, start: _Fit, seed: int) -> _Fit:
    """Scale, take the spectrum, and measure how well it follows the law."""
    pooling = start.pooling
    scaling_sweep = ScalingSweep(pooling, start.curvature, start.scaling.columns)
    scaling = run_sweep(scaling_sweep, source, max_rounds=SCALING_ROUNDS).state
    fit = replace(start, scaling=scaling)
    n_rows, n_columns = fit.sides
    if min(n_rows, n_columns) < MIN_SIDE:
        pooled = (
            f" that hold {pooling.pixel_counts:g} and {fit.channel_counts:g} counts"
            if pooling.pixel_counts
            else ""
        )
        return replace(
            fit,
            fault=f"there are only {n_rows} pixels and {n_columns} channels{pooled}; {MIN_SIDE} of "
            "each are needed to judge the noise",
        )
    if not np.isfinite(fit.scaling.deviation):
        return replace(fit, fault="a channel has no variance at all")
    chance = min(1.0, max(NULL_CELLS / n_columns, 2.0 * MIN_SIDE) / n_rows)
    # What is clear shows in a part of very many pixels, and the rest of the first look would be thrown away.
    even = fit.model == "poisson" and _own_noise(fit, 1.0 / fit.totals) > OWN_NOISE
    every = max(1, min(source.plan.n_blocks // 4, n_rows // GLANCE)) if even else 1
    sweep = ScaledGramSweep(
        pooling,
        fit.curvature,
        fit.scaling.columns,
        gather=n_rows < n_columns,
        chance=min(1.0, every * chance),
        every=every,
    )
    first = run_sweep(sweep, source, seed=seed).state
    drawn = first.drawn
    edge = noise_edge(n_rows, n_columns)
    if even:
        eigenvalues, edge = _even_spectrum(source, fit, first, edge, seed)
    else:
        eigenvalues = _eigenvalues(first.gram)
    eigenvalues = eigenvalues[: min(n_rows, n_columns)]
    longer = max(n_rows, n_columns)
    ratio = min(n_rows, n_columns) / longer
    gain = 1.0
    if fit.model == "quadratic":
        gain = _noise_gain(eigenvalues / longer, ratio, edge**2 / longer)
    values = np.sqrt(eigenvalues / gain)
    n_above = int(np.count_nonzero(values > edge))
    fit = replace(
        fit,
        gain=gain,
        singular_values=values,
        threshold=edge,
        n_above=n_above,
        distance=spectrum_distance(values[n_above:] ** 2 / longer, ratio),
        drawn=drawn[drawn > 0],
    )
    return replace(fit, fault=_fault(fit))


def _eigenvalues(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eigenvalues, descending, none negative."""
    return np.asarray(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0))


def _vectors_above(gram: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """Eigenvectors of eigenvalues above a bound, as columns, largest last."""
    if gram.shape[0] > 2 * KRYLOV:
        # Few are expected: a Krylov space finds them in a fraction of the time of all.
        values, vectors = eigsh(
            gram, k=FEW, which="LA", ncv=KRYLOV, v0=_krylov_start(gram), tol=1e-10
        )
        if values.min() <= bound:
            order = np.argsort(values)
            return np.asarray(vectors[:, order[values[order] > bound]])
    values, vectors = eigh(gram, driver="evd")
    return np.asarray(vectors[:, values > bound])


def _own_noise(fit: _Fit, weights: NDArray[np.float64]) -> float:
    """Strength of the spurious components that the pixels' factors make of their own counting noise.

    With u = E / sum_j m_j Y_j the mean of a scaled pixel is not linear in its spectrum any more: to second
    order there is a part along m_j E[Y_j], which is no mixture of components, whose square adds up over
    the pixels to P^2 sum_j h_j m_j^2 / (sum_j h_j m_j)^2. Given over sqrt(P E), where a component leaves the
    noise (J. Baik, G. Ben Arous, S. Peche, Ann. Probab. 33 (2005) 1643,
    https://doi.org/10.1214/009117905000000233).
    """
    n_rows, n_columns = fit.sides
    if n_rows < n_columns:
        return 0.0
    spread = float(fit.totals @ np.square(weights)) / float(fit.totals @ weights) ** 2
    return float(n_rows**1.5 / math.sqrt(n_columns) * spread)


def _even_spectrum(
    source: BlockSource, fit: _Fit, first: _Scaled, edge: float, seed: int
) -> tuple[NDArray[np.float64], float]:
    """Eigenvalues with pixels scaled by what the clear components say of them, and the edge of the noise.

    `first` is of some of the pixels, or of all; the number of clear components may grow.
    """
    gram, columns = first.gram, fit.scaling.columns
    share = fit.totals / fit.totals.sum()
    bound = (CLEAR * noise_edge(first.n_pixels, columns.size)) ** 2
    while True:
        clear = _vectors_above(gram, bound)
        if not clear.shape[1]:
            # Not even the mean spectrum: the largest value is as good as any.
            clear = eigh(gram, subset_by_index=(columns.size - 1, columns.size - 1))[1]
        # In scaled channels the factors v are a vector; what of it lies in the components is enough.
        roots = np.sqrt(columns)
        weights = roots * (clear @ (clear.T @ roots))
        # Even so little is too much where pixels are very many: then other counts make the factors.
        split = SPLIT if _own_noise(fit, weights) > OWN_NOISE else 0.0
        least = LEAST_WEIGHT * float(weights @ share)
        even = run_sweep(EvenGramSweep(fit.pooling, weights, least, split), source, seed=seed).state
        gram, columns = even.gram, even.channels
        if split:
            # Factors of some noise, u = 1 / (1 + x) with x of variance `noise`, make pixels of uneven weight:
            # the noise spreads as over E <u^2> / <u>^2 channels, to second order in `noise`.
            noise = even.noise / max(1, even.n_pixels)
            wider = LEEWAY * (1.0 + noise + 6.0 * noise**2)
            edge = noise_edge(even.n_pixels, columns.size * wider)
        bound = (CLEAR * edge) ** 2
        values = _eigenvalues(gram)
        if np.count_nonzero(values > bound) <= clear.shape[1]:
            return values, edge


def _noise_gain(eigenvalues: NDArray[np.float64], ratio: float, edge: float) -> float:
    """Scale of the noise from the median of the eigenvalues that are noise."""
    middle = marchenko_pastur_median(ratio)
    gain = float(np.median(eigenvalues)) / middle
    for _ in range(10):
        if gain <= 0:
            return 1.0
        gain = float(np.median(eigenvalues[eigenvalues <= edge * gain])) / middle
    return gain if gain > 0 else 1.0


def _is_scaled(fit: _Fit) -> bool:
    """Whether the Sinkhorn scaling came near enough to its end."""
    return fit.scaling.deviation < 10 * SCALING_TOLERANCE


def _fault(fit: _Fit) -> str:
    """Why a fit is not to be trusted; empty where it is."""
    if not _is_scaled(fit):
        return (
            "pixels and channels cannot be scaled to even noise: many pixels hold counts in a few "
            "channels only"
        )
    allowed = DISTANCE[fit.model]
    if fit.distance > allowed:
        return (
            f"the noise does not follow the Marchenko-Pastur law (distance {fit.distance:.2f}, at "
            f"most {allowed:.2f} expected)"
        )
    if fit.n_above == 0:
        return "not even a mean spectrum stands out of the noise"
    crowd = int(np.count_nonzero(fit.singular_values[: fit.n_above] < 1.05 * fit.threshold))
    if crowd >= CROWD or fit.n_above > min(fit.sides) // 4:
        return (
            f"{crowd} of {fit.n_above} values lie within 5 % above the threshold: the noise goes on "
            "across it, as correlated noise does"
        )
    return ""


def _parallel(fit: _Fit, seed: int) -> int:
    """Number of values above the largest that simulated counts of one spectrum have beside it."""
    n_rows, n_columns = fit.sides
    n_simulated = fit.drawn.size
    if n_simulated < 2:
        return 0
    gain = None if fit.model == "poisson" else fit.gain
    sweep = ParallelSweep(fit.totals, gain, n_rows < n_columns, alias_tables(fit.totals))
    # A single copy of few pixels would leave much to chance.
    copies = min(NULL_COPIES, max(1, int(NULL_CELLS // (n_simulated * n_columns))))
    blocks = _as_blocks(fit.drawn)
    null = max(run_sweep(sweep, blocks, seed=seed + copy).state for copy in range(copies))
    # The second value of the simulated data is noise; the first is their mean spectrum.
    grown = noise_edge(n_rows, n_columns) / noise_edge(n_simulated, n_columns)
    return int(np.count_nonzero(fit.singular_values > math.sqrt(null) * grown))


def _as_blocks(values: NDArray[np.float64]) -> BlockSource:
    """Values one below the other, in `NULL_BLOCKS` blocks."""
    source = ArraySource.from_array(values[:, None], 1)
    plan = plan_blocks((values.size,), 1, 8, target_bytes=8 * -(-values.size // NULL_BLOCKS))
    return replace(source, plan=plan)


def _answer(fit: _Fit, method: str, parallel: int | None, n_shown: int) -> NComponentsEstimate:
    values, edge = fit.singular_values, fit.threshold
    trusted = not fit.fault
    alternatives: dict[str, int | None] = {
        "biwhitening": fit.n_above if trusted else None,
        "parallel": parallel,
        "elbow": elbow(np.square(values)) if values.size else None,
    }
    above = 100 * (values[fit.n_above - 1] / edge - 1) if fit.n_above else math.nan
    below = 100 * (1 - values[fit.n_above] / edge) if fit.n_above < values.size else math.nan
    margin = Margin(float(above), float(below))
    number = alternatives[method]
    if fit.fault and method == "biwhitening":
        reason = fit.fault
    elif number is None:
        reason = fit.fault or "there is no spectrum to look at"
    elif method == "biwhitening":
        reason = str(margin)
    else:
        reason = f"by {method}; biwhitening says {alternatives['biwhitening']}"
    shown = values[:n_shown]
    curve = xr.Dataset(
        {
            "singular_value": ("component", shown, {"units": "1", "long_name": "singular value"}),
            "relative": ("component", shown / edge, {"units": "1"}),
            "accepted": ("component", np.arange(shown.size) < fit.n_above),
            "threshold": ((), edge, {"units": "1", "long_name": "largest value of noise"}),
        },
        coords={"component": np.arange(1, shown.size + 1)},
        attrs={
            "n_components": -1 if number is None else number,
            "method": method,
            "reason": reason,
            "trusted": int(trusted),
            "note": "the first component is the mean spectrum; its weight carries no contrast",
        },
    )
    n_rows, n_columns = fit.sides
    return NComponentsEstimate(
        n_components=number,
        reason=reason,
        method=method,
        trusted=trusted,
        margin=margin,
        threshold=edge,
        curve=curve,
        alternatives=alternatives,
        noise={
            "model": fit.model,
            "gain": fit.gain,
            "curvature": fit.curvature,
            "distance": fit.distance,
            "pixels": n_rows,
            "channels": n_columns,
            "pixel_counts": fit.pooling.pixel_counts,
            "channel_counts": fit.channel_counts,
            "scaling_rounds": fit.scaling.n_rounds,
        },
    )
