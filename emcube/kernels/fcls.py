"""Fully constrained least squares: loadings that are not negative and sum to what the pixel holds.

Letters: P pixels, E channels, K components. For components S, channel weights W and a pixel x of total s,

    minimise (x - l S) W (x - l S)' / 2   with l >= 0, sum_k l_k = s,

which needs the pixel through its K products S W x' alone.

References
----------
D. C. Heinz, C.-I. Chang, "Fully constrained least squares linear spectral mixture analysis method for
material quantification in hyperspectral imagery", IEEE Trans. Geosci. Remote Sens. 39 (2001) 529.
https://doi.org/10.1109/36.911111
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels._numba import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["constrained_shares"]

TOLERANCE = 1e-12
"""Slope, in units of the largest of the Gram matrix, below which a loading stays at zero."""


def constrained_shares(
    products: NDArray[np.float64], gram: NDArray[np.float64], totals: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve all pixels exactly, by an active set.

    Parameters
    ----------
    products : ndarray, shape (P, K)
        x W S' of each pixel.
    gram : ndarray, shape (K, K)
        S W S'.
    totals : ndarray, shape (P,)
        s; where it is not positive all loadings are zero.

    Returns
    -------
    ndarray, shape (P, K)
    """
    loadings = np.zeros(products.shape)
    steady = gram.copy()
    # Two components of the same spectrum share what they hold instead of failing.
    steady[np.diag_indices_from(steady)] *= 1.0 + 1e-12
    tolerance = TOLERANCE * float(np.abs(gram).max(initial=0.0))
    _solve(
        np.ascontiguousarray(products, dtype=np.float64),
        steady,
        np.ascontiguousarray(totals, dtype=np.float64),
        loadings,
        tolerance,
    )
    return loadings


@jit(error_model="numpy")
def _on_free(gram, b, free, m, lower, y, z):
    """Shares of the m free components that minimise with sum one: z = inv(G) (b - mu)."""
    n = free.size
    for i in range(m):
        for j in range(i + 1):
            t = gram[free[i], free[j]]
            for c in range(j):
                t -= lower[i, c] * lower[j, c]
            if i == j:
                lower[i, i] = np.sqrt(max(t, 1e-14 * gram[free[i], free[i]]))
            else:
                lower[i, j] = t / lower[j, j]
    # Two right-hand sides: b and ones.
    for i in range(m):
        t0 = b[free[i]]
        t1 = 1.0
        for c in range(i):
            t0 -= lower[i, c] * y[0, c]
            t1 -= lower[i, c] * y[1, c]
        y[0, i] = t0 / lower[i, i]
        y[1, i] = t1 / lower[i, i]
    sum0 = 0.0
    sum1 = 0.0
    for back in range(m):
        i = m - 1 - back
        t0 = y[0, i]
        t1 = y[1, i]
        for c in range(i + 1, m):
            t0 -= lower[c, i] * y[0, c]
            t1 -= lower[c, i] * y[1, c]
        y[0, i] = t0 / lower[i, i]
        y[1, i] = t1 / lower[i, i]
        sum0 += y[0, i]
        sum1 += y[1, i]
    mu = (sum0 - 1.0) / sum1
    for k in range(n):
        z[k] = 0.0
    for i in range(m):
        z[free[i]] = y[0, i] - mu * y[1, i]
    return mu


@jit(error_model="numpy")
def _solve(products, gram, totals, loadings, tolerance):
    n_pixels, n = products.shape
    b = np.empty(n)
    a = np.empty(n)
    z = np.empty(n)
    y = np.empty((2, n))
    lower = np.empty((n, n))
    free = np.empty(n, dtype=np.int64)
    is_free = np.empty(n, dtype=np.bool_)
    for p in range(n_pixels):
        s = totals[p]
        if not s > 0.0:
            continue
        first = 0
        lowest = np.inf
        for k in range(n):
            b[k] = products[p, k] / s
            a[k] = 0.0
            is_free[k] = False
            value = 0.5 * gram[k, k] - b[k]
            if value < lowest:
                lowest = value
                first = k
        a[first] = 1.0
        is_free[first] = True
        for _ in range(10 * n):
            # The slope is the same for all free components; one below it would grow.
            level = 0.0
            m = 0
            best = -1
            for k in range(n):
                if is_free[k]:
                    slope = -b[k]
                    for j in range(n):
                        slope += gram[k, j] * a[j]
                    level += slope
                    m += 1
            level /= m
            slope_of_best = level - tolerance
            for k in range(n):
                if not is_free[k]:
                    slope = -b[k]
                    for j in range(n):
                        slope += gram[k, j] * a[j]
                    if slope < slope_of_best:
                        slope_of_best = slope
                        best = k
            if best < 0:
                break
            is_free[best] = True
            stuck = False
            for _ in range(n + 1):
                m = 0
                for k in range(n):
                    if is_free[k]:
                        free[m] = k
                        m += 1
                _on_free(gram, b, free, m, lower, y, z)
                length = 1.0
                for i in range(m):
                    k = free[i]
                    if z[k] <= 0.0:
                        length = min(length, a[k] / (a[k] - z[k]) if a[k] > z[k] else 0.0)
                if length == 1.0:
                    for k in range(n):
                        a[k] = z[k]
                    break
                for i in range(m):
                    k = free[i]
                    a[k] += length * (z[k] - a[k])
                    if z[k] <= 0.0 and a[k] <= 1e-15:
                        a[k] = 0.0
                        is_free[k] = False
                        stuck = stuck or (k == best and length == 0.0)
            if stuck:
                break
        total = 0.0
        for k in range(n):
            total += a[k]
        for k in range(n):
            loadings[p, k] = a[k] * s / total
