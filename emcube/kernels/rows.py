"""Compressed rows of counts: what a block of a counting detector becomes before any arithmetic.

An X-ray pixel holds some tens of counts in some thousand channels. Kept as (channel, count) pairs
it is 20 to 200 times smaller than float64 and every kernel visits only counts that exist.

Letters: P pixels, E channels, K components, N stored pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.errors import InputError
from emcube.kernels._numba import jit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["MAX_ROW_DENSITY", "CountRows", "joined_rows", "rows_from_dense", "rows_from_sparse"]

MAX_ROW_DENSITY = 0.3
"""Above this share of non-zero cells a block stays dense: rows would cost more than they save."""

PIECE_WORDS = 8192
"""Words of eight bytes that are searched, then written as pairs, while they are in the cache."""


@dataclass(frozen=True, eq=False)
class CountRows:
    """Counts of P pixels in E channels as compressed rows (CSR order, channels ascending in a row).

    Parameters
    ----------
    indptr : ndarray of int64, shape (P + 1,)
        Where each pixel's pairs start.
    channels : ndarray of uint16 or uint32, shape (N,)
        Channel of each pair.
    counts : ndarray of uint16 or uint32, shape (N,)
        Counts of each pair, never zero. Of the same width as `channels`, so that two variants of
        each kernel are enough.
    n_channels : int
        E.
    """

    indptr: NDArray[np.int64]
    channels: NDArray[Any]
    counts: NDArray[Any]
    n_channels: int

    @property
    def n_pixels(self) -> int:
        """Number of pixels P."""
        return int(self.indptr.size - 1)

    @property
    def shape(self) -> tuple[int, int]:
        """(P, E), as a dense matrix would have it."""
        return self.n_pixels, self.n_channels

    @property
    def nnz(self) -> int:
        """Number of stored pairs N."""
        return int(self.channels.size)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.indptr.nbytes + self.channels.nbytes + self.counts.nbytes)

    @property
    def density(self) -> float:
        """Share of cells that are not zero."""
        cells = self.n_pixels * self.n_channels
        return self.nnz / cells if cells else 0.0

    def pixel_totals(self) -> NDArray[np.int64]:
        """Counts of each pixel, shape (P,)."""
        return _pixel_totals(self.indptr, self.counts)

    def channel_totals(self) -> NDArray[np.int64]:
        """Counts of each channel, shape (E,)."""
        return _channel_totals(self.channels, self.counts, self.n_channels)

    def total(self) -> int:
        """Sum of all counts."""
        return int(self.counts.sum(dtype=np.int64))

    def take(self, pixels: NDArray[Any]) -> CountRows:
        """Rows of the given pixels (indices, or a boolean selection), in the order given."""
        pixels = np.asarray(pixels)
        if pixels.dtype == np.bool_:
            pixels = np.flatnonzero(pixels)
        indptr, channels, counts = _take(
            self.indptr, self.channels, self.counts, pixels.astype(np.int64, copy=False)
        )
        return CountRows(indptr, channels, counts, self.n_channels)

    def take_channels(self, used: NDArray[Any]) -> CountRows:
        """Rows with only the given channels, renumbered; `used` ascends or is boolean."""
        used = np.asarray(used)
        if used.dtype == np.bool_:
            used = np.flatnonzero(used)
        renumber = np.full(self.n_channels, -1, dtype=np.int64)
        renumber[used] = np.arange(used.size)
        indptr, channels, counts = _take_channels(self.indptr, self.channels, self.counts, renumber)
        return CountRows(indptr, channels, counts, int(used.size))

    def to_dense(self, dtype: Any = np.float64) -> NDArray[Any]:
        """Dense matrix, shape (P, E)."""
        out = np.zeros(self.shape, dtype=dtype)
        _fill_dense(self.indptr, self.channels, self.counts, out)
        return out

    def fill(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Write the pixels from `start` to `stop` into a dense matrix, shape (stop - start, E)."""
        _fill_range(self.indptr, self.channels, self.counts, start, stop, out)

    def matmul(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """Product X B with a dense matrix B of shape (E, K), in float64; shape (P, K)."""
        matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != self.n_channels:
            raise InputError(
                f"a matrix of shape ({self.n_channels}, K) is expected, got {matrix.shape}"
            )
        return _matmul(self.indptr, self.channels, self.counts, matrix)

    def rmatmul(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """Product A' X with a dense matrix A of shape (P, K), in float64; shape (K, E)."""
        matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != self.n_pixels:
            raise InputError(
                f"a matrix of shape ({self.n_pixels}, K) is expected, got {matrix.shape}"
            )
        out = _rmatmul(self.indptr, self.channels, self.counts, matrix, self.n_channels)
        return np.ascontiguousarray(out.T)


def rows_from_dense(block: NDArray[Any], *, max_density: float = 1.0) -> CountRows | None:
    """Compress a dense block of counts, skipping runs of zeros eight bytes at a time.

    Parameters
    ----------
    block : ndarray of an unsigned or non-negative integer dtype, shape (P, E)
    max_density : float
        Give up (return None) where a larger share of the cells is not zero.

    Returns
    -------
    CountRows or None

    Raises
    ------
    InputError
        The dtype is not an integer, a cell is negative, or a count does not fit 32 bits.
    """
    if block.ndim != 2:
        raise InputError(f"a block of shape (P, E) is expected, got shape {block.shape}")
    if block.dtype.kind not in "iub":
        raise InputError(f"counts must be integers, got {block.dtype}")
    n_pixels, n_channels = block.shape
    native = block.dtype.newbyteorder("=")
    block = np.ascontiguousarray(block, dtype=native)
    if block.dtype.kind == "i" and block.size and int(block.min()) < 0:
        pixel, channel = np.unravel_index(int(block.argmin()), block.shape)
        raise InputError(
            f"counts must not be negative: pixel {pixel} of the block, channel {channel} holds "
            f"{block[pixel, channel]}",
            hint="for data after background removal use float methods (noise=None, frobenius)",
        )
    cells = block.reshape(-1).view(f"u{block.dtype.itemsize}")
    # NumPy counts with vector instructions, at the speed of memory: room is then exact.
    n_pairs = int(np.count_nonzero(cells))
    if n_pairs > max_density * cells.size:
        return None
    largest = int(cells.max()) if cells.size and cells.itemsize > 1 else 0
    if largest > np.iinfo(np.uint32).max:
        raise InputError(f"a count of {largest} does not fit 32 bits")
    narrow = n_channels <= 1 << 16 and largest <= np.iinfo(np.uint16).max
    width: type = np.uint16 if narrow else np.uint32
    # One pair more: every cell of a word is written, and the next one goes over it if it was zero.
    channels: NDArray[Any] = np.empty(n_pairs + 1, dtype=width)
    counts: NDArray[Any] = np.empty(n_pairs + 1, dtype=width)
    indptr = np.zeros(n_pixels + 1, dtype=np.int64)
    if n_pairs:
        per_word = 8 // cells.itemsize
        words = cells[: cells.size // per_word * per_word].view(np.uint64)
        _scan(cells, words, (0,) * per_word, n_channels, indptr, channels, counts)
    return CountRows(indptr, channels[:n_pairs], counts[:n_pairs], n_channels)


def rows_from_sparse(matrix: Any) -> CountRows:
    """Compress a SciPy sparse matrix of non-negative integer counts, shape (P, E).

    Raises
    ------
    InputError
        A stored value is negative, not a whole number, or does not fit 32 bits.
    """
    csr = matrix.tocsr(copy=False)
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    if csr.nnz and (csr.data == 0).any():
        csr = csr.copy()
        csr.eliminate_zeros()
    data = csr.data
    if data.size and (data.min() < 0 or data.max() > np.iinfo(np.uint32).max):
        raise InputError(f"counts must lie in 0 to 2^32-1, got {data.min()} to {data.max()}")
    if data.dtype.kind == "f" and not np.array_equal(data, np.rint(data)):
        raise InputError("counts must be whole numbers, the sparse matrix holds fractions")
    n_channels = int(csr.shape[1])
    largest = int(data.max()) if data.size else 0
    narrow = n_channels <= 1 << 16 and largest <= np.iinfo(np.uint16).max
    width = np.uint16 if narrow else np.uint32
    return CountRows(
        csr.indptr.astype(np.int64), csr.indices.astype(width), data.astype(width), n_channels
    )


def joined_rows(parts: Sequence[CountRows]) -> CountRows:
    """Rows of several runs of pixels, one after the other; at least one, all of the same channels."""
    if len(parts) == 1:
        return parts[0]
    width = max((part.counts.dtype for part in parts), key=lambda dtype: dtype.itemsize)
    starts = np.cumsum([0, *(part.nnz for part in parts)])
    indptr = [part.indptr[1:] + start for part, start in zip(parts, starts, strict=False)]
    return CountRows(
        np.concatenate([np.zeros(1, np.int64), *indptr]),
        np.concatenate([part.channels for part in parts]).astype(width, copy=False),
        np.concatenate([part.counts for part in parts]).astype(width, copy=False),
        parts[0].n_channels,
    )


@jit
def _scan(cells, words, lanes, n_channels, indptr, channels, counts):
    """Write the (channel, count) pairs in C order, which is the order of the rows.

    Words without counts are dropped by a loop without branches; in the others every cell is written and
    the place moves on only past those that are not zero.
    """
    # The length of a tuple is known when this is compiled: the inner loop is unrolled.
    per_word = len(lanes)
    where = np.empty(PIECE_WORDS, dtype=np.int64)
    k = 0
    pixel = 0
    row_start = 0
    row_end = n_channels
    for start in range(0, words.size, PIECE_WORDS):
        n = 0
        for w in range(start, min(start + PIECE_WORDS, words.size)):
            where[n] = w
            n += words[w] != 0
        for j in range(n):
            base = where[j] * per_word
            while base >= row_end:
                pixel += 1
                indptr[pixel] = k
                row_start = row_end
                row_end += n_channels
            if base + per_word <= row_end:
                for i in range(per_word):
                    value = cells[base + i]
                    channels[k] = base - row_start + i
                    counts[k] = value
                    k += value != 0
                continue
            for i in range(base, base + per_word):
                while i >= row_end:
                    pixel += 1
                    indptr[pixel] = k
                    row_start = row_end
                    row_end += n_channels
                channels[k] = i - row_start
                counts[k] = cells[i]
                k += cells[i] != 0
    # The last cells, where they do not fill a word.
    for i in range(words.size * per_word, cells.size):
        while i >= row_end:
            pixel += 1
            indptr[pixel] = k
            row_start = row_end
            row_end += n_channels
        channels[k] = i - row_start
        counts[k] = cells[i]
        k += cells[i] != 0
    indptr[pixel + 1 :] = k


@jit
def _pixel_totals(indptr, counts):
    out = np.zeros(indptr.size - 1, dtype=np.int64)
    for p in range(out.size):
        total = np.int64(0)
        # Unsigned: an index that may be negative costs a test a count.
        for i in range(np.uint64(indptr[p]), np.uint64(indptr[p + 1])):
            total += np.int64(counts[i])
        out[p] = total
    return out


@jit
def _channel_totals(channels, counts, n_channels):
    out = np.zeros(n_channels, dtype=np.int64)
    for i in range(channels.size):
        out[channels[i]] += counts[i]
    return out


@jit
def _take(indptr, channels, counts, pixels):
    new_indptr = np.zeros(pixels.size + 1, dtype=np.int64)
    for j in range(pixels.size):
        p = pixels[j]
        new_indptr[j + 1] = new_indptr[j] + indptr[p + 1] - indptr[p]
    new_channels = np.empty(new_indptr[-1], dtype=channels.dtype)
    new_counts = np.empty(new_indptr[-1], dtype=counts.dtype)
    for j in range(pixels.size):
        k = new_indptr[j]
        for i in range(indptr[pixels[j]], indptr[pixels[j] + 1]):
            new_channels[k] = channels[i]
            new_counts[k] = counts[i]
            k += 1
    return new_indptr, new_channels, new_counts


@jit
def _take_channels(indptr, channels, counts, renumber):
    new_indptr = np.zeros(indptr.size, dtype=np.int64)
    for p in range(indptr.size - 1):
        kept = 0
        for i in range(indptr[p], indptr[p + 1]):
            if renumber[channels[i]] >= 0:
                kept += 1
        new_indptr[p + 1] = new_indptr[p] + kept
    new_channels = np.empty(new_indptr[-1], dtype=channels.dtype)
    new_counts = np.empty(new_indptr[-1], dtype=counts.dtype)
    k = 0
    for i in range(channels.size):
        e = renumber[channels[i]]
        if e >= 0:
            new_channels[k] = e
            new_counts[k] = counts[i]
            k += 1
    return new_indptr, new_channels, new_counts


@jit
def _fill_dense(indptr, channels, counts, out):
    for p in range(indptr.size - 1):
        for i in range(indptr[p], indptr[p + 1]):
            out[p, channels[i]] = counts[i]


@jit
def _fill_range(indptr, channels, counts, start, stop, out):
    out[:] = 0
    for p in range(start, stop):
        for i in range(indptr[p], indptr[p + 1]):
            out[p - start, channels[i]] = counts[i]


@jit
def _matmul(indptr, channels, counts, matrix):
    n_columns = matrix.shape[1]
    out = np.zeros((indptr.size - 1, n_columns), dtype=np.float64)
    for p in range(indptr.size - 1):
        for i in range(indptr[p], indptr[p + 1]):
            e = channels[i]
            count = np.float64(counts[i])
            for k in range(n_columns):
                out[p, k] += count * matrix[e, k]
    return out


@jit
def _rmatmul(indptr, channels, counts, matrix, n_channels):
    n_columns = matrix.shape[1]
    out = np.zeros((n_channels, n_columns), dtype=np.float64)
    for p in range(indptr.size - 1):
        for i in range(indptr[p], indptr[p + 1]):
            e = channels[i]
            count = np.float64(counts[i])
            for k in range(n_columns):
                out[e, k] += count * matrix[p, k]
    return out
