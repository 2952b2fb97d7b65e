"""Leave when asked to: a signal lets the engine stop at the next finished group of blocks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from emcube.errors import EngineError, InterruptedRunError, PreemptedRunError

__all__ = ["check_stop", "passing", "request_stop"]
__all__ += ["stop_check", "stop_on_signals", "stop_when"]

_lock = threading.Lock()
_wanted: str | None = None
_passes = 0
_on_this_thread = threading.local()


def request_stop(reason: str) -> None:
    """Ask runs of this process to stop at their next finished group of blocks.

    Parameters
    ----------
    reason : str
        Who asks, for the message ("SIGTERM").
    """
    global _wanted
    _wanted = reason


def check_stop() -> None:
    """Stop here where it was asked for.

    Raises
    ------
    PreemptedRunError
        It was, of all runs of this process.
    InterruptedRunError
        It was, of the runs of this thread (see `stop_when`).
    """
    stop_check()()


def stop_check() -> Callable[[], None]:
    """What does as `check_stop` does on this thread, for helpers of a run that are threads of their own."""
    questions = _questions()

    def check() -> None:
        if _wanted is not None:
            raise PreemptedRunError(
                f"stopped by {_wanted}", hint="the same command goes on from here"
            )
        if any(asked() for asked in questions):
            raise InterruptedRunError(
                "the run was cancelled", hint="start it again to go on from there"
            )

    return check


def _questions() -> tuple[Callable[[], bool], ...]:
    found: tuple[Callable[[], bool], ...] = getattr(_on_this_thread, "questions", ())
    return found


@contextmanager
def stop_when(asked: Callable[[], bool]) -> Iterator[None]:
    """Inside this context the runs of this thread stop at their next finished group of blocks once `asked`.

    Runs of other threads go on. `InterruptedRunError` is raised, as where the user interrupts a run.

    Parameters
    ----------
    asked : callable
        Tells whether to stop; cheap, for it is asked after each group.
    """
    before = _questions()
    _on_this_thread.questions = (*before, asked)
    try:
        yield
    finally:
        _on_this_thread.questions = before


@contextmanager
def passing() -> Iterator[None]:
    """A pass over blocks, which looks itself whether it is to stop."""
    global _passes
    with _lock:
        _passes += 1
    try:
        yield
    finally:
        with _lock:
            _passes -= 1


@contextmanager
def stop_on_signals(names: tuple[str, ...] = ("SIGTERM", "SIGUSR1")) -> Iterator[None]:
    """Inside this context signals stop runs with a checkpoint instead of killing the process.

    The first signal lets a pass over blocks finish the groups that are being worked on, and stops anything
    else at once; a second one stops the pass at once, too. Either way `PreemptedRunError` is raised.

    Parameters
    ----------
    names : tuple of str
        Signals, as far as this system has them.

    Raises
    ------
    EngineError
        This is not the main thread, where Python handles signals.
    """
    global _wanted
    if threading.current_thread() is not threading.main_thread():
        raise EngineError(
            "signals are handled on the main thread only, this is "
            f"{threading.current_thread().name!r}",
            hint="enter stop_on_signals on the main thread, around what the other threads do",
        )

    def handle(number: int, frame: Any) -> None:
        again = _wanted is not None
        request_stop(signal.Signals(number).name)
        if again or not _passes:
            check_stop()

    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _wanted = None
