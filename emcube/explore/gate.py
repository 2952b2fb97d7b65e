"""Who may come in: a web application on loopback that answers nobody without its token.

The token is the first part of every path: of the page, of its scripts, of its socket and of what it lets
download. No cookie is set, since cookies of 127.0.0.1 go to every port of the machine, also to those of
other people.
"""

from __future__ import annotations

import hmac
import json
import logging
import mimetypes
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from bokeh.core.types import ID
from bokeh.server.contexts import ApplicationContext
from bokeh.server.tornado import BokehTornado
from bokeh.server.views.auth_request_handler import AuthRequestHandler
from bokeh.server.views.ws import WSHandler
from bokeh.util.token import generate_jwt_token, generate_session_id
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import HTTPError, OutputTransform, RequestHandler

__all__ = ["LOOPBACK", "Gate", "host_of"]

_log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names under which a browser of this machine, or one at the near end of a tunnel, knows the server."""

LINGER = 120_000
"""Milliseconds for which a visit that no browser shows is kept: a reload finds it again."""

TOKEN_LIFE = 30 * 24 * 3600
"""Seconds for which a browser may come back to its visit; the visit itself ends long before."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self' http://localhost:* http://127.0.0.1:* vscode-webview:"
)
"""The second lock: even a name that got into the page as code would not be run, and nothing is asked of
other hosts. Styles may be inline because BokehJS makes them so."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

SANDBOX = "sandbox allow-scripts allow-downloads"
"""Files that are shown, such as reports, live in an origin of their own, which sees nothing of the page."""


class Gate(BokehTornado):
    """The explorer's web application.

    Parameters
    ----------
    application : callable
        Fills the Bokeh document of a new visit.
    token : str
        First part of every path that is answered.
    hosts : iterable of str, optional
        Names of the server beside those of loopback, such as that of a proxy.
    file_of : callable, optional
        From a visit's identity and a file's key to the path of a file that may be downloaded, or None.
    """

    def __init__(
        self,
        application: Callable[[Any], None],
        token: str,
        *,
        hosts: tuple[str, ...] = (),
        file_of: Callable[[str, str], Path | None] = lambda visit, key: None,
    ) -> None:
        self.token = token
        self.hosts = frozenset((*LOOPBACK, *(host.lower() for host in hosts)))
        super().__init__(
            application,
            prefix=token,
            use_index=False,
            sign_sessions=False,
            generate_session_ids=False,
            include_headers=[],
            include_cookies=[],
            session_token_expiration=TOKEN_LIFE,
            unused_session_lifetime_milliseconds=LINGER,
            check_unused_sessions_milliseconds=5_000,
            transforms=[_Headers],
            log_function=_log_request,
        )
        context = {
            "application_context": self.applications["/"],
            "bokeh_websocket_path": f"{self.prefix}/ws",
        }
        socket = {**context, "compression_level": None, "mem_level": None}
        self.add_handlers(
            ".*",
            [
                (self.prefix, _Onwards),
                (f"{self.prefix}/()", _Page),
                (f"{self.prefix}/page/([a-z.]+)", _Page),
                (f"{self.prefix}/visit", _Visit, context),
                (f"{self.prefix}/ws", _Socket, socket),
                (f"{self.prefix}/files/([^/]+)/([^/]+)", _File, {"file_of": file_of}),
            ],
        )

    def refusal(self, request: HTTPServerRequest) -> str:
        """Say why a request is not answered; empty if it is.

        The host must be one of ours, or a stranger's page could reach this server under a name of its own
        (DNS rebinding). A request that names its origin must come from this very server.
        """
        if host_of(request.host) not in self.hosts:
            return "unknown host"
        given = request.path.lstrip("/").split("/", 1)[0]
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return "wrong token"
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != request.host.lower():
            return "another origin"
        return ""

    def find_handler(self, request: HTTPServerRequest, **options: Any) -> Any:
        """Find who answers: nobody does before the gate was passed."""
        reason = self.refusal(request)
        if reason:
            return self.get_handler_delegate(request, _Refused, {"why": reason})
        return super().find_handler(request, **options)


def _log_request(handler: RequestHandler) -> None:
    """Log a request without its path, which holds the token."""
    status, took = handler.get_status(), 1000 * handler.request.request_time()
    level = logging.ERROR if status >= 500 else logging.DEBUG
    _log.log(level, "%s: status %d in %.0f ms", handler.request.method, status, took)


def host_of(netloc: str) -> str:
    """The host of ``host:port`` in lower case; brackets of IPv6 stay."""
    name, _, port = netloc.lower().rpartition(":")
    return name if name and port.isdigit() else netloc.lower()


class _Headers(OutputTransform):
    """Adds to every answer what it forbids the browser."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        for key, value in HEADERS.items():
            if key not in headers:
                headers[key] = value
        return status_code, headers, chunk


class _Refused(RequestHandler):
    """Answers 403 to everything, and says too little to guess by."""

    def initialize(self, why: str) -> None:
        self.why = why

    def prepare(self) -> None:
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(
            f"Refused: {self.why}. Open the address that `emcube explore` printed, as it was printed.\n"
        )

    def log_exception(self, *error: Any) -> None:
        """Say nothing: a refusal is no fault of ours."""


class _Onwards(RequestHandler):
    """Leads to the page's own address, which ends in a slash; others are relative to it."""

    def get(self) -> None:
        self.redirect(f"{self.request.path}/")


class _Page(RequestHandler):
    """The page and its parts. They hold nothing of the visit, so that they are the same for everyone."""

    def get(self, name: str) -> None:
        source = resources.files("emcube.explore").joinpath("page", name or "index.html")
        if not source.is_file():
            raise HTTPError(404)
        kind = mimetypes.guess_type(source.name)[0] or "application/octet-stream"
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.set_header("Cache-Control", "no-cache")
        self.finish(source.read_bytes())


class _Visit(AuthRequestHandler):
    """Begins a visit, or finds the one again that a reloaded page had."""

    def initialize(
        self, application_context: ApplicationContext, bokeh_websocket_path: str
    ) -> None:
        self.context = application_context

    async def post(self) -> None:
        asked = self._asked()
        known = {str(session.id) for session in self.context.sessions}
        visit = ID(asked) if asked in known else generate_session_id(secret_key=None, signed=False)
        token = generate_jwt_token(visit, secret_key=None, signed=False, expiration=TOKEN_LIFE)
        session = await self.context.create_session_if_needed(visit, self.request, token)
        roots = [root.name for root in session.document.roots]
        self.set_header("Cache-Control", "no-store")
        self.finish({"visit": visit, "token": token, "roots": roots, "again": asked == visit})

    def _asked(self) -> str:
        try:
            return str(json.loads(self.request.body or b"{}").get("visit") or "")
        except (ValueError, AttributeError):
            raise HTTPError(400) from None


class _Socket(WSHandler):
    """Bokeh's socket; the gate has compared origin and host already."""

    def check_origin(self, origin: str) -> bool:
        gate = cast(Gate, self.application)
        return not gate.refusal(self.request)


class _File(RequestHandler):
    """A file that a visit has written: a report, a package."""

    def initialize(self, file_of: Callable[[str, str], Path | None]) -> None:
        self.file_of = file_of

    async def get(self, visit: str, key: str) -> None:
        path = self.file_of(visit, key)
        if path is None or not path.is_file():
            raise HTTPError(404)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        self.set_header("Content-Type", kind)
        self.set_header("Content-Security-Policy", SANDBOX)
        self.set_header("Cache-Control", "no-store")
        if kind != "text/html":
            self.set_header("Content-Disposition", "attachment")
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                self.write(part)
                await self.flush()
