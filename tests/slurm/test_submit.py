"""`emcube submit` on a real Slurm: the same bits as here, what a person sees, and what goes wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from emcube.deploy.slurm import Job, Queue
from tests.slurm.helpers import ALLOCATION, Outcome, command, digests, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]

Emcube = Callable[..., Outcome]


def test_demo_recipe_has_the_laptops_bits(
    demo: Path, laptop: Path, tmp_path: Path, emcube: Emcube
) -> None:
    # Blanks and percent signs mean something to shells and to Slurm.
    out = tmp_path / "by slurm 100%"
    done = emcube(
        demo,
        *("submit", "recipe.yaml", *ALLOCATION, "--out", str(out)),
        *("--job-name=demo 1", "--sbatch=--comment=emcube", "--follow", "--json"),
    )
    assert done.status == 0, done.err
    said = done.json
    assert said["state"] == "COMPLETED"
    assert said["run_id"] == digests(laptop)["run_id"]
    assert digests(out) == digests(laptop)
    assert f"job {said['job']}: running, on " in done.err

    logs = Path(said["logs"])
    assert logs == tmp_path / "by slurm 100%.logs"
    assert "ended with status 0" in Path(said["log"]).read_text()
    workers = list(logs.glob(f"workers-{said['job']}-*.log"))
    assert len(workers) == 2
    assert all("--workers=1 --threads=1" in w.read_text() for w in workers)
    # Encrypted, with a key that is gone.
    scheduler = (logs / f"scheduler-{said['job']}.log").read_text()
    assert re.search(r"Scheduler at: +tls://", scheduler)
    assert not list(logs.glob(".run-*"))
    assert json.loads(Path(said["progress"]).read_text())["kind"] == "end"

    again = emcube(demo, "submit", "recipe.yaml", *ALLOCATION, "--out", str(out))
    assert again.status == 0
    assert "holds this run already, complete: nothing to submit" in again.out


def test_another_runs_result_is_refused(demo: Path, laptop: Path, emcube: Emcube) -> None:
    other = demo / "other.yaml"
    other.write_text((demo / "recipe.yaml").read_text().replace("components: 20", "components: 9"))
    done = emcube(demo, "submit", "other.yaml", *ALLOCATION, "--out", str(laptop))
    assert done.status == 2
    assert "holds the result of another run" in done.err
    assert "--overwrite" in done.err
    assert not laptop.with_name("laptop.logs").exists()


def test_a_stopped_run_is_queued_again_and_goes_on(
    demo: Path, laptop: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    following = command(
        demo,
        *("-m", "emcube", "submit", "recipe.yaml", "--nodes=1", "--time=10", "--memory=2GiB"),
        *("--cpus-per-node=1", "--out", str(out), "--requeues=1", "--follow", "--json"),
    )
    record = out.with_name("out.logs") / "submission.json"
    try:
        wait_until(record.exists, "the job is submitted")
        job = json.loads(record.read_text())["job"]
        wait_until((record.parent / "progress.json").exists, "the run begins")
        # What Slurm does before the time limit (--signal=B:USR1@...).
        subprocess.run(["scancel", "--signal=USR1", "--batch", str(job)], check=True)
        wait_until(lambda: "PENDING" in _state(job), "the job is in the queue again")
        # Slurm would wait two minutes.
        subprocess.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], check=True)
        printed, told = following.communicate(timeout=240)
    finally:
        following.kill()
    assert following.returncode == 0, told
    end = json.loads(printed)
    assert end["state"] == "COMPLETED"
    assert end["restarts"] == 1
    log = Path(end["log"]).read_text()
    assert "signal USR1: the run is asked to write a checkpoint" in log
    # The run's own word, not a process that died of the signal.
    assert "stopped by SIGUSR1" in log
    assert "queued again (1 of at most 1 times)" in log
    assert "start 2 on 1 node(s)" in log
    assert digests(out) == digests(laptop)


def test_a_cancelled_run_stays_cancelled(demo: Path, tmp_path: Path, emcube: Emcube) -> None:
    out = tmp_path / "out"
    done = emcube(
        demo,
        *("submit", "recipe.yaml", "--nodes=1", "--time=10", "--memory=2GiB", "--cpus-per-node=1"),
        *("--out", str(out), "--json"),
    )
    assert done.status == 0, done.err
    said = done.json
    wait_until(Path(said["progress"]).exists, "the run begins")
    subprocess.run(["scancel", str(said["job"])], check=True)
    job = wait_until(lambda: _ended(said["job"]), "the job ends")
    assert job.state == "CANCELLED"
    assert job.restarts == 0
    assert "queued again" not in Path(said["log"]).read_text()


def test_a_failed_job_shows_the_end_of_its_log(demo: Path, tmp_path: Path, emcube: Emcube) -> None:
    recipe = demo / "empty.yaml"
    # Known only when the counts are read.
    recipe.write_text(
        "emcube: 1\ninput: {path: srm2135c.zarr}\nwhere: {min_smoothed_counts: 1.0e+9}\n"
        "steps:\n  - pca: {n_components: 3}\n"
    )
    done = emcube(
        demo,
        *("submit", "empty.yaml", "--nodes=1", "--time=5", "--memory=2GiB", "--cpus-per-node=1"),
        *("--out", str(tmp_path / "out"), "--follow"),
    )
    assert done.status == 2
    assert "failed" in done.err
    assert "exit status 2; the end of" in done.err
    assert "no pixel reaches 1e+09 smoothed counts" in done.err
    log = next((tmp_path / "out.logs").glob("job-*.log"))
    assert str(log) in done.err


def test_ctrl_c_stops_following_and_not_the_job(demo: Path, tmp_path: Path, emcube: Emcube) -> None:
    arguments = ["submit", "recipe.yaml", *ALLOCATION, "--out", str(tmp_path / "out")]
    held = [*arguments, "--sbatch=--hold", "--follow"]
    following = command(demo, "-m", "emcube", *held)
    record = tmp_path / "out.logs" / "submission.json"
    wait_until(record.exists, "the job is submitted")
    job = json.loads(record.read_text())["job"]
    try:
        assert following.stderr is not None
        first = following.stderr.readline()
        assert f"job {job}: pending, reason JobHeldUser" in first
        following.send_signal(signal.SIGINT)
        _, told = following.communicate(timeout=60)
        assert following.returncode == 130
        assert f"cancel it with: scancel {job}" in told
        assert "PENDING" in _state(job)

        twice = emcube(demo, *arguments)
        assert twice.status == 1
        assert "has not ended; two jobs would write one result" in twice.err

        again = command(demo, "-m", "emcube", *held)
        assert again.stderr is not None
        assert f"job {job}: pending" in (line := again.stderr.readline())
        assert "submitted before, is followed" in line
    finally:
        subprocess.run(["scancel", str(job)], check=True)
    _, told = again.communicate(timeout=60)
    assert again.returncode == 1
    assert "cancelled" in told


def test_slurms_own_refusal_is_shown(demo: Path, tmp_path: Path, emcube: Emcube) -> None:
    done = emcube(
        demo,
        *("submit", "recipe.yaml", *ALLOCATION, "--partition=nowhere"),
        *("--out", str(tmp_path / "out")),
    )
    assert done.status == 1
    assert "sbatch refuses" in done.err
    assert "invalid partition specified: nowhere" in done.err
    assert list(tmp_path.iterdir()) == []


def _ended(number: int) -> Job | None:
    job = Queue().job(number)
    return job if job is not None and job.ended else None


def _state(job: int) -> str:
    asked = subprocess.run(
        ["squeue", "--noheader", f"--job={job}", "--format=%T"], capture_output=True, text=True
    )
    return asked.stdout
