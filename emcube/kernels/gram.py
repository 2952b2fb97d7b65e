"""Weighted Gram matrices of one block, sum_i w_i x_i x_i': over the counts that exist, or by BLAS.

Letters: P pixels, E channels, N stored pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg.blas import dsyrk

from emcube.errors import InputError
from emcube.kernels._numba import jit
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SCATTER_DENSITY", "add_symmetric", "add_upper", "weighted_gram"]

SCATTER_DENSITY = 0.12
"""Up to this share of non-zero cells, pair products over the counts are faster than dense BLAS.

A function of the block alone, so that the same block gives the same bits wherever it is computed.
Measured with OpenBLAS on one core: equal times near 0.12 at 1000 to 2000 channels."""

TILE_PAIRS = 1 << 17
"""Pairs of a tile of pixels, which stays in the cache while each row of the Gram matrix is summed."""

DENSE_TILE_BYTES = 16 << 20
"""Scratch for the float64 copy of a tile on the dense road."""


def weighted_gram(
    block: CountRows | NDArray[Any],
    weights: NDArray[np.float64] | None = None,
    shift: NDArray[np.float64] | None = None,
    *,
    out: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Sum the outer products of a block's pixels, G = sum_i w_i (x_i - m)(x_i - m)'.

    Parameters
    ----------
    block : CountRows or ndarray, shape (P, E)
        Pixels of one block, in counts or whatever unit the cube has.
    weights : ndarray of float64, shape (P,), optional
        w, one per pixel, not negative; one everywhere where left out.
    shift : ndarray of float64, shape (E,), optional
        m, subtracted from each pixel (which guards a centred sum against cancellation).
    out : ndarray of float64, shape (E, E), C-contiguous, optional
        Add to this matrix, whose upper triangle alone is used, instead of to zeros.

    Returns
    -------
    ndarray of float64, shape (E, E)
        Upper triangle of G; what lies below the diagonal is not defined (see `add_symmetric`).

    Raises
    ------
    InputError
        The weights or the shift do not have one value per pixel or channel.

    Notes
    -----
    Sparse blocks are summed row by row of G: the pixels that hold channel a add the rest of their own
    row to row a of G, which stays in the cache nearest to the core. All sums are float64.
    """
    n_pixels, n_channels = block.shape
    if out is None:
        out = np.zeros((n_channels, n_channels))
    if weights is not None and weights.shape != (n_pixels,):
        raise InputError(f"{n_pixels} weights, one per pixel, are expected, got {weights.shape}")
    if shift is not None and shift.shape != (n_channels,):
        raise InputError(f"a shift of {n_channels} channels is expected, got {shift.shape}")
    if isinstance(block, CountRows) and shift is None and block.density <= SCATTER_DENSITY:
        per_pixel = np.ones(n_pixels) if weights is None else weights
        tile = max(64, TILE_PAIRS * n_pixels // max(block.nnz, 1))
        for start in range(0, n_pixels, tile):
            _scatter_tile(
                block.indptr[start : start + tile + 1],
                block.channels,
                block.counts,
                per_pixel[start : start + tile],
                out,
            )
        return out
    tile = max(1, DENSE_TILE_BYTES // (8 * max(n_channels, 1)))
    for start in range(0, n_pixels, tile):
        part = _dense_part(block, start, start + tile)
        if shift is not None:
            part -= shift
        if weights is not None:
            part *= np.sqrt(weights[start : start + tile])[:, None]
        # BLAS is column-major: the lower triangle of its view is the upper one of ours.
        result = dsyrk(1.0, part.T, beta=1.0, c=out.T, lower=1, overwrite_c=1)
        if not np.shares_memory(result, out):
            out[:] = result.T
    return out


def add_symmetric(upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill the lower triangle of a matrix whose upper triangle is known, in place; return it."""
    _mirror(upper)
    return upper


def add_upper(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add the upper triangle of `b` to that of `a`, in place; return `a`."""
    _add_upper(a, b)
    return a


def _dense_part(block: CountRows | NDArray[Any], start: int, stop: int) -> NDArray[np.float64]:
    """Fresh float64 copy of some pixels."""
    if not isinstance(block, CountRows):
        return np.array(block[start:stop], dtype=np.float64, order="C")
    indptr = block.indptr[start : stop + 1]
    first, last = indptr[0], indptr[-1]
    part = CountRows(
        indptr - first, block.channels[first:last], block.counts[first:last], block.n_channels
    )
    return part.to_dense(np.float64)


@jit
def _scatter_tile(indptr, channels, counts, weights, out):
    """Add the pair products of a tile of pixels to the upper triangle, one row of it at a time."""
    n_channels = out.shape[0]
    first = indptr[0]
    n_pairs = indptr[-1] - first
    # Pairs of the tile sorted by channel (a counting sort); each remembers where its pixel ends.
    start = np.zeros(n_channels + 1, dtype=np.int64)
    for i in range(first, indptr[-1]):
        start[channels[i] + 1] += 1
    for e in range(n_channels):
        start[e + 1] += start[e]
    fill = start[:-1].copy()
    begins = np.empty(n_pairs, dtype=np.int32)
    ends = np.empty(n_pairs, dtype=np.int32)
    factors = np.empty(n_pairs, dtype=np.float64)
    # Copies as the inner loop wants them: converting there costs more than the addition.
    near_channels = np.empty(n_pairs, dtype=np.uint32)
    near_counts = np.empty(n_pairs, dtype=np.float64)
    for p in range(indptr.size - 1):
        for i in range(indptr[p], indptr[p + 1]):
            slot = fill[channels[i]]
            fill[channels[i]] = slot + 1
            begins[slot] = i - first
            ends[slot] = indptr[p + 1] - first
            factors[slot] = weights[p] * counts[i]
            near_channels[i - first] = channels[i]
            near_counts[i - first] = counts[i]
    for a in range(n_channels):
        row = out[a]
        for slot in range(start[a], start[a + 1]):
            factor = factors[slot]
            for j in range(begins[slot], ends[slot]):
                row[near_channels[j]] += factor * near_counts[j]


@jit
def _add_upper(a, b):
    for i in range(a.shape[0]):
        for j in range(i, a.shape[0]):
            a[i, j] += b[i, j]


@jit
def _mirror(matrix):
    n = matrix.shape[0]
    for corner in range(0, n, 64):
        for i in range(corner, min(corner + 64, n)):
            for j in range(i + 1, n):
                matrix[j, i] = matrix[i, j]
