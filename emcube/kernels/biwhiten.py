"""Biwhitening: pooling of rare pixels and channels, Sinkhorn scaling, the Marchenko-Pastur law.

Letters: P pixels, E channels; pooled ones are called groups, because a group of pixels or channels
takes the place of one.

References
----------
B. Landa, T. T. C. K. Zhang, Y. Kluger, "Biwhitening reveals the rank of a count matrix",
SIAM J. Math. Data Sci. 4 (2022) 1420. https://doi.org/10.1137/21M1456807 (arXiv:2103.13840)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "elbow",
    "group_channels",
    "group_pixels",
    "marchenko_pastur_cdf",
    "marchenko_pastur_median",
    "noise_edge",
    "pool",
    "row_scales",
    "rows_of_events",
    "scaled_sums",
    "scaled_sums_of_groups",
    "spectrum_distance",
    "variance_estimate",
]

TRACY_WIDOM_99 = 2.0234
"""99 % quantile of the Tracy-Widom law of real matrices (beta = 1)."""


def group_channels(
    totals: NDArray[Any], minimum: float, max_groups: int
) -> tuple[NDArray[np.int64], float]:
    """Join neighbouring channels until each group holds enough counts.

    Parameters
    ----------
    totals : ndarray, shape (E,)
        Counts of each channel, not negative.
    minimum : float
        Counts that a group must reach. A channel that holds them alone stays alone.
    max_groups : int
        The minimum is raised until there are no more groups than this.

    Returns
    -------
    groups : ndarray of int64, shape (E,)
        Group of each channel, ascending.
    minimum : float
        The minimum that was used.
    """
    values = np.asarray(totals, dtype=np.float64)
    groups = _greedy_groups(values, float(minimum))
    low, high = float(minimum), float(values.sum())
    while groups[-1] >= max_groups and high - low > 1e-3 * high:
        # Bisection on the minimum; `high` always leaves few enough groups.
        middle = 0.5 * (low + high)
        if _greedy_groups(values, middle)[-1] >= max_groups:
            low = middle
        else:
            high = middle
        if high - low <= 1e-3 * high:
            groups = _greedy_groups(values, high)
            low = high
    return groups, low


def group_pixels(totals: NDArray[Any], minimum: float) -> tuple[NDArray[np.int64], int]:
    """Join neighbouring pixels, in the order of the block, until each group holds enough counts.

    Parameters
    ----------
    totals : ndarray, shape (P,)
        Counts of each pixel.
    minimum : float
        Counts that a group must reach.

    Returns
    -------
    groups : ndarray of int64, shape (P,)
        Group of each pixel, ascending.
    n_groups : int
        Number of groups; 0 where all pixels together hold less than the minimum.

    Notes
    -----
    Where the groups end depends on the totals alone. Given its total, how a Poisson pixel's counts fall
    on the channels does not depend on it, so the noise of the groups is that of single pixels.
    """
    values = np.asarray(totals, dtype=np.float64)
    if values.sum() < minimum or not values.size:
        return np.zeros(values.size, dtype=np.int64), 0
    groups = _greedy_groups(values, float(minimum))
    return groups, int(groups[-1]) + 1


def pool(
    block: CountRows | NDArray[Any],
    pixel_groups: NDArray[np.int64],
    n_pixel_groups: int,
    channel_groups: NDArray[np.int64],
    n_channel_groups: int,
) -> CountRows | NDArray[np.float64]:
    """Sum a block over groups of pixels and channels.

    Parameters
    ----------
    block : CountRows or ndarray, shape (P, E)
    pixel_groups : ndarray of int64, shape (P,)
        Group of each pixel, ascending without gaps.
    n_pixel_groups : int
    channel_groups : ndarray of int64, shape (E,)
        Group of each channel, ascending without gaps.
    n_channel_groups : int

    Returns
    -------
    CountRows or ndarray of float64, shape (n_pixel_groups, n_channel_groups)
        The block itself where each group has one member and it holds rows.
    """
    if isinstance(block, CountRows):
        if block.shape == (n_pixel_groups, n_channel_groups):
            return block
        indptr, channels, counts = _pool_rows(
            block.indptr,
            block.channels,
            block.counts,
            pixel_groups,
            n_pixel_groups,
            channel_groups,
            n_channel_groups,
        )
        return CountRows(indptr, channels, counts, n_channel_groups)
    if not n_pixel_groups:
        return np.zeros((0, n_channel_groups))
    first = np.searchsorted(channel_groups, np.arange(n_channel_groups))
    out = np.add.reduceat(np.asarray(block, dtype=np.float64), first, axis=1)
    if n_pixel_groups == out.shape[0]:
        return out
    return np.add.reduceat(out, np.searchsorted(pixel_groups, np.arange(n_pixel_groups)), axis=0)


def rows_of_events(
    n_events: NDArray[np.int64], channels: NDArray[np.int64], n_channels: int
) -> CountRows:
    """Count the events of each pixel, of which the channels are given pixel by pixel, in any order.

    Parameters
    ----------
    n_events : ndarray of int64, shape (P,)
    channels : ndarray of int64, shape (sum of n_events,)
    n_channels : int
        E.
    """
    ends = np.zeros(n_events.size + 1, dtype=np.int64)
    np.cumsum(n_events, out=ends[1:])
    pixels, each = np.arange(n_events.size), np.arange(n_channels)
    ones = np.ones(channels.size, dtype=np.uint32)
    indptr, found, counts = _pool_rows(
        ends, channels.astype(np.uint32), ones, pixels, n_events.size, each, n_channels
    )
    return CountRows(indptr, found, counts, n_channels)


def scaled_sums(
    block: CountRows | NDArray[np.float64], column_scale: NDArray[np.float64], curvature: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Half a Sinkhorn round on the variance estimate V = Y + c Y^2.

    Parameters
    ----------
    block : CountRows or ndarray, shape (P, E)
        Y, pooled values.
    column_scale : ndarray of float64, shape (E,)
        v.
    curvature : float
        c; 0 for Poisson counts.

    Returns
    -------
    row_scale : ndarray of float64, shape (P,)
        u = E / (V v), which makes the rows of diag(u) V diag(v) sum to E; 0 for rows without variance.
    column_sums : ndarray of float64, shape (E,)
        V' u.
    """
    if isinstance(block, CountRows):
        return _scaled_sums_rows(
            block.indptr, block.channels, block.counts, column_scale, float(curvature)
        )
    row_scale = row_scales(block, column_scale, curvature)
    return row_scale, row_scale @ variance_estimate(block, curvature)


