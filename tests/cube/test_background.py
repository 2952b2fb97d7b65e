"""Power-law backgrounds: exact on exact data, unbiased on noise, lazy, explicit about the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from emcube.cube import make_cube
from emcube.errors import SelectionError, UnitsError
from tests.cube.helpers import lazily

ENERGY = 60 + 0.3 * np.arange(201)


def eels(
    values: np.ndarray[Any, Any] | None = None, units: str = "eV", **kwargs: Any
) -> xr.DataArray:
    """A cube of power laws (exponents 1 to 6) with an edge at 99 eV."""
    if values is None:
        exponents = np.linspace(1, 6, 12).reshape(3, 4, 1)
        values = 1e4 * (ENERGY / 60) ** -exponents + edge()
    return make_cube(
        values,
        dims=("y", "x", "energy"),
        coords={"energy": ENERGY if units == "eV" else ENERGY / 1e3},
        units={"energy": units},
        metadata={"modality": "EELS"},
        **kwargs,
    )


def edge() -> np.ndarray[Any, Any]:
    return np.where(ENERGY > 99, 500 * np.exp(-(ENERGY - 99) / 20), 0)


def test_exact_power_laws_leave_the_edge_alone() -> None:
    cube = eels()
    with lazily():
        left = cube.em.remove_background(energy=(70.2, 97.2))
    np.testing.assert_allclose(
        left.sel(energy=slice(70.2, None)),
        np.broadcast_to(edge()[34:], (3, 4, 167)),
        atol=1e-5,
    )
    assert (left.sel(energy=slice(None, 70.1)) == 0).all()
    assert left.attrs == cube.attrs
    xr.testing.assert_identical(left.energy, cube.energy)


def test_the_background_may_be_subtracted_before_the_window_too() -> None:
    left = eels().em.remove_background(energy=(70.2, 97.2), zero_fill=False)
    np.testing.assert_allclose(left, np.broadcast_to(edge(), (3, 4, 201)), atol=1e-5)


def test_five_lines() -> None:
    s = eels()
    s_sig = s.em.remove_background(energy=(70.2, 97.2))
    s_crop = s_sig.isel(y=slice(1, 62)).sel(energy=slice(94.5, 110.1))
    (line,) = s_crop.sum(["y", "energy"]).plot()
    assert line.get_ydata().shape == (4,)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("u1", "f4"),
        ("u2", "f4"),
        ("u4", "f8"),
        ("i2", "f4"),
        ("f4", "f4"),
        ("f8", "f8"),
        (">u2", "f4"),
    ],
)
def test_dtypes(dtype: str, expected: str) -> None:
    counts = np.random.default_rng(0).poisson(40 * (ENERGY / 60) ** -3, (2, 3, 201)).astype(dtype)
    left = eels(counts).em.remove_background(energy=(70, 97))
    assert left.dtype == np.dtype(expected)
    reference = eels(counts.astype("f8")).em.remove_background(energy=(70, 97))
    np.testing.assert_allclose(left, reference, rtol=1e-5, atol=1e-5)


def test_units_chunks_and_order_of_dims_do_not_matter() -> None:
    cube = eels()
    want = cube.em.remove_background(energy=(70.2, 97.2)).compute()
    for bounds, unit in ((("70.2 eV", "0.0972 keV"), None), ((0.0702, 0.0972), "keV")):
        xr.testing.assert_identical(cube.em.remove_background(unit, energy=bounds).compute(), want)
    np.testing.assert_allclose(
        eels(units="keV").em.remove_background("eV", energy=(70.2, 97.2)), want, atol=1e-6
    )
    with lazily():
        split = cube.chunk(energy=40, x=3).em.remove_background(energy=(70.2, 97.2))
        turned = cube.transpose("energy", "x", "y").em.remove_background(energy=(70.2, 97.2))
    np.testing.assert_allclose(split, want, atol=1e-9)
    assert turned.dims == ("energy", "x", "y")
    np.testing.assert_allclose(turned.transpose("y", "x", "energy"), want, atol=1e-9)
    xr.testing.assert_allclose(cube.compute().em.remove_background(energy=(70.2, 97.2)), want)


def test_whole_spectra_are_not_rechunked() -> None:
    cube = eels().chunk(y=1, x=2)
    assert cube.em.remove_background(energy=(70, 97)).chunks == cube.chunks


def test_noise_leaves_no_bias() -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(200 * (ENERGY / 60) ** -3, (60, 60, 201)).astype("u2")
    left = eels(counts).em.remove_background(energy=(70.2, 97.2)).astype("f8")
    mean = left.sel(energy=slice(98, 119)).mean()
    # 3600 pixels, 70 channels: the extrapolated background is uncertain by about 2 counts a pixel.
    assert abs(float(mean)) < 0.15
    within = left.sel(energy=slice(70.2, 97.2)).sum("energy")
    np.testing.assert_allclose(within, 0, atol=0.05)


def test_pixels_that_hold_little_or_nothing() -> None:
    counts = np.zeros((1, 6, 201))
    first, second = np.arange(34, 79), np.arange(79, 124)
    counts[0, 1, second] = 2.0  # nothing in the first half: a flat background
    counts[0, 2, first] = 2.0  # nothing in the second: the steepest
    counts[0, 3, first] = -3.0  # negative in all: none
    counts[0, 4, 150] = 7.0  # nothing in the window
    counts[0, 5, 60] = np.nan
    left = eels(counts).em.remove_background(energy=(70.2, 97.0)).values[0]
    assert (left[0] == 0).all()
    np.testing.assert_allclose(left[1, 124:], -1.0, atol=0.02)
    assert np.isfinite(left[2]).all()
    assert (abs(left[2, 124:]) < 0.1).all()
    np.testing.assert_allclose(left[2, 34:124].sum(), 0, atol=1e-9)
    np.testing.assert_array_equal(left[3, 34:], counts[0, 3, 34:])
    np.testing.assert_array_equal(left[4], counts[0, 4])
    assert np.isnan(left[5, 34:]).all()


@pytest.mark.parametrize(
    ("window", "error", "message"),
    [
        ({}, SelectionError, "expected one dim"),
        ({"energy": (70, 90), "x": (0, 1)}, SelectionError, "expected one dim"),
        ({"energy": (70.2, 70.3)}, SelectionError, "holds one channel"),
        ({"energy": (10, 20)}, SelectionError, "no channel"),
        ({"energy": ("1 nm", "2 nm")}, UnitsError, "window of 'energy'"),
    ],
)
def test_windows_that_cannot_be(window: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        eels().em.remove_background(**window)


def test_energies_must_be_positive_where_they_are_used() -> None:
    cube = eels().assign_coords(
        energy=xr.DataArray(ENERGY - 75, dims="energy", attrs={"units": "eV"})
    )
    with pytest.raises(SelectionError, match="positive"):
        cube.em.remove_background(energy=(-4, 20))
    with pytest.raises(SelectionError, match="zero_fill=True"):
        cube.em.remove_background(energy=(5, 20), zero_fill=False)
    cube.em.remove_background(energy=(5, 20)).compute()
    with pytest.raises(SelectionError, match="does not increase"):
        eels().isel(energy=slice(None, None, -1)).em.remove_background(energy=(70, 90))
