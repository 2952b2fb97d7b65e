"""Corners of a cloud of mixtures: along random directions (VCA), and of the largest volume (N-FINDR).

Letters: N points, K dims and corners. A point is a mixture sum_k a_k v_k with a >= 0, sum a = 1, plus noise:
all of them lie in a plane of K - 1 dims that does not hold the origin, so that the determinant of K points
is the volume of their simplex up to a factor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels.vertices import farthest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["largest", "log_volume", "n_finder", "shares_of", "vertex_components"]

GROWTH = 1e-9
"""Share by which a replaced corner, or another try, must raise the volume: less is rounding."""


def log_volume(corners: NDArray[np.float64]) -> float:
    """Logarithm of the simplex' volume, up to a constant; minus infinity where it is flat."""
    return float(np.linalg.slogdet(corners)[1])


def shares_of(points: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Barycentric coordinates (N, K) of points (N, K): ``points = shares @ corners``, of any sign."""
    return points @ np.linalg.pinv(corners)


def vertex_components(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    noise: NDArray[np.float64],
    n_vertices: int,
    *,
    n_average: int,
    n_init: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Vertex component analysis: each corner is extreme along a random direction that the others lack.

    Parameters
    ----------
    points : ndarray, shape (N, K)
    weights : ndarray, shape (N,)
        Of the points in means (their counts).
    noise : ndarray, shape (N,)
        Standard deviation of a point's coordinate: a noisy point must reach that much farther.
    n_vertices : int
        K.
    n_average : int
        Points whose mean is a corner; 1 is the method as published, more the smoothed one.
    n_init : int
        Times that all is done with other directions; the simplex of the largest volume is kept.
    rng : Generator
        Of the directions.

    Returns
    -------
    ndarray, shape (K, K)

    References
    ----------
    J. M. P. Nascimento, J. M. Bioucas-Dias, "Vertex component analysis: a fast algorithm to unmix
    hyperspectral data", IEEE Trans. Geosci. Remote Sens. 43 (2005) 898.
    https://doi.org/10.1109/TGRS.2005.844293
    N. Nadisic, N. Gillis, C. Kervazo, "Smoothed separable nonnegative matrix factorization", Linear Algebra
    Appl. 676 (2023) 174. https://doi.org/10.1016/j.laa.2023.07.013
    """
    n_average = max(1, min(n_average, len(points) // n_vertices))
    tries = [
        _once(points, weights, noise, n_vertices, n_average, rng)
        for _ in range(n_init if n_vertices > 1 else 1)
    ]
    return largest(tries)


def largest(tries: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The simplex (K, K) of the largest volume, of those that rounding alone tells apart the first.

    The same corners in another order have the same volume up to rounding, which must not decide which
    corner gets which random numbers afterwards.
    """
    volumes = [log_volume(corners) for corners in tries]
    least = max(volumes) - GROWTH
    return next(one for one, volume in zip(tries, volumes, strict=True) if volume >= least)


def _once(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    noise: NDArray[np.float64],
    n_vertices: int,
    n_average: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    corners = np.zeros((n_vertices, points.shape[1]))
    # The first direction lies in the plane of the points: at right angles to where they are on average.
    against = np.average(points, axis=0, weights=weights)[None, :]
    for k in range(n_vertices):
        basis, _ = np.linalg.qr(against.T)
        drawn = rng.standard_normal(points.shape[1])
        direction = drawn - basis @ (basis.T @ drawn)
        direction /= max(float(np.linalg.norm(direction)), np.finfo(float).tiny)
        reach = points @ direction
        sides = [farthest(reach - noise, n_average), farthest(-reach - noise, n_average)]
        far = max(
            sides, key=lambda side: abs(float(np.average(reach[side], weights=weights[side])))
        )
        corners[k] = np.average(points[far], axis=0, weights=weights[far])
        against = corners[: k + 1]
    return corners


def n_finder(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    first: NDArray[np.float64],
    *,
    n_average: int,
    max_sweeps: int = 100,
) -> tuple[NDArray[np.float64], int, bool]:
    """N-FINDR: replace one corner after the other by what makes the simplex largest, until nothing does.

    With a point y in place of corner k the volume is multiplied by |a_k(y)|, y's barycentric coordinate: one
    product finds the best point of all.

    Parameters
    ----------
    points : ndarray, shape (N, K)
    weights : ndarray, shape (N,)
        Of the points in means.
    first : ndarray, shape (K, K)
        Corners to start from.
    n_average : int
        Points whose mean is a corner; 1 is the method as published.
    max_sweeps : int
        Times that all corners are visited, at most. The volume grows with each replacement, so that it ends.

    Returns
    -------
    corners : ndarray, shape (K, K)
    n_sweeps : int
        Times that all corners were visited.
    done : bool
        No single replacement makes the volume larger.

    References
    ----------
    M. E. Winter, "N-FINDR: an algorithm for fast autonomous spectral end-member determination in
    hyperspectral data", Proc. SPIE 3753 (1999) 266. https://doi.org/10.1117/12.366289
    """
    corners = first.copy()
    n_average = max(1, min(n_average, len(points) // len(corners)))
    for sweep in range(max_sweeps):
        grown = False
        for k in range(len(corners)):
            inverse = np.linalg.pinv(corners)[:, k]
            shares = points @ inverse
            for side in (shares, -shares):
                far = farthest(side, n_average)
                corner = np.average(points[far], axis=0, weights=weights[far])
                if abs(float(corner @ inverse)) > 1.0 + GROWTH:
                    corners[k] = corner
                    grown = True
                    break
        if not grown:
            return corners, sweep + 1, True
    return corners, max_sweeps, False
