"""Downloads that go on where they stopped, and take nothing for whole that is not.

HTTP is spoken with the standard library: ranges, entity tags and retries are part of what is promised
here, and what a server does wrong has to come out as one clear error. Other protocols go through fsspec.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from emcube.disk import exclusive, replace_file
from emcube.errors import CatalogError, InputError, MissingDependencyError
from emcube.feedback.events import working

__all__ = ["Progress", "download", "file_checksum"]

_PART = 2**20
#: Answers after which another try may go better.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
#: A server may ask for a pause; nobody waits longer than this for it, seconds.
_LONGEST_PAUSE = 60.0

#: What goes wrong between two machines, as opposed to on this one (a full disk is an OSError, too).
_NETWORK = (
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
    TimeoutError,
    ConnectionError,
)


@dataclass(frozen=True)
class Progress:
    """How far a download is.

    Attributes
    ----------
    done : int
        Bytes that are here.
    total : int or None
        Bytes of the file; None where nobody says.
    attempt : int
        1 for the first.
    message : str
        Why the last attempt ended, where it did.
    """

    done: int
    total: int | None
    attempt: int = 1
    message: str = ""


class _Passing(Exception):
    """Something that another try may mend."""

    def __init__(self, why: str, pause: float | None = None) -> None:
        super().__init__(why)
        self.pause = pause


def file_checksum(path: Path, algorithm: str = "sha256") -> str:
    """Checksum of a file's bytes, as ``"sha256:..."``.

    Raises
    ------
    InputError
        There is no such algorithm.
    """
    if algorithm not in ("md5", "sha1", "sha256", "sha512"):
        raise InputError(
            f"checksum: got the algorithm {algorithm!r}, expected md5, sha1, sha256 or sha512",
            hint="correct the catalog's entry",
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{found.hexdigest()}"


def download(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    attempts: int = 6,
    pause: float = 1.0,
    timeout: float = 30.0,
    progress: Callable[[Progress], None] | None = None,
    opener: urllib.request.OpenerDirector | None = None,
) -> Path:
    """Fetch a file; what came before is kept and continued.

    Parameters
    ----------
    url : str
        HTTP, HTTPS, or another address that fsspec knows.
    path : Path
        Where the file goes once it is whole; until then its bytes lie beside it, in ``NAME.part``.
    size : int, optional
        Bytes that it has to have.
    attempts : int
        Tries in a row that bring nothing; one that brings bytes starts the count anew.
    pause : float
        Seconds before the second try; doubled for each one after.
    timeout : float
        Seconds without a byte after which a try is given up.
    progress : callable, optional
        Gets a `Progress`.
    opener : OpenerDirector, optional
        Opens addresses of the web in place of urllib's own, as one that looks at redirections.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    CatalogError
        It is not there, its size is another one, or the server failed again and again; names the address.
    StoreError
        Another process is fetching it.
    MissingDependencyError
        The protocol needs a package that is not installed.
    OSError
        It cannot be written, as where the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_name(f".{path.name}.lock"), f"the download {str(path)!r}"):
        if path.exists() and (size is None or path.stat().st_size == size):
            return path
        part = path.with_name(f"{path.name}.part")
        have = part.stat().st_size if part.exists() else 0
        with working(f"download {path.name}", n_bytes=size or 0, bytes_done=have) as work:

            def tell(state: Progress) -> None:
                work.at(bytes_done=state.done, n_bytes=state.total or 0, message=state.message)
                if progress is not None:
                    progress(state)

            fetch = _Http(url, part, size, timeout, tell, opener)
            if urlsplit(url).scheme.lower() in ("http", "https"):
                fetch.run(attempts, pause)
            else:
                _with_fsspec(url, part, size)
        part.replace(path)
        fetch.note.unlink(missing_ok=True)
    return path


