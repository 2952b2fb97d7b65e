"""k-means over blocks: k-means|| seeding, several starts in one pass, empty clusters reseeded."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClusterMixin, clone

from emcube.engine import (
    ArraySource,
    Block,
    BlockSource,
    MappedSource,
    RngKey,
    map_blocks,
    run_sweep,
)
from emcube.engine.checkpoint import current_checkpoints
from emcube.engine.executor import ThreadExecutor
from emcube.engine.loop import ArrayTarget
from emcube.engine.memory import all_resident, resident
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.kernels import kmeans as kernel
from emcube.kernels.kmeans_gaps import RowClusters
from emcube.models.base import Estimator, Pick, as_source, resolve_seed
from emcube.models.block_notes import BlockNotes, KeptBlocks
from emcube.models.fields import Fields
from emcube.models.figures import ClusterFigures
from emcube.models.kmeans_rounds import Lloyd, LloydState
from emcube.models.kmeans_start import (
    Features,
    Sounding,
    Survey,
    find_starts,
    rough_start,
)
from emcube.models.kmeans_subspace import profile_basis
from emcube.models.labels import (
    Labels,
    dtype_of,
    map_pixels,
    require_finite_counts,
    require_finite_values,
)

__all__ = ["KMeans", "WeightedColumns"]

FAR = 1e8
"""Square of the mean over the variance from which squared distances lose too many digits to it."""

MAX_LABELS = 1 << 24
"""Pixels up to which a fit keeps their labels in memory, 4 bytes each."""

LABEL_ATTRIBUTES = {"units": "1", "long_name": "cluster"}

FeatureName = Literal["auto", "profiles", "counts"]


@dataclass(frozen=True, eq=False)
class _AsIs:
    """The cube as it is, every pixel of weight one; `total` is the sum of weights, where known."""

    n_features: int
    total: float | None = None
    unweighted: ClassVar[bool] = True

    def of(self, block: Block) -> tuple[kernel.Cells, NDArray[np.float64]]:
        require_finite_values(block)
        return block.data, np.ones(block.n_pixels)

    def labels(self, block: Block, centers: NDArray[np.float64]) -> NDArray[np.int32]:
        require_finite_values(block)
        return kernel.assign(block.data, centers).labels

    def inner(self, centers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Centers in the coordinates of `of`."""
        return centers

    def outer(self, centers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Centers in the cube's coordinates."""
        return centers


@dataclass(frozen=True, eq=False)
class _Shifted(_AsIs):
    """The cube less its mean spectrum, where that is so long that distances would drown in it.

    ||x||^2 - 2 x c + ||c||^2 loses the digits that the mean has in common.
    """

    shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def of(self, block: Block) -> tuple[kernel.Cells, NDArray[np.float64]]:
        require_finite_values(block)
        return block.dense() - self.shift, np.ones(block.n_pixels)

    def labels(self, block: Block, centers: NDArray[np.float64]) -> NDArray[np.int32]:
        cells, _ = self.of(block)
        return kernel.assign(cells, self.inner(centers)).labels

    def inner(self, centers: NDArray[np.float64]) -> NDArray[np.float64]:
        return centers - self.shift

    def outer(self, centers: NDArray[np.float64]) -> NDArray[np.float64]:
        return centers + self.shift


@dataclass(frozen=True, eq=False)
class _Profiles:
    """Profiles x / g times a basis (E, F), each pixel weighted by its total g.

    The variance of a profile of g counts goes as 1 / g: the weight makes the distances of strong and weak
    pixels count alike. `total` is the sum of weights, where known.
    """

    basis: NDArray[np.float64]
    total: float | None = None
    unweighted: ClassVar[bool] = False

    @property
    def n_features(self) -> int:
        return int(self.basis.shape[1])

    def of(self, block: Block) -> tuple[kernel.Cells, NDArray[np.float64]]:
        columns = self.columns(block)
        return columns[:, :-1], columns[:, -1]

    def columns(self, block: Block) -> NDArray[np.float64]:
        """Features with the weight as the last column, for a `MappedSource`."""
        require_finite_counts(block)
        return kernel.profile_columns(block.data, self.basis)

    def labels(self, block: Block, centers: NDArray[np.float64]) -> NDArray[np.int32]:
        require_finite_counts(block)
        return kernel.assign_profiles(block.data, self.basis, centers)

    def inner(self, centers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Centers in the coordinates of `of`."""
        return centers

    def outer(self, centers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Centers as they are kept."""
        return centers


@dataclass(frozen=True, eq=False)
class _Columns:
    """Features that were computed before, the weight in the last column."""

    n_features: int
    unweighted: ClassVar[bool] = False

    def of(self, block: Block) -> tuple[kernel.Cells, NDArray[np.float64]]:
        values = cast("NDArray[np.float64]", block.data)
        return values[:, :-1], values[:, -1]


@dataclass(frozen=True, eq=False)
class _ClusterSpectra:
    """Sums of the cube's spectra by cluster, and the pixels of each."""

    features: _Profiles
    centers: NDArray[np.float64]
    columns: KeptBlocks
    """The features of blocks."""
    notes: BlockNotes[NDArray[np.int32]] = field(default_factory=lambda: BlockNotes("labels"))
    name: str = "cluster spectra"

    def start(self) -> None:
        return None

    def map(
        self, block: Block, state: None, rng_key: RngKey
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        known = self.columns.of(block)
        if known is None:
            labels = self.features.labels(block, self.centers)
        else:
            values = cast("NDArray[np.float64]", known.data)
            labels, doubtful = kernel.assign_columns(values, self.centers)
            some = kernel.take(block.data, doubtful)
            labels[doubtful] = kernel.assign_profiles(some, self.features.basis, self.centers)
        self.notes.note(block, labels)
        return kernel.label_sums(block.data, labels, np.ones(labels.size), len(self.centers))

    def combine(self, a: Any, b: Any) -> Any:
        return a[0] + b[0], a[1] + b[1]

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        return 8 * len(self.centers) * (n_channels + 1)


@dataclass(frozen=True, eq=False)
class _LabelPixels:
    """Cluster of each pixel, -1 where a pixel has no counts; distances to all centers."""

    features: _AsIs | _Profiles
    centers: NDArray[np.float64]
    distances: bool = False

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        if self.distances:
            values, _ = self.features.of(block)
            centers = self.features.inner(self.centers)
            return {"distances": np.sqrt(kernel.square_distances(values, centers))}
        return {"labels": self.features.labels(block, self.centers)}


class _NotedLabels(Protocol):
    """Labels that passes noted of blocks."""

    def of(self, block: Block) -> NDArray[np.int32] | None:
        """Those of a block, if they are still there."""
        ...

    def forget(self) -> None:
        """Let them go."""
        ...


@dataclass(frozen=True, eq=False)
class _LabelsOfFit:
    """The same for the pixels of a fit, whose passes left notes of most of them."""

    ask: _LabelPixels
    noted: _NotedLabels

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        labels = self.noted.of(block)
        return self.ask(block) if labels is None else {"labels": labels}


@dataclass(frozen=True, eq=False)
class _NotedClusters:
    """Labels of a block from what Lloyd's iteration noted of a start, whose clusters were then ordered."""

    notes: BlockNotes[RowClusters]
    start: int
    centers: NDArray[np.float64]
    order: NDArray[np.int64]

    def forget(self) -> None:
        self.notes.forget()

    def of(self, block: Block) -> NDArray[np.int32] | None:
        found = self.notes.of(block)
        if found is None or not np.array_equal(found.centers[self.start], self.centers):
            return None
        numbers = np.argsort(self.order).astype(np.int32)
        labels: NDArray[np.int32] = numbers[found.labels[self.start]]
        # Which of two that are equally near is taken goes by the order.
        doubtful = np.flatnonzero(~(found.gaps[self.start] > 0.0))
        some = kernel.take(block.data, doubtful)
        labels[doubtful] = kernel.assign(some, self.centers[self.order]).labels
        return labels


class KMeans(ClusterFigures, ClusterMixin, Estimator):
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
        Starts that sweep the cube, at most: optima found on samples of its pixels which these samples
        cannot tell from the best one. All run in the same passes; the one of least inertia is kept.
        Eight times as many are tried on the samples.
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
        Cluster of each pixel; -1 where a pixel is not used or has no counts. Of a lazy cube they are lazy,
        too, where its blocks did not stay in memory during the fit, on workers elsewhere, and from 2^24
        pixels on.
    inertia_ : float
        Of the features. For profiles it is in units of the Poisson noise: pure noise gives about one a
        pixel and dimension.
    feature_centers_ : ndarray (K, F)
    cluster_weights_ : ndarray (K,)
        Counts (profiles) or pixels in each cluster.
    inertia_path_ : ndarray
        Least inertia of the starts at each pass of Lloyd's iteration, the last one being `inertia_`.
    n_iter_ : int
    converged_ : bool

    Notes
    -----
    Passes: one for the subspace (profiles), two for the samples on which starts are found (see
    `emcube.models.kmeans_start`), one a Lloyd iteration for all starts together, one for the mean spectra
    (profiles); features are small and stay in memory. The same seed gives the same bits on any number of
    workers.

    References
    ----------
    Bachem, Lucic, Krause, KDD 2018, 1119, doi:10.1145/3219819.3219973 (samples for k-means). Keenan and
    Kotula, Surf. Interface Anal. 36 (2004) 203, doi:10.1002/sia.1657 (weights).

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
    inertia_path_: NDArray[np.float64]
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

    @property
    def _n_features_out(self) -> int:
        return len(self.feature_centers_)

    @property
    def _counts_only(self) -> bool:
        return self.features == "profiles"

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
        # Limits of threads are set once for all passes: that takes longer than a pass over a small cube.
        with resident(), single_threaded_blas():
            source, noted = self._fit_clusters(X, where)
            self.labels_ = self._label_fitted(X, where, source, noted)
            noted.forget()
        return self

    def find_clusters(self, X: Any, where: Any = None) -> None:
        """Do what `fit` does but for the labels, for who writes them elsewhere."""
        with resident(), single_threaded_blas():
            self._fit_clusters(X, where)[1].forget()

    def _fit_clusters(self, X: Any, where: Any) -> tuple[BlockSource, _NotedLabels]:
        """Find the clusters; returns the blocks used, and the labels that are noted of them."""
        self._check_parameters()
        with resident(), single_threaded_blas():
            source, labels = as_source(X, where)
            if source.n_pixels < self.n_clusters:
                raise InputError(
                    f"KMeans: {self.n_clusters} clusters need as many pixels, got {source.n_pixels}",
                    hint="use fewer clusters or a wider selection (where=)",
                )
            self.seed_ = resolve_seed(self.random_state)
            self.features_, features = self._make_features(X, where, source, labels)
            cheap, source_of_features = _features_source(source, features)
            survey = self._survey(cheap, source_of_features, features.total)
            if isinstance(features, _AsIs) and (mean := _far_mean(survey[0])) is not None:
                cheap = features = _Shifted(features.n_features, features.total, mean)
                survey = self._survey(cheap, source_of_features, features.total)
            found = self._find_starts(cheap, source_of_features, *survey)
            clusters = self._iterate(cheap, source_of_features, *found)
            self.feature_centers_ = features.outer(self.feature_centers_)
            self._remember(labels)
            self._remember_columns(X)
            self._features = features
            self._spectrum_sums = None
            labels_of_spectra = self._describe_clusters(source)
        return source, clusters if labels_of_spectra is None else labels_of_spectra

    def _label_fitted(
        self,
        X: Any,
        where: Any,
        source: BlockSource,
        noted: _NotedLabels,
    ) -> Any:
        """Label the pixels of the fit: at once where their blocks are in memory anyway."""
        if isinstance(X, Fields):
            return self.predict(X, where=where)
        plan = source.plan
        n_pixels = math.prod(plan.nav_shape)
        # What is in memory differs between the tries of a run that goes on, and its calls may not.
        lazily = n_pixels > MAX_LABELS or current_checkpoints() is not None
        if lazily or not all_resident(source):
            return self.predict(X, where=where)
        out = np.full(plan.nav_shape, -1, dtype=np.int32)
        target = {"labels": ArrayTarget(out, -1)}
        ask = _LabelsOfFit(_LabelPixels(self._features, self.feature_centers_), noted)
        map_blocks(ask, source, target, name="labels", executor=ThreadExecutor())
        return self.axes_.maps(out, dims=(), name="labels", attrs=LABEL_ATTRIBUTES)

    def _make_features(
        self, X: Any, where: Any, source: BlockSource, labels: Labels
    ) -> tuple[str, _AsIs | _Profiles]:
        dtype = dtype_of(X)
        name = self.features
        if name == "auto":
            name = "profiles" if dtype.kind in "iub" else "counts"
        n_used = labels.n_all_channels if labels.channels is None else labels.channels.size
        if name == "counts":
            return name, _AsIs(n_used, float(source.n_pixels))
        if labels.sig_dims == ("component",):
            return name, _Profiles(np.eye(n_used))
        most = min(source.n_pixels, source.n_channels) - 1
        n_subspace = min(self.n_clusters, most) if self.n_subspace is None else self.n_subspace
        if not 1 <= n_subspace <= most:
            raise InputError(
                f"KMeans: profiles of {source.n_pixels} pixels and {source.n_channels} channels lie in "
                f"at most {max(most, 0)} dimensions, {max(n_subspace, 1)} are asked for "
                f"(n_samples = {source.n_pixels}, n_features = {source.n_channels})",
                hint="use features='counts', or a smaller n_subspace",
            )
        return name, _Profiles(*profile_basis(X, where, source, n_subspace))

    def _survey(
        self, features: Features, source: BlockSource, total: float | None
    ) -> tuple[NDArray[np.float64], Any]:
        """Weight, sum of squares and sums of the features, and a sample, in one pass."""
        survey = Survey(features, self.n_clusters, source.n_pixels, total)
        moments, sample = run_sweep(survey, source, seed=self.seed_).state
        _refuse_extremes(moments)
        return moments, sample

    def _find_starts(
        self, features: Features, source: BlockSource, moments: NDArray[np.float64], sample: Any
    ) -> tuple[NDArray[np.float64], float, BlockNotes[RowClusters]]:
        """Centers to start from (R, K, F), the variance of the features, and notes, in one more pass."""
        k = self.n_clusters
        weight, squares, sums = float(moments[0]), float(moments[1]), moments[2:]
        if weight <= 0:
            raise InputError(
                "k-means: all pixels that are used are empty (no counts)",
                hint="check the selection (where=) and the energy window",
            )
        variance = max(0.0, squares / weight - float(sums @ sums) / weight**2)
        first, estimate = rough_start(sample, k, (self.seed_, 1))
        stored = float(sample.sizes.mean())
        sounding = Sounding(features, first, k, source.n_pixels, weight, estimate, stored)
        moved, _, sample = run_sweep(sounding, source, seed=self.seed_ + 1).state
        starts = find_starts(sample, k, self.n_init, (self.seed_, 2), given=moved)
        return starts, variance, sounding.notes

    def _iterate(
        self,
        features: Features,
        source: BlockSource,
        initial: NDArray[np.float64],
        variance: float,
        notes: BlockNotes[RowClusters],
    ) -> _NotedClusters:
        tolerance = self.tol * variance / features.n_features
        sweep = Lloyd(features, initial, tolerance, notes)
        outcome = run_sweep(sweep, source, seed=self.seed_, max_rounds=self.max_iter)
        state: LloydState = outcome.state
        path = list(outcome.history)
        if not outcome.converged:
            # The last step moved centers whose inertia nobody measured: measure it.
            final = Lloyd(features, state.centers, np.inf, notes)
            state = run_sweep(final, source, seed=self.seed_).state
            path.append(float(state.inertia.min()))
        best = int(state.inertia.argmin())
        order = np.argsort(-state.weights[best], kind="stable")
        self.inertia_ = float(state.inertia[best])
        self.inertia_path_ = np.array(path)
        self.feature_centers_ = state.centers[best][order]
        self.cluster_weights_ = state.weights[best][order]
        self.n_iter_ = outcome.n_rounds
        self.converged_ = outcome.converged
        return _NotedClusters(notes, best, state.centers[best], order)

    def _describe_clusters(self, source: BlockSource) -> BlockNotes[NDArray[np.int32]] | None:
        """Mean spectra of the clusters, over this source and those of earlier partial fits.

        Returns the labels that were noted on the way, if any were needed.
        """
        axes, labels = self.axes_, None
        if self.features_ == "counts":
            spectra, units = self.feature_centers_, axes.units
        else:
            profiles = cast("_Profiles", self._features)
            columns = KeptBlocks(_features_source(source, profiles)[1])
            sweep = _ClusterSpectra(profiles, self.feature_centers_, columns)
            labels = sweep.notes
            sums, _ = run_sweep(sweep, source).state
            if self._spectrum_sums is not None:
                sums = self._spectrum_sums + sums
            self._spectrum_sums = sums
            totals = sums.sum(axis=1, keepdims=True)
            spectra, units = sums / np.where(totals > 0, totals, 1.0), "1 per channel"
        self.cluster_centers_ = axes.spectra(
            spectra, dim="cluster", name="cluster_centers", attrs={"units": units}
        )
        return labels

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
            attrs=LABEL_ATTRIBUTES,
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
            X, Pick(function, "distances"), (self._n_features_out,), labels=self.axes_, where=where
        )
        return axes.maps(values, dims=("cluster",), name="distances", attrs={"units": "1"})

    def fit_transform(self, X: Any, y: None = None, *, where: Any = None) -> Any:
        """Fit, and give the distances of the pixels to the centers."""
        return self.fit(X, where=where).transform(X, where=where)

    def score(self, X: Any, y: None = None, *, where: Any = None) -> float:
        """Minus the inertia of a cube at the centers found, in one pass."""
        self._check_signal(X)
        source, _ = as_source(X, where, channels=self.axes_.channels)
        centers = self._features.inner(self.feature_centers_)
        sweep = Lloyd(self._features, centers[None], np.inf)
        return -float(run_sweep(sweep, source).state.inertia[0])

    def _quality_cells(self) -> Callable[[Block], tuple[kernel.Cells, NDArray[np.bool_]]]:
        """What `cluster_quality` samples of a block: features with the weight as the last column."""
        return WeightedColumns(self._features)

    def _quality_sample(self, cells: kernel.Cells) -> _SampledClusters:
        return _SampledClusters(self, cast("NDArray[np.float64]", cells))

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
            centers = self._features.inner(self.feature_centers_)
            sweep = Lloyd(self._features, centers[None], np.inf)
            moved = run_sweep(_Totals(sweep), source).state
            sums, won, inertia = moved[0][0], moved[1][0], float(moved[2][0])
            weights = self.cluster_weights_ + won
            centers = (centers * self.cluster_weights_[:, None] + sums) / np.where(
                weights > 0, weights, 1.0
            )[:, None]
            self.feature_centers_ = self._features.outer(centers)
            self.cluster_weights_ = weights
            self.inertia_ = inertia
            self.n_iter_ += 1
            self._describe_clusters(source)
            self.labels_ = self.predict(X, where=where)
        return self


@dataclass(frozen=True, eq=False)
class WeightedColumns:
    """Features of a block's pixels with the weight as the last column, and which hold anything."""

    features: Any

    def __call__(self, block: Block) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Columns (p, F + 1), and whether each pixel's weight is above zero."""
        cells, weights = self.features.of(block)
        values = kernel.take_dense(cells, np.arange(cells.shape[0]))
        return np.column_stack([values, weights]), weights > 0


@dataclass(frozen=True, eq=False)
class _SampledClusters:
    """A sample of the pixels of a fit (n, F + 1), for `cluster_quality`."""

    model: KMeans
    columns: NDArray[np.float64]

    def features(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.columns[:, :-1], self.columns[:, -1]

    def labels(self) -> NDArray[np.int32]:
        centers = self.model._features.inner(self.model.feature_centers_)
        return kernel.assign(self.columns[:, :-1], centers).labels

    def labels_of_another(self, pixels: NDArray[np.int64], seed: int) -> NDArray[np.int32]:
        source = ArraySource.from_array(self.columns[pixels], 1)
        features = _Columns(self.columns.shape[1] - 1)
        other = clone(self.model)
        other.seed_ = seed
        survey = other._survey(features, source, None)
        other._iterate(features, source, *other._find_starts(features, source, *survey))
        return kernel.assign(self.columns[:, :-1], other.feature_centers_).labels


@dataclass(frozen=True, eq=False)
class _Totals:
    """Sums, weights and inertia of one Lloyd pass, without the step."""

    sweep: Lloyd
    name: str = "k-means"

    def start(self) -> Any:
        return self.sweep.start()

    def map(self, block: Block, state: Any, rng_key: RngKey) -> tuple[Any, ...]:
        return self.sweep.map(block, state, rng_key)

    def combine(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        return self.sweep.combine(a, b)

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        return statistic, True


def _refuse_extremes(moments: NDArray[np.float64]) -> None:
    """Refuse values whose distances, which are squared again, are beyond float64.

    Raises
    ------
    InputError
        The mean square of the values is too large or too small.
    """
    if not moments[0] > 0 or not moments[1:].any():
        return
    square = float(moments[1] / moments[0])
    if not 1e-140 < square < 1e140:
        raise InputError(
            f"KMeans: values have a mean square of {square:g}, 1e-140 to 1e140 can be clustered",
            hint="scale the cube by a constant first",
        )


def _far_mean(moments: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Mean of the features, where it is so much longer than they are wide that digits are lost."""
    weight, squares, mean = float(moments[0]), float(moments[1]), moments[2:] / moments[0]
    length = float(mean @ mean)
    return mean if length > FAR * max(0.0, squares / weight - length) and length > 0 else None


def _features_source(source: BlockSource, features: Features) -> tuple[Features, BlockSource]:
    """Compute profiles once and keep them: they are much smaller than the counts."""
    if not isinstance(features, _Profiles):
        return features, source
    name = f"profiles-{hashlib.sha256(features.basis.tobytes()).hexdigest()[:16]}"
    mapped = MappedSource(source, features.columns, features.n_features + 1, name)
    return _Columns(features.n_features), mapped
