"""Write a cube to a store: out of core, in one pass over the source, resumable."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emcube.addresses import redact
from emcube.cube import nav_dims, sig_dims, validate_cube
from emcube.cube.rows import row_blocks
from emcube.errors import CubeError, InputError, InterruptedRunError, StoreError
from emcube.feedback.events import Work, working
from emcube.kernels.rows import CountRows
from emcube.store.attributes import to_json
from emcube.store.events import EVENT_ARRAYS, EventWriter, event_layout, hash_rows
from emcube.store.hashing import HASH_BYTES, combine, grid_shape, hash_block, header, piece_box
from emcube.store.journal import HIDDEN, Journal, Part, exclusive, file_digest, read_json
from emcube.store.layout import Layout, Region, plan_layout
from emcube.store.quicklook import (
    SUM_SPECTRUM,
    TOTAL_COUNTS,
    SpectrumSum,
    add_to_spectrum,
    pyramid,
    sum_dtype,
    total_counts,
)
from emcube.store.regions import Walk

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["DATA", "FORMAT", "LAYOUTS", "IngestProgress", "compute_digest", "write_cube"]

#: Name of the cube within its store.
DATA = "data"
#: Version of the store's own attributes: the newest that is read. Dense stores are still of version 1.
FORMAT = 2
_FORMATS = {"dense": 1, "events": 2}
#: How values may be kept.
LAYOUTS = ("auto", "dense", "events")
#: Threads that compute, encode and write; more only help where the source is slow to compute.
_MAX_THREADS = 4
#: Errors of the operating system that mean: no room.
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True)
class IngestProgress:
    """How far an ingest is.

    Attributes
    ----------
    regions_done, n_regions : int
        Regions (chunks or shards) on disk, with those of an earlier run, and of how many.
    bytes_done, n_bytes : int
        The same in decoded bytes.
    seconds : float
        Since this run began.
    resumed : int
        Regions that an earlier run had finished.
    """

    regions_done: int
    n_regions: int
    bytes_done: int
    n_bytes: int
    seconds: float
    resumed: int = 0


def write_cube(
    cube: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    layout: str = "auto",
    overwrite: bool = False,
    companions: Sequence[xr.DataArray] = (),
    progress: Callable[[IngestProgress], None] | None = None,
    threads: int | None = None,
) -> Path:
    """Write a cube to a Zarr v3 store.

    The source is read once and never held: regions of whole chunks are computed, summed for the
    quicklooks, hashed for the digest, compressed and written. Interrupted by whatever means, the same call
    goes on where it stopped; until it is done, the store opens as incomplete.

    Parameters
    ----------
    cube : xarray.DataArray
        The cube; lazy or in memory.
    path : path-like
        Folder of the store; its parent folders are made.
    layout : {"auto", "dense", "events"}
        How the values are kept: as one array that every reader of Zarr understands ("dense", and "auto"), or
        as those cells of a cube of counts that are not zero ("events"), several times faster to read where
        few are. The digest is the same.
    overwrite : bool
        Replace a store that is there, or an unfinished one of another cube. A complete store is deleted
        only when the new one is complete.
        Anything that is not a cube store is never replaced.
    companions : sequence of xarray.DataArray
        Images and spectra that belong to the cube, named. Those on the cube's navigation grid become
        coordinates of the cube, others keep dims of their own and open by name.
    progress : callable, optional
        Gets an :class:`IngestProgress` after each region, from the threads that write.
    threads : int, optional
        Threads of this process that compute and write; by default one a core, at most four.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    StoreError
        The destination exists, another process writes it, it holds an unfinished ingest of another cube,
        or the disk is full (then the message says how much is missing; the same call goes on).
    CubeError
        The array is not a cube, or an attribute cannot be kept.
    InputError
        There is no such layout.
    InterruptedRunError
        Stopped from the keyboard; the same call goes on.

    Notes
    -----
    One pass. Memory: a group of 256 MiB of decoded values at most, and the source's own blocks that reach
    into it; a source that is one task is held whole. The same cube gives the same digest and quicklooks
    for any number of threads.

    Examples
    --------
    >>> import numpy as np, tempfile, emcube as em
    >>> from emcube.store import open_cube, write_cube
    >>> cube = em.make_cube(np.ones((4, 5, 6), "uint8"), dims=("y", "x", "energy"))
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = write_cube(cube, f"{folder.name}/map.zarr")
    >>> open_cube(path).dtype
    dtype('uint8')
    >>> folder.cleanup()
    """
    check_layout(layout)
    path = local_path(path)
    cube = validate_cube(cube)
    # What a link leads to is written and replaced, never the link.
    place = path.resolve() if path.is_symlink() or not path.name else path
    target = _destination(place, overwrite)
    ingest = _Ingest(
        cube, target, path, tuple(companions), progress, threads, overwrite, layout == "events"
    )
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / HIDDEN).mkdir(exist_ok=True)
        with exclusive(Journal(target).lock_file, str(path)):
            ingest.run()
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise ingest.disk_full() from error
    if target != place:
        _swap(place, target)
    return path


def check_layout(layout: str) -> None:
    """Refuse what is no layout.

    Raises
    ------
    InputError
        Names those that there are.
    """
    if layout not in LAYOUTS:
        raise InputError(
            f"layout={layout!r}: expected one of {', '.join(map(repr, LAYOUTS))}",
            hint='leave it out, or use layout="events" for maps with few counts a pixel',
        )


def compute_digest(cube: xr.DataArray, *, threads: int | None = None) -> str:
    """Compute the digest of a cube from its values.

    The same as the store of this cube has, whatever the chunks of either.

    Parameters
    ----------
    cube : xarray.DataArray
        Lazy or in memory.
    threads : int, optional
        Threads of this process; by default one a core, at most four.

    Returns
    -------
    str
        ``"sha256:..."``.

    Notes
    -----
    One pass over the values; memory as for writing.
    """
    cube = validate_cube(cube)
    layout = _layout(cube)
    walk: Walk[list[tuple[Region, NDArray[np.uint8]]]] = Walk(cube.data, layout)
    grid = np.empty((*grid_shape(cube.shape, cube.dtype.itemsize), HASH_BYTES), np.uint8)

    def visit(
        _: int, region: Region, block: NDArray[Any]
    ) -> list[tuple[Region, NDArray[np.uint8]]]:
        hashes = hash_block(np.asarray(block), cube.shape, region)
        work.advance(blocks=1)
        return [(region, hashes)]

    with working("digest", n_blocks=len(walk.regions)) as work, _pool(threads) as pool:
        for group in walk.groups(range(len(walk.regions))):
            for region, hashes in walk.run(group, visit, _concatenate, pool):
                grid[piece_box(cube.shape, cube.dtype.itemsize, region)] = hashes
    return combine(header(cube), grid)


def _concatenate(first: list[Any], second: list[Any]) -> list[Any]:
    first.extend(second)
    return first


def _layout(cube: xr.DataArray) -> Layout:
    source = getattr(cube.data, "chunks", None)
    return plan_layout(cube.shape, len(sig_dims(cube)), cube.dtype.itemsize, source_chunks=source)


@contextmanager
def _pool(threads: int | None) -> Iterator[ThreadPoolExecutor]:
    """Threads that are given up at once, with what waits for them, when something fails."""
    pool = ThreadPoolExecutor(threads or min(_MAX_THREADS, os.cpu_count() or 1), "emcube-store")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# --- the destination ------------------------------------------------------------------------------


def local_path(path: str | os.PathLike[str]) -> Path:
    """A destination as a path of this machine, ``~`` expanded.

    Raises
    ------
    StoreError
        It is an address (``s3://...``): written as a path, that would be a folder called ``s3:``.
    """
    text = os.fspath(path)
    # A Path has made one slash of two. A single letter before the colon is a drive of Windows.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise StoreError(
            f"cannot write to {redact(text)}: got an address, expected a folder of this machine",
            hint="emcube.ingest and emcube.run write to addresses too; everything else writes to a folder",
        )
    return Path(path).expanduser()


def _destination(path: Path, overwrite: bool) -> Path:
    """Folder to write in: the path itself, or a neighbour that replaces it when it is complete.

    Raises
    ------
    StoreError
        There is something that may not be replaced.
    """
    _finish_swap(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return path
    if not path.is_dir():
        raise StoreError(
            f"cannot write a store to {path}: a file of that name exists, expected a new folder",
            hint="choose another destination, such as map.zarr",
        )
    if (path / "zarr.json").is_file():
        attributes = read_json(path / "zarr.json").get("attributes", {}).get("emcube", {})
        if not isinstance(attributes, Mapping) or attributes.get("kind") != "cube":
            raise StoreError(
                f"cannot write a store to {path}: it holds Zarr data that is not a cube store, "
                "which is never replaced",
                hint="choose another destination, or remove the folder yourself",
            )
        if not overwrite:
            raise StoreError(
                f"cannot write a store to {path}: a complete store is there already "
                f"({attributes.get('digest')})",
                hint="choose another destination, or replace it with overwrite=True (--overwrite)",
            )
        return _beside(path, "new")
    if Journal(path).begun() is not None or _only_hidden(path):
        return path
    raise StoreError(
        f"cannot write a store to {path}: the folder holds something else, which is never replaced",
        hint="choose another destination, or remove the folder yourself",
    )


def _only_hidden(path: Path) -> bool:
    """Whether a writer was stopped before it had noted what it writes."""
    return {item.name for item in path.iterdir()} == {HIDDEN} and {
        item.name for item in (path / HIDDEN).iterdir()
    } <= {"lock", "parts"}


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.emcube-{what}")


def _swap(path: Path, new: Path) -> None:
    old = _beside(path, "old")
    if old.exists():
        shutil.rmtree(old)
    path.rename(old)
    new.rename(path)
    shutil.rmtree(old)


def _finish_swap(path: Path) -> None:
    """Bring a store back that was moved aside by a process which died before its successor was in place."""
    if path.exists():
        return
    old, new = _beside(path, "old"), _beside(path, "new")
    if not old.exists():
        return
    (new if (new / "zarr.json").is_file() else old).rename(path)


# --- one ingest -----------------------------------------------------------------------------------


class _OtherSource(Exception):
    """What is being written here is another cube; says what differs."""


@dataclass(eq=False)
class _Ingest:
    cube: xr.DataArray
    root: Path
    shown: Path | str
    companions: tuple[xr.DataArray, ...]
    progress: Callable[[IngestProgress], None] | None
    threads: int | None
    overwrite: bool = False
    as_events: bool = False
    began: float = field(default_factory=time.monotonic)
    resumed: int = 0
    done: list[int] = field(default_factory=list)
    written: int = 0
    array: Any = None
    events: EventWriter | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    work: Work | None = None

    def __post_init__(self) -> None:
        self.n_sig = len(sig_dims(self.cube))
        self.layout = event_layout(self.cube) if self.as_events else _layout(self.cube)
        # Refuse what cannot be kept before anything is written.
        self.attributes = _data_attributes(self.cube)
        self.variables = _Variables(self.cube, self.companions)
        self.walk: Walk[Part] = Walk(self._source(), self.layout)
        self.journal = Journal(self.root)

    @property
    def n_nav(self) -> int:
        return self.cube.ndim - self.n_sig

    def _source(self) -> Any:
        """What is read: rows of counts where the cube's maker has them, its values otherwise."""
        rows = None
        if self.as_events:
            rows = row_blocks(self.cube.data, self.n_nav, self.layout.chunks)
        return self.cube.data if rows is None else rows

    def run(self) -> None:
        parts = self._resume()
        self.done = [i for part in parts for i in part.regions]
        self.written = sum(size for part in parts for size, _ in part.files.values())
        self.resumed = len(self.done)
        if self.as_events:
            self.events = EventWriter(
                self.root,
                self.cube.shape,
                self.layout.chunks,
                self.cube.dtype,
                self.n_nav,
                tuple(str(dim) for dim in self.cube.dims[: self.n_nav]),
            )
        else:
            self.array = _zarr_array(
                self.root / DATA, self.cube.dtype, self.cube.shape, self.layout, self.cube.dims
            )
        known = set(self.done)
        todo = [i for i in range(len(self.walk.regions)) if i not in known]
        try:
            with self._telling(), _pool(self.threads) as pool:
                for group in self.walk.groups(todo):
                    self.journal.add(self.walk.run(group, self._visit, Part.extend, pool))
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"the ingest into {self.shown} was stopped: {len(self.done)} of "
                f"{len(self.walk.regions)} regions were written; the store is incomplete",
                hint="run the same command again to go on",
            ) from None
        self._finish()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell how far it is, to whoever listens."""
        n_pixels = math.prod(self.cube.shape[: self.n_nav])
        sizes = {"n_blocks": len(self.walk.regions), "n_pixels": n_pixels}
        with working("ingest", **sizes, **self._told()) as self.work:
            yield

    def _told(self) -> dict[str, int]:
        n_pixels, done = math.prod(self.cube.shape[: self.n_nav]), len(self.done)
        return {
            "blocks_done": done,
            "pixels_done": n_pixels * done // max(1, len(self.walk.regions)),
        }

    # A writer that was stopped leaves finished parts behind.

    def _resume(self) -> list[Part]:
        identity = self._identity()
        begun = self.journal.begun()
        if begun is not None:
            try:
                return self._take_over(begun, identity)
            except _OtherSource as difference:
                if not self.overwrite:
                    raise self._other_source(str(difference)) from None
                self._clear()
        self.journal.begin(
            {
                "format": FORMAT,
                "identity": identity,
                "header": header(self.cube),
                "layout": _layout_json(self.layout, self.as_events),
                "n_regions": len(self.walk.regions),
            }
        )
        return []

    def _clear(self) -> None:
        """Give up what an earlier run wrote."""
        for name in (DATA, *EVENT_ARRAYS):
            shutil.rmtree(self.root / name, ignore_errors=True)
        self.journal.forget()

    def _take_over(self, begun: dict[str, Any], identity: str) -> list[Part]:
        """Parts of an earlier run that are on disk as they were written."""
        if begun.get("identity") != identity:
            raise _OtherSource("dims, coordinates, dtype, layout or chunks differ")
        parts = self.journal.parts()
        lost = [part for part in parts if not self._on_disk(part)]
        for part in lost:
            self.journal.drop(part.regions[0])
        parts = [part for part in parts if part not in lost]
        self._check_values(parts)
        return parts

    def _identity(self) -> str:
        known = {"header": header(self.cube), "layout": _layout_json(self.layout, self.as_events)}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def _on_disk(self, part: Part) -> bool:
        """Whether a part's files are still what they were; a power failure can lose them."""
        for name, (size, digest) in part.files.items():
            file = self.root / name
            if not file.is_file() or file.stat().st_size != size or file_digest(file) != digest:
                return False
        return True

    def _check_values(self, parts: list[Part]) -> None:
        """Read the fullest region again: two maps of one size differ in their counts."""
        finished = [
            (float(np.nansum(total)), number, hashes)
            for part in parts
            for number, total, hashes in zip(part.regions, part.totals, part.hashes, strict=True)
        ]
        if not finished:
            return
        _, number, expected = max(finished, key=lambda item: item[0])
        walk: Walk[NDArray[np.uint8]] = Walk(self._source(), self.layout)
        with _pool(self.threads) as pool:
            found = walk.run(
                [number], lambda _, region, block: self._hash(block, region), _first, pool
            )
        if not np.array_equal(found, expected):
            raise _OtherSource("its values differ")

    def _other_source(self, what: str) -> StoreError:
        return StoreError(
            f"{self.shown} holds an unfinished ingest of another cube: {what}",
            hint="ingest the cube it was begun with, choose another destination, or give it up with "
            "overwrite=True (--overwrite)",
        )

    # One region: written, then described.

    def _visit(self, number: int, region: Region, block: Any) -> Part:
        sig_shape = self.cube.shape[self.n_nav :]
        spectrum = SpectrumSum.zeros(sig_shape, self.cube.dtype)
        if not isinstance(block, CountRows):
            block = self._checked(block, region)
        hashes = self._hash(block, region)
        if self.events is not None:
            rows = block if isinstance(block, CountRows) else self.events.rows(block)
            files = self.events.write(region, rows)
            total = rows.pixel_totals().astype(sum_dtype(self.cube.dtype))
            total = total.reshape(_lengths(region)[: self.n_nav])
            spectrum.total += rows.channel_totals().reshape(sig_shape).astype(spectrum.total.dtype)
            spectrum.seen[...] = True
        else:
            self.array[region if region else ...] = block
            files = [self._file(region)]
            total = total_counts(block, self.n_sig)
            add_to_spectrum(spectrum, block, self.n_sig, region[len(region) - self.n_sig :])
        noted = {
            file.relative_to(self.root).as_posix(): (file.stat().st_size, file_digest(file))
            for file in files
        }
        self._keep(files)
        part = Part([number], [total], [hashes], spectrum, noted)
        with self.lock:
            self.done.append(number)
            self.written += sum(size for size, _ in noted.values())
            if self.progress is not None:
                self.progress(self._state())
            if self.work is not None:
                told = self._told()
                self.work.at(blocks_done=told["blocks_done"], pixels_done=told["pixels_done"])
        return part

    def _keep(self, files: list[Path]) -> None:
        """See to the files of a region that was written; here they are where they belong."""

    def _checked(self, given: Any, region: Region) -> NDArray[Any]:
        block: NDArray[Any] = np.ascontiguousarray(given)
        if block.dtype != self.cube.dtype or block.shape != _lengths(region):
            raise CubeError(
                f"the lazy cube gave {block.dtype} values of shape {block.shape} for a region of "
                f"{self.cube.dtype} values of shape {_lengths(region)}",
                hint="the function that makes its blocks breaks its word: check dtype= and chunks=",
            )
        return block

    def _hash(self, block: NDArray[Any] | CountRows, region: Region) -> NDArray[np.uint8]:
        if isinstance(block, CountRows):
            return hash_rows(block, self.cube.dtype, self.cube.shape, self.n_nav, region)
        return hash_block(np.asarray(block), self.cube.shape, region)

    def _file(self, region: Region) -> Path:
        index = [part.start // u for part, u in zip(region, self.layout.unit, strict=True)]
        return Path(self.root, DATA, "c", *(str(i) for i in index))

    def _state(self) -> IngestProgress:
        n_regions = len(self.walk.regions)
        return IngestProgress(
            regions_done=len(self.done),
            n_regions=n_regions,
            bytes_done=self.cube.nbytes * len(self.done) // n_regions,
            n_bytes=self.cube.nbytes,
            seconds=time.monotonic() - self.began,
            resumed=self.resumed,
        )

    def _finish(self) -> None:
        """Gather the parts, write the small arrays, and mark the store complete."""
        nav_shape = self.cube.shape[: self.cube.ndim - self.n_sig]
        itemsize = self.cube.dtype.itemsize
        grid = np.empty((*grid_shape(self.cube.shape, itemsize), HASH_BYTES), np.uint8)
        totals = np.zeros(nav_shape, SpectrumSum.zeros((), self.cube.dtype).total.dtype)
        spectrum = SpectrumSum.zeros(
            self.cube.shape[self.cube.ndim - self.n_sig :], self.cube.dtype
        )
        files: dict[str, tuple[int, str]] = {}
        for part in self.journal.parts():
            for number, total, hashes in zip(part.regions, part.totals, part.hashes, strict=True):
                region = self.walk.regions[number]
                totals[region[: len(nav_shape)]] += total
                grid[piece_box(self.cube.shape, itemsize, region)] = hashes
            spectrum.add(part.spectrum)
            files |= part.files
        digest = combine(header(self.cube), grid)
        variables = {**self.variables.small, **_quicklooks(self.cube, totals, spectrum)}
        documents = {}
        if self.events is not None:
            self.events.create(self.events.fullest(self.walk.regions))
            documents = {name: self._document(name, {}) for name in EVENT_ARRAYS}
        else:
            attributes = self.attributes | self.variables.attributes()
            documents[DATA] = self._document(DATA, attributes)
        for name, variable in variables.items():
            _write_small(self.root / name, variable, self.threads)
            documents[name] = self._document(name, to_json(dict(variable.attrs), f"{name}.attrs"))
        for leftover in self.root.rglob("*.partial"):
            leftover.unlink()
        for name in variables:
            files |= _digests(self.root, self.root / name)
        for name in EVENT_ARRAYS if self.events is not None else (DATA,):
            files |= _digests(self.root, self.root / name / "zarr.json")
        described = self.attributes if self.events is not None else None
        root = _root_document(self.cube, self.layout, digest, self.variables, documents, described)
        self._complete(files, root)

    def _complete(self, files: dict[str, tuple[int, str]], root: bytes) -> None:
        """Mark the store complete; `files` are all others."""
        self.journal.finish(files, root)

    def _document(self, name: str, attributes: dict[str, Any]) -> dict[str, Any]:
        """Metadata document of an array, with its attributes written to it."""
        path = self.root / name / "zarr.json"
        document: dict[str, Any] = read_json(path)
        document["attributes"] = attributes
        path.write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
        return document

    def disk_full(self) -> StoreError:
        """Say how much is missing."""
        done, n_regions = len(self.done), len(self.walk.regions)
        share = self.written / done if done else self.cube.nbytes / n_regions
        missing = int(share * (n_regions - done)) or self.layout.n_files(self.cube.shape) * 4096
        free = shutil.disk_usage(self.root if self.root.exists() else self.root.parent).free
        return StoreError(
            f"the disk is full: writing {self.shown} stopped after {done} of {n_regions} regions "
            f"({_size(self.written)}); about {_size(missing)} more are needed, {_size(free)} are free",
            hint="free some space and run the same command again: it goes on where it stopped",
        )


def _first(first: Any, _: Any) -> Any:
    return first


def _lengths(region: Region) -> tuple[int, ...]:
    return tuple(part.stop - part.start for part in region)


def _size(n: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


def _layout_json(layout: Layout, as_events: bool) -> dict[str, Any]:
    shards = list(layout.shards) if layout.shards else None
    found: dict[str, Any] = {"chunks": list(layout.chunks), "shards": shards}
    return {**found, "kind": "events"} if as_events else found


def _digests(root: Path, place: Path) -> dict[str, tuple[int, str]]:
    found = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    return {
        file.relative_to(root).as_posix(): (file.stat().st_size, file_digest(file))
        for file in found
    }


# --- arrays ---------------------------------------------------------------------------------------


def _zarr_array(
    place: Path,
    dtype: Any,
    shape: tuple[int, ...],
    layout: Layout,
    dims: Sequence[Hashable],
) -> Any:
    """Make an array, or open the one that an earlier run made."""
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec

    # Every chunk is a file, also one of zeros: a missing file is then a loss and not a value.
    config: Any = {"write_empty_chunks": True}
    if (place / "zarr.json").is_file():
        return zarr.open_array(str(place), mode="r+").with_config(config)
    numeric = not isinstance(dtype, type)
    # Level 1 with blocks of 512 KiB: as small as level 3 with its own blocks on sparse counts, two to
    # three times as fast to write and half again as fast to read. The checksum finds flipped bits.
    blosc = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", blocksize=2**19)
    compressors: Any = [blosc, Crc32cCodec()] if numeric else "auto"
    return zarr.create_array(
        str(place),
        shape=shape,
        chunks=layout.chunks,
        shards=layout.shards,
        dtype=dtype.newbyteorder("<") if numeric else dtype,
        compressors=compressors,
        fill_value=np.zeros((), dtype).item() if numeric else "",
        dimension_names=[str(dim) for dim in dims],
        zarr_format=3,
        config=config,
    )


def _write_small(place: Path, variable: xr.Variable, threads: int | None) -> None:
    """Write a coordinate, quicklook or companion; one of an earlier run is replaced."""
    if place.exists():
        shutil.rmtree(place)
    if variable.dtype.kind in "OUST":
        text = np.asarray(variable.values, dtype=object)
        array = _zarr_array(place, str, text.shape, Layout(text.shape), variable.dims)
        array[...] = text
        return
    layout = plan_layout(variable.shape, 0, variable.dtype.itemsize)
    array = _zarr_array(place, variable.dtype, variable.shape, layout, variable.dims)
    walk: Walk[None] = Walk(variable.data, layout)

    def visit(_: int, region: Region, block: NDArray[Any]) -> None:
        array[region if region else ...] = np.asarray(block)

    with _pool(threads) as pool:
        for group in walk.groups(range(len(walk.regions))):
            walk.run(group, visit, _first, pool)


def _data_attributes(cube: xr.DataArray) -> dict[str, Any]:
    attributes: dict[str, Any] = to_json(dict(cube.attrs))
    # xarray names an unnamed array after its Dask graph: that is nobody's name.
    if cube.name not in (None, DATA, getattr(cube.data, "name", None)):
        attributes["name"] = str(cube.name)
    return attributes


def _quicklooks(
    cube: xr.DataArray, totals: NDArray[Any], spectrum: SpectrumSum
) -> dict[str, xr.Variable]:
    import xarray as xr

    nav, sig = nav_dims(cube), sig_dims(cube)
    # Of a single spectrum or a single image the quicklook would be the cube itself.
    if not nav or not sig:
        return {}
    attrs = {"units": str(cube.attrs.get("units", "1"))}
    coords = {dim: cube.coords[dim].variable for dim in nav}
    image = xr.DataArray(
        totals, dims=nav, coords=coords, attrs={**attrs, "long_name": "sum over the signal"}
    )
    found = {
        TOTAL_COUNTS: image.variable,
        SUM_SPECTRUM: xr.Variable(
            sig, spectrum.values(), {**attrs, "long_name": "sum over all pixels"}
        ),
    }
    for name, level in pyramid(image).items():
        found[name] = level.variable
        found |= {
            str(dim): coord.variable
            for dim, coord in level.coords.items()
            if dim not in cube.coords
        }
    return found


@dataclass(eq=False)
class _Variables:
    """Coordinates and companions of a cube under the names they get in its store."""

    cube: xr.DataArray
    given: Sequence[xr.DataArray]
    small: dict[str, xr.Variable] = field(default_factory=dict)
    coords: list[str] = field(default_factory=list)
    companions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, coord in self.cube.coords.items():
            self._add(str(name), coord.variable)
            self.coords.append(str(name))
        for number, companion in enumerate(self.given):
            self._companion(companion, str(companion.name or f"companion_{number}"))

    def attributes(self) -> dict[str, Any]:
        """The attribute by which xarray knows coordinates that are not dims (names without spaces)."""
        extra = [name for name in self.coords if name not in self.cube.dims and " " not in name]
        return {"coordinates": " ".join(extra)} if extra else {}

    def _companion(self, companion: xr.DataArray, name: str) -> None:
        name = name.replace("/", "_")
        if name in self.small and self._known(companion.variable, name):
            return
        renamed = {
            dim: f"{name}_{dim}" for dim in companion.dims if not self._same_axis(companion, dim)
        }
        companion = companion.rename(renamed)
        self._add(name, companion.variable)
        self.companions.append(name)
        if set(companion.dims) <= set(nav_dims(self.cube)) and companion.ndim:
            self.coords.append(name)
        for dim in renamed.values():
            if dim in companion.coords:
                self._add(dim, companion.coords[dim].variable)

    def _known(self, variable: xr.Variable, name: str) -> bool:
        """Whether the cube carries this companion already, as a coordinate."""
        ours = self.small[name]
        return ours.dims == variable.dims and bool(np.array_equal(ours.values, variable.values))

    def _same_axis(self, companion: xr.DataArray, dim: Hashable) -> bool:
        if dim not in self.cube.dims or companion.sizes[dim] != self.cube.sizes[dim]:
            return False
        if dim not in companion.coords:
            return True
        ours, theirs = self.cube.coords[dim].values, companion.coords[dim].values
        if ours.dtype.kind in "iuf" and theirs.dtype.kind in "iuf":
            # Readers compute axes of one scan by different roads: equal to a millionth of a step.
            step = abs(float(ours[-1] - ours[0])) / max(1, ours.size - 1)
            return bool(np.allclose(ours, theirs, rtol=1e-9, atol=1e-6 * step))
        return bool(np.array_equal(ours, theirs))

    def _add(self, name: str, variable: xr.Variable) -> None:
        import xarray as xr

        reserved = name in {DATA, SUM_SPECTRUM, *EVENT_ARRAYS} or name.startswith(TOTAL_COUNTS)
        if name in self.small or reserved or "/" in name or name.startswith("."):
            why = "the store uses that name itself" if reserved else "expected unique plain names"
            raise CubeError(
                f"cannot store a coordinate or companion called {name!r}: {why}",
                hint=f"rename it: cube.rename({{{name!r}: 'another'}})",
            )
        plain = xr.Variable(variable.dims, variable.data, dict(variable.attrs))
        # Dates become numbers with a unit, as every reader of xarray's files knows them.
        self.small[name] = xr.conventions.encode_cf_variable(plain) if _is_date(plain) else plain


def _is_date(variable: xr.Variable) -> bool:
    return variable.dtype.kind in "mM"


def _root_document(
    cube: xr.DataArray,
    layout: Layout,
    digest: str,
    variables: _Variables,
    documents: dict[str, dict[str, Any]],
    described: dict[str, Any] | None,
) -> bytes:
    """The group's metadata document with those of all its arrays: one file to read when opening.

    `described` holds the attributes of a cube that is kept as events, and has no array of its own.
    """
    as_events = described is not None
    own = {
        "format": _FORMATS["events" if as_events else "dense"],
        "kind": "cube",
        "complete": True,
        "digest": digest,
        "layout": _layout_json(layout, as_events),
        "nbytes": int(cube.nbytes),
        "n_pixels": math.prod(cube.sizes[dim] for dim in nav_dims(cube)),
        "coords": variables.coords,
        "companions": variables.companions,
    }
    if as_events:
        own["cube"] = {
            "dims": [str(dim) for dim in cube.dims],
            "sig_dims": [str(dim) for dim in sig_dims(cube)],
            "shape": list(cube.shape),
            "dtype": cube.dtype.newbyteorder("<").str,
            "attributes": described,
        }
    document = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"emcube": own},
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": dict(sorted(documents.items())),
        },
    }
    return json.dumps(document, indent=1, allow_nan=False).encode()
