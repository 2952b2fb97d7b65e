"""Penalties on the loadings of NMF: few components in a pixel, and neighbours that are alike.

Letters: P pixels, E used channels, K components, F pixels of a face of a block.

Loadings are solved anew in every pass, so that sparsity asks nothing of the engine. Smoothness couples pixels
across the borders of blocks. Blocks are solved at the same time and know of each other only what the client
keeps from one pass to the next: for every pair of pixels on both sides of a border the middle of what
they were (see `emcube.kernels.coupled_loadings.Coupling`). So a block's answer depends on the block and the
state alone, the same bits come out on any number of workers, what is kept has the size of the blocks'
outlines, and the objective, told with the pairs across borders, never rises.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.engine import Block, BlockPlan, BlockSource, map_blocks, run_sweep
from emcube.engine.executor import ThreadExecutor
from emcube.engine.loop import ArrayTarget
from emcube.engine.source import DaskSource, StoreSource
from emcube.errors import InputError
from emcube.kernels.coupled_loadings import Coupling, coupled_frobenius, coupled_poisson
from emcube.kernels.rows import CountRows
from emcube.models.nmf_losses import Loss, LossAround, Slope
from emcube.models.nmf_sweeps import PassState, PassSweep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import RngKey
    from emcube.kernels.quasi_newton import Memory

__all__ = [
    "Anchors",
    "CoupledState",
    "CoupledSweep",
    "PenalisedLoss",
    "PenalisedPass",
    "Penalties",
    "SmoothSolve",
    "data_pass",
    "map_smoothly",
    "outline_bytes",
    "penalties_of",
    "solve_anchors",
]

Faces = tuple["NDArray[np.float64]", ...]
"""Abundances (F, K) on the low and the high side of a block along each image dim, side by side; no rows
where no block follows, NaN where no pixel is used."""

ANCHOR_TOLERANCE = 1e-4
"""Change of what lies between blocks, as a share of it, at which maps have settled."""

ANCHOR_ROUNDS = 200


@dataclass(frozen=True)
class Penalties:
    """What is asked of the loadings, in the units of the loss.

    Attributes
    ----------
    sparsity, smoothness : float
        Weights; 0 asks for nothing.
    closed : bool
        Loadings of a pixel sum to its counts, and smoothness is that of abundances.
    """

    sparsity: float = 0.0
    smoothness: float = 0.0
    closed: bool = False

    def __bool__(self) -> bool:
        return self.sparsity > 0.0 or self.smoothness > 0.0

    def coupling(
        self,
        block: Block,
        n_components: int,
        dims: tuple[int, ...],
        anchors: Faces | None,
        weight_of_one: float = 2.0,
    ) -> Coupling:
        """What a block's pixels are asked for, with what its outline is drawn to.

        That are middles, which weigh two, or the neighbours themselves, which weigh one.
        """
        n_pixels = block.n_pixels
        if not self.smoothness:
            return Coupling.apart(n_pixels, n_components, self.sparsity, closed=self.closed)
        rows = _rows_of(block, self.closed)
        pull, weight = np.zeros((n_pixels, n_components)), np.zeros(n_pixels)
        if anchors is not None:
            for face, middle in zip(_faces(rows, dims), anchors, strict=True):
                if not len(middle):
                    continue
                met = (face >= 0) & np.isfinite(middle[:, 0])
                # A corner lies on two faces: its pulls add.
                np.add.at(pull, face[met], weight_of_one * middle[met])
                np.add.at(weight, face[met], weight_of_one)
        near = _neighbours(rows, dims, n_pixels)
        return Coupling(self.sparsity, self.smoothness, self.closed, near, pull, weight)


def _rows_of(block: Block, closed: bool) -> NDArray[np.int64]:
    """Row in the data of each pixel of the box; -1 where none is used, or (closed) has abundances."""
    rows = np.full(math.prod(block.nav_shape), -1, dtype=np.int64)
    rows[block.box_index()] = np.arange(block.n_pixels)
    if closed:
        data = block.data
        totals = data.pixel_totals() if isinstance(data, CountRows) else data.sum(axis=1)
        rows[block.box_index()[np.asarray(totals) <= 0]] = -1
    return rows.reshape(block.nav_shape)


def _faces(values: NDArray[Any], dims: tuple[int, ...], *, trailing: int = 0) -> list[NDArray[Any]]:
    """First and last slice along each dim, flat but for the trailing dims."""
    tail = values.shape[values.ndim - trailing :]
    return [
        np.take(values, side, axis=d).reshape((-1, *tail))
        for d in dims
        for side in (0, values.shape[d] - 1)
    ]


def _neighbours(rows: NDArray[np.int64], dims: tuple[int, ...], n_pixels: int) -> NDArray[np.int64]:
    """Rows (P, 2 dims) of the neighbours of each row; -1 where there is none."""
    near = np.full((n_pixels, 2 * len(dims)), -1, dtype=np.int64)
    for i, d in enumerate(dims):
        before = np.take(rows, np.arange(rows.shape[d] - 1), axis=d).reshape(-1)
        after = np.take(rows, np.arange(1, rows.shape[d]), axis=d).reshape(-1)
        both = (before >= 0) & (after >= 0)
        near[before[both], 2 * i] = after[both]
        near[after[both], 2 * i + 1] = before[both]
    return near


@dataclass(frozen=True, eq=False)
class PenalisedPass:
    """What a pass tells about the components, with the penalty of the loadings.

    Attributes
    ----------
    data : PoissonPass or FrobeniusPass
    penalty : float
    faces : tuple of (int, Faces)
        Of each block, with its number.
    """

    data: Any
    penalty: float
    faces: tuple[tuple[int, Faces], ...] = ()

    @property
    def divergence(self) -> float:
        """Of the data alone."""
        return float(self.data.divergence)

    @property
    def objective(self) -> float:
        """Divergence plus penalty."""
        return self.divergence + self.penalty

    @property
    def loadings(self) -> NDArray[np.float64]:
        """Sum of the loadings."""
        return np.asarray(self.data.loadings)

    def __add__(self, other: Any) -> PenalisedPass:
        return PenalisedPass(
            self.data + data_pass(other),
            self.penalty + (other.penalty if isinstance(other, PenalisedPass) else 0.0),
            self.faces + (other.faces if isinstance(other, PenalisedPass) else ()),
        )


def data_pass(statistic: Any) -> Any:
    """What a pass tells of the data, penalised or not."""
    return statistic.data if isinstance(statistic, PenalisedPass) else statistic


def _solved(
    loss: Loss, data: Any, spectra: NDArray[np.float64], coupling: Coupling, *, exact: bool
) -> tuple[NDArray[np.float64], Any, float]:
    """Loadings, statistic and penalty of some pixels."""
    if loss.counts:
        return coupled_poisson(data, spectra, coupling, exact=exact)
    return coupled_frobenius(data, spectra, coupling, exact=exact)


@dataclass(frozen=True)
class PenalisedLoss(LossAround):
    """A loss whose loadings are penalised pixel by pixel.

    Parameters
    ----------
    inner : PoissonLoss or FrobeniusLoss
    penalties : Penalties
        Smoothness is a matter of blocks (`CoupledSweep`), and of no single pixels.
    """

    penalties: Penalties

    def _data(self, statistic: Any) -> Any:
        return data_pass(statistic)

    def spectra(self, components: NDArray[np.float64]) -> NDArray[np.float64]:
        """Themselves."""
        return components

    def _alone(self, data: Any, components: NDArray[np.float64], *, exact: bool) -> Any:
        p = self.penalties
        n, k = int(data.shape[0]), len(components)
        coupling = Coupling.apart(n, k, p.sparsity, closed=p.closed)
        return _solved(self, data, components, coupling, exact=exact)

    def evaluate(
        self, data: CountRows | NDArray[Any], components: NDArray[np.float64]
    ) -> PenalisedPass:
        """Statistic of some pixels, each on its own."""
        _, found, penalty = self._alone(data, components, exact=False)
        return PenalisedPass(found, penalty)

    def loadings(
        self, data: CountRows | NDArray[Any], components: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Penalised loadings of some pixels, each on its own."""
        return np.asarray(self._alone(data, components, exact=True)[0])

    def step(
        self,
        components: NDArray[np.float64],
        statistic: Any,
        weights: NDArray[np.float64],
        strength: float,
        delta: float,
    ) -> NDArray[np.float64]:
        """That of the loss: the penalty is one of the loadings."""
        return np.asarray(
            self.inner.step(components, data_pass(statistic), weights, strength, delta)
        )

    def earlier(self, components: NDArray[np.float64], statistic: Any) -> float:
        """Bound of the loss of pixels seen before; their penalty stays."""
        return float(self.inner.earlier(components, data_pass(statistic)))

    def slope(
        self,
        components: NDArray[np.float64],
        statistic: Any,
        weights: NDArray[np.float64],
        strength: float,
        delta: float,
    ) -> Slope | None:
        """As that of the loss, but penalised loadings do not sum to the counts that they explain."""
        found = data_pass(statistic)
        if self.counts:
            found = replace(found, loadings=found.counts.sum(axis=1))
        slope: Slope | None = self.inner.slope(components, found, weights, strength, delta)
        return slope

    def ahead(
        self,
        components: NDArray[np.float64],
        stepped: NDArray[np.float64],
        length: float,
        slope: Slope | None,
        memory: Memory,
    ) -> tuple[NDArray[np.float64], float]:
        """What to evaluate next."""
        found: tuple[NDArray[np.float64], float] = self.inner.ahead(
            components, stepped, length, slope, memory
        )
        return found


