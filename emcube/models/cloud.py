"""The cloud of pixels in which endmembers are corners: gathered in one pass, as far as there is room.

Letters: P pixels, E used channels, K components and dims of the subspace, N points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.engine import run_sweep
from emcube.errors import InputError
from emcube.kernels.pooling import n_tiles
from emcube.models.nmf_start import (
    Projector,
    Sketch,
    covariance_of,
    heavy_enough,
    projector_of,
    tile_of,
)
from emcube.models.nmf_sweeps import PooledSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource, RngKey
    from emcube.models.nmf_losses import Loss

__all__ = ["POINTS", "Cloud", "gather", "in_plane"]

POINTS = 131072
"""Points of the cloud, at most (about): a random share of the (pooled) pixels where there are more."""


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points y = z / g: scores z in the weighted subspace over the total g of a (pooled) pixel.

    Attributes
    ----------
    values : ndarray, shape (N, K)
    weights : ndarray, shape (N,)
        g: counts, or for least squares the sum of the pixel within the subspace.
    variance : ndarray, shape (N,)
        Noise of a coordinate of z, as a variance.
    place : ndarray of int, shape (N, navigation dims)
        Position of the first pixel of the point.
    found : Sketch
        The subspace.
    side : int
        Side of the tiles whose pixels were summed.
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    variance: NDArray[np.float64]
    place: NDArray[np.int64]
    found: Sketch
    side: int

    @property
    def noise(self) -> NDArray[np.float64]:
        """Standard deviation (N,) of a coordinate."""
        return np.asarray(np.sqrt(self.variance) / self.weights)

    def heavy(self, n_components: int) -> Cloud:
        """Points that may be corners, without those of the vacuum."""
        return self._of(heavy_enough(self.weights, self.noise, self.variance, n_components))

    def _of(self, rows: NDArray[Any]) -> Cloud:
        return replace(
            self,
            values=self.values[rows],
            weights=self.weights[rows],
            variance=self.variance[rows],
            place=self.place[rows],
        )

    def joined(self, other: Cloud, rng: np.random.Generator) -> Cloud:
        """Points of both, a random choice of them where they are too many."""
        whole = replace(
            self,
            values=np.concatenate((self.values, other.values)),
            weights=np.concatenate((self.weights, other.weights)),
            variance=np.concatenate((self.variance, other.variance)),
            place=np.concatenate((self.place, other.place)),
        )
        return whole if len(whole.weights) <= POINTS else whole.some(rng, POINTS)

    def some(self, rng: np.random.Generator, n: int) -> Cloud:
        """A random choice of `n` points, in their order."""
        return self._of(np.sort(rng.choice(len(self.weights), n, replace=False)))

    def covariance(self, loss: Loss) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """Covariance of the noise at a point, over the square of the noise's size."""
        return covariance_of(self.found, loss)


@dataclass(frozen=True, eq=False)
class PointSweep:
    """Points of the cloud, in one round."""

    projector: Projector
    tile: tuple[int, ...]
    share: float
    name: str

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> tuple[NDArray[Any], NDArray[Any]]:
        """Rows of scores, normaliser and noise variance of one block; and where they are."""
        z, g, variance, number = self.projector.tiles(
            block, self.projector.scores(block), self.tile
        )
        points = np.column_stack([z, g, variance])
        if self.share < 1.0:
            kept = np.random.default_rng(rng_key).random(len(points)) < self.share
            points, number = points[kept], number[kept]
        return points, self._place(block, number)

    def _place(self, block: Block, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """Position of the first pixel of each tile, shape (n, navigation dims)."""
        place = np.zeros((len(number), len(self.tile)), dtype=np.int64)
        inside = np.unravel_index(number, n_tiles(block.nav_shape, self.tile)) if self.tile else ()
        for d, (i, t, o) in enumerate(zip(inside, self.tile, block.offset, strict=True)):
            place[:, d] = i * t + o
        return place

    def combine(
        self, a: tuple[NDArray[Any], NDArray[Any]], b: tuple[NDArray[Any], NDArray[Any]]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Gather."""
        return np.concatenate((a[0], b[0])), np.concatenate((a[1], b[1]))

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True


def gather(
    source: BlockSource,
    loss: Loss,
    found: Sketch,
    nav_dims: tuple[str, ...],
    side: int,
    seed: int,
    name: str,
) -> Cloud:
    """Gather the cloud, in one pass.

    Raises
    ------
    InputError
        Fewer pixels than components hold anything.
    """
    k = found.vectors.shape[1]
    tile = tile_of(nav_dims, side)
    whole = source if math.prod(tile) == 1 else PooledSource(source, tile)
    share = min(1.0, POINTS / max(1, whole.n_pixels))
    sweep = PointSweep(projector_of(found, loss), tile, share, f"{name} (points)")
    points, place = run_sweep(sweep, source, seed=seed).state
    if len(points) < k:
        raise InputError(
            f"{len(points)} pixels hold anything, {k} components are asked for",
            hint="ask for fewer components, or check the selection (where=)",
        )
    values = points[:, :k] / points[:, k : k + 1]
    return Cloud(values, points[:, k], points[:, k + 1], place, found, side)


def in_plane(cloud: Cloud, corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners at the same place of their rays, in the plane of the points."""
    normal = np.linalg.lstsq(cloud.values * cloud.weights[:, None], cloud.weights, rcond=None)[0]
    return np.asarray(corners / (corners @ normal)[:, None])
