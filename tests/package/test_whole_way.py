"""From an empty folder to the same bits elsewhere: catalog, search, run, publish, move, reproduce."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import emcube as em
from emcube.cli import main
from tests.package.conftest import members_of

ROOT = Path(__file__).parents[2]
FILES = (
    "eds_tem_fept/core_shell.hspy",
    "eds_sem_dacite_P45/P45_the_default_job.bcf",
    "eels/EELS_signal.hdf5",
)
RECIPE = {
    "emcube": 1,
    "input": {"catalog": "lab.yaml", "dataset": "core_shell"},
    "steps": [
        "estimate_n_components",
        {"pca": {"n_components": 6}},
        {"nmf": {"n_components": "auto", "random_state": None, "max_iter": 20}},
        {"kmeans": {"n_clusters": 3, "random_state": 0}},
    ],
    "output": "results/core_shell",
}


def emcube(*arguments: str, cwd: Path, **environment: str) -> dict[str, Any]:
    """Run the command line in a process of its own, in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "emcube", *arguments, "--json"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.realdata
@pytest.mark.slow
def test_from_an_empty_folder_to_the_same_bits_elsewhere(
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here, there = tmp_path / "here", tmp_path / "there" / "downloads"
    here.mkdir()
    there.mkdir(parents=True)
    (here / "data").mkdir()
    for file in FILES:
        place = here / "data" / Path(file).name
        shutil.copy(data_dir / file, place)
        os.utime(place, (0, 1e9))  # a crawl leaves out what may still be written
    monkeypatch.chdir(here)
    assert main(["catalog", "crawl", "lab.yaml", "data", "--json"]) == 0
    capsys.readouterr()
    assert main(["catalog", "search", "lab.yaml", "--element", "Pt", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["entries"]) == ["core_shell"]

    (here / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    first = emcube("run", "recipe.yaml", cwd=here)
    arguments = ["results/core_shell", "crate.zip", "--include-data", "--no-figures", "--json"]
    assert main(["publish", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["input"]["included"]
    monkeypatch.chdir(there)
    for member, contents in members_of(here / "crate.zip").items():
        assert str(here).encode() not in contents, member

    crate = shutil.move(here / "crate.zip", there / "crate.zip")
    values = em.open_result(here / "results" / "core_shell")["nmf"]["loadings"].values
    shutil.rmtree(here)
    cache = tmp_path / "empty"
    again = emcube("reproduce", str(crate), cwd=there, EMCUBE_CACHE=str(cache))
    assert again["ok"]
    assert again["identical"]
    assert again["same_stack"]
    assert again["run_id"] == again["published_run_id"] == first["run_id"]
    assert not cache.exists()
    result = em.open_result(again["result"])
    assert result.verify() == {}
    np.testing.assert_array_equal(result["nmf"]["loadings"].values, values)
