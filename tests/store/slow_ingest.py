"""A slow ingest of 24 regions in six groups: a program that tests kill, and the same within a test."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import dask.array as da
import numpy as np

import emcube as em
from emcube.store import events, layout, regions, write

PROGRAM = [sys.executable, "-m", "tests.store.slow_ingest"]
"""It takes a path, a pause in seconds, a layout, and the mean counts of a cell; it starts in `ROOT`."""

ROOT = Path(__file__).parents[2]


def ingest(
    path: Path | str,
    pause: float = 0.0,
    kind: str = "dense",
    *,
    seed: int = 0,
    mean: float = 0.3,
    progress: Callable[[Any], None] | None = None,
) -> None:
    """Write the cube, waiting before each of its blocks."""
    counts = np.random.default_rng(seed).poisson(mean, (24, 4, 32, 512)).astype("u1")

    def slow(block: Any) -> Any:
        time.sleep(pause)
        return block

    lazy = da.from_array(counts, chunks=(1, 4, 32, 512)).map_blocks(slow, dtype="u1")
    cube = em.make_cube(lazy, dims=("tilt", "y", "x", "energy"), sig_dims=("energy",))
    small = functools.partial(layout.plan_layout, target=65536)
    with (
        mock.patch.object(write, "plan_layout", small),
        mock.patch.object(events, "plan_layout", small),
        mock.patch.object(events, "WIDTH", 5000),
        mock.patch.object(regions, "GROUP_BYTES", 4 * 65536),
    ):
        write.write_cube(cube, path, progress=progress, threads=2, layout=kind)


def finish(path: Path, kind: str = "dense", **options: Any) -> tuple[int, int]:
    """Ingest to the end, here; regions that this wrote, and those of earlier ingests."""
    seen: list[Any] = []
    ingest(path, kind=kind, progress=seen.append, **options)
    assert seen[-1].regions_done == seen[-1].n_regions == 24
    return len(seen), seen[-1].resumed


def start(path: Path, pause: float, kind: str = "dense", **options: Any) -> subprocess.Popen[str]:
    """Begin in a process of its own, which prints a line for every region."""
    return subprocess.Popen(
        [*PROGRAM, str(path), str(pause), kind, "0.3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,
    )


def show(p: Any) -> None:
    print(p.regions_done, p.n_regions, p.resumed, flush=True)


if __name__ == "__main__":
    # A shell that starts the tests in the background has SIGINT ignored by all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    place, pause, kind, mean = sys.argv[1:]
    ingest(place, float(pause), kind, mean=float(mean), progress=show)
