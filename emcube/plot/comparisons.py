"""Components of several methods, one over the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from emcube.errors import InputError
from emcube.plot import style
from emcube.plot.spectra import Labels, Scale, draw_spectra

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure

__all__ = ["compared"]


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
    """Draw matched spectra of several methods: a panel a component, a curve a method.

    Parameters
    ----------
    data : DataArray (model, component, E)
        NaN where a method has no such component. Each curve is divided by the sum of its sizes, so that
        methods with other norms compare.
    table : Dataset, optional
        ``angle`` (model, component), which is written beside each panel.
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
    figure = style.new_figure((1.7 if n <= 4 else 1.4) * n + 0.4, title=title)
    grid = figure.subplots(n, 1, sharex=True, squeeze=False)
    for k, axes in enumerate(grid.flat):
        one = shares.isel(component=k).drop_vars("component", errors="ignore")
        there = one.notnull().any(str(data.dims[2]))
        draw_spectra(
            axes, one.isel(model=np.flatnonzero(there.values)), elements=elements, labels=labels,
            yscale=yscale, resolution=resolution, beam_energy=beam_energy,
            room=((style.WIDTH - 0.9) * 72, 1.1 * 72), fill=False,
        )  # fmt: skip
        axes.set_title(_said(table, k), fontsize=style.SMALL, loc="left", pad=3)
        axes.set_ylabel("")
        if k < n - 1:
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)
    figure.supylabel(style.value_label(shares) or "share per channel", fontsize=style.TEXT)
    return figure


def _said(table: xr.Dataset | None, k: int) -> str:
    text = f"component {k}"
    if table is None:
        return text
    angles = table["angle"].isel(component=k).values[1:]
    told = ", ".join("none" if np.isnan(a) else f"{a:.1f}°" for a in angles)
    return f"{text}: {told} off the first"
