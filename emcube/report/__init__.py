"""A result as one HTML file that anybody can open: answer first, evidence below, recipe at the end."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from emcube.report.build import report

__all__ = ["report"]


class _Callable(ModuleType):
    """The package itself, which answers a call as its function does.

    ``emcube.report`` is the function by promise and the package by Python's rules: whoever imports the
    package first puts it where the function is looked for.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return report(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
