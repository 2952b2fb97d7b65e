"""Search in catalogs by what metadata say: any field, ranges, sets of elements, words and synonyms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from emcube.errors import CatalogError

__all__ = [
    "MODALITIES",
    "Query",
    "beam_energy_range",
    "element_set",
    "facet_counts",
    "normal_modality",
    "search_text",
]

#: Other words for a modality, without spaces, hyphens and case.
MODALITIES: dict[str, tuple[str, ...]] = {
    "EDS": ("eds", "edx", "edxs", "xeds", "edax", "stemeds", "semeds", "stemedx", "semedx"),
    "WDS": ("wds", "wdx", "wdxs"),
    "EELS": ("eels", "eel", "stemeels"),
    "4D-STEM": ("4dstem", "4d", "stem4d", "nbed", "nbd", "diffraction", "sped"),
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
#: Fields whose values say nothing to people.
_NO_WORDS = frozenset({"axes", "digest", "checksum", "crawled", "checksum_status"})


def normal_modality(word: str) -> str:
    """The one name of a modality: EDX, EDXS and XEDS are EDS. Unknown words stay as they are."""
    plain = "".join(c for c in word.lower() if c.isalnum())
    return _NORMAL.get(plain, word)


def element_set(elements: str | Iterable[str]) -> frozenset[str]:
    """Symbols of elements, whatever their case.

    Raises
    ------
    CatalogError
        A symbol is not one of an element.
    """
    from emcube.cube.metadata import ELEMENTS

    given = elements.replace(",", " ").split() if isinstance(elements, str) else list(elements)
    found = frozenset(str(symbol).strip().capitalize() for symbol in given)
    wrong = sorted(found - set(ELEMENTS))
    if wrong:
        raise CatalogError(
            f"search by elements: got {wrong[0]!r}, expected symbols of chemical elements",
            hint="for example elements=['Ni', 'Cr']",
        )
    return found


def beam_energy_range(beam_energy: float | Sequence[float | None]) -> tuple[float, float]:
    """Bounds in keV, both included; None leaves one end open, as an infinity.

    Raises
    ------
    CatalogError
        The bounds are not two rising numbers, or both are open.
    """
    pair = beam_energy if isinstance(beam_energy, (tuple, list)) else None
    try:
        if pair is None:
            energy = float(beam_energy)  # type: ignore[arg-type]
            return energy - _ENERGY_SLACK, energy + _ENERGY_SLACK
        if pair[0] is None and pair[1] is None:
            raise ValueError("a range without ends")
        low, high = pair
        low, high = -inf if low is None else float(low), inf if high is None else float(high)
    except (TypeError, ValueError, IndexError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise CatalogError(
            f"search by beam energy: got {beam_energy!r}, expected one number or (lowest, highest) in keV",
            hint="for example beam_energy=(80, 300); (80, None) and (None, 30) leave one end open",
        )
    return low, high


def search_text(name: str, metadata: Mapping[str, Any]) -> str:
    """All words of an entry, folded: its name, its values, and the other names of its modality."""
    words = [name]
    for key, value in metadata.items():
        if key not in _NO_WORDS:
            words.extend(_words(value))
    modality = metadata.get("modality")
    if isinstance(modality, str):
        words.extend(MODALITIES.get(normal_modality(modality), ()))
    return "\n".join(words).casefold()


def _words(value: Any) -> Iterator[str]:
    """Every text and number in nested metadata."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _words(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _words(item)
    elif value is not None:
        yield str(value)


