"""A cluster simulated event by event: scheduler, workers, shared storage, and the tree of joins.

One round is one pass of a sweep: every group of blocks is handed out, read where it is not resident, mapped,
and its statistic joined with its neighbours' along the engine's own tree (`emcube.engine.combine`), each join
on the worker that holds one side. A task takes several groups, as many as the engine would give it
(`emcube.engine.placement`), and joins them where it runs.

What is serial is a queue: the scheduler (with the client that feeds it), the storage all workers share,
each worker, and each worker's link. Nothing is random.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from emcube.engine.combine import TreeCombiner
from emcube.engine.placement import groups_of_task, take_first, take_last

__all__ = ["Cluster", "Round", "Spent", "simulate", "total"]


@dataclass(frozen=True)
class Cluster:
    """What a cluster is made of. Times in seconds, rates in bytes a second.

    Attributes
    ----------
    workers : int
        Processes with one thread each.
    cores : int or None
        Cores that all of them share; None: each has its own.
    task_seconds : float
        Of client and scheduler, for each task handed out and taken back.
    latency : float
        Of a round, whatever it does.
    storage : float
        Bytes a second of the file system, all workers together.
    reader : float
        Bytes a second that one worker can take from it.
    link : float
        Bytes a second between two workers, or a worker and the client.
    window : int
        Tasks in flight for each worker.
    runs : bool
        Whether a worker's groups are neighbours; else they are dealt out one by one.
    most : int
        Groups that a task takes at most.
    """

    workers: int
    cores: int | None
    task_seconds: float
    latency: float
    storage: float
    reader: float
    link: float
    window: int = 2
    runs: bool = True
    most: int = 256


@dataclass(frozen=True)
class Round:
    """One pass over all groups.

    Attributes
    ----------
    name : str
    groups : int
    map_seconds : float
        Of one group on a core that nobody else uses, without reading, with the joins within its task.
    read_bytes : float
        From storage for one group, in this round.
    statistic : float
        Bytes of a group's answer; 0: nothing is joined.
    join_seconds : float
        Of one join between tasks.
    client_seconds : float
        Of the client after the round: eigenvalues, steps, writing small answers.
    """

    name: str
    groups: int
    map_seconds: float
    read_bytes: float
    statistic: float
    join_seconds: float
    client_seconds: float


@dataclass(frozen=True)
class Spent:
    """Seconds of a round, and what the busiest of each kind did of it."""

    rounds: float
    client: float
    map: float
    storage: float
    scheduler: float
    moved_bytes: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.rounds + other.rounds,
            self.client + other.client,
            self.map + other.map,
            self.storage + other.storage,
            self.scheduler + other.scheduler,
            self.moved_bytes + other.moved_bytes,
        )

    @property
    def seconds(self) -> float:
        """The whole."""
        return self.rounds + self.client


class _Queue:
    """Something that serves one after the other."""

    def __init__(self) -> None:
        self.free = self.busy = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When a job that comes now is done."""
        self.free = max(now, self.free) + seconds
        self.busy += seconds
        return self.free


