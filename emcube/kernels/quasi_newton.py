"""Limited-memory quasi-Newton directions: what earlier gradients tell about the curvature.

Letters: N numbers of a point, M pairs that are remembered.

References
----------
J. Nocedal, "Updating quasi-Newton matrices with limited storage", Math. Comput. 35 (1980) 773.
https://doi.org/10.1090/S0025-5718-1980-0572855-7
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Memory"]

REMEMBERED = 10
"""Pairs that are kept."""

LONGEST = 2.0
"""Largest change of a number in one step."""

SHORTEST = 2.0
"""Least factor on a step along what no pair tells about. `scale` is the curvature at fixed loadings; since
these follow the components, the true one is smaller, by about half where components overlap."""


@dataclass(frozen=True, eq=False)
class Memory:
    """Differences of points and of their gradients, the newest last.

    Attributes
    ----------
    pairs : tuple of (ndarray, ndarray), each of N numbers
        (s, y): a move, and the change of the gradient along it. Only those along which the gradient rises.
    """

    pairs: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...] = ()

    def with_pair(
        self, move: NDArray[np.float64], change: NDArray[np.float64], scale: NDArray[np.float64]
    ) -> Memory:
        """Memory with one more pair; the oldest goes where there are too many.

        Parameters
        ----------
        move, change : ndarray
        scale : ndarray
            Rough curvature of each number, positive.
        """
        curvature = float(np.vdot(move, change))
        size = float(np.vdot(move, scale * move)) * float(np.vdot(change, change / scale))
        if not curvature > 1e-10 * np.sqrt(size):
            return self
        return Memory((*self.pairs, (move, change))[-REMEMBERED:])

    def direction(
        self, gradient: NDArray[np.float64], scale: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Move that would end at the minimum, were the function the quadratic that the pairs show.

        Without pairs it is minus the gradient over `scale`. No number moves by more than `LONGEST`.
        """
        left = gradient.copy()
        shares = []
        for move, change in reversed(self.pairs):
            share = float(np.vdot(move, left)) / float(np.vdot(move, change))
            left -= share * change
            shares.append(share)
        step = left / scale
        if self.pairs:
            move, change = self.pairs[-1]
            factor = float(np.vdot(move, change)) / float(np.vdot(change, change / scale))
            step *= max(factor, SHORTEST)
        for (move, change), share in zip(self.pairs, reversed(shares), strict=True):
            back = float(np.vdot(change, step)) / float(np.vdot(move, change))
            step += (share - back) * move
        return np.asarray(np.clip(-step, -LONGEST, LONGEST))
