"""`emcube ingest SRC... DST`."""

from __future__ import annotations

from typing import Annotated

import typer

from emcube.cli.output import Json, Signal, progress, show_card


def ingest(
    source: Annotated[
        list[str],
        typer.Argument(
            help="Instrument file (or several of a series), store, URL or catalog.yaml:entry."
        ),
    ],
    destination: Annotated[
        str,
        typer.Argument(help="The Zarr store to write: a folder, or an address such as s3://..."),
    ],
    name: Signal = None,
    dim: Annotated[
        str | None, typer.Option(help="New dim of a series of files, such as tilt.")
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(help="Its values, separated by commas: '-30,-15,0'. Default: from the files."),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="How values are kept: dense (auto) for every reader of Zarr, events for rare counts.",
        ),
    ] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing store.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a cube to a Zarr store, out of core; an interrupted one is continued."""
    numbers = _numbers(values)
    from emcube.cards import describe
    from emcube.sources import ingest as write

    with progress():
        path = write(
            source[0] if len(source) == 1 else source,
            destination,
            name=name,
            dim=dim,
            values=numbers,
            layout=layout,
            overwrite=overwrite,
        )
    card = describe(str(path))
    show_card(card, as_json=as_json)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"got {text!r}, expected numbers separated by commas", param_hint="--values"
        ) from None
