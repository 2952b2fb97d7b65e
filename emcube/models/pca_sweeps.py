"""The passes over blocks that `emcube.models.pca` is made of.

Letters: P pixels, E used channels, K components. X is the weighted matrix, C = X'X.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels.gram import add_outer, add_upper, centred_gram, weighted_gram
from emcube.kernels.products import pixel_products
from emcube.kernels.rows import CountRows
from emcube.models.labels import require_finite_counts, require_finite_values
from emcube.models.noise import NoiseModel, pixel_weights_key, weighs
from emcube.models.sweeps import TOTALS, Totals, totals_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey

__all__ = [
    "GatherSweep",
    "GramSweep",
    "LikelihoodSweep",
    "Moments",
    "Project",
    "pixel_totals",
]

SLAB_BYTES = 16 << 20
"""Dense scratch of a block in float64."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over pixels from which the decomposition follows; they add.

    Attributes
    ----------
    gram : ndarray of float64, shape (E, E)
        sum_i w_i (x_i - m)(x_i - m)', m a fixed shift or the mean; the upper triangle.
    totals : Totals
        Of the channels, without weight or shift.
    about_mean : bool
        m is the mean of these very pixels.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque, Am. Stat. 37 (1983) 242, for sums about the mean of parts.
    https://doi.org/10.1080/00031305.1983.10483115
    """

    gram: NDArray[np.float64]
    totals: Totals
    about_mean: bool = False

    @property
    def sums(self) -> NDArray[np.float64]:
        """sum_i x_i, shape (E,)."""
        return self.totals.channels

    @property
    def n_pixels(self) -> int:
        """Number of pixels."""
        return self.totals.n_pixels

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram.copy(), self.totals, self.about_mean).added(other)

    def added(self, other: Moments) -> Moments:
        """Sum of both; the memory of this one goes into it."""
        gram = add_upper(self.gram, other.gram)
        n, m = self.n_pixels, other.n_pixels
        if self.about_mean and n and m:
            # Pixels of two parts lie off the common mean together.
            add_outer(gram, self.sums / n - other.sums / m, n * m / (n + m))
        return Moments(gram, self.totals + other.totals, self.about_mean)


@dataclass(frozen=True, eq=False)
class GramSweep:
    """Summed Gram matrix, in one round; about the mean where the noise model centres and weighs all alike.

    Parameters
    ----------
    noise : NoiseModel
        Weighs the pixels.
    shift : ndarray of float64, shape (E,), optional
        Subtracted first, against cancellation in what is centred afterwards: for models that centre pixels
        of different weight.
    """

    noise: NoiseModel
    shift: NDArray[np.float64] | None = None
    name: str = "PCA"

    @property
    def answers_to(self) -> Hashable | None:
        """Pixel weights and shift: how a model scales the channels has no part in it."""
        weights = pixel_weights_key(self.noise)
        if weights is None:
            return None
        shift = None if self.shift is None else sha256(self.shift.tobytes()).hexdigest()
        return "moments", weights, self.noise.needs_counts, self.noise.centred, shift

    def also(self, state: Moments) -> list[tuple[Hashable, Totals]]:
        """The totals of the channels are known too."""
        return [(TOTALS, state.totals)]

    def start(self) -> None:
        """Nothing is known before the first block."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> Moments:
        """Moments of one block."""
        _require_sound(block, self.noise)
        totals = totals_of(block)
        if not weighs(self.noise):
            if self.noise.centred and self.shift is None:
                mean = totals.channels / max(1, block.n_pixels)
                return Moments(centred_gram(block.data, mean), totals, about_mean=True)
            return Moments(weighted_gram(block.data, None, self.shift), totals)
        weights = self.noise.pixel_weights(pixel_totals(block.data))
        return Moments(weighted_gram(block.data, weights, self.shift), totals)

    def combine(self, a: Moments, b: Moments) -> Moments:
        """Add."""
        return a + b

    def combine_into(self, a: Moments, b: Moments) -> Moments:
        """Add to the first."""
        return a.added(b)

    def step(self, state: Any, statistic: Moments, round_number: int) -> tuple[Moments, bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * n_channels**2


@dataclass(frozen=True, eq=False)
class GatherSweep:
    """Weighted pixels themselves, for a cube of few pixels and very many channels."""

    noise: NoiseModel
    total_bytes: int
    n_blocks: int
    name: str = "PCA (pixel side)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(
        self, block: Block, state: Any, rng_key: RngKey
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Dense pixels sqrt(w_i) x_i of one block, and its channel totals."""
        _require_sound(block, self.noise)
        weights = self.noise.pixel_weights(pixel_totals(block.data))
        dense = block.dense(np.float64)
        if weights is not None:
            dense = dense * np.sqrt(weights)[:, None]
        return dense, _channel_totals(block.data)

    def combine(
        self,
        a: tuple[NDArray[np.float64], NDArray[np.float64]],
        b: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Append pixels, add totals."""
        return np.concatenate((a[0], b[0])), a[1] + b[1]

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic, on average."""
        return self.total_bytes // max(1, self.n_blocks)


@dataclass(frozen=True, eq=False)
class Project:
    """Scores of a block's pixels: (x - m) W, W of shape (E, K)."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64] | None

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        """Scores of the block's pixels, shape (p, K)."""
        scores = pixel_products(block.data, self.matrix)
        if self.offset is not None:
            scores -= self.offset
        # A value that is not finite is searched for only where it shows.
        if not np.isfinite(scores).all():
            require_finite_values(block)
        return {"loadings": scores}


@dataclass(frozen=True, eq=False)
class LikelihoodSweep:
    """Sum over pixels of y_k^2 for each component, and of |X_i|^2."""

    noise: NoiseModel
    scale: NDArray[np.float64]
    mean: NDArray[np.float64] | None
    vectors: NDArray[np.float64]
    trivial_total: float | None
    name: str = "PCA score"

    def start(self) -> None:
        """Nothing."""
        return

    def map(
        self, block: Block, state: Any, rng_key: RngKey
    ) -> tuple[NDArray[np.float64], float, int]:
        """Sums of one block."""
        _require_sound(block, self.noise)
        totals = pixel_totals(block.data)
        weights = self.noise.pixel_weights(totals)
        inside = np.zeros(self.vectors.shape[1])
        energy = 0.0
        for start, part in _slabs(block.data):
            if self.mean is not None:
                part = part - self.mean
            part = part * self.scale
            if weights is not None:
                part *= np.sqrt(weights[start : start + len(part)])[:, None]
            inside += np.square(part @ self.vectors).sum(axis=0)
            energy += float(np.square(part).sum())
        if self.trivial_total is not None:
            # X q = sqrt(g) times what the new channel totals differ: the part along the mean spectrum.
            energy -= float(totals.sum())
        return inside, energy, block.n_pixels

    def combine(
        self,
        a: tuple[NDArray[np.float64], float, int],
        b: tuple[NDArray[np.float64], float, int],
    ) -> tuple[NDArray[np.float64], float, int]:
        """Add."""
        return a[0] + b[0], a[1] + b[1], a[2] + b[2]

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True


def _require_sound(block: Block, noise: NoiseModel) -> None:
    if noise.needs_counts:
        require_finite_counts(block)
    else:
        require_finite_values(block)


def pixel_totals(data: CountRows | NDArray[Any]) -> NDArray[Any]:
    """Sum of each pixel of a block, shape (p,)."""
    if isinstance(data, CountRows):
        return data.pixel_totals()
    return np.asarray(data.sum(axis=1, dtype=np.float64))


def _channel_totals(data: CountRows | NDArray[Any]) -> NDArray[np.float64]:
    if isinstance(data, CountRows):
        return data.channel_totals().astype(np.float64)
    return np.asarray(data.sum(axis=0, dtype=np.float64))


def _slabs(data: CountRows | NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(start, float64 pixels) of a block, a few at a time."""
    n_pixels, n_channels = data.shape
    step = max(1, SLAB_BYTES // (8 * max(1, n_channels)))
    for start in range(0, n_pixels, step):
        if isinstance(data, CountRows):
            part = data.take(np.arange(start, min(start + step, n_pixels))).to_dense(np.float64)
        else:
            part = np.asarray(data[start : start + step], dtype=np.float64)
        yield start, part
