"""What was typed or drawn on the page, as the values that a session takes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emcube.errors import InputError
from emcube.explore.settings import fields_of
from emcube.report.text import shorten

__all__ = [
    "ascii_name",
    "brief",
    "name_of",
    "path_of",
    "real",
    "simple",
    "span",
    "value_of",
    "whole",
]


def span(a: float, b: float, n: int) -> tuple[int, int]:
    """First pixel, and the one after the last, of those that a stretch of positions touches."""
    low, high = sorted((a, b))
    start = min(max(int(np.floor(low + 0.5)), 0), n - 1)
    stop = min(max(int(np.ceil(high + 0.5)), start + 1), n)
    return start, stop


def simple(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """An outline without the corners that lie closer than half a pixel to the one before."""
    kept: list[tuple[float, float]] = []
    for row, column in points:
        if not kept or max(abs(row - kept[-1][0]), abs(column - kept[-1][1])) >= 0.5:
            kept.append((round(row, 2), round(column, 2)))
    return kept


def whole(value: Any, what: str) -> int:
    """A whole number that was typed."""
    try:
        return int(str(value).strip())
    except ValueError:
        raise InputError(
            f"{shorten(what, 40)}: got {shorten(value, 40)!r}, expected a whole number",
            hint="type digits only",
        ) from None


def real(value: Any, what: str) -> float:
    """A number that was typed."""
    try:
        found = float(str(value).strip())
    except ValueError:
        found = float("nan")
    if not np.isfinite(found):
        raise InputError(
            f"{shorten(what, 40)}: got {shorten(value, 40)!r}, expected a number",
            hint="type both ends of the window",
        )
    return found


def value_of(verb: str, parameter: str, text: str) -> Any:
    """What was typed for a parameter, as a recipe has it; the recipe's schema judges it."""
    known = {f.name: f for f in fields_of(verb)}
    if parameter not in known:
        raise InputError(
            f"{verb} has no parameter {shorten(parameter, 40)!r}", hint="reload the page"
        )
    field = known[parameter]
    if text == "none" and None in field.choices:
        return None
    if text in field.choices:
        return text
    if field.kind == "yes or no":
        return text == "yes"
    try:
        return (
            float(text) if field.kind == "number" else int(text) if field.kind != "text" else text
        )
    except ValueError:
        return text


def name_of(step: Mapping[str, Any]) -> str:
    """Name of an entry of a recipe's steps."""
    (verb, given), *_ = step.items()
    return str((given or {}).get("name") or verb)


def path_of(asked: Mapping[str, Any]) -> Path:
    """The place that was typed; ``~`` and variables are filled in."""
    text = str(asked.get("path") or "").strip()
    if not text:
        raise InputError("no place was named", hint="give a path")
    return Path(os.path.expandvars(text)).expanduser()


def ascii_name(name: str) -> str:
    """A file's name that is safe in an address."""
    return "".join(c if c.isascii() and (c.isalnum() or c in ".-_") else "_" for c in name)[-60:]


def brief(parameters: Mapping[str, Any]) -> str:
    """What an action was done with, in one line."""
    text = ", ".join(f"{k} {json.dumps(v, ensure_ascii=False)}" for k, v in parameters.items())
    return shorten(text, 300)
