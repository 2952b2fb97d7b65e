"""X-ray physics as a basis: which features there are, where they lie, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import emcube as em
from emcube import xray
from emcube.errors import InputError, UnitsError
from emcube.models.xray_features import GROUPS


def cube_of(energy, units="keV", **metadata):
    values = np.zeros((1, 1, energy.size), np.uint8)
    return em.make_cube(
        values, dims=("y", "x", "energy"), sig_dims=("energy",), coords={"energy": energy},
        units={"energy": units}, metadata=metadata or None,
    )  # fmt: skip


ENERGY = 0.05 + 0.01 * np.arange(1000)


def test_features_are_named_sum_to_one_and_peak_at_their_lines():
    basis = em.xray_basis(cube_of(ENERGY), ["Ni", "Si"], beam_energy=200.0)
    assert list(basis.feature.values) == [
        "Ni_K", "Ni_L", "Si_K", "bremsstrahlung_1", "bremsstrahlung_2",
    ]  # fmt: skip
    np.testing.assert_allclose(basis.sum("energy"), 1.0)
    for name in ("Ni_K", "Si_K"):
        at = float(basis.energy[int(np.argmax(basis.sel(feature=name).values))])
        assert at == pytest.approx(xray.line_energy(f"{name}a"), abs=0.006)


def test_a_line_has_the_width_of_the_detector():
    basis = em.xray_basis(cube_of(ENERGY), ["Si"], resolution=140.0, bremsstrahlung=False)
    peak = basis.sel(feature="Si_K").values
    above = ENERGY[peak > 0.5 * peak.max()]
    assert above[-1] - above[0] == pytest.approx(float(xray.fwhm(1.74, 140.0)), abs=0.015)


def test_ratios_within_a_family_are_those_of_the_table():
    basis = em.xray_basis(cube_of(ENERGY), ["Fe"], beam_energy=200.0, bremsstrahlung=False)
    k = basis.sel(feature="Fe_K").values
    beta = k[(ENERGY > 6.75)].sum() / k[(ENERGY > 6.0) & (ENERGY < 6.75)].sum()
    lines = {line.name: line.weight for line in xray.lines_of("Fe")}
    assert beta == pytest.approx(lines["Fe_Kb"] / lines["Fe_Ka"], rel=0.02)


def test_groups_take_lines_apart_or_together():
    names = {
        group: list(
            em.xray_basis(
                cube_of(ENERGY), ["Fe"], beam_energy=200.0, group=group, bremsstrahlung=False
            ).feature.values
        )
        for group in GROUPS
    }
    assert names["element"] == ["Fe"]
    assert names["family"] == ["Fe_K", "Fe_L"]
    assert len(names["subshell"]) > 2


def test_what_the_beam_cannot_excite_or_the_axis_does_not_show_is_left_out():
    low = em.xray_basis(cube_of(ENERGY), ["Fe"], beam_energy=5.0, bremsstrahlung=False)
    assert list(low.feature.values) == ["Fe_L"]
    cut = em.xray_basis(cube_of(ENERGY[200:]), ["Fe"], beam_energy=200.0, bremsstrahlung=False)
    assert list(cut.feature.values) == ["Fe_K"]


def test_metadata_fill_in_what_is_left_out_and_units_are_converted():
    metadata = {
        "elements": ["Si", "O"],
        "beam_energy_keV": 15.0,
        "detector": {"energy_resolution_eV": 127.0},
    }
    told = em.xray_basis(cube_of(ENERGY, **metadata))
    given = em.xray_basis(cube_of(ENERGY), ["Si", "O"], beam_energy=15.0, resolution=127.0)
    np.testing.assert_array_equal(told.values, given.values)
    volts = em.xray_basis(cube_of(1e3 * ENERGY, units="eV", **metadata))
    np.testing.assert_allclose(volts.values, told.values, atol=1e-12)


def test_the_continuum_is_lifshins_and_layers_take_their_part():
    beam = 20.0
    open_ = em.xray_basis(cube_of(ENERGY), ["Si"], beam_energy=beam)
    first = (beam - ENERGY) / beam**2
    second = (beam - ENERGY) ** 2 / (beam**2 * ENERGY)
    for name, shape in (("bremsstrahlung_1", first), ("bremsstrahlung_2", second)):
        np.testing.assert_allclose(open_.sel(feature=name), shape / shape.sum())
    behind = em.xray_basis(
        cube_of(ENERGY), ["Si"], beam_energy=beam, layers={"C": 50.0}, crystal=0.45
    )
    kept = (behind / open_).sel(feature="bremsstrahlung_2")
    # Carbon takes soft X-rays; none are left out where it is transparent.
    assert float(kept.sel(energy=0.6, method="nearest")) < float(
        kept.sel(energy=5.0, method="nearest")
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"elements": None}, "the metadata name none"),
        ({"beam_energy": None}, "energy of the beam"),
        ({"group": "shell"}, "group must be"),
        ({"elements": ["Xx"]}, "unknown element"),
        ({"elements": ["H"]}, "no line of H"),
        ({"layers": {"Xx": 3.0}}, "is no element"),
        ({"layers": {"C": -3.0}}, "mass thickness"),
        ({"crystal": 0.0}, "thickness in mm"),
    ],
)
def test_what_makes_no_basis_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        em.xray_basis(cube_of(ENERGY), **{"elements": ["Si"], "beam_energy": 20.0, **options})


def test_a_cube_without_energies_is_refused():
    plain = em.make_cube(np.zeros((1, 1, 5), np.uint8), dims=("y", "x", "ky"), sig_dims=("ky",))
    with pytest.raises((InputError, UnitsError), match=r"units|energies"):
        em.xray_basis(plain, ["Si"], beam_energy=20.0)
