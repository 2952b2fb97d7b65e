"""Several maps in one image: colours that add up, and colours over a grey image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from emcube.errors import InputError
from emcube.plot import style
from emcube.plot.frames import (
    MAX_PANEL,
    annotate,
    aspect,
    choose_frames,
    extent,
    grid_shape,
    scalars,
    square,
)
from emcube.units import compatible, convert
from emcube.xray import pretty_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["composite", "overlay"]


def composite(
    data: xr.DataArray,
    *,
    by: str = "component",
    names: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
    share_scale: bool = False,
    max_frames: int = 5,
    title: str | None = None,
) -> Figure:
    """Draw several maps in one image whose colours add up: a red-green-blue composite, for up to eight.

    Parameters
    ----------
    data : DataArray of shape (..., K)
        Over one to four navigation dims and `by`; loadings, or line maps with ``by="line"``.
    by : str, default "component"
        The dim whose positions get a colour each.
    names : sequence of str, optional
        Of the maps, for the legend.
    colors : sequence of str, optional
        A colour for each map, as matplotlib knows them.
    share_scale : bool, default False
        All maps are as bright as their values; else each is at its brightest where it is largest.
    max_frames : int, default 5
        Most positions shown along all but the last two navigation dims.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure
        Black where all maps are zero; the legend says at which value a colour is at its brightest. Where
        colours add up to more than white allows, they keep their hue.

    Raises
    ------
    InputError
        If `by` is no dim, there are more maps than colours, or too few or too many dims are left.
    """
    maps, captions, titles = _prepared(data, by, names, max_frames, "composite")
    lights = _lights(len(titles), colors, "composite")
    values = maps.values.astype(np.float64)
    levels, tops = _levels(values, share_scale)
    mixed = _mix(levels, lights)
    mixed[np.isnan(values).all(axis=0)] = float(style.MISSING)
    panel = maps.isel({by: 0})
    figure, grid = _figure(panel, captions, title)
    for i, axes in enumerate(grid):
        _draw(axes, panel.isel(frame=i), mixed[i], captions[i], first=i == 0)
    _legend(figure, lights, titles, tops, style.units_of(data))
    return figure


def overlay(
    data: xr.DataArray,
    image: xr.DataArray,
    *,
    by: str = "component",
    names: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
    share_scale: bool = False,
    opacity: float = 0.75,
    max_frames: int = 5,
    title: str | None = None,
) -> Figure:
    """Draw maps in colour over a grey image, such as loadings over the HAADF image.

    Parameters
    ----------
    data : DataArray of shape (..., y, x, K), or (..., y, x) for one map
        Over two to four navigation dims; the more of a map, the less of the image is seen.
    image : DataArray of shape (y, x) or (..., y, x)
        The grey image, on a grid of its own where need be: both are laid by their coordinates.
    by, names, colors, share_scale, max_frames, title
        As in `composite`.
    opacity : float, default 0.75
        How much of the image a map at its brightest hides, 0 to 1.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        As for `composite`; or image and maps have leading dims or units that do not fit together.
    """
    if not 0.0 < opacity <= 1.0:
        raise InputError(
            f"overlay: got opacity {opacity!r}, expected a number above 0, at most 1",
            hint="leave it out for 0.75",
        )
    if by not in data.dims:
        single = "map" if names is None else names[0]
        data = data.expand_dims({by: [str(data.name or single)]}).assign_attrs(data.attrs)
    if data.ndim < 3:
        raise InputError(
            f"overlay: got dims {tuple(data.dims)}, expected an image's two beside {by!r}",
            hint="a line scan has no image; draw it with emcube.plot.maps",
        )
    maps, captions, titles = _prepared(data, by, names, max_frames, "overlay")
    greys = _greys(image, data, by, max_frames)
    lights = _lights(len(titles), colors, "overlay")
    values = maps.values.astype(np.float64)
    levels, tops = _levels(values, share_scale)
    total = levels.sum(axis=0)
    hue = _mix(levels / np.where(total > 0, total, 1.0), lights)
    cover = np.clip(total, 0.0, 1.0)[..., None] * opacity
    panel = maps.isel({by: 0})
    figure, grid = _figure(panel, captions, title)
    norm, colormap, _ = style.map_scale(greys.values.astype(np.float64), signed=False)
    for i, axes in enumerate(grid):
        grey = greys.isel(frame=min(i, greys.sizes["frame"] - 1))
        axes.imshow(
            grey.values, norm=norm, cmap=style.colormap("gray"), extent=_extent_in(grey, panel),
            interpolation="nearest", origin="upper",
        )  # fmt: skip
        _draw(
            axes, panel.isel(frame=i), np.concatenate([hue[i], cover[i]], axis=-1), captions[i],
            first=i == 0,
        )  # fmt: skip
    del colormap
    _legend(figure, lights, titles, tops, style.units_of(data))
    return figure


def _prepared(
    data: xr.DataArray, by: str, names: Sequence[str] | None, max_frames: int, kind: str
) -> tuple[xr.DataArray, list[str], list[str]]:
    """Computed maps (by, frame, rows, columns), captions of the frames, names of the maps."""
    style.need_dims(data, by, kind)
    titles = style.names_along(data, by, names)
    if names is None:
        titles = [pretty_line(name) if "_" in name else name for name in titles]
    data = data.transpose(by, ...)
    data = data.drop_vars(scalars(data))
    nav = data.ndim - 1
    if not 1 <= nav <= 4:
        raise InputError(
            f"{kind}: got {nav} navigation dims {tuple(data.dims[1:])}, expected one to four",
            hint="select or sum some of them first",
        )
    captions = [""]
    if nav == 1:  # a line scan: a strip, high enough to be seen
        frames = data.expand_dims({"frame": 1, "_strip": 2}).transpose(by, "frame", "_strip", ...)
    elif nav == 2:
        frames = data.expand_dims("frame").transpose(by, "frame", ...)
    else:
        frames, captions = choose_frames(data, data.dims[1:-2], max_frames)
        frames = frames.transpose(by, "frame", ...)
    return frames.compute(), captions, titles


def _greys(image: xr.DataArray, data: xr.DataArray, by: str, max_frames: int) -> xr.DataArray:
    """The grey image of each frame; of all frames where it has no leading dims."""
    image = image.drop_vars(scalars(image))
    leading = [dim for dim in data.dims if dim != by][:-2]
    if image.ndim == 2:
        return image.expand_dims("frame").compute()
    sizes = [data.sizes[dim] for dim in leading]
    if image.ndim != 2 + len(leading) or [image.sizes[d] for d in image.dims[:-2]] != sizes:
        raise InputError(
            f"overlay: the image has dims {dict(image.sizes)}, expected two, or two after "
            f"{dict(zip(map(str, leading), sizes, strict=True))} as the maps have",
            hint="select one image, or the same positions of both",
        )
    frames, _ = choose_frames(image, image.dims[:-2], max_frames)
    return frames.compute()


def _lights(n: int, colors: Sequence[str] | None, kind: str) -> NDArray[np.float64]:
    """Colours (n, 3) of `n` maps."""
    chosen = style.LIGHTS if colors is None else tuple(colors)
    if n > len(chosen):
        raise InputError(
            f"{kind}: got {n} maps, expected at most {len(chosen)}, a colour for each",
            hint="choose some of them with isel, or give more colors=",
        )
    if n == 1 and colors is None:
        chosen = (style.LIGHTS[6],)
    try:
        return np.array([to_rgb(color) for color in chosen[:n]])
    except ValueError as error:
        raise InputError(
            f"{kind}: {error}", hint="colors are names or hexadecimal: colors=['red', '#00ff00']"
        ) from error


def _levels(
    values: NDArray[np.float64], share_scale: bool
) -> tuple[NDArray[np.float64], list[float]]:
    """Maps (K, ...) as 0 to 1, and the value of each at which it is 1: a percentile, not one hot pixel."""
    tops = [style.map_scale(one, signed=False)[0].vmax or 1.0 for one in values]
    if share_scale:
        tops = [max(tops)] * len(tops)
    scale = np.array(tops).reshape(-1, *(1 for _ in values.shape[1:]))
    return np.clip(np.nan_to_num(values) / np.where(scale > 0, scale, 1.0), 0.0, 1.0), tops


def _mix(levels: NDArray[np.float64], lights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add colours up: levels (K, ...) and lights (K, 3) give (..., 3) within 0 to 1."""
    mixed = np.tensordot(levels, lights, axes=(0, 0))
    return np.asarray(mixed / np.maximum(mixed.max(axis=-1, keepdims=True), 1.0))


