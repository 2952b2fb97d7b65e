"""From a step of a recipe to a node of the result: fit, then write.

Small answers go into the node at once. Answers for each pixel are computed block by block and written
by the workers straight into the node's arrays; nothing of that size passes through here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from emcube.cube import nav_dims, sig_dims
from emcube.engine import BlockSource, Sweep, Target, ZarrTarget, map_blocks
from emcube.errors import InputError
from emcube.models.base import Estimator
from emcube.models.labels import Labels, as_source
from emcube.recipe import schema
from emcube.recipe.recipe import Recipe
from emcube.results.provenance import now
from emcube.results.tree import ResultWriter, frame

__all__ = ["Run", "first_sums", "run_step"]


@dataclass
class Run:
    """What the steps of one run share.

    Attributes
    ----------
    writer : ResultWriter
    cube : DataArray
        The prepared cube, one object for all steps so that its blocks are read once.
    where : DataArray of bool or None
        Pixels that are used.
    seeds : mapping
        Seed of each step that draws random numbers.
    steps : mapping
        Steps of the recipe by name.
    nodes : dict
        Finished nodes by name.
    models : dict
        Clusters that were fitted in this process, by step, with the cube of the fit.
    """

    writer: ResultWriter
    cube: xr.DataArray
    where: xr.DataArray | None
    seeds: Mapping[str, int]
    steps: Mapping[str, schema.AnyStep] = field(default_factory=dict)
    nodes: dict[str, xr.Dataset] = field(default_factory=dict)
    models: dict[str, tuple[Any, xr.DataArray]] = field(default_factory=dict)

    @property
    def estimated(self) -> xr.Dataset | None:
        """Node of the latest estimate."""
        found = [n for n in self.nodes.values() if n.attrs["emcube"]["verb"] == _ESTIMATE]
        return found[-1] if found else None

    def parameters(self, step: schema.AnyStep) -> dict[str, Any]:
        """Parameters of the estimator, with drawn seed and estimated number."""
        parameters = step.parameters()
        if step.label in self.seeds:
            parameters["random_state"] = self.seeds[step.label]
        for key in ("n_components", "n_clusters"):
            if parameters.get(key) == "auto":
                parameters[key] = self._estimated_number(step, key)
        return parameters

    def _estimated_number(self, step: schema.AnyStep, key: str) -> int:
        node = self.estimated
        number = None if node is None else node.attrs["n_components"]
        if node is None or number is None:
            why = "" if node is None else f": {node.attrs['reason']}"
            raise InputError(
                f"{key!r} of step {step.label!r} is 'auto', but the estimate names no number{why}",
                hint=f"look at the curve of the estimate and give {key} as a number "
                "(without a recipe: --n-components N --overwrite)",
            )
        return int(number)


_ESTIMATE = "estimate_n_components"


def run_step(step: schema.AnyStep, run: Run) -> xr.Dataset:
    """Run one step and write its node; return the finished node, lazily."""
    started, clock = now(), time.perf_counter()

    def stamp() -> dict[str, Any]:
        return {"started": started, "seconds": round(time.perf_counter() - clock, 3)}

    if isinstance(step, schema.EstimateStep):
        return _estimate(step, run, stamp)
    if isinstance(step, schema.PCAStep):
        return _pca(step, run, stamp)
    if isinstance(step, schema.NMFStep):
        return _nmf(step, run, stamp)
    if isinstance(step, schema.GaussianMixtureStep):
        return _gaussian_mixture(step, run, stamp)
    if isinstance(step, schema.PoissonMixtureStep):
        return _poisson_mixture(step, run, stamp)
    if isinstance(step, schema.ClusterQualityStep):
        return _cluster_quality(step, run, stamp)
    if isinstance(step, schema.MCRStep):
        return _mcr(step, run, stamp)
    if isinstance(step, schema.ICAStep | schema.VarimaxStep):
        return _rotated(step, run, stamp)
    if isinstance(step, schema.VCAStep | schema.NFINDRStep | schema.SISALStep):
        return _endmembers(step, run, stamp)
    if isinstance(step, schema.UncertaintyStep):
        from emcube.recipe.judging import uncertainty_step

        return uncertainty_step(step, run, stamp)
    if isinstance(step, schema.DiagnosticsStep):
        from emcube.recipe.judging import diagnostics_step

        return diagnostics_step(step, run, stamp)
    return _kmeans(step, run, stamp)


def first_sums(recipe: Recipe, cube: xr.DataArray, source: BlockSource) -> list[Sweep]:
    """Sums that steps of a recipe will ask for and that one pass can make before any of them runs.

    Of counts that cannot be negative only: a mistake in the data is a matter of the step that finds it.
    """
    from emcube.models import IncrementalPCA

    if cube.dtype.kind != "u":
        return []
    found: list[Sweep] = []
    for step in recipe.steps:
        if isinstance(step, schema.PCAStep):
            parameters = {k: v for k, v in step.parameters().items() if k != "n_components"}
            found += IncrementalPCA(**parameters).first_sums(source, cube.dtype)
    return found


Stamp = Callable[[], dict[str, Any]]


def _estimate(step: schema.EstimateStep, run: Run, stamp: Stamp) -> xr.Dataset:
    from emcube.models import estimate_n_components

    found = estimate_n_components(run.cube, where=run.where, **run.parameters(step))
    curve = xr.Dataset({str(k): _with_units(v, "1") for k, v in found.curve.data_vars.items()})
    curve["threshold"] = xr.DataArray(float(found.threshold), attrs={"units": "1"})
    attributes = {
        "n_components": found.n_components,
        "reason": found.reason,
        "method": found.method,
        "trusted": bool(found.trusted),
        "margin": {"above": found.margin.above, "below": found.margin.below},
        "alternatives": dict(found.alternatives),
        "noise": dict(found.noise),
    }
    return _write(step, run, curve, attributes, stamp)


def _pca(step: schema.PCAStep, run: Run, stamp: Stamp) -> xr.Dataset:
    from emcube.models import IncrementalPCA

    model = IncrementalPCA(**run.parameters(step)).fit(run.cube, where=run.where)
    spectra = _with_units(model.components_, "1")
    small = {
        "components": spectra,
        "mean": model.mean_,
        "explained_variance": _by_component(model.explained_variance_),
        "explained_variance_ratio": _by_component(model.explained_variance_ratio_),
        "singular_values": _by_component(model.singular_values_),
    }
    attributes = {
        "noise": model.noise_.name,
        "trivial_first": bool(model.trivial_first_),
        "solver": model.solver_,
        "noise_variance": float(model.noise_variance_),
        "n_iter": int(model.n_iter_),
        "converged": bool(model.converged_),
    }
    return _write(
        step, run, small, attributes, stamp, model, run.cube, run.where, spectra.sizes["component"]
    )


def _nmf(step: schema.NMFStep, run: Run, stamp: Stamp) -> xr.Dataset:
    from emcube.models import MiniBatchNMF

    model = MiniBatchNMF(**run.parameters(step)).fit(run.cube, where=run.where)
    small = {
        "components": model.components_,
        "objective": xr.DataArray(float(model.objective_), attrs={"units": "1"}),
        "objective_path": xr.DataArray(
            np.asarray(model.objective_path_, dtype=np.float64),
            dims=("pass",),
            attrs={"units": "1"},
        ),
        "component_totals": _component_totals(model, run),
    }
    attributes = {
        "n_iter": int(model.n_iter_),
        "converged": bool(model.converged_),
        "pool": int(model.pool_),
        "gain": float(model.gain_),
    }
    n_components = model.components_.sizes["component"]
    return _write(step, run, small, attributes, stamp, model, run.cube, run.where, n_components)


def _mcr(step: schema.MCRStep, run: Run, stamp: Stamp) -> xr.Dataset:
    from emcube.models import MCRALS

    model = MCRALS(**run.parameters(step)).fit(run.cube, where=run.where)
    small = {
        "components": model.components_,
        "component_totals": _component_totals(model, run),
        "lack_of_fit_path": xr.DataArray(
            np.asarray(model.lack_of_fit_path_, dtype=np.float64),
            dims=("round",),
            attrs={"units": "1"},
        ),
    }
    attributes = {
        "pool": int(model.pool_),
        "loadings_by": model.loadings_by_,
        "noise": "poisson" if model.weighted_ else "none",
        "n_iter": int(model.n_iter_),
        "converged": bool(model.converged_),
    }
    n_components = model.components_.sizes["component"]
    return _write(step, run, small, attributes, stamp, model, run.cube, run.where, n_components)


def _rotated(step: schema.ICAStep | schema.VarimaxStep, run: Run, stamp: Stamp) -> xr.Dataset:
    from emcube.models import FastICA, Varimax

    estimator = FastICA if isinstance(step, schema.ICAStep) else Varimax
    model = estimator(**run.parameters(step)).fit(run.cube, where=run.where)
    small = {
        "components": model.components_,
        "mean": model.mean_,
        "variance_share": model.variance_share_,
    }
    attributes = {
        "noise": model.noise_.name,
        "domain": model.domain,
        "n_iter": int(model.n_iter_),
        "converged": bool(model.converged_),
    }
    n_components = model.components_.sizes["component"]
    return _write(step, run, small, attributes, stamp, model, run.cube, run.where, n_components)


def _endmembers(
    step: schema.VCAStep | schema.NFINDRStep | schema.SISALStep, run: Run, stamp: Stamp
) -> xr.Dataset:
    from emcube.models import NFINDR, SISAL, VCA

    estimator = {"vca": VCA, "nfindr": NFINDR, "sisal": SISAL}[step.verb]
    model = estimator(**run.parameters(step)).fit(run.cube, where=run.where)
    small = {
        "components": model.components_,
        "component_totals": _component_totals(model, run),
        "counting_limit": model.counting_limit_,
    }
    attributes = {
        "pool": int(model.pool_),
        "loadings_by": model.loadings_by_,
        "purest": np.asarray(model.purest_).tolist(),
    }
    if isinstance(model, SISAL):
        small |= {"components_range": model.components_range_, "purity": model.purity_}
        attributes["n_iter"] = int(model.n_iter_)
    if isinstance(model, NFINDR | SISAL):
        attributes["converged"] = bool(model.converged_)
    n_components = model.components_.sizes["component"]
    return _write(step, run, small, attributes, stamp, model, run.cube, run.where, n_components)


def _component_totals(model: Any, run: Run) -> xr.DataArray:
    return xr.DataArray(
        np.asarray(model.component_totals_, dtype=np.float64),
        dims=("component",),
        attrs={"units": run.cube.attrs.get("units", "1")},
    )


def _clusters(step: schema.AnyStep, run: Run) -> tuple[Any, xr.DataArray]:
    """Fitted clusters of a step, and the cube of the fit; a run that goes on fits them again."""
    from emcube import models

    if step.label not in run.models:
        make = {
            "kmeans": models.KMeans,
            "gaussian_mixture": models.GaussianMixture,
            "poisson_mixture": models.PoissonMixture,
        }[step.verb]
        on = getattr(step, "on", None)
        cube = run.cube if on is None else run.nodes[on]["loadings"]
        model = make(**run.parameters(step))
        # Labels go straight into the result.
        model.find_clusters(cube, run.where)
        run.models[step.label] = model, cube
    return run.models[step.label]


def _kmeans(step: schema.KMeansStep, run: Run, stamp: Stamp) -> xr.Dataset:
    model, cube = _clusters(step, run)
    small = {
        "cluster_centers": model.cluster_centers_,
        "cluster_weights": xr.DataArray(
            np.asarray(model.cluster_weights_, dtype=np.float64),
            dims=("cluster",),
            attrs={"units": "1"},
        ),
        "inertia": xr.DataArray(float(model.inertia_), attrs={"units": "1"}),
    }
    attributes = {
        "on": step.on,
        "features": model.features_,
        "n_iter": int(model.n_iter_),
        "converged": bool(model.converged_),
    }
    return _write(step, run, small, attributes, stamp, model, cube, run.where, None)


def _gaussian_mixture(step: schema.GaussianMixtureStep, run: Run, stamp: Stamp) -> xr.Dataset:
    model, cube = _clusters(step, run)
    n_features = model.means_.shape[1]
    covariances = np.asarray(model.covariances_, dtype=np.float64)
    if step.covariance_type == "diag":
        covariances = covariances[:, :, None] * np.eye(n_features)
    whole = np.broadcast_to(covariances, (len(model.weights_), n_features, n_features))
    small = {
        **_mixture(model),
        "means": _plain(model.means_, ("cluster", "feature")),
        "covariances": _plain(whole, ("cluster", "feature", "other_feature")),
    }
    return _write_mixture(
        step, run, small, stamp, model, cube, on=step.on, features=model.features_
    )


def _poisson_mixture(step: schema.PoissonMixtureStep, run: Run, stamp: Stamp) -> xr.Dataset:
    model, cube = _clusters(step, run)
    return _write_mixture(step, run, _mixture(model), stamp, model, cube)


def _cluster_quality(step: schema.ClusterQualityStep, run: Run, stamp: Stamp) -> xr.Dataset:
    from emcube.models import cluster_quality

    model, cube = _clusters(run.steps[step.of], run)
    found = cluster_quality(model, cube, where=run.where, **run.parameters(step))
    attributes = {"of": step.of, **found.attrs}
    seed = attributes.pop("seed")
    return _write(step, run, found.drop_attrs(deep=False), {**attributes, "seed": seed}, stamp)


def _mixture(model: Any) -> dict[str, xr.DataArray]:
    """What all mixtures say besides their answers for each pixel."""
    return {
        "cluster_centers": model.cluster_centers_,
        "cluster_weights": _plain(model.weights_, ("cluster",)),
        "log_likelihood": _plain(model.lower_bound_ * model.n_pixels_, ()),
        "log_likelihood_path": _plain(model.lower_bound_path_, ("pass",)),
        "bic": _plain(model.bic_, ()),
        "aic": _plain(model.aic_, ()),
    }


def _write_mixture(
    step: schema.AnyStep,
    run: Run,
    small: Mapping[str, xr.DataArray],
    stamp: Stamp,
    model: Any,
    cube: xr.DataArray,
    **attributes: Any,
) -> xr.Dataset:
    attributes |= {
        "n_iter": int(model.n_iter_),
        "converged": bool(model.converged_),
        "n_parameters": int(model.n_parameters_),
        "n_pixels": int(model.n_pixels_),
    }
    more = {"probabilities": (("cluster",), (len(model.weights_),), "1")}
    return _write(step, run, small, attributes, stamp, model, cube, run.where, None, more)


def _plain(values: Any, dims: tuple[str, ...]) -> xr.DataArray:
    return xr.DataArray(np.asarray(values, dtype=np.float64), dims=dims, attrs={"units": "1"})


# ------------------------------------------------------------------------------------------ writing


def _write(
    step: schema.AnyStep,
    run: Run,
    small: xr.Dataset | Mapping[str, xr.DataArray],
    attributes: Mapping[str, Any],
    stamp: Stamp,
    model: Estimator | None = None,
    cube: xr.DataArray | None = None,
    where: xr.DataArray | None = None,
    n_components: int | None = None,
    more: Mapping[str, tuple[tuple[str, ...], tuple[int, ...], str]] | None = None,
) -> xr.Dataset:
    """Write the node of a step; with a model also its answer for each pixel of `cube`.

    That is loadings of `n_components`, else labels; and `more`: dims beside the cube's, their sizes, and the
    unit.
    """
    dataset = xr.Dataset(dict(small)) if not isinstance(small, xr.Dataset) else small
    attributes = {
        "parameters": run.parameters(step),
        **attributes,
        **({"seed": int(run.seeds[step.label])} if step.label in run.seeds else {}),
    }
    of = run.cube if cube is None else cube
    sig = sig_dims(of)
    targets: dict[str, Target] = {}
    if model is not None and n_components is not None:
        sig = model.axes_.signal_beside("component")
    if model is not None and cube is not None:
        source, _ = as_source(cube, where, channels=model.axes_.channels)
        name, fill = ("labels", -1) if n_components is None else ("loadings", np.nan)
        pixel_bytes = 4 if n_components is None else 8 * n_components
        chunks = source.plan.output_shape(pixel_bytes)
        dataset[name] = _frame(model.axes_, chunks, n_components)
        targets[name] = ZarrTarget(str(run.writer.path), f"{step.label}/{name}", fill)
        for name, (dims, shape, units) in (more or {}).items():
            chunks = source.plan.output_shape(8 * int(np.prod(shape, dtype=np.int64)))
            dataset[name] = _more(model.axes_, chunks, dims, shape, units)
            targets[name] = ZarrTarget(str(run.writer.path), f"{step.label}/{name}", np.nan)
    node = run.writer.write_node(
        step.label,
        dataset,
        verb=step.verb,
        nav=nav_dims(of),
        sig=sig,
        attributes=attributes,
    )
    if model is not None and targets:
        map_blocks(
            model.pixel_function(),
            source,
            targets,
            name=f"{step.label}: write maps",
            continues=node.attempt,
        )
    return node.finish({**stamp()})


def _frame(labels: Labels, chunks: tuple[int, ...], n_components: int | None) -> xr.DataArray:
    """Frame of loadings (nav..., component), or of labels (nav...) where there are no components."""
    shape, dims = labels.nav_shape, labels.nav_dims
    attributes: dict[str, Any] = {"units": "1", "sig_dims": []}
    dtype: type = np.int32
    if n_components is not None:
        shape, chunks = (*shape, n_components), (*chunks, n_components)
        dims = (*dims, "component")
        attributes = {"units": labels.units, "sig_dims": ["component"]}
        dtype = np.float64
    coords = {k: c for k, c in labels.nav_coords.items() if k in dims}
    return frame(dims, shape, chunks, dtype, attributes, coords)


def _more(
    labels: Labels,
    chunks: tuple[int, ...],
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    units: str,
) -> xr.DataArray:
    """Frame of numbers over the navigation dims and some dims more."""
    whole = (*labels.nav_dims, *dims)
    coords = {k: c for k, c in labels.nav_coords.items() if k in whole}
    attributes: dict[str, Any] = {"units": units, "sig_dims": list(dims)}
    sizes, chunks = (*labels.nav_shape, *shape), (*chunks, *shape)
    return frame(whole, sizes, chunks, np.float64, attributes, coords)


def _by_component(values: Any) -> xr.DataArray:
    """One value a component, labelled and with a unit."""
    if isinstance(values, xr.DataArray):
        return values if "units" in values.attrs else values.assign_attrs(units="1")
    return xr.DataArray(np.asarray(values), dims=("component",), attrs={"units": "1"})


def _with_units(values: xr.DataArray, units: str) -> xr.DataArray:
    return values if "units" in values.attrs else values.assign_attrs(units=units)