@dataclass(frozen=True)
class Query:
    """What is asked for; an entry has to have all of it, and has what it says.

    Attributes
    ----------
    words : tuple of str
        Folded words that all occur.
    modalities : frozenset of str
        Any of them; empty for all.
    elements, any_elements, no_elements : frozenset of str
        All of these, at least one of these, none of these occur.
    beam_energy : (float, float) or None
        keV, both included.
    fields : tuple of (str, condition)
        See `_holds`; a key with ``__`` reaches into nested metadata.
    """

    words: tuple[str, ...] = ()
    modalities: frozenset[str] = frozenset()
    elements: frozenset[str] = frozenset()
    any_elements: frozenset[str] = frozenset()
    no_elements: frozenset[str] = frozenset()
    beam_energy: tuple[float, float] | None = None
    fields: tuple[tuple[str, Any], ...] = field(default=())

    def matches(self, text: str, metadata: Mapping[str, Any]) -> bool:
        """Whether an entry of these words and metadata has everything that is asked for."""
        if self.words and not all(word in text for word in self.words):
            return False
        if self.modalities:
            found = metadata.get("modality")
            if not isinstance(found, str) or normal_modality(found) not in self.modalities:
                return False
        if not self._elements_match(metadata):
            return False
        if self.beam_energy is not None:
            energy = metadata.get("beam_energy_keV")
            low, high = self.beam_energy
            if not isinstance(energy, (int, float)) or not low <= energy <= high:
                return False
        return all(_holds(_value(metadata, key), wanted) for key, wanted in self.fields)

    def _elements_match(self, metadata: Mapping[str, Any]) -> bool:
        if not (self.elements or self.any_elements or self.no_elements):
            return True
        listed = metadata.get("elements")
        found = {str(one) for one in listed} if isinstance(listed, (list, tuple)) else set()
        if self.any_elements and not self.any_elements & found:
            return False
        return self.elements <= found and not self.no_elements & found


def _value(metadata: Mapping[str, Any], key: str) -> Any:
    if key in metadata:
        return metadata[key]
    value: Any = metadata
    for part in key.split("__"):
        if isinstance(value, (list, tuple)):
            value = [one.get(part) for one in value if isinstance(one, Mapping)]
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _holds(found: Any, wanted: Any) -> bool:
    """Whether a value is what is wanted.

    A tuple of two is a range, both ends included, None for an open end; a list is any of its values;
    texts are equal whatever their case; a found list has to hold the value, or every one of a wanted list.
    """
    if found is None:
        return wanted is None
    if isinstance(found, (list, tuple)):
        if isinstance(wanted, (list, tuple)):
            return list(found) == list(wanted) or all(
                any(_same(one, want) for one in found) for want in wanted
            )
        return any(_same(one, wanted) for one in found)
    if isinstance(wanted, tuple) and len(wanted) == 2:
        return _within(found, *wanted)
    if isinstance(wanted, list):
        return any(_same(found, one) for one in wanted)
    return _same(found, wanted)


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(found, Mapping):
        return any(_same(value, wanted) for value in found.values())
    if isinstance(found, str) and isinstance(wanted, str):
        return found.casefold() == wanted.casefold()
    return bool(found == wanted)


def _within(found: Any, low: Any, high: Any) -> bool:
    if isinstance(found, bool):
        return False
    if isinstance(found, str):
        # Dates as text compare as dates: "2026-11-26T10:00" lies within ("2026-11", "2026-11-26").
        ends = [end for end in (low, high) if end is not None]
        if not all(isinstance(end, str) for end in ends):
            return False
        return (low is None or found >= low) and (high is None or found[: len(high)] <= high)
    if not isinstance(found, (int, float)):
        return False
    return (low is None or found >= low) and (high is None or found <= high)


def facet_counts(
    entries: Iterable[Mapping[str, Any]], keys: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Count values: how many entries have each.

    Parameters
    ----------
    entries : iterable of mapping
        Metadata.
    keys : sequence of str
        Fields; a list's every value counts, of creators the names.

    Returns
    -------
    dict
        ``{"modality": {"EDS": 12, "EELS": 3}}``; most first, then by name.
    """
    counts: dict[str, Counter[str]] = {key: Counter() for key in keys}
    for metadata in entries:
        for key in keys:
            counts[key].update(_facet_values(_value(metadata, key), key))
    return {
        key: dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
        for key, found in counts.items()
    }


def _facet_values(value: Any, key: str) -> set[str]:
    if value is None or value == []:
        return set()
    if isinstance(value, Mapping):
        return {str(value["name"])} if "name" in value else set()
    if isinstance(value, (list, tuple)):
        return {text for one in value for text in _facet_values(one, key)}
    return {normal_modality(value) if key == "modality" and isinstance(value, str) else str(value)}
