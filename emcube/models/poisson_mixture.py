"""Mixtures of count spectra by EM over blocks, without a subspace: every count has its say.

Letters: P pixels, E channels, K clusters. g_p is the total of pixel p.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import clone

from emcube.engine import (
    ArraySource,
    Block,
    BlockSource,
    RngKey,
    SparseSource,
    resident,
    run_sweep,
)
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.kernels import kmeans as kmeans_kernel
from emcube.kernels import mixtures as kernel
from emcube.kernels.mixtures import Categories, CategorySums
from emcube.kernels.rows import CountRows
from emcube.models.base import as_source, resolve_seed
from emcube.models.em import EMSweep, Path, ascend
from emcube.models.kmeans import KMeans, _features_source, _Profiles
from emcube.models.kmeans_subspace import profile_basis
from emcube.models.labels import require_finite_counts
from emcube.models.mixtures import Mixture, Posterior, require_number, require_whole
from emcube.models.pca_sweeps import pixel_totals
from emcube.models.sweeps import OnePass

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PoissonMixture"]

MIN_PRIOR = 1e-6
"""Counts that the prior of a spectrum holds at least: no count may have the probability zero."""


@dataclass(frozen=True, eq=False)
class _HardSums(OnePass):
    """Sums of the counts by the nearest center in profile space, for R sets of centers (R, K, F)."""

    basis: NDArray[np.float64]
    centers: NDArray[np.float64]
    name: str = "Poisson mixture start"

    def map(self, block: Block, state: None, rng_key: RngKey) -> tuple[CategorySums, ...]:
        require_finite_counts(block)
        k = self.centers.shape[1]
        return tuple(
            kernel.hard_category_sums(
                block.data, kmeans_kernel.assign_profiles(block.data, self.basis, c), k
            )
            for c in self.centers
        )

    def statistic_bytes(self, n_channels: int) -> int:
        return int(8 * self.centers[:, :, 0].size * (n_channels + 1))


@dataclass(frozen=True, eq=False)
class _EM(EMSweep[Categories, CategorySums]):
    """What EM raises is the log-likelihood plus the prior's logarithm."""

    prior: NDArray[np.float64]
    name: str = field(default="Poisson mixture", kw_only=True)

    def sums_of(self, block: Block, clusters: Categories) -> CategorySums:
        require_finite_counts(block)
        return kernel.category_sums(block.data, clusters)

    def objective_of(self, clusters: Categories, sums: CategorySums) -> float:
        worth = sums.log_likelihood + float((clusters.logs @ self.prior).sum())
        return worth / max(1.0, sums.n_pixels)

    def maximised(self, clusters: Categories, sums: CategorySums) -> Categories:
        return _maximised(sums, self.prior)

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * sum(path.ahead.logs.size for path in self.initial)

    def state_bytes(self, n_channels: int) -> int:
        """Bytes of the state."""
        return 3 * self.statistic_bytes(n_channels)


@dataclass(frozen=True, eq=False)
class _SumsOnly(OnePass):
    """Sums of one pass at given clusters, without the step."""

    model: Categories
    name: str = "Poisson mixture"

    def map(self, block: Block, state: None, rng_key: RngKey) -> CategorySums:
        require_finite_counts(block)
        return kernel.category_sums(block.data, self.model)

    def statistic_bytes(self, n_channels: int) -> int:
        return 8 * self.model.logs.size


@dataclass(frozen=True, eq=False)
class _PosteriorOf:
    """Posterior of a block's pixels."""

    model: Categories

    def __call__(self, block: Block) -> Posterior:
        require_finite_counts(block)
        found = kernel.category_posterior(block.data, self.model)
        return Posterior.of(*found, self.model.shares)


