"""The workers of a dask.distributed client: which are there, which are silent, cut off or hang.

Every question to the scheduler has a bound, so that a run ends with an answer or a clear error whatever
hangs. What is asked here costs one small message every few seconds.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from emcube.errors import EngineError, InputError

__all__ = ["Limits", "Watch", "bounded"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_SECONDS = 5.0
"""A worker that does not take a connection for so long is cut off from the one that tries."""

MOST = 7 * 24 * 3600.0
"""Longest wait that may be set, in seconds (a week), and the most deaths."""

MESH = 16
"""Workers that try each other at most, when some are suspected of being cut off."""


@dataclass(frozen=True)
class Limits:
    """How long a run on a dask.distributed client waits for what, and how many deaths it bears.

    ``EMCUBE_LIMITS`` sets them by name, for instance ``workers=600,task=900``.

    Attributes
    ----------
    workers : float
        Seconds without any worker that runs tasks before the run stops.
    silence : float
        Seconds after which a worker that sends no sign of life is dropped, and after which a scheduler
        that does not answer stops the run.
    task : float
        Seconds after which a task of one block may be taken to hang; the limit in force is larger for
        groups of many blocks and where tasks were seen to take long.
    deaths : int
        Workers that may die with a block until it is taken for the cause.
    """

    workers: float = 120.0
    silence: float = 60.0
    task: float = 300.0
    deaths: int = 12

    @classmethod
    def from_environment(cls) -> Limits:
        """Defaults, with what ``EMCUBE_LIMITS`` says.

        Raises
        ------
        InputError
            An item has another name, or is no number above zero and up to a week; or `deaths` is not whole.
        """
        limits, names = cls(), [f.name for f in fields(cls)]
        for item in filter(None, os.environ.get("EMCUBE_LIMITS", "").replace(" ", "").split(",")):
            name, _, text = item.partition("=")
            if name not in names:
                raise _no_limit(item, names)
            changed: dict[str, Any] = {name: _limit(item, text, names, whole=name == "deaths")}
            limits = replace(limits, **changed)
        return limits


def _limit(item: str, text: str, names: list[str], *, whole: bool) -> float | int:
    """Number of an item of ``EMCUBE_LIMITS``."""
    try:
        value = float(text)
    except ValueError as error:
        raise _no_limit(item, names) from error
    if not 0 < value <= MOST or (whole and not value.is_integer()):
        raise _no_limit(item, names)
    return int(value) if whole else value


def _no_limit(item: str, names: list[str]) -> InputError:
    return InputError(
        f"EMCUBE_LIMITS has {item!r}, expected numbers above zero by name: {', '.join(names)}; "
        f"at most {MOST:.0f} (seconds, a week), and deaths a whole number",
        hint='write for example EMCUBE_LIMITS="workers=600,task=900,deaths=12"',
    )


def bounded(call: Callable[[], T], seconds: float, meanwhile: Callable[[], Any] | None = None) -> T:
    """Return what a call returns, or raise TimeoutError; the call itself is left behind then.

    Calls of a client have no time limit of their own where the scheduler, or a worker that it asks, hangs.
    `meanwhile` is called about once a second until there is an answer.
    """
    result: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            result.append(call())
        except BaseException as error:  # noqa: BLE001  raised again below
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=work, name="emcube-ask", daemon=True).start()
    end = time.monotonic() + seconds
    while not done.wait(min(seconds, 1.0 if meanwhile else seconds)):
        if time.monotonic() >= end:
            raise TimeoutError(f"no answer for {seconds:g} s")
        if meanwhile is not None:
            meanwhile()
    if errors:
        raise errors[0]
    return result[0]


async def _not_reached(peers: list[str], seconds: float) -> list[str]:
    """On a worker: which of the peers do not take a connection. Nothing is said over it."""
    import asyncio

    from distributed.comm.addressing import get_address_host_port

    async def reached(peer: str) -> bool:
        try:
            host, port = get_address_host_port(peer)
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), seconds)
        except (TimeoutError, OSError):
            return False
        writer.close()
        return True

    found = await asyncio.gather(*(reached(peer) for peer in peers))
    return [peer for peer, yes in zip(peers, found, strict=True) if not yes]


def outvoted(cut: Iterable[tuple[str, str]]) -> list[str]:
    """Fewest workers (greedily) without which no two that remain are cut off from each other."""
    pairs = {frozenset(pair) for pair in cut}
    out: list[str] = []
    while pairs:
        count: dict[str, int] = {}
        for pair in pairs:
            for worker in pair:
                count[worker] = count.get(worker, 0) + 1
        worst = max(count, key=lambda worker: (count[worker], worker))
        out.append(worst)
        pairs = {pair for pair in pairs if worst not in pair}
    return out


class Watch:
    """The workers of a client as a run sees them.

    Parameters
    ----------
    client : distributed.Client
    limits : Limits

    Attributes
    ----------
    threads : dict of str to int
        Address and threads of the workers that tasks are given to.
    memory : dict of str to int
        Address and memory limit of the same workers, in bytes; 0 where there is none.
    cut_off : set of str
        Hosts that get no tasks, since other workers cannot reach them.
    lost : bool
        The scheduler is gone or does not answer: nothing is to be asked any more.
    """

    def __init__(self, client: Any, limits: Limits) -> None:
        self.client, self.limits = client, limits
        self.threads: dict[str, int] = {}
        self.memory: dict[str, int] = {}
        self.address = str(client.scheduler.address)
        self._heard: dict[str, tuple[float, float]] = {}
        self._nannies: dict[str, Any] = {}
        self._dropping: dict[str, threading.Thread] = {}
        self.lost = False
        self._paused = 0
        self.cut_off: set[str] = set()
        self._looked = 0.0
        self._without: float | None = None

    # --- the scheduler ----------------------------------------------------------------------------

    def ask(self, call: Callable[[], T]) -> T:
        """Ask the scheduler something.

        Raises
        ------
        EngineError
            It is gone, or does not answer.
        """
        try:
            return bounded(call, self.limits.silence)
        except TimeoutError as error:
            self.lost = True
            raise EngineError(
                f"the Dask scheduler ({self.address}) has not answered for "
                f"{self.limits.silence:g} s",
                hint="see its log; then start the run again: it goes on from what was finished",
            ) from error
        except (OSError, RuntimeError, AttributeError) as error:
            # What a client raises depends on how far it has got with noticing.
            raise self.gone() from error

    def gone(self) -> EngineError:
        """Error for a scheduler that is no longer there."""
        self.lost = True
        return EngineError(
            f"the connection to the Dask scheduler ({self.address}) was lost: it ended, or the network "
            "did",
            hint="start a scheduler with workers, then the run again: it goes on from what was finished",
        )

    def require_scheduler(self) -> None:
        """Raise if the client has lost its scheduler."""
        if self.client.status != "running":
            raise self.gone()

    # --- who is there -----------------------------------------------------------------------------

    def look(self, *, now: bool = False) -> set[str]:
        """Look who is there, if the last look was a while ago; returns the workers lost since.

        Raises
        ------
        EngineError
            The scheduler is gone, or there have been no workers for too long.
        """
        started = time.monotonic()
        if not now and started - self._looked < max(1.0, len(self.threads) / 50):
            return set()
        self.require_scheduler()
        workers = self.ask(self._identity)["workers"]
        before, gap = set(self.threads), started - self._looked
        self._looked = time.monotonic()
        self._nannies = {address: w["nanny"] for address, w in workers.items()}
        self._paused = sum(w["status"] == "paused" for w in workers.values())
        self.threads = {
            address: int(w["nthreads"])
            for address, w in workers.items()
            if w["status"] == "running"
            and _host(address) not in self.cut_off
            and not (address in self._dropping and self._dropping[address].is_alive())
        }
        self.memory = {a: int(workers[a].get("memory_limit") or 0) for a in self.threads}
        seen = {a: float(w["last_seen"]) for a, w in workers.items() if a not in self._dropping}
        self._listen(seen, gap)
        return before - set(self.threads)

    def _identity(self) -> Any:
        # Not scheduler_info(): that gives an old answer where the scheduler gives none.
        return self.client.sync(self.client.scheduler.identity, n_workers=-1)

    def _listen(self, last_seen: dict[str, float], gap: float) -> None:
        """Drop the workers that the scheduler has heard nothing of for too long."""
        fresh = gap > self.limits.silence / 2  # nobody looked meanwhile
        now = time.monotonic()
        heard = {}
        for address, seen in last_seen.items():
            known = self._heard.get(address)
            heard[address] = known if known and known[0] == seen and not fresh else (seen, now)
        self._heard = heard
        for address, (_, since) in list(heard.items()):
            if now - since > self.limits.silence:
                self.drop(address, f"it has sent no sign of life for {self.limits.silence:g} s")

    def require_workers(self, waiting: Callable[[], str]) -> bool:
        """Tell whether there are workers; raise if there have been none for too long.

        Parameters
        ----------
        waiting : callable
            Says what waits for them, for the error.
        """
        now = time.monotonic()
        if self.threads:
            self._without = None
            return True
        self._without = now if self._without is None else self._without
        if now - self._without > self.limits.workers:
            paused = f" ({self._paused} are paused, short of memory)" if self._paused else ""
            raise EngineError(
                f"the Dask scheduler ({self.address}) has had no running workers for "
                f"{self.limits.workers:g} s{paused}: {waiting()} waited for one",
                hint="see the workers' logs and start workers, or allow a longer wait "
                "(EMCUBE_LIMITS=workers=600); then start the run again",
            )
        return False

    # --- who must go ------------------------------------------------------------------------------

    def drop(self, address: str, why: str) -> None:
        """Have the scheduler forget a worker, and its nanny (if it has one) start another.

        Dask then runs elsewhere what it had to do, and makes again what only it held.
        """
        _log.warning("the worker %s is dropped: %s", address, why)
        self.threads.pop(address, None)
        self._heard.pop(address, None)

        def restart() -> Any:
            return self.client.sync(
                self.client.scheduler.restart_workers,
                workers=[address],
                timeout=self.limits.silence / 2,
                wait_for_workers=False,
                on_error="return",
                stimulus_id=f"emcube-drop-{time.time()}",
            )

        # A nanny may need long to end what hangs: nobody has to wait for that.
        ending = threading.Thread(target=self._try, args=(restart,), daemon=True)
        self._dropping[address] = ending
        ending.start()

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except (OSError, RuntimeError, AttributeError) as error:
            _log.debug(
                "a worker was not dropped: %s", error
            )  # if it is still there, it is looked at again

    def _retry(self, keys: list[str]) -> None:
        def retry() -> Any:
            # Not client.retry(): that knows only futures which it still holds.
            return self.client.sync(self.client.scheduler.retry, keys=keys)

        self.ask(retry)

    def take_up(self, keys: Iterable[str]) -> bool:
        """Have the scheduler take up tasks that it has left lying; tells whether any task is on its way.

        Dask gives a task that prefers a dead worker to any other one, but only while there is another: what
        comes up when there is none waits for that very worker, for ever.
        """
        if not self.threads:
            return True
        wanted = list(keys)
        states = self.ask(
            lambda: self.client.sync(self.client.scheduler.get_task_status, keys=wanted)
        )
        lying = [key for key, state in states.items() if state == "no-worker"]
        if lying:
            _log.info("%d tasks waited for workers that are gone: taken up again", len(lying))
            self._retry(lying)
        return bool({"no-worker", "processing", "queued"} & set(states.values()))

    def expendable(self, address: str) -> bool:
        """Whether the run can go on after a worker is dropped."""
        return bool(self._nannies.get(address)) or bool(self.threads.keys() - {address})

    def drop_cut_off(self) -> list[str]:
        """Drop workers that others cannot reach; returns them. Their hosts get no more work."""
        asked = sorted(a for a in self.threads if "://" in a and not a.startswith("inproc"))
        asked = asked[:: max(1, -(-len(asked) // MESH))]
        if len(asked) < 2:
            return []

        def probe() -> Any:
            return self.client.run(
                _not_reached, asked, CONNECT_SECONDS, workers=asked, on_error="ignore"
            )

        try:
            found = bounded(probe, 4 * CONNECT_SECONDS)
        except (TimeoutError, OSError):
            return []  # one of them hangs: its silence will show
        out = outvoted((worker, peer) for worker, peers in found.items() for peer in peers)
        left = {_host(a) for a in self.threads.keys() - set(out)}
        for address in out:
            if _host(address) not in left:
                self.cut_off.add(_host(address))
            self.drop(address, "other workers cannot reach it (the network is split)")
        return out


def _host(address: str) -> str:
    from distributed.comm.addressing import get_address_host

    return str(get_address_host(address))
