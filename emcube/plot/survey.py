"""How many components, by several methods, in one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from emcube.errors import InputError
from emcube.plot import style

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["component_survey"]


def component_survey(
    data: xr.Dataset,
    numbers: Mapping[str, int | None],
    *,
    n_components: int | None = None,
    threshold: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw singular values, held-out gains and stability, and beside them the number of each method.

    Parameters
    ----------
    data : Dataset
        ``singular_value`` (component); ``gain``, ``gain_error``, ``worst_angle`` (n).
    numbers : mapping of str to int or None
        By method.
    n_components : int, optional
        The recommendation, drawn as a line.
    threshold : float, optional
        Of the singular values.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        A variable is missing.
    """
    missing = [n for n in ("singular_value", "gain", "worst_angle") if n not in data]
    if missing:
        raise InputError(
            f"component survey: {', '.join(missing)} missing, got {sorted(map(str, data))}",
            hint="hand over em.survey_n_components(cube).table",
        )
    figure = style.new_figure(4.9, title=title)
    scree, gain, angle, votes = figure.subplots(2, 2).flat
    _scree(scree, data, threshold)
    _gain(gain, data)
    angle.plot(
        data["n"], data["worst_angle"], "o-", color=style.color(2), markersize=4, linewidth=1
    )
    angle.set_title("largest angle between halves (°)", fontsize=style.TEXT, loc="left")
    angle.set_ylim(bottom=0)
    _votes(votes, numbers, n_components)
    for axes in (scree, gain, angle):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.set_xlabel("components")
        style.dress(axes, grid=True)
        if n_components is not None:
            axes.axvline(n_components + 0.5, color="0.4", linewidth=0.8, linestyle=":")
    return figure


def _scree(axes: Axes, data: xr.Dataset, threshold: float | None) -> None:
    values = data["singular_value"].values.astype(np.float64)[:20]
    kept = values > 0
    x = np.arange(1, values.size + 1)
    axes.plot(x[kept], values[kept], "o-", color=style.color(0), markersize=3.5, linewidth=0.8)
    axes.set_yscale("log")
    if threshold is not None and threshold > 0:
        axes.axhline(threshold, color=style.color(1), linestyle="--", linewidth=1.0)
    axes.set_title("singular values, edge of noise dashed", fontsize=style.TEXT, loc="left")


def _gain(axes: Axes, data: xr.Dataset) -> None:
    gain, error = data["gain"].values, data["gain_error"].values
    scale = np.where(error > 0, error, np.nan)
    axes.plot(data["n"], gain / scale, "o-", color=style.color(3), markersize=4, linewidth=1)
    axes.axhline(3.0, color=style.color(1), linestyle="--", linewidth=1.0)
    axes.set_yscale("symlog", linthresh=10.0)
    axes.set_title("held-out gain of the last (std. errors)", fontsize=style.TEXT, loc="left")


def _votes(axes: Axes, numbers: Mapping[str, int | None], n_components: int | None) -> None:
    names = list(numbers)[::-1]
    most = max([v for v in numbers.values() if v is not None] + [n_components or 1])
    for y, name in enumerate(names):
        value = numbers[name]
        if value is None:
            axes.text(0.1, y, "no number", fontsize=style.SMALL, va="center", color="0.4")
        else:
            axes.plot([0, value], [y, y], color="0.8", linewidth=1.0, zorder=1)
            axes.plot([value], [y], "o", color=style.color(0), markersize=5)
            axes.text(value + 0.03 * most + 0.1, y, str(value), fontsize=style.SMALL, va="center")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, most * 1.15 + 0.5)
    axes.set_ylim(-0.6, len(names) - 0.4)
    if n_components is not None:
        axes.axvline(n_components, color="0.4", linewidth=0.8, linestyle=":")
    said = "refused" if n_components is None else str(n_components)
    axes.set_title(f"number by method; recommended: {said}", fontsize=style.TEXT, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    style.dress(axes)
    axes.tick_params(axis="y", length=0)
