"""Datasets of a catalog, as a list to choose from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emcube.errors import EmcubeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emcube.catalog import Catalog, Entry

__all__ = ["EntryCard", "entry_cards"]


@dataclass(frozen=True)
class EntryCard:
    """What a catalog says of a dataset: plain text of strangers.

    Attributes
    ----------
    name : str
        By which it is chosen.
    title, modality : str
        Empty where the catalog does not say.
    elements : tuple of str
    shape : tuple of int
        Empty where it is not known.
    kind : {"cube", "catalog", "refused"}
        A catalog within is chosen like a dataset and lists its own. A refused entry is not opened.
    available : bool
        Whether the data are there.
    problem : str
        Why it cannot be chosen, and what to do; empty where it can.
    """

    name: str
    title: str
    modality: str
    elements: tuple[str, ...]
    shape: tuple[int, ...]
    kind: str
    available: bool
    problem: str


def entry_cards(
    catalog: Catalog, text: str, modality: str | None, elements: Sequence[str]
) -> list[EntryCard]:
    """List the entries of a catalog that match; see `Catalog.search`."""
    criteria: dict[str, Any] = {}
    if text.strip():
        criteria["text"] = text.strip()
    if modality:
        criteria["modality"] = modality
    if elements:
        criteria["elements"] = list(elements)
    found = catalog.search(**criteria) if criteria else catalog
    return [_card(name, entry) for name, entry in found.items()]


def _card(name: str, entry: Entry) -> EntryCard:
    kind, available, problem = "cube", False, ""
    try:
        kind = "catalog" if entry.target.kind == "catalog" else "cube"
        available = entry.available
        if kind == "cube" and not available:
            entry.location()  # says what to do
    except EmcubeError as error:
        kind = "refused" if entry.kind is None else kind
        problem = str(error)
    known = entry.metadata
    return EntryCard(
        name=name,
        title=_text(known.get("title")),
        modality=_text(known.get("modality")),
        elements=tuple(map(str, _several(known.get("elements")))),
        shape=tuple(int(n) for n in _several(known.get("shape")) if isinstance(n, int | float)),
        kind=kind,
        available=available,
        problem=problem,
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _several(value: Any) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        return value
    return () if value is None else (value,)
