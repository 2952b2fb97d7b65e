"""The board: which work is going on, and the thread that shows it.

Telling costs a few dictionary entries under a lock. Drawing is done by a thread of its own, a few times a
second, and never for more than a hundredth of the time, however slow a terminal is. What ends before
`DELAY` leaves no trace.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import os
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from emcube.feedback.events import Event
from emcube.feedback.setting import Surface, surface
from emcube.feedback.words import Line, clock, label, rate, seconds

__all__ = ["DELAY", "Board", "Display", "board"]

DELAY = 0.4
"""Seconds after which work is shown; what is done by then says nothing."""

PERIOD = 0.2
"""Seconds between two drawings, at least."""

SHARE = 0.01
"""Share of the time that may go into drawing."""

_IDLE = 3.0
"""Seconds without work after which the thread ends."""

_WINDOW = 12.0
"""Seconds over which speed is measured: it may change, as when blocks stay in memory after a first pass."""

_MOST = 4
"""Lines of work within work that are shown."""

_log = logging.getLogger(__name__)
_now = time.monotonic


class Display(Protocol):
    """What shows lines to people."""

    def draw(self, lines: list[Line]) -> None:
        """Show these lines in place of those before."""
        ...

    def close(self, last: str, *, failed: bool) -> None:
        """Take the lines away, and leave one in their place."""
        ...


@dataclass(eq=False)
class _Item:
    """A piece of work as far as the board knows it."""

    event: Event
    parent: _Item | None
    began: float
    where: Surface | None = None
    context: contextvars.Context | None = None
    display: Display | None = None
    shown: bool = False
    objective: float | None = None
    samples: deque[tuple[float, float]] = field(default_factory=deque)
    parts: list[_Item] = field(default_factory=list)
    ended: float | None = None
    first: float = 0.0

    @property
    def root(self) -> _Item:
        return self if self.parent is None else self.parent.root

    def is_in(self, other: _Item) -> bool:
        return self.parent is not None and (self.parent is other or self.parent.is_in(other))

    def shows(self) -> Display | None:
        """Where it is shown; made when it is needed: most work is done before anybody would see it."""
        if self.display is None and self.where is not None:
            self.display = _display(self.where)
        return self.display

    def take(self, event: Event, now: float) -> None:
        """Take in what is new; the objective, which only ends of rounds have, stays."""
        if event.objective is not None:
            self.objective = event.objective
        self.event = event
        amount = _amount(event)[0]
        samples = self.samples
        if not samples:
            self.first = amount
        if not samples or now - samples[-1][0] > 0.25:
            samples.append((now, amount))
            while now - samples[0][0] > _WINDOW:
                samples.popleft()

    def speed(self) -> float:
        """Amount in a second, of late."""
        amount = _amount(self.event)[0]
        if not self.samples:
            return 0.0
        then, before = self.samples[0]
        spent = _now() - then
        return (amount - before) / spent if spent > 0 else 0.0

    def mean_speed(self) -> float:
        """Amount in a second, from beginning to end."""
        spent = (self.ended or _now()) - self.began
        return (_amount(self.event)[0] - self.first) / spent if spent > 0 else 0.0


class Board:
    """Work that is going on in this process, and where it is shown."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._drawing = threading.RLock()
        self._items: dict[int | str, _Item] = {}
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------------------- hearing of work

    def take(self, event: Event) -> None:
        """Take in an event; cheap."""
        key: int | str = event.work or event.name
        if event.kind == "end":
            self._end(key, event)
            return
        with self._lock:
            item = self._items.get(key)
            if item is None:
                item = self._begin(key, event)
                if item is None:
                    return
            item.take(event, _now())

    @property
    def busy(self) -> bool:
        """Whether any work is going on that is shown."""
        return bool(self._items)

    def _begin(self, key: int | str, event: Event) -> _Item | None:
        parent = self._items.get(event.parent) if event.parent else None
        if parent is None and (event.parent or (event.work and event.kind != "start")):
            return None  # it, or what it is a part of, began unseen
        item = _Item(event, parent, _now())
        if parent is None:
            item.where = surface()
            if item.where is None:
                return None
            # Notebooks know by it which cell an output belongs to.
            item.context = contextvars.copy_context()
            self._wake()
        else:
            parent.parts.append(item)
        self._items[key] = item
        return item

    def _end(self, key: int | str, event: Event) -> None:
        with self._lock:
            item = self._items.pop(key, None)
            if item is None:
                return
            item.take(event, _now())
            item.ended = _now()
            # Whatever did not say its end is over, too.
            for lost in [k for k, i in self._items.items() if i.is_in(item)]:
                del self._items[lost]
        if item.parent is None:
            self._close(item)

    # -------------------------------------------------------------------------------------- drawing

    def _wake(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._show_on, name="emcube-progress", daemon=True
            )
            self._thread.start()

    def _show_on(self) -> None:
        """Draw what is going on, until nothing has been for a while."""
        idle = pause = 0.0
        cost: list[float] = []
        while True:
            time.sleep(max(PERIOD, pause))
            began = time.perf_counter()
            self._draw()
            # The cheaper of the last two: a first drawing loads what draws.
            cost = [*cost[-1:], time.perf_counter() - began]
            pause = min(cost) / SHARE if len(cost) > 1 else 0.0
            with self._lock:
                idle = 0.0 if self._items else idle + max(PERIOD, pause)
                if idle > _IDLE:
                    self._thread = None
                    return

    def _draw(self) -> None:
        now = _now()
        with self._lock:
            roots = [i for i in self._items.values() if i.parent is None and now - i.began >= DELAY]
            pictures = [(root, _lines(root, list(self._items.values()))) for root in roots]
        for root, lines in pictures:
            with self._drawing:
                # Its end may have come meanwhile: what it left must stay.
                if root.ended is None:
                    root.shown = True
                    _drawn(root, lines)

    def _close(self, item: _Item) -> None:
        with self._drawing:
            lasted = item.ended is not None and item.ended - item.began >= DELAY
            if item.shown or lasted:
                _closed(item)

    def forget(self) -> None:
        """Begin anew, in a child process that has no such thread and owns no terminal."""
        self._lock, self._drawing = threading.RLock(), threading.RLock()
        self._items, self._thread = {}, None
        drawn = sys.modules.get("emcube.feedback.terminal")
        if drawn is not None:
            drawn.terminal.cache_clear()

    def leave(self) -> None:
        """Give the terminal back at the end of the process."""
        with self._lock:
            left = [i for i in self._items.values() if i.parent is None and i.shown]
            self._items.clear()
        for item in left:
            item.ended = _now()
            self._close(item)


