"""k-means kernels against slow, obvious twins."""

from __future__ import annotations

import numpy as np
import pytest

from emcube.kernels import kmeans as kernel
from emcube.kernels.rows import rows_from_dense


def naive_assignment(values, centers):
    labels, distances = [], []
    for x in values:
        d = [sum((a - b) ** 2 for a, b in zip(x, c, strict=True)) for c in centers]
        labels.append(int(np.argmin(d)))
        distances.append(min(d))
    return labels, distances


def naive_sums(values, labels, weights, k):
    sums, won = np.zeros((k, values.shape[1])), np.zeros(k)
    for x, label, w in zip(values, labels, weights, strict=True):
        sums[label] += w * x
        won[label] += w
    return sums, won


@pytest.mark.parametrize("n_features", [3, 40])
@pytest.mark.parametrize("sparse", [True, False])
def test_nearest_centers_and_sums(n_features, sparse):
    rng = np.random.default_rng(0)
    values = rng.poisson(0.5, (60, n_features)).astype(np.uint8)
    centers = rng.random((5, n_features)) * 2
    weights = rng.random(60)
    cells = rows_from_dense(values) if sparse else values.astype(np.float32)
    got = kernel.assign(cells, centers)
    labels, distances = naive_assignment(values.astype(float), centers)
    np.testing.assert_array_equal(got.labels, labels)
    np.testing.assert_allclose(got.distances, distances, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(kernel.nearest_distance(cells, centers), distances, atol=1e-9)
    sums, won = kernel.label_sums(cells, got.labels, weights, 5)
    expected_sums, expected_won = naive_sums(values.astype(float), labels, weights, 5)
    np.testing.assert_allclose(sums, expected_sums)
    np.testing.assert_allclose(won, expected_won)


def test_samples_are_drawn_with_probability_proportional_to_weight():
    weights = np.array([0.0, 1.0, 2.0, 5.0])
    rng = np.random.default_rng(1)
    first = [int(kernel.sample_keys(weights, rng, 1)[0][0]) for _ in range(8000)]
    share = np.bincount(first, minlength=4) / len(first)
    # Three standard errors of a binomial share at 8000 draws are at most 0.017.
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.017)
    pixels, keys = kernel.sample_keys(weights, rng, 10)
    assert sorted(pixels) == [1, 2, 3]
    assert (np.diff(keys) <= 0).all()


@pytest.mark.parametrize("n_features", [3, 40])
@pytest.mark.parametrize("sparse", [True, False])
def test_a_pass_of_several_starts(n_features, sparse):
    rng = np.random.default_rng(0)
    values = rng.poisson(0.5, (60, n_features)).astype(np.uint8)
    centers = rng.random((2, 4, n_features)) * 2
    centers[1, 3] = 1e3  # wins nothing
    weights = rng.random(60)
    cells = rows_from_dense(values) if sparse else values.astype(np.float32)
    got = kernel.lloyd_sums(cells, weights, centers)
    for r in range(2):
        labels, distances = naive_assignment(values.astype(float), centers[r])
        sums, won = naive_sums(values.astype(float), labels, weights, 4)
        np.testing.assert_allclose(got.sums[r], sums)
        np.testing.assert_allclose(got.won[r], won)
        cost = weights * np.array(distances)
        np.testing.assert_allclose(got.inertia[r], cost.sum())
        for k in range(4):
            of = np.flatnonzero(np.array(labels) == k)
            if not of.size:
                assert got.far_cost[r, k] == -1
                continue
            assert got.far_cost[r, k] == pytest.approx(cost[of].max())
            assert cost[got.far_pixel[r, k]] == pytest.approx(cost[of].max())
    assert got.won[1, 3] == 0


def blocks_of(sparse, dtype=np.uint8, n_features=40):
    values = np.random.default_rng(2).poisson(0.5, (700, n_features)).astype(dtype)
    values[[3, 400]] = 0
    return values.astype(float), rows_from_dense(values) if sparse else values


