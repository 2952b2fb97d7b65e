"""Crawling a facility's folder, night after night."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

import emcube as em
from emcube.catalog import add, open_catalog
from emcube.catalog.crawl import crawl
from emcube.cli import main
from emcube.errors import CatalogError, InputError
from emcube.store.journal import Journal
from tests.catalog.helpers import aged, spectrum


@pytest.fixture
def facility(tmp_path: Path, make_store: Callable[..., Path]) -> Path:
    folder = tmp_path / "data"
    aged(make_store(folder / "s1" / "map.zarr", modality="EDS", elements=["Ni"]))
    spectrum(folder / "s1" / "point.msa", title="One point")
    spectrum(folder / "s2" / "point.msa", "5\n6\n7\n8", title="Another point")
    (folder / "s2" / "notes.txt").write_text("not data")
    (folder / ".trash").mkdir()
    spectrum(folder / ".trash" / "old.msa", "9\n9\n9\n9")
    return folder


def names(path: Path) -> list[str]:
    return sorted(open_catalog(path))


def test_a_first_crawl(facility: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    report = crawl(path, facility, session="A12", license="CC-BY-4.0")
    assert sorted(report.added) == ["s1.map", "s1.point", "s2.point"]
    assert (report.busy, report.unreadable, report.duplicates, report.gone) == ([], {}, {}, [])
    catalog = open_catalog(path)
    point = catalog["s1.point"].metadata
    assert point["title"] == "One point"
    assert point["modality"] == "EDS"
    assert point["beam_energy_keV"] == 20
    assert point["shape"] == [4]
    assert point["axes"]["energy"]["units"] == "keV"
    assert point["format"]
    assert point["session"] == "A12"
    assert catalog["s1.map"].metadata["digest"].startswith("sha256:")
    assert catalog["s1.map"].metadata["counts_per_pixel"] == 6
    for entry in catalog.values():
        assert entry.open().sizes["energy"] in (4, 6)
    assert em.open(f"{path}:s2.point").values.tolist() == [5, 6, 7, 8]
    assert "{CATALOG_DIR}/data/s1/map.zarr" in path.read_text()


def test_it_writes_no_secret_that_it_is_told(facility: Path, tmp_path: Path) -> None:
    told = "see https://me:hunter2@host.example/protocol"
    with pytest.raises(CatalogError, match="description") as caught:
        crawl(tmp_path / "lab.yaml", facility, description=told)
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "lab.yaml").exists()


def test_a_second_crawl_reads_nothing(
    facility: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lab.yaml"
    crawl(path, facility)
    before = path.read_text()

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("emcube.catalog.crawl.describe_file", fail)
    monkeypatch.setattr("emcube.catalog.crawl.describe_store", fail)
    report = crawl(path, facility)
    assert report.unchanged == 3
    assert report.added == report.updated == []
    assert path.read_text() == before


def test_what_changed_is_taken_up_and_corrections_stay(facility: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    crawl(path, facility)
    entry = open_catalog(path)["s1.point"]
    corrected = {**entry.metadata, "title": "The right title", "elements": ["Au"]}
    from emcube.catalog.document import change

    change(path, lambda d: d["entries"]["s1.point"].update(metadata=corrected))
    spectrum(facility / "s1" / "point.msa", "1\n2\n3\n4".replace("4", "44"), title="Wrong", kv=30)
    aged(facility / "s1" / "point.msa", 1800)
    report = crawl(path, facility)
    assert report.updated == ["s1.point"]
    found = open_catalog(path)["s1.point"].metadata
    assert found["title"] == "The right title"
    assert found["elements"] == ["Au"]
    assert found["size"] == (facility / "s1" / "point.msa").stat().st_size
    assert open_catalog(path)["s1.point"].open().values[-1] == 44


def test_entries_made_by_hand_are_left_alone(facility: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    add(path, facility / "s1" / "point.msa", name="mine", title="By hand")
    report = crawl(path, facility)
    assert names(path) == ["mine", "s1.map", "s2.point"]
    assert report.unchanged == 1
    assert open_catalog(path)["mine"].metadata["title"] == "By hand"
    # Not even when a copy of it turns up, and it changes afterwards.
    (facility / "copy.msa").write_bytes((facility / "s1" / "point.msa").read_bytes())
    aged(facility / "copy.msa")
    assert list(crawl(path, facility).duplicates.values()) == ["mine"]
    spectrum(facility / "s1" / "point.msa", title="Changed")
    crawl(path, facility)
    assert open_catalog(path)["mine"].metadata["title"] == "By hand"


def test_files_still_being_written_wait_for_the_next_night(
    facility: Path, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    path = tmp_path / "lab.yaml"
    aged(spectrum(facility / "new.msa", "7\n7\n7\n7"), 5)
    unfinished = make_store(facility / "half.zarr")
    # As an ingest leaves it when it is stopped: no root document, and a journal.
    (unfinished / "zarr.json").unlink()
    Journal(unfinished).begin({"kind": "test", "n_regions": 4})
    aged(unfinished)
    report = crawl(path, facility)
    assert sorted(Path(p).name for p in report.busy) == ["half.zarr", "new.msa"]
    assert names(path) == ["s1.map", "s1.point", "s2.point"]
    aged(facility / "new.msa")
    assert crawl(path, facility).added == ["new"]
    assert crawl(path, facility, settle=0).added == []


def test_a_file_that_grows_while_it_is_read_waits(
    facility: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emcube.catalog import crawl as module

    read = module.describe_file

    def growing(path: Path, **kwargs: Any) -> dict[str, Any]:
        found = read(path, **kwargs)
        if path.parent.name == "s2":
            with path.open("a") as file:
                file.write("\n")
        return found

    monkeypatch.setattr(module, "describe_file", growing)
    report = crawl(tmp_path / "lab.yaml", facility)
    assert [Path(p).parent.name for p in report.busy] == ["s2"]


def test_copies_are_recognised(facility: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    shutil.copytree(facility / "s1" / "map.zarr", facility / "s3" / "copy.zarr")
    aged(facility / "s3" / "copy.zarr")
    (facility / "s3" / "copy.msa").write_bytes((facility / "s2" / "point.msa").read_bytes())
    aged(facility / "s3" / "copy.msa")
    report = crawl(path, facility)
    assert {Path(p).name: name for p, name in report.duplicates.items()} == {
        "copy.zarr": "s1.map",
        "copy.msa": "s2.point",
    }
    assert names(path) == ["s1.map", "s1.point", "s2.point"]
    # The same the next night, and then without reading: the original remembers its copies.
    crawl(path, facility)
    again = crawl(path, facility)
    assert again.duplicates == report.duplicates
    assert open_catalog(path)["s1.map"].metadata["crawled"]["copies"]


def test_what_is_gone_is_told_and_removed_on_demand(facility: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    crawl(path, facility)
    (facility / "s2" / "point.msa").unlink()
    report = crawl(path, facility)
    assert report.gone == ["s2.point"]
    assert report.removed == []
    assert "s2.point" in names(path)
    assert crawl(path, facility, prune=True).removed == ["s2.point"]
    assert names(path) == ["s1.map", "s1.point"]


def test_a_moved_file_keeps_its_entry(facility: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    crawl(path, facility, checksums=True)
    (facility / "archive").mkdir()
    (facility / "s2" / "point.msa").rename(facility / "archive" / "point.msa")
    shutil.move(facility / "s1" / "map.zarr", facility / "archive" / "map.zarr")
    report = crawl(path, facility, checksums=True)
    assert sorted(report.moved) == ["s1.map", "s2.point"]
    assert report.added == report.gone == []
    assert em.open(f"{path}:s2.point").values.tolist() == [5, 6, 7, 8]
    assert em.open(f"{path}:s1.map").shape == (4, 5, 6)


def test_what_cannot_be_read_is_told_and_stops_nothing(facility: Path, tmp_path: Path) -> None:
    (facility / "a.bcf").write_text("no map")
    (facility / "b.msa").write_text("")
    for name in ("a.bcf", "b.msa"):
        aged(facility / name)
    report = crawl(tmp_path / "lab.yaml", facility)
    assert sorted(Path(p).name for p in report.unreadable) == ["a.bcf", "b.msa"]
    assert "is not a Bruker map" in next(iter(report.unreadable.values()))
    assert len(report.added) == 3


def test_odd_things_stop_nothing(
    facility: Path, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    """Links in circles and to nothing, pipes, names of any bytes, halves of stores."""
    path = tmp_path / "lab.yaml"
    before = crawl(path, facility).added
    (facility / "loop").symlink_to(facility, target_is_directory=True)
    (facility / "self.msa").symlink_to("self.msa")
    (facility / "dangling.msa").symlink_to("nothing.msa")
    os.mkfifo(facility / "pipe.msa")
    aged(spectrum(facility / "Zürich μ 日本" / "\x1b[2J.msa", "7\n7\n7\n8"))
    spectrum(facility / "{func(os:system)}.msa", "7\n7\n7\n9")
    odd = os.fsdecode(os.fsencode(facility) + b"/\xff\xfe.msa")
    aged(Path(shutil.copy(facility / "s1" / "point.msa", odd)))
    (make_store(facility / "half.zarr") / "zarr.json").unlink()
    broken = make_store(facility / "broken.zarr") / "zarr.json"
    broken.write_text("{")
    whole = make_store(facility / "whole.zarr", 9)
    bare = shutil.move(make_store(facility / "other.zarr") / "data", facility / "array.zarr")
    for store in (
        broken.parent,
        whole,
        facility / "half.zarr",
        facility / "other.zarr",
        Path(bare),
    ):
        aged(store)
    report = crawl(path, facility)
    assert set(report.added) == {"Zürich μ 日本.[2J", "whole"}
    reasons = {Path(name).name: reason for name, reason in report.unreadable.items()}
    assert "symbolic links" in reasons["self.msa"]
    assert "link to something" in reasons["dangling.msa"]
    assert "pipe" in reasons["pipe.msa"]
    assert "braces" in reasons["{func(os:system)}.msa"]
    assert "not UTF-8" in reasons["??.msa"]
    assert "no zarr.json" in reasons["half.zarr"]
    assert "not valid JSON" in reasons["broken.zarr"]
    assert "bare Zarr array" in reasons["array.zarr"]
    # Headers only: what this one says of itself is still there, `verify` tells that its data are not.
    assert [Path(name).name for name in report.duplicates] == ["other.zarr"]
    assert set(names(path)) == {*before, *report.added}
    assert all(entry.open().size for entry in open_catalog(path).values())
    # The next night finds the same, and reads nothing again.
    again = crawl(path, facility)
    assert again.added == again.updated == []
    assert again.unreadable.keys() == report.unreadable.keys()


def test_headers_only(facility: Path, tmp_path: Path) -> None:
    cube = em.make_cube(np.ones((3, 4, 5), "u1"), dims=("y", "x", "energy"))
    em.ingest(cube, facility / "other.zarr")
    aged(facility / "other.zarr")

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("data were read")

    with dask.config.set(scheduler=fail):
        report = crawl(tmp_path / "lab.yaml", facility)
    assert len(report.added) == 4


def test_nothing_is_written_on_trial(facility: Path, tmp_path: Path) -> None:
    report = crawl(tmp_path / "lab.yaml", facility, dry_run=True)
    assert len(report.added) == 3
    assert not (tmp_path / "lab.yaml").exists()
    with pytest.raises(InputError, match="is no folder"):
        crawl(tmp_path / "lab.yaml", facility / "nowhere")


def test_names_are_told_apart(tmp_path: Path) -> None:
    spectrum(tmp_path / "data" / "a.msa", "1\n2\n3\n4")
    spectrum(tmp_path / "data" / "a.emsa", "1\n2\n3\n55")
    spectrum(tmp_path / "data" / "x (1)" / "b'.msa", "1\n2\n3\n666")
    crawl(tmp_path / "c.yaml", tmp_path / "data")
    assert names(tmp_path / "c.yaml") == ["a", "a.msa", "x  1.b"]


def test_entries_of_others_are_kept_during_a_crawl(
    facility: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_store: Callable[..., Path]
) -> None:
    from emcube.catalog import crawl as module

    path, read = tmp_path / "lab.yaml", module.describe_file
    store = make_store(tmp_path / "mine.zarr")
    added: list[str] = []

    def meanwhile(*args: Any, **kwargs: Any) -> dict[str, Any]:
        if not added:
            added.append(add(path, store, name="s1.point").name)
        return read(*args, **kwargs)

    monkeypatch.setattr(module, "describe_file", meanwhile)
    crawl(path, facility)
    assert names(path) == ["s1.map", "s1.point", "s1.point.msa", "s2.point"]
    assert em.open(f"{path}:s1.point").shape == (4, 5, 6)


def test_the_verb(facility: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lab.yaml"
    assert main(["catalog", "crawl", str(path), str(facility), "--set", "session=A1"]) == 0
    assert "3 added" in capsys.readouterr().out
    assert main(["catalog", "crawl", str(path), str(facility), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 3
    assert open_catalog(path)["s1.map"].metadata["session"] == "A1"
    (facility / "s1" / "point.msa").unlink()
    assert main(["catalog", "crawl", str(path), str(facility), "--prune"]) == 0
    assert "removed: s1.point" in capsys.readouterr().out
    assert main(["catalog", "crawl", str(path), str(tmp_path / "none")]) == 2


@pytest.mark.realdata
def test_real_files_are_catalogued(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for name in (
        "eds_sem_dacite_P45/P45_the_default_job.bcf",
        "eds_tem_fept/core_shell.hspy",
        "eels/CuZn_EELS_mapping_tutorial.hspy",
        "eels/STEM_signal.dm3",
        "eds_standards_K412/III-E K412[1][4].msa",
        "tilt_haadf/HAADF.dm3",
        "tilt_haadf/HAADF.rawtlt",
        "vendor/test1.blo",
        "vendor/16x16-spectrum_image-5x5x1024.emi",
        "vendor/16x16-spectrum_image-5x5x1024_1.ser",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data_dir / name, folder / name)
    aged(folder)
    path = tmp_path / "lab.yaml"
    report = crawl(path, folder)
    assert report.unreadable == {}
    catalog = open_catalog(path)
    assert len(catalog) >= 8
    dacite = next(e for n, e in catalog.items() if "P45" in n)
    assert dacite.metadata["shape"] == [75, 100, 2048]
    assert dacite.metadata["modality"] == "EDS"
    assert (
        "Fe" in catalog.search(modality="EDX", any_elements=["Fe"]).facets("elements")["elements"]
    )
    assert all(entry.open().size for entry in catalog.values())
    # Plain Intake opens what was written, brackets in names included.
    import intake

    plain = intake.open_catalog(str(path))
    for name, entry in catalog.items():
        size = Path(entry.target.location).stat().st_size
        assert len(plain[name].read()) == size, name


def test_names_are_made_of_what_a_reference_can_hold(tmp_path: Path) -> None:
    from emcube.catalog.describe import clean_name
    from emcube.catalog.reading import new_document
    from emcube.catalog.targets import check_name, halves_of, target_of

    for code in range(32, 127):
        name = check_name(clean_name(f"Image{chr(code)} 1"))
        document = new_document()
        data, entry = halves_of(name, "file", "{CATALOG_DIR}/a.msa", {})
        document["entries"][name], document["data"][f"{name}-data"] = entry, data
        assert target_of(tmp_path / "c.yaml", document, name).kind == "file", chr(code)


def test_signals_with_commas_in_their_names_open(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each signal is a reading of the whole file.
    monkeypatch.setattr("emcube.catalog.crawl._MAX_SIGNALS", 2)
    source = data_dir / "vendor" / "Elid2Version4.elid"
    (tmp_path / "data").mkdir()
    aged(Path(shutil.copy(source, tmp_path / "data")))
    report = crawl(tmp_path / "lab.yaml", tmp_path / "data")
    assert "Elid2Version4.Image 1 Map 3" in report.added
    assert {entry.kind for entry in open_catalog(tmp_path / "lab.yaml").values()} == {"file"}
    again = crawl(tmp_path / "lab.yaml", tmp_path / "data")
    assert (again.added, again.unchanged) == ([], 1)


def test_checksums_are_added_to_entries_that_lack_them(
    facility: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lab.yaml"
    crawl(path, facility)
    before = open_catalog(path)["s1.point"].metadata
    assert "checksum" not in before
    trial = crawl(path, facility, checksums=True, dry_run=True)
    assert sorted(trial.updated) == ["s1.point", "s2.point"]
    assert "checksum" not in open_catalog(path)["s1.point"].metadata
    assert main(["catalog", "crawl", str(path), str(facility), "--checksums"]) == 0
    assert "0 added, 2 updated, 0 moved, 1 unchanged" in capsys.readouterr().out
    after = open_catalog(path)["s1.point"]
    assert after.metadata["checksum_status"] == "checked"
    assert {k: v for k, v in after.metadata.items() if not k.startswith("checksum")} == before
    assert after.open(verify=True).shape == (4,)
    assert crawl(path, facility, checksums=True).unchanged == 3


def test_a_fresh_copy_is_told_in_one_line(
    facility: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in facility.rglob("*.msa"):
        path.touch()
    (facility / "half.zarr").mkdir()
    aged(facility / "half.zarr")
    assert main(["catalog", "crawl", str(tmp_path / "lab.yaml"), str(facility)]) == 0
    out = capsys.readouterr().out
    assert "2 left out, which changed less than 60 s ago" in out
    assert "--settle 0" in out
    assert "again in a minute" in out
    assert "point.msa" not in out
