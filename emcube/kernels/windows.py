"""Net counts in windows of a spectrum, one block at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NetWindow", "net_counts"]


@dataclass(frozen=True)
class NetWindow:
    """Channels of a peak and of the background beside it, with the share of each to subtract.

    Attributes
    ----------
    peak : slice
        Channels whose counts are summed.
    background : tuple of (slice, float)
        Channels and the factor by which their sum is subtracted; empty for gross counts.
    """

    peak: slice
    background: tuple[tuple[slice, float], ...] = ()


def net_counts(block: NDArray[Any], windows: Sequence[NetWindow]) -> NDArray[np.float64]:
    """Sum each window and subtract its background: ``I = sum(peak) - sum_j f_j sum(background_j)``.

    Parameters
    ----------
    block : ndarray of shape (..., E)
        Any real dtype; sums are taken in float64, without a copy of the block in it.
    windows : sequence of NetWindow, length L

    Returns
    -------
    ndarray of shape (..., L)
        In the units of the block; noise may make it negative.
    """
    net = np.empty((*block.shape[:-1], len(windows)), dtype=np.float64)
    for k, window in enumerate(windows):
        total = block[..., window.peak].sum(axis=-1, dtype=np.float64)
        for channels, factor in window.background:
            total -= factor * block[..., channels].sum(axis=-1, dtype=np.float64)
        net[..., k] = total
    return net
