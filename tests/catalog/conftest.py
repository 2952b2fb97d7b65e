"""A cache of their own for all tests of catalogs, and a small store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import emcube as em
from emcube.store import write_cube


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, which would be the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EMCUBE_CACHE", str(folder))
    monkeypatch.delenv("EMCUBE_CATALOG_ROOTS", raising=False)
    return folder


@pytest.fixture
def make_store() -> Callable[..., Path]:
    """Write a store of (4, 5, 6) pixels and channels."""

    def make(path: Path, value: int = 1, **metadata: object) -> Path:
        cube = em.make_cube(
            np.full((4, 5, 6), value, "uint8"),
            dims=("y", "x", "energy"),
            sig_dims=("energy",),
            coords={"energy": np.arange(6) * 0.01},
            units={"energy": "keV", "x": "nm", "y": "nm"},
            metadata=metadata,
        )
        return write_cube(cube, path)

    return make
