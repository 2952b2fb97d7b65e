"""docs/figures.md: its code runs, its pictures are there, and its table names what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import emcube as em
from emcube import plot
from emcube.models.figures import ClusterFigures, ComponentFigures
from emcube.models.matching import Comparison
from emcube.results import Result

PAGE = Path(__file__).parents[2] / "docs" / "figures.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        exec(compile(code, PAGE.name, "exec"), names)
    assert names["result"]["nmf"].sizes["component"] == 3
    assert (tmp_path / "scree.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "maps" / "nmf-loadings.tif").is_file()
    assert (tmp_path / "spectra" / "nmf-components.csv").is_file()


def test_its_pictures_and_commands_exist() -> None:
    pictures = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", TEXT)
    assert len(pictures) >= 9
    for said, target in pictures:
        assert len(said) > 15  # for those who do not see it
        assert (PAGE.parent / target).read_bytes().startswith(b"\x89PNG")
        assert (PAGE.parent / target).stat().st_size < 400_000
    assert re.findall(r"^    (emcube .*)$", TEXT, re.MULTILINE) == [
        "emcube demo",
        "emcube demo --scene jadeite",
    ]


def test_its_table_names_every_figure() -> None:
    table = "\n".join(line for line in TEXT.splitlines() if line.startswith("|"))
    methods = set(re.findall(r"plot_\w+", table))
    owners = (Result, em.IncrementalPCA, ComponentFigures, ClusterFigures, Comparison)
    for name in methods:
        assert any(hasattr(owner, name) for owner in owners), name
    assert methods >= {n for owner in owners for n in dir(owner) if n.startswith("plot_")}
    assert set(plot.__all__) - {"cube_overview"} <= set(re.findall(r"\w+", table))
