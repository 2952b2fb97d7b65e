"""Multivariate curve resolution by alternating least squares, of a cube larger than memory.

Letters: P pixels, E used channels, K components. D_i = sum_k L_ik s_k.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from emcube.engine import MappedSource, resident, run_sweep
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.models.base import resolve_seed
from emcube.models.given import given_spectra, known_spectra, replaced
from emcube.models.labels import Labels, as_source, dtype_of
from emcube.models.mcr_sweeps import (
    DEFAULT_TOL,
    ALSState,
    ALSStatistic,
    ALSSweep,
    Constraints,
    Scores,
    allowed,
)
from emcube.models.mixing import (
    MixingModel,
    loss_of,
    refuse_empty,
    refuse_too_many,
    require_choice,
    require_whole,
)
from emcube.models.nmf_losses import FrobeniusLoss, Loss, PoissonLoss
from emcube.models.nmf_start import Sketch, choose_side, corners, projector_of, sketch, tile_of
from emcube.models.nmf_sweeps import PooledSource
from emcube.models.rebuild import pixels_only
from emcube.models.sweeps import TotalsSweep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import BlockSource

__all__ = ["MCRALS"]


class MCRALS(MixingModel):
    """Resolve spectra and maps by alternating least squares with constraints.

    Minimises sum_ij (D_ij - sum_k L_ik s_kj)^2 / (g_i h_j) over loadings for given spectra, then over
    spectra for given
    loadings, and so on; g and h are the totals of pixels and channels, which make counting noise even
    (all ones without a noise model). Both are subject to what is asked of them.

    Parameters
    ----------
    n_components : int
        K.
    noise : {"auto", "poisson"} or None
        "auto" is "poisson" for integer counts and None for everything else.
    nonnegative : {"both", "loadings", "spectra", "neither"}
        What must not be negative.
    closure : bool
        The loadings of a pixel sum to the pixel's total, so that their shares sum to one. They are not
        negative then.
    unimodal : bool
        Each spectrum rises to one peak and falls after it (a single line, an edge, a profile).
    known : array (M, E), optional
        Spectra that are known, labelled or bare, in any unit: the first M components keep their shapes
        (equality). An .msa standard opened with `emcube.open`, say, on the energies of the cube.
    init : {"corners", "random"} or array (K, E)
        Spectra to start from. "corners": the corners of the cloud of pooled pixels; those nearest to known
        spectra are replaced by them. "random": random positive mixtures of the mean spectrum.
    pool : int or "auto"
        Side of the square tiles whose pixels are summed while spectra are resolved (loadings of
        `transform` are those of single pixels). "auto" as for `MiniBatchNMF`.
    max_iter : int
        Rounds, at most.
    tol : float
        Rounds stop when one takes less than this share off what is left or (at the default 1e-3, and in
        proportion) less than fitting noise would: further ones turn spectra away from the truth. In the
        subspace hardly any noise is left: it is what the constraints keep from being described. 0: until
        nothing is gained.
    random_state : int, Generator or None
        Of the points that are searched for corners, and of ``init="random"``.

    Attributes
    ----------
    components_ : DataArray (component, signal dims), or ndarray (K, E)
        Each sums to one over the used channels; NaN in unused channels. Known spectra first, then
        by their total loading, the largest first.
    component_totals_ : ndarray, shape (K,)
        Sum of the loadings over the (pooled) pixels of the last fit.
    lack_of_fit_ : float
        Root of the share of the weighted squares, within the subspace of K dims, that is left.
    lack_of_fit_path_ : ndarray
        The same after each round.
    n_iter_ : int
        Rounds.
    converged_ : bool
        Whether `tol` was met before `max_iter`.
    pool_ : int
    weighted_ : bool
        Whether pixels and channels were weighted for counting noise.
    loadings_by_ : str
        "nnls", "fcls" (with closure) or "ls": how `transform` solves loadings.
    seed_ : int
    axes_ : Labels

    Notes
    -----
    Passes over the data: one for the subspace (four for least squares, or beyond 2048 channels), one for the
    pooling, one for the corners, one that reduces each (pooled) pixel to K + 1 numbers; the rounds go
    over these, which stay in memory as far as it goes. Same bits on any number of workers.

    Like every factorisation it is determined only up to what the constraints leave free: where no pixel of a
    component is pure the start decides, within ``MiniBatchNMF(...).freedom_``.

    References
    ----------
    R. Tauler, Chemom. Intell. Lab. Syst. 30 (1995) 133. https://doi.org/10.1016/0169-7439(95)00047-X
    A. de Juan, J. Jaumot, R. Tauler, Anal. Methods 6 (2014) 4964. https://doi.org/10.1039/C4AY00571F
    M. R. Keenan, P. G. Kotula, Surf. Interface Anal. 36 (2004) 203. https://doi.org/10.1002/sia.1657

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> true = rng.dirichlet(np.full(40, 0.3), 3)
    >>> counts = rng.poisson(500 * rng.dirichlet(np.full(3, 0.3), 900) @ true)
    >>> mcr = em.MCRALS(3, known=true[:1], random_state=0).fit(counts)
    >>> bool(np.allclose(mcr.components_[0], true[0]))
    True
    """

    component_totals_: NDArray[np.float64]
    lack_of_fit_: float
    lack_of_fit_path_: NDArray[np.float64]
    n_iter_: int
    converged_: bool
    pool_: int
    weighted_: bool
    seed_: int
    _found: Sketch
    _fit_loss: PoissonLoss | FrobeniusLoss
    _statistic: ALSStatistic

    def __init__(
        self,
        n_components: int = 2,
        *,
        noise: str | None = "auto",
        nonnegative: str = "both",
        closure: bool = False,
        unimodal: bool = False,
        known: Any = None,
        init: Any = "corners",
        pool: int | str = "auto",
        max_iter: int = 100,
        tol: float = DEFAULT_TOL,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.noise = noise
        self.nonnegative = nonnegative
        self.closure = closure
        self.unimodal = unimodal
        self.known = known
        self.init = init
        self.pool = pool
        self.max_iter = max_iter
        self.tol = tol
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
            components hold anything; a parameter is out of range; given spectra do not fit the cube.
        """
        constraints = self._check_parameters()
        source, labels = as_source(X, where)
        k = int(self.n_components)
        refuse_too_many(source, k)
        loss = loss_of(self.noise, dtype_of(X))
        known = self._known(labels)
        given = None if isinstance(self.init, str) else given_spectra(self.init, labels, k, "init")
        seed = resolve_seed(self.random_state)
        with resident(), single_threaded_blas():
            found = sketch(source, loss, k, seed, "MCR")
            refuse_empty(found, k)
            side = self._side(source, labels, loss, found)
            first = self._first(source, labels, loss, found, side, seed, given, known)
            self._remember(labels)
            self._run(source, labels, loss, found, side, first, len(known), constraints, seed, None)
        self._remember_columns(X)
        return self

    def partial_fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Go on with more pixels; those seen before count with what they last said.

        The first call is `fit` and fixes the channels, the subspace and the pooling; later `where` selects
        pixels only. Later calls start from the spectra found so far and add the sums of earlier pixels, whose
        loadings are not solved again.

        Raises
        ------
        InputError
            As for `fit`, or the signal differs from that of the first call.
        """
        if not hasattr(self, "axes_"):
            return self.fit(X, where=where)
        constraints = self._check_parameters()
        source, labels = as_source(X, pixels_only(X, where), channels=self.axes_.channels)
        self._require_same_signal(X, labels)
        with resident(), single_threaded_blas():
            # Values are checked before they are projected.
            run_sweep(TotalsSweep(counts=self._fit_loss.counts), source)
            self._run(
                source,
                labels,
                self._fit_loss,
                self._found,
                self.pool_,
                self._values,
                len(self._known(self.axes_)),
                constraints,
                self.seed_,
                self._statistic,
            )
        return self

    def _check_parameters(self) -> Constraints:
        require_whole("n_components", self.n_components, 1)
        require_choice("nonnegative", self.nonnegative, ("both", "loadings", "spectra", "neither"))
        loss_of(self.noise, np.dtype(np.float64))
        require_whole("pool", self.pool, 1, auto=True)
        require_whole("max_iter", self.max_iter, 1)
        for name in ("closure", "unimodal"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise InputError(f"{name} must be True or False, got {getattr(self, name)!r}")
        tol: Any = self.tol
        number = isinstance(tol, int | float | np.number) and not isinstance(tol, bool)
        if not number or not 0.0 <= tol < np.inf:
            raise InputError(f"tol must be a number from 0 on, got {tol!r}")
        if isinstance(self.init, str):
            require_choice("init", self.init, ("corners", "random"))
        if self.closure and self.nonnegative not in ("both", "loadings"):
            raise InputError(
                f"closure needs loadings that are not negative, got nonnegative={self.nonnegative!r}",
                hint="use nonnegative='both' or 'loadings', or leave closure out",
            )
        return Constraints(
            self.nonnegative in ("both", "loadings"),
            self.nonnegative in ("both", "spectra"),
            bool(self.closure),
            bool(self.unimodal),
        )

    @property
    def _counts_only(self) -> bool:
        return self.noise == "poisson"

    def _known(self, labels: Labels) -> NDArray[np.float64]:
        """Spectra (M, E) that stay as they are."""
        return known_spectra(self.known, labels, int(self.n_components))

    def _side(self, source: BlockSource, labels: Labels, loss: Loss, found: Sketch) -> int:
        if not isinstance(self.pool, str):
            return int(self.pool)
        return choose_side(source, loss, found, labels.nav_dims, "MCR")

    def _first(
        self,
        source: BlockSource,
        labels: Labels,
        loss: Loss,
        found: Sketch,
        side: int,
        seed: int,
        given: NDArray[np.float64] | None,
        known: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Spectra to start from, the known ones first."""
        k = int(self.n_components)
        if given is not None:
            first = given
        elif self.init == "random":
            rng = np.random.default_rng((seed, 0, 1))
            mean = np.maximum(found.totals, 0.0)
            first = rng.gamma(1.0, size=(k, mean.size)) * mean
            first = first / first.sum(axis=1, keepdims=True)
        elif len(known) == k:
            return known
        else:
            first = corners(source, loss, found, labels.nav_dims, side, seed, "MCR")
        return replaced(first, known, found.scale)

    def _run(
        self,
        source: BlockSource,
        labels: Labels,
        loss: PoissonLoss | FrobeniusLoss,
        found: Sketch,
        side: int,
        first: NDArray[np.float64],
        fixed: int,
        constraints: Constraints,
        seed: int,
        earlier: ALSStatistic | None,
    ) -> None:
        """Rounds over the scores, then the answers."""
        projector = projector_of(found, loss)
        token = _token(found)
        scores: BlockSource = MappedSource(
            source, Scores(projector), found.vectors.shape[1] + 1, f"MCR scores {token}"
        )
        if side > 1:
            scores = PooledSource(scores, tile_of(labels.nav_dims, side))
        first = allowed(first, np.square(found.scale), fixed, constraints)
        size = math.prod(tile_of(labels.nav_dims, side))
        noise = 1.0 if loss.counts else projector.variance * size
        sweep = ALSSweep(
            first, fixed, found, constraints, loss.counts, float(self.tol), noise, earlier
        )
        outcome = run_sweep(sweep, scores, seed=seed, max_rounds=int(self.max_iter))
        state: ALSState = outcome.state
        statistic, best = state.statistic, state.best
        assert statistic is not None  # a round was made
        assert best is not None
        whole = statistic if earlier is None else statistic + earlier
        order = np.concatenate(
            [np.arange(fixed), fixed + np.argsort(-whole.totals[fixed:], kind="stable")]
        )
        self._values = best[order]
        self._statistic = ALSStatistic(
            whole.gram[np.ix_(order, order)],
            whole.cross[order],
            whole.totals[order],
            whole.left,
            whole.square,
        )
        self._found, self._fit_loss = found, loss
        self.weighted_ = loss.counts
        self._weights = np.square(found.scale)
        self.loadings_by_ = constraints.loadings_by
        self.seed_, self.pool_ = seed, side
        self.component_totals_ = whole.totals[order]
        square = statistic.square if statistic.square > 0.0 else 1.0
        self.lack_of_fit_path_ = np.sqrt(np.array(state.path) / square)
        self.lack_of_fit_ = float(self.lack_of_fit_path_[-1])
        self.n_iter_, self.converged_ = outcome.n_rounds, outcome.converged
        self.components_ = self.axes_.spectra(self._values, attrs={"units": "1 per channel"})


def _token(found: Sketch) -> str:
    """Identity of a subspace, for blocks that stay in memory."""
    from hashlib import sha256

    return sha256(found.vectors.tobytes() + found.scale.tobytes()).hexdigest()[:16]
