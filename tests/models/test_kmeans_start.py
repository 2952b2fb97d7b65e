"""Samples of pixels, starts that are found on them, and the subspace of profiles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import eigh
from sklearn.cluster import KMeans as SklearnKMeans

import emcube as em
from emcube.engine import ArraySource, resident, run_sweep
from emcube.engine.progress import listen
from emcube.kernels.rows import rows_from_dense
from emcube.models import kmeans_start, kmeans_subspace, subspace
from emcube.models.kmeans import _AsIs
from emcube.models.kmeans_start import Sample, Sounding, Survey, find_starts, rough_start
from emcube.models.noise import PoissonNoise
from emcube.models.pca_sweeps import GramSweep


def drawn(values, weights, chances, n_parts, seed, n_clusters=2):
    """Sample of parts of a matrix, merged from left to right."""
    sample = None
    for i, part in enumerate(np.array_split(np.arange(len(weights)), n_parts)):
        more = Sample.draw(
            values.take(part) if hasattr(values, "take_channels") else values[part],
            weights[part],
            chances[part],
            (seed, 0, i),
            kmeans_start.sample_size(n_clusters),
        )
        size = kmeans_start.sample_size(n_clusters)
        sample = more if sample is None else sample.merge(more, size)
    return sample


def sized(monkeypatch, most, least, numbers=1 << 19):
    """Make samples hold so much: cubes of more pixels than one holds otherwise would take minutes."""
    size = kmeans_start.SampleSize(most, least, numbers)
    monkeypatch.setattr(kmeans_start, "sample_size", lambda n_clusters: size)


@pytest.fixture
def small(monkeypatch):
    """Samples of a hundred pixels, of which 32 stay in any case."""
    sized(monkeypatch, 100, 32)


@pytest.mark.parametrize("rows", [True, False])
def test_a_sample_weighs_as_much_as_all_pixels(small, rows):
    rng = np.random.default_rng(0)
    values = rng.poisson(3.0, (2000, 5)).astype(np.uint8)
    weights, chances = rng.gamma(2.0, size=2000), rng.gamma(1.0, size=2000)
    cells = rows_from_dense(values) if rows else values
    guesses = []
    for seed in range(300):
        sample = drawn(cells, weights, chances, 7, seed)
        assert sample.keys.size == 100
        held = sample.values.to_dense() if rows else sample.values
        guesses.append((sample.weights / sample.probabilities) @ held)
    guesses = np.array(guesses)
    error = guesses.std(axis=0) / np.sqrt(len(guesses))
    # Five standard errors of the mean over the draws, which are below three percent.
    assert (error < 0.03 * (weights @ values)).all()
    np.testing.assert_array_less(np.abs(guesses.mean(axis=0) - weights @ values), 5 * error)


def test_merging_in_any_order_gives_the_same_pixels(small):
    values = np.arange(900.0)[:, None]
    weights = np.random.default_rng(1).gamma(1.0, size=900)
    size = kmeans_start.sample_size(2)
    cut = [slice(i, i + 300) for i in (0, 300, 600)]
    parts = [
        Sample.draw(values[c], weights[c], weights[c], (0, 0, i), size) for i, c in enumerate(cut)
    ]
    one = parts[0].merge(parts[1], size).merge(parts[2], size)
    other = parts[1].merge(parts[2], size).merge(parts[0], size)
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.values, one.gathered().values)
    assert one.floor == other.floor
    # The keys are those of the pixels, wherever they are held.
    np.testing.assert_array_equal(weights[one.values[:, 0].astype(int)], one.weights)


def test_samples_are_cut_to_the_numbers_they_may_hold(monkeypatch):
    sized(monkeypatch, 100, 32, 500)
    sample = drawn(np.ones((900, 10)), np.ones(900), np.ones(900), 3, 0)
    assert sample.keys.size == 50
    sized(monkeypatch, 100, 32, 20)
    assert drawn(np.ones((900, 10)), np.ones(900), np.ones(900), 3, 0).keys.size == 32


def test_few_pixels_are_all_in_the_sample():
    values = np.random.default_rng(0).random((50, 3))
    sample = drawn(values, np.ones(50), np.ones(50), 2, 0)
    assert sorted(sample.values[:, 0]) == sorted(values[:, 0])
    np.testing.assert_array_equal(sample.probabilities, np.ones(50))


def test_the_sounding_meets_rare_pixels_far_away():
    """Five pixels of 60,000: too few for a sample by weight, most of the inertia all the same."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60_000, 2))
    values[:5] = 1000.0 + rng.standard_normal((5, 2))
    features = _AsIs(2, 60_000.0)
    source = ArraySource.from_array(values, 1)
    moments, sample = run_sweep(Survey(features, 2, 60_000, 60_000.0), source, seed=1).state
    np.testing.assert_allclose(moments, [60_000, np.square(values).sum(), *values.sum(axis=0)])
    assert (sample.values[:, 0] > 500).sum() < 5
    centers, estimate = rough_start(sample, 2, (0,))
    sounding = Sounding(features, centers, 2, 60_000, 60_000.0, estimate)
    moved, inertia, sample = run_sweep(sounding, source, seed=2).state
    labels = np.square(values[:, None] - centers).sum(axis=2).argmin(axis=1)
    np.testing.assert_allclose(moved, [values[labels == k].mean(axis=0) for k in range(2)])
    assert inertia == pytest.approx(np.square(values - centers[labels]).sum())
    assert (sample.values[:, 0] > 500).sum() == 5
    model = em.KMeans(2, features="counts", random_state=0).fit(values)
    assert model.cluster_weights_.tolist() == [59_995, 5]


