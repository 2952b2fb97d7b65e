"""X-ray lines and ionisation edges: energies, widths, and which peak is whose.

The tables are those of `xraydb <https://xraypy.github.io/XrayDB/>`_ (Elam, Ravel and Sieber 2002), which
is imported on first use. Names are those of microscopists: ``"Si_Ka"``, ``"Pt_La"``, ``"Au_Ma"`` for lines,
``"O_K"``, ``"Si_L2,3"`` for edges. Line energies are in keV, as in EDS; edge energies in eV, as in EELS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np

from emcube.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "MN_KA",
    "Line",
    "PeakLabel",
    "edge_energy",
    "edges_of",
    "fwhm",
    "label_peaks",
    "line_energy",
    "lines_of",
    "pretty_line",
]

#: Energy in keV at which the resolution of EDS detectors is stated by convention.
MN_KA = 5.895

# A detector does not separate these, so one name stands for the mean weighted by their intensities.
_GROUPS = {
    "Ka": ("Ka1", "Ka2"),
    "Kb": ("Kb1", "Kb3"),
    "La": ("La1", "La2"),
    "Lb2": ("Lb2,15",),
}
# The lines that a spectrum may show, strongest of each family first.
_SHOWN = {
    "K": ("Ka", "Kb"),
    "L": ("La", "Lb1", "Lb2", "Lb3", "Lg1", "Ll"),
    "M": ("Ma", "Mb", "Mg", "Mz"),
}
_GREEK = {"a": "α", "b": "β", "g": "γ", "z": "ζ", "l": "ℓ", "n": "η"}
# Electrons in a subshell: how often it is ionised, relative to the others of its shell.
_ELECTRONS = {"K": 2, "L1": 2, "L2": 2, "L3": 4, "M1": 2, "M2": 2, "M3": 4, "M4": 4, "M5": 6}
# EELS speaks of two subshells as one edge; its onset is that of the outer, more loosely bound one.
_EDGE_PAIRS = {"L2,3": "L3", "L23": "L3", "M2,3": "M3", "M23": "M3", "M4,5": "M5", "M45": "M5"}
_EDGE_PAIRS |= {"N2,3": "N3", "N4,5": "N5", "N45": "N5", "N6,7": "N7", "O4,5": "O5"}
# X-ray tables give these elements as gases; in the solids that EELS looks at their edges begin lower.
_SOLID_EDGES = {"N": {"K": 401.0}, "O": {"K": 532.0}, "F": {"K": 685.0}}


@dataclass(frozen=True)
class Line:
    """An X-ray line, as far as an EDS detector tells lines apart.

    Attributes
    ----------
    name : str
        Such as ``"Si_Ka"``.
    element : str
        Symbol.
    family : str
        Shell of the vacancy: ``"K"``, ``"L"`` or ``"M"``.
    energy : float
        In keV.
    weight : float
        Rough strength relative to the first line of the family (Ka, La or Ma): electrons in the
        subshell times fluorescence yield times branching ratio.
    edge : float
        Energy in keV that ionises the subshell.
    """

    name: str
    element: str
    family: str
    energy: float
    weight: float
    edge: float


@dataclass(frozen=True)
class PeakLabel:
    """A peak of a spectrum with the lines that make it.

    Attributes
    ----------
    text : str
        For a figure, such as ``"Si Kα"`` or ``"Ti Kβ, V Kα"``.
    energy : float
        Energy of the strongest of its lines, in keV.
    height : float
        Value of the spectrum at the top of the peak.
    names : tuple of str
        Its lines, the strongest first.
    """

    text: str
    energy: float
    height: float
    names: tuple[str, ...]


def line_energy(name: str) -> float:
    """Look up the energy of an X-ray line.

    Parameters
    ----------
    name : str
        Element and line, such as ``"Si_Ka"``. ``Ka``, ``Kb`` and ``La`` are the means of
        Ka1 and Ka2, Kb1 and Kb3, La1 and La2, weighted by their intensities.

    Returns
    -------
    float
        Energy in keV.

    Raises
    ------
    InputError
        If the element or the line is unknown.

    Examples
    --------
    >>> round(line_energy("Si_Ka"), 2)
    1.74
    """
    element, line = _split(name, "line", "Si_Ka")
    table = _line_table(element)
    members = [m for m in _GROUPS.get(line, (line,)) if m in table]
    if not members:
        raise InputError(
            f"element {element} has no X-ray line {line!r}: got {name!r}, known are "
            f"{', '.join(_known_lines(table)) or 'none'}",
            hint="name a line as in 'Si_Ka', 'Pt_La', 'Au_Ma'",
        )
    return _mean_energy(table, members)


def lines_of(
    element: str,
    energy_range: tuple[float, float] | None = None,
    *,
    beam_energy: float | None = None,
) -> list[Line]:
    """List the lines of an element that a spectrum may show.

    Parameters
    ----------
    element : str
        Symbol, such as ``"Ni"``.
    energy_range : tuple of float, optional
        Lowest and highest energy of interest, in keV.
    beam_energy : float, optional
        In keV; lines that such electrons cannot excite are left out.

    Returns
    -------
    list of Line
        By family (K, L, M), the strongest of each first.

    Raises
    ------
    InputError
        If the element is unknown.
    """
    low, high = energy_range if energy_range is not None else (0.0, np.inf)
    return [
        line
        for line in _lines(_known_element(element))
        if low <= line.energy <= high and (beam_energy is None or line.edge < beam_energy)
    ]


def pretty_line(name: str) -> str:
    """Write the name of a line or edge as a figure does: ``"Si_Ka"`` as ``"Si Kα"``."""
    element, _, line = name.partition("_")
    if len(line) >= 2 and line[1] in _GREEK:
        line = f"{line[0]}{_GREEK[line[1]]}{line[2:]}"
    return f"{element} {line}".strip()


@overload
def fwhm(energy: float, resolution: float = 130.0) -> float: ...


@overload
def fwhm(energy: ArrayLike, resolution: float = 130.0) -> NDArray[np.float64] | float: ...


def fwhm(energy: ArrayLike, resolution: float = 130.0) -> NDArray[np.float64] | float:
    """Compute the width of an X-ray line in an energy-dispersive detector.

    ``FWHM(E)^2 = resolution^2 + 2.5 (E - E_MnKa)`` with all energies in eV.

    Parameters
    ----------
    energy : float or array_like
        In keV.
    resolution : float, default 130.0
        Full width at half maximum at Mn Ka, in **eV**, as makers state it.

    Returns
    -------
    float or ndarray
        Full width at half maximum in **keV**.

    Raises
    ------
    InputError
        If the resolution is better than the statistics of electron-hole pairs allow at that energy.

    References
    ----------
    C. E. Fiori and D. E. Newbury, Scanning Electron Microscopy 1 (1978) 401.
    J. I. Goldstein et al., Scanning Electron Microscopy and X-Ray Microanalysis (2018), chapter 16,
    https://doi.org/10.1007/978-1-4939-6676-9
    """
    energies = np.asarray(energy, dtype=np.float64)
    variance = resolution**2 + 2.5 * 1e3 * (energies - MN_KA)
    if resolution <= 0 or np.any(variance <= 0):
        raise InputError(
            f"no line can be that narrow: got a resolution of {resolution:g} eV at Mn Ka, which leaves "
            f"no width at {float(np.min(energies)):g} keV; expected about 120 to 200 eV",
            hint="give the full width at half maximum at Mn Ka in eV",
        )
    widths = np.sqrt(variance) / 1e3
    return float(widths) if widths.ndim == 0 else widths


def label_peaks(
    energy: ArrayLike,
    spectrum: ArrayLike,
    elements: Iterable[str],
    *,
    resolution: float = 130.0,
    beam_energy: float | None = None,
    threshold: float = 0.01,
    limit: int = 20,
) -> list[PeakLabel]:
    """Say which lines of given elements a spectrum shows, and where.

    A line counts as shown where the smoothed spectrum has a maximum within half a line width of its
    energy that stands out from both sides. Lines closer than half a width share one label.

    Parameters
    ----------
    energy : array_like of shape (E,)
        Increasing, in keV.
    spectrum : array_like of shape (E,)
        Channels that are NaN are not looked at.
    elements : iterable of str
        Symbols. No other element is ever named.
    resolution : float, default 130.0
        Of the detector: full width at half maximum at Mn Ka, in eV.
    beam_energy : float, optional
        In keV; lines that such electrons cannot excite are not named.
    threshold : float, default 0.01
        Least height above the sides, as a fraction of the highest value.
    limit : int, default 20
        Most labels; the highest peaks stay.

    Returns
    -------
    list of PeakLabel
        By energy.

    Raises
    ------
    InputError
        If an element is unknown.
    """
    energies = np.asarray(energy, dtype=np.float64)
    values = np.asarray(spectrum, dtype=np.float64)
    candidates = [line for e in elements for line in lines_of(e, beam_energy=beam_energy)]
    used = np.isfinite(values)
    energies, values = energies[used], values[used]
    if energies.size < 5:
        return []
    floor = threshold * float(values.max())
    found: list[_Peak] = []
    firsts: dict[tuple[str, str], float] = {}  # rise of the first line of each family
    for line in candidates:
        if not energies[0] <= line.energy <= energies[-1]:
            continue
        peak = _peak_at(energies, values, line.energy, float(fwhm(line.energy, resolution)))
        rise = peak[2] if peak is not None else 0.0
        first = firsts.setdefault((line.element, line.family), rise)
        # A weak line far higher than its strong sibling allows is another element's.
        allowed = 3.0 * line.weight * first if line.weight < 1 else np.inf
        if peak is not None and floor < rise <= allowed:
            found.append((*peak, line))
    return _join(found, resolution, limit)


# Energy of the top, height, rise, and the line that made it.
_Peak: TypeAlias = "tuple[float, float, float, Line]"


def _peak_at(
    energies: NDArray[np.float64], values: NDArray[np.float64], center: float, width: float
) -> tuple[float, float, float] | None:
    """Find the maximum near `center`: its energy, height, and rise above the higher of its sides."""
    near = np.abs(energies - center) <= 2.5 * width
    x, y = energies[near], values[near]
    if x.size < 5:
        return None
    # Single counts make maxima everywhere: smooth by less than the line's own width first.
    kernel = np.exp(-0.5 * ((x[:, None] - x[None, :]) / (0.2 * width)) ** 2)
    smooth = kernel @ y / kernel.sum(axis=1)
    inside = np.flatnonzero(np.abs(x - center) <= 0.5 * width)
    if inside.size == 0:
        return None
    top = int(inside[np.argmax(smooth[inside])])
    # A flank of a neighbour rises towards the end of the window.
    if top in (0, x.size - 1) or smooth[top] < max(smooth[top - 1], smooth[top + 1]):
        return None
    left, right = float(smooth[: top + 1].min()), float(smooth[top:].min())
    rise = float(smooth[top]) - max(left, right)
    # Second differences see the noise and hardly the peaks; smoothed noise alone rises by 1.5 sigma.
    if rise < 2.5 * float(np.abs(np.diff(y, 2)).mean()) / (np.sqrt(6) * np.sqrt(2 / np.pi)):
        return None
    return float(x[top]), float(y[max(top - 1, 0) : top + 2].max()), rise


def _join(found: Sequence[_Peak], resolution: float, limit: int) -> list[PeakLabel]:
    """Give lines that share a peak one label, and keep the highest."""
    # The first line of a family comes before its weaker siblings, then the nearer one.
    order = sorted(found, key=lambda f: (-round(f[3].weight, 1), abs(f[0] - f[3].energy)))
    peaks: list[list[_Peak]] = []
    for item in order:
        for peak in peaks:
            width = float(fwhm(peak[0][0], resolution))
            if abs(peak[0][0] - item[0]) <= 0.25 * width:
                peak.append(item)
                break
        else:
            peaks.append([item])
    peaks.sort(key=lambda p: -p[0][2])
    labels = [
        PeakLabel(
            text=_text([item[3] for item in peak]),
            energy=peak[0][3].energy,
            height=max(i[1] for i in peak),
            names=tuple(i[3].name for i in peak),
        )
        for peak in peaks[:limit]
    ]
    return sorted(labels, key=lambda label: label.energy)


def _text(lines: Sequence[Line]) -> str:
    """Name each element once, by its strongest line of the peak."""
    first = {line.element: line.name for line in reversed(lines)}
    shown = [line.name for line in lines if first[line.element] == line.name]
    return ", ".join(pretty_line(name) for name in dict.fromkeys(shown))


def edge_energy(name: str) -> float:
    """Look up the energy at which an ionisation edge begins.

    Parameters
    ----------
    name : str
        Element and edge, such as ``"O_K"``, ``"Si_L3"`` or ``"Si_L2,3"``.

    Returns
    -------
    float
        Energy in **eV**.

    Raises
    ------
    InputError
        If the element or the edge is unknown.

    References
    ----------
    C. C. Ahn and O. L. Krivanek, EELS Atlas (1983), for N, O and F in solids.
    """
    element, edge = _split(name, "edge", "Si_L3")
    table = _edge_table(element)
    key = _EDGE_PAIRS.get(edge, edge)
    if key not in table:
        raise InputError(
            f"element {element} has no edge {edge!r}: got {name!r}, known are {', '.join(table)}",
            hint="name an edge as in 'O_K', 'Si_L3', 'Fe_L2,3'",
        )
    return table[key]


def edges_of(element: str, energy_range: tuple[float, float] | None = None) -> dict[str, float]:
    """List the major ionisation edges of an element (K, L2,3, M4,5, N4,5).

    Parameters
    ----------
    element : str
        Symbol.
    energy_range : tuple of float, optional
        Lowest and highest energy of interest, in eV.

    Returns
    -------
    dict
        Name, such as ``"Si_L2,3"``, to energy in eV.
    """
    element = _known_element(element)
    table = _edge_table(element)
    low, high = energy_range if energy_range is not None else (0.0, np.inf)
    return {
        f"{element}_{edge}": table[key]
        for edge, key in {"K": "K", "L2,3": "L3", "M4,5": "M5", "N4,5": "N5"}.items()
        if key in table and low <= table[key] <= high
    }


def _split(name: str, kind: str, example: str) -> tuple[str, str]:
    element, separator, rest = str(name).strip().replace(" ", "_").partition("_")
    if not separator or not rest:
        raise InputError(
            f"not the name of an X-ray {kind}: got {name!r}, expected one such as {example!r}",
            hint=f"write element, underscore, {kind}",
        )
    return _known_element(element), rest


def _known_element(symbol: str) -> str:
    import xraydb

    try:
        xraydb.atomic_number(symbol)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"unknown element: got {symbol!r}, expected a symbol such as 'Si'",
            hint="check the spelling; symbols begin with a capital",
        ) from error
    return str(symbol).capitalize()


@lru_cache(maxsize=128)
def _line_table(element: str) -> Mapping[str, tuple[float, float, str]]:
    """Name of each line: energy in keV, intensity within its subshell, subshell."""
    import xraydb

    return {
        name: (line.energy / 1e3, float(line.intensity), str(line.initial_level))
        for name, line in xraydb.xray_lines(element).items()
    }


@lru_cache(maxsize=128)
def _edge_table(element: str) -> Mapping[str, float]:
    """Name of each edge: energy in eV."""
    import xraydb

    table = {name: float(edge.energy) for name, edge in xraydb.xray_edges(element).items()}
    return {**table, **_SOLID_EDGES.get(element, {})}


@lru_cache(maxsize=128)
def _lines(element: str) -> tuple[Line, ...]:
    import xraydb

    table = _line_table(element)
    yields = {name: float(e.fyield) for name, e in xraydb.xray_edges(element).items()}
    edges = _edge_table(element)
    found: list[Line] = []
    for family, shown in _SHOWN.items():
        strengths: dict[str, float] = {}
        for line in shown:
            members = [m for m in _GROUPS.get(line, (line,)) if m in table]
            shells = {m: table[m][2].split(",")[0] for m in members}
            strengths[line] = sum(
                _ELECTRONS[shells[m]] * yields.get(shells[m], 0.0) * table[m][1] for m in members
            )
        first = strengths[shown[0]]
        if first <= 0:  # light elements: the shell is not filled and shows no line of its own
            continue
        for line, strength in strengths.items():
            if strength <= 0:
                continue
            members = [m for m in _GROUPS.get(line, (line,)) if m in table]
            shell = table[members[0]][2].split(",")[0]
            found.append(
                Line(
                    name=f"{element}_{line}",
                    element=element,
                    family=family,
                    energy=_mean_energy(table, members),
                    weight=strength / first,
                    edge=edges[shell] / 1e3,
                )
            )
    return tuple(found)


def _mean_energy(table: Mapping[str, tuple[float, float, str]], members: Sequence[str]) -> float:
    total = sum(table[m][1] for m in members)
    return sum(table[m][0] * table[m][1] for m in members) / total


def _known_lines(table: Mapping[str, tuple[float, float, str]]) -> list[str]:
    groups = [g for g, members in _GROUPS.items() if any(m in table for m in members)]
    return [*groups, *(name for name in table if "," not in name)]
