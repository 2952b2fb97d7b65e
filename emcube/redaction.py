"""Texts in which no address shows a user, a password or a query: messages and logs are read by others."""

from __future__ import annotations

import re

__all__ = ["redact"]

_FOUND = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s'\"<>]+")
#: A query is not shown at all: names of parameters tell apart what is secret for some services only.
_PARTS = re.compile(
    r"^(?P<scheme>[^:]+://)(?:(?P<user>[^/?#]*)@)?(?P<rest>[^?#]*)(?P<query>\?[^#]*)?"
)
#: A password that holds a slash: what looks like a port is none, and an @ follows.
_SLASHED = re.compile(r"^([^:]+://)[^/?#@]*:(?!\d*(?:[/?#]|$))\S*@")


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
    address = _SLASHED.sub(r"\1***@", address)
    parts = _PARTS.match(address)
    assert parts is not None
    user = "***@" if parts["user"] is not None else ""
    query = "?***" if parts["query"] else ""
    return f"{parts['scheme']}{user}{parts['rest']}{query}"
