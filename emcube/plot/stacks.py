"""Many images of one map side by side: a montage of a tilt or time series."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import patheffects

from emcube.errors import InputError
from emcube.plot import style
from emcube.plot.frames import BAR, aspect, choose_frames, draw_bar, draw_image

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["montage"]


def montage(
    data: xr.DataArray,
    *,
    max_frames: int = 40,
    columns: int | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a series of images as a montage, on one scale.

    Parameters
    ----------
    data : DataArray of shape (..., y, x)
        Of three or four dims, such as one loading or one line over (tilt, y, x). The last two are the image.
    max_frames : int, default 40
        Most images shown, evenly spaced; the first and the last are among them.
    columns : int, optional
        Images in a row.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        If there are less than three or more than four dims, or `max_frames` or `columns` is less than one.
    """
    if data.ndim not in (3, 4):
        raise InputError(
            f"montage: got dims {tuple(data.dims)}, expected one or two and then an image's two",
            hint="select one component or line first: nmf['loadings'].isel(component=0)",
        )
    if max_frames < 1 or (columns is not None and columns < 1):
        raise InputError(
            f"montage: got max_frames {max_frames} and columns {columns}, expected numbers from 1 on",
            hint="leave columns= out, to have them chosen",
        )
    frames, captions = choose_frames(data, data.dims[:-2], max_frames)
    frames = frames.compute()
    n, shape = len(captions), aspect(frames.isel(frame=0))
    across = min(columns or _columns(n, shape), n)
    rows = -(-n // across)
    panel = min((style.WIDTH - BAR) / across, 2.2)
    figure = style.new_figure(
        rows * (panel * shape + 0.04) + 0.1, width=across * panel + BAR, title=title, images=True
    )
    figure.set_layout_engine("compressed", w_pad=0.015, h_pad=0.015)
    grid = figure.subplots(rows, across, squeeze=False)
    scale = style.map_scale(frames.values.astype(np.float64))
    drawn = None
    for i, axes in enumerate(grid.flat):
        if i >= n:
            axes.set_visible(False)
            continue
        drawn = draw_image(axes, frames.isel(frame=i), scale=scale, colorbar=False, bar=i == 0)
        axes.text(
            0.04, 0.95, _value(captions[i]), transform=axes.transAxes, ha="left", va="top", color="white",
            fontsize=style.SMALL - 1.0, zorder=6,
            path_effects=[patheffects.withStroke(linewidth=1.4, foreground="black")],
        )  # fmt: skip
    names = ", ".join(style.axis_label(data, dim) for dim in data.dims[:-2])
    label = style.value_label(frames)
    draw_bar(drawn, list(grid.flat)[:n], scale[2], label)
    figure.supxlabel(names, fontsize=style.TEXT)
    return figure


def _columns(n: int, shape: float) -> int:
    """Choose as many images in a row as make the whole about as wide as high by three to four."""
    wanted = np.sqrt(n * shape * 4 / 3)
    few, many = max(1, int(wanted * 0.75)), max(2, int(np.ceil(wanted * 1.25)))
    return min(
        range(few, many + 1), key=lambda c: (-(-n // c) * c - n) / n + abs(c - wanted) / wanted
    )


def _value(caption: str) -> str:
    """What varies from image to image: the values alone, the names stand under the figure."""
    return "\n".join(line.split(" = ", 1)[-1] for line in caption.splitlines())
