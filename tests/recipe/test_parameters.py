"""A step of a recipe takes what its estimator takes: the same names, the same defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import emcube as em
from emcube.models.fastica import RotatedPCA
from emcube.models.mixing import MixingModel
from emcube.recipe.schema import (
    BayesianUnmixingStep,
    DiagnosticsStep,
    EstimateStep,
    GaussianMixtureStep,
    ICAStep,
    KMeansStep,
    MCRStep,
    NFINDRStep,
    NMFStep,
    PCAStep,
    PhaseFractionsStep,
    PoissonMixtureStep,
    SISALStep,
    SurveyStep,
    UncertaintyStep,
    VarimaxStep,
    VCAStep,
)

STEPS = [
    (EstimateStep, em.estimate_n_components),
    (SurveyStep, em.survey_n_components),
    (PhaseFractionsStep, em.phase_fractions),
    (PCAStep, em.IncrementalPCA),
    (NMFStep, em.MiniBatchNMF),
    (MCRStep, em.MCRALS),
    (BayesianUnmixingStep, em.BayesianUnmixing),
    (ICAStep, em.FastICA),
    (VarimaxStep, em.Varimax),
    (VCAStep, em.VCA),
    (NFINDRStep, em.NFINDR),
    (SISALStep, em.SISAL),
    (KMeansStep, em.KMeans),
    (GaussianMixtureStep, em.GaussianMixture),
    (PoissonMixtureStep, em.PoissonMixture),
    (UncertaintyStep, em.uncertainty),
    (DiagnosticsStep, em.diagnostics),
]
NOT_IN_A_RECIPE = {"cube", "cubes", "where", "model", "of"}
OWN_DEFAULTS = {"n_components", "n_clusters", "random_state"}


@pytest.mark.parametrize(("model", "estimator"), STEPS)
def test_parameters_are_the_estimators_own(model: Any, estimator: Callable[..., Any]) -> None:
    known = inspect.signature(estimator).parameters
    wanted = {name: p.default for name, p in known.items() if name not in NOT_IN_A_RECIPE}
    step = model()
    given = step.parameters()
    assert set(given) == set(wanted)
    for name, default in wanted.items():
        if name not in OWN_DEFAULTS:
            assert given[name] == default, name


def test_what_a_recipe_accepts_an_estimator_accepts() -> None:
    import numpy as np

    counts = np.random.default_rng(0).poisson(5.0, (60, 12))
    em.IncrementalPCA(**{**PCAStep().parameters(), "n_components": 3}).fit(counts)
    em.KMeans(**{**KMeansStep().parameters(), "n_clusters": 2, "random_state": 0}).fit(counts)
    few = {"n_clusters": 2, "random_state": 0}
    em.GaussianMixture(**{**GaussianMixtureStep().parameters(), **few}).fit(counts)
    em.PoissonMixture(**{**PoissonMixtureStep().parameters(), **few}).fit(counts)
    em.MiniBatchNMF(**{**NMFStep().parameters(), "n_components": 2, "random_state": 0}).fit(counts)
    for model, estimator in STEPS:
        if isinstance(estimator, type) and issubclass(estimator, MixingModel | RotatedPCA):
            given = {**model().parameters(), "n_components": 2, "random_state": 0}
            estimator(**given).fit(counts)
    em.estimate_n_components(counts, **EstimateStep().parameters())
