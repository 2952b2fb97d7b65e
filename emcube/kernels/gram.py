"""Weighted Gram matrices of one block, sum_i w_i x_i x_i': over the counts that exist, or by BLAS.

Spectra of counts have a few channels, in the lines, that many pixels hold, and many that hardly any
holds. Where a block has both, channels are parted: products of full channels go to BLAS, those of a full
and a rare one are sums of rows, and only pairs of rare ones are scattered one by one.

Letters: P pixels, E channels, N stored pairs, F full channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.errors import InputError
from emcube.kernels._blas import add_outer_products
from emcube.kernels._numba import jit
from emcube.kernels.rows import CountRows
from emcube.kernels.slabs import slabs

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SCATTER_DENSITY",
    "add_outer",
    "add_symmetric",
    "add_upper",
    "centred_gram",
    "scaled_symmetric",
    "weighted_gram",
]

SCATTER_DENSITY = 0.2
"""A channel that a larger share of the pixels holds is full: its products are faster by dense BLAS.

A function of the block alone, so that the same block gives the same bits wherever it is computed.
Measured with OpenBLAS on two cores at work: within a few percent of the best from 0.16 to 0.25."""

LEAST_FULL = 16
"""With fewer full channels all are treated as rare: a matrix so narrow does not pay."""

SHORT_ROWS = 32
"""Up to so many pairs a pixel, sorting them costs more than it saves."""

TILE_PAIRS = 1 << 17
"""Pairs of a tile of pixels, and cells of its full channels, at most: what a core's cache holds.

Each tile brings all rows of the Gram matrix into the cache once more, and is itself gone through row by row.
With twice as many the products of two cores at work took a tenth longer where that cache has 2 MiB."""

PART_PIXELS = 256
"""Pixels whose full channels go to BLAS at once, weighted, in float64."""

DENSE_TILE_BYTES = 4 << 20
"""Scratch for the float64 copy of a tile on the dense road."""

LEAST_DENSE_PIXELS = 256
"""Pixels of such a tile, at least: with fewer the Gram matrix itself would be read and written too often."""


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
    All sums are float64. Other threads run meanwhile.
    """
    n_pixels, n_channels = block.shape
    if out is None:
        out = np.zeros((n_channels, n_channels))
    if weights is not None and weights.shape != (n_pixels,):
        raise InputError(f"{n_pixels} weights, one per pixel, are expected, got {weights.shape}")
    if shift is not None and shift.shape != (n_channels,):
        raise InputError(f"a shift of {n_channels} channels is expected, got {shift.shape}")
    if isinstance(block, CountRows) and shift is None:
        held = _pixels_that_hold(block.channels, n_channels)
        full = np.flatnonzero(held > SCATTER_DENSITY * n_pixels)
        if full.size < LEAST_FULL:
            full = full[:0]
        if full.size < n_channels or not n_channels:
            per_pixel = np.ones(n_pixels) if weights is None else weights
            if not full.size and block.nnz <= SHORT_ROWS * n_pixels:
                _scatter(block.indptr, block.channels, block.counts, per_pixel, out)
            else:
                _parted_gram(block, per_pixel, full, out)
            return out
    parts = slabs(
        block, np.float64, shift=shift, n_bytes=DENSE_TILE_BYTES, least=LEAST_DENSE_PIXELS
    )
    for start, part in parts:
        if weights is not None:
            part = part * np.sqrt(weights[start : start + len(part)])[:, None]
        add_outer_products(part, out)
    return out


