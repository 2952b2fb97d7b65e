"""MCR-ALS: the truth of a scene, constraints, known spectra, labels, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import emcube as em
from emcube.engine import listen, use_threads
from emcube.errors import InputError
from emcube.scenes.metrics import match_components


@pytest.fixture(scope="module")
def needle():
    scene = em.scenes.srm2135c(scale=0.1, random_state=0)
    return scene, scene.cube.load()


@pytest.fixture(scope="module")
def fitted(needle):
    return em.MCRALS(3, random_state=0).fit(needle[1])


def angles(model, scene, cube):
    mean = cube.values.reshape(-1, cube.shape[-1]).mean(axis=0)
    return match_components(model.components_.values, scene.components.values, mean)


@pytest.mark.parametrize("seed", range(3))
def test_nickel_chromium_and_silicon_are_resolved(needle, seed):
    scene, cube = needle
    model = em.MCRALS(3, random_state=seed).fit(cube)
    assert angles(model, scene, cube)[1].max() < 3.0
    assert model.converged_


def test_what_is_left_never_rises(fitted):
    assert (np.diff(fitted.lack_of_fit_path_) <= 1e-12).all()
    assert fitted.lack_of_fit_ == fitted.lack_of_fit_path_[-1]
    assert len(fitted.lack_of_fit_path_) <= fitted.n_iter_


def test_components_and_loadings_are_labelled(needle, fitted):
    _, cube = needle
    components = fitted.components_
    assert components.dims == ("component", "energy")
    assert components.attrs["units"] == "1 per channel"
    assert float(components.min()) >= 0
    np.testing.assert_allclose(components.sum("energy"), 1.0)
    assert (np.diff(fitted.component_totals_) <= 0).all()
    loadings = fitted.transform(cube)
    assert loadings.dims == ("tilt", "y", "x", "component")
    assert float(loadings.min()) >= 0
    assert loadings.attrs["units"] == "counts"
    totals = loadings.sum(["tilt", "y", "x"]).values
    np.testing.assert_allclose(fitted.component_totals_, totals, rtol=0.1)


def test_a_known_spectrum_keeps_its_shape(needle):
    """And stands first; the others fit what it leaves. Arrays of any unit, labelled or bare."""
    scene, cube = needle
    standard = 1e4 * scene.components.isel(component=[2])
    labelled = em.MCRALS(3, known=standard, random_state=0).fit(cube)
    np.testing.assert_allclose(labelled.components_[0], scene.components[2], rtol=1e-9)
    bare = em.MCRALS(3, known=standard.values[0], random_state=0).fit(cube)
    xr.testing.assert_equal(labelled.components_, bare.components_)
    assert angles(labelled, scene, cube)[1].max() < 3.0
    everything = em.MCRALS(3, known=scene.components, random_state=0).fit(cube)
    np.testing.assert_allclose(everything.components_, scene.components, rtol=1e-9)
    with pytest.raises(InputError, match="interpolate"):
        em.MCRALS(3, known=standard.isel(energy=slice(10, None))).fit(cube)
    with pytest.raises(InputError, match="known has the shape"):
        em.MCRALS(3, known=standard.values[:, 10:]).fit(cube)
    with pytest.raises(InputError, match="4 spectra are known, 3 components"):
        em.MCRALS(3, known=np.ones((4, cube.shape[-1]))).fit(cube)
    with pytest.raises(InputError, match="known must be finite"):
        em.MCRALS(3, known=-standard).fit(cube)


def test_closed_loadings_sum_to_the_pixels_counts(needle):
    scene, cube = needle
    model = em.MCRALS(3, closure=True, random_state=0).fit(cube)
    assert model.loadings_by_ == "fcls"
    loadings = model.transform(cube)
    np.testing.assert_allclose(loadings.sum("component"), cube.sum("energy"), atol=1e-9)
    assert angles(model, scene, cube)[1].max() < 3.0


def test_bounds_are_those_asked_for():
    rng = np.random.default_rng(0)
    spectra = rng.dirichlet(np.full(30, 0.4), 2)
    values = rng.dirichlet([0.5, 0.5], 300) @ spectra + 0.004 * rng.normal(size=(300, 30))
    for word, loadings, components in (
        ("both", True, True),
        ("loadings", True, False),
        ("spectra", False, True),
        ("neither", False, False),
    ):
        model = em.MCRALS(2, noise=None, nonnegative=word, random_state=0).fit(values)
        assert (model.components_.min() >= 0) == components, word
        assert (model.transform(values).min() >= 0) == loadings, word


def test_spectra_of_one_peak_have_one_peak():
    rng = np.random.default_rng(0)
    channel = np.arange(60)
    spectra = np.stack([np.exp(-((channel - c) ** 2) / 60.0) for c in (20, 38)])
    spectra /= spectra.sum(axis=1, keepdims=True)
    counts = rng.poisson(300 * rng.dirichlet([0.6, 0.6], 400) @ spectra)
    model = em.MCRALS(2, unimodal=True, random_state=0).fit(counts)
    for one in model.components_:
        top = int(np.argmax(one))
        assert (np.diff(one[: top + 1]) >= -1e-12).all()
        assert (np.diff(one[top:]) <= 1e-12).all()
    _, found = match_components(model.components_, spectra, counts.mean(axis=0))
    assert found.max() < 5.0


def test_starts(needle):
    scene, cube = needle
    given = em.MCRALS(3, init=scene.components, random_state=0).fit(cube)
    assert angles(given, scene, cube)[1].max() < 3.0
    drawn = [em.MCRALS(3, init="random", random_state=0).fit(cube).components_ for _ in range(2)]
    xr.testing.assert_identical(*drawn)
    with pytest.raises(InputError, match="init has the shape"):
        em.MCRALS(3, init=scene.components.values[:2]).fit(cube)


def test_rounds_go_over_scores_that_stay(needle):
    _, cube = needle
    reads = []
    with listen(lambda event: reads.append(event.name) if event.kind == "round" else None):
        model = em.MCRALS(3, random_state=0).fit(cube)
    assert reads.count("MCR") == model.n_iter_
    assert sum(name != "MCR" for name in reads) == 3


def test_tiles_and_selections_give_the_same_bits_on_any_number_of_threads(needle):
    _, cube = needle
    lazy = cube.chunk(tilt=2, y=20)
    used = xr.DataArray(np.arange(cube.sizes["x"]) > 3, dims="x").assign_coords(x=cube.x)
    used = used.broadcast_like(cube.isel(energy=0, drop=True))
    answers = []
    for n in (1, 3):
        with use_threads(n):
            answers.append(em.MCRALS(3, pool=3, random_state=0).fit(lazy, where=used))
    np.testing.assert_array_equal(answers[0].components_.values, answers[1].components_.values)
    assert answers[0].pool_ == 3


def test_partial_fit_goes_on(needle):
    scene, cube = needle
    model = em.MCRALS(3, random_state=0)
    for part in (slice(0, None, 2), slice(1, None, 2)):
        model.partial_fit(cube.isel(tilt=part))
    assert angles(model, scene, cube)[1].max() < 3.0
    with pytest.raises(InputError, match="must not be negative"):
        model.partial_fit(cube.isel(tilt=[0]).astype(np.float32) - 1)


def test_wrong_parameters_are_refused():
    counts = np.random.default_rng(0).poisson(5.0, (60, 12))
    for wrong in (
        {"n_components": 0},
        {"noise": "gauss"},
        {"nonnegative": "all"},
        {"closure": 1},
        {"unimodal": "yes"},
        {"init": "bins"},
        {"pool": 0},
        {"max_iter": 0},
        {"tol": -1.0},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            em.MCRALS(**{"n_components": 2, **wrong}).fit(counts)
    with pytest.raises(InputError, match="closure needs loadings"):
        em.MCRALS(2, closure=True, nonnegative="spectra").fit(counts)
    with pytest.raises(InputError, match="at most 12 exist"):
        em.MCRALS(13).fit(counts)
