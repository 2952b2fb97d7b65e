"""`emcube reproduce CRATE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcube.cli.collecting import loading
from emcube.cli.output import Deploy, Json, emit_json, progress

DIFFERENT = 3
"""Exit status where the result differs by more than it may."""


def reproduce(
    crate: Annotated[Path, typer.Argument(help="The package, such as crate.zip.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the new result; default: in the present folder, named after the package."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="The analysed data, where the package does not bring them; repeat it for a series.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for fetched data; default: EMCUBE_CACHE, else the user's cache."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing.")] = False,
    allow_local: Annotated[
        bool,
        typer.Option(
            "--allow-local-addresses",
            help="Fetch from this machine and private networks, too, if the package says so.",
        ),
    ] = False,
    deploy: Deploy = None,
    as_json: Json = False,
) -> None:
    """Run a package again and compare: the same bits on the same libraries and processor type, else within
    tolerances.

    Nothing in a package is code. Exit status 3: the results differ by more than that.
    """
    with loading():
        from emcube.deploy.environment import chosen
        from emcube.engine import stop_on_signals
        from emcube.package import reproduce as run_again
        from emcube.package.rendering import render_reproduction

    with stop_on_signals(), chosen(deploy), progress():
        found = run_again(
            crate,
            out=out,
            input=data[0] if data and len(data) == 1 else data or None,
            cache=cache,
            offline=offline,
            allow_local_addresses=allow_local,
        )
    if as_json:
        emit_json(found.to_json())
    else:
        typer.echo(render_reproduction(found))
    if not found.ok:
        raise typer.Exit(DIFFERENT)
