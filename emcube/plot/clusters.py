"""How good clusters are, as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.errors import InputError
from emcube.plot import style

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["cluster_quality"]

FOUND_AGAIN, DISSOLVED = 0.85, 0.6
"""Jaccard index above which a cluster is stable, and below which it is not (Hennig 2007)."""


def cluster_quality(
    data: xr.Dataset, *, names: Sequence[str] | None = None, title: str | None = None
) -> Figure:
    """Draw how well clusters are separated and how stable they are, as `emcube.cluster_quality` says.

    Parameters
    ----------
    data : Dataset (cluster)
        ``silhouette`` with ``silhouette_error``, ``stability`` with ``stability_least``.
    names : sequence of str, optional
        Of the clusters.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure
        Two panels of bars in the colours of the clusters: silhouettes with their standard errors, and Jaccard
        indices, down to the smallest one of all repeats, with the levels for stable and dissolved clusters.

    Raises
    ------
    InputError
        If a variable is missing.

    References
    ----------
    C. Hennig, Comput. Stat. Data Anal. 52 (2007) 258. https://doi.org/10.1016/j.csda.2006.11.025
    """
    needed = ("silhouette", "silhouette_error", "stability", "stability_least")
    missing = [name for name in needed if name not in data]
    if missing:
        raise InputError(
            f"cluster_quality: got a Dataset of {sorted(map(str, data.data_vars))}, {missing[0]!r} is "
            "missing",
            hint="hand over what emcube.cluster_quality gives",
        )
    data = data.compute()
    n = data.sizes["cluster"]
    figure = style.new_figure(0.34 * n + 1.1, width=6.4, title=title)
    left, right = figure.subplots(1, 2, sharey=True)
    silhouettes = np.asarray(data["silhouette"].values, dtype=np.float64)
    errors = np.asarray(data["silhouette_error"].values, dtype=np.float64)
    _bars(left, silhouettes, errors, errors)
    left.axvline(0.0, color="0.3", linewidth=0.8)
    left.set_xlim(min(-0.1, float(np.nan_to_num(silhouettes - errors).min()) - 0.05), 1.0)
    left.set_xlabel("silhouette")
    left.set_yticks(np.arange(n), style.names_along(data["silhouette"], "cluster", names))
    left.invert_yaxis()
    stability = np.asarray(data["stability"].values, dtype=np.float64)
    least = np.asarray(data["stability_least"].values, dtype=np.float64)
    _bars(right, stability, stability - least, np.zeros(n))
    right.set_xlim(0.0, 1.0)
    right.set_xlabel("stability (Jaccard index)")
    for level, word, side in (
        (FOUND_AGAIN, "stable", "left"),
        (DISSOLVED, "not found again", "right"),
    ):
        right.axvline(level, color="0.3", linewidth=0.8, linestyle="--")
        right.annotate(
            word, (level, 1.0), xycoords=("data", "axes fraction"), fontsize=style.SMALL,
            ha=side, va="bottom", xytext=(3 if side == "left" else -3, 2),
            textcoords="offset points",
        )  # fmt: skip
    for axes in (left, right):
        style.dress(axes)
        axes.tick_params(axis="y", length=0)
    return figure


def _bars(axes: Axes, values: np.ndarray, below: np.ndarray, above: np.ndarray) -> None:
    n = len(values)
    axes.barh(
        np.arange(n), np.nan_to_num(values), height=0.7, color=[style.color(k) for k in range(n)]
    )
    axes.errorbar(
        values, np.arange(n), xerr=np.stack([below, above]), fmt="none", ecolor="0.2",
        elinewidth=1.0, capsize=2.0,
    )  # fmt: skip
