"""Fractions over an area, and how far they hang on which area it was.

Letters: T tiles of a field, K phases, B resamples. A fraction is a ratio of sums over tiles, sum a / sum n,
with a the amount of a phase in a tile and n that of all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FEWEST_FREE",
    "FEWEST_TILES",
    "MOST_TILES",
    "coarser",
    "fraction_of",
    "levels",
    "ratio_variance",
    "redraw_variance",
    "resampled",
    "tile_grid",
    "tile_number",
]

MOST_TILES = 256
"""Tiles of a field, at most: sixteen by sixteen."""

FEWEST_TILES = 16
"""Tiles from which a variance between them is told."""


FEWEST_FREE = 24
"""Degrees of freedom of a variance that is pooled over fields."""


def tile_grid(lengths: tuple[int, ...]) -> tuple[int, ...]:
    """Tiles along each of one or two dims: powers of two, so that they can be joined two by two.

    Parameters
    ----------
    lengths : tuple of int
        Pixels along the dims over which a field extends.
    """
    most = math.isqrt(MOST_TILES) if len(lengths) == 2 else MOST_TILES
    return tuple(1 << (min(n, most).bit_length() - 1) if n else 1 for n in lengths)


def tile_number(
    places: NDArray[np.int64], lengths: tuple[int, ...], grid: tuple[int, ...]
) -> NDArray[np.int64]:
    """Number of the tile in which each place (n, D) lies, in C order of the grid."""
    number = np.zeros(len(places), dtype=np.int64)
    for d, (n, parts) in enumerate(zip(lengths, grid, strict=True)):
        number = number * parts + places[:, d] * parts // n
    return number


def coarser(table: NDArray[np.float64], grid: tuple[int, ...], level: int) -> NDArray[np.float64]:
    """Sums (..., T, K) of tiles joined `level` times, two by two along each dim of the grid."""
    *lead, _, k = table.shape
    out = table.reshape(*lead, *grid, k)
    for d, n in enumerate(grid):
        joined = max(1, n >> level)
        axis = len(lead) + d
        shape = (*out.shape[:axis], joined, n // joined, *out.shape[axis + 1 :])
        out = out.reshape(shape).sum(axis=axis + 1)
    return out.reshape(*lead, -1, k)


def levels(grid: tuple[int, ...], n_fields: int = 1) -> list[int]:
    """Times that tiles can be joined; 0 is always one of them.

    At least `FEWEST_TILES` are left of a field; or four, where the variances of all fields together have
    `FEWEST_FREE` degrees of freedom.
    """
    found = [0]
    while (left := math.prod(max(1, n >> found[-1] + 1) for n in grid)) >= 4:
        if left < FEWEST_TILES and n_fields * (left - 1) < FEWEST_FREE:
            break
        found.append(found[-1] + 1)
    return found


def fraction_of(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractions (..., K) from amounts by tile (..., T, K); NaN where there is nothing."""
    sums = table.sum(axis=-2)
    whole = sums.sum(axis=-1, keepdims=True)
    return np.divide(sums, whole, out=np.full_like(sums, np.nan), where=whole > 0)


def _left(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each tile holds beyond the field's fraction, over all that the field holds (..., T, K)."""
    n = table.sum(axis=-1, keepdims=True)
    whole = n.sum(axis=-2, keepdims=True)
    beyond = table - fraction_of(table)[..., None, :] * n
    return np.divide(beyond, whole, out=np.zeros_like(beyond), where=whole > 0), n[..., 0]


def ratio_variance(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Variance (K,) of fractions if other tiles had been met, and its degrees of freedom.

    The usual first order of a ratio of sums over tiles that are independent:

        T / (T - 1) sum_t (a_t - p n_t)^2 / (sum_t n_t)^2,

    over the tiles that hold anything.

    References
    ----------
    W. G. Cochran, Sampling Techniques, 3rd ed. (1977), section 6.3.
    """
    left, n = _left(table)
    used = int(np.count_nonzero(n > 0))
    if used < 2:
        return np.full(table.shape[-1], np.nan), 0
    return used / (used - 1) * np.square(left).sum(axis=-2), used - 1


def redraw_variance(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance (K,) of fractions between measurements of the same tiles, (R, T, K) amounts.

    Noise of one tile tells nothing of that of another, so that variances of the tiles add: T (R - 1) degrees
    of freedom.
    """
    # About the fraction of all measurements: about its own one each would leave nothing over all tiles.
    pooled = tables.mean(axis=0)
    whole = float(pooled.sum())
    if whole <= 0.0:
        return np.full(tables.shape[-1], np.nan)
    beyond = tables - fraction_of(pooled) * tables.sum(axis=-1, keepdims=True)
    return np.asarray((beyond / whole).var(axis=0, ddof=1).sum(axis=0))


def resampled(
    table: NDArray[np.float64], n_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Fractions (B, K) of fields made of as many tiles (T, K), drawn with replacement.

    References
    ----------
    H. R. Kuensch, Ann. Stat. 17 (1989) 1217 (bootstrap of blocks). https://doi.org/10.1214/aos/1176347265
    """
    used = table[table.sum(axis=1) > 0]
    if not len(used):
        return np.full((n_resamples, table.shape[1]), np.nan)
    times = rng.multinomial(len(used), np.full(len(used), 1.0 / len(used)), size=n_resamples)
    sums: Any = times @ used
    return np.asarray(sums / sums.sum(axis=1, keepdims=True))
