"""`emcube estimate X`."""

from __future__ import annotations

from typing import Annotated

import typer

from emcube.cli.collecting import loading
from emcube.cli.output import Deploy, Json, Signal, progress, show_card


def estimate(
    what: Annotated[str, typer.Argument(help="File, store, catalog.yaml:entry or URL.")],
    name: Signal = None,
    method: Annotated[str, typer.Option(help="biwhitening, elbow or parallel.")] = "biwhitening",
    deploy: Deploy = None,
    as_json: Json = False,
) -> None:
    """Tell how many components the data support, by what margin, and why."""
    with loading():
        from emcube.cards import describe_estimate
        from emcube.deploy.environment import chosen
        from emcube.models import estimate_n_components
        from emcube.sources import open as open_cube

    with chosen(deploy), progress():
        found = estimate_n_components(open_cube(what, name=name), method=method)
    card = describe_estimate(found)
    show_card(card, as_json=as_json)
