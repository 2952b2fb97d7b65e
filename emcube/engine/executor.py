"""Where block tasks run: threads of this process, or an active dask.distributed client.

Both give the same bits. An executor runs one task a group of blocks, keeps a bounded number in
flight and joins the parts along the fixed tree.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Protocol

from emcube._hooks import provided
from emcube.engine.adoption import pin_threads, release, relieve
from emcube.engine.combine import TreeCombiner
from emcube.engine.health import Limits, Watch, bounded
from emcube.engine.memory import memory_budget
from emcube.engine.placement import Homes
from emcube.engine.threads import default_threads
from emcube.errors import EngineError

__all__ = ["DistributedExecutor", "Executor", "Tasks", "ThreadExecutor"]
__all__ += ["active_client", "current_executor"]

CLOSING_SECONDS = 10.0
"""Time that workers get to let resident blocks go; one that is gone holds nothing."""

RELIEF_SECONDS = 0.5
"""A worker looks so often whether resident blocks must make way."""

_log = logging.getLogger(__name__)

Done = Callable[[int], None]
"""Called in the client with the number of a finished group."""


class Tasks:
    """Makes the tasks of a round.

    Parameters
    ----------
    make : callable
        ``make(range(a, b))`` is the task of groups a to b - 1; its result is what joining the parts of
        these groups along the fixed tree gives.
    most : int
        Groups that one task may take.
    """

    def __init__(self, make: Callable[[range], Callable[[], Any]], most: int = 1) -> None:
        self.make, self.most = make, most

    def __call__(self, run: range) -> Callable[[], Any]:
        """Make the task of some groups that make a node of the fixed tree."""
        return self.make(run)


class Executor(Protocol):
    """Runs the groups of one round."""

    slots: int
    remote: bool

    @property
    def process(self) -> tuple[int, int]:
        """Blocks in flight in one process, and the memory in bytes that it may take for them."""
        ...

    def releaser(self, session: str) -> Callable[[], None]:
        """What lets the workers' resident blocks of a session go."""
        ...

    def reduce(
        self,
        tasks: Tasks,
        n_groups: int,
        join: Callable[[Any, Any], Any],
        done: Done,
    ) -> Any:
        """Run every group, several in a task where that may be, and join the parts along the fixed tree."""
        ...

    def each(self, tasks: Tasks, n_groups: int, done: Done) -> None:
        """Run every group for its effect."""
        ...


class ThreadExecutor:
    """Threads of this process; nothing to start, nothing to configure."""

    remote = False

    def __init__(self, slots: int | None = None) -> None:
        self.slots = slots or default_threads()

    @property
    def process(self) -> tuple[int, int]:
        """All blocks in flight, and the memory budget."""
        return self.slots, memory_budget()

    def releaser(self, session: str) -> Callable[[], None]:
        """Nothing to do: the context itself lets its blocks go."""
        return lambda: None

    def _completed(self, tasks: Tasks, n_groups: int) -> Iterator[tuple[int, Any]]:
        """Parts in order of completion, with a bounded number in flight."""
        if self.slots == 1:
            for group in range(n_groups):
                yield group, tasks(range(group, group + 1))()
            return
        waiting = iter(range(n_groups))
        with ThreadPoolExecutor(self.slots, thread_name_prefix="emcube") as pool:
            flying: dict[Future[Any], int] = {}
            try:
                while True:
                    for group in itertools.islice(waiting, self.slots + 1 - len(flying)):
                        flying[pool.submit(tasks(range(group, group + 1)))] = group
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
        tasks: Tasks,
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

    def each(self, tasks: Tasks, n_groups: int, done: Done) -> None:
        """Run every group for its effect."""
        for group, _ in self._completed(tasks, n_groups):
            done(group)


