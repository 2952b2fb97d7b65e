"""One thread an array operation: workers never oversubscribe, and sums keep their bits."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from emcube.errors import InputError

__all__ = ["default_threads", "single_threaded_blas", "use_threads"]

_lock = threading.Lock()
_depth = 0
_limits: Any = None
_wish: list[int] = []


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit BLAS and OpenMP to one thread in this process.

    The limits of threadpoolctl are per process and overlapping contexts restore wrongly, so they
    are set once when the first run enters and restored once when the last one leaves, on whatever
    threads these are.
    """
    global _depth, _limits
    with _lock:
        if _depth == 0:
            from threadpoolctl import threadpool_limits

            _take_control()
            _limits = threadpool_limits(limits=1)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _take_control()
                _limits.restore_original_limits()
                _limits = None
                _take_control()


def _take_control() -> None:
    """Let this thread set limits: threadpoolctl gives OpenBLAS to one thread and ignores all others."""
    import threadpoolctl

    blas = threadpoolctl.OpenBLASController
    if hasattr(blas, "clear_controlling_thread"):  # from 3.8 on
        blas.clear_controlling_thread(force=True)


def default_threads() -> int:
    """Worker threads of the embedded executor: `use_threads`, ``EMCUBE_THREADS``, or the cores."""
    if _wish:
        return _wish[-1]
    text = os.environ.get("EMCUBE_THREADS", "").strip()
    if text:
        if not text.isdigit() or int(text) < 1:
            raise InputError(f"EMCUBE_THREADS must be a whole number from 1, got {text!r}")
        return int(text)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


@contextmanager
def use_threads(n: int) -> Iterator[None]:
    """Run fits inside this context on `n` threads."""
    if n < 1:
        raise InputError(f"at least one thread is needed, got {n}")
    _wish.append(n)
    try:
        yield
    finally:
        _wish.pop()
