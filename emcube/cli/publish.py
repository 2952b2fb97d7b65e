"""`emcube publish RESULT CRATE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcube.cli.output import Json, progress, show_card


def publish(
    result: Annotated[Path, typer.Argument(help="The result: a folder that a run has finished.")],
    crate: Annotated[Path, typer.Argument(help="The package to write, such as crate.zip.")],
    include_data: Annotated[
        bool, typer.Option("--include-data", help="Put the analysed cube into the package.")
    ] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="Where the analysed data are, if not where the recipe had them; repeat it for a series.",
        ),
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(help="URL at which others can fetch the data; may be repeated."),
    ] = None,
    allow_local: Annotated[
        bool,
        typer.Option(
            "--allow-local-addresses",
            help="Take addresses of this machine and private networks, which others do not reach.",
        ),
    ] = False,
    title: Annotated[str | None, typer.Option(help="Default: from the data's metadata.")] = None,
    description: Annotated[
        str | None, typer.Option(help="Default: the generated Methods paragraph.")
    ] = None,
    creator: Annotated[
        list[str] | None,
        typer.Option(help="As in 'Ada Lovelace (0000-0002-1825-0097)'; may be repeated."),
    ] = None,
    terms: Annotated[
        str | None, typer.Option("--license", help="Terms of use, such as CC-BY-4.0.")
    ] = None,
    date: Annotated[str | None, typer.Option(help="Day of publication; default: today.")] = None,
    figures: Annotated[
        bool, typer.Option("--figures/--no-figures", help="Draw every step in the report.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file of this name.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Pack a result with recipe, environment, citations and data (or their digest) for publication."""
    from emcube.package import publish as write
    from emcube.package.rendering import describe_package

    with progress():
        path = write(
            result,
            crate,
            include_data=include_data,
            input=data[0] if data and len(data) == 1 else data or None,
            address=address,
            allow_local_addresses=allow_local,
            title=title,
            description=description,
            creators=creator,
            license=terms,
            date=date,
            figures=figures,
            overwrite=overwrite,
        )
    card = describe_package(path)
    show_card(card, as_json=as_json)
