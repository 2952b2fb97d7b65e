"""MiniBatchNMF: the truth of scenes, labels, options, refusals, partial fits."""

from __future__ import annotations

import pickle

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import xarray as xr
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone

import emcube as em
from emcube.engine import use_threads
from emcube.engine.progress import listen
from emcube.errors import InputError, NotFittedError
from emcube.kernels.poisson_nmf import poisson_loadings
from emcube.kernels.rows import rows_from_dense
from emcube.models.nmf_sweeps import PassState


def angles(found, true, mean):
    """KK-weighted angles (degrees) between the found and the true components, paired for the best."""
    used = mean > 0
    a, b = (s[:, used] / np.sqrt(mean[used]) for s in (np.asarray(found), np.asarray(true)))
    cosines = a @ b.T / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    between = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    rows, columns = linear_sum_assignment(between)
    return between[rows, columns], rows[np.argsort(columns)]


@pytest.fixture(scope="module")
def small():
    """Smooth maps of three components, (24, 20) pixels of 300 counts in 50 channels; one never seen."""
    rng = np.random.default_rng(1)
    spectra = rng.dirichlet(np.full(50, 0.5), 3)
    spectra[:, 7] = 0
    spectra /= spectra.sum(axis=1, keepdims=True)
    y, x = np.mgrid[:24, :20]
    logits = np.stack([y / 3.0 - 4, x / 2.5 - 4, 0 * x + 0.0], axis=-1)
    shares = np.exp(1.5 * logits)
    shares /= shares.sum(axis=-1, keepdims=True)
    counts = rng.poisson(shares @ spectra * 300).astype(np.uint16)
    cube = em.make_cube(
        counts,
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": 0.1 + 0.02 * np.arange(50)},
        units={"energy": "keV", "x": "nm", "y": "nm"},
    )
    return cube.load(), spectra, shares * 300


@pytest.fixture(scope="module")
def fitted(small):
    return em.MiniBatchNMF(3, random_state=0).fit(small[0])


# ------------------------------------------------------------------------------------------ the truth


@pytest.fixture(scope="module")
def needle():
    scene = em.scenes.srm2135c(scale=0.05, random_state=0)
    return scene, scene.cube.load()


@pytest.fixture(scope="module")
def rock():
    scene = em.scenes.jadeite(scale=0.2, random_state=0, pure_pixels=0.01)
    return scene, scene.cube.load()


@pytest.mark.parametrize("seed", range(10))
def test_needle_is_found_within_3_degrees(needle, seed):
    scene, cube = needle
    model = em.MiniBatchNMF(3, random_state=seed).fit(cube)
    mean = cube.values.reshape(-1, cube.shape[-1]).mean(axis=0)
    found, _ = angles(model.components_, scene.components, mean)
    assert found.max() < 3.0
    assert model.converged_


@pytest.mark.parametrize("seed", range(10))
def test_rock_with_pure_pixels_is_found_within_5_degrees(rock, seed):
    scene, cube = rock
    model = em.MiniBatchNMF(5, random_state=seed).fit(cube)
    mean = cube.values.reshape(-1, cube.shape[-1]).mean(axis=0)
    found, _ = angles(model.components_, scene.components, mean)
    assert found.max() < 5.0


def test_ratios_of_major_lines_are_those_of_the_truth(needle, rock):
    """Within 5 %, or three standard errors of the counts."""
    ratios = {
        "needle": [(0, 0.851, 7.478), (1, 0.573, 5.415)],  # L/K of Ni and Cr
        "rock": [
            (0, 1.041, 1.74),  # Na/Si and Al/Si of jadeite
            (0, 1.487, 1.74),
            (1, 3.692, 1.74),  # Ca/Si and Fe/Si of augite
            (1, 6.404, 1.74),
            (2, 1.041, 6.404),  # Na/Fe of aegirine
            (3, 0.525, 1.74),  # O/Si of silica
        ],
    }
    for name, (scene, cube) in {"needle": needle, "rock": rock}.items():
        model = em.MiniBatchNMF(scene.n_components, random_state=0).fit(cube)
        mean = cube.values.reshape(-1, cube.shape[-1]).mean(axis=0)
        _, order = angles(model.components_, scene.components, mean)
        found, true = model.components_.values[order], np.asarray(scene.components)
        energy = cube.energy.values
        for k, line, reference in ratios[name]:
            wide = [np.abs(energy - e) <= max(0.05, 0.045 * e**0.5) for e in (line, reference)]
            ratio = found[k, wide[0]].sum() / found[k, wide[1]].sum()
            truth = true[k, wide[0]].sum() / true[k, wide[1]].sum()
            counts = model.component_totals_[order[k]] * np.array(
                [found[k, wide[0]].sum(), found[k, wide[1]].sum()]
            )
            error = np.sqrt((1 / counts).sum())
            assert abs(ratio / truth - 1) < max(0.05, 3 * error), (name, k, line)


