"""Interrupted ingests: killed, out of disk, stopped; and destinations that are taken already."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from emcube.errors import IncompleteError, StoreError
from emcube.store import (
    compute_digest,
    is_store,
    journal,
    open_cube,
    read_digest,
    verify,
    write_cube,
)
from tests.store.slow_ingest import PROGRAM, ROOT, finish, start


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The store as an undisturbed run writes it."""
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    assert finish(path) == (24, 0)
    return path


def same(one, other) -> None:
    assert read_digest(one) == read_digest(other)
    assert verify(one, deep=True).ok
    for name in (None, "total_counts", "sum_spectrum"):
        np.testing.assert_array_equal(open_cube(one, name), open_cube(other, name))
    files = [{p.relative_to(s).as_posix() for p in s.rglob("*")} for s in (one, other)]
    assert files[0] == files[1]


def test_a_killed_process_resumes(tmp_path, whole) -> None:
    path = tmp_path / "a.zarr"
    run = start(path, 0.1)
    for line in run.stdout:
        if int(line.split()[0]) >= 10:
            break
    run.kill()
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    # Never taken for complete: not by emcube, and not by plain xarray.
    assert is_store(path)
    with pytest.raises(IncompleteError, match=r"stopped after (4|8|12) of 24 regions"):
        open_cube(path)
    with pytest.raises(IncompleteError):
        read_digest(path)
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(path)
    written, resumed = finish(path)
    assert resumed >= 4
    assert written == 24 - resumed
    same(path, whole)


def test_an_interrupt_says_what_is_incomplete(tmp_path, whole) -> None:
    path = tmp_path / "a.zarr"
    run = start(path, 0.1)
    for line in run.stdout:
        if int(line.split()[0]) >= 5:
            break
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert "InterruptedRunError" in err
    assert "of 24 regions were written; the store is incomplete" in err
    assert finish(path)[1] >= 4
    same(path, whole)


def tiny_disk(script: str) -> list[str] | None:
    """Command that runs a script on a disk of its own of 1 MiB, mounted at $1; None where it cannot be."""
    mount = 'mount -t tmpfs -o size=1m tmpfs "$1" && '
    for prefix in ([], ["unshare", "--user", "--map-root-user", "--mount"]):
        if prefix and shutil.which("unshare") is None:
            continue
        if not prefix:
            # As root, in a mount namespace too: nothing stays mounted.
            if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("unshare") is None:
                continue
            prefix = ["unshare", "--mount"]
        probe = subprocess.run(
            [*prefix, "sh", "-c", 'd=$(mktemp -d) && mount -t tmpfs -o size=1m tmpfs "$d"'],
            capture_output=True,
            check=False,
        )
        if probe.returncode == 0:
            return [*prefix, "sh", "-c", mount + script, "sh"]
    return None


def test_a_full_disk_says_how_much_is_missing_and_resumes(tmp_path) -> None:
    # 1 MiB of disk, of which a ballast leaves room for part of the store; without it there is room.
    # Noise: about 450 kB compressed.
    ingest = f'{shlex.join(PROGRAM)} "$1/a.zarr" 0 dense 0.6'
    script = f"""
head -c 700000 /dev/zero > "$1/ballast"
{ingest}; echo "status $?"
{sys.executable} -c "import sys, emcube.store as s; s.open_cube(sys.argv[1])" "$1/a.zarr"
rm "$1/ballast"
{ingest} && cp -r "$1/a.zarr" "$2"
"""
    command = tiny_disk(script)
    if command is None:
        pytest.skip(
            "no disk of 1 MiB can be mounted here (neither as root nor in a user namespace)"
        )
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        [*command, str(disk), str(tmp_path / "copy.zarr")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "status 1" in done.stdout, done.stderr
    assert "StoreError: the disk is full" in done.stderr
    assert "more are needed" in done.stderr
    assert "free some space and run the same command again" in done.stderr
    assert "IncompleteError" in done.stderr
    assert done.returncode == 0, done.stderr
    last = [int(n) for n in done.stdout.splitlines()[-1].split()]
    assert last[:2] == [24, 24]
    assert last[2] >= 4
    assert verify(tmp_path / "copy.zarr", deep=True).ok


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit on file sizes here")
def test_a_quota_on_file_sizes_is_a_full_disk(tmp_path) -> None:
    # Works for everybody: the system refuses files over 4 kB in this process.
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))

    path = tmp_path / "a.zarr"
    run = start(path, 0, preexec_fn=limit)
    _, err = run.communicate(timeout=100)
    assert run.returncode == 1
    assert "StoreError: the disk is full" in err
    with pytest.raises(IncompleteError):
        open_cube(path)


@pytest.fixture
def unfinished(tmp_path, small_chunks, make, counts):
    """An ingest that stopped within its second group."""
    path = tmp_path / "a.zarr"

    def break_off(block, block_info=None):
        if block_info[0]["chunk-location"][0] == 2:
            raise RuntimeError("stopped by the test")
        return block

    lazy = da.from_array(counts, chunks=(1, 14, 15, 40)).map_blocks(break_off, dtype="u1")
    with pytest.raises(RuntimeError, match="stopped by the test"):
        write_cube(make(lazy), path)
    done, n_regions = journal.Journal(path).progress()
    assert 0 < done < n_regions
    return path


