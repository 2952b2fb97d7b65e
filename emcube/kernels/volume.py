"""The components' step: new components from a pass's statistics and a minimum-volume term.

Letters: E channels, K components. The volume of components S is

    V(S) = log det(S W S' + delta I),   W = diag(weights),

where the weights make counting noise uniform (one over the mean spectrum; ones for least squares) and delta
is a small share of the mean square length, which keeps V finite where two components meet. V is concave
in S W S': its tangent is an upper bound, quadratic in S, so that each step below lowers the objective.

References
----------
V. Leplat, N. Gillis, A. M. S. Ang, "Blind audio source separation with minimum-volume beta-divergence NMF",
IEEE Trans. Signal Process. 68 (2020) 3400. https://doi.org/10.1109/TSP.2020.2991801
V. Leplat, N. Gillis, J. Idier, "Multiplicative updates for NMF with beta-divergences under disjoint equality
constraints", SIAM J. Matrix Anal. Appl. 42 (2021) 730. https://doi.org/10.1137/20M1377278
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels.poisson_nmf import FLOOR

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DELTA",
    "frobenius_step",
    "log_volume",
    "poisson_step",
    "project_to_simplex",
    "simplex_root",
    "volume_slope",
]

DELTA = 1e-2
"""Share of the mean squared length of the components that is added to their Gram matrix."""


def _gram(
    components: NDArray[np.float64], weights: NDArray[np.float64], delta: float
) -> NDArray[np.float64]:
    gram = (components * weights) @ components.T
    gram[np.diag_indices_from(gram)] += delta
    return np.asarray(gram)


def log_volume(
    components: NDArray[np.float64], weights: NDArray[np.float64], delta: float
) -> float:
    """Log det(S W S' + delta I) of components (K, E) with channel weights (E,)."""
    return float(np.linalg.slogdet(_gram(components, weights, delta))[1])


def volume_slope(
    components: NDArray[np.float64], weights: NDArray[np.float64], delta: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradient of the log volume by positive components (K, E), and the curvature of its diagonal bound."""
    inverse = np.linalg.inv(_gram(components, weights, delta))
    gradient = 2.0 * weights * (inverse @ components)
    curvature = 2.0 * weights * (np.abs(inverse) @ components) / components
    return gradient, curvature


def poisson_step(
    components: NDArray[np.float64],
    counts: NDArray[np.float64],
    weights: NDArray[np.float64],
    strength: float,
    delta: float,
) -> NDArray[np.float64]:
    """Minimise the bound of -sum C_ke log S_ke + strength V(S) with rows that sum to one.

    Parameters
    ----------
    components : ndarray, shape (K, E)
        Where the bound touches; positive.
    counts : ndarray, shape (K, E)
        Expected counts of each component (`PoissonPass.counts`).
    weights : ndarray, shape (E,)
    strength : float
        Weight of the volume in nats; 0 gives the EM step C / sum C.
    delta : float

    Returns
    -------
    ndarray, shape (K, E)
        Positive, each row sums to one.
    """
    if strength == 0.0:
        return _normalised(counts)
    # |Y| bounds Y from above by a diagonal (Leplat 2020, Lemma 3): channels and components come apart.
    gradient, curvature = volume_slope(components, weights, delta)
    curvature *= strength
    linear = strength * gradient - curvature * components
    return _normalised(simplex_root(curvature, linear, counts))


def simplex_root(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Positive s with a s + b + mu_k - c / s = 0; mu_k such that each row sums to one.

    The sum falls monotonically with mu_k: Newton steps, safeguarded by bisection.
    """

    def solve(mu: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        half = b + mu[:, None]
        root = np.sqrt(half * half + 4.0 * a * c)
        # Two forms of one root: each loses digits where the other does not.
        s = np.where(
            half > 0.0,
            2.0 * c / np.maximum(half + root, 1e-300),
            (root - half) / np.maximum(2.0 * a, 1e-300),
        )
        return s, s / np.maximum(root, 1e-300)

    mu = np.maximum(c.sum(axis=1), 1e-9)
    low = np.full(mu.shape, -np.inf)
    high = np.full(mu.shape, np.inf)
    for _ in range(200):
        # Far from the root a sum may pass the largest float: infinity is too much all the same.
        with np.errstate(over="ignore"):
            s, slope = solve(mu)
            excess = s.sum(axis=1) - 1.0
        if np.abs(excess).max() < 1e-12:
            break
        low = np.where(excess > 0.0, np.maximum(low, mu), low)
        high = np.where(excess < 0.0, np.minimum(high, mu), high)
        with np.errstate(over="ignore", invalid="ignore"):
            step = mu + excess / np.maximum(slope.sum(axis=1), 1e-300)
        outside = ~((step > low) & (step < high))
        both = np.isfinite(low) & np.isfinite(high)
        wide = np.where(excess > 0.0, mu + np.abs(mu) + 1.0, mu - np.abs(mu) - 1.0)
        middle = np.where(both, 0.5 * (np.where(both, low, 0.0) + np.where(both, high, 0.0)), wide)
        mu = np.where(outside, middle, step)
    return s


def _normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = values.sum(axis=1, keepdims=True)
    # A component that explains nothing any more: flat rather than undefined.
    flat = np.full_like(values, 1.0 / values.shape[1])
    shares = np.where(sums > 0.0, values / np.where(sums > 0.0, sums, 1.0), flat)
    shares = np.maximum(shares, FLOOR)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def project_to_simplex(point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nearest non-negative vector (E,) that sums to one.

    References
    ----------
    J. Duchi et al., "Efficient projections onto the l1-ball", ICML 2008.
    https://doi.org/10.1145/1390156.1390191
    """
    ordered = np.sort(point)[::-1]
    excess = np.cumsum(ordered) - 1.0
    rank = np.arange(1, point.size + 1)
    last = np.flatnonzero(ordered - excess / rank > 0.0)[-1]
    return np.maximum(point - excess[last] / rank[last], 0.0)


def frobenius_step(
    components: NDArray[np.float64],
    products: NDArray[np.float64],
    gram: NDArray[np.float64],
    strength: float,
    delta: float,
    n_sweeps: int = 10,
    n_known: int = 0,
) -> NDArray[np.float64]:
    """Minimise |X - H S|^2 / 2 + strength V(S) (its tangent) over rows that sum to one.

    Block coordinate descent over the components; each one's problem is a projection onto the simplex.

    Parameters
    ----------
    components : ndarray, shape (K, E)
    products : ndarray, shape (K, E)
        H' X.
    gram : ndarray, shape (K, K)
        H' H.
    strength : float
        In squared units of the data.
    delta : float
    n_sweeps : int
    n_known : int
        The first so many components stay as they are.
    """
    quadratic = gram.copy()
    if strength > 0.0:
        inverse = np.linalg.inv(_gram(components, np.ones(components.shape[1]), delta))
        quadratic += 2.0 * strength * inverse
    new = components.copy()
    for _ in range(n_sweeps):
        for k in range(n_known, len(new)):
            if quadratic[k, k] <= 0.0:
                continue
            others = quadratic[k] @ new - quadratic[k, k] * new[k]
            new[k] = project_to_simplex((products[k] - others) / quadratic[k, k])
    return new
