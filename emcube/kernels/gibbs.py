"""Gibbs sampling of the loadings of given components, pixel by pixel.

Letters: P pixels, E channels, K components. Each pixel has a stream of random numbers of its own: what it
draws depends on its stream and its values alone, never on its neighbours.

Counts. x_e ~ Poisson(t sum_k a_k S_ke), where the shares a sum to one. Components sum to one, so that the
total N of the counts alone tells of t and their channels alone of the shares. Which components a pixel
holds is drawn, too: A with Pr(A) proportional to the product of the odds of its members, a ~ Dirichlet(alpha)
on A and zero elsewhere. A step
(1) gives a component a share or takes it away (reversible jump: births are proposed from a mixture of a
normal law at the top of the likelihood and the uniform one),
(2) lets two components change places (pixels of few counts only), and
(3) divides the share of two components anew between them (Metropolis and Hastings, with a normal proposal
at the top of the likelihood as it looks from where they stand, so that it hardly remembers).
For the components each count is given to component k with a probability proportional to a_k S_ke
(multinomial). Only counts that exist are visited. For the shares of a pixel counts may be summed over
channels in which the components stand in the same proportion: the sums are all that matters.

Dense values. x = sum_k h_k s_k + noise of variance v: given the others a loading is normal, cut at zero; on
the simplex (sum_k h_k = 1) two loadings at a time change in opposite directions, within what keeps both
positive.

References
----------
A. T. Cemgil, Comput. Intell. Neurosci. 2009, 785152, doi:10.1155/2009/785152, and T. L. Griffiths, M.
Steyvers, Proc. Natl. Acad. Sci. 101 (2004) 5228, doi:10.1073/pnas.0307752101 (counts). P. J. Green,
Biometrika 82 (1995) 711, doi:10.1093/biomet/82.4.711 (births and deaths). Y. Qi, T. P. Minka, "Hessian-
based Markov chain Monte-Carlo algorithms", Workshop on Monte Carlo Methods, 2002 (divisions). N. Dobigeon,
S. Moussaoui, M. Coulon, J.-Y. Tourneret, A. O. Hero, IEEE Trans. Signal Process. 57 (2009) 4355,
doi:10.1109/TSP.2009.2025797 (dense values). G. Marsaglia, W. W. Tsang, ACM Trans. Math. Softw. 26 (2000)
363, doi:10.1145/358407.358414 (gamma numbers). W. Hoermann, J. Stat. Comput. Simul. 46 (1993) 101,
doi:10.1080/00949659308811496 (binomial numbers). C. P. Robert, Stat. Comput. 5 (1995) 121,
doi:10.1007/BF00143942 (normal numbers between bounds).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.rows import CountRows
from emcube.kernels.sampling import _mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "between",
    "binomials",
    "channel_groups",
    "content_streams",
    "dealt",
    "gammas",
    "gaussian_draws",
    "grouped",
    "poisson_draws",
    "scattered",
    "streams",
]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_S11 = np.uint64(11)
_TO_UNIT = 2.0**-53

FEW_COUNTS = 64
"""Counts up to which two components of a pixel may change places: with more they never would."""

N_GROUPS = 48
"""Groups of channels that tell of a pixel's shares."""

ONE_BY_ONE = 12
"""Counts of a cell up to which they are dealt one by one; more are dealt by binomial numbers."""


def streams(seed: tuple[int, ...], n_pixels: int) -> NDArray[np.uint64]:
    """A stream for each of P pixels, from numbers such as (seed, round, block)."""
    base = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return _mixed(np.uint64(base), n_pixels)


def content_streams(seed: int, cells: CountRows | NDArray[Any]) -> NDArray[np.uint64]:
    """A stream for each of P pixels from its values: the same pixel always draws the same."""
    if isinstance(cells, CountRows):
        return _row_streams(np.uint64(seed), cells.indptr, cells.channels, cells.counts)
    values = np.ascontiguousarray(cells, dtype=np.float64) + 0.0  # no negative zeros
    return _dense_streams(np.uint64(seed), values.view(np.uint64))


