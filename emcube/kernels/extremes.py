"""The largest and smallest share that one corner may hold of another, among simplices that are as good.

Letters: N points, K corners, G groups of channels. A simplex ``T V`` is as good as the corners V as far as

    sum_k D(shares of corner k) + sum_k D(groups of channels of spectrum k)

is at most the likelihood ratio of a level above that of the best one: no true point lies outside, and no
true spectrum T S is negative. D is the same for both (see `emcube.kernels.facets`): values over their errors,
about true ones of any distribution that is not negative. A sum of squares of what is below zero would not do
for spectra: where many channels are truly empty half of them lie below zero by noise, and the truth would
cost a quarter of a nat for each.

Two ways lead to an extreme. One goes through the middle, where there is one (see `emcube.kernels.interior`);
it starts again from what it has reached, as long as that leads on. The other goes along the edge of what is
as good, to its very end.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels.bands import grouped_channels
from emcube.kernels.facets import deficits
from emcube.kernels.interior import Interior

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.kernels.facets import NoisyCloud

__all__ = ["extreme_turns", "slack_of"]

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


ROUNDS = 4
"""Times that extremes through the middle are looked for, at most, each time from those found so far."""

GROWN = 0.05
"""Share by which the box of the extremes must grow for another round."""

SHARPEST = 1e-9
"""Error of a group of channels that is assumed at least, in shares of a spectrum."""


def slack_of(level: float, n_components: int) -> float:
    """Nats that a likelihood may fall: half the quantile of chi-square with K (K - 1) degrees of freedom."""
    from scipy.special import chdtri

    free = max(1, n_components * (n_components - 1))
    return 0.5 * float(chdtri(free, 1.0 - level))


def extreme_turns(
    cloud: NoisyCloud,
    components: NDArray[np.float64],
    errors: NDArray[np.float64],
    slack: float,
    *,
    first: NDArray[np.float64] | None = None,
    n_threads: int = 1,
) -> NDArray[np.float64]:
    """Extreme matrices T whose corners T V are as good as V.

    Parameters
    ----------
    cloud : NoisyCloud
        In shares of the corners V.
    components : ndarray, shape (K, E)
        Spectra S of the corners; each sums to one. They may be negative.
    errors : ndarray, shape (K, E)
        Standard errors of their values.
    slack : float
        Nats that may be lost (see `slack_of`).
    first : ndarray, shape (K, K), optional
        Turn from which nats are counted, and searches start, unless it costs more than the slack itself: then
        it is what can be reached from it that costs least. The identity.
    n_threads : int
        Searches at the same time; they know nothing of each other.

    Returns
    -------
    ndarray, shape (n, K, K)
        The first is the identity; then those at which a share is largest or least. Rows sum to one.

    Notes
    -----
    Extremes are local, in the same bits each time.

    References
    ----------
    R. Tauler, J. Chemom. 15 (2001) 627. https://doi.org/10.1002/cem.667
    O. S. Borgen, B. R. Kowalski, Anal. Chim. Acta 174 (1985) 1. https://doi.org/10.1016/S0003-2670(00)84361-5
    """
    k = len(components)
    pairs = [(i, j) for i in range(k) for j in range(k) if i != j]
    if len(pairs) > MOST_PAIRS:
        pairs = [(i, i) for i in range(k)]
    grouped, group_errors = grouped_channels(components, errors)
    search = _Search(cloud, grouped, np.maximum(group_errors, SHARPEST), slack)
    aims = [(i, j, sign) for i, j in pairs for sign in (1.0, -1.0)]
    start, inside = search.starts(np.eye(k) if first is None else first)
    limit = search.cost(start).value + slack
    found = [start]
    if inside is not None:
        found.extend(search.through(inside, aims, limit))
    with ThreadPoolExecutor(n_threads) as pool:
        searches = [pool.submit(search.extreme, _best(found, *aim), *aim, limit) for aim in aims]
        found.extend([one.result() for one in searches])
    return np.array([np.eye(k), *found, *_renamed(found, components)])


def _renamed(
    turns: list[NDArray[np.float64]], components: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Turns whose corners are more like other components than those that they started as, in that order.

    Where there is much room a simplex can be turned until one of its corners has taken another one's place.
    """
    from scipy.optimize import linear_sum_assignment

    weights = 1.0 / np.sqrt(np.maximum(np.abs(components).mean(axis=0), np.finfo(float).tiny))
    told = _of_length_one(np.maximum(components, 0.0) * weights)
    renamed = []
    for turn in turns:
        like = told @ _of_length_one((turn @ components) * weights).T
        order = linear_sum_assignment(-like)[1]
        if (order != np.arange(len(order))).any():
            renamed.append(turn[order])
    return renamed


def _of_length_one(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, np.finfo(float).tiny))


