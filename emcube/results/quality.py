"""How well a model describes a cube: pixel by pixel and channel by channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.cube import nav_dims, sig_dims
from emcube.errors import InputError
from emcube.kernels.residuals import channel_groups, residual_pixels, residual_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fit_quality"]


def fit_quality(
    cube: xr.DataArray,
    loadings: xr.DataArray,
    components: xr.DataArray,
    *,
    counts: bool | None = None,
    min_counts: float = 1.0,
) -> xr.Dataset:
    """Compare a cube with loadings times components, lazily.

    Parameters
    ----------
    cube : DataArray (navigation dims, signal dims)
    loadings : DataArray (navigation dims, component)
        NaN where a pixel is not used.
    components : DataArray (component, signal dims)
        NaN where a channel is not used.
    counts : bool, optional
        Whether values are counts, whose variance is their mean; by default they are where they are integers.
    min_counts : float
        Neighbouring channels are summed until the mean pixel holds as many counts: with hardly any, a sum of
        squares is ruled by single counts.

    Returns
    -------
    Dataset
        ``chi_square`` (navigation dims): per degree of freedom, so that 1 is what noise alone leaves; NaN
        where the model is empty. Of counts it is sum_g w_g (x_g - m_g)^2 / sum_g w_g m_g over groups of
        channels g, with w the inverse of the mean model, times G / (G - K). Where the noise is not
        known it is the mean square over its mean over all pixels, and only its shape says something.
        ``residual`` (navigation dims): root mean square over channels, in the cube's units.
        ``chi_square_spectrum`` (signal dims): the sum over pixels of (x - m)^2 over that of m, which counting
        noise makes one (a little less: loadings were fitted); or relative to its mean, as above.
        ``data_spectrum``, ``model_spectrum``, ``residual_spectrum`` (signal dims): sums over the used pixels,
        and their difference, which fits make small whatever they miss.

    Raises
    ------
    InputError
        Cube, loadings and components do not fit together.

    Notes
    -----
    Two passes over the loadings and one over the cube once it is computed. The same bits for the same
    chunks, on any number of workers.

    Not the misfit of a report (`emcube.report.quality.quality_of`). That is half the Poisson deviance that
    the fit ended with over what counting noise would leave of it: one number for the whole, from the result
    alone. This weighs squares, pixel by pixel and channel by channel, and needs the cube. Both are one where
    noise explains all that is left; else they are different numbers.
    """
    nav, sig = nav_dims(cube), sig_dims(cube)
    loadings, components = _fitting(cube, loadings, components, nav, sig)
    is_counts = cube.dtype.kind in "iub" if counts is None else counts
    spectra = components.values.reshape(components.shape[0], -1).astype(np.float64)
    starts = weights = None
    factor = 1.0
    if is_counts:
        mean = loadings.mean(nav).values @ spectra
        mean = np.maximum(mean[np.isfinite(spectra).all(axis=0)], 0.0)
        k = len(spectra)
        # Few counts leave few groups: there must be more of them than components.
        starts = channel_groups(mean, min(min_counts, float(mean.sum()) / (2 * k + 2)))
        held = np.add.reduceat(mean, starts)
        weights = 1.0 / np.where(held > 0, held, np.inf)
        factor = starts.size / max(starts.size - k, 1)
    import dask.array as da

    pixels, sums = _lazily(cube, loadings, spectra, starts, weights, nav)
    units = str(cube.attrs.get("units", "1"))
    square = pixels[..., 0] * factor
    if not is_counts:
        square = square / da.nanmean(square)
    data, model, squares = (sums[i].reshape(components.shape[1:]) for i in range(3))
    by_channel = (
        squares / da.where(model > 0, model, np.nan) if is_counts else squares / da.nanmean(squares)
    )
    along = {d: c for d, c in cube.coords.items() if d in sig}
    over = {d: c for d, c in cube.coords.items() if d in nav}
    note = "where 1 is what counting noise leaves" if is_counts else "relative to its mean"
    found = {
        "chi_square": (nav, square, over, "1", f"chi-square per degree of freedom, {note}"),
        "residual": (nav, pixels[..., 1], over, units, "residual, root mean square"),
        "chi_square_spectrum": (sig, by_channel, along, "1", f"chi-square by channel, {note}"),
        "data_spectrum": (sig, data, along, units, "data, sum over the used pixels"),
        "model_spectrum": (sig, model, along, units, "model, sum over the used pixels"),
        "residual_spectrum": (sig, data - model, along, units, "data less model"),
    }
    return xr.Dataset(
        {
            name: xr.DataArray(
                values, dims=dims, coords=coords, attrs={"units": unit, "long_name": text}
            )
            for name, (dims, values, coords, unit, text) in found.items()
        },
        attrs={"counts": int(is_counts)},
    )


def _fitting(
    cube: xr.DataArray,
    loadings: xr.DataArray,
    components: xr.DataArray,
    nav: tuple[str, ...],
    sig: tuple[str, ...],
) -> tuple[xr.DataArray, xr.DataArray]:
    """Loadings and components in the order of the cube's dims, held to its labels."""
    for what, array, dims in (("loadings", loadings, nav), ("components", components, sig)):
        if set(array.dims) != {*dims, "component"}:
            raise InputError(
                f"quality of fit: {what} have dims {tuple(array.dims)}, expected {(*dims, 'component')}",
                hint="give the cube that the model was fitted on",
            )
        for dim in dims:
            if array.sizes[dim] != cube.sizes[dim] or not _same_axis(cube, array, dim):
                raise InputError(
                    f"quality of fit: {what} and cube differ along {dim!r} (sizes {array.sizes[dim]} and "
                    f"{cube.sizes[dim]})",
                    hint="give the cube as the recipe prepared it: same window, binning and selection",
                )
    if loadings.sizes["component"] != components.sizes["component"]:
        raise InputError(
            f"quality of fit: {loadings.sizes['component']} loadings and "
            f"{components.sizes['component']} components",
            hint="give loadings and components of one model",
        )
    return loadings.transpose(*nav, "component"), components.transpose("component", *sig).compute()


