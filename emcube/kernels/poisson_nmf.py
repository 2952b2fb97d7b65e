"""Poisson loadings of given components, pixel by pixel, over the counts that exist.

Letters: P pixels, E channels, K components. Components sum to one over the channels and loadings h carry
the counts, so that the expected counts of a pixel are mu_e = sum_k h_k S_ke.

For given components each pixel's loadings minimise a convex function of K numbers,

    f(h) = sum_k h_k - sum_e x_e log(sum_k h_k S_ke),   h >= 0,

which only the channels that hold counts enter. It is solved exactly here, from a start that depends on the
pixel and the components alone. A pass over the cube so gives the objective F(S) = min_H f and, by the
envelope theorem, its gradient, without any loadings being kept between passes.

References
----------
D. D. Lee, H. S. Seung, "Algorithms for non-negative matrix factorization", NIPS 13 (2001).
Q. Tran-Dinh, A. Kyrillidis, V. Cevher, "Composite self-concordant minimization", J. Mach. Learn. Res. 16
(2015) 371: damped proximal Newton steps of length 1 / (1 + lambda) always descend.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.rows import CountRows, rows_from_dense

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FLOOR",
    "PASS_TOLERANCE",
    "PoissonPass",
    "as_rows",
    "floored",
    "poisson_loadings",
    "poisson_pass",
]

FLOOR = 1e-12
"""Smallest value of a component (per channel): a count where no component has any would otherwise have the
probability zero and an infinite divergence."""

PASS_TOLERANCE = 1e-3
"""Squared Newton decrement (nats) at which a pass takes its last step: what is left after it is of the
order of the square, some 1e-6 nats a pixel, far below what the components can tell."""

EXACT_TOLERANCE = 1e-12
"""The same for loadings that are an answer."""

MAX_STEPS = 200


@dataclass(frozen=True)
class PoissonPass:
    """What a pass over some pixels tells about the components.

    Attributes
    ----------
    counts : ndarray, shape (K, E)
        Expected counts of each component in each channel, given the data:
        C_ke = sum_p x_pe h_pk S_ke / mu_pe. C / S is minus the gradient of the objective by S.
    loadings : ndarray, shape (K,)
        Sum of the loadings over the pixels.
    divergence : float
        sum x log(x / mu) - x + mu in nats: half the Poisson deviance.
    total : float
        Sum of all counts.
    square : float
        Sum of the squares of the pixels' counts; total^2 / square is the number of pixels that matter.
    n_steps : int
        Newton steps, over all pixels.
    """

    counts: NDArray[np.float64]
    loadings: NDArray[np.float64]
    divergence: float
    total: float
    square: float
    n_steps: int

    def __add__(self, other: PoissonPass) -> PoissonPass:
        return PoissonPass(
            self.counts + other.counts,
            self.loadings + other.loadings,
            self.divergence + other.divergence,
            self.total + other.total,
            self.square + other.square,
            self.n_steps + other.n_steps,
        )


def floored(components: NDArray[Any]) -> NDArray[np.float64]:
    """Components (K, E) without zeros and summing to one; NaN counts as zero."""
    values = np.maximum(np.nan_to_num(np.asarray(components, dtype=np.float64)), FLOOR)
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def as_rows(data: CountRows | NDArray[Any]) -> CountRows:
    """Compressed rows of a block, whatever its density.

    Non-negative floats are allowed (a scaled or corrected cube): their rows hold float64 values.
    """
    if isinstance(data, CountRows):
        return data
    if data.dtype.kind in "iub":
        rows = rows_from_dense(data)
        if rows is not None:
            return rows
    pixel, channel = np.nonzero(data)
    indptr = np.zeros(data.shape[0] + 1, dtype=np.int64)
    np.cumsum(np.bincount(pixel, minlength=data.shape[0]), out=indptr[1:])
    values = np.asarray(data[pixel, channel], dtype=np.float64)
    return CountRows(indptr, channel.astype(np.uint32), values, int(data.shape[1]))


def _start(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix (E, K) whose product with a pixel's counts is its weighted least-squares loadings.

    The weights are those of Poisson noise around the mean of the components.
    """
    weighted = components / components.mean(axis=0)
    gram = weighted @ components.T
    gram[np.diag_indices_from(gram)] *= 1.0 + 1e-8
    return np.ascontiguousarray(np.linalg.solve(gram, weighted).T)


