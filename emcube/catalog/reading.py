"""Catalog files as plain data, read with limits: nothing that a file says is run, imported or multiplied."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from emcube.catalog.places import Place, is_remote
from emcube.errors import CatalogError, MissingDependencyError

__all__ = ["keep", "new_document", "parse_document", "read_bytes", "read_document"]

#: Larger files are no catalogs: 100,000 entries are some 150 MB.
_MAX_BYTES = {False: 512 * 2**20, True: 64 * 2**20}
#: A server that says nothing for so long says nothing.
_SECONDS = 30.0
#: Files from here on are kept as JSON, too, which is read some hundred times faster than YAML.
_KEEP_BYTES = 256 * 2**10

_SECTIONS = ("entries", "data", "aliases", "metadata", "user_parameters")


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


def read_document(place: Place) -> dict[str, Any]:
    """Read a catalog file as plain data.

    Parameters
    ----------
    place : Path or str
        A file, or a URL that fsspec knows.

    Raises
    ------
    CatalogError
        It does not exist, is too large, is not YAML, or is not an Intake 2 catalog.
    MissingDependencyError
        The address needs a package that is not installed.
    """
    return parse_document(read_bytes(place), place)


def read_bytes(place: Place) -> bytes:
    """Read the bytes of a catalog file, within limits.

    Raises
    ------
    CatalogError
        It does not exist, cannot be read, or is too large.
    MissingDependencyError
        The address needs a package that is not installed.
    """
    remote = is_remote(place)
    limit = _MAX_BYTES[remote]
    try:
        data = _remote_bytes(str(place), limit) if remote else _local_bytes(Path(place), limit)
    except FileNotFoundError:
        raise CatalogError(
            f"there is no catalog {place}",
            hint=f"check the {'address' if remote else 'path'}, or make one with "
            f"`emcube catalog init {place}`",
        ) from None
    except ImportError as error:
        raise MissingDependencyError(
            f"the catalog {place} cannot be opened: {error}",
            hint='install it with: pip install "emcube[remote]"',
        ) from error
    # The clients of HTTP and S3 have errors of their own, not all of which are OSErrors.
    except Exception as error:
        if not remote and not isinstance(error, OSError):
            raise
        raise CatalogError(
            f"the catalog {place} cannot be read: {error}",
            hint="check the address, and whether it is reachable"
            if remote
            else "check the path and its permissions",
        ) from error
    if len(data) > limit:
        raise CatalogError(
            f"the catalog {place} is larger than {limit >> 20} MiB, expected a list of datasets",
            hint="check the address; split a real catalog of this size into nested ones",
        )
    return data


def _local_bytes(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit + 1)


def _remote_bytes(address: str, limit: int) -> bytes:
    import fsspec

    scheme = urlsplit(address).scheme.lower()
    # fsspec's client of HTTP tells a server that fails from a file that is not there only sometimes; it
    # is used where somebody has configured it, with credentials for example.
    if scheme in ("http", "https") and not fsspec.config.conf.get(scheme):
        return _http_bytes(address, limit)
    files, path = fsspec.core.url_to_fs(address)
    with files.open(path, "rb") as file:
        data: bytes = file.read(limit + 1)
    return data


def _http_bytes(address: str, limit: int) -> bytes:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(address, headers={"User-Agent": "emcube"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            data: bytes = answer.read(limit + 1)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise FileNotFoundError(address) from None
        raise OSError(f"the server says {error.code} {error.reason}") from None
    return data


def parse_document(data: bytes, place: Place) -> dict[str, Any]:
    """Parse and check a catalog file.

    Parameters
    ----------
    data : bytes
    place : Path or str
        Where it came from, for messages.

    Raises
    ------
    CatalogError
        It is not YAML, names objects to build, repeats itself without end, or is not an Intake 2 catalog.
    """
    document = _kept(data)
    if document is None:
        document = _load(data, place)
        keep(data, document)
    if isinstance(document, dict) and "sources" in document:
        raise CatalogError(
            f"{place} is a catalog of Intake 1 (it has `sources`), expected Intake 2 (`version: 2`)",
            hint="make a new one with `emcube catalog add`",
        )
    if not isinstance(document, dict) or document.get("version") != 2:
        raise CatalogError(
            f"{place} is not a catalog: expected an Intake 2 file with `version: 2`",
            hint="make one with `emcube catalog init`",
        )
    for key in _SECTIONS:
        if not isinstance(document.setdefault(key, {}), dict):
            raise CatalogError(
                f"the catalog {place}: `{key}` is a {type(document[key]).__name__}, expected a mapping",
                hint="correct it, or restore the file",
            )
        document[key] = {str(name): value for name, value in document[key].items()}
    return document


def _load(data: bytes, place: Place) -> Any:
    import yaml

    from emcube.catalog.plain_yaml import PlainError, load

    try:
        return load(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CatalogError(
            f"the catalog {place} cannot be read: {error}", hint="save it as UTF-8"
        ) from None
    except PlainError as error:
        raise CatalogError(
            f"the catalog {place} is not valid YAML for a catalog: {error}, expected plain lists, mappings, "
            "text and numbers",
            hint="a catalog is data; do not open it if you do not know who made it",
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: a number that YAML's syntax takes and Python does not.
        raise CatalogError(
            f"the catalog {place} is not valid YAML: {_one_line(error)}",
            hint="correct the line, or restore the file",
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# --- large files, once parsed -----------------------------------------------------------------------


def _kept(data: bytes) -> Any:
    """What these very bytes were parsed to before; None if they were not, or are few."""
    if len(data) < _KEEP_BYTES:
        return None
    with contextlib.suppress(OSError, ValueError):
        return json.loads(_kept_file(data).read_bytes())
    return None


def keep(data: bytes, document: Any) -> None:
    """Keep what the bytes of a large catalog were parsed to, or were made of."""
    if len(data) < _KEEP_BYTES:
        return
    from emcube.disk import replace_file

    file = _kept_file(data)
    # What cannot be kept (a full disk, a home that is read-only) is parsed again next time.
    with contextlib.suppress(OSError, TypeError, ValueError):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(document, allow_nan=False).encode())
        _forget_old(file.parent)


def _forget_old(folder: Path, keep: int = 8) -> None:
    files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in files[keep:]:
        file.unlink(missing_ok=True)


def _kept_file(data: bytes) -> Path:
    from emcube.catalog.places import cache_folder

    return cache_folder() / "catalogs" / f"{hashlib.sha256(data).hexdigest()}.json"
