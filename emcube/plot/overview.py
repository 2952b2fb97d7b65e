"""One figure that says what a cube holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError
from emcube.plot import style
from emcube.plot.frames import aspect, choose_frames, draw_bar, draw_image, image, line_maps, maps
from emcube.plot.spectra import draw_spectra, spectrum

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure, SubFigure

    from emcube.plot.spectra import Labels

__all__ = ["cube_overview"]


def cube_overview(
    cube: xr.DataArray,
    *,
    nav_dims: Sequence[str] | None = None,
    sig_dims: Sequence[str] | None = None,
    elements: Iterable[str] | None = None,
    labels: Labels | None = "xray",
    resolution: float = 130.0,
    beam_energy: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a cube's total counts by pixel beside its sum over all pixels.

    Parameters
    ----------
    cube : DataArray
        Navigation dims, then signal dims; read once where it is lazy.
    nav_dims, sig_dims : sequence of str, optional
        Which are which; by default ``cube.attrs["sig_dims"]`` says it, and without that the last dim is
        the signal of an array of three dims and more.
    elements, labels, resolution, beam_energy
        Line labels of the sum spectrum, as in `components`.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure
        Maps show the image; line scans show position against energy; images and single spectra are drawn
        as they are; patterns are shown as their sum; loadings and line maps are drawn as maps. Of further
        navigation dims a few positions are chosen.

    Raises
    ------
    InputError
        If the dims given are not those of the cube.
    """
    nav, sig = _split_dims(cube, nav_dims, sig_dims)
    looks: dict[str, Any] = {
        "elements": elements,
        "labels": labels,
        "resolution": resolution,
        "beam_energy": beam_energy,
    }
    if nav and sig in (["component"], ["line"]):  # loadings and line maps are cubes too
        draw = maps if sig == ["component"] else line_maps
        return draw(cube, by=sig[0], title=title)
    if not sig:
        if cube.ndim == 1:
            return spectrum(cube, labels=None, title=title)
        return image(cube, title=title) if cube.ndim == 2 else _image_stack(cube, title)
    if not nav:
        if len(sig) == 1:
            return spectrum(cube, title=title, **looks)
        return image(cube, title=title)
    # One pass over the data gives all that is drawn.
    sums = {"signal": cube.sum(nav, keep_attrs=True), "total": cube.sum(sig, keep_attrs=True)}
    if len(nav) == 1 and len(sig) == 1:
        sums["scan"] = cube
    parts = xr.Dataset(
        {name: part.drop_vars(_others(part)) for name, part in sums.items()}
    ).compute()
    total = parts["total"]
    captions = [""]
    if len(nav) > 2:
        total, captions = choose_frames(total, nav[:-2], 4)
    elif len(nav) == 2:
        total = total.expand_dims("frame")
    return _draw(parts, total, captions, nav, sig, looks, title)


def _draw(
    parts: xr.Dataset,
    total: xr.DataArray,
    captions: Sequence[str],
    nav: Sequence[str],
    sig: Sequence[str],
    looks: dict[str, Any],
    title: str | None,
) -> Figure:
    """Put the navigation side left of the signal side, or above it where either is wide."""
    stacked = len(sig) == 1 and len(nav) != 2
    upper = 2.2
    if stacked and len(nav) > 1:  # as high as the row of images is
        n = total.sizes["frame"]
        upper = min((style.WIDTH - 0.8) / n * aspect(total.isel(frame=0)) + 0.5, 3.2)
    figure = style.new_figure(upper + 2.3 if stacked else 2.7, title=title)
    if stacked:
        places = figure.subfigures(2, 1, height_ratios=[upper, 2.3])
    else:
        places = figure.subfigures(1, 2, width_ratios=[1.0, 1.5 if len(sig) == 1 else 1.0])
    first, second = np.asarray(places).flat
    _draw_navigation(first, parts, total, captions, nav, sig)
    axes = second.add_subplot()
    signal = parts["signal"]
    axes.set_title("sum over all pixels", fontsize=style.TEXT)
    if len(sig) == 1:
        draw_spectra(
            axes,
            signal,
            yscale="sqrt" if _positive(signal) else "linear",
            room=((6.1 if stacked else 3.4) * 72, 1.6 * 72),
            **looks,
        )
    else:
        norm = _norm(signal, "log")
        draw_image(axes, signal, norm=norm, colorbar_label=style.value_label(signal))
    return figure


def _draw_navigation(
    place: SubFigure,
    parts: xr.Dataset,
    total: xr.DataArray,
    captions: Sequence[str],
    nav: Sequence[str],
    sig: Sequence[str],
) -> None:
    label = style.value_label(total)
    if len(nav) == 1 and len(sig) == 1:
        scan = parts["scan"].transpose(nav[0], sig[0])
        axes = place.add_subplot()
        draw_image(axes, scan, norm=_norm(scan, "sqrt"), colorbar_label=label)
    elif len(nav) == 1:
        axes = place.add_subplot()
        x = style.positions(total, nav[0])
        axes.plot(x, total.values, color=style.color(0), linewidth=1.0)
        axes.set_xlabel(style.axis_label(total, nav[0]))
        axes.set_ylabel(label or "sum")
        style.number_axis(axes)
        style.dress(axes)
    else:
        grid = place.subplots(1, total.sizes["frame"], squeeze=False)
        scale = style.map_scale(total.values.astype(float))
        for i, axes in enumerate(grid.flat):
            drawn = draw_image(axes, total.isel(frame=i), scale=scale, colorbar=False)
            axes.set_title(captions[i] or "total by pixel", fontsize=style.TEXT)
        draw_bar(drawn, [grid.flat[-1]], scale[2], label)


def _norm(part: xr.DataArray, yscale: str) -> Normalize | None:
    """Choose a scale that shows weak intensities too, which only non-negative ones allow."""
    return style.intensity_norm(part.values.astype(float), yscale) if _positive(part) else None


def _image_stack(cube: xr.DataArray, title: str | None) -> Figure:
    """Draw a stack of images as a few of them."""
    frames = cube.expand_dims("image")
    return maps(frames, by="image", names=[""], title=title)


def _split_dims(
    cube: xr.DataArray, nav_dims: Sequence[str] | None, sig_dims: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    dims = [str(dim) for dim in cube.dims]
    if sig_dims is None and nav_dims is not None:
        sig_dims = [dim for dim in dims if dim not in nav_dims]
    if sig_dims is None:
        stated = cube.attrs.get("sig_dims")
        sig_dims = (
            [d for d in stated if d in dims] if stated is not None else dims[-1:] * (len(dims) > 2)
        )
    if nav_dims is None:
        nav_dims = [dim for dim in dims if dim not in sig_dims]
    if sorted([*nav_dims, *sig_dims]) != sorted(dims) or len(sig_dims) > 2 or len(nav_dims) > 4:
        raise InputError(
            f"dims of the cube: got navigation {list(nav_dims)} and signal {list(sig_dims)}, expected "
            f"at most four and two that together are {dims}",
            hint="name them with nav_dims= and sig_dims=, and select or sum the rest first",
        )
    return list(nav_dims), list(sig_dims)


def _others(part: xr.DataArray) -> list[object]:
    """Name the coordinates that are no axes: companions and scalars, which a sum does not need."""
    return [name for name in part.coords if name not in part.dims]


def _positive(part: xr.DataArray) -> bool:
    return bool((part >= 0).any()) and not bool((part < 0).any())
