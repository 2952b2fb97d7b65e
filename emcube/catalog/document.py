"""Changing a catalog file: one process at a time, and the file is replaced whole or not at all."""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from emcube.catalog.places import Place, is_remote
from emcube.catalog.plain_yaml import dump
from emcube.catalog.reading import keep, new_document, read_document
from emcube.disk import replace_file, try_lock
from emcube.errors import CatalogError, EmcubeError

__all__ = ["change", "put", "take_out", "writing"]

#: Writing a catalog of 10,000 entries takes some seconds, and others may wait before us.
_LOCK_SECONDS = 120.0


def change(place: Place, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change a catalog file: locked against others, and replaced whole or not at all.

    Parameters
    ----------
    place : Path
        Made if it does not exist.
    edit : callable
        Changes the document in place.

    Raises
    ------
    CatalogError
        It lies behind a URL, is no catalog, another process holds it, or it cannot be written.
    """
    if is_remote(place):
        raise CatalogError(
            f"the catalog {place} cannot be changed: it is not on this machine",
            hint="change it where it lies, or make one here that names it: "
            f"`emcube catalog add mine.yaml {place}`",
        )
    # Of a link the file that it leads to is locked and replaced: the link stays, and all wait for one lock.
    path = Path(place).resolve()
    with writing(path.parent, f"the catalog {place}"), _locked(path):
        document = read_document(path) if path.exists() else new_document()
        comments = _leading_comments(path)
        edit(document)
        data = (comments + dump(document)).encode("utf-8")
        # Whoever was killed while writing left these; nobody else writes now.
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
            left.unlink(missing_ok=True)
        replace_file(path, data)
    # The next one who opens it need not parse it.
    keep(data, document)


@contextmanager
def writing(folder: Path, what: str) -> Iterator[None]:
    """Make a folder to write into; where that fails, none that was made is left empty.

    Parameters
    ----------
    folder : Path
    what : str
        What is written there, for the message.

    Raises
    ------
    CatalogError
        It cannot be written: the disk is full, a permission is missing, a file is in the way.
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        for one in made:
            with suppress(OSError):
                one.rmdir()
        if not isinstance(error, OSError) or isinstance(error, EmcubeError):
            raise
        raise CatalogError(
            f"{what} cannot be written: {error.strerror or error}, expected a folder {str(folder)!r} with "
            "room and the permission to write; what was there before still is",
            hint="make room there, or choose another place",
        ) from error


def put(document: dict[str, Any], key: str, data: dict[str, Any], entry: dict[str, Any]) -> None:
    """Put an entry into a document, in the place of one of that name."""
    if key in document["entries"] or key in document["aliases"]:
        take_out(document, key)
    document["entries"][key] = entry
    document["data"][f"{key}-data"] = data
    # Intake lists aliases only: each entry is its own.
    document["aliases"][key] = key


def take_out(document: dict[str, Any], name: str) -> bool:
    """Take an entry out of a document, with data that no other entry reads; False where there is none."""
    key = str(document["aliases"].pop(name, name))
    entry = document["entries"].pop(key, None)
    for alias in [alias for alias, token in document["aliases"].items() if token == key]:
        del document["aliases"][alias]
    if entry is None:
        return False
    if document["data"].pop(f"{key}-data", None) is None:
        # Not written by emcube: data may have any name, and several readers.
        read = _references(entry)
        shared = {name for one in document["entries"].values() for name in _references(one)}
        for data in read - shared:
            document["data"].pop(data, None)
    return True


def _references(entry: Any) -> set[str]:
    text = str(entry.get("kwargs")) if isinstance(entry, dict) else ""
    return set(re.findall(r"data\(([^(){},]+)\)", text))


def _leading_comments(path: Path) -> str:
    """Comments at the beginning of a file: YAML libraries drop them, people miss them."""
    if not path.exists():
        return ""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.startswith("#"):
            break
        lines.append(line)
    return "".join(lines)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file beside a catalog; removed when done, waited for while another holds it."""
    lock = path.with_name(f".{path.name}.lock")
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        with lock.open("a+b") as file:
            if _take(file.fileno(), lock):
                try:
                    yield
                finally:
                    _remove(lock)
                return
        if time.monotonic() > until:
            raise CatalogError(
                f"another process has been changing {path} for {_LOCK_SECONDS:.0f} seconds",
                hint=f"try again; if nobody is, remove {lock}",
            )
        time.sleep(0.02)


def _take(fd: int, lock: Path) -> bool:
    try:
        try_lock(fd)
        # The holder before us may have removed the file that we had opened: then it guards nothing.
        return os.fstat(fd).st_ino == lock.stat().st_ino
    except OSError:
        return False


def _remove(lock: Path) -> None:
    try:
        lock.unlink()
    except PermissionError:
        # Windows keeps open files; the next one locks the same file again.
        return
