"""Where catalogs and their data may lie: paths, URLs, and the folders that a catalog may not leave."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit
from urllib.request import url2pathname

from emcube.addresses import HARMLESS
from emcube.errors import CatalogError

__all__ = [
    "CATALOG_DIR",
    "ROOTS",
    "SCHEMES",
    "Place",
    "address_of",
    "cache_folder",
    "check_texts",
    "folder_of",
    "has_scheme",
    "is_remote",
    "locate",
    "place_of",
    "shown",
]

#: A catalog: a file on this machine, or a URL.
Place = Path | str

CATALOG_DIR = "{CATALOG_DIR}"
#: Environment variable with folders that catalogs on this machine may point into.
ROOTS = "EMCUBE_CATALOG_ROOTS"
#: Where data may lie. fsspec knows more protocols, among them some that run code or chain others.
SCHEMES = frozenset({"http", "https", "s3", "gs", "gcs", "az", "abfs"})

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@?#\\\[\]]+)(:\d+)?")
#: Azure has the name of a container where others have a user.
_CONTAINERS = ("abfs", "az")
_CONTAINER = re.compile(r"[a-z0-9$][a-z0-9-]*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


def is_remote(place: Place | str | os.PathLike[str]) -> bool:
    """Whether a place is a URL; one letter before a colon is a drive of Windows."""
    text = os.fspath(place)
    return "://" in text and len(urlsplit(text).scheme) > 1 and not text.startswith("file:")


def has_scheme(text: str) -> bool:
    """Whether an address begins like a URL, well formed or not; one letter is a drive of Windows."""
    return re.match(r"\s*[A-Za-z][A-Za-z0-9+.\-]+:", text) is not None


def place_of(text: str | os.PathLike[str]) -> Place:
    """A catalog's place from what a user typed.

    Raises
    ------
    CatalogError
        The URL's protocol is not one that catalogs are read from.
    """
    given = os.fspath(text)
    if is_remote(given):
        scheme = urlsplit(given).scheme.lower()
        if scheme not in SCHEMES or "::" in given:
            raise CatalogError(
                f"the catalog {given}: protocol {scheme!r}, expected one of {sorted(SCHEMES)}",
                hint="fetch the file, then open it from here",
            )
        return given
    if given.startswith("file:"):
        return Path(url2pathname(urlsplit(given).path))
    return Path(given)


def folder_of(place: Place) -> str:
    """The folder that relative places start at: absolute path, or URL without a slash at its end."""
    if is_remote(place):
        parts = urlsplit(str(place))
        return urlunsplit((parts.scheme, parts.netloc, parts.path.rpartition("/")[0], "", ""))
    return str(_own_folder(Path(place)))


def _own_folder(path: Path) -> Path:
    """The folder of a catalog on this machine; of a link to one that of the catalog itself."""
    return path.resolve().parent if path.is_symlink() else path.absolute().parent


def cache_folder() -> Path:
    """Folder for what can be fetched or made again: EMCUBE_CACHE, else the user's cache."""
    named = os.environ.get("EMCUBE_CACHE", "").strip()
    if named:
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("emcube")


# --- secrets ------------------------------------------------------------------------------------------

_IN_TEXT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^\s'\"<>]+)")
#: In prose any query may be meant to be read; these are not.
_SECRETS = re.compile(
    r"[?&#](?:[\w.-]*(?:token|secret|passw|signature|credential|api[-_]?key)[\w.-]*|sig|key|access)=",
    re.IGNORECASE,
)


def shown(address: str) -> str:
    """A refused address for a message: without what may be a password that holds a slash."""
    scheme, mark, rest = address.partition("://")
    authority, _, path = rest.partition("/")
    return f"{scheme}://***" if mark and ":" in authority and "@" in path else address


