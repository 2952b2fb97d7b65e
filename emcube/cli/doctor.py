"""`emcube doctor`."""

from __future__ import annotations

import typer

from emcube.cli.output import Json, emit_json


def doctor(as_json: Json = False) -> None:
    """Check this installation: what is there, what is missing and how to get it."""
    from emcube.doctor import examine, render

    report = examine()
    if as_json:
        emit_json(report)
    else:
        typer.echo(render(report))
    if not report["healthy"]:
        raise typer.Exit(1)
