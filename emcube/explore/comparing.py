"""Match the components of two outcomes by their spectra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emcube.errors import InputError
from emcube.explore.outcomes import Outcome, has_signs, spectra_of

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["Comparison", "Pair", "compare_spectra"]


@dataclass(frozen=True)
class Pair:
    """A component of each outcome that belong together.

    Attributes
    ----------
    first, second : int
        Their numbers, from 0.
    angle : float
        Between their spectra, degrees: weighted as Poisson noise asks (see `Comparison`).
    """

    first: int
    second: int
    angle: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Components of two outcomes, matched so that the sum of the angles is smallest.

    Attributes
    ----------
    first, second : Outcome
    first_step, second_step : str
    pairs : tuple of Pair
        In the order of the first outcome's components.
    first_alone, second_alone : tuple of int
        Components without a partner, where one outcome has more.
    angles : ndarray, shape (K1, K2)
        Of every component of the first with every one of the second, degrees.
    n_channels : int
        Channels that both have, on which they were compared.

    Notes
    -----
    Spectra are divided by the square root of the data's mean spectrum before the angle is taken (Keenan and
    Kotula, Surf. Interface Anal. 36 (2004) 203, https://doi.org/10.1002/sia.1657): a plain angle does not see
    minor elements. Components of either sign (PCA, ICA) may be turned round: of the angle and 180 degrees
    minus it the smaller counts.
    """

    first: Outcome
    second: Outcome
    first_step: str
    second_step: str
    pairs: tuple[Pair, ...]
    first_alone: tuple[int, ...]
    second_alone: tuple[int, ...]
    angles: NDArray[np.float64]
    n_channels: int


def compare_spectra(
    first: Outcome, second: Outcome, step: str | tuple[str, str] | None
) -> Comparison:
    """Match the components of two outcomes; see `Comparison`.

    Raises
    ------
    InputError
        They have no such step, or no channel in common.
    """
    from scipy.optimize import linear_sum_assignment

    one, other = _steps(first, second, step)
    a, b = spectra_of(first, one), spectra_of(second, other)
    a, b = _on_one_axis(a, b)
    weights = _mean_like(first, a)
    unsigned = has_signs(a) or has_signs(b)
    angles = _angles(_rows(a), _rows(b), weights, unsigned)
    rows, columns = linear_sum_assignment(angles)
    pairs = tuple(
        Pair(int(i), int(j), float(angles[i, j])) for i, j in zip(rows, columns, strict=True)
    )
    return Comparison(
        first, second, one, other, pairs,
        tuple(sorted(set(range(a.shape[0])) - set(map(int, rows)))),
        tuple(sorted(set(range(b.shape[0])) - set(map(int, columns)))),
        angles,
        _rows(a).shape[1],
    )  # fmt: skip


def _steps(first: Outcome, second: Outcome, step: str | tuple[str, str] | None) -> tuple[str, str]:
    if isinstance(step, tuple):
        return step
    if step is not None:
        return step, step
    both = [s for s in first.steps if s in second.steps]
    if not both:
        raise InputError(
            f"compare: {first.label!r} and {second.label!r} have no step in common: {first.steps} and "
            f"{second.steps}",
            hint="name a step of each",
        )
    return both[-1], both[-1]


def _on_one_axis(a: xr.DataArray, b: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both on the channels of the coarser one, as far as both have them.

    Where the axes differ (a window, or a preview's wider channels) the finer one is interpolated: a spectrum
    per channel changes its scale with the channel's width, but not its angle.
    """
    sig = a.dims[1:]
    if sig != b.dims[1:]:
        raise InputError(
            f"compare: the signal dims are {sig} and {b.dims[1:]}, expected the same",
            hint="compare outcomes of one cube",
        )
    for dim in map(str, sig):
        x, y = (np.asarray(s[dim].values, dtype=np.float64) for s in (a, b))
        if np.array_equal(x, y):
            continue
        low, high = max(x.min(), y.min()), min(x.max(), y.max())
        coarse = x if _step(x) >= _step(y) else y
        common = coarse[(coarse >= low) & (coarse <= high)]
        if common.size == 0:
            raise InputError(
                f"compare: {dim} goes from {x.min():g} to {x.max():g} in one and from {y.min():g} to "
                f"{y.max():g} in the other, with no channel in common",
                hint="compare outcomes of one window",
            )
        a, b = (s.interp({dim: common}) for s in (a, b))
    return a, b


def _step(axis: NDArray[np.float64]) -> float:
    return float(np.abs(np.diff(axis)).mean()) if axis.size > 1 else 0.0


def _rows(spectra: xr.DataArray) -> NDArray[np.float64]:
    values = np.asarray(spectra.values, dtype=np.float64)
    return values.reshape(values.shape[0], -1)


def _mean_like(outcome: Outcome, spectra: xr.DataArray) -> NDArray[np.float64]:
    """Mean spectrum of the data on the channels of `spectra`; ones where the data have none above zero."""
    mean = outcome.result["input"]["sum_spectrum"].load()
    if set(spectra.dims[1:]) != set(mean.dims):
        # Clusters of loadings: their axis is the components of another step.
        return np.ones(spectra[0].size)
    for dim in map(str, spectra.dims[1:]):
        if not np.array_equal(mean[dim].values, spectra[dim].values):
            mean = mean.interp({dim: spectra[dim].values})
    values = np.asarray(mean.values, dtype=np.float64).reshape(-1)
    return values if (values > 0).any() else np.ones_like(values)


def _angles(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    weights: NDArray[np.float64],
    unsigned: bool,
) -> NDArray[np.float64]:
    from emcube.scenes.metrics import kk_angle

    angles = np.array([[kk_angle(f, g, weights) for g in b] for f in a])
    return np.minimum(angles, 180 - angles) if unsigned else angles
