"""From a step of a recipe to a node of the result: fit, then write.

Small answers go into the node at once. Answers for each pixel are computed block by block and written
by the workers straight into the node's arrays; nothing of that size passes through here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from emcube.cube import nav_dims, sig_dims
from emcube.engine import BlockSource, Sweep, ZarrTarget, map_blocks
from emcube.engine.checkpoint import current_checkpoints
from emcube.errors import InputError
from emcube.models.base import Estimator
from emcube.models.fields import Fields, selections
from emcube.models.labels import Labels, as_source
from emcube.recipe import schema
from emcube.recipe.recipe import Recipe
from emcube.recipe.spectra import GivenSpectra, given_parameters, values_of
from emcube.results.kinds import ESTIMATES
from emcube.results.provenance import now
from emcube.results.tree import Node, ResultWriter, field_node, frame

__all__ = ["Run", "first_sums", "fitted", "own_scope", "run_step"]


@dataclass
class Run:
    """What the steps of one run share.

    Attributes
    ----------
    writer : ResultWriter
    cube : DataArray or Fields
        The prepared cube, one object for all steps so that its blocks are read once; or several of them.
    where : DataArray of bool or None
        Pixels that are used; of several cubes a list with one each.
    seeds : mapping
        Seed of each step that draws random numbers.
    steps : mapping
        Steps of the recipe by name.
    nodes : dict
        Finished nodes by name.
    models : dict
        Models that were fitted in this process, by step, with the cube of the fit.
    given : tuple of GivenSpectra
        Spectra that the recipe gives to steps.
    """

    writer: ResultWriter
    cube: Any
    where: Any
    seeds: Mapping[str, int]
    steps: Mapping[str, schema.AnyStep] = field(default_factory=dict)
    nodes: dict[str, xr.Dataset] = field(default_factory=dict)
    models: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    given: tuple[GivenSpectra, ...] = ()

    @property
    def estimated(self) -> xr.Dataset | None:
        """Node of the latest estimate."""
        found = [n for n in self.nodes.values() if n.attrs["emcube"]["verb"] in ESTIMATES]
        return found[-1] if found else None

    def loadings(self, step: str) -> Any:
        """Loadings of a finished step: of a cube, or of several."""
        if not isinstance(self.cube, Fields):
            return self.nodes[step]["loadings"]
        names = self.cube.names
        found = tuple(self.writer.node(field_node(name, step))["loadings"] for name in names)
        return Fields(found, names)

    def spectra(self, step: schema.AnyStep) -> dict[str, Any]:
        """Spectra (M, channels) that are given to a step, by parameter."""
        return {
            parameter: values_of(named, self.given, lambda name: self.nodes[name]["components"])
            for parameter, named in given_parameters(step)
        }

    def arguments(self, step: schema.AnyStep) -> dict[str, Any]:
        """What the estimator is made with: `parameters`, with spectra in place of their names."""
        return {**self.parameters(step), **self.spectra(step)}

    def parameters(self, step: schema.AnyStep) -> dict[str, Any]:
        """Parameters as they are recorded, with drawn seed and estimated number."""
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


def run_step(step: schema.AnyStep, run: Run) -> xr.Dataset:
    """Run one step and write its node; return the finished node, lazily."""
    started, clock = now(), time.perf_counter()

    def stamp() -> dict[str, Any]:
        return {"started": started, "seconds": round(time.perf_counter() - clock, 3)}

    if isinstance(step, schema.EstimateStep):
        return _estimate(step, run, stamp)
    if isinstance(step, schema.SurveyStep):
        return _survey(step, run, stamp)
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
    if isinstance(step, schema.BayesianUnmixingStep):
        return _bayesian_unmixing(step, run, stamp)
    if isinstance(step, schema.ICAStep | schema.VarimaxStep):
        return _rotated(step, run, stamp)
    if isinstance(step, schema.VCAStep | schema.NFINDRStep | schema.SISALStep):
        return _endmembers(step, run, stamp)
    if isinstance(step, schema.PhaseFractionsStep):
        return _phase_fractions(step, run, stamp)
    if isinstance(step, schema.UncertaintyStep):
        from emcube.recipe.judging import uncertainty_step

        return uncertainty_step(step, run, stamp)
    if isinstance(step, schema.DiagnosticsStep):
        from emcube.recipe.judging import diagnostics_step

        return diagnostics_step(step, run, stamp)
    return _kmeans(step, run, stamp)


def first_sums(recipe: Recipe, cube: Any, source: BlockSource) -> list[Sweep]:
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


def _survey(step: schema.SurveyStep, run: Run, stamp: Stamp) -> xr.Dataset:
    from emcube.models import survey_n_components

    found = survey_n_components(run.cube, where=run.where, **run.parameters(step))
    attributes = {
        "n_components": found.n_components,
        "reason": found.reason,
        "numbers": dict(found.numbers),
        "trusted": bool(found.estimate.trusted),
        "noise": dict(found.estimate.noise),
    }
    return _write(step, run, found.table, attributes, stamp)


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

    model = MiniBatchNMF(**run.arguments(step)).fit(run.cube, where=run.where)
    run.models[step.label] = model, run.cube
    small: dict[str, xr.DataArray] = {
        "components": model.components_,
        **_kept_spectra(step, run, model.axes_),
        "objective": xr.DataArray(float(model.objective_), attrs={"units": "1"}),
        "objective_path": xr.DataArray(
            np.asarray(model.objective_path_, dtype=np.float64),
            dims=("pass",),
            attrs={"units": "1"},
        ),
        "component_totals": _component_totals(model, run),
    }
    attributes: dict[str, Any] = {
        "n_iter": int(model.n_iter_),
        "converged": bool(model.converged_),
        "pool": int(model.pool_),
        "gain": float(model.gain_),
    }
    if step.basis is not None:
        # Names of features stand in the attributes: texts in arrays are no part of Zarr's third version yet.
        small["coefficients"] = model.coefficients_.drop_vars("feature")
        attributes["features"] = [str(name) for name in model.coefficients_.feature.values]
    if step.sparsity or step.smoothness:
        attributes |= {
            "penalty": float(model.penalty_),
            "sparsity_strength": float(model.sparsity_strength_),
            "smoothness_strength": float(model.smoothness_strength_),
        }
    n_components = model.components_.sizes["component"]
    return _write(step, run, small, attributes, stamp, model, run.cube, run.where, n_components)


def _mcr(step: schema.MCRStep, run: Run, stamp: Stamp) -> xr.Dataset:
    from emcube.models import MCRALS

    model = MCRALS(**run.arguments(step)).fit(run.cube, where=run.where)
    run.models[step.label] = model, run.cube
    small = {
        "components": model.components_,
        **_kept_spectra(step, run, model.axes_),
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


def _bayesian_unmixing(step: schema.BayesianUnmixingStep, run: Run, stamp: Stamp) -> xr.Dataset:
    from emcube.models import BayesianUnmixing

    model = BayesianUnmixing(**run.parameters(step)).fit(run.cube, where=run.where)
    small = {
        "components": model.components_,
        "components_std": model.components_std_,
        # Which end is which stands in the attributes: texts in arrays are no part of Zarr 3 yet.
        "components_interval": model.components_interval_.drop_vars("bound"),
        "component_totals": _component_totals(model, run),
        "component_totals_std": _by_component(model.component_totals_std_).assign_attrs(
            units=model.axes_.units
        ),
        "presence": _by_component(model.presence_),
        "r_hat": model.r_hat_,
        "ess": model.ess_,
        "mixing_r_hat": _plain(model.mixing_r_hat_, ("component", "other_component")),
        "mixing_ess": _plain(model.mixing_ess_, ("component", "other_component")),
    }
    attributes = {
        "likelihood": model.likelihood_,
        "level": float(model.level),
        "bounds": ["low", "high"],
        "pool": int(model.pool_),
        "n_iter": int(model.n_iter_),
        "worst_r_hat": float(model.worst_r_hat_),
        "converged": bool(model.converged_),
        "noise_variance": float(model.noise_variance_),
    }
    k, units = model.components_.sizes["component"], model.loadings_units_
    more = {
        "loadings_std": (("component",), (k,), units),
        "loadings_interval": (("component", "bound"), (k, 2), units),
    }
    return _write(step, run, small, attributes, stamp, model, run.cube, run.where, k, more)


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
    run.models[step.label] = model, run.cube
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
        ends = model.components_range_.drop_vars("bound")
        small |= {"components_range": ends, "purity": model.purity_}
        attributes["n_iter"] = int(model.n_iter_)
    if isinstance(model, NFINDR | SISAL):
        attributes["converged"] = bool(model.converged_)
    n_components = model.components_.sizes["component"]
    return _write(step, run, small, attributes, stamp, model, run.cube, run.where, n_components)


def _kept_spectra(step: schema.AnyStep, run: Run, axes: Labels) -> dict[str, xr.DataArray]:
    """Spectra that a step was given, as it was given them: whoever has the result can run it again."""
    dims = {"known": "known_component", "init": "component"}
    labels = replace(axes, channels=None)
    return {
        name: labels.spectra(values, dim=dims[name], name=name, attrs={"units": "1"})
        for name, values in run.spectra(step).items()
    }


def _component_totals(model: Any, run: Run) -> xr.DataArray:
    return xr.DataArray(
        np.asarray(model.component_totals_, dtype=np.float64),
        dims=("component",),
        attrs={"units": run.cube.attrs.get("units", "1")},
    )


def fitted(step: schema.AnyStep, run: Run) -> tuple[Any, Any]:
    """Fitted model of an earlier step, and the cube of the fit; a run that goes on fits it again."""
    from emcube import models

    if isinstance(step, schema.KMeansStep | schema.GaussianMixtureStep | schema.PoissonMixtureStep):
        return _clusters(step, run)
    if step.label not in run.models:
        make = {
            "nmf": models.MiniBatchNMF,
            "mcr": models.MCRALS,
            "vca": models.VCA,
            "nfindr": models.NFINDR,
            "sisal": models.SISAL,
        }[step.verb]
        model = make(**run.arguments(step)).fit(run.cube, where=run.where)
        run.models[step.label] = model, run.cube
    return run.models[step.label]


def _clusters(step: schema.AnyStep, run: Run) -> tuple[Any, Any]:
    """Fitted clusters of a step, and the cube of the fit; a run that goes on fits them again."""
    from emcube import models

    if step.label not in run.models:
        make = {
            "kmeans": models.KMeans,
            "gaussian_mixture": models.GaussianMixture,
            "poisson_mixture": models.PoissonMixture,
        }[step.verb]
        on = getattr(step, "on", None)
        cube = run.cube if on is None else run.loadings(on)
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


def _phase_fractions(step: schema.PhaseFractionsStep, run: Run, stamp: Stamp) -> xr.Dataset:
    from emcube.models import phase_fractions

    able = [
        s.label
        for s in run.steps.values()
        if isinstance(s, schema.WITH_PHASES) and s.label in run.nodes
    ]
    target = step.of or able[-1]
    model, cube = fitted(run.steps[target], run)
    found = phase_fractions(model, cube, where=run.where, **run.parameters(step))
    attributes = {**found.attrs, "of": target, "what": found.attrs["of"]}
    attributes.pop("seed")
    if isinstance(cube, Fields):
        attributes["fields"] = list(cube.names)
    return _write(step, run, found.drop_attrs(deep=False), attributes, stamp)


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
    cube: Any = None,
    where: Any = None,
    n_components: int | None = None,
    more: More | None = None,
) -> xr.Dataset:
    """Write the node of a step; with a model also its answer for each pixel of `cube`.

    That is loadings of `n_components`, else labels; and `more`: dims beside the cube's, their sizes, and the
    unit. Of several cubes each has a node of its own, and the step's own is without pixels.
    """
    dataset = xr.Dataset(dict(small)) if not isinstance(small, xr.Dataset) else small
    attributes = {
        "parameters": run.parameters(step),
        **attributes,
        **({"seed": int(run.seeds[step.label])} if step.label in run.seeds else {}),
    }
    of = run.cube if cube is None else cube
    first = of.cubes[0] if isinstance(of, Fields) else of
    sig = sig_dims(first)
    if model is not None and n_components is not None:
        sig = model.axes_.signal_beside("component")
    place = _Place(run.writer, step.label, step.verb, nav_dims(first), sig)
    if model is None or cube is None:
        return place.write(dataset, attributes).finish({**stamp()})
    if not isinstance(cube, Fields):
        return _write_maps(
            place, dataset, attributes, stamp, model, cube, where, n_components, more
        )
    for name, one, chosen in zip(cube.names, cube.cubes, selections(where, cube), strict=True):
        own = replace(place, node=field_node(name, step.label))
        if not run.writer.has_node(own.node):
            with own_scope(f"{step.label}.{name}"):
                _write_maps(
                    own, dataset.copy(), attributes, stamp, model, one, chosen, n_components, more
                )
    # Last: where it is there, the fields are done.
    return place.write(dataset, attributes, maps=False).finish({**stamp()})


More = Mapping[str, tuple[tuple[str, ...], tuple[int, ...], str]]


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a node goes, and what its dims are."""

    writer: ResultWriter
    node: str
    verb: str
    nav: tuple[str, ...]
    sig: tuple[str, ...]

    def write(
        self, dataset: xr.Dataset, attributes: Mapping[str, Any], *, maps: bool = True
    ) -> Node:
        return self.writer.write_node(
            self.node,
            dataset,
            verb=self.verb,
            nav=self.nav,
            sig=self.sig,
            attributes=attributes,
            maps=maps,
        )


