"""What counting noise leaves of a model that is right, and what a model has left.

Letters: P pixels, E channels, G groups of channels, K components.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.interpolate import CubicSpline

__all__ = ["deviance_pixels", "expected_misfit", "lagged", "residual_slab", "slabs"]

_SMALL, _LARGE = 1e-9, 50.0

_SLAB = 1 << 19
"""Cells that are dense in float64 at a time."""


def expected_misfit(
    mu: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Expect ``d(x) = x log(x / mu) - x + mu`` for Poisson counts x of mean mu, and its variance.

    ``E[d]`` is about ``-mu log mu`` where counts are rare and one half where they are many, which is why one
    half a channel is no measure for sparse spectra.

    Parameters
    ----------
    mu : ndarray
        Expected counts, not negative.

    Returns
    -------
    mean, variance : ndarray
        In nats and nats squared; zero where `mu` is.
    """
    mu = np.asarray(mu, dtype=np.float64)
    mean, variance = np.zeros_like(mu), np.zeros_like(mu)
    few = (mu > 0) & (mu < _LARGE)
    m = np.maximum(mu[few], _SMALL)
    log_m = np.log(m)
    first, second = _moments()
    mean[few] = first(log_m) * m
    variance[few] = np.maximum(second(log_m) * m, 0.0)
    m = mu[mu >= _LARGE]
    mean[mu >= _LARGE] = 0.5 + 1.0 / (12.0 * m) + 1.0 / (12.0 * m**2)
    variance[mu >= _LARGE] = 0.5 + 1.0 / (6.0 * m)
    return mean, variance


@lru_cache(maxsize=1)
def _moments() -> tuple[CubicSpline, CubicSpline]:
    """Interpolate ``E[d] / mu`` and ``Var[d] / mu`` over log mu: summed over what counts may be."""
    from scipy.interpolate import CubicSpline
    from scipy.special import xlogy
    from scipy.stats import poisson

    log_mu = np.linspace(np.log(_SMALL), np.log(1.2 * _LARGE), 800)
    mu = np.exp(log_mu)
    x = np.arange(220.0)[:, None]
    chance = poisson.pmf(x, mu)
    d = xlogy(x, x) - xlogy(x, mu) - x + mu
    mean = (chance * d).sum(axis=0)
    variance = (chance * (d - mean) ** 2).sum(axis=0)
    return CubicSpline(log_mu, mean / mu), CubicSpline(log_mu, variance / mu)


