"""VCA and N-FINDR: the truth of scenes with pure pixels, abundances, labels, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.engine import listen, use_threads
from emcube.errors import InputError
from emcube.scenes.metrics import match_components, maximum_likelihood_loadings

ESTIMATORS = {"vca": em.VCA, "nfindr": em.NFINDR}


@pytest.fixture(params=sorted(ESTIMATORS))
def estimator(request):
    return ESTIMATORS[request.param]


@pytest.fixture(scope="module")
def rock():
    """Minerals with pure grains of each, some 300 counts a pixel."""
    scene = em.scenes.jadeite(scale=0.06, random_state=0, pure_pixels=0.04)
    return scene, scene.cube.load()


@pytest.fixture(scope="module")
def needle():
    """Layers of Ni and Cr on Si, some 11 counts a pixel."""
    scene = em.scenes.srm2135c(scale=0.03, random_state=0)
    return scene, scene.cube.load()


def worst(model, scene, cube):
    """Angles (degrees, weighted) to the truth; what each may be: 2, or 1.5 times the counting limit."""
    sig = cube.shape[-1]
    mean = cube.values.reshape(-1, sig).mean(axis=0)
    order, angles = match_components(model.components_.values, scene.components.values, mean)
    return angles, np.maximum(2.0, 1.5 * np.asarray(model.counting_limit_)[order])


@pytest.mark.parametrize("seed", range(2))
def test_pure_minerals_are_found(rock, estimator, seed):
    scene, cube = rock
    model = estimator(5, random_state=seed).fit(cube)
    angles, allowed = worst(model, scene, cube)
    assert (angles < allowed).all(), (angles, allowed)
    assert np.asarray(model.counting_limit_).max() < 5.0


@pytest.mark.parametrize("seed", range(2))
def test_pure_layers_are_found(needle, estimator, seed):
    scene, cube = needle
    angles, allowed = worst(estimator(3, random_state=seed).fit(cube), scene, cube)
    assert (angles < allowed).all(), (angles, allowed)


def test_the_purest_pixels_are_where_the_phase_is(rock, estimator):
    scene, cube = rock
    model = estimator(5, random_state=0).fit(cube)
    mean = cube.values.reshape(-1, cube.shape[-1]).mean(axis=0)
    order, _ = match_components(model.components_.values, scene.components.values, mean)
    truth = scene.loadings.values
    shares = truth / truth.sum(axis=-1, keepdims=True)
    side = model.pool_
    assert model.purest_.shape == (5, 2)
    for k, found in enumerate(order):
        y, x = model.purest_[found]
        assert shares[y : y + side, x : x + side, k].mean() > 0.8


def test_totals_are_those_of_the_loadings(rock, estimator):
    _, cube = rock
    model = estimator(5, random_state=0).fit(cube)
    totals = model.transform(cube).sum(["y", "x"]).values
    assert model.component_totals_.sum() == pytest.approx(float(cube.sum(dtype=np.int64)))
    np.testing.assert_allclose(model.component_totals_, totals, rtol=0.1, atol=0.02 * totals.sum())
    assert (np.diff(model.component_totals_) <= 0).all()


def test_loadings_are_those_of_largest_likelihood(rock):
    _, cube = rock
    model = em.VCA(5, random_state=0).fit(cube)
    part = cube.isel(y=[40], x=slice(0, 100, 12))
    expected = maximum_likelihood_loadings(
        part.values.reshape(-1, cube.shape[-1]), model.components_.values, tol=1e-9
    )
    found = model.transform(part).values.reshape(-1, 5)
    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.max())


def test_constrained_loadings_sum_to_the_pixels_counts(rock):
    scene, cube = rock
    likely = em.VCA(5, random_state=0).fit(cube)
    model = em.VCA(5, abundances="fcls", random_state=0).fit(cube)
    xr.testing.assert_equal(model.components_, likely.components_)
    loadings = model.transform(cube)
    assert float(loadings.min()) >= 0
    np.testing.assert_allclose(loadings.sum("component"), cube.sum("energy"), rtol=1e-9)
    mean = cube.values.reshape(-1, cube.shape[-1]).mean(axis=0)
    order, _ = match_components(model.components_.values, scene.components.values, mean)
    truth = scene.loadings.values

    def error(found):
        return np.sqrt(np.square(found.values[..., order] - truth).mean())

    # Least squares with one weight a channel are as good as the likelihood within a few tenths.
    assert error(loadings) < 1.4 * error(likely.transform(cube))


def test_floats_around_zero_are_unmixed_by_least_squares(estimator):
    rng = np.random.default_rng(1)
    spectra = rng.dirichlet(np.full(30, 0.3), 3)
    y, x = np.mgrid[:30, :40]
    shares = np.stack([(x < 13), (x >= 13) & (x < 27), x >= 27], axis=-1) * 1.0
    values = 50 * (1 + 0.2 * np.sin(y / 5.0))[..., None] * (shares @ spectra)
    values += rng.normal(scale=0.3, size=values.shape)
    cube = em.make_cube(
        values, dims=("y", "x", "energy"), sig_dims=("energy",), units={"energy": "eV"}
    )
    model = estimator(3, random_state=0).fit(cube)
    assert model.loadings_by_ == "fcls"
    order, angles = match_components(model.components_.values, spectra, np.ones(30))
    assert angles.max() < 2.5
    found = model.transform(cube).values[..., order]
    found_shares = found / found.sum(axis=-1, keepdims=True)
    assert np.sqrt(np.square(found_shares - shares).mean()) < 0.04
    np.testing.assert_allclose(found.sum(axis=-1), values.sum(axis=-1), rtol=1e-9)


def test_a_single_component_is_the_mean_spectrum(estimator):
    counts = np.random.default_rng(0).poisson(5.0, (60, 12))
    model = estimator(1, random_state=0).fit(counts)
    np.testing.assert_allclose(model.components_[0], counts.sum(axis=0) / counts.sum(), atol=0.02)
    np.testing.assert_allclose(model.transform(counts)[:, 0], counts.sum(axis=1), rtol=1e-9)


def test_single_points_are_pixels(estimator):
    """``n_average=1`` and no tiles: an endmember is a pixel, denoised by the subspace alone."""
    rng = np.random.default_rng(2)
    spectra = rng.dirichlet(np.full(20, 0.5), 3)
    shares = rng.dirichlet(np.full(3, 0.4), 200)
    shares[[5, 50, 150]] = np.eye(3)
    values = shares @ spectra * 100
    model = estimator(3, noise=None, pool=1, n_average=1, random_state=0).fit(values)
    assert sorted(model.purest_[:, 0]) == [5, 50, 150]
    _order, angles = match_components(model.components_, spectra, np.ones(20))
    # What noise would make negative is a thousandth of the mean, at the least.
    assert angles.max() < 0.02


def test_more_pixels_join_the_cloud(needle):
    """Components that only later pixels show are found, as long as the subspace holds them."""
    scene, cube = needle
    model = em.VCA(3, random_state=0)
    for part in (slice(0, None, 2), slice(1, None, 2)):
        model.partial_fit(cube.isel(tilt=part))
    angles, allowed = worst(model, scene, cube)
    assert (angles < allowed).all()
    assert model.component_totals_.sum() > 0
    with pytest.raises(InputError, match="must not be negative"):
        model.partial_fit(cube.isel(tilt=[0]).astype(np.float32) - 1)


def test_a_sample_is_enough_where_pixels_are_many(monkeypatch, rock, estimator):
    from emcube.models import cloud

    _scene, cube = rock
    monkeypatch.setattr(cloud, "POINTS", 1500)
    lazy = cube.chunk(y=32)
    answers = []
    for n in (1, 3):
        with use_threads(n):
            answers.append(estimator(5, pool=1, random_state=0).fit(lazy))
    np.testing.assert_array_equal(answers[0].components_.values, answers[1].components_.values)
    assert len(answers[0]._cloud.weights) < 2000


def test_few_passes_are_made(rock, estimator):
    _, cube = rock
    passes = []
    with listen(lambda event: passes.append(event.name) if event.kind == "start" else None):
        estimator(5, random_state=0).fit(cube)
    assert len(passes) == 3


def test_wrong_parameters_are_refused(estimator):
    counts = np.random.default_rng(0).poisson(5.0, (60, 12))
    for wrong in (
        {"n_components": 0},
        {"noise": "gauss"},
        {"abundances": "nnls"},
        {"pool": 0},
        {"n_average": 0},
        {"n_average": "all"},
        {"n_init": 0},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            estimator(**{"n_components": 2, **wrong}).fit(counts)
    with pytest.raises(InputError, match="at most 12 exist"):
        estimator(13).fit(counts)
    with pytest.raises(InputError, match="max_iter"):
        em.NFINDR(2, max_iter=0).fit(counts)
