"""SISAL: the truth of scenes with and without pure pixels, its range, labels, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import emcube as em
from benchmarks.geometry import samson_like
from emcube.engine import use_threads
from emcube.errors import InputError
from emcube.scenes.metrics import match_components


def of_mixtures(k: int, seed: int, *, cap: float = 0.8, counts: float = 3000.0, side: int = 50):
    """Counts of mixtures none of which holds more than `cap` of one component: lines on a background."""
    rng = np.random.default_rng(seed)
    channel = np.linspace(0.0, 1.0, 120)
    lines = np.exp(-0.5 * np.square((channel - rng.random((k, 4, 1))) / 0.015))
    spectra = 0.1 * np.exp(-channel / 0.4) + (rng.random((k, 4, 1)) * lines).sum(axis=1)
    spectra /= spectra.sum(axis=1, keepdims=True)
    shares = rng.dirichlet(np.ones(k), 20 * side * side)
    shares = shares[shares.max(axis=1) <= cap][: side * side]
    drawn = rng.poisson(counts * shares @ spectra).reshape(side, side, -1).astype(np.uint16)
    cube = em.make_cube(
        drawn,
        dims=("y", "x", "energy"),
        sig_dims=("energy",),
        coords={"energy": 0.1 * np.arange(120)},
        units={"energy": "keV", "y": "nm", "x": "nm"},
    )
    return cube, spectra


def paired(model, cube, truth):
    """Order of the components, their angles to the truth (degrees), and what each may be."""
    mean = cube.values.reshape(-1, cube.shape[-1]).mean(axis=0)
    order, angles = match_components(model.components_.values, truth, mean)
    return order, angles, np.maximum(2.0, 1.5 * np.asarray(model.counting_limit_)[order])


def held(model, truth, order):
    """Share of each true spectrum's signal in channels that the range holds."""
    low, high = (model.components_range_.sel(bound=b).values[order] for b in ("low", "high"))
    inside = (low <= truth + 1e-12) & (truth <= high + 1e-12)
    return (inside * truth).sum(axis=1) / truth.sum(axis=1)


@pytest.fixture(scope="module")
def mixed():
    cube, truth = of_mixtures(4, 0)
    return cube, truth, em.SISAL(4, random_state=0).fit(cube)


@pytest.mark.parametrize("name", ["jadeite", "srm2135c"])
def test_pure_pixels_are_found(name):
    given = {"scale": 0.03, "pure_pixels": 0.04} if name == "jadeite" else {"scale": 0.03}
    scene = getattr(em.scenes, name)(random_state=11, **given)
    cube = scene.cube.load()
    model = em.SISAL(scene.n_components, random_state=0).fit(cube)
    truth = scene.components.values
    order, angles, allowed = paired(model, cube, truth)
    assert (angles < allowed).all(), (angles, allowed)
    assert (held(model, truth, order) > 0.98).all()
    assert (model.purity_ > 0.8).all()
    assert model.converged_


def test_mixtures_of_at_most_four_fifths_are_resolved(mixed):
    """Where no pixel is pure N-FINDR finds mixtures, and SISAL what they are mixtures of."""
    cube, truth, model = mixed
    order, angles, allowed = paired(model, cube, truth)
    assert (angles < allowed).all(), (angles, allowed)
    assert (held(model, truth, order) > 0.98).all()
    _, others, _ = paired(em.NFINDR(4, random_state=0).fit(cube), cube, truth)
    assert others.min() > 2.0 * angles.max()
    assert ((model.purity_ > 0.65) & (model.purity_ < 0.9)).all()


def test_where_data_do_not_decide_the_range_holds_the_truth():
    """A solid solution of which no end member is near: the answer is wrong, and says how wrong it may be."""
    scene = em.scenes.jadeite(scale=0.03, random_state=12)
    cube, truth = scene.cube.load(), scene.components.values
    model = em.SISAL(5, random_state=0).fit(cube)
    order, angles, allowed = paired(model, cube, truth)
    assert (angles > allowed).any()
    assert (held(model, truth, order) > 0.97).all()
    width = np.diff(model.components_range_.values, axis=1).sum(axis=-1)
    assert width.max() < 3.0


def test_the_range_of_minimum_volume_nmf_holds_the_truth():
    """Soil, tree and water, none purer than 0.8: components are degrees off, and it is said how far."""
    cube, truth = samson_like(7)
    nmf = em.MiniBatchNMF(3, random_state=0).fit(cube)
    sure = em.uncertainty(nmf, cube, method="fisher")
    order, angles = match_components(
        nmf.components_.values, truth, cube.values.reshape(-1, 156).mean(axis=0)
    )
    low, high = (sure.rotation_range.sel(bound=b).values[order] for b in ("low", "high"))
    found = nmf.components_.values[order]
    low = low - (found - sure.components_interval.sel(bound="low").values[order])
    high = high + (sure.components_interval.sel(bound="high").values[order] - found)
    inside = (low <= truth) & (truth <= high)
    assert angles.max() > 2.0
    assert ((inside * truth).sum(axis=1) / truth.sum(axis=1) > 0.97).all()


@pytest.fixture(scope="module")
def edges():
    """Edges, a seventh of their background at most: corners lie seven times farther out than pixels."""
    scene = em.scenes.eels(scale=0.25, random_state=11)
    return scene.cube.load(), scene.components.values


