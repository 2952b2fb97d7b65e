"""What a million blocks cost scheduler and client: ``python -m benchmarks.many_blocks``.

Scheduler and workers are processes of their own, this one is the client. The blocks are small and made
where they are needed, so that what is measured is the handling of blocks, not their work. Written for each
run: its time, the longest time without a submission, the longest time that the event loops of client and
scheduler stood still, the largest memory of each process, the bytes of a task as it is sent, and the files
written. The answers are compared with exact ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcube.engine import Block, BlockPlan, Writing, ZarrTarget, map_blocks, run_sweep, run_sweeps
from emcube.engine.executor import DistributedExecutor, Tasks
from emcube.kernels.rows import CountRows

N_CHANNELS = 8
BLOCK = (2, 2)
N_COMPONENTS = 4
RUNS = ("sums", "sums and maps", "maps")
LIMITS = {"memory": 1e9, "pause": 2.0}
"""What may not be exceeded: bytes of the scheduler and of the client, seconds without a submission."""


# ------------------------------------------------------------------------------------ what is worked on


def counts(plan: BlockPlan, block_id: int) -> NDArray[np.uint8]:
    """Counts of a block that are told from its place, shape (p, E)."""
    rows, columns = (np.arange(s.start, s.stop) for s in plan.slices(block_id))
    places = (3 * rows[:, None] + 5 * columns[None, :]).reshape(-1, 1)
    return ((places + np.arange(plan.n_channels)) % 7).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class MadeSource:
    """Blocks that are made where they are needed."""

    plan: BlockPlan
    token: str = "made"

    @property
    def n_channels(self) -> int:
        """Channels E."""
        return self.plan.n_channels

    @property
    def n_pixels(self) -> int:
        """Pixels P."""
        return self.plan.n_pixels

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        return self.plan.block_bytes

    def load(self, block_id: int) -> Block:
        """Make one block."""
        plan = self.plan
        return Block(block_id, counts(plan, block_id), plan.shape(block_id), plan.offset(block_id))

    def part(self, block_ids: Iterable[int]) -> MadeSource:
        """The source itself: it holds nothing."""
        return self


@dataclass(frozen=True)
class SumsSweep:
    """Channel sums, with a state of some size that every task needs."""

    state_size: int
    name: str = "sums"

    def start(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """No sums, and the ballast."""
        return np.zeros(N_CHANNELS), np.zeros(self.state_size // 8)

    def map(self, block: Block, state: Any, rng_key: Any) -> NDArray[np.float64]:
        """Sums of one block."""
        assert not isinstance(block.data, CountRows)
        return block.data.sum(axis=0, dtype=np.float64)

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add."""
        return a + b

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """Keep the sums."""
        return (statistic, state[1]), True


def pixel_maps(block: Block) -> dict[str, NDArray[np.float64]]:
    """Totals, and as many multiples of them as there are components."""
    assert not isinstance(block.data, CountRows)
    totals = block.data.sum(axis=1, dtype=np.float64)
    return {"totals": totals, "maps": totals[:, None] * np.arange(1, N_COMPONENTS + 1)}


def plan_of(n_blocks: int) -> BlockPlan:
    """A square map of so many blocks, or a few more."""
    side = math.isqrt(n_blocks - 1) + 1
    rows = -(-n_blocks // side)
    return BlockPlan((rows * BLOCK[0], side * BLOCK[1]), BLOCK, N_CHANNELS, 1)


def targets_in(folder: Path, plan: BlockPlan) -> dict[str, ZarrTarget]:
    """Arrays for the maps, chunked as results are."""
    import zarr

    for name, trailing in (("totals", ()), ("maps", (N_COMPONENTS,))):
        chunks = plan.output_shape(8 * math.prod(trailing))
        zarr.create_array(
            str(folder / name),
            shape=(*plan.nav_shape, *trailing),
            chunks=(*chunks, *trailing),
            dtype="f8",
            fill_value=np.nan,
        )
    return {name: ZarrTarget(str(folder / name), "") for name in ("totals", "maps")}


# ------------------------------------------------------------------------------------------ processes


@dataclass
class Processes:
    """A scheduler and workers, and the largest memory that each and this process had."""

    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]
    address_file: Path
    peaks: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        """Note the memory of each."""
        import psutil

        named = [("client", os.getpid()), ("scheduler", self.scheduler.pid)]
        named += [("worker", worker.pid) for worker in self.workers]
        for name, pid in named:
            held = psutil.Process(pid).memory_info().rss
            self.peaks[name] = max(self.peaks.get(name, 0), held)


