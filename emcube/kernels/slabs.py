"""Blocks a few pixels at a time, in the precision of the arithmetic; no whole block is ever copied.

Letters: P pixels, E channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["SLAB_BYTES", "cell_totals", "slabs"]

SLAB_BYTES = 4 << 20
"""Converted pixels at a time, as a rule: what is used right after should still be near."""


def slabs(
    block: CountRows | NDArray[Any],
    dtype: Any,
    *,
    shift: NDArray[np.float64] | None = None,
    n_bytes: int | None = None,
    least: int = 1,
    totals: NDArray[np.float64] | None = None,
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Convert a block a few pixels at a time.

    Parameters
    ----------
    block : CountRows or ndarray, shape (P, E)
    dtype : dtype
        float32 or float64.
    shift : ndarray of float64, shape (E,), optional
        Subtracted from each pixel, in float64.
    n_bytes : int, optional
        Of the converted pixels at a time, about; default `SLAB_BYTES`.
    least : int
        Pixels at a time at least, where there are so many.
    totals : ndarray of float64, shape (P,), optional
        Gets the sum of each pixel, without the shift, as the pixels are given.

    Yields
    ------
    start : int
    ndarray of `dtype`, shape (p, E)
        Pixels from `start` on; good until the next ones are asked for. It may be the block's own memory.
    """
    dtype = np.dtype(dtype)
    n_pixels, n_channels = block.shape
    step = max(least, 1, (n_bytes or SLAB_BYTES) // (dtype.itemsize * max(1, n_channels)))
    step = max(1, min(n_pixels, step))
    dense = None if isinstance(block, CountRows) else block
    as_it_is = (
        dense is not None
        and shift is None
        and dense.dtype == dtype
        and dense.dtype.isnative
        and dense.flags.c_contiguous
    )
    scratch = np.empty((0 if as_it_is else step, n_channels), dtype=dtype)
    for start in range(0, n_pixels, step):
        stop = min(start + step, n_pixels)
        part = scratch[: stop - start]
        whole = dense is not None and dense.dtype.kind in "iu" and dense.dtype.isnative
        if totals is not None and not (whole and shift is None):
            totals[start:stop] = _pixel_totals(block, start, stop)
        if dense is None:
            _rows_into(block, start, stop, part)
            if shift is not None:
                part -= shift
        elif as_it_is:
            part = dense[start:stop]
        elif shift is not None and dense.dtype.isnative and dense.flags.c_contiguous:
            _subtract(dense[start:stop], shift, part)
        elif shift is not None:
            np.subtract(dense[start:stop], shift, out=part, casting="same_kind")
        elif totals is not None and whole:
            _convert(np.ascontiguousarray(dense[start:stop]), part, totals[start:stop])
        else:
            np.copyto(part, dense[start:stop], casting="unsafe")
        yield start, part


def _pixel_totals(block: CountRows | NDArray[Any], start: int, stop: int) -> NDArray[np.float64]:
    """Sum of some pixels, shape (p,)."""
    if isinstance(block, CountRows):
        return block.pixel_totals()[start:stop].astype(np.float64)
    return np.asarray(block[start:stop].sum(axis=1, dtype=np.float64))


def cell_totals(cells: NDArray[Any]) -> tuple[NDArray[np.float64], int, float, int]:
    """Total of each channel (E,), cells that are not zero, the smallest value, and pixels that hold nothing.

    Of a dense block (P, E).

    The values are finite. The smallest of nothing is 0.
    """
    if not cells.dtype.isnative or cells.dtype.kind not in "iuf" or cells.dtype.itemsize < 1:
        cells = cells.astype(cells.dtype.newbyteorder("=") if cells.dtype.kind != "b" else "u1")
    if cells.dtype == np.float16:
        cells = cells.astype(np.float32)
    if cells.size == 0:
        return np.zeros(cells.shape[1]), 0, 0.0, len(cells)
    kernel = _float_totals if cells.dtype.kind == "f" else _integer_totals
    sums, n_stored, minimum, n_empty = kernel(np.ascontiguousarray(cells))
    return sums, int(n_stored), float(minimum), int(n_empty)


def _rows_into(rows: CountRows | NDArray[Any], start: int, stop: int, out: NDArray[Any]) -> None:
    out[:] = 0
    if isinstance(rows, CountRows):
        _fill(rows.indptr[start : stop + 1], rows.channels, rows.counts, out)


@jit
def _fill(indptr, channels, counts, out):
    for p in range(indptr.size - 1):
        for i in range(indptr[p], indptr[p + 1]):
            out[p, channels[i]] = counts[i]


@jit
def _convert(cells, out, totals):
    for p in range(cells.shape[0]):
        total = np.int64(0)
        for e in range(cells.shape[1]):
            value = cells[p, e]
            out[p, e] = value
            total += value
        totals[p] = total


@jit
def _subtract(cells, shift, out):
    for p in range(cells.shape[0]):
        for e in range(cells.shape[1]):
            out[p, e] = np.float64(cells[p, e]) - shift[e]


@jit(fastmath={"nnan", "nsz"})
def _float_totals(cells):
    n_channels = cells.shape[1]
    sums = np.zeros(n_channels, dtype=np.float64)
    # One smallest value a channel: a single one could not be found several channels at a time.
    lowest = cells[0].copy()
    n_stored = 0
    n_empty = 0
    for p in range(cells.shape[0]):
        stored = 0
        for e in range(n_channels):
            value = cells[p, e]
            sums[e] += value
            lowest[e] = value if value < lowest[e] else lowest[e]
            stored += value != 0
        n_stored += stored
        n_empty += stored == 0
    return sums, n_stored, lowest.min(), n_empty


@jit
def _integer_totals(cells):
    n_channels = cells.shape[1]
    sums = np.zeros(n_channels, dtype=np.float64)
    minimum = cells[0, 0]
    n_stored = 0
    n_empty = 0
    for p in range(cells.shape[0]):
        row = cells[p]
        lowest = row[0]
        stored = 0
        for e in range(n_channels):
            sums[e] += row[e]
        for e in range(n_channels):
            stored += row[e] != 0
            lowest = min(lowest, row[e])
        n_stored += stored
        n_empty += stored == 0
        minimum = min(minimum, lowest)
    return sums, n_stored, minimum, n_empty
