"""What runs and previews give, and what is seen of their components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emcube.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from emcube.explore.settings import Settings
    from emcube.explore.views import Spectrum
    from emcube.results import Result

__all__ = ["ComponentView", "Outcome", "component_of", "has_signs", "own_pixels", "spectra_of"]

TOP = 0.05
"""Share of the pixels that stand for a component whose scores have no zero (PCA): those of the highest
scores.
"""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A result with what led to it.

    Attributes
    ----------
    number : int
        From 1, in the order of the visit.
    result : Result
        As `emcube.open_result` gives it. That of a preview is of the coarse cube.
    settings : Settings
        With which it ran.
    preview : bool
        Of the coarse cube.
    recipe_text : str
        The recipe that gives the full run by itself.
    seconds : float
        What it took.
    coarse : (Settings, dict) or None
        Of a preview: the settings as they are for its cube, and positions of the whole cube in one of its, by
        dim.
    """

    number: int
    result: Result
    settings: Settings
    preview: bool
    recipe_text: str
    seconds: float
    coarse: tuple[Settings, dict[str, int]] | None = None

    @property
    def run_id(self) -> str:
        """Identity of the run; that of a preview is of the coarse cube."""
        return self.result.run_id

    @property
    def label(self) -> str:
        """What it is called in a list: number, steps, and whether it is a preview."""
        kind = "preview" if self.preview else "run"
        return f"{self.number}: {kind} of {', '.join(self.result.steps)}"

    @property
    def steps(self) -> tuple[str, ...]:
        """Steps that have components or clusters to look at."""
        return tuple(s for s in self.result.steps if _spectra_name(self.result[s]) is not None)

    def n_components(self, step: str) -> int:
        """Components or clusters of a step."""
        return int(spectra_of(self, step).shape[0])


@dataclass(frozen=True, eq=False)
class ComponentView:
    """One component (or cluster) of a step.

    Attributes
    ----------
    step, verb : str
        Name and kind of the step.
    k : int
        Number of the component, from 0.
    spectrum : DataArray over the signal dims
        Component, or cluster center; in memory.
    map : DataArray over the navigation dims
        Loadings, or for a cluster 1 where a pixel belongs to it; in memory. NaN at unused pixels.
    own : DataArray of bool over the navigation dims
        Its pixels, see `rule`.
    rule : str
        How its pixels were told, in words for people.
    mean : Spectrum or None
        Mean spectrum of its pixels in the data (``mean.mean``); None where it has no pixel.
    """

    step: str
    verb: str
    k: int
    spectrum: xr.DataArray
    map: xr.DataArray
    own: xr.DataArray
    rule: str
    mean: Spectrum | None


def _spectra_name(node: xr.Dataset) -> str | None:
    """Variable of a step's spectra; None where it has none, or no maps to them."""
    if not {"loadings", "labels"} & set(node):
        return None
    return next((n for n in ("components", "cluster_centers") if n in node), None)


def spectra_of(outcome: Outcome, step: str) -> xr.DataArray:
    """Components or cluster centers of a step, (K, signal dims), in memory.

    Raises
    ------
    InputError
        There is no such step, or it has none.
    """
    if step not in outcome.result.steps or (name := _spectra_name(outcome.result[step])) is None:
        raise InputError(
            f"{outcome.label}: step {step!r} has no components, expected one of {list(outcome.steps)}",
            hint="choose one of those",
        )
    found: xr.DataArray = outcome.result[step][name].load()
    return found


def has_signs(values: xr.DataArray) -> bool:
    """Whether values below zero mean something (PCA, ICA), and are not the rounding of a fit that has
    none.
    """
    filled = np.nan_to_num(values.values)
    return bool(-filled[filled < 0].sum() > 0.01 * np.abs(filled).sum())


def component_of(outcome: Outcome, step: str, k: int) -> ComponentView:
    """One component of a step, without the mean spectrum of its pixels.

    Raises
    ------
    InputError
        There is no such step or component.
    """
    spectra = spectra_of(outcome, step)
    if not 0 <= k < spectra.shape[0]:
        raise InputError(
            f"step {step!r} has no component {k}, expected 0 to {spectra.shape[0] - 1}",
            hint="they are numbered from 0",
        )
    node, verb = outcome.result[step], outcome.result.verb(step)
    image, own, rule = own_pixels(node, k)
    spectrum = spectra.isel({spectra.dims[0]: k}, drop=True)
    return ComponentView(step, verb, k, spectrum, image, own, rule, None)


def own_pixels(node: xr.Dataset, k: int) -> tuple[xr.DataArray, xr.DataArray, str]:
    """Map of a component, which pixels are its own, and how they were told.

    Parameters
    ----------
    node : Dataset
        Of a step.
    k : int

    Returns
    -------
    image : DataArray over the navigation dims
    own : DataArray of bool
    rule : str
    """
    if "labels" in node:
        labels = node["labels"].load()
        own = labels == k
        image = own.astype(np.float64).where(labels >= 0)
        return image.assign_attrs(units="1"), own, "the pixels of this cluster"
    loadings = node["loadings"].load()
    image = loadings.isel(component=k, drop=True)
    if has_signs(loadings):
        level = float(np.nanquantile(image.values, 1 - TOP))
        return image, image >= level, f"the {TOP:.0%} of the pixels with the highest scores"
    filled = loadings.fillna(-np.inf)
    own = (filled.argmax("component") == k) & (image > 0)
    return image, own, "the pixels in which it holds more of the signal than any other component"