class PoissonMixture(Mixture):
    """Describe pixels of counts as draws from K spectra, each pixel with a brightness of its own.

    x_pe ~ Poisson(b_p s_ke) for a pixel of cluster k, which it is with the probability pi_k. The brightness
    b_p is free (thickness, dwell time), so that its best value is the pixel's total g_p whatever the cluster,
    and the likelihood of the clusters is the multinomial one, sum_e x_pe log s_ke.

    Parameters
    ----------
    n_clusters : int
        K.
    prior_counts : float
        Counts that each spectrum is given beforehand, spread as the mean spectrum is (a Dirichlet prior): no
        channel that holds any is impossible in any cluster.
    n_subspace : int, optional
        Dimension of the subspace in which k-means finds the start; default `n_clusters`.
    n_init : int
        Starts, at most: as of `GaussianMixture`.
    max_iter : int
        EM iterations (passes) at most.
    tol : float
        Stop when a pass raises the log-likelihood of a pixel by less than this (nats).
    random_state : None, int or numpy.random.Generator
        None draws a seed, kept in ``seed_``.

    Attributes
    ----------
    weights_ : ndarray (K,)
        pi. Clusters are ordered by the counts that are theirs, the largest first.
    cluster_centers_ : DataArray (cluster, energy), or ndarray (K, E)
        s; each sums to one over the used channels (unit "1 per channel").
    labels_ : DataArray (nav...) of int, or ndarray (P,)
        The most probable cluster of each pixel; -1 where a pixel is not used or has no counts. Lazy for lazy
        cubes.
    lower_bound_ : float
        Log-likelihood of a pixel (nats) given its total, without the multinomial coefficient; `score` of
        the pixels of the fit.
    lower_bound_path_ : ndarray
        What EM raises after each pass, of the best start: the same, with the logarithm of the prior.
    bic_, aic_ : float
    n_parameters_ : int
        Channels that hold nothing are no parameters.
    n_pixels_ : float
        Pixels that hold counts.
    n_iter_ : int
    converged_ : bool

    Notes
    -----
    Passes: one for the subspace and two for the samples of the k-means start, one that assigns pixels to the
    start's centers, one an EM iteration for all starts together. All counts are used, not a subspace of them:
    faint pixels are judged by the few counts they have, with the right uncertainty. The same seed gives the
    same bits on any number of workers.

    The model knows no scatter within a cluster but that of counting. Where pixels hold thousands of
    counts, and the composition of a phase varies by more than their noise, probabilities become 0 and 1
    without meaning it, and the information criteria ask for ever more clusters: take `GaussianMixture` there.

    References
    ----------
    A. P. Dempster, N. M. Laird, D. B. Rubin, J. R. Stat. Soc. B 39 (1977) 1.
    https://doi.org/10.1111/j.2517-6161.1977.tb01600.x
    A. Rau, C. Maugis-Rabusseau, M.-L. Martin-Magniette, G. Celeux, Bioinformatics 31 (2015) 1420.
    https://doi.org/10.1093/bioinformatics/btu845

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> counts = np.random.default_rng(0).poisson([[9, 1, 1]] * 50 + [[1, 1, 9]] * 50)
    >>> float(em.PoissonMixture(2, random_state=0).fit(counts).cluster_centers_.max().round(1))
    0.8
    """

    _model: Categories
    _sums: CategorySums
    _basis: NDArray[np.float64]

    def __init__(
        self,
        n_clusters: int = 2,
        *,
        prior_counts: float = 1.0,
        n_subspace: int | None = None,
        n_init: int = 2,
        max_iter: int = 100,
        tol: float = 1e-3,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.prior_counts = prior_counts
        self.n_subspace = n_subspace
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    @property
    def _counts_only(self) -> bool:
        return True

    def _check_parameters(self) -> None:
        for name in ("n_clusters", "n_init", "max_iter"):
            require_whole(self, name, 1)
        require_whole(self, "n_subspace", 1, optional=True)
        require_number(self, "tol", 0.0)
        require_number(self, "prior_counts", MIN_PRIOR)

    # -- fitting ------------------------------------------------------------------------------------

    def fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Find the clusters of a cube of counts.

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
            A parameter or value cannot be used; values are negative; fewer (distinct) pixels than clusters.
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
            basis, centers = self._starts(X, where, source)
            self._basis = basis
            self._iterate(source, basis, centers)
            self._remember(labels)
            self._remember_columns(X)
            self._describe()

    def partial_fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Go on with more pixels; those seen before count with the probabilities that they had.

        As `GaussianMixture.partial_fit`: one pass, and one step with the sums of all pixels so far.
        """
        if not hasattr(self, "axes_"):
            return self.fit(X, where=where)
        self._check_parameters()
        self._check_signal(X)
        with resident(), single_threaded_blas():
            source, _ = as_source(X, where, channels=self.axes_.channels)
            new = run_sweep(_SumsOnly(self._model), source).state
            self._sums = self._sums + new
            self._take(_maximised(self._sums, self._prior(self._sums)))
            self._describe()
            self.n_iter_ += 1
            self.n_pixels_ = new.n_pixels
            self.lower_bound_ = self.score(X, where=where)
            self.labels_ = self.predict(X, where=where)
        return self

    def _starts(
        self, X: Any, where: Any, source: BlockSource
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Basis (E, F) of profiles, and centers to start from (R, K, F)."""
        most = min(source.n_pixels, source.n_channels) - 1
        n = min(self.n_clusters, most) if self.n_subspace is None else self.n_subspace
        if not 1 <= n <= most:
            raise InputError(
                f"PoissonMixture: profiles of {source.n_pixels} pixels and {source.n_channels} channels "
                f"lie in at most {max(most, 0)} dimensions, {max(n, 1)} are asked for "
                f"(n_samples = {source.n_pixels}, n_features = {source.n_channels})",
                hint="give more pixels and channels, or a smaller n_subspace",
            )
        features = _Profiles(*profile_basis(X, where, source, n))
        return features.basis, self._centers(source, features)

    def _centers(self, source: BlockSource, features: _Profiles) -> NDArray[np.float64]:
        """Centers of k-means to start from, (R, K, F)."""
        cheap, cheap_source = _features_source(source, features)
        kmeans = KMeans(self.n_clusters, n_init=self.n_init)
        kmeans.seed_ = self.seed_
        survey = kmeans._survey(cheap, cheap_source, features.total)
        return kmeans._find_starts(cheap, cheap_source, *survey)[0]

    def _prior(self, sums: CategorySums) -> NDArray[np.float64]:
        """Counts given to each spectrum beforehand, shape (E,)."""
        whole = sums.spectra.sum(axis=0)
        return np.asarray(self.prior_counts * whole / whole.sum())

    def _iterate(
        self, source: BlockSource, basis: NDArray[np.float64], centers: NDArray[np.float64]
    ) -> None:
        hard = run_sweep(_HardSums(basis, centers), source).state
        prior = self._prior(hard[0])
        paths = tuple(Path[Categories, CategorySums](_maximised(sums, prior)) for sums in hard)
        peak = ascend(
            _EM(paths, self.tol, prior),
            source,
            seed=self.seed_,
            max_iter=self.max_iter,
            model="PoissonMixture",
            hint="scale the cube by a constant",
        )
        order = np.argsort(-peak.sums.spectra.sum(axis=1), kind="stable")
        self.n_iter_, self.converged_ = peak.n_rounds, peak.converged
        self.lower_bound_ = peak.sums.log_likelihood / peak.sums.n_pixels
        self.lower_bound_path_ = peak.history
        self.n_pixels_ = peak.sums.n_pixels
        self._sums = peak.sums.taken(order)
        self._take(peak.clusters.taken(order))

    def _take(self, model: Categories) -> None:
        self._model = model
        self.weights_ = model.shares

    def _describe(self) -> None:
        # Channels in which nothing was ever counted belong to no cluster.
        seen = self._sums.spectra.any(axis=0)
        spectra = np.where(seen, np.exp(self._model.logs), 0.0)
        self.cluster_centers_ = self.axes_.spectra(
            spectra / spectra.sum(axis=1, keepdims=True),
            dim="cluster",
            name="cluster_centers",
            attrs={"units": "1 per channel"},
        )

    # -- answers ------------------------------------------------------------------------------------

    @property
    def n_parameters_(self) -> int:
        """Free numbers: spectra that sum to one over the channels that hold counts, shares."""
        self._require_fitted()
        k, n_seen = len(self.weights_), int(np.count_nonzero(self._sums.spectra.any(axis=0)))
        return k * (n_seen - 1) + k - 1

    def _posterior(self) -> Callable[[Block], Posterior]:
        return _PosteriorOf(self._model)

    def _quality_cells(self) -> Callable[[Block], tuple[Any, NDArray[np.bool_]]]:
        """What `cluster_quality` samples of a block: its counts."""
        return _cells_of

    def _quality_sample(self, cells: Any) -> _SampledCounts:
        return _SampledCounts(self, cells)


def _cells_of(block: Block) -> tuple[Any, NDArray[np.bool_]]:
    require_finite_counts(block)
    return block.data, pixel_totals(block.data) > 0


@dataclass(frozen=True, eq=False)
class _SampledCounts:
    """A sample of the pixels of a fit (n, E), for `cluster_quality`."""

    model: PoissonMixture
    cells: Any

    def features(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        columns = kmeans_kernel.profile_columns(self.cells, self.model._basis)
        return columns[:, :-1], columns[:, -1]

    def labels(self) -> NDArray[np.int32]:
        return self._labels_by(self.model._model)

    def labels_of_another(self, pixels: NDArray[np.int64], seed: int) -> NDArray[np.int32]:
        cells = kmeans_kernel.take(self.cells, pixels)
        source: BlockSource = (
            SparseSource.from_matrix(
                csr_matrix((cells.counts, cells.channels, cells.indptr), shape=cells.shape)
            )
            if isinstance(cells, CountRows)
            else ArraySource.from_array(cells, 1)
        )
        other = clone(self.model)
        other.seed_ = seed
        basis = self.model._basis
        other._iterate(source, basis, other._centers(source, _Profiles(basis)))
        return self._labels_by(other._model)

    def _labels_by(self, model: Categories) -> NDArray[np.int32]:
        posterior, _ = kernel.category_posterior(self.cells, model)
        return np.asarray(posterior.argmax(axis=1), dtype=np.int32)


def _maximised(sums: CategorySums, prior: NDArray[np.float64]) -> Categories:
    """Clusters of the largest expected likelihood and prior."""
    spectra = sums.spectra + prior
    # A channel without any counts has no say; a later pixel that has some there counts for all clusters
    # alike.
    tiny = np.finfo(float).tiny
    logs = np.log(np.maximum(spectra, tiny)) - np.log(spectra.sum(axis=1, keepdims=True))
    logs[:, spectra.max(axis=0) <= 0.0] = 0.0
    return Categories(sums.counts / sums.counts.sum(), logs)