def row_scales(
    block: CountRows | NDArray[np.float64], column_scale: NDArray[np.float64], curvature: float
) -> NDArray[np.float64]:
    """Row scales u alone of `scaled_sums`, shape (P,)."""
    if isinstance(block, CountRows):
        return _row_scales(
            block.indptr, block.channels, block.counts, column_scale, float(curvature)
        )
    per_row = variance_estimate(block, curvature) @ column_scale
    row_scale = np.zeros(per_row.shape)
    np.divide(block.shape[1], per_row, out=row_scale, where=per_row > 0)
    return row_scale


def scaled_sums_of_groups(
    block: CountRows,
    pixel_groups: NDArray[np.int64],
    channel_groups: NDArray[np.int64],
    column_scale: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Column sums of `scaled_sums` for Poisson counts, without pooling the block first.

    The variance estimate of Poisson counts is linear in them, so that sums over groups suffice. Only
    pixels in whole groups take part, which is all of them.
    """
    sums = _linear_sums(
        block.indptr,
        block.channels,
        block.counts,
        pixel_groups,
        column_scale[channel_groups],
        float(column_scale.size),
    )
    totals = np.bincount(channel_groups, weights=sums, minlength=column_scale.size)
    return totals.astype(np.float64)


def variance_estimate(values: NDArray[np.float64], curvature: float) -> NDArray[np.float64]:
    """Estimate of the noise variance of each cell up to a factor, Y + c Y^2, never negative.

    With var = a m + b m^2 the mean of (a Y + b Y^2) / (1 + b) is the variance; its scale is found
    afterwards from the spectrum, so that one number c = b / a is left.
    """
    clipped = np.maximum(values, 0.0)
    if curvature == 0:
        return clipped
    return clipped + curvature * np.square(clipped)


def noise_edge(n_rows: float, n_columns: float) -> float:
    """Largest singular value that pure noise of variance one reaches, with 99 % confidence.

    sqrt(P) + sqrt(E), plus what the Tracy-Widom law allows the largest value of a matrix of finite
    size: 0.2 % at 4000 x 1000, 1 % at 300 x 100.
    """
    a, b = np.sqrt(n_rows), np.sqrt(n_columns)
    spread = (a + b) * (1 / a + 1 / b) ** (1 / 3)
    return float(np.sqrt((a + b) ** 2 + TRACY_WIDOM_99 * spread))


def marchenko_pastur_cdf(
    values: NDArray[np.float64], ratio: float, n_points: int = 4096
) -> NDArray[np.float64]:
    """Share of noise eigenvalues below each value, for variance one and sides of `ratio` in (0, 1]."""
    grid, cumulative = _marchenko_pastur_grid(ratio, n_points)
    return np.interp(values, grid, cumulative, left=0.0, right=1.0)


def marchenko_pastur_median(ratio: float) -> float:
    """Median noise eigenvalue for variance one."""
    grid, cumulative = _marchenko_pastur_grid(ratio, 4096)
    return float(np.interp(0.5, cumulative, grid))


def spectrum_distance(eigenvalues: NDArray[np.float64], ratio: float) -> float:
    """Largest difference between the distribution of eigenvalues and the Marchenko-Pastur law.

    Parameters
    ----------
    eigenvalues : ndarray of float64
        Those taken for noise, divided by the longer side of the matrix.
    ratio : float
        Shorter side over longer side.

    Returns
    -------
    float
        Kolmogorov-Smirnov distance, 0 to 1; 1 where there is no eigenvalue.
    """
    ordered = np.sort(eigenvalues)
    if not ordered.size:
        return 1.0
    law = marchenko_pastur_cdf(ordered, ratio)
    steps = np.arange(ordered.size + 1) / ordered.size
    return float(max(np.abs(law - steps[:-1]).max(), np.abs(law - steps[1:]).max()))


def elbow(eigenvalues: NDArray[np.float64], n_considered: int = 20) -> int:
    """Number of components before the elbow of the scree, the point farthest from the chord.

    Parameters
    ----------
    eigenvalues : ndarray of float64, descending
        All positive ones count; the scree is taken on a log axis.
    n_considered : int
        Length of the scree.

    References
    ----------
    V. Satopaa, J. Albrecht, D. Irwin, B. Raghavan, "Finding a 'kneedle' in a haystack", ICDCS
    Workshops (2011) 166. https://doi.org/10.1109/ICDCSW.2011.20
    """
    values = eigenvalues[: n_considered + 1]
    values = values[values > 0]
    if values.size < 3:
        return int(values.size)
    heights = np.log(values)
    steps = np.arange(values.size)
    chord = heights[0] + (heights[-1] - heights[0]) * steps / steps[-1]
    return int(np.argmax(chord - heights))


def _marchenko_pastur_grid(
    ratio: float, n_points: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2
    # In the angle the density has no square-root edges, so the trapezoid rule is accurate.
    angle = np.linspace(0, np.pi, n_points)
    half = 0.5 * (high - low)
    grid = 0.5 * (high + low) - half * np.cos(angle)
    density = np.zeros(n_points)
    inside = grid > 0
    density[inside] = (half * np.sin(angle[inside])) ** 2 / (2 * np.pi * ratio * grid[inside])
    if not inside[0]:
        density[0] = density[1]
    cumulative = np.concatenate(([0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))))
    return grid, cumulative / cumulative[-1]


@jit
def _greedy_groups(totals, minimum):
    groups = np.empty(totals.size, dtype=np.int64)
    group = 0
    held = 0.0
    for i in range(totals.size):
        groups[i] = group
        held += totals[i]
        if held >= minimum:
            group += 1
            held = 0.0
    if group and groups[-1] == group:
        # What is left over at the end is too little for a group of its own.
        i = totals.size - 1
        while groups[i] == group:
            groups[i] = group - 1
            i -= 1
    return groups


# Unsigned indices below: see `emcube.kernels.gram`.


def _bit_positions() -> NDArray[np.uint32]:
    """Position of a single set bit, by the upper six bits of its product with `_DE_BRUIJN`."""
    table = np.zeros(64, dtype=np.uint32)
    for position in range(64):
        table[((int(_DE_BRUIJN) << position) & (2**64 - 1)) >> 58] = position
    return table


_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT_POSITION = _bit_positions()


@jit
def _pool_rows(
    indptr, channels, counts, pixel_groups, n_pixel_groups, channel_groups, n_channel_groups
):
    size = np.zeros(n_pixel_groups + 1, dtype=np.int64)
    held = np.zeros(n_channel_groups, dtype=np.uint32)
    # One bit for each channel that the group holds, so that they come out in order without a search.
    marks = np.zeros(n_channel_groups // 64 + 1, dtype=np.uint64)
    new_channels = np.empty(channels.size, dtype=np.uint32)
    new_counts = np.empty(channels.size, dtype=np.uint32)
    one, six, mask = np.uint64(1), np.uint64(6), np.uint64(63)
    k = np.uint64(0)
    p = 0
    n_pixels = indptr.size - 1
    for group in range(n_pixel_groups):
        first = np.uint64(indptr[p])
        while p < n_pixels and pixel_groups[p] == group:
            p += 1
        for i in range(first, np.uint64(indptr[p])):
            e = np.uint64(channel_groups[channels[i]])
            held[e] += counts[i]
            marks[e >> six] |= one << (e & mask)
        for word in range(marks.size):
            bits = marks[word]
            marks[word] = 0
            while bits:
                lowest = bits & (~bits + one)
                bits ^= lowest
                position = _BIT_POSITION[(lowest * _DE_BRUIJN) >> np.uint64(58)]
                e = np.uint64(word) * np.uint64(64) + np.uint64(position)
                new_channels[k] = e
                new_counts[k] = held[e]
                held[e] = 0
                k += one
        size[group + 1] = k
    return size, new_channels[:k], new_counts[:k]


@jit
def _variance_sum(channels, counts, first, stop, column_scale, curvature):
    """Sum of v_j (y_j + c y_j^2) over stored pairs."""
    total = 0.0
    other = 0.0
    one, two = np.uint64(1), np.uint64(2)
    i = first
    if curvature == 0:
        # Two sums, so that an addition does not wait for the one before.
        while i + two <= stop:
            total += counts[i] * column_scale[channels[i]]
            other += counts[i + one] * column_scale[channels[i + one]]
            i += two
    while i < stop:
        y = np.float64(counts[i])
        total += (y + curvature * y * y) * column_scale[channels[i]]
        i += one
    return total + other


@jit
def _row_scales(indptr, channels, counts, column_scale, curvature):
    row_scale = np.empty(indptr.size - 1)
    for p in range(indptr.size - 1):
        first, stop = np.uint64(indptr[p]), np.uint64(indptr[p + 1])
        total = _variance_sum(channels, counts, first, stop, column_scale, curvature)
        row_scale[p] = column_scale.size / total if total > 0 else 0.0
    return row_scale


@jit
def _scaled_sums_rows(indptr, channels, counts, column_scale, curvature):
    row_scale = _row_scales(indptr, channels, counts, column_scale, curvature)
    sums = np.zeros(column_scale.size)
    for p in range(indptr.size - 1):
        u = row_scale[p]
        for i in range(np.uint64(indptr[p]), np.uint64(indptr[p + 1])):
            y = np.float64(counts[i])
            sums[channels[i]] += u * (y + curvature * y * y)
    return row_scale, sums


@jit
def _linear_sums(indptr, channels, counts, pixel_groups, scale, n_columns):
    sums = np.zeros(scale.size)
    n_pixels = indptr.size - 1
    p = 0
    while p < n_pixels:
        stop = p
        while stop < n_pixels and pixel_groups[stop] == pixel_groups[p]:
            stop += 1
        first, last = np.uint64(indptr[p]), np.uint64(indptr[stop])
        total = _variance_sum(channels, counts, first, last, scale, 0.0)
        if total > 0:
            u = n_columns / total
            for i in range(first, last):
                sums[channels[i]] += u * counts[i]
        p = stop
    return sums
