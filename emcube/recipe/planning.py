"""What a run will do and need, told before it reads anything but headers.

Blocks, passes and bytes are arithmetic on the recipe and on what the cube's store says of itself (`passes`);
memory is the engine's own projection (`emcube.engine.project_memory`); seconds come from a small measurement
of this machine (`calibration`).
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.cube import nav_dims, sig_dims
from emcube.engine import ChainedPlan, format_bytes, memory_budget, project_memory
from emcube.engine.memory import Projection, parse_bytes
from emcube.engine.threads import default_threads
from emcube.errors import BudgetError, InputError
from emcube.kernels.rows import MAX_ROW_DENSITY
from emcube.models.fields import FIELD, Fields, several
from emcube.models.labels import as_source
from emcube.recipe.calibration import Calibration, calibrate
from emcube.recipe.passes import Facts, Pass, Passes, Range, StepPasses
from emcube.recipe.prepare import Prepared, prepare
from emcube.recipe.running import _destination, _identify, _understand, result_address
from emcube.recipe.spectra import with_spectra
from emcube.results.remote import RemoteResult
from emcube.results.tree import read_root

if TYPE_CHECKING:
    import xarray as xr

    from emcube.engine import BlockPlan, BlockSource
    from emcube.recipe import schema
    from emcube.recipe.inputs import Input
    from emcube.recipe.recipe import Recipe

__all__ = ["Machine", "PassPlan", "Plan", "Problem", "StepPlan", "plan"]

PARALLEL = 0.6
"""Share of what n threads could do that they do at worst: memory is shared, blocks are uneven."""

LUCK = (0.7, 1.5)
"""How far the cube's counts, files and neighbours on the machine differ from the sample's, as a factor."""

GROUP_SECONDS = {"threads": (1e-4, 2e-3), "workers": (3e-3, 2e-2)}
"""Handing out one task and taking its answer, in the client; of workers also through the scheduler."""

FEWEST_TASKS = 8
"""Tasks of a pass for each thread of a worker, at the least."""

ROUND_SECONDS = {"threads": (2e-3, 2e-2), "workers": (2e-2, 2e-1)}
NODE_SECONDS = (0.05, 0.5)
"""Writing and closing one node of the result."""

WORKER_SECONDS = (1.0, 4.0)
"""Start of workers, in units of the start of this machine's process."""

LINK = (2e9, 2e8)
"""Bytes a second between processes, for each worker: at best on one host, at worst on a network."""

CLIENT_SHARE = 0.6
"""A process that has no blocks to work on holds so much of the memory of one that has."""

DASK_SPILLS = 0.6
"""Share of a worker's memory from which on Dask spills, by its default."""


@dataclass(frozen=True)
class Machine:
    """Where the run is taken to happen.

    Attributes
    ----------
    deployment : str
        "threads" (of this process) or "workers" (processes of a Dask scheduler).
    workers : int
        Processes that hold blocks: one for "threads".
    threads : int
        Blocks in flight in each.
    memory : int
        Bytes that each may use: the budget of a run on threads, the limit of a worker.
    resident : int
        Bytes of these for blocks that stay.
    cores : int
        Of this host; workers beyond them are on others.
    """

    deployment: str
    workers: int
    threads: int
    memory: int
    resident: int
    cores: int

    @property
    def slots(self) -> int:
        """Blocks in flight everywhere."""
        return self.workers * self.threads

    @property
    def words(self) -> str:
        """The assumption, for people."""
        if self.deployment == "threads":
            return f"{self.threads} threads of one process, budget {format_bytes(self.memory)}"
        return (
            f"{self.workers} worker processes of {self.threads} "
            f"{'thread' if self.threads == 1 else 'threads'}, {format_bytes(self.memory)} each"
        )


@dataclass(frozen=True)
class Problem:
    """Something that will not go well.

    Attributes
    ----------
    refused : bool
        The run will refuse or fail; otherwise a warning.
    what, hint : str
        What it is, and what to do.
    """

    refused: bool
    what: str
    hint: str


@dataclass(frozen=True)
class PassPlan:
    """One kind of pass of a step, in numbers.

    Attributes
    ----------
    name : str
    over : str
        What its blocks hold.
    blocks, groups : int
        Blocks, and tasks they are handed out in.
    passes : tuple of int
        Times that all blocks are visited, as a rule: from, to.
    least, most : int
        In any case, and at most (-1: nothing but the data bounds it).
    decides : str
        What decides how many; empty where the number is fixed.
    read : Range
        Bytes decoded (dense counts) or read as rows (events), in all passes.
    stored : Range or None
        Bytes read from files; None where not known before.
    moved : Range
        Bytes of statistics and states between processes, in all passes.
    resident_blocks : Range
        Blocks that stay in memory after the first pass.
    memory : int
        Projected peak of each process that holds blocks, bytes.
    seconds : Range
    """

    name: str
    over: str
    blocks: int
    groups: int
    passes: tuple[int, int]
    least: int
    most: int
    decides: str
    read: Range
    stored: Range | None
    moved: Range
    resident_blocks: Range
    memory: int
    seconds: Range


