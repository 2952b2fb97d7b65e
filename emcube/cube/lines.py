"""Net counts of X-ray lines: a window around each line, less the background on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from emcube.cube.schema import axis_units, get_metadata, nav_dims, sig_dims
from emcube.errors import CubeError, SelectionError
from emcube.kernels.windows import NetWindow, net_counts

__all__ = ["DEFAULT_RESOLUTION_EV", "line_maps", "line_windows", "strongest_lines"]

#: FWHM of Mn Ka of a usual silicon drift detector, eV; taken where the metadata name none.
DEFAULT_RESOLUTION_EV = 130.0

_EDGES = ("low", "high")


def line_maps(
    cube: xr.DataArray,
    names: str | Iterable[str],
    *,
    width: float = 2.0,
    gap: float = 1.5,
    background_width: float = 1.0,
    background: bool = True,
    resolution_eV: float | None = None,
) -> xr.DataArray:
    """Map the net counts of X-ray lines; lazily.

    The counts within ``width`` FWHM centred on the line are summed, and the background under them, a
    straight line through the mean counts of a window on either side, is subtracted.

    Parameters
    ----------
    cube : xarray.DataArray
        With one signal dim, an energy.
    names : str or iterable of str
        Lines, as ``"Si_Ka"``; energies from the X-ray line library.
    width : float
        Full width of the line's window, in FWHM of the line. 2 holds 98 % of a Gaussian line.
    gap : float
        Distance of the near edges of the background windows from the line, in FWHM: far enough
        for the line (0.02 % of it lies beyond 1.5), near enough to stay clear of most neighbours.
    background_width : float
        Width of each background window, in FWHM.
    background : bool
        Subtract the background; otherwise gross counts.
    resolution_eV : float, optional
        FWHM of Mn Ka, eV; by default that of the detector in the metadata, else 130 eV. The FWHM at
        other energies follows from it.

    Returns
    -------
    xarray.DataArray
        (navigation dims..., line), float64, in the cube's units. Coordinates along ``line``: the name,
        ``energy``, ``window_low`` and ``window_high``, and those of the background windows
        (``background_low_low``, ``background_low_high``, ``background_high_low``,
        ``background_high_high``), in the unit of the axis; NaN where a side has none.
        ``attrs["energy_resolution_eV"]`` is the resolution used.

    Raises
    ------
    SelectionError
        A line's window is not within the axis, is narrower than a channel, or has no background.
    CubeError
        The cube does not have exactly one signal dim.
    UnitsError
        The signal axis is no energy.

    Notes
    -----
    Windows know nothing of other lines: a line of another element within a background window makes the
    net counts too low, and one within the line's window too high. Where lines overlap, use a model
    (NMF). A background window beyond the end of the axis is left out, and the other one's mean is
    taken as the background (constant instead of a straight line). Net counts may be negative: they are
    unbiased that way. One pass over the channels that the windows span.
    """
    from emcube.units import convert
    from emcube.xray import fwhm, line_energy

    wanted = [names] if isinstance(names, str) else [str(name) for name in names]
    _check_arguments(wanted, width, gap, background_width)
    if "line" in nav_dims(cube):
        raise SelectionError(
            "lines: the cube has a navigation dim 'line', which is the name of the dim of the answer",
            hint="rename it: cube.rename(line='another')",
        )
    dim = _energy_dim(cube)
    unit = axis_units(cube, dim)
    resolution, source = _resolution(cube, resolution_eV)
    axis = np.asarray(cube.coords[dim].values, dtype=np.float64)
    windows, edges, energies = [], [], []
    for name in wanted:
        energy_keV = line_energy(name)
        fwhm_keV = float(fwhm(energy_keV, resolution))
        offsets = np.array(
            [-width / 2, width / 2, -gap - background_width, -gap, gap, gap + background_width]
        )
        ends = convert(energy_keV + fwhm_keV * offsets, "keV", unit)
        window, used = _net_window(name, axis, ends, unit, background)
        windows.append(window)
        edges.append(used)
        energies.append(float(convert(energy_keV, "keV", unit)))
    array = cube.transpose(..., dim)
    data = _lazy_net(array.data, windows)
    energy_attrs = {"units": unit}
    coords: dict[str, Any] = {
        "line": ("line", wanted, {"long_name": "X-ray line"}),
        "energy": ("line", energies, energy_attrs),
    }
    table = np.array(edges)
    sides = [f"background_{side}_{end}" for side in _EDGES for end in _EDGES]
    for column, key in enumerate(["window_low", "window_high", *sides]):
        coords[key] = ("line", table[:, column], energy_attrs)
    kept = {k: c for k, c in array.coords.items() if dim not in c.dims and k not in coords}
    attrs = {
        **cube.attrs,
        "sig_dims": ["line"],
        "energy_resolution_eV": resolution,
        "energy_resolution_source": source,
    }
    return xr.DataArray(
        data,
        coords={**kept, **coords},
        dims=(*array.dims[:-1], "line"),
        attrs=attrs,
        name="net_counts",
    )


def line_windows(
    cube: xr.DataArray,
    names: Iterable[str],
    *,
    width: float = 2.0,
    resolution_eV: float | None = None,
) -> list[slice]:
    """Find the channels of X-ray lines, those around each line that `line_maps` sums.

    Parameters
    ----------
    cube : DataArray
        With one signal dim, an energy.
    names : iterable of str
        Lines, as ``"Si_Ka"``.
    width, resolution_eV
        As in `line_maps`.

    Raises
    ------
    SelectionError
        A line's window is not within the axis, or is narrower than a channel.
    CubeError
        The cube does not have exactly one signal dim.
    UnitsError
        The signal axis is no energy.
    """
    from emcube.units import convert
    from emcube.xray import fwhm, line_energy

    wanted = [str(name) for name in names]
    _check_arguments(wanted, width, width, 1.0)
    dim = _energy_dim(cube)
    unit = axis_units(cube, dim)
    resolution, _ = _resolution(cube, resolution_eV)
    axis = np.asarray(cube.coords[dim].values, dtype=np.float64)
    found = []
    for name in wanted:
        energy = line_energy(name)
        half = 0.5 * width * float(fwhm(energy, resolution))
        ends = convert(np.array([energy - half, energy + half]), "keV", unit)
        found.append(_net_window(name, axis, ends, unit, background=False)[0].peak)
    return found


def strongest_lines(
    cube: xr.DataArray,
    elements: Iterable[str],
    *,
    beam_energy: float | None = None,
    resolution_eV: float | None = None,
) -> list[str]:
    """Name one line of each element that a cube's axis shows whole: its Ka, else its La or Ma.

    Parameters
    ----------
    cube : DataArray
        With one signal dim, an energy.
    elements : iterable of str
        Symbols; their order is that of the answer. An element without such a line is left out.
    beam_energy : float, optional
        keV; lines that it does not excite are left out.
    resolution_eV : float, optional
        As in `line_maps`, which the lines are for.

    Raises
    ------
    CubeError
        The cube does not have exactly one signal dim.
    """
    from emcube.units import convert
    from emcube.xray import fwhm, lines_of

    dim = _energy_dim(cube)
    resolution, _ = _resolution(cube, resolution_eV)
    axis = convert(np.asarray(cube.coords[dim].values, np.float64), axis_units(cube, dim), "keV")
    found = []
    for element in elements:
        lines = lines_of(element, (axis[0], axis[-1]), beam_energy=beam_energy)
        for line in lines:
            half = float(fwhm(line.energy, resolution))
            if line.energy - half >= axis[0] and line.energy + 2.5 * half <= axis[-1]:
                found.append(line.name)
                break
    return found


def _check_arguments(names: Sequence[str], width: float, gap: float, side: float) -> None:
    if not names:
        raise SelectionError("lines: no line is named", hint="for example cube.em.lines(['Si_Ka'])")
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise SelectionError(f"lines: {twice!r} is named twice", hint="name every line once")
    given: Any
    for what, given in (("width", width), ("gap", gap), ("background_width", side)):
        if isinstance(given, bool) or not isinstance(given, int | float | np.number):
            raise SelectionError(
                f"lines: got {what}={given!r}, expected a number of FWHM", hint="see the default"
            )
    for what, value in (("width", width), ("background_width", side)):
        if not value > 0:
            raise SelectionError(
                f"lines: got {what}={value}, expected a positive number of FWHM",
                hint="see the default",
            )
    if gap < width / 2:
        raise SelectionError(
            f"lines: got gap={gap} FWHM, expected at least half the line's window ({width / 2})",
            hint="background windows must not overlap the line's window",
        )


def _energy_dim(cube: xr.DataArray) -> str:
    signal = sig_dims(cube)
    if len(signal) != 1 or signal[0] not in cube.coords:
        raise CubeError(
            f"lines: the cube has the signal dims {signal}, expected one with an energy coordinate",
            hint="name it with cube.attrs['sig_dims'] = ['energy']",
        )
    return signal[0]


def _resolution(cube: xr.DataArray, given: float | None) -> tuple[float, str]:
    if given is not None:
        return float(given), "argument"
    stated = get_metadata(cube).detector.energy_resolution_eV
    if stated is not None:
        return stated, "metadata"
    return DEFAULT_RESOLUTION_EV, "default"


def _channels(axis: np.ndarray[Any, Any], low: float, high: float) -> slice:
    """Return the channels whose centres lie within the window."""
    return slice(int(np.searchsorted(axis, low, "left")), int(np.searchsorted(axis, high, "right")))


def _net_window(
    name: str, axis: np.ndarray[Any, Any], ends: np.ndarray[Any, Any], unit: str, background: bool
) -> tuple[NetWindow, list[float]]:
    """Return the channels of a line and its background, and the edges in use (NaN: none)."""
    low, high = float(ends[0]), float(ends[1])
    peak = _channels(axis, low, high)
    if low < axis[0] or high > axis[-1] or peak.start == peak.stop:
        raise SelectionError(
            f"lines: the window of {name!r}, {low:.4g} to {high:.4g} {unit}, holds no channel or is "
            f"not within the axis, {axis[0]:.4g} to {axis[-1]:.4g} {unit}",
            hint="leave the line out, or make the window wider with width=",
        )
    if not background:
        return NetWindow(peak), [low, high, *[np.nan] * 4]
    size, center = peak.stop - peak.start, float(axis[peak].mean())
    sides: list[tuple[slice, float]] = []
    edges: list[float] = []
    for left, right in ((ends[2], ends[3]), (ends[4], ends[5])):
        channels = _channels(axis, left, right)
        # A window that the axis cuts is left out as a whole: its centre would not be where it is meant.
        whole = left >= axis[0] and right <= axis[-1] and channels.stop > channels.start
        edges += [float(left), float(right)] if whole else [np.nan, np.nan]
        if whole:
            sides.append((channels, float(axis[channels].mean())))
    if not sides:
        raise SelectionError(
            f"lines: no background window of {name!r} is within the axis, {axis[0]:.4g} to "
            f"{axis[-1]:.4g} {unit}",
            hint="narrow gap= and background_width=, or take gross counts with background=False",
        )
    if len(sides) == 1:
        shares = [1.0]
    else:
        (_, below), (_, above) = sides
        # The straight line through both means, at the centre of the line's channels.
        upper = (center - below) / (above - below)
        shares = [1.0 - upper, upper]
    factors = tuple(
        (channels, share * size / (channels.stop - channels.start))
        for (channels, _), share in zip(sides, shares, strict=True)
    )
    return NetWindow(peak, factors), [low, high, *edges]


def _lazy_net(data: Any, windows: Sequence[NetWindow]) -> Any:
    if not hasattr(data, "dask"):
        return net_counts(np.asarray(data), windows)
    # Only the channels that the windows span, moved to begin at 0.
    parts = [part for w in windows for part in (w.peak, *(s for s, _ in w.background))]
    first, last = min(p.start for p in parts), max(p.stop for p in parts)
    data = data[..., first:last].rechunk({data.ndim - 1: -1})
    moved = [
        NetWindow(
            _shift(w.peak, first), tuple((_shift(s, first), factor) for s, factor in w.background)
        )
        for w in windows
    ]
    return data.map_blocks(
        net_counts,
        moved,
        chunks=(*data.chunks[:-1], (len(windows),)),
        meta=np.empty((0,) * data.ndim, np.float64),
    )


def _shift(part: slice, first: int) -> slice:
    return slice(part.start - first, part.stop - first)