@contextmanager
def processes(n_workers: int, folder: Path) -> Iterator[Processes]:
    """Start a scheduler and workers of one thread, and end them."""
    file = folder / "scheduler.json"
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    environment = {**os.environ, "PYTHONPATH": path}
    started: list[subprocess.Popen[bytes]] = []

    def start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", "--no-dashboard"]
        command += ["--scheduler-file", str(file), "--host", "127.0.0.1", *arguments]
        with (folder / f"{module}-{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
        started.append(process)
        return process

    try:
        scheduler = start("dask_scheduler", "--port", "0")
        workers = [
            start("dask_worker", "--nthreads", "1", "--no-nanny", "--memory-limit", "2GB")
            for _ in range(n_workers)
        ]
        yield Processes(scheduler, workers, file)
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Ticker:
    """How long an event loop stood still at most, and, in the client, how much memory there is."""

    EVERY = 0.02

    def __init__(self) -> None:
        self.longest, self._last = 0.0, time.perf_counter()

    def tick(self) -> None:
        """Note the time since the last tick."""
        now = time.perf_counter()
        self.longest, self._last = max(self.longest, now - self._last - self.EVERY), now

    def start(self) -> None:
        """Tick on the loop of this thread."""
        from tornado.ioloop import PeriodicCallback

        self._last = time.perf_counter()
        PeriodicCallback(self.tick, 1000 * self.EVERY).start()


def _start_ticking(dask_scheduler: Any) -> None:
    dask_scheduler.emcube_ticker = Ticker()
    dask_scheduler.emcube_ticker.start()


def _longest(dask_scheduler: Any) -> float:
    """The longest stand-still since the last question."""
    ticker: Ticker = dask_scheduler.emcube_ticker
    longest, ticker.longest = ticker.longest, 0.0
    return longest


class Clocked:
    """An executor, with the time between submissions and the bytes of a task."""

    def __init__(self, executor: DistributedExecutor) -> None:
        self._executor = executor
        self.longest = 0.0
        self.task_bytes: list[int] = []
        self.n_tasks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def _clocked(self, tasks: Any) -> Any:
        import cloudpickle

        last = time.perf_counter()

        def task(run: range) -> Callable[[], Any]:
            nonlocal last
            made = tasks(run)
            self.n_tasks += 1
            now = time.perf_counter()
            self.longest, last = max(self.longest, now - last), now
            if run.start % 500 == 0:
                self.task_bytes.append(
                    len(cloudpickle.dumps(made, protocol=pickle.HIGHEST_PROTOCOL))
                )
            return made

        return Tasks(task, tasks.most)

    def reduce(self, tasks: Any, n_groups: int, join: Any, done: Any) -> Any:
        """Run and join, clocked."""
        return self._executor.reduce(self._clocked(tasks), n_groups, join, done)

    def each(self, tasks: Any, n_groups: int, done: Any) -> None:
        """Run, clocked."""
        self._executor.each(self._clocked(tasks), n_groups, done)


# -------------------------------------------------------------------------------------- measurements


def measure(
    n_blocks: int, n_workers: int = 2, state_size: int = 0, only: str | None = None
) -> dict[str, Any]:
    """Run sums, sums with maps, and maps alone over so many small blocks.

    Parameters
    ----------
    n_blocks : int
        At least so many.
    n_workers : int
        Processes of one thread.
    state_size : int
        Bytes of the state that goes with every task.
    only : str, optional
        One of `RUNS` alone.
    """
    from distributed import Client

    plan = plan_of(n_blocks)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            processes(n_workers, folder) as them,
            Client(scheduler_file=str(them.address_file), set_as_default=False) as client,
        ):
            client.wait_for_workers(n_workers, timeout=120)
            runs = _runs(plan, them, client, folder, state_size, [only] if only else RUNS)
    found = {
        "n_blocks": plan.n_blocks,
        "n_groups": len(plan.groups),
        "n_workers": n_workers,
        "state_bytes": state_size,
        "runs": runs,
        "peak_bytes": them.peaks,
    }
    found["over"] = over(found)
    return found


