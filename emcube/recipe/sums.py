"""The sum of each pixel, in the engine's blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emcube.engine import Block
from emcube.kernels.rows import CountRows

__all__ = ["pixel_sums"]


def pixel_sums(block: Block) -> dict[str, NDArray[np.float64]]:
    """Sum of each pixel over the used channels: ``{"total_counts": (p,)}``."""
    data = block.data
    if isinstance(data, CountRows):
        return {"total_counts": data.pixel_totals().astype(np.float64)}
    return {"total_counts": data.sum(axis=1, dtype=np.float64)}
