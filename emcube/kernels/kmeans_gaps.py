"""Lloyd's iteration over rows of counts, looking again only at pixels whose label may have changed.

P pixels, F features, R starts, K centers of each. Of each pixel a pass leaves its label and its gap: how
much farther the second nearest center is, at least. Centers move less from pass to pass; while they have
moved less than the gap the label stays, and nothing of the pixel needs to be read.

References
----------
G. Hamerly, SIAM Int. Conf. on Data Mining (2010) 130. https://doi.org/10.1137/1.9781611972801.12 (two bounds
a pixel; of these the difference is all that the test asks for).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.kmeans import LANES, ROW_TILE, pair_sums, pixel_products

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.kernels.rows import CountRows

__all__ = ["RowClusters", "farthest_pixels", "find_clusters", "follow_centers", "spread_clusters"]

SLACK = 2e-6
"""Share of the distances by which gaps are kept smaller: rounding must never make a label look safe."""


@dataclass(frozen=True, eq=False)
class RowClusters:
    """Clusters of a block's pixels in each of R starts; `follow_centers` changes it in place.

    Attributes
    ----------
    centers : ndarray of float64, shape (R, K, F)
        Those that everything here belongs to.
    sums : ndarray of float64, shape (R, K, F)
        Counts of each cluster: whole numbers, so that it does not matter in which order they were added.
    won : ndarray of float64, shape (R, K)
        Pixels of each cluster.
    labels : ndarray of unsigned int, shape (R, P)
        Nearest center of each pixel; the lower number wins a tie.
    gaps : ndarray of float32, shape (R, P)
        A bound: the second nearest center is so much farther than the nearest, at least.
    squares : float
        Sum of the squares of all counts.
    """

    centers: NDArray[np.float64]
    sums: NDArray[np.float64]
    won: NDArray[np.float64]
    labels: NDArray[Any]
    gaps: NDArray[np.float32]
    squares: float

    @property
    def nbytes(self) -> int:
        """Bytes held, without the centers, which blocks share."""
        arrays = (self.sums, self.won, self.labels, self.gaps)
        return sum(array.nbytes for array in arrays)

    def inertia(self) -> NDArray[np.float64]:
        """Sum of squared distances to the nearest center in each start, shape (R,).

        sum |x|^2 - 2 sum_k c_k s_k + sum_k n_k |c_k|^2, with the sums s and pixels n of the clusters.
        """
        out = np.empty(len(self.centers))
        _inertia(self.centers, self.sums, self.won, self.squares, out)
        return out


def find_clusters(
    rows: CountRows, centers: NDArray[np.float64], distances: NDArray[np.float64] | None = None
) -> RowClusters:
    """Assign P pixels to the nearest of K centers in each of R starts, (R, K, F).

    Squared distances to the nearest ones are written to `distances`, shape (R, P), where that is given.
    """
    n_starts, n_clusters, n_features = centers.shape
    each = (n_starts, rows.n_pixels)
    sums, won = np.zeros((n_starts, n_clusters, n_features)), np.zeros((n_starts, n_clusters))
    labels = np.empty(each, dtype=np.min_scalar_type(max(n_clusters - 1, 0)))
    gaps = np.empty(each, dtype=np.float32)
    data = (rows.indptr, rows.channels, rows.counts)
    if distances is None:
        distances = np.empty((n_starts, 0))
    squares = _find(*data, centers, sums, won, labels, gaps, distances)
    return RowClusters(centers, sums, won, labels, gaps, squares)


def follow_centers(
    rows: CountRows,
    found: RowClusters,
    centers: NDArray[np.float64],
    starts: NDArray[np.int64],
) -> RowClusters:
    """What `find_clusters` would give for centers that have moved, from what it gave before.

    Parameters
    ----------
    rows : CountRows, shape (P, F)
    found : RowClusters
        Of the same pixels. Its arrays are changed in place and are those of the answer.
    centers : ndarray, shape (R, K, F)
    starts : ndarray of int
        Starts whose centers have moved; of all others they are as they were.
    """
    data = (rows.indptr, rows.channels, rows.counts)
    _follow(*data, found.centers, centers, starts, found.sums, found.won, found.labels, found.gaps)
    return RowClusters(centers, found.sums, found.won, found.labels, found.gaps, found.squares)


def spread_clusters(
    rows: CountRows, found: RowClusters, centers: NDArray[np.float64]
) -> RowClusters:
    """What `find_clusters` would give for R starts, from the clusters of a single one.

    The start whose centers are closest to those goes on from there. The arrays of `found` are changed.
    """
    apart = np.square(centers - found.centers).sum(axis=(1, 2))
    own = int(apart.argmin())
    only = np.zeros(1, dtype=np.int64)
    first = follow_centers(rows, found, centers[own : own + 1], only)
    rest = find_clusters(rows, np.delete(centers, own, axis=0))

    def both(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return np.insert(b, own, a[0], axis=0)

    return RowClusters(
        centers,
        both(first.sums, rest.sums),
        both(first.won, rest.won),
        both(first.labels, rest.labels),
        both(first.gaps, rest.gaps),
        found.squares,
    )


def farthest_pixels(
    labels: NDArray[Any], distances: NDArray[np.float64], n_clusters: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Largest squared distance of each of K clusters, -1 where it is empty, and the pixel of that."""
    far, pixels = np.full(n_clusters, -1.0), np.zeros(n_clusters, dtype=np.int64)
    _farthest(labels, distances, far, pixels)
    return far, pixels


