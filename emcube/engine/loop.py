"""The one run loop: sweeps over blocks, and per-pixel output written region by region."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emcube.engine.adoption import adopted, at_block
from emcube.engine.checkpoint import Call, Journal, current_checkpoints
from emcube.engine.combine import TreeCombiner
from emcube.engine.executor import Executor, Tasks, current_executor
from emcube.engine.memory import (
    Projection,
    current_residency,
    memory_budget,
    resident,
)
from emcube.engine.plan import BlockPlan
from emcube.engine.progress import Event, emit
from emcube.engine.source import Block, BlockSource
from emcube.engine.stopping import check_stop, passing
from emcube.engine.sweep import (
    Counted,
    Outcome,
    RngKey,
    Sweep,
    Together,
    finish_group,
    for_group,
    shared_key,
)
from emcube.engine.threads import single_threaded_blas
from emcube.errors import (
    ConservationError,
    EmcubeError,
    EngineError,
    InterruptedRunError,
    PreemptedRunError,
    StoreError,
)
from emcube.feedback.events import new_work, parent_work

__all__ = ["ArrayTarget", "Target", "Writing", "ZarrTarget", "load_block", "map_blocks"]
__all__ += ["project_memory", "run_sweep", "run_sweeps"]

_log = logging.getLogger(__name__)

TASK_BLOCKS = 256
"""Blocks that a task takes at most, where groups have fewer."""

TREE_BYTES = 64 * 2**20
"""Statistics that a task of several groups holds while it joins them, at most."""


class Target(Protocol):
    """Where per-pixel output of one kind goes."""

    @property
    def fill(self) -> Any:
        """Value of pixels that are not used."""
        ...

    def check(self, plan: BlockPlan) -> None:
        """Refuse a layout in which two tasks would write the same chunk."""
        ...

    def bound(self) -> Target:
        """The same target, held to what is there now: it never writes into what takes its place."""
        ...

    def box(self, plan: BlockPlan) -> tuple[int, ...]:
        """Blocks along each dim that are written at once."""
        ...

    def box_bytes(self, plan: BlockPlan) -> int:
        """Bytes that are written at once."""
        ...

    def write(self, region: tuple[slice, ...], values: NDArray[Any]) -> None:
        """Write the values of one box, shape (box..., trailing...)."""
        ...

    def holds(self, region: tuple[slice, ...]) -> bool:
        """Tell whether one box was written and is undamaged."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayTarget:
    """An array in memory, shape (nav..., trailing...); for threads of this process only."""

    array: NDArray[Any]
    fill: Any = np.nan

    def check(self, plan: BlockPlan) -> None:
        """Nothing is shared between boxes of an array."""

    def bound(self) -> ArrayTarget:
        """Nothing takes the place of an array in memory."""
        return self

    def box(self, plan: BlockPlan) -> tuple[int, ...]:
        """One block: nothing is gained by gathering several."""
        return (1,) * len(plan.grid)

    def box_bytes(self, plan: BlockPlan) -> int:
        """Bytes of a block's values."""
        trailing = math.prod(self.array.shape[len(plan.grid) :])
        return math.prod(plan.block_shape) * trailing * self.array.dtype.itemsize

    def write(self, region: tuple[slice, ...], values: NDArray[Any]) -> None:
        """Write one box."""
        self.array[region] = values

    def holds(self, region: tuple[slice, ...]) -> bool:
        """Memory does not outlive a run: no."""
        return False

    def __reduce__(self) -> Any:
        raise EngineError(
            "output in memory cannot be written from other processes",
            hint="write to a store, or use the threads of this process",
        )


