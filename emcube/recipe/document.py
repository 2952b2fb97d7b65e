"""YAML text to plain data that remembers its lines.

Only the core of YAML 1.2 is read: ``on``, ``yes`` and ``off`` are words (YAML 1.1 makes them booleans,
which would swallow the key of ``kmeans: {on: nmf}``), ``1e-4`` is a number (YAML 1.1 makes it a string),
and nothing turns into a date or a base-60 integer. Anchors and tags are refused: a recipe is plain data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from emcube.errors import RecipeError

__all__ = ["Document", "Location", "dotted", "parse_yaml", "read_yaml"]

Location = tuple[str | int, ...]
"""Keys and positions that lead from the top of a document to one of its values."""


_FLOAT = (
    r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"
    r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)


class _CoreLoader(yaml.SafeLoader):
    """YAML 1.2 core schema (see the resolvers below)."""


_CoreLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        _FLOAT,
        "-+0123456789.",
    ),
):
    _CoreLoader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


@dataclass(frozen=True)
class Document:
    """Plain data and where each part of it stood.

    Parameters
    ----------
    data : object
        Dicts, lists and scalars.
    source : pathlib.Path or None
        The file it was read from.
    lines : mapping of Location to int
        Line (from 1) of the key, or of the list entry, at each location. Empty for data that
        never was a file.
    """

    data: Any
    source: Path | None = None
    lines: Mapping[Location, int] = field(default_factory=dict)

    def line(self, location: Location) -> int | None:
        """Line of a location, or of the nearest part of the document that holds it."""
        for n in range(len(location), -1, -1):
            found = self.lines.get(location[:n])
            if found is not None:
                return found
        return None

    def place(self, location: Location) -> str:
        """Name a place for a message: ``recipe.yaml, line 12`` or ``recipe, steps[2].pca``."""
        name = self.source.name if self.source is not None else "recipe"
        line = self.line(location)
        if line is not None:
            return f"{name}, line {line}"
        where = dotted(location)
        return f"{name}, {where}" if where else name


def dotted(location: Location) -> str:
    """Write a location as ``steps[2].pca.n_components``."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def read_yaml(path: Path) -> Document:
    """Read a YAML file.

    Raises
    ------
    RecipeError
        The file is missing, is not text, or is not plain YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(
            f"there is no recipe {str(path)!r}", hint="check the name and the folder"
        ) from None
    except IsADirectoryError:
        raise RecipeError(
            f"{str(path)!r} is a folder, expected a recipe, which is a YAML file",
            hint="name the file, as in 'emcube run recipe.yaml'",
        ) from None
    except UnicodeDecodeError:
        raise RecipeError(
            f"{path.name} is not a text file, expected a recipe in YAML (UTF-8)",
            hint="to analyse an instrument file without a recipe give its path with --out",
        ) from None
    except OSError as error:
        raise RecipeError(
            f"the recipe {str(path)!r} cannot be read ({error.strerror or error})",
            hint="check its permissions",
        ) from error
    return parse_yaml(text, source=path)


def parse_yaml(text: str, *, source: Path | None = None) -> Document:
    """Parse YAML text into plain data with line numbers.

    Raises
    ------
    RecipeError
        The text is not YAML, repeats a key, or uses anchors or tags.
    """
    name = source.name if source is not None else "recipe"
    try:
        loader = _CoreLoader(text)
        node = loader.get_single_node()
        lines: dict[Location, int] = {}
        data = None if node is None else _construct(loader, node, (), lines, set(), name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}, line {mark.line + 1}" if mark is not None else name
        raise RecipeError(
            f"{where}: not valid YAML: {error.problem or error.context}",
            hint="check indentation, brackets and colons there",
        ) from None
    except yaml.YAMLError as error:
        raise RecipeError(
            f"{name}: not valid YAML: {str(error).splitlines()[0]}",
            hint="recipes are plain text files in UTF-8",
        ) from None
    except RecursionError:
        raise RecipeError(
            f"{name}: nested too deeply, expected a few levels", hint="check brackets"
        ) from None
    return Document(data, source, lines)


def _construct(
    loader: yaml.SafeLoader,
    node: yaml.Node,
    location: Location,
    lines: dict[Location, int],
    seen: set[int],
    name: str,
) -> Any:
    """Turn one node into data and note the lines of what it holds."""
    line = node.start_mark.line + 1
    lines.setdefault(location, line)
    if id(node) in seen:
        # An alias composes to the node of its anchor. Nested ones explode exponentially, and a
        # recipe that says one thing in one place has no use for them.
        raise RecipeError(
            f"{name}, line {line}: a YAML alias (*name) refers back to this value, "
            "expected plain values",
            hint="write the value out where it is used",
        )
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        return dict(_items(loader, node, location, lines, seen, name))
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct(loader, child, (*location, i), lines, seen, name)
            for i, child in enumerate(node.value)
        ]
    if node.tag not in _SCALAR_TAGS:
        raise RecipeError(
            f"{name}, line {line}: the YAML tag {node.tag!r} is not part of a recipe, "
            "expected text, numbers, true, false or null",
            hint="remove the tag",
        )
    if node.tag.endswith(":int"):
        return int(node.value, 10)  # PyYAML reads 010 as eight
    return loader.construct_object(node)


_SCALAR_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")
)


def _items(
    loader: yaml.SafeLoader,
    node: yaml.MappingNode,
    location: Location,
    lines: dict[Location, int],
    seen: set[int],
    name: str,
) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a mapping; refuse a key that comes twice."""
    first: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise RecipeError(
                f"{name}, line {line}: a key must be one word, got a list or a mapping",
                hint="check the indentation there",
            )
        key = key_node.value
        if key in first:
            raise RecipeError(
                f"{name}, line {line}: the key {key!r} stands twice, first on line {first[key]}",
                hint="keep one of them",
            )
        first[key] = line
        lines[(*location, key)] = line
        yield key, _construct(loader, value_node, (*location, key), lines, seen, name)
