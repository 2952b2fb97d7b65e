"""Fetched data: where they lie in the user's cache, and what was found out about them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.catalog.places import cache_folder
from emcube.disk import replace_file
from emcube.errors import CatalogError

if TYPE_CHECKING:
    from emcube.catalog.model import Entry

__all__ = ["STORE", "Record", "fetched_store", "folder_for", "read_record", "write_record"]

STORE = "cube.zarr"
_RECORD = "fetched.json"


@dataclass(frozen=True)
class Record:
    """What is known of a fetched file.

    Attributes
    ----------
    url, filename : str
    size : int
        Bytes.
    checksum : str
        sha256 of the bytes, computed here.
    stated : str
        As the catalog gave it; "" where it gave none.
    accepted : bool
        Whether the user took the bytes as they came (``--accept-digest``).
    digest : str
        Of the cube; "" before it is ingested.
    signal : str
        Which signal of the file became the cube.
    """

    url: str
    filename: str
    size: int
    checksum: str
    stated: str = ""
    accepted: bool = False
    digest: str = ""
    signal: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def folder_for(entry: Entry, cache: Path | None = None) -> Path:
    """Folder of an entry's data in the cache; another address or checksum is another folder.

    A checksum that nobody vouches for is left out: one that is recorded once its bytes were taken as they
    came is that of the bytes that lie there already.
    """
    target, known = entry.target, entry.metadata
    vouched = known.get("checksum_status") not in ("unchecked", "accepted")
    parts = [
        target.location,
        (known.get("checksum") or "") if vouched else "",
        *(known.get(key) or "" for key in ("signal", "member")),
    ]
    token = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", entry.name).strip("-")[:40] or "data"
    return (cache or cache_folder()) / "datasets" / f"{slug}-{token}"


def fetched_store(entry: Entry, cache: Path | None = None) -> Path | None:
    """The finished store of a fetched entry; None where there is none."""
    target = entry.target
    if target.kind != "file" or target.is_local:
        return None
    folder = folder_for(entry, cache)
    record = read_record(folder)
    # The digest is recorded last, once the store is whole.
    return folder / STORE if record is not None and record.digest else None


def read_record(folder: Path) -> Record | None:
    """Read what is known of a fetched file; None where nothing was fetched.

    Raises
    ------
    CatalogError
        The record is damaged.
    """
    try:
        text = (folder / _RECORD).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        known = json.loads(text)
        return Record(**{key: known[key] for key in Record.__dataclass_fields__ if key in known})
    except (ValueError, TypeError) as error:
        raise CatalogError(
            f"{folder / _RECORD} is damaged: {error}",
            hint=f"remove {folder} and fetch the data again",
        ) from None


def write_record(folder: Path, record: Record) -> None:
    """Write what is known of a fetched file, whole or not at all."""
    replace_file(folder / _RECORD, json.dumps(asdict(record), indent=1).encode())