@dataclass(frozen=True)
class ZarrTarget:
    """A Zarr array, shape (nav..., trailing...), written by the workers.

    Parameters
    ----------
    store : str
        Folder of the Zarr group.
    path : str
        Path of the array within the group.
    fill
        Value of pixels that are not used.
    made : tuple of int, optional
        The array that is meant, see `bound`.
    """

    store: str
    path: str
    fill: Any = np.nan
    made: tuple[int, int] | None = None

    def bound(self) -> ZarrTarget:
        """The same target, held to the array that is there now.

        A worker that was frozen may wake when its run is long over and another one has put an array in this
        place: what it then writes would be wrong there.
        """
        return replace(self, made=self._made_when())

    def _made_when(self) -> tuple[int, int] | None:
        """File and time of the array's metadata, which are written once; None behind an address."""
        try:
            found = Path(self.store, self.path, "zarr.json").stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _open(self, mode: Any) -> Any:
        import zarr

        # Every chunk is written: to look whether one holds nothing but fill values costs more than
        # it saves, and a missing chunk is always a fault.
        # Opening ignores a config of its own.
        return zarr.open_array(self.store, path=self.path, mode=mode).with_config(
            {"write_empty_chunks": True}
        )

    def _owned(self) -> tuple[tuple[int, ...], int]:
        """Cells of a file along each dim, and bytes of a cell."""
        array = self._open("r")
        return tuple(array.shards or array.chunks), int(array.dtype.itemsize)

    def check(self, plan: BlockPlan) -> None:
        """Refuse chunks that two tasks would share.

        Raises
        ------
        EngineError
            A chunk (or shard) lies in more than one group of blocks, or in blocks that do not follow each
            other.
        """
        owned, _ = self._owned()
        box = self.box(plan)
        cut = next((d for d, k in enumerate(box) if k > 1), len(box))
        for d, (chunk, block, n) in enumerate(
            zip(owned, plan.block_shape, plan.nav_shape, strict=False)
        ):
            group, grid = plan.group_shape[d], plan.grid[d]
            even = chunk >= n or block % chunk == 0 or chunk % block == 0
            inside = group == grid or group % box[d] == 0
            run = d <= cut or box[d] == grid
            if not (even and inside and run):
                where = f" in groups of {group}" if group > 1 else ""
                raise EngineError(
                    f"chunks of {self.path} would be written by two tasks: dim {d} has chunks of "
                    f"{chunk} and blocks of {block}{where}",
                    hint="make the chunks of the output a divisor of the blocks, or take them from "
                    "BlockPlan.output_shape",
                )

    def box(self, plan: BlockPlan) -> tuple[int, ...]:
        """Blocks along each dim of the smallest box that holds whole chunks."""
        return tuple(
            min(max(1, -(-chunk // block)), max(1, grid))
            for chunk, block, grid in zip(
                self._owned()[0], plan.block_shape, plan.grid, strict=False
            )
        )

    def box_bytes(self, plan: BlockPlan) -> int:
        """Bytes of such a box."""
        owned, itemsize = self._owned()
        pixels = math.prod(
            min(k * b, n)
            for k, b, n in zip(self.box(plan), plan.block_shape, plan.nav_shape, strict=True)
        )
        return pixels * math.prod(owned[len(plan.grid) :]) * itemsize

    def write(self, region: tuple[slice, ...], values: NDArray[Any]) -> None:
        """Write one box, whole chunks of which nobody else writes any.

        Raises
        ------
        StoreError
            The array cannot be written, or is no longer the one that was there when the run began.
        """
        if self.made is not None and self._made_when() != self.made:
            raise StoreError(
                f"{self.store}/{self.path} was removed or replaced while its values were computed: the "
                "array of another time is there than when the run began",
                hint="see whether another run writes there, then start this one again",
            )
        try:
            self._open("r+")[region] = values
        except OSError as error:
            raise StoreError(
                f"{self.store}/{self.path} cannot be written: {error}",
                hint="see whether its disk is full or gone, then run again: it goes on from what is there",
            ) from error

    def holds(self, region: tuple[slice, ...]) -> bool:
        """Tell whether the chunks of one box are all there and can be read.

        Damage shows where the array's chunks carry a checksum, as those of results do.
        """
        array = self._open("r")
        owned = array.shards or array.chunks
        whole = (*region, *(slice(0, n) for n in array.shape[len(region) :]))
        spans = [range(r.start // c, -(-r.stop // c)) for r, c in zip(whole, owned, strict=True)]
        folder = Path(self.store, self.path)
        for chunk in product(*spans):
            # A missing chunk would be read as fill values.
            if not (folder / array.metadata.encode_chunk_key(chunk)).is_file():
                return False
            try:
                array[tuple(slice(i * c, (i + 1) * c) for i, c in zip(chunk, owned, strict=True))]
            except (OSError, RuntimeError, ValueError):
                return False
        return True


def load_block(source: BlockSource, block_id: int) -> tuple[Block, bool]:
    """Take a block from the resident ones, or read it and keep it as far as the budget goes.

    Returns
    -------
    block : Block
    kept : bool
        Whether it is in memory from now on.
    """
    at_block(block_id)
    residency = current_residency()
    if residency is None:
        return source.load(block_id), False
    block = residency.get(source.token, block_id)
    if block is not None:
        return block, True
    block = source.load(block_id)
    return block, residency.keep(source.token, block_id, block)


def _where(source: BlockSource, block_id: int) -> str:
    region = ", ".join(f"{s.start}:{s.stop}" for s in source.plan.slices(block_id))
    return f"block {block_id} (positions {region})"


def _blame(
    error: BaseException, name: str, source: BlockSource, block_id: int, remote: bool
) -> None:
    """Name the block that an error came from, in a note or, unless it is emcube's own, as an `EngineError`.

    Whatever is raised counts: a worker that is left by a SystemExit would seem to hang. Only the user's own
    interrupt, which reaches the client's threads and no worker, goes on as it is.
    """
    stops = isinstance(error, KeyboardInterrupt)
    if stops and not remote:
        return
    if isinstance(error, EmcubeError) and not stops:
        error.add_note(f"in {name}, {_where(source, block_id)}")
        return
    raise EngineError(
        f"{name} failed at {_where(source, block_id)}: {type(error).__name__}: {error}"
    ) from error


@dataclass(frozen=True, eq=False)
class _MapGroups:
    """One task: the statistic of groups of blocks that make a node of the fixed tree.

    The blocks of a group are joined in their order, and the groups along the tree.
    """

    sweep: Sweep
    source: BlockSource
    state: Any
    groups: tuple[range, ...]
    seed: int
    round: int
    session: str
    remote: bool = False

    def __call__(self) -> Counted:
        with adopted(self.session):
            return self._run()

    def _run(self) -> Counted:
        # What is joined here nobody else has seen: the memory of the first may be used.
        tree = TreeCombiner(len(self.groups), _Join(self.sweep, into=True))
        for i, group in enumerate(self.groups):
            tree.add(i, self._one(group))
        whole: Counted = tree.root
        return whole

    def _one(self, group: range) -> Counted:
        joined: Counted | None = None
        sweep = for_group(self.sweep, group)
        for block_id in group:
            try:
                block, kept = load_block(self.source, block_id)
                value = sweep.map(block, self.state, (self.seed, self.round, block_id))
            except BaseException as error:
                _blame(error, self.sweep.name, self.source, block_id, self.remote)
                raise
            part = Counted(block.n_pixels, 1, value, int(kept))
            joined = part if joined is None else _join(self.sweep, joined, part, True)
        finish_group(sweep)
        if joined is None:
            raise EngineError(f"{self.sweep.name}: a group without blocks")
        return joined


@dataclass(frozen=True, eq=False)
class _Join:
    sweep: Sweep
    into: bool

    def __call__(self, a: Counted, b: Counted) -> Counted:
        return _join(self.sweep, a, b, self.into)


def _join(sweep: Sweep, a: Counted, b: Counted, into: bool) -> Counted:
    """Join two parts, in the memory of the first where that is allowed."""
    combine = getattr(sweep, "combine_into", sweep.combine) if into else sweep.combine
    return Counted(
        a.n_pixels + b.n_pixels,
        a.n_blocks + b.n_blocks,
        combine(a.value, b.value),
        a.n_resident + b.n_resident,
    )


class _Meter:
    """Progress of one run, in the client."""

    def __init__(
        self, name: str, source: BlockSource, n_rounds: int, projection: Projection
    ) -> None:
        self.name, self.source, self.n_rounds = name, source, n_rounds
        self.projected: int | None = projection.peak
        self.began = time.monotonic()
        self.blocks = self.pixels = self.round = 0
        self.resident_blocks: int | None = None
        self.number, self.parent = new_work(), parent_work()
        self._pixels_per_block = source.n_pixels / max(1, source.plan.n_blocks)
        self.send("start")
        self.projected = None

    def send(self, kind: str, objective: float | None = None, outcome: str = "") -> None:
        residency = current_residency()
        emit(
            Event(
                kind,
                self.name,
                self.round,
                self.n_rounds,
                self.blocks,
                self.source.plan.n_blocks,
                min(self.source.n_pixels, round(self.blocks * self._pixels_per_block)),
                self.source.n_pixels,
                time.monotonic() - self.began,
                objective,
                residency.used if residency else 0,
                self.resident_blocks,
                self.projected,
                work=self.number,
                parent=self.parent,
                outcome=outcome,
            )
        )

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Tell at the end how it went."""
        outcome = "failed"
        try:
            yield
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "stopped"
            raise
        finally:
            self.send("end", outcome=outcome)

    def begin_round(self, number: int) -> None:
        check_stop()
        self.round, self.blocks = number, 0

    def group_done(self, group: int) -> None:
        self.blocks += len(self.source.plan.groups[group])
        self.send("block")
        if self.blocks < self.source.plan.n_blocks:  # else the round is worth its end
            check_stop()


def project_memory(
    sweep: Sweep | None, source: BlockSource, slots: int, *, remote: bool = False
) -> Projection:
    """Memory that one process of a run needs besides resident blocks: pure arithmetic.

    `slots` are its blocks in flight. Each of them counts three times: compressed bytes with what decodes
    them, decoded values, and the rows or floats made of them; so does output that is gathered to be
    written: values, laid out, compressed. Of blocks that stay resident the projection holds what may stay
    at most: how small counts become is known when they have been read. Tasks of workers (`remote`) may take
    several groups, and hold a part for each level of the tree that they join.
    """
    plan = source.plan
    residency = current_residency()
    limit = memory_budget() // 2 if residency is None else residency.limit
    kept = getattr(source, "kept_bytes", None)
    statistic = _statistic_bytes(sweep, source)
    state = 0
    if sweep is not None and hasattr(sweep, "state_bytes"):
        state = int(sweep.state_bytes(source.n_channels))
    output = 0
    if sweep is not None and hasattr(sweep, "output_bytes"):
        output = int(sweep.output_bytes())
    levels = max(1, len(plan.groups)).bit_length()
    in_tasks = slots * min(TREE_BYTES, statistic * levels) if remote else 0
    return Projection(
        blocks=3 * slots * source.block_bytes,
        statistics=statistic * (2 * slots + levels) + in_tasks + state,
        slots=slots,
        block_bytes=source.block_bytes,
        resident=limit if kept is None else min(limit, int(kept)),
        process=_process_bytes(),
        outputs=3 * slots * output,
    )


def _process_bytes() -> int:
    """Memory of this process now, without resident blocks."""
    import psutil

    residency = current_residency()
    held = 0 if residency is None else residency.used
    return max(0, int(psutil.Process().memory_info().rss) - held)


def _report_rereading(name: str, source: BlockSource, n_resident: int) -> None:
    """Say once a cube that its blocks do not fit, and what that costs."""
    residency = current_residency()
    n_blocks = source.plan.n_blocks
    if residency is None or not residency.limit:  # nothing was meant to stay
        return
    if n_resident >= n_blocks or source.token in residency.reported:
        return
    residency.reported.add(source.token)
    _log.info(
        "%s: %d of %d blocks fit the memory budget and stay; each further pass reads the other "
        "%d again (a larger EMCUBE_MEMORY keeps more)",
        name,
        n_resident,
        n_blocks,
        n_blocks - n_resident,
    )


def run_sweep(
    sweep: Sweep,
    source: BlockSource,
    *,
    seed: int = 0,
    max_rounds: int = 1,
    state: Any = None,
    executor: Executor | None = None,
) -> Outcome:
    """Run an algorithm over all blocks, round by round.

    Parameters
    ----------
    sweep : Sweep
    source : BlockSource
    seed : int
        Random numbers in `map` derive from (seed, round, block id).
    max_rounds : int
        Rounds at most; each is one pass over the blocks.
    state
        State to go on from; None asks the sweep to start.
    executor : Executor, optional
        Default: `current_executor`.

    Returns
    -------
    Outcome
        Inside a `resident` context a sweep that shares its answer (see `Sweep`) is run once; later
        the same outcome is given without a pass. Its arrays are read-only.

    Raises
    ------
    BudgetError
        Blocks in flight and statistics would not fit the memory budget.
    ConservationError
        Pixels were lost or counted twice in a round.
    InterruptedRunError
        The user stopped the run, or a signal asked it to leave (`PreemptedRunError`).
    EngineError
        A block failed; the message names it.

    Notes
    -----
    Inside `checkpointing` the state after a round is kept from time to time, and a call that an earlier
    try had begun goes on from there.
    """
    kept = current_checkpoints()
    # Numbered whether it is answered or not: what is kept in memory must not change the numbers.
    call = None if kept is None else kept.call(sweep, source, seed, max_rounds, state)
    key = None if state is not None else _answer_key(sweep, source)
    found = _known_answer(sweep, source, key)
    if found is not None:
        return found
    began = time.monotonic()
    with resident():
        # What is shared is kept as an answer, under the name of what was asked.
        own = call if key is None else None
        outcome = _run_rounds(sweep, source, seed, max_rounds, state, executor, own)
        if outcome.n_rounds == 1:
            _keep_answer(sweep, source, key, outcome, time.monotonic() - began)
    return outcome


def _run_rounds(
    sweep: Sweep,
    source: BlockSource,
    seed: int,
    max_rounds: int,
    state: Any,
    executor: Executor | None,
    call: Call | None,
) -> Outcome:
    """Run the rounds of a sweep that its checkpoint, if it has one, does not know of."""
    if source.plan.n_blocks == 0 or source.n_pixels == 0:
        raise EngineError(
            f"{sweep.name}: the cube has no pixels to work on", hint="check the selection (where=)"
        )
    began = time.monotonic()
    restored = None if call is None else call.restore()
    if restored is not None and restored[1]:
        return restored[0]
    outcome = Outcome(state, 0, False) if restored is None else restored[0]
    with resident(), single_threaded_blas(), passing():
        executor = executor or current_executor()
        slots, budget = executor.process
        projection = project_memory(sweep, source, slots, remote=executor.remote)
        projection.require(budget, sweep.name, worker=executor.remote)
        if restored is None and state is None:
            outcome = Outcome(sweep.start(), 0, False)
        meter = _Meter(sweep.name, source, max_rounds, projection)
        try:
            with meter.ending():
                while outcome.n_rounds < max_rounds and not outcome.converged:
                    outcome = _next_outcome(sweep, source, outcome, seed, executor, meter)
                    if call is not None and outcome.n_rounds < max_rounds and not outcome.converged:
                        call.progress(outcome)
        except KeyboardInterrupt as error:
            raise _stopped(error, sweep.name, meter, call) from error
    if call is not None:
        call.done(outcome, time.monotonic() - began)
    return outcome


def _next_outcome(
    sweep: Sweep,
    source: BlockSource,
    outcome: Outcome,
    seed: int,
    executor: Executor,
    meter: _Meter,
) -> Outcome:
    """Outcome after one more round."""
    number = outcome.n_rounds
    meter.begin_round(number)
    total = _one_round(sweep, source, outcome.state, seed, number, executor, meter)
    meter.resident_blocks = total.n_resident
    _report_rereading(sweep.name, source, total.n_resident)
    state, converged = sweep.step(outcome.state, total.value, number)
    objective, history = None, outcome.history
    if hasattr(sweep, "objective"):
        objective = float(sweep.objective(state))
        history = [*history, objective]
    meter.send("round", objective)
    return Outcome(state, number + 1, bool(converged), history)


def _stopped(
    error: KeyboardInterrupt, name: str, meter: _Meter, call: Call | None
) -> InterruptedRunError:
    """What to say of a run that was stopped, and how much of it is kept."""
    rounds = 0 if call is None else call.save()
    what = (
        f"{name} was stopped in round {meter.round + 1}, after {meter.blocks} of "
        f"{meter.source.plan.n_blocks} blocks"
    )
    if rounds:
        what += f": {rounds} of its rounds are kept"
        hint = "start it again to go on from there"
    else:
        what += ": it has no result"
        hint = "start it again to get one"
    return _interrupted(error, what, hint)


def _interrupted(error: KeyboardInterrupt, what: str, hint: str) -> InterruptedRunError:
    if isinstance(error, PreemptedRunError):
        return PreemptedRunError(f"{error.message}: {what}", hint=hint)
    return InterruptedRunError(what, hint=hint)


def run_sweeps(
    sweeps: Sequence[Sweep], source: BlockSource, *, executor: Executor | None = None
) -> list[Outcome]:
    """Run several algorithms of one round in one pass over the blocks.

    Each ends with the bits that it has alone. Sweeps whose answer is known (see `run_sweep`) are not
    run, and where all are known there is no pass.

    Parameters
    ----------
    sweeps : sequence of Sweep
        Independent of each other, each done after one round; `Writing` is one that writes.
    source : BlockSource
    executor : Executor, optional
        Default: `current_executor`.

    Returns
    -------
    list of Outcome
        In the order of `sweeps`.

    Raises
    ------
    EngineError
        A sweep wants more than one round, or a block failed.
    BudgetError, ConservationError, InterruptedRunError
        As in `run_sweep`.
    """
    keys = [_answer_key(s, source) for s in sweeps]
    calls = [_own_call(s, source, key) for s, key in zip(sweeps, keys, strict=True)]
    outcomes = [
        _known_answer(s, source, key) or _finished_call(call)
        for s, key, call in zip(sweeps, keys, calls, strict=True)
    ]
    missing = [i for i, outcome in enumerate(outcomes) if outcome is None]
    # The same question twice is asked once.
    first: dict[Hashable, int] = {}
    for i in missing:
        first.setdefault(i if keys[i] is None else keys[i], i)
    asked = list(first.values())
    if asked:
        with resident():
            began = time.monotonic()
            bound = [s.bound() if isinstance(s := sweeps[i], Writing) else s for i in asked]
            together = Together(tuple(bound))
            states = _run_rounds(together, source, 0, 1, None, executor, None).state
            seconds = time.monotonic() - began
            for i, (state, done) in zip(asked, states, strict=True):
                if not done:
                    raise EngineError(f"{sweeps[i].name} is not done after one round")
                outcome = Outcome(state, 1, True)
                outcomes[i] = outcome
                _keep_answer(sweeps[i], source, keys[i], outcome, seconds)
                if (call := calls[i]) is not None:
                    call.done(outcome, seconds)
    for i in missing:
        outcomes[i] = outcomes[first[i if keys[i] is None else keys[i]]]
    return [outcome for outcome in outcomes if outcome is not None]


def _answer_key(sweep: Sweep, source: BlockSource) -> Hashable | None:
    """Identity of an answer: what is asked, of which values, cut into which blocks."""
    share = shared_key(sweep)
    return None if share is None else (source.token, source.plan, share)


def _own_call(sweep: Sweep, source: BlockSource, key: Hashable | None) -> Call | None:
    """Number of a sweep of one round among the calls, where its outcome is kept under it."""
    kept = current_checkpoints()
    if kept is None:
        return None
    call = kept.call(sweep, source, 0, 1, None)
    # What writes must write again; answers are kept under the name of what was asked.
    return None if key is not None or isinstance(sweep, Writing) else call


def _finished_call(call: Call | None) -> Outcome | None:
    restored = None if call is None else call.restore()
    return restored[0] if restored is not None and restored[1] else None


def _known_answer(sweep: Sweep, source: BlockSource, key: Hashable | None) -> Outcome | None:
    """Answer of an equal question in this process, or in an earlier try of this run."""
    residency, kept = current_residency(), current_checkpoints()
    if key is None:
        return None
    found: Outcome | None = None if residency is None else residency.answer(key)
    restored = found is None and kept is not None
    if found is None and kept is not None:
        found = kept.answer(source, shared_key(sweep))
    if found is not None and hasattr(sweep, "accepts") and not sweep.accepts(found.state):
        return None
    if found is not None and restored:
        _share(sweep, source, key, found)
    return found


def _share(sweep: Sweep, source: BlockSource, key: Hashable, outcome: Outcome) -> None:
    """Give an answer to whoever asks again in this process."""
    residency = current_residency()
    if residency is None:
        return
    residency.keep_answer(key, outcome)
    for share, state in _implied(sweep, outcome):
        residency.keep_answer((source.token, source.plan, share), Outcome(state, 1, True))


def _implied(sweep: Sweep, outcome: Outcome) -> list[tuple[Hashable, Any]]:
    """Answers of other sweeps that this one implies."""
    return list(sweep.also(outcome.state)) if hasattr(sweep, "also") else []


def _keep_answer(
    sweep: Sweep, source: BlockSource, key: Hashable | None, outcome: Outcome, seconds: float
) -> None:
    """Share an answer, and keep it for a later try of this run."""
    if key is None:
        return
    _share(sweep, source, key, outcome)
    kept = current_checkpoints()
    if kept is None:
        return
    kept.keep_answer(source, shared_key(sweep), sweep.name, outcome, seconds)
    for share, state in _implied(sweep, outcome):
        also = Outcome(state, 1, True)
        kept.keep_answer(source, share, sweep.name, also, seconds)


def _session(executor: Executor) -> str:
    """Name of the residency in force; remote workers let go of it when its context ends."""
    residency = current_residency()
    if residency is None:
        raise EngineError("a run needs a residency")
    if executor.remote:
        residency.on_close.setdefault("release", executor.releaser(residency.session))
    return residency.session


def _one_round(
    sweep: Sweep,
    source: BlockSource,
    state: Any,
    seed: int,
    number: int,
    executor: Executor,
    meter: _Meter,
) -> Counted:
    groups = source.plan.groups
    session = _session(executor)

    def task(run: range) -> Callable[[], Any]:
        mine = groups[run.start : run.stop]
        needed = source.part(_blocks_of(mine)) if executor.remote else source
        return _MapGroups(sweep, needed, state, mine, seed, number, session, executor.remote)

    # A worker may be asked for a part again: there parts are never changed.
    join = _Join(sweep, into=not executor.remote)
    tasks = Tasks(task, _most_groups(sweep, source))
    total: Counted = executor.reduce(tasks, len(groups), join, meter.group_done)
    if total.n_pixels != source.n_pixels or total.n_blocks != source.plan.n_blocks:
        raise ConservationError(
            f"{sweep.name}, round {number + 1}: {total.n_pixels} pixels of {total.n_blocks} blocks "
            f"were counted, {source.n_pixels} of {source.plan.n_blocks} expected",
            hint="please report this: the result would have been wrong",
        )
    return total


def _blocks_of(groups: tuple[range, ...]) -> range:
    """Blocks of groups that follow each other."""
    return range(groups[0].start, groups[-1].stop)


def _most_groups(sweep: Sweep, source: BlockSource) -> int:
    """Groups that one task may take: a power of two.

    What a task joins along the way it holds in its memory; `project_memory` counts `TREE_BYTES` for that.
    """
    most = max(1, TASK_BLOCKS // len(source.plan.groups[0]))
    levels = TREE_BYTES // max(1, _statistic_bytes(sweep, source))
    return int(min(1 << (most.bit_length() - 1), 1 << min(levels, TASK_BLOCKS.bit_length())))


def _statistic_bytes(sweep: Sweep | None, source: BlockSource) -> int:
    if sweep is None or not hasattr(sweep, "statistic_bytes"):
        return 0
    return int(sweep.statistic_bytes(source.n_channels))


@dataclass(frozen=True, eq=False)
class Writing:
    """A sweep that writes per-pixel output, to go with others in one pass (see `run_sweeps`).

    Parameters
    ----------
    function : callable
        ``function(block) -> {key: ndarray (p, ...)}`` for the block's p pixels; pure, pickles.
    plan : BlockPlan
        Of the source, for the place of a block.
    targets : mapping of str to Target
        Where each key goes. Unused pixels get the target's fill value.
    """

    function: Callable[[Block], Mapping[str, NDArray[Any]]]
    plan: BlockPlan
    targets: Mapping[str, Target]
    name: str = "write maps"

    def bound(self) -> Writing:
        """The same, held to the arrays that are there now."""
        return replace(self, targets={k: t.bound() for k, t in self.targets.items()})

    def start(self) -> None:
        """Refuse targets in which two tasks would write the same chunk."""
        for target in self.targets.values():
            target.check(self.plan)

    def for_group(self, group: range) -> _Gathering:
        """What writes the output of one group of blocks."""
        return _Gathering(self, group)

    def map(self, block: Block, state: None, rng_key: RngKey) -> None:
        """Write what belongs to one block, where chunks hold one."""
        alone = self.for_group(range(block.id, block.id + 1))
        alone.map(block, state, rng_key)
        alone.finish_group()

    def combine(self, a: None, b: None) -> None:
        """Nothing travels."""

    def step(self, state: None, statistic: None, round_number: int) -> tuple[None, bool]:
        """One round is all."""
        return None, True

    def output_bytes(self) -> int:
        """Bytes that a task gathers before it writes them."""
        return sum(target.box_bytes(self.plan) for target in self.targets.values())


class _Gathering:
    """Output of the blocks of one group, written as soon as a chunk is whole.

    It lives as long as one task: a task that is run again writes all its chunks again.
    """

    def __init__(self, writing: Writing, group: range) -> None:
        self.writing, self.group = writing, group
        self.name = writing.name
        self._boxes = {key: target.box(writing.plan) for key, target in writing.targets.items()}
        self._open: dict[tuple[str, tuple[int, ...]], _Box] = {}

    def map(self, block: Block, state: None, rng_key: RngKey) -> None:
        """Take in the output of one block."""
        plan, values = self.writing.plan, self.writing.function(block)
        region = plan.slices(block.id)
        for key, target in self.writing.targets.items():
            laid_out = block.expand(np.asarray(values[key]), target.fill)
            box = self._boxes[key]
            if math.prod(box) == 1:
                target.write(region, laid_out)
                continue
            whole, n_blocks = plan.box_of(block.id, box)
            corner = tuple(r.start for r in whole)
            gathered = self._open.setdefault((key, corner), _Box(whole, n_blocks))
            if gathered.add(region, laid_out):
                del self._open[key, corner]
                target.write(whole, gathered.values)

    def finish_group(self) -> None:
        """Make sure that nothing is left.

        Raises
        ------
        EngineError
            A chunk lies only in part in the group.
        """
        if self._open:
            raise EngineError(
                f"{self.name}: blocks {self.group.start} to {self.group.stop - 1} leave "
                f"{len(self._open)} chunks in part unwritten",
                hint="take the chunks of the output from BlockPlan.output_shape",
            )


class _Box:
    """Values of several blocks, to be written at once."""

    def __init__(self, region: tuple[slice, ...], n_blocks: int) -> None:
        self.region, self.missing = region, n_blocks
        self.values: NDArray[Any] = np.empty(0)

    def add(self, region: tuple[slice, ...], values: NDArray[Any]) -> bool:
        """Put the values of one block in their place; tell whether all are there."""
        if not self.values.size:
            trailing = values.shape[len(self.region) :]
            shape = (*(r.stop - r.start for r in self.region), *trailing)
            self.values = np.empty(shape, dtype=values.dtype)
        place = tuple(
            slice(r.start - o.start, r.stop - o.start)
            for r, o in zip(region, self.region, strict=True)
        )
        self.values[place] = values
        self.missing -= 1
        return self.missing == 0


@dataclass(frozen=True, eq=False)
class _WriteGroups:
    """One task: compute and write the output of groups of blocks.

    `written` are the numbers, among these groups, of those that an earlier try wrote.
    """

    writing: Writing
    source: BlockSource
    groups: tuple[range, ...]
    session: str
    written: frozenset[int] = frozenset()
    remote: bool = False

    def __call__(self) -> int:
        with adopted(self.session):
            for i, group in enumerate(self.groups):
                if i not in self.written or not self._is_whole(group):
                    self._write(group)
        return len(_blocks_of(self.groups))

    def _write(self, group: range) -> None:
        name, gathering = self.writing.name, self.writing.for_group(group)
        for block_id in group:
            try:
                block, _ = load_block(self.source, block_id)
                gathering.map(block, None, (0, 0, block_id))
            except BaseException as error:
                _blame(error, name, self.source, block_id, self.remote)
                raise
        gathering.finish_group()

    def _is_whole(self, group: range) -> bool:
        """Whether what an earlier try wrote of a group is there and undamaged."""
        plan = self.source.plan
        for target in self.writing.targets.values():
            box = target.box(plan)
            # A box at a time: all of a group may be more than fits.
            regions = {str(r): r for r in (plan.box_of(i, box)[0] for i in group)}
            if not all(target.holds(region) for region in regions.values()):
                return False
        return True


def map_blocks(
    function: Callable[[Block], Mapping[str, NDArray[Any]]],
    source: BlockSource,
    targets: Mapping[str, Target],
    *,
    name: str = "write maps",
    executor: Executor | None = None,
    continues: str | None = None,
) -> None:
    """Compute per-pixel output block by block and write it where it belongs, never gathering it.

    Parameters
    ----------
    function : callable
        ``function(block) -> {key: ndarray (p, ...)}`` for the block's p pixels; pure, pickles.
    source : BlockSource
    targets : mapping of str to Target
        Where each key goes. Unused pixels get the target's fill value.
    continues : str, optional
        Identity of the targets, for `checkpointing`: groups of blocks that an earlier try wrote into
        targets of the same identity, and that are whole, stay. None: everything is written.

    Raises
    ------
    EngineError
        A target's chunks would be written by two tasks, or a block failed.
    InterruptedRunError
        The user stopped the run, or a signal asked it to leave (`PreemptedRunError`).
    """
    journal = _journal(name, source, function, continues)
    with resident(), single_threaded_blas(), passing():
        executor = executor or current_executor()
        writing = Writing(function, source.plan, targets, name).bound()
        writing.start()
        slots, budget = executor.process
        projection = project_memory(writing, source, slots, remote=executor.remote)
        projection.require(budget, name, worker=executor.remote)
        groups = source.plan.groups
        session = _session(executor)
        meter = _Meter(name, source, 1, projection)
        before = frozenset() if journal is None else frozenset(journal.finished)

        def task(run: range) -> Callable[[], Any]:
            mine = groups[run.start : run.stop]
            needed = source.part(_blocks_of(mine)) if executor.remote else source
            written = frozenset(i for i, group in enumerate(run) if group in before)
            return _WriteGroups(writing, needed, mine, session, written, executor.remote)

        def done(group: int) -> None:
            if journal is not None:
                journal.add(group)
            meter.group_done(group)

        try:
            with meter.ending():
                meter.begin_round(0)
                executor.each(Tasks(task, _most_groups(writing, source)), len(groups), done)
        except KeyboardInterrupt as error:
            what = f"{name} was stopped after {meter.blocks} of {source.plan.n_blocks} blocks"
            raise _interrupted(
                error, f"{what}: its output is incomplete", "start it again to complete it"
            ) from error


def _journal(
    name: str, source: BlockSource, function: Any, continues: str | None
) -> Journal | None:
    kept = current_checkpoints()
    if kept is None:
        return None
    journal = kept.journal(name, source, (function, continues))
    return None if continues is None else journal
