"""The measured side of a benchmark: what every measuring process has in common.

A process gets one job as JSON, loads what the method starts from, warms up, says that it begins, runs the
method, and prints one line of JSON. Only the part between is timed. NumPy and the standard library alone,
because it runs in the peers' environments too.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clock import Clock, peak_bytes

BEGIN, END = "@begin", "@end"

Answer = dict[str, Any]
"""Arrays that are judged, and plain values that are reported."""


class Job:
    """What a process is asked to measure."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.method: str = settings["method"]
        self.scene = Path(settings["scene"])  # folder, as `benchmarks.data` fills it
        self.warm = Path(settings.get("warm") or settings["scene"])  # the same, small
        self.store = "counts.zarr"  # in the scene's folder
        self.out = Path(settings["out"])  # folder for the answer
        self.k = int(settings["k"])
        self.n_clusters = int(settings["n_clusters"])
        self.threads = int(settings["threads"])
        self.repeat = int(settings["repeat"])
        self.enough = float(settings.get("enough") or math.inf)
        self.target = settings.get("target")  # objective to be reached
        self.limit = settings.get("limit")  # seconds after which the process will be stopped

    def at(self, scene: Path) -> Job:
        """The same job on another scene."""
        new = Job.__new__(Job)
        new.__dict__.update(self.__dict__, scene=scene)
        return new


class Run:
    """One timed run: its clock, and components on the way for objectives that are judged later."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._next = 0.0
        self._count = 0
        self.clock = Clock()

    def restart(self) -> None:
        """Begin here: what came before was preparation."""
        print(BEGIN, flush=True)
        self.clock = Clock()

    def snapshot(self, components: Any, scale: float = 1.0) -> None:
        """Keep components (K, E) as they are now, at most every 2 % of the time so far."""
        now = self.clock.seconds()
        if self._folder is None or now < self._next:
            return
        self._next = now * 1.02 + 0.02
        name = self._folder / f"snapshot-{self._count:04d}"
        np.savez(f"{name}.part.npz", components=np.asarray(components) * scale, seconds=now)
        Path(f"{name}.part.npz").rename(f"{name}.npz")
        self._count += 1


Method = Callable[[Job], Callable[[Run], Answer]]
"""Loads and warms up, and returns what is timed."""


def measure(
    method: Method, job: Job, between: Callable[[], float] | None = None
) -> tuple[dict[str, Any], Answer]:
    """Run a method as often as the job asks, and return what it used and its last answer.

    Parameters
    ----------
    method : callable
    job : Job
    between : callable, optional
        Seconds of a bare read pass, measured before, between and after the runs.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    timed = method(job)
    used: list[dict[str, Any]] = []
    bare: list[float] = []
    answer: Answer = {}
    while len(used) < job.repeat and sum(u["seconds"] for u in used) < job.enough:
        if between is not None:
            bare.append(between())
        del answer
        print(BEGIN, flush=True)
        run = Run(job.out if not used else None)
        answer = timed(run)
        used.append({**run.clock.read(), "laps": run.clock.laps})
        print(END, flush=True)
    if between is not None:
        bare.append(between())
    return {
        "runs": [u["seconds"] for u in used],
        "cpu_runs": [u["cpu_seconds"] for u in used],
        "laps": {name: [u["laps"][name] for u in used] for name in used[0]["laps"]},
        "bare_reads": [round(b, 4) for b in bare],
        "peak_bytes": peak_bytes(),
    }, answer


def serve(
    methods: dict[str, Method],
    packages: tuple[str, ...],
    between: Callable[[Job], Callable[[], float]] | None = None,
) -> None:
    """Be the measuring process: the job is the command line's one argument."""
    job = Job(json.loads(sys.argv[1]))
    found, answer = measure(methods[job.method], job, between(job) if between else None)
    arrays = {name: value for name, value in answer.items() if isinstance(value, np.ndarray)}
    np.savez(job.out / "answer.npz", **arrays)
    for name, value in arrays.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise SystemExit(f"{job.method}: {name} is not finite")
    rest = {name: value for name, value in answer.items() if name not in arrays}
    print(json.dumps({**found, **rest, "versions": versions(packages)}), flush=True)


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those packages that are here."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
