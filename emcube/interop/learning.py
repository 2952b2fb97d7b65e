"""Components, loadings and clusters as HyperSpy's ``learning_results``, and back.

HyperSpy keeps factors of shape (E, K) and loadings of shape (P, K) over all channels and pixels of the
signal, NaN where they were left out, and its masks are True for what was left out. Letters: P pixels, E
channels, K components.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emcube.errors import InputError
from emcube.results.kinds import CLUSTERS, COMPONENTS

if TYPE_CHECKING:
    from emcube.results import Result

__all__ = ["bss", "clusters", "decomposition", "learning_of_result", "masks", "mean_of"]

SEPARATED = tuple(verb for verb in COMPONENTS if verb != "pca")
"""Steps whose components HyperSpy calls those of source separation."""

_NONE = {
    "explained_variance": None,
    "explained_variance_ratio": None,
    "number_significant_components": None,
    "mean": None,
    "centre": None,
    "navigation_mask": None,
    "signal_mask": None,
}


def decomposition(
    components: NDArray[Any],
    loadings: NDArray[Any],
    algorithm: str,
    *,
    weighted: bool = False,
    variance: NDArray[Any] | None = None,
    ratio: NDArray[Any] | None = None,
    mean: NDArray[Any] | None = None,
    significant: int | None = None,
) -> dict[str, Any]:
    """Say a decomposition as HyperSpy does.

    Parameters
    ----------
    components : ndarray, shape (K, E)
    loadings : ndarray, shape (P, K)
    algorithm : str
        "PCA" or "NMF".
    weighted : bool
        Whether the counting noise was evened out first.
    variance, ratio : ndarray, shape (K,), optional
        Explained variance, and its share.
    mean : ndarray, shape (E,), optional
        Mean spectrum that was subtracted.
    significant : int, optional
        Number of components that the data support.

    Returns
    -------
    dict
        Attributes of ``learning_results``; those of an earlier decomposition that do not hold any more
        are None.

    Notes
    -----
    HyperSpy's own ``mean`` is one of pixels. A mean spectrum becomes component 0, with the loading 1 in every
    pixel, so that ``get_decomposition_model`` gives back the data.
    """
    if mean is not None:
        components = np.concatenate((mean[None, :], components))
        ones = np.where(np.isnan(loadings[:, :1]), np.nan, 1.0) if loadings.shape[1] else 1.0
        ones = np.broadcast_to(ones, (loadings.shape[0], 1))
        loadings = np.concatenate((ones, loadings), axis=1)
        # It is no part of the variance, and stands before the first.
        variance = (
            None if variance is None else np.concatenate(([variance.max(initial=0)], variance))
        )
        ratio = None if ratio is None else np.concatenate(([ratio.max(initial=0)], ratio))
        significant = None if significant is None else significant + 1
    return {
        **_NONE,
        "factors": np.ascontiguousarray(components.T),
        "loadings": np.ascontiguousarray(loadings),
        "decomposition_algorithm": algorithm,
        "output_dimension": int(components.shape[0]),
        "poissonian_noise_normalized": bool(weighted),
        "explained_variance": variance,
        "explained_variance_ratio": ratio,
        "number_significant_components": significant,
        "unfolded": False,
        "bss_algorithm": None,
        "bss_factors": None,
        "bss_loadings": None,
        "unmixing_matrix": None,
    }


def bss(components: NDArray[Any], loadings: NDArray[Any], algorithm: str) -> dict[str, Any]:
    """Say components beside a decomposition, in HyperSpy's place for those of source separation.

    Notes
    -----
    They are no linear mixture of the decomposition's components, so there is no unmixing matrix. One of NaN
    (K, K) says so: HyperSpy takes its length when it prints ``learning_results``.
    """
    n = int(components.shape[0])
    return {
        "bss_factors": np.ascontiguousarray(components.T),
        "bss_loadings": np.ascontiguousarray(loadings),
        "bss_algorithm": algorithm,
        "unmixing_matrix": np.full((n, n), np.nan),
    }


def clusters(labels: NDArray[Any], spectra: NDArray[Any], algorithm: str) -> dict[str, Any]:
    """Say clusters as HyperSpy does.

    Parameters
    ----------
    labels : ndarray of int, shape (P,)
        Cluster of each pixel, -1 for none.
    spectra : ndarray, shape (K, E)
        Mean spectrum of a pixel of each cluster.
    algorithm : str

    Notes
    -----
    ``cluster_centroid_signals`` is HyperSpy's spectrum of the pixel nearest to a center; here it is the mean.
    Distances are left out.
    """
    n = int(spectra.shape[0])
    members = np.stack([labels == k for k in range(n)])
    return {
        "cluster_labels": members,
        "cluster_algorithm": algorithm,
        "number_of_clusters": n,
        "cluster_sum_signals": spectra * members.sum(axis=1)[:, None],
        "cluster_centroid_signals": np.asarray(spectra),
        "cluster_distances": None,
    }


def masks(
    used_pixels: NDArray[np.bool_] | None,
    used_channels: NDArray[np.bool_] | None,
    nav_shape: tuple[int, ...],
    sig_shape: tuple[int, ...],
) -> dict[str, Any]:
    """Say what was used as HyperSpy's masks, which are True for what was left out; None: all was used."""
    found: dict[str, Any] = {}
    if used_pixels is not None:
        found["navigation_mask"] = ~used_pixels.reshape(nav_shape)
    if used_channels is not None:
        found["signal_mask"] = ~used_channels.reshape(sig_shape)
    return found


