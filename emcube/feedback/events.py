"""Progress events: whatever takes its time says what it does, listeners show it.

Two kinds of work tell of themselves. What counts blocks, pixels or bytes is a `working`: its events go to
everybody who listens. What holds such work together (a fit, a run with its steps) is a `group`: it has
nothing to count but its steps, and only the board is told.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from pathlib import Path

__all__ = [
    "Event",
    "Group",
    "Listener",
    "Work",
    "emit",
    "emitter",
    "group",
    "listen",
    "listen_here",
    "new_work",
    "parent_work",
]
__all__ += ["read_event", "step", "working", "write_progress"]


@dataclass(frozen=True)
class Event:
    """One step of a piece of work.

    Attributes
    ----------
    kind : {"start", "block", "round", "end"}
        Work begins, blocks were finished, a round was finished, work ended.
    name : str
        The sweep or projection, e.g. "gram matrix"; or "ingest", "digest" and so on.
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
    bytes_done, n_bytes : int
        The same as blocks in bytes, of what is copied or fetched.
    work : int
        Number of the piece of work in its process; 0 where whoever tells of it keeps no count.
    parent : int
        Number of the work that this is a part of; 0 for none.
    outcome : {"", "done", "stopped", "failed"}
        Of "end": how it ended; "" where that is not known.
    message : str
        What is to be said beside the numbers, such as why a download is tried again.
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
    bytes_done: int = 0
    n_bytes: int = 0
    work: int = 0
    parent: int = 0
    outcome: str = ""
    message: str = ""


_log = logging.getLogger(__name__)

