"""The code of docs/catalogs.md runs, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "catalogs.md"


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    text = PAGE.read_text(encoding="utf-8")
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        exec(compile(code, PAGE.name, "exec"), names)
    assert names["names"] == ["map"]
    assert names["facets"]["modality"] == {"EDS": 1}
    assert names["cube"].shape == names["tilted"].shape == (4, 5, 6)


def test_links_and_verbs_of_the_page_are_there() -> None:
    from emcube.cli.catalog import app

    text = PAGE.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.startswith("https://") or (PAGE.parent / target).exists(), target
    verbs = {command.name for command in app.registered_commands}
    assert set(re.findall(r"^emcube catalog (\w+)", text, re.MULTILINE)) == verbs
