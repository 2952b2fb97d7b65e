"""Diagnostics: noise is called noise, what is missing is found, variances are those of theory."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter1d

import emcube as em
from benchmarks.coverage import spectra
from benchmarks.coverage import stripes as scene
from emcube.engine import use_threads
from emcube.errors import InputError
from emcube.kernels.misfit import deviance_pixels, lagged
from emcube.kernels.shrinkage import shrink_factors


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    return scene(150.0).draw(np.random.default_rng(0)).chunk(y=12)


@pytest.fixture(scope="module")
def nmf(cube):
    return em.MiniBatchNMF(3, random_state=0).fit(cube)


@pytest.fixture(scope="module")
def found(nmf, cube):
    return em.diagnostics(nmf, cube).compute()


def words(dataset: xr.Dataset) -> str:
    return " ".join(dataset.attrs["said"])


def test_a_right_model_leaves_noise(found):
    assert abs(found.attrs["chi_square_mean"] - 1.0) < 0.05
    assert abs(float(found.deviance.mean()) - 1.0) < 0.1
    assert abs(float(found.chi_square_spectrum.mean()) - 1.0) < 0.1
    near = found.residual_correlation.isel(lag=0)
    error = found.residual_correlation_error.isel(lag=0)
    assert (np.abs(near) < 5.0 * error + 0.02).all()
    assert "leaves what counts leave" in words(found)
    assert "is not correlated" in words(found)
    assert found.chi_square.dims == ("y", "x")
    assert list(found.axis.values) == ["y", "x", "signal"]


def test_chi_square_and_deviance_are_those_of_the_formulas(nmf, cube, found):
    """One pixel by hand, with the groups that the quality of fit forms, too."""
    quality = em.results.fit_quality(cube, nmf.transform(cube), nmf.components_)
    np.testing.assert_allclose(found.chi_square, quality.chi_square, rtol=1e-6)
    np.testing.assert_allclose(found.chi_square_spectrum, quality.chi_square_spectrum, rtol=1e-6)
    rng = np.random.default_rng(0)
    mu = np.tile([0.03, 0.5, 4.0, 60.0], (4000, 1))
    x = rng.poisson(mu).astype(float)
    two = deviance_pixels(x, mu)
    by_hand = (np.where(x > 0, x * np.log(np.maximum(x, 1) / mu), 0.0) - x + mu).sum(axis=1)
    np.testing.assert_allclose(two[:, 0], by_hand, rtol=1e-10)
    assert two[:, 0].mean() == pytest.approx(two[0, 1], rel=0.05)


def test_a_pattern_of_the_scan_is_told_by_its_distance(cube):
    """As the zero peak of a detector makes it, whose counts differ from pixel to pixel of a line."""
    values = cube.values.copy()
    rng = np.random.default_rng(1)
    every_third = np.arange(values.shape[1]) % 3 == 0
    values[:, every_third, :2] += rng.poisson(12.0, values[:, every_third, :2].shape).astype(
        values.dtype
    )
    other = cube.copy(data=values)
    said = words(em.diagnostics(em.MiniBatchNMF(2, random_state=0).fit(other), other))
    assert "pixels 3 apart along x is alike" in said
    assert "scan" in said


def test_correlations_are_those_of_the_pairs():
    rng = np.random.default_rng(0)
    rest, used = rng.normal(size=(7, 5, 3)), rng.random((7, 5)) > 0.2
    rest[~used] = 0.0
    for axis, lag in ((0, 1), (1, 2), (0, 9)):
        expected = np.zeros(3)
        for i in range(7):
            for j in range(5):
                k, m = (i + lag, j) if axis == 0 else (i, j + lag)
                if k < 7 and m < 5 and used[i, j] and used[k, m]:
                    s = rest[i, j] @ rest[k, m]
                    square = 0.5 * (rest[i, j] @ rest[i, j] + rest[k, m] @ rest[k, m])
                    expected += (s, s * s, square)
        np.testing.assert_allclose(lagged(rest, used, axis, lag), expected)


def test_a_missing_component_is_told(cube):
    two = em.MiniBatchNMF(2, random_state=0).fit(cube)
    found = em.diagnostics(two, cube)
    assert found.attrs["chi_square_mean"] > 1.2
    assert "misses something" in words(found)
    assert "alike" in words(found)  # what is missing is a structure


def test_smoothed_data_are_told():
    """Counts that went through a filter scatter less, and their neighbours together."""
    some = scene(300.0).draw(np.random.default_rng(0))
    smooth = some.copy(
        data=np.rint(gaussian_filter1d(some.values.astype(float), 1.0, axis=1)).astype("u2")
    )
    nmf = em.MiniBatchNMF(3, random_state=0).fit(smooth)
    found = em.diagnostics(nmf, smooth)
    assert found.attrs["chi_square_mean"] < 0.8
    said = words(found)
    assert "scatter less than counts do" in said
    assert "neighbours along x is alike" in said


def test_variance_after_denoising_is_that_of_theory(found):
    """And far from that of counts: a tenth of it and less."""
    ratio = found.attrs["denoised_over_counting"] / found.attrs["theory_over_counting"]
    assert ratio == pytest.approx(1.0, abs=0.25)
    assert found.attrs["denoised_over_counting"] < 0.15
    full = found.n_cells > 300
    levels = (found.denoised_variance / found.theory_variance).where(full)
    # Of single levels within a factor: the noise of phases that differ is white on average only.
    assert 0.25 < float(levels.median()) < 2.0
    assert "Count statistics do not survive" in words(found)


def test_theory_of_the_variance_holds_over_realisations():
    """|u|^2 + |v|^2 - |u|^2 |v|^2 in the whitened space, against 200 draws denoised one by one."""
    rng = np.random.default_rng(0)
    share = rng.dirichlet([1.0, 1.0, 1.0], 150)
    mu = 400.0 * share @ spectra()
    made, predicted = [], []
    for _ in range(200):
        x = rng.poisson(mu).astype(float)
        g, h = x.sum(axis=1, keepdims=True), x.sum(axis=0)
        weight = np.sqrt(x.sum() / np.maximum(g * h, 1.0))
        u, s, vt = np.linalg.svd(x * weight, full_matrices=False)
        made.append((u[:, :3] * s[:3]) @ vt[:3] / weight)
        a, b = np.square(u[:, :3]).sum(axis=1, keepdims=True), np.square(vt[:3]).sum(axis=0)
        predicted.append(a + b - a * b)
    expected = (np.mean(predicted, axis=0) * mu).sum()
    assert np.var(made, axis=0).sum() == pytest.approx(expected, rel=0.1)


def test_denoised_line_intensities_of_a_rare_phase_are_biased_and_it_is_known():
    """Weak lines of a phase in few pixels lose intensity when too few components are kept."""
    truth = scene(60.0)
    cube = truth.draw(np.random.default_rng(3))
    line = slice(42, 47)  # of the third component alone
    exact = (truth.loadings @ truth.components)[..., line].sum(axis=-1)
    own = truth.loadings[..., 2] > 10.0
    for n, limit in ((3, 0.06), (1, 0.3)):
        pca = em.IncrementalPCA(n, noise="poisson").fit(cube)
        denoised = pca.inverse_transform(pca.transform(cube)).values[..., line].sum(axis=-1)
        bias = denoised[own].sum() / exact[own].sum() - 1.0
        assert (abs(bias) < limit) if n == 3 else (bias < -limit)


def test_bias_of_lines_is_found_from_halves_and_is_that_of_the_truth():
    """Nickel and chromium where they are, with one principal component too few and with enough of them."""
    scene = em.scenes.srm2135c(scale=0.004, random_state=0)
    nmf = em.MiniBatchNMF(3, random_state=0).fit(scene.cube)
    lines = ["Cr_Ka", "Ni_Ka", "Si_Ka"]
    enough = em.diagnostics(nmf, scene.cube, lines=lines)
    assert enough.line_bias.dims == ("component", "line")
    near = np.abs(enough.line_bias) < 4.0 * enough.line_bias_error + 0.02
    counted = enough.line_bias_error < 0.02
    assert bool(near.where(counted, True).all())
    few = em.diagnostics(nmf, scene.cube, lines=lines, n_components=1)
    assert float(np.abs(few.line_bias.where(few.line_bias_error < 0.02)).max()) > 0.2
    assert "denoising makes too" in words(few)
    assert words(few).count("denoising makes too") <= 4
    # A panel of its own in the figure.
    assert (
        len(em.plot.diagnostics(few).axes)
        == len(em.plot.diagnostics(enough.drop_dims("line")).axes) + 1
    )
    # The same from the whole counts and the truth: where each component is, over its true counts.
    pca = em.IncrementalPCA(1, noise="poisson").fit(scene.cube)
    denoised = pca.inverse_transform(pca.transform(scene.cube))
    exact = scene.loadings.dot(scene.components, dim="component").transpose(*denoised.dims)
    h = nmf.transform(scene.cube)
    from emcube.cube.lines import line_windows

    for i, window in enumerate(line_windows(scene.cube, lines)):
        a, b = (v.isel(energy=window).sum("energy") for v in (denoised, exact))
        nav = [d for d in h.dims if d != "component"]
        expected = (h * (a - b)).sum(nav) / (h * b).sum(nav)
        sure = few.line_bias_error.isel(line=i) < 0.02
        apart = np.abs(few.line_bias.isel(line=i) - expected)
        assert bool((apart < 0.1 + 0.1 * np.abs(expected)).where(sure, True).all())
    with pytest.raises(InputError, match="need an energy axis"):
        em.diagnostics(
            em.MiniBatchNMF(2).fit(np.ones((9, 5), int)), np.ones((9, 5), int), lines=["Si_Ka"]
        )


def test_shrinkage_brings_the_cube_nearer_to_the_truth():
    truth = scene(25.0)
    cube = truth.draw(np.random.default_rng(5))
    exact = truth.loadings @ truth.components
    pca = em.IncrementalPCA(12, noise="poisson").fit(cube)
    scores = pca.transform(cube)
    plain, shrunk = (pca.inverse_transform(scores, shrinkage=s).values for s in (False, True))
    weight = 1.0 / np.maximum(exact, 1e-3)
    errors = [float((weight * (v - exact) ** 2).sum()) for v in (plain, shrunk)]
    assert errors[1] < 0.8 * errors[0]


def test_shrink_factors_are_those_of_gavish_and_donoho():
    rng = np.random.default_rng(0)
    signal = 3.0 * np.outer(rng.normal(size=400), rng.normal(size=200)) / np.sqrt(200)
    x = signal + rng.normal(size=(400, 200))
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    factors = shrink_factors(s, 1.0, x.shape)
    assert (factors[1:] < 0.2).all()
    best = float((u[:, 0] @ signal @ vt[0]) / s[0])  # the factor that is best for this draw
    assert factors[0] == pytest.approx(best, abs=0.04)
    np.testing.assert_array_equal(shrink_factors(s[:2], 0.0, x.shape), [1.0, 1.0])


def test_least_squares_have_their_shape_looked_at_alone():
    rng = np.random.default_rng(0)
    truth = scene(100.0)
    exact = truth.loadings @ truth.components
    noisy = em.make_cube(
        exact + rng.normal(0, 0.4, exact.shape), dims=("y", "x", "energy"), sig_dims=("energy",)
    )
    nmf = em.MiniBatchNMF(3, beta_loss="frobenius", random_state=0).fit(noisy)
    found = em.diagnostics(nmf, noisy)
    assert "deviance" not in found
    assert "denoised_variance" not in found
    assert float(found.chi_square.mean()) == pytest.approx(1.0, abs=0.05)
    assert "Only its shape says something" in words(found)


def test_same_bits_and_lazy_maps(nmf, cube, found):
    with use_threads(1):
        one = em.diagnostics(nmf, cube).compute()
    xr.testing.assert_identical(one, found)

    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        assert hasattr(em.diagnostics(nmf, cube).chi_square.data, "dask")


def test_worker_processes_give_the_same_bits(nmf, cube, found, cluster_client):
    with cluster_client.as_current():
        there = em.diagnostics(nmf, cube)
    for name in ("denoised_variance", "residual_correlation", "chi_square_spectrum"):
        np.testing.assert_array_equal(there[name], found[name])


def test_selections_and_refusals(nmf, cube):
    pixels = (cube.y < 14).broadcast_like(cube.isel(energy=0, drop=True))
    found = em.diagnostics(nmf, cube, where=pixels).compute()
    assert np.isnan(found.chi_square.values[14:]).all()
    assert np.isfinite(found.chi_square.values[:14]).all()
    with pytest.raises(InputError, match="max_lag"):
        em.diagnostics(nmf, cube, max_lag=0)
    with pytest.raises(InputError, match="n_components must be None or"):
        em.diagnostics(nmf, cube, n_components=0)
    with pytest.raises(InputError, match="not negative"):
        em.diagnostics(em.IncrementalPCA(2).fit(cube), cube)


def test_a_figure_is_drawn(found):
    assert len(em.plot.diagnostics(found).axes) >= 3
    with pytest.raises(InputError, match="missing"):
        em.plot.diagnostics(found.drop_vars("residual_correlation"))
    # What several cubes have in common has no map.
    assert len(em.plot.diagnostics(found.drop_vars("chi_square")).axes) == 2
