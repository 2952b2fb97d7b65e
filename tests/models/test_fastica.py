"""FastICA and varimax: the truth of a scene, what turning keeps, labels, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import FastICA as Peer

import emcube as em
from emcube.engine import listen, use_threads
from emcube.errors import InputError
from emcube.scenes.metrics import match_components

MODELS = {
    "ica": lambda **more: em.FastICA(3, random_state=0, **more),
    "ica-spatial": lambda **more: em.FastICA(3, domain="spatial", random_state=0, **more),
    "varimax": lambda **more: em.Varimax(3, random_state=0, **more),
    "varimax-spectral": lambda **more: em.Varimax(3, domain="spectral", random_state=0, **more),
}


@pytest.fixture(params=sorted(MODELS))
def make(request):
    return MODELS[request.param]


@pytest.fixture(scope="module")
def needle():
    scene = em.scenes.srm2135c(scale=0.1, random_state=0)
    return scene, scene.cube.load()


def angles(model, scene, cube):
    mean = cube.values.reshape(-1, cube.shape[-1]).mean(axis=0)
    return match_components(model.components_.values, scene.components.values, mean)[1]


@pytest.mark.parametrize("seed", range(3))
def test_nickel_chromium_and_silicon_are_separated(needle, seed):
    scene, cube = needle
    model = em.FastICA(3, random_state=seed).fit(cube)
    assert model.converged_
    assert angles(model, scene, cube).max() < 5.0


@pytest.mark.parametrize("seed", range(2))
def test_few_counts_are_differenced_across_a_longer_span(needle, seed):
    """A third of the counts: neighbouring channels differ by noise, channels farther apart by lines."""
    scene = em.scenes.srm2135c(scale=0.03, random_state=seed)
    cube = scene.cube.load()
    model = em.FastICA(3, random_state=0).fit(cube)
    assert model.span_ > em.FastICA(3, random_state=0).fit(needle[1]).span_
    assert angles(model, scene, cube).max() < 5.0
    near = em.FastICA(3, span=1, random_state=0).fit(cube)
    assert near.span_ == 1
    assert angles(near, scene, cube).max() > 1.3 * angles(model, scene, cube).max()


def test_nothing_is_differenced_where_channels_are_few():
    counts = np.random.default_rng(0).poisson(5.0, (60, 12))
    assert em.FastICA(2, random_state=0).fit(counts).span_ == 0
    assert em.FastICA(2, derivative=0, random_state=0).fit(counts).span_ == 0
    assert em.FastICA(2, domain="spatial", random_state=0).fit(counts).span_ == 0


def test_floats_are_differenced_as_the_rest_of_pca_says():
    """Without a noise model what PCA leaves is the noise: the more of it, the longer the span."""
    rng = np.random.default_rng(0)
    channel = np.arange(200)
    spectra = np.stack([np.exp(-((channel - c) ** 2) / 72.0) for c in (50, 100, 150)])
    values = rng.gamma(0.5, size=(600, 3)) @ spectra
    few, many = (
        em.FastICA(3, random_state=0).fit(values + sigma * rng.normal(size=values.shape)).span_
        for sigma in (1e-3, 0.3)
    )
    assert few == 1
    assert many > 2
    # A fourth vector of noise alone says nothing of the lines.
    noisy = values + 1e-3 * rng.normal(size=values.shape)
    assert em.FastICA(4, random_state=0).fit(noisy).span_ == 1


def test_varimax_of_the_maps_comes_near(needle):
    scene, cube = needle
    pca = em.IncrementalPCA(3).fit(cube)
    assert angles(em.Varimax(3).fit(cube), scene, cube).max() < 4.0
    assert angles(pca, scene, cube).max() > 30.0


def test_turning_keeps_the_model(needle, make):
    _, cube = needle
    model, pca = make().fit(cube), em.IncrementalPCA(3).fit(cube)
    part = cube.isel(tilt=[0])
    rebuilt = model.inverse_transform(model.transform(part))
    np.testing.assert_allclose(
        rebuilt.values, pca.inverse_transform(pca.transform(part)).values, atol=1e-8
    )
    assert model.score(part) == pytest.approx(pca.score(part))
    np.testing.assert_allclose(np.abs(model.components_).sum("energy"), 1.0)
    largest = np.abs(model.components_).argmax("energy")
    assert (model.components_.isel(energy=largest) > 0).all()
    assert (np.diff(model.variance_share_) <= 0).all()


def test_turning_keeps_the_model_of_centred_values(make):
    rng = np.random.default_rng(0)
    values = rng.laplace(size=(400, 3)) @ rng.normal(size=(3, 80)) + 5.0
    cube = em.make_cube(values.reshape(20, 20, 80), dims=("y", "x", "energy"), sig_dims=("energy",))
    model = make().fit(cube)
    assert model.noise_.centred
    np.testing.assert_allclose(
        model.inverse_transform(model.transform(cube)).values, cube.values, atol=1e-9
    )
    assert model.plot_quality(cube) is not None
    bare = make().fit(values)
    np.testing.assert_allclose(bare.inverse_transform(bare.transform(values)), values, atol=1e-9)


def test_what_stays_at_right_angles(needle):
    _, cube = needle
    model = em.Varimax(3, domain="spectral").fit(cube)
    weighted = model.components_.values / np.sqrt(np.where(model.mean_ > 0, model.mean_, np.inf))
    gram = weighted @ weighted.T
    shape = np.sqrt(np.diagonal(gram))
    np.testing.assert_allclose(gram / np.outer(shape, shape), np.eye(3), atol=1e-8)
    assert float(model.variance_share_.sum()) == pytest.approx(
        float(em.IncrementalPCA(3).fit(cube).explained_variance_ratio_.sum())
    )
    maps = em.Varimax(3).fit(cube)
    totals = cube.sum("energy").values.reshape(-1, 1)
    loadings = maps.transform(cube).values.reshape(-1, 3) / np.sqrt(np.maximum(totals, 1))
    gram = loadings.T @ loadings
    shape = np.sqrt(np.diagonal(gram))
    np.testing.assert_allclose(gram / np.outer(shape, shape), np.eye(3), atol=1e-7)


def test_the_spectral_domain_is_scikit_learns_answer_on_differences(needle):
    _, cube = needle
    model = em.FastICA(3, random_state=0).fit(cube)
    pca = em.IncrementalPCA(3).fit(cube)
    spectra = pca.components_.values / np.sqrt(np.where(pca.mean_ > 0, pca.mean_, np.inf))
    spectra = np.nan_to_num(spectra)
    peer = Peer(3, max_iter=1000, tol=1e-8, random_state=0, whiten="unit-variance")
    assert 1 < model.span_ < 5
    apart = spectra[:, model.span_ :] - spectra[:, : -model.span_]
    sources = peer.fit(apart.T).components_ @ pca.components_.values
    sources /= np.abs(sources).sum(axis=1, keepdims=True)
    found = model.components_.values
    for one in sources:
        assert (
            min(np.abs(found - one).max(axis=1).min(), np.abs(found + one).max(axis=1).min()) < 1e-5
        )


def test_the_spatial_domain_separates_independent_maps():
    """Maps drawn independently: what ICA in space is for. A sample of the pixels does nearly as well."""
    rng = np.random.default_rng(0)
    spectra = rng.dirichlet(np.full(40, 0.2), 3)
    maps = rng.gamma(0.3, 1.0, size=(3000, 3)) * 200
    counts = rng.poisson(maps @ spectra)
    model = em.FastICA(3, noise=None, domain="spatial", random_state=0).fit(counts)
    _, found = match_components(model.components_, spectra, counts.mean(axis=0))
    assert found.max() < 8.0
    turned = em.Varimax(3, noise=None).fit(counts)
    assert turned.converged_


def test_a_sample_is_enough_where_pixels_are_many(monkeypatch, needle, make):
    from emcube.models import fastica

    _, cube = needle
    monkeypatch.setattr(fastica, "ROWS", 4000)
    lazy = cube.chunk(tilt=2)
    answers = []
    for n in (1, 3):
        with use_threads(n):
            answers.append(make().fit(lazy).components_.values)
    np.testing.assert_array_equal(*answers)


def test_partial_fits_of_the_spectral_domain_equal_one_fit(needle):
    _, cube = needle
    model = em.FastICA(3, random_state=0)
    for part in (slice(0, None, 2), slice(1, None, 2)):
        model.partial_fit(cube.isel(tilt=part))
    whole = em.FastICA(3, random_state=0).fit(cube)
    np.testing.assert_allclose(model.components_, whole.components_, atol=1e-8)


def test_partial_fits_of_the_spatial_domain_carry_scores_over(needle):
    _, cube = needle
    model = em.Varimax(3)
    for part in (slice(0, None, 2), slice(1, None, 2)):
        model.partial_fit(cube.isel(tilt=part))
    whole = em.Varimax(3).fit(cube)
    np.testing.assert_allclose(model.components_, whole.components_, atol=2e-3)


def test_differences_do_not_cross_channels_that_are_left_out(needle):
    from emcube.models.fastica import _differences

    _, cube = needle
    used = xr.DataArray(np.arange(cube.sizes["energy"]) % 10 != 4, dims="energy")
    used = used.assign_coords(energy=cube.energy)
    pca = em.IncrementalPCA(3).fit(cube, where=used)
    rows = _differences(pca._vectors.T, pca.axes_, 1)
    assert len(rows) == sum(np.diff(np.flatnonzero(used.values)) == 1)
    assert len(_differences(pca._vectors.T, pca.axes_, 0)) == int(used.sum())
    assert (
        np.isfinite(em.FastICA(3, random_state=0).fit(cube, where=used).components_.values).sum()
        > 0
    )


def test_one_pass_or_two(needle):
    _, cube = needle
    for model, n in ((em.FastICA(3, random_state=0), 1), (em.Varimax(3), 2)):
        passes = []
        with listen(
            lambda event, p=passes: p.append(event.name) if event.kind == "start" else None
        ):
            model.fit(cube)
        assert len(passes) == n


def test_wrong_parameters_are_refused(make):
    counts = np.random.default_rng(0).poisson(5.0, (60, 12))
    for wrong in ({"domain": "time"}, {"max_iter": 0}, {"tol": 0.0}, {"noise": "gauss"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            make(**wrong).fit(counts) if "domain" not in wrong else em.FastICA(**wrong).fit(counts)
    for wrong in ({"derivative": -1}, {"fun": "tanh"}, {"n_components": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            em.FastICA(**wrong).fit(counts)
    with pytest.raises(InputError, match="gamma"):
        em.Varimax(gamma=-1.0).fit(counts)
    with pytest.raises(InputError, match="span"):
        em.FastICA(2, span=0).fit(counts)
    with pytest.raises(InputError, match="differences of order 1 between used channels 11 apart"):
        em.FastICA(2, derivative=1, span=11).fit(counts)
    with pytest.raises(InputError, match="differences of order 10"):
        em.FastICA(2, derivative=10).fit(counts)
    flat = np.outer(np.arange(1, 61), np.arange(12))
    with pytest.raises(InputError, match=r"\(n_samples = 60\) span 1 dimensions"):
        make().fit(flat)
