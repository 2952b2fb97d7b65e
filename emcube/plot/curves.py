"""The scree plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from emcube.errors import InputError
from emcube.plot import style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["compositions", "scree"]

_VALUES = ("explained_variance", "eigenvalue", "singular_value", "value")


def scree(
    values: xr.DataArray | xr.Dataset,
    *,
    threshold: float | xr.DataArray | None = None,
    noise_floor: float | None = None,
    n_components: int | None = None,
    trivial_first: bool = False,
    limit: int = 50,
    title: str | None = None,
) -> Figure:
    """Draw explained variance by component on a logarithmic axis.

    Parameters
    ----------
    values : DataArray of shape (K,), or Dataset
        Explained variance, eigenvalues or singular values. Of a Dataset the variable
        ``explained_variance``, ``eigenvalue``, ``singular_value`` or ``value`` is drawn, and
        ``threshold`` where it has one.
    threshold : float or DataArray of shape (K,), optional
        What noise alone would reach at most, in the same units.
    noise_floor : float, optional
        What noise has on average, in the same units.
    n_components : int, optional
        How many components stand out; drawn in colour, the rest in grey.
    trivial_first : bool, default False
        The first component is the mean spectrum, as in uncentred weighted PCA, and its variance is no
        measure of contrast. It is marked.
    limit : int, default 50
        Most components drawn.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        If there is no curve of one dim to draw.
    """
    curve, bound = _curve_of(values, threshold)
    dim = curve.dims[0]
    curve = curve.isel({dim: slice(limit)})
    y = np.asarray(curve.values, dtype=np.float64)
    x = style.positions(curve, dim)
    figure = style.new_figure(3.4, width=4.8, title=title)
    axes = figure.add_subplot()
    kept = len(y) if n_components is None else min(n_components, len(y))
    _draw_points(axes, x, y, kept, trivial_first)
    axes.set_yscale("log")
    if bound is not None:
        _draw_threshold(axes, x, bound, limit)
    if noise_floor is not None and noise_floor > 0:
        axes.axhline(
            noise_floor, color=style.color(5), linestyle="-.", linewidth=1.0, zorder=1,
            label="noise floor (mean of all that is left)",
        )  # fmt: skip
    if n_components is not None:
        _draw_number(axes, x, kept, n_components)
    name = style.plain(curve.name or "explained variance").replace("_", " ")
    unit = style.units_of(curve)
    axes.set_ylabel(f"{name} ({unit})" if unit else name)
    axes.set_xlabel("component")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.margins(x=0.03, y=0.1)
    style.number_axis(axes, ticks=6)
    style.dress(axes, grid=True)
    axes.legend(fontsize=style.SMALL, frameon=False, loc="upper right")
    return figure


def compositions(
    data: xr.DataArray,
    *,
    by: str = "cluster",
    of: str = "component",
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw what each of some things is made of, as stacked bars: clusters of components, say.

    Parameters
    ----------
    data : DataArray of shape (n, K)
        How much of each part; negative amounts count as none.
    by, of : str
        Dims of the things and of the parts.
    names : sequence of str, optional
        Of the things.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure
        Bars as long as the amounts are, in the data's unit, parts in the colours of the components.

    Raises
    ------
    InputError
        If the dims are not those two.
    """
    if set(data.dims) != {by, of}:
        raise InputError(
            f"compositions: got dims {tuple(data.dims)}, expected {(by, of)}",
            hint="name the dims with by= and of=",
        )
    data = data.transpose(by, of).compute()
    values = np.nan_to_num(np.maximum(np.asarray(data.values, dtype=np.float64), 0.0))
    n = len(values)
    figure = style.new_figure(0.32 * n + 0.75, width=5.5, title=title)
    axes = figure.add_subplot()
    left = np.zeros(n)
    for k, part in enumerate(style.names_along(data, of, None)):
        axes.barh(
            np.arange(n), values[:, k], left=left, color=style.color(k), height=0.7, label=part
        )
        left += values[:, k]
    axes.set_yticks(np.arange(n), style.names_along(data, by, names))
    axes.invert_yaxis()
    axes.set_xlabel(style.value_label(data) or "amount")
    style.dress(axes)
    axes.tick_params(axis="y", length=0)
    figure.legend(
        loc="outside right center", fontsize=style.SMALL, frameon=False, handlelength=1.0,
        handleheight=1.0,
    )  # fmt: skip
    return figure


def _curve_of(
    values: xr.DataArray | xr.Dataset, threshold: float | xr.DataArray | None
) -> tuple[xr.DataArray, float | NDArray[np.float64] | None]:
    if isinstance(values, xr.Dataset):
        name = next((n for n in _VALUES if n in values), None)
        if name is None:
            raise InputError(
                f"scree: got a Dataset of {sorted(map(str, values))}, expected one of {list(_VALUES)}",
                hint="hand over the variable to be drawn",
            )
        if threshold is None and "threshold" in values:
            threshold = values["threshold"]
        curve = values[name]
    else:
        curve = values
    if curve.ndim != 1 or curve.size == 0:
        raise InputError(
            f"scree: got a curve of dims {tuple(curve.dims)} and shape {curve.shape}, expected one dim",
            hint="hand over the explained variance by component",
        )
    curve = curve.compute()
    if isinstance(threshold, xr.DataArray):
        bound = np.asarray(threshold.values, dtype=np.float64)
        return curve, float(bound) if bound.ndim == 0 else bound
    return curve, None if threshold is None else float(threshold)


def _draw_points(
    axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], kept: int, trivial_first: bool
) -> None:
    # A logarithmic axis has no place for values that rounding made zero or negative.
    shown = y > 0
    axes.plot(x[shown], y[shown], color="0.75", linewidth=0.8, zorder=1)
    first = 1 if trivial_first else 0
    index = np.arange(len(y))
    signal, noise = shown & (index < kept) & (index >= first), shown & (index >= max(kept, first))
    if signal.any():
        axes.plot(
            x[signal],
            y[signal],
            "o",
            color=style.color(0),
            markersize=5,
            label="components",
            zorder=3,
        )
    if noise.any():
        axes.plot(
            x[noise], y[noise], "o", color="0.55", markersize=3.5, markerfacecolor="white",
            markeredgewidth=0.8, label="noise", zorder=2,
        )  # fmt: skip
    if trivial_first and shown[0]:
        axes.plot(
            x[:1], y[:1], "D", color=style.color(3), markersize=5, zorder=3,
            label="mean spectrum (trivial: no contrast)",
        )  # fmt: skip


def _draw_threshold(
    axes: Axes, x: NDArray[np.float64], bound: float | NDArray[np.float64], limit: int
) -> None:
    look: dict[str, Any] = {
        "color": style.color(1),
        "linestyle": "--",
        "linewidth": 1.0,
        "label": "noise threshold",
    }
    if isinstance(bound, float):
        axes.axhline(bound, **look)
        return
    n = min(limit, len(bound), len(x))
    axes.plot(x[:n], bound[:n], **look)


def _draw_number(axes: Axes, x: NDArray[np.float64], kept: int, n_components: int) -> None:
    """Draw a line between the last component that counts and the first that does not."""
    label = f"number of components: {n_components}"
    if 0 < kept < len(x):
        middle = float(x[kept - 1] + x[kept]) / 2
        axes.axvline(middle, color="0.4", linewidth=0.8, linestyle=":", label=label)
    else:  # all or none of those shown: there is no place for a line, but the number is still said
        axes.plot([], [], " ", label=label)
