"""Least-squares loadings of given components, and the statistics of a pass.

Letters: P pixels, E channels, K components. For given components S each pixel's loadings minimise
|x - h S|^2 / 2 with h >= 0: a quadratic in K numbers that needs the pixel only through S x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FrobeniusPass", "frobenius_loadings", "frobenius_pass"]

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

    def __add__(self, other: FrobeniusPass) -> FrobeniusPass:
        return FrobeniusPass(
            self.products + other.products,
            self.gram + other.gram,
            self.loadings + other.loadings,
            self.square + other.square,
            self.fitted + other.fitted,
            self.n_pixels + other.n_pixels,
        )


def _projections(
    data: CountRows | NDArray[Any], components: NDArray[np.float64]
) -> NDArray[np.float64]:
    if isinstance(data, CountRows):
        return data.matmul(components.T)
    return np.ascontiguousarray(np.asarray(data, dtype=np.float64) @ components.T)


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
    gram = components @ components.T
    return _nnls(_projections(data, components), gram, TOLERANCE)


def frobenius_pass(data: CountRows | NDArray[Any], components: NDArray[Any]) -> FrobeniusPass:
    """Solve all pixels and return the objective with what the components' step needs."""
    components = np.nan_to_num(np.asarray(components, dtype=np.float64))
    gram = components @ components.T
    products = _projections(data, components)
    loadings = _nnls(products, gram, TOLERANCE)
    loadings_gram = loadings.T @ loadings
    if isinstance(data, CountRows):
        square = float(np.square(data.counts, dtype=np.float64).sum())
        crossed = data.rmatmul(loadings)
    else:
        dense = np.asarray(data, dtype=np.float64)
        square = float(np.einsum("pe,pe->", dense, dense))
        crossed = loadings.T @ dense
    fitted = float((loadings * products).sum() - 0.5 * (loadings_gram * gram).sum())
    return FrobeniusPass(
        crossed, loadings_gram, loadings.sum(axis=0), square, fitted, int(loadings.shape[0])
    )


def _nnls(
    products: NDArray[np.float64], gram: NDArray[np.float64], tolerance: float
) -> NDArray[np.float64]:
    # The unconstrained answer is exact where no loading is negative, and a good start elsewhere.
    start = np.linalg.lstsq(gram, products.T, rcond=1e-14)[0].T
    loadings = np.ascontiguousarray(np.maximum(start, 0.0))
    _coordinate_descent(products, gram, loadings, tolerance)
    return loadings


@jit
def _coordinate_descent(products, gram, loadings, tolerance):
    n_pixels, n_components = loadings.shape
    for p in range(n_pixels):
        for _ in range(10000):
            change = 0.0
            scale = 1e-300
            for k in range(n_components):
                if gram[k, k] <= 0.0:
                    loadings[p, k] = 0.0
                    continue
                slope = -products[p, k]
                for j in range(n_components):
                    slope += gram[k, j] * loadings[p, j]
                new = max(loadings[p, k] - slope / gram[k, k], 0.0)
                change = max(change, abs(new - loadings[p, k]))
                loadings[p, k] = new
                scale = max(scale, new)
            if change <= tolerance * scale:
                break
