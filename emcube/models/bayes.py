"""Bayesian unmixing: draws from what components and loadings may be, given the data.

Letters: P pixels, E used channels, K components, C chains, N draws of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xarray as xr

from emcube.engine import resident, run_sweep
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.kernels.convergence import effective_size, split_r_hat
from emcube.kernels.gibbs import channel_groups
from emcube.kernels.poisson_nmf import floored
from emcube.models.base import resolve_seed
from emcube.models.bayes_sweeps import (
    COUNT_STEPS,
    DENSE_STEPS,
    TOTAL_SHAPE,
    Chain,
    CountModel,
    DenseModel,
    GibbsSweep,
    Moments,
    PresenceSweep,
    gamma_interval,
    middle_of,
    posterior,
)
from emcube.models.labels import as_source, dtype_of
from emcube.models.mixing import MixingModel, loss_of, require_whole
from emcube.models.nmf import MiniBatchNMF
from emcube.models.nmf_start import SIDES, tile_of
from emcube.models.nmf_sweeps import PooledSource
from emcube.models.rebuild import pixels_only

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
"""R-hat up to which chains have met."""

FEW_PIXELS = 4096
"""Pixels up to which nothing is pooled, and tiles that more pixels are pooled to, about."""

PRESENCE_ROUNDS = (2, 2)
"""Passes over single pixels in which their chances of presence settle, and are averaged, where components
were drawn from tiles."""

PRESENCE_PIXELS = 32_768
"""Pixels that are looked at in such a pass, about: chances are then sure to some thousandths."""


class BayesianUnmixing(MixingModel):
    """Find components, loadings and how sure both are, by Gibbs sampling.

    Counts (gamma-Poisson):

        x_pe ~ Poisson(t_p sum_k a_pk s_ke),  t_p ~ Gamma(1/2, b),  a_p ~ Dirichlet(c) on the components that
        the pixel holds,  Pr(pixel holds A) proportional to prod_{k in A} q_k prod_{k not in A} (1 - q_k),
        s_k ~ Dirichlet(1/2),  q_k ~ uniform,  b ~ 1 / b.

    Dense values (Gaussian, after Dobigeon et al.):

        x_p ~ Normal(sum_k a_pk s_k, v),  a_pk >= 0,  sum_k a_pk = 1 (on request),  s_ke >= 0,  v ~ 1 / v.

    Parameters
    ----------
    n_components : int
        K.
    noise : {"auto", "poisson"} or None
        "poisson" is the gamma-Poisson model, None the Gaussian one; "auto" is "poisson" for integer counts.
    sparse : bool
        Of counts: components may be absent from a pixel. False: all are everywhere, if little.
    concentration : float
        c, of counts: 1 prefers no shares to others, more prefers even ones.
    simplex : bool
        Of dense values: loadings of a pixel sum to one, and components carry the cube's unit. False: they are
        positive, and components sum to one, where pixels differ in brightness (thickness).
    n_chains : int
        C, each from a start of its own.
    n_warmup : int
        Passes that are not kept.
    n_draws : int
        N, passes that are kept, in each chain.
    n_steps : int or "auto"
        Gibbs steps of the loadings in a pass; "auto" is 10 for counts, 20 for dense values.
    level : float
        Of credible intervals.
    pool : int or "auto"
        Side of the square tiles of which counts are summed while components are drawn (sums of Poisson counts
        are Poisson counts). "auto": so large that 4096 tiles are left, at most 8; 1 for dense values.
        Loadings are always those of single pixels.
    random_state : None, int or numpy.random.Generator
        None draws a seed, kept in ``seed_``.

    Attributes
    ----------
    components_ : DataArray (component, signal dims), or ndarray (K, E)
        Posterior mean. Each sums to one over the used channels (unit "1 per channel"), but for dense values
        on the simplex. Ordered by their total loading, the largest first.
    components_std_ : same
        Posterior standard deviation.
    components_interval_ : DataArray (component, signal dims, bound), or ndarray (K, E, 2)
        Credible interval, of a gamma law with the posterior's mean and deviation.
    component_totals_, component_totals_std_ : ndarray (K,)
        Sum of the loadings over the pixels of the last fit, and its posterior standard deviation.
    presence_ : ndarray (K,)
        Share of the pixels that hold the component, q_k / (1 - prod_j (1 - q_j)); one where none may be
        absent.
    r_hat_, ess_ : DataArray (component, signal dims), or ndarray (K, E)
        Split R-hat and effective sample size of each value, of rank-normalised draws.
    mixing_r_hat_, mixing_ess_ : ndarray (K, K)
        The same for how much of component j is mixed into component k: where chains are slowest.
    worst_r_hat_ : float
        Largest ``mixing_r_hat_``.
    converged_ : bool
        Whether that is at most 1.1. If not, intervals may be too narrow: draw more, or ask for fewer
        components.
    draws_ : ndarray (C, N, K, E)
        Of the components.
    noise_variance_ : float
        Posterior mean of v (dense values), in the square of the cube's unit; else zero.
    likelihood_ : str
        "gamma-poisson" or "gaussian".
    n_iter_ : int
        Passes.
    pool_ : int
    seed_ : int

    Notes
    -----
    Passes: those of `MiniBatchNMF`, whose components are the start of all chains (mixed by up to a twentieth
    with each other, differently in each), n_warmup + n_draws, and four over some 32,768 single pixels where
    components are drawn from tiles; `transform` draws loadings at up to 32 of the draws of the components,
    so that the components' uncertainty is in them.

    Loadings are drawn anew in each pass, `n_steps` from Laplace's approximation (counts) or the mode (dense
    values): nothing is kept for a pixel between passes, and what a pass draws is the posterior given the
    components up to what these steps leave of their start.

    Intervals of loadings have equal tails. Of counts the posterior has a lump at zero, so that zero is their
    lower end where it must be. Of dense values they have one tail where zero lies within as many standard
    deviations of the mean.

    Memory: 8 C N K E bytes of draws in the client; of a pixel nothing but its answer. Same bits for any
    number of workers. The loadings of a pixel depend on its values and the seed: equal pixels get equal
    answers, wherever they are.

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

    components_std_: Any
    components_interval_: Any
    r_hat_: Any
    ess_: Any
    component_totals_: NDArray[np.float64]
    component_totals_std_: NDArray[np.float64]
    presence_: NDArray[np.float64]
    mixing_r_hat_: NDArray[np.float64]
    mixing_ess_: NDArray[np.float64]
    worst_r_hat_: float
    converged_: bool
    draws_: NDArray[np.float64]
    noise_variance_: float
    likelihood_: str
    n_iter_: int
    pool_: int
    seed_: int
    _groups: NDArray[np.int64]
    _chains: tuple[Chain, ...]
    _summed: Moments

    def __init__(
        self,
        n_components: int = 2,
        *,
        noise: str | None = "auto",
        sparse: bool = True,
        concentration: float = 1.0,
        simplex: bool = True,
        n_chains: int = 2,
        n_warmup: int = 20,
        n_draws: int = 60,
        n_steps: int | str = "auto",
        level: float = 0.9,
        pool: int | str = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.noise = noise
        self.sparse = sparse
        self.concentration = concentration
        self.simplex = simplex
        self.n_chains = n_chains
        self.n_warmup = n_warmup
        self.n_draws = n_draws
        self.n_steps = n_steps
        self.level = level
        self.pool = pool
        self.random_state = random_state

    @property
    def _counts_only(self) -> bool:
        return self.noise == "poisson"

    def _check_parameters(self) -> None:
        for name in ("n_components", "n_chains", "n_draws"):
            require_whole(name, getattr(self, name), 1)
        require_whole("n_warmup", self.n_warmup, 0)
        for name in ("n_steps", "pool"):
            require_whole(name, getattr(self, name), 1, auto=True)
        loss_of(self.noise, np.dtype(np.float64))
        for name in ("sparse", "simplex"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise InputError(f"{name} must be True or False, got {getattr(self, name)!r}")
        for name, least, most in (("concentration", 1e-3, np.inf), ("level", 0.0, 1.0)):
            value: Any = getattr(self, name)
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not number or not least < value < most:
                raise InputError(
                    f"{name} must be a number between {least:g} and {most:g}, got {value!r}"
                )

    # -- fitting ------------------------------------------------------------------------------------

    def fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Draw from the posterior.

        Parameters
        ----------
        X : DataArray, or matrix of shape (P, E)
        y : None
            Ignored, as scikit-learn's pipelines want it.
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
            counts = loss_of(self.noise, dtype_of(X)).counts
            self.likelihood_ = "gamma-poisson" if counts else "gaussian"
            start = self._start(X, where)
            self.pool_ = self._side(source, labels)
            self._groups = channel_groups(floored(start._values))
            self._remember(labels)
            self._run(source, labels, self._first(start, source), None)
        self._remember_columns(X)
        return self

    def partial_fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Go on with more pixels; those seen before count with what they last told of the components.

        The first call is `fit`; it fixes channels and pooling. Later calls sample anew, from the components
        found so far.

        Raises
        ------
        InputError
            As for `fit`, or the signal differs from that of the first call.
        """
        if not hasattr(self, "axes_"):
            return self.fit(X, where=where)
        self._check_parameters()
        self._check_signal(X)
        with resident(), single_threaded_blas():
            source, labels = as_source(X, pixels_only(X, where), channels=self.axes_.channels)
            middle = middle_of(self._chains)
            self._run(source, labels, (middle,) * self.n_chains, self._summed)
        return self

    @property
    def _is_counts(self) -> bool:
        return self.likelihood_ == "gamma-poisson"

    @property
    def _simplex(self) -> bool:
        return not self._is_counts and bool(self.simplex)

    @property
    def component_units_(self) -> str:
        """Unit of the components."""
        self._require_fitted()
        return self.axes_.units if self._simplex else "1 per channel"

    @property
    def loadings_units_(self) -> str:
        """Unit of the loadings: the cube's, or none on the simplex."""
        self._require_fitted()
        return "1" if self._simplex else self.axes_.units

    def _sampler(self) -> CountModel | DenseModel:
        if self._is_counts:
            steps = COUNT_STEPS if self.n_steps == "auto" else int(self.n_steps)
            return CountModel(self._groups, float(self.concentration), steps, bool(self.sparse))
        steps = DENSE_STEPS if self.n_steps == "auto" else int(self.n_steps)
        return DenseModel(self._simplex, steps)

    def _start(self, X: Any, where: Any) -> MiniBatchNMF:
        loss = "kullback-leibler" if self._is_counts else "frobenius"
        pool = self.pool if self._is_counts else "auto"
        nmf = MiniBatchNMF(self.n_components, beta_loss=loss, pool=pool, random_state=self.seed_)
        return nmf.fit(X, where=where)

    def _side(self, source: BlockSource, labels: Labels) -> int:
        """Side of the tiles: dense values are not pooled, nor are few pixels."""
        if not self._is_counts:
            return 1
        if self.pool != "auto":
            return int(self.pool)
        for side in SIDES:
            tile = tile_of(labels.nav_dims, side)
            if source.n_pixels <= FEW_PIXELS * math.prod(tile):
                return side
        return SIDES[-1]

    def _first(self, start: MiniBatchNMF, source: BlockSource) -> tuple[Chain, ...]:
        """Chains that begin apart: each component mixed with a little of the others."""
        spectra, k = start._values, len(start._values)
        total = max(float(start.component_totals_.sum()), 1e-300)
        n_tiles = max(1.0, source.n_pixels / self.pool_**2)
        presence, rate, variance = np.full(k, 0.5), TOTAL_SHAPE * n_tiles / total, 0.0
        if not self._is_counts:
            variance = 2.0 * start.objective_ / max(1, source.n_pixels * spectra.shape[1])
            variance = max(variance, 1e-12)
            presence, rate = np.ones(k), 0.0
        if self._simplex:
            spectra = spectra * total / source.n_pixels
        chains = []
        for i in range(self.n_chains):
            rng = np.random.default_rng((self.seed_, 17, i))
            share = MIXED * rng.random((k, 1))
            mixing = (1.0 - share) * np.eye(k) + share * rng.dirichlet(np.ones(k), size=k)
            chains.append(Chain(mixing @ spectra, presence, rate, variance))
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
        self._take(found.state, earlier)
        if self.pool_ > 1:
            self._settle(source)
        self.presence_ = np.mean([self._held(chain) for chain in self._chains], axis=0)

    def _held(self, chain: Chain) -> NDArray[np.float64]:
        """Share of pixels that hold each component: no pixel holds none."""
        if not self._is_counts or not self.sparse:
            return np.ones(len(chain.presence))
        return np.asarray(chain.presence / (1.0 - np.prod(1.0 - chain.presence)))

    def _settle(self, source: BlockSource) -> None:
        """Learn from single pixels how often they hold a component: tiles hold more."""
        warmup, kept = PRESENCE_ROUNDS
        model = self._sampler()
        assert isinstance(model, CountModel)
        chance = min(1.0, PRESENCE_PIXELS / max(1, source.n_pixels))
        sweep = PresenceSweep(model, middle_of(self._chains), warmup, kept, self.seed_, chance)
        chain = run_sweep(sweep, source, seed=self.seed_, max_rounds=warmup + kept).state
        middle = middle_of(chain.kept)
        self._chains = tuple(
            replace(one, presence=middle.presence, rate=middle.rate) for one in self._chains
        )

    def _take(self, chains: tuple[Chain, ...], earlier: Moments | None) -> None:
        """Answers from the draws."""
        totals = np.array([chain.kept_totals for chain in chains])
        order = np.argsort(-totals.mean(axis=(0, 1)), kind="stable")
        totals = totals[:, :, order]
        draws = np.array([[one.spectra[order] for one in chain.kept] for chain in chains])
        self.draws_ = draws
        self._values = draws.mean(axis=(0, 1))
        self._weights = np.ones(self._values.shape[1])
        self.loadings_by_ = "poisson" if self._is_counts else "nnls"
        self.component_totals_ = totals.mean(axis=(0, 1))
        self.component_totals_std_ = totals.std(axis=(0, 1))
        parts = [chain.summed for chain in chains if chain.summed is not None]
        whole = sum(parts[1:], parts[0]).times(1.0 / (len(parts) * self.n_draws)).taken(order)
        self._summed = whole if earlier is None else whole + earlier
        flat = [one.taken(order) for chain in chains for one in chain.kept]
        self.noise_variance_ = float(np.mean([one.variance for one in flat]))
        picked = np.unique(np.linspace(0, len(flat) - 1, min(LOADING_DRAWS, len(flat))).round())
        self._chains = tuple(flat[int(i)] for i in picked)
        self._describe(draws)

    def _describe(self, draws: NDArray[np.float64]) -> None:
        deviation = draws.std(axis=(0, 1))
        units = self.component_units_
        label = self.axes_.spectra
        self.components_ = label(self._values, attrs={"units": units})
        self.components_std_ = label(deviation, name="components_std", attrs={"units": units})
        interval = gamma_interval(self._values, deviation, float(self.level))
        self.components_interval_ = self._bounds(interval, units)
        self.r_hat_ = label(split_r_hat(draws), name="r_hat", attrs={"units": "1"})
        self.ess_ = label(effective_size(draws), name="ess", attrs={"units": "1"})
        mixings = self._mixings(draws)
        self.mixing_r_hat_, self.mixing_ess_ = split_r_hat(mixings), effective_size(mixings)
        known = self.mixing_r_hat_[np.isfinite(self.mixing_r_hat_)]
        self.worst_r_hat_ = float(known.max()) if known.size else float("nan")
        self.converged_ = bool(self.worst_r_hat_ <= CONVERGED)

    def _mixings(self, draws: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each draw of the components as a mixture of their means, (C, N, K, K)."""
        mean = np.maximum(self._values, 0.0)
        weights = np.ones(mean.shape[1])
        if self._is_counts:
            # The noise of a channel goes with the root of its counts.
            weights = 1.0 / np.sqrt(np.maximum(mean.sum(axis=0), 1e-12))
        return np.asarray((draws * weights) @ np.linalg.pinv(mean * weights))

    def _bounds(self, interval: NDArray[np.float64], units: str) -> Any:
        """Spectra (K, E, 2) as labelled bounds."""
        ends = [self.axes_.spectra(interval[..., i], attrs={"units": units}) for i in (0, 1)]
        if self.axes_.plain:
            return np.stack(ends, axis=-1)
        both = xr.concat(ends, "bound").assign_coords(bound=["low", "high"])
        both = both.transpose(*ends[0].dims, "bound").rename("components_interval")
        return both.assign_attrs(ends[0].attrs)

    # -- answers ------------------------------------------------------------------------------------

    def pixel_function(self) -> Callable[[Block], dict[str, NDArray[Any]]]:
        """Mean, standard deviation and interval of a block's loadings."""
        self._require_fitted()
        return PixelPosterior(self._sampler(), self._chains, self.seed_, float(self.level))

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
            In the units of the cube; on the simplex fractions without a unit.
        """
        return self._answers(X, "loadings", "loadings", where)

    def loadings_std(self, X: Any, *, where: Any = None) -> Any:
        """Posterior standard deviation of the loadings; as `transform`."""
        return self._answers(X, "loadings_std", "standard deviation of the loadings", where)

    def loadings_interval(self, X: Any, *, where: Any = None) -> Any:
        """Credible interval of the loadings, over (..., component, bound); as `transform`."""
        found = self._answers(X, "loadings_interval", "credible interval of the loadings", where)
        if isinstance(found, xr.DataArray):
            found = found.assign_coords(bound=["low", "high"])
        return found

    def _answers(self, X: Any, name: str, words: str, where: Any) -> Any:
        k = len(self._require_values())
        bounds = name == "loadings_interval"
        attrs: dict[str, Any] = {"long_name": words, **({"units": "1"} if self._simplex else {})}
        return self._map(
            X,
            name,
            (k, 2) if bounds else (k,),
            dims=("component", "bound") if bounds else ("component",),
            where=where,
            attrs=attrs,
        )


@dataclass(frozen=True, eq=False)
class PixelPosterior:
    """Posterior of a block's loadings; pickles."""

    sampler: CountModel | DenseModel
    chains: tuple[Chain, ...]
    seed: int
    level: float

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        """Mean (p, K), standard deviation (p, K) and interval (p, K, 2)."""
        found = posterior(self.sampler, block, self.chains, self.seed, self.level)
        return {
            "loadings": found.mean,
            "loadings_std": found.deviation,
            "loadings_interval": found.interval,
        }
