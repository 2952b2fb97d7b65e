"""k-means over one block: nearest centers, sums, and weighted samples for the start.

P pixels, E channels, F features, R starts, K centers of each start. All sums are float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emcube.kernels._numba import jit
from emcube.kernels.poisson_nmf import FAST
from emcube.kernels.rows import CountRows

__all__ = [
    "Assignment",
    "Cells",
    "LloydSums",
    "assign",
    "assign_columns",
    "assign_profiles",
    "label_sums",
    "lloyd_sums",
    "moments",
    "nearest_distance",
    "profile_columns",
    "sample_keys",
    "square_distances",
    "stack",
    "stored",
    "take",
    "take_dense",
]

Cells = CountRows | NDArray[Any]

DIRECT_FEATURES = 32
"""Up to this many features the distances are summed directly, beyond it by a matrix product."""

TILE_CELLS = 1 << 18
"""Dense pixels are turned into float64 this many cells at a time, which stay in the cache."""

LANES = 4
"""Centers whose products with a pixel are summed side by side: the doubles of one AVX2 register."""

SAME = 1e-9
"""Squared distances that differ by less than this share may come in another order elsewhere."""

ROW_TILE = 256
"""Compressed pixels whose products are summed before labels and sums are made of them."""


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
    costs : ndarray, shape (R, P)
        w d^2 of each pixel.
    labels : ndarray of int32, shape (R, P)
        Nearest center of each pixel; the lower number wins a tie.
    """

    sums: NDArray[np.float64]
    won: NDArray[np.float64]
    inertia: NDArray[np.float64]
    far_cost: NDArray[np.float64]
    far_pixel: NDArray[np.int64]
    costs: NDArray[np.float64]
    labels: NDArray[np.int32]

    @classmethod
    def zeros(cls, n_starts: int, n_clusters: int, n_features: int, n_pixels: int) -> LloydSums:
        """Nothing summed yet."""
        each = (n_starts, n_clusters)
        return cls(
            np.zeros((*each, n_features)),
            np.zeros(each),
            np.zeros(n_starts),
            np.full(each, -1.0),
            np.zeros(each, dtype=np.int64),
            np.zeros((n_starts, n_pixels)),
            np.zeros((n_starts, n_pixels), dtype=np.int32),
        )


def lloyd_sums(
    cells: Cells, weights: NDArray[np.float64], centers: NDArray[np.float64]
) -> LloydSums:
    """Assign P pixels to the nearest of K centers in each of R starts, (R, K, F), and sum them.

    Pixels are read once for all starts; compressed ones and those of few features without any matrix
    of distances in between.
    """
    n_starts, n_clusters, n_features = centers.shape
    out = LloydSums.zeros(n_starts, n_clusters, n_features, cells.shape[0])
    flat = np.ascontiguousarray(centers.reshape(-1, n_features), dtype=np.float64)
    if isinstance(cells, CountRows):
        table, halves = _lanes(flat), _halves(flat)
        _row_lloyd(cells.indptr, cells.channels, cells.counts, weights, table, halves, *out)
        return out
    if n_features <= DIRECT_FEATURES:
        _direct_lloyd(_floats(cells), weights, _lanes(flat), *out)
        return out
    for start, values in _tiles(cells):
        distances = square_distances(values, flat).reshape(-1, n_starts, n_clusters)
        _reduce_distances(distances, weights, start, *out[1:])
        for r in range(n_starts):
            labels = out.labels[r, start : start + len(values)]
            _dense_label_sums(values, labels, weights[start : start + len(values)], out.sums[r])
    return out


