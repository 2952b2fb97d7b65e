"""A place to work that has been started: what is in force, what it is made of, and its end."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from emcube.engine.executor import active_client
from emcube.errors import EngineError

__all__ = ["Deployment", "in_force"]

_lock = threading.Lock()
_active: list[Deployment] = []


class Deployment:
    """A started place to work; in force from its making until it is closed.

    Parameters
    ----------
    kind : str
        One of the kinds of ``emcube.deploy``.
    client : distributed.Client, optional
        Runs the tasks; without one the threads of this process do. It is closed first.
    cleanup : contextlib.ExitStack, optional
        What ends the processes and removes the files; closed after the client.
    about : mapping, optional
        What people want to know of it, as JSON values; never a secret.
    owned : bool, optional
        Whether closing it closes the client too.

    Attributes
    ----------
    outer : distributed.Client or None
        For threads: the client that was active before, which they go before.

    Notes
    -----
    Deployments nest: the innermost is the one in force.
    """

    def __init__(
        self,
        kind: str,
        *,
        client: Any = None,
        cleanup: ExitStack | None = None,
        about: Mapping[str, Any] | None = None,
        owned: bool = True,
    ) -> None:
        self.kind = kind
        self.client = client
        self.about = dict(about or {})
        self.outer = active_client() if client is None else None
        self._owned = owned
        self._process = os.getpid()
        self._cleanup = cleanup or ExitStack()
        self._closed = False
        with _lock:
            _active.append(self)
        # After the client's own handlers were registered, hence before them at the end.
        atexit.register(self.close)

    def __repr__(self) -> str:
        place = f" at {self.address}" if self.client is not None else ""
        return f"<emcube deployment: {self.kind}{place}{', closed' if self._closed else ''}>"

    @property
    def address(self) -> str | None:
        """Address of the scheduler; None for threads."""
        return None if self.client is None else str(self.client.scheduler.address)

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    def require_alive(self) -> None:
        """Refuse to go on without the scheduler: the work must not land elsewhere in silence.

        Raises
        ------
        EngineError
            The scheduler has gone or the client lost it.
        """
        if self.client is not None and self.client.status != "running":
            raise EngineError(
                f"the {self.kind} deployment is lost: its client is "
                f"{self.client.status!r}, 'running' expected",
                hint="start it again; finished steps of a result are kept",
            )

    def close(self) -> None:
        """End it: the client, then processes and files. Does nothing the second time.

        It is called when the process ends; in a forked child it does nothing.
        """
        if self._process != os.getpid():
            return
        with _lock:
            if self._closed:
                return
            self._closed = True
            _active.remove(self)
        atexit.unregister(self.close)
        with self._cleanup:
            if self.client is not None and self._owned:
                self.client.close()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def in_force() -> Deployment | None:
    """The innermost deployment of this process that was started and not closed."""
    with _lock:
        # A forked child shares no connection with its parent.
        mine = [d for d in _active if d._process == os.getpid()]
        return mine[-1] if mine else None
