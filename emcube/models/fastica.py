"""Principal components turned into ones that mean more: independent ones (FastICA) and simple ones (varimax).

Letters: P pixels, E used channels, K components. X is the weighted matrix of PCA, X = U S V' + rest.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xarray as xr

from emcube.engine import resident, run_sweep
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.kernels.products import pixel_products
from emcube.kernels.rotation import independent, varimax
from emcube.models.base import Estimator, resolve_seed
from emcube.models.figures import ComponentFigures
from emcube.models.labels import Labels, as_source
from emcube.models.mixing import require_choice, require_whole
from emcube.models.pca import IncrementalPCA
from emcube.models.pca_sweeps import Project, pixel_totals
from emcube.models.rebuild import in_order, pixels_only, rebuild
from emcube.results.model import with_column

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey
    from emcube.models.noise import NoiseModel

__all__ = ["FastICA", "RotatedPCA", "Varimax"]

ROWS = 1 << 17
"""Pixels whose scores are looked at, at most (about): a random share of them where there are more."""

MANY = 10
"""Differences for each component, from which on they are looked at in place of the spectra themselves."""

QUIET = 0.05
"""Share of the variance of differences that may be noise, where the span is chosen."""

ABOVE = 1.2
"""Times the largest square that noise alone would have, from which on a principal vector holds lines."""

SPANS = 16
"""Channels that a difference reaches across, at most, where the span is chosen."""

RANK = 1e-12
"""Components whose variance is below this share of the first's say nothing and cannot be turned."""


