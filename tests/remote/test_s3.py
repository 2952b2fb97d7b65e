"""Storage that speaks S3: written to, opened, run from, run into; what is unfinished is continued."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.cli import main
from emcube.errors import IncompleteError, InputError, InterruptedRunError, StoreError
from emcube.store import is_store, read_digest, verify, write_cube
from tests.remote.conftest import STEPS, names_in

SMALL = """
import functools
from emcube.store import hashing, layout, regions, write
small = functools.partial(layout.plan_layout, target=2048, max_chunk=4096, max_shard=65536)
write.plan_layout = small
hashing.PIECE_BYTES = 700
regions.GROUP_BYTES = 4096
"""


@pytest.fixture
def small_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions of some kilobytes, in groups of two: a small cube takes the road of a large one."""
    import functools

    from emcube.store import hashing, layout, regions, write

    small = functools.partial(layout.plan_layout, target=2048, max_chunk=4096, max_shard=65536)
    monkeypatch.setattr(write, "plan_layout", small)
    monkeypatch.setattr(hashing, "PIECE_BYTES", 700)
    monkeypatch.setattr(regions, "GROUP_BYTES", 4096)


@pytest.mark.parametrize("layout", ["dense", "events"])
def test_the_store_there_is_the_store_here(bucket, tmp_path, cube, small_regions, layout) -> None:
    address = f"{bucket}/deep/map.zarr"
    assert em.ingest(cube, address, layout=layout) == address
    near = write_cube(cube, tmp_path / "map.zarr", layout=layout)
    files = sorted(
        p.relative_to(near).as_posix() for p in near.rglob("*") if p.is_file() and p.name != "lock"
    )
    assert names_in(address) == files
    assert read_digest(address) == read_digest(near)
    assert verify(address, deep=True).ok
    far = em.open(address)
    xr.testing.assert_identical(far.compute(), em.open(near).compute())
    assert not list((tmp_path / "staging").glob("*"))


def test_plain_xarray_reads_it(bucket, cube) -> None:
    em.ingest(cube, f"{bucket}/map.zarr")
    with xr.open_zarr(f"{bucket}/map.zarr") as group:
        np.testing.assert_array_equal(group["data"].values, cube.values)
        np.testing.assert_array_equal(group["HAADF"].values, cube["HAADF"].values)


def test_a_run_from_storage_into_storage(bucket, tmp_path, cube, capsys) -> None:
    em.ingest(cube, f"{bucket}/map.zarr")
    recipe = {**STEPS, "input": {"path": f"{bucket}/map.zarr"}}
    far = em.run(recipe, out=f"{bucket}/results/a")
    near = em.run(recipe, out=tmp_path / "near")
    assert (far.location, far.run_id) == (f"{bucket}/results/a", near.run_id)
    for step, name in (("pca", "components"), ("nmf", "loadings"), ("input", "total_counts")):
        np.testing.assert_array_equal(far[step][name].values, near[step][name].values)
    assert far.verify() == {}
    assert not list((tmp_path / "staging").glob("*"))
    # The same run is kept, without another being begun.
    began = names_in(f"{bucket}/results/a")
    kept = em.run(recipe, out=f"{bucket}/results/a")
    assert kept.provenance["finished"] == far.provenance["finished"]
    assert names_in(f"{bucket}/results/a") == began
    # Another one is refused before it works, and replaces it when it is told to.
    other = {**recipe, "steps": [{"pca": {"n_components": 2}}]}
    with pytest.raises(InputError, match="holds the result of another run"):
        em.run(other, out=f"{bucket}/results/a")
    replaced = em.run(other, out=f"{bucket}/results/a", overwrite=True)
    assert replaced.steps == ("pca",)
    assert not [n for n in names_in(f"{bucket}/results/a") if n.startswith("nmf")]
    assert main(["info", f"{bucket}/results/a", "--json"]) == 0
    assert replaced.run_id in capsys.readouterr().out


def test_the_command_line_takes_addresses(bucket, tmp_path, cube, capsys) -> None:
    near = write_cube(cube, tmp_path / "map.zarr")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"emcube: 1\ninput: {{path: '{bucket}/map.zarr'}}\nsteps:\n  - pca: {{n_components: 3}}\n"
        f"output: {bucket}/result\n"
    )
    assert main(["ingest", str(near), f"{bucket}/map.zarr"]) == 0
    assert main(["plan", str(recipe)]) == 0
    assert main(["run", str(recipe)]) == 0
    assert em.open_result(f"{bucket}/result").steps == ("pca",)
    assert main(["plan", str(recipe)]) == 0
    assert "holds this very run already" in capsys.readouterr().out
    assert main(["run", str(recipe), "--out", f"{bucket}/other"]) == 0
    assert main(["run", str(recipe), "--out", f"{bucket}/map.zarr/inside"]) == 2
    assert "lies in the input of its own run" in capsys.readouterr().err


def test_workers_read_from_storage(bucket, tmp_path, cube) -> None:
    em.ingest(cube, f"{bucket}/map.zarr")
    recipe = {**STEPS, "input": {"path": f"{bucket}/map.zarr"}}
    near = em.run(recipe, out=tmp_path / "near")
    with em.deploy("local", workers=1):
        far = em.run(recipe, out=f"{bucket}/result")
    assert far.run_id == near.run_id
    np.testing.assert_array_equal(far["nmf"]["loadings"].values, near["nmf"]["loadings"].values)


