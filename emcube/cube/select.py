"""Select from a cube: windows in any compatible unit, and ``where=`` (True is what is used)."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from emcube.cube.schema import axis_units, nav_dims, sig_dims
from emcube.errors import SelectionError, UnitsError

__all__ = ["channel_slice", "resolve_where", "window"]

#: One end of a window: a number in the unit of the axis (or in ``unit=``), text such as "7.4 keV", a
#: quantity of pint or astropy, or None for the end of the axis.
Bound = float | str | None | Any

_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*")


def _bound(value: Bound, axis_unit: str, unit: str | None, dim: str) -> float | None:
    """Return one end of a window in the unit of the axis."""
    if value is None:
        return None
    own: str | None = unit
    number: Any = value
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value)
        if match is None:
            raise SelectionError(
                f"window of {dim!r}: got {value!r}, expected a number with a unit",
                hint="write it as '7.4 keV'",
            )
        number, own = float(match[1]), match[2] or unit
    elif hasattr(value, "magnitude") and hasattr(value, "units"):  # pint
        number, own = value.magnitude, str(value.units)
    elif hasattr(value, "value") and hasattr(value, "unit"):  # astropy
        number, own = value.value, str(value.unit)
    try:
        number = float(number)
    except (TypeError, ValueError):
        raise SelectionError(
            f"window of {dim!r}: got {value!r}, expected a number",
            hint="give both ends, for example (0.5, 0.6) or ('0.5 keV', '600 eV')",
        ) from None
    if np.isnan(number):
        raise SelectionError(
            f"window of {dim!r}: got NaN, expected a number", hint="use None for an open end"
        )
    if own is None or own == axis_unit:
        return float(number)
    from emcube.units import convert

    try:
        return float(convert(number, own, axis_unit))
    except UnitsError as error:
        raise UnitsError(f"window of {dim!r}: {error.message}", hint=error.hint) from error


def _is_pair(bounds: Any) -> bool:
    return not isinstance(bounds, str) and isinstance(bounds, Iterable) and len(tuple(bounds)) == 2


def channel_slice(
    cube: xr.DataArray, dim: str, bounds: Sequence[Bound], unit: str | None = None
) -> slice:
    """Return the positions along ``dim`` whose coordinates lie within ``bounds``, both ends included.

    Parameters
    ----------
    cube : xarray.DataArray
    dim : str
        A dim with a monotonic coordinate of numbers.
    bounds : pair
        Lower and upper end: numbers in the unit of the axis, or text such as ``"7.4 keV"``. None is
        the end of the axis.
    unit : str, optional
        Unit of plain numbers, if not that of the axis.

    Returns
    -------
    slice

    Raises
    ------
    SelectionError
        The dim is missing, the ends are not in order, or no channel lies between them.
    UnitsError
        The unit cannot be converted into that of the axis.
    """
    if dim not in cube.dims or dim not in cube.coords:
        raise SelectionError(
            f"window of {dim!r}: the cube has dims {tuple(cube.dims)}, and coordinates on "
            f"{tuple(d for d in cube.dims if d in cube.coords)}",
            hint="name one of those dims",
        )
    values = np.asarray(cube.coords[dim].values)
    if values.dtype.kind not in "iuf":
        raise SelectionError(
            f"window of {dim!r}: its coordinate has dtype {values.dtype}, expected numbers",
            hint=f"select labels with cube.sel({dim}=[...])",
        )
    if not _is_pair(bounds):
        raise SelectionError(
            f"window of {dim!r}: got {bounds!r}, expected two ends",
            hint=f"for example {dim}=(0.5, 0.6)",
        )
    own = axis_units(cube, dim)
    low, high = (_bound(value, own, unit, dim) for value in bounds)
    values = values.astype(np.float64)
    # Ends that fall on a channel include it, whatever conversion or offset + i * scale has rounded.
    slack = 1e-6 * float(np.abs(np.diff(values)).min()) if values.size > 1 else 0.0
    low = -np.inf if low is None else low
    high = np.inf if high is None else high
    if low > high:
        raise SelectionError(
            f"window of {dim!r}: lower end {low:g} {own} lies above upper end {high:g} {own}",
            hint="exchange the ends",
        )
    inside = np.flatnonzero((values >= low - slack) & (values <= high + slack))
    if inside.size == 0:
        raise SelectionError(
            f"window of {dim!r}: no channel between {low:g} and {high:g} {own}; the axis goes from "
            f"{values.min():g} to {values.max():g} {own}",
            hint="widen the window, or check its unit",
        )
    if inside[-1] - inside[0] + 1 != inside.size:
        raise SelectionError(
            f"window of {dim!r}: its coordinate is not monotonic, the window would have holes",
            hint=f"sort with cube.sortby({dim!r})",
        )
    return slice(int(inside[0]), int(inside[-1]) + 1)


def window(cube: xr.DataArray, unit: str | None = None, **windows: Sequence[Bound]) -> xr.DataArray:
    """Cut windows out of a cube, both ends included; lazily.

    Parameters
    ----------
    cube : xarray.DataArray
    unit : str, optional
        Unit of plain numbers; by default that of each axis.
    **windows : pair
        Ends by dim, as in ``energy=(0.5, 0.6)`` or ``energy=("500 eV", "0.6 keV")``.

    Returns
    -------
    xarray.DataArray
        The channels within; dtype, attributes and coordinates are the cube's.

    Raises
    ------
    SelectionError
        No window is given, or one fits no channel.
    UnitsError
        A unit cannot be converted into that of its axis.
    """
    if not windows:
        raise SelectionError(
            f"window: no dim is given; the cube has {tuple(cube.dims)}",
            hint="for example cube.em.window(energy=(0.5, 0.6))",
        )
    parts: dict[Hashable, slice] = {
        dim: channel_slice(cube, dim, bounds, unit) for dim, bounds in windows.items()
    }
    return cube.isel(parts)


# --- where ----------------------------------------------------------------------------------------


def resolve_where(
    cube: xr.DataArray, where: xr.DataArray | Sequence[xr.DataArray] | None
) -> tuple[xr.DataArray | None, xr.DataArray | None]:
    """Split a selection into one over navigation dims and one over signal dims; True is used.

    Parameters
    ----------
    cube : xarray.DataArray
    where : DataArray of bool, sequence of them, or None
        Over navigation dims, signal dims, or both. A selection over both must be the same channels for
        every pixel it uses: that of an outer product. Several selections are all to hold. Its
        coordinates must be the cube's.

    Returns
    -------
    nav : DataArray of bool or None
        Over all navigation dims in the cube's order, in memory; None means every pixel.
    sig : DataArray of bool or None
        Over all signal dims; None means every channel.

    Raises
    ------
    SelectionError
        Not boolean, other dims, other coordinates than the cube's, nothing left, or a selection of
        different channels for different pixels.

    Notes
    -----
    A lazy selection is computed: its size over navigation dims is that of one image.
    """
    if where is None:
        return None, None
    # Anything else than a list or tuple is one selection, and refused there if it is none.
    parts: Sequence[Any] = where if isinstance(where, list | tuple) else [where]
    nav: xr.DataArray | None = None
    sig: xr.DataArray | None = None
    for part in parts:
        part_nav, part_sig = _split(cube, _checked(cube, part))
        nav, sig = _both(nav, part_nav), _both(sig, part_sig)
    for name, mask, dims in (("pixel", nav, nav_dims(cube)), ("channel", sig, sig_dims(cube))):
        if mask is not None and not bool(mask.any()):
            raise SelectionError(
                f"where: no {name} is left of {mask.size} (dims {dims})",
                hint="True means used: invert the selection if it meant what to leave out",
            )
    return nav, sig


def _both(first: xr.DataArray | None, second: xr.DataArray | None) -> xr.DataArray | None:
    if first is None or second is None:
        return second if first is None else first
    return first & second


def _checked(cube: xr.DataArray, where: Any) -> xr.DataArray:
    """Return the selection without its coordinates after holding them against the cube's."""
    if not isinstance(where, xr.DataArray):
        raise SelectionError(
            f"where: got {type(where).__name__}, expected an xarray.DataArray of bool",
            hint="label it, for example where = cube.em.total_counts() > 10",
        )
    if where.dtype != bool:
        raise SelectionError(
            f"where: got dtype {where.dtype}, expected bool (True is used)",
            hint="compare, for example where = totals > 10",
        )
    foreign = [dim for dim in where.dims if dim not in cube.dims]
    if foreign or not where.dims:
        raise SelectionError(
            f"where: got dims {tuple(where.dims)}, expected dims of the cube {tuple(cube.dims)}",
            hint="rename or select so that every dim of the selection is one of the cube's",
        )
    for dim in where.dims:
        if where.sizes[dim] != cube.sizes[dim]:
            raise SelectionError(
                f"where: {dim!r} has {where.sizes[dim]} positions, the cube has {cube.sizes[dim]}",
                hint="select the same region from both",
            )
        if dim in where.coords and dim in cube.coords:
            ours, theirs = cube.coords[dim].values, where.coords[dim].values
            if not np.array_equal(ours, theirs):
                at = int(np.flatnonzero(ours != theirs)[0])
                raise SelectionError(
                    f"where: coordinate {dim!r} differs from the cube's: position {at} is "
                    f"{theirs[at]}, expected {ours[at]}",
                    hint=f"make the selection from this cube, or align with where.sel({dim}=cube.{dim})",
                )
    return where.drop_vars(list(where.coords))


