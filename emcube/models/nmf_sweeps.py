"""The passes over blocks that `emcube.models.nmf` is made of.

Letters: P pixels, E used channels, K components.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.engine import Block, BlockPlan, BlockSource
from emcube.engine.memory import current_residency
from emcube.kernels.pooling import n_tiles, pool, tile_index
from emcube.kernels.quasi_newton import Memory
from emcube.kernels.rows import CountRows
from emcube.kernels.volume import log_volume
from emcube.models.nmf_losses import Loss, Slope

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import RngKey

__all__ = [
    "DEFAULT_TOL",
    "BatchState",
    "BatchSweep",
    "PassState",
    "PassSweep",
    "PooledSource",
    "ScoreSweep",
]

DEFAULT_TOL = 1e-4
"""Share of the loss below which a pass was the last."""


@dataclass(frozen=True, eq=False)
class PooledSource:
    """Blocks of another source whose pixels are summed in tiles that do not cross blocks.

    Parameters
    ----------
    source : BlockSource
    tile : tuple of int
        Lengths of a tile along the navigation dims.

    Notes
    -----
    Tiles without a selected pixel stay, empty, so that the number of pooled pixels follows from the plan.
    """

    source: BlockSource
    tile: tuple[int, ...]

    @property
    def plan(self) -> BlockPlan:
        """Blocks of the underlying source (their boxes are in its pixels)."""
        return self.source.plan

    @property
    def n_channels(self) -> int:
        """Used channels E."""
        return self.source.n_channels

    @cached_property
    def n_pixels(self) -> int:
        """Tiles in all blocks."""
        return self.plan.n_tiles(self.tile)

    @property
    def block_bytes(self) -> int:
        """Bytes of a block of the underlying source."""
        return self.source.block_bytes

    @property
    def token(self) -> str:
        """Identity of what the blocks hold."""
        return f"{self.source.token}>pooled{self.tile}"

    def load(self, block_id: int) -> Block:
        """Take a block of the underlying source (resident, where it is) and pool it."""
        residency = current_residency()
        block = residency.get(self.source.token, block_id) if residency else None
        if block is None:
            block = self.source.load(block_id)
        grid = n_tiles(block.nav_shape, self.tile)
        groups = tile_index(block.nav_shape, self.tile)[block.box_index()]
        return Block(block.id, pool(block.data, groups, math.prod(grid)), grid, block.offset)

    def part(self, block_ids: Iterable[int]) -> PooledSource:
        """Source that can load these blocks."""
        return PooledSource(self.source.part(block_ids), self.tile)


@dataclass(frozen=True, eq=False)
class PassState:
    """State of the full passes.

    Attributes
    ----------
    components : ndarray, shape (K, E)
        What the next pass evaluates; at the end, the answer.
    best : ndarray or None
        The best components evaluated so far, with their EM step, value, loss and loadings.
    length : float
        Length of the last step, in plain steps: one for a plain step, more for one that may go up.
    strength : float or None
        Weight of the volume; None until the first pass has told the noise.
    statistic
        Of `best`.
    slope : Slope or None
        At `best`, where the loss has quasi-Newton steps.
    memory : Memory
        Of the curvature that was seen.

    Notes
    -----
    It pickles as its `components`, which are all that `map` needs.
    """

    components: NDArray[np.float64]
    length: float = 1.0
    strength: float | None = None
    best: NDArray[np.float64] | None = None
    stepped: NDArray[np.float64] | None = None
    value: float = math.inf
    statistic: Any = None
    slope: Slope | None = None
    memory: Memory = field(default_factory=Memory)

    def __reduce__(self) -> Any:
        return type(self), (self.components,)


@dataclass(frozen=True, eq=False)
class PassSweep:
    """Full passes: the profile objective F(S), and steps that never make it go up.

    The plain step is that of EM (with least squares a block descent). Longer ones are tried after the first,
    refused where the objective is not lower, and followed by the plain one: quasi-Newton steps on the
    logarithms of the components for counts, over-relaxed plain ones for least squares.

    Parameters
    ----------
    loss : Loss
    first : ndarray, shape (K, E)
    weights : ndarray, shape (E,)
        Channel weights of the volume.
    volume : float
        In units of half a nat for each pixel.
    delta : float
    n_pixels : int
        Pooled pixels.
    tol : float
        Done when a pass lowers the objective by less than this share of the loss, or (at `DEFAULT_TOL`) by no
        more than noise explains; 0: when it does not lower it.
    earlier
        Statistic of pixels of earlier calls of ``partial_fit``, or None.

    References
    ----------
    R. Salakhutdinov, S. Roweis, "Adaptive overrelaxed bound optimization methods", ICML 2003.
    J. Nocedal, "Updating quasi-Newton matrices with limited storage", Math. Comput. 35 (1980) 773.
    https://doi.org/10.1090/S0025-5718-1980-0572855-7
    """

    loss: Loss
    first: NDArray[np.float64]
    weights: NDArray[np.float64]
    volume: float
    delta: float
    n_pixels: int
    tol: float
    earlier: Any = None
    name: str = "NMF"

    def start(self) -> PassState:
        """The given components."""
        return PassState(self.first)

    def map(self, block: Block, state: PassState, rng_key: RngKey) -> Any:
        """Statistic of one block."""
        return self.loss.evaluate(block.data, state.components)

    def combine(self, a: Any, b: Any) -> Any:
        """Add."""
        return a + b

    def step(self, state: PassState, statistic: Any, round_number: int) -> tuple[PassState, bool]:
        """Accept or refuse what was evaluated, and look ahead."""
        components = state.components
        strength = state.strength
        free = max(1, self.n_pixels * (components.shape[1] - len(components)))
        noise = self.loss.noise(statistic.divergence, free)
        if strength is None:
            strength = 0.5 * self.volume * self.loss.n_effective(statistic, self.n_pixels) * noise
        value = statistic.objective
        if self.earlier is not None:
            value += self.loss.earlier(components, self.earlier)
        if strength:
            spectra = self.loss.spectra(components)
            value += strength * log_volume(spectra, self.weights, self.delta)
        seen = statistic if self.earlier is None else statistic + self.earlier
        slope = self.loss.slope(components, seen, self.weights, strength, self.delta)
        memory = state.memory
        if slope is not None and state.slope is not None:
            # Refused points tell of the curvature, too.
            memory = memory.with_pair(
                slope.point - state.slope.point, slope.gradient - state.slope.gradient, slope.scale
            )
        if state.best is not None and state.stepped is not None and not value < state.value:
            # Not better. After a long step try the plain one, which cannot go up; if that was it, what
            # is left is rounding.
            if state.length == 1.0:
                return replace(state, components=state.best), True
            return replace(state, components=state.stepped, length=1.0, memory=memory), False
        gained = state.value - value
        stepped = self.loss.step(components, seen, self.weights, strength, self.delta)
        done = bool(gained <= self._least(statistic.divergence, noise))
        ahead, length = components, 1.0
        if not done and state.best is None:
            ahead = stepped
        elif not done:
            ahead, length = self.loss.ahead(components, stepped, state.length, slope, memory)
        new = PassState(
            ahead, length, strength, components, stepped, value, statistic, slope, memory
        )
        return new, done

    def _least(self, divergence: float, noise: float) -> float:
        """Gain below which a pass was the last.

        Fitting noise alone gains about one nat for each value of the components (Akaike 1974): at the
        default `tol` less than that is no evidence that they got better, and a smaller one asks for more.
        """
        width = self.first.shape[1]
        if width == self.weights.size:
            width = int(np.count_nonzero(self.weights))
        n_values = len(self.first) * int(width)
        return self.tol * max(abs(divergence), noise * n_values / DEFAULT_TOL)

    def objective(self, state: PassState) -> float:
        """Loss plus volume of the best components so far."""
        return state.value

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 16 * self.first.size


@dataclass(frozen=True, eq=False)
class BatchState:
    """State of the minibatch rounds: components and the moving average of their statistic."""

    components: NDArray[np.float64]
    average: Any = None
    strength: float | None = None


@dataclass(frozen=True, eq=False)
class BatchSweep:
    """Stochastic EM: each round sees its share of the pixels of every block.

    An epoch is a permutation of each block's pixels, keyed by (seed, epoch, block), cut into `n_batches`
    slices; a round takes one slice of every block, so that a batch is drawn from the whole cube.

    References
    ----------
    O. Cappe, E. Moulines, "On-line expectation-maximization algorithm for latent data models", J. R. Stat.
    Soc. B 71 (2009) 593. https://doi.org/10.1111/j.1467-9868.2009.00698.x
    """

    loss: Loss
    first: NDArray[np.float64]
    weights: NDArray[np.float64]
    volume: float
    delta: float
    n_pixels: int
    n_batches: int
    n_epochs: int
    name: str = "NMF (batches)"

    def start(self) -> BatchState:
        """The given components."""
        return BatchState(self.first)

    def map(self, block: Block, state: BatchState, rng_key: RngKey) -> Any:
        """Statistic of this round's slice of one block."""
        seed, number, block_id = rng_key
        epoch, batch = divmod(number, self.n_batches)
        order = np.random.default_rng((seed, epoch, block_id)).permutation(block.n_pixels)
        mine = np.sort(order[batch :: self.n_batches])
        data = block.data
        part = data.take(mine) if isinstance(data, CountRows) else data[mine]
        return self.loss.evaluate(part, state.components)

    def combine(self, a: Any, b: Any) -> Any:
        """Add."""
        return a + b

    def step(self, state: BatchState, statistic: Any, round_number: int) -> tuple[BatchState, bool]:
        """One EM step on the moving average."""
        rate = (round_number + 1.0) ** -0.7
        average = (
            statistic if state.average is None else self.loss.mixed(state.average, statistic, rate)
        )
        in_batch = max(1, self.n_pixels // self.n_batches)
        free = max(1, in_batch * (self.first.shape[1] - len(self.first)))
        noise = self.loss.noise(statistic.divergence, free)
        strength = 0.5 * self.volume * self.loss.n_effective(statistic, in_batch) * noise
        components = self.loss.step(state.components, average, self.weights, strength, self.delta)
        done = round_number + 1 >= self.n_batches * self.n_epochs
        return BatchState(components, average, strength), done

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 16 * self.first.size


@dataclass(frozen=True, eq=False)
class ScoreSweep:
    """How well components explain the half of the data that their loadings have not seen."""

    loss: Loss
    components: NDArray[np.float64]
    name: str = "NMF score"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> NDArray[np.float64]:
        """Numerator and denominator of the score."""
        from emcube.kernels.held_out import held_out_counts, held_out_squares

        self.loss.check(block)
        if self.loss.counts:
            return held_out_counts(block.data, self.components, np.random.default_rng(rng_key))
        return held_out_squares(block.data, self.components)

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add."""
        return a + b

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True
