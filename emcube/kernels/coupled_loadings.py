"""Loadings of given components under penalties: few components in a pixel, and neighbours that are alike.

Letters: P pixels, E channels, K components, N neighbours of a pixel at most. For given components S the
pixels of a block minimise together

    sum_p [ d(x_p, h_p S) + R(h_p) ] + tau / 2 sum_pq |a_p - a_q|^2,    h >= 0,

with d the Kullback-Leibler divergence or half the squared distance, q the neighbours of p, and a = h / g,
where g is the pixel's own number of counts under closure (sum_k h_pk = g_p) and one otherwise. R is
lambda sum_k log(1 + h_k / (eps g)) for counts and lambda sum_k h_k for least squares.

With S given this is convex but for the logarithm of R, which is replaced by its tangent again and again
(reweighting). Pixels are solved one after the other in a fixed order, each with what its neighbours are now
(Gauss and Seidel), by the damped Newton steps of `emcube.kernels.poisson_nmf`, until none moves. The start is
the answer without penalties, so that everything depends on the block, S and what is fixed outside alone.

References
----------
E. J. Candes, M. B. Wakin, S. P. Boyd, "Enhancing sparsity by reweighted l1 minimization", J. Fourier Anal.
Appl. 14 (2008) 877. https://doi.org/10.1007/s00041-008-9045-x
A. Teurtrie et al., "espm: A Python library for the simulation of STEM-EDXS datasets", Ultramicroscopy 249
(2023) 113719. https://doi.org/10.1016/j.ultramic.2023.113719
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.frobenius_nmf import FrobeniusPass, frobenius_loadings, pieces
from emcube.kernels.poisson_nmf import (
    EXACT_TOLERANCE,
    FAST,
    LANES,
    PASS_TOLERANCE,
    TILE,
    PoissonPass,
    as_rows,
    bounded_step,
    component_table,
    floored,
    gather_pixel,
    pixel_statistic,
    poisson_loadings,
)
from emcube.kernels.products import gram_of
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SHARE",
    "Coupling",
    "coupled_frobenius",
    "coupled_poisson",
    "penalty_of",
]

SHARE = 0.01
"""Share of a pixel's counts at which the logarithm bends: far below it a component counts as absent."""

STIFF = 1e6
"""Under closure the sum of the loadings is held by a spring so many times stiffer than the data; what it
gives way, a millionth, is taken back at the end."""

SWEEPS = 400
"""Gauss-Seidel sweeps over a block, at most."""


@dataclass(frozen=True, eq=False)
class Coupling:
    """What is asked of the loadings of a block besides describing its data.

    Attributes
    ----------
    sparsity : float
        Weight of R, in the units of the loss.
    smoothness : float
        tau: weight of half the squared difference of two neighbours.
    closed : bool
        The loadings of a pixel sum to its counts, and a = h / g.
    near : ndarray of int, shape (P, N)
        Neighbours of each pixel within the block; -1 where there is none.
    pull : ndarray, shape (P, K)
        Sum over neighbours outside the block of what they pull to, times 2.
    weight : ndarray, shape (P,)
        Number of those neighbours, times 2.

    Notes
    -----
    A neighbour outside the block is not moved here. |a_p - a_q|^2 <= 2 |a_p - m|^2 + 2 |a_q - m|^2 for every
    m, with equality at the middle: both sides may move towards the old middle at once, and the sum never
    rises (A. R. De Pierro, IEEE Trans. Med. Imaging 14 (1995) 132, https://doi.org/10.1109/42.370409).
    """

    sparsity: float
    smoothness: float
    closed: bool
    near: NDArray[np.int64]
    pull: NDArray[np.float64]
    weight: NDArray[np.float64]

    @classmethod
    def apart(
        cls, n_pixels: int, n_components: int, sparsity: float, *, closed: bool = False
    ) -> Coupling:
        """No neighbours."""
        return cls(
            sparsity,
            0.0,
            closed,
            np.full((n_pixels, 1), -1, dtype=np.int64),
            np.zeros((n_pixels, n_components)),
            np.zeros(n_pixels),
        )


