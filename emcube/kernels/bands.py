"""Bands of components: the least and the largest value of each channel among what is as good.

Letters: N mixings, K components, E channels, G groups of channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels.freedom import GROUPS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BELOW_ZERO", "component_bands", "grouped_channels"]

BELOW_ZERO = 3.0
"""Standard errors by which a group of channels may lie below zero. Of 64 groups that are truly empty one lies
beyond two errors by chance as a rule, and would cut the truth off; beyond three next to none does."""

MOST_DIMS = 5
"""Dims in which the corners of a polytope are listed; beyond them there are too many."""


def component_bands(
    turns: NDArray[np.float64], components: NDArray[np.float64], errors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and largest value of each channel between the extremes of the mixings.

    Extreme mixings T (see `extreme_turns`) say how much of component j component i may hold at the least
    and at the most. What is as good lies within this box and is not negative: a polytope for each
    component, whose corners hold the extremes of all channels. Not all of it need be as good at the same
    time: bands may be too wide, and are never too narrow for what lies between the extremes.

    Parameters
    ----------
    turns : ndarray, shape (N, K, K)
        Rows sum to one; one of them is the identity.
    components : ndarray, shape (K, E)
        Each sums to one.
    errors : ndarray, shape (K, E)
        Standard errors of their values.

    Returns
    -------
    low, high : ndarray, shape (K, E)
    """
    grouped, group_errors = grouped_channels(components, errors)
    low, high = np.maximum(components, 0.0), np.maximum(components, 0.0)
    for i in range(len(components)):
        bounds = np.stack((turns[:, i].min(axis=0), turns[:, i].max(axis=0)))
        free = [j for j in range(len(components)) if j != i and np.ptp(bounds[:, j]) > 1e-9]
        if not free:
            continue
        slopes = components[free] - components[i]
        # Errors of a mixture of components are those of its parts.
        most = np.square(np.abs(bounds).max(axis=0))
        corners = _corners(
            bounds[:, free],
            grouped[free] - grouped[i],
            grouped[i] + BELOW_ZERO * np.sqrt(most @ np.square(group_errors)),
        )
        if corners is None:
            ends = np.sort(bounds[:, free, None] * slopes, axis=0).sum(axis=1)
            ends = components[i] + ends
        else:
            values = components[i] + corners @ slopes
            ends = np.stack((values.min(axis=0), values.max(axis=0)))
        low[i] = np.minimum(low[i], np.maximum(ends[0], 0.0))
        high[i] = np.maximum(high[i], ends[1])
    return low, high


def grouped_channels(
    components: NDArray[np.float64], errors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums (K, G) over groups of neighbouring channels of about equal signal, and their errors."""
    # Corners far out have negative channels, which are no signal.
    signal = np.maximum(components.mean(axis=0), 0.0)
    group = np.floor(np.cumsum(signal) * GROUPS).astype(np.int64)
    grouped = np.array([np.bincount(group, row) for row in components])
    held = np.array([np.bincount(group, row * row) for row in errors])
    return grouped, np.sqrt(np.maximum(held, np.finfo(float).tiny))


def _corners(
    box: NDArray[np.float64], slopes: NDArray[np.float64], room: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Corners (n, d) of ``box[0] <= x <= box[1]``, ``x @ slopes >= -room``; None where they are too many."""
    d = box.shape[1]
    normals = np.concatenate((np.eye(d), -np.eye(d), -slopes.T))
    bounds = np.concatenate((box[1], -box[0], room))
    if d == 1:
        up, down = normals[:, 0] > 0.0, normals[:, 0] < 0.0
        ends = bounds[up] / normals[up, 0], bounds[down] / normals[down, 0]
        return np.array([[ends[0].min()], [ends[1].max()]])
    if d > MOST_DIMS:
        return None
    from scipy.optimize import linprog
    from scipy.spatial import HalfspaceIntersection, QhullError

    # In parts of the box's sides, which may be of any length; each half space by its unit normal.
    sides = box[1] - box[0]
    bounds = bounds - normals @ box[0]
    normals = normals * sides
    lengths = np.linalg.norm(normals, axis=1)
    kept = lengths > 1e-12
    normals, bounds = normals[kept] / lengths[kept, None], bounds[kept] / lengths[kept]
    # The centre of the largest ball inside.
    centre = linprog(
        np.append(np.zeros(d), -1.0),
        A_ub=np.column_stack((normals, np.ones(len(normals)))),
        b_ub=bounds,
        bounds=[(None, None)] * d + [(0.0, None)],
    )
    if centre.status != 0 or centre.x[-1] <= 0.0:
        return None
    try:
        found = HalfspaceIntersection(np.column_stack((normals, -bounds)), centre.x[:-1])
    except QhullError:
        # Flat to within rounding: the box alone, which is wider.
        return None
    corners = np.asarray(found.intersections, dtype=np.float64)
    return box[0] + corners[np.isfinite(corners).all(axis=1)] * sides
