"""Cores and memory that a process may use, from trees of files as kernels show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from emcube.deploy import machine


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(machine, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def put(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_no_limits(cgroup: Path) -> None:
    import psutil

    assert machine.cores() == 16
    assert machine.memory_limit() == psutil.virtual_memory().total


def test_version_2_the_tightest_of_all_levels(cgroup: Path) -> None:
    (cgroup / "own").write_text("0::/slurm/job_1\n")
    put(cgroup / "fs" / "slurm" / "job_1", cpu__max="max 100000\n", memory__max="4000000\n")
    put(cgroup / "fs" / "slurm", cpu__max="350000 100000\n", memory__max="max\n")
    assert machine.cores() == 4
    assert machine.memory_limit() == 4_000_000


def test_version_1(cgroup: Path) -> None:
    (cgroup / "own").write_text("5:memory:/box\n4:cpu,cpuacct:/box\n")
    put(cgroup / "fs" / "memory" / "box", memory__limit_in_bytes="3000000\n")
    put(cgroup / "fs" / "memory", memory__limit_in_bytes="9223372036854771712\n")
    put(
        cgroup / "fs" / "cpu,cpuacct" / "box",
        cpu__cfs_quota_us="50000\n",
        cpu__cfs_period_us="100000\n",
    )
    put(cgroup / "fs" / "cpu,cpuacct", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert machine.cores() == 1
    assert machine.memory_limit() == 3_000_000


def test_what_slurm_gave(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    assert machine.cores() == 6
    assert machine.memory_limit() == 100 * 2**20
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")
    assert machine.cores() == 2
    assert machine.memory_limit() > 100 * 2**20
