"""Hold an entry against its data: does it open, and is it what the catalog says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.catalog.cache import folder_for, read_record
from emcube.catalog.download import file_checksum
from emcube.catalog.fair import Finding, fair_findings
from emcube.errors import CatalogError, EmcubeError, StoreError
from emcube.feedback.events import group, step

if TYPE_CHECKING:
    import xarray as xr

    from emcube.catalog.model import Catalog, Entry

__all__ = [
    "EntryReport",
    "ReplacedDataWarning",
    "require_same",
    "verify_catalog",
    "verify_entry",
    "warn_if_replaced",
]


class ReplacedDataWarning(UserWarning):
    """The data of an entry are not those that the catalog means."""


@dataclass(frozen=True)
class EntryReport:
    """What was found about an entry.

    Attributes
    ----------
    name : str
    opened : bool
    differences : tuple of str
        Where data and catalog disagree, or why the data do not open.
    unchecked : tuple of str
        What could not be compared, and why.
    missing : tuple of Finding
        What the entry lacks of the FAIR principles.
    """

    name: str
    opened: bool
    differences: tuple[str, ...]
    unchecked: tuple[str, ...]
    missing: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing disagrees."""
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {
            "name": self.name,
            "opened": self.opened,
            "differences": list(self.differences),
            "unchecked": list(self.unchecked),
            "missing": [vars(finding) for finding in self.missing],
        }


