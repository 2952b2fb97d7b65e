"""The same measurement made again: counts drawn anew, thinned, weighed, and residuals with other signs.

Letters: P pixels, E channels, K components.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.rows import CountRows
from emcube.kernels.sampling import _mix, alias_tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AREAS", "area_index", "area_shape", "drawn_again", "flipped", "split", "weighed"]

_GAMMA, _LOW = np.uint64(0x9E3779B97F4A7C15), np.uint64((1 << 56) - 1)

AREAS = 64
"""Areas that what was measured is cut into, about."""


def drawn_again(rows: CountRows, rng: np.random.Generator) -> CountRows:
    """Draw each number of counts anew from the Poisson law whose mean it is (the event bootstrap).

    To draw as many events as there are, with replacement, gives the same numbers but for the total, which is
    fixed there and Poisson here, as it is when a measurement is repeated.

    Notes
    -----
    Means up to `TABLED` are drawn from alias tables, with the bits of a counter that is scrambled
    (SplitMix64, its key from `rng`); others, and values that are no whole numbers, by NumPy. That is many
    times as fast, and draws are what a bootstrap is made of.

    References
    ----------
    B. Efron, Ann. Stat. 7 (1979) 1. https://doi.org/10.1214/aos/1176344552
    M. D. Vose, IEEE Trans. Softw. Eng. 17 (1991) 972. https://doi.org/10.1109/32.92917
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
    table = _poisson_aliases()
    key = rng.integers(0, 2**64, dtype=np.uint64)
    n = _draw(
        rows.indptr,
        rows.channels,
        rows.counts,
        table.keep,
        table.other,
        key,
        beyond,
        indptr,
        channels,
        counts,
    )
    return CountRows(indptr, channels[:n].copy(), counts[:n].copy(), rows.n_channels)


TABLED = 127
"""Means up to here are drawn from tables."""

_COLUMNS = 256
"""Values of a tabulated law (of mean `TABLED` at most: 11 standard deviations), and columns of its alias
table, one for each leading byte of a random number."""


@dataclass(frozen=True, eq=False)
class _Aliases:
    """Alias tables (means, columns): the 56 bits below which a column is kept, and where else it leads."""

    keep: NDArray[np.uint64]
    other: NDArray[np.uint16]


@lru_cache(maxsize=1)
def _poisson_aliases() -> _Aliases:
    """Walker's tables of Poisson laws: one look and one comparison make a number."""
    from scipy.special import pdtr

    values, means = np.arange(_COLUMNS), np.arange(TABLED + 1)
    below = np.asarray(pdtr(values[None, :], means[:, None]))
    below[:, -1] = 1.0
    tables = alias_tables(np.diff(below, axis=1, prepend=0.0))
    keep = np.minimum(tables.keep * 2.0**56, 2.0**56).astype(np.uint64)
    return _Aliases(keep, tables.other.astype(np.uint16))


@jit(error_model="numpy")
def _draw(indptr, channels, counts, keep, other, key, beyond, new_indptr, new_channels, new_counts):
    """Write the pairs that are left, each with its new number; returns how many there are."""
    at = 0
    taken = 0
    new_indptr[0] = 0
    for p in range(indptr.size - 1):
        for i in range(indptr[p], indptr[p + 1]):
            mean = np.int64(counts[i])
            if mean > TABLED:
                drawn = np.int64(beyond[taken])
                taken += 1
            else:
                z = _mix(key + np.uint64(i + 1) * _GAMMA)
                column = np.int64(z >> np.uint64(56))
                aside = np.int64(other[mean, column])
                drawn = column if (z & _LOW) < keep[mean, column] else aside
            # Written in any case, and overwritten where nothing is left: there is no branch to guess.
            new_channels[at] = channels[i]
            new_counts[at] = drawn
            if drawn > 0:
                at += 1
        new_indptr[p + 1] = at
    return at


