"""The code of docs/performance.md runs, and what it says of shared work holds."""

from __future__ import annotations

from pathlib import Path

import emcube as em
from emcube.engine import listen

TEXT = Path(__file__).parents[2] / "docs" / "performance.md"


def test_the_code_runs_and_reads_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    em.ingest(em.scenes.srm2135c(scale=0.02, random_state=0).cube, "map.zarr")
    (code,) = [part.split("```")[0] for part in TEXT.read_text().split("```python\n")[1:]]
    names: dict = {}
    events: list = []
    with listen(events.append):
        exec(code, names)
    assert names["found"].n_components == 3
    sums = [e.name for e in events if e.kind == "start"]
    # Neither PCA nor NMF sums what the other has summed.
    assert sums.count("PCA") == 1
    assert "NMF (subspace)" not in sums
    alone = em.MiniBatchNMF(3, random_state=0).fit(names["cube"])
    assert (alone.components_.values == names["nmf"].components_.values).all()
