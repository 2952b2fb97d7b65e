"""One pass over the groups of a plan on the workers of a dask.distributed client, whatever happens to them.

What Dask does by itself: a task of a worker that dies runs on another one, and a part that only a dead worker
held is made again from its task (parts are pure, and the scheduler keeps the tasks of a round until its root
is there). What is added here: tasks in flight are bounded and run where their blocks are resident; a task
that Dask gives up on is submitted again, and its deaths are counted, so that a block that kills workers is
told from bad luck; what neither ends nor dies is taken off the worker that it hangs on; and every wait ends.

A task takes a run of groups that is a node of the fixed tree (`emcube.engine.placement`): a task costs Dask
several milliseconds, in which many a block is done. What Dask gives up on goes on group by group.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from emcube.engine.adoption import halt, pin_threads, tell_blocks, teller
from emcube.engine.combine import TreeCombiner
from emcube.engine.health import bounded
from emcube.engine.memory import arrays_of
from emcube.engine.placement import groups_of_task, take_first, take_last
from emcube.engine.source import BlockSource, feed, needed, place_of
from emcube.errors import EmcubeError, EngineError

if TYPE_CHECKING:
    from emcube.engine.executor import DistributedExecutor, Done, Tasks

__all__ = ["Round", "RoundLostError"]

_log = logging.getLogger(__name__)

WINDOW = 2
"""Tasks in flight for each thread of a worker: one that runs, and one so that it never waits."""

SHARED_BYTES = 64 * 2**10
"""What all tasks of a round have in common goes to the workers once if it is larger than this."""

TASK_BYTES = 4 * 2**20
"""A task of several groups is at most so large."""

SHARED = ("sweep", "state", "writing")
"""Fields of a task that are the same in all tasks of a round."""

ATTEMPTS = 3
"""So often something may be taken off a worker that it hangs on."""

BAD_LUCK = 4
"""A group may see so many times the deaths of one guilty block, as long as no block is found guilty."""

TAKE_UP_SECONDS = 1.0
"""Once nothing has finished for so long (twice as long each further time) tasks left lying are looked for."""

IDLE_LOOKS = 5
"""So often (for half a minute in all) nothing may be found on its way until a round is taken for lost."""

CALLBACK_SECONDS = 0.5
"""Pause between looks at who is there while nothing finishes."""


class RoundLostError(EngineError):
    """A round has to be run again: what was lost with workers cannot be made again within it."""

    def __init__(self, deaths: int, message: str) -> None:
        super().__init__(message)
        self.deaths = deaths


@dataclass(frozen=True, eq=False)
class _Task:
    """What runs on a worker: a group, fed with what is sent apart from it."""

    __name__ = "emcube_map"  # Dask would print the whole task for want of it

    task: Any
    run: str
    keys: tuple[Any, ...] = ()
    watched: bool = False

    def __call__(self, shared: dict[str, Any] | None = None, values: Any = None) -> Any:
        pin_threads()  # a worker that joins at a bad moment may have missed it
        task = self.task
        if self.keys:
            task = replace(
                task, source=feed(task.source, dict(zip(self.keys, values or (), strict=True)))
            )
        if shared:
            task = replace(task, **shared)
        tell = teller(self.run, uuid.uuid4().hex) if self.watched else None
        with tell_blocks(self.run, tell):
            return task()


@dataclass(frozen=True, eq=False)
class _Joined:
    """A join on a worker, of what is sent apart from it."""

    __name__ = "emcube_join"

    join: Any

    def __call__(self, shared: dict[str, Any] | None, a: Any, b: Any) -> Any:
        join = self.join
        if shared and "sweep" in shared:
            join = replace(join, sweep=shared["sweep"])
        return join(a, b)


@dataclass(frozen=True, eq=False)
class _Same:
    """A task that gives what it was made with: unlike scattered data, Dask can make it again."""

    __name__ = "emcube_shared"

    value: Any

    def __call__(self) -> Any:
        return self.value


@dataclass(eq=False)
class _Flight:
    groups: range
    future: Any
    worker: str
    watched: bool = False
    attempts: int = 0
    since: float = field(default_factory=time.monotonic)


class Round:
    """Runs every group once and reports each that is done.

    Parameters
    ----------
    executor : DistributedExecutor
    tasks : Tasks
        Makes the task of a run of groups: a frozen dataclass with ``source`` and ``groups``, or any
        callable that pickles.
    n_groups : int
    done : callable
        Called with each finished group.
    """

    def __init__(
        self,
        executor: DistributedExecutor,
        tasks: Tasks,
        n_groups: int,
        done: Done,
    ) -> None:
        self.client, self.watch, self.limits = executor.client, executor.watch, executor.limits
        self.executor, self.tasks, self.n_groups, self.done = executor, tasks, n_groups, done
        self.run = f"emcube-{uuid.uuid4().hex}"
        self.homes = executor.homes(n_groups)
        self.began = time.monotonic()
        self._pending: dict[str, deque[int]] = {}
        self._waiting = set(range(n_groups))
        self._flying: dict[str, _Flight] = {}
        self._load: Counter[str] = Counter()
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._deaths: Counter[int] = Counter()
        self._again: deque[range] = deque()
        self._suspects: deque[range] = deque()
        self._suspect: str | None = None
        self._longest = 0.0
        self._probe_after = self.limits.silence
        self._keys: list[str] = []
        self._idle_since = self._checked = time.monotonic()
        self._take_up_after = TAKE_UP_SECONDS
        self._first: Any = tasks(range(1))
        self._most = self._most_groups()
        self._n_done = 0
        self._pace: tuple[float, int] | None = None
        self._shared = self._share()
        self._threads: dict[str, int] = {}

    # --- the two kinds of rounds ------------------------------------------------------------------

    def each(self) -> None:
        """Run every group for its effect."""
        with _Cancelling(self):
            self._run(lambda run, future: None)

    def reduce(self, join: Callable[[Any, Any], Any]) -> Any:
        """Run every group and join the parts along the fixed tree."""
        with _Cancelling(self) as mine:
            joins: dict[str, Any] = {}
            whole: Any = join

            def submit_join(a: Any, b: Any) -> Any:
                key = f"emcube_join-{uuid.uuid4().hex}"
                slim: Any = replace(whole, sweep=None) if self._slim(join) else join
                future = self.client.submit(
                    _Joined(slim), self._shared, a, b, key=key, priority=10, **self._anywhere()
                )
                joins[key] = None
                return future

            tree = TreeCombiner(self.n_groups, submit_join)
            mine.futures = lambda: tree.parts
            self._run(lambda run, future: tree.add(run.start, future, len(run)))
            return self._result(tree.root, joins)

    def _slim(self, join: Any) -> bool:
        return self._shared is not None and hasattr(join, "sweep") and hasattr(self._first, "sweep")

    def _anywhere(self) -> dict[str, Any]:
        """Keep joins off hosts that are cut off from others, where there are any."""
        if not self.watch.cut_off:
            return {}
        return {"workers": list(self.watch.threads), "allow_other_workers": True}

    def _share(self) -> Any:
        """Future of what all tasks have in common; None where that is small."""
        shared = {name: getattr(self._first, name, None) for name in SHARED}
        shared = {name: value for name, value in shared.items() if value is not None}
        if sum(a.nbytes for value in shared.values() for a in arrays_of(value)) <= SHARED_BYTES:
            return None
        return self.client.submit(_Same(shared), key=f"emcube_shared-{uuid.uuid4().hex}")

    # --- tasks in flight --------------------------------------------------------------------------

    def _run(self, sink: Callable[[range, Any], Any]) -> None:
        self._look(now=True)
        while self._n_done < self.n_groups:
            self._submit_again()
            flight = self._next()
            if flight is None:
                self._take_up()
            else:
                ended = self._is_done(flight)
                if ended:
                    self._n_done += len(flight.groups)
                    # The first one to end has waited for all that a round begins with.
                    self._pace = self._pace or (time.monotonic(), self._n_done)
                self._fill(flight.worker)
                self._busy()
                if ended:
                    sink(flight.groups, flight.future)
                    for group in flight.groups:
                        self.done(group)
            self._look()

    def _busy(self) -> None:
        self._idle_since, self._take_up_after = time.monotonic(), TAKE_UP_SECONDS

    def _take_up(self) -> None:
        """See whether tasks were left lying, once nothing has finished for a while."""
        if time.monotonic() - self._idle_since > self._take_up_after:
            self._take_up_after *= 2
            self.watch.take_up(self._keys)

    def _next(self) -> _Flight | None:
        """The next task that ended, or None after a moment."""
        try:
            future = self._finished.get(timeout=CALLBACK_SECONDS)
        except queue.Empty:
            return None
        flight = self._flying.pop(future.key, None)
        if flight is not None:
            self._load[flight.worker] -= 1
            if self._suspect == future.key:
                self._suspect = None
        return flight

    def _is_done(self, flight: _Flight) -> bool:
        """Tell whether a task ended well; see to it if it did not."""
        future = flight.future
        if future.status in ("finished", "lost"):  # lost after it was finished: Dask makes it again
            took = time.monotonic() - flight.since
            self._longest = max(self._longest, took / len(self._blocks(flight.groups)))
            return True
        error = self._error(future)
        if not _is_killed(error):
            raise error
        self._killed(flight, error)
        return False

    def _error(self, future: Any) -> BaseException:
        """What a future that did not finish ended with."""
        if future.status != "error":
            if self.client.status != "running":
                return self.watch.gone()
            return EngineError(
                f"a task of this run was cancelled on the Dask scheduler ({self.watch.address}), and "
                "not by the run",
                hint="the scheduler was restarted, or lost the connection: start the run again",
            )
        error: BaseException = bounded(future.exception, self.limits.silence)
        if isinstance(error, EmcubeError) or _is_killed(error) or not isinstance(error, Exception):
            return error
        new = EngineError(
            f"a task failed on a worker: {type(error).__name__}: {error}",
            hint="see the worker's log; workers need the same packages as this process",
        )
        new.__cause__ = error
        return new

    def _fill(self, worker: str) -> None:
        """Submit what may fly on a worker."""
        threads, mine = self.watch.threads.get(worker, 0), self._pending.get(worker, deque())
        while mine and self._load[worker] < WINDOW * threads:
            self._launch(take_first(mine, self._wanted(len(mine), threads)), worker)
        while self._load[worker] < threads and (run := self._spare(worker)) is not None:
            self._launch(run, worker)

    def _wanted(self, left: int, threads: int) -> int:
        """Groups for a task of a worker that has so many left."""
        rate = None
        if self._pace is not None and self._n_done > self._pace[1]:
            began, before = self._pace
            rate = (self._n_done - before) / max(1e-6, time.monotonic() - began)
        return min(self._most, groups_of_task(left, threads, rate, sum(self._threads.values())))

    def _most_groups(self) -> int:
        """Groups that a task may take at most, so that it holds few values that are sent with it."""
        from distributed.protocol.pickle import dumps

        source = getattr(self._first, "source", None)
        if source is None or self.tasks.most == 1:
            return self.tasks.most
        if needed(source):  # blocks that are on workers already are brought together for a task
            return 1
        size = len(dumps(source))
        return min(self.tasks.most, max(1, TASK_BYTES // size))

    def _submit_again(self) -> None:
        """Submit what Dask gave up on; one at a time what is under suspicion."""
        if not self.watch.threads:
            return
        if self._suspect is None and self._suspects:
            self._submit(self._suspects.popleft(), self._least_loaded(), watched=True)
        while self._again:
            self._submit(self._again.popleft(), self._least_loaded())

    def _launch(self, run: range, worker: str) -> None:
        self._waiting.difference_update(run)
        self._submit(run, worker)

    def _spare(self, worker: str) -> range | None:
        """Groups for a worker that has nothing to do, from the one with the most before it."""
        if not self._waiting:
            return None
        longest = max(self._pending, key=lambda w: len(self._pending[w]) / self._threads[w])
        if not self._pending[longest]:
            return None
        theirs = self._pending[longest]
        run = take_last(theirs, self._wanted(len(theirs), 2 * self._threads[longest]))
        for group in run:
            self.homes.move(group, worker)
        return run

    def _least_loaded(self) -> str:
        threads = self.watch.threads
        return min(threads, key=lambda w: (self._load[w] / threads[w], w))

    def _submit(self, run: range, worker: str, *, watched: bool = False) -> None:
        task: Any = self.tasks(run)
        source = getattr(task, "source", None)
        futures = {} if source is None else needed(source)
        if futures:
            task = replace(task, source=feed(task.source, {}))
        if self._shared is not None:
            empty = {name: None for name in SHARED if hasattr(task, name)}
            task = replace(task, **empty)
        key = f"emcube_map-{run.start}-{uuid.uuid4().hex}"
        future = self.client.submit(
            _Task(task, self.run, tuple(futures), watched),
            self._shared,
            # As arguments, so that the scheduler waits for them and brings them to the worker.
            list(futures.values()),
            key=key,
            workers=[worker],
            allow_other_workers=True,
            retries=0,
        )
        self._keys.append(key)
        self._flying[key] = _Flight(run, future, worker, watched)
        self._load[worker] += 1
        if watched:
            self._suspect = key
        future.add_done_callback(self._finished.put)

    # --- workers that come and go -----------------------------------------------------------------

    def _look(self, *, now: bool = False) -> None:
        """Take note of who is there; see to what takes too long."""
        lost = self.watch.look(now=now)
        if self.watch.require_workers(self._in_flight) and self.watch.threads != self._threads:
            self._threads = dict(self.watch.threads)
            self.homes.update(self._threads)
            self._pending = {worker: deque() for worker in self._threads}
            for group in sorted(self._waiting):
                self._pending[self.homes[group]].append(group)
            for worker in self._threads:
                self._fill(worker)
        for flight in self._flying.values():
            if flight.worker in lost or not self.watch.threads:
                flight.since = time.monotonic()
        if self._flying and time.monotonic() - self._checked > CALLBACK_SECONDS:
            self._checked = time.monotonic()
            self._check_age(time.monotonic() - min(f.since for f in self._flying.values()))
            self._check_late()

    def _in_flight(self) -> str:
        runs = sorted((f.groups for f in self._flying.values()), key=lambda run: run.start)
        if not runs:
            return f"{len(self._waiting)} groups of blocks"
        first = self._named(runs[0], self._blocks(runs[0])[0])
        return f"{len(runs)} tasks, among them {first},"

    def _check_age(self, age: float) -> None:
        """Look for a split network where something takes long."""
        if age > self._probe_after:
            self._probe_after *= 2
            self.watch.drop_cut_off()

    def _limit(self, flight: _Flight) -> float:
        n_blocks = len(self._blocks(flight.groups))
        # A task takes several groups only where they are quick.
        of_one = n_blocks / len(flight.groups)
        floor = self.limits.task * (1 + (of_one - 1) / 8)
        return float(max(floor, 8 * self._longest * n_blocks) * 2**flight.attempts)

    def _check_late(self) -> None:
        """Take tasks that neither end nor die off their workers."""
        now = time.monotonic()
        late = [f for f in self._flying.values() if now - f.since > self._limit(f)]
        if not late or not self.watch.threads:
            return
        worst = max(late, key=lambda f: f.attempts)
        what = self._named(worst.groups, self._blocks(worst.groups)[0])
        seconds = self._limit(worst)
        self._unhang({f.future.key for f in late}, what, seconds, worst.attempts)
        for flight in late:
            flight.attempts += 1
            flight.since = time.monotonic()

    def _unhang(self, keys: set[str], what: str, seconds: float, attempts: int) -> None:
        """Drop the workers that some tasks hang on."""
        stuck = self._workers_of(keys)
        last = attempts + 1 >= ATTEMPTS or not all(map(self.watch.expendable, stuck))
        if last and not self.watch.drop_cut_off():
            raise EngineError(
                f"{what} has not ended for {seconds:.0f} s"
                + (f" on {', '.join(stuck)}" if stuck else "")
                + (f", after {attempts} others were dropped" if attempts else ""),
                hint="see whether its storage hangs; where blocks rightly take so long, allow more "
                f"(EMCUBE_LIMITS=task={4 * self.limits.task:.0f})",
            )
        for worker in stuck:
            if worker in self.watch.threads:
                self.watch.drop(worker, f"{what} has not ended there for {seconds:.0f} s")

    def _workers_of(self, keys: Iterable[str]) -> list[str]:
        wanted = set(keys)
        processing = self.watch.ask(self.client.processing)
        return sorted(worker for worker, theirs in processing.items() if wanted & set(theirs))

    # --- deaths -----------------------------------------------------------------------------------

    def _killed(self, flight: _Flight, error: Any) -> None:
        """Submit a task again that Dask has given up on, unless one of its blocks is the cause."""
        self._deaths.update(dict.fromkeys(flight.groups, _n_deaths(error)))
        deaths = max(self._deaths[group] for group in flight.groups)
        bound = self.limits.deaths
        if _killed_key(error) != flight.future.key:
            self._shared = self._share()
        block, times = self._guilty(flight)
        if times >= max(1, bound // 2) or deaths >= BAD_LUCK * bound:
            raise EngineError(
                f"{self._named(flight.groups, block)} kills workers: {deaths} died while they had it to do, "
                f"and {times} of these at this block when nothing else was in doubt",
                hint="see the workers' logs: most often a worker has too little memory for a block "
                "(fewer threads a worker, or more memory), or a library crashes on these values; "
                "with where= the run goes on without these pixels",
            )
        _log.warning(
            "%d workers died with %s; it is tried again%s",
            deaths,
            self._named(flight.groups, block),
            " alone" if 2 * deaths >= bound else "",
        )
        again = self._suspects if 2 * deaths >= bound else self._again
        again.extend(range(group, group + 1) for group in flight.groups)

    def _guilty(self, flight: _Flight) -> tuple[int, int]:
        """The block at which most workers died that ran a group under suspicion, and how many."""
        blocks = self._blocks(flight.groups)
        if not flight.watched:
            return blocks[0], 0
        events = self.watch.ask(lambda: self.client.get_events(self.run))
        last: dict[str, int] = {}
        for _, event in events:
            last[event["attempt"]] = event["block"]
        counts = Counter(block for block in last.values() if block in blocks)
        return counts.most_common(1)[0] if counts else (blocks[0], 0)

    def _blocks(self, run: range) -> range:
        source: BlockSource | None = getattr(self._first, "source", None)
        if not hasattr(self._first, "groups") or source is None:
            return run
        groups = source.plan.groups
        return range(groups[run.start].start, groups[run.stop - 1].stop)

    def _named(self, run: range, block: int) -> str:
        """Name a block: number, positions, and where it is read from."""
        source: BlockSource | None = getattr(self._first, "source", None)
        if source is None:
            return f"group {run.start}"
        region = ", ".join(f"{s.start}:{s.stop}" for s in source.plan.slices(block))
        more = len(self._blocks(run)) - 1
        others = f" (or one of the {more} after it)" if more else ""
        return f"block {block} (positions {region}){others} of {place_of(source)}"

    # --- the root ---------------------------------------------------------------------------------

    def _result(self, root: Any, joins: dict[str, Any]) -> Any:
        """Value of the whole, once it is there; parts that are lost on the way are made again."""
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        root.add_done_callback(ended.put)
        keys = [*self._keys, *joins, *([] if self._shared is None else [self._shared.key])]
        since, attempts, idle = time.monotonic(), 0, 0
        limit = self.limits.task + 4 * (since - self.began)
        self._busy()
        while True:
            if root.status == "finished":
                found = self._fetched(root)
                if found:
                    return found[0]
            elif root.status in ("error", "cancelled"):
                raise self._failed(root)
            else:
                with contextlib.suppress(queue.Empty):
                    ended.get(timeout=CALLBACK_SECONDS)
                idle = self._idle(keys, idle)
            if self.watch.look():
                since = time.monotonic()
            self.watch.require_workers(lambda: "the statistics of a round")
            self._check_age(time.monotonic() - since)
            if time.monotonic() - since > limit * 2**attempts:
                self._unhang(set(keys), "joining the statistics of a round", limit, attempts)
                attempts, since = attempts + 1, time.monotonic()

    def _failed(self, root: Any) -> BaseException:
        error = self._error(root)
        if not _is_killed(error):
            return error
        return RoundLostError(_n_deaths(error), "Dask gave up parts that were lost with workers")

    def _idle(self, keys: list[str], idle: int) -> int:
        """Count the looks at which no task of the round was on its way though the root is not there."""
        if time.monotonic() - self._idle_since <= self._take_up_after:
            return idle
        self._take_up_after *= 2
        if self.watch.take_up(keys):
            return 0
        if idle >= IDLE_LOOKS:
            raise RoundLostError(0, "no part of it is on its way any more")
        return idle + 1

    def _fetched(self, root: Any) -> list[Any]:
        """Bring the whole here, in a list; an empty one if its worker died meanwhile."""
        try:
            return [bounded(root.result, self.limits.task, meanwhile=self.watch.look)]
        except TimeoutError:
            return []
        except Exception:  # what a lost part raises depends on how far Dask has got with noticing
            if root.status == "finished":
                raise
            return []


class _Cancelling:
    """Lets go of everything in flight when a round ends early, and stops what runs at its next block."""

    def __init__(self, round_: Round) -> None:
        self.round = round_
        self.futures: Callable[[], list[Any]] = list

    def __enter__(self) -> _Cancelling:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            return
        mine = self.round
        futures = [flight.future for flight in mine._flying.values()]
        futures += self.futures()
        if mine.client.status == "running" and not mine.watch.lost:
            try:
                bounded(lambda: mine.client.cancel(futures, force=True), 10.0)
            except (TimeoutError, OSError, RuntimeError, AttributeError) as failure:
                _log.debug("tasks in flight were not cancelled: %s", failure)
            mine.executor.tell_all(halt, mine.run)


def _is_killed(error: BaseException | None) -> bool:
    from distributed import KilledWorker

    return isinstance(error, KilledWorker)


def _n_deaths(error: Any) -> int:
    return int(error.allowed_failures) + 1


def _killed_key(error: Any) -> str:
    return str(error.task)
