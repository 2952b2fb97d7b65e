"""Sweeps, targets and readers that kill, hang or fill the worker they run on. All pickle."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emcube.engine import Block, ZarrTarget


def die() -> None:
    """Kill this process, if it is a worker of these tests."""
    assert os.environ.get("EMCUBE_CHAOS_WORKER"), "only workers of these tests kill themselves"
    os.kill(os.getpid(), signal.SIGKILL)


def first_times(folder: str, name: str, times: int) -> bool:
    """Whether this is one of the first so many calls with this name, in whatever process."""
    for i in range(times):
        try:
            Path(folder, f"{name}-{i}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return False


@dataclass(frozen=True)
class Sums:
    """Channel sums times an irrational number, so that the order of additions shows in the bits.

    Every block notes in `folder` each time it is mapped, and by which process.
    """

    folder: str
    rounds: int = 2
    pause: float = 0.0
    ballast: int = 0
    name: str = "sums"

    def start(self) -> Any:
        return None

    def before(self, block: Block, rng_key: tuple[int, int, int]) -> None:
        """Whatever goes wrong."""

    def map(self, block: Block, state: Any, rng_key: tuple[int, int, int]) -> Any:
        with Path(self.folder, f"mapped-{rng_key[1]}-{block.id}").open("a") as file:
            file.write(f"{os.getpid()}\n")
        self.before(block, rng_key)
        time.sleep(self.pause)
        noise = np.random.default_rng(rng_key).normal(size=3)
        sums = block.dense().sum(axis=0) * np.pi
        return sums + (0 if state is None else state[0] / 3), noise

    def combine(self, a: Any, b: Any) -> Any:
        return a[0] + b[0], a[1] + b[1]

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        state = (*statistic, np.full(self.ballast, statistic[0].sum()))
        return state, round_number + 1 == self.rounds


@dataclass(frozen=True)
class DiesInMap(Sums):
    blocks: tuple[int, ...] = (3,)
    times: int = 1

    def before(self, block: Block, rng_key: tuple[int, int, int]) -> None:
        if block.id in self.blocks and first_times(self.folder, f"died-{block.id}", self.times):
            die()


@dataclass(frozen=True)
class DiesInCombine(Sums):
    times: int = 2

    def combine(self, a: Any, b: Any) -> Any:
        # Not at the first leaves: something joined is to be lost with the worker.
        calls = len(list(Path(self.folder).glob("joined-*")))
        Path(self.folder, f"joined-{os.getpid()}-{time.monotonic_ns()}").touch()
        if calls in (5, 13) and first_times(self.folder, f"died-joining-{calls}", 1):
            die()
        return super().combine(a, b)


@dataclass(frozen=True)
class Hangs(Sums):
    """The thread never comes back; the process lives on and sends its signs of life."""

    blocks: tuple[int, ...] = (3,)
    times: int = 1

    def before(self, block: Block, rng_key: tuple[int, int, int]) -> None:
        if block.id in self.blocks and first_times(self.folder, f"hung-{block.id}", self.times):
            time.sleep(3600)


@dataclass(frozen=True)
class Stops(Sums):
    """The whole process stops, with all its threads, as on a host that is frozen."""

    block: int = 3

    def before(self, block: Block, rng_key: tuple[int, int, int]) -> None:
        if block.id == self.block and first_times(self.folder, "stopped", 1):
            Path(self.folder, "stopped.pid").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)


@dataclass(frozen=True)
class Grows(Sums):
    """Takes more memory than the worker may have, in steps that its nanny can see."""

    n_bytes: int = 0

    def before(self, block: Block, rng_key: tuple[int, int, int]) -> None:
        if block.id == 3 and first_times(self.folder, "grew", 1):
            held = []
            for _ in range(100):
                held.append(np.ones(self.n_bytes // 100 // 8))
                time.sleep(0.02)
            time.sleep(60)  # the nanny's part


@dataclass(frozen=True)
class DyingReader:
    """A stored array whose reader kills its process in the midst of a read."""

    reader: Any
    folder: str
    times: int = 2

    @property
    def shape(self) -> tuple[int, ...]:
        return self.reader.shape

    @property
    def dtype(self) -> Any:
        return self.reader.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        return self.reader.chunks

    def __getitem__(self, key: Any) -> Any:
        values = self.reader[key]
        if key[0].start in (4, 12) and first_times(self.folder, f"died-{key[0].start}", 1):
            die()
        return values


@dataclass(frozen=True)
class DyingTarget(ZarrTarget):
    """Output whose writer dies before a chunk is written, or right after."""

    folder: str = ""
    times: int = 2

    def write(self, region: tuple[slice, ...], values: Any) -> None:
        start = region[0].start
        if start == 4 and first_times(self.folder, "died-before", 1):
            die()
        super().write(region, values)
        if start == 12 and first_times(self.folder, "died-after", 1):
            die()


def totals(block: Block) -> dict[str, Any]:
    """Total of each pixel."""
    return {"total": block.dense().sum(axis=1)}


def wide(block: Block) -> dict[str, Any]:
    """Noise, which does not compress, 400 values a pixel."""
    noise = np.random.default_rng(block.id).normal(size=(block.n_pixels, 400))
    return {"wide": noise}


_held: list[Any] = []


def hold(n_bytes: int) -> None:
    """Take memory that Dask knows nothing of; 0 lets it go."""
    _held.clear()
    if n_bytes:
        _held.append(np.ones(n_bytes // 8))


@dataclass(frozen=True)
class WritesTwice:
    """A task that writes each of its chunks two times."""

    blocks: Any
    ids: range
    target: ZarrTarget

    def __call__(self) -> int:
        for block_id in [*self.ids, *self.ids]:
            block = self.blocks.load(block_id)
            values = block.expand(totals(block)["total"], np.nan)
            self.target.write(self.blocks.plan.slices(block_id), values)
        return len(self.ids)
