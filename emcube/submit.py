"""A recipe as one Slurm job: check everything, write the script, submit it, follow it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.errors import EngineError, InputError

if TYPE_CHECKING:
    from emcube.deploy.slurm import Job, Queue, RunOfRecipe, SlurmOptions
    from emcube.engine.progress import Event

__all__ = ["Submission", "follow", "last_words", "prepare_submission", "slurm_options"]

RECORD = "submission.json"
"""File beside the logs that says which job was submitted last."""

POLL = 0.5
"""Seconds between two looks at the files of a run that is followed."""

SLOWEST = 10.0
"""Seconds between two questions to Slurm, once a run has been followed for a while."""


def slurm_options(profile: str | None, given: dict[str, Any]) -> SlurmOptions:
    """Options of an allocation: those given go before the profile's, which go before the defaults.

    Parameters
    ----------
    profile : str or None
        Name of a profile of the kind ``slurm``.
    given : dict
        Options by name; None where one was not given.

    Raises
    ------
    InputError
        There is no such profile, or an option has a wrong value.
    """
    from emcube.deploy.options import parse_options
    from emcube.deploy.profiles import load_profiles
    from emcube.deploy.slurm import SlurmOptions

    values: dict[str, Any] = {}
    origin = "submit"
    if profile is not None:
        known = load_profiles()
        if profile not in known or known[profile].kind != "slurm":
            names = sorted(n for n, p in known.items() if p.kind == "slurm")
            raise InputError(
                f"--profile: got {profile!r}, expected a profile of the kind slurm "
                f"({', '.join(names) or 'none are defined'})",
                hint="emcube doctor shows the files that profiles are read from",
            )
        values |= known[profile].options
        origin = f"submit with {known[profile].origin}"
    values |= {name: value for name, value in given.items() if value is not None}
    return parse_options(SlurmOptions, values, origin)


@dataclass(frozen=True)
class Submission:
    """A run that may be submitted: checked, with its script.

    Attributes
    ----------
    run : RunOfRecipe
        Recipe, result and logs.
    script : str
        The job script.
    run_id : str or None
        Of the run, where it is known without reading the cube.
    finished : bool
        The result is there already, complete; there is nothing to submit.
    """

    run: RunOfRecipe
    script: str
    run_id: str | None
    finished: bool

    def active_job(self, queue: Queue) -> Job | None:
        """The job that was submitted for this result and has not ended, if there is one."""
        try:
            record = json.loads((self.run.logs / RECORD).read_text(encoding="utf-8"))
            number = int(record["job"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        job = queue.job(number)
        return None if job is None or job.ended else job

    def is_of(self, job: Job) -> bool:
        """Whether a job was submitted with this very script."""
        record = json.loads((self.run.logs / RECORD).read_text(encoding="utf-8"))
        return bool(record["job"] == job.number and self.run.script.read_text() == self.script)

    def submit(self, queue: Queue) -> int:
        """Write the script beside the result and submit it; return the number of the job.

        Raises
        ------
        EngineError
            Slurm refuses the job; or one for the same result has not ended.
        InputError
            The folder of the logs cannot be written.
        """
        from emcube.deploy.local import command_environment

        active = self.active_job(queue)
        if active is not None:
            raise EngineError(
                f"{active}, submitted for {str(self.run.out)!r}, has not ended; two jobs would write one "
                "result",
                hint=f"wait for it, cancel it (scancel {active.number}), or choose another --out",
            )
        new = not self.run.logs.exists()
        try:
            self.run.logs.mkdir(parents=True, exist_ok=True)
            self.run.script.write_text(self.script, encoding="utf-8")
            self.run.script.chmod(0o755)
            self.run.progress.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{str(self.run.logs)!r} cannot be written: {error.strerror or error}",
                hint="choose another place with --out, on a file system that all nodes see",
            ) from error
        # The job finds the modules of this process, wherever they were imported from.
        path = command_environment()["PYTHONPATH"]
        environment = {**os.environ, **({"PYTHONPATH": path} if path else {})}
        try:
            number = queue.submit(self.run.script, environment)
        except EngineError:
            # Nothing runs, so nothing is left that looks like a run.
            with contextlib.suppress(OSError):
                self.run.script.unlink()
                if new:
                    self.run.logs.rmdir()
            raise
        record = {"job": number, "run_id": self.run_id, "recipe": str(self.run.recipe)}
        (self.run.logs / RECORD).write_text(json.dumps(record), encoding="utf-8")
        return number


def prepare_submission(
    recipe: str | Path,
    options: SlurmOptions,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Submission:
    """Check a run as far as that goes without reading the cube, and write its script.

    Parameters
    ----------
    recipe : path-like
        A YAML file.
    options : SlurmOptions
    out : path-like, optional
        Folder of the result; default the recipe's ``output``.
    overwrite : bool
        Replace another run's result.

    Raises
    ------
    RecipeError, InputError, ReadError
        The recipe is not valid, its input is not there, or `out` holds something else.

    Notes
    -----
    Nothing is written.
    """
    from emcube.deploy.slurm import RunOfRecipe, job_script
    from emcube.recipe import Recipe
    from emcube.recipe.running import look_ahead

    file = Path(recipe)
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(
            f"submit: got {str(recipe)!r}, a recipe (.yaml) is expected",
            hint="write a recipe with this cube as its input; 'emcube run' takes cubes",
        )
    ahead = look_ahead(Recipe.read(file), out, overwrite=overwrite)
    if not str(file).isprintable():
        raise InputError(
            f"submit: the name of the recipe {str(file)!r} holds a line break or the like",
            hint="give the file another name",
        )
    if set('"\\\n\r') & set(str(ahead.path)):
        raise InputError(
            f"submit: the result's place {str(ahead.path)!r} holds a quote, a backslash or a line "
            "break, which sbatch does not understand in the name of a log",
            hint="choose another place with --out",
        )
    run = RunOfRecipe(file.absolute(), ahead.path, overwrite)
    script = job_script(run, options, sys.executable)
    return Submission(run, script, ahead.run_id, ahead.finished)


# -------------------------------------------------------------------------------------- following


def follow(
    queue: Queue,
    number: int,
    run: RunOfRecipe,
    *,
    tell: Callable[[str], None],
    show: Callable[[Event], None],
) -> Job:
    """Follow a job until it ends, through the queue, its passes, and being queued again.

    Parameters
    ----------
    queue : Queue
    number : int
        The job.
    run : RunOfRecipe
    tell : callable
        Told in a line whenever the job's state changes.
    show : callable
        Given each new event of the run's progress.

    Returns
    -------
    Job
        As it ended, with its exit status.

    Raises
    ------
    EngineError
        Slurm knows nothing of the job any more and the job left no exit status.
    """
    seen = _Seen(run, number)
    said = ""
    interval, asked = 1.0, float("-inf")
    while True:
        for event in seen.events():
            show(event)
        # The controller of Slurm is everybody's: the files of the run are looked at more often.
        if time.monotonic() - asked >= (1.0 if seen.status() is not None else interval):
            job = _ask(queue, number, seen, tell)
            asked, interval = time.monotonic(), min(SLOWEST, interval * 1.3)
            if job is not None:
                if str(job) != said:
                    tell(str(job))
                    said = str(job)
                if job.ended:
                    return job
        time.sleep(POLL)


def _ask(queue: Queue, number: int, seen: _Seen, tell: Callable[[str], None]) -> Job | None:
    """The job as Slurm knows it; None where Slurm is too busy to say."""
    from emcube.deploy.slurm import Job

    try:
        job = queue.job(number)
    except EngineError as error:
        tell(str(error))
        return None
    if job is not None:
        return job
    status = seen.status()
    if status is None:
        raise EngineError(
            f"Slurm knows nothing of job {number} any more, and the job left no exit status",
            hint=f"look into its log: {seen.run.log(number)}",
        )
    return Job(number, "COMPLETED" if status == 0 else "FAILED", status=status)


class _Seen:
    """What the files of a run say, each word once."""

    def __init__(self, run: RunOfRecipe, number: int) -> None:
        self.run = run
        self.number = number
        self._last = ""

    def events(self) -> list[Event]:
        """The newest event, if it is new."""
        from emcube.engine.progress import read_event

        try:
            text = self.run.progress.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        if text == self._last:
            return []
        self._last = text
        return [read_event(text)]

    def status(self) -> int | None:
        """Exit status that the job script wrote last, if it got there."""
        try:
            return int(self.run.exit_file(self.number).read_text())
        except (FileNotFoundError, ValueError):
            return None


def last_words(log: Path, lines: int = 10) -> str:
    """The end of a log, or that there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 64 * 1024))
            text = stream.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return "(there is no log: the job never started)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"