@pytest.mark.parametrize("n_features", [3, 40])
@pytest.mark.parametrize("sparse", [True, False])
def test_moments(n_features, sparse):
    values, cells = blocks_of(sparse, n_features=n_features)
    weights = np.random.default_rng(0).random(700)
    got = kernel.moments(cells, weights)
    squares = sum(w * float(x @ x) for w, x in zip(weights, values, strict=True))
    sums = sum(w * x for w, x in zip(weights, values, strict=True))
    np.testing.assert_allclose(got, [weights.sum(), squares, *sums])
    even = kernel.moments(cells, None)
    np.testing.assert_allclose(even, [700, np.square(values).sum(), *values.sum(axis=0)])


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("n_dims", [1, 6])
def test_profiles_their_totals_and_their_labels(sparse, n_dims):
    values, cells = blocks_of(sparse)
    rng = np.random.default_rng(5)
    basis, centers = rng.standard_normal((40, n_dims)), rng.standard_normal((5, n_dims)) * 0.1
    got = kernel.profile_columns(cells, basis)
    labels = kernel.assign_profiles(cells, basis, centers)
    assert labels.dtype == np.int32
    for x, columns, label in zip(values, got, labels, strict=True):
        total = x.sum()
        assert columns[-1] == total
        if total == 0:
            assert label == -1
            assert not columns.any()
            continue
        profile = (x / total) @ basis
        np.testing.assert_allclose(columns[:-1], profile, atol=1e-12)
        assert label == np.argmin([np.square(profile - c).sum() for c in centers])


@pytest.mark.parametrize("sparse", [True, False])
def test_pixels_of_no_cluster_are_in_no_sum(sparse):
    values, cells = blocks_of(sparse)
    labels = np.random.default_rng(0).integers(-1, 3, 700).astype(np.int32)
    weights = np.random.default_rng(1).random(700)
    sums, won = kernel.label_sums(cells, labels, weights, 3)
    for k in range(3):
        np.testing.assert_allclose(sums[k], weights[labels == k] @ values[labels == k])
        np.testing.assert_allclose(won[k], weights[labels == k].sum())


@pytest.mark.parametrize("n_features", [3, 40])
@pytest.mark.parametrize("sparse", [True, False])
def test_costs_and_labels_of_each_pixel(n_features, sparse):
    values, cells = blocks_of(sparse, n_features=n_features)
    rng = np.random.default_rng(0)
    centers, weights = rng.random((3, 5, n_features)) * 2, rng.random(700)
    got = kernel.lloyd_sums(cells, weights, centers)
    for r in range(3):
        labels, distances = naive_assignment(values, centers[r])
        np.testing.assert_array_equal(got.labels[r], labels)
        np.testing.assert_allclose(got.costs[r], weights * np.array(distances), atol=1e-9)


def test_blocks_one_below_the_other():
    values, rows = blocks_of(True)
    more, dense = blocks_of(False)
    three = kernel.stack([rows, rows, rows])
    np.testing.assert_array_equal(three.to_dense(), np.concatenate([values] * 3))
    np.testing.assert_array_equal(kernel.stack([rows, dense]), np.concatenate([values, more]))
    np.testing.assert_array_equal(kernel.stored(rows), (values > 0).sum(axis=1))
    np.testing.assert_array_equal(kernel.stored(dense), np.full(700, 40))


def test_a_floor_leaves_out_keys_below_and_nothing_else():
    weights = np.random.default_rng(0).gamma(1.0, size=500)
    whole, keys = kernel.sample_keys(weights, np.random.default_rng(4), 500)
    some, above = kernel.sample_keys(weights, np.random.default_rng(4), 500, floor=-0.2)
    np.testing.assert_array_equal(some, whole[keys > -0.2])
    np.testing.assert_array_equal(above, keys[keys > -0.2])
    assert 20 < some.size < 200
