"""Packages for publication: a result with recipe, environment and data as one archive that reruns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emcube.package.publishing import publish
    from emcube.package.reproducing import Reproduction, reproduce

__all__ = ["Reproduction", "publish", "reproduce"]

_HOMES = {
    "Reproduction": "emcube.package.reproducing",
    "publish": "emcube.package.publishing",
    "reproduce": "emcube.package.reproducing",
}


def __getattr__(name: str) -> Any:
    """Import a public name, and with it the numerical libraries, on first use."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
