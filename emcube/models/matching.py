"""Which component of one model is which of another, and how alike they are.

Letters: E channels, K components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Comparison", "compare", "match", "match_values"]


def match_values(
    found: NDArray[np.float64], reference: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Order in which components fit those of a reference best, and all weighted angles.

    Parameters
    ----------
    found : ndarray, shape (K', E)
    reference : ndarray, shape (K, E)
        No NaN in either.
    weights : ndarray, shape (E,)
        Of the squares (one over the mean spectrum of counts, for instance).

    Returns
    -------
    order : ndarray of int, shape (min(K, K'), 2)
        Pairs (reference, found) whose angles have the smallest sum, by the reference's number.
    angles : ndarray, shape (K, K')
        Degrees.
    """
    from scipy.optimize import linear_sum_assignment

    root = np.sqrt(weights)
    a, b = _unit(found * root), _unit(reference * root)
    # The arc cosine loses half its digits near zero: use the difference.
    apart = np.linalg.norm(b[:, None, :] - a[None, :, :], axis=2)
    together = np.linalg.norm(b[:, None, :] + a[None, :, :], axis=2)
    angles = np.rad2deg(2.0 * np.arctan2(apart, together))
    rows, columns = linear_sum_assignment(angles)
    return np.column_stack((rows, columns)).astype(np.int64), angles


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(lengths > 0.0, lengths, 1.0))


# --------------------------------------------------------------------------------------- two models


def match(a: Any, b: Any) -> xr.Dataset:
    """Find which component of `b` is which of `a`.

    Parameters
    ----------
    a, b : fitted estimators, DataArrays (component, signal dims), or arrays (K, E)
        On the same signal; channels that are NaN in either are left out.

    Returns
    -------
    Dataset
        Over ``component``, the components of `a`: ``partner``, the number in `b` that belongs to it (-1:
        none is
        left); ``angle`` to it in degrees, spectra weighted as noise of counts asks (divided by the root of
        the mean
        spectrum of `a`); ``correlation`` of the two spectra. ``angles`` (component, other): all of them.
        The sum of the angles is the smallest that there is.

    Raises
    ------
    InputError
        They have no components, or other channels.

    Notes
    -----
    A plain angle is blind to minor elements; the weighted one is that of `emcube.scenes.metrics.kk_angle`.
    Weights are positive: components with negative values (PCA, ICA) are weighed by their sizes, and matched
    whatever their sign is.

    References
    ----------
    H. W. Kuhn, Nav. Res. Logist. Q. 2 (1955) 83. https://doi.org/10.1002/nav.3800020109
    M. R. Keenan, P. G. Kotula, Surf. Interface Anal. 36 (2004) 203. https://doi.org/10.1002/sia.1657

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> em.match(np.eye(3), np.eye(3)[[2, 0, 1]]).partner.values
    array([1, 2, 0])
    """
    first, second = _spectra(a, "the first"), _spectra(b, "the second")
    found, _ = _matched(first, second)
    return found


def _spectra(thing: Any, which: str) -> xr.DataArray:
    """Components as (component, signal dims)."""
    found = getattr(thing, "components_", thing)
    if isinstance(found, xr.Dataset):
        found = found.get("components")
    if not isinstance(found, xr.DataArray):
        values = np.asarray(np.nan if found is None else found)
        if values.ndim != 2 or values.dtype.kind not in "iufb":
            raise InputError(
                f"match: {which} has no components, got {type(thing).__name__}",
                hint="give fitted models, their components_, or arrays of shape (components, channels)",
            )
        return xr.DataArray(values.astype(np.float64), dims=("component", "channel"))
    if "component" not in found.dims:
        raise InputError(
            f"match: {which} has dims {tuple(found.dims)}, expected 'component' and the signal's",
            hint="give components, as in model.components_ or result['nmf'].components",
        )
    return found.transpose("component", ...).compute()


