"""Jobs of batch systems: the scripts that dask-jobqueue writes, and one that really runs them."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

import emcube as em
from emcube.deploy.jobqueue import JobqueueOptions, make_cluster
from emcube.deploy.kinds import resolve
from emcube.deploy.options import parse_options
from emcube.engine.executor import DistributedExecutor, current_executor
from emcube.errors import EngineError, InputError
from tests.deploy.conftest import wait_until

pytest.importorskip("dask_jobqueue")

COMMON: dict[str, Any] = {
    "cores": 8,
    "memory": "16 GiB",
    "threads": 2,
    "queue": "normal",
    "account": "em-lab",
    "prologue": ["module load python"],
}

# Batch system -> time limit as it writes it, a directive of its own, and what its header must hold.
HEADERS = {
    "slurm": (
        "01:30:00",
        "--exclusive",
        """\
#SBATCH -p normal
#SBATCH -A em-lab
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH -t 01:30:00
#SBATCH --exclusive""",
    ),
    "pbs": (
        "01:30:00",
        "-m n",
        """\
#PBS -q normal
#PBS -A em-lab
#PBS -l select=1:ncpus=8:mem=16GB
#PBS -l walltime=01:30:00
#PBS -m n""",
    ),
    "lsf": (
        "01:30",
        "-x",
        """\
#BSUB -q normal
#BSUB -P "em-lab"
#BSUB -n 8
#BSUB -R "span[hosts=1]"
#BSUB -W 01:30
#BSUB -x""",
    ),
}


@pytest.mark.parametrize("system", HEADERS)
def test_job_scripts(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walltime, directive, header = HEADERS[system]
    profile = tmp_path / "deploy.toml"
    lines = {"shared": str(tmp_path / "shared"), "walltime": walltime, "directives": [directive]}
    profile.write_text(
        f'[cluster]\nkind = "jobqueue"\ncluster = "{system}"\n'
        + "".join(f"{k} = {v!r}\n" for k, v in {**COMMON, **lines}.items())
    )
    monkeypatch.setenv("EMCUBE_PROFILES", str(profile))
    before = listeners()
    with ExitStack() as stack:
        cluster = make_cluster(resolve("cluster").options, stack)
        script = cluster.job_script()
        address = cluster.scheduler_address
        (credentials,) = (tmp_path / "shared").glob("run-*/tls")
        assert stat.S_IMODE(credentials.stat().st_mode) == 0o700
        assert stat.S_IMODE(credentials.parent.stat().st_mode) == 0o700
        key = (credentials / "key.pem").read_text()
        own = int(address.rsplit(":", 1)[1])
        beside = {ip for ip, port in listeners() - before if port != own}
    for line in header.splitlines():
        assert line in script.splitlines(), script
    assert address.startswith("tls://")
    command = next(line for line in script.splitlines() if "dask_worker" in line)
    for part in (
        address,
        "--nthreads 2",
        "--nworkers 4",
        "--memory-limit 4.00GiB",
        "--protocol tls://",
        f"--tls-ca-file {credentials}/ca.pem",
        f"--tls-key {credentials}/key.pem",
        "--no-dashboard --dashboard-address 127.0.0.1:0",
        "--local-directory ${TMPDIR:-/tmp}",
    ):
        assert part in command, part
    for line in ("module load python", "unset EMCUBE_DEPLOY", "export OPENBLAS_NUM_THREADS=1"):
        assert script.index(line) < script.index(command)
    assert not any(line in script for line in key.splitlines())
    assert beside == {"127.0.0.1"}
    assert not credentials.exists()


def listeners() -> set[tuple[str, int]]:
    """Addresses and ports that this process listens on."""
    return {
        (c.laddr.ip, c.laddr.port)
        for c in psutil.net_connections(kind="inet")
        if c.status == psutil.CONN_LISTEN and c.pid == os.getpid()
    }


def test_what_a_system_lacks_is_refused(tmp_path: Path) -> None:
    def options(**values: Any) -> JobqueueOptions:
        given = {"cluster": "pbs", "cores": 2, "memory": "1 GiB", "shared": tmp_path, **values}
        return parse_options(JobqueueOptions, given, "test")

    for wrong, message in (
        ({"cluster": "htcondor", "account": "x"}, "htcondor knows no account"),
        ({"more": {"no_such_argument": 1}}, "dask-jobqueue refuses: .*no_such_argument"),
        ({"shared": tmp_path / "a b"}, "characters that job scripts"),
    ):
        with ExitStack() as stack, pytest.raises(InputError, match=message):
            make_cluster(options(**wrong), stack)
    assert list(tmp_path.glob("run-*")) == []


QUEUE = {
    # A batch system in two commands: it really runs the job, at once and on this machine.
    "qsub": '#!/bin/sh\ncp "$1" "{folder}/job-$$.sh"\n'
    'setsid bash "{folder}/job-$$.sh" >>"{folder}/job.log" 2>&1 </dev/null &\necho "$!.here"\n',
    "qdel": '#!/bin/sh\nkill -TERM -- "-${{1%.here}}" 2>/dev/null || true\n',
}


def test_a_job_runs_and_ends_with_the_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in QUEUE.items():
        file = tmp_path / name
        file.write_text(text.format(folder=tmp_path))
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("EMCUBE_DEPLOY", "nowhere: workers must not see it")
    with em.deploy(
        "jobqueue",
        cluster="pbs",
        cores=2,
        memory="1 GiB",
        minimum=1,
        maximum=2,
        interface="lo",
        shared=tmp_path / "shared",
        timeout=120,
    ) as deployment:
        executor = current_executor()
        assert isinstance(executor, DistributedExecutor)
        assert str(deployment.address).startswith("tls://127.0.0.1:")
        wait_until(lambda: len(deployment.client.scheduler_info()["workers"]) >= 2, "workers")
        jobs = [p for p in psutil.process_iter() if _runs(p, str(deployment.address))]
        assert jobs
        jobs += [child for job in jobs for child in job.children(recursive=True)]
    _, left = psutil.wait_procs(jobs, timeout=60)
    assert left == [], (tmp_path / "job.log").read_text()
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_batch_system_that_takes_no_job_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"cluster": "pbs", "cores": 1, "memory": "1 GiB", "shared": tmp_path / "shared"}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="there is no command 'qsub' on this machine"):
        em.deploy("jobqueue", **wanted)
    qsub = tmp_path / "qsub"
    qsub.write_text("#!/bin/sh\necho 'no such queue' >&2\nexit 1\n")
    qsub.chmod(0o755)
    with pytest.raises(EngineError, match="pbs took none of 1 jobs"):
        em.deploy("jobqueue", **wanted)
    assert list((tmp_path / "shared").iterdir()) == []


def _runs(process: psutil.Process, address: str) -> bool:
    try:
        return address in process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
