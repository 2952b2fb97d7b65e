"""Uncertainty: what it holds of the truth, the same bits everywhere, and what it refuses."""

from __future__ import annotations

import pickle

import dask
import numpy as np
import pytest
import xarray as xr

import emcube as em
from benchmarks.calibration import ANSWERS
from benchmarks.coverage import LEVEL, TARGETS, study
from benchmarks.coverage import stripes as scene
from emcube.engine import use_threads
from emcube.errors import InputError, NotFittedError


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    return scene(150.0).draw(np.random.default_rng(0)).chunk(y=12)


@pytest.fixture(scope="module")
def nmf(cube):
    return em.MiniBatchNMF(3, random_state=0).fit(cube)


@pytest.fixture(scope="module")
def sure(nmf, cube):
    return em.uncertainty(nmf, cube, method="fisher")


def test_intervals_hold_what_they_promise():
    """A short form of ``python -m benchmarks.calibration``, with room for its own scatter."""
    for where in ("stripes", "stripes, nowhere pure"):
        found = study(ANSWERS["bootstrap"], where, 300.0, range(3))
        for stratum in found.strata:
            low, high = TARGETS[stratum]
            # Pixels of one realisation share the components' error: a few of them scatter by some percent.
            assert low - 0.05 <= found.share(stratum) <= min(high + 0.04, 1.0), stratum
    assert LEVEL == 0.9


@pytest.mark.parametrize("method", ["bootstrap", "thinning"])
def test_replicates_agree_with_the_information(nmf, cube, sure, method):
    """Where components are fixed by the data, the spread of refits is what the information says."""
    found = em.uncertainty(nmf, cube, method=method)
    big = nmf.components_.values > 0.01
    ratio = found.components_std.values[big] / sure.components_std.values[big]
    assert 0.7 < np.median(ratio) < 1.5
    shared = found.loadings_std_shared.sum() / sure.loadings_std_shared.sum()
    assert float(shared) > 0.4
    # What moves the fit is added, which the information does not know.
    assert float(shared) < 5.0
    # Counting is a matter of the pixel, whatever the method.
    np.testing.assert_array_equal(found.loadings_std_counting, sure.loadings_std_counting)


def test_another_field_of_view_is_less_sure_where_the_specimen_is_uneven(nmf, cube, sure):
    area = em.uncertainty(nmf, cube, method="area")
    assert np.isfinite(area.components_std.values).all()
    assert area.attrs["method"] == "area"
    assert float(area.components_std.sum()) > 0.5 * float(sure.components_std.sum())


def test_restarts_tell_how_many_came_to_the_same_end(nmf, cube):
    found = em.uncertainty(nmf, cube, method="restarts", n_replicates=3)
    assert len(found.attrs["restart_objectives"]) == 3
    assert 1 <= found.attrs["n_equivalent"] <= 3
    assert np.isfinite(found.loadings_interval.values).all()


def test_answers_are_labelled_lazy_and_have_their_signs(nmf, cube, sure):
    assert sure.loadings_std_counting.dims == ("y", "x", "component")
    assert sure.loadings_interval.dims == ("y", "x", "component", "bound")
    assert sure.components_interval.dims == ("component", "energy", "bound")
    assert list(sure.bound.values) == ["low", "high"]
    assert sure.loadings_interval.attrs["units"] == cube.attrs.get("units", "1")
    assert all("units" in v.attrs and "long_name" in v.attrs for v in sure.data_vars.values())

    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        lazy = em.uncertainty(nmf, cube, method="fisher")
        assert hasattr(lazy.loadings_interval.data, "dask")
    loadings = nmf.transform(cube)
    low, high = (sure.loadings_interval.sel(bound=b) for b in ("low", "high"))
    assert bool(((low >= 0) & (low <= loadings) & (loadings <= high)).all())
    # A loading of zero is uncertain in one direction.
    at_zero = loadings.values == 0.0
    assert at_zero.any()
    assert (low.values[at_zero] == 0.0).all()
    assert (high.values[at_zero] > 0.0).all()
    share = sure.rotation_share.values
    assert (share[:, 0] <= 1.0).all()
    assert (share[:, 1] >= 1.0).all()


