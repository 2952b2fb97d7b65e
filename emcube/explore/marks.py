"""X-ray lines and edges on the energy axis of a cube."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from emcube.cube.schema import axis_units, sig_dims
from emcube.errors import InputError, UnitsError
from emcube.explore.views import LineMark

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["marks_near", "marks_of"]

WEAK = 0.02
"""Lines weaker than this share of the strongest of their family are not drawn."""

NEAR_LINE = 0.13
"""Lines within this distance of a peak, in keV, are near: about the width of a line in a detector."""

NEAR_EDGE = 0.02
"""Edges within this share of the axis's length are near: the eye puts an onset no better."""

ELEMENTS = (*range(1, 43), *range(44, 61), *range(62, 84), 90, 92)
"""Atomic numbers that a peak may be of: elements that specimens are made of, without those that decay within
years.
"""


def marks_of(
    cube: xr.DataArray, elements: Iterable[str], *, beam_energy: float | None, edges: bool
) -> list[LineMark]:
    """Lines of elements on a cube's axis, or edges, the strongest of each element first.

    Parameters
    ----------
    cube : DataArray
        With one signal dim, an energy.
    elements : iterable of str
    beam_energy : float, optional
        keV; lines that such electrons cannot excite are left out.
    edges : bool
        Ionisation edges (EELS) instead of X-ray lines.

    Raises
    ------
    InputError
        There is no such element, or the axis is no energy.
    """
    low, high, to_axis = _axis(cube)
    found = []
    for element in elements:
        marks = _edges(element, low, high) if edges else _lines(element, low, high, beam_energy)
        found += [
            LineMark(m.name, m.text, m.element, to_axis(m.energy), m.weight)
            for m in sorted(marks, key=lambda m: -m.weight)
        ]
    return found


def marks_near(
    cube: xr.DataArray,
    energy: float,
    known: Sequence[str],
    *,
    beam_energy: float | None,
    edges: bool,
    most: int,
) -> list[LineMark]:
    """Lines or edges that a peak may be: those of known elements first, then the nearest.

    Parameters
    ----------
    cube : DataArray
    energy : float
        In the unit of the axis.
    known : sequence of str
        Elements of the metadata.
    beam_energy, edges
        As in `marks_of`.
    most : int
    """
    low, high, to_axis = _axis(cube)
    width = to_axis(NEAR_EDGE * (high - low) if edges else NEAR_LINE)
    axis = np.asarray(cube.coords[sig_dims(cube)[0]].values, dtype=np.float64)
    step = float(np.abs(np.diff(axis)).min()) if axis.size > 1 else width
    reach = max(width, 2 * step)
    marks = marks_of(cube, _elements(), beam_energy=beam_energy, edges=edges)
    near = [m for m in marks if abs(m.energy - energy) <= reach]
    # A strong line a little off is likelier than a weak one that is right there.
    near.sort(key=lambda m: (m.element not in known, abs(m.energy - energy) / reach + 1 - m.weight))
    return near[:most]


def _elements() -> list[str]:
    import xraydb

    return [str(xraydb.atomic_symbol(z)) for z in ELEMENTS]


class _ToAxis:
    """Energies in keV to the unit of an axis."""

    def __init__(self, unit: str) -> None:
        self.unit = unit

    def __call__(self, energy: float) -> float:
        from emcube.units import convert

        return float(convert(energy, "keV", self.unit))


def _axis(cube: xr.DataArray) -> tuple[float, float, _ToAxis]:
    """Ends of the energy axis in keV, and what brings energies onto it."""
    from emcube.units import convert

    sig = sig_dims(cube)
    unit = axis_units(cube, sig[0])
    try:
        if len(sig) != 1 or sig[0] not in cube.coords:
            raise UnitsError("it has no axis of energies")
        ends = [
            float(convert(float(f(cube.coords[sig[0]].values)), unit, "keV")) for f in (min, max)
        ]
    except UnitsError as error:
        raise InputError(
            f"lines: the signal dims {sig} (in {unit}) are no energy, expected one in eV or keV",
            hint="give the axis its unit: emcube.make_cube(..., units={'energy': 'keV'})",
        ) from error
    return ends[0], ends[1], _ToAxis(unit)


def _lines(element: str, low: float, high: float, beam_energy: float | None) -> Iterator[LineMark]:
    from emcube.xray import lines_of, pretty_line

    for line in lines_of(element, (low, high), beam_energy=beam_energy):
        if line.weight >= WEAK:
            text = pretty_line(line.name)
            yield LineMark(line.name, text, line.element, line.energy, min(1.0, line.weight))


def _edges(element: str, low: float, high: float) -> Iterator[LineMark]:
    from emcube.xray import edges_of, pretty_line

    for name, energy in edges_of(element, (1e3 * low, 1e3 * high)).items():
        yield LineMark(name, pretty_line(name), name.partition("_")[0], energy / 1e3, 1.0)
