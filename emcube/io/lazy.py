"""Arrays that stay in their files until a block of them is asked for.

Every class here has ``shape``, ``dtype`` and ``__getitem__`` with slices, holds no open file, and pickles,
so that threads, processes and workers on other machines can read blocks of it. What goes wrong inside a
task arrives as one `ReadError` that names the file.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emcube.errors import ReadError

if TYPE_CHECKING:
    import dask.array as da

    from emcube.kernels.rows import CountRows

__all__ = [
    "BLOCK_BYTES",
    "DaskArray",
    "FileArray",
    "H5Array",
    "NpyArray",
    "OnceArray",
    "SparseArray",
    "ZarrArray",
    "as_dask",
    "block_chunks",
    "cached",
    "native",
    "redecoded",
]

#: A block of this size costs little beside its own decoding, and a few of them fit anywhere.
BLOCK_BYTES = 32 * 2**20

Index = tuple[slice, ...]


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in the byte order of this machine."""
    return dtype.newbyteorder("=") if not dtype.isnative else dtype


def block_chunks(
    shape: Sequence[int],
    itemsize: int,
    sig_axes: Sequence[int],
    grain: Sequence[int] | None = None,
    target: int = BLOCK_BYTES,
) -> tuple[int, ...]:
    """Return the chunk lengths of blocks that hold whole signals and about `target` bytes.

    Parameters
    ----------
    shape : sequence of int
        Of the array.
    itemsize : int
        Bytes of an item.
    sig_axes : sequence of int
        Axes that stay whole.
    grain : sequence of int, optional
        Chunk lengths in the file; blocks are multiples of them, so that no chunk is decoded twice.
    target : int
        Bytes of a block; a single signal may be larger.
    """
    grain = (
        [1] * len(shape)
        if grain is None
        else [max(1, min(g, s)) for g, s in zip(grain, shape, strict=True)]
    )
    chunks = [shape[i] if i in sig_axes else grain[i] for i in range(len(shape))]
    for axis in reversed([i for i in range(len(shape)) if i not in sig_axes]):
        rest = int(np.prod(chunks, dtype=np.int64)) // chunks[axis] * itemsize
        fit = max(1, target // max(1, rest * grain[axis])) * grain[axis]
        chunks[axis] = min(shape[axis], fit)
    return tuple(max(1, c) for c in chunks)


def as_dask(
    source: FileArray, sig_axes: Sequence[int], grain: Sequence[int] | None = None
) -> da.Array:
    """Return a Dask array of blocks of a file array."""
    import dask.array as da

    chunks = block_chunks(source.shape, source.dtype.itemsize, sig_axes, grain)
    array: da.Array = da.from_array(
        source,
        chunks=chunks,
        asarray=False,
        fancy=False,
        name=f"{type(source).__name__.lower()}-{source.token()}",
        meta=np.empty((0,) * len(source.shape), dtype=source.dtype),
    )
    return array


class FileArray(ABC):
    """Base of arrays in files: shape, dtype, and errors that name the file.

    Parameters
    ----------
    path : Path
        The file.
    shape : tuple of int
    dtype : numpy.dtype
        What blocks have; always in native byte order.
    """

    #: The reader chose the dtype without having seen every value.
    dtype_guessed = False

    def __init__(self, path: Path, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        # Workers may run in another folder.
        self.path = Path(path).absolute()
        self.shape = tuple(int(n) for n in shape)
        self.dtype = native(np.dtype(dtype))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def token(self) -> str:
        """Return a name that changes with the file, so that Dask never mixes two of them up."""
        from dask.base import tokenize

        return str(tokenize(type(self).__name__, *self._identity(), self.shape, str(self.dtype)))

    def _identity(self) -> tuple[Any, ...]:
        return (str(self.path), stamp(self.path))

    @abstractmethod
    def _read(self, index: Index) -> NDArray[Any]:
        """Read one block; any exception becomes a `ReadError`."""

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read one block."""
        index = index if isinstance(index, tuple) else (index,)
        index = index + (slice(None),) * (self.ndim - len(index))
        try:
            block = np.asarray(self._read(index))
        except ReadError:
            raise
        except Exception as error:
            raise ReadError(
                f"{self.path}: a block could not be read ({type(error).__name__}: {error})",
                hint="the file was cut short, changed or moved since it was opened",
            ) from error
        # Memory maps and foreign byte orders end here: what leaves owns its bytes.
        return np.array(block, dtype=self.dtype, order="C", copy=None)


def stamp(path: Path) -> tuple[int, int]:
    """Return size and time of a file: what a cache entry is good for."""
    try:
        stat = Path(path).stat()
    except OSError:
        return (0, 0)
    return (stat.st_size, stat.st_mtime_ns)


class H5Array(FileArray):
    """A dataset of an HDF5 file, which is opened for each block and closed again."""

    def __init__(self, path: Path, key: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        super().__init__(path, shape, dtype)
        self.key = key

    def _identity(self) -> tuple[Any, ...]:
        return (*super()._identity(), self.key)

    def _read(self, index: Index) -> NDArray[Any]:
        import h5py

        with h5py.File(self.path, "r") as file:
            return np.asarray(file[self.key][index])


class NpyArray(FileArray):
    """A ``.npy`` file, mapped for each block."""

    def _read(self, index: Index) -> NDArray[Any]:
        return np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False)[index])


class ZarrArray(FileArray):
    """An array in a Zarr directory or zip file, opened for each block."""

    def __init__(self, path: Path, key: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        super().__init__(path, shape, dtype)
        self.key = key

    def _identity(self) -> tuple[Any, ...]:
        return (*super()._identity(), self.key)

    def _read(self, index: Index) -> NDArray[Any]:
        import zarr

        store = zarr.storage.ZipStore(self.path, mode="r") if self.path.is_file() else self.path
        try:
            return np.asarray(zarr.open_array(store, path=self.key, mode="r")[index])
        finally:
            if isinstance(store, zarr.storage.ZipStore):
                store.close()


class DaskArray(FileArray):
    """A foreign lazy array, computed within the task that asks for a block.

    Its own blocks are memory maps as a rule, so that only the pages of the block are read.
    """

    def __init__(self, path: Path, array: da.Array) -> None:
        super().__init__(path, array.shape, array.dtype)
        self.array = array

    def _identity(self) -> tuple[Any, ...]:
        return (*super()._identity(), self.array.name)

    def _read(self, index: Index) -> NDArray[Any]:
        return np.asarray(self.array[index].compute(scheduler="synchronous"))


class OnceArray(DaskArray):
    """A foreign array that can only be decoded whole: decoded once a process, kept while in use."""

    def _read(self, index: Index) -> NDArray[Any]:
        whole = cached(
            ("once", *self._identity()),
            lambda: np.asarray(self.array.compute(scheduler="synchronous")),
        )
        return np.asarray(whole[index])


class SparseArray(FileArray):
    """Counts as compressed rows in memory, one row a pixel, made dense block by block.

    Parameters
    ----------
    path : Path
        The file the events came from.
    shape : tuple of int
        Navigation lengths, then the number of channels.
    indptr : ndarray of int64, shape (P + 1,)
    channels, counts : ndarray, shape (nnz,)
    """

    def __init__(
        self,
        path: Path,
        shape: Sequence[int],
        indptr: NDArray[np.int64],
        channels: NDArray[Any],
        counts: NDArray[Any],
    ) -> None:
        super().__init__(path, shape, counts.dtype)
        self.indptr, self.channels, self.counts = indptr, channels, counts

    @classmethod
    def from_events(
        cls, path: Path, shape: Sequence[int], coords: NDArray[Any], counts: NDArray[Any]
    ) -> SparseArray:
        """Sum events at equal positions.

        Parameters
        ----------
        coords : ndarray, shape (ndim, n)
            Positions, the channel last.
        counts : ndarray, shape (n,)
            The dtype becomes the smallest unsigned one that holds the largest sum.
        """
        n_channels = int(shape[-1])
        flat = np.ravel_multi_index(
            tuple(np.asarray(c, dtype=np.int64) for c in coords), tuple(shape)
        )
        where, inverse = np.unique(flat, return_inverse=True)
        sums = np.bincount(inverse, weights=counts, minlength=where.size).astype(np.int64)
        dtype = np.min_scalar_type(int(sums.max(initial=0)))
        pixels = where // n_channels
        n_pixels = int(np.prod(shape[:-1], dtype=np.int64))
        indptr = np.zeros(n_pixels + 1, dtype=np.int64)
        np.cumsum(np.bincount(pixels, minlength=n_pixels), out=indptr[1:])
        channels = (where % n_channels).astype(np.min_scalar_type(max(n_channels - 1, 0)))
        return cls(path, shape, indptr, channels, sums.astype(dtype))

    @cached_property
    def largest(self) -> int:
        """The largest count of all."""
        return int(self.counts.max(initial=0))

    def astype(self, dtype: np.dtype[Any]) -> SparseArray:
        """The same counts in a dtype, or in a wider one where that does not hold them."""
        dtype = np.promote_types(dtype, np.min_scalar_type(self.largest))
        counts = self.counts.astype(dtype)
        return SparseArray(self.path, self.shape, self.indptr, self.channels, counts)

    def rows(self, region: Index) -> CountRows:
        """Rows of a region of pixels, in C order."""
        from emcube.kernels.rows import CountRows

        narrow = self.shape[-1] <= 1 << 16 and self.largest <= np.iinfo(np.uint16).max
        width = np.uint16 if narrow else np.uint32
        pixels = np.arange(self.indptr.size - 1).reshape(self.shape[:-1])[region].ravel()
        rows = CountRows(self.indptr, self.channels, self.counts, self.shape[-1]).take(pixels)
        return CountRows(
            rows.indptr,
            rows.channels.astype(width, copy=False),
            rows.counts.astype(width, copy=False),
            rows.n_channels,
        )

    def _read(self, index: Index) -> NDArray[Any]:
        pixels = np.arange(self.indptr.size - 1).reshape(self.shape[:-1])[index[:-1]]
        block = np.zeros((pixels.size, self.shape[-1]), dtype=self.dtype)
        start, stop = self.indptr[pixels.ravel()], self.indptr[pixels.ravel() + 1]
        lengths = stop - start
        row = np.repeat(np.arange(pixels.size), lengths)
        # Position of every stored count: its row's start plus its number within the row.
        at = (
            np.arange(row.size)
            - np.repeat(np.cumsum(lengths) - lengths, lengths)
            + np.repeat(start, lengths)
        )
        block[row, self.channels[at]] = self.counts[at]
        return block.reshape((*pixels.shape, self.shape[-1]))[..., index[-1]]


_cache: OrderedDict[Any, Any] = OrderedDict()
_cache_lock = threading.Lock()
_key_locks: dict[Any, threading.Lock] = {}
#: Two: while one file of a series is finished, blocks of the next are already asked for.
_CACHE_ENTRIES = 2


def cached(key: Any, make: Any) -> Any:
    """Return what `make` gives for `key`, made once a process; the last two answers are kept.

    Threads that ask for the same key wait for the one that makes it.
    """
    with _cache_lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
        lock = _key_locks.setdefault(key, threading.Lock())
    with lock:
        with _cache_lock:
            if key in _cache:
                return _cache[key]
        value = make()
        with _cache_lock:
            _cache[key] = value
            _key_locks.pop(key, None)
            while len(_cache) > _CACHE_ENTRIES:
                _cache.popitem(last=False)
        return value


def redecoded(data: Any, dtype: np.dtype[Any]) -> da.Array | None:
    """Return the same blocks decoded into a wider dtype, where the file's own was only guessed.

    Parameters
    ----------
    data : array
        Of a cube as a reader gave it.
    dtype : numpy.dtype

    Returns
    -------
    dask.array.Array or None
        None where the array is not one of those, or `dtype` is not wider.
    """
    if not hasattr(data, "dask") or not np.can_cast(data.dtype, dtype, "safe"):
        return None
    nodes = (getattr(node, "value", node) for node in dict(data.dask).values())
    source = next((n for n in nodes if isinstance(n, FileArray) and n.dtype_guessed), None)
    if source is None or source.shape != data.shape:
        return None
    import copy

    wider = copy.copy(source)
    wider.dtype = native(dtype)
    return as_dask(wider, [source.ndim - 1])
