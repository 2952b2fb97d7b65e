"""Combination along a fixed binary tree, whatever the order of arrival.

Leaves are numbered; neighbours 2i and 2i+1 of a level make node i of the next, a last one without a
neighbour moves up as it is. The shape of the tree depends on the number of leaves alone, so that
sums in floating point have the same bits on any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emcube.errors import EngineError

__all__ = ["TreeCombiner"]


class TreeCombiner:
    """Take leaves in any order and join them along the fixed tree as soon as neighbours are there.

    Parameters
    ----------
    n_leaves : int
        Number of leaves, at least one.
    join : callable
        ``join(left, right)``; may return a value or a future.
    """

    def __init__(self, n_leaves: int, join: Callable[[Any, Any], Any]) -> None:
        if n_leaves < 1:
            raise EngineError("nothing to combine: the plan has no blocks")
        self._join = join
        self._widths = [n_leaves]
        while self._widths[-1] > 1:
            self._widths.append(-(-self._widths[-1] // 2))
        self._waiting: dict[tuple[int, int], Any] = {}
        self._seen = [False] * n_leaves
        self._root: Any = None
        self._complete = False

    def add(self, leaf: int, value: Any, n_leaves: int = 1) -> None:
        """Add the value of a leaf, or of several that make one node.

        Parameters
        ----------
        leaf : int
            The first of them, a multiple of `n_leaves`.
        value
            What joining them along the tree gives.
        n_leaves : int
            How many, a power of two.

        Raises
        ------
        EngineError
            A leaf was added before, or the leaves are no node of the tree.
        """
        level = n_leaves.bit_length() - 1
        if n_leaves != 1 << level or leaf % n_leaves or leaf + n_leaves > len(self._seen):
            raise EngineError(f"parts {leaf} to {leaf + n_leaves - 1} are no node of a tree")
        for i in range(leaf, leaf + n_leaves):
            if self._seen[i]:
                raise EngineError(f"part {i} of a round arrived twice")
            self._seen[i] = True
        node = leaf >> level
        while True:
            width = self._widths[level]
            if width == 1:
                self._root, self._complete = value, True
                return
            if node == width - 1 and width % 2:
                level, node = level + 1, node // 2
                continue
            other = (level, node ^ 1)
            if other not in self._waiting:
                self._waiting[level, node] = value
                return
            sibling = self._waiting.pop(other)
            value = self._join(value, sibling) if node % 2 == 0 else self._join(sibling, value)
            level, node = level + 1, node // 2

    @property
    def parts(self) -> list[Any]:
        """Parts that wait for a neighbour, or the whole."""
        return [*self._waiting.values(), *([self._root] if self._complete else [])]

    @property
    def root(self) -> Any:
        """The whole, once all leaves are in.

        Raises
        ------
        EngineError
            Leaves are missing.
        """
        if not self._complete:
            missing = [i for i, seen in enumerate(self._seen) if not seen]
            raise EngineError(f"{len(missing)} parts of a round are missing, first {missing[:5]}")
        return self._root
