"""What was done in a visit, in order: the record behind every recipe and script."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Action", "Record"]


@dataclass(frozen=True)
class Action:
    """One thing that was done.

    Attributes
    ----------
    verb : str
        "open", "choose", "spectrum", "window", "lines", "curve", "settings", "preview", "run", "cancel",
        "compare", "component", "save", "report" or "publish".
    parameters : dict
        JSON values: what it was done with.
    at : str
        When, UTC, ISO 8601.
    """

    verb: str
    parameters: dict[str, Any] = field(default_factory=dict)
    at: str = field(
        default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    )

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"verb": self.verb, "at": self.at, **self.parameters}


class Record:
    """Actions in their order; threads may add to it and read it at any time."""

    def __init__(self) -> None:
        self._actions: list[Action] = []
        self._lock = threading.Lock()

    def add(self, verb: str, **parameters: Any) -> Action:
        """Note that something is done; the same look twice in a row is noted once."""
        action = Action(verb, parameters)
        with self._lock:
            last = self._actions[-1] if self._actions else None
            if last is not None and (last.verb, last.parameters) == (verb, parameters):
                return last
            self._actions.append(action)
        return action

    def __iter__(self) -> Iterator[Action]:
        with self._lock:
            return iter(tuple(self._actions))

    def __len__(self) -> int:
        return len(self._actions)
