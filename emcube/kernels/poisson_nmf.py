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
    "EXACT_TOLERANCE",
    "FAST",
    "FLOOR",
    "LANES",
    "PASS_TOLERANCE",
    "TILE",
    "PoissonPass",
    "as_rows",
    "bounded_step",
    "component_table",
    "floored",
    "gather_pixel",
    "pixel_statistic",
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

LANES = 8
"""The entries of a pixel are filled up to a multiple of this, so that whole vectors are computed."""


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

    @property
    def objective(self) -> float:
        """What passes lower: the divergence."""
        return self.divergence

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


def poisson_loadings(
    rows: CountRows, components: NDArray[Any], tolerance: float = EXACT_TOLERANCE
) -> NDArray[np.float64]:
    """Find the maximum-likelihood loadings of every pixel.

    Parameters
    ----------
    rows : CountRows, (P, E)
    components : ndarray, shape (K, E)
        Non-negative; each is taken to sum to one.
    tolerance : float
        Squared Newton decrement at which a pixel takes its last step.

    Returns
    -------
    ndarray, shape (P, K)
        In counts; each pixel's sum is its number of counts. Zero where a pixel holds none.
    """
    components = floored(components)
    loadings = np.zeros((rows.n_pixels, len(components)))
    _solve(
        rows.indptr,
        rows.channels,
        rows.counts,
        component_table(components),
        loadings,
        np.zeros((1, 1, TILE)),
        np.zeros(4),
        MAX_STEPS,
        tolerance,
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
    k = len(components)
    totals = np.zeros((1, k))
    tiles = np.zeros((-(-k // TILE), rows.n_channels, TILE))
    sums = np.zeros(4)
    _solve(
        rows.indptr,
        rows.channels,
        rows.counts,
        component_table(components),
        totals,
        tiles,
        sums,
        MAX_STEPS,
        tolerance,
        True,
    )
    ratio = tiles.transpose(0, 2, 1).reshape(-1, rows.n_channels)[:k]
    counted = float(sums[2])
    return PoissonPass(
        ratio * components,
        totals[0],
        # Never below zero: where every pixel is fitted exactly only rounding is left.
        max(float(sums[0] + totals.sum() - counted), 0.0),
        counted,
        float(sums[3]),
        int(sums[1]),
    )


TILE = 4
"""Components whose statistics lie side by side, as one vector."""


def component_table(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Components and start (`_start`), three of each side by side: (K / 3, E, 6), filled up by zeros."""
    k, n_channels = components.shape
    table = np.zeros((-(-k // 3) * 3, 2, n_channels))
    table[:k, 0] = components
    table[:k, 1] = _start(components).T
    tiles = table.reshape(-1, 3, 2, n_channels).transpose(0, 3, 2, 1)
    return np.ascontiguousarray(tiles).reshape(-1, n_channels, 6)


# What makes these loops fast: sums may be taken in another order and products fused (on one machine the
# bits stay the same; NaN and infinities keep their meaning); a division by zero gives infinity, since a
# test for it would forbid vectors; and references to arrays are not counted (these functions make none),
# which would take an atomic for each argument of each call.
FAST: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "error_model": "numpy",
    "_nrt": False,
}


@jit(**FAST)
def gather_pixel(channels, counts, first, n, padded, table, n_components, at, x, basis, h):
    """Load a pixel: counts, the components where it holds any, and its start; returns its sum of counts.

    Entries beyond n hold no counts and ones as components.
    """
    total = 0.0
    start = np.uint64(first)
    for i in range(n):
        at[i] = channels[start + np.uint64(i)]
        count = float(counts[start + np.uint64(i)])
        x[i] = count
        total += count
    for i in range(n, padded):
        x[i] = 0.0
    for k in range(n_components):
        for i in range(n, padded):
            basis[k, i] = 1.0
    for t in range(table.shape[0]):
        k = 3 * t
        sum0 = 0.0
        sum1 = 0.0
        sum2 = 0.0
        if k + 2 < n_components:
            for i in range(n):
                e = at[i]
                count = x[i]
                basis[k, i] = table[t, e, 0]
                basis[k + 1, i] = table[t, e, 1]
                basis[k + 2, i] = table[t, e, 2]
                sum0 += count * table[t, e, 3]
                sum1 += count * table[t, e, 4]
                sum2 += count * table[t, e, 5]
            h[k + 1] = sum1
            h[k + 2] = sum2
        elif k + 1 < n_components:
            for i in range(n):
                e = at[i]
                count = x[i]
                basis[k, i] = table[t, e, 0]
                basis[k + 1, i] = table[t, e, 1]
                sum0 += count * table[t, e, 3]
                sum1 += count * table[t, e, 4]
            h[k + 1] = sum1
        else:
            for i in range(n):
                e = at[i]
                basis[k, i] = table[t, e, 0]
                sum0 += x[i] * table[t, e, 3]
        h[k] = sum0
    level = 0.0
    for k in range(n_components):
        h[k] = max(h[k], 0.01 * total)
        level += h[k]
    level = total / level
    for k in range(n_components):
        h[k] *= level
    return total


@jit(**FAST)
def bounded_step(hessian, g, h, d, n, tolerance, y, inverse, lower, free, clamped):
    """Minimise g.d + d.H.d / 2 with h + d >= 0 (n is small).

    By closed forms for one and two unknowns. For more, unknowns that the solution takes below their bound are
    clamped to it, and let go where the slope says so, until nothing changes; should that go in circles,
    by coordinate descent.
    """
    if n == 1:
        d[0] = max(-g[0] / hessian[0, 0], -h[0])
        return
    if n == 2:
        p = hessian[0, 0]
        q = hessian[0, 1]
        s = hessian[1, 1]
        det = p * s - q * q
        if det > 1e-9 * p * s:
            d0 = (q * g[1] - s * g[0]) / det
            d1 = (q * g[0] - p * g[1]) / det
            if d0 < -h[0] or d1 < -h[1]:
                # One of them is at its bound; the slope there tells which.
                d0 = -h[0]
                d1 = max((-g[1] - q * d0) / s, -h[1])
                if g[0] + p * d0 + q * d1 < 0.0:
                    d1 = -h[1]
                    d0 = max((-g[0] - q * d1) / p, -h[0])
            d[0] = d0
            d[1] = d1
            return
    for k in range(n):
        clamped[k] = 0
    for _ in range(6):
        m = 0
        for k in range(n):
            if clamped[k]:
                d[k] = -h[k]
            else:
                free[m] = k
                m += 1
        for a in range(m):
            i = free[a]
            value = -g[i]
            if m < n:
                for k in range(n):
                    if clamped[k]:
                        value += hessian[i, k] * h[k]
            for b in range(a):
                t = hessian[i, free[b]]
                for c in range(b):
                    t -= lower[a, c] * lower[b, c]
                t *= inverse[b]
                lower[a, b] = t
                value -= t * y[b]
            t = hessian[i, i]
            for c in range(a):
                t -= lower[a, c] * lower[a, c]
            t = 1.0 / sqrt(max(t, 1e-13 * hessian[i, i]))
            inverse[a] = t
            y[a] = value * t
        changed = False
        for back in range(m):
            a = m - 1 - back
            value = y[a]
            for b in range(a + 1, m):
                value -= lower[b, a] * y[b]
            value *= inverse[a]
            y[a] = value
            i = free[a]
            d[i] = value
            if h[i] + value < 0.0:
                clamped[i] = 1
                changed = True
        if not changed and m < n:
            for k in range(n):
                if clamped[k]:
                    slope = g[k]
                    for j in range(n):
                        slope += hessian[k, j] * d[j]
                    if slope < 0.0:
                        clamped[k] = 0
                        changed = True
        if not changed:
            return
    for k in range(n):
        d[k] = max(d[k], -h[k])
    for _ in range(500):
        largest = 0.0
        for k in range(n):
            slope = g[k]
            for j in range(n):
                slope += hessian[k, j] * d[j]
            new = max(d[k] - slope / hessian[k, k], -h[k])
            change = new - d[k]
            d[k] = new
            largest = max(largest, change * change * hessian[k, k])
        if largest < tolerance:
            break


@jit(**FAST)
def _expected(basis, h, n, n_components, mu):
    """Write mu = sum_k h_k basis_k."""
    for i in range(n):
        mu[i] = h[0] * basis[0, i]
    for k in range(1, n_components):
        hk = h[k]
        if hk != 0.0:
            for i in range(n):
                mu[i] += hk * basis[k, i]


@jit(**FAST)
def _descend(
    basis,
    x,
    n,
    n_components,
    h,
    r,
    w,
    g,
    held,
    d,
    y,
    inverse,
    kept,
    free,
    clamped,
    hessian,
    lower,
    max_steps,
    tolerance,
    concordance,
):
    """Damped Newton steps to the minimum; returns their number. `h` must be positive at first.

    A loading that is zero and would fall is left out of the step.
    """
    for step in range(max_steps):
        _expected(basis, h, n, n_components, r)
        for i in range(n):
            over = 1.0 / r[i]
            ratio = x[i] * over
            r[i] = ratio
            w[i] = ratio * over
        m = 0
        for k in range(n_components):
            slope = 0.0
            for i in range(n):
                slope += r[i] * basis[k, i]
            slope = 1.0 - slope
            if h[k] > 0.0 or slope < 0.0:
                kept[m] = k
                g[m] = slope
                held[m] = h[k]
                m += 1
        for a in range(m):
            k = kept[a]
            for i in range(n):
                r[i] = w[i] * basis[k, i]
            for b in range(a + 1):
                j = kept[b]
                s = 0.0
                for i in range(n):
                    s += r[i] * basis[j, i]
                hessian[a, b] = s
                hessian[b, a] = s
            # A component that is zero in all these channels: a tiny curvature sends its loading to zero.
            hessian[a, a] = hessian[a, a] * (1.0 + 1e-10) + 1e-290
        bounded_step(hessian, g, held, d, m, tolerance * 1e-2, y, inverse, lower, free, clamped)
        decrement = 0.0
        for a in range(m):
            v = 0.0
            for b in range(m):
                v += hessian[a, b] * d[b]
            decrement += v * d[a]
        decrement = max(decrement, 0.0)
        length = 1.0
        # A full step is safe where lambda times the constant of self-concordance is well below one.
        if decrement * concordance * concordance >= 0.25:
            length = 1.0 / (1.0 + concordance * sqrt(decrement))
        for a in range(m):
            h[kept[a]] = max(held[a] + length * d[a], 0.0)
        if decrement < tolerance and length == 1.0:
            return step + 1
    return max_steps


@jit(**FAST)
def pixel_statistic(at, n, padded, x, basis, h, n_components, r, w, tiles, logs):
    """Add a pixel's x h_k / mu to the tiles (K / 4, E, 4), and x log(x / mu) to the logarithms.

    Those of small counts are taken of their product: `logs` holds a sum of logarithms, and a product of
    which the logarithm is still to be taken.
    """
    _expected(basis, h, padded, n_components, r)
    for i in range(padded):
        r[i] = x[i] / r[i]
    for t in range(tiles.shape[0]):
        h0 = h[TILE * t]
        h1 = h[TILE * t + 1]
        h2 = h[TILE * t + 2]
        h3 = h[TILE * t + 3]
        for i in range(n):
            e = at[i]
            v = r[i]
            s0 = tiles[t, e, 0] + h0 * v
            s1 = tiles[t, e, 1] + h1 * v
            s2 = tiles[t, e, 2] + h2 * v
            s3 = tiles[t, e, 3] + h3 * v
            tiles[t, e, 0] = s0
            tiles[t, e, 1] = s1
            tiles[t, e, 2] = s2
            tiles[t, e, 3] = s3
    rare = 0
    for i in range(padded):
        v = r[i]
        count = x[i]
        bits = np.int32(min(count, 8.0))
        usual = (count == bits) & (bits < 8)
        rare += not usual
        v2 = v * v
        power = v if bits & 1 else 1.0
        power *= v2 if bits & 2 else 1.0
        power *= v2 * v2 if bits & 4 else 1.0
        r[i] = power if usual else 1.0
        w[i] = 1.0 if usual else v
    if rare > 0:
        for i in range(n):
            if w[i] != 1.0:
                logs[0] += x[i] * log(w[i])
    product = logs[1]
    for i in range(0, padded, LANES):
        low = (r[i] * r[i + 1]) * (r[i + 2] * r[i + 3])
        high = (r[i + 4] * r[i + 5]) * (r[i + 6] * r[i + 7])
        powers = low * high
        if powers > 1e100 or powers < 1e-100:
            for j in range(i, i + LANES):
                logs[0] += log(r[j])
        else:
            product *= powers
            if product > 1e200 or product < 1e-200:
                logs[0] += log(product)
                product = 1.0
    logs[1] = product


@jit(error_model="numpy")
def _solve(indptr, channels, counts, table, loadings, tiles, sums, max_steps, tolerance, statistic):
    """Solve each pixel; with `statistic` add to tiles, to sums and to the one row of loadings.

    The sums are: x log(x / mu), steps, counts, squared pixel counts.
    """
    n_components = loadings.shape[1]
    longest = 1
    for p in range(indptr.size - 1):
        longest = max(longest, indptr[p + 1] - indptr[p])
    longest = (longest + LANES - 1) // LANES * LANES
    basis = np.empty((n_components, longest))
    at = np.empty(longest, dtype=np.int64)
    x = np.empty(longest)
    r = np.empty(longest)
    w = np.empty(longest)
    h = np.zeros((n_components + TILE - 1) // TILE * TILE)
    g = np.empty(n_components)
    held = np.empty(n_components)
    d = np.empty(n_components)
    y = np.empty(n_components)
    inverse = np.empty(n_components)
    kept = np.empty(n_components, dtype=np.int64)
    free = np.empty(n_components, dtype=np.int64)
    clamped = np.empty(n_components, dtype=np.int64)
    hessian = np.empty((n_components, n_components))
    lower = np.empty((n_components, n_components))
    logs = np.array([0.0, 1.0])
    for p in range(indptr.size - 1):
        first = indptr[p]
        n = indptr[p + 1] - first
        if n == 0:
            continue
        padded = (n + LANES - 1) // LANES * LANES
        total = gather_pixel(
            channels, counts, first, n, padded, table, n_components, at, x, basis, h
        )
        least = 1.0
        for i in range(n):
            if x[i] < least:
                least = x[i]
        # Terms x log(.) are self-concordant with the constant 1 / sqrt(x): one for counts.
        steps = _descend(
            basis,
            x,
            padded,
            n_components,
            h,
            r,
            w,
            g,
            held,
            d,
            y,
            inverse,
            kept,
            free,
            clamped,
            hessian,
            lower,
            max_steps,
            tolerance,
            1.0 / sqrt(least),
        )
        # At the minimum the loadings sum to the counts; along the ray through h that is a step down.
        level = 0.0
        for k in range(n_components):
            level += h[k]
        level = total / level
        for k in range(n_components):
            h[k] *= level
        if statistic:
            for k in range(n_components):
                loadings[0, k] += h[k]
            pixel_statistic(at, n, padded, x, basis, h, n_components, r, w, tiles, logs)
            sums[1] += steps
            sums[2] += total
            sums[3] += total * total
        else:
            for k in range(n_components):
                loadings[p, k] = h[k]
    sums[0] += logs[0] + log(logs[1])
