"""How the errors of components fall with counts, from thinning the data at hand.

Letters: E used channels, K components.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.engine import resident, run_sweep
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.models.base import resolve_seed
from emcube.models.fields import several
from emcube.models.information import Fitted, InformationSweep, component_errors, fitted_of
from emcube.models.labels import as_source
from emcube.models.nmf_gain import in_counts
from emcube.models.rebuild import pixels_only
from emcube.models.refits import refitted
from emcube.models.replicates import Draw, ThinDraw
from emcube.models.uncertainties import refuse_variants

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["errors_by_counts"]


def errors_by_counts(
    model: Any,
    cube: Any,
    *,
    shares: tuple[float, ...] = (0.5, 0.25, 0.125, 0.0625),
    n_pairs: int = 4,
    where: Any = None,
    random_state: Any = 0,
) -> xr.Dataset:
    """Find how the components' errors fall with counts, by thinning the data at hand.

    At each share two independent parts of that share of the counts are fitted, each from the model's
    answer on; the
    angle between them over sqrt(2) is the error of one of them. Pure counting goes with one over the root
    of the counts; an error that stays has another cause, such as a start that decides or a missing component.

    Parameters
    ----------
    model : MiniBatchNMF
        Fitted on counts.
    cube : DataArray or matrix
        What it was fitted on; or several cubes, whose counts are thinned together.
    shares : tuple of float
        Of the counts, at most one half each.
    n_pairs : int
        Pairs of parts at each share.
    where, random_state
        As for `uncertainty`.

    Returns
    -------
    Dataset
        ``angle`` (share, component): root mean square error in degrees, weighted for counting noise;
        ``counts``
        (share): of one part. ``expected`` (share, component): by the Fisher information at that share,
        rotations left
        out. The last row is the whole: its ``angle`` is extrapolated with one over the root of the counts.

    Raises
    ------
    InputError
        The model is not of counts, or a share is not above zero and at most one half.
    """
    fields = several(cube)
    cube = cube if fields is None else fields
    fitted = fitted_of(model, cube)
    refuse_variants(model)
    if fitted.parameters is None or not fitted.loss.counts:
        raise InputError(
            "errors by counts need a MiniBatchNMF of counts (beta_loss='kullback-leibler')",
            hint="counts can be thinned, other values cannot",
        )
    if not shares or any(not 0.0 < share <= 0.5 for share in shares):
        raise InputError(
            f"shares must be above 0 and at most 0.5, got {shares}",
            hint="two independent parts of each share are needed",
        )
    given: Any = n_pairs
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 1:
        raise InputError(f"n_pairs must be a whole number from 1 on, got {n_pairs!r}")
    seed = resolve_seed(random_state)
    source, labels = as_source(cube, pixels_only(cube, where), channels=fitted.labels.channels)
    fitted.labels.require_same_signal(labels, "errors_by_counts")
    draws: list[Draw] = [
        ThinDraw(seed, 1000 * i + j, (share, share), part)
        for i, share in enumerate(shares)
        for j in range(n_pairs)
        for part in (0, 1)
    ]
    with resident():
        counted = in_counts(source, fitted.gain)
        values = refitted(fitted, counted, labels, draws, seed)
        found = run_sweep(
            InformationSweep(fitted.loss, fitted.components, fitted.totals), counted
        ).state
    with single_threaded_blas():
        _, _, variance = component_errors(fitted, found)
        return _by_counts(fitted, values, variance, shares, n_pairs)


def _by_counts(
    fitted: Fitted,
    values: NDArray[np.float64],
    variance: NDArray[np.float64],
    shares: tuple[float, ...],
    n_pairs: int,
) -> xr.Dataset:
    root = np.sqrt(fitted.weights)
    length = np.linalg.norm(fitted.components * root, axis=1)
    k = len(fitted.components)
    pairs = (values * root).reshape(len(shares), n_pairs, 2, k, -1)
    pairs = pairs / np.linalg.norm(pairs, axis=-1, keepdims=True)
    apart = np.linalg.norm(pairs[:, :, 0] - pairs[:, :, 1], axis=-1)
    together = np.linalg.norm(pairs[:, :, 0] + pairs[:, :, 1], axis=-1)
    angles = np.rad2deg(2.0 * np.arctan2(apart, together)) / math.sqrt(2.0)
    each = np.sqrt(np.square(angles).mean(axis=1))
    whole = np.rad2deg(np.sqrt((variance * fitted.weights).sum(axis=1)) / length)
    at = np.array([*shares, 1.0])
    expected = whole / np.sqrt(at)[:, None]
    # Of the largest share, which is nearest.
    last = each[int(np.argmax(shares))] * math.sqrt(max(shares))
    total = float(fitted.totals.sum())
    return xr.Dataset(
        {
            "angle": (("share", "component"), np.vstack((each, last)), {"units": "deg"}),
            "expected": (("share", "component"), expected, {"units": "deg"}),
            "counts": (("share",), at * total, {"units": "counts"}),
        },
        coords={"share": at, "component": np.arange(k)},
        attrs={"n_pairs": n_pairs},
    )
