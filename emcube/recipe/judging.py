"""Steps that say something about an earlier one: how sure it is, and what it leaves of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.cube import nav_dims
from emcube.engine import Target, ZarrTarget, map_blocks
from emcube.models.labels import Labels, as_source
from emcube.results.tree import frame

if TYPE_CHECKING:
    from emcube.models.information import Fitted
    from emcube.recipe import schema
    from emcube.recipe.steps import Run

__all__ = ["diagnostics_step", "judged", "uncertainty_step"]

Stamp = Callable[[], dict[str, Any]]


def judged(step: schema.UncertaintyStep | schema.DiagnosticsStep, run: Run) -> str:
    """Name of the step that is judged: the one that is named, or the last nmf step."""
    if step.on is not None:
        return step.on
    return [name for name, node in run.nodes.items() if node.attrs["emcube"]["verb"] == "nmf"][-1]


def fitted_of_node(node: xr.Dataset, labels: Labels) -> Fitted:
    """What `emcube.models.information` asks of a model, from the node that it left."""
    from emcube.models.information import Fitted
    from emcube.models.nmf_losses import resolve_loss

    parameters = dict(node.attrs["parameters"])
    gain = float(node.attrs.get("gain", 1.0))
    values = np.asarray(node["components"].values, dtype=np.float64)
    values = np.asarray(labels.used_channels(values.reshape(len(values), -1)))
    return Fitted(
        values / values.sum(axis=1, keepdims=True),
        np.asarray(node["component_totals"].values, dtype=np.float64) / gain,
        resolve_loss(parameters["beta_loss"]),
        labels,
        gain,
        int(node.attrs["pool"]),
        bool(parameters["sum_to_one"]),
        parameters,
    )


def uncertainty_step(step: schema.UncertaintyStep, run: Run, stamp: Stamp) -> xr.Dataset:
    """Write the uncertainty of an nmf step: small answers at once, those of pixels block by block."""
    from emcube.models.uncertainties import WORDS, evaluate

    target = judged(step, run)
    source, labels = as_source(run.cube, run.where)
    fitted = fitted_of_node(run.nodes[target], labels)
    parameters = run.parameters(step)
    found = evaluate(
        fitted,
        run.cube,
        run.where,
        level=parameters["level"],
        method=parameters["method"],
        n_replicates=parameters["n_replicates"],
        seed=int(parameters["random_state"]),
    )
    dataset = found.spectra()
    k = len(fitted.components)
    units = "1" if fitted.sum_to_one else labels.units
    for name, sizes in {
        "loadings_std_counting": {},
        "loadings_std_shared": {},
        "loadings_interval": {"bound": 2},
        "loadings_rotation_range": {"bound": 2},
    }.items():
        dataset[name] = _frame(labels, source, {"component": k, **sizes}, units)
    for name, words in WORDS.items():
        dataset[name].attrs["long_name"] = words
    return _write(step, run, dataset, {"on": target, **found.facts}, stamp, found.pixels, source)


def diagnostics_step(step: schema.DiagnosticsStep, run: Run, stamp: Stamp) -> xr.Dataset:
    """Write what an nmf step leaves of the data."""
    from emcube.models.diagnosing import WORDS, diagnose

    target = judged(step, run)
    source, labels = as_source(run.cube, run.where)
    fitted = fitted_of_node(run.nodes[target], labels)
    parameters = run.parameters(step)
    found = diagnose(
        fitted,
        run.cube,
        run.where,
        n_components=parameters["n_components"],
        max_lag=parameters["max_lag"],
        seed=int(parameters["random_state"]),
        lines=parameters["lines"],
    )
    # Names of axes stand in the attributes: texts in arrays are no part of Zarr's third version yet.
    axes = [str(name) for name in found.small["axis"].values]
    dataset = found.small.drop_vars(["axis", "line"], errors="ignore")
    for name in ("chi_square", "deviance") if fitted.loss.counts else ("chi_square",):
        dataset[name] = _frame(labels, source, {}, "1")
    for key in dataset.data_vars:
        dataset[key].attrs["long_name"] = WORDS[str(key)]
    facts = {"on": target, "axes": axes, **found.facts}
    if "line" in found.small:
        facts["lines"] = [str(name) for name in found.small["line"].values]
    return _write(step, run, dataset, facts, stamp, found.pixels, source)


def _frame(labels: Labels, source: Any, trailing: dict[str, int], units: str) -> xr.DataArray:
    """Frame of a variable over navigation dims and others."""
    sizes = tuple(trailing.values())
    chunks = source.plan.output_shape(8 * int(np.prod(sizes, dtype=np.int64)))
    coords = {k: c for k, c in labels.nav_coords.items() if k in labels.nav_dims}
    sig = [d for d in trailing if d == "component"]
    return frame(
        (*labels.nav_dims, *trailing),
        (*labels.nav_shape, *sizes),
        (*chunks, *sizes),
        np.float64,
        {"units": units, "sig_dims": sig},
        coords,
    )


def _write(
    step: schema.UncertaintyStep | schema.DiagnosticsStep,
    run: Run,
    dataset: xr.Dataset,
    attributes: dict[str, Any],
    stamp: Stamp,
    function: Any,
    source: Any,
) -> xr.Dataset:
    """Write a node and the variables of it that are still frames, which `function` fills."""
    seed = {"seed": int(run.seeds[step.label])} if step.label in run.seeds else {}
    targets: dict[str, Target] = {
        str(name): ZarrTarget(str(run.writer.path), f"{step.label}/{name}", np.nan)
        for name, variable in dataset.data_vars.items()
        if variable.chunks is not None
    }
    node = run.writer.write_node(
        step.label,
        dataset,
        verb=step.verb,
        nav=nav_dims(run.cube),
        sig=[str(d) for d in as_source(run.cube)[1].signal_beside("component")],
        attributes={**attributes, "parameters": run.parameters(step), **seed},
    )
    if targets:
        map_blocks(
            function,
            source,
            targets,
            name=f"{step.label}: write maps",
            continues=node.attempt,
        )
    return node.finish({**stamp()})
