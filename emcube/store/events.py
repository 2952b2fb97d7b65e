"""Layout "events": a cube of counts as its cells that are not zero.

The cube is cut into blocks of pixels as the dense layout cuts it into chunks. Three arrays take the place
of the dense one (N blocks, M events in the fullest block):

===================  ===========================  =====================================================
array                shape, chunk                 holds
===================  ===========================  =====================================================
events_per_pixel     (nav...), one block          cells of each pixel that are not zero
event_channel        (N, M), (1, `WIDTH`)         flat channel of each such cell
event_count          (N, M), (1, `WIDTH`)         counts in it
===================  ===========================  =====================================================

Row i belongs to block i (C order of the grid of blocks) and holds its pixels one after the other in C order
within the block, channels ascending in a pixel. Blocks share no chunk, so they are written by anybody in any
order before it is known how many events the others have; chunks past a block's last event do not exist.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emcube.errors import InputError, StoreError
from emcube.kernels.rows import CountRows, joined_rows, rows_from_dense
from emcube.store.chunks import ChunkReader, reader_from_metadata
from emcube.store.hashing import HASH_BYTES, hash_block, piece_box, piece_shape
from emcube.store.journal import read_json
from emcube.store.layout import MAX_CHUNK, MAX_FILES, Layout, Region, plan_layout

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "CHANNEL",
    "COUNT",
    "EVENT_ARRAYS",
    "PER_PIXEL",
    "WIDTH",
    "EventReader",
    "EventWriter",
    "event_layout",
    "event_reader",
    "hash_rows",
]

PER_PIXEL = "events_per_pixel"
CHANNEL = "event_channel"
COUNT = "event_count"
EVENT_ARRAYS = (PER_PIXEL, CHANNEL, COUNT)

#: Events of a chunk: half a megabyte of channels, and the block of an X-ray map in one or a few of them.
WIDTH = 2**18
#: Level 1 on shuffled bytes in blocks of 512 KiB: 1.1 bytes an event, decoded at 3 ns an event. Level 3
#: takes three times as long to write for 6 % less, LZ4 reads twice as fast for 40 % more.
_CODEC: dict[str, Any] = {
    "cname": "zstd",
    "clevel": 1,
    "shuffle": "shuffle",
    "blocksize": 2**19,
}

_VERIFY_HINT = "check the store with emcube.store.verify(path), and ingest again or restore a copy"


def event_layout(cube: xr.DataArray) -> Layout:
    """Blocks of a cube in this layout: chunks of the dense one, of twice the size where there are many.

    Raises
    ------
    StoreError
        The cube cannot be kept as events; says why.
    """
    from emcube.cube import nav_dims, sig_dims

    n_sig, kind = len(sig_dims(cube)), cube.dtype.kind
    n_channels = math.prod(cube.shape[cube.ndim - n_sig :])
    if kind not in "iu":
        raise _unfit(f"its values are {cube.dtype}, and events are whole numbers")
    if not n_sig or not nav_dims(cube):
        raise _unfit(f"it has the dims {tuple(cube.dims)}, and events need pixels and channels")
    if n_channels * cube.dtype.itemsize > MAX_CHUNK or n_channels > 2**32:
        raise _unfit(f"{n_channels} channels of {cube.dtype} make a signal that is cut in chunks")
    source = getattr(cube.data, "chunks", None)

    def plan(**sizes: int) -> Layout:
        planned = plan_layout(
            cube.shape, n_sig, cube.dtype.itemsize, source_chunks=source, max_files=2**62, **sizes
        )
        return Layout(planned.chunks)

    layout = plan()
    # A block is three files at least.
    if 3 * layout.n_chunks(cube.shape) > MAX_FILES:
        layout = plan(target=MAX_CHUNK, max_chunk=MAX_CHUNK)
    return layout


def _unfit(why: str) -> StoreError:
    return StoreError(
        f"the cube cannot be stored as events: {why}",
        hint='use layout="dense" (--layout dense)',
    )


def _unsigned(most: int) -> np.dtype[Any]:
    """Narrowest little-endian unsigned type that holds a number."""
    return np.min_scalar_type(most).newbyteorder("<")


def _block_grid(shape: tuple[int, ...], blocks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // b) for n, b in zip(shape, blocks, strict=True))


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EventReader:
    """A cube stored as events that can be sliced, or read as rows.

    Attributes
    ----------
    shape, chunks : tuple of int
        Of the cube, and of a block of it with whole signals.
    dtype : numpy.dtype
        Of the cube.
    n_nav : int
        Leading dims that are navigation dims.
    per_pixel, channel, count : ChunkReader
        The three arrays.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    n_nav: int
    per_pixel: ChunkReader
    channel: ChunkReader
    count: ChunkReader

    @property
    def store(self) -> str:
        """Path or URL of the store."""
        return self.channel.store

    @property
    def ndim(self) -> int:
        """Number of dims."""
        return len(self.shape)

    @property
    def n_channels(self) -> int:
        """Channels E."""
        return math.prod(self.shape[self.n_nav :])

    def rows_bytes(self, n_pixels: int) -> int:
        """Bytes of the rows of so many pixels at most, from the fullest block of the store."""
        n_blocks = -(-n_pixels // math.prod(self.chunks[: self.n_nav]))
        pair = 2 * max(2, self.channel.dtype.itemsize, min(4, self.count.dtype.itemsize))
        return n_blocks * self.channel.shape[1] * pair + 8 * (n_pixels + 1)

    def rows(self, region: tuple[slice, ...]) -> CountRows:
        """Rows of the pixels of a region of the navigation grid, in C order.

        Raises
        ------
        StoreError
            A chunk is missing or damaged.
        """
        box = tuple(part.stop - part.start for part in region)
        parts, places = [], []
        for number, corner in self._blocks(region):
            rows, inside, target = self._block_part(number, corner, region)
            parts.append(rows if inside is None else rows.take(inside))
            places.append(_flat_index(target, box))
        if len(parts) == 1:
            return parts[0]
        joined = joined_rows(parts)
        order = np.concatenate(places)
        if (np.diff(order) == 1).all():
            return joined
        return joined.take(np.argsort(order))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        key = key + (slice(None),) * (self.ndim - len(key))
        picks: list[Any] = []
        region: list[slice] = []
        for k, n in zip(key, self.shape, strict=True):
            if isinstance(k, (int, np.integer)):
                start = int(k) + n if k < 0 else int(k)
                if not 0 <= start < n:
                    raise IndexError(f"index {k} is out of bounds for a dim of length {n}")
                region.append(slice(start, start + 1))
                picks.append(0)
            elif isinstance(k, slice):
                # What lies between the first and the last is read, then picked from.
                asked = range(*k.indices(n))
                ends = (min(asked[0], asked[-1]), max(asked[0], asked[-1]) + 1) if asked else (0, 0)
                region.append(slice(*ends))
                picks.append(
                    slice(None) if asked.step == 1 else np.asarray(asked, np.int64) - ends[0]
                )
            else:
                chosen = np.asarray(k)
                chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
                region.append(slice(0, n))
                picks.append(chosen)
        values = self._dense(tuple(region))
        for axis, pick in enumerate(picks):
            if isinstance(pick, np.ndarray):
                values = np.take(values, pick, axis=axis)
        return values[tuple(0 if isinstance(pick, int) else slice(None) for pick in picks)]

    def _dense(self, region: tuple[slice, ...]) -> NDArray[Any]:
        nav, sig = region[: self.n_nav], region[self.n_nav :]
        box = tuple(part.stop - part.start for part in region)
        if 0 in box:
            return np.zeros(box, self.dtype)
        rows = self.rows(nav)
        whole = rows.to_dense(self.dtype).reshape(box[: self.n_nav] + self.shape[self.n_nav :])
        if whole.shape == box:
            return whole
        every = (slice(None),) * self.n_nav
        return np.ascontiguousarray(whole[every + sig])

    def _blocks(self, region: tuple[slice, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Number and corner of each block that a region touches."""
        nav, blocks = self.shape[: self.n_nav], self.chunks[: self.n_nav]
        grid = _block_grid(nav, blocks)
        touched = [
            range(part.start // b, -(-part.stop // b) if part.stop > part.start else 0)
            for part, b in zip(region, blocks, strict=True)
        ]
        for index in product(*touched):
            number = int(np.ravel_multi_index(index, grid))
            yield number, tuple(i * b for i, b in zip(index, blocks, strict=True))

    def _block_part(
        self, number: int, corner: tuple[int, ...], region: tuple[slice, ...]
    ) -> tuple[CountRows, NDArray[np.int64] | None, list[NDArray[np.int64]]]:
        """Rows of a block, which of them lie in the region (None: all), and where in the region."""
        stops = tuple(
            min(c + b, n)
            for c, b, n in zip(corner, self.chunks[: self.n_nav], self.shape, strict=False)
        )
        rows = self._block(number, tuple(map(slice, corner, stops)))
        shared = [
            range(max(part.start, c), min(part.stop, s))
            for part, c, s in zip(region, corner, stops, strict=True)
        ]
        target = [
            np.asarray(both, np.int64) - part.start
            for both, part in zip(shared, region, strict=True)
        ]
        lengths = tuple(s - c for c, s in zip(corner, stops, strict=True))
        if tuple(map(len, shared)) == lengths:
            return rows, None, target
        own = [np.asarray(both, np.int64) - c for both, c in zip(shared, corner, strict=True)]
        return rows, _flat_index(own, lengths), target

    def _block(self, number: int, box: tuple[slice, ...]) -> CountRows:
        """Rows of a whole block."""
        lengths = self.per_pixel[box].reshape(-1)
        indptr = np.zeros(lengths.size + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:], dtype=np.int64)
        n_events = int(indptr[-1])
        if n_events > self.channel.shape[1]:
            raise self._damaged(
                number, f"{n_events} events, expected at most {self.channel.shape[1]}"
            )
        part = (slice(number, number + 1), slice(0, n_events))
        channels, counts = self.channel[part].reshape(-1), self.count[part].reshape(-1)
        most = int(counts.max()) if n_events else 0
        if n_events and int(channels.max()) >= self.n_channels:
            # Kernels do not look again.
            raise self._damaged(
                number, f"channel {int(channels.max())}, expected at most {self.n_channels - 1}"
            )
        if most > np.iinfo(np.uint32).max:
            raise InputError(f"a count of {most} does not fit 32 bits")
        narrow = self.n_channels <= 1 << 16 and most <= np.iinfo(np.uint16).max
        width = np.uint16 if narrow else np.uint32
        return CountRows(indptr, _owned(channels, width), _owned(counts, width), self.n_channels)

    def _damaged(self, number: int, what: str) -> StoreError:
        return StoreError(
            f"the events of {self.channel.store} are damaged: block {number} has {what}",
            hint=_VERIFY_HINT,
        )


def _flat_index(index: Sequence[NDArray[np.int64]], box: tuple[int, ...]) -> NDArray[np.int64]:
    """Flat numbers, in C order, of the positions in a box that an index of each dim picks."""
    flat: NDArray[np.int64] = np.ravel_multi_index(np.ix_(*index), box).ravel()
    return flat


def _owned(values: NDArray[Any], width: Any) -> NDArray[Any]:
    """Values in a width, without the rest of the chunk they were decoded with."""
    return np.array(values, dtype=width, copy=True)


def event_reader(
    store: str, own: Mapping[str, Any], documents: Mapping[str, Mapping[str, Any]]
) -> EventReader:
    """Make the reader of a cube from what its store says of itself.

    Parameters
    ----------
    store : str
        Path or URL.
    own : dict
        The group's attribute "emcube".
    documents : dict
        Metadata documents of the arrays.
    """
    cube = own["cube"]
    readers = [
        reader_from_metadata(store, name, dict(documents[name]), checked=True)
        for name in EVENT_ARRAYS
    ]
    return EventReader(
        tuple(int(n) for n in cube["shape"]),
        np.dtype(cube["dtype"]),
        tuple(int(n) for n in own["layout"]["chunks"]),
        len(cube["dims"]) - len(cube["sig_dims"]),
        *readers,
    )


# --- writing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EventWriter:
    """Writes the blocks of one cube.

    Attributes
    ----------
    root : Path
        The store.
    shape, chunks : tuple of int
        Of the cube, and of a block of it.
    dtype : numpy.dtype
        Of the cube.
    n_nav : int
        Leading dims that are navigation dims.
    dims : tuple of str
        Names of the navigation dims.
    """

    root: Path
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    n_nav: int
    dims: tuple[str, ...]

    @property
    def n_channels(self) -> int:
        """Channels E."""
        return math.prod(self.shape[self.n_nav :])

    @property
    def width(self) -> int:
        """Events of a chunk: no more than a block has cells."""
        return min(WIDTH, math.prod(self.chunks))

    def dtypes(self) -> tuple[np.dtype[Any], np.dtype[Any], np.dtype[Any]]:
        """Of the three arrays; known before the first value is."""
        return (
            _unsigned(self.n_channels),
            _unsigned(self.n_channels - 1),
            np.dtype(f"<u{self.dtype.itemsize}"),
        )

    def rows(self, block: NDArray[Any]) -> CountRows:
        """Rows of a dense block, shape (nav..., sig...).

        Raises
        ------
        StoreError
            A value is negative or does not fit 32 bits.
        """
        n_pixels = math.prod(block.shape[: self.n_nav])
        try:
            rows = rows_from_dense(block.reshape(n_pixels, -1))
        except InputError as error:
            raise _unfit(error.message) from error
        assert rows is not None
        return rows

    def write(self, region: Region, rows: CountRows) -> list[Path]:
        """Write one block; returns its files."""
        nav, blocks = self.shape[: self.n_nav], self.chunks[: self.n_nav]
        index = tuple(part.start // b for part, b in zip(region, blocks, strict=False))
        number = int(np.ravel_multi_index(index, _block_grid(nav, blocks)))
        per_pixel, channel, count = self.dtypes()
        lengths = np.zeros(blocks, dtype=per_pixel)
        box = tuple(slice(0, part.stop - part.start) for part in region[: self.n_nav])
        lengths[box] = np.diff(rows.indptr).reshape(lengths[box].shape)
        files = [self._write(PER_PIXEL, index, lengths)]
        for name, values, dtype in ((CHANNEL, rows.channels, channel), (COUNT, rows.counts, count)):
            for at in range(0, rows.nnz, self.width):
                chunk = np.zeros(self.width, dtype=dtype)
                part = values[at : at + self.width]
                chunk[: part.size] = part
                files.append(self._write(name, (number, at // self.width), chunk))
        return files

    def _write(self, name: str, index: tuple[int, ...], chunk: NDArray[Any]) -> Path:
        """Encode and write one chunk as zarr would, without its event loop."""
        import google_crc32c
        from numcodecs import blosc

        body = blosc.compress(
            chunk.reshape(-1),
            _CODEC["cname"].encode(),
            _CODEC["clevel"],
            blosc.SHUFFLE,
            _CODEC["blocksize"],
        )
        path = Path(self.root, name, "c", *map(str, index))
        path.parent.mkdir(parents=True, exist_ok=True)
        check = int(google_crc32c.value(body)).to_bytes(4, "little")
        with path.open("wb") as file:
            file.write(body)
            file.write(check)
        return path

    def fullest(self, regions: Sequence[Region]) -> int:
        """Events of the fullest block, from the files of all of them."""
        self.create(1)
        document = read_json(self.root / PER_PIXEL / "zarr.json")
        lengths = reader_from_metadata(str(self.root), PER_PIXEL, document, checked=True)
        # The store has no document of its own yet by which another edition would be told.
        lengths = replace(lengths, edition=None)
        return max(int(lengths[region[: self.n_nav]].sum(dtype=np.int64)) for region in regions)

    def create(self, n_events: int) -> None:
        """Write the metadata of the three arrays, whose fullest block has so many events."""
        import zarr
        from zarr.codecs import BloscCodec, Crc32cCodec

        n_blocks = math.prod(_block_grid(self.shape[: self.n_nav], self.chunks[: self.n_nav]))
        flat = ((n_blocks, max(1, n_events)), (1, self.width), ("block", "event"))
        nav = (self.shape[: self.n_nav], self.chunks[: self.n_nav], self.dims)
        for name, (shape, chunks, dims), dtype in zip(
            EVENT_ARRAYS, (nav, flat, flat), self.dtypes(), strict=True
        ):
            (self.root / name / "zarr.json").unlink(missing_ok=True)
            zarr.create_array(
                str(self.root / name),
                shape=shape,
                chunks=chunks,
                dtype=dtype,
                compressors=[BloscCodec(typesize=dtype.itemsize, **_CODEC), Crc32cCodec()],
                fill_value=0,
                dimension_names=list(dims),
                zarr_format=3,
                overwrite=False,
            )


def hash_rows(
    rows: CountRows, dtype: np.dtype[Any], shape: tuple[int, ...], n_nav: int, region: Region
) -> NDArray[np.uint8]:
    """Hash the pieces of a block that is given as rows: what `hash_block` gives for it made dense.

    Pieces are filled one after the other, so that no dense block is ever held.

    Parameters
    ----------
    rows : CountRows
        Of the region's pixels, in C order.
    dtype : numpy.dtype
        Of the cube.
    shape : tuple of int
        Of the cube.
    n_nav : int
        Leading dims that are navigation dims.
    region : tuple of slice
        Where the block lies: a box of pixels with whole signals.

    Returns
    -------
    ndarray of uint8, shape (pieces along each dim of the block..., 32)
    """
    box = tuple(part.stop - part.start for part in region)
    piece = piece_shape(shape, dtype.itemsize)
    counts = tuple(part.stop - part.start for part in piece_box(shape, dtype.itemsize, region))
    out = np.empty((math.prod(counts), HASH_BYTES), np.uint8)
    cut = next((d for d, p in enumerate(piece) if p > 1), len(piece) - 1)
    # Pixels of a piece; where a signal is more than one piece, pixels are hashed one by one.
    inner = math.prod(box[cut + 1 : n_nav]) if cut < n_nav else 1
    run = piece[cut] * inner if cut < n_nav else 1
    length = box[cut] * inner if cut < n_nav else 1
    cells = np.empty((min(run, length), rows.n_channels), dtype.newbyteorder("<"))
    at = 0
    for lead in range(0, rows.n_pixels, length):
        for start in range(lead, lead + length, run):
            stop = min(start + run, lead + length)
            part = cells[: stop - start]
            rows.fill(start, stop, part)
            if cut < n_nav:
                out[at] = np.frombuffer(hashlib.sha256(part.data).digest(), np.uint8)
                at += 1
                continue
            signal = tuple(slice(0, n) for n in shape[n_nav:])
            found = hash_block(part.reshape(shape[n_nav:]), shape[n_nav:], signal)
            out[at : at + found.size // HASH_BYTES] = found.reshape(-1, HASH_BYTES)
            at += found.size // HASH_BYTES
    return out.reshape(*counts, HASH_BYTES)
