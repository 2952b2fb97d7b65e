"""Studies with the truth known: each runs on next to nothing, and writes what it promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    bayes,
    calibration,
    fields,
    geometry,
    nmf_variants,
    uncertainty_cost,
    variants_truth,
)
from benchmarks.coverage import MET, study


def test_calibration_goes_on_and_tells_by_stratum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "calibration.json"
    some = ["--methods", "fisher", "--scenes", "stripes", "--counts", "60", "--tuning"]
    some += ["--folder", str(tmp_path), "--results", str(results)]
    calibration.main(["--realisations", "1", *some])
    assert "| fisher | stripes | 60 | interior of phases |" in capsys.readouterr().out
    (kept,) = (tmp_path / "tuning").glob("*.jsonl")
    before = kept.read_text()
    calibration.main(["--realisations", "2", *some])
    assert kept.read_text().startswith(before)
    assert len(kept.read_text().splitlines()) == 2
    assert not results.exists()


def test_coverage_of_posteriors_is_told_with_the_chains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = ["coverage", "--scenes", "stripes", "--counts", "300", "--folder", str(tmp_path)]
    before = bayes.RESULTS.read_bytes()
    bayes.main([*some, "--realisations", "1", "--first-seed", "700"])
    told = capsys.readouterr().out
    assert "| posterior | stripes | 300 | components |" in told
    assert bayes.MET_HEAD in told
    # A part of the study leaves the page as it is.
    assert bayes.RESULTS.read_bytes() == before
    found = study(
        bayes.by_posterior, "stripes", 300.0, [700, 701], file=tmp_path / "stripes-300.jsonl",
        known_only=True,
    )  # fmt: skip
    assert len(found.tallies) == 1
    assert found.tallies[0][MET][1] == 1
    assert bayes.apart(found, mine=1 - found.tallies[0][MET][0]) == ""
    # Other settings are remembered apart, and are no part of the page.
    bayes.main([*some, "--realisations", "1", "--first-seed", "700", "--set", "n_draws=4"])
    (other,) = tmp_path.glob("n_draws=4-*.jsonl")
    assert json.loads(other.read_text())["strata"] != found.tallies[0]


def test_cost_of_uncertainty_is_told_in_fits(scene: Path, tmp_path: Path) -> None:
    results = tmp_path / "cost.json"
    uncertainty_cost.main([str(scene / "counts.zarr"), "2", "--results", str(results)])
    found = json.loads(results.read_text())
    for name in ("fit", *uncertainty_cost.METHODS):
        assert found[name]["fits"] > 0.0, name
        assert found[name]["fits_with_maps"] > 0.0, name
    assert found["fit"]["fits"] == 1.0


def test_fields_of_specimens_are_told_in_tables(tmp_path: Path) -> None:
    out = tmp_path / "fields.md"
    fields.main(["--specimens", "2", "--out", str(out)])
    text = out.read_text()
    for words in ("Finite area", "Counting", "Intervals and fields that differ"):
        assert f"## {words}" in text
    assert text.count("\n|---") == 3


def test_variants_are_held_against_the_truth(tmp_path: Path) -> None:
    results = tmp_path / "variants.json"
    variants_truth.main(["--seeds", "1", "--results", str(results)])
    found = json.loads(results.read_text())
    assert len(found) == 5
    for case, models in found.items():
        assert "plain" in models, case
        assert len(models) > 1, case
        for value in models.values():
            assert 0.0 < value["angle_deg"] < 60.0
            assert 0.0 < value["map_error"] < 2.0


def test_one_objective_judges_both_factorisations() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (6, 5)).astype(float)
    loadings, spectra = rng.gamma(2.0, size=(6, 2)), rng.dirichlet(np.ones(5), 2)
    wanted = 0.0
    for p in range(6):
        for e in range(5):
            mu = sum(loadings[p, k] * spectra[k, e] for k in range(2))
            x = counts[p, e]
            wanted += mu - x + (x * np.log(x / mu) if x else 0.0)
    for y in range(2):
        for x in range(3):
            here = loadings[3 * y + x]
            for other in ([3 * y + x + 1] if x < 2 else []) + ([3 * y + x + 3] if y < 1 else []):
                wanted += 0.5 * 0.7 * float(np.square(here - loadings[other]).sum())
    assert nmf_variants.objective(counts, loadings, spectra, 0.7, (2, 3)) == pytest.approx(wanted)
    # Whatever scale the factors of a program have.
    scales = np.array([2.0, 0.25])
    found, shapes, sizes = nmf_variants.judged(
        counts, loadings / scales, spectra * scales[:, None], None, 0.7, (2, 3)
    )
    assert found == pytest.approx(wanted)
    np.testing.assert_allclose(shapes, spectra)
    np.testing.assert_allclose(sizes, loadings)


def test_endmembers_and_ranges_are_held_against_the_truth() -> None:
    found = geometry.measured(lambda seed: geometry.mixtures(seed, k=3, cap=0.9, counts=500.0), 0)
    for name in ("VCA", "NFINDR", "SISAL"):
        angle, limit = found[name]
        assert 0.0 < angle < 30.0
        assert limit >= 2.0
    for name in ("held", "uncertainty held", "rotation held"):
        assert 0.5 < found[name][0] <= 1.0
