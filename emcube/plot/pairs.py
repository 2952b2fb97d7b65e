"""Data beside what a model makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError
from emcube.plot import style
from emcube.plot.frames import (
    BAR,
    MAX_PANEL,
    Scaling,
    aspect,
    choose_frames,
    draw_bar,
    draw_image,
    draw_rows,
    scalars,
)
from emcube.xray import pretty_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["raw_and_denoised"]

_MAX_ROWS = 3
"""More rows than these are laid out in bands: a line a column, raw above denoised."""

_MAX_COLUMNS = 4


def raw_and_denoised(
    raw: xr.DataArray,
    denoised: xr.DataArray,
    *,
    by: str | None = None,
    names: Sequence[str] = ("raw", "denoised"),
    residual: bool = False,
    max_frames: int = 5,
    title: str | None = None,
) -> Figure:
    """Draw data beside what a model makes of them, on one scale.

    Parameters
    ----------
    raw, denoised : DataArray
        Of the same dims and shape. Beside `by` there is one dim (two curves in one frame), two (two images)
        or three and four (a few positions of the leading ones, raw above denoised).
    by : str, optional
        A further dim, with a pair of its own for each position (lines, components).
    names : sequence of two str
        What the two are called.
    residual : bool, default False
        Draw their difference too, symmetric about zero.
    max_frames : int, default 5
        Most positions shown along the leading dims.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure
        The scale is that of the denoised data: the range of raw counts is that of their noise.

    Raises
    ------
    InputError
        If the two differ in dims or shape, or have too many of them.
    """
    if raw.dims != denoised.dims or raw.shape != denoised.shape:
        raise InputError(
            f"raw_and_denoised: got {dict(raw.sizes)} and {dict(denoised.sizes)}, expected the same",
            hint="select the same part of both",
        )
    if len(names) != 2:
        raise InputError(
            f"names of raw and denoised: got {len(names)}, expected two",
            hint="names=('raw', 'PCA')",
        )
    if by is not None:
        style.need_dims(raw, by, "raw_and_denoised")
    inner = raw.ndim - (by is not None)
    if not 1 <= inner <= 4:
        raise InputError(
            f"raw_and_denoised: got {inner} dims beside {by!r}, expected one to four",
            hint="select the others first, or name one of them with by=",
        )
    both, captions = _together(raw, denoised, by, max_frames)
    rows = [""]
    if by is not None:
        rows = [pretty_line(n) if "_" in n else n for n in style.names_along(raw, by, None)]
    said = [style.plain(name) for name in names]
    if residual:
        both["residual"] = both["raw"].astype(np.float64) - both["denoised"]
        said.append(f"{said[0]} − {said[1]}")
    if inner == 1:
        return _curve_pairs(both, rows, said, title)
    if inner > 2:
        return _frame_rows(both, rows, captions, said, title)
    if len(rows) <= _MAX_ROWS:
        return _image_rows(both, rows, said, title)
    return _image_bands(both, rows, said, title)


def _together(
    raw: xr.DataArray, denoised: xr.DataArray, by: str | None, max_frames: int
) -> tuple[xr.Dataset, list[str]]:
    """Both with a leading dim ``row``, computed together, and what the frames are called."""
    captions = [""]
    parts = []
    for data in (raw, denoised):
        data = data.drop_vars(scalars(data))
        data = (
            data.expand_dims("row") if by is None else data.transpose(by, ...).rename({by: "row"})
        )
        data = data.drop_vars("row", errors="ignore")
        if data.ndim > 3:
            data, captions = choose_frames(data, data.dims[1:-2], max_frames)
            data = data.transpose("row", "frame", ...)
        parts.append(data)
    both = xr.Dataset({"raw": parts[0], "denoised": parts[1]}).compute()
    for name, data in zip(("raw", "denoised"), (raw, denoised), strict=True):
        both[name].attrs = dict(data.attrs)
    return both, captions


def _scales(both: xr.Dataset, row: int) -> dict[str, Scaling]:
    """One scale for a pair, and one of its own for their difference."""
    raw = both["raw"].isel(row=row).values.astype(np.float64)
    fitted = both["denoised"].isel(row=row).values.astype(np.float64)
    finite = raw[np.isfinite(raw)]
    negative = bool(finite.size) and finite.mean() < -0.02 * max(float(finite.max()), 0.0)
    # What noise leaves below zero of net counts is noise; data that are negative by nature are not.
    norm, colors, extend = style.map_scale(fitted, signed=negative)
    if finite.size and extend == "neither" and float(finite.max()) > (norm.vmax or 0.0):
        extend = "max"
    scale: dict[str, Scaling] = dict.fromkeys(("raw", "denoised"), (norm, colors, extend))
    if "residual" in both:
        scale["residual"] = style.centred_scale(both["residual"].isel(row=row).values)
    return scale


def _image_rows(
    both: xr.Dataset, rows: Sequence[str], names: Sequence[str], title: str | None
) -> Figure:
    keys = [str(key) for key in both]
    shape = aspect(both["raw"].isel(row=0))
    bars = len(keys) - 1
    panel = min((style.WIDTH - bars * BAR - 0.3) / len(keys), MAX_PANEL)
    figure = style.new_figure(
        len(rows) * (panel * shape + 0.1) + 0.45,
        width=len(keys) * panel + bars * BAR + 0.3,
        title=title,
        images=True,
    )
    grid = figure.subplots(len(rows), len(keys), squeeze=False)
    label = style.value_label(both["raw"]) or "intensity"
    for r, row in enumerate(rows):
        scales = _scales(both, r)
        for c, key in enumerate(keys):
            axes = grid[r, c]
            drawn = draw_image(axes, both[key].isel(row=r), scale=scales[key], colorbar=False)
            if r == 0:
                axes.set_title(names[c], fontsize=style.TEXT)
            if c:
                draw_bar(drawn, [axes], scales[key][2], label if c == len(keys) - 1 else "")
        if row:
            grid[r, 0].set_ylabel(row, fontsize=style.TEXT)
    return figure


def _image_bands(
    both: xr.Dataset, rows: Sequence[str], names: Sequence[str], title: str | None
) -> Figure:
    """Draw many pairs: a column for each, raw above denoised, in as many bands as it takes."""
    keys = [str(key) for key in both]
    columns = min(
        range(3, _MAX_COLUMNS + 1), key=lambda c: (-(-len(rows) // c) * c - len(rows), -c)
    )
    bands = -(-len(rows) // columns)
    shape = aspect(both["raw"].isel(row=0))
    panel = (style.WIDTH - 0.3) / columns - 0.05
    figure = style.new_figure(
        bands * (len(keys) * (panel * shape + 0.08) + 0.55 + 0.3 * (len(keys) > 2)),
        title=title,
        images=True,
    )
    grid = figure.subplots(bands * len(keys), columns, squeeze=False)
    label = style.value_label(both["raw"]) or "intensity"
    for r in range(bands * columns):
        band, c = divmod(r, columns)
        places = grid[band * len(keys) : (band + 1) * len(keys), c]
        if r >= len(rows):
            for axes in places:
                axes.set_visible(False)
            continue
        scales = _scales(both, r)
        for k, (key, axes) in enumerate(zip(keys, places, strict=True)):
            drawn = draw_image(
                axes, both[key].isel(row=r), scale=scales[key], colorbar=False, bar=c + k == 0
            )
            if c == 0:
                axes.set_ylabel(names[k], fontsize=style.TEXT)
            if k:  # one bar under the pair, another under the difference
                said = label if r == len(rows) - 1 and k == len(keys) - 1 else ""
                draw_bar(drawn, [axes], scales[key][2], said, below=True)
        places[0].set_title(rows[r], fontsize=style.TEXT)
    return figure


def _frame_rows(
    both: xr.Dataset,
    rows: Sequence[str],
    captions: Sequence[str],
    names: Sequence[str],
    title: str | None,
) -> Figure:
    """Draw a row for raw, denoised and so on of each line, and a column for each frame."""
    keys = [str(key) for key in both]
    data = xr.concat([both[key] for key in keys], dim="key", coords="minimal", compat="override")
    stacked = data.stack(panel=("row", "key"), create_index=False).transpose("panel", "frame", ...)
    stacked.attrs = dict(both["raw"].attrs)
    scales = [scale for r in range(len(rows)) for scale in _scales(both, r).values()]
    titles = [f"{row}\n{name}".strip() for row in rows for name in names]
    return draw_rows(stacked, titles, captions, scales, False, title)


def _curve_pairs(
    both: xr.Dataset, rows: Sequence[str], names: Sequence[str], title: str | None
) -> Figure:
    n = len(rows)
    figure = style.new_figure(max(1.5 * n, 2.4) + 0.4, title=title)
    grid = figure.subplots(n, 1, sharex=True, squeeze=False)
    raw = both["raw"].transpose("row", ...)
    x = style.positions(raw, raw.dims[1])
    looks: dict[str, dict[str, Any]] = {
        "raw": {"color": "0.65", "linewidth": 0.6},
        "denoised": {"color": style.color(1), "linewidth": 1.1},
        "residual": {"color": style.color(0), "linewidth": 0.6},
    }
    for r, axes in enumerate(grid.flat):
        for key, name in zip(map(str, both), names, strict=True):
            values: NDArray[Any] = both[key].transpose("row", ...).values[r]
            axes.plot(x, values, label=name, **looks[key])
        axes.set_title(rows[r], fontsize=style.TEXT, loc="left", pad=2)
        style.number_axis(axes)
        style.dress(axes)
        axes.set_xlim(float(x.min()), float(x.max()))
    grid[0, 0].legend(fontsize=style.SMALL, frameon=False)
    axes.set_xlabel(style.axis_label(raw, raw.dims[1]), fontsize=style.TEXT)
    figure.supylabel(style.value_label(raw) or "intensity", fontsize=style.TEXT)
    return figure