# --------------------------------------------------------------------------------------------- of a result


def learning_of_result(result: Result, cube: xr.DataArray) -> tuple[dict[str, Any], list[str]]:
    """Say a result as ``learning_results`` of its cube.

    The last PCA is the decomposition. The last NMF is the source separation beside it, or the
    decomposition where there is no PCA; the last k-means are the clusters.

    Parameters
    ----------
    result : Result
        Complete.
    cube : xarray.DataArray
        As the steps saw it: after the recipe's ``prepare``.

    Returns
    -------
    learning : dict
    lost : list of str
        What there is no place for.

    Raises
    ------
    IncompleteError
        The result is not complete.
    InputError
        The result is of a cube of another shape.
    """
    result.require_complete("an export to HyperSpy")
    shape = tuple(result.provenance["cube"]["shape"])
    if shape != cube.shape:
        raise InputError(
            f"the result at {result.location} is of a cube of shape {shape}, got one of shape {cube.shape}",
            hint="give the cube that the recipe was run on",
        )
    of = {verb: step for step in result.steps for verb in [result.verb(step)]}
    lost = [
        f"step {step!r}: HyperSpy keeps one {result.verb(step)}, and {of[result.verb(step)]!r} is the last"
        for step in result.steps
        if of[result.verb(step)] != step
    ]
    learning: dict[str, Any] = {}
    if "pca" in of:
        learning |= _pca(result, of, cube)
    parts = next((verb for verb in SEPARATED if verb in of), None)
    if parts is not None:
        node = result[of[parts]]
        both = (_spectra(node["components"]), _pixels(node["loadings"]))
        name = parts.upper()
        learning |= bss(*both, name) if learning else decomposition(*both, name)
    sorted_by = [verb for verb in of if verb in CLUSTERS]
    if sorted_by:
        learning |= _clusters(result, of[sorted_by[-1]], lost)
        lost += [
            f"step {of[verb]!r}: HyperSpy keeps one set of clusters, and {of[sorted_by[-1]]!r} is the last"
            for verb in sorted_by[:-1]
        ]
    learning |= _result_masks(result, of, cube)
    lost += _left_out(result, of)
    return learning, lost


