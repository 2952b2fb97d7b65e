"""Chunks of a stranger's array: each file is one of them, and none is missing or smaller than it says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from emcube.errors import PackageError
from emcube.package.names import printable

__all__ = ["Grid", "Inner", "check_chunks", "expect"]

MAX_UNWRITTEN = 64 * 2**20
"""Decoded bytes of an array's chunks that are not there: small ones of nothing but zeros are not written."""

MAX_TEXT = 64 * 2**20
"""Decoded bytes of a chunk of texts."""

_HINT = "do not use this package, or ask who made it"
_HEADER = 18
"""Bytes at the beginning of a chunk that tell how large it is, whatever packed it."""


@dataclass(frozen=True)
class Inner:
    """Chunks within shards.

    Attributes
    ----------
    chunks : tuple of int
    codecs : tuple of str
    at_end : bool
        Whether the index follows the chunks.
    checksum : bool
        Whether a checksum of four bytes follows the index.
    """

    chunks: tuple[int, ...]
    codecs: tuple[str, ...]
    at_end: bool
    checksum: bool


@dataclass(frozen=True)
class Grid:
    """How an array is cut.

    Attributes
    ----------
    shape, chunks : tuple of int
        Of the array, and of what a file holds.
    itemsize : int
        Bytes of a value.
    codecs : tuple of str
        Of a file.
    key : tuple of str
        Encoding of the files' names ("default", "v2"), and its separator.
    inner : Inner or None
        Where files are shards.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    itemsize: int
    codecs: tuple[str, ...]
    key: tuple[str, str]
    inner: Inner | None

    @property
    def counts(self) -> tuple[int, ...]:
        """Chunks along each dim."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))

    def index_of(self, name: str) -> tuple[int, ...] | None:
        """Index of the chunk whose file has this name within the array's folder; None for other files."""
        kind, separator = self.key
        parts = name.split(separator)
        if kind == "default":
            if parts[:1] != ["c"]:
                return None
            parts = parts[1:]
        elif not self.shape:
            return () if name == "0" else None
        if len(parts) != len(self.shape):
            return None
        index = []
        for part, n in zip(parts, self.counts, strict=True):
            # Only the way in which it is written counts: "01" is the name of no chunk.
            if not (part.isascii() and part.isdigit()) or len(part) > 19 or part != str(int(part)):
                return None
            if int(part) >= n:
                return None
            index.append(int(part))
        return tuple(index)


def check_chunks(folder: Path, grid: Grid, what: str) -> None:
    """Refuse files that are no chunks of an array, and arrays that declare more than their chunks hold.

    Parameters
    ----------
    folder : Path
        Of the array.
    grid : Grid
    what : str
        Whose it is, for messages.

    Raises
    ------
    PackageError
        Says which file, and why.
    """
    chunk_bytes = math.prod(grid.chunks) * grid.itemsize
    present, unwritten = 0, 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name == "zarr.json":
            continue
        index = grid.index_of(name)
        expect(index is not None, what, f"has the file {name!r}", "chunks of its own only")
        assert index is not None
        present += 1
        this = f"{what}: the chunk {path.name!r}"
        if grid.inner is not None:
            unwritten += _check_shard(path, grid, grid.inner, index, this)
        else:
            n_bytes = path.stat().st_size
            with path.open("rb") as file:
                _check_size(file.read(_HEADER), n_bytes, grid.codecs, chunk_bytes, this)
            if "vlen-utf8" in grid.codecs:
                _check_texts(path, grid.codecs, math.prod(grid.chunks), this)
    wanted = math.prod(grid.counts)
    unwritten += (wanted - present) * chunk_bytes
    expect(
        unwritten <= MAX_UNWRITTEN,
        what,
        f"has {present} chunks, which lack {unwritten:,} bytes of values",
        f"{wanted} whole ones, as its shape {grid.shape} needs",
    )


