"""Which other components describe the data as well: the feasible bands of a factorisation.

L S = (L T^-1)(T S) for every T that can be inverted, so that noise-free data fix a factorisation only as
far as loadings and spectra must not be negative. What is left is looked for here: for each pair of
components the
smallest and the largest share of the one in the other, over all T with rows that sum to one (components sum
to one), such that

- no T S is negative by more than two standard errors (as in `emcube.kernels.freedom`), and
- the data, with loadings solved anew and not negative, are described within the likelihood ratio of a
given level.

Letters: E channels, K components.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels.freedom import GROUPS, LIMIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Profile", "feasible_turns", "slack_of"]

Profile = Callable[["NDArray[np.float64]"], "tuple[float, NDArray[np.float64]]"]
"""``profile(components) -> (value in nats, gradient (K, E))``, loadings solved."""

MOST_PAIRS = 20
"""Up to so many ordered pairs of components each pair is looked at (five components); beyond, each component
against all others together."""

STEPS = 40
FARTHEST = 20.0
"""Largest share of one component that is taken out of another."""


def slack_of(level: float, n_components: int) -> float:
    """Nats that a likelihood may fall: half the quantile of chi-square with K (K - 1) degrees of freedom."""
    from scipy.special import chdtri

    free = max(1, n_components * (n_components - 1))
    return 0.5 * float(chdtri(free, 1.0 - level))


def feasible_turns(
    profile: Profile,
    components: NDArray[np.float64],
    errors: NDArray[np.float64],
    slack: float,
) -> NDArray[np.float64]:
    """Extreme matrices T whose components T S are as good as S.

    Parameters
    ----------
    profile : callable
        Objective of components on the data (or a sample of them), with its gradient.
    components : ndarray, shape (K, E)
        S; each sums to one.
    errors : ndarray, shape (K, E)
        Standard errors of their values, positive.
    slack : float
        Nats by which the objective may be higher than that of S (see `slack_of`).

    Returns
    -------
    ndarray, shape (N, K, K)
        The first is the identity; then those at which a share is least or largest. Rows sum to one.

    Notes
    -----
    Each extreme is the end of a search by sequential quadratic programming from T = 1, taken back along its
    way until it is feasible: a local extreme, found in the same bits each time. As in MCR-BANDS bands of
    three and more components are those of the extremes that were looked for, and may be wider in between.

    References
    ----------
    W. H. Lawton, E. A. Sylvestre, Technometrics 13 (1971) 617. https://doi.org/10.1080/00401706.1971.10488823
    R. Tauler, J. Chemom. 15 (2001) 627. https://doi.org/10.1002/cem.667
    J. Jaumot, R. Tauler, Chemom. Intell. Lab. Syst. 103 (2010) 96.
    https://doi.org/10.1016/j.chemolab.2010.05.020
    """
    k = len(components)
    if k == 1:
        return np.ones((1, 1, 1))
    search = _Search(profile, components, errors, slack)
    aims = [sign * direction for direction in _directions(k) for sign in (1.0, -1.0)]
    return np.array([np.eye(k), *(search.extreme(aim) for aim in aims)])


def _directions(k: int) -> list[NDArray[np.float64]]:
    """What is made large: each share of one component in another, or of all others together."""
    off = ~np.eye(k, dtype=bool)
    if k * (k - 1) > MOST_PAIRS:
        return [np.where(np.arange(k)[:, None] == i, off, False).astype(float) for i in range(k)]
    pairs = np.argwhere(off)
    found = np.zeros((len(pairs), k, k))
    found[np.arange(len(pairs)), pairs[:, 0], pairs[:, 1]] = 1.0
    return list(found)


class _Search:
    """One search: T as its entries off the diagonal, constraints with their slopes."""

    def __init__(
        self,
        profile: Profile,
        components: NDArray[np.float64],
        errors: NDArray[np.float64],
        slack: float,
    ) -> None:
        self.profile, self.components, self.slack = profile, components, slack
        self.k = len(components)
        self.off = ~np.eye(self.k, dtype=bool)
        group = np.floor(np.cumsum(components.mean(axis=0)) * GROUPS).astype(np.int64)
        self.grouped = np.array([np.bincount(group, row) for row in components])
        held = np.array([np.bincount(group, row * row) for row in errors])
        self.errors = np.sqrt(np.maximum(held, np.finfo(float).tiny))
        self.first, _ = profile(components)
        self.last: tuple[bytes, float, NDArray[np.float64]] | None = None

    def turn(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """T of its entries off the diagonal."""
        out = np.zeros((self.k, self.k))
        out[self.off] = x
        out[np.diag_indices(self.k)] = 1.0 - out.sum(axis=1)
        return out

    def _by_entries(self, slope: NDArray[np.float64]) -> NDArray[np.float64]:
        """Slope by the entries off the diagonal, which take from the diagonal what they get."""
        return np.asarray((slope - np.diagonal(slope)[:, None])[self.off])

    def likelihood(self, x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """What is left of the slack, as a share of it, and its slope."""
        key = x.tobytes()
        if self.last is None or self.last[0] != key:
            turned = self.turn(x) @ self.components
            value, slope = self.profile(np.maximum(turned, 0.0))
            slope = np.where(turned > 0.0, slope, 0.0)
            left = 1.0 - (value - self.first) / self.slack
            by_turn = slope @ self.components.T
            self.last = (key, left, -self._by_entries(by_turn) / self.slack)
        return self.last[1], self.last[2]

    def positive(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What is left of the room below zero for each component, as a share of it, and its slopes."""
        below = np.minimum(self.turn(x) @ self.grouped, 0.0) / self.errors
        left = 1.0 - np.square(below).sum(axis=1) / LIMIT
        slopes = np.zeros((self.k, x.size))
        for i in range(self.k):
            by_turn = np.zeros((self.k, self.k))
            by_turn[i] = -2.0 / LIMIT * (self.grouped @ (below[i] / self.errors[i]))
            slopes[i] = self._by_entries(by_turn)
        return left, slopes

    def feasible(self, x: NDArray[np.float64]) -> bool:
        """Whether T is as good as the identity."""
        if not np.isfinite(x).all() or abs(float(np.linalg.det(self.turn(x)))) < 1e-6:
            return False
        return bool(self.positive(x)[0].min() >= -1e-9 and self.likelihood(x)[0] >= -1e-9)

    def extreme(self, direction: NDArray[np.float64]) -> NDArray[np.float64]:
        """T that goes farthest in a direction."""
        from scipy.optimize import minimize

        aim = -direction[self.off]
        start = np.zeros(aim.size)
        with warnings.catch_warnings():
            # A step that ends outside the bounds is cut there, which is what they are for.
            warnings.filterwarnings("ignore", "Values in x were outside bounds", RuntimeWarning)
            found = minimize(
                lambda x: (float(aim @ x), aim),
                start,
                jac=True,
                method="SLSQP",
                bounds=[(-FARTHEST, FARTHEST)] * aim.size,
                constraints=[
                    {
                        "type": "ineq",
                        "fun": lambda x: np.append(self.positive(x)[0], self.likelihood(x)[0]),
                        "jac": lambda x: np.vstack((self.positive(x)[1], self.likelihood(x)[1])),
                    }
                ],
                options={"maxiter": STEPS, "ftol": 1e-4},
            )
        return self.turn(self._taken_back(np.asarray(found.x, dtype=np.float64)))

    def _taken_back(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The last feasible point on the way from the identity."""
        if self.feasible(x):
            return x
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.feasible(middle * x) else (low, middle)
        return low * x
