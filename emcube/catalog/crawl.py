"""Walk a facility's folder and keep a catalog of it: headers only, every night anew.

Reading is done without the lock of the catalog; what was found is then merged in small batches, so that
a crawl that is killed loses little and people can add entries meanwhile.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emcube.catalog.describe import clean_name, default_name, describe_file, describe_store
from emcube.catalog.document import change, put, take_out
from emcube.catalog.download import file_checksum
from emcube.catalog.metadata import checked
from emcube.catalog.model import Catalog, open_catalog
from emcube.catalog.places import Place, address_of, check_texts, place_of
from emcube.catalog.targets import Kind, halves_of
from emcube.errors import CatalogError, EmcubeError, IncompleteError, InputError
from emcube.feedback.events import group, step

__all__ = ["CrawlReport", "crawl"]

#: Of what `emcube.open` reads, these are as often something else (tables, results, lists of angles).
_LEFT_OUT = frozenset({".csv", ".npy", ".mat", ".rawtlt", ".tlt"})
#: What describes the form of the data: it follows the file. All else may have been corrected by hand,
#: and stays.
_FORM = frozenset(
    {
        "dims", "sig_dims", "shape", "dtype", "units", "axes", "nbytes", "size", "filename", "format",
        "signal", "member", "digest", "checksum", "checksum_status", "counts_per_pixel", "acquired",
    }
)  # fmt: skip
_BATCH = 200
#: An instrument file with more signals than this is listed by its first ones.
_MAX_SIGNALS = 50


@dataclass
class CrawlReport:
    """What a crawl found.

    Attributes
    ----------
    added, updated, moved : list of str
        Names of entries.
    unchanged : int
        Files that are in the catalog as they are.
    duplicates : dict of str to str
        Path of a copy to the name of the entry that it is a copy of.
    busy : list of str
        Paths that are still being written, or were a moment ago: the next crawl takes them.
    recent : list of str
        Of these, what nothing speaks against but that it changed less than ``settle`` seconds ago.
    unreadable : dict of str to str
        Path to the reason.
    gone : list of str
        Names of entries whose data are no longer there.
    removed : list of str
        Of these, what was removed from the catalog.
    """

    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    unchanged: int = 0
    duplicates: dict[str, str] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)
    recent: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class _Found:
    """Something on the disk that may become an entry (or several, by signal)."""

    path: Path
    kind: Kind
    size: int
    modified_ns: int

    @property
    def stamp(self) -> dict[str, int]:
        return {"size": self.size, "modified_ns": self.modified_ns}


@dataclass
class _Item:
    """An entry to be written."""

    found: _Found
    signal: str | None
    metadata: dict[str, Any]
    #: Name of the entry that it is known as; None for a new one.
    name: str | None = None
    moved: bool = False
    #: Whether the metadata are added to those of the entry, of which nothing else changes.
    adds: bool = False


def crawl(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    settle: float = 60.0,
    checksums: bool = False,
    prune: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, Path], None] | None = None,
    **metadata: Any,
) -> CrawlReport:
    """Add what lies in a folder to a catalog; run again, it takes up what changed.

    Parameters
    ----------
    path : path-like
        The catalog file; made if it does not exist.
    folder : path-like
        Walked with all its folders; hidden ones and links to folders are left out.
    settle : float
        Seconds since the last change after which a file counts as finished.
    checksums : bool
        Read every file once and keep its sha256, of new and changed ones and of those that the catalog
        states none of; otherwise only files of one size are compared, to find copies.
    prune : bool
        Remove crawled entries whose data are gone.
    dry_run : bool
        Change nothing.
    progress : callable, optional
        Gets the number of things looked at, and the path at hand.
    **metadata
        Said of every new entry: session, license, creators, access, ...

    Returns
    -------
    CrawlReport

    Raises
    ------
    CatalogError
        The catalog cannot be changed.
    InputError
        The folder does not exist.
    CubeError
        Metadata are wrong.

    Notes
    -----
    Reads headers only (as far as a format has any: see `emcube.io.rosetta`). Entries that were added by
    hand are never changed, and neither are fields of crawled ones that somebody filled in or corrected.
    Files are visited in the order of their paths, so that the result does not depend on the file system.
    """
    place, top = place_of(path), Path(folder)
    if not top.is_dir():
        raise InputError(
            f"crawl: {str(top)!r} is no folder, expected one with data", hint="check the path"
        )
    check_texts(metadata, f"what a crawl of {str(top)!r} writes into each entry")
    if not dry_run:
        # Also says at once that a catalog cannot be changed.
        change(place, lambda document: None)
    work = _Crawl(place, top, settle, checksums, checked(metadata), dry_run)
    with group(f"crawl {top.name}"):
        for count, found in enumerate(_walk(top, place, work.report.unreadable), 1):
            step(0, f"{count:,} looked at, {found.path.name}")
            if progress is not None:
                progress(count, found.path)
            work.keep(work.look_at(found))
            # Each write reads and writes the whole file: batches grow with it.
            if len(work.pending) >= max(_BATCH, len(work.catalog)):
                work.flush()
        work.flush()
        work.look_for_gone(prune)
    return work.report


def _walk(top: Path, place: Place, unreadable: dict[str, str]) -> Iterator[_Found]:
    """What could be data, in the order of the paths; a store is one thing. Tells what cannot be looked at."""
    from emcube.io.readers import FORMATS
    from emcube.store import is_zarr

    suffixes = {suffix for row in FORMATS for suffix in row.suffixes} - _LEFT_OUT
    catalog = Path(place).absolute()

    def tell(error: OSError) -> None:
        unreadable[_printable(error.filename)] = error.strerror or str(error)

    for root, folders, files in os.walk(top, onerror=tell):
        here = Path(root)
        things: list[tuple[str, Kind]] = []
        for name in list(folders):
            path = here / name
            if name.startswith(".") or path.is_symlink():
                folders.remove(name)
            elif path.suffix.lower() == ".zspy":
                folders.remove(name)
                things.append((name, "file"))
            elif is_zarr(path) or path.suffix.lower() == ".zarr":
                # One without its root document is half a store: what lies in it are no data of their own.
                folders.remove(name)
                if not _is_result(path):
                    things.append((name, "zarr"))
        folders.sort()
        headers = tuple(name[:-4] for name in files if name.lower().endswith(".emi"))
        for name in files:
            suffix = Path(name).suffix.lower()
            if name.startswith((".", "~")) or suffix not in suffixes:
                continue
            # The .ser files of a FEI header are its data.
            if suffix == ".ser" and name.startswith(headers):
                continue
            if (here / name).absolute() != catalog:
                things.append((name, "file"))
        for name, kind in sorted(things):
            try:
                found = _regular(here / name, kind)
            except OSError as error:
                unreadable[_printable(here / name)] = error.strerror or str(error)
                continue
            if found is not None:
                yield found


def _regular(path: Path, kind: Kind) -> _Found | None:
    """Size and time of a file or store; None where it has just been removed.

    Raises
    ------
    OSError
        It is something that a catalog cannot name or that is not opened: a pipe would wait for ever.
    """
    if _printable(path) != str(path):
        raise OSError("its name is not UTF-8: rename it")
    found = _stat(path, kind)
    if found is None and path.is_symlink():
        raise OSError("a link to something that is not there")
    if found is not None and not (path.is_file() or path.is_dir()):
        raise OSError("a pipe, socket or device, expected a file")
    return found


def _printable(path: str | os.PathLike[str]) -> str:
    """A path as text that can be written; the system's names may hold bytes of any kind."""
    return os.fspath(path).encode("utf-8", "replace").decode("utf-8")


