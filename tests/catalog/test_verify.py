"""Verifying: what an entry lacks by principle, and what its data say otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import emcube as em
from emcube.catalog import add, open_catalog
from emcube.catalog.document import change
from emcube.catalog.fair import PRINCIPLES, fair_findings
from emcube.catalog.verify import ReplacedDataWarning, verify_catalog, verify_entry
from emcube.cli import main
from emcube.errors import CatalogError, StoreError
from tests.catalog.helpers import COMPLETE, spectrum


@pytest.fixture
def catalog(tmp_path: Path, make_store: Callable[..., Path]) -> Path:
    path = tmp_path / "c.yaml"
    add(path, make_store(tmp_path / "full.zarr"), **COMPLETE)
    add(path, make_store(tmp_path / "bare.zarr", 2))
    return path


def edit(path: Path, name: str, **metadata: Any) -> None:
    change(path, lambda d: d["entries"][name]["metadata"].update(metadata))


def test_a_complete_entry_lacks_nothing(catalog: Path) -> None:
    report = verify_entry(open_catalog(catalog)["full"], deep=True)
    assert report.ok
    assert report.opened
    assert report.missing == ()
    assert report.unchecked == ()


def test_a_bare_entry_is_told_by_principle(catalog: Path) -> None:
    report = verify_entry(open_catalog(catalog)["bare"])
    assert report.ok
    principles = [finding.principle for finding in report.missing]
    assert principles == sorted(principles, key=list(PRINCIPLES).index)
    assert {"F1", "F2", "F4", "A1", "A1.2", "A2", "I2", "I3", "R1", "R1.1", "R1.2"} <= set(
        principles
    )
    text = "\n".join(map(str, report.missing))
    assert "R1.1 (clear licence): no licence" in text
    assert "creators, acquired, instrument" in text


@pytest.mark.parametrize(
    ("lost", "principle"),
    [
        ("doi", "F1"),
        ("description", "F2"),
        ("elements", "F2"),
        ("digest", "F3"),
        ("access", "A1.2"),
        ("creators", "A2"),
        ("axes", "I1"),
        ("modality", "I2"),
        ("beam_energy_keV", "R1"),
        ("license", "R1.1"),
        ("instrument", "R1.2"),
    ],
)
def test_each_principle_can_fail(catalog: Path, lost: str, principle: str) -> None:
    change(catalog, lambda d: d["entries"]["full"]["metadata"].pop(lost))
    assert principle in [f.principle for f in fair_findings(open_catalog(catalog)["full"])]


@pytest.mark.parametrize(
    ("changed", "principle"),
    [
        ({"license": "do what you like"}, "I2"),
        ({"modality": "magic"}, "I2"),
        ({"access": "restricted"}, "A1.2"),
        ({"axes": {"y": {"units": None}}}, "I1"),
        ({"related": [], "doi": None}, "I3"),
        ({"keywords": [], "description": ""}, "F4"),
    ],
)
def test_what_is_there_may_not_do(catalog: Path, changed: dict[str, Any], principle: str) -> None:
    edit(catalog, "full", **changed)
    assert principle in [f.principle for f in fair_findings(open_catalog(catalog)["full"])]


def test_a_format_of_a_maker(tmp_path: Path) -> None:
    add(tmp_path / "c.yaml", "https://host.example/a.bcf", **COMPLETE)
    add(tmp_path / "c.yaml", "https://host.example/b.hspy", **COMPLETE)
    found = open_catalog(tmp_path / "c.yaml")
    assert "R1.3" in [f.principle for f in fair_findings(found["a"])]
    assert "R1.3" not in [f.principle for f in fair_findings(found["b"])]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shape": [4, 5, 7]}, "shape: the catalog says 4 x 5 x 7, the data say 4 x 5 x 6"),
        ({"units": "1"}, "units: the catalog says 1, the data say counts"),
        ({"dtype": "float32"}, "dtype"),
        ({"dims": ["x", "y", "energy"]}, "dims"),
        (
            {"axes": {"energy": {"units": "eV"}}},
            "units of energy: the catalog says eV, the data say keV",
        ),
        ({"digest": "sha256:" + "0" * 64}, "digest: the catalog says sha256:0"),
    ],
)
def test_differences_are_found(
    catalog: Path, changed: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(catalog, "full", **changed)
    report = verify_entry(open_catalog(catalog)["full"])
    assert not report.ok
    assert message in report.differences[0]
    assert main(["catalog", "verify", str(catalog)]) == 3
    out = capsys.readouterr().out
    assert "full: DIFFERENT" in out
    assert message in out
    assert "bare: same" in out


def test_what_does_not_open_is_a_difference(catalog: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.zarr").rename(tmp_path / "elsewhere")
    change(catalog, lambda d: d["entries"]["full"].update(reader="os:system"))
    reports = {report.name: report for report in verify_catalog(open_catalog(catalog))}
    assert "does not exist" in reports["bare"].differences[0]
    assert "os:system" in reports["full"].differences[0]
    assert main(["catalog", "verify", str(catalog), "bare"]) == 3


def test_damage_is_found_by_reading(catalog: Path, tmp_path: Path) -> None:
    chunk = next(p for p in (tmp_path / "full.zarr" / "data" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    entry = open_catalog(catalog)["full"]
    assert verify_entry(entry).ok
    report = verify_entry(entry, deep=True)
    assert "is not what was written" in report.differences[0]
    assert main(["catalog", "verify", str(catalog), "full", "--deep"]) == 3
    # And on demand when it is opened.
    assert entry.open().shape == (4, 5, 6)
    with pytest.raises(StoreError, match="not what was written"):
        entry.open(verify=True)


def test_a_store_that_was_replaced_is_found_on_opening(
    catalog: Path, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    import shutil

    shutil.rmtree(tmp_path / "full.zarr")
    make_store(tmp_path / "full.zarr", 3)
    with pytest.raises(CatalogError, match=r"has the digest .*the data were replaced"):
        open_catalog(catalog)["full"].open(verify=True)


def test_files_are_compared_by_checksum(tmp_path: Path) -> None:
    path = spectrum(tmp_path / "a.msa")
    entry = add(tmp_path / "c.yaml", path)
    assert entry.metadata["checksum_status"] == "checked"
    assert verify_entry(entry, deep=True).ok
    assert entry.open(verify=True).shape == (4,)
    spectrum(path, "1\n2\n3\n5")
    assert "checksum" in verify_entry(entry, deep=True).differences[0]
    with pytest.raises(CatalogError, match="the file was replaced"):
        entry.open(verify=True)
    assert entry.open().shape == (4,)


def test_the_verb_tells_what_is_missing(catalog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "verify", str(catalog)]) == 0
    out = capsys.readouterr().out
    assert "full: same, FAIR" in out
    assert "bare: same, lacks F1, F2" in out
    assert "R1.1 (clear licence): no licence: nobody may use the data; add license" in out
    assert main(["catalog", "verify", str(catalog), "full", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["entries"][0]["missing"] == []
    assert main(["catalog", "verify", str(catalog), "nothing"]) == 2


def test_data_that_were_not_fetched_are_not_compared(tmp_path: Path) -> None:
    add(tmp_path / "c.yaml", "https://host.example/a.bcf", elements=["Si"])
    report = verify_entry(open_catalog(tmp_path / "c.yaml")["a"])
    assert report.ok
    assert "has not been fetched" in report.unchecked[0]


def test_shipped_catalogs_are_checked() -> None:
    root = Path(__file__).parents[2] / "catalogs"
    missing = {
        name: {f.principle for f in fair_findings(entry)}
        for name, entry in em.open_catalog(root / "public.yaml").items()
    }
    # What is published in a repository has an identifier and a licence.
    for name in ("mgo-nanocrystals", "sped-ag", "cu-nb-laminate"):
        assert not {"F1", "F3", "R1.1", "A1.2"} & missing[name]
    assert "R1.1" in missing["cuzn-eels"]


def test_a_store_that_was_replaced_is_told_without_being_asked(
    catalog: Path, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    import shutil

    assert em.open(f"{catalog}:full").shape == (4, 5, 6)
    shutil.rmtree(tmp_path / "full.zarr")
    make_store(tmp_path / "full.zarr", 3)
    with pytest.warns(ReplacedDataWarning, match=r"entry 'full' .* expected sha256:"):
        em.open(f"{catalog}:full")
    # Whoever says that nothing is to be compared is not told.
    assert open_catalog(catalog)["full"].open(verify=False).shape == (4, 5, 6)


def test_what_many_entries_lack_is_told_once(
    catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        add(catalog, tmp_path / "bare.zarr", name=f"more{n}")
    edit(catalog, "more1", shape=[1, 2, 3])
    assert main(["catalog", "verify", str(catalog)]) == 3
    out = capsys.readouterr().out
    assert out.count("no licence") == 1
    assert "4 of 5  R1.1 (clear licence): no licence" in out
    assert "more1: DIFFERENT" in out
    assert "  shape: the catalog says 1 x 2 x 3" in out
    assert main(["catalog", "verify", str(catalog), "--verbose"]) == 3
    assert capsys.readouterr().out.count("no licence") == 4
    assert main(["catalog", "verify", str(catalog), "more0"]) == 0
    assert "  R1.1 (clear licence)" in capsys.readouterr().out
