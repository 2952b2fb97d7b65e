"""The benchmark of single steps on a tiny scene."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.floors import FULL, STEPS, TARGETS, main


def test_floors_are_sums_of_steps_beside_what_is_asked_for(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "floors.json"
    main([str(scene / "counts.zarr"), "--repeat", "1", "--results", str(results)])
    found = json.loads(results.read_text())
    assert set(found["steps"]) == set(STEPS)
    assert min(found["steps"].values()) > 0.0
    assert len(found["targets"]) == len(TARGETS)
    peers = json.loads(FULL.read_text())["methods"]
    for one, (_, peer, factor, steps) in zip(found["targets"], TARGETS, strict=True):
        assert one["asked_seconds"] == pytest.approx(peers[peer]["seconds"] / factor, abs=1e-3)
        assert one["floor_seconds"] == pytest.approx(
            sum(found["steps"][name] for name in steps), abs=1e-3
        )
    assert found["memory_of_imports"] > 50e6
    text = results.with_suffix(".md").read_text()
    assert text in capsys.readouterr().out
    assert all(words in text for words in STEPS.values())
