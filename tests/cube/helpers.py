"""Cubes for the tests of this folder."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import xarray as xr

from emcube.cube import make_cube


def no_compute(*args: Any, **kwargs: Any) -> Any:
    """Scheduler that fails on the first compute."""
    raise AssertionError("computed, where it should have stayed lazy")


def lazily() -> Any:
    return dask.config.set(scheduler=no_compute)


def eds(
    shape: tuple[int, int] = (6, 7), n: int = 400, seed: int = 0, **kwargs: Any
) -> xr.DataArray:
    """A small EDS map: 20 eV a channel, uint8 counts."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.5, (*shape, n)).astype("uint8")
    options: dict[str, Any] = {
        "dims": ("y", "x", "energy"),
        "coords": {"energy": 0.02 * np.arange(n), "y": 5.0 * np.arange(shape[0])},
        "units": {"energy": "keV", "y": "nm", "x": "nm"},
        "metadata": {"modality": "EDS", "elements": ["Si", "O"]},
        **kwargs,
    }
    return make_cube(counts, **options)
