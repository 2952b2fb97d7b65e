"""Progress of lazy answers (`transform`, `inverse_transform`) while Dask computes them in this process.

Dask's schedulers of one process tell callbacks what they do; those of a cluster do not, and have a dashboard
of their own. Graphs in which nothing is emcube's are left alone.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

from dask._task_spec import Alias
from dask.callbacks import Callback

from emcube.feedback.events import Work, working
from emcube.feedback.setting import surface

__all__ = ["PREFIX", "watch"]

PREFIX = "emcube-lazy-"
"""In the names of tasks that are told of; what follows up to the next hyphen is shown."""


def watch() -> None:
    """Have computations told of from now on, where somebody looks on."""
    if surface() is not None:
        # Anew each time: a computation within another one may have dropped it.
        _watch().register()


class _Watch(Callback):
    def __init__(self) -> None:
        self._running: dict[int, tuple[ExitStack, Work]] = {}

    def _start(self, dsk: Any) -> None:
        from emcube.feedback.board import board

        if board.busy:  # a block that the engine reads, or a part of something that is told of
            return
        ours = [name for key in dsk if (name := _name(key, dsk)) is not None]
        if ours:
            stack = ExitStack()
            work = stack.enter_context(working(ours[0], n_blocks=len(ours)))
            self._running[id(dsk)] = (stack, work)

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        found = self._running.get(id(dsk))
        if found is not None and _name(key, dsk) is not None:
            found[1].advance(blocks=1)

    def _finish(self, dsk: Any, state: Any, failed: bool) -> None:
        found = self._running.pop(id(dsk), None)
        if found is not None:
            found[0].__exit__(*(sys.exc_info() if failed else (None, None, None)))


@lru_cache(maxsize=1)
def _watch() -> _Watch:
    return _Watch()


def _name(key: Any, dsk: Any) -> str | None:
    """What a task of ours is called; None for others', and for what is only another name of one."""
    text = key[0] if isinstance(key, tuple) else key
    if not isinstance(text, str):
        return None
    _, found, rest = text.partition(PREFIX)
    if not found or isinstance(dsk[key], Alias):
        return None
    return rest.partition("-")[0]