def _split(
    cube: xr.DataArray, where: xr.DataArray
) -> tuple[xr.DataArray | None, xr.DataArray | None]:
    nav_names = [dim for dim in nav_dims(cube) if dim in where.dims]
    sig_names = [dim for dim in sig_dims(cube) if dim in where.dims]
    if not sig_names:
        return _full(cube, where, nav_dims(cube)), None
    if not nav_names:
        return None, _full(cube, where, sig_dims(cube))
    nav, sig, used = where.any(sig_names), where.any(nav_names), where.sum(dtype=np.int64)
    if hasattr(where.data, "dask"):
        # One pass over the selection for all three.
        both = xr.Dataset({"nav": nav, "sig": sig, "used": used}).compute()
        nav, sig, used = both["nav"], both["sig"], both["used"]
    # The selection lies within the outer product of its shadows; it is that product if as large.
    expected = int(nav.sum()) * int(sig.sum())
    if int(used) != expected:
        raise SelectionError(
            f"where: selects different channels for different pixels: {int(used)} of the {expected} "
            f"cells that its pixels and channels span",
            hint="give one selection of pixels and one of channels: where=(pixels, channels)",
        )
    return _full(cube, nav, nav_dims(cube)), _full(cube, sig, sig_dims(cube))


def _full(cube: xr.DataArray, mask: xr.DataArray, dims: tuple[str, ...]) -> xr.DataArray:
    """Spread a selection over all of ``dims``, with the cube's coordinates, in memory."""
    missing = {dim: cube.sizes[dim] for dim in dims if dim not in mask.dims}
    full = mask.expand_dims(missing).transpose(*dims).compute()
    full = full.copy(data=np.ascontiguousarray(full.values))
    coords = {dim: cube.coords[dim] for dim in dims if dim in cube.coords}
    return full.assign_coords(coords).drop_attrs().rename(None)
