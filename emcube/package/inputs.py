"""The input of a run: found by its digest when it is published, got again when it is reproduced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from emcube.catalog import open_catalog
from emcube.errors import CatalogError, EmcubeError, InputError
from emcube.package.addresses import address_of, is_url, without_secrets
from emcube.package.hosts import local_reason

if TYPE_CHECKING:
    from emcube.catalog import Entry
    from emcube.package.description import Address
    from emcube.results import Result

__all__ = [
    "Source",
    "Wanted",
    "addresses",
    "as_store",
    "find_entry",
    "find_source",
    "given_addresses",
    "require_digest",
]

Source = str | Path | Sequence[str | Path] | xr.DataArray
"""What a user may point at: a path or URL, several files of a series, or a cube in hand."""

_FOLDERS = 6
"""Folders above a result in which the input that its recipe names is looked for."""


# --------------------------------------------------------------------------------------- publishing


def find_entry(result: Result) -> Entry | None:
    """Find the catalog entry that the recipe named, if it is there and still of the same data.

    Parameters
    ----------
    result : Result
        Its recipe named paths relative to the recipe's folder, which is not recorded: the present folder
        and those above the result are tried, and the digest decides.
    """
    recorded = result.provenance["input"]
    catalog, dataset = recorded.get("catalog"), recorded.get("dataset")
    if catalog is None and isinstance(recorded.get("path"), str):
        # ``catalog.yaml:entry`` stands wherever a path may.
        catalog, dataset = _reference(recorded["path"]) or (None, None)
    if catalog is None or dataset is None:
        return None
    for place in _places(result, str(catalog)):
        try:
            entry = open_catalog(place)[str(dataset)]
        except CatalogError:
            continue
        # An instrument file that was listed by its headers alone has no digest: reading it will tell.
        if entry.metadata.get("digest") in (None, recorded["digest"]):
            return entry
    return None


def _reference(text: str) -> tuple[str, str] | None:
    """Catalog and entry that a path names (see `emcube.catalog.resolve`); None for any other path."""
    catalog, colon, entry = text.rpartition(":")
    if not colon or not entry or not catalog.lower().endswith((".yaml", ".yml")):
        return None
    return catalog, entry


def find_source(result: Result, entry: Entry | None) -> Source | None:
    """Find what the recipe named as its input, on this machine or behind a URL; None where it is not found.

    Parameters
    ----------
    result : Result
    entry : Entry or None
        From `find_entry`.

    Notes
    -----
    Stores are taken only if their digest is that of the input. Whether instrument files are the ones is
    known when they have been read (see `as_store`).
    """
    recorded = result.provenance["input"]
    if entry is not None:
        try:
            # Of the signals of a file, the entry knows which one is meant.
            return entry.open(recorded.get("name")) if entry.kind == "file" else entry.location()
        except CatalogError:
            return None
    named = recorded.get("path")
    if isinstance(named, list | tuple):
        return _found_series(result, [str(one) for one in named])
    if named is None or _reference(str(named)) is not None:
        return None  # of an entry that was not found, or is of other data now
    if is_url(str(named)):
        return str(named)
    for place in _places(result, str(named)):
        if _is_candidate(place, recorded):
            return place
    return None


def _found_series(result: Result, named: list[str]) -> list[Path] | None:
    for base in _bases(result):
        places = [base / Path(one).expanduser() for one in named]
        if all(place.exists() for place in places):
            return places
    return None


def _places(result: Result, text: str) -> Iterator[Path]:
    for base in _bases(result):
        place = base / Path(text.removeprefix("file://")).expanduser()
        if place.exists():
            yield place


def _bases(result: Result) -> Iterator[Path]:
    yield Path.cwd()
    yield from list(result.path.resolve().parents)[:_FOLDERS]


def _is_candidate(place: Path, recorded: Mapping[str, Any]) -> bool:
    from emcube.store import is_store, read_digest

    if recorded.get("name") is not None or not is_store(place):
        return True
    try:
        return bool(read_digest(place) == recorded["digest"])
    except EmcubeError:
        return False  # an unfinished store of the same name


def addresses(
    result: Result,
    entry: Entry | None,
    given: str | Sequence[str] | None,
    *,
    allow_local: bool = False,
) -> tuple[Address, ...]:
    """Addresses from which the input can be fetched: those given, and those that recipe or catalog name.

    Those that recipe or catalog name are left out where others do not reach them.

    Raises
    ------
    InputError
        One that was given is none, holds a secret, or is of this machine or a private network.
    """
    chosen = given_addresses(given, allow_local=allow_local)
    found = []
    named = result.provenance["input"].get("path")
    if isinstance(named, str) and is_url(named) and _reference(named) is None:
        found.append(address_of(without_secrets(named), "store"))
    if entry is not None and is_url(entry.target.location):
        target = entry.target
        # Of a catalog that knows instrument files, too, the target says which it is.
        kind = "file" if getattr(target, "kind", "zarr") == "file" else "store"
        place = f"{target.location}/{target.group}" if target.group else target.location
        found.append(address_of(without_secrets(place), kind))
    reached = [one for one in found if allow_local or not local_reason(one.url, look_up=False)]
    return tuple({address.url: address for address in (*chosen, *reached)}.values())


def given_addresses(
    given: str | Sequence[str] | None, *, allow_local: bool = False
) -> list[Address]:
    """Check addresses as a user gives them.

    Raises
    ------
    InputError
        One is none, holds a secret, or is of this machine or a private network.
    """
    found = [address_of(url) for url in ([given] if isinstance(given, str) else given or ())]
    for one in found:
        reason = "" if allow_local else local_reason(one.url, look_up=False)
        if reason:
            raise InputError(
                f"address: {one.url} is none at which others find the input: {reason}",
                hint="give one of the public net; where all readers are in your network: "
                "--allow-local-addresses (allow_local_addresses=True in Python), which they need as well",
            )
    return found


# -------------------------------------------------------------------------------------- both ways


@dataclass(frozen=True)
class Wanted:
    """What a store must hold, and how it is made where it is not one yet.

    Attributes
    ----------
    digest : str
    layout : str
        "dense" or "events".
    opening : dict
        Options of `emcube.open`: ``name``, ``dim``, ``values``.
    """

    digest: str
    layout: str
    opening: Mapping[str, Any]


def as_store(source: Source, wanted: Wanted, scratch: Path) -> Path:
    """Return a cube store of this machine that holds the wanted cube; one is made where needed.

    Parameters
    ----------
    source : path, URL, paths or DataArray
    wanted : Wanted
    scratch : Path
        Folder in which a store may be made.

    Raises
    ------
    InputError
        It holds another cube.
    ReadError, StoreError
        It cannot be read.
    """
    from emcube.store import is_store, read_digest

    if isinstance(source, str | Path) and not is_url(str(source)):
        path = Path(source).expanduser()
        if wanted.opening.get("name") is None and is_store(path):
            require_digest(read_digest(path), wanted.digest, str(path))
            return path
    store = _ingested(source, wanted, scratch / "cube.zarr")
    require_digest(read_digest(store), wanted.digest, _shown(source))
    return store


def _ingested(source: Source, wanted: Wanted, path: Path) -> Path:
    from emcube.sources import ingest

    options: dict[str, Any] = {}
    if not isinstance(source, xr.DataArray):
        several = not isinstance(source, str | Path)
        keys = ("name", "dim", "values") if several else ("name",)
        options = {k: wanted.opening[k] for k in keys if wanted.opening.get(k) is not None}
        source = [str(one) for one in source] if several else str(source)  # type: ignore[union-attr]
    return Path(ingest(source, path, layout=wanted.layout, overwrite=True, **options))


def require_digest(found: str, expected: str, what: str) -> None:
    """Refuse data that are not those of the run.

    Raises
    ------
    InputError
        The digests differ.
    """
    if found != expected:
        raise InputError(
            f"{what} is not the input of this run: the digest of its content is {found}, expected {expected}",
            hint="give the data that were analysed with --input (input= in Python); a digest covers values, "
            "axes and units, not names or metadata",
        )


def _shown(source: Source) -> str:
    if isinstance(source, xr.DataArray):
        return "the cube in hand"
    if isinstance(source, str | Path):
        return without_secrets(str(source)) if is_url(str(source)) else repr(str(source))
    return f"the series {[str(one) for one in source]!r:.200}"
