"""Where a process runs its fits when its code says nothing: ``EMCUBE_DEPLOY``, or the command line."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from emcube.deploy.deployment import Deployment, in_force
from emcube.errors import EngineError

__all__ = ["chosen", "client_for", "wish"]

VARIABLE = "EMCUBE_DEPLOY"

_lock = threading.RLock()
_started: tuple[int, str, Deployment] | None = None
_chosen: list[str] = []


def wish() -> str:
    """What was asked for: by `chosen`, or by ``EMCUBE_DEPLOY``; empty if nothing was."""
    return _chosen[-1] if _chosen else os.environ.get(VARIABLE, "").strip()


@contextmanager
def chosen(where: str | None) -> Iterator[None]:
    """Run fits inside this context where the text says, in place of ``EMCUBE_DEPLOY``.

    It is checked now, started when the first heavy work asks for it, and closed at the end. None
    changes nothing.

    Raises
    ------
    InputError
        There is no such place to work.
    """
    from emcube.deploy.kinds import resolve

    if where is None:
        if wish():
            resolve(wish())
        yield
        return
    resolve(where)
    _chosen.append(where)
    try:
        yield
    finally:
        _chosen.pop()
        _end()


def client_for(active: Any) -> Any:
    """The client whose workers run what comes next, or None for threads of this process.

    Parameters
    ----------
    active : distributed.Client or None
        The client that is active, if there is one.

    Raises
    ------
    EngineError
        The place that was asked for is lost or does not start: work never lands elsewhere in silence.

    Notes
    -----
    In order: a deployment that the code started, unless a client was activated inside it; an active
    client; what the environment asks for, started at the first call and closed when the process ends.
    """
    deployment = in_force()
    if deployment is None and active is None and wish():
        deployment = _from_wish(wish())
    elif _started is not None and deployment is _started[2] and wish():
        fresh = _from_wish(wish())
        if fresh is not deployment:  # another place is asked for by now
            deployment, active = fresh, None
    if deployment is None:
        return _usable(active)
    if deployment.client is None:
        return None if active is deployment.outer else _usable(active)
    if active is None or active is deployment.client:
        deployment.require_alive()
        return _usable(deployment.client)
    return _usable(active)


def _usable(client: Any) -> Any:
    """The client, once its scheduler is there and its workers are known to run what this process runs."""
    if client is None:
        return None
    if client.status != "running":
        raise EngineError(
            f"the active Dask client has lost its scheduler ({client.scheduler.address})",
            hint="start a scheduler with workers, or close the client to run on threads",
        )
    from emcube.deploy.versions import compare_versions

    compare_versions(client)
    return client


def _from_wish(where: str) -> Deployment:
    """The deployment that the environment asks for; one in a process."""
    global _started
    with _lock:
        if _started is None or _started[:2] != (os.getpid(), where) or _started[2].closed:
            from emcube.deploy.kinds import start

            _end()
            _started = (os.getpid(), where, start(where))
        return _started[2]


def _end() -> None:
    """Close what was started for the environment by this process."""
    global _started
    with _lock:
        started, _started = _started, None
        if started is not None and started[0] == os.getpid():
            started[2].close()
