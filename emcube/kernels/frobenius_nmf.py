"""Least-squares loadings of given components, and the statistics of a pass.

Letters: P pixels, E channels, K components. For given components S each pixel's loadings minimise
|x - h S|^2 / 2 with h >= 0: a quadratic in K numbers that needs the pixel only through S x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.poisson_nmf import bounded_step
from emcube.kernels.products import gram_of
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["FrobeniusPass", "bounded_loadings", "frobenius_loadings", "frobenius_pass", "pieces"]

PIECE = 1 << 19
"""Bytes in float64 of the pieces of a dense block that are worked on."""

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
    loadings = np.empty((data.shape[0], len(components)))
    for first, part in pieces(data):
        products = part.matmul(components.T) if isinstance(part, CountRows) else part @ components.T
        loadings[first : first + part.shape[0]] = _nnls(products, gram, inverse)
    return loadings


def frobenius_pass(data: CountRows | NDArray[Any], components: NDArray[Any]) -> FrobeniusPass:
    """Solve all pixels and return the objective with what the components' step needs."""
    components = np.nan_to_num(np.asarray(components, dtype=np.float64))
    gram, inverse = _gram(components)
    crossed = np.zeros(components.shape)
    loadings_gram = np.zeros(gram.shape)
    totals = np.zeros(len(gram))
    square = fitted = 0.0
    for _, part in pieces(data):
        if isinstance(part, CountRows):
            products = part.matmul(components.T)
            loadings = _nnls(products, gram, inverse)
            square += float(np.square(part.counts, dtype=np.float64).sum())
            crossed += part.rmatmul(loadings)
        else:
            products = part @ components.T
            loadings = _nnls(products, gram, inverse)
            square += float(np.vdot(part, part))
            crossed += loadings.T @ part
        own = loadings.T @ loadings
        loadings_gram += own
        totals += loadings.sum(axis=0)
        fitted += float((loadings * products).sum() - 0.5 * (own * gram).sum())
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
