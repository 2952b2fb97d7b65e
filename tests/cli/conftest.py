"""A small cube on disk, and a way to run the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emcube.cli import main
from emcube.cube import make_cube
from emcube.store import write_cube

RECIPE = """\
emcube: 1
input: {path: map.zarr}
steps:
  - estimate_n_components
  - pca: {n_components: 5}
  - kmeans: {n_clusters: 3, random_state: 0}
output: results/map
"""


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status, and what it printed where."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def emcube(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        printed = capsys.readouterr()
        return Outcome(status, printed.out, printed.err)

    return run


def make_folder(folder: Path) -> Path:
    """Write a cube of three phases and a recipe for it."""
    rng = np.random.default_rng(0)
    channel = np.arange(100)
    spectra = np.stack([np.exp(-((channel - c) ** 2) / 50.0) for c in (20, 50, 80)])
    spectra /= spectra.sum(axis=1, keepdims=True)
    loadings = rng.dirichlet([0.3, 0.3, 0.3], size=(24, 30)) * 100
    cube = make_cube(
        rng.poisson(loadings @ spectra).astype(np.uint8),
        dims=("y", "x", "energy"),
        coords={"energy": 0.5 + 0.02 * channel},
        units={"energy": "keV", "y": "nm", "x": "nm"},
        metadata={"modality": "EDS", "elements": ["Si", "O"], "beam_energy_keV": 200},
    )
    write_cube(cube, folder / "map.zarr")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the recipe has run."""
    folder = make_folder(tmp_path_factory.mktemp("finished"))
    assert main(["run", str(folder / "recipe.yaml")]) == 0
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)
