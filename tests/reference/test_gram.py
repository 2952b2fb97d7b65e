"""Gram kernels against the sum of outer products written out."""

from __future__ import annotations

import numpy as np
import pytest

from emcube.errors import InputError
from emcube.kernels import gram
from emcube.kernels._blas import add_outer_products
from emcube.kernels.rows import rows_from_dense


def naive_gram(values, weights, shift):
    total = np.zeros((values.shape[1], values.shape[1]))
    for x, w in zip(values.astype(float), weights, strict=True):
        total += w * np.outer(x - shift, x - shift)
    return total


@pytest.mark.parametrize("density", [0.0, 0.03, 0.5])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_weighted_gram(density, sparse, weighted):
    rng = np.random.default_rng(1)
    values = rng.poisson(density, (70, 33)).astype(np.uint16)
    weights = rng.random(70) if weighted else None
    block = rows_from_dense(values) if sparse else values
    got = gram.add_symmetric(gram.weighted_gram(block, weights))
    expected = naive_gram(values, np.ones(70) if weights is None else weights, 0.0)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_both_roads_agree_across_tiles(monkeypatch):
    monkeypatch.setattr(gram, "TILE_PAIRS", 100)
    monkeypatch.setattr(gram, "DENSE_TILE_BYTES", 8 * 40 * 7)
    rng = np.random.default_rng(2)
    rows = rows_from_dense(rng.poisson(0.05, (900, 40)).astype(np.uint8))
    weights = rng.random(900)
    assert rows.density <= gram.SCATTER_DENSITY
    scattered = np.triu(gram.weighted_gram(rows, weights))
    dense = np.triu(gram.weighted_gram(rows.to_dense(np.uint8), weights))
    np.testing.assert_allclose(scattered, dense, rtol=1e-12, atol=1e-13)


def test_shift_and_out_are_added_up():
    rng = np.random.default_rng(3)
    values = rng.normal(1e6, 1.0, (50, 6))
    shift = values.mean(axis=0)
    out = np.zeros((6, 6))
    gram.weighted_gram(values[:20], None, shift, out=out)
    gram.weighted_gram(values[20:], None, shift, out=out)
    expected = naive_gram(values, np.ones(50), shift)
    np.testing.assert_allclose(gram.add_symmetric(out), expected, rtol=1e-9)


def test_empty_block():
    got = gram.weighted_gram(rows_from_dense(np.zeros((0, 5), np.uint8)))
    np.testing.assert_array_equal(got, np.zeros((5, 5)))


def test_wrong_lengths_are_refused():
    values = np.ones((4, 3))
    with pytest.raises(InputError, match="one per pixel"):
        gram.weighted_gram(values, np.ones(3))
    with pytest.raises(InputError, match="3 channels"):
        gram.weighted_gram(values, None, np.ones(4))


def test_no_counts_are_lost_in_float64():
    # 2^24 + 1 is the first whole number that float32 loses.
    values = np.ones((3, 2), np.uint32)
    got = gram.weighted_gram(rows_from_dense(values), np.full(3, 2.0**24 + 1))
    assert got[0, 1] == 3 * (2**24 + 1)


def mixed_counts(n_full, n_rare, n_pixels=700):
    """Full and rare channels, interleaved; some pixels are empty, one channel too."""
    rng = np.random.default_rng(4)
    density = np.concatenate((np.full(n_full, 0.8), np.full(n_rare, 0.02)))
    values = rng.poisson(rng.permutation(density), (n_pixels, density.size)).astype(np.uint16)
    values[rng.random(n_pixels) < 0.1] = 0
    values[:, 3] = 0
    return values


@pytest.mark.parametrize("full_and_rare", [(20, 60), (40, 5), (60, 0), (5, 70), (0, 300)])
@pytest.mark.parametrize("short_rows", [0, 10**6])
def test_full_and_rare_channels_are_parted(full_and_rare, short_rows, monkeypatch):
    monkeypatch.setattr(gram, "SHORT_ROWS", short_rows)
    monkeypatch.setattr(gram, "TILE_PAIRS", 100)
    values = mixed_counts(*full_and_rare)
    weights = np.random.default_rng(5).random(len(values))
    weights[::7] = 0
    out = np.zeros((values.shape[1],) * 2)
    for part in (slice(0, 300), slice(300, 700)):
        gram.weighted_gram(rows_from_dense(values[part]), weights[part], out=out)
    expected = naive_gram(values, weights, 0.0)
    np.testing.assert_allclose(gram.add_symmetric(out), expected, rtol=1e-12, atol=1e-12)


def test_wide_counts_and_channels():
    values = mixed_counts(20, 30).astype(np.uint32) * 70_000
    rows = rows_from_dense(values)
    assert rows.counts.dtype == np.uint32
    got = gram.add_symmetric(gram.weighted_gram(rows))
    np.testing.assert_allclose(got, naive_gram(values, np.ones(700), 0.0), rtol=1e-12)


def test_adding_outer_products_leaves_the_lower_triangle():
    rows = np.random.default_rng(6).normal(size=(9, 5))
    out = np.full((5, 5), 2.0)
    add_outer_products(rows, out)
    np.testing.assert_allclose(np.triu(out), np.triu(2.0 + rows.T @ rows), rtol=1e-13)
    assert (np.tril(out, -1) == np.tril(np.full((5, 5), 2.0), -1)).all()
    add_outer_products(rows[:0], out)
    with pytest.raises(ValueError, match="C order"):
        add_outer_products(rows.T, np.zeros((9, 9)))
    with pytest.raises(ValueError, match="C order"):
        add_outer_products(rows, np.zeros((4, 4)))
    with pytest.raises(ValueError, match="float64"):
        add_outer_products(rows.astype(np.float32), out)


def test_upper_triangles_are_added():
    a, b = np.random.default_rng(7).normal(size=(2, 6, 6))
    expected = np.triu(a + b) + np.tril(a, -1)
    assert gram.add_upper(a, b) is a
    np.testing.assert_array_equal(a, expected)


@pytest.mark.parametrize("kind", ["rows", "u2", "f4"])
def test_gram_about_the_mean(kind):
    values = mixed_counts(20, 60).astype("f4" if kind == "f4" else "u2")
    block = rows_from_dense(values) if kind == "rows" else values
    mean = values.mean(axis=0, dtype=float)
    got = gram.add_symmetric(gram.centred_gram(block, mean))
    np.testing.assert_allclose(got, naive_gram(values, np.ones(700), mean), rtol=1e-11, atol=1e-11)


def test_a_channel_that_hardly_varies_keeps_its_digits():
    values = mixed_counts(0, 60).astype(np.uint32)
    values[:, 7] = 10**8 + np.arange(700) % 2
    rows = rows_from_dense(values)
    assert rows.density < gram.SCATTER_DENSITY
    mean = values.mean(axis=0, dtype=float)
    got = gram.centred_gram(rows, mean)
    assert got[7, 7] == pytest.approx(175.0, rel=1e-12)
    assert gram.add_outer(np.eye(2), np.array([1.0, 2.0]), 3.0).tolist() == [[4, 6], [0, 13]]
