"""Say what is wrong with a recipe, where, and what to write instead.

Pydantic finds the faults; this module puts them into the recipe's own words: the line of the file,
what stands there, what was expected, and the nearest word that exists.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from emcube.errors import RecipeError
from emcube.recipe import schema
from emcube.recipe.document import Document, Location, dotted

__all__ = ["Fault", "close_match", "raise_faults", "translate"]

SHOWN = 5
"""Faults named in one message."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where, what, and what to do."""

    location: Location
    what: str
    hint: str = ""


def raise_faults(document: Document, faults: Sequence[Fault]) -> None:
    """Raise `RecipeError` for the faults, first line first; do nothing when there are none."""
    if not faults:
        return
    ordered = sorted(faults, key=lambda f: document.line(f.location) or 0)
    if len(ordered) == 1:
        only = ordered[0]
        raise RecipeError(f"{document.place(only.location)}: {only.what}", hint=only.hint)
    rows = [
        f"  {document.place(f.location)}: {f.what}" + (f" ({f.hint})" if f.hint else "")
        for f in ordered[:SHOWN]
    ]
    if len(ordered) > SHOWN:
        rows.append(f"  and {len(ordered) - SHOWN} more")
    raise RecipeError(
        f"{len(ordered)} mistakes in the recipe:\n" + "\n".join(rows),
        hint="nothing was read or written",
    )


def translate(error: ValidationError, document: Document) -> list[Fault]:
    """Turn pydantic's findings into faults, one a location."""
    grouped: dict[Location, list[dict[str, Any]]] = {}
    details = error.errors(include_url=False, include_input=False)
    misspelt = [d["loc"] for d in details if d["type"] == "extra_forbidden"]
    for detail in details:
        if detail["type"] == "missing" and _is_misspelt(detail["loc"], misspelt):
            continue
        missing = detail["type"] == "missing"
        location = _walk(document.data, detail["loc"], keep_last=missing)
        grouped.setdefault(location, []).append(dict(detail))
    # A fault inside a value makes the value itself faulty (a list too short because an entry was
    # dropped): the inner one says more.
    inner = [loc for loc in grouped if not any(o[: len(loc)] == loc != o for o in grouped)]
    return [_fault(location, grouped[location], document.data) for location in inner]


def close_match(word: object, known: Iterable[str]) -> str:
    """Hint at the nearest known word, or list them all."""
    known = list(known)
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "known are " + ", ".join(known) if known else ""


def _holds(data: Any, part: str | int) -> bool:
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, dict) and part in data


def _is_misspelt(missing: Sequence[str | int], unknown: Sequence[Sequence[str | int]]) -> bool:
    """Tell whether a missing key stands beside an unknown one that is meant to be it."""
    beside = [str(u[-1]) for u in unknown if u[:-1] == missing[:-1]]
    return bool(difflib.get_close_matches(str(missing[-1]), beside, n=1, cutoff=0.6))


def _walk(data: Any, location: Sequence[str | int], *, keep_last: bool) -> Location:
    """Keep the parts of pydantic's location that exist in the document.

    The rest names branches of a union, which are pydantic's affair.
    """
    kept: list[str | int] = []
    for i, part in enumerate(location):
        if _holds(data, part):
            data = data[part]
        elif keep_last and i == len(location) - 1:
            pass
        else:
            continue
        kept.append(part)
    return tuple(kept)


