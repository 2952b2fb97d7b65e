"""Rotations of components: varimax and its kin, and independent components.

Letters: N rows (pixels or channels), K components.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["independent", "varimax", "varimax_criterion"]


def varimax_criterion(rows: NDArray[np.float64], gamma: float = 1.0) -> float:
    """Sum over components of the mean fourth power less `gamma` times the squared mean square."""
    square = np.square(rows)
    return float((np.square(square).mean(axis=0) - gamma * np.square(square.mean(axis=0))).sum())


def varimax(
    rows: NDArray[np.float64], *, gamma: float = 1.0, max_iter: int = 500, tol: float = 1e-10
) -> tuple[NDArray[np.float64], int, bool]:
    """Orthogonal rotation that makes each component large in few rows and small elsewhere.

    It maximises `varimax_criterion` of rows R: with B = rows R the gradient is
    G = rows' (B^3 - gamma B diag(mean B^2)), and the rotation nearest to it, from its singular vectors, is the
    next R. The criterion is convex in B (gamma = 0), and such steps never lower it; for gamma = 1 they do not in
    practice, and one that does is refused and ends the search.

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
    H. F. Kaiser, "The varimax criterion for analytic rotation in factor analysis", Psychometrika 23 (1958) 187.
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
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    k = rows.shape[1]
    size = np.sqrt(np.square(rows - rows.mean(axis=0)).mean(axis=0))
    size = np.where(size > 0.0, size, 1.0)
    if k == 1:
        return np.array([[1.0 / size[0]]]), 0, True
    analysis = FastICA(
        k, fun=fun, max_iter=max_iter, tol=tol, random_state=seed, whiten="unit-variance"
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        analysis.fit(rows / size)
    converged = True
    for one in said:
        if issubclass(one.category, ConvergenceWarning):
            converged = False
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    unmixing = np.asarray(analysis.components_, dtype=np.float64) / size
    return unmixing, int(analysis.n_iter_), converged
