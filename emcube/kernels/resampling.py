"""The same measurement made again: counts drawn anew, thinned, weighed, and residuals with other signs.

Letters: P pixels, E channels, K components.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AREAS", "area_index", "area_shape", "drawn_again", "flipped", "split", "weighed"]

AREAS = 64
"""Areas that what was measured is cut into, about."""


def drawn_again(rows: CountRows, rng: np.random.Generator) -> CountRows:
    """Draw each number of counts anew from the Poisson law whose mean it is (the event bootstrap).

    To draw as many events as there are, with replacement, gives the same numbers but for the total, which is
    fixed there and Poisson here, as it is when a measurement is repeated.

    Notes
    -----
    Means up to `TABLED` are drawn by inversion of their tabulated distribution, with 53 bits of a counter
    that is scrambled (SplitMix64, its key from `rng`); others, and values that are no whole numbers, by
    NumPy. That is some ten times as fast, and draws are what a bootstrap is made of.

    References
    ----------
    B. Efron, Ann. Stat. 7 (1979) 1. https://doi.org/10.1214/aos/1176344552
    G. L. Steele, D. Lea, C. H. Flood, SIGPLAN Not. 49 (2014) 453. https://doi.org/10.1145/2714064.2660195
    """
    if rows.counts.dtype.kind == "f":
        return _without_zeros(rows, rng.poisson(rows.counts))
    large = np.flatnonzero(rows.counts > TABLED)
    beyond = rng.poisson(rows.counts[large]) if large.size else np.zeros(0, dtype=np.int64)
    width = rows.counts.dtype
    if beyond.size and beyond.max() > np.iinfo(width).max:
        # Both arrays have one width (see `CountRows`).
        width = np.dtype(np.uint32)
    indptr = np.empty_like(rows.indptr)
    channels, counts = np.empty(rows.nnz, width), np.empty(rows.nnz, width)
    table, guide = _poisson_table()
    key = rng.integers(0, 2**64, dtype=np.uint64)
    n = _draw(
        rows.indptr, rows.channels, rows.counts, table, guide, key, beyond, indptr, channels, counts
    )
    return CountRows(indptr, channels[:n].copy(), counts[:n].copy(), rows.n_channels)


TABLED = 127
"""Means up to here are drawn from tables."""

_GUIDES = 256
_LONGEST = 256
"""Beyond this value a tabulated law (of mean `TABLED` at most, so 11 standard deviations) ends."""


@lru_cache(maxsize=1)
def _poisson_table() -> tuple[NDArray[np.float64], NDArray[np.uint16]]:
    """Distribution function P(n <= column) of each mean (row), and where to start a search for a quantile."""
    from scipy.special import pdtr

    values, means = np.arange(_LONGEST), np.arange(TABLED + 1)
    table = np.ascontiguousarray(pdtr(values[None, :], means[:, None]))
    table[:, -1] = 1.0
    starts = np.arange(_GUIDES) / _GUIDES
    guide = np.array([np.searchsorted(row, starts, side="right") for row in table])
    return table, np.minimum(guide, _LONGEST - 1).astype(np.uint16)


@jit(error_model="numpy")
def _draw(
    indptr, channels, counts, table, guide, key, beyond, new_indptr, new_channels, new_counts
):
    """Write the pairs that are left, each with its new number; returns how many there are."""
    at = 0
    taken = 0
    new_indptr[0] = 0
    for p in range(indptr.size - 1):
        for i in range(indptr[p], indptr[p + 1]):
            mean = counts[i]
            if mean > TABLED:
                drawn = np.int64(beyond[taken])
                taken += 1
            else:
                # SplitMix64: a counter, scrambled.
                z = key + np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15)
                z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                z = z ^ (z >> np.uint64(31))
                share = float(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)
                drawn = np.int64(guide[mean, z >> np.uint64(56)])
                while table[mean, drawn] <= share:
                    drawn += 1
            if drawn > 0:
                new_channels[at] = channels[i]
                new_counts[at] = drawn
                at += 1
        new_indptr[p + 1] = at
    return at


def split(
    rows: CountRows, shares: tuple[float, ...], rng: np.random.Generator
) -> tuple[CountRows, ...]:
    """Deal the counts to parts: independent Poisson cubes of these shares of the counts (thinning).

    Parameters
    ----------
    rows : CountRows
        Whole numbers; of other values the whole part is dealt.
    shares : tuple of float
        Positive, sum at most one; what is left over is dealt to nobody.
    """
    left = np.floor(rows.counts).astype(np.int64)
    room, parts = 1.0, []
    for share in shares:
        mine = rng.binomial(left, min(share / room, 1.0))
        parts.append(_without_zeros(rows, mine))
        left = left - mine
        room -= share
    return tuple(parts)


def weighed(
    data: CountRows | NDArray[Any], times: NDArray[np.int64], *, counts: bool
) -> CountRows | NDArray[Any]:
    """Let each pixel count so many times, as if it had been met as often.

    The likelihood of counts is homogeneous: a pixel of m times the counts has m times the say. Of squares the
    root of the number does the same.

    Parameters
    ----------
    data : CountRows or ndarray, (P, E)
    times : ndarray of int, shape (P,)
        Not negative.
    counts : bool
        Whether the loss is that of counts.
    """
    if isinstance(data, CountRows) and counts:
        values = rows_times(data, times)
        return _without_zeros(data, values)
    dense = data.to_dense() if isinstance(data, CountRows) else np.asarray(data, dtype=np.float64)
    factor = times if counts else np.sqrt(times)
    return np.asarray(dense * factor[:, None])


def rows_times(rows: CountRows, times: NDArray[np.int64]) -> NDArray[Any]:
    """Counts of each pair times the number of its pixel, shape (N,)."""
    wide = np.float64 if rows.counts.dtype.kind == "f" else np.int64
    return np.asarray(rows.counts.astype(wide) * np.repeat(times, np.diff(rows.indptr)))


def flipped(
    data: NDArray[Any], model: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Add the residuals to the model again, each with a sign drawn anew (the wild bootstrap).

    It keeps the size of the noise of every value and asks nothing else of it.

    References
    ----------
    C. F. J. Wu, Ann. Stat. 14 (1986) 1261. https://doi.org/10.1214/aos/1176350142
    """
    signs = 2.0 * rng.integers(0, 2, size=model.shape) - 1.0
    return np.asarray(model + signs * (np.asarray(data, dtype=np.float64) - model))