def check_texts(metadata: Any, where: str, field: str = "") -> None:
    """Refuse metadata in which an address holds a password or a signature, wherever it stands.

    Parameters
    ----------
    metadata : object
        Plain data.
    where : str
        What it is said of, for the message.
    field : str
        Its place in the whole, for the message.

    Raises
    ------
    CatalogError
        Names the field, not what it holds.
    """
    if isinstance(metadata, Mapping):
        for key, value in metadata.items():
            check_texts(str(key), where, f"a name in {field or 'the metadata'}")
            check_texts(value, where, f"{field}.{key}" if field else str(key))
    elif isinstance(metadata, (list, tuple)):
        for value in metadata:
            check_texts(value, where, field)
    elif isinstance(metadata, str) and any(map(_holds_secret, _IN_TEXT.finditer(metadata))):
        raise CatalogError(
            f"{where}: {field} holds an address with a password, a token or a signature, expected none: "
            "catalogs are read by others",
            hint="give the plain address; credentials come from the environment or from fsspec's "
            "configuration",
        )


def _holds_secret(found: re.Match[str]) -> bool:
    scheme, rest = found.groups()
    # By slashes alone, as in `_refuse_secrets`.
    authority, _, path = rest.partition("/")
    user, at, _ = authority.rpartition("@")
    # "ssh://git@host" names a user that is none.
    named = at and (":" in user or scheme.lower() in ("http", "https", "s3", "gs", "ftp"))
    return bool(named) or (":" in authority and "@" in path) or _SECRETS.search(rest) is not None


# --- from the address in a catalog to a place -------------------------------------------------------------


def locate(place: Place, address: str) -> str:
    """Turn an address of a catalog, its templates filled in, into a path or URL.

    Parameters
    ----------
    place : Path or str
        The catalog.
    address : str
        As the catalog has it; relative ones start at its folder.

    Returns
    -------
    str
        An absolute path, or a URL.

    Raises
    ------
    ValueError
        It leads where the catalog may not go; the message says what was expected instead.

    Notes
    -----
    A catalog reaches what lies in its own folder, and in the folder that holds that one (``../stores``),
    save for hidden files there. A catalog behind a URL reaches nothing on this machine.
    """
    here = address.startswith(CATALOG_DIR)
    rest = address.removeprefix(CATALOG_DIR).lstrip("/\\") if here else address
    if "{" in rest or "}" in rest or "::" in rest or "\0" in rest:
        raise ValueError(
            f"no template but {CATALOG_DIR} at its beginning and the catalog's own parameters, "
            "and no chain of protocols"
        )
    if not here and (has_scheme(rest) or "://" in rest):
        return _absolute_url(place, rest)
    if is_remote(place):
        return _below_url(place, rest)
    return _below_folder(Path(place), rest)


def _absolute_url(place: Place, text: str) -> str:
    # Strictly, since clients differ in what they make of anything else; some take it for a path.
    match = re.match(r"([a-z][a-z0-9]+)://([^/\\]*)", text)
    if match is None or "\\" in text or not text.isprintable():
        raise ValueError("an address such as https://host/path, or a path")
    scheme, host = match.groups()
    if scheme == "file":
        if is_remote(place):
            raise ValueError("a place that can be reached from elsewhere, no file of this machine")
        if host not in ("", "localhost"):
            raise ValueError("no host in the address of a file")
        return _below_folder(Path(place), url2pathname(urlsplit(text).path))
    if scheme not in SCHEMES or not host:
        raise ValueError(f"one of {sorted(SCHEMES)}, with a host")
    _refuse_secrets(text)
    return text


