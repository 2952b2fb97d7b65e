"""Where NMF starts: the corners of the cloud of pooled pixels in the subspace of the signal.

Letters: P pixels, E used channels, K components, Q vectors of a basis, D = K dims of the subspace.

The likelihood of single pixels has many optima and, where counts are few, its best one is wrong: each pixel's
loadings are fitted to its noise, which pays for components that lie too far out (the incidental parameters of
Neyman and Scott). Both go away where pixels are pooled. How far they may be pooled is read from the data:
until the noise of a pooled pixel is a small part of the spread of the weakest component, and only as long as
neighbours are alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.engine import run_sweep
from emcube.errors import InputError
from emcube.kernels.gram import add_symmetric
from emcube.kernels.narrow import channel_sums, in_few, there_and_back
from emcube.kernels.pooling import n_tiles, tile_index
from emcube.kernels.rows import CountRows
from emcube.kernels.subspace import scatter_image
from emcube.kernels.vertices import find_vertices
from emcube.models.nmf_losses import Loss
from emcube.models.nmf_sweeps import PooledSource
from emcube.models.noise import PoissonNoise
from emcube.models.pca_sweeps import GramSweep
from emcube.models.subspace import Space, leading_vectors, new_directions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource, RngKey

__all__ = [
    "SIDES",
    "Cloud",
    "Sketch",
    "SketchSweep",
    "choose_side",
    "corners",
    "corners_of",
    "covariance_of",
    "heavy_enough",
    "n_purest",
    "projector_of",
    "sample_sweep",
    "sketch",
    "spatial_dims",
    "spectra_at",
    "tile_of",
]

SIDES = (1, 2, 3, 4, 6, 8)
"""Sides of the tiles that are tried, in pixels; along a single dim a tile has as many pixels as a square."""

NOISE_SHARE = 0.25
"""Pooling stops where the noise of a pooled pixel is this share of the spread of the weakest component
(a standard deviation)."""

ALIKE = 0.75
"""Share of the spread (as a variance) that pooling must leave: neighbours that differ must not be mixed."""

ABOVE_NOISE = 1.5
"""A dim shows signal where its eigenvalue is this many times that of the noise."""

FEWEST_TILES = 400
"""Pooled pixels that must remain."""

SAMPLE = 65536
"""Pooled pixels that are looked at for corners, at most (about)."""

PUREST = 0.002
"""Share of the pooled pixels that are averaged for one corner."""

MOMENT_CHANNELS = 2048
"""Channels up to which the whole Gram matrix of counts costs no more than passes with a few vectors; PCA
sums it too, and shares it."""

OVERSAMPLES = 10

ROUNDS = 4
"""Passes in which the subspace is found."""


def spatial_dims(nav_dims: tuple[str, ...]) -> list[int]:
    """Which navigation dims are those of the image: the last two that are neither time nor angle."""
    apart = {"tilt", "time", "t", "z", "temperature", "file", "field"}
    return [d for d, name in enumerate(nav_dims) if name not in apart][-2:]


def tile_of(nav_dims: tuple[str, ...], side: int) -> tuple[int, ...]:
    """Lengths of a tile along the navigation dims.

    Space is pooled, not time or angle: the last two dims that are neither; a single one is pooled as long
    as a square is large.
    """
    spatial = spatial_dims(nav_dims)
    tile = [1] * len(nav_dims)
    if len(spatial) == 1:
        tile[spatial[0]] = side * side
    for d in spatial if len(spatial) == 2 else ():
        tile[d] = side
    return tuple(tile)


# ------------------------------------------------------------------------------------------ subspace


@dataclass(frozen=True, eq=False)
class Sketch:
    """The subspace of the signal.

    Attributes
    ----------
    totals : ndarray, shape (E,)
        Sum over pixels.
    n_pixels, n_empty : int
        Pixels, and those that hold nothing.
    total_weight : float
        Sum of the pixels' totals.
    square : float
        Sum of all squares, weighted as the scatter matrix is.
    scale : ndarray, shape (E,)
        Square root of the channel weights.
    vectors : ndarray, shape (E, D)
        Orthonormal, for data that are multiplied by `scale`.
    eigenvalues : ndarray, shape (Q,)
        Of the weighted scatter matrix, descending.
    squares : ndarray, shape (E,), or None
        Sum of squares of each channel, not weighted; None where counts tell their noise.
    """

    totals: NDArray[np.float64]
    n_pixels: int
    n_empty: int
    square: float
    scale: NDArray[np.float64]
    vectors: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    squares: NDArray[np.float64] | None = None

    @property
    def noise_profile(self) -> NDArray[np.float64]:
        """Variance (E,) that the subspace leaves in each (weighted) channel, over the mean; counts: one."""
        if self.squares is None:
            return np.ones(self.totals.size)
        held = np.square(self.vectors) @ self.eigenvalues[: self.vectors.shape[1]]
        left = np.maximum(self.squares * np.square(self.scale) - held, 0.0)
        mean = float(left.sum()) / max(1, int(np.count_nonzero(self.scale)))
        return left / mean if mean > 0.0 else np.ones(self.totals.size)


@dataclass(frozen=True, eq=False)
class _SketchState:
    """What is multiplied next; and what only the client needs: what the first pass saw, and the space."""

    front: NDArray[np.float64]
    scale: NDArray[np.float64] | None = None
    seen: Sketch | None = None
    space: Space = field(default_factory=Space)
    found: Sketch | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            "front": self.front,
            "scale": self.scale,
            "seen": None,
            "space": Space(),
            "found": None,
        }


@dataclass(frozen=True, eq=False)
class SketchSweep:
    """Leading vectors of sum_p x x' / g (counts) or sum_p x x' (least squares), without centring.

    A block Krylov space: each round multiplies what the last one showed to be new, and the answer is the best
    of all of them (Rayleigh-Ritz), multiplied once more. The first round also checks the values and sums the
    channels; the weights of the channels of counts, which need those sums, enter after it, so that it counts
    for nothing but a start.

    References
    ----------
    C. Musco, C. Musco, NeurIPS 28 (2015), block Krylov methods. https://arxiv.org/abs/1504.05477
    """

    loss: Loss
    first: NDArray[np.float64]
    n_components: int
    name: str = "NMF (subspace)"

    def start(self) -> _SketchState:
        """A random basis."""
        return _SketchState(self.first)

    def map(self, block: Block, state: _SketchState, rng_key: RngKey) -> Any:
        """Image of the newest vectors, and in the first round sums of one block."""
        data = block.data
        first = state.scale is None
        if first:
            self.loss.check(block)
        scaled = state.front if state.scale is None else state.scale[:, None] * state.front
        if isinstance(data, CountRows):
            image, _ = scatter_image(data, scaled, by_counts=self.loss.counts)
        else:
            image = there_and_back(data, scaled, by_totals=self.loss.counts)
        return image, *(_sums(data) if first else (0.0, 0, 0, 0.0))

    def combine(self, a: Any, b: Any) -> Any:
        """Add."""
        return tuple(x + y for x, y in zip(a, b, strict=True))

    def step(
        self, state: _SketchState, statistic: Any, round_number: int
    ) -> tuple[_SketchState, bool]:
        """Take the next vectors; at the end values and vectors."""
        image, channels, n_pixels, n_empty, squares = statistic
        if not np.isfinite(image).all():
            raise InputError(
                "values are too large: the products of their spectra are not finite",
                hint="divide the cube by a constant first",
            )
        seen, space = state.seen, state.space
        if seen is None:
            scale = np.sqrt(self.loss.channel_weights(channels))
            seen = Sketch(
                channels,
                n_pixels,
                n_empty,
                float(squares.sum()),
                scale,
                self.first[:, :0],
                np.zeros(0),
                None if self.loss.counts else squares,
            )
            if self.loss.counts:
                # Any start does, this one as well: it is the image of what the scale makes of the first.
                front, _ = np.linalg.qr(scale[:, None] * image)
                return _SketchState(front, scale, seen), False
        image = seen.scale[:, None] * image
        space = space.grown(state.front, image)
        width, n_channels = self.first.shape[1], len(image)
        front = new_directions(image, space.basis, min(width, n_channels - len(space.inner)))
        done = round_number + 1 >= ROUNDS or not front.shape[1]
        if not done:
            return _SketchState(front, seen.scale, seen, space), False
        values, turn = np.linalg.eigh(space.inner)
        # They were multiplied once more: what came of it is closer still.
        vectors, _ = np.linalg.qr(space.images_of(turn[:, ::-1][:, : self.n_components]))
        answer = replace(
            seen,
            vectors=np.ascontiguousarray(vectors),
            eigenvalues=values[::-1][:width].copy(),
        )
        return _SketchState(front, seen.scale, seen, Space(), answer), True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * (self.first.size + 2 * n_channels)

    def state_bytes(self, n_channels: int) -> int:
        """Bytes of the space and its images, and of what is made of them."""
        return 8 * self.first.size * (2 * ROUNDS + 2)


def sketch(
    source: BlockSource, loss: Loss, n_components: int, seed: int, name: str = "NMF"
) -> Sketch:
    """Find the subspace of the signal: from the moments of counts that PCA shares, or in a few passes.

    `name` says in progress events whose passes these are.
    """
    width = min(n_components + OVERSAMPLES, source.n_channels)
    if loss.counts and source.n_channels <= MOMENT_CHANNELS:
        return _from_moments(source, loss, n_components, width, name)
    rng = np.random.default_rng((seed, 0, 0))
    first, _ = np.linalg.qr(rng.standard_normal((source.n_channels, width)))
    sweep = SketchSweep(loss, first, n_components, f"{name} (subspace)")
    found: Sketch = run_sweep(sweep, source, seed=seed, max_rounds=ROUNDS).state.found
    return found


def _from_moments(
    source: BlockSource, loss: Loss, n_components: int, width: int, name: str
) -> Sketch:
    """The subspace from sum_p x x' / g, exactly and in one pass at most."""
    moments = run_sweep(GramSweep(PoissonNoise(), name=f"{name} (subspace)"), source).state
    totals = moments.totals
    scale = np.sqrt(loss.channel_weights(totals.channels))
    gram = add_symmetric(moments.gram.copy())
    gram *= scale
    gram *= scale[:, None]
    vectors = leading_vectors(gram, width)
    values = np.einsum("ek,ek->k", vectors, gram @ vectors)
    return Sketch(
        totals.channels,
        totals.n_pixels,
        totals.n_empty,
        # Least squares alone asks for the size of the noise: here the counts say it.
        float(np.trace(gram)),
        scale,
        np.ascontiguousarray(vectors[:, :n_components]),
        np.maximum(values, 0.0),
    )


