"""A board that is drawn by hand, and a display that keeps what it is given."""

from __future__ import annotations

import pytest

from emcube.feedback import board as boards
from emcube.feedback import setting
from emcube.feedback.board import Board
from emcube.feedback.words import Line


class Recorder:
    """Keeps lines and last words."""

    def __init__(self) -> None:
        self.drawn: list[list[Line]] = []
        self.closed: list[tuple[str, bool]] = []

    def draw(self, lines: list[Line]) -> None:
        self.drawn.append(lines)

    def close(self, last: str, *, failed: bool) -> None:
        self.closed.append((last, failed))


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting of the process, and the variable, are those of the tests' own."""
    monkeypatch.delenv(setting.VARIABLE, raising=False)
    monkeypatch.setattr(setting, "_setting", setting._Unset)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Where boards draw: nothing is drawn but when a test says so, and then at once."""
    found = Recorder()
    monkeypatch.setattr(boards, "surface", lambda: "terminal")
    monkeypatch.setattr(boards, "_display", lambda where: found)
    monkeypatch.setattr(boards, "DELAY", 0.0)
    monkeypatch.setattr(Board, "_wake", lambda self: None)
    return found


@pytest.fixture
def board(recorder: Recorder) -> Board:
    return Board()
