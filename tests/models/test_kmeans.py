from __future__ import annotations

import hashlib

import numpy as np
import pytest
import xarray as xr
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.metrics import adjusted_rand_score

import emcube as em
from emcube.engine import ArraySource, resident, run_sweep
from emcube.errors import InputError
from emcube.kernels.kmeans_gaps import find_clusters
from emcube.kernels.rows import CountRows
from emcube.models.kmeans import _AsIs
from emcube.models.kmeans_rounds import Lloyd
from emcube.models.labels import as_source


def features_of(model, cube):
    """Features, weights and labels of all pixels, in the order of the blocks."""
    source, _ = as_source(cube)
    parts = [model._features.of(source.load(i)) for i in range(source.plan.n_blocks)]
    labels = [
        np.asarray(model.labels_)[source.plan.slices(i)].ravel()
        for i in range(source.plan.n_blocks)
    ]
    values = [p[0] if isinstance(p[0], np.ndarray) else p[0].to_dense() for p in parts]
    return (
        np.concatenate(values),
        np.concatenate([p[1] for p in parts]),
        np.concatenate(labels),
    )


@pytest.fixture(scope="module")
def best_of_ten():
    """Labels and inertia that scikit-learn finds; of the same features it is asked once."""
    found = {}

    def ask(values, weights, k):
        key = (k, hashlib.sha256(values).digest(), hashlib.sha256(weights).digest())
        if key not in found:
            best = SklearnKMeans(k, n_init=10, random_state=0).fit(values, sample_weight=weights)
            found[key] = best.labels_, best.inertia_
        return found[key]

    return ask


def compare_with_sklearn(model, cube, k, best_of_ten):
    """Adjusted Rand index, and inertia excess as a share of the between-cluster inertia."""
    values, weights, labels = features_of(model, cube)
    best, inertia = best_of_ten(values, weights, k)
    mean = np.average(values, axis=0, weights=weights)
    total = float((weights * np.square(values - mean).sum(axis=1)).sum())
    used = labels >= 0
    rand = adjusted_rand_score(labels[used], best[used])
    return rand, (model.inertia_ - inertia) / (total - inertia)


@pytest.fixture(scope="module")
def needle():
    return em.scenes.srm2135c(scale=0.02, random_state=0).cube.compute()


@pytest.fixture(scope="module")
def section():
    return em.scenes.jadeite(scale=0.03, random_state=0).cube.compute()


@pytest.mark.parametrize("seed", [0, 3, 7])
@pytest.mark.parametrize("scene", ["needle", "section"])
def test_profiles_cluster_as_scikit_learns_best_of_ten(scene, seed, request, best_of_ten):
    cube = request.getfixturevalue(scene)
    model = em.KMeans(4, features="profiles", random_state=seed).fit(cube)
    rand, excess = compare_with_sklearn(model, cube, 4, best_of_ten)
    assert rand >= 0.98
    assert excess <= 0.01
    assert model.converged_


def test_raw_counts_cluster_as_scikit_learns_best_of_ten(best_of_ten):
    thin = em.scenes.srm2135c(scale=0.008, random_state=0).cube.compute()
    model = em.KMeans(4, features="counts", random_state=0).fit(thin)
    rand, excess = compare_with_sklearn(model, thin, 4, best_of_ten)
    assert rand >= 0.98
    assert excess <= 0.01


def test_profiles_see_phases_where_counts_see_thickness(needle):
    truth = em.scenes.srm2135c(scale=0.02, random_state=0).loadings.compute()
    phase = truth.values.argmax(axis=-1)
    thick = truth.sum("component").values > 20
    profiles = em.KMeans(3, random_state=0).fit(needle)
    assert profiles.features_ == "profiles"
    by_profile = adjusted_rand_score(phase[thick], profiles.labels_.values[thick])
    counts = em.KMeans(3, features="counts", random_state=0).fit(needle)
    by_counts = adjusted_rand_score(phase[thick], counts.labels_.values[thick])
    assert by_profile > 0.75
    assert by_profile > by_counts


