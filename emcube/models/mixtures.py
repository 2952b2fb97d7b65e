"""What the mixtures share: posterior probabilities, labels, likelihoods and what they are worth.

Letters: P pixels, E channels, K clusters.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClusterMixin

from emcube.engine import Block, BlockSource, RngKey, run_sweep
from emcube.errors import InputError
from emcube.kernels.mixtures import spectrum_sums
from emcube.models.base import Estimator, as_source
from emcube.models.figures import ClusterFigures
from emcube.models.sweeps import OnePass

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Mixture", "Posterior", "SpectrumSweep", "require_number", "require_whole"]


@dataclass(frozen=True, eq=False)
class Posterior:
    """What a mixture says of a block's pixels.

    Attributes
    ----------
    probabilities : ndarray, shape (p, K)
        Of the clusters; the shares of all pixels where a pixel holds nothing.
    labels : ndarray of int32, shape (p,)
        The most probable cluster, the lower number of two alike; -1 where a pixel holds nothing.
    evidence : ndarray, shape (p,)
        Log-likelihood; zero where a pixel holds nothing.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int32]
    evidence: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        posterior: NDArray[np.float64],
        evidence: NDArray[np.float64],
        shares: NDArray[np.float64],
    ) -> Posterior:
        """From what the kernels give, in which all probabilities of such a pixel are zero."""
        empty = posterior.max(axis=1) == 0.0
        labels = posterior.argmax(axis=1).astype(np.int32)
        labels[empty] = -1
        return cls(np.where(empty[:, None], shares, posterior), labels, evidence)