def centred_gram(block: CountRows | NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gram matrix of a block's pixels less their own mean, G = sum_i (x_i - m)(x_i - m)'.

    Parameters
    ----------
    block : CountRows or ndarray, shape (P, E)
    mean : ndarray of float64, shape (E,)
        m, of the same pixels.

    Returns
    -------
    ndarray of float64, shape (E, E)
        The upper triangle.

    Notes
    -----
    Of rows the mean is taken off at the end, as P m m', unless that would cost a channel four digits.
    """
    if not isinstance(block, CountRows):
        return weighted_gram(block, None, mean)
    out = weighted_gram(block)
    before = np.diagonal(out).copy()
    add_outer(out, mean, -float(block.n_pixels))
    if (np.diagonal(out)[before > 0] < 1e-4 * before[before > 0]).any():
        return weighted_gram(block, None, mean)
    return out


def _parted_gram(
    block: CountRows,
    weights: NDArray[np.float64],
    full: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    """Add the Gram matrix of a block, the `full` channels (ascending) as a dense matrix."""
    n_pixels, n_channels = block.shape
    rare = np.ones(n_channels, dtype=bool)
    rare[full] = False
    # Column of a full channel; row of a rare one, counted from -1 downwards.
    place = np.empty(n_channels, dtype=np.int64)
    place[full] = np.arange(full.size)
    place[rare] = -1 - np.arange(n_channels - full.size)
    tile = max(512, min(4096, TILE_PAIRS // max(1, full.size)))
    tile = max(64, min(tile, TILE_PAIRS * n_pixels // max(block.nnz, 1)))
    among_full = np.zeros((full.size, full.size))
    across = np.zeros((n_channels - full.size, full.size))
    dense = np.empty((min(tile, n_pixels), full.size), _exact_float(block.counts))
    weighted = np.empty((min(PART_PIXELS, n_pixels), full.size))
    roots = np.sqrt(weights)
    for start in range(0, n_pixels, tile):
        indptr = block.indptr[start : start + tile + 1]
        part = dense[: indptr.size - 1]
        _part_tile(
            indptr,
            block.channels,
            block.counts,
            weights[start : start + tile],
            place,
            part,
            across,
            out,
        )
        for first in range(0, len(part), PART_PIXELS):
            some = part[first : first + PART_PIXELS]
            np.multiply(
                some,
                roots[start + first : start + first + len(some), None],
                out=weighted[: len(some)],
            )
            add_outer_products(weighted[: len(some)], among_full)
    _put_together(full, np.flatnonzero(rare), among_full, across, out)


def _exact_float(counts: NDArray[Any]) -> type[np.floating[Any]]:
    """Narrowest float that holds all counts exactly: the products over them are float64 all the same."""
    small = counts.dtype.itemsize <= 2 or not counts.size or int(counts.max()) < 1 << 24
    return np.float32 if small else np.float64


def add_symmetric(upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill the lower triangle of a matrix whose upper triangle is known, in place; return it."""
    _mirror(upper)
    return upper


def scaled_symmetric(upper: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric matrix s_i G_ij s_j, both triangles, of one whose upper triangle is known."""
    out = np.empty_like(upper)
    _scale(upper, scale, out)
    return out


def add_upper(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add the upper triangle of `b` to that of `a`, in place; return `a`."""
    _add_upper(a, b)
    return a


# Unsigned indices below: for signed ones that may be negative the compiler adds a test to each access,
# which takes a third of the time of the innermost loops.


@jit
def _pixels_that_hold(channels, n_channels):
    out = np.zeros(n_channels, dtype=np.int64)
    for i in range(channels.size):
        out[channels[i]] += 1
    return out


@jit
def _scatter(indptr, channels, counts, weights, out):
    """Add the pair products of each pixel to the upper triangle."""
    longest = 0
    for p in range(indptr.size - 1):
        longest = max(longest, indptr[p + 1] - indptr[p])
    # Copies as the inner loop wants them: converting there costs more than the addition.
    columns = np.empty(longest, dtype=np.uint64)
    values = np.empty(longest, dtype=np.float64)
    cells = out.reshape(-1)
    n_channels = np.uint64(out.shape[0])
    for p in range(indptr.size - 1):
        first = np.uint64(indptr[p])
        n = np.uint64(indptr[p + 1]) - first
        for i in range(n):
            columns[i] = channels[first + i]
            values[i] = counts[first + i]
        for i in range(n):
            row = columns[i] * n_channels
            factor = weights[p] * values[i]
            for j in range(i, n):
                cells[row + columns[j]] += factor * values[j]


@jit
def _part_tile(indptr, channels, counts, weights, place, dense, across, out):
    """Write the full channels of a tile of pixels to `dense`; add the products of the rare channels.

    Those among each other go to `out`, those with full channels to `across`. Each row of both is summed
    over the pixels that hold its channel, and stays in the cache nearest to the core meanwhile.
    """
    n_pixels = indptr.size - 1
    n_rare, n_full = across.shape
    n_pairs = indptr[-1] - indptr[0]
    # Rare pairs, pixel by pixel, as narrow as they came: more of them stay in the cache.
    columns = np.empty(n_pairs, dtype=channels.dtype)
    values = np.empty(n_pairs, dtype=counts.dtype)
    rows = np.empty(n_pairs, dtype=np.uint32)
    ends = np.empty(n_pixels, dtype=np.int64)
    start = np.zeros(n_rare + 1, dtype=np.int64)
    k = 0
    for p in range(n_pixels):
        for f in range(n_full):
            dense[p, f] = 0.0
        for i in range(indptr[p], indptr[p + 1]):
            e = place[channels[i]]
            if e >= 0:
                dense[p, e] = counts[i]
            else:
                columns[k] = channels[i]
                values[k] = counts[i]
                rows[k] = -1 - e
                start[-e] += 1
                k += 1
        ends[p] = k
    # The pairs in the order of their channels (a counting sort), each with its pixel.
    for e in range(n_rare):
        start[e + 1] += start[e]
    fill = start[:-1].copy()
    order = np.empty(k, dtype=np.uint32)
    pixels = np.empty(k, dtype=np.uint32)
    i = 0
    for p in range(n_pixels):
        while i < ends[p]:
            slot = fill[rows[i]]
            fill[rows[i]] = slot + 1
            order[slot] = i
            pixels[slot] = p
            i += 1
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    for e in range(n_rare):
        stop = start[e + 1]
        if start[e] == stop:
            continue
        # Among rare channels. Those of a pixel differ: four sums may be read before any is written.
        row = out[columns[order[start[e]]]]
        for slot in range(start[e], stop):
            j = np.uint64(order[slot])
            end = np.uint64(ends[pixels[slot]])
            factor = weights[pixels[slot]] * values[j]
            while j + four <= end:
                in_a, in_b = columns[j], columns[j + one]
                in_c, in_d = columns[j + two], columns[j + three]
                a = row[in_a] + factor * values[j]
                b = row[in_b] + factor * values[j + one]
                c = row[in_c] + factor * values[j + two]
                d = row[in_d] + factor * values[j + three]
                row[in_a] = a
                row[in_b] = b
                row[in_c] = c
                row[in_d] = d
                j += four
            while j < end:
                row[columns[j]] += factor * values[j]
                j += one
        # With full channels, eight pixels at a time: the sum is read and written once for all.
        total = across[e]
        slot = start[e]
        while slot + 8 <= stop:
            at_a, a = dense[pixels[slot]], weights[pixels[slot]] * values[order[slot]]
            at_b, b = dense[pixels[slot + 1]], weights[pixels[slot + 1]] * values[order[slot + 1]]
            at_c, c = dense[pixels[slot + 2]], weights[pixels[slot + 2]] * values[order[slot + 2]]
            at_d, d = dense[pixels[slot + 3]], weights[pixels[slot + 3]] * values[order[slot + 3]]
            at_e, e_ = dense[pixels[slot + 4]], weights[pixels[slot + 4]] * values[order[slot + 4]]
            at_f, f_ = dense[pixels[slot + 5]], weights[pixels[slot + 5]] * values[order[slot + 5]]
            at_g, g = dense[pixels[slot + 6]], weights[pixels[slot + 6]] * values[order[slot + 6]]
            at_h, h = dense[pixels[slot + 7]], weights[pixels[slot + 7]] * values[order[slot + 7]]
            for f in range(n_full):
                left = (a * at_a[f] + b * at_b[f]) + (c * at_c[f] + d * at_d[f])
                right = (e_ * at_e[f] + f_ * at_f[f]) + (g * at_g[f] + h * at_h[f])
                total[f] += left + right
            slot += 8
        while slot < stop:
            at_a, a = dense[pixels[slot]], weights[pixels[slot]] * values[order[slot]]
            for f in range(n_full):
                total[f] += a * at_a[f]
            slot += 1


@jit
def _put_together(full, rare, among_full, across, out):
    for i in range(full.size):
        for j in range(i, full.size):
            out[full[i], full[j]] += among_full[i, j]
    for i in range(rare.size):
        a = rare[i]
        for j in range(full.size):
            b = full[j]
            if a < b:
                out[a, b] += across[i, j]
            else:
                out[b, a] += across[i, j]


def add_outer(
    upper: NDArray[np.float64], vector: NDArray[np.float64], factor: float
) -> NDArray[np.float64]:
    """Add factor v v' to the upper triangle of a matrix, in place; return it."""
    _add_outer(upper, vector, factor)
    return upper


@jit
def _add_upper(a, b):
    for i in range(a.shape[0]):
        for j in range(i, a.shape[0]):
            a[i, j] += b[i, j]


@jit
def _add_outer(upper, vector, factor):
    for i in range(vector.size):
        scaled = factor * vector[i]
        for j in range(i, vector.size):
            upper[i, j] += scaled * vector[j]


@jit
def _scale(upper, scale, out):
    n = upper.shape[0]
    for corner in range(0, n, 64):
        for i in range(corner, min(corner + 64, n)):
            for j in range(i, n):
                value = upper[i, j] * scale[j] * scale[i]
                out[i, j] = value
                out[j, i] = value


@jit
def _mirror(matrix):
    n = matrix.shape[0]
    for corner in range(0, n, 64):
        for i in range(corner, min(corner + 64, n)):
            for j in range(i + 1, n):
                matrix[j, i] = matrix[i, j]
