"""What an algorithm is: rounds of map, combine, step."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from emcube.engine.source import Block

__all__ = ["Counted", "Outcome", "RngKey", "Sweep", "Together", "finish_group", "for_group"]
__all__ += ["shared_key"]

RngKey = tuple[int, int, int]
"""(seed, round, block id): the only source of random numbers in `map`."""


@runtime_checkable
class Sweep(Protocol):
    """An algorithm over blocks. Methods are pure: they change neither their arguments nor the
    sweep.

    A sweep is a frozen dataclass of parameters and pickles. `map` runs on workers, possibly more
    than once for a block; `combine` joins two statistics along a fixed tree; `start` and `step` run
    in the client.

    What a sweep may have besides:

    - ``objective(state) -> float``: its value goes with the progress events.
    - ``statistic_bytes(n_channels) -> int``: the memory projection counts it.
    - ``state_bytes(n_channels) -> int``: the state that the client holds between rounds, at most; the
      projection counts that too.
    - ``output_bytes() -> int``: output that a task gathers before it is written; the projection counts it.
    - ``for_group(group)``: what maps the blocks of one group instead, in their order and on one thread; it
      lives for one task, and may hold what belongs to several blocks until its ``finish_group()``.
    - ``combine_into(a, b)``: `combine` that may use the memory of `a`, which nobody needs any more.
    - ``answers_to``, a hashable identity or None: the answer of one round depends on this and the source
      alone (no random numbers, no state but that of `start`). Whoever asks again for an equal
      ``answers_to`` of the same source inside one `resident` context gets the answer of the first,
      without a pass. Nobody may change such an answer.
    - ``accepts(state) -> bool``: refuses the answer of another sweep of equal ``answers_to``, which then
      is asked anew.
    - ``also(state) -> iterable of (answers_to, state)``: answers of other sweeps that this one implies.
    """

    @property
    def name(self) -> str:
        """Short name for progress and errors."""
        ...

    def start(self) -> Any:
        """State before the first round."""
        ...

    def map(self, block: Block, state: Any, rng_key: RngKey) -> Any:
        """Statistic of one block."""
        ...

    def combine(self, a: Any, b: Any) -> Any:
        """Statistic of two neighbouring sets of blocks."""
        ...

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """State after a round, and whether the algorithm is done."""
        ...


@dataclass(frozen=True)
class Counted:
    """A statistic with the number of pixels and blocks that went into it.

    `n_resident` of the blocks stay in memory for the next round; the others will be read again.
    """

    n_pixels: int
    n_blocks: int
    value: Any
    n_resident: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a run ended with.

    Attributes
    ----------
    state
        The last state.
    n_rounds : int
        Rounds made, each one pass over the blocks.
    converged : bool
        Whether the sweep said that it was done before the rounds ran out.
    history : list of float
        Objective after each round, where the sweep has one.
    """

    state: Any
    n_rounds: int
    converged: bool
    history: list[float] = field(default_factory=list)


def shared_key(sweep: Sweep) -> Hashable | None:
    """Identity under which the answer of a sweep is kept for whoever asks again; None: it is not."""
    key: Hashable | None = getattr(sweep, "answers_to", None)
    return key


def for_group(sweep: Any, group: range) -> Any:
    """Return what maps the blocks of one group: the sweep itself, unless it wants to know of groups."""
    return sweep.for_group(group) if hasattr(sweep, "for_group") else sweep


def finish_group(sweep: Any) -> None:
    """Tell what `for_group` returned that its blocks have been mapped."""
    if hasattr(sweep, "finish_group"):
        sweep.finish_group()


@dataclass(frozen=True, eq=False)
class Together:
    """Several sweeps of one round, fed with the same blocks; each has the bits that it has alone.

    Parameters
    ----------
    sweeps : tuple of Sweep
    """

    sweeps: tuple[Sweep, ...]

    @property
    def name(self) -> str:
        """Names of all."""
        return ", ".join(dict.fromkeys(s.name for s in self.sweeps))

    def start(self) -> tuple[Any, ...]:
        """State of each."""
        return tuple(s.start() for s in self.sweeps)

    def for_group(self, group: range) -> Together:
        """What maps the blocks of one group, of each."""
        return Together(tuple(for_group(s, group) for s in self.sweeps))

    def finish_group(self) -> None:
        """Tell each that the blocks of a group have been mapped."""
        for sweep in self.sweeps:
            finish_group(sweep)

    def map(self, block: Block, state: tuple[Any, ...], rng_key: RngKey) -> tuple[Any, ...]:
        """Statistic of each."""
        return tuple(s.map(block, x, rng_key) for s, x in zip(self.sweeps, state, strict=True))

    def combine(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        """Join each with its own."""
        return tuple(s.combine(x, y) for s, x, y in zip(self.sweeps, a, b, strict=True))

    def combine_into(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        """Join each with its own, in the memory of the first where a sweep can do that."""
        return tuple(
            getattr(s, "combine_into", s.combine)(x, y)
            for s, x, y in zip(self.sweeps, a, b, strict=True)
        )

    def step(
        self, state: tuple[Any, ...], statistic: tuple[Any, ...], round_number: int
    ) -> tuple[tuple[tuple[Any, bool], ...], bool]:
        """State of each with whether it is done."""
        steps = (
            s.step(x, y, round_number)
            for s, x, y in zip(self.sweeps, state, statistic, strict=True)
        )
        return tuple(steps), True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of all."""
        return sum(_bytes_of(s, n_channels) for s in self.sweeps)

    def output_bytes(self) -> int:
        """Bytes of output that a task of all gathers."""
        return sum(int(s.output_bytes()) for s in self.sweeps if hasattr(s, "output_bytes"))


def _bytes_of(sweep: Any, n_channels: int) -> int:
    return int(sweep.statistic_bytes(n_channels)) if hasattr(sweep, "statistic_bytes") else 0