@pytest.mark.parametrize("method", ["bootstrap", "area"])
def test_threads_give_the_same_bits(nmf, cube, method):
    found = []
    for n in (1, 3):
        with use_threads(n):
            one = em.uncertainty(nmf, cube, method=method, n_replicates=3)
            found.append(one.compute())
    xr.testing.assert_identical(*found)


def test_worker_processes_give_the_same_bits(nmf, cube, cluster_client):
    here = em.uncertainty(nmf, cube, method="bootstrap", n_replicates=3)
    with cluster_client.as_current():
        there = em.uncertainty(nmf, cube, method="bootstrap", n_replicates=3)
    for name in ("components_std", "rotation_range"):
        np.testing.assert_array_equal(here[name], there[name])


def test_freedom_that_counts_cannot_take_away_is_in_the_range_alone():
    """Without pure pixels a hundred times the counts make intervals small, not the range."""
    shares = []
    for counts in (300.0, 30_000.0):
        some = scene(counts, pure=False).draw(np.random.default_rng(1))
        model = em.MiniBatchNMF(3, random_state=0).fit(some)
        found = em.uncertainty(model, some, method="fisher")
        std = float(found.components_std.sum("energy").max())
        share = float(
            (found.rotation_share.isel(bound=1) - found.rotation_share.isel(bound=0)).max()
        )
        shares.append((std, share))
    assert shares[1][0] < 0.2 * shares[0][0]
    assert shares[1][1] > 0.1


def test_plain_arrays_fractions_abundances_and_least_squares():
    rng = np.random.default_rng(3)
    true = rng.dirichlet(np.full(30, 0.3), 2)
    counts = rng.poisson(80 * rng.dirichlet([0.4, 0.4], 300) @ true)
    plain = em.uncertainty(em.MiniBatchNMF(2, random_state=0).fit(counts), counts, method="fisher")
    assert plain.loadings_std_counting.dims == ("pixel", "component")
    whole = em.MiniBatchNMF(2, random_state=0, pool=1).fit(counts)
    parts = em.MiniBatchNMF(2, random_state=0, pool=1, sum_to_one=True).fit(counts)
    a, b = (em.uncertainty(m, counts, method="fisher") for m in (whole, parts))
    total = counts.sum(axis=1)[:, None]
    np.testing.assert_allclose(b.loadings_std_counting * total, a.loadings_std_counting, rtol=1e-6)
    # Fractions are counts times what one is worth.
    small = counts / 1e3
    model = em.MiniBatchNMF(2, random_state=0, pool=1).fit(small)
    scaled = em.uncertainty(model, small, method="fisher")
    ratio = scaled.loadings_std_counting / (model.gain_ * 1e3)
    assert 0.5 < float((ratio * 1e3 / a.loadings_std_counting).median()) < 2.0
    # Least squares: what noise of a known size does.
    exact = 100 * rng.dirichlet([0.4, 0.4], 400) @ true
    noisy = exact + rng.normal(0, 0.05, exact.shape)
    flat = em.MiniBatchNMF(2, beta_loss="frobenius", random_state=0).fit(noisy)
    found = em.uncertainty(flat, noisy, method="fisher")
    assert found.attrs["noise_variance"] == pytest.approx(0.05**2, rel=0.05)
    both = (flat.transform(noisy) > 0).all(axis=1)
    s = flat.components_
    expected = 0.05 * np.sqrt(np.diagonal(np.linalg.inv(s @ s.T)))
    np.testing.assert_allclose(
        found.loadings_std_counting.values[both], np.tile(expected, (both.sum(), 1)), rtol=0.05
    )
    wild = em.uncertainty(flat, noisy, method="bootstrap")
    big = s > 0.01
    ratio = wild.components_std.values[big] / found.components_std.values[big]
    assert 0.6 < np.median(ratio) < 1.6
    with pytest.raises(InputError, match="deals counts"):
        em.uncertainty(flat, noisy, method="thinning")


