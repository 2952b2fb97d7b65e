"""Spectra that a user gives: as fixed components, or to start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError
from emcube.models.labels import Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["given_spectra", "known_spectra", "replaced"]


def known_spectra(given: Any, labels: Labels, n_components: int) -> NDArray[np.float64]:
    """Spectra (M, E) over the used channels that are to stay as they are; none (0, E) for None.

    Parameters
    ----------
    given : None, DataArray, array, HyperSpy signal, fitted model, or a list of them
    labels : Labels
        Of the cube.
    n_components : int
        K.

    Raises
    ------
    InputError
        They do not fit the cube, or are more than there are components.
    """
    if given is None:
        return np.zeros((0, labels.used_channels(np.zeros(labels.n_all_channels)).size))
    parts = given if isinstance(given, list | tuple) else [given]
    if not any(_is_labelled(part) for part in parts):
        parts = [given]
    known = np.concatenate([given_spectra(_spectra_of(p), labels, None, "known") for p in parts])
    if len(known) > n_components:
        raise InputError(
            f"{len(known)} spectra are known, {n_components} components are asked for",
            hint="raise n_components",
        )
    return known


def _is_labelled(part: Any) -> bool:
    return isinstance(part, xr.DataArray) or hasattr(part, "axes_manager") or _is_model(part)


def _is_model(part: Any) -> bool:
    return hasattr(part, "components_")


def _spectra_of(part: Any) -> Any:
    """A signal of HyperSpy with its axis as a labelled array, a model's components; others as they are."""
    if _is_model(part):
        return part.components_
    if not hasattr(part, "axes_manager"):
        return part
    axes = part.axes_manager
    values = np.asarray(part.data, dtype=np.float64)
    # HyperSpy names its energy axis "Energy" or "Energy loss"; here it is what the channels are.
    coords, dims = {}, []
    for axis in axes.signal_axes[::-1]:
        name = "energy" if str(axis.name).lower().startswith("energy") else str(axis.name)
        dims.append(name)
        coords[name] = (name, np.asarray(axis.axis, dtype=np.float64), {"units": str(axis.units)})
    flat = values.reshape((-1, *values.shape[values.ndim - len(dims) :]))
    return xr.DataArray(flat, dims=("component", *dims), coords=coords)


def given_spectra(given: Any, labels: Labels, n: int | None, name: str) -> NDArray[np.float64]:
    """Spectra (n, E) over the used channels that a user gives, labelled or bare; each sums to one.

    Raises
    ------
    InputError
        Their number or channels are not those expected, or one is negative, not finite or empty.
    """
    if isinstance(given, xr.DataArray) and not labels.plain:
        given = _on_the_axes(given, labels, name)
    values = np.asarray(given, dtype=np.float64)
    if values.ndim == len(labels.sig_shape) and values.size == labels.n_all_channels:
        values = values[None]
    values = values.reshape(len(values), -1) if values.ndim else values
    rows = len(values) if n is None and values.ndim else n
    if values.shape != (rows, labels.n_all_channels) or not rows:
        raise InputError(
            f"{name} has the shape {values.shape}, expected {rows or 'one spectrum or more'} of "
            f"{labels.n_all_channels} channels",
            hint="interpolate spectra onto the axis of the cube: spectrum.interp(energy=cube.energy)",
        )
    values = labels.used_channels(values)
    if not np.isfinite(values).all() or values.min() < 0 or (values.sum(axis=1) <= 0).any():
        raise InputError(
            f"{name} must be finite, not negative, and no spectrum may be zero in all used channels"
        )
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def _on_the_axes(given: xr.DataArray, labels: Labels, name: str) -> xr.DataArray:
    """A labelled array with its signal dims last, held against the axes of the cube."""
    sig = labels.signal_beside("component")
    missing = [d for d in sig if d not in given.dims]
    if missing:
        raise InputError(f"{name} has no dim {missing[0]!r}: its dims are {given.dims}")
    for dim, own in zip(sig, labels.sig_dims, strict=True):
        mine, yours = labels.sig_coords.get(own), given.coords.get(dim)
        if mine is None or yours is None or mine.dtype.kind not in "iuf":
            continue
        if yours.shape == mine.shape and np.allclose(
            yours.values,
            mine.values,
            rtol=0,
            atol=1e-3 * np.abs(np.diff(mine.values)).min(initial=1),
        ):
            continue
        raise InputError(
            f"{name}: {dim} goes from {yours.values[0]:g} to {yours.values[-1]:g} in {yours.size} channels, "
            f"that of the cube from {mine.values[0]:g} to {mine.values[-1]:g} in {mine.size}",
            hint=f"interpolate it onto the axis of the cube: spectrum.interp({dim}=cube.{own})",
        )
    other = [d for d in given.dims if d not in sig]
    return given.transpose(*other, *sig)


def replaced(
    first: NDArray[np.float64], known: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Known spectra, then those of a start that are not the nearest to one of them."""
    from scipy.optimize import linear_sum_assignment

    if not len(known):
        return first
    a, b = known * scale, first * scale
    a, b = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (a, b))
    _, taken = linear_sum_assignment(-(a @ b.T))
    return np.concatenate((known, np.delete(first, taken, axis=0)))
