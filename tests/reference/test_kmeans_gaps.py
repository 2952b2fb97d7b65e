"""Labels that are followed from pass to pass against labels that are found anew, and slow twins."""

from __future__ import annotations

import numpy as np
import pytest

from emcube.kernels.kmeans_gaps import (
    farthest_pixels,
    find_clusters,
    follow_centers,
    spread_clusters,
)
from emcube.kernels.rows import rows_from_dense


def scene(n_pixels=700, n_features=40, seed=0):
    """Counts of three kinds of pixels, some empty, some equal."""
    rng = np.random.default_rng(seed)
    means = rng.gamma(1.0, 1.0, (3, n_features))
    values = rng.poisson(means[rng.integers(0, 3, n_pixels)]).astype(np.uint16)
    values[[3, 400]] = 0
    values[10:20] = values[9]
    return values


def distances_to(values, centers):
    return np.sqrt(np.square(values[:, None].astype(float) - centers).sum(axis=2))


def require_same(got, expected):
    np.testing.assert_array_equal(got.labels, expected.labels)
    np.testing.assert_array_equal(got.sums, expected.sums)
    np.testing.assert_array_equal(got.won, expected.won)
    np.testing.assert_array_equal(got.inertia(), expected.inertia())
    np.testing.assert_array_equal(got.centers, expected.centers)


def require_bounds(found, values):
    """No gap is larger than it is."""
    for centers, labels, gaps in zip(found.centers, found.labels, found.gaps, strict=True):
        every = distances_to(values, centers)
        own = every[np.arange(len(values)), labels]
        every[np.arange(len(values)), labels] = np.inf
        assert (gaps <= every.min(axis=1, initial=np.inf) - own).all()


@pytest.mark.parametrize("n_clusters", [1, 2, 5])
def test_clusters_of_several_starts(n_clusters):
    values = scene()
    centers = np.random.default_rng(1).random((3, n_clusters, 40)) * 2
    distances = np.empty((3, 700))
    found = find_clusters(rows_from_dense(values), centers, distances)
    for r in range(3):
        every = distances_to(values, centers[r])
        np.testing.assert_array_equal(found.labels[r], every.argmin(axis=1))
        np.testing.assert_allclose(distances[r], every.min(axis=1) ** 2, rtol=1e-12)
        assert found.inertia()[r] == pytest.approx((every.min(axis=1) ** 2).sum(), rel=1e-12)
        for k in range(n_clusters):
            mine = found.labels[r] == k
            np.testing.assert_array_equal(found.sums[r, k], values[mine].sum(axis=0))
            assert found.won[r, k] == mine.sum()
    require_bounds(found, values)
    assert found.squares == np.square(values.astype(float)).sum()


@pytest.mark.parametrize("n_clusters", [1, 2, 5, 300])
def test_followed_labels_are_those_found_anew(n_clusters):
    """Through moves of all sizes, and of one center only."""
    values = scene()
    rows, rng = rows_from_dense(values), np.random.default_rng(2)
    centers = rng.random((2, n_clusters, 40)) * 2
    found, kept = find_clusters(rows, centers), 0
    for size in (1e-9, 1e-3, 0.03, 0.3, 3.0, 1e-6, 0.01, 0.01, 0.01):
        step = size * rng.standard_normal(centers.shape)
        if size == 0.3:
            step[:, 1:] = 0.0
        centers = centers + step
        found = follow_centers(rows, found, centers, np.arange(2))
        anew = find_clusters(rows, centers)
        require_same(found, anew)
        require_bounds(found, values)
        kept += int((found.gaps < anew.gaps).sum())
    # Those that were not looked at again know less of their gap. One center has no other beside it.
    assert kept > 0 or n_clusters == 1


def test_starts_that_have_settled_are_left_alone():
    values = scene()
    rows, rng = rows_from_dense(values), np.random.default_rng(3)
    centers = rng.random((3, 4, 40)) * 2
    found = find_clusters(rows, centers)
    gaps = found.gaps.copy()
    moved = centers.copy()
    moved[1] += 0.1 * rng.standard_normal((4, 40))
    got = follow_centers(rows, found, moved, np.array([1]))
    require_same(got, find_clusters(rows, moved))
    np.testing.assert_array_equal(got.gaps[[0, 2]], gaps[[0, 2]])


def test_of_centers_that_are_equally_near_the_lower_number_wins_in_any_pass():
    values = scene()
    rows = rows_from_dense(values)
    twins = np.repeat(np.random.default_rng(4).random((1, 1, 40)), 3, axis=1)
    found = find_clusters(rows, twins)
    assert not found.labels.any()
    assert (found.gaps <= 0.0).all()
    moved = twins + 0.0
    moved[:, 0] += 100.0
    back = follow_centers(
        rows, follow_centers(rows, found, moved, np.arange(1)), twins, np.arange(1)
    )
    require_same(back, find_clusters(rows, twins))


@pytest.mark.parametrize("own", [0, 2])
def test_several_starts_go_on_from_the_clusters_of_one(own):
    values = scene()
    rows, rng = rows_from_dense(values), np.random.default_rng(5)
    centers = rng.random((3, 4, 40)) * 2
    found = find_clusters(rows, centers[own : own + 1] + 0.01)
    require_same(spread_clusters(rows, found, centers), find_clusters(rows, centers))


def test_farthest_pixel_of_each_cluster():
    far, pixels = farthest_pixels(np.array([0, 2, 0, 2]), np.array([1.0, 5.0, 3.0, 4.0]), 3)
    np.testing.assert_array_equal(far, [3, -1, 5])
    np.testing.assert_array_equal(pixels[[0, 2]], [2, 1])


def test_a_block_without_pixels():
    rows = rows_from_dense(np.zeros((0, 5), dtype=np.uint8))
    found = find_clusters(rows, np.ones((2, 3, 5)))
    assert found.labels.shape == (2, 0)
    np.testing.assert_array_equal(found.inertia(), [0, 0])
