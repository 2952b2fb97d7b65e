"""Fits of replicates: a model fitted again on draws of its data, or from other starts.

Letters: P pixels, E used channels, K components, R replicates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.engine import ChainedPlan, run_sweep
from emcube.engine.threads import single_threaded_blas
from emcube.models.fields import Fields, selections
from emcube.models.nmf import MiniBatchNMF
from emcube.models.nmf_start import corners_of, sample_sweep, sketch, tile_of
from emcube.models.nmf_sweeps import PassSweep
from emcube.models.replicates import (
    AreaDraw,
    Draw,
    EventDraw,
    PointsSweep,
    ReplicateSweep,
    SubspaceSweep,
    ThinDraw,
    WildDraw,
    aligned,
)
from emcube.models.rotation import pooled_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import BlockSource
    from emcube.models.information import Fitted
    from emcube.models.labels import Labels

__all__ = ["MOST_PASSES", "POINTS", "refitted", "replicates"]

MOST_PASSES = 10
"""Passes of a replicate, at most; as a rule two to five do."""

POINTS = 20_000
"""Pixels (or tiles) in which the corners of a replicate are looked for, about."""

EQUIVALENT = 1e-3
"""Restarts whose objective is higher than the best by a larger share have not found the same optimum."""


def replicates(
    fitted: Fitted,
    cube: Any,
    where: Any,
    source: BlockSource,
    labels: Labels,
    method: str,
    n: int,
    seed: int,
    facts: dict[str, Any],
) -> NDArray[np.float64] | None:
    """Components of replicates (R, K, E) in the order of the model's; None for Fisher's method."""
    if method == "fisher":
        return None
    if method == "restarts":
        return _restarts(fitted, cube, where, n, seed, facts)
    draws: list[Draw]
    if method == "thinning":
        halves = (0.5, 0.5)
        draws = [ThinDraw(seed, i, halves, part) for i in range((n + 1) // 2) for part in (0, 1)]
    elif method == "area":
        tile = tile_of(labels.nav_dims, fitted.pool)
        counts = fitted.loss.counts
        plan = source.plan
        parts = plan.parts if isinstance(plan, ChainedPlan) else ()
        shapes = tuple(part.nav_shape for part in parts) or (labels.nav_shape,)
        draws = [
            AreaDraw.draw(seed, i, shapes, tile, counts=counts, several=bool(parts))
            for i in range(n)
        ]
    elif fitted.loss.counts:
        draws = [EventDraw(seed, i) for i in range(n)]
    else:
        draws = [WildDraw(seed, i, fitted.loss, fitted.components) for i in range(n)]
    return refitted(fitted, source, labels, draws, seed)


def refitted(
    fitted: Fitted, source: BlockSource, labels: Labels, draws: list[Draw], seed: int
) -> NDArray[np.float64]:
    """Components of each draw (R, K, E), fitted as the model was, from its answer on."""
    from emcube.kernels.volume import DELTA

    assert fitted.parameters is not None
    pooled = pooled_source(source, labels, fitted.pool)
    weights = fitted.weights
    delta = float(DELTA * np.mean((fitted.components * fitted.components) @ weights))
    starts = _starts(fitted, source, pooled, labels, draws, seed)
    sweeps = [
        PassSweep(
            fitted.loss,
            first,
            weights,
            float(fitted.parameters["volume"]),
            delta,
            pooled.n_pixels,
            # Fitting noise alone gains the more, the larger it is.
            float(fitted.parameters["tol"]) * draw.noise,
        )
        for first, draw in zip(starts, draws, strict=True)
    ]
    together = ReplicateSweep(tuple(sweeps), tuple(draws))
    states = run_sweep(together, pooled, seed=seed, max_rounds=MOST_PASSES).state
    found = [state.components if state.best is None else state.best for state, _ in states]
    return np.array([aligned(values, fitted.components, weights) for values in found])


def _starts(
    fitted: Fitted,
    source: BlockSource,
    pooled: BlockSource,
    labels: Labels,
    draws: list[Draw],
    seed: int,
) -> list[NDArray[np.float64]]:
    """Components that each replicate starts from: its own corners, where the model started from corners.

    A fit that stops early has much of its noise from its start, which a replicate must have, too.
    """
    assert fitted.parameters is not None
    init = fitted.parameters["init"]
    if not (isinstance(init, str) and init == "bins"):
        return [fitted.components] * len(draws)
    k = len(fitted.components)
    found = sketch(source, fitted.loss, k, seed)
    chance = min(1.0, POINTS / max(1, pooled.n_pixels))
    sketches = [found] * len(draws)
    if fitted.loss.counts:
        sweep = SubspaceSweep(found.vectors, found.scale, tuple(draws))
        vectors = run_sweep(sweep, pooled, seed=seed).state
        sketches = [replace(found, vectors=mine) for mine in vectors]
    samples = tuple(
        sample_sweep(one, fitted.loss, labels.nav_dims, fitted.pool, chance) for one in sketches
    )
    clouds = run_sweep(PointsSweep(samples, tuple(draws)), pooled, seed=seed).state
    # Corners are sought with random splits, which are another part of what differs between fits.
    seeds = np.random.SeedSequence((seed, 1)).generate_state(len(draws), np.uint32)
    with single_threaded_blas():
        found_corners = [
            corners_of(cloud, one, fitted.loss, int(own))
            for cloud, one, own in zip(clouds, sketches, seeds, strict=True)
        ]
        return [aligned(one, fitted.components, fitted.weights) for one in found_corners]


def _restarts(
    fitted: Fitted, cube: Any, where: Any, n: int, seed: int, facts: dict[str, Any]
) -> NDArray[np.float64]:
    """Components of fits from random starts that came to as good an end."""
    assert fitted.parameters is not None
    parameters = {**fitted.parameters, "init": "random", "n_epochs": "auto", "pool": fitted.pool}
    used = _selection(fitted, cube, where)
    seeds = np.random.SeedSequence((seed, n)).generate_state(n, np.uint32)
    models = [
        MiniBatchNMF(**{**parameters, "random_state": int(s)}).fit(cube, where=used) for s in seeds
    ]
    objectives = np.array([m.objective_ for m in models])
    as_good = objectives <= objectives.min() * (1.0 + EQUIVALENT)
    facts["restart_objectives"] = [float(value) for value in objectives]
    facts["n_equivalent"] = int(np.count_nonzero(as_good))
    # The others are other optima: their spread is no error bar of this one, and their number is told.
    kept = [m for m, good in zip(models, as_good, strict=True) if good]
    weights = fitted.weights
    found = [aligned(m._values, fitted.components, weights) for m in kept]
    return np.array(found if len(found) > 1 else [*found, fitted.components])


def _selection(fitted: Fitted, cube: Any, where: Any) -> Any:
    """The selection of a fit: pixels as given, channels as the model has used them."""
    labels = fitted.labels
    if isinstance(cube, Fields):
        pairs = zip(cube.cubes, selections(where, cube), strict=True)
        return [_selection(fitted, one, chosen) for one, chosen in pairs]
    if labels.plain or labels.channels is None:
        return where
    used = np.zeros(labels.n_all_channels, dtype=bool)
    used[labels.channels] = True
    over = xr.DataArray(used.reshape(labels.sig_shape), dims=labels.sig_dims)
    return over if where is None else where & over
