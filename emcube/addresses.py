"""Addresses of data that lie elsewhere (``https://...``, ``s3://...``), and what may never stand in them.

Addresses are written down: in recipes, catalogs, results, packages, logs and messages. Credentials are
not, and so an address that holds any is refused before it is used, and shown without them.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from emcube.errors import InputError

__all__ = ["check_address", "is_url", "join", "local_part", "redact"]

#: Protocols whose "address" is a path of this machine.
_LOCAL = ("file", "local")

_FOUND = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s'\"<>]+")
#: A query is not shown at all: names of parameters tell apart what is secret for some services only.
_PARTS = re.compile(
    r"^(?P<scheme>[^:]+://)(?:(?P<user>[^/?#]*)@)?(?P<rest>[^?#]*)(?P<query>\?[^#]*)?"
)


def is_url(path: object) -> bool:
    """Whether a path names something that is not on this machine's file system."""
    # A single letter before the colon is a drive of Windows.
    return isinstance(path, str) and "://" in path and len(urlsplit(path).scheme) > 1


def redact(text: str) -> str:
    """A text in which no address shows a user, a password or a query.

    Parameters
    ----------
    text : str
        An address, or a message that holds some.

    Returns
    -------
    str

    Examples
    --------
    >>> redact("cannot read https://me:secret@host/map.zarr?token=abc")
    'cannot read https://***@host/map.zarr?***'
    """
    return _FOUND.sub(lambda match: _redacted(match[0]), text)


def _redacted(address: str) -> str:
    parts = _PARTS.match(address)
    assert parts is not None
    user = "***@" if parts["user"] is not None else ""
    query = "?***" if parts["query"] else ""
    return f"{parts['scheme']}{user}{parts['rest']}{query}"


def check_address(address: str) -> str:
    """The address, if it can be written down everywhere and paths can be added to it.

    Parameters
    ----------
    address : str

    Returns
    -------
    str
        Without a slash at its end.

    Raises
    ------
    InputError
        It holds a user, a password or a query (such as a signature). The message shows none of them.
    """
    parts = urlsplit(address)
    # What comes before an @ in the authority is a user, or a key and a secret; a path may hold one.
    found = "a user or a password" if "@" in parts.netloc else "a query" if parts.query else ""
    if found:
        raise InputError(
            f"the address {redact(address)} holds {found}, expected none: addresses end up in results, "
            "catalogs and logs",
            hint="keep credentials in the environment (AWS_ACCESS_KEY_ID, ...) or in fsspec's "
            "configuration (~/.config/fsspec), and give the plain address",
        )
    return address.rstrip("/")


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
