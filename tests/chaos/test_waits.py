"""What neither ends nor dies: hung tasks, frozen workers, a scheduler that is gone. No wait is for ever."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from emcube.engine import resident, run_sweep
from emcube.engine.executor import DistributedExecutor, Tasks
from emcube.engine.health import Limits
from emcube.errors import EngineError
from tests.chaos.harness import ROOT, Cluster, kill, until
from tests.chaos.parts import Hangs, Stops, Sums
from tests.chaos.test_deaths import n_mapped, same, undisturbed

pytestmark = pytest.mark.timeout(120)


def warm(executor, source, marks):
    """Have workers import what they need: the limit for a task goes by the longest one of a round."""
    run_sweep(Sums(marks, rounds=1), source, executor=executor)
    return executor


def test_a_worker_that_is_frozen_is_dropped_and_may_wake_later(cluster, source, marks):
    expected = undisturbed(source, marks)
    it: Cluster = cluster()
    it.add(2)
    with it.client(2) as client:
        executor = DistributedExecutor(client, Limits(silence=5))
        got = run_sweep(Stops(marks), source, seed=3, max_rounds=9, executor=executor).state
        assert same(got, expected)
        assert len(executor.watch.threads) == 1
        kill(int(Path(marks, "stopped.pid").read_text()), signal.SIGCONT)
        again = run_sweep(
            Sums(marks), source, seed=3, max_rounds=9, executor=DistributedExecutor(client)
        ).state
    assert same(again, expected)


def test_a_task_that_hangs_is_done_elsewhere(cluster, source, marks):
    expected = undisturbed(source, marks)
    it: Cluster = cluster()
    it.add(2)
    with it.client(2) as client:
        executor = warm(DistributedExecutor(client, Limits(task=3)), source, marks)
        got = run_sweep(Hangs(marks), source, seed=3, max_rounds=9, executor=executor).state
    assert same(got, expected)
    assert Path(marks, "hung-3-0").exists()


def test_the_nanny_of_a_worker_that_hangs_starts_another(cluster, source, marks):
    expected = undisturbed(source, marks)
    it: Cluster = cluster(nanny=True)
    it.add(1)
    with it.client(1) as client:
        executor = warm(DistributedExecutor(client, Limits(task=3, silence=10)), source, marks)
        got = run_sweep(Hangs(marks), source, seed=3, max_rounds=9, executor=executor).state
    assert same(got, expected)


def test_a_hang_on_the_only_worker_is_named(cluster, source, store, marks):
    it: Cluster = cluster()
    it.add(1)
    with it.client(1) as client, pytest.raises(EngineError) as caught:
        run_sweep(
            Hangs(marks),
            source,
            max_rounds=9,
            executor=DistributedExecutor(client, Limits(task=2)),
        )
    assert "block 3 (positions 12:16, 0:6)" in str(caught.value)
    assert store in str(caught.value)
    assert re.search(r"has not ended for \d+ s on tcp://127", str(caught.value))


def test_the_scheduler_is_killed(cluster, source, marks):
    expected = undisturbed(source, marks)
    it: Cluster = cluster()
    it.add(2)
    with it.client(2) as client:
        executor = DistributedExecutor(client)
        threading.Thread(
            target=lambda: (until(lambda: n_mapped(marks) > 5), kill(it.scheduler)), daemon=True
        ).start()
        began = time.monotonic()
        with pytest.raises(EngineError, match=r"connection to the Dask scheduler .* was lost"):
            run_sweep(Sums(marks, pause=0.1), source, seed=3, max_rounds=9, executor=executor)
        assert time.monotonic() - began < 30
    # Another scheduler, the same script: the same answer.
    other: Cluster = cluster()
    other.add(2)
    with other.client(2) as client:
        got = run_sweep(
            Sums(marks), source, seed=3, max_rounds=9, executor=DistributedExecutor(client)
        ).state
    assert same(got, expected)


def test_the_scheduler_does_not_answer(cluster, source, marks):
    it: Cluster = cluster()
    it.add(1)
    with it.client(1) as client:
        executor = DistributedExecutor(client, Limits(silence=3))
        threading.Thread(
            target=lambda: (
                until(lambda: n_mapped(marks) > 5),
                kill(it.scheduler, signal.SIGSTOP),
            ),
            daemon=True,
        ).start()
        with pytest.raises(EngineError, match="has not answered for 3 s"):
            run_sweep(Sums(marks, pause=0.1), source, max_rounds=9, executor=executor)
        kill(it.scheduler, signal.SIGCONT)


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import emcube.engine.plan
emcube.engine.plan.MAX_GROUPS = 4  # tasks of six blocks
from distributed import Client
from emcube.engine import resident, run_sweep
from emcube.errors import InterruptedRunError
from tests.chaos.conftest import blocks_of
from tests.chaos.parts import Sums
address, store, marks = sys.argv[1:]
with Client(address):
    try:
        run_sweep(Sums(marks, pause=0.5), blocks_of(store), max_rounds=9)
    except InterruptedRunError as error:
        print(error)
"""


