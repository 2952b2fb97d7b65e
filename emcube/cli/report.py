"""`emcube report RESULT FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcube.cli.output import Json, emit_json, progress


def report(
    what: Annotated[Path, typer.Argument(metavar="RESULT", help="Folder of a finished result.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The page to write.")] = Path(
        "report.html"
    ),
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace a file that is no report; reports are replaced anyway."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a result as one HTML file that needs no network and no emcube."""
    from emcube.engine import format_bytes
    from emcube.report import report as write

    with progress():
        path = write(what, file, overwrite=overwrite)
    size = path.stat().st_size
    if as_json:
        emit_json({"kind": "report", "path": str(path), "bytes": size})
    else:
        typer.echo(f"{path} ({format_bytes(size)}): open it in a browser")
