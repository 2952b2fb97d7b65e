"""What every estimator keeps: one suite, and a model passes by being listed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import xarray as xr
from sklearn.base import clone

import emcube as em
from emcube.engine import use_threads
from emcube.errors import CubeError, InputError, NotFittedError, SelectionError

Make = Callable[[], Any]

COUNTS_ONLY = (
    "pca-poisson",
    "nmf-kl",
    "nmf-sparse",
    "ica-spatial",
    "kmeans-profiles",
    "gaussian-mixture-profiles",
)
COUNTS_ONLY += ("poisson-mixture",)
"""Of these the parameters say that values are counts, whatever their dtype."""

ESTIMATORS: dict[str, Make] = {
    "pca-poisson": lambda: em.IncrementalPCA(n_components=3, noise="poisson"),
    "pca-centred": lambda: em.IncrementalPCA(n_components=3, noise=None),
    "nmf-kl": lambda: em.MiniBatchNMF(3, random_state=0),
    "nmf-frobenius": lambda: em.MiniBatchNMF(3, beta_loss="frobenius", random_state=0),
    # Other variants need channels with energies or an image: see tests/models/test_nmf_variants.py.
    "nmf-sparse": lambda: em.MiniBatchNMF(3, sparsity=0.3, random_state=0),
    "ica-spectral": lambda: em.FastICA(3, random_state=0),
    "ica-spatial": lambda: em.FastICA(3, noise="poisson", domain="spatial", random_state=0),
    "varimax": lambda: em.Varimax(3, random_state=0),
    "varimax-centred": lambda: em.Varimax(3, noise=None, domain="spectral", random_state=0),
    "mcr": lambda: em.MCRALS(3, random_state=0),
    "mcr-closed": lambda: em.MCRALS(3, noise=None, closure=True, random_state=0),
    "bayes-counts": lambda: em.BayesianUnmixing(3, n_chains=2, n_draws=20, random_state=0),
    "bayes-dense": lambda: em.BayesianUnmixing(
        3, noise=None, n_chains=2, n_draws=20, random_state=0
    ),
    "vca": lambda: em.VCA(3, random_state=0),
    "vca-fcls": lambda: em.VCA(3, noise=None, random_state=0),
    "nfindr": lambda: em.NFINDR(3, random_state=0),
    "sisal": lambda: em.SISAL(3, random_state=0),
    "kmeans-profiles": lambda: em.KMeans(3, features="profiles", random_state=0),
    "kmeans-counts": lambda: em.KMeans(3, features="counts", random_state=0),
    "gaussian-mixture-profiles": lambda: em.GaussianMixture(3, features="profiles", random_state=0),
    "gaussian-mixture-scores": lambda: em.GaussianMixture(
        3, features="scores", covariance_type="tied", random_state=0
    ),
    "gaussian-mixture-counts": lambda: em.GaussianMixture(
        3, features="counts", covariance_type="diag", random_state=0
    ),
    "poisson-mixture": lambda: em.PoissonMixture(3, random_state=0),
}


@pytest.fixture(params=sorted(ESTIMATORS))
def make(request) -> Make:
    return ESTIMATORS[request.param]


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    """Three phases in 18 x 20 pixels of 60 counts, 40 channels."""
    rng = np.random.default_rng(3)
    spectra = rng.dirichlet(np.full(40, 0.3), 3)
    phase = (np.add.outer(np.arange(18) // 6, np.zeros(20, int))) % 3
    mix = 0.85 * np.eye(3)[phase] + 0.05
    counts = rng.poisson(60 * mix @ spectra).astype(np.uint16)
    return em.make_cube(
        counts,
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": 0.1 * np.arange(40) + 0.2, "x": np.arange(20) * 4.0},
        units={"energy": "keV", "x": "nm", "y": "nm"},
    )


def answer(model: Any, cube: Any) -> Any:
    """Loadings or labels of a cube."""
    return model.predict(cube) if hasattr(model, "predict") else model.transform(cube)


def spectra_of(model: Any) -> Any:
    return model.cluster_centers_ if hasattr(model, "predict") else model.components_


def test_parameters_are_stored_and_cloned(make):
    model = make()
    twin = clone(model)
    assert twin is not model
    assert twin.get_params() == model.get_params()
    for key, value in model.get_params().items():
        assert getattr(model.set_params(**{key: value}), key) is value


def test_nothing_is_answered_before_fit(make, cube):
    model = make()
    with pytest.raises(NotFittedError, match="call fit"):
        answer(model, cube)


def test_answers_are_labelled(make, cube):
    model = make()
    assert model.fit(cube) is model
    spectra = spectra_of(model)
    assert spectra.sizes["energy"] == 40
    assert spectra.sizes[spectra.dims[0]] == 3
    assert spectra.energy.attrs["units"] == "keV"
    xr.testing.assert_equal(
        spectra.energy.reset_coords(drop=True), cube.energy.reset_coords(drop=True)
    )
    maps = answer(model, cube)
    assert maps.dims[:2] == ("y", "x")
    assert maps.x.attrs["units"] == "nm"
    np.testing.assert_array_equal(maps.x, cube.x)
    assert np.isfinite(maps.values).all()


def test_a_bare_matrix_gives_bare_arrays_of_the_same_values(make, cube):
    labelled = make().fit(cube)
    matrix = cube.values.reshape(-1, 40)
    for bare in (matrix, scipy.sparse.csr_matrix(matrix), da.from_array(matrix, chunks=(100, 40))):
        model = make().fit(bare)
        assert isinstance(spectra_of(model), np.ndarray)
        maps = np.asarray(answer(model, bare))
        assert maps.shape[0] == 360
        # The blocks differ from the cube's, hence not the same bits.
        np.testing.assert_allclose(
            spectra_of(model), spectra_of(labelled).values, rtol=0.02, atol=2e-3
        )


def test_transform_of_a_lazy_cube_is_lazy(make, cube):
    lazy = cube.chunk(y=5, x=7)
    model = make().fit(lazy)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        maps = answer(model, lazy)
        assert hasattr(maps.data, "dask")
    eager = answer(model, cube)
    np.testing.assert_allclose(maps.values, eager.values, atol=1e-9)


def test_one_two_and_four_threads_give_the_same_bits(make, cube):
    lazy = cube.chunk(y=5, x=20)
    answers = []
    for n in (1, 2, 4):
        with use_threads(n):
            model = make().fit(lazy)
            answers.append((spectra_of(model).values, answer(model, lazy).values))
    for other in answers[1:]:
        for a, b in zip(answers[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_two_worker_processes_give_the_same_bits(make, cube, cluster_client):
    lazy = cube.chunk(y=5, x=20)
    here = make().fit(lazy)
    with cluster_client.as_current():
        there = make().fit(lazy)
    np.testing.assert_array_equal(spectra_of(here).values, spectra_of(there).values)


def test_a_fitted_model_pickles(make, cube):
    model = make().fit(cube)
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(answer(model, cube).values, answer(twin, cube).values)


def test_a_selection_leaves_pixels_and_channels_out(make, cube):
    pixels = xr.DataArray(np.arange(18) % 6 != 5, dims="y", coords={"y": cube.y})
    pixels = pixels.broadcast_like(cube.isel(energy=0, drop=True))
    channels = xr.DataArray(np.arange(40) > 3, dims="energy", coords={"energy": cube.energy})
    model = make().fit(cube, where=channels)
    spectra = spectra_of(model)
    assert np.isnan(spectra.values[:, :4]).all()
    assert np.isfinite(spectra.values[:, 4:]).all()
    poisoned = cube.copy(data=np.where(pixels.values[..., None], cube.values, 9999))
    a = make().fit(cube, where=pixels)
    b = make().fit(poisoned, where=pixels)
    np.testing.assert_array_equal(spectra_of(a).values, spectra_of(b).values)


def test_selections_that_leave_nothing_are_refused(make, cube):
    nothing = xr.zeros_like(cube.isel(energy=0, drop=True), dtype=bool)
    with pytest.raises(SelectionError):
        make().fit(cube, where=nothing)


def test_bad_values_are_refused_with_their_place(make, cube):
    values = cube.values.astype(np.float64)
    values[3, 4, 5] = np.nan
    with pytest.raises(InputError, match=r"\(3, 4\)"):
        make().fit(cube.copy(data=values))


def test_negative_counts_are_refused_where_counts_are_meant(make, cube, request):
    values = cube.values.astype(np.float64)
    values[3, 4, 5] = -1.0
    name = request.node.callspec.params["make"]
    if name in COUNTS_ONLY:
        with pytest.raises(InputError, match=r"must not be negative: position \(3, 4\)"):
            make().fit(cube.copy(data=values))
    else:
        make().fit(cube.copy(data=values))


def test_empty_pixels_and_channels_are_no_obstacle(make, cube):
    values = cube.values.copy()
    values[2, :] = 0
    values[:, :, 7] = 0
    model = make().fit(cube.copy(data=values))
    maps = answer(model, cube.copy(data=values))
    assert np.isfinite(spectra_of(model).values).all()
    assert np.isfinite(maps.values).all()


def test_fewer_pixels_than_components_are_refused(make, cube):
    with pytest.raises(InputError, match="pixels"):
        make().fit(cube.isel(y=[0], x=[0, 1]))


def test_another_signal_axis_is_refused(make, cube):
    model = make().fit(cube)
    with pytest.raises(InputError, match="fitted on"):
        answer(model, cube.isel(energy=slice(0, 30)))
    shifted = cube.assign_coords(energy=cube.energy + 0.05)
    with pytest.raises(InputError, match="energy differs at channel"):
        answer(model, shifted)


def test_another_unit_of_the_signal_is_refused(make, cube):
    model = make().fit(cube)
    in_ev = cube.assign_coords(energy=("energy", cube.energy.values * 1e3, {"units": "eV"}))
    with pytest.raises(InputError, match="energy is in eV, the model was fitted in keV"):
        answer(model, in_ev)


def test_a_cube_without_signal_is_refused(make, cube):
    image = cube.sum("energy")
    with pytest.raises((InputError, CubeError), match="signal"):
        make().fit(image)


def test_fit_transform_is_fit_then_transform(make, cube):
    pixels = (cube.y < 15).broadcast_like(cube.isel(energy=0, drop=True))
    together = make().fit_transform(cube, where=pixels)
    apart = make().fit(cube, where=pixels).transform(cube, where=pixels)
    xr.testing.assert_identical(together, apart)
    assert together.dims[:2] == ("y", "x")
    np.testing.assert_array_equal(np.isfinite(together.values).all(axis=-1), pixels.values)


def test_score_tells_right_components_from_wrong_ones(make, cube):
    """More is better, and a number for labelled and bare data alike."""
    model = make().fit(cube)
    score = model.score(cube)
    assert isinstance(score, float)
    bare = cube.values.reshape(-1, 40)
    assert make().fit(bare).score(bare) == pytest.approx(score, rel=0.02)
    shuffled = cube.copy(data=cube.values[..., np.random.default_rng(0).permutation(40)])
    assert model.score(shuffled) < score


def test_partial_fit_goes_on_and_keeps_the_first_selection_of_channels(make, cube):
    upper = xr.DataArray(np.arange(40) > 3, dims="energy", coords={"energy": cube.energy})
    model = make()
    assert model.partial_fit(cube.isel(y=slice(0, None, 2)), where=upper) is model
    # Another selection of channels later changes nothing: that of the first call holds.
    model.partial_fit(cube.isel(y=slice(1, None, 2)), where=~upper)
    spectra = spectra_of(model).values
    assert np.isnan(spectra[:, :4]).all()
    assert np.isfinite(spectra[:, 4:]).all()
    assert answer(model, cube).sizes["y"] == 18
    with pytest.raises(InputError, match="fitted on"):
        model.partial_fit(cube.isel(energy=slice(0, 30)))


def test_bare_arrays_come_back_as_they_went_in(make, cube):
    """NumPy and SciPy matrices give arrays at once, Dask arrays lazy ones, as in dask-ml."""
    matrix = cube.values.reshape(-1, 40)
    assert isinstance(make().fit_transform(matrix), np.ndarray)
    assert isinstance(make().fit_transform(scipy.sparse.csr_matrix(matrix)), np.ndarray)
    lazy = make().fit_transform(da.from_array(matrix, chunks=(100, 40)))
    assert isinstance(lazy, da.Array)
    assert lazy.chunks[0] == (100, 100, 100, 60)


@pytest.mark.parametrize("first", ["pca-poisson", "nmf-kl"])
def test_loadings_of_one_model_are_the_cube_of_another(make, cube, first):
    """Whatever their number: components out, beside which those that went in get another name."""
    loadings = ESTIMATORS[first]().fit(cube).transform(cube)
    assert loadings.em.sig_dims == ("component",)
    model = make()
    if "n_components" in model.get_params():
        model.set_params(n_components=2)
    if first == "pca-poisson":  # scores are negative too
        loadings = loadings.clip(min=0)
    maps = answer(model.fit(loadings), loadings)
    assert maps.dims[:2] == ("y", "x")
    assert np.isfinite(maps.values).all()
    spectra = spectra_of(model)
    if hasattr(model, "predict"):
        assert spectra.sizes == {"cluster": 3, "component": 3}
    else:
        assert spectra.sizes == {"component": 2, "input_component": 3}
        assert spectra.em.sig_dims == ("input_component",)
        np.testing.assert_array_equal(spectra.input_component, loadings.component)
        again = model.inverse_transform(maps)
        assert again.dims == loadings.dims
        assert again.shape == loadings.shape


@pytest.mark.parametrize("name", ["pca-centred", "nmf-frobenius", "kmeans-counts"])
def test_sparse_fractions_are_as_good_as_dense_ones(name, cube):
    matrix = cube.values.reshape(-1, 40) * 0.5
    dense = ESTIMATORS[name]().fit(matrix)
    sparse = ESTIMATORS[name]().fit(scipy.sparse.csr_matrix(matrix))
    np.testing.assert_allclose(spectra_of(sparse), spectra_of(dense), rtol=0.02, atol=2e-3)
    maps = answer(sparse, scipy.sparse.csr_matrix(matrix))
    assert isinstance(maps, np.ndarray)
