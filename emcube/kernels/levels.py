"""Cells sorted by what denoising makes of them: sums over levels of the mean.

Letters: P pixels, E channels, K components, B levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["level_edges", "level_guide", "level_sums"]

SHIFT = 48
"""Bits of a double below its sign, exponent and four leading bits."""

LANES = 4
"""Copies of the sums between which channels change."""


def level_edges(lowest: float, per_decade: float, n_levels: int) -> NDArray[np.float64]:
    """Lower edges (B,) of the levels; what lies below the first has number zero."""
    return np.asarray(lowest * 10.0 ** (np.arange(n_levels) / per_decade))


def level_guide(edges: NDArray[np.float64]) -> tuple[NDArray[np.int64], int]:
    """Level at the lower end of each sixteenth of an octave, by the leading bits of a number.

    Within such a piece a number reaches one further edge at most.

    Returns
    -------
    guide : ndarray of int
    first_bits : int
        Leading bits of its first piece; what is smaller, or negative, lies below all edges.
    """
    known = edges[np.isfinite(edges)]
    ends = np.array([known[0] / 2.0, known[-1] * 2.0]).view(np.int64) >> SHIFT
    pieces = np.arange(ends[0], ends[1] + 1)
    lower = (pieces << SHIFT).view(np.float64)
    return np.searchsorted(known, lower, side="right").astype(np.int64), int(ends[0])


@jit(fastmath={"reassoc"}, error_model="numpy")
def level_sums(
    scores: NDArray[np.float64],
    shares: NDArray[np.float64],
    factors: NDArray[np.float64],
    vectors: NDArray[np.float64],
    weights: NDArray[np.float64],
    expected: NDArray[np.float64],
    indptr: NDArray[np.int64],
    channels: NDArray[Any],
    counts: NDArray[Any],
    totals: NDArray[np.float64],
    edges: NDArray[np.float64],
    guide: NDArray[np.int64],
    first_bits: int,
    out: NDArray[np.float64],
) -> None:
    """Add what two denoised halves of some pixels say of each level.

    Parameters
    ----------
    scores : ndarray, shape (2, P, K)
        Of each half, in its weighted space.
    shares : ndarray, shape (2, P)
        |u|^2 of each pixel.
    factors : ndarray, shape (2, P)
        Root of the pixel's total: from the weighted space to counts.
    vectors : ndarray, shape (2, K, E)
        From scores to values whose noise has the size that the channel gives it.
    weights : ndarray, shape (2, E)
        |v|^2 of each channel.
    expected : ndarray, shape (E,)
        Share of each channel in the pixel's counts.
    indptr, channels, counts : ndarray
        Pairs of the second half.
    totals : ndarray, shape (P,)
        Counts of a half that are expected of the pixel.
    edges : ndarray, shape (B + 1,)
        Lower edges of the levels, and infinity.
    guide, first_bits
        Of `level_guide`.
    out : ndarray, shape (B + 1, 6)
        Cells, denoised value of the first half, counts of the second, half the squared difference of both
        denoised values, variance by theory, expected counts.
    """
    n, n_channels, n_rows = vectors.shape[1], vectors.shape[2], edges.size
    one, two, mean = np.empty(n_channels), np.empty(n_channels), np.empty(n_channels)
    bits = mean.view(np.int64)
    level = np.empty(n_channels, dtype=np.uint8)
    lanes = np.zeros(LANES * n_rows * 6)
    last = guide.size - 1
    for p in range(scores.shape[1]):
        one[:] = 0.0
        two[:] = 0.0
        for k in range(n):
            a, b = scores[0, p, k] * factors[0, p], scores[1, p, k] * factors[1, p]
            for e in range(n_channels):
                one[e] += a * vectors[0, k, e]
                two[e] += b * vectors[1, k, e]
        for e in range(n_channels):
            mean[e] = 0.5 * (one[e] + two[e])
        # The theory's |u|^2 + |v|^2 - |u|^2 |v|^2, on average over the halves.
        both = 0.5 * (shares[0, p] + shares[1, p])
        own, other = 0.5 * (1.0 - shares[0, p]), 0.5 * (1.0 - shares[1, p])
        total = totals[p]
        for e in range(n_channels):
            number = guide[min(max((bits[e] >> SHIFT) - first_bits, 0), last)]
            level[e] = number + (mean[e] >= edges[number])
        for e in range(n_channels):
            apart = one[e] - two[e]
            hoped = total * expected[e]
            theory = both + own * weights[0, e] + other * weights[1, e]
            # Sums of neighbouring channels go to different places, so that none waits for the one before.
            at = (np.int64(e & (LANES - 1)) * n_rows + np.int64(level[e])) * 6
            lanes[at] += 1.0
            lanes[at + 1] += one[e]
            lanes[at + 3] += 0.5 * apart * apart
            lanes[at + 4] += theory * hoped
            lanes[at + 5] += hoped
        for i in range(indptr[p], indptr[p + 1]):
            lanes[np.int64(level[channels[i]]) * 6 + 2] += counts[i]
    for i in range(lanes.size):
        out[i // 6 % n_rows, i % 6] += lanes[i]
