"""Cubes of every kind, and HyperSpy in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import emcube as em
from tests.conftest import skip_or_fail
from tests.environments import environment_of

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


#: Runs code after code in one process: to import HyperSpy takes seconds.
_SERVER = """
import contextlib, io, json, sys, traceback
for line in sys.stdin:
    asked = json.loads(line)
    sys.argv = ["-c", *asked["arguments"]]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            exec(compile(asked["code"], "<test>", "exec"), {"__name__": "__main__"})
        answer = {"said": said.getvalue().splitlines()[-1]}
    except BaseException:
        answer = {"failed": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
"""


@contextmanager
def _python(first: str, environment: dict[str, str], folder: Path) -> Iterator[Callable[..., Any]]:
    """A Python that runs code and gives what it prints, which is JSON."""
    log = folder / "stderr.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-c", first + _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            cwd=folder,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        asks, answers = process.stdin, process.stdout

        def run(code: str, *arguments: object) -> Any:
            asks.write(json.dumps({"code": code, "arguments": list(map(str, arguments))}) + "\n")
            asks.flush()
            line = answers.readline()
            assert line, log.read_text(errors="replace")[-4000:]
            answer = json.loads(line)
            assert "failed" not in answer, answer["failed"]
            return json.loads(answer["said"])

        try:
            yield run
        finally:
            process.kill()


def _require_hyperspy() -> None:
    if find_spec("hyperspy") is None:
        skip_or_fail("hyperspy", "HyperSpy is not installed: pip install hyperspy")


@pytest.fixture(scope="session")
def hyperspy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Runs code where there is HyperSpy, the zarr that it wants for .zspy, and no emcube."""
    _require_hyperspy()
    # HyperSpy alone opens the files: nothing of emcube can be imported.
    alone = 'import sys; sys.modules["emcube"] = None'
    with _python(alone, environment_of("zarr2"), tmp_path_factory.mktemp("hyperspy")) as run:
        yield run


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Runs code where HyperSpy and emcube are installed together: a notebook's environment."""
    _require_hyperspy()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with _python("", environment, tmp_path_factory.mktemp("both")) as run:
        yield run
