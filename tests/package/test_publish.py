"""What goes into a package, what does not, and that it is the same bytes every time."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

import emcube as em
from emcube.catalog import add
from emcube.cli import main
from emcube.errors import IncompleteError, InputError, StoreError
from emcube.package import names, publish
from emcube.package.compare import TOLERANCES
from emcube.package.references import software_citation
from emcube.results.variables import registered
from emcube.store import write_cube
from tests.package.conftest import DAY, QUICK, Lab, members_of, simulated

ROOT = Path(__file__).parents[2]


def description(crate: Path) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(members_of(crate)[names.DESCRIPTION])
    return plain


def test_what_is_in_it(lab: Lab) -> None:
    members = members_of(lab.crate)
    top = {name for name in members if "/" not in name or name.startswith("environment/")}
    assert top == {
        *(names.CRATE, names.PREVIEW, names.DESCRIPTION, names.MANIFEST, names.RECIPE, names.LOCK),
        *(
            names.STACK,
            names.CITATION,
            names.METHODS,
            names.BIBLIOGRAPHY,
            names.README,
            names.REPORT,
        ),
    }
    assert "result/nmf/loadings/zarr.json" in members
    assert "input/cube.zarr/.emcube/manifest.json" in members
    assert not [name for name in members if name.endswith((".lock", "/lock"))]
    said = description(lab.crate)
    assert said["run_id"] == lab.result.run_id
    assert said["seeds"] == {"nmf": lab.result.provenance["seeds"]["nmf"]}
    assert said["input"]["digest"] == lab.result.provenance["input"]["digest"]
    assert said["tolerances"] == TOLERANCES
    recipe = yaml.safe_load(members[names.RECIPE])
    assert recipe == lab.result.recipe


def test_stores_in_it_open_without_emcube(lab: Lab, tmp_path: Path) -> None:
    with zipfile.ZipFile(lab.crate) as archive:
        archive.extractall(tmp_path)
    with xr.open_datatree(str(tmp_path / "result"), engine="zarr") as tree:
        np.testing.assert_array_equal(
            tree["nmf/components"].values, lab.result["nmf"]["components"].values
        )
    with xr.open_zarr(tmp_path / "input" / "cube.zarr") as cube:
        np.testing.assert_array_equal(cube["data"].values, simulated().values)


def test_its_manifest_is_one_of_sha256sum(lab: Lab, tmp_path: Path) -> None:
    with zipfile.ZipFile(lab.crate) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", names.MANIFEST],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    named = {line[66:] for line in (tmp_path / names.MANIFEST).read_text().splitlines()}
    assert named == set(members_of(lab.crate)) - {names.MANIFEST}


def test_the_same_bytes_every_time(lab: Lab, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(lab.folder, copy, ignore=shutil.ignore_patterns("*.zip"))
    options: dict[str, Any] = {
        "include_data": True,
        "date": dt.date(2026, 11, 26),
        "creators": ["Ada Lovelace (0000-0002-1825-0097)", {"name": "B", "affiliation": "C & D"}],
        "license": "CC-BY-4.0",
        "figures": True,
    }
    again = publish(
        copy / "results" / "map", tmp_path / "other.zip", input=copy / "map.zarr", **options
    )
    assert again.read_bytes() == lab.crate.read_bytes()
    with zipfile.ZipFile(again) as archive:
        infos = archive.infolist()
    assert [i.filename for i in infos] == sorted(i.filename for i in infos)
    assert {i.date_time for i in infos} == {(1980, 1, 1, 0, 0, 0)}
    folders = {i.filename: i.external_attr >> 16 for i in infos if i.is_dir()}
    assert folders == dict.fromkeys(("result/", "input/cube.zarr/"), stat.S_IFDIR | 0o755)
    files = {i.external_attr >> 16 for i in infos if not i.is_dir()}
    assert files == {stat.S_IFREG | 0o644}
    seal = again.read_bytes()[-64:].decode()
    assert (
        seal
        == hashlib.sha256(
            again.read_bytes()[: -2 - len(b"emcube package sha256:") - 64]
        ).hexdigest()
    )


def test_nobodys_folders_are_in_it(lab: Lab) -> None:
    for name, data in members_of(lab.crate).items():
        assert str(lab.folder).encode() not in data, name
    said = description(lab.crate)["input"]["described"]
    assert said["path"] == "map.zarr"
    root = json.loads(members_of(lab.crate)["result/zarr.json"])
    assert root["attributes"]["provenance"]["input"]["path"] == "map.zarr"


def test_without_the_data(quick: Lab, tmp_path: Path) -> None:
    crate = publish(
        quick.result,
        tmp_path / "light.zip",
        address="https://example.org/map.zarr#top",
        date=DAY,
        figures=False,
    )
    assert not [name for name in members_of(crate) if name.startswith("input/")]
    known = description(crate)["input"]
    assert known["included"] is None
    assert known["addresses"] == [{"url": "https://example.org/map.zarr", "kind": "store"}]
    assert known["layout"] == "dense"
    text = members_of(crate)[names.README].decode()
    assert "https://example.org/map.zarr" in text


@pytest.mark.parametrize(
    "address",
    [
        "https://me:secret@example.org/map.zarr",
        "https://example.org/map.zarr?X-Amz-Signature=secret",
        "https://example.org/map.bcf?token=secret&download=1",
        "s3://key:secret@bucket/map.zarr",
        "/home/me/secret.zarr",
        "file:///home/me/secret.zarr",
        "ftp://example.org/secret",
    ],
)
def test_addresses_with_secrets_or_of_this_machine_are_refused(
    address: str, quick: Lab, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="address") as caught:
        publish(quick.result, tmp_path / "x.zip", address=address)
    if "home" not in address and "ftp" not in address:
        assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_data_are_found_by_their_digest(quick: Lab, tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "lab"
    (folder / "data").mkdir(parents=True)
    # Another cube lies where the recipe says, seen from the folder below.
    write_cube(simulated(1), folder / "results" / "map.zarr")
    write_cube(simulated(), folder / "map.zarr")
    recipe = "emcube: 1\ninput: {path: map.zarr}\nsteps: [{pca: {n_components: 2}}]"
    (folder / "recipe.yaml").write_text(recipe)
    result = em.run(folder / "recipe.yaml", out=folder / "results" / "r")
    monkeypatch.chdir(tmp_path)
    crate = publish(result, tmp_path / "c.zip", include_data=True, date=DAY, figures=False)
    assert description(crate)["input"]["included"] == names.INPUT
    shutil.rmtree(folder / "map.zarr")
    with pytest.raises(InputError, match=r"are not found: its recipe named .*map.zarr"):
        publish(result, tmp_path / "d.zip", include_data=True)
    with pytest.raises(InputError, match="is not the input of this run"):
        publish(
            result, tmp_path / "d.zip", include_data=True, input=folder / "results" / "map.zarr"
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.zip", "lab"]


def test_a_cube_in_hand_can_be_included(tmp_path: Path) -> None:
    cube = simulated()
    result = em.run({"steps": QUICK}, cube, out=tmp_path / "r")
    with pytest.raises(InputError, match="are not found"):
        publish(result, tmp_path / "c.zip", include_data=True)
    crate = publish(
        result, tmp_path / "c.zip", include_data=True, input=cube, date=DAY, figures=False
    )
    assert "input/cube.zarr/zarr.json" in members_of(crate)


def test_the_catalog_entry_is_in_it(quick: Lab, tmp_path: Path) -> None:
    store = write_cube(simulated(), tmp_path / "map.zarr")
    add(
        tmp_path / "lab.yaml",
        store,
        name="phases",
        title="Phases of & <a> stone",
        doi="10.5281/zenodo.15490547",
        creators=[{"name": "Grace Hopper", "orcid": "0000-0002-1825-0097"}],
        license="CC-BY-4.0",
    )
    recipe = {"input": {"catalog": str(tmp_path / "lab.yaml"), "dataset": "phases"}, "steps": QUICK}
    result = em.run(recipe, out=tmp_path / "r")
    crate = publish(result, tmp_path / "c.zip", include_data=True, date=DAY, figures=False)
    members = members_of(crate)
    entry = json.loads(members[names.ENTRY])
    assert entry["name"] == "phases"
    assert entry["metadata"]["doi"] == "10.5281/zenodo.15490547"
    assert entry["metadata"]["elements"] == ["Si", "O"]
    graph = {e["@id"]: e for e in json.loads(members[names.CRATE])["@graph"]}
    assert graph["./"]["author"] == [{"@id": "https://orcid.org/0000-0002-1825-0097"}]
    doi = "https://doi.org/10.5281/zenodo.15490547"
    assert graph["input/cube.zarr/"]["sameAs"] == {"@id": doi}
    assert graph[doi]["name"] == "Phases of & <a> stone"
    assert graph["input/cube.zarr/"]["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    assert graph["./"]["name"] == "Unmixing of Phases of & <a> stone"
    assert b"10.5281/zenodo.15490547" in members[names.BIBLIOGRAPHY]
    assert b"<a> stone" not in members[names.PREVIEW]
    for name, data in members.items():
        assert str(tmp_path).encode() not in data, name


def test_no_secrets_and_folders_of_an_entry_are_in_it(tmp_path: Path) -> None:
    store = write_cube(simulated(), tmp_path / "secretproj" / "map.zarr")
    catalog = tmp_path / "lab.yaml"
    add(catalog, store, name="phases")
    plain = yaml.safe_load(catalog.read_text())
    (entry,) = plain["entries"].values()
    # `add` takes none of this; a catalog that was written by hand may hold it.
    entry["metadata"] |= {
        "title": "T https://bob:hunter1@h.example/?sig=SEKRIT1",
        "url": "https://bob:hunter2@data.example.org/x?token=SEKRIT2",
        "description": "get it from https://bob:hunter3@h.example/x?sig=SEKRIT3 please",
        "license": "https://bob:hunter4@h.example/terms?sig=SEKRIT4",
        "crawled": {
            "modified_ns": 1234567,
            "copies": {"../secretproj/userA/core.hspy": {"size": 3}},
        },
    }
    catalog.write_text(yaml.safe_dump(plain))
    recipe = {"input": {"catalog": str(catalog), "dataset": "phases"}, "steps": QUICK}
    result = em.run(recipe, out=tmp_path / "r")
    crate = publish(result, tmp_path / "c.zip", include_data=True, date=DAY, figures=False)
    for name, data in members_of(crate).items():
        for word in (b"hunter", b"SEKRIT", b"userA", b"secretproj", b"1234567"):
            assert word not in data, (name, word)
    assert b"url = {https://data.example.org/x}" in members_of(crate)[names.BIBLIOGRAPHY]


def test_an_entry_may_stand_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lab"
    store = write_cube(simulated(), folder / "data" / "map.zarr")
    add(folder / "lab.yaml", store, name="phases", title="Phases", doi="10.5281/zenodo.15490547")
    recipe = {"emcube": 1, "input": {"path": "lab.yaml:phases"}, "steps": QUICK}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    result = em.run(folder / "recipe.yaml", out=folder / "results" / "r")
    monkeypatch.chdir(tmp_path)
    crate = publish(result, tmp_path / "c.zip", include_data=True, date=DAY, figures=False)
    members = members_of(crate)
    assert "input/cube.zarr/zarr.json" in members
    assert json.loads(members[names.ENTRY])["name"] == "phases"
    assert description(crate)["input"]["described"]["path"] == "lab.yaml:phases"
    shutil.move(folder / "lab.yaml", folder / "other.yaml")
    with pytest.raises(InputError, match=r"are not found: its recipe named .*lab.yaml:phases"):
        publish(result, tmp_path / "d.zip", include_data=True)


def test_what_cannot_be_published(quick: Lab, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in .zip"):
        publish(quick.result, tmp_path / "crate")
    (tmp_path / "there.zip").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists already"):
        publish(quick.result, tmp_path / "there.zip")
    assert (tmp_path / "there.zip").read_bytes() == b"mine"
    with pytest.raises(StoreError, match="there is no result"):
        publish(tmp_path / "none", tmp_path / "x.zip")
    with pytest.raises(InputError, match="expected a day"):
        publish(quick.result, tmp_path / "x.zip", date="yesterday")
    with pytest.raises(InputError, match="a check digit"):
        publish(quick.result, tmp_path / "x.zip", creators="Ada Lovelace (0000-0002-1825-0098)")
    with pytest.raises(InputError, match="expected a name"):
        publish(quick.result, tmp_path / "x.zip", creators=[{"orcid": "0000-0002-1825-0097"}])
    assert [p.name for p in tmp_path.iterdir()] == ["there.zip"]
    publish(quick.result, tmp_path / "there.zip", figures=False, overwrite=True)
    assert (tmp_path / "there.zip").read_bytes()[:4] == b"PK\x03\x04"


def test_only_whole_results_are_published(quick: Lab, tmp_path: Path) -> None:
    copy = tmp_path / "r"
    shutil.copytree(quick.result.path, copy)
    root = json.loads((copy / "zarr.json").read_text())
    root["attributes"]["emcube"]["complete"] = False
    (copy / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(IncompleteError, match="was never finished"):
        publish(copy, tmp_path / "x.zip")
    opened = em.open_result(copy, allow_incomplete=True)
    with pytest.raises(IncompleteError, match="publish needs a whole result"):
        publish(opened, tmp_path / "x.zip")
    shutil.rmtree(copy)
    shutil.copytree(quick.result.path, copy)
    chunk = copy / "pca" / "mean" / "c" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\0")
    with pytest.raises(StoreError, match="is not what its run wrote: pca/mean"):
        publish(copy, tmp_path / "x.zip")
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


# ------------------------------------------------------------------------------------------- the texts


def test_the_environment_is_locked(lab: Lab) -> None:
    text = members_of(lab.crate)[names.LOCK].decode()
    versions = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
    ran = lab.result.provenance["stack"]["libraries"]
    for name in ("emcube", "numpy", "scipy", "numba", "zarr", "xarray"):
        assert versions[name] == ran[name]
    # What those need in turn is there, what only tests need is not.
    assert {"llvmlite", "pandas", "packaging", "donfig"} <= set(versions)
    assert not {"pytest", "mypy", "ruff"} & set(versions)
    assert list(versions) == sorted(versions)
    stack = json.loads(members_of(lab.crate)[names.STACK])
    assert stack["lock_is_exact"] is True
    assert stack["stack"]["blas"]


def test_a_lock_of_another_environment_says_so() -> None:
    from emcube.package.lock import lock_environment

    lock = lock_environment({"numpy": "1.0.0"}, "3.99.1")
    assert lock.versions["numpy"] == "1.0.0"
    assert not lock.exact
    assert "other versions were installed" in lock.to_bytes().decode()
    assert "Python 3.99.1" in lock.to_bytes().decode()


def test_methods_and_references(lab: Lab) -> None:
    members = members_of(lab.crate)
    text = members[names.METHODS].decode()
    for fact in (
        "EDS",
        "24 (y) x 30 (x) pixels of 100 channels",
        "energy from 0.5 to 2.48 keV",
        "200 keV",
        "weighted for Poisson noise (Keenan and Kotula 2004)",
        "biwhitening (Landa et al. 2022)",
        "into 3 components",
        "into 3 clusters by k-means",
        f"seed {lab.result.provenance['seeds']['nmf']}",
        lab.result.run_id,
        lab.result.provenance["input"]["digest"],
    ):
        assert fact in text, fact
    bib = members[names.BIBLIOGRAPHY].decode()
    keys = re.findall(r"^@\w+\{(\w+),$", bib, re.MULTILINE)
    assert keys[0] == "emcube"
    assert {"Keenan2004", "Landa2022", "Lee2001", "Leplat2020", "Bachem2018"} <= set(keys)
    assert len(keys) == len(set(keys))
    assert bib.count("{") == bib.count("}")
    assert "doi = {10.1002/sia.1657}" in bib


def test_pages_for_people(lab: Lab, quick: Lab) -> None:
    members = members_of(lab.crate)
    report = members[names.REPORT].decode()
    for fact in (
        '<h1 dir="auto">Unmixing of Three phases &amp; more</h1>',
        "Three components describe this data.",
        "Keenan and Kotula",
        "emcube reproduce PACKAGE.zip",
        "another measure and another number",
    ):
        assert fact in report, fact
    preview = members[names.PREVIEW].decode()
    linked = set(re.findall(r'href="([^":]+)"', preview))
    assert {name for name in members if "/" not in name} - {names.PREVIEW} <= linked
    assert all(name in members or name.endswith("/") for name in linked)
    assert (
        '<a href="https://orcid.org/0000-0002-1825-0097">Ada Lovelace</a>, B (C &amp; D)' in preview
    )
    assert not re.search(r"<script|<link|src=\"(?!data:)", preview)
    # Nothing is loaded, and nothing runs but what the policy names by its hash.
    assert "default-src &#39;none&#39;" in report
    assert not re.search(r"<link|src=\"(?!data:)", report)
    assert "nmf (3 components)" in members[names.README].decode()
    without = members_of(quick.crate)[names.REPORT].decode()
    assert 'data-curve="' not in without
    assert 'data-parts="' not in without
    assert 'data-curve="' in report
    assert "Principal components" in without


def test_the_report_names_no_place_of_this_machine(lab: Lab, quick: Lab) -> None:
    for one in (lab, quick):
        report = members_of(one.crate)[names.REPORT].decode()
        assert "map.zarr" in report
        for part in (one.folder, one.folder.parent):
            assert str(part) not in report
        # What the result says of itself on this machine stays as it was.
        assert one.result.provenance["input"]["path"] == str(one.store)


def test_the_citation_is_that_of_the_repository() -> None:
    assert software_citation(em.__version__) == (ROOT / "CITATION.cff").read_bytes()


def test_every_variable_has_a_tolerance() -> None:
    for verb, variables in TOLERANCES.items():
        assert set(variables) == set(registered(verb))


def test_the_command_line(quick: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crate = tmp_path / "c.zip"
    arguments = [
        str(quick.result.path),
        str(crate),
        "--include-data",
        "--no-figures",
        "--date",
        DAY,
    ]
    options = ["--creator", "Ada Lovelace", "--license", "CC0-1.0", "--title", "T"]
    assert main(["publish", *arguments, *options, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["title"] == "T"
    assert card["input"]["included"] is True
    assert card["sha256"] == hashlib.sha256(crate.read_bytes()).hexdigest()
    assert main(["publish", *arguments]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["publish", *arguments, "--overwrite"]) == 0
    assert "data    in the package" in capsys.readouterr().out
