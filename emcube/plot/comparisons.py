"""Components of several methods, one over the other, and their maps, one beside the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError
from emcube.plot import style
from emcube.plot.frames import draw_image
from emcube.plot.spectra import Labels, Scale, draw_spectra

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["compared", "compared_maps"]

REFERENCE = "0.45"
"""Grey of the first method, which the others lie over."""


def compared(
    data: xr.DataArray,
    table: xr.Dataset | None = None,
    *,
    elements: Iterable[str] | None = None,
    labels: Labels | None = "xray",
    yscale: Scale = "sqrt",
    resolution: float = 130.0,
    beam_energy: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw matched spectra of several methods: a panel a component, a curve a method, the first as an area.

    Parameters
    ----------
    data : DataArray (model, component, E)
        NaN where a method has no such component. Each curve is divided by the sum of its sizes, so that
        methods with other norms compare.
    table : Dataset, optional
        ``angle`` (model, component), which is written over each panel.
    elements, labels, yscale, resolution, beam_energy
        As in `emcube.plot.components`.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        If the dims are not those above.
    """
    if data.ndim != 3 or data.dims[:2] != ("model", "component"):
        raise InputError(
            f"compared: got dims {tuple(data.dims)}, expected model, component and one signal dim",
            hint="hand over em.compare(...).components of spectra",
        )
    data = data.compute()
    size = abs(data).sum(str(data.dims[2]))
    shares = (data / size.where(size > 0)).assign_attrs(units="1 per channel")
    n = data.sizes["component"]
    names = style.names_along(shares, "model", None)
    height = 1.9 if n <= 4 else 1.6
    figure = style.new_figure(height * n + 0.6, title=title)
    grid = figure.subplots(n, 1, sharex=True, squeeze=False)
    for k, axes in enumerate(grid.flat):
        one = shares.isel(component=k).drop_vars("component", errors="ignore")
        there = np.flatnonzero(one.notnull().any(str(data.dims[2])).values)
        draw_spectra(
            axes, one.isel(model=there), elements=elements, labels=labels,
            yscale=yscale, resolution=resolution, beam_energy=beam_energy,
            room=((style.WIDTH - 0.9) * 72, (height - 0.45) * 72), fill=False,
        )  # fmt: skip
        _color_by_method(axes, there)
        axes.set_title(_said(table, names, k), fontsize=style.SMALL, loc="left", pad=3)
        axes.set_ylabel("")
        if k < n - 1:
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)
    _one_legend(figure, names)
    figure.supylabel(style.value_label(shares) or "share per channel", fontsize=style.TEXT)
    return figure


def _color_by_method(axes: Axes, there: np.ndarray[Any, Any]) -> None:
    """Give each curve the colour of its method, whichever methods a panel has; the first becomes an area."""
    legend = axes.get_legend()
    if legend is not None:
        legend.remove()
    curves = [line for line in axes.lines if len(np.atleast_1d(line.get_xdata())) > 2]
    for curve, method in zip(curves, there, strict=False):
        if method:
            curve.set_color(style.color(int(method) - 1))
            continue
        x, y = (np.asarray(values, dtype=np.float64) for values in curve.get_data())
        curve.set(color=REFERENCE, linewidth=0.6)
        floor = axes.get_ylim()[0] if axes.get_yscale() == "log" else 0.0
        axes.fill_between(x, floor, y, color=REFERENCE, alpha=0.3, linewidth=0, zorder=0)


def _one_legend(figure: Figure, names: list[str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=REFERENCE, alpha=0.5, label=names[0])]
    handles += [
        Line2D([], [], color=style.color(i), linewidth=1.2, label=name)
        for i, name in enumerate(names[1:])
    ]
    figure.legend(
        handles=handles, fontsize=style.SMALL, frameon=False, loc="outside lower center",
        ncols=min(len(names), 6), handlelength=1.4,
    )  # fmt: skip


def _said(table: xr.Dataset | None, names: list[str], k: int) -> str:
    text = f"component {k}"
    if table is None:
        return text
    angles = table["angle"].isel(component=k).values[1:]
    told = ", ".join(
        f"{name} {'none' if np.isnan(a) else f'{a:.1f}°'}"
        for name, a in zip(names[1:], angles, strict=True)
    )
    return f"{text}, off {names[0]}: {told}"


def compared_maps(loadings: Mapping[str, xr.DataArray], *, title: str | None = None) -> Figure:
    """Draw matched maps of several methods: a row a method, a column a component.

    Parameters
    ----------
    loadings : mapping of str to DataArray (..., component)
        Names to maps over two navigation dims or more; of more than two the mean over the first ones is
        drawn. NaN where a method has no such component.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure
        Maps of a component have one scale, as far as they are not negative; those with signs have their
        own.

    Raises
    ------
    InputError
        There are no maps, or their dims are not those above.
    """
    bad = [tuple(m.dims) for m in loadings.values() if m.ndim < 3 or m.dims[-1] != "component"]
    if not loadings or bad:
        raise InputError(
            f"compared maps: got {f'dims {bad[0]}' if bad else 'none'}, expected two navigation dims or "
            "more, and component",
            hint="hand over em.compare(...).loadings of images",
        )
    images = {name: _images(one) for name, one in loadings.items()}
    n = max(one.sizes["component"] for one in images.values())
    first = next(iter(images.values()))
    panel = (style.WIDTH - 0.3) / n
    high = min(panel * first.shape[0] / first.shape[1] + 0.15, 2.2)
    figure = style.new_figure(high * len(images) + 0.3, title=title, images=True)
    grid = figure.subplots(len(images), n, squeeze=False)
    for k in range(n):
        shared = [one.isel(component=k) for one in images.values() if not _signed(one)]
        scale = style.map_scale(
            np.concatenate([np.zeros(1), *(one.values.ravel() for one in shared)])
        )
        for row, (name, one) in enumerate(images.items()):
            axes = grid[row, k]
            if row == 0:
                axes.set_title(f"component {k}", fontsize=style.TEXT)
            if k == 0:
                axes.set_ylabel(style.plain(name), fontsize=style.TEXT)
            found = one.isel(component=k)
            if not np.isfinite(found.values).any():
                axes.set(xticks=[], yticks=[])
                axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
                continue
            own = None if _signed(one) else scale
            draw_image(axes, found, scale=own, colorbar=False, bar=row == 0 and k == 0)
            axes.set_xlabel("")
            axes.set_ylabel(style.plain(name) if k == 0 else "", fontsize=style.TEXT)
            axes.set(xticks=[], yticks=[])
    return figure


def _images(maps: xr.DataArray) -> xr.DataArray:
    """The last two navigation dims, and components."""
    return maps.mean(maps.dims[:-3], keep_attrs=True).compute()


def _signed(maps: xr.DataArray) -> bool:
    finite = maps.values[np.isfinite(maps.values)]
    return bool(finite.size and finite.min() < -1e-9 * np.abs(finite).max())