Listener = Callable[[Event], None]
_listeners: list[Listener] = []
_lock = threading.Lock()
_on_this_thread = threading.local()
_numbers = itertools.count(1)
_parent: ContextVar[int] = ContextVar("emcube_work", default=0)
_group: ContextVar[Group | None] = ContextVar("emcube_group", default=None)


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
    """Send every event of the work of this thread inside this context to `listener`, and of no other one.

    Work of several threads goes on side by side, each with its own listeners; `listen` hears all of it.
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
    """Send an event to the board, to all listeners in the order in which they came, and to those of this
    thread.
    """
    emitter()(event)


def emitter() -> Listener:
    """What sends events as `emit` does on this thread, from the threads that help it, too."""
    here = _here()

    def send(event: Event) -> None:
        _show(event)
        for listener in (*_listeners, *here):
            listener(event)

    return send


def _show(event: Event) -> None:
    from emcube.feedback.board import board

    board.take(event)


def new_work() -> int:
    """Number for a piece of work, for those who make their events themselves."""
    return next(_numbers)


def parent_work() -> int:
    """Number of the work that is going on in this thread; 0 for none."""
    return _parent.get()


# ------------------------------------------------------------------------------------ telling of work


class Work:
    """A piece of work that is going on: counts what is done and tells of it.

    May be told of from several threads.

    Parameters
    ----------
    name : str
    n_blocks, n_pixels, n_bytes : int
        How much there is to do; 0 where it is not counted, or not known yet.
    blocks_done, pixels_done, bytes_done : int
        What an earlier try left done.
    """

    def __init__(
        self,
        name: str,
        *,
        n_blocks: int = 0,
        n_pixels: int = 0,
        n_bytes: int = 0,
        blocks_done: int = 0,
        pixels_done: int = 0,
        bytes_done: int = 0,
    ) -> None:
        self.number, self.parent, self.name = new_work(), parent_work(), name
        self._began = time.monotonic()
        self._lock = threading.Lock()
        # Other threads may tell of it; who listens on this one hears it all the same.
        self._send = emitter()
        self._counts = {
            "n_blocks": n_blocks,
            "n_pixels": n_pixels,
            "n_bytes": n_bytes,
            "blocks_done": blocks_done,
            "pixels_done": pixels_done,
            "bytes_done": bytes_done,
        }

    def advance(self, *, blocks: int = 0, pixels: int = 0, bytes: int = 0) -> None:  # noqa: A002
        """Tell that so much more is done."""
        with self._lock:
            self._counts["blocks_done"] += blocks
            self._counts["pixels_done"] += pixels
            self._counts["bytes_done"] += bytes
        self.tell("block")

    def at(
        self,
        *,
        blocks_done: int | None = None,
        pixels_done: int | None = None,
        bytes_done: int | None = None,
        n_bytes: int | None = None,
        message: str = "",
    ) -> None:
        """Tell how much is done by now, in the words of `Event`; None: as much as before."""
        now = {
            "blocks_done": blocks_done,
            "pixels_done": pixels_done,
            "bytes_done": bytes_done,
            "n_bytes": n_bytes,
        }
        with self._lock:
            self._counts.update({key: value for key, value in now.items() if value is not None})
        self.tell("block", message=message)

    def tell(self, kind: str, *, outcome: str = "", message: str = "") -> None:
        """Send an event."""
        with self._lock:
            counts = dict(self._counts)
        self._send(
            Event(
                kind,
                self.name,
                seconds=time.monotonic() - self._began,
                work=self.number,
                parent=self.parent,
                outcome=outcome,
                message=message,
                **counts,
            )
        )


@contextmanager
def working(name: str, **counts: int) -> Iterator[Work]:
    """Tell of a piece of work as long as the context lasts.

    Parameters
    ----------
    name : str
        Short, for people: "ingest".
    **counts
        As for `Work`.

    Examples
    --------
    >>> from emcube.feedback.events import listen, working
    >>> seen = []
    >>> with listen(seen.append), working("digest", n_blocks=2) as work:
    ...     work.advance(blocks=1)
    ...     work.advance(blocks=1)
    >>> [(e.kind, e.blocks_done) for e in seen]
    [('start', 0), ('block', 1), ('block', 2), ('end', 2)]
    """
    work = Work(name, **counts)
    with _inside(work.number, lambda outcome: work.tell("end", outcome=outcome)):
        work.tell("start")
        yield work


class Group:
    """Work that holds other work together, step by step or as it comes."""

    def __init__(self, name: str, n_steps: int) -> None:
        self.number, self.parent, self.name = new_work(), parent_work(), name
        self.n_steps, self._began = n_steps, time.monotonic()
        self._step, self._doing = 0, ""

    def step(self, number: int, doing: str) -> None:
        """Tell that a step begins, the first is number 0."""
        self._step, self._doing = number, doing
        self.tell("block")

    def tell(self, kind: str, *, outcome: str = "") -> None:
        """Tell the board."""
        _show(
            Event(
                kind,
                self.name,
                round=self._step,
                n_rounds=self.n_steps,
                seconds=time.monotonic() - self._began,
                work=self.number,
                parent=self.parent,
                outcome=outcome,
                message=self._doing,
            )
        )


@contextmanager
def group(name: str, n_steps: int = 1) -> Iterator[Group]:
    """Hold the work inside this context together, under one name and with one last line."""
    found = Group(name, n_steps)
    token = _group.set(found)
    try:
        with _inside(found.number, lambda outcome: found.tell("end", outcome=outcome)):
            found.tell("start")
            yield found
    finally:
        _group.reset(token)


def step(number: int, doing: str) -> None:
    """Tell that a step of the group that this thread is in begins; the first is number 0."""
    found = _group.get()
    if found is not None:
        found.step(number, doing)


@contextmanager
def _inside(number: int, end: Callable[[str], None]) -> Iterator[None]:
    """Be the parent of what begins here, and say at the end how it went."""
    token = _parent.set(number)
    outcome = "failed"
    try:
        yield
        outcome = "done"
    except (KeyboardInterrupt, GeneratorExit):
        outcome = "stopped"
        raise
    finally:
        _parent.reset(token)
        end(outcome)


# -------------------------------------------------------------------------------------------- in files


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
    """Read an event that `write_progress` wrote; what a later version added is left out.

    So are numbers of works: those of another process mean nothing in this one.
    """
    known = {f.name for f in fields(Event)} - {"work", "parent"}
    return Event(**{k: v for k, v in json.loads(text).items() if k in known})
