"""Fractions of phases by field of view, and whether one field stands for all, in one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.errors import InputError
from emcube.plot import style

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["phase_fractions"]

PARTS = (
    ("share_counting", "counting", "0.35"),
    ("share_area", "finite area", "0.65"),
    ("share_fields", "fields differ", "#D55E00"),
)
"""Parts of the spread, in words and colours."""


def phase_fractions(
    data: xr.Dataset, *, names: Sequence[str] | None = None, title: str | None = None
) -> Figure:
    """Draw fractions by field, where their spread comes from, and how many fields are needed.

    Parameters
    ----------
    data : Dataset
        Of `emcube.phase_fractions`.
    names : sequence of str, optional
        Of the phases.
    title : str, optional
        Over the figure.

    Returns
    -------
    Figure
        Left, for each phase: its fraction in each field with the interval that the field's own tiles give,
        the mean over all fields as a line, and its interval as a band. Right, above: parts of the spread
        from field to field. Right, below: the interval of the mean against the number of fields, with the
        aim.

    Raises
    ------
    InputError
        A variable is missing.
    """
    needed = ("fraction", "fraction_interval", "mean_fraction", "share_area", "fields_needed")
    missing = [name for name in needed if name not in data]
    if missing:
        raise InputError(
            f"phase_fractions: got a Dataset of {sorted(map(str, data.data_vars))}, {missing[0]!r} is "
            "missing",
            hint="hand over what em.phase_fractions gives",
        )
    data = data.compute()
    n_phases = data.sizes["phase"]
    named = _names(data, names)
    figure = style.new_figure(max(3.9, 0.75 * n_phases + 1.2), title=title)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.25, 1.0))
    _fields(figure.add_subplot(grid[:, 0]), data, named)
    _parts(figure.add_subplot(grid[0, 1]), data, named)
    _numbers(figure.add_subplot(grid[1, 1]), data, named)
    return figure


def _names(data: xr.Dataset, names: Sequence[str] | None) -> list[str]:
    if names is None:
        return [f"phase {k}" for k in data["phase"].values]
    if len(names) != data.sizes["phase"]:
        raise InputError(
            f"phase_fractions: got {len(names)} names for {data.sizes['phase']} phases",
            hint="give one name a phase, or none at all",
        )
    return [style.plain(name) for name in names]


def _fields(axes: Axes, data: xr.Dataset, named: list[str]) -> None:
    """Fractions of each phase side by side over the fields."""
    n_fields, n_phases = data.sizes["field"], data.sizes["phase"]
    fraction = data["fraction"].values
    interval = data["fraction_interval"].values
    mean, band = data["mean_fraction"].values, data["mean_interval"].values
    width = 0.8
    for k in range(n_phases):
        x = k + width * ((np.arange(n_fields) + 0.5) / n_fields - 0.5)
        left, right = k - 0.46, k + 0.46
        if np.isfinite(band[k]).all():
            axes.fill_between(
                [left, right], *band[k], color=style.color(k), alpha=0.18, linewidth=0
            )
        axes.plot([left, right], [mean[k]] * 2, color=style.color(k), linewidth=1.2)
        away = np.abs(interval[:, k].T - fraction[:, k])
        axes.errorbar(
            x, fraction[:, k], yerr=away, fmt="o", color=style.color(k), markersize=3.5,
            elinewidth=0.9, capsize=0,
        )  # fmt: skip
    axes.set_xticks(range(n_phases), named)
    axes.set_xlim(-0.6, n_phases - 0.4)
    axes.set_ylim(bottom=0.0)
    of = {"loadings": "share of the signal"}.get(str(data.attrs.get("of")), "fraction of the area")
    axes.set_title(
        f"{of}, {n_fields} field{'s' if n_fields > 1 else ''}", fontsize=style.TEXT, loc="left"
    )
    style.dress(axes, grid=True)
    axes.tick_params(axis="x", length=0)


def _parts(axes: Axes, data: xr.Dataset, named: list[str]) -> None:
    """Parts of the spread as stacked bars."""
    n = data.sizes["phase"]
    left = np.zeros(n)
    for name, word, color in PARTS:
        share = np.nan_to_num(data[name].values)
        axes.barh(np.arange(n), share, left=left, height=0.62, color=color, label=word)
        left = left + share
    axes.set_yticks(np.arange(n), named)
    axes.set_ylim(n - 0.4, -0.6)
    axes.set_xlim(0.0, 1.0)
    axes.set_title("where the spread comes from", fontsize=style.TEXT, loc="left")
    axes.set_xlabel("share of the variance")
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.45, -0.32), ncols=3, frameon=False,
        fontsize=style.SMALL, handlelength=1.0, columnspacing=1.0,
    )  # fmt: skip
    style.dress(axes)
    axes.tick_params(axis="y", length=0)


def _numbers(axes: Axes, data: xr.Dataset, named: list[str]) -> None:
    """Half width of the interval over the mean, against the number of fields."""
    needed = data["fields_needed"].values
    known = np.isfinite(needed)
    if not known.any():  # one field: what its own area allows
        needed = data["fields_needed_area"].values
        known = np.isfinite(needed)
    aim = float(data.attrs["relative_error"])
    most = float(np.max(needed[known], initial=1.0))
    x = np.geomspace(1.0, max(10.0, 2.0 * most), 60)
    for place, k in enumerate(np.flatnonzero(known)):
        half = _half_width(data, int(k))
        axes.plot(x, 100 * half / np.sqrt(x), color=style.color(int(k)), linewidth=1.2)
        axes.plot([needed[k]], [100 * half / np.sqrt(needed[k])], "o", color=style.color(int(k)),
                  markersize=4)  # fmt: skip
        axes.annotate(
            f"{int(needed[k])}", (needed[k], 100 * half / np.sqrt(needed[k])), xytext=_LABELS[place % 3],
            textcoords="offset points", fontsize=style.SMALL, color=style.color(int(k)),
        )  # fmt: skip
    axes.axhline(100 * aim, color="0.3", linestyle="--", linewidth=0.9)
    axes.axvline(data.sizes["field"], color="0.6", linestyle=":", linewidth=0.9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("fields")
    level = 100 * float(data.attrs["level"])
    axes.set_title(f"error of the mean (%, level {level:g} %)", fontsize=style.TEXT, loc="left")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_plain_number)
        axis.set_minor_formatter("")
    style.dress(axes, grid=True)


_LABELS = ((3, 4), (-3, -11), (9, -3))
"""Where numbers stand beside their points, in points: those of neighbours apart from each other."""


def _plain_number(value: float, _: object) -> str:
    return f"{value:g}"


def _half_width(data: xr.Dataset, k: int) -> NDArray[np.float64]:
    """Half width of the interval of the mean over it, of one field."""
    from scipy import stats

    n, level = data.sizes["field"], float(data.attrs["level"])
    tail = 0.5 - 0.5 * level
    if n > 1:
        size = stats.t.isf(tail, n - 1) * data["spread"].values[k]
    else:
        size = stats.norm.isf(tail) * data["fraction_std_area"].values[0, k]
    return np.asarray(size / data["mean_fraction"].values[k])
