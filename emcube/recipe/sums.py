"""The sum of each pixel, in the engine's blocks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emcube.cube import nav_dims
from emcube.cube.reduce import NOT_SPATIAL, smoothed_counts, smoothed_totals
from emcube.engine import Block, ZarrTarget, map_blocks
from emcube.engine.plan import MAX_GROUPS
from emcube.kernels.rows import CountRows
from emcube.models.labels import as_source

__all__ = ["pixel_sums", "smooth_sums"]


def pixel_sums(block: Block) -> dict[str, NDArray[np.float64]]:
    """Sum of each pixel over the used channels: ``{"total_counts": (p,)}``."""
    data = block.data
    if isinstance(data, CountRows):
        return {"total_counts": data.pixel_totals().astype(np.float64)}
    return {"total_counts": data.sum(axis=1, dtype=np.float64)}


def _sums_of_what_is_there(block: Block) -> dict[str, NDArray[np.float64]]:
    """Sum of each pixel without its missing values, as Xarray sums."""
    data = block.data
    if isinstance(data, CountRows) or data.dtype.kind != "f":
        return pixel_sums(block)
    return {"total_counts": np.where(np.isnan(data), 0, data).sum(axis=1, dtype=np.float64)}


def smooth_sums(cube: xr.DataArray, sigma: float, scratch: Path) -> xr.DataArray:
    """Sums of pixels, smoothed over their neighbours, in memory (see `emcube.cube.reduce.smoothed_counts`).

    A graph of Dask has several tasks a chunk, all in the memory of client and scheduler. Of more chunks than
    there may be groups of blocks the engine makes the sums, by way of a file.

    Parameters
    ----------
    cube : DataArray
    sigma : float
        Width, in pixels.
    scratch : Path
        Folder that the workers reach too; it is made, and gone at the end.
    """
    if not hasattr(cube.data, "dask") or cube.data.npartitions <= MAX_GROUPS:
        return smoothed_counts(cube, sigma=sigma).compute()
    import zarr

    blocks, _ = as_source(cube)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        chunks = blocks.plan.output_shape(8)
        array = zarr.create_array(
            str(scratch), shape=blocks.plan.nav_shape, chunks=chunks, dtype="f8", fill_value=np.nan
        )
        target = ZarrTarget(str(scratch), "")
        map_blocks(_sums_of_what_is_there, blocks, {"total_counts": target}, name="smoothed counts")
        totals = np.asarray(array[...])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    nav = nav_dims(cube)
    coords = {k: c for k, c in cube.coords.items() if set(map(str, c.dims)) <= set(nav)}
    image = xr.DataArray(totals, dims=nav, coords=coords, attrs=dict(cube.attrs))
    return smoothed_totals(image, sigma, [dim for dim in nav if dim not in NOT_SPATIAL])