def slabs(
    data: CountRows | NDArray[Any], cells: int = _SLAB
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Pixels of a block and their values, dense in float64, by pieces; a piece holds until the next one."""
    n_pixels, n_channels = data.shape
    step = max(1, cells // max(1, n_channels))
    room = np.empty((min(step, n_pixels), n_channels))
    for first in range(0, n_pixels, step):
        stop = min(first + step, n_pixels)
        part = room[: stop - first]
        if isinstance(data, CountRows):
            data.fill(first, stop, part)
        else:
            np.copyto(part, data[first:stop])
        yield slice(first, stop), part


def deviance_pixels(values: NDArray[np.float64], model: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poisson deviance of some pixels, half of it in nats, and what counting noise makes of it on average.

    Parameters
    ----------
    values, model : ndarray, shape (P, G)
        Counts, and what is expected of them; channels (or groups of them) without either say nothing.

    Returns
    -------
    ndarray, shape (P, 2)
    """
    first, _ = _moments()
    out = np.zeros((len(values), 2))
    _deviance(values, model, np.ascontiguousarray(first.c.T), first.x[0], first.x[1], out)
    return out


@jit(error_model="numpy")
def _deviance(values, model, cubics, start, second, out):
    """Sums over groups; the expectation by the cubics of `_moments`, whose knots are even."""
    width = second - start
    last = cubics.shape[0] - 1
    for p in range(values.shape[0]):
        found, mean = 0.0, 0.0
        for g in range(values.shape[1]):
            x, m = values[p, g], model[p, g]
            safe = max(m, _SMALL)
            log_m = np.log(safe)
            if x > 0.0:
                found += x * (np.log(x) - log_m) - x + m
            else:
                found += m - x
            if m >= _LARGE:
                mean += 0.5 + 1.0 / (12.0 * m) + 1.0 / (12.0 * m * m)
            elif m > 0.0:
                piece = min(int((log_m - start) / width), last)
                d = log_m - (start + piece * width)
                c = cubics[piece]
                mean += (((c[0] * d + c[1]) * d + c[2]) * d + c[3]) * safe
        out[p, 0], out[p, 1] = found, mean


@jit(fastmath={"reassoc"}, error_model="numpy")
def residual_slab(
    values: NDArray[np.float64],
    loadings: NDArray[np.float64],
    components: NDArray[np.float64],
    starts: NDArray[np.int64],
    roots: NDArray[np.float64],
    square: NDArray[np.float64],
    expected: NDArray[np.float64],
    along: NDArray[np.float64],
    grouped: NDArray[np.float64],
) -> None:
    """What the model leaves of some pixels, added to sums.

    Parameters
    ----------
    values : ndarray, shape (p, E)
        Taken; holds weighted residuals afterwards.
    loadings : ndarray, shape (p, K)
    components : ndarray, shape (K, E)
    starts : ndarray of int, shape (G,)
        First channels of groups.
    roots : ndarray, shape (E,)
        Root of the weight of each channel.
    square, expected : ndarray, shape (E,)
        Get squared residuals and the model.
    along : ndarray, shape (L, 3)
        Gets the sums of `lagged` along the channels of each pixel.
    grouped : ndarray, shape (p, G)
        Residuals by groups of channels.
    """
    n_pixels, n_channels = values.shape
    n_lags, n_groups = along.shape[0], starts.size
    model = np.empty(n_channels)
    for p in range(n_pixels):
        model[:] = 0.0
        for k in range(loadings.shape[1]):
            h = loadings[p, k]
            if h != 0.0:
                for e in range(n_channels):
                    model[e] += h * components[k, e]
        rest = values[p]
        for e in range(n_channels):
            rest[e] -= model[e]
            square[e] += rest[e] * rest[e]
            expected[e] += model[e]
        for g in range(n_groups):
            end = starts[g + 1] if g + 1 < n_groups else n_channels
            held = 0.0
            for e in range(starts[g], end):
                held += rest[e]
            grouped[p, g] = held
        whole = 0.0
        for e in range(n_channels):
            rest[e] *= roots[e]
            whole += rest[e] * rest[e]
        ends = 0.0
        for lag in range(1, min(n_lags, n_channels - 1) + 1):
            product = 0.0
            for e in range(n_channels - lag):
                product += rest[e] * rest[e + lag]
            first, last = rest[lag - 1], rest[n_channels - lag]
            ends += 0.5 * (first * first + last * last)
            along[lag - 1, 0] += product
            along[lag - 1, 1] += product * product
            along[lag - 1, 2] += whole - ends


def lagged(
    rest: NDArray[np.float64],
    used: NDArray[np.bool_],
    axis: int,
    lag: int,
    *,
    squares: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Products of residuals with those of neighbours at a distance, summed.

    Parameters
    ----------
    rest : ndarray, shape (navigation dims, G)
        Residuals; zero where a pixel is not used.
    used : ndarray of bool, shape (navigation dims)
    axis, lag : int
        Which neighbours.
    squares : ndarray, shape (navigation dims), optional
        sum_g r_pg^2, where it is known.

    Returns
    -------
    ndarray, shape (3,)
        Sum over pairs of s = sum_g r_pg r_qg, sum of s^2 (its variance where there is no correlation), and
        sum of the mean square of both.
    """
    n = rest.shape[axis]
    if lag >= n:
        return np.zeros(3)
    first = tuple([slice(None)] * axis + [slice(0, n - lag)])
    second = tuple([slice(None)] * axis + [slice(lag, n)])
    a, b = rest[first], rest[second]
    both = used[first] & used[second]
    if squares is None:
        squares = np.einsum("...g,...g->...", rest, rest)
    product = np.einsum("...g,...g->...", a, b)[both]
    square = 0.5 * (squares[first][both] + squares[second][both])
    return np.array([product.sum(), np.square(product).sum(), square.sum()])