def scattered(
    rows: CountRows,
    spectra: NDArray[np.float64],
    loadings: NDArray[np.float64],
    rates: NDArray[np.float64],
    stream: NDArray[np.uint64],
) -> NDArray[np.float64]:
    """Draws (P, K) that scatter about the most probable loadings as the counts say (Laplace's approximation).

    Where a Markov chain begins; none is negative.
    """
    out = np.ascontiguousarray(loadings, dtype=np.float64).copy()
    table = np.ascontiguousarray(spectra.T)
    _scatter(rows.indptr, rows.channels, rows.counts, table, rates, out, stream)
    return out


def channel_groups(spectra: NDArray[np.float64], n_groups: int = N_GROUPS) -> NDArray[np.int64]:
    """Put channels in which the components stand in about the same proportion into groups, shape (E,).

    Sums over such channels tell as much of a pixel's shares as the channels do: what is lost of the Fisher
    information at even shares is sum_e m_e (r_e - r_g)(r_e - r_g)^T, with the mean m of the components and
    r = s / m. The group that loses most is cut in two, across its longest axis, until there are enough.

    Parameters
    ----------
    spectra : ndarray, shape (K, E)
        Each sums to one.
    n_groups : int
    """
    n_channels = spectra.shape[1]
    if n_channels <= n_groups:
        return np.arange(n_channels)
    weights = spectra.mean(axis=0)
    ratios = (spectra / np.maximum(weights, 1e-300)).T
    labels = np.zeros(n_channels, dtype=np.int64)
    lost = [_longest(ratios, weights)[0]]
    for new in range(1, n_groups):
        old = int(np.argmax(lost))
        mine = np.flatnonzero(labels == old)
        if lost[old] <= 0.0 or mine.size < 2:
            break
        _, places = _longest(ratios[mine], weights[mine])
        labels[mine[places > 0.0]] = new
        lost.append(0.0)
        for group in (old, new):
            part = labels == group
            lost[group] = _longest(ratios[part], weights[part])[0]
    return labels


