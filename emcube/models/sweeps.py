"""Small sweeps that several models share. Letters: P pixels, E channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels.rows import CountRows
from emcube.kernels.slabs import cell_totals
from emcube.models.labels import require_finite_counts, require_finite_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey

__all__ = ["TOTALS", "OnePass", "Totals", "TotalsSweep", "totals_of"]

TOTALS = ("totals",)
"""Identity of totals among shared answers (see `emcube.engine.Sweep`)."""


class OnePass:
    """Base of sweeps whose one round adds up what `map` says of each block, and gives that.

    A statistic is whatever adds with ``+``, or a tuple of such, in which None stands for nothing.
    """

    def start(self) -> None:
        """Nothing is known before the first block."""
        return

    def combine(self, a: Any, b: Any) -> Any:
        """Add."""
        if isinstance(a, tuple):
            return tuple(self.combine(x, y) for x, y in zip(a, b, strict=True))
        return None if a is None else a + b

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True


@dataclass(frozen=True, eq=False)
class Totals:
    """Sums over pixels.

    Attributes
    ----------
    channels : ndarray of float64, shape (E,)
        Total of each used channel.
    n_pixels : int
        Pixels that were counted.
    n_stored : int
        Cells that are not zero.
    minimum : float
        Smallest value met (0 for compressed counts).
    n_empty : int
        Pixels that hold nothing but zeros.
    """

    channels: NDArray[np.float64]
    n_pixels: int
    n_stored: int
    minimum: float
    n_empty: int

    @property
    def total(self) -> float:
        """Grand total N."""
        return float(self.channels.sum())

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.channels + other.channels,
            self.n_pixels + other.n_pixels,
            self.n_stored + other.n_stored,
            min(self.minimum, other.minimum),
            self.n_empty + other.n_empty,
        )


def totals_of(block: Block) -> Totals:
    """Totals of one block."""
    data = block.data
    if isinstance(data, CountRows):
        channels = data.channel_totals().astype(np.float64)
        n_empty = int(np.count_nonzero(data.indptr[1:] == data.indptr[:-1]))
        return Totals(channels, data.n_pixels, data.nnz, 0.0, n_empty)
    sums, n_stored, minimum, n_empty = cell_totals(data)
    return Totals(sums, data.shape[0], n_stored, minimum, n_empty)


@dataclass(frozen=True)
class TotalsSweep(OnePass):
    """Total of each channel, in one round.

    Parameters
    ----------
    counts : bool
        Refuse negative values.
    """

    counts: bool
    name: str = "channel totals"

    @property
    def answers_to(self) -> tuple[str, ...]:
        """The totals are the same whoever asks."""
        return TOTALS

    def accepts(self, state: Totals) -> bool:
        """Whether totals that somebody else asked for will do: values were finite for all."""
        return not self.counts or state.minimum >= 0

    def map(self, block: Block, state: Any, rng_key: RngKey) -> Totals:
        """Sums of one block, after a look for values that make no sense."""
        if self.counts:
            require_finite_counts(block)
        else:
            require_finite_values(block)
        return totals_of(block)

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * n_channels
