"""Put the verbs together, run one, and turn what goes wrong into a message and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from emcube.cli import (
    catalog,
    demo,
    doctor,
    estimate,
    explore,
    export,
    info,
    ingest,
    plan,
    publish,
    report,
    reproduce,
    run,
    submit,
)
from emcube.cli.failure import exit_status, show

__all__ = ["app", "run_app"]

app = typer.Typer(
    name="emcube",
    help="Unmix electron-microscopy datacubes that are larger than memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done; 1 the run failed; 2 the input or the usage is wrong; "
    "3 a difference was found; 75 a signal stopped the run with a checkpoint, the same command "
    "goes on; 130 stopped with Ctrl-C.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from emcube import __version__

        typer.echo(f"emcube {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error too (also after the verb)."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and stop."
        ),
    ] = False,
) -> None:
    """Unmix electron-microscopy datacubes that are larger than memory."""


app.command("demo")(demo.demo)
app.command("ingest")(ingest.ingest)
app.command("info")(info.info)
app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("submit")(submit.submit)
app.command("estimate")(estimate.estimate)
app.command("explore")(explore.explore)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("publish")(publish.publish)
app.command("reproduce")(reproduce.reproduce)
app.add_typer(catalog.app, name="catalog")
app.command("doctor")(doctor.doctor)


def _take_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Take ``--debug`` out, wherever it stands before a ``--``."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [a for a in arguments[:end] if a != "--debug"]
    return [*options, *arguments[end:]], len(options) < end


def run_app(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    typed, debug = _take_debug(list(sys.argv[1:] if arguments is None else arguments))
    try:
        # Not app(): its own handlers would swallow an interrupt and what it has to say.
        verb = typer.main.get_command(app)
        with verb.make_context("emcube", typed) as context:
            verb.invoke(context)
        sys.stdout.flush()
    except typer.Exit as stop:
        return int(stop.exit_code)
    except BrokenPipeError:
        # The reader (head, less) has gone. Nothing more can be said; Python would try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the last place to say it)
        show(error, debug=debug)
        return exit_status(error)
    return 0
