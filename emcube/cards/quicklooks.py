"""What a cube looks like where that costs next to nothing: from its store's quicklooks, or if it is small."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.errors import EmcubeError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = [
    "SIDE",
    "SMALL",
    "counts_per_pixel",
    "flat_image",
    "in_memory",
    "store_of",
    "total_counts",
]

SMALL = 64 * 2**20
"""Bytes of a cube in memory that is summed to be shown."""

SIDE = 256
"""Pixels of the longer side of an image that are shown, about."""


def total_counts(cube: xr.DataArray, *, whole: bool = False) -> xr.DataArray | None:
    """Total counts of each pixel where they cost next to nothing, else None.

    Parameters
    ----------
    cube : DataArray
    whole : bool
        In full; else in the resolution of a picture where the store has that.
    """
    from emcube.cube import nav_dims

    if not nav_dims(cube):
        return None
    if cube.nbytes <= SMALL and in_memory(cube):
        return cube.em.total_counts()  # type: ignore[no-any-return]
    return _kept(cube, whole)


def in_memory(cube: xr.DataArray) -> bool:
    """Whether the values lie in memory: as an array, or as views of one that `make_cube` was given."""
    values: Any = cube.variable._data
    if isinstance(values, np.ndarray):
        return True
    name = getattr(values, "name", None)
    if not isinstance(name, str) or not name.startswith("make_cube-"):
        return False
    return isinstance(next(iter(values.dask.values()), None), np.ndarray)


def store_of(cube: xr.DataArray) -> str | None:
    """The store on this machine that a cube was opened from as it is; None for all others."""
    from emcube.addresses import is_url
    from emcube.store import is_store, open_cube

    place = cube.encoding.get("source")
    try:
        if not isinstance(place, str) or is_url(place) or not is_store(place):
            return None
        kept = open_cube(place)
    except (EmcubeError, OSError):
        return None  # removed or damaged since
    # What was computed from it may still say where it came from, and so may a companion.
    name = getattr(cube.data, "name", None)
    same = name is not None and name == getattr(kept.data, "name", "") and cube.dims == kept.dims
    return place if same else None


def _kept(cube: xr.DataArray, whole: bool) -> xr.DataArray | None:
    """The quicklook of the store that a whole cube was opened from."""
    from emcube.store import open_cube
    from emcube.store.quicklook import TOTAL_COUNTS

    place = store_of(cube)
    if place is None:
        return None
    try:
        full = open_cube(place, TOTAL_COUNTS)
        longest = max(full.shape[-2:], default=0)
        if whole or longest <= 2 * SIDE:
            return full
        return open_cube(place, f"{TOTAL_COUNTS}_{2 ** math.ceil(math.log2(longest / (2 * SIDE)))}")
    except (EmcubeError, OSError):
        # Without the quicklook the card is still a card; verifying the store tells of damage.
        return None


def counts_per_pixel(cube: xr.DataArray) -> float | None:
    """Mean of the total counts, where they cost next to nothing; of counts only."""
    if cube.dtype.kind not in "ui" and cube.attrs.get("units") != "counts":
        return None
    found = total_counts(cube, whole=True)
    if found is None or found.size == 0:
        return None
    mean = float(np.nanmean(found.values.astype(np.float64)))
    return mean if math.isfinite(mean) else None


def flat_image(values: NDArray[Any]) -> NDArray[np.float64] | None:
    """Two dims of an array: of further ones the middle, of a tilt series the best; thinned to a picture."""
    while values.ndim > 2:
        values = values[values.shape[0] // 2]
    if values.ndim < 2 or not values.size:
        return None
    step = max(1, -(-max(values.shape) // SIDE))
    return np.asarray(values[::step, ::step], dtype=np.float64)