def _sums(data: CountRows | NDArray[Any]) -> tuple[Any, ...]:
    """Channel totals, pixels, empty pixels, squares of the channels."""
    if isinstance(data, CountRows):
        channels = data.channel_totals().astype(np.float64)
        empty = int(np.count_nonzero(data.pixel_totals() == 0))
        weights = np.square(data.counts, dtype=np.float64)
        each = np.bincount(data.channels, weights, minlength=data.n_channels)
        return channels, data.n_pixels, empty, each
    channels, squares, empty = channel_sums(data)
    return channels, len(data), empty, squares


def _times(data: CountRows | NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return data.matmul(matrix) if isinstance(data, CountRows) else in_few(data, matrix.T)


def _pixel_sums(data: CountRows | NDArray[Any]) -> NDArray[np.float64]:
    if isinstance(data, CountRows):
        return data.pixel_totals().astype(np.float64)
    return np.asarray(data.sum(axis=1, dtype=np.float64))


def _positive(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(totals > 0.0, totals, 1.0)


# -------------------------------------------------------------------------------------------- pooling


@dataclass(frozen=True, eq=False)
class Cloud:
    """Second moments of the pooled pixels' scores, for each side of the tiles that was tried.

    A point is y = z / g with z the scores and g the normaliser of a pooled pixel (its counts; for least
    squares its sum within the subspace); points weigh g.

    Attributes
    ----------
    moments : ndarray, shape (sides, D, D)
        sum g y y'.
    sums : ndarray, shape (sides, D)
        sum g y.
    weight : ndarray, shape (sides,)
        sum g.
    noise : ndarray, shape (sides,)
        sum of g var(y), for each dim.
    n_tiles : ndarray, shape (sides,)
        Tiles that hold something.
    """

    moments: NDArray[np.float64]
    sums: NDArray[np.float64]
    weight: NDArray[np.float64]
    noise: NDArray[np.float64]
    n_tiles: NDArray[np.float64]

    def __add__(self, other: Cloud) -> Cloud:
        return Cloud(
            self.moments + other.moments,
            self.sums + other.sums,
            self.weight + other.weight,
            self.noise + other.noise,
            self.n_tiles + other.n_tiles,
        )

    def spread(self, i: int) -> tuple[NDArray[np.float64], float]:
        """Covariance (D, D) of the true points with the i-th side, and the noise variance of a dim."""
        weight = max(float(self.weight[i]), np.finfo(float).tiny)
        mean = self.sums[i] / weight
        noise = float(self.noise[i]) / weight
        covariance = self.moments[i] / weight - np.outer(mean, mean)
        return covariance - noise * np.eye(len(mean)), noise


@dataclass(frozen=True, eq=False)
class Projector:
    """Scores, normalisers and noise of pixels.

    Parameters
    ----------
    matrix : ndarray, shape (E, D)
    counts : bool
        Normalise by the pixel's counts, whose noise they also are.
    unit : ndarray, shape (D,)
        Least squares: scores times this are the pixel's sum within the subspace.
    variance : float
        Least squares: noise variance of a value.
    smallest : float
        Normaliser, as a share of that of the mean pixel, below which a pixel says nothing.
    """

    matrix: NDArray[np.float64]
    counts: bool
    unit: NDArray[np.float64]
    variance: float
    mean_total: float
    smallest: float = 0.1

    def pooled(
        self, block: Block, scores: NDArray[np.float64], tile: tuple[int, ...]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Scores (n, D), normalisers (n,) and noise variances (n,) of one block's tiles."""
        return self.tiles(block, scores, tile)[:3]

    def tiles(
        self, block: Block, scores: NDArray[np.float64], tile: tuple[int, ...]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """The same, and the number (n,) of each tile in the block."""
        groups = tile_index(block.nav_shape, tile)[block.box_index()]
        n = math.prod(n_tiles(block.nav_shape, tile))
        sums = np.zeros((n, scores.shape[1]))
        for column, values in enumerate(scores.T):
            sums[:, column] = np.bincount(groups, values, minlength=n)
        size = np.bincount(groups, minlength=n)
        z, g = sums[:, :-1], sums[:, -1]
        if self.counts:
            kept = g > 0.0
            return z[kept], g[kept], g[kept], np.flatnonzero(kept)
        kept = g > self.smallest * self.mean_total * np.maximum(size, 1)
        variance = (self.variance * size[kept]).astype(np.float64)
        return z[kept], g[kept], variance, np.flatnonzero(kept)

    def scores(self, block: Block) -> NDArray[np.float64]:
        """Scores (p, D) with the normaliser as the last column."""
        z = _times(block.data, self.matrix)
        g = _pixel_sums(block.data) if self.counts else z @ self.unit
        return np.column_stack([z, g])


@dataclass(frozen=True, eq=False)
class CloudSweep:
    """Moments of the cloud for several tile sizes, in one round."""

    projector: Projector
    tiles: tuple[tuple[int, ...], ...]
    name: str = "NMF (pooling)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> Cloud:
        """Moments of one block."""
        scores = self.projector.scores(block)
        moments, sums, weight, noise, count = [], [], [], [], []
        for tile in self.tiles:
            z, g, variance = self.projector.pooled(block, scores, tile)
            moments.append((z / g[:, None]).T @ z)
            sums.append(z.sum(axis=0))
            weight.append(g.sum())
            noise.append((variance / g).sum())
            count.append(float(g.size))
        return Cloud(
            np.array(moments), np.array(sums), np.array(weight), np.array(noise), np.array(count)
        )

    def combine(self, a: Cloud, b: Cloud) -> Cloud:
        """Add."""
        return a + b

    def step(self, state: Any, statistic: Cloud, round_number: int) -> tuple[Cloud, bool]:
        """One round is all."""
        return statistic, True


@dataclass(frozen=True, eq=False)
class SampleSweep:
    """Points of the cloud for one tile size; a random share of them where there are very many."""

    projector: Projector
    tile: tuple[int, ...]
    share: float
    name: str = "NMF (corners)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> NDArray[np.float64]:
        """Rows of scores, normaliser and noise variance."""
        z, g, variance = self.projector.pooled(block, self.projector.scores(block), self.tile)
        points = np.column_stack([z, g, variance])
        if self.share < 1.0:
            points = points[np.random.default_rng(rng_key).random(len(points)) < self.share]
        return points

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gather."""
        return np.concatenate((a, b))

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True


def projector_of(found: Sketch, loss: Loss) -> Projector:
    """Scores, normalisers and noise of pixels, for a subspace that was found."""
    matrix = np.ascontiguousarray(found.scale[:, None] * found.vectors)
    k = found.vectors.shape[1]
    left = found.square - float(found.eigenvalues[:k].sum())
    free = max(1, found.n_pixels * max(1, found.vectors.shape[0] - k))
    return Projector(
        matrix,
        loss.counts,
        found.vectors.sum(axis=0),
        max(left, 0.0) / free,
        max(float(found.totals.sum()) / max(1, found.n_pixels), np.finfo(float).tiny),
    )


def choose_side(
    source: BlockSource,
    loss: Loss,
    found: Sketch,
    nav_dims: tuple[str, ...],
    name: str = "NMF",
) -> int:
    """Choose the side of the tiles in which pixels are pooled, in one pass.

    The smallest side for which the noise of a pooled pixel is at most `NOISE_SHARE` of the spread of the
    weakest component; but none for which more than 1 - `ALIKE` of the spread of a dim that shows signal
    is lost (neighbours differ), or fewer than `FEWEST_TILES` tiles remain.
    """
    k = found.vectors.shape[1]
    tiles = tuple(tile_of(nav_dims, side) for side in SIDES)
    if k == 1 or all(t == tiles[0] for t in tiles):
        return 1
    sweep = CloudSweep(projector_of(found, loss), tiles, f"{name} (pooling)")
    cloud: Cloud = run_sweep(sweep, source).state
    plain, _ = cloud.spread(0)
    values, axes = np.linalg.eigh(plain)
    axes = axes[:, ::-1][:, : k - 1]
    alone = np.maximum(values[::-1][: k - 1], 0.0)
    # A dim in which single pixels show nothing but noise cannot tell whether neighbours are alike.
    beyond = found.eigenvalues[k:]
    edge = float(np.median(beyond)) if beyond.size else 0.0
    shown = found.eigenvalues[1:k] > ABOVE_NOISE * edge
    best = 1
    for i, side in enumerate(SIDES):
        covariance, noise = cloud.spread(i)
        left = np.einsum("dk,de,ek->k", axes, covariance, axes)
        if side > 1 and (cloud.n_tiles[i] < FEWEST_TILES or (left < ALIKE * alone)[shown].any()):
            break
        best = side
        if noise <= NOISE_SHARE**2 * max(float(left.min()), 0.0):
            break
    return best


def covariance_of(
    found: Sketch, loss: Loss
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Covariance of the noise at a point y of the cloud, over the square of the noise's size.

    Least squares: the unit matrix. Counts: the variance of a channel is what is expected there, which is
    linear in y; for the mean spectrum the sum is the unit matrix.
    """
    k = found.vectors.shape[1]
    if not loss.counts:
        return lambda corner: np.eye(k)
    scaled = found.scale[:, None] * found.vectors
    unscale = np.divide(1.0, found.scale, out=np.zeros_like(found.scale), where=found.scale > 0.0)

    def at(corner: NDArray[np.float64]) -> NDArray[np.float64]:
        expected = np.maximum(found.vectors @ corner * unscale, 0.0)
        return (scaled * expected[:, None]).T @ scaled

    return at


def corners(
    source: BlockSource,
    loss: Loss,
    found: Sketch,
    nav_dims: tuple[str, ...],
    side: int,
    seed: int,
    name: str = "NMF",
) -> NDArray[np.float64]:
    """Components (K, E) at the corners of the cloud of pooled pixels, in one pass.

    Raises
    ------
    InputError
        Fewer pixels than components hold anything.
    """
    tile = tile_of(nav_dims, side)
    projector = projector_of(found, loss)
    share = min(1.0, SAMPLE / max(1, PooledSource(source, tile).n_pixels))
    points = run_sweep(
        SampleSweep(projector, tile, share, f"{name} (corners)"), source, seed=seed
    ).state
    return corners_of(points, found, loss, seed)


def sample_sweep(
    found: Sketch, loss: Loss, nav_dims: tuple[str, ...], side: int, share: float
) -> SampleSweep:
    """Points of the cloud of pixels that were pooled before, in tiles of this side."""
    size = math.prod(tile_of(nav_dims, side))
    projector = projector_of(found, loss)
    # The blocks' pixels are tiles: their sums and their noise are those of so many pixels.
    projector = replace(
        projector,
        variance=projector.variance * size,
        mean_total=projector.mean_total * size,
    )
    return SampleSweep(projector, (1,) * len(nav_dims), share)


def corners_of(
    points: NDArray[np.float64], found: Sketch, loss: Loss, seed: int
) -> NDArray[np.float64]:
    """Components (K, E) at the corners of a cloud of points (n, K + 2), as `SampleSweep` gathers them.

    Raises
    ------
    InputError
        There are fewer points than components.
    """
    k = found.vectors.shape[1]
    if len(points) < k:
        raise InputError(
            f"{len(points)} pixels hold anything, {k} components are asked for",
            hint="ask for fewer components, or check the selection (where=)",
        )
    z, g, variance = points[:, :k], points[:, k], points[:, k + 1]
    noise = np.sqrt(variance) / g
    heavy = heavy_enough(g, noise, variance, k)
    found_corners = find_vertices(
        (z / g[:, None])[heavy],
        g[heavy],
        noise[heavy],
        k,
        n_average=n_purest(int(np.count_nonzero(heavy))),
        covariance=covariance_of(found, loss),
        rng=np.random.default_rng((seed, 0, 2)),
    )
    return spectra_at(found, found_corners)


def heavy_enough(
    weights: NDArray[np.float64],
    noise: NDArray[np.float64],
    variance: NDArray[np.float64],
    n_components: int,
) -> NDArray[np.bool_]:
    """Points that may be corners: pixels of the vacuum would be, by their own noise."""
    usual = np.sqrt(float((variance / weights).sum()) / float(weights.sum()))
    heavy = np.asarray(noise <= 3.0 * usual)
    if np.count_nonzero(heavy) < max(n_components, 20):
        return np.ones(len(weights), dtype=bool)
    return heavy


def n_purest(n_points: int) -> int:
    """Points that are averaged for one corner."""
    return max(5, round(PUREST * n_points))


def spectra_at(found: Sketch, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-negative spectra (K, E) at points (K, D) of the cloud; each sums to one."""
    unscale = np.divide(1.0, found.scale, out=np.zeros_like(found.scale), where=found.scale > 0.0)
    spectra = (points @ found.vectors.T) * unscale
    # What noise made negative becomes little, not nothing: an EM step cannot raise a zero.
    mean = found.totals / max(float(found.totals.sum()), np.finfo(float).tiny)
    spectra = np.maximum(spectra, 1e-3 * np.maximum(mean, 0.0))
    sums = spectra.sum(axis=1, keepdims=True)
    flat = np.full_like(spectra, 1.0 / spectra.shape[1])
    return np.where(sums > 0.0, spectra / np.where(sums > 0.0, sums, 1.0), flat)
