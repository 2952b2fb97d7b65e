"""Packages run again: same bits, other stacks, other data, fetched data, differences."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import zarr

import emcube as em
from emcube.cli import main
from emcube.errors import InputError, PackageError
from emcube.package import publish, reproduce
from emcube.package.archive import digest_of
from emcube.package.compare import compare, stack_differences
from emcube.package.hosts import local_reason, require_public
from emcube.package.manifest import write_manifest
from emcube.package.names import DESCRIPTION, MANIFEST
from emcube.package.rendering import render_reproduction
from emcube.results.digest import array_digest
from emcube.store import write_cube
from tests.package.conftest import (
    DAY,
    QUICK,
    Edit,
    Lab,
    edit_json,
    members_of,
    pack,
    pack_plainly,
    simulated,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def light(quick: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package without data and without an address."""
    return publish(
        quick.result, tmp_path_factory.mktemp("light") / "light.zip", date=DAY, figures=False
    )


def test_same_bits(lab: Lab, tmp_path: Path) -> None:
    crate = shutil.copy(lab.crate, tmp_path / "moved.zip")
    found = em.reproduce(crate)
    assert found.ok
    assert found.identical
    assert found.same_run
    assert found.same_stack
    assert found.source == "in the package"
    assert found.result.path == tmp_path / "moved-reproduced"
    # The seed that the first run drew was used again.
    assert found.result.provenance["seeds"] == lab.result.provenance["seeds"]
    np.testing.assert_array_equal(
        found.result["kmeans"]["labels"].values, lab.result["kmeans"]["labels"].values
    )
    names = [d.name for d in found.differences]
    assert {"nmf/loadings", "kmeans/labels", "input/total_counts"} <= set(names)
    assert "estimate_n_components: number" in names
    assert "reproduced, the same bits" in render_reproduction(found)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["moved-reproduced", "moved.zip"]
    with pytest.raises(InputError, match="holds a result already"):
        em.reproduce(crate)


def test_the_command_line(quick: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", str(quick.crate), "--out", str(tmp_path / "r"), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["ok"]
    assert card["identical"]
    assert card["run_id"] == card["published_run_id"] == quick.result.run_id
    assert main(["reproduce", str(quick.crate), "--out", str(tmp_path / "r")]) == 2
    assert "holds a result already" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["store", "events", "cube"])
def test_data_that_are_given(kind: str, quick: Lab, light: Path, tmp_path: Path) -> None:
    given: Any = quick.store
    if kind == "cube":
        given = simulated()
    elif kind == "events":
        given = write_cube(simulated(), tmp_path / "events.zarr", layout="events")
    found = reproduce(light, out=tmp_path / "r", input=given)
    assert found.ok
    assert found.source == "as given"
    # Events come in blocks of their own: then it is another run, and bits may differ.
    assert found.same_run == found.same_stack
    if kind != "events":
        assert found.identical


