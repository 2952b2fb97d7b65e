"""Least-squares loadings of given components, and the statistics of a pass.

Letters: P pixels, E channels, K components. For given components S each pixel's loadings minimise
|x - h S|^2 / 2 with h >= 0: a quadratic in K numbers that needs the pixel only through S x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.narrow import (
    FUSED,
    PIECE,
    add_back,
    few_products,
    in_few,
    piece_pixels,
    values_of,
)
from emcube.kernels.poisson_nmf import bounded_step
from emcube.kernels.products import gram_of
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["FrobeniusPass", "bounded_loadings", "frobenius_loadings", "frobenius_pass", "pieces"]

TOLERANCE = 1e-13
"""Largest relative change of a loading at which the descent stops."""


@dataclass(frozen=True)
class FrobeniusPass:
    """What a pass over some pixels tells about the components.

    Attributes
    ----------
    products : ndarray, shape (K, E)
        H' X.
    gram : ndarray, shape (K, K)
        H' H.
    loadings : ndarray, shape (K,)
        Sum of the loadings over the pixels.
    square : float
        Sum of all x^2.
    fitted : float
        |X|^2 / 2 - |X - H S|^2 / 2.
    n_pixels : int
    """

    products: NDArray[np.float64]
    gram: NDArray[np.float64]
    loadings: NDArray[np.float64]
    square: float
    fitted: float
    n_pixels: int

    @property
    def divergence(self) -> float:
        """|X - H S|^2 / 2."""
        return max(self.square / 2.0 - self.fitted, 0.0)

    @property
    def objective(self) -> float:
        """What passes lower: the divergence."""
        return self.divergence

    def __add__(self, other: FrobeniusPass) -> FrobeniusPass:
        return FrobeniusPass(
            self.products + other.products,
            self.gram + other.gram,
            self.loadings + other.loadings,
            self.square + other.square,
            self.fitted + other.fitted,
            self.n_pixels + other.n_pixels,
        )


def frobenius_loadings(
    data: CountRows | NDArray[Any], components: NDArray[Any]
) -> NDArray[np.float64]:
    """Find the non-negative least-squares loadings of every pixel.

    Parameters
    ----------
    data : CountRows or ndarray, (P, E)
    components : ndarray, shape (K, E)

    Returns
    -------
    ndarray, shape (P, K)
        In the units of the data, for components that sum to one.
    """
    components = np.nan_to_num(np.asarray(components, dtype=np.float64))
    gram, inverse = _gram(components)
    if isinstance(data, CountRows):
        return _nnls(data.matmul(components.T), gram, inverse)
    return _nnls(in_few(data, components), gram, inverse)


def frobenius_pass(data: CountRows | NDArray[Any], components: NDArray[Any]) -> FrobeniusPass:
    """Solve all pixels and return the objective with what the components' step needs."""
    components = np.ascontiguousarray(np.nan_to_num(np.asarray(components, dtype=np.float64)))
    gram, inverse = _gram(components)
    crossed = np.zeros(components.shape)
    loadings_gram = np.zeros(gram.shape)
    totals = np.zeros(len(gram))
    square = fitted = 0.0
    if isinstance(data, CountRows):
        products = data.matmul(components.T)
        loadings = _nnls(products, gram, inverse)
        square = float(np.square(data.counts, dtype=np.float64).sum())
        crossed += data.rmatmul(loadings)
        loadings_gram += loadings.T @ loadings
        totals += loadings.sum(axis=0)
        fitted = float((loadings * products).sum() - 0.5 * (loadings_gram * gram).sum())
    else:
        step = piece_pixels(data.shape[1])
        for _, part in values_of(data):
            more = _dense_pass(
                part, components, gram, inverse, step, TOLERANCE, crossed, loadings_gram, totals
            )
            square, fitted = square + more[0], fitted + more[1]
    return FrobeniusPass(crossed, loadings_gram, totals, square, fitted, int(data.shape[0]))


