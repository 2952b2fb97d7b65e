"""Whether Markov chains tell of what they should: R-hat and effective sample sizes.

Letters: C chains, N draws of each; further axes are separate quantities.

References
----------
A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Buerkner, Bayesian Anal. 16 (2021) 667,
doi:10.1214/20-BA1221. A. Gelman, D. B. Rubin, Stat. Sci. 7 (1992) 457, doi:10.1214/ss/1177011136.
C. J. Geyer, Stat. Sci. 7 (1992) 473, doi:10.1214/ss/1177011137.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = ["effective_size", "rank_normalised", "split_r_hat", "tail_size"]


def split_r_hat(draws: NDArray[Any]) -> NDArray[np.float64]:
    """R-hat of C chains, each cut into two halves: (C, N, ...) to (...).

    The larger of two: of the draws' ranks, which tells whether halves agree in place, and of the ranks of
    their distances from the median, which tells whether they agree in spread; both as scores of a normal law.
    One where all is well; NaN where nothing varies, or with fewer than four draws.
    """
    halves = _halves(draws)
    if halves.shape[1] < 2:
        return np.full(draws.shape[2:], np.nan)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    return np.asarray(np.fmax(_r_hat(rank_normalised(halves)), _r_hat(rank_normalised(folded))))


def effective_size(draws: NDArray[Any]) -> NDArray[np.float64]:
    """Number of independent draws that C chains (C, N, ...) are worth, shape (...), for their middle.

    Of normal scores of the ranks of split chains. Autocorrelations are summed in pairs of lags as long as the
    pairs are positive and fall (Geyer's initial monotone sequence). NaN where nothing varies, or with fewer
    than four draws.
    """
    halves = _halves(draws)
    if halves.shape[1] < 2:
        return np.full(draws.shape[2:], np.nan)
    return _size(rank_normalised(halves))


def tail_size(draws: NDArray[Any], share: float = 0.05) -> NDArray[np.float64]:
    """The same for the ends of an interval: the smaller one of both quantiles, shape (...)."""
    halves = _halves(draws)
    if halves.shape[1] < 2:
        return np.full(draws.shape[2:], np.nan)
    ends = np.quantile(halves, [share, 1.0 - share], axis=(0, 1))
    return np.asarray(np.fmin(_size(1.0 * (halves <= ends[0])), _size(1.0 * (halves <= ends[1]))))


def rank_normalised(draws: NDArray[Any]) -> NDArray[np.float64]:
    """Normal scores of the ranks among all chains' draws, shape (C, N, ...); equal draws share a rank."""
    from scipy.stats import rankdata

    values = np.asarray(draws, dtype=np.float64)
    flat = values.reshape(-1, *values.shape[2:])
    ranks = rankdata(flat, axis=0)
    return np.asarray(ndtri((ranks - 0.375) / (len(flat) + 0.25))).reshape(values.shape)


def _r_hat(halves: NDArray[np.float64]) -> NDArray[np.float64]:
    n = halves.shape[1]
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    over = (n - 1) / n * within + halves.mean(axis=1).var(axis=0, ddof=1)
    return np.asarray(np.sqrt(_ratio(over, within)))


def _size(halves: NDArray[np.float64]) -> NDArray[np.float64]:
    m, n = halves.shape[:2]
    means = halves.mean(axis=1)
    covariances = _autocovariances(halves - means[:, None]).mean(axis=0)  # (n, ...)
    within = covariances[0] * n / (n - 1)
    total = within * (n - 1) / n + means.var(axis=0, ddof=1)
    rho = 1.0 - _ratio(within - covariances * n / (n - 1), total)
    rho[0] = 1.0
    pairs = rho[: n // 2 * 2].reshape(n // 2, 2, *rho.shape[1:]).sum(axis=1)
    # Beyond the first pair that is not positive there is noise.
    positive = np.logical_and.accumulate(pairs > 0.0, axis=0)
    falling = np.where(positive, np.minimum.accumulate(pairs, axis=0), 0.0)
    time = np.maximum(2.0 * falling.sum(axis=0) - 1.0, 1.0 / np.log10(max(10.0, m * n)))
    return np.where(total > 0, m * n / time, np.nan)


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