def area_shape(nav_shape: tuple[int, ...], n_areas: int = AREAS) -> tuple[int, ...]:
    """Areas along each navigation dim: about `n_areas`, over the last two dims (over one, along it)."""
    if not nav_shape:
        return ()
    if len(nav_shape) == 1:
        return (min(nav_shape[0], n_areas),)
    side = math.isqrt(n_areas)
    image = tuple(min(n, side) for n in nav_shape[-2:])
    return (*(1 for _ in nav_shape[:-2]), *image)


def area_index(
    places: NDArray[np.int64], nav_shape: tuple[int, ...], n_areas: int = AREAS
) -> NDArray[np.int64]:
    """Number of the area that each place of the navigation grid lies in.

    Parameters
    ----------
    places : ndarray of int, shape (n, D)
    nav_shape : tuple of int
        Of the whole cube.
    n_areas : int
        As for `area_shape`.
    """
    grid = area_shape(nav_shape, n_areas)
    index = np.zeros(len(places), dtype=np.int64)
    for d, (n, parts) in enumerate(zip(nav_shape, grid, strict=True)):
        index = index * parts + np.minimum(places[:, d] * parts // n, parts - 1)
    return index


def _without_zeros(rows: CountRows, counts: NDArray[Any]) -> CountRows:
    kept = counts > 0
    before = np.concatenate(([0], np.cumsum(kept)))
    values, channels = counts[kept], rows.channels[kept]
    width = rows.counts.dtype
    if width.kind != "f" and values.size and values.max() > np.iinfo(width).max:
        # Both arrays have one width (see `CountRows`).
        width = np.dtype(np.uint32)
        channels = channels.astype(width)
    return CountRows(before[rows.indptr], channels, values.astype(width), rows.n_channels)
