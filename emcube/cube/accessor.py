"""The ``.em`` accessor: what microscopy adds to an xarray.DataArray, one line a method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

from emcube.cube import schema

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from emcube.cube.metadata import Metadata
    from emcube.cube.reduce import Boundary
    from emcube.cube.select import Bound

__all__ = ["EmAccessor"]


@xr.register_dataarray_accessor("em")  # type: ignore[no-untyped-call]  # xarray leaves it untyped
class EmAccessor:
    """Microscopy on a cube: ``cube.em``. Everything is lazy and leaves the cube as it is.

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> cube = em.make_cube(np.ones((4, 4, 8), "uint8"), dims=("y", "x", "energy"),
    ...                     coords={"energy": np.arange(1, 9)}, units={"energy": "keV"})
    >>> cube.em.sig_dims, cube.em.window(energy=("2 keV", "4000 eV")).sizes["energy"]
    (('energy',), 3)
    >>> cube.em.bin(y=2, x=2).em.total_counts().values.tolist()
    [[32, 32], [32, 32]]
    """

    def __init__(self, cube: xr.DataArray) -> None:
        self._cube = cube

    def __repr__(self) -> str:
        sizes = " x ".join(f"{dim} {size}" for dim, size in self._cube.sizes.items())
        return f"<em: {sizes}; signal dims {self.sig_dims}; modality {self.modality}>"

    def _repr_html_(self) -> str | None:
        from emcube._hooks import provided

        page: str | None = provided("cube_page")(self._cube)
        return page

    @property
    def nav_dims(self) -> tuple[str, ...]:
        """Names of the navigation dims."""
        return schema.nav_dims(self._cube)

    @property
    def sig_dims(self) -> tuple[str, ...]:
        """Names of the signal dims."""
        return schema.sig_dims(self._cube)

    @property
    def metadata(self) -> Metadata:
        """Metadata as a typed model; see :class:`emcube.cube.metadata.Metadata`."""
        return schema.get_metadata(self._cube)

    @property
    def modality(self) -> str | None:
        """What was measured: "EDS", "EELS", ...; None where the metadata do not say."""
        return self.metadata.modality

    def sum_spectrum(self) -> xr.DataArray:
        """Sum over navigation dims; see :func:`emcube.cube.reduce.sum_spectrum`."""
        from emcube.cube.reduce import sum_spectrum

        return sum_spectrum(self._cube)

    def total_counts(self) -> xr.DataArray:
        """Sum over signal dims; see :func:`emcube.cube.reduce.total_counts`."""
        from emcube.cube.reduce import total_counts

        return total_counts(self._cube)

    def smoothed_counts(self, sigma: float = 1.5) -> xr.DataArray:
        """Smooth the total counts over pixels; see :func:`emcube.cube.reduce.smoothed_counts`."""
        from emcube.cube.reduce import smoothed_counts

        return smoothed_counts(self._cube, sigma)

    def window(self, unit: str | None = None, **windows: Sequence[Bound]) -> xr.DataArray:
        """Cut windows out, both ends included; see :func:`emcube.cube.select.window`."""
        from emcube.cube.select import window

        return window(self._cube, unit, **windows)

    def lines(self, names: str | Iterable[str], **options: Any) -> xr.DataArray:
        """Map the net counts of X-ray lines; see :func:`emcube.cube.lines.line_maps`."""
        from emcube.cube.lines import line_maps

        return line_maps(self._cube, names, **options)

    def bin(self, boundary: Boundary = "exact", **factors: int) -> xr.DataArray:
        """Add up neighbours, losing no counts; see :func:`emcube.cube.reduce.bin_cube`."""
        from emcube.cube.reduce import bin_cube

        return bin_cube(self._cube, boundary, **factors)

    def remove_background(
        self, unit: str | None = None, *, zero_fill: bool = True, **window: Sequence[Bound]
    ) -> xr.DataArray:
        """Subtract a power law; see :func:`emcube.cube.background.remove_background`."""
        from emcube.cube.background import remove_background

        return remove_background(self._cube, unit, zero_fill=zero_fill, **window)

    def plot(self, **options: Any) -> Figure:
        """Draw total counts and sum spectrum; see :func:`emcube.plot.cube_overview`.

        Elements, beam energy and the detector's resolution come from the metadata unless given.
        """
        from emcube.plot import cube_overview

        return cube_overview(self._cube, **{**self._plot_defaults(), **options})

    def explore(self, **options: Any) -> Any:
        """Look at it in a browser, or in the cell of a notebook; see `emcube.explore`."""
        from emcube._hooks import provided

        return provided("explore")(self._cube, **options)

    def to_hyperspy(self, **options: Any) -> Any:
        """Make a signal of HyperSpy, which must be installed; see `emcube.interop.to_hyperspy`."""
        from emcube._hooks import provided

        return provided("to_hyperspy")(self._cube, **options)

    def _plot_defaults(self) -> dict[str, Any]:
        known = self.metadata
        stated = {
            "elements": known.elements or None,
            "labels": "eels" if known.modality == "EELS" else None,
            "beam_energy": known.beam_energy_keV,
            "resolution": known.detector.energy_resolution_eV,
        }
        return {key: value for key, value in stated.items() if value is not None}
