"""Subtract a power-law background from spectra, one block at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_EXPONENT", "subtract_power_law"]

#: Exponents are held to 0 <= r <= this. EELS backgrounds have 2 to 6; what lies outside is noise.
MAX_EXPONENT = 20.0

_NODES = 513
_SLAB = 2**20


def subtract_power_law(
    spectra: NDArray[Any],
    energy: NDArray[np.float64],
    fit: slice,
    *,
    zero_fill: bool = True,
    dtype: np.dtype[Any] | None = None,
) -> NDArray[Any]:
    """Subtract ``A E**-r`` from each spectrum, A and r from the areas of two halves of a window.

    The window is split into halves of areas I1 and I2. r solves
    ``I1 / I2 = sum_1 E**-r / sum_2 E**-r`` over the channels of the halves, and A makes the area of the
    background over the whole window that of the data.

    Parameters
    ----------
    spectra : ndarray of shape (P, E)
        Any real dtype.
    energy : ndarray of shape (E,)
        Increasing; positive wherever the background is evaluated.
    fit : slice
        Channels of the window: at least two.
    zero_fill : bool
        Set channels before the window to 0; otherwise the background is subtracted there too.
    dtype : numpy.dtype, optional
        Of the result; float64 by default.

    Returns
    -------
    ndarray of shape (P, E)

    Notes
    -----
    Egerton's two-area method approximates the ratio of the integrals; here the sums over the channels
    themselves are inverted, so that an exact power law is removed exactly at any width of the window. The
    ratio depends on r alone: it is tabulated once and inverted by a spline, whatever the number of
    spectra. Sums, unlike logarithms of single channels, bear zeros and negative read noise.

    Memory: float64 temporaries of 8 MiB, not of the size of the block.

    References
    ----------
    R. F. Egerton, Electron Energy-Loss Spectroscopy in the Electron Microscope, 3rd ed. (2011), section
    4.4.2. https://doi.org/10.1007/978-1-4419-9583-4
    """
    first, last = fit.start, fit.stop
    middle = first + (last - first) // 2
    start = first if zero_fill else 0
    # Relative to the window, so that powers stay near one in any unit.
    log_energy = np.log(energy[start:] / energy[first])
    exponent_of = _inverse(log_energy[first - start : last - start], middle - first)
    out = np.empty(spectra.shape, dtype=np.float64 if dtype is None else dtype)
    out[:, :start] = 0
    step = max(1, _SLAB // max(1, log_energy.size))
    for low in range(0, spectra.shape[0], step):
        rows = slice(low, low + step)
        area_1 = spectra[rows, first:middle].sum(axis=1, dtype=np.float64)
        area_2 = spectra[rows, middle:last].sum(axis=1, dtype=np.float64)
        exponent = exponent_of(area_1, area_2)
        background = np.exp(-exponent[:, None] * log_energy)
        area = area_1 + area_2
        # A window without counts, or of negative noise, says nothing of a background: none is removed.
        area[area <= 0] = 0.0
        background *= (area / background[:, first - start : last - start].sum(axis=1))[:, None]
        np.subtract(spectra[rows, start:], background, out=background)
        out[rows, start:] = background
    return out


def _inverse(log_energy: NDArray[np.float64], half: int) -> Any:
    """Return the function that gives exponents from the areas of both halves of the window."""
    from scipy.interpolate import CubicSpline

    nodes = np.linspace(0.0, MAX_EXPONENT, _NODES)
    powers = np.exp(-nodes[:, None] * log_energy)
    # Increases strictly with r: energies of the first half are the lower ones.
    log_ratio = np.log(powers[:, :half].sum(axis=1)) - np.log(powers[:, half:].sum(axis=1))
    spline = CubicSpline(log_ratio, nodes)

    def exponent_of(area_1: NDArray[np.float64], area_2: NDArray[np.float64]) -> NDArray[Any]:
        exponent = np.where(area_1 <= 0, 0.0, MAX_EXPONENT)
        exponent[np.isnan(area_1) | np.isnan(area_2)] = np.nan
        both = (area_1 > 0) & (area_2 > 0)
        ratio = np.log(area_1[both]) - np.log(area_2[both])
        exponent[both] = spline(np.clip(ratio, log_ratio[0], log_ratio[-1]))
        return exponent

    return exponent_of
