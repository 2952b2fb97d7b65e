"""Small results: a map, and what a stranger may have called it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from emcube.cube import make_cube
from emcube.recipe import run
from emcube.results import Result

LINES = (1.74, 5.412, 7.474)  # keV: Si, Cr, Ni

EVIL = (
    "</script><script>document.documentElement.dataset.ran=1</script>"
    "<img src=x onerror='document.documentElement.dataset.ran=1'>\"'`${1}{{7*7}}<!-- 結晶 صورة \u202e\x07"
)

STEPS: list[dict[str, Any]] = [
    {"estimate_n_components": {}},
    {"pca": {"n_components": 4}},
    {"nmf": {"n_components": 3, "random_state": 0}},
    {"kmeans": {"n_clusters": 3, "on": "nmf", "random_state": 0}},
]


def make_map(
    shape: tuple[int, ...] = (12, 16), counts: float = 150.0, **metadata: Any
) -> xr.DataArray:
    """Counts of three phases; dims end in y, x, energy."""
    rng = np.random.default_rng(0)
    energy = np.linspace(0.5, 9.0, 150)
    spectra = np.stack([np.exp(-0.5 * ((energy - e) / 0.08) ** 2) for e in LINES])
    spectra += 0.02 * np.exp(-energy / 3)
    spectra /= spectra.sum(axis=1, keepdims=True)
    loadings = rng.dirichlet(np.full(3, 0.3), size=shape) * counts
    dims = ("tilt", "y", "x")[3 - len(shape) :]
    lengths = dict(zip(dims, shape, strict=True))
    units = {"tilt": "deg", "y": "nm", "x": "nm"}
    return make_cube(
        rng.poisson(loadings @ spectra).astype(np.uint16),
        dims=(*dims, "energy"),
        sig_dims=("energy",),
        coords={"energy": energy, **{d: 2.0 * np.arange(n) for d, n in lengths.items()}},
        units={"energy": "keV", **{d: units[d] for d in dims}},
        metadata={
            "modality": "EDS",
            "elements": ["Si", "Cr", "Ni"],
            "beam_energy_keV": 200.0,
            **metadata,
        },
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def result(folder: Path) -> Result:
    """A tilt series, all kinds of steps."""
    recipe = {"emcube": 1, "steps": STEPS}
    return run(recipe, make_map((3, 10, 14), title="Three phases"), out=folder / "map")


@pytest.fixture(scope="session")
def hostile(folder: Path) -> Result:
    """A map whose metadata a stranger wrote."""
    cube = make_map(
        title=EVIL + "長" * 10_000,
        specimen="<b>" * 4000,
        instrument=EVIL,
        source={"file": f"{EVIL}.bcf"},
        extra={EVIL: EVIL * 20, "list": ["]]>", {"<i>": "<!--"}]},
    )
    recipe = {"emcube": 1, "steps": [{"nmf": {"n_components": 3, "random_state": 0}}]}
    return run(recipe, cube, out=folder / "hostile")
