"""Commands as a user types them, waiting for conditions, and a result's own word about its bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START = Path(__file__).with_name("start-slurm.sh")
ROOT = Path(__file__).parents[2]

ALLOCATION = ("--nodes=2", "--time=10", "--memory=2GiB", "--cpus-per-node=1")
"""Two nodes with one processor each: two workers."""


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status, and what it printed where."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def command(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start a Python command in a folder, as from a shell without any setting of emcube's."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("EMCUBE_", "SLURM_JOB"))}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": os.pathsep.join(paths), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, *arguments: str, **variables: str) -> Outcome:
    """Run a Python command to its end."""
    process = command(folder, *arguments, **variables)
    out, err = process.communicate(timeout=280)
    return Outcome(process.returncode, out, err)


def wait_until(true: Callable[[], Any], what: str, timeout: float = 120) -> Any:
    """Wait for a condition; fail with its name."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if found := true():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout:g} s: {what}")


def digests(result: Path) -> dict[str, Any]:
    """What a result says of its own bits: the run, and the digest of every array."""
    root = json.loads((result / "zarr.json").read_text())["attributes"]
    assert root["emcube"]["complete"]
    found: dict[str, Any] = {"run_id": root["run_id"]}
    for node in sorted(p.parent for p in result.glob("*/zarr.json")):
        attributes = json.loads((node / "zarr.json").read_text())["attributes"]
        if "emcube" in attributes and "digests" in attributes["emcube"]:
            found[node.name] = attributes["emcube"]["digests"]
    return found
