"""SISAL as published: the simplex of the least volume around a cloud, but for what a hinge lets out.

Letters: N points, K dims and corners. Points lie in a plane that does not hold the origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels.descent import descend

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["smallest_simplex"]

ROUNDED = 0.1 * 0.25 ** np.arange(7)
"""Shares below zero over which the hinge is rounded, one descent after the other; at last next to none."""


def smallest_simplex(
    points: NDArray[np.float64],
    first: NDArray[np.float64],
    *,
    hinge: float,
    max_iter: int,
    tol: float,
) -> tuple[NDArray[np.float64], int, bool]:
    """Minimise the volume of a simplex and, `hinge` times, what lies outside of it.

    With Q the inverse of the corners V and shares A = P Q of the points P,

        minimise -log |det Q| + hinge sum_ik max(-A_ik, 0)   with A 1 = 1.

    The objective is the published one. The papers minimise it by quadratic programs and by splitting; here
    the hinge is rounded where it bends, less and less, and damped Newton steps go down.

    Parameters
    ----------
    points : ndarray, shape (N, K)
    first : ndarray, shape (K, K)
        Corners to start from.
    hinge : float
        Weight of what lies outside. About 1 / hinge is the sum of shares that may; the larger, the nearer
        to the simplex that holds all points (MVSA).
    max_iter : int
        Approximations, at most.
    tol : float
        Fall of the objective at which it ends.

    Returns
    -------
    corners : ndarray, shape (K, K)
    n_iter : int
    converged : bool

    References
    ----------
    J. M. Bioucas-Dias, "A variable splitting augmented Lagrangian approach to linear spectral unmixing",
    WHISPERS 2009. https://doi.org/10.1109/WHISPERS.2009.5289072
    J. Li, A. Agathos, D. Zaharie, J. M. Bioucas-Dias, A. Plaza, X. Li, "Minimum volume simplex analysis:
    a fast algorithm for linear hyperspectral unmixing", IEEE Trans. Geosci. Remote Sens. 53 (2015) 5067.
    https://doi.org/10.1109/TGRS.2015.2417162
    """
    k = len(first)
    corners, n_iter, damping = first, 0, 1.0
    for width in ROUNDED:
        shares = points @ np.linalg.inv(corners)
        back, damping, used = descend(
            _Hinge(shares, hinge, float(width)),
            k,
            damping=min(damping, 1.0),
            max_iter=max_iter - n_iter,
            tol=tol,
        )
        n_iter += used
        corners = np.asarray(np.linalg.solve(back, corners), dtype=np.float64)
        if n_iter >= max_iter:
            return corners, n_iter, False
    return corners, n_iter, True


@dataclass(frozen=True, eq=False)
class _Hinge:
    """Sum of what is negative of all shares, rounded over a width below zero."""

    shares: NDArray[np.float64]
    weight: float
    width: float

    def __call__(
        self, back: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        below = np.maximum(-(self.shares @ back), 0.0)
        slope = np.minimum(below / self.width, 1.0)
        value = float((slope * (below - 0.5 * self.width * slope)).sum())
        bend = np.divide(slope, below, out=np.zeros_like(below), where=below > 0.0)
        curvature = np.stack([(self.shares * b[:, None]).T @ self.shares for b in bend.T])
        return self.weight * value, -self.weight * self.shares.T @ slope, self.weight * curvature
