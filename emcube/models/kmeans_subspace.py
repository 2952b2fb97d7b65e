"""The subspace in which k-means compares profiles: weighted principal components of counts.

Letters: P pixels, E channels, F features. g are the totals of pixels, h those of channels, N all counts.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emcube.engine import Block, BlockSource, RngKey, run_sweep, run_sweeps
from emcube.errors import InputError
from emcube.kernels import kmeans as kernel
from emcube.kernels.gram import add_upper, scaled_symmetric, weighted_gram
from emcube.models.noise import PoissonNoise
from emcube.models.pca import MAX_GRAM, IncrementalPCA
from emcube.models.pca_sweeps import GramSweep, pixel_totals
from emcube.models.subspace import leading_vectors
from emcube.models.sweeps import TotalsSweep

__all__ = ["profile_basis"]

PIXEL_FLOOR = 10.0
"""Counts as which those of fainter pixels, and of rarer channels, are weighed."""


@dataclass(frozen=True)
class _SteadyPoisson(PoissonNoise):
    """Poisson weights in which rare pixels and channels do not make components of their own.

    A single count in channel j of pixel i adds N / (g_i h_j) to an eigenvalue of the weighted Gram
    matrix, while the noise reaches about P: below g_i h_j = N / P one event outweighs all noise. Totals
    of pixels therefore count as at least `PIXEL_FLOOR`, those of channels as at least that and N / P.
    """

    n_pixels: int = 1
    name: str = "poisson, steady"

    def pixel_weights(self, totals: NDArray[Any]) -> NDArray[np.float64]:
        """1 / max(g, floor)."""
        return 1.0 / np.maximum(np.asarray(totals, dtype=np.float64), PIXEL_FLOOR)

    def channel_scale(self, totals: NDArray[Any], total: float) -> NDArray[np.float64]:
        """sqrt(N / max(h, floor))."""
        floor = max(PIXEL_FLOOR, total / self.n_pixels)
        return np.asarray(np.sqrt(total / np.maximum(totals, floor)))


@dataclass(frozen=True, eq=False)
class _FaintGram:
    """What pixels below `PIXEL_FLOOR` weigh too much in the Gram matrix of plain Poisson weights.

    PCA sums that matrix too, and shares it. None where there are no such pixels.
    """

    name: str = "faint pixels"

    @property
    def answers_to(self) -> Hashable:
        return "faint pixels", PIXEL_FLOOR

    def start(self) -> None:
        return None

    def map(self, block: Block, state: None, rng_key: RngKey) -> NDArray[np.float64] | None:
        totals = pixel_totals(block.data)
        faint = np.flatnonzero((totals > 0) & (totals < PIXEL_FLOOR))
        if not faint.size:
            return None
        plain, steady = PoissonNoise(), _SteadyPoisson()
        excess = plain.pixel_weights(totals[faint]) - steady.pixel_weights(totals[faint])
        return weighted_gram(kernel.take(block.data, faint), excess)

    def combine(
        self, a: NDArray[np.float64] | None, b: NDArray[np.float64] | None
    ) -> NDArray[np.float64] | None:
        return (b if a is None else a) if a is None or b is None else a + b

    def combine_into(
        self, a: NDArray[np.float64] | None, b: NDArray[np.float64] | None
    ) -> NDArray[np.float64] | None:
        return (b if a is None else a) if a is None or b is None else add_upper(a, b)

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        return 8 * n_channels**2


def profile_basis(
    X: Any, where: Any, source: BlockSource, n_subspace: int
) -> tuple[NDArray[np.float64], float]:
    """Basis (E, F) of the weighted principal subspace for profiles x / g, and all counts.

    The trivial part, the mean spectrum, is left out.

    With weighted data X = D sqrt(N / (g h)) and its right singular vectors v, a profile's coordinates
    are (x / g) sqrt(N / h) v; pure counting noise has variance 1 / g in each.
    """
    noise = _SteadyPoisson(n_pixels=source.n_pixels)
    gram = None
    if source.n_channels <= MAX_GRAM:
        sweeps: list[Any] = [GramSweep(PoissonNoise()), _FaintGram()]
        moments, faint = (outcome.state for outcome in run_sweeps(sweeps, source))
        gram, totals = moments.gram, moments.totals
        if faint is not None:
            gram = gram - faint
    else:
        totals = run_sweep(TotalsSweep(counts=True), source).state
    if totals.total <= 0:
        raise InputError(
            "k-means: all pixels that are used are empty (no counts)",
            hint="check the selection (where=) and the energy window",
        )
    if not 1e-100 < totals.total < 1e100:
        raise InputError(
            f"KMeans: the sum of all counts is {totals.total:g}, 1e-100 to 1e100 can be clustered",
            hint="scale the cube by a constant first",
        )
    scale = noise.channel_scale(totals.channels, totals.total)
    if gram is None:
        # `IncrementalPCA` gives c = v / scale.
        pca = IncrementalPCA(n_components=n_subspace + 1, noise=noise).fit(X, where=where)
        spectra = np.asarray(pca.components_, dtype=np.float64)
        vectors = pca.axes_.used_channels(spectra.reshape(len(spectra), -1)).T * scale[:, None]
    else:
        vectors = _principal_vectors(gram, scale, n_subspace + 1)
    return np.ascontiguousarray(vectors[:, 1:] * scale[:, None]), totals.total


def _principal_vectors(
    gram: NDArray[np.float64], scale: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """First k eigenvectors (E, k) of a Gram matrix (its upper triangle) with scaled channels, signs fixed.

    Zeros where fewer than k channels hold anything.
    """
    gram = scaled_symmetric(gram, scale)
    used = np.flatnonzero(np.diagonal(gram) > 0)
    found = min(k, used.size)
    vectors = np.zeros((scale.size, k))
    small = gram if used.size == scale.size else gram[np.ix_(used, used)]
    vectors[used, :found] = leading_vectors(small, found)
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(k)]
    return vectors * np.where(largest < 0, -1.0, 1.0)