def _runs(
    plan: BlockPlan,
    them: Processes,
    client: Any,
    folder: Path,
    state_size: int,
    names: Iterable[str],
) -> list[dict[str, Any]]:
    source = MadeSource(plan)
    expected = _expected_sums(plan)
    targets = targets_in(folder, plan)

    def sums(executor: Any) -> None:
        found = run_sweep(SumsSweep(state_size), source, executor=executor)
        np.testing.assert_array_equal(found.state[0], expected)

    def together(executor: Any) -> None:
        writing = Writing(pixel_maps, plan, targets)
        found, _ = run_sweeps([SumsSweep(state_size), writing], source, executor=executor)
        np.testing.assert_array_equal(found.state[0], expected)

    def maps(executor: Any) -> None:
        map_blocks(pixel_maps, source, targets, executor=executor)

    client.run_on_scheduler(_start_ticking)
    ticker = Ticker()
    client.loop.add_callback(ticker.start)
    found = []
    runs = dict(zip(RUNS, (sums, together, maps), strict=True))
    for name in names:
        run = runs[name]
        ticker.longest = 0.0
        client.run_on_scheduler(_longest)
        with _watched(them):
            executor = Clocked(DistributedExecutor(client))
            began = time.perf_counter()
            run(executor)
            seconds, stood_still = time.perf_counter() - began, ticker.longest
        print(
            f"{name}: {seconds:.1f} s, longest pause {executor.longest:.2f} s, client stood still "
            f"{stood_still:.2f} s, {them.peaks}",
            file=sys.stderr,
            flush=True,
        )
        files = _check_maps(folder, plan) if run is not sums else 0
        found.append(
            {
                "run": name,
                "seconds": seconds,
                "ms_per_block": 1000 * seconds / plan.n_blocks,
                "n_tasks": executor.n_tasks,
                "longest_pause": executor.longest,
                "client_stood_still": stood_still,
                "scheduler_stood_still": client.run_on_scheduler(_longest),
                "task_bytes": max(executor.task_bytes),
                "n_files": files,
            }
        )
    return found


@contextmanager
def _watched(them: Processes) -> Iterator[None]:
    """Look at the memory of all processes again and again."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            them.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        them.look()


def _expected_sums(plan: BlockPlan) -> NDArray[np.float64]:
    """Channel sums from the number of places with each remainder."""
    rows, columns = (np.arange(n) for n in plan.nav_shape)
    each = np.bincount((3 * rows[:, None] + 5 * columns).ravel() % 7, minlength=7)
    values = (np.arange(7)[:, None] + np.arange(plan.n_channels)) % 7
    return (each[:, None] * values).sum(axis=0).astype(np.float64)


def _check_maps(folder: Path, plan: BlockPlan) -> int:
    """Compare what was written with what it must be, remove it, and count the files."""
    import zarr

    rows, columns = (np.arange(n) for n in plan.nav_shape)
    values = (np.arange(7)[:, None] + np.arange(plan.n_channels)) % 7
    totals = values.sum(axis=1).astype(np.float64)[(3 * rows[:, None] + 5 * columns) % 7]
    n_files = 0
    for name, weights in (("totals", None), ("maps", np.arange(1.0, N_COMPONENTS + 1))):
        array = zarr.open_array(str(folder / name), mode="r")
        wanted = totals if weights is None else totals[..., None] * weights
        np.testing.assert_array_equal(array[...], wanted)
        files = [f for f in (folder / name / "c").rglob("*") if f.is_file()]
        n_files += len(files)
        for file in files:
            file.unlink()
    return n_files


def over(found: Mapping[str, Any]) -> list[str]:
    """What exceeds `LIMITS`, in words."""
    wrong = [
        f"the {name} held {found['peak_bytes'][name] / 1e6:.0f} MB"
        for name in ("client", "scheduler")
        if found["peak_bytes"][name] > LIMITS["memory"]
    ]
    for run in found["runs"]:
        wrong += [
            f"{run['run']}: {key.replace('_', ' ')} {run[key]:.1f} s"
            for key in ("longest_pause", "client_stood_still", "scheduler_stood_still")
            if run[key] > LIMITS["pause"]
        ]
    return wrong


def table(found: Mapping[str, Any]) -> str:
    """The measurements as a table for people."""
    head = "| run | seconds | ms a block | tasks | longest pause, s | client, scheduler stood still, s "
    size = f"{found['n_blocks']} blocks in {found['n_groups']} groups a pass"
    lines = [
        f"{size}, {found['n_workers']} workers, state of {found['state_bytes']} bytes",
        "",
        head + "| bytes a task | files |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['run']} | {r['seconds']:.1f} | {r['ms_per_block']:.3f} | {r['n_tasks']} | "
        f"{r['longest_pause']:.2f} | {r['client_stood_still']:.2f}, {r['scheduler_stood_still']:.2f} | "
        f"{r['task_bytes']} | {r['n_files']} |"
        for r in found["runs"]
    ]
    peaks = ", ".join(f"{name} {n / 1e6:.0f} MB" for name, n in found["peak_bytes"].items())
    lines += ["", f"Largest memory: {peaks}."]
    lines += [f"Over the limit: {what}." for what in found["over"]]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table or JSON; 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--state", type=int, default=0, help="bytes of the state of the sums")
    parser.add_argument("--only", choices=RUNS, help="one of the runs alone")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    found = measure(chosen.blocks, chosen.workers, chosen.state, chosen.only)
    print(json.dumps(found, indent=1) if chosen.json else table(found))
    return 1 if found["over"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