def _stat(path: Path, kind: Kind) -> _Found | None:
    """Size and time of the last change; None where it has just been removed."""
    try:
        state = path.stat()
        if not path.is_dir():
            return _Found(path, kind, state.st_size, state.st_mtime_ns)
        # Of a store the root document is written last, and again whenever something is added.
        roots = [path / name for name in ("zarr.json", ".zmetadata", ".zattrs", ".zgroup")]
        times = [file.stat().st_mtime_ns for file in roots if file.exists()]
        return _Found(path, kind, 0, max([*times, state.st_mtime_ns]))
    except FileNotFoundError:
        return None


def _is_result(path: Path) -> bool:
    try:
        document = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return bool(document["attributes"]["emcube"]["kind"] == "result")
    except (OSError, ValueError, KeyError, TypeError):
        return False


class _Crawl:
    """One walk: what the catalog knew before, what was found, and what there is to write."""

    def __init__(
        self,
        place: Place,
        top: Path,
        settle: float,
        checksums: bool,
        said: dict[str, Any],
        dry_run: bool,
    ) -> None:
        self.place, self.top, self.settle = place, top, settle
        self.checksums, self.said, self.dry_run = checksums, said, dry_run
        self.report = CrawlReport()
        #: Found and not written yet.
        self.pending: list[_Item] = []
        self.catalog = open_catalog(place) if Path(place).exists() else Catalog(place, {}, _empty())
        #: What the catalog would be, where nothing is written.
        self.trial = {**_empty(), "entries": {name: {} for name in self.catalog.entries}}
        self.now_ns = time.time_ns()
        #: Location to the names of its entries; several for a file of several signals.
        self.at: dict[str, list[str]] = {}
        #: Location of a copy to its stamp and the name of the original.
        self.copies: dict[str, tuple[dict[str, Any], str]] = {}
        #: Digest or checksum to the name of its entry.
        self.by_digest: dict[str, str] = {}
        #: Sizes of files that the catalog knows, and of each size those whose checksum it does not know.
        self.sizes: set[object] = set()
        self.unsummed: dict[object, list[tuple[str, Path]]] = {}
        self.sums: dict[Path, str] = {}
        #: Pending new things by what copies have in common.
        self.waiting: dict[object, list[_Item]] = {}
        for name, entry in self.catalog.items():
            self._know(name, entry.metadata, self._location(name))

    def _location(self, name: str) -> str | None:
        try:
            return self.catalog[name].target.location
        except CatalogError:
            # Entries that are not opened are nobody's duplicates.
            return None

    def _know(self, name: str, metadata: dict[str, Any], location: str | None) -> None:
        if location is None:
            return
        self.at.setdefault(location, []).append(name)
        crawled = metadata.get("crawled")
        copies = crawled.get("copies") if isinstance(crawled, dict) else None
        for copy, stamp in (copies if isinstance(copies, dict) else {}).items():
            full = str((Path(self.place).absolute().parent / copy).resolve())
            self.copies[full] = (stamp, name)
        if metadata.get("signal"):
            return
        marks = [
            metadata[key] for key in ("digest", "checksum") if isinstance(metadata.get(key), str)
        ]
        for mark in marks:
            self.by_digest.setdefault(mark, name)
        size = metadata.get("size")
        if isinstance(size, int):
            self.sizes.add(size)
            if not any(mark.startswith("sha256:") for mark in marks):
                self.unsummed.setdefault(size, []).append((name, Path(location)))

    # --- looking ---------------------------------------------------------------------------------

    def look_at(self, found: _Found) -> list[_Item]:
        """What there is to write about something found; its report otherwise."""
        path = str(found.path)
        location = os.path.normpath(found.path.absolute())
        names = self.at.get(location, [])
        if names and self._is_known(names, found):
            items = self._unsummed_items(names, found)
            self.report.unchanged += not items
            return items
        copy = self.copies.get(str(found.path.resolve()))
        if copy is not None and copy[0] == found.stamp:
            self.report.duplicates[path] = copy[1]
            return []
        if self.now_ns - found.modified_ns < self.settle * 1e9:
            self.report.busy.append(path)
            self.report.recent.append(path)
            return []
        try:
            items = self._read(found)
        except IncompleteError:
            self.report.busy.append(path)
            return []
        except (EmcubeError, OSError) as error:
            self.report.unreadable[path] = str(error)
            return []
        if _stat(found.path, found.kind) != found:
            self.report.busy.append(path)
            return []
        return self._placed(found, items, names)

    def _is_known(self, names: list[str], found: _Found) -> bool:
        """Whether the entries of a place are of what lies there now, or were made by hand."""
        for name in names:
            crawled = self.catalog[name].metadata.get("crawled") if name in self.catalog else None
            # An entry made by hand may remember copies, but no state of its own file.
            if not isinstance(crawled, dict) or "modified_ns" not in crawled:
                return True
            if {key: crawled.get(key) for key in ("size", "modified_ns")} != found.stamp:
                return False
        return True

    def _unsummed_items(self, names: list[str], found: _Found) -> list[_Item]:
        """Entries of a file as it is that lack its checksum, with that alone; where it was asked for."""
        if not self.checksums or found.kind != "file" or not found.path.is_file():
            return []
        lacking = [
            name
            for name in names
            if isinstance(crawled := self.catalog[name].metadata.get("crawled"), dict)
            and "modified_ns" in crawled
            and not self.catalog[name].metadata.get("checksum")
        ]
        if not lacking:
            return []
        try:
            checksum = self._checksum(found.path)
        except OSError as error:
            self.report.unreadable[str(found.path)] = error.strerror or str(error)
            return []
        if _stat(found.path, found.kind) != found:
            self.report.busy.append(str(found.path))
            return []
        said = {"checksum": checksum, "checksum_status": "checked"}
        return [_Item(found, None, dict(said), name, adds=True) for name in lacking]

    def _read(self, found: _Found) -> list[_Item]:
        address_of(self.place, found.path)
        if found.kind == "zarr":
            return [_Item(found, None, describe_store(str(found.path)))]
        signals = _signals(found.path)
        return [
            _Item(found, signal, describe_file(found.path, signal=signal))
            for signal in (signals if len(signals) > 1 else [None])
        ]

    def _placed(self, found: _Found, items: list[_Item], names: list[str]) -> list[_Item]:
        """Tell copies and moved files from new ones."""
        if len(items) > 1:
            known = {self.catalog[name].metadata.get("signal"): name for name in names}
            for item in items:
                item.name = known.get(item.signal)
            return items
        (item,) = items
        if self.checksums and found.path.is_file():
            _with_checksum(item.metadata, found.path)
        if names:
            item.name = names[0]
            return items
        original = self._original(item)
        if original is None:
            return items
        location = self._location(original) if original in self.catalog else None
        if location is not None and not Path(location).exists():
            item.name, item.moved = original, True
            return items
        self.report.duplicates[str(found.path)] = original
        return [self._noted(found, original)] if original in self.catalog else []

    def _original(self, item: _Item) -> str | None:
        """Name of the entry of the same bytes or the same cube."""
        key = _sort(item)
        alike = self.waiting.get(key, [])
        path = item.found.path
        if path.is_file() and (alike or key in self.sizes):
            # Only now are bytes read, and of each file once.
            for one in [item, *alike]:
                _with_checksum(one.metadata, one.found.path)
        mark = _mark(item)
        if mark is not None and mark in map(_mark, alike):
            # It gets its name when it is written.
            self.flush()
        if mark is None or mark in self.by_digest:
            return self.by_digest.get(mark or "")
        for name, other in self.unsummed.get(key, []):
            if other != path and other.is_file() and self._checksum(other) == mark:
                return name
        return None

    def _checksum(self, path: Path) -> str:
        if path not in self.sums:
            self.sums[path] = file_checksum(path)
        return self.sums[path]

    def _noted(self, found: _Found, original: str) -> _Item:
        """The original's entry, which remembers its copy: the next crawl need not read that again."""
        metadata = dict(self.catalog[original].metadata)
        crawled = dict(metadata.get("crawled") or {})
        folder = Path(self.place).absolute().parent
        copy = Path(os.path.relpath(found.path.absolute(), folder)).as_posix()
        copies = {**(crawled.get("copies") or {}), copy: found.stamp}
        noted = {"crawled": {**crawled, "copies": copies}}
        item = _Item(found, None, noted, original, adds=True)
        self.catalog[original].metadata["crawled"] = item.metadata["crawled"]
        return item

    # --- writing ---------------------------------------------------------------------------------

    def keep(self, items: list[_Item]) -> None:
        """Note what is to be written."""
        self.pending += items
        for item in items:
            key = _sort(item)
            if item.name is None and item.signal is None and key is not None:
                self.waiting.setdefault(key, []).append(item)

    def flush(self) -> None:
        """Merge what is pending into the catalog, as it is by now."""
        items, self.pending = self.pending, []
        self.waiting.clear()
        if not items:
            return
        if self.dry_run:
            self._merge_all(self.trial, items)
            return
        change(self.place, lambda document: self._merge_all(document, items))
        self.catalog = open_catalog(self.place)

    def _merge_all(self, document: dict[str, Any], items: list[_Item]) -> None:
        for item in items:
            self._merge(document, item)

    def _merge(self, document: dict[str, Any], item: _Item) -> None:
        name = item.name if item.name is not None else self._new_name(document, item)
        before = document["entries"].get(document["aliases"].get(name, name)) or {}
        metadata = dict(before.get("metadata") or {}) if isinstance(before, dict) else {}
        if item.adds:
            if metadata:
                before["metadata"] = {**metadata, **item.metadata}
            if "checksum" in item.metadata and (metadata or self.dry_run):
                self.report.updated.append(name)
            return
        merged = _merged(metadata, item, self.said)
        kept = (metadata.get("crawled") or {}).get("copies")
        merged["crawled"] = {**item.found.stamp, **({"copies": kept} if kept else {})}
        address = address_of(self.place, item.found.path)
        put(document, name, *halves_of(name, item.found.kind, address, merged))
        told = (
            self.report.moved
            if item.moved
            else self.report.updated
            if item.name
            else self.report.added
        )
        told.append(name)
        if item.name is None:
            self._know(name, merged, os.path.normpath(item.found.path.absolute()))

    def _new_name(self, document: dict[str, Any], item: _Item) -> str:
        """A name from the path below the folder; the same path gives the same name unless it is taken."""
        relative = item.found.path.relative_to(self.top)
        parts = [clean_name(part) for part in relative.parent.parts] + [default_name(relative.name)]
        if item.signal is not None:
            parts.append(clean_name(item.signal))
        bare = ".".join(parts)
        suffix = relative.suffix.lstrip(".")
        for name in (bare, f"{bare}.{suffix}", *(f"{bare} {n}" for n in range(2, 10_000))):
            if name not in document["entries"] and name not in document["aliases"]:
                return name
        raise CatalogError(
            f"crawl: 10,000 entries are called {bare!r}", hint="crawl a folder below"
        )

    def look_for_gone(self, prune: bool) -> None:
        """Crawled entries below the folder whose data are no longer there."""
        top = os.path.normpath(self.top.absolute())
        for name, entry in self.catalog.items():
            location = self._location(name)
            crawled = entry.metadata.get("crawled")
            if location is None or not isinstance(crawled, dict) or "modified_ns" not in crawled:
                continue
            if Path(location).is_relative_to(top) and not Path(location).exists():
                self.report.gone.append(name)
        if prune and self.report.gone and not self.dry_run:
            gone = self.report.gone

            def edit(document: dict[str, Any]) -> None:
                self.report.removed = [name for name in gone if take_out(document, name)]

            change(self.place, edit)


