"""What a step of diagnostics says, for the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.report.figures import curve
from emcube.report.text import clean
from emcube.xray import pretty_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from emcube.results import Result

__all__ = ["Diagnosed", "diagnosed"]

FEWEST_CELLS = 30
"""Cells of a level from which it is drawn."""


@dataclass(frozen=True)
class Diagnosed:
    """One step: sentences, keys of figures with their captions, and a table of lines.

    Attributes
    ----------
    step : str
    said : list of str
    figures : list of tuple
    lines : list of list of str
        A row for each component: its name, and the bias of each line. Empty where none was asked about.
    line_names : list of str
    """

    step: str
    said: list[str]
    figures: list[tuple[str, str]]
    lines: list[list[str]] = field(default_factory=list)
    line_names: list[str] = field(default_factory=list)


def diagnosed(result: Result, figures: dict[str, Any]) -> list[Diagnosed]:
    """Sentences and curves of each diagnostics step; curves are added to `figures`."""
    return [
        _one(result, step, figures) for step in result.steps if result.verb(step) == "diagnostics"
    ]


def _one(result: Result, step: str, figures: dict[str, Any]) -> Diagnosed:
    node = result[step]
    drawn = []
    axes = [clean(axis) for axis in node.attrs["axes"]]
    lags = node["lag"].values.astype(np.float64)
    for i, axis in enumerate(axes):
        values = node["residual_correlation"].values[i].astype(np.float64)
        if not np.isfinite(values).any():
            continue
        key = f"correlation-{step}-{i}"
        error = float(np.nanmax(node["residual_correlation_error"].values[i]))
        figures[key] = curve(
            lags,
            values,
            x_label="channels apart" if axis == "signal" else f"pixels apart along {axis}",
            y_label="correlation",
            value="correlation",
            band=2.0 * error,
        )
        where = "channels" if axis == "signal" else f"neighbours along {axis}"
        drawn.append(
            (key, f"What is left of {where}: correlation, and two standard errors of none")
        )
    if "denoised_variance" in node:
        key = f"variance-{step}"
        mean = node["raw_mean"].values.astype(np.float64)
        # The variance of a few cells says nothing.
        kept = (mean > 0) & (node["n_cells"].values >= FEWEST_CELLS)
        share = node["denoised_variance"].values[kept] / mean[kept]
        figures[key] = curve(
            np.log10(mean[kept]),
            share,
            x_label="mean counts (power of ten)",
            y_label="variance over mean",
            log=True,
            value="variance over mean",
            rule=(1.0, "of counts"),
        )
        drawn.append((key, "Variance of denoised values over their mean: 1 is what counts have"))
    return Diagnosed(
        clean(step),
        [clean(text) for text in node.attrs["said"]],
        drawn,
        list(_line_rows(node)),
        [clean(pretty_line(str(name))) for name in node.attrs.get("lines") or ()],
    )


def _line_rows(node: xr.Dataset) -> Iterator[list[str]]:
    """Bias of each line where each component is, in per cent with its standard error."""
    if "line_bias" not in node:
        return
    bias, error = (
        100.0 * np.asarray(node[name].transpose("component", "line").values, dtype=np.float64)
        for name in ("line_bias", "line_bias_error")
    )
    for k, (values, errors) in enumerate(zip(bias, error, strict=True)):
        yield [f"Component {k}", *map(_bias, values, errors)]


def _bias(value: float, error: float) -> str:
    if not np.isfinite(value):
        return "no counts"
    # As many digits as the error has a say in.
    digits = 0 if error >= 1.0 else 1 if error >= 0.1 else 2
    return f"{value:+.{digits}f} ± {error:.{digits}f} %".replace("-", "\N{MINUS SIGN}")
