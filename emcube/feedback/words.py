"""How progress is written: sizes, rates, times, and one line of fields cut to the room that there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "Glyphs",
    "Line",
    "Piece",
    "clock",
    "fit",
    "format_bytes",
    "glyphs_for",
    "label",
    "rate",
    "seconds",
]

LABEL = 48
"""Characters of a name that are shown, at most."""

_BAR, _WIDEST = 8, 28


@dataclass(frozen=True)
class Glyphs:
    """Signs of a bar and between fields; plain ones where the terminal has no others."""

    full: str = "━"
    rest: str = "─"
    cut: str = "…"
    within: str = " › "


_PLAIN = Glyphs("#", "-", "...", " > ")


def glyphs_for(encoding: str | None) -> Glyphs:
    """Signs that text in an encoding can hold."""
    fancy = Glyphs()
    try:
        f"{fancy.full}{fancy.rest}{fancy.cut}{fancy.within}".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _PLAIN
    return fancy


@dataclass(frozen=True)
class Line:
    """What is shown of one piece of work.

    Attributes
    ----------
    name : str
        What it is, with what it is part of before it.
    share : float or None
        How much is done, from 0 to 1.
    fields : tuple of (int, str)
        Rank and text, in the order in which they are shown; the highest ranks go first where room is short.
    """

    name: str
    share: float | None
    fields: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Piece:
    """A part of a line, and what it is: "name", "full", "rest", "share" or "field"."""

    text: str
    kind: str


def fit(line: Line, width: int, glyphs: Glyphs) -> list[Piece]:
    """Lay a line out in so many columns: fields go first, then the bar, then the end of the name.

    Names count one column a character, as most do; the terminal cuts what is wider.
    """
    share = "" if line.share is None else f" {100 * min(max(line.share, 0.0), 1.0):3.0f} %"
    name = _cut(line.name, max(6, min(LABEL, width * 2 // 5)), glyphs)
    kept = list(line.fields)
    bar = _BAR if line.share is not None else 0

    def taken() -> int:
        between = 2 if bar else 0
        return len(name) + between + bar + len(share) + sum(2 + len(text) for _, text in kept)

    while kept and taken() > width:
        kept.remove(max(kept, key=lambda item: item[0]))
    if taken() > width:
        bar = 0
    if taken() > width:
        name = _cut(name, max(1, width - len(share)), glyphs)
    if bar:
        bar = min(_WIDEST, bar + width - taken())
    return _laid_out(name, line.share, share, bar, kept, glyphs)


def _laid_out(
    name: str,
    done: float | None,
    share: str,
    bar: int,
    kept: Sequence[tuple[int, str]],
    glyphs: Glyphs,
) -> list[Piece]:
    pieces = [Piece(name, "name")]
    if bar:
        full = round(bar * min(max(done or 0.0, 0.0), 1.0))
        pieces += [Piece("  ", "field"), Piece(glyphs.full * full, "full")]
        pieces += [Piece(glyphs.rest * (bar - full), "rest")]
    if share:
        pieces.append(Piece(share, "share"))
    pieces += [Piece(f"  {text}", "field") for _, text in kept]
    return pieces


def _cut(text: str, most: int, glyphs: Glyphs) -> str:
    if len(text) <= most:
        return text
    if most <= len(glyphs.cut):
        return text[:most]
    return text[: most - len(glyphs.cut)].rstrip() + glyphs.cut


def label(text: str, most: int = LABEL) -> str:
    """A name on one line, without signs that would steer a terminal."""
    one = " ".join("".join(c if c.isprintable() else " " for c in text[: 8 * most]).split())
    return one if len(one) <= most else one[: most - 1].rstrip() + "…"


def clock(spent: float) -> str:
    """Write a time as a clock does: ``1:05``, ``2:00:00``."""
    whole = max(0, round(spent))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def seconds(spent: float) -> str:
    """Write how long something took: ``0.42 s``, ``8.3 s``, ``3:20 min``."""
    if spent < 1:
        return f"{spent:.2f} s"
    if spent < 60:
        return f"{spent:.1f} s"
    return f"{clock(spent)} {'min' if spent < 3600 else 'h'}"


def rate(amount: float, what: str) -> str:
    """Write how much there is in a second: ``1.24 M pixels/s``."""
    if what == "bytes":
        return f"{format_bytes(amount)}/s"
    for size, sign in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if amount >= size:
            return f"{amount / size:.3g}{sign} {what}/s"
    return f"{amount:.3g} {what}/s"


def format_bytes(n: float) -> str:
    """Size for people, e.g. ``"1.3 GiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"