def poisson_loadings(rows: CountRows, components: NDArray[Any]) -> NDArray[np.float64]:
    """Find the maximum-likelihood loadings of every pixel.

    Parameters
    ----------
    rows : CountRows, (P, E)
    components : ndarray, shape (K, E)
        Non-negative; each is taken to sum to one.

    Returns
    -------
    ndarray, shape (P, K)
        In counts; each pixel's sum is its number of counts. Zero where a pixel holds none.
    """
    components = floored(components)
    loadings = np.zeros((rows.n_pixels, len(components)))
    scrap = np.zeros((1, 1))
    _solve(
        rows.indptr,
        rows.channels,
        rows.counts,
        np.ascontiguousarray(components.T),
        _start(components),
        loadings,
        scrap,
        np.zeros(4),
        MAX_STEPS,
        EXACT_TOLERANCE,
        False,
    )
    return loadings


def poisson_pass(
    rows: CountRows, components: NDArray[Any], tolerance: float = PASS_TOLERANCE
) -> PoissonPass:
    """Solve all pixels and return the objective with its gradient.

    Parameters
    ----------
    rows : CountRows, (P, E)
    components : ndarray, shape (K, E)
    tolerance : float
        Squared Newton decrement at which a pixel takes its last step.
    """
    components = floored(components)
    loadings = np.zeros((rows.n_pixels, len(components)))
    ratio = np.zeros((rows.n_channels, len(components)))
    sums = np.zeros(4)
    _solve(
        rows.indptr,
        rows.channels,
        rows.counts,
        np.ascontiguousarray(components.T),
        _start(components),
        loadings,
        ratio,
        sums,
        MAX_STEPS,
        tolerance,
        True,
    )
    totals = loadings.sum(axis=0)
    counted = float(sums[2])
    return PoissonPass(
        ratio.T * components,
        totals,
        # Never below zero: where every pixel is fitted exactly only rounding is left.
        max(float(sums[0] + totals.sum() - counted), 0.0),
        counted,
        float(sums[3]),
        int(sums[1]),
    )


@jit
def _step(hessian, gradient, h, d, n, tolerance):
    """Minimise g.d + d.H.d / 2 with h + d >= 0 by coordinate descent (n is small)."""
    for k in range(n):
        d[k] = 0.0
    for _ in range(500):
        largest = 0.0
        for k in range(n):
            slope = gradient[k]
            for j in range(n):
                slope += hessian[k, j] * d[j]
            new = d[k] - slope / hessian[k, k]
            new = max(new, -h[k])
            change = new - d[k]
            d[k] = new
            change = change * change * hessian[k, k]
            largest = max(largest, change)
        if largest < tolerance:
            break


# Sums may be taken in another order and products fused: on one machine the bits stay the same, and the
# loops over a pixel's counts run several at a time. NaN and infinities keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


@jit(fastmath=_FAST)
def _terms(basis, x, h, n, n_components, ratio, weight, gradient, hessian):
    """Gradient and Hessian of a pixel's f at h; basis (K, n) are the components where it holds counts."""
    for i in range(n):
        ratio[i] = h[0] * basis[0, i]
    for k in range(1, n_components):
        hk = h[k]
        if hk != 0.0:
            for i in range(n):
                ratio[i] += hk * basis[k, i]
    for i in range(n):
        inverse = 1.0 / ratio[i]
        r = x[i] * inverse
        ratio[i] = r
        weight[i] = r * inverse
    for k in range(n_components):
        s = 0.0
        for i in range(n):
            s += ratio[i] * basis[k, i]
        gradient[k] = 1.0 - s
        for j in range(k + 1):
            s = 0.0
            for i in range(n):
                s += weight[i] * basis[k, i] * basis[j, i]
            hessian[k, j] = s
            hessian[j, k] = s
        # A component that is zero in all these channels: a tiny curvature sends its loading to zero.
        hessian[k, k] = hessian[k, k] * (1.0 + 1e-10) + 1e-290