class DistributedExecutor:
    """Workers of an active dask.distributed client. Parts are joined on the workers.

    Workers may come, die, hang or be cut off while it runs: what they had is done elsewhere, and the bits
    stay the same. What cannot go on ends with an `EngineError` within the time that `limits` allow.

    Parameters
    ----------
    client : distributed.Client
    limits : Limits, optional
        How long to wait for what; default: ``EMCUBE_LIMITS``.
    """

    remote = True

    def __init__(self, client: Any, limits: Limits | None = None) -> None:
        self.client = client
        self.limits = limits or Limits.from_environment()
        self.watch = Watch(client, self.limits)
        self.watch.look(now=True)
        if not self.watch.threads:
            _log.warning(
                "the Dask client has no workers yet: waiting %g s for one", self.limits.workers
            )
        while not self.watch.require_workers(lambda: "the run"):
            time.sleep(0.2)
            self.watch.look(now=True)
        self.slots = sum(self.watch.threads.values())
        self._prepare()

    @property
    def process(self) -> tuple[int, int]:
        """Threads of the worker with the least memory for each, and half of its limit.

        A third of the limit is for blocks that stay, the rest for Python and its libraries.
        """
        threads, memory = self.watch.threads, self.watch.memory
        limits = {a: memory[a] or memory_budget() for a in threads}
        tightest = min(threads, key=lambda a: (limits[a] / threads[a], a))
        return threads[tightest], limits[tightest] // 2

    def _prepare(self) -> None:
        """Have each worker, now and later, pin its threads and watch its memory."""
        if self.client in _prepared:
            return

        def register() -> None:
            self.client.register_plugin(_worker_plugin(), name="emcube-worker")

        end = time.monotonic() + 3 * self.limits.silence
        while True:
            try:
                # A worker that hangs holds this up until it is dropped for its silence.
                bounded(register, max(0.0, end - time.monotonic()), meanwhile=self.watch.look)
                break
            except TimeoutError as error:
                raise EngineError(
                    f"workers of the Dask scheduler ({self.watch.address}) did not answer within "
                    f"{3 * self.limits.silence:g} s",
                    hint="see their logs, and restart those that hang",
                ) from error
            except (OSError, KeyError):  # one of them died just then
                time.sleep(0.1)
                self.watch.look(now=True)
        _prepared.add(self.client)

    def homes(self, n_groups: int) -> Homes:
        """Where the groups of a plan belong, the same from run to run on this client."""
        plans = _homes.setdefault(self.client, {})
        if n_groups not in plans:
            plans[n_groups] = Homes(n_groups)
        return plans[n_groups]

    def releaser(self, session: str) -> Callable[[], None]:
        """What lets the workers' resident blocks of a session go."""
        return lambda: self.tell_all(release, session)

    def tell_all(self, function: Callable[[str], None], word: str) -> None:
        """Call a function on every worker that answers soon; the others are none of its business."""
        if self.client.status != "running" or self.watch.lost:
            return
        try:
            bounded(
                lambda: self.client.run(function, word, on_error="ignore"),
                CLOSING_SECONDS,
            )
        except (TimeoutError, OSError, RuntimeError, ValueError) as error:
            _log.debug("not all workers heard %s: %s", function.__name__, error)

    def reduce(
        self,
        tasks: Tasks,
        n_groups: int,
        join: Callable[[Any, Any], Any],
        done: Done,
    ) -> Any:
        """Run every group and join the parts along the fixed tree, on the workers."""
        from emcube.engine.rounds import Round, RoundLostError

        reported: set[int] = set()

        def done_once(group: int) -> None:
            if group not in reported:
                reported.add(group)
                done(group)

        deaths = 0
        for _ in range(self.limits.deaths):
            try:
                return Round(self, tasks, n_groups, done_once).reduce(join)
            except RoundLostError as error:
                deaths += error.deaths
                _log.warning("a round is run again: %s", error)
        raise EngineError(
            f"a round was run {self.limits.deaths} times and lost each time, the last time when {deaths} "
            "workers had died",
            hint="see the workers' logs: where workers are taken away so fast no round can end",
        )

    def each(self, tasks: Tasks, n_groups: int, done: Done) -> None:
        """Run every group for its effect."""
        from emcube.engine.rounds import Round

        Round(self, tasks, n_groups, done).each()


_prepared: weakref.WeakSet[Any] = weakref.WeakSet()
_homes: weakref.WeakKeyDictionary[Any, dict[int, Homes]] = weakref.WeakKeyDictionary()


def _worker_plugin() -> Any:
    from distributed import WorkerPlugin

    class Prepare(WorkerPlugin):
        """Limit array libraries to one thread for good, and let blocks go where memory runs short."""

        idempotent = True

        def setup(self, worker: Any) -> None:
            from tornado.ioloop import PeriodicCallback

            pin_threads()
            look = PeriodicCallback(partial(relieve, worker), RELIEF_SECONDS * 1000)
            worker.periodic_callbacks["emcube-relief"] = look
            look.start()

        def teardown(self, worker: Any) -> None:
            look = worker.periodic_callbacks.pop("emcube-relief", None)
            if look is not None:
                look.stop()

    return Prepare()


def current_executor() -> Executor:
    """The workers of the deployment in force or of the active client, else threads of this process.

    A deployment may be started by it (``EMCUBE_DEPLOY``). Inside a task of a worker it is always threads:
    a task that waits for others would hold the place that they need.
    """
    if _inside_task():
        return ThreadExecutor()
    client = provided("client")(active_client())
    return ThreadExecutor() if client is None else DistributedExecutor(client)


def _inside_task() -> bool:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


def active_client() -> Any:
    """The active dask.distributed client, or None; one that lost its scheduler is active still."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        client = distributed.get_client()
    except ValueError:  # no client is active
        return None
    return client if client.status in ("running", "connecting") else None
