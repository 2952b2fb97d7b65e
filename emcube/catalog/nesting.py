"""All entries of a catalog with those of the catalogs within it, each of which is opened once.

A few small catalogs that name each other several times have more paths through them than anybody can
follow: what is listed once is not listed again under other names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emcube.catalog.places import Place, is_remote, place_of
from emcube.errors import EmcubeError

if TYPE_CHECKING:
    from emcube.catalog.model import Catalog, Entry

__all__ = ["flatten"]

#: Catalogs in catalogs in catalogs.
_MAX_NESTED = 8
#: Catalogs that one search opens.
_MAX_CATALOGS = 1000


@dataclass(frozen=True)
class _Opened:
    catalog: Catalog
    name: str
    above: frozenset[str]


def flatten(catalog: Catalog) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """All entries with those of nested catalogs, and what kept some of these from being read.

    Parameters
    ----------
    catalog : Catalog

    Returns
    -------
    dict of str to Entry
        Those of nested catalogs are called ``catalog/entry``.
    tuple of str
        One text for each nested catalog that was not opened, or is listed under another name already.

    Notes
    -----
    Catalogs are opened level by level, so that each is found under its shortest name, whatever the order.
    """
    top = _Opened(catalog, "", frozenset({_identity(catalog.path)}))
    seen = {_identity(catalog.path): ""}
    below: dict[str, Catalog] = {}
    problems: list[str] = []
    todo = deque([top])
    while todo:
        one = todo.popleft()
        for name, entry in one.catalog.entries.items():
            if not is_catalog(entry):
                continue
            full = f"{one.name}{name}"
            try:
                target = entry.target.location
                identity = _identity(place_of(target))
                problem = _problem(target, identity, one, seen)
                if problem:
                    problems.append(f"{full}: {problem}")
                    continue
                seen[identity] = full
                opened = below[full] = entry.open_catalog()
            except EmcubeError as error:
                # A catalog elsewhere may be down; what is here is found all the same, and the caller is told.
                problems.append(f"{full}: {error}")
                continue
            todo.append(_Opened(opened, f"{full}/", one.above | {identity}))
    return dict(_entries(catalog, "", below)), tuple(problems)


def _problem(target: str, identity: str, one: _Opened, seen: Mapping[str, str]) -> str:
    """Why a nested catalog is not opened; empty where it is."""
    if identity in one.above or len(one.above) > _MAX_NESTED:
        return f"{target} is nested within itself, or too deep"
    if identity in seen:
        return f"{target} is listed once, as {seen[identity]}"
    if len(seen) >= _MAX_CATALOGS:
        return f"{target} was not opened: a search opens at most {_MAX_CATALOGS} catalogs"
    return ""


def _entries(
    catalog: Catalog, above: str, below: Mapping[str, Catalog]
) -> Iterator[tuple[str, Entry]]:
    for name, entry in catalog.entries.items():
        full = f"{above}{name}"
        if full in below:
            yield from _entries(below[full], f"{full}/", below)
        elif not is_catalog(entry):
            yield full, entry


def is_catalog(entry: Entry) -> bool:
    """Whether an entry's reader is that of catalogs; nothing is checked."""
    raw = entry._document["entries"].get(entry._key or entry.name)
    reader = raw.get("reader") if isinstance(raw, Mapping) else None
    return isinstance(reader, str) and reader.endswith(":YAMLCatalogReader")


def _identity(place: Place) -> str:
    return str(place) if is_remote(place) else str(Path(place).resolve())