def _check_size(head: bytes, n_bytes: int, codecs: Sequence[str], most: int, what: str) -> None:
    """Refuse a chunk that says it unpacks to more or less than a chunk of its array holds."""
    texts = "vlen-utf8" in codecs
    n_bytes -= 4 * ("crc32c" in codecs)
    packed = next((name for name in codecs if name in ("blosc", "zstd")), None)
    if packed == "blosc":
        said = int.from_bytes(head[12:16], "little")
        expect(
            len(head) >= 16 and said == n_bytes,
            what,
            f"has {n_bytes} bytes",
            f"the {said} that its header says",
        )
        found: int | None = int.from_bytes(head[4:8], "little")
    elif packed == "zstd":
        found = _zstd_bytes(head)
    else:
        found = n_bytes
    expect(found is not None, what, "does not say how much it unpacks to", f"at most {most} bytes")
    assert found is not None
    most = MAX_TEXT if texts else most
    expect(found <= most, what, f"unpacks to {found} bytes", f"at most {most}")
    expect(texts or found == most, what, f"unpacks to {found} bytes", f"{most}")


def _check_shard(path: Path, grid: Grid, inner: Inner, index: tuple[int, ...], what: str) -> int:
    """Check each chunk of a shard by the shard's index; returns bytes of values that are not there."""
    per_shard = tuple(n // c for n, c in zip(grid.chunks, inner.chunks, strict=True))
    count, chunk_bytes = math.prod(per_shard), math.prod(inner.chunks) * grid.itemsize
    index_bytes = 16 * count
    room = index_bytes + 4 * inner.checksum
    n_bytes = path.stat().st_size
    expect(n_bytes >= room, what, f"has {n_bytes} bytes", f"an index of {room} at least")
    missing = 0
    with path.open("rb") as file:
        places = _read_index(file, n_bytes - room if inner.at_end else 0, index_bytes)
        for number, (start, length) in enumerate(places.reshape(-1, 2).tolist()):
            if start == length == _ABSENT:
                missing += _inside(grid, inner, index, np.unravel_index(number, per_shard))
                continue
            expect(start + length <= n_bytes, what, "names a chunk beyond its end", "one within it")
            file.seek(start)
            _check_size(file.read(min(_HEADER, length)), length, inner.codecs, chunk_bytes, what)
    return missing * chunk_bytes


_ABSENT = 2**64 - 1


def _read_index(file: IO[bytes], start: int, n_bytes: int) -> NDArray[np.uint64]:
    file.seek(start)
    return np.frombuffer(file.read(n_bytes), "<u8")


def _inside(grid: Grid, inner: Inner, shard: tuple[int, ...], place: Sequence[np.intp]) -> bool:
    """Whether a chunk of a shard holds values of the array: beyond its edge nothing needs to be there."""
    starts = (
        s * n + int(p) * c
        for s, n, p, c in zip(shard, grid.chunks, place, inner.chunks, strict=True)
    )
    return all(start < n for start, n in zip(starts, grid.shape, strict=True))


def _zstd_bytes(head: bytes) -> int | None:
    """Bytes that a frame of Zstandard says it holds (RFC 8878, 3.1.1.1); None where it does not say."""
    if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < 6:
        return None
    flags = head[4]
    single = flags >> 5 & 1
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    n = (single, 2, 4, 8)[flags >> 6]
    if n == 0 or len(head) < start + n:
        return None
    return int.from_bytes(head[start : start + n], "little") + (256 if n == 2 else 0)


def _check_texts(path: Path, codecs: Sequence[str], n_values: int, what: str) -> None:
    """Refuse texts that are said to be more than the chunk has places: room for all is made at once."""
    data = path.read_bytes()
    data = data[:-4] if "crc32c" in codecs else data
    if "zstd" in codecs:
        from numcodecs.zstd import Zstd

        try:
            data = bytes(Zstd().decode(data))
        except RuntimeError as error:
            raise PackageError(f"{what} cannot be read: {printable(error)}", hint=_HINT) from error
    n_texts = int.from_bytes(data[:4], "little")
    expect(n_texts <= n_values, what, f"holds {n_texts} texts", f"at most {n_values}")


def expect(holds: bool, what: str, found: str, expected: str) -> None:
    """Raise where something does not hold, in words of what was found and what was expected."""
    if not holds:
        raise PackageError(f"{what} {printable(found)}, expected {expected}", hint=_HINT)
