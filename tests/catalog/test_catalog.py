"""Catalogs: plain Intake reads what emcube writes, searching knows microscopy, strangers' code stays off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import emcube as em
from emcube.catalog import add, create, open_catalog, resolve
from emcube.catalog.document import change
from emcube.errors import CatalogError, CubeError, ReadError
from emcube.store import read_digest, write_cube
from tests.catalog.helpers import intake_says

ROOT = Path(__file__).parents[2]


def make_store(path: Path, value: int = 1, **metadata: object) -> Path:
    cube = em.make_cube(
        np.full((4, 5, 6), value, "uint8"),
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": np.arange(6) * 0.01},
        units={"energy": "keV", "x": "nm", "y": "nm"},
        metadata=metadata,
    )
    return write_cube(cube, path)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four stores, and a catalog of them in a folder beside."""
    folder = tmp_path_factory.mktemp("lab")
    path, stores = folder / "catalogs" / "lab.yaml", folder / "stores"
    eds = {"modality": "EDS", "elements": ["Ni", "Cr", "Si"], "beam_energy_keV": 200}
    add(path, make_store(stores / "multilayer.zarr", **eds), title="Nickel and chromium discs")
    stone = {"modality": "EDX", "elements": "Na,Al Si", "beam_energy_keV": 15, "lab": "Bochum"}
    add(path, make_store(stores / "b.zarr"), name="jadeite", **stone)
    edge = {"modality": "EELS", "elements": ["Fe"], "beam_energy_keV": 300}
    add(path, make_store(stores / "c.zarr"), name="edge", **edge)
    add(path, make_store(stores / "d.zarr"), name="unknown")
    return folder


@pytest.fixture
def catalog(lab: Path, tmp_path: Path) -> Path:
    """A copy of the lab's catalog and stores."""
    shutil.copytree(lab, tmp_path, dirs_exist_ok=True)
    return tmp_path / "catalogs" / "lab.yaml"


def test_plain_intake_reads_a_catalog(catalog: Path) -> None:
    # In another folder, in a process of its own, where nothing of emcube can help.
    code = f"""
cat = intake.open_catalog({str(catalog)!r})
assert sorted(cat) == ["edge", "jadeite", "multilayer", "unknown"], list(cat)
data = cat["multilayer"].read()
# Lazy without Dask: nothing is in memory before it is asked for.
assert not data["data"].variable._in_memory
assert data["data"].shape == (4, 5, 6)
assert int(data["total_counts"].sum()) == 120
assert cat["multilayer"].metadata["elements"] == ["Ni", "Cr", "Si"]
"""
    intake_says(code)
    import intake

    assert (
        intake.open_catalog(str(catalog))["multilayer"].read(chunks={})["data"].chunks is not None
    )


def test_stores_are_found_beside_a_catalog_that_moved(catalog: Path, tmp_path: Path) -> None:
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    found = open_catalog(moved / "catalogs" / "lab.yaml")
    assert found["jadeite"].open().shape == (4, 5, 6)
    assert "{CATALOG_DIR}/../stores/b.zarr" in (moved / "catalogs" / "lab.yaml").read_text()


