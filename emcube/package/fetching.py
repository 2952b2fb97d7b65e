"""Fetch the input of a package into a cache: whole, checked, or not at all.

The cache holds one cube store for each digest. What comes from an address is data of a stranger: the files of
a store are checked like those of a package before zarr sees them, and the digest of the values decides.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from emcube.catalog.download import download
from emcube.disk import exclusive
from emcube.errors import (
    CatalogError,
    InputError,
    MissingDependencyError,
    PackageError,
    ReadError,
    StoreError,
)
from emcube.package.addresses import without_secrets
from emcube.package.description import Address
from emcube.package.hosts import guarded_client, guarded_opener, require_public
from emcube.package.inputs import Wanted, as_store
from emcube.package.names import check_name, check_names
from emcube.package.stores import check_store, load_json
from emcube.store import compute_digest, open_cube, read_digest
from emcube.store.journal import HIDDEN, Journal

__all__ = ["cache_folder", "cached", "fetch"]

TRIES = 4
PATIENCE = 60.0
"""Seconds without a byte after which a connection counts as dropped."""

MAX_DOCUMENT = 256 * 2**20
PIECE = 2**20
_MANIFEST = f"{HIDDEN}/manifest.json"


def cache_folder(given: str | os.PathLike[str] | None) -> Path:
    """Where fetched inputs are kept: as given, ``EMCUBE_CACHE``, or the user's cache folder."""
    from platformdirs import user_cache_path

    chosen = given if given is not None else os.environ.get("EMCUBE_CACHE", "").strip() or None
    base = Path(user_cache_path("emcube", appauthor=False)) if chosen is None else Path(chosen)
    return base.expanduser() / "cubes"


def _place(digest: str, folder: Path) -> Path:
    return folder / f"{digest.removeprefix('sha256:')}.zarr"


def cached(digest: str, folder: Path) -> Path | None:
    """The store of a digest in the cache; None where it is not there whole.

    Parameters
    ----------
    digest : str
        Of the cube.
    folder : Path
        From `cache_folder`.
    """
    place = _place(digest, folder)
    if not (place / "zarr.json").is_file():
        return None
    try:
        return place if read_digest(place) == digest else None
    except StoreError:
        return None


def fetch(
    wanted: Wanted, addresses: tuple[Address, ...], folder: Path, *, allow_local: bool = False
) -> Path:
    """Fetch a cube into the cache from the first of some addresses that has it.

    Parameters
    ----------
    wanted : Wanted
    addresses : tuple of Address
    folder : Path
        From `cache_folder`.
    allow_local : bool
        Ask hosts of this machine and of private networks, too.

    Returns
    -------
    Path
        A cube store whose values have the digest.

    Raises
    ------
    InputError
        No address gave the cube; says of each why.
    """
    place = _place(wanted.digest, folder)
    folder.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    with exclusive(folder / f".{place.name}.lock", f"the cache at {str(place)!r}"):
        there = cached(wanted.digest, folder)
        if there is not None:
            return there
        for address in addresses:
            with tempfile.TemporaryDirectory(prefix=".emcube-fetch-", dir=folder) as scratch:
                try:
                    store = _fetched(wanted, address, Path(scratch), allow_local=allow_local)
                except (
                    CatalogError,
                    InputError,
                    MissingDependencyError,
                    ReadError,
                    StoreError,
                ) as error:
                    failed.append(f"{without_secrets(address.url)}: {error}")
                    continue
                shutil.rmtree(place, ignore_errors=True)
                store.rename(place)
                return place
    raise InputError(
        f"the input of this package could not be fetched: {'; '.join(failed)}",
        hint="get it by other means and give it with --input (input= in Python)",
    )


def _fetched(wanted: Wanted, address: Address, scratch: Path, *, allow_local: bool) -> Path:
    if not allow_local:
        require_public(address.url)
    if address.kind == "store":
        return _fetched_store(wanted, address.url.rstrip("/"), scratch, guarded=not allow_local)
    name = Path(unquote(urlsplit(address.url).path)).name or "file"
    check_name(name, without_secrets(address.url))
    # What came of a download that was cut off is kept for the next try, beside the cubes.
    kept = scratch.parent / f".emcube-download-{sha256(address.url.encode()).hexdigest()[:16]}"
    try:
        file = download(
            address.url,
            kept / name,
            attempts=TRIES,
            pause=0.5,
            timeout=PATIENCE,
            opener=None if allow_local else guarded_opener(),
        )
        return as_store(file, wanted, scratch)
    finally:
        if not any(kept.glob("*.part")):
            shutil.rmtree(kept, ignore_errors=True)


