"""Which lines or edges a spectrum shows, for labels and for names of components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.errors import InputError, UnitsError
from emcube.units import compatible, convert
from emcube.xray import edges_of, label_peaks, pretty_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Peak", "named_by", "peaks_of"]


@dataclass(frozen=True)
class Peak:
    """A labelled place on the axis: where (in the axis' unit), what, and how high."""

    x: float
    text: str
    height: float


def peaks_of(
    x: NDArray[np.float64], unit: str, spectrum: NDArray[np.float64], metadata: Mapping[str, Any]
) -> list[Peak]:
    """Name the X-ray lines (or, in EELS, the edges) of the specimen's elements that a spectrum shows.

    Parameters
    ----------
    x : ndarray of shape (E,)
        Axis of the spectrum.
    unit : str
        Of the axis; nothing is named where that is no energy.
    spectrum : ndarray of shape (E,)
    metadata : mapping
        Of the cube: elements, modality, beam energy, resolution.
    """
    elements = list(metadata.get("elements") or [])
    try:
        if not elements or len(x) < 5 or not compatible(unit, "eV"):
            return []
    except UnitsError:  # a stranger's unit names no energy
        return []
    try:
        return _named(x, unit, spectrum, elements, metadata)
    except (
        InputError
    ):  # a resolution or an element that no table knows: the page goes without labels
        return []


def _named(
    x: NDArray[np.float64],
    unit: str,
    spectrum: NDArray[np.float64],
    elements: list[str],
    metadata: Mapping[str, Any],
) -> list[Peak]:
    if metadata.get("modality") == "EELS":
        low, high = convert(np.array([x.min(), x.max()]), unit, "eV")
        edges = {n: e for el in elements for n, e in edges_of(el, (low, high)).items()}
        at = {n: convert(e, "eV", unit) for n, e in edges.items()}
        heights = np.interp(list(at.values()), x, np.nan_to_num(spectrum))
        return [
            Peak(float(position), pretty_line(n), float(h))
            for (n, position), h in zip(at.items(), heights, strict=True)
        ]
    options: dict[str, Any] = {}
    if metadata.get("beam_energy_keV"):
        options["beam_energy"] = float(metadata["beam_energy_keV"])
    resolution = (metadata.get("detector") or {}).get("energy_resolution_eV")
    if resolution:
        options["resolution"] = float(resolution)
    found = label_peaks(convert(x, unit, "keV"), spectrum, elements, threshold=0.005, **options)
    return [Peak(convert(p.energy, "keV", unit), p.text, float(p.height)) for p in found]


def named_by(
    peaks: list[Peak],
    x: NDArray[np.float64],
    spectrum: NDArray[np.float64],
    others: NDArray[np.float64] | None,
    limit: int = 2,
) -> str:
    """Name a component by the lines that set it apart.

    Parameters
    ----------
    peaks : list of Peak
        Of its spectrum.
    x, spectrum : ndarray of shape (E,)
    others : ndarray of shape (E,), optional
        What the spectrum is held against, such as the mean of all components; all non-negative. Both are
        compared as shares of their sums.
    limit : int
        Most lines named.

    Returns
    -------
    str
        The lines with the largest excess, the first of them first; without `others` the highest. Empty where
        the largest excess belongs to no named line: its element is not in the metadata.
    """
    if not peaks:
        return ""
    share = _share(spectrum)
    excess = share if others is None else share - _share(others)
    at = [int(np.argmin(np.abs(x - peak.x))) for peak in peaks]
    found = [float(excess[max(i - 2, 0) : i + 3].max()) for i in at]
    most = float(excess.max())
    ranked = sorted(zip(found, peaks, at, strict=True), key=lambda item: -item[0])[:limit]
    if ranked[0][0] < 0.6 * most or most <= 0:
        return ""
    # What exceeds the others by little is what all of them have.
    return ", ".join(
        peak.text for value, peak, i in ranked if value >= 0.2 * most and value >= 0.25 * share[i]
    )


def _share(spectrum: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.nan_to_num(spectrum)
    total = float(values.sum())
    return values / total if total > 0 else values