def pieces(data: CountRows | NDArray[Any]) -> Iterator[tuple[int, Any]]:
    """First pixel and values: rows as they are, a matrix in float64 by pieces that stay in the cache.

    A whole copy in float64 would cost as much as both products of a pass. A piece holds until the next one.
    """
    if isinstance(data, CountRows):
        yield 0, data
        return
    n_pixels, n_channels = data.shape
    length = max(1, PIECE // max(1, 8 * n_channels))
    room = np.empty((min(length, n_pixels), n_channels))
    for first in range(0, n_pixels, length):
        part = data[first : first + length]
        if part.dtype == np.float64 and part.flags.c_contiguous:
            yield first, part
        else:
            np.copyto(room[: len(part)], part)
            yield first, room[: len(part)]


def _gram(
    components: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    gram = gram_of(components)
    return gram, np.asarray(np.linalg.pinv(gram, rcond=1e-14, hermitian=True), dtype=np.float64)


def bounded_loadings(
    products: NDArray[np.float64], gram: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Non-negative h (P, K) that minimise h G h' / 2 - h b' for products b (P, K) and a Gram matrix G."""
    inverse = np.linalg.pinv(gram, rcond=1e-14, hermitian=True)
    return _nnls(products, gram, np.asarray(inverse, dtype=np.float64))


def _nnls(
    products: NDArray[np.float64], gram: NDArray[np.float64], inverse: NDArray[np.float64]
) -> NDArray[np.float64]:
    # The unconstrained answer is exact where no loading is negative, and a good start elsewhere.
    loadings = np.maximum(products @ inverse, 0.0)
    _descend(np.ascontiguousarray(products), gram, loadings, TOLERANCE)
    return loadings


@jit(fastmath=FUSED)
def _dense_pass(cells, components, gram, inverse, step, tolerance, crossed, loadings_gram, totals):
    """Add to the sums of a pass what some pixels give; returns their squares and what is fitted.

    A few pixels at a time go through all of it while they are in the cache, without the interpreter, whose
    lock threads would wait for more often than they compute.
    """
    n = len(components)
    room = np.empty((step, n))
    answers = np.empty((step, n))
    square = 0.0
    fitted = 0.0
    for first in range(0, cells.shape[0], step):
        part = cells[first : first + step]
        products, loadings = room[: len(part)], answers[: len(part)]
        few_products(part, components, products)
        for p in range(len(part)):
            for k in range(n):
                start = 0.0
                for j in range(n):
                    start += products[p, j] * inverse[j, k]
                loadings[p, k] = max(start, 0.0)
        _descend(products, gram, loadings, tolerance)
        add_back(part, loadings, crossed)
        for p in range(len(part)):
            own = 0.0
            for e in range(part.shape[1]):
                value = np.float64(part[p, e])
                own += value * value
            square += own
            for k in range(n):
                totals[k] += loadings[p, k]
                slope = products[p, k]
                for j in range(n):
                    loadings_gram[k, j] += loadings[p, k] * loadings[p, j]
                    slope -= 0.5 * gram[k, j] * loadings[p, j]
                fitted += loadings[p, k] * slope
    return square, fitted


@jit(error_model="numpy")
def _descend(products, gram, loadings, tolerance):
    """Where a loading of the start is at its bound: the solution with bounds. Then coordinate descent."""
    n_pixels, n = loadings.shape
    least = np.inf
    for k in range(n):
        least = min(least, gram[k, k])
    g = np.empty(n)
    zero = np.zeros(n)
    d = np.empty(n)
    y = np.empty(n)
    inverse = np.empty(n)
    lower = np.empty((n, n))
    free = np.empty(n, dtype=np.int64)
    clamped = np.empty(n, dtype=np.int64)
    for p in range(n_pixels):
        bounded = False
        for k in range(n):
            g[k] = -products[p, k]
            bounded = bounded or loadings[p, k] == 0.0
        if bounded and least > 0.0:
            bounded_step(gram, g, zero, d, n, 0.0, y, inverse, lower, free, clamped)
            for k in range(n):
                loadings[p, k] = d[k] if d[k] > 0.0 else 0.0
        for _ in range(10000):
            change = 0.0
            scale = 1e-300
            for k in range(n):
                if gram[k, k] <= 0.0:
                    loadings[p, k] = 0.0
                    continue
                slope = g[k]
                for j in range(n):
                    slope += gram[k, j] * loadings[p, j]
                new = max(loadings[p, k] - slope / gram[k, k], 0.0)
                change = max(change, abs(new - loadings[p, k]))
                loadings[p, k] = new
                scale = max(scale, new)
            if change <= tolerance * scale:
                break
