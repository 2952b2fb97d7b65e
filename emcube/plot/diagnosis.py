"""What a model leaves, and what denoising does to variances, in one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.errors import InputError
from emcube.plot import style
from emcube.plot.frames import draw_image
from emcube.xray import pretty_line

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["diagnostics"]

FEWEST_CELLS = 30
"""Cells of a level from which it is drawn."""


def diagnostics(data: xr.Dataset, *, title: str | None = None) -> Figure:
    """Draw chi-square, the correlation of residuals, and variance against mean after denoising.

    Parameters
    ----------
    data : Dataset
        Of `emcube.diagnostics`. Of maps with more than two dims the mean over the first ones is drawn. What
        several cubes have in common has no map.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        Variables are missing.
    """
    missing = [n for n in ("residual_correlation", "axis") if n not in data.variables]
    if missing:
        raise InputError(
            f"diagnostics: {', '.join(missing)} missing, got {sorted(map(str, data.variables))}",
            hint="hand over what em.diagnostics(model, cube) gives",
        )
    first: list[tuple[str, Callable[[Axes, xr.Dataset], None]]] = [
        ("chi_square", _chi),
        ("residual_correlation", _correlations),
        ("denoised_variance", _variances),
    ]
    draw = [(name, one) for name, one in first if name in data]
    lines = "line_bias" in data
    figure = style.new_figure(5.2 if lines else 2.7, title=title)
    grid = figure.add_gridspec(2 if lines else 1, len(draw))
    for column, (_, one) in enumerate(draw):
        one(figure.add_subplot(grid[0, column]), data)
    if lines:
        _line_bias(figure.add_subplot(grid[1, :]), data)
    return figure


def _chi(axes: Axes, data: xr.Dataset) -> None:
    chi = data["chi_square"]
    if chi.ndim > 2:
        chi = chi.mean(chi.dims[:-2])
    chi = chi.compute()
    axes.set_title("chi-square", fontsize=style.TEXT, loc="left")
    if chi.ndim == 2:
        values = chi.values.astype(np.float64)
        draw_image(axes, chi, scale=style.ratio_scale(values), colorbar_label="")
        return
    axes.plot(np.arange(chi.size), chi.values.ravel(), linewidth=0.8, color=style.color(0))
    axes.axhline(1.0, color="0.4", linewidth=0.8, linestyle="--")
    axes.set_xlabel("pixel")
    style.dress(axes)


def _correlations(axes: Axes, data: xr.Dataset) -> None:
    lags = data["lag"].values
    for k, name in enumerate(data["axis"].values):
        values = data["residual_correlation"].isel(axis=k).values
        error = data["residual_correlation_error"].isel(axis=k).values
        if not np.isfinite(values).any():
            continue
        axes.errorbar(
            lags + 0.06 * k, values, yerr=2 * error, fmt="o-", markersize=3.5, linewidth=0.9,
            color=style.color(k), label="channels" if name == "signal" else style.plain(name),
        )  # fmt: skip
    axes.axhline(0.0, color="0.4", linewidth=0.8, linestyle="--")
    axes.set_xlabel("neighbours apart")
    axes.set_title("correlation of what is left", fontsize=style.TEXT, loc="left")
    axes.set_xticks(lags)
    style.dress(axes, grid=True)
    axes.legend(fontsize=style.SMALL, frameon=False)


def _line_bias(axes: Axes, data: xr.Dataset) -> None:
    """Bias of lines: a group of points for each line, a colour for each component."""
    bias = 100.0 * data["line_bias"].transpose("component", "line").values
    error = 100.0 * data["line_bias_error"].transpose("component", "line").values
    n, n_lines = bias.shape
    names = data["line"].values if "line" in data.coords else np.arange(n_lines)
    at = np.arange(n_lines)
    for k in range(n):
        axes.errorbar(
            at + 0.5 * ((k + 0.5) / n - 0.5), bias[k], yerr=2 * error[k], fmt="o", markersize=3.5,
            linewidth=0.9, color=style.color(k), label=f"component {k}",
        )  # fmt: skip
    axes.axhline(0.0, color="0.4", linewidth=0.8, linestyle="--")
    axes.set_xticks(at, [style.plain(pretty_line(str(name))) for name in names])
    axes.set_xlim(-0.5, n_lines - 0.5)
    axes.set_ylabel("too many counts (%)")
    axes.set_title(
        "lines after denoising, and two standard errors", fontsize=style.TEXT, loc="left"
    )
    style.dress(axes, grid=True)
    axes.legend(
        fontsize=style.SMALL, frameon=False, ncols=min(n, 6), loc="upper center",
        bbox_to_anchor=(0.5, -0.13), borderaxespad=0.1,
    )  # fmt: skip


def _variances(axes: Axes, data: xr.Dataset) -> None:
    mean = data["raw_mean"].values
    order = np.argsort(mean)
    # The variance of a few cells says nothing.
    enough = (mean > 0) & (data["n_cells"].values >= FEWEST_CELLS)
    order = order[enough[order]]
    x = mean[order]
    axes.plot(x, x, color="0.4", linewidth=0.9, linestyle="--", label="counts")
    axes.plot(
        x,
        data["theory_variance"].values[order],
        color=style.color(1),
        linewidth=1.0,
        label="theory",
    )
    axes.plot(
        x, data["denoised_variance"].values[order], "o", color=style.color(0), markersize=3.5,
        label="denoised",
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("mean counts")
    axes.set_title("variance after denoising", fontsize=style.TEXT, loc="left")
    style.dress(axes, grid=True)
    axes.legend(fontsize=style.SMALL, frameon=False)
