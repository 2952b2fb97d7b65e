"""Newton steps for the simplex of least volume, whatever keeps points inside.

Letters: K corners and facets. With Q the inverse of the corners in shares of the first ones,

    minimise -log |det Q| + C(Q)   with the sum of each row of Q as it is,

where C is a sum over the facets, each of which depends on its own column of Q.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["descend"]

SHORTEST = 1e-5
"""Step at which nothing better is in reach."""


def descend(
    cost: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64], NDArray[np.float64]]],
    k: int,
    *,
    damping: float,
    max_iter: int,
    tol: float,
    longest: float = np.inf,
) -> tuple[NDArray[np.float64], float, int]:
    """Damped Newton steps from Q = 1 until nothing is gained, or a step has led far away.

    Parameters
    ----------
    cost : callable
        ``cost(Q) -> C, slope (K, K), curvature (K, K, K)``: the latter for each facet an upper bound of the
        second derivatives by its column.
    k : int
    damping : float
        Of the first step.
    max_iter : int
    tol : float
        Fall of the objective at which it ends.
    longest : float
        Entry of Q - 1 at which it ends.

    Returns
    -------
    Q : ndarray, shape (K, K)
    damping : float
        For a descent that goes on.
    n_iter : int
    """
    back = np.eye(k)
    value, slope, curvature = cost(back)
    objective = value
    for n in range(max_iter):
        step = _newton(back, slope, curvature, damping)
        ahead = back + step
        sign, log_det = np.linalg.slogdet(ahead)
        # The determinant may not change its sign on the way.
        new = cost(ahead) if sign > 0 else None
        reached = np.inf if new is None else new[0] - float(log_det)
        if new is None or reached >= objective:
            damping *= 4.0
            if float(np.abs(step).max()) < SHORTEST:
                return back, min(damping, 1e3), n + 1
            continue
        gained = objective - reached
        back, objective = ahead, reached
        _, slope, curvature = new
        damping = max(damping / 3.0, 1e-2)
        if gained < tol or float(np.abs(back - np.eye(k)).max()) > longest:
            return back, damping, n + 1
    return back, damping, max_iter


def _newton(
    back: NDArray[np.float64],
    slope: NDArray[np.float64],
    curvature: NDArray[np.float64],
    damping: float,
) -> NDArray[np.float64]:
    """Step (K, K) that leaves the sum of each row as it is."""
    k = len(back)
    size = k * k
    gradient = slope - np.linalg.inv(back).T
    system = np.zeros((size + k, size + k))
    for f in range(k):
        own = slice(f * k, (f + 1) * k)
        system[own, own] = curvature[f] + (1.0 + damping) * np.eye(k)
        system[size:, own] = system[own, size:] = np.eye(k)
    right = np.append(-gradient.T.ravel(), np.zeros(k))
    return np.asarray(np.linalg.solve(system, right)[:size].reshape(k, k).T)
