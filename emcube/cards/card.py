"""A card: what people look for in a description, in the order in which they look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from shlex import quote
from typing import Any

from emcube.cards.text import (
    STATUS,
    about_metadata,
    entry_parts,
    fetch_command,
    field_text,
    metadata_rows,
    number_text,
    step_text,
    visible,
)
from emcube.feedback.words import format_bytes

__all__ = ["Card", "Table", "card_of", "shorten"]

TITLE, VALUE = 120, 300
"""Characters of a title, and of any other text of a stranger, that are shown."""

_TOP = ("modality", "elements", "beam_energy_keV", "specimen")
_DONE = frozenset({*_TOP, "title", "name", "digest", "sha256"})

Row = tuple[str, str]


@dataclass(frozen=True)
class Table:
    """Rows under heads.

    Attributes
    ----------
    heads : tuple of str
    rows : tuple of tuple of str
    right : frozenset of int
        Columns of numbers.
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Card:
    """What is shown; texts are plain, whoever draws them escapes them.

    Attributes
    ----------
    kind : str
        "cube", "result" and so on.
    title : str
    about : str
        One line under it.
    table : Table or None
        Axes, steps, entries or signals.
    facts : tuple of (str, str)
    warnings : tuple of str
    then : str
        A command that goes on from here.
    """

    kind: str
    title: str
    about: str = ""
    table: Table | None = None
    facts: tuple[Row, ...] = ()
    warnings: tuple[str, ...] = ()
    then: str = ""


def card_of(described: Mapping[str, Any]) -> Card:
    """Choose what people look for.

    Parameters
    ----------
    described : mapping
        As `emcube.cards.describe` gives it.
    """
    makers: dict[str, Callable[[Mapping[str, Any]], Card]] = {
        "cube": _cube,
        "signals": _signals,
        "result": _result,
        "estimate": _estimate,
        "catalog": _catalog,
        "entry": _entry,
        "package": _package,
    }
    return makers[described["kind"]](described)


def shorten(text: Any, most: int = VALUE) -> str:
    """A stranger's text on one line, without signs that would steer a terminal, and not too long."""
    one = visible(" ".join(str(text)[: 20 * most].split()))
    return one if len(one) <= most else one[: most - 1].rstrip() + "…"


def _rows(pairs: list[tuple[str, Any]]) -> tuple[Row, ...]:
    return tuple((shorten(k, 40), shorten(v)) for k, v in pairs if v not in (None, "", [], ()))


# ----------------------------------------------------------------------------------------------- cubes


def _cube(card: Mapping[str, Any]) -> Card:
    known = card["metadata"]
    entry = card.get("entry")
    if entry is not None:
        title = entry["metadata"].get("title") or card["address"]
    else:
        title = known.get("title") or card["name"] or "unnamed"
    facts: list[tuple[str, Any]] = [("values", _values(card)), ("size", _size(card))]
    if card.get("counts_per_pixel") is not None:
        facts.append(("counts", f"{number_text(round(card['counts_per_pixel'], 3))} per pixel"))
    facts.append(("companions", ", ".join(card["companions"])))
    if entry is not None:
        facts += [("entry", card["address"]), ("address", entry["store"])]
        facts += _about_rows(known)
    else:
        facts += [(k, v) for k, v in metadata_rows(known) if not _told(k, known)]
    if card.get("digest"):
        facts.append(("digest", card["digest"]))
    return Card("cube", shorten(title, TITLE), _about(known), _axes(card), _rows(facts))


def _told(key: str, metadata: Mapping[str, Any]) -> bool:
    """Whether the title or the line under it say it already."""
    return key in _DONE or f"{key.replace(' ', '_')}_keV" in _TOP


def _about(known: Mapping[str, Any]) -> str:
    energy = known.get("beam_energy_keV")
    elements = known.get("elements")
    parts = [
        known.get("modality"),
        " ".join(map(str, elements)) if isinstance(elements, list | tuple) else elements,
        f"{number_text(energy)} keV" if energy else None,
        known.get("specimen"),
    ]
    return " · ".join(shorten(p, 80) for p in parts if p)


