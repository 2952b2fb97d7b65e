"""Cubes and results on a web server: opened, verified, run from; patient where a fault may pass."""

from __future__ import annotations

import pickle
import traceback

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.cli import main
from emcube.errors import IncompleteError, InputError, StoreError
from emcube.store import info, open_cube, read_digest, verify, write_cube
from tests.remote.conftest import STEPS, Web


@pytest.fixture
def served(web: Web, cube: xr.DataArray) -> Web:
    write_cube(cube, web.folder / "map.zarr")
    return web


def test_a_run_from_a_web_server_is_the_run_from_a_folder(served: Web, tmp_path, cube) -> None:
    url = f"{served.url}/map.zarr"
    far = em.run({**STEPS, "input": {"path": url}}, out=tmp_path / "far")
    near = em.run(
        {**STEPS, "input": {"path": str(served.folder / "map.zarr")}}, out=tmp_path / "near"
    )
    assert far.run_id == near.run_id
    assert far.provenance["input"]["path"] == url
    for step, name in (("pca", "loadings"), ("nmf", "components"), ("nmf", "loadings")):
        np.testing.assert_array_equal(far[step][name].values, near[step][name].values)


def test_events_behind_a_web_server(web: Web, cube) -> None:
    write_cube(cube, web.folder / "map.zarr", layout="events")
    np.testing.assert_array_equal(em.open(f"{web.url}/map.zarr").values, cube.values)


def test_a_result_opens_from_a_web_server(web: Web, cube, capsys) -> None:
    near = em.run(STEPS, cube, out=web.folder / "result")
    url = f"{web.url}/result"
    far = em.open_result(url)
    assert (far.run_id, far.steps, far.location) == (near.run_id, near.steps, url)
    assert far.complete
    again = pickle.loads(pickle.dumps(far["nmf"]["loadings"]))
    np.testing.assert_array_equal(again.values, near["nmf"]["loadings"].values)
    assert far.verify() == {}
    with pytest.raises(StoreError, match="no folder of this machine"):
        _ = far.path
    assert main(["info", url]) == 0
    assert "nmf" in capsys.readouterr().out


def test_a_chunk_of_a_result_that_is_missing_there(web: Web, cube) -> None:
    near = em.run(STEPS, cube, out=web.folder / "result")
    chunk = next(p for p in (near.path / "nmf" / "loadings" / "c").rglob("*") if p.is_file())
    chunk.unlink()
    with pytest.raises(StoreError, match="does not exist, and zarr would read it as fill values"):
        em.open_result(f"{web.url}/result")["nmf"]["loadings"].compute()


def test_an_unfinished_result_there(web: Web, cube) -> None:
    near = em.run(STEPS, cube, out=web.folder / "result")
    root = near.path / "zarr.json"
    root.write_text(root.read_text().replace('"complete": true', '"complete": false', 1))
    with pytest.raises(IncompleteError, match="never finished"):
        em.open_result(f"{web.url}/result")
    with pytest.raises(StoreError, match="there is no result"):
        em.open_result(f"{web.url}/none")


@pytest.mark.parametrize("fault", ["500", "503", "drop", "short", "slow"])
def test_faults_that_pass_are_waited_for(served: Web, cube, fault: str, monkeypatch) -> None:
    monkeypatch.setattr("emcube.store.remote.PAUSES", (0.05, 0.1))
    far = em.open(f"{served.url}/map.zarr")
    served.plan({"/data/c/0/0/0": [fault, fault]})
    np.testing.assert_array_equal(far.values, cube.values)


def test_faults_that_last_are_told(served: Web, monkeypatch) -> None:
    monkeypatch.setattr("emcube.store.remote.PAUSES", (0.01,))
    far = em.open(f"{served.url}/map.zarr")
    for fault, said in (("500", "500"), ("403", "403"), ("drop", "cannot be read")):
        served.plan({"/data/c/0/0/0": [f"always {fault}"]})
        with pytest.raises(
            StoreError, match=f"map.zarr/data/c/0/0/0 cannot be read.*{said}|{said}"
        ):
            far.compute()


