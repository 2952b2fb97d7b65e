"""Counts in another unit: what one count is worth in values that are no whole numbers.

Normalised spectra and rates are counts times a gain that nobody wrote down. The likelihood of counts has a
scale (one nat is evidence), so that the gain must be known before volume and tolerance mean something.

Letters: P pixels, E used channels, K components.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.engine import MappedSource, run_sweep
from emcube.kernels.frobenius_nmf import pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource, RngKey
    from emcube.models.nmf_start import Sketch

__all__ = ["gain_of", "in_counts", "noise_gain", "sketch_in_counts"]

FEW_COUNTS = 10.0
"""Fractions that sum to less in a pixel are normalised spectra or rates, as a rule, and no counts."""

MOST_COUNTS = 1e6
"""Counts in a pixel that values without noise are taken for."""


@dataclass(frozen=True, eq=False)
class _SquareSweep:
    """Sum of x^2 / (g h) over pixels and channels: all variance of the weighted matrix, over N."""

    inverse: NDArray[np.float64]
    name: str = "NMF (gain)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> float:
        """Sum of one block."""
        total = 0.0
        for _, part in pieces(block.data):
            sums = part.sum(axis=1, keepdims=True)
            shares = part / np.where(sums > 0, sums, 1.0)
            total += float(((shares * part) @ self.inverse).sum())
        return total

    def combine(self, a: float, b: float) -> float:
        """Add."""
        return a + b

    def step(self, state: Any, statistic: float, round_number: int) -> tuple[float, bool]:
        """One round is all."""
        return statistic, True


def gain_of(source: BlockSource, found: Sketch, n_components: int) -> float:
    """Value of one count: 1.0 for counts; for small fractions what their noise says.

    With Keenan and Kotula's weights the noise of counts has variance one, that of counts times a gain this
    gain: it is the mean square of what K components leave (Pearson's dispersion). Values without noise
    are taken for `MOST_COUNTS` a pixel.
    """
    full = max(1, found.n_pixels - found.n_empty)
    held = float(found.totals.sum()) / full
    if held >= FEW_COUNTS or _whole(found):
        return 1.0
    return max(_dispersion(source, found, n_components), held / MOST_COUNTS)


def noise_gain(source: BlockSource, found: Sketch, n_components: int) -> float:
    """Value of one count as its noise says, 1.0 at least, where values are no whole numbers.

    Cameras tell electrons times a gain, with a variance of the gain times the value. What is smoother than
    counts is not trusted: much of its noise may have been moved to where nothing shows it.
    """
    if _whole(found):
        return 1.0
    return max(_dispersion(source, found, n_components), 1.0)


def _whole(found: Sketch) -> bool:
    return np.array_equal(found.totals, np.rint(found.totals))


def _dispersion(source: BlockSource, found: Sketch, n_components: int) -> float:
    """Mean square of what K components leave, with Keenan and Kotula's weights; one pass."""
    full = max(1, found.n_pixels - found.n_empty)
    total = float(found.totals.sum())
    seen = found.totals > 0
    inverse = np.divide(1.0, found.totals, out=np.zeros_like(found.totals), where=seen)
    square = total * run_sweep(_SquareSweep(inverse), source).state
    left = square - float(found.eigenvalues[:n_components].sum())
    n_free = (full - n_components) * (int(np.count_nonzero(seen)) - n_components)
    return float(left / max(1, n_free))


@dataclass(frozen=True)
class _Divide:
    by: float

    def __call__(self, block: Block) -> NDArray[np.float64]:
        return np.asarray(block.dense() / self.by)


def in_counts(source: BlockSource, gain: float) -> BlockSource:
    """The source with its values in counts."""
    if gain == 1.0:
        return source
    return MappedSource(source, _Divide(gain), source.n_channels, f"gain{gain!r}")


def sketch_in_counts(found: Sketch, gain: float) -> Sketch:
    """What the sketch of the same data in counts would be."""
    return replace(
        found,
        totals=found.totals / gain,
        square=found.square / gain,
        eigenvalues=found.eigenvalues / gain,
    )
