"""Pictures of a result, and its maps and spectra as files: methods that `Result` inherits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError
from emcube.results.kinds import CLUSTERS, COMPONENTS, ESTIMATES, PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.figure import Figure

__all__ = ["ResultFigures"]

_FIGURES = {
    "estimate_n_components": ("scree",),
    "survey_n_components": ("survey",),
    "pca": ("scree", "components", "loadings"),
    "ica": ("components", "loadings"),
    "varimax": ("components", "loadings"),
    **dict.fromkeys(PARTS, ("components", "loadings", "composite")),
    "kmeans": ("labels", "centers"),
    "gaussian_mixture": ("labels", "centers", "probabilities"),
    "poisson_mixture": ("labels", "centers", "probabilities"),
    "cluster_quality": ("cluster_quality",),
    "uncertainty": ("bands",),
    "diagnostics": ("diagnostics",),
    "phase_fractions": ("phase_fractions",),
}
"""Figures of each kind of step, after their methods ``plot_...``."""

_MAPS = ("loadings", "composite", "labels", "probabilities")
"""Those of them that need a navigation dim."""

_MOST_COLORS = 8


class ResultFigures:
    """Figures of the steps of a result."""

    tree: xr.DataTree

    if TYPE_CHECKING:

        @property
        def steps(self) -> tuple[str, ...]: ...  # noqa: D102

        def __getitem__(self, step: str) -> xr.Dataset: ...

        def verb(self, step: str) -> str: ...  # noqa: D102

        def require_complete(self, what: str) -> None: ...  # noqa: D102

        @property
        def run_id(self) -> str: ...  # noqa: D102

    def step_of(self, *verbs: str) -> str:
        """Name of the last step of one of some kinds; the first kind that there is.

        Raises
        ------
        KeyError
            There is none.
        """
        for verb in verbs:
            for step in reversed(self.steps):
                if self.verb(step) == verb:
                    return step
        raise KeyError(
            f"this result has no step of {' or '.join(verbs)}; it has {list(self.steps)}"
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the cube: modality, elements, beam energy and so on."""
        node = self.tree.children.get("input")
        return dict(node.attrs.get("metadata") or {}) if node is not None else {}

    # ---------------------------------------------------------------------------------- one figure each

    def plot_scree(self, step: str | None = None, **options: Any) -> Figure:
        """Draw a PCA's explained variance, or the curve of an estimate (`emcube.plot.scree`).

        A PCA's comes with the mean variance of what its components leave as the noise floor, and with the
        number of components that an estimate of the same result found.
        """
        from emcube.plot import scree

        step = step or self.step_of("pca", "estimate_n_components")
        node = self[step]
        if self.verb(step) == "pca":
            options.setdefault("trivial_first", bool(node.attrs["trivial_first"]))
            options.setdefault("noise_floor", float(node.attrs["noise_variance"]))
            options.setdefault("n_components", self._estimated())
            return scree(node["explained_variance"], **options)
        options.setdefault("n_components", node.attrs["n_components"])
        return scree(node["singular_value"], threshold=float(node["threshold"]), **options)

    def plot_survey(self, step: str | None = None, **options: Any) -> Figure:
        """Draw what each method says of the number of components (`emcube.plot.component_survey`)."""
        from emcube.plot import component_survey

        node = self[step or self.step_of("survey_n_components")]
        options.setdefault("n_components", node.attrs["n_components"])
        return component_survey(node, node.attrs["numbers"], **options)

    def plot_components(self, step: str | None = None, **options: Any) -> Figure:
        """Draw the components of a step with their lines named (`emcube.plot.components`)."""
        from emcube.plot import components

        step = step or self.step_of(*COMPONENTS)
        if self.verb(step) in PARTS:
            options.setdefault("yscale", "sqrt")  # minor lines beside major ones
        return components(self[step]["components"], **{**self._looks(), **options})

    def plot_bands(self, step: str | None = None, **options: Any) -> Figure:
        """Draw components with their intervals and with what is as good (`emcube.plot.bands`).

        Parameters
        ----------
        step : str, optional
            A step of uncertainty; default the last.
        **options
            As for `emcube.plot.bands`.
        """
        from emcube.plot import bands

        node = self[step or self.step_of("uncertainty")]
        options.setdefault("yscale", "sqrt")
        whole = node.assign(components=self[str(node.attrs["on"])]["components"])
        return bands(whole, **{**self._looks(), **options})

    def plot_diagnostics(self, step: str | None = None, **options: Any) -> Figure:
        """Draw what a step of diagnostics found (`emcube.plot.diagnostics`)."""
        from emcube.plot import diagnostics

        node = self[step or self.step_of("diagnostics")]
        names = {"axis": list(node.attrs["axes"])}
        if "line" in node.dims:
            names["line"] = list(node.attrs["lines"])
        return diagnostics(node.assign_coords(names), **options)

    def plot_phase_fractions(self, step: str | None = None, **options: Any) -> Figure:
        """Draw fractions of phases by field, and their spread (`emcube.plot.phase_fractions`)."""
        from emcube.plot import phase_fractions

        node = self[step or self.step_of("phase_fractions")]
        return phase_fractions(node.assign_attrs(of=node.attrs["what"]), **options)

    def plot_centers(self, step: str | None = None, **options: Any) -> Figure:
        """Draw the mean spectra of the clusters of a step (`emcube.plot.components`).

        Clusters of loadings are drawn as what they are made of (`emcube.plot.compositions`).
        """
        from emcube.plot import components

        options.setdefault("yscale", "sqrt")
        centers = self[step or self.step_of(*CLUSTERS)]["cluster_centers"]
        if set(centers.dims) == {"cluster", "component"}:  # clusters of loadings
            from emcube.plot import compositions

            options.pop("yscale")
            return compositions(centers.assign_attrs(long_name="mean loadings"), **options)
        return components(centers, by="cluster", **{**self._looks(), **options})

    def plot_loadings(self, step: str | None = None, **options: Any) -> Figure:
        """Draw the loading maps of a step (`emcube.plot.maps`)."""
        from emcube.plot import maps

        return maps(self[step or self.step_of(*COMPONENTS)]["loadings"], **options)

    def plot_composite(self, step: str | None = None, **options: Any) -> Figure:
        """Draw the loadings of a step in one image, in colours that add up (`emcube.plot.composite`)."""
        from emcube.plot import composite

        return composite(self[step or self.step_of(*PARTS)]["loadings"], **options)

    def plot_overlay(
        self, step: str | None = None, *, image: str | xr.DataArray | None = None, **options: Any
    ) -> Figure:
        """Draw the loadings of a step over a grey image (`emcube.plot.overlay`).

        Parameters
        ----------
        step : str, optional
            Default the last NMF.
        image : str or DataArray, optional
            A companion image of the cube by its name, or any image; default the first companion, and the
            total counts where there is none.
        **options
            As for `emcube.plot.overlay`.

        Raises
        ------
        InputError
            There is no companion of that name.
        """
        from emcube.plot import overlay

        loadings = self[step or self.step_of(*PARTS)]["loadings"]
        return overlay(loadings, self._grey(image), **options)

    def plot_montage(
        self, step: str | None = None, *, component: int = 0, **options: Any
    ) -> Figure:
        """Draw one loading over all tilts, times and so on (`emcube.plot.montage`)."""
        from emcube.plot import montage

        loadings = self[step or self.step_of(*COMPONENTS)]["loadings"]
        return montage(loadings.isel(component=component), **options)

    def plot_labels(self, step: str | None = None, **options: Any) -> Figure:
        """Draw the clusters of a step (`emcube.plot.label_map`)."""
        from emcube.plot import label_map

        return label_map(self[step or self.step_of(*CLUSTERS)]["labels"], **options)

    def plot_probabilities(self, step: str | None = None, **options: Any) -> Figure:
        """Draw how probable each cluster of a mixture is at each pixel (`emcube.plot.maps`)."""
        from emcube.plot import maps

        node = self[step or self.step_of("gaussian_mixture", "poisson_mixture")]
        return maps(node["probabilities"], **{"by": "cluster", "share_scale": True, **options})

    def plot_cluster_quality(self, step: str | None = None, **options: Any) -> Figure:
        """Draw how far apart clusters are and how stable (`emcube.plot.cluster_quality`)."""
        from emcube.plot import cluster_quality

        return cluster_quality(self[step or self.step_of("cluster_quality")], **options)

    # --------------------------------------------------------------------------- beside the data themselves

    def denoised(
        self,
        step: str | None = None,
        n_components: int | None = None,
        *,
        shrinkage: bool = False,
    ) -> xr.DataArray:
        """Rebuild the cube from a step's components, lazily.

        Parameters
        ----------
        step : str, optional
            A pca or nmf step; default the last PCA.
        n_components : int, optional
            Of a PCA, the first components only.
        shrinkage : bool
            Of a PCA: shorten each component by as much as noise made it longer
            (see `IncrementalPCA.inverse_transform`).

        Returns
        -------
        DataArray (navigation dims, signal dims)
            NaN at pixels and channels that were not used. A PCA's values may be negative.
        """
        loadings, components = self._model(step, n_components)
        if shrinkage:
            components = components * self._shrink_factors(step, components.sizes["component"])
        cube: xr.DataArray = xr.dot(
            loadings.drop_vars("component", errors="ignore"),
            components.drop_vars("component", errors="ignore"),
            dim="component",
        )
        sig = [str(d) for d in components.dims if d != "component"]
        nav = [str(d) for d in loadings.dims if d != "component"]
        attrs = {"units": loadings.attrs.get("units", "1"), "sig_dims": sig}
        if self.metadata:
            attrs["metadata"] = self.metadata
        return cube.transpose(*nav, *sig).assign_attrs(attrs).rename("data")

    def lines(
        self,
        names: str | Iterable[str],
        step: str | None = None,
        n_components: int | None = None,
        **options: Any,
    ) -> xr.DataArray:
        """Map the net counts of X-ray lines in the denoised data, lazily; the cube is not built.

        Parameters
        ----------
        names, **options
            As for ``cube.em.lines``.
        step, n_components
            As in `denoised`.
        """
        from emcube.results.model import denoised_lines

        options.setdefault("resolution_eV", self._looks().get("resolution"))
        return denoised_lines(*self._model(step, n_components), names, **options)

    def quality(
        self, cube: xr.DataArray, step: str | None = None, n_components: int | None = None
    ) -> xr.Dataset:
        """Compare a step's model with the data, lazily (see `emcube.results.fit_quality`).

        Parameters
        ----------
        cube : DataArray
            As the recipe prepared it.
        step, n_components
            As in `denoised`; default the last NMF.
        """
        from emcube.results.quality import fit_quality

        step = step or self.step_of(*COMPONENTS)
        loadings, components = self._model(step, n_components)
        return fit_quality(cube, loadings, components)

    def plot_denoised(
        self,
        cube: xr.DataArray,
        lines: Sequence[str] | None = None,
        *,
        step: str | None = None,
        n_components: int | None = None,
        names: Sequence[str] | None = None,
        **options: Any,
    ) -> Figure:
        """Draw raw maps of X-ray lines against denoised ones (`emcube.plot.raw_and_denoised`).

        Parameters
        ----------
        cube : DataArray
            As the recipe prepared it.
        lines : sequence of str, optional
            Such as ``["Si_Ka"]``; default the strongest line of each element within the axis.
        step, n_components
            As in `denoised`.
        names : sequence of two str, optional
            What the two are called; default "raw" and the step's model.
        **options
            As for `emcube.plot.raw_and_denoised`; ``residual=True`` draws the difference too.

        Raises
        ------
        InputError
            No line is given and the metadata name no element.
        """
        from emcube.plot import raw_and_denoised

        step = step or self.step_of("pca", *COMPONENTS)
        chosen = list(lines) if lines is not None else self._strongest_lines(cube)
        looks = self._looks()
        fitted = self.lines(chosen, step, n_components, resolution_eV=looks.get("resolution"))
        raw = cube.em.lines(chosen, resolution_eV=looks.get("resolution"))
        n = n_components or self[step].sizes["component"]
        called = names or ("raw", f"{self.verb(step).upper()}, n = {n}")
        nav = [d for d in raw.dims if d != "line"]
        raw, fitted = raw.transpose(*nav, "line"), fitted.transpose(*nav, "line")
        return raw_and_denoised(raw, fitted, by="line", names=called, **options)

    def plot_quality(
        self,
        cube: xr.DataArray,
        step: str | None = None,
        n_components: int | None = None,
        **options: Any,
    ) -> Figure:
        """Draw chi-square, the residual and its spectrum (`emcube.plot.residuals`)."""
        from emcube.plot import residuals

        looks = {k: v for k, v in self._looks().items() if k != "yscale"}
        return residuals(self.quality(cube, step, n_components), **{**looks, **options})

    # ------------------------------------------------------------------------------------------ as files

    def save_figures(self, folder: str | Path, *, suffix: str = ".png") -> list[Path]:
        """Draw every step and save the figures.

        Parameters
        ----------
        folder : path-like
            Made where it is missing.
        suffix : str
            ``.png``, ``.pdf`` or ``.svg``.

        Returns
        -------
        list of Path
            Named after step and content: ``nmf-components.png``.

        Raises
        ------
        IncompleteError
            The run was never finished.
        """
        self.require_complete("save_figures")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        saved: list[Path] = []
        for step in self.steps:
            for what in _FIGURES[self.verb(step)]:
                if not self._drawable(step, what):
                    continue
                path = folder / f"{step}-{what}{suffix}"
                getattr(self, f"plot_{what}")(step).savefig(path)
                saved.append(path)
        return saved

    def save_maps(self, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write loadings, labels, total counts and companion images as calibrated TIFF files.

        Parameters
        ----------
        folder : path-like
            Made where it is missing.
        overwrite : bool
            Replace files.

        Returns
        -------
        list of Path
            ``nmf-loadings.tif`` and so on; line scans, which are no images, become ``.csv``.

        Raises
        ------
        IncompleteError
            The run was never finished.
        StoreError
            A file exists or cannot be written.

        See Also
        --------
        emcube.results.files.write_tiff : what the files hold.
        """
        from emcube.results.files import maps_of, write_csv, write_tiff

        self.require_complete("save_maps")
        saved: list[Path] = []
        for name, array in maps_of(self):
            nav = array.ndim - bool({"component", "cluster"} & set(array.dims))
            write = write_tiff if nav > 1 else write_csv
            suffix = ".tif" if nav > 1 else ".csv"
            notes = {"run_id": self.run_id, "variable": name}
            options = {"notes": notes} if nav > 1 else {}
            files, _ = write(
                array,
                Path(folder) / f"{name.replace('/', '-')}{suffix}",
                overwrite=overwrite,
                **options,
            )
            saved += files
        return saved

    def save_spectra(
        self, folder: str | Path, *, suffix: str = ".csv", overwrite: bool = False
    ) -> list[Path]:
        """Write components, cluster centers and the sum spectrum as text.

        Parameters
        ----------
        folder : path-like
            Made where it is missing.
        suffix : str
            ``.csv``: a table for each step, a column for each spectrum. ``.msa``: EMSA/MAS, a file for
            each spectrum (`emcube.interop.msa.write_spectra`).
        overwrite : bool
            Replace files.

        Returns
        -------
        list of Path

        Raises
        ------
        InputError
            The suffix is neither, or the signal is no spectrum.
        IncompleteError
            The run was never finished.
        StoreError
            A file exists or cannot be written.
        """
        from emcube.results.files import spectra_of, spectra_writer

        self.require_complete("save_spectra")
        write = spectra_writer(suffix)
        saved: list[Path] = []
        for name, array in spectra_of(self):
            files, _ = write(array, Path(folder) / f"{name}{suffix}", overwrite=overwrite)
            saved += files
        if not saved:
            raise InputError(
                "save_spectra: this result has no spectra, only patterns or loadings",
                hint="write patterns with emcube.results.files.write_tiff",
            )
        return saved

    # ------------------------------------------------------------------------------------------- inside

    def _drawable(self, step: str, what: str) -> bool:
        node = self[step]
        if what == "scree":  # too little data to estimate from has no curve
            return bool(node.sizes.get("component", 1))
        if what in _MAPS:  # a single spectrum has no map
            name = what if what in ("labels", "probabilities") else "loadings"
            if name not in node:  # of several cubes each has its own
                return False
            nav = node[name].ndim - (name != "labels")
            few = what != "composite" or 2 <= node.sizes["component"] <= _MOST_COLORS
            return nav >= 1 and few
        if what == "bands":  # of patterns there are none
            return node["components_std"].ndim == 2
        if what == "centers":
            return node["cluster_centers"].ndim <= 3
        return True

    def _estimated(self) -> int | None:
        for step in self.steps:
            if self.verb(step) in ESTIMATES:
                found = self[step].attrs["n_components"]
                return None if found is None else int(found)
        return None

    def _model(
        self, step: str | None, n_components: int | None
    ) -> tuple[xr.DataArray, xr.DataArray]:
        from emcube.results.model import model_parts

        step = step or self.step_of("pca", *COMPONENTS)
        return model_parts(self[step], self.verb(step), n_components, self["input"]["total_counts"])

    def _shrink_factors(self, step: str | None, n: int) -> xr.DataArray:
        """Factor of each of `n` parts of a PCA; the mean, where it is one of them, stays."""
        from emcube.kernels.shrinkage import shrink_factors

        step = step or self.step_of("pca", "nmf")
        node = self[step]
        if self.verb(step) != "pca":
            raise InputError(
                f"shrinkage is for principal components, {step!r} is a {self.verb(step)} step",
                hint="name a pca step, or leave shrinkage out",
            )
        used = (
            self["input"]["used"].sum()
            if "used" in self["input"]
            else self["input"]["total_counts"].size
        )
        spectra = np.asarray(node["components"].values).reshape(node.sizes["component"], -1)
        shape = (int(used), int(np.isfinite(spectra[0]).sum()))
        variance = float(node.attrs["noise_variance"])
        found = shrink_factors(node["singular_values"].values, variance, shape)[:n]
        whole = np.concatenate((found, np.ones(n - found.size)))
        return xr.DataArray(whole, dims="component")

    def _grey(self, image: str | xr.DataArray | None) -> xr.DataArray:
        if isinstance(image, xr.DataArray):
            return image
        from emcube.results.files import companions_of

        companions = companions_of(self)
        if image is None:
            return next(iter(companions.values()), self["input"]["total_counts"])
        if image == "total_counts":
            return self["input"]["total_counts"]
        if image not in companions:
            raise InputError(
                f"no companion image is called {image!r}: there are {sorted(companions)}",
                hint="give the image itself, or 'total_counts'",
            )
        return companions[image]

    def _strongest_lines(self, cube: xr.DataArray) -> list[str]:
        from emcube.cube.lines import strongest_lines

        elements = self.metadata.get("elements") or ()
        found = strongest_lines(cube, elements, beam_energy=self._looks().get("beam_energy"))
        if not found:
            raise InputError(
                f"no X-ray line to map: elements in the metadata are {list(elements)}",
                hint="name lines: lines=['Si_Ka', 'O_Ka']",
            )
        return found

    def _looks(self) -> dict[str, Any]:
        """What figures of spectra should know of the specimen and the instrument."""
        found = self.metadata
        looks: dict[str, Any] = {"elements": found.get("elements") or None}
        looks["labels"] = "eels" if found.get("modality") == "EELS" else "xray"
        if found.get("beam_energy_keV"):
            looks["beam_energy"] = float(found["beam_energy_keV"])
        resolution = (found.get("detector") or {}).get("energy_resolution_eV")
        if resolution:
            looks["resolution"] = float(resolution)
        return looks