def _refuse_secrets(url: str) -> None:
    """Refuse what may let its holder in; ValueError says what, and shows no value."""
    scheme, _, rest = url.partition("://")
    # By slashes alone: clients differ in what else ends a host, and a password may hold any of it.
    authority, _, path = rest.partition("/")
    container = scheme in _CONTAINERS and _CONTAINER.fullmatch(authority)
    if ("@" in authority and not container) or (":" in authority and "@" in path):
        raise ValueError("no user or password in it: credentials come from the environment")
    if not container and not _HOST.fullmatch(re.split("[?#]", authority, maxsplit=1)[0]):
        raise ValueError("a host behind ://; credentials come from the environment")
    if scheme in ("http", "https") and "#" in rest:
        raise ValueError(
            "nothing after a # in it, which may be a secret: credentials come from the environment"
        )
    # Of an object store a question mark may be part of a name, but clients send it on.
    query = rest.partition("?")[2]
    names = [key.lower() for key, _ in parse_qsl(query, keep_blank_values=True)]
    if (query and not names) or not HARMLESS.issuperset(names):
        raise ValueError(
            f"no query but of {', '.join(sorted(HARMLESS))} in it, since others may be secret: credentials "
            "come from the environment"
        )


def _below_url(place: Place, rest: str) -> str:
    parts = rest.replace("\\", "/").split("/")
    base = folder_of(place)
    if rest.startswith(("/", "\\")) or re.match(r"^[A-Za-z]:", rest):
        raise ValueError("a place relative to the catalog, or a full URL")
    if parts and parts[0] == "..":
        base, parts = base.rpartition("/")[0], parts[1:]
        if "://" not in base or base.endswith("/"):
            raise ValueError("a place on the catalog's own server")
    if ".." in parts:
        raise ValueError("at most one '..', at the beginning")
    kept = [part for part in parts if part not in ("", ".")]
    if urlsplit(base).scheme in ("http", "https"):
        # The catalog names files; a server is asked for them in an address.
        kept = [quote(part, safe="~!$'()*+,;=@:") for part in kept]
    return "/".join([base, *kept])


def _below_folder(path: Path, rest: str) -> str:
    folder = _own_folder(path)
    full = Path(os.path.normpath(folder / rest))
    if not _reachable(full, folder):
        raise ValueError(
            f"a place in the catalog's folder {str(folder)!r} or beside it "
            f"(or in a folder that {ROOTS} names)"
        )
    return str(full)


def _reachable(full: Path, folder: Path) -> bool:
    """Whether a catalog in `folder` may point at `full`, with links followed."""
    real, home = full.resolve(), folder.resolve()
    if real.is_relative_to(home):
        return True
    if any(real.is_relative_to(Path(root).expanduser().resolve()) for root in _roots()):
        return True
    beside = home.parent
    # The root of the disk and a home directory hold much that is nobody's data.
    if beside == beside.parent or beside == Path.home().resolve():
        return False
    if not real.is_relative_to(beside):
        return False
    return not any(part.startswith(".") for part in real.relative_to(beside).parts)


def _roots() -> list[str]:
    return [part for part in os.environ.get(ROOTS, "").split(os.pathsep) if part.strip()]


# --- from a place to the address in a catalog -------------------------------------------------------------


def address_of(place: Place, target: str | os.PathLike[str]) -> str:
    """Address of data as the catalog keeps it: relative to the catalog where there is a way.

    Raises
    ------
    CatalogError
        The catalog could not open it: braces in the path, a secret in the URL, or outside of its reach.
    """
    text = os.fspath(target)
    if is_remote(text):
        address = text
    else:
        full = Path(text).absolute()
        if "{" in str(full) or "}" in str(full):
            raise CatalogError(
                f"cannot add {full} to a catalog: Intake takes braces in a path for templates",
                hint="rename the file, or its folder",
            )
        try:
            relative = os.path.relpath(full, folder_of(place))
        except ValueError:
            # Another drive of Windows.
            address = full.as_uri()
        else:
            address = f"{CATALOG_DIR}/{Path(relative).as_posix()}"
    try:
        locate(place, address)
    except ValueError as error:
        raise CatalogError(
            f"cannot add {shown(text)} to the catalog {place}: its place would be {shown(address)}, "
            f"expected {error}",
            hint="give the plain address, as anybody may see it"
            if is_remote(text)
            else f"keep the catalog in a folder above the data, or set {ROOTS} to the data's folder",
        ) from None
    return address
