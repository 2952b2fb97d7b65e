"""One visit to a cube: what is looked at, set, run, compared and kept, without any web framework.

A page, a notebook or a test drives a `Session`; it draws nothing and knows no widgets. Reading and fitting
run as `Job` objects in threads of this process, on the deployment in force, through the same code as
`emcube.run`.

The promise of the record: `Session.recipe` and `Session.script` say what a click does, and run by themselves
(``emcube run recipe.yaml``, ``python script.py``) they give the same ``run_id`` and the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.cube import get_metadata, nav_dims, sig_dims
from emcube.errors import CatalogError, InputError, SelectionError
from emcube.explore.actions import Action, Record
from emcube.explore.coarse import Coarse, choose_factors, keep_coarse, make_coarse, stored_coarse
from emcube.explore.comparing import Comparison, compare_spectra
from emcube.explore.entries import EntryCard, entry_cards
from emcube.explore.exact import exact_image, exact_spectrum
from emcube.explore.geometry import scaled, spans_of, spread
from emcube.explore.jobs import Job, finished
from emcube.explore.marks import marks_near, marks_of
from emcube.explore.opened import Found, Opened, Places, find, from_entry
from emcube.explore.outcomes import ComponentView, Outcome, component_of
from emcube.explore.regions import Region
from emcube.explore.saving import Parcel, save_parcel
from emcube.explore.scripting import python_text, yaml_text
from emcube.explore.settings import Settings
from emcube.explore.views import LineMark, Map, Spectrum
from emcube.recipe import Recipe

if TYPE_CHECKING:
    import xarray as xr

    from emcube.catalog import Catalog
    from emcube.models.n_components import NComponentsEstimate
    from emcube.results import Result

    Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | xr.DataArray | Result

__all__ = ["Session"]

PREVIEW_CELLS = {"counts": 2**25, "floats": 2**23}
"""Cells of a cube on which previews run, at most: seconds. Of counts only those that are there cost time."""


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
            Where runs leave their results; kept when the visit ends, and a run whose result lies there
            already is not run again. Default: a folder that is made for this visit and removed at its end
            (`save` what is to stay).

        Raises
        ------
        ReadError, StoreError, CatalogError, AmbiguousSignalError
            As `emcube.open` and `emcube.open_catalog` do.

        Notes
        -----
        Opening reads labels and quicklooks only. Instrument files are decoded once into a store of the visit,
        by the first job that needs their values.
        """
        own = folder is None
        place = _visit_folder() if folder is None else Path(folder).expanduser().absolute()
        place.mkdir(parents=True, exist_ok=True)
        places = Places(place, Path(tempfile.mkdtemp(prefix=".visit-", dir=place)))
        try:
            return cls(find(source, name, places), places, owns_folder=own)
        except BaseException:
            shutil.rmtree(place if own else places.scratch, ignore_errors=True)
            raise

    def __init__(self, found: Found, places: Places, *, owns_folder: bool) -> None:
        self.folder = places.folder
        self.catalog: Catalog | None = found.catalog
        self._places, self._owns_folder = places, owns_folder
        self._lock = threading.RLock()
        self._left: list[Job[Any]] = []
        self._begin(found)

    def close(self) -> None:
        """Cancel what runs, wait for it, and remove what belongs to this visit alone."""
        jobs = [*self.jobs, *self._reads, *self._left]
        for job in jobs:
            job.cancel()
        for job in jobs:
            job.wait()
        shutil.rmtree(self.folder if self._owns_folder else self._scratch, ignore_errors=True)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _begin(self, found: Found) -> None:
        """Take over what was opened; nothing of an earlier cube stays."""
        self._opened: Opened | None = found.opened
        self._record = Record()
        self.jobs: list[Job[Any]] = []
        self._reads: list[Job[Any]] = []
        self.outcomes: list[Outcome] = []
        self._coarse: Coarse | None = None
        self._preparing: Job[None] | None = None
        self._settings = Settings.default().with_seeds()
        if found.recipe is not None:
            self._settings = Settings.from_recipe(found.recipe.document.data).with_seeds()
        if found.result is not None:
            self._settings = Settings.from_recipe(found.result.recipe).with_seeds()
        if found.opened is not None:
            self._record.add("open", input=found.opened.named)
        elif found.catalog is not None:
            self._record.add("open", catalog=str(found.catalog.path))
        if found.result is not None:
            self._add(found.result, self._settings, self._look(), seconds=0.0)

    @property
    def _scratch(self) -> Path:
        return self._places.scratch

    def _look(self) -> Opened:
        if self._opened is None:
            raise InputError(
                "no cube was chosen yet",
                hint="choose a dataset of the catalog: session.choose(name)",
            )
        return self._opened

    @property
    def cube(self) -> xr.DataArray:
        """The cube that is being looked at, lazy.

        Raises
        ------
        InputError
            None was chosen yet.
        """
        return self._look().cube

    @property
    def actions(self) -> list[Action]:
        """What was done in this visit, in order."""
        return list(self._record)

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
        if self.catalog is None:
            raise CatalogError(
                "no catalog was opened", hint="open one: Session.open('catalog.yaml')"
            )
        return entry_cards(self.catalog, text, modality, elements)

    def choose(self, entry: str) -> None:
        """Look at a dataset of the catalog; settings, outcomes and record begin anew.

        Raises
        ------
        CatalogError, StoreError, ReadError
            There is no such entry, or its data cannot be opened. The session stays as it was.
        """
        if self.catalog is None:
            raise CatalogError(
                "no catalog was opened", hint="open one: Session.open('catalog.yaml')"
            )
        opened = from_entry(self.catalog, entry, self._places)
        with self._lock:
            # They stop at the next finished blocks, and write into the folder until then.
            self._left = [j for j in (*self._left, *self.jobs, *self._reads) if not j.done]
            for job in self._left:
                job.cancel()
            self._begin(Found(opened, catalog=self.catalog))

    @property
    def has_cube(self) -> bool:
        """Whether there is a cube to look at: not before an entry of a catalog was chosen."""
        return self._opened is not None

    @property
    def title(self) -> str:
        """What the cube is called: its title or name in metadata, else the last part of its path. Plain text
        of strangers: escape it.
        """
        return _title(self._look())

    @property
    def facts(self) -> dict[str, str]:
        """A few facts for a card: dims and shape, units, modality, elements, beam energy. Plain text."""
        cube, known = self.cube, get_metadata(self.cube)
        sizes = " x ".join(f"{dim} {n}" for dim, n in cube.sizes.items())
        given = {
            "shape": sizes,
            "cells": f"{cube.size:,}",
            "values": f"{cube.dtype}, {cube.attrs.get('units', '1')}",
            "modality": known.modality,
            "elements": ", ".join(known.elements),
            "beam energy": f"{known.beam_energy_keV:g} keV" if known.beam_energy_keV else None,
            "specimen": known.specimen,
        }
        return {key: str(value) for key, value in given.items() if value}

    # --------------------------------------------------------------------------------------- looking

    def prepare(self) -> Job[None]:
        """Make the coarse cube that quick maps, spectra and previews come from, unless it is there.

        It is a binned copy of some ten million cells, made in one pass over the data and kept in the
        user's cache by the digest of the cube, so that the next visit has it at once. `is_ready` tells
        whether it is there; what needs it before waits for it.
        """
        opened = self._look()
        with self._lock:
            if self._coarse is not None:
                return finished("prepare", None)
            running = self._preparing
            if running is not None and not running.done and not running.stopping:
                return running

            def work(job: Job[None]) -> None:
                coarse = _coarse_of(opened, job.check)
                if self._opened is opened:
                    self._coarse = coarse

            self._preparing = self._read("prepare", work)
            return self._preparing

    @property
    def is_ready(self) -> bool:
        """Whether the coarse cube is there."""
        return self._coarse is not None

    def images(self) -> dict[str, xr.DataArray]:
        """Images over the navigation dims, in memory: ``"total counts"`` first, then companions (HAADF).

        Total counts of a store come from its quicklook and are exact; of anything else from the coarse cube
        (then ``attrs["exact"]`` is False and its positions are fewer). An image may have more dims than
        two (tilt).
        """
        cube = self.cube
        nav = nav_dims(cube)
        found = {"total counts": self._total_counts()}
        for name, coord in cube.coords.items():
            if name not in cube.dims and _is_image(coord, nav):
                found[str(name)] = coord.compute().assign_attrs(exact=True)
        for name, image in self._companions():
            if _is_image(image, nav):
                found.setdefault(name, image)
        return found

    def _total_counts(self) -> xr.DataArray:
        from emcube.store.quicklook import TOTAL_COUNTS

        stored = self._quicklook(TOTAL_COUNTS)
        if stored is not None:
            return stored.assign_attrs(exact=True)
        coarse = self._quick()
        return coarse.image({}).assign_attrs(exact=coarse.factors.whole)

    def _quicklook(self, name: str) -> xr.DataArray | None:
        """A quicklook of the cube's store, in memory; None where it has none."""
        from emcube.store import is_store, open_cube

        opened = self._look()
        place = opened.place
        if place is None or opened.named.get("name") is not None or not is_store(place):
            return None
        return open_cube(place, name).compute()

    def _companions(self) -> list[tuple[str, xr.DataArray]]:
        """Images of the store that lie on other grids."""
        from emcube.store import is_store, open_cube
        from emcube.store.open import root_attributes

        opened = self._look()
        place = opened.place
        if place is None or opened.named.get("name") is not None or not is_store(place):
            return []
        names = [str(name) for name in root_attributes(place).get("companions", [])]
        images = [(name, open_cube(place, name)) for name in names]
        return [(n, i.compute().assign_attrs(exact=True)) for n, i in images if i.ndim == 2]

    def _quick(self) -> Coarse:
        """The coarse cube; waits for it where it is not there yet."""
        while self._coarse is None:
            job = self.prepare()
            job.wait()
            _ = job.result  # raises what went wrong
        return self._coarse

    def _read(self, name: str, work: Callable[[Job[Any]], Any]) -> Job[Any]:
        """Start a job that only looks."""
        job: Job[Any] = Job(name, work).start()
        with self._lock:
            self._reads = [j for j in self._reads if not j.done]
            self._reads.append(job)
        return job

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
        from emcube.store.quicklook import SUM_SPECTRUM

        began = time.monotonic()
        cube = self.cube
        mask = None if region is None else region.mask(cube)
        self._record.add("spectrum", region=_plain(region))
        if mask is None:
            stored = self._quicklook(SUM_SPECTRUM)
            if stored is not None:
                n_pixels = math.prod(cube.sizes[d] for d in nav_dims(cube))
                values = stored.astype(float).assign_attrs(
                    units=cube.attrs.get("units", "1"), sig_dims=list(sig_dims(cube))
                )
                return Spectrum(values, n_pixels, None, True, time.monotonic() - began)
        return self._quick_spectrum(mask, region, began)

    def _quick_spectrum(
        self, mask: xr.DataArray | None, region: Region | None, began: float
    ) -> Spectrum:
        coarse = self._quick()
        n_pixels = _n_pixels(self.cube) if mask is None else int(mask.sum())
        values = coarse.spectrum(mask)
        return Spectrum(values, n_pixels, region, coarse.factors.whole, time.monotonic() - began)

    def exact_spectrum(self, region: Region | None = None) -> Job[Spectrum]:
        """Sum spectrum of a region from the data themselves; cancel the job when another one is asked for."""
        opened = self._look()
        mask = None if region is None else region.mask(opened.cube)
        self._record.add("spectrum", region=_plain(region))

        def work(job: Job[Spectrum]) -> Spectrum:
            began = time.monotonic()
            cube = opened.stored(job.check)
            n_pixels = _n_pixels(cube) if mask is None else int(mask.sum())
            values = exact_spectrum(cube, mask)
            return Spectrum(values, n_pixels, region, True, time.monotonic() - began)

        return self._read("spectrum", work)

    def window_map(self, windows: Mapping[str, tuple[float, float]]) -> Map:
        """Map of the counts in a window of the signal dims, at once.

        Parameters
        ----------
        windows : mapping of str to (float, float)
            Ends by signal dim, in its unit: ``{"energy": (6.2, 6.6)}``; for patterns ``{"ky": ..., "kx":
            ...}`` (a virtual detector). Dims left out count whole.

        Raises
        ------
        SelectionError
            A dim is none of the signal, or the window lies outside of the axis.
        """
        began = time.monotonic()
        plain = _windows(windows)
        coarse = self._quick()
        values = coarse.image(plain)
        # Noted when it is known to be one.
        self._record.add("window", windows=_noted(plain))
        return Map(
            values, plain, coarse.factors.whole, time.monotonic() - began, coarse.factors.pixels
        )

    def exact_map(self, windows: Mapping[str, tuple[float, float]]) -> Job[Map]:
        """The same map from the data themselves: every pixel, every channel; cancel the job for another
        one.
        """
        from emcube.explore.coarse import channel_weights

        plain = _windows(windows)
        opened = self._look()
        channel_weights(opened.cube, plain)  # refuses a wrong window here and now
        self._record.add("window", windows=_noted(plain))

        def work(job: Job[Map]) -> Map:
            began = time.monotonic()
            values = exact_image(opened.stored(job.check), plain, self._scratch)
            return Map(values, plain, True, time.monotonic() - began)

        return self._read("map", work)

    def lines(self, elements: Sequence[str]) -> list[LineMark]:
        """X-ray lines (EDS) or edges (EELS) of elements on the cube's energy axis, the strongest first.

        Raises
        ------
        InputError
            There is no such element.
        """
        found = marks_of(self.cube, elements, beam_energy=self._beam(), edges=self._is_eels())
        self._record.add("lines", elements=list(elements))
        return found

    def lines_near(self, energy: float, *, most: int = 6) -> list[LineMark]:
        """Lines or edges that a peak at an energy (in the axis's unit) may be, the nearest first.

        Elements of the metadata come before others.
        """
        return marks_near(
            self.cube,
            energy,
            get_metadata(self.cube).elements,
            beam_energy=self._beam(),
            edges=self._is_eels(),
            most=most,
        )

    def _beam(self) -> float | None:
        return get_metadata(self.cube).beam_energy_keV

    def _is_eels(self) -> bool:
        return get_metadata(self.cube).modality == "EELS"

    def curve(self) -> Job[NComponentsEstimate]:
        """How many components the data support, with the curve, from the coarse cube as the settings
        prepare it.

        ``job.result`` has ``n_components``, ``threshold``, ``curve`` (Dataset over ``component``),
        ``reason`` and ``plot()``, as that of `emcube.estimate_n_components`. A full run estimates again
        from all pixels.
        """
        settings = self._settings
        self._record.add("curve", **settings.as_recipe())

        def work(job: Job[NComponentsEstimate]) -> NComponentsEstimate:
            return _estimate(self._preview_cube(), settings, _nav_sizes(self.cube), self._scratch)

        return self._read("curve", work)

    def _preview_cube(self) -> tuple[xr.DataArray, dict[str, int]]:
        """The cube of previews, in memory, and how many positions of the cube one of its is, by dim."""
        coarse, cube = self._quick(), self.cube
        small = coarse.as_cube()
        nav, sig = nav_dims(cube), sig_dims(cube)
        shape = tuple(small.sizes[d] for d in nav), tuple(small.sizes[d] for d in sig)
        kind = "floats" if small.dtype.kind == "f" else "counts"
        more = choose_factors(*shape, PREVIEW_CELLS[kind])
        further = dict(zip((*nav, *sig), (*more.nav, *more.sig), strict=True))
        if not more.whole:
            small = small.em.bin("pad", **{d: n for d, n in further.items() if n > 1})
        factors = zip((*nav, *sig), (*coarse.factors.nav, *coarse.factors.sig), strict=True)
        return small, {d: n * further[d] for d, n in factors}

    # --------------------------------------------------------------------------------------- setting

    @property
    def settings(self) -> Settings:
        """What is done to the cube and which steps run."""
        return self._settings

    @settings.setter
    def settings(self, new: Settings) -> None:
        seeded = new.with_seeds().check()
        if seeded != self._settings:
            self._settings = seeded
            self._record.add("settings", **seeded.as_recipe())

    def mask(self, region: Region, *, keep: bool = False) -> None:
        """Leave a region out of what follows, or (``keep=True``) use nothing else.

        The same as ``settings = settings.leaving_out(region)`` or ``settings.keeping(region)``.

        Raises
        ------
        SelectionError
            Nothing would be left, or the region cannot be left out of a cube with fewer than two
            navigation dims.
        """
        region.mask(self.cube)
        if keep:
            new = self._settings.keeping(region)
        else:
            new = self._settings.leaving_out(region, nav_dims(self.cube))
        if not bool(self._selected(new).any()):
            raise SelectionError(
                f"mask: {region} and what is left out already leave no pixel",
                hint="use everything again, or draw another region",
            )
        self.settings = new

    def selected(self) -> xr.DataArray:
        """Which pixels the settings use, over the navigation dims of the whole cube: True is used.

        Regions only; the rule on smoothed counts (``where``) acts when it runs.
        """
        return self._selected(self._settings)

    def _selected(self, settings: Settings) -> xr.DataArray:
        import numpy as np
        import xarray as xr

        from emcube.cube import resolve_where
        from emcube.recipe.prepare import prepare

        # One channel of nothing, of the same size: what a preparation does to pixels, without reading any.
        cube, nav = self.cube, nav_dims(self.cube)
        chosen = [p for p in settings.prepare if next(iter(p)) in ("select", "bin")]
        steps = [_on_pixels(p, nav) for p in chosen]
        shape = (*(cube.sizes[d] for d in nav), 1)
        blank = xr.DataArray(
            np.broadcast_to(np.uint8(0), shape),
            dims=(*nav, "channel"),
            attrs={"sig_dims": ["channel"]},
        )
        recipe = Recipe.from_dict({"prepare": [s for s in steps if s], "steps": ["pca"]})
        state = prepare(blank, recipe.prepare)
        used, _ = resolve_where(state.cube, state.region)
        if used is None:
            used = xr.ones_like(state.cube.isel(channel=0, drop=True), dtype=bool)
        return spread(used, spans_of(settings.prepare, _nav_sizes(cube)), {}, cube)

    def recipe(self) -> Recipe:
        """What a full run does now, as a recipe with its input; paths are absolute.

        Raises
        ------
        RecipeError
            The settings hold no step.
        """
        return Recipe.from_dict(self._plain_recipe(absolute=True))

    def _plain_recipe(
        self,
        *,
        absolute: bool,
        settings: Settings | None = None,
        opened: Opened | None = None,
    ) -> dict[str, Any]:
        opened = opened or self._look()
        named = dict(opened.named)
        if absolute and opened.kept_by_visit is not None:
            named["path"] = str(opened.kept_by_visit)
        return (settings or self._settings).as_recipe(named)

    def recipe_text(self) -> str:
        """The recipe as YAML, with comments; ``emcube run`` of it gives the run_id of a click."""
        opened = self._look()
        return yaml_text(self._plain_recipe(absolute=True), self.title, _notes(opened))

    def script(self) -> str:
        """Python that does by itself what was done here: what was looked at, then the run of the recipe."""
        return python_text(self._plain_recipe(absolute=True), self._record, self.title)

    # --------------------------------------------------------------------------------------- running

    def preview(self) -> Job[Outcome]:
        """Run the settings on the coarse cube; seconds. Its outcome says ``preview=True``."""
        settings, opened = self._settings, self._look()
        self._record.add("preview", **settings.as_recipe())

        def work(job: Job[Outcome]) -> Outcome:
            began = time.monotonic()
            small, factors = self._preview_cube()
            coarser = scaled(settings, _nav_sizes(opened.cube), small, factors)
            place = Path(tempfile.mkdtemp(prefix="preview-", dir=self._scratch)) / "result"
            from emcube.recipe.running import run

            result = run(Recipe.from_dict(coarser.as_recipe()), small, out=place)
            seconds = time.monotonic() - began
            return self._add(result, settings, opened, seconds=seconds, coarse=(coarser, factors))

        return self._work("preview", work, settings)

    def run(self) -> Job[Outcome]:
        """Run the settings on everything, on the deployment in force, into `folder`.

        ``job.progress`` tells how far it is, ``job.cancel()`` stops it at the next finished group of
        blocks; the same run asked for again goes on from there.
        """
        settings, opened = self._settings, self._look()
        recipe = Recipe.from_dict(
            self._plain_recipe(absolute=False, settings=settings), folder=self.folder
        )
        self._record.add("run", **settings.as_recipe())

        def work(job: Job[Outcome]) -> Outcome:
            from emcube.recipe.inputs import standing_in
            from emcube.recipe.running import run

            began = time.monotonic()
            opened.stored(job.check)
            place = self.folder / f"run-{_token(recipe, opened)}"
            with standing_in(opened.ingested):
                result = run(recipe, out=place)
            return self._add(result, settings, opened, seconds=time.monotonic() - began)

        return self._work("run", work, settings)

    def _work(
        self, name: str, work: Callable[[Job[Outcome]], Outcome], settings: Settings
    ) -> Job[Outcome]:
        """Start a run or a preview."""
        job: Job[Outcome] = Job(name, work, parts=settings.names())
        with self._lock:
            self.jobs.append(job)
        return job.start()

    def _add(
        self,
        result: Result,
        settings: Settings,
        opened: Opened,
        *,
        seconds: float,
        coarse: tuple[Settings, dict[str, int]] | None = None,
    ) -> Outcome:
        """Keep an outcome; a run that is there already is the same outcome."""
        recipe = self._plain_recipe(absolute=True, settings=settings, opened=opened)
        text = yaml_text(recipe, _title(opened), _notes(opened))
        with self._lock:
            outcomes = self.outcomes if self._opened is opened else []  # another cube was chosen
            for known in outcomes:
                if coarse is None and not known.preview and known.run_id == result.run_id:
                    return known
            number = len(outcomes) + 1
            outcome = Outcome(number, result, settings, coarse is not None, text, seconds, coarse)
            outcomes.append(outcome)
        return outcome

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
        found = compare_spectra(first, second, step)
        self._record.add(
            "compare",
            first=first.label,
            second=second.label,
            steps=[found.first_step, found.second_step],
        )
        return found

    def component(self, outcome: Outcome, step: str, k: int) -> ComponentView:
        """One component of a step: its spectrum, its map, which pixels are its own, and their mean spectrum.

        The mean comes from the coarse cube; `exact_component` gives that of the data.

        Raises
        ------
        InputError
            The outcome has no such step, or the step has no such component.
        """
        began = time.monotonic()
        view = component_of(outcome, step, k)
        self._record.add("component", outcome=outcome.label, step=step, k=k)
        mask = self._found_again(outcome, view)
        if not bool(mask.any()):
            return view
        return replace(view, mean=self._quick_spectrum(mask, None, began))

    def _found_again(self, outcome: Outcome, view: ComponentView) -> xr.DataArray:
        """The pixels of a component in the whole cube."""
        sizes = _nav_sizes(self.cube)
        if outcome.coarse is None:
            return spread(view.own, spans_of(outcome.settings.prepare, sizes), {}, self.cube)
        settings, factors = outcome.coarse
        small = {d: -(-n // factors[d]) for d, n in sizes.items()}
        return spread(view.own, spans_of(settings.prepare, small), factors, self.cube)

    def exact_component(self, outcome: Outcome, step: str, k: int) -> Job[ComponentView]:
        """The same with the mean spectrum of the data themselves."""
        view = component_of(outcome, step, k)
        self._record.add("component", outcome=outcome.label, step=step, k=k)
        mask, opened = self._found_again(outcome, view), self._look()

        def work(job: Job[ComponentView]) -> ComponentView:
            began = time.monotonic()
            if not bool(mask.any()):
                return view
            values = exact_spectrum(opened.stored(job.check), mask)
            seconds = time.monotonic() - began
            return replace(view, mean=Spectrum(values, int(mask.sum()), None, True, seconds))

        return self._read("component", work)

    # --------------------------------------------------------------------------------------- keeping

    def save(
        self,
        folder: str | os.PathLike[str],
        outcome: Outcome | None = None,
        *,
        overwrite: bool = False,
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
        chosen = self._whole(outcome, "save")
        opened, settings = self._look(), chosen.settings
        plain = self._plain_recipe(absolute=False, settings=settings)
        self._record.add("save", folder=str(folder), run_id=chosen.run_id)
        parcel = Parcel(
            chosen,
            yaml_text({**plain, "output": "result"}, self.title),
            python_text(plain, self._record, self.title),
            list(self._record),
            opened.kept_by_visit,
        )
        return save_parcel(parcel, Path(folder), overwrite=overwrite)

    def _whole(self, outcome: Outcome | None, what: str) -> Outcome:
        """The outcome that is meant: a full run."""
        runs = [o for o in self.outcomes if not o.preview]
        chosen = outcome if outcome is not None else (runs[-1] if runs else None)
        if chosen is None or chosen.preview:
            found = "nothing was run yet" if chosen is None else "a preview is of a coarse cube"
            raise InputError(f"{what}: {found}, expected a run on everything", hint="run it first")
        return chosen

    def report(
        self,
        path: str | os.PathLike[str],
        outcome: Outcome | None = None,
        *,
        overwrite: bool = False,
    ) -> Path:
        """Write an outcome as one HTML file (`emcube.report`)."""
        from emcube.report import report

        chosen = self._whole(outcome, "report")
        self._record.add("report", path=str(path), run_id=chosen.run_id)
        return report(chosen.result, path, overwrite=overwrite)

    def publish(
        self, path: str | os.PathLike[str], outcome: Outcome | None = None, **options: Any
    ) -> Path:
        """Pack an outcome for publication (`emcube.publish`, which names the options)."""
        from emcube.package import publish

        chosen = self._whole(outcome, "publish")
        self._record.add("publish", path=str(path), run_id=chosen.run_id)
        return publish(chosen.result, path, **options)


# ------------------------------------------------------------------------------------------------- helpers


def _visit_folder() -> Path:
    """A new folder for what a visit makes, that the workers of the deployment in force reach."""
    from emcube.deploy.deployment import in_force
    from emcube.deploy.environment import wish

    deployment = in_force()
    kind = wish().split(" ")[0] if deployment is None else deployment.kind
    here = kind in ("", "threads", "local")
    # Workers on other machines see the folder of the user, not this machine's temporary one.
    parent = None if here or not os.access(Path.cwd(), os.W_OK) else Path.cwd()
    return Path(tempfile.mkdtemp(prefix="emcube-explore-", dir=parent))


def _title(opened: Opened) -> str:
    stated = get_metadata(opened.cube).title or opened.cube.attrs.get("name")
    return str(stated or opened.title or opened.cube.name or "cube")


def _notes(opened: Opened) -> list[str]:
    if opened.kept_by_visit is None:
        return []
    return ["The cube was made in Python: save the analysis to keep it with its recipe."]


def _coarse_of(opened: Opened, check: Callable[[], None]) -> Coarse:
    """The coarse cube of an earlier visit, or a new one, which is kept for the next."""
    digest = opened.digest()
    if digest is not None and (kept := stored_coarse(opened.cube, digest)) is not None:
        return kept
    made = make_coarse(opened.stored(check))
    digest = opened.digest()
    # A small cube is summed as fast as a copy of it is read.
    if digest is not None and not made.factors.whole:
        keep_coarse(made, digest)
    return made


def _estimate(
    of: tuple[xr.DataArray, dict[str, int]],
    settings: Settings,
    sizes: Mapping[str, int],
    scratch: Path,
) -> NComponentsEstimate:
    """Number of components of a preview's cube as settings prepare it."""
    from emcube.models import estimate_n_components
    from emcube.recipe.prepare import prepare
    from emcube.recipe.schema import EstimateStep
    from emcube.recipe.sums import smooth_sums

    small, factors = of
    recipe = Recipe.from_dict(scaled(settings, sizes, small, factors).as_recipe())
    state = prepare(small, recipe.prepare)
    where, rule = state.region, recipe.model.where
    if rule is not None:
        smooth = smooth_sums(state.cube, rule.sigma, scratch / "smoothing")
        used = smooth >= rule.min_smoothed_counts
        where = used if where is None else used & where
    stated = [s for s in recipe.steps if isinstance(s, EstimateStep)]
    step = stated[0] if stated else EstimateStep()
    return estimate_n_components(state.cube, where=where, **step.parameters())


def _token(recipe: Recipe, opened: Opened) -> str:
    """Name of a run's folder: the same for the same analysis of the same data with the same libraries."""
    from emcube.results.provenance import stack

    known = [recipe.normalised(), opened.named, opened.digest(), stack()]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]


def _plain(region: Region | None) -> dict[str, Any] | None:
    if region is None:
        return None
    return {
        "spans": {dim: [start, stop] for dim, start, stop in region.spans},
        "vertices": [list(corner) for corner in region.vertices],
    }


def _windows(windows: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Windows with the lower end first: a mouse drags either way."""
    return {
        str(dim): (min(float(a), float(b)), max(float(a), float(b)))
        for dim, (a, b) in windows.items()
    }


def _noted(windows: Mapping[str, tuple[float, float]]) -> dict[str, list[float | None]]:
    """Windows as a record and a script have them: None for an open end, since JSON has no infinity."""
    return {d: [v if math.isfinite(v) else None for v in ends] for d, ends in windows.items()}


def _on_pixels(entry: Mapping[str, Any], nav: tuple[str, ...]) -> dict[str, Any]:
    """What a preparation does to pixels alone; empty for nothing."""
    (verb, given), *_ = entry.items()
    kept = {k: v for k, v in given.items() if k in (*nav, "region", "outside", "boundary")}
    return {verb: kept} if set(kept) - {"boundary"} else {}


def _is_image(values: xr.DataArray, nav: tuple[str, ...]) -> bool:
    """Whether values are numbers over the dims in which a cube's images are shown.

    A survey image of a line scan has other dims, and names of grains are no numbers.
    """
    dims = set(map(str, values.dims))
    return values.dtype.kind in "buif" and len(nav) >= 2 and set(nav[-2:]) <= dims <= set(nav)


def _nav_sizes(cube: xr.DataArray) -> dict[str, int]:
    return {dim: int(cube.sizes[dim]) for dim in nav_dims(cube)}


def _n_pixels(cube: xr.DataArray) -> int:
    return math.prod(_nav_sizes(cube).values())
