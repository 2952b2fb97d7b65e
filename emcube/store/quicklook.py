"""Quicklooks of a cube: total counts of each pixel, sum spectrum, and a pyramid of the former.

They are summed while the cube is written, so that showing a cube never reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "PYRAMID_MIN",
    "SUM_SPECTRUM",
    "TOTAL_COUNTS",
    "SpectrumSum",
    "add_to_spectrum",
    "bin_by_two",
    "pyramid",
    "sum_dtype",
    "total_counts",
]

TOTAL_COUNTS = "total_counts"
SUM_SPECTRUM = "sum_spectrum"
#: The pyramid ends at the level whose longer side is no longer than this.
PYRAMID_MIN = 64

#: uint8 values that fit into a uint16 when summed: NumPy adds narrow accumulators twice as fast.
_NARROW_ROWS = 256


def sum_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Accumulator for values of a dtype: uint64 or int64 for integers, float64 else.

    Narrower ones lose counts: a uint8 cube overflows at once, a float32 sum stops at 2^24.
    """
    if dtype.kind in "ub":
        return np.dtype(np.uint64)
    return np.dtype(np.int64) if dtype.kind == "i" else np.dtype(np.float64)


def total_counts(block: NDArray[Any], n_sig: int) -> NDArray[Any]:
    """Sum over the signal dims.

    Missing values (NaN) count as nothing; a pixel of nothing else is NaN.

    Parameters
    ----------
    block : ndarray, shape (nav..., sig...)
    n_sig : int
        Number of signal dims.

    Returns
    -------
    ndarray, shape (nav...)
    """
    nav = block.shape[: block.ndim - n_sig]
    rows = block.reshape(math.prod(nav), -1)
    sums = rows.sum(axis=1, dtype=sum_dtype(block.dtype))
    if block.dtype.kind == "f":
        broken = np.flatnonzero(np.isnan(sums))
        if broken.size:
            part = rows[broken]
            filled = np.nansum(part, axis=1, dtype=np.float64)
            sums[broken] = np.where(np.isnan(part).all(axis=1), np.nan, filled)
    totals: NDArray[Any] = sums.reshape(nav)
    return totals


@dataclass(eq=False)
class SpectrumSum:
    """Running sum over pixels, and which channels had a value at all.

    Attributes
    ----------
    total : ndarray, shape (sig...)
    seen : ndarray of bool, shape (sig...)
    """

    total: NDArray[Any]
    seen: NDArray[np.bool_]

    @classmethod
    def zeros(cls, sig_shape: tuple[int, ...], dtype: np.dtype[Any]) -> SpectrumSum:
        """Nothing summed yet, for values of `dtype`."""
        return cls(np.zeros(sig_shape, sum_dtype(dtype)), np.zeros(sig_shape, bool))

    def add(self, other: SpectrumSum) -> None:
        """Add another sum to this one."""
        self.total += other.total
        self.seen |= other.seen

    def values(self) -> NDArray[Any]:
        """The sum spectrum; NaN where a channel had no value anywhere."""
        if self.total.dtype.kind == "f":
            return np.where(self.seen, self.total, np.nan)
        return self.total


def add_to_spectrum(
    spectrum: SpectrumSum, block: NDArray[Any], n_sig: int, where: tuple[slice, ...]
) -> None:
    """Add the pixels of a block to a sum.

    Parameters
    ----------
    spectrum : SpectrumSum
    block : ndarray, shape (nav..., sig...)
    n_sig : int
        Number of signal dims.
    where : tuple of slice
        The channels that the block holds.
    """
    sig_shape = block.shape[block.ndim - n_sig :]
    rows = block.reshape(math.prod(block.shape[: block.ndim - n_sig]), -1)
    if block.dtype == np.uint8:
        total = np.zeros(rows.shape[1], np.uint64)
        for start in range(0, rows.shape[0], _NARROW_ROWS):
            total += rows[start : start + _NARROW_ROWS].sum(axis=0, dtype=np.uint16)
    else:
        total = rows.sum(axis=0, dtype=sum_dtype(block.dtype))
    seen = np.ones(rows.shape[1], bool)
    if block.dtype.kind == "f":
        broken = np.flatnonzero(np.isnan(total))
        if broken.size:
            part = rows[:, broken]
            total[broken] = np.nansum(part, axis=0, dtype=np.float64)
            seen[broken] = ~np.isnan(part).all(axis=0)
    spectrum.total[where] += total.reshape(sig_shape)
    spectrum.seen[where] |= seen.reshape(sig_shape)


def bin_by_two(image: xr.DataArray, dims: tuple[str, ...], level: int) -> xr.DataArray:
    """Sum pairs of pixels along `dims`; a last odd one stays alone, so that nothing is lost.

    Parameters
    ----------
    image : xarray.DataArray
        One level; `dims` are its dims of that level.
    dims : tuple of str
        Dims to halve.
    level : int
        Binning of the result against the full image: 2, 4, ...; its dims are called ``x_2``, ``x_4``.

    Returns
    -------
    xarray.DataArray
        Coordinates are the means of what was summed.
    """
    import xarray as xr

    values = image.values
    coords: dict[str, Any] = {}
    names: dict[str, str] = {}
    for dim in dims:
        axis = image.dims.index(dim)
        starts = np.arange(0, image.sizes[dim], 2)
        values = np.add.reduceat(values, starts, axis=axis)
        names[dim] = f"{dim.rsplit('_', 1)[0] if level > 2 else dim}_{level}"
        if dim in image.coords and image.coords[dim].dtype.kind in "iuf":
            axis_values = image.coords[dim].values.astype(np.float64)
            counts = np.diff(np.append(starts, axis_values.size))
            coords[names[dim]] = (
                (names[dim],),
                np.add.reduceat(axis_values, starts) / counts,
                dict(image.coords[dim].attrs),
            )
    for other in image.dims:
        if other not in dims and other in image.coords:
            coords[str(other)] = image.coords[other].variable
    new_dims = [names.get(str(dim), str(dim)) for dim in image.dims]
    return xr.DataArray(values, dims=new_dims, coords=coords, attrs=dict(image.attrs))


def pyramid(image: xr.DataArray) -> dict[str, xr.DataArray]:
    """Halve the last two dims of an image again and again, down to a thumbnail.

    Returns
    -------
    dict
        ``{"total_counts_2": ..., "total_counts_4": ...}``; empty for a small image.
    """
    levels: dict[str, xr.DataArray] = {}
    dims = tuple(str(dim) for dim in image.dims[-2:])
    level = 2
    while dims and max(image.sizes[dim] for dim in dims) > PYRAMID_MIN:
        image = bin_by_two(image, dims, level)
        dims = tuple(str(dim) for dim in image.dims[-len(dims) :])
        levels[f"{TOTAL_COUNTS}_{level}"] = image
        level *= 2
    return levels
