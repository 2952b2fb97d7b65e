"""Where block tasks run: threads of this process, or an active dask.distributed client.

Both give the same bits. An executor runs one task a group of blocks, keeps a bounded number in
flight and joins the parts along the fixed tree.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, Protocol

from emcube.engine.combine import TreeCombiner
from emcube.engine.memory import release
from emcube.engine.source import feed, needed
from emcube.engine.threads import default_threads
from emcube.errors import EngineError

__all__ = ["DistributedExecutor", "Executor", "ThreadExecutor", "current_executor"]

PATIENCE = 120
"""Seconds to wait for the first worker of a client."""

_log = logging.getLogger(__name__)

Done = Callable[[int], None]
"""Called in the client with the number of a finished group."""


class Executor(Protocol):
    """Runs the groups of one round."""

    slots: int
    remote: bool

    def releaser(self, session: str) -> Callable[[], None]:
        """What lets the workers' resident blocks of a session go."""
        ...

    def reduce(
        self,
        tasks: Callable[[int], Callable[[], Any]],
        n_groups: int,
        join: Callable[[Any, Any], Any],
        done: Done,
    ) -> Any:
        """Run ``tasks(g)()`` for every group and join the parts along the fixed tree."""
        ...

    def each(self, tasks: Callable[[int], Callable[[], Any]], n_groups: int, done: Done) -> None:
        """Run ``tasks(g)()`` for every group for its effect."""
        ...


class ThreadExecutor:
    """Threads of this process; nothing to start, nothing to configure."""

    remote = False

    def __init__(self, slots: int | None = None) -> None:
        self.slots = slots or default_threads()

    def releaser(self, session: str) -> Callable[[], None]:
        """Nothing to do: the context itself lets its blocks go."""
        return lambda: None

    def _completed(
        self, tasks: Callable[[int], Callable[[], Any]], n_groups: int
    ) -> Iterator[tuple[int, Any]]:
        """Parts in order of completion, with a bounded number in flight."""
        if self.slots == 1:
            for group in range(n_groups):
                yield group, tasks(group)()
            return
        waiting = iter(range(n_groups))
        with ThreadPoolExecutor(self.slots, thread_name_prefix="emcube") as pool:
            flying: dict[Future[Any], int] = {}
            try:
                while True:
                    for group in itertools.islice(waiting, self.slots + 1 - len(flying)):
                        flying[pool.submit(tasks(group))] = group
                    if not flying:
                        return
                    finished, _ = wait(flying, return_when=FIRST_COMPLETED)
                    for future in sorted(finished, key=flying.__getitem__):
                        group = flying.pop(future)
                        yield group, future.result()
            finally:
                # After an error or an interrupt nothing new starts; what runs ends with its block.
                for future in flying:
                    future.cancel()

    def reduce(
        self,
        tasks: Callable[[int], Callable[[], Any]],
        n_groups: int,
        join: Callable[[Any, Any], Any],
        done: Done,
    ) -> Any:
        """Run every group and join the parts along the fixed tree."""
        tree = TreeCombiner(n_groups, join)
        for group, part in self._completed(tasks, n_groups):
            tree.add(group, part)
            done(group)
        return tree.root

    def each(self, tasks: Callable[[int], Callable[[], Any]], n_groups: int, done: Done) -> None:
        """Run every group for its effect."""
        for group, _ in self._completed(tasks, n_groups):
            done(group)


def _fed(task: Any, values: dict[Any, Any]) -> Any:
    return replace(task, source=feed(task.source, values))


@dataclass(frozen=True, eq=False)
class _Fed:
    """A task whose source needs persisted blocks; called with them on a worker."""

    task: Any
    keys: tuple[Any, ...]

    def __call__(self, values: list[Any] | None = None) -> Any:
        return _fed(self.task, dict(zip(self.keys, values or (), strict=True)))()


