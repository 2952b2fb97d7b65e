"""Addresses of data that lie elsewhere (``https://...``, ``s3://...``), and what may never stand in them.

Addresses are written down: in recipes, catalogs, results, packages, logs and messages. Credentials are
not, and so an address that holds any is refused before it is used, and shown without them.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from emcube.errors import InputError
from emcube.redaction import redact

__all__ = ["HARMLESS", "check_address", "is_url", "join", "local_part", "redact"]

HARMLESS = frozenset(
    {
        *("doi", "download", "file", "filename", "files", "format", "id", "path", "persistentid"),
        *("record", "version"),
    }
)
"""Names of query parameters that say what is meant. Any other may let its holder in: services call their
signatures and keys by too many names to list these instead."""

#: Protocols whose "address" is a path of this machine.
_LOCAL = ("file", "local")

#: A host or a bucket, with a port.
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@?#\\\[\]]+)(:\d+)?")


def is_url(path: object) -> bool:
    """Whether a path names something that is not on this machine's file system."""
    # A single letter before the colon is a drive of Windows.
    return isinstance(path, str) and "://" in path and len(urlsplit(path).scheme) > 1


def check_address(address: str) -> str:
    """The address, if it can be written down everywhere and paths can be added to it.

    Parameters
    ----------
    address : str
        ``scheme://host/path`` or ``scheme://bucket/path``.

    Returns
    -------
    str
        Without a slash at its end.

    Raises
    ------
    InputError
        It holds a user, a password, a query (such as a signature) or anything that may be one. The message
        shows none of them.
    """
    found = _unwanted(address)
    if found:
        raise InputError(
            f"the address {_outline(address)} holds {found}, expected none: addresses end up in results, "
            "catalogs and logs",
            hint="keep credentials in the environment (AWS_ACCESS_KEY_ID, ...) or in fsspec's "
            "configuration (~/.config/fsspec), and give the plain address: scheme://host/path",
        )
    return address.rstrip("/")


def _unwanted(address: str) -> str:
    """What of an address must not be written down; empty where there is nothing."""
    scheme, _, rest = address.partition("://")
    # By slashes alone: clients differ in what else ends a host, and a password may hold any of it.
    authority, _, path = rest.partition("/")
    if "@" in authority:
        return "a user or a password"
    # A fragment of the web's addresses is not sent to the server, and is no part of a name.
    ends = "?#" if scheme.lower() in ("http", "https") else "?"
    if any(end in rest for end in ends):
        return "a query"
    if "::" in scheme or "://" in path:
        return "another address"
    if not _AUTHORITY.fullmatch(authority) or not address.isprintable():
        return "what is no host"
    return ""


def _outline(address: str) -> str:
    """A refused address, with nothing in it that may be secret."""
    scheme, _, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    plain, *query = re.split(r"[?#]", path, maxsplit=1)
    _, at, host = authority.rpartition("@")
    host, *inside = re.split(r"[?#]", host, maxsplit=1)
    if not _AUTHORITY.fullmatch(host) or "@" in plain or "://" in plain:
        return f"{scheme}://***"
    shown = f"{scheme}://{'***@' if at else ''}{host}{slash}{plain}"
    return f"{shown}?***" if query or inside else shown


def join(address: str, *names: str) -> str:
    """Address of something below another address."""
    return "/".join([address.rstrip("/"), *(name.strip("/") for name in names if name)])


def local_part(text: str) -> str:
    """The path that a ``file://`` address means; anything else as it is."""
    from urllib.request import url2pathname

    scheme = urlsplit(text).scheme.lower()
    if "://" not in text or scheme not in _LOCAL:
        return text
    return url2pathname(text.partition("://")[2])
