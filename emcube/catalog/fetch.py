"""From an entry to a store on this machine: download, compare with the digest, ingest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from emcube.catalog.cache import STORE, Record, folder_for, read_record, write_record
from emcube.catalog.download import Progress, download, file_checksum
from emcube.errors import CatalogError
from emcube.feedback.events import group

if TYPE_CHECKING:
    from emcube.catalog.model import Entry
    from emcube.store import IngestProgress

__all__ = ["Fetched", "fetch"]


@dataclass(frozen=True)
class Fetched:
    """A dataset that was brought here.

    Attributes
    ----------
    name : str
        Of the entry.
    file : Path
        The source's own file, untouched.
    store : Path
        The cube store made of it.
    checksum : str
        sha256 of the file.
    stated : str
        The checksum that it was compared with; "" where it was taken as it came.
    digest : str
        Of the cube.
    downloaded : bool
        False where the file was here already.
    recorded : str
        The catalog in which what was taken as it came is recorded; "" where there was nothing to record,
        or no way.
    not_recorded : str
        Why it could not be recorded there.
    """

    name: str
    file: Path
    store: Path
    checksum: str
    stated: str
    digest: str
    downloaded: bool
    recorded: str = ""
    not_recorded: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(self).items()
        }


def fetch(
    entry: Entry,
    *,
    accept_digest: bool = False,
    cache: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    ingesting: Callable[[IngestProgress], None] | None = None,
    attempts: int = 6,
    pause: float = 1.0,
    timeout: float = 30.0,
) -> Fetched:
    """Bring an entry's file here, compare it with its digest, and make a cube store of it.

    Parameters
    ----------
    entry : Entry
        Of an instrument file behind a URL.
    accept_digest : bool
        Take the bytes as they come where nobody has checked the digest; what comes is recorded, and
        compared from then on: in the cache, and in the catalog where that is a file that can be written,
        so that whoever fetches next is compared, too (``checksum_status: accepted``).
    cache : Path, optional
        Folder of the cache; by default EMCUBE_CACHE, else the user's.
    progress, ingesting : callable, optional
        Get the progress of download and ingest.
    attempts, pause, timeout
        As for `emcube.catalog.download.download`.

    Returns
    -------
    Fetched

    Raises
    ------
    CatalogError
        There is nothing to fetch, it is not there, its digest is another one, or nobody has checked its
        digest.
    ReadError, AmbiguousSignalError
        The file is not one that can be ingested.
    StoreError
        The store cannot be written, or another process is fetching.

    Notes
    -----
    A download that was interrupted goes on where it stopped, and so does an ingest. A file with a wrong
    digest is removed: it is never opened. A zip archive is unpacked beside it once its digest was compared;
    see `emcube.catalog.archives`.
    """
    target = entry.target
    where = f"entry {entry.name!r} of {entry.catalog}"
    if target.kind != "file" or target.is_local:
        raise CatalogError(
            f"{where} has nothing to fetch: it is {target.location}, "
            + ("which is opened where it lies" if target.kind == "zarr" else "on this machine"),
            hint=f"open it with emcube.open({f'{entry.catalog}:{entry.name}'!r})",
        )
    with group(f"fetch {entry.name}"):
        return _fetched(
            entry, where, accept_digest, cache, progress, ingesting, (attempts, pause, timeout)
        )


def _fetched(
    entry: Entry,
    where: str,
    accept_digest: bool,
    cache: Path | None,
    progress: Callable[[Progress], None] | None,
    ingesting: Callable[[IngestProgress], None] | None,
    patience: tuple[int, float, float],
) -> Fetched:
    """Download, compare, ingest, record."""
    folder = folder_for(entry, cache)
    known = read_record(folder)
    taken = known is not None and known.accepted
    if known is not None and entry.metadata.get("checksum") not in (None, known.checksum):
        taken = False
    stated = _stated(entry, where, accept_digest or taken)
    location = entry.target.location
    path = folder / _filename(entry, location)
    size = entry.metadata.get("size")
    here = path.exists()
    attempts, pause, timeout = patience
    download(
        location,
        path,
        size=size if isinstance(size, int) else None,
        attempts=attempts,
        pause=pause,
        timeout=timeout,
        progress=progress,
    )
    record = _compared(entry, where, path, stated, known)
    write_record(folder, record)
    record = _ingested(entry, folder, path, record, ingesting)
    write_record(folder, record)
    recorded, why_not = "", ""
    if accept_digest and record.accepted:
        try:
            _record_in_catalog(entry, record, folder / STORE)
            recorded = str(entry.catalog)
        except OSError as error:
            why_not = error.strerror or str(error)
        except CatalogError as error:
            why_not = error.message
    return Fetched(
        entry.name,
        path,
        folder / STORE,
        record.checksum,
        record.stated,
        record.digest,
        not here,
        recorded,
        why_not,
    )


def _record_in_catalog(entry: Entry, record: Record, store: Path) -> None:
    """Write into the entry what came, and what it says of itself where the entry says nothing.

    Raises
    ------
    CatalogError
        The catalog is not on this machine, has no such entry any more, or states another checksum by now.
    OSError
        It cannot be written.
    """
    from emcube.catalog.describe import describe_store
    from emcube.catalog.document import change

    where = f"entry {entry.name!r} of {entry.catalog}"
    found = {
        "checksum": record.checksum,
        "checksum_status": "accepted",
        "size": record.size,
        "digest": record.digest,
    }
    own = describe_store(str(store))

    def edit(document: dict[str, Any]) -> None:
        raw = document["entries"].get(entry._key or entry.name)
        if not isinstance(raw, dict):
            raise CatalogError(f"{where} is gone", hint="add it again")
        before = raw.get("metadata") or {}
        if before.get("checksum_status") in _TRUSTED and before.get("checksum") != record.checksum:
            raise CatalogError(
                f"{where} states {before.get('checksum')} by now", hint="fetch it again"
            )
        raw["metadata"] = {**own, **before, **found}

    change(entry.catalog, edit)


#: States of a checksum with which bytes are compared.
_TRUSTED = ("checked", "published", "accepted")


def _stated(entry: Entry, where: str, accept: bool) -> str:
    """The checksum to compare with; "" where none is to be trusted and the user takes what comes."""
    checksum = entry.metadata.get("checksum")
    status = entry.metadata.get("checksum_status", "published" if checksum else "unchecked")
    if checksum and status in _TRUSTED:
        return str(checksum)
    if accept:
        return ""
    states = f"it states {checksum}" if checksum else "it states none"
    raise CatalogError(
        f"{where}: nobody has checked its digest ({states}), so nothing tells whether what comes is what "
        "was meant",
        hint="take what comes with --accept-digest (accept_digest=True): it is recorded, and compared "
        "from then on",
    )


def _filename(entry: Entry, url: str) -> str:
    """Name of the file: the catalog's or the address's last part, and nothing but a name."""
    named = entry.metadata.get("filename")
    text = str(named) if named else unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    plain = text.replace("\\", "/").rsplit("/", 1)[-1].strip().lstrip(".")
    plain = "".join(c if c.isprintable() and c not in '<>:"|?*\0' else "_" for c in plain)
    return plain[:150] or "file"


def _compared(entry: Entry, where: str, path: Path, stated: str, known: Record | None) -> Record:
    """What is known of the file, after comparing it with whatever it can be compared with."""
    url = entry.target.location
    checksum = file_checksum(path)
    if stated:
        algorithm = stated.partition(":")[0]
        found = checksum if algorithm == "sha256" else file_checksum(path, algorithm)
        if found != stated:
            raise _other_bytes(where, url, path, found, stated)
    if not stated and known is not None and known.checksum != checksum:
        raise _other_bytes(
            where, url, path, checksum, f"{known.checksum}, as when it was fetched first"
        )
    same = known is not None and known.checksum == checksum
    return Record(
        url=url,
        filename=path.name,
        size=path.stat().st_size,
        checksum=checksum,
        stated=stated,
        accepted=not stated,
        digest=known.digest if same and known is not None else "",
        signal=known.signal if same and known is not None else "",
    )


def _other_bytes(where: str, url: str, path: Path, found: str, expected: str) -> CatalogError:
    size = path.stat().st_size
    path.unlink()
    return CatalogError(
        f"{where}: {url} is not the file that was meant: {size} bytes with {found}, expected {expected}",
        hint="the file was removed, nothing was opened; fetch it again, or ask whoever keeps the data",
    )


def _ingested(
    entry: Entry,
    folder: Path,
    path: Path,
    record: Record,
    progress: Callable[[IngestProgress], None] | None,
) -> Record:
    """Make the store, where it is not there already, and add its digest to the record."""
    from dataclasses import replace

    from emcube.catalog.archives import data_file, forget_unpacked
    from emcube.cube import validate_cube
    from emcube.io.opening import open_file
    from emcube.store import is_store, read_digest, write_cube

    store = folder / STORE
    if record.digest and is_store(store) and read_digest(store) == record.digest:
        return record
    if not record.digest and is_store(store):
        # Of other bytes, that were taken before the catalog said which are meant; or never recorded.
        shutil.rmtree(store)
    signal, member = entry.metadata.get("signal"), entry.metadata.get("member")
    where = f"entry {entry.name!r} of {entry.catalog}"
    source = data_file(path, None if member is None else str(member), where)
    cube, companions = open_file(source, None if signal is None else str(signal))
    write_cube(validate_cube(cube), store, companions=companions, progress=progress)
    forget_unpacked(path)
    digest = read_digest(store)
    expected = entry.metadata.get("digest")
    if expected and digest != expected:
        raise CatalogError(
            f"{where}: the cube in {path.name} has the digest {digest}, expected {expected}",
            hint="the file is the right one, but is read another way: compare the versions of emcube and "
            "RosettaSciIO, or ask whoever keeps the catalog",
        )
    found = (cube.attrs.get("metadata") or {}).get("source") or {}
    return replace(record, digest=digest, signal=str(found.get("signal") or ""))
