"""Which worker each group of blocks belongs to, while workers come and go.

Where a group runs never changes an answer, only how often blocks are read and how much is moved. Groups
belong to workers in runs of neighbours, so that most joins of the fixed tree find both parts on one worker.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

__all__ = ["Homes"]


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