def test_a_result_is_read_patiently(web: Web, cube, monkeypatch) -> None:
    monkeypatch.setattr("emcube.results.remote.PAUSES", (0.05, 0.1))
    near = em.run(STEPS, cube, out=web.folder / "result")
    far = em.open_result(f"{web.url}/result")
    web.plan({"/nmf/loadings/c/0/0/0": ["500", "drop"]})
    np.testing.assert_array_equal(far["nmf"]["loadings"].values, near["nmf"]["loadings"].values)


def test_damaged_bytes_are_found(served: Web) -> None:
    chunk = served.folder / "map.zarr" / "data" / "c" / "0" / "0" / "0"
    assert verify(f"{served.url}/map.zarr", deep=True).ok
    body = bytearray(chunk.read_bytes())
    body[len(body) // 2] ^= 1
    chunk.write_bytes(body)
    with pytest.raises(StoreError, match="damaged"):
        em.open(f"{served.url}/map.zarr").compute()
    found = verify(f"{served.url}/map.zarr")
    assert (found.ok, found.damaged) == (False, ("data/c/0/0/0",))
    chunk.unlink()
    assert verify(f"{served.url}/map.zarr").missing == ("data/c/0/0/0",)


def test_an_ingest_that_is_unfinished_there(served: Web) -> None:
    store = served.folder / "map.zarr"
    (store / "zarr.json").unlink()
    (store / ".emcube" / "ingest.json").write_text("{}")
    for look in (open_cube, read_digest, info):
        with pytest.raises(IncompleteError, match="never finished"):
            look(f"{served.url}/map.zarr")


def test_names_with_spaces_and_letters(web: Web, cube) -> None:
    write_cube(cube, web.folder / "my map µ+%20.zarr")
    address = f"{web.url}/my%20map%20%C2%B5+%2520.zarr"
    np.testing.assert_array_equal(em.open(address).values, cube.values)
    write_cube(cube, web.folder / "a b µ.zarr")
    assert verify(f"{web.url}/a b µ.zarr", deep=True).ok


def test_signatures_of_redirects_are_not_shown(served: Web, caplog) -> None:
    """Servers send clients on to addresses with signatures: no message, traceback or log holds them."""
    far = em.open(f"{served.url}/map.zarr")
    served.plan({"/data/c/0/0/0": ["always signed"]})
    caplog.set_level("DEBUG")
    with pytest.raises(StoreError, match=r"403.*\?\*\*\*") as caught:
        far.compute()
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "hunter2" not in shown


def test_web_servers_are_not_written_to(served: Web, cube) -> None:
    with pytest.raises(StoreError, match="read only"):
        em.ingest(cube, f"{served.url}/new.zarr")
    with pytest.raises(StoreError, match="read only"):
        em.run(STEPS, cube, out=f"{served.url}/result")


def test_addresses_with_credentials_are_refused_everywhere(
    served: Web, cube, capsys, tmp_path
) -> None:
    address = served.url.replace("://", "://me:hunter2@") + "/map.zarr"
    attempts = (
        lambda: em.open(address),
        lambda: em.open_result(address),
        lambda: em.ingest(cube, address),
        lambda: em.run(STEPS, cube, out=address),
        lambda: em.run({**STEPS, "input": {"path": address}}, out=tmp_path / "r"),
        lambda: em.run({**STEPS, "output": address}, cube),
        lambda: verify(address),
    )
    for attempt in attempts:
        with pytest.raises(InputError, match="a user or a password") as caught:
            attempt()
        assert "hunter2" not in str(caught.value)
    for command in (["info", address], ["ingest", address, str(tmp_path / "a.zarr")]):
        assert main(command) == 2
        shown = capsys.readouterr()
        assert "hunter2" not in shown.out + shown.err
        assert "a user or a password" in shown.err