def split(
    rows: CountRows, shares: tuple[float, ...], rng: np.random.Generator, *, only: int | None = None
) -> tuple[CountRows, ...]:
    """Deal the counts to parts: independent Poisson cubes of these shares of the counts (thinning).

    Parameters
    ----------
    rows : CountRows
        Whole numbers; of other values the whole part is dealt.
    shares : tuple of float
        Positive, sum at most one; what is left over is dealt to nobody.
    rng : numpy.random.Generator
    only : int, optional
        The one part that is wanted; it is the same as among all of them.

    Notes
    -----
    Up to `ONE_BY_ONE` counts of a pair are dealt one by one, with 53 bits of a scrambled counter (as in
    `drawn_again`), to two halves with a bit each; more are dealt by binomial numbers of NumPy.
    """
    held: NDArray[Any] = rows.counts
    if held.dtype.kind == "f":
        held = np.floor(held).astype(np.int64)
    beyond = _dealt_at_once(held[held > ONE_BY_ONE].astype(np.int64), shares, rng)
    n_parts = len(shares)
    wanted = np.arange(n_parts) if only is None else np.where(np.arange(n_parts) == only, 0, -1)
    n_wanted = n_parts if only is None else 1
    indptr = np.zeros((n_wanted, rows.indptr.size), rows.indptr.dtype)
    channels = np.empty((n_wanted, rows.nnz), rows.channels.dtype)
    counts = np.empty((n_wanted, rows.nnz), rows.counts.dtype)
    ends = np.cumsum(np.asarray(shares, dtype=np.float64))
    if ends[-1] > 1.0 - 1e-12:
        ends[-1] = 1.0
    key = rng.integers(0, 2**64, dtype=np.uint64)
    given = rows.indptr, rows.channels, held
    if tuple(shares) == (0.5, 0.5):
        _halve(*given, key, beyond, wanted, indptr, channels, counts)
    else:
        _deal(*given, ends, key, beyond, wanted, indptr, channels, counts)
    return tuple(
        CountRows(own, c[: own[-1]].copy(), n[: own[-1]].copy(), rows.n_channels)
        for own, c, n in zip(indptr, channels, counts, strict=True)
    )


ONE_BY_ONE = 15
"""Counts of a pair up to which they are dealt one by one."""


def _dealt_at_once(
    left: NDArray[np.int64], shares: tuple[float, ...], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal numbers of counts (N,) to the parts, shape (N, parts)."""
    room, parts = 1.0, np.empty((left.size, len(shares)), dtype=np.int64)
    for part, share in enumerate(shares):
        parts[:, part] = rng.binomial(left, min(share / room, 1.0)) if left.size else 0
        left = left - parts[:, part]
        room -= share
    return parts


@jit(error_model="numpy")
def _deal(
    indptr, channels, counts, ends, key, beyond, wanted, new_indptr, new_channels, new_counts
):
    """Write the pairs of each part that is wanted (its row of the answer, or -1)."""
    n_parts = ends.size
    at = np.zeros(new_indptr.shape[0], dtype=np.int64)
    mine = np.zeros(n_parts, dtype=np.int64)
    taken = 0
    state = key
    for p in range(indptr.size - 1):
        for i in range(indptr[p], indptr[p + 1]):
            if counts[i] > ONE_BY_ONE:
                for part in range(n_parts):
                    mine[part] = beyond[taken, part]
                taken += 1
            else:
                for part in range(n_parts):
                    mine[part] = 0
                for _ in range(counts[i]):
                    state += _GAMMA
                    share = float(_mix(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)
                    part = 0
                    while part < n_parts and ends[part] <= share:
                        part += 1
                    if part < n_parts:
                        mine[part] += 1
            for part in range(n_parts):
                row = wanted[part]
                if row >= 0 and mine[part] > 0:
                    new_channels[row, at[row]] = channels[i]
                    new_counts[row, at[row]] = mine[part]
                    at[row] += 1
        for row in range(at.size):
            new_indptr[row, p + 1] = at[row]


@jit(error_model="numpy")
def _halve(indptr, channels, counts, key, beyond, wanted, new_indptr, new_channels, new_counts):
    """As `_deal` to two halves, a random bit for each count."""
    first, second = wanted[0], wanted[1]
    at = np.zeros(2, dtype=np.int64)
    taken = 0
    for p in range(indptr.size - 1):
        for i in range(indptr[p], indptr[p + 1]):
            n = np.int64(counts[i])
            if n > ONE_BY_ONE:
                mine = beyond[taken, 0]
                taken += 1
            else:
                mine = np.int64(0)
                if n > 0:
                    bits = _mix(key + np.uint64(i + 1) * _GAMMA) >> np.uint64(64 - n)
                    mine = _n_bits(bits)
            # Written in any case, and overwritten where there is nothing: no branch to guess.
            if first >= 0:
                new_channels[first, at[0]] = channels[i]
                new_counts[first, at[0]] = mine
                at[0] += mine > 0
            if second >= 0:
                new_channels[second, at[1]] = channels[i]
                new_counts[second, at[1]] = n - mine
                at[1] += mine < n
        if first >= 0:
            new_indptr[first, p + 1] = at[0]
        if second >= 0:
            new_indptr[second, p + 1] = at[1]


@jit
def _n_bits(bits):
    """How many of the lowest 16 bits are set."""
    v = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555))
    v = (v & np.uint64(0x3333)) + ((v >> np.uint64(2)) & np.uint64(0x3333))
    v = (v + (v >> np.uint64(4))) & np.uint64(0x0F0F)
    return np.int64((v + (v >> np.uint64(8))) & np.uint64(0x1F))


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
