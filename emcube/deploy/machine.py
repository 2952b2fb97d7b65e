"""What this process may use of the machine: cores and memory, as far as limits let it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cores", "memory_limit"]

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def cores() -> int:
    """Cores that this process may use.

    The least of: its affinity (taskset, Slurm's binding), the quota of its control group (containers),
    and what Slurm gave to the task or to the job on this host.
    """
    try:
        found = [len(os.sched_getaffinity(0))]
    except AttributeError:  # macOS, Windows
        found = [os.cpu_count() or 1]
    found += [max(1, math.ceil(quota)) for quota in _quotas()]
    slurm = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE") or ""
    if slurm.isdigit() and int(slurm) > 0:
        found.append(int(slurm))
    return min(found)


def memory_limit() -> int:
    """Bytes of memory that this process may use: of the machine, its control group, and Slurm's job."""
    import psutil

    found = [int(psutil.virtual_memory().total), *_memory_limits()]
    slurm = os.environ.get("SLURM_MEM_PER_NODE", "")
    if slurm.isdigit() and int(slurm) > 0:  # MiB; 0 means all of the host
        found.append(int(slurm) * 2**20)
    return min(found)


def _quotas() -> Iterator[float]:
    for folder in _folders("cpu"):
        words = _words(folder / "cpu.max")
        if len(words) == 2 and words[0] != "max":
            yield int(words[0]) / int(words[1])
        quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
        if quota and period and int(quota[0]) > 0:
            yield int(quota[0]) / int(period[0])


def _memory_limits() -> Iterator[int]:
    for folder in _folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            words = _words(folder / name)
            if words and words[0] != "max":
                yield int(words[0])


def _folders(controller: str) -> Iterator[Path]:
    """Folders of this process's control group and of those around it, version 2 and version 1."""
    for line in _lines(_OWN_CGROUP):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            root = _CGROUPS
        elif controller in controllers.split(","):
            root = _CGROUPS / controllers
        else:
            continue
        own = root / path.strip("/")
        for folder in (own, *own.parents):
            yield folder
            if folder == root:
                break


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # other systems, or no rights: then there is no limit to know of
        return []


def _words(file: Path) -> list[str]:
    lines = _lines(file)
    return lines[0].split() if lines else []