def test_no_cluster_of_a_single_rare_event(needle):
    """One count in a channel of few and a pixel of few outweighs all noise in plain weights."""
    model = em.KMeans(4, features="profiles", random_state=0).fit(needle)
    assert model.cluster_weights_.min() > 0.01 * model.cluster_weights_.sum()


def test_empty_clusters_are_filled_with_the_farthest_pixels():
    values = np.concatenate([np.zeros((50, 2)), np.full((50, 2), 10.0), [[100.0, 0.0]]])
    source = ArraySource.from_array(values, 1)
    # Two centers share a place: one of them wins nothing.
    start = np.array([[[0.0, 0.0], [0.0, 0.0], [10.0, 10.0]]])
    state = run_sweep(Lloyd(_AsIs(2), start, 0.0), source, max_rounds=20).state
    assert sorted(state.weights[0]) == [1, 50, 50]
    assert state.inertia[0] == 0


def test_empty_clusters_of_rows_are_filled_a_pass_later():
    """Their passes look for far pixels only where one is wanted; what they gained so far stays known."""
    values = np.zeros((101, 30), dtype=np.uint16)
    values[50:100, 3], values[100, 5] = 10, 100
    source = ArraySource.from_array(values, 1)
    assert isinstance(source.load(0).data, CountRows)
    start = np.zeros((2, 3, 30))
    start[:, 2, 3] = 10.0
    start[1, 1, 3] = 9.0  # this one is not given up for the pass that gained nothing
    outcome = run_sweep(Lloyd(_AsIs(30), start, 0.0), source, max_rounds=20)
    assert outcome.converged
    assert np.isfinite(outcome.history).all()
    np.testing.assert_array_equal(np.sort(outcome.state.weights, axis=1), [[1, 50, 50]] * 2)
    np.testing.assert_array_equal(outcome.state.inertia, [0, 0])


@pytest.mark.parametrize("features", ["counts", "profiles"])
def test_what_passes_note_of_blocks_changes_no_bit(needle, features):
    with resident() as residency:
        noting = em.KMeans(4, features=features, random_state=0).fit(needle)
        assert residency.used > 0
        assert not residency._notes  # they go when the fit is done
    with resident(limit=0):
        plain = em.KMeans(4, features=features, random_state=0).fit(needle)
    np.testing.assert_array_equal(noting.inertia_path_, plain.inertia_path_)
    np.testing.assert_array_equal(noting.feature_centers_, plain.feature_centers_)
    np.testing.assert_array_equal(noting.cluster_centers_, plain.cluster_centers_)
    for model in (noting, plain):
        np.testing.assert_array_equal(model.labels_, noting.predict(needle))


@pytest.mark.parametrize("limit", [None, 0])
def test_passes_over_rows_go_on_from_the_labels_of_the_one_before(needle, limit):
    """What is noted at the end knows less of the gaps of pixels than a pass that looks at all of them."""
    source, _ = as_source(needle)
    first = np.stack([source.load(0).dense()[[0, 40, 80]]]).astype(float)
    sweep = Lloyd(_AsIs(source.n_channels), first, 0.0)
    with resident(limit=limit):
        state = run_sweep(sweep, source, max_rounds=5).state
        noted = sweep.notes.of(source.load(0))
        if limit == 0:
            assert noted is None
            return
        anew = find_clusters(source.load(0).data, noted.centers)
        np.testing.assert_array_equal(noted.labels, anew.labels)
        np.testing.assert_array_equal(noted.sums, anew.sums)
        assert (noted.gaps < anew.gaps).any()
        assert (noted.gaps <= anew.gaps).all()
        assert noted.centers.shape == state.centers.shape


def test_labels_of_the_fit_are_those_predicted_where_centers_are_equally_near():
    """Whole numbers on a line: every second pixel lies between two centers."""
    values = np.zeros((400, 30), dtype=np.uint16)
    values[:, 7] = np.arange(400) % 5
    for k in (2, 3, 4):
        for seed in range(5):
            model = em.KMeans(k, features="counts", random_state=seed).fit(values)
            np.testing.assert_array_equal(model.labels_, model.predict(values))


