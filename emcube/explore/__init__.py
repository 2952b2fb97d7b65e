"""The explorer: look at a cube, set, run and compare analyses, with a record of everything that is done.

`Session` is one visit without any web framework; `explore` serves it to a browser or a notebook.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emcube.explore.regions import Region
    from emcube.explore.serving import Explorer, explore
    from emcube.explore.session import Session
    from emcube.explore.settings import Settings

__all__ = ["Explorer", "Region", "Session", "Settings", "explore"]

_HOMES = {
    "Explorer": "emcube.explore.serving",
    "Region": "emcube.explore.regions",
    "Session": "emcube.explore.session",
    "Settings": "emcube.explore.settings",
    "explore": "emcube.explore.serving",
}


def __getattr__(name: str) -> Any:
    """Import a public name, and with it the numerical libraries, on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


class _Callable(ModuleType):
    """The package itself, which answers a call as its function does.

    ``emcube.explore`` is the function by promise and the package by Python's rules: whoever imports the
    package first puts it where the function is looked for.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from emcube.explore.serving import explore

        return explore(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
