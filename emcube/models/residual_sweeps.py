"""What a model leaves of each pixel and channel, and how what is left of neighbours goes together.

Letters: P pixels, E used channels, G groups of channels, K components, L lags.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels.misfit import deviance_pixels, lagged, residual_slab, slabs
from emcube.kernels.residuals import channel_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey
    from emcube.models.information import Fitted

__all__ = ["Left", "PixelMisfit", "ResidualSweep", "misfit_of"]

LEAST_COUNTS = 1.0
"""Neighbouring channels are summed until the mean pixel holds as many counts: with hardly any, single
counts rule a sum of squares."""


@dataclass(frozen=True, eq=False)
class PixelMisfit:
    """Chi-square and deviance of a block's pixels, of noise alone one; pickles.

    Parameters
    ----------
    fitted : Fitted
    starts : ndarray of int, shape (G,)
        First channels of groups.
    weights : ndarray, shape (G,)
        Of squares.
    noise : float
        Least squares: variance of a value.
    """

    fitted: Fitted
    starts: NDArray[np.int64]
    weights: NDArray[np.float64]
    noise: float = 1.0

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        """Names of variables to values (p,)."""
        packed = self.packed(block)
        found = {"chi_square": packed[:, 0]}
        if self.fitted.loss.counts:
            found["deviance"] = packed[:, 1]
        return found

    def packed(self, block: Block) -> NDArray[np.float64]:
        """Both side by side, shape (p, 2)."""
        fitted = self.fitted
        fitted.loss.check(block)
        data = block.data if fitted.gain == 1.0 else block.dense() / fitted.gain
        loadings = fitted.loss.loadings(data, fitted.components)
        out = np.empty((block.n_pixels, 2))
        for part, values in slabs(data):
            x = np.add.reduceat(values, self.starts, axis=1)
            out[part] = self.of_groups(x, self.model(loadings[part]))
        return out

    def model(self, loadings: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is expected of groups of channels, shape (p, G)."""
        return loadings @ np.add.reduceat(self.fitted.components, self.starts, axis=1)

    def of_groups(self, x: NDArray[np.float64], m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Both from data and model by groups of channels (p, G)."""
        out = np.full((len(x), 2), np.nan)
        out[:, 0] = self.chi_square(x - m, m)
        if self.fitted.loss.counts:
            two = deviance_pixels(x, m)
            np.divide(two[:, 0], two[:, 1], out=out[:, 1], where=two[:, 1] > 0.0)
            out[:, 1] *= self._factor()
        return out

    def chi_square(self, rest: NDArray[np.float64], m: NDArray[np.float64]) -> NDArray[np.float64]:
        """The first, from what is left and the model (p, G); NaN where the model has nothing."""
        found = np.full(len(rest), np.nan)
        square = np.square(rest) @ self.weights
        if self.fitted.loss.counts:
            expected = m @ self.weights
        else:
            expected = np.full(len(rest), self.noise * self.weights.sum())
        np.divide(square, expected, out=found, where=expected > 0.0)
        return found * self._factor()

    def _factor(self) -> float:
        """Groups over degrees of freedom: loadings were fitted."""
        k, g = len(self.fitted.components), self.starts.size
        return g / max(g - k, 1)


def misfit_of(fitted: Fitted, n_pixels: int, noise: float) -> PixelMisfit:
    """Groups and weights that suit a model: of counts, each group holds one in the mean pixel."""
    k, n_channels = fitted.components.shape
    if not fitted.loss.counts:
        return PixelMisfit(fitted, np.arange(n_channels), np.ones(n_channels), noise)
    mean = fitted.totals @ fitted.components / max(1, n_pixels)
    # Few counts leave few groups: there must be more of them than components.
    starts = channel_groups(mean, min(LEAST_COUNTS, float(mean.sum()) / (2 * k + 2)))
    held = np.add.reduceat(mean, starts)
    weights = np.divide(1.0, held, out=np.zeros_like(held), where=held > 0.0)
    return PixelMisfit(fitted, starts, weights)


@dataclass(frozen=True, eq=False)
class Left:
    """Sums over pixels of what is left.

    `square`, `expected`: by channel (E,). `pairs`: (axes, lags, 3), see `lagged`. `pixels`: sums of
    chi-square, of its square, and number of pixels that hold anything.
    """

    square: NDArray[np.float64]
    expected: NDArray[np.float64]
    pairs: NDArray[np.float64]
    pixels: NDArray[np.float64]

    def __add__(self, other: Left) -> Left:
        return Left(
            self.square + other.square,
            self.expected + other.expected,
            self.pairs + other.pairs,
            self.pixels + other.pixels,
        )


@dataclass(frozen=True, eq=False)
class ResidualSweep:
    """Squares by channel, and how residuals of neighbours go together, in one round.

    Pairs of neighbours are those within a block. The last axis is that of the channels.
    """

    misfit: PixelMisfit
    n_lags: int
    channel_weights: NDArray[np.float64]
    name: str = "diagnostics (residuals)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> Left:
        """Sums of one block."""
        fitted, misfit = self.misfit.fitted, self.misfit
        fitted.loss.check(block)
        loadings = fitted.loss.loadings(block.data, fitted.components)
        n_groups = misfit.starts.size
        square = np.zeros(fitted.components.shape[1])
        expected = np.zeros_like(square)
        along = np.zeros((self.n_lags, 3))
        box = np.zeros((math.prod(block.nav_shape), n_groups))
        index = block.box_index()
        roots = np.sqrt(self.channel_weights)
        sums = np.zeros(3)
        for part, values in slabs(block.data):
            rest = np.empty((len(values), n_groups))
            residual_slab(
                values,
                loadings[part],
                fitted.components,
                misfit.starts,
                roots,
                square,
                expected,
                along,
                rest,
            )
            chi = misfit.chi_square(rest, misfit.model(loadings[part]))
            chi = chi[np.isfinite(chi)]
            sums += (chi.sum(), np.square(chi).sum(), chi.size)
            box[index[part]] = rest * np.sqrt(misfit.weights)
        if not fitted.loss.counts:
            expected[:] = misfit.noise * block.n_pixels
        used = np.zeros(len(box), dtype=bool)
        used[index] = loadings.sum(axis=1) > 0.0 if fitted.loss.counts else True
        pairs = self._pairs(box.reshape(*block.nav_shape, n_groups), used.reshape(block.nav_shape))
        return Left(square, expected, np.concatenate((pairs, along[None])), sums)

    def _pairs(self, rest: NDArray[np.float64], used: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Sums over neighbours along each navigation axis, shape (axes, L, 3)."""
        squares = np.einsum("...g,...g->...", rest, rest)
        pairs = [
            [lagged(rest, used, axis, lag, squares=squares) for lag in range(1, self.n_lags + 1)]
            for axis in range(used.ndim)
        ]
        return np.array(pairs).reshape(-1, self.n_lags, 3)

    def combine(self, a: Left, b: Left) -> Left:
        """Add."""
        return a + b

    def step(self, state: Any, statistic: Left, round_number: int) -> tuple[Left, bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 16 * n_channels
