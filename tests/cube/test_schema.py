"""What passes for a cube, and what the refusals say."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from emcube.cube import get_metadata, infer_sig_dims, nav_dims, sig_dims, validate_cube
from emcube.errors import CubeError
from tests.cube.helpers import eds, lazily


def axis(values: list[float], name: str = "energy", units: str = "eV") -> xr.DataArray:
    return xr.DataArray(values, dims=(name,), attrs={"units": units})


@pytest.mark.parametrize(
    ("dims", "units", "expected"),
    [
        (("y", "x", "energy"), {}, ("energy",)),
        (("y", "x", "Energy"), {}, ("Energy",)),
        (("y", "x", "z"), {"z": "keV"}, ("z",)),
        (("y", "x", "ky", "kx"), {}, ("ky", "kx")),
        (("a", "b", "c", "d"), {"c": "mrad", "d": "1/nm"}, ("c", "d")),
        (("y", "x", "component"), {}, ("component",)),
        (("y", "x", "wavelength"), {"wavelength": "nm"}, ("wavelength",)),
        (("tilt", "y", "x"), {"tilt": "deg", "y": "nm"}, ()),
    ],
)
def test_signal_dims_are_told_by_name_and_unit(
    dims: tuple[str, ...], units: dict[str, str], expected: tuple[str, ...]
) -> None:
    array = xr.DataArray(
        np.zeros((2,) * len(dims)),
        {d: xr.DataArray([0.0, 1.0], dims=(d,), attrs={"units": u}) for d, u in units.items()},
        dims,
    )
    assert infer_sig_dims(array) == expected
    assert sig_dims(array) == expected
    assert nav_dims(array) == tuple(d for d in dims if d not in expected)


def test_stated_signal_dims_win_and_vanish_with_the_dim() -> None:
    array = xr.DataArray(np.zeros((2, 3)), dims=("y", "energy"), attrs={"sig_dims": ["y"]})
    assert sig_dims(array) == ("y",)
    assert sig_dims(array.isel(y=0)) == ()
    # As NetCDF gives a list of one back.
    array.attrs["sig_dims"] = "energy"
    assert sig_dims(array) == ("energy",)
    array.attrs["sig_dims"] = [3]
    with pytest.raises(CubeError, match="sig_dims"):
        sig_dims(array)


def test_defaults_are_filled_in_without_reading() -> None:
    lazy = xr.DataArray(np.ones((2, 3), "uint8"), dims=("x", "energy")).chunk()
    with lazily():
        cube = validate_cube(lazy)
    assert cube.attrs == {"units": "counts", "sig_dims": ["energy"]}
    assert cube.x.attrs["units"] == "1"
    np.testing.assert_array_equal(cube.energy, [0, 1, 2])
    assert validate_cube(lazy.astype("f4")).attrs["units"] == "1"
    assert "units" not in lazy.attrs


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (xr.DataArray(np.ones((2, 3)), dims=("energy", "x")), r"cube.transpose\('x', 'energy'\)"),
        (
            xr.DataArray(np.ones(3), {"energy": axis([1, 3, 2])}),
            (
                r"energy must increase: channel 2 \(2 eV\) < channel 1 \(3 eV\); sort with "
                r"cube.sortby\('energy'\)"
            ),
        ),
        (xr.DataArray(np.ones(3), {"energy": axis([1, 2, 2])}), "drop_duplicates"),
        (xr.DataArray(np.ones(2), {"energy": axis([1, np.nan])}), "channel 1 is nan"),
        (xr.DataArray(np.ones(2, complex), dims=("x",)), "complex128"),
        (xr.DataArray(np.ones((2, 0)), dims=("x", "energy")), "length 0"),
        (xr.DataArray(np.ones(2), {"line": ["Si_Ka", "Si_Ka"]}), "twice"),
        (xr.DataArray(np.ones(2), {"energy": axis([1, 2], units=3)}), "units of 'energy'"),  # type: ignore[arg-type]
        (
            xr.DataArray(np.ones(2), dims="x", attrs={"metadata": {"beam_energy_keV": -1}}),
            "beam_energy_keV",
        ),
        (np.ones(3), "make_cube"),
    ],
)
def test_what_is_no_cube_is_refused(array: xr.DataArray, message: str) -> None:
    with pytest.raises(CubeError, match=message):
        validate_cube(array)


def test_unsigned_axes_are_compared_without_wrapping_round() -> None:
    array = xr.DataArray(np.ones(3), {"energy": ("energy", np.array([1, 3, 2], "uint16"))})
    with pytest.raises(CubeError, match="must increase"):
        validate_cube(array)


def test_names_serve_as_a_signal_axis() -> None:
    array = xr.DataArray(np.ones((2, 2)), {"line": ["Si_Ka", "O_Ka"]}, ("x", "line"))
    assert sig_dims(validate_cube(array)) == ("line",)


def test_identity_survives_what_xarray_does() -> None:
    cube = eds()
    for changed in (
        cube.isel(y=slice(2)),
        cube.sel(energy=slice(1, 2)),
        cube.isel(x=0),
        cube.sum("y"),
        cube * 2,
        cube + cube,
        cube.astype("f4"),
        cube.transpose("energy", ...),
        cube.where(cube > 1),
    ):
        assert changed.em.sig_dims == ("energy",)
        assert changed.em.modality == "EDS"
        assert get_metadata(changed).elements == ("Si", "O")
    assert cube.sum("energy").em.sig_dims == ()
    # Attributes may be dropped on the way: names still tell.
    assert cube.drop_attrs().em.sig_dims == ("energy",)
    assert cube.drop_attrs().em.modality is None


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize <= 8, reason="no wider floats here")
def test_more_than_64_bits_are_refused() -> None:
    with pytest.raises(CubeError, match="at most 64 bits"):
        validate_cube(xr.DataArray(np.ones(2, np.longdouble), dims=("energy",)))
