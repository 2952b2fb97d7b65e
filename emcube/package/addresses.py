"""Addresses that go into a package: nobody's folders, nobody's passwords."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from emcube.addresses import HARMLESS
from emcube.errors import InputError
from emcube.package.description import Address

__all__ = [
    "address_of",
    "is_url",
    "public_input",
    "public_metadata",
    "public_provenance",
    "public_text",
    "without_secrets",
]

SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs")

_SECRET_FIELD = re.compile(
    r"passw|secret|token|credential|api_?key|access_?key|storage_options", re.I
)
"""Names of fields that are left out of what is published, whatever they hold."""

_OF_THE_MACHINE = frozenset({"crawled"})
"""Fields in which a catalog remembers files of the machine that it is on."""

_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_LOCAL_PATH = re.compile(
    # Two names at least: a unit may begin with a slash, as "/nm".
    r"(?<![^\s'\"(=\[,;])(?:~[\w.-]*/[^\s'\"<>]*|/[^\s'\"<>/]+/[^\s'\"<>]*|\.\.[/\\][^\s'\"<>]*"
    r"|[A-Za-z]:\\\S*|\\\\\S+)"
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@?#\\\[\]]+)(:\d+)?")


def is_url(text: str) -> bool:
    """Whether it names something that is not on this machine's file system."""
    return "://" in text and not text.startswith("file:")


def without_secrets(url: str) -> str:
    """Return an address without user name, password and signature.

    A query of which not every parameter is known to be harmless is left out whole, and so is what follows a
    ``#``. Of an address in which a password cannot be told from a path only the protocol is left.
    """
    scheme, _, rest = url.partition("://")
    # By slashes alone: a password may hold any other sign.
    authority, slash, path = rest.partition("/")
    given, _, host = authority.rpartition("@")
    host, *inside = re.split(r"[?#]", host, maxsplit=1)
    plain, question, query = path.partition("#")[0].partition("?")
    doubtful = "@" in plain and (given or ":" in host)
    nested = "://" in plain and any(mark in url for mark in "@?#")
    if host and (not _HOST.fullmatch(host) or doubtful or nested):
        return f"{scheme}://***"
    if inside or not all(
        name.lower() in HARMLESS for name, _ in parse_qsl(query, keep_blank_values=True)
    ):
        question = query = ""
    return f"{scheme}://{host}{slash}{plain}{question if query else ''}{query}"


def public_text(text: str) -> str:
    """Return a text in which no address holds a secret.

    Parameters
    ----------
    text : str
        An address, or a text that may hold some anywhere.
    """
    return _IN_TEXT.sub(lambda found: without_secrets(found[0]), text)


def public_metadata(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a catalog entry says of its data, as far as others may see it.

    Parameters
    ----------
    known : mapping
        As JSON.

    Returns
    -------
    dict
        Without what a crawl remembers of the machine's files, without fields that are named like secrets,
        with the names alone in place of paths that lead out of the catalog's folder, and with addresses
        cleaned wherever they stand, in names of fields, too.
    """
    return {
        public_text(str(key)): _public_value(value)
        for key, value in known.items()
        if key not in _OF_THE_MACHINE and not _SECRET_FIELD.search(str(key))
    }


def _public_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return public_metadata(value)
    if isinstance(value, list | tuple):
        return [_public_value(one) for one in value]
    return _without_folders(public_text(value)) if isinstance(value, str) else value


def _without_folders(text: str) -> str:
    """Names alone in place of paths of this machine: absolute ones, and those that climb."""
    kept = re.split(f"({_IN_TEXT.pattern})", re.sub(r"\b(file|local)://", "", text))
    kept[::2] = [_LOCAL_PATH.sub(_name_alone, part) for part in kept[::2]]
    return "".join(kept)


def _name_alone(found: re.Match[str]) -> str:
    return re.split(r"[/\\]", found[0].rstrip("/\\"))[-1].lstrip("~.") or "..."


def address_of(url: str, kind: str | None = None) -> Address:
    """Check where the input can be fetched, as a user gives it.

    Parameters
    ----------
    url : str
    kind : {"store", "file"}, optional
        What is there; default a store where the path ends in ``.zarr``, else a file.

    Raises
    ------
    InputError
        It is not an address that others can reach, or holds a password or a signature.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.netloc or re.search(r"\s", url):
        raise InputError(
            f"address: got {without_secrets(url)!r}, expected a URL ({', '.join(SCHEMES)}) at which others "
            "find the input",
            hint="leave it out to publish without an address, or include the data (--include-data)",
        )
    if without_secrets(url) != urlunsplit(parts._replace(fragment="")):
        raise InputError(
            f"address: {without_secrets(url)!r} was given with a user name, a password or a query that may "
            "let its holder in, which would be published",
            hint="give an address that needs none; whoever reproduces logs in with means of their own",
        )
    store = parts.path.rstrip("/").lower().endswith(".zarr")
    chosen = kind or ("store" if store else "file")
    return Address(
        url=urlunsplit(parts._replace(fragment="")), kind="store" if chosen == "store" else "file"
    )


def public_input(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """How a run named its input, without folders of its machine and without secrets.

    Parameters
    ----------
    recorded : mapping
        ``provenance["input"]`` of a result.
    """
    public = dict(recorded)
    for key in ("path", "catalog"):
        value = public.get(key)
        if isinstance(value, list | tuple):
            public[key] = [_public_place(str(one)) for one in value]
        elif value is not None:
            public[key] = _public_place(str(value))
    return public


def public_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of a result with public names of its input and of the spectra that its steps were given."""
    public = {**provenance, "input": public_input(provenance["input"])}
    if provenance.get("spectra"):
        public["spectra"] = [public_input(one) for one in provenance["spectra"]]
    return public


def _public_place(text: str) -> str:
    if is_url(text):
        return without_secrets(text)
    bare = text.removeprefix("file://")
    for kind in (PurePosixPath(bare), PureWindowsPath(bare)):
        if kind.is_absolute() or ".." in kind.parts or bare.startswith("~"):
            return kind.name
    return bare
