"""Sums and bins of a cube that lose no counts."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any, Literal, cast

import numpy as np
import xarray as xr

from emcube.cube.schema import nav_dims, sig_dims
from emcube.errors import SelectionError

__all__ = ["bin_cube", "smoothed_counts", "sum_spectrum", "total_counts"]

Boundary = Literal["exact", "trim", "pad"]

#: Navigation dims along which neighbours are not alike in the way that neighbouring pixels are.
NOT_SPATIAL = frozenset({"tilt", "time", "t", "frame", "file", "dataset", "series"})


def sum_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype which sums of a cube are taken in: 64 bits, so that no count is lost."""
    return np.dtype({"u": np.uint64, "i": np.int64}.get(dtype.kind, np.float64))


def _total(cube: xr.DataArray, dims: tuple[str, ...]) -> xr.DataArray:
    # NumPy widens while it adds, in buffers of some KiB: the block is never copied in the wide dtype.
    return cube.sum(dims, dtype=sum_dtype(cube.dtype), keep_attrs=True)


def sum_spectrum(cube: xr.DataArray) -> xr.DataArray:
    """Sum over all navigation dims; lazily.

    Parameters
    ----------
    cube : xarray.DataArray

    Returns
    -------
    xarray.DataArray
        Over the signal dims, in 64 bits; NaN are left out, as Xarray does.
    """
    return _total(cube, nav_dims(cube))


def total_counts(cube: xr.DataArray) -> xr.DataArray:
    """Sum over all signal dims; lazily.

    Parameters
    ----------
    cube : xarray.DataArray

    Returns
    -------
    xarray.DataArray
        Over the navigation dims, in 64 bits; NaN are left out, as Xarray does.
    """
    return _total(cube, sig_dims(cube))


def smoothed_counts(
    cube: xr.DataArray, sigma: float = 1.5, dims: Iterable[str] | None = None
) -> xr.DataArray:
    """Smooth the total counts of pixels over their neighbours with a Gaussian; lazily.

    Pixels are chosen by this rather than by their own noisy totals: choosing pixels that happen to have
    many counts biases everything that is fitted to them.

    Parameters
    ----------
    cube : xarray.DataArray
    sigma : float
        Width of the Gaussian, in pixels; positive.
    dims : iterable of str, optional
        Navigation dims to smooth along; by default all but ``tilt``, ``time`` and the like.

    Returns
    -------
    xarray.DataArray
        Counts per pixel over the navigation dims, float64. Edges are mirrored.

    Raises
    ------
    SelectionError
        ``sigma`` is not positive or a dim is not a navigation dim.

    Notes
    -----
    One pass over the cube; then a whole image (8 bytes a pixel) is in memory for each position along
    the other dims.
    """
    nav = nav_dims(cube)
    chosen = tuple(d for d in nav if d not in NOT_SPATIAL) if dims is None else tuple(dims)
    wrong = [dim for dim in chosen if dim not in nav]
    if wrong:
        raise SelectionError(
            f"smoothed_counts: {wrong[0]!r} is not a navigation dim of the cube {nav}",
            hint="give navigation dims in dims=",
        )
    if not sigma > 0 or not math.isfinite(sigma):
        raise SelectionError(
            f"smoothed_counts: got sigma={sigma}, expected a positive number of pixels",
            hint="the default is 1.5",
        )
    return smoothed_totals(total_counts(cube).astype(np.float64), sigma, chosen)


def smoothed_totals(totals: xr.DataArray, sigma: float, dims: Iterable[str]) -> xr.DataArray:
    """Smooth totals that are there already.

    Parameters
    ----------
    totals : xarray.DataArray of float64
        Over the navigation dims.
    sigma : float
        Width of the Gaussian, in pixels.
    dims : iterable of str
        Dims to smooth along.
    """
    chosen = tuple(dims)
    if not chosen:
        return totals
    width = tuple(sigma if dim in chosen else 0.0 for dim in totals.dims)
    if not hasattr(totals.data, "dask"):
        return totals.copy(data=_gauss(totals.values, width))
    whole = totals.chunk(dict.fromkeys(chosen, -1)).data
    return totals.copy(data=whole.map_blocks(_gauss, width, dtype=np.float64, meta=whole._meta))


