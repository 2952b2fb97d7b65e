"""The data as a step's components describe them: loadings times components, without building the cube."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError
from emcube.results.kinds import COMPONENTS, PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["denoised_lines", "model_parts", "with_column"]


def model_parts(
    node: xr.Dataset, verb: str, n_components: int | None, totals: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Loadings and components whose product is what a step says of the cube.

    Parameters
    ----------
    node : Dataset
        Of a step with components and loadings, with its attributes.
    verb : str
    n_components : int, optional
        The first components only (pca); default all.
    totals : DataArray (navigation dims)
        Total of each pixel over the used channels.

    Returns
    -------
    loadings : DataArray (navigation dims, component)
        Lazy where they are. A PCA that is centred, or that left the trivial part out, has one more column for
        that.
    components : DataArray (component, signal dims)

    Raises
    ------
    InputError
        The step has no components, or not as many; or parts of an NMF are asked for.
    """
    if verb not in COMPONENTS:
        raise InputError(
            f"a {verb} step describes no cube: it has no loadings and components",
            hint="name a pca or nmf step",
        )
    most = node.sizes["component"]
    n: Any = most if n_components is None else n_components
    if not isinstance(n, int | np.integer) or not 1 <= n <= most:
        raise InputError(
            f"n_components of the model: got {n_components!r}, expected a whole number from 1 to {most}",
            hint="run the pca step with more components, or ask for fewer",
        )
    if verb != "pca" and n != most:
        what = "an NMF" if verb == "nmf" else f"a step of {verb}"
        raise InputError(
            f"{what} of {most} components is whole or nothing: got n_components={n}",
            hint="only principal components may be left out one by one; run it with fewer",
        )
    first = slice(int(n))
    loadings, components = (
        node["loadings"].isel(component=first),
        node["components"].isel(component=first),
    )
    if verb in PARTS:
        return loadings, components
    mean = node["mean"]
    if node.attrs["noise"] == "none":
        return with_column(loadings, xr.ones_like(totals, dtype=np.float64)), with_column(
            components, mean
        )
    if verb == "pca" and not node.attrs["trivial_first"]:
        return with_column(loadings, totals), with_column(components, mean / mean.sum())
    return loadings, components


def with_column(array: xr.DataArray, column: xr.DataArray) -> xr.DataArray:
    """Add one more position along ``component``: what lies over the other dims alone."""
    column = column.drop_vars([c for c in column.coords if c not in array.dims])
    if hasattr(array.data, "dask") and not hasattr(column.data, "dask"):
        column = column.chunk({d: array.chunksizes[d] for d in column.dims})
    column = column.expand_dims(component=[array.sizes["component"]]).transpose(*array.dims)
    joined = xr.concat(
        [array.drop_vars([c for c in array.coords if c not in array.dims]), column],
        dim="component", coords="minimal", compat="override", join="override",
    )  # fmt: skip
    return joined.assign_attrs(array.attrs)


def denoised_lines(
    loadings: xr.DataArray, components: xr.DataArray, lines: str | Iterable[str], **options: Any
) -> xr.DataArray:
    """Net counts of X-ray lines in loadings times components, lazily.

    Net counts are linear in a spectrum, so those of the components are enough: the cube is never built.

    Parameters
    ----------
    loadings : DataArray (navigation dims, component)
    components : DataArray (component, energy)
    lines, **options
        As for ``cube.em.lines``.

    Returns
    -------
    DataArray (navigation dims, line)
    """
    from emcube.cube.lines import line_maps

    spectra = components.assign_attrs(sig_dims=[d for d in components.dims if d != "component"])
    of_components = line_maps(spectra, lines, **options).compute()
    of_components = of_components.drop_vars("component", errors="ignore")
    maps: xr.DataArray = xr.dot(
        loadings.drop_vars("component", errors="ignore"), of_components, dim="component"
    )
    maps = maps.transpose(..., "line")
    return maps.assign_attrs(units=loadings.attrs.get("units", "1"), sig_dims=["line"])
