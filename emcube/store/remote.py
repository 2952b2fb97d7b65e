"""Files behind an address, through fsspec: read with patience, written whole.

Credentials are fsspec's business alone: they come from the environment or from fsspec's configuration in
whatever process opens the address, and nothing here takes, keeps or shows them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from emcube.addresses import check_address, join, redact
from emcube.errors import MissingDependencyError, StoreError

__all__ = ["PAUSES", "Remote", "file_system", "may_pass", "patiently", "reading", "unreadable"]

T = TypeVar("T")

#: Seconds before another try: a long run should outlive a server's restart and a dropped connection.
PAUSES = (0.2, 1.0, 3.0)
#: Statuses of HTTP that may be gone in a moment; all others are answers.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Answers, not accidents.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_READ_ONLY = ("http", "https")


def unreadable() -> tuple[type[Exception], ...]:
    """What zarr, fsspec and its clients raise where something cannot be read."""
    found: tuple[type[Exception], ...] = (OSError, KeyError, ValueError, TypeError)
    # The clients of HTTP and S3 have errors of their own; they are loaded only when they are used.
    for client, names in (
        ("aiohttp", ("ClientError",)),
        ("botocore.exceptions", ("BotoCoreError", "ClientError")),
    ):
        if client in sys.modules:
            found = (*found, *(getattr(sys.modules[client], name) for name in names))
    return found


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, (StoreError, *_FINAL)):
        return False
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status in _PASSING
    # Of botocore's errors those of missing or wrong credentials last.
    return isinstance(error, unreadable()) and "Credential" not in type(error).__name__


def patiently(call: Callable[[], T]) -> T:
    """Call, and call again after `PAUSES` where what went wrong may pass."""
    for pause in PAUSES:
        try:
            return call()
        except Exception as error:
            if not may_pass(error):
                raise
            time.sleep(pause)
    return call()


@contextmanager
def reading(address: str) -> Iterator[None]:
    """Turn what goes wrong at an address into an error that names it, without credentials.

    Raises
    ------
    FileNotFoundError
        There is nothing: as it is.
    MissingDependencyError
        The client of the protocol is not installed.
    StoreError
        Anything else.
    """
    try:
        yield
    except (FileNotFoundError, StoreError):
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"cannot open {redact(address)}: {redact(str(error))}",
            hint='install it with: pip install "emcube[remote]"',
        ) from error
    except unreadable() as error:
        raise StoreError(
            f"{redact(address)} cannot be read: {redact(str(error)) or type(error).__name__}",
            hint="check the address, the credentials in the environment, and whether it is reachable",
        ) from _showable(error)


def _showable(error: Exception) -> Exception | None:
    """The error, where a traceback may show it: servers send clients on to addresses with signatures."""
    return error if redact(str(error)) == str(error) else None


def file_system(address: str) -> tuple[Any, str]:
    """The file system behind an address, and the address as it calls it."""
    import fsspec

    # A remembered listing would hide what others, and other threads here, have written since.
    files, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
    return files, str(root)


class Remote:
    """A folder behind an address.

    Parameters
    ----------
    address : str
        Without credentials (see `emcube.addresses.check_address`).

    Raises
    ------
    InputError
        The address holds credentials.
    MissingDependencyError
        The client of its protocol is not installed.

    Notes
    -----
    Names are relative to the address. Nothing is remembered: each question is asked anew.
    """

    def __init__(self, address: str) -> None:
        self.address = check_address(address)
        with reading(self.address):
            self.files, self.root = file_system(self.address)

    def __reduce__(self) -> tuple[Any, ...]:
        # By its address: another process finds its own credentials.
        return Remote, (self.address,)

    def _at(self, name: str) -> str:
        return join(self.root, name) if name else self.root

    def read(self, name: str, *, patient: bool = False) -> bytes | None:
        """Contents of a file; None where there is none.

        Parameters
        ----------
        name : str
        patient : bool
            Try again where what went wrong may pass; a first look at an address rather answers at once.

        Raises
        ------
        StoreError
            It cannot be read.
        """
        with reading(join(self.address, name)):
            place = self._at(name)
            try:
                if patient:
                    return bytes(patiently(lambda: self.files.cat_file(place)))
                return bytes(self.files.cat_file(place))
            except FileNotFoundError:
                return None

    def sizes(self) -> dict[str, int]:
        """Bytes of every file below the address, by name; empty where there is nothing."""
        with reading(self.address):
            try:
                found = self.files.find(self.root, detail=True)
            except FileNotFoundError:
                return {}
        start = len(self.root.strip("/")) + 1
        return {
            str(path).strip("/")[start:]: int(entry.get("size") or 0)
            for path, entry in found.items()
        }

    def put(self, name: str, data: bytes) -> None:
        """Write a file, and see that it is there with all its bytes.

        Raises
        ------
        StoreError
            It cannot be written.
        """
        place = self._at(name)

        def write() -> None:
            self.files.pipe_file(place, data)
            found = int(self.files.info(place)["size"])
            if found != len(data):
                raise OSError(f"{found} bytes arrived of {len(data)}")

        with self._writing(name):
            patiently(write)

    def remove(self, name: str = "") -> None:
        """Remove a file, or with an empty name everything; what is not there is removed already."""
        with self._writing(name):
            try:
                self.files.rm(self._at(name), recursive=not name)
            except FileNotFoundError:
                return

    def require_writable(self) -> None:
        """Refuse an address that can only be read.

        Raises
        ------
        StoreError
            It is one of the web.
        """
        scheme = self.address.partition("://")[0].lower()
        if scheme in _READ_ONLY:
            raise StoreError(
                f"cannot write to {self.address}: web servers are read only, expected storage such as s3://",
                hint="write to a local folder and put it on the server, or to an address of its storage",
            )

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except unreadable() as error:
            raise StoreError(
                f"cannot write to {join(self.address, name)}: {redact(str(error)) or type(error).__name__}",
                hint="check that the bucket exists and that the credentials in the environment may write; "
                "the same command goes on where it stopped",
            ) from _showable(error)
