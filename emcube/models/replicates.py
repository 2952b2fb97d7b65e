"""Fits of the same measurement made again: all replicates go through the blocks together.

Letters: P pixels (or tiles), E used channels, K components, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from emcube.engine import Block
from emcube.engine.memory import current_residency
from emcube.kernels.poisson_nmf import as_rows
from emcube.kernels.resampling import (
    AREAS,
    area_index,
    area_shape,
    drawn_again,
    flipped,
    split,
    weighed,
)
from emcube.kernels.subspace import scatter_image
from emcube.models.matching import match_values
from emcube.models.nmf_sweeps import PassState, PassSweep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import BlockPlan, BlockSource, RngKey
    from emcube.kernels.rows import CountRows
    from emcube.models.nmf_losses import Loss
    from emcube.models.nmf_start import SampleSweep

__all__ = ["AreaDraw", "Draw", "DrawnSource", "EventDraw", "ReplicateSweep", "ThinDraw", "WildDraw"]
__all__ += ["PointsSweep", "SubspaceSweep", "aligned"]


class Draw(Protocol):
    """Make a measurement again: a pure function of a block, which pickles."""

    @property
    def noise(self) -> float:
        """Variance of what is drawn about the truth, over that of counts of this size."""
        ...

    def __call__(self, block: Block) -> Block:
        """The block as another measurement would have had it."""
        ...


@dataclass(frozen=True)
class EventDraw:
    """Counts drawn anew from the counts; the seed is that of (replicate, block).

    The counts scatter about the truth, and what is drawn about the counts: twice the variance.
    """

    seed: int
    number: int
    noise: float = 2.0

    def __call__(self, block: Block) -> Block:
        """Draw one block."""
        rng = np.random.default_rng((self.seed, self.number, block.id))
        return replace(block, data=drawn_again(as_rows(block.data), rng))


@dataclass(frozen=True)
class ThinDraw:
    """One of several parts to which the counts are dealt; parts of one deal are independent."""

    seed: int
    number: int
    shares: tuple[float, ...]
    part: int
    noise: float = 1.0

    def __call__(self, block: Block) -> Block:
        """Draw one block."""
        (mine,) = split(as_rows(block.data), self.shares, self._rng(block), only=self.part)
        return replace(block, data=mine)

    def parts(self, block: Block) -> tuple[CountRows, ...]:
        """All parts of the deal."""
        return split(as_rows(block.data), self.shares, self._rng(block))

    def _rng(self, block: Block) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.number, block.id))


@dataclass(frozen=True, eq=False)
class AreaDraw:
    """Areas of the field of view, each as often as it was drawn with replacement.

    Parameters
    ----------
    times : ndarray of int
        How often each area was drawn (see `area_index`).
    shapes : tuple of tuple of int
        Lengths of the navigation dims of the cube; of each, where there are several.
    tile : tuple of int
        Lengths of a pixel of the blocks, in pixels of the cube.
    counts : bool
        Whether the loss is that of counts.
    several : bool
        Blocks are those of several cubes: the first of their dims numbers these.
    """

    times: NDArray[np.int64]
    shapes: tuple[tuple[int, ...], ...]
    tile: tuple[int, ...]
    counts: bool
    several: bool = False
    noise: float = 1.0

    def __call__(self, block: Block) -> Block:
        """Weigh the pixels of one block."""
        inside = np.column_stack(np.unravel_index(block.box_index(), block.nav_shape))
        places = (np.asarray(block.offset) + inside * np.asarray(self.tile)).astype(np.int64)
        times = self.times[self._areas(block.offset, places)]
        data = as_rows(block.data) if self.counts else block.data
        return replace(block, data=weighed(data, times, counts=self.counts))

    def _areas(self, offset: tuple[int, ...], places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the areas of some places; those of several cubes are numbered through."""
        if not self.several:
            return area_index(places, self.shapes[0])
        field, each = offset[0], _areas_of_each(self.shapes)
        before = sum(math.prod(area_shape(shape, each)) for shape in self.shapes[:field])
        return before + area_index(places[:, 1:], self.shapes[field], each)

    @classmethod
    def draw(
        cls,
        seed: int,
        number: int,
        shapes: tuple[tuple[int, ...], ...],
        tile: tuple[int, ...],
        *,
        counts: bool,
        several: bool = False,
    ) -> AreaDraw:
        """Draw as many areas as there are, with replacement."""
        n = sum(math.prod(area_shape(shape, _areas_of_each(shapes))) for shape in shapes)
        rng = np.random.default_rng((seed, number))
        times = np.bincount(rng.integers(0, n, size=n), minlength=n)
        return cls(times.astype(np.int64), shapes, tile, counts, several)


