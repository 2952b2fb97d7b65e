"""What a source of blocks holds, told the same in any process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from emcube.engine.chained import ChainedSource
from emcube.engine.source import BlockSource, DaskSource
from emcube.engine.states import UnknownKindError, fingerprint

__all__ = ["content_of", "shape_of"]

_PROBES = 3


def shape_of(source: BlockSource) -> tuple[Any, ...]:
    """How a source is cut, and which of it is used; not what it holds."""
    if isinstance(source, ChainedSource):
        return tuple(shape_of(one) for one in source.sources if one is not None)
    plan, selection = source.plan, getattr(source, "selection", None)
    chosen = None if selection is None else selection.digest
    cut = (plan.nav_shape, plan.block_shape, plan.n_channels, plan.itemsize)
    return (*cut, source.n_pixels, source.n_channels, chosen)


def content_of(source: BlockSource, *, trusted: bool) -> Any:
    """Identity of the values of a source.

    Values in memory are told by their digest, mapped files by name, size and time, and what is stored or
    computed by its name and the values of some blocks.

    Parameters
    ----------
    source : BlockSource
    trusted : bool
        The same name means the same values: the stored ones need no look at some blocks.
    """
    if isinstance(source, ChainedSource):
        return [content_of(one, trusted=trusted) for one in source.sources if one is not None]
    array, rows = getattr(source, "array", None), getattr(source, "rows", None)
    if isinstance(array, np.ndarray):
        return _of_array(array)
    if rows is not None:
        return fingerprint(rows)
    if isinstance(source, DaskSource):
        return (_of_graph(source.array), _probes(source))
    return source.token if trusted else (source.token, _probes(source))


def _probes(source: BlockSource) -> list[str]:
    """Digests of the first block, the last, and one between."""
    last = source.plan.n_blocks - 1
    probed = sorted({round(i * last / (_PROBES - 1)) for i in range(_PROBES)})
    return [fingerprint(source.load(i)) for i in probed]


def _of_array(array: np.ndarray[Any, Any]) -> Any:
    base: Any = array
    while base is not None:
        if isinstance(base, np.memmap) and base.filename is not None:
            # Never read as a whole.
            state = Path(base.filename).stat()
            place = array.ctypes.data - base.ctypes.data
            layout = (base.offset + place, array.shape, array.strides, array.dtype.str)
            return (str(base.filename), state.st_size, state.st_mtime_ns, layout)
        base = getattr(base, "base", None)
    return fingerprint(array)


def _of_graph(array: Any) -> list[Any]:
    """What a Dask array is made of: digests of what lies in memory, names of the rest.

    Names of Dask end with a token, which for values in memory may be drawn at random: what is computed from
    them is named without it.
    """
    graph = array.dask
    found: list[Any] = []
    for name in graph.layers:
        if graph.dependencies[name]:
            found.append(str(name).rsplit("-", 1)[0])
        else:
            found.append(_of_layer(str(name), graph.layers[name]))
    return found


def _of_layer(name: str, layer: Any) -> Any:
    values = list(getattr(layer, "mapping", {}).values())
    values = [getattr(value, "value", value) for value in values]
    if values and all(isinstance(value, np.ndarray) for value in values):
        return [_of_array(value) for value in values]
    try:
        return fingerprint(values) if values else name
    except UnknownKindError:
        return name
