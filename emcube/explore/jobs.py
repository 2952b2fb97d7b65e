"""Work that takes a while: in a thread of this process, with progress, cancel, and errors that are told.

A job runs the code that a script would run, on the deployment in force. It hears only the events of its own
thread, and cancelling stops only its own run: jobs of several visits go on side by side.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from emcube.engine.checkpoint import current_checkpoints
from emcube.engine.progress import Event, listen_here
from emcube.engine.stopping import stop_when
from emcube.errors import EmcubeError, EngineError, InterruptedRunError
from emcube.feedback.setting import quietly

__all__ = ["Job", "Problem", "Progress", "finished"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes
    ----------
    part : str
        The part of the run that is under way: the name of a recipe's step, "input" for its sums; "" where
        there is none.
    part_number, n_parts : int
        Its number from 1, and of how many; 0 where there are none.
    what : str
        What the engine does: the name of the sweep ("gram matrix"), or "" before it does anything.
    round, n_rounds : int
        Pass over the data, from 1, and of how many at most.
    blocks_done, n_blocks, pixels_done, n_pixels : int
        Of this pass.
    pixels_per_second : float or None
        Of this sweep so far; None before the first block.
    objective : float or None
        After the last pass, where the sweep has one.
    seconds : float
        Since the job began.
    seconds_left : float or None
        Until this pass ends, from its own pace; what comes after is not known ahead.
    """

    part: str = ""
    part_number: int = 0
    n_parts: int = 0
    what: str = ""
    round: int = 0
    n_rounds: int = 0
    blocks_done: int = 0
    n_blocks: int = 0
    pixels_done: int = 0
    n_pixels: int = 0
    pixels_per_second: float | None = None
    objective: float | None = None
    seconds: float = 0.0
    seconds_left: float | None = None

    @property
    def fraction(self) -> float:
        """Share of this pass that is done, 0 to 1."""
        return self.blocks_done / self.n_blocks if self.n_blocks else 0.0

    def __str__(self) -> str:
        """One line for people."""
        parts = []
        if self.part:
            of = f" ({self.part_number} of {self.n_parts})" if self.part_number else ""
            parts.append(f"{self.part}{of}")
        if self.what:
            parts.append(self.what)
        if self.n_rounds > 1:
            parts.append(f"pass {self.round}")
        if self.n_blocks:
            parts.append(f"{self.blocks_done} of {self.n_blocks} blocks")
        if self.pixels_per_second is not None:
            parts.append(f"{self.pixels_per_second:,.0f} pixels/s")
        if self.objective is not None:
            parts.append(f"objective {self.objective:.6g}")
        if self.seconds_left is not None:
            parts.append(f"{self.seconds_left:.0f} s left of this pass")
        return ", ".join(parts)


@dataclass(frozen=True)
class Problem:
    """An error as a message: what, where, got against expected, what to do. Plain text, maybe of strangers.

    Attributes
    ----------
    message : str
        What is wrong, where, and what was found against what was expected.
    hint : str
        What to do about it.
    notes : tuple of str
        Where in the run it happened ("in step 'nmf', ...").
    kind : str
        Name of the error's class.
    details : str
        The traceback, for a bug report.
    """

    message: str
    hint: str
    notes: tuple[str, ...] = ()
    kind: str = ""
    details: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Problem:
        """Say an error as people need it."""
        if isinstance(error, EmcubeError):
            message, hint = error.message, error.hint
        elif isinstance(error, MemoryError):
            message, hint = "out of memory", "set EMCUBE_MEMORY (such as 2GiB) or EMCUBE_THREADS=1"
        elif isinstance(error, OSError) and error.filename is not None:
            message = f"{error.strerror or type(error).__name__}: {str(error.filename)!r}"
            hint = "check the path, permissions and space"
        else:
            said = str(error).strip()
            message = f"unexpected {type(error).__name__}{': ' + said if said else ''}"
            hint = "please report it with the details"
        return cls(
            message,
            hint,
            tuple(getattr(error, "__notes__", ())),
            type(error).__name__,
            "".join(traceback.format_exception(error)),
        )

    def __str__(self) -> str:
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return f"{text} ({'; '.join(self.notes)})" if self.notes else text


