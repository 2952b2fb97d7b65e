"""What counting noise leaves of a model that is right, and what a model has left.

Letters: P pixels, E channels, G groups of channels, K components.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.interpolate import CubicSpline

__all__ = ["deviance_pixels", "expected_misfit", "lagged", "slabs"]

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
    safe = np.maximum(model, _SMALL)
    ratio = np.where(values > 0.0, values, safe) / safe
    found = values * np.log(ratio) - values + model
    mean, _ = expected_misfit(np.maximum(model, 0.0))
    return np.column_stack((found.sum(axis=1), mean.sum(axis=1)))


def lagged(
    rest: NDArray[np.float64], used: NDArray[np.bool_], axis: int, lag: int
) -> NDArray[np.float64]:
    """Products of residuals with those of neighbours at a distance, summed.

    Parameters
    ----------
    rest : ndarray, shape (navigation dims, G)
        Residuals; zero where a pixel is not used.
    used : ndarray of bool, shape (navigation dims)
    axis, lag : int
        Which neighbours.

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
    product = np.einsum("...g,...g->...", a, b)
    square = 0.5 * (np.einsum("...g,...g->...", a, a) + np.einsum("...g,...g->...", b, b))
    return np.array([product[both].sum(), np.square(product[both]).sum(), square[both].sum()])
