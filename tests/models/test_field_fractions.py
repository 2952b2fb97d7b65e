"""Is one image representative? Against slow twins, and on fields whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

import emcube as em
from emcube.engine import use_threads
from emcube.errors import InputError, NotFittedError
from emcube.models.field_fractions import Tables, summarised


def labels(
    rng: np.random.Generator, share: float, size: int = 64, blur: float = 2.0
) -> xr.DataArray:
    """Two phases, the first of which covers about `share` of the field; grains of some `blur` pixels."""
    noise = gaussian_filter(rng.normal(size=(size, size)), blur, mode="wrap")
    edge = noise.std() * _normal_quantile(share)
    return xr.DataArray((noise > edge).astype(np.int32), dims=("y", "x"))


def _normal_quantile(p: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(p))


SPECTRA = np.random.default_rng(3).dirichlet(np.full(30, 0.3), 2)


def measured(found: xr.DataArray, rng: np.random.Generator, counts: float = 40.0) -> xr.DataArray:
    """Counts of a field of labels."""
    drawn = rng.poisson(counts * SPECTRA[found.values]).astype(np.uint16)
    return em.make_cube(drawn, dims=("y", "x", "energy"), sig_dims=("energy",))


# ------------------------------------------------------------------------------------------- fractions


@pytest.fixture(scope="module")
def fields() -> list[xr.DataArray]:
    rng = np.random.default_rng(5)
    return [labels(rng, p) for p in (0.2, 0.35, 0.3, 0.25, 0.4)]


@pytest.fixture(scope="module")
def cubes(fields) -> list[xr.DataArray]:
    rng = np.random.default_rng(6)
    return [measured(one, rng).chunk(y=20) for one in fields]


def test_fractions_of_labels_are_counted(fields) -> None:
    found = em.phase_fractions(fields)
    by_hand = [(one == 0).mean().item() for one in fields]
    np.testing.assert_allclose(found["fraction"].sel(phase=0), by_hand, rtol=1e-12)
    np.testing.assert_allclose(
        found["mean_fraction"], [np.mean(by_hand), 1 - np.mean(by_hand)], rtol=1e-12
    )
    np.testing.assert_allclose(found["spread"][0], np.std(by_hand, ddof=1), rtol=1e-12)
    error = np.std(by_hand, ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(found["standard_error"][0], error, rtol=1e-12)
    half = 2.7764451 * error  # Student's t of 4 degrees of freedom
    np.testing.assert_allclose(
        found["mean_interval"][0, 1] - found["mean_fraction"][0], half, rtol=1e-6
    )
    needed = (2.7764451 * np.std(by_hand, ddof=1) / (0.1 * np.mean(by_hand))) ** 2
    assert found["fields_needed"][0] == np.ceil(needed)
    low, high = found["fields_needed_interval"].values[0]
    assert low < needed < high
    assert np.isnan(found["share_counting"]).all()
    np.testing.assert_allclose(found["share_area"] + found["share_fields"], 1.0)
    assert "not representative" in found.attrs["said"]


def test_pixels_that_belong_to_nothing_count_nowhere(fields) -> None:
    holes = [one.where(one.y < 40, -1) for one in fields]
    holes = [one.astype(np.int32) for one in holes]
    found = em.phase_fractions(holes)
    np.testing.assert_allclose(
        found["fraction"][:, 0], [(one[:40] == 0).mean().item() for one in fields], rtol=1e-12
    )
    used = [one.y < 40 for one in fields]
    wheres = [u.broadcast_like(one) for u, one in zip(used, fields, strict=True)]
    one = em.phase_fractions(fields[0], where=wheres[0])
    np.testing.assert_allclose(one["fraction"][0], found["fraction"][0], rtol=1e-12)
    same = em.phase_fractions(fields, where=wheres)
    np.testing.assert_allclose(same["fraction"], found["fraction"], rtol=1e-12)
    assert (same["n_pixels"] == 40 * 64).all()


def test_fractions_by_a_model_are_those_of_its_answers(cubes, fields) -> None:
    kmeans = em.KMeans(2, random_state=0).fit(cubes)
    found = em.phase_fractions(kmeans, cubes)
    alone = em.phase_fractions(kmeans.labels_)
    for name in ("fraction", "mean_fraction", "spread", "fraction_std_area", "fields_needed"):
        np.testing.assert_allclose(found[name], alone[name], rtol=1e-9, err_msg=name)
    assert np.isfinite(found["fraction_std_counting"]).all()
    total = found["share_counting"] + found["share_area"] + found["share_fields"]
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)
    nmf = em.MiniBatchNMF(2, random_state=0).fit(cubes)
    shares = em.phase_fractions(nmf, cubes)
    maps = nmf.transform(cubes)
    sums = np.array([m.sum(("y", "x")).values for m in maps])
    np.testing.assert_allclose(
        shares["fraction"], sums / sums.sum(axis=1, keepdims=True), rtol=1e-9
    )
    np.testing.assert_allclose(em.phase_fractions(maps)["fraction"], shares["fraction"], rtol=1e-9)
    mixture = em.PoissonMixture(2, random_state=0).fit(cubes)
    soft = em.phase_fractions(mixture, cubes)
    assert soft.attrs["of"] == "probabilities"
    # Clusters are ordered by their counts: the second phase is the larger one in all fields.
    truth = [(one == 1).mean().item() for one in fields]
    np.testing.assert_allclose(soft["fraction"][:, 0], truth, atol=0.01)


def test_same_bits_on_any_number_of_threads(cubes) -> None:
    model = em.KMeans(2, random_state=0).fit(cubes)
    many = em.phase_fractions(model, cubes)
    with use_threads(1):
        one = em.phase_fractions(model, cubes)
    xr.testing.assert_identical(one, many)


# --------------------------------------------------------------------------------------- the truth


def test_counting_noise_is_that_of_measuring_again() -> None:
    """The same place measured a hundred times."""
    rng = np.random.default_rng(0)
    place = labels(rng, 0.3, size=32)
    again = [measured(place, rng, counts=25.0) for _ in range(100)]
    nmf = em.MiniBatchNMF(2, random_state=0).fit(again[:4])
    truth = np.array([m.sum(("y", "x")).values for m in nmf.transform(again)])
    truth = (truth / truth.sum(axis=1, keepdims=True)).std(axis=0, ddof=1)
    told = em.phase_fractions(nmf, again[:6])["fraction_std_counting"].mean("field")
    # A hundred measurements tell a standard deviation to seven per cent.
    np.testing.assert_allclose(told, truth, rtol=0.25)


def test_finite_area_is_that_of_other_places_of_one_specimen() -> None:
    """Fields of one law: their own tiles foretell the spread, and nothing else is needed."""
    rng = np.random.default_rng(1)
    places = [labels(rng, 0.3, size=64, blur=3.0) for _ in range(60)]
    found = em.phase_fractions(places)
    told = np.sqrt(np.square(found["fraction_std_area"]).mean("field"))
    np.testing.assert_allclose(told, found["spread"], rtol=0.2)
    assert float(found["share_fields"].max()) < 0.4
    few = [em.phase_fractions(places[i : i + 6])["p_value"].values[0] for i in range(0, 60, 6)]
    assert sum(p < 0.05 for p in few) <= 2


def test_fields_that_differ_are_told_from_noise() -> None:
    rng = np.random.default_rng(2)
    shares = np.clip(rng.normal(0.3, 0.08, 40), 0.05, 0.9)
    found = em.phase_fractions([labels(rng, p) for p in shares])
    between = float(found["share_fields"][0] * found["spread"][0] ** 2)
    assert np.sqrt(between) == pytest.approx(shares.std(ddof=1), rel=0.15)
    assert float(found["p_value"][0]) < 1e-6
    assert "more than counting and finite area explain" in found.attrs["said"]


def test_one_place_measured_again_is_no_second_field() -> None:
    rng = np.random.default_rng(4)
    place = labels(rng, 0.3, blur=4.0)
    again = [measured(place, rng) for _ in range(5)]
    model = em.MiniBatchNMF(2, random_state=0).fit(again)
    found = em.phase_fractions(model, again, n_draws=2)
    assert (found["p_value"] > 0.99).all()
    assert "more alike than places that were chosen apart" in found.attrs["said"]


def test_intervals_of_the_mean_hold_the_truth() -> None:
    """Eight fields of a specimen, two hundred times: fractions of a law with a known mean."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        first = rng.binomial(64, rng.beta(6.0, 14.0, (8, 1)), (8, 4))
        tables = [np.column_stack((a, 64 - a))[None].astype(float) for a in first]
        names = tuple(f"field {i}" for i in range(8))
        known = Tables(tables, [(2, 2)] * 8, np.full(8, 256), names, "labels", np.arange(2))
        found = summarised(known, level=0.9, relative_error=0.1, seed=0)
        low, high = found["mean_interval"].values[0]
        held += low <= 0.3 <= high
    assert 0.84 <= held / 200 <= 0.96