def test_data_that_are_missing_or_others(light: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not hold the data of its run .*addresses: none"):
        reproduce(light, out=tmp_path / "r")
    other = write_cube(simulated(1), tmp_path / "other.zarr")
    with pytest.raises(InputError, match="is not the input of this run"):
        reproduce(light, out=tmp_path / "r", input=other)
    with pytest.raises(InputError, match="the cube in hand is not the input"):
        reproduce(light, out=tmp_path / "r", input=simulated(1))
    assert [p.name for p in tmp_path.iterdir()] == ["other.zarr"]


def test_results_go_into_the_present_folder(
    quick: Lab, light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    shutil.copy(light, tmp_path / "rr.zip")
    monkeypatch.chdir(here)
    found = reproduce("../rr.zip", input=quick.store)
    assert found.result.path == here / "rr-reproduced"
    assert str(here / "rr-reproduced") in render_reproduction(found)
    # Data that are others are told before the folder that is there.
    other = write_cube(simulated(1), tmp_path / "other.zarr")
    with pytest.raises(InputError, match="is not the input of this run"):
        reproduce("../rr.zip", input=other)
    with pytest.raises(InputError, match="holds a result already"):
        reproduce("../rr.zip", input=quick.store)


def test_a_cube_in_hand_was_published(tmp_path: Path) -> None:
    cube = simulated()
    result = em.run({"steps": QUICK}, cube, out=tmp_path / "r")
    crate = publish(
        result, tmp_path / "c.zip", include_data=True, input=cube, date=DAY, figures=False
    )
    found = reproduce(crate)
    assert found.ok
    assert found.identical


# ---------------------------------------------------------------------------------------- differences


def forged(crate: Path, path: Path, variable: str, factor: float) -> Path:
    """A package whose result holds other values, with right digests everywhere."""
    folder = path.with_suffix("")
    with zipfile.ZipFile(crate) as archive:
        archive.extractall(folder)
    result, (node, name) = folder / "result", variable.split("/")
    array: Any = zarr.open_array(str(result), path=variable, mode="r+")
    array[...] = array[...] * factor
    group = zarr.open_group(str(result), path=node, mode="r+")
    marker: Any = dict(group.attrs["emcube"])  # type: ignore[arg-type]
    marker["digests"] = {**marker["digests"], name: array_digest(array)}
    group.update_attributes({"emcube": marker})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(result))
    members = {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }
    shutil.rmtree(folder)
    return pack(path, members)


def test_a_difference_is_found_and_told(
    quick: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crate = forged(quick.crate, tmp_path / "forged.zip", "pca/singular_values", 1.5)
    assert main(["reproduce", str(crate)]) == 3
    said = capsys.readouterr().out
    assert "NOT REPRODUCED" in said
    assert "pca/singular_values" in said
    assert "outside" in said
    # One bit is too much on the same stack, whatever the tolerance.
    crate = forged(quick.crate, tmp_path / "little.zip", "pca/singular_values", 1 + 1e-15)
    found = reproduce(crate)
    assert not found.ok
    (differing,) = [d for d in found.differences if not d.identical]
    assert differing.name == "pca/singular_values"
    assert 0 < differing.difference < 1e-14
    assert differing.within


def _in_both(members: dict[str, bytes], node: str, edit: Edit) -> None:
    """Change a document of the result and the root's copy of it."""
    edit_json(members, f"result/{node}/zarr.json", edit)
    edit_json(
        members,
        "result/zarr.json",
        lambda d: edit(d["consolidated_metadata"]["metadata"][node]),
    )


def _attributes(node: str, **changes: Any) -> Callable[[dict[str, bytes]], None]:
    return lambda members: _in_both(members, node, lambda d: d["attributes"].update(changes))


def _line(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: members[name] + b"It was Titanium.\n"})


def _provenance(members: dict[str, bytes]) -> None:
    def edit(plain: dict[str, Any]) -> None:
        plain["attributes"]["provenance"]["cube"]["units"] = "A"

    edit_json(members, "result/zarr.json", edit)


FORGED: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "iterations": (
        _attributes("pca", n_iter=999),
        "pca: n_iter .*999 in place|pca: n_iter .*in place of 999",
    ),
    "convergence": (_attributes("pca", converged=False), "pca: converged"),
    "a number of a step": (_attributes("pca", noise_variance=42.0), "pca: noise_variance"),
    "the unit of an axis": (
        _attributes("pca/energy", units="eV"),
        "pca/energy: units .*keV in place of eV",
    ),
    "the unit of values": (_attributes("pca/mean", units="A"), "pca/mean: units"),
    "the unit of the cube": (_provenance, "provenance: cube.units"),
    "elements": (
        _attributes("input", metadata={"elements": ["Ti"], "modality": "EDS"}),
        "input: metadata.elements",
    ),
    "METHODS.md": (_line("METHODS.md"), "differs: .*METHODS.md"),
    "references.bib": (_line("references.bib"), "differs: .*references.bib"),
    "CITATION.cff": (_line("CITATION.cff"), "differs: .*CITATION.cff"),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_is_said_beside_the_numbers_is_compared(name: str, quick: Lab, tmp_path: Path) -> None:
    edit, message = FORGED[name]
    members = members_of(quick.crate)
    edit(members)
    found = reproduce(pack(tmp_path / "crate.zip", members))
    said = render_reproduction(found)
    assert not found.ok
    assert found.identical
    assert said.startswith(f"{found.crate}: NOT REPRODUCED")
    assert re.search(message, said), said


def test_what_is_not_compared_is_named(quick: Lab, tmp_path: Path) -> None:
    members = members_of(quick.crate)
    members["report.html"] += b"It was Titanium."
    found = reproduce(pack(tmp_path / "crate.zip", members))
    assert found.ok
    assert found.same_records
    assert len(found.records) > 50
    said = render_reproduction(found)
    assert "not compared: report.html (figures and text of the report); README.md" in said
    assert "no seal" not in said
    digests = {k: digest_of(v) for k, v in members.items() if k != MANIFEST}
    members[MANIFEST] = write_manifest(digests)
    found = reproduce(pack_plainly(tmp_path / "plain.zip", members))
    assert found.ok
    assert not found.to_json()["sealed"]
    assert "reproduced, the same bits; the archive has no seal" in render_reproduction(found)


def test_what_is_said_of_other_copies_of_the_data_is_told(
    quick: Lab, light: Path, tmp_path: Path
) -> None:
    cube = simulated()
    cube.attrs["metadata"] = {**cube.attrs["metadata"], "elements": ["Ti"]}
    found = reproduce(light, out=tmp_path / "r", input=cube)
    assert found.ok
    assert not found.same_records
    assert "the same bits; what is said of the data differs" in render_reproduction(found)


def test_another_stack_has_tolerances(quick: Lab, tmp_path: Path) -> None:
    """OpenBLAS with the kernels of another processor, in a process of its own."""
    ran = [b.get("architecture") for b in quick.result.provenance["stack"]["blas"]]
    if not any(
        b.get("internal_api") == "openblas" for b in quick.result.provenance["stack"]["blas"]
    ):
        pytest.skip("this BLAS has no kernels to choose from")
    other = "Nehalem" if "Nehalem" not in ran else "Haswell"
    done = subprocess.run(
        [sys.executable, "-m", "emcube", "reproduce", str(quick.crate), "--out", "r", "--json"],
        cwd=tmp_path,
        env={**os.environ, "OPENBLAS_CORETYPE": other, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    if card["same_stack"]:
        pytest.skip("this machine cannot run the kernels of another processor")
    assert any("BLAS" in key for key in card["stack"])
    assert card["ok"]
    assert card["run_id"] == quick.result.run_id
    assert all(d["within"] for d in card["differences"])


def test_comparing(lab: Lab, quick: Lab, tmp_path: Path) -> None:
    same = compare(lab.result, lab.result)
    assert all(d.identical and d.difference == 0 for d in same)
    found = {d.name: d for d in compare(lab.result, quick.result)}
    assert found["nmf"].remark == "missing"
    assert not found["nmf"].within
    assert "in place of" in found["pca/components"].remark
    assert found["input/total_counts"].identical
    other = em.run({"steps": QUICK}, simulated(3), out=tmp_path / "r")
    found = {d.name: d for d in compare(quick.result, other)}
    assert not found["pca/mean"].identical
    assert 0 < found["pca/mean"].difference < 1
    assert not found["pca/mean"].within


def test_stacks_are_compared_by_what_bits_depend_on(quick: Lab) -> None:
    provenance = quick.result.provenance
    assert stack_differences(provenance, provenance) == {}
    stack = provenance["stack"]
    other = {
        **provenance,
        "stack": {
            **stack,
            "n_cpus": 99,
            "platform": stack["platform"].replace("Linux-", "Linux-9.9-"),
        },
    }
    assert stack_differences(provenance, other) == {}
    newer = {**stack, "libraries": {**stack["libraries"], "numpy": "99.0"}}
    assert list(stack_differences(provenance, {**provenance, "stack": newer})) == ["numpy version"]
    layout = {**provenance["layout"], "block_shape": [1, 1]}
    assert list(stack_differences(provenance, {**provenance, "layout": layout})) == ["block layout"]


# --------------------------------------------------------------------------------------------- fetching


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves files by ranges; a folder `dropping` cuts the connection, `failing` answers 500 at first."""

    tries: ClassVar[dict[str, int]] = {}

    def log_message(self, *args: object) -> None:
        pass

    def _sent_on(self) -> bool:
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/away"))
            self.end_headers()
        return self.path.startswith("/away/")

    def do_HEAD(self) -> None:
        if not self._sent_on():
            super().do_HEAD()

    def do_GET(self) -> None:
        if self._sent_on():
            return
        path = Path(self.translate_path(self.path))
        n = self.tries[self.path] = self.tries.get(self.path, 0) + 1
        if "failing" in self.path and n == 1:
            self.send_error(500)
            return
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        start = 0
        if self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        part = data[start:]
        if "dropping" in self.path and n < 3:
            part = part[: len(part) // 2]
            self.close_connection = True
        self.wfile.write(part)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """URL of a web server, and the folder that it serves."""
    Server.tries.clear()
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Server, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def test_a_store_is_fetched_once(quick: Lab, server: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = server
    shutil.copytree(quick.store, folder / "map.zarr")
    crate = publish(
        quick.result,
        tmp_path / "c.zip",
        address=f"{url}/map.zarr",
        date=DAY,
        figures=False,
        allow_local_addresses=True,
    )
    with pytest.raises(InputError, match="without --offline"):
        reproduce(crate, out=tmp_path / "a", offline=True)
    found = reproduce(crate, out=tmp_path / "a", allow_local_addresses=True)
    assert found.ok
    assert found.identical
    assert found.source == "fetched"
    shutil.rmtree(folder / "map.zarr")
    again = reproduce(crate, out=tmp_path / "b", offline=True)
    assert again.identical
    assert again.source == "from the cache"


@pytest.mark.parametrize("how", ["plain", "dropping", "failing"])
def test_a_file_is_fetched(
    how: str, server: tuple[str, Path], tmp_path: Path, data_dir: Path
) -> None:
    url, folder = server
    (folder / how).mkdir()
    file = folder / how / "bare core.hspy"
    shutil.copy(data_dir / "eds_tem_fept" / "bare_core.hspy", file)
    result = em.run({"input": {"path": str(file)}, "steps": QUICK}, out=tmp_path / "r")
    address = f"{url}/{how}/bare%20core.hspy"
    crate = publish(
        result,
        tmp_path / "c.zip",
        address=address,
        date=DAY,
        figures=False,
        allow_local_addresses=True,
    )
    found = reproduce(crate, allow_local_addresses=True)
    assert found.ok
    assert found.identical
    assert found.source == "fetched"
    assert (
        Server.tries[f"/{how}/bare%20core.hspy"] == {"plain": 1, "dropping": 3, "failing": 2}[how]
    )


def test_what_cannot_be_fetched_is_told(
    quick: Lab, server: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = server
    write_cube(simulated(1), folder / "other.zarr")
    shutil.copytree(quick.store, folder / "damaged.zarr")
    chunk = next(p for p in (folder / "damaged.zarr" / "data" / "c").rglob("*") if p.is_file())
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    shutil.copytree(quick.store, folder / "climbing.zarr")
    manifest = folder / "climbing.zarr" / ".emcube" / "manifest.json"
    listed = json.loads(manifest.read_text())
    listed["files"]["../../../evil"] = [4, "0" * 32]
    manifest.write_text(json.dumps(listed))
    places = ("none.zarr", "other.zarr", "damaged.zarr", "climbing.zarr", "none.bcf")
    crate = publish(
        quick.result,
        tmp_path / "c.zip",
        address=[f"{url}/{p}" for p in places],
        date=DAY,
        figures=False,
        allow_local_addresses=True,
    )
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match="could not be fetched") as caught:
        reproduce(crate, out=tmp_path / "r", cache=cache, allow_local_addresses=True)
    said = str(caught.value)
    assert "none.zarr cannot be read" in said
    assert "other.zarr holds a cube of the digest" in said
    assert "is not what the store's manifest says" in said
    assert "names the file '../../../evil'" in said
    assert "none.bcf cannot be fetched: the server says 404" in said
    assert not (tmp_path / "r").exists()
    assert [p.name for p in (cache / "cubes").iterdir() if not p.name.endswith(".lock")] == []


LOCAL = [
    "http://127.0.0.1:8000/map.zarr",
    "http://127.1/map.bcf",
    "http://2130706433/map.bcf",
    "http://[::1]/map.zarr",
    "http://[::ffff:10.0.0.1]/map.zarr",
    "http://169.254.169.254/latest/meta-data/x",
    "https://192.168.1.20/map.zarr",
    "https://10.0.0.1/map.zarr",
    "http://localhost/map.zarr",
    "http://microscope/map.zarr",
    "http://metadata.google.internal/map.zarr",
]


@pytest.mark.parametrize("url", LOCAL)
def test_hosts_of_this_network_are_not_asked(url: str, quick: Lab, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is none at which others find the input"):
        publish(quick.result, tmp_path / "c.zip", address=url)
    with pytest.raises(PackageError, match=r"is not fetched: .*--allow-local-addresses"):
        require_public(url)
    assert local_reason("https://1.1.1.1/map.zarr") == ""


def test_a_package_may_not_send_us_into_this_network(
    quick: Lab, server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    shutil.copytree(quick.store, folder / "map.zarr")
    places = [f"{url}/map.zarr", f"{url}/map.bcf"]
    crate = publish(
        quick.result,
        tmp_path / "c.zip",
        address=places,
        date=DAY,
        figures=False,
        allow_local_addresses=True,
    )
    with pytest.raises(InputError, match=r"could not be fetched: .*127.0.0.1 is no address of"):
        reproduce(crate, out=tmp_path / "r")
    assert Server.tries == {}
    # A server of the public net sends us on: this one counts as public, where it sends us does not.
    away = publish(
        quick.result,
        tmp_path / "away.zip",
        address=[f"{url}/away/map.zarr", f"{url}/away/map.bcf"],
        date=DAY,
        figures=False,
        allow_local_addresses=True,
    )
    monkeypatch.setattr(
        "emcube.package.hosts.local_reason",
        lambda place, **_: "" if "/away/" in place else "it is local",
    )
    with pytest.raises(InputError) as caught:
        reproduce(away, out=tmp_path / "r")
    assert str(caught.value).count("is not fetched: it is local") == 2
    assert Server.tries == {}


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secret@host.org/a.zarr",
        "https://host.org/a.zarr?sig=secret",
        "https://me@h.org/a",
    ],
)
def test_a_package_with_a_password_is_refused(url: str, quick: Lab, tmp_path: Path) -> None:
    members = members_of(quick.crate)
    edit_json(
        members,
        DESCRIPTION,
        lambda d: d["input"].update(addresses=[{"url": url, "kind": "store"}]),
    )
    with pytest.raises(PackageError, match="holds a user, a password or a query") as caught:
        reproduce(pack(tmp_path / "c.zip", members))
    assert "secret" not in str(caught.value)
