"""What models of non-negative spectra that add up share, once they have their components.

Letters: P pixels, E used channels, K components. D_i = sum_k L_ik s_k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.engine import run_sweep
from emcube.errors import InputError
from emcube.kernels.fcls import constrained_shares
from emcube.kernels.frobenius_nmf import bounded_loadings, pieces
from emcube.kernels.products import pixel_products
from emcube.kernels.rows import CountRows
from emcube.models.base import Estimator
from emcube.models.figures import ComponentFigures
from emcube.models.labels import as_source
from emcube.models.nmf_losses import FrobeniusLoss, Loss, PoissonLoss
from emcube.models.nmf_sweeps import ScoreSweep
from emcube.models.noise import resolve_noise
from emcube.models.rebuild import in_order, pixels_only, rebuild

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource
    from emcube.models.nmf_start import Sketch

__all__ = ["MixingModel", "loss_of", "refuse_empty", "refuse_too_many", "require_choice"]
__all__ += ["require_whole"]


def loss_of(noise: Any, dtype: Any) -> PoissonLoss | FrobeniusLoss:
    """The loss that a noise model asks for: the likelihood of counts, or least squares.

    Raises
    ------
    InputError
        It is none of "auto", "poisson" and None.
    """
    if noise is not None and not isinstance(noise, str):
        raise InputError(
            f"noise must be 'auto', 'poisson' or None, got {noise!r}",
            hint="'auto' is 'poisson' for integer counts and None for everything else",
        )
    return PoissonLoss() if resolve_noise(noise, dtype).needs_counts else FrobeniusLoss()


def require_whole(name: str, value: Any, least: int, *, auto: bool = False) -> None:
    """Refuse a parameter that is no whole number from `least` on (or "auto").

    Raises
    ------
    InputError
    """
    if auto and isinstance(value, str) and value == "auto":
        return
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        words = "'auto' or " if auto else ""
        hint = "emcube.estimate_n_components(cube).n_components proposes one"
        raise InputError(
            f"{name} must be {words}a whole number from {least} on, got {value!r}",
            hint=hint if name == "n_components" else "",
        )


def require_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuse a parameter that is none of some values.

    Raises
    ------
    InputError
    """
    if not any(value is c or (isinstance(value, str) and value == c) for c in choices):
        raise InputError(
            f"{name} must be {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}, got {value!r}"
        )


def refuse_too_many(source: BlockSource, n_components: int) -> None:
    """Refuse more components than there are pixels or channels.

    Raises
    ------
    InputError
    """
    most = min(source.n_pixels, source.n_channels)
    if n_components > most:
        raise InputError(
            f"{n_components} components are asked of {source.n_pixels} pixels and "
            f"{source.n_channels} channels, at most {most} exist",
            hint="ask for fewer components",
        )


def refuse_empty(found: Sketch, n_components: int) -> None:
    """Refuse data that hold too little, or nothing positive, for components that are not negative.

    Raises
    ------
    InputError
    """
    seen = int(np.count_nonzero(found.totals != 0.0))
    full = found.n_pixels - found.n_empty
    if n_components > min(seen, full):
        raise InputError(
            f"{n_components} components are asked of {full} pixels and {seen} channels that hold "
            f"anything (of {found.n_pixels} and {found.totals.size})",
            hint="ask for fewer components, or check the selection (where=)",
        )
    if found.totals.sum() <= 0.0:
        raise InputError(
            f"the sum of all values is {found.totals.sum():g}, a positive signal is expected",
            hint="non-negative components cannot describe it; use emcube.IncrementalPCA",
        )
    held = float(found.totals.sum()) / max(1, full)
    if not 1e-100 < held < 1e100:
        raise InputError(
            f"pixels hold {held:g} on average, 1e-100 to 1e100 can be factorised",
            hint="scale the cube by a constant first",
        )


