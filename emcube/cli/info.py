"""`emcube info X`."""

from __future__ import annotations

from typing import Annotated

import typer

from emcube.cli.output import Json, Signal, show_card


def info(
    what: Annotated[
        str,
        typer.Argument(help="File, store, result, catalog, catalog.yaml:entry, package or URL."),
    ],
    name: Signal = None,
    as_json: Json = False,
) -> None:
    """Show what a file, store, result, catalog or package holds, on one card."""
    from emcube.cards import describe

    card = describe(what, name=name)
    show_card(card, as_json=as_json)