@dataclass(frozen=True)
class StepPlan:
    """One step: its passes and its part of the result."""

    name: str
    verb: str
    passes: tuple[PassPlan, ...]
    output: Range
    files: Range
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> Range:
        """Time of the step."""
        return sum((p.seconds for p in self.passes), Range(*NODE_SECONDS))


@dataclass(frozen=True)
class Plan:
    """What `emcube plan` prints.

    Attributes
    ----------
    machine : Machine
    cube : dict
        Shape, dtype, pixels, channels, blocks and what is known of its counts.
    steps : tuple of StepPlan
    start : Range
        Seconds before the first block: imports, compiled kernels, workers.
    memory : int
        Projected peak of each process that holds blocks, bytes.
    client : int
        The same of the process that runs the recipe, where that is another one.
    problems : tuple of Problem
    notes : tuple of str
    """

    machine: Machine
    cube: Mapping[str, Any]
    steps: tuple[StepPlan, ...]
    start: Range
    memory: int
    client: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def fits(self) -> bool:
        """Whether nothing speaks against the run."""
        return not any(p.refused for p in self.problems)

    @property
    def seconds(self) -> Range:
        """Time of the whole run."""
        return sum((s.seconds for s in self.steps), self.start)

    @property
    def passes(self) -> Range:
        """Passes over blocks, as a rule."""
        low = sum(p.passes[0] for s in self.steps for p in s.passes)
        return Range(low, sum(p.passes[1] for s in self.steps for p in s.passes))

    @property
    def moved(self) -> Range:
        """Bytes between processes."""
        return sum((p.moved for s in self.steps for p in s.passes), Range(0, 0))

    @property
    def output(self) -> Range:
        """Bytes of the result."""
        return sum((s.output for s in self.steps), Range(0, 0))

    @property
    def files(self) -> Range:
        """Files of the result."""
        return sum((s.files for s in self.steps), Range(1, 1))

    def require(self) -> None:
        """Refuse a run that cannot go well.

        Raises
        ------
        BudgetError
            Names the first reason and what to do.
        """
        for problem in self.problems:
            if problem.refused:
                raise BudgetError(problem.what, hint=problem.hint)

    def as_dict(self) -> dict[str, Any]:
        """Plain form, for programs."""
        from dataclasses import asdict

        plain = asdict(self)
        for name in ("seconds", "passes", "moved", "output", "files"):
            plain[name] = asdict(getattr(self, name))
        for step, own in zip(plain["steps"], self.steps, strict=True):
            step["seconds"] = asdict(own.seconds)
        plain["fits"] = self.fits
        plain["machine"]["words"] = self.machine.words
        return plain


# ------------------------------------------------------------------------------------------ the plan


def plan(
    what: Any,
    cube: Any = None,
    *,
    out: str | os.PathLike[str] | None = None,
    name: str | None = None,
    n_components: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    calibration: Calibration | None = None,
) -> Plan:
    """Tell what a run will do and need, before it reads anything but headers.

    Parameters
    ----------
    what, cube, out, name, n_components
        As for `run`.
    workers : int, optional
        Worker processes of a Dask scheduler; default none: threads of this process.
    threads : int, optional
        Blocks in flight in each process; default ``EMCUBE_THREADS`` or the cores, of a worker one.
    memory : int or str, optional
        What each process may use, such as ``"4GiB"``; default ``EMCUBE_MEMORY`` or half of what is free, of
        a worker its share of this host's memory.
    calibration : Calibration, optional
        Of the machine; default that of this one, measured in some seconds if it is not known yet.

    Returns
    -------
    Plan
        With ``problems`` where the run would not fit.

    Raises
    ------
    RecipeError, InputError, SelectionError
        As `run` does for a recipe that is not valid or does not fit its cube.

    Notes
    -----
    Of a store its metadata, its coordinates and the sum spectrum that lies beside the cube are read, of
    an instrument file its header.

    Examples
    --------
    >>> em.plan("recipe.yaml", workers=4).seconds  # doctest: +SKIP
    """
    recipe, cube = _understand(what, cube, name=name, n_components=n_components)
    machine = _machine(workers, threads, memory)
    found = _find(recipe, cube)
    prepared = prepare(found.cube, recipe.prepare)
    recipe = with_spectra(recipe, prepared.cube)
    ruled = recipe.model.where is not None
    everything, labels = as_source(prepared.cube)
    source, _ = as_source(prepared.cube, prepared.region)
    counted = _counted(found, prepared, everything)
    facts = {
        part: _facts(of, prepared.cube, found, counted)
        for part, of in (("used", source), ("all", everything))
    }
    walk = Passes(
        facts["used"],
        facts["all"],
        prepared.cube.dtype.kind,
        None if counted is None else counted.mean,
        labels.nav_dims,
        _answer_room(machine),
        in_memory=not any(hasattr(one.data, "dask") for one in _each(prepared.cube)),
    )
    regions = prepared.region if isinstance(prepared.region, list) else [prepared.region]
    selected = ruled or any(region is not None for region in regions)
    steps = [walk.input(recipe.steps, selected=selected, ruled=ruled)]
    steps += [walk.step(step) for step in recipe.steps]
    rates = calibration or calibrate()
    numbers = _Numbers(machine, rates, {"used": source, "all": everything})
    planned = tuple(numbers.step(step, prepared) for step in [*found.before, *steps])
    return _whole(machine, recipe, found, prepared, facts["used"], planned, numbers, out)


