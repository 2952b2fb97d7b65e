"""What the verbs print: text for people, JSON for programs, and progress on a terminal."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

import typer

__all__ = ["Deploy", "Json", "Signal", "emit_json", "printable", "progress", "say", "show_card"]

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


def show_card(described: dict[str, Any], *, as_json: bool) -> None:
    """Print a description: a card on a terminal, plain lines in a pipe, JSON where that is wanted."""
    if as_json:
        emit_json(described)
        return
    from emcube.feedback.setting import is_terminal

    if is_terminal(sys.stdout):
        from emcube.cards.card import card_of
        from emcube.cards.terminal import print_card

        print_card(card_of(described))
        return
    from emcube.cards import render

    typer.echo(render(described))


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
    """Show progress: on a terminal, and in the file that EMCUBE_PROGRESS names.

    EMCUBE_SHOW_PROGRESS=off hides it from the terminal.
    """
    from emcube.feedback.setting import progress as shown
    from emcube.feedback.setting import wanted

    file = os.environ.get("EMCUBE_PROGRESS", "").strip()
    with ExitStack() as stack:
        if file:
            from emcube.feedback.events import write_progress

            stack.enter_context(write_progress(file))
        stack.enter_context(shown(wanted(True)))
        yield
