"""A real Slurm, a recipe, and commands as a user types them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import emcube as em
from emcube.demo import recipe_text
from emcube.models.labels import as_source
from emcube.store import write_cube
from tests.conftest import skip_or_fail
from tests.slurm.helpers import START, Outcome, run


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


@pytest.fixture
def emcube() -> Callable[..., Outcome]:
    """Run ``emcube ARGUMENTS`` in a folder."""

    def call(folder: Path, *arguments: str, **variables: str) -> Outcome:
        return run(folder, "-m", "emcube", *arguments, **variables)

    return call


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's recipe beside its cube: small, but of several blocks, so that two workers have some each."""
    folder = tmp_path_factory.mktemp("demo recipe")
    scene = em.scenes.srm2135c(scale=0.03, random_state=0)
    write_cube(scene.cube, folder / "srm2135c.zarr")
    assert as_source(em.open(folder / "srm2135c.zarr"))[0].plan.n_blocks > 1
    (folder / "recipe.yaml").write_text(recipe_text())
    return folder


@pytest.fixture(scope="session")
def laptop(demo: Path) -> Path:
    """The demo recipe's result on threads of this machine."""
    em.run(demo / "recipe.yaml", out=demo / "laptop")
    return demo / "laptop"