def _matched(a: xr.DataArray, b: xr.DataArray) -> tuple[xr.Dataset, NDArray[np.int64]]:
    """The answer of `match`, and the sign that each partner has to be turned by."""
    if a.shape[1:] != b.shape[1:] or a.dims[1:] != b.dims[1:]:
        raise InputError(
            f"match: components over {dict(zip(a.dims[1:], a.shape[1:], strict=True))} and over "
            f"{dict(zip(b.dims[1:], b.shape[1:], strict=True))}",
            hint="compare models of the same cube",
        )
    x, y = (np.asarray(v.values, dtype=np.float64).reshape(len(v), -1) for v in (a, b))
    used = np.isfinite(x).all(axis=0) & np.isfinite(y).all(axis=0)
    x, y = x[:, used], y[:, used]
    mean = np.abs(x).mean(axis=0)
    weights = np.divide(1.0, mean, out=np.zeros_like(mean), where=mean > 0.0)
    signed = bool(min(x.min(initial=0.0), y.min(initial=0.0)) < 0.0)
    order, angles = _order(x, y, weights, signed=signed)
    partner = np.full(len(x), -1, dtype=np.int64)
    partner[order[:, 0]] = order[:, 1]
    sign = np.ones(len(x), dtype=np.int64)
    angle, correlation = np.full(len(x), np.nan), np.full(len(x), np.nan)
    for k, other in order:
        product = float((x[k] * y[other]) @ weights)
        sign[k] = -1 if signed and product < 0.0 else 1
        angle[k] = angles[k, other]
        correlation[k] = _correlation(x[k], sign[k] * y[other])
    found = xr.Dataset(
        {
            "partner": ("component", partner, {"units": "1"}),
            "angle": ("component", angle, {"units": "deg"}),
            "correlation": ("component", correlation, {"units": "1"}),
            "angles": (("component", "other"), angles, {"units": "deg"}),
        },
        coords={"component": np.arange(len(x)), "other": np.arange(len(y))},
    )
    return found, sign


