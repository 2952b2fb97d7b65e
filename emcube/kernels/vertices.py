"""Find the corners of a cloud of noisy mixtures: where the purest pixels lie.

Letters: N points, K dims and corners. Points are mixtures sum_k a_k v_k with a >= 0, sum a = 1, plus noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["find_vertices"]


def find_vertices(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    noise: NDArray[np.float64],
    n_vertices: int,
    *,
    n_average: int,
    n_sweeps: int = 5,
) -> NDArray[np.float64]:
    """Find corners by smoothed successive projection, then let each one see the others.

    Successive projection takes the point farthest from the span of the corners found so far. A single
    point is an outlier of the noise, so the mean of the `n_average` points that reach farthest in its
    direction is the corner. Afterwards each corner is sought anew against the span of all others, since
    the first ones were found without knowing the last.

    Parameters
    ----------
    points : ndarray, shape (N, D), D >= n_vertices
    weights : ndarray, shape (N,)
        Of the points in the means (their counts).
    noise : ndarray, shape (N,)
        Standard deviation of a point's coordinates: so much is taken off its distance.
    n_vertices : int
        K.
    n_average : int
        Points that are averaged for a corner.
    n_sweeps : int
        Times that each corner is sought anew.

    Returns
    -------
    ndarray, shape (K, D)

    References
    ----------
    M. C. U. Araujo et al., "The successive projections algorithm", Chemom. Intell. Lab. Syst. 57 (2001) 65.
    https://doi.org/10.1016/S0169-7439(01)00119-8
    N. Nadisic, N. Gillis, C. Kervazo, "Smoothed separable nonnegative matrix factorization", Linear Algebra
    Appl. 676 (2023) 174. https://doi.org/10.1016/j.laa.2023.07.013
    """
    n_average = max(1, min(n_average, len(points) // n_vertices))

    def corner(direction: NDArray[np.float64]) -> NDArray[np.float64]:
        reach = points @ direction - noise
        far = np.argpartition(-reach, n_average - 1)[:n_average]
        far.sort()
        return np.asarray(np.average(points[far], axis=0, weights=weights[far]))

    rest = np.eye(points.shape[1])
    corners = np.zeros((n_vertices, points.shape[1]))
    for k in range(n_vertices):
        left = points @ rest
        farthest = left[int(np.argmax(np.linalg.norm(left, axis=1) - noise))]
        corners[k] = corner(_unit(farthest))
        direction = _unit(corners[k] @ rest)
        rest = rest - np.outer(direction, direction) @ rest
    for _ in range(n_sweeps):
        before = corners.copy()
        for k in range(n_vertices if n_vertices > 1 else 0):
            basis, _ = np.linalg.qr(np.delete(corners, k, axis=0).T)
            corners[k] = corner(_unit(corners[k] - basis @ (basis.T @ corners[k])))
        if np.array_equal(before, corners):
            break
    return corners


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0.0 else vector