def _gauss(image: np.ndarray[Any, Any], sigma: tuple[float, ...]) -> np.ndarray[Any, Any]:
    from scipy.ndimage import gaussian_filter

    return cast("np.ndarray[Any, Any]", gaussian_filter(image, sigma, mode="reflect"))


# --- bins -----------------------------------------------------------------------------------------


def bin_cube(cube: xr.DataArray, boundary: Boundary = "exact", **factors: int) -> xr.DataArray:
    """Add up neighbouring pixels and channels; lazily.

    Parameters
    ----------
    cube : xarray.DataArray
    boundary : {"exact", "trim", "pad"}
        What to do with positions at the end of a dim that do not fill a bin: refuse (the default: no
        count is lost unnoticed), leave them out, or keep them as a last, smaller bin.
    **factors : int
        Positions to a bin, by dim, as ``y=2, x=2, energy=4``.

    Returns
    -------
    xarray.DataArray
        Sums. Integers get the smallest dtype that cannot overflow; floats are added in float64 and keep
        their dtype. Coordinates, and companion images, are means over the bins and keep their units.

    Raises
    ------
    SelectionError
        A factor is not a positive integer, a dim is missing, or (``"exact"``) a dim is not a multiple.

    Notes
    -----
    Coordinates of text along a binned dim have no mean and are dropped.
    """
    _check_factors(cube, factors, boundary)
    sizes = {dim: int(factor) for dim, factor in factors.items()}
    dtype = _binned_dtype(cube.dtype, math.prod(min(f, cube.sizes[d]) for d, f in sizes.items()))
    summed = _apply(cube.variable, sizes, boundary, "sum", dtype)
    coords: dict[Hashable, Any] = {}
    for name, coord in cube.coords.items():
        own = {dim: factor for dim, factor in sizes.items() if dim in coord.dims}
        if not own:
            coords[name] = coord.variable
        elif coord.dtype.kind in "iufb":
            coords[name] = _apply(
                coord.variable.to_base_variable(), own, boundary, "mean", np.dtype(np.float64)
            )
    return xr.DataArray(summed, coords=coords, name=cube.name)


def _check_factors(cube: xr.DataArray, factors: dict[str, int], boundary: str) -> None:
    if boundary not in ("exact", "trim", "pad"):
        raise SelectionError(
            f"bin: got boundary={boundary!r}, expected 'exact', 'trim' or 'pad'",
            hint="'exact' is the default",
        )
    if not factors:
        raise SelectionError(
            f"bin: no dim is given; the cube has {tuple(cube.dims)}",
            hint="for example cube.em.bin(y=2, x=2)",
        )
    for dim, factor in factors.items():
        if dim not in cube.dims:
            raise SelectionError(
                f"bin: {dim!r} is not a dim of the cube {tuple(cube.dims)}",
                hint="name one of those",
            )
        if not _is_count(factor):
            raise SelectionError(
                f"bin: got {dim}={factor!r}, expected a whole number of at least 1",
                hint=f"for example {dim}=2",
            )
        size, rest = cube.sizes[dim], cube.sizes[dim] % factor
        if boundary == "exact" and rest:
            raise SelectionError(
                f"bin: {dim!r} has {size} positions, {rest} more than a multiple of {factor}",
                hint=f"boundary='trim' leaves the last {rest} out, boundary='pad' keeps them as a "
                "smaller bin",
            )
        if boundary == "trim" and factor > size:
            raise SelectionError(
                f"bin: {dim!r} has {size} positions, fewer than one bin of {factor}",
                hint="take a smaller bin, or boundary='pad'",
            )


def _is_count(factor: Any) -> bool:
    whole = isinstance(factor, int | np.integer) and not isinstance(factor, bool)
    return whole and factor >= 1