def _same_axis(a: xr.DataArray, b: xr.DataArray, dim: str) -> bool:
    if dim not in a.coords or dim not in b.coords or a.coords[dim].dtype.kind not in "iuf":
        return True
    first, second = (np.asarray(x.coords[dim].values, np.float64) for x in (a, b))
    step = float(np.abs(np.diff(first)).min()) if first.size > 1 else 1.0
    return bool(np.abs(first - second).max(initial=0.0) <= 1e-3 * step)


def _lazily(
    cube: xr.DataArray,
    loadings: xr.DataArray,
    spectra: NDArray[np.float64],
    starts: NDArray[np.int64] | None,
    weights: NDArray[np.float64] | None,
    nav: tuple[str, ...],
) -> tuple[Any, Any]:
    """Answers by pixel (nav..., 2) and sums by channel (3, E), both over the same chunks."""
    import dask.array as da

    from emcube.feedback.computing import PREFIX, watch

    cube = cube if hasattr(cube.data, "dask") else cube.chunk("auto")
    data = cube.data.rechunk(dict.fromkeys(range(len(nav), cube.ndim), -1))
    chunks = data.chunks[: len(nav)]
    loads = loadings.data
    loads = loads if hasattr(loads, "dask") else da.from_array(loads, chunks=-1)
    loads = loads.rechunk((*chunks, -1))
    n, n_sig = len(nav), cube.ndim - len(nav)
    where, signal = tuple(range(n)), tuple(range(n, n + n_sig))
    watch()
    k, q, e = n + n_sig, n + n_sig + 1, n + n_sig + 2
    common: dict[str, Any] = {
        "concatenate": True,
        "dtype": np.float64,
        "spectra": spectra,
        "token": f"{PREFIX}quality",
    }
    pixels = da.blockwise(
        _by_pixel, (*where, q), data, (*where, *signal), loads, (*where, k),
        new_axes={q: 2}, starts=starts, weights=weights, meta=np.empty((0,) * (n + 1)), **common,
    )  # fmt: skip
    sums = da.blockwise(
        _by_channel, (*where, q, e), data, (*where, *signal), loads, (*where, k),
        new_axes={q: 3, e: spectra.shape[1]}, adjust_chunks=dict.fromkeys(where, 1),
        meta=np.empty((0,) * (n + 2)), **common,
    )  # fmt: skip
    return pixels, sums.sum(axis=where) if n else sums


def _by_pixel(
    data: NDArray[Any],
    loads: NDArray[np.float64],
    *,
    spectra: NDArray[np.float64],
    starts: NDArray[np.int64] | None,
    weights: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    rows = loads.reshape(-1, loads.shape[-1])
    found = residual_pixels(data.reshape(len(rows), -1), rows, spectra, starts, weights)
    return np.asarray(found).reshape(*loads.shape[:-1], 2)


def _by_channel(
    data: NDArray[Any], loads: NDArray[np.float64], *, spectra: NDArray[np.float64]
) -> NDArray[np.float64]:
    rows = loads.reshape(-1, loads.shape[-1])
    found = residual_sums(data.reshape(len(rows), -1), rows, spectra)
    return np.asarray(found).reshape((1,) * (loads.ndim - 1) + found.shape)
