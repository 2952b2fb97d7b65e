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
    title: str | None = None,
) -> Figure:
    """Draw what each method looks at, and beside it the number that each names.

    Parameters
    ----------
    data : Dataset
        ``singular_value`` with ``threshold`` and ``optimal_threshold``, ``indicator`` (component); ``gain``,
        ``gain_error``, ``worst_angle``, ``consensus`` (n).
    numbers : mapping of str to int or None
        By method.
    n_components : int, optional
        The recommendation, drawn as a line.
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
    needed = ("singular_value", "indicator", "gain", "worst_angle", "consensus")
    missing = [n for n in needed if n not in data]
    if missing:
        raise InputError(
            f"component survey: {', '.join(missing)} missing, got {sorted(map(str, data))}",
            hint="hand over em.survey_n_components(cube).table",
        )
    figure = style.new_figure(5.0, title=title)
    scree, bend, votes, gain, angle, again = figure.subplots(2, 3).flat
    _scree(scree, data)
    _indicator(bend, data)
    _gain(gain, data)
    _angle(angle, data)
    _consensus(again, data)
    _votes(votes, numbers, n_components)
    for axes in (scree, bend, gain, angle, again):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel("components")
        style.dress(axes, grid=True)
        if n_components is not None and axes.has_data() and axes.get_yticks().size:
            axes.axvline(n_components + 0.5, color="0.4", linewidth=0.8, linestyle=":")
    return figure


def _scree(axes: Axes, data: xr.Dataset) -> None:
    values = data["singular_value"].values.astype(np.float64)[:20]
    kept = values > 0
    x = np.arange(1, values.size + 1)
    axes.plot(x[kept], values[kept], "o-", color=style.color(0), markersize=3.5, linewidth=0.8)
    if kept.any():
        axes.set_yscale("log")
    for name, line, color in (("threshold", "--", 1), ("optimal_threshold", "-.", 5)):
        level = float(data[name]) if name in data else float("nan")
        if level > 0:
            word = "edge of noise" if name == "threshold" else "Gavish and Donoho"
            axes.axhline(level, color=style.color(color), linestyle=line, linewidth=1.0, label=word)
    if not kept.any():
        _nothing(axes)
    elif axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=style.SMALL, loc="upper right")
    _head(axes, "singular values")


def _indicator(axes: Axes, data: xr.Dataset) -> None:
    values = data["indicator"].values.astype(np.float64)[:20]
    x = np.arange(1, values.size + 1)
    kept = np.isfinite(values) & (values > 0)
    axes.plot(x[kept], values[kept], "o-", color=style.color(4), markersize=3.5, linewidth=0.8)
    if kept.any():
        axes.set_yscale("log")
        least = int(np.argmin(np.where(kept, values, np.inf)))
        axes.plot([x[least]], [values[least]], "o", color=style.color(1), markersize=5)
    else:
        _nothing(axes)
    _head(axes, "Malinowski's indicator")


def _gain(axes: Axes, data: xr.Dataset) -> None:
    gain, error = data["gain"].values, data["gain_error"].values
    scale = np.where(error > 0, error, np.nan)
    axes.plot(data["n"], gain / scale, "o-", color=style.color(3), markersize=4, linewidth=1)
    axes.axhline(3.0, color=style.color(1), linestyle="--", linewidth=1.0)
    axes.set_yscale("symlog", linthresh=10.0)
    _head(axes, "held-out gain (std. errors)")


def _angle(axes: Axes, data: xr.Dataset) -> None:
    axes.plot(data["n"], data["worst_angle"], "o-", color=style.color(2), markersize=4, linewidth=1)
    axes.axhline(20.0, color=style.color(1), linestyle="--", linewidth=1.0)
    axes.set_ylim(bottom=0)
    _head(axes, "angle between halves (°)")


def _consensus(axes: Axes, data: xr.Dataset) -> None:
    axes.plot(data["n"], data["consensus"], "o-", color=style.color(8), markersize=4, linewidth=1)
    axes.axhline(0.9, color=style.color(1), linestyle="--", linewidth=1.0)
    axes.set_ylim(0, 1.05)
    _head(axes, "restarts: found again")


def _head(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=style.TEXT, loc="left")


def _nothing(axes: Axes) -> None:
    axes.text(
        0.5, 0.5, "no number", transform=axes.transAxes, ha="center", color="0.4",
        fontsize=style.TEXT,
    )  # fmt: skip
    axes.set_yticks([])
    axes.set_xlim(0.5, 1.5)


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
    _head(axes, f"recommended: {said}")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    style.dress(axes)
    axes.tick_params(axis="y", length=0)
