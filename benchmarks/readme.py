"""Put a table between two markers of a Markdown file."""

from __future__ import annotations

from pathlib import Path

BEGIN = "<!-- comparison: written by `python -m benchmarks table --write README.md` -->"
END = "<!-- end of comparison -->"


def write_table(path: Path, table: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace what stands between the markers.

    Raises
    ------
    ValueError
        The file does not hold each marker once.
    """
    text = path.read_text(encoding="utf-8")
    path.write_text(with_table(text, table, begin, end), encoding="utf-8")


def with_table(text: str, table: str, begin: str = BEGIN, end: str = END) -> str:
    """Return the text with the table between its markers."""
    for marker in (begin, end):
        if text.count(marker) != 1:
            raise ValueError(
                f"expected the line {marker!r} once, found it {text.count(marker)} times"
            )
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{table}\n{end}{after}"
