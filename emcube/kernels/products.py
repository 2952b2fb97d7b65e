"""Products of one block with a few vectors, X'W(X B): what solvers that iterate ask of each block.

Letters: P pixels, E channels, L vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.errors import InputError
from emcube.kernels._blas import add_product
from emcube.kernels._numba import jit
from emcube.kernels.narrow import in_few
from emcube.kernels.rows import CountRows
from emcube.kernels.slabs import slabs

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Products", "gram_of", "pixel_products", "there_and_back"]

STRIP_PIXELS = 1024
"""Pixels whose products are summed in the block's own precision before they go to float64."""

FEW_VECTORS = 32
"""Up to so many, BLAS takes longer than the kernel that needs no copy in float64: with six at least twice."""

LEAST_SINGLE = 1e-30
"""Products of float32 that are smaller throughout have lost digits at the end of its range."""


class Products:
    """What `there_and_back` gives.

    Attributes
    ----------
    image : ndarray of float64, shape (E, L)
        sum_i w_i (x_i - m) (x_i - m)'B.
    energy : float
        sum_i w_i |s * (x_i - m)|^2 with s the channels' factors, where they were given; else 0.
    """

    __slots__ = ("energy", "image")

    def __init__(self, image: NDArray[np.float64], energy: float) -> None:
        self.image, self.energy = image, energy


def there_and_back(
    block: CountRows | NDArray[Any],
    vectors: NDArray[np.float64],
    weigh: Callable[[NDArray[np.float64]], NDArray[np.float64] | None] | None = None,
    shift: NDArray[np.float64] | None = None,
    squares: NDArray[np.float64] | None = None,
) -> Products:
    """Multiply a block by vectors, weigh the pixels, and multiply back.

    Parameters
    ----------
    block : CountRows or ndarray, shape (P, E)
        Pixels of one block, in counts or whatever unit the cube has.
    vectors : ndarray of float64, shape (E, L)
        B.
    weigh : callable, optional
        ``weigh(totals) -> w``, both of shape (p,), for the totals of some pixels; one everywhere where
        left out.
    shift : ndarray of float64, shape (E,), optional
        m, subtracted from each pixel.
    squares : ndarray of float64, shape (E,), optional
        s^2, with which the energy is summed too.

    Returns
    -------
    Products

    Raises
    ------
    InputError
        The vectors or the shift do not have one value per channel.

    Notes
    -----
    Dense blocks of anything but float64 and 64-bit integers are multiplied in float32, a thousand pixels
    at a time, and summed in float64: each product is rounded by 6e-8 of the pixel's length, far below the
    noise of any detector, and twice as fast. What is subtracted is subtracted before that, in float64.
    Rows, and blocks of 64 bits a value, are multiplied in float64; so are floats so large or small that
    their squares leave the range of float32.
    """
    n_channels = block.shape[1]
    if vectors.ndim != 2 or vectors.shape[0] != n_channels:
        raise InputError(f"vectors of {n_channels} channels are expected, got {vectors.shape}")
    if shift is not None and shift.shape != (n_channels,):
        raise InputError(f"a shift of {n_channels} channels is expected, got {shift.shape}")
    if isinstance(block, CountRows):
        return _rows_there_and_back(block, vectors, weigh, shift, squares)
    kind = _product_dtype(block.dtype)
    if block.dtype.kind != "f" or kind == np.float64:
        return _dense_there_and_back(block, vectors, weigh, shift, squares, kind)
    with np.errstate(over="ignore", invalid="ignore"):
        found = _dense_there_and_back(block, vectors, weigh, shift, squares, kind)
    # NaN is neither.
    if LEAST_SINGLE <= np.abs(found.image).max(initial=0.0) < np.inf:
        return found
    return _dense_there_and_back(block, vectors, weigh, shift, squares, np.dtype(np.float64))


