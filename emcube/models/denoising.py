"""What denoising by weighted PCA does to counts, from two halves of them that are independent.

Letters: P pixels, E used channels, K components, L lines, B levels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels.gram import add_symmetric
from emcube.kernels.levels import level_edges, level_guide, level_sums
from emcube.models.pca_sweeps import GramSweep, Moments
from emcube.models.replicates import ThinDraw
from emcube.models.subspace import leading_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey
    from emcube.kernels.rows import CountRows
    from emcube.models.information import Fitted

__all__ = [
    "HALVES",
    "Denoiser",
    "HalvesSweep",
    "LevelSweep",
    "LineSweep",
    "denoiser_of",
    "edges_of_levels",
]

LEVELS = 24
"""Levels of the mean, five to a decade, from `LOWEST` counts on."""

LOWEST, PER_DECADE = 1e-3, 5.0

HALVES = (0.5, 0.5)
"""Shares of the counts in either part."""


def edges_of_levels() -> NDArray[np.float64]:
    """Least counts of each level, shape (B,)."""
    return level_edges(LOWEST, PER_DECADE, LEVELS)


@dataclass(frozen=True, eq=False)
class Denoiser:
    """Weighted PCA of one half of the counts: from a pixel's counts to what the components leave of them.

    Attributes
    ----------
    vectors : ndarray, shape (E, K)
        In the weighted space.
    scale : ndarray, shape (E,)
        Of the channels.
    values : ndarray, shape (K,)
        Squares of the singular values.
    """

    vectors: NDArray[np.float64]
    scale: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def inverse(self) -> NDArray[np.float64]:
        """One over the scale (E,); zero where there is none."""
        return np.divide(1.0, self.scale, out=np.zeros_like(self.scale), where=self.scale > 0.0)

    def scores(
        self, rows: CountRows, totals: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Scores (p, K), the root of the totals (p,), and |u|^2 (p,)."""
        factors = np.sqrt(np.maximum(totals, 1.0))
        scores = rows.matmul(np.ascontiguousarray(self.scale[:, None] * self.vectors))
        scores /= factors[:, None]
        return scores, factors, np.square(scores) @ (1.0 / np.maximum(self.values, 1e-300))

    def denoised(self, rows: CountRows, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Denoised counts, summed over windows (E, L): shape (p, L)."""
        scores, factors, _ = self.scores(rows, rows.pixel_totals().astype(np.float64))
        within = self.vectors.T @ (self.inverse[:, None] * windows)
        return np.asarray((scores * factors[:, None]) @ within)


@dataclass(frozen=True, eq=False)
class HalvesSweep:
    """Moments of both halves of the counts, in one round."""

    draw: ThinDraw
    gram: GramSweep
    name: str = "diagnostics (halves)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> tuple[Moments, ...]:
        """Moments of one block's halves."""
        return tuple(
            self.gram.map(replace(block, data=half), state, rng_key)
            for half in self.draw.parts(block)
        )

    def combine(self, a: tuple[Moments, ...], b: tuple[Moments, ...]) -> tuple[Moments, ...]:
        """Add."""
        return tuple(self.gram.combine(x, y) for x, y in zip(a, b, strict=True))

    def combine_into(self, a: tuple[Moments, ...], b: tuple[Moments, ...]) -> tuple[Moments, ...]:
        """Add to the first."""
        return tuple(self.gram.combine_into(x, y) for x, y in zip(a, b, strict=True))

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 2 * self.gram.statistic_bytes(n_channels)


def denoiser_of(moments: Moments, k: int) -> Denoiser:
    """Weighted PCA with K components, from the moments of some counts."""
    totals = moments.totals.channels
    scale = np.sqrt(np.divide(totals.sum(), totals, out=np.zeros_like(totals), where=totals > 0))
    gram = add_symmetric(moments.gram.copy())
    gram *= scale
    gram *= scale[:, None]
    vectors = leading_vectors(gram, k)
    values = np.einsum("ek,ek->k", vectors, gram @ vectors)
    return Denoiser(np.ascontiguousarray(vectors), scale, values)


@dataclass(frozen=True, eq=False)
class LevelSweep:
    """Cells by their denoised value: means, variance between halves, what theory and counting say; one round.

    The level of a cell is the mean of both denoised halves. Sums over a level (B + 1, 6), the first of
    them for all
    below `LOWEST`: cells, denoised value, raw value of the other half, squared difference of the halves
    over two, the theory's variance, and the pixel's expected counts there.
    """

    denoisers: tuple[Denoiser, Denoiser]
    draw: ThinDraw
    name: str = "diagnostics (levels)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> NDArray[np.float64]:
        """Sums of one block."""
        halves = self.draw.parts(block)
        totals = [half.pixel_totals().astype(np.float64) for half in halves]
        found = [
            d.scores(half, t) for d, half, t in zip(self.denoisers, halves, totals, strict=True)
        ]
        scores, factors, shares = (np.stack(one) for one in zip(*found, strict=True))
        edges = np.append(edges_of_levels(), np.inf)
        out = np.zeros((LEVELS + 1, 6))
        level_sums(
            scores,
            shares,
            factors,
            np.ascontiguousarray([d.vectors.T * d.inverse for d in self.denoisers]),
            np.stack([np.square(d.vectors).sum(axis=1) for d in self.denoisers]),
            np.square(self.denoisers[0].inverse),
            halves[1].indptr,
            halves[1].channels,
            halves[1].counts,
            0.5 * (totals[0] + totals[1]),
            edges,
            *level_guide(edges),
            out,
        )
        return out

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add."""
        return a + b

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True


@dataclass(frozen=True, eq=False)
class LineSweep:
    """Counts of lines before and after denoising, where each component is; one round.

    Pixels are weighed by the loadings of one half of the counts, and what denoising the other half makes of
    its counts is compared with them: the two halves are independent, so that the difference is bias alone.
    Both ways round. Sums (K, L, 3): h (denoised - counted), h counted, h^2 counted.

    Parameters
    ----------
    denoisers, draw
        Of both halves.
    fitted : Fitted
    windows : ndarray, shape (E, L)
        One where a channel belongs to a line.
    """

    denoisers: tuple[Denoiser, Denoiser]
    draw: ThinDraw
    fitted: Fitted
    windows: NDArray[np.float64]
    name: str = "diagnostics (lines)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> NDArray[np.float64]:
        """Sums of one block."""
        halves = self.draw.parts(block)
        out = np.zeros((len(self.fitted.components), self.windows.shape[1], 3))
        for mine, other in ((0, 1), (1, 0)):
            loadings = self.fitted.loss.loadings(halves[mine], self.fitted.components)
            counted = halves[other].matmul(self.windows)
            denoised = self.denoisers[other].denoised(halves[other], self.windows)
            out[..., 0] += loadings.T @ (denoised - counted)
            out[..., 1] += loadings.T @ counted
            out[..., 2] += np.square(loadings).T @ counted
        return out

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add."""
        return a + b

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True
