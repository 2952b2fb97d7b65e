"""Catalogs behind URLs, catalogs within catalogs, families with parameters; plain Intake reads them all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import emcube as em
from emcube.catalog import add, add_family, open_catalog, reading
from emcube.catalog.crawl import crawl
from emcube.catalog.document import put
from emcube.catalog.plain_yaml import dump
from emcube.catalog.reading import new_document
from emcube.catalog.targets import halves_of
from emcube.catalog.verify import verify_entry
from emcube.cli import main
from emcube.errors import CatalogError, EmcubeError
from tests.catalog.helpers import intake_says, refused, spectrum
from tests.catalog.servers import Server, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path, make_store: Callable[..., Path]) -> Path:
    """A folder with a catalog at its top, one below, and stores."""
    folder = tmp_path / "site"
    add(folder / "top.yaml", make_store(folder / "stores" / "a.zarr", elements=["Ni"]))
    add(folder / "below" / "inner.yaml", make_store(folder / "below" / "b.zarr", elements=["Cr"]))
    add(folder / "top.yaml", folder / "below" / "inner.yaml", name="inner", title="The inner one")
    return folder


@pytest.fixture
def server(site: Path) -> Iterator[Server]:
    with serving() as found:
        for path in site.rglob("*"):
            if path.is_file():
                found.put(f"/{path.relative_to(site).as_posix()}", path)
        yield found


# --- within each other --------------------------------------------------------------------------------


def test_nested_catalogs(site: Path) -> None:
    catalog = open_catalog(site / "top.yaml")
    assert list(catalog) == ["a", "inner"]
    assert catalog["inner"].kind == "catalog"
    assert catalog["inner"].metadata["title"] == "The inner one"
    assert list(catalog["inner"].open_catalog()) == ["b"]
    assert catalog["inner/b"].open().shape == (4, 5, 6)
    assert em.open(f"{site}/top.yaml:inner/b").shape == (4, 5, 6)
    with pytest.raises(CatalogError, match="is a catalog: expected a dataset"):
        catalog["inner"].open()
    with pytest.raises(CatalogError, match="is a dataset, not a catalog"):
        catalog["a"].open_catalog()
    with pytest.raises(CatalogError, match="no entry 'nothing'"):
        catalog["inner/nothing"]
    found = catalog.search(elements="Cr")
    assert list(found) == ["inner/b"]
    assert found["inner/b"].open().shape == (4, 5, 6)
    assert list(catalog.search(elements="Cr", nested=False)) == []
    assert main(["catalog", "show", str(site / "top.yaml"), "inner/b"]) == 0
    assert main(["catalog", "verify", str(site / "top.yaml")]) == 0


def test_plain_intake_reads_nested_catalogs(site: Path) -> None:
    code = f"""
cat = intake.open_catalog({str(site / "top.yaml")!r})
print(cat["inner"].read()["b"].read()["data"].shape)
"""
    assert intake_says(code) == "(4, 5, 6)"


def test_a_nested_catalog_that_is_gone_hides_nothing_else(site: Path) -> None:
    (site / "below" / "inner.yaml").unlink()
    found = open_catalog(site / "top.yaml").search("")
    assert list(found) == ["a"]
    assert "inner" in found.problems[0]
    assert main(["catalog", "search", str(site / "top.yaml")]) == 0


def test_catalogs_that_hold_each_other(site: Path) -> None:
    add(site / "below" / "inner.yaml", site / "top.yaml", name="up")
    found = open_catalog(site / "top.yaml").search("")
    assert list(found) == ["a", "inner/b"]
    assert "nested within itself" in found.problems[0]
    with pytest.raises(CatalogError, match="that catalog itself"):
        add(site / "top.yaml", site / "top.yaml", name="me")


def test_a_catalog_under_two_names_is_listed_once(site: Path) -> None:
    add(site / "top.yaml", site / "below" / "inner.yaml", name="another")
    found = open_catalog(site / "top.yaml").search("")
    assert list(found) == ["a", "inner/b"]
    assert "listed once, as inner" in found.problems[0]


def test_catalogs_that_multiply_are_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight files, each of which names the next one four times: 4 to the power of 7 paths."""
    for n in range(8):
        path, after = tmp_path / f"{n}.yaml", tmp_path / f"{n + 1}.yaml"
        document = new_document()
        for m in range(4):
            key = f"n{m}"
            put(document, key, *halves_of(key, "catalog", f"{{CATALOG_DIR}}/{after.name}", {}))
        path.write_text(dump(document))
    after.write_text(dump(new_document()))
    opened: list[Path] = []
    read = reading.read_bytes
    monkeypatch.setattr(reading, "read_bytes", lambda place: (opened.append(place), read(place))[1])
    found = open_catalog(tmp_path / "0.yaml").search("")
    assert len(opened) == 9
    assert len(found.problems) == 24
    monkeypatch.setattr("emcube.catalog.nesting._MAX_CATALOGS", 3)
    few = open_catalog(tmp_path / "0.yaml").search("")
    assert any("at most 3 catalogs" in one for one in few.problems)