class _Simulation:
    def __init__(self, cluster: Cluster, one: Round) -> None:
        self.cluster, self.one = cluster, one
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = itertools.count()
        self.scheduler, self.storage = _Queue(), _Queue()
        self.workers = [_Queue() for _ in range(cluster.workers)]
        self.links = [_Queue() for _ in range(cluster.workers + 1)]
        self.moved = 0.0
        # Processes beyond the cores share them, as far as they have work at the same time.
        cores = cluster.cores or cluster.workers
        self.slower = max(1.0, min(cluster.workers, one.groups) / cores)
        self.pending = [deque(self._homes(w)) for w in range(cluster.workers)]
        self.n_done = 0
        self.pace: tuple[float, int] | None = None
        self.end = 0.0
        self.root: _Part | None = None
        self.unstarted = one.groups
        self.tree = TreeCombiner(one.groups, self._join)

    def _homes(self, worker: int) -> range:
        """Groups of a worker."""
        n, w = self.one.groups, self.cluster.workers
        if self.cluster.runs:
            return range(n * worker // w, n * (worker + 1) // w)
        return range(worker, n, w)

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._ties), what))

    def run(self) -> float:
        """Seconds until the root is in the client."""
        for _ in range(self.cluster.window):
            for worker in range(self.cluster.workers):
                self._submit(worker)
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()
        return self.end + self.cluster.latency

    # --- maps

    def _submit(self, worker: int) -> None:
        if not self.unstarted:
            return
        mine = self.pending[worker]
        if mine:
            run = take_first(mine, self._wanted(len(mine), 1))
        else:
            # A worker without work takes from the one that has most before it.
            theirs = max(self.pending, key=len)
            run = take_last(theirs, self._wanted(len(theirs), 2))
        self.unstarted -= len(run)
        given = self.scheduler.serve(self.now, self.cluster.task_seconds)
        if self.one.read_bytes:
            self.at(given, lambda: self._read(run, worker))
        else:
            self.at(given, lambda: self._map(run, worker))

    def _wanted(self, left: int, threads: int) -> int:
        """Groups for a task, as `emcube.engine.rounds` has it."""
        rate = None
        if self.pace is not None and self.n_done > self.pace[1]:
            began, before = self.pace
            rate = (self.n_done - before) / max(1e-6, self.now - began)
        wanted = groups_of_task(left, threads, rate, self.cluster.workers)
        return min(self.cluster.most, wanted)

    def _read(self, run: range, worker: int) -> None:
        size = self.one.read_bytes * len(run)
        shared = self.storage.serve(self.now, size / self.cluster.storage)
        arrives = max(shared, self.now + size / self.cluster.reader)
        self.at(arrives, lambda: self._map(run, worker))

    def _map(self, run: range, worker: int) -> None:
        seconds = self.one.map_seconds * len(run)
        done = self.workers[worker].serve(self.now, seconds * self.slower)
        self.at(done, lambda: self._mapped(run, worker))

    def _mapped(self, run: range, worker: int) -> None:
        self.n_done += len(run)
        self.pace = self.pace or (self.now, self.n_done)
        self._submit(worker)
        if self.one.statistic:
            self.tree.add(run.start, _Part(worker, ready=True), len(run))
        if self.n_done < self.one.groups:
            return
        if not self.one.statistic:
            self.end = self.now
            return
        self.root = self.tree.root
        if self.root.ready:
            self._fetch(self.root)

    # --- joins

    def _join(self, a: _Part, b: _Part) -> _Part:
        """A part that is there when both sides are, and joined."""
        part = _Part(a.worker, sides=(a, b))
        for side in part.sides:
            side.parent = part
        self._look(part)
        return part

    def _look(self, part: _Part) -> None:
        if all(side.ready for side in part.sides):
            given = self.scheduler.serve(self.now, self.cluster.task_seconds)
            self.at(given, lambda: self._move(part))

    def _move(self, part: _Part) -> None:
        a, b = part.sides
        if a.worker == b.worker:
            self._add(part)
            return
        self.moved += self.one.statistic
        done = self.links[a.worker].serve(self.now, self.one.statistic / self.cluster.link)
        self.at(done, lambda: self._add(part))

    def _add(self, part: _Part) -> None:
        seconds = self.one.join_seconds * self.slower
        done = self.workers[part.worker].serve(self.now, seconds)
        self.at(done, lambda: self._joined(part))

    def _joined(self, part: _Part) -> None:
        part.ready, part.sides = True, ()
        if part is self.root:
            self._fetch(part)
        elif part.parent is not None:
            self._look(part.parent)

    def _fetch(self, part: _Part) -> None:
        self.end = self.links[-1].serve(self.now, self.one.statistic / self.cluster.link)


@dataclass(eq=False)
class _Part:
    """A statistic: on which worker it is, whether it is there, and what it is made of."""

    worker: int
    ready: bool = False
    sides: tuple[_Part, ...] = ()
    parent: _Part | None = None


def simulate(cluster: Cluster, one: Round) -> Spent:
    """Run one round."""
    simulation = _Simulation(cluster, one)
    seconds = simulation.run()
    busiest = max(w.busy for w in simulation.workers)
    return Spent(
        seconds,
        one.client_seconds,
        busiest,
        simulation.storage.busy,
        simulation.scheduler.busy,
        simulation.moved,
    )


def total(cluster: Cluster, rounds: list[tuple[Round, int]]) -> Spent:
    """Run rounds, each so many times."""
    spent = Spent(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for one, times in rounds:
        found = simulate(cluster, one)
        for _ in range(times):
            spent = spent + found
    return spent


def without(cluster: Cluster, limit: str) -> Cluster:
    """The same cluster without one of its limits."""
    free = {
        "scheduler": {"task_seconds": 0.0},
        "storage": {"storage": 1e30, "reader": 1e30},
        "links": {"link": 1e30},
    }
    return replace(cluster, **free[limit])
