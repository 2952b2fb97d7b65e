"""Lines at the foot of a terminal, which go when the work is done."""

from __future__ import annotations

import sys
from functools import lru_cache

from rich.console import Console
from rich.live import Live
from rich.text import Text

from emcube.feedback.setting import is_terminal
from emcube.feedback.words import Line, fit, glyphs_for

__all__ = ["Terminal", "terminal"]

_STYLES = {"name": "bold", "full": "cyan", "rest": "bright_black", "share": "", "field": ""}


class _Console(Console):
    """A console that never hides the cursor: a process that is killed could not bring it back."""

    def show_cursor(self, show: bool = True) -> bool:
        """Leave it."""
        return False


class Terminal:
    """The foot of the terminal, shared by all that is going on at a time."""

    def __init__(self) -> None:
        self.console = _Console(stderr=True, highlight=False, soft_wrap=False)
        self._live: Live | None = None
        self._lines: dict[int, list[Line]] = {}
        self._number = 0

    def share(self) -> _Part:
        """A part of it, for one piece of work."""
        self._number += 1
        return _Part(self, self._number)

    def draw(self, number: int, lines: list[Line]) -> None:
        """Show the lines of one piece of work beside those of others."""
        self._lines[number] = lines
        if self._live is None:
            self._live = Live(
                console=self.console,
                auto_refresh=False,
                transient=True,
                # What goes into a file must not end up here.
                redirect_stdout=is_terminal(sys.stdout),
                redirect_stderr=True,
            )
            self._live.start()
        self._live.update(self._text(), refresh=True)

    def close(self, number: int, last: str, *, failed: bool) -> None:
        """Take the lines of one piece of work away, and leave its last words above the others."""
        self._lines.pop(number, None)
        live = self._live
        if live is not None and self._lines:
            live.update(self._text(), refresh=True)
        elif live is not None:
            self._live = None
            live.stop()
        self.console.print(
            Text(_encodable(last, self._encoding()), style="yellow" if failed else ""),
            soft_wrap=True,
        )

    def _encoding(self) -> str:
        return getattr(self.console.file, "encoding", None) or "ascii"

    def _text(self) -> Text:
        encoding = self._encoding()
        width, glyphs = max(1, self.console.width - 1), glyphs_for(encoding)
        rows = []
        for line in [line for lines in self._lines.values() for line in lines]:
            row = Text(no_wrap=True, overflow="crop")
            for piece in fit(line, width, glyphs):
                row.append(_encodable(piece.text, encoding), style=_STYLES[piece.kind])
            row.truncate(width)
            rows.append(row)
        return Text("\n", no_wrap=True, overflow="crop").join(rows)


class _Part:
    """The lines of one piece of work."""

    def __init__(self, whole: Terminal, number: int) -> None:
        self._whole, self._number = whole, number

    def draw(self, lines: list[Line]) -> None:
        """Show these lines."""
        self._whole.draw(self._number, lines)

    def close(self, last: str, *, failed: bool) -> None:
        """Take them away, and leave one."""
        self._whole.close(self._number, last, failed=failed)


def _encodable(text: str, encoding: str) -> str:
    """Names in signs that the terminal has."""
    return text.encode(encoding, "replace").decode(encoding)


@lru_cache(maxsize=1)
def terminal() -> Terminal:
    """The terminal of this process."""
    return Terminal()
