"""Starts schedulers and workers as processes of their own, quickly: it has imported what they need.

Reads one JSON object a line ({"kind", "log", "config", ...}) and answers with the process id. Whoever closes
its standard input ends it; what it started goes on until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


async def scheduler(spec: dict[str, Any]) -> None:
    from distributed import Scheduler

    async with Scheduler(
        host=spec["host"], port=0, dashboard=False, scheduler_file=spec["file"]
    ) as it:
        await it.finished()


async def worker(spec: dict[str, Any]) -> None:
    from distributed import Nanny, Worker

    kind = Nanny if spec["nanny"] else Worker
    async with kind(
        spec["scheduler"],
        nthreads=spec["threads"],
        host=spec["host"],
        memory_limit=spec["memory"],
        local_directory=spec["folder"],
        name=spec["name"],
        dashboard=False,
        death_timeout=30,
    ) as it:
        await it.finished()


def enter(network: str) -> None:
    """Move this process into a network namespace; os.setns is there from Python 3.12 on only."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/var/run/netns", network).open() as file:
        if libc.setns(file.fileno(), 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), f"namespace {network} cannot be entered")


def child(spec: dict[str, Any]) -> None:
    import dask

    log = os.open(spec["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ["EMCUBE_CHAOS_WORKER"] = "1"
    if spec.get("netns"):
        enter(spec["netns"])
    dask.config.set(spec["config"])
    asyncio.run({"scheduler": scheduler, "worker": worker}[spec["kind"]](spec))


def main() -> None:
    import distributed  # noqa: F401
    import zarr  # noqa: F401

    import emcube as em
    import tests.chaos.parts  # noqa: F401

    em.MiniBatchNMF, em.IncrementalPCA, em.KMeans  # noqa: B018  imported here, once
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(json.loads(line))
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
