"""Where k-means starts: samples drawn in two passes over the blocks, and many starts solved on them.

The first pass draws pixels by weight. Centers found on those serve the second one, which draws again,
half by weight and half by squared distance to them, so that rare pixels far from everything are met
too; and which makes a step of Lloyd's iteration at the same time. The second sample is a fair picture
of the inertia of any K centers, and the starts that reach the least on it sweep the cube.

Letters: P pixels, F features, R starts, K clusters, n pixels of a sample.

References
----------
Feldman, Langberg, STOC 2011, 569, doi:10.1145/1993636.1993712, and Bachem, Lucic, Krause, KDD 2018,
1119, doi:10.1145/3219819.3219973 (samples for k-means). Cohen, Kaplan, PODC 2007, 225,
doi:10.1145/1281100.1281133 (weights of a sample without replacement). Arthur, Vassilvitskii, SODA 2007,
1027 (seeding on a sample).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from emcube.engine import Block, RngKey
from emcube.engine.threads import default_threads, single_threaded_blas
from emcube.errors import InputError
from emcube.kernels import kmeans as kernel
from emcube.kernels.kmeans_gaps import RowClusters, farthest_pixels, find_clusters
from emcube.kernels.rows import CountRows
from emcube.models.block_notes import BlockNotes

__all__ = ["Features", "Sample", "Sounding", "Survey", "find_starts", "join_lloyd_parts"]
__all__ += ["lloyd_parts", "moved_centers", "rough_start", "sample_size"]

SAMPLE_PIXELS = 1 << 14
"""Pixels of a sample at most."""

SAMPLE_NUMBERS = 1 << 19
"""Stored pairs, or dense features, of a sample at most; a few pixels a cluster are taken in any case."""

SEED_PIXELS = 256
"""Pixels of the sample among which starts are seeded."""

PART_PIXELS, PART_NUMBERS = 1 << 11, 1 << 17
"""Pixels, and numbers, of the part of the sample on which the worse starts are given up."""

GROUPS = 2
"""Groups of starts that go on side by side."""

GROUP_NUMBERS = 1 << 21
"""Numbers that a sample holds times starts from which on it pays."""

SAME = 0.98
"""Two starts that put this share of the weight into the same clusters have found the same."""

DOUBT = 4.0
"""Standard errors by which a start may lie above the best of the sample and still sweep the cube."""


class Features(Protocol):
    """What k-means measures distances in: values and weights of a block's pixels."""

    unweighted: ClassVar[bool]
    """Whether every pixel weighs one."""

    @property
    def n_features(self) -> int:
        """F."""
        ...

    def of(self, block: Block) -> tuple[kernel.Cells, NDArray[np.float64]]:
        """Features (p, F) and weights (p,) of a block of the cube."""
        ...


class SampleSize(NamedTuple):
    """What a sample may hold."""

    most: int
    """Pixels at most."""

    least: int
    """Pixels that are taken whatever they hold."""

    numbers: int
    """Stored pairs, or dense features, beyond that many pixels."""

    def pixels(self, stored: NDArray[np.int64]) -> int:
        """How many of some pixels fit, of which it is known what they hold."""
        fits = int(np.searchsorted(np.cumsum(stored), self.numbers, "right"))
        return min(self.most, max(self.least, fits))


def sample_size(n_clusters: int) -> SampleSize:
    """Size of a sample on which K clusters are found."""
    return SampleSize(
        max(SAMPLE_PIXELS, 64 * n_clusters), max(256, 16 * n_clusters), SAMPLE_NUMBERS
    )


def part_size(n_clusters: int) -> SampleSize:
    """Size of the part on which starts are seeded and the worse ones given up."""
    least = 2 * _n_seeds(n_clusters)
    return SampleSize(max(PART_PIXELS, 64 * n_clusters, least), least, PART_NUMBERS)


def _n_seeds(n_clusters: int) -> int:
    """Pixels among which starts are seeded."""
    return max(SEED_PIXELS, 16 * n_clusters)


