"""`emcube demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcube.cli.output import Json, emit_json, progress, say


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for stores, result and pictures; default demo (jadeite: demo-jadeite)."
        ),
    ] = None,
    scene: Annotated[
        str,
        typer.Option(help="srm2135c: tilt series of a Ni/Cr needle; jadeite: SEM map of a rock."),
    ] = "srm2135c",
    scale: Annotated[
        float,
        typer.Option(min=0.01, max=1.0, help="Share of the talk's pixels; 1 is all of them."),
    ] = 0.1,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the simulation and of the analysis.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Simulate one of the talk's examples, ingest it, unmix it, and draw the pictures."""
    from emcube.demo import render, run_demo

    with progress():
        report = run_demo(out, scene=scene, scale=scale, seed=seed, say=say)
    if as_json:
        emit_json(report)
    else:
        typer.echo(render(report))