class Job(Generic[T]):
    """Work in a thread of its own, which begins at once.

    Parameters
    ----------
    name : str
        What it does, for people.
    work : callable
        ``work(job)``; its answer is the job's result. Runs of the engine inside it report to the job and
        stop when it is cancelled; loops of its own call `Job.check`.
    parts : sequence of str, optional
        Names of the parts that it goes through, as the checkpoints call them (a recipe's steps).

    Attributes
    ----------
    state : {"running", "done", "failed", "cancelled"}
    progress : Progress
    error : Problem or None
        What went wrong, where it failed.
    """

    def __init__(
        self, name: str, work: Callable[[Job[T]], T], *, parts: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.state = "running"
        self.progress = Progress(n_parts=len(parts))
        self.error: Problem | None = None
        self._work, self._parts = work, parts
        self._result: T | None = None
        self._cause: BaseException | None = None
        self._listeners: list[Callable[[Job[T]], None]] = []
        self._lock = threading.Lock()
        self._stop, self._ended = threading.Event(), threading.Event()
        self._began = time.monotonic()
        self._pass_began, self._pass = self._began, ("", -1)
        # A client that is current only here is current there, too.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name=f"emcube {name}", daemon=True
        )

    def start(self) -> Job[T]:
        """Begin; returns the job."""
        self._thread.start()
        return self

    def __repr__(self) -> str:
        return f"<Job {self.name!r}: {self.state}>"

    # ----------------------------------------------------------------------------------------- from outside

    @property
    def done(self) -> bool:
        """Whether it has ended, one way or another."""
        return self._ended.is_set()

    @property
    def result(self) -> T:
        """What it found.

        Raises
        ------
        EngineError
            It has not ended yet.
        EmcubeError, ...
            What it failed with; of a cancelled job `InterruptedRunError`.
        """
        if not self.done:
            raise EngineError(f"{self.name} has not ended yet", hint="wait for it: job.wait()")
        if self._cause is not None:
            raise self._cause
        return self._result  # type: ignore[return-value]  # None only where T allows it

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; tell whether it has."""
        return self._ended.wait(timeout)

    def cancel(self) -> None:
        """Ask it to stop at the next finished group of blocks; does nothing where it has ended."""
        self._stop.set()

    def listen(self, listener: Callable[[Job[T]], None]) -> None:
        """Call a function with the job whenever there is news, on the job's thread; at once where it has
        ended.
        """
        with self._lock:
            if not self.done:
                self._listeners.append(listener)
                return
        listener(self)

    # ----------------------------------------------------------------------------------------- from inside

    def check(self) -> None:
        """Stop here where that was asked for.

        Raises
        ------
        InterruptedRunError
            It was.
        """
        if self._stop.is_set():
            raise InterruptedRunError(
                f"{self.name} was cancelled", hint="start it again to get its result"
            )

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                stack.enter_context(quietly())
                stack.enter_context(listen_here(self._hear))
                stack.enter_context(stop_when(self._stop.is_set))
                self.check()
                self._result = self._work(self)
            self.state = "done"
        except InterruptedRunError as error:
            self._cause = error
            self.state = "cancelled" if self._stop.is_set() else "failed"
            self.error = None if self._stop.is_set() else Problem.of(error)
        # Whatever it is must reach the page: a thread that dies in silence is a frozen page.
        except BaseException as error:  # noqa: BLE001
            self._cause, self.error, self.state = error, Problem.of(error), "failed"
            _log.debug("%s failed", self.name, exc_info=True)
        finally:
            with self._lock:
                self._ended.set()
            self.progress = replace(
                self.progress, seconds=time.monotonic() - self._began, seconds_left=None
            )
            self._tell()

    def _hear(self, event: Event) -> None:
        self.progress = self._seen(event)
        self._tell()

    def _seen(self, event: Event) -> Progress:
        now = time.monotonic()
        if (event.name, event.round) != self._pass:
            self._pass, self._pass_began = (event.name, event.round), now
        part, number = self._part()
        share = event.blocks_done / event.n_blocks if event.n_blocks else 0.0
        pixels = event.round * event.n_pixels + event.pixels_done
        rate = pixels / event.seconds if pixels and event.seconds > 0 else None
        left = (now - self._pass_began) * (1 - share) / share if share > 0 else None
        same = self.progress.what == event.name
        return Progress(
            part,
            number,
            len(self._parts),
            event.name,
            event.round + 1,
            event.n_rounds,
            event.blocks_done,
            event.n_blocks,
            event.pixels_done,
            event.n_pixels,
            rate,
            self.progress.objective if event.objective is None and same else event.objective,
            now - self._began,
            left,
        )

    def _part(self) -> tuple[str, int]:
        kept = current_checkpoints()
        name = "" if kept is None else kept.part
        return name, self._parts.index(name) + 1 if name in self._parts else 0

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(self)
            # The look on costs no run.
            except Exception:  # noqa: BLE001
                _log.exception("a listener of %s failed", self.name)


def finished(name: str, result: T) -> Job[T]:
    """A job whose result was there already."""
    job: Job[T] = Job(name, lambda _: result)
    job._result, job.state = result, "done"
    job._ended.set()
    return job
