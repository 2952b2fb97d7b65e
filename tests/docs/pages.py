"""Pages of the documentation, and the code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCS", "ROOT", "Block", "anchors", "blocks", "links", "pages"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

PYTHON = ("python", "py")
SHELL = ("sh", "bash", "console")

_FENCE = re.compile(r"^```(.*)$")
_MARK = re.compile(r"^<!-- (not run: .+|run by tests/\S+\.py) -->$")
_LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block: where it stands, its language, its text, and what the comment before says of it."""

    page: Path
    line: int
    language: str
    text: str
    mark: str = ""

    @property
    def runs(self) -> bool:
        """Whether the tests of the pages run it."""
        return self.language in PYTHON + SHELL and not self.mark

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def pages() -> list[Path]:
    """Every page in Markdown under docs."""
    return sorted(p for p in DOCS.rglob("*.md") if not p.relative_to(DOCS).parts[0].startswith("_"))


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    mark, start, language, held = "", 0, None, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if fence and language is None:
            start, language, held = number, fence[1].strip(), []
        elif fence:
            yield Block(page, start, str(language), "\n".join(held) + "\n", mark)
            mark, language = "", None
        elif language is not None:
            held.append(line)
        elif line.strip():
            found = _MARK.match(line)
            mark = found[1] if found else ""
    assert language is None, f"{page}: the block of line {start} has no end"


def links(page: Path) -> Iterator[str]:
    """Yield the targets of links and pictures, outside of code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"`[^`\n]+`", "", text)
    yield from _LINK.findall(text)


def anchors(page: Path) -> set[str]:
    """Names of the headings, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        n = 1
        while slug in found:
            slug = f"{slug}-{n}"
            n += 1
        found.add(slug)
    return found
