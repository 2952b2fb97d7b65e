"""Recipes: a whole analysis as one declarative file, checked, then run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emcube.recipe.recipe import Recipe

if TYPE_CHECKING:
    from emcube.recipe.running import run

__all__ = ["Recipe", "run"]


def __getattr__(name: str) -> Any:
    """Import `run`, and with it the numerical libraries, on first use: checking needs none of them."""
    if name != "run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from emcube.recipe.running import run

    globals()["run"] = run
    return run