def test_a_store_there_is_not_replaced_unasked(bucket, cube) -> None:
    address = f"{bucket}/map.zarr"
    em.ingest(cube, address)
    with pytest.raises(StoreError, match="a complete store is there already"):
        em.ingest(cube + 1, address)
    em.ingest(cube.isel(x=slice(5)), address, overwrite=True)
    assert em.open(address).sizes["x"] == 5
    assert verify(address).ok


def test_what_is_no_store_is_never_replaced(bucket, cube) -> None:
    import s3fs

    files = s3fs.S3FileSystem(use_listings_cache=False)
    files.pipe_file(f"{bucket}/notes/read me.txt", b"mine")
    files.pipe_file(f"{bucket}/zarr/zarr.json", b'{"zarr_format": 3, "node_type": "group"}')
    for name, said in (("notes", "something else"), ("zarr", "not a cube store")):
        with pytest.raises(StoreError, match=said):
            em.ingest(cube, f"{bucket}/{name}", overwrite=True)
    for name in ("notes", "zarr"):
        with pytest.raises(InputError, match="not a result"):
            em.run(STEPS, cube, out=f"{bucket}/{name}", overwrite=True)
    assert files.cat_file(f"{bucket}/notes/read me.txt") == b"mine"


def test_an_ingest_that_was_stopped_goes_on(bucket, cube, small_regions) -> None:
    address = f"{bucket}/map.zarr"

    def stop(state) -> None:
        if state.regions_done == 5:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match=r"into s3://.*the store is incomplete"):
        em.ingest(cube, address, progress=stop)
    with pytest.raises(IncompleteError, match="never finished"):
        em.open(address)
    assert is_store(address)
    seen = []
    em.ingest(cube, address, progress=seen.append)
    assert seen[0].resumed >= 2
    assert verify(address, deep=True).ok


def test_an_ingest_that_was_killed_goes_on(bucket, tmp_path, cube, small_regions) -> None:
    near = write_cube(cube, tmp_path / "map.zarr")
    address = f"{bucket}/map.zarr"
    code = f"""{SMALL}
import os, signal, sys
import emcube as em
def die(state):
    if state.regions_done == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
em.ingest({str(near)!r}, {address!r}, progress=die)
"""
    killed = subprocess.run([sys.executable, "-c", code, "7"], capture_output=True, timeout=200)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(IncompleteError):
        em.open(address)
    done = subprocess.run(
        [sys.executable, "-c", code, "-1"], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert verify(address, deep=True).ok
    assert read_digest(address) == read_digest(near)


def test_parts_that_got_lost_there_are_written_again(bucket, cube, small_regions) -> None:
    import s3fs

    address = f"{bucket}/map.zarr"

    def stop(state) -> None:
        if state.regions_done == 6:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        em.ingest(cube, address, progress=stop)
    files = s3fs.S3FileSystem(use_listings_cache=False)
    lost = next(n for n in names_in(address) if "/c/" in n)
    files.rm(f"{address}/{lost}")
    em.ingest(cube, address)
    assert verify(address, deep=True).ok


def test_an_ingest_that_another_machine_began(
    bucket, cube, small_regions, monkeypatch, tmp_path
) -> None:
    address = f"{bucket}/map.zarr"

    def stop(state) -> None:
        if state.regions_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        em.ingest(cube, address, progress=stop)
    monkeypatch.setenv("EMCUBE_STAGING", str(tmp_path / "another machine"))
    with pytest.raises(StoreError, match="another machine began"):
        em.ingest(cube, address)
    em.ingest(cube, address, overwrite=True)
    assert verify(address, deep=True).ok


def test_another_cube_does_not_go_on_from_there(bucket, cube, small_regions) -> None:
    address = f"{bucket}/map.zarr"

    def stop(state) -> None:
        if state.regions_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        em.ingest(cube, address, progress=stop)
    other = cube.isel(energy=slice(30))
    with pytest.raises(StoreError, match="unfinished ingest of another cube"):
        em.ingest(other, address)
    em.ingest(other, address, overwrite=True)
    assert em.open(address).sizes["energy"] == 30
    assert verify(address, deep=True).ok


def test_a_bucket_that_is_not_there(s3_server, bucket, cube) -> None:
    with pytest.raises(StoreError, match=r"cannot write to s3://no-such-bucket-at-all"):
        em.ingest(cube, "s3://no-such-bucket-at-all/map.zarr")


def test_a_result_whose_copy_was_cut_off_is_copied_again(
    bucket, tmp_path, cube, monkeypatch
) -> None:
    from emcube.store.remote import Remote

    put, tries = Remote.put, []

    def fail(self: Remote, name: str, data: bytes) -> None:
        tries.append(name)
        if len(tries) > 6:
            raise StoreError("the line is dead")
        put(self, name, data)

    monkeypatch.setattr(Remote, "put", fail)
    with pytest.raises(StoreError, match="the line is dead"):
        em.run(STEPS, cube, out=f"{bucket}/result")
    monkeypatch.setattr(Remote, "put", put)
    with pytest.raises(IncompleteError, match="never copied whole"):
        em.open_result(f"{bucket}/result")
    (staged,) = (tmp_path / "staging").glob("*/result")
    finished = em.open_result(staged).provenance["finished"]
    again = em.run(STEPS, cube, out=f"{bucket}/result")
    assert again.provenance["finished"] == finished
    assert again.verify() == {}


def test_a_path_object_is_no_address(cube, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="got an address, expected a folder"):
        em.ingest(cube, Path("s3://bucket/map.zarr"))
