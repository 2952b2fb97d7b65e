"""Where blocks come from: stores, Dask arrays, arrays in memory, sparse matrices, or another source."""

from __future__ import annotations

import hashlib
import itertools
import math
import sys
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emcube.engine.plan import BlockPlan, plan_blocks
from emcube.errors import EngineError, InputError
from emcube.kernels.rows import MAX_ROW_DENSITY, CountRows, rows_from_dense, rows_from_sparse

__all__ = [
    "ArraySource",
    "Block",
    "BlockSource",
    "DaskSource",
    "MappedSource",
    "Reader",
    "SparseSource",
    "StoreSource",
    "compress",
    "feed",
    "needed",
    "place_of",
]


OBJECT_BYTES = 1024
"""What Python needs for a block that is kept, besides its values: it counts where blocks are small."""


@dataclass(frozen=True, eq=False)
class Block:
    """Selected pixels of one box of the navigation grid, with the used channels.

    Attributes
    ----------
    id : int
        Number in the plan.
    data : CountRows or ndarray, shape (p, E)
        Counts that are rare come as rows, everything else as a dense matrix in the source's dtype.
    nav_shape, offset : tuple of int
        The box: its lengths and its corner in the navigation grid.
    selected : ndarray of bool, shape (box pixels,), or None
        Which pixels of the box `data` holds, in C order; None means all.
    """

    id: int
    data: CountRows | NDArray[Any]
    nav_shape: tuple[int, ...]
    offset: tuple[int, ...]
    selected: NDArray[np.bool_] | None = None

    @property
    def n_pixels(self) -> int:
        """Pixels in `data`."""
        return int(self.data.shape[0])

    @property
    def n_channels(self) -> int:
        """Channels in `data`."""
        return int(self.data.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        extra = 0 if self.selected is None else self.selected.nbytes
        return int(self.data.nbytes) + extra + OBJECT_BYTES

    def subset(self, pixels: NDArray[Any]) -> Block:
        """Block with some of its pixels: indices into `data`, or a boolean selection."""
        pixels = np.asarray(pixels)
        if pixels.dtype == np.bool_:
            pixels = np.flatnonzero(pixels)
        where = self.box_index()
        selected = np.zeros(math.prod(self.nav_shape), dtype=bool)
        pixels = np.sort(pixels)
        selected[where[pixels]] = True
        data = self.data.take(pixels) if isinstance(self.data, CountRows) else self.data[pixels]
        return replace(self, data=data, selected=selected)

    def box_index(self) -> NDArray[np.int64]:
        """Flat index within the box of each pixel in `data`."""
        if self.selected is None:
            return np.arange(math.prod(self.nav_shape), dtype=np.int64)
        return np.flatnonzero(self.selected)

    def dense(self, dtype: Any = np.float64) -> NDArray[Any]:
        """`data` as a dense matrix of the given dtype, shape (p, E)."""
        if isinstance(self.data, CountRows):
            return self.data.to_dense(dtype)
        return np.asarray(self.data, dtype=dtype)

    def expand(self, values: NDArray[Any], fill: Any) -> NDArray[Any]:
        """Per-pixel values (p, ...) laid out over the whole box, `fill` where no pixel is used."""
        trailing = values.shape[1:]
        if self.selected is None:
            return values.reshape((*self.nav_shape, *trailing))
        out = np.full((self.selected.size, *trailing), fill, dtype=values.dtype)
        out[self.selected] = values
        return out.reshape((*self.nav_shape, *trailing))


class BlockSource(Protocol):
    """A cube as blocks. Sources pickle; `part` makes one that holds only what some blocks need."""

    @property
    def plan(self) -> BlockPlan:
        """The grid of blocks."""
        ...

    @property
    def n_channels(self) -> int:
        """Used channels E."""
        ...

    @property
    def n_pixels(self) -> int:
        """Selected pixels P."""
        ...

    @property
    def token(self) -> str:
        """Identity of what the blocks hold, as the key of resident blocks."""
        ...

    @property
    def block_bytes(self) -> int:
        """Bytes of a full block as it is read."""
        ...

    def load(self, block_id: int) -> Block:
        """Read one block."""
        ...

    def part(self, block_ids: Iterable[int]) -> BlockSource:
        """A source that can load these blocks and is small to send."""
        ...


def compress(cells: NDArray[Any]) -> CountRows | NDArray[Any]:
    """Rows where a dense block (p, E) holds rare counts, the block itself otherwise.

    Signed integers with negative values and floats stay dense.
    """
    kind = cells.dtype.kind
    if kind == "f" and cells.dtype.itemsize not in (4, 8):
        # Half and long floats are what neither BLAS nor the kernels know.
        cells = cells.astype(np.float32 if cells.dtype.itemsize < 4 else np.float64)
    if kind not in "iub" or (kind == "i" and cells.size and int(cells.min()) < 0):
        return np.ascontiguousarray(cells, dtype=cells.dtype.newbyteorder("="))
    rows = rows_from_dense(cells, max_density=MAX_ROW_DENSITY)
    if rows is None:
        return np.ascontiguousarray(cells, dtype=cells.dtype.newbyteorder("="))
    return rows


def refuse_masked(values: Any) -> None:
    """Refuse values of which some are masked: as an array they would show again.

    Raises
    ------
    InputError
        A value is masked.
    """
    if np.ma.is_masked(values):
        n_hidden = int(np.ma.getmaskarray(values).sum())
        raise InputError(
            f"a chunk is masked: {n_hidden} of its {values.size} values are hidden",
            hint="fill them with dask.array.ma.filled(array, 0), or leave pixels out with where=",
        )


_process = uuid.uuid4().hex
_serials = itertools.count()
_known: dict[int, tuple[weakref.ref[Any], str]] = {}


def _identity(thing: Any) -> str:
    """Name of an object in memory, never given to another one (an address is, once it is free)."""
    known = _known.get(id(thing))
    if known is not None and known[0]() is thing:
        return known[1]
    name = f"memory-{_process}-{next(_serials)}"
    address = id(thing)

    def forget(reference: weakref.ref[Any]) -> None:
        if address in _known and _known[address][0] is reference:
            del _known[address]

    _known[address] = (weakref.ref(thing, forget), name)
    return name


def _region_of(plan: BlockPlan, block_ids: Sequence[int]) -> tuple[slice, ...]:
    """Smallest box that holds some blocks."""
    boxes = [plan.slices(i) for i in block_ids]
    return tuple(
        slice(min(s.start for s in along), max(s.stop for s in along))
        for along in zip(*boxes, strict=True)
    )


def _inside(
    plan: BlockPlan, block_id: int, corner: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """Region of a block within a part that begins at a corner.

    Raises
    ------
    EngineError
        The part does not hold the block: slices past its end would give less, without a word.
    """
    region = tuple(
        slice(s.start - o, s.stop - o) for s, o in zip(plan.slices(block_id), corner, strict=True)
    )
    if any(s.start < 0 or s.stop > n for s, n in zip(region, shape, strict=False)):
        raise EngineError(
            f"block {block_id} is not in this part of the source",
            hint="ask part() for every block that is going to be loaded",
        )
    return region


@dataclass(frozen=True, eq=False)
class _Selection:
    """Pixels and channels that are used; None means all.

    A part holds the pixels of some blocks: `corner` is where they begin, and count and digest are those of
    the whole.
    """

    pixels: NDArray[np.bool_] | None = None
    channels: NDArray[np.int64] | None = None
    corner: tuple[int, ...] | None = None

    @cached_property
    def digest(self) -> str:
        """Short digest of the selection."""
        if self.pixels is None and self.channels is None:
            return "all"
        digest = hashlib.sha256()
        for part in (self.pixels, self.channels):
            digest.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
            digest.update(b"|")
        return digest.hexdigest()[:16]

    @cached_property
    def count(self) -> int:
        """Pixels that are used, where not all are."""
        return 0 if self.pixels is None else int(np.count_nonzero(self.pixels))

    def n_channels(self, plan: BlockPlan) -> int:
        return plan.n_channels if self.channels is None else int(self.channels.size)

    def n_pixels(self, plan: BlockPlan) -> int:
        return plan.n_pixels if self.pixels is None else self.count

    def cut(self, plan: BlockPlan, block_ids: Sequence[int]) -> _Selection:
        """What some blocks need of it: all pixels of a cube are too many to go with every task."""
        if self.pixels is None or self.corner is not None or not block_ids:
            return self
        region = _region_of(plan, block_ids)
        part = _Selection(
            np.ascontiguousarray(self.pixels[region]),
            self.channels,
            tuple(s.start for s in region),
        )
        part.__dict__.update(digest=self.digest, count=self.count)
        return part

    def of_block(self, plan: BlockPlan, block_id: int) -> NDArray[np.bool_] | None:
        if self.pixels is None:
            return None
        corner = self.corner or (0,) * self.pixels.ndim
        region = _inside(plan, block_id, corner, self.pixels.shape)
        return np.ascontiguousarray(self.pixels[region]).reshape(-1)

    def block(self, plan: BlockPlan, block_id: int, cells: NDArray[Any]) -> Block:
        """Block of dense cells (box pixels, all channels)."""
        selected = self.of_block(plan, block_id)
        if selected is not None:
            cells = cells[selected]
        if self.channels is not None:
            cells = cells[:, self.channels]
        return Block(
            block_id, compress(cells), plan.shape(block_id), plan.offset(block_id), selected
        )

    def of_rows(self, plan: BlockPlan, block_id: int, rows: CountRows, dtype: Any) -> Block:
        """Block of rows (box pixels, all channels); dense where `compress` would have left it so."""
        selected = self.of_block(plan, block_id)
        if selected is not None:
            rows = rows.take(selected)
        if self.channels is not None:
            rows = rows.take_channels(self.channels)
        data: CountRows | NDArray[Any] = rows
        if rows.nnz > MAX_ROW_DENSITY * rows.n_pixels * rows.n_channels:
            data = rows.to_dense(np.dtype(dtype).newbyteorder("="))
        return Block(block_id, data, plan.shape(block_id), plan.offset(block_id), selected)


@dataclass(frozen=True, eq=False)
class _SelectingSource:
    """What the sources over stored values share."""

    plan: BlockPlan
    selection: _Selection
    name: str

    @property
    def n_channels(self) -> int:
        """Used channels E."""
        return self.selection.n_channels(self.plan)

    @property
    def n_pixels(self) -> int:
        """Selected pixels P."""
        return self.selection.n_pixels(self.plan)

    @property
    def token(self) -> str:
        """Identity of the values, how they are cut into blocks, and the selection."""
        # The same array may be a cube in two ways: other signal dims, or other chunks of the same values.
        cut = "-".join("x".join(map(str, n)) for n in (self.plan.nav_shape, self.plan.block_shape))
        return f"{self.name}/{cut}/{self.selection.digest}"

    @property
    def block_bytes(self) -> int:
        """Bytes of a full block as it is read."""
        return self.plan.block_bytes

    @property
    def kept_bytes(self) -> int:
        """Bytes of all blocks as they are kept, at most: dense, or rows nearly too full to be rows."""
        pair_bytes = 4 if self.n_channels <= 1 << 16 else 8
        cell_bytes = max(self.plan.itemsize, MAX_ROW_DENSITY * pair_bytes)
        return int(self.n_pixels * self.n_channels * cell_bytes + OBJECT_BYTES * self.plan.n_blocks)


@dataclass(frozen=True, eq=False)
class DaskSource(_SelectingSource):
    """Blocks of a Dask array whose leading `n_nav` dims are the navigation dims.

    Each block is computed by one task on one thread; only the part of the graph that its group needs is
    sent, as an array of its own that begins at `corner`. Blocks that a client persisted stay on its workers:
    they are `futures`, which the scheduler brings to the task, and which it sees as `given`.
    """

    array: Any = None
    corner: tuple[int, ...] = ()
    futures: dict[Any, Any] = field(default_factory=dict)
    given: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def from_array(
        cls,
        array: Any,
        n_nav: int,
        *,
        pixels: NDArray[np.bool_] | None = None,
        channels: NDArray[np.int64] | None = None,
    ) -> DaskSource:
        """Plan blocks over a Dask array, shape (nav..., sig...).

        Raises
        ------
        InputError
            The array has unknown chunk sizes.
        """
        if any(math.isnan(n) for n in array.shape):
            raise InputError(
                f"the shape of the Dask array is not known: {array.shape}",
                hint="call compute_chunk_sizes() on it first",
            )
        n_channels = math.prod(array.shape[n_nav:])
        chunk_shape = tuple(max(c, default=1) for c in array.chunks[:n_nav])
        plan = plan_blocks(
            tuple(array.shape[:n_nav]), n_channels, array.dtype.itemsize, chunk_shape
        )
        name, futures = str(array.name), _futures(array)
        return cls(plan, _Selection(pixels, channels), name, array, futures=futures)

    def _values(self, block_id: int) -> Any:
        corner = self.corner or (0,) * len(self.plan.nav_shape)
        return self.array[_inside(self.plan, block_id, corner, self.array.shape)]

    def load(self, block_id: int) -> Block:
        """Compute one block on this thread."""
        cut, given = self._values(block_id), self.given
        if self.futures:
            (cut,) = _optimized([cut])
            given = _fetched(self._missing([cut]))
        if given:
            cut = _with_data(cut, given)
        found = cut.compute(scheduler="synchronous")
        refuse_masked(found)
        values = np.asarray(found)
        n_box = math.prod(self.plan.shape(block_id))
        return self.selection.block(self.plan, block_id, values.reshape(n_box, -1))

    def part(self, block_ids: Iterable[int]) -> DaskSource:
        """Source with the culled and optimised graph of some blocks."""
        ids = list(block_ids)
        if not ids or self.corner:
            return self
        region = _region_of(self.plan, ids)
        (array,) = _optimized([_culled(self.array[region])])
        return replace(
            self,
            array=array,
            corner=tuple(s.start for s in region),
            selection=self.selection.cut(self.plan, ids),
            futures=self._missing([array]) if self.futures else {},
        )

    def _missing(self, arrays: list[Any]) -> dict[Any, Any]:
        """Futures that the optimised graphs of some arrays ask for: Dask leaves them out there."""
        from dask._task_spec import convert_legacy_graph
        from dask.core import flatten

        asked: set[Any] = set()
        for array in arrays:
            graph = convert_legacy_graph(dict(array.__dask_graph__()))
            wanted = set(flatten(array.__dask_keys__()))
            wanted.update(*(node.dependencies for node in graph.values()))
            asked |= wanted - graph.keys()
        return {key: future for key, future in self.futures.items() if key in asked}


def _futures(array: Any) -> dict[Any, Any]:
    """Blocks of a Dask array that a dask.distributed client persisted, by key."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return {}
    from dask.highlevelgraph import MaterializedLayer

    # Other layers make their tasks when asked, and never of futures.
    written = [c for c in array.dask.layers.values() if isinstance(c, MaterializedLayer)]
    return {
        key: value
        for layer in written
        for key, value in layer.mapping.items()
        if isinstance(value, distributed.Future)
    }


class _Keys:
    """Keys of all layers of a graph, without a list of them: there may be millions."""

    def __init__(self, layers: Mapping[str, Any]) -> None:
        self._layers = list(layers.values())

    def __contains__(self, key: Any) -> bool:
        return any(self._makes(layer, key) for layer in self._layers)

    @staticmethod
    def _makes(layer: Any, key: Any) -> bool:
        from dask.blockwise import Blockwise

        if not isinstance(layer, Blockwise) or layer.is_materialized():
            return key in layer
        if not isinstance(key, tuple) or not key or key[0] != layer.output:
            return False
        counts = [layer.dims[i] for i in layer.output_indices]
        return len(key) == len(counts) + 1 and all(
            isinstance(k, int) and 0 <= k < n for k, n in zip(key[1:], counts, strict=True)
        )


def _culled(array: Any) -> Any:
    """The array with what it needs of its graph.

    Dask's own way lists all keys of all layers for each cut, a second for every hundred thousand.
    """
    import dask.array as da
    from dask.core import flatten
    from dask.highlevelgraph import HighLevelGraph

    graph = HighLevelGraph(dict(array.dask.layers), dict(array.dask.dependencies))
    # What `get_all_external_keys` would fill; only looked into for membership.
    vars(graph)["_all_external_keys"] = _Keys(graph.layers)
    graph = graph.cull(set(flatten(array.__dask_keys__())))
    return da.Array(dict(graph), array.name, array.chunks, meta=array._meta)


def _optimized(arrays: list[Any]) -> list[Any]:
    from dask.base import optimize

    return list(optimize(*arrays))


def _fetched(futures: dict[Any, Any]) -> dict[Any, Any]:
    """Values of futures, brought to this process."""
    try:
        return {key: future.result() for key, future in futures.items()}
    except Exception as error:
        if any(future.status in ("cancelled", "lost") for future in futures.values()):
            raise InputError(
                "the cube was persisted by a dask.distributed client that is gone, and its blocks with it",
                hint="open the cube again, or keep the client open",
            ) from error
        raise


def _with_data(array: Any, values: dict[Any, Any]) -> Any:
    """The array with blocks that its graph asks for put in."""
    import dask.array as da
    from dask._task_spec import DataNode

    graph = {**dict(array.__dask_graph__()), **{k: DataNode(k, v) for k, v in values.items()}}
    return da.Array(graph, array.name, array.chunks, meta=array._meta)


def _chained(source: Any) -> list[BlockSource] | None:
    """Sources that a `ChainedSource`, which knows of this module, or a part of it is made of."""
    several = getattr(source, "sources", None)
    return None if several is None else [one for one in several if one is not None]


def place_of(source: BlockSource) -> str:
    """Where a source reads: the path or URL of a store; else what it is."""
    if isinstance(source, MappedSource):
        return place_of(source.source)
    if (several := _chained(source)) is not None:
        return ", ".join(dict.fromkeys(place_of(one) for one in several))
    if isinstance(source, StoreSource):
        return str(getattr(source.reader, "store", source.name))
    return "a Dask array" if isinstance(source, DaskSource) else "an array in memory"


def needed(source: BlockSource) -> dict[Any, Any]:
    """Futures of blocks that a source needs from the workers of a client, by key."""
    if isinstance(source, MappedSource):
        return needed(source.source)
    if (several := _chained(source)) is not None:
        return {key: future for one in several for key, future in needed(one).items()}
    return source.futures if isinstance(source, DaskSource) else {}


def feed(source: BlockSource, values: dict[Any, Any]) -> BlockSource:
    """Source with values in place of the futures it needs."""
    if isinstance(source, MappedSource):
        return replace(source, source=feed(source.source, values))
    if _chained(source) is not None:
        chained: Any = source
        fed = tuple(None if one is None else feed(one, values) for one in chained.sources)
        found: BlockSource = replace(chained, sources=fed)
        return found
    if isinstance(source, DaskSource):
        return replace(source, futures={}, given=values)
    return source


class Reader(Protocol):
    """A stored array, shape (nav..., sig...), that blocks are read from; pickles by path."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the dims."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        ...

    @property
    def chunks(self) -> tuple[int, ...]:
        """Cells of a chunk along each dim."""
        ...

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Values of a region."""
        ...


@dataclass(frozen=True, eq=False)
class StoreSource(_SelectingSource):
    """Blocks of a stored array, read without Dask: a block of whole chunks is decoded on the thread that
    uses it.
    """

    reader: Any = None

    @classmethod
    def from_reader(
        cls,
        reader: Reader,
        n_nav: int,
        name: str,
        *,
        pixels: NDArray[np.bool_] | None = None,
        channels: NDArray[np.int64] | None = None,
    ) -> StoreSource:
        """Plan blocks over a stored array.

        Parameters
        ----------
        reader : Reader
        n_nav : int
            Leading dims that are navigation dims.
        name : str
            Identity of the values.
        pixels, channels
            What is used; None means all.
        """
        plan = plan_blocks(
            tuple(reader.shape[:n_nav]),
            math.prod(reader.shape[n_nav:]),
            reader.dtype.itemsize,
            tuple(reader.chunks[:n_nav]),
        )
        return cls(plan, _Selection(pixels, channels), name, reader)

    @property
    def block_bytes(self) -> int:
        """Bytes of a full block as it is read: of its rows, where the store keeps rows."""
        if not hasattr(self.reader, "rows_bytes"):
            return self.plan.block_bytes
        n_pixels = math.prod(self.plan.block_shape)
        rows: int = self.reader.rows_bytes(n_pixels)
        pair = 2 * (2 if self.plan.n_channels <= 1 << 16 else 4)
        # A block may hold so many that it becomes dense.
        dense = rows > MAX_ROW_DENSITY * pair * n_pixels * self.plan.n_channels
        return rows + self.plan.block_bytes if dense else rows

    def load(self, block_id: int) -> Block:
        """Read one block on this thread."""
        if hasattr(self.reader, "rows"):
            rows = self.reader.rows(self.plan.slices(block_id))
            return self.selection.of_rows(self.plan, block_id, rows, self.reader.dtype)
        whole = (slice(None),) * (len(self.reader.shape) - len(self.plan.nav_shape))
        values = self.reader[self.plan.slices(block_id) + whole]
        n_box = math.prod(self.plan.shape(block_id))
        return self.selection.block(self.plan, block_id, values.reshape(n_box, -1))

    def part(self, block_ids: Iterable[int]) -> StoreSource:
        """The source with the selection of some blocks: besides, it holds paths and numbers."""
        part = self.selection.cut(self.plan, list(block_ids))
        return self if part is self.selection else replace(self, selection=part)


@dataclass(frozen=True, eq=False)
class ArraySource(_SelectingSource):
    """Blocks of an array in memory, shape (nav..., sig...)."""

    array: Any = None
    parts: dict[int, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def from_array(
        cls,
        array: NDArray[Any],
        n_nav: int,
        *,
        pixels: NDArray[np.bool_] | None = None,
        channels: NDArray[np.int64] | None = None,
    ) -> ArraySource:
        """Plan blocks over an array in memory."""
        n_channels = math.prod(array.shape[n_nav:])
        plan = plan_blocks(tuple(array.shape[:n_nav]), n_channels, array.dtype.itemsize)
        name = _identity(array)
        return cls(plan, _Selection(pixels, channels), name, array)

    def load(self, block_id: int) -> Block:
        """Cut one block out of the array."""
        values = (
            self.parts[block_id] if self.array is None else self.array[self.plan.slices(block_id)]
        )
        n_box = math.prod(self.plan.shape(block_id))
        return self.selection.block(self.plan, block_id, np.asarray(values).reshape(n_box, -1))

    def part(self, block_ids: Iterable[int]) -> ArraySource:
        """Source with copies of some blocks."""
        ids = list(block_ids)
        return replace(
            self,
            array=None,
            selection=self.selection.cut(self.plan, ids),
            parts={
                i: self.parts[i]
                if self.array is None
                else np.ascontiguousarray(self.array[self.plan.slices(i)])
                for i in ids
            },
        )


@dataclass(frozen=True, eq=False)
class SparseSource(_SelectingSource):
    """Blocks of a SciPy sparse matrix of counts, shape (P, E)."""

    rows: CountRows | None = None
    parts: dict[int, CountRows] = field(default_factory=dict)

    @classmethod
    def from_matrix(
        cls,
        matrix: Any,
        *,
        pixels: NDArray[np.bool_] | None = None,
        channels: NDArray[np.int64] | None = None,
    ) -> SparseSource:
        """Plan blocks over the rows of a sparse matrix."""
        rows = rows_from_sparse(matrix)
        # A stored pair costs four bytes or eight; the plan counts what the rows hold, not the
        # zeros.
        per_pixel = max(1, rows.nbytes // max(1, rows.n_pixels))
        even = plan_blocks((rows.n_pixels,), 1, per_pixel)
        plan = BlockPlan((rows.n_pixels,), even.block_shape, rows.n_channels, rows.counts.itemsize)
        return cls(plan, _Selection(pixels, channels), _identity(matrix), rows)

    @property
    def kept_bytes(self) -> int:
        """Bytes of all blocks: stored pairs."""
        return self.block_bytes * self.plan.n_blocks

    @property
    def block_bytes(self) -> int:
        """Bytes of the stored pairs of a block, on average: zeros are never made."""
        if self.rows is not None:
            return self.rows.nbytes // max(1, self.plan.n_blocks)
        return max((rows.nbytes for rows in self.parts.values()), default=0)

    def load(self, block_id: int) -> Block:
        """Cut one block out of the rows."""
        rows = self._rows(block_id)
        selected = self.selection.of_block(self.plan, block_id)
        if selected is not None:
            rows = rows.take(selected)
        if self.selection.channels is not None:
            rows = rows.take_channels(self.selection.channels)
        return Block(
            block_id, rows, self.plan.shape(block_id), self.plan.offset(block_id), selected
        )

    def _rows(self, block_id: int) -> CountRows:
        if self.rows is None:
            return self.parts[block_id]
        region = self.plan.slices(block_id)[0]
        return self.rows.take(np.arange(region.start, region.stop))

    def part(self, block_ids: Iterable[int]) -> SparseSource:
        """Source with some blocks."""
        ids = list(block_ids)
        return replace(
            self,
            rows=None,
            selection=self.selection.cut(self.plan, ids),
            parts={i: self._rows(i) for i in ids},
        )


@dataclass(frozen=True, eq=False)
class MappedSource:
    """Blocks of another source, each turned into a dense matrix by a pure function.

    Parameters
    ----------
    source : BlockSource
    function : callable
        ``function(block) -> ndarray (p, F)``; pickles.
    n_features : int
        F.
    name : str
        Identity of the function with its parameters, for resident blocks.
    """

    source: BlockSource
    function: Callable[[Block], NDArray[Any]]
    n_features: int
    name: str

    @property
    def plan(self) -> BlockPlan:
        """The grid of the underlying source."""
        return self.source.plan

    @property
    def n_channels(self) -> int:
        """Features F."""
        return self.n_features

    @property
    def n_pixels(self) -> int:
        """Selected pixels P."""
        return self.source.n_pixels

    @property
    def token(self) -> str:
        """Identity of values, selection and function."""
        return f"{self.source.token}>{self.name}"

    @property
    def block_bytes(self) -> int:
        """Bytes of a block of the underlying source."""
        return self.source.block_bytes

    def load(self, block_id: int) -> Block:
        """Read a block (or take it from the resident ones) and map it."""
        from emcube.engine.memory import current_residency

        residency = current_residency()
        block = residency.get(self.source.token, block_id) if residency else None
        if block is None:
            block = self.source.load(block_id)
        return replace(block, data=self.function(block))

    def part(self, block_ids: Iterable[int]) -> MappedSource:
        """Source with some blocks."""
        return replace(self, source=self.source.part(block_ids))
