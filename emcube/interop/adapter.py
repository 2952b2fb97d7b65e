"""emcube's estimators on a signal of HyperSpy, in one line of an existing notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from emcube.errors import InputError
from emcube.interop.hyperspy import Opened, open_signal
from emcube.interop.learning import clusters, decomposition, masks, mean_of

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["decompose"]

Model = TypeVar("Model")


def decompose(
    signal: Any,
    estimator: Model,
    *,
    navigation_mask: Any = None,
    signal_mask: Any = None,
) -> Model:
    """Fit an estimator of emcube to a signal of HyperSpy and leave the answer in its ``learning_results``.

    The line ``em.decompose(s, em.MiniBatchNMF(3))`` stands where ``s.decomposition(algorithm="NMF",
    output_dimension=3)`` did; all that follows (``plot_decomposition_results``, ``get_decomposition_model``,
    ``get_decomposition_loadings``) goes on as before.

    Parameters
    ----------
    signal : hyperspy.signals.BaseSignal
        In memory or lazy; a lazy one is read block by block, and never held.
    estimator : IncrementalPCA, MiniBatchNMF, KMeans, or another of emcube's
        Is fitted, as scikit-learn's estimators are.
    navigation_mask, signal_mask : signal or array of bool, optional
        As HyperSpy means them: True for what is left out. (emcube's own ``where=`` means the opposite.)
        Of the shape of the signal's array without the other axes.

    Returns
    -------
    estimator
        The same object, fitted: what HyperSpy has no place for is there.

    Raises
    ------
    InputError
        It is no signal, or no such estimator; a mask does not fit; values are not valid for the estimator.

    Notes
    -----
    PCA and NMF become the decomposition, k-means the clusters. Loadings and labels are gathered (8 bytes
    a pixel and component), as HyperSpy keeps them in memory. Whole numbers are taken for counts, other
    values are not: a signal of counts that was turned into floats for HyperSpy wants
    ``IncrementalPCA(..., noise="poisson")``. The mean spectrum that a PCA without weights subtracts
    becomes component 0. Same bits for any number of workers.

    Examples
    --------
    >>> s = hs.load("map.zspy", lazy=True)  # doctest: +SKIP
    >>> em.decompose(s, em.MiniBatchNMF(3, random_state=0))  # doctest: +SKIP
    >>> s.plot_decomposition_results()  # doctest: +SKIP
    """
    from emcube.models.base import Estimator
    from emcube.models.figures import ClusterFigures, ComponentFigures

    model: Any = estimator
    known = isinstance(model, Estimator) and isinstance(model, ComponentFigures | ClusterFigures)
    if not known:
        raise InputError(
            f"estimator: got {type(model).__name__}, expected IncrementalPCA, MiniBatchNMF or KMeans "
            "of emcube, or another with components",
            hint="for example emcube.decompose(signal, emcube.MiniBatchNMF(3))",
        )
    opened = open_signal(signal)
    cube = opened.cube if opened.as_is else _bare(signal, opened)
    pixels = _used(navigation_mask, opened.nav_shape, "navigation_mask")
    channels = _used(signal_mask, opened.sig_shape, "signal_mask")
    where = _where(cube, pixels, channels)
    model.fit(cube, where=where)
    keep = where[:1] if pixels is not None else None
    if isinstance(model, ClusterFigures):
        found = _clusters(model, cube, opened)
    else:
        found = _decomposition(model, cube, keep, opened)
    found |= masks(pixels, channels, opened.nav_shape, opened.sig_shape)
    for key, value in found.items():
        setattr(signal.learning_results, key, value)
    return estimator


def _bare(signal: Any, opened: Opened) -> xr.DataArray:
    """The array with HyperSpy's own idea of its axes, where that is another one than a cube's."""
    import xarray as xr

    from emcube.cube import validate_cube

    flags = [bool(axis.navigate) for axis in signal.axes_manager._axes]
    names = [f"{'nav' if flag else 'sig'}_{i}" for i, flag in enumerate(flags)]
    if sorted(flags, reverse=True) != flags:
        raise InputError(
            f"the signal's array has its navigation axes not first: {flags}",
            hint="transpose it in HyperSpy first: signal.transpose(...)",
        )
    sig = [name for name, flag in zip(names, flags, strict=True) if not flag]
    cube = xr.DataArray(signal.data, dims=names, attrs={"sig_dims": sig})
    return validate_cube(cube.assign_attrs(units=opened.cube.attrs.get("units", "1")))


def _used(mask: Any, shape: tuple[int, ...], name: str) -> NDArray[np.bool_] | None:
    """What is used, from a mask of what is not; None for all."""
    if mask is None:
        return None
    values = np.asarray(mask.data if hasattr(mask, "axes_manager") else mask)
    if values.dtype != np.bool_ or values.shape != shape:
        raise InputError(
            f"{name}: got {values.dtype} of shape {values.shape}, expected bool of shape {shape}",
            hint="masks of HyperSpy are True for what is left out, in the order of signal.data",
        )
    return ~values


def _where(
    cube: xr.DataArray, pixels: NDArray[np.bool_] | None, channels: NDArray[np.bool_] | None
) -> Any:
    """Selections over navigation and signal dims, those that there are; None for all."""
    import xarray as xr

    from emcube.cube import nav_dims, sig_dims

    parts = [
        xr.DataArray(used, dims=dims, coords={d: cube.coords[d] for d in dims})
        for used, dims in ((pixels, nav_dims(cube)), (channels, sig_dims(cube)))
        if used is not None
    ]
    return parts or None


def _decomposition(model: Any, cube: xr.DataArray, where: Any, opened: Opened) -> dict[str, Any]:
    n_channels = int(np.prod(opened.sig_shape, dtype=np.int64))
    components = np.asarray(model.components_.values, np.float64).reshape(-1, n_channels)
    loadings = np.asarray(model.transform(cube, where=where).values, np.float64)
    loadings = loadings.reshape(-1, components.shape[0])
    if not hasattr(model, "explained_variance_"):
        name = type(model).__name__
        return decomposition(components, loadings, "NMF" if name == "MiniBatchNMF" else name)
    centred = bool(model.noise_.centred)
    return decomposition(
        components,
        loadings,
        "PCA",
        weighted=not centred,
        variance=np.asarray(model.explained_variance_),
        ratio=np.asarray(model.explained_variance_ratio_),
        mean=np.asarray(model.mean_.values, np.float64).reshape(-1) if centred else None,
    )


def _clusters(model: Any, cube: xr.DataArray, opened: Opened) -> dict[str, Any]:
    n_channels = int(np.prod(opened.sig_shape, dtype=np.int64))
    labels = np.asarray(model.labels_.values).reshape(-1)
    spectra = np.asarray(model.cluster_centers_.values, np.float64).reshape(-1, n_channels)
    if model.cluster_centers_.attrs.get("units") == "1 per channel":
        totals = np.asarray(cube.em.total_counts().values, np.float64).reshape(-1)
        spectra = spectra * mean_of(totals, labels, len(spectra))[:, None]
    names = {"GaussianMixture": "gaussian_mixture", "PoissonMixture": "poisson_mixture"}
    return clusters(labels, spectra, names.get(type(model).__name__, "kmeans"))
