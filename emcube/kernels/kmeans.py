"""k-means over one block: nearest centers, sums, and weighted samples for seeding.

P pixels, F features, R starts, K centers of each start. All sums are float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emcube.kernels._numba import jit
from emcube.kernels.rows import CountRows

__all__ = [
    "Assignment",
    "LloydSums",
    "assign",
    "label_sums",
    "lloyd_sums",
    "nearest_distance",
    "sample_keys",
    "square_distances",
    "take_dense",
]

Cells = CountRows | NDArray[Any]

DIRECT_FEATURES = 32
"""Up to this many features the distances are summed directly, beyond it by a matrix product."""


class Assignment(NamedTuple):
    """Nearest center of each pixel: its number and the squared distance, both of shape (P,)."""

    labels: NDArray[np.int32]
    distances: NDArray[np.float64]


class LloydSums(NamedTuple):
    """What one pass of R starts with K centers each gives.

    Attributes
    ----------
    sums : ndarray, shape (R, K, F)
        Weighted sums of the pixels of each cluster.
    won : ndarray, shape (R, K)
        Their weights.
    inertia : ndarray, shape (R,)
        Sum of w d^2.
    far_cost : ndarray, shape (R, K)
        Largest w d^2 in each cluster, -1 where it is empty.
    far_pixel : ndarray of int64, shape (R, K)
        Pixel of that.
    """

    sums: NDArray[np.float64]
    won: NDArray[np.float64]
    inertia: NDArray[np.float64]
    far_cost: NDArray[np.float64]
    far_pixel: NDArray[np.int64]


def lloyd_sums(
    cells: Cells, weights: NDArray[np.float64], centers: NDArray[np.float64]
) -> LloydSums:
    """Assign P pixels to the nearest of K centers in each of R starts, (R, K, F), and sum them.

    Few features are read once for all starts, without any matrix of distances in between.
    """
    n_starts, n_clusters, n_features = centers.shape
    if isinstance(cells, np.ndarray) and n_features <= DIRECT_FEATURES:
        values = np.ascontiguousarray(cells, dtype=np.float64)
        return LloydSums(*_direct_lloyd(values, weights, np.ascontiguousarray(centers)))
    flat = np.ascontiguousarray(centers.reshape(-1, n_features))
    distances = square_distances(cells, flat).reshape(-1, n_starts, n_clusters)
    labels, won, inertia, far_cost, far_pixel = _reduce_distances(distances, weights)
    sums = np.stack([label_sums(cells, labels[r], weights, n_clusters)[0] for r in range(n_starts)])
    return LloydSums(sums, won, inertia, far_cost, far_pixel)


def square_distances(cells: Cells, centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared Euclidean distances of P pixels to K centers (K, F); shape (P, K), never negative."""
    if isinstance(cells, CountRows):
        squares = _row_squares(cells.indptr, cells.counts)
        cross = cells.matmul(np.ascontiguousarray(centers.T))
    else:
        values = np.ascontiguousarray(cells, dtype=np.float64)
        if values.shape[1] <= DIRECT_FEATURES:
            return _direct_distances(values, np.ascontiguousarray(centers))
        squares = np.einsum("pf,pf->p", values, values)
        cross = values @ centers.T
    out = squares[:, None] - 2.0 * cross + np.einsum("kf,kf->k", centers, centers)
    return np.maximum(out, 0.0, out=out)


def assign(cells: Cells, centers: NDArray[np.float64]) -> Assignment:
    """Nearest of K centers (K, F) for each pixel; the lower number wins a tie."""
    distances = square_distances(cells, centers)
    labels = distances.argmin(axis=1)
    return Assignment(labels.astype(np.int32), distances[np.arange(labels.size), labels])