def _limit_threads() -> None:
    """Pin BLAS and OpenMP of a worker process to one thread, for good."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1)


class DistributedExecutor:
    """Workers of an active dask.distributed client. Parts are joined on the workers."""

    remote = True

    def __init__(self, client: Any) -> None:
        self.client = client
        info = client.scheduler_info(n_workers=-1)["workers"]
        if not info:
            _log.warning("the Dask client has no workers yet: waiting %d s for one", PATIENCE)
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError as error:
                raise EngineError(
                    f"the active Dask client ({client.scheduler.address}) has had no workers for "
                    f"{PATIENCE} s",
                    hint="start workers, or close the client to run on threads of this process",
                ) from error
            info = client.scheduler_info(n_workers=-1)["workers"]
        self.workers = sorted(info)
        self.slots = sum(int(w["nthreads"]) for w in info.values())
        client.register_plugin(_thread_plugin(), name="emcube-threads")

    def releaser(self, session: str) -> Callable[[], None]:
        """What lets the workers' resident blocks of a session go."""

        def close() -> None:
            if self.client.status == "running":
                self.client.run(release, session, on_error="ignore")

        return close

    def _place(self, group: int) -> list[str]:
        """The worker where a group's blocks are resident: the same one in every round."""
        return [self.workers[group % len(self.workers)]]

    def _submit(self, task: Callable[[], Any], group: int) -> Any:
        arguments: list[Any] = []
        source = getattr(task, "source", None)
        futures = {} if source is None else needed(source)
        if futures:
            # As arguments, so that the scheduler waits for them and brings them to the worker.
            task = _Fed(_fed(task, {}), tuple(futures))
            arguments = [list(futures.values())]
        return self.client.submit(
            task,
            *arguments,
            workers=self._place(group),
            allow_other_workers=True,
            pure=False,
            retries=0,
        )

    def reduce(
        self,
        tasks: Callable[[int], Callable[[], Any]],
        n_groups: int,
        join: Callable[[Any, Any], Any],
        done: Done,
    ) -> Any:
        """Run every group and join the parts along the fixed tree, on the workers."""

        def submit_join(a: Any, b: Any) -> Any:
            return self.client.submit(join, a, b, pure=False)

        tree = TreeCombiner(n_groups, submit_join)
        for group, future in self._completed(tasks, n_groups):
            tree.add(group, future)
            done(group)
        return tree.root.result()

    def each(self, tasks: Callable[[int], Callable[[], Any]], n_groups: int, done: Done) -> None:
        """Run every group for its effect."""
        for group, _ in self._completed(tasks, n_groups):
            done(group)

    def _completed(
        self, tasks: Callable[[int], Callable[[], Any]], n_groups: int
    ) -> Iterator[tuple[int, Any]]:
        """Futures of finished groups, with a bounded number in flight."""
        from distributed import as_completed

        window = max(2, 3 * self.slots)
        waiting = iter(range(n_groups))
        flying: dict[Any, int] = {}
        queue = as_completed(loop=self.client.loop)
        try:
            for group in itertools.islice(waiting, window):
                future = self._submit(tasks(group), group)
                flying[future] = group
                queue.add(future)
            for future in queue:
                group = flying.pop(future)
                if future.status != "finished":
                    future.result()
                yield group, future
                for following in itertools.islice(waiting, 1):
                    new = self._submit(tasks(following), following)
                    flying[new] = following
                    queue.add(new)
        finally:
            if flying:
                self.client.cancel(list(flying))


def _thread_plugin() -> Any:
    from distributed import WorkerPlugin

    class PinThreads(WorkerPlugin):
        """Limit array libraries of each worker to one thread when it starts."""

        idempotent = True

        def setup(self, worker: Any) -> None:
            _limit_threads()

    return PinThreads()


def current_executor() -> Executor:
    """The active dask.distributed client if there is one, threads of this process otherwise."""
    distributed = sys.modules.get("distributed")
    if distributed is not None:
        try:
            client = distributed.get_client()
        except ValueError:  # no client is active
            client = None
        if client is not None and client.status == "running":
            return DistributedExecutor(client)
    return ThreadExecutor()
