"""Hosts that a package of a stranger may name: those of the public net, unless whoever reproduces says else.

A program that fetches whatever it is told to is a way into networks that its user reaches and a stranger does
not: services on this machine, a cloud's metadata, instruments without a password.
"""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from typing import IO, Any
from urllib.parse import urlsplit

from emcube.errors import PackageError
from emcube.package.addresses import without_secrets

__all__ = ["guarded_client", "guarded_opener", "local_reason", "require_public"]

_WEB = ("http", "https")
_LOCAL_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "private")
"""Last parts of names that no public server has."""


def local_reason(url: str, *, look_up: bool = True) -> str:
    """Why an address is not one of the public net; empty where it is one.

    Parameters
    ----------
    url : str
    look_up : bool
        Ask where a name is.

    Notes
    -----
    A name that is not found is let pass: then it cannot be fetched either. Buckets of object
    stores have no host of their own, the user's configuration says where they are.
    """
    parts = urlsplit(url)
    if parts.scheme.lower() not in _WEB:
        return ""
    host = (parts.hostname or "").rstrip(".").lower()
    if not host:
        return "has no host"
    found = _number(host)
    if found is not None:
        return "" if _is_public(found) else f"{host} is no address of the public net"
    if "." not in host or host.rpartition(".")[2] in _LOCAL_NAMES:
        return f"{host} is a name of a local network"
    if not look_up:
        return ""
    try:
        known = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return ""
    local = sorted(a for a in known if not _is_public(ipaddress.ip_address(a.partition("%")[0])))
    return f"{host} is at {local[0]}, which is no address of the public net" if local else ""


def require_public(url: str) -> None:
    """Refuse an address of this machine or of a network around it.

    Raises
    ------
    PackageError
        It is one.
    """
    reason = local_reason(url)
    if reason:
        raise PackageError(
            f"{without_secrets(url)} is not fetched: {reason}",
            hint="where you trust the package and mean that host: --allow-local-addresses "
            "(allow_local_addresses=True in Python)",
        )


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is; also as 127.1 or 0x7f000001, which the system's resolver takes."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if mapped is not None:
        return _is_public(mapped)
    return address.is_global and not address.is_multicast


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Looks at where a server sends us before we go there."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        require_public(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def guarded_opener() -> urllib.request.OpenerDirector:
    """Open addresses of the web, and follow redirections within the public net only."""
    return urllib.request.build_opener(_Redirects)


def guarded_client(url: str) -> dict[str, Any]:
    """Options with which fsspec follows redirections within the public net only."""
    if urlsplit(url).scheme.lower() not in _WEB:
        return {}
    import aiohttp

    async def look(session: Any, context: Any, params: Any) -> None:
        target = params.response.headers.get("Location") or params.response.headers.get("URI") or ""
        require_public(str(params.url.join(type(params.url)(target))))

    watch = aiohttp.TraceConfig()
    watch.on_request_redirect.append(look)
    return {"client_kwargs": {"trace_configs": [watch]}, "skip_instance_cache": True}
