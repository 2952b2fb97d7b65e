"""Windows in any unit, and where= in every form."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pint
import pytest
import xarray as xr

from emcube.cube import channel_slice, make_cube, resolve_where
from emcube.errors import SelectionError, UnitsError
from tests.cube.helpers import eds, lazily


@pytest.mark.parametrize(
    "bounds",
    [
        (0.5, 0.6),
        ("0.5 keV", "0.6 keV"),
        ("500 eV", "0.6"),
        ["5e2eV", "600.0 eV"],
        (np.float32(0.5), 0.6),
        pint.UnitRegistry().Quantity([500, 600], "eV"),
    ],
    ids=str,
)
def test_windows_in_any_compatible_unit(bounds: Any) -> None:
    cube = eds()
    with lazily():
        cut = cube.em.window(energy=bounds)
    # Both ends are channels: 0.50, 0.52 ... 0.60 keV.
    assert cut.sizes["energy"] == 6
    xr.testing.assert_identical(cut, cube.isel(energy=slice(25, 31)))
    assert cut.dtype == np.uint8


def test_unit_of_plain_numbers_and_open_ends() -> None:
    cube = eds()
    assert cube.em.window("eV", energy=(500, 600)).sizes["energy"] == 6
    assert cube.em.window(unit="eV", energy=("0.5 keV", 600)).sizes["energy"] == 6
    assert channel_slice(cube, "energy", (None, "100 eV")) == slice(0, 6)
    assert channel_slice(cube, "energy", (7.9, None)) == slice(395, 400)
    assert cube.em.window(energy=(1, 2), y=("5 nm", "0.012 um")).sizes["y"] == 2


def test_windows_of_axes_that_fall() -> None:
    cube = eds().isel(y=slice(None, None, -1))
    np.testing.assert_array_equal(cube.em.window(y=(4, 11)).y, [10, 5])


@pytest.mark.parametrize(
    ("window", "error", "message"),
    [
        ({"energy": (9, 10)}, SelectionError, "no channel between 9 and 10 keV; .* 0 to 7.98 keV"),
        ({"energy": (0.501, 0.502)}, SelectionError, "no channel"),
        ({"energy": (2, 1)}, SelectionError, "exchange the ends"),
        ({"energy": 2}, SelectionError, "expected two ends"),
        ({"energy": "12"}, SelectionError, "expected two ends"),
        ({"energy": (1, 2, 3)}, SelectionError, "expected two ends"),
        ({"energy": (1, "two")}, SelectionError, "'two'"),
        ({"energy": (1, np.nan)}, SelectionError, "NaN"),
        ({"energy": (1, [2])}, SelectionError, "expected a number"),
        ({"energy": ("1 nm", "2 nm")}, UnitsError, "window of 'energy'"),
        ({"energy": ("1 parsnip", 2)}, UnitsError, "parsnip"),
        ({"wavelength": (1, 2)}, SelectionError, "dims \\('y', 'x', 'energy'\\)"),
        ({}, SelectionError, "no dim is given"),
    ],
)
def test_windows_that_cannot_be(window: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        eds().em.window(**window)


def test_windows_need_an_axis_in_order() -> None:
    cube = xr.DataArray(np.ones(3), {"x": [0, 5, 1]})
    with pytest.raises(SelectionError, match="sortby"):
        cube.em.window(x=(0, 2))
    with pytest.raises(SelectionError, match=r"cube.sel\(line"):
        xr.DataArray(np.ones(2), {"line": ["a", "b"]}).em.window(line=(0, 2))


# --- where ----------------------------------------------------------------------------------------


def test_where_over_pixels() -> None:
    cube = eds()
    where = cube.em.total_counts() > 200
    nav, sig = resolve_where(cube, where)
    assert sig is None
    assert nav is not None
    assert nav.dims == ("y", "x")
    assert not hasattr(nav.data, "dask")
    np.testing.assert_array_equal(nav, cube.values.sum(-1) > 200)
    np.testing.assert_array_equal(nav.y, cube.y)
    # The order of dims is the cube's, whatever that of the selection.
    turned, _ = resolve_where(cube, where.T)
    xr.testing.assert_identical(turned, nav)


def test_where_over_some_navigation_dims_is_spread() -> None:
    cube = eds()
    nav, _ = resolve_where(cube, cube.y < 12)
    assert nav is not None
    assert nav.shape == (6, 7)
    np.testing.assert_array_equal(nav.all("x"), cube.y < 12)


def test_where_over_channels_and_both() -> None:
    cube = eds()
    pixels, channels = cube.em.total_counts() > 200, cube.energy > 1
    nav, sig = resolve_where(cube, channels)
    assert nav is None
    xr.testing.assert_equal(sig, channels)
    expected = resolve_where(cube, [pixels, channels])
    for both in ((pixels, channels), pixels & channels, (channels & pixels).transpose("x", ...)):
        for got, want in zip(resolve_where(cube, both), expected, strict=True):
            assert got is not None
            assert got.identical(want)
    nav, _ = resolve_where(cube, (pixels, cube.x > 2, channels))
    xr.testing.assert_equal(nav, (pixels & (cube.x > 2)).compute())


def test_no_where_is_everything() -> None:
    assert resolve_where(eds(), None) == (None, None)


def test_a_selection_over_both_must_be_separable() -> None:
    cube = eds()
    full = (cube.em.total_counts() > 0) & (cube.energy > 1)
    ragged = full.copy(data=full.data).compute()
    ragged[2, 3, 300] = False
    with pytest.raises(SelectionError, match=r"different channels for different pixels"):
        resolve_where(cube, ragged)
    with pytest.raises(SelectionError, match=r"different channels for different pixels"):
        resolve_where(cube, ragged.chunk(x=2))


def bool_array(dims: Any, shape: tuple[int, ...], **coords: Any) -> xr.DataArray:
    return xr.DataArray(np.ones(shape, bool), coords, dims)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (np.ones((6, 7), bool), "got ndarray"),
        ([np.ones((6, 7), bool)], "got ndarray"),
        ("all", "got str"),
        (bool_array("y", (6,)).astype(int), "expected bool"),
        (bool_array("tilt", (6,)), "dims of the cube"),
        (bool_array((), ()), "dims of the cube"),
        (bool_array("y", (5,)), "'y' has 5 positions, the cube has 6"),
        (bool_array("y", (6,), y=[0, 5, 10, 15, 20, 26]), "position 5 is 26, expected 25"),
        (~bool_array("y", (6,)), "no pixel is left of 42"),
        (~bool_array("energy", (400,)), "no channel is left"),
        (
            [
                bool_array("y", (6,)) & (np.arange(6) > 2),
                bool_array("y", (6,)) & (np.arange(6) < 2),
            ],
            "no pixel is left",
        ),
    ],
)
def test_wheres_that_do_not_fit(where: Any, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        resolve_where(eds(), where)


def test_where_follows_a_crop_of_both() -> None:
    cube = eds()
    where = cube.em.total_counts() > 200
    resolve_where(cube.isel(y=slice(2)), where.isel(y=slice(2)))
    with pytest.raises(SelectionError, match="position 0 is 20"):
        resolve_where(cube.isel(y=slice(2)), where.isel(y=slice(4, 6)))


def test_selection_of_a_large_lazy_cube_is_one_pass() -> None:
    array = da.random.default_rng(0).poisson(1, (40, 20, 30), chunks=(10, 20, 30))
    cube = make_cube(array, dims=("y", "x", "energy"))
    full = (cube.y > 3) & (cube.energy > 5) & (cube >= 0)
    nav, sig = resolve_where(cube, full)
    assert nav is not None
    assert sig is not None
    assert (int(nav.sum()), int(sig.sum())) == (36 * 20, 24)
