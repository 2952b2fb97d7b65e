"""The worker's side of a run: blocks kept for a client's context, within what the worker can spare.

Dask spills, pauses and kills by the memory of the whole process and knows nothing of our blocks. So they are
kept only while the process is well under the point of spilling, and let go when something else needs the
memory; they are read again then, which changes no answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from emcube.engine.memory import (
    Residency,
    current_residency,
    memory_budget,
    return_memory,
    use_residency,
)
from emcube.errors import EngineError

__all__ = [
    "adopted",
    "at_block",
    "halt",
    "pin_threads",
    "release",
    "relieve",
    "tell_blocks",
    "teller",
]

KEEP_BELOW = 0.85
"""Share of the spill threshold up to which the process may grow by blocks that stay."""

SHED_ABOVE = 0.93
"""Share of the spill threshold above which blocks are let go."""

SPILL = 0.7
"""Dask's default, as a share of the worker's memory limit, where its own is switched off."""

ABANDONED = 600.0
"""Seconds after which the blocks of a session without tasks make way for another one's: a client that was
killed never lets them go."""

TELLING = 0.05
"""Seconds between telling of a block and beginning it, so that the word is out if the worker dies."""


@dataclass(eq=False)
class _Adopted:
    residency: Residency
    active: int = 0
    used: float = 0.0


_sessions: dict[str, _Adopted] = {}
_halted: dict[str, None] = {}
_lock = threading.Lock()
_task = threading.local()
_pinned = False


def pin_threads() -> None:
    """Limit the array libraries of a worker process to one thread, for good; once is enough."""
    global _pinned
    with _lock:
        if not _pinned:
            from threadpoolctl import threadpool_limits

            threadpool_limits(limits=1)
            _pinned = True


@contextmanager
def adopted(session: str) -> Iterator[None]:
    """In a worker process: use the blocks that this worker keeps for a client's `resident` context.

    The sessions of a worker share a third of its memory limit, and keep nothing while the process is near
    the point at which Dask spills.
    """
    current = current_residency()
    if current is not None and current.session == session:  # the worker lives in the client
        yield
        return
    with _lock:
        if session not in _sessions:
            _sessions[session] = _Adopted(_new_residency(session))
        mine = _sessions[session]
        mine.active += 1
    try:
        with use_residency(mine.residency):
            yield
    finally:
        with _lock:
            mine.active -= 1
            mine.used = time.monotonic()


def release(session: str) -> None:
    """In a worker process: let the blocks of a client's context go."""
    with _lock:
        mine = _sessions.pop(session, None)
    if mine is not None:
        mine.residency.clear()


def _new_residency(session: str) -> Residency:
    old = time.monotonic() - ABANDONED
    for name in [n for n, s in _sessions.items() if not s.active and s.used < old]:
        _sessions.pop(name).residency.clear()
    others = sum(s.residency.used for s in _sessions.values())
    worker = _worker()
    limit = None if worker is None else worker.memory_manager.memory_limit
    if not limit:
        return Residency(max(0, memory_budget() // 4 - others), session)
    room = partial(_room, worker, KEEP_BELOW)
    return Residency(max(0, int(limit) // 3 - others), session, room)


def _worker() -> Any:
    """The worker that runs this task; None elsewhere."""
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def _room(worker: Any, share: float) -> int:
    """Bytes by which the process may still grow until it is at a share of the spill threshold."""
    import psutil

    manager = worker.memory_manager
    spill = manager.memory_spill_fraction or SPILL
    held = int(psutil.Process().memory_info().rss)
    return int(share * spill * manager.memory_limit) - held


def relieve(worker: Any) -> None:
    """Let blocks go where the process is close to the point of spilling.

    Called on the worker's event loop, since a worker that Dask has paused runs no tasks.
    """
    if not worker.memory_manager.memory_limit or not _sessions:
        return
    if _room(worker, SHED_ABOVE) >= 0:
        return
    too_much, freed = -_room(worker, KEEP_BELOW), 0
    with _lock:
        idle_first = sorted(_sessions.values(), key=lambda s: (s.active > 0, s.used))
    for session in idle_first:
        freed += session.residency.shrink(too_much - freed)
        if freed >= too_much:
            break
    if freed:
        return_memory()


# --- what a task says and hears between its blocks ------------------------------------------------


@contextmanager
def tell_blocks(run: str, tell: Callable[[int], None] | None) -> Iterator[None]:
    """Have `at_block` on this thread heed `halt` of a run, and tell of every block if asked to."""
    before = getattr(_task, "run", None), getattr(_task, "tell", None)
    _task.run, _task.tell = run, tell
    try:
        yield
    finally:
        _task.run, _task.tell = before


def at_block(block_id: int) -> None:
    """Say that a task begins a block.

    Raises
    ------
    EngineError
        The run was stopped: nobody waits for the rest of the task.
    """
    if getattr(_task, "run", None) in _halted:
        raise EngineError(f"the run was stopped before block {block_id}")
    tell = getattr(_task, "tell", None)
    if tell is not None:
        tell(block_id)


def halt(run: str) -> None:
    """In a worker process: stop the tasks of a run at their next block."""
    _halted[run] = None
    while len(_halted) > 1000:
        del _halted[next(iter(_halted))]


def teller(topic: str, attempt: str) -> Callable[[int], None]:
    """What tells the scheduler's event log which block an attempt is at."""
    worker = _worker()

    def tell(block_id: int) -> None:
        worker.log_event(topic, {"attempt": attempt, "block": block_id})
        time.sleep(TELLING)

    return tell
