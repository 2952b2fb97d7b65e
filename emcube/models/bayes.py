"""Bayesian unmixing: draws from what components and loadings may be, given the data.

Letters: P pixels, E used channels, K components, C chains, N draws of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xarray as xr

from emcube.engine import resident, run_sweep
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.kernels.convergence import effective_size, split_r_hat
from emcube.models.base import Estimator, as_source, resolve_seed
from emcube.models.bayes_sweeps import (
    COUNT_STEPS,
    DENSE_STEPS,
    Chain,
    CountModel,
    DenseModel,
    GibbsSweep,
    Moments,
    gamma_interval,
)
from emcube.models.figures import ComponentFigures
from emcube.models.labels import dtype_of
from emcube.models.mixtures import require_number, require_whole
from emcube.models.nmf import MiniBatchNMF
from emcube.models.nmf_losses import resolve_loss
from emcube.models.nmf_start import tile_of
from emcube.models.nmf_sweeps import PooledSource, ScoreSweep
from emcube.models.rebuild import in_order, pixels_only, rebuild

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource
    from emcube.models.labels import Labels

__all__ = ["BayesianUnmixing"]

MIXED = 0.05
"""Share of the other components in which a chain begins: chains that begin apart can be seen to meet."""

LOADING_DRAWS = 32
"""Draws of the components, of all chains, over which the loadings of a pixel are drawn."""

CONVERGED = 1.1
"""R-hat of components up to which their chains have met."""

WEIGHTY = 1e-3
"""Share of a component that a channel holds whose R-hat counts."""


class BayesianUnmixing(ComponentFigures, Estimator):
    """Find components, loadings and how sure both are, by Gibbs sampling.

    Counts ("gamma-poisson"):

        x_pe ~ Poisson(sum_k h_pk s_ke),  h_pk ~ Gamma(a, b_k),  s_k ~ Dirichlet(1/2),  b_k ~ 1 / b_k.

    Dense values ("gaussian", after Dobigeon et al.):

        x_p ~ Normal(sum_k h_pk s_k, v),  h_pk >= 0,  sum_k h_pk = 1 (on request),  s_ke >= 0,  v ~ 1 / v.

    Parameters
    ----------
    n_components : int
        K.
    model : {"auto", "gamma-poisson", "gaussian"}
        "auto": gamma-poisson for integer counts.
    sum_to_one : bool
        Of "gaussian": loadings of a pixel sum to one, and components carry the cube's unit. False: they are
        positive, and components sum to one, where pixels differ in brightness (thickness).
    n_chains : int
        C, each from a start of its own.
    n_warmup : int
        Passes that are not kept.
    n_draws : int
        N, passes that are kept, in each chain.
    n_steps : int or "auto"
        Gibbs steps of the loadings in a pass; "auto" is 3 for counts, 20 for dense values.
    loadings_shape : float
        a; 1 is an exponential prior, smaller ones prefer fewer components in a pixel.
    level : float
        Of credible intervals.
    pool : int or "auto"
        Side of the square tiles of which counts are summed while components are drawn (sums of Poisson counts
        are Poisson counts); "auto" as `MiniBatchNMF` chooses. Loadings are always those of single pixels.
    random_state : None, int or numpy.random.Generator
        None draws a seed, kept in ``seed_``.

    Attributes
    ----------
    components_ : DataArray (component, signal dims), or ndarray (K, E)
        Posterior mean. Each sums to one over the used channels (unit "1 per channel"), but for "gaussian"
        with ``sum_to_one``. Ordered by their total loading, the largest first.
    components_std_ : same
        Posterior standard deviation.
    components_interval_ : DataArray (component, signal dims, bound), or ndarray (K, E, 2)
        Credible interval (see Notes).
    component_totals_, component_totals_std_ : ndarray (K,)
        Sum of the loadings over the pixels of the last fit.
    r_hat_ : DataArray (component, signal dims), or ndarray (K, E)
        Of each value of the components; 1 where chains tell the same.
    ess_ : same
        Number of independent draws that all draws are worth.
    worst_r_hat_ : float
        Largest ``r_hat_`` of the channels that hold a thousandth of their component or more.
    converged_ : bool
        Whether that is at most 1.1. If not, intervals are too narrow: draw more, or ask for fewer components.
    draws_ : ndarray (C, N, K, E)
        Of the components.
    noise_variance_ : float
        Posterior mean of v ("gaussian"), in the square of the cube's unit.
    model_ : str
    n_iter_ : int
        Passes.
    pool_ : int
    seed_ : int

    Notes
    -----
    Passes: those of `MiniBatchNMF`, whose components are the start of all chains (mixed by up to a tenth with
    each other, differently in each), then n_warmup + n_draws; `transform` draws loadings at up to 32 of the
    draws of the components, so that the components' uncertainty is in them.

    Loadings are drawn anew in each pass, `n_steps` from Laplace's approximation (counts) or the mode (dense
    values): nothing is kept for a pixel between passes, and what a pass draws is the posterior given the
    components up to what these steps leave of their start.

    Intervals have equal tails; where zero lies within the same number of standard deviations of the mean they
    begin at zero and have one tail.

    Same bits for any number of workers. The loadings of a pixel depend on its values and the seed: equal
    pixels get equal answers, wherever they are.

    References
    ----------
    A. T. Cemgil, Comput. Intell. Neurosci. 2009, 785152. https://doi.org/10.1155/2009/785152
    N. Dobigeon, S. Moussaoui, M. Coulon, J.-Y. Tourneret, A. O. Hero, IEEE Trans. Signal Process. 57 (2009)
    4355. https://doi.org/10.1109/TSP.2009.2025797
    A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Buerkner, Bayesian Anal. 16 (2021) 667.
    https://doi.org/10.1214/20-BA1221

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> true = rng.dirichlet(np.full(20, 0.3), 2)
    >>> counts = rng.poisson(100 * rng.dirichlet(np.full(2, 0.3), 200) @ true)
    >>> model = em.BayesianUnmixing(2, n_warmup=5, n_draws=10, random_state=0).fit(counts)
    >>> model.loadings_interval(counts).shape
    (200, 2, 2)
    """

    components_: Any
    components_std_: Any
    components_interval_: Any
    r_hat_: Any
    ess_: Any
    component_totals_: NDArray[np.float64]
    component_totals_std_: NDArray[np.float64]
    draws_: NDArray[np.float64]
    _chains: tuple[Chain, ...]
    _summed: Moments
    _values: NDArray[np.float64]

    def __init__(
        self,
        n_components: int = 2,
        *,
        model: str = "auto",
        sum_to_one: bool = True,
        n_chains: int = 2,
        n_warmup: int = 30,
        n_draws: int = 30,
        n_steps: int | str = "auto",
        loadings_shape: float = 1.0,
        level: float = 0.9,
        pool: int | str = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.model = model
        self.sum_to_one = sum_to_one
        self.n_chains = n_chains
        self.n_warmup = n_warmup
        self.n_draws = n_draws
        self.n_steps = n_steps
        self.loadings_shape = loadings_shape
        self.level = level
        self.pool = pool
        self.random_state = random_state

    @property
    def _n_features_out(self) -> int:
        return len(self._values)

    @property
    def _counts_only(self) -> bool:
        return self.model == "gamma-poisson"

    def _check_parameters(self) -> None:
        for name in ("n_components", "n_chains", "n_draws"):
            require_whole(self, name, 1)
        require_whole(self, "n_warmup", 0)
        for name in ("n_steps", "pool"):
            if getattr(self, name) != "auto":
                require_whole(self, name, 1)
        require_number(self, "loadings_shape", 1e-3)
        level: Any = self.level
        if not isinstance(level, float | np.floating) or not 0.0 < level < 1.0:
            raise InputError(
                f"BayesianUnmixing: level must be a number between 0 and 1, got {level!r}"
            )
        if self.model not in ("auto", "gamma-poisson", "gaussian"):
            raise InputError(
                "BayesianUnmixing: model must be 'auto', 'gamma-poisson' or 'gaussian', got "
                f"{self.model!r}"
            )
        if not isinstance(self.sum_to_one, bool | np.bool_):
            raise InputError(
                f"BayesianUnmixing: sum_to_one must be True or False, got {self.sum_to_one!r}"
            )

    # -- fitting ------------------------------------------------------------------------------------

    def fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Draw from the posterior.

        Parameters
        ----------
        X : DataArray, or matrix of shape (P, E)
        y : None
            Not used; scikit-learn's manners.
        where : DataArray of bool, optional
            Pixels and channels to use (True).

        Raises
        ------
        InputError
            A parameter or value cannot be used; values are negative or no whole numbers where counts are
            meant; more components than pixels or channels.
        """
        self._check_parameters()
        with resident(), single_threaded_blas():
            source, labels = as_source(X, where)
            self.seed_ = resolve_seed(self.random_state)
            kind = dtype_of(X).kind
            auto = "gamma-poisson" if kind in "iub" else "gaussian"
            self.model_ = auto if self.model == "auto" else self.model
            start = self._start(X, where)
            self.pool_ = int(start.pool_) if self._is_counts else 1
            self._remember(labels)
            self._run(source, labels, self._first(start, source), None)
        self._remember_columns(X)
        return self

    def partial_fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Go on with more pixels; those seen before count with what they last told of the components.

        The first call is `fit`; it fixes channels and pooling. Later calls sample anew, from the components
        found so far.
        """
        if not hasattr(self, "axes_"):
            return self.fit(X, where=where)
        self._check_parameters()
        self._check_signal(X)
        with resident(), single_threaded_blas():
            source, labels = as_source(X, pixels_only(X, where), channels=self.axes_.channels)
            middle = Chain(
                self._values,
                np.mean([chain.rates for chain in self._chains], axis=0),
                float(np.mean([chain.variance for chain in self._chains])),
            )
            self._run(source, labels, (middle,) * self.n_chains, self._summed)
        return self

    @property
    def _is_counts(self) -> bool:
        return self.model_ == "gamma-poisson"

    @property
    def loadings_units_(self) -> str:
        """Unit of the loadings: the cube's, or none where they sum to one."""
        self._require_fitted()
        return "1" if self._simplex else self.axes_.units

    @property
    def _simplex(self) -> bool:
        return not self._is_counts and bool(self.sum_to_one)

    def _sampler(self) -> CountModel | DenseModel:
        if self._is_counts:
            steps = COUNT_STEPS if self.n_steps == "auto" else int(self.n_steps)
            return CountModel(float(self.loadings_shape), steps)
        steps = DENSE_STEPS if self.n_steps == "auto" else int(self.n_steps)
        return DenseModel(self._simplex, steps)

    def _start(self, X: Any, where: Any) -> MiniBatchNMF:
        loss = "kullback-leibler" if self._is_counts else "frobenius"
        nmf = MiniBatchNMF(
            self.n_components, beta_loss=loss, pool=self.pool, random_state=self.seed_
        )
        return nmf.fit(X, where=where)

    def _first(self, start: MiniBatchNMF, source: BlockSource) -> tuple[Chain, ...]:
        """Chains that begin apart: each component mixed with a little of the others."""
        spectra, k = start._values, len(start._values)
        totals = np.maximum(start.component_totals_, 1e-300)
        n_tiles = max(1.0, source.n_pixels / self.pool_**2)
        rates = self.loadings_shape * n_tiles / totals
        variance = 0.0
        if not self._is_counts:
            variance = 2.0 * start.objective_ / max(1, source.n_pixels * spectra.shape[1])
            variance = max(variance, 1e-12)
            rates = np.zeros(k)
        if self._simplex:
            spectra = spectra * float(totals.sum()) / source.n_pixels
        chains = []
        for i in range(self.n_chains):
            rng = np.random.default_rng((self.seed_, 17, i))
            share = MIXED * rng.random((k, 1))
            mixing = (1.0 - share) * np.eye(k) + share * rng.dirichlet(np.ones(k), size=k)
            chains.append(Chain(mixing @ spectra, rates, variance))
        return tuple(chains)

    def _run(
        self,
        source: BlockSource,
        labels: Labels,
        chains: tuple[Chain, ...],
        earlier: Moments | None,
    ) -> None:
        pooled: BlockSource = source
        if self.pool_ > 1:
            pooled = PooledSource(source, tile_of(labels.nav_dims, self.pool_))
        sweep = GibbsSweep(
            self._sampler(), chains, self.n_warmup, self.n_draws, self.seed_, earlier
        )
        rounds = self.n_warmup + self.n_draws
        found = run_sweep(sweep, pooled, seed=self.seed_, max_rounds=rounds)
        self.n_iter_ = found.n_rounds
        self._take(found.state, source.n_pixels, earlier)

    def _take(self, chains: tuple[Chain, ...], n_pixels: int, earlier: Moments | None) -> None:
        """Answers from the draws."""
        totals = np.array([chain.kept_totals for chain in chains])
        order = np.argsort(-totals.mean(axis=(0, 1)), kind="stable")
        draws = np.array([chain.kept_spectra for chain in chains])[:, :, order]
        totals = totals[:, :, order]
        self.draws_ = draws
        self._values = draws.mean(axis=(0, 1))
        self.component_totals_ = totals.mean(axis=(0, 1))
        self.component_totals_std_ = totals.std(axis=(0, 1))
        parts = [chain.summed for chain in chains if chain.summed is not None]
        whole = sum(parts[1:], parts[0]).times(1.0 / (len(parts) * self.n_draws)).taken(order)
        self._summed = whole if earlier is None else whole + earlier
        self.noise_variance_ = float(np.mean([chain.kept_variances for chain in chains]))
        # Of the tiles' prior, that of the pixels: these hold so many times less.
        tiles_over = n_pixels / max(1.0, whole.n_pixels) if self._is_counts else 1.0
        flat = [
            Chain(s[order], r[order] * tiles_over, v)
            for chain in chains
            for s, r, v in zip(
                chain.kept_spectra, chain.kept_rates, chain.kept_variances, strict=True
            )
        ]
        picked = np.unique(np.linspace(0, len(flat) - 1, min(LOADING_DRAWS, len(flat))).round())
        self._chains = tuple(flat[int(i)] for i in picked)
        self._describe(draws)

    def _describe(self, draws: NDArray[np.float64]) -> None:
        deviation = draws.std(axis=(0, 1))
        r_hat, ess = split_r_hat(draws), effective_size(draws)
        units = self.axes_.units if self._simplex else "1 per channel"
        label = self.axes_.spectra
        self.components_ = label(self._values, attrs={"units": units})
        self.components_std_ = label(deviation, name="components_std", attrs={"units": units})
        interval = gamma_interval(self._values, deviation, float(self.level))
        self.components_interval_ = self._bounds(interval, units)
        self.r_hat_ = label(r_hat, name="r_hat", attrs={"units": "1"})
        self.ess_ = label(ess, name="ess", attrs={"units": "1"})
        weighty = self._values >= WEIGHTY * self._values.sum(axis=1, keepdims=True)
        weighty &= np.isfinite(r_hat)
        self.worst_r_hat_ = float(r_hat[weighty].max()) if weighty.any() else float("nan")
        self.converged_ = bool(self.worst_r_hat_ <= CONVERGED)

    def _bounds(self, interval: NDArray[np.float64], units: str) -> Any:
        """Spectra (K, E, 2) as labelled bounds."""
        ends = [self.axes_.spectra(interval[..., i], attrs={"units": units}) for i in (0, 1)]
        if self.axes_.plain:
            return np.stack(ends, axis=-1)
        both = xr.concat(ends, "bound").assign_coords(bound=["lower", "upper"])
        return (
            both.transpose(..., "bound").rename("components_interval").assign_attrs(ends[0].attrs)
        )

    # -- answers ------------------------------------------------------------------------------------

    def pixel_function(self) -> Callable[[Block], dict[str, NDArray[Any]]]:
        """Mean, standard deviation and interval of a block's loadings."""
        self._require_fitted()
        return _Loadings(self._sampler(), self._chains, self.seed_, float(self.level))

    def transform(self, X: Any, *, where: Any = None) -> Any:
        """Posterior mean of the loadings of each pixel, lazily where `X` is lazy.

        Parameters
        ----------
        X : DataArray, or matrix of shape (P, E)
            With the signal axes of the fit.
        where : DataArray of bool over navigation dims, optional
            Pixels to compute; others are NaN.

        Returns
        -------
        DataArray (navigation dims, component), or array (P, K)
            In the units of the cube; with ``sum_to_one`` fractions without a unit.
        """
        return self._map(
            X, "loadings", self._k(), where=where, attrs=self._loading_attrs("loadings")
        )

    def loadings_std(self, X: Any, *, where: Any = None) -> Any:
        """Posterior standard deviation of the loadings; as `transform`."""
        attrs = self._loading_attrs("standard deviation of the loadings")
        return self._map(X, "loadings_std", self._k(), where=where, attrs=attrs)

    def loadings_interval(self, X: Any, *, where: Any = None) -> Any:
        """Credible interval of the loadings, over (..., component, bound); as `transform`."""
        found = self._map(
            X,
            "loadings_interval",
            (*self._k(), 2),
            dims=("component", "bound"),
            where=where,
            attrs=self._loading_attrs("credible interval of the loadings"),
        )
        if isinstance(found, xr.DataArray):
            found = found.assign_coords(bound=["lower", "upper"])
        return found

    def fit_transform(self, X: Any, y: None = None, *, where: Any = None) -> Any:
        """Fit, and give the posterior mean of the loadings."""
        return self.fit(X, where=where).transform(X, where=pixels_only(X, where))

    def inverse_transform(self, loadings: Any) -> Any:
        """Compute D = L S with the posterior means; lazy where the loadings are.

        Parameters
        ----------
        loadings : DataArray (navigation dims, component), or array (P, K)

        Raises
        ------
        InputError
            The loadings have another number of components.
        """
        self._require_fitted()
        k = len(self._values)
        if isinstance(loadings, xr.DataArray):
            loadings = in_order(loadings, k)
        if loadings.shape[-1] != k:
            raise InputError(
                f"loadings of {loadings.shape[-1]} components were given, the model has {k}"
            )
        return rebuild(self.axes_, loadings, self.axes_.full_channels(self._values))

    def score(self, X: Any, y: None = None, *, where: Any = None) -> float:
        """Score the posterior mean of the components as `MiniBatchNMF.score` does, on held-out data."""
        self._check_signal(X)
        loss = resolve_loss("kullback-leibler" if self._is_counts else "frobenius")
        source, _ = as_source(X, pixels_only(X, where), channels=self.axes_.channels)
        sums = run_sweep(ScoreSweep(loss, self._values), source, seed=self.seed_).state
        if sums[1] <= 0.0:
            raise InputError("there is nothing to score: every used value is zero")
        return float(sums[0] / sums[1]) if loss.counts else float(1.0 - sums[0] / sums[1])

    def _k(self) -> tuple[int]:
        return (len(self._values) if hasattr(self, "_values") else 0,)

    def _loading_attrs(self, words: str) -> dict[str, Any]:
        simplex = hasattr(self, "model_") and self._simplex
        return {"long_name": words, **({"units": "1"} if simplex else {})}


@dataclass(frozen=True, eq=False)
class _Loadings:
    """Posterior of a block's loadings."""

    sampler: Any
    chains: tuple[Chain, ...]
    seed: int
    level: float

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        mean, deviation, interval = self.sampler.posterior(
            block, self.chains, self.seed, self.level
        )
        return {"loadings": mean, "loadings_std": deviation, "loadings_interval": interval}