@contextmanager
def own_scope(name: str) -> Iterator[None]:
    """Number the calls for one field by themselves: a run that goes on leaves finished fields out."""
    kept = current_checkpoints()
    if kept is None:
        yield
        return
    with kept.scope(name):
        yield
    kept.drop(name)


def _write_maps(
    place: _Place,
    dataset: xr.Dataset,
    attributes: Mapping[str, Any],
    stamp: Stamp,
    model: Any,
    cube: xr.DataArray,
    where: Any,
    n_components: int | None,
    more: More | None,
) -> xr.Dataset:
    """Write a node with a model's answer for each pixel of one cube."""
    source, labels = as_source(cube, where, channels=model.axes_.channels)
    folder, targets = str(place.writer.path), {}
    name, fill = ("labels", -1) if n_components is None else ("loadings", np.nan)
    pixel_bytes = 4 if n_components is None else 8 * n_components
    dataset[name] = _frame(labels, source.plan.output_shape(pixel_bytes), n_components)
    if n_components is not None:
        dataset[name].attrs["units"] = getattr(model, "loadings_units_", labels.units)
    targets[name] = ZarrTarget(folder, f"{place.node}/{name}", fill)
    for name, (dims, shape, units) in (more or {}).items():
        chunks = source.plan.output_shape(8 * int(np.prod(shape, dtype=np.int64)))
        dataset[name] = _more(labels, chunks, dims, shape, units)
        targets[name] = ZarrTarget(folder, f"{place.node}/{name}", np.nan)
    node = place.write(dataset, attributes)
    map_blocks(
        model.pixel_function(),
        source,
        targets,
        name=f"{place.node}: write maps",
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
    sig = [d for d in dims if d != "bound"]
    attributes: dict[str, Any] = {"units": units, "sig_dims": sig}
    sizes, chunks = (*labels.nav_shape, *shape), (*chunks, *shape)
    return frame(whole, sizes, chunks, np.float64, attributes, coords)


def _by_component(values: Any) -> xr.DataArray:
    """One value a component, labelled and with a unit."""
    if isinstance(values, xr.DataArray):
        return values if "units" in values.attrs else values.assign_attrs(units="1")
    return xr.DataArray(np.asarray(values), dims=("component",), attrs={"units": "1"})


def _with_units(values: xr.DataArray, units: str) -> xr.DataArray:
    return values if "units" in values.attrs else values.assign_attrs(units=units)
