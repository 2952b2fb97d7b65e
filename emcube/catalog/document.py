"""Catalog files as plain data: read, check, change, write. Nothing here runs what a file names.

The files are Intake 2 catalogs. Intake imports whatever reader a file names and expands templates that
call functions, read the environment or load pickles; emcube reads the YAML itself and opens only entries
whose every part is on a short list.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from emcube.disk import replace_file, try_lock
from emcube.errors import CatalogError

__all__ = [
    "CATALOG_DIR",
    "Target",
    "change",
    "check_name",
    "data_and_entry",
    "new_document",
    "read_document",
    "target_of",
]

CATALOG_DIR = "{CATALOG_DIR}"
_ZARR = "intake.readers.datatypes:Zarr"
_READER = "intake.readers.readers:XArrayDatasetReader"
_OUTPUT = "xarray:Dataset"

#: Where stores may lie. fsspec knows more, among them some that run code or chain others.
_SCHEMES = frozenset({"file", "http", "https", "s3", "gs", "gcs", "az", "abfs"})
#: Arguments of the reader that only choose how lazily it reads.
_READER_ARGUMENTS = frozenset({"args", "chunks", "engine", "consolidated"})
#: What Intake itself adds to a catalog that was loaded and saved again.
_INTAKE_PARAMETERS = frozenset({"CATALOG_PATH", "CATALOG_DIR", "STORAGE_OPTIONS"})

_REFERENCE = re.compile(r"^\{data\(([^(){},]+)\)\}$")
_LOCK_SECONDS = 30.0


def read_document(path: Path) -> dict[str, Any]:
    """Read a catalog file as plain data.

    Raises
    ------
    CatalogError
        It does not exist, is not YAML, or is not an Intake 2 catalog.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CatalogError(
            f"there is no catalog {path}",
            hint=f"check the path, or make one with `emcube catalog add {path} STORE`",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(
            f"the catalog {path} cannot be read: {error}", hint="check the path and its permissions"
        ) from error
    try:
        # The safe loader makes lists, dicts and scalars only; tags that build objects are errors.
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CatalogError(
            f"the catalog {path} is not valid YAML: {_one_line(error)}",
            hint="correct the line, or restore the file",
        ) from None
    if isinstance(document, dict) and "sources" in document:
        raise CatalogError(
            f"{path} is a catalog of Intake 1 (it has `sources`), expected Intake 2 (`version: 2`)",
            hint="make a new one with `emcube catalog add`",
        )
    if not isinstance(document, dict) or document.get("version") != 2:
        raise CatalogError(
            f"{path} is not a catalog: expected an Intake 2 file with `version: 2`",
            hint="make one with `emcube catalog add`",
        )
    for key in ("entries", "data", "aliases", "metadata", "user_parameters"):
        if not isinstance(document.setdefault(key, {}), dict):
            raise CatalogError(
                f"the catalog {path}: `{key}` is a {type(document[key]).__name__}, expected a mapping",
                hint="correct it, or restore the file",
            )
    return document


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def new_document() -> dict[str, Any]:
    """An empty catalog."""
    return {
        "version": 2,
        "metadata": {},
        "aliases": {},
        "data": {},
        "entries": {},
        "user_parameters": {},
    }


def check_name(name: str) -> str:
    """Return the name of an entry if it can be one.

    Raises
    ------
    CatalogError
        It is empty or holds characters that stand for something else in ``catalog.yaml:name``.
    """
    if not re.fullmatch(r"[^\s:/\\{}()'\"](?:[^:/\\{}()'\"\r\n\t]*[^\s:/\\{}()'\"])?", name):
        raise CatalogError(
            f"{name!r} cannot be the name of a catalog entry: expected text without : / \\ {{ }} ( ) "
            "or quotes",
            hint="use letters, digits, spaces and . _ - +",
        )
    return name


def data_and_entry(
    name: str, url: str, metadata: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two halves of an entry as Intake 2 writes them: the data, and the reader that refers to it."""
    data = {
        "datatype": _ZARR,
        "kwargs": {"url": url, "root": "", "storage_options": None},
        "metadata": {},
        "user_parameters": {},
    }
    entry = {
        "reader": _READER,
        "kwargs": {"args": [f"{{data({_data_key(name)})}}"], "engine": "zarr", "chunks": {}},
        "metadata": dict(metadata),
        "output_instance": _OUTPUT,
        "user_parameters": {},
    }
    return data, entry


def _data_key(name: str) -> str:
    return f"{name}-data"


# --- what an entry points at ----------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What an entry points at.

    Attributes
    ----------
    location : str
        Path or URL of the store.
    group : str
        Group within it; "" for its root.
    """

    location: str
    group: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's file system."""
        return "://" not in self.location


def target_of(path: Path, document: Mapping[str, Any], name: str) -> Target:
    """Find what an entry points at, if every part of it is known to be harmless.

    Parameters
    ----------
    path : Path
        The catalog file; relative places start at its folder.
    document : mapping
        Its contents.
    name : str
        Key of the entry.

    Raises
    ------
    CatalogError
        The entry is broken, or names a reader, argument, template or protocol that is not on the list.
    """
    where = f"entry {name!r} of {path}"
    entry = document["entries"][name]
    _expect(isinstance(entry, Mapping), where, f"is a {type(entry).__name__}", "a mapping")
    _expect(
        entry.get("reader") == _READER, where, f"uses the reader {entry.get('reader')!r}", _READER
    )
    output = entry.get("output_instance", _OUTPUT)
    _expect(output in (_OUTPUT, None), where, f"gives {output!r}", _OUTPUT)
    _expect(not entry.get("user_parameters"), where, "has user parameters", "none")
    extra = set(document["user_parameters"]) - _INTAKE_PARAMETERS
    _expect(not extra, where, f"depends on the catalog's parameters {sorted(extra)}", "none")
    arguments = entry.get("kwargs") or {}
    _expect(isinstance(arguments, Mapping), where, "has no mapping of arguments", "kwargs")
    unknown = set(arguments) - _READER_ARGUMENTS
    _expect(
        not unknown, where, f"has the arguments {sorted(unknown)}", str(sorted(_READER_ARGUMENTS))
    )
    _expect(
        arguments.get("engine", "zarr") == "zarr", where, f"{arguments.get('engine')=}", "'zarr'"
    )
    for key in ("chunks", "consolidated"):
        _expect(not _has_template(arguments.get(key)), where, f"has a template in {key!r}", "none")
    return _target_of_data(path, document, where, arguments.get("args"))


def _target_of_data(path: Path, document: Mapping[str, Any], where: str, args: Any) -> Target:
    one = isinstance(args, list) and len(args) == 1 and isinstance(args[0], str)
    match = _REFERENCE.match(args[0]) if one else None
    _expect(match is not None, where, f"reads {args!r}", "one reference such as '{data(name)}'")
    assert match is not None
    data = document["data"].get(match[1])
    _expect(
        isinstance(data, Mapping), where, f"refers to the data {match[1]!r}", "data in this file"
    )
    _expect(
        data.get("datatype") == _ZARR, where, f"has data of type {data.get('datatype')!r}", _ZARR
    )
    _expect(not data.get("user_parameters"), where, "has data with user parameters", "none")
    arguments = data.get("kwargs") or {}
    unknown = set(arguments) - {"url", "root", "storage_options"}
    _expect(not unknown, where, f"has data with {sorted(unknown)}", "url, root and storage_options")
    options = arguments.get("storage_options")
    _expect(not _has_template(options), where, "has a template in storage_options", "plain values")
    root = arguments.get("root") or ""
    plain = isinstance(root, str) and "{" not in root and ".." not in root.split("/")
    _expect(plain, where, f"has the group {root!r}", "a plain path within the store")
    return Target(_location(path, arguments.get("url"), where), str(root).strip("/"))


def _location(path: Path, url: Any, where: str) -> str:
    """Path or URL with the one template that is allowed, at its beginning, filled in."""
    _expect(isinstance(url, str) and bool(url), where, f"has the address {url!r}", "a path or URL")
    text = str(url)
    here = text.startswith(CATALOG_DIR)
    rest = text.removeprefix(CATALOG_DIR).lstrip("/\\") if here else text
    _expect(
        "{" not in rest and "}" not in rest and "::" not in rest,
        where,
        f"has the address {url!r}",
        f"no template but {CATALOG_DIR} at its beginning, and no chain of protocols",
    )
    folder = path.resolve().parent
    if here:
        return os.path.normpath(folder / rest)
    scheme = urlsplit(text).scheme.lower()
    # One letter before a colon is a drive of Windows.
    if len(scheme) > 1:
        _expect(scheme in _SCHEMES, where, f"has the address {url!r}", f"one of {sorted(_SCHEMES)}")
        if scheme == "file":
            return os.path.normpath(url2pathname(urlsplit(text).path))
        return text
    return os.path.normpath(folder / text)


def _has_template(value: Any) -> bool:
    if isinstance(value, str):
        return "{" in value
    if isinstance(value, Mapping):
        return any(_has_template(item) for pair in value.items() for item in pair)
    return isinstance(value, (list, tuple)) and any(_has_template(item) for item in value)


def _expect(holds: bool, where: str, found: str, expected: str) -> None:
    if not holds:
        raise CatalogError(
            f"{where} is not opened: it {found}, expected {expected}",
            hint="catalogs can name code to run, so only plain Zarr entries are opened; "
            "add the store anew with `emcube catalog add`",
        )


# --- changing a file ------------------------------------------------------------------------------


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change a catalog file: locked against others, and replaced whole or not at all.

    Parameters
    ----------
    path : Path
        Made if it does not exist.
    edit : callable
        Changes the document in place.
    """
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        document = read_document(path) if path.exists() else new_document()
        comments = _leading_comments(path)
        edit(document)
        body = yaml.safe_dump(
            document, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
        )
        replace_file(path, (comments + body).encode("utf-8"))


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
