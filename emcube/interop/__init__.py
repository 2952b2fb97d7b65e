"""Cubes and results in other programs' words: HyperSpy, NeXus, EMSA/MAS. Nothing here needs any of them.

HyperSpy is imported only by what makes one of its signals, and only when that is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emcube.interop.adapter import decompose
    from emcube.interop.exporting import Exported, export
    from emcube.interop.hyperspy import from_hyperspy, learned, to_hyperspy

__all__ = ["Exported", "decompose", "export", "from_hyperspy", "learned", "to_hyperspy"]

_HOMES = {
    "Exported": "exporting",
    "decompose": "adapter",
    "export": "exporting",
    "from_hyperspy": "hyperspy",
    "learned": "hyperspy",
    "to_hyperspy": "hyperspy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"emcube.interop.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
