"""Walk a lazy array region by region: every block of the source once, memory bounded.

The regions are those of a store's layout, and the source's blocks seldom fit them. Regions are taken in
groups of a few hundred megabytes, each group as one Dask graph on a thread pool of this process: within a
group every task of the source runs once, and Dask lets go of a block when its last region is done. A source
that is one task (a reader that loads a whole file) makes one group, so that the file is read once; any
other source block is computed at most once for each group that it reaches into.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from dask.typing import Key
from numpy.typing import NDArray

from emcube.store.layout import Layout, Region

__all__ = ["GROUP_BYTES", "Walk"]

#: Decoded bytes of a group of regions.
GROUP_BYTES = 256 * 2**20

T = TypeVar("T")
Visit = Callable[[int, Region, NDArray[Any]], T]
Fold = Callable[[T, T], T]


@dataclass(frozen=True, eq=False)
class Walk(Generic[T]):
    """A lazy array that is to be visited region by region.

    Parameters
    ----------
    source : dask.array.Array or ndarray
        The values.
    layout : Layout
        Its regions are visited.
    """

    source: Any
    layout: Layout
    _graph: dict[Key, Any] = field(init=False, repr=False)
    _keys: list[Key] = field(init=False, repr=False)
    regions: list[Region] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        import dask.array as da

        source = self.source
        if not isinstance(source, da.Array):
            # One chunk and no name: a view of the array goes into the graph, and stays in this process.
            source = da.from_array(np.asarray(source), chunks=-1, name=False)
        # Not peer to peer: that would need a scheduler, and would keep the whole array somewhere.
        cut = source.rechunk(self.layout.unit, method="tasks") if source.ndim else source
        keys = list(_flat(cut.__dask_keys__()))
        graph = dict(cut.__dask_optimize__(cut.__dask_graph__(), keys))
        graph.update(_fetches(cut))
        object.__setattr__(self, "_graph", graph)
        object.__setattr__(self, "_keys", keys)
        object.__setattr__(self, "regions", list(self.layout.regions(source.shape)))

    def groups(self, todo: Sequence[int]) -> list[list[int]]:
        """Cut the regions `todo` (ascending) into groups that are computed together."""
        roots = _roots(self._graph, [self._keys[i] for i in todo])
        groups: list[list[int]] = []
        size = 0
        for number, i in enumerate(todo):
            nbytes = self._nbytes(self.regions[i])
            same_task = (
                number > 0 and len(roots[number]) == 1 and roots[number] == roots[number - 1]
            )
            if groups and (same_task or size + nbytes <= GROUP_BYTES):
                groups[-1].append(i)
                size += nbytes
            else:
                groups.append([i])
                size = nbytes
        return groups

    def _nbytes(self, region: Region) -> int:
        cells = math.prod(part.stop - part.start for part in region)
        return int(cells * self.source.dtype.itemsize)

    def run(
        self, group: Sequence[int], visit: Visit[T], fold: Fold[T], pool: ThreadPoolExecutor
    ) -> T:
        """Visit the regions of a group and fold what the visits return, in the order of the regions.

        Parameters
        ----------
        group : sequence of int
            Numbers of regions.
        visit : callable
            ``visit(number, region, block)``, called on the pool's threads.
        fold : callable
            ``fold(first, second)``; may change `first` in place.
        pool : ThreadPoolExecutor
            Bounds what is computed at one time.
        """
        import dask.threaded
        from dask._task_spec import Task, TaskRef
        from dask.optimization import cull

        graph, _ = cull(self._graph, [self._keys[i] for i in group])
        graph = dict(graph)
        last: Key = ("emcube-visit", group[0])
        for i in group:
            key, step = ("emcube-visit", i), ("emcube-fold", i)
            graph[key] = Task(key, partial(visit, i, self.regions[i]), TaskRef(self._keys[i]))
            if key != last:
                graph[step] = Task(step, fold, TaskRef(last), TaskRef(key))
                last = step
        result: T = dask.threaded.get(graph, last, pool=pool)
        return result


def _fetches(array: Any) -> dict[Key, Any]:
    """Tasks that fetch the blocks which a dask.distributed client persisted: Dask leaves them out."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return {}
    from dask._task_spec import Task

    return {
        key: Task(key, _Fetch(value))
        for key, value in dict(array.__dask_graph__()).items()
        if isinstance(value, distributed.Future)
    }


@dataclass(frozen=True, eq=False)
class _Fetch:
    """Brings a block here. Not a plain argument: Dask would take the future for a task of the graph."""

    future: Any

    def __call__(self) -> Any:
        return self.future.result()


def _flat(keys: Any) -> Iterator[Key]:
    if isinstance(keys, list):
        for key in keys:
            yield from _flat(key)
    else:
        yield keys


def _roots(graph: dict[Key, Any], keys: Sequence[Key]) -> list[frozenset[Key]]:
    """For each key the tasks it comes from that depend on nothing else."""
    from dask._task_spec import DataNode, convert_legacy_graph

    nodes = convert_legacy_graph(graph)
    known: dict[Key, frozenset[Key]] = {}
    for key in keys:
        stack = [key]
        while stack:
            top = stack[-1]
            if top in known:
                stack.pop()
                continue
            node = nodes[top]
            missing = [dep for dep in node.dependencies if dep not in known]
            if missing:
                stack.extend(missing)
                continue
            if isinstance(node, DataNode):
                # Data in the graph cost nothing to get again.
                known[top] = frozenset()
            else:
                above = [known[dep] for dep in node.dependencies]
                known[top] = frozenset().union(*above) or frozenset({top})
            stack.pop()
    return [known[key] for key in keys]
