"""Progress events: the engine says what it does, listeners show it."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

__all__ = ["Event", "Listener", "emit", "emitter", "listen", "listen_here"]
__all__ += ["read_event", "write_progress"]


@dataclass(frozen=True)
class Event:
    """One step of a run.

    Attributes
    ----------
    kind : {"start", "block", "round", "end"}
        Work begins, blocks were finished, a round was finished, work ended.
    name : str
        The sweep or projection, e.g. "gram matrix".
    round : int
        Number of the round, from 0.
    n_rounds : int
        Rounds at most.
    blocks_done, n_blocks : int
        Blocks finished in this round, and of how many.
    pixels_done, n_pixels : int
        The same in pixels.
    seconds : float
        Since "start".
    objective : float or None
        After a round, where the sweep has one.
    resident_bytes : int
        Memory held by blocks that stay between rounds, in this process.
    resident_blocks : int or None
        Blocks that stay between rounds, wherever; known after a round. The rest of `n_blocks` is read
        again in each further round.
    projected_bytes : int or None
        Of "start": what this process will hold at its largest, by `project_memory`.
    """

    kind: str
    name: str
    round: int = 0
    n_rounds: int = 1
    blocks_done: int = 0
    n_blocks: int = 0
    pixels_done: int = 0
    n_pixels: int = 0
    seconds: float = 0.0
    objective: float | None = None
    resident_bytes: int = 0
    resident_blocks: int | None = None
    projected_bytes: int | None = None


_log = logging.getLogger(__name__)

Listener = Callable[[Event], None]
_listeners: list[Listener] = []
_lock = threading.Lock()
_on_this_thread = threading.local()


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Send every event of the runs inside this context to `listener`.

    Examples
    --------
    >>> from emcube.engine.progress import listen
    >>> events = []
    >>> with listen(events.append):
    ...     pass
    """
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)


@contextmanager
def listen_here(listener: Listener) -> Iterator[None]:
    """Send every event of the runs of this thread inside this context to `listener`, and of no other one.

    Runs of several threads go on side by side, each with its own listeners; `listen` hears all of them.
    """
    before = _here()
    _on_this_thread.listeners = (*before, listener)
    try:
        yield
    finally:
        _on_this_thread.listeners = before


def _here() -> tuple[Listener, ...]:
    found: tuple[Listener, ...] = getattr(_on_this_thread, "listeners", ())
    return found


def emit(event: Event) -> None:
    """Send an event to all listeners, in the order in which they came, and to those of this thread."""
    emitter()(event)


def emitter() -> Listener:
    """What sends events as `emit` does on this thread, for helpers of a run that are threads of their own."""
    here = _here()

    def send(event: Event) -> None:
        for listener in (*_listeners, *here):
            listener(event)

    return send


@contextmanager
def write_progress(file: str | os.PathLike[str], every: float = 1.0) -> Iterator[None]:
    """Keep the newest event of the runs inside this context in a file, for whoever looks on.

    Parameters
    ----------
    file : path-like
        Replaced as a whole each time; see `read_event`.
    every : float
        Seconds between two writes at least, but for the end of a round or of a run.

    Raises
    ------
    OSError
        The file cannot be written when the context is entered. What goes wrong later costs the look, not
        the run.
    """
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.touch()
    lock = threading.Lock()
    last = float("-inf")

    def listener(event: Event) -> None:
        nonlocal last
        with lock:
            now = time.monotonic()
            if last == float("inf") or (event.kind in ("start", "block") and now - last < every):
                return
            last = now
            try:
                new.write_text(json.dumps(asdict(event)), encoding="utf-8")
                new.replace(path)
            except OSError as error:
                _log.warning("progress is not told any more: %s", error)
                last = float("inf")

    with listen(listener):
        yield


def read_event(text: str) -> Event:
    """Read an event that `write_progress` wrote; what a later version added is left out."""
    known = {f.name for f in fields(Event)}
    return Event(**{k: v for k, v in json.loads(text).items() if k in known})
