"""Estimators: parameters, a sweep, labels. They follow scikit-learn and take labelled cubes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emcube.models.fastica import FastICA, Varimax
    from emcube.models.geometry import NFINDR, VCA
    from emcube.models.kmeans import KMeans
    from emcube.models.mcr import MCRALS
    from emcube.models.n_components import estimate_n_components
    from emcube.models.nmf import MiniBatchNMF
    from emcube.models.pca import IncrementalPCA

__all__ = [
    "MCRALS",
    "NFINDR",
    "VCA",
    "FastICA",
    "IncrementalPCA",
    "KMeans",
    "MiniBatchNMF",
    "Varimax",
    "estimate_n_components",
]

_HOMES = {
    "FastICA": "fastica",
    "Varimax": "fastica",
    "NFINDR": "geometry",
    "VCA": "geometry",
    "IncrementalPCA": "pca",
    "KMeans": "kmeans",
    "MCRALS": "mcr",
    "MiniBatchNMF": "nmf",
    "estimate_n_components": "n_components",
}


def __getattr__(name: str) -> Any:
    # Kernels and scikit-learn load when somebody asks for an estimator.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"emcube.models.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
