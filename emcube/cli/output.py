"""What the verbs print: text for people, JSON for programs, and progress on a terminal."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from emcube.engine.progress import Event

__all__ = ["Deploy", "Json", "Signal", "emit_json", "printable", "progress", "say"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]
Deploy = Annotated[
    str | None,
    typer.Option(
        "--deploy",
        metavar="WHERE",
        help="Where the work runs: threads, local, slurm, auto, host:port, a scheduler file or a profile, "
        'with options as in "local workers=4"; default: EMCUBE_DEPLOY, else threads.',
    ),
]
Signal = Annotated[
    str | None, typer.Option("--name", help="Which signal, where a file holds several.")
]


def emit_json(data: Any) -> None:
    """Print one JSON document to stdout; numbers that JSON lacks become null."""
    text = json.dumps(_plain(data), indent=2, ensure_ascii=False, allow_nan=False)
    # JSON may hold these as they are, and a terminal would obey them.
    print(re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))


def printable(text: str) -> str:
    """A text without characters that would steer a terminal; its lines stay.

    Messages hold names and lines from the files and catalogs of strangers.
    """
    from emcube.cards import visible

    return "\n".join(map(visible, text.split("\n")))


def say(text: str) -> None:
    """Tell the user something that is not the output: to stderr, and only on a terminal."""
    if sys.stderr.isatty():
        print(printable(text), file=sys.stderr)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)


@contextmanager
def progress() -> Iterator[None]:
    """Show the engine's progress: on a terminal, and in the file that EMCUBE_PROGRESS names."""
    file = os.environ.get("EMCUBE_PROGRESS", "").strip()
    with ExitStack() as stack:
        if file:
            from emcube.engine.progress import write_progress

            stack.enter_context(write_progress(file))
        if sys.stderr.isatty():
            stack.enter_context(_bars())
        yield


@contextmanager
def _bars() -> Iterator[None]:
    """Show passes, blocks, pixels a second and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from emcube.engine.progress import listen

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=False,
    )
    tasks: dict[str, TaskID] = {}
    lock = threading.Lock()  # an ingest tells its progress from several threads

    def listener(event: Event) -> None:
        with lock:
            show(event)

    def show(event: Event) -> None:
        if event.kind == "start" or event.name not in tasks:
            total = event.n_pixels or event.n_blocks or None
            tasks[event.name] = bars.add_task(event.name, total=total, detail="")
        task = tasks[event.name]
        rounds = f"pass {event.round + 1}, " if event.n_rounds > 1 else ""
        detail = f"{rounds}{event.blocks_done}/{event.n_blocks} blocks"
        pixels = event.round * event.n_pixels + event.pixels_done
        if pixels:
            detail += f", {pixels / max(event.seconds, 1e-6):,.0f} pixels/s"
        if event.objective is not None:
            detail += f", objective {event.objective:.6g}"
        if event.resident_blocks is not None and event.resident_blocks < event.n_blocks:
            detail += f", {event.n_blocks - event.resident_blocks} blocks read in each pass"
        done = event.pixels_done if event.n_pixels else event.blocks_done
        bars.update(task, completed=done, detail=detail)

    with bars, listen(listener):
        yield
