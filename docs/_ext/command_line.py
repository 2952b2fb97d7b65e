"""``.. command-line:: MODULE:APP``: every verb and option of a Typer app, as its help has them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class CommandLine(SphinxDirective):
    """A section for each verb: how it is typed, what it does, its arguments and options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Walk the tree of commands."""
        module, _, name = self.arguments[0].partition(":")
        root = typer.main.get_command(getattr(importlib.import_module(module), name))
        return [self._section(command, path) for command, path in walk(root, (root.name or name,))]

    def _section(self, command: Any, path: tuple[str, ...]) -> nodes.section:
        title = " ".join(path)
        section = nodes.section(ids=["-".join(path)], names=[title.lower()])
        section += nodes.title("", "", nodes.literal("", title))
        with command.make_context(title, [], resilient_parsing=True) as context:
            usage = " ".join([title, *command.collect_usage_pieces(context)])
            section += nodes.literal_block(usage, usage, language="text")
            section += [nodes.paragraph("", text) for text in paragraphs(command.help)]
            rows = [row for p in command.get_params(context) if (row := describe(p, context))]
        if rows:
            section += table(rows)
        return section


def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield every command that does something, with its words."""
    children = getattr(command, "commands", None)
    if not children:
        yield command, path
        return
    for name, child in children.items():
        yield from walk(child, (*path, name))


def describe(parameter: Any, context: Any) -> tuple[str, str] | None:
    """How an argument or option is typed, and what its help says; None for what every verb has."""
    record = parameter.get_help_record(context)
    if record is None or "--help" in parameter.opts:
        return None
    typed, text = record
    return typed, re.sub(r"\s+", " ", text).strip()


def paragraphs(text: str | None) -> list[str]:
    """Paragraphs of a help text, without their line breaks."""
    return [re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", text or "") if p.strip()]


def table(rows: list[tuple[str, str]]) -> nodes.table:
    """Make a table of what is typed and what it means."""
    made = nodes.table(classes=["options"])
    group = nodes.tgroup(cols=2)
    group += [nodes.colspec(colwidth=width) for width in (35, 65)]
    body = nodes.tbody()
    for typed, text in rows:
        first, second = nodes.entry(), nodes.entry()
        first += nodes.paragraph("", "", nodes.literal("", typed))
        second += nodes.paragraph("", text)
        body += nodes.row("", first, second)
    group += body
    made += group
    return made


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
