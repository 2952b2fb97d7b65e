"""Files that are there whole or not at all, and locks that end with their process."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from emcube.errors import StoreError

__all__ = ["exclusive", "replace_file", "try_lock"]


def replace_file(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file so that it is there whole or not at all, even after a power failure.

    A file that was there before keeps its mode: who could not read it cannot read the new one.

    Parameters
    ----------
    path : Path
    data : bytes, or iterable of buffers
        Contents; several buffers are written one after the other.

    Raises
    ------
    OSError
        It cannot be written (the disk is full); what lay at `path` before still does.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            _keep_mode(path, partial)
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _keep_mode(path: Path, partial: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return
    partial.chmod(mode)


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file; the operating system lets go of it when the process dies.

    Parameters
    ----------
    path : Path
        The lock file; made if missing.
    what : str
        What is locked, for the message.

    Raises
    ------
    StoreError
        Another process (or thread) holds it, or it cannot be opened.
    """
    while True:
        with _opened(path, what) as file:
            try:
                try_lock(file.fileno())
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                    raise
                raise StoreError(
                    f"another process is writing {what} (it holds {path})",
                    hint="wait until it is done, or choose another destination",
                ) from None
            if not _is_at(file.fileno(), path):
                # Whoever held it removed it after it was opened here: the next one locks a new file.
                continue
            yield
            return


def _opened(path: Path, what: str) -> IO[bytes]:
    try:
        return path.open("a+b")
    except OSError as error:
        raise StoreError(
            f"the lock of {what} cannot be opened at {str(path)!r}: {error.strerror or error}, "
            "expected a file that can be written",
            hint="remove what lies there, or choose another destination",
        ) from error


def _is_at(fd: int, path: Path) -> bool:
    """Tell whether an open file is the one that lies at a path now."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def try_lock(fd: int) -> None:
    """Lock an open file, or raise OSError at once where another holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
