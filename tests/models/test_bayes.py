"""Bayesian unmixing: what it finds, how sure it says it is, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import emcube as em
from benchmarks.bayes import by_posterior
from benchmarks.coverage import Coverage, ends, holds, realisation
from benchmarks.coverage import stripes as scene
from emcube.engine import run_sweep, use_threads
from emcube.errors import InputError
from emcube.kernels.gibbs import channel_groups
from emcube.models.bayes_sweeps import Chain, CountModel, PresenceSweep
from emcube.models.labels import as_source

QUICK = {"n_chains": 2, "n_warmup": 10, "n_draws": 20, "random_state": 0}


def matched(model, truth):
    order, angles = em.scenes.metrics.match_components(
        np.asarray(model.components_), truth, truth.mean(axis=0)
    )
    return order, angles


@pytest.fixture(scope="module")
def truth():
    return scene(200.0)


@pytest.fixture(scope="module")
def cube(truth):
    return truth.draw(np.random.default_rng(21)).compute()


@pytest.fixture(scope="module")
def fitted(cube):
    return em.BayesianUnmixing(3, n_draws=120, random_state=0).fit(cube)


@pytest.fixture(scope="module")
def lines():
    """Dense values, (12, 12, 40): three smooth spectra, shares drawn evenly from the simplex."""
    rng = np.random.default_rng(4)
    channel = np.arange(40)
    spectra = np.array([np.exp(-0.5 * ((channel - c) / 4.0) ** 2) for c in (8, 20, 31)]) + 0.1
    shares = rng.dirichlet(np.ones(3), (12, 12))
    values = shares @ spectra + rng.normal(0, 0.05, (12, 12, 40))
    cube = em.make_cube(values, dims=("y", "x", "energy"), sig_dims=("energy",))
    return cube, spectra, shares


# ----------------------------------------------------------------------------------------- answers


def test_components_and_loadings_of_counts(fitted, cube, truth):
    order, angles = matched(fitted, truth.components)
    assert np.max(angles) < 4.0
    assert fitted.converged_
    assert fitted.likelihood_ == "gamma-poisson"
    assert fitted.draws_.shape == (2, 120, 3, 60)
    np.testing.assert_allclose(fitted.components_.sum("energy"), 1.0)
    maps = fitted.transform(cube).isel(component=order)
    full = truth.loadings.sum(axis=-1) > 30
    left = (maps.values - truth.loadings)[full]
    assert np.sqrt(np.mean(left**2)) < 12.0
    # The totals of the pixels are those of the counts.
    assert maps.sum().item() == pytest.approx(cube.sum().item(), rel=0.01)


def test_intervals_hold_what_they_promise():
    """A small version of `python -m benchmarks.bayes coverage`."""
    found = Coverage([realisation("stripes", 200.0, seed, by_posterior) for seed in (500, 501)])
    assert 0.83 < found.share("interior of phases") < 0.97
    assert 0.83 < found.share("mixed pixels") < 0.97
    assert found.share("truth is zero") > 0.90
    assert 0.83 < found.share("fewer than 10 counts") < 1.0
    assert found.share("components") > 0.80


def test_presence_is_the_share_of_pixels(fitted, truth):
    order, _ = matched(fitted, truth.components)
    share = (truth.loadings > 0).mean(axis=(0, 1))
    np.testing.assert_allclose(fitted.presence_[order], share, atol=0.1)


def test_components_that_are_everywhere():
    """Without absence the prior is the plain Dirichlet one."""
    rng = np.random.default_rng(3)
    components = scene(200.0).components
    loadings = 150.0 * rng.dirichlet(np.ones(3), (16, 16))
    counts = rng.poisson(loadings @ components).astype(np.uint16)
    cube = em.make_cube(counts, dims=("y", "x", "energy"), sig_dims=("energy",))
    model = em.BayesianUnmixing(3, sparse=False, **QUICK).fit(cube)
    low = model.loadings_interval(cube).isel(bound=0)
    assert (low.values > 0).all()
    np.testing.assert_array_equal(model.presence_, 1.0)


def test_tiles_for_components_and_pixels_for_loadings(cube, truth):
    model = em.BayesianUnmixing(3, pool=2, **QUICK).fit(cube)
    assert model.pool_ == 2
    order, angles = matched(model, truth.components)
    assert np.max(angles) < 5.0
    # Tiles hold more components than pixels do; what is learned of pixels is used for pixels.
    share = (truth.loadings > 0).mean(axis=(0, 1))
    np.testing.assert_allclose(model.presence_[order], share, atol=0.2)
    maps = model.transform(cube)
    assert maps.shape == (24, 24, 3)
    assert maps.sum().item() == pytest.approx(cube.sum().item(), rel=0.01)


def test_some_pixels_tell_how_often_components_are_there(cube, truth):
    source, _ = as_source(cube)
    model = CountModel(channel_groups(truth.components))
    first = Chain(truth.components, np.full(3, 0.5), 0.01, 0.0)
    told, looked = [], []
    for chance in (1.0, 0.4):
        sweep = PresenceSweep(model, first, 4, 12, 0, chance)
        last = run_sweep(sweep, source, seed=0, max_rounds=16).state
        assert len(last.kept) == 12
        np.testing.assert_array_equal(last.spectra, truth.components)
        told.append(np.mean([one.presence for one in last.kept], axis=0))
        looked.append(last.summed.n_pixels / 12)
    np.testing.assert_allclose(told[1], told[0], atol=0.05)
    assert looked[0] == source.n_pixels
    assert looked[1] == pytest.approx(0.4 * source.n_pixels, rel=0.1)


def test_the_simplex_of_dense_values(lines):
    cube, spectra, shares = lines
    model = em.BayesianUnmixing(3, random_state=0).fit(cube)
    assert model.likelihood_ == "gaussian"
    order, angles = matched(model, spectra)
    assert np.max(angles) < 5.0
    maps = model.transform(cube).isel(component=order)
    assert maps.attrs["units"] == "1"
    np.testing.assert_allclose(maps.sum("component"), 1.0, atol=1e-9)
    assert np.abs(maps.values - shares).mean() < 0.03
    assert model.noise_variance_ == pytest.approx(0.05**2, rel=0.1)
    held = holds(ends(model.loadings_interval(cube), order), shares)
    assert 0.80 < held.mean() < 0.99


def test_dense_values_of_changing_brightness(lines):
    cube, spectra, shares = lines
    bright = 1.0 + np.linspace(0, 2, 12)[:, None, None]
    model = em.BayesianUnmixing(3, simplex=False, **QUICK).fit(cube * bright)
    order, angles = matched(model, spectra)
    assert np.max(angles) < 8.0
    np.testing.assert_allclose(model.components_.sum("energy"), 1.0)
    maps = model.transform(cube * bright).isel(component=order)
    expected = shares * bright * spectra.sum(axis=1)
    assert np.corrcoef(maps.values.ravel(), expected.ravel())[0, 1] > 0.97


def test_chains_that_do_not_meet_say_so():
    """Three components where there is one: what is mixed into what is anybody's guess."""
    rng = np.random.default_rng(8)
    counts = rng.poisson(40 * scene(200.0).components[0], (300, 60)).astype(np.uint16)
    model = em.BayesianUnmixing(3, n_warmup=0, n_draws=8, n_chains=4, random_state=0).fit(counts)
    assert not model.converged_
    assert model.worst_r_hat_ > 1.1