def _binned_dtype(dtype: np.dtype[Any], cells: int) -> np.dtype[Any]:
    """Return the smallest dtype that holds the sum of ``cells`` values of ``dtype``."""
    if dtype.kind == "f":
        return np.dtype(np.promote_types(dtype, np.float32)) if cells > 1 else dtype
    limits = np.iinfo(dtype)
    kinds = [np.dtype(f"{dtype.kind}{size}") for size in (1, 2, 4, 8)]
    for kind in kinds:
        fits = np.iinfo(kind)
        if fits.min <= cells * int(limits.min) and cells * int(limits.max) <= fits.max:
            return kind
    return kinds[-1]


def _apply(
    variable: xr.Variable,
    factors: dict[str, int],
    boundary: str,
    how: Literal["sum", "mean"],
    dtype: np.dtype[Any],
) -> xr.Variable:
    """Reduce bins of a variable; the bins at the end as ``boundary`` says."""
    axes = {variable.get_axis_num(dim): factor for dim, factor in factors.items()}
    data = variable.data
    cells = {axis: (data.shape[axis], factor) for axis, factor in axes.items()}
    if boundary == "trim":
        cut = [slice(None)] * data.ndim
        for axis, (size, factor) in cells.items():
            cut[axis] = slice(0, size - size % factor)
        data = data[tuple(cut)]
    if hasattr(data, "dask"):
        # Blocks that hold whole bins: sizes are rounded up to multiples, so nothing is split in two.
        data = data.rechunk(
            {axis: _whole_bins(data.chunks[axis], factor) for axis, factor in axes.items()}
        )
        chunks = tuple(
            tuple(-(-c // axes.get(axis, 1)) for c in sizes)
            for axis, sizes in enumerate(data.chunks)
        )
        meta = np.empty((0,) * data.ndim, dtype)
        # dtype= is map_blocks' own keyword: the kernel's goes by position.
        reduced = data.map_blocks(_reduce_bins, axes, how, dtype, chunks=chunks, meta=meta)
    else:
        reduced = _reduce_bins(np.asarray(data), axes, how, dtype)
    return xr.Variable(variable.dims, reduced, dict(variable.attrs))


def _whole_bins(chunks: tuple[int, ...], factor: int) -> tuple[int, ...]:
    """Move chunk borders up to the next border of a bin."""
    total = sum(chunks)
    borders: list[int] = []
    for border in np.cumsum(chunks):
        moved = min(total, -(-int(border) // factor) * factor)
        if not borders or moved > borders[-1]:
            borders.append(moved)
    return tuple(int(n) for n in np.diff([0, *borders]))


def _reduce_bins(
    block: np.ndarray[Any, Any],
    factors: dict[int, int],
    how: Literal["sum", "mean"],
    dtype: np.dtype[Any],
) -> np.ndarray[Any, Any]:
    """Sum or average bins of one block; a bin that the block does not fill is summed as it is."""
    # Integers are added in the dtype of the result, which holds any sum; floats in float64.
    wide = dtype if dtype.kind in "iu" else np.dtype(np.float64)
    reduced: np.ndarray[Any, Any] = block
    cells = np.ones((1,) * block.ndim)
    # The last axis first: that shrinks the block while it is contiguous.
    for axis in sorted(factors, reverse=True):
        size, factor = reduced.shape[axis], factors[axis]
        bins = -(-size // factor)
        shape = list(reduced.shape)
        shape[axis] = bins
        added = np.zeros(shape, dtype=wide)
        # One strided slice for each place within a bin: no copy of the block in the wide dtype.
        for place in range(min(factor, size)):
            part = reduced[(slice(None),) * axis + (slice(place, None, factor),)]
            target = added[(slice(None),) * axis + (slice(0, part.shape[axis]),)]
            np.add(target, part, out=target)
        reduced = added
        per_bin = np.full(bins, factor)
        per_bin[-1] = size - factor * (bins - 1)
        cells = cells * per_bin.reshape([-1 if a == axis else 1 for a in range(block.ndim)])
    if how == "mean":
        reduced = reduced / cells
    return reduced.astype(dtype, copy=False)
