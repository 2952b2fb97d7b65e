"""Cubes of every kind, and HyperSpy in environments of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import emcube as em
from tests.conftest import skip_or_fail

ROOT = Path(__file__).parents[2]

METADATA = {
    "title": "oxide on iron",
    "modality": "EDS",
    "beam_energy_keV": 200.0,
    "elements": ["Fe", "O"],
    "detector": {
        "type": "SDD",
        "energy_resolution_eV": 130.0,
        "azimuth_deg": 45.0,
        "elevation_deg": 18.0,
        "solid_angle_sr": 0.7,
        "convergence_mrad": 21.0,
    },
    "tilt_deg": -10.0,
    "live_time_s": 120.0,
    "real_time_s": 130.5,
    "dwell_time_s": 1e-05,
    "source": {"file": "map.bcf", "format": "Bruker"},
    "acquired": "2026-02-03T04:05:06",
    "instrument": "Titan",
    "specimen": "FIB lamella 7",
    "extra": {"operator": "A. B."},
}


@pytest.fixture
def cube() -> xr.DataArray:
    """Counts of three phases (12, 14, 40): uneven positions, a companion image, metadata of every field."""
    rng = np.random.default_rng(0)
    spectra = rng.dirichlet(np.full(40, 0.3), 3)
    counts = rng.poisson(300 * rng.dirichlet(np.full(3, 0.3), (12, 14)) @ spectra)
    made = em.make_cube(
        counts.astype(np.uint16),
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": 0.1 + np.arange(40) * 0.02, "x": np.cumsum(rng.random(14) + 0.5)},
        units={"energy": "keV", "y": "um", "x": "nm"},
        metadata=METADATA,
    )
    made.attrs["original_metadata"] = {
        "Header": {
            "Version": 3,
            "Name": "µm",
            "Empty": [],
            "Gains": [1.5, 2.5],
            "Flags": [True, None],
        },
        "Lines": [{"element": f"E{i}", "energy": float(i)} for i in range(12)],
        "a/b": "slash",
    }
    image = rng.random((12, 14))
    return made.assign_coords(
        HAADF=(("y", "x"), image, {"units": "1", "long_name": "HAADF"}),
        phase=("y", np.array([f"row {i}" for i in range(12)])),
        run=7,
    ).rename("SI")


@pytest.fixture
def plain(cube: xr.DataArray) -> xr.DataArray:
    """The cube without its coordinate of texts, which zarr has no stable format for in a result."""
    return cube.drop_vars("phase")


def _env_python(variable: str, default: Path) -> Path | None:
    given = os.environ.get(variable, "").strip()
    python = Path(given) if given else default
    return python if python.is_file() else None


@pytest.fixture(scope="session")
def hyperspy() -> Callable[..., Any]:
    """Runs code in HyperSpy's own environment, without emcube, and returns what it prints as JSON."""
    python = _env_python("EMCUBE_HYPERSPY", ROOT / ".venv-bench" / "hyperspy" / "bin" / "python")
    if python is None:
        skip_or_fail(
            "hyperspy",
            "HyperSpy's own environment is not there: build it with "
            '`python -c "from benchmarks.environments '
            "import python_of; python_of('hyperspy', print)\"`, or name its Python in EMCUBE_HYPERSPY",
        )

    def run(code: str, *arguments: object) -> Any:
        # Nothing of emcube may be found: HyperSpy alone opens the files.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return _run(python, code, arguments, environment, cwd="/")

    return run


@pytest.fixture(scope="session")
def both() -> Callable[..., Any]:
    """Runs code where HyperSpy and emcube are installed together: a notebook's environment."""
    python: Path | None = Path(sys.executable)
    if find_spec("hyperspy") is None:
        python = _env_python("EMCUBE_HYPERSPY_BOTH", ROOT / ".venv-hyperspy" / "bin" / "python")
    if python is None:
        skip_or_fail(
            "hyperspy",
            "no environment with HyperSpy and emcube: pip install hyperspy beside emcube, or name the "
            "Python of one in EMCUBE_HYPERSPY_BOTH",
        )

    def run(code: str, *arguments: object) -> Any:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return _run(python, code, arguments, environment, cwd=str(ROOT))

    return run


def _run(python: Any, code: str, arguments: Any, environment: dict[str, str], cwd: str) -> Any:
    # HyperSpy keeps its settings in the home folder, and logs what it misses to stderr.
    done = subprocess.run(
        [str(python), "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        env=environment,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
