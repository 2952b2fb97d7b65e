"""Components with their intervals, and errors against counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.errors import InputError
from emcube.plot import style
from emcube.plot.spectra import Labels, Scale, draw_spectra

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["bands", "errors_by_counts"]


def bands(
    data: xr.Dataset,
    *,
    elements: Iterable[str] | None = None,
    labels: Labels | None = "xray",
    yscale: Scale = "sqrt",
    resolution: float = 130.0,
    beam_energy: float | None = None,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw component spectra with their intervals and with the range of all that is as good.

    Parameters
    ----------
    data : Dataset
        With ``components`` (K, E), ``components_interval`` (K, E, 2) and, where it is to be drawn,
        ``rotation_range`` (K, E, 2), the last dim ``bound``: `emcube.uncertainty` with the components beside.
    elements, labels, yscale, resolution, beam_energy
        As in `emcube.plot.components`.
    names : sequence of str, optional
        Of the components.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure
        The darker band is the interval, the lighter one the rotational range.

    Raises
    ------
    InputError
        A variable is missing, or the signal is no spectrum.
    """
    missing = [n for n in ("components", "components_interval") if n not in data]
    if missing or data["components"].ndim != 2:
        got = sorted(map(str, data)) if missing else tuple(data["components"].dims)
        raise InputError(
            f"bands: got {got}, expected components of one signal dim and their components_interval",
            hint="hand over em.uncertainty(model, cube).assign(components=model.components_)",
        )
    shown = data["components"].transpose("component", ...).compute()
    dim = str(shown.dims[1])
    titles = style.names_along(shown, "component", names)
    n = shown.sizes["component"]
    figure = style.new_figure((1.6 if n <= 4 else 1.3) * n + 0.6, title=title)
    grid = figure.subplots(n, 1, sharex=True, squeeze=False)
    looks = {"rotation_range": (0.14, "as good"), "components_interval": (0.4, "interval")}
    for k, axes in enumerate(grid.flat):
        one = shown.isel(component=k)
        draw_spectra(
            axes, one, elements=elements, labels=labels, yscale=yscale, resolution=resolution,
            beam_energy=beam_energy, room=((style.WIDTH - 0.9) * 72, 1.1 * 72), fill=False,
        )  # fmt: skip
        for line in axes.lines:
            line.set_color(style.color(k))
        top = _highest(one)
        for name, (alpha, label) in looks.items():
            if name in data:
                ends = data[name].isel(component=k).transpose(dim, "bound").compute()
                _fill(axes, ends, dim, style.color(k), alpha, label)
                top = max(top, _highest(ends))
        style.number_axis(axes, top=1.04 * top)
        axes.set_title(
            titles[k], fontsize=style.TEXT, loc="right", pad=2, color=style.color(k),
            fontweight="bold",
        )  # fmt: skip
        axes.set_ylabel("")
        if k < n - 1:
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)
    handles, texts = grid.flat[0].get_legend_handles_labels()
    wanted = [i for i, text in enumerate(texts) if not text.startswith("_")]
    figure.legend(
        [handles[i] for i in wanted], [_said(texts[i], data) for i in wanted], fontsize=style.SMALL,
        frameon=False, loc="outside lower center", ncols=2, handlelength=1.2,
    )  # fmt: skip
    figure.supylabel(style.value_label(shown) or "intensity", fontsize=style.TEXT)
    return figure


def _said(text: str, data: xr.Dataset) -> str:
    if text != "interval":
        return "range of all factorisations that are as good"
    level = data.attrs.get("level")
    return "interval" if level is None else f"{100 * float(level):g} % interval"


def _fill(axes: Axes, ends: xr.DataArray, dim: str, color: str, alpha: float, label: str) -> None:
    values = np.asarray(ends.values, dtype=np.float64)
    low, high = axes.get_ylim()
    axes.fill_between(
        style.positions(ends, dim),
        np.maximum(values[:, 0], low) if axes.get_yscale() == "log" else values[:, 0],
        values[:, 1],
        color=color,
        alpha=alpha,
        linewidth=0,
        label=label,
        zorder=1,
    )
    axes.set_ylim(low, max(high, 1.04 * _highest(ends)))


def _highest(values: xr.DataArray) -> float:
    """The largest value, or zero where there is none."""
    finite = values.values[np.isfinite(values.values)]
    return float(finite.max()) if finite.size else 0.0


def errors_by_counts(data: xr.Dataset, *, title: str | None = None) -> Figure:
    """Draw how the components' errors fall with counts.

    Parameters
    ----------
    data : Dataset
        Of `emcube.models.counting_errors.errors_by_counts`: ``angle`` and ``expected`` over (share,
        component), and
        ``counts`` over share.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure
        Points are what thinned data gave; the last, open one is extrapolated to all counts. Lines are what
        counting alone makes.

    Raises
    ------
    InputError
        A variable is missing.
    """
    missing = [n for n in ("angle", "expected", "counts") if n not in data]
    if missing:
        raise InputError(
            f"errors by counts: {', '.join(missing)} missing, got {sorted(map(str, data))}",
            hint="hand over what em.errors_by_counts(model, cube) gives",
        )
    found = data.transpose("share", ...).compute()
    counts = np.asarray(found["counts"].values, dtype=np.float64)
    order = np.argsort(counts)
    figure = style.new_figure(3.2, width=4.8, title=title)
    axes = figure.add_subplot()
    for k, name in enumerate(style.names_along(found["angle"], "component", None)):
        angle = np.asarray(found["angle"].isel(component=k).values)[order]
        expected = np.asarray(found["expected"].isel(component=k).values)[order]
        color = style.color(k)
        axes.plot(counts[order], expected, color=color, linewidth=0.9, alpha=0.7)
        axes.plot(counts[order][:-1], angle[:-1], "o", color=color, markersize=4.5, label=name)
        axes.plot(
            counts[order][-1:],
            angle[-1:],
            "o",
            color=color,
            markersize=4.5,
            markerfacecolor="white",
        )
    axes.plot([], [], color="0.4", linewidth=0.9, label="counting alone")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("counts")
    axes.set_ylabel("error of the component (°)")
    style.number_axis(axes)
    style.dress(axes, grid=True)
    axes.legend(fontsize=style.SMALL, frameon=False)
    return figure
