"""Real servers, each in a process of its own on loopback: a web server, and storage that speaks S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import emcube as em
from tests.conftest import skip_or_fail
from tests.storage import storage


@dataclass
class Web:
    """A web server that serves a folder."""

    url: str
    folder: Path
    faults_file: Path

    def faults(self, **planned: list[str]) -> None:
        """Plan faults: name of a file (underscores for dots) to what its next requests meet."""
        self.faults_file.write_text(json.dumps(planned))

    def plan(self, planned: dict[str, list[str]]) -> None:
        self.faults_file.write_text(json.dumps(planned))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    if find_spec("aiohttp") is None:
        skip_or_fail("remote", "aiohttp is not installed: pip install emcube[remote]")
    folder, faults = tmp_path / "served", tmp_path / "faults.json"
    folder.mkdir()
    command = [sys.executable, str(Path(__file__).parent / "web.py"), str(folder), str(faults)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Web(f"http://127.0.0.1:{port}", folder, faults)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment in which ``s3://`` leads to a server here."""
    with storage(tmp_path_factory.mktemp("s3") / "server.log") as environment:
        yield environment


@pytest.fixture
def bucket(
    s3_server: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[str]:
    """Address of an empty bucket, which this process and its children reach; staging is in `tmp_path`."""
    import s3fs

    for key, value in s3_server.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("EMCUBE_STAGING", str(tmp_path / "staging"))
    name = f"t{os.getpid()}-{abs(hash(request.node.nodeid)) % 10**8}"
    files = s3fs.S3FileSystem(use_listings_cache=False)
    files.mkdir(name)
    yield f"s3://{name}"
    files.rm(name, recursive=True)


def names_in(address: str) -> list[str]:
    """Names of all objects below an address."""
    import s3fs

    files = s3fs.S3FileSystem(use_listings_cache=False)
    root = address.removeprefix("s3://")
    return sorted(name.removeprefix(f"{root}/") for name in files.find(root))


def bytes_in(address: str) -> dict[str, bytes]:
    """Contents of all objects below an address."""
    import s3fs

    files = s3fs.S3FileSystem(use_listings_cache=False)
    root = address.removeprefix("s3://")
    return {name: files.cat_file(f"{root}/{name}") for name in names_in(address)}


@pytest.fixture
def cube() -> xr.DataArray:
    """Counts of three phases, shape (16, 18, 40), with a companion image."""
    rng = np.random.default_rng(0)
    spectra = rng.dirichlet(np.full(40, 0.3), 3)
    counts = rng.poisson(200 * rng.dirichlet(np.full(3, 0.3), (16, 18)) @ spectra)
    made = em.make_cube(
        counts.astype(np.uint16),
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": np.arange(40) * 0.05},
        units={"energy": "keV", "y": "nm", "x": "nm"},
        metadata={"modality": "EDS", "elements": ["Fe", "O"]},
    )
    return made.assign_coords(HAADF=(("y", "x"), rng.random((16, 18)), {"units": "1"}))


STEPS = {
    "emcube": 1,
    "steps": [{"pca": {"n_components": 4}}, {"nmf": {"n_components": 3, "random_state": 0}}],
}