def _order(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64], *, signed: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs and angles; where there are signs, the smaller angle of either."""
    from scipy.optimize import linear_sum_assignment

    order, angles = match_values(y, x, weights)
    if signed:
        angles = np.minimum(angles, 180.0 - angles)
        rows, columns = linear_sum_assignment(angles)
        order = np.column_stack((rows, columns)).astype(np.int64)
    return order, angles


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0.0 else float("nan")


# ------------------------------------------------------------------------------------ several models


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several ways of unmixing one cube, their components matched to those of the first.

    Attributes
    ----------
    table : Dataset
        Over ``model`` and ``component``: ``angle`` and ``correlation`` of spectra to the first method's;
        ``map_correlation`` of loading maps and ``share`` of all loadings, where maps are known;
        ``partner``, the number
        in the method itself. Over ``model``: ``n_components``, and ``held_out``, the log-likelihood of a
        count (least
        squares: share of the squares explained) that the loadings have not seen, where a cube was given and
        components are not negative. NaN where there is nothing to compare.
    components : DataArray (model, component, signal dims)
        In the order of the first method, NaN where a method has no partner; of signed ones the sign is
        turned.
    loadings : dict
        Name to its maps (navigation dims, component) in that order, lazily; empty where none are known.
    """

    table: xr.Dataset
    components: xr.DataArray
    loadings: dict[str, xr.DataArray]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names, the reference first."""
        return tuple(str(name) for name in self.table["model"].values)

    def plot(self, **options: Any) -> Any:
        """Draw the matched components of all methods (see `emcube.plot.compared`)."""
        from emcube.plot import compared

        return compared(self.components, self.table, **{**self._looks(), **options})

    def plot_maps(self, **options: Any) -> Any:
        """Draw the matched maps of all methods (see `emcube.plot.compared_maps`)."""
        from emcube.plot import compared_maps

        return compared_maps(self.loadings, **options)

    def _looks(self) -> dict[str, Any]:
        """What is known of the specimen, so that lines have names."""
        known = self.components.attrs.get("metadata") or {}
        found = {"elements": known.get("elements"), "beam_energy": known.get("beam_energy_keV")}
        return {key: value for key, value in found.items() if value}

    def __str__(self) -> str:
        rows = []
        for name in self.methods:
            one = self.table.sel(model=name)
            angles = ", ".join("none" if np.isnan(a) else f"{a:.1f}" for a in one["angle"].values)
            score = float(one["held_out"])
            told = "" if np.isnan(score) else f"; held-out score {score:.4f}"
            rows.append(f"{name}: {int(one['n_components'])} components, angles {angles} deg{told}")
        return "\n".join(rows)

    __repr__ = __str__


def compare(results: Mapping[str, Any], cube: Any = None, *, where: Any = None) -> Comparison:
    """Compare several ways of unmixing one cube.

    Parameters
    ----------
    results : mapping of str to model
        Names to fitted estimators with ``components_``, to nodes of results (``result["nmf"]``), or to
        components. The
        first is what the others are held against. A `Result` stands for its last nmf or pca step.
    cube : DataArray or matrix, optional
        What they were made of: for the maps of estimators, and for the held-out score.
    where : DataArray of bool, optional
        Pixels that are used.

    Returns
    -------
    Comparison
        ``em.report(comparison, "compare.html")`` writes it as a page.

    Raises
    ------
    InputError
        There are fewer than two, or they do not fit together.

    Notes
    -----
    One pass for each held-out score, one over the maps of each pair. The scores are fair to all: loadings
    are those of
    maximum likelihood on one half of the counts, whatever method found the components, and the other half is
    predicted. Nothing here says which of two that predict as well is the true one (see `emcube.uncertainty`).
    """
    given: Any = results
    if not isinstance(given, Mapping) or len(given) < 2:
        raise InputError(
            f"compare: two results or more are expected, got {_how_many(results)}",
            hint="give them with their names, as in em.compare({'NMF': nmf, 'PCA': pca}, cube)",
        )
    sources = {str(name): _node_of(thing) for name, thing in results.items()}
    spectra = {name: _spectra(thing, repr(name)) for name, thing in sources.items()}
    maps = {name: _maps(thing, cube, where) for name, thing in sources.items()}
    first = next(iter(spectra))
    rows = [
        _row(spectra[first], maps[first], spectra[name], maps[name], cube, where)
        for name in spectra
    ]
    names = list(spectra)
    table = xr.concat([row.table for row in rows], dim="model", combine_attrs="override")
    components = xr.concat(
        [row.components for row in rows], dim="model", join="override", combine_attrs="override"
    )
    return Comparison(
        table.assign_coords(model=names),
        components.assign_coords(model=names),
        {
            name: row.loadings
            for name, row in zip(names, rows, strict=True)
            if row.loadings is not None
        },
    )


def _how_many(results: Any) -> str:
    return str(len(results)) if isinstance(results, Mapping) else type(results).__name__


@dataclass(frozen=True, eq=False)
class _Row:
    table: xr.Dataset
    components: xr.DataArray
    loadings: xr.DataArray | None


def _node_of(thing: Any) -> Any:
    """Of a whole result the step that unmixes."""
    return thing[thing.step_of("nmf", "pca")] if hasattr(thing, "step_of") else thing


def _maps(thing: Any, cube: Any, where: Any) -> xr.DataArray | None:
    """Loadings of a node, or of an estimator on the cube; None where there are none."""
    from emcube.models.rebuild import pixels_only

    if isinstance(thing, xr.Dataset):
        return thing.get("loadings")
    if cube is None or not hasattr(thing, "transform"):
        return None
    found = thing.transform(cube, where=pixels_only(cube, where))
    if isinstance(found, xr.DataArray):
        return found
    return xr.DataArray(found, dims=("pixel", "component"))


def _row(
    reference: xr.DataArray,
    reference_maps: xr.DataArray | None,
    spectra: xr.DataArray,
    maps: xr.DataArray | None,
    cube: Any,
    where: Any,
) -> _Row:
    matched, sign = _matched(reference, spectra)
    partner = matched["partner"].values
    there = partner >= 0
    chosen = spectra.isel(component=np.where(there, partner, 0)) * xr.DataArray(
        np.where(there, sign, np.nan), dims="component"
    )
    chosen = chosen.assign_coords(component=np.arange(len(partner)))
    loadings, share, alike = None, np.full(len(partner), np.nan), np.full(len(partner), np.nan)
    if maps is not None:
        order = np.where(there, partner, 0)
        loadings = maps.isel(component=order) * xr.DataArray(
            np.where(there, sign, np.nan), dims="component"
        )
        loadings = loadings.assign_coords(component=np.arange(len(partner)))
        share = _shares(maps, partner)
        if reference_maps is not None:
            alike = _map_correlation(reference_maps, loadings)
    table = matched[["partner", "angle", "correlation"]].assign(
        map_correlation=("component", alike, {"units": "1"}),
        share=("component", share, {"units": "1"}),
        n_components=((), spectra.sizes["component"], {"units": "1"}),
        held_out=((), _held_out(spectra, cube, where), {"units": "1"}),
    )
    return _Row(table, chosen.rename("components"), loadings)


def _shares(maps: xr.DataArray, partner: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of all loadings; of signed ones there is none."""
    nav = [d for d in maps.dims if d != "component"]
    totals = np.asarray(maps.sum(nav).values, dtype=np.float64)
    if bool((maps.min(nav).values < 0).any()):
        return np.full(len(partner), np.nan)
    return np.where(partner >= 0, totals[np.maximum(partner, 0)] / totals.sum(), np.nan)


