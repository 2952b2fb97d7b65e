"""Sum neighbouring pixels: counts of a few pixels are the counts of one larger pixel.

Letters: P pixels, E channels, G groups.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["n_tiles", "pool", "pool_rows", "tile_index"]


def n_tiles(shape: tuple[int, ...], tile: tuple[int, ...]) -> tuple[int, ...]:
    """Tiles along each dim of a box; the last one may be cut."""
    return tuple(-(-n // t) for n, t in zip(shape, tile, strict=True))


def tile_index(shape: tuple[int, ...], tile: tuple[int, ...]) -> NDArray[np.int64]:
    """Flat number of the tile that each pixel of a box lies in, in C order.

    Parameters
    ----------
    shape : tuple of int
        Lengths of the box.
    tile : tuple of int
        Lengths of a tile, as many as `shape` has.
    """
    grid = n_tiles(shape, tile)
    index = np.zeros((1,) * len(shape), dtype=np.int64)
    for d, (n, t) in enumerate(zip(shape, tile, strict=True)):
        along = (np.arange(n) // t) * math.prod(grid[d + 1 :])
        index = index + along.reshape((-1,) + (1,) * (len(shape) - 1 - d))
    return np.broadcast_to(index, shape).reshape(-1).astype(np.int64)


def pool(
    data: CountRows | NDArray[Any], groups: NDArray[np.int64], n_groups: int
) -> CountRows | NDArray[Any]:
    """Sum the pixels (p, E) of each group into one; (G, E), a group without pixels is empty.

    Integers are added as integers, floats in float64.
    """
    if isinstance(data, CountRows):
        return pool_rows(data, groups, n_groups)
    wide = np.float64 if data.dtype.kind == "f" else np.int64
    out = np.zeros((n_groups, data.shape[1]), dtype=wide)
    if groups.size:
        order = np.argsort(groups, kind="stable")
        present, first = np.unique(groups[order], return_index=True)
        out[present] = np.add.reduceat(data[order], first, axis=0, dtype=wide)
    return out


def pool_rows(rows: CountRows, groups: NDArray[np.int64], n_groups: int) -> CountRows:
    """Sum rows of counts by group, staying sparse."""
    order = np.argsort(groups, kind="stable")
    bounds = np.searchsorted(groups[order], np.arange(n_groups + 1))
    indptr, channels, counts, largest = _pool(
        rows.indptr, rows.channels, rows.counts, order, bounds, rows.n_channels
    )
    narrow = rows.n_channels <= 1 << 16 and largest <= np.iinfo(np.uint16).max
    width = np.uint16 if narrow else np.uint32
    return CountRows(indptr, channels.astype(width), counts.astype(width), rows.n_channels)


@jit
def _pool(indptr, channels, counts, order, bounds, n_channels):
    n_groups = bounds.size - 1
    row = np.zeros(n_channels, dtype=np.int64)
    new_indptr = np.zeros(n_groups + 1, dtype=np.int64)
    # The pairs of the pooled rows are at most those that there were.
    new_channels = np.empty(channels.size, dtype=np.uint32)
    new_counts = np.empty(channels.size, dtype=np.uint32)
    n = 0
    largest = 0
    for group in range(n_groups):
        for j in range(bounds[group], bounds[group + 1]):
            p = order[j]
            for i in range(indptr[p], indptr[p + 1]):
                row[channels[i]] += counts[i]
        if bounds[group + 1] > bounds[group]:
            for e in range(n_channels):
                if row[e]:
                    new_channels[n] = e
                    new_counts[n] = row[e]
                    largest = max(largest, row[e])
                    row[e] = 0
                    n += 1
        new_indptr[group + 1] = n
    return new_indptr, new_channels[:n].copy(), new_counts[:n].copy(), largest
