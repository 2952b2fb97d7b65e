"""How far an answer is from the truth: plain arrays in, numbers out; slow and obvious.

Letters: P pixels, E channels, K components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "kk_angle",
    "line_ratio",
    "loadings_error",
    "match_components",
    "maximum_likelihood_loadings",
]


def _flat(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return array.reshape(array.shape[0], -1)


def kk_angle(first: ArrayLike, second: ArrayLike, mean: ArrayLike) -> float:
    """Measure the Keenan-Kotula-weighted angle between two spectra.

    Both are divided by the square root of the mean spectrum first, as Poisson noise asks, so that weak
    lines count: a plain angle does not see minor elements.

    Parameters
    ----------
    first, second : array_like, shape (E,) or any signal shape
        Channels that are NaN in either are left out.
    mean : array_like
        Mean spectrum of the data (any factor); channels where it is zero are left out.

    Returns
    -------
    float
        Degrees.
    """
    a, b, m = (np.ravel(np.asarray(v, dtype=np.float64)) for v in (first, second, mean))
    used = np.isfinite(a) & np.isfinite(b) & (m > 0)
    a, b = a[used] / np.sqrt(m[used]), b[used] / np.sqrt(m[used])
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    # The arc cosine loses half its digits near zero: use the difference.
    return float(np.rad2deg(2.0 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))))


def match_components(
    found: ArrayLike, truth: ArrayLike, mean: ArrayLike
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Match found components to true ones so that the sum of angles is smallest.

    Parameters
    ----------
    found : array_like, shape (K', E), K' >= K
    truth : array_like, shape (K, E)
    mean : array_like, shape (E,)
        Mean spectrum of the data.

    Returns
    -------
    order : ndarray, shape (K,)
        ``found[order[k]]`` belongs to ``truth[k]``.
    angles : ndarray, shape (K,)
        Their KK-weighted angles, degrees.

    Raises
    ------
    InputError
        If fewer components were found than there are.
    """
    from scipy.optimize import linear_sum_assignment

    a, b = _flat(found), _flat(truth)
    if a.shape[0] < b.shape[0]:
        raise InputError(
            f"{a.shape[0]} components found, {b.shape[0]} to match",
            hint="compare the other way round",
        )
    angles = np.array([[kk_angle(f, t, mean) for f in a] for t in b])
    rows, order = linear_sum_assignment(angles)
    return order, angles[rows, order]


def line_ratio(
    spectrum: ArrayLike,
    axis: ArrayLike,
    first: tuple[float, float],
    second: tuple[float, float],
) -> float:
    """Return the ratio of the net counts of two lines.

    Parameters
    ----------
    spectrum : array_like, shape (E,)
    axis : array_like, shape (E,)
        Channel positions.
    first, second : (float, float)
        Windows around the lines, in the axis's unit. The background under each is a straight line between
        the means of the fifth of the window at either end.
    """
    values, at = np.asarray(spectrum, dtype=np.float64), np.asarray(axis, dtype=np.float64)

    def net(window: tuple[float, float]) -> float:
        inside = np.flatnonzero((at >= window[0]) & (at <= window[1]))
        rim = max(1, inside.size // 5)
        low, high = values[inside[:rim]].mean(), values[inside[-rim:]].mean()
        return float((values[inside] - np.linspace(low, high, inside.size)).sum())

    return net(first) / net(second)


def maximum_likelihood_loadings(
    counts: ArrayLike, components: ArrayLike, *, max_iter: int = 5000, tol: float = 1e-10
) -> NDArray[np.float64]:
    """Solve for the non-negative loadings of largest Poisson likelihood with the components known.

    The slow reference: expectation-maximisation L <- L * ((D / (L S)) S^T) for components that sum to one,
    until no loading moves by more than `tol` of the largest.

    Parameters
    ----------
    counts : array_like, shape (P, E)
    components : array_like, shape (K, E)
        Divided by their sums; the loadings are in counts.
    max_iter : int
        Most steps.
    tol : float
        Relative change at which to stop.

    Returns
    -------
    ndarray, shape (P, K)

    References
    ----------
    L. A. Shepp, Y. Vardi, IEEE Trans. Med. Imaging 1 (1982) 113, doi:10.1109/TMI.1982.4307558.
    """
    data, spectra = _flat(counts), _flat(components)
    spectra = spectra / spectra.sum(axis=1, keepdims=True)
    loadings = (
        np.repeat(data.sum(axis=1, keepdims=True), spectra.shape[0], axis=1) / spectra.shape[0]
    )
    for _ in range(max_iter):
        model = loadings @ spectra
        ratio = np.divide(data, model, out=np.zeros_like(data), where=model > 0)
        new = loadings * (ratio @ spectra.T)
        moved = np.abs(new - loadings).max()
        loadings = new
        if moved <= tol * max(loadings.max(), 1e-300):
            break
    return np.asarray(loadings)


def loadings_error(found: ArrayLike, truth: ArrayLike) -> float:
    """Return the root-mean-square error of loadings over the root-mean-square truth.

    Parameters
    ----------
    found, truth : array_like, shape (..., K)
        In the same order of components; pixels that are NaN in `found` are left out.
    """
    a, b = np.asarray(found, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    used = np.isfinite(a).all(axis=-1)
    return float(np.sqrt(((a[used] - b[used]) ** 2).mean() / (b[used] ** 2).mean()))