def _fetched_store(wanted: Wanted, url: str, scratch: Path, *, guarded: bool) -> Path:
    """Copy a store file by file, as its own manifest lists them; one without a manifest is ingested."""
    root = scratch / "cube.zarr"
    with _remote(url, guarded=guarded) as files:
        document = files.read("zarr.json")
        plain = load_json(document, f"{url}/zarr.json")
        own = plain.get("attributes", {}).get("emcube") if isinstance(plain, dict) else None
        claimed = own.get("digest") if isinstance(own, dict) else None
        if claimed != wanted.digest:
            raise InputError(
                f"{url} holds a cube of the digest {claimed!r:.80}, expected {wanted.digest}",
                hint="the data there have changed since the package was made",
            )
        manifest = files.read(_MANIFEST)
        listed = _listed(manifest, url)
        _require_room(sum(size for size, _ in listed.values()), scratch)
        for name, (size, digest) in listed.items():
            files.copy(name, root.joinpath(*name.split("/")), size, digest)
    (root / HIDDEN).mkdir(parents=True, exist_ok=True)
    (root / _MANIFEST).write_bytes(manifest)
    # Last, as whoever writes a store does: it makes the store complete.
    (root / "zarr.json").write_bytes(document)
    check_store(root, url)
    Journal(root).manifest()
    found = compute_digest(open_cube(root))
    if found != wanted.digest:
        raise InputError(
            f"the values at {url} have the digest {found}, expected {wanted.digest}",
            hint="the store there is damaged",
        )
    return root


def _listed(manifest: bytes, url: str) -> dict[str, tuple[int, str]]:
    """Files of a store, their sizes and digests, as its manifest has them."""
    plain = load_json(manifest, f"{url}/{_MANIFEST}")
    files = plain.get("files") if isinstance(plain, dict) else None
    if not isinstance(files, dict):
        raise PackageError(f"{url}/{_MANIFEST} lists no files", hint="the store there is damaged")
    listed: dict[str, tuple[int, str]] = {}
    for name, entry in files.items():
        check_name(name, f"{url}/{_MANIFEST}")
        good = isinstance(entry, list) and len(entry) == 2 and type(entry[0]) is int
        if not good or entry[0] < 0 or not isinstance(entry[1], str):
            raise PackageError(
                f"{url}/{_MANIFEST}: {name!r} has {entry!r:.80}, expected its size and digest",
                hint="the store there is damaged",
            )
        listed[name] = (entry[0], entry[1])
    check_names([*listed, "zarr.json"] if "zarr.json" not in listed else listed, url)
    listed.pop("zarr.json", None)
    return listed


def _require_room(n_bytes: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise StoreError(
            f"{n_bytes:,} bytes are to be fetched into {str(folder.parent)!r}, and {free:,} are free",
            hint="make room, or put the cache elsewhere with --cache or EMCUBE_CACHE",
        )


# -------------------------------------------------------------------------------------- remote stores


class _Files:
    """Files behind an address, through fsspec."""

    def __init__(self, system: Any, root: str, url: str) -> None:
        self.system, self.root, self.url = system, root.rstrip("/"), url

    def read(self, name: str) -> bytes:
        """A document, whole."""
        with self.system.open(f"{self.root}/{name}", "rb") as file:
            data: bytes = file.read(MAX_DOCUMENT + 1)
        if len(data) > MAX_DOCUMENT:
            raise StoreError(
                f"{self.url}/{name} is larger than {MAX_DOCUMENT:,} bytes", hint="check the address"
            )
        return data

    def copy(self, name: str, target: Path, size: int, expected: str) -> None:
        """Copy a file that has this many bytes and this digest."""
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = blake2b(digest_size=16)
        n = 0
        with self.system.open(f"{self.root}/{name}", "rb") as source, target.open("xb") as file:
            while n <= size and (piece := source.read(PIECE)):
                n += len(piece)
                digest.update(piece)
                file.write(piece)
        if n != size or digest.hexdigest() != expected:
            raise StoreError(
                f"{self.url}/{name} is not what the store's manifest says: {n:,} bytes of {size:,}, digest "
                f"{digest.hexdigest()}, expected {expected}",
                hint="the store there is damaged, or was cut off on its way: try again",
            )


@contextmanager
def _remote(url: str, *, guarded: bool) -> Iterator[_Files]:
    """Open an address, and say of what goes wrong there where it was."""
    try:
        import fsspec

        options = guarded_client(url) if guarded else {}
        system, root = fsspec.core.url_to_fs(url, **options)
        yield _Files(system, str(root), url)
    except (StoreError, InputError):
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"cannot open {url}: {error}", hint='install it with: pip install "emcube[remote]"'
        ) from error
    except _problems() as error:
        if isinstance(error.__cause__, PackageError):
            raise error.__cause__ from None  # a redirection that was refused: fsspec takes it for absence
        raise StoreError(
            f"{url} cannot be read: {type(error).__name__} {error}".rstrip(),
            hint="check the address, and whether it is reachable",
        ) from error


def _problems() -> tuple[type[Exception], ...]:
    """What fsspec and its clients raise where something cannot be read; clients are loaded when used."""
    found: tuple[type[Exception], ...] = (OSError, KeyError, ValueError, TypeError)
    for client, name in (("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError")):
        if client in sys.modules:
            found = (*found, getattr(sys.modules[client], name))
    return found
