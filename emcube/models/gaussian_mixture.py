"""Gaussian mixtures by EM over blocks: a pass is an iteration, for all starts together.

Letters: P pixels, E channels, F features, K clusters, R starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from emcube.engine import ArraySource, Block, BlockSource, MappedSource, RngKey, resident, run_sweep
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.kernels import mixtures as kernel
from emcube.kernels.mixtures import Gaussians, GaussianSums
from emcube.models.base import as_source, resolve_seed
from emcube.models.em import EMSweep, Path, ascend
from emcube.models.kmeans import (
    KMeans,
    WeightedColumns,
    _AsIs,
    _Columns,
    _far_mean,
    _features_source,
    _Profiles,
    _Shifted,
)
from emcube.models.kmeans_subspace import profile_basis
from emcube.models.labels import Labels, dtype_of
from emcube.models.mixtures import (
    Mixture,
    Posterior,
    SpectrumSweep,
    require_number,
    require_whole,
)
from emcube.models.pca import IncrementalPCA
from emcube.models.sweeps import OnePass

__all__ = ["GaussianMixture"]

MAX_FEATURES = 256
"""Features up to which clusters have covariances between features: K F^2 numbers, and P K F^2 products."""

AS_IS = 32
"""Channels up to which values that are no counts are taken as they are."""

FeatureName = Literal["auto", "profiles", "scores", "counts"]


@dataclass(frozen=True, eq=False)
class _Scores:
    """Scores of principal components, every pixel of weight one; `total` is the number of pixels."""

    project: Callable[[Block], dict[str, NDArray[Any]]]
    n_features: int
    key: str
    total: float

    def of(self, block: Block) -> tuple[NDArray[Any], NDArray[np.float64]]:
        return self.project(block)["loadings"], np.ones(block.n_pixels)

    def columns(self, block: Block) -> NDArray[np.float64]:
        """Features with the weight as the last column, for a `MappedSource`."""
        return np.column_stack(self.of(block))


Spectral = _AsIs | _Profiles | _Scores


@dataclass(frozen=True, eq=False)
class _HardSums(OnePass):
    """Sums over the pixels nearest to each center, for R sets of centers (R, K, F)."""

    features: Any
    centers: NDArray[np.float64]
    kind: str
    name: str = "Gaussian mixture start"

    def map(self, block: Block, state: None, rng_key: RngKey) -> tuple[GaussianSums, ...]:
        cells, weights = self.features.of(block)
        return tuple(kernel.hard_gaussian_sums(cells, weights, c, self.kind) for c in self.centers)

    def statistic_bytes(self, n_channels: int) -> int:
        return len(self.centers) * _sums_bytes(self.kind, *self.centers.shape[1:])


@dataclass(frozen=True, eq=False)
class _EM(EMSweep[Gaussians, GaussianSums]):
    """What EM raises is the log-likelihood."""

    features: Any
    kind: str
    ridge: float
    name: str = field(default="Gaussian mixture", kw_only=True)

    def sums_of(self, block: Block, clusters: Gaussians) -> GaussianSums:
        cells, weights = self.features.of(block)
        return kernel.gaussian_sums(cells, weights, clusters)

    def objective_of(self, clusters: Gaussians, sums: GaussianSums) -> float:
        return sums.log_likelihood / max(1.0, sums.n_pixels)

    def maximised(self, clusters: Gaussians, sums: GaussianSums) -> Gaussians:
        return kernel.maximised(sums, clusters.means, self.kind, self.ridge, clusters)

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return len(self.initial) * _sums_bytes(self.kind, *self.initial[0].ahead.means.shape)

    def state_bytes(self, n_channels: int) -> int:
        """Bytes of the state: clusters and their factors, the best and the next, and sums."""
        return 5 * self.statistic_bytes(n_channels)


def _sums_bytes(kind: str, k: int, f: int) -> int:
    second = {"full": k * f * f, "diag": k * f, "tied": f * f}[kind]
    return 8 * (second + k * f + 2 * k + 2)


@dataclass(frozen=True, eq=False)
class _SumsOnly(OnePass):
    """Sums of one pass at given clusters, without the step."""

    features: Any
    model: Gaussians
    name: str = "Gaussian mixture"

    def map(self, block: Block, state: None, rng_key: RngKey) -> GaussianSums:
        cells, weights = self.features.of(block)
        return kernel.gaussian_sums(cells, weights, self.model)

    def statistic_bytes(self, n_channels: int) -> int:
        return _sums_bytes(self.model.kind, *self.model.means.shape)


@dataclass(frozen=True, eq=False)
class _PosteriorOf:
    """Posterior of a block's pixels."""

    features: Any
    model: Gaussians

    def __call__(self, block: Block) -> Posterior:
        cells, weights = self.features.of(block)
        k = len(self.model.shares)
        posterior, evidence = np.zeros((block.n_pixels, k)), np.zeros(block.n_pixels)
        for start, values in kernel.tiles(cells):
            stop = start + len(values)
            found = kernel.gaussian_posterior(values, weights[start:stop], self.model)
            posterior[start:stop], evidence[start:stop] = found
        return Posterior.of(posterior, evidence, self.model.shares)


