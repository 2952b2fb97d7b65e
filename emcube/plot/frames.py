"""Maps and images: loadings, line maps, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import xarray as xr
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from emcube.errors import InputError
from emcube.plot import style
from emcube.units import pretty
from emcube.xray import pretty_line

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# How values become colours: range, colour map, and where the colour bar goes on.
Scaling: TypeAlias = "tuple[Normalize, Colormap, str]"

__all__ = ["image", "label_map", "line_maps", "maps"]

MAX_PANEL = 3.4  # inches: a single small map is not blown up to the width of a page
BAR = 0.75  # inches that a colour bar with its numbers takes


def maps(
    data: xr.DataArray,
    *,
    by: str = "component",
    names: Sequence[str] | None = None,
    share_scale: bool = False,
    max_frames: int = 5,
    title: str | None = None,
) -> Figure:
    """Draw loading maps, a panel for each component.

    Parameters
    ----------
    data : DataArray of shape (..., K)
        Over one to four navigation dims and `by`. One dim is drawn as curves, two as images. Of three and
        four the last two are an image and a few positions of the others are shown, evenly spaced, with a
        row for each component.
    by : str, default "component"
        The dim to be shown as panels.
    names : sequence of str, optional
        Titles of the panels.
    share_scale : bool, default False
        One colour scale for all components, to compare their amounts; else each has its own, to see its
        shape. Frames of one component always share theirs.
    max_frames : int, default 5
        Most positions shown along the other navigation dims.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        If `by` is no dim of the data, or too few or too many dims are left.
    """
    return _maps(data, by, names, share_scale, max_frames, title, signed=True)


def line_maps(
    data: xr.DataArray,
    *,
    by: str = "line",
    names: Sequence[str] | None = None,
    share_scale: bool = False,
    max_frames: int = 5,
    title: str | None = None,
) -> Figure:
    """Draw maps of X-ray lines as ``cube.em.lines([...])`` gives them.

    Parameters
    ----------
    data : DataArray of shape (..., lines)
        Over one to four navigation dims and `by`, whose coordinate names the lines (``"Si_Ka"``).
    by, names, share_scale, max_frames, title
        As in `maps`.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        If `by` is no dim of the data, or too few or too many dims are left.
    """
    style.need_dims(data, by, "line_maps")
    if names is None and by in data.coords:
        names = [pretty_line(str(name)) for name in data.coords[by].values]
    return _maps(data, by, names, share_scale, max_frames, title, signed=False)


def label_map(
    labels: xr.DataArray,
    *,
    names: Sequence[str] | None = None,
    max_frames: int = 5,
    title: str | None = None,
) -> Figure:
    """Draw which cluster each pixel belongs to, with a legend.

    Parameters
    ----------
    labels : DataArray of int
        Over one to four navigation dims; negative where a pixel belongs to none, which stays transparent.
    names : sequence of str, optional
        Of the clusters 0, 1, ...
    max_frames : int, default 5
        Most positions shown along all but the last two dims.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        If there are no or too many dims, or fewer names than clusters.
    """
    if not 1 <= labels.ndim <= 4:
        raise InputError(
            f"label_map: got dims {tuple(labels.dims)}, expected one to four navigation dims",
            hint="select the others first",
        )
    captions = [""]
    if labels.ndim == 1:
        # A line scan: a strip, high enough to be seen.
        frames = labels.compute().expand_dims({"frame": 1, "_strip": 2})
    elif labels.ndim == 2:
        frames = labels.compute().expand_dims("frame")
    else:
        frames, captions = choose_frames(labels, labels.dims[:-2], max_frames)
        frames = frames.compute()
    values = np.asarray(frames.values)
    found = np.unique(values[values >= 0]).astype(int)
    if names is not None and found.size and len(names) <= found.max():
        raise InputError(
            f"names of clusters: got {len(names)}, expected {found.max() + 1}",
            hint="give one name for each cluster, or none at all",
        )
    n = frames.sizes["frame"]
    rows, columns = (1, n) if n <= 5 else grid_shape(n)
    panel = min((style.WIDTH - 1.3) / columns, MAX_PANEL)
    shape = 0.12 if labels.ndim == 1 else aspect(frames.isel(frame=0))
    figure = style.new_figure(
        max(rows * (panel * shape + 0.3) + 0.15, 0.19 * len(found) + 0.3, 1.0),
        width=columns * panel + 1.3,
        title=title,
        images=labels.ndim > 1,
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    colors = style.category_map(range(int(found.max()) + 1 if found.size else 1))
    for i, axes in enumerate(grid.flat):
        if i >= n:
            axes.set_visible(False)
            continue
        _draw_labels(axes, frames.isel(frame=i), colors, strip=labels.ndim == 1)
        axes.set_title(captions[i], fontsize=style.TEXT)
    total = max(int((values >= 0).sum()), 1)
    handles = [
        Patch(
            facecolor=style.color(k),
            label=f"{style.plain(names[k]) if names is not None else f'cluster {k}'} "
            f"({100 * int((values == k).sum()) / total:.0f} %)",
        )
        for k in found.tolist()
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside right center", fontsize=style.SMALL, frameon=False,
            handlelength=1.0, handleheight=1.0,
        )  # fmt: skip
    return figure


def image(data: xr.DataArray, *, title: str | None = None) -> Figure:
    """Draw an image with a scale bar and a colour bar.

    Parameters
    ----------
    data : DataArray of shape (y, x)
        Its coordinates carry the units of the scale bar.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        If there are not two dims.
    """
    if data.ndim != 2:
        raise InputError(
            f"image: got dims {tuple(data.dims)}, expected two",
            hint="select or sum the other dims first, or draw them with emcube.plot.maps",
        )
    data = data.compute()
    panel = 4.2
    figure = style.new_figure(
        panel * aspect(data) + 0.1, width=panel + BAR, title=title, images=True
    )
    draw_image(figure.add_subplot(), data, colorbar_label=style.value_label(data))
    return figure


# --- shared with the other figures --------------------------------------------------------------


def draw_image(
    axes: Axes,
    data: xr.DataArray,
    *,
    scale: Scaling | None = None,
    norm: Normalize | None = None,
    colorbar: bool = True,
    colorbar_label: str = "",
    bar: bool = True,
) -> Any:
    """Draw a computed array of two dims, with scale bar or axes as its coordinates allow."""
    values = np.asarray(data.values, dtype=np.float64)
    norm_, colors, extend = scale if scale is not None else style.map_scale(values)
    if norm is not None:
        norm_, colors, extend = norm, style.colormap("magma"), "neither"
    drawn = axes.imshow(
        values, norm=norm_, cmap=colors, extent=extent(data), interpolation="nearest", origin="upper",
        aspect="equal" if square(data) else "auto",
    )  # fmt: skip
    annotate(axes, data, bar=bar)
    if colorbar:
        draw_bar(drawn, [axes], extend, colorbar_label)
    return drawn


def draw_bar(
    drawn: Any, axes: Sequence[Axes], extend: str, label: str, *, below: bool = False
) -> None:
    """Draw the colour bar of images.

    Of one image it is as high as that is drawn (`below` it: as wide), whatever the layout makes of it; of
    several it stands beside them all.
    """
    if len(axes) == 1:
        place = axes[0].inset_axes((0.0, -0.1, 1.0, 0.05) if below else (1.03, 0.0, 0.04, 1.0))
        bar = axes[0].figure.colorbar(
            drawn, cax=place, extend=extend, extendfrac=0.04,
            orientation="horizontal" if below else "vertical",
        )  # fmt: skip
    else:
        bar = axes[0].figure.colorbar(
            drawn,
            ax=list(axes),
            extend=extend,
            extendfrac=0.02,
            shrink=0.9,
            pad=0.02,
            aspect=25,
            fraction=0.05,
        )
    bar.ax.tick_params(labelsize=style.SMALL, length=2.5, width=0.5)
    if below:
        bar.locator = MaxNLocator(nbins=3)
        bar.update_ticks()
    bar.ax.yaxis.get_offset_text().set_fontsize(style.SMALL)
    bar.outline.set_linewidth(0.4)
    if label:
        said = label if below else style.fitted(label, _points_high(axes))
        bar.set_label(said, fontsize=style.SMALL, labelpad=1.0 if below else 4.0)


def _points_high(axes: Sequence[Axes]) -> float:
    """About how high axes can be: a share of the figure's height, whatever the layout makes of it."""
    figure, place = axes[0].figure, axes[0].get_subplotspec()
    height = 72.0 * figure.bbox.height / figure.dpi
    rows = 1 if place is None or len(axes) > 1 else place.get_gridspec().nrows
    title = figure.get_suptitle()
    return float((height - 15.0 * (title.count("\n") + 1) * bool(title)) / rows)


