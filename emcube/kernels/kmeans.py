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
    "assign",
    "label_sums",
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
    order = np.argsort(-keys, kind="stable")[:n_samples]
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