@jit(fastmath=_FAST)
def _log_ratio(x, ratio, n):
    """Sum x log(x / mu), with ratio = x / mu; logarithms of single counts are taken of their product."""
    total = 0.0
    product = 1.0
    for i in range(n):
        if x[i] == 1.0:
            product *= ratio[i]
            if product > 1e200 or product < 1e-200:
                total += log(product)
                product = 1.0
        else:
            total += x[i] * log(ratio[i])
    return total + log(product)


@jit(fastmath=_FAST)
def _ratios(basis, x, h, n, n_components, ratio):
    for i in range(n):
        ratio[i] = h[0] * basis[0, i]
    for k in range(1, n_components):
        hk = h[k]
        if hk != 0.0:
            for i in range(n):
                ratio[i] += hk * basis[k, i]
    for i in range(n):
        ratio[i] = x[i] / ratio[i]


@jit
def _descend(basis, x, n, n_components, h, d, g, hessian, r, w, max_steps, tolerance, concordance):
    """Damped Newton steps to the minimum; returns their number. `h` must be positive at first."""
    for step in range(max_steps):
        _terms(basis, x, h, n, n_components, r, w, g, hessian)
        _step(hessian, g, h, d, n_components, tolerance * 1e-2)
        decrement = 0.0
        for k in range(n_components):
            v = 0.0
            for j in range(n_components):
                v += hessian[k, j] * d[j]
            decrement += v * d[k]
        decrement = max(decrement, 0.0)
        length = 1.0
        # A full step is safe where lambda times the constant of self-concordance is well below one.
        if decrement * concordance * concordance >= 0.25:
            length = 1.0 / (1.0 + concordance * sqrt(decrement))
        for k in range(n_components):
            h[k] = max(h[k] + length * d[k], 0.0)
        if decrement < tolerance and length == 1.0:
            return step + 1
    return max_steps


@jit
def _solve(
    indptr,
    channels,
    counts,
    basis,
    start,
    loadings,
    gradient,
    sums,
    max_steps,
    tolerance,
    statistic,
):
    """Solve each pixel; with `statistic` add to gradient (E, K) and to sums.

    The sums are: x log(x / mu), steps, counts, squared pixel counts.
    """
    n_components = basis.shape[1]
    longest = 1
    for p in range(indptr.size - 1):
        longest = max(longest, indptr[p + 1] - indptr[p])
    local = np.empty((n_components, longest))
    x = np.empty(longest)
    r = np.empty(longest)
    w = np.empty(longest)
    h = np.empty(n_components)
    g = np.empty(n_components)
    d = np.empty(n_components)
    hessian = np.empty((n_components, n_components))
    for p in range(indptr.size - 1):
        first = indptr[p]
        n = indptr[p + 1] - first
        if n == 0:
            continue
        total = 0.0
        least = 1.0
        for k in range(n_components):
            h[k] = 0.0
        for i in range(n):
            e = channels[first + i]
            count = float(counts[first + i])
            x[i] = count
            total += count
            least = min(least, count)
            for k in range(n_components):
                local[k, i] = basis[e, k]
                h[k] += count * start[e, k]
        level = 0.0
        for k in range(n_components):
            h[k] = max(h[k], 0.01 * total)
            level += h[k]
        for k in range(n_components):
            h[k] *= total / level
        # Terms x log(.) are self-concordant with the constant 1 / sqrt(x): one for counts.
        steps = _descend(
            local,
            x,
            n,
            n_components,
            h,
            d,
            g,
            hessian,
            r,
            w,
            max_steps,
            tolerance,
            1.0 / sqrt(least),
        )
        # At the minimum the loadings sum to the counts; along the ray through h that is a step down.
        level = 0.0
        for k in range(n_components):
            level += h[k]
        for k in range(n_components):
            h[k] *= total / level
            loadings[p, k] = h[k]
        if statistic:
            _ratios(local, x, h, n, n_components, r)
            for i in range(n):
                e = channels[first + i]
                for k in range(n_components):
                    gradient[e, k] += h[k] * r[i]
            sums[0] += _log_ratio(x, r, n)
            sums[1] += steps
            sums[2] += total
            sums[3] += total * total