@pytest.mark.parametrize("weighted", [True, False])
def test_starts_reach_scikit_learns_best_of_thirty_on_the_sample(weighted):
    rng = np.random.default_rng(3)
    centers = rng.uniform(-10, 10, (12, 3))
    values = centers[rng.integers(0, 12, 4000)] + rng.standard_normal((4000, 3))
    weights = rng.gamma(1.0, size=4000) if weighted else np.ones(4000)
    sample = drawn(values, weights, weights, 3, 0, n_clusters=12)
    starts = find_starts(sample, 12, 4, (0,))
    best = SklearnKMeans(12, n_init=30, random_state=0, tol=0)
    best.fit(values, sample_weight=weights)
    distances = np.square(values[:, None] - starts[0]).sum(axis=2).min(axis=1)
    # All pixels are in the sample, so that it decides alone.
    assert len(starts) == 1
    assert weights @ distances <= best.inertia_ * (1 + 1e-3)


def test_starts_that_a_sample_cannot_tell_apart_are_all_kept(small):
    """Four blobs at the corners of a square, two clusters: left and right, or above and below."""
    rng = np.random.default_rng(0)
    corners = np.array([[0.0, 0.0], [0.0, 10.0], [10.0, 0.0], [10.0, 10.0]])
    values = corners[rng.integers(0, 4, 5000)] + rng.standard_normal((5000, 2))
    sample = drawn(values, np.ones(5000), np.ones(5000), 4, 0)
    starts = find_starts(sample, 2, 4, (1,))
    apart = np.abs(starts[:, 0] - starts[:, 1])
    assert len(starts) == 2
    assert sorted(apart.argmax(axis=1)) == [0, 1]
    assert len(find_starts(sample, 2, 1, (1,))) == 1
    # A rectangle has one best way.
    stretched = drawn(values * [1.0, 3.0], np.ones(5000), np.ones(5000), 4, 0)
    assert len(find_starts(stretched, 2, 4, (1,))) == 1


def test_given_centers_replace_the_start_that_agrees_with_them(small):
    rng = np.random.default_rng(0)
    values = np.array([[0.0], [10.0]])[rng.integers(0, 2, 5000)] + rng.standard_normal((5000, 1))
    sample = drawn(values, np.ones(5000), np.ones(5000), 4, 0)
    exact = np.array([[10.001], [0.001]])
    np.testing.assert_array_equal(find_starts(sample, 2, 4, (0,), given=exact)[0], exact)
    useless = np.array([[50.0], [60.0]])
    found = find_starts(sample, 2, 4, (0,), given=useless)[0]
    np.testing.assert_allclose(np.sort(found.ravel()), [0, 10], atol=0.6)


