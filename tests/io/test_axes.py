"""Axes of files, as dims and coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from emcube.errors import ReadError
from emcube.io.axes import Axis, axis_unit, label_array, plan_axes


@pytest.mark.parametrize(
    ("text", "unit", "factor"),
    [
        ("keV", "keV", 1.0),
        ("KeV", "keV", 1.0),
        ("eV", "eV", 1.0),
        ("µm", "nm", 1000.0),
        ("μm", "nm", 1000.0),
        ("um", "nm", 1000.0),
        ("Å", "nm", 0.1),
        ("1/nm", "1/nm", 1.0),
        ("nm^-1", "1/nm", 1.0),
        ("1/Å", "1/nm", 10.0),
        ("deg", "deg", 1.0),
        ("°", "deg", 1.0),
        ("rad", "deg", 180 / np.pi),
        ("mrad", "mrad", 1.0),
        ("pix", "1", 1.0),
        ("", "1", 1.0),
        ("<undefined>", "1", 1.0),
        ("ms", "s", 1e-3),
        ("furlongs of no kind", "furlongs of no kind", 1.0),
    ],
)
def test_units(text: str, unit: str, factor: float) -> None:
    got, by = axis_unit(text)
    assert got == unit
    assert by == pytest.approx(factor, rel=1e-12)


def test_energy_marked_as_navigation_goes_last() -> None:
    axes = [
        Axis(8, "Energy loss", 350.0, 0.5, "eV", navigate=True),
        Axis(3, "y", units="", navigate=False),
        Axis(2, "x", units="", navigate=False),
    ]
    plan = plan_axes(axes, spectral=True)
    assert (plan.dims, plan.sig_dims, plan.order) == (("y", "x", "energy"), ("energy",), (1, 2, 0))
    data = np.arange(48).reshape(8, 3, 2)
    cube = label_array(data, plan, {})
    assert (cube.values == data.transpose(1, 2, 0)).all()
    assert cube.energy.values[3] == 350.0 + 0.5 * 3
    assert cube.energy.attrs["units"] == "eV"


def test_energy_by_its_unit_whatever_its_name() -> None:
    plan = plan_axes([Axis(2, "y"), Axis(3, "x"), Axis(9, "z", 0, 0.01, "keV", navigate=False)])
    assert plan.dims == ("y", "x", "energy")


def test_positions_are_exact() -> None:
    scale = 0.009999999776482582
    plan = plan_axes([Axis(2048, "Energy", -0.2, scale, "keV", navigate=False)])
    expected = -0.2 + scale * np.arange(2048, dtype=np.float64)
    assert (plan.coords["energy"][0] == expected).all()


def test_descending_signal_axis_is_turned_round() -> None:
    plan = plan_axes([Axis(2, "x"), Axis(4, "Energy", 10.0, -1.0, "eV", navigate=False)])
    cube = label_array(np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), plan, {})
    assert cube.energy.values.tolist() == [7, 8, 9, 10]
    assert cube.values.tolist() == [[4, 3, 2, 1], [8, 7, 6, 5]]
    assert "turned round" in plan.notes[0]


def test_folded_signal_axis_is_refused() -> None:
    values = np.array([1.0, 3.0, 2.0])
    with pytest.raises(ReadError, match="rise or fall"):
        plan_axes([Axis(3, "Energy", units="eV", navigate=False, values=values)])


def test_unnamed_four_axes_are_a_scan_of_patterns() -> None:
    axes = [
        Axis(2, navigate=True),
        Axis(3, navigate=True),
        Axis(4, navigate=False),
        Axis(5, navigate=False),
    ]
    plan = plan_axes(axes)
    assert plan.dims == ("y", "x", "ky", "kx")
    assert plan.sig_dims == ("ky", "kx")


def test_image_stack_over_angles_is_a_tilt_series() -> None:
    axes = [
        Axis(3, "z", -90, 2, "deg", navigate=True),
        Axis(4, "y", units="µm", scale=0.018, navigate=False),
        Axis(4, "x", units="µm", scale=0.018, navigate=False),
    ]
    plan = plan_axes(axes)
    assert plan.dims == ("tilt", "y", "x")
    assert plan.sig_dims == ()
    assert plan.coords["x"][1] == "nm"
    assert plan.coords["x"][0][1] == pytest.approx(18.0)


def test_pattern_by_its_unit() -> None:
    axes = [Axis(4, "y", units="1/nm", navigate=False), Axis(4, "x", units="1/nm", navigate=False)]
    assert plan_axes(axes).sig_dims == ("ky", "kx")


def test_no_scale_means_numbers_and_says_so() -> None:
    plan = plan_axes(
        [
            Axis(3, "time", 7e8, 0.0, "s", navigate=True),
            Axis(4, "Energy", units="eV", navigate=False),
        ]
    )
    assert plan.coords["time"][1] == "1"
    assert plan.coords["time"][0].tolist() == [0, 1, 2]
    assert "no usable scale" in plan.notes[0]


def test_names_are_unique() -> None:
    plan = plan_axes([Axis(2, "x"), Axis(2, "X"), Axis(3, "Energy", units="keV", navigate=False)])
    assert len(set(plan.dims)) == 3
