"""When the garbage collector of a process that the command line owns looks at what.

Loading what a run stands on makes hundreds of thousands of objects that stay until the process ends, and
the collector goes through them again and again, once more when the interpreter closes. Memory that a run
frees is not theirs.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["loading", "own_process"]

_owned = False


def own_process() -> None:
    """Say that this process is the command line's alone: nobody looks for garbage when it ends."""
    global _owned
    if not _owned:
        _owned = True
        # Registered before anybody else's, hence called last.
        atexit.register(gc.freeze)


@contextmanager
def loading() -> Iterator[None]:
    """Import inside this context without a search for garbage, nor any later among what was imported.

    Nothing changes in a process that is not the command line's, or whose collector is off.
    """
    if not _owned or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
