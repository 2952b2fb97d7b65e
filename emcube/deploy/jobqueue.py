"""``jobqueue``: workers as jobs of a batch system (PBS, LSF, Slurm, ...), by dask-jobqueue.

The scheduler runs in this process; jobs come and go between a least and a largest number. Where one
allocation of a fixed size will do, ``slurm`` is simpler and steadier.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from emcube.deploy.connect import connect
from emcube.deploy.deployment import Deployment
from emcube.deploy.local import (
    LOOPBACK,
    command_path,
    dashboard_address,
    dashboard_link,
    security_from,
    warn_of_dashboard,
)
from emcube.deploy.options import Bytes, Field, Folder, Place, PositiveInt, Seconds
from emcube.deploy.process import DROPPED, worker_environment
from emcube.deploy.tls import make_credentials
from emcube.errors import EngineError, InputError, MissingDependencyError

__all__ = ["JobqueueOptions", "jobqueue_deployment", "make_cluster"]

_log = logging.getLogger(__name__)

# Batch system -> dask-jobqueue's class, and its word for the account that pays.
_SYSTEMS = {
    "htcondor": ("HTCondorCluster", None),
    "lsf": ("LSFCluster", "project"),
    "moab": ("MoabCluster", "account"),
    "oar": ("OARCluster", "project"),
    "pbs": ("PBSCluster", "account"),
    "sge": ("SGECluster", "project"),
    "slurm": ("SLURMCluster", "account"),
}


class JobqueueOptions(Place):
    """Options of ``jobqueue``."""

    cluster: Literal["htcondor", "lsf", "moab", "oar", "pbs", "sge", "slurm"] = Field(
        description="The batch system."
    )
    cores: PositiveInt = Field(description="Cores of each job.")
    memory: Bytes = Field(description="Memory of each job.")
    threads: PositiveInt = Field(
        1, description="Threads of each worker; a job has cores / threads."
    )
    minimum: PositiveInt = Field(1, description="Jobs at least; the work starts with the first.")
    maximum: PositiveInt | None = Field(None, description="Jobs at most; default: the least.")
    walltime: str | None = Field(None, description="Time limit of a job, as the system writes it.")
    queue: str | None = Field(None, description="Queue or partition.")
    account: str | None = Field(None, description="Account or project that pays.")
    interface: str | None = Field(None, description="Network interface of all hosts, such as ib0.")
    shared: Folder | None = Field(
        None,
        description="Folder that all hosts see, for the run's key; default: in the home folder.",
    )
    scratch: str = Field("${TMPDIR:-/tmp}", description="Folder for files of the workers.")
    directives: tuple[str, ...] = Field((), description="Further lines of the job's header.")
    prologue: tuple[str, ...] = Field((), description="Commands before the workers start.")
    python: str | None = Field(None, description="Python of the workers; default: this one.")
    more: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of dask-jobqueue's class, in its words.",
    )
    timeout: Seconds = Field(3600.0, description="Seconds to wait for the first job to start.")

    @model_validator(mode="after")
    def _fits(self) -> JobqueueOptions:
        if self.maximum is not None and self.maximum < self.minimum:
            raise ValueError(f"maximum {self.maximum} is below minimum {self.minimum}")
        if self.cores % self.threads:
            raise ValueError(
                f"{self.cores} cores do not divide into workers of {self.threads} threads"
            )
        return self


def jobqueue_deployment(options: JobqueueOptions) -> Deployment:
    """Start a scheduler here and submit jobs of workers.

    Raises
    ------
    EngineError
        The batch system refuses the jobs, or the first does not start in time.
    MissingDependencyError
        dask-jobqueue or cryptography is not installed.
    """
    from distributed import Status

    until = time.monotonic() + options.timeout
    with ExitStack() as stack:
        cluster = make_cluster(options, stack)
        _require_command(cluster, options)
        if options.maximum is None or options.maximum == options.minimum:
            cluster.scale(jobs=options.minimum)
        else:
            cluster.adapt(minimum_jobs=options.minimum, maximum_jobs=options.maximum)
        _log.info("waiting for the first job of %s", cluster)

        def still_there() -> None:
            # A job that was submitted has a number; all of a round are tried before they are listed.
            jobs = list(cluster.workers.values())
            if jobs and all(job.job_id is None for job in jobs):
                for job in jobs:  # or the cluster refuses to close
                    job.status = Status.failed
                raise EngineError(
                    f"deploy 'jobqueue': {options.cluster} took none of {len(jobs)} jobs",
                    hint="what it said is in the log above; compare queue, account and walltime",
                )

        client = connect(
            cluster, workers=1, timeout=until - time.monotonic(), still_there=still_there
        )
        about = {
            "cluster": options.cluster,
            "jobs": [options.minimum, options.maximum or options.minimum],
            "encrypted": True,
            "dashboard": dashboard_link(client, options),
            "logs": None if options.logs is None else str(options.logs),
        }
        return Deployment("jobqueue", client=client, cleanup=stack.pop_all(), about=about)
    raise AssertionError("unreachable")


def _require_command(cluster: Any, options: JobqueueOptions) -> None:
    command = shlex.split(cluster.job_cls.submit_command)[0]
    if shutil.which(command) is None:
        raise EngineError(
            f"deploy 'jobqueue': there is no command {command!r} on this machine, {options.cluster} "
            "takes jobs by it",
            hint="start from a host that may submit jobs, or load the batch system's module",
        )


def make_cluster(options: JobqueueOptions, stack: ExitStack) -> Any:
    """Start the scheduler and make dask-jobqueue's cluster, with no job yet.

    Parameters
    ----------
    options : JobqueueOptions
    stack : contextlib.ExitStack
        Its end closes the cluster and removes the credentials.

    Returns
    -------
    dask_jobqueue.JobQueueCluster
        Its ``job_script()`` is what each job runs.
    """
    try:
        import dask_jobqueue
    except ImportError as error:
        raise MissingDependencyError(
            "jobs of a batch system need the package dask-jobqueue, which is not installed",
            hint='pip install "emcube[hpc]"',
        ) from error
    name, account_word = _SYSTEMS[options.cluster]
    warn_of_dashboard(options)
    credentials = make_credentials(_shared_folder(options.shared, stack) / "tls")
    arguments = _arguments(options, account_word)
    try:
        cluster = getattr(dask_jobqueue, name)(**arguments, security=security_from(credentials))
    except (TypeError, ValueError) as error:
        raise InputError(f"deploy 'jobqueue': dask-jobqueue refuses: {error}") from error
    return stack.enter_context(cluster)


def _arguments(options: JobqueueOptions, account_word: str | None) -> dict[str, Any]:
    """What dask-jobqueue is told, in its words."""
    given = {"queue": options.queue, "walltime": options.walltime}
    if account_word is not None:
        given[account_word] = options.account
    elif options.account is not None:
        raise InputError(f"deploy 'jobqueue': {options.cluster} knows no account")
    return {
        "cores": options.cores,
        "processes": options.cores // options.threads,
        "memory": str(options.memory),
        "interface": options.interface,
        "python": shlex.quote(options.python or sys.executable),
        "local_directory": options.scratch,
        "log_directory": None if options.logs is None else str(options.logs),
        "job_name": "emcube",
        "job_extra_directives": list(options.directives),
        "job_script_prologue": [*options.prologue, *_environment()],
        # Each worker has a server of its state in HTTP: not for other hosts.
        "worker_extra_args": ["--no-dashboard", "--dashboard-address", f"{LOOPBACK}:0"],
        "scheduler_options": {
            "dashboard": options.dashboard is not False,
            "dashboard_address": dashboard_address(options) or f"{LOOPBACK}:0",
        },
        **{k: v for k, v in given.items() if v is not None},
        **options.more,
    }


def _environment() -> list[str]:
    """Lines of shell that set what every worker needs."""
    wanted = worker_environment()
    path = os.pathsep.join(command_path())
    if path:
        wanted["PYTHONPATH"] = path
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(wanted.items())]
    return [f"unset {' '.join(DROPPED)}", *lines]


def _shared_folder(wish: Path | None, stack: ExitStack) -> Path:
    """A new private folder that all hosts see, removed at the end."""
    import platformdirs

    parent = wish or platformdirs.user_state_path("emcube", appauthor=False) / "runs"
    if any(c.isspace() or c in "\"'\\$`;&|<>()*?#" for c in str(parent)):
        raise InputError(
            f"deploy 'jobqueue': the shared folder {str(parent)!r} has characters that job scripts of "
            "dask-jobqueue cannot hold",
            hint="shared = another folder that all hosts see",
        )
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder
