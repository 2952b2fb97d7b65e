"""One file as a cube: the signal that is meant, and the images of the file beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from emcube.cube import sig_dims
from emcube.io.lazy import block_chunks, redecoded
from emcube.io.readers import read_signals
from emcube.io.series import with_angles_beside
from emcube.io.signals import Signal, choose, companions_of, with_companions

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = ["open_file"]


def open_file(
    path: Path,
    name: str | None = None,
    *,
    reader: str | None = None,
    dtype: DTypeLike | None = None,
) -> tuple[xr.DataArray, list[xr.DataArray]]:
    """Open a file, lazily.

    Parameters
    ----------
    path : Path
        An existing file, or a ``.zspy`` folder.
    name, reader, dtype
        As for `emcube.open`.

    Returns
    -------
    cube : xarray.DataArray
        Its images on the same grid are coordinates.
    companions : list of xarray.DataArray
        Images that lie on other grids.

    Raises
    ------
    ReadError
        It cannot be read.
    AmbiguousSignalError
        Several signals would do; ``names`` lists them.
    MissingDependencyError
        A package that the format needs is not installed.
    """
    signals = read_signals(path, name=name, reader=reader)
    chosen = choose(signals, name, path)
    cube = with_angles_beside(_with_signal_name(chosen, signals), path)
    return _widened(cube, dtype), companions_of(chosen, signals)


def _with_signal_name(chosen: Signal, signals: Sequence[Signal]) -> xr.DataArray:
    cube = with_companions(chosen, signals)
    metadata = dict(cube.attrs.get("metadata") or {})
    metadata["source"] = {**(metadata.get("source") or {}), "signal": chosen.name}
    if chosen.kind == "cube" and cube.chunks is None:
        # Formats that are only read whole: still one kind of array for everything behind.
        n_sig = len(sig_dims(cube))
        keep = range(cube.ndim - n_sig, cube.ndim)
        cube = cube.chunk(
            dict(zip(cube.dims, block_chunks(cube.shape, cube.dtype.itemsize, keep), strict=True))
        )
    return cube.assign_attrs(metadata=metadata).rename(chosen.name)


def _widened(cube: xr.DataArray, dtype: DTypeLike | None) -> xr.DataArray:
    """Let a reader that guesses its dtype decode into the wanted one, before any count could be lost."""
    if dtype is None:
        return cube
    data = redecoded(cube.data, np.dtype(dtype))
    return cube if data is None else cube.copy(data=data)
