"""Bars on a real pseudo-terminal: what is written, what stays, what is left alone."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from emcube.feedback import board as boards
from emcube.feedback.board import Board
from emcube.feedback.events import group, working
from emcube.feedback.terminal import terminal

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """A terminal in the place of standard error, inside a ``with`` block; then, what was written there."""

    def __init__(self, columns: int, encoding: str) -> None:
        self.columns = columns
        self._leader, follower = os.openpty()
        self._file = open(follower, "w", encoding=encoding, errors="backslashreplace")  # noqa: PTH123, SIM115
        self._chunks: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._leader, 65536)
            except OSError:  # how Linux ends a pseudo-terminal
                return
            if not chunk:
                return
            self._chunks.append(chunk)

    def __enter__(self) -> None:
        # pytest puts its own streams there before each test.
        self._before, sys.stderr = sys.stderr, self._file

    def __exit__(self, *error: object) -> None:
        same = sys.stderr is self._file
        sys.stderr = self._before
        self._file.close()
        self._reader.join(30)
        os.close(self._leader)
        assert same, "the stream was not given back"

    @property
    def text(self) -> str:
        return b"".join(self._chunks).decode("utf-8", "replace")


@pytest.fixture
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    columns, encoding = getattr(request, "param", (80, "utf-8"))
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(boards, "DELAY", 0.0)
    monkeypatch.setattr(boards, "surface", lambda: "terminal")
    monkeypatch.setattr(Board, "_wake", lambda self: None)
    monkeypatch.setattr(boards, "board", Board())
    terminal.cache_clear()
    yield Screen(columns, encoding)
    terminal.cache_clear()


def fit(draws: int = 3, name: str = "NMF") -> None:
    with group("MiniBatchNMF"), working(name, n_blocks=10, n_pixels=1000) as work:
        for _ in range(draws):
            work.advance(blocks=2, pixels=200)
            boards.board._draw()


def lines(text: str) -> list[str]:
    return [ESCAPE.sub("", part) for part in re.split(r"[\r\n]+", text)]


def test_a_bar_comes_and_goes_and_leaves_one_line(screen: Screen) -> None:
    with screen:
        fit()
    text = screen.text
    assert "MiniBatchNMF: NMF" in text
    assert "━" in text
    assert "60 %" in text
    assert "\x1b[2K" in text  # lines are taken back
    left = [line for line in lines(text) if line][-1]
    assert re.fullmatch(r"MiniBatchNMF: 1,000 pixels, .*pixels/s, .* s", left)
    # A process that is killed leaves the cursor as it was.
    assert "\x1b[?25" not in text


@pytest.mark.parametrize("screen", [(20, "utf-8"), (40, "utf-8"), (80, "utf-8")], indirect=True)
def test_bars_fit_narrow_terminals(screen: Screen) -> None:
    with screen:
        fit(name="a sweep with a long name")
    bars = [line for line in lines(screen.text) if "%" in line]
    assert bars
    assert max(map(len, bars)) < screen.columns


@pytest.mark.parametrize("screen", [(80, "ascii")], indirect=True)
def test_terminals_without_signs_get_plain_ones(screen: Screen) -> None:
    with screen:
        fit(name="鉱物")
    text = screen.text
    assert text.isascii()
    assert "####" in text
    assert "----" in text
    assert "\\u" not in text


def test_names_steer_nothing(screen: Screen) -> None:
    with screen:
        fit(name="\x1b[2J\x1b]0;owned\x07[bold]red[/]\u202e")
    text = screen.text
    assert "\x1b[2J" not in text
    assert "\x1b]0;" not in text
    assert "[bo…" in text  # shown as it is
    assert "\u202e" not in text


def test_what_goes_into_a_file_stays_there(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "out.txt").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with screen, working("fit", n_blocks=2) as work:
            work.advance(blocks=1)
            boards.board._draw()
            print("a result")
            print("a warning", file=sys.stderr)
        assert sys.stdout is out
    assert (tmp_path / "out.txt").read_text() == "a result\n"
    text = screen.text
    assert "a result" not in text
    assert "a warning" in text


def test_two_at_a_time_share_the_foot(screen: Screen) -> None:
    with screen, working("first", n_blocks=2) as first:
        other = threading.Thread(target=fit)
        first.advance(blocks=1)
        boards.board._draw()
        other.start()
        other.join()
        boards.board._draw()
    left = [line for line in lines(screen.text) if line and "%" not in line]
    assert left[0].startswith("MiniBatchNMF: ")
    assert left[-1].startswith("first: 2 blocks")


def test_the_streams_are_given_back_when_work_fails(screen: Screen) -> None:
    def work() -> None:
        with working("fit", n_blocks=2):
            boards.board._draw()
            raise KeyboardInterrupt

    with screen, pytest.raises(KeyboardInterrupt):
        work()
    assert "stopped after" in screen.text
