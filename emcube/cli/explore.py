"""`emcube explore X`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from emcube.cli.output import Deploy, Json, Signal, emit_json


def explore(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[X]",
            help="File, store, catalog, catalog.yaml:entry, URL or result; without it the page asks.",
        ),
    ] = None,
    name: Signal = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine; 0: a free one.")
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    address: Annotated[
        str | None,
        typer.Option(
            help="Where the browser reaches the port, if through a proxy: https://.../proxy/{port}/."
        ),
    ] = None,
    deploy: Deploy = None,
    as_json: Json = False,
) -> None:
    """Look at a cube, a catalog or a result in a browser, analyse it, and keep a record of it all.

    The page is served on this machine alone, under an address that nobody can guess; Ctrl-C stops it.
    """
    from emcube.explore.serving import explore as serve

    with serve(
        what, name=name, port=port, browser=False, block=False, deploy=deploy, address=address
    ) as explorer:
        if as_json:
            emit_json({"kind": "explorer", "url": explorer.url, "port": explorer.port})
        else:
            typer.echo(f"{explorer.url}\nCtrl-C stops the explorer.")
        sys.stdout.flush()  # whoever reads the address from a pipe needs it now
        if browser:
            explorer.open_browser()
        with _ending_in_order():
            explorer.wait()


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """End visits on SIGTERM as on Ctrl-C, so that what belongs to them alone is removed."""

    def leave(number: int, frame: Any) -> None:
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
