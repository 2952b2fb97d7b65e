"""What a process has used: seconds on the clock, seconds of its cores, and memory at its peak.

Standard library only: the peers' environments import it too.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Seconds on the wall and seconds of all cores."""
        return {
            "seconds": round(time.perf_counter() - self._wall, 2),
            "cpu_seconds": round(time.process_time() - self._cpu, 2),
        }


def peak_bytes() -> int:
    """Largest resident memory of this process so far.

    Linux hands a parent's ``ru_maxrss`` on to what it starts; its VmHWM belongs to one program alone.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine() -> dict[str, object]:
    """Where this runs."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = None
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        memory = round(int(meminfo.read_text().split()[1]) / 2**20, 1)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": model,
        "cores": cores,
        "memory_GiB": memory,
        "python": platform.python_version(),
    }


def load() -> float | None:
    """How many processes wanted to run in the last minute: more than the cores means a busy machine."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
