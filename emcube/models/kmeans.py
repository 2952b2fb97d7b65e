"""k-means over blocks: k-means|| seeding, several starts in one pass, empty clusters reseeded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClusterMixin, TransformerMixin

from emcube.engine import Block, BlockSource, MappedSource, RngKey, run_sweep
from emcube.engine.memory import resident
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.kernels import kmeans as kernel
from emcube.kernels.rows import CountRows
from emcube.models.base import Estimator, Pick, as_source, resolve_seed
from emcube.models.labels import (
    Labels,
    map_pixels,
    require_finite_counts,
    require_finite_values,
)
from emcube.models.noise import PoissonNoise
from emcube.models.sweeps import TotalsSweep

__all__ = ["KMeans"]

PATIENCE = 10
"""Rounds at the gain of the last one after which a start must have reached the best."""

SAMPLE_BYTES = 8 << 20
"""Pixels drawn to compare starts before any of them sweeps the cube take at most this much."""

FeatureName = Literal["auto", "profiles", "counts"]


class Features(Protocol):
    """What k-means measures distances in: values and weights of a block's pixels."""

    @property
    def n_features(self) -> int:
        """F."""
        ...

    def of(self, block: Block) -> tuple[kernel.Cells, NDArray[np.float64]]:
        """Features (p, F) and weights (p,) of a block of the cube."""
        ...


@dataclass(frozen=True, eq=False)
class _AsIs:
    """The cube as it is, every pixel of weight one."""

    n_features: int

    def of(self, block: Block) -> tuple[kernel.Cells, NDArray[np.float64]]:
        require_finite_values(block)
        return block.data, np.ones(block.n_pixels)


@dataclass(frozen=True, eq=False)
class _Profiles:
    """Profiles x / g times a basis (E, F), each pixel weighted by its total g.

    The variance of a profile of g counts goes as 1 / g: the weight makes the distances of strong and weak
    pixels count alike.
    """

    basis: NDArray[np.float64]

    @property
    def n_features(self) -> int:
        return int(self.basis.shape[1])

    def of(self, block: Block) -> tuple[kernel.Cells, NDArray[np.float64]]:
        require_finite_counts(block)
        data = block.data
        if isinstance(data, CountRows):
            totals = data.pixel_totals().astype(np.float64)
            projected = data.matmul(self.basis)
        else:
            values = np.asarray(data, dtype=np.float64)
            totals = values.sum(axis=1)
            projected = values @ self.basis
        return projected / np.where(totals > 0, totals, 1.0)[:, None], totals

    def columns(self, block: Block) -> NDArray[np.float64]:
        """Features with the weight as the last column, for a `MappedSource`."""
        values, weights = self.of(block)
        return np.column_stack([cast("NDArray[np.float64]", values), weights])


@dataclass(frozen=True, eq=False)
class _Columns:
    """Features that were computed before, the weight in the last column."""

    n_features: int

    def of(self, block: Block) -> tuple[kernel.Cells, NDArray[np.float64]]:
        values = cast("NDArray[np.float64]", block.data)
        return np.ascontiguousarray(values[:, :-1]), np.ascontiguousarray(values[:, -1])


@dataclass(frozen=True, eq=False)
class _Sample:
    """Drawn pixels: their keys, descending, and their features."""

    keys: NDArray[np.float64]
    features: NDArray[np.float64]

    def merge(self, other: _Sample, n: int) -> _Sample:
        keys = np.concatenate([self.keys, other.keys])
        order = np.argsort(-keys, kind="stable")[:n]
        return _Sample(keys[order], np.concatenate([self.features, other.features])[order])