class _Http:
    """One file that is being fetched over HTTP."""

    def __init__(
        self,
        url: str,
        part: Path,
        size: int | None,
        timeout: float,
        progress: Callable[[Progress], None],
        opener: urllib.request.OpenerDirector | None = None,
    ) -> None:
        self.url, self.part, self.size, self.opener = url, part, size, opener
        self.timeout, self.progress = timeout, progress
        #: Address and entity tag of what the part is of: another version is not continued.
        self.note = part.with_name(f"{part.name}.json")

    def run(self, attempts: int, pause: float) -> None:
        failed, wait = 0, pause
        while True:
            before = self._have()
            try:
                self._once(failed + 1)
                return
            except _Passing as problem:
                if self._have() > before:
                    failed, wait = 0, pause
                failed += 1
                if failed >= attempts:
                    raise self._error(
                        f"{problem}, {failed} times in a row; {self._have()} bytes are kept",
                        "try again later: the download goes on where it stopped",
                    ) from None
                self.progress(Progress(self._have(), self.size, failed, str(problem)))
                asked = problem.pause
                time.sleep(wait if asked is None else min(max(asked, wait), _LONGEST_PAUSE))
                wait = min(2 * wait, _LONGEST_PAUSE)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _error(self, what: str, hint: str) -> CatalogError:
        return CatalogError(f"{self.url} cannot be fetched: {what}", hint=hint)

    def _once(self, attempt: int) -> None:
        start, headers = self._where_to_go_on()
        if self.size is not None and start == self.size:
            return
        request = urllib.request.Request(self.url, headers=headers)
        with self._answer(request) as answer:
            start = self._accepted(answer, start)
            total = self._total(answer, start)
            self._check_room(total, start)
            self._remember(answer)
            self._copy(answer, start, total, attempt)

    def _where_to_go_on(self) -> tuple[int, dict[str, str]]:
        """Bytes that are here, and the headers that ask for the rest of the same version."""
        headers = {"User-Agent": "emcube", "Accept-Encoding": "identity"}
        start, noted = self._have(), self._noted()
        if start and noted.get("url") != self.url:
            start = 0
        if self.size is not None and start > self.size:
            start = 0
        if start:
            headers["Range"] = f"bytes={start}-"
            if noted.get("etag"):
                headers["If-Range"] = noted["etag"]
        return start, headers

    def _noted(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.note.read_text(encoding="utf-8"))
            if isinstance(found, dict):
                return {str(key): str(value) for key, value in found.items()}
        return {}

    def _remember(self, answer: Any) -> None:
        tag = answer.headers.get("ETag") or ""
        # A weak tag does not promise the same bytes.
        known = {"url": self.url, "etag": "" if tag.startswith("W/") else tag}
        replace_file(self.note, json.dumps(known).encode())

    @contextlib.contextmanager
    def _answer(self, request: urllib.request.Request) -> Iterator[Any]:
        try:
            open_url = urllib.request.urlopen if self.opener is None else self.opener.open
            with open_url(request, timeout=self.timeout) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:
                # Nothing after what is here: then it is another file, or a longer part than the file.
                self.part.unlink(missing_ok=True)
                raise _Passing("the server has no such range") from None
            if error.code in _PASSING:
                raise _Passing(
                    f"the server says {error.code} {error.reason}", _seconds(error.headers)
                ) from None
            raise self._error(
                f"the server says {error.code} {error.reason}",
                "check the address, or ask whoever keeps the data"
                if error.code in (404, 410)
                else "the data may be restricted; ask whoever keeps them",
            ) from None
        except _NETWORK as error:
            reason = str(getattr(error, "reason", error))
            name = type(error).__name__
            raise _Passing(f"{name}: {reason}" if reason else name) from None

    def _accepted(self, answer: Any, start: int) -> int:
        """Where the answer's bytes begin."""
        if answer.status != 206:
            return 0
        text = str(answer.headers.get("Content-Range") or "")
        if not text.replace(" ", "").startswith(f"bytes{start}-"):
            self.part.unlink(missing_ok=True)
            raise _Passing(f"asked for bytes from {start}, the server gave {text or 'no range'!r}")
        return start

    def _total(self, answer: Any, start: int) -> int | None:
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length is not None and length.isdigit() else None
        if self.size is not None and total is not None and total != self.size:
            raise self._error(
                f"the server has a file of {total} bytes, expected {self.size}",
                "it is another version of the data; ask whoever keeps the catalog",
            )
        return self.size if total is None else total

    def _check_room(self, total: int | None, start: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if total is not None and total - start > free:
            raise self._error(
                f"{total - start} bytes are to come, and {free} are free in {self.part.parent}",
                "make room, or set EMCUBE_CACHE to a folder on a larger disk",
            )

    def _copy(self, answer: Any, start: int, total: int | None, attempt: int) -> None:
        with self.part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            done = start
            while block := self._block(answer, file):
                done += len(block)
                if total is not None and done > total:
                    file.truncate(total)
                    raise self._error(
                        f"the server sends more than the {total} bytes that were promised",
                        "ask whoever keeps the data",
                    )
                file.write(block)
                self.progress(Progress(done, total, attempt))
            file.flush()
            os.fsync(file.fileno())
        if total is not None and done < total:
            raise _Passing(f"the connection ended after {done} of {total} bytes")

    def _block(self, answer: Any, file: IO[bytes]) -> bytes:
        try:
            block: bytes = answer.read1(_PART)
        except http.client.IncompleteRead as error:
            file.write(error.partial)
            raise _Passing("the connection ended early") from None
        return block


def _seconds(headers: Any) -> float | None:
    text = str(headers.get("Retry-After") or "").strip()
    return float(text) if text.isdigit() else None


def _with_fsspec(url: str, part: Path, size: int | None) -> None:
    """Fetch from S3 and the like, whole."""
    try:
        import fsspec

        files, remote = fsspec.core.url_to_fs(url)
        files.get_file(remote, str(part))
    except ImportError as error:
        raise MissingDependencyError(
            f"{url} cannot be fetched: {error}",
            hint='install it with: pip install "emcube[remote]"',
        ) from error
    # The clients of S3 and others have errors of their own.
    except Exception as error:
        raise CatalogError(
            f"{url} cannot be fetched: {type(error).__name__}: {error}",
            hint="check the address and the credentials in the environment",
        ) from error
    found = part.stat().st_size
    if size is not None and found != size:
        part.unlink()
        raise CatalogError(
            f"{url} cannot be fetched: it has {found} bytes, expected {size}",
            hint="it is another version of the data; ask whoever keeps the catalog",
        )