def verify_catalog(
    catalog: Catalog,
    names: Iterable[str] = (),
    *,
    deep: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[EntryReport]:
    """Verify entries one after the other.

    Parameters
    ----------
    catalog : Catalog
    names : iterable of str
        Of entries; all of them where it is empty. Those of nested catalogs are verified, too.
    deep : bool
        Also read all bytes, and compare digests that are computed anew.
    progress : callable, optional
        Gets the number of entries done and of all.

    Raises
    ------
    CatalogError
        The catalog has no such entry.
    """
    chosen, problems = _chosen(catalog, list(names))
    reports = [EntryReport(name, False, (problem,), (), ()) for name, problem in problems]
    with group("verify catalog", len(chosen)):
        for number, (name, entry) in enumerate(chosen.items()):
            step(number, name)
            reports.append(replace(verify_entry(entry, deep=deep), name=name))
            if progress is not None:
                progress(len(reports), len(chosen) + len(problems))
    return reports


def _chosen(catalog: Catalog, names: list[str]) -> tuple[dict[str, Entry], list[tuple[str, str]]]:
    """Entries by name, those of nested catalogs too, and what nested catalogs could not be read."""
    picked = catalog
    if names:
        picked = replace(catalog, entries={name: catalog[name] for name in names})
    found = picked.search()
    split = [problem.partition(": ") for problem in found.problems]
    return found.entries, [(name, why) for name, _, why in split]


def verify_entry(entry: Entry, *, deep: bool = False) -> EntryReport:
    """Open an entry and compare it with what the catalog says; see `verify_catalog`."""
    differences: list[str] = []
    unchecked: list[str] = []
    opened = False
    try:
        if entry.target.kind == "file" and not entry.available and not entry.target.is_local:
            unchecked.append("has not been fetched: nothing was compared")
        else:
            with _told(entry.target.location):
                cube = entry.open(verify=False)
            opened = True
            differences += _differences(entry, cube)
            _compare_digests(entry, deep, differences, unchecked)
    except EmcubeError as error:
        differences.append(f"does not open: {error}")
    return EntryReport(
        entry.name, opened, tuple(differences), tuple(unchecked), tuple(fair_findings(entry))
    )


def _differences(entry: Entry, cube: xr.DataArray) -> list[str]:
    """What the catalog says of the cube's form and the cube does not."""
    from emcube.cube import sig_dims
    from emcube.cube.schema import axis_units

    found: dict[str, Any] = {
        "dims": [str(dim) for dim in cube.dims],
        "sig_dims": list(sig_dims(cube)),
        "shape": list(cube.shape),
        "dtype": str(cube.dtype),
        "units": str(cube.attrs.get("units", "1")),
    }
    told = []
    for key, value in found.items():
        stated = entry.metadata.get(key)
        if (
            stated is not None
            and (list(stated) if isinstance(stated, (list, tuple)) else stated) != value
        ):
            told.append(f"{key}: the catalog says {_text(stated)}, the data say {_text(value)}")
    axes = entry.metadata.get("axes")
    for dim, axis in axes.items() if isinstance(axes, dict) else ():
        stated = axis.get("units") if isinstance(axis, dict) else None
        if dim in cube.dims and stated is not None and stated != axis_units(cube, dim):
            told.append(
                f"units of {dim}: the catalog says {stated}, the data say {axis_units(cube, dim)}"
            )
    return told


def _text(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _compare_digests(
    entry: Entry, deep: bool, differences: list[str], unchecked: list[str]
) -> None:
    from emcube.store import is_store, read_digest

    place = entry.location()
    stored = is_store(place)
    stated = entry.metadata.get("digest" if stored else "checksum")
    if not stated and not (stored and entry.fetched):
        unchecked.append(f"the catalog states no {'digest' if stored else 'checksum of the file'}")
        return
    if stored and stated and (found := read_digest(place)) != stated:
        differences.append(f"digest: the catalog says {stated}, the store says {found}")
        return
    if deep:
        try:
            require_same(entry, place, deep=True)
        except EmcubeError as error:
            differences.append(str(error))


def require_same(entry: Entry, place: str, *, deep: bool = False) -> None:
    """Raise unless an entry's bytes are those that the catalog means: one pass over them.

    Parameters
    ----------
    entry : Entry
    place : str
        Where its data lie, as `Entry.location` says.
    deep : bool
        Of a store also decode all values.

    Raises
    ------
    CatalogError
        They are others, or the entry states nothing to compare with.
    StoreError
        Files of the store are missing or damaged, or it is not on this machine.
    """
    from emcube.store import is_store, is_url

    where = f"entry {entry.name!r} of {entry.catalog}"
    if not is_store(place):
        _require_same_file(entry, where, Path(place))
        return
    digest = _remote_digest(place) if is_url(place) else _local_digest(place, deep)
    stated = entry.metadata.get("digest") or _fetched_digest(entry)
    if not stated:
        raise CatalogError(
            f"{where} states no digest to compare {place} with",
            hint="add the store anew with `emcube catalog add --overwrite`",
        )
    if stated != digest:
        raise CatalogError(
            f"{where}: {place} has the digest {digest}, expected {stated}",
            hint="the data were replaced: restore them, or add them anew with --overwrite",
        )


def warn_if_replaced(entry: Entry, place: str) -> None:
    """Warn where a store on this machine says that it holds other data than the catalog means.

    Compares the digest that the store keeps, and reads no values: `require_same` does.

    Warns
    -----
    ReplacedDataWarning
        The digests are not the same.
    """
    from emcube.store import is_store, is_url, read_digest

    stated = entry.metadata.get("digest")
    if not stated or is_url(place) or not is_store(place):
        return
    found = read_digest(place)
    if found != stated:
        warnings.warn(
            f"entry {entry.name!r} of {entry.catalog}: {place} has the digest {found}, expected {stated}: "
            "the data were replaced; restore them, or add them anew with "
            "`emcube catalog add --overwrite`",
            ReplacedDataWarning,
            stacklevel=2,
        )


def _local_digest(place: str, deep: bool) -> str:
    from emcube.store import verify

    found = verify(place, deep=deep)
    found.check()
    return found.digest


def _remote_digest(place: str) -> str:
    """Of the values as they come: a server's files cannot be listed and compared one by one."""
    from emcube.store import compute_digest, open_cube

    with _told(place):
        return compute_digest(open_cube(place))


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Say what a server did wrong in our words: the clients of HTTP and S3 have errors of their own."""
    try:
        yield
    except EmcubeError:
        raise
    except Exception as error:
        raise StoreError(
            f"{place} cannot be read: {type(error).__name__}: {error}",
            hint="check the address, and whether it is reachable; try again later",
        ) from error


def _fetched_digest(entry: Entry) -> str:
    if entry.fetched is None:
        return ""
    record = read_record(folder_for(entry))
    return record.digest if record is not None else ""


def _require_same_file(entry: Entry, where: str, path: Path) -> None:
    stated = entry.metadata.get("checksum")
    if not isinstance(stated, str):
        raise CatalogError(
            f"{where} states no checksum to compare {path} with",
            hint="add the file anew with `emcube catalog add --overwrite`",
        )
    if not path.is_file():
        raise CatalogError(
            f"{where}: {path} is a folder, expected a file with a checksum",
            hint="ingest it, and add the store",
        )
    found = file_checksum(path, stated.partition(":")[0])
    if found != stated:
        raise CatalogError(
            f"{where}: {path} has the checksum {found}, expected {stated}",
            hint="the file was replaced: restore it, or add it anew with --overwrite",
        )