def _map_correlation(a: xr.DataArray, b: xr.DataArray) -> NDArray[np.float64]:
    """Correlation of two maps for each component, over the pixels that both have."""
    nav = [d for d in a.dims if d != "component"]
    if set(a.dims) != set(b.dims) or any(a.sizes[d] != b.sizes[d] for d in nav):
        return np.full(a.sizes["component"], np.nan)
    a, b = (m.drop_vars(list(m.coords)).transpose(*nav, "component") for m in (a, b))
    both = a.notnull() & b.notnull()
    a, b, n = a.where(both), b.where(both), both.sum(nav)
    n = n.where(n > 0)
    a, b = a - a.sum(nav) / n, b - b.sum(nav) / n
    size = (a * a).sum(nav) * (b * b).sum(nav)
    found = (a * b).sum(nav) / np.sqrt(size.where(size > 0.0))
    return np.asarray(found.where(n > 1).values, dtype=np.float64)


def _held_out(spectra: xr.DataArray, cube: Any, where: Any) -> float:
    """Held-out score of components that are not negative (see `MiniBatchNMF.score`)."""
    from emcube.engine import run_sweep
    from emcube.models.labels import as_source, dtype_of
    from emcube.models.nmf_losses import resolve_loss
    from emcube.models.nmf_sweeps import ScoreSweep
    from emcube.models.rebuild import pixels_only

    values = np.asarray(spectra.values, dtype=np.float64).reshape(len(spectra), -1)
    if cube is None or np.nanmin(values) < 0.0:
        return float("nan")
    used = np.isfinite(values).all(axis=0)
    channels = None if used.all() else np.flatnonzero(used)
    source, labels = as_source(cube, pixels_only(cube, where), channels=channels)
    if labels.n_all_channels != values.shape[1]:
        raise InputError(
            f"compare: components of {values.shape[1]} channels, the cube has {labels.n_all_channels}",
            hint="give the cube that the models were fitted on",
        )
    loss = resolve_loss("kullback-leibler" if dtype_of(cube).kind in "iub" else "frobenius")
    kept = values[:, used]
    components = kept / kept.sum(axis=1, keepdims=True)
    sums = run_sweep(ScoreSweep(loss, components), source, seed=0).state
    if sums[1] <= 0.0:
        raise InputError("compare: there is nothing to score, every used value is zero")
    return float(sums[0] / sums[1]) if loss.counts else float(1.0 - sums[0] / sums[1])
