"""Links of the pages lead somewhere where the repository is read as it is; every block says what it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import DOCS, PYTHON, ROOT, SHELL, Block, anchors, blocks, links, pages

OTHERS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
MADE = DOCS / "reference" / "api"
OF_SPHINX = re.compile(r"\{eval-rst\}")


def every_block() -> list[Block]:
    return [b for page in pages() for b in blocks(page)]


@pytest.mark.parametrize("page", [*OTHERS, *pages()], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / unquote(path)).resolve() if path else page
        assert file.exists(), f"{target} leads nowhere"
        assert file.is_relative_to(ROOT), f"{target} leads out of the repository"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{target}: there is no such heading"


def test_pictures_say_what_they_show() -> None:
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for said, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text):
            assert len(said) > 15, f"{page.name}: {target} needs words for those who do not see it"


def test_every_block_names_its_language() -> None:
    known = (*PYTHON, *SHELL, "yaml", "toml", "text", "bibtex", "json")
    for block in every_block():
        assert block.language in known or OF_SPHINX.fullmatch(block.language), (
            f"{block.place}: {block.language!r}"
        )


def test_what_is_not_run_here_says_why_or_where() -> None:
    for block in every_block():
        if block.mark.startswith("run by "):
            test = ROOT / block.mark.removeprefix("run by ")
            assert test.is_file(), f"{block.place}: there is no {test}"
            assert block.page.name in test.read_text(encoding="utf-8"), (
                f"{block.place}: {test.name} does not read this page"
            )


def test_methods_pages_have_their_parts() -> None:
    """Each says what it assumes and when it misleads, and stands in the table of the index."""
    index = (DOCS / "methods" / "index.md").read_text(encoding="utf-8")
    for page in (DOCS / "methods").glob("*.md"):
        if page.name == "index.md":
            continue
        assert f"({page.name})" in index, f"docs/methods/index.md has no row for {page.name}"
        text = page.read_text(encoding="utf-8")
        for part in ("What it assumes|Assumptions", "misleads|fails?$", "References"):
            assert re.search(rf"^## .*({part})", text, re.MULTILINE), (
                f"{page.name}: there is no part {part!r}"
            )
        assert "https://doi.org/" in text
        assert any(b.language in PYTHON for b in blocks(page)), f"{page.name} shows no code"


def test_guides_are_listed() -> None:
    """A page beside the index stands in one of the tables."""
    lists = "".join((DOCS / name).read_text() for name in ("index.md", "how-to.md", "about.md"))
    for page in DOCS.glob("*.md"):
        if page.name not in ("index.md",):
            assert f"({page.name})" in lists, f"no table of docs/how-to.md names {page.name}"


def test_the_comparison_is_the_one_that_was_measured() -> None:
    from benchmarks.readme import with_table
    from benchmarks.report import RESULTS, readme

    page = (DOCS / "comparison.md").read_text(encoding="utf-8")
    table = readme(json.loads(RESULTS.read_text(encoding="utf-8")))
    assert with_table(page, table) == page, (
        "run `python -m benchmarks table --write README.md docs/comparison.md`"
    )


def test_what_is_made_is_not_kept() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert f"/{MADE.relative_to(ROOT).as_posix()}/" in ignored