# ------------------------------------------------------------------------------------ manners


def test_the_same_bits_on_any_number_of_threads(cube):
    lazy = cube.chunk(y=6, x=12)
    found = []
    for threads in (1, 2):
        with use_threads(threads):
            model = em.BayesianUnmixing(3, **QUICK).fit(lazy)
            found.append((model.draws_, model.loadings_interval(lazy).values))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_loadings_hang_on_the_pixel_alone(fitted, cube):
    """Not on blocks, nor on neighbours; equal pixels get equal answers."""
    whole = fitted.loadings_interval(cube)
    part = fitted.loadings_interval(cube.isel(y=slice(5, 9), x=[3, 1, 7]))
    np.testing.assert_array_equal(part, whole.isel(y=slice(5, 9), x=[3, 1, 7]))
    lazy = fitted.loadings_interval(cube.chunk(y=7, x=5))
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy, whole)
    assert list(whole.bound.values) == ["low", "high"]
    assert whole.attrs["units"] == cube.attrs.get("units", "1")


def test_pixels_without_counts(fitted, cube):
    empty = cube.copy()
    empty[0, 0] = 0
    maps, interval = fitted.transform(empty), fitted.loadings_interval(empty)
    assert (maps[0, 0] < 3.0).all()
    assert (interval[0, 0].isel(bound=0) == 0).all()
    where = xr.ones_like(cube.isel(energy=0), dtype=bool)
    where[2, 3] = False
    assert np.isnan(fitted.transform(cube, where=where)[2, 3]).all()


def test_what_is_left_out_does_not_matter(cube):
    used = xr.DataArray(np.ones((24, 24), bool), dims=("y", "x"))
    used[:, 20:] = False
    other = cube.copy()
    other[:, 20:] = 9
    one = em.BayesianUnmixing(3, **QUICK).fit(cube, where=used)
    two = em.BayesianUnmixing(3, **QUICK).fit(other, where=used)
    np.testing.assert_array_equal(one.draws_, two.draws_)


