"""One script, unchanged, four ways: threads, local processes, workers in a Slurm job, inside a job."""

from __future__ import annotations

import logging
import signal
import subprocess
from pathlib import Path

import pytest

import emcube as em
from emcube.errors import EngineError
from tests.slurm.helpers import START, command, run, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]

WORKERS = "slurm nodes=2 time=10 memory=2GiB cpus_per_node=1"

# No word of where it runs, and no ``if __name__ == "__main__"``.
SCRIPT = """\
import hashlib

import emcube as em

cube = em.open("srm2135c.zarr")
pca = em.IncrementalPCA(n_components=4).fit(cube)
nmf = em.MiniBatchNMF(n_components=3, random_state=0).fit(cube)
bits = pca.components_.values.tobytes() + nmf.components_.values.tobytes()
print(hashlib.sha256(bits).hexdigest())
"""


@pytest.fixture(scope="module")
def bits(demo: Path) -> str:
    """What the script prints on threads of this machine."""
    (demo / "analysis.py").write_text(SCRIPT)
    done = run(demo, "analysis.py")
    assert done.status == 0, done.err
    return done.out


def test_local_processes(demo: Path, bits: str) -> None:
    done = run(demo, "analysis.py", EMCUBE_DEPLOY="local workers=2")
    assert done.status == 0, done.err
    assert done.out == bits


def test_workers_in_a_job_of_their_own(demo: Path, bits: str) -> None:
    wait_until(lambda: not _queue(), "the queue is empty")
    done = run(demo, "analysis.py", EMCUBE_DEPLOY=WORKERS)
    assert done.status == 0, done.err
    assert done.out == bits
    # Nothing stays: no job, no key, no folder.
    wait_until(lambda: not _queue(), "the job ends with the script")
    assert not list(demo.glob(".emcube-slurm-*"))


def test_workers_inside_the_allocation(demo: Path, bits: str, tmp_path: Path) -> None:
    job = tmp_path / "job.sh"
    log = tmp_path / "job.log"
    python = f"{_python()} analysis.py"
    job.write_text(
        "#!/bin/bash\n#SBATCH --nodes=2 --ntasks-per-node=1 --cpus-per-task=1 --mem=2G --time=10\n"
        f"#SBATCH --output={log}\n"
        # Slurm's own copy of the script is elsewhere: the job starts where it was submitted.
        f"export EMCUBE_DEPLOY=auto PYTHONPATH={Path(em.__file__).parents[1]}\n{python}\n"
    )
    subprocess.run(["sbatch", "--wait", str(job)], check=True, cwd=demo, timeout=280)
    assert log.read_text() == bits
    assert not list(demo.glob(".emcube-slurm-*"))


def test_a_killed_script_leaves_no_job(tmp_path: Path) -> None:
    (tmp_path / "sleeps.py").write_text(
        "import time\nimport emcube as em\n"
        f"place = em.deploy({WORKERS!r}, nodes=1)\n"
        "print(place.about['job'], place.client.scheduler.address, flush=True)\ntime.sleep(600)\n"
    )
    process = command(tmp_path, "sleeps.py")
    assert process.stdout is not None
    number, address = process.stdout.readline().split()
    assert address.startswith("tls://")
    assert not _ended(int(number))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    wait_until(lambda: _ended(int(number)), "the job is cancelled")


def test_what_the_queue_says_is_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(
            EngineError, match=r"reason JobHeldUser has not started within 2 s"
        ) as caught,
    ):
        em.deploy("slurm", time="10", sbatch=["--hold"], queue_timeout=2)
    number = int(str(caught.value).split()[1].rstrip(":"))
    assert f"job {number}: pending, reason JobHeldUser" in caplog.text
    assert _ended(number)
    assert not list(tmp_path.iterdir())


def test_a_job_that_dies_at_once_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match=r"before its workers were of use.*no such module here"):
        em.deploy("slurm", time="10", setup=["echo no such module here", "exit 3"])


def test_starting_again_changes_nothing() -> None:
    if (
        "emcube-slurm"
        not in subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, check=True
        ).stdout
    ):
        return  # a cluster that somebody else runs is not started by the script
    before = subprocess.run(["sinfo"], capture_output=True, text=True, check=True).stdout
    started = subprocess.run([START], capture_output=True, text=True, check=True, timeout=100)
    assert started.stdout.startswith("export SLURM_CONF=")
    assert subprocess.run(["sinfo"], capture_output=True, text=True, check=True).stdout == before


def _queue() -> str:
    """Jobs that wait or run; what the waiting is told of one depends on how soon it starts."""
    return subprocess.run(
        ["squeue", "--noheader", "--format=%i %T"], check=True, capture_output=True, text=True
    ).stdout.strip()


def _ended(number: int) -> bool:
    from emcube.deploy.slurm import Queue

    job = Queue().job(number)
    return job is None or job.ended


def _python() -> str:
    import shlex
    import sys

    return shlex.quote(sys.executable)