def test_loadings_of_another_model_as_fractions():
    rng = np.random.default_rng(0)
    phase = rng.integers(0, 3, (20, 30))
    thickness = rng.gamma(2.0, 50.0, (20, 30, 1))
    loadings = em.make_cube(
        thickness * (0.4 * np.eye(3)[phase] + 0.6 / 3),
        dims=("y", "x", "component"),
        sig_dims=("component",),
    )
    by_fraction = em.KMeans(3, features="profiles", random_state=0).fit(loadings)
    assert adjusted_rand_score(phase.ravel(), by_fraction.labels_.values.ravel()) == 1.0
    as_is = em.KMeans(3, random_state=0).fit(loadings)
    assert as_is.features_ == "counts"
    assert adjusted_rand_score(phase.ravel(), as_is.labels_.values.ravel()) < 0.9


def test_pixels_without_counts_belong_to_no_cluster(needle):
    model = em.KMeans(3, random_state=0).fit(needle)
    empty = needle.sum("energy").values == 0
    assert empty.any()
    assert (model.labels_.values[empty] == -1).all()
    assert (model.labels_.values[~empty] >= 0).all()


def test_centers_are_mean_spectra(needle):
    model = em.KMeans(3, random_state=0).fit(needle)
    assert model.cluster_centers_.attrs["units"] == "1 per channel"
    np.testing.assert_allclose(model.cluster_centers_.sum("energy"), 1.0)
    labels = model.labels_.values
    for k in range(3):
        spectrum = needle.values[labels == k].sum(axis=0, dtype=float)
        np.testing.assert_allclose(model.cluster_centers_[k], spectrum / spectrum.sum())
    assert (np.diff(model.cluster_weights_) <= 0).all()


def test_score_transform_and_partial_fit(needle):
    model = em.KMeans(3, random_state=0).fit(needle)
    assert model.score(needle) == pytest.approx(-model.inertia_)
    distances = model.transform(needle)
    assert distances.dims == ("tilt", "y", "x", "cluster")
    nearest = distances.values.argmin(axis=-1)
    used = model.labels_.values >= 0
    np.testing.assert_array_equal(nearest[used], model.labels_.values[used])
    halves = needle.isel(tilt=slice(0, 5)), needle.isel(tilt=slice(5, None))
    parts = em.KMeans(3, random_state=0).partial_fit(halves[0])
    before = parts.cluster_weights_.sum()
    parts.partial_fit(halves[1])
    assert parts.cluster_weights_.sum() == before + halves[1].values.sum(dtype=int)
    agreement = adjusted_rand_score(parts.predict(needle).values[used], model.labels_.values[used])
    assert agreement > 0.9


