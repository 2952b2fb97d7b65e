"""How a catalog looks at a prompt and in a notebook, and names that are meant by wrong ones."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emcube.catalog.model import Catalog

__all__ = ["catalog_html", "catalog_text", "nearest"]

#: A notebook shows this many rows.
_ROWS = 50
_COLUMNS = ("title", "modality", "elements", "shape", "license")


def catalog_text(catalog: Catalog) -> str:
    """One line: the file, how many entries, and the first of their names."""
    names = list(catalog)
    told = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"<Catalog {catalog.path}: {_count(len(names))}{': ' if told else ''}{told}>"


def catalog_html(catalog: Catalog) -> str:
    """A table of the entries; all that the catalog says is escaped."""
    head = "".join(f"<th>{key}</th>" for key in ("name", *_COLUMNS))
    rows = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _cells(name, entry.metadata))}</tr>"
        for name, entry in list(catalog.items())[:_ROWS]
    )
    more = len(catalog) - _ROWS
    rest = f"<p>and {more} more</p>" if more > 0 else ""
    title = html.escape(f"{catalog.path}: {_count(len(catalog))}")
    return f"<table><caption>{title}</caption><tr>{head}</tr>{rows}</table>{rest}"


def _count(n: int) -> str:
    return f"{n} {'entry' if n == 1 else 'entries'}"


def _cells(name: str, metadata: Mapping[str, Any]) -> list[str]:
    cells = [name]
    for key in _COLUMNS:
        value = metadata.get(key)
        if isinstance(value, (list, tuple)):
            value = (" x " if key == "shape" else " ").join(map(str, value))
        cells.append("" if value is None else str(value))
    return cells


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint at the name that was meant: one that ends or begins so, or is spelled alike; "" for none."""
    known = list(names)
    wanted = name.casefold()
    part = [one for one in known if wanted and wanted in one.casefold()]
    if len(part) == 1:
        return f"did you mean {part[0]!r}?"
    close = get_close_matches(name, known, 3) or part[:3]
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""