@dataclass(frozen=True, eq=False)
class _SeedState:
    candidates: NDArray[np.float64]
    sample: NDArray[np.float64] | None = None
    variance: float = 0.0
    won: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class _Seeding:
    """k-means||: rounds that draw pixels by their squared distance to the candidates so far.

    Round 0 draws `n_sample` pixels by weight, the first of which is the first candidate; rounds 1 to
    `n_rounds` draw `n_draw` each; the last counts what each candidate wins.

    References
    ----------
    Bahmani, Moseley, Vattani, Kumar, Vassilvitskii, Proc. VLDB 5 (2012) 622, arXiv:1203.6402.
    """

    features: Features
    n_draw: int
    n_rounds: int
    n_sample: int
    name: str = "k-means seeding"

    def start(self) -> _SeedState:
        return _SeedState(np.empty((0, self.features.n_features)))

    def map(self, block: Block, state: _SeedState, rng_key: RngKey) -> tuple[Any, ...]:
        values, weights = self.features.of(block)
        number = rng_key[1]
        if number > self.n_rounds:
            labels = kernel.assign(values, state.candidates).labels
            won = np.bincount(labels, weights=weights, minlength=len(state.candidates))
            return (won,)
        moments = _moments(values, weights) if number == 0 else np.zeros(0)
        draw = weights
        n_draw = self.n_sample
        if number:
            draw = weights * kernel.nearest_distance(values, state.candidates)
            # Rounding leaves a pixel that is a candidate itself a hair's distance away.
            draw = np.where(draw > 1e-12 * state.variance * weights, draw, 0.0)
            n_draw = self.n_draw
        rng = np.random.default_rng(rng_key)
        pixels, keys = kernel.sample_keys(draw, rng, n_draw)
        return moments, _Sample(keys, kernel.take_dense(values, pixels))

    def combine(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(a) == 1:
            return (a[0] + b[0],)
        n = self.n_sample if a[0].size else self.n_draw
        return a[0] + b[0], a[1].merge(b[1], n)

    def step(
        self, state: _SeedState, statistic: tuple[Any, ...], round_number: int
    ) -> tuple[_SeedState, bool]:
        if len(statistic) == 1:
            return replace(state, won=statistic[0]), True
        moments, sample = statistic
        if round_number == 0:
            weight, squares, sums = moments[0], moments[1], moments[2:]
            if weight <= 0:
                raise InputError(
                    "k-means: all pixels that are used are empty (no counts)",
                    hint="check the selection (where=) and the energy window",
                )
            variance = max(0.0, squares / weight - float(sums @ sums) / weight**2)
            return _SeedState(sample.features[:1], sample.features, variance), False
        candidates = np.concatenate([state.candidates, sample.features])
        return replace(state, candidates=candidates), False


def _moments(values: kernel.Cells, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of weights, weighted squares, weighted sums: shape (2 + F,)."""
    zeros = np.zeros((1, values.shape[1]))
    squares = kernel.square_distances(values, zeros)[:, 0]
    sums, _ = kernel.label_sums(values, np.zeros(weights.size, np.int32), weights, 1)
    return np.concatenate([[weights.sum(), weights @ squares], sums[0]])


def _starts(seeding: _SeedState, n_clusters: int, n_starts: int, seed: int) -> NDArray[np.float64]:
    """Centers to start from, shape (at most n_starts, K, F).

    Candidates, weighted by what they win, are clustered from four seeds a start; each answer is refined
    on a sample of the pixels, and the best different ones sweep the cube: optima that lie close in inertia
    may lie far apart in labels, so that the sample alone must not decide.
    """
    from sklearn.cluster import KMeans as SmallKMeans

    sample = cast("NDArray[np.float64]", seeding.sample)
    found: list[tuple[float, NDArray[np.float64]]] = []
    with single_threaded_blas():
        for number in range(4 * n_starts):
            rough = SmallKMeans(n_clusters, n_init=1, random_state=(seed + number) % 2**32)
            rough.fit(seeding.candidates, sample_weight=seeding.won)
            if len(sample) <= n_clusters:
                found.append((float(rough.inertia_), rough.cluster_centers_))
                continue
            fine = SmallKMeans(n_clusters, n_init=1, init=rough.cluster_centers_).fit(sample)
            found.append((float(fine.inertia_), fine.cluster_centers_))
    found.sort(key=lambda pair: pair[0])
    kept: list[tuple[float, NDArray[np.float64]]] = []
    for inertia, centers in found:
        if len(kept) < n_starts and (not kept or inertia > kept[-1][0] * (1 + 1e-4)):
            kept.append((inertia, centers))
    return np.stack([centers for _, centers in kept])


@dataclass(frozen=True, eq=False)
class _LloydState:
    centers: NDArray[np.float64]
    inertia: NDArray[np.float64]
    weights: NDArray[np.float64]
    settled: NDArray[np.bool_]
    shift: float = np.inf


@dataclass(frozen=True, eq=False)
class _Lloyd:
    """Lloyd's iteration for R starts at once: one pass serves all.

    A cluster that lost all pixels takes the farthest pixel of another one (each gives one at most).
    A state holds centers together with the inertia measured at just these centers.
    """

    features: Features
    initial: NDArray[np.float64]
    tolerance: float
    name: str = "k-means"

    def start(self) -> _LloydState:
        n_starts, n_clusters = self.initial.shape[:2]
        return _LloydState(
            self.initial,
            np.full(n_starts, np.inf),
            np.zeros((n_starts, n_clusters)),
            np.zeros(n_starts, dtype=bool),
        )

    def map(self, block: Block, state: _LloydState, rng_key: RngKey) -> tuple[Any, ...]:
        values, weights = self.features.of(block)
        n_starts, n_clusters, n_features = state.centers.shape
        sums = np.zeros_like(state.centers)
        won = np.zeros((n_starts, n_clusters))
        inertia = np.zeros(n_starts)
        far_cost = np.full((n_starts, n_clusters), -1.0)
        far = np.zeros((n_starts, n_clusters, n_features))
        active = np.flatnonzero(~state.settled)
        if active.size and block.n_pixels:
            found = kernel.lloyd_sums(values, weights, state.centers[active])
            sums[active], won[active], inertia[active] = found.sums, found.won, found.inertia
            far_cost[active] = found.far_cost
            pixels = found.far_pixel.ravel()
            far[active] = kernel.take_dense(values, pixels).reshape(-1, n_clusters, n_features)
        return sums, won, inertia, far_cost, far

    def combine(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        farther = b[3] > a[3]
        cost = np.where(farther, b[3], a[3])
        return a[0] + b[0], a[1] + b[1], a[2] + b[2], cost, np.where(farther[..., None], b[4], a[4])

    def step(
        self, state: _LloydState, statistic: tuple[Any, ...], round_number: int
    ) -> tuple[_LloydState, bool]:
        sums, won, inertia, far_cost, far = statistic
        centers, settled = state.centers.copy(), state.settled.copy()
        new_inertia, weights = state.inertia.copy(), state.weights.copy()
        worst = 0.0
        for r in np.flatnonzero(~state.settled):
            new_inertia[r], weights[r] = inertia[r], won[r]
            moved = np.where(won[r, :, None] > 0, sums[r], state.centers[r])
            moved = moved / np.where(won[r] > 0, won[r], 1.0)[:, None]
            farthest = np.argsort(-far_cost[r], kind="stable")
            for k, giver in zip(np.flatnonzero(won[r] == 0), farthest, strict=False):
                if far_cost[r, giver] > 0:
                    moved[k] = far[r, giver]
            shift = float(np.square(moved - state.centers[r]).sum())
            if shift <= self.tolerance:
                settled[r] = True
            else:
                centers[r] = moved
                worst = max(worst, shift)
        # Gains shrink from round to round: a start that ten more like the last would not bring to the
        # best one is given up.
        hopeless = new_inertia - PATIENCE * (state.inertia - new_inertia) > new_inertia.min()
        given_up = hopeless & ~settled
        centers[given_up], settled[given_up] = state.centers[given_up], True
        done = bool(settled.all())
        return _LloydState(centers, new_inertia, weights, settled, worst), done

    def objective(self, state: _LloydState) -> float:
        return float(state.inertia.min())


@dataclass(frozen=True, eq=False)
class _ClusterSpectra:
    """Sums of the cube's spectra by cluster, and the counts and pixels of each."""

    features: Features
    centers: NDArray[np.float64]
    name: str = "cluster spectra"

    def start(self) -> None:
        return None

    def map(
        self, block: Block, state: None, rng_key: RngKey
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values, weights = self.features.of(block)
        labels = kernel.assign(values, self.centers).labels
        used = (weights > 0).astype(np.float64)
        return kernel.label_sums(block.data, labels, used, len(self.centers))

    def combine(self, a: Any, b: Any) -> Any:
        return a[0] + b[0], a[1] + b[1]

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        return statistic, True


@dataclass(frozen=True, eq=False)
class _LabelPixels:
    """Cluster of each pixel, -1 where a pixel has no counts; distances to all centers."""

    features: Features
    centers: NDArray[np.float64]
    distances: bool = False

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        values, weights = self.features.of(block)
        if self.distances:
            return {"distances": np.sqrt(kernel.square_distances(values, self.centers))}
        labels = kernel.assign(values, self.centers).labels
        return {"labels": np.where(weights > 0, labels, np.int32(-1))}


class KMeans(ClusterMixin, TransformerMixin, Estimator):
    """Partition pixels into clusters of least inertia, sum_i w_i min_k ||f_i - c_k||^2.

    Parameters
    ----------
    n_clusters : int
        K.
    features : {"auto", "profiles", "counts"}
        "profiles": x / g (counts over the pixel's total) in the subspace of the noise-weighted principal
        components, each pixel weighted by its total g; raw counts would cluster by thickness. On loadings
        of another model (signal dim ``component``) the profile is the fraction of each component.
        "counts": the cube as it is, every pixel of weight one. "auto": profiles for integer counts,
        the cube as it is for anything else.
    n_subspace : int, optional
        Dimension of the subspace for profiles of spectra; default `n_clusters`. Of no account for
        "counts" and for loadings, which are clustered as they are or as fractions.
    n_init : int
        Starts; all run in the same passes, the one of least inertia is kept.
    max_iter : int
        Lloyd iterations (passes) at most.
    tol : float
        Stop when the centers move by less than this share of the features' variance.
    random_state : None, int or numpy.random.Generator
        None draws a seed, kept in ``seed_``.

    Attributes
    ----------
    cluster_centers_ : DataArray (cluster, energy), or ndarray (K, E)
        Mean spectrum of each cluster: for profiles the sum of its counts over their total (unit
        "1 per channel"), otherwise in the cube's units. Clusters are ordered by weight, largest first.
    labels_ : DataArray (nav...) of int, or ndarray (P,)
        Cluster of each pixel; -1 where a pixel is not used or has no counts. Lazy for lazy cubes.
    inertia_ : float
        Of the features. For profiles it is in units of the Poisson noise: pure noise gives about one a
        pixel and dimension.
    feature_centers_ : ndarray (K, F)
    cluster_weights_ : ndarray (K,)
        Counts (profiles) or pixels in each cluster.
    n_iter_ : int
    converged_ : bool

    Notes
    -----
    Passes: one for the subspace (profiles), seven for seeding, one a Lloyd iteration for all starts
    together, one for the mean spectra; features are small and stay in memory. The same seed gives the
    same bits on any number of workers.

    References
    ----------
    Bahmani et al., Proc. VLDB 5 (2012) 622, arXiv:1203.6402 (seeding; candidates are weighted by the
    pixels that they win). Keenan and Kotula, Surf. Interface Anal. 36 (2004) 203,
    doi:10.1002/sia.1657 (weights).

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> counts = np.random.default_rng(0).poisson([[9, 1, 1]] * 50 + [[1, 1, 9]] * 50)
    >>> em.KMeans(2, random_state=0).fit(counts).labels_[[0, 99]].tolist() in ([0, 1], [1, 0])
    True
    """

    cluster_centers_: Any
    labels_: Any
    inertia_: float
    feature_centers_: NDArray[np.float64]
    cluster_weights_: NDArray[np.float64]
    n_iter_: int
    converged_: bool
    seed_: int
    features_: str
    _spectrum_sums: NDArray[np.float64] | None

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        features: FeatureName = "auto",
        n_subspace: int | None = None,
        n_init: int = 4,
        max_iter: int = 100,
        tol: float = 1e-4,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.features = features
        self.n_subspace = n_subspace
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _check_parameters(self) -> None:
        for name, least in (("n_clusters", 1), ("n_init", 1), ("max_iter", 1)):
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise InputError(
                    f"KMeans: {name} must be a whole number from {least}, got {value!r}"
                )
        subspace: Any = self.n_subspace
        if subspace is not None and not (isinstance(subspace, int | np.integer) and subspace >= 1):
            raise InputError(
                f"KMeans: n_subspace must be None or a whole number from 1, got {subspace!r}"
            )
        tol: Any = self.tol
        if not (isinstance(tol, int | float) and tol >= 0):
            raise InputError(f"KMeans: tol must be a number from 0, got {tol!r}")
        if self.features not in ("auto", "profiles", "counts"):
            raise InputError(
                f"KMeans: features must be 'auto', 'profiles' or 'counts', got {self.features!r}"
            )

    def fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Find the clusters of a cube.

        Parameters
        ----------
        X : DataArray, or ndarray, Dask array or SciPy sparse matrix of shape (P, E)
        y : None
            Not used; scikit-learn's manners.
        where : DataArray of bool, optional
            Pixels and channels to use (True).

        Raises
        ------
        InputError
            A parameter or value cannot be used; fewer (distinct) pixels than clusters.
        """
        self._check_parameters()
        with resident():
            source, labels = as_source(X, where)
            if source.n_pixels < self.n_clusters:
                raise InputError(
                    f"KMeans: {self.n_clusters} clusters need as many pixels, got {source.n_pixels}",
                    hint="use fewer clusters or a wider selection (where=)",
                )
            self.seed_ = resolve_seed(self.random_state)
            self.features_, features = self._make_features(X, where, source, labels)
            cheap, source_of_features = _features_source(source, features)
            seeding = self._seed(cheap, source_of_features)
            self._iterate(cheap, source_of_features, seeding)
            self._remember(labels)
            self._features = features
            self._spectrum_sums = None
            self._describe_clusters(source)
            self.labels_ = self.predict(X, where=where)
        return self

    def _make_features(
        self, X: Any, where: Any, source: BlockSource, labels: Labels
    ) -> tuple[str, Features]:
        dtype = X.dtype if hasattr(X, "dtype") else np.asarray(X).dtype
        name = self.features
        if name == "auto":
            name = "profiles" if dtype.kind in "iub" else "counts"
        n_used = labels.n_all_channels if labels.channels is None else labels.channels.size
        if name == "counts":
            return name, _AsIs(n_used)
        if labels.sig_dims == ("component",):
            return name, _Profiles(np.eye(n_used))
        most = min(source.n_pixels, source.n_channels) - 1
        n_subspace = min(self.n_clusters, most) if self.n_subspace is None else self.n_subspace
        if not 1 <= n_subspace <= most:
            raise InputError(
                f"KMeans: profiles of {source.n_pixels} pixels and {source.n_channels} channels lie in "
                f"at most {max(most, 0)} dimensions, {max(n_subspace, 1)} are asked for",
                hint="use features='counts', or a smaller n_subspace",
            )
        return name, _Profiles(_profile_basis(X, where, source, n_subspace))

    def _seed(self, features: Features, source: BlockSource) -> _SeedState:
        n_rounds = 5
        n_sample = max(2 * self.n_clusters, min(2048, SAMPLE_BYTES // (8 * features.n_features)))
        sweep = _Seeding(features, 2 * self.n_clusters, n_rounds, n_sample)
        outcome = run_sweep(sweep, source, seed=self.seed_, max_rounds=n_rounds + 2)
        state: _SeedState = outcome.state
        if len(state.candidates) < self.n_clusters:
            raise InputError(
                f"KMeans: {self.n_clusters} clusters need as many distinct pixels, found only "
                f"{len(state.candidates)}",
                hint="use fewer clusters",
            )
        return state

    def _iterate(self, features: Features, source: BlockSource, seeding: _SeedState) -> None:
        initial = _starts(seeding, self.n_clusters, self.n_init, self.seed_)
        tolerance = self.tol * seeding.variance / features.n_features
        sweep = _Lloyd(features, initial, tolerance)
        outcome = run_sweep(sweep, source, seed=self.seed_, max_rounds=self.max_iter)
        state: _LloydState = outcome.state
        if not outcome.converged:
            # The last step moved centers whose inertia nobody measured: measure it.
            final = _Lloyd(features, state.centers, np.inf)
            state = run_sweep(final, source, seed=self.seed_).state
        best = int(state.inertia.argmin())
        order = np.argsort(-state.weights[best], kind="stable")
        self.inertia_ = float(state.inertia[best])
        self.feature_centers_ = state.centers[best][order]
        self.cluster_weights_ = state.weights[best][order]
        self.n_iter_ = outcome.n_rounds
        self.converged_ = outcome.converged

    def _describe_clusters(self, source: BlockSource) -> None:
        """Mean spectra of the clusters, over this source and those of earlier partial fits."""
        axes = self.axes_
        if self.features_ == "counts":
            spectra, units = self.feature_centers_, axes.units
        else:
            sweep = _ClusterSpectra(self._features, self.feature_centers_)
            sums, _ = run_sweep(sweep, source).state
            if self._spectrum_sums is not None:
                sums = self._spectrum_sums + sums
            self._spectrum_sums = sums
            totals = sums.sum(axis=1, keepdims=True)
            spectra, units = sums / np.where(totals > 0, totals, 1.0), "1 per channel"
        self.cluster_centers_ = axes.spectra(
            spectra, dim="cluster", name="cluster_centers", attrs={"units": units}
        )

    def pixel_function(self) -> Callable[[Block], dict[str, NDArray[Any]]]:
        """Function that gives a block's labels (p,) as int32."""
        self._require_fitted()
        return _LabelPixels(self._features, self.feature_centers_)

    def predict(self, X: Any, *, where: Any = None) -> Any:
        """Label pixels by the nearest center, lazily where `X` is lazy.

        Returns
        -------
        DataArray (nav...) of int32, or array (P,); -1 where a pixel is not used or has no counts.
        """
        return self._map(
            X,
            "labels",
            (),
            dims=(),
            dtype=np.int32,
            fill=-1,
            where=where,
            attrs={"units": "1", "long_name": "cluster"},
        )

    def fit_predict(self, X: Any, y: None = None, *, where: Any = None) -> Any:
        """Fit, and label the pixels of the fit."""
        return self.fit(X, where=where).labels_

    def transform(self, X: Any, *, where: Any = None) -> Any:
        """Distances of pixels to the centers, in feature space.

        Returns
        -------
        DataArray (nav..., cluster), or array (P, K)
        """
        axes = self._check_signal(X)
        function = _LabelPixels(self._features, self.feature_centers_, distances=True)
        values = map_pixels(
            X, Pick(function, "distances"), (self.n_clusters,), labels=self.axes_, where=where
        )
        return axes.maps(values, dims=("cluster",), name="distances", attrs={"units": "1"})

    def fit_transform(self, X: Any, y: None = None, *, where: Any = None) -> Any:
        """Fit, and give the distances of the pixels to the centers."""
        return self.fit(X, where=where).transform(X, where=where)

    def score(self, X: Any, y: None = None, *, where: Any = None) -> float:
        """Minus the inertia of a cube at the centers found, in one pass."""
        self._check_signal(X)
        source, _ = as_source(X, where, channels=self.axes_.channels)
        sweep = _Lloyd(self._features, self.feature_centers_[None], np.inf)
        return -float(run_sweep(sweep, source).state.inertia[0])

    def partial_fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Go on with more data: one step of sequential k-means, centers being running means.

        The first call is a `fit`; it fixes features and channels. Centers and weights are those of all
        data so far, each pixel as it was labelled when it came; ``labels_`` and ``inertia_`` are of the
        data of the last call.
        """
        if not hasattr(self, "axes_"):
            return self.fit(X, where=where)
        self._check_signal(X)
        with resident():
            source, _ = as_source(X, where, channels=self.axes_.channels)
            sweep = _Lloyd(self._features, self.feature_centers_[None], np.inf)
            moved = run_sweep(_Totals(sweep), source).state
            sums, won, inertia = moved[0][0], moved[1][0], float(moved[2][0])
            weights = self.cluster_weights_ + won
            self.feature_centers_ = (
                self.feature_centers_ * self.cluster_weights_[:, None] + sums
            ) / np.where(weights > 0, weights, 1.0)[:, None]
            self.cluster_weights_ = weights
            self.inertia_ = inertia
            self.n_iter_ += 1
            self._describe_clusters(source)
            self.labels_ = self.predict(X, where=where)
        return self


@dataclass(frozen=True, eq=False)
class _Totals:
    """Sums, weights and inertia of one Lloyd pass, without the step."""

    sweep: _Lloyd
    name: str = "k-means"

    def start(self) -> Any:
        return self.sweep.start()

    def map(self, block: Block, state: Any, rng_key: RngKey) -> tuple[Any, ...]:
        return self.sweep.map(block, state, rng_key)

    def combine(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        return self.sweep.combine(a, b)

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        return statistic, True


def _features_source(source: BlockSource, features: Features) -> tuple[Features, BlockSource]:
    """Compute profiles once and keep them: they are much smaller than the counts."""
    if not isinstance(features, _Profiles):
        return features, source
    name = f"profiles-{hashlib.sha256(features.basis.tobytes()).hexdigest()[:16]}"
    mapped = MappedSource(source, features.columns, features.n_features + 1, name)
    return _Columns(features.n_features), mapped


@dataclass(frozen=True)
class _SteadyPoisson(PoissonNoise):
    """Poisson weights in which rare pixels and channels do not make components of their own.

    A single count in channel j of pixel i adds N / (g_i h_j) to an eigenvalue of the weighted Gram
    matrix, while the noise reaches about P: below g_i h_j = N / P one event outweighs all noise. Totals
    therefore count as at least `pixel_floor` and `channel_floor`, whose product is ten times that.
    """

    name: str = "poisson, steady"
    pixel_floor: float = 10.0
    channel_floor: float = 10.0

    def pixel_weights(self, totals: NDArray[Any]) -> NDArray[np.float64]:
        """1 / max(g, floor)."""
        return 1.0 / np.maximum(np.asarray(totals, dtype=np.float64), self.pixel_floor)

    def channel_scale(self, totals: NDArray[Any], total: float) -> NDArray[np.float64]:
        """sqrt(N / max(h, floor))."""
        floored = np.maximum(np.asarray(totals, dtype=np.float64), self.channel_floor)
        return np.asarray(np.sqrt(total / floored))


def _profile_basis(X: Any, where: Any, source: BlockSource, n_subspace: int) -> NDArray[np.float64]:
    """Basis (E, F) of the weighted principal subspace for profiles x / g, without the trivial part.

    With weighted data X = D sqrt(N / (g h)) and its right singular vectors v, a profile's coordinates
    are (x / g) sqrt(N / h) v; pure counting noise has variance 1 / g in each. `IncrementalPCA` gives
    c = v sqrt(h / N), so that the basis is c N / h.
    """
    from emcube.models.pca import IncrementalPCA

    totals = run_sweep(TotalsSweep(counts=True), source).state
    if totals.total <= 0:
        raise InputError(
            "k-means: all pixels that are used are empty (no counts)",
            hint="check the selection (where=) and the energy window",
        )
    mean = totals.total / source.n_pixels
    noise = _SteadyPoisson(channel_floor=max(10.0, mean))
    pca = IncrementalPCA(n_components=n_subspace + 1, noise=noise).fit(X, where=where)
    spectra = np.asarray(pca.components_, dtype=np.float64)
    used = pca.axes_.used_channels(spectra.reshape(len(spectra), -1))
    scale = noise.channel_scale(totals.channels, totals.total)
    return np.ascontiguousarray((used[1:] * scale**2).T)
