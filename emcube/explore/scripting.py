"""The record as text: a recipe in YAML and a script in Python, each of which does the same by itself.

Names, titles and paths may be strangers' and hold anything: they are written so that they stay text.
"""

from __future__ import annotations

import json
import math
import pprint
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from emcube.explore.actions import Action

__all__ = ["python_text", "yaml_text"]

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_WORDS = frozenset({"true", "false", "null", "nan", "inf"})
#: YAML wants a mark before longer ones.
_LONGEST_KEY = 500
#: What YAML does not take as it is: controls, line breaks of its own, marks of byte order, lone surrogates.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def yaml_text(recipe: Mapping[str, Any], title: str, notes: Iterable[str] = ()) -> str:
    """Write a recipe as YAML that `emcube run` takes.

    Parameters
    ----------
    recipe : mapping
        Plain data, as `Settings.as_recipe` gives.
    title : str
        Of the data; goes into a comment.
    notes : iterable of str
        Further comments, one line each.

    Raises
    ------
    ValueError
        It holds what is no plain data.
    """
    lines = [f"# Recipe from emcube's explorer, for {_quoted(title)}." if title else ""]
    lines += [f"# {note}" for note in notes]
    lines = [line for line in lines if line]
    for key, value in recipe.items():
        if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            lines.append(f"{_key(key)}:")
            lines += [f"  - {_entry(v)}" for v in value]
        else:
            lines.append(f"{_key(key)}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _entry(entry: Mapping[str, Any]) -> str:
    if len(entry) == 1 and all(len(str(verb)) <= _LONGEST_KEY for verb in entry):
        return "".join(f"{_key(verb)}: {_flow(given)}" for verb, given in entry.items())
    return _flow(entry)


def _key(key: Any) -> str:
    text = str(key)
    if len(text) > _LONGEST_KEY:
        return f"? {_quoted(text)} "
    return text if _PLAIN_KEY.fullmatch(text) and text.lower() not in _WORDS else _quoted(text)


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no number of a recipe")
        return repr(value)
    text = str(value)
    return text if _WORD.fullmatch(text) and text.lower() not in _WORDS else _quoted(text)


def _quoted(text: str) -> str:
    """Text in double quotes, as JSON and YAML both read it."""
    return _UNSAFE.sub(lambda m: f"\\u{ord(m[0]):04x}", json.dumps(text, ensure_ascii=False))


# ------------------------------------------------------------------------------------------------- Python


def python_text(
    recipe: Mapping[str, Any], actions: Iterable[Action], title: str, *, result: str = "result"
) -> str:
    """Write a script that does what was done: what was looked at, lazily, then the run.

    Parameters
    ----------
    recipe : mapping
        With its input.
    actions : iterable of Action
    title : str
        Of the data.
    result : str
        Name of the result's folder beside the script.
    """
    named = recipe["input"]
    looks = list(_looks(actions))
    body = [
        f"# Written by emcube's explorer, for {title!r}."
        if title
        else "# Written by emcube's explorer.",
        "# Run by itself, this gives the same run_id and the same bits as in the explorer.",
        "from pathlib import Path",
        "",
        "import emcube as em",
        *(["from emcube.explore import Region"] if any("Region" in look for look in looks) else []),
        "",
        "HERE = Path(__file__).resolve().parent",
        "",
        f"RECIPE = {pprint.pformat(dict(recipe), width=92, sort_dicts=False)}",
        "",
    ]
    if looks:
        body += [
            "# What was looked at. All of it is lazy: call .compute() or .plot() on what you want to see.",
            f"cube = {_opening(named)}",
            *looks,
            "",
        ]
    body += [
        'if __name__ == "__main__":',
        "    recipe = em.Recipe.from_dict(RECIPE, folder=HERE)",
        f"    result = em.run(recipe, out=HERE / {result!r})",
        "    print(result.run_id)",
    ]
    return "\n".join(body) + "\n"


def _opening(named: Mapping[str, Any]) -> str:
    if "catalog" in named:
        return f"em.open_catalog({_located(named['catalog'])})[{named['dataset']!r}].open()"
    path = named["path"]
    where = "[" + ", ".join(map(_located, path)) + "]" if isinstance(path, list) else _located(path)
    options = "".join(f", {k}={named[k]!r}" for k in ("name", "dim", "values") if k in named)
    return f"em.open({where}{options})"


def _located(path: str) -> str:
    """A path as the recipe means it: relative ones start from the script's folder."""
    return repr(path) if "://" in path else f"str(HERE / {path!r})"


def _looks(actions: Iterable[Action]) -> Iterator[str]:
    """Windows and regions that were looked at, as lazy expressions, each once."""
    seen: set[str] = set()
    numbers = {"window": 0, "spectrum": 0}
    for action in actions:
        expression = _look(action)
        if expression is None or expression in seen:
            continue
        seen.add(expression)
        numbers[action.verb] += 1
        name = "map" if action.verb == "window" else "spectrum"
        yield f"{name}_{numbers[action.verb]} = {expression}"


def _look(action: Action) -> str | None:
    given = action.parameters
    if action.verb == "window":
        windows = {dim: tuple(ends) for dim, ends in given["windows"].items()}
        cut = f".em.window({_arguments(windows)})" if windows else ""
        return f"cube{cut}.em.total_counts()"
    if action.verb != "spectrum":
        return None
    region = given.get("region")
    if region is None:
        return "cube.em.sum_spectrum()"
    spans = {dim: tuple(span) for dim, span in region["spans"].items()}
    if region["vertices"]:
        more = f", {_arguments(spans)}" if spans else ""
        corners = [tuple(corner) for corner in region["vertices"]]
        return f"cube.where(Region.polygon({corners!r}{more}).mask(cube), 0).em.sum_spectrum()"
    slices = ", ".join(f"{dim!r}: slice{span!r}" for dim, span in spans.items())
    return f"cube.isel({{{slices}}}).em.sum_spectrum()"


def _arguments(given: Mapping[str, Any]) -> str:
    """Keyword arguments, whatever the names are."""
    if all(_PLAIN_KEY.fullmatch(k) for k in given):
        import keyword

        if not any(keyword.iskeyword(k) for k in given):
            return ", ".join(f"{k}={v!r}" for k, v in given.items())
    return f"**{dict(given)!r}"
