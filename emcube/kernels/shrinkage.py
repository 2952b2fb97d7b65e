"""How much of each singular value is signal: optimal shrinkage for white noise.

Letters: P pixels, E channels, K components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["shrink_factors"]


def shrink_factors(
    singular_values: ArrayLike, noise_variance: float, shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Factors of the singular values that leave the smallest squared error on average.

    Noise makes singular values larger and turns their vectors away. With y = sigma / (sqrt(n) s), beta = m
    / n for the sides m <= n, and s^2 the variance of the noise, the best value is

        sqrt((y^2 - beta - 1)^2 - 4 beta) / y    for y >= 1 + sqrt(beta), and 0 below.

    Parameters
    ----------
    singular_values : array_like, shape (K,)
        Of a matrix whose noise is white.
    noise_variance : float
        Of one value.
    shape : tuple of int
        (P, E) of the matrix.

    Returns
    -------
    ndarray, shape (K,)
        From 0 to 1.

    References
    ----------
    M. Gavish, D. L. Donoho, "Optimal shrinkage of singular values", IEEE Trans. Inf. Theory 63 (2017) 2137.
    https://doi.org/10.1109/TIT.2017.2653801
    """
    values = np.asarray(singular_values, dtype=np.float64)
    if not noise_variance > 0.0:
        return np.ones_like(values)
    small, large = sorted(shape)
    beta = small / large
    y = values / np.sqrt(large * noise_variance)
    above = y >= 1.0 + np.sqrt(beta)
    square = np.square(np.where(above, y, 2.0))
    inside = np.maximum(np.square(square - beta - 1.0) - 4.0 * beta, 0.0)
    return np.where(above, np.sqrt(inside) / square, 0.0)
