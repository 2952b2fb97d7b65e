"""How far other factorisations reach that describe the data as well: what neither counts nor refits fix.

L S = (L T^-1)(T S) for every T that can be inverted, and the likelihood limits T only as far as spectra and
loadings must not be negative. Any model with components that are not negative can be asked.

Letters: P pixels, E used channels, K components, N factorisations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.engine import run_sweep
from emcube.kernels.feasible import Profile, feasible_turns, slack_of
from emcube.kernels.poisson_nmf import as_rows, floored
from emcube.kernels.rows import CountRows, joined_rows
from emcube.models.information import Fitted
from emcube.models.labels import Labels
from emcube.models.nmf_losses import Loss
from emcube.models.nmf_start import tile_of
from emcube.models.nmf_sweeps import PooledSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource, RngKey

__all__ = ["Rotations", "beside", "pooled_source", "rotations_of"]

SAMPLE = 1000
"""Pixels (or tiles) whose likelihood says what else is as good. Fewer say less: the range grows."""

GROUPS = 128
"""Groups of neighbouring channels, of about equal signal, in which the counts of the sample are summed."""


@dataclass(frozen=True, eq=False)
class Rotations:
    """Factorisations (L T^-1)(T S) that describe the data as well as L S.

    Attributes
    ----------
    turns : ndarray, shape (N, K, K)
        T; the first is the identity. Rows sum to one.
    """

    turns: NDArray[np.float64]

    @property
    def mixings(self) -> NDArray[np.float64]:
        """T^-1, shape (N, K, K)."""
        return np.asarray(np.linalg.inv(self.turns), dtype=np.float64)

    def components(
        self, components: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and largest values (K, E) of components S among all T S, zero at least."""
        turned = np.maximum(np.einsum("nkl,le->nke", self.turns, components), 0.0)
        return turned.min(axis=0), turned.max(axis=0)

    def loadings(self, loadings: NDArray[np.float64]) -> NDArray[np.float64]:
        """Least and largest loadings, shape (p, K, 2), of pixels with the loadings (p, K)."""
        out = np.empty((*loadings.shape, 2))
        turned = np.einsum("pk,nkl->npl", loadings, self.mixings)
        out[..., 0] = np.maximum(turned.min(axis=0), 0.0)
        out[..., 1] = np.maximum(turned.max(axis=0), 0.0)
        return out

    def shares(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Least and largest total (K, 2) of each component's loadings, over its own (K,)."""
        turned = np.einsum("k,nkl->nl", totals, self.mixings)
        share = np.maximum(turned, 0.0) / np.maximum(totals, np.finfo(float).tiny)
        return np.column_stack((share.min(axis=0), share.max(axis=0)))


def rotations_of(
    fitted: Fitted,
    source: BlockSource,
    labels: Labels,
    *,
    noise: float,
    variance: NDArray[np.float64],
    level: float,
    seed: int,
) -> Rotations:
    """Look for the factorisations that are as good (see `emcube.kernels.feasible`), in one pass.

    Parameters
    ----------
    fitted : Fitted
        The model's components, over the channels of `source`.
    source : BlockSource
        In counts where the loss is theirs.
    labels : Labels
        Of the cube.
    noise : float
        Least squares: variance of a value.
    variance : ndarray, shape (K, E)
        Of the components' values (see `component_errors`).
    level : float
        Of the likelihood ratio that says "as good".
    seed : int
        Of the sample.
    """
    pooled = pooled_source(source, labels, fitted.pool)
    chance = min(1.0, SAMPLE / max(1, pooled.n_pixels))
    sample = run_sweep(SampleSweep(chance), pooled, seed=seed).state
    variance = np.maximum(variance, np.finfo(float).tiny)
    slack = slack_of(level, len(fitted.components))
    if fitted.loss.counts:
        # Sums of counts are counts: a search through groups costs a tenth, and what is lost widens ranges.
        group = np.floor(np.cumsum(fitted.components.mean(axis=0)) * GROUPS).astype(np.int64)
        _, group = np.unique(group, return_inverse=True)
        profile: Profile = _CountProfile(fitted.loss, _grouped_rows(as_rows(sample), group))
        components, variance = (_grouped(v, group) for v in (fitted.components, variance))
    else:
        tile_noise = noise * math.prod(tile_of(labels.nav_dims, fitted.pool))
        profile = _FlatProfile(fitted.loss, np.asarray(sample, dtype=np.float64), tile_noise)
        components = fitted.components
    return Rotations(feasible_turns(profile, components, np.sqrt(variance), slack))


def _grouped(values: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums (K, G) of values (K, E) by groups of channels."""
    return np.array([np.bincount(group, row) for row in values])


def _grouped_rows(rows: CountRows, group: NDArray[np.int64]) -> CountRows:
    """Counts summed by groups of channels."""
    n = int(group.max()) + 1
    pixel = np.repeat(np.arange(rows.n_pixels), np.diff(rows.indptr))
    place = pixel * n + group[rows.channels.astype(np.int64)]
    sums = np.bincount(place, rows.counts, minlength=rows.n_pixels * n)
    if rows.counts.dtype.kind != "f":
        sums = sums.astype(np.uint32)
    return as_rows(sums.reshape(rows.n_pixels, n))


def pooled_source(source: BlockSource, labels: Labels, side: int) -> BlockSource:
    """The tiles that components were fitted on."""
    return source if side == 1 else PooledSource(source, tile_of(labels.nav_dims, side))


@dataclass(frozen=True, eq=False)
class SampleSweep:
    """Some pixels as they are, each with the same chance."""

    chance: float
    name: str = "uncertainty (sample)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> CountRows | NDArray[Any]:
        """Pixels of one block."""
        drawn = np.random.default_rng(rng_key).random(block.n_pixels) < self.chance
        data = block.data
        return data.take(drawn) if isinstance(data, CountRows) else np.asarray(data[drawn])

    def combine(self, a: Any, b: Any) -> CountRows | NDArray[Any]:
        """Append."""
        if isinstance(a, CountRows) or isinstance(b, CountRows):
            return joined_rows([as_rows(a), as_rows(b)])
        return np.concatenate((a, b))

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * n_channels * SAMPLE


@dataclass(frozen=True, eq=False)
class _CountProfile:
    """Objective of components on counts, with its gradient."""

    loss: Loss
    data: CountRows

    def __call__(self, components: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        found = self.loss.evaluate(self.data, components)
        return found.divergence, found.loadings[:, None] - found.counts / floored(components)


@dataclass(frozen=True, eq=False)
class _FlatProfile:
    """The same for least squares, over the variance of the noise."""

    loss: Loss
    data: NDArray[np.float64]
    noise: float

    def __call__(self, components: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        found = self.loss.evaluate(self.data, components)
        slope = found.gram @ components - found.products
        return found.divergence / self.noise, slope / self.noise


def beside(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    interval: tuple[NDArray[np.float64], NDArray[np.float64]],
    value: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A range of rotations with the interval about the value on either side of it, zero at least.

    Rotations leave the span of the components as it is; the noise of counts does not.
    """
    return np.maximum(low - (value - interval[0]), 0.0), high + (interval[1] - value)