def test_partial_fit_keeps_the_spectra_of_clusters_that_are_not_seen_again(needle):
    first = em.KMeans(3, random_state=0).partial_fit(needle)
    before = first.cluster_centers_
    one = first.labels_ == 0
    weights = first.cluster_weights_.copy()
    first.partial_fit(needle.where(one, 0).astype(needle.dtype))
    np.testing.assert_allclose(first.cluster_centers_.sum("energy"), 1.0)
    np.testing.assert_allclose(first.cluster_centers_[1:], before[1:], rtol=1e-12)
    assert first.cluster_weights_[0] > 1.9 * weights[0]
    np.testing.assert_array_equal(first.cluster_weights_[1:], weights[1:])
    # And fit starts anew.
    again = first.fit(needle)
    np.testing.assert_array_equal(again.cluster_centers_.values, before.values)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_clusters": 0}, "n_clusters must be a whole number from 1, got 0"),
        ({"n_clusters": 2.5}, "n_clusters"),
        ({"n_init": 0}, "n_init"),
        ({"features": "spectra"}, "'auto', 'profiles' or 'counts'"),
        ({"tol": -1}, "tol"),
        ({"n_subspace": 0}, "n_subspace"),
        ({"random_state": -3}, "random_state"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        em.KMeans(**{"n_clusters": 2, **parameters}).fit(np.ones((10, 3), int))


def test_fewer_distinct_pixels_than_clusters_are_refused():
    with pytest.raises(InputError, match="distinct"):
        em.KMeans(3, features="counts", random_state=0).fit(np.ones((10, 3)))
    with pytest.raises(InputError, match="empty"):
        em.KMeans(2, features="profiles", random_state=0).fit(np.zeros((10, 3), int))


def test_none_draws_a_seed_and_keeps_it(section):
    model = em.KMeans(3).fit(section)
    again = em.KMeans(3, random_state=model.seed_).fit(section)
    np.testing.assert_array_equal(model.feature_centers_, again.feature_centers_)


@pytest.mark.parametrize(
    ("shape", "parameters", "words"),
    [
        ((1, 30), {"n_clusters": 1}, "1 pixels and 30 channels lie in at most 0"),
        ((30, 1), {"n_clusters": 2}, "30 pixels and 1 channels lie in at most 0"),
        ((20, 30), {"n_clusters": 2, "n_subspace": 100}, "at most 19 dimensions, 100 are asked"),
    ],
)
def test_profiles_without_room_for_a_subspace_are_refused(shape, parameters, words):
    counts = np.random.default_rng(0).poisson(4, shape)
    with pytest.raises(InputError, match=words):
        em.KMeans(random_state=0, **parameters).fit(counts)


def test_as_many_clusters_as_pixels():
    counts = np.random.default_rng(0).poisson(4, (12, 30))
    assert em.KMeans(12, random_state=0).fit(counts).inertia_ < 1e-9


@pytest.mark.parametrize("offset", [1e7, -3e8, 1e12])
def test_an_offset_changes_no_cluster(offset):
    """Distances are taken from the mean where it would drown them."""
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 10, (4, 12))
    values = centers[rng.integers(0, 4, 600)] + rng.normal(size=(600, 12))
    values = np.round(values * 1024) / 1024  # exact with the offset, but for the last one
    want = em.KMeans(4, random_state=0).fit(values)
    found = em.KMeans(4, random_state=0).fit(values + offset)
    np.testing.assert_array_equal(found.labels_, want.labels_)
    tolerance = 1e-3 if abs(offset) == 1e12 else 1e-9
    np.testing.assert_allclose(found.cluster_centers_ - offset, want.cluster_centers_, atol=0.01)
    assert found.inertia_ == pytest.approx(want.inertia_, rel=tolerance)
    assert found.score(values + offset) == pytest.approx(-want.inertia_, rel=tolerance)
    np.testing.assert_allclose(
        found.transform(values + offset), want.transform(values), rtol=1e-3, atol=1e-3
    )
    found.partial_fit(values[:50] + offset)
    want.partial_fit(values[:50])
    np.testing.assert_allclose(found.cluster_centers_ - offset, want.cluster_centers_, atol=0.01)


def test_equal_pixels_far_from_zero_are_no_obstacle():
    found = em.KMeans(1, random_state=0).fit(np.full((20, 3), 1e9))
    np.testing.assert_array_equal(found.cluster_centers_, 1e9)
    assert found.inertia_ == 0


def test_labels_are_at_once_those_that_predict_gives_lazily(needle, monkeypatch):
    cube = needle.chunk({"tilt": 8})
    where = cube.coords["x"] < cube.coords["x"][-2]
    model = em.KMeans(3, random_state=0).fit(cube, where=where)
    lazy = model.predict(cube, where=where)
    assert model.labels_.chunks is None
    assert lazy.chunks is not None
    xr.testing.assert_identical(model.labels_, lazy.compute())
    assert (model.labels_.isel(x=-1) == -1).all()

    monkeypatch.setattr("emcube.models.kmeans.MAX_LABELS", model.labels_.size - 1)
    large = em.KMeans(3, random_state=0).fit(cube, where=where)
    assert large.labels_.chunks is not None
    xr.testing.assert_identical(large.labels_.compute(), model.labels_)
