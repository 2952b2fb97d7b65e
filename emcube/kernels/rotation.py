"""Rotations of components: varimax and its kin, and independent components.

Letters: N rows (pixels or channels), K components.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["independent", "varimax", "varimax_criterion"]


STARTS = 5
"""First guesses that are tried where rows are few."""

FEW = 20000
"""Rows up to which they are."""

_WARNINGS = threading.Lock()


def varimax_criterion(rows: NDArray[np.float64], gamma: float = 1.0) -> float:
    """Sum over components of the mean fourth power less `gamma` times the squared mean square."""
    square = np.square(rows)
    return float((np.square(square).mean(axis=0) - gamma * np.square(square.mean(axis=0))).sum())


def varimax(
    rows: NDArray[np.float64], *, gamma: float = 1.0, max_iter: int = 500, tol: float = 1e-10
) -> tuple[NDArray[np.float64], int, bool]:
    """Orthogonal rotation that makes each component large in few rows and small elsewhere.

    It maximises `varimax_criterion` of rows R: with B = rows R the gradient is
    G = rows' (B^3 - gamma B diag(mean B^2)), and the rotation nearest to it, from its singular vectors,
    is the next R. The criterion is convex in B (gamma = 0), and such steps never lower it; for gamma = 1 they
    do not in practice, and one that does is refused and ends the search.

    Parameters
    ----------
    rows : ndarray, shape (N, K)
    gamma : float
        1 is varimax, 0 quartimax.
    max_iter : int
        Steps, at most.
    tol : float
        Relative growth of the criterion at which it ends.

    Returns
    -------
    rotation : ndarray, shape (K, K)
        R, orthogonal: ``rows @ R`` are the rotated ones.
    n_iter : int
    converged : bool

    References
    ----------
    H. F. Kaiser, "The varimax criterion for analytic rotation in factor analysis", Psychometrika 23
    (1958) 187.
    https://doi.org/10.1007/BF02289233
    """
    k = rows.shape[1]
    rotation = np.eye(k)
    # In units of the largest row, so that fourth powers of extreme values stay within float64.
    size = float(np.abs(rows).max(initial=0.0))
    rows = rows / (size if size > 0.0 else 1.0)
    value = varimax_criterion(rows, gamma)
    for n in range(max_iter):
        turned = rows @ rotation
        slope = rows.T @ (turned**3 - gamma * turned * np.square(turned).mean(axis=0))
        left, _, right = np.linalg.svd(slope)
        ahead = left @ right
        reached = varimax_criterion(rows @ ahead, gamma)
        if reached <= value + tol * abs(value):
            return (ahead if reached > value else rotation), n + 1, True
        rotation, value = ahead, reached
    return rotation, max_iter, False


def independent(
    rows: NDArray[np.float64], *, fun: str, max_iter: int, tol: float, seed: int
) -> tuple[NDArray[np.float64], int, bool]:
    """Directions along which the columns of rows are independent, by FastICA.

    Few rows have several optima that are as good as each other to the fixed-point iteration: of
    several starts the least Gaussian answer is taken.

    Parameters
    ----------
    rows : ndarray, shape (N, K)
        Of full rank; they are centred and whitened here.
    fun : {"logcosh", "exp", "cube"}
        Measure of independence.
    max_iter : int
    tol : float
    seed : int
        Of the first guess.

    Returns
    -------
    unmixing : ndarray, shape (K, K)
        W: the columns of ``rows @ W.T`` are independent, of variance one.
    n_iter : int
    converged : bool

    References
    ----------
    A. Hyvarinen, E. Oja, Neural Netw. 13 (2000) 411. https://doi.org/10.1016/S0893-6080(00)00026-5
    """
    k = rows.shape[1]
    size = np.sqrt(np.square(rows - rows.mean(axis=0)).mean(axis=0))
    size = np.where(size > 0.0, size, 1.0)
    if k == 1:
        return np.array([[1.0 / size[0]]]), 1, True
    rows = rows / size
    if len(rows) > FEW:
        unmixing, n_iter, converged = _fast_ica(rows, fun, max_iter, tol, seed)
        return unmixing / size, n_iter, converged
    tries = []
    for i in range(STARTS):
        unmixing, n_iter, converged = _fast_ica(rows, fun, max_iter, tol, (seed + i) % 2**32)
        turn, settled = _settled((rows - rows.mean(axis=0)) @ unmixing.T, fun)
        tries.append((turn.T @ unmixing, n_iter, converged or settled))
    # The first of those whose directions are the least Gaussian.
    best = max(tries, key=lambda found: round(_contrast(rows, found[0], fun), 6))
    return best[0] / size, best[1], best[2]


def _settled(
    sources: NDArray[np.float64], fun: str, max_sweeps: int = 50
) -> tuple[NDArray[np.float64], bool]:
    """Turn sources (N, K) in the plane of each pair until no turn makes them less Gaussian.

    Of few rows the fixed-point iteration may go in circles; this ends, at one of its fixed points.
    """
    from scipy.optimize import minimize_scalar

    k = sources.shape[1]
    turn = np.eye(k)
    measure, gaussian = _MEASURES[fun]

    def fit_of(pair: NDArray[np.float64], angles: NDArray[np.float64]) -> NDArray[np.float64]:
        c, s = np.cos(angles), np.sin(angles)
        one = np.abs(measure(pair[:, :1] * c + pair[:, 1:] * s).mean(axis=0) - gaussian)
        two = np.abs(measure(pair[:, 1:] * c - pair[:, :1] * s).mean(axis=0) - gaussian)
        return np.asarray(one + two)

    def best_angle(pair: NDArray[np.float64]) -> float:
        angles = np.linspace(-np.pi / 4, np.pi / 4, 31)
        fits = fit_of(pair, angles)
        at, step = float(angles[int(np.argmax(fits))]), float(angles[1] - angles[0])
        found = minimize_scalar(
            lambda angle: -float(fit_of(pair, np.array([angle]))[0]),
            bounds=(at - step, at + step),
            method="bounded",
            options={"xatol": 1e-9},
        )
        return float(found.x) if -found.fun > fits.max() else at

    for _ in range(max_sweeps):
        largest = 0.0
        for i in range(k):
            for j in range(i + 1, k):
                angle = best_angle((sources @ turn)[:, [i, j]])
                c, s = np.cos(angle), np.sin(angle)
                turn[:, [i, j]] = turn[:, [i, j]] @ np.array([[c, -s], [s, c]])
                # A quarter turn changes names and signs alone.
                largest = max(largest, min(abs(angle), np.pi / 2 - abs(angle)))
        if largest < 1e-6:
            return turn, True
    return turn, False


def _fast_ica(
    rows: NDArray[np.float64], fun: str, max_iter: int, tol: float, seed: int
) -> tuple[NDArray[np.float64], int, bool]:
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    analysis = FastICA(
        rows.shape[1],
        fun=fun,
        max_iter=max_iter,
        tol=tol,
        random_state=seed,
        whiten="unit-variance",
    )
    # Filters of warnings are those of the whole process: one thread at a time changes them.
    with _WARNINGS, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        analysis.fit(rows)
    converged = True
    for one in said:
        if issubclass(one.category, ConvergenceWarning):
            converged = False
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return np.asarray(analysis.components_, dtype=np.float64), int(analysis.n_iter_), converged


def _contrast(rows: NDArray[np.float64], unmixing: NDArray[np.float64], fun: str) -> float:
    """How far sources are from Gaussian: sum of the differences of the mean of G."""
    sources = (rows - rows.mean(axis=0)) @ unmixing.T
    measure, gaussian = _MEASURES[fun]
    return float(np.abs(measure(sources).mean(axis=0) - gaussian).sum())


_MEASURES: dict[str, Any] = {
    "logcosh": (lambda s: np.logaddexp(s, -s) - np.log(2.0), 0.374567207),
    "exp": (lambda s: -np.exp(-s * s / 2), -np.sqrt(0.5)),
    "cube": (lambda s: s**4 / 4, 0.75),
}
"""G of each `fun`, and its mean for a Gaussian of variance one."""
