"""Real files, the whole way: from the instrument's file to a result, as a user would go."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import emcube as em

pytestmark = pytest.mark.realdata

NMF: dict[str, Any] = {"nmf": {"n_components": "auto", "random_state": 0}}
KMEANS: dict[str, Any] = {"kmeans": {"n_clusters": 3, "random_state": 0}}


def line(spectra: xr.DataArray, name: str) -> Any:
    """Net counts of an X-ray line in each of some spectra."""
    return (
        spectra.fillna(0).assign_attrs(sig_dims=["energy"], units="counts").em.lines([name])[:, 0]
    )


@pytest.fixture(scope="module")
def core_shell(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("fept") / "core_shell"
    return em.run(data_dir / "eds_tem_fept" / "core_shell.hspy", out=out)


def test_core_shell_has_support_shell_and_core(core_shell: Any) -> None:
    estimate = core_shell["estimate_n_components"].attrs
    assert estimate["n_components"] == 3
    assert 0 < estimate["margin"]["below"] < 5  # the fourth value is about 2 % under the threshold
    nmf = core_shell["nmf"]
    spectra = nmf["components"].load()
    iron, platinum = (line(spectra, name).values for name in ("Fe_Ka", "Pt_La"))
    core = int(platinum.argmax())
    shell = next(int(k) for k in np.argsort(-iron) if k != core)
    support = ({0, 1, 2} - {core, shell}).pop()
    assert platinum[core] > 20 * abs(platinum[[shell, support]]).max()
    assert iron[shell] > 20 * abs(iron[support])
    maps = nmf["loadings"].load().values
    # The core lies inside: where it is strongest there is little support.
    strong = maps[..., core] > np.quantile(maps[..., core], 0.95)
    assert maps[strong, support].mean() < 0.5 * maps[~strong, support].mean()
    # Loadings are counts: together they are the counts of the map.
    total = core_shell["input"]["total_counts"].values
    assert abs(maps.sum() / total.sum() - 1) < 0.01


def test_clusters_of_core_shell_follow_its_loadings(core_shell: Any) -> None:
    labels = core_shell["kmeans"]["labels"].values
    maps = core_shell["nmf"]["loadings"].load().values
    share = maps / maps.sum(axis=-1, keepdims=True)
    means = np.array([share[labels == k].mean(axis=0) for k in range(3)])
    # Each cluster is richest in a component of its own.
    assert sorted(means.argmax(axis=0)) == [0, 1, 2]


def test_figures_of_core_shell(core_shell: Any, tmp_path: Path) -> None:
    for name in ("scree", "components", "loadings", "labels"):
        getattr(core_shell, f"plot_{name}")().savefig(tmp_path / f"{name}.png", dpi=60)
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    assert core_shell.verify() == {}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("eds_tem_fept/bare_core.hspy", 3),
        ("eds_tem_sio2/SiO2 EDS Spectrum Image.hspy", 3),
        ("eds_sem_dacite_P45/P45_the_default_job.bcf", None),
    ],
)
def test_eds_maps(data_dir: Path, tmp_path: Path, file: str, expected: int | None) -> None:
    recipe = {
        "input": {"path": str(data_dir / file)},
        "steps": ["estimate_n_components", NMF],
    }
    result = em.run(recipe, out=tmp_path / "r")
    number = result["estimate_n_components"].attrs["n_components"]
    assert number == expected if expected is not None else 2 <= number <= 7
    check_counts(result)
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def check_counts(result: Any) -> None:
    """Hold loadings and components against the counts that they explain."""
    nmf = result["nmf"]
    used = nmf["components"].load()
    np.testing.assert_allclose(used.sum("energy"), 1.0, rtol=1e-6)
    total = float(result["input"]["total_counts"].sum())
    assert abs(float(nmf["loadings"].sum()) / total - 1) < 0.02
    assert result.verify() == {}
    pictures = result.save_figures(result.path.with_name("figures"))
    assert {"nmf-components", "nmf-loadings"} <= {p.stem for p in pictures}
    assert all(p.stat().st_size > 1000 for p in pictures)
    shutil.rmtree(result.path.with_name("figures"))


@pytest.mark.slow
def test_edax(data_dir: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(data_dir / "eds_sem_edax" / "EDAX_EDS_files.zip") as archive:
        archive.extractall(tmp_path)
    spd = next(tmp_path.rglob("*.spd"))
    recipe = {"input": {"path": str(spd)}, "steps": ["estimate_n_components", NMF]}
    result = em.run(recipe, out=tmp_path / "out" / "r")
    assert 2 <= result["estimate_n_components"].attrs["n_components"] <= 10
    check_counts(result)


@pytest.mark.slow
def test_five_tilts_as_one_cube(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "eds_tilt_IDP_L2083"
    angles = [-30, -15, 0, 15, 30]
    store = em.ingest([folder / f"{a}.bcf" for a in angles], tmp_path / "series.zarr", dim="tilt")
    recipe = {
        "input": {"path": str(store)},
        "prepare": [{"bin": {"y": 4, "x": 4}}],
        "steps": [
            "estimate_n_components",
            {"nmf": {"n_components": 4, "random_state": 0}},
            KMEANS,
        ],
    }
    result = em.run(recipe, out=tmp_path / "r")
    # A dust particle of many minerals in 20,000 pixels of some thousand counts: more than one tilt shows.
    estimate = result["estimate_n_components"].attrs
    assert 4 <= estimate["n_components"] <= 16
    assert estimate["margin"]["below"] > 0
    loadings = result["nmf"]["loadings"]
    assert loadings.dims == ("tilt", "y", "x", "component")
    assert loadings.shape == (5, 64, 64, 4)
    np.testing.assert_allclose(loadings["tilt"], angles)
    check_counts(result)


def test_eels_is_refused_a_number_and_runs_with_one(data_dir: Path, tmp_path: Path) -> None:
    file = data_dir / "eels" / "EELS_signal.hdf5"
    with pytest.raises(em.errors.InputError, match="the estimate names no number") as caught:
        em.run(file, out=tmp_path / "auto")
    assert "--n-components" in caught.value.hint
    result = em.run(file, out=tmp_path / "three", n_components=3)
    assert result["nmf"]["components"].sizes == {"component": 3, "energy": 791}
    assert result["nmf"]["components"].energy.attrs["units"] == "eV"
    pictures = result.save_figures(tmp_path / "figures")
    assert {"nmf-components", "nmf-loadings", "kmeans-labels"} <= {p.stem for p in pictures}


@pytest.mark.slow
def test_a_jeol_map_of_a_gigabyte_in_little_memory(data_dir: Path, tmp_path: Path) -> None:
    recipe = {
        "emcube": 1,
        "input": {"path": str(data_dir / "vendor" / "View000_0000006.pts")},
        "steps": [{"nmf": {"n_components": 2, "random_state": 0, "max_iter": 3}}],
        "output": str(tmp_path / "r"),
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    code = (
        "import sys; from benchmarks.clock import peak_bytes; from emcube.cli import main\n"
        "status = main(['run', sys.argv[1], '--json'])\n"
        "print(peak_bytes(), file=sys.stderr)\n"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "recipe.yaml")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cube"]["shape"] == [512, 512, 4096]
    assert int(done.stderr.split()[-1]) < 1.5e9
