"""Stores behind a URL."""

from __future__ import annotations

import functools
import http.server
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

from emcube.catalog import add, open_catalog
from emcube.errors import StoreError
from emcube.store import info, is_store, open_cube, read_digest, write_cube

pytest.importorskip("aiohttp")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and forbids what is called secret."""

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if "secret" in self.path:
            self.send_error(403)
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path):
    """URL of a web server that serves `tmp_path`."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_store_behind_a_url(tmp_path, server, small_chunks, make, counts) -> None:
    path = write_cube(make(counts), tmp_path / "a.zarr")
    url = f"{server}/a.zarr"
    assert is_store(url)
    assert read_digest(url) == read_digest(path)
    cube = open_cube(url)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cube)).values, counts)
    np.testing.assert_array_equal(open_cube(url, "total_counts"), counts.sum(axis=-1))
    assert info(url).stored_bytes is None
    add(tmp_path / "c.yaml", url, name="far")
    assert open_catalog(tmp_path / "c.yaml")["far"].open().shape == counts.shape


def test_events_behind_a_url(tmp_path, server, make, counts) -> None:
    path = write_cube(make(counts), tmp_path / "a.zarr", layout="events")
    url = f"{server}/a.zarr"
    assert is_store(url)
    assert info(url).layout == "events"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(open_cube(url))).values, counts)
    lost = next(p for p in (path / "event_count" / "c").rglob("*") if p.is_file())
    lost.unlink()
    with pytest.raises(StoreError, match=f"{url}/event_count/c/0/0 does not exist"):
        open_cube(url).compute()


def test_a_chunk_that_is_missing_there(tmp_path, server, small_chunks, make, counts) -> None:
    path = write_cube(make(counts), tmp_path / "a.zarr")
    cube = open_cube(f"{server}/a.zarr")
    (path / "data" / "c" / "1" / "0" / "0" / "0").unlink()
    with pytest.raises(StoreError, match="is missing: http"):
        cube.compute()


@pytest.mark.parametrize(
    ("module", "address"),
    [("aiohttp", "https://127.0.0.1:9/a.zarr"), ("s3fs", "s3://bucket/a.zarr")],
)
def test_without_the_extra(module, address) -> None:
    # In a process of its own: fsspec keeps what it has imported.
    code = f"""
import sys
sys.modules[{module!r}] = None
import emcube as em
try:
    em.open({address!r})
except em.errors.MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200
    )
    assert 'pip install "emcube[remote]"' in done.stdout


def test_addresses_that_lead_nowhere(tmp_path, server) -> None:
    with pytest.raises(StoreError, match="cannot be opened as Zarr"):
        open_cube(f"{server}/none.zarr")
    with pytest.raises(StoreError, match="cannot be read"):
        open_cube(f"{server}/secret.zarr")
    with pytest.raises(StoreError, match="cannot be read"):
        open_cube("http://127.0.0.1:9/a.zarr")


def test_missing_credentials_are_told(monkeypatch) -> None:
    errors = pytest.importorskip("botocore.exceptions")

    def refuse(url: str, **options: object) -> None:
        raise errors.NoCredentialsError

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(StoreError, match=r"s3://bucket/map.zarr cannot be read: .*credentials"):
        open_cube("s3://bucket/map.zarr")