def _figure(
    panel: xr.DataArray, captions: Sequence[str], title: str | None
) -> tuple[Figure, list[Axes]]:
    n = len(captions)
    strip = panel.dims[1] == "_strip"
    rows, columns = (1, n) if n <= 5 else grid_shape(n)
    width = min((style.WIDTH - 1.5) / columns, 5.0 if strip else MAX_PANEL + 0.6 * (n == 1))
    shape = 0.12 if strip else aspect(panel.isel(frame=0))
    lines = 1 + captions[0].count("\n") if captions[0] else 0
    figure = style.new_figure(
        max(rows * (width * shape + 0.08 + 0.17 * lines) + 0.1, 1.1) + 0.35 * strip,
        width=columns * width + 1.5,
        title=title,
        images=not strip,
    )
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[n:]:
        axes.set_visible(False)
    return figure, grid[:n]


def _draw(
    axes: Axes, data: xr.DataArray, rgb: NDArray[np.float64], caption: str, *, first: bool
) -> None:
    strip = data.dims[0] == "_strip"
    axes.imshow(
        rgb, extent=extent(data), interpolation="nearest", origin="upper",
        aspect="equal" if square(data) and not strip else "auto",
    )  # fmt: skip
    if strip:
        axes.set_yticks([])
        axes.set_xlabel(style.axis_label(data, data.dims[1]), fontsize=style.TEXT)
        axes.tick_params(labelsize=style.SMALL)
    else:
        left, right, bottom, top = extent(data)
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        annotate(axes, data, bar=first)
    axes.set_title(caption, fontsize=style.TEXT)


