"""Runs a recipe in child processes that are killed at chosen events; a program, started by tests.

It reads a job a line and answers with a line. Imports are made once: every try is a fork. Blocks are made
small, so that small cubes have many.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import emcube as em
import emcube.models
import emcube.recipe.running
import emcube.sources
from emcube.cli import main
from emcube.engine import listen, plan_blocks, use_threads
from emcube.engine.progress import Event

# What runs import late is imported before the first fork, once for all of them.
import_module("distributed")

Watch = Callable[[Event], None]


def run(recipe: dict[str, Any], out: Path, watch: Watch) -> None:
    """Run in this process; progress goes to `watch`."""
    with listen(watch):
        em.run(recipe, out=out)


def count_events(job: dict[str, Any]) -> list[str]:
    """What happens in a run, one line an event."""
    seen = Path(job["seen"])

    def work() -> int:
        with seen.open("w") as file:
            run(
                json.loads(Path(job["recipe_file"]).read_text()),
                Path(job["out"]),
                lambda e: print(e.kind, e.name, e.round, e.blocks_done, file=file),
            )
        return 0

    # Here no run may leave threads behind, which forks would lack.
    assert forked(work) == 0
    return seen.read_text().splitlines()


def killed_at(number: int) -> Watch:
    """Kill this process at an event, as a lost machine does."""
    left = [number]

    def watch(event: Event) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


def signalled_at(number: int, name: str) -> Watch:
    """Send this process a signal at an event."""
    left = [number]

    def watch(event: Event) -> None:
        left[0] -= 1
        if left[0] == -1:
            os.kill(os.getpid(), getattr(signal, name))

    return watch


def forked(work: Callable[[], int]) -> int:
    """Exit status of a child that does some work; minus the signal that killed it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            status = work()
        except BaseException:  # noqa: BLE001 (said, and told by the status)
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def attempt(job: dict[str, Any], point: dict[str, Any]) -> int:
    """One try: killed or signalled at an event, or undisturbed."""
    for key, value in point.get("env", {}).items():
        os.environ[key] = value
    out = Path(job["out"])
    if "signal" in point:
        with listen(signalled_at(point["event"], point["signal"])):
            return main(["run", job["recipe_file"], "--out", str(out)])
    watch = killed_at(point["event"]) if "event" in point else lambda event: None
    run(json.loads(Path(job["recipe_file"]).read_text()), out, watch)
    return 0


def work_through(job: dict[str, Any]) -> list[int]:
    """Statuses of the tries of one result, up to the first that is through."""
    statuses: list[int] = []
    for point in job["points"]:
        statuses.append(forked(lambda p=point: attempt(job, p)))  # type: ignore[misc]
        if statuses[-1] == 0:
            break
    return statuses


def load_kernels() -> None:
    """Fit something small on this thread, so that not every child loads the compiled kernels again."""
    counts = np.random.default_rng(0).poisson(1.0, (60, 40)).astype(np.uint8)
    with use_threads(1):
        em.estimate_n_components(counts)
        em.IncrementalPCA(2).fit(counts)
        em.MiniBatchNMF(2, random_state=0, max_iter=3).fit(counts)
        em.KMeans(2, random_state=0).fit(counts)


def answer(job: dict[str, Any]) -> Any:
    """What a job asks for: the events of a run, or the statuses of tries."""
    if job["do"] == "events":
        return count_events(job)
    return [work_through(one) for one in job["jobs"]]


if __name__ == "__main__":
    defaults = plan_blocks.__kwdefaults__
    assert defaults is not None
    defaults["target_bytes"] = 7_000
    load_kernels()
    # What tries say must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
