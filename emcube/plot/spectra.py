"""Component spectra, component patterns, and single spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from emcube.errors import InputError
from emcube.plot import style
from emcube.plot.frames import draw_image, grid_shape
from emcube.units import compatible, convert
from emcube.xray import edges_of, label_peaks, pretty_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["components", "spectrum"]

Labels = Literal["xray", "eels"]
Scale = Literal["linear", "sqrt", "log"]

_LABEL_GAP = 9.5  # points between the middles of neighbouring upright labels
_CHARACTER = 4.6  # points along an upright label, at its font size
# Least height of a peak that is named, as a fraction of the highest: what each scale shows.
_LEAST_PEAK: dict[Scale, float] = {"linear": 0.01, "sqrt": 0.002, "log": 0.0005}
_MARGINS = 0.9  # inches of a figure's width that its axes do not have


def components(
    data: xr.DataArray,
    *,
    elements: Iterable[str] | None = None,
    labels: Labels | None = "xray",
    yscale: Scale = "linear",
    resolution: float = 130.0,
    beam_energy: float | None = None,
    names: Sequence[str] | None = None,
    by: str = "component",
    title: str | None = None,
) -> Figure:
    """Draw the components of a model: spectra one above the other, or patterns side by side.

    Parameters
    ----------
    data : DataArray of shape (K, E) or (K, ky, kx)
        One of its dims is `by`. Channels that were not used are NaN and stay empty.
    elements : str or iterable of str, optional
        Symbols of the elements whose lines may be named. Without it nothing is named: a name that is
        only a guess is worse than none.
    labels : {"xray", "eels"} or None, default "xray"
        What to name: X-ray lines where there are peaks, or ionisation edges.
    yscale : {"linear", "sqrt", "log"}, default "linear"
        Of the intensities. "sqrt" shows minor lines beside major ones and noise at one height. Components
        of both signs are drawn on a linear scale always.
    resolution : float, default 130.0
        Of the detector at Mn Ka, in eV.
    beam_energy : float, optional
        In keV; lines which that cannot excite are not named.
    names : sequence of str, optional
        Of the components.
    by : str, default "component"
        The dim to be shown as panels: ``cluster`` for the centers of clusters.
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
    style.need_dims(data, by, "components")
    data = data.transpose(by, ...).compute()
    titles = style.names_along(data, by, names)
    if data.ndim == 3:
        return _patterns(data, titles, yscale, title)
    if data.ndim != 2:
        raise InputError(
            f"components: got dims {tuple(data.dims)}, expected {by!r} and one or two signal dims",
            hint="select or average the other dims first",
        )
    n = data.sizes[by]
    rows, columns = (n, 1) if n <= 8 else (-(-n // 2), 2)
    height = 1.5 if n <= 4 else 1.25
    figure = style.new_figure(height * rows + 0.4, title=title)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for k, axes in enumerate(grid.T.flat):
        if k >= n:
            axes.set_visible(False)
            continue
        one = data.isel({by: k})
        width = (style.WIDTH - columns * _MARGINS) / columns * 72
        scale = _scale_for(one.values, yscale)
        _draw_spectrum(axes, one, style.color(k), scale, fill=True)
        texts = _peak_texts(one, elements, labels, resolution, beam_energy, scale)
        _place_labels(axes, one, texts, (width, height * 72 - 22))
        axes.set_title(
            titles[k],
            fontsize=style.TEXT,
            loc="right",
            pad=2,
            color=style.color(k),
            fontweight="bold",
        )
        style.dress(axes)
        bottom = k % rows == rows - 1 or k == n - 1
        axes.tick_params(labelbottom=bottom)
        if bottom:
            axes.set_xlabel(style.axis_label(data, data.dims[1]))
    figure.supylabel(style.value_label(data) or "intensity", fontsize=style.TEXT)
    figure.align_ylabels()
    return figure


def spectrum(
    data: xr.DataArray,
    *,
    elements: Iterable[str] | None = None,
    labels: Labels | None = "xray",
    yscale: Scale = "linear",
    resolution: float = 130.0,
    beam_energy: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw one spectrum, or several in one frame with a legend.

    Parameters
    ----------
    data : DataArray of shape (E,) or (n, E)
        The last dim is the signal's; of two dims the first names the curves.
    elements, labels, yscale, resolution, beam_energy, title
        As in `components`; of several spectra the sum is labelled.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        If there are no or more than two dims.
    """
    if data.ndim not in (1, 2):
        raise InputError(
            f"spectrum: got dims {tuple(data.dims)}, expected one signal dim, or one and the curves'",
            hint="sum or select the other dims first, as in cube.em.sum_spectrum()",
        )
    figure = style.new_figure(3.0, title=title)
    axes = figure.add_subplot()
    draw_spectra(
        axes,
        data.compute(),
        elements=elements,
        labels=labels,
        yscale=yscale,
        resolution=resolution,
        beam_energy=beam_energy,
        room=((style.WIDTH - _MARGINS) * 72, 2.4 * 72),
    )
    return figure


def draw_spectra(
    axes: Axes,
    data: xr.DataArray,
    *,
    elements: Iterable[str] | None,
    labels: Labels | None,
    yscale: Scale,
    resolution: float,
    beam_energy: float | None,
    room: tuple[float, float],
    fill: bool = True,
) -> None:
    """Draw spectra of shape (E,) or (n, E) into axes of about `room` points (width, height)."""
    dim = data.dims[-1]
    scale = _scale_for(data.values, yscale)
    if data.ndim == 1:
        _draw_spectrum(axes, data, style.color(0), scale, fill=fill)
        labelled = data
    else:
        for k, name in enumerate(style.names_along(data, data.dims[0], None)):
            _draw_spectrum(axes, data[k], style.color(k), scale, fill=False, label=name)
        # The highest of all curves, so that no label lies over any of them.
        labelled = data.max(str(data.dims[0]), keep_attrs=True)
    texts = _peak_texts(labelled, elements, labels, resolution, beam_energy, scale)
    _place_labels(axes, labelled, texts, room)
    axes.set_xlabel(style.axis_label(data, dim))
    axes.set_ylabel(style.value_label(data) or "intensity")
    style.dress(axes)
    if data.ndim == 2:
        # Above the frame, where no curve and no line label is.
        axes.legend(
            fontsize=style.SMALL, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0),
            ncols=min(data.shape[0], 5), borderaxespad=0.1, handlelength=1.2,
        )  # fmt: skip


def _patterns(
    data: xr.DataArray, titles: Sequence[str], yscale: Scale, title: str | None
) -> Figure:
    n = data.shape[0]
    rows, columns = grid_shape(n)
    side = style.WIDTH / columns
    aspect = data.shape[1] / data.shape[2]
    figure = style.new_figure(
        rows * ((side - 0.6) * min(aspect, 1.5) + 0.3) + 0.1, title=title, images=True
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for k, axes in enumerate(grid.flat):
        if k >= n:
            axes.set_visible(False)
            continue
        one = data[k]
        norm = None
        scale = _scale_for(one.values, yscale)
        if scale != "linear":
            norm = style.intensity_norm(one.values, scale)
        draw_image(axes, one, norm=norm, colorbar_label=style.value_label(data))
        axes.set_title(titles[k], fontsize=style.TEXT)
    return figure


def _scale_for(values: NDArray[np.float64], yscale: Scale) -> Scale:
    if yscale not in ("linear", "sqrt", "log"):
        raise InputError(
            f"yscale of a figure: got {yscale!r}, expected 'linear', 'sqrt' or 'log'",
            hint="choose one of the three",
        )
    finite = values[np.isfinite(values)]
    signed = finite.size > 0 and finite.min() < -1e-9 * abs(finite.max())
    positive = finite.size > 0 and finite.max() > 0
    return "linear" if signed or not positive else yscale


def _draw_spectrum(
    axes: Axes, data: xr.DataArray, line_color: str, scale: Scale, *, fill: bool, label: str = ""
) -> None:
    x = style.positions(data, data.dims[0])
    y = np.asarray(data.values, dtype=np.float64)
    if scale == "log":
        axes.set_yscale("log", nonpositive="clip")
    elif scale == "sqrt":
        axes.set_yscale("function", functions=(_root, np.square))
    axes.plot(
        x, y, color=line_color, linewidth=0.9, label=label or "_spectrum", drawstyle="default"
    )
    finite = y[np.isfinite(y)]
    used = x[np.isfinite(y)] if finite.size else x
    axes.set_xlim(float(used.min()), float(used.max()))
    if finite.size == 0:
        return
    if scale == "log":
        low = float(finite[finite > 0].min())
        axes.set_ylim(max(low, float(finite.max()) * 1e-5) * 0.8, float(finite.max()) * 1.2)
        style.number_axis(axes)
    else:
        low, high = min(float(finite.min()), 0.0), max(float(finite.max()), 0.0)
        if high <= low:
            high = low + 1.0
        before = axes.get_ylim() if label and len(axes.lines) > 1 else (low, high)
        low, high = min(low, before[0]), max(high * 1.04, before[1])
        axes.set_ylim(low * 1.04 if low < 0 else 0.0, high)
        style.number_axis(axes, top=high)
        if low < 0:
            axes.axhline(0.0, color="0.6", linewidth=0.5, zorder=0)
        elif fill:
            axes.fill_between(x, 0.0, y, color=line_color, alpha=0.15, linewidth=0)


def _root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.maximum(values, 0.0))


def _peak_texts(
    data: xr.DataArray,
    elements: Iterable[str] | None,
    labels: Labels | None,
    resolution: float,
    beam_energy: float | None,
    scale: Scale,
) -> list[tuple[float, str]]:
    """Say what to write where along the axis; nothing where no element is known."""
    if labels not in ("xray", "eels", None):
        raise InputError(
            f"labels of a figure: got {labels!r}, expected 'xray', 'eels' or None",
            hint="choose one of the three",
        )
    dim = data.dims[0]
    unit = data.coords[dim].attrs.get("units", "") if dim in data.coords else ""
    elements = [elements] if isinstance(elements, str) else elements
    if labels is None or elements is None or not compatible(unit, "eV"):
        return []
    x = style.positions(data, dim)
    if labels == "eels":
        ends = convert(np.array([np.min(x), np.max(x)]), unit, "eV")
        edges = {n: e for el in elements for n, e in edges_of(el, (ends[0], ends[1])).items()}
        return [
            (convert(energy, "eV", unit), pretty_line(name))
            for name, energy in sorted(edges.items(), key=lambda item: item[1])
        ]
    peaks = label_peaks(
        convert(x, unit, "keV"),
        np.asarray(data.values, dtype=np.float64),
        elements,
        resolution=resolution,
        beam_energy=beam_energy,
        threshold=_LEAST_PEAK[scale],
    )
    return [(convert(peak.energy, "keV", unit), peak.text) for peak in peaks]


def _place_labels(
    axes: Axes, data: xr.DataArray, texts: Sequence[tuple[float, str]], room: tuple[float, float]
) -> None:
    """Write upright labels over their peaks, apart from each other and clear of the curve.

    `room` is about the size of the axes in points. Text does not scale with the data, so room for the
    longest label is made above the curve first.
    """
    if not texts:
        return
    width, height = room
    longest = max(len(text) for _, text in texts) * _CHARACTER
    transform = axes.yaxis.get_transform()
    low, high = transform.transform(np.asarray(axes.get_ylim(), dtype=np.float64))
    share = min((longest + 10.0) / height, 0.6)
    high = low + (high - low) / (1.0 - share)
    axes.set_ylim(*transform.inverted().transform(np.array([low, high])))

    x = style.positions(data, data.dims[0])
    y = np.asarray(data.values, dtype=np.float64)
    left, right = axes.get_xlim()
    points = width / (right - left)
    targets = [(energy - left) * points for energy, _ in texts]
    placed = style.spread(targets, _LABEL_GAP, (_LABEL_GAP / 2, width - _LABEL_GAP / 2))
    bottom = axes.get_ylim()[0]
    scaled = transform.transform(np.where(np.isfinite(y), np.maximum(y, bottom), bottom))
    for (energy, text), place in zip(texts, placed, strict=True):
        at = left + place / points
        near = np.abs(x - at) <= 0.55 * _LABEL_GAP / points
        near |= (x >= min(at, energy)) & (x <= max(at, energy))
        over = float((scaled[near].max() - low) / (high - low)) if near.any() else 0.0
        own = np.abs(x - energy) <= 2.0 / points
        peak = float((scaled[own].max() - low) / (high - low)) if own.any() else over
        axes.annotate(
            text,
            xy=(energy, peak + 1.5 / height),
            xytext=(at, over + 8.0 / height),
            xycoords=axes.get_xaxis_transform(),
            textcoords=axes.get_xaxis_transform(),
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=style.SMALL,
            color="0.15",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "linewidth": 0.4,
                "color": "0.4",
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
