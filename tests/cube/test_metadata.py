"""Typed metadata: strict at the user's door, forgiving at the file's."""

from __future__ import annotations

import json

import pytest
import xraydb

from emcube.cube import Detector, Metadata
from emcube.cube.metadata import ELEMENTS
from emcube.errors import CubeError

FULL = {
    "title": "map",
    "modality": "EDS",
    "beam_energy_keV": 200.0,
    "elements": ["Ni", "Cr"],
    "detector": {"type": "SDD", "energy_resolution_eV": 128.0, "elevation_deg": 22.0},
    "tilt_deg": -30.0,
    "live_time_s": 10.5,
    "source": {"file": "map.bcf", "reader": "Bruker"},
    "acquired": "2014-03-01T12:00:00Z",
    "extra": {"anything": [1, 2]},
}


def test_json_and_back() -> None:
    meta = Metadata.parse(FULL)
    assert json.loads(json.dumps(meta.to_attrs())) == FULL
    assert Metadata.from_attrs(meta.to_attrs()) == meta
    assert Metadata.parse(meta) is meta
    assert Metadata.parse({}).to_attrs() == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "red"}, "unknown key 'colour'.*'extra'"),
        ({"detector": {"colour": "red"}}, "unknown key 'detector.colour'"),
        ({"elements": ["si"]}, "did you mean 'Si'"),
        ({"elements": ["Xx"]}, "'Xx' is not the symbol"),
        ({"beam_energy_keV": 0}, "beam_energy_keV: got 0"),
        ({"beam_energy_keV": float("nan")}, "beam_energy_keV"),
        ({"modality": "SIMS"}, "modality: got 'SIMS'"),
        (["Si"], "got list, expected a mapping"),
    ],
)
def test_mistakes_of_a_user_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(CubeError, match=message):
        Metadata.parse(values)


def test_nothing_a_file_says_is_refused_or_lost() -> None:
    meta = Metadata.from_file(
        {
            "beam_energy_keV": 0,
            "elements": ["Si"],
            "stage": {"x": 1},
            "detector": {"elevation_deg": "high", "kind": "X", "type": "SDD"},
        }
    )
    assert meta.elements == ("Si",)
    assert meta.beam_energy_keV is None
    assert meta.extra == {"beam_energy_keV": 0, "stage": {"x": 1}}
    assert meta.detector == Detector(type="SDD", extra={"elevation_deg": "high", "kind": "X"})


def test_keys_of_a_newer_version_are_kept() -> None:
    assert Metadata.from_attrs({"dose": 3, "extra": {"a": 1}}).extra == {"a": 1, "dose": 3}
    with pytest.raises(CubeError):
        Metadata.from_attrs({"tilt_deg": "steep"})


def test_elements_are_the_periodic_table() -> None:
    assert len(ELEMENTS) == len(set(ELEMENTS)) == 118
    assert [xraydb.atomic_number(symbol) for symbol in ELEMENTS[:98]] == list(range(1, 99))
    assert Metadata.parse({"elements": ["O", "Si", "O"]}).elements == ("O", "Si")