def test_more_pixels_make_it_surer(cube, truth):
    model = em.BayesianUnmixing(3, **QUICK).fit(cube)
    before = model.components_std_.values.mean()
    again = truth.draw(np.random.default_rng(99))
    model.partial_fit(again)
    _, angles = matched(model, truth.components)
    assert np.max(angles) < 4.0
    assert model.components_std_.values.mean() < before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n_components": 0}, "n_components"),
        ({"n_chains": 0}, "n_chains"),
        ({"n_steps": 0}, "n_steps"),
        ({"level": 1.0}, "level"),
        ({"concentration": -1.0}, "concentration"),
        ({"noise": "gauss"}, "noise"),
        ({"sparse": 1}, "sparse"),
        ({"simplex": None}, "simplex"),
        ({"pool": 0}, "pool"),
    ],
)
def test_parameters_are_refused(cube, wrong, words):
    with pytest.raises(InputError, match=words):
        em.BayesianUnmixing(**{"n_components": 3, **QUICK, **wrong}).fit(cube)


def test_counts_are_whole(cube):
    with pytest.raises(InputError, match="whole counts"):
        em.BayesianUnmixing(3, noise="poisson", **QUICK).fit(cube * 0.5)


# --------------------------------------------------------------------------------- uncertainty


def test_uncertainty_hands_out_the_posterior(fitted, cube):
    sure = em.uncertainty(fitted, cube, method="posterior")
    assert sure.attrs["method"] == "posterior"
    assert sure.attrs["converged"] == fitted.converged_
    np.testing.assert_array_equal(sure.loadings_interval, fitted.loadings_interval(cube))
    np.testing.assert_array_equal(sure.components_std, fitted.components_std_)
    np.testing.assert_allclose(sure.components_interval, fitted.components_interval_)
    # The law of total variance: counting and shared together are the whole.
    both = np.hypot(sure.loadings_std_counting, sure.loadings_std_shared)
    whole = fitted.loadings_std(cube)
    assert (both >= whole - 1e-9).all()
    assert sure.loadings_std_shared.mean() < sure.loadings_std_counting.mean()
    values = fitted.components_.values
    assert (sure.rotation_range.isel(bound=0) <= values + 1e-9).all()
    assert (sure.rotation_range.isel(bound=1) >= values - 1e-9).all()
    wide = em.uncertainty(fitted, cube, method="posterior", level=0.99).loadings_interval
    width = wide.isel(bound=1) - wide.isel(bound=0)
    narrow = sure.loadings_interval.isel(bound=1) - sure.loadings_interval.isel(bound=0)
    assert (width.values >= narrow.values - 1e-9).all()


def test_uncertainty_on_the_simplex(lines):
    cube, _, _ = lines
    model = em.BayesianUnmixing(3, **QUICK).fit(cube)
    sure = em.uncertainty(model, cube, method="posterior")
    assert sure.loadings_interval.attrs["units"] == "1"
    assert sure.components_std.attrs["units"] == model.components_.attrs["units"]
    middle = model.transform(cube)
    assert (sure.loadings_rotation_range.isel(bound=0) <= middle + 1e-9).all()
    assert (sure.loadings_rotation_range.isel(bound=1) >= middle - 1e-9).all()
    # The noise of counts stands on either side of what rotations reach.
    for bound, sign in ((0, 1.0), (1, -1.0)):
        apart = sure.loadings_rotation_range - sure.loadings_interval
        assert (sign * apart.isel(bound=bound) <= 1e-9).all()


def test_other_models_have_no_posterior(cube, fitted):
    nmf = em.MiniBatchNMF(3, random_state=0).fit(cube)
    with pytest.raises(InputError, match="BayesianUnmixing"):
        em.uncertainty(nmf, cube, method="posterior")
    with pytest.raises(InputError, match="no replicates"):
        em.uncertainty(fitted, cube, method="posterior", n_replicates=5)
    with pytest.raises(InputError, match="MiniBatchNMF only"):
        em.uncertainty(fitted, cube, method="bootstrap")


def test_a_recipe_keeps_intervals(cube, tmp_path):
    store = em.ingest(cube, tmp_path / "map.zarr")
    step = {"n_components": 3, "n_chains": 2, "n_warmup": 5, "n_draws": 10, "random_state": 0}
    recipe = {
        "emcube": 1,
        "input": {"path": str(store)},
        "steps": [
            {"bayesian_unmixing": step},
            {"kmeans": {"n_clusters": 3, "on": "bayesian_unmixing"}},
        ],
    }
    result = em.run(recipe, out=tmp_path / "result")
    node = result["bayesian_unmixing"]
    assert node.loadings_interval.dims == ("y", "x", "component", "bound")
    assert node.components_interval.dims == ("component", "energy", "bound")
    assert (node.loadings_interval.isel(bound=0) <= node.loadings).all()
    assert (node.loadings_interval.isel(bound=1) >= node.loadings).all()
    twin = em.BayesianUnmixing(**step).fit(em.open(store))
    np.testing.assert_array_equal(node.components, twin.components_)
    page = em.report(result, tmp_path / "report.html")
    assert "Bayesian unmixing" in page.read_text(encoding="utf-8")
