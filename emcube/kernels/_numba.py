"""The one way in which emcube compiles kernels."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["jit"]

F = TypeVar("F", bound=Callable[..., Any])

_log = logging.getLogger("emcube")
_noticed = False


def jit(function: F) -> F:
    """Compile a kernel: no interpreter lock, cached on disk where some folder can be written.

    Where neither the package nor the home folder can be written the kernel is compiled anew in each
    process; that is said once.
    """
    global _noticed
    try:
        return numba.njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
    if not _noticed:
        _noticed = True
        _log.warning(
            "no folder for compiled kernels can be written: they are compiled anew in each process; "
            "set NUMBA_CACHE_DIR to a folder that can be written to spare that"
        )
    return numba.njit(cache=False, nogil=True)(function)  # type: ignore[no-any-return]
