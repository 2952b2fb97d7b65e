"""`emcube export X FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcube.cli.output import Json, emit_json, progress


def export(
    what: Annotated[
        str, typer.Argument(help="Cube (file, store, catalog.yaml:entry or URL) or result.")
    ],
    file: Annotated[
        Path,
        typer.Argument(
            help="What to write: .hspy or .zspy (HyperSpy), .nxs (NeXus), .msa or .csv (spectra), "
            ".tif (maps)."
        ),
    ],
    result: Annotated[
        str | None,
        typer.Option(help="Result of the cube, to go into the same file (HyperSpy, NeXus)."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a cube or a result for another program, and say what its format cannot hold."""
    from emcube.interop import export as write

    with progress():
        written = write(what, file, result=result, overwrite=overwrite)
    if as_json:
        emit_json({"files": [str(path) for path in written.files], "lost": list(written.lost)})
        return
    for path in written.files:
        typer.echo(str(path))
    for line in written.lost:
        typer.echo(f"  not in it: {line}")