def grid_shape(n: int) -> tuple[int, int]:
    """Choose rows and columns for `n` panels: wide rather than high, with few left empty."""
    if n <= 3:
        return 1, n
    if n == 4:  # side by side they would be too small
        return 2, 2
    columns = min(
        range(3, 6) if n > 8 else range(2, 5), key=lambda c: (-(-n // c) * c - n, abs(c - 4))
    )
    return -(-n // columns), columns


def choose_frames(
    data: xr.DataArray, dims: Sequence[Hashable], most: int
) -> tuple[xr.DataArray, list[str]]:
    """Choose evenly spaced positions along the leading dims and say which they are.

    Returns
    -------
    frames : DataArray
        With a dim ``frame`` in place of `dims`, still lazy where `data` is.
    captions : list of str
        Such as ``"tilt = -30°"``, a line for each dim.
    """
    sizes = [data.sizes[dim] for dim in dims]
    total = int(np.prod(sizes))
    picks = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(int))
    captions = []
    chosen = []
    for pick in picks:
        where = dict(zip(dims, map(int, np.unravel_index(pick, sizes)), strict=True))
        parts = []
        for dim, index in where.items():
            unit = style.units_of(data, dim)
            value = style.positions(data, dim)[index]
            parts.append(f"{style.plain(dim)} = {value:g}{'' if unit in ('', '°') else ' '}{unit}")
        captions.append("\n".join(parts))
        frame = data.isel(where)
        chosen.append(frame.drop_vars(scalars(frame)))
    return xr.concat(chosen, dim="frame", coords="minimal", compat="override"), captions


def scalars(data: xr.DataArray) -> list[Hashable]:
    """Name the coordinates of one value only, which arrays that are put together may differ in."""
    return [name for name, coord in data.coords.items() if coord.ndim == 0]


def _maps(
    data: xr.DataArray,
    by: str,
    names: Sequence[str] | None,
    share_scale: bool,
    max_frames: int,
    title: str | None,
    *,
    signed: bool,
) -> Figure:
    style.need_dims(data, by, "maps")
    data = data.transpose(by, ...)
    titles = style.names_along(data, by, names)
    nav = data.ndim - 1
    if not 1 <= nav <= 4:
        raise InputError(
            f"maps: got {nav} navigation dims {tuple(data.dims[1:])}, expected one to four",
            hint="select or sum some of them first",
        )
    if nav == 1:
        return _profiles(data.compute(), titles, share_scale, title)
    captions: list[str] = []
    if nav > 2:
        data, captions = choose_frames(data, data.dims[1:-2], max_frames)
        data = data.transpose(by, "frame", ...)
    data = data.compute()
    values = np.asarray(data.values, dtype=np.float64)
    if share_scale:
        scales = [style.map_scale(values, signed=signed)] * len(titles)
    else:
        scales = [style.map_scale(one, signed=signed) for one in values]
    if nav == 2:
        return _grid(data, titles, scales, share_scale, title)
    return draw_rows(data, titles, captions, scales, share_scale, title)


def _profiles(
    data: xr.DataArray, titles: Sequence[str], share_scale: bool, title: str | None
) -> Figure:
    n = len(titles)
    figure = style.new_figure(max(1.0 * n, 1.4) + 0.5, width=5.5, title=title)
    grid = figure.subplots(n, 1, sharex=True, sharey=share_scale, squeeze=False)
    x = style.positions(data, data.dims[1])
    for k, axes in enumerate(grid.flat):
        axes.plot(x, data.values[k], color=style.color(k), linewidth=1.0)
        if not share_scale and not (data[k] < 0).any():
            axes.set_ylim(bottom=0.0)  # an honest zero: a constant is no slope
        axes.set_title(titles[k], fontsize=style.TEXT, loc="left", pad=2)
        style.number_axis(axes)
        style.dress(axes, grid=True)
    axes.set_xlabel(style.axis_label(data, data.dims[1]), fontsize=style.TEXT)
    figure.supylabel(style.value_label(data) or "loading", fontsize=style.TEXT)
    return figure


def _grid(
    data: xr.DataArray,
    titles: Sequence[str],
    scales: Sequence[Scaling],
    share_scale: bool,
    title: str | None,
) -> Figure:
    n = len(titles)
    rows, columns = grid_shape(n)
    # Of many narrow panels the bars go below: beside them they would take as much room as the maps.
    below = not share_scale and columns > 3
    beside = not share_scale and not below
    panel = min((style.WIDTH - BAR * share_scale) / columns, MAX_PANEL + BAR * beside)
    picture = panel - (BAR if beside else 0.05)
    shape = aspect(data[0])
    width = columns * panel + (BAR if share_scale else 0.0)
    figure = style.new_figure(
        rows * (picture * shape + 0.3 + 0.32 * below) + 0.1 + 0.15 * below,
        width=width,
        title=title,
        images=True,
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    label = style.value_label(data)
    drawn = None
    for k, axes in enumerate(grid.flat):
        if k >= n:
            axes.set_visible(False)
            continue
        drawn = draw_image(axes, data[k], scale=scales[k], colorbar=False)
        axes.set_title(titles[k], fontsize=style.TEXT)
        if not share_scale:
            # One label on the last bar of a row says it for all.
            last = k == n - 1 or (beside and k % columns == columns - 1)
            draw_bar(drawn, [axes], scales[k][2], label if last else "", below=below)
    if share_scale:
        draw_bar(drawn, list(grid.flat)[:n], scales[0][2], label)
    return figure


def draw_rows(
    data: xr.DataArray,
    titles: Sequence[str],
    captions: Sequence[str],
    scales: Sequence[Scaling],
    share_scale: bool,
    title: str | None,
) -> Figure:
    """Draw a row for each component and a column for each frame."""
    rows, columns = len(titles), len(captions)
    panel = min((style.WIDTH - BAR - 0.2) / columns, MAX_PANEL)
    shape = aspect(data[0, 0])
    figure = style.new_figure(
        rows * (panel * shape + 0.08) + 0.35 + 0.15 * captions[0].count("\n"),
        width=columns * panel + BAR + 0.2,
        title=title,
        images=True,
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    label = style.value_label(data)
    drawn = None
    for r in range(rows):
        for c in range(columns):
            drawn = draw_image(grid[r, c], data[r, c], scale=scales[r], colorbar=False, bar=c == 0)
            if r == 0:
                grid[r, c].set_title(
                    captions[c], fontsize=style.TEXT if columns <= 5 else style.SMALL
                )
        grid[r, 0].set_ylabel(titles[r], fontsize=style.TEXT)
        if not share_scale:
            draw_bar(drawn, [grid[r, -1]], scales[r][2], label)
    if share_scale:
        draw_bar(drawn, list(grid.flat), scales[0][2], label)
    return figure


def _draw_labels(axes: Axes, data: xr.DataArray, colors: Colormap, *, strip: bool) -> None:
    values = np.ma.masked_less(np.asarray(data.values), 0)
    axes.imshow(
        values, cmap=colors, vmin=-0.5, vmax=colors.N - 0.5, extent=extent(data),
        interpolation="nearest", origin="upper", aspect="equal" if square(data) else "auto",
    )  # fmt: skip
    if strip:
        axes.set_yticks([])
        axes.set_xlabel(style.axis_label(data, data.dims[1]), fontsize=style.TEXT)
        axes.tick_params(labelsize=style.SMALL)
    else:
        annotate(axes, data, bar=True)


def extent(data: xr.DataArray) -> tuple[float, float, float, float]:
    """Return left, right, bottom, top of an image whose rows run downwards."""
    (rows, columns) = data.dims
    y, x = style.positions(data, rows), style.positions(data, columns)
    dy, dx = (
        style.step_of(data, rows) or _mean_step(y),
        style.step_of(data, columns) or _mean_step(x),
    )
    return (
        float(x[0] - dx / 2),
        float(x[0] - dx / 2 + dx * x.size),
        float(y[0] - dy / 2 + dy * y.size),
        float(y[0] - dy / 2),
    )


def _mean_step(values: NDArray[np.float64]) -> float:
    if values.size < 2 or values[-1] == values[0]:
        return 1.0
    return float((values[-1] - values[0]) / (values.size - 1))


def square(data: xr.DataArray) -> bool:
    """Tell whether both axes measure the same thing, so that a shape on the screen is a shape."""
    unit = [
        pretty(data.coords[d].attrs.get("units")) if d in data.coords else "" for d in data.dims
    ]
    if unit[0] != unit[1]:
        return False
    left, right, bottom, top = extent(data)
    return 0.05 <= abs(bottom - top) / max(abs(right - left), 1e-300) <= 20


def aspect(data: xr.DataArray) -> float:
    """Return height over width of an image as it will be drawn."""
    if not square(data):
        return 0.75
    left, right, bottom, top = extent(data)
    return float(np.clip(abs(bottom - top) / abs(right - left), 0.15, 2.5))


def annotate(axes: Axes, data: xr.DataArray, *, bar: bool) -> None:
    """Give an image a scale bar where its axes allow one, else ticks and labels."""
    rows, columns = data.dims
    even = style.step_of(data, rows) is not None and style.step_of(data, columns) is not None
    if square(data) and even:
        style.frame_image(axes)
        left, right, bottom, top = extent(data)
        if bar:
            unit = style.units_of(data, columns) or "px"
            style.scale_bar(axes, abs(right - left), abs(bottom - top), unit)
        return
    axes.set_xlabel(style.axis_label(data, columns), fontsize=style.SMALL)
    axes.set_ylabel(style.axis_label(data, rows), fontsize=style.SMALL)
    axes.tick_params(labelsize=style.SMALL, length=2.5, width=0.5)
