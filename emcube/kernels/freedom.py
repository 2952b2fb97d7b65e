"""How much of a component another one could be, for all that non-negative spectra say.

Letters: E channels, K components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["spectral_freedom"]

LIMIT = 4.0
"""Sum of squares, in standard errors, by which groups may go below zero: two standard errors."""

GROUPS = 64
"""Neighbouring channels are judged together, in groups of about equal signal: a line stands alone, while
single channels of the background, in which zero means next to nothing, would rule by chance."""


def spectral_freedom(
    components: NDArray[np.float64], errors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Largest share of each component's signal that could belong to each other component.

    If component k is really a mixture, s_k = (1 - b) t + b s_j, the purer t = (s_k - b s_j) / (1 - b) and
    more of component j wherever k is describe the data exactly as well: loadings only grow. What limits b
    is that t must not be negative, within the errors of s_k.

    Parameters
    ----------
    components : ndarray, shape (K, E)
        Each sums to one.
    errors : ndarray, shape (K, E)
        Their standard errors; positive where a component is not zero.

    Returns
    -------
    ndarray, shape (K, K)
        b of component k (row) towards component j (column), 0 to 1; 0 on the diagonal.
    """
    k = len(components)
    shares = np.zeros((k, k))
    for i in range(k):
        for j in range(k):
            if i != j:
                shares[i, j] = _largest(components[i], components[j], errors[i])
    return shares


def _largest(
    mine: NDArray[np.float64], other: NDArray[np.float64], error: NDArray[np.float64]
) -> float:
    group = np.floor(np.cumsum(0.5 * (mine + other)) * GROUPS).astype(np.int64)
    mine = np.bincount(group, mine).astype(np.float64)
    other = np.bincount(group, other).astype(np.float64)
    error = np.sqrt(np.bincount(group, error * error))
    scale = np.where(error > 0.0, error, 1.0)

    def beyond(share: float) -> bool:
        below = np.minimum(mine - share * other, 0.0) / scale
        return float(below @ below) > LIMIT

    low, high = 0.0, 1.0
    if not beyond(high):
        return high
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return low
