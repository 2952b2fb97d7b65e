"""How sure, and what is left, on real maps: numbers that hold together, figures and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emcube as em
from emcube.report.build import page_of

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def particle(data_dir: Path) -> Any:
    """The middle of the particle: carbon, iron oxide and the core, at 200 counts a pixel."""
    cube = em.open(data_dir / "eds_tem_fept/core_shell.hspy")
    return cube.isel(y=slice(16, 48), x=slice(16, 48)).em.bin(energy=4).compute()


@pytest.fixture(scope="module")
def result(particle: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    steps: list[dict[str, Any]] = [
        {"nmf": {"n_components": 3, "random_state": 0}},
        {"uncertainty": {"name": "fisher", "method": "fisher"}},
        {"uncertainty": {"name": "again", "method": "bootstrap", "n_replicates": 4}},
        {"diagnostics": {"lines": ["Fe_Ka", "Pt_La", "Cu_Ka"]}},
    ]
    return em.run({"steps": steps}, particle, out=tmp_path_factory.mktemp("sure") / "r")


@pytest.mark.parametrize("step", ["fisher", "again"])
def test_intervals_hold_the_answer_and_ranges_hold_the_intervals(result: Any, step: str) -> None:
    node, loadings = result[step].load(), result["nmf"].loadings.load()
    low, high = (node.loadings_interval.isel(bound=i) for i in (0, 1))
    assert bool(((low <= loadings) & (loadings <= high)).all())
    assert bool((node.loadings_rotation_range.isel(bound=0) <= low + 1e-9).all())
    assert bool((node.loadings_rotation_range.isel(bound=1) >= high - 1e-9).all())
    assert float(node.rotation_range.max()) <= 1.0
    # Counting of a pixel is about the root of its counts.
    counting = node.loadings_std_counting.sum("component") / np.sqrt(
        result["input"].total_counts.load()
    )
    assert 0.8 < float(counting.median()) < 4.0


def test_refits_are_less_sure_than_counting_with_loadings_known(result: Any) -> None:
    fisher, again = (result[step].loadings_std_shared.load() for step in ("fisher", "again"))
    assert float(again.median()) > float(fisher.median()) > 0.0


def test_what_is_left_of_the_particle_is_counting_noise(result: Any) -> None:
    node = result["diagnostics"]
    assert 0.95 < node.attrs["chi_square_mean"] < 1.1
    assert node.attrs["denoised_over_counting"] == pytest.approx(
        node.attrs["theory_over_counting"], rel=0.25
    )
    # Three principal components keep the lines of three phases.
    beyond = np.abs(node.line_bias) > 0.02 + 4 * node.line_bias_error
    assert not beyond.any()


def test_errors_fall_with_counts(particle: Any) -> None:
    model = em.MiniBatchNMF(3, random_state=0).fit(particle)
    found = em.errors_by_counts(model, particle, shares=(0.5, 0.125), n_pairs=2)
    half, eighth = found.angle.values[:2]
    # Four times fewer counts are twice the error, give or take what four fits scatter.
    assert 1.4 < float(np.sqrt((eighth**2).mean() / (half**2).mean())) < 3.0
    assert em.plot.errors_by_counts(found).axes


def test_figures_and_page(result: Any) -> None:
    assert len(result.plot_bands("again").axes) == 3
    # Chi-square with its bar, correlations, variances, lines.
    assert len(result.plot_diagnostics().axes) == 4
    page = page_of(result)
    for text in ("Lines before and after denoising", "Pt Lα", "How sure the components are"):
        assert text in page


def test_the_zero_peak_of_a_detector_is_found(data_dir: Path) -> None:
    """The strobe peak of this map beats with the scan: its counts alternate from pixel to pixel."""
    cube = em.open(data_dir / "eds_sem_dacite_P45/P45_the_default_job.bcf")
    cube = cube.isel(y=slice(24, 64), x=slice(0, 60)).em.bin(energy=8).compute()
    model = em.MiniBatchNMF(2, random_state=0).fit(cube)
    said = " ".join(em.diagnostics(model, cube).attrs["said"])
    assert "pixels 2 apart along x is alike" in said
    without = cube.where(cube.energy > 0.15, drop=True).astype(cube.dtype)
    model = em.MiniBatchNMF(2, random_state=0).fit(without)
    left = em.diagnostics(model, without)
    assert not any("apart" in text for text in left.attrs["said"])
