"""The scheduler and the workers, as commands: ``python -m emcube.deploy.process scheduler|worker``.

They are started afresh, so that nothing ever imports the user's script again. With
``--watch-parent`` they end when the process that started them is gone, however it went.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["main", "worker_environment"]

GRACE = 8.0
"""Seconds for an orderly end before processes are killed."""

ONE_THREAD = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Environment variables that keep array libraries to one thread: sums keep their bits."""

DROPPED = ("EMCUBE_DEPLOY",)
"""Not for workers: a worker must not start workers of its own."""


def worker_environment() -> dict[str, str]:
    """Variables that every worker needs, set before it starts (libraries read them once)."""
    return dict.fromkeys(ONE_THREAD, "1") | {"EMCUBE_THREADS": "1"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a scheduler or workers until told to stop, or until the parent is gone."""
    options = _parser().parse_args(arguments)
    for name in DROPPED:
        os.environ.pop(name, None)
    os.environ.update(worker_environment())
    role = {"scheduler": _scheduler, "worker": _workers}[options.role]
    gone = threading.Event()
    try:
        asyncio.run(_serve(options, role, gone))
    finally:
        if gone.is_set():
            _remove(options.remove)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m emcube.deploy.process", description=__doc__)
    parser.add_argument("role", choices=("scheduler", "worker"))
    parser.add_argument("--scheduler-file", type=Path, required=True)
    parser.add_argument("--host", help="address or interface name to listen on; default: loopback")
    parser.add_argument("--credentials", type=Path, help="folder of credentials: use TLS")
    parser.add_argument("--watch-parent", action="store_true", help="end when the parent is gone")
    parser.add_argument("--remove", type=Path, help="folder to remove when the parent is gone")
    one = parser.add_argument_group("scheduler")
    one.add_argument("--port", type=int, default=0, help="default: any that is free")
    one.add_argument("--dashboard", help="host:port of Dask's dashboard; default: none")
    one.add_argument("--idle-timeout", type=float, help="end after so many seconds without work")
    many = parser.add_argument_group("worker")
    many.add_argument("--workers", type=int, default=1, help="worker processes")
    many.add_argument("--threads", type=int, default=1, help="threads of each")
    many.add_argument("--memory", type=int, help="bytes of memory of each")
    many.add_argument("--scratch", help="folder for files of the workers")
    many.add_argument("--name", help="name of the worker, or start of the names")
    many.add_argument(
        "--death-timeout",
        type=float,
        default=60.0,
        help="end after so many seconds without a scheduler",
    )
    return parser


# ------------------------------------------------------------------------------------ the servers


def _common(options: argparse.Namespace) -> dict[str, Any]:
    """Where to listen, and under which credentials."""
    from distributed import Security

    host = options.host or "127.0.0.1"
    # An interface's name has neither dots nor colons; an address or a host name nearly always has.
    where: dict[str, Any] = {"interface": host} if _is_interface(host) else {"host": host}
    if options.credentials is None:
        return {**where, "protocol": "tcp", "security": Security(require_encryption=False)}
    from emcube.deploy.tls import security_of

    return {**where, "protocol": "tls", "security": security_of(options.credentials)}


def _is_interface(name: str) -> bool:
    import psutil

    return name in psutil.net_if_addrs()


async def _scheduler(options: argparse.Namespace) -> list[Any]:
    from distributed import Scheduler

    # The scheduler file says where to knock: nobody else need know.
    os.umask(0o077)
    return [
        Scheduler(
            **_common(options),
            port=options.port,
            scheduler_file=str(options.scheduler_file),
            dashboard=bool(options.dashboard),
            # Without a dashboard there is still a server of state in HTTP: for this host alone.
            dashboard_address=options.dashboard or "127.0.0.1:0",
            idle_timeout=options.idle_timeout,
        )
    ]


async def _workers(options: argparse.Namespace) -> list[Any]:
    from distributed import Nanny

    await _file_is_there(options.scheduler_file, options.death_timeout)
    name = options.name

    def worker(i: int) -> Any:
        return Nanny(
            **_common(options),
            scheduler_file=str(options.scheduler_file),
            nthreads=options.threads,
            memory_limit=options.memory or "auto",
            local_directory=options.scratch,
            name=i if name is None else (name if options.workers == 1 else f"{name}-{i}"),
            death_timeout=options.death_timeout,
            dashboard=False,
            dashboard_address="127.0.0.1:0",
        )

    return [worker(i) for i in range(options.workers)]


async def _file_is_there(file: Path, patience: float) -> None:
    """Wait for the scheduler's file without keeping the loop from noticing the end."""
    until = time.monotonic() + patience
    while not file.exists():
        if time.monotonic() > until:
            raise SystemExit(f"no scheduler file {str(file)!r} after {patience:g} s")
        await asyncio.sleep(0.1)


async def _serve(
    options: argparse.Namespace, role: Callable[..., Any], gone: threading.Event
) -> None:
    stop = asyncio.Event()
    if options.watch_parent:
        _watch_parent(gone, asyncio.get_running_loop(), stop, options.remove)
    _stop_on_signals(stop)
    servers: list[Any] = []

    async def serve() -> None:
        servers.extend(await role(options))
        await asyncio.gather(*servers)
        await asyncio.gather(*(server.finished() for server in servers))

    serving = asyncio.create_task(serve())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if serving.done():
            serving.result()
    finally:
        stopping.cancel()
        serving.cancel()
        await asyncio.gather(*(_close(server) for server in servers))


async def _close(server: Any) -> None:
    """Close in order; what does not close in time is killed with this process."""
    try:
        await asyncio.wait_for(server.close(), GRACE / 2)
    except (TimeoutError, OSError):
        _kill_children()


def _stop_on_signals(stop: asyncio.Event) -> None:
    import signal

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows: the parent closes the pipe instead
            return


# ------------------------------------------------------------------------- the parent, and the end


def _watch_parent(
    gone: threading.Event, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, folder: Path | None
) -> None:
    """End when standard input closes or the parent changes: both happen when the parent is killed."""

    def watch_pipe() -> None:
        # A pipe that nothing is written to: reading returns when its other end has closed. Not through
        # sys.stdin, whose lock this thread would hold when the interpreter ends: Python aborts then.
        while os.read(0, 1024):
            pass
        gone.set()

    def watch_parent() -> None:
        # A fork of the parent keeps the pipe open, but does not become the parent.
        parent = os.getppid()
        while not gone.wait(1.0):
            if os.getppid() != parent:
                gone.set()

    def end() -> None:
        gone.wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(stop.set)
        time.sleep(GRACE)
        _kill_children()
        _remove(folder)
        os._exit(1)

    for work in (watch_pipe, watch_parent, end):
        threading.Thread(target=work, name=f"emcube {work.__name__}", daemon=True).start()


def _kill_children() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
