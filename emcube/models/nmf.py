"""Non-negative matrix factorisation of a cube larger than memory.

Letters: P pixels, E used channels, K components. D_i = sum_k L_ik s_k.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xarray as xr

from emcube.engine import resident, run_sweep
from emcube.errors import InputError
from emcube.kernels.freedom import spectral_freedom
from emcube.kernels.independence import independent_shares
from emcube.models.base import Estimator, Pick, resolve_seed
from emcube.models.fields import several
from emcube.models.figures import ComponentFigures
from emcube.models.labels import Labels, as_source, at_once_where_resident
from emcube.models.mixing import refuse_empty, refuse_too_many
from emcube.models.nmf_gain import gain_of, in_counts, sketch_in_counts
from emcube.models.nmf_losses import Loss, resolve_loss
from emcube.models.nmf_penalties import data_pass
from emcube.models.nmf_start import Sketch, choose_side, corners, sketch, tile_of
from emcube.models.nmf_sweeps import (
    DEFAULT_TOL,
    BatchSweep,
    PassState,
    PassSweep,
    PooledSource,
    ScoreSweep,
)
from emcube.models.nmf_variants import (
    Variant,
    anchors_of,
    check_variant,
    passes_of,
    smooth_map,
    smooth_solve,
    variant_of,
    variant_words,
    with_penalties,
)
from emcube.models.rebuild import in_order, pixels_only, rebuild
from emcube.models.sweeps import TotalsSweep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource

__all__ = ["MiniBatchNMF"]


class MiniBatchNMF(ComponentFigures, Estimator):
    """Find non-negative components and their loadings.

    Minimises, over components S whose rows sum to one,

        F(S) + volume * (P / 2) * log det(S W S' + delta I),
        F(S) = sum_p min_{h >= 0} d(x_p, h S),

    with d the Kullback-Leibler divergence (counts) or half the squared distance. Loadings are never kept: in
    each pass every pixel's are solved exactly, so that F and its gradient are those of the components alone.

    Parameters
    ----------
    n_components : int
        K.
    beta_loss : {"kullback-leibler", "frobenius"}
        The first for counts; the second where noise has one size everywhere (EELS after its background).
    volume : float
        Weight of the minimum-volume term, in half a nat for each (pooled) pixel that has a say (least
        squares: half the noise variance). Integrated over its loadings a pixel's likelihood carries half a
        log determinant, so that 1, the default, makes up for the loadings having been fitted (Laplace's
        approximation); above it components draw together, and collapse where counts are few.
        0 with ``tol=0`` gives the bare likelihood.
    tol : float
        Passes stop when one lowers the objective by less than this share of the loss, or (at the default
        1e-4, and in proportion) by less than fitting noise would, one nat for each value of the components.
        Further passes would go on lowering the objective and turn components away from the truth. 0: until
        nothing is gained.
    max_iter : int
        Full passes, at most.
    pool : int or "auto"
        Side of the square tiles whose pixels are summed while components are fitted (loadings are always
        those of single pixels). "auto" sums until noise is a quarter of the weakest component's spread, as
        long as neighbours are alike, and not at all with ``volume=0``.
    init : {"bins", "random"} or array (K, E)
        "bins": corners of the cloud of pooled pixels in the subspace of the signal. "random": random positive
        mixtures of the mean spectrum. Or components to start from, labelled or bare.
    n_epochs : int or "auto"
        Epochs of minibatches before the full passes. "auto" is none from "bins", which start closer than
        minibatches end, and 2 otherwise.
    batch_size : int
        Pixels of a minibatch, drawn across the whole cube. There are at most 64 batches an epoch.
    sum_to_one : bool
        `transform` returns abundances, which sum to one, and `scale` the free factor of each pixel. Since
        the factor is free, this is the same model: loadings are scale times abundances. With a penalty on
        counts the factor is the pixel's number of counts, and the penalty is one on abundances.
    known : DataArray, array (C, E), HyperSpy signal, fitted model, or a list of them, optional
        Spectra that are known, in any unit: the first C components, which keep their shapes. The others are
        free. On the energies of the cube.
    basis : DataArray or array (M, E), or dict, optional
        Components that are not known are sums of these spectra with coefficients that are not negative. A
        dict holds parameters of `emcube.xray_basis`: characteristic lines of elements and bremsstrahlung.
    sparsity : float
        Fewer components in a pixel. Counts: weight, in nats, of sum_k log(1 + h_k / (g / 100)), g the pixel's
        counts: about five times as much is what a component costs that is there at all. (An L1 penalty
        would scale the loadings and do nothing else, since components sum to one.) Least squares: of
        sum_k h_k, in standard errors of a loading.
    smoothness : float
        Neighbours in the image that are alike: tau / 2 sum |h_p - h_q|^2 over pairs of neighbours, as espm's
        Laplacian. In pixels' worth of data that a neighbour counts for: for counts tau is smoothness over
        the mean counts of a pixel; with ``sum_to_one`` of abundances, and times the mean counts.
        `smoothness_strength_` tells tau. Takes the place of pooling.
    random_state : int, Generator or None
        Seed of minibatches, of the sample of pixels that is searched for corners, of ``init="random"`` and of
        `score`.

    Attributes
    ----------
    components_ : DataArray (component, signal dims), or ndarray (K, E)
        Each sums to one over the used channels; zero where no counts are; NaN in unused channels. Ordered
        by their total loading, the largest first.
    objective_ : float
        F at the end: for counts the sum of x log(x / mu) - x + mu in nats (half the Poisson deviance), for
        least squares half the sum of squared residuals; of the pooled pixels, without the volume. With
        sparsity and smoothness, which are part of it.
    objective_path_ : ndarray
        F plus volume after each full pass (the best so far).
    penalty_ : float
        Share of sparsity and smoothness in it.
    coefficients_ : DataArray (component, feature), or ndarray (K, M)
        With a ``basis``: how much of each feature a component is; they sum to one. NaN for known ones.
    sparsity_strength_, smoothness_strength_ : float
        Weights of the penalties in the units of the loss.
    n_known_ : int
        Components that are known: the first ones.
    n_iter_ : int
        Full passes.
    converged_ : bool
        Whether `tol` was met before `max_iter`.
    pool_ : int
        Side of the tiles that was used.
    volume_strength_ : float
        Weight of the log determinant, in units of the loss.
    gain_ : float
        What one count is worth in the values. 1 for counts and least squares; where values are fractions
        that sum to less than ten in a pixel (normalised spectra, rates) it follows from their noise, and
        volume and tolerance mean for them what they mean for counts.
    component_totals_ : ndarray, shape (K,)
        Sum of the loadings of each component over the pixels of the last fit.
    freedom_ : DataArray (component, other), or ndarray (K, K)
        Largest share of a component's signal that could be another's: so much of it can be taken out before
        any channel is negative by more than two standard errors, and the data would be described as well.
    seed_ : int
    axes_ : Labels

    Notes
    -----
    A fit from "bins" makes four passes for the subspace, one for the pooling and one for the corners, which
    touch a pixel's counts K + 10 times, then full passes. Same bits for any number of workers.

    ``volume=0, tol=0`` is the objective of other programs (single pixels, nothing added): passes go on until
    none lowers it, `max_iter` and smaller tolerances end them earlier, and ``objective_path_[i]`` is what
    i + 1 full passes reached. The progress events of these passes, named "NMF", carry the same numbers as
    ``objective`` while the fit runs. After the first step, quasi-Newton steps on the logarithms of the
    components are tried (least squares: over-relaxed ones); one that does not lower the objective is
    followed by the plain step, which does.

    Components are determined only up to what the data leave free: where no pixel (or tile) of a
    component is pure, it holds a part of what always accompanies it, and ``freedom_`` says how much that
    may be (a particle's core under its shell, say).

    References
    ----------
    D. D. Lee, H. S. Seung, NIPS 13 (2001).
    V. Leplat, N. Gillis, A. M. S. Ang, IEEE Trans. Signal Process. 68 (2020) 3400.
    https://doi.org/10.1109/TSP.2020.2991801
    J. Nocedal, Math. Comput. 35 (1980) 773. https://doi.org/10.1090/S0025-5718-1980-0572855-7

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> true = rng.dirichlet(np.full(40, 0.3), 3)
    >>> counts = rng.poisson(500 * rng.dirichlet(np.full(3, 0.3), 900) @ true)
    >>> nmf = em.MiniBatchNMF(3, random_state=0).fit(counts)
    >>> nmf.transform(counts).shape
    (900, 3)
    """

    components_: Any
    objective_: float
    n_iter_: int
    converged_: bool
    pool_: int
    gain_: float
    seed_: int
    component_totals_: NDArray[np.float64]
    freedom_: Any
    _values: NDArray[np.float64]
    _totals: NDArray[np.float64]
    _statistic: Any
    _variant: Variant = Variant()
    _anchors: Any

    def __init__(
        self,
        n_components: int = 2,
        *,
        beta_loss: str = "kullback-leibler",
        volume: float = 1.0,
        tol: float = DEFAULT_TOL,
        max_iter: int = 200,
        pool: int | str = "auto",
        init: Any = "bins",
        n_epochs: int | str = "auto",
        batch_size: int = 32768,
        sum_to_one: bool = False,
        known: Any = None,
        basis: Any = None,
        sparsity: float = 0.0,
        smoothness: float = 0.0,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.beta_loss = beta_loss
        self.volume = volume
        self.tol = tol
        self.max_iter = max_iter
        self.pool = pool
        self.init = init
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.sum_to_one = sum_to_one
        self.known = known
        self.basis = basis
        self.sparsity = sparsity
        self.smoothness = smoothness
        self.random_state = random_state

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
            Values are not finite, or negative where counts are meant; fewer pixels or channels than
            components hold anything; a parameter is out of range.
        """
        loss = self._check_parameters()
        if self.smoothness and several(X) is not None:
            raise InputError(
                f"smoothness={self.smoothness!r} looks at neighbours within one cube, got several cubes",
                hint="fit several cubes with smoothness=0, or each alone",
            )
        source, labels = as_source(X, where)
        self._fit_source(source, labels, loss)
        self._remember_columns(X)
        return self

    def _fit_source(self, source: BlockSource, labels: Labels, loss: Loss) -> None:
        """Fit blocks, wherever they come from."""
        refuse_too_many(source, int(self.n_components))
        self._variant = variant_of(self, labels)
        seed = resolve_seed(self.random_state)
        with resident():
            found = sketch(source, loss, int(self.n_components), seed)
            refuse_empty(found, int(self.n_components))
            gain = gain_of(source, found, int(self.n_components)) if loss.counts else 1.0
            given = source
            if gain != 1.0:
                source, found = in_counts(source, gain), sketch_in_counts(found, gain)
            self.gain_ = gain
            side = self._side(source, labels, loss, found)
            first = self._first(source, labels, loss, found, side, seed)
            first = self._variant.started(first, found.scale)
            self._variant = with_penalties(self._variant, self, loss, found, first)
            if self._variant.penalties and self.pool == "auto":
                side = 1  # Penalties are those of single pixels; the start is that of tiles.
            self._run(source, labels, loss, found.totals, side, first, seed, earlier=None)
            if self._variant.smooth:
                solving = self._variant.solving(loss)
                self._anchors = anchors_of(self._variant, given, solving, self._values, gain)

    def partial_fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Go on with more pixels; those seen before count with what they last said.

        The first call is `fit` and fixes the channels and the pooling; later `where` selects pixels only.
        Later calls start from the components found so far and add the expected counts of earlier pixels,
        which are not solved again (incremental EM: R. M. Neal, G. E. Hinton 1998).

        Raises
        ------
        InputError
            As for `fit`, or the signal differs from that of the first call.
        """
        if not hasattr(self, "axes_"):
            return self.fit(X, where=where)
        if self._variant.smooth:
            raise InputError(
                "a smooth model cannot go on: the neighbours of earlier pixels are not there any more",
                hint="fit on everything at once",
            )
        if not hasattr(self, "_statistic"):
            raise InputError(
                "a model with independent spectra cannot go on",
                hint="call partial_fit on the fit itself",
            )
        loss = self._check_parameters()
        source, labels = as_source(X, pixels_only(X, where), channels=self.axes_.channels)
        self._require_same_signal(X, labels)
        with resident():
            # `in_counts` takes values as they come: they are checked before.
            totals = run_sweep(TotalsSweep(counts=loss.counts), source).state.channels / self.gain_
            source = in_counts(source, self.gain_)
            self._run(
                source,
                labels,
                loss,
                totals,
                self.pool_,
                self._values,
                self.seed_,
                earlier=self._statistic,
            )
        return self

    def fit_transform(self, X: Any, y: None = None, *, where: Any = None) -> Any:
        """Fit and return the loadings (see `transform`).

        Of a lazy cube they are computed at once where its blocks stayed in memory during the fit, up to
        256 MiB of them; lazy otherwise.
        """
        with at_once_where_resident():
            return self.fit(X, where=where).transform(X, where=pixels_only(X, where))

    @property
    def _n_features_out(self) -> int:
        return len(self._require_values())

    @property
    def _counts_only(self) -> bool:
        return self.beta_loss in ("kullback-leibler", 1)

    def _check_parameters(self) -> Loss:
        k: Any = self.n_components
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise InputError(
                f"n_components must be a whole number from 1 on, got {k!r}",
                hint="emcube.estimate_n_components(cube).n_components proposes one",
            )
        for name, least in (("volume", 0.0), ("tol", 0.0), ("max_iter", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise InputError(f"{name} must be a number, got {value!r}")
            if not (value >= least and np.isfinite(value)):
                raise InputError(f"{name} must be at least {least}, got {value!r}")
            if isinstance(least, int) and value != int(value):
                raise InputError(f"{name} must be a whole number, got {value!r}")
        for name, least in (("pool", 1), ("n_epochs", 0)):
            value = getattr(self, name)
            if value != "auto" and (
                isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least
            ):
                raise InputError(
                    f"{name} must be 'auto' or a whole number from {least} on, got {value!r}"
                )
        if isinstance(self.init, str) and self.init not in ("bins", "random"):
            raise InputError(f"init must be 'bins', 'random' or components, got {self.init!r}")
        loss = resolve_loss(self.beta_loss)
        check_variant(self, counts=loss.counts)
        return loss

    def _side(self, source: BlockSource, labels: Labels, loss: Loss, found: Sketch) -> int:
        if self.pool != "auto":
            return int(self.pool)
        if self.volume == 0.0:
            return 1
        return choose_side(source, loss, found, labels.nav_dims)

    def _first(
        self,
        source: BlockSource,
        labels: Labels,
        loss: Loss,
        found: Sketch,
        side: int,
        seed: int,
    ) -> NDArray[np.float64]:
        if not isinstance(self.init, str):
            return self._given(labels)
        k = int(self.n_components)
        if self.init == "random":
            rng = np.random.default_rng((seed, 0, 1))
            mean = np.maximum(found.totals, 0.0)
            values = rng.gamma(1.0, size=(k, mean.size)) * mean
            return np.asarray(values / values.sum(axis=1, keepdims=True))
        return corners(source, loss, found, labels.nav_dims, side, seed)

    def _given(self, labels: Labels) -> NDArray[np.float64]:
        """Components that the user starts from, over the used channels."""
        given = self.init
        if isinstance(given, xr.DataArray) and not labels.plain:
            sig = labels.signal_beside("component")
            missing = [d for d in sig if d not in given.dims]
            if missing:
                raise InputError(f"init has no dim {missing[0]!r}: its dims are {given.dims}")
            other = [d for d in given.dims if d not in sig]
            given = given.transpose(*other, *sig)
        values = np.asarray(given, dtype=np.float64)
        values = values.reshape(len(values), -1) if values.ndim else values
        shape = (int(self.n_components), labels.n_all_channels)
        if values.shape != shape:
            raise InputError(f"init has the shape {values.shape}, {shape} is expected")
        values = labels.used_channels(values)
        if not np.isfinite(values).all() or values.min() < 0 or (values.sum(axis=1) <= 0).any():
            raise InputError(
                "init must be finite, not negative, and no component may be zero in all used channels"
            )
        return np.asarray(values / values.sum(axis=1, keepdims=True))

    def _run(
        self,
        source: BlockSource,
        labels: Labels,
        loss: Loss,
        totals: NDArray[np.float64],
        side: int,
        first: NDArray[np.float64],
        seed: int,
        earlier: Any,
    ) -> None:
        """Minibatches and full passes, then the answers."""
        tile = tile_of(labels.nav_dims, side)
        pooled: BlockSource = source if side == 1 else PooledSource(source, tile)
        seen = totals if earlier is None else totals + self._totals
        variant, base = self._variant, loss
        loss = variant.fitting(loss)
        weights = loss.channel_weights(seen)
        # A share of the squared length of the mean spectrum, which has length one in the metric of counts.
        delta = _delta(first, weights)
        first = variant.numbers(loss, first)
        epochs = (
            (0 if self._from_bins(earlier) else 2) if self.n_epochs == "auto" else self.n_epochs
        )
        if int(epochs):
            n_batches = int(np.clip(-(-pooled.n_pixels // int(self.batch_size)), 1, 64))
            batches = BatchSweep(
                loss,
                first,
                weights,
                float(self.volume),
                delta,
                pooled.n_pixels,
                n_batches,
                int(epochs),
            )
            rounds = n_batches * int(epochs)
            first = run_sweep(batches, pooled, seed=seed, max_rounds=rounds).state.components
        passes = PassSweep(
            loss,
            first,
            weights,
            float(self.volume),
            delta,
            pooled.n_pixels,
            float(self.tol),
            earlier,
        )
        sweep = variant.sweep(passes, pooled)
        outcome = run_sweep(sweep, pooled, seed=seed, max_rounds=int(self.max_iter))
        state: PassState = passes_of(outcome.state)
        statistic = data_pass(state.statistic if earlier is None else state.statistic + earlier)
        order = variant.order(statistic.loadings)
        numbers = state.best if state.best is not None else state.components
        best = loss.spectra(numbers)
        # Channels in which nothing was ever counted belong to no component.
        values = np.where(seen != 0.0, best, 0.0)[order]
        self._values = values / values.sum(axis=1, keepdims=True)
        self._totals = seen
        self._statistic = _reordered(statistic, order)
        if earlier is None:
            self._remember(labels)
        self.objective_ = float(state.statistic.objective) * self.gain_
        self.penalty_ = self.objective_ - float(state.statistic.divergence) * self.gain_
        self.sparsity_strength_ = variant.penalties.sparsity
        self.smoothness_strength_ = variant.penalties.smoothness
        self.n_known_ = variant.n_known
        self.objective_path_ = np.array(outcome.history) * self.gain_
        self.n_iter_ = outcome.n_rounds
        self.converged_ = outcome.converged
        self.pool_ = side
        self.volume_strength_ = float(state.strength or 0.0) * self.gain_
        self.component_totals_ = statistic.loadings[order] * self.gain_
        self.seed_ = seed
        errors = base.errors(self._values, self._statistic, self.objective_ - self.penalty_)
        freedom = spectral_freedom(self._values, errors)
        self.freedom_ = freedom if self.axes_.plain else _pairs(freedom)
        self.components_ = self.axes_.spectra(self._values, attrs={"units": "1 per channel"})
        if variant.basis is not None:
            self.coefficients_ = variant.coefficients(numbers, order, plain=self.axes_.plain)

    def _from_bins(self, earlier: Any) -> bool:
        return earlier is not None or (isinstance(self.init, str) and self.init == "bins")

    def with_independent_spectra(self, contrast: str = "logcosh") -> Self:
        """Copy of the fitted model whose components give away what makes their spectra dependent.

        An additional assumption for specimens in which a component is never seen without another, as a
        particle's core under its shell: that the derivatives of the spectra are independent, which fits
        phases of different elements and is wrong for phases that share their elements (minerals: there it
        turns right components far away). Only as much is taken out as ``freedom_`` allows, so that the data
        are described about as well. The order of the components stays.

        The answer hangs on how independence is measured: compare the contrasts before trusting it. For the
        Pt/Fe ratio of the FePt core they give 4.8, 5.2 and 4.1 in the order below, where the bare cores give
        5.1; "cube" lies outside two standard errors of counting, which do not contain this spread.

        Parameters
        ----------
        contrast : {"logcosh", "exp", "cube"}
            FastICA's measure of independence.

        Returns
        -------
        MiniBatchNMF
            With new ``components_`` and ``component_totals_``. It has no ``freedom_`` and cannot go on with
            `partial_fit`; ``objective_`` is that of the fit.

        References
        ----------
        D. Rossouw et al., "Multicomponent signal unmixing from nanoheterostructures", Nano Lett. 15 (2015)
        2716. https://pubmed.ncbi.nlm.nih.gov/25760234
        """
        values = self._require_values()
        if contrast not in ("logcosh", "exp", "cube"):
            raise InputError(f"contrast must be 'logcosh', 'exp' or 'cube', got {contrast!r}")
        if not hasattr(self, "freedom_"):
            raise InputError("these spectra have been made independent already")
        if words := variant_words(self):
            raise InputError(
                f"independent spectra would not be what {words[0]} asks for",
                hint=f"fit without {words[0]}",
            )
        shares = independent_shares(values, np.asarray(self.freedom_), self.seed_, contrast)
        taken = np.eye(len(values)) - shares
        purer = np.maximum(taken @ values, 0.0)
        sums = purer.sum(axis=1)
        if (sums <= 0.0).any() or abs(float(np.linalg.det(taken))) < 1e-6:
            raise InputError(
                "nothing would be left of a component: the spectra are too much alike",
                hint="ask for fewer components",
            )
        new = copy.copy(self)
        new._values = purer / sums[:, None]
        new.component_totals_ = (self.component_totals_ @ np.linalg.inv(taken)) * sums
        new.components_ = self.axes_.spectra(new._values, attrs={"units": "1 per channel"})
        del new.freedom_, new._statistic
        return new

    # -- answers ------------------------------------------------------------------------------------

    def pixel_function(self) -> Callable[[Block], dict[str, NDArray[Any]]]:
        """Loadings of a block's pixels, or with ``sum_to_one`` abundances; and their sum, the scale."""
        self._require_fitted()
        loss = self._variant.solving(resolve_loss(self.beta_loss))
        if self._variant.smooth:
            return smooth_solve(self, loss, self._anchors)
        return _Solve(loss, self._values, bool(self.sum_to_one), self.gain_)

    def _map(
        self, X: Any, name: str, trailing: tuple[int, ...], *, where: Any = None, **options: Any
    ) -> Any:
        if not self._variant.smooth:
            return super()._map(X, name, trailing, where=where, **options)
        labels = self._check_signal(X)
        loss = self._variant.solving(resolve_loss(self.beta_loss))
        values = smooth_map(self, loss, X, lambda solve: Pick(solve, name), trailing, where)
        return labels.maps(values, name=name, **options)

    def transform(self, X: Any, where: Any = None) -> Any:
        """Solve the loadings of every pixel; lazy where `X` is.

        Smooth loadings of another cube than that of the fit, or of other pixels, take some passes over it
        first, in which its blocks come to terms with each other.

        Parameters
        ----------
        X : DataArray, or matrix of shape (P, E)
            With the signal axes of the fit.
        where : DataArray of bool over navigation dims, optional
            Pixels to solve; others get NaN.

        Returns
        -------
        DataArray (navigation dims, component), or array (P, K)
            In the units of the cube. With ``sum_to_one`` abundances without a unit, and (labelled) the
            coordinate ``scale``; both are zero where a pixel holds nothing.

        Raises
        ------
        InputError
            The signal axes are not those of the fit, or a value cannot be one.
        """
        k = len(self._require_values())
        attrs = {"units": "1"} if self.sum_to_one else None
        loadings = self._map(X, "loadings", (k,), where=where, attrs=attrs)
        if self.sum_to_one and isinstance(loadings, xr.DataArray):
            loadings = loadings.assign_coords(scale=self.scale(X, where=where))
        return loadings

    def scale(self, X: Any, where: Any = None) -> Any:
        """Sum of each pixel's loadings, in the units of the cube; for counts the pixel's number of counts.

        Returns
        -------
        DataArray (navigation dims), or array (P,)
        """
        self._require_values()
        return self._map(X, "scale", (), dims=(), where=where)

    def inverse_transform(self, loadings: Any, scale: Any = None) -> Any:
        """Compute D = L S, the fitted cube; lazy where the loadings are.

        Parameters
        ----------
        loadings : DataArray (navigation dims, component), or array (P, K)
            As from `transform`.
        scale : DataArray or array, optional
            Of each pixel, with ``sum_to_one``; default: the coordinate ``scale`` of the loadings.

        Raises
        ------
        InputError
            The loadings have another number of components, or their scale is missing.
        """
        values = self._require_values()
        if isinstance(loadings, xr.DataArray):
            loadings = in_order(loadings, len(values))
        if loadings.shape[-1] != len(values):
            raise InputError(
                f"loadings of {loadings.shape[-1]} components were given, the model has {len(values)}"
            )
        if self.sum_to_one:
            if scale is None and isinstance(loadings, xr.DataArray):
                scale = loadings.coords.get("scale")
            if scale is None:
                raise InputError(
                    "abundances alone do not say how much signal a pixel holds",
                    hint="pass scale=model.scale(X)",
                )
            loadings = loadings * (scale if isinstance(scale, xr.DataArray) else scale[:, None])
        return rebuild(self.axes_, loadings, self.axes_.full_channels(values))

    def _model_of(self, X: Any, where: Any) -> tuple[xr.DataArray, xr.DataArray]:
        loadings, components = super()._model_of(X, where)
        return (loadings * loadings["scale"] if self.sum_to_one else loadings), components

    def score(self, X: Any, y: None = None, *, where: Any = None) -> float:
        """Score the components on data, with loadings that have not seen what is scored; more is better.

        Counts: mean Poisson log-likelihood per count. Each count of X is dealt to one of two halves; loadings
        from one half predict the other, both ways round. Fractions are divided by ``gain_`` first, and what
        is no whole count then is dealt as one piece. Least squares: one minus the share of the sum of
        squares that is left in every other channel after fitting the channels between, both ways round.

        Raises
        ------
        InputError
            The signal is not that of the fit, or nothing was counted.
        """
        values = self._require_values()
        self._check_signal(X)
        loss = resolve_loss(self.beta_loss)
        source, _ = as_source(X, pixels_only(X, where), channels=self.axes_.channels)
        source = in_counts(source, self.gain_)
        sums = run_sweep(ScoreSweep(loss, values), source, seed=self.seed_).state
        if sums[1] <= 0.0:
            raise InputError("there is nothing to score: every used value is zero")
        return float(sums[0] / sums[1]) if loss.counts else float(1.0 - sums[0] / sums[1])

    def _require_values(self) -> NDArray[np.float64]:
        self._require_fitted()
        return self._values


def _pairs(values: NDArray[np.float64]) -> xr.DataArray:
    number = np.arange(len(values))
    return xr.DataArray(
        values,
        dims=("component", "other"),
        coords={"component": number, "other": number},
        name="freedom",
        attrs={"units": "1"},
    )


def _delta(components: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    from emcube.kernels.volume import DELTA

    return float(DELTA * np.mean((components * components) @ weights))


def _reordered(statistic: Any, order: NDArray[np.int64]) -> Any:
    """A statistic with its components in another order."""
    from dataclasses import fields, replace

    changed: dict[str, Any] = {}
    for field in fields(statistic):
        value = getattr(statistic, field.name)
        if field.name == "gram":
            changed["gram"] = value[np.ix_(order, order)]
        elif isinstance(value, np.ndarray):
            changed[field.name] = value[order]
    return replace(statistic, **changed)


@dataclass(frozen=True, eq=False)
class _Solve:
    """Loadings of a block's pixels."""

    loss: Loss
    components: NDArray[np.float64]
    sum_to_one: bool
    gain: float = 1.0

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        self.loss.check(block)
        if self.gain == 1.0:
            loadings = self.loss.loadings(block.data, self.components)
        else:
            counts = block.dense() / self.gain
            loadings = self.loss.loadings(counts, self.components) * self.gain
        scale = loadings.sum(axis=1)
        if self.sum_to_one:
            loadings = loadings / np.where(scale > 0.0, scale, 1.0)[:, None]
        return {"loadings": loadings, "scale": scale}
