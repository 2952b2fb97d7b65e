"""Lazy cubes that can be had as rows of counts too, without a dense array on the way.

Simulated scenes draw events, and some instruments write them. Their Dask arrays are dense as everybody
expects; who wants rows asks here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import dask.array as da

    from emcube.kernels.rows import CountRows

__all__ = ["RowMaker", "graph_source", "offer_rows", "row_blocks"]


class RowMaker(Protocol):
    """What makes the blocks of a lazy cube, and can make rows instead."""

    def row_blocks(self, chunks: tuple[tuple[int, ...], ...]) -> da.Array:
        """Blocks of pixels as rows, for chunks along all dims of which those of the signal are whole."""
        ...


#: By name of the Dask array. The array's own graph holds the maker: with the last cube it goes.
_makers: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def offer_rows(name: str, maker: RowMaker) -> None:
    """Tell who makes the Dask array of this name."""
    _makers[name] = maker


def graph_source(array: Any) -> Any | None:
    """What a Dask array slices its blocks from, where it does nothing else; None for any other array.

    Whatever was done to an array since (slicing, binning, a conversion) has added to its graph.
    """
    layers = array.dask.layers
    name = array.name
    if set(layers) - {name, f"original-{name}"} or name not in layers:
        return None
    # Blocks are made by one layer, with the source among its arguments or in a layer of its own.
    given = [thing for thing, _ in getattr(layers[name], "indices", ())]
    given += [getattr(node, "value", node) for node in layers.get(f"original-{name}", {}).values()]
    source = next((thing for thing in given if hasattr(thing, "dtype")), None)
    if source is None or source.shape != array.shape or source.dtype != array.dtype:
        return None
    return source


def row_blocks(array: Any, n_nav: int, chunks: Sequence[int]) -> da.Array | None:
    """Blocks of a lazy cube as rows of counts, where whatever makes the cube can give them.

    Parameters
    ----------
    array : array
        Values of a cube.
    n_nav : int
        Leading dims that are navigation dims.
    chunks : sequence of int
        Lengths of a block along each dim.

    Returns
    -------
    dask array or None
        Its blocks are `CountRows` of the pixels in C order. None where there is only the dense cube.
    """
    from dask.array.core import normalize_chunks

    if not hasattr(array, "dask"):
        return None
    cut = normalize_chunks(tuple(chunks), array.shape)
    if any(len(lengths) > 1 for lengths in cut[n_nav:]):
        return None
    maker = _makers.get(array.name)
    if maker is not None:
        made: da.Array = maker.row_blocks(cut)
        return made
    source = graph_source(array)
    if source is None or not hasattr(source, "rows"):
        return None
    return _sliced(source.rows, f"rows-{array.name}", cut, n_nav, array.dtype)


def _sliced(
    rows: Callable[[tuple[slice, ...]], CountRows],
    name: str,
    cut: tuple[tuple[int, ...], ...],
    n_nav: int,
    dtype: Any,
) -> da.Array:
    import dask.array as da
    from dask._task_spec import Task

    graph: dict[Any, Any] = {}
    starts = [np.cumsum((0, *lengths[:-1])) for lengths in cut]
    for index in product(*(range(len(lengths)) for lengths in cut)):
        region = tuple(
            slice(int(starts[d][i]), int(starts[d][i]) + cut[d][i])
            for d, i in enumerate(index[:n_nav])
        )
        key = (name, *index)
        graph[key] = Task(key, rows, region)
    return da.Array(graph, name, cut, meta=np.empty((0,) * len(cut), dtype=dtype))
