"""SISAL as published: the simplex of the least volume around a cloud, but for what a hinge lets out.

Letters: N points, K dims and corners. Points lie in a plane that does not hold the origin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels.corners import log_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["smallest_simplex"]

INNER = 200
"""Steps of the augmented Lagrangian for one approximation."""

STEEPEST = 1e8
"""Curvature at which a step is too short to matter."""


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

    Each step minimises a quadratic approximation of the first term, in the coordinates of the corners so far
    (there Q is the unit matrix), together with the hinge, by a split augmented Lagrangian; a step that does
    not lower the objective is made shorter.

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
    corners, curvature = first.copy(), 1.0
    value = _objective(points, corners, hinge)
    for n in range(max_iter):
        shares = points @ np.linalg.inv(corners)
        while True:
            turn = _approximated(shares, hinge, curvature)
            # The determinant may not change its sign on the way.
            if np.linalg.slogdet(turn)[0] > 0:
                ahead = np.asarray(np.linalg.solve(turn, corners), dtype=np.float64)
                reached = _objective(points, ahead, hinge)
                if reached <= value:
                    break
            curvature *= 4.0
            if curvature > STEEPEST:
                return corners, n + 1, True
        gained = value - reached
        corners, value = ahead, reached
        curvature = max(1.0, curvature / 2.0)
        if gained <= tol:
            return corners, n + 1, True
    return corners, max_iter, False


def _objective(points: NDArray[np.float64], corners: NDArray[np.float64], hinge: float) -> float:
    shares = points @ np.linalg.inv(corners)
    return log_volume(corners) + hinge * float(np.maximum(-shares, 0.0).sum())


def _approximated(
    shares: NDArray[np.float64], hinge: float, curvature: float
) -> NDArray[np.float64]:
    """Minimise -tr Q + curvature |Q - I|^2 / 2 + hinge sum max(-(A Q), 0) with Q 1 = 1."""
    k = shares.shape[1]
    own = shares.T @ shares
    # A penalty in proportion to what a row of shares weighs.
    penalty = max(1.0, curvature) * k / max(float(np.trace(own)), 1e-300) * len(shares) ** 0.5
    system = np.linalg.inv(curvature * np.eye(k) + penalty * own)
    turn, ones = np.eye(k), np.ones(k)
    split, dual = np.maximum(shares, 0.0), np.zeros(shares.shape)
    threshold = hinge / penalty
    for _ in range(INNER):
        wanted = (1.0 + curvature) * np.eye(k) + penalty * shares.T @ (split - dual)
        free = system @ wanted
        # Rows sum to one: the multiplier is the same for all columns.
        excess = (free @ ones - ones) / k
        new = free - np.outer(excess, ones)
        product = shares @ new
        moved = product + dual
        ahead = np.where(moved >= 0.0, moved, np.minimum(moved + threshold, 0.0))
        dual = moved - ahead
        change = float(np.abs(new - turn).max())
        turn, split = new, ahead
        if change < 1e-9 and float(np.abs(product - split).max()) < 1e-7:
            break
    return turn
