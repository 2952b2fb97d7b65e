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
    """Seconds since it was made, with laps on the way."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def seconds(self) -> float:
        """Seconds on the wall so far."""
        return time.perf_counter() - self._wall

    def lap(self, name: str) -> None:
        """Note the seconds so far under a name."""
        self.laps[name] = round(self.seconds(), 3)

    def read(self) -> dict[str, float]:
        """Seconds on the wall and seconds of all cores."""
        return {
            "seconds": round(self.seconds(), 3),
            "cpu_seconds": round(time.process_time() - self._cpu, 3),
        }


def peak_bytes(pid: int | None = None) -> int:
    """Largest resident memory of this process so far, or (on Linux) of another one that runs.

    Linux hands a parent's ``ru_maxrss`` on to what it starts; its VmHWM belongs to one program alone.
    """
    status = Path(f"/proc/{pid or 'self'}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if pid is not None:
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_seconds(pid: int) -> float | None:
    """Seconds of all cores that a running process has used so far (Linux)."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    fields = stat.read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