def square_distances(cells: Cells, centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared Euclidean distances of P pixels to K centers (K, F); shape (P, K), never negative."""
    if isinstance(cells, CountRows):
        squares = _row_squares(cells.indptr, cells.counts)
        cross = cells.matmul(np.ascontiguousarray(centers.T))
    else:
        values = _floats(cells)
        if values.shape[1] <= DIRECT_FEATURES:
            return _direct_distances(values, np.ascontiguousarray(centers))
        squares = np.einsum("pf,pf->p", values, values)
        cross = values @ centers.T
    out = squares[:, None] - 2.0 * cross + np.einsum("kf,kf->k", centers, centers)
    return np.maximum(out, 0.0, out=out)


def assign(cells: Cells, centers: NDArray[np.float64]) -> Assignment:
    """Nearest of K centers (K, F) for each pixel; the lower number wins a tie."""
    centers = np.ascontiguousarray(centers, dtype=np.float64)
    labels = np.empty(cells.shape[0], dtype=np.int32)
    distances = np.empty(cells.shape[0])
    if isinstance(cells, CountRows):
        table, halves = _lanes(centers), _halves(centers)
        _row_nearest(cells.indptr, cells.channels, cells.counts, table, halves, labels, distances)
        return Assignment(labels, distances)
    for start, values in _tiles(cells):
        part = square_distances(values, centers)
        nearest = part.argmin(axis=1)
        labels[start : start + len(values)] = nearest
        distances[start : start + len(values)] = part[np.arange(nearest.size), nearest]
    return Assignment(labels, distances)


def profile_columns(cells: Cells, basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Profiles x / g times a basis (E, F), with the total g as the last column; shape (P, F + 1).

    A pixel without counts is all zeros.
    """
    if isinstance(cells, CountRows):
        out = np.zeros((cells.n_pixels, basis.shape[1] + 1))
        table = _lanes(np.ascontiguousarray(basis.T, dtype=np.float64))
        _row_profiles(cells.indptr, cells.channels, cells.counts, table, out)
        return out
    parts = [np.empty((0, basis.shape[1] + 1))]
    for _, values in _tiles(cells):
        totals = values.sum(axis=1)
        projected = values @ basis / np.where(totals > 0, totals, 1.0)[:, None]
        parts.append(np.column_stack([projected, totals]))
    return np.concatenate(parts)


def assign_profiles(
    cells: Cells, basis: NDArray[np.float64], centers: NDArray[np.float64]
) -> NDArray[np.int32]:
    """Nearest of K centers (K, F) for the profile x / g times a basis (E, F) of each pixel.

    -1 where a pixel has no counts. The products of a basis with the centers are taken beforehand:
    x B c / g instead of (x B / g) c.
    """
    reach = np.ascontiguousarray(centers @ basis.T)
    halves = _halves(centers)
    labels = np.empty(cells.shape[0], dtype=np.int32)
    if isinstance(cells, CountRows):
        table = _lanes(reach)
        _row_profile_labels(cells.indptr, cells.channels, cells.counts, table, halves, labels)
        return labels
    for start, values in _tiles(cells):
        totals = values.sum(axis=1)
        scores = np.outer(totals, halves[: len(reach)]) - values @ reach.T
        labels[start : start + len(values)] = np.where(totals > 0, scores.argmin(axis=1), -1)
    return labels


def assign_columns(
    columns: NDArray[np.float64], centers: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Nearest of K centers (K, F) for profiles that are known, as `profile_columns` gives them.

    Returns
    -------
    labels : ndarray of int32, shape (P,)
        -1 where a pixel has no counts.
    doubtful : ndarray of int64
        Pixels that two centers are equally near to, up to rounding: `assign_profiles` may say otherwise.
    """
    labels = np.empty(len(columns), dtype=np.int32)
    doubtful = np.zeros(len(columns), dtype=np.bool_)
    _column_labels(columns, np.ascontiguousarray(centers, dtype=np.float64), labels, doubtful)
    return labels, np.flatnonzero(doubtful)


def nearest_distance(cells: Cells, centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distance of each pixel to the nearest of K centers (K, F); shape (P,)."""
    return assign(cells, centers).distances


def label_sums(
    cells: Cells, labels: NDArray[np.int32], weights: NDArray[np.float64], n_clusters: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted sums (K, F) and weights (K,) of the pixels of each cluster; label -1 is in none."""
    sums = np.zeros((n_clusters, cells.shape[1]))
    if isinstance(cells, CountRows):
        _row_label_sums(cells.indptr, cells.channels, cells.counts, labels, weights, sums)
    else:
        for start, values in _tiles(cells):
            stop = start + len(values)
            _dense_label_sums(values, labels[start:stop], weights[start:stop], sums)
    inside = labels >= 0
    won = np.bincount(labels[inside], weights=weights[inside], minlength=n_clusters)
    return sums, won.astype(np.float64)


def moments(cells: Cells, weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Sum of weights (None: all are one), weighted squares, weighted sums of P pixels: shape (2 + F,)."""
    out = np.zeros(2 + cells.shape[1])
    out[0] = cells.shape[0] if weights is None else weights.sum()
    if isinstance(cells, CountRows) and weights is None:
        out[1], out[2:] = _square_sum(cells.counts), cells.channel_totals()
        return out
    if weights is None:
        weights = np.ones(cells.shape[0])
    if isinstance(cells, CountRows):
        out[1] = _row_moments(cells.indptr, cells.channels, cells.counts, weights, out[2:])
        return out
    for start, values in _tiles(cells):
        part = weights[start : start + len(values)]
        out[1] += part @ np.einsum("pf,pf->p", values, values)
        out[2:] += part @ values
    return out


def sample_keys(
    weights: NDArray[np.float64],
    rng: np.random.Generator,
    n_samples: int,
    floor: float = -np.inf,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw pixels with probability proportional to their weights, without replacement.

    Each pixel gets the key ``log(u) / w``; those with the largest keys are the sample, so that samples
    of blocks merge into a sample of the whole by keeping the largest keys (Efraimidis and Spirakis,
    Information Processing Letters 97 (2006) 181, doi:10.1016/j.ipl.2005.11.003). Only keys above
    `floor` are kept: a pixel of weight w reaches it with probability 1 - exp(w floor).

    Returns
    -------
    pixels : ndarray of int, shape (at most n_samples,)
    keys : ndarray of float, of the same shape, descending
    """
    u = rng.random(weights.size)
    alive = np.flatnonzero(weights > 0)
    keys = np.log(np.maximum(u[alive], np.finfo(float).tiny)) / weights[alive]
    if floor > -np.inf:
        above = np.flatnonzero(keys > floor)
        alive, keys = alive[above], keys[above]
    if keys.size > n_samples:
        # Keys are different numbers but for rounding: the best few need no sorting of all.
        best = np.sort(np.argpartition(-keys, n_samples - 1)[:n_samples])
        alive, keys = alive[best], keys[best]
    order = np.argsort(-keys, kind="stable")
    return alive[order], keys[order]


def take(cells: Cells, pixels: NDArray[np.int64]) -> Cells:
    """Some pixels, in the order given."""
    return cells.take(pixels) if isinstance(cells, CountRows) else cells[pixels]


def take_dense(cells: Cells, pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Some pixels as dense float64 rows, shape (n, F)."""
    if isinstance(cells, CountRows):
        return cells.take(pixels).to_dense()
    return np.asarray(cells[pixels], dtype=np.float64)


def stack(parts: Sequence[Cells]) -> Cells:
    """Pixels of some blocks one below the other: rows where all are rows, dense otherwise."""
    rows = [part for part in parts if isinstance(part, CountRows)]
    if len(rows) < len(parts):
        return np.concatenate([p.to_dense() if isinstance(p, CountRows) else p for p in parts])
    starts = np.cumsum([0, *(part.nnz for part in rows)])
    indptr = [start + part.indptr[:-1] for start, part in zip(starts, rows, strict=False)]
    return CountRows(
        np.concatenate([*indptr, starts[-1:]]),
        np.concatenate([part.channels for part in rows]),
        np.concatenate([part.counts for part in rows]),
        rows[0].n_channels,
    )


def stored(cells: Cells) -> NDArray[np.int64]:
    """Numbers held for each pixel: stored pairs, or features; shape (P,)."""
    if isinstance(cells, CountRows):
        return np.diff(cells.indptr)
    return np.full(cells.shape[0], cells.shape[1], dtype=np.int64)


def _floats(cells: NDArray[Any]) -> NDArray[np.float64]:
    """Dense pixels as float64, without a copy where they are."""
    return np.asarray(cells, dtype=np.float64)


def _tiles(cells: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(start, contiguous float64 pixels) of a dense block, a few at a time."""
    step = max(1, TILE_CELLS // max(1, cells.shape[1]))
    for start in range(0, cells.shape[0], step):
        yield start, np.ascontiguousarray(cells[start : start + step], dtype=np.float64)


def _lanes(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """K vectors (K, F) in groups of `LANES` side by side, zeros at the end; (groups, F, LANES)."""
    n_groups = -(-len(vectors) // LANES)
    table = np.zeros((n_groups * LANES, vectors.shape[1]))
    table[: len(vectors)] = vectors
    return np.ascontiguousarray(table.reshape(n_groups, LANES, -1).transpose(0, 2, 1))


def _halves(centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """|c|^2 / 2 of K centers."""
    return 0.5 * np.einsum("kf,kf->k", centers, centers)


# Unsigned indices below: signed ones that may be negative cost a test at each access, half of the time.


@jit
def _row_squares(indptr, counts):
    out = np.zeros(indptr.size - 1, dtype=np.float64)
    for p in range(out.size):
        total = 0.0
        for i in range(np.uint64(indptr[p]), np.uint64(indptr[p + 1])):
            count = np.float64(counts[i])
            total += count * count
        out[p] = total
    return out


@jit(**FAST)
def _square_sum(counts):
    total = 0.0
    for i in range(counts.size):
        count = np.float64(counts[i])
        total += count * count
    return total


@jit
def _row_moments(indptr, channels, counts, weights, sums):
    """Add weighted sums of the pixels; returns the weighted sum of their squares."""
    squares = 0.0
    for p in range(indptr.size - 1):
        w = weights[p]
        square = 0.0
        for i in range(np.uint64(indptr[p]), np.uint64(indptr[p + 1])):
            count = np.float64(counts[i])
            square += count * count
            sums[channels[i]] += w * count
        squares += w * square
    return squares


@jit(**FAST)
def pixel_products(channels, counts, first, last, table, products):
    """Products of one pixel of rows, pairs `first` to `last`, with the vectors of a table (see `_lanes`)."""
    for g in range(table.shape[0]):
        part = table[g]
        a = 0.0
        b = 0.0
        c = 0.0
        d = 0.0
        for i in range(first, last):
            e = channels[i]
            count = np.float64(counts[i])
            a += count * part[e, 0]
            b += count * part[e, 1]
            c += count * part[e, 2]
            d += count * part[e, 3]
        products[4 * g] = a
        products[4 * g + 1] = b
        products[4 * g + 2] = c
        products[4 * g + 3] = d


@jit(**FAST)
def pair_sums(counts, first, last):
    """Sum of the counts of one pixel of rows, and of their squares."""
    total = 0.0
    square = 0.0
    for i in range(first, last):
        count = np.float64(counts[i])
        total += count
        square += count * count
    return total, square


@jit
def _row_products(indptr, channels, counts, start, stop, table, products, totals, squares):
    """Products of a tile of pixels with the vectors of a table, their sums and sums of squares."""
    for p in range(start, stop):
        first, last = np.uint64(indptr[p]), np.uint64(indptr[p + 1])
        totals[p - start], squares[p - start] = pair_sums(counts, first, last)
        pixel_products(channels, counts, first, last, table, products[p - start])


@jit
def _row_lloyd(
    indptr,
    channels,
    counts,
    weights,
    table,
    halves,
    sums,
    won,
    inertia,
    far_cost,
    far_pixel,
    costs,
    labels,
):
    n_pixels = indptr.size - 1
    n_starts, n_clusters, _ = sums.shape
    products = np.empty((ROW_TILE, 4 * table.shape[0]))
    totals, squares = np.empty(ROW_TILE), np.empty(ROW_TILE)
    for start in range(0, n_pixels, ROW_TILE):
        stop = min(start + ROW_TILE, n_pixels)
        _row_products(indptr, channels, counts, start, stop, table, products, totals, squares)
        for r in range(n_starts):
            first_center = r * n_clusters
            for p in range(start, stop):
                nearest = 0
                best = np.inf
                for k in range(n_clusters):
                    score = halves[first_center + k] - products[p - start, first_center + k]
                    if score < best:
                        best = score
                        nearest = k
                w = weights[p]
                cost = w * max(squares[p - start] + 2.0 * best, 0.0)
                costs[r, p] = cost
                labels[r, p] = nearest
                won[r, nearest] += w
                inertia[r] += cost
                row = sums[r, nearest]
                for i in range(np.uint64(indptr[p]), np.uint64(indptr[p + 1])):
                    row[channels[i]] += w * np.float64(counts[i])
                if cost > far_cost[r, nearest]:
                    far_cost[r, nearest] = cost
                    far_pixel[r, nearest] = p


@jit
def _row_nearest(indptr, channels, counts, table, halves, labels, distances):
    n_pixels = indptr.size - 1
    products = np.empty((ROW_TILE, 4 * table.shape[0]))
    totals, squares = np.empty(ROW_TILE), np.empty(ROW_TILE)
    for start in range(0, n_pixels, ROW_TILE):
        stop = min(start + ROW_TILE, n_pixels)
        _row_products(indptr, channels, counts, start, stop, table, products, totals, squares)
        for p in range(start, stop):
            nearest = 0
            best = np.inf
            for k in range(halves.size):
                score = halves[k] - products[p - start, k]
                if score < best:
                    best = score
                    nearest = k
            labels[p] = nearest
            distances[p] = max(squares[p - start] + 2.0 * best, 0.0)


@jit
def _row_profile_labels(indptr, channels, counts, table, halves, labels):
    n_pixels = indptr.size - 1
    products = np.empty((ROW_TILE, 4 * table.shape[0]))
    totals, squares = np.empty(ROW_TILE), np.empty(ROW_TILE)
    for start in range(0, n_pixels, ROW_TILE):
        stop = min(start + ROW_TILE, n_pixels)
        _row_products(indptr, channels, counts, start, stop, table, products, totals, squares)
        for p in range(start, stop):
            nearest = 0
            best = np.inf
            for k in range(halves.size):
                score = totals[p - start] * halves[k] - products[p - start, k]
                if score < best:
                    best = score
                    nearest = k
            labels[p] = nearest if totals[p - start] > 0.0 else -1


@jit
def _column_labels(columns, centers, labels, doubtful):
    n_centers, n_features = centers.shape
    for p in range(columns.shape[0]):
        if columns[p, n_features] <= 0.0:
            labels[p] = -1
            continue
        nearest = 0
        best = np.inf
        second = np.inf
        size = 0.0
        for k in range(n_centers):
            distance = 0.0
            for f in range(n_features):
                difference = columns[p, f] - centers[k, f]
                distance += difference * difference
                size = max(size, columns[p, f] * columns[p, f], centers[k, f] * centers[k, f])
            if distance < best:
                second = best
                best = distance
                nearest = k
            elif distance < second:
                second = distance
        labels[p] = nearest
        doubtful[p] = second - best <= SAME * (size + second)


@jit
def _row_profiles(indptr, channels, counts, table, out):
    n_pixels = indptr.size - 1
    n_features = out.shape[1] - 1
    products = np.empty((ROW_TILE, 4 * table.shape[0]))
    totals, squares = np.empty(ROW_TILE), np.empty(ROW_TILE)
    for start in range(0, n_pixels, ROW_TILE):
        stop = min(start + ROW_TILE, n_pixels)
        _row_products(indptr, channels, counts, start, stop, table, products, totals, squares)
        for p in range(start, stop):
            total = totals[p - start]
            if total > 0.0:
                for f in range(n_features):
                    out[p, f] = products[p - start, f] / total
            out[p, n_features] = total


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
def _direct_lloyd(values, weights, table, sums, won, inertia, far_cost, far_pixel, costs, labels):
    n_starts, n_clusters, n_features = sums.shape
    distances = np.empty(4 * table.shape[0])
    for p in range(values.shape[0]):
        w = weights[p]
        for g in range(table.shape[0]):
            part = table[g]
            a = b = c = d = 0.0
            for f in range(n_features):
                value = values[p, f]
                to_a = value - part[f, 0]
                to_b = value - part[f, 1]
                to_c = value - part[f, 2]
                to_d = value - part[f, 3]
                a += to_a * to_a
                b += to_b * to_b
                c += to_c * to_c
                d += to_d * to_d
            distances[4 * g] = a
            distances[4 * g + 1] = b
            distances[4 * g + 2] = c
            distances[4 * g + 3] = d
        for r in range(n_starts):
            best = np.inf
            nearest = 0
            for k in range(n_clusters):
                if distances[r * n_clusters + k] < best:
                    best = distances[r * n_clusters + k]
                    nearest = k
            cost = w * best
            costs[r, p] = cost
            labels[r, p] = nearest
            won[r, nearest] += w
            inertia[r] += cost
            for f in range(n_features):
                sums[r, nearest, f] += w * values[p, f]
            if cost > far_cost[r, nearest]:
                far_cost[r, nearest] = cost
                far_pixel[r, nearest] = p


@jit
def _reduce_distances(distances, weights, start, won, inertia, far_cost, far_pixel, costs, labels):
    """Nearest centers of a tile of pixels that begins at pixel `start` of the block."""
    n_pixels, n_starts, n_clusters = distances.shape
    for i in range(n_pixels):
        p = start + i
        for r in range(n_starts):
            nearest = 0
            for k in range(1, n_clusters):
                if distances[i, r, k] < distances[i, r, nearest]:
                    nearest = k
            cost = weights[p] * distances[i, r, nearest]
            costs[r, p] = cost
            labels[r, p] = nearest
            won[r, nearest] += weights[p]
            inertia[r] += cost
            if cost > far_cost[r, nearest]:
                far_cost[r, nearest] = cost
                far_pixel[r, nearest] = p


@jit
def _row_label_sums(indptr, channels, counts, labels, weights, out):
    for p in range(indptr.size - 1):
        k = labels[p]
        if k < 0:
            continue
        w = weights[p]
        row = out[k]
        for i in range(np.uint64(indptr[p]), np.uint64(indptr[p + 1])):
            row[channels[i]] += w * np.float64(counts[i])


@jit
def _dense_label_sums(values, labels, weights, out):
    n_pixels, n_features = values.shape
    for p in range(n_pixels):
        k = labels[p]
        if k < 0:
            continue
        w = weights[p]
        for f in range(n_features):
            out[k, f] += w * values[p, f]
