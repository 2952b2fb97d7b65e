"""What a model leaves of the data: where, and at which energies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError
from emcube.plot import style
from emcube.plot.frames import Scaling, aspect, choose_frames, draw_bar, draw_image, scalars
from emcube.plot.spectra import draw_spectra

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from emcube.plot.spectra import Labels

__all__ = ["residuals"]

_SIGNALS = ("chi_square_spectrum", "residual_spectrum")
_MAPS = {"chi_square": "chi-square per degree of freedom", "residual": "residual (rms)"}


def residuals(
    quality: xr.Dataset,
    *,
    elements: Iterable[str] | None = None,
    labels: Labels | None = "xray",
    resolution: float = 130.0,
    beam_energy: float | None = None,
    max_frames: int = 4,
    title: str | None = None,
) -> Figure:
    """Draw maps of chi-square and of the residual, and chi-square by channel.

    Parameters
    ----------
    quality : Dataset
        With ``chi_square`` or ``residual`` over one to four navigation dims, or both; and, where it is to be
        drawn, ``chi_square_spectrum`` or ``residual_spectrum`` over one or two signal dims.
    elements, labels, resolution, beam_energy
        Line labels of what is drawn by channel, as in `emcube.plot.components`.
    max_frames : int, default 4
        Most positions shown along all but the last two navigation dims.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure
        Chi-square parts its colours at 1, which is what noise leaves: red is described badly, blue too well.

    Raises
    ------
    InputError
        If there is nothing to draw, or maps have no or too many dims.
    """
    names = [name for name in _MAPS if name in quality]
    signal = next((n for n in _SIGNALS if n in quality), None)
    if not names or not 1 <= quality[names[0]].ndim <= 4:
        raise InputError(
            f"residuals: got {sorted(map(str, quality))}, expected 'chi_square' or 'residual' over one to "
            "four navigation dims",
            hint="hand over what result.quality(cube) gives",
        )
    captions = [""]
    maps = {}
    for name in names:
        data = quality[name].drop_vars(scalars(quality[name]))
        if data.ndim > 2:
            data, captions = choose_frames(data, data.dims[:-2], max_frames)
        elif data.ndim == 2:
            data = data.expand_dims("frame")
        maps[name] = data
    parts = xr.Dataset(maps | ({} if signal is None else {signal: quality[signal]})).compute()
    pattern = signal is not None and parts[signal].ndim == 2
    figure, upper, lower = _places(parts, names, captions, signal, pattern, title)
    if parts[names[0]].ndim == 1:
        _curves(upper, parts, names)
    else:
        _images(upper, parts, names, captions)
    if signal is not None:
        axes = lower.add_subplot()
        if pattern:
            values = parts[signal].values.astype(np.float64)
            ratio = signal == "chi_square_spectrum"
            draw_image(
                axes,
                parts[signal],
                scale=style.ratio_scale(values) if ratio else style.centred_scale(values),
                colorbar_label="chi-square" if ratio else style.units_of(parts[signal]),
            )
        else:
            _spectrum(axes, parts[signal], elements, labels, resolution, beam_energy)
    return figure


def _places(
    parts: xr.Dataset,
    names: list[str],
    captions: list[str],
    signal: str | None,
    pattern: bool,
    title: str | None,
) -> tuple[Figure, SubFigure, SubFigure]:
    """A figure with room for the maps above and for the residual by channel below."""
    first = parts[names[0]]
    width = style.WIDTH
    if first.ndim == 1:
        upper = 1.3 * len(names) + 0.3
    else:
        shape = aspect(first.isel(frame=0))
        if len(captions) == 1:
            upper = min((width - 1.7) / 2, 2.9) * shape + 0.4
        else:
            panel = (width - 0.9) / len(captions)
            upper = len(names) * (panel * shape + 0.1) + 0.5
    lower = 0.0 if signal is None else 2.6 if pattern else 1.9
    figure = style.new_figure(upper + lower, width=width, title=title)
    if not lower:
        part = np.asarray(figure.subfigures(1, 1, squeeze=False)).flat[0]
        return figure, part, part
    above, below = np.asarray(figure.subfigures(2, 1, height_ratios=[upper, lower])).flat
    return figure, above, below


def _scale(name: str, values: Any) -> Scaling:
    if name == "chi_square":
        return style.ratio_scale(values)
    return style.map_scale(values, signed=False)


def _images(place: SubFigure, parts: xr.Dataset, names: list[str], captions: list[str]) -> None:
    several = len(captions) > 1
    shape = (len(names), len(captions)) if several else (1, len(names))
    grid = place.subplots(*shape, squeeze=False)
    for r, name in enumerate(names):
        scale = _scale(name, parts[name].values.astype(np.float64))
        row = grid[r] if several else grid[0, r : r + 1]
        for i, axes in enumerate(row):
            drawn = draw_image(
                axes, parts[name].isel(frame=i), scale=scale, colorbar=False, bar=i == 0
            )
            if several and r == 0:
                axes.set_title(captions[i], fontsize=style.TEXT)
        if several:
            row[0].set_ylabel(_MAPS[name].replace(" per ", "\nper "), fontsize=style.TEXT)
        else:
            row[0].set_title(_MAPS[name], fontsize=style.TEXT)
        draw_bar(drawn, [row[-1]], scale[2], style.units_of(parts[name]))


def _curves(place: SubFigure, parts: xr.Dataset, names: list[str]) -> None:
    grid = place.subplots(len(names), 1, sharex=True, squeeze=False)
    for k, (name, axes) in enumerate(zip(names, grid.flat, strict=True)):
        data = parts[name]
        x = style.positions(data, data.dims[0])
        axes.plot(x, data.values, color=style.color(k), linewidth=1.0)
        if name == "chi_square":
            axes.axhline(1.0, color="0.5", linewidth=0.7, linestyle="--")
        unit = style.units_of(data)
        axes.set_title(
            f"{_MAPS[name]}, {unit}" if unit else _MAPS[name],
            fontsize=style.TEXT,
            loc="left",
            pad=2,
        )
        style.number_axis(axes)
        style.dress(axes, grid=True)
    axes.set_xlabel(style.axis_label(parts[names[0]], parts[names[0]].dims[0]))


def _spectrum(
    axes: Axes,
    data: xr.DataArray,
    elements: Iterable[str] | None,
    labels: Labels | None,
    resolution: float,
    beam_energy: float | None,
) -> None:
    draw_spectra(
        axes, data, elements=elements, labels=labels, yscale="linear", resolution=resolution,
        beam_energy=beam_energy, room=((style.WIDTH - 0.9) * 72, 1.3 * 72), fill=False,
    )  # fmt: skip
    if data.name == "chi_square_spectrum":
        axes.axhline(1.0, color="0.4", linewidth=0.8, linestyle="--")
        axes.set_ylabel("chi-square")
        axes.set_title(
            "by channel: squared residual over its expectation", fontsize=style.TEXT, loc="left"
        )
    else:
        axes.set_ylabel(f"residual ({style.units_of(data) or '1'})")
        axes.set_title("by channel: data less model", fontsize=style.TEXT, loc="left")
