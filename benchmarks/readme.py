"""Put a table between two markers of a Markdown file."""

from __future__ import annotations

from pathlib import Path

BEGIN = "<!-- comparison: written by `python -m benchmarks table --write README.md` -->"
END = "<!-- end of comparison -->"


def write_table(path: Path, table: str) -> None:
    """Replace what stands between the markers.

    Raises
    ------
    ValueError
        The file does not hold each marker once.
    """
    text = path.read_text(encoding="utf-8")
    path.write_text(with_table(text, table), encoding="utf-8")


def with_table(text: str, table: str) -> str:
    """Return the text with the table between its markers."""
    for marker in (BEGIN, END):
        if text.count(marker) != 1:
            raise ValueError(
                f"expected the line {marker!r} once, found it {text.count(marker)} times"
            )
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"
