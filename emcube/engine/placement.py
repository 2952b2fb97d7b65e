"""Which worker each group of blocks belongs to, while workers come and go.

Where a group runs never changes an answer, only how often blocks are read and how much is moved. Groups
belong to workers in runs of neighbours, so that most joins of the fixed tree find both parts on one worker.

A task takes several groups where they are quick: as many as make a node of the fixed tree, so that what it
gives is what joining their parts would have given. Tasks get smaller towards the end of a round (guided
self-scheduling, Polychronopoulos and Kuck 1987, doi:10.1109/TC.1987.5009495), so that all workers end at
about the same time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping

__all__ = ["Homes", "groups_of_task", "take_first", "take_last"]

LEAST_SECONDS, MOST_SECONDS = 0.1, 1.0
"""A task takes about so long, where its groups are quick: longer than what it costs to hand it out, and
short enough to tell what goes on."""

SHARES = 3
"""Between these, a task takes this fraction of what is left for a thread."""

TASKS_PER_SECOND = 50.0
"""Client and scheduler hand out twice as many, joins besides, without being what everybody waits for."""


def groups_of_task(left: int, threads: int, rate: float | None, all_threads: int) -> int:
    """Groups that the next task of a worker takes.

    Parameters
    ----------
    left : int
        Groups that the worker has before it.
    threads, all_threads : int
        Its threads, and those of all workers.
    rate : float or None
        Groups that all workers together do in a second; None as long as nothing is known of it: then a task
        takes one.
    """
    if rate is None:
        return 1
    each = rate / all_threads
    even = max(int(LEAST_SECONDS * each), left // (SHARES * threads))
    quick = min(int(MOST_SECONDS * each), even)
    # With many workers the pace is that of handing out: what a group takes does not show in it.
    fewer = min(int(rate / TASKS_PER_SECOND), left // (2 * threads))
    return max(1, quick, fewer)


def take_first(pending: deque[int], wanted: int) -> range:
    """Take the largest run off the beginning that is a node of the fixed tree, up to a number of groups."""
    first, size = pending[0], 1
    while (
        2 * size <= min(wanted, len(pending))
        and first % (2 * size) == 0
        and pending[2 * size - 1] == first + 2 * size - 1
    ):
        size *= 2
    for _ in range(size):
        pending.popleft()
    return range(first, first + size)


def take_last(pending: deque[int], wanted: int) -> range:
    """Take the largest run off the end that is a node of the fixed tree, up to a number of groups."""
    stop, size = pending[-1] + 1, 1
    while (
        2 * size <= min(wanted, len(pending))
        and stop % (2 * size) == 0
        and pending[-2 * size] == stop - 2 * size
    ):
        size *= 2
    for _ in range(size):
        pending.pop()
    return range(stop - size, stop)


class Homes:
    """A worker for each group; only what must move moves.

    A worker that is lost moves its own groups alone, to those with the least to do. A new worker takes groups
    from the fullest until all have their share, which goes by threads.

    Parameters
    ----------
    n_groups : int
        Groups of a plan.
    """

    def __init__(self, n_groups: int) -> None:
        self.n_groups = n_groups
        self._home: dict[int, str] = {}
        self._threads: dict[str, int] = {}

    def __getitem__(self, group: int) -> str:
        return self._home[group]

    def of(self, worker: str) -> list[int]:
        """Groups of a worker, ascending."""
        return sorted(group for group, home in self._home.items() if home == worker)

    def move(self, group: int, worker: str) -> None:
        """Give a group to another worker for good."""
        self._home[group] = worker

    def update(self, threads: Mapping[str, int]) -> None:
        """Take note of the workers that are there now, with their threads; at least one."""
        if dict(threads) == self._threads:
            return
        new = sorted(threads.keys() - self._threads.keys())
        self._threads = dict(threads)
        if not self._home.keys() or not (set(self._home.values()) & threads.keys()):
            self._deal()
            return
        held: dict[str, list[int]] = {worker: [] for worker in sorted(threads)}
        orphans: list[int] = []
        for group in range(self.n_groups):
            held.get(self._home[group], orphans).append(group)
        self._adopt(orphans, held)
        self._fill(new, held)

    def _deal(self) -> None:
        """Runs of neighbours, as long as a worker's share of the threads."""
        total, done, start = sum(self._threads.values()), 0, 0
        for worker in sorted(self._threads):
            done += self._threads[worker]
            stop = self.n_groups * done // total
            self._home.update(dict.fromkeys(range(start, stop), worker))
            start = stop

    def _adopt(self, orphans: list[int], held: dict[str, list[int]]) -> None:
        load = [(len(groups) / self._threads[w], w) for w, groups in held.items()]
        heapq.heapify(load)
        for group in orphans:
            _, worker = load[0]
            self._home[group] = worker
            held[worker].append(group)
            heapq.heapreplace(load, (len(held[worker]) / self._threads[worker], worker))

    def _fill(self, new: list[str], held: dict[str, list[int]]) -> None:
        """Let new workers take from the fullest as long as that evens the load."""

        def load(worker: str, more: int = 0) -> float:
            return (len(held[worker]) + more) / self._threads[worker]

        fullest = [(-load(worker), worker) for worker in held]
        heapq.heapify(fullest)
        for worker in new:
            while True:
                while -fullest[0][0] != load(fullest[0][1]):  # it has taken some since
                    heapq.heapreplace(fullest, (-load(fullest[0][1]), fullest[0][1]))
                giver = fullest[0][1]
                if giver == worker or load(worker, 1) > load(giver, -1):
                    break
                group = held[giver].pop()
                self._home[group] = worker
                held[worker].append(group)
                heapq.heapreplace(fullest, (-load(giver), giver))
            heapq.heappush(fullest, (-load(worker), worker))