def test_the_range_reaches_edges_on_their_background(edges):
    """On threads and in blocks, too."""
    cube, truth = edges
    model = em.SISAL(3, random_state=0).fit(cube)
    order, angles, _ = paired(model, cube, truth)
    assert angles.max() > 30.0
    assert (held(model, truth, order) > 0.97).all()
    with use_threads(3):
        again = em.SISAL(3, random_state=0).fit(cube.chunk(y=7))
    for name in ("components_", "components_range_"):
        xr.testing.assert_identical(getattr(model, name), getattr(again, name))


def test_the_rotation_range_reaches_edges_on_their_background(edges):
    """Values are twice the electrons: a count is worth more than one, which the noise tells."""
    cube, truth = edges
    nmf = em.MiniBatchNMF(3, random_state=0).fit(cube)
    found = em.uncertainty(nmf, cube, n_replicates=5)
    order, angles = match_components(
        nmf.components_.values, truth, cube.values.reshape(-1, 601).mean(axis=0)
    )
    assert angles.max() > 30.0
    low, high = (found.rotation_range.sel(bound=b).values[order] for b in ("low", "high"))
    inside = (low <= truth + 1e-12) & (truth <= high + 1e-12)
    assert ((inside * truth).sum(axis=1) > 0.97).all()
    with use_threads(3):
        again = em.uncertainty(nmf, cube.chunk(y=7), n_replicates=5)
    xr.testing.assert_identical(found.rotation_range, again.rotation_range)


def test_a_wider_level_gives_a_wider_range(mixed):
    cube, _, model = mixed
    wider = em.SISAL(4, level=0.9999, random_state=0).fit(cube)
    xr.testing.assert_equal(wider.components_, model.components_)
    widths = [np.diff(m.components_range_.values, axis=1).sum() for m in (model, wider)]
    assert widths[1] > widths[0]


def test_the_published_hinge_goes_out_with_the_noise():
    cube, truth = of_mixtures(4, 0, counts=1000.0, side=40)
    model, plain = (em.SISAL(4, hinge=h, random_state=0).fit(cube) for h in ("noise", 1000.0))
    _, angles, _ = paired(model, cube, truth)
    _, others, _ = paired(plain, cube, truth)
    assert others.sum() > 1.3 * angles.sum()
    assert plain.components_range_.shape == model.components_range_.shape


def test_floats_are_unmixed_by_least_squares():
    rng = np.random.default_rng(4)
    spectra = rng.dirichlet(np.full(30, 0.3), 3)
    shares = rng.dirichlet(np.full(3, 0.7), 6000)
    shares = shares[shares.max(axis=1) < 0.85][:2500]
    values = 50.0 * shares @ spectra + rng.normal(scale=0.02, size=(2500, 30))
    model = em.SISAL(3, random_state=0).fit(values)
    order, angles = match_components(model.components_, spectra, np.ones(30))
    assert angles.max() < 1.0
    low, high = model.components_range_[order].transpose(1, 0, 2)
    assert ((low <= spectra) & (spectra <= high)).mean() > 0.95
    exact = em.SISAL(3, random_state=0).fit(50.0 * shares @ spectra)
    assert match_components(exact.components_, spectra, np.ones(30))[1].max() < 0.5


def test_answers_are_labelled(mixed):
    cube, _, model = mixed
    found = model.components_range_
    assert found.dims == ("component", "bound", "energy")
    assert list(found.bound.values) == ["low", "high"]
    assert found.attrs["units"] == "1 per channel"
    assert found.energy.attrs["units"] == "keV"
    low, high = found.sel(bound="low"), found.sel(bound="high")
    assert float(low.min()) >= 0.0
    assert bool(((low <= model.components_) & (model.components_ <= high)).all())
    some = em.SISAL(4, random_state=0).fit(
        cube, where=xr.DataArray(np.arange(120) > 9, dims="energy")
    )
    assert np.isnan(some.components_range_.values[..., :10]).all()
    one = em.SISAL(1, random_state=0).fit(cube)
    assert one.components_range_.shape == (1, 2, 120)


def test_threads_give_the_same_bits(mixed):
    cube, _, _ = mixed
    answers = []
    for n in (1, 3):
        with use_threads(n):
            answers.append(em.SISAL(4, random_state=0).fit(cube.chunk(y=10)))
    for name in ("components_", "components_range_", "purity_"):
        xr.testing.assert_identical(*(getattr(m, name) for m in answers))


def test_more_pixels_join_the_cloud(mixed):
    cube, truth, _ = mixed
    model = em.SISAL(4, random_state=0)
    for part in (slice(0, None, 2), slice(1, None, 2)):
        model.partial_fit(cube.isel(y=part))
    _, angles, _ = paired(model, cube, truth)
    assert angles.max() < 3.0


def test_wrong_parameters_are_refused():
    counts = np.random.default_rng(0).poisson(5.0, (60, 12))
    for wrong in (
        {"hinge": 0.0},
        {"hinge": "soft"},
        {"hinge": True},
        {"level": 0.0},
        {"level": 1},
        {"tol": -1.0},
        {"max_iter": 0},
        {"n_average": 0},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            em.SISAL(2, **wrong).fit(counts)
