"""How numbers and other people's words are written on the page."""

from __future__ import annotations

import re
from typing import Any

from emcube.units import pretty

__all__ = ["TITLE", "clean", "count", "number", "percent", "plural", "shorten", "with_unit"]

TITLE = 160
"""Characters of a title that are shown; the whole of it stands in the table of metadata."""

# C0 and C1 controls but for tab and line feed, marks that turn the direction of what follows, lone halves
# of surrogate pairs (which UTF-8 cannot hold), and what Unicode says is no character.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def clean(value: Any) -> str:
    """Write a stranger's text so that it is what it seems: control characters become visible escapes.

    HTML is not escaped here; the template does that.
    """
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", str(value))


def shorten(value: Any, limit: int = TITLE) -> str:
    """Cut a text that is longer than a title may be, and say that it was cut."""
    text = " ".join(clean(value).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def number(value: Any, digits: int = 4) -> str:
    """Write a number with so many significant digits; thousands are set apart."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    found = float(value)
    if found != found:
        return "none"
    if found in (float("inf"), float("-inf")):
        return "infinite" if found > 0 else "minus infinite"
    if found == 0 or 1e-3 <= abs(found) < 1e6:
        return f"{found:,.{digits}g}" if abs(found) < 10**digits else f"{found:,.0f}"
    return f"{found:.{digits - 1}e}"


def percent(share: float) -> str:
    """Write a share as a percentage of two or three digits."""
    value = 100.0 * share
    return f"{value:.0f} %" if abs(value) >= 10 else f"{value:.2g} %"


def plural(n: int, word: str) -> str:
    """Write how many there are: ``1 pass``, ``2 passes``."""
    ending = "es" if word.endswith(("s", "x", "ch")) else "s"
    return f"{n:,} {word}{'' if n == 1 else ending}"


def count(n: float) -> str:
    """Write a large number in a few digits: ``2.47 million``."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(n) >= size:
            return f"{n / size:.3g} {word}"
    return f"{n:,.0f}" if abs(n) >= 100 else number(n, 3)


def with_unit(value: Any, unit: str | None) -> str:
    """Write a number with its unit as figures do."""
    text = number(value) if isinstance(value, int | float) else clean(value)
    sign = pretty(unit)
    return f"{text}{'' if sign == '°' or not sign else ' '}{clean(sign)}"