class MixingModel(ComponentFigures, Estimator):
    """Base of models with non-negative components that sum to one.

    A subclass fits ``_values`` (K, E), ``_weights`` (E,), the channels' weights in least squares, and
    ``loadings_by_``: "poisson" (likelihood), "fcls" (least squares with the pixel's own sum), "nnls"
    (without) or "ls" (nor bounds).
    """

    components_: Any
    loadings_by_: str
    _values: NDArray[np.float64]
    _weights: NDArray[np.float64]

    def fit_transform(self, X: Any, y: None = None, *, where: Any = None) -> Any:
        """Fit and return the loadings (see `transform`)."""
        return self.fit(X, where=where).transform(X, where=pixels_only(X, where))

    @property
    def _n_features_out(self) -> int:
        return len(self._require_values())

    def _require_values(self) -> NDArray[np.float64]:
        self._require_fitted()
        return self._values

    def pixel_function(self) -> Callable[[Block], dict[str, NDArray[Any]]]:
        """Picklable ``function(block) -> {"loadings": (p, K)}``."""
        self._require_fitted()
        return _Solve(self._loss(), self._values, self._weights, self.loadings_by_)

    def _loss(self) -> Loss:
        """What blocks are checked by, and scores told in."""
        return PoissonLoss() if self.loadings_by_ == "poisson" else FrobeniusLoss()

    def transform(self, X: Any, *, where: Any = None) -> Any:
        """Solve the loadings of every pixel; lazy where `X` is.

        Parameters
        ----------
        X : DataArray, or matrix of shape (P, E)
            With the signal axes of the fit.
        where : DataArray of bool over navigation dims, optional
            Pixels to solve; others get NaN.

        Returns
        -------
        DataArray (navigation dims, component), or array (P, K)
            In the units of the cube; divided by their sum they are abundances.

        Raises
        ------
        InputError
            The signal axes are not those of the fit, or a value cannot be one.
        """
        return self._map(X, "loadings", (len(self._require_values()),), where=where)

    def inverse_transform(self, loadings: Any) -> Any:
        """Compute D = L S, the cube as the model describes it; lazy where the loadings are.

        Parameters
        ----------
        loadings : DataArray (navigation dims, component), or array (P, K)
            As from `transform`.

        Raises
        ------
        InputError
            The loadings have another number of components.
        """
        values = self._require_values()
        if isinstance(loadings, xr.DataArray):
            loadings = in_order(loadings, len(values))
        if loadings.shape[-1] != len(values):
            raise InputError(
                f"loadings of {loadings.shape[-1]} components were given, the model has {len(values)}"
            )
        return rebuild(self.axes_, loadings, self.axes_.full_channels(values))

    def score(self, X: Any, y: None = None, *, where: Any = None) -> float:
        """Score the components on data, with loadings that have not seen what is scored; more is better.

        As `MiniBatchNMF.score`: where loadings are those of largest likelihood, mean log-likelihood per
        count of one half of the counts given the other; else one minus the share of the squares that is left
        in every other channel after fitting the channels between.

        Raises
        ------
        InputError
            The signal is not that of the fit, or nothing was counted.
        """
        values = self._require_values()
        self._check_signal(X)
        loss = self._loss()
        source, _ = as_source(X, pixels_only(X, where), channels=self.axes_.channels)
        sums = run_sweep(ScoreSweep(loss, values), source, seed=self._score_seed()).state
        if sums[1] <= 0.0:
            raise InputError("there is nothing to score: every used value is zero")
        return float(sums[0] / sums[1]) if loss.counts else float(1.0 - sums[0] / sums[1])

    def _score_seed(self) -> int:
        return int(getattr(self, "seed_", 0))


@dataclass(frozen=True, eq=False)
class _Solve:
    """Loadings of a block's pixels, by likelihood or by weighted least squares."""

    loss: Loss
    components: NDArray[np.float64]
    weights: NDArray[np.float64]
    by: str

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        self.loss.check(block)
        if self.by == "poisson":
            return {"loadings": self.loss.loadings(block.data, self.components)}
        weighted = self.components * self.weights
        products = pixel_products(block.data, np.ascontiguousarray(weighted.T))
        gram = weighted @ self.components.T
        if self.by == "fcls":
            return {"loadings": constrained_shares(products, gram, _totals(block.data))}
        if self.by == "ls":
            return {"loadings": products @ np.linalg.pinv(gram, hermitian=True)}
        return {"loadings": bounded_loadings(products, gram)}


def _totals(data: CountRows | NDArray[Any]) -> NDArray[np.float64]:
    if isinstance(data, CountRows):
        return data.pixel_totals().astype(np.float64)
    out = np.empty(len(data))
    for first, part in pieces(data):
        out[first : first + len(part)] = part.sum(axis=1)
    return out
