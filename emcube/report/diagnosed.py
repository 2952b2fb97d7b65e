"""What a step of diagnostics says, for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.report.figures import curve
from emcube.report.text import clean

if TYPE_CHECKING:
    from emcube.results import Result

__all__ = ["Diagnosed", "diagnosed"]


@dataclass(frozen=True)
class Diagnosed:
    """One step: sentences, and keys of figures with their captions."""

    step: str
    said: list[str]
    figures: list[tuple[str, str]]


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
        kept = mean > 0
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
    return Diagnosed(clean(step), [clean(text) for text in node.attrs["said"]], drawn)