def test_pixels_that_are_hard_to_find_are_found_on_the_whole_sample(monkeypatch):
    """Seeds are taken among some pixels of the sample; where these are too much alike, among all."""
    monkeypatch.setattr(kmeans_start, "SEED_PIXELS", 1)
    values = np.zeros((3000, 1))
    values[:3, 0] = [1.0, 2.0, 3.0]
    sample = drawn(values, np.ones(3000), np.ones(3000), 2, 0, n_clusters=4)
    assert sorted(find_starts(sample, 4, 2, (0,))[0].ravel()) == [0, 1, 2, 3]


@pytest.mark.parametrize("features", ["counts", "profiles"])
def test_the_first_pass_is_within_a_percent_and_the_path_ends_at_the_inertia(features):
    cube = em.scenes.srm2135c(scale=0.02, random_state=0).cube.compute()
    # Fewer pixels than a sample holds would be no test of samples.
    events = []
    kmeans = em.KMeans(4, features=features, random_state=0)
    with listen(events.append), pytest.MonkeyPatch.context() as patch:
        sized(patch, 2000, 256)
        model = kmeans.fit(cube)
    path = model.inertia_path_
    assert path[-1] == model.inertia_
    assert len(path) == model.n_iter_
    assert (np.diff(path) <= 0).all()
    moments, _ = run_sweep(
        Survey(model._features, 4, cube[..., 0].size),
        ArraySource.from_array(cube.values, 3),
    ).state
    total = moments[1] - moments[2:] @ moments[2:] / moments[0]
    assert (path[0] - path[-1]) <= 0.01 * (total - path[-1])
    rounds = [e for e in events if e.kind == "round" and e.name == "k-means"]
    np.testing.assert_array_equal([e.objective for e in rounds], path)


@pytest.mark.parametrize("seed", range(5))
def test_every_seed_finds_the_best_clusters_of_raw_counts(seed):
    """scikit-learn's single starts mostly end a sixth of the between-cluster inertia higher."""
    cube = em.scenes.srm2135c(scale=0.02, random_state=0).cube.compute()
    with resident():
        model = em.KMeans(4, features="counts", random_state=seed).fit(cube)
        best = em.KMeans(4, features="counts", random_state=99, n_init=8, tol=0).fit(cube)
    assert model.inertia_ <= best.inertia_ * (1 + 1e-5)


# ------------------------------------------------------------------------------------------ subspace


def test_faint_pixels_are_taken_back_from_the_moments_of_pca():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1.0, 10.0, (300, 1)) * rng.dirichlet(np.ones(20)))
    source = ArraySource.from_array(counts.astype(np.uint8), 1)
    gram = run_sweep(GramSweep(PoissonNoise()), source).state.gram
    faint = run_sweep(kmeans_subspace._FaintGram(), source).state
    expected = sum(np.outer(x, x) / max(x.sum(), 10) for x in counts.astype(float))
    np.testing.assert_allclose(np.triu(gram - faint), np.triu(expected), rtol=1e-12)
    assert (counts.sum(axis=1) < 10).sum() > 50


@pytest.mark.parametrize("rank", [2, 300])
def test_leading_vectors_of_a_large_matrix(rank):
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((rank, 1100))
    factor[:2] *= [[9.0], [6.0]]
    matrix = factor.T @ factor
    values, vectors = eigh(matrix, subset_by_index=(1098, 1099))
    got = subspace.leading_vectors(matrix, 2)
    assert subspace._krylov_vectors(matrix, 2) is not None
    np.testing.assert_allclose(np.abs((got * vectors[:, ::-1]).sum(axis=0)), 1.0, atol=1e-9)
    np.testing.assert_allclose(matrix @ got, got * values[::-1], atol=1e-8 * values[-1])


def test_vectors_that_lie_too_close_are_found_by_reduction():
    matrix = np.diag(1.0 + np.arange(1100.0) * 1e-7)
    assert subspace._krylov_vectors(matrix, 3) is None
    got = subspace.leading_vectors(matrix, 3)
    np.testing.assert_allclose(np.abs(got), np.eye(1100)[:, :-4:-1], atol=1e-12)
