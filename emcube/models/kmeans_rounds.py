"""Lloyd's iteration for several starts at once, and what of it stays beside blocks that stay in memory.

Letters: F features, R starts, K clusters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels import kmeans as kernel
from emcube.kernels.kmeans_gaps import (
    RowClusters,
    find_clusters,
    follow_centers,
    spread_clusters,
)
from emcube.kernels.rows import CountRows
from emcube.models.block_notes import BlockNotes
from emcube.models.kmeans_start import Features, join_lloyd_parts, lloyd_parts, moved_centers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey

__all__ = ["Lloyd", "LloydState"]

PATIENCE = 10
"""Rounds at the gain of the last one after which a start must have reached the best."""


@dataclass(frozen=True, eq=False)
class LloydState:
    """State of R starts.

    Attributes
    ----------
    centers : ndarray of float64, shape (R, K, F)
    inertia : ndarray of float64, shape (R,)
        At the centers before the last move, which are those here where a start has settled.
    weights : ndarray of float64, shape (R, K)
        Of the clusters.
    settled : ndarray of bool, shape (R,)
        Starts that go on no more.
    shift : float
        Largest squared move of the last round.
    before : ndarray of float64, shape (R,), or None
        Inertia of the round before the last, where the next one looks for the farthest pixel of each cluster
        at the same centers: one of the clusters is empty.
    """

    centers: NDArray[np.float64]
    inertia: NDArray[np.float64]
    weights: NDArray[np.float64]
    settled: NDArray[np.bool_]
    shift: float = np.inf
    before: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Lloyd:
    """Lloyd's iteration for R starts at once: one pass serves all.

    A cluster that lost all pixels takes the farthest pixel of another one (each gives one at most), which
    the pass after looks for. Rows of counts, each pixel of weight one, are looked at again only where
    labels may have changed since the last pass, if that is still noted: with the same result, to the bit.

    Parameters
    ----------
    features : Features
    initial : ndarray of float64, shape (R, K, F)
    tolerance : float
        A start settles where its centers move by less, squared.
    notes : BlockNotes of RowClusters
        Of all starts, from the last pass in which any was looked at; at first of the sounding, if any.
    """

    features: Features
    initial: NDArray[np.float64]
    tolerance: float
    notes: BlockNotes[RowClusters] = field(default_factory=lambda: BlockNotes("clusters"))
    name: str = "k-means"

    def start(self) -> LloydState:
        """Nothing is known of the starts yet."""
        n_starts, n_clusters = self.initial.shape[:2]
        return LloydState(
            self.initial,
            np.full(n_starts, np.inf),
            np.zeros((n_starts, n_clusters)),
            np.zeros(n_starts, dtype=bool),
        )

    def map(self, block: Block, state: LloydState, rng_key: RngKey) -> tuple[Any, ...]:
        """Sums, weights and inertia of the clusters, with the farthest pixels where they are wanted."""
        values, weights = self.features.of(block)
        n_starts = len(state.centers)
        active = np.flatnonzero(~state.settled)
        parts: tuple[NDArray[np.float64], ...]
        if state.before is not None:
            found = kernel.lloyd_sums(values, weights, state.centers[active])
            parts = lloyd_parts(values, found)
        elif isinstance(values, CountRows) and self.features.unweighted:
            parts = self._counted(block, values, state.centers, active)
        else:
            found = kernel.lloyd_sums(values, weights, state.centers[active])
            parts = (found.sums, found.won, found.inertia)
        if active.size == n_starts:
            return parts
        whole = tuple(np.zeros((n_starts, *part.shape[1:])) for part in parts)
        for all_of_them, part in zip(whole, parts, strict=True):
            all_of_them[active] = part
        return whole

    def _counted(
        self,
        block: Block,
        rows: CountRows,
        centers: NDArray[np.float64],
        active: NDArray[np.int64],
    ) -> tuple[NDArray[np.float64], ...]:
        """Sums, weights and inertia of the active starts, by what is noted of the block where it is."""
        n_starts = len(centers)
        found = self.notes.take(block)
        if found is not None and found.centers.shape[1:] != centers.shape[1:]:
            found = None
        if active.size < n_starts and (found is None or len(found.centers) < n_starts):
            found = find_clusters(rows, centers[active])
            return found.sums, found.won, found.inertia()
        if found is None:
            found = find_clusters(rows, centers)
        elif len(found.centers) < n_starts:
            found = spread_clusters(rows, found, centers)
        else:
            found = follow_centers(rows, found, centers, active)
        # Others get copies: the next pass changes what is noted.
        parts = (found.sums[active], found.won[active], found.inertia()[active])
        self.notes.note(block, found)
        return parts

    def combine(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        """Join the parts of two blocks."""
        return join_lloyd_parts(a, b)

    def step(
        self, state: LloydState, statistic: tuple[Any, ...], round_number: int
    ) -> tuple[LloydState, bool]:
        """Move the centers of all starts that have not settled."""
        sums, won, inertia, *farthest = statistic
        centers, settled = state.centers.copy(), state.settled.copy()
        new_inertia, weights = state.inertia.copy(), state.weights.copy()
        active = np.flatnonzero(~state.settled)
        new_inertia[active], weights[active] = inertia[active], won[active]
        if not farthest and not won[active].all():
            shift, before = state.shift, state.inertia
            return LloydState(centers, new_inertia, weights, settled, shift, before), False
        before = state.inertia if state.before is None else state.before
        far_cost, far = farthest or (np.zeros_like(won), np.zeros_like(sums))
        worst = 0.0
        for r in active:
            moved = moved_centers(state.centers[r], sums[r], won[r], far_cost[r], far[r])
            shift = float(np.square(moved - state.centers[r]).sum())
            if shift <= self.tolerance:
                settled[r] = True
            else:
                centers[r] = moved
                worst = max(worst, shift)
        # Gains shrink from round to round: a start that ten more like the last would not bring to the
        # best one is given up.
        hopeless = new_inertia - PATIENCE * (before - new_inertia) > new_inertia.min()
        given_up = hopeless & ~settled
        centers[given_up], settled[given_up] = state.centers[given_up], True
        done = bool(settled.all())
        return LloydState(centers, new_inertia, weights, settled, worst), done

    def objective(self, state: LloydState) -> float:
        """Least inertia of the starts."""
        return float(state.inertia.min())

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 16 * self.initial.size
