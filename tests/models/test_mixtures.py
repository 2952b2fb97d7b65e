"""Mixtures against scikit-learn and against scenes with known truth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture as SklearnMixture

import emcube as em
from emcube.errors import InputError


@pytest.fixture(scope="module")
def clouds():
    """Three Gaussian clouds of unlike shapes in four dimensions, and which each point is of."""
    rng = np.random.default_rng(0)
    of = rng.choice(3, 1500, p=[0.5, 0.3, 0.2])
    means = np.array([[0, 0, 0, 0], [4, 1, 0, 0], [0, 4, 2, 0]], float)
    roots = rng.normal(size=(3, 4, 4)) * 0.4 + 0.6 * np.eye(4)
    values = means[of] + np.einsum("pij,pj->pi", roots[of], rng.normal(size=(1500, 4)))
    return values, of


@pytest.fixture(scope="module")
def needle():
    scene = em.scenes.srm2135c(scale=0.02, random_state=0)
    return scene.cube.compute(), scene.loadings.compute()


@pytest.mark.parametrize("kind", ["full", "diag", "tied"])
def test_the_optimum_is_scikit_learns(clouds, kind):
    """Started at k-means, both end in the same optimum: bound to 1e-6 nats, means to 1e-3, labels alike."""
    values, _ = clouds
    ours = em.GaussianMixture(
        3, covariance_type=kind, features="counts", tol=1e-9, max_iter=1000, random_state=0
    ).fit(values)
    theirs = SklearnMixture(
        3,
        covariance_type=kind,
        tol=1e-9,
        max_iter=1000,
        n_init=4,
        reg_covar=ours._ridge,
        random_state=0,
    ).fit(values)
    assert ours.converged_
    assert ours.lower_bound_ == pytest.approx(theirs.score(values), abs=1e-6)
    order = np.argsort(-theirs.weights_)
    np.testing.assert_allclose(ours.weights_, theirs.weights_[order], atol=1e-3)
    np.testing.assert_allclose(ours.means_, theirs.means_[order], atol=1e-3)
    covariances = theirs.covariances_ if kind == "tied" else theirs.covariances_[order]
    np.testing.assert_allclose(ours.covariances_, covariances, atol=3e-3)
    np.testing.assert_allclose(
        ours.predict_proba(values), theirs.predict_proba(values)[:, order], atol=1e-3
    )
    assert ours.n_parameters_ == theirs._n_parameters()
    assert ours.bic_ == pytest.approx(theirs.bic(values), abs=0.01)
    assert ours.bic(values) == pytest.approx(ours.bic_)
    assert ours.aic(values) == pytest.approx(theirs.aic(values), abs=0.01)
    assert ours.score(values) == pytest.approx(ours.lower_bound_)
    np.testing.assert_allclose(ours.score_samples(values), theirs.score_samples(values), atol=3e-3)


def test_the_bound_never_falls(clouds):
    path = (
        em.GaussianMixture(4, features="counts", tol=1e-7, reg_covar=0.0, random_state=0)
        .fit(clouds[0])
        .lower_bound_path_
    )
    assert path.size > 5
    assert (np.diff(path) > -1e-9).all()


def test_bic_names_the_number_of_clouds(clouds):
    found = {
        k: em.GaussianMixture(k, features="counts", tol=1e-5, random_state=0).fit(clouds[0]).bic_
        for k in range(1, 6)
    }
    assert min(found, key=lambda k: found[k]) == 3


def test_labels_are_the_clouds(clouds):
    values, of = clouds
    model = em.GaussianMixture(3, features="counts", random_state=0).fit(values)
    # Bayes' own error: the clouds touch.
    assert adjusted_rand_score(of, model.labels_) > 0.9
    np.testing.assert_array_equal(model.labels_, model.predict_proba(values).argmax(axis=1))


def test_a_pass_too_few_is_said_and_measured(clouds):
    model = em.GaussianMixture(3, features="counts", max_iter=2, tol=0.0, random_state=0)
    model.fit(clouds[0])
    assert not model.converged_
    assert model.n_iter_ == 2
    assert model.lower_bound_path_.size == 3
    assert model.score(clouds[0]) == pytest.approx(model.lower_bound_)


def test_an_offset_changes_nothing(clouds):
    values = np.round(clouds[0] * 1024) / 1024
    near = em.GaussianMixture(3, features="counts", random_state=0).fit(values)
    far = em.GaussianMixture(3, features="counts", random_state=0).fit(values + 1e7)
    np.testing.assert_array_equal(near.labels_, far.labels_)
    np.testing.assert_allclose(near.covariances_, far.covariances_, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_values_does_not_matter(clouds, scale):
    one = em.GaussianMixture(3, features="counts", random_state=0).fit(clouds[0])
    other = em.GaussianMixture(3, features="counts", random_state=0).fit(clouds[0] * scale)
    np.testing.assert_array_equal(one.labels_, other.labels_)
    np.testing.assert_allclose(one.means_, other.means_ / scale, rtol=1e-6, atol=1e-9)


def test_counting_noise_alone_has_the_covariance_one():
    """Of profiles: pixels of one composition, however bright, scatter as the identity over their counts."""
    rng = np.random.default_rng(0)
    spectrum = rng.dirichlet(np.full(30, 2.0))
    counts = rng.poisson(rng.gamma(2.0, 100.0, (20000, 1)) * spectrum)
    model = em.GaussianMixture(1, features="profiles", n_subspace=3, random_state=0).fit(counts)
    # The largest variances of noise in 30 channels reach (1 + sqrt(30 / 20000))^2 = 1.08.
    np.testing.assert_allclose(model.covariances_[0], np.eye(3), atol=0.1)


@pytest.mark.parametrize("make", [em.GaussianMixture, em.PoissonMixture])
def test_phases_of_the_needle(needle, make):
    """Pixels of clear composition are sorted by it; k-means does no better."""
    cube, truth = needle
    share = truth / truth.sum("component")
    clear = (truth.sum("component") > 20).values & (share.max("component") > 0.8).values
    phase = truth.values.argmax(axis=-1)[clear]
    model = make(3, random_state=0).fit(cube)
    found = adjusted_rand_score(phase, model.labels_.values[clear])
    kmeans = em.KMeans(3, random_state=0).fit(cube)
    assert found > 0.8
    assert found > adjusted_rand_score(phase, kmeans.labels_.values[clear]) - 0.05
    centers = model.cluster_centers_
    assert centers.attrs["units"] == "1 per channel"
    np.testing.assert_allclose(centers.sum("energy"), 1.0)
    empty = cube.sum("energy").values == 0
    assert (model.labels_.values[empty] == -1).all()
    np.testing.assert_allclose(
        model.predict_proba(cube).values[empty], model.weights_[None] * np.ones((empty.sum(), 1))
    )


def test_spectra_of_a_poisson_mixture_are_the_true_ones():
    """Within their counting errors, and probabilities mean what they say."""
    rng = np.random.default_rng(1)
    spectra = rng.dirichlet(np.full(60, 0.7), 3)
    of = rng.choice(3, 6000, p=[0.5, 0.3, 0.2])
    brightness = rng.gamma(1.5, 6.0, (6000, 1))
    counts = rng.poisson(brightness * spectra[of]).astype(np.uint8)
    model = em.PoissonMixture(3, tol=1e-5, random_state=0).fit(counts)
    np.testing.assert_allclose(model.weights_, [0.5, 0.3, 0.2], atol=0.03)
    total = counts.sum() * model.weights_
    errors = np.sqrt(spectra / total[:, None]) + 1e-4
    assert (np.abs(model.cluster_centers_ - spectra) / errors).mean() < 1.5
    # Of pixels that are given a probability, that share belongs to the cluster.
    said = model.predict_proba(counts)
    held = counts.any(axis=1)
    for low in (0.05, 0.35, 0.65):
        of_these = held[:, None] & (said > low) & (said < low + 0.3)
        true = (of[:, None] == np.arange(3))[of_these]
        error = np.sqrt(0.25 / true.size)
        assert abs(true.mean() - said[of_these].mean()) < 4 * error + 0.02


def test_poisson_bic_names_the_number_of_spectra():
    rng = np.random.default_rng(2)
    spectra = rng.dirichlet(np.full(30, 0.5), 3)
    counts = rng.poisson(40 * spectra[rng.integers(0, 3, 1500)])
    found = {k: em.PoissonMixture(k, random_state=0).fit(counts).bic_ for k in range(1, 6)}
    assert min(found, key=lambda k: found[k]) == 3


def test_poisson_score_is_the_bound(needle):
    cube, _ = needle
    model = em.PoissonMixture(3, random_state=0).fit(cube)
    assert model.score(cube) == pytest.approx(model.lower_bound_)
    assert model.bic(cube) == pytest.approx(model.bic_)
    assert (np.diff(model.lower_bound_path_) > -1e-9).all()


@pytest.mark.parametrize("make", [em.GaussianMixture, em.PoissonMixture])
def test_partial_fit_goes_on(needle, make):
    cube, _ = needle
    whole = make(3, random_state=0).fit(cube)
    parts = make(3, random_state=0).partial_fit(cube.isel(tilt=slice(0, 5)))
    parts.partial_fit(cube.isel(tilt=slice(5, None)))
    assert parts._sums.n_pixels == whole._sums.n_pixels
    used = whole.labels_.values >= 0
    assert adjusted_rand_score(parts.predict(cube).values[used], whole.labels_.values[used]) > 0.8


def test_loadings_of_another_model_as_fractions():
    rng = np.random.default_rng(0)
    phase = rng.integers(0, 3, (20, 30))
    loadings = em.make_cube(
        rng.gamma(2.0, 50.0, (20, 30, 1))
        * np.abs(0.4 * np.eye(3)[phase] + 0.2 + 0.02 * rng.normal(size=(20, 30, 3))),
        dims=("y", "x", "component"),
        sig_dims=("component",),
    )
    model = em.GaussianMixture(3, features="profiles", random_state=0).fit(loadings)
    assert model.means_.shape == (3, 2)
    assert adjusted_rand_score(phase.ravel(), model.labels_.values.ravel()) == 1.0


@pytest.mark.parametrize(
    ("make", "parameters", "message"),
    [
        (em.GaussianMixture, {"n_clusters": 0}, "n_clusters must be a whole number from 1, got 0"),
        (
            em.GaussianMixture,
            {"covariance_type": "spherical"},
            "covariance_type must be one of full",
        ),
        (em.GaussianMixture, {"features": "spectra"}, "features must be one of auto"),
        (em.GaussianMixture, {"reg_covar": -1.0}, "reg_covar"),
        (em.GaussianMixture, {"n_subspace": 0}, "n_subspace must be None or a whole number"),
        (em.GaussianMixture, {"tol": float("nan")}, "tol"),
        (em.PoissonMixture, {"prior_counts": 0.0}, "prior_counts must be a number from 1e-06"),
        (em.PoissonMixture, {"n_init": True}, "n_init"),
        (em.PoissonMixture, {"random_state": -3}, "random_state"),
    ],
)
def test_parameters_out_of_range_are_refused(make, parameters, message):
    with pytest.raises(InputError, match=message):
        make(**{"n_clusters": 2, **parameters}).fit(np.ones((10, 3), int))


def test_what_has_no_clusters_is_refused():
    with pytest.raises(InputError, match="distinct"):
        em.GaussianMixture(3, features="counts", random_state=0).fit(np.ones((10, 3)))
    with pytest.raises(InputError, match="all pixels that are used are equal"):
        em.GaussianMixture(1, features="counts", random_state=0).fit(np.ones((10, 3)))
    with pytest.raises(InputError, match="empty"):
        em.PoissonMixture(2, random_state=0).fit(np.zeros((10, 3), int))
    wide = np.random.default_rng(0).normal(size=(400, 300))
    with pytest.raises(InputError, match="covariances between 300 features, at most 256"):
        em.GaussianMixture(2, features="counts", random_state=0).fit(wide)
    flat = np.column_stack([np.arange(20.0), np.zeros(20)])
    with pytest.raises(InputError, match="not positive definite"):
        em.GaussianMixture(2, features="counts", reg_covar=0.0, random_state=0).fit(flat)
