"""Net counts of X-ray lines against hand computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from emcube.cube import make_cube
from emcube.errors import CubeError, InputError, SelectionError, UnitsError
from emcube.xray import fwhm, line_energy
from tests.cube.helpers import eds, lazily

DIMS = ("y", "x", "energy")


def gauss(energy: np.ndarray[Any, Any], line: str, area: float) -> np.ndarray[Any, Any]:
    sigma = float(fwhm(line_energy(line))) / 2.3548
    step = energy[1] - energy[0]
    shape = np.exp(-0.5 * ((energy - line_energy(line)) / sigma) ** 2)
    return area * step * shape / (sigma * np.sqrt(2 * np.pi))


def test_a_line_on_a_slope_gives_its_area() -> None:
    energy = 0.005 * np.arange(2000)
    slope = 50 - 3 * energy
    spectrum = slope + gauss(energy, "Si_Ka", 1e4) + gauss(energy, "Ni_Ka", 2e4)
    cube = make_cube(
        np.tile(spectrum, (2, 3, 1)), DIMS, coords={"energy": energy}, units={"energy": "keV"}
    )
    with lazily():
        maps = cube.em.lines(["Ni_Ka", "Si_Ka", "Fe_Ka"])
    assert maps.dims == ("y", "x", "line")
    assert maps.em.sig_dims == ("line",)
    # Within two FWHM lie 98.15 % of a Gaussian; Ni Kb reaches no window here.
    np.testing.assert_allclose(maps[0, 0, :2], [0.9815 * 2e4, 0.9815 * 1e4], rtol=5e-3)
    np.testing.assert_allclose(maps.sel(line="Fe_Ka"), 0, atol=1)
    np.testing.assert_allclose(
        maps.window_high - maps.window_low, 2 * fwhm(np.array(maps.energy)), rtol=1e-9
    )


def test_every_channel_is_counted_as_said() -> None:
    cube = eds()
    maps = cube.em.lines("Si_Ka", width=1.5, gap=1.0, background_width=0.8, resolution_eV=140)
    values, axis = cube.values.astype(float), cube.energy.values
    center, half = line_energy("Si_Ka"), float(fwhm(line_energy("Si_Ka"), 140.0))
    peak = abs(axis - center) <= 0.75 * half
    low = (axis >= center - 1.8 * half) & (axis <= center - half)
    high = (axis >= center + half) & (axis <= center + 1.8 * half)
    share = (axis[peak].mean() - axis[low].mean()) / (axis[high].mean() - axis[low].mean())
    under = (1 - share) * values[..., low].mean(-1) + share * values[..., high].mean(-1)
    net = values[..., peak].sum(-1) - peak.sum() * under
    np.testing.assert_allclose(maps.isel(line=0), net, rtol=1e-12, atol=1e-12)
    assert float(maps.background_low_low[0]) == pytest.approx(center - 1.8 * half)
    assert float(maps.background_high_high[0]) == pytest.approx(center + 1.8 * half)
    gross = cube.em.lines("Si_Ka", width=1.5, resolution_eV=140, background=False)
    np.testing.assert_array_equal(gross.isel(line=0), values[..., peak].sum(-1))
    assert np.isnan(gross.background_low_low).all()


def test_units_chunks_and_order_of_dims_do_not_matter() -> None:
    cube = eds(companions={"HAADF": np.ones((6, 7))})
    maps = cube.em.lines(["Si_Ka", "Fe_Ka"])
    assert "HAADF" in maps.coords
    in_eV = cube.assign_coords(
        energy=xr.DataArray(1e3 * cube.energy.values, dims="energy", attrs={"units": "eV"})
    )
    np.testing.assert_allclose(in_eV.em.lines(["Si_Ka", "Fe_Ka"]), maps, rtol=1e-9)
    assert float(in_eV.em.lines("Si_Ka").energy[0]) == pytest.approx(1740, abs=1)
    with lazily():
        split = cube.chunk(energy=90, y=4).em.lines(["Si_Ka", "Fe_Ka"])
        turned = cube.transpose("energy", "x", "y").em.lines(["Si_Ka", "Fe_Ka"])
    xr.testing.assert_identical(split.compute(), maps.compute())
    np.testing.assert_array_equal(turned.transpose("y", "x", "line"), maps)
    np.testing.assert_array_equal(cube.compute().em.lines(["Si_Ka", "Fe_Ka"]), maps)


def test_the_resolution_is_the_detectors() -> None:
    default = eds().em.lines("Si_Ka")
    assert default.attrs["energy_resolution_eV"] == 130
    assert default.attrs["energy_resolution_source"] == "default"
    fine = eds(metadata={"detector": {"energy_resolution_eV": 122.0}}).em.lines("Si_Ka")
    assert fine.attrs["energy_resolution_source"] == "metadata"
    assert float(fine.window_high[0]) < float(default.window_high[0])


def test_small_counts_do_not_overflow() -> None:
    cube = make_cube(
        np.full((2, 2, 400), 255, "u1"),
        DIMS,
        coords={"energy": 0.02 * np.arange(400)},
        units={"energy": "keV"},
    )
    assert float(cube.em.lines("Si_Ka", background=False)[0, 0, 0]) == 9 * 255
    np.testing.assert_allclose(cube.em.lines("Si_Ka"), 0, atol=1e-9)


def test_a_side_beyond_the_axis_is_left_out() -> None:
    cube = eds().em.window(energy=(1.6, 4))
    maps = cube.em.lines("Si_Ka")
    assert np.isnan(maps.background_low_low).all()
    assert np.isfinite(maps.background_high_low).all()
    axis, values = cube.energy.values, cube.values.astype(float)
    peak = (axis >= float(maps.window_low[0])) & (axis <= float(maps.window_high[0]))
    side = (axis >= float(maps.background_high_low[0])) & (
        axis <= float(maps.background_high_high[0])
    )
    net = values[..., peak].sum(-1) - peak.sum() * values[..., side].mean(-1)
    np.testing.assert_allclose(maps.isel(line=0), net, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        ([], {}, SelectionError, "no line is named"),
        (["Si_Ka", "Si_Ka"], {}, SelectionError, "named twice"),
        (["Si_Qa"], {}, InputError, "Qa"),
        (["Zr_Ka"], {}, SelectionError, "not within the axis, 0 to 7.98 keV"),
        (["Si_Ka"], {"width": 0}, SelectionError, "width=0"),
        (["Cr_Ka"], {"width": 0.01}, SelectionError, "holds no channel"),
        (["Si_Ka"], {"gap": 0.5}, SelectionError, "must not overlap"),
        (["Si_Ka"], {"gap": 90.0}, SelectionError, "background=False"),
    ],
)
def test_lines_that_cannot_be(
    names: list[str], options: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        eds().em.lines(names, **options)


def test_lines_need_an_energy_axis() -> None:
    with pytest.raises(CubeError, match="signal dims"):
        make_cube(np.ones((2, 2)), dims=("y", "x")).em.lines("Si_Ka")
    with pytest.raises(UnitsError):
        make_cube(np.ones((2, 400)), dims=("x", "energy")).em.lines("Si_Ka")


@pytest.mark.parametrize("options", [{"width": "150 eV"}, {"gap": None}])
def test_options_of_lines_are_numbers(options: dict[str, Any]) -> None:
    cube = make_cube(
        np.ones((2, 2, 500)),
        dims=("y", "x", "energy"),
        coords={"energy": 0.01 + 0.02 * np.arange(500)},
        units={"energy": "keV"},
    )
    with pytest.raises(SelectionError, match="expected a number of FWHM"):
        cube.em.lines(["Ni_Ka"], **options)


def test_a_navigation_dim_called_line_is_refused() -> None:
    cube = make_cube(np.ones((2, 3, 500)), dims=("line", "x", "energy"), sig_dims=("energy",))
    with pytest.raises(SelectionError, match="navigation dim 'line'"):
        cube.em.lines(["Ni_Ka"])