def _values(card: Mapping[str, Any]) -> str:
    units = card["units"]
    return card["dtype"] if units == "1" else f"{card['dtype']}, {units}"


def _size(card: Mapping[str, Any]) -> str:
    size = format_bytes(card["nbytes"])
    if card.get("in_memory") is not None:
        size += " in memory" if card["in_memory"] else ", lazy"
    if card.get("stored_bytes"):
        size += f", {format_bytes(card['stored_bytes'])} on disk"
    return size + (" as events" if card.get("layout") == "events" else "")


def _axes(card: Mapping[str, Any]) -> Table | None:
    rows = []
    for dim, axis in card["axes"].items():
        kind = "signal" if dim in card["sig_dims"] else "navigation"
        unit = "" if axis["units"] in ("1", None) else f" {axis['units']}"
        span = f"{_end(axis['from'])} to {_end(axis['to'])}{unit}"
        rows.append((shorten(dim, 40), f"{axis['size']:,}", shorten(span, 60), kind))
    return Table(("dim", "size", "range", ""), tuple(rows), frozenset({1})) if rows else None


def _end(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else shorten(value, 24)


def _signals(card: Mapping[str, Any]) -> Card:
    rows = tuple(
        (
            shorten(s["name"], 60),
            s["kind"],
            shorten(", ".join(f"{d} {n}" for d, n in zip(s["dims"], s["shape"], strict=True))),
            s["dtype"],
        )
        for s in card["signals"]
    )
    return Card(
        "file",
        shorten(card["address"], TITLE),
        f"{len(rows)} signals; pick one with --name (name= in Python)",
        Table(("name", "kind", "shape", "values"), rows),
    )


# --------------------------------------------------------------------------------------------- results


def _result(card: Mapping[str, Any]) -> Card:
    cube, recorded = card["cube"], card["input"]
    shape = ", ".join(f"{d} {n:,}" for d, n in zip(cube["dims"], cube["shape"], strict=True))
    source = recorded.get("dataset") or recorded.get("name") or recorded.get("path")
    rows = tuple(
        (
            shorten(name, 40),
            shorten(step_text(step), 200),
            "" if step.get("seconds") is None else f"{step['seconds']:.1f} s",
        )
        for name, step in card["steps"].items()
    )
    drawn = ", ".join(f"{k} {v}" for k, v in card["seeds"].items())
    facts = [
        ("of", f"{shape}; {cube['dtype']} {'' if cube['units'] == '1' else cube['units']}".strip()),
        ("input", source if not isinstance(source, list) else ", ".join(map(str, source))),
        ("at", card["address"]),
        ("run", card["run_id"].removeprefix("sha256:")[:12]),
        ("digest", str(recorded.get("digest", "")).removeprefix("sha256:")[:12]),
        ("seeds", drawn),
        ("emcube", card.get("emcube")),
        ("finished", _moment(card.get("finished"))),
    ]
    warnings: tuple[str, ...] = ()
    if not card["complete"]:
        from emcube.results.unfinished import progress_text

        told = progress_text(card["progress"]) if card.get("progress") else "it was never finished"
        warnings = (f"Incomplete: {shorten(told)}. The same run goes on from here.",)
    return Card(
        "result",
        shorten(
            (card.get("metadata") or {}).get("title") or _last(source) or card["address"], TITLE
        ),
        _about(card.get("metadata") or {}),
        Table(("step", "outcome", "time"), rows, frozenset({2})) if rows else None,
        _rows(facts),
        warnings,
        _command("report", card["address"]) if card["complete"] else "",
    )


def _moment(text: Any) -> str:
    """A time stamp to the minute."""
    from datetime import datetime

    try:
        return f"{datetime.fromisoformat(str(text)):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return "" if text is None else str(text)


def _last(source: Any) -> str:
    if isinstance(source, list | tuple):
        return f"{_last(source[0])} and {len(source) - 1} more" if source else ""
    return str(source or "").rstrip("/").rpartition("/")[2]


def _command(verb: str, address: Any) -> str:
    """A command that may be copied into a shell, whatever the address holds."""
    return visible(f"emcube {verb} {quote(str(address))}")


def _estimate(card: Mapping[str, Any]) -> Card:
    number, margin = card["n_components"], card["margin"]
    rows = []
    for key, text in (
        ("above_percent", "last one above noise"),
        ("below_percent", "next one below noise"),
    ):
        value = margin[key]
        if value is not None and value == value:
            rows.append((text, f"{value:.1f} %"))
    others = {k: v for k, v in card["alternatives"].items() if k != card["method"]}
    rows += [(k, "no number" if v is None else str(v)) for k, v in others.items()]
    warnings = (
        () if card["trusted"] else ("The noise does not follow its law: do not trust this number.",)
    )
    return Card(
        "estimate",
        "no number" if number is None else f"{number} component{'' if number == 1 else 's'}",
        f"by {shorten(card['method'], 40)}",
        None,
        _rows([("reason", card["reason"]), *rows]),
        warnings,
    )


# ------------------------------------------------------------------------------- catalogs and packages


def _catalog(card: Mapping[str, Any]) -> Card:
    entries = card["entries"]
    rows = tuple(
        (shorten(name, 60), shorten(", ".join(entry_parts(entry)), 200))
        for name, entry in entries.items()
    )
    facts = [
        (key, ", ".join(f"{v} {n}" for v, n in counts.items()) or "none")
        for key, counts in card.get("facets", {}).items()
    ]
    return Card(
        "catalog",
        shorten(card["address"], TITLE),
        f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}",
        Table(("entry", "what"), rows) if rows else None,
        _rows(facts),
        tuple(f"Not looked into: {shorten(p)}" for p in card.get("problems", ())),
    )


