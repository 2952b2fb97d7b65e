"""A web server that misbehaves on demand."""

from __future__ import annotations

import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Manners:
    """How the server answers for one path; every list is used up from the front, then it behaves."""

    #: Status codes to answer with first.
    errors: list[int] = field(default_factory=list)
    #: Bytes after which the connection ends though the header promised all.
    cuts: list[int] = field(default_factory=list)
    #: Seconds to wait before the body.
    waits: list[float] = field(default_factory=list)
    #: Whether ranges are answered with ranges.
    ranges: bool = True
    #: Whether the length is told.
    length: bool = True
    etag: str = '"one"'
    #: Where to send clients instead.
    location: str = ""
    retry_after: str = ""


class Server:
    """What is served, how, and what was asked for."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.contents: dict[str, bytes | Path] = {}
        self.manners: dict[str, Manners] = {}
        self.asked: Counter[str] = Counter()
        self.headers: list[tuple[str, dict[str, str]]] = []
        #: Served under their last name, whatever the path before it.
        self.by_name: dict[str, Path] = {}

    def put(self, path: str, content: bytes | Path, **manners: object) -> str:
        """Serve something; returns its address."""
        self.contents[path] = content
        self.manners[path] = Manners(**manners)  # type: ignore[arg-type]
        return f"{self.address}{path}"

    def find(self, path: str) -> bytes | None:
        found = self.contents.get(path) or self.by_name.get(path.rpartition("/")[2])
        return found.read_bytes() if isinstance(found, Path) else found


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            manners = server.manners.get(path, Manners())
            if body:
                server.asked[path] += 1
                server.headers.append((path, dict(self.headers)))
            content = server.find(path)
            if manners.errors or content is None:
                code = manners.errors.pop(0) if manners.errors else 404
                self.send_response(code)
                if manners.retry_after:
                    self.send_header("Retry-After", manners.retry_after)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if manners.location:
                self.send_response(302)
                self.send_header("Location", manners.location)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send(content, manners, body)

        def send(self, content: bytes, manners: Manners, body: bool) -> None:
            start, stop = 0, len(content)
            asked = self.headers.get("Range", "")
            same = self.headers.get("If-Range", manners.etag) == manners.etag
            ranged = manners.ranges and same and asked.startswith("bytes=")
            if ranged:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start = int(first) if first else max(0, len(content) - int(last))
                stop = min(len(content), int(last) + 1) if first and last else len(content)
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            part = content[start:stop]
            self.send_response(206 if ranged else 200)
            if ranged:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
            if manners.etag:
                self.send_header("ETag", manners.etag)
            if manners.length:
                self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if not body:
                return
            if manners.waits:
                time.sleep(manners.waits.pop(0))
            if manners.cuts:
                part = part[: manners.cuts.pop(0)]
                self.close_connection = True
            try:
                self.wfile.write(part)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    return Handler


@contextmanager
def serving() -> Iterator[Server]:
    """Serve on loopback until the end of the block."""
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), http.server.BaseHTTPRequestHandler
    ) as socket_server:
        server = Server(f"http://127.0.0.1:{socket_server.server_port}")
        socket_server.RequestHandlerClass = _handler(server)
        socket_server.daemon_threads = True
        thread = threading.Thread(target=socket_server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            socket_server.shutdown()
            thread.join()
