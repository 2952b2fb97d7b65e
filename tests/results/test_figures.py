"""Figures and files as methods of results and estimators, on small runs."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import xarray as xr
from matplotlib.figure import Figure

import emcube as em
from emcube.errors import InputError
from emcube.models.nmf import MiniBatchNMF

LINES = ["Na_Ka", "Si_Ka", "Fe_Ka"]


def fixed(cube: xr.DataArray, out, **more) -> em.results.Result:
    steps = [
        {"estimate_n_components": {}},
        {"pca": {"n_components": 6, **more}},
        {"nmf": {"n_components": 5, "random_state": 0, "max_iter": 5}},
        {"kmeans": {"n_clusters": 3, "on": "nmf", "random_state": 0}},
        {"kmeans": {"name": "direct", "n_clusters": 3, "random_state": 0}},
    ]
    return em.run({"emcube": 1, "steps": steps}, cube, out=out)


@pytest.fixture(scope="module")
def cube():
    made = em.scenes.jadeite(scale=0.01, random_state=0).cube.compute()
    image = xr.DataArray(
        np.arange(made[..., 0].size, dtype=float).reshape(made.shape[:2]), dims=("y", "x")
    )
    return made.assign_coords(HAADF=image)


@pytest.fixture(scope="module")
def result(cube, tmp_path_factory):
    return fixed(cube, tmp_path_factory.mktemp("run") / "result")


def test_denoised_lines_are_those_of_the_denoised_cube(cube, result):
    for step, n in (("pca", 5), ("pca", None), ("nmf", None)):
        slow = result.denoised(step, n).em.lines(LINES)
        fast = result.lines(LINES, step, n)
        assert hasattr(fast.data, "dask")
        assert fast.dims == slow.dims
        np.testing.assert_allclose(fast, slow, atol=1e-8)
    pca = em.IncrementalPCA(6).fit(cube)
    np.testing.assert_allclose(
        result.denoised("pca"), pca.inverse_transform(pca.transform(cube)), atol=1e-8
    )
    rebuilt = result.denoised("pca", 5)
    assert rebuilt.attrs["sig_dims"] == ["energy"]
    assert rebuilt.em.modality == "EDS"


@pytest.mark.parametrize("more", [{"noise": None}, {"noise": "poisson", "remove_trivial": True}])
def test_a_pca_that_is_centred_or_without_the_trivial_part_is_rebuilt(cube, tmp_path, more):
    small = cube.isel(y=slice(12), x=slice(12))
    run = em.run(
        {"emcube": 1, "steps": [{"pca": {"n_components": 4, **more}}]}, small, out=tmp_path / "r"
    )
    pca = em.IncrementalPCA(4, **more).fit(small)
    expected = pca.inverse_transform(pca.transform(small))
    np.testing.assert_allclose(run.denoised(), expected, atol=1e-8)
    fewer = run.denoised(n_components=2)
    assert float(((fewer - expected) ** 2).sum()) > 1.0
    quality = run.quality(small).compute()
    loads, spectra = pca._model_of(small, None)
    direct = em.results.fit_quality(small, loads, spectra)
    np.testing.assert_allclose(quality.residual, direct.residual, rtol=1e-8)


def test_a_model_that_is_not_there_is_refused(result):
    with pytest.raises(InputError, match="from 1 to 6"):
        result.denoised("pca", 7)
    with pytest.raises(InputError, match="whole or nothing"):
        result.denoised("nmf", 2)
    with pytest.raises(InputError, match="describes no cube"):
        result.denoised("kmeans")


def test_five_components_leave_noise_and_fewer_leave_more(cube, result):
    five, three = (result.quality(cube, "pca", n).chi_square.compute() for n in (5, 3))
    assert float(five.mean()) == pytest.approx(1.0, abs=0.05)
    assert float(three.mean()) > float(five.mean()) + 0.05
    assert float(three.quantile(0.99)) > 1.2 * float(five.quantile(0.99))


def test_every_figure_of_a_result(cube, result):
    figures = [
        result.plot_scree(),
        result.plot_components("pca"),
        result.plot_centers("kmeans"),
        result.plot_centers("direct"),
        result.plot_composite(),
        result.plot_overlay(),
        result.plot_overlay(image="total_counts"),
        result.plot_denoised(cube, n_components=4),
        result.plot_quality(cube),
    ]
    assert all(isinstance(figure, Figure) for figure in figures)
    scree, overlay, denoised = figures[0], figures[5], figures[7]
    said = [t.get_text() for t in scree.axes[0].get_legend().get_texts()]
    assert "number of components: 5" in said
    assert any("floor" in text for text in said)
    np.testing.assert_array_equal(overlay.axes[0].images[0].get_array(), cube["HAADF"])
    titles = [axes.get_title() for axes in denoised.axes if axes.get_title()]
    assert titles == ["Na Kα", "Mg Kα", "Al Kα", "Si Kα", "Ca Kα", "Fe Kα", "O Kα", "C Kα"]
    assert "PCA, n = 4" in [axes.get_ylabel() for axes in denoised.axes]
    with pytest.raises(InputError, match="'BF'"):
        result.plot_overlay(image="BF")


def test_a_tilt_series_is_drawn_as_a_montage(tmp_path):
    series = em.scenes.srm2135c(scale=0.01, random_state=0).cube
    steps = [{"nmf": {"n_components": 3, "random_state": 0, "max_iter": 2}}]
    run = em.run({"emcube": 1, "steps": steps}, series, out=tmp_path / "r")
    figure = run.plot_montage(component=2)
    assert sum(bool(axes.images) for axes in figure.axes) == series.sizes["tilt"]
    raw = run.plot_denoised(series, ["Ni_Ka"], max_frames=2)
    assert [a.get_ylabel() for a in raw.axes if a.get_ylabel()][:1] == ["Ni Kα\nraw"]
    (stack,) = [p for p in run.save_maps(tmp_path / "maps") if p.name == "nmf-loadings.tif"]
    with tifffile.TiffFile(stack) as file:
        assert file.series[0].axes == "ZCYX"


def test_files_of_a_result(result, tmp_path):
    saved = {p.name for p in result.save_maps(tmp_path)}
    assert saved == {
        "input-total_counts.tif", "input-HAADF.tif", "pca-loadings.tif", "nmf-loadings.tif",
        "kmeans-labels.tif", "direct-labels.tif",
    }  # fmt: skip
    with tifffile.TiffFile(tmp_path / "nmf-loadings.tif") as file:
        assert result.run_id in file.imagej_metadata["Info"]
        assert file.imagej_metadata["unit"] == "micron"
    tables = {p.name for p in result.save_spectra(tmp_path)}
    assert tables == {
        "input-sum_spectrum.csv", "pca-components.csv", "nmf-components.csv",
        "direct-cluster_centers.csv",
    }  # fmt: skip
    rows = np.genfromtxt(tmp_path / "nmf-components.csv", delimiter=",", skip_header=1)
    np.testing.assert_array_equal(rows[:, 1:].T, result["nmf"]["components"])
    spectra = {p.name for p in result.save_spectra(tmp_path, suffix=".msa")}
    assert {"input-sum_spectrum.msa", "nmf-components-4.msa"} <= spectra
    back = em.open(tmp_path / "nmf-components-4.msa")
    np.testing.assert_array_equal(back, result["nmf"]["components"][4])
    exported = em.export(result, tmp_path / "all.tif")
    assert {p.name for p in exported.files} == {f"all-{name}" for name in saved}


def test_a_line_scan_is_saved_as_tables(cube, tmp_path):
    steps = [{"nmf": {"n_components": 2, "random_state": 0, "max_iter": 2, "pool": 1}}]
    run = em.run(
        {"emcube": 1, "steps": steps},
        cube.isel(y=5, drop=True).drop_vars("HAADF"),
        out=tmp_path / "r",
    )
    saved = run.save_maps(tmp_path / "maps")
    assert {p.name for p in saved} == {"input-total_counts.csv", "nmf-loadings.csv"}
    assert isinstance(run.plot_composite(), Figure)


def test_figures_of_estimators(cube):
    small = cube.isel(y=slice(16), x=slice(20))
    pca = em.IncrementalPCA(4).fit(small)
    nmf = MiniBatchNMF(3, random_state=0, max_iter=3, sum_to_one=True).fit(small)
    km = em.KMeans(3, random_state=0).fit(small)
    figures = [
        pca.plot_scree(n_components=3), pca.plot_components(), pca.plot_loadings(small),
        nmf.plot_components(), nmf.plot_composite(small), nmf.plot_overlay(small, "HAADF"),
        nmf.plot_quality(small), km.plot_labels(), km.plot_centers(),
    ]  # fmt: skip
    assert all(isinstance(figure, Figure) for figure in figures)
    assert "Si Kα" in [t.get_text() for axes in figures[3].axes for t in axes.texts]
    # With abundances, too, the model is that of the counts.
    chi = figures[6].axes[0].images[0].get_array()
    assert float(np.nanmean(chi)) == pytest.approx(1.0, abs=0.6)
    with pytest.raises(InputError, match="'BF'"):
        nmf.plot_overlay(small, "BF")
    with pytest.raises(em.errors.NotFittedError):
        em.KMeans(3).plot_labels()


def test_figures_of_estimators_on_matrices():
    counts = np.random.default_rng(0).poisson(5.0, (60, 12))
    pca = em.IncrementalPCA(3).fit(counts)
    assert isinstance(pca.plot_scree(), Figure)
    assert pca.plot_components().axes[-1].get_xlabel() == "column"
    with pytest.raises(InputError, match="a labelled cube, got ndarray"):
        pca.plot_loadings(counts)
