"""What a user asks of NMF besides the likelihood, put together for one fit.

Letters: E used channels, K components, M features of a basis, C known components.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError
from emcube.models.fields import FIELD
from emcube.models.given import known_spectra, replaced
from emcube.models.labels import as_source
from emcube.models.nmf_gain import in_counts
from emcube.models.nmf_penalties import (
    Anchors,
    CoupledState,
    CoupledSweep,
    PenalisedLoss,
    Penalties,
    SmoothSolve,
    map_smoothly,
    penalties_of,
    solve_anchors,
)
from emcube.models.nmf_start import Sketch, spatial_dims
from emcube.models.nmf_structure import StructuredLoss
from emcube.models.xray_features import basis_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource
    from emcube.models.labels import Labels
    from emcube.models.nmf_losses import Loss
    from emcube.models.nmf_sweeps import PassState, PassSweep

__all__ = ["Variant", "check_variant", "variant_of", "variant_words"]

NAMES = ("known", "basis", "sparsity", "smoothness")
"""Parameters of `MiniBatchNMF` that make it another model."""


@dataclass(frozen=True, eq=False)
class Variant:
    """What one fit was asked for; nothing by default.

    Attributes
    ----------
    known : ndarray, shape (C, E), or None
    basis : ndarray, shape (M, E), or None
    features : tuple of str
        Names of the basis.
    penalties : Penalties
        In the units of the loss.
    dims : tuple of int
        Navigation dims of the image.
    """

    known: NDArray[np.float64] | None = None
    basis: NDArray[np.float64] | None = None
    features: tuple[str, ...] = ()
    penalties: Penalties = field(default_factory=Penalties)
    dims: tuple[int, ...] = ()

    @property
    def n_known(self) -> int:
        """C."""
        return 0 if self.known is None else len(self.known)

    @property
    def smooth(self) -> bool:
        """Whether pixels are coupled."""
        return self.penalties.smoothness > 0.0

    def solving(self, loss: Loss) -> Loss:
        """The loss by which loadings of single pixels are solved."""
        return PenalisedLoss(loss, self.penalties) if self.penalties else loss

    def fitting(self, loss: Loss) -> Loss:
        """The loss of which passes step the numbers."""
        inner = self.solving(loss)
        if self.known is None:
            return inner
        return StructuredLoss(inner, self.known, self.basis)

    def numbers(self, loss: Loss, spectra: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is stepped, for spectra (K, E) to start from."""
        return loss.numbers(spectra) if isinstance(loss, StructuredLoss) else spectra

    def sweep(self, passes: PassSweep, source: BlockSource) -> PassSweep | CoupledSweep:
        """The passes, with pixels coupled where that is asked for."""
        return (
            CoupledSweep(passes, self.penalties, source.plan, self.dims) if self.smooth else passes
        )

    def started(
        self, first: NDArray[np.float64], scale: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Spectra to start from, with the known ones first."""
        return first if self.known is None else replaced(first, self.known, scale)

    def order(self, totals: NDArray[np.float64]) -> NDArray[np.int64]:
        """Known components in their order, then the others by their total loading."""
        c = self.n_known
        return np.concatenate((np.arange(c), c + np.argsort(-totals[c:], kind="stable")))

    def coefficients(
        self, numbers: NDArray[np.float64], order: NDArray[np.int64], *, plain: bool
    ) -> Any:
        """Shares (K, M) of the features in the components; NaN in known ones."""
        values = numbers.copy()
        values[: self.n_known] = np.nan
        values = values[order]
        if plain:
            return values
        return xr.DataArray(
            values,
            dims=("component", "feature"),
            coords={"component": np.arange(len(values)), "feature": list(self.features)},
            name="coefficients",
            attrs={"units": "1"},
        )


def passes_of(state: PassState | CoupledState) -> PassState:
    """State of the components' steps."""
    return state.passes if isinstance(state, CoupledState) else state


def check_variant(model: Any, *, counts: bool) -> None:
    """Refuse parameters that are out of range, or that do not go together.

    Raises
    ------
    InputError
    """
    for name in ("sparsity", "smoothness"):
        value = getattr(model, name)
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not number or not 0.0 <= value < np.inf:
            raise InputError(
                f"{name} must be a number from 0 on, got {value!r}", hint="0 asks for nothing"
            )
    if model.sum_to_one and not counts and (model.sparsity or model.smoothness):
        raise InputError(
            "sum_to_one with a penalty is there for counts, whose pixels say their own scale; this model "
            "is of least squares",
            hint="leave sum_to_one out and divide the loadings by their sum, or use emcube.MCRALS "
            "with closure=True",
        )
    if model.smoothness and model.pool not in ("auto", 1):
        raise InputError(
            f"smoothness takes the place of pooling, got smoothness={model.smoothness!r} with "
            f"pool={model.pool!r}",
            hint="leave pool out",
        )


def variant_words(parameters: Any) -> list[str]:
    """Names of the parameters, of a mapping or model, that make the model another one."""

    def given(name: str) -> Any:
        if isinstance(parameters, dict):
            return parameters.get(name)
        return getattr(parameters, name, None)

    return [name for name in NAMES if given(name) is not None and not _is_zero(given(name))]


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and value == 0


def variant_of(model: Any, labels: Labels) -> Variant:
    """Look at what a model is asked for, on this cube; penalties come when data are known.

    Raises
    ------
    InputError
        Known spectra or the basis do not fit the cube; smoothness is asked of what has no image.
    """
    words = variant_words(model)
    if not words:
        return Variant()
    known = basis = None
    features: list[str] = []
    if "known" in words or "basis" in words:
        known = known_spectra(model.known, labels, int(model.n_components))
        basis, features = basis_for(model.basis, labels)
    dims = () if labels.plain else tuple(spatial_dims(labels.nav_dims))
    if "smoothness" in words and FIELD in labels.nav_dims:
        raise InputError(
            "smoothness is one of a single image, got several cubes",
            hint="fit the cubes together without it, then each with known=model and smoothness",
        )
    if "smoothness" in words and not dims:
        what = "a bare matrix has none" if labels.plain else f"its dims are {labels.nav_dims}"
        raise InputError(
            f"smoothness needs pixels with neighbours: {what}",
            hint="pass a labelled cube with y and x (emcube.make_cube)",
        )
    return Variant(known, basis, tuple(features), dims=dims)


def with_penalties(
    variant: Variant, model: Any, loss: Loss, found: Sketch, first: NDArray[np.float64]
) -> Variant:
    """The variant with its penalties in the units of the loss.

    Parameters
    ----------
    found : Sketch
        Of the data in counts.
    first : ndarray, shape (K, E)
        Components that passes start from.
    """
    if not (model.sparsity or model.smoothness):
        return variant
    full = max(1, found.n_pixels - found.n_empty)
    left = found.square - float(found.eigenvalues[: len(first)].sum())
    free = max(1, found.n_pixels * (found.totals.size - len(first)))
    penalties = penalties_of(
        loss,
        float(model.sparsity),
        float(model.smoothness),
        closed=bool(model.sum_to_one),
        counts_per_pixel=float(found.totals.sum()) / full,
        noise=max(left, 0.0) / free,
        length=float(np.square(first).sum(axis=1).mean()),
    )
    return replace(variant, penalties=penalties)


# --------------------------------------------------------------------------------------------- maps


def anchors_of(
    variant: Variant,
    source: BlockSource,
    loss: Loss,
    spectra: NDArray[np.float64],
    gain: float,
    first: dict[int, Any] | None = None,
) -> Anchors:
    """What blocks of a source of the user's values have to know of each other."""
    counted = in_counts(source, gain)
    return solve_anchors(
        counted, variant.dims, loss, spectra, variant.penalties, source.token, first
    )


def smooth_solve(model: Any, loss: Loss, anchors: Anchors) -> SmoothSolve:
    """Function of blocks that gives smooth loadings."""
    return SmoothSolve(
        loss,
        model._values,
        model._variant.penalties,
        anchors,
        bool(model.sum_to_one),
        model.gain_,
    )


def smooth_map(
    model: Any,
    loss: Loss,
    X: Any,
    pick: Callable[[Any], Callable[[Block], NDArray[Any]]],
    trailing: tuple[int, ...],
    where: Any,
) -> Any:
    """Answers (nav..., *trailing) for the pixels of X.

    Parameters
    ----------
    pick : callable
        Takes one answer of the function of blocks.
    """
    source, labels = as_source(X, where, channels=model.axes_.channels)
    if labels.plain or tuple(spatial_dims(labels.nav_dims)) != model._variant.dims:
        raise InputError(
            "smooth maps need the image of the fit: "
            + ("a bare matrix has none" if labels.plain else f"its dims are {labels.nav_dims}"),
            hint="pass a labelled cube with the navigation dims of the fit",
        )
    anchors = model._anchors
    if source.token != anchors.token:
        # Another cube, or other pixels of it: its blocks come to terms first.
        anchors = anchors_of(model._variant, source, loss, model._values, model.gain_)
    return map_smoothly(source, pick(smooth_solve(model, loss, anchors)), trailing)
