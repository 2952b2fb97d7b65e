"""What is asked of a fitted model before its uncertainty is: components, totals, and information.

Letters: P pixels, E used channels, K components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.engine import run_sweep
from emcube.errors import InputError
from emcube.kernels.fisher import HALF, component_information, component_shares, unpacked
from emcube.models.labels import Labels, dtype_of
from emcube.models.nmf import MiniBatchNMF
from emcube.models.nmf_losses import Loss, resolve_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource, RngKey

__all__ = ["Fitted", "Information", "InformationSweep", "TotalsSweep", "component_errors"]
__all__ += ["fitted_of", "information_of"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What is asked of a model: components over the used channels, and how they were found.

    Attributes
    ----------
    components : ndarray, shape (K, E)
        Not negative; each sums to one.
    totals : ndarray, shape (K,)
        Sum of each component's loadings, in counts.
    loss : Loss
    labels : Labels
        Of the fit.
    gain : float
        What one count is worth in the values.
    pool : int
        Side of the tiles that components were fitted on.
    sum_to_one : bool
        Loadings are abundances.
    parameters : dict or None
        Of the estimator, where it can be fitted again.
    """

    components: NDArray[np.float64]
    totals: NDArray[np.float64]
    loss: Loss
    labels: Labels
    gain: float = 1.0
    pool: int = 1
    sum_to_one: bool = False
    parameters: Mapping[str, Any] | None = None

    def loadings_of(self, block: Block) -> NDArray[np.float64]:
        """Loadings (p, K) of a block's pixels, in counts where the loss is theirs."""
        self.loss.check(block)
        data = block.data if self.gain == 1.0 else block.dense() / self.gain
        return self.loss.loadings(data, self.components)

    def as_answered(
        self, values: NDArray[np.float64], loadings: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Values (p, K, ...) in the units of the answer: as shares, where it has them."""
        if not self.sum_to_one:
            return values
        scale = loadings.sum(axis=1) * self.gain
        apart = (slice(None), *(None,) * (values.ndim - 1))
        return np.asarray(values / np.where(scale > 0.0, scale, 1.0)[apart])

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weights of the channels that even out their noise."""
        return self.loss.channel_weights(self.totals @ self.components)


def fitted_of(model: Any, cube: Any = None) -> Fitted:
    """Look at a fitted estimator.

    Parameters
    ----------
    model : fitted estimator
    cube : DataArray or matrix, optional
        What it was fitted on: says whether a model with ``noise="auto"`` is one of counts.

    Raises
    ------
    InputError
        It has no components, or they may be negative.
    NotFittedError
        It was not fitted.
    """
    if not hasattr(model, "_require_fitted"):
        raise InputError(
            f"uncertainty of a {type(model).__name__}: a fitted model is expected",
            hint="give what fit(cube) returns, as in em.uncertainty(em.MiniBatchNMF(3).fit(cube), cube)",
        )
    model._require_fitted()
    found = getattr(model, "components_", None)
    values = None if found is None else _over_used_channels(model.axes_, np.asarray(found, float))
    if values is None or not np.isfinite(values).all() or values.min() < 0.0:
        raise InputError(
            f"uncertainty of a {type(model).__name__}: components that are not negative are expected, got "
            + ("none" if values is None else f"a smallest value of {np.nanmin(values):.3g}"),
            hint="unmix with em.MiniBatchNMF; how far principal components can be trusted is what "
            "em.estimate_n_components says",
        )
    totals = getattr(model, "component_totals_", None)
    gain = float(getattr(model, "gain_", 1.0))
    return Fitted(
        values / values.sum(axis=1, keepdims=True),
        np.full(len(values), np.nan) if totals is None else np.asarray(totals, float) / gain,
        _loss_of(model, cube),
        model.axes_,
        gain,
        int(getattr(model, "pool_", 1)),
        bool(getattr(model, "sum_to_one", False)),
        model.get_params() if isinstance(model, MiniBatchNMF) else None,
    )


def _loss_of(model: Any, cube: Any) -> Loss:
    """The loss that a model has, or that its noise asks for."""
    from emcube.models.mixing import MixingModel, loss_of

    if isinstance(model, MixingModel):
        return model._loss()
    if hasattr(model, "beta_loss") or not hasattr(model, "noise"):
        return resolve_loss(getattr(model, "beta_loss", "kullback-leibler"))
    return loss_of(model.noise, np.dtype(np.uint8) if cube is None else dtype_of(cube))


def _over_used_channels(labels: Labels, values: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = values.reshape(len(values), -1)
    return np.asarray(labels.used_channels(flat), dtype=np.float64)


# ------------------------------------------------------------------------------------------ passes


@dataclass(frozen=True, eq=False)
class Information:
    """Sums over pixels: information on the components, loadings, squares of what is left."""

    triangle: NDArray[np.float64]
    loadings: NDArray[np.float64]
    misfit: float
    n_pixels: int

    def __add__(self, other: Information) -> Information:
        return Information(
            self.triangle + other.triangle,
            self.loadings + other.loadings,
            self.misfit + other.misfit,
            self.n_pixels + other.n_pixels,
        )


@dataclass(frozen=True, eq=False)
class InformationSweep:
    """What all pixels say about the components, loadings known, in one round.

    For counts the lower triangle of J for each channel; for least squares that of H'H, the same in all.
    """

    loss: Loss
    components: NDArray[np.float64]
    totals: NDArray[np.float64]
    name: str = "uncertainty (information)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> Information:
        """Sums of one block."""
        self.loss.check(block)
        k = len(self.components)
        rows, columns = np.tril_indices(k)
        if not self.loss.counts:
            found = self.loss.evaluate(block.data, self.components)
            gram = found.gram[rows, columns][:, None]
            return Information(gram, found.loadings, found.divergence, block.n_pixels)
        loadings = self.loss.loadings(block.data, self.components)
        half = HALF / np.maximum(self.totals, HALF)[:, None]
        triangle = component_information(loadings, self.components + half)
        return Information(triangle, loadings.sum(axis=0), 0.0, block.n_pixels)

    def combine(self, a: Information, b: Information) -> Information:
        """Add."""
        return a + b

    def step(
        self, state: Any, statistic: Information, round_number: int
    ) -> tuple[Information, bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        k = len(self.components)
        return 8 * n_channels * (k * (k + 1) // 2)


@dataclass(frozen=True, eq=False)
class TotalsSweep:
    """Sum of the loadings of given components, in one round."""

    loss: Loss
    components: NDArray[np.float64]
    name: str = "uncertainty (loadings)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> NDArray[np.float64]:
        """Sums of one block."""
        self.loss.check(block)
        return np.asarray(self.loss.loadings(block.data, self.components).sum(axis=0))

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add."""
        return a + b

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True


def component_errors(
    fitted: Fitted, found: Information
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Noise of a value, covariance (E, K, K) and variance (K, E) of the components."""
    k, n_channels = fitted.components.shape
    noise = 1.0
    triangle = found.triangle
    if not fitted.loss.counts:
        free = max(1, found.n_pixels * (n_channels - k))
        noise = max(fitted.loss.noise(found.misfit, free), np.finfo(float).tiny)
        triangle = np.repeat(triangle, n_channels, axis=1) / noise
    return (noise, *component_shares(unpacked(triangle, k), fitted.components))


def information_of(fitted: Fitted, source: BlockSource) -> tuple[Fitted, Information]:
    """Sum up what all pixels say about the components, and fill in totals that the model does not tell."""
    if not np.isfinite(fitted.totals).all():
        totals = run_sweep(TotalsSweep(fitted.loss, fitted.components), source).state
        fitted = replace(fitted, totals=totals)
    sweep = InformationSweep(fitted.loss, fitted.components, fitted.totals)
    return fitted, run_sweep(sweep, source).state