# --- elsewhere ----------------------------------------------------------------------------------------


def test_a_catalog_behind_http(server: Server, tmp_path: Path) -> None:
    catalog = open_catalog(f"{server.address}/top.yaml")
    assert catalog["a"].target.location == f"{server.address}/stores/a.zarr"
    assert catalog["a"].open().shape == (4, 5, 6)
    assert catalog["inner/b"].open().shape == (4, 5, 6)
    assert list(catalog.search(elements="Cr")) == ["inner/b"]
    assert em.open(f"{server.address}/top.yaml:a").shape == (4, 5, 6)
    # A catalog here can name one there.
    add(tmp_path / "mine.yaml", f"{server.address}/top.yaml", name="theirs")
    assert em.open(f"{tmp_path}/mine.yaml:theirs/inner/b").shape == (4, 5, 6)
    assert main(["catalog", "show", f"{server.address}/top.yaml"]) == 0
    for change in (
        ["add", f"{server.address}/top.yaml", str(tmp_path)],
        ["remove", f"{server.address}/top.yaml", "a"],
    ):
        assert main(["catalog", *change]) == 2


def test_plain_intake_reads_it_there(server: Server) -> None:
    code = f"""
cat = intake.open_catalog("{server.address}/top.yaml")
print(cat["a"].read()["data"].shape)
"""
    assert intake_says(code, "aiohttp", "requests") == "(4, 5, 6)"


def test_deep_verification_reads_what_a_server_gives(
    server: Server, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    entry = add(path, f"{server.address}/stores/a.zarr", name="far")
    assert entry.metadata["digest"].startswith("sha256:")
    report = verify_entry(entry, deep=True)
    assert report.differences == report.unchecked == ()
    assert entry.open(verify=True).shape == (4, 5, 6)
    # Other bytes, another status, nothing at all: each is a difference, and none is an accident.
    (name,) = [key for key in server.contents if key.startswith("/stores/a.zarr/data/c/")]
    whole = server.contents[name]
    assert isinstance(whole, Path)
    spoilt = whole.read_bytes()[:-1] + bytes([whole.read_bytes()[-1] ^ 1])
    server.contents[name] = spoilt
    assert verify_entry(entry, deep=True).differences
    server.contents[name] = whole
    server.manners[name].errors = [500] * 50
    assert verify_entry(entry, deep=True).differences
    server.manners[name].errors = []
    del server.contents[name]
    assert verify_entry(entry, deep=True).differences
    capsys.readouterr()
    assert main(["catalog", "verify", str(path), "--deep"]) == 3
    assert "far: DIFFERENT" in capsys.readouterr().out
    with pytest.raises(EmcubeError):
        entry.open(verify=True)
    # Without reading all of it nothing is noticed, and the report says what was compared.
    assert verify_entry(entry).ok


@pytest.mark.parametrize(
    "url",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "{CATALOG_DIR}/../../../a.zarr",
        "C:/Users/me/a.zarr",
        "{CATALOG_DIR}/a/../../b.zarr",
    ],
)
def test_a_catalog_there_reaches_nothing_here(server: Server, url: str) -> None:
    text = f"""\
version: 2
metadata: {{}}
aliases: {{}}
user_parameters: {{}}
data:
  d: {{datatype: 'intake.readers.datatypes:Zarr', kwargs: {{url: '{url}'}}}}
  e: {{datatype: 'intake.readers.datatypes:Zarr', kwargs: {{url: '{{CATALOG_DIR}}/../stores/a.zarr'}}}}
entries:
  bad: {{reader: 'intake.readers.readers:XArrayDatasetReader', kwargs: {{args: ['{{data(d)}}']}}}}
  good: {{reader: 'intake.readers.readers:XArrayDatasetReader', kwargs: {{data: '{{data(e)}}'}}}}
"""
    server.put("/deep/evil.yaml", text.encode())
    catalog = open_catalog(f"{server.address}/deep/evil.yaml")
    with pytest.raises(CatalogError, match="is not opened"):
        catalog["bad"].open()
    assert catalog["good"].open().shape == (4, 5, 6)


def test_addresses_that_lead_nowhere(server: Server) -> None:
    with pytest.raises(CatalogError, match="there is no catalog http"):
        open_catalog(f"{server.address}/none.yaml")
    server.put("/bad.yaml", b"x", errors=[500] * 50)
    with pytest.raises(CatalogError, match="cannot be read"):
        open_catalog(f"{server.address}/bad.yaml")
    with pytest.raises(CatalogError, match="protocol 'ftp'"):
        open_catalog("ftp://127.0.0.1/a.yaml")


def test_a_long_answer_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emcube.catalog.reading._MAX_BYTES", {False: 1000, True: 1000})
    server.put("/long.yaml", b"version: 2\n#" + b"x" * 10_000_000)
    with pytest.raises(CatalogError, match="larger than"):
        open_catalog(f"{server.address}/long.yaml")


