"""`emcube.explore`: serve the explorer on loopback, open a browser, or show it in a notebook."""

from __future__ import annotations

import asyncio
import html
import logging
import os
import secrets
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from emcube.errors import EngineError, InputError, MissingDependencyError

if TYPE_CHECKING:
    import xarray as xr

    from emcube.explore.session import Session
    from emcube.explore.visit import Visit
    from emcube.results import Result

    Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | xr.DataArray | Result

__all__ = ["Explorer", "explore"]

_log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"

HEIGHT = 820
"""Pixels of the page in a notebook."""


def explore(
    source: Source | None = None,
    *,
    name: str | None = None,
    port: int = 0,
    browser: bool | None = None,
    block: bool | None = None,
    deploy: str | None = None,
    address: str | None = None,
) -> Explorer:
    """Look at a cube, a catalog or a result in a browser: spectra, maps, analyses, and a record of it all.

    Parameters
    ----------
    source : path, URL, DataArray or Result, optional
        Whatever `emcube.open` takes; a catalog; a result or its folder; a cube in hand. Without it the page
        asks.
    name : str, optional
        Which signal, where a file holds several.
    port : int
        Of this machine; 0 takes a free one.
    browser : bool, optional
        Open the page in a browser. Default: yes, but for a notebook, which shows the page in its cell.
    block : bool, optional
        Return only when it was stopped with Ctrl-C. Default: in scripts, which would end otherwise, but not
        at a prompt or in a notebook.
    deploy : str, optional
        Where runs work, as in `emcube.deploy`: ``"local workers=4"``. Default: the deployment in force.
    address : str, optional
        Where the browser reaches the port if not on its own machine, such as that of a proxy:
        ``"https://hub.example.org/user/me/proxy/{port}/"``. Its host may then ask, too.

    Returns
    -------
    Explorer
        Runs until it is closed or the process ends.

    Raises
    ------
    ReadError, StoreError, CatalogError, AmbiguousSignalError, IncompleteError
        `source` cannot be opened.
    InputError
        The port is taken.
    MissingDependencyError
        Bokeh is not installed.

    Notes
    -----
    The page is served on 127.0.0.1 only, under an address with a random token that every request must have.
    Each browser has a visit of its own. A tunnel brings it to another machine:
    ``ssh -L 8000:127.0.0.1:PORT machine``, then the printed address with port 8000.

    Examples
    --------
    >>> em.explore("map.zarr")  # doctest: +SKIP
    """
    require_bokeh()
    from emcube.explore.session import Session

    def begin() -> Session:
        return Session.open(source, name=name)  # type: ignore[arg-type]

    # At once, in this thread: what cannot be opened is the caller's error, not the page's.
    first = None if source is None else begin()
    try:
        with ExitStack() as stack:
            if deploy is not None:
                from emcube.deploy.environment import chosen

                stack.enter_context(chosen(deploy))
            explorer = Explorer(
                None if source is None else begin, first, port=port, address=address
            )
            explorer.callback(stack.pop_all().close)
    except BaseException:
        if first is not None:
            first.close()
        raise
    notebook = in_notebook()
    if browser or (browser is None and not notebook):
        explorer.open_browser()
    if block or (block is None and not notebook and not at_prompt()):
        explorer.wait()
    return explorer


def require_bokeh() -> None:
    """Refuse without the packages of the extra.

    Raises
    ------
    MissingDependencyError
        Naming the extra.
    """
    try:
        import bokeh  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "the explorer needs Bokeh, which is not installed",
            hint='install it with: pip install "emcube[explore]"',
        ) from error


def in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this."""
    shell = _shell()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def at_prompt() -> bool:
    """Whether somebody types at a prompt of Python or IPython."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive) or _shell() is not None


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