@dataclass(frozen=True, eq=False)
class Sample:
    """Pixels drawn without replacement; samples of blocks merge into one of the cube.

    Attributes
    ----------
    keys : ndarray, shape (n,)
        Random keys, descending (see `emcube.kernels.kmeans.sample_keys`).
    weights, chances : ndarray, shape (n,)
        Weights, and what the chance to be drawn goes by.
    sizes : ndarray of int, shape (n,)
        Numbers that each pixel holds.
    floor : float
        The sample holds all pixels whose key lies above.
    parts : tuple of CountRows or ndarray
        Drawn pixels, some of which merging may have given up.
    places : ndarray of int, shape (n,)
        Where each pixel is in the parts, counted through.
    """

    keys: NDArray[np.float64]
    weights: NDArray[np.float64]
    chances: NDArray[np.float64]
    sizes: NDArray[np.int64]
    floor: float
    parts: tuple[kernel.Cells, ...]
    places: NDArray[np.int64]

    @classmethod
    def draw(
        cls,
        values: kernel.Cells,
        weights: NDArray[np.float64],
        chances: NDArray[np.float64],
        rng_key: RngKey,
        size: SampleSize,
        floor: float = -np.inf,
    ) -> Sample:
        """Draw from the pixels of a block (p, F): those above `floor`, as many as a sample holds."""
        rng = np.random.default_rng(rng_key)
        pixels, keys = kernel.sample_keys(chances, rng, size.most + 1, floor)
        sizes = kernel.stored(values)[pixels]
        every = np.arange(pixels.size)
        found = cls(keys, weights[pixels], chances[pixels], sizes, float(floor), (), every)
        found = found.first(size.pixels(sizes))
        return replace(found, parts=(kernel.take(values, pixels[: found.keys.size]),))

    @property
    def values(self) -> kernel.Cells:
        """Features, shape (n, F)."""
        if len(self.parts) == 1 and self.places.size == self.parts[0].shape[0]:
            return self.parts[0]
        return kernel.take(kernel.stack(self.parts), self.places)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Chance of each pixel to be in the sample."""
        return -np.expm1(self.chances * self.floor)

    def merge(self, other: Sample, size: SampleSize) -> Sample:
        """Sample of both."""
        floor = max(self.floor, other.floor)
        n_held = sum(part.shape[0] for part in self.parts)
        keys = np.concatenate([self.keys, other.keys])
        order = np.argsort(-keys, kind="stable")
        order = order[keys[order] > floor]
        merged = Sample(
            keys[order],
            np.concatenate([self.weights, other.weights])[order],
            np.concatenate([self.chances, other.chances])[order],
            np.concatenate([self.sizes, other.sizes])[order],
            floor,
            self.parts + other.parts,
            np.concatenate([self.places, n_held + other.places])[order],
        )
        merged = merged.first(size.pixels(merged.sizes))
        n_held = sum(part.shape[0] for part in merged.parts)
        # Copying at each merge would cost more than drawing.
        return merged.gathered() if n_held > 4 * merged.keys.size else merged

    def gathered(self) -> Sample:
        """The same, without the pixels that were given up."""
        return replace(self, parts=(self.values,), places=np.arange(self.keys.size))

    def first(self, n: int) -> Sample:
        """The n pixels of the largest keys: a sample too."""
        if n >= self.keys.size:
            return self
        return Sample(
            self.keys[:n],
            self.weights[:n],
            self.chances[:n],
            self.sizes[:n],
            float(self.keys[n]),
            self.parts,
            self.places[:n],
        )


def _floor(n_wanted: float, n_pixels: int, total: float) -> float:
    """Key that twice the pixels that are wanted reach, where the chances sum to `total` or more."""
    return -2.0 * n_wanted / total if n_pixels > n_wanted else -np.inf


@dataclass(frozen=True, eq=False)
class Survey:
    """First pass: weight, weighted squares and sums of the features, and a small sample drawn by weight.

    Attributes
    ----------
    total_weight : float or None
        Sum of all weights, where it is known beforehand: fewer pixels are picked up in vain.
    """

    features: Features
    n_clusters: int
    n_pixels: int
    total_weight: float | None = None
    name: str = "k-means survey"

    def start(self) -> None:
        """Nothing is known before the first block."""
        return

    def map(self, block: Block, state: None, rng_key: RngKey) -> tuple[NDArray[np.float64], Sample]:
        """Moments (2 + F,) and sample of a block."""
        values, weights = self.features.of(block)
        floor, size = -np.inf, part_size(self.n_clusters)
        if self.total_weight is not None:
            floor = _floor(size.most, self.n_pixels, self.total_weight)
        sample = Sample.draw(values, weights, weights, rng_key, size, floor)
        return kernel.moments(values, None if self.features.unweighted else weights), sample

    def combine(self, a: Any, b: Any) -> tuple[NDArray[np.float64], Sample]:
        """Add moments, merge samples."""
        return a[0] + b[0], a[1].merge(b[1], part_size(self.n_clusters))

    def step(self, state: None, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * (self.features.n_features + 2 * PART_NUMBERS)


@dataclass(frozen=True, eq=False)
class Sounding:
    """Second pass: a Lloyd step from centers (K, F), and a sample drawn by weight and by distance.

    It ends with the moved centers, the inertia of those before, and the sample.

    A pixel's chance goes by w / (sum of w) + w d^2 / `inertia`, where the inertia is that of the
    centers, or an estimate of it.

    Attributes
    ----------
    stored : float
        Numbers that a pixel holds on average: many fewer pixels are picked up in vain.
    notes : BlockNotes of RowClusters
        Takes the clusters of blocks of rows, from which Lloyd's iteration goes on.
    """

    features: Features
    centers: NDArray[np.float64]
    n_clusters: int
    n_pixels: int
    total_weight: float
    inertia: float
    stored: float = 0.0
    notes: BlockNotes[RowClusters] = field(default_factory=lambda: BlockNotes("clusters"))
    name: str = "k-means sounding"

    def start(self) -> None:
        """The centers say it all."""
        return

    def map(self, block: Block, state: None, rng_key: RngKey) -> tuple[Any, ...]:
        """Sums, weights, inertia and farthest pixels of the clusters, and the sample of a block."""
        values, weights = self.features.of(block)
        parts, costs = self._parts(block, values, weights)
        chances = weights / self.total_weight
        if self.inertia > 0:
            chances = chances + costs / self.inertia
        size = sample_size(self.n_clusters)
        wanted = min(size.most, max(size.least, size.numbers / max(self.stored, 1.0)))
        # The chances of all pixels sum to one or more.
        floor = _floor(wanted, self.n_pixels, 1.0)
        sample = Sample.draw(values, weights, chances, rng_key, size, floor)
        return (*parts, sample)

    def _parts(
        self, block: Block, values: kernel.Cells, weights: NDArray[np.float64]
    ) -> tuple[tuple[NDArray[np.float64], ...], NDArray[np.float64]]:
        """Sums, weights, inertia and farthest pixels of the clusters, and w d^2 of each pixel."""
        if not isinstance(values, CountRows) or not self.features.unweighted:
            found = kernel.lloyd_sums(values, weights, self.centers[None])
            return lloyd_parts(values, found), found.costs[0]
        costs = np.empty((1, block.n_pixels))
        clusters = find_clusters(values, self.centers[None], costs)
        far_cost, pixels = farthest_pixels(clusters.labels[0], costs[0], len(self.centers))
        far = kernel.take_dense(values, pixels) if block.n_pixels else np.zeros_like(self.centers)
        # The sums are copied: the next pass changes what is noted.
        parts = (clusters.sums.copy(), clusters.won.copy(), clusters.inertia())
        self.notes.note(block, clusters)
        return (*parts, far_cost[None], far[None]), costs[0]

    def combine(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        """Join sums, merge samples."""
        sample = a[-1].merge(b[-1], sample_size(self.n_clusters))
        return (*join_lloyd_parts(a[:-1], b[:-1]), sample)

    def step(self, state: None, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """Move the centers; one round is all."""
        sums, won, inertia, far_cost, far, sample = statistic
        moved = moved_centers(self.centers, sums[0], won[0], far_cost[0], far[0])
        return (moved, float(inertia[0]), sample), True

    def objective(self, state: Any) -> float:
        """Inertia at the centers."""
        return float(state[1])

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * (2 * self.centers.size + 2 * SAMPLE_NUMBERS)


def lloyd_parts(values: kernel.Cells, found: kernel.LloydSums) -> tuple[NDArray[np.float64], ...]:
    """What a block adds to a pass of R starts: sums, weights, inertia, farthest pixels and their costs."""
    far = np.zeros_like(found.sums)
    if values.shape[0]:
        far = kernel.take_dense(values, found.far_pixel.ravel()).reshape(found.sums.shape)
    return found.sums, found.won, found.inertia, found.far_cost, far


def join_lloyd_parts(
    a: tuple[NDArray[np.float64], ...], b: tuple[NDArray[np.float64], ...]
) -> tuple[NDArray[np.float64], ...]:
    """Parts of two blocks: sums add, of two farthest pixels, where they are wanted, the farther one stays."""
    added = (a[0] + b[0], a[1] + b[1], a[2] + b[2])
    if len(a) == 3:
        return added
    farther = b[3] > a[3]
    cost = np.where(farther, b[3], a[3])
    return (*added, cost, np.where(farther[..., None], b[4], a[4]))


def moved_centers(
    centers: NDArray[np.float64],
    sums: NDArray[np.float64],
    won: NDArray[np.float64],
    far_cost: NDArray[np.float64],
    far: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Means of the clusters (K, F); one that won nothing takes the farthest pixel of another.

    Each cluster gives one pixel at most, the farthest ones first.
    """
    moved = np.where(won[:, None] > 0, sums, centers) / np.where(won > 0, won, 1.0)[:, None]
    farthest = np.argsort(-far_cost, kind="stable")
    for k, giver in zip(np.flatnonzero(won == 0), farthest, strict=False):
        if far_cost[giver] > 0:
            moved[k] = far[giver]
    return np.asarray(moved, dtype=np.float64)


