"""MiniBatchNMF with known spectra, a basis, sparsity and smoothness: truth, labels, bits, refusals."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import dask
import numpy as np
import pytest
import xarray as xr
from sklearn.base import clone

import emcube as em
from emcube.engine import use_threads
from emcube.errors import InputError, SelectionError
from emcube.models.nmf_penalties import outline_bytes
from emcube.scenes.metrics import loadings_error, match_components

ELEMENTS = ["O", "Na", "Mg", "Al", "Si", "Ca", "Fe"]


@pytest.fixture(scope="module")
def minerals():
    """Spectra of the jadeite scene (jadeite, augite, aegirine, silica, carbon) in 391 channels."""
    scene = em.scenes.jadeite(scale=0.01, random_state=0)
    energy = scene.components.energy.values.reshape(-1, 4).mean(axis=1)
    spectra = scene.components.values.reshape(5, -1, 4).sum(axis=-1)
    known = ("elements", "beam_energy_keV", "detector")
    metadata = {k: v for k, v in scene.metadata.items() if k in known}
    return SimpleNamespace(energy=energy, spectra=spectra, metadata=metadata)


def drawn(minerals, phases, loadings, seed=1):
    """Cube of counts, and the truth as `judged` wants it."""
    spectra = minerals.spectra[list(phases)]
    counts = np.random.default_rng(seed).poisson(loadings @ spectra).astype(np.uint16)
    cube = em.make_cube(
        counts,
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": minerals.energy},
        units={"energy": "keV", "y": "um", "x": "um"},
        metadata=minerals.metadata,
    )
    return SimpleNamespace(cube=cube, spectra=spectra, loadings=loadings)


def judged(model, truth):
    """Angles of the components (degrees) and relative error of the maps, matched to the truth."""
    mean = truth.cube.values.reshape(-1, truth.cube.shape[-1]).mean(axis=0)
    order, angles = match_components(np.nan_to_num(model.components_.values), truth.spectra, mean)
    maps = model.transform(truth.cube).values[..., order]
    k = len(order)
    return angles, loadings_error(maps.reshape(-1, k), truth.loadings.reshape(-1, k))


def shares_of(y, x, steep=1.5):
    """Three shares that change slowly over the image."""
    fields = np.stack([1.4 * np.sin(x / 7 + y / 11), 1.4 * np.cos(y / 8 - x / 15), 0 * x], axis=-1)
    shares = np.exp(steep * fields)
    return shares / shares.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def gradient(minerals):
    """40 x 40 pixels of 30 counts; the right half is nearly twice as thick."""
    y, x = np.mgrid[:40, :40]
    thickness = 1.0 + 0.8 * (x > 22)
    return drawn(minerals, (0, 1, 3), 30 * shares_of(y, x) * thickness[..., None])


@pytest.fixture(scope="module")
def grains(minerals):
    """40 x 40 pixels of 60 counts, each of one of four phases."""
    phase = np.random.default_rng(0).integers(0, 4, (8, 8)).repeat(5, 0).repeat(5, 1)
    return drawn(minerals, (0, 1, 2, 3), 60.0 * np.eye(4)[phase])


@pytest.fixture(scope="module")
def small(minerals):
    """16 x 18 pixels of 200 counts."""
    y, x = np.mgrid[:16, :18]
    return drawn(minerals, (0, 1, 3), 200 * shares_of(y * 2.5, x * 2.2))


# -------------------------------------------------------------------------------------- the truth


def test_smoothness_finds_better_maps_where_phases_change_slowly(gradient):
    _, plain = judged(em.MiniBatchNMF(3, random_state=0).fit(gradient.cube), gradient)
    model = em.MiniBatchNMF(3, smoothness=1.0, random_state=0).fit(gradient.cube)
    angles, error = judged(model, gradient)
    assert error < 0.6 * plain
    assert model.penalty_ > 0
    assert angles.max() < 20


def test_closure_smooths_abundances_and_leaves_thickness_as_it_is(gradient):
    model = em.MiniBatchNMF(3, smoothness=3.0, sum_to_one=True, random_state=0).fit(gradient.cube)
    abundances = model.transform(gradient.cube)
    np.testing.assert_allclose(abundances.sum("component"), 1.0, rtol=1e-9)
    # The scale is the number of counts, whatever is asked of abundances.
    np.testing.assert_allclose(abundances.scale, gradient.cube.sum("energy"), rtol=1e-9)
    order, _ = match_components(
        model.components_.values, gradient.spectra, gradient.cube.mean(("y", "x")).values
    )
    true = gradient.loadings / gradient.loadings.sum(axis=-1, keepdims=True)
    plain = em.MiniBatchNMF(3, sum_to_one=True, random_state=0).fit(gradient.cube)
    errors = [
        float(np.sqrt(np.square(m.transform(gradient.cube).values[..., o] - true).mean()))
        for m, o in (
            (model, order),
            (
                plain,
                match_components(
                    plain.components_.values,
                    gradient.spectra,
                    gradient.cube.mean(("y", "x")).values,
                )[0],
            ),
        )
    ]
    assert errors[0] < 0.6 * errors[1]


def test_smoothness_blurs_a_single_pixel(minerals):
    """The page says that it misleads there."""
    loadings = np.zeros((21, 21, 2))
    loadings[..., 0] = 200.0
    loadings[10, 10] = (0.0, 200.0)
    truth = drawn(minerals, (0, 3), loadings)
    found = {}
    for smoothness in (0.0, 3.0):
        model = em.MiniBatchNMF(
            2, known=truth.spectra, smoothness=smoothness, pool=1, random_state=0
        ).fit(truth.cube)
        found[smoothness] = float(model.transform(truth.cube)[10, 10, 1])
    assert found[0.0] == pytest.approx(200, abs=45)
    assert found[3.0] < 0.5 * found[0.0]


def test_sparsity_finds_better_maps_where_pixels_are_pure(grains):
    _, plain = judged(em.MiniBatchNMF(4, random_state=0).fit(grains.cube), grains)
    _, error = judged(em.MiniBatchNMF(4, sparsity=1.0, random_state=0).fit(grains.cube), grains)
    assert error < 0.8 * plain


def test_sparsity_takes_small_shares_away(small):
    """The page says that it misleads where phases overlap."""
    model = em.MiniBatchNMF(3, known=small.spectra, random_state=0).fit(small.cube)
    sparse = em.MiniBatchNMF(3, known=small.spectra, sparsity=3.0, random_state=0).fit(small.cube)
    minor = small.loadings < 20
    for m, low, high in ((model, 0.8, 1.2), (sparse, 0.0, 0.6)):
        share = m.transform(small.cube).values[minor].sum() / small.loadings[minor].sum()
        assert low < share < high


def test_a_known_spectrum_stays_and_helps_to_find_the_others(minerals):
    """Without pure pixels: those that are free come nearer to the truth, and maps do."""
    y, x = np.mgrid[:40, :40]
    truth = drawn(minerals, (0, 1, 3), 300 * shares_of(y, x, steep=0.6))
    plain = em.MiniBatchNMF(3, random_state=0).fit(truth.cube)
    _, before = judged(plain, truth)
    known = truth.spectra[[2, 0]]
    model = em.MiniBatchNMF(3, known=known, random_state=0).fit(truth.cube)
    np.testing.assert_allclose(model.components_.values[:2], known, atol=1e-12)
    assert model.n_known_ == 2
    _, after = judged(model, truth)
    assert after < 0.95 * before


def test_a_basis_finds_better_spectra_where_counts_are_few(minerals):
    y, x = np.mgrid[:16, :16]
    truth = drawn(minerals, (0, 1, 3), 30 * shares_of(y * 2.3, x * 2.3))
    plain, _ = judged(em.MiniBatchNMF(3, random_state=0).fit(truth.cube), truth)
    model = em.MiniBatchNMF(3, basis={"elements": ELEMENTS}, random_state=0).fit(truth.cube)
    angles, _ = judged(model, truth)
    assert angles.mean() < plain.mean() - 3.0
    coefficients = model.coefficients_
    np.testing.assert_allclose(coefficients.sum("feature"), 1.0)
    # Channels in which nothing was counted belong to no component.
    seen = truth.cube.values.any(axis=(0, 1))
    rebuilt = coefficients.values @ em.xray_basis(truth.cube, ELEMENTS).values[:, seen]
    np.testing.assert_allclose(
        model.components_.values[:, seen], rebuilt / rebuilt.sum(axis=1)[:, None], atol=1e-9
    )


def test_a_basis_limits_the_answer_where_counts_are_many(minerals):
    """The page says so: what it does not hold (tails, escape) cannot be learned."""
    y, x = np.mgrid[:16, :16]
    truth = drawn(minerals, (0, 1, 3), 3000 * shares_of(y * 2.3, x * 2.3))
    plain, _ = judged(em.MiniBatchNMF(3, random_state=0).fit(truth.cube), truth)
    model = em.MiniBatchNMF(3, basis={"elements": ELEMENTS}, random_state=0).fit(truth.cube)
    angles, _ = judged(model, truth)
    assert plain.mean() < angles.mean()


# ------------------------------------------------------------------------------- forms and labels


VARIANTS = {
    "known": {"known": True},
    "basis": {"basis": {"elements": ELEMENTS}},
    "sparse": {"sparsity": 1.0},
    "smooth": {"smoothness": 1.0},
    "closed": {"smoothness": 0.5, "sparsity": 0.3, "sum_to_one": True},
    "all": {"known": True, "basis": {"elements": ELEMENTS}, "smoothness": 0.5, "sparsity": 0.2},
    "least squares": {"beta_loss": "frobenius", "sparsity": 1.0, "smoothness": 0.5},
    "least squares in a basis": {
        "beta_loss": "frobenius", "basis": {"elements": ELEMENTS}, "known": True,
    },
}  # fmt: skip


@pytest.fixture(params=sorted(VARIANTS))
def make(request, small):
    options = dict(VARIANTS[request.param])
    if options.get("known"):
        options["known"] = small.spectra[:1]
    return lambda: em.MiniBatchNMF(3, random_state=0, max_iter=6, **options)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("emcube.engine.plan.plan_blocks.__kwdefaults__", {"target_bytes": 1})


@pytest.mark.usefixtures("small_blocks")
def test_threads_and_chunks_in_blocks_give_the_same_bits(make, small):
    lazy = small.cube.chunk(y=5, x=7)
    answers = []
    for n in (1, 3):
        with use_threads(n):
            model = make().fit(lazy)
            answers.append((model.components_.values, model.transform(lazy).values))
            path = model.objective_path_
    for a, b in zip(*answers, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(answers[0][1]).all()
    assert (np.diff(path) <= 1e-9 * abs(path[0])).all()


@pytest.mark.usefixtures("small_blocks")
def test_two_worker_processes_give_the_same_bits(small, cluster_client):
    lazy = small.cube.isel(energy=slice(None, None, 8)).chunk(y=8, x=18)
    options = {"smoothness": 0.3, "sparsity": 0.3, "random_state": 0, "max_iter": 3}
    here = em.MiniBatchNMF(3, **options).fit(lazy)
    with cluster_client.as_current():
        there = em.MiniBatchNMF(3, **options).fit(lazy)
    np.testing.assert_array_equal(here.components_.values, there.components_.values)
    assert here._anchors.plan.grid == (2, 1)
    for number, faces in here._anchors.faces.items():
        for a, b in zip(faces, there._anchors.faces[number], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_fit_pickles_and_clones(make, small):
    model = make().fit(small.cube)
    twin = pickle.loads(pickle.dumps(model))
    assert clone(model).get_params().keys() == model.get_params().keys()
    np.testing.assert_array_equal(
        model.transform(small.cube).values, twin.transform(small.cube).values
    )


def test_the_objective_is_divergence_and_penalty(make, small):
    model = make().fit(small.cube)
    assert 0.0 <= model.penalty_ < model.objective_
    asked = model.sparsity_strength_ > 0 or model.smoothness_strength_ > 0
    assert (model.penalty_ > 0) == asked


def test_defaults_are_the_plain_model_to_the_bit(small):
    plain = em.MiniBatchNMF(3, random_state=0).fit(small.cube)
    same = em.MiniBatchNMF(3, sparsity=0.0, smoothness=0, known=None, random_state=0)
    np.testing.assert_array_equal(plain.components_.values, same.fit(small.cube).components_.values)
    assert plain.penalty_ == 0.0
    assert not hasattr(plain, "coefficients_")


def test_smooth_maps_of_the_cube_of_the_fit_are_lazy_and_have_no_seams(small, monkeypatch):
    lazy = small.cube.chunk(y=5, x=7)
    with monkeypatch.context() as patched:
        patched.setattr("emcube.engine.plan.plan_blocks.__kwdefaults__", {"target_bytes": 1})
        model = em.MiniBatchNMF(3, smoothness=1.0, random_state=0).fit(lazy)

        def refuse(*args, **kwargs):
            raise AssertionError("computed")

        with dask.config.set(scheduler=refuse):
            maps = model.transform(lazy)
            assert hasattr(maps.data, "dask")
        assert maps.chunks[0] == (5, 5, 5, 1)
        values, scale = maps.values, model.scale(lazy).values
    np.testing.assert_allclose(scale, values.sum(axis=-1), rtol=1e-9)
    # In memory there is one block and no border.
    whole = model.transform(small.cube)
    assert len(model._anchors.faces) == 12
    np.testing.assert_allclose(values, whole.values, atol=5e-4 * float(whole.max()))


def test_smooth_maps_of_another_cube_are_solved_on_it(small):
    model = em.MiniBatchNMF(3, smoothness=1.0, random_state=0).fit(small.cube)
    half = small.cube.isel(x=slice(0, 9))
    maps = model.transform(half)
    assert maps.shape == (16, 9, 3)
    whole = model.transform(small.cube).values[:, :9]
    # Far from the cut pixels know nothing of it; at it they have lost their neighbours.
    np.testing.assert_allclose(maps.values[:, :4], whole[:, :4], atol=0.02 * whole.max())
    assert not np.allclose(maps.values[:, 8], whole[:, 8], atol=1e-3 * whole.max())


def test_images_of_a_series_are_smoothed_each_on_its_own(small):
    values = small.cube.values
    twice = em.make_cube(
        np.stack((values, values[:, ::-1])), dims=("tilt", "y", "x", "energy"), sig_dims=("energy",),
        coords={"energy": small.cube.energy.values}, units={"energy": "keV", "tilt": "deg"},
    )  # fmt: skip
    model = em.MiniBatchNMF(3, smoothness=1.0, random_state=0).fit(twice)
    assert model._variant.dims == (1, 2)
    maps = model.transform(twice)
    np.testing.assert_allclose(
        maps[0].values, maps[1].values[:, ::-1], atol=1e-3 * float(maps.max())
    )


def test_known_spectra_come_in_many_forms(small):
    labelled = xr.DataArray(
        small.spectra[:1], dims=("component", "energy"), coords={"energy": small.cube.energy}
    )
    axis = SimpleNamespace(name="Energy", axis=small.cube.energy.values, units="keV")
    signal = SimpleNamespace(
        data=1e4 * small.spectra[0], axes_manager=SimpleNamespace(signal_axes=(axis,))
    )
    fitted = em.MiniBatchNMF(1, known=labelled, random_state=0).fit(small.cube)
    answers = [
        em.MiniBatchNMF(3, known=known, random_state=0).fit(small.cube).components_.values
        for known in (labelled, labelled[0], small.spectra[0], signal, fitted, [labelled[0]])
    ]
    for other in answers[1:]:
        np.testing.assert_allclose(other, answers[0], atol=1e-12)
    both = em.MiniBatchNMF(3, known=[labelled, small.spectra[2]], random_state=0).fit(small.cube)
    assert both.n_known_ == 2


def test_a_standard_from_an_msa_file_is_a_known_spectrum(small, tmp_path):
    path = tmp_path / "standard.msa"
    recorded = em.make_cube(
        np.round(1e6 * small.spectra[0]), dims=("energy",), sig_dims=("energy",),
        coords={"energy": small.cube.energy.values}, units={"energy": "keV"},
    )  # fmt: skip
    em.export(recorded, path)
    standard = em.open(path).interp(energy=small.cube.energy)
    model = em.MiniBatchNMF(3, known=standard, random_state=0).fit(small.cube)
    np.testing.assert_allclose(model.components_.values[0], small.spectra[0], atol=1e-5)


def test_all_components_may_be_known(small):
    model = em.MiniBatchNMF(3, known=small.spectra, random_state=0).fit(small.cube)
    np.testing.assert_allclose(model.components_.values, small.spectra, atol=1e-12)
    _, error = judged(model, small)
    assert error < 0.25


def test_partial_fit_goes_on_with_what_is_known(small):
    model = em.MiniBatchNMF(
        3, known=small.spectra[:1], basis={"elements": ELEMENTS}, random_state=0
    )
    model.partial_fit(small.cube.isel(y=slice(0, 8)))
    model.partial_fit(small.cube.isel(y=slice(8, 16)))
    np.testing.assert_allclose(model.components_.values[0], small.spectra[0], atol=1e-12)
    assert model.coefficients_.sizes["component"] == 3
    assert np.isnan(model.coefficients_.values[0]).all()


# ------------------------------------------------------------------------ missing pixels, channels


def test_what_is_left_out_has_no_say(make, small):
    """Single pixels and single channels, whatever they hold."""
    nav = small.cube.isel(energy=0, drop=True)
    pixels = xr.ones_like(nav, dtype=bool)
    for y, x in ((0, 0), (5, 7), (5, 8), (15, 17)):
        pixels[y, x] = False
    channels = xr.DataArray(np.ones(391, bool), dims="energy", coords={"energy": small.cube.energy})
    channels[[3, 100, 390]] = False
    used = pixels & channels
    poison = small.cube.copy(
        data=np.where(used.transpose(*small.cube.dims).values, small.cube.values, 60000)
    )
    answers = []
    for cube in (small.cube, poison):
        model = make().fit(cube, where=used)
        answers.append((model.components_.values, model.transform(cube, where=pixels).values))
    for a, b in zip(*answers, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isnan(answers[0][0][:, [3, 100, 390]]).all()
    np.testing.assert_array_equal(np.isnan(answers[0][1]).all(axis=-1), ~pixels.values)


def test_a_single_cell_cannot_be_left_out(small):
    cells = xr.ones_like(small.cube, dtype=bool)
    cells[3, 4, 5] = False
    with pytest.raises(SelectionError, match="channels"):
        em.MiniBatchNMF(3).fit(small.cube, where=cells)


# ------------------------------------------------------------------------------------- the volume


def test_the_volume_draws_components_together(small):
    """A weight above one makes the simplex smaller, none the largest; the objective tells it."""
    gram = {}
    for volume in (0.0, 1.0, 8.0):
        model = em.MiniBatchNMF(3, volume=volume, pool=2, tol=0, max_iter=40, random_state=0)
        s = model.fit(small.cube).components_.values
        scale = np.sqrt(s.mean(axis=0)) + 1e-12
        gram[volume] = np.linalg.slogdet((s / scale) @ (s / scale).T)[1]
        assert (model.volume_strength_ > 0) == (volume > 0)
    assert gram[8.0] < gram[1.0] < gram[0.0]


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsity": -1.0}, "sparsity must be a number from 0 on"),
        ({"smoothness": np.inf}, "smoothness must be a number from 0 on"),
        ({"smoothness": 1.0, "pool": 2}, "takes the place of pooling"),
        ({"smoothness": 1.0, "sum_to_one": True, "beta_loss": "frobenius"}, "least squares"),
        ({"known": np.ones((4, 391))}, "4 spectra are known"),
        ({"known": np.ones((1, 390))}, "has the shape"),
        ({"basis": np.ones((5, 390))}, "basis has the shape"),
        ({"basis": {"elements": ["Si"], "widths": 3}}, "widths"),
        ({"basis": {"elements": ["Xx"]}}, "unknown element"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(small, options, words):
    with pytest.raises(InputError, match=words):
        em.MiniBatchNMF(3, **options).fit(small.cube)


def test_a_known_spectrum_on_other_energies_is_refused_with_the_remedy(small):
    other = xr.DataArray(
        small.spectra[0], dims="energy", coords={"energy": small.cube.energy + 0.5}
    )
    with pytest.raises(InputError, match="energy goes from") as caught:
        em.MiniBatchNMF(3, known=other).fit(small.cube)
    assert "interp" in caught.value.hint


def test_smoothness_needs_an_image(small):
    matrix = small.cube.values.reshape(-1, 391)
    with pytest.raises(InputError, match="bare matrix"):
        em.MiniBatchNMF(3, smoothness=1.0).fit(matrix)
    series = em.make_cube(matrix, dims=("time", "energy"), sig_dims=("energy",))
    with pytest.raises(InputError, match="neighbours"):
        em.MiniBatchNMF(3, smoothness=1.0).fit(series)
    model = em.MiniBatchNMF(3, smoothness=1.0, random_state=0).fit(small.cube)
    with pytest.raises(InputError, match="image of the fit"):
        model.transform(matrix)
    with pytest.raises(InputError, match="cannot go on"):
        model.partial_fit(small.cube)


def test_several_cubes_share_what_is_known_and_are_not_smooth_together(small):
    both = [small.cube.isel(y=slice(0, 8)), small.cube.isel(y=slice(8, 16))]
    model = em.MiniBatchNMF(3, known=small.spectra[:1], sparsity=0.2, random_state=0).fit(both)
    np.testing.assert_allclose(model.components_.values[0], small.spectra[0], atol=1e-12)
    with pytest.raises(InputError, match="several cubes"):
        em.MiniBatchNMF(3, smoothness=1.0).fit(both)
    # The way that the message names.
    each = em.MiniBatchNMF(3, known=model, smoothness=1.0, random_state=0).fit(both[0])
    assert each.transform(both[0]).shape == (8, 18, 3)


def test_a_basis_by_name_needs_energies(small):
    with pytest.raises(InputError, match="energies of the channels"):
        em.MiniBatchNMF(3, basis={"elements": ["Si"]}).fit(small.cube.values.reshape(-1, 391))


def test_what_says_how_sure_an_answer_is_refuses_variants(make, small):
    model = make().fit(small.cube)
    with pytest.raises(InputError, match="uncertainty of a MiniBatchNMF with"):
        em.uncertainty(model, small.cube, method="fisher")
    with pytest.raises(InputError, match="independent spectra would not be"):
        model.with_independent_spectra()
    if model.sparsity or model.smoothness:
        with pytest.raises(InputError, match="diagnostics of a MiniBatchNMF with"):
            em.diagnostics(model, small.cube)
    else:
        assert em.diagnostics(model, small.cube).attrs["said"]


def test_the_size_of_outlines_is_told_to_the_memory_projection(small):
    from emcube.engine.plan import BlockPlan

    plan = BlockPlan((40, 60), (10, 60), 5, 1)
    # Three borders of 60 pixels, seen from both sides, three components of eight bytes.
    assert outline_bytes(plan, (0, 1), 3) == 3 * 60 * 2 * 3 * 8