def _entry(card: Mapping[str, Any]) -> Card:
    entry = card["entry"]
    known = entry["metadata"]
    facts: list[tuple[str, Any]] = [("entry", card["address"]), ("address", entry.get("store"))]
    if known.get("dims") and known.get("shape"):
        shape = ", ".join(f"{d} {n}" for d, n in zip(known["dims"], known["shape"], strict=False))
        facts.append(("shape", f"{shape} {known.get('dtype') or ''}".strip()))
    facts.append(("state", ", ".join(entry_parts({**entry, "metadata": _bare(known)}))))
    facts += _about_rows(known)
    warnings = (f"Does not open: {shorten(card['unopened'])}",) if card.get("unopened") else ()
    return Card(
        "entry",
        shorten(known.get("title") or card["address"], TITLE),
        _about(known),
        None,
        _rows(facts),
        warnings,
        visible(fetch_command(card)),
    )


def _bare(known: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata without what stands elsewhere on the card."""
    return {k: v for k, v in known.items() if k not in ("title", "modality", "elements", "shape")}


def _about_rows(metadata: Mapping[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    status = metadata.get("checksum_status")
    for key, value in about_metadata(metadata).items():
        if key in _DONE or key in ("source", "detector", "checksum_status"):
            continue
        text = field_text(key, value)
        if key == "checksum" and status:
            text += f" ({STATUS.get(str(status), status)})"
        rows.append((key.replace("_", " "), text))
    return rows


def _package(card: Mapping[str, Any]) -> Card:
    known = card["input"]
    where = ", ".join(known["addresses"]) or "by digest only: whoever reproduces needs --input"
    facts = [
        ("at", card["address"]),
        ("data", "in the package" if known["included"] else where),
        ("files", f"{card['files']:,}, {format_bytes(card['bytes'])}"),
        ("run", str(card["run_id"]).removeprefix("sha256:")[:12]),
        ("digest", str(known["digest"]).removeprefix("sha256:")[:12]),
        ("sha256", card["sha256"]),
    ]
    return Card(
        "package",
        shorten(card["title"], TITLE),
        "",
        None,
        _rows(facts),
        (),
        _command("reproduce", card["address"]),
    )