def _extent_in(image: xr.DataArray, data: xr.DataArray) -> tuple[float, float, float, float]:
    """Where an image lies in the coordinates of other maps: in their unit, or over the whole of them."""
    ends = list(extent(image))
    whole = extent(data.isel(frame=0))
    for pair, of, to in (
        ((0, 1), image.dims[-1], data.dims[-1]),
        ((2, 3), image.dims[-2], data.dims[-2]),
    ):
        if of not in image.coords or to not in data.coords:
            # Bare pixels: the same field of view is all that can be meant.
            for i in pair:
                ends[i] = whole[i]
            continue
        unit, wanted = (a.coords[d].attrs.get("units") for a, d in ((image, of), (data, to)))
        if unit == wanted:
            continue
        if not compatible(unit, wanted):
            raise InputError(
                f"overlay: the image's {of} is in {unit!r}, that of the maps in {wanted!r}",
                hint="give both coordinates in lengths",
            )
        for i in pair:
            ends[i] = convert(ends[i], unit, wanted)
    return ends[0], ends[1], ends[2], ends[3]


def _legend(
    figure: Figure,
    lights: NDArray[np.float64],
    titles: Sequence[str],
    tops: Sequence[float],
    unit: str,
) -> None:
    handles = [
        Patch(
            facecolor=tuple(light),
            edgecolor="0.4",
            linewidth=0.4,
            label=f"{name}\n{_rounded(top)} {unit}".rstrip(),
        )
        for light, name, top in zip(lights, titles, tops, strict=True)
    ]
    figure.legend(
        handles=handles, loc="outside right center", fontsize=style.SMALL, frameon=False,
        handlelength=1.0, handleheight=1.0, labelspacing=0.8,
    )  # fmt: skip


def _rounded(value: float) -> str:
    return style.short_number(float(f"{value:.2g}"))
