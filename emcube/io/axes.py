"""Axes as instrument files describe them, turned into dims and coordinates of a cube.

Files disagree about names (``Energy loss``, ``width``, ``z``, nothing at all), about units (``µm``,
``pix``, ``keV``) and about which axes are signal axes. Everything here is pure: a list of `Axis` in, an
`AxisPlan` out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emcube import units
from emcube.errors import ReadError, UnitsError

__all__ = ["Axis", "AxisPlan", "axis_unit", "label_array", "plan_axes"]

_ENERGY_NAMES = frozenset(
    {"energy", "energy_loss", "eloss", "loss", "eds_energy", "x_ray_energy", "xray_energy", "e"}
)
_NAMES = {
    "height": "y",
    "width": "x",
    "scany": "y",
    "scanx": "x",
    "scan_y": "y",
    "scan_x": "x",
    "dy": "ky",
    "dx": "kx",
    "dety": "ky",
    "detx": "kx",
    "qy": "ky",
    "qx": "kx",
    "tilt_angle": "tilt",
    "alpha": "tilt",
    "angle": "tilt",
    "i": "x",
}
_PIXELS = frozenset({"pix", "px", "pixel", "pixels", "channel", "channels", "ch", "t.undefined"})


@dataclass(frozen=True)
class Axis:
    """One axis as a file describes it.

    Attributes
    ----------
    size : int
        Number of positions.
    name : str
        As the file spells it; may be empty.
    offset, scale : float
        Position i lies at ``offset + scale * i``.
    units : str
        As the file spells it; may be empty.
    navigate : bool or None
        Whether the file calls it a navigation axis; None where it does not say.
    values : ndarray, optional
        Positions of an axis that is not uniform; then offset and scale do not count.
    """

    size: int
    name: str = ""
    offset: float = 0.0
    scale: float = 1.0
    units: str = ""
    navigate: bool | None = None
    values: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class AxisPlan:
    """What to do with an array so that it becomes a cube.

    Attributes
    ----------
    order : tuple of int
        Axes of the array in the order of the cube's dims.
    dims, sig_dims : tuple of str
        Names of the cube's dims; those of them that are signal dims.
    coords : dict
        Dim to (positions, unit).
    flipped : tuple of str
        Signal dims that run downwards in the file and are turned round.
    notes : tuple of str
        What was assumed.
    """

    order: tuple[int, ...]
    dims: tuple[str, ...]
    sig_dims: tuple[str, ...]
    coords: dict[str, tuple[NDArray[np.float64], str]]
    flipped: tuple[str, ...]
    notes: tuple[str, ...]


def axis_unit(text: str, *, length: str | None = "nm") -> tuple[str, float]:
    """Return the unit in which a cube measures an axis, and the factor that leads there.

    Energies stay in keV or eV as the file says, lengths become nm, reciprocal lengths 1/nm, angles deg
    (mrad stays), times s; pixels and unknown names are dimensionless or kept as they are.

    Parameters
    ----------
    text : str
        The file's spelling.
    length : str or None
        Unit of lengths; None keeps the file's own (the face of a detector is measured in cm).
    """
    text = (text or "").strip()
    if text.lower() in _PIXELS:
        return "1", 1.0
    try:
        unit = units.parse(text)
    except UnitsError:
        return text, 1.0
    if units.compatible(text, "eV"):
        for kept in ("keV", "eV"):
            if unit == units.parse(kept):
                return kept, 1.0
        return "eV", _factor(text, "eV")
    if units.compatible(text, "nm"):
        if length is None:
            return text, 1.0
        return length, _factor(text, length)
    if units.compatible(text, "1/nm"):
        return "1/nm", _factor(text, "1/nm")
    if units.compatible(text, "s"):
        return "s", _factor(text, "s")
    if unit == units.parse("mrad"):
        return "mrad", 1.0
    if unit in (units.parse("deg"), units.parse("rad")):
        return "deg", _factor(text, "deg")
    return ("1", 1.0) if unit == units.parse("1") else (text, 1.0)


def _factor(text: str, target: str) -> float:
    # Factors between units are short decimals as a rule; a chain of conversions leaves 999.9999999999999.
    return float(f"{units.convert(1.0, text, target):.14g}")


def _plain(name: str) -> str:
    plain = re.sub(r"\W+", "_", name.split("(")[0].strip().lower()).strip("_")
    return (
        "" if plain in ("undefined", "unnamed", "none", "t_undefined") else _NAMES.get(plain, plain)
    )


def _is_energy(axis: Axis) -> bool:
    return axis_unit(axis.units)[0] in ("eV", "keV")


def _signal_axes(axes: Sequence[Axis]) -> tuple[int, ...]:
    """Tell which axes are signal axes: an energy axis wherever it lies, else what the file says."""
    energy = [i for i, axis in enumerate(axes) if _is_energy(axis)]
    energy = energy or [i for i, axis in enumerate(axes) if _plain(axis.name) in _ENERGY_NAMES]
    if energy:
        # Files that hold two (low and core loss stacked) mark one of them as signal.
        marked = [i for i in energy if axes[i].navigate is False]
        return ((marked or energy)[-1],)
    return tuple(i for i, axis in enumerate(axes) if axis.navigate is False)


def plan_axes(
    axes: Sequence[Axis], *, diffraction: bool = False, spectral: bool = False
) -> AxisPlan:
    """Name, order and measure the axes of an array.

    Parameters
    ----------
    axes : sequence of Axis
        In array order.
    diffraction : bool
        The file says that its two-dimensional signals are diffraction patterns.
    spectral : bool
        The file says that its one-dimensional signals are spectra.

    Raises
    ------
    ReadError
        A signal axis neither rises nor falls.
    """
    signal = _signal_axes(axes)
    notes: list[str] = []
    kinds = [axis_unit(axis.units)[0] for axis in axes]
    n_nav = len(axes) - len(signal)
    if len(signal) == 2:
        reciprocal = any(kinds[i] in ("1/nm", "mrad") for i in signal)
        named = {_plain(axes[i].name) for i in signal} == {"ky", "kx"}
        lengths = any(kinds[i] == "nm" for i in signal)
        patterns = reciprocal or diffraction or named or (n_nav >= 2 and not lengths)
        if not patterns:
            signal = ()  # an image or a stack of images: every axis says where
    else:
        patterns = False
    if len(signal) == 1 and n_nav == 0 and kinds[signal[0]] in ("nm", "deg", "s") and not spectral:
        signal = ()  # a profile along a line
    names = _dim_names(axes, kinds, signal, patterns)
    order = tuple(i for i in range(len(axes)) if i not in signal) + signal
    coords: dict[str, tuple[NDArray[np.float64], str]] = {}
    flipped: list[str] = []
    for i in order:
        keep = i in signal and patterns
        values, unit = _positions(axes[i], names[i], None if keep else "nm", notes)
        if i in signal and values.size > 1 and (np.diff(values) < 0).all():
            values = values[::-1].copy()
            flipped.append(names[i])
            notes.append(f"{names[i]} runs downwards in the file and was turned round")
        if i in signal and values.size > 1 and not (np.diff(values) > 0).all():
            raise ReadError(
                f"axis {axes[i].name or names[i]!r} of the file: {values[0]:g} to {values[-1]:g}, expected "
                "positions that rise or fall throughout",
                hint="the file is damaged or its calibration is wrong; read the array with its own program",
            )
        coords[names[i]] = (values, unit)
    return AxisPlan(
        order=order,
        dims=tuple(names[i] for i in order),
        sig_dims=tuple(names[i] for i in signal),
        coords=coords,
        flipped=tuple(flipped),
        notes=tuple(notes),
    )


def _dim_names(
    axes: Sequence[Axis], kinds: Sequence[str], signal: tuple[int, ...], patterns: bool
) -> list[str]:
    names: list[str] = []
    for i, axis in enumerate(axes):
        name = _plain(axis.name)
        if i in signal:
            if kinds[i] in ("eV", "keV") or name in _ENERGY_NAMES:
                name = "energy"
            elif patterns and name in ("y", "x", "ky", "kx", ""):
                name = ("ky", "kx")[signal.index(i)] if name == "" else "k" + name[-1]
            elif not name or name in ("x", "y", "z"):
                name = "channel"
        elif kinds[i] == "deg" and name in ("", "z", "t"):
            name = "tilt"
        elif kinds[i] == "s" and name in ("", "z", "t", "frame"):
            name = "time"
        names.append(name)
    # Unnamed navigation axes: the last is x, the one before it y, then z.
    free = [n for n in ("x", "y", "z", "frame") if n not in names]
    for i in reversed(range(len(axes))):
        if not names[i]:
            names[i] = free.pop(0) if free else f"dim_{i}"
    for i, name in enumerate(names):
        if name in names[:i]:
            names[i] = next(n for k in range(2, 99) if (n := f"{name}_{k}") not in names)
    return names


def _positions(
    axis: Axis, name: str, length: str | None, notes: list[str]
) -> tuple[NDArray[np.float64], str]:
    unit, factor = axis_unit(axis.units, length=length)
    if axis.values is not None:
        return np.asarray(axis.values, dtype=np.float64) * factor, unit
    offset, scale = float(axis.offset) * factor, float(axis.scale) * factor
    if not (np.isfinite(offset) and np.isfinite(scale)) or scale == 0:
        notes.append(
            f"{name}: the file gives no usable scale ({axis.scale}); positions are 0 to n-1"
        )
        return np.arange(axis.size, dtype=np.float64), "1"
    # -0.0 reads oddly in tables and compares unequal in JSON.
    return (offset + 0.0) + scale * np.arange(axis.size, dtype=np.float64), unit


def label_array(data: object, plan: AxisPlan, attrs: dict[str, object]) -> xr.DataArray:
    """Order, flip and label an array after a plan; lazy where the array is."""
    array = xr.DataArray(
        data, dims=tuple(plan.dims[plan.order.index(i)] for i in range(len(plan.order)))
    )
    array = array.transpose(*plan.dims)
    if plan.flipped:
        array = array.isel({dim: slice(None, None, -1) for dim in plan.flipped})
    coords = {
        dim: xr.DataArray(values, dims=(dim,), attrs={"units": unit})
        for dim, (values, unit) in plan.coords.items()
    }
    return array.assign_coords(coords).assign_attrs({**attrs, "sig_dims": list(plan.sig_dims)})
