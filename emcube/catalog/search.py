"""Search in catalogs by what an entry's metadata say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from emcube.errors import CatalogError

__all__ = ["MODALITIES", "beam_energy_range", "element_set", "matches", "normal_modality"]

#: Other words for a modality, without spaces, hyphens and case.
MODALITIES: dict[str, tuple[str, ...]] = {
    "EDS": ("eds", "edx", "edxs", "xeds", "edax", "stemeds", "semeds", "stemedx", "semedx"),
    "WDS": ("wds", "wdx", "wdxs"),
    "EELS": ("eels", "eel", "stemeels"),
    "4D-STEM": ("4dstem", "4d", "stem4d", "nbed", "nbd", "diffraction"),
    "CL": ("cl", "cathodoluminescence"),
    "XRF": ("xrf",),
    "EBSD": ("ebsd",),
    "image": ("image", "images", "haadf", "adf", "bf"),
    "spectrum": ("spectrum", "spectra"),
    "other": ("other",),
}

_NORMAL = {word: name for name, words in MODALITIES.items() for word in words}
#: A single beam energy means this much around it, keV: 200 finds 200.0 and 199.7.
_ENERGY_SLACK = 0.5


def normal_modality(word: str) -> str:
    """The one name of a modality: EDX, EDXS and XEDS are EDS. Unknown words stay as they are."""
    plain = "".join(c for c in word.lower() if c.isalnum())
    return _NORMAL.get(plain, word)


def element_set(elements: str | Iterable[str]) -> set[str]:
    """Symbols of elements, whatever their case.

    Raises
    ------
    CatalogError
        A symbol is not one of an element.
    """
    from emcube.cube.metadata import ELEMENTS

    given = elements.replace(",", " ").split() if isinstance(elements, str) else list(elements)
    found = {str(symbol).strip().capitalize() for symbol in given}
    wrong = sorted(found - set(ELEMENTS))
    if wrong:
        raise CatalogError(
            f"search by elements: got {wrong[0]!r}, expected symbols of chemical elements",
            hint="for example elements=['Ni', 'Cr']",
        )
    return found


def beam_energy_range(beam_energy: float | tuple[float, float]) -> tuple[float, float]:
    """Bounds in keV, both included.

    Raises
    ------
    CatalogError
        The bounds are not two rising numbers.
    """
    pair = beam_energy if isinstance(beam_energy, (tuple, list)) else None
    try:
        if pair is None:
            energy = float(beam_energy)  # type: ignore[arg-type]
            return energy - _ENERGY_SLACK, energy + _ENERGY_SLACK
        low, high = (float(bound) for bound in pair)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise CatalogError(
            f"search by beam energy: got {beam_energy!r}, expected one number or (lowest, highest) in keV",
            hint="for example beam_energy=(80, 300)",
        )
    return low, high


def matches(
    name: str,
    metadata: Mapping[str, Any],
    *,
    modality: str | None,
    elements: set[str],
    text: str | None,
    beam_energy: tuple[float, float] | None,
    fields: Mapping[str, Any],
) -> bool:
    """Whether an entry has everything that is asked for; what it does not say, it does not have."""
    if modality is not None:
        found = metadata.get("modality")
        if not isinstance(found, str) or normal_modality(found) != normal_modality(modality):
            return False
    if elements and not elements <= set(_words(metadata.get("elements", []))):
        return False
    if beam_energy is not None:
        energy = metadata.get("beam_energy_keV")
        if not isinstance(energy, (int, float)) or not beam_energy[0] <= energy <= beam_energy[1]:
            return False
    if text is not None:
        everything = " ".join([name, *_words(metadata)]).casefold()
        if not all(word in everything for word in text.casefold().split()):
            return False
    return all(metadata.get(key) == value for key, value in fields.items())


def _words(value: Any) -> Iterator[str]:
    """Every text and number in nested metadata."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _words(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _words(item)
    elif value is not None:
        yield str(value)