@dataclass(frozen=True, eq=False)
class SpectrumSweep(OnePass):
    """Sums of the cube's spectra weighted by the probabilities of clusters, and of the probabilities."""

    posterior: Callable[[Block], Posterior]
    n_clusters: int
    name: str = "cluster spectra"

    def map(
        self, block: Block, state: None, rng_key: RngKey
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sums of one block: spectra (K, E), probabilities (K,)."""
        found = self.posterior(block)
        used = np.where((found.labels >= 0)[:, None], found.probabilities, 0.0)
        return spectrum_sums(block.data, used), used.sum(axis=0)

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * self.n_clusters * (n_channels + 1)


@dataclass(frozen=True, eq=False)
class _Evidence(OnePass):
    """Sum of the log-likelihoods, and the pixels that hold anything."""

    posterior: Callable[[Block], Posterior]
    name: str = "log-likelihood"

    def map(self, block: Block, state: None, rng_key: RngKey) -> NDArray[np.float64]:
        found = self.posterior(block)
        return np.array([found.evidence.sum(), float(np.count_nonzero(found.labels >= 0))])


@dataclass(frozen=True, eq=False)
class _Answers:
    """A block's posterior under the names of a result's variables."""

    posterior: Callable[[Block], Posterior]

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        found = self.posterior(block)
        return {
            "labels": found.labels,
            "probabilities": found.probabilities,
            "log_likelihood": found.evidence,
        }


class Mixture(ClusterFigures, ClusterMixin, Estimator):
    """Base of the mixtures: each pixel belongs to each cluster with a probability."""

    n_clusters: int
    cluster_centers_: Any
    labels_: Any
    weights_: NDArray[np.float64]
    lower_bound_: float
    lower_bound_path_: NDArray[np.float64]
    n_pixels_: float
    n_iter_: int
    converged_: bool
    seed_: int

    @property
    @abstractmethod
    def n_parameters_(self) -> int:
        """Free numbers of the model, for information criteria."""

    @abstractmethod
    def _posterior(self) -> Callable[[Block], Posterior]:
        """What answers for a block; pickles."""

    @property
    def _n_features_out(self) -> int:
        return len(self.weights_)

    def pixel_function(self) -> Callable[[Block], dict[str, NDArray[Any]]]:
        """Labels (p,), probabilities (p, K) and log-likelihood (p,) of a block's pixels."""
        self._require_fitted()
        return _Answers(self._posterior())

    def predict(self, X: Any, *, where: Any = None) -> Any:
        """Label pixels by the most probable cluster, lazily where `X` is lazy.

        Returns
        -------
        DataArray (nav...) of int32, or array (P,); -1 where a pixel is not used or has no counts.
        """
        attrs = {"units": "1", "long_name": "cluster"}
        return self._map(
            X, "labels", (), dims=(), dtype=np.int32, fill=-1, where=where, attrs=attrs
        )

    def predict_proba(self, X: Any, *, where: Any = None) -> Any:
        """Probability of each cluster for each pixel, lazily where `X` is lazy.

        Returns
        -------
        DataArray (nav..., cluster), or array (P, K)
            They sum to one; NaN where a pixel is not used, and the shares of the clusters where it holds no
            counts, which say nothing of it.
        """
        k = (self._n_features_out if hasattr(self, "weights_") else 0,)
        attrs = {"units": "1", "long_name": "probability of the cluster"}
        return self._map(X, "probabilities", k, dims=("cluster",), where=where, attrs=attrs)

    def transform(self, X: Any, *, where: Any = None) -> Any:
        """Probabilities of the clusters: see `predict_proba`."""
        return self.predict_proba(X, where=where)

    def fit_transform(self, X: Any, y: None = None, *, where: Any = None) -> Any:
        """Fit, and give the probabilities of the pixels."""
        return self.fit(X, where=where).transform(X, where=where)

    def fit_predict(self, X: Any, y: None = None, *, where: Any = None) -> Any:
        """Fit, and label the pixels of the fit."""
        return self.fit(X, where=where).labels_

    def score_samples(self, X: Any, *, where: Any = None) -> Any:
        """Log-likelihood of each pixel (nats), lazily where `X` is lazy: low where none of the clusters fits.

        Returns
        -------
        DataArray (nav...), or array (P,)
        """
        attrs = {"units": "1", "long_name": "log-likelihood"}
        return self._map(X, "log_likelihood", (), dims=(), where=where, attrs=attrs)

    def score(self, X: Any, y: None = None, *, where: Any = None) -> float:
        """Mean log-likelihood (nats) of the pixels that hold anything, in one pass."""
        total, n_pixels = self._evidence(X, where)
        return total / n_pixels

    def bic(self, X: Any, *, where: Any = None) -> float:
        """Bayesian information criterion of a cube, -2 log L + parameters * log pixels; less is better.

        References
        ----------
        G. Schwarz, Ann. Stat. 6 (1978) 461. https://doi.org/10.1214/aos/1176344136
        """
        total, n_pixels = self._evidence(X, where)
        return -2.0 * total + self.n_parameters_ * float(np.log(n_pixels))

    def aic(self, X: Any, *, where: Any = None) -> float:
        """Akaike's information criterion of a cube, -2 log L + 2 * parameters; less is better."""
        total, _ = self._evidence(X, where)
        return -2.0 * total + 2.0 * self.n_parameters_

    @property
    def bic_(self) -> float:
        """`bic` of the pixels of the last fit, without a pass."""
        self._require_fitted()
        log_n = float(np.log(self.n_pixels_))
        return -2.0 * self.lower_bound_ * self.n_pixels_ + self.n_parameters_ * log_n

    @property
    def aic_(self) -> float:
        """`aic` of the pixels of the last fit, without a pass."""
        self._require_fitted()
        return -2.0 * self.lower_bound_ * self.n_pixels_ + 2.0 * self.n_parameters_

    def _evidence(self, X: Any, where: Any) -> tuple[float, float]:
        self._check_signal(X)
        source, _ = as_source(X, where, channels=self.axes_.channels)
        total, n_pixels = run_sweep(_Evidence(self._posterior()), source).state
        if not n_pixels:
            raise InputError(
                f"{type(self).__name__}: all pixels that are used are empty (no counts)",
                hint="check the selection (where=)",
            )
        return float(total), float(n_pixels)

    def _refuse_too_few(self, source: BlockSource) -> None:
        if source.n_pixels < self.n_clusters:
            raise InputError(
                f"{type(self).__name__}: {self.n_clusters} clusters need as many pixels, got "
                f"{source.n_pixels}",
                hint="use fewer clusters or a wider selection (where=)",
            )


def require_whole(owner: Any, name: str, least: int, *, optional: bool = False) -> None:
    """Refuse a parameter that is no whole number from `least` on.

    Raises
    ------
    InputError
        Names the parameter and what it is.
    """
    value = getattr(owner, name)
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        either = "None or " if optional else ""
        raise InputError(
            f"{type(owner).__name__}: {name} must be {either}a whole number from {least}, got {value!r}"
        )


def require_number(owner: Any, name: str, least: float) -> None:
    """Refuse a parameter that is no finite number from `least` on.

    Raises
    ------
    InputError
        Names the parameter and what it is.
    """
    value = getattr(owner, name)
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not least <= value < np.inf:
        raise InputError(
            f"{type(owner).__name__}: {name} must be a number from {least:g}, got {value!r}"
        )
