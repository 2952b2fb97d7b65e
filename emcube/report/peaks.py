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
    peaks: list[Peak], spectrum: NDArray[np.float64], modality: str | None, limit: int = 2
) -> str:
    """Name a component by its highest lines; edges rise from a background, and name nothing.

    Nothing is named either where the highest peak has no name: its element is not in the metadata.
    """
    if modality == "EELS" or not peaks:
        return ""
    top = float(np.nanmax(spectrum))
    highest = sorted(peaks, key=lambda peak: -peak.height)[:limit]
    if highest[0].height < 0.6 * top:
        return ""
    # A peak far below the highest is what others have as well.
    return ", ".join(p.text for p in highest if p.height >= 0.2 * highest[0].height)