def _fault(location: Location, details: list[dict[str, Any]], data: Any) -> Fault:
    """Describe one location."""
    first = details[0]
    kind, context = first["type"], first.get("ctx", {})
    subject = _subject(location)
    value = _value(data, location)
    if kind == "extra_forbidden":
        inner = dotted(location[:-1])
        return Fault(
            location,
            f"unknown key {location[-1]!r}" + (f" in {subject_of(location[:-1])}" if inner else ""),
            close_match(location[-1], _known_keys(location[:-1])),
        )
    if kind == "not_mapping":
        return Fault(
            location,
            f"the parameters of {location[-1]} are {_short(value)}, expected a mapping",
            f"write it as '- {location[-1]}: {{key: value}}'",
        )
    if kind == "missing" and isinstance(location[-1], int):
        given = _short(_value(data, location[:-1]))
        return Fault(
            location[:-1],
            f"{_subject(location[:-1])} is {given}, expected {location[-1] + 1} numbers or more",
        )
    if kind == "missing":
        return Fault(
            location[:-1],
            f"the key {location[-1]!r} is missing"
            + (f" in {subject_of(location[:-1])}" if location[:-1] else ""),
            _MISSING.get(str(location[-1]), ""),
        )
    if kind == "union_tag_invalid":
        verbs = _verbs(str(location[0]))
        return Fault(
            location,
            f"unknown verb {context['tag']!r} in {location[0]!r}",
            close_match(context["tag"], verbs),
        )
    if kind == "union_tag_not_found":
        example = _EXAMPLES[str(location[0])]
        return Fault(
            location,
            f"an entry of {location[0]!r} is one verb with its parameters, got {_short(value)}",
            f"write it as '{example}'",
        )
    if not location:
        return Fault(
            location,
            f"a recipe is a mapping with the keys {', '.join(_known_keys(()))}, got {_short(data)}",
            "start with 'emcube: 1'",
        )
    if kind in _SAID:
        return Fault(location, f"{subject}: {first['msg']}", _MISSING.get(str(location[-1]), ""))
    if location == ("emcube",):
        return Fault(
            location,
            f"'emcube' is {_short(value)}, expected {schema.FORMAT}, the version of the format",
            "write 'emcube: 1', or install the emcube release that wrote this recipe",
        )
    expected = " or ".join(dict.fromkeys(_expected(d) for d in details))
    return Fault(location, f"{subject} is {_short(value)}, expected {expected}")


_SAID = frozenset(
    {"interval", "no_dims", "one_window", "input_source", "reserved", "parameter", "value_error"}
)
"""Faults that bring their own sentence."""

_MISSING = {
    "emcube": "start the recipe with 'emcube: 1'",
    "steps": "name at least one step, as in 'steps: [{pca: {n_components: 20}}]'",
    "min_smoothed_counts": "write it as 'where: {min_smoothed_counts: 5}'",
}

_EXAMPLES = {
    "steps": "- pca: {n_components: 20}",
    "prepare": "- window: {energy: [1.0, 9.5]}",
}

_INNER: dict[str, type[BaseModel]] = {
    "known": schema.SpectraOf,
    "init": schema.SpectraOf,
    "basis": schema.XrayBasis,
}
"""What a parameter holds that is a mapping of its own."""

_UNSAID = ("verb", "digest", "spectra")
"""Keys that nobody writes by hand."""

_PHRASES = {
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "a word of letters, digits, - and _ that starts with a letter",
    "string_too_long": "at most {max_length} characters",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "none_required": "null",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "literal_error": "{expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "missing": "one more entry",
}


def _expected(detail: dict[str, Any]) -> str:
    phrase = _PHRASES.get(detail["type"])
    if phrase is None:
        return str(detail["msg"])
    return phrase.format(**detail.get("ctx", {}))


def subject_of(location: Location) -> str:
    """Name a part of the recipe: ``pca`` for a step, ``'input'`` for a section."""
    if len(location) >= 3 and location[0] in ("steps", "prepare"):
        return str(location[2])
    return repr(str(location[0])) if location else "the recipe"


def _subject(location: Location) -> str:
    if not location:
        return "the recipe"
    if len(location) <= 2 or location[0] not in ("steps", "prepare"):
        return repr(dotted(location))
    parameter = dotted(location[3:])
    return f"{parameter!r} of {location[2]}" if parameter else str(location[2])


def _value(data: Any, location: Location) -> Any:
    for part in location:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _short(value: Any) -> str:
    if value is None:
        return "empty"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _models(section: str) -> dict[str, type[BaseModel]]:
    """Verb to model, for ``steps`` or ``prepare``."""
    union = get_args(schema.Step if section == "steps" else schema.PrepareStep)[0]
    found: dict[str, type[BaseModel]] = {}
    for branch in get_args(union):
        model, tag = get_args(branch)[0], get_args(branch)[1]
        found[tag.tag] = model
    return found


def _verbs(section: str) -> list[str]:
    return list(_models(section))


def _known_keys(location: Location) -> list[str]:
    """Keys that may stand at a location."""
    if not location:
        return list(schema.RecipeModel.model_fields)
    if location == ("input",):
        return list(schema.Input.model_fields)
    if location == ("where",):
        return list(schema.Where.model_fields)
    if location[0] in ("steps", "prepare") and len(location) >= 3:
        inner = _INNER.get(str(location[3])) if len(location) > 3 else None
        model = inner or _models(str(location[0])).get(str(location[2]))
        return [k for k in model.model_fields if k not in _UNSAID] if model else []
    return []