@dataclass(frozen=True, eq=False)
class _ScoreSweep:
    """Weighted scores of a random share of the pixels, in one round."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64] | None
    noise: NoiseModel
    share: float
    name: str

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> NDArray[np.float64]:
        """Rows of scores; of a weighted PCA over the root of the pixel's total."""
        scores = pixel_products(block.data, self.matrix)
        if self.offset is not None:
            scores -= self.offset
        weights = self.noise.pixel_weights(pixel_totals(block.data))
        if weights is not None:
            scores *= np.sqrt(weights)[:, None]
        if self.share < 1.0:
            scores = scores[np.random.default_rng(rng_key).random(len(scores)) < self.share]
        return scores

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gather."""
        return np.concatenate((a, b))

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True


class RotatedPCA(ComponentFigures, Estimator):
    """Base of models that turn the K leading principal components by a (K, K) matrix.

    X is about U S V'; a subclass finds A such that the components are A V' and the loadings U S A^-1.
    """

    n_components: int
    noise: Any
    domain: str
    random_state: Any
    components_: Any
    mean_: Any
    variance_share_: Any
    n_iter_: int
    converged_: bool
    seed_: int
    _pca: IncrementalPCA
    _turn: NDArray[np.float64]
    _rows: NDArray[np.float64] | None
    _name: str

    @abstractmethod
    def _mixing(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """A (K, K), found on rows of weighted scores or of spectra (N, K); sets what the search tells."""

    @abstractmethod
    def _spectral_rows(self) -> NDArray[np.float64]:
        """What is looked at with ``domain="spectral"``, (N, K)."""

    @abstractmethod
    def _check_own_parameters(self) -> None:
        """Refuse parameters that are out of range."""

    # -- fitting ------------------------------------------------------------------------------------

    def fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Fit the model anew.

        Parameters
        ----------
        X : DataArray, or matrix of shape (P, E)
        y : None
            Ignored, as scikit-learn's pipelines want it.
        where : DataArray of bool, optional
            What is used (True).

        Raises
        ------
        InputError
            Values are not finite, or negative where counts are meant; there are fewer pixels, channels or
            dimensions than components; a parameter is out of range.
        """
        self._check_parameters()
        seed = resolve_seed(self.random_state)
        with resident(), single_threaded_blas():
            pca = IncrementalPCA(int(self.n_components), noise=self.noise, random_state=seed)
            self._take(pca.fit(X, where=where), X, where, seed, None)
        self._remember_columns(X)
        return self

    def partial_fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Add pixels to the fit.

        The first call is `fit` and fixes the channels; later `where` selects pixels only. The principal
        components, and so all of ``domain="spectral"``, are those of one fit on everything. With
        ``domain="spatial"`` the scores of earlier pixels are carried over into the new subspace.

        Raises
        ------
        InputError
            As for `fit`, the signal differs from that of the first call, or there are too many channels
            for PCA's exact sums.
        """
        if not hasattr(self, "axes_"):
            return self.fit(X, where=where)
        self._check_parameters()
        earlier = None if self._rows is None else (self._rows, self._pca._vectors, self._pca._scale)
        with resident(), single_threaded_blas():
            self._take(self._pca.partial_fit(X, where=where), X, where, self.seed_, earlier)
        return self

    def _check_parameters(self) -> None:
        require_whole("n_components", self.n_components, 1)
        require_choice("domain", self.domain, ("spectral", "spatial"))
        self._check_own_parameters()

    @property
    def _counts_only(self) -> bool:
        return self.noise == "poisson" or bool(getattr(self.noise, "needs_counts", False))

    @property
    def _n_features_out(self) -> int:
        return len(self._turn)

    def _take(self, pca: IncrementalPCA, X: Any, where: Any, seed: int, earlier: Any) -> None:
        """Turn fitted principal components, and set the public attributes."""
        self._pca, self.seed_ = pca, seed
        self._remember(pca.axes_)
        self._refuse_rank(pca)
        rows = None
        if self.domain == "spatial":
            rows = self._gather(X, where, earlier)
        self._rows = rows
        mixing = self._mixing(self._spectral_rows() if rows is None else rows)
        self._finish(mixing)

    def _refuse_rank(self, pca: IncrementalPCA) -> None:
        values = np.asarray(pca.explained_variance_)
        found = int(np.count_nonzero(values > RANK * values[0]))
        if found < len(values):
            raise InputError(
                f"{len(values)} components are asked for, the pixels (n_samples = {pca.n_samples_seen_}) "
                f"span {found} dimensions",
                hint="ask for fewer components",
            )

    def _gather(self, X: Any, where: Any, earlier: Any) -> NDArray[np.float64]:
        """Weighted scores (N, K) of a share of the pixels."""
        pca = self._pca
        source, _ = as_source(X, pixels_only(X, where), channels=pca.axes_.channels)
        matrix = pca._scale[:, None] * pca._vectors
        offset = self._offset(matrix)
        share = min(1.0, ROWS / max(1, source.n_pixels))
        sweep = _ScoreSweep(matrix, offset, pca.noise_, share, f"{self._name} (scores)")
        rows: NDArray[np.float64] = run_sweep(sweep, source, seed=self.seed_).state
        if earlier is None:
            return rows
        old, vectors, scale = earlier
        # X is about (old rows) V' in the old scaling of the channels.
        carried = old @ ((vectors / scale[:, None]).T @ matrix)
        whole = np.concatenate((carried, rows))
        if len(whole) > ROWS:
            rng = np.random.default_rng((self.seed_, 1, len(old)))
            whole = whole[np.sort(rng.choice(len(whole), ROWS, replace=False))]
        return whole

    def _offset(self, matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
        pca = self._pca
        return (pca._sums / pca.n_samples_seen_) @ matrix if pca.noise_.centred else None

    def _finish(self, mixing: NDArray[np.float64]) -> None:
        """Order, signs and sizes of the components, and the attributes that follow."""
        pca, labels = self._pca, self.axes_
        spectra = mixing @ (pca._vectors / pca._scale[:, None]).T
        sizes = np.abs(spectra).sum(axis=1)
        largest = spectra[np.arange(len(spectra)), np.abs(spectra).argmax(axis=1)]
        mixing = mixing / np.where(largest < 0, -sizes, sizes)[:, None]
        values = np.square(np.asarray(pca.singular_values_))
        inverse = np.linalg.inv(mixing)
        # What component k adds to X: its loadings U S A^-1 times the length of its part of A V'.
        energy = np.einsum("jk,j,jk->k", inverse, values, inverse) * np.square(mixing).sum(axis=1)
        order = np.argsort(-energy, kind="stable")
        self._turn = mixing[order]
        whole = float(values.sum() / np.asarray(pca.explained_variance_ratio_).sum())
        share = energy[order] / whole
        spectra = self._turn @ (pca._vectors / pca._scale[:, None]).T
        self.components_ = labels.spectra(spectra, attrs={"units": "1 per channel"})
        self.mean_ = pca.mean_
        self.noise_ = pca.noise_
        self.n_components_ = len(spectra)
        self.n_samples_seen_ = pca.n_samples_seen_
        self.variance_share_ = share if labels.plain else _by_component(share)

    # -- answers ------------------------------------------------------------------------------------

    def pixel_function(self) -> Callable[[Block], dict[str, NDArray[Any]]]:
        """Picklable ``function(block) -> {"loadings": (p, K)}``."""
        self._require_fitted()
        pca = self._pca
        matrix = (pca._scale[:, None] * pca._vectors) @ np.linalg.inv(self._turn)
        return Project(np.ascontiguousarray(matrix), self._offset(matrix))

    def transform(self, X: Any, *, where: Any = None) -> Any:
        """Compute the loadings of each pixel, lazily where the cube is lazy.

        Parameters
        ----------
        X : DataArray with the signal of the fit, or matrix of shape (P, E)
        where : DataArray of bool, optional
            Pixels to compute; others are NaN.

        Returns
        -------
        DataArray (nav dims, component), or ndarray (P, K)
            In the cube's units, of any sign.
        """
        self._require_fitted()
        return self._map(X, "loadings", (self.n_components_,), where=where)

    def fit_transform(self, X: Any, y: None = None, *, where: Any = None) -> Any:
        """Fit, then compute the loadings."""
        return self.fit(X, where=where).transform(X, where=pixels_only(X, where))

    def inverse_transform(self, loadings: Any) -> Any:
        """Rebuild the cube from loadings: as PCA does with as many components.

        Parameters
        ----------
        loadings : DataArray (nav dims, component), or ndarray (P, K)

        Raises
        ------
        InputError
            The loadings have another number of components.
        """
        self._require_fitted()
        k = self.n_components_
        if isinstance(loadings, xr.DataArray):
            loadings = in_order(loadings, k)
        if loadings.shape[-1] != k:
            raise InputError(
                f"loadings of {loadings.shape[-1]} components were given, the model has {k}"
            )
        pca = self._pca
        spectra = self._turn @ (pca._vectors / pca._scale[:, None]).T
        rebuilt = rebuild(self.axes_, loadings, self.axes_.full_channels(spectra))
        if not pca.noise_.centred:
            return rebuilt
        mean = self.axes_.full_channels(pca._sums / pca.n_samples_seen_)
        return rebuilt + (
            mean if not isinstance(rebuilt, xr.DataArray) else mean.reshape(self.axes_.sig_shape)
        )

    def score(self, X: Any, y: None = None, *, where: Any = None) -> float:
        """Mean log-likelihood of a pixel: that of PCA, which no turning changes (`IncrementalPCA.score`)."""
        self._require_fitted()
        self._check_signal(X)
        return self._pca.score(X, where=where)

    def _model_of(self, X: Any, where: Any) -> tuple[xr.DataArray, xr.DataArray]:
        loadings, components = super()._model_of(X, where)
        if self.noise_.centred:
            pixels = xr.ones_like(loadings.isel(component=0, drop=True))
            return with_column(loadings, pixels), with_column(components, self.mean_)
        return loadings, components


class FastICA(RotatedPCA):
    """Find independent components: principal components turned until they know nothing of each other.

    Parameters
    ----------
    n_components : int
        K.
    noise : {"auto", "poisson"}, None or NoiseModel
        Of the PCA: "auto" is "poisson" for integer counts, which weights them and does not centre, and None
        for everything else.
    domain : {"spectral", "spatial"}
        What is independent: the spectra of the components, channel by channel, or their maps, pixel by pixel.
    derivative : int or "auto"
        Order of the differences of spectra that are looked at: a continuum that components share makes their
        spectra dependent, and its differences are small. 0: the spectra themselves. Along each signal
        dim; not
        across channels that are left out. "auto" is 1, and 0 where there are fewer than ten differences for
        each component. Of no effect with ``domain="spatial"``.
    span : int or "auto"
        Channels that a difference reaches across. Neighbours differ by little and their noise does not: lines
        of several channels stand out of it in differences over some of them. "auto" is the least up to 16 at
        which a twentieth of their variance is noise at most, as counting noise (without a noise model: what
        PCA leaves) tells. Of no effect where nothing is differenced.
    fun : {"logcosh", "exp", "cube"}
        Measure of independence.
    max_iter : int
    tol : float
        Of the fixed-point iteration: largest change of a direction (one minus a cosine).
    random_state : int, Generator or None
        Of the first guess, and of the pixels that are looked at where there are more than 131,072.

    Attributes
    ----------
    components_ : DataArray (component, signal dims), or ndarray (K, E)
        Values of any sign; their sizes sum to one over the used channels, the largest is positive. Ordered
        by their share of the weighted variance.
    mean_ : DataArray or ndarray
        Mean spectrum; part of the model where it is centred (no noise weighting).
    variance_share_ : DataArray (component,), or ndarray
        Share of the weighted variance that each adds, alone. They do not sum to one: components that are
        no longer at right angles overlap.
    n_iter_, converged_
        Of the fixed-point iteration.
    span_ : int
        That was used; 0 where nothing was differenced.
    noise_ : NoiseModel
    n_components_, n_samples_seen_, seed_ : int
    axes_ : Labels

    Notes
    -----
    One pass for PCA's sums and, with ``domain="spatial"``, one for the scores. The small problem is
    scikit-learn's FastICA. Same bits on any number of workers.

    References
    ----------
    A. Hyvarinen, E. Oja, Neural Netw. 13 (2000) 411. https://doi.org/10.1016/S0893-6080(00)00026-5
    D. Rossouw et al., Nano Lett. 15 (2015) 2716. https://doi.org/10.1021/acs.nanolett.5b00449

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> true = rng.dirichlet(np.full(60, 0.1), 3)
    >>> counts = rng.poisson(500 * rng.dirichlet(np.full(3, 0.3), 900) @ true)
    >>> em.FastICA(3, random_state=0).fit(counts).components_.shape
    (3, 60)
    """

    span_: int
    _name = "ICA"

    def __init__(
        self,
        n_components: int = 2,
        *,
        noise: str | NoiseModel | None = "auto",
        domain: str = "spectral",
        derivative: int | str = "auto",
        span: int | str = "auto",
        fun: str = "logcosh",
        max_iter: int = 1000,
        tol: float = 1e-8,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.noise = noise
        self.domain = domain
        self.derivative = derivative
        self.span = span
        self.fun = fun
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _check_own_parameters(self) -> None:
        require_whole("derivative", self.derivative, 0, auto=True)
        require_whole("span", self.span, 1, auto=True)
        require_choice("fun", self.fun, ("logcosh", "exp", "cube"))
        require_whole("max_iter", self.max_iter, 1)
        _require_positive("tol", self.tol)

    def _spectral_rows(self) -> NDArray[np.float64]:
        vectors, labels = self._pca._vectors.T, self._pca.axes_
        k = len(vectors)
        order = 1 if isinstance(self.derivative, str) else int(self.derivative)
        rows = self._differences(order)
        if isinstance(self.derivative, str) and len(rows) < MANY * k:
            self.span_ = 0
            return _differences(vectors, labels, 0)
        if len(rows) <= k:
            raise InputError(
                f"{k} components are asked for, the spectra have {len(rows)} differences of order "
                f"{order} between used channels {self.span_ or 1} apart: more are needed than components",
                hint="use derivative=0 or span=1, or more channels",
            )
        return rows

    def _differences(self, order: int) -> NDArray[np.float64]:
        """Differences (N, K) across the span that is asked for, or the least that is quiet enough."""
        vectors, labels = self._pca._vectors.T, self._pca.axes_
        self.span_ = 0 if order == 0 else 1
        if order and not isinstance(self.span, str):
            self.span_ = int(self.span)
        elif order:
            self.span_ = self._quiet_span(order)
        return _differences(vectors, labels, order, max(1, self.span_))

    def _quiet_span(self, order: int) -> int:
        """The least span across which differences are hardly noise; vectors of noise alone do not count."""
        vectors, labels = self._pca._vectors.T, self._pca.axes_
        # Of a difference of order n, whose coefficients are binomial, noise has the variance (2n over n).
        noise = math.comb(2 * order, order) * self._noise()
        shares = []
        for span in range(1, SPANS + 1):
            rows = _differences(vectors, labels, order, span)
            if len(rows) < MANY * len(vectors):
                break
            shares.append(noise / np.maximum(rows.var(axis=0), np.finfo(float).tiny))
        pixels, channels = int(self._pca.n_samples_seen_), vectors.shape[1]
        edge = ABOVE * (math.sqrt(pixels) + math.sqrt(channels)) ** 2
        signal = np.flatnonzero(self._noise() * edge < 1.0).tolist() if shares else []
        worst = [max(share[k] for k in signal) for share in shares] if len(signal) else [0.0]
        quiet = np.flatnonzero(np.array(worst) <= QUIET)
        return 1 + int(quiet[0] if quiet.size else np.argmin(worst))

    def _noise(self) -> NDArray[np.float64]:
        """Variance (K,) of the noise of a channel in each of PCA's unit vectors."""
        pca = self._pca
        # Weighted counts have noise of variance one.
        noise = float(pca.noise_variance_) if pca.noise_.centred else 1.0
        return np.asarray(noise / np.square(np.asarray(pca.singular_values_)))

    def _mixing(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        unmixing, self.n_iter_, self.converged_ = independent(
            rows, fun=self.fun, max_iter=int(self.max_iter), tol=float(self.tol), seed=self.seed_
        )
        if self.domain == "spatial":
            self.span_ = 0
        # Of spectra W V' are the components; of maps U S W' are the loadings, and X = (U S W') (W'^-1 V').
        return np.asarray(unmixing if self.domain == "spectral" else np.linalg.inv(unmixing.T))


class Varimax(RotatedPCA):
    """Find simple components: principal components turned so that each is large in few places.

    Parameters
    ----------
    n_components : int
        K.
    noise : {"auto", "poisson"}, None or NoiseModel
        As for `FastICA`.
    domain : {"spatial", "spectral"}
        What becomes simple. "spatial": each component fills few pixels; the maps stay at right angles and the
        spectra need not. "spectral": each has few lines; the spectra stay at right angles (in the
        weighted space).
    gamma : float
        1 is varimax, 0 quartimax.
    max_iter : int
    tol : float
        Relative growth of the criterion at which the search ends.
    random_state : int, Generator or None
        Of the pixels that are looked at where there are more than 131,072.

    Attributes
    ----------
    components_, mean_, variance_share_, n_iter_, converged_, noise_, n_components_, n_samples_seen_,
    seed_, axes_
        As for `FastICA`.

    Notes
    -----
    As for `FastICA`: one pass, two with ``domain="spatial"``; same bits on any number of workers.

    References
    ----------
    H. F. Kaiser, Psychometrika 23 (1958) 187. https://doi.org/10.1007/BF02289233
    M. R. Keenan, "Exploiting spatial-domain simplicity in spectral image analysis", Surf. Interface Anal. 41
    (2009) 79. https://doi.org/10.1002/sia.2949

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> true = rng.dirichlet(np.full(60, 0.1), 3)
    >>> counts = rng.poisson(50 * true[rng.integers(0, 3, 900)])
    >>> em.Varimax(3, random_state=0).fit(counts).components_.shape
    (3, 60)
    """

    _name = "varimax"

    def __init__(
        self,
        n_components: int = 2,
        *,
        noise: str | NoiseModel | None = "auto",
        domain: str = "spatial",
        gamma: float = 1.0,
        max_iter: int = 500,
        tol: float = 1e-10,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.noise = noise
        self.domain = domain
        self.gamma = gamma
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _check_own_parameters(self) -> None:
        _require_positive("gamma", self.gamma, zero=True)
        require_whole("max_iter", self.max_iter, 1)
        _require_positive("tol", self.tol)

    def _spectral_rows(self) -> NDArray[np.float64]:
        return self._pca._vectors

    def _mixing(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        values = np.asarray(self._pca.singular_values_)
        if self.domain == "spatial":
            rows = rows / values  # U, at right angles
        rotation, self.n_iter_, self.converged_ = varimax(
            rows, gamma=float(self.gamma), max_iter=int(self.max_iter), tol=float(self.tol)
        )
        # X = (U R) (R' S V'), or (U S R) (R' V').
        turned: NDArray[np.float64] = (
            rotation.T * values if self.domain == "spatial" else rotation.T
        )
        return turned


def _require_positive(name: str, value: Any, *, zero: bool = False) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not (0.0 <= value < np.inf) or (value == 0.0 and not zero):
        raise InputError(
            f"{name} must be a {'' if zero else 'positive '}number"
            f"{' from 0 on' if zero else ''}, got {value!r}"
        )


def _differences(
    spectra: NDArray[np.float64], labels: Labels, order: int, span: int = 1
) -> NDArray[np.float64]:
    """Differences (N, K) of spectra (K, E) along each signal dim, across so many used channels."""
    if order == 0:
        return np.ascontiguousarray(spectra.T)
    full = labels.full_channels(spectra).reshape(len(spectra), *labels.sig_shape)
    parts = []
    for axis in range(1, full.ndim):
        part = np.moveaxis(full, axis, -1)
        if part.shape[-1] <= order * span:
            continue
        between = _all_used(part, order * span)
        for _ in range(order):
            part = part[..., span:] - part[..., :-span]
        parts.append(np.where(between, part, np.nan).reshape(len(spectra), -1))
    rows = np.concatenate([np.zeros((len(spectra), 0)), *parts], axis=1).T
    return np.ascontiguousarray(rows[np.isfinite(rows).all(axis=1)])


def _all_used(values: NDArray[np.float64], reach: int) -> NDArray[np.bool_]:
    """Whether all of ``reach + 1`` channels from each on, along the last axis, are used (not NaN)."""
    used = np.isfinite(values)
    found = np.ones((*values.shape[:-1], values.shape[-1] - reach), dtype=bool)
    for step in range(reach + 1):
        found &= used[..., step : step + found.shape[-1]]
    return found


def _by_component(values: NDArray[np.float64]) -> xr.DataArray:
    return xr.DataArray(
        values,
        dims=("component",),
        coords={"component": np.arange(len(values))},
        name="variance_share",
        attrs={
            "units": "1",
            "long_name": "share of the weighted variance that each component adds",
        },
    )
