"""Estimators: parameters, a sweep, labels. They follow scikit-learn and take labelled cubes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emcube.models.bayes import BayesianUnmixing
    from emcube.models.cluster_checks import cluster_quality
    from emcube.models.component_survey import survey_n_components
    from emcube.models.counting_errors import errors_by_counts
    from emcube.models.diagnosing import diagnostics
    from emcube.models.fastica import FastICA, Varimax
    from emcube.models.field_fractions import phase_fractions
    from emcube.models.gaussian_mixture import GaussianMixture
    from emcube.models.geometry import NFINDR, VCA
    from emcube.models.kmeans import KMeans
    from emcube.models.matching import compare, match
    from emcube.models.mcr import MCRALS
    from emcube.models.n_components import estimate_n_components
    from emcube.models.nmf import MiniBatchNMF
    from emcube.models.pca import IncrementalPCA
    from emcube.models.poisson_mixture import PoissonMixture
    from emcube.models.sisal import SISAL
    from emcube.models.uncertainties import rotation_range, uncertainty
    from emcube.models.xray_features import xray_basis

__all__ = [
    "MCRALS",
    "NFINDR",
    "SISAL",
    "VCA",
    "BayesianUnmixing",
    "FastICA",
    "GaussianMixture",
    "IncrementalPCA",
    "KMeans",
    "MiniBatchNMF",
    "PoissonMixture",
    "Varimax",
    "cluster_quality",
    "compare",
    "diagnostics",
    "errors_by_counts",
    "estimate_n_components",
    "match",
    "phase_fractions",
    "rotation_range",
    "survey_n_components",
    "uncertainty",
    "xray_basis",
]

_HOMES = {
    "BayesianUnmixing": "bayes",
    "FastICA": "fastica",
    "GaussianMixture": "gaussian_mixture",
    "Varimax": "fastica",
    "NFINDR": "geometry",
    "SISAL": "sisal",
    "VCA": "geometry",
    "IncrementalPCA": "pca",
    "KMeans": "kmeans",
    "MCRALS": "mcr",
    "MiniBatchNMF": "nmf",
    "PoissonMixture": "poisson_mixture",
    "cluster_quality": "cluster_checks",
    "compare": "matching",
    "diagnostics": "diagnosing",
    "errors_by_counts": "counting_errors",
    "estimate_n_components": "n_components",
    "match": "matching",
    "phase_fractions": "field_fractions",
    "rotation_range": "uncertainties",
    "survey_n_components": "component_survey",
    "uncertainty": "uncertainties",
    "xray_basis": "xray_features",
}

_NO_ESTIMATORS = {"compare", "match", "xray_basis"}


def __getattr__(name: str) -> Any:
    # Kernels and scikit-learn load when somebody asks for an estimator.
    if name in _HOMES:
        from importlib import import_module

        if name not in _NO_ESTIMATORS:
            # Before any other module imports scikit-learn: it does that in less time.
            import_module("emcube.models.base")
        return getattr(import_module(f"emcube.models.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