def _longest(
    ratios: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Weighted sum of squares of some points along their longest axis, and their places on it."""
    total = float(weights.sum())
    if total <= 0.0:
        return 0.0, np.zeros(len(ratios))
    apart = ratios - (weights @ ratios) / total
    values, vectors = np.linalg.eigh((apart * weights[:, None]).T @ apart)
    return max(float(values[-1]), 0.0), np.asarray(apart @ vectors[:, -1])


def grouped(rows: CountRows, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum the counts of each pixel over groups of channels, (P, G)."""
    out = np.zeros((rows.n_pixels, int(labels.max()) + 1))
    _group(rows.indptr, rows.channels, rows.counts, labels, out)
    return out


def poisson_draws(
    cells: NDArray[np.float64],
    spectra: NDArray[np.float64],
    shares: NDArray[np.float64],
    odds: NDArray[np.float64],
    stream: NDArray[np.uint64],
    *,
    concentration: float = 1.0,
    n_steps: int = 1,
    n_tries: int | None = None,
    draws: NDArray[np.float64] | None = None,
) -> None:
    """Make some steps of the shares of the components in P pixels of counts, in place.

    Parameters
    ----------
    cells : ndarray, shape (P, G)
        Counts in channels, or in groups of channels.
    spectra : ndarray, shape (K, G)
        Each sums to one; above zero where there are counts.
    shares : ndarray, shape (P, K)
        Where the chains stand; what they come to. Each row sums to one; zero is "not there".
    odds : ndarray, shape (K,)
        Of being there, beforehand; infinite for what is always there.
    stream : ndarray of uint64, shape (P,)
        Goes on.
    concentration : float
        alpha.
    n_steps : int
    n_tries : int, optional
        Components in each step, drawn anew, that are tried for a birth or death: all of them by default.
    draws : ndarray, shape (n_steps, P, K), optional
        Takes the shares after each step.
    """
    k, n_groups = spectra.shape
    _poisson_steps(
        np.ascontiguousarray(cells, dtype=np.float64),
        np.ascontiguousarray(spectra),
        shares,
        np.ascontiguousarray(odds, dtype=np.float64),
        stream,
        float(concentration),
        int(n_steps),
        k if n_tries is None else int(n_tries),
        np.zeros((0, 0, 0)) if draws is None else draws,
        np.empty((4, n_groups)),
        np.empty((k, n_groups)),
    )


def dealt(
    rows: CountRows,
    spectra: NDArray[np.float64],
    shares: NDArray[np.float64],
    stream: NDArray[np.uint64],
) -> NDArray[np.float64]:
    """Give each count to a component: how many counts of each channel belong to each, (K, E)."""
    table = np.ascontiguousarray(spectra.T)
    counted = np.zeros(table.shape)
    _deal(rows.indptr, rows.channels, rows.counts, table, shares, stream, counted)
    return np.ascontiguousarray(counted.T)


def gammas(shapes: NDArray[np.float64], stream: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Draw a gamma number of scale one for each of P shapes, from P streams, which go on."""
    return _gammas(np.ascontiguousarray(shapes, dtype=np.float64), stream)


def gaussian_draws(
    products: NDArray[np.float64],
    gram: NDArray[np.float64],
    variance: float,
    loadings: NDArray[np.float64],
    stream: NDArray[np.uint64],
    *,
    simplex: bool,
    n_steps: int = 1,
    draws: NDArray[np.float64] | None = None,
) -> None:
    """Make some Gibbs steps of the loadings of P dense pixels, in place.

    Parameters
    ----------
    products : ndarray, shape (P, K)
        x s_k.
    gram : ndarray, shape (K, K)
        s_k s_j.
    variance : float
        v.
    loadings : ndarray, shape (P, K)
        Where the chains stand; on the simplex they sum to one, and go on doing so.
    stream : ndarray of uint64, shape (P,)
        Goes on.
    simplex : bool
    n_steps : int
    draws : ndarray, shape (n_steps, P, K), optional
        Takes the loadings after each step.
    """
    kept = np.zeros((0, 0, 0)) if draws is None else draws
    run: Any = _simplex_steps if simplex else _positive_steps
    run(products, gram, float(variance), loadings, stream, int(n_steps), kept)


def between(
    mean: float, deviation: float, low: float, high: float, n: int, seed: int
) -> NDArray[np.float64]:
    """Draw n normal numbers that lie between two bounds (for tests of what the loops use)."""
    state = np.array([seed], dtype=np.uint64)
    return _several(mean, deviation, low, high, n, state)


def binomials(trials: int, probability: float, n: int, seed: int) -> NDArray[np.int64]:
    """Draw n binomial numbers (for tests of what the loops use)."""
    return _binomials(trials, probability, n, np.array([seed], dtype=np.uint64))


# ------------------------------------------------------------------------------------ random numbers


@jit
def _mixed(base, n_pixels):
    out = np.empty(n_pixels, dtype=np.uint64)
    state = base
    for p in range(n_pixels):
        state += _GAMMA
        out[p] = _mix(state)
    return out


@jit
def _row_streams(seed, indptr, channels, counts):
    n_pixels = indptr.size - 1
    out = np.empty(n_pixels, dtype=np.uint64)
    for p in range(n_pixels):
        state = _mix(seed + _GAMMA)
        for i in range(indptr[p], indptr[p + 1]):
            state = _mix((state ^ np.uint64(channels[i])) + _GAMMA)
            state = _mix((state ^ np.uint64(counts[i])) + _GAMMA)
        out[p] = state
    return out


@jit
def _dense_streams(seed, words):
    n_pixels, n_channels = words.shape
    out = np.empty(n_pixels, dtype=np.uint64)
    for p in range(n_pixels):
        state = _mix(seed + _GAMMA)
        for e in range(n_channels):
            state = _mix((state ^ words[p, e]) + _GAMMA)
        out[p] = state
    return out


@jit
def _uniform(state):
    """In [0, 1); `state` is an array of one number."""
    state[0] += _GAMMA
    return np.float64(_mix(state[0]) >> _S11) * _TO_UNIT


@jit
def _normal(state):
    radius = np.sqrt(-2.0 * np.log1p(-_uniform(state)))
    return radius * np.cos(2.0 * np.pi * _uniform(state))


@jit
def _gamma(state, shape):
    boost = 1.0
    if shape < 1.0:
        boost = (1.0 - _uniform(state)) ** (1.0 / shape)
        shape += 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    while True:
        x = _normal(state)
        v = 1.0 + c * x
        if v <= 0.0:
            continue
        v = v * v * v
        u = 1.0 - _uniform(state)
        if np.log(u) < 0.5 * x * x + d - d * v + d * np.log(v):
            return boost * d * v


@jit
def _gammas(shapes, stream):
    out = np.empty(shapes.size)
    state = np.empty(1, dtype=np.uint64)
    for p in range(shapes.size):
        state[0] = stream[p]
        out[p] = _gamma(state, shapes[p])
        stream[p] = state[0]
    return out


@jit
def _binomial(state, n, p):
    """By inversion, or (means from 10 on) by Hoermann's transformed rejection."""
    if p > 0.5:
        return n - _binomial_half(state, n, 1.0 - p)
    return _binomial_half(state, n, p)


@jit
def _binomial_half(state, n, p):
    if p <= 0.0 or n <= 0:
        return 0
    q = 1.0 - p
    if n * p < 10.0:
        odds = p / q
        chance, u, x = np.exp(n * np.log1p(-p)), _uniform(state), 0
        while u > chance and x < n:
            u -= chance
            chance *= odds * (n - x) / (x + 1)
            x += 1
        return x
    root = np.sqrt(n * p * q)
    b = 1.15 + 2.53 * root
    a = -0.0873 + 0.0248 * b + 0.01 * p
    alpha = (2.83 + 5.1 / b) * root
    mode = np.floor((n + 1) * p)
    top = math.lgamma(mode + 1.0) + math.lgamma(n - mode + 1.0)
    log_odds = np.log(p / q)
    while True:
        u, v = _uniform(state) - 0.5, 1.0 - _uniform(state)
        us = 0.5 - abs(u)
        if us <= 0.0:
            continue
        k = np.floor((2.0 * a / us + b) * u + n * p + 0.5)
        if us >= 0.07 and v <= 0.92 - 4.2 / b:
            return int(k)
        if k < 0.0 or k > n:
            continue
        v = np.log(v * alpha / (a / (us * us) + b))
        if v <= top - math.lgamma(k + 1.0) - math.lgamma(n - k + 1.0) + (k - mode) * log_odds:
            return int(k)


@jit
def _binomials(trials, probability, n, state):
    out = np.empty(n, dtype=np.int64)
    for i in range(n):
        out[i] = _binomial(state, trials, probability)
    return out


@jit
def _standard_between(state, low, high):
    """Standard normal between bounds, by the rejection that suits them."""
    if low <= 0.0 <= high:
        if high - low > 2.5:
            while True:
                x = _normal(state)
                if low <= x <= high:
                    return x
        while True:
            x = low + (high - low) * _uniform(state)
            if 1.0 - _uniform(state) <= np.exp(-0.5 * x * x):
                return x
    if high < 0.0:
        return -_standard_tail(state, -high, -low)
    return _standard_tail(state, low, high)


@jit
def _standard_tail(state, low, high):
    """The same where both bounds are above zero."""
    root = np.sqrt(low * low + 4.0)
    rate = 0.5 * (low + root)
    if high - low > 2.0 * np.sqrt(np.e) / (low + root) * np.exp(0.25 * (low * low - low * root)):
        while True:
            x = low - np.log1p(-_uniform(state)) / rate
            if x <= high and 1.0 - _uniform(state) <= np.exp(-0.5 * (x - rate) ** 2):
                return x
    while True:
        x = low + (high - low) * _uniform(state)
        if 1.0 - _uniform(state) <= np.exp(0.5 * (low * low - x * x)):
            return x


@jit
def _between(state, mean, deviation, low, high):
    if high <= low:
        return low
    x = mean + deviation * _standard_between(
        state, (low - mean) / deviation, (high - mean) / deviation
    )
    return min(max(x, low), high)


@jit
def _several(mean, deviation, low, high, n, state):
    out = np.empty(n)
    for i in range(n):
        out[i] = _between(state, mean, deviation, low, high)
    return out


# -------------------------------------------------------------------------------------------- counts


@jit
def _scatter(indptr, channels, counts, table, rates, loadings, stream):
    n = table.shape[1]
    state = np.empty(1, dtype=np.uint64)
    fisher = np.empty((n, n))
    lower = np.zeros((n, n))
    move = np.empty(n)
    slope = np.empty(n)
    for p in range(indptr.size - 1):
        state[0] = stream[p]
        for j in range(n):
            slope[j] = 1.0 + rates[j]
            for k in range(n):
                fisher[j, k] = 0.0
        for i in range(indptr[p], indptr[p + 1]):
            e = channels[i]
            mu = 0.0
            for k in range(n):
                mu += loadings[p, k] * table[e, k]
            ratio = counts[i] / mu
            for j in range(n):
                slope[j] -= ratio * table[e, j]
                part = ratio / mu * table[e, j]
                for k in range(j + 1):
                    fisher[j, k] += part * table[e, k]
        for k in range(n):
            # At a bound the posterior falls as exp(-slope h): as if by a precision of that size.
            steep = max(slope[k], rates[k], 1e-3)
            fisher[k, k] += steep * steep
        for j in range(n):
            for k in range(j + 1):
                value = fisher[j, k]
                for m in range(k):
                    value -= lower[j, m] * lower[k, m]
                if j == k:
                    lower[j, j] = np.sqrt(max(value, 1e-12 * fisher[j, j]))
                else:
                    lower[j, k] = value / lower[k, k]
        for k in range(n):
            move[k] = _normal(state)
        for back in range(n):
            k = n - 1 - back
            for j in range(k + 1, n):
                move[k] -= lower[j, k] * move[j]
            move[k] /= lower[k, k]
        for k in range(n):
            loadings[p, k] = abs(loadings[p, k] + move[k]) + 1e-12
        stream[p] = state[0]


@jit
def _group(indptr, channels, counts, labels, out):
    for p in range(indptr.size - 1):
        for i in range(indptr[p], indptr[p + 1]):
            out[p, labels[channels[i]]] += counts[i]


@jit
def _deal(indptr, channels, counts, table, shares, stream, counted):
    n = table.shape[1]
    state = np.empty(1, dtype=np.uint64)
    for p in range(indptr.size - 1):
        state[0] = stream[p]
        own = shares[p]
        end = 0
        for k in range(n):
            if own[k] > 0.0:
                end = k
        for i in range(indptr[p], indptr[p + 1]):
            e = channels[i]
            left = np.int64(counts[i])
            mu = 0.0
            for k in range(n):
                mu += own[k] * table[e, k]
            if left > ONE_BY_ONE:
                k = 0
                while left > 0:
                    part = own[k] * table[e, k]
                    mine = left
                    if k < end:
                        mine = _binomial(state, left, min(part / mu, 1.0))
                    counted[e, k] += mine
                    left -= mine
                    mu -= part
                    k += 1
                continue
            for _ in range(left):
                u = _uniform(state) * mu
                chosen = end
                for k in range(end):
                    part = own[k] * table[e, k]
                    if u < part:
                        chosen = k
                        break
                    u -= part
                counted[e, chosen] += 1.0
        stream[p] = state[0]


@jit
def _poisson_steps(
    cells, spectra, shares, odds, stream, alpha, n_steps, n_tries, draws, room, parts
):
    n, n_groups = spectra.shape
    state = np.empty(1, dtype=np.uint64)
    for p in range(cells.shape[0]):
        state[0] = stream[p]
        size, held = 0, 0.0
        for g in range(n_groups):
            if cells[p, g] > 0.0:
                room[0, size] = cells[p, g]
                held += cells[p, g]
                for k in range(n):
                    parts[k, size] = spectra[k, g]
                size += 1
        x, mu, rest, ratio = room[0, :size], room[1, :size], room[2, :size], room[3, :size]
        own = shares[p]
        for step in range(n_steps):
            _mixed_into(parts, own, -1, mu)
            for t in range(n_tries):
                k = t
                if n_tries < n:
                    k = min(int(_uniform(state) * n), n - 1)
                if np.isfinite(odds[k]):
                    _try(state, x, parts, own, k, odds[k], alpha, mu, rest, ratio)
            if held <= FEW_COUNTS:
                _swap(state, x, parts, own, odds, mu, rest)
            alive = 0
            for k in range(n):
                if own[k] > 0.0:
                    alive += 1
            # So many that each component has been part of one, about.
            for _ in range(alive // 2):
                _divide(state, x, parts, own, alive, alpha, mu, rest, ratio)
            if draws.shape[0] > 0:
                for k in range(n):
                    draws[step, p, k] = own[k]
        stream[p] = state[0]


@jit
def _mixed_into(parts, own, without, out):
    """Mixture of the components that are there, but for one, into `out`."""
    for i in range(out.size):
        out[i] = 0.0
    for k in range(own.size):
        if k != without and own[k] > 0.0:
            a = own[k]
            for i in range(out.size):
                out[i] += a * parts[k, i]


@jit(fastmath={"reassoc"})
def _moments(x, ratio):
    """sum_i x_i r_i and sum_i x_i r_i^2."""
    first, second = 0.0, 0.0
    for i in range(x.size):
        xr = x[i] * ratio[i]
        first += xr
        second += xr * ratio[i]
    return first, second


@jit
def _log_ratio(x, above, below):
    """sum_i x_i log(above_i / below_i): few counts as powers, and the logarithm of their product."""
    total, product = 0.0, 1.0
    for i in range(x.size):
        term = above[i] / below[i]
        if x[i] > 15.0:
            total += x[i] * np.log(term)
            continue
        bits = int(x[i])
        square = term * term
        fourth = square * square
        power = term if bits & 1 else 1.0
        power *= square if bits & 2 else 1.0
        power *= fourth if bits & 4 else 1.0
        power *= fourth * fourth if bits & 8 else 1.0
        if power > 1e100 or power < 1e-100:
            total += x[i] * np.log(term)
            continue
        product *= power
        if product > 1e100 or product < 1e-100:
            total += np.log(product)
            product = 1.0
    return total + np.log(product)


@jit
def _try(state, x, parts, own, j, odds, alpha, mu, rest, ratio):
    """Birth of component j where it is not there, death where it is."""
    n = own.size
    others, m = 0.0, 0
    for k in range(n):
        if k != j and own[k] > 0.0:
            others += own[k]
            m += 1
    if m == 0:
        return  # a pixel holds something
    _mixed_into(parts, own, j, rest)
    for i in range(x.size):
        rest[i] /= others
        ratio[i] = parts[j, i] / rest[i] - 1.0
    slope, bend = _moments(x, ratio)
    # Top and width of the likelihood along the share w of j, as they look from w = 0.
    normal = bend > 0.0 and slope > -30.0 * np.sqrt(bend)
    middle, width, inside = 0.0, 1.0, 1.0
    if normal:
        width = 1.0 / np.sqrt(bend)
        middle = slope / bend
        inside = _normal_between(-middle / width, (1.0 - middle) / width)
        normal = inside > 1e-200
    alive = own[j] > 0.0
    if alive:
        w = own[j]
    elif normal and _uniform(state) < 0.5:
        w = _between(state, middle, width, 0.0, 1.0)
    else:
        w = _uniform(state)
    if w <= 0.0 or w >= 1.0:
        return
    density = 1.0
    if normal:
        z = (w - middle) / width
        density = 0.5 + 0.5 * np.exp(-0.5 * z * z) / (np.sqrt(2.0 * np.pi) * width * inside)
    prior = np.log(m) + (m - 1.0) * np.log1p(-w)
    if alpha != 1.0:
        prior = math.lgamma(alpha * (m + 1)) - math.lgamma(alpha) - math.lgamma(alpha * m)
        prior += (alpha - 1.0) * np.log(w) + (alpha * m - 1.0) * np.log1p(-w)
    for i in range(x.size):
        ratio[i] = (1.0 - w) * rest[i] + w * parts[j, i]
    gain = np.log(odds) + prior - np.log(density) + _log_ratio(x, ratio, rest)
    u = np.log(1.0 - _uniform(state))
    if alive:
        if u < -gain:
            own[j] = 0.0
            for k in range(n):
                own[k] /= others
            for i in range(x.size):
                mu[i] = rest[i]
    elif u < gain:
        for k in range(n):
            own[k] *= (1.0 - w) / others
        own[j] = w
        for i in range(x.size):
            mu[i] = ratio[i]


@jit
def _swap(state, x, parts, own, odds, mu, moved):
    """Let a component that is there give its share to one that is not."""
    n = own.size
    alive = 0
    for k in range(n):
        if own[k] > 0.0:
            alive += 1
    if alive == n:
        return
    give = int(_uniform(state) * alive)
    take = int(_uniform(state) * (n - alive))
    j, i = -1, -1
    for k in range(n):
        if own[k] > 0.0:
            if give == 0:
                j = k
            give -= 1
        else:
            if take == 0:
                i = k
            take -= 1
    if not (0.0 < odds[i] < np.inf and 0.0 < odds[j] < np.inf):
        return
    share = own[j]
    own[j], own[i] = 0.0, share
    _mixed_into(parts, own, -1, moved)
    gain = np.log(odds[i]) - np.log(odds[j]) + _log_ratio(x, moved, mu)
    if np.log(1.0 - _uniform(state)) < gain:
        for c in range(x.size):
            mu[c] = moved[c]
    else:
        own[j], own[i] = share, 0.0


@jit
def _divide(state, x, parts, own, alive, alpha, mu, moved, ratio):
    """Divide the share of two components that are there anew between them."""
    n = own.size
    one = int(_uniform(state) * alive)
    other = int(_uniform(state) * (alive - 1))
    if other >= one:
        other += 1
    j, i, seen = -1, -1, 0
    for k in range(n):
        if own[k] > 0.0:
            if seen == one:
                j = k
            if seen == other:
                i = k
            seen += 1
    both = own[j] + own[i]
    w = own[j] / both
    for c in range(x.size):
        ratio[c] = both * (parts[j, c] - parts[i, c]) / mu[c]
    slope, bend = _moments(x, ratio)
    middle, width, inside = _top(w, slope, bend)
    if inside <= 1e-200:
        return
    v = _between(state, middle, width, 0.0, 1.0)
    if v <= 0.0 or v >= 1.0:
        return
    held, held_other = own[j], own[i]
    own[j], own[i] = both * v, both * (1.0 - v)
    more = both * (v - w)
    for c in range(x.size):
        # Never below a rounding of what it was.
        moved[c] = max(mu[c] + more * (parts[j, c] - parts[i, c]), 1e-16 * mu[c])
        ratio[c] = both * (parts[j, c] - parts[i, c]) / moved[c]
    slope, bend = _moments(x, ratio)
    back, back_width, back_inside = _top(v, slope, bend)
    gain = -np.inf
    if back_inside > 1e-200:
        there, here = (v - middle) / width, (w - back) / back_width
        gain = _log_ratio(x, moved, mu)
        gain += (alpha - 1.0) * (np.log(v / w) + np.log((1.0 - v) / (1.0 - w)))
        gain += 0.5 * there * there + np.log(width * inside)
        gain -= 0.5 * here * here + np.log(back_width * back_inside)
    if np.log(1.0 - _uniform(state)) < gain:
        for c in range(x.size):
            mu[c] = moved[c]
    else:
        own[j], own[i] = held, held_other


@jit
def _top(w, slope, bend):
    """Normal law between 0 and 1 at the top of the likelihood seen from w: middle, width, its share."""
    if bend < 1e-6:  # hardly any likelihood
        return 0.5, 1e3, _normal_between(-5e-4, 5e-4)
    width = 1.0 / np.sqrt(bend)
    middle = w + slope / bend
    return middle, width, _normal_between(-middle / width, (1.0 - middle) / width)


@jit
def _normal_between(low, high):
    """Share of a standard normal law between two bounds; of a far tail to relative precision."""
    root = np.sqrt(0.5)
    if low > 0.0:
        return 0.5 * (math.erfc(low * root) - math.erfc(high * root))
    if high < 0.0:
        return 0.5 * (math.erfc(-high * root) - math.erfc(-low * root))
    if high - low < 1e-2:
        return (high - low) * np.exp(-0.125 * (high + low) ** 2) / np.sqrt(2.0 * np.pi)
    return 1.0 - 0.5 * math.erfc(high * root) - 0.5 * math.erfc(-low * root)


# -------------------------------------------------------------------------------------- dense values


@jit
def _positive_steps(products, gram, variance, loadings, stream, n_steps, draws):
    n_pixels, n = loadings.shape
    state = np.empty(1, dtype=np.uint64)
    for p in range(n_pixels):
        state[0] = stream[p]
        for step in range(n_steps):
            for k in range(n):
                left = products[p, k]
                for j in range(n):
                    if j != k:
                        left -= gram[k, j] * loadings[p, j]
                own = gram[k, k]
                loadings[p, k] = _between(state, left / own, np.sqrt(variance / own), 0.0, np.inf)
            if draws.shape[0] > 0:
                for k in range(n):
                    draws[step, p, k] = loadings[p, k]
        stream[p] = state[0]


@jit
def _simplex_steps(products, gram, variance, loadings, stream, n_steps, draws):
    n_pixels, n = loadings.shape
    state = np.empty(1, dtype=np.uint64)
    slope = np.empty(n)
    for p in range(n_pixels):
        state[0] = stream[p]
        for k in range(n):
            slope[k] = products[p, k]
            for j in range(n):
                slope[k] -= gram[k, j] * loadings[p, j]
        for step in range(n_steps):
            for j in range(n):
                for k in range(j):
                    curvature = gram[j, j] + gram[k, k] - 2.0 * gram[j, k]
                    if curvature <= 0.0:
                        continue
                    a, b = loadings[p, j], loadings[p, k]
                    move = _between(
                        state,
                        (slope[j] - slope[k]) / curvature,
                        np.sqrt(variance / curvature),
                        -a,
                        b,
                    )
                    # What one gains the other loses, to the last bit of their sum.
                    loadings[p, j] = max(a + move, 0.0)
                    loadings[p, k] = max(b - move, 0.0)
                    for m in range(n):
                        slope[m] -= move * (gram[m, j] - gram[m, k])
            if draws.shape[0] > 0:
                for k in range(n):
                    draws[step, p, k] = loadings[p, k]
        stream[p] = state[0]