# ------------------------------------------------------------------------------- on the sample alone


def find_starts(
    sample: Sample,
    n_clusters: int,
    n_starts: int,
    seed: tuple[int, ...],
    *,
    given: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Find centers to start from, shape (at most n_starts, K, F), the best first.

    Eight seeds a start are sown; the worse half is given up again and again while Lloyd's iteration
    runs on a part of the sample. What is left is refined on all of it, and different optima are kept
    that it cannot tell from the best one: inertia close to the best may come with quite other labels,
    so that the sample alone must not decide.

    Parameters
    ----------
    sample : Sample
    n_clusters : int
        K.
    n_starts : int
        At most so many are kept.
    seed : tuple of int
    given : ndarray, shape (K, F), optional
        Centers from a pass over all pixels, better than any refined on the sample: a start that is the
        same to its labels gives way to them.

    Raises
    ------
    InputError
        There are fewer than K distinct pixels.
    """
    rng, sample = np.random.default_rng(seed), sample.gathered()
    with single_threaded_blas():
        starts = _sown(sample, n_clusters, 8 * n_starts, rng)
        if starts.n_clusters < n_clusters:
            raise InputError(
                f"KMeans: {n_clusters} clusters need as many distinct pixels, found only "
                f"{starts.n_clusters}",
                hint="use fewer clusters",
            )
        while len(starts.centers) > 2 * n_starts:
            starts.go_on(2)
            starts.keep(starts.order[: max(2 * n_starts, len(starts.centers) // 2)])
        starts.go_on(50)
        starts.keep(starts.different())
        centers = starts.centers
        if given is not None and len(given) == n_clusters:
            centers = np.concatenate([given[None], centers])
        refined = _Starts(sample, centers)
        refined.go_on(1)
        labels_of_given = refined.labels[0].copy()
        refined.go_on(50)
        refined.keep(refined.different())
        refined.keep(refined.undecided()[:n_starts])
    out = refined.centers.copy()
    if centers is not starts.centers:
        for r, labels in enumerate(refined.labels):
            if _agreement(labels, labels_of_given, refined.weights, n_clusters) >= SAME:
                out[r] = given
    return out


def rough_start(
    sample: Sample, n_clusters: int, seed: tuple[int, ...]
) -> tuple[NDArray[np.float64], float]:
    """Best of eight starts on a part of a sample: centers (K, F), and an estimate of their inertia.

    Fewer than K centers where there are no more distinct pixels.
    """
    with single_threaded_blas():
        starts = _sown(sample.gathered(), n_clusters, 8, np.random.default_rng(seed))
        starts.go_on(3)
        starts.keep(starts.order[:1])
        starts.go_on(10)
    return starts.centers[0], float(starts.inertia[0])


def _sown(sample: Sample, n_clusters: int, n_starts: int, rng: np.random.Generator) -> _Starts:
    """Starts seeded with greedy k-means++ among some pixels of a sample, to go on with some more."""
    few = sample.first(_n_seeds(n_clusters))
    values, weights = few.values, few.weights / few.probabilities
    dense = kernel.take_dense(values, np.arange(few.keys.size))
    distances = kernel.square_distances(values, dense)
    # Rounding leaves equal pixels a hair's distance apart.
    distances[distances <= 1e-12 * np.square(dense).sum(axis=1).max(initial=0.0)] = 0.0
    seeds = np.stack([_plus_plus(distances, weights, n_clusters, rng) for _ in range(n_starts)])
    part = sample.first(part_size(n_clusters).pixels(sample.sizes))
    centers = dense[seeds]
    if seeds.shape[1] < n_clusters and few.keys.size < sample.keys.size:
        # There are more pixels to choose from.
        part, centers = sample, _filled_up(sample, centers[0], n_clusters, rng)[None]
    return _Starts(part, centers)


def _plus_plus(
    distances: NDArray[np.float64],
    weights: NDArray[np.float64],
    n_clusters: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """K pixels, each drawn by its squared distance to those before, the best of some tries.

    Fewer where all others are equal to one of them.
    """
    n_tries = 2 + int(np.log(n_clusters))
    chosen = [_draw(weights, 1, rng)[0]]
    nearest = distances[chosen[0]]
    while len(chosen) < n_clusters and nearest.any():
        tries = _draw(weights * nearest, n_tries, rng)
        after = np.minimum(nearest, distances[tries])
        best = int((after @ weights).argmin())
        chosen.append(tries[best])
        nearest = after[best]
    return np.array(chosen, dtype=np.int64)


def _filled_up(
    sample: Sample, centers: NDArray[np.float64], n_clusters: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Centers and further pixels of a sample, each drawn by its squared distance to those before."""
    values, weights = sample.values, sample.weights / sample.probabilities
    squares = kernel.nearest_distance(values, np.zeros((1, centers.shape[1])))
    while len(centers) < n_clusters:
        nearest = kernel.nearest_distance(values, centers)
        nearest[nearest <= 1e-12 * squares.max()] = 0.0
        if not nearest.any():
            break
        pixel = _draw(weights * nearest, 1, rng)
        centers = np.concatenate([centers, kernel.take_dense(values, pixel)])
    return centers


def _draw(weights: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw n pixels by weight, with replacement; none of weight zero."""
    sums = np.cumsum(weights)
    found = np.searchsorted(sums, rng.random(n) * sums[-1], side="right")
    return np.asarray(np.minimum(found, np.flatnonzero(weights)[-1]), dtype=np.int64)


class _Starts:
    """Several starts on one sample, going on with Lloyd's iteration until they move no more."""

    def __init__(self, sample: Sample, centers: NDArray[np.float64]) -> None:
        self.values, self.probabilities = sample.values, sample.probabilities
        self.weights = sample.weights / self.probabilities
        self.numbers = int(sample.sizes.sum())
        self.centers = centers
        n_starts, n_pixels = len(centers), sample.keys.size
        self.labels = np.full((n_starts, n_pixels), -1, dtype=np.int32)
        self.costs = np.zeros((n_starts, n_pixels))
        self.inertia = np.full(n_starts, np.inf)
        self.moving = np.ones(n_starts, dtype=bool)

    @property
    def n_clusters(self) -> int:
        """K."""
        return int(self.centers.shape[1])

    def go_on(self, n_rounds: int) -> None:
        """Move centers for some rounds; labels, costs and inertia are those before the last move."""
        with ThreadPoolExecutor(min(GROUPS, default_threads())) as pool:
            for _ in range(n_rounds):
                active = np.flatnonzero(self.moving)
                if not active.size:
                    return
                if active.size * self.numbers < GROUP_NUMBERS:
                    self._move(active)
                    continue
                # The same groups on any number of threads: bits may depend on which starts go together.
                list(pool.map(self._move, np.array_split(active, GROUPS)))

    def _move(self, active: NDArray[np.int64]) -> None:
        """Move the centers of some starts once."""
        if not active.size:
            return
        found = kernel.lloyd_sums(self.values, self.weights, self.centers[active])
        for i, r in enumerate(active):
            sums, won, far_cost = found.sums[i], found.won[i], found.far_cost[i]
            empty = not won.all()
            # No label changed: the centers are the means of their pixels already.
            self.moving[r] = empty or bool((found.labels[i] != self.labels[r]).any())
            if self.moving[r]:
                far = kernel.take_dense(self.values, found.far_pixel[i]) if empty else sums
                self.centers[r] = moved_centers(self.centers[r], sums, won, far_cost, far)
        self.labels[active], self.costs[active] = found.labels, found.costs
        self.inertia[active] = found.inertia

    @property
    def order(self) -> NDArray[np.int64]:
        """Numbers of the starts, the best first."""
        return np.argsort(self.inertia, kind="stable")

    def keep(self, starts: NDArray[np.int64]) -> None:
        """Give up all starts but some."""
        for name in ("centers", "labels", "costs", "inertia", "moving"):
            setattr(self, name, getattr(self, name)[starts])

    def different(self) -> NDArray[np.int64]:
        """Starts that found different clusters, the best first."""
        kept: list[int] = []
        for r in self.order:
            agreements = (
                _agreement(self.labels[r], self.labels[s], self.weights, self.n_clusters)
                for s in kept
            )
            if all(share < SAME for share in agreements):
                kept.append(int(r))
        return np.array(kept, dtype=np.int64)

    def undecided(self) -> NDArray[np.int64]:
        """The best start, and those that the sample cannot tell from it."""
        order = self.order
        above = self.costs[order] - self.costs[order[0]]
        error = np.sqrt(np.square(above) @ (1.0 - self.probabilities))
        return np.asarray(order[above.sum(axis=1) <= DOUBT * error])


def _agreement(
    a: NDArray[np.int32], b: NDArray[np.int32], weights: NDArray[np.float64], n_clusters: int
) -> float:
    """Share of the weight in pairs of clusters that correspond to each other, the lower of both ways."""
    table = np.bincount(a * n_clusters + b, weights=weights, minlength=n_clusters**2)
    table = table.reshape(n_clusters, n_clusters)
    return float(min(table.max(axis=0).sum(), table.max(axis=1).sum()) / table.sum())
