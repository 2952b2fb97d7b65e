"""What is open to whom: loopback addresses, addresses of this host, and warnings that name them."""

from __future__ import annotations

import ipaddress
import socket
import warnings
from urllib.parse import urlsplit

__all__ = ["InsecureWarning", "is_loopback", "split_address", "warn_if_plain", "warn_open"]


class InsecureWarning(UserWarning):
    """Something is open to others on the network or travels unencrypted; the message names it."""


def split_address(address: str) -> tuple[str, str, int | None]:
    """Protocol, host and port of ``tls://host:8786``; ``tcp`` where none is named."""
    whole = address if "://" in address else f"tcp://{address}"
    try:
        parts = urlsplit(whole)
    except ValueError:  # brackets that do not close
        return whole.partition("://")[0], "", None
    try:
        return parts.scheme, parts.hostname or "", parts.port
    except ValueError:  # a port that is no number
        return parts.scheme, parts.hostname or "", None


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):  # no such host; labels that are no name
        return False
    return bool(found) and all(ipaddress.ip_address(a.split("%")[0]).is_loopback for a in found)


def warn_if_plain(address: str) -> None:
    """Warn that a scheduler beyond this machine's loopback is used without encryption."""
    protocol, host, _ = split_address(address)
    if protocol in ("tls", "wss", "inproc") or is_loopback(host):
        return
    warnings.warn(
        f"the connection to {address} is not encrypted, and anybody who reaches that port can run code "
        "as its user; start the scheduler with TLS and use its tls:// address",
        InsecureWarning,
        stacklevel=3,
    )


def warn_open(what: str, address: str, protected: str) -> None:
    """Warn that something that was started listens beyond loopback."""
    warnings.warn(
        f"the {what} listens on {address}, which other machines can reach; {protected}",
        InsecureWarning,
        stacklevel=3,
    )
