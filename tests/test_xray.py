"""Line and edge energies against published values; which peaks are named."""

from __future__ import annotations

import numpy as np
import pytest

from emcube.errors import InputError
from emcube.xray import (
    edge_energy,
    edges_of,
    fwhm,
    label_peaks,
    line_energy,
    lines_of,
    pretty_line,
)

# keV, from the X-Ray Data Booklet (LBNL, 2009), table 1-2; means of Ka1 and Ka2 as 2:1.
PUBLISHED_LINES = {
    "C_Ka": 0.277,
    "O_Ka": 0.5249,
    "Na_Ka": 1.04098,
    "Al_Ka": 1.4866,
    "Si_Ka": 1.7398,
    "Ti_Ka": 4.5088,
    "Cr_Ka": 5.4117,
    "Mn_Ka": 5.8951,
    "Fe_Ka": 6.3996,
    "Fe_Kb": 7.058,
    "Ni_Ka": 7.4724,
    "Ni_La": 0.8515,
    "Cu_Ka": 8.0411,
    "Pt_La": 9.4423,
    "Pt_La1": 9.4423,
    "Pt_Lb1": 11.0707,
    "Pt_Ma": 2.0505,
    "Au_Ma": 2.1229,
    "Au_Lb2": 11.5847,
}
# eV, from the X-Ray Data Booklet, table 1-1; N and O, there of the gases, from the EELS Atlas.
PUBLISHED_EDGES = {
    "C_K": 284.2,
    "N_K": 401.0,
    "O_K": 532.0,
    "Si_L3": 99.42,
    "Si_L2,3": 99.42,
    "Si_K": 1839.0,
    "Fe_L3": 706.8,
    "Mn_L2": 649.9,
    "La_M4,5": 836.0,
}


@pytest.mark.parametrize("name", PUBLISHED_LINES)
def test_line_energies(name: str) -> None:
    # A line lies where a detector of 120 eV could not tell it from the published place.
    assert line_energy(name) == pytest.approx(PUBLISHED_LINES[name], abs=0.021)
    if name.endswith("_Ka"):
        assert line_energy(name) == pytest.approx(PUBLISHED_LINES[name], rel=1e-3)


@pytest.mark.parametrize("name", PUBLISHED_EDGES)
def test_edge_energies(name: str) -> None:
    assert edge_energy(name) == pytest.approx(PUBLISHED_EDGES[name], abs=1.5)


def test_group_is_the_weighted_mean() -> None:
    assert line_energy("Cu_Ka2") < line_energy("Cu_Ka") < line_energy("Cu_Ka1")
    third = (2 * line_energy("Cu_Ka1") + line_energy("Cu_Ka2")) / 3
    assert line_energy("Cu_Ka") == pytest.approx(third, abs=3e-4)


@pytest.mark.parametrize("name", ["Si", "Si_", "Xx_Ka", "Si_Ma", "_Ka", "Si_K", "", "Si_Ka_extra"])
def test_unknown_lines_are_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        line_energy(name)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["Si_M9", "Qq_K", "K"])
def test_unknown_edges_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        edge_energy(name)


def test_lines_of_an_element() -> None:
    names = [line.name for line in lines_of("Ni")]
    assert names[:2] == ["Ni_Ka", "Ni_Kb"]
    assert "Ni_La" in names
    weights = {line.name: line.weight for line in lines_of("Ni")}
    assert weights["Ni_Ka"] == 1.0
    assert weights["Ni_Kb"] == pytest.approx(0.14, abs=0.03)
    assert {line.name for line in lines_of("Ni", (5, 8))} == {"Ni_Ka"}
    # 7 keV electrons do not reach nickel's K shell (8.33 keV).
    assert all(line.family != "K" for line in lines_of("Ni", beam_energy=7.0))
    gold = {line.name: line.weight for line in lines_of("Au")}
    assert 0.3 < gold["Au_Lb1"] < 0.8
    assert lines_of("H") == []


def test_edges_of_an_element() -> None:
    assert set(edges_of("Si")) == {"Si_K", "Si_L2,3", "Si_M4,5"} or set(edges_of("Si")) == {
        "Si_K",
        "Si_L2,3",
    }
    assert set(edges_of("Fe", (350, 862))) == {"Fe_L2,3"}


def test_widths() -> None:
    assert fwhm(5.895, 130.0) == pytest.approx(0.130)
    # Goldstein et al.: a detector of 130 eV at Mn Ka has about 79 eV at Si Ka.
    assert fwhm(1.74, 130.0) == pytest.approx(0.0806, abs=5e-4)
    widths = fwhm(np.array([0.5, 1.0, 5.0, 10.0]))
    assert np.all(np.diff(widths) > 0)


@pytest.mark.parametrize("resolution", [0.0, -5.0, 100.0])
def test_impossible_resolution_is_refused(resolution: float) -> None:
    with pytest.raises(InputError, match="narrow"):
        fwhm(0.28, resolution)


def spectrum_of(*names: str, background: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    energy = np.arange(0.1, 12.0, 0.01)
    values = background * np.exp(-energy / 3)
    for name in names:
        center = line_energy(name)
        sigma = fwhm(center) / 2.3548
        values = values + np.exp(-0.5 * ((energy - center) / sigma) ** 2)
    return energy, values


def test_labels_name_what_is_there_and_nothing_else() -> None:
    energy, values = spectrum_of("Si_Ka", "Ni_Ka", "Cr_Ka")
    labels = label_peaks(energy, values, ["Si", "Ni", "Cr", "Fe", "O"])
    assert [label.text for label in labels] == ["Si Kα", "Cr Kα", "Ni Kα"]
    assert labels[0].energy == pytest.approx(1.74, abs=0.01)
    assert labels[0].height == pytest.approx(1.0, abs=0.05)
    assert label_peaks(energy, values, []) == []


def test_lines_that_share_a_peak_share_a_label() -> None:
    # S Ka 2.308 and Mo La 2.293 keV: no detector of this kind separates them.
    energy, values = spectrum_of("S_Ka")
    (label,) = label_peaks(energy, values, ["S", "Mo"])
    assert set(label.names) >= {"S_Ka", "Mo_La"}
    assert "S Kα" in label.text
    assert "Mo Lα" in label.text


def test_labels_survive_noise_and_unused_channels() -> None:
    energy, values = spectrum_of("Si_Ka", "Fe_Ka")
    counts = np.random.default_rng(0).poisson(values * 200).astype(float)
    counts[energy < 0.5] = np.nan
    labels = label_peaks(energy, counts, ["Si", "Fe", "Ca", "Ti", "K", "Al"], threshold=0.05)
    assert [label.text for label in labels] == ["Si Kα", "Fe Kα"]
    assert label_peaks(energy, np.full_like(energy, np.nan), ["Si"]) == []


def test_only_the_highest_labels_stay() -> None:
    energy, values = spectrum_of("Si_Ka", "Fe_Ka", "Ca_Ka")
    assert len(label_peaks(energy, values, ["Si", "Fe", "Ca"], limit=2)) == 2


def test_pretty_names() -> None:
    assert pretty_line("Si_Ka") == "Si Kα"
    assert pretty_line("Au_Lb1") == "Au Lβ1"
    assert pretty_line("Si_L2,3") == "Si L2,3"