def test_entries_know_what_the_store_says(catalog: Path, tmp_path: Path) -> None:
    entry = open_catalog(catalog)["multilayer"]
    assert entry.metadata["modality"] == "EDS"
    assert entry.metadata["dims"] == ["y", "x", "energy"]
    assert entry.metadata["shape"] == [4, 5, 6]
    assert entry.metadata["digest"] == read_digest(tmp_path / "stores" / "multilayer.zarr")
    assert entry.metadata["title"] == "Nickel and chromium discs"
    assert entry.metadata["axes"]["energy"]["units"] == "keV"
    assert entry.available
    assert entry.to_json()["store"] == str(tmp_path / "stores" / "multilayer.zarr")
    assert entry.open("total_counts").shape == (4, 5)


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ({}, ["multilayer", "jadeite", "edge", "unknown"]),
        ({"modality": "EDS"}, ["multilayer", "jadeite"]),
        ({"modality": "xeds"}, ["multilayer", "jadeite"]),
        ({"modality": "STEM-EELS"}, ["edge"]),
        ({"modality": "4D-STEM"}, []),
        ({"elements": ["Ni", "Cr"]}, ["multilayer"]),
        ({"elements": "si"}, ["multilayer", "jadeite"]),
        ({"elements": ["Si", "Fe"]}, []),
        ({"beam_energy": (80, 300)}, ["multilayer", "edge"]),
        ({"beam_energy": 15}, ["jadeite"]),
        ({"text": "NICKEL discs"}, ["multilayer"]),
        ({"text": "jade"}, ["jadeite"]),
        ({"text": "bochum", "modality": "EDS"}, ["jadeite"]),
        ({"lab": "Bochum"}, ["jadeite"]),
        ({"modality": "EDS", "elements": ["Ni", "Cr"], "beam_energy": (80, 300)}, ["multilayer"]),
    ],
)
def test_search(catalog: Path, condition: dict, names: list[str]) -> None:
    found = em.open_catalog(catalog).search(**condition)
    assert list(found) == names
    for name in found:
        assert found[name].open().dims == ("y", "x", "energy")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"elements": ["Nickel"]}, "expected symbols of chemical elements"),
        ({"beam_energy": (300, 80)}, "lowest, highest"),
        ({"beam_energy": "much"}, "lowest, highest"),
        ({"beam_energy": (1, 2, 3)}, "lowest, highest"),
        ({"labb": "Bochum"}, "no entry of .* has it; did you mean 'lab'"),
    ],
)
def test_searches_that_make_no_sense(catalog: Path, condition: dict, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        open_catalog(catalog).search(**condition)


def test_adding(catalog: Path, tmp_path: Path) -> None:
    store = tmp_path / "stores" / "d.zarr"
    with pytest.raises(CatalogError, match="has an entry 'jadeite' already"):
        add(catalog, store, name="jadeite")
    add(catalog, store, name="jadeite", overwrite=True)
    assert "lab" not in open_catalog(catalog)["jadeite"].metadata
    with pytest.raises(CatalogError, match="cannot be the name"):
        add(catalog, store, name="C:jadeite")
    with pytest.raises(CatalogError, match="cannot be the name"):
        add(catalog, store, name="jadeite, again")
    with pytest.raises(CatalogError, match="does not exist"):
        add(catalog, tmp_path / "none.zarr")
    (tmp_path / "map.bcf").write_text("x")
    with pytest.raises(ReadError, match="is not a Bruker map"):
        add(catalog, tmp_path / "map.bcf")
    with pytest.raises(CatalogError, match=r"is a folder, but not a cube store"):
        add(catalog, tmp_path / "stores")
    (tmp_path / "{env(HOME)}").mkdir()
    with pytest.raises(CatalogError, match="braces in a path"):
        add(catalog, shutil.copytree(store, tmp_path / "{env(HOME)}" / "e.zarr"))
    with pytest.raises(CubeError, match="not the symbol of a chemical element"):
        add(catalog, store, name="x", elements=["Xy"])
    assert len(open_catalog(catalog)) == 4
    assert not list(catalog.parent.glob(".*"))


def test_comments_at_the_top_survive(catalog: Path, tmp_path: Path) -> None:
    catalog.write_text("# Our lab's cubes.\n# Ask before removing.\n" + catalog.read_text())
    add(catalog, tmp_path / "stores" / "d.zarr", name="again")
    assert catalog.read_text().startswith(
        "# Our lab's cubes.\n# Ask before removing.\nversion: 2\n"
    )


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    store, path = make_store(tmp_path / "a.zarr"), tmp_path / "c.yaml"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: add(path, store, name=f"entry {i}"), range(12)))
    assert len(open_catalog(path)) == 12


