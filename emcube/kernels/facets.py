"""The smallest simplex around a cloud of noisy points: what noise does not explain lies inside.

Letters: N points, K dims, corners and facets. Points lie in a plane that does not hold the origin; their
shares A of the corners V, ``points = A V``, sum to one.

The share of corner k at a point is a = u + e with the true share u >= 0 and noise e of known size s. Along a
facet many points have u = 0, and half of them lie outside by their noise alone: a hinge on a, as the
published methods have it, makes the simplex too large or, where it is soft, cuts corners off. What counts
here is the likelihood of all z = a / s as a mixture of normal laws of variance one about u / s, whose mixing
distribution G is whatever fits best (Kiefer and Wolfowitz):

    D_k = max_G on the line sum log f_G(z)  -  max_G on u >= 0 sum log f_G(z)  >= 0

is what it costs (nats) that no true point lies beyond facet k. It is next to nothing where that is so,
whatever the true points are, and grows steeply once a facet cuts true points off. s is the noise of a
point *on* the facet: that of the point's own share would be larger for all whose noise is upwards.

References
----------
J. Kiefer, J. Wolfowitz, "Consistency of the maximum likelihood estimator in the presence of infinitely many
incidental parameters", Ann. Math. Stat. 27 (1956) 887. https://doi.org/10.1214/aoms/1177728066
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.descent import descend

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["NoisyCloud", "deficits", "smallest_within_noise"]

LOWEST, HIGHEST, STEP = -8.0, 6.0, 0.25
NODES = np.arange(round((HIGHEST - LOWEST) / STEP) + 1) * STEP + LOWEST
"""Distances z that are told apart, in standard errors: points between two nodes are dealt to both."""

LANES = 8
"""Nodes are filled up to a multiple of this, so that whole vectors are computed."""

ROUNDS = 80
"""Steps of expectation and maximisation for a mixing distribution."""

SHARPEST = 1e-3
"""Noise of a share that is assumed at least: without any, a facet would stand on single points."""

PRICE = 0.3
"""Units of the logarithm of the volume that a nat is worth."""

LONGEST = 0.3
"""Largest turn before the noise is taken anew for the corners that were reached."""

COLLAPSED = 20.0
"""A simplex so many times narrower than its start is on its way to a point: noise explains all."""

STILL = 1e-3
"""Turn at which the noise of the corners so far is that of the corners to come."""


def _tables() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Densities (atoms, nodes) of mixing distributions on u >= 0, and on the line."""
    near = 0.25 * np.arange(1, 9)
    inside = np.concatenate(([0.0], near, [2.5, 3.0, 4.0, 5.0, HIGHEST]))
    outside = -np.concatenate((near, [2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0]))

    def table(atoms: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.ones((atoms.size, -(-NODES.size // LANES) * LANES))
        apart = np.square(atoms[:, None] - NODES)
        found[:, : NODES.size] = np.exp(-0.5 * apart) / np.sqrt(2.0 * np.pi)
        return found

    return table(inside), table(np.concatenate((outside, inside)))


_HELD, _FREE = _tables()


@jit(error_model="numpy", fastmath={"reassoc", "contract"})
def _log_density(counts, table, rounds):
    """Log of the best mixture's density at the nodes, for each row of counts.

    `table` is (atoms, nodes), filled up with ones to whole vectors of nodes, where there are no counts.
    """
    n_facets, n_nodes = counts.shape
    n_atoms, width = table.shape
    out = np.empty((n_facets, n_nodes))
    weights = np.empty(n_atoms)
    density = np.empty(width)
    held = np.zeros(width)
    for f in range(n_facets):
        total = 0.0
        for b in range(n_nodes):
            total += counts[f, b]
        for b in range(n_nodes):
            held[b] = counts[f, b] / total
        for m in range(n_atoms):
            weights[m] = 1.0 / n_atoms
        for step in range(rounds + 1):
            # Along the nodes, so that whole vectors are computed.
            density[:] = 0.0
            for m in range(n_atoms):
                weight = weights[m]
                for b in range(width):
                    density[b] += weight * table[m, b]
            if step == rounds:
                break
            for b in range(width):
                density[b] = held[b] / density[b]
            for m in range(n_atoms):
                grown = 0.0
                for b in range(width):
                    grown += table[m, b] * density[b]
                weights[m] *= grown
        for b in range(n_nodes):
            out[f, b] = np.log(density[b])
    return out


def deficits(z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What it costs that no true point lies beyond each facet.

    Parameters
    ----------
    z : ndarray, shape (N, K)
        Shares over their standard errors.

    Returns
    -------
    value : ndarray, shape (K,)
        In nats.
    slope : ndarray, shape (N, K)
        By z.
    """
    counts, beyond = _dealt(z)
    # Rounding leaves next to nothing where nothing is.
    counts[counts < 1e-9] = 0.0
    cost = _log_density(counts, _FREE, ROUNDS) - _log_density(counts, _HELD, ROUNDS)
    # Beyond the last node each standard error costs as much as the last one did.
    value = (counts * cost).sum(axis=1) - LOWEST * beyond
    return np.maximum(value, 0.0), _slopes(z, np.diff(cost, axis=1) / STEP)


@jit(error_model="numpy")
def _dealt(z):
    """Points at the nodes (K, nodes), and how far (K,) all of them lie beyond the lowest."""
    n_points, k = z.shape
    n = NODES.size
    below = np.zeros((k, n))
    above = np.zeros((k, n))
    beyond = np.zeros(k)
    for p in range(n_points):
        for f in range(k):
            at = (min(max(z[p, f], LOWEST), HIGHEST) - LOWEST) / STEP
            node = min(int(at), n - 2)
            below[f, node] += 1.0 - (at - node)
            above[f, node + 1] += at - node
            beyond[f] += max(LOWEST - z[p, f], 0.0)
    return below + above, beyond


@jit(error_model="numpy")
def _slopes(z, rise):
    """Slope (N, K) of the cost at each point, between nodes."""
    n_points, k = z.shape
    n = NODES.size
    out = np.empty((n_points, k))
    for p in range(n_points):
        for f in range(k):
            value = z[p, f]
            if value < LOWEST:
                out[p, f] = LOWEST
            elif value > HIGHEST:
                out[p, f] = 0.0
            else:
                out[p, f] = rise[f, min(int((value - LOWEST) / STEP), n - 2)]
    return out


@dataclass(frozen=True, eq=False)
class NoisyCloud:
    """Points in shares of some corners, with their noise.

    Attributes
    ----------
    shares : ndarray, shape (N, K)
    size : ndarray, shape (N,)
        Size of a point's noise: its covariance is size^2 sum_j mix_j shapes_j.
    mix : ndarray, shape (N, K)
        Composition of each point.
    shapes : ndarray, shape (K, K, K)
        Covariance of the shares' noise at each of the corners, for a size of one.
    """

    shares: NDArray[np.float64]
    size: NDArray[np.float64]
    mix: NDArray[np.float64]
    shapes: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        points: NDArray[np.float64],
        size: NDArray[np.float64],
        covariance: Callable[[NDArray[np.float64]], NDArray[np.float64]],
        corners: NDArray[np.float64],
    ) -> NoisyCloud:
        """The cloud in shares of the corners (K, K); ``covariance(corner)`` as for `find_vertices`."""
        inverse = np.linalg.inv(corners)
        shares = points @ inverse
        mix = np.maximum(shares, 0.0)
        mix /= mix.sum(axis=1, keepdims=True)
        shapes = np.array([inverse.T @ covariance(corner) @ inverse for corner in corners])
        return cls(shares, size, mix, shapes)

    def some(self, rows: NDArray[np.int64]) -> NoisyCloud:
        """Some of the points."""
        return NoisyCloud(self.shares[rows], self.size[rows], self.mix[rows], self.shapes)

    def variance(self, back: NDArray[np.float64]) -> NDArray[np.float64]:
        """Variance (N, K) of the shares of a simplex (see `deficit`) for points on its facets."""
        return self._spread(back)[2]

    def _spread(
        self, back: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Noise along the facets (K, K, K), weights (N, K) and variances (N, K)."""
        along = np.einsum("jkl,lf->jkf", self.shapes, back)
        square = np.einsum("kf,jkf->jf", back, along)
        # On a facet there is nothing of its own corner, in the noise neither.
        np.fill_diagonal(square, 0.0)
        weight = self._weight
        return along, weight, weight * (self.mix @ square) + SHARPEST**2

    @cached_property
    def _weight(self) -> NDArray[np.float64]:
        return np.asarray(np.square(self.size)[:, None] / np.maximum(1.0 - self.mix, 1e-3))

    def deficit(
        self, back: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """What it costs that no true point lies outside of the simplex ``inv(back) @ corners``.

        Parameters
        ----------
        back : ndarray, shape (K, K)
            Its column f makes shares of the corners into those of the f-th corner of the simplex.

        Returns
        -------
        value : float
            Sum over the facets, in nats.
        slope : ndarray, shape (K, K)
            By the entries of `back`.
        curvature : ndarray, shape (K, K, K)
            For each facet an upper bound of the second derivatives by its column.
        """
        along, weight, variance = self._spread(back)
        sigma = np.sqrt(variance)
        z = (self.shares @ back) / sigma
        value, rise = deficits(z)
        pulled = self.mix.T @ (rise * z / variance * weight)
        np.fill_diagonal(pulled, 0.0)
        slope = self.shares.T @ (rise / sigma) - np.einsum("jf,jkf->kf", pulled, along)
        bend = np.clip(rise / np.minimum(z, -0.5), 0.0, 1.0) / variance
        return float(value.sum()), slope, _scatters(self.shares, bend)

    def priced(
        self, back: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """The deficit in units of the logarithm of the volume."""
        value, slope, curvature = self.deficit(back)
        return PRICE * value, PRICE * slope, PRICE * curvature


@jit(error_model="numpy")
def _scatters(shares, weights):
    """Sums (F, K, K) of the products of shares (N, K), weighted (N, F); most points weigh nothing."""
    n_points, k = shares.shape
    out = np.zeros((weights.shape[1], k, k))
    for p in range(n_points):
        for f in range(weights.shape[1]):
            weight = weights[p, f]
            if weight > 0.0:
                for i in range(k):
                    for j in range(i + 1):
                        out[f, i, j] += weight * shares[p, i] * shares[p, j]
    for f in range(weights.shape[1]):
        for i in range(k):
            for j in range(i):
                out[f, j, i] = out[f, i, j]
    return out


def _log_det(corners: NDArray[np.float64]) -> float:
    return float(np.linalg.slogdet(corners)[1])


def smallest_within_noise(
    points: NDArray[np.float64],
    size: NDArray[np.float64],
    covariance: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    first: NDArray[np.float64],
    *,
    max_iter: int,
    tol: float,
) -> tuple[NDArray[np.float64], float, int, bool]:
    """Corners of the simplex of the least volume outside of which noise explains all points.

    With Q the inverse of the corners in shares of the first ones, minimise -log |det Q| + PRICE sum_k
    D_k(Q) under Q 1 = 1, by damped Newton steps; noise is taken anew for the corners that were reached.

    Parameters
    ----------
    points : ndarray, shape (N, K)
    size : ndarray, shape (N,)
        Size of a point's noise.
    covariance : callable
        As for `emcube.kernels.vertices.find_vertices`.
    first : ndarray, shape (K, K)
        Corners to start from, in the plane of the points and rather inside of the cloud than outside: a
        simplex grows until noise explains what is left, and may get stuck while it shrinks.
    max_iter : int
        Steps, at most.
    tol : float
        Fall of the objective at which it ends.

    Returns
    -------
    corners : ndarray, shape (K, K)
        The first ones where noise explains the points whatever the simplex: there is no smallest one then.
    deficit : float
        Nats that are left.
    n_iter : int
    converged : bool
    """
    corners, n_iter, damping = first, 0, 1.0
    k = len(first)
    while True:
        cloud = NoisyCloud.of(points, size, covariance, corners)
        back, damping, used = descend(
            cloud.priced,
            k,
            damping=damping,
            max_iter=max_iter - n_iter,
            tol=tol,
            longest=LONGEST,
        )
        n_iter += used
        corners = np.asarray(np.linalg.solve(back, corners), dtype=np.float64)
        if _log_det(corners) < _log_det(first) - (k - 1) * np.log(COLLAPSED):
            left = NoisyCloud.of(points, size, covariance, first).deficit(np.eye(k))[0]
            return first, left, n_iter, False
        done = float(np.abs(back - np.eye(k)).max()) < STILL
        if done or n_iter >= max_iter:
            left = NoisyCloud.of(points, size, covariance, corners).deficit(np.eye(k))[0]
            return corners, left, n_iter, done
