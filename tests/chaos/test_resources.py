"""Memory, disks and networks that fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

import emcube as em
from emcube.engine import ZarrTarget, listen, map_blocks, resident, run_sweep
from emcube.engine.executor import DistributedExecutor
from emcube.engine.health import Limits
from emcube.errors import EmcubeError, StoreError
from tests.chaos.conftest import blocks_of
from tests.chaos.harness import Cluster, until
from tests.chaos.parts import Grows, Sums, hold, wide
from tests.chaos.test_deaths import n_mapped, same, undisturbed

pytestmark = pytest.mark.timeout(150)


# --- memory ---------------------------------------------------------------------------------------


def test_a_worker_over_its_memory_limit_is_replaced(cluster, source, marks):
    expected = undisturbed(source, marks)
    it: Cluster = cluster(nanny=True, memory="700MB")
    it.add(2)
    with it.client(2) as client:
        got = run_sweep(
            Grows(marks, n_bytes=700_000_000),
            source,
            seed=3,
            max_rounds=9,
            executor=DistributedExecutor(client),
        ).state
    assert same(got, expected)
    assert Path(marks, "grew-0").exists()


def test_resident_blocks_stay_under_the_spill_threshold_and_give_way(cluster, marks, tmp_path):
    path = str(tmp_path / "large.zarr")
    array = zarr.create_array(path, shape=(96, 6, 175_000), chunks=(4, 6, 175_000), dtype="f4")
    for i in range(24):  # 16 MB a block in memory, next to nothing on disk
        array[4 * i : 4 * i + 4] = i + 1
    source = blocks_of(path)
    it: Cluster = cluster(memory="800MB")
    it.add(1)
    events = []
    with it.client(1) as client, listen(events.append), resident():
        executor = DistributedExecutor(client)
        first = run_sweep(Sums(marks), source, seed=3, max_rounds=9, executor=executor).state
        (state,) = client.run(memory_of).values()
        assert state["spilled"] == 0
        assert 0 < state["resident"] <= 800e6 / 3
        assert state["rss"] < 0.7 * 800e6
        kept = [e.resident_blocks for e in events if e.kind == "round"]
        assert 0 < kept[-1] < 24
        # Something else takes the memory, so much that Dask pauses the worker: blocks make way.
        client.run(hold, 240_000_000)
        until(
            lambda: next(iter(client.run(memory_of).values()))["resident"] < state["resident"] / 2,
            what="resident blocks make way",
        )
        again = run_sweep(Sums(marks), source, seed=3, max_rounds=9, executor=executor).state
        client.run(hold, 0)
    assert same(first, again)


def memory_of(dask_worker) -> dict[str, int]:
    import psutil

    from emcube.engine.adoption import _sessions

    return {
        "rss": psutil.Process().memory_info().rss,
        "spilled": dask_worker.data.spilled_total.disk,
        "resident": sum(s.residency.used for s in _sessions.values()),
    }


# --- disks ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(folder)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"a file system of a few hundred kB cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_is_named(cluster, source, small_disk):
    path = str(small_disk / "out.zarr")
    zarr.create_array(f"{path}/wide", shape=(96, 6, 400), chunks=(4, 6, 400), dtype="f8")
    it: Cluster = cluster()
    it.add(2)
    with (
        it.client(2) as client,
        pytest.raises(StoreError, match="No space left on device") as caught,
    ):
        map_blocks(
            wide,
            source,
            {"wide": ZarrTarget(path, "wide")},
            executor=DistributedExecutor(client),
        )
    assert path in str(caught.value)


def test_a_result_on_a_disk_that_is_full_is_not_complete(cluster, small_disk, tmp_path):
    values = np.random.default_rng(0).poisson(3.0, (120, 80, 24)).astype("u1")
    store = em.ingest(em.make_cube(values, dims=("y", "x", "energy")), tmp_path / "map.zarr")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"emcube: 1\ninput: {{path: {store}}}\nsteps:\n  - pca: {{n_components: 20}}\n"
    )
    it: Cluster = cluster()
    it.add(2)
    with it.client(2) as client, client.as_current():
        with pytest.raises((EmcubeError, OSError)) as caught:
            em.run(recipe, out=small_disk / "result")
        assert str(small_disk / "result") in str(caught.value)
        with pytest.raises(EmcubeError):
            em.open_result(small_disk / "result")
        # With room it goes through.
        result = em.run(recipe, out=tmp_path / "result")
    assert result.run_id


@pytest.mark.parametrize("layout", ["dense", "events"])
def test_a_chunk_that_is_damaged_or_missing_is_named(layout, cluster, tmp_path):
    values = np.random.default_rng(0).poisson(0.05, (60, 40, 64)).astype("u1")
    cube = em.make_cube(values, dims=("y", "x", "energy"))
    it: Cluster = cluster()
    it.add(1)
    with it.client(1) as client, client.as_current():
        for damage in ("changed", "cut", "missing"):
            store = em.ingest(cube, tmp_path / f"{damage}.zarr", layout=layout)
            opened = em.open(store)
            array = store / ("data" if layout == "dense" else "event_count")
            chunk = next(p for p in sorted(array.glob("c/**/*")) if p.is_file())
            raw = bytearray(chunk.read_bytes())
            raw[len(raw) // 2] ^= 0xFF
            if damage == "missing":
                chunk.unlink()
            else:
                chunk.write_bytes(raw if damage == "changed" else raw[: len(raw) // 2])
            for model in (em.IncrementalPCA(2), em.KMeans(2, random_state=0)):
                with pytest.raises(StoreError) as caught:
                    model.fit(opened)
                assert str(chunk) in str(caught.value)
                assert ("missing" if damage == "missing" else "damaged") in str(caught.value)


# --- networks -------------------------------------------------------------------------------------

NET = "10.213.77."


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def network():
    """Two hosts of our own beside this one: network namespaces on a bridge."""
    if shutil.which("ip") is None:
        pytest.skip("the command ip (iproute2) is missing")
    if os.geteuid():
        pytest.skip("network namespaces need root")
    names, bridge = ("emcube-a", "emcube-b"), "emcube-br"
    try:
        ip("link", "add", bridge, "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
    try:
        ip("addr", "add", f"{NET}1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for i, name in enumerate(names, 2):
            ip("netns", "add", name)
            ip("link", "add", f"emcube-v{i}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"emcube-v{i}", "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{NET}{i}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        ip("link", "del", bridge)


def cut_workers_from_each_other() -> None:
    ip("-n", "emcube-a", "route", "add", "blackhole", f"{NET}3/32")


def heal() -> None:
    ip("-n", "emcube-a", "route", "del", "blackhole", f"{NET}3/32")


def cut_worker_from_all() -> None:
    ip("-n", "emcube-b", "link", "set", "eth0", "down")


def test_a_network_that_is_split(network, cluster, source, marks):
    """First two workers that do not hear each other, then one that nobody hears any more."""
    expected = undisturbed(source, marks)
    for cut in (cut_workers_from_each_other, cut_worker_from_all):
        for mark in Path(marks).glob("mapped-*"):
            mark.unlink()
        it: Cluster = cluster(host=f"{NET}1")
        for i, name in enumerate(network, 2):
            it.add(1, host=f"{NET}{i}", netns=name)
        with it.client(2) as client:
            executor = DistributedExecutor(client, Limits(silence=3))
            cutter = threading.Thread(
                target=lambda cut=cut: (until(lambda: n_mapped(marks) >= 6), cut()), daemon=True
            )
            cutter.start()
            got = run_sweep(
                Sums(marks, pause=0.05), source, seed=3, max_rounds=9, executor=executor
            ).state
            cutter.join()
            assert len(executor.watch.threads) == 1
        assert same(got, expected)
        if cut is cut_workers_from_each_other:
            heal()
