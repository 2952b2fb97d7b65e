"""Maps and spectra from the data themselves: one pass over the blocks, on the deployment in force.

Letters: P pixels, E channels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.cube import nav_dims, sig_dims
from emcube.explore.coarse import channel_weights
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey

__all__ = ["exact_image", "exact_spectrum"]


@dataclass(frozen=True, eq=False)
class WindowSums:
    """Sum of each pixel over some channels; missing values (NaN) count as nothing.

    Parameters
    ----------
    used : ndarray of bool, shape (E,)
    """

    used: NDArray[np.bool_]

    def __call__(self, block: Block) -> dict[str, NDArray[np.float64]]:
        """``{"sums": (p,)}`` for the block's p pixels."""
        data = block.data
        if isinstance(data, CountRows):
            return {"sums": data.matmul(self.used[:, None])[:, 0]}
        first, last = _ends(self.used)
        part, used = data[:, first:last], self.used[first:last]
        if part.dtype.kind == "f":
            part = np.where(np.isnan(part), 0, part)
        where: Any = True if used.all() else used
        return {"sums": part.sum(axis=1, dtype=np.float64, where=where)}


def _ends(used: NDArray[np.bool_]) -> tuple[int, int]:
    found = np.flatnonzero(used)
    return int(found[0]), int(found[-1]) + 1


@dataclass(frozen=True)
class SpectrumSweep:
    """Sum of each channel over pixels, in one round; missing values (NaN) count as nothing."""

    name: str = "sum spectrum"

    def start(self) -> None:
        """Nothing is known before the first block."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> NDArray[np.float64]:
        """Sums of one block, (E,)."""
        data = block.data
        if isinstance(data, CountRows):
            return data.channel_totals().astype(np.float64)
        if data.dtype.kind == "f":
            data = np.where(np.isnan(data), 0, data)
        sums: NDArray[np.float64] = data.sum(axis=0, dtype=np.float64)
        return sums

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add."""
        return a + b

    def step(
        self, state: Any, statistic: NDArray[np.float64], round_number: int
    ) -> tuple[NDArray[np.float64], bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * n_channels


def exact_image(
    cube: xr.DataArray, windows: Mapping[str, tuple[float, float]], scratch: Path
) -> xr.DataArray:
    """Sum every pixel over windows of the signal dims, both ends included.

    Parameters
    ----------
    cube : DataArray
    windows : mapping of str to (float, float)
        By signal dim, in its unit; dims left out count whole.
    scratch : Path
        Folder that the workers reach too, for an image that they write.

    Returns
    -------
    DataArray over the navigation dims
        In memory, 8 bytes a pixel.

    Raises
    ------
    SelectionError
        A window is of no signal dim, or outside of its axis.
    """
    import xarray as xr

    from emcube.models.labels import as_source

    weights = channel_weights(cube, windows)
    used = np.ones((1,), dtype=bool)
    for weight in weights:
        used = (used[:, None] & (weight > 0)[None, :]).reshape(-1)
    source, _ = as_source(cube)
    nav = nav_dims(cube)
    return xr.DataArray(
        _written(WindowSums(used), source, scratch),
        dims=nav,
        coords={d: cube.coords[d] for d in nav if d in cube.coords},
        attrs={"units": cube.attrs.get("units", "1"), "sig_dims": []},
    )


def _written(function: WindowSums, source: Any, scratch: Path) -> NDArray[np.float64]:
    """Answers of all pixels in memory: straight from threads, by way of a file from other processes."""
    from emcube.engine import ArrayTarget, ZarrTarget, map_blocks
    from emcube.engine.executor import current_executor

    executor, plan = current_executor(), source.plan
    if not executor.remote:
        out = np.full(plan.nav_shape, np.nan)
        map_blocks(
            function, source, {"sums": ArrayTarget(out)}, name="window map", executor=executor
        )
        return out
    import zarr

    with tempfile.TemporaryDirectory(prefix="map-", dir=scratch) as folder:
        array = zarr.create_array(
            folder,
            shape=plan.nav_shape,
            chunks=plan.output_shape(8),
            dtype="f8",
            fill_value=np.nan,
        )
        target = ZarrTarget(folder, "")
        map_blocks(function, source, {"sums": target}, name="window map", executor=executor)
        return np.asarray(array[...])


def exact_spectrum(cube: xr.DataArray, mask: xr.DataArray | None) -> xr.DataArray:
    """Sum every channel over the pixels of a selection.

    Parameters
    ----------
    cube : DataArray
    mask : DataArray of bool over its navigation dims, or None
        None: all pixels.

    Returns
    -------
    DataArray over the signal dims
        In memory.

    Notes
    -----
    Only the box around the selection is read. The same sums on any number of threads and workers.
    """
    import xarray as xr

    from emcube.engine import run_sweep
    from emcube.models.labels import as_source

    where = mask
    if mask is not None:
        box = {dim: _along(mask, str(dim)) for dim in mask.dims}
        if any(s != slice(0, mask.sizes[d]) for d, s in box.items()):
            cube, where = cube.isel(box), mask.isel(box)
        where = None if bool(where.all()) else where  # type: ignore[union-attr]
    source, _ = as_source(cube, where)
    sums = run_sweep(SpectrumSweep(), source).state
    sig = sig_dims(cube)
    return xr.DataArray(
        np.asarray(sums).reshape([cube.sizes[d] for d in sig]),
        dims=sig,
        coords={d: cube.coords[d] for d in sig if d in cube.coords},
        attrs={
            **{k: v for k, v in cube.attrs.items() if k == "metadata"},
            "units": cube.attrs.get("units", "1"),
            "sig_dims": list(sig),
        },
    )


def _along(mask: xr.DataArray, dim: str) -> slice:
    """From the first to the last position along a dim at which a selection holds a pixel."""
    others = tuple(axis for axis, d in enumerate(mask.dims) if d != dim)
    return slice(*_ends(np.asarray(mask.values.any(axis=others))))
