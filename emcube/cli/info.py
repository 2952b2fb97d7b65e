"""`emcube info X`."""

from __future__ import annotations

from typing import Annotated

import typer

from emcube.cli.output import Json, Signal, emit_json


def info(
    what: Annotated[
        str, typer.Argument(help="File, store, result, catalog, catalog.yaml:entry or URL.")
    ],
    name: Signal = None,
    as_json: Json = False,
) -> None:
    """Show what a file, store, result or catalog holds, on one card."""
    from emcube.cards import describe, render

    card = describe(what, name=name)
    if as_json:
        emit_json(card)
    else:
        typer.echo(render(card))
