"""Background removal for EELS: a power law before the edge, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from emcube.cube.schema import axis_units
from emcube.cube.select import Bound, channel_slice
from emcube.errors import SelectionError
from emcube.kernels.background import subtract_power_law

__all__ = ["remove_background"]


def remove_background(
    cube: xr.DataArray,
    unit: str | None = None,
    *,
    zero_fill: bool = True,
    **window: Sequence[Bound],
) -> xr.DataArray:
    """Subtract a power-law background ``A E**-r`` from every pixel; lazily.

    A and r of each pixel come from the areas of the two halves of a window before the edge.

    Parameters
    ----------
    cube : xarray.DataArray
    unit : str, optional
        Unit of plain numbers, if not that of the axis.
    zero_fill : bool
        Set the channels before the window to zero, as DigitalMicrograph does: the background is not
        known there. False subtracts the extrapolated background (HyperSpy's default).
    **window : pair
        The window by dim, both ends included, as ``energy=(70.2, 97.2)``; at least two channels.

    Returns
    -------
    xarray.DataArray
        float32 for small integers and float32, else float64; attributes and coordinates are the cube's.
        Values may be negative: noise around zero is kept, so that sums stay unbiased.

    Raises
    ------
    SelectionError
        Not exactly one window, fewer than two channels in it, or energies that are not positive.
    UnitsError
        A unit cannot be converted into that of the axis.

    Notes
    -----
    r is held to 0 <= r <= 20. A pixel whose window holds nothing, or less, has no background
    subtracted; one with an empty first half has a flat one. NaN in the window makes a pixel NaN. See
    :func:`emcube.kernels.background.subtract_power_law` for the equation. Reads and holds one chunk at a
    time, 8 MiB beside it; chunks are joined only along a signal dim that is split.

    References
    ----------
    R. F. Egerton, Electron Energy-Loss Spectroscopy in the Electron Microscope, 3rd ed. (2011), section
    4.4.2. https://doi.org/10.1007/978-1-4419-9583-4
    """
    if len(window) != 1:
        raise SelectionError(
            f"remove_background: got windows on {tuple(window)}, expected one dim",
            hint="for example cube.em.remove_background(energy=(70.2, 97.2))",
        )
    (dim, bounds), *_ = window.items()
    fit = channel_slice(cube, dim, bounds, unit)
    energy = np.asarray(cube.coords[dim].values, dtype=np.float64)
    _check(cube, dim, energy, fit, zero_fill)
    dtype = np.result_type(cube.dtype, np.float32)
    array = cube.transpose(..., dim)
    data = array.data
    if hasattr(data, "dask"):
        data = data.rechunk({data.ndim - 1: -1})
        meta = np.empty((0,) * data.ndim, dtype)
        data = data.map_blocks(_block, energy, fit, zero_fill, dtype, meta=meta)
    else:
        data = _block(np.asarray(data), energy, fit, zero_fill, dtype)
    return array.copy(data=data).transpose(*cube.dims)


def _check(
    cube: xr.DataArray, dim: str, energy: np.ndarray[Any, Any], fit: slice, zero_fill: bool
) -> None:
    unit = axis_units(cube, dim)
    if fit.stop - fit.start < 2:
        raise SelectionError(
            f"remove_background: the window holds one channel, at {energy[fit.start]:g} {unit}, "
            "expected two or more",
            hint="widen the window",
        )
    if energy.size > 1 and not (np.diff(energy) > 0).all():
        raise SelectionError(
            f"remove_background: the coordinate {dim!r} does not increase",
            hint=f"sort with cube.sortby({dim!r})",
        )
    lowest = energy[fit.start if zero_fill else 0]
    if lowest <= 0:
        raise SelectionError(
            f"remove_background: a power law needs positive values of {dim!r}: got {lowest:g} {unit}",
            hint="start the window above 0"
            if zero_fill
            else "crop the axis, or use zero_fill=True",
        )


def _block(
    block: np.ndarray[Any, Any],
    energy: np.ndarray[Any, Any],
    fit: slice,
    zero_fill: bool,
    dtype: np.dtype[Any],
) -> np.ndarray[Any, Any]:
    rows = block.reshape(-1, block.shape[-1])
    left = subtract_power_law(rows, energy, fit, zero_fill=zero_fill, dtype=dtype)
    return left.reshape(block.shape)
