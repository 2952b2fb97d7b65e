"""Where catalogs and their data may lie: paths, URLs, and the folders that a catalog may not leave."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit
from urllib.request import url2pathname

from emcube.errors import CatalogError

__all__ = [
    "CATALOG_DIR",
    "ROOTS",
    "SCHEMES",
    "Place",
    "address_of",
    "cache_folder",
    "folder_of",
    "is_remote",
    "locate",
    "place_of",
]

#: A catalog: a file on this machine, or a URL.
Place = Path | str

CATALOG_DIR = "{CATALOG_DIR}"
#: Environment variable with folders that catalogs on this machine may point into.
ROOTS = "EMCUBE_CATALOG_ROOTS"
#: Where data may lie. fsspec knows more protocols, among them some that run code or chain others.
SCHEMES = frozenset({"http", "https", "s3", "gs", "gcs", "az", "abfs"})

_SECRETS = re.compile(
    r"token|secret|password|passwd|signature|credential|api[-_]?key|^sig$", re.IGNORECASE
)


def is_remote(place: Place | str | os.PathLike[str]) -> bool:
    """Whether a place is a URL; one letter before a colon is a drive of Windows."""
    text = os.fspath(place)
    return "://" in text and len(urlsplit(text).scheme) > 1 and not text.startswith("file:")


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
    return str(Path(place).absolute().parent)


def cache_folder() -> Path:
    """Folder for what can be fetched or made again: EMCUBE_CACHE, else the user's cache."""
    named = os.environ.get("EMCUBE_CACHE", "").strip()
    if named:
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("emcube")


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
    scheme = urlsplit(rest).scheme.lower()
    if not here and len(scheme) > 1:
        return _absolute_url(place, rest, scheme)
    if is_remote(place):
        return _below_url(place, rest)
    return _below_folder(Path(place), rest)


def _absolute_url(place: Place, text: str, scheme: str) -> str:
    if scheme == "file":
        if is_remote(place):
            raise ValueError("a place that can be reached from elsewhere, no file of this machine")
        return _below_folder(Path(place), url2pathname(urlsplit(text).path))
    if scheme not in SCHEMES:
        raise ValueError(f"one of {sorted(SCHEMES)}")
    _refuse_secrets(text)
    return text


def _refuse_secrets(url: str) -> None:
    parts = urlsplit(url)
    if "@" in parts.netloc and parts.scheme in ("http", "https", "s3"):
        raise ValueError("no user or password in it: credentials come from the environment")
    secret = next((key for key, _ in parse_qsl(parts.query) if _SECRETS.search(key)), None)
    if secret is not None:
        raise ValueError(
            f"no secret such as {secret!r} in it: credentials come from the environment"
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
    folder = path.absolute().parent
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
            f"cannot add {text} to the catalog {place}: its place would be {address}, expected {error}",
            hint=f"keep the catalog in a folder above the data, or set {ROOTS} to the data's folder",
        ) from None
    return address
