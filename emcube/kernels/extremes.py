"""The largest and smallest share that one corner may hold of another, among simplices that are as good.

Letters: N points, K corners, G groups of channels. A simplex ``T V`` is as good as the corners V as far as

    D(T) + 1/2 sum_kg min((T S)_kg / error_kg, 0)^2

is at most the likelihood ratio of a level above that of T = 1: no true point lies outside (D, see
`emcube.kernels.facets`), and no group of channels of its spectra T S is negative beyond its error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels.bands import grouped_channels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.kernels.facets import NoisyCloud

__all__ = ["extreme_turns"]

MOST_PAIRS = 30
"""Up to so many ordered pairs of corners each pair is looked at (six corners); beyond, each corner's own
share."""

STEPS = 50

LONGEST = 0.5
"""Largest entry of one step, in shares of the corners so far."""

GAIN = 2e-3
"""Share by which a step must go on, but for a few: one that was made short says little."""

PATIENCE = 4
"""Steps in turn that may gain less."""

OVER = 0.1
"""Part of the slack by which an extreme may miss the limit: the search ends beside it."""


def extreme_turns(
    cloud: NoisyCloud,
    components: NDArray[np.float64],
    errors: NDArray[np.float64],
    slack: float,
    *,
    first: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Extreme matrices T whose corners T V are as good as V.

    Parameters
    ----------
    cloud : NoisyCloud
        In shares of the corners V.
    components : ndarray, shape (K, E)
        Spectra S of the corners; each sums to one.
    errors : ndarray, shape (K, E)
        Standard errors of their values.
    slack : float
        Nats that may be lost (see `emcube.kernels.feasible.slack_of`).
    first : ndarray, shape (K, K), optional
        Turn from which nats are counted, and searches start; the identity.

    Returns
    -------
    ndarray, shape (n, K, K)
        The first is the identity; then those at which a share is largest or least. Rows sum to one.

    Notes
    -----
    Each extreme is the end of a sequence of steps, each of which goes as far as a quadratic model of the cost
    allows: a local extreme, in the same bits each time.

    References
    ----------
    R. Tauler, J. Chemom. 15 (2001) 627. https://doi.org/10.1002/cem.667
    O. S. Borgen, B. R. Kowalski, Anal. Chim. Acta 174 (1985) 1. https://doi.org/10.1016/S0003-2670(00)84361-5
    """
    k = len(components)
    pairs = [(i, j) for i in range(k) for j in range(k) if i != j]
    if len(pairs) > MOST_PAIRS:
        pairs = [(i, i) for i in range(k)]
    search = _Search(cloud, *grouped_channels(components, errors), slack)
    start = np.eye(k) if first is None else first
    found = [search.extreme(start, i, j, sign) for i, j in pairs for sign in (1.0, -1.0)]
    return np.array([np.eye(k), *found])


@dataclass(frozen=True, eq=False)
class _Cost:
    """Nats, and their first and second derivatives by the entries of a turn relative to the one so far."""

    value: float
    slope: NDArray[np.float64]
    curvature: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Search:
    cloud: NoisyCloud
    grouped: NDArray[np.float64]
    errors: NDArray[np.float64]
    slack: float

    def cost(self, turn: NDArray[np.float64]) -> _Cost:
        """What a turn costs."""
        k = len(turn)
        back = np.asarray(np.linalg.inv(turn), dtype=np.float64)
        value, by_back, bend = self.cloud.deficit(back)
        slope = -back.T @ by_back
        curvature = np.zeros((k, k, k, k))
        for f in range(k):
            curvature[:, f, :, f] = back.T @ bend[f] @ back
        spectra = turn @ self.grouped
        # Errors of a mixture of components are those of its parts.
        errors = np.sqrt(np.square(turn) @ np.square(self.errors))
        below = np.minimum(spectra, 0.0) / errors
        value += 0.5 * float(np.square(below).sum())
        slope += (below / errors) @ spectra.T
        for i in range(k):
            active = below[i] < 0.0
            part = spectra[:, active] / errors[i, active]
            curvature[i, :, i, :] += part @ part.T
        return _Cost(value, slope, curvature.reshape(k * k, k * k))

    def extreme(
        self, start: NDArray[np.float64], i: int, j: int, sign: float
    ) -> NDArray[np.float64]:
        """The turn whose entry (i, j) is largest (sign 1) or least (-1)."""
        k = len(self.grouped)
        turn = best = start
        now = self.cost(turn)
        limit, damping, slow = now.value + self.slack, 1.0, 0
        for _ in range(STEPS):
            aim = np.zeros((k, k))
            aim[i] = sign * turn[:, j]
            step = self._step(aim, now, limit, damping)
            step *= min(1.0, LONGEST / max(float(np.abs(step).max()), 1e-300))
            ahead = turn + step @ turn
            new = self.cost(ahead) if np.linalg.slogdet(ahead)[0] > 0 else None
            if new is None or new.value > max(limit + self.slack, now.value):
                damping *= 8.0
                continue
            gained = sign * float(ahead[i, j] - turn[i, j])
            turn, now = ahead, new
            damping = max(damping / 4.0, 1e-3)
            if now.value <= limit + OVER * self.slack and sign * (turn[i, j] - best[i, j]) > 0.0:
                best = turn
                slow = slow + 1 if gained < GAIN else 0
                if slow == PATIENCE:
                    break
        return best

    def _step(
        self, aim: NDArray[np.float64], now: _Cost, limit: float, damping: float
    ) -> NDArray[np.float64]:
        """Farthest step along `aim` within the limit, by the quadratic model; rows sum to zero."""
        k = len(aim)
        size = k * k
        system = np.zeros((size + k, size + k))
        system[:size, :size] = now.curvature + damping * np.eye(size)
        for row in range(k):
            own = slice(row * k, (row + 1) * k)
            system[size + row, own] = system[own, size + row] = 1.0
        right = np.zeros((size + k, 2))
        right[:size, 0] = aim.ravel()
        right[:size, 1] = now.slope.ravel()
        ahead, down = np.linalg.solve(system, right)[:size].T
        room = limit - now.value + 0.5 * float(now.slope.ravel() @ down)
        push = 2.0 * room / max(float(aim.ravel() @ ahead), 1e-300)
        step = np.sqrt(max(push, 0.0)) * ahead - down
        return np.asarray(step.reshape(k, k))
