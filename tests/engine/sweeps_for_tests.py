"""Small sweeps, importable by worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emcube.engine import Block


@dataclass(frozen=True)
class Sums:
    """Channel sums times an irrational number, so that the order of the additions shows in the bits,
    and random numbers of each block."""

    rounds: int = 1
    name: str = "sums"

    def start(self) -> Any:
        return None

    def map(self, block: Block, state: Any, rng_key: tuple[int, int, int]) -> Any:
        noise = np.random.default_rng(rng_key).normal(size=3)
        return block.dense().sum(axis=0) * np.pi, noise

    def combine(self, a: Any, b: Any) -> Any:
        return a[0] + b[0], a[1] + b[1]

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        return statistic, round_number + 1 == self.rounds


@dataclass(frozen=True)
class LosesPixels(Sums):
    """A block source's worst failure: a block that holds fewer pixels than the plan says."""


@dataclass(frozen=True)
class FailsAt(Sums):
    block_id: int = 2

    def map(self, block: Block, state: Any, rng_key: tuple[int, int, int]) -> Any:
        if block.id == self.block_id:
            raise ZeroDivisionError("no such luck")
        return super().map(block, state, rng_key)


@dataclass(frozen=True)
class Interrupts(Sums):
    def map(self, block: Block, state: Any, rng_key: tuple[int, int, int]) -> Any:
        if block.id == 2:
            raise KeyboardInterrupt
        return super().map(block, state, rng_key)


@dataclass(frozen=True)
class Leaves(Sums):
    """Raises what is no `Exception`."""

    kind: type[BaseException] = SystemExit

    def map(self, block: Block, state: Any, rng_key: tuple[int, int, int]) -> Any:
        if block.id == 2:
            raise self.kind("gone")
        return super().map(block, state, rng_key)


def leaves(block: Block) -> Any:
    """Per-pixel output that ends the interpreter."""
    raise SystemExit("gone")


@dataclass(frozen=True)
class HugeStatistic(Sums):
    def statistic_bytes(self, n_channels: int) -> int:
        return 1 << 60


@dataclass(frozen=True)
class CountsLoads(Sums):
    """Leaves a mark in a folder for every block that is mapped."""

    folder: str = ""

    def map(self, block: Block, state: Any, rng_key: tuple[int, int, int]) -> Any:
        Path(self.folder, f"{rng_key[1]}-{block.id}").touch()
        return super().map(block, state, rng_key)


def totals(block: Block) -> dict[str, Any]:
    """Total of each pixel."""
    return {"total": block.dense().sum(axis=1)}


@dataclass(frozen=True)
class SharedSums:
    """Channel sums that are the same whoever asks, and a mark of every block that was mapped."""

    factor: float = np.pi
    least: float = -np.inf
    marks: list[int] | None = None
    name: str = "shared sums"

    @property
    def answers_to(self) -> tuple[str, float]:
        return "sums", self.factor

    def accepts(self, state: Any) -> bool:
        return bool((state[0] >= self.least).all())

    def also(self, state: Any) -> list[Any]:
        return [(("halves", self.factor), [state[0] / 2])]

    def start(self) -> Any:
        return None

    def map(self, block: Block, state: Any, rng_key: tuple[int, int, int]) -> Any:
        if self.marks is not None:
            self.marks.append(block.id)
        return [block.dense().sum(axis=0) * self.factor]

    def combine(self, a: Any, b: Any) -> Any:
        return [a[0] + b[0]]

    def combine_into(self, a: Any, b: Any) -> Any:
        a[0] += b[0]
        return a

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        return statistic, True


@dataclass(frozen=True)
class TotalsBut:
    """Total of each pixel, but not of one block."""

    block_id: int

    def __call__(self, block: Block) -> dict[str, Any]:
        if block.id == self.block_id:
            raise ZeroDivisionError("no such luck")
        return totals(block)
