"""The nearest curve with a single peak.

Letter: E channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels._numba import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["unimodal"]


def unimodal(
    values: NDArray[np.float64], weights: NDArray[np.float64], *, positive: bool
) -> NDArray[np.float64]:
    """Project onto curves that rise up to some channel and fall after it, by weighted least squares.

    For each place of the peak the best curve is a rising fit before it and a falling one from there on; all
    rising fits come from one run of pooling adjacent violators, which keeps the error of each beginning.

    Parameters
    ----------
    values : ndarray, shape (E,)
    weights : ndarray, shape (E,)
        Not negative; channels of weight zero follow the others.
    positive : bool
        The curve must not be negative either.

    Returns
    -------
    ndarray, shape (E,)

    References
    ----------
    R. Bro, N. D. Sidiropoulos, "Least squares algorithms under unimodality and non-negativity constraints",
    J. Chemom. 12 (1998) 223. https://doi.org/10.1002/(SICI)1099-128X(199807/08)12:4<223::AID-CEM511>3.0.CO;2-2
    Q. F. Stout, "Unimodal regression via prefix isotonic regression", Comput. Stat. Data Anal. 53 (2008) 289.
    https://doi.org/10.1016/j.csda.2008.08.005
    """
    values = np.ascontiguousarray(values, dtype=np.float64)
    # A little weight everywhere: means of channels without any would be nothing over nothing.
    least = 1e-12 * float(weights.max(initial=0.0))
    weights = np.maximum(weights, least if least > 0.0 else 1.0)
    n = values.size
    floor = 0.0 if positive else -np.inf
    up, up_errors = _rising(values, weights, n, floor)
    _, down_errors = _rising(values[::-1].copy(), weights[::-1].copy(), n, floor)
    # errors[i]: rising over the first i channels, falling over the others.
    errors = up_errors + down_errors[::-1]
    peak = int(np.argmin(errors))
    up, _ = _rising(values, weights, peak, floor)
    down, _ = _rising(values[::-1].copy(), weights[::-1].copy(), n - peak, floor)
    return np.concatenate((up[:peak], down[: n - peak][::-1]))


@jit(error_model="numpy")
def _rising(values, weights, n, floor):
    """Rising fit of the first n channels, and the error of the fit of each beginning (n + 1)."""
    fit = np.empty(n)
    errors = np.zeros(n + 1)
    mean = np.empty(n)
    weight = np.empty(n)
    square = np.empty(n)
    length = np.empty(n, dtype=np.int64)
    before = np.empty(n + 1)
    before[0] = 0.0
    blocks = 0
    for i in range(n):
        m = values[i]
        w = weights[i]
        s = w * m * m
        size = 1
        while blocks > 0 and mean[blocks - 1] >= m:
            blocks -= 1
            total = weight[blocks] + w
            m = (weight[blocks] * mean[blocks] + w * m) / total
            w = total
            s += square[blocks]
            size += length[blocks]
        mean[blocks] = m
        weight[blocks] = w
        square[blocks] = s
        length[blocks] = size
        # A mean below the floor is lifted: the error of the block is that of the floor.
        level = max(m, floor)
        error = s - w * m * m + w * (m - level) * (m - level)
        before[blocks + 1] = before[blocks] + max(error, 0.0)
        blocks += 1
        errors[i + 1] = before[blocks]
    at = 0
    for b in range(blocks):
        for _ in range(length[b]):
            fit[at] = max(mean[b], floor)
            at += 1
    return fit, errors
