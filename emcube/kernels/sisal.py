"""The smallest simplex around a cloud, where no point is pure; and how far its corners might lie out.

Letters: N points, M support points, K dims and corners. Points lie in a plane that does not hold the origin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels.corners import log_volume
from emcube.kernels.vertices import farthest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["extreme_points", "smallest_simplex", "support_points"]

SPLIT = 0.5
"""Share of the noise that is added for choosing; over it, for averaging."""

INNER = 200
"""Steps of the augmented Lagrangian for one approximation."""


def support_points(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    noise: NDArray[np.float64],
    covariance: NDArray[np.float64],
    *,
    n_directions: int,
    n_average: int,
    n_splits: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Where the cloud ends along random directions, free of the noise that makes it wider.

    Along a direction the `n_average` points that reach farthest are averaged. Each point is split into two with
    independent noise: one copy says which points reach far, the other is averaged (data fission), so that
    noise does not choose itself.

    Parameters
    ----------
    points : ndarray, shape (N, K)
    weights : ndarray, shape (N,)
    noise : ndarray, shape (N,)
        Size of a point's noise.
    covariance : ndarray, shape (K, K)
        Of the noise, over the square of its size.
    n_directions, n_average, n_splits : int
    rng : Generator

    Returns
    -------
    ndarray, shape (n_directions, K)

    References
    ----------
    J. Leiner, B. Duan, L. Wasserman, A. Ramdas, "Data fission: splitting a single data point", J. Am. Stat.
    Assoc. 120 (2025) 135. https://doi.org/10.1080/01621459.2023.2270748
    """
    centre = np.average(points, axis=0, weights=weights)
    off = points - centre
    spread = (off * weights[:, None]).T @ off / weights.sum()
    values, axes = np.linalg.eigh(spread)
    # Directions that are even in the plane once all its axes are as long as each other.
    axes = axes[:, 1:] / np.sqrt(np.maximum(values[1:], 1e-300))
    drawn = rng.standard_normal((n_directions, axes.shape[1]))
    directions = drawn @ axes.T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    out = np.zeros((n_directions, points.shape[1]))
    for i, direction in enumerate(directions):
        along = covariance @ direction
        variance = max(float(direction @ along), 0.0)
        reach = points @ direction
        if variance == 0.0:
            far = farthest(reach, n_average)
            out[i] = np.average(points[far], axis=0, weights=weights[far])
            continue
        sigma = np.sqrt(variance) * noise
        for _ in range(n_splits):
            own = sigma * rng.standard_normal(len(points))
            far = farthest(reach + SPLIT * own - sigma, n_average)
            clean = points[far] - np.outer(own[far] / SPLIT, along / variance)
            out[i] += np.average(clean, axis=0, weights=weights[far]) / n_splits
    return out


def smallest_simplex(
    points: NDArray[np.float64],
    first: NDArray[np.float64],
    *,
    slack: float,
    max_iter: int,
    tol: float,
) -> tuple[NDArray[np.float64], int, bool]:
    """Simplex of the least volume that holds the points, but for a few that may stick out a little.

    With Q the inverse of the corners V and shares A = P Q of the points P,

        minimise -log |det Q| + lambda sum_ik max(-A_ik, 0)   with A 1 = 1,

    lambda = 1 / (slack M). Each step minimises a quadratic approximation of the first term, in the
    coordinates of the corners so far (there Q is the unit matrix), together with the hinge, by a split
    augmented Lagrangian; a step that does not lower the objective is made shorter.

    Parameters
    ----------
    points : ndarray, shape (M, K)
    first : ndarray, shape (K, K)
        Corners to start from.
    slack : float
        About the share of the points that may lie outside of a face. 0: none (MVSA), as far as a finite
        lambda goes.
    max_iter : int
        Approximations.
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
    J. Li, A. Agathos, D. Zaharie, J. M. Bioucas-Dias, A. Plaza, X. Li, "Minimum volume simplex analysis: a fast
    algorithm for linear hyperspectral unmixing", IEEE Trans. Geosci. Remote Sens. 53 (2015) 5067.
    https://doi.org/10.1109/TGRS.2015.2417162
    """
    m, k = points.shape
    weight = 1.0 / max(slack * m, 1e-3)
    corners, curvature = first.copy(), 1.0
    value = _objective(points, corners, weight)
    for n in range(max_iter):
        shares = points @ np.linalg.inv(corners)
        while True:
            turn = _approximated(shares, weight, curvature)
            # The determinant may not change its sign on the way.
            if np.linalg.slogdet(turn)[0] > 0:
                ahead = np.linalg.solve(turn, corners)
                reached = _objective(points, ahead, weight)
                if reached <= value:
                    break
            curvature *= 4.0
            if curvature > 1e8:
                return corners, n + 1, True
        gained = value - reached
        corners, value = ahead, reached
        curvature = max(1.0, curvature / 2.0)
        if gained <= tol:
            return corners, n + 1, True
    return corners, max_iter, False


def _objective(
    points: NDArray[np.float64], corners: NDArray[np.float64], weight: float
) -> float:
    shares = points @ np.linalg.inv(corners)
    return log_volume(corners) + weight * float(np.maximum(-shares, 0.0).sum())


def _approximated(
    shares: NDArray[np.float64], weight: float, curvature: float
) -> NDArray[np.float64]:
    """Minimise -tr Q + curvature |Q - I|^2 / 2 + weight sum max(-(A Q), 0) with Q 1 = 1."""
    k = shares.shape[1]
    # A penalty in proportion to what a row of shares weighs.
    own = shares.T @ shares
    penalty = max(1.0, curvature) * k / max(float(np.trace(own)), 1e-300) * len(shares) ** 0.5
    system = np.linalg.inv(curvature * np.eye(k) + penalty * own)
    turn, ones = np.eye(k), np.ones(k)
    split, dual = np.maximum(shares, 0.0), np.zeros(shares.shape)
    threshold = weight / penalty
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


def extreme_points(
    normals: NDArray[np.float64],
    bounds: NDArray[np.float64],
    inside: NDArray[np.float64],
    *,
    n_directions: int = 512,
) -> NDArray[np.float64]:
    """Corners of the polytope normals @ x <= bounds, or some of them where its dims are many.

    Parameters
    ----------
    normals : ndarray, shape (C, D)
    bounds : ndarray, shape (C,)
    inside : ndarray, shape (D,)
        A point well inside.
    n_directions : int
        In more than six dims: directions whose farthest points are taken.

    Returns
    -------
    ndarray, shape (any, D)
    """
    n_dims = normals.shape[1]
    if n_dims == 1:
        room = bounds - normals[:, 0] * inside[0]
        up, down = normals[:, 0] > 0, normals[:, 0] < 0
        ends = [(room[up] / normals[up, 0]).min(initial=np.inf)]
        ends.append((room[down] / normals[down, 0]).max(initial=-np.inf))
        return inside + np.array(ends)[:, None]
    if n_dims <= 6:
        from scipy.spatial import HalfspaceIntersection

        halfspaces = np.column_stack((normals, -bounds))
        return np.asarray(HalfspaceIntersection(halfspaces, inside).intersections)
    from scipy.optimize import linprog

    rng = np.random.default_rng(0)
    found = []
    for direction in rng.standard_normal((n_directions, n_dims)):
        answer = linprog(-direction, A_ub=normals, b_ub=bounds, bounds=(None, None))
        if answer.status == 0:
            found.append(answer.x)
    return np.array(found)