def _drawn(root: _Item, lines: list[Line]) -> None:
    """Draw; a terminal or page that is gone costs the look, not the work."""
    try:
        display = root.shows()
        if display is not None and root.context is not None:
            root.context.run(display.draw, lines)
    except (OSError, ValueError, RuntimeError) as error:
        _given_up(root, error)


def _closed(root: _Item) -> None:
    try:
        display = root.shows()
        if display is not None:
            display.close(last_words(root), failed=root.event.outcome in ("failed", "stopped"))
    except (OSError, ValueError, RuntimeError) as error:
        _given_up(root, error)


def _given_up(root: _Item, error: Exception) -> None:
    root.where = root.display = None
    _log.info("progress is not shown any more: %s", error)


def _display(where: Surface) -> Display:
    if where == "notebook":
        from emcube.feedback.notebook import Notebook

        return Notebook()
    from emcube.feedback.terminal import terminal

    return terminal().share()


# --------------------------------------------------------------------------------------- what is said


def _amount(event: Event) -> tuple[float, str]:
    """What is done in all, over all rounds, in the finest measure that there is."""
    for done, whole, what in (
        (event.pixels_done, event.n_pixels, "pixels"),
        (event.bytes_done, event.n_bytes or event.bytes_done, "bytes"),
        (event.blocks_done, event.n_blocks, "blocks"),
    ):
        if whole:
            return float(event.round * whole + done), what
    return 0.0, ""


def _share(event: Event) -> float | None:
    """How much of the work is done; of rounds that may be fewer, so much at least."""
    for done, whole in (
        (event.pixels_done, event.n_pixels),
        (event.bytes_done, event.n_bytes),
        (event.blocks_done, event.n_blocks),
    ):
        if whole:
            return (event.round + done / whole) / max(1, event.n_rounds)
    return event.round / event.n_rounds if event.n_rounds > 1 else None


def _counts(event: Event) -> bool:
    return bool(event.n_blocks or event.n_pixels or event.n_bytes or event.bytes_done)


def _lines(root: _Item, items: list[_Item]) -> list[Line]:
    """A line for the root if it has steps, and one for each piece of counted work in it."""
    mine = [i for i in items if i.root is root]
    lines = []
    for item in mine:
        if _counts(item.event):
            lines.append(_work_line(item))
        elif item.event.n_rounds > 1:
            lines.append(_steps_line(item))
    if not any(_counts(i.event) for i in mine):
        # Between two passes: something small is computed from what they brought.
        inner = mine[-1]
        if inner.event.n_rounds <= 1:
            spent = clock(_now() - inner.began)
            lines.append(Line(_name(inner), None, ((1, f"working  {spent}"),)))
    return lines[:1] + lines[1:][-_MOST:]