def test_a_selection_counts_only_what_it_selects(cube):
    where = (cube.y < 14).broadcast_like(cube.isel(energy=0, drop=True)) & (
        xr.DataArray(np.arange(60) > 3, dims="energy", coords={"energy": cube.energy})
        if "energy" in cube.coords
        else xr.DataArray(np.arange(60) > 3, dims="energy")
    )
    pixels = (cube.y < 14).broadcast_like(cube.isel(energy=0, drop=True))
    nmf = em.MiniBatchNMF(3, random_state=0).fit(cube, where=where)
    found = em.uncertainty(nmf, cube, where=pixels, method="fisher").compute()
    assert np.isnan(found.components_std.values[:, :4]).all()
    assert np.isnan(found.loadings_std_counting.values[14:]).all()
    assert np.isfinite(found.loadings_interval.values[:14]).all()
    poisoned = cube.copy(data=np.where(pixels.values[..., None], cube.values, 999))
    again = em.uncertainty(nmf, poisoned, where=pixels, method="fisher")
    np.testing.assert_array_equal(found.components_std, again.components_std)


def test_the_range_of_any_model_holds_its_answer(cube):
    vca = em.VCA(3, random_state=0).fit(cube)
    found = em.rotation_range(vca, cube).compute()
    low, high = (found.rotation_range.isel(bound=i) for i in (0, 1))
    assert bool((low <= vca.components_ + 1e-9).all() & (vca.components_ <= high + 1e-9).all())
    share = found.rotation_share.values
    assert (share[:, 0] <= 1.0).all()
    assert (share[:, 1] >= 1.0).all()
    assert found.loadings_rotation_range.dims == ("y", "x", "component", "bound")


def test_halves_and_replicates_have_the_spread_of_their_formulas():
    from emcube.models.uncertainties import spread

    apart = np.random.default_rng(0).normal(0.3, 1.0, (2000, 4))
    variance, moved = spread(iter(apart), paired=False)
    np.testing.assert_allclose(variance, apart.var(axis=0, ddof=1))
    np.testing.assert_allclose(moved, apart.mean(axis=0))
    # Of independent halves: half the difference has half the variance of one of them.
    halves, _ = spread(iter(apart), paired=True)
    np.testing.assert_allclose(halves, 0.5, rtol=0.15)


def test_what_cannot_be_answered_is_refused(nmf, cube):
    with pytest.raises(NotFittedError):
        em.uncertainty(em.MiniBatchNMF(3), cube)
    with pytest.raises(InputError, match="not negative are expected, got a smallest value"):
        em.uncertainty(em.IncrementalPCA(3).fit(cube), cube)
    with pytest.raises(InputError, match="a fitted model is expected"):
        em.uncertainty(cube, cube)
    with pytest.raises(InputError, match="level must be"):
        em.uncertainty(nmf, cube, level=90)
    with pytest.raises(InputError, match="method must be one of"):
        em.uncertainty(nmf, cube, method="jackknife")
    with pytest.raises(InputError, match="makes no replicates"):
        em.uncertainty(nmf, cube, method="fisher", n_replicates=10)
    with pytest.raises(InputError, match="from 2 on"):
        em.uncertainty(nmf, cube, method="bootstrap", n_replicates=1)
    with pytest.raises(InputError, match="fitted on"):
        em.uncertainty(nmf, cube.isel(energy=slice(30)))


def test_errors_fall_with_counts_as_counting_says(nmf, cube):
    found = em.errors_by_counts(nmf, cube, shares=(0.5, 0.125))
    assert found.angle.sizes == {"share": 3, "component": 3}
    assert (found.angle.sel(share=0.125) > found.angle.sel(share=0.5)).all()
    ratio = found.angle.sel(share=0.5) / found.expected.sel(share=0.5)
    assert 0.4 < float(ratio.mean()) < 2.5
    assert em.plot.errors_by_counts(found) is not None
    with pytest.raises(InputError, match=r"at most 0\.5"):
        em.errors_by_counts(nmf, cube, shares=(0.7,))


def test_a_block_function_pickles(nmf, cube):
    from emcube.models.information import fitted_of
    from emcube.models.labels import as_source
    from emcube.models.uncertainties import evaluate

    found = evaluate(
        fitted_of(nmf), cube, None, level=0.9, method="fisher", n_replicates=None, seed=0
    )
    source, _ = as_source(cube)
    block = source.load(0)
    a = found.pixels(block)
    b = pickle.loads(pickle.dumps(found.pixels))(block)
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name])


def test_bands_are_drawn(nmf, cube, sure):
    figure = em.plot.bands(sure.assign(components=nmf.components_))
    assert len(figure.axes) == 3
    with pytest.raises(InputError, match="expected components"):
        em.plot.bands(sure)