class Explorer:
    """An explorer that is being served, from a thread of this process.

    Made by `emcube.explore`. In a notebook it shows its page; use it as a context manager to close it at the
    end.

    Parameters
    ----------
    begin : callable, optional
        Opens what is explored, for each visit anew.
    first : Session, optional
        One that was opened already, for the first visit.
    port : int
        0 for any.
    address : str, optional
        See `explore`.

    Attributes
    ----------
    url : str
        Of the page, with its token.
    port : int
    """

    def __init__(
        self,
        begin: Callable[[], Session] | None = None,
        first: Session | None = None,
        *,
        port: int = 0,
        address: str | None = None,
    ) -> None:
        import emcube.explore.visit  # noqa: F401 (takes a second or two, which the first page need not wait for)

        self._begin, self._first = begin, first
        self._token = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self._visits: dict[str, Visit] = {}
        self._closing = ExitStack()
        self._stopped, self._ready = threading.Event(), threading.Event()
        self._sockets = _bind(port)
        self.port = int(self._sockets[0].getsockname()[1])
        self._problem: BaseException | None = None
        hosts: tuple[str, ...] = ()
        base = f"http://{ADDRESS}:{self.port}/"
        if address is not None:
            base = address.replace("{port}", str(self.port)).rstrip("/") + "/"
            hosts = (urlsplit(base).hostname or "",)
        self.url = f"{base}{self._token}/"
        self._thread = threading.Thread(
            target=self._serve, args=(hosts,), name="emcube explorer server", daemon=True
        )
        self._thread.start()
        self._ready.wait()
        if self._problem is not None:
            raise EngineError(
                f"the explorer's server did not start on port {self.port}: {self._problem}",
                hint="try another port",
            ) from self._problem

    def __repr__(self) -> str:
        state = "closed" if self._stopped.is_set() else self.url
        return f"<emcube explorer: {state}>"

    def _repr_html_(self) -> str:
        if self._stopped.is_set():
            return "<p>This explorer is closed.</p>"
        url = html.escape(self.url, quote=True)
        return (
            f'<iframe src="{url}" title="emcube explorer" allow="clipboard-write" '
            f'style="width:100%;height:{HEIGHT}px;border:1px solid #8a9099;border-radius:6px"></iframe>'
        )

    # ------------------------------------------------------------------------------------------- the thread

    def _serve(self, hosts: tuple[str, ...]) -> None:
        try:
            asyncio.set_event_loop(asyncio.new_event_loop())
            from bokeh.server.server import BaseServer
            from tornado.httpserver import HTTPServer
            from tornado.ioloop import IOLoop

            from emcube.explore.gate import Gate

            loop = IOLoop.current()
            gate = Gate(self._visit, self._token, hosts=hosts, file_of=self._file_of)
            http = HTTPServer(gate, max_buffer_size=16 << 20)
            http.add_sockets(self._sockets)
            server = BaseServer(loop, gate, http)
            server.start()
            self._loop, self._http, self._server = loop, http, server
        except BaseException as error:  # noqa: BLE001 (raised in the thread that waits for it)
            self._problem = error
            for one in self._sockets:
                one.close()
            self._stopped.set()
            self._ready.set()
            return
        self._ready.set()
        try:
            loop.start()
        finally:
            loop.close(all_fds=True)
            self._stopped.set()

    def _visit(self, document: Any) -> None:
        """Begin a visit: called by Bokeh, in the server's thread, for each browser."""
        from emcube.explore.visit import Visit

        with self._lock:
            first, self._first = self._first, None
        begin = self._begin if first is None else (lambda: first)
        visit = Visit(document, begin, self._open_other)
        key = str(document.session_context.id)
        with self._lock:
            self._visits[key] = visit

        def destroyed(context: Any) -> None:
            with self._lock:
                self._visits.pop(key, None)
            visit.end()

        document.on_session_destroyed(destroyed)

    @staticmethod
    def _open_other(source: str) -> Session:
        from emcube.explore.session import Session

        path = Path(source).expanduser()
        return Session.open(str(path) if source.startswith("~") else source)

    def _file_of(self, visit: str, key: str) -> Path | None:
        with self._lock:
            found = self._visits.get(visit)
        return None if found is None else found.files.get(key)

    # ------------------------------------------------------------------------------------------ from outside

    @property
    def visits(self) -> tuple[Visit, ...]:
        """Those that go on."""
        with self._lock:
            return tuple(self._visits.values())

    def callback(self, what: Callable[[], None]) -> None:
        """Have something called when it is closed."""
        self._closing.callback(what)

    def open_browser(self) -> None:
        """Show the page in a browser, where there is one."""
        try:
            webbrowser.open(self.url)
        except webbrowser.Error as error:  # the address was printed; it can be opened by hand
            _log.info("no browser could be opened: %s", error)

    def wait(self) -> None:
        """Wait until it is closed, or for Ctrl-C, which closes it."""
        try:
            # In steps: without a timeout Windows does not hear Ctrl-C.
            while not self._stopped.wait(0.5):
                pass
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        """Cancel what runs, end the visits, and stop serving. Does nothing the second time."""
        if self._stopped.is_set():
            return
        with self._lock:
            visits, self._visits = list(self._visits.values()), {}
            first, self._first = self._first, None
        for visit in visits:
            visit.end()
        for visit in visits:
            visit.join(60)
        if first is not None:
            first.close()
        self._loop.add_callback(self._stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(30)
        self._closing.close()

    async def _stop(self) -> None:
        self._server.stop(wait=False)
        await self._http.close_all_connections()
        self._loop.stop()

    def __enter__(self) -> Explorer:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def _bind(port: int) -> list[Any]:
    """Sockets on loopback.

    Raises
    ------
    InputError
        The port is taken, or may not be used.
    """
    from tornado.netutil import bind_sockets

    if not 0 <= port < 65536:
        raise InputError(
            f"port: got {port}, expected 0 to 65535", hint="0, the default, takes a free one"
        )
    try:
        return bind_sockets(port, ADDRESS)
    except OSError as error:
        raise InputError(
            f"port {port} of {ADDRESS} cannot be used: {error.strerror or error}",
            hint="give another one, or none to take a free one",
        ) from error
