"""One visit to a cube: what is looked at, set, run, compared and kept, without any web framework.

A page, a notebook or a test drives a `Session`; it draws nothing and knows no widgets. Reading and fitting run as
`Job` objects in threads of this process, on the deployment in force, through the same code as `emcube.run`.

The promise of the record: `Session.recipe` and `Session.script` say what a click does, and run by themselves
(``emcube run recipe.yaml``, ``python script.py``) they give the same ``run_id`` and the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.explore.actions import Action
from emcube.explore.comparing import Comparison
from emcube.explore.entries import EntryCard
from emcube.explore.jobs import Job
from emcube.explore.outcomes import ComponentView, Outcome
from emcube.explore.regions import Region
from emcube.explore.settings import Settings
from emcube.explore.views import LineMark, Map, Spectrum

if TYPE_CHECKING:
    import xarray as xr

    from emcube.models.n_components import NComponentsEstimate
    from emcube.recipe import Recipe

    Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | xr.DataArray

__all__ = ["Session"]


class Session:
    """The state of one visit. Each browser tab has its own; two sessions share nothing that changes.

    Make one with `Session.open`; use it as a context manager, or call `close` at the end.

    Attributes
    ----------
    catalog : Catalog or None
        Where a catalog was opened.
    cube : DataArray
        The cube that is being looked at, lazy (`has_cube` tells whether one was chosen).
    settings : Settings
        What is done to the cube and which steps run, in the words of a recipe. Assigning checks them as a
        recipe is checked (`RecipeError` names what is wrong) and records the change.
    actions : list of Action
        What was done in this visit, in order.
    jobs : list of Job
        Runs and previews that were started, in order (not the reads of maps and spectra).
    outcomes : list of Outcome
        What runs and previews gave, and results that were opened, in order.
    folder : pathlib.Path
        Where runs leave their results until they are saved.
    """

    # ------------------------------------------------------------------------------ opening, choosing, ending

    @classmethod
    def open(
        cls,
        source: Source,
        *,
        name: str | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> Session:
        """Begin a visit.

        Parameters
        ----------
        source : path, URL, sequence of paths, DataArray or Result
            Whatever `emcube.open` takes (an instrument file, files of a series, a store, a URL,
            ``catalog.yaml:entry``); a catalog; a result, or its folder; or a cube in hand.
        name : str, optional
            Which signal, where a file holds several.
        folder : path-like, optional
            Where runs leave their results; kept when the visit ends, and a run whose result lies there already
            is not run again. Default: a folder that is made for this visit and removed at its end (`save` what
            is to stay).

        Raises
        ------
        ReadError, StoreError, CatalogError, AmbiguousSignalError
            As `emcube.open` and `emcube.open_catalog` do.

        Notes
        -----
        Opening reads labels and quicklooks only. Instrument files are decoded once into a store of the visit,
        by the first job that needs their values.
        """

    def close(self) -> None:
        """Cancel what runs, wait for it, and remove what belongs to this visit alone."""

    def __enter__(self) -> Session: ...

    def __exit__(self, *failure: object) -> None: ...

    def entries(
        self, text: str = "", *, modality: str | None = None, elements: Sequence[str] = ()
    ) -> list[EntryCard]:
        """List what the catalog has: name, title, modality, elements, shape, and whether it is there.

        Parameters
        ----------
        text, modality, elements
            As in `Catalog.search`; empty means all.

        Raises
        ------
        CatalogError
            No catalog was opened.
        """

    def choose(self, entry: str) -> None:
        """Look at a dataset of the catalog; settings, outcomes and record begin anew.

        Raises
        ------
        CatalogError, StoreError, ReadError
            There is no such entry, or its data cannot be opened. The session stays as it was.
        """

    @property
    def has_cube(self) -> bool:
        """Whether there is a cube to look at: not before an entry of a catalog was chosen."""

    @property
    def title(self) -> str:
        """What the cube is called: its title or name in metadata, else the last part of its path. Plain text
        of strangers: escape it.
        """

    @property
    def facts(self) -> dict[str, str]:
        """A few facts for a card: dims and shape, units, modality, elements, beam energy. Plain text."""

    # -------------------------------------------------------------------------------------------------- looking

    def prepare(self) -> Job[None]:
        """Make the coarse cube that quick maps, spectra and previews come from, unless it is there.

        It is a binned copy of some ten million cells, made in one pass over the data and kept in the user's cache
        by the digest of the cube, so that the next visit has it at once. `is_ready` tells whether it is there; what
        needs it before waits for it.
        """

    @property
    def is_ready(self) -> bool:
        """Whether the coarse cube is there."""

    def images(self) -> dict[str, xr.DataArray]:
        """Images over the navigation dims, in memory: ``"total counts"`` first, then companions (HAADF).

        Total counts of a store come from its quicklook and are exact; of anything else from the coarse cube
        (then ``attrs["exact"]`` is False and its positions are fewer). An image may have more dims than two (tilt).
        """

    def spectrum(self, region: Region | None = None) -> Spectrum:
        """Sum spectrum of a region, at once: of everything from the quicklook, else from the coarse cube.

        Parameters
        ----------
        region : Region, optional
            None: all pixels.

        Returns
        -------
        Spectrum
            ``exact`` tells whether it is that of the data; if not, ask `exact_spectrum`.
        """

    def exact_spectrum(self, region: Region | None = None) -> Job[Spectrum]:
        """Sum spectrum of a region from the data themselves; cancel the job when another one is asked for."""

    def window_map(self, windows: Mapping[str, tuple[float, float]]) -> Map:
        """Map of the counts in a window of the signal dims, at once.

        Parameters
        ----------
        windows : mapping of str to (float, float)
            Ends by signal dim, in its unit: ``{"energy": (6.2, 6.6)}``; for patterns ``{"ky": ..., "kx": ...}``
            (a virtual detector). Dims left out count whole.

        Raises
        ------
        SelectionError
            A dim is none of the signal, or the window lies outside of the axis.
        """

    def exact_map(self, windows: Mapping[str, tuple[float, float]]) -> Job[Map]:
        """The same map from the data themselves: every pixel, every channel; cancel the job for another one."""

    def lines(self, elements: Sequence[str]) -> list[LineMark]:
        """X-ray lines (EDS) or edges (EELS) of elements on the cube's energy axis, the strongest first.

        Raises
        ------
        InputError
            There is no such element.
        """

    def lines_near(self, energy: float, *, most: int = 6) -> list[LineMark]:
        """Lines or edges that a peak at an energy (in the axis's unit) may be, the nearest first.

        Elements of the metadata come before others.
        """

    def curve(self) -> Job[NComponentsEstimate]:
        """How many components the data support, with the curve, from the coarse cube as the settings prepare it.

        ``job.result`` has ``n_components``, ``threshold``, ``curve`` (Dataset over ``component``), ``reason`` and
        ``plot()``, as that of `emcube.estimate_n_components`. A full run estimates again from all pixels.
        """

    # -------------------------------------------------------------------------------------------------- setting

    @property
    def settings(self) -> Settings: ...

    @settings.setter
    def settings(self, new: Settings) -> None: ...

    def mask(self, region: Region, *, keep: bool = False) -> None:
        """Leave a region out of what follows, or (``keep=True``) use nothing else.

        The same as ``settings = settings.leaving_out(region)`` or ``settings.keeping(region)``.

        Raises
        ------
        SelectionError
            Nothing would be left, or the region cannot be left out of a cube with fewer than two navigation dims.
        """

    def selected(self) -> xr.DataArray:
        """Which pixels the settings use, over the navigation dims of the whole cube: True is used.

        Regions only; the rule on smoothed counts (``where``) acts when it runs.
        """

    def recipe(self) -> Recipe:
        """What a full run does now, as a recipe with its input; paths are absolute.

        Raises
        ------
        RecipeError
            The settings hold no step.
        """

    def recipe_text(self) -> str:
        """The recipe as YAML, with comments; ``emcube run`` of it gives the run_id of a click."""

    def script(self) -> str:
        """Python that does by itself what was done here: what was looked at, then the run of the recipe."""

    # -------------------------------------------------------------------------------------------------- running

    def preview(self) -> Job[Outcome]:
        """Run the settings on the coarse cube; seconds. Its outcome says ``preview=True``."""

    def run(self) -> Job[Outcome]:
        """Run the settings on everything, on the deployment in force, into `folder`.

        ``job.progress`` tells how far it is, ``job.cancel()`` stops it at the next finished group of blocks; the
        same run asked for again goes on from there.
        """

    def compare(
        self, first: Outcome, second: Outcome, step: str | tuple[str, str] | None = None
    ) -> Comparison:
        """Match the components (or cluster centers) of two outcomes by their spectra.

        Parameters
        ----------
        first, second : Outcome
        step : str or (str, str), optional
            Which step of each; default the last one that both have.

        Raises
        ------
        InputError
            They have no such step, or no channel in common.
        """

    def component(self, outcome: Outcome, step: str, k: int) -> ComponentView:
        """One component of a step: its spectrum, its map, which pixels are its own, and their mean spectrum.

        The mean comes from the coarse cube; `exact_component` gives that of the data.

        Raises
        ------
        InputError
            The outcome has no such step, or the step has no such component.
        """

    def exact_component(self, outcome: Outcome, step: str, k: int) -> Job[ComponentView]:
        """The same with the mean spectrum of the data themselves."""

    # -------------------------------------------------------------------------------------------------- keeping

    def save(
        self, folder: str | os.PathLike[str], outcome: Outcome | None = None, *, overwrite: bool = False
    ) -> Path:
        """Keep an outcome: ``result/``, ``recipe.yaml``, ``script.py`` and ``record.json`` in a new folder.

        A cube that has no address of its own (made in Python) is kept there too, as ``cube.zarr``. The folder
        appears when it is whole.

        Parameters
        ----------
        folder : path-like
        outcome : Outcome, optional
            Default: the last full run.
        overwrite : bool
            Replace a folder that was saved so before.

        Raises
        ------
        InputError
            There is no full run yet, it is a preview, or the folder holds something else.
        """

    def report(
        self, path: str | os.PathLike[str], outcome: Outcome | None = None, *, overwrite: bool = False
    ) -> Path:
        """Write an outcome as one HTML file (`emcube.report`)."""

    def publish(
        self, path: str | os.PathLike[str], outcome: Outcome | None = None, **options: Any
    ) -> Path:
        """Pack an outcome for publication (`emcube.publish`, which names the options)."""