def test_loadings_are_nearly_as_good_as_with_the_true_components(needle, rock):
    for scene, cube in (needle, rock):
        model = em.MiniBatchNMF(scene.n_components, random_state=0).fit(cube)
        flat = cube.values.reshape(-1, cube.shape[-1])
        true = np.asarray(scene.loadings).reshape(-1, scene.n_components)
        _, order = angles(model.components_, scene.components, flat.mean(axis=0))
        ours = model.transform(cube).values.reshape(-1, scene.n_components)[:, order]
        best = poisson_loadings(rows_from_dense(flat), np.asarray(scene.components))
        error = np.sqrt(np.square(ours - true).mean())
        assert error <= 1.1 * np.sqrt(np.square(best - true).mean())


# --------------------------------------------------------------------------------- labels and options


def test_components_and_loadings_are_labelled(small, fitted):
    cube = small[0]
    components = fitted.components_
    assert components.dims == ("component", "energy")
    assert components.attrs["units"] == "1 per channel"
    np.testing.assert_allclose(components.sum("energy"), 1.0)
    np.testing.assert_array_equal(components.isel(energy=7), 0.0)
    np.testing.assert_array_equal(components.energy, cube.energy)
    assert (np.diff(fitted.component_totals_) <= 0).all()
    loadings = fitted.transform(cube)
    assert loadings.dims == ("y", "x", "component")
    assert loadings.attrs["units"] == "counts"
    np.testing.assert_allclose(loadings.sum("component"), cube.sum("energy"), rtol=1e-8)
    rebuilt = fitted.inverse_transform(loadings)
    assert rebuilt.dims == cube.dims
    np.testing.assert_allclose(rebuilt.sum(), float(cube.sum()), rtol=1e-8)
    np.testing.assert_allclose(rebuilt, loadings.values @ components.values, rtol=1e-12, atol=1e-12)


def test_lazy_in_lazy_out(small, fitted):
    lazy = small[0].chunk({"y": 7, "x": 9})
    model = em.MiniBatchNMF(3, random_state=0).fit(lazy)
    loadings = model.transform(lazy)
    assert hasattr(loadings.data, "dask")
    assert hasattr(model.inverse_transform(loadings).data, "dask")
    np.testing.assert_allclose(
        loadings.values, model.transform(small[0]).values, rtol=1e-9, atol=1e-9
    )


def test_plain_matrices_in_plain_arrays_out(small):
    flat = small[0].values.reshape(-1, 50)
    models = [
        em.MiniBatchNMF(3, random_state=0).fit(x)
        for x in (flat, scipy.sparse.csr_matrix(flat), da.from_array(flat, chunks=(100, 50)))
    ]
    for model in models:
        assert isinstance(model.components_, np.ndarray)
        found, _ = angles(model.components_, small[1], flat.mean(axis=0))
        assert found.max() < 8.0
    loadings = models[0].transform(flat)
    assert isinstance(loadings, np.ndarray)
    assert loadings.shape == (480, 3)
    assert isinstance(models[2].transform(da.from_array(flat)), da.Array)


def test_shuffled_pixels_are_not_pooled(small):
    flat = small[0].values.reshape(-1, 50)
    shuffled = np.random.default_rng(0).permutation(np.tile(flat, (4, 1)))
    assert em.MiniBatchNMF(3, random_state=0).fit(shuffled).pool_ == 1


