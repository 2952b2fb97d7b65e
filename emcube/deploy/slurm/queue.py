"""Slurm's own commands: submit, ask, cancel. Nothing else in emcube runs them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emcube.errors import EngineError, MissingDependencyError

__all__ = ["Job", "Queue"]

PATIENCE = 60
"""Seconds that one command of Slurm may take: a busy controller answers late."""

_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUE_FED"}
_RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
_BUSY = re.compile(
    r"unable to contact slurm controller|timed out|temporarily|connection refused", re.IGNORECASE
)


@dataclass(frozen=True)
class Job:
    """What Slurm says of a job.

    Attributes
    ----------
    number : int
    state : str
        In Slurm's words: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, ...
    reason : str
        Why it waits or has ended; empty where Slurm gives none.
    start : str
        When it started, or when Slurm expects it to; empty where that is unknown.
    nodes : str
        Its nodes, once it has some.
    status : int or None
        Exit status of the script, once it has ended.
    restarts : int
        How often it was queued again.
    """

    number: int
    state: str
    reason: str = ""
    start: str = ""
    nodes: str = ""
    status: int | None = None
    restarts: int = 0

    @property
    def waiting(self) -> bool:
        """Whether it is still, or again, in the queue."""
        return self.state in _WAITING

    @property
    def ended(self) -> bool:
        """Whether it will do nothing more."""
        return not self.waiting and self.state not in _RUNNING

    def __str__(self) -> str:
        told = [self.state.lower()]
        if self.waiting and self.reason:
            told.append(f"reason {self.reason}")
        if self.waiting and self.start:
            told.append(f"expected start {self.start}")
        if self.nodes and not self.waiting:
            told.append(f"on {self.nodes}")
        return f"job {self.number}: {', '.join(told)}"


class Queue:
    """The Slurm that this machine's commands reach.

    Raises
    ------
    MissingDependencyError
        There is no ``sbatch`` on the path.
    """

    def __init__(self) -> None:
        missing = [c for c in ("sbatch", "squeue", "scontrol", "scancel") if not shutil.which(c)]
        if missing:
            raise MissingDependencyError(
                f"Slurm's {', '.join(missing)} is not found on the PATH of this machine",
                hint="run this on a login node of the cluster, or load its Slurm module first; "
                "'emcube submit --dry-run' shows the script without Slurm",
            )

    def submit(self, script: Path, environment: Mapping[str, str] | None = None) -> int:
        """Submit a script; return the number of the job.

        Parameters
        ----------
        script : Path
        environment : mapping, optional
            Environment that sbatch hands on to the job; default: this process's.

        Raises
        ------
        EngineError
            Slurm refuses it; the message is Slurm's own.
        """
        done = self._ask("sbatch", "--parsable", str(script), environment=environment)
        if done.returncode:
            raise EngineError(
                f"sbatch refuses {str(script)!r}: {_said(done)}",
                hint="check partition, account, time and memory against the site's limits (sinfo)",
            )
        return int(done.stdout.strip().partition(";")[0])

    def job(self, number: int) -> Job | None:
        """What Slurm says of a job; None where it knows nothing of it (any more).

        Raises
        ------
        EngineError
            Slurm does not answer.
        """
        done = self._ask("scontrol", "--oneliner", "show", "job", str(number))
        if done.returncode == 0 and "JobState=" in done.stdout:
            return _parse(number, done.stdout)
        if _BUSY.search(done.stderr):
            raise EngineError(
                f"Slurm does not tell of job {number}: {_said(done)}",
                hint="the job itself goes on; try again later",
            )
        return self._from_accounting(number)

    def cancel(self, number: int) -> None:
        """Cancel a job; one that has ended stays as it is.

        Raises
        ------
        EngineError
            Slurm does not do it.
        """
        done = self._ask("scancel", "--quiet", str(number))
        if done.returncode and (job := self.job(number)) is not None and not job.ended:
            raise EngineError(
                f"job {number} could not be cancelled: {_said(done)}", hint=f"scancel {number}"
            )

    def _from_accounting(self, number: int) -> Job | None:
        """Ask the accounting database, where a site has one."""
        if shutil.which("sacct") is None:
            return None
        done = self._ask("sacct", "-X", "-n", "-P", "-o", "State,ExitCode", "-j", str(number))
        found = re.match(r"([A-Z_]+)[^|]*\|(\d+):(\d+)", done.stdout)
        if done.returncode or found is None:
            return None
        return Job(number, found[1], status=_status(int(found[2]), int(found[3])))

    @staticmethod
    def _ask(
        *command: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
                env=None if environment is None else dict(environment),
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(
                f"{command[0]} did not answer within {PATIENCE} s",
                hint="the controller of Slurm may be busy; try again later",
            ) from error


def _parse(number: int, text: str) -> Job:
    fields = dict(re.findall(r"(\w+)=(\S*)", text))

    def known(name: str) -> str:
        value = fields.get(name, "")
        return "" if value in ("(null)", "None", "Unknown", "N/A") else value

    state = fields["JobState"]
    code, _, signal = fields.get("ExitCode", "0:0").partition(":")
    job = Job(
        number,
        state,
        reason=known("Reason"),
        start=known("StartTime"),
        nodes=known("NodeList"),
        restarts=int(fields.get("Restarts", 0)),
    )
    if not job.ended:
        return job
    return Job(**{**job.__dict__, "status": _status(int(code), int(signal or 0))})


def _status(code: int, signal: int) -> int:
    return 128 + signal if signal else code


def _said(done: subprocess.CompletedProcess[str]) -> str:
    text = done.stderr.strip() or done.stdout.strip()
    return " ".join(text.split()) or f"{_name(done.args)} failed with status {done.returncode}"


def _name(command: Sequence[str]) -> str:
    return command[0]
