"""Spectra that a recipe gives to a step: named, found, laid on the cube's channels, kept and packed."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.errors import InputError, PackageError, RecipeError
from emcube.recipe.recipe import Recipe
from emcube.recipe.running import look_ahead
from emcube.recipe.spectra import with_spectra
from emcube.report.build import page_of

ENERGY = 0.1 * np.arange(48) + 0.2
SPECTRA = np.random.default_rng(3).dirichlet(np.full(48, 0.3), 3)


def spectrum(values: np.ndarray, energy: np.ndarray = ENERGY, unit: str = "keV") -> xr.DataArray:
    """A spectrum, or several."""
    dims = ("x", "energy") if values.ndim == 2 else ("energy",)
    return em.make_cube(
        values, dims=dims, sig_dims=("energy",), coords={"energy": energy}, units={"energy": unit}
    )


def field(seed: int) -> xr.DataArray:
    rng = np.random.default_rng((11, seed))
    counts = rng.poisson(80 * rng.dirichlet([0.3] * 3, (12, 14)) @ SPECTRA).astype(np.uint16)
    return em.make_cube(
        counts,
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": ENERGY},
        units={"energy": "keV", "y": "nm", "x": "nm"},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("given")
    em.ingest(field(0), place / "c.zarr")
    (place / "standards").mkdir()
    em.export(spectrum(1000 * SPECTRA[1]), place / "standards/si.msa")
    em.export(spectrum(1000 * SPECTRA[1]), place / "si.csv")
    em.export(spectrum(SPECTRA), place / "all.csv")
    (place / "r.yaml").write_text(
        "emcube: 1\ninput: {path: c.zarr}\nsteps:\n"
        "  - vca: {n_components: 3, random_state: 0}\n"
        "  - nmf: {n_components: 3, known: standards/si.msa, random_state: 0}\n"
        "  - mcr: {n_components: 3, known: [si.csv], init: {step: vca}, random_state: 0}\n"
    )
    return place


@pytest.fixture(scope="module")
def result(folder) -> Any:
    return em.run(folder / "r.yaml", out=folder / "out")


def of(folder: Path, known: str, step: str = "nmf", prepare: str = "") -> Recipe:
    head = f"emcube: 1\ninput: {{path: c.zarr}}\n{prepare}steps:\n"
    return Recipe.parse(f"{head}  - {step}: {{n_components: 3, {known}}}\n", folder=folder)


def resolved(folder: Path, known: str, prepare: str = "") -> np.ndarray:
    from emcube.recipe.prepare import prepare as prepared

    recipe = of(folder, f"known: {known}", prepare=prepare)
    cube = prepared(em.open(folder / "c.zarr"), recipe.prepare).cube
    return np.concatenate([one.values for one in with_spectra(recipe, cube).given])


def test_it_is_the_fit_that_python_makes_with_the_same_spectra(result, folder) -> None:
    cube = em.open(folder / "c.zarr")
    standard = em.open(folder / "standards/si.msa")
    nmf = em.MiniBatchNMF(3, known=standard, random_state=0).fit(cube)
    np.testing.assert_array_equal(result["nmf"].components, nmf.components_)
    np.testing.assert_array_equal(result["nmf"].loadings, nmf.transform(cube))
    np.testing.assert_allclose(result["nmf"].components[0], SPECTRA[1], rtol=1e-6, atol=1e-12)
    start = em.VCA(3, random_state=0).fit(cube).components_
    mcr = em.MCRALS(3, known=standard, init=start, random_state=0).fit(cube)
    np.testing.assert_array_equal(result["mcr"].components, mcr.components_)
    np.testing.assert_array_equal(result["mcr"].init, start)
    np.testing.assert_array_equal(result["mcr"].known[0], standard)


def test_the_run_is_known_by_what_the_files_hold(result, folder, tmp_path) -> None:
    recorded = result.recipe["steps"]
    assert recorded[1]["nmf"]["known"] == recorded[2]["mcr"]["known"]  # .msa and .csv hold the same
    assert recorded[2]["mcr"]["init"] == [{"step": "vca"}]
    paths = [one["path"] for one in result.provenance["spectra"]]
    assert paths == ["standards/si.msa", "si.csv"]
    ahead = look_ahead(Recipe.read(folder / "r.yaml"), folder / "out")
    assert ahead.finished
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved, ignore=shutil.ignore_patterns("out"))
    assert look_ahead(Recipe.read(moved / "r.yaml"), moved / "o").run_id == result.run_id
    em.export(spectrum(1000 * SPECTRA[2]), moved / "standards/si.msa", overwrite=True)
    assert look_ahead(Recipe.read(moved / "r.yaml"), moved / "o").run_id != result.run_id


def test_a_recorded_recipe_runs_again_with_its_result(result, folder, tmp_path) -> None:
    cube = em.open(folder / "c.zarr")
    again = em.run(result.recipe, cube, spectra=result, out=tmp_path / "again")
    assert again.run_id == result.run_id
    assert again.provenance["spectra"] == result.provenance["spectra"]
    with pytest.raises(InputError, match=r"by their digest alone.*spectra=result"):
        em.run(result.recipe, cube, out=tmp_path / "none")
    other = {**result.recipe, "steps": result.recipe["steps"][:1]}
    without = em.run(other, cube, out=tmp_path / "without")
    with pytest.raises(InputError, match="has others"):
        em.run(result.recipe, cube, spectra=without.path, out=tmp_path / "none")


def test_components_of_a_result_and_of_several_files_together(result, folder) -> None:
    values = resolved(folder, "[{path: out, step: vca, component: [2, 0]}, {path: si.csv}]")
    np.testing.assert_array_equal(values[:2], result["vca"].components[[2, 0]])
    np.testing.assert_allclose(values[2], 1000 * SPECTRA[1])
    np.testing.assert_array_equal(resolved(folder, "out"), result["mcr"].components)
    np.testing.assert_allclose(resolved(folder, "{path: all.csv, component: 2}"), SPECTRA[2:])


def test_spectra_are_cut_and_summed_to_the_prepared_channels(folder, tmp_path) -> None:
    window = "prepare: [{window: {energy: [0.95, 4.05]}}]\n"
    np.testing.assert_allclose(resolved(folder, "all.csv", window), SPECTRA[:, 8:39])
    bins = "prepare: [{window: {energy: [0.95, 3.85]}}, {bin: {energy: 3, x: 2}}]\n"
    wide = SPECTRA[:, 8:35].reshape(3, 9, 3).sum(axis=2)
    binned = "prepare: [{window: {energy: [0.95, 3.65]}}, {bin: {energy: 3, x: 2}}]\n"
    np.testing.assert_allclose(resolved(folder, "all.csv", binned), wide)
    with pytest.raises(Exception, match="bin"):
        resolved(folder, "all.csv", bins)  # 29 channels are no whole bins: the cube's own fault
    em.export(spectrum(SPECTRA[0], 1000 * ENERGY, "eV"), tmp_path / "ev.msa")
    np.testing.assert_allclose(resolved(folder, str(tmp_path / "ev.msa")), SPECTRA[:1])


@pytest.mark.parametrize(
    ("values", "energy", "unit", "said"),
    [
        (SPECTRA[0], ENERGY + 0.03, "keV", r"(?s)energy goes from 0.23 .*interpolate"),
        (SPECTRA[0, :40], ENERGY[:40], "keV", "in 40 channels, that of the cube .* in 48"),
        (SPECTRA[0], ENERGY, "nm", "channels in nm, those of the cube are in keV"),
        (-SPECTRA[0], ENERGY, "keV", "a smallest value of -"),
        (np.where(ENERGY > 2, np.nan, SPECTRA[0]), ENERGY, "keV", "values that are no number"),
        (np.zeros(48), ENERGY, "keV", "nothing in any channel"),
    ],
)
def test_spectra_that_do_not_fit_are_refused(folder, tmp_path, values, energy, unit, said) -> None:
    em.export(spectrum(values, energy, unit), tmp_path / "s.msa")
    with pytest.raises(InputError, match=said):
        resolved(folder, str(tmp_path / "s.msa"))


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("nope.msa", "line 4: known of 'nmf', 'nope.msa'.*there is no such file"),
        ("c.zarr", "holds 168 spectra"),
        ("{path: out, step: pca}", "no step 'pca'.*'vca', 'nmf', 'mcr'"),
        ("{path: si.csv, step: nmf}", "no result of emcube at this path"),
        ("{path: out, component: 7}", "component 7 is asked for, there are 3"),
    ],
)
def test_places_that_hold_no_such_spectra_are_refused(result, folder, known, said) -> None:
    with pytest.raises(InputError, match=said):
        resolved(folder, known)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("known: {pth: a.msa}", "did you mean 'path'"),
        ("known: {step: vca}", "names the step 'vca'.*put '- vca"),
        ("known: {path: a, digest: 'sha256:" + 64 * "0" + "'}", "got 'path' and 'digest'"),
        ("known: {component: 0}", "got neither"),
        ("known: {path: a, step: nmf, name: EDS}", "'name' picks a signal"),
        ("known: []", "at least 1"),
        ("init: nowhere.msa", "expected 'bins' or 'random'"),
    ],
)
def test_mistakes_are_found_before_anything_is_read(tmp_path, options, said) -> None:
    with pytest.raises(RecipeError, match=said):
        of(tmp_path, options)


def test_uncertainty_refuses_known_spectra_and_not_a_start(folder) -> None:
    text = (
        "emcube: 1\nsteps:\n  - nmf: {{n_components: 3, {0}: {{path: all.csv}}}}\n  - uncertainty\n"
    )
    with pytest.raises(RecipeError, match="not there for an nmf step with 'known'"):
        Recipe.parse(text.format("known"))
    assert len(Recipe.parse(text.format("init")).steps) == 2


def test_a_result_does_not_replace_the_spectra_of_its_run(folder) -> None:
    with pytest.raises(InputError, match="would hold the spectra"):
        em.run(of(folder, "known: standards/si.msa"), out=folder / "standards", overwrite=True)


def test_a_package_holds_them_and_no_folder_of_this_machine(result, folder, tmp_path) -> None:
    recipe = of(folder, f"known: {{path: {folder / 'standards/si.msa'}}}, random_state: 0")
    own = em.run(recipe, out=tmp_path / "r")
    crate = em.publish(
        own, tmp_path / "crate.zip", input=folder / "c.zarr", include_data=True, license="CC0-1.0"
    )
    with zipfile.ZipFile(crate) as archive:
        everything = b"".join(archive.read(name) for name in archive.namelist())
        methods = archive.read("METHODS.md").decode()
    assert str(folder).encode() not in everything
    assert "of which 1 was known beforehand (si.msa)" in methods
    again = em.reproduce(crate, out=tmp_path / "again")
    assert again.ok
    assert again.same_run
    np.testing.assert_array_equal(again.result["nmf"].known, own["nmf"].known)


def test_a_package_that_names_a_file_is_refused(result, tmp_path) -> None:
    """Else whoever reproduces would read a file of his own machine, or an address of somebody's choice."""
    from emcube.package.reproducing import _recipe

    (tmp_path / "recipe.yaml").write_text(
        "emcube: 1\nsteps:\n  - nmf: {n_components: 3, known: /etc/passwd}\n"
    )
    with pytest.raises(PackageError, match="names spectra at"):
        _recipe(tmp_path, "the package")


def test_the_report_names_the_files_again(result) -> None:
    page = page_of(result)
    assert "path: standards/si.msa" in page
    assert "spectra=result" in page


def test_several_cubes_are_given_them_together(folder, tmp_path) -> None:
    cubes = [field(0), field(1)]
    text = "emcube: 1\nsteps:\n  - nmf: {n_components: 3, known: si.csv, random_state: 0}\n"
    found = em.run(Recipe.parse(text, folder=folder), cubes, out=tmp_path / "r")
    model = em.MiniBatchNMF(3, known=1000 * SPECTRA[1], random_state=0).fit(cubes)
    np.testing.assert_allclose(found["nmf"].components, model.components_, rtol=1e-9, atol=1e-15)
    assert found.field(found.fields[1])["nmf"].known.shape == (1, 48)


def test_a_plan_knows_them(folder, result) -> None:
    assert em.plan(folder / "r.yaml", out=folder / "other").fits
    with pytest.raises(InputError, match="digest alone"):
        em.plan(result.recipe, em.open(folder / "c.zarr"))
