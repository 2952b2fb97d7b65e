"""Pictures of fitted estimators: methods that the models inherit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from emcube.models.labels import Labels

__all__ = ["ClusterFigures", "ComponentFigures"]


class _Figures:
    axes_: Labels

    if TYPE_CHECKING:

        def _require_fitted(self) -> None: ...

    def _looks(self) -> dict[str, Any]:
        """What figures of spectra should know of the specimen and the instrument."""
        found = self.axes_.attrs.get("metadata") or {}
        looks: dict[str, Any] = {"elements": found.get("elements") or None}
        looks["labels"] = "eels" if found.get("modality") == "EELS" else "xray"
        if found.get("beam_energy_keV"):
            looks["beam_energy"] = float(found["beam_energy_keV"])
        resolution = (found.get("detector") or {}).get("energy_resolution_eV")
        if resolution:
            looks["resolution"] = float(resolution)
        return looks


class ComponentFigures(_Figures):
    """Figures of what has components and loadings."""

    components_: Any

    if TYPE_CHECKING:

        def transform(self, X: Any, *, where: Any = None) -> Any: ...  # noqa: D102

    def plot_components(self, **options: Any) -> Figure:
        """Draw the components with their lines named (see `emcube.plot.components`).

        Elements, beam energy and resolution come from the metadata of the cube of the fit.
        """
        from emcube.plot import components

        self._require_fitted()
        shown = _labelled(self.components_, "component")
        if self._all_positive():
            options.setdefault("yscale", "sqrt")  # minor lines beside major ones
        return components(shown, **{**self._looks(), **options})

    def plot_loadings(self, X: Any, *, where: Any = None, **options: Any) -> Figure:
        """Draw the loading maps of a cube (see `emcube.plot.maps`).

        Raises
        ------
        InputError
            `X` is no labelled cube: a matrix does not say where its pixels are.
        """
        from emcube.plot import maps

        return maps(self._maps(X, where), **options)

    def plot_composite(self, X: Any, *, where: Any = None, **options: Any) -> Figure:
        """Draw the loadings of a cube in one image (see `emcube.plot.composite`).

        Raises
        ------
        InputError
            `X` is no labelled cube.
        """
        from emcube.plot import composite

        return composite(self._maps(X, where), **options)

    def plot_overlay(self, X: Any, image: Any, *, where: Any = None, **options: Any) -> Figure:
        """Draw the loadings of a cube over a grey image (see `emcube.plot.overlay`).

        Parameters
        ----------
        X : DataArray
        image : DataArray, or str
            Or the name of one that lies on the cube (``"HAADF"``).
        where, **options
            As elsewhere.

        Raises
        ------
        InputError
            `X` is no labelled cube, or has no image of that name.
        """
        from emcube.plot import overlay

        loadings = self._maps(X, where)
        if isinstance(image, str):
            if image not in X.coords:
                raise InputError(
                    f"the cube carries no image {image!r}: it has "
                    f"{[str(k) for k, c in X.coords.items() if c.ndim > 1]}",
                    hint="give the image itself",
                )
            image = X.coords[image]
        return overlay(loadings, image, **options)

    def plot_quality(self, X: Any, *, where: Any = None, **options: Any) -> Figure:
        """Draw chi-square, the residual and its spectrum (see `emcube.plot.residuals`).

        Raises
        ------
        InputError
            `X` is no labelled cube.
        """
        from emcube.plot import residuals
        from emcube.results import fit_quality

        loadings, components = self._model_of(X, where)
        return residuals(fit_quality(X, loadings, components), **{**self._looks(), **options})

    def _model_of(self, X: Any, where: Any) -> tuple[xr.DataArray, xr.DataArray]:
        """Loadings and components whose product is what the model says of a cube."""
        return self._maps(X, where), self.components_

    def _maps(self, X: Any, where: Any) -> xr.DataArray:
        self._require_fitted()
        _require_cube(X, type(self).__name__)
        found: xr.DataArray = self.transform(X, where=where)
        return found

    def _all_positive(self) -> bool:
        values = np.asarray(self.components_)
        return bool(np.nanmin(values) >= 0)


class ClusterFigures(_Figures):
    """Figures of what has clusters."""

    labels_: Any
    cluster_centers_: Any

    def plot_labels(self, **options: Any) -> Figure:
        """Draw which cluster each pixel of the fit belongs to (see `emcube.plot.label_map`).

        Raises
        ------
        InputError
            The fit was of a matrix, which does not say where its pixels are.
        """
        from emcube.plot import label_map

        self._require_fitted()
        _require_cube(self.labels_, type(self).__name__)
        return label_map(self.labels_, **options)

    def plot_centers(self, **options: Any) -> Figure:
        """Draw the mean spectra of the clusters (see `emcube.plot.components`).

        Clusters of loadings are drawn as what they are made of (see `emcube.plot.compositions`).
        """
        from emcube.plot import components, compositions

        self._require_fitted()
        shown = _labelled(self.cluster_centers_, "cluster")
        if set(shown.dims) == {"cluster", "component"}:
            return compositions(shown.assign_attrs(long_name="mean loadings"), **options)
        options.setdefault("yscale", "sqrt")
        return components(shown, by="cluster", **{**self._looks(), **options})


def _labelled(values: Any, dim: str) -> xr.DataArray:
    """Components of a matrix, over the numbers of its columns."""
    if isinstance(values, xr.DataArray):
        return values
    return xr.DataArray(
        np.asarray(values), dims=(dim, "column"), coords={dim: np.arange(len(values))}
    )


def _require_cube(X: Any, what: str) -> None:
    if not isinstance(X, xr.DataArray):
        raise InputError(
            f"{what}: maps need a labelled cube, got {type(X).__name__}, which does not say where its "
            "pixels are",
            hint="label it with emcube.make_cube, or reshape what transform gives",
        )
