"""Where progress is shown: what the user has set, and what looks like somebody looking on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from emcube.errors import InputError

__all__ = ["VARIABLE", "Surface", "is_terminal", "progress", "quietly", "surface", "wanted"]

VARIABLE = "EMCUBE_SHOW_PROGRESS"
"""Environment variable with the setting of a process: on, off or auto."""

Surface = Literal["terminal", "notebook"]

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("on", "1", "true", "yes"), True),
    **dict.fromkeys(("off", "0", "false", "no"), False),
    **dict.fromkeys(("auto", ""), None),
}

_quiet: ContextVar[bool] = ContextVar("emcube_quiet", default=False)


class _Unset:
    """Nothing was set by `progress`: the environment decides."""


_setting: bool | type[_Unset] | None = _Unset


class progress:
    """Switch progress bars on or off: from now on, or inside a ``with`` block.

    Without it they are shown in notebooks and in interactive sessions on a terminal, where somebody looks on,
    and by the command line on a terminal; scripts and other programs stay quiet. Nothing is ever written into
    a pipe or a file.

    Parameters
    ----------
    show : bool or "auto"
        True: on every terminal and in notebooks, in scripts too. False: nowhere. "auto": as without it.

    Raises
    ------
    InputError
        It is none of these.

    Notes
    -----
    The setting is that of the process. ``EMCUBE_SHOW_PROGRESS`` (on, off, auto) sets it from outside. Showing
    takes less than 1 % of the time of a processor core, whatever goes on, and never changes a result.

    Examples
    --------
    >>> import emcube as em
    >>> with em.progress(False):
    ...     pass  # nothing is shown of what happens here
    >>> em.progress("auto")
    <progress bars: in notebooks and interactive sessions>
    """

    def __init__(self, show: bool | Literal["auto"] = True) -> None:
        global _setting
        self._before = _setting
        self._show = _understood(show)
        _setting = self._show

    def __enter__(self) -> progress:
        return self

    def __exit__(self, *error: object) -> None:
        global _setting
        _setting = self._before

    def __repr__(self) -> str:
        words = {
            True: "on, wherever there is a terminal or a notebook",
            False: "off",
            None: "in notebooks and interactive sessions",
        }
        return f"<progress bars: {words[self._show]}>"


def _understood(show: Any) -> bool | None:
    if isinstance(show, bool):
        return show
    if show == "auto":
        return None
    raise InputError(
        f"progress: got {show!r}, expected True, False or 'auto'",
        hint="em.progress(False) hides bars",
    )


@contextmanager
def quietly() -> Iterator[None]:
    """Show nothing of what begins in this thread: somebody else shows it, such as a page in a browser."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def surface() -> Surface | None:
    """Where work that begins now in this thread is shown; None for nowhere.

    Raises
    ------
    InputError
        The environment variable holds another word than on, off or auto.
    """
    if _quiet.get():
        return None
    show = _environment() if isinstance(_setting, type) else _setting
    if show is False:
        return None
    shell = _shell()
    if getattr(shell, "kernel", None) is not None:
        return "notebook"
    if (show or shell is not None or _interactive()) and is_terminal(sys.stderr):
        return "terminal"
    return None


def wanted(default: bool) -> bool:
    """What the environment says, or what holds where it says nothing."""
    found = _environment()
    return default if found is None else found


def _environment() -> bool | None:
    text = os.environ.get(VARIABLE, "").strip().lower()
    try:
        return _WORDS[text]
    except KeyError:
        raise InputError(
            f"{VARIABLE}: got {text!r}, expected on, off or auto",
            hint="unset it to have bars where somebody looks on",
        ) from None


def _shell() -> Any:
    """IPython's shell, if this is one; IPython is not imported for it."""
    ipython = sys.modules.get("IPython")
    get = getattr(ipython, "get_ipython", None)
    return None if get is None else get()


def _interactive() -> bool:
    return hasattr(sys, "ps1") or bool(sys.flags.interactive)


def is_terminal(stream: Any) -> bool:
    """Whether somebody sees what is written there."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # pythonw has none, and a closed one refuses
        return False
