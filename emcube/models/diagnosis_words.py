"""What the diagnostics of a model mean, in plain words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["WORDS", "chi_words", "correlation_words", "level_words", "line_words"]

MUCH = 4.0
"""Standard errors from which a difference is told as one."""

WORTH = 0.02
"""Correlations below this are not worth a word, however sure they are."""

MOST_LINES = 4
"""Biases of lines that have a sentence of their own."""

LINE_WORTH = 0.02
"""Bias of a line below which it is not worth a word."""

WORDS = {
    "chi_square": "chi-square per degree of freedom, of counting noise 1",
    "deviance": "Poisson deviance over its expectation, of counting noise 1",
    "chi_square_spectrum": "chi-square by channel, of counting noise 1",
    "residual_correlation": "correlation of residuals with those of neighbours",
    "residual_correlation_error": "standard error of the correlation",
    "denoised_mean": "mean of denoised values",
    "raw_mean": "mean of the counts of the other half",
    "denoised_variance": "variance of denoised values, between halves",
    "theory_variance": "variance of denoised values, by theory",
    "n_cells": "cells of a level",
    "line_bias": "share by which denoising makes the counts of a line too large",
    "line_bias_error": "standard error of the bias of a line",
}
"""What each variable is, in a few words."""


def chi_words(mean: float, error: float) -> str:
    """What the mean chi-square and its standard error say."""
    if not math.isfinite(mean):
        return "There is nothing in the data that could be compared with the model."
    told = f"Chi-square is {mean:.3f} on average, where counting noise alone gives 1"
    if abs(mean - 1.0) <= max(0.02, MUCH * error):
        return f"{told}: the model leaves what counts leave."
    if mean > 1.0:
        return (
            f"{told}: the model misses something (a component, a peak that shifts), or the data "
            "scatter more than "
            "counts do."
        )
    return (
        f"{told}: the data scatter less than counts do. Were they smoothed, interpolated, "
        "denoised or scaled, or has "
        "the model too many components?"
    )


def correlation_words(small: xr.Dataset) -> list[str]:
    """Which neighbours are left alike or opposed, and why that may be."""
    said = []
    found, error = small["residual_correlation"], small["residual_correlation_error"]
    for axis in found["axis"].values:
        values, errors = (np.asarray(v.sel(axis=axis).values) for v in (found, error))
        if axis == "signal":
            # Farther channels are opposed by K / E, since loadings were fitted.
            values, errors = values[:1], errors[:1]
        told = np.nan_to_num(np.abs(values)) > np.maximum(WORTH, MUCH * np.nan_to_num(errors))
        if not told.any():
            continue
        sizes = np.where(told, np.abs(values), 0.0)
        far = 1 + int(np.argmax(sizes))
        # What falls off with the distance is told of neighbours; a pattern stands out from them.
        if told[0] and sizes[far - 1] - sizes[0] <= MUCH * errors[far - 1]:
            far = 1
        value = float(values[far - 1])
        if axis == "signal":
            why = (
                "channels are not independent (a detector that shares charge, interpolation, "
                "smoothing), or lines are "
                "described badly"
            )
            what = "neighbouring channels"
        elif far == 1:
            why = (
                "a probe wider than a pixel, drift, smoothing, or a structure that the model misses"
            )
            what = f"neighbours along {axis}"
        else:
            why = (
                "a pattern of the scan or of the electronics (a zero peak, mains hum), or a structure that "
                "the model misses"
            )
            what = f"pixels {far} apart along {axis}"
        sign = "alike" if value > 0 else "opposed"
        said.append(f"What is left of {what} is {sign} (correlation {value:+.2f}): {why}.")
    if not said:
        said.append("What is left of neighbouring pixels and channels is not correlated.")
    return said


def line_words(
    bias: NDArray[np.float64], error: NDArray[np.float64], names: list[str]
) -> list[str]:
    """Which lines denoising changes where a component is: biases (K, L) and their standard errors."""
    said = []
    beyond = np.abs(np.nan_to_num(bias)) > np.maximum(LINE_WORTH, MUCH * np.nan_to_num(error))
    found = np.argwhere(beyond)
    # The largest first: a table tells the others.
    found = found[np.argsort(-np.abs(bias[beyond]), kind="stable")]
    for k, i in found[:MOST_LINES]:
        way = "few" if bias[k, i] < 0 else "many"
        said.append(
            f"Where component {k} is, denoising makes too {way} counts of {names[i]}: "
            f"{100 * bias[k, i]:+.0f} % (standard error {100 * error[k, i]:.1f} %)."
        )
    if len(found) > MOST_LINES:
        said.append(f"So it is for {len(found) - MOST_LINES} more pairs of component and line.")
    if not beyond.any():
        said.append(
            f"Denoising changes no line ({', '.join(names)}) by more than {100 * LINE_WORTH:g} %, or than "
            "its counting error, where any component is."
        )
    return said


def level_words(
    found: xr.Dataset, sums: NDArray[np.float64], k: int, facts: dict[str, Any], said: list[str]
) -> None:
    """Say what denoising does to variances and values, and keep the figures among the facts.

    Parameters
    ----------
    found : Dataset
        Curves over levels.
    sums : ndarray, shape (B + 1, 6)
        See `emcube.models.denoising.LevelSweep`.
    k : int
        Principal components that were kept.
    facts : dict
        Takes the figures.
    said : list of str
        Takes the sentences.
    """
    counted = sums[1:, 5].sum()
    measured = float(sums[1:, 3].sum() / counted) if counted > 0 else math.nan
    theory = float(sums[1:, 4].sum() / counted) if counted > 0 else math.nan
    facts |= {"denoised_over_counting": measured, "theory_over_counting": theory}
    facts["n_components_denoised"] = k
    if not measured > 0:
        said.append("There are too few counts to say what denoising does to variances.")
        return
    said.append(
        f"After denoising with {k} principal component{'' if k == 1 else 's'} a value scatters "
        f"with {measured:.2g} of "
        f"the variance of its counts (theory: {theory:.2g}), and neighbouring values scatter "
        "together. Count statistics "
        "do not survive: the root of a denoised value is no error bar of it."
    )
    below = float(sums[0, 0] / sums[:, 0].sum())
    weight = found["raw_mean"] * found["n_cells"]
    full = weight > 100.0
    bias = (found["denoised_mean"] - found["raw_mean"]) / found["raw_mean"].where(full)
    worst = float(np.abs(bias).max()) if bool(full.any()) else math.nan
    facts |= {"largest_bias": worst, "share_below_levels": below}
    # The counts of a level scatter, too, and the worst of two dozen levels is soon two errors off.
    bias = bias.where(np.abs(bias) > MUCH / np.sqrt(weight.where(full)))
    worst = float(np.abs(bias).max())
    if math.isfinite(worst) and worst > 0.05:
        at = float(found["denoised_mean"][int(np.nanargmax(np.abs(bias.values)))])
        said.append(
            "Denoised values are biased where they are chosen by their size: those of about "
            f"{at:.2g} counts differ by "
            f"{100 * worst:.0f} % from the counts of the other half of the data."
        )
    else:
        said.append(
            "At no level do denoised values differ from the other half of the counts by more than 5 %, or "
            "than counting explains."
        )
