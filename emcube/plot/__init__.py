"""Figures of cubes, components, loadings and labels, from plain labelled arrays.

Every function takes :mod:`xarray` objects with dims, coordinates and units, and gives back a
:class:`matplotlib.figure.Figure`. Nothing goes through ``pyplot``: there is no global state, figures may
be drawn in threads, and none has to be closed. Matplotlib is imported when the first of them is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emcube.plot.clusters import cluster_quality
    from emcube.plot.comparisons import compared, compared_maps
    from emcube.plot.composites import composite, overlay
    from emcube.plot.curves import compositions, scree
    from emcube.plot.diagnosis import diagnostics
    from emcube.plot.fractions import phase_fractions
    from emcube.plot.frames import image, label_map, line_maps, maps
    from emcube.plot.intervals import bands, errors_by_counts
    from emcube.plot.overview import cube_overview
    from emcube.plot.pairs import raw_and_denoised
    from emcube.plot.residuals import residuals
    from emcube.plot.spectra import components, spectrum
    from emcube.plot.stacks import montage
    from emcube.plot.survey import component_survey

__all__ = [
    "bands",
    "cluster_quality",
    "compared",
    "compared_maps",
    "component_survey",
    "components",
    "composite",
    "compositions",
    "cube_overview",
    "diagnostics",
    "errors_by_counts",
    "image",
    "label_map",
    "line_maps",
    "maps",
    "montage",
    "overlay",
    "phase_fractions",
    "raw_and_denoised",
    "residuals",
    "scree",
    "spectrum",
]

_HOMES = {
    "cluster_quality": "clusters",
    "bands": "intervals",
    "compared": "comparisons",
    "compared_maps": "comparisons",
    "component_survey": "survey",
    "components": "spectra",
    "composite": "composites",
    "compositions": "curves",
    "cube_overview": "overview",
    "diagnostics": "diagnosis",
    "errors_by_counts": "intervals",
    "image": "frames",
    "label_map": "frames",
    "line_maps": "frames",
    "maps": "frames",
    "montage": "stacks",
    "overlay": "composites",
    "phase_fractions": "fractions",
    "raw_and_denoised": "pairs",
    "residuals": "residuals",
    "scree": "curves",
    "spectrum": "spectra",
}


def __getattr__(name: str) -> Any:
    """Import the home of a figure, and matplotlib with it, on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'emcube.plot' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"emcube.plot.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the figures, imported or not."""
    return sorted(set(globals()) | set(__all__))
