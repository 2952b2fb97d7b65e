"""Addresses that go into a package: nobody's folders, nobody's passwords."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from emcube.errors import InputError
from emcube.package.description import Address

__all__ = ["address_of", "is_url", "public_input", "without_secrets"]

SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs")

_SECRET = re.compile(
    r"sig|token|secret|passw|credential|key|auth|expires|session|^(sv|se|sp|st|sr|x-amz|x-goog)",
    re.I,
)
"""Names of query parameters that may let their holder in: signed addresses of object stores and the like."""


def is_url(text: str) -> bool:
    """Whether it names something that is not on this machine's file system."""
    return "://" in text and not text.startswith("file:")


def without_secrets(url: str) -> str:
    """Return an address without user name, password and signature.

    A query that holds anything like a secret is left out whole, and so is what follows a ``#``.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    secret = any(_SECRET.search(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    query = "" if secret else parts.query
    return urlunsplit((parts.scheme, host, parts.path, query, ""))


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
            f"address: {without_secrets(url)!r} was given with a user name, a password or a signature, which "
            "would be published",
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


def _public_place(text: str) -> str:
    if is_url(text):
        return without_secrets(text)
    bare = text.removeprefix("file://")
    for kind in (PurePosixPath(bare), PureWindowsPath(bare)):
        if kind.is_absolute() or ".." in kind.parts or bare.startswith("~"):
            return kind.name
    return bare
