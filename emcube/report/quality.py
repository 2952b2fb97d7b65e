"""How well a model describes what was measured, as far as its result alone can tell.

The misfit here is a deviance over the whole; `emcube.results.quality` has the chi-square of each pixel.

Letters: P pixels, E channels, K components.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.kernels.misfit import expected_misfit
from emcube.results.kinds import PARTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.results import Result

__all__ = ["Quality", "expected_misfit", "quality_of", "sum_residual"]

SAMPLE = 40_000
"""Pixels (or tiles) over which the expected misfit is summed."""


@dataclass(frozen=True)
class Quality:
    """Agreement of a non-negative model with counts.

    Attributes
    ----------
    misfit : float
        What the fit ended with: half the Poisson deviance, in nats.
    expected : float
        What counting noise alone would leave of it, less half a nat for each loading that was fitted.
    scatter : float
        Standard deviation of the misfit over repeated measurements, and over samples where one was taken.
    sampled : bool
        The expectation comes from a part of the pixels.
    """

    misfit: float
    expected: float
    scatter: float
    sampled: bool

    @property
    def ratio(self) -> float:
        """Misfit over expectation: 1 where the noise explains all that is left."""
        return self.misfit / self.expected

    @property
    def is_noise(self) -> bool:
        """Whether nothing is left that counting noise would not leave: within 5 % or three deviations."""
        return self.misfit <= max(1.05 * self.expected, self.expected + 3.0 * self.scatter)


def quality_of(result: Result, step: str) -> Quality | None:
    """Hold the misfit of an NMF against that of counting noise.

    Parameters
    ----------
    result : Result
        Complete.
    step : str
        Name of a step of NMF.

    Returns
    -------
    Quality or None
        None where the cube does not hold counts, the loss is not that of counts, or so many values were
        fitted to so few counts that the misfit says nothing.

    Notes
    -----
    One pass over the loadings, which are read in strides. Tiles begin at the edge of the map here and at
    the edges of blocks in the fit, which changes the sum by less than its own scatter. The same result
    gives the same numbers.
    """
    node = result[step]
    parameters = node.attrs["parameters"]
    cube = result.provenance["cube"]
    if (
        "loadings" not in node
        or parameters.get("beta_loss") != "kullback-leibler"
        or np.dtype(cube["dtype"]).kind not in "ui"
    ):
        return None
    components = np.nan_to_num(node["components"].values.astype(np.float64))
    components = components.reshape(len(components), -1)
    loadings, share = _sample(node["loadings"], int(node.attrs.get("pool", 1)))
    if loadings.size == 0 or loadings.sum() <= 0:
        return None
    mean = variance = 0.0
    for part in np.array_split(loadings, max(1, len(loadings) // 2000)):
        one, square = expected_misfit(part @ components)
        mean, variance = mean + float(one.sum()), variance + float(square.sum())
    fitted = int(np.count_nonzero(loadings > 1e-6 * loadings.max()))
    free = int(np.count_nonzero(components > 0))
    if mean / share < 5.0 * 0.5 * (fitted / share + free):
        return None
    # Of the components nothing is taken off: a fit that stops early has hardly followed their noise.
    return Quality(
        misfit=float(node["objective"]),
        expected=(mean - 0.5 * fitted) / share,
        scatter=math.sqrt(variance) / share,
        sampled=share < 1.0,
    )


def _sample(maps: xr.DataArray, side: int) -> tuple[NDArray[np.float64], float]:
    """Loadings of some pixels, or sums over tiles as the fit saw them; and which share of all they are."""
    from emcube.models.nmf_start import tile_of

    nav = tuple(str(d) for d in maps.dims if d != "component")
    tile = dict(zip(nav, tile_of(nav, side), strict=True))
    pooled = maps.drop_vars(list(maps.coords)).fillna(0.0)
    if side > 1:
        pooled = pooled.coarsen(tile, boundary="pad").sum()
    total = math.prod(pooled.sizes[d] for d in nav)
    # A stride that shares no factor with the rows would alias less, but needs every value read.
    stride = max(1, math.ceil((total / SAMPLE) ** (1 / max(len(nav), 1))))
    some = pooled.isel(
        {d: slice((min(stride, pooled.sizes[d]) - 1) // 2, None, stride) for d in nav}
    )
    values = np.asarray(some.transpose(*nav, "component").compute().values, dtype=np.float64)
    values = values.reshape(-1, values.shape[-1])
    whole = np.asarray(pooled.sum(nav).compute().values).sum() if stride > 1 else values.sum()
    # By counts, not by pixels: the misfit grows with them.
    return values, float(values.sum() / whole) if whole > 0 else 1.0


def sum_residual(result: Result, step: str) -> dict[str, Any] | None:
    """Compare the sum over all pixels with that of the model.

    Returns
    -------
    dict or None
        ``measured`` and ``model`` (E,); ``residual``, their difference over the root of the model, so in
        standard errors where the cube holds counts; ``scatter``, its root mean square over channels that hold
        20 counts or more, ideally one or less; ``share``, the total of the model over the measured one.
    """
    node = result[step]
    if result.verb(step) not in PARTS or "input" not in result:
        return None
    components = node["components"].values.astype(np.float64)
    components = components.reshape(len(components), -1)
    measured = result["input"]["sum_spectrum"].values.astype(np.float64).reshape(-1)
    model = node["component_totals"].values.astype(np.float64) @ components
    if model.shape != measured.shape:
        return None
    with np.errstate(invalid="ignore"):
        residual = np.where(
            model > 0, (measured - model) / np.sqrt(np.maximum(model, 1e-300)), np.nan
        )
    full = np.isfinite(residual) & (model >= 20.0)
    used = np.isfinite(model)
    whole = float(measured[used].sum())
    return {
        "measured": measured,
        "model": model,
        "residual": residual,
        "scatter": float(np.sqrt(np.mean(residual[full] ** 2))) if full.any() else math.nan,
        "share": float(model[used].sum()) / whole if whole else math.nan,
        "full": full,
    }
