"""``.. recipe-keys::``: the keys of a recipe, their types and defaults, as the models that check them say."""

from __future__ import annotations

import inspect
import json
from typing import Any

from docutils import nodes
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from emcube.recipe import schema
from emcube.recipe.explain import _models as verbs_of

SECTIONS = {"input": schema.Input, "where": schema.Where}


class RecipeKeys(SphinxDirective):
    """A section for each part of a recipe, and one for each verb."""

    def run(self) -> list[nodes.Node]:
        """Describe the models."""
        made = [self._section("recipe", "A recipe", schema.RecipeModel)]
        made += [self._section(name, name, model) for name, model in SECTIONS.items()]
        for part in ("prepare", "steps"):
            section = nodes.section(ids=[part], names=[part])
            section += nodes.title("", "", nodes.literal("", part))
            section += [self._section(f"{part}-{v}", v, m) for v, m in verbs_of(part).items()]
            made.append(section)
        return made

    def _section(self, anchor: str, title: str, model: type[BaseModel]) -> nodes.section:
        section = nodes.section(ids=[anchor.replace("_", "-")], names=[anchor])
        heading = nodes.inline if " " in title else nodes.literal
        section += nodes.title("", "", heading("", title))
        section += self.parse_text_to_nodes(inspect.cleandoc(model.__doc__ or ""))
        rows = rows_of(model)
        if rows:
            section += table(rows)
        return section


def rows_of(model: type[BaseModel]) -> list[tuple[str, str, str]]:
    """Key, type and default of each field."""
    made = model.model_json_schema()
    required, shown = made.get("required", []), []
    for key, field in made["properties"].items():
        if key == "verb":
            continue
        default = "required" if key in required else literal(field.get("default"))
        shown.append((key, in_words(field, made.get("$defs", {})), default))
    more = made.get("additionalProperties")
    if isinstance(more, dict):
        shown.append(("any dim", in_words(more, made.get("$defs", {})), ""))
    return shown


def literal(value: Any) -> str:
    """Write a value as YAML has it."""
    return json.dumps(value, ensure_ascii=False)


def in_words(field: dict[str, Any], known: dict[str, Any]) -> str:
    """Say what a value may be, from its JSON schema."""
    if "anyOf" in field or "oneOf" in field:
        branches = field.get("anyOf", field.get("oneOf", []))
        return " or ".join(dict.fromkeys(in_words(b, known) for b in branches))
    if "$ref" in field:
        return "a section, below"
    if "const" in field:
        return literal(field["const"])
    if "enum" in field:
        return " or ".join(literal(v) for v in field["enum"])
    kind = field.get("type")
    if kind == "array":
        return _list(field, known)
    words = {
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "boolean": "true or false",
        "null": "null",
        "object": "a mapping",
    }
    return words[str(kind)] + _bounds(field)


def _list(field: dict[str, Any], known: dict[str, Any]) -> str:
    if "prefixItems" in field:
        return "[" + ", ".join(in_words(i, known) for i in field["prefixItems"]) + "]"
    inner = in_words(field.get("items", {"type": "object"}), known)
    return "a list of texts" if inner == "text" else f"a list of: {inner}"


def _bounds(field: dict[str, Any]) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    said = [f"{word} {field[key]:g}" for key, word in words.items() if key in field]
    return f", {' and '.join(said)}" if said else ""


def table(rows: list[tuple[str, str, str]]) -> nodes.table:
    """Make a table of keys."""
    made = nodes.table(classes=["options"])
    group = nodes.tgroup(cols=3)
    group += [nodes.colspec(colwidth=width) for width in (25, 50, 25)]
    head = nodes.thead()
    head += nodes.row(
        "", *(nodes.entry("", nodes.paragraph("", t)) for t in ("key", "value", "default"))
    )
    body = nodes.tbody()
    for key, words, default in rows:
        cells = [nodes.entry() for _ in range(3)]
        cells[0] += nodes.paragraph("", "", nodes.literal("", key))
        cells[1] += nodes.paragraph("", words)
        if default == "required":
            cells[2] += nodes.paragraph("", default)
        elif default:
            cells[2] += nodes.paragraph("", "", nodes.literal("", default))
        body += nodes.row("", *cells)
    group += [head, body]
    made += group
    return made


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("recipe-keys", RecipeKeys)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
