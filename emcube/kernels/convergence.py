"""Whether Markov chains tell of what they should: R-hat and effective sample sizes.

Letters: C chains, N draws of each.

References
----------
A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Buerkner, Bayesian Anal. 16 (2021) 667,
doi:10.1214/20-BA1221. A. Gelman, D. B. Rubin, Stat. Sci. 7 (1992) 457, doi:10.1214/ss/1177011136.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["effective_size", "split_r_hat"]


def split_r_hat(draws: NDArray[Any]) -> NDArray[np.float64]:
    """R-hat of C chains, each cut into two halves: (C, N, ...) to (...).

    One where the halves agree in mean and variance; NaN where nothing varies, or with fewer than four draws.
    """
    halves = _halves(draws)
    n = halves.shape[1]
    if n < 2:
        return np.full(draws.shape[2:], np.nan)
    means = halves.mean(axis=1)
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    over = (n - 1) / n * within + means.var(axis=0, ddof=1)
    return np.asarray(np.sqrt(_ratio(over, within)))


def effective_size(draws: NDArray[Any]) -> NDArray[np.float64]:
    """Number of independent draws that C chains (C, N, ...) are worth, shape (...).

    Autocorrelations are summed in pairs of lags as long as the pairs are positive and fall (Geyer's initial
    monotone sequence). NaN where nothing varies, or with fewer than four draws.
    """
    halves = _halves(draws)
    m, n = halves.shape[:2]
    if n < 2:
        return np.full(draws.shape[2:], np.nan)
    means = halves.mean(axis=1)
    covariances = _autocovariances(halves - means[:, None]).mean(axis=0)  # (n, ...)
    within = covariances[0] * n / (n - 1)
    total = within * (n - 1) / n + means.var(axis=0, ddof=1)
    rho = 1.0 - _ratio(within - covariances * n / (n - 1), total)
    rho[0] = 1.0
    pairs = rho[: n // 2 * 2].reshape(n // 2, 2, *rho.shape[1:]).sum(axis=1)
    falling = np.minimum.accumulate(np.maximum(pairs, 0.0), axis=0)
    time = np.maximum(2.0 * falling.sum(axis=0) - 1.0, 1.0 / np.log10(max(10.0, m * n)))
    size = m * n / time
    return np.where(total > 0, size, np.nan)


def _halves(draws: NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(draws, dtype=np.float64)
    half = values.shape[1] // 2
    return np.concatenate([values[:, :half], values[:, values.shape[1] - half :]])


def _autocovariances(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each chain (M, n, ...), at each lag."""
    n = values.shape[1]
    out = np.empty_like(values)
    for lag in range(n):
        out[:, lag] = (values[:, : n - lag] * values[:, lag:]).sum(axis=1) / n
    return out


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.full(np.broadcast_shapes(a.shape, b.shape), np.nan)
    np.divide(a, b, out=out, where=np.broadcast_to(b, out.shape) > 0)
    return out
