"""Residuals and chi-square: right where the truth is known, and where the model is not."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.errors import InputError
from emcube.kernels.residuals import channel_groups, residual_pixels, residual_sums
from emcube.results import fit_quality


@pytest.fixture(scope="module")
def scene():
    return em.scenes.jadeite(scale=0.01, random_state=0)


def test_kernels_are_their_slow_twins():
    rng = np.random.default_rng(0)
    data, loads = rng.poisson(3.0, (7, 12)).astype("u1"), rng.random((7, 2))
    spectra = rng.random((2, 12))
    spectra[:, 3] = np.nan
    loads[2] = np.nan
    used = np.delete(np.arange(12), 3)
    starts, weights = np.array([0, 4, 9]), np.array([1.0, 2.0, 0.5])
    found = residual_pixels(data, loads, spectra, starts, weights)
    for p in range(7):
        model = loads[p] @ spectra[:, used]
        rest = data[p, used] - model
        groups = [slice(0, 4), slice(4, 9), slice(9, 11)]
        top = sum(w * rest[g].sum() ** 2 for g, w in zip(groups, weights, strict=True))
        below = sum(w * model[g].sum() for g, w in zip(groups, weights, strict=True))
        np.testing.assert_allclose(found[p], [top / below, np.sqrt((rest**2).mean())], rtol=1e-12)
    sums = residual_sums(data, loads, spectra)
    rows = np.delete(np.arange(7), 2)
    model = loads[rows] @ spectra
    expected = [data[rows].sum(0), model.sum(0), ((data[rows] - model) ** 2).sum(0)]
    np.testing.assert_allclose(sums, expected, rtol=1e-12)


def test_groups_of_channels_hold_enough():
    mean = np.array([0.5, 0.6, 2.0, 0.1, 0.1, 0.9, 0.2])
    starts = channel_groups(mean, 1.0)
    assert starts.tolist() == [0, 2, 3]
    assert (np.add.reduceat(mean, starts) >= 1.0).all()
    assert channel_groups(mean, 100.0).tolist() == [0]


def test_of_the_truth_noise_alone_is_left(scene):
    quality = fit_quality(scene.cube, scene.loadings, scene.components).compute()
    # Nothing was fitted: chi-square is not made up for five degrees of freedom by more than it must.
    groups = 1.0 / (1.0 - 5 / 150)
    assert float(quality.chi_square.mean()) == pytest.approx(1.0, abs=0.02 + groups - 1)
    along = quality.chi_square_spectrum.where(quality.model_spectrum > 200)
    assert float(along.mean()) == pytest.approx(1.0, abs=0.02)
    total = scene.cube.sum(("y", "x")).values
    np.testing.assert_array_equal(quality.data_spectrum, total)
    np.testing.assert_allclose(quality.residual_spectrum, total - quality.model_spectrum)
    rest = scene.cube.values - scene.expected.values
    np.testing.assert_allclose(quality.residual, np.sqrt((rest**2).mean(-1)), rtol=1e-9)
    assert quality.residual.attrs["units"] == "counts"


def test_a_component_that_is_missing_shows_where_it_is(scene):
    four = [0, 1, 2, 4]
    quality = fit_quality(
        scene.cube, scene.loadings.isel(component=four), scene.components.isel(component=four)
    ).compute()
    grains = scene.loadings.isel(component=3).compute() > 100
    chi = quality.chi_square
    assert float(chi.where(grains).mean()) > 10
    assert float(chi.where(scene.loadings.isel(component=3) < 1e-6).mean()) == pytest.approx(
        1, abs=0.1
    )
    energy = quality["energy"]
    assert float(energy[int(np.nanargmax(quality.chi_square_spectrum.values))]) == pytest.approx(
        1.74, abs=0.06
    )


def test_nothing_is_read_before_it_is_asked_for_and_chunks_change_nothing(scene):
    lazy = fit_quality(scene.cube, scene.loadings, scene.components)
    assert isinstance(lazy.chi_square.data, da.Array)
    small = fit_quality(
        scene.cube.chunk({"y": 7, "x": 9, "energy": 400}), scene.loadings, scene.components
    )
    whole = fit_quality(scene.cube.compute(), scene.loadings.compute(), scene.components)
    for other in (small, whole):
        np.testing.assert_allclose(lazy.chi_square, other.chi_square, rtol=1e-9)
        np.testing.assert_allclose(lazy.chi_square_spectrum, other.chi_square_spectrum, rtol=1e-9)


def test_unused_pixels_and_channels_are_left_out(scene):
    loads = scene.loadings.where(scene.loadings["y"] > 300)
    spectra = scene.components.where(scene.components["energy"] > 1.0)
    quality = fit_quality(scene.cube, loads, spectra).compute()
    used = (scene.cube["y"] > 300).values
    assert np.isnan(quality.chi_square[~used]).all()
    assert np.isfinite(quality.chi_square[used]).all()
    np.testing.assert_array_equal(
        quality.data_spectrum, scene.cube.isel(y=used).sum(("y", "x")).values
    )
    assert np.isnan(quality.chi_square_spectrum.sel(energy=slice(0.0, 1.0))).all()


def test_values_that_are_no_counts_are_compared_with_their_mean():
    rng = np.random.default_rng(0)
    cube = em.make_cube(rng.normal(size=(5, 6, 40)), dims=("y", "x", "energy"))
    loads = xr.DataArray(np.zeros((5, 6, 1)), dims=("y", "x", "component"))
    spectra = xr.DataArray(np.ones((1, 40)), dims=("component", "energy"))
    quality = fit_quality(cube, loads, spectra).compute()
    assert float(quality.chi_square.mean()) == pytest.approx(1.0)
    assert "relative" in quality.chi_square.attrs["long_name"]


def test_what_does_not_fit_together_is_refused(scene):
    with pytest.raises(InputError, match="differ along 'x'"):
        fit_quality(scene.cube.isel(x=slice(5)), scene.loadings, scene.components)
    moved = scene.cube.assign_coords(energy=scene.cube["energy"] + 0.005)
    with pytest.raises(InputError, match="differ along 'energy'"):
        fit_quality(moved, scene.loadings, scene.components)
    with pytest.raises(InputError, match="have dims"):
        fit_quality(scene.cube, scene.loadings.isel(y=0), scene.components)
    with pytest.raises(InputError, match="3 loadings and 5 components"):
        fit_quality(scene.cube, scene.loadings.isel(component=slice(3)), scene.components)