def _pca(result: Result, of: Mapping[str, str], cube: xr.DataArray) -> dict[str, Any]:
    from emcube.models.noise import resolve_noise

    node = result[of["pca"]]
    name = str(node.attrs["noise"])
    noise = resolve_noise(None if name == "none" else name, cube.dtype)
    estimate = of.get("estimate_n_components")
    number = result[estimate].attrs.get("n_components") if estimate else None
    return decomposition(
        _spectra(node["components"]),
        _pixels(node["loadings"]),
        "PCA",
        weighted=not noise.centred,
        variance=node["explained_variance"].values,
        ratio=node["explained_variance_ratio"].values,
        mean=_spectra(node["mean"], rows=False) if noise.centred else None,
        significant=None if number is None else int(number),
    )


def _clusters(result: Result, step: str, lost: list[str]) -> dict[str, Any]:
    node = result[step]
    labels = node["labels"].values.reshape(-1)
    centers, on = node["cluster_centers"], node.attrs.get("on")
    profiles = centers.attrs.get("units") == "1 per channel"
    spectra = _spectra(centers)
    if profiles:
        # Profiles sum to one: a mean spectrum has the mean total of its pixels.
        totals = np.nan_to_num(result["input"]["total_counts"].values.reshape(-1))
        spectra = spectra * mean_of(totals, labels, len(spectra))[:, None]
    if on is not None:
        components = _spectra(result[on]["components"])
        if profiles:
            lost.append(
                f"step {step!r}: mean loadings of its clusters, only their profiles are known"
            )
        spectra = spectra @ components
    return clusters(labels, spectra, result.verb(step))


def mean_of(values: NDArray[Any], labels: NDArray[Any], n: int) -> NDArray[np.float64]:
    """Mean of the values of each label; 0 for a label that no pixel has."""
    used = labels >= 0
    sums = np.bincount(labels[used], weights=values[used], minlength=n)
    sizes = np.bincount(labels[used], minlength=n)
    return np.asarray(sums / np.maximum(sizes, 1))


def _result_masks(result: Result, of: Mapping[str, str], cube: xr.DataArray) -> dict[str, Any]:
    from emcube.cube import nav_dims, sig_dims

    node = result["input"]
    used = np.asarray(node["used"].values, dtype=bool) if "used" in node else None
    step = next((of[verb] for verb in COMPONENTS if verb in of), None)
    channels = None
    if step is not None:
        first = _spectra(result[step]["components"])[:1].reshape(-1)
        channels = None if not np.isnan(first).any() else ~np.isnan(first)
    return masks(
        used,
        channels,
        tuple(cube.sizes[d] for d in nav_dims(cube)),
        tuple(cube.sizes[d] for d in sig_dims(cube)),
    )


def _left_out(result: Result, of: Mapping[str, str]) -> list[str]:
    kept = {
        "pca": {"components", "loadings", "explained_variance", "explained_variance_ratio", "mean"},
        **{verb: {"components", "loadings"} for verb in SEPARATED if verb in of},
        **{verb: {"labels", "cluster_centers"} for verb in CLUSTERS},
    }
    # HyperSpy has room for one separation of sources.
    for verb in [verb for verb in SEPARATED if verb in of][1:]:
        kept[verb] = set()
    lost = []
    for verb, step in of.items():
        names = sorted(set(map(str, result[step].data_vars)) - kept.get(verb, set()))
        if names:
            lost.append(f"step {step!r}: {', '.join(names)}")
    lost.append("recipe, provenance and digests: they stay in the result")
    return lost


def _spectra(array: xr.DataArray, *, rows: bool = True) -> NDArray[np.float64]:
    values = np.asarray(array.values, dtype=np.float64)
    return values.reshape(values.shape[0], -1) if rows else values.reshape(-1)


def _pixels(array: xr.DataArray) -> NDArray[np.float64]:
    values = np.asarray(array.values, dtype=np.float64)
    return values.reshape(-1, values.shape[-1])
