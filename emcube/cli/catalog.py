"""`emcube catalog add | show | search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcube.cli.output import Json, emit_json

app = typer.Typer(help="Keep cubes under names, in an Intake 2 catalog.", no_args_is_help=True)


@app.command("add")
def add(
    catalog: Annotated[
        Path, typer.Argument(help="The catalog, a YAML file; made where it is missing.")
    ],
    store: Annotated[str, typer.Argument(help="The cube store: a folder or a URL.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the entry; default: the store's own.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an entry of this name.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add a store to a catalog; its metadata come from the store."""
    from emcube.cards import describe_catalog, render
    from emcube.catalog import add as add_entry

    add_entry(catalog, store, name=name, overwrite=overwrite)
    card = describe_catalog(catalog)
    if as_json:
        emit_json(card)
    else:
        typer.echo(render(card))


@app.command("show")
def show(
    catalog: Annotated[Path, typer.Argument(help="The catalog, a YAML file.")],
    name: Annotated[str | None, typer.Argument(help="One entry; all where it is left out.")] = None,
    as_json: Json = False,
) -> None:
    """Show the entries of a catalog, or one of them."""
    from emcube.cards import describe, render

    card = describe(f"{catalog}:{name}" if name else str(catalog))
    if as_json:
        emit_json(card)
    else:
        typer.echo(render(card))


@app.command("search")
def search(
    catalog: Annotated[Path, typer.Argument(help="The catalog, a YAML file.")],
    text: Annotated[str | None, typer.Argument(help="Words in name, title or description.")] = None,
    modality: Annotated[str | None, typer.Option(help="EDS, EELS, 4D-STEM, ...")] = None,
    element: Annotated[
        list[str] | None, typer.Option(help="A chemical element; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find entries by their words and metadata."""
    from emcube.cards import catalog_search, render

    card = catalog_search(catalog, text=text, modality=modality, elements=element or [])
    if as_json:
        emit_json(card)
    else:
        typer.echo(render(card))