def _name(item: _Item) -> str:
    """Name of a piece of work, after what it is part of and has no line of its own."""
    above = item.parent
    before = ""
    if above is not None and not _counts(above.event) and above.event.n_rounds <= 1:
        before = label(above.event.name, 24) + ": "
    return f"{before}{label(item.event.name)}"


def _steps_line(item: _Item) -> Line:
    event = item.event
    number = min(event.round + 1, event.n_rounds)
    doing = f" ({label(event.message, 24)})" if event.message else ""
    fields = (
        (1, f"step {number}/{event.n_rounds}{doing}"),
        (2, clock(_now() - item.began)),
    )
    return Line(_name(item), _share(event), fields)


def _work_line(item: _Item) -> Line:
    event = item.event
    fields: list[tuple[int, str]] = []
    if event.n_rounds > 1:
        fields.append((2, f"pass {event.round + 1}/{event.n_rounds}"))
    if event.n_bytes:
        from emcube.feedback.words import format_bytes

        fields.append((5, f"{format_bytes(event.bytes_done)}/{format_bytes(event.n_bytes)}"))
    elif event.n_blocks:
        fields.append((5, f"{event.blocks_done:,}/{event.n_blocks:,} blocks"))
    speed, what = item.speed(), _amount(event)[1]
    if speed > 0 and what:
        fields.append((3, rate(speed, what)))
    if item.objective is not None:
        fields.append((4, f"objective {item.objective:.6g}"))
    if event.resident_blocks is not None and event.resident_blocks < event.n_blocks:
        fields.append((6, f"{event.n_blocks - event.resident_blocks:,} blocks read in each pass"))
    if event.message:
        fields.append((7, label(event.message)))
    left = _left(event, speed)
    fields.append((1, clock(_now() - item.began) if left is None else left))
    return Line(_name(item), _share(event), tuple(fields))


def _left(event: Event, speed: float) -> str | None:
    """Time left, at most where rounds may be fewer; None before it can be told."""
    share, done = _share(event), _amount(event)[0]
    if speed <= 0 or not share:
        return None
    whole = done / share
    most = "at most " if event.n_rounds > 1 else ""
    return f"{most}{clock((whole - done) / speed)} left"


def last_words(item: _Item) -> str:
    """What stays of a piece of work: one line."""
    event = item.event
    spent = seconds((item.ended or _now()) - item.began)
    main = item if _counts(event) else _longest(item)
    facts = _facts(main) if main is not None else []
    if event.n_rounds > 1 and not _counts(event):
        steps = [f"{label(p.event.name, 24)} {seconds(_spent(p))}" for p in item.parts]
        facts = [", ".join(steps)] if steps else []
    how = {"stopped": "stopped after ", "failed": "failed after "}.get(event.outcome, "")
    told = f": {', '.join(facts)}" if facts else ""
    return (
        f"{label(event.name)}{told}, {how}{spent}" if told else f"{label(event.name)}: {how}{spent}"
    )


def _spent(item: _Item) -> float:
    return (item.ended or _now()) - item.began


def _longest(item: _Item) -> _Item | None:
    """The part with an objective, else the one that took longest."""
    found: list[_Item] = []
    queue = list(item.parts)
    while queue:
        part = queue.pop()
        queue += part.parts
        if _counts(part.event):
            found.append(part)
    told = [p for p in found if p.objective is not None]
    return max(told or found, key=_spent, default=None)


def _facts(item: _Item) -> list[str]:
    event = item.event
    facts = []
    if event.n_rounds > 1:
        n = event.round + 1
        facts.append(f"{n} {'pass' if n == 1 else 'passes'}")
    if event.n_pixels:
        facts.append(f"{event.n_pixels:,} pixels")
    elif event.n_bytes:
        from emcube.feedback.words import format_bytes

        facts.append(format_bytes(event.n_bytes))
    elif event.n_blocks:
        facts.append(f"{event.n_blocks:,} blocks")
    speed, what = item.mean_speed(), _amount(event)[1]
    if speed > 0 and what != "blocks":
        facts.append(rate(speed, what))
    if item.objective is not None:
        facts.append(f"objective {item.objective:.6g}")
    return facts


board = Board()
"""The board of this process."""

atexit.register(board.leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=board.forget)
