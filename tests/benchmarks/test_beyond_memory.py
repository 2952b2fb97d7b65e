"""The benchmark beyond memory at a tiny scale: the whole way, within its projection, and right."""

from __future__ import annotations

import json

from benchmarks import beyond_memory


def test_a_small_scene_within_a_small_budget(tmp_path, monkeypatch, capsys):
    arguments = ["--scale", "0.05", "--budget", "260MiB", "--folder", str(tmp_path)]
    monkeypatch.setenv("EMCUBE_THREADS", "1")
    beyond_memory.main(arguments)
    found = json.loads(capsys.readouterr().out)
    assert found["n_components"] == 3
    assert max(found["angles_deg"]) < 3
    assert found["cells"] > 5e7
    assert found["simulate"]["seconds"] > 0
    assert 0.5 < found["projected_over_peak"] < 1.6
    assert found["projected_bytes"] <= found["largest_projected_bytes"]
    text = beyond_memory.markdown(found)
    assert "3 found" in text
    assert len(text.splitlines()) == 11
