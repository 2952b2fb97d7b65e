"""The passes over blocks that `emcube.models.pca` is made of.

Letters: P pixels, E used channels, K components. X is the weighted matrix, C = X'X.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import qr

from emcube.kernels.gram import weighted_gram
from emcube.kernels.rows import CountRows
from emcube.models.labels import require_finite_counts, require_finite_values
from emcube.models.noise import NoiseModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey

__all__ = [
    "GatherSweep",
    "GramSweep",
    "LikelihoodSweep",
    "Moments",
    "Project",
    "Subspace",
    "SubspaceSweep",
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
        sum_i w_i (x_i - m)(x_i - m)', m a fixed shift; the upper triangle.
    sums : ndarray of float64, shape (E,)
        sum_i x_i, without weight or shift.
    n_pixels : int
    """

    gram: NDArray[np.float64]
    sums: NDArray[np.float64]
    n_pixels: int

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.gram + other.gram, self.sums + other.sums, self.n_pixels + other.n_pixels
        )


@dataclass(frozen=True, eq=False)
class GramSweep:
    """Summed Gram matrix, in one round.

    Parameters
    ----------
    noise : NoiseModel
        Weighs the pixels.
    shift : ndarray of float64, shape (E,), optional
        Subtracted first, against cancellation in what is centred afterwards.
    """

    noise: NoiseModel
    shift: NDArray[np.float64] | None = None
    name: str = "PCA"

    def start(self) -> None:
        """Nothing is known before the first block."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> Moments:
        """Moments of one block."""
        _require_sound(block, self.noise)
        totals = pixel_totals(block.data)
        gram = weighted_gram(block.data, self.noise.pixel_weights(totals), self.shift)
        return Moments(gram, _channel_totals(block.data), block.n_pixels)

    def combine(self, a: Moments, b: Moments) -> Moments:
        """Add."""
        return a + b

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
class Subspace:
    """State of the subspace iteration: a basis, and the values and vectors within it."""

    basis: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    vectors: NDArray[np.float64]
    energy: float = 0.0


@dataclass(frozen=True, eq=False)
class SubspaceSweep:
    """Randomised solver: each round multiplies a basis by C = X'X over the blocks.

    Values and vectors are those of C within the basis (Rayleigh-Ritz), so that they are never worse
    than those of the round before.
    """

    noise: NoiseModel
    scale: NDArray[np.float64]
    mean: NDArray[np.float64] | None
    trivial: NDArray[np.float64] | None
    trivial_value: float
    first: NDArray[np.float64]
    n_components: int
    tol: float
    name: str = "PCA (randomized)"

    def start(self) -> Subspace:
        """Random basis."""
        return Subspace(self.first, np.zeros(self.n_components), self.first)

    def map(
        self, block: Block, state: Subspace, rng_key: RngKey
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """C Q, Q'C Q and trace C of one block."""
        _require_sound(block, self.noise)
        weights = self.noise.pixel_weights(pixel_totals(block.data))
        scaled = self.scale[:, None] * state.basis
        product = _matmul(block.data, scaled)
        if self.mean is not None:
            product -= self.mean @ scaled
        weighted = product if weights is None else product * weights[:, None]
        back = _rmatmul(block.data, weighted).T
        if self.mean is not None:
            back -= np.outer(self.mean, weighted.sum(axis=0))
        energy = 0.0
        for start, part in _slabs(block.data):
            if self.mean is not None:
                part = part - self.mean
            squares = np.square(part * self.scale).sum(axis=1)
            energy += float(
                squares.sum() if weights is None else squares @ weights[start : start + len(part)]
            )
        return self.scale[:, None] * back, product.T @ weighted, energy

    def combine(
        self,
        a: tuple[NDArray[np.float64], NDArray[np.float64], float],
        b: tuple[NDArray[np.float64], NDArray[np.float64], float],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Add."""
        return a[0] + b[0], a[1] + b[1], a[2] + b[2]

    def step(
        self,
        state: Subspace,
        statistic: tuple[NDArray[np.float64], NDArray[np.float64], float],
        round_number: int,
    ) -> tuple[Subspace, bool]:
        """Take values and vectors, and the basis of the next round."""
        image, inner, energy = statistic
        if self.trivial is not None:
            shadow = self.trivial @ state.basis
            image = image - self.trivial_value * np.outer(self.trivial, shadow)
            inner = inner - self.trivial_value * np.outer(shadow, shadow)
            energy -= self.trivial_value
        values, turn = np.linalg.eigh(0.5 * (inner + inner.T))
        values, turn = values[::-1], turn[:, ::-1]
        kept = values[: self.n_components]
        moved = np.abs(kept - state.eigenvalues).max()
        basis, _ = qr(image, mode="economic")
        vectors = state.basis @ turn[:, : self.n_components]
        done = bool(moved <= self.tol * max(kept[0], np.finfo(float).tiny))
        return Subspace(basis, kept, vectors, energy), done

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * self.first.size


@dataclass(frozen=True, eq=False)
class Project:
    """Scores of a block's pixels: (x - m) W, W of shape (E, K)."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64] | None

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        """Scores of the block's pixels, shape (p, K)."""
        scores = _matmul(block.data, self.matrix)
        if self.offset is not None:
            scores -= self.offset
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


def _matmul(data: CountRows | NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Product of a block and a matrix (E, K), without a dense copy of rows; shape (p, K)."""
    if isinstance(data, CountRows):
        return data.matmul(matrix)
    return np.asarray(data, dtype=np.float64) @ matrix


def _rmatmul(data: CountRows | NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """A' X for A of shape (p, K); shape (K, E)."""
    if isinstance(data, CountRows):
        return data.rmatmul(matrix)
    return matrix.T @ np.asarray(data, dtype=np.float64)
