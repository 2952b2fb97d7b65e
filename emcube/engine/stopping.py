"""Leave when asked to: a signal lets the engine stop at the next finished group of blocks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from emcube.errors import EngineError, PreemptedRunError

__all__ = ["check_stop", "passing", "request_stop", "stop_on_signals"]

_lock = threading.Lock()
_wanted: str | None = None
_passes = 0


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
        It was.
    """
    if _wanted is not None:
        raise PreemptedRunError(f"stopped by {_wanted}", hint="the same command goes on from here")


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