def _empty() -> dict[str, Any]:
    from emcube.catalog.reading import new_document

    return new_document()


def _sort(item: _Item) -> object:
    """What copies have in common: a store's digest, a file's size."""
    return item.metadata.get("digest" if item.found.kind == "zarr" else "size")


def _mark(item: _Item) -> str | None:
    """What tells a copy: the digest of a cube, or the checksum of a file."""
    return item.metadata.get("digest") or item.metadata.get("checksum")


def _signals(path: Path) -> list[str]:
    """Names of the signals that could each be the cube of a file."""
    from emcube.io.readers import read_signals

    found = read_signals(path)
    for kind in ("cube", "spectrum", "image", "reference"):
        names = [signal.name for signal in found if signal.kind == kind]
        if names:
            return names[:_MAX_SIGNALS]
    return []


def _with_checksum(metadata: dict[str, Any], path: Path) -> str:
    if "checksum" not in metadata:
        metadata |= {"checksum": file_checksum(path), "checksum_status": "checked"}
    return str(metadata["checksum"])


def _merged(before: dict[str, Any], item: _Item, said: dict[str, Any]) -> dict[str, Any]:
    """What the file says now, under what people said."""
    form = {key: value for key, value in item.metadata.items() if key in _FORM}
    rest = {key: value for key, value in item.metadata.items() if key not in _FORM}
    kept = {key: value for key, value in before.items() if key not in _FORM}
    return {**rest, **said, **kept, **form}
