"""How a cube is cut into chunks and shards: arithmetic on shapes, nothing else.

A chunk holds whole spectra (whole patterns): every algorithm here works on pixels. Of the navigation
dims the leading ones are split first, so that a chunk is one run of pixels in C order. Whatever a chunk
holds, it costs 0.6 ms of CPU time through zarr-python (0.04 ms through `emcube.store.chunks`, and 0.3 ms
for Dask's task), while 16 MiB take about 15 ms to decode: overhead stays under 5 % of a pass, and a few
chunks in flight keep memory small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from emcube.errors import StoreError
from emcube.store import hashing

__all__ = ["MAX_CHUNK", "MAX_FILES", "MAX_SHARD", "TARGET_CHUNK", "Layout", "Region", "plan_layout"]

MIB = 2**20
#: Decoded size that chunks aim at, bytes.
TARGET_CHUNK = 16 * MIB
#: Decoded size that no chunk exceeds, bytes.
MAX_CHUNK = 32 * MIB
#: Number of files from which on chunks are packed into shards.
MAX_FILES = 10_000
#: Decoded size that no shard exceeds, bytes: a writer holds a whole shard.
MAX_SHARD = 512 * MIB

#: A navigation dim stays whole up to this many times the target, rather than being cut in two.
_STRETCH = 1.5

Region = tuple[slice, ...]


@dataclass(frozen=True)
class Layout:
    """Chunks of an array, and the shards they are packed into.

    Attributes
    ----------
    chunks : tuple of int
        Cells of a chunk along each dim.
    shards : tuple of int or None
        Cells of a shard along each dim, multiples of the chunk's; None where each chunk is a file.
    """

    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None

    @property
    def unit(self) -> tuple[int, ...]:
        """What one writer writes whole: a shard, or a chunk where there are none."""
        return self.shards or self.chunks

    def regions(self, shape: Sequence[int]) -> Iterator[Region]:
        """Boxes of one unit each that cover an array of the given shape, in C order."""
        steps = [range(0, n, unit) for n, unit in zip(shape, self.unit, strict=True)]
        for corner in product(*steps):
            yield tuple(
                slice(start, min(start + unit, n))
                for start, unit, n in zip(corner, self.unit, shape, strict=True)
            )

    def n_chunks(self, shape: Sequence[int]) -> int:
        """Chunks of an array of the given shape."""
        return math.prod(-(-n // c) for n, c in zip(shape, self.chunks, strict=True))

    def n_files(self, shape: Sequence[int]) -> int:
        """Files that hold the array."""
        return math.prod(-(-n // u) for n, u in zip(shape, self.unit, strict=True))


def plan_layout(
    shape: Sequence[int],
    n_sig: int,
    itemsize: int,
    *,
    source_chunks: Sequence[Sequence[int]] | None = None,
    target: int = TARGET_CHUNK,
    max_chunk: int = MAX_CHUNK,
    max_files: int = MAX_FILES,
    max_shard: int = MAX_SHARD,
) -> Layout:
    """Plan chunks and shards of a cube.

    A pure function of its arguments: never of workers, memory or executor.

    Parameters
    ----------
    shape : sequence of int
        Navigation dims, then `n_sig` signal dims; none is zero.
    n_sig : int
        Number of signal dims; may be 0.
    itemsize : int
        Bytes of a value.
    source_chunks : sequence of sequence of int, optional
        Chunks of the source along each dim, as Dask gives them. The one dim that is cut between pixels is
        then cut where the source is, if that changes the chunk's size by less than half.
    target, max_chunk, max_shard : int
        Bytes, decoded.
    max_files : int
        Chunks are packed into shards where there would be more.

    Returns
    -------
    Layout

    Raises
    ------
    StoreError
        A size is not positive, or `n_sig` is not between 0 and the number of dims.

    Examples
    --------
    >>> plan_layout((73, 124, 165, 900), 1, 1)
    Layout(chunks=(1, 124, 165, 900), shards=None)
    """
    shape = tuple(int(n) for n in shape)
    _check(shape, n_sig, itemsize)
    # A chunk smaller than a piece of the digest would leave pieces to several writers.
    target = max(target, hashing.PIECE_BYTES)
    max_chunk = max(max_chunk, target)
    chunks, cut = _cut(shape, n_sig, itemsize, target, max_chunk)
    if cut is not None and cut < len(shape) - n_sig and source_chunks is not None:
        chunks = _follow_source(shape, itemsize, chunks, cut, source_chunks[cut], target)
    return Layout(chunks, _shards(shape, itemsize, chunks, max_files, max_shard))


def _check(shape: tuple[int, ...], n_sig: int, itemsize: int) -> None:
    if itemsize < 1 or any(n < 1 for n in shape) or not 0 <= n_sig <= len(shape):
        raise StoreError(
            f"no layout for shape {shape} with {n_sig} signal dims of {itemsize}-byte values: "
            "expected positive lengths and at most as many signal dims as dims",
            hint="drop empty dims, or make the cube with emcube.make_cube",
        )


def _cut(
    shape: tuple[int, ...], n_sig: int, itemsize: int, target: int, max_chunk: int
) -> tuple[tuple[int, ...], int | None]:
    """Chunks and the one dim that is cut within its length; dims before it have length 1."""
    chunks = list(shape)
    inner = itemsize
    for dim in reversed(range(len(shape))):
        # A signal is kept whole as long as it may be: half a spectrum serves nobody.
        limit = max_chunk if dim >= len(shape) - n_sig else min(max_chunk, int(_STRETCH * target))
        if inner * shape[dim] > limit:
            most = max(1, target // inner)
            length = -(-shape[dim] // -(-shape[dim] // most))
            chunks[dim] = _whole_pieces(shape, itemsize, dim, length)
            chunks[:dim] = [1] * dim
            return tuple(chunks), dim
        inner *= shape[dim]
    return tuple(chunks), None


def _whole_pieces(shape: tuple[int, ...], itemsize: int, dim: int, length: int) -> int:
    """Round up so that chunks hold whole pieces of the digest: each is then hashed by one writer."""
    piece = hashing.piece_shape(shape, itemsize)[dim]
    return min(shape[dim], -(-length // piece) * piece)


def _follow_source(
    shape: tuple[int, ...],
    itemsize: int,
    chunks: tuple[int, ...],
    cut: int,
    source: Sequence[int],
    target: int,
) -> tuple[int, ...]:
    step, length = int(source[0]), chunks[cut]
    even = all(n == step for n in source[:-1]) and source[-1] <= step
    if not even or step >= shape[cut]:
        return chunks
    inner = itemsize * math.prod(chunks[cut + 1 :])
    most = min(shape[cut], max(1, int(_STRETCH * target) // inner))
    least = -(-length // 2)
    piece = hashing.piece_shape(shape, itemsize)[cut]
    fits = [
        n for n in range(least, most + 1) if n % piece == 0 and (n % step == 0 or step % n == 0)
    ]
    if not fits:
        return chunks
    # The nearest in size; of two equally near the longer, which makes fewer chunks.
    best = min(fits, key=lambda n: (abs(n - length), -n))
    return (*chunks[:cut], best, *chunks[cut + 1 :])


def _shards(
    shape: tuple[int, ...],
    itemsize: int,
    chunks: tuple[int, ...],
    max_files: int,
    max_shard: int,
) -> tuple[int, ...] | None:
    counts = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    if math.prod(counts) <= max_files:
        return None
    room = max(1, max_shard // (itemsize * math.prod(chunks)))
    wanted = min(room, -(-math.prod(counts) // max_files))
    shards = list(chunks)
    # From the last dim that is cut towards the first: a shard is a run of pixels, too.
    for dim in reversed(range(len(shape))):
        if wanted > 1 and counts[dim] > 1:
            factor = min(counts[dim], wanted)
            shards[dim] = chunks[dim] * factor
            wanted = wanted // factor
    return tuple(shards) if tuple(shards) != chunks else None
