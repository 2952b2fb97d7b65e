"""Exceptions of emcube: one root, and every class is also a builtin.

A message has four parts: what is wrong, where, what was found against what was expected, and what to
do about it. The last part is the ``hint``. Exceptions pickle, so that they cross process borders whole.
"""

from __future__ import annotations

from typing import Any

from emcube.redaction import redact

__all__ = [
    "AmbiguousSignalError",
    "BudgetError",
    "CatalogError",
    "ConservationError",
    "CubeError",
    "EmcubeError",
    "EngineError",
    "IncompleteError",
    "InputError",
    "InterruptedRunError",
    "MissingDependencyError",
    "NotFittedError",
    "PackageError",
    "PreemptedRunError",
    "ReadError",
    "RecipeError",
    "SelectionError",
    "StoreError",
    "UnitsError",
]


class EmcubeError(Exception):
    """Root of all errors that emcube raises.

    Parameters
    ----------
    message : str
        What is wrong, where, and what was found against what was expected.
    hint : str, optional
        What to do about it.

    Notes
    -----
    Messages reach logs: users, passwords and queries of addresses are left out, whoever raises.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        message, hint = redact(message), redact(hint)
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))


def _rebuild(cls: type[EmcubeError], message: str, state: dict[str, Any]) -> EmcubeError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class InputError(EmcubeError, ValueError):
    """A value, shape, dtype or parameter is not one that can be used."""


class CubeError(InputError):
    """A labelled cube breaks the schema: dims, coordinates, units or metadata."""


class UnitsError(InputError):
    """Units are missing, unknown or cannot be converted into each other."""


class SelectionError(InputError):
    """A selection (window, positions, ``where=``) does not fit the cube or leaves nothing."""


class RecipeError(InputError):
    """A recipe is not valid; the message names the line of the file."""


class PackageError(InputError):
    """A package is not whole or not harmless, or of a newer version; nothing of it was run."""


class NotFittedError(EmcubeError, ValueError, AttributeError):
    """An estimator was asked for an answer before ``fit``."""


class ReadError(EmcubeError, OSError):
    """A file cannot be read: not what its name says, cut short, or of an unknown kind."""


class AmbiguousSignalError(ReadError, KeyError):
    """A file holds several signals and none was named.

    Attributes
    ----------
    names : list of str
        The names that may be asked for.
    """

    def __init__(self, message: str, *, names: list[str] | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.names = list(names or [])

    __str__ = EmcubeError.__str__


class StoreError(EmcubeError, OSError):
    """A store cannot be written or read."""


class IncompleteError(StoreError):
    """A store or result was never finished and is not taken for whole."""


class CatalogError(EmcubeError, LookupError):
    """A catalog or one of its entries is missing, broken or not allowed."""


class MissingDependencyError(EmcubeError, ImportError):
    """An optional package is missing; the hint says which extra brings it."""


class EngineError(EmcubeError, RuntimeError):
    """The run loop cannot go on."""


class ConservationError(EngineError):
    """Pixels were lost or counted twice in a round."""


class BudgetError(EngineError, MemoryError):
    """A run would not fit into the memory budget; raised before it starts."""


class InterruptedRunError(EmcubeError, KeyboardInterrupt):
    """A run was stopped by the user; the message says what is incomplete."""


class PreemptedRunError(InterruptedRunError):
    """A signal (SIGTERM, SIGUSR1) asked a run to leave; the same command goes on from its checkpoint."""