def _areas_of_each(shapes: tuple[tuple[int, ...], ...]) -> int:
    """Areas of each of several cubes, so that all together have about `AREAS`: one at least."""
    return max(1, AREAS // len(shapes))


@dataclass(frozen=True, eq=False)
class WildDraw:
    """Residuals of least squares with signs drawn anew."""

    seed: int
    number: int
    loss: Loss
    components: NDArray[np.float64]
    noise: float = 1.0

    def __call__(self, block: Block) -> Block:
        """Draw one block."""
        rng = np.random.default_rng((self.seed, self.number, block.id))
        data = block.dense()
        model = self.loss.loadings(data, self.components) @ self.components
        return replace(block, data=flipped(data, model, rng))


@dataclass(frozen=True, eq=False)
class DrawnSource:
    """Blocks of another source, each measured again. They are drawn anew whenever they are asked for.

    Parameters
    ----------
    source : BlockSource
    draw : Draw
    name : str
        Identity of the draw, for resident blocks.
    """

    source: BlockSource
    draw: Draw
    name: str

    @property
    def plan(self) -> BlockPlan:
        """The grid of the underlying source."""
        return self.source.plan

    @property
    def n_channels(self) -> int:
        """Used channels E."""
        return self.source.n_channels

    @property
    def n_pixels(self) -> int:
        """Selected pixels P."""
        return self.source.n_pixels

    @property
    def block_bytes(self) -> int:
        """Bytes of a block of the underlying source."""
        return self.source.block_bytes

    @property
    def token(self) -> str:
        """Identity of what the blocks hold."""
        return f"{self.source.token}>{self.name}"

    def load(self, block_id: int) -> Block:
        """Take a block of the underlying source (resident, where it is) and draw."""
        residency = current_residency()
        block = residency.get(self.source.token, block_id) if residency else None
        return self.draw(self.source.load(block_id) if block is None else block)

    def part(self, block_ids: Iterable[int]) -> DrawnSource:
        """Source that can load these blocks."""
        return replace(self, source=self.source.part(block_ids))


@dataclass(frozen=True, eq=False)
class ReplicateSweep:
    """Full passes of NMF over several replicates at once: each block is read and pooled once for all.

    Parameters
    ----------
    sweeps : tuple of PassSweep
        One a replicate.
    draws : tuple of Draw
        As many: what a block holds for each. The same in every round.
    """

    sweeps: tuple[PassSweep, ...]
    draws: tuple[Draw, ...]
    name: str = "uncertainty (replicates)"

    def start(self) -> tuple[tuple[PassState, bool], ...]:
        """State of each, and whether it is done."""
        return tuple((sweep.start(), False) for sweep in self.sweeps)

    def map(
        self, block: Block, state: tuple[tuple[PassState, bool], ...], rng_key: RngKey
    ) -> tuple[Any, ...]:
        """Statistic of each replicate that is not done."""
        return tuple(
            None if done else sweep.map(draw(block), one, rng_key)
            for sweep, draw, (one, done) in zip(self.sweeps, self.draws, state, strict=True)
        )

    def combine(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        """Add each to its own."""
        return tuple(None if x is None else x + y for x, y in zip(a, b, strict=True))

    def step(
        self,
        state: tuple[tuple[PassState, bool], ...],
        statistic: tuple[Any, ...],
        round_number: int,
    ) -> tuple[tuple[tuple[PassState, bool], ...], bool]:
        """Let each go on until it is done."""
        new = tuple(
            (one, True) if done else sweep.step(one, found, round_number)
            for sweep, (one, done), found in zip(self.sweeps, state, statistic, strict=True)
        )
        return new, all(done for _, done in new)

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of the statistics of all."""
        return sum(sweep.statistic_bytes(n_channels) for sweep in self.sweeps)


@dataclass(frozen=True, eq=False)
class SubspaceSweep:
    """Subspace of the signal as each replicate would have found it, in one round.

    One step of subspace iteration from the model's subspace V on the replicate's scatter matrix G + dG gives
    V L + dG V: what its own noise turns the vectors by, to first order.

    Parameters
    ----------
    vectors : ndarray, shape (E, K)
        V, for data that are multiplied by `scale`.
    scale : ndarray, shape (E,)
        Square root of the channel weights.
    draws : tuple of Draw
    """

    vectors: NDArray[np.float64]
    scale: NDArray[np.float64]
    draws: tuple[Draw, ...]
    name: str = "uncertainty (subspaces)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> NDArray[np.float64]:
        """Images of the vectors (R, E, K), for each replicate."""
        basis = np.ascontiguousarray(self.scale[:, None] * self.vectors)
        return np.array(
            [
                scatter_image(as_rows(draw(block).data), basis, by_counts=True)[0]
                for draw in self.draws
            ]
        )

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add."""
        return a + b

    def step(
        self, state: Any, statistic: NDArray[np.float64], round_number: int
    ) -> tuple[NDArray[np.float64], bool]:
        """Orthonormal vectors (R, E, K)."""
        found = np.array([np.linalg.qr(self.scale[:, None] * image)[0] for image in statistic])
        return found, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * len(self.draws) * self.vectors.size


@dataclass(frozen=True, eq=False)
class PointsSweep:
    """Points of the cloud in which each replicate looks for its corners, in one round."""

    samples: tuple[SampleSweep, ...]
    draws: tuple[Draw, ...]
    name: str = "uncertainty (corners)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> tuple[NDArray[np.float64], ...]:
        """Points of one block, for each replicate."""
        found = []
        for sample, draw in zip(self.samples, self.draws, strict=True):
            points = sample.map(draw(block), state, rng_key)
            # The last column is the variance that counts of this size have: corners are freed of noise by it.
            points[:, -1] *= draw.noise
            found.append(points)
        return tuple(found)

    def combine(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        """Gather each with its own."""
        return tuple(np.concatenate((x, y)) for x, y in zip(a, b, strict=True))

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True


def aligned(
    values: NDArray[np.float64], reference: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Components (K, E) in the order of a reference's, each summing to one."""
    order, _ = match_values(values, reference, weights)
    out = values[order[np.argsort(order[:, 0]), 1]]
    return np.asarray(out / out.sum(axis=1, keepdims=True))