def _dense_there_and_back(
    block: NDArray[Any],
    vectors: NDArray[np.float64],
    weigh: Callable[[NDArray[np.float64]], NDArray[np.float64] | None] | None,
    shift: NDArray[np.float64] | None,
    squares: NDArray[np.float64] | None,
    kind: np.dtype[Any],
) -> Products:
    """`there_and_back` of a dense block in some precision."""
    small = vectors.astype(kind)
    image = np.zeros(vectors.shape)
    strip = np.zeros(vectors.shape, dtype=kind)
    energy, since = 0.0, 0
    totals = None if weigh is None else np.empty(block.shape[0])
    for start, part in slabs(block, kind, shift=shift, totals=totals):
        product = part @ small
        weights = None
        if weigh is not None and totals is not None:
            weights = weigh(totals[start : start + len(part)])
        if weights is not None:
            product *= weights[:, None].astype(kind)
        add_product(part, product, strip)
        since += len(part)
        if since >= STRIP_PIXELS:
            image += strip
            strip[:] = 0
            since = 0
        if squares is not None:
            per_pixel = _energies(part, squares)
            energy += float(per_pixel.sum() if weights is None else per_pixel @ weights)
    image += strip
    return Products(image, energy)


def pixel_products(
    block: CountRows | NDArray[Any], vectors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Multiply each pixel by vectors (E, L), in float64 and without a dense copy of the block; (P, L)."""
    if isinstance(block, CountRows):
        return block.matmul(vectors)
    if vectors.shape[1] <= FEW_VECTORS:
        return in_few(block, vectors.T)
    out = np.empty((block.shape[0], vectors.shape[1]))
    for start, part in slabs(block, np.float64):
        np.matmul(part, vectors, out=out[start : start + len(part)])
    return out


def _rows_there_and_back(
    block: CountRows,
    vectors: NDArray[np.float64],
    weigh: Callable[[NDArray[np.float64]], NDArray[np.float64] | None] | None,
    shift: NDArray[np.float64] | None,
    squares: NDArray[np.float64] | None,
) -> Products:
    totals = block.pixel_totals().astype(np.float64)
    weights = None if weigh is None else weigh(totals)
    product = block.matmul(vectors)
    if shift is not None:
        product -= shift @ vectors
    if weights is not None:
        product *= weights[:, None]
    image = np.ascontiguousarray(block.rmatmul(product).T)
    if shift is not None:
        image -= np.outer(shift, product.sum(axis=0))
    if squares is None:
        return Products(image, 0.0)
    weight = np.ones(block.n_pixels) if weights is None else weights
    own = _row_energies(block.indptr, block.channels, block.counts, squares)
    energy = float(own @ weight)
    if shift is not None:
        cross = block.matmul((squares * shift)[:, None])[:, 0]
        energy += float(weight.sum() * (squares @ shift**2) - 2 * (cross @ weight))
    return Products(image, energy)


def _product_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Precision in which a dense block is multiplied."""
    return np.dtype(np.float64 if dtype.itemsize > 4 else np.float32)


@jit(fastmath={"reassoc", "nsz"})
def _energies(cells, squares):
    out = np.empty(cells.shape[0], dtype=np.float64)
    for p in range(cells.shape[0]):
        total = 0.0
        for e in range(cells.shape[1]):
            value = np.float64(cells[p, e])
            total += value * value * squares[e]
        out[p] = total
    return out


@jit
def _row_energies(indptr, channels, counts, squares):
    out = np.zeros(indptr.size - 1, dtype=np.float64)
    for p in range(out.size):
        for i in range(indptr[p], indptr[p + 1]):
            count = np.float64(counts[i])
            out[p] += count * count * squares[channels[i]]
    return out


def gram_of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Products (K, K) of the rows of a matrix (K, E) with each other; the same bits in every process.

    NumPy multiplies a matrix by its own transpose with another routine than two matrices. What came from
    another process may lie at an odd address; it is then copied, twice, and taken for two.
    """
    rows = np.require(rows, requirements=["C", "A"])
    return np.asarray(rows @ rows.T)
