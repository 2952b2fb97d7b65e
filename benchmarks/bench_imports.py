"""What it costs to start."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def _seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - start


def _median(*command: str, times: int = 5) -> float:
    return round(statistics.median(_seconds(*command) for _ in range(times)), 3)


def bench_import() -> dict[str, float]:
    _seconds("-c", "import xarray, emcube")  # fill the disk cache
    return {
        "python_s": _median("-c", "pass"),
        "emcube_s": _median("-c", "import emcube"),
        "xarray_s": _median("-c", "import xarray"),
        "xarray_and_emcube_s": _median("-c", "import xarray, emcube"),
    }


def bench_help() -> dict[str, float]:
    return {"help_s": _median("-m", "emcube", "--help")}
