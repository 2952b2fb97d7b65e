"""What kinds of steps there are, by their verbs: whose components add up, and whose do not."""

from __future__ import annotations

__all__ = ["AXES", "CLUSTERS", "COMPONENTS", "ESTIMATES", "PARTS"]

ESTIMATES = ("estimate_n_components", "survey_n_components")
"""How many components there are."""

PARTS = ("nmf", "mcr", "sisal", "nfindr", "vca", "bayesian_unmixing")
"""Components are not negative and sum to one: loadings times components are the data."""

AXES = ("ica", "varimax", "pca")
"""Components and loadings of any sign."""

COMPONENTS = (*PARTS, *AXES)
"""Components and loadings, of either kind; the first are what is looked at first."""

CLUSTERS = ("kmeans", "gaussian_mixture", "poisson_mixture")
"""Labels and mean spectra."""
