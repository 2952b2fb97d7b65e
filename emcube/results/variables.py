"""Every variable that a result may hold: name, dims, kind, units and prose, in one place.

A step's output is checked against this register when it is written, so that readers can rely on it; a
mismatch raises. ``*nav`` and ``*sig`` stand for the navigation and signal dims of the cube.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import xarray as xr

from emcube.errors import InputError

__all__ = ["NAV", "SIG", "Variable", "check_dataset", "register", "registered"]

NAV = "*nav"
SIG = "*sig"


@dataclass(frozen=True)
class Variable:
    """What one variable of a result is.

    Parameters
    ----------
    node : str
        Verb of the steps that write it (``pca``), or ``input``.
    name : str
        Its name in the node.
    dims : tuple of str
        Its dims; `NAV` and `SIG` stand for the cube's own.
    kinds : str
        Kinds of dtype that it may have (``f``, ``iu``, ``b``).
    units : tuple of str, or None
        Units that it may have; None: those of the cube or of the axis, whatever they are.
    prose : str
        One sentence that ends up as ``long_name``.
    required : bool
        Whether every step of this verb writes it.
    """

    node: str
    name: str
    dims: tuple[str, ...]
    kinds: str
    units: tuple[str, ...] | None
    prose: str
    required: bool = True

    def check(self, array: xr.DataArray, nav: Sequence[str], sig: Sequence[str]) -> None:
        """Hold an array against this entry.

        Raises
        ------
        InputError
            Dims, kind of dtype or units differ.
        """
        where = f"variable {self.name!r} of a {self.node} step"
        expected = tuple(
            d for dim in self.dims for d in (nav if dim == NAV else sig if dim == SIG else (dim,))
        )
        if array.dims != expected:
            raise InputError(
                f"{where}: dims {array.dims}, expected {expected}",
                hint="transpose it before it is written",
            )
        if array.dtype.kind not in self.kinds:
            raise InputError(
                f"{where}: dtype {array.dtype}, expected one of the kinds {self.kinds!r}",
                hint="convert it before it is written",
            )
        units = array.attrs.get("units")
        if units is None or (self.units is not None and units not in self.units):
            raise InputError(
                f"{where}: units {units!r}, expected "
                + ("any unit" if self.units is None else " or ".join(map(repr, self.units))),
                hint="set attrs['units']",
            )


_REGISTER: dict[tuple[str, str], Variable] = {}


def register(variable: Variable) -> Variable:
    """Add a variable to the register.

    Raises
    ------
    InputError
        Another one of that name is registered for the same kind of step.
    """
    key = (variable.node, variable.name)
    if _REGISTER.get(key, variable) != variable:
        raise InputError(f"variable {variable.name!r} of {variable.node} is registered already")
    _REGISTER[key] = variable
    return variable


def registered(node: str) -> dict[str, Variable]:
    """Variables of one kind of step, by name."""
    return {name: v for (owner, name), v in _REGISTER.items() if owner == node}


def check_dataset(
    dataset: xr.Dataset, node: str, *, nav: Iterable[str], sig: Iterable[str], maps: bool = True
) -> xr.Dataset:
    """Check a step's output against the register and add the prose of each variable.

    Parameters
    ----------
    dataset : xarray.Dataset
        What the step wrote or will write.
    node : str
        Verb of the step.
    nav, sig : iterable of str
        Navigation and signal dims of the cube.
    maps : bool
        Variables over navigation dims are required, too.

    Raises
    ------
    InputError
        A variable is not registered, a required one is missing, or one does not match its entry.
    """
    nav, sig = tuple(nav), tuple(sig)
    known = registered(node)
    unknown = [str(n) for n in dataset.data_vars if n not in known]
    needed = [n for n, v in known.items() if v.required and (maps or NAV not in v.dims)]
    missing = [n for n in needed if n not in dataset.data_vars]
    if unknown or missing:
        raise InputError(
            f"output of a {node} step: "
            + (f"unregistered variables {unknown}" if unknown else f"missing variables {missing}")
            + f", expected {sorted(known)}",
            hint="register it in emcube.results.variables",
        )
    described = dataset.copy()
    for name, variable in known.items():
        if name in dataset.data_vars:
            variable.check(dataset[name], nav, sig)
            described[name].attrs.setdefault("long_name", variable.prose)
    return described


for _variable in (
    Variable("input", "total_counts", (NAV,), "iuf", None, "sum over the used channels"),
    Variable("input", "sum_spectrum", (SIG,), "iuf", None, "sum over the used pixels"),
    Variable("input", "used", (NAV,), "b", ("1",), "pixels that the analysis used", required=False),
):
    register(_variable)

for _variable in (
    Variable(
        "estimate_n_components",
        "singular_value",
        ("component",),
        "f",
        ("1",),
        "singular values of the biwhitened matrix in units of the noise",
    ),
    Variable(
        "estimate_n_components",
        "relative",
        ("component",),
        "f",
        ("1",),
        "singular value over the threshold",
    ),
    Variable(
        "estimate_n_components",
        "accepted",
        ("component",),
        "b",
        ("1",),
        "whether the value stands above the threshold",
    ),
    Variable(
        "estimate_n_components",
        "threshold",
        (),
        "f",
        ("1",),
        "largest singular value of pure noise",
    ),
):
    register(_variable)

for _variable in (
    *(
        Variable("survey_n_components", _name, _dims, _kind, (_unit,), _prose)
        for _name, _dims, _kind, _unit, _prose in (
            (
                "singular_value",
                ("component",),
                "f",
                "1",
                "singular values of the biwhitened matrix",
            ),
            ("accepted", ("component",), "b", "1", "whether the value stands above the threshold"),
            ("indicator", ("component",), "f", "1", "Malinowski's indicator"),
            ("threshold", (), "f", "1", "largest singular value of pure noise"),
            ("optimal_threshold", (), "f", "1", "threshold of Gavish and Donoho"),
            ("gain", ("n",), "f", "1", "gain of the n-th component on held-out counts (nats)"),
            ("gain_error", ("n",), "f", "1", "standard error of the gain"),
            ("worst_angle", ("n",), "f", "deg", "largest angle between components of halves"),
            ("consensus", ("n",), "f", "1", "share of components that restarts find again"),
        )
    ),
):
    register(_variable)

for _variable in (
    Variable("pca", "components", ("component", SIG), "f", None, "principal components"),
    Variable("pca", "loadings", (NAV, "component"), "f", None, "scores"),
    Variable(
        "pca",
        "explained_variance",
        ("component",),
        "f",
        None,
        "variance along each component of the weighted matrix",
    ),
    Variable(
        "pca",
        "explained_variance_ratio",
        ("component",),
        "f",
        ("1",),
        "share of the variance of the weighted matrix",
    ),
    Variable(
        "pca",
        "singular_values",
        ("component",),
        "f",
        None,
        "singular values of the weighted matrix",
    ),
    Variable("pca", "mean", (SIG,), "f", None, "mean spectrum"),
):
    register(_variable)

for _variable in (
    Variable("nmf", "components", ("component", SIG), "f", ("1 per channel",), "component spectra"),
    Variable("nmf", "loadings", (NAV, "component"), "f", None, "loadings"),
    *(
        Variable(_verb, _name, (_dim, SIG), "f", ("1",), _prose, required=False)
        for _verb in ("nmf", "mcr")
        for _name, _dim, _prose in (
            ("known", "known_component", "spectra that are known, as they were given"),
            ("init", "component", "spectra that the fit was started from"),
        )
    ),
    Variable("nmf", "objective", (), "f", ("1",), "objective at the end of the fit"),
    Variable("nmf", "objective_path", ("pass",), "f", ("1",), "objective after each full pass"),
    Variable(
        "nmf", "component_totals", ("component",), "f", None, "sum of each component's loadings"
    ),
    Variable(
        "nmf",
        "coefficients",
        ("component", "feature"),
        "f",
        ("1",),
        "share of each feature of the basis in each component",
        required=False,
    ),
):
    register(_variable)

for _variable in (
    Variable(
        "uncertainty",
        "loadings_std_counting",
        (NAV, "component"),
        "f",
        None,
        "standard deviation of counting, components known",
    ),
    Variable(
        "uncertainty",
        "loadings_std_shared",
        (NAV, "component"),
        "f",
        None,
        "standard deviation from the components, shared by all pixels",
    ),
    Variable(
        "uncertainty",
        "loadings_interval",
        (NAV, "component", "bound"),
        "f",
        None,
        "interval of the loadings, lower and upper end",
    ),
    Variable(
        "uncertainty",
        "loadings_rotation_range",
        (NAV, "component", "bound"),
        "f",
        None,
        "loadings of all factorisations that are as good, least and largest",
    ),
    Variable(
        "uncertainty",
        "components_std",
        ("component", SIG),
        "f",
        ("1 per channel",),
        "standard deviation of the components",
    ),
    Variable(
        "uncertainty",
        "components_interval",
        ("component", SIG, "bound"),
        "f",
        ("1 per channel",),
        "interval of the components, lower and upper end",
    ),
    Variable(
        "uncertainty",
        "rotation_range",
        ("component", SIG, "bound"),
        "f",
        ("1 per channel",),
        "components of all factorisations that are as good, least and largest",
    ),
    Variable(
        "uncertainty",
        "rotation_share",
        ("component", "bound"),
        "f",
        ("1",),
        "total loading of all factorisations that are as good, over that of the model",
    ),
):
    register(_variable)

for _variable in (
    Variable(
        "diagnostics",
        "chi_square",
        (NAV,),
        "f",
        ("1",),
        "chi-square per degree of freedom, of counting noise 1",
    ),
    Variable(
        "diagnostics",
        "deviance",
        (NAV,),
        "f",
        ("1",),
        "Poisson deviance over its expectation, of counting noise 1",
        required=False,
    ),
    Variable(
        "diagnostics",
        "chi_square_spectrum",
        (SIG,),
        "f",
        ("1",),
        "chi-square by channel, of counting noise 1",
    ),
    Variable(
        "diagnostics",
        "residual_correlation",
        ("axis", "lag"),
        "f",
        ("1",),
        "correlation of residuals with those of neighbours",
    ),
    Variable(
        "diagnostics",
        "residual_correlation_error",
        ("axis", "lag"),
        "f",
        ("1",),
        "standard error of the correlation",
    ),
    *(
        Variable("diagnostics", _name, ("level",), "f", (_unit,), _prose, required=False)
        for _name, _unit, _prose in (
            ("denoised_mean", "counts", "mean of denoised values"),
            ("raw_mean", "counts", "mean of the counts of the other half"),
            ("denoised_variance", "1", "variance of denoised values, between halves"),
            ("theory_variance", "1", "variance of denoised values, by theory"),
            ("n_cells", "1", "cells of a level"),
        )
    ),
    *(
        Variable("diagnostics", _name, ("component", "line"), "f", ("1",), _prose, required=False)
        for _name, _prose in (
            ("line_bias", "share by which denoising makes the counts of a line too large"),
            ("line_bias_error", "standard error of the bias of a line"),
        )
    ),
):
    register(_variable)

for _variable in (
    Variable("kmeans", "labels", (NAV,), "iu", ("1",), "cluster of each pixel, -1 for none"),
    Variable("kmeans", "cluster_centers", ("cluster", SIG), "f", None, "mean of each cluster"),
    Variable(
        "kmeans", "cluster_weights", ("cluster",), "f", ("1", "counts"), "weight of each cluster"
    ),
    Variable("kmeans", "inertia", (), "f", ("1",), "sum of squared distances to the centers"),
):
    register(_variable)

for _verb in ("gaussian_mixture", "poisson_mixture"):
    for _variable in (
        Variable(
            _verb,
            "labels",
            (NAV,),
            "iu",
            ("1",),
            "most probable cluster of each pixel, -1 for none",
        ),
        Variable(
            _verb, "probabilities", (NAV, "cluster"), "f", ("1",), "probability of each cluster"
        ),
        Variable(_verb, "cluster_centers", ("cluster", SIG), "f", None, "mean of each cluster"),
        Variable(_verb, "cluster_weights", ("cluster",), "f", ("1",), "share of the pixels"),
        Variable(_verb, "log_likelihood", (), "f", ("1",), "log-likelihood of all pixels (nats)"),
        Variable(
            _verb,
            "log_likelihood_path",
            ("pass",),
            "f",
            ("1",),
            "what EM raises, for one pixel, after each pass (nats)",
        ),
        Variable(_verb, "bic", (), "f", ("1",), "Bayesian information criterion"),
        Variable(_verb, "aic", (), "f", ("1",), "Akaike's information criterion"),
    ):
        register(_variable)

for _variable in (
    Variable(
        "gaussian_mixture", "means", ("cluster", "feature"), "f", ("1",), "means of the features"
    ),
    Variable(
        "gaussian_mixture",
        "covariances",
        ("cluster", "feature", "other_feature"),
        "f",
        ("1",),
        "covariances of the features, at a weight of one",
    ),
):
    register(_variable)

for _variable in (
    Variable("cluster_quality", "silhouette", ("cluster",), "f", ("1",), "1 far apart, 0 touching"),
    Variable(
        "cluster_quality", "silhouette_error", ("cluster",), "f", ("1",), "its standard error"
    ),
    Variable(
        "cluster_quality", "stability", ("cluster",), "f", ("1",), "Jaccard index with other models"
    ),
    Variable("cluster_quality", "stability_least", ("cluster",), "f", ("1",), "smallest of these"),
    Variable("cluster_quality", "sampled", ("cluster",), "iu", ("1",), "pixels drawn"),
):
    register(_variable)
for _variable in (
    Variable("phase_fractions", "n_pixels", ("field",), "iu", ("1",), "pixels that are used"),
    Variable("phase_fractions", "n_tiles", ("field", "phase"), "iu", ("1",), "tiles of a field"),
    *(
        Variable("phase_fractions", _name, _dims, "f", ("1",), _prose)
        for _name, _dims, _prose in (
            ("fraction", ("field", "phase"), "fraction in each field"),
            ("fraction_std_counting", ("field", "phase"), "standard deviation of counting"),
            ("fraction_std_area", ("field", "phase"), "standard deviation of another place"),
            ("fraction_interval", ("field", "phase", "bound"), "interval from a field's own tiles"),
            ("mean_fraction", ("phase",), "fraction of all fields"),
            ("spread", ("phase",), "standard deviation from field to field"),
            ("standard_error", ("phase",), "standard error of the mean"),
            ("mean_interval", ("phase", "bound"), "interval of the mean"),
            ("share_counting", ("phase",), "share of the spread's variance from counting"),
            ("share_area", ("phase",), "share of the spread's variance from the finite area"),
            ("share_fields", ("phase",), "share of the spread's variance from fields that differ"),
            ("p_value", ("phase",), "that fields which do not differ scatter as much"),
            ("fields_needed", ("phase",), "fields for the relative error that was asked for"),
            ("fields_needed_interval", ("phase", "bound"), "interval of the fields needed"),
            ("fields_needed_area", ("phase",), "fields needed if fields do not differ"),
        )
    ),
):
    register(_variable)

for _variable in (
    Variable("mcr", "components", ("component", SIG), "f", ("1 per channel",), "resolved spectra"),
    Variable("mcr", "loadings", (NAV, "component"), "f", None, "loadings"),
    Variable(
        "mcr", "component_totals", ("component",), "f", None, "sum of each component's loadings"
    ),
    Variable(
        "mcr",
        "lack_of_fit_path",
        ("round",),
        "f",
        ("1",),
        "root of the share of the weighted squares that is left after each round",
    ),
):
    register(_variable)

for _name, _dims, _units, _prose in (
    ("components", ("component", SIG), None, "posterior mean of the components"),
    ("components_std", ("component", SIG), None, "posterior standard deviation of the components"),
    ("components_interval", ("component", SIG, "bound"), None, "credible interval, low and high"),
    ("component_totals", ("component",), None, "sum of each component's loadings"),
    ("component_totals_std", ("component",), None, "its posterior standard deviation"),
    ("presence", ("component",), ("1",), "chance that a pixel holds the component"),
    ("r_hat", ("component", SIG), ("1",), "split R-hat of rank-normalised draws"),
    ("ess", ("component", SIG), ("1",), "independent draws that all draws are worth"),
    ("mixing_r_hat", ("component", "other_component"), ("1",), "R-hat of how components mix"),
    ("mixing_ess", ("component", "other_component"), ("1",), "draws of it that count"),
    ("loadings", (NAV, "component"), None, "posterior mean of the loadings"),
    ("loadings_std", (NAV, "component"), None, "posterior standard deviation of the loadings"),
    ("loadings_interval", (NAV, "component", "bound"), None, "credible interval, low and high"),
):
    register(Variable("bayesian_unmixing", _name, _dims, "f", _units, _prose))

for _verb, _prose in (("ica", "independent components"), ("varimax", "rotated components")):
    for _variable in (
        Variable(_verb, "components", ("component", SIG), "f", ("1 per channel",), _prose),
        Variable(_verb, "loadings", (NAV, "component"), "f", None, "loadings"),
        Variable(_verb, "mean", (SIG,), "f", None, "mean spectrum"),
        Variable(
            _verb,
            "variance_share",
            ("component",),
            "f",
            ("1",),
            "share of the weighted variance that each component adds",
        ),
    ):
        register(_variable)

for _verb in ("vca", "nfindr", "sisal"):
    for _variable in (
        Variable(_verb, "components", ("component", SIG), "f", ("1 per channel",), "endmembers"),
        Variable(_verb, "loadings", (NAV, "component"), "f", None, "loadings"),
        Variable(
            _verb, "component_totals", ("component",), "f", None, "sum of each component's loadings"
        ),
        Variable(
            _verb,
            "counting_limit",
            ("component",),
            "f",
            ("deg",),
            "angle by which counting noise alone turns each endmember",
        ),
    ):
        register(_variable)

for _variable in (
    Variable(
        "sisal",
        "components_range",
        ("component", "bound", SIG),
        "f",
        ("1 per channel",),
        "range that the data leave to each endmember, lower and upper end",
    ),
    Variable(
        "sisal",
        "purity",
        ("component",),
        "f",
        ("1",),
        "share of each component where it is purest",
    ),
):
    register(_variable)