# ----------------------------------------------------------------------------------- between blocks


def _meet(
    plan: BlockPlan,
    dims: tuple[int, ...],
    faces: tuple[tuple[int, Faces], ...],
    *,
    middles: bool = True,
) -> tuple[dict[int, Faces], float]:
    """What lies across the borders of each block, and the sum of the squared distances across.

    That are the middles of both sides, or the other side itself.
    """
    known = dict(faces)
    across: dict[int, list[NDArray[np.float64]]] = {
        number: [np.zeros((0, 0))] * (2 * len(dims)) for number in known
    }
    apart = 0.0
    for number in sorted(known):
        for i, d in enumerate(dims):
            after = number + math.prod(plan.grid[d + 1 :])
            mine = known[number][2 * i + 1]
            if not len(mine):
                continue
            yours = known[after][2 * i]
            middle = 0.5 * (mine + yours)
            met = np.isfinite(middle[:, 0])
            between = (mine - yours)[met]
            apart += float(np.vdot(between, between))
            across[number][2 * i + 1] = middle if middles else yours
            across[after][2 * i] = middle if middles else mine
    return {number: tuple(found) for number, found in across.items()}, apart


def _outline(
    plan: BlockPlan,
    block: Block,
    penalties: Penalties,
    dims: tuple[int, ...],
    loadings: NDArray[np.float64],
) -> Faces:
    """Abundances on the faces of a block behind which another block lies."""
    rows = _rows_of(block, penalties.closed)
    shares = loadings
    if penalties.closed:
        totals = loadings.sum(axis=1, keepdims=True)
        shares = loadings / np.where(totals > 0.0, totals, 1.0)
    shares = np.concatenate((shares, np.full((1, loadings.shape[1]), np.nan)))
    found = []
    for i, face in enumerate(_faces(rows, dims)):
        d, high = dims[i // 2], i % 2
        start = plan.offset(block.id)[d]
        outside = start + plan.shape(block.id)[d] < plan.nav_shape[d] if high else start > 0
        # Row -1 is the last one, of NaN.
        found.append(shares[face] if outside else np.zeros((0, loadings.shape[1])))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class CoupledState:
    """State of passes whose pixels are coupled.

    Attributes
    ----------
    passes : PassState
    anchors : dict of int to Faces
        Middles between blocks that the next pass is drawn to; empty before the first.
    best : dict of int to Faces
        Those of the best loadings so far.

    Notes
    -----
    It pickles as what `map` needs.
    """

    passes: PassState
    anchors: dict[int, Faces]
    best: dict[int, Faces]

    def __reduce__(self) -> Any:
        return type(self), (self.passes, self.anchors, {})


@dataclass(frozen=True, eq=False)
class CoupledSweep:
    """Full passes whose loadings are smooth in space.

    Parameters
    ----------
    passes : PassSweep
        Steps of the components.
    penalties : Penalties
    plan : BlockPlan
    dims : tuple of int
        Navigation dims of the image.
    """

    passes: PassSweep
    penalties: Penalties
    plan: BlockPlan
    dims: tuple[int, ...]
    name: str = "NMF"

    def start(self) -> CoupledState:
        """The given components, and blocks that do not know of each other."""
        return CoupledState(self.passes.start(), {}, {})

    def map(self, block: Block, state: CoupledState, rng_key: RngKey) -> PenalisedPass:
        """Statistic of one block, whose pixels are solved together."""
        loss = self.passes.loss
        spectra = loss.spectra(state.passes.components)
        anchors = state.anchors.get(block.id)
        coupling = self.penalties.coupling(block, len(spectra), self.dims, anchors)
        loadings, found, penalty = _solved(loss, block.data, spectra, coupling, exact=False)
        faces = _outline(self.plan, block, self.penalties, self.dims, loadings)
        return PenalisedPass(found, penalty, ((block.id, faces),))

    def combine(self, a: PenalisedPass, b: PenalisedPass) -> PenalisedPass:
        """Add."""
        return a + b

    def step(
        self, state: CoupledState, statistic: PenalisedPass, round_number: int
    ) -> tuple[CoupledState, bool]:
        """Add what lies between blocks, and step the components."""
        middles, apart = _meet(self.plan, self.dims, statistic.faces)
        penalty = statistic.penalty + 0.5 * self.penalties.smoothness * apart
        whole = PenalisedPass(statistic.data, penalty)
        passes, done = self.passes.step(state.passes, whole, round_number)
        best = middles if passes.statistic is whole else state.best
        return CoupledState(passes, best, best), done

    def objective(self, state: CoupledState) -> float:
        """Loss plus penalties plus volume of the best components so far."""
        return self.passes.objective(state.passes)

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return self.passes.statistic_bytes(n_channels) + self._outline_bytes() // max(
            1, self.plan.n_blocks
        )

    def state_bytes(self, n_channels: int) -> int:
        """Bytes of the state: what lies between blocks, now and at best, besides the components."""
        return 6 * 8 * self.passes.first.size + 2 * self._outline_bytes()

    def _outline_bytes(self) -> int:
        return outline_bytes(self.plan, self.dims, len(self.passes.first))


