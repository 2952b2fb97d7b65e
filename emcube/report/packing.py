"""Arrays small enough for a page: thinned to a budget, quantised, compressed, written as text."""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEVELS", "Thinning", "axis_values", "pack", "plan_thinning", "thin"]

LEVELS = 65534
"""Steps between the least and the largest value of a quantised map; one more code means "no value"."""

LEAST_IMAGE = 128 * 128
"""Pixels that an image keeps, where it has them, before images of a series are left out."""

LEAST_FRAMES = 5
"""Images of a series that are kept, where it has them, before each is made coarser."""


@dataclass(frozen=True)
class Thinning:
    """Which part of maps is shown.

    Attributes
    ----------
    image : tuple of str
        Dims of one image; one for a line scan, none for a single spectrum.
    leading : tuple of str
        The dims before.
    sizes : dict
        Of the navigation dims.
    frames : tuple of int
        Images shown, as flat numbers over the leading dims.
    factor : int
        Side of the squares of pixels that are shown as one.
    """

    image: tuple[str, ...]
    leading: tuple[str, ...]
    sizes: dict[str, int]
    frames: tuple[int, ...]
    factor: int

    @property
    def n_frames(self) -> int:
        """All images there are."""
        return math.prod(self.sizes[d] for d in self.leading)

    @property
    def note(self) -> str:
        """Say what was left out; empty where nothing was."""
        said = []
        if len(self.frames) < self.n_frames:
            said.append(f"{len(self.frames)} of {self.n_frames:,} positions are in this file")
        if self.factor > 1:
            side = f"{self.factor} × {self.factor}" if len(self.image) == 2 else str(self.factor)
            said.append(f"each point is {side} pixels")
        return "; ".join(said)


def plan_thinning(sizes: dict[str, int], n_maps: int, budget: int) -> Thinning:
    """Choose images and resolution so that `n_maps` maps together keep to a number of values.

    Images of a series are left out first, evenly, then neighbouring pixels are taken together.

    Parameters
    ----------
    sizes : dict
        Navigation dims in their order and their lengths.
    n_maps : int
        Maps that will be shown.
    budget : int
        Values of all of them.
    """
    dims = tuple(sizes)
    leading, image = dims[:-2], dims[-2:]
    pixels = math.prod(sizes[d] for d in image)
    n_frames = math.prod(sizes[d] for d in leading)
    each = budget / max(n_maps, 1)
    fitting = int(each / min(pixels, LEAST_IMAGE))
    kept = min(n_frames, max(fitting, LEAST_FRAMES))
    factor = 1
    while kept * math.prod(-(-sizes[d] // factor) for d in image) > each and factor < max(
        (sizes[d] for d in image), default=1
    ):
        factor += 1
    frames = np.unique(np.round(np.linspace(0, n_frames - 1, kept)).astype(int))
    return Thinning(image, leading, dict(sizes), tuple(frames.tolist()), factor)


def thin(
    maps: xr.DataArray, plan: Thinning, how: Literal["mean", "nearest"] = "mean"
) -> NDArray[np.float64]:
    """Take the part of maps that is shown, reading no more than that needs.

    Parameters
    ----------
    maps : DataArray
        Navigation dims, and ``component`` last where there are several; lazy or not.
    plan : Thinning
    how : {"mean", "nearest"}
        Mean of the pixels that have a value, or the middle one (labels have no mean).

    Returns
    -------
    ndarray of shape (frames, image dims..., [component])
        NaN where there is no value.
    """
    parts = []
    lengths = tuple(plan.sizes[d] for d in plan.leading)
    for flat in plan.frames:
        at = np.unravel_index(flat, lengths) if lengths else ()
        where = {d: int(i) for d, i in zip(plan.leading, at, strict=True)}
        parts.append(_coarse(maps.isel(where, drop=True), plan, how))
    values = xr.concat(parts, dim="frame").transpose("frame", *plan.image, ...)
    return np.asarray(values.compute().values, dtype=np.float64)


def _coarse(image: xr.DataArray, plan: Thinning, how: str) -> xr.DataArray:
    image = image.drop_vars(list(image.coords))
    f = plan.factor
    if f == 1 or not plan.image:
        return image
    if how == "nearest":
        return image.isel({d: _middles(plan.sizes[d], f) for d in plan.image})
    windows = dict.fromkeys(plan.image, f)
    there = image.notnull()
    total = image.where(there, 0.0).astype(np.float64).coarsen(windows, boundary="pad").sum()
    number = there.astype(np.float64).coarsen(windows, boundary="pad").sum()
    return total / number.where(number > 0)


def _middles(n: int, factor: int) -> NDArray[np.int64]:
    """Position of the middle of each group of neighbours; as many as there are groups."""
    return np.minimum(np.arange(0, n, factor) + factor // 2, n - 1)


def pack(
    values: NDArray[Any], kind: Literal["number", "map", "label"] = "number"
) -> dict[str, Any]:
    """Write an array as text that a browser unpacks.

    Parameters
    ----------
    values : ndarray
    kind : {"number", "map", "label"}
        Single precision; or `LEVELS` steps between least and largest value, NaN being the last code; or
        whole numbers from -1 (none) to 65533.

    Returns
    -------
    dict
        ``dtype`` ("f4", "u2"), ``shape``, ``low``, ``step``, and ``data``: base64 of gzip of the bytes, the
        first bytes of all values before the second ones, which compresses better. The same values give the
        same text.
    """
    array = np.asarray(values)
    low, step = 0.0, 1.0
    if kind == "number":
        stored = array.astype("<f4")
    elif kind == "label":
        low = -1.0
        stored = (array.astype(np.int64) + 1).astype("<u2")
    else:
        low, step = _levels(array)
        codes = np.full(array.shape, LEVELS + 1, dtype="<u2")
        there = np.isfinite(array)
        codes[there] = np.round((array[there] - low) / step)
        stored = codes
    planes = stored.reshape(-1).view(np.uint8).reshape(-1, stored.dtype.itemsize).T
    packed = gzip.compress(np.ascontiguousarray(planes).tobytes(), 9, mtime=0)
    return {
        "dtype": "f4" if kind == "number" else "u2",
        "shape": list(array.shape),
        "low": low,
        "step": step,
        "data": base64.b64encode(packed).decode("ascii"),
    }


def _levels(array: NDArray[Any]) -> tuple[float, float]:
    finite = array[np.isfinite(array)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return low, (high - low) / LEVELS if high > low else 1.0


def axis_values(data: xr.DataArray, dim: str, factor: int = 1) -> list[float] | list[str]:
    """Coordinates of a dim, of the middle of each point shown."""
    n = data.sizes[dim]
    values = np.asarray(data[dim].values) if dim in data.coords else np.arange(n)
    if values.dtype.kind not in "iuf":
        return [str(v) for v in values[:: max(factor, 1)]]
    ends: Sequence[int] = range(0, n, max(factor, 1))
    return [float(f"{float(values[i : i + factor].astype(np.float64).mean()):.7g}") for i in ends]
