"""Recipes: a whole analysis as one declarative file, checked, then run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emcube.recipe.recipe import Recipe

if TYPE_CHECKING:
    from emcube.recipe.planning import plan
    from emcube.recipe.running import run

__all__ = ["Recipe", "plan", "run"]


def __getattr__(name: str) -> Any:
    """Import `run` and `plan`, and with them the numerical libraries, on first use."""
    if name == "run":
        from emcube.recipe.running import run

        value: Any = run
    elif name == "plan":
        from emcube.recipe.planning import plan

        value = plan
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