def penalty_of(
    loadings: NDArray[np.float64], scale: NDArray[np.float64], coupling: Coupling, *, counts: bool
) -> float:
    """R and the smoothness within a block, of loadings (P, K) with each pixel's g (P,)."""
    total = 0.0
    if coupling.sparsity:
        if counts:
            level = SHARE * np.where(scale > 0.0, scale, 1.0)[:, None]
            total += coupling.sparsity * float(np.log1p(loadings / level).sum())
        else:
            total += coupling.sparsity * float(loadings.sum())
    if coupling.smoothness:
        shares = _abundances(loadings, scale, closed=coupling.closed)
        for column in coupling.near.T:
            own = np.flatnonzero(column >= 0)
            apart = shares[own] - shares[column[own]]
            # Each pair is met from both sides.
            total += 0.25 * coupling.smoothness * float(np.vdot(apart, apart))
    return total


def _abundances(
    loadings: NDArray[np.float64], scale: NDArray[np.float64], *, closed: bool
) -> NDArray[np.float64]:
    return loadings / np.where(scale > 0.0, scale, 1.0)[:, None] if closed else loadings


def coupled_poisson(
    data: CountRows | NDArray[Any],
    components: NDArray[Any],
    coupling: Coupling,
    *,
    exact: bool = False,
) -> tuple[NDArray[np.float64], PoissonPass, float]:
    """Solve the pixels of a block for the largest penalised likelihood.

    Parameters
    ----------
    data : CountRows or ndarray, (P, E)
    components : ndarray, shape (K, E)
        Non-negative; each is taken to sum to one.
    coupling : Coupling
    exact : bool
        Go on until nothing moves; else as far as a pass over the data needs it.

    Returns
    -------
    loadings : ndarray, shape (P, K)
    found : PoissonPass
        Its divergence is that of the data alone.
    penalty : float
        Within the block.
    """
    rows = as_rows(data)
    components = floored(components)
    k = len(components)
    scale = np.asarray(rows.pixel_totals(), dtype=np.float64)
    loadings = poisson_loadings(rows, components, EXACT_TOLERANCE if exact else PASS_TOLERANCE)
    tiles = np.zeros((-(-k // TILE), rows.n_channels, TILE))
    sums = np.zeros(3)
    _poisson(
        rows.indptr,
        rows.channels,
        rows.counts,
        component_table(components),
        scale,
        loadings,
        coupling.near,
        coupling.pull,
        coupling.weight,
        coupling.sparsity,
        coupling.smoothness,
        coupling.closed,
        1e-11 if exact else 1e-7,
        exact and coupling.smoothness == 0.0,
        SWEEPS,
        tiles,
        sums,
    )
    ratio = tiles.transpose(0, 2, 1).reshape(-1, rows.n_channels)[:k]
    counted = float(scale.sum())
    found = PoissonPass(
        ratio * components,
        loadings.sum(axis=0),
        max(float(sums[0] + loadings.sum() - counted), 0.0),
        counted,
        float(scale @ scale),
        int(sums[1]),
    )
    return loadings, found, penalty_of(loadings, scale, coupling, counts=True)


def coupled_frobenius(
    data: CountRows | NDArray[Any],
    components: NDArray[Any],
    coupling: Coupling,
    *,
    exact: bool = False,
) -> tuple[NDArray[np.float64], FrobeniusPass, float]:
    """Solve the pixels of a block for the least penalised squares; otherwise as `coupled_poisson`."""
    components = np.nan_to_num(np.asarray(components, dtype=np.float64))
    gram = gram_of(components)
    n_pixels = int(data.shape[0])
    products = np.empty((n_pixels, len(components)))
    square = 0.0
    for first, part in pieces(data):
        if isinstance(part, CountRows):
            products[first : first + part.shape[0]] = part.matmul(components.T)
            square += float(np.square(part.counts, dtype=np.float64).sum())
        else:
            products[first : first + part.shape[0]] = part @ components.T
            square += float(np.vdot(part, part))
    loadings = frobenius_loadings(data, components)
    _frobenius(
        products,
        gram,
        loadings,
        coupling.near,
        coupling.pull,
        coupling.weight,
        coupling.sparsity,
        coupling.smoothness,
        1e-12 if exact else 1e-8,
        SWEEPS,
    )
    crossed = np.zeros(components.shape)
    for first, part in pieces(data):
        own = loadings[first : first + part.shape[0]]
        crossed += part.rmatmul(own) if isinstance(part, CountRows) else own.T @ part
    both = loadings.T @ loadings
    fitted = float((loadings * products).sum() - 0.5 * (both * gram).sum())
    found = FrobeniusPass(crossed, both, loadings.sum(axis=0), square, fitted, n_pixels)
    return loadings, found, penalty_of(loadings, np.ones(n_pixels), coupling, counts=False)


@jit(**FAST)
def _pulled(p, h, near, pull, weight, smoothness, by, linear, quadratic):
    """Add the pull of a pixel's neighbours to its linear and quadratic terms; h is divided by `by`."""
    if smoothness == 0.0:
        return
    n_components = h.shape[1]
    strength = smoothness / (by[p] * by[p])
    n = weight[p]
    for k in range(n_components):
        linear[k] -= smoothness * pull[p, k] / by[p]
    for j in range(near.shape[1]):
        q = near[p, j]
        if q >= 0:
            n += 1.0
            for k in range(n_components):
                linear[k] -= smoothness * h[q, k] / (by[p] * by[q])
    for k in range(n_components):
        quadratic[k] += strength * n


@jit(**FAST)
def _data_slope(basis, x, padded, n_components, h, r, w, g, hessian):
    """Gradient and Hessian of -sum x log mu by the loadings of one pixel."""
    for i in range(padded):
        r[i] = h[0] * basis[0, i]
    for k in range(1, n_components):
        hk = h[k]
        if hk != 0.0:
            for i in range(padded):
                r[i] += hk * basis[k, i]
    for i in range(padded):
        over = 1.0 / r[i]
        ratio = x[i] * over
        r[i] = ratio
        w[i] = ratio * over
    for k in range(n_components):
        slope = 0.0
        for i in range(padded):
            slope += r[i] * basis[k, i]
        g[k] = -slope
    for a in range(n_components):
        for i in range(padded):
            r[i] = w[i] * basis[a, i]
        for b in range(a + 1):
            s = 0.0
            for i in range(padded):
                s += r[i] * basis[b, i]
            hessian[a, b] = s
            hessian[b, a] = s


@jit(**FAST)
def _kept_step(
    h,
    g,
    hessian,
    n_components,
    closed,
    tolerance,
    concordance,
    kept,
    gk,
    hk,
    hess,
    d,
    y,
    inverse,
    lower,
    free,
    clamped,
):
    """One damped Newton step on h (K,) with h >= 0; returns the squared Newton decrement.

    A loading that is zero and would fall is left out of the step; not under closure, where it may have to
    rise because others fall.
    """
    m = 0
    for k in range(n_components):
        if closed or h[k] > 0.0 or g[k] < 0.0:
            kept[m] = k
            gk[m] = g[k]
            hk[m] = h[k]
            m += 1
    if m == 0:
        return 0.0
    for a in range(m):
        for b in range(m):
            hess[a, b] = hessian[kept[a], kept[b]]
        hess[a, a] = hess[a, a] * (1.0 + 1e-10) + 1e-290
    bounded_step(hess, gk, hk, d, m, tolerance * 1e-2, y, inverse, lower, free, clamped)
    decrement = 0.0
    for a in range(m):
        v = 0.0
        for b in range(m):
            v += hess[a, b] * d[b]
        decrement += v * d[a]
    decrement = max(decrement, 0.0)
    length = 1.0
    if decrement * concordance * concordance >= 0.25:
        length = 1.0 / (1.0 + concordance * sqrt(decrement))
    for a in range(m):
        h[kept[a]] = max(hk[a] + length * d[a], 0.0)
    return decrement


@jit(error_model="numpy")
def _poisson(
    indptr,
    channels,
    counts,
    table,
    scale,
    loadings,
    near,
    pull,
    weight,
    sparsity,
    smoothness,
    closed,
    tolerance,
    to_the_end,
    max_sweeps,
    tiles,
    sums,
):
    """Sweep until the mean squared decrement of a pixel is below the tolerance (`to_the_end`: until that of
    every pixel is far below it); then add the statistic.

    The sums are: x log(x / mu), Newton steps, sweeps.
    """
    n_pixels, n_components = loadings.shape
    longest = LANES
    for p in range(n_pixels):
        longest = max(longest, indptr[p + 1] - indptr[p])
    longest = (longest + LANES - 1) // LANES * LANES
    basis = np.empty((n_components, longest))
    at = np.empty(longest, dtype=np.int64)
    x = np.empty(longest)
    r = np.empty(longest)
    w = np.empty(longest)
    start = np.zeros((n_components + TILE - 1) // TILE * TILE)
    h = np.zeros((n_components + TILE - 1) // TILE * TILE)
    linear = np.empty(n_components)
    quadratic = np.empty(n_components)
    g = np.empty(n_components)
    hessian = np.empty((n_components, n_components))
    kept = np.empty(n_components, dtype=np.int64)
    gk = np.empty(n_components)
    hk = np.empty(n_components)
    hess = np.empty((n_components, n_components))
    d = np.empty(n_components)
    y = np.empty(n_components)
    inverse = np.empty(n_components)
    lower = np.empty((n_components, n_components))
    free = np.empty(n_components, dtype=np.int64)
    clamped = np.empty(n_components, dtype=np.int64)
    by = np.ones(n_pixels)
    if closed:
        for p in range(n_pixels):
            by[p] = scale[p] if scale[p] > 0.0 else 1.0
    moved = np.ones(n_pixels)
    logs = np.array([0.0, 1.0])
    for sweep in range(max_sweeps):
        total = 0.0
        largest = 0.0
        for p in range(n_pixels):
            # Where neither the pixel nor a neighbour has moved lately there is nothing to do.
            stirred = moved[p]
            for j in range(near.shape[1]):
                if near[p, j] >= 0:
                    stirred = max(stirred, moved[near[p, j]])
            if sweep > 0 and stirred < 0.01 * tolerance:
                moved[p] = 0.0
                continue
            first = indptr[p]
            n = indptr[p + 1] - first
            if n == 0 and (closed or smoothness == 0.0):
                moved[p] = 0.0
                continue
            padded = (n + LANES - 1) // LANES * LANES
            least = 1.0
            if n > 0:
                gather_pixel(
                    channels, counts, first, n, padded, table, n_components, at, x, basis, start
                )
                for i in range(n):
                    least = min(least, x[i])
            for k in range(n_components):
                h[k] = loadings[p, k]
            # A pixel with counts that its neighbours have emptied starts anew.
            level = 0.0
            for k in range(n_components):
                level += h[k]
            if n > 0 and level <= 0.0:
                for k in range(n_components):
                    h[k] = start[k]
            inner = 3 if sweep == 0 else 1
            decrement = 0.0
            for _ in range(inner):
                if n > 0:
                    _data_slope(basis, x, padded, n_components, h, r, w, g, hessian)
                else:
                    for k in range(n_components):
                        g[k] = 0.0
                        for j in range(n_components):
                            hessian[k, j] = 0.0
                for k in range(n_components):
                    linear[k] = 1.0
                    quadratic[k] = 0.0
                    if sparsity > 0.0:
                        linear[k] += sparsity / (
                            h[k] + SHARE * (scale[p] if scale[p] > 0.0 else 1.0)
                        )
                _pulled(p, loadings, near, pull, weight, smoothness, by, linear, quadratic)
                if closed:
                    stiff = STIFF / scale[p]
                    excess = -scale[p]
                    for k in range(n_components):
                        excess += h[k]
                    for k in range(n_components):
                        linear[k] += stiff * excess
                        for j in range(n_components):
                            hessian[k, j] += stiff
                for k in range(n_components):
                    g[k] += linear[k] + quadratic[k] * h[k]
                    hessian[k, k] += quadratic[k]
                if closed:
                    # Where the sum is held all slopes may be shifted alike: by Lagrange's multiplier, so that
                    # they vanish at the end and the spring has nothing to hold.
                    level = 0.0
                    multiplier = 0.0
                    for k in range(n_components):
                        level += h[k]
                        multiplier += h[k] * g[k]
                    for k in range(n_components):
                        g[k] -= multiplier / level
                decrement = _kept_step(
                    h,
                    g,
                    hessian,
                    n_components,
                    closed,
                    tolerance,
                    1.0 / sqrt(least),
                    kept,
                    gk,
                    hk,
                    hess,
                    d,
                    y,
                    inverse,
                    lower,
                    free,
                    clamped,
                )
                sums[1] += 1.0
                if decrement < 0.01 * tolerance:
                    break
            if closed:
                level = 0.0
                for k in range(n_components):
                    level += h[k]
                for k in range(n_components):
                    h[k] *= scale[p] / level
            for k in range(n_components):
                loadings[p, k] = h[k]
            moved[p] = decrement
            total += decrement
            largest = max(largest, decrement)
        sums[2] += 1.0
        if to_the_end:
            # Each pixel ends by itself: without neighbours its answer is the same in any block.
            if largest < 0.01 * tolerance:
                break
        elif total < tolerance * n_pixels:
            break
    for p in range(n_pixels):
        first = indptr[p]
        n = indptr[p + 1] - first
        if n == 0:
            continue
        padded = (n + LANES - 1) // LANES * LANES
        gather_pixel(channels, counts, first, n, padded, table, n_components, at, x, basis, start)
        for k in range(n_components):
            h[k] = loadings[p, k]
        pixel_statistic(at, n, padded, x, basis, h, n_components, r, w, tiles, logs)
    sums[0] += logs[0] + np.log(logs[1])


@jit(error_model="numpy")
def _frobenius(
    products, gram, loadings, near, pull, weight, sparsity, smoothness, tolerance, max_sweeps
):
    """Sweep until the largest change of a pixel's loadings is a small share of the largest loading."""
    n_pixels, n_components = loadings.shape
    linear = np.empty(n_components)
    quadratic = np.empty(n_components)
    zero = np.zeros(n_components)
    g = np.empty(n_components)
    hessian = np.empty((n_components, n_components))
    d = np.empty(n_components)
    y = np.empty(n_components)
    inverse = np.empty(n_components)
    lower = np.empty((n_components, n_components))
    free = np.empty(n_components, dtype=np.int64)
    clamped = np.empty(n_components, dtype=np.int64)
    by = np.ones(n_pixels)
    scale = 1e-300
    for p in range(n_pixels):
        for k in range(n_components):
            scale = max(scale, loadings[p, k])
    for _ in range(max_sweeps):
        change = 0.0
        for p in range(n_pixels):
            for k in range(n_components):
                linear[k] = sparsity
                quadratic[k] = 0.0
            _pulled(p, loadings, near, pull, weight, smoothness, by, linear, quadratic)
            for k in range(n_components):
                g[k] = linear[k] - products[p, k]
                for j in range(n_components):
                    hessian[k, j] = gram[k, j]
                hessian[k, k] = hessian[k, k] * (1.0 + 1e-12) + quadratic[k] + 1e-290
            bounded_step(hessian, g, zero, d, n_components, 1e-26, y, inverse, lower, free, clamped)
            for k in range(n_components):
                new = max(d[k], 0.0)
                change = max(change, abs(new - loadings[p, k]))
                loadings[p, k] = new
        if change <= tolerance * scale:
            break
