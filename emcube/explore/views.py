"""What is looked at: spectra of regions, maps of windows, lines on an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from emcube.explore.regions import Region

__all__ = ["LineMark", "Map", "Spectrum"]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Sum spectrum of a region.

    Attributes
    ----------
    values : DataArray over the signal dims
        Sum over the region's pixels, in the cube's units, in memory.
    n_pixels : float
        Pixels that were summed; of a coarse cube their share (a coarse pixel at the edge counts in part).
    region : Region or None
        None: all pixels.
    exact : bool
        From the data themselves. Otherwise channels may be wider, and edges of the region are rough.
    seconds : float
        What it took.
    """

    values: xr.DataArray
    n_pixels: float
    region: Region | None
    exact: bool
    seconds: float

    @property
    def mean(self) -> xr.DataArray:
        """Mean spectrum of a pixel, with the axis and the units of the cube."""
        mean: xr.DataArray = (self.values / self.n_pixels).assign_attrs(self.values.attrs)
        return mean


@dataclass(frozen=True, eq=False)
class Map:
    """Counts of each pixel in a window of the signal dims.

    Attributes
    ----------
    values : DataArray over the navigation dims
        In the cube's units, in memory. Of a coarse cube: sums over its larger pixels, whose coordinates are
        the middles; divide by `pixels_per_bin` to compare with an exact one.
    windows : dict of str to (float, float)
        As asked for.
    exact : bool
        From the data themselves: every pixel, and the channels within both ends.
    seconds : float
        What it took.
    pixels_per_bin : int
        Pixels of the data in one of `values`.
    """

    values: xr.DataArray
    windows: dict[str, tuple[float, float]]
    exact: bool
    seconds: float
    pixels_per_bin: int = 1


@dataclass(frozen=True)
class LineMark:
    """A line or edge on the energy axis of a cube.

    Attributes
    ----------
    name : str
        ``"Si_Ka"``, or of an edge ``"O_K"``.
    text : str
        For a figure: ``"Si Kα"``.
    element : str
    energy : float
        In the unit of the cube's axis.
    weight : float
        Strength relative to the strongest of the element, 0 to 1.
    """

    name: str
    text: str
    element: str
    energy: float
    weight: float
