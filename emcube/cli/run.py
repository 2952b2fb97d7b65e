"""`emcube run RECIPE` and `emcube run FILE`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from emcube.cli.collecting import loading
from emcube.cli.output import Deploy, Json, Signal, progress, show_card
from emcube.errors import PreemptedRunError


@contextmanager
def _leaving_early() -> Iterator[None]:
    """Leave with the same status where a signal comes while the libraries load: they take seconds."""

    def leave(number: int, frame: Any) -> None:
        raise PreemptedRunError(
            f"stopped by {signal.Signals(number).name} before anything was begun",
            hint="the same command starts it",
        )

    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, n) for n in ("SIGTERM", "SIGUSR1") if hasattr(signal, n)]
        before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(
    what: Annotated[
        str,
        typer.Argument(
            help="A recipe (YAML), or a cube to run the default recipe on: instrument file, store, "
            "catalog.yaml:entry or URL."
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            help="Where the result goes: a folder, or an address such as s3://...; default: the recipe's."
        ),
    ] = None,
    name: Signal = None,
    n_components: Annotated[
        int | None,
        typer.Option(
            "--n-components", min=1, help="Components of the default recipe; default: estimated."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another run's result.")
    ] = False,
    deploy: Deploy = None,
    as_json: Json = False,
) -> None:
    """Run a whole analysis and write its result; the same run again is continued or kept.

    SIGTERM and SIGUSR1 (a batch system's warning that time is up) stop it with a checkpoint and the exit
    status 75: the same command goes on from there.
    """
    with _leaving_early():
        with loading():
            from emcube.cards import describe_result
            from emcube.deploy.environment import chosen
            from emcube.engine import stop_on_signals
            from emcube.recipe import run as run_recipe

        with stop_on_signals(), chosen(deploy), progress():
            result = run_recipe(
                what,
                out=out,
                name=name,
                n_components=n_components,
                overwrite=overwrite,
            )
        card = describe_result(result)
    show_card(card, as_json=as_json)
