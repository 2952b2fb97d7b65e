"""What a bilinear model leaves of a block: squares by pixel, sums by channel.

Letters: p pixels of a block, E channels, K components, G groups of neighbouring channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["channel_groups", "residual_pixels", "residual_sums"]

_SLAB = 1 << 20
"""Cells that are dense in float64 at a time."""


def channel_groups(mean: NDArray[np.float64], least: float) -> NDArray[np.int64]:
    """First channels (G,) of groups of neighbours that each hold at least `least` of the mean spectrum."""
    starts, held = [0], 0.0
    for channel, value in enumerate(mean):
        if held >= least:
            starts.append(channel)
            held = 0.0
        held += float(value)
    if held < least and len(starts) > 1:
        starts.pop()  # what is left over goes with the group before
    return np.asarray(starts, dtype=np.int64)


def residual_pixels(
    data: NDArray[Any],
    loadings: NDArray[np.float64],
    components: NDArray[np.float64],
    starts: NDArray[np.int64] | None = None,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Chi-square and root mean square of the residual of each pixel.

    Parameters
    ----------
    data : ndarray (p, E)
    loadings : ndarray (p, K)
        NaN where a pixel is not used.
    components : ndarray (K, E)
        NaN where a channel is not used.
    starts : ndarray (G,), optional
        First channels of groups, among the used ones (`channel_groups`).
    weights : ndarray (G,), optional
        Of the squares of the groups. Without them the first answer is the mean square.

    Returns
    -------
    ndarray (p, 2)
        First the sum over groups of w (x - m)^2 over that of w m, whose expectation is 1 where counts have
        the model m as their mean, whatever the weights; NaN where the model has nothing.
    """
    used = np.isfinite(components).all(axis=0)
    model = np.ascontiguousarray(components[:, used])
    out = np.empty((len(data), 2))
    step = max(1, _SLAB // max(1, data.shape[1]))
    for first in range(0, len(data), step):
        part = slice(first, first + step)
        mean = loadings[part] @ model
        rest = data[part][:, used].astype(np.float64) - mean
        square = (rest * rest).mean(axis=1)
        out[part, 1] = np.sqrt(square)
        if weights is None or starts is None:
            out[part, 0] = square
            continue
        grouped = np.add.reduceat(rest, starts, axis=1)
        expected = np.add.reduceat(mean, starts, axis=1) @ weights
        ratio = np.full(len(rest), np.nan)
        np.divide((grouped * grouped) @ weights, expected, out=ratio, where=expected > 0)
        out[part, 0] = ratio
    return out


def residual_sums(
    data: NDArray[Any], loadings: NDArray[np.float64], components: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sums over a block's used pixels: of the data, of the model, and of their squared difference.

    Returns
    -------
    ndarray (3, E)
        The last two are NaN at unused channels.
    """
    out = np.zeros((3, data.shape[1]))
    step = max(1, _SLAB // max(1, data.shape[1]))
    for first in range(0, len(data), step):
        used = np.isfinite(loadings[first : first + step]).all(axis=1)
        values = data[first : first + step][used].astype(np.float64)
        mean = loadings[first : first + step][used] @ components
        out[0] += values.sum(axis=0)
        out[1] += mean.sum(axis=0)
        out[2] += ((values - mean) ** 2).sum(axis=0)
    return out
