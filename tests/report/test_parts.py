"""What the page is made of: texts, packed arrays, thinned maps, names of lines, the quality of a fit."""

from __future__ import annotations

import base64
import gzip
import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from emcube.recipe import run
from emcube.report.packing import LEVELS, axis_values, pack, plan_thinning, thin
from emcube.report.peaks import named_by, peaks_of
from emcube.report.quality import expected_misfit, quality_of, sum_residual
from emcube.report.references import references_of
from emcube.report.text import clean, count, number, percent, plural, shorten, with_unit
from emcube.results import Result
from tests.report.conftest import make_map


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """Do what the page's script does."""
    width = {"f4": 4, "u2": 2}[packed["dtype"]]
    planes = np.frombuffer(gzip.decompress(base64.b64decode(packed["data"])), np.uint8)
    raw = np.ascontiguousarray(planes.reshape(width, -1).T).view(f"<{packed['dtype']}").reshape(-1)
    if width == 4:
        return raw.reshape(packed["shape"])
    values = packed["low"] + packed["step"] * raw.astype(float)
    return np.where(raw == LEVELS + 1, np.nan, values).reshape(packed["shape"])


# ---------------------------------------------------------------------------------------------- texts


def test_texts_become_what_they_seem() -> None:
    assert clean("a\u202eb\x07\ud800\n\tß結") == "a\\u202eb\\u0007\\ud800\n\tß結"
    clean("\ud800").encode("utf-8")
    assert shorten("x" * 10_000, 20) == "x" * 19 + "…"
    assert shorten(" a \n b ") == "a b"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1234.5, "1,234"),
        (12.3456, "12.35"),
        (1e-9, "1.000e-09"),
        (True, "yes"),
        (7, "7"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_numbers_in_words() -> None:
    assert number(math.nan) == "none"
    assert count(2_473_638) == "2.47 million"
    assert [percent(0.361), percent(0.0014)] == ["36 %", "0.14 %"]
    assert [plural(1, "pass"), plural(2, "pass"), plural(2, "cluster")] == [
        "1 pass",
        "2 passes",
        "2 clusters",
    ]
    assert [with_unit(30.0, "deg"), with_unit(1.5, "um"), with_unit("a", "1")] == [
        "30°",
        "1.5 µm",
        "a",
    ]


# --------------------------------------------------------------------------------------------- arrays


def test_packed_numbers_come_back() -> None:
    values = np.array([[0.1, np.nan], [-3e7, 5.0]])
    np.testing.assert_array_equal(unpack(pack(values)), values.astype(np.float32))


def test_packed_maps_come_back_within_half_a_step() -> None:
    values = np.random.default_rng(0).normal(size=(3, 20, 30))
    values[0, :2] = np.nan
    packed = pack(values, "map")
    np.testing.assert_allclose(unpack(packed), values, atol=0.51 * packed["step"])
    assert packed == pack(values.copy(), "map")


@pytest.mark.parametrize("values", [np.full((2, 2), np.nan), np.full((2, 2), 7.5)])
def test_packed_maps_without_contrast(values: np.ndarray) -> None:
    np.testing.assert_array_equal(unpack(pack(values, "map")), values)


def test_packed_labels_come_back() -> None:
    labels = np.array([-1, 0, 5, 300])
    np.testing.assert_array_equal(unpack(pack(labels, "label")), labels)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"x": 10_000},
        {"y": 300, "x": 500},
        {"tilt": 73, "y": 124, "x": 165},
        {"time": 9, "tilt": 40, "y": 64, "x": 64},
    ],
)
@pytest.mark.parametrize("budget", [1_000, 200_000, 10**9])
def test_thinned_maps_keep_to_the_budget(sizes: dict[str, int], budget: int) -> None:
    plan = plan_thinning(sizes, 4, budget)
    shown = len(plan.frames) * math.prod(-(-sizes[d] // plan.factor) for d in plan.image)
    assert 4 * shown <= max(budget, 4 * len(plan.frames))
    assert list(plan.frames) == sorted(set(plan.frames))
    assert plan.frames[0] == 0
    assert (plan.note == "") == (plan.factor == 1 and len(plan.frames) == plan.n_frames)


def test_large_maps_are_means_of_pixels_that_have_values() -> None:
    values = np.arange(2 * 5 * 7, dtype=float).reshape(2, 5, 7, 1)
    values[1, :2, :2] = np.nan
    values[1, 2, 0] = np.nan
    maps = xr.DataArray(values, dims=("tilt", "y", "x", "component")).chunk(tilt=1, y=2)
    plan = plan_thinning({"tilt": 2, "y": 5, "x": 7}, 1, 20)
    assert (plan.factor, plan.frames) == (3, (0, 1)) or plan.factor == 2
    seen = thin(maps, plan)
    f = plan.factor
    assert seen.shape == (2, -(-5 // f), -(-7 // f), 1)
    assert seen[0, 0, 0, 0] == pytest.approx(values[0, :f, :f].mean())
    assert seen[0, -1, -1, 0] == pytest.approx(
        values[0, 5 - (5 % f or f) :, 7 - (7 % f or f) :].mean()
    )
    first = values[1, :f, :f]
    assert (
        np.isnan(seen[1, 0, 0, 0])
        if np.isnan(first).all()
        else seen[1, 0, 0, 0] == np.nanmean(first)
    )
    assert len(axis_values(maps, "x", f)) == seen.shape[2]


@pytest.mark.parametrize("n", range(1, 12))
def test_labels_are_picked_and_as_many_as_means(n: int) -> None:
    labels = xr.DataArray(np.arange(n), dims=("x",))
    plan = plan_thinning({"x": n}, 1, 3)
    seen = thin(labels, plan, "nearest")[0]
    assert set(seen) <= set(range(n))
    assert seen.shape == thin(labels.astype(float), plan)[0].shape


# -------------------------------------------------------------------------------------------- spectra


def test_names_come_from_peaks_that_are_there() -> None:
    energy = np.linspace(0.5, 9.0, 400)
    spectrum = np.exp(-0.5 * ((energy - 5.412) / 0.06) ** 2)
    known = {"elements": ["Cr"], "modality": "EDS"}
    found = peaks_of(energy, "keV", spectrum, known)
    assert named_by(found, energy, spectrum, None) == "Cr Kα"
    assert peaks_of(energy * 1000, "eV", spectrum, known)[0].x == pytest.approx(5411, abs=5)
    # Another element's peak is the highest: the component is not named after the lesser one,
    nickel = np.exp(-0.5 * ((energy - 7.474) / 0.06) ** 2)
    both = spectrum + 4 * nickel
    found = peaks_of(energy, "keV", both, known)
    assert [peak.text for peak in found] == ["Cr Kα"]
    assert named_by(found, energy, both, None) == ""
    # unless all the others have that peak as well.
    assert named_by(found, energy, both, nickel) == "Cr Kα"
    assert named_by([], energy, both, nickel) == ""
    for unit, metadata in (
        ("nm", known),
        ("<b>", known),
        ("keV", {}),
        ("keV", {"elements": ["Cr"], "detector": {"energy_resolution_eV": 1.0}}),
    ):
        assert peaks_of(energy, unit, spectrum, metadata) == []


# -------------------------------------------------------------------------------------------- quality


@pytest.mark.parametrize("mu", [0.003, 0.05, 0.7, 5.0, 49.0, 51.0, 400.0])
def test_expected_misfit_is_that_of_drawn_counts(mu: float) -> None:
    x = np.random.default_rng(0).poisson(mu, 400_000).astype(float)
    d = np.where(x > 0, x * np.log(np.maximum(x, 1) / mu), 0.0) - x + mu
    (mean,), (variance,) = expected_misfit(np.array([mu]))
    assert d.mean() == pytest.approx(mean, abs=5 * d.std() / math.sqrt(x.size) + 1e-12)
    assert d.var() == pytest.approx(variance, rel=0.1)


def test_expected_misfit_of_nothing_is_nothing() -> None:
    assert [float(v[0]) for v in expected_misfit(np.zeros(1))] == [0.0, 0.0]


def test_a_right_model_leaves_noise_and_a_short_one_more(result: Result, tmp_path: Path) -> None:
    right = quality_of(result, "nmf")
    assert right is not None
    assert right.is_noise
    assert right.ratio == pytest.approx(1.0, abs=0.05)
    recipe = {"emcube": 1, "steps": [{"nmf": {"n_components": 2, "random_state": 0}}]}
    short = quality_of(run(recipe, make_map(), out=tmp_path / "short"), "nmf")
    assert short is not None
    assert short.ratio > 1.5
    assert not short.is_noise


def test_quality_sampled_is_close_to_that_of_all(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quality_of(result, "nmf")
    monkeypatch.setattr(importlib.import_module("emcube.report.quality"), "SAMPLE", 100)
    part = quality_of(result, "nmf")
    assert whole is not None
    assert part is not None
    assert (whole.sampled, part.sampled) == (False, True)
    assert part.expected == pytest.approx(whole.expected, rel=0.1)


def test_sum_of_the_model_is_that_of_the_data(result: Result) -> None:
    found = sum_residual(result, "nmf")
    assert found is not None
    assert found["share"] == pytest.approx(1.0, abs=1e-3)
    assert found["scatter"] < 1.5
    assert sum_residual(result, "pca") is None


def test_methods_are_cited_once(result: Result) -> None:
    found = references_of(result)
    assert len(found) == len(set(found))
    assert {"10.1137/21M1456807", "10.1002/sia.1657", "10.1038/44565"} <= {r.doi for r in found}
