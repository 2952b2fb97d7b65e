"""One thread that does a visit's slow calls in order, so that the page never waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Hand"]


@dataclass(frozen=True)
class _Task:
    name: str
    key: str
    work: Callable[[], Any]
    then: Callable[[Any], None] | None


class Hand:
    """Does tasks one after the other.

    Parameters
    ----------
    later : callable
        Has a function called on the page's own thread; answers are told there.
    failed : callable
        Gets the name of a task and its error, on the page's thread.
    busy : callable
        Gets the names of what is being done or waits, on the page's thread, whenever that changes.

    Notes
    -----
    A task with a key takes the place of one of the same key that waits, and what an older one of the same key
    answers afterwards is dropped: of ten positions of a slider the last one is shown.
    """

    def __init__(
        self,
        later: Callable[[Callable[[], None]], None],
        failed: Callable[[str, BaseException], None],
        busy: Callable[[list[str]], None],
    ) -> None:
        self._later, self._failed, self._busy = later, failed, busy
        self._tasks: list[_Task] = []
        self._now: _Task | None = None
        self._latest: dict[str, _Task] = {}
        self._news = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="emcube explorer", daemon=True)
        self._thread.start()

    def do(
        self,
        name: str,
        work: Callable[[], Any],
        then: Callable[[Any], None] | None = None,
        *,
        key: str = "",
    ) -> None:
        """Do something soon.

        Parameters
        ----------
        name : str
            What is done, for people: "Reading the map".
        work : callable
            Called on the hand's thread.
        then : callable, optional
            Gets the answer, on the page's thread.
        key : str
            Tasks that replace each other.
        """
        task = _Task(name, key, work, then)
        with self._news:
            if self._closed:
                return
            if key:
                self._tasks = [t for t in self._tasks if t.key != key]
                self._latest[key] = task
            self._tasks.append(task)
            self._news.notify()
        self._say()

    def drop(self, *keys: str) -> None:
        """Forget tasks that wait, and answers that are still to come."""
        with self._news:
            self._tasks = [t for t in self._tasks if t.key not in keys]
            for key in keys:
                self._latest.pop(key, None)

    def close(self, last: Callable[[], None] | None = None) -> None:
        """Take no more tasks, and do one last thing when what is being done has ended."""
        with self._news:
            self._closed = True
            self._tasks = [] if last is None else [_Task("", "", last, None)]
            self._news.notify()

    def join(self, timeout: float | None = None) -> None:
        """Wait until a closed hand has done its last task."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _run(self) -> None:
        while (task := self._next()) is not None:
            try:
                answer = task.work()
            except BaseException as error:  # noqa: BLE001 (told on the page: the thread must go on)
                self._tell(task, lambda e=error, t=task: self._failed(t.name, e))  # type: ignore[misc]
            else:
                if task.then is not None:
                    self._tell(task, lambda a=answer, t=task: t.then(a))  # type: ignore[misc]
            with self._news:
                self._now = None
            self._say()

    def _next(self) -> _Task | None:
        with self._news:
            while not self._tasks and not self._closed:
                self._news.wait()
            self._now = self._tasks.pop(0) if self._tasks else None
            return self._now

    def _tell(self, task: _Task, what: Callable[[], None]) -> None:
        def still() -> None:
            if not task.key or self._latest.get(task.key) is task:
                what()

        self._later(still)

    def _say(self) -> None:
        with self._news:
            names = [t.name for t in ([self._now] if self._now else []) + self._tasks if t.name]
        self._later(lambda: self._busy(names))
