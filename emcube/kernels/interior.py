"""Simplices with room on both sides: their faces clear of the cloud, their corners clear of zero.

Where components share nearly all their signal, or no pixel is nearly pure, there is much room between the
cloud and the spectra that are not negative, and other simplices fill it. A search along the edge of what is
as good (see `emcube.kernels.extremes`) creeps there: the cost is flat until a face meets a point, and steep
beyond. Through the middle the way is free: with distances c of outer points to the faces, and d of the
spectra to zero, both in their standard errors,

    minimise  -+T_ij / mu - mean_p sum_f log c_pf - mean_g sum_k log d_kg    with falling mu

leads to the largest or least T_ij without touching either side before its end (a logarithmic barrier).

Letters: K corners and faces, P outer points of the cloud, G groups of channels.

References
----------
A. V. Fiacco, G. P. McCormick, "Nonlinear programming: sequential unconstrained minimization techniques",
Wiley (1968); SIAM (1990). https://doi.org/10.1137/1.9781611971316
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels.bands import BELOW_ZERO

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.kernels.facets import NoisyCloud

__all__ = ["Interior"]

DIRECTIONS = 400
"""Directions in each of which the two outermost points stand for the cloud."""

BEYOND = 1.0
"""Standard errors by which an outer point may lie beyond a face; the way along the edge goes farther."""

ENTERED = 0.5
"""Standard errors of room on each side at which a simplex counts as inside."""

BARRIERS = 10.0 * 0.2 ** np.arange(5)
"""Shares (units of T) that the barriers are worth, one descent after the other."""

STEPS, ENTERING = 12, 200
"""Newton steps of one descent, and on the way in, at most."""

LONGEST = 0.5
"""Largest entry of one step, in shares of the corners so far."""

STILL = 1e-4
"""Fall of the objective at which a descent ends."""


@dataclass(frozen=True, eq=False)
class _Room:
    """Shares and spectra of a turn, and their distances to the ends of their room in standard errors."""

    shares: NDArray[np.float64]
    spectra: NDArray[np.float64]
    share_errors: NDArray[np.float64]
    spectrum_errors: NDArray[np.float64]
    c: NDArray[np.float64]
    d: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Interior:
    """What keeps a simplex off the cloud and off negative spectra.

    Attributes
    ----------
    cloud : NoisyCloud
        Its outer points, in shares of the corners that turns are turns of.
    grouped, errors : ndarray, shape (K, G)
        Spectra of these corners in groups of channels, and their errors.
    """

    cloud: NoisyCloud
    grouped: NDArray[np.float64]
    errors: NDArray[np.float64]

    @classmethod
    def of(
        cls, cloud: NoisyCloud, grouped: NDArray[np.float64], errors: NDArray[np.float64]
    ) -> Interior:
        """Take the outer points of a cloud."""
        return cls(cloud.some(_outermost(cloud.shares)), grouped, errors)

    def entered(self, turn: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """A turn (K, K) inside, near the given one; None where there is none near.

        What lacks of `ENTERED` is made small, as a sum of squares, by damped Newton steps.
        """
        room, damping = self._room(turn), 1.0
        for _ in range(ENTERING):
            if room is None:
                return None
            short_c, short_d = np.maximum(ENTERED - room.c, 0.0), np.maximum(ENTERED - room.d, 0.0)
            if max(float(short_c.max()), float(short_d.max())) < ENTERED:
                return turn
            bend_c, bend_d = (np.asarray(s > 0.0, dtype=np.float64) for s in (short_c, short_d))
            slope, curvature = _by_turn(room, -short_c, bend_c, -short_d, bend_d)
            ahead = turn + _step(slope, curvature, damping) @ turn
            reached = self._room(ahead)
            if reached is not None and _lack(reached) < _lack(room):
                turn, room, damping = ahead, reached, max(damping / 4.0, 1e-6)
                continue
            damping *= 8.0
            if damping > 1e12:
                return None
        return None

    def farthest(
        self, turn: NDArray[np.float64], i: int, j: int, sign: float
    ) -> list[NDArray[np.float64]]:
        """Turns on the way to the largest (sign 1) or least (-1) entry (i, j), from one that is inside."""
        path = []
        for barrier in BARRIERS:
            turn = self._descended(turn, i, j, sign / float(barrier))
            path.append(turn)
        return path

    def _descended(
        self, turn: NDArray[np.float64], i: int, j: int, pull: float
    ) -> NDArray[np.float64]:
        room = self._room(turn)
        assert room is not None
        value = _barrier(room) - pull * float(turn[i, j])
        n_points, n_groups = len(room.c), room.d.shape[1]
        for _ in range(STEPS):
            slope, curvature = _by_turn(
                room,
                -1.0 / (room.c * n_points),
                1.0 / (np.square(room.c) * n_points),
                -1.0 / (room.d * n_groups),
                1.0 / (np.square(room.d) * n_groups),
            )
            slope[i] -= pull * turn[:, j]
            step = _step(slope, curvature, 1e-2)
            before = value
            for _ in range(6):
                ahead = turn + step @ turn
                reached = self._room(ahead)
                if reached is not None:
                    new = _barrier(reached) - pull * float(ahead[i, j])
                    if new < value - 1e-6:
                        turn, room, value = ahead, reached, new
                        break
                step = 0.4 * step
            if before - value < STILL:
                break
        return turn

    def _room(self, turn: NDArray[np.float64]) -> _Room | None:
        """None where a corner has passed through the opposite face."""
        if np.linalg.slogdet(turn)[0] <= 0.0:
            return None
        back = np.asarray(np.linalg.inv(turn), dtype=np.float64)
        sigma = np.sqrt(self.cloud.variance(back))
        shares, spectra = self.cloud.shares @ back, turn @ self.grouped
        # Errors of a mixture of components are those of its parts.
        errors = np.sqrt(np.square(turn) @ np.square(self.errors))
        c, d = shares / sigma + BEYOND, spectra / errors + BELOW_ZERO
        return _Room(shares, spectra, sigma, errors, c, d)


def _outermost(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of the points that are outermost in any of many directions, drawn alike for every cloud."""
    centred = shares - shares.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    # Shares sum to one: one axis holds nothing.
    axes = axes[:, 1:] / np.sqrt(np.maximum(values[1:], np.finfo(float).tiny))
    drawn = np.random.default_rng(0).normal(size=(axes.shape[1], DIRECTIONS))
    along = (centred @ axes) @ drawn
    return np.unique(np.concatenate((along.argmax(axis=0), along.argmin(axis=0))))