def _each(cube: Any) -> tuple[xr.DataArray, ...]:
    """The cubes of a run, one or several."""
    return cube.cubes if isinstance(cube, Fields) else (cube,)


def _machine(workers: int | None, threads: int | None, memory: int | str | None) -> Machine:
    value: Any
    for word, value in (("workers", workers), ("threads", threads)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise InputError(f"{word} must be a whole number from 1 on, got {value!r}")
    import psutil

    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    given = None if memory is None else parse_bytes(memory)
    if given is not None and given < 1:
        raise InputError(f"memory must be a positive size, got {memory!r}", hint="write 4GiB")
    if workers is None:
        budget = memory_budget() if given is None else given
        return Machine("threads", 1, threads or default_threads(), budget, budget // 2, cores)
    limit = given or int(psutil.virtual_memory().total // max(workers, 1))
    return Machine("workers", workers, threads or 1, limit, limit // 3, cores)


def _answer_room(machine: Machine) -> int:
    """Bytes for answers that steps share; they are in the client."""
    limit = machine.resident if machine.deployment == "threads" else memory_budget() // 2
    return limit // 4


# ---------------------------------------------------------------------------------- what is known


@dataclass(frozen=True)
class _Found:
    """The cube of a recipe, opened lazily, and what must happen before a run can start with it.

    Of several cubes `parts` are what is known of each.
    """

    cube: Any
    digest: str | None
    stored: int | None = None
    store: str | None = None
    before: tuple[StepPasses, ...] = ()
    notes: tuple[str, ...] = ()
    parts: tuple[_Found, ...] = ()


def _find(recipe: Recipe, cube: Any) -> _Found:
    """Open what the recipe names as `run` does, without reading or ingesting it."""
    from emcube.recipe.inputs import _fields_of, require_one_input

    named = recipe.model.input
    require_one_input(recipe, cube)
    if (given := several(cube)) is not None:
        return _together(given.names, [_in_hand(one) for one in given.cubes])
    if cube is not None:
        return _in_hand(cube)
    assert named is not None
    if named.several:
        names, single = _fields_of(recipe, named)
        return _together(names, [_named(recipe, one) for one in single])
    return _named(recipe, named)


def _together(names: Sequence[str], parts: Sequence[_Found]) -> _Found:
    """Several cubes as one."""
    from emcube.recipe.inputs import Input as Whole
    from emcube.recipe.inputs import _together as joined

    # The digest of all is told from that of each.
    known = all(one.digest is not None for one in parts)
    whole = joined(names, [Whole(one.cube, str(one.digest)) for one in parts])
    stored = [one.stored for one in parts if one.stored is not None]
    return _Found(
        whole.cube,
        whole.digest if known else None,
        sum(stored) if len(stored) == len(parts) else None,
        before=tuple(step for one in parts for step in one.before),
        notes=tuple(dict.fromkeys(note for one in parts for note in one.notes)),
        parts=tuple(parts),
    )


def _in_hand(cube: xr.DataArray) -> _Found:
    from emcube.cube import validate_cube

    cube = validate_cube(cube)
    return _Found(cube, None, before=(_digest_of(cube),))


def _named(recipe: Recipe, named: schema.Input) -> _Found:
    from emcube.recipe.inputs import _address
    from emcube.sources import open as open_cube
    from emcube.store import is_store, read_digest

    where, options = _address(recipe, named)
    opened = open_cube(where, **options)
    place = opened.encoding.get("source")
    if place is None:
        return _ingested(opened)
    place = str(place)
    if named.name is None and is_store(place):
        return _Found(opened, read_digest(place), _stored_bytes(place), place)
    return _Found(opened, None, _stored_bytes(place), place, before=(_digest_of(opened),))


def _read_once(name: str, over: Facts, why: str) -> StepPasses:
    work = {over.reading: Range.of(float(over.decoded))}
    return StepPasses(name, "read", (Pass(name, over, work=work),), (why,))


def _plain_facts(cube: xr.DataArray, name: str) -> Facts:
    reading = "read_float" if cube.dtype.kind == "f" else "read_cell"
    n_channels = int(np.prod([cube.sizes[d] for d in sig_dims(cube)], dtype=np.int64))
    size = int(cube.nbytes)
    n = max(1, size // (16 << 20))
    return Facts(
        name, n, n, int(cube.size // max(1, n_channels)), n_channels, min(size, 16 << 20), size, None,
        Range(0, 0), False, Range(0, 0), reading,
    )  # fmt: skip


def _digest_of(cube: xr.DataArray) -> StepPasses:
    return _read_once(
        "digest", _plain_facts(cube, "the input"),
        "the input has no digest of its own: all of it is read and hashed first "
        "(emcube ingest writes a store that has one)",
    )  # fmt: skip


def _ingested(cube: xr.DataArray) -> _Found:
    """What the run will find once it has brought an instrument file into a store."""
    from emcube.store.layout import plan_layout

    layout = plan_layout(
        cube.shape, len(sig_dims(cube)), cube.dtype.itemsize, source_chunks=cube.chunks
    )
    before = _read_once(
        "read input", _plain_facts(cube, "the instrument file"),
        "the file is brought into a store beside the result first, for the time of the run: decoding it "
        "may take longer than told here (emcube ingest does it once and for all)",
    )  # fmt: skip
    chunks = dict(zip(cube.dims, layout.chunks, strict=True))
    return _Found(cube.chunk(chunks), None, before=(before,))


def _stored_bytes(place: str) -> int | None:
    """Bytes in the files of a local store, from the folders alone; None for addresses."""
    if "://" in place or not Path(place).is_dir():
        return None
    return sum(f.stat().st_size for f in Path(place).rglob("*") if f.is_file())


@dataclass(frozen=True)
class _Counted:
    """What the sum spectrum says of the prepared cube: mean counts of a cell, and filled cells at most."""

    mean: float
    filled: Range


def _counted(found: _Found, prepared: Prepared, source: BlockSource) -> _Counted | None:
    """Counts of the cube from the sum spectrum beside it; None where there is none or they are no counts."""
    if isinstance(prepared.cube, Fields):
        return _counted_together(found, prepared.cube, source)
    if found.store is None or prepared.cube.dtype.kind not in "iub" or "://" in found.store:
        return None
    spectrum = _sum_spectrum(found)
    if spectrum is None or spectrum.sum() <= 0 or spectrum.min() < 0:
        return None
    n_pixels = found.cube.size // max(1, spectrum.size)
    expected = spectrum.reshape(-1) / max(1, n_pixels)
    # If all pixels were alike so many cells would hold something; differences between them make it fewer.
    filled = float((1.0 - np.exp(-expected)).sum()) / expected.size
    share = float(expected.sum()) / expected.size
    if prepared.cube.shape == found.cube.shape:
        return _Counted(share, Range(0.5 * filled, 1.02 * filled))
    # A part of it, or neighbours summed: more or less of it than the whole has.
    grown = found.cube.size / max(1, prepared.cube.size)
    most = min(1.0, 4.0 * filled * max(1.0, grown))
    return _Counted(share * max(1.0, grown), Range(0.1 * filled, most))


def _counted_together(found: _Found, fields: Fields, source: BlockSource) -> _Counted | None:
    """Counts of several cubes: each counts by its cells."""
    each = [
        _counted(part, Prepared(cube), source)
        for part, cube in zip(found.parts, fields.cubes, strict=True)
    ]
    known = [one for one in each if one is not None]
    if len(known) < len(each):
        return None
    shares = np.array([cube.size for cube in fields.cubes], dtype=np.float64)
    shares /= shares.sum()
    filled = sum(
        (one.filled.times(float(s)) for one, s in zip(known, shares, strict=True)), Range(0, 0)
    )
    return _Counted(float(sum(one.mean * s for one, s in zip(known, shares, strict=True))), filled)


def _sum_spectrum(found: _Found) -> np.ndarray[Any, Any] | None:
    import zarr

    assert found.store is not None
    try:
        array: Any = zarr.open_array(found.store, path="sum_spectrum", mode="r")
    except (FileNotFoundError, ValueError):
        return None
    shape = tuple(found.cube.sizes[d] for d in sig_dims(found.cube))
    if tuple(array.shape) != shape:
        return None
    return np.nan_to_num(np.asarray(array[...], dtype=np.float64))


def _facts(source: BlockSource, cube: Any, found: _Found, counted: _Counted | None) -> Facts:
    """What is known of a source's blocks."""
    kind, p, e = cube.dtype.kind, source.n_pixels, source.n_channels
    cells = float(p) * e
    sources = getattr(source, "sources", (source,))
    events = all(hasattr(getattr(one, "reader", None), "rows") for one in sources)
    rows: bool | None = False
    pairs = Range(0, 0)
    if kind in "iub":
        filled = Range(0.002, MAX_ROW_DENSITY) if counted is None else counted.filled
        rows = True if filled.high <= MAX_ROW_DENSITY else None
        rows = False if filled.low > MAX_ROW_DENSITY else rows
        pairs = filled.times(cells)
    pair_bytes = 4 if e <= 1 << 16 else 8
    dense = cells * cube.dtype.itemsize
    at_most = float(getattr(source, "kept_bytes", dense))
    kept = Range(dense, dense)
    if rows is not False:
        kept = Range(
            pairs.low * pair_bytes + 8 * p, min(at_most, pairs.high * pair_bytes + 9.0 * p)
        )
        kept = kept if rows else Range(kept.low, at_most)
    reading = "read_pair" if events else "read_float" if kind == "f" else "read_cell"
    stored = found.stored
    return Facts(
        "the cube", source.plan.n_blocks, len(source.plan.groups), p, e, source.block_bytes,
        int(source.plan.n_pixels * source.plan.n_channels * source.plan.itemsize), stored, pairs, rows,
        kept, reading,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- numbers


@dataclass(frozen=True)
class _Sized:
    """Stands for a sweep in the engine's projection of memory."""

    statistic: int
    state: int
    output: int

    def output_bytes(self) -> int:
        return self.output

    def statistic_bytes(self, n_channels: int) -> int:
        return self.statistic

    def state_bytes(self, n_channels: int) -> int:
        return self.state


class _Numbers:
    """Turns passes into bytes and seconds, one after the other as they run."""

    def __init__(
        self, machine: Machine, rates: Calibration, sources: Mapping[str, BlockSource]
    ) -> None:
        self.machine, self.rates, self.sources = machine, rates, sources
        self.resident: dict[str, Range] = {}
        self.shares: dict[str, Range] = {}
        self.problems: list[Problem] = []
        self.largest: Projection | None = None
        self.client = 0

    def step(self, step: StepPasses, prepared: Prepared) -> StepPlan:
        passes = tuple(self._pass(step, one) for one in step.passes)
        output, files = self._output(step, prepared)
        return StepPlan(step.name, step.verb, passes, output, files, step.notes)

    def _pass(self, step: StepPasses, one: Pass) -> PassPlan:
        stays, again, first = self._stays(one)
        low, high = one.likely
        read = self._read(one, first, again)
        projection = self._project(step, one, stays)
        return PassPlan(
            one.name,
            one.over.name,
            one.over.n_blocks,
            one.over.n_groups,
            one.likely,
            one.least,
            one.most,
            one.decides,
            read,
            self._stored(one, read),
            Range(self._moved(one).low * low, self._moved(one).high * high),
            stays.times(one.over.n_blocks),
            projection.peak,
            self._seconds(one, first, again),
        )

    def _stays(self, one: Pass) -> tuple[Range, Range, Range]:
        """Shares of the blocks that stay, that each further pass reads, and that the first one reads."""
        over = one.over
        if not over.reading or _reads_nothing(one):
            return Range(1.0, 1.0), Range(0.0, 0.0), Range(0.0, 0.0)
        if one.name in ("digest", "read input", "smoothed counts"):
            return Range(0.0, 0.0), Range(1.0, 1.0), Range(1.0, 1.0)
        known = over.name in self.shares
        if not known:
            self._settle(over)
        stays = self.shares[over.name]
        again = Range(1.0 - stays.high, 1.0 - stays.low)
        if one.also_reads is None:
            return stays, again, again if known else Range(1.0, 1.0)
        # Pooled blocks and profiles are made of blocks that are there, as far as these stayed.
        base = self.shares.get(one.also_reads.name, Range(0.0, 0.0))
        missing = Range(1.0 - base.high, 1.0 - base.low)
        again = Range(again.low * missing.low, again.high * missing.high)
        return stays, again, again if known else missing

    def _settle(self, over: Facts) -> None:
        """Let blocks stay as far as there is room beside those that are there; nothing is thrown out."""
        room = float(self.machine.resident * self.machine.workers)
        held = sum(self.resident.values(), Range(0, 0))
        left = Range(max(0.0, room - held.high), max(0.0, room - held.low))
        kept = over.kept
        stays = Range(
            min(1.0, left.low / kept.high) if kept.high else 1.0,
            min(1.0, left.high / kept.low) if kept.low else 1.0,
        )
        self.shares[over.name] = stays
        self.resident[over.name] = Range(
            min(kept.low * stays.low, room), min(kept.high * stays.high, room)
        )

    def _read(self, one: Pass, first: Range, again: Range) -> Range:
        """Bytes decoded in all its rounds."""
        whole = float((one.also_reads or one.over).decoded)
        low, high = one.likely
        if not high:
            return Range(0, 0)
        return Range(
            whole * (first.low + (low - 1) * again.low) if low else 0.0,
            whole * (first.high + (high - 1) * again.high),
        )

    def _stored(self, one: Pass, read: Range) -> Range | None:
        over = one.also_reads or one.over
        if over.stored is None:
            return None
        return read.times(over.stored / max(1, over.decoded))

    def _moved(self, one: Pass) -> Range:
        """Bytes that a round moves between processes."""
        if self.machine.deployment == "threads":
            return Range(0, 0)
        groups, n = one.over.n_groups, self.machine.workers
        # Neighbours mostly join where they are; at worst every join fetches one side.
        least = min(groups, n) if n > 1 else 1
        joins = Range(float(least), float(max(1, groups)))
        tasks = one.state.times(float(min(groups, n)), float(groups))
        return joins.times(float(one.statistic)) + tasks + Range(groups * 1e3, groups * 2e4)

    def _project(self, step: StepPasses, one: Pass, stays: Range) -> Projection:
        """The engine's projection for one process that holds blocks, with what stays known better."""
        machine = self.machine
        state = int(one.state.high) + (one.held if machine.deployment == "threads" else 0)
        source: Any = _Measured(one.over)
        sized: Any = _Sized(one.statistic, state, self._gathered(one))
        remote = machine.deployment != "threads"
        found = project_memory(sized, source, machine.threads, remote=remote)
        held = sum(v.high for v in self.resident.values())
        projection = replace(
            found,
            resident=int(min(machine.resident, held / machine.workers)),
            process=self.rates.process_bytes,
        )
        try:
            room = (
                machine.memory
                if machine.deployment == "threads"
                else machine.memory - machine.resident
            )
            projection.require(room, f"{step.name}: {one.name}")
        except BudgetError as error:
            problem = Problem(True, error.message, error.hint or "")
            if all(p.what != problem.what for p in self.problems):
                self.problems.append(problem)
        if self.largest is None or projection.peak > self.largest.peak:
            self.largest = projection
        client = int(CLIENT_SHARE * self.rates.process_bytes) + one.held + 2 * one.statistic
        self.client = max(self.client, client + int(one.state.high))
        return projection

    # ------------------------------------------------------------------------------------- seconds

    def _seconds(self, one: Pass, first: Range, again: Range) -> Range:
        low, high = one.likely
        fast, slow = self.rates.fast, self.rates.slow
        over = one.also_reads or one.over
        unit = self._reading_units(over)
        read = Range(
            fast.get(over.reading, 0.0) * unit.low, slow.get(over.reading, 0.0) * unit.high
        )
        work = Range(
            sum(fast[k] * v.low for k, v in one.work.items()),
            sum(slow[k] * v.high for k, v in one.work.items()),
        )
        client = Range(
            sum(fast[k] * v for k, v in one.client.items()) * 0.1,
            sum(slow[k] * v for k, v in one.client.items()),
        )
        slots = min(self.machine.slots, max(1, one.over.n_groups))
        blocks = Range(
            low * work.low + read.low * (first.low + max(0, low - 1) * again.low),
            high * work.high + read.high * (first.high + max(0, high - 1) * again.high),
        )
        kind = self.machine.deployment
        groups = one.over.n_groups
        # Tasks of workers take several groups where they are quick.
        fewest = groups / slots if kind == "threads" else min(groups, FEWEST_TASKS * slots)
        hand = Range(
            low * (ROUND_SECONDS[kind][0] + fewest * GROUP_SECONDS[kind][0]),
            high * (ROUND_SECONDS[kind][1] + groups * GROUP_SECONDS[kind][1]),
        )
        moved, n = self._moved(one), self.machine.workers
        link = Range(low * moved.low / LINK[0] / n, high * moved.high / LINK[1] / n)
        busy = min(slots, self.machine.cores) if kind == "threads" else slots
        spent = blocks.times(LUCK[0] / busy, LUCK[1] / max(1.0, PARALLEL * busy))
        return spent + hand + link + Range(client.low * low, client.high * high)

    def _reading_units(self, over: Facts) -> Range:
        if over.reading == "read_pair":
            return over.pairs
        return Range.of(float(over.decoded))

    # -------------------------------------------------------------------------------------- output

    def _output(self, step: StepPasses, prepared: Prepared) -> tuple[Range, Range]:
        """Bytes and files of a node."""
        if step.verb == "read":
            return Range(0, 0), Range(0, 0)
        maps = [p for p in step.passes if p.output.high]
        small, coords = _SMALL.get(step.verb, 3), _n_coords(_each(prepared.cube)[0])
        cells = 8.0 * sum(p.over.n_channels for p in step.passes[:1]) * _SPECTRA.get(step.verb, 1)
        output = sum((p.output for p in maps), Range(2e3 * small, 3e3 * small + cells + 1e5))
        # Of several cubes each has nodes of its own for its maps, beside what all of them share.
        n_cubes = len(_each(prepared.cube))
        nodes = n_cubes + 1 if n_cubes > 1 and maps else 1
        n_arrays = sum(p.arrays for p in maps) * n_cubes + (small + coords) * nodes
        small *= nodes
        chunks = sum(p.arrays * self._chunks(p) for p in maps)
        # An array is its metadata and its chunks; small ones have one, and scalars too.
        return output, Range(1.0 + n_arrays + chunks + small, 3.0 + 2 * n_arrays + chunks)

    def _output_shape(self, one: Pass) -> tuple[tuple[int, ...], int]:
        """Pixels of a chunk that a pass writes, and bytes of a pixel."""
        pixel = max(1, round(one.output.high / one.arrays / max(1, one.over.n_pixels)))
        shapes = [part.output_shape(pixel) for part in self._plans()]
        return max(shapes, key=math.prod), pixel

    def _plans(self) -> tuple[BlockPlan, ...]:
        """Blocks of each cube."""
        plan = self.sources["used"].plan
        return plan.parts if isinstance(plan, ChainedPlan) else (plan,)

    def _gathered(self, one: Pass) -> int:
        """Bytes of output that is gathered from several blocks before it is written."""
        if not one.output.high:
            return 0
        shape, pixel = self._output_shape(one)
        return math.prod(shape) * pixel

    def _chunks(self, one: Pass) -> int:
        if one.over.name == "loadings":
            return one.over.n_blocks
        _, pixel = self._output_shape(one)
        return sum(
            math.prod(
                -(-n // c) for n, c in zip(part.nav_shape, part.output_shape(pixel), strict=True)
            )
            for part in self._plans()
        )


_SMALL = {
    "input": 2,
    "estimate_n_components": 4,
    "survey_n_components": 9,
    "phase_fractions": 17,
    "pca": 5,
    "nmf": 4,
    "kmeans": 3,
    "uncertainty": 4,
    "diagnostics": 8,
    "vca": 3,
    "nfindr": 3,
    "sisal": 5,
    "mcr": 3,
    "bayesian_unmixing": 10,
    "ica": 3,
    "varimax": 3,
    "gaussian_mixture": 10,
    "poisson_mixture": 8,
    "cluster_quality": 5,
}
"""Variables of a node besides what it holds for each pixel."""

_SPECTRA = {
    "input": 1,
    "pca": 22,
    "nmf": 10,
    "kmeans": 10,
    "uncertainty": 50,
    "diagnostics": 1,
    "vca": 10,
    "nfindr": 10,
    "sisal": 30,
    "mcr": 10,
    "bayesian_unmixing": 60,
    "ica": 10,
    "varimax": 10,
    "gaussian_mixture": 10,
    "poisson_mixture": 10,
}


def _n_coords(cube: xr.DataArray) -> int:
    return len([c for c in cube.coords.values() if c.ndim])


def _reads_nothing(one: Pass) -> bool:
    """Whether a pass is over blocks that are made and not read."""
    return one.over.name in ("simulated pixels", "a sample")


@dataclass(frozen=True)
class _Measured:
    """Stands for a source in the engine's projection."""

    over: Facts

    @property
    def plan(self) -> Any:
        return self

    @property
    def groups(self) -> range:
        return range(self.over.n_groups)

    @property
    def n_channels(self) -> int:
        return self.over.n_channels

    @property
    def block_bytes(self) -> int:
        return self.over.block_bytes

    @property
    def kept_bytes(self) -> int:
        return int(self.over.kept.high)


# -------------------------------------------------------------------------------- what may go wrong


def _whole(
    machine: Machine,
    recipe: Recipe,
    found: _Found,
    prepared: Prepared,
    used: Facts,
    steps: tuple[StepPlan, ...],
    numbers: _Numbers,
    out: str | os.PathLike[str] | None,
) -> Plan:
    cube: Any = prepared.cube
    start = Range(0.2, 1.5).times(numbers.rates.start_seconds)
    if machine.deployment == "workers":
        start = start + Range(*WORKER_SECONDS).times(numbers.rates.start_seconds * 0.5)
    peak = 0 if numbers.largest is None else numbers.largest.peak
    problems = [*numbers.problems, *_memory_problems(machine, used, numbers.largest)]
    planned = Plan(
        machine,
        {
            "dims": dict(zip(map(str, cube.dims), map(int, cube.shape), strict=True)),
            "nav_dims": [
                *((FIELD,) if isinstance(cube, Fields) else ()),
                *nav_dims(_each(cube)[0]),
            ],
            "dtype": str(cube.dtype),
            "pixels": used.n_pixels,
            "channels": used.n_channels,
            "blocks": used.n_blocks,
            "groups": used.n_groups,
            "block_bytes": used.block_bytes,
            "decoded_bytes": used.decoded,
            "stored_bytes": used.stored,
            "kept_bytes": {"low": used.kept.low, "high": used.kept.high},
            "filled_cells": None
            if used.rows is False
            else {"low": used.pairs.low, "high": used.pairs.high},
        },
        steps,
        start,
        peak,
        numbers.client if machine.deployment == "workers" else 0,
        (),
        tuple(_notes(machine, recipe, used)),
    )
    problems += _place_problems(recipe, found, prepared, planned, out)
    return replace(planned, problems=tuple(problems))


def _memory_problems(machine: Machine, used: Facts, largest: Projection | None) -> list[Problem]:
    import psutil

    peak = 0 if largest is None else largest.peak
    needed = 0 if largest is None else peak - largest.resident
    problems = []
    room = machine.resident * machine.workers
    if used.kept.high > room:
        stays = room / used.kept.high
        problems.append(
            Problem(
                False,
                f"blocks that stay need up to {format_bytes(used.kept.high)}, there is room for "
                f"{format_bytes(room)}: as little as {stays:.0%} of them stay, and each further pass "
                "reads the others again",
                "give more memory (--memory) or more workers, or leave it: the run only takes longer",
            )
        )
    if machine.deployment == "workers" and peak > DASK_SPILLS * machine.memory:
        sure = needed > machine.memory
        problems.append(
            Problem(
                sure,
                f"a worker needs up to {format_bytes(peak)}, its limit is {format_bytes(machine.memory)}"
                + ("" if sure else f", and Dask spills to disk from {DASK_SPILLS:.0%} of that on"),
                "give workers more memory (--memory), or fewer threads (--threads 1)",
            )
        )
    free = psutil.virtual_memory().available
    on_this_host = min(machine.workers, max(1, machine.cores // machine.threads))
    if peak * on_this_host > free:
        problems.append(
            Problem(
                False,
                f"{on_this_host} process(es) of up to {format_bytes(peak)} are expected on this host, "
                f"{format_bytes(free)} are free",
                "use a smaller --memory or --threads, or close other programs",
            )
        )
    if machine.deployment == "threads" and machine.threads > machine.cores:
        problems.append(
            Problem(
                False,
                f"{machine.threads} threads on {machine.cores} cores",
                "more threads than cores cost memory and gain nothing: use --threads "
                f"{machine.cores}",
            )
        )
    if used.n_groups < machine.slots:
        problems.append(
            Problem(
                False,
                f"a pass has {_tasks(used.n_groups)} for {machine.slots} blocks in flight: "
                f"{machine.slots - used.n_groups} have nothing to do",
                "use fewer workers or threads, or ingest the cube again with smaller chunks",
            )
        )
    return problems


def _place_problems(
    recipe: Recipe,
    found: _Found,
    prepared: Prepared,
    planned: Plan,
    out: str | os.PathLike[str] | None,
) -> list[Problem]:
    """What the place of the result says against the run."""
    if out is None and recipe.model.output is None:
        return [
            Problem(
                False,
                "nothing says where the result goes",
                "give --out (out= in Python), or write 'output: results/map' into the recipe",
            )
        ]
    address = result_address(recipe, out)
    remote = None if address is None else RemoteResult(address)
    path = _destination(recipe, out) if remote is None else remote.staging
    problems = []
    root = None if remote is None else remote.root()
    shown = str(path) if remote is None or root is None else remote.address
    # What an earlier try left on the way is gone on with, or stands in the way.
    root = read_root(path) if root is None else root
    if root is not None:
        problems.append(_taken(recipe, found, prepared, shown, root))
    elif remote is not None:
        pass  # the folder on the way is emcube's own
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        problems.append(
            Problem(
                True,
                f"{str(path)!r} exists and is not a result of emcube, expected a new folder",
                "choose another place with --out; nothing was touched",
            )
        )
    there = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(there).free
    ingested = planned.cube["decoded_bytes"] if found.store is None and found.digest is None else 0
    if planned.output.low + 0.02 * ingested > free:
        problems.append(
            Problem(
                True,
                f"the result takes {format_bytes(planned.output.low)} or more, "
                f"{format_bytes(free)} are free at {str(there)!r}",
                "free space, or choose another place with --out",
            )
        )
    elif planned.output.high > free:
        problems.append(
            Problem(
                False,
                f"the result may take up to {format_bytes(planned.output.high)}, "
                f"{format_bytes(free)} are free at {str(there)!r}",
                "free space, or choose another place with --out",
            )
        )
    return problems


def _taken(
    recipe: Recipe, found: _Found, prepared: Prepared, place: str, root: Mapping[str, Any]
) -> Problem:
    """What `run` will make of a result that is there."""
    same = False
    if found.digest is not None:
        from emcube.recipe.inputs import Input as Found

        source: Input = Found(found.cube, found.digest)
        same = _identify(recipe, source, prepared, [root], {})["run_id"] == root.get("run_id")
    complete = bool(root["emcube"].get("complete"))
    if same:
        return Problem(
            False,
            f"{place!r} holds this very run"
            + (" already: nothing will be done" if complete else ", unfinished: it is continued"),
            "nothing" if complete else "the plan is for all of it",
        )
    return Problem(
        False,
        f"{place!r} holds the result of another run",
        "choose another place with --out, or replace it with --overwrite",
    )


def _notes(machine: Machine, recipe: Recipe, used: Facts) -> list[str]:
    notes = []
    place = os.environ.get("EMCUBE_DEPLOY", "").strip()
    if machine.deployment == "threads" and place not in ("", "threads"):
        notes.append(
            f"EMCUBE_DEPLOY is {place!r}, and this plan is for threads of one process: give --workers, "
            "and --threads and --memory of each"
        )
    if recipe.model.where is not None:
        notes.append("'where' decides by counts which pixels are used: all of them are taken here")
    if used.rows is None:
        notes.append(
            "how many cells hold counts is known when they have been read (ingest writes the sum "
            "spectrum beside the cube): memory and time are for few to many"
        )
    if machine.deployment == "workers" and machine.slots > machine.cores:
        notes.append(
            f"this host has {machine.cores} cores: the time is for workers on hosts like this one"
        )
    notes.append(
        "time: from the fewest passes at the fastest measured pace, to the most that are usual at the "
        f"middle one, with a margin of {LUCK[0]:g} to {LUCK[1]:g} for counts, files and neighbours, and "
        f"{PARALLEL:g} to 1 of the threads' work at a time"
    )
    return notes


def _tasks(n: int) -> str:
    return f"{n:,} task{'' if n == 1 else 's'}"
