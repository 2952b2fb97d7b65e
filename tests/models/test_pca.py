"""IncrementalPCA: parity with scikit-learn without weights, labels, refusals, partial fits."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import PCA

import emcube as em
from emcube.engine import use_threads
from emcube.errors import InputError


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    low_rank = rng.normal(size=(300, 5)) * [9, 6, 4, 2, 1.5] @ rng.normal(size=(5, 40))
    return low_rank + rng.normal(0, 0.3, (300, 40)) + 20


@pytest.fixture(scope="module")
def cube():
    rng = np.random.default_rng(1)
    spectra = rng.dirichlet(np.full(50, 0.5), 3)
    counts = rng.poisson(rng.dirichlet(np.ones(3), (16, 15)) @ spectra * 300).astype(np.uint16)
    counts[..., 7] = 0
    return em.make_cube(
        counts,
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": 0.1 + 0.02 * np.arange(50)},
        units={"energy": "keV", "x": "nm", "y": "nm"},
    )


@pytest.mark.parametrize("k", [1, 4, 40])
def test_without_weights_equals_scikit_learn(values, k):
    ours = em.IncrementalPCA(k, noise=None).fit(values)
    theirs = PCA(k, svd_solver="full").fit(values)
    np.testing.assert_allclose(ours.components_, theirs.components_, atol=1e-6)
    np.testing.assert_allclose(ours.mean_, theirs.mean_, rtol=1e-12)
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8)
    np.testing.assert_allclose(ours.transform(values), theirs.transform(values), atol=1e-6)
    np.testing.assert_allclose(
        ours.inverse_transform(ours.transform(values)),
        theirs.inverse_transform(theirs.transform(values)),
        atol=1e-6,
    )
    if k < 40:
        assert ours.noise_variance_ == pytest.approx(theirs.noise_variance_, rel=1e-8)
        assert ours.score(values) == pytest.approx(theirs.score(values), rel=1e-8)
    assert not ours.trivial_first_


@pytest.mark.parametrize("options", [{}, {"remove_trivial": True}, {"noise": None}])
def test_eigenvalues_of_components_that_were_not_kept(cube, options):
    every = em.IncrementalPCA(**options).fit(cube)
    some = em.IncrementalPCA(4, **options).fit(cube)
    assert some.eigenvalues_.dims == ("component",)
    assert some.eigenvalues_.sizes == {"component": 50}
    atol = 1e-12 * float(every.eigenvalues_[0])
    np.testing.assert_allclose(some.eigenvalues_, every.explained_variance_, atol=atol)
    np.testing.assert_array_equal(some.eigenvalues_[:4], some.explained_variance_)
    assert (every.eigenvalues_.values >= 0).all()
    assert (np.diff(every.eigenvalues_.values) <= 0).all()
    left = float(some.eigenvalues_[4:].sum() / (50 - 4))
    assert left == pytest.approx(some.noise_variance_, rel=1e-9)


@pytest.mark.parametrize("options", [{}, {"remove_trivial": True}])
def test_scores_of_a_fit_come_at_once_where_its_blocks_stayed(cube, options, monkeypatch):
    lazy = cube.chunk({"y": 4})
    model = em.IncrementalPCA(4, **options)
    scores = model.fit_transform(lazy)
    assert scores.chunks is None
    later = model.transform(lazy)
    assert later.chunks is not None
    xr.testing.assert_identical(scores, later.compute())
    for name, value in (
        ("MAX_AT_ONCE", 4 * 8 * 16 * 15 - 1),
        ("all_resident", lambda source: False),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"emcube.models.labels.{name}", value)
            large = model.fit_transform(lazy)
        assert large.chunks is not None
        xr.testing.assert_identical(large.compute(), scores)


def test_there_are_as_many_eigenvalues_as_pixels_or_channels(values):
    few = em.IncrementalPCA(3, noise=None).fit(values[:12])
    assert few.eigenvalues_.shape == (12,)
    theirs = PCA(svd_solver="full").fit(values[:12])
    np.testing.assert_allclose(few.eigenvalues_, theirs.explained_variance_, atol=1e-10)
    drawn = em.IncrementalPCA(3, noise=None, svd_solver="randomized", random_state=0).fit(values)
    assert drawn.eigenvalues_.shape == (3,)
    assert few.plot_scree().axes[0].get_ylabel().startswith("explained variance")


def test_a_high_pedestal_does_not_cost_digits(values):
    ours = em.IncrementalPCA(4, noise=None).fit(values + 1e7)
    plain = em.IncrementalPCA(4, noise=None).fit(values)
    np.testing.assert_allclose(ours.explained_variance_, plain.explained_variance_, rtol=1e-7)


def test_n_components_none_keeps_all(values):
    assert em.IncrementalPCA(noise=None).fit(values).n_components_ == 40
    assert em.IncrementalPCA(noise=None).fit(values[:12]).n_components_ == 12


@pytest.mark.parametrize("noise", ["poisson", None])
def test_partial_fits_equal_one_fit(cube, noise):
    whole = em.IncrementalPCA(6, noise=noise).fit(cube)
    parts = em.IncrementalPCA(6, noise=noise)
    for rows in (slice(0, 1), slice(1, 9), slice(9, 16)):
        parts.partial_fit(cube.isel(y=rows))
    assert parts.n_samples_seen_ == whole.n_samples_seen_ == 240
    for name in ("explained_variance_", "singular_values_", "explained_variance_ratio_"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-10)
    # Spectra of the same signal: components of noise are not determined to more digits than this.
    np.testing.assert_allclose(parts.components_[:3], whole.components_[:3], atol=1e-10)


def test_fit_starts_anew_and_partial_fit_goes_on(cube):
    pca = em.IncrementalPCA(3).fit(cube.isel(y=slice(4)))
    pca.partial_fit(cube.isel(y=slice(4, None)))
    np.testing.assert_allclose(
        pca.explained_variance_, em.IncrementalPCA(3).fit(cube).explained_variance_, rtol=1e-10
    )
    assert pca.fit(cube.isel(y=slice(4))).n_samples_seen_ == 60


def test_partial_fit_keeps_the_channels_of_the_first_call(cube):
    upper = cube.energy > 0.3
    pca = em.IncrementalPCA(3).partial_fit(cube.isel(y=slice(8)), where=upper)
    pca.partial_fit(cube.isel(y=slice(8, None)))
    whole = em.IncrementalPCA(3).fit(cube, where=upper)
    np.testing.assert_allclose(pca.explained_variance_, whole.explained_variance_, rtol=1e-10)
    assert np.isnan(pca.components_.where(~upper, drop=True)).all()


def test_labels(cube):
    pca = em.IncrementalPCA(4).fit(cube)
    assert pca.components_.dims == ("component", "energy")
    assert pca.components_.energy.attrs["units"] == "keV"
    assert pca.components_.attrs["units"] == "1 per channel"
    assert pca.explained_variance_.dims == ("component",)
    scores = pca.transform(cube)
    assert scores.dims == ("y", "x", "component")
    assert scores.attrs["units"] == cube.attrs["units"]
    rebuilt = pca.inverse_transform(scores)
    assert rebuilt.dims == cube.dims
    xr.testing.assert_equal(rebuilt.energy, cube.energy)
    assert abs(float(rebuilt.sum()) / float(cube.sum()) - 1) < 1e-9
    # With the mean spectrum first, its score is the pixel's total.
    np.testing.assert_allclose(scores.isel(component=0), cube.sum("energy"), rtol=1e-10)


def test_denoising_is_lazy_and_brings_the_expectation_nearer():
    rng = np.random.default_rng(2)
    spectra = rng.dirichlet(np.ones(60), 3)
    expected = rng.dirichlet(np.ones(3), (30, 30)) @ spectra * 200
    counts = rng.poisson(expected).astype(np.uint8)
    cube = em.make_cube(
        da.from_array(counts, chunks=(7, 13, 60)), dims=("y", "x", "energy"), sig_dims=("energy",)
    )
    for remove in (False, True):
        pca = em.IncrementalPCA(3 - remove, remove_trivial=remove).fit(cube)
        scores = pca.transform(cube)
        rebuilt = pca.inverse_transform(scores)
        assert hasattr(scores.data, "dask")
        assert hasattr(rebuilt.data, "dask")
        error = np.square(rebuilt.values - expected).sum()
        assert error < 0.15 * np.square(counts - expected).sum()


def test_pure_poisson_noise_has_variance_one():
    rng = np.random.default_rng(3)
    spectrum = rng.dirichlet(np.full(60, 3.0))
    counts = rng.poisson(np.outer(rng.uniform(200, 900, 4000), spectrum))
    pca = em.IncrementalPCA(1).fit(counts)
    assert pca.noise_variance_ == pytest.approx(1, abs=0.02)
    rest = em.IncrementalPCA(59, remove_trivial=True).fit(counts).explained_variance_
    # The Marchenko-Pastur law ends at (1 +- sqrt(E / P))^2.
    assert rest.max() < (1 + np.sqrt(60 / 4000)) ** 2 * 1.02
    assert rest.min() > (1 - np.sqrt(60 / 4000)) ** 2 * 0.95


def test_selected_pixels_only(cube):
    used = xr.DataArray(np.arange(16) > 3, dims="y", coords={"y": cube.y})
    pca = em.IncrementalPCA(3).fit(cube, where=used)
    part = em.IncrementalPCA(3).fit(cube.isel(y=slice(4, None)))
    np.testing.assert_allclose(pca.explained_variance_, part.explained_variance_, rtol=1e-12)
    scores = pca.fit_transform(cube, where=used)
    assert np.isnan(scores.isel(y=slice(4))).all()
    assert not np.isnan(scores.isel(y=slice(4, None))).any()


def test_score_knows_other_data():
    rng = np.random.default_rng(4)
    spectra = rng.dirichlet(np.full(40, 0.5), 3)

    def draw(which):
        mix = rng.dirichlet(np.ones(3), 500)[:, which] * 300
        return rng.poisson(mix @ spectra[which])

    seen, same, other = draw([0, 1]), draw([0, 1]), draw([1, 2])
    for remove in (False, True):
        pca = em.IncrementalPCA(2, remove_trivial=remove).fit(seen)
        assert pca.score(same) > pca.score(other)


@pytest.mark.parametrize(
    ("parameters", "values", "words"),
    [
        ({"n_components": 0}, np.ones((9, 5), int), "n_components must be"),
        ({"n_components": 2.5}, np.ones((9, 5), int), "n_components must be"),
        ({"n_components": 6}, np.ones((9, 5), int), "at most 5"),
        ({"n_components": 5}, np.ones((3, 9), int), "at most 3"),
        ({"noise": "gaussian"}, np.ones((9, 5), int), "noise must be"),
        ({"svd_solver": "full"}, np.ones((9, 5), int), "svd_solver must be"),
        ({"max_iter": 0}, np.ones((9, 5), int), "max_iter"),
        ({"noise": "poisson"}, -np.ones((9, 5)), "must not be negative"),
        ({"noise": None}, np.full((9, 5), np.nan), "must be finite"),
        ({"n_components": None, "svd_solver": "randomized"}, np.ones((9, 5)), "n_components is"),
    ],
)
def test_refusals(parameters, values, words):
    with pytest.raises(InputError, match=words):
        em.IncrementalPCA(**parameters).fit(values)


def test_partial_fit_is_refused_by_the_other_solvers(monkeypatch, cube):
    with pytest.raises(InputError, match="partial_fit needs"):
        em.IncrementalPCA(3, svd_solver="randomized").partial_fit(cube)
    fitted = em.IncrementalPCA(3, svd_solver="randomized", random_state=0).fit(cube)
    fitted.set_params(svd_solver="auto")
    with pytest.raises(InputError, match="cannot go on"):
        fitted.partial_fit(cube)
    monkeypatch.setattr("emcube.models.pca.MAX_GRAM", 20)
    with pytest.raises(InputError, match="at most 20 channels"):
        em.IncrementalPCA(3).partial_fit(cube)


def test_wrong_scores_are_refused(cube):
    pca = em.IncrementalPCA(3, remove_trivial=True).fit(cube)
    with pytest.raises(InputError, match="3 components"):
        pca.inverse_transform(np.ones((5, 2)))
    with pytest.raises(InputError, match="totals are needed"):
        pca.inverse_transform(np.ones((5, 3)))
    with pytest.raises(InputError, match="dim 'component'"):
        pca.inverse_transform(pca.transform(cube).rename(component="k"))
    everything = em.IncrementalPCA().fit(cube)
    with pytest.raises(InputError, match="needs noise"):
        everything.score(cube)


def test_a_failed_fit_leaves_the_earlier_one(cube):
    pca = em.IncrementalPCA(3).fit(cube)
    before = pca.explained_variance_.copy()
    with pytest.raises(InputError):
        pca.fit(cube.astype(float) * np.nan)
    xr.testing.assert_equal(pca.explained_variance_, before)


def test_empty_cube_of_counts():
    pca = em.IncrementalPCA(2).fit(np.zeros((8, 5), np.uint8))
    np.testing.assert_array_equal(pca.explained_variance_, [0, 0])
    np.testing.assert_array_equal(pca.transform(np.zeros((8, 5), np.uint8)), np.zeros((8, 2)))


def test_counts_too_rare_for_weights_are_told():
    counts = np.zeros((30, 20), np.uint8)
    counts[np.arange(20), np.arange(20)] = 1
    with pytest.warns(UserWarning, match="as strong as the mean spectrum"):
        em.IncrementalPCA(3).fit(counts)


def test_the_same_bits_on_any_number_of_threads(cube):
    lazy = cube.chunk(y=3, x=5)
    answers = []
    for n in (1, 2, 4):
        with use_threads(n):
            answers.append(em.IncrementalPCA(5).fit(lazy))
    for other in answers[1:]:
        np.testing.assert_array_equal(other.components_, answers[0].components_)
        np.testing.assert_array_equal(other.explained_variance_, answers[0].explained_variance_)


@pytest.mark.parametrize("shape", [(100, 30), (20, 30), (30, 5000)])
def test_all_components_without_the_trivial_one_rebuild_the_cube(shape):
    counts = np.random.default_rng(0).poisson(0.5, shape)
    pca = em.IncrementalPCA(noise="poisson", remove_trivial=True).fit(counts)
    totals = counts.sum(axis=1)
    np.testing.assert_allclose(
        pca.inverse_transform(pca.transform(counts), totals=totals), counts, atol=1e-10
    )


def test_components_of_the_pixel_side_are_orthonormal_to_the_last():
    values = np.random.default_rng(1).normal(size=(20, 5000))
    pca = em.IncrementalPCA(noise=None).fit(values)
    assert pca.solver_ == "pixels"
    np.testing.assert_allclose(pca.components_ @ pca.components_.T, np.eye(20), atol=1e-12)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ma.masked_less(np.arange(12.0).reshape(3, 4), 2), "masked: 2 of its 12 values"),
        (xr.Dataset({"data": (("x", "energy"), np.ones((3, 4)))}), "a Dataset with data"),
    ],
)
def test_what_is_no_matrix_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        em.IncrementalPCA(1).fit(values)


@pytest.mark.parametrize(
    "parameters",
    [{"tol": "a"}, {"n_oversamples": 2.5}, {"max_iter": None}, {"remove_trivial": "no"}],
)
def test_parameters_of_wrong_types_are_refused(values, parameters):
    with pytest.raises(InputError, match=f"{next(iter(parameters))} must be"):
        em.IncrementalPCA(2, **parameters).fit(values)


@pytest.mark.parametrize("size", [1e-120, 1e100])
def test_the_randomized_solver_takes_extreme_values(size):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 60)) + 0.1 * rng.normal(size=(300, 60))
    settings = {"noise": None, "svd_solver": "randomized", "random_state": 0}
    want = em.IncrementalPCA(3, **settings).fit(values)
    found = em.IncrementalPCA(3, **settings).fit(values * size)
    np.testing.assert_allclose(found.components_, want.components_, atol=1e-6)
    np.testing.assert_allclose(found.singular_values_ / size, want.singular_values_, rtol=1e-9)
    np.testing.assert_allclose(
        found.explained_variance_ratio_, want.explained_variance_ratio_, rtol=1e-9
    )
    assert found.converged_


@pytest.mark.parametrize("solver", ["gram", "randomized"])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_values_whose_squares_overflow_are_refused(solver):
    values = 1e180 * np.random.default_rng(0).normal(size=(50, 8))
    with pytest.raises(InputError, match="too large"):
        em.IncrementalPCA(2, noise=None, svd_solver=solver).fit(values)
