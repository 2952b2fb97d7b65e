"""``em.deploy("slurm")``: a scheduler in reach of this process, and workers in one Slurm allocation."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from emcube.deploy.connect import connect
from emcube.deploy.deployment import Deployment
from emcube.deploy.local import Command, command_environment, wait_for_address
from emcube.deploy.slurm.layout import host_of
from emcube.deploy.slurm.options import SlurmOptions
from emcube.deploy.slurm.queue import Job, Queue
from emcube.deploy.tls import make_credentials, security_of
from emcube.errors import EngineError, InputError

__all__ = ["slurm_deployment"]

_log = logging.getLogger(__name__)

WORKERS = "workers.sh"

_WORKERS = """\
#!/bin/bash
# Workers for an emcube run elsewhere; they end with its scheduler.
{directives}
{setup}
cpus=${{SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}}
exec srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \\
    --cpus-per-task="$cpus" --wait=0 --kill-on-bad-exit=0 --output={output} \\
    {command}
"""


def slurm_deployment(options: SlurmOptions) -> Deployment:
    """Start a scheduler here and workers by Slurm, and a client of them.

    Inside an allocation (``SLURM_JOB_ID``) the workers start in it, on all of its nodes, by srun. Outside,
    one job is submitted for all of them; it is cancelled when the deployment ends, and when this
    process is killed.

    Raises
    ------
    EngineError
        The job is refused, does not start in time, or ends; the scheduler or the workers do not start.
    MissingDependencyError
        Slurm's commands are not found.
    InputError
        srun started this script several times at once.
    """
    inside = bool(os.environ.get("SLURM_JOB_ID"))
    _require_one_copy()
    with ExitStack() as stack:
        folder = _private_folder(stack, options.folder)
        logs = options.logs or folder
        logs.mkdir(parents=True, exist_ok=True)
        make_credentials(folder / "tls")
        scheduler = _scheduler(stack, folder, logs, options, inside=inside)
        pool = _Step(stack, folder, logs, options) if inside else _Batch(folder, logs, options)
        if isinstance(pool, _Batch):
            pool.submit(stack)
            pool.wait_for_start(scheduler.require_running)

        def still_there() -> None:
            scheduler.require_running()
            pool.require_running()

        until = time.monotonic() + options.timeout
        client = connect(
            wait_for_address(folder / "scheduler.json", until, scheduler.require_running),
            security=security_of(folder / "tls"),
            workers=pool.nodes,
            timeout=max(1.0, until - time.monotonic()),
            still_there=still_there,
        )
        about = {
            "job": pool.number,
            "nodes": pool.nodes,
            "submitted": not inside,
            "encrypted": True,
            "logs": None if options.logs is None else str(logs),
        }
        return Deployment("slurm", client=client, cleanup=stack.pop_all(), about=about)
    raise AssertionError("unreachable")


def _require_one_copy() -> None:
    copies = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    if os.environ.get("SLURM_PROCID") and copies.isdigit() and int(copies) > 1:
        raise InputError(
            f"deploy 'slurm': srun started this script {copies} times at once, got several copies where "
            "one is expected",
            hint="start it without srun, or with srun --ntasks=1: it starts its workers itself",
        )


def _private_folder(stack: ExitStack, parent: Path | None) -> Path:
    """A folder that all nodes see and only its owner can enter, removed at the end."""
    place = parent or Path.cwd()
    try:
        place.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(
            prefix=".emcube-slurm-", dir=place, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise InputError(
            f"deploy 'slurm': nothing can be written in {str(place)!r}: {error.strerror}",
            hint="name a folder that all nodes see: folder=...",
        ) from error
    return Path(stack.enter_context(made))


def _scheduler(
    stack: ExitStack, folder: Path, logs: Path, options: SlurmOptions, *, inside: bool
) -> Command:
    arguments = [
        f"--scheduler-file={folder / 'scheduler.json'}",
        f"--credentials={folder / 'tls'}",
        f"--host={host_of(_span(inside=inside), options.interface)}",
        "--watch-parent",
        f"--remove={folder}",
    ]
    if options.dashboard:
        place = "127.0.0.1:8787" if options.dashboard is True else str(options.dashboard)
        arguments.append(f"--dashboard={place}")
    return Command(stack, "scheduler", arguments, logs / "scheduler.log")


def _allocated_nodes() -> int:
    return int(os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES") or 1)


def _span(*, inside: bool) -> int:
    """Hosts that scheduler and workers are spread over, as far as it matters: one, or several.

    An allocation's own shell (salloc) may run on a login node: only what Slurm started on a node is there.
    """
    return _allocated_nodes() if inside and os.environ.get("SLURMD_NODENAME") else 2


def _worker_command(folder: Path, options: SlurmOptions, span: int) -> list[str]:
    command = [options.python or sys.executable, "-P", "-m", "emcube.deploy.slurm.node", "worker"]
    command += [f"--folder={folder}", f"--nodes={span}", f"--patience={options.timeout:g}"]
    if options.interface:
        command.append(f"--interface={options.interface}")
    if options.workers_per_node:
        command.append(f"--workers={options.workers_per_node}")
    return command


class _Pool(Protocol):
    number: int
    nodes: int

    def require_running(self) -> None: ...


class _Step:
    """Workers on all nodes of the allocation that this process is in, by srun."""

    def __init__(self, stack: ExitStack, folder: Path, logs: Path, options: SlurmOptions) -> None:
        _say_what_does_not_apply(options)
        Queue()  # srun comes with the others; the message is the same
        self.number = int(os.environ["SLURM_JOB_ID"])
        self.nodes = _allocated_nodes()
        self._log = logs / "workers.log"
        cpus = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "1")
        command = ["srun", "--overlap", "--mem=0", f"--nodes={self.nodes}"]
        command += [f"--ntasks={self.nodes}", "--ntasks-per-node=1", f"--cpus-per-task={cpus}"]
        command += ["--wait=0", "--kill-on-bad-exit=0", "--quiet"]
        command += _worker_command(folder, options, _span(inside=True))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=command_environment(),
                # Ctrl-C is for this process; two of them would make srun kill the workers.
                start_new_session=True,
            )
        stack.callback(self._end)

    def require_running(self) -> None:
        status = self._process.poll()
        if status is not None:
            raise EngineError(
                f"the workers in Slurm job {self.number} ended with status {status} before they were of "
                f"use; their last words: {_tail(self._log)}",
                hint="see the whole log with logs=FOLDER",
            )

    def _end(self) -> None:
        """End the step; Slurm kills what does not end when it is asked to."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Batch:
    """Workers in a job of their own, submitted from outside."""

    def __init__(self, folder: Path, logs: Path, options: SlurmOptions) -> None:
        self.number = 0
        self.nodes = options.nodes
        self._options = options
        self._queue = Queue()
        self._logs = logs
        self._asked = self._said_at = 0.0
        self._interval = 1.0
        self._said = ""
        self._script = folder / WORKERS
        patterns = str(logs).replace("%", "%%")
        directives = options.directives(name="emcube-workers", output=f"{patterns}/job.log")
        self._script.write_text(
            _WORKERS.format(
                directives="\n".join(f"#SBATCH {line}" for line in [*directives, "--no-kill"]),
                setup="\n".join(options.setup),
                output=shlex.quote(f"{patterns}/workers.log"),
                command=shlex.join(_worker_command(folder, options, _span(inside=False))),
            )
        )

    def submit(self, stack: ExitStack) -> None:
        """Submit the job; it ends with `stack`, or with this process however that ends."""
        guard = _Guard(stack)
        self.number = self._queue.submit(self._script, command_environment())
        guard.take(self.number)
        stack.callback(self._queue.cancel, self.number)

    def wait_for_start(self, still_there: Callable[[], None]) -> None:
        """Wait in the queue, and say what it waits for whenever that changes."""
        until = time.monotonic() + self._options.queue_timeout
        while True:
            still_there()
            job = self._job()
            if job is not None and not job.waiting:
                self._require(job)
                return
            if time.monotonic() > until:
                raise EngineError(
                    f"{job or f'job {self.number}'} has not started within "
                    f"{self._options.queue_timeout:g} s; it is cancelled",
                    hint="give it more time (queue_timeout=...), or ask for less (nodes, time, memory)",
                )
            time.sleep(self._interval)
            self._interval = min(10.0, self._interval * 1.5)

    def require_running(self) -> None:
        # Callers ask often; the controller of Slurm is everybody's.
        if time.monotonic() - self._asked < 5.0:
            return
        job = self._job()
        if job is not None:
            self._require(job)

    def _job(self) -> Job | None:
        self._asked = time.monotonic()
        job = self._queue.job(self.number)
        told = str(job) if job is not None else f"job {self.number}: not in the queue"
        # Waiting is worth a word at once, and again now and then.
        if told != self._said or time.monotonic() - self._said_at > 300:
            level = logging.WARNING if job is None or job.waiting else logging.INFO
            _log.log(level, "workers from Slurm, %s", told)
            self._said, self._said_at = told, time.monotonic()
        return job

    def _require(self, job: Job) -> None:
        if job.ended:
            raise EngineError(
                f"{job} before its workers were of use; the last words of its log: "
                f"{_tail(self._logs / 'job.log', self._logs / 'workers.log')}",
                hint="see the whole log with logs=FOLDER",
            )


class _Guard:
    """Cancels a job when this process is gone, even if it was killed."""

    def __init__(self, stack: ExitStack) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r job; read -r gone; [ -n "$job" ] && scancel --quiet "$job"'],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        stack.callback(self._end)

    def take(self, job: int) -> None:
        """Watch over a job from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{job}\n".encode())
        self._process.stdin.flush()

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _say_what_does_not_apply(options: SlurmOptions) -> None:
    of_a_job = {
        "nodes",
        "time",
        "memory",
        "cpus_per_node",
        "partition",
        "account",
        "qos",
        "job_name",
    }
    idle = sorted((of_a_job | {"sbatch", "setup", "requeues"}) & options.model_fields_set)
    if idle:
        _log.warning(
            "inside Slurm job %s its own nodes are used: %s of the deployment do not apply",
            os.environ["SLURM_JOB_ID"],
            ", ".join(idle),
        )


def _tail(*logs: Path, lines: int = 4) -> str:
    told: list[str] = []
    for log in logs:
        try:
            told += log.read_text(errors="replace").strip().splitlines()[-lines:]
        except FileNotFoundError:
            continue
    return " | ".join(told) or "(none)"
