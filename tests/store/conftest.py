"""Small cubes, and layouts small enough that they make many regions."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.store import hashing, layout, regions, write

MakeCube = Callable[..., xr.DataArray]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of some kilobytes and groups of four: small cubes take the roads of large ones."""
    small = functools.partial(layout.plan_layout, target=4096, max_chunk=8192, max_shard=65536)
    monkeypatch.setattr(write, "plan_layout", small)
    monkeypatch.setattr(hashing, "PIECE_BYTES", 700)
    monkeypatch.setattr(regions, "GROUP_BYTES", 16384)


@pytest.fixture
def make() -> MakeCube:
    """Make a labelled cube (tilt, y, x, energy) around values."""

    def make_cube(values: object, **kwargs: object) -> xr.DataArray:
        shape = values.shape  # type: ignore[attr-defined]
        return em.make_cube(
            values,
            dims=("tilt", "y", "x", "energy"),
            sig_dims=("energy",),
            coords={"energy": np.arange(shape[-1]) * 0.01, "tilt": np.linspace(-30, 30, shape[0])},
            units={"energy": "keV", "tilt": "deg", "y": "nm", "x": "nm"},
            **kwargs,
        )

    return make_cube


@pytest.fixture
def counts() -> np.ndarray:
    """Rare counts, shape (3, 14, 15, 40)."""
    return np.random.default_rng(0).poisson(0.2, (3, 14, 15, 40)).astype(np.uint8)
