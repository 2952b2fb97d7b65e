"""The page's code runs as it stands, and it names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import emcube as em
from emcube.interop.exporting import SUFFIXES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "interoperability.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_exports_run(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[0], "interoperability.md", "exec"), {})
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {
        "map.hspy",
        "map.nxs",
        "spectra-nmf-0.msa",
        "spectra-pca-4.msa",
        "maps-nmf-loadings.tif",
    }
    assert "spectra only" in capsys.readouterr().out


def test_the_notebook_runs(both, tmp_path: Path, cube) -> None:
    em.export(cube, tmp_path / "map.hspy")
    code = f"import json, os\nos.chdir({str(tmp_path)!r})\n{BLOCKS[1]}"
    code += "\nprint(json.dumps([list(loadings.data.shape), list(model.data.shape)]))"
    assert both(code) == [[3, 12, 14], [12, 14, 40]]


def test_every_format_has_its_words() -> None:
    for suffix in SUFFIXES.keys() - {".nexus", ".tiff"}:
        assert f"{suffix}" in PAGE
    for name in ("export", "from_hyperspy", "decompose"):
        assert f"em.{name}(" in PAGE
