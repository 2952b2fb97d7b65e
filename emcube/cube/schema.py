"""What a labelled cube is: dims, signal axes, units, and the checks that hold it to that.

A cube is a plain :class:`xarray.DataArray`. Its dims are navigation dims (where or when: ``y``,
``x``, ``tilt``, ``time``) followed by signal dims (what was recorded there: ``energy``, or ``ky``,
``kx``). ``attrs["sig_dims"]`` names the signal dims; without it they are told by their names and
units, so that arrays which never saw emcube open too.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import CubeError

if TYPE_CHECKING:
    from emcube.cube.metadata import Metadata

__all__ = [
    "axis_units",
    "check_dims",
    "get_metadata",
    "infer_sig_dims",
    "nav_dims",
    "sig_dims",
    "validate_cube",
]

#: Names which only signal dims carry, in lower case.
SIGNAL_NAMES = frozenset(
    {
        "energy",
        "energy_loss",
        "wavelength",
        "wavenumber",
        "kx",
        "ky",
        "qx",
        "qy",
        "component",
        "line",
    }
)

#: Units which only signal axes are measured in: energies, reciprocal lengths, scattering angles.
#: Lengths are left out (nm is also a position) and so are degrees (a tilt).
SIGNAL_UNITS = frozenset(
    {
        "meV", "eV", "keV", "MeV", "electron_volt", "kiloelectron_volt",
        "1/m", "1/um", "1/µm", "1/nm", "1/Å", "1/A", "1/angstrom", "1/pm",
        "m^-1", "nm^-1", "Å^-1", "A^-1", "angstrom^-1", "nm⁻¹", "Å⁻¹", "nm**-1", "angstrom**-1",
        "mrad", "rad",
    }
)  # fmt: skip

#: Value of ``attrs["units"]`` that says: a pure number.
DIMENSIONLESS = "1"


def axis_units(cube: xr.DataArray, dim: Hashable) -> str:
    """Return the unit of the coordinate of ``dim``; ``"1"`` where none is given."""
    if dim not in cube.coords:
        return DIMENSIONLESS
    unit = cube.coords[dim].attrs.get("units")
    return DIMENSIONLESS if unit in (None, "") else str(unit)


def infer_sig_dims(cube: xr.DataArray) -> tuple[str, ...]:
    """Tell signal dims by their names, or by the units of their coordinates.

    Returns
    -------
    tuple of str
        In the order of the array's dims; empty for an image.
    """
    return tuple(
        str(dim)
        for dim in cube.dims
        if str(dim).lower() in SIGNAL_NAMES or axis_units(cube, dim) in SIGNAL_UNITS
    )


def _stated_sig_dims(cube: xr.DataArray) -> tuple[str, ...] | None:
    stated = cube.attrs.get("sig_dims")
    if stated is None:
        return None
    # NetCDF and some Zarr writers give a list of one back as a plain string, or lists as arrays.
    names = [stated] if isinstance(stated, str) else list(np.asarray(stated, dtype=object).ravel())
    if not all(isinstance(name, str) for name in names):
        raise CubeError(
            f"attrs['sig_dims'] of the cube: got {stated!r}, expected a list of dim names",
            hint="set cube.attrs['sig_dims'] = ['energy'] or the like",
        )
    return tuple(names)


def sig_dims(cube: xr.DataArray) -> tuple[str, ...]:
    """Return the names of the signal dims that the cube (still) has, in the order of its dims.

    ``attrs["sig_dims"]`` may name dims that a sum or a selection has removed since: those are left
    out.
    """
    stated = _stated_sig_dims(cube)
    if stated is None:
        return infer_sig_dims(cube)
    return tuple(str(dim) for dim in cube.dims if dim in stated)


def nav_dims(cube: xr.DataArray) -> tuple[str, ...]:
    """Return the names of the navigation dims: every dim that is not a signal dim."""
    signal = sig_dims(cube)
    return tuple(str(dim) for dim in cube.dims if dim not in signal)


def get_metadata(cube: xr.DataArray) -> Metadata:
    """Return the cube's metadata as a typed model; empty where it has none.

    Raises
    ------
    CubeError
        A stored value has a wrong type or is out of range.
    """
    from emcube.cube.metadata import Metadata

    return Metadata.from_attrs(cube.attrs.get("metadata") or {})


def check_dims(dims: Iterable[Hashable], signal: Iterable[str]) -> None:
    """Raise unless dims are unique strings with all navigation dims before all signal dims.

    Raises
    ------
    CubeError
        Names the dims and the order that would do.
    """
    dims, signal = tuple(dims), tuple(signal)
    bad = [dim for dim in dims if not isinstance(dim, str) or not dim]
    if bad:
        raise CubeError(
            f"dims of the cube: got {bad[0]!r}, expected names (strings)",
            hint="rename with cube.rename({old: 'new'})",
        )
    twice = sorted({str(dim) for dim in dims if dims.count(dim) > 1})
    if twice:
        raise CubeError(
            f"dims of the cube must be unique: {twice[0]!r} occurs {dims.count(twice[0])} times in {dims}",
            hint="give every dim its own name",
        )
    unknown = [name for name in signal if name not in dims]
    if unknown:
        raise CubeError(
            f"signal dims {tuple(signal)}: {unknown[0]!r} is not among the dims {dims}",
            hint="name dims that the array has, for example sig_dims=('energy',)",
        )
    expected = tuple(d for d in dims if d not in signal) + tuple(d for d in dims if d in signal)
    if dims != expected:
        raise CubeError(
            f"dims of the cube must be navigation dims, then signal dims: got {dims}, "
            f"expected {expected}",
            hint=f"reorder with cube.transpose{expected}",
        )


def _check_signal_axis(cube: xr.DataArray, dim: str) -> None:
    coord = cube.coords[dim]
    values, unit = np.asarray(coord.values), axis_units(cube, dim)
    if values.dtype.kind in "OUST":
        # A signal axis may be a list of names (X-ray lines); then it only has to be unambiguous.
        names = [str(value) for value in values]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise CubeError(
                f"coordinate of signal dim {dim!r}: {twice!r} occurs twice, expected unique names",
                hint=f"drop one with cube.drop_duplicates({dim!r})",
            )
        return
    if values.dtype.kind not in "iuf":
        raise CubeError(
            f"coordinate of signal dim {dim!r}: got dtype {values.dtype}, expected real numbers",
            hint=f"assign numbers with cube.assign_coords({dim}=...)",
        )
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise CubeError(
            f"coordinate of signal dim {dim!r}: channel {at} is {values[at]}, expected a number",
            hint=f"assign a full axis with cube.assign_coords({dim}=...)",
        )
    # Compared as they are, not by np.diff: unsigned differences would wrap around.
    wrong = np.flatnonzero(values[1:] <= values[:-1])
    if wrong.size:
        at = int(wrong[0]) + 1
        relation = "<" if values[at] < values[at - 1] else "="
        shown = "" if unit == DIMENSIONLESS else f" {unit}"
        raise CubeError(
            f"{dim} must increase: channel {at} ({values[at]:g}{shown}) {relation} "
            f"channel {at - 1} ({values[at - 1]:g}{shown})",
            hint=f"sort with cube.sortby({dim!r})"
            if relation == "<"
            else f"drop repeated channels with cube.drop_duplicates({dim!r})",
        )


def _with_axes(cube: xr.DataArray) -> xr.DataArray:
    """Return the cube with a coordinate on every dim; a missing one is 0..n-1, dimensionless."""
    new: dict[Hashable, xr.DataArray] = {}
    for dim in cube.dims:
        if dim not in cube.coords:
            index = np.arange(cube.sizes[dim])
            new[dim] = xr.DataArray(index, dims=(dim,), attrs={"units": DIMENSIONLESS})
        elif not cube.coords[dim].attrs.get("units"):
            coord = cube.coords[dim]
            # A coordinate of names has no unit.
            if coord.dtype.kind in "iuf":
                new[dim] = xr.DataArray(
                    coord.values, dims=(dim,), attrs={**coord.attrs, "units": DIMENSIONLESS}
                )
        elif not isinstance(cube.coords[dim].attrs["units"], str):
            raise CubeError(
                f"units of {dim!r}: got {cube.coords[dim].attrs['units']!r}, expected a string",
                hint=f"set cube[{dim!r}].attrs['units'] = 'keV' or the like",
            )
    return cube.assign_coords(new) if new else cube


def default_units(dtype: np.dtype[Any]) -> str:
    """Return the unit of values nobody gave one to: integers count, the rest are pure numbers."""
    return "counts" if dtype.kind in "iu" else DIMENSIONLESS


def validate_cube(cube: xr.DataArray) -> xr.DataArray:
    """Check that an array is a cube and return it with its defaults filled in; reads no data.

    Missing coordinates become 0..n-1, missing units "1" (integers: "counts"), and
    ``attrs["sig_dims"]`` is written down. Values are not looked at: that would read them.

    Parameters
    ----------
    cube : xarray.DataArray
        Navigation dims, then signal dims.

    Returns
    -------
    xarray.DataArray
        The same data.

    Raises
    ------
    CubeError
        Dims are not unique or out of order, a signal axis does not increase, the dtype is not one
        of real numbers, a dim is empty, or the metadata do not hold.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> cube = validate_cube(xr.DataArray(np.ones((2, 3), "uint8"), dims=("x", "energy")))
    >>> cube.attrs["sig_dims"], cube.attrs["units"]
    (['energy'], 'counts')
    """
    if not isinstance(cube, xr.DataArray):
        raise CubeError(
            f"a cube is an xarray.DataArray: got {type(cube).__name__}",
            hint="label plain arrays with emcube.make_cube(counts, dims=...)",
        )
    if cube.dtype.kind not in "iuf":
        raise CubeError(
            f"dtype of the cube: got {cube.dtype}, expected integers or real floating point",
            hint="convert with cube.astype(...), or take the part you mean (cube.real, a colour)",
        )
    if cube.dtype.itemsize > 8:
        raise CubeError(
            f"dtype of the cube: got {cube.dtype}, expected at most 64 bits",
            hint="convert with cube.astype('float64')",
        )
    signal = sig_dims(cube)
    check_dims(cube.dims, signal)
    empty = [dim for dim, size in cube.sizes.items() if size == 0]
    if empty:
        raise CubeError(
            f"the cube is empty: dim {empty[0]!r} has length 0 (shape {cube.shape})",
            hint="widen the selection that made it",
        )
    cube = _with_axes(cube)
    for dim in signal:
        _check_signal_axis(cube, dim)
    get_metadata(cube)
    units = cube.attrs.get("units") or default_units(cube.dtype)
    return cube.assign_attrs(units=units, sig_dims=list(signal))
