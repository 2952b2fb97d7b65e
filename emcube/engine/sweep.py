"""What an algorithm is: rounds of map, combine, step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from emcube.engine.source import Block

__all__ = ["Counted", "Outcome", "RngKey", "Sweep"]

RngKey = tuple[int, int, int]
"""(seed, round, block id): the only source of random numbers in `map`."""


@runtime_checkable
class Sweep(Protocol):
    """An algorithm over blocks. Methods are pure: they change neither their arguments nor the
    sweep.

    A sweep is a frozen dataclass of parameters and pickles. `map` runs on workers, possibly more
    than once for a block; `combine` joins two statistics along a fixed tree; `start` and `step` run
    in the client. Where a sweep has a method ``objective(state) -> float`` its value goes with the
    progress events; where it has ``statistic_bytes(n_channels) -> int`` the memory projection
    counts it.
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
