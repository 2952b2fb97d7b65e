"""Every method is measured and judged; tables say what was measured; truth and peers are what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import every_method, peers, truth
from benchmarks.environments import Unavailable
from benchmarks.every_method import WAYS, Way, checks, markdown, one, table
from benchmarks.readme import with_table


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_method_is_measured_and_judged(way: Way, scene: Path) -> None:
    found = one(way, scene, scene, threads=1, repeats=1)
    assert found["seconds"]["fit"] > 0
    assert found["passes"] == pytest.approx(
        found["seconds"]["fit"] / np.median(found["bare_reads"]), rel=0.01
    )
    assert found["passes_with_pixels"] >= found["passes"]
    assert found["peak_bytes"] > 50e6
    assert found["model"]
    assert {"angles_deg", "rand", "n_components", "nmf_seconds"} & set(found) or way.name in (
        "cluster-quality",
        "diagnostics",
    )


def measured(name: str, **more: object) -> dict:
    row = {
        "measured": "2026-01-01 10:00",
        "load": 0.5,
        "seconds": {"fit": 2.0, "pixels": 1.0},
        "fits": [2.0],
        "bare_reads": [0.1, 0.1],
        "passes": 20.0,
        "passes_with_pixels": 30.0,
        "peak_bytes": 10**9,
        "model": f"{name}()",
    }
    return row | more


@pytest.fixture
def found() -> dict:
    return {
        "scene": {
            "shape": [4, 5, 6],
            "counts_per_pixel": 100.0,
            "pure_pixels": 0.01,
            "n_components": 5,
        },
        "machine": {"cores": 2, "processor": "a processor"},
        "options": {"threads": 2, "repeats": 1},
        "ways": {
            "ica": measured("ica", angles_deg=[1.0, 4.0]),
            "mcr": measured("mcr", angles_deg=[1.0], passes=21.0),
            "kmeans": measured("kmeans", rand=0.5),
            "vca": {"measured": "2026-01-01 10:00", "load": 0.5, "failed": "does not run: why"},
            "uncertainty": measured("uncertainty", nmf_seconds=0.1),
        },
    }


def test_what_is_missed_is_said(found: dict) -> None:
    text = table(found)
    assert "| 20.0 |" in text
    assert "| **21.0** |" in text
    assert "does not run: why" in text
    assert "4.0° worst" in text
    held = {what: holds for what, _, _, holds in checks(found)}
    assert held["`MCRALS`: bare read passes"] is False
    assert held["`KMeans`: bare read passes"] is True
    assert held["`uncertainty`, 20 bootstrap replicates: fits"] is False
    assert "**no**" in markdown(found)


def test_the_page_has_a_place_for_the_table() -> None:
    text = every_method.PAGE.read_text(encoding="utf-8")
    new = with_table(text, "| x |", every_method.BEGIN_TABLE, every_method.END_TABLE)
    assert "| x |" in new


def test_the_page_says_what_was_measured() -> None:
    figures = json.loads(every_method.RESULTS.read_text())
    text = every_method.PAGE.read_text(encoding="utf-8")
    assert (
        with_table(text, table(figures), every_method.BEGIN_TABLE, every_method.END_TABLE) == text
    )
    assert every_method.RESULTS.with_suffix(".md").read_text() == markdown(figures)
    assert set(figures["ways"]) <= {way.name for way in WAYS}
    assert len(figures["ways"]) >= 10


def test_a_run_measures_in_a_process_and_keeps_other_figures(tmp_path: Path) -> None:
    results = tmp_path / "methods.json"
    said: list[str] = []
    asked = {"scale": 0.002, "threads": 1, "repeats": 1, "say": said.append}
    first = every_method.run(tmp_path, results, only=("pca",), **asked)
    assert set(first["ways"]) == {"pca"}
    assert first["ways"]["pca"]["passes"] > 0
    kept = json.loads(results.read_text())
    kept["ways"]["vca"] = measured("vca")
    results.write_text(json.dumps(kept))
    again = every_method.run(tmp_path, results, only=("estimate",), **asked)
    assert set(again["ways"]) == {"pca", "vca", "estimate"}


# ------------------------------------------------------------------------------------ truth and peers


def test_claims_are_judged() -> None:
    claims = tuple(
        replace(claim, scales=(0.02,)) for claim in truth.CLAIMS if claim.scene == "srm2135c"
    )
    found = truth.measure(claims=claims, seeds=1, say=lambda text: None)
    assert {row["method"] for row in found["rows"]} == {c.title for c in claims}
    for row in found["rows"]:
        held = all(a <= b for a, b in zip(row["angles_deg"], row["allowed_deg"], strict=True))
        assert held == row["holds"]
        assert max(row["angles_deg"]) < 20.0
    text = truth.markdown(found)
    assert text.count("| srm2135c |") == len(claims)


@pytest.mark.realdata
def test_samson_is_judged(data_dir: Path) -> None:
    rows = truth.samson(data_dir, 0)
    assert {row["method"] for row in rows} == {"VCA", "NFINDR", "MCRALS", "MiniBatchNMF"}
    assert all(row["water_rad"] > 0 for row in rows)


def test_scikit_learn_finds_the_same() -> None:
    found = peers.measure(scale=0.005, peers=("scikit-learn",), say=lambda text: None)
    assert len(found["rows"]) == 7
    assert all(row["holds"] for row in found["rows"]), found["rows"]
    assert "scikit-learn" in peers.markdown(found)


def test_a_peer_that_does_not_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(peer: str, say: object) -> str:
        raise Unavailable("does not install: no network")

    monkeypatch.setattr(peers, "python_of", missing)
    found = peers.measure(scale=0.005, peers=("pyMCR",), say=lambda text: None)
    assert found["failed"] == {"pyMCR": "does not install: no network"}
    assert "pyMCR does not install" in peers.markdown(found)


def test_answers_of_other_peers_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each peer gave back what it was asked to start from: they differ, and that is said."""

    def ask(peer: str, problem: dict, say: object) -> dict:
        rounds = int(problem["rounds"])
        return {
            "components": problem["first"],
            "errors": np.linspace(2.0, 1.0, 2 * rounds),
            "seconds": np.float64(1.0),
        }

    monkeypatch.setattr(peers, "ask", ask)
    found = peers.measure(scale=0.005, peers=("pyMCR", "espm"), say=lambda text: None)
    by = {(row["peer"], row["figure"]): row for row in found["rows"]}
    assert not by["pyMCR", "lack of fit, relative"]["holds"]
    assert by["espm", "objective over theirs, share of the last component's gain"]["value"] < 0
