"""Hooks between stations that must not import each other.

`after_import` imports one module right after another one, whenever that happens.

``.em`` must exist on every ``DataArray`` once emcube is imported, and ``emcube --help`` must not pay for
xarray. There is no ``DataArray`` without xarray, so the accessor is registered when xarray is imported:
at once where it is already there, else right after its first import.

`postponed` spares an import that another library makes at its own and needs for little.

`provide` and `provided` let a station ask for something whose home lies behind it: the engine asks where
to run without knowing of deployments.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec

__all__ = ["after_import", "postponed", "provide", "provided"]

_homes: dict[str, str] = {}


def provide(name: str, home: str) -> None:
    """Say where the function of a name lives (``module:function``); it is imported when first used."""
    _homes[name] = home


def provided(name: str) -> Callable[..., Any]:
    """The function that is provided under a name."""
    module, _, function = _homes[name].partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def after_import(awaited: str, follower: str) -> None:
    """Import `follower` now if `awaited` is imported already, else right after it is.

    Parameters
    ----------
    awaited : str
        Top-level module to wait for.
    follower : str
        Module to import after it.
    """
    module = sys.modules.get(awaited)
    # A module that is still being imported has no whole namespace for `follower` to use.
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        importlib.import_module(follower)
    elif module is None:
        sys.meta_path.insert(0, _Waiter(awaited, follower))


class _Waiter(MetaPathFinder):
    """Finder that steps aside at the first import of `awaited` and has `follower` imported after it."""

    def __init__(self, awaited: str, follower: str) -> None:
        self.awaited = awaited
        self.follower = follower

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.awaited or self not in sys.meta_path:
            return None
        # Out of the way first: the search below goes through all the other finders.
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_then_follow(module: ModuleType) -> None:
            execute(module)
            importlib.import_module(self.follower)

        # On the loader's instance: its other duties (source, resources) stay untouched.
        spec.loader.exec_module = execute_then_follow  # type: ignore[method-assign]
        return spec


@contextmanager
def postponed(name: str) -> Iterator[None]:
    """Let ``import name`` inside this context load nothing until somebody asks the module for something.

    Parameters
    ----------
    name : str
        A submodule whose package finds it when it is first asked for (``package.__getattr__``), so that
        who imported it here has it afterwards.

    Notes
    -----
    Afterwards all is as if the module had not been imported: the next import of it is a plain one. Nothing
    changes where it is there already.
    """
    if name in sys.modules:
        yield
        return
    stand_in = _Postponed(name)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        _give_way(stand_in)


class _Postponed(ModuleType):
    """Stands in for a module and imports it when it is asked for anything."""

    def __getattr__(self, attribute: str) -> Any:
        _give_way(self)
        return getattr(importlib.import_module(self.__name__), attribute)


def _give_way(stand_in: ModuleType) -> None:
    if sys.modules.get(stand_in.__name__) is stand_in:
        del sys.modules[stand_in.__name__]
