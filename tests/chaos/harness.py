"""A scheduler and workers as processes that may be killed, stopped and replaced."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distributed import Client

ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
    """Wait for a condition and return what it gave."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs (a stopped one does)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Zygote:
    """The process that starts the others."""

    def __init__(self) -> None:
        env = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONFAULTHANDLER="1")
        env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        env.pop("EMCUBE_LIMITS", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.zygote"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def start(self, **spec: Any) -> int:
        """Start a process; returns its id."""
        with self._lock:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps(spec) + "\n")
            self.process.stdin.flush()
            return int(self.process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


class Cluster:
    """A scheduler with workers on one host.

    Parameters
    ----------
    zygote : Zygote
    folder : Path
        For logs and scratch files.
    host : str
        Address that all listen on.
    memory : str
        Memory limit of a worker; "0" for none.
    config : dict
        Dask settings of scheduler and workers.
    """

    def __init__(
        self,
        zygote: Zygote,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        memory: str = "0",
        nanny: bool = False,
        **config: Any,
    ) -> None:
        self.zygote, self.folder, self.host = zygote, folder, host
        self.memory, self.nanny, self.config = memory, nanny, config
        self.workers: list[int] = []
        self.started = 0
        self._file = folder / "scheduler.json"
        self._keeping = threading.Event()
        self._keeper: threading.Thread | None = None
        self.scheduler = zygote.start(
            kind="scheduler",
            file=str(self._file),
            host=host,
            log=str(folder / "scheduler.log"),
            config=config,
        )
        self.address = until(self._address, what="the scheduler's file")

    def _address(self) -> str | None:
        try:
            return str(json.loads(self._file.read_text())["address"])
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def add(self, n: int = 1, *, threads: int = 1, **others: Any) -> list[int]:
        """Start workers."""
        new = []
        for _ in range(n):
            name = f"w{self.started}"
            self.started += 1
            spec = {
                "kind": "worker",
                "name": name,
                "scheduler": self.address,
                "threads": threads,
                "host": self.host,
                "memory": self.memory,
                "nanny": self.nanny,
                "folder": str(self.folder / "scratch"),
                "log": str(self.folder / f"{name}.log"),
                "config": self.config,
            }
            new.append(self.zygote.start(**(spec | others)))
        self.workers += new
        return new

    def keep(self, n: int) -> None:
        """From now on start another worker for each that ends, as a batch system would."""

        def work() -> None:
            while not self._keeping.is_set():
                self.workers = [pid for pid in self.workers if alive(pid)]
                self.add(n - len(self.workers))
                time.sleep(0.05)

        self._keeper = threading.Thread(target=work, daemon=True)
        self._keeper.start()

    def close(self) -> None:
        """Kill everything."""
        self._keeping.set()
        if self._keeper is not None:
            self._keeper.join()
        for pid in [*self.workers, self.scheduler]:
            kill(pid)
        until(lambda: not any(map(alive, [*self.workers, self.scheduler])), what="processes end")

    @contextlib.contextmanager
    def client(self, n: int | None = None) -> Iterator[Client]:
        """A client that is not the default one, once `n` workers are there."""
        with Client(self.address, set_as_default=False, timeout=60) as client:
            if n is not None:
                client.wait_for_workers(n, timeout=120)
            yield client

    def logs(self) -> str:
        """What all wrote."""
        return "\n".join(f"== {p.name}\n{p.read_text()}" for p in sorted(self.folder.glob("*.log")))
