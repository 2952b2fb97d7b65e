"""Credentials reach storage and nothing else: no store, result, catalog, log or message holds them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emcube.store import write_cube
from tests.remote.conftest import bytes_in
from tests.storage import KEY, SECRET

CODE = """
import logging, pathlib, pickle, sys
folder, bucket = pathlib.Path(sys.argv[1]), sys.argv[2]
logging.basicConfig(filename=folder / "all.log", level=logging.DEBUG)
for noisy in ("botocore", "aiobotocore"):
    # Not ours, and at this level they write down the headers of requests.
    logging.getLogger(noisy).setLevel(logging.INFO)
import emcube as em
from emcube.catalog import add

em.ingest(folder / "map.zarr", f"{bucket}/map.zarr")
add(folder / "lab.yaml", f"{bucket}/map.zarr", name="far", title="a map")
if sys.argv[3] == "fsspec":
    # Runs open what they read in the same way: the longer one is not repeated.
    em.open(f"{bucket}/map.zarr").compute()
    (folder / "pickled.bin").write_bytes(pickle.dumps(em.open(f"{bucket}/map.zarr")))
    sys.exit()
recipe = folder / "recipe.yaml"
recipe.write_text(
    "emcube: 1\\ninput: {catalog: lab.yaml, dataset: far}\\nsteps:\\n"
    "  - pca: {n_components: 3}\\n  - nmf: {n_components: 2, random_state: 0}\\n"
)
here = em.run(recipe, out=folder / "result")
there = em.run(recipe, out=f"{bucket}/result")
pickled = pickle.dumps([em.open(f"{bucket}/map.zarr"), there["nmf"]["loadings"]])
(folder / "pickled.bin").write_bytes(pickled)
(folder / "shown.txt").write_text(f"{there!r} {here!r} {there.tree} {em.open(f'{bucket}/map.zarr')!r}")
try:
    em.open(f"{bucket}/nothing.zarr")
except em.errors.EmcubeError as error:
    (folder / "error.txt").write_text(str(error))
"""


def _scan(contents: dict[str, bytes]) -> None:
    for name, body in contents.items():
        for secret in (SECRET, KEY):
            assert secret.encode() not in body, name


@pytest.mark.parametrize("how", ["environment", "fsspec"])
def test_nothing_holds_them(
    bucket: str, s3_server: dict[str, str], tmp_path: Path, cube, how: str
) -> None:
    write_cube(cube, tmp_path / "map.zarr")
    environment = dict(os.environ)
    if how == "fsspec":
        # The other place where they may be: fsspec's own configuration.
        for name in s3_server:
            environment.pop(name)
        environment |= {
            "FSSPEC_S3_KEY": KEY,
            "FSSPEC_S3_SECRET": SECRET,
            "FSSPEC_S3_ENDPOINT_URL": s3_server["AWS_ENDPOINT_URL"],
        }
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), bucket, how],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    local = {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert {Path(name).name for name in local} >= {"all.log", "lab.yaml", "pickled.bin"}
    _scan(local)
    remote = bytes_in(bucket)
    assert any(name.startswith("map.zarr/data/c") for name in remote)
    assert (how == "fsspec") or any(name.startswith("result/nmf") for name in remote)
    _scan(remote)
    _scan({"stdout": done.stdout.encode(), "stderr": done.stderr.encode()})


def test_a_catalog_takes_no_address_with_credentials(tmp_path: Path) -> None:
    from emcube.catalog import add
    from emcube.errors import EmcubeError

    with pytest.raises(EmcubeError) as caught:
        add(tmp_path / "lab.yaml", f"https://me:{SECRET}@127.0.0.1:9/map.zarr", name="far")
    assert SECRET not in str(caught.value)
    for file in tmp_path.rglob("*"):
        assert SECRET not in file.read_text()