def test_a_failed_change_leaves_the_file(catalog: Path) -> None:
    """The file may not grow beyond 64 bytes: the real writer fails half-way, as on a full disk."""
    pytest.importorskip("resource", reason="limits on file sizes are POSIX")
    code = (
        "import resource, sys; from pathlib import Path; from emcube.catalog import document\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
        "document.change(Path(sys.argv[1]), lambda d: d['entries'].popitem())"
    )
    before = catalog.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", code, str(catalog)], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert catalog.read_bytes() == before
    assert not [p.name for p in catalog.parent.iterdir() if "tmp" in p.name]


def test_a_link_to_a_catalog_stays_one(tmp_path: Path) -> None:
    real, link = tmp_path / "shared" / "c.yaml", tmp_path / "mine" / "c.yaml"
    add(real, make_store(tmp_path / "shared" / "a.zarr"))
    link.parent.mkdir()
    link.symlink_to(real)
    with ThreadPoolExecutor(4) as pool:
        store = tmp_path / "shared" / "a.zarr"
        list(pool.map(lambda i: add((real, link)[i % 2], store, name=f"e{i}"), range(6)))
    assert link.is_symlink()
    assert len(open_catalog(real)) == len(open_catalog(link)) == 7
    assert [one.name for one in link.parent.iterdir()] == ["c.yaml"]
    for place in (real, link):
        assert open_catalog(place)["e1"].open().shape == (4, 5, 6)


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_the_mode_of_a_catalog_stays(catalog: Path, tmp_path: Path) -> None:
    catalog.chmod(0o640)
    add(catalog, tmp_path / "stores" / "d.zarr", name="again")
    assert catalog.stat().st_mode & 0o777 == 0o640


WRITER = """
import sys
from pathlib import Path
from emcube.catalog.document import change, put
from emcube.catalog.targets import halves_of
for i in range(int(sys.argv[3])):
    name = f"{sys.argv[2]} {i}"
    address = "{CATALOG_DIR}/a.zarr"
    change(Path(sys.argv[1]), lambda d: put(d, name, *halves_of(name, "zarr", address, {"title": name})))
    print(name, flush=True)
"""