def _best(turns: list[NDArray[np.float64]], i: int, j: int, sign: float) -> NDArray[np.float64]:
    """The one whose entry (i, j) is largest (sign 1) or least (-1)."""
    return turns[int(np.argmax([sign * turn[i, j] for turn in turns]))]


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
        below, by_turn, curved = self._below_zero(turn)
        for f in range(k):
            curvature[:, f, :, f] += back.T @ bend[f] @ back
            curvature[f, :, f, :] += curved[f]
        return _Cost(value + below, slope + by_turn, curvature.reshape(k * k, k * k))

    def _below_zero(
        self, turn: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """What it costs that no spectrum is negative; slope (K, K), and curvature (K, K, K) by rows."""
        spectra = turn @ self.grouped
        # Errors of a mixture of components are those of its parts.
        square = np.square(self.errors)
        variance = np.square(turn) @ square
        errors = np.sqrt(variance)
        z = spectra / errors
        value, rise = deficits(z.T)
        rise = rise.T
        slope = (rise / errors) @ spectra.T
        # What is larger has larger errors, too.
        slope -= (turn * ((rise * z / variance) @ square.T)) @ turn.T
        bend = np.clip(rise / np.minimum(z, -0.5), 0.0, 1.0) / variance
        curvature = np.stack([(spectra * b) @ spectra.T for b in bend])
        return float(value.sum()), slope, curvature

    def starts(
        self, first: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Where searches along the edge start, and where those through the middle do, if there is one."""
        inside = Interior.of(self.cloud, self.grouped, self.errors).entered(first)
        if self.cost(first).value <= self.slack:
            return first, inside
        near = [self._cheapest(first)] + ([] if inside is None else [inside])
        return min(near, key=lambda turn: self.cost(turn).value), inside

    def _cheapest(self, turn: NDArray[np.float64]) -> NDArray[np.float64]:
        """What costs least near a turn."""
        now, damping = self.cost(turn), 1.0
        for _ in range(STEPS):
            step = self._step(None, now, now.value, damping)
            ahead = turn + step @ turn
            new = self.cost(ahead) if np.linalg.slogdet(ahead)[0] > 0 else None
            if new is None or new.value >= now.value:
                damping *= 8.0
                continue
            gained = now.value - new.value
            turn, now = ahead, new
            damping = max(damping / 4.0, 1e-3)
            if gained < OVER:
                break
        return turn

    def through(
        self, start: NDArray[np.float64], aims: list[tuple[int, int, float]], limit: float
    ) -> list[NDArray[np.float64]]:
        """Extremes through the middle, for each aim from the best one so far."""
        interior = Interior.of(self.cloud, self.grouped, self.errors)
        reached, kept = [start], [start]
        box = 0.0
        for _ in range(ROUNDS):
            for aim in aims:
                path = interior.farthest(_best(reached, *aim), *aim)
                reached.append(path[-1])
                kept.extend(self._last_within(path, limit))
            grown = float(np.ptp(np.array(kept), axis=0).sum())
            if grown <= (1.0 + GROWN) * box:
                break
            box = grown
        return kept

    def _last_within(
        self, path: list[NDArray[np.float64]], limit: float
    ) -> list[NDArray[np.float64]]:
        """The last turn of a path that is as good, alone in a list; none where none is."""
        for turn in reversed(path):
            if self.cost(turn).value <= limit + OVER * self.slack:
                return [turn]
        return []

    def extreme(
        self, start: NDArray[np.float64], i: int, j: int, sign: float, limit: float
    ) -> NDArray[np.float64]:
        """The turn whose entry (i, j) is largest (sign 1) or least (-1), along the edge."""
        k = len(self.grouped)
        turn = best = start
        now = self.cost(turn)
        damping, slow = 1.0, 0
        for _ in range(STEPS):
            aim = np.zeros((k, k))
            aim[i] = sign * turn[:, j]
            step = self._step(aim, now, limit, damping)
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
        self, aim: NDArray[np.float64] | None, now: _Cost, limit: float, damping: float
    ) -> NDArray[np.float64]:
        """Farthest step along `aim` within the limit, by the quadratic model; rows sum to zero.

        Without an aim it is the step to where the cost is least.
        """
        k = len(self.grouped)
        size = k * k
        system = np.zeros((size + k, size + k))
        system[:size, :size] = now.curvature + damping * np.eye(size)
        for row in range(k):
            own = slice(row * k, (row + 1) * k)
            system[size + row, own] = system[own, size + row] = 1.0
        right = np.zeros((size + k, 2))
        right[:size, 0] = 0.0 if aim is None else aim.ravel()
        right[:size, 1] = now.slope.ravel()
        ahead, down = np.linalg.solve(system, right)[:size].T
        step = -down
        if aim is not None:
            room = limit - now.value + 0.5 * float(now.slope.ravel() @ down)
            push = 2.0 * room / max(float(aim.ravel() @ ahead), 1e-300)
            step = np.sqrt(max(push, 0.0)) * ahead - down
        step *= min(1.0, LONGEST / max(float(np.abs(step).max()), 1e-300))
        return np.asarray(step.reshape(k, k))
