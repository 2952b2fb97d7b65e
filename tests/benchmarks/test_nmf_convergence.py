"""The benchmark of NMF's convergence on a tiny scene."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from benchmarks.nmf_convergence import main, measure


def test_every_way_goes_down_to_one_objective(scene: Path) -> None:
    found = measure(scene / "counts.zarr", 3, n_passes=12)
    assert found["gain"] > 0
    assert list(found["ways"]) == ["plain EM", "over-relaxed EM", "quasi-Newton"]
    firsts = []
    for way in found["ways"].values():
        excess, seconds = way["excess"], way["cpu_seconds"]
        assert 1 <= len(excess) == len(seconds) <= 12
        assert all(a >= b for a, b in itertools.pairwise(excess))
        assert all(a <= b for a, b in itertools.pairwise(seconds))
        assert min(excess) >= 0.0
        firsts.append(excess[:2])
    # One start, and the plain step first: whatever comes after is the way's own.
    assert firsts[1] == pytest.approx(firsts[0])
    assert firsts[2] == pytest.approx(firsts[0])
    lasts = [way["excess"][-1] for way in found["ways"].values()]
    assert lasts[2] < lasts[0]


def test_it_prints_tables_and_figures(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(scene / "counts.zarr"), "2", "--passes", "3"])
    assert "passes to 1%" in capsys.readouterr().out
    main([str(scene / "counts.zarr"), "2", "--passes", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["n_components"] == 2
