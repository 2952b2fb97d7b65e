"""Units are parsed, compared, converted and printed."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from emcube.errors import UnitsError
from emcube.units import compatible, convert, is_dimensionless, parse, pretty


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (1.74, "keV", "eV", 1740.0),
        (531.0, "eV", "keV", 0.531),
        (1.5, "µm", "nm", 1500.0),  # micro sign
        (1.5, "μm", "nm", 1500.0),  # Greek mu
        (2.0, "um", "Å", 2e4),
        (180.0, "deg", "rad", np.pi),
        (1.0, "mrad", "deg", 0.0572957795),
        (2.0, "1/nm", "1/Å", 0.2),
        (2.0, "nm^-1", "1/nm", 2.0),
        (5.0, "counts", "counts", 5.0),
        (3.0, "KeV", "eV", 3000.0),
        (7.0, "<undefined>", "", 7.0),
        (7.0, None, "1", 7.0),
    ],
)
def test_convert(value: float, source: str | None, target: str | None, expected: float) -> None:
    result = convert(value, source, target)
    assert isinstance(result, float)
    assert result == pytest.approx(expected, rel=1e-8)


def test_convert_array_makes_a_new_one() -> None:
    energies = np.arange(4, dtype=np.float32)
    result = convert(energies, "keV", "eV")
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, [0, 1000, 2000, 3000])
    same = convert(result, "eV", "eV")
    assert same is not result


@pytest.mark.parametrize(("source", "target"), [("nm", "keV"), ("deg", "nm"), ("1", "eV")])
def test_incompatible_units_are_refused(source: str, target: str) -> None:
    assert not compatible(source, target)
    with pytest.raises(UnitsError, match=r"do not fit together.*got '.*expected") as caught:
        convert(1.0, source, target)
    assert isinstance(caught.value, ValueError)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["kev/", "blorb", "1 per", "nm nm nm (", "^"])
def test_nonsense_is_refused(name: str) -> None:
    with pytest.raises(UnitsError, match="unknown unit"):
        parse(name)


def test_dimensionless_in_all_its_spellings() -> None:
    for name in (None, "", "1", " ", "<undefined>", "dimensionless", "none"):
        assert is_dimensionless(name)
        assert compatible(name, "1")
    assert not is_dimensionless("nm")
    assert parse("px").dimensionality == parse("pixel").dimensionality
    assert not compatible("px", "nm")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("um", "µm"),
        ("keV", "keV"),
        ("deg", "°"),
        ("1", ""),
        (None, ""),
        ("counts", "counts"),
        ("1 per channel", "1 per channel"),
        ("not a unit", "not a unit"),
        ("angstrom", "Å"),
    ],
)
def test_pretty(name: str | None, expected: str) -> None:
    assert pretty(name) == expected


def test_pretty_inverse_length() -> None:
    assert pretty("1/nm") == pretty("nm^-1") == "nm⁻¹"


def test_one_registry_for_all_threads() -> None:
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(parse("keV")._REGISTRY)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(registry) for registry in found}) == 1
