"""Unmix electron-microscopy datacubes that are larger than memory.

The public names resolve on first use, so that ``import emcube`` costs next to nothing:

>>> import emcube as em
>>> em.make_cube  # doctest: +ELLIPSIS
<function make_cube at ...>
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from emcube import _hooks, errors

if TYPE_CHECKING:
    from emcube import interop, plot, scenes
    from emcube.catalog import open_catalog
    from emcube.cube import make_cube
    from emcube.deploy import deploy
    from emcube.explore import explore
    from emcube.feedback import progress
    from emcube.interop import decompose, export, from_hyperspy
    from emcube.models import (
        MCRALS,
        NFINDR,
        SISAL,
        VCA,
        BayesianUnmixing,
        FastICA,
        GaussianMixture,
        IncrementalPCA,
        KMeans,
        MiniBatchNMF,
        PoissonMixture,
        Varimax,
        cluster_quality,
        compare,
        diagnostics,
        errors_by_counts,
        estimate_n_components,
        match,
        phase_fractions,
        rotation_range,
        survey_n_components,
        uncertainty,
        xray_basis,
    )
    from emcube.package import publish, reproduce
    from emcube.recipe import Recipe, plan, run
    from emcube.report import report
    from emcube.results import open_result
    from emcube.sources import ingest, open  # noqa: A004

__version__ = "0.1.0"

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
    "Recipe",
    "Varimax",
    "__version__",
    "cluster_quality",
    "compare",
    "decompose",
    "deploy",
    "diagnostics",
    "errors",
    "errors_by_counts",
    "estimate_n_components",
    "explore",
    "export",
    "from_hyperspy",
    "ingest",
    "interop",
    "make_cube",
    "match",
    "open",
    "open_catalog",
    "open_result",
    "phase_fractions",
    "plan",
    "plot",
    "progress",
    "publish",
    "report",
    "reproduce",
    "rotation_range",
    "run",
    "scenes",
    "survey_n_components",
    "uncertainty",
    "xray_basis",
]

# Public name -> the module it lives in; a name that is a module stands for itself.
_HOMES = {
    "BayesianUnmixing": "emcube.models",
    "FastICA": "emcube.models",
    "GaussianMixture": "emcube.models",
    "IncrementalPCA": "emcube.models",
    "KMeans": "emcube.models",
    "MCRALS": "emcube.models",
    "MiniBatchNMF": "emcube.models",
    "NFINDR": "emcube.models",
    "SISAL": "emcube.models",
    "PoissonMixture": "emcube.models",
    "Recipe": "emcube.recipe",
    "cluster_quality": "emcube.models",
    "compare": "emcube.models",
    "decompose": "emcube.interop",
    "deploy": "emcube.deploy",
    "diagnostics": "emcube.models",
    "errors_by_counts": "emcube.models",
    "estimate_n_components": "emcube.models",
    "explore": "emcube.explore",
    "export": "emcube.interop",
    "from_hyperspy": "emcube.interop",
    "ingest": "emcube.sources",
    "interop": "emcube.interop",
    "make_cube": "emcube.cube",
    "match": "emcube.models",
    "open": "emcube.sources",
    "open_catalog": "emcube.catalog",
    "open_result": "emcube.results",
    "phase_fractions": "emcube.models",
    "plan": "emcube.recipe",
    "plot": "emcube.plot",
    "progress": "emcube.feedback",
    "publish": "emcube.package",
    "report": "emcube.report",
    "reproduce": "emcube.package",
    "VCA": "emcube.models",
    "Varimax": "emcube.models",
    "rotation_range": "emcube.models",
    "run": "emcube.recipe",
    "scenes": "emcube.scenes",
    "survey_n_components": "emcube.models",
    "uncertainty": "emcube.models",
    "xray_basis": "emcube.models",
}


def __getattr__(name: str) -> Any:
    """Import the home of a public name on first use and keep what was found."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'emcube' has no attribute {name!r}")
    module = importlib.import_module(home)
    value = getattr(module, name, module) if home == f"emcube.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, resolved or not."""
    return sorted(set(globals()) | set(__all__))


_hooks.after_import("xarray", "emcube.cube")
_hooks.provide("client", "emcube.deploy.environment:client_for")
_hooks.provide("explore", "emcube.explore.serving:explore")
_hooks.provide("cube_page", "emcube.cards.page:cube_page")
_hooks.provide("estimate_page", "emcube.cards.page:estimate_page")
_hooks.provide("result_page", "emcube.cards.page:result_page")
_hooks.provide("to_hyperspy", "emcube.interop.hyperspy:to_hyperspy")
_hooks.provide("write_msa", "emcube.interop.msa:write_spectra")
