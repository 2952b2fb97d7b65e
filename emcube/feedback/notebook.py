"""A bar in a notebook: HTML that is replaced as work goes on. No widget, no script, no style sheet.

Colours are the page's own text colour, so that bars fit light and dark themes.
"""

from __future__ import annotations

import html
import uuid
from typing import Any

from emcube.feedback.words import Glyphs, Line, fit

__all__ = ["Notebook", "closing_html", "lines_html"]

_ROW = (
    "display:flex;flex-wrap:wrap;align-items:center;gap:0 .9em;line-height:1.7;font-size:.92em;"
    "overflow-wrap:anywhere"
)
_TRACK = (
    "display:inline-block;width:14em;height:.6em;border-radius:.3em;overflow:hidden;"
    "background:rgba(128,128,128,.25)"
)
_FIELD = "opacity:.8;font-variant-numeric:tabular-nums"
_LAST = "overflow-wrap:anywhere;font-size:.92em;line-height:1.7;opacity:.85;font-variant-numeric:tabular-nums"
_FULL = "#2f8fc4"
_WRONG = "#b8860b"


def lines_html(lines: list[Line]) -> str:
    """Lines as HTML; every text is escaped."""
    return f'<div class="emcube-progress">{"".join(map(_row, lines))}</div>'


def _row(line: Line) -> str:
    parts = [f'<b style="font-weight:600">{html.escape(line.name)}</b>']
    if line.share is not None:
        done = 100 * min(max(line.share, 0.0), 1.0)
        full = f"display:block;height:100%;width:{done:.1f}%;background:{_FULL}"
        parts.append(
            f'<span role="progressbar" aria-valuenow="{done:.0f}" aria-valuemin="0" aria-valuemax="100" '
            f'aria-label="{html.escape(line.name)}" style="{_TRACK}"><span style="{full}"></span></span>'
        )
        parts.append(f'<span style="{_FIELD}">{done:.0f} %</span>')
    parts += [f'<span style="{_FIELD}">{html.escape(text)}</span>' for _, text in line.fields]
    return f'<div style="{_ROW}">{"".join(parts)}</div>'


def closing_html(last: str, *, failed: bool) -> str:
    """The one line that stays."""
    mark = f";border-left:.25em solid {_WRONG};padding-left:.6em" if failed else ""
    return f'<div class="emcube-progress" style="{_LAST}{mark}">{html.escape(last)}</div>'


class Notebook:
    """One output of a cell."""

    def __init__(self) -> None:
        self._name = f"emcube-{uuid.uuid4().hex}"
        self._there = False

    def draw(self, lines: list[Line]) -> None:
        """Show these lines in place of those before."""
        text = "\n".join("".join(p.text for p in fit(line, 79, Glyphs())) for line in lines)
        self._publish(lines_html(lines), text)

    def close(self, last: str, *, failed: bool) -> None:
        """Leave one line."""
        self._publish(closing_html(last, failed=failed), last)

    def _publish(self, page: str, text: str) -> None:
        from IPython.display import publish_display_data

        data: dict[str, Any] = {"text/html": page, "text/plain": text}
        publish_display_data(
            data,
            transient={"display_id": self._name},
            update=self._there,
        )
        self._there = True
