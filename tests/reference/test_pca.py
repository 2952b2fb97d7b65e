"""Weighted PCA against an eager SVD of the scaled matrix in float64."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from scipy.linalg import subspace_angles

import emcube as em
from emcube.engine import listen


def eager(counts, *, trivial=True):
    """Singular values and vectors of D sqrt(N / (g h)), zero totals as one; and the scaling."""
    d = np.asarray(counts, dtype=np.float64)
    g, h, n = d.sum(axis=1), d.sum(axis=0), d.sum()
    scale = np.sqrt(n / np.outer(np.where(g == 0, 1, g), np.where(h == 0, 1, h)))
    part = d if trivial else d - np.outer(g, h) / n
    _, s, vt = np.linalg.svd(part * scale, full_matrices=False)
    return s, vt, np.sqrt(n / np.where(h == 0, 1, h))


def scene(counts_per_pixel, n_pixels=700, n_channels=160):
    rng = np.random.default_rng(counts_per_pixel)
    spectra = rng.dirichlet(np.full(n_channels, 0.4), 4)
    spectra[:, [3, 77]] = 0
    mix = rng.dirichlet(np.full(4, 0.5), n_pixels) * rng.gamma(4, 0.25, (n_pixels, 1))
    mix[11] = 0
    return rng.poisson(mix @ spectra * counts_per_pixel)


def same_as_eager(pca, counts, k):
    s, vt, scale = eager(counts)
    values = np.asarray(pca.singular_values_) ** 2
    assert np.abs(values - s[: values.size] ** 2).max() < 1e-10 * s[0] ** 2
    found = np.asarray(pca.components_)[:k] * scale
    assert np.degrees(subspace_angles(found.T, vt[:k].T).max()) < 1e-5


@pytest.mark.parametrize("counts_per_pixel", [50, 200, 1000])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32"])
def test_equals_the_eager_svd(counts_per_pixel, dtype):
    counts = np.minimum(scene(counts_per_pixel), 255).astype(dtype)
    lazy = da.from_array(counts, chunks=((1, 299, 17, 383), 160))
    pca = em.IncrementalPCA(n_components=12, noise="poisson").fit(lazy)
    same_as_eager(pca, counts, 4 if counts_per_pixel > 50 else 3)


def test_big_endian_counts():
    counts = scene(200).astype(">u2")
    same_as_eager(em.IncrementalPCA(5).fit(counts), counts, 4)


def test_the_trivial_part_is_the_mean_spectrum():
    counts = scene(200)
    with_it = em.IncrementalPCA(6).fit(counts)
    without = em.IncrementalPCA(5, remove_trivial=True).fit(counts)
    s, _, _ = eager(counts, trivial=False)
    assert with_it.trivial_first_
    assert not without.trivial_first_
    assert with_it.singular_values_[0] ** 2 == pytest.approx(counts.sum(), rel=1e-12)
    np.testing.assert_allclose(
        with_it.components_[0], counts.sum(axis=0) / counts.sum(), rtol=1e-9, atol=1e-14
    )
    np.testing.assert_allclose(without.singular_values_, s[:5], rtol=1e-9)
    np.testing.assert_allclose(with_it.singular_values_[1:], s[:5], rtol=1e-9)


def test_denoised_cube_is_the_truncated_svd():
    counts = scene(200)
    d = counts.astype(float)
    g, h, n = d.sum(axis=1), d.sum(axis=0), d.sum()
    scale = np.sqrt(n / np.outer(np.where(g == 0, 1, g), np.where(h == 0, 1, h)))
    u, s, vt = np.linalg.svd(d * scale, full_matrices=False)
    pca = em.IncrementalPCA(4).fit(counts)
    scores = pca.transform(counts)
    np.testing.assert_allclose(scores[:, 0], g, rtol=1e-9, atol=1e-9)
    expected = (u[:, :4] * s[:4]) @ vt[:4] / scale
    np.testing.assert_allclose(pca.inverse_transform(scores), expected, atol=1e-9)
    # The same without the trivial component, whose place the pixels' totals take.
    rest = em.IncrementalPCA(3, remove_trivial=True).fit(counts)
    again = rest.inverse_transform(rest.transform(counts), totals=g)
    np.testing.assert_allclose(again, expected, atol=1e-8)


@pytest.mark.parametrize("remove", [False, True])
def test_fewer_pixels_than_channels_beyond_the_gram(monkeypatch, remove):
    monkeypatch.setattr("emcube.models.pca.MAX_GRAM", 100)
    counts = scene(200, n_pixels=60)
    pca = em.IncrementalPCA(6, remove_trivial=remove).fit(counts)
    assert pca.solver_ == "pixels"
    s, _, _ = eager(counts, trivial=not remove)
    np.testing.assert_allclose(pca.singular_values_, s[:6], rtol=1e-9)
    if not remove:
        same_as_eager(pca, counts, 4)


@pytest.mark.parametrize("noise", ["poisson", None])
def test_randomized_solver_converges_to_the_exact_one(noise):
    counts = scene(1000)
    exact = em.IncrementalPCA(4, noise=noise).fit(counts)
    fast = em.IncrementalPCA(
        4, noise=noise, svd_solver="randomized", random_state=0, max_iter=40
    ).fit(da.from_array(counts, chunks=(123, -1)))
    assert fast.solver_ == "randomized"
    assert fast.converged_
    first = exact.explained_variance_[0]
    assert np.abs(fast.explained_variance_ - exact.explained_variance_).max() < 1e-7 * first
    assert fast.noise_variance_ == pytest.approx(exact.noise_variance_, rel=1e-6)
    angle = subspace_angles(fast.components_.T, exact.components_.T).max()
    assert np.degrees(angle) < 0.05


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16"])
def test_centred_in_one_pass_whatever_the_blocks_hold(dtype):
    rng = np.random.default_rng(5)
    values = 8 * rng.normal(size=(500, 3)) @ rng.normal(size=(3, 24)) + rng.normal(size=(500, 24))
    # The first blocks say nothing of the mean of the others: vacuum, then a pedestal.
    values = np.where(np.arange(500)[:, None] < 120, 0, 5e4 / 3 + 20 * values)
    pedestal = {"float32": 0, "float64": 1e8, "uint16": 0}[dtype]
    values = np.maximum(np.rint(values) + pedestal, 0).astype(dtype)
    centred = values.astype(float) - values.mean(axis=0, dtype=float)
    exact = np.linalg.svd(centred, compute_uv=False) ** 2
    passes = []
    with listen(lambda event: passes.append(event.kind)):
        pca = em.IncrementalPCA(noise=None).fit(
            da.from_array(values, chunks=((60, 60, 1, 199, 180), 24))
        )
    assert passes.count("start") == pca.n_iter_ == 1
    found = np.asarray(pca.singular_values_) ** 2
    # To rounding of the sums about the mean, not of the pedestal's square.
    assert np.abs(found - exact).max() < 1e-12 * exact[0]
