"""One way to compile a kernel: cached where a cache can be written, and working where it cannot."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["jit"]

# Numba's table of scalar types is not locked: the first use of a type by two threads at once can fail
# with "dictionary changed size during iteration". Kernels run in threads, so it is filled here.
for _scalar in (np.uint64(0), np.int64(0), np.float64(0)):
    numba.typeof(_scalar)

_log = logging.getLogger(__name__)
_notice_given = threading.Event()

Kernel = TypeVar("Kernel", bound="Callable[..., Any]")


@overload
def jit(function: Kernel) -> Kernel: ...


@overload
def jit(function: None = None, **options: Any) -> Callable[[Kernel], Kernel]: ...


def jit(function: Kernel | None = None, **options: Any) -> Kernel | Callable[[Kernel], Kernel]:
    """Compile a kernel with ``numba.njit(cache=True, nogil=True)``.

    Parameters
    ----------
    function : callable, optional
        The kernel, in ``@jit``; left out in ``@jit(fastmath=True)``.
    **options
        Further options of ``numba.njit``; they win over the two defaults.

    Returns
    -------
    callable
        The compiled kernel, or a decorator where `function` is left out.

    Notes
    -----
    Numba refuses a cache, at the decoration, where it finds no folder to write to: neither
    ``NUMBA_CACHE_DIR``, nor ``__pycache__`` beside the source, nor the user's cache folder. The kernel
    is then compiled anew in each process, and the first one to meet that logs one warning.
    """
    if function is None:
        return lambda kernel: _compile(kernel, options)
    return _compile(function, options)


def _compile(kernel: Kernel, options: dict[str, Any]) -> Kernel:
    settings: dict[str, Any] = {"cache": True, "nogil": True, **options}
    try:
        compiled: Kernel = numba.njit(**settings)(kernel)
    except RuntimeError as error:
        # Raised for many reasons; only this one has a remedy.
        if not settings["cache"] or "cannot cache function" not in str(error):
            raise
        _give_notice()
        compiled = numba.njit(**{**settings, "cache": False})(kernel)
    return compiled


def _give_notice() -> None:
    if _notice_given.is_set():
        return
    _notice_given.set()
    _log.warning(
        "no folder for compiled kernels can be written, so every process compiles them anew "
        "(some seconds); set NUMBA_CACHE_DIR to a folder that you may write to"
    )
