"""A real Slurm, a recipe, and commands as a user types them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emcube as em
from emcube.demo import RECIPE
from emcube.store import write_cube
from tests.conftest import skip_or_fail

START = Path(__file__).with_name("start-slurm.sh")
ROOT = Path(__file__).parents[2]

ALLOCATION = ("--nodes=2", "--time=10", "--memory=2GiB", "--cpus-per-node=1")
"""Two nodes with one processor each: two workers."""


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """Slurm's commands reach a Slurm: the one in reach already, or one started on this machine."""
    if _reachable():
        yield
        return
    if shutil.which("sbatch") is None:
        skip_or_fail("slurm", "Slurm is not installed (tests/slurm/start-slurm.sh install)")
    started = subprocess.run([START, "start"], capture_output=True, text=True, timeout=200)
    if started.returncode:
        pytest.fail(f"Slurm does not start: {started.stderr}", pytrace=False)
    setting = started.stdout.strip().removeprefix("export SLURM_CONF=").strip("'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", setting)
        yield
        subprocess.run([START, "stop"], check=True, timeout=100)


def _reachable() -> bool:
    if shutil.which("sinfo") is None:
        return False
    return subprocess.run(["sinfo"], capture_output=True, timeout=60).returncode == 0


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status, and what it printed where."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def command(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start a Python command in a folder, as from a shell without any setting of emcube's."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("EMCUBE_", "SLURM_JOB"))}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": os.pathsep.join(paths), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, *arguments: str, **variables: str) -> Outcome:
    """Run a Python command to its end."""
    process = command(folder, *arguments, **variables)
    out, err = process.communicate(timeout=280)
    return Outcome(process.returncode, out, err)


@pytest.fixture
def emcube() -> Callable[..., Outcome]:
    """Run ``emcube ARGUMENTS`` in a folder."""

    def call(folder: Path, *arguments: str, **variables: str) -> Outcome:
        return run(folder, "-m", "emcube", *arguments, **variables)

    return call


def wait_until(true: Callable[[], Any], what: str, timeout: float = 120) -> Any:
    """Wait for a condition; fail with its name."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if found := true():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout:g} s: {what}")


def digests(result: Path) -> dict[str, Any]:
    """What a result says of its own bits: the run, and the digest of every array."""
    root = json.loads((result / "zarr.json").read_text())["attributes"]
    assert root["emcube"]["complete"]
    found: dict[str, Any] = {"run_id": root["run_id"]}
    for node in sorted(p.parent for p in result.glob("*/zarr.json")):
        attributes = json.loads((node / "zarr.json").read_text())["attributes"]
        if "emcube" in attributes and "digests" in attributes["emcube"]:
            found[node.name] = attributes["emcube"]["digests"]
    return found


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's recipe beside its cube, small."""
    folder = tmp_path_factory.mktemp("demo recipe")
    scene = em.scenes.srm2135c(scale=0.01, random_state=0)
    write_cube(scene.cube, folder / "srm2135c.zarr")
    (folder / "recipe.yaml").write_text(RECIPE.format(seed=0))
    return folder


@pytest.fixture(scope="session")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube of several blocks, so that two workers have some each."""
    folder = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(0)
    channel = np.arange(600)
    spectra = np.stack([np.exp(-((channel - c) ** 2) / 800.0) for c in (100, 300, 500)])
    spectra /= spectra.sum(axis=1, keepdims=True)
    loadings = rng.dirichlet([0.3, 0.3, 0.3], size=(256, 256)) * 100
    cube = em.make_cube(
        rng.poisson(loadings @ spectra).astype(np.uint16),
        dims=("y", "x", "energy"),
        coords={"energy": 0.5 + 0.02 * channel},
        units={"energy": "keV", "y": "nm", "x": "nm"},
        metadata={"modality": "EDS", "elements": ["Si", "O"], "beam_energy_keV": 200},
    )
    write_cube(cube, folder / "map.zarr")
    return folder
