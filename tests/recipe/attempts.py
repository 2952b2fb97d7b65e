"""Runs a recipe in child processes that are killed at chosen events; a program, started by tests.

Imports are made once: every try is a fork. Blocks are made small, so that small cubes have many.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emcube as em
import emcube.models
from emcube.cli import main
from emcube.engine import listen, plan_blocks
from emcube.engine.progress import Event

Watch = Callable[[Event], None]


def run(recipe: dict[str, Any], out: Path, watch: Watch) -> None:
    """Run in this process; progress goes to `watch`."""
    with listen(watch):
        em.run(recipe, out=out)


def count_events(recipe: dict[str, Any], out: Path) -> list[str]:
    """What happens in a run, one line an event."""
    seen: list[str] = []
    run(recipe, out, lambda e: seen.append(f"{e.kind} {e.name} {e.round} {e.blocks_done}"))
    return seen


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
    """Statuses of the tries of one result."""
    return [forked(lambda p=point: attempt(job, p)) for point in job["points"]]  # type: ignore[misc]


if __name__ == "__main__":
    defaults = plan_blocks.__kwdefaults__
    assert defaults is not None
    defaults["target_bytes"] = 7_000
    jobs = json.loads(sys.stdin.read())
    if jobs["do"] == "events":
        print(json.dumps(count_events(jobs["recipe"], Path(jobs["out"]))))
    else:
        print(json.dumps([work_through(job) for job in jobs["jobs"]]))
