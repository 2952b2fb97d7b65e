"""Steps that say something about an earlier one: how sure it is, and what it leaves of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.cube import nav_dims
from emcube.engine import Target, ZarrTarget, map_blocks
from emcube.models.fields import Fields, selections
from emcube.models.labels import Labels, as_source
from emcube.results.tree import Node, field_node, frame

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
    _, labels = as_source(run.cube, run.where)
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
    k = len(fitted.components)
    units = "1" if fitted.sum_to_one else labels.units
    maps = {
        "loadings_std_counting": {},
        "loadings_std_shared": {},
        "loadings_interval": {"bound": 2},
        "loadings_rotation_range": {"bound": 2},
    }
    asked = {name: ({"component": k, **sizes}, units) for name, sizes in maps.items()}
    facts = {"on": target, **found.facts}
    return _write(step, run, found.spectra(), asked, WORDS, facts, stamp, found.pixels)


def diagnostics_step(step: schema.DiagnosticsStep, run: Run, stamp: Stamp) -> xr.Dataset:
    """Write what an nmf step leaves of the data."""
    from emcube.models.diagnosing import WORDS, diagnose

    target = judged(step, run)
    _, labels = as_source(run.cube, run.where)
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
    names = ("chi_square", "deviance") if fitted.loss.counts else ("chi_square",)
    asked: Asked = {name: ({}, "1") for name in names}
    facts = {"on": target, "axes": axes, **found.facts}
    if "line" in found.small:
        facts["lines"] = [str(name) for name in found.small["line"].values]
    return _write(step, run, dataset, asked, WORDS, facts, stamp, found.pixels)


Asked = Mapping[str, tuple[Mapping[str, int], str]]
"""Variables over pixels: their dims beside the cube's own with their sizes, and their unit."""


def _frame(labels: Labels, source: Any, trailing: Mapping[str, int], units: str) -> xr.DataArray:
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
    shared: xr.Dataset,
    asked: Asked,
    words: Mapping[str, str],
    attributes: dict[str, Any],
    stamp: Stamp,
    function: Any,
) -> xr.Dataset:
    """Write a node, and variables over pixels, which `function` fills; of several cubes one in each field."""
    from emcube.recipe.steps import own_scope

    seed = {"seed": int(run.seeds[step.label])} if step.label in run.seeds else {}
    attributes = {**attributes, "parameters": run.parameters(step), **seed}
    for key in shared.data_vars:
        shared[key].attrs["long_name"] = words[str(key)]
    if not isinstance(run.cube, Fields):
        dataset = _with_frames(shared, run.cube, run.where, asked, words)
        node = _write_node(step, run, step.label, dataset, attributes)
        _fill(node, run, step.label, dataset, function, run.cube, run.where)
        return node.finish({**stamp()})
    pairs = zip(run.cube.cubes, selections(run.where, run.cube), strict=True)
    for name, (cube, where) in zip(run.cube.names, pairs, strict=True):
        own = field_node(name, step.label)
        if run.writer.has_node(own):
            continue
        with own_scope(f"{step.label}.{name}"):
            dataset = _with_frames(shared, cube, where, asked, words)
            node = _write_node(step, run, own, dataset, attributes)
            _fill(node, run, own, dataset, function, cube, where)
            node.finish({**stamp()})
    # Last: where it is there, the fields are done.
    node = _write_node(step, run, step.label, shared, attributes, maps=False)
    return node.finish({**stamp()})


def _with_frames(
    shared: xr.Dataset, cube: Any, where: Any, asked: Asked, words: Mapping[str, str]
) -> xr.Dataset:
    source, labels = as_source(cube, where)
    dataset = shared.copy()
    for name, (trailing, units) in asked.items():
        dataset[name] = _frame(labels, source, trailing, units)
        dataset[name].attrs["long_name"] = words[name]
    return dataset


def _write_node(
    step: schema.UncertaintyStep | schema.DiagnosticsStep,
    run: Run,
    name: str,
    dataset: xr.Dataset,
    attributes: Mapping[str, Any],
    *,
    maps: bool = True,
) -> Node:
    first = run.cube.cubes[0] if isinstance(run.cube, Fields) else run.cube
    return run.writer.write_node(
        name,
        dataset,
        verb=step.verb,
        nav=nav_dims(first),
        sig=[str(d) for d in as_source(first)[1].signal_beside("component")],
        attributes=attributes,
        maps=maps,
    )


def _fill(
    node: Node, run: Run, name: str, dataset: xr.Dataset, function: Any, cube: Any, where: Any
) -> None:
    """Let the workers write the variables of a node that are still frames."""
    targets: dict[str, Target] = {
        str(key): ZarrTarget(str(run.writer.path), f"{name}/{key}", np.nan)
        for key, variable in dataset.data_vars.items()
        if variable.chunks is not None
    }
    source, _ = as_source(cube, where)
    map_blocks(function, source, targets, name=f"{name}: write maps", continues=node.attempt)