# Unsigned indices below: signed ones that may be negative cost a test at each access, half of the time.


@jit
def _table(centers):
    """Centers (K, F) as (groups, F, LANES), zeros at the end, and half their squares."""
    n_clusters, n_features = centers.shape
    table = np.zeros((-(-n_clusters // LANES), n_features, LANES))
    halves = np.zeros(n_clusters)
    for k in range(n_clusters):
        g, lane = k // LANES, k % LANES
        square = 0.0
        for f in range(n_features):
            table[g, f, lane] = centers[k, f]
            square += centers[k, f] * centers[k, f]
        halves[k] = 0.5 * square
    return table, halves


@jit
def _inertia(centers, sums, won, squares, out):
    n_starts, n_clusters, n_features = centers.shape
    for r in range(n_starts):
        total = squares
        for k in range(n_clusters):
            across = 0.0
            square = 0.0
            for f in range(n_features):
                across += centers[r, k, f] * sums[r, k, f]
                square += centers[r, k, f] * centers[r, k, f]
            total += won[r, k] * square - 2.0 * across
        out[r] = max(total, 0.0)


@jit
def _nearest(products, halves):
    """Number of the nearest center, its score and that of the second nearest: |c|^2 / 2 - x c."""
    nearest = 0
    best = np.inf
    second = np.inf
    for k in range(halves.size):
        score = halves[k] - products[k]
        if score < best:
            second = best
            best = score
            nearest = k
        elif score < second:
            second = score
    return nearest, best, second


@jit
def _gap(square, best, second):
    if second == np.inf:
        return np.float32(np.inf)
    near = np.sqrt(max(square + 2.0 * best, 0.0))
    far = np.sqrt(max(square + 2.0 * second, 0.0))
    return np.float32(far - near - SLACK * (np.sqrt(square) + far))


@jit
def _farthest(labels, distances, far, pixels):
    for p in range(labels.size):
        if distances[p] > far[labels[p]]:
            far[labels[p]] = distances[p]
            pixels[labels[p]] = p


@jit
def _find(indptr, channels, counts, centers, sums, won, labels, gaps, distances):
    n_pixels = indptr.size - 1
    n_starts, n_clusters, n_features = centers.shape
    n_groups = -(-n_clusters // LANES)
    tables = np.empty((n_starts, n_groups, n_features, LANES))
    halves = np.empty((n_starts, n_clusters))
    for r in range(n_starts):
        tables[r], halves[r] = _table(centers[r])
    products = np.empty((n_starts, ROW_TILE, LANES * n_groups))
    squares = np.empty(ROW_TILE)
    total = 0.0
    for start in range(0, n_pixels, ROW_TILE):
        stop = min(start + ROW_TILE, n_pixels)
        for p in range(start, stop):
            first, last = np.uint64(indptr[p]), np.uint64(indptr[p + 1])
            _, squares[p - start] = pair_sums(counts, first, last)
            total += squares[p - start]
            for r in range(n_starts):
                pixel_products(channels, counts, first, last, tables[r], products[r, p - start])
        for r in range(n_starts):
            for p in range(start, stop):
                nearest, best, second = _nearest(products[r, p - start], halves[r])
                labels[r, p] = nearest
                gaps[r, p] = _gap(squares[p - start], best, second)
                if distances.shape[1]:
                    distances[r, p] = max(squares[p - start] + 2.0 * best, 0.0)
                won[r, nearest] += 1.0
                row = sums[r, nearest]
                for i in range(np.uint64(indptr[p]), np.uint64(indptr[p + 1])):
                    row[channels[i]] += np.float64(counts[i])
    return total


@jit
def _follow(indptr, channels, counts, before, centers, starts, sums, won, labels, gaps):
    n_clusters, n_features = centers.shape[1:]
    products = np.empty(LANES * -(-n_clusters // LANES))
    moved = np.empty(n_clusters)
    towards = np.empty(n_clusters)
    for s in range(starts.size):
        r = starts[s]
        table, halves = _table(centers[r])
        for k in range(n_clusters):
            square = 0.0
            for f in range(n_features):
                step = centers[r, k, f] - before[r, k, f]
                square += step * step
            moved[k] = np.sqrt(square)
        # How much nearer any other center may have come, and how much farther the own one may be.
        for k in range(n_clusters):
            most = 0.0
            for other in range(n_clusters):
                if other != k:
                    most = max(most, moved[other])
            towards[k] = most + moved[k]
        for p in range(indptr.size - 1):
            was = np.int64(labels[r, p])
            left = (np.float64(gaps[r, p]) - towards[was]) * (1.0 - SLACK)
            if left > 0.0:
                gaps[r, p] = left
                continue
            first, last = np.uint64(indptr[p]), np.uint64(indptr[p + 1])
            pixel_products(channels, counts, first, last, table, products)
            nearest, best, second = _nearest(products, halves)
            _, square = pair_sums(counts, first, last)
            gaps[r, p] = _gap(square, best, second)
            if nearest == was:
                continue
            labels[r, p] = nearest
            won[r, was] -= 1.0
            won[r, nearest] += 1.0
            old, new = sums[r, was], sums[r, nearest]
            for i in range(first, last):
                count = np.float64(counts[i])
                old[channels[i]] -= count
                new[channels[i]] += count