def test_the_client_is_interrupted_and_the_workers_stop(cluster, store, marks):
    it: Cluster = cluster()
    it.add(2)
    with it.client(2) as client:
        script = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, it.address, store, marks],
            cwd=ROOT,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
            text=True,
        )
        until(lambda: n_mapped(marks) >= 3 or script.poll() is not None)
        assert script.poll() is None
        script.send_signal(signal.SIGINT)
        said, _ = script.communicate(timeout=60)
        assert "sums was stopped in round 1" in said
        assert script.returncode == 0
        # Nobody goes on with blocks that nobody waits for, and nothing of it stays.
        until(lambda: not any(client.processing().values()), what="tasks end")
        before = n_mapped(marks)
        assert before < 24
        time.sleep(1.5)
        assert n_mapped(marks) == before
        assert set(client.run(sessions).values()) == {0}


def sessions() -> int:
    from emcube.engine.adoption import _sessions

    return len(_sessions)


def test_workers_that_hang_or_are_gone_do_not_hold_up_the_end(cluster, source, marks, monkeypatch):
    monkeypatch.setattr("emcube.engine.executor.CLOSING_SECONDS", 2.0)
    it: Cluster = cluster()
    first, second = it.add(2)
    with it.client(2) as client:
        executor = DistributedExecutor(client)
        run_sweep(Sums(marks), source, max_rounds=9, executor=executor)
        kill(first, signal.SIGSTOP)
        kill(second)
        began = time.monotonic()
        executor.releaser("any")()
        assert time.monotonic() - began < 20


def test_a_task_that_is_run_twice_changes_nothing(cluster, source, marks, tmp_path):
    import zarr

    from emcube.engine import ZarrTarget
    from tests.chaos.parts import WritesTwice

    path = str(tmp_path / "out.zarr")
    zarr.create_array(f"{path}/total", shape=(96, 6), chunks=(4, 6), dtype="f8")
    it: Cluster = cluster()
    it.add(2)
    groups = source.plan.groups
    with it.client(2) as client:
        executor = DistributedExecutor(client)
        executor.each(
            Tasks(
                lambda run: WritesTwice(
                    source, groups[run.start % len(groups)], ZarrTarget(path, "total")
                )
            ),
            2 * len(groups),
            lambda group: None,
        )
    expected = np.concatenate([source.load(i).dense().sum(axis=1).reshape(4, 6) for i in range(24)])
    np.testing.assert_array_equal(zarr.open_array(path, path="total")[...], expected)


def test_blocks_are_mapped_where_they_are_resident_and_few_are_in_flight(cluster, source, marks):
    it: Cluster = cluster()
    it.add(2)
    most = 0
    with it.client(2) as client, resident():
        executor = DistributedExecutor(client)
        finished = threading.Event()

        def watch():
            nonlocal most
            while not finished.wait(0.02):
                most = max(most, *(len(keys) for keys in client.processing().values()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        run_sweep(Sums(marks, rounds=4, pause=0.03), source, max_rounds=9, executor=executor)
        finished.set()
        watcher.join()
    # Three tasks in flight a thread, and the joins of what they gave.
    assert 2 <= most <= 3 + 5
    stayed = 0
    for block in range(24):
        by = {Path(marks, f"mapped-{n}-{block}").read_text() for n in range(1, 4)}
        stayed += len(by) == 1
    # Dask lets an idle worker steal now and then.
    assert stayed >= 16
    half = {Path(marks, f"mapped-0-{block}").read_text() for block in range(8)}
    assert len(half) == 1, "neighbours belong to one worker"