def nearest_distance(cells: Cells, centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distance of each pixel to the nearest of K centers (K, F); shape (P,)."""
    if isinstance(cells, np.ndarray) and centers.shape[1] <= DIRECT_FEATURES:
        values = np.ascontiguousarray(cells, dtype=np.float64)
        return _direct_nearest(values, np.ascontiguousarray(centers))
    return square_distances(cells, centers).min(axis=1)


def label_sums(
    cells: Cells, labels: NDArray[np.int32], weights: NDArray[np.float64], n_clusters: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted sums (K, F) and weights (K,) of the pixels of each cluster."""
    if isinstance(cells, CountRows):
        sums = _row_label_sums(
            cells.indptr,
            cells.channels,
            cells.counts,
            labels,
            weights,
            n_clusters,
            cells.n_channels,
        )
    else:
        values = np.ascontiguousarray(cells, dtype=np.float64)
        sums = _dense_label_sums(values, labels, weights, n_clusters)
    won = np.bincount(labels, weights=weights, minlength=n_clusters).astype(np.float64)
    return sums, won


def sample_keys(
    weights: NDArray[np.float64], rng: np.random.Generator, n_samples: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw pixels with probability proportional to their weights, without replacement.

    Each pixel gets the key ``log(u) / w``; those with the largest keys are the sample, so that samples
    of blocks merge into a sample of the whole by keeping the largest keys (Efraimidis and Spirakis,
    Information Processing Letters 97 (2006) 181, doi:10.1016/j.ipl.2005.11.003).

    Returns
    -------
    pixels : ndarray of int, shape (at most n_samples,)
    keys : ndarray of float, of the same shape, descending
    """
    u = rng.random(weights.size)
    alive = np.flatnonzero(weights > 0)
    keys = np.log(np.maximum(u[alive], np.finfo(float).tiny)) / weights[alive]
    if keys.size > n_samples:
        # Keys are different numbers but for rounding: the best few need no sorting of all.
        best = np.sort(np.argpartition(-keys, n_samples - 1)[:n_samples])
        alive, keys = alive[best], keys[best]
    order = np.argsort(-keys, kind="stable")
    return alive[order], keys[order]


def take_dense(cells: Cells, pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Some pixels as dense float64 rows, shape (n, F)."""
    if isinstance(cells, CountRows):
        return cells.take(pixels).to_dense()
    return np.asarray(cells[pixels], dtype=np.float64)


@jit
def _row_squares(indptr, counts):
    out = np.zeros(indptr.size - 1, dtype=np.float64)
    for p in range(out.size):
        total = 0.0
        for i in range(indptr[p], indptr[p + 1]):
            count = np.float64(counts[i])
            total += count * count
        out[p] = total
    return out


@jit
def _direct_distances(values, centers):
    n_pixels, n_features = values.shape
    n_centers = centers.shape[0]
    out = np.empty((n_pixels, n_centers), dtype=np.float64)
    for p in range(n_pixels):
        for k in range(n_centers):
            total = 0.0
            for f in range(n_features):
                difference = values[p, f] - centers[k, f]
                total += difference * difference
            out[p, k] = total
    return out


@jit
def _direct_nearest(values, centers):
    n_pixels, n_features = values.shape
    out = np.empty(n_pixels, dtype=np.float64)
    for p in range(n_pixels):
        best = np.inf
        for k in range(centers.shape[0]):
            total = 0.0
            for f in range(n_features):
                difference = values[p, f] - centers[k, f]
                total += difference * difference
            best = min(best, total)
        out[p] = best
    return out


@jit
def _direct_lloyd(values, weights, centers):
    n_starts, n_clusters, n_features = centers.shape
    sums = np.zeros((n_starts, n_clusters, n_features), dtype=np.float64)
    won = np.zeros((n_starts, n_clusters), dtype=np.float64)
    inertia = np.zeros(n_starts, dtype=np.float64)
    far_cost = np.full((n_starts, n_clusters), -1.0)
    far_pixel = np.zeros((n_starts, n_clusters), dtype=np.int64)
    for p in range(values.shape[0]):
        w = weights[p]
        for r in range(n_starts):
            best = np.inf
            nearest = 0
            for k in range(n_clusters):
                total = 0.0
                for f in range(n_features):
                    difference = values[p, f] - centers[r, k, f]
                    total += difference * difference
                if total < best:
                    best = total
                    nearest = k
            cost = w * best
            won[r, nearest] += w
            inertia[r] += cost
            for f in range(n_features):
                sums[r, nearest, f] += w * values[p, f]
            if cost > far_cost[r, nearest]:
                far_cost[r, nearest] = cost
                far_pixel[r, nearest] = p
    return sums, won, inertia, far_cost, far_pixel


@jit
def _reduce_distances(distances, weights):
    n_pixels, n_starts, n_clusters = distances.shape
    labels = np.empty((n_starts, n_pixels), dtype=np.int32)
    won = np.zeros((n_starts, n_clusters), dtype=np.float64)
    inertia = np.zeros(n_starts, dtype=np.float64)
    far_cost = np.full((n_starts, n_clusters), -1.0)
    far_pixel = np.zeros((n_starts, n_clusters), dtype=np.int64)
    for p in range(n_pixels):
        for r in range(n_starts):
            nearest = 0
            for k in range(1, n_clusters):
                if distances[p, r, k] < distances[p, r, nearest]:
                    nearest = k
            cost = weights[p] * distances[p, r, nearest]
            labels[r, p] = nearest
            won[r, nearest] += weights[p]
            inertia[r] += cost
            if cost > far_cost[r, nearest]:
                far_cost[r, nearest] = cost
                far_pixel[r, nearest] = p
    return labels, won, inertia, far_cost, far_pixel


@jit
def _row_label_sums(indptr, channels, counts, labels, weights, n_clusters, n_channels):
    out = np.zeros((n_clusters, n_channels), dtype=np.float64)
    for p in range(indptr.size - 1):
        k = labels[p]
        w = weights[p]
        for i in range(indptr[p], indptr[p + 1]):
            out[k, channels[i]] += w * counts[i]
    return out


@jit
def _dense_label_sums(values, labels, weights, n_clusters):
    n_pixels, n_features = values.shape
    out = np.zeros((n_clusters, n_features), dtype=np.float64)
    for p in range(n_pixels):
        k = labels[p]
        w = weights[p]
        for f in range(n_features):
            out[k, f] += w * values[p, f]
    return out