# --- families -----------------------------------------------------------------------------------------


@pytest.fixture
def family(tmp_path: Path, make_store: Callable[..., Path]) -> Path:
    for n, tilt in enumerate((-30, 0, 30)):
        for dose in ("low", "high"):
            make_store(tmp_path / "series" / f"t{tilt}_{dose}.zarr", n + 1)
    add(tmp_path / "c.yaml", make_store(tmp_path / "alone.zarr", 9))
    pattern = str(tmp_path / "series" / "t{tilt}_{dose}.zarr")
    values = {"tilt": [0, -30, 30], "dose": ["low", "high"]}
    add_family(tmp_path / "c.yaml", "series", pattern, values, title="A tilt series")
    return tmp_path / "c.yaml"


def test_parameters_pick_one_of_a_family(family: Path) -> None:
    entry = open_catalog(family)["series"]
    assert list(entry.parameters) == ["tilt", "dose"]
    assert entry.parameters["tilt"].options == (0, -30, 30)
    assert np.unique(entry.open()) == [2]
    assert np.unique(entry.open(tilt=-30)) == [1]
    assert np.unique(entry.open(tilt=30, dose="high")) == [3]
    assert np.unique(em.open(f"{family}:series?tilt=-30&dose=high")) == [1]
    assert np.unique(em.open(f"{family}:alone")) == [9]
    assert entry.metadata["parameters"] == {"tilt": [0, -30, 30], "dose": ["low", "high"]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tilt": 7}, "got 7, expected one of 0, -30, 30"),
        ({"tilt": "../../x"}, "expected one of"),
        ({"angle": 0}, "got the parameter 'angle', expected tilt, dose"),
    ],
)
def test_parameters_are_checked(family: Path, values: dict[str, object], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        open_catalog(family)["series"].open(**values)


def test_plain_intake_takes_the_parameters(family: Path) -> None:
    code = f"""
cat = intake.open_catalog({str(family)!r})
print([int(c["series"].read()["data"].max()) for c in (cat, cat(tilt=-30), cat(tilt=30, dose="high"))])
print(int(cat["alone"].read()["data"].max()))
"""
    assert intake_says(code).split("\n") == ["[2, 1, 3]", "9"]


def test_families_that_cannot_be(
    family: Path, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    pattern = str(tmp_path / "series" / "t{tilt}_low.zarr")
    with pytest.raises(CatalogError, match="does not exist"):
        add_family(family, "more", pattern, {"tilt": [0, 45]})
    with pytest.raises(CatalogError, match="do not belong together"):
        add_family(family, "more", pattern, {"dose": ["low"]})
    with pytest.raises(CatalogError, match="with other values already"):
        add_family(family, "more", pattern, {"tilt": [0, 30]})
    assert sorted(open_catalog(family)) == ["alone", "series"]


# --- plain Intake -------------------------------------------------------------------------------------


def test_intake_is_plain_in_these_tests() -> None:
    assert {"emcube", "dask", "rsciio", "h5py", "pydantic"} <= refused()
    assert not {"intake", "xarray", "zarr", "numpy", "pandas", "fsspec", "yaml"} & refused()
    code = "try:\n    import emcube\nexcept ImportError as error:\n    print(error)"
    assert intake_says(code) == "No module named 'emcube'"


def test_plain_intake_opens_what_is_shipped(
    tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    shutil.copytree(ROOT / "catalogs", tmp_path / "catalogs")
    make_store(tmp_path / "demo" / "srm2135c.zarr")
    make_store(tmp_path / "a.zarr", elements=["Ni"])
    spectrum(tmp_path / "b [1].msa")
    add(tmp_path / "own.yaml", tmp_path / "a.zarr")
    add(tmp_path / "own.yaml", tmp_path / "b [1].msa")
    open_catalog(tmp_path / "own.yaml").search(elements="Ni").save(tmp_path / "found.yaml")
    crawl(tmp_path / "crawled.yaml", tmp_path, settle=0)
    code = f"""
from pathlib import Path
folder = Path({str(tmp_path)!r})
for path in sorted(folder.rglob("*.yaml")):
    cat = intake.open_catalog(str(path))
    for name in cat:
        reader = cat[name]
        # What is published would be fetched.
        if path.name == "public.yaml":
            assert reader.metadata["title"], name
            continue
        data = reader.read()
        assert len(data) if isinstance(data, bytes) else data["data"].shape == (4, 5, 6), name
    print(path.name, len(list(cat)))
"""
    told = dict(line.split() for line in intake_says(code).splitlines())
    n_public = len(open_catalog(ROOT / "catalogs" / "public.yaml"))
    assert told == {
        "demo.yaml": "1",
        "public.yaml": str(n_public),
        "own.yaml": "2",
        "found.yaml": "1",
        "crawled.yaml": "2",
    }
