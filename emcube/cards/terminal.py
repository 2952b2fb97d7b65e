"""Cards on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from emcube.cards.card import Card, Table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["print_card"]

WIDEST = 100
"""Columns that a card takes at most: longer lines are hard to read."""

_NARROW = 50
"""Columns below which facts stand under their names, and a table loses its last column."""


def print_card(card: Card, console: Console | None = None) -> None:
    """Print a card.

    Parameters
    ----------
    card : Card
    console : rich.console.Console, optional
        Default: standard output.
    """
    from rich import box
    from rich.console import Console as NewConsole
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    console = console or NewConsole(file=sys.stdout, highlight=False, emoji=False, markup=False)
    width = min(console.width, WIDEST)
    parts: list[RenderableType] = []
    if card.about:
        parts.append(Text(card.about, style="dim"))
    if card.table is not None:
        parts += [Text(""), _table(card.table, width)] if parts else [_table(card.table, width)]
    if card.facts:
        parts += [Text(""), _facts(card, width)] if parts else [_facts(card, width)]
    for text in card.warnings:
        parts.append(Text(f"! {text}", style="yellow"))
    title = Text.assemble(
        (_cut(card.title, width - 10 - len(card.kind)), "bold default"), (f"  {card.kind}", "cyan")
    )
    console.print(
        Panel(
            Group(*parts),
            title=title,
            title_align="left",
            box=box.ROUNDED,
            border_style="bright_black",
            width=width,
            padding=(0, 1),
        )
    )
    if card.then:
        console.print(Text(f"  {card.then}", style="dim"), soft_wrap=True)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(1, most - 1)].rstrip() + "…"


def _table(table: Table, width: int) -> RenderableType:
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(
        box=None,
        padding=(0, 2, 0, 0),
        show_header=True,
        header_style="bright_black",
        pad_edge=False,
    )
    n_shown = len(table.heads) - (1 if width < _NARROW and len(table.heads) > 2 else 0)
    for i, head in enumerate(table.heads[:n_shown]):
        grid.add_column(
            head,
            justify="right" if i in table.right else "left",
            overflow="fold",
            no_wrap=i in table.right,
            style="bold" if i == 0 else "",
        )
    for row in table.rows:
        grid.add_row(*(Text(cell) for cell in row[:n_shown]))
    return grid


def _facts(card: Card, width: int) -> RenderableType:
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    if width < _NARROW:
        return Group(
            *(Text.assemble((f"{key}: ", "bright_black"), value) for key, value in card.facts)
        )
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bright_black", no_wrap=True, max_width=20)
    grid.add_column(overflow="fold")
    for key, value in card.facts:
        grid.add_row(Text(key), Text(value))
    return grid