def test_the_same_cube_from_memory_resumes(unfinished, make, counts) -> None:
    seen = []
    lazy = da.from_array(counts, chunks=(1, 14, 15, 40))
    write_cube(make(lazy), unfinished, progress=seen.append)
    assert seen[0].resumed > 0
    assert read_digest(unfinished) == compute_digest(make(counts))


def test_another_cube_of_the_same_shape_is_refused(unfinished, make, counts) -> None:
    other = da.from_array(counts[:, ::-1].copy(), chunks=(1, 14, 15, 40))
    with pytest.raises(StoreError, match="unfinished ingest of another cube: its values differ"):
        write_cube(make(other), unfinished)
    shifted = make(da.from_array(counts, chunks=(1, 14, 15, 40)))
    shifted = shifted.assign_coords(energy=shifted.energy + 1)
    with pytest.raises(StoreError, match="unfinished ingest of another cube: dims"):
        write_cube(shifted, unfinished)
    with pytest.raises(IncompleteError):
        open_cube(unfinished)
    # Unless it is given up.
    write_cube(make(other), unfinished, overwrite=True)
    assert read_digest(unfinished) == compute_digest(make(other))


def test_existing_destinations(tmp_path, small_chunks, make, counts) -> None:
    path = write_cube(make(counts), tmp_path / "a.zarr")
    before = read_digest(path)
    with pytest.raises(StoreError, match="a complete store is there already"):
        write_cube(make(counts + 1), path)
    assert read_digest(path) == before
    write_cube(make(counts + 1), path, overwrite=True)
    assert (open_cube(path).values == counts + 1).all()
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_process_that_died_while_swapping(tmp_path, small_chunks, make, counts) -> None:
    # Between two renames: the old store is aside, the new one not yet in place.
    path = write_cube(make(counts), tmp_path / "a.zarr")
    path.rename(tmp_path / ".a.zarr.emcube-old")
    write_cube(make(counts + 1), tmp_path / ".a.zarr.emcube-new")
    with pytest.raises(StoreError, match="a complete store is there already"):
        write_cube(make(counts + 1), path)
    assert (open_cube(path).values == counts + 1).all()
    write_cube(make(counts), path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_store_can_replace_itself(tmp_path, small_chunks, make, counts) -> None:
    path = write_cube(make(counts), tmp_path / "a.zarr")
    write_cube(open_cube(path) + np.uint8(1), path, overwrite=True)
    assert (open_cube(path).values == counts + 1).all()


def test_a_failed_overwrite_leaves_the_old_store(tmp_path, small_chunks, make, counts) -> None:
    path = write_cube(make(counts), tmp_path / "a.zarr")

    def fail(block):
        raise RuntimeError("cannot read")

    broken = da.from_array(counts, chunks=-1).map_blocks(fail, dtype="u1", meta=np.empty((0,) * 4))
    with pytest.raises(RuntimeError, match="cannot read"):
        write_cube(make(broken.astype("u1")), path, overwrite=True)
    assert (open_cube(path).values == counts).all()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_a_store_is_never_replaced(tmp_path, make, counts, overwrite) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.tex").write_text("years of work")
    with pytest.raises(StoreError, match="something else, which is never replaced"):
        write_cube(make(counts), folder, overwrite=overwrite)
    assert (folder / "chapter1.tex").read_text() == "years of work"

    file = tmp_path / "map.bcf"
    file.write_text("data")
    with pytest.raises(StoreError, match="a file of that name exists"):
        write_cube(make(counts), file, overwrite=overwrite)

    xr.Dataset({"a": (("x",), np.ones(3))}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(StoreError, match="not a cube store, which is never replaced"):
        write_cube(make(counts), tmp_path / "other.zarr", overwrite=overwrite)


def test_an_empty_folder_is_a_destination(tmp_path, make, counts) -> None:
    (tmp_path / "new").mkdir()
    assert is_store(write_cube(make(counts), tmp_path / "new"))


def test_two_writers_do_not_share_a_store(unfinished, make, counts) -> None:
    held = journal.exclusive(unfinished / ".emcube" / "lock", "it")
    with held, pytest.raises(StoreError, match="another process is writing"):
        write_cube(make(counts), unfinished)
    write_cube(make(da.from_array(counts, chunks=(1, 14, 15, 40))), unfinished)


def test_lost_and_torn_files_are_written_again(unfinished, make, counts) -> None:
    # What a power failure does: the journal is there, some chunks are not what it says.
    files = sorted(p for p in (unfinished / "data" / "c").rglob("*") if p.is_file())
    files[0].unlink()
    files[5].write_bytes(b"torn")
    files[5].with_name("0.deadbeef.partial").write_bytes(b"left over")
    seen = []
    lazy = da.from_array(counts, chunks=(1, 14, 15, 40))
    write_cube(make(lazy), unfinished, progress=seen.append)
    done = seen[0].n_regions - len(seen)
    assert 0 <= done < 6
    assert verify(unfinished, deep=True).ok
    assert read_digest(unfinished) == compute_digest(make(counts))
    assert not list(unfinished.rglob("*.partial"))