class GaussianMixture(Mixture):
    """Describe pixels as draws from K Gaussian clusters, by maximum likelihood.

    The density of pixel p, with features f_p and weight w_p, is sum_k pi_k N(f_p; m_k, V_k / w_p).

    Parameters
    ----------
    n_clusters : int
        K.
    covariance_type : {"full", "diag", "tied"}
        V_k: one for each cluster; variances only; one for all clusters.
    features : {"auto", "profiles", "scores", "counts"}
        "profiles": x / g (counts over the pixel's total) in the subspace of the noise-weighted principal
        components, as `KMeans` has them; the weight is g, since such a profile scatters as 1 / g. Counting
        noise alone makes V_k the identity. On loadings of another model (signal dim ``component``) the
        fractions of the components, in the K - 1 dimensions that they have. "scores": scores of
        `IncrementalPCA`, of weight one. "counts": the cube as it is, of weight one, as scikit-learn has it.
        "auto": profiles for integer counts; of anything else up to 32 channels as they are (loadings), scores
        for more.
    n_subspace : int, optional
        F, the dimension of the subspace of spectra; default `n_clusters`.
    reg_covar : float
        Added to all variances, as a share of the features' mean variance.
    n_init : int
        Starts, at most: k-means optima of samples that the samples cannot tell from the best one. All run in
        the same passes; the most likely one is kept.
    max_iter : int
        EM iterations (passes) at most.
    tol : float
        Stop when a pass raises the log-likelihood of a pixel by less than this (nats).
    random_state : None, int or numpy.random.Generator
        None draws a seed, kept in ``seed_``.

    Attributes
    ----------
    weights_ : ndarray (K,)
        pi. Clusters are ordered by the counts (profiles) or pixels that are theirs, the largest first.
    means_ : ndarray (K, F)
        m.
    covariances_ : ndarray (K, F, F), for "diag" (K, F), for "tied" (F, F)
        V.
    cluster_centers_ : DataArray (cluster, energy), or ndarray (K, E)
        Mean spectrum of each cluster, pixels weighted by their probabilities: for profiles the sum of its
        counts over their total (unit "1 per channel"), otherwise in the cube's units.
    labels_ : DataArray (nav...) of int, or ndarray (P,)
        The most probable cluster of each pixel; -1 where a pixel is not used or has no counts. Lazy for lazy
        cubes.
    lower_bound_ : float
        Log-likelihood of a pixel (nats) at the clusters found; `score` of the pixels of the fit.
    lower_bound_path_ : ndarray
        After each pass of EM, of the best start.
    bic_, aic_ : float
    n_parameters_ : int
    n_pixels_ : float
        Pixels that hold anything.
    features_ : str
    n_iter_ : int
    converged_ : bool

    Notes
    -----
    Passes: one for the subspace, two for the samples on which starts are found, one that assigns pixels to
    the starts' centers, one an EM iteration for all starts together, one for the mean spectra. Features are
    small and stay in memory. The same seed gives the same bits on any number of workers.

    The likelihood of a full covariance is unbounded where a cluster shrinks to a point; `reg_covar` bounds
    it. Likelihoods of different `features`, or subspaces, do not compare, and neither do their criteria.

    References
    ----------
    A. P. Dempster, N. M. Laird, D. B. Rubin, J. R. Stat. Soc. B 39 (1977) 1.
    https://doi.org/10.1111/j.2517-6161.1977.tb01600.x
    I. D. Gebru et al., IEEE Trans. Pattern Anal. Mach. Intell. 38 (2016) 2402 (weights).
    https://doi.org/10.1109/TPAMI.2016.2522425

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> counts = np.random.default_rng(0).poisson([[9, 1, 1]] * 50 + [[1, 1, 9]] * 50)
    >>> em.GaussianMixture(2, random_state=0).fit(counts).labels_[[0, 99]].tolist() in ([0, 1], [1, 0])
    True
    """

    features_: str
    _model: Gaussians
    _sums: GaussianSums

    def __init__(
        self,
        n_clusters: int = 2,
        *,
        covariance_type: str = "full",
        features: FeatureName = "auto",
        n_subspace: int | None = None,
        reg_covar: float = 1e-6,
        n_init: int = 2,
        max_iter: int = 100,
        tol: float = 1e-3,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.covariance_type = covariance_type
        self.features = features
        self.n_subspace = n_subspace
        self.reg_covar = reg_covar
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    @property
    def _counts_only(self) -> bool:
        return self.features == "profiles"

    def _check_parameters(self) -> None:
        for name in ("n_clusters", "n_init", "max_iter"):
            require_whole(self, name, 1)
        require_whole(self, "n_subspace", 1, optional=True)
        for name in ("tol", "reg_covar"):
            require_number(self, name, 0.0)
        for name, known in (
            ("covariance_type", kernel.KINDS),
            ("features", ("auto", "profiles", "scores", "counts")),
        ):
            if getattr(self, name) not in known:
                raise InputError(
                    f"GaussianMixture: {name} must be one of {', '.join(known)}, got "
                    f"{getattr(self, name)!r}"
                )

    # -- fitting ------------------------------------------------------------------------------------

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
            A parameter or value cannot be used; fewer (distinct) pixels than clusters; a covariance is not
            positive definite.
        """
        with resident(), single_threaded_blas():
            self.find_clusters(X, where)
            self.labels_ = self.predict(X, where=where)
        return self

    def find_clusters(self, X: Any, where: Any = None) -> None:
        """Do what `fit` does but for the labels, for who writes them elsewhere."""
        self._check_parameters()
        with resident(), single_threaded_blas():
            source, labels = as_source(X, where)
            self._refuse_too_few(source)
            self.seed_ = resolve_seed(self.random_state)
            self.features_, self._features = self._make_features(X, where, source, labels)
            self._refuse_wide(self._features.n_features)
            cheap, cheap_source = _cheap(source, self._features)
            self._iterate(cheap, cheap_source, *self._starts(cheap, cheap_source))
            self._remember(labels)
            self._remember_columns(X)
            self._spectrum_sums: Any = None
            self._describe(source)

    def partial_fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Go on with more pixels; those seen before count with the probabilities that they had.

        The first call is `fit`; it fixes features and channels. Later calls make one pass over the new
        pixels and one step of EM with the sums of all (incremental EM). ``labels_`` and ``lower_bound_`` are
        of the pixels of the last call.

        References
        ----------
        R. M. Neal, G. E. Hinton, in Learning in Graphical Models (1998) 355.
        https://doi.org/10.1007/978-94-011-5014-9_12
        """
        if not hasattr(self, "axes_"):
            return self.fit(X, where=where)
        self._check_parameters()
        self._check_signal(X)
        with resident(), single_threaded_blas():
            source, _ = as_source(X, where, channels=self.axes_.channels)
            new = run_sweep(_SumsOnly(self._features, self._model), source).state
            sums = self._sums + new
            means = self._model.means
            model = kernel.maximised(sums, means, self.covariance_type, self._ridge, self._model)
            self._sums = sums.about(model.means - means)
            self._take(model)
            self.n_iter_ += 1
            self._describe(source)
            self.n_pixels_ = new.n_pixels
            self.lower_bound_ = self.score(X, where=where)
            self.labels_ = self.predict(X, where=where)
        return self

    def _make_features(
        self, X: Any, where: Any, source: BlockSource, labels: Labels
    ) -> tuple[str, Spectral]:
        name: str = self.features
        n_used = source.n_channels
        if name == "auto":
            name = "profiles" if dtype_of(X).kind in "iub" else "scores"
            if name == "scores" and n_used <= AS_IS:
                name = "counts"
        if name == "counts":
            return name, _AsIs(n_used, float(source.n_pixels))
        if name == "profiles" and labels.sig_dims == ("component",):
            if n_used < 2:
                raise InputError(
                    "GaussianMixture: fractions of one component are all one",
                    hint="use features='counts', or loadings of more components",
                )
            return name, _Profiles(_contrasts(n_used))
        most = min(source.n_pixels, n_used) - 1
        n = min(self.n_clusters, most) if self.n_subspace is None else self.n_subspace
        if not 1 <= n <= most:
            raise InputError(
                f"GaussianMixture: {name} of {source.n_pixels} pixels and {n_used} channels lie in at "
                f"most {max(most, 0)} dimensions, {max(n, 1)} are asked for "
                f"(n_samples = {source.n_pixels}, n_features = {n_used})",
                hint="use features='counts', or a smaller n_subspace",
            )
        if name == "profiles":
            return name, _Profiles(*profile_basis(X, where, source, n))
        return name, _scores_of(X, where, source, n)

    def _refuse_wide(self, n_features: int) -> None:
        if self.covariance_type != "diag" and n_features > MAX_FEATURES:
            raise InputError(
                f"GaussianMixture: covariances between {n_features} features, at most {MAX_FEATURES} can "
                "be estimated",
                hint="use features='scores' or 'profiles', or covariance_type='diag'",
            )

    def _starts(self, features: Any, source: BlockSource) -> tuple[NDArray[np.float64], float]:
        """Centers to start from (R, K, F), and the mean variance of the features at a weight of one."""
        total = getattr(self._features, "total", None)
        kmeans = KMeans(self.n_clusters, n_init=self.n_init)
        kmeans.seed_ = self.seed_
        survey = kmeans._survey(features, source, total)
        measured = features
        if isinstance(features, _AsIs) and (mean := _far_mean(survey[0])) is not None:
            measured = _Shifted(features.n_features, total, mean)
            survey = kmeans._survey(measured, source, total)
        centers, variance, _ = kmeans._find_starts(measured, source, *survey)
        if isinstance(measured, _Shifted):
            centers = np.stack([measured.outer(c) for c in centers])
        weight = float(survey[0][0])
        if variance <= 0.0:
            raise InputError(
                "GaussianMixture: all pixels that are used are equal "
                f"(n_samples = {source.n_pixels})",
                hint="check the selection (where=)",
            )
        return centers, variance * weight / source.n_pixels / features.n_features

    def _iterate(
        self, features: Any, source: BlockSource, centers: NDArray[np.float64], variance: float
    ) -> None:
        self._ridge = self.reg_covar * variance
        kind = self.covariance_type
        hard = run_sweep(_HardSums(features, centers, kind), source).state
        paths = tuple(
            Path[Gaussians, GaussianSums](kernel.maximised(sums, c, kind, self._ridge, None))
            for sums, c in zip(hard, centers, strict=True)
        )
        peak = ascend(
            _EM(paths, self.tol, features, kind, self._ridge),
            source,
            seed=self.seed_,
            max_iter=self.max_iter,
            model="GaussianMixture",
            hint="scale the cube by a constant, or raise reg_covar",
        )
        order = np.argsort(-peak.sums.weights, kind="stable")
        self.n_iter_, self.converged_ = peak.n_rounds, peak.converged
        self.lower_bound_, self.lower_bound_path_ = peak.objective, peak.history
        self.n_pixels_ = peak.sums.n_pixels
        self._take(peak.clusters.taken(order))
        self._sums = peak.sums.taken(order)

    def _take(self, model: Gaussians) -> None:
        self._model = model
        self.weights_, self.means_ = model.shares, model.means
        self.covariances_ = model.covariances[0] if model.kind == "tied" else model.covariances

    def _describe(self, source: BlockSource) -> None:
        """Mean spectra of the clusters, over this source and those of earlier partial fits."""
        axes = self.axes_
        if self.features_ == "counts":
            spectra, units = self.means_, axes.units
        else:
            sweep = SpectrumSweep(self._posterior(), len(self.weights_))
            sums, counts = run_sweep(sweep, source).state
            if self._spectrum_sums is not None:
                sums, counts = sums + self._spectrum_sums[0], counts + self._spectrum_sums[1]
            self._spectrum_sums = sums, counts
            profiles = self.features_ == "profiles"
            over = sums.sum(axis=1) if profiles else counts
            spectra = sums / np.where(over > 0, over, 1.0)[:, None]
            units = "1 per channel" if profiles else axes.units
        self.cluster_centers_ = axes.spectra(
            spectra, dim="cluster", name="cluster_centers", attrs={"units": units}
        )

    # -- answers ------------------------------------------------------------------------------------

    @property
    def n_parameters_(self) -> int:
        """Free numbers: means, covariances, shares."""
        self._require_fitted()
        return self._model.n_parameters

    def _posterior(self) -> Callable[[Block], Posterior]:
        return _PosteriorOf(self._features, self._model)

    def _quality_cells(self) -> Callable[[Block], tuple[Any, NDArray[np.bool_]]]:
        """What `cluster_quality` samples of a block: features with the weight as the last column."""
        return WeightedColumns(self._features)

    def _quality_sample(self, cells: Any) -> _SampledGaussians:
        return _SampledGaussians(self, cells)


@dataclass(frozen=True, eq=False)
class _SampledGaussians:
    """A sample of the pixels of a fit (n, F + 1), for `cluster_quality`."""

    model: GaussianMixture
    columns: NDArray[np.float64]

    def features(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.columns[:, :-1], self.columns[:, -1]

    def labels(self) -> NDArray[np.int32]:
        return self._labels_by(self.model._model)

    def labels_of_another(self, pixels: NDArray[np.int64], seed: int) -> NDArray[np.int32]:
        source = ArraySource.from_array(self.columns[pixels], 1)
        other = clone(self.model)
        features = other._features = _Columns(self.columns.shape[1] - 1)
        other.seed_ = seed
        other._iterate(features, source, *other._starts(features, source))
        return self._labels_by(other._model)

    def _labels_by(self, model: Gaussians) -> NDArray[np.int32]:
        values = np.ascontiguousarray(self.columns[:, :-1])
        posterior, _ = kernel.gaussian_posterior(values, self.columns[:, -1], model)
        return np.asarray(posterior.argmax(axis=1), dtype=np.int32)


def _cheap(source: BlockSource, features: Spectral) -> tuple[Any, BlockSource]:
    """Compute scores or profiles once and keep them: they are much smaller than the cube."""
    if not isinstance(features, _Scores):
        return _features_source(source, features)
    n = features.n_features
    return _Columns(n), MappedSource(source, features.columns, n + 1, f"scores-{features.key}")


def _scores_of(X: Any, where: Any, source: BlockSource, n: int) -> _Scores:
    pca = IncrementalPCA(n_components=n, random_state=0).fit(X, where=where)
    spectra = np.ascontiguousarray(np.asarray(pca.components_, dtype=np.float64))
    digest = hashlib.sha256(spectra.tobytes())
    digest.update(np.ascontiguousarray(np.asarray(pca.mean_, dtype=np.float64)).tobytes())
    project = pca.pixel_function()
    return _Scores(project, n, digest.hexdigest()[:16], float(source.n_pixels))


def _contrasts(n: int) -> NDArray[np.float64]:
    """Orthonormal basis (n, n - 1) of what sums to zero: fractions sum to one, and have no scatter across.

    Helmert's.
    """
    out = np.zeros((n, n - 1))
    for j in range(1, n):
        out[:j, j - 1] = 1.0
        out[j, j - 1] = -j
    return np.asarray(out / np.linalg.norm(out, axis=0))
