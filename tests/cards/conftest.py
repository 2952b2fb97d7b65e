"""A store, a result, a catalog, and what a stranger may call things."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

import emcube as em
from emcube.results import Result
from emcube.store import open_cube, write_cube
from tests.report.conftest import EVIL, make_map

STEPS = [
    {"pca": {"n_components": 4}},
    {"nmf": {"n_components": 3, "random_state": 0}},
    {"kmeans": {"n_clusters": 3, "on": "nmf", "random_state": 0}},
]


def hostile_cube() -> xr.DataArray:
    """A map in whose metadata a stranger wrote HTML, quotes, other alphabets and far too much."""
    cube = make_map(
        (4, 5),
        title=EVIL + "長" * 10_000,
        specimen="<b>" * 4000,
        instrument=EVIL,
        extra={EVIL: EVIL},
    )
    cube = cube.rename(x='<i onmouseover="x">', y="ось")
    cube["energy"].attrs["units"] = "keV<script>"
    return cube.assign_attrs(name=EVIL)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cards")


@pytest.fixture(scope="session")
def store(folder: Path) -> Path:
    cube = make_map((3, 30, 40), title="Three discs", specimen="needle")
    return write_cube(cube, folder / "map.zarr")


@pytest.fixture(scope="session")
def stored(store: Path) -> xr.DataArray:
    return open_cube(store)


@pytest.fixture(scope="session")
def result(folder: Path, store: Path) -> Result:
    return em.run({"input": {"path": str(store)}, "steps": STEPS}, out=folder / "result")
