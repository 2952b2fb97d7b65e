"""From loadings back to a labelled cube, lazily where the loadings are lazy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError
from emcube.models.fields import Fields, selections

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.models.labels import Labels

__all__ = ["in_order", "pixels_only", "rebuild", "times"]


def pixels_only(X: Any, where: Any) -> Any:
    """The part of a selection that lies over pixels: a fitted model has fixed the channels.

    Of several cubes a list with one part a cube.
    """
    if where is not None and isinstance(X, Fields):
        pairs = zip(X.cubes, selections(where, X), strict=True)
        return [pixels_only(cube, one) for cube, one in pairs]
    if where is None or not isinstance(X, xr.DataArray):
        return where
    from emcube.cube import resolve_where

    return resolve_where(X, where)[0]


def in_order(loadings: xr.DataArray, n_components: int, what: str = "loadings") -> xr.DataArray:
    """Loadings with the dim ``component`` last, in the order of the model where its numbers are there.

    Raises
    ------
    InputError
        There is no such dim.
    """
    if "component" not in loadings.dims:
        raise InputError(
            f"{what} need a dim 'component', got dims {tuple(loadings.dims)}",
            hint="pass what transform gives",
        )
    loadings = loadings.transpose(..., "component")
    if "component" in loadings.coords:
        numbers, order = loadings.coords["component"].values, np.arange(n_components)
        if not np.array_equal(numbers, order) and np.array_equal(np.sort(numbers), order):
            return loadings.isel(component=np.argsort(numbers))
    return loadings


def rebuild(axes: Labels, loadings: Any, components: NDArray[np.float64]) -> Any:
    """Multiply loadings (..., K) and components (K, all channels) and label the cube.

    Parameters
    ----------
    axes : Labels
        Of the fit: the signal axes and units of the cube.
    loadings : DataArray (navigation dims, component), or array (P, K)
    components : ndarray, shape (K, all channels)
        NaN where a channel was not used; so is the cube there.
    """
    labelled = isinstance(loadings, xr.DataArray)
    values = times(loadings.data if labelled else loadings, components)
    if not labelled:
        return values
    coords: dict[Any, Any] = {
        name: c
        for name, c in loadings.coords.items()
        if "component" not in c.dims and name != "scale"
    }
    coords.update(axes.sig_coords)
    kept = {k: v for k, v in axes.attrs.items() if k in ("units", "metadata")}
    return xr.DataArray(
        values.reshape(values.shape[:-1] + axes.sig_shape),
        dims=loadings.dims[:-1] + axes.sig_dims,
        coords=coords,
        name="data",
        attrs={"units": axes.units, **kept, "sig_dims": list(axes.sig_dims)},
    )


def times(values: Any, matrix: NDArray[np.float64]) -> Any:
    """Product of (..., K) with (K, E); lazy where the first is a Dask array."""
    if not hasattr(values, "dask"):
        return np.asarray(values) @ matrix
    import dask.array as da

    from emcube.feedback.computing import PREFIX, watch

    if len(values.chunks[-1]) > 1:
        values = values.rechunk({values.ndim - 1: -1})
    nav = tuple(range(values.ndim - 1))
    watch()
    return da.blockwise(
        _product,
        (*nav, values.ndim),
        values,
        (*nav, values.ndim - 1),
        matrix=matrix,
        token=f"{PREFIX}rebuild",
        new_axes={values.ndim: matrix.shape[1]},
        concatenate=True,
        dtype=np.float64,
        meta=np.empty((0,) * values.ndim, dtype=np.float64),
    )


def _product(values: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return values @ matrix
