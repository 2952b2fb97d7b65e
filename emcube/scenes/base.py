"""What a scene is: a simulated cube and everything that is true of it.

Letters: P pixels, E channels, K components.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from emcube.cube import make_cube
from emcube.cube.rows import offer_rows
from emcube.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from emcube.kernels.rows import CountRows
    from emcube.kernels.sampling import AliasTables

__all__ = ["Axis", "Scene", "assemble", "check_scale", "counts_from", "expected_from", "named_seed"]

BLOCK_BYTES = 24 * 2**20
"""Size that a generated block of a cube aims at."""

SLAB_BYTES = 2**20
"""Size of the dense slabs from which events are collected: they stay in the cache."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A simulated cube with its truth: D_i = sum_k L_ik s_k, and counts drawn from that.

    Attributes
    ----------
    cube : DataArray
        What an instrument would have recorded; lazy, drawn block by block. Its bits depend on the
        parameters of the scene, never on how they are asked for.
    components : DataArray, dims (component, signal dims)
        The true components; each sums to one over the channels.
    loadings : DataArray, dims (nav dims, component)
        The true loadings in the cube's units (expected counts of each component); lazy.
    expected : DataArray
        The cube without noise, float64; lazy.
    n_components : int
        How many components the scene is made of.
    why : str
        Why it is this number.
    metadata : dict
        The cube's metadata with the parameters of the scene under ``source``.
    """

    cube: xr.DataArray
    components: xr.DataArray
    loadings: xr.DataArray
    expected: xr.DataArray
    n_components: int
    why: str
    metadata: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Axis:
    """One dim of a scene: its name, coordinate values and unit."""

    name: str
    values: NDArray[Any]
    unit: str


def check_scale(scale: Any) -> float:
    """Return `scale` as a float, or say why it cannot be one."""
    if not (isinstance(scale, int | float | np.integer | np.floating) and 0 < scale < math.inf):
        raise InputError(
            f"scale is the share of the full number of pixels: got {scale!r}, expected a number > 0",
            hint="scale=1 is the full size, scale=0.1 a tenth of its pixels",
        )
    return float(scale)


def named_seed(random_state: Any, name: str) -> int:
    """Derive the seed of one purpose from the user's `random_state`.

    Parameters
    ----------
    random_state : int
        Non-negative.
    name : str
        Purpose ("counts", "geometry", ...).

    Returns
    -------
    int
        0 <= seed < 2**63, different for each (random_state, name).

    Raises
    ------
    InputError
        If `random_state` is not a non-negative integer.
    """
    if not isinstance(random_state, int | np.integer) or random_state < 0:
        raise InputError(
            f"random_state of a scene must be a non-negative integer, got {random_state!r}",
            hint="use random_state=0, so that the scene can be made again",
        )
    words = [int(random_state), *name.encode()]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _rows_chunks(shape: Sequence[int], n_signal: int, itemsize: int) -> tuple[int, ...]:
    """Chunk the nav shape so that a block of whole signals is about `BLOCK_BYTES`."""
    pixels = max(1, BLOCK_BYTES // max(1, n_signal * itemsize))
    chunks = []
    for size in reversed(shape):
        length = min(size, max(1, pixels))
        chunks.append(length)
        pixels //= length
    return tuple(reversed(chunks))


class _Drawing:
    """Draws the blocks of a cube; where a block lies gives the pixels' numbers, hence their streams.

    Parameters
    ----------
    loadings : dask array, shape (*nav, K)
        Expected counts. Left behind when the drawing is pickled into a task.
    tables : AliasTables
    nav_shape, sig_shape : tuple of int
    seed : int
    dtype : str
    """

    def __init__(
        self,
        loadings: da.Array | None,
        tables: AliasTables,
        nav_shape: tuple[int, ...],
        sig_shape: tuple[int, ...],
        seed: int,
        dtype: str,
    ) -> None:
        self.loadings = loadings
        self.tables = tables
        self.nav_shape, self.sig_shape = nav_shape, sig_shape
        self.seed, self.dtype = seed, dtype

    def __reduce__(self) -> tuple[Any, ...]:
        shapes = (self.nav_shape, self.sig_shape)
        return _Drawing, (None, self.tables, *shapes, self.seed, self.dtype)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        shapes = (self.nav_shape, self.sig_shape)
        tables = (self.tables.keep, self.tables.other)
        return (type(self).__name__, *tables, *shapes, self.seed, self.dtype)

    def __call__(self, loadings: NDArray[np.float64], block_info: Any = None) -> NDArray[Any]:
        """Draw one dense block."""
        from emcube.kernels.sampling import sample_counts

        corner = [start for start, _ in block_info[0]["array-location"][: len(self.nav_shape)]]
        flat, ids = self._pixels(loadings, corner)
        counts = sample_counts(flat, self.tables, ids, seed=self.seed, dtype=self.dtype)
        return counts.reshape(*loadings.shape[:-1], *self.sig_shape)

    def rows(self, loadings: NDArray[np.float64], corner: tuple[int, ...]) -> CountRows:
        """Draw one block as rows: the same counts, a slab that fits the cache at a time."""
        from emcube.kernels.rows import joined_rows, rows_from_dense
        from emcube.kernels.sampling import sample_counts

        flat, ids = self._pixels(loadings, corner)
        step = max(1, SLAB_BYTES // (self.tables.n_channels * np.dtype(self.dtype).itemsize))
        parts = []
        for start in range(0, ids.size, step):
            slab = slice(start, start + step)
            counts = sample_counts(
                flat[slab], self.tables, ids[slab], seed=self.seed, dtype=self.dtype
            )
            parts.append(rows_from_dense(counts))
        return joined_rows([part for part in parts if part is not None])

    def _pixels(
        self, loadings: NDArray[np.float64], corner: Sequence[int]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        box = loadings.shape[:-1]
        index = np.ix_(*(start + np.arange(size) for start, size in zip(corner, box, strict=True)))
        ids = np.ravel_multi_index(index, self.nav_shape).ravel()
        return loadings.reshape(-1, loadings.shape[-1]), ids

    def row_blocks(self, chunks: tuple[tuple[int, ...], ...]) -> da.Array:
        """Blocks of rows, lazily; see `emcube.cube.rows`."""
        from dask._task_spec import Task, TaskRef
        from dask.base import tokenize
        from dask.highlevelgraph import HighLevelGraph

        assert self.loadings is not None
        n_nav = len(self.nav_shape)
        pieces = self.loadings.rechunk((*chunks[:n_nav], -1))
        name = f"rows-{tokenize(self, pieces.name)}"
        starts = [np.cumsum((0, *lengths[:-1])) for lengths in chunks[:n_nav]]
        graph: dict[Any, Any] = {}
        for index in product(*(range(len(lengths)) for lengths in chunks[:n_nav])):
            corner = tuple(int(starts[d][i]) for d, i in enumerate(index))
            key = (name, *index, *(0 for _ in self.sig_shape))
            graph[key] = Task(key, self.rows, TaskRef((pieces.name, *index, 0)), corner)
        layers = HighLevelGraph.from_collections(name, graph, dependencies=[pieces])
        meta = np.empty((0,) * len(chunks), dtype=self.dtype)
        return da.Array(layers, name, chunks, meta=meta)


def _mix_block(loadings: NDArray[np.float64], components: NDArray[np.float64]) -> NDArray[Any]:
    """Multiply loadings by components; a function of the module so that graphs pickle."""
    return np.tensordot(loadings, components, axes=1)


def counts_from(
    loadings: da.Array, components: NDArray[np.float64], *, seed: int, dtype: str
) -> da.Array:
    """Draw Poisson counts of mean loadings @ components, lazily.

    Parameters
    ----------
    loadings : dask array, shape (*nav, K)
        Expected counts.
    components : ndarray, shape (K, *sig)
        Each sums to one.
    seed : int
        Of the noise.
    dtype : str
        Of the counts.

    Returns
    -------
    dask array, shape (*nav, *sig)
        Whole signals in a chunk.
    """
    from dask.base import tokenize

    from emcube.kernels.sampling import alias_tables

    nav_shape, sig_shape = loadings.shape[:-1], components.shape[1:]
    n_signal = math.prod(sig_shape)
    tables = alias_tables(components.reshape(components.shape[0], n_signal))
    chunks = _rows_chunks(nav_shape, n_signal, np.dtype(dtype).itemsize)
    pieces = loadings.rechunk((*chunks, -1))
    drawing = _Drawing(loadings, tables, nav_shape, sig_shape, seed, dtype)
    drawn: da.Array = da.map_blocks(
        drawing,
        pieces,
        name=f"counts-{tokenize(drawing, pieces.name)}",
        drop_axis=len(nav_shape),
        new_axis=list(range(len(nav_shape), len(nav_shape) + len(sig_shape))),
        chunks=(*pieces.chunks[:-1], *((size,) for size in sig_shape)),
        meta=np.empty((0,) * (len(nav_shape) + len(sig_shape)), dtype=dtype),
    )
    offer_rows(drawn.name, drawing)
    return drawn


def expected_from(loadings: da.Array, components: NDArray[np.float64]) -> da.Array:
    """Multiply loadings by components, lazily: the cube without noise, float64."""
    nav_shape, sig_shape = loadings.shape[:-1], components.shape[1:]
    chunks = _rows_chunks(nav_shape, math.prod(sig_shape), 8)
    pieces = loadings.rechunk((*chunks, -1))
    mixed: da.Array = da.map_blocks(
        _mix_block,
        pieces,
        components=components,
        drop_axis=len(nav_shape),
        new_axis=list(range(len(nav_shape), len(nav_shape) + len(sig_shape))),
        chunks=(*pieces.chunks[:-1], *((size,) for size in sig_shape)),
        meta=np.empty((0,) * (len(nav_shape) + len(sig_shape))),
    )
    return mixed


def _coordinates(axes: Sequence[Axis]) -> dict[str, Any]:
    return {axis.name: (axis.name, axis.values, {"units": axis.unit}) for axis in axes}


def assemble(
    *,
    data: da.Array,
    loadings: da.Array,
    components: NDArray[np.float64],
    names: Sequence[str],
    nav: Sequence[Axis],
    sig: Sequence[Axis],
    why: str,
    metadata: Mapping[str, Any],
    expected: da.Array | None = None,
) -> Scene:
    """Label the arrays of a scene.

    Parameters
    ----------
    data : dask array, shape (*nav, *sig)
        What was recorded.
    loadings : dask array, shape (*nav, K)
        True loadings.
    components : ndarray, shape (K, *sig)
        True components; divided by their sums here.
    names : sequence of str
        Name of each component.
    nav, sig : sequence of Axis
        Dims with coordinates and units.
    why : str
        Why the number of components is what it is.
    metadata : mapping
        As `emcube.cube` knows it.
    expected : dask array, optional
        The cube without noise where it is more than loadings times components.

    Returns
    -------
    Scene
    """
    shares = components / components.reshape(len(names), -1).sum(axis=1).reshape(
        -1, *(1 for _ in sig)
    )
    nav_names, sig_names = [a.name for a in nav], [a.name for a in sig]
    component = {"component": ("component", np.asarray(names, dtype=object).astype(str))}
    cube = make_cube(
        data,
        dims=(*nav_names, *sig_names),
        sig_dims=tuple(sig_names),
        coords={a.name: a.values for a in (*nav, *sig)},
        units={a.name: a.unit for a in (*nav, *sig)},
        metadata=dict(metadata),
        data_units="counts",
    )
    noise_free = expected_from(loadings, shares) if expected is None else expected
    return Scene(
        cube=cube,
        components=xr.DataArray(
            shares,
            dims=("component", *sig_names),
            coords={**component, **_coordinates(sig)},
            name="components",
            attrs={"units": "1 per channel"},
        ),
        loadings=xr.DataArray(
            loadings,
            dims=(*nav_names, "component"),
            coords={**_coordinates(nav), **component},
            name="loadings",
            attrs={"units": "counts"},
        ),
        expected=xr.DataArray(
            noise_free, dims=cube.dims, coords=cube.coords, name="expected", attrs=cube.attrs
        ),
        n_components=len(names),
        why=why,
        metadata=dict(metadata),
    )
