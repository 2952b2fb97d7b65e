"""What went wrong, for people: one short message, and the exit status that scripts test."""

from __future__ import annotations

import errno
import sys
import traceback

from emcube import errors
from emcube.cli.output import printable

__all__ = ["exit_status", "message", "show"]

FAILED, WRONG_INPUT, STOPPED = 1, 2, 130

PREEMPTED = 75
"""A signal asked the run to leave, and its checkpoint is written: EX_TEMPFAIL of sysexits.h, "try again".
A status of its own lets a batch script tell a run to be queued again from one that failed.
"""

_INPUT = (
    errors.InputError,
    errors.ReadError,
    errors.CatalogError,
    errors.IncompleteError,
)


def exit_status(error: BaseException) -> int:
    """Exit status for an error: 2 for input and usage, 130 for Ctrl-C, 75 where a signal asked the run to
    leave, 1 for the rest.
    """
    if isinstance(error, errors.PreemptedRunError):
        return PREEMPTED
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return STOPPED
    if _is_usage(error):
        return WRONG_INPUT
    if isinstance(error, errors.MissingDependencyError):
        return FAILED
    if isinstance(error, errors.CatalogError) and _is_full(error.__cause__):
        return FAILED
    if isinstance(error, _INPUT):
        return WRONG_INPUT
    # A store that is not there, or one that is in the way, is the user's affair; a full disk is not.
    cause = error.__cause__ if isinstance(error, errors.StoreError) else error
    if isinstance(error, errors.StoreError) and not isinstance(cause, OSError):
        return WRONG_INPUT
    if isinstance(cause, OSError) and cause.errno in (errno.ENOENT, errno.EEXIST, errno.EISDIR):
        return WRONG_INPUT
    return FAILED


def _is_full(cause: BaseException | None) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    return isinstance(cause, OSError) and cause.errno in full


def message(error: BaseException) -> str:
    """What the error says: what, where, got against expected, what to do."""
    if _is_usage(error):
        said = str(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
        # Without any argument the help itself is the message.
        return f"{said}; see 'emcube --help'" if said else ""
    if isinstance(error, errors.EmcubeError):
        return str(error)
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return "stopped; what was being written is incomplete and is continued by the same command"
    if isinstance(error, MemoryError):
        return "out of memory; set EMCUBE_MEMORY (such as 2GiB) or EMCUBE_THREADS=1 and try again"
    text = str(error).strip()
    name = type(error).__name__
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror or name}: {str(error.filename)!r}; check the path, permissions and space"
    return f"unexpected {name}{': ' + text if text else ''}; please report it with the output of --debug"


def show(error: BaseException, *, debug: bool) -> None:
    """Write the message to stderr, after the traceback where it is wanted."""
    if debug:
        print(printable("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    text = message(error)
    if not text:
        return
    notes = getattr(error, "__notes__", [])
    if notes:
        text += " (" + "; ".join(notes) + ")"
    print(printable(f"emcube: {text}"), file=sys.stderr)


def _is_usage(error: BaseException) -> bool:
    # Typer brings click along under one name or another: known by what it can do.
    return hasattr(error, "format_message") and hasattr(error, "exit_code")