def test_where_leaves_pixels_and_channels_out(small):
    cube = small[0]
    where = (cube.energy > 0.2) & (cube.y < 20)
    model = em.MiniBatchNMF(3, random_state=0).fit(cube, where=where)
    unused = (cube.energy <= 0.2).values
    assert np.isnan(model.components_.values[:, unused]).all()
    np.testing.assert_allclose(model.components_.sum("energy"), 1.0)
    used = cube.values[:20][..., ~unused].sum()
    assert model.component_totals_.sum() == pytest.approx(used)
    loadings = model.fit_transform(cube, where=where)
    assert np.isnan(loadings.values[20:]).all()
    assert np.isfinite(loadings.values[:20]).all()


def test_abundances_sum_to_one_and_have_a_scale(small, fitted):
    cube = small[0].copy()
    cube.values[0, 0] = 0
    model = em.MiniBatchNMF(3, sum_to_one=True, init=fitted.components_, n_epochs=0, random_state=0)
    model.fit(cube)
    abundances = model.transform(cube)
    totals = cube.sum("energy")
    np.testing.assert_allclose(abundances.sum("component").where(totals > 0, 1.0), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(abundances[0, 0], 0)
    np.testing.assert_allclose(abundances.scale, totals, rtol=1e-8)
    assert abundances.attrs["units"] == "1"
    free = clone(model).set_params(sum_to_one=False).fit(cube)
    np.testing.assert_allclose(abundances * abundances.scale, free.transform(cube), atol=1e-9)
    np.testing.assert_allclose(
        model.inverse_transform(abundances), free.inverse_transform(free.transform(cube)), atol=1e-9
    )
    plain = model.fit(cube.values.reshape(-1, 50))
    with pytest.raises(InputError, match="scale"):
        plain.inverse_transform(np.ones((2, 3)))
    assert plain.inverse_transform(np.ones((2, 3)) / 3, scale=np.ones(2)).shape == (2, 50)


def test_objective_falls_and_the_volume_shrinks_the_components(small):
    cube = small[0]
    bare = em.MiniBatchNMF(3, volume=0, tol=0, max_iter=60, random_state=0).fit(cube)
    assert (np.diff(bare.objective_path_) <= 0).all()
    small_volume = em.MiniBatchNMF(3, pool=1, tol=0, max_iter=60, random_state=0).fit(cube)
    assert small_volume.objective_ >= bare.objective_ * (1 - 1e-6)
    assert small_volume.volume_strength_ > 0 == bare.volume_strength_

    def volume(model):
        s = model.components_.values
        return np.linalg.det(s @ s.T)

    assert volume(small_volume) < volume(bare)
    early = em.MiniBatchNMF(3, random_state=0).fit(cube)
    assert early.converged_
    assert not bare.converged_ or bare.n_iter_ < 60


def test_progress_tells_the_objective_after_each_pass(small):
    events = []
    with listen(events.append):
        model = em.MiniBatchNMF(3, volume=0, tol=0, max_iter=6, random_state=0).fit(small[0])
    told = [e.objective for e in events if e.kind == "round" and e.name == "NMF"]
    np.testing.assert_array_equal(told, model.objective_path_)
    assert len(told) == model.n_iter_ <= 6
    assert model.objective_ == model.objective_path_[-1]
    small_steps = em.MiniBatchNMF(3, volume=0, tol=1e-6, random_state=0).fit(small[0])
    large_steps = em.MiniBatchNMF(3, volume=0, tol=1e-2, random_state=0).fit(small[0])
    assert large_steps.n_iter_ < small_steps.n_iter_
    assert large_steps.objective_ > small_steps.objective_


def test_states_travel_as_their_components():
    """Workers need no more; what the client remembers of the curvature stays there."""
    state = PassState(np.full((2, 5), 0.2), length=8.0, value=3.0, best=np.ones((2, 5)))
    there = pickle.loads(pickle.dumps(state))
    np.testing.assert_array_equal(there.components, state.components)
    assert there.best is None
    assert there.memory.pairs == ()


@pytest.mark.parametrize("init", ["random", "truth", "labelled"])
def test_other_starts_with_minibatches(small, init):
    cube, spectra, _ = small
    start = {
        "random": "random",
        "truth": spectra,
        "labelled": xr.DataArray(spectra, dims=("component", "energy")).transpose(),
    }[init]
    model = em.MiniBatchNMF(3, init=start, batch_size=64, n_epochs=6, pool=1, random_state=0)
    model.fit(cube)
    again = clone(model).fit(cube)
    np.testing.assert_array_equal(model.components_, again.components_)
    found, _ = angles(model.components_, spectra, cube.values.reshape(-1, 50).mean(axis=0))
    assert found.max() < 10.0


def test_least_squares_on_noise_around_zero(small):
    _, spectra, loadings = small
    rng = np.random.default_rng(0)
    values = (loadings @ spectra + rng.normal(0, 0.5, (24, 20, 50))).astype(np.float32)
    cube = em.make_cube(
        values,
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": np.arange(50.0)},
        units={"energy": "eV"},
    )
    model = em.MiniBatchNMF(3, beta_loss="frobenius", random_state=0).fit(cube)
    cosines = model.components_.values @ spectra.T
    cosines /= np.outer(np.linalg.norm(model.components_, axis=1), np.linalg.norm(spectra, axis=1))
    rows, columns = linear_sum_assignment(-cosines)
    assert np.degrees(np.arccos(cosines[rows, columns])).max() < 5.0
    assert model.score(cube) > 0.9
    found = model.transform(cube).values[..., rows[np.argsort(columns)]]
    assert np.abs(found - loadings).mean() < 15.0
    one_more = em.MiniBatchNMF(
        3, beta_loss="frobenius", volume=0, tol=0, max_iter=30, random_state=0
    )
    path = one_more.fit(cube).objective_path_
    assert (np.diff(path) <= 0).all()


def test_score_prefers_the_right_number_of_components(small):
    cube, spectra, loadings = small
    rng = np.random.default_rng(11)
    fresh = cube.copy(data=rng.poisson(loadings @ spectra).astype(np.uint16))
    scores = [em.MiniBatchNMF(k, random_state=0).fit(cube).score(fresh) for k in (1, 2, 3)]
    assert scores[0] < scores[1] < scores[2]


def test_partial_fit_goes_on_with_more_pixels(small):
    cube, spectra, _ = small
    mean = cube.values.reshape(-1, 50).mean(axis=0)
    model = em.MiniBatchNMF(3, random_state=0)
    model.partial_fit(cube.isel(x=slice(0, None, 2)))
    first, total = angles(model.components_, spectra, mean)[0], model.component_totals_.sum()
    model.partial_fit(cube.isel(x=slice(1, None, 2)))
    assert model.component_totals_.sum() == pytest.approx(float(cube.sum()))
    assert model.component_totals_.sum() > total
    second = angles(model.components_, spectra, mean)[0]
    assert second.mean() < first.mean() + 0.5
    with pytest.raises(InputError, match="signal dims"):
        model.partial_fit(cube.isel(energy=slice(0, 30)))


def test_independent_spectra_share_nothing():
    """A core that is never seen without its shell, of other elements."""
    rng = np.random.default_rng(0)
    spectra = np.full((3, 120), 1e-3)
    for k, lines in enumerate([(10, 40), (60, 75), (95, 110)]):
        for line in lines:
            spectra[k] += np.exp(-0.5 * ((np.arange(120) - line) / 2.0) ** 2)
    spectra /= spectra.sum(axis=1, keepdims=True)
    shares = rng.dirichlet(np.ones(3), (30, 30))
    shares[..., 1] += 0.6 * shares[..., 0]
    cube = em.make_cube(
        rng.poisson(400 * shares @ spectra).astype(np.uint16),
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
    )
    mean = cube.values.reshape(-1, 120).mean(axis=0)
    fit = em.MiniBatchNMF(3, random_state=0).fit(cube)
    new = fit.with_independent_spectra()
    before, after = (angles(m.components_, spectra, mean)[0].max() for m in (fit, new))
    assert after < 5.0 < before
    np.testing.assert_allclose(new.components_.sum("energy"), 1.0)
    assert new.component_totals_.sum() == pytest.approx(float(cube.sum()), rel=1e-2)
    assert new.transform(cube).shape == (30, 30, 3)
    with pytest.raises(InputError, match="already"):
        new.with_independent_spectra()
    with pytest.raises(InputError, match="go on"):
        new.partial_fit(cube)


def test_bits_do_not_depend_on_threads(small):
    cube = small[0].chunk({"y": 5, "x": 6})
    found = []
    for n in (1, 2, 4):
        with use_threads(n):
            found.append(em.MiniBatchNMF(3, random_state=0).fit(cube).components_.values)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_ragged_chunks_change_nothing_but_rounding(small):
    whole = em.MiniBatchNMF(3, pool=1, tol=0, max_iter=8, random_state=0).fit(small[0])
    ragged = small[0].chunk({"y": (1, 10, 13), "x": (19, 1), "energy": (3, 47)})
    pieces = em.MiniBatchNMF(3, pool=1, tol=0, max_iter=8, random_state=0).fit(ragged)
    np.testing.assert_allclose(pieces.components_, whole.components_, atol=1e-6)


def test_empty_pixels_have_zero_loadings(small, fitted):
    cube = small[0].copy()
    cube.values[:3] = 0
    loadings = em.MiniBatchNMF(3, random_state=0).fit(cube).transform(cube)
    np.testing.assert_array_equal(loadings[:3], 0.0)
    np.testing.assert_array_equal(fitted.transform(cube)[:3], 0.0)


# ------------------------------------------------------------------------------------------- refusals


def _nan(cube):
    cube = cube.astype(np.float64)
    cube.values[3, 4, 5] = np.nan
    return cube


def _negative(cube):
    cube = cube.astype(np.float64)
    cube.values[3, 4, 5] = -1.0
    return cube


@pytest.mark.parametrize(
    ("change", "parameters", "message"),
    [
        (_nan, {}, "NaN|finite"),
        (_negative, {}, "negative"),
        (lambda c: c * 0, {}, "hold"),
        (lambda c: c.isel(x=[0], y=[0, 1]), {}, "2 pixels"),
        (lambda c: c, {"n_components": 0}, "n_components"),
        (lambda c: c, {"n_components": 2.5}, "n_components"),
        (lambda c: c, {"beta_loss": "is"}, "beta_loss"),
        (lambda c: c, {"volume": -1}, "volume"),
        (lambda c: c, {"tol": np.nan}, "tol"),
        (lambda c: c, {"pool": 0}, "pool"),
        (lambda c: c, {"n_epochs": "some"}, "n_epochs"),
        (lambda c: c, {"init": "nndsvd"}, "init"),
        (lambda c: c, {"init": np.ones((2, 50))}, "init"),
        (lambda c: c, {"init": -np.ones((3, 50))}, "init"),
        (lambda c: c, {"random_state": -1}, "random_state"),
    ],
)
def test_refuses_with_a_reason(small, change, parameters, message):
    model = em.MiniBatchNMF(**{"n_components": 3, **parameters})
    with pytest.raises(InputError, match=message):
        model.fit(change(small[0].copy()))


def test_refuses_answers_before_the_fit_and_other_signals(small, fitted):
    cube = small[0]
    with pytest.raises(NotFittedError):
        em.MiniBatchNMF(3).transform(cube)
    with pytest.raises(InputError, match="energy"):
        fitted.transform(cube.assign_coords(energy=cube.energy + 0.1))
    with pytest.raises(InputError, match="energy"):
        fitted.transform(cube.rename(energy="loss").assign_attrs(sig_dims=["loss"]))
    with pytest.raises(InputError, match="4 components"):
        fitted.inverse_transform(np.ones((2, 4)))
    with pytest.raises(InputError, match="negative"):
        fitted.transform(_negative(cube.copy()))


def test_whole_numbers_may_be_numpys_and_must_be_whole():
    counts = np.random.default_rng(0).poisson(4, (60, 30))
    plain = em.MiniBatchNMF(2, pool=2, n_epochs=1, max_iter=2, random_state=0).fit(counts)
    given = {"pool": np.int64(2), "n_epochs": np.int32(1), "max_iter": np.int64(2)}
    ours = em.MiniBatchNMF(np.int64(2), random_state=np.uint32(0), **given).fit(counts)
    np.testing.assert_array_equal(ours.components_, plain.components_)
    with pytest.raises(InputError, match="max_iter must be a whole number"):
        em.MiniBatchNMF(2, max_iter=2.5).fit(counts)


def test_errors_of_lazy_maps_do_not_name_a_wrong_pixel():
    model = em.MiniBatchNMF(2, random_state=0).fit(
        np.random.default_rng(0).poisson(5, (100, 20)).astype(float)
    )
    values = np.ones((8, 8, 20))
    values[5, 6, 7] = np.nan
    cube = em.make_cube(da.from_array(values, chunks=(4, 4, 20)), dims=("y", "x", "energy"))
    with pytest.raises(InputError, match=r"position \(1, 2\) of a chunk, used channel 7"):
        model.transform(cube).compute()


@pytest.mark.parametrize("gain", [1e-6, 1e-3, 1.0 / 700.0])
def test_counts_in_another_unit_give_the_components_of_counts(gain):
    """Fractions are counts times a gain, which their noise tells: volume and tolerance mean the same."""
    rng = np.random.default_rng(0)
    spectra, shares = rng.dirichlet(np.full(60, 0.3), 3), rng.dirichlet(np.full(3, 0.3), 900)
    counts = rng.poisson(300 * shares @ spectra).astype(float)
    want = em.MiniBatchNMF(3, random_state=0).fit(counts)
    found = em.MiniBatchNMF(3, random_state=0).fit(counts * gain)
    assert want.gain_ == 1.0
    assert found.gain_ == pytest.approx(gain, rel=0.1)
    np.testing.assert_allclose(found.components_, want.components_, atol=2e-3)
    np.testing.assert_allclose(found.component_totals_ / gain, want.component_totals_, rtol=0.02)
    assert found.objective_ / gain == pytest.approx(want.objective_, rel=1e-3)
    assert found.volume_strength_ / gain == pytest.approx(want.volume_strength_, rel=0.15)
    np.testing.assert_allclose(found.freedom_, want.freedom_, atol=0.05)
    loadings = found.transform(counts * gain)
    np.testing.assert_allclose(loadings.sum(axis=1), counts.sum(axis=1) * gain, rtol=1e-6)


def test_normalised_spectra_are_counts_too():
    rng = np.random.default_rng(0)
    spectra, shares = rng.dirichlet(np.full(60, 0.3), 3), rng.dirichlet(np.full(3, 0.3), 400)
    counts = rng.poisson(2000 * shares @ spectra).astype(float)
    want = em.MiniBatchNMF(3, random_state=0).fit(counts)
    found = em.MiniBatchNMF(3, random_state=0).fit(counts / counts.sum(axis=1, keepdims=True) / 2)
    assert found.gain_ == pytest.approx(1 / 4000, rel=0.1)
    np.testing.assert_allclose(found.components_, want.components_, atol=5e-3)


def test_fractions_without_noise_are_fitted_to_the_end():
    """The tolerance is not in nats of counts that nobody counted."""
    rng = np.random.default_rng(1)
    spectra, shares = rng.dirichlet(np.full(40, 0.3), 3), rng.dirichlet(np.full(3, 0.2), 400)
    shares[:3] = np.eye(3)
    exact = 0.7 * shares @ spectra
    nmf = em.MiniBatchNMF(3, random_state=0).fit(exact)
    left = exact - nmf.transform(exact) @ nmf.components_
    assert np.abs(left).max() < 0.02 * exact.max()


def test_fractions_come_in_parts():
    rng = np.random.default_rng(0)
    spectra, shares = rng.dirichlet(np.full(60, 0.3), 3), rng.dirichlet(np.full(3, 0.3), 900)
    values = rng.poisson(300 * shares @ spectra) / 700
    parts = em.MiniBatchNMF(3, random_state=0).fit(values[:450])
    first = parts.component_totals_.sum()
    parts.partial_fit(values[450:])
    assert first == pytest.approx(values[:450].sum(), rel=1e-6)
    assert parts.component_totals_.sum() == pytest.approx(values.sum(), rel=1e-6)
    whole = em.MiniBatchNMF(3, random_state=0).fit(values)
    np.testing.assert_allclose(parts.components_, whole.components_, atol=0.02)
    with pytest.raises(InputError, match="must not be negative"):
        parts.partial_fit(-values)