def test_one_field_says_what_it_can(fields) -> None:
    found = em.phase_fractions(fields[0])
    for name in ("spread", "standard_error", "fields_needed", "p_value", "share_fields"):
        assert np.isnan(found[name]).all(), name
    assert found["fields_needed_area"][0] >= 1
    assert "One field cannot tell" in found.attrs["said"]
    low, high = found["fraction_interval"].values[0, 0]
    assert low < found["fraction"][0, 0] < high


def test_the_figure_shows_fields_and_parts(cubes, fields) -> None:
    model = em.KMeans(2, random_state=0).fit(cubes)
    figure = em.plot.phase_fractions(em.phase_fractions(model, cubes), names=["matrix", "grains"])
    assert len(figure.axes) == 3
    assert len(em.plot.phase_fractions(em.phase_fractions(fields[0])).axes) == 3
    with pytest.raises(InputError, match="missing"):
        em.plot.phase_fractions(em.phase_fractions(fields).drop_vars("mean_fraction"))
    with pytest.raises(InputError, match="3 names for 2 phases"):
        em.plot.phase_fractions(em.phase_fractions(fields), names=["a", "b", "c"])


def test_mistakes_are_named(cubes, fields) -> None:
    kmeans = em.KMeans(2, random_state=0).fit(cubes)
    with pytest.raises(InputError, match="none was given"):
        em.phase_fractions(kmeans)
    with pytest.raises(InputError, match="cubes belong to a fitted model"):
        em.phase_fractions(fields, cubes)
    with pytest.raises(NotFittedError, match="has not been fitted"):
        em.phase_fractions(em.KMeans(2), cubes)
    with pytest.raises(InputError, match="any sign"):
        em.phase_fractions(em.IncrementalPCA(2).fit(cubes), cubes)
    with pytest.raises(InputError, match="must be labelled"):
        em.phase_fractions(kmeans, cubes[0].values)
    with pytest.raises(InputError, match="whole numbers"):
        em.phase_fractions([one.astype(float) for one in fields])
    with pytest.raises(InputError, match="labels for some fields"):
        em.phase_fractions([fields[0], em.MiniBatchNMF(2, random_state=0).fit_transform(cubes[0])])
    with pytest.raises(InputError, match="nothing that belongs to a phase"):
        em.phase_fractions([fields[0], xr.full_like(fields[1], -1)])
    for name, value in (("level", 1.0), ("relative_error", 0.0), ("n_draws", 1)):
        with pytest.raises(InputError, match=name):
            em.phase_fractions(fields, **{name: value})


def test_one_cube_takes_one_selection(cubes) -> None:
    """As in a recipe of a single map: a list of one is not asked for."""
    used = (cubes[0].y < 40).broadcast_like(cubes[0].isel(energy=0, drop=True))
    model = em.KMeans(2, random_state=0).fit(cubes[0], where=used)
    alone = em.phase_fractions(model, cubes[0], where=used, n_draws=2, random_state=0)
    listed = em.phase_fractions(model, cubes[0], where=[used], n_draws=2, random_state=0)
    xr.testing.assert_identical(alone, listed)
    np.testing.assert_allclose(alone["fraction"].sum("phase"), 1.0)