def writers(path: Path, n: int) -> list[subprocess.Popen[str]]:
    """Processes that each add entries and tell each one that is in."""
    return [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name, str(n)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("first", "second", "third")
    ]


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    started = writers(path, 8)
    told = [process.communicate(timeout=200)[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sorted(open_catalog(path)) == sorted(name for names in told for name in names)
    assert len(open_catalog(path)) == 24
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


def test_killed_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    started = writers(path, 100_000)
    told = []
    for process in started:
        assert process.stdout is not None
        told += [process.stdout.readline().strip() for _ in range(3)]
    for process in started:
        process.kill()
    for process in started:
        told += process.communicate(timeout=60)[0].splitlines()
    # The last line of a process may have been cut off when it was killed.
    whole = {name for name in told if name in open_catalog(path)}
    assert len(set(told) - whole) <= len(started)
    assert all(name in whole for name in told[:9])
    # What they held and left is nobody's: the next one goes on at once.
    start = time.monotonic()
    change(path, lambda document: None)
    assert time.monotonic() - start < 30
    assert whole <= set(open_catalog(path))
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


def test_create(tmp_path: Path) -> None:
    assert len(create(tmp_path / "new.yaml", title="Mine")) == 0
    with pytest.raises(CatalogError, match="exists already"):
        create(tmp_path / "new.yaml")


def test_an_instrument_file_is_an_entry_and_runs(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(3, (12, 14, 20)).astype("u2")
    np.save(tmp_path / "map.npy", counts)
    entry = add(tmp_path / "c.yaml", tmp_path / "map.npy", modality="EDX", elements=["Ni"])
    assert entry.kind == "file"
    assert entry.metadata["shape"] == [12, 14, 20]
    assert entry.metadata["checksum"].startswith("sha256:")
    assert entry.open().shape == em.open(f"{tmp_path}/c.yaml:map").shape == (12, 14, 20)
    recipe = {
        "input": {"catalog": str(tmp_path / "c.yaml"), "dataset": "map"},
        "steps": [{"pca": {"n_components": 3}}],
    }
    made = em.run(recipe, out=tmp_path / "result")
    assert made["pca"]["components"].shape == (3, 20)
    assert em.ingest(f"{tmp_path}/c.yaml:map", tmp_path / "map.zarr") == tmp_path / "map.zarr"


# --- references -----------------------------------------------------------------------------------


def test_references(catalog: Path, tmp_path: Path) -> None:
    entry = resolve(f"{catalog}:jadeite")
    assert entry is not None
    assert entry.name == "jadeite"
    assert em.open(f"{catalog}:jadeite").shape == (4, 5, 6)
    with pytest.raises(CatalogError, match="no entry 'nephrite'"):
        resolve(f"{catalog}:nephrite")
    with pytest.raises(CatalogError, match="expected one of its entries"):
        resolve(str(catalog))
    with pytest.raises(CatalogError, match="there is no catalog"):
        resolve("nowhere.yaml:jadeite")


@pytest.mark.parametrize(
    "text", ["map.bcf", r"C:\data\map.bcf", "https://host/a.zarr", "/a/b.zarr", "s3://b/a:1.zarr"]
)
def test_what_is_no_reference(text: str) -> None:
    assert resolve(text) is None


def test_a_drive_of_windows_is_no_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("emcube.catalog.model.open_catalog", lambda p: asked.append(p) or {"x": 1})
    resolve(r"C:\lab\cubes.yaml:x")
    assert asked == [r"C:\lab\cubes.yaml"]


def test_the_demo_catalog_says_how_to_get_its_store(tmp_path: Path) -> None:
    text = (ROOT / "catalogs" / "demo.yaml").read_text()
    (tmp_path / "catalogs").mkdir()
    path = tmp_path / "catalogs" / "demo.yaml"
    path.write_text(text)
    with pytest.raises(CatalogError, match=r"does not exist; run `make demo` \(or `emcube demo`\)"):
        em.open(f"{path}:srm2135c")
    make_store(tmp_path / "demo" / "srm2135c.zarr")
    assert em.open(f"{path}:srm2135c").shape == (4, 5, 6)
    assert list(open_catalog(path).search(modality="EDS", elements=["Ni", "Cr"])) == ["srm2135c"]
    code = f"print(intake.open_catalog({str(path)!r})['srm2135c'].read().data.shape)"
    assert intake_says(code) == "(4, 5, 6)"


# --- Intake ----------------------------------------------------------------------------------------


def test_harmless_catalogs_open_with_intake(catalog: Path) -> None:
    assert "jadeite" in open_catalog(catalog).to_intake().entries


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!python/object/apply:os.system ['echo']", "not valid YAML"),
        ("version: 2\nentries: [", "not valid YAML"),
        ("sources: {}", "Intake 1"),
        ("version: 3", "not a catalog"),
        ("- a list", "not a catalog"),
        ("", "not a catalog"),
        ("version: 2\nentries: [1]", "`entries` is a list"),
    ],
)
def test_files_that_are_no_catalogs(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(CatalogError, match=message):
        open_catalog(tmp_path / "a.yaml")


def test_catalogs_that_intake_wrote(catalog: Path, tmp_path: Path) -> None:
    # Hashed keys, and names by alias; and what Intake adds when it saves a loaded catalog.
    from intake.readers import datatypes, readers
    from intake.readers.entry import Catalog

    written = Catalog()
    data = datatypes.Zarr(str(tmp_path / "stores" / "b.zarr"))
    entry = readers.XArrayDatasetReader(data, engine="zarr", chunks={}, metadata={"lab": "X"})
    token = written.add_entry(entry)
    written.aliases["stone"] = token
    written.to_yaml_file(str(tmp_path / "once.yaml"))
    Catalog.from_yaml_file(str(tmp_path / "once.yaml")).to_yaml_file(str(tmp_path / "twice.yaml"))
    for name in ("once.yaml", "twice.yaml"):
        found = open_catalog(tmp_path / name)
        assert list(found) == ["stone"]
        assert found["stone"].open().shape == (4, 5, 6)
