"""scikit-learn's own checks of estimators: all pass, or stand below with the reason why they cannot.

A check in the list that passes fails its test (``xfail_strict``), and so does a name that scikit-learn does
not know, so that the list stays true.
"""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import emcube as em

ESTIMATORS = [
    em.IncrementalPCA(),
    em.IncrementalPCA(1, noise="poisson"),
    em.IncrementalPCA(1, noise=None, svd_solver="randomized", random_state=0),
    em.MiniBatchNMF(random_state=0),
    em.MiniBatchNMF(beta_loss="frobenius", random_state=0),
    em.KMeans(random_state=0),
    em.KMeans(2, features="profiles", random_state=0),
    em.GaussianMixture(random_state=0),
    em.GaussianMixture(2, features="profiles", random_state=0),
    em.PoissonMixture(random_state=0),
    em.FastICA(1, random_state=0),
    em.FastICA(1, domain="spatial", random_state=0),
    em.Varimax(1, random_state=0),
    em.MCRALS(1, random_state=0),
    em.VCA(1, random_state=0),
    em.NFINDR(1, random_state=0),
    em.SISAL(1, random_state=0),
]

EVERYWHERE = {
    "check_dtype_object": (
        "arrays of dtype object are refused: whether values are counts, which decides on the noise model, "
        "is told by their dtype"
    ),
}

ZERO_MEAN = "the data of this check have mean zero: no non-negative components describe them"

PROFILES = "the data of this check are negative whatever the tag positive_only says; profiles are of counts"

NO_GRAM = "partial_fit sums the Gram matrix exactly and refuses svd_solver='randomized'"


PROBABLE = "the check takes whatever has probabilities for a classifier"


def expected_failures(estimator: Any) -> dict[str, str]:
    """Checks that do not apply to an estimator, each with the reason."""
    reasons = dict(EVERYWHERE)
    parameters = estimator.get_params()
    if parameters.get("beta_loss") == "frobenius" or isinstance(
        estimator, em.MCRALS | em.VCA | em.NFINDR | em.SISAL
    ):
        reasons |= dict.fromkeys(
            ("check_transformer_data_not_an_array", "check_transformer_general"), ZERO_MEAN
        )
    if parameters.get("features") == "profiles" or "prior_counts" in parameters:
        reasons["check_clustering"] = PROFILES
    if hasattr(estimator, "predict_proba"):
        reasons |= dict.fromkeys(
            ("check_estimator_sparse_array", "check_estimator_sparse_matrix"), PROBABLE
        )
    if parameters.get("svd_solver") == "randomized":
        reasons |= dict.fromkeys(
            ("check_fit_score_takes_y", "check_n_features_in_after_fitting"), NO_GRAM
        )
    return reasons


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_every_expected_failure_is_a_check(estimator: Any) -> None:
    known = {
        getattr(check, "func", check).__name__
        for _, check in estimator_checks_generator(estimator, legacy=True)
    }
    assert set(expected_failures(estimator)) <= known