def _lack(room: _Room) -> float:
    short_c, short_d = np.maximum(ENTERED - room.c, 0.0), np.maximum(ENTERED - room.d, 0.0)
    return float(np.square(short_c).sum() + np.square(short_d).sum())


def _barrier(room: _Room) -> float:
    if min(float(room.c.min()), float(room.d.min())) <= 0.0:
        return np.inf
    return float(-np.log(room.c).sum() / len(room.c) - np.log(room.d).sum() / room.d.shape[1])


def _by_turn(
    room: _Room,
    by_c: NDArray[np.float64],
    bend_c: NDArray[np.float64],
    by_d: NDArray[np.float64],
    bend_d: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope (K, K) and curvature (K^2, K^2) by the entries of a turn relative to the one so far.

    From first and second derivatives by c (P, K) and d (K, G); errors are taken as they are.
    """
    k = len(room.spectra)
    slope = (by_d / room.spectrum_errors) @ room.spectra.T
    slope -= room.shares.T @ (by_c / room.share_errors)
    curvature = np.zeros((k, k, k, k))
    by_face = bend_c / np.square(room.share_errors)
    by_corner = bend_d / np.square(room.spectrum_errors)
    for f in range(k):
        curvature[:, f, :, f] += (room.shares * by_face[:, f, None]).T @ room.shares
        curvature[f, :, f, :] += (room.spectra * by_corner[f]) @ room.spectra.T
    return slope, curvature.reshape(k * k, k * k)


def _step(
    slope: NDArray[np.float64], curvature: NDArray[np.float64], damping: float
) -> NDArray[np.float64]:
    """Newton step (K, K) whose rows sum to zero, cut to `LONGEST`."""
    k = len(slope)
    size = k * k
    system = np.zeros((size + k, size + k))
    system[:size, :size] = curvature + damping * np.eye(size)
    for row in range(k):
        own = slice(row * k, (row + 1) * k)
        system[size + row, own] = system[own, size + row] = 1.0
    right = np.append(-slope.ravel(), np.zeros(k))
    step = np.linalg.solve(system, right)[:size].reshape(k, k)
    return np.asarray(step * min(1.0, LONGEST / max(float(np.abs(step).max()), 1e-300)))
