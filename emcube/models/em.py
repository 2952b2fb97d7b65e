"""Expectation maximisation over blocks: a pass is an iteration, for all starts together.

What a mixture is made of, the sums that a pass takes and how clusters come out of them are the subclass's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from emcube.engine import run_sweep
from emcube.errors import InputError
from emcube.models.sweeps import OnePass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource, RngKey

__all__ = ["EMSweep", "Path", "Peak", "ascend"]

Clusters = TypeVar("Clusters")
Sums = TypeVar("Sums")


@dataclass(frozen=True, eq=False)
class Path(Generic[Clusters, Sums]):
    """How far one start has come.

    Attributes
    ----------
    ahead : Clusters
        At which the next pass measures.
    best : Clusters or None
        The most likely ones that were measured.
    sums : Sums or None
        Of those.
    objective : float
        Theirs, of a pixel.
    settled : bool
    """

    ahead: Clusters
    best: Clusters | None = None
    sums: Sums | None = None
    objective: float = -np.inf
    settled: bool = False


@dataclass(frozen=True, eq=False)
class EMSweep(OnePass, ABC, Generic[Clusters, Sums]):
    """EM for R starts at once. A start is settled when a pass raises its objective by less than `tol`.

    It keeps the clusters at which the objective was measured, so that both belong together.
    """

    initial: tuple[Path[Clusters, Sums], ...]
    tol: float
    name: str = field(default="mixture", kw_only=True)

    @abstractmethod
    def sums_of(self, block: Block, clusters: Clusters) -> Sums:
        """Sums of one block, which add."""

    @abstractmethod
    def objective_of(self, clusters: Clusters, sums: Sums) -> float:
        """What EM raises, of a pixel."""

    @abstractmethod
    def maximised(self, clusters: Clusters, sums: Sums) -> Clusters:
        """The next clusters."""

    def start(self) -> Any:
        """The given starts."""
        return self.initial

    def map(
        self, block: Block, state: tuple[Path[Clusters, Sums], ...], rng_key: RngKey
    ) -> tuple[Sums | None, ...]:
        """Sums of one block for each start that is not settled."""
        return tuple(None if path.settled else self.sums_of(block, path.ahead) for path in state)

    def step(
        self,
        state: tuple[Path[Clusters, Sums], ...],
        statistic: tuple[Sums | None, ...],
        round_number: int,
    ) -> tuple[tuple[Path[Clusters, Sums], ...], bool]:
        """New clusters of each start."""
        new = tuple(
            path if sums is None else self._moved(path, sums)
            for path, sums in zip(state, statistic, strict=True)
        )
        return new, all(path.settled for path in new)

    def _moved(self, path: Path[Clusters, Sums], sums: Sums) -> Path[Clusters, Sums]:
        objective = self.objective_of(path.ahead, sums)
        gain, new = objective - path.objective, path
        if gain > 0.0:
            new = replace(path, best=path.ahead, sums=sums, objective=objective)
        if gain < self.tol:
            # EM never goes down: what is left is rounding, or the share of a regularisation.
            return replace(new, settled=True)
        return replace(new, ahead=self.maximised(path.ahead, sums))

    def objective(self, state: tuple[Path[Clusters, Sums], ...]) -> float:
        """That of the best start."""
        return max(path.objective for path in state)


@dataclass(frozen=True, eq=False)
class Peak(Generic[Clusters, Sums]):
    """Where EM ended.

    Attributes
    ----------
    clusters, sums, objective
        The best that were measured, of all starts.
    history : ndarray
        Objective of the best start after each pass.
    n_rounds : int
    converged : bool
    """

    clusters: Clusters
    sums: Sums
    objective: float
    history: NDArray[np.float64]
    n_rounds: int
    converged: bool


def ascend(
    sweep: EMSweep[Clusters, Sums],
    source: BlockSource,
    *,
    seed: int,
    max_iter: int,
    model: str,
    hint: str,
) -> Peak[Clusters, Sums]:
    """Run EM until all starts are settled, or `max_iter` passes are made.

    Raises
    ------
    InputError
        No likelihood is finite; the message begins with `model` and ends with `hint`.
    """
    outcome = run_sweep(sweep, source, seed=seed, max_rounds=max_iter)
    paths, history = outcome.state, list(outcome.history)
    if not outcome.converged:
        # The last step made clusters whose objective nobody measured: measure it.
        final = run_sweep(replace(sweep, initial=paths, tol=np.inf), source, seed=seed)
        paths, history = final.state, history + list(final.history)
    best = max(paths, key=lambda path: path.objective)
    if best.best is None or best.sums is None:
        raise InputError(f"{model}: the likelihood of the pixels is {best.objective}", hint=hint)
    return Peak(
        best.best,
        best.sums,
        best.objective,
        np.array(history),
        outcome.n_rounds,
        outcome.converged,
    )
