"""Number of components: scenes of known rank, noise of several kinds, and refusals."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import scipy.sparse

import emcube as em
from emcube.engine import run_sweep
from emcube.errors import InputError
from emcube.kernels.rows import CountRows, rows_from_dense
from emcube.models import n_components
from emcube.models.labels import as_source


def mixture(k, counts_per_pixel, n_pixels=2500, n_channels=200, seed=0):
    rng = np.random.default_rng(seed)
    spectra = rng.dirichlet(np.full(n_channels, 0.5), k)
    return rng.dirichlet(np.full(k, 0.6), n_pixels) @ spectra * counts_per_pixel, rng


@pytest.mark.parametrize("k", [1, 2, 4, 7])
@pytest.mark.parametrize("counts_per_pixel", [60, 400])
def test_finds_the_number(k, counts_per_pixel):
    expected, rng = mixture(k, counts_per_pixel)
    found = em.estimate_n_components(rng.poisson(expected).astype(np.uint16))
    assert found.n_components == k
    assert found.trusted
    assert not found.refused
    assert found.margin.below > 0 < found.margin.above
    assert found.alternatives["biwhitening"] == k


def test_single_digit_counts_in_patches():
    # 6 counts a pixel: only neighbours together tell anything.
    rng = np.random.default_rng(1)
    spectra = rng.dirichlet(np.full(150, 0.5), 3)
    phase = np.repeat(rng.integers(0, 3, 400), 25)
    counts = rng.poisson(6 * spectra[phase]).astype(np.uint8)
    found = em.estimate_n_components(da.from_array(counts, chunks=(2222, 150)))
    assert found.n_components == 3
    assert found.noise["pixels"] < 1000


def test_rare_channels_do_not_count():
    # Channels of about one count each, which unpooled give a plateau of spurious values.
    expected, rng = mixture(3, 80)
    rare = rng.poisson(2e-4, (2500, 600))
    found = em.estimate_n_components(np.concatenate((rng.poisson(expected), rare), axis=1))
    assert found.n_components == 3
    assert found.noise["channels"] < 300


def test_dead_channels_and_pixels():
    expected, rng = mixture(3, 150)
    expected[:, ::3] = 0
    expected[100:600] = 0
    assert em.estimate_n_components(rng.poisson(expected)).n_components == 3


def test_gain_of_the_detector_is_found():
    expected, rng = mixture(3, 20000)
    found = em.estimate_n_components((4.0 * rng.poisson(expected)).astype(np.float32))
    assert found.n_components == 3
    assert found.noise["model"] == "quadratic"
    assert found.noise["gain"] == pytest.approx(4, rel=0.05)


def test_noise_that_grows_with_the_signal():
    expected, rng = mixture(3, 40000)
    # Poisson counts with a fluctuating gain: var = m + 0.01 m^2.
    drawn = rng.poisson(expected * rng.gamma(100, 0.01, expected.shape))
    found = em.estimate_n_components(drawn.astype(np.int32))
    assert found.n_components == 3
    assert found.noise["curvature"] == pytest.approx(0.01, rel=0.5)


def test_correlated_noise_is_refused():
    expected, rng = mixture(2, 5000)
    noise = rng.normal(size=expected.shape)
    smooth = sum(np.roll(noise, s, axis=1) for s in range(-4, 5))
    found = em.estimate_n_components(expected + 100 + 3 * smooth)
    assert found.refused
    assert found.n_components is None
    assert not found.trusted
    assert "refused" in str(found)
    assert found.alternatives["elbow"] is not None


@pytest.mark.parametrize(
    "counts",
    [
        np.ones((4, 300), np.uint8),
        np.zeros((400, 300), np.uint8),
        np.random.default_rng(0).poisson(1e-3, (3000, 300)).astype(np.uint8),
        np.zeros((400, 300)),
    ],
    ids=["four pixels", "no counts", "hardly any counts", "no signal"],
)
def test_too_little_data_is_refused(counts):
    found = em.estimate_n_components(counts)
    assert found.n_components is None
    assert found.reason
    assert found.curve.sizes["component"] == 0 or not found.trusted


def test_methods_and_their_alternatives():
    expected, rng = mixture(3, 300)
    counts = rng.poisson(expected).astype(np.uint16)
    for method in ("biwhitening", "parallel", "elbow"):
        found = em.estimate_n_components(counts, method=method)
        assert found.method == method
        assert found.n_components == found.alternatives[method] == 3


def test_the_same_answer_from_every_kind_of_input():
    expected, rng = mixture(3, 300, n_pixels=900)
    counts = rng.poisson(expected).astype(np.uint16)
    cube = em.make_cube(counts.reshape(30, 30, 200), dims=("y", "x", "energy"))
    inputs = [counts, scipy.sparse.csr_matrix(counts), cube, cube.chunk(y=7)]
    answers = [em.estimate_n_components(x) for x in inputs]
    assert {a.n_components for a in answers} == {3}
    first = answers[0].curve["singular_value"]
    for a in answers[1:3]:
        np.testing.assert_allclose(a.curve["singular_value"], first, rtol=1e-10)
    # Other blocks group the pixels at their ends otherwise.
    np.testing.assert_allclose(answers[3].curve["singular_value"], first, rtol=0.02)


def test_where_is_honoured():
    expected, rng = mixture(3, 300, n_pixels=1600)
    expected[:800] = expected[0]
    cube = em.make_cube(
        rng.poisson(expected).reshape(40, 40, 200), dims=("y", "x", "energy"), sig_dims=("energy",)
    )
    assert em.estimate_n_components(cube).n_components == 3
    assert em.estimate_n_components(cube, where=cube.y < 20).n_components == 1


def test_curve_and_plot():
    expected, rng = mixture(2, 200)
    found = em.estimate_n_components(rng.poisson(expected), n_shown=12)
    assert found.curve.sizes == {"component": 12}
    assert int(found.curve["accepted"].sum()) == 2
    assert float(found.curve["threshold"]) == found.threshold
    np.testing.assert_allclose(
        found.curve["relative"], found.curve["singular_value"] / found.threshold
    )
    figure = found.plot()
    assert figure.axes
    refused = em.estimate_n_components(np.ones((4, 300), np.uint8))
    assert refused.curve.sizes["component"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "scree"}, "method must be"),
        ({"noise": "gaussian"}, "noise must be"),
        ({"pixel_counts": 0}, "pixel_counts must be"),
        ({"channel_counts": np.nan}, "channel_counts must be"),
        ({"pixel_counts": "many"}, "pixel_counts must be"),
        ({"n_shown": 0}, "n_shown must be"),
        ({"n_shown": 1.5}, "n_shown must be"),
        ({"random_state": -1}, "random_state"),
    ],
)
def test_refused_arguments(arguments, words):
    with pytest.raises(InputError, match=words):
        em.estimate_n_components(np.ones((100, 60), np.uint8), **arguments)


def test_negative_counts_are_refused_where_counts_are_meant():
    values = np.ones((100, 60), np.int16)
    values[3, 4] = -2
    with pytest.raises(InputError, match="must not be negative"):
        em.estimate_n_components(values, noise="poisson")
    with pytest.raises(InputError, match="finite"):
        em.estimate_n_components(np.full((100, 60), np.nan))


def test_scenes_have_their_stated_number():
    scene = em.scenes.srm2135c(scale=0.03, random_state=0)
    assert em.estimate_n_components(scene.cube).n_components == scene.n_components
    scene = em.scenes.jadeite(scale=0.05, random_state=0)
    assert em.estimate_n_components(scene.cube).n_components == scene.n_components


def three_lines(seed, n_pixels=60_000, n_channels=100, counts=30):
    """Few counts a pixel, many pixels: three phases with a line each on one background."""
    rng = np.random.default_rng(seed)
    e = np.arange(n_channels)
    background = np.exp(-e / 25)
    lines = np.exp(-0.5 * ((e - np.array([[15], [40], [70]])) / 1.5) ** 2)
    spectra = 0.3 * background / background.sum() + 0.7 * lines / lines.sum(axis=1, keepdims=True)
    shares = rng.dirichlet([0.4] * 3, n_pixels)
    return rng.poisson(counts * shares @ spectra).astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_many_pixels_of_few_counts_make_no_component_of_their_own_noise(seed, monkeypatch):
    counts = three_lines(seed)
    found = em.estimate_n_components(counts, pixel_counts=20)
    assert found.n_components == 3
    assert found.margin.above > 100
    assert found.noise["distance"] < 0.04
    # Without the second look the pixels' own noise stands as a fourth component.
    monkeypatch.setattr(n_components, "OWN_NOISE", np.inf)
    assert em.estimate_n_components(counts, pixel_counts=20).n_components == 4


def test_the_even_spectrum_is_that_of_the_obvious_matrix():
    counts = three_lines(5, n_pixels=3000)
    source, _ = as_source(counts)
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 2.0, counts.shape[1])
    pooling = n_components._Pooling(0.0, np.arange(counts.shape[1]), counts.shape[1])
    sweep = n_components.EvenGramSweep(pooling, weights, 0.4)
    even = run_sweep(sweep, source).state
    gram, columns = even.gram, even.channels
    y = counts.astype(float)
    u = counts.shape[1] / np.maximum(y @ weights, 0.4 * y.sum(axis=1))
    v = len(y) / (u @ y)
    x = np.sqrt(u[:, None] * v) * y
    np.testing.assert_allclose(columns, v, rtol=1e-12)
    np.testing.assert_allclose(gram, x.T @ x, rtol=1e-10, atol=1e-10)


def test_still_more_pixels_are_scaled_by_other_counts_than_their_own(monkeypatch):
    counts = three_lines(0, n_pixels=400_000)
    found = em.estimate_n_components(counts, pixel_counts=20)
    assert found.n_components == 3
    assert found.margin.above > 100
    monkeypatch.setattr(n_components, "SPLIT", 0.0)
    assert em.estimate_n_components(counts, pixel_counts=20).n_components == 4


@pytest.mark.parametrize("kind", ["rows", "dense"])
def test_parts_of_counts_are_whole_and_independent(kind):
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.2 if kind == "rows" else 6.0, (4000, 50)).astype(np.uint16)
    whole = rows_from_dense(counts) if kind == "rows" else counts.astype(float)
    rest, part = n_components._parted(whole, 0.4, np.random.default_rng(1))
    if kind == "rows":
        assert isinstance(rest, CountRows)
        assert (rest.counts > 0).all()
        assert (part.counts > 0).all()
        rest, part = rest.to_dense(), part.to_dense()
    np.testing.assert_array_equal(rest + part, counts)
    assert abs(part.mean() / counts.mean() - 0.4) < 0.01
    for half in (rest, part):
        assert abs(half.var() / half.mean() - 1) < 0.02
    assert abs(np.corrcoef(rest.ravel(), part.ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_factors_that_run_away_do_not_end_in_infinities(k):
    """Unpooled, rare counts leave some columns no scaling; pooled further, all of them have one."""
    rng = np.random.default_rng(0)
    spectra = rng.dirichlet(np.full(150, 0.1), k)
    shares = rng.dirichlet(np.full(k, 0.5), 6400)
    counts = rng.poisson(300 * shares @ spectra).astype(np.uint16)
    pixels = rng.random(6400) < 0.5
    assert em.estimate_n_components(counts).n_components == k
    assert em.estimate_n_components(counts, where=pixels).n_components == k
    # As floats nobody knows that they are counts, and nothing is pooled.
    refused = em.estimate_n_components(counts.astype(np.float32))
    assert refused.refused
    assert "cannot be scaled" in refused.reason
    assert np.isfinite(refused.curve["singular_value"]).all()
