"""Event-by-event drawing: Poisson to the statistics, the same bits in any order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from emcube.errors import InputError
from emcube.kernels.sampling import alias_tables, hash_uniform, sample_counts


def _mixture(n_pixels: int = 4000):
    rng = np.random.default_rng(3)
    components = rng.gamma(0.7, size=(3, 40))
    components /= components.sum(axis=1, keepdims=True)
    components[0, 5] = 0.0
    loadings = np.tile([[6.0, 0.0, 30.0]], (n_pixels, 1))
    return loadings, components


def test_alias_tables_give_the_distribution_back():
    _, components = _mixture(1)
    tables = alias_tables(components)
    for k, spectrum in enumerate(components):
        mass = tables.keep[k].copy()
        np.add.at(mass, tables.other[k], 1.0 - tables.keep[k])
        np.testing.assert_allclose(mass / mass.size, spectrum / spectrum.sum(), atol=1e-14)


def test_each_cell_is_poisson_with_the_right_mean():
    loadings, components = _mixture()
    counts = sample_counts(
        loadings, alias_tables(components), np.arange(4000), seed=11, dtype="uint16"
    ).astype(float)
    shares = components / components.sum(axis=1, keepdims=True)
    expected = loadings[0] @ shares
    n = counts.shape[0]
    z = (counts.mean(axis=0) - expected) / np.sqrt(expected / n)
    assert np.sum(z**2) < stats.chi2.ppf(0.9999, z.size)
    # The index of dispersion of a Poisson number is one: P - 1 degrees of freedom a channel.
    dispersion = ((counts - counts.mean(axis=0)) ** 2).sum(axis=0) / counts.mean(axis=0)
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], n - 1)
    assert ((dispersion > low) & (dispersion < high)).all()
    # Cells are independent of each other, totals are Poisson too.
    correlation = np.corrcoef(counts[:, :20].T) - np.eye(20)
    assert np.abs(correlation).max() < 5.5 / np.sqrt(n)
    totals = counts.sum(axis=1)
    assert abs(totals.mean() - 36.0) < 5 * 6 / np.sqrt(n)
    assert 0.9 < totals.var() / 36.0 < 1.1


def test_a_silent_component_draws_nothing():
    loadings, _ = _mixture(200)
    components = np.zeros((3, 4))
    components[[0, 1, 2], [0, 1, 2]] = 1.0
    counts = sample_counts(
        loadings, alias_tables(components), np.arange(200), seed=0, dtype="uint8"
    )
    assert counts[:, 1].sum() == 0
    assert counts[:, 3].sum() == 0
    assert counts[:, [0, 2]].sum() > 0


def test_bits_belong_to_the_pixel_and_not_to_the_call():
    loadings, components = _mixture(300)
    tables = alias_tables(components)
    whole = sample_counts(loadings, tables, np.arange(300), seed=5, dtype="uint8")
    order = np.random.default_rng(0).permutation(300)
    shuffled = sample_counts(loadings[order], tables, order, seed=5, dtype="uint16")
    np.testing.assert_array_equal(shuffled, whole[order])
    other = sample_counts(loadings, tables, np.arange(300), seed=6, dtype="uint8")
    assert (other != whole).any()


def test_no_pixel_repeats_another():
    loadings, components = _mixture(3000)
    counts = sample_counts(
        loadings, alias_tables(components), np.arange(3000), seed=0, dtype="uint8"
    )
    assert np.unique(counts, axis=0).shape[0] == 3000


def test_refuses_what_cannot_be_drawn():
    loadings, components = _mixture(4)
    tables = alias_tables(components)
    with pytest.raises(InputError, match="non-negative"):
        sample_counts(-loadings, tables, np.arange(4), seed=0, dtype="uint8")
    with pytest.raises(InputError, match="do not fit uint8"):
        sample_counts(loadings * 1e4, tables, np.arange(4), seed=0, dtype="uint8")
    with pytest.raises(InputError, match="pixels"):
        sample_counts(loadings, tables, np.arange(3), seed=0, dtype="uint8")
    with pytest.raises(InputError, match="non-negative"):
        alias_tables([[1.0, -1.0]])


def test_hashes_are_uniform_and_keep_their_shape():
    u = hash_uniform(np.arange(20000).reshape(100, 200), seed=1)
    assert u.shape == (100, 200)
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert u[3, 4] == hash_uniform(604, seed=1)
    assert abs(np.corrcoef(u.ravel()[:-1], u.ravel()[1:])[0, 1]) < 0.03
