"""Connect a client to a scheduler, wait for workers, and compare what both sides run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from emcube.deploy.versions import compare_versions
from emcube.errors import EngineError

__all__ = ["connect", "wait_for_workers"]


def connect(
    address: Any,
    *,
    security: Any = None,
    workers: int = 1,
    timeout: float = 120.0,
    still_there: Callable[[], None] = lambda: None,
) -> Any:
    """Make a client the active one once enough workers are there and run what this process runs.

    Parameters
    ----------
    address : str or cluster
        Of the scheduler, such as ``tcp://127.0.0.1:8786``; or one of Dask's clusters, which knows it.
    security : distributed.Security, optional
        Credentials of a ``tls://`` scheduler; a cluster brings its own.
    workers : int, optional
        Workers to wait for; 0 waits for none.
    timeout : float, optional
        Seconds for all of it.
    still_there : callable, optional
        Raises an error once what was started cannot succeed any more.

    Returns
    -------
    distributed.Client

    Raises
    ------
    EngineError
        The scheduler does not answer, the workers do not come, or versions differ.
    """
    from distributed import Client

    until = time.monotonic() + timeout
    try:
        client = Client(address, security=security, timeout=timeout)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        still_there()
        raise EngineError(
            f"no connection to the scheduler at {address} within {timeout:g} s: "
            f"{_first_line(error)}",
            hint="check the address, that the scheduler runs, and the credentials of a tls:// address",
        ) from error
    try:
        wait_for_workers(client, workers, until, still_there)
        compare_versions(client)
    except BaseException:
        client.close()
        raise
    return client


def wait_for_workers(
    client: Any, workers: int, until: float, still_there: Callable[[], None] = lambda: None
) -> None:
    """Wait until a scheduler has enough workers, `until` a time of the monotonic clock."""
    began = time.monotonic()
    while True:
        there = len(client.scheduler_info(n_workers=-1)["workers"])
        if there >= workers:
            return
        still_there()
        if time.monotonic() > until:
            raise EngineError(
                f"the scheduler at {client.scheduler.address} has {there} workers after "
                f"{time.monotonic() - began:.0f} s, {workers} expected",
                hint="look into the logs of the workers, or give it more time: timeout=...",
            )
        time.sleep(0.1)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
