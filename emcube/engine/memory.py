"""Memory: the budget of a run, what it will need, and the blocks that stay between rounds."""

from __future__ import annotations

import ctypes
import os
import re
import threading
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.errors import BudgetError, InputError
from emcube.feedback.words import format_bytes

if TYPE_CHECKING:
    from emcube.engine.source import BlockSource

__all__ = [
    "Projection",
    "Residency",
    "all_resident",
    "arrays_of",
    "current_residency",
    "format_bytes",
    "memory_budget",
    "parse_bytes",
    "resident",
    "return_memory",
    "use_residency",
]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20}
_UNITS |= {"gi": 2**30, "ti": 2**40}


def parse_bytes(text: str | int) -> int:
    """Bytes of a size such as ``"2 GiB"``, ``"500MB"`` or a plain number.

    Raises
    ------
    InputError
        The text is not a size.
    """
    if isinstance(text, int):
        return text
    found = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?i?)b?\s*", text.lower())
    if not found or found[2] not in _UNITS:
        raise InputError(f"{text!r} is not a size in bytes", hint='write for example "2 GiB"')
    return int(float(found[1]) * _UNITS[found[2]])


def memory_budget() -> int:
    """Bytes that a run may use in this process.

    ``EMCUBE_MEMORY`` (such as ``2GiB``) sets it; otherwise it is half of the memory that is free
    now.
    """
    wish = os.environ.get("EMCUBE_MEMORY", "").strip()
    if wish:
        return parse_bytes(wish)
    import psutil

    return int(psutil.virtual_memory().available // 2)


@dataclass(frozen=True)
class Projection:
    """Memory that a sweep needs, by item, in bytes.

    Attributes
    ----------
    blocks : int
        Decoded blocks in flight, with the copy that turns them into rows or floats.
    statistics : int
        Statistics in flight and waiting in the tree.
    slots : int
        Blocks in flight.
    block_bytes : int
        One of them.
    resident : int
        Blocks that stay in memory between rounds, at most.
    process : int
        What the process holds before it begins: Python, libraries, compiled kernels.
    outputs : int
        Per-pixel output that is gathered and written.
    """

    blocks: int
    statistics: int
    slots: int
    block_bytes: int
    resident: int = 0
    process: int = 0
    outputs: int = 0

    @property
    def total(self) -> int:
        """What the sweep itself needs, besides resident blocks."""
        return self.blocks + self.statistics + self.outputs

    @property
    def peak(self) -> int:
        """Memory of the whole process at its largest."""
        return self.process + self.resident + self.total

    def require(self, budget: int, name: str, *, worker: bool = False) -> None:
        """Refuse a run that cannot fit.

        Parameters
        ----------
        budget : int
            Bytes that the process may take.
        name : str
            What wants to run.
        worker : bool
            The process is a worker of Dask's, whose memory is set where it is started.

        Raises
        ------
        BudgetError
            Names the larger item and what would fit.
        """
        if self.total <= budget:
            return
        more = "give workers more memory" if worker else "raise EMCUBE_MEMORY"
        fewer = "fewer threads a worker" if worker else "fewer threads (EMCUBE_THREADS=1)"
        if self.outputs > max(self.blocks, self.statistics):
            worst = (
                f"per-pixel output of {self.slots} tasks needs {format_bytes(self.outputs)} until it "
                "is written"
            )
            advice = f"use {fewer} or components, or {more}"
        elif self.blocks >= self.statistics:
            fits = max(1, budget // max(1, self.slots * 3))
            worst = (
                f"{self.slots} blocks of {format_bytes(self.block_bytes)} in flight need "
                f"{format_bytes(self.blocks)}"
            )
            advice = (
                f"ingest the cube into a store with chunks of at most {format_bytes(fits)} "
                f"(emcube ingest), use {fewer} or {more}"
            )
        else:
            worst = f"statistics between channels need {format_bytes(self.statistics)}"
            advice = f"use fewer channels (window or bin the signal) or {more}"
        whose = "a worker's share" if worker else "the budget"
        raise BudgetError(
            f"{name} needs {format_bytes(self.total)} of memory, {whose} is "
            f"{format_bytes(budget)}: {worst}",
            hint=advice,
        )


class Residency:
    """Blocks that stay in memory between rounds, as far as the budget goes, notes on them, answers to share.

    What is kept never changes an answer, only how often blocks are read and what is computed again. Once
    full, further blocks are read again each round; nothing that is kept is thrown out for them, since a
    cyclic sweep over more than fits would evict every block just before it is used.

    Parameters
    ----------
    limit : int
        Bytes at most.
    session : str, optional
        Name; a new one by default.
    room : callable, optional
        Bytes that may be kept more at the moment, whatever the limit.
    """

    def __init__(
        self, limit: int, session: str | None = None, room: Callable[[], int] | None = None
    ) -> None:
        self.limit = limit
        self._room = room
        self.session = session or uuid.uuid4().hex
        self.on_close: dict[str, Callable[[], None]] = {}
        self.used = self._used_by_answers = 0
        self.refused = 0
        self.reported: set[str] = set()
        self._blocks: dict[tuple[str, int], Any] = {}
        self._answers: dict[Hashable, Any] = {}
        self._notes: dict[tuple[str, int], Any] = {}
        self._lock = threading.Lock()

    def get(self, token: str, block_id: int) -> Any | None:
        """The kept block, or None."""
        return self._blocks.get((token, block_id))

    def keep(self, token: str, block_id: int, block: Any) -> bool:
        """Keep a block if it fits; tell whether it is kept."""
        size = block.nbytes
        with self._lock:
            if (token, block_id) in self._blocks:
                return True
            if not self._fits(size):
                self.refused += 1
                return False
            self._blocks[token, block_id] = block
            self.used += size
            return True

    def note(self, name: str, block_id: int, value: Any) -> bool:
        """Keep something about a block, which has `nbytes`, in place of what was there, if it fits."""
        size = value.nbytes
        with self._lock:
            self._drop_note((name, block_id))
            if not self._fits(size):
                return False
            self._notes[name, block_id] = value
            self.used += size
            return True

    def noted(self, name: str, block_id: int) -> Any | None:
        """What was noted about a block, or None."""
        return self._notes.get((name, block_id))

    def take_note(self, name: str, block_id: int) -> Any | None:
        """The same, which is kept no longer: who takes it may change it."""
        with self._lock:
            return self._drop_note((name, block_id))

    def forget(self, name: str) -> None:
        """Let all notes of a name go."""
        with self._lock:
            for key in [key for key in self._notes if key[0] == name]:
                self._drop_note(key)

    def _drop_note(self, key: tuple[str, int]) -> Any | None:
        value = self._notes.pop(key, None)
        self.used -= 0 if value is None else value.nbytes
        return value

    def _fits(self, size: int) -> bool:
        full = self.used + size > self.limit
        return not full and (self._room is None or size <= self._room())

    def _let_one_go(self) -> None:
        """Give up a note, or if there is none the block that was kept last."""
        held: dict[tuple[str, int], Any] = self._notes or self._blocks
        self.used -= held.popitem()[1].nbytes

    def shrink(self, n_bytes: int) -> int:
        """Let at least so many bytes of blocks go, the last kept first, for good; returns how many went."""
        with self._lock:
            before = self.used
            while (self._notes or self._blocks) and before - self.used < n_bytes:
                self._let_one_go()
            # They would be back after the next round otherwise.
            self.limit = min(self.limit, self.used)
            return before - self.used

    def answer(self, key: Hashable) -> Any | None:
        """What was found before of a sweep, or None."""
        return self._answers.get(key)

    def keep_answer(self, key: Hashable, answer: Any) -> bool:
        """Keep what a sweep found for whoever asks again; tell whether it is kept.

        It saves a whole pass, a block only its own part of one: blocks kept last give way to answers of
        up to a quarter of the limit. Arrays of an answer become read-only: others hold them too.
        """
        arrays = list(arrays_of(answer))
        with self._lock:
            if key in self._answers:
                return True
            # Answers of one pass may share arrays: each is counted once.
            held = {id(a) for kept in self._answers.values() for a in arrays_of(kept)}
            size = sum(a.nbytes for a in arrays if id(a) not in held)
            if self._used_by_answers + size > self.limit // 4:
                return False
            while self.used + size > self.limit:
                self._let_one_go()
            for array in arrays:
                array.flags.writeable = False
            self._answers[key] = answer
            self._used_by_answers += size
            self.used += size
            return True

    def clear(self) -> None:
        """Let all blocks, notes and answers go."""
        with self._lock:
            self._blocks.clear()
            self._notes.clear()
            self._answers.clear()
            self.used = self._used_by_answers = 0


def arrays_of(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    """Arrays in nested dataclasses, mappings, tuples and lists."""
    if isinstance(value, np.ndarray):
        yield value
        return
    parts: Any = ()
    if is_dataclass(value) and not isinstance(value, type):
        parts = (getattr(value, f.name) for f in fields(value))
    elif isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, tuple | list):
        parts = value
    for part in parts:
        yield from arrays_of(part)


_current: Residency | None = None
_depth = 0
_context_lock = threading.Lock()
_on_this_thread = threading.local()


def current_residency() -> Residency | None:
    """The residency in force: of this thread's task, or of the enclosing context."""
    return getattr(_on_this_thread, "residency", None) or _current


@contextmanager
def resident(limit: int | None = None) -> Iterator[Residency]:
    """Keep blocks in memory for all fits inside this context, so that they are read once.

    Contexts nest: the outermost decides the limit, and its end lets the blocks go. The default
    limit is half of `memory_budget`.
    """
    global _current, _depth
    with _context_lock:
        if _current is None:
            _current = Residency(memory_budget() // 2 if limit is None else limit)
        _depth += 1
        residency = _current
    try:
        yield residency
    finally:
        with _context_lock:
            _depth -= 1
            last = _depth == 0
            if last:
                residency.clear()
                _current = None
        if last:
            for close in residency.on_close.values():
                close()


def all_resident(source: BlockSource) -> bool:
    """Whether all blocks of a source are in the memory of this process: a pass reads nothing."""
    residency = current_residency()
    return residency is not None and all(
        residency.get(source.token, i) is not None for i in range(source.plan.n_blocks)
    )


def return_memory() -> None:
    """Give what is free back to the system, where the C library would keep it.

    Blocks are freed in another order than they came. glibc keeps the pages between those that are still
    used, and the next run in this process gets new ones beside them: a fifth more after three runs of a
    whole recipe. Takes some hundredths of a second.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc: nothing of the kind
        return
    trim(0)


@contextmanager
def use_residency(residency: Residency) -> Iterator[None]:
    """Have this thread keep its blocks in another place than the enclosing context."""
    before = getattr(_on_this_thread, "residency", None)
    _on_this_thread.residency = residency
    try:
        yield
    finally:
        _on_this_thread.residency = before
