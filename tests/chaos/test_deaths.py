"""Workers that are killed: the answer has the bits of an undisturbed run, or the error names the cause."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from emcube.engine import ZarrTarget, map_blocks, run_sweep
from emcube.engine.executor import DistributedExecutor
from emcube.engine.health import Limits
from emcube.errors import EngineError
from tests.chaos.conftest import blocks_of
from tests.chaos.harness import Cluster, alive, kill, until
from tests.chaos.parts import (
    DiesInCombine,
    DiesInMap,
    DyingReader,
    DyingTarget,
    Sums,
    totals,
)

pytestmark = pytest.mark.timeout(120)


def undisturbed(source, folder, **others):
    folder = Path(folder, "undisturbed")
    folder.mkdir()
    return run_sweep(Sums(str(folder), **others), source, seed=3, max_rounds=99).state


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def n_mapped(folder) -> int:
    return sum(p.read_text().count("\n") for p in Path(folder).glob("mapped-*"))


@pytest.mark.parametrize("phase", ["load", "map", "combine"])
def test_a_worker_killed_in_a_phase_of_a_fit(phase, cluster, store, source, marks):
    expected = undisturbed(source, marks)
    it: Cluster = cluster()
    it.keep(2)
    sweep = {
        "load": Sums(marks),
        "map": DiesInMap(marks, blocks=(2, 9, 17)),
        "combine": DiesInCombine(marks),
    }[phase]
    if phase == "load":
        source = blocks_of(store, lambda reader: DyingReader(reader, marks))
    with it.client(2) as client:
        got = run_sweep(
            sweep, source, seed=3, max_rounds=9, executor=DistributedExecutor(client)
        ).state
    assert same(got, expected)
    died = len(list(Path(marks).glob("died-*")))
    assert died == {"load": 2, "map": 3, "combine": 2}[phase]
    # A death costs what was on that worker: its part of a round at most.
    assert 48 <= n_mapped(marks) <= 48 + died * 24


def test_a_worker_killed_while_it_writes(cluster, source, marks, tmp_path):
    def array(name):
        zarr.create_array(
            str(tmp_path / "out.zarr" / name), shape=(96, 6), chunks=(4, 6), dtype="f8"
        )
        return str(tmp_path / "out.zarr")

    expected, got = array("expected"), array("got")
    map_blocks(totals, source, {"total": ZarrTarget(expected, "expected")})
    it: Cluster = cluster()
    it.keep(2)
    with it.client(2) as client:
        map_blocks(
            totals,
            source,
            {"total": DyingTarget(got, "got", folder=marks)},
            executor=DistributedExecutor(client),
        )
    assert len(list(Path(marks).glob("died-*"))) == 2
    np.testing.assert_array_equal(
        zarr.open_array(got, path="got")[...], zarr.open_array(expected, path="expected")[...]
    )


def test_all_workers_killed_one_after_the_other(cluster, source, marks):
    expected = undisturbed(source, marks)
    it: Cluster = cluster()
    first = it.add(3)
    with it.client(3) as client:
        executor = DistributedExecutor(client)

        def disturb():
            for i, pid in enumerate(first):
                until(lambda i=i: n_mapped(marks) >= 4 + 4 * i)
                kill(pid)
                until(lambda pid=pid: not alive(pid))
            it.add(2)

        killer = threading.Thread(target=disturb)
        killer.start()
        got = run_sweep(
            Sums(marks, pause=0.03), source, seed=3, max_rounds=9, executor=executor
        ).state
        killer.join()
    assert same(got, expected)


def test_no_workers_left_ends_with_what_waited(cluster, source, marks):
    it: Cluster = cluster()
    (only,) = it.add(1)
    with it.client(1) as client:
        executor = DistributedExecutor(client, Limits(workers=2))
        threading.Thread(
            target=lambda: (until(lambda: n_mapped(marks) >= 3), kill(only)), daemon=True
        ).start()
        with pytest.raises(
            EngineError, match=r"no running workers for 2 s: 2 tasks, among them block \d+ \(pos"
        ):
            run_sweep(Sums(marks, pause=0.1), source, max_rounds=2, executor=executor)


def test_twenty_workers_killed_at_random(cluster, source, marks):
    """Bit for bit the undisturbed answer; what is done twice is in proportion to what was lost."""
    rounds = 24
    # A state of 160 kB, which goes to the workers apart from the tasks, and may be lost with one.
    expected = undisturbed(source, marks, rounds=rounds, ballast=20_000)
    it: Cluster = cluster()
    it.keep(3)
    kills: list[float] = []
    chance = random.Random(1)
    finished = threading.Event()

    with it.client(3) as client:

        def disturb():
            while len(kills) < 20 and not finished.wait(chance.uniform(0.1, 0.5)):
                there = [pid for pid in it.workers if alive(pid)]
                if len(there) == 3:
                    kill(chance.choice(there))
                    kills.append(time.monotonic())

        killer = threading.Thread(target=disturb)
        killer.start()
        got = run_sweep(
            Sums(marks, rounds=rounds, pause=0.1, ballast=20_000),
            source,
            seed=3,
            max_rounds=rounds,
            executor=DistributedExecutor(client),
        ).state
        finished.set()
        killer.join()
    assert len(kills) == 20
    assert same(got, expected)
    extra = n_mapped(marks) - rounds * 24
    print(f"20 workers killed: {extra} blocks were mapped again, of {rounds * 24}")
    # Never more than a worker's part of a round for each death (twice over, since tasks that are waiting
    # for a lost part may be lost with the next worker).
    assert extra <= 20 * 2 * 24 / 3


def test_bad_luck_of_an_innocent_block_does_not_stop_the_run(cluster, source, marks):
    it: Cluster = cluster(**{"distributed.scheduler.allowed-failures": 1})
    it.keep(2)
    expected = undisturbed(source, marks)
    with it.client(2) as client:
        # Each of two blocks dies three times: Dask gives up on them after the second.
        got = run_sweep(
            DiesInMap(marks, blocks=(5, 6), times=3),
            source,
            seed=3,
            max_rounds=9,
            executor=DistributedExecutor(client, Limits(deaths=12)),
        ).state
    assert same(got, expected)


def test_a_block_that_kills_workers_is_named_and_stops_the_run(cluster, source, store, marks):
    it: Cluster = cluster(**{"distributed.scheduler.allowed-failures": 1})
    it.keep(2)
    with it.client(2) as client:
        with pytest.raises(EngineError) as caught:
            run_sweep(
                DiesInMap(marks, blocks=(5,), times=99),
                source,
                max_rounds=9,
                executor=DistributedExecutor(client, Limits(deaths=4)),
            )
        assert "block 5 (positions 20:24, 0:6)" in str(caught.value)
        assert store in str(caught.value)
        assert "kills workers" in str(caught.value)
        died = len(list(Path(marks).glob("died-5-*")))
        assert 3 <= died <= 8
        # The others are not held to account, and the client goes on.
        client.wait_for_workers(2, timeout=60)
        fine = run_sweep(Sums(marks), source, max_rounds=9, executor=DistributedExecutor(client))
        assert fine.converged