def outline_bytes(plan: BlockPlan, dims: tuple[int, ...], n_components: int) -> int:
    """Bytes of the faces of all blocks."""
    faces = sum(2 * (plan.grid[d] - 1) * plan.n_pixels // max(1, plan.nav_shape[d]) for d in dims)
    return 8 * n_components * faces


# --------------------------------------------------------------------------------------------- maps


@dataclass(frozen=True, eq=False)
class Anchors:
    """What blocks of a source have to know of each other for its maps.

    Attributes
    ----------
    token : str
        Identity of the source.
    plan : BlockPlan
    dims : tuple of int
    faces : dict of int to Faces
        What lies across the borders of each block.
    n_rounds : int
        Passes until they settled.
    """

    token: str
    plan: BlockPlan
    dims: tuple[int, ...]
    faces: dict[int, Faces]
    n_rounds: int


@dataclass(frozen=True, eq=False)
class _AnchorState:
    faces: dict[int, Faces]
    change: float = math.inf


@dataclass(frozen=True, eq=False)
class AnchorSweep:
    """Rounds in which blocks with given components come to terms with each other (block Jacobi).

    Each block takes its neighbours as they were. For quadratic losses that converges, since with the signs
    of the pairs across borders turned the form stays positive (a P-regular splitting); twice as fast as with
    middles, whose guarantee is not needed where components stay.
    """

    loss: Loss
    spectra: NDArray[np.float64]
    penalties: Penalties
    plan: BlockPlan
    dims: tuple[int, ...]
    first: dict[int, Faces] = field(default_factory=dict)
    name: str = "NMF (smooth maps)"

    def start(self) -> _AnchorState:
        """Blocks that do not know of each other, or as far as the fit got."""
        return _AnchorState(self.first)

    def map(
        self, block: Block, state: _AnchorState, rng_key: RngKey
    ) -> tuple[tuple[int, Faces], ...]:
        """Outline of one block."""
        self.loss.check(block)
        coupling = self.penalties.coupling(
            block, len(self.spectra), self.dims, state.faces.get(block.id), 1.0
        )
        loadings, _, _ = _solved(self.loss, block.data, self.spectra, coupling, exact=True)
        return ((block.id, _outline(self.plan, block, self.penalties, self.dims, loadings)),)

    def combine(self, a: Any, b: Any) -> Any:
        """Append."""
        return a + b

    def step(
        self, state: _AnchorState, statistic: Any, round_number: int
    ) -> tuple[_AnchorState, bool]:
        """Tell each other; done when nobody moves."""
        found, _ = _meet(self.plan, self.dims, statistic, middles=False)
        size, change = _distance(found, state.faces)
        return _AnchorState(found, change), change <= ANCHOR_TOLERANCE * size

    def objective(self, state: _AnchorState) -> float:
        """How far what lies between blocks has moved."""
        return state.change

    def state_bytes(self, n_channels: int) -> int:
        """Bytes of the state."""
        return 2 * outline_bytes(self.plan, self.dims, len(self.spectra))


def _distance(new: dict[int, Faces], old: dict[int, Faces]) -> tuple[float, float]:
    """Length of all middles, and of their change (infinite where there were none)."""
    size = change = 0.0
    for number, faces in new.items():
        for i, face in enumerate(faces):
            kept = np.nan_to_num(face)
            size += float(np.vdot(kept, kept))
            if not len(face):
                continue
            if number not in old:
                change = math.inf
            elif np.isfinite(change):
                apart = kept - np.nan_to_num(old[number][i])
                change += float(np.vdot(apart, apart))
    return math.sqrt(size), math.sqrt(change)


def solve_anchors(
    source: BlockSource,
    dims: tuple[int, ...],
    loss: Loss,
    spectra: NDArray[np.float64],
    penalties: Penalties,
    token: str | None = None,
    first: dict[int, Faces] | None = None,
) -> Anchors:
    """Let the blocks of a source come to terms, in some passes with the components as they are.

    Parameters
    ----------
    source : BlockSource
        In counts.
    token : str, optional
        Identity of what the user gave, where `source` was made from it.
    first : dict of int to Faces, optional
        What blocks are drawn to at first.
    """
    sweep = AnchorSweep(loss, spectra, penalties, source.plan, dims, first or {})
    outcome = run_sweep(sweep, source, max_rounds=ANCHOR_ROUNDS)
    name = source.token if token is None else token
    return Anchors(name, source.plan, dims, outcome.state.faces, outcome.n_rounds)


@dataclass(frozen=True, eq=False)
class SmoothSolve:
    """Smooth loadings of a block's pixels, between what its neighbours have come to."""

    loss: Loss
    spectra: NDArray[np.float64]
    penalties: Penalties
    anchors: Anchors
    sum_to_one: bool
    gain: float = 1.0

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        """Loadings (p, K), or abundances, and their sum, the scale (p,)."""
        self.loss.check(block)
        plan = self.anchors.plan
        if block.nav_shape != plan.shape(block.id) or block.offset != plan.offset(block.id):
            raise InputError(
                f"smooth maps know the blocks of {plan.nav_shape} pixels in {plan.grid} blocks: block "
                f"{block.id} at {block.offset} of {block.nav_shape} is none of them",
                hint="call transform(cube), which solves the maps of that cube",
            )
        if self.gain != 1.0:
            block = replace(block, data=block.dense() / self.gain)
        coupling = self.penalties.coupling(
            block, len(self.spectra), self.anchors.dims, self.anchors.faces.get(block.id), 1.0
        )
        loadings, _, _ = _solved(self.loss, block.data, self.spectra, coupling, exact=True)
        loadings = loadings * self.gain
        scale = loadings.sum(axis=1)
        if self.sum_to_one:
            loadings = loadings / np.where(scale > 0.0, scale, 1.0)[:, None]
        return {"loadings": loadings, "scale": scale}


def map_smoothly(
    source: BlockSource, function: Callable[[Block], NDArray[Any]], trailing: tuple[int, ...]
) -> Any:
    """Answers (nav..., *trailing) of all blocks: a Dask array with a chunk a block where the source is lazy.

    Parameters
    ----------
    source : BlockSource
    function : callable
        ``function(block) -> ndarray (p, *trailing)``; unlike those of other models it needs to know which
        block it is given.
    trailing : tuple of int
    """
    if not isinstance(source, DaskSource | StoreSource):
        out = np.full((*source.plan.nav_shape, *trailing), np.nan)
        keyed = _Keyed(function)
        map_blocks(keyed, source, {"out": ArrayTarget(out, np.nan)}, executor=ThreadExecutor())
        return out
    import dask.array as da

    plan = source.plan
    numbers = da.from_array(
        np.arange(plan.n_blocks).reshape(plan.grid or (1,)), chunks=(1,) * len(plan.grid)
    )
    chunks = tuple(
        tuple(min(b, n - start) for start in range(0, n, b))
        for n, b in zip(plan.nav_shape, plan.block_shape, strict=True)
    )
    n_nav = len(plan.grid)
    return numbers.map_blocks(
        _OneBlock(source, function, trailing),
        chunks=chunks + tuple((n,) for n in trailing),
        new_axis=list(range(n_nav, n_nav + len(trailing))),
        dtype=np.float64,
        meta=np.empty((0,) * (n_nav + len(trailing))),
    )


@dataclass(frozen=True, eq=False)
class _Keyed:
    function: Callable[[Block], NDArray[Any]]

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        return {"out": self.function(block)}


@dataclass(frozen=True, eq=False)
class _OneBlock:
    """Loads the block whose number it is given, and answers for its pixels."""

    source: BlockSource
    function: Callable[[Block], NDArray[Any]]
    trailing: tuple[int, ...]

    def __call__(self, number: NDArray[np.int64]) -> NDArray[np.float64]:
        block = self.source.load(int(number.reshape(-1)[0]))
        return block.expand(np.asarray(self.function(block), dtype=np.float64), np.nan)


def penalties_of(
    loss: Loss,
    sparsity: float,
    smoothness: float,
    *,
    closed: bool,
    counts_per_pixel: float,
    noise: float,
    length: float,
) -> Penalties:
    """Turn the user's numbers, which have no unit, into weights in the units of the loss.

    Parameters
    ----------
    loss : Loss
    sparsity : float
        Counts: nats that a component costs where it sets in. Least squares: standard errors that a loading
        must reach.
    smoothness : float
        How many pixels' worth of data a neighbour counts for.
    closed : bool
    counts_per_pixel : float
        Of the pixels that hold any.
    noise : float
        Least squares: variance of a value.
    length : float
        Mean squared length of the components: least squares' curvature along a loading.
    """
    if loss.counts:
        # The information of g counts on an abundance is of the order of g; on a loading, 1 / g.
        unit = counts_per_pixel if closed else 1.0 / counts_per_pixel
        return Penalties(sparsity, smoothness * unit, closed)
    return Penalties(sparsity * math.sqrt(noise * length), smoothness * length, closed)
