"""Find the corners of a cloud of noisy mixtures: where the purest pixels lie.

Letters: N points, K dims and corners. Points are mixtures sum_k a_k v_k with a >= 0, sum a = 1, plus noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["farthest", "find_vertices", "settled"]


def find_vertices(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    noise: NDArray[np.float64],
    n_vertices: int,
    *,
    n_average: int,
    covariance: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    rng: np.random.Generator,
    n_sweeps: int = 5,
    n_splits: int = 16,
) -> NDArray[np.float64]:
    """Find corners by smoothed successive projection, then let each one see the others.

    Successive projection takes the point farthest from the span of the corners found so far. A single
    point is an outlier of the noise, so the mean of the `n_average` points that reach farthest in its
    direction is the corner. Afterwards each corner is sought anew against the span of all others, since
    the first ones were found without knowing the last.

    Points that reach far do so in part by their noise, which would put corners too far out. Since its
    covariance is known, each point y is split into two with independent noise, y + e t and y - e / t with e
    drawn like the noise: the first ones say which points reach far, the second ones are averaged.

    Parameters
    ----------
    points : ndarray, shape (N, D), D >= n_vertices
    weights : ndarray, shape (N,)
        Of the points in the means (their counts).
    noise : ndarray, shape (N,)
        Size of a point's noise: standard deviation of a coordinate, for the mean composition.
    n_vertices : int
        K.
    n_average : int
        Points that are averaged for a corner.
    covariance : callable
        ``covariance(corner)`` is the covariance (D, D) of the noise of points at that corner, divided by
        the square of their `noise`.
    rng : Generator
        Of the splits.
    n_sweeps : int
        Times that each corner is sought anew.
    n_splits : int
        Splits that are averaged.

    Returns
    -------
    ndarray, shape (K, D)

    References
    ----------
    M. C. U. Araujo et al., "The successive projections algorithm", Chemom. Intell. Lab. Syst. 57 (2001) 65.
    https://doi.org/10.1016/S0169-7439(01)00119-8
    N. Nadisic, N. Gillis, C. Kervazo, "Smoothed separable nonnegative matrix factorization", Linear Algebra
    Appl. 676 (2023) 174. https://arxiv.org/abs/2110.05528
    J. Leiner, B. Duan, L. Wasserman, A. Ramdas, "Data fission: splitting a single data point", J. Am. Stat.
    Assoc. 120 (2025) 135. https://arxiv.org/abs/2112.11079
    """
    n_average = max(1, min(n_average, len(points) // n_vertices))
    rest = np.eye(points.shape[1])
    corners = np.zeros((n_vertices, points.shape[1]))
    for k in range(n_vertices):
        left = points @ rest
        seed = left[int(np.argmax(np.linalg.norm(left, axis=1) - noise))]
        far = farthest(points @ _unit(seed) - noise, n_average)
        corners[k] = np.average(points[far], axis=0, weights=weights[far])
        direction = _unit(corners[k] @ rest)
        rest = rest - np.outer(direction, direction) @ rest
    return settled(
        points,
        weights,
        noise,
        corners,
        n_average=n_average,
        covariance=covariance,
        rng=rng,
        n_sweeps=n_sweeps,
        n_splits=n_splits,
    )


def settled(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    noise: NDArray[np.float64],
    corners: NDArray[np.float64],
    *,
    n_average: int,
    covariance: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    rng: np.random.Generator,
    n_sweeps: int = 5,
    n_splits: int = 16,
) -> NDArray[np.float64]:
    """Corners sought anew against the span of all others, free of the noise that chooses their points.

    Parameters as for `find_vertices`, with the corners (K, D) that were found before.
    """
    corners = corners.copy()
    for _ in range(n_sweeps if len(corners) > 1 else 0):
        for k in range(len(corners)):
            basis, _ = np.linalg.qr(np.delete(corners, k, axis=0).T)
            direction = _unit(corners[k] - basis @ (basis.T @ corners[k]))
            corners[k] = _split_mean(
                points, weights, noise, direction, covariance(corners[k]), n_average, rng, n_splits
            )
    return corners


def farthest(reach: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Numbers of the `n` points that reach farthest, in ascending order."""
    far = np.argpartition(-reach, n - 1)[:n]
    far.sort()
    return far


def _split_mean(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    noise: NDArray[np.float64],
    direction: NDArray[np.float64],
    covariance: NDArray[np.float64],
    n_average: int,
    rng: np.random.Generator,
    n_splits: int,
) -> NDArray[np.float64]:
    """Mean of the points that reach farthest along `direction`, free of the noise that chose them."""
    share = 0.5
    along = covariance @ direction
    variance = max(float(direction @ along), 0.0)
    if variance == 0.0:
        far = farthest(points @ direction, n_average)
        return np.asarray(np.average(points[far], axis=0, weights=weights[far]))
    # What noise along the direction does to the other coordinates.
    carried = along / variance
    sigma = np.sqrt(variance) * noise
    reach = points @ direction
    # All splits at once; sums in the order of one after the other.
    drawn = sigma * rng.standard_normal((n_splits, len(points)))
    far = np.argpartition(-(reach + share * drawn - sigma), n_average - 1, axis=1)[:, :n_average]
    far.sort(axis=1)
    noise_of = np.take_along_axis(drawn, far, axis=1) / share
    clean = points[far] - noise_of[:, :, None] * carried
    mine = weights[far]
    means = (clean * mine[:, :, None]).sum(axis=1) / mine.sum(axis=1)[:, None]
    total = np.zeros(points.shape[1])
    for one in means:
        total += one
    return total / n_splits


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0.0 else vector
