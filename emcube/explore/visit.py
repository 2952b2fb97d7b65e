"""One browser's visit: what the page asks for becomes calls of a `Session`, what comes of them becomes panes and
plots.

Nothing here waits: slow calls are done by a `Hand`, runs are jobs, and both tell the page when they have news.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.core.properties import String
from bokeh.events import RangesUpdate, SelectionGeometry, Tap
from bokeh.model import DataModel

from emcube.cube import nav_dims, sig_dims
from emcube.errors import EmcubeError, InputError
from emcube.explore import panes
from emcube.explore.hand import Hand
from emcube.explore.jobs import Job, Problem
from emcube.explore.plots import INK, Frame, ImagePlot, Shades, SpectrumPlot, colour, shades_of
from emcube.explore.regions import Region
from emcube.explore.session import Session
from emcube.explore.settings import Settings, fields_of
from emcube.plot.style import positions
from emcube.report.text import clean, count, number, plural, shorten
from emcube.units import pretty

if TYPE_CHECKING:
    import xarray as xr
    from bokeh.document import Document

    from emcube.explore.outcomes import ComponentView, Outcome
    from emcube.explore.views import Map, Spectrum

__all__ = ["Visit"]

_log = logging.getLogger(__name__)

MESSAGE = 200_000
"""Longest message of the page, in characters: an outline of some thousand corners."""

PATIENCE = 350
"""Milliseconds without a further move before a window or region is read from the data themselves."""

TELL = 0.15
"""Seconds between two looks at a job's progress."""

FAINT = 0.2
"""Lines that are weaker than this, beside the strongest of their element, are not drawn."""

ORDER = ("estimate_n_components", "pca", "nmf", "kmeans")

PANES = (
    *("cube", "catalog", "view", "forms", "settings", "curve", "job", "outcomes", "comparison"),
    *("record", "notices", "busy"),
)


class Bridge(DataModel):
    """What goes between page and program, as JSON: one property for each pane, and what the page asks for."""

    asked = String(default="")
    cube = String(default="null")
    catalog = String(default="null")
    view = String(default="null")
    forms = String(default="null")
    settings = String(default="null")
    curve = String(default="null")
    job = String(default="null")
    outcomes = String(default="null")
    comparison = String(default="null")
    record = String(default="null")
    notices = String(default="null")
    busy = String(default="null")


class Visit:
    """One browser's visit.

    Parameters
    ----------
    document : bokeh.document.Document
        Of the visit; its plots and the bridge are added to it.
    begin : callable, optional
        Opens what the explorer was started with; called by the hand.
    open_other : callable
        Opens what the page names.

    Attributes
    ----------
    session : Session or None
        None until something is open.
    """

    def __init__(
        self,
        document: Document,
        begin: Callable[[], Session] | None,
        open_other: Callable[[str], Session],
    ) -> None:
        self.document = document
        self.session: Session | None = None
        self.files: dict[str, Path] = {}
        self._open_other = open_other
        self._ended = False
        self._notices: list[dict[str, Any]] = []
        self._number = 0
        self.bridge = Bridge(name="bridge")
        self.image = ImagePlot("image")
        self.map = ImagePlot("map", beside=self.image)
        self.spectrum = SpectrumPlot("spectrum")
        self.pattern = ImagePlot("pattern")
        self.hand = Hand(self._later, self._failed, self._busy)
        self._forget()
        self._connect()
        self._put("forms", panes.forms_pane())
        self._put("notices", [])
        self._show_view()
        if begin is not None:
            self.hand.do("Opening", begin, self._opened, key="open")

    # -------------------------------------------------------------------------------- beginning and ending

    def _forget(self) -> None:
        """Begin anew, as with another cube."""
        self.frame: Frame | None = None
        self.pattern_frame: Frame | None = None
        self.images: dict[str, xr.DataArray] = {}
        self.image_name = ""
        self.entry = ""
        self.at: dict[str, int] = {}
        self.region: Region | None = None
        self.window: dict[str, tuple[float, float]] = {}
        self.elements: list[str] = []
        self.job: Job[Any] | None = None
        self.job_title = ""
        self._told = 0.0
        self._jobs: dict[str, Job[Any]] = {}
        self._timers: dict[str, Any] = {}
        self.shown: Map | ComponentView | xr.DataArray | None = None
        self.part: tuple[int, str, int] | None = None
        self.component: ComponentView | None = None
        self.mean: Spectrum | None = None
        self.whole: Spectrum | None = None
        self.other: tuple[Outcome, str, int] | None = None
        self._outcomes: dict[int, dict[str, Any]] = {}
        self._scales: dict[str, Any] = {}
        self._map_note = ""

    def _connect(self) -> None:
        """Add plots and bridge to the document, and hear what happens to them."""
        self.bridge.on_change("asked", lambda attr, old, new: self.act(new))
        for picture in (self.image, self.map):
            picture.plot.on_event(SelectionGeometry, self._drawn)
            picture.plot.on_event(Tap, self._tapped)
        self.pattern.plot.on_event(SelectionGeometry, self._drawn_on_pattern)
        self.spectrum.plot.on_event(SelectionGeometry, self._dragged)
        self.spectrum.plot.on_event(RangesUpdate, lambda event: self.spectrum.rescale())
        for end in ("left", "right"):
            self.spectrum.window.on_change(end, self._pulled)
        for side in ("inner_width", "inner_height"):
            self.spectrum.plot.on_change(side, lambda attr, old, new: self.spectrum.rescale())
        self._pulling = False
        roots = (self.bridge, self.image.plot, self.map.plot, self.spectrum.plot, self.pattern.plot)
        for root in roots:
            self.document.add_root(root)
        self.document.title = "emcube explorer"
        config = self.document.config
        if hasattr(config, "notify_connection_status"):
            config.notify_connection_status = False
        self._paint(False)

    def end(self) -> None:
        """Cancel what runs and close the session. Returns at once; `join` waits."""
        if self._ended:
            return
        self._ended = True
        session = self.session
        for job in [self.job, *self._jobs.values()]:
            if job is not None:
                job.cancel()
        self.hand.close(None if session is None else session.close)

    def join(self, timeout: float | None = None) -> None:
        """Wait until an ended visit has let go of everything."""
        self.hand.join(timeout)

    # ------------------------------------------------------------------------------------- threads and panes

    def _later(self, what: Callable[[], None]) -> None:
        """Have something called on the page's thread, unless the visit has ended."""

        def guarded() -> None:
            if self._ended:
                return
            try:
                what()
            # A look that fails must not stop those after it.
            except Exception as error:  # noqa: BLE001
                self._failed("Showing it", error)

        if not self._ended:
            self.document.add_next_tick_callback(guarded)

    def _put(self, pane: str, value: Any) -> None:
        # In ASCII: paths may hold halves of surrogate pairs, which no socket takes.
        text = json.dumps(value, allow_nan=False)
        if getattr(self.bridge, pane) != text:
            setattr(self.bridge, pane, text)

    def _failed(self, doing: str, error: BaseException) -> None:
        if not isinstance(error, EmcubeError):
            _log.warning("%s failed", doing, exc_info=error)
        self._notify(panes.problem_notice(f"{doing} failed", Problem.of(error)))
        # The page may show what was asked for and is not: bring it back to what is.
        self._show_settings()
        self._show_view()

    def _notify(self, notice: Mapping[str, Any]) -> None:
        self._number += 1
        others = [
            n for n in self._notices if (n["head"], n["what"]) != (notice["head"], notice["what"])
        ]
        self._notices = [*others[-4:], {"id": self._number, **notice}]
        self._put("notices", self._notices)

    def _good(self, head: str, what: str, link: str = "") -> None:
        self._notify({"kind": "good", "head": head, "what": what, "hint": "", "link": link})

    def _warn(self, head: str, what: str) -> None:
        self._notify({"kind": "warning", "head": head, "what": what, "hint": ""})

    def _busy(self, names: list[str]) -> None:
        self._put("busy", names)

    # --------------------------------------------------------------------------------------- what is asked

    def act(self, asked: str) -> None:
        """Do what the page asks for.

        Parameters
        ----------
        asked : str
            JSON: ``{"do": "window", ...}``.
        """
        if not asked:
            return
        try:
            message = json.loads(asked) if len(asked) <= MESSAGE else {}
            verb = str(message.get("do", "")).replace("-", "_")
            deed = getattr(self, f"do_{verb}", None)
            if deed is None:
                raise InputError(
                    f"the page asks for {shorten(verb, 40)!r}, which is nothing that can be done",
                    hint="reload the page",
                )
            deed(message)
        # Whatever it is must reach the page.
        except Exception as error:  # noqa: BLE001
            self._failed("This", error)

    def _need(self) -> Session:
        if self.session is None or not self.session.has_cube:
            raise InputError("there is no cube yet", hint="open one at the left")
        return self.session

    def do_open(self, asked: Mapping[str, Any]) -> None:
        """Open a file, store, catalog, entry or result."""
        source = str(asked["source"]).strip()
        if not source:
            raise InputError(
                "nothing was named", hint="give a file, a store, a catalog or a result"
            )
        self.hand.do("Opening", lambda: self._open_other(source), self._opened, key="open")

    def do_find(self, asked: Mapping[str, Any]) -> None:
        """Search the catalog."""
        session, text = self.session, str(asked.get("text", ""))[:1000]
        if session is not None and session.catalog is not None:
            self.hand.do(
                "Searching the catalog",
                lambda: panes.catalog_pane(session, session.entries(text)),
                lambda found: self._put("catalog", found),
                key="find",
            )

    def do_choose(self, asked: Mapping[str, Any]) -> None:
        """Look at a dataset of the catalog."""
        session, entry = self.session, str(asked["entry"])
        if session is None:
            raise InputError("there is no catalog", hint="open one")
        self._stop_jobs()

        def chosen(_: Any) -> None:
            self._renew(session)
            self.entry = entry
            self._show_cube()

        self.hand.do("Opening the dataset", lambda: session.choose(entry), chosen, key="open")

    def _opened(self, session: Session) -> None:
        """Show what was opened, in place of what was open before."""
        before, self.session = self.session, session
        self._stop_jobs()
        if before is not None:
            self.hand.do("Closing", before.close)
        self._renew(session)

    def _renew(self, session: Session) -> None:
        self._forget()
        for plot in (self.image, self.map, self.pattern):
            plot.clear()
            plot.mark(([], []))
        self.spectrum.drop("all", "region", "own", "component", "other")
        self.spectrum.marks = []
        self.spectrum.show_window(None)
        self.spectrum.draw()
        for pane in ("curve", "comparison"):
            self._put(pane, None)
        self._put("outcomes", [])
        self._put("job", panes.job_pane(None, ""))
        if session.catalog is not None:
            self.do_find({})
        else:
            self._put("catalog", None)
        if session.has_cube:
            self._begin_cube(session)
        self._show_cube()
        self._show_settings()
        self._show_view()
        self._show_record()

    def _begin_cube(self, session: Session) -> None:
        cube = session.cube
        self.frame = Frame.of(cube)
        sig = sig_dims(cube)
        self.pattern_frame = Frame.over(cube, sig) if len(sig) == 2 else None
        self.at = dict.fromkeys(nav_dims(cube)[:-2], 0)
        self.elements = list(cube.em.metadata.elements or [])
        # Faint lines are seen beside strong ones, and counting noise is alike everywhere.
        self.spectrum.scaling = "sqrt" if cube.dtype.kind in "ui" else "linear"
        if len(sig) == 1:
            self.spectrum.fit_x(positions(cube, sig[0]))
        for plot in (self.image, self.pattern):
            plot.reset()
        self._follow("coarse", session.prepare(), lambda _: self._look())
        if session.outcomes:
            self._read_outcomes()

    def _stop_jobs(self) -> None:
        for job in [self.job, *self._jobs.values()]:
            if job is not None:
                job.cancel()

    def _follow(self, key: str, job: Job[Any], then: Callable[[Any], None]) -> None:
        """Hear of a job beside the run: one at a time for each key, the older one is cancelled."""
        older = self._jobs.get(key)
        if older is not None and older is not job:
            older.cancel()
        self._jobs[key] = job

        def ended() -> None:
            if self._jobs.get(key) is not job:
                return
            del self._jobs[key]
            self._show_view()
            if job.error is not None:
                self._notify(panes.problem_notice(f"{job.name} failed", job.error))
            elif job.state == "done":
                then(job.result)

        def news(job: Job[Any]) -> None:
            if job.done:
                self._later(ended)

        job.listen(news)

    def _soon(self, key: str, what: Callable[[], None]) -> None:
        """Do something when nothing of the same key was asked for during a moment."""
        older = self._timers.pop(key, None)
        if older is not None and older in self.document.session_callbacks:
            self.document.remove_timeout_callback(older)

        def now() -> None:
            self._timers.pop(key, None)
            if not self._ended:
                what()

        self._timers[key] = self.document.add_timeout_callback(now, PATIENCE)

    # ----------------------------------------------------------------------------------------- images

    def _look(self) -> None:
        """Read images, spectrum and map, now that the coarse cube is there."""
        session = self._need()
        self.hand.do("Reading the images", session.images, self._images_read, key="images")
        self._look_spectrum()
        if self.window:
            self._look_window()
        self._look_lines()

    def _images_read(self, images: dict[str, xr.DataArray]) -> None:
        self.images = images
        if self.image_name not in images:
            self.image_name = next(iter(images), "")
        self._draw_image()
        self.image.reset()
        self._show_cube()
        self._show_view()

    def do_image(self, asked: Mapping[str, Any]) -> None:
        """Show another image."""
        names = list(self.images)
        self.image_name = names[int(asked["number"])]
        self._draw_image()
        self._show_view()

    def do_position(self, asked: Mapping[str, Any]) -> None:
        """Go to another position of a series."""
        dim, at = str(asked["dim"]), int(asked["at"])
        cube = self._need().cube
        if dim not in self.at or not 0 <= at < cube.sizes[dim]:
            raise InputError(
                f"there is no position {at} of {shorten(dim, 40)!r}", hint="move the slider"
            )
        self.at[dim] = at
        self._draw_image()
        self._draw_map()
        self._show_view()

    def _draw_image(self) -> None:
        image = self.images.get(self.image_name)
        if image is None or self.frame is None:
            self.image.clear()
            self._scales["image"] = None
            return
        self._scales["image"] = self._show(self.image, image)

    def _show(
        self,
        picture: ImagePlot,
        values: xr.DataArray,
        *,
        per: int = 1,
        shades: Shades | None = None,
    ) -> dict[str, Any] | None:
        """Draw values over the navigation dims; says how they became colours."""
        frame = self.frame
        if frame is None or self.session is None:
            return None
        shown = self._slice(values, frame)
        array = np.asarray(shown.values, dtype=np.float64).reshape(-1, shown.shape[-1]) / per
        used = shades or shades_of(np.asarray(values.values, dtype=np.float64) / per)
        picture.show(array, frame.extent(shown, self.session.cube), used, frame.unit)
        unit = clean(pretty(str(values.attrs.get("units") or "")))[:24]
        return {
            "low": number(used.low, 3),
            "high": number(used.high, 3),
            "unit": "" if unit == "1" else unit,
            "kind": used.kind,
            "exact": bool(values.attrs.get("exact", True)),
        }

    def _slice(self, values: xr.DataArray, frame: Frame) -> xr.DataArray:
        """The image of a series at the chosen positions."""
        cube = self._need().cube
        at: dict[str, int] = {}
        for dim, index in self.at.items():
            if dim not in values.dims:
                continue
            if values.sizes[dim] == cube.sizes[dim]:
                at[dim] = index
            else:
                here = positions(cube, dim)[index]
                at[dim] = int(np.argmin(np.abs(positions(values, dim) - here)))
        found: xr.DataArray = values.isel(at).transpose(*frame.dims)
        return found

    def do_reset_images(self, asked: Mapping[str, Any]) -> None:
        """Show whole images."""
        self.image.reset()

    # ----------------------------------------------------------------------------------------- regions

    def _drawn(self, event: Any) -> None:
        """A rectangle or an outline was drawn over an image."""
        if not event.final or self.frame is None:
            return
        try:
            self._choose_region(self._region_of(event.geometry))
        except EmcubeError as error:
            self._failed("This region", error)

    def _region_of(self, geometry: Mapping[str, Any]) -> Region:
        frame = self.frame
        assert frame is not None
        if geometry["type"] == "poly" and not frame.is_line:
            points = [
                frame.position(float(x), float(y))
                for x, y in zip(geometry["x"], geometry["y"], strict=True)
            ]
            return Region.polygon(_simple(points))
        if geometry["type"] == "poly":
            ends = [frame.position(float(x), 0.0) for x in geometry["x"]]
            corners = [min(ends), max(ends)]
        else:
            corners = [
                frame.position(float(geometry["x0"]), float(geometry["y0"])),
                frame.position(float(geometry["x1"]), float(geometry["y1"])),
            ]
        spans = {}
        for i, dim in enumerate(frame.dims):
            axis = i - len(frame.dims)
            spans[dim] = _span(corners[0][axis], corners[1][axis], frame.shape[axis])
        return Region.box(**spans)

    def _tapped(self, event: Any) -> None:
        """A pixel was clicked."""
        frame = self.frame
        if frame is None or event.x is None or event.y is None:
            return
        place = frame.position(float(event.x), float(event.y))
        at = [round(v) for v in place]
        inside = all(0 <= v < n for v, n in zip(at, frame.shape, strict=True))
        if frame.is_line:
            inside = 0 <= at[1] < frame.shape[1]
        if inside:
            self._choose_region(
                Region.pixel(**dict(zip(frame.dims, at[-len(frame.dims) :], strict=True)))
            )

    def do_region(self, asked: Mapping[str, Any]) -> None:
        """Take a region that was typed: first and last pixel of each dim."""
        frame = self.frame
        if frame is None:
            raise InputError("this cube has no pixels to choose from", hint="look at its spectrum")
        spans = {}
        for dim, n in zip(frame.dims, frame.shape[-len(frame.dims) :], strict=True):
            first, last = (_whole(v, f"{dim}") for v in asked["spans"][dim])
            if not 0 <= first <= last < n:
                raise InputError(
                    f"{shorten(dim, 40)} from {first} to {last} is no part of 0 to {n - 1}",
                    hint="give the first and the last pixel",
                )
            spans[dim] = (first, last + 1)
        self._choose_region(Region.box(**spans))

    def _choose_region(self, region: Region | None) -> None:
        session = self._need()
        if region is not None:
            cube = session.cube
            region.check({d: cube.sizes[d] for d in nav_dims(cube)})
        self.region = region
        if self.frame is not None:
            outline = self.frame.outline(region)
            self.image.mark(outline)
            self.map.mark(outline)
        self._look_spectrum()
        self._show_view()

    def do_clear_region(self, asked: Mapping[str, Any]) -> None:
        """Look at all pixels again."""
        self._choose_region(None)

    def do_keep_region(self, asked: Mapping[str, Any]) -> None:
        """Analyse the region only."""
        self._mask(keep=True)

    def do_drop_region(self, asked: Mapping[str, Any]) -> None:
        """Leave the region out of the analysis."""
        self._mask(keep=False)

    def _mask(self, *, keep: bool) -> None:
        session, region = self._need(), self.region
        if region is None:
            raise InputError("no region is chosen", hint="draw one over an image")
        self.hand.do(
            "Taking the region",
            lambda: session.mask(region, keep=keep),
            lambda _: self._show_settings(),
        )

    # ------------------------------------------------------------------------------------- spectra, windows

    def _look_spectrum(self) -> None:
        session, region = self._need(), self.region
        if not session.is_ready:
            return

        def looked(found: Spectrum) -> None:
            self._spectrum_read(found)
            if not found.exact:
                self._soon("spectrum", lambda: self._exact_spectrum(session, region))

        older = self._jobs.pop("spectrum", None)
        if older is not None:
            older.cancel()
        self.hand.do(
            "Reading the spectrum", lambda: session.spectrum(region), looked, key="spectrum"
        )

    def _exact_spectrum(self, session: Session, region: Region | None) -> None:
        if session is self.session and region == self.region:
            self.hand.do(
                "Reading the spectrum",
                lambda: session.exact_spectrum(region),
                lambda job: self._follow("spectrum", job, self._spectrum_read),
                key="exact spectrum",
            )

    def _spectrum_read(self, found: Spectrum) -> None:
        if found.region != self.region:
            return
        self.mean = found
        if found.region is None:
            self.whole = found
        self._draw_spectrum()
        self._show_view()

    def _draw_spectrum(self) -> None:
        """Draw what there is: all pixels, the region, a component and its pixels."""
        if self.pattern_frame is not None:
            self._draw_pattern()
            return
        plot = self.spectrum
        plot.drop("all", "region", "own", "component", "other")
        if self.mean is not None:
            if self.mean.region is not None and self.whole is not None:
                plot.put("all", *self._curve(self.whole.mean))
            plot.put(
                "region", *self._curve(self.mean.mean), tint=0 if self.component is None else INK
            )
        self._put_component()
        plot.draw()

    def _curve(self, values: xr.DataArray) -> tuple[Any, Any]:
        """Channels and values; of a coarse cube as if its channels were as narrow as those of the data."""
        cube = self._need().cube
        dim = str(values.dims[0])
        x = positions(values, dim)
        ours = positions(cube, dim)
        wide = 1.0
        if x.size > 1 and ours.size > 1:
            wide = abs((x[-1] - x[0]) / (x.size - 1)) / abs((ours[-1] - ours[0]) / (ours.size - 1))
        return x, np.asarray(values.values, dtype=np.float64) / max(round(wide, 3), 1e-9)

    def _put_component(self) -> None:
        view, plot = self.component, self.spectrum
        if view is None or self.part is None:
            return
        level = None
        if view.mean is not None:
            x, y = self._curve(view.mean.mean)
            plot.put("own", x, y)
            level = y
        elif self.mean is not None:
            level = self._curve(self.mean.mean)[1]
        if view.spectrum.dims == sig_dims(self._need().cube) and level is not None:
            plot.put("component", *self._alike(view.spectrum, level), tint=view.k)
        if self.other is not None and level is not None:
            from emcube.explore.outcomes import spectra_of

            outcome, step, k = self.other
            spectrum = spectra_of(outcome, step)[k]
            if spectrum.dims == view.spectrum.dims:
                plot.put("other", *self._alike(spectrum, level), tint=1 if view.k != 1 else 0)

    def _alike(self, spectrum: xr.DataArray, level: Any) -> tuple[Any, Any]:
        """A component on the scale of a mean spectrum: of the same sum, or peak where it has both signs."""
        x, y = positions(spectrum, spectrum.dims[0]), np.asarray(spectrum.values, dtype=np.float64)
        if np.nanmin(y) >= 0 and np.nansum(y) > 0:
            # Per channel: a preview's channels are wider.
            return x, y * (np.nanmean(level) / np.nanmean(y))
        return x, y * (np.nanmax(np.abs(level)) / (np.nanmax(np.abs(y)) or 1.0))

    def _draw_pattern(self) -> None:
        """Draw the mean pattern of the region, or the chosen component."""
        frame, mean = self.pattern_frame, self.mean
        if frame is None or self.session is None:
            return
        pattern = None if mean is None else mean.mean
        if self.component is not None and self.component.spectrum.dims == frame.dims:
            pattern = self.component.spectrum
        if pattern is None:
            return
        values = np.asarray(pattern.transpose(*frame.dims).values, dtype=np.float64)
        if self.spectrum.scaling != "linear":
            above = values[values > 0]
            floor = float(above.min()) / 2 if above.size else 1.0
            signed = np.sign(values) * np.sqrt(np.abs(values))
            values = (
                signed if self.spectrum.scaling == "sqrt" else np.log10(np.maximum(values, floor))
            )
        self.pattern.show(
            values, frame.extent(pattern, self.session.cube), shades_of(values), frame.unit
        )

    def _dragged(self, event: Any) -> None:
        """A range was dragged over the spectrum."""
        if not event.final or self.session is None or not self.session.has_cube:
            return
        ends = sorted((float(event.geometry["x0"]), float(event.geometry["x1"])))
        self._choose_window({sig_dims(self.session.cube)[0]: (ends[0], ends[1])})

    def _pulled(self, attr: str, old: Any, new: Any) -> None:
        """The window on the spectrum was moved, or one of its ends."""
        box = self.spectrum.window
        if self._pulling or self.session is None or not self.session.has_cube or not self.window:
            return
        ends = sorted((float(box.left), float(box.right)))
        dim = sig_dims(self.session.cube)[0]
        if ends[1] > ends[0] and self.window.get(dim) != (ends[0], ends[1]):
            self.window = {dim: (ends[0], ends[1])}
            self._look_window()
            self._show_view()

    def _drawn_on_pattern(self, event: Any) -> None:
        """A virtual detector was drawn over a pattern."""
        frame = self.pattern_frame
        if not event.final or frame is None or event.geometry["type"] != "rect":
            return
        cube = self._need().cube
        corners = [
            frame.position(float(event.geometry[f"x{i}"]), float(event.geometry[f"y{i}"]))
            for i in (0, 1)
        ]
        window = {}
        for i, dim in enumerate(frame.dims):
            start, stop = _span(corners[0][i], corners[1][i], frame.shape[i])
            ends = sorted(float(positions(cube, dim)[j]) for j in (start, stop - 1))
            window[dim] = (ends[0], ends[1])
        self._choose_window(window)

    def do_window(self, asked: Mapping[str, Any]) -> None:
        """Take a window that was typed."""
        dims = sig_dims(self._need().cube)
        window = {}
        for dim, ends in asked["ends"].items():
            if dim not in dims:
                raise InputError(f"{shorten(dim, 40)!r} is no signal dim", hint="reload the page")
            low, high = sorted(_real(v, dim) for v in ends)
            window[dim] = (low, high)
        self._choose_window(window)

    def do_clear_window(self, asked: Mapping[str, Any]) -> None:
        """Take the window away."""
        self.window = {}
        self.spectrum.show_window(None)
        self.pattern.mark(([], []))
        if self.part is None:
            self.shown = None
            self.map.clear()
            self._scales["map"] = None
        self._show_view()

    def _choose_window(self, window: dict[str, tuple[float, float]]) -> None:
        self.window = window
        self._show_ends()
        self._look_window()
        self._show_view()

    def _show_ends(self) -> None:
        if self.pattern_frame is not None and self.session is not None:
            cube, frame = self.session.cube, self.pattern_frame
            spans = {}
            for dim, n in zip(frame.dims, frame.shape, strict=True):
                if dim in self.window:
                    ends = [np.argmin(np.abs(positions(cube, dim) - v)) for v in self.window[dim]]
                    spans[dim] = _span(float(ends[0]), float(ends[1]), n)
            self.pattern.mark(frame.outline(Region.box(**spans) if spans else None))
            return
        self._pulling = True
        self.spectrum.show_window(next(iter(self.window.values()), None))
        self._pulling = False

    def _look_window(self) -> None:
        session, window = self._need(), dict(self.window)
        if not session.is_ready or not window:
            return
        self.part = self.component = self.other = None
        older = self._jobs.pop("map", None)
        if older is not None:
            older.cancel()

        def looked(found: Map) -> None:
            self._map_read(found)
            if not found.exact:
                self._soon("map", lambda: self._exact_map(session, window))

        self.hand.do("Mapping the window", lambda: session.window_map(window), looked, key="map")

    def _exact_map(self, session: Session, window: dict[str, tuple[float, float]]) -> None:
        if session is self.session and window == self.window:
            self.hand.do(
                "Mapping the window",
                lambda: session.exact_map(window),
                lambda job: self._follow("map", job, self._map_read),
                key="exact map",
            )

    def _map_read(self, found: Map) -> None:
        if found.windows != self.window or self.part is not None:
            return
        self.shown = found
        self._map_note = "" if found.exact else "from the binned copy"
        self._draw_spectrum()
        self._draw_map()
        self._show_outcomes()
        self._show_view()

    def _draw_map(self) -> None:
        """Draw what the right image shows: a window, a component, or clusters."""
        from emcube.explore.views import Map as WindowMap

        shown = self.shown
        if shown is None:
            self.map.clear()
            self._scales["map"] = None
        elif isinstance(shown, WindowMap):
            self._scales["map"] = self._show(self.map, shown.values, per=shown.pixels_per_bin)
        elif self.part is not None and self.part[2] < 0:
            self._scales["map"] = self._show_labels(shown)  # type: ignore[arg-type]
        elif self.component is not None:
            self._scales["map"] = self._show(self.map, self.component.map)

    def _show_labels(self, labels: xr.DataArray) -> dict[str, Any] | None:
        values = labels.where(labels >= 0).astype(np.float64)
        n = max(int(np.nanmax(values.values, initial=0)) + 1, 1)
        tints = tuple(colour(k, self.spectrum.dark) for k in range(n))
        shades = Shades(-0.5, n - 0.5, tints, "categories")
        scale = self._show(self.map, values, shades=shades)
        return None if scale is None else {**scale, "unit": "", "keys": list(range(n))}

    def do_reset_spectrum(self, asked: Mapping[str, Any]) -> None:
        """Show the whole spectrum."""
        self.spectrum.reset()
        self.pattern.reset()

    def do_scaling(self, asked: Mapping[str, Any]) -> None:
        """Draw counts linearly, by square root, or by logarithm."""
        if asked["scaling"] not in ("linear", "sqrt", "log"):
            raise InputError("there is no such scale", hint="choose one of the list")
        self.spectrum.scaling = str(asked["scaling"])
        self._draw_spectrum()
        self._show_view()

    def do_elements(self, asked: Mapping[str, Any]) -> None:
        """Draw the lines of elements."""
        words = str(asked.get("elements", "")).replace(",", " ").split()
        self.elements = [w[:1].upper() + w[1:].lower() for w in words[:40]]
        self._look_lines()

    def _look_lines(self) -> None:
        session, elements = self._need(), list(self.elements)
        if self.pattern_frame is not None:
            return

        def found(marks: list[Any]) -> None:
            self.spectrum.marks = [m for m in marks if m.weight >= FAINT]
            self.spectrum.draw()
            self._show_view()

        if not elements:
            found([])
            return
        self.hand.do("Looking up lines", lambda: session.lines(elements), found, key="lines")

    # ------------------------------------------------------------------------------------------- settings

    def _set(self, change: Callable[[Settings], Settings]) -> None:
        session = self._need()

        def work() -> None:
            session.settings = change(session.settings).check()

        self.hand.do("Setting", work, lambda _: self._show_settings())

    def do_use_window(self, asked: Mapping[str, Any]) -> None:
        """Analyse the channels of the window only."""
        if not self.window:
            raise InputError("there is no window", hint="drag one over the spectrum")
        window = {d: (float(f"{a:.6g}"), float(f"{b:.6g}")) for d, (a, b) in self.window.items()}
        self._set(lambda s: s.window(**window))

    def do_bins(self, asked: Mapping[str, Any]) -> None:
        """Sum neighbours before the analysis."""
        cube = self._need().cube
        factors = {}
        for dim, text in asked["factors"].items():
            factor = _whole(text or "1", str(dim))
            if dim not in cube.dims or not 1 <= factor <= cube.sizes[dim]:
                raise InputError(
                    f"cannot bin {shorten(dim, 40)} by {factor}, expected 1 to "
                    f"{cube.sizes.get(dim, 0)}",
                    hint="give the number of neighbours that are summed",
                )
            factors[str(dim)] = factor
        self._set(lambda s: s.bins(**factors))

    def do_clear_prepare(self, asked: Mapping[str, Any]) -> None:
        """Analyse everything again."""
        self._set(lambda s: replace(s, prepare=(), where=None))

    def do_unprepare(self, asked: Mapping[str, Any]) -> None:
        """Take one preparation away."""
        at = int(asked["number"])

        def without(settings: Settings) -> Settings:
            if at >= len(settings.prepare):
                return replace(settings, where=None)
            kept = tuple(p for i, p in enumerate(settings.prepare) if i != at)
            return replace(settings, prepare=kept)

        self._set(without)

    def do_step(self, asked: Mapping[str, Any]) -> None:
        """Run a step, or leave it out."""
        name, on = str(asked["step"]), bool(asked["on"])

        def changed(settings: Settings) -> Settings:
            if not on:
                return settings.without_step(name)
            if name not in ORDER:
                raise InputError(f"there is no step {shorten(name, 40)!r}", hint="reload the page")
            usual = {k: v for s in Settings.default().steps for k, v in s.items()}
            given = usual.get(name) or {}
            if given.get("on") not in (None, *settings.names()):
                given = {k: v for k, v in given.items() if k != "on"}
            added = (*settings.steps, {name: given})
            ranks = {verb: i for i, verb in enumerate(ORDER)}
            return replace(settings, steps=tuple(sorted(added, key=lambda s: ranks[next(iter(s))])))

        self._set(changed)

    def do_set(self, asked: Mapping[str, Any]) -> None:
        """Give a parameter of a step another value; an empty one is the default."""
        name, parameter, text = (str(asked[k]) for k in ("step", "name", "value"))

        def changed(settings: Settings) -> Settings:
            verb = next(v for s in settings.steps for v in s if _name_of(s) == name)
            given = settings.step(name)
            given.pop(parameter, None)
            if text.strip():
                given[parameter] = _value(verb, parameter, text.strip())
            label = {} if name == verb else {"name": name}
            steps = [
                {verb: {**given, **label}} if _name_of(s) == name else s for s in settings.steps
            ]
            return replace(settings, steps=tuple(steps))

        self._set(changed)

    # ------------------------------------------------------------------------------------------------ jobs

    def do_curve(self, asked: Mapping[str, Any]) -> None:
        """Estimate the number of components."""
        self._start("Number of components", self._need().curve, self._curve_found)

    def _curve_found(self, estimate: Any) -> None:
        self._put("curve", panes.curve_pane(estimate))

    def do_parts(self, asked: Mapping[str, Any]) -> None:
        """Take a number of components for every method."""
        n = _whole(asked["n"], "components")
        self._set(lambda s: s.parts(n))

    def do_preview(self, asked: Mapping[str, Any]) -> None:
        """Run on the binned cube."""
        self._start("Preview", self._need().preview, self._outcome_found)

    def do_run(self, asked: Mapping[str, Any]) -> None:
        """Run on everything."""
        self._start("Run on everything", self._need().run, self._outcome_found)

    def _start(
        self, title: str, start: Callable[[], Job[Any]], then: Callable[[Any], None]
    ) -> None:
        if self.job is not None and not self.job.done:
            raise InputError(
                f"{self.job_title} is still running", hint="wait for it, or cancel it first"
            )

        def started(job: Job[Any]) -> None:
            self.job, self.job_title, self._told = job, title, 0.0

            def news(job: Job[Any]) -> None:
                now = time.monotonic()
                if job.done or now - self._told > TELL:
                    self._told = now
                    self._later(lambda: self._job_seen(job, then))

            job.listen(news)
            self._job_seen(job, then)

        self.hand.do(f"Starting: {title}", start, started, key="start")

    def _job_seen(self, job: Job[Any], then: Callable[[Any], None]) -> None:
        if job is not self.job:
            return
        self._put("job", panes.job_pane(job, self.job_title))
        if not job.done:
            return
        self.job = None
        if job.error is not None:
            self._notify(panes.problem_notice(f"{self.job_title} failed", job.error))
        elif job.state == "cancelled":
            self._warn(
                f"{self.job_title} was cancelled",
                "What was finished is kept: the same run goes on from there.",
            )
        else:
            then(job.result)
        self._show_record()
        self._show_view()

    def do_cancel(self, asked: Mapping[str, Any]) -> None:
        """Stop what runs."""
        if self.job is not None:
            self.job.cancel()
            self._put("job", {**panes.job_pane(self.job, self.job_title), "said": "Stopping"})

    # --------------------------------------------------------------------------------------------- results

    def _outcome_found(self, outcome: Outcome) -> None:
        self._read_outcomes(show=outcome)

    def _read_outcomes(self, show: Outcome | None = None) -> None:
        """Make the panes of outcomes that have none yet, and look at one."""
        session = self._need()
        new = [o for o in session.outcomes if o.number not in self._outcomes]

        def read(made: list[dict[str, Any]]) -> None:
            self._outcomes |= {pane["number"]: pane for pane in made}
            last = show or session.outcomes[-1]
            steps = [s for s in ("nmf", *last.steps[::-1]) if s in last.steps]
            self._show_outcomes()
            if steps:
                self.do_part({"outcome": last.number, "step": steps[0], "k": 0})

        self.hand.do("Drawing the results", lambda: [panes.outcome_pane(o) for o in new], read)

    def _outcome(self, given: Any) -> Outcome:
        for outcome in self._need().outcomes:
            if outcome.number == int(given):
                return outcome
        raise InputError(f"there is no result {given}", hint="choose one of the list")

    def _show_outcomes(self) -> None:
        chosen = list(self.part) if self.part is not None else None
        found = [self._outcomes[n] for n in sorted(self._outcomes, reverse=True)]
        self._put("outcomes", [{**pane, "chosen": chosen} for pane in found])

    def do_part(self, asked: Mapping[str, Any]) -> None:
        """Look at a component: its map, its spectrum, and its pixels' mean."""
        session, outcome = self._need(), self._outcome(asked["outcome"])
        step, k = str(asked["step"]), int(asked["k"])
        self.other = None
        if "other" in asked and asked["other"] is not None:
            number_, other_step, other_k = asked["other"]
            self.other = (self._outcome(number_), str(other_step), int(other_k))
        part = (outcome.number, step, k)
        if k < 0:
            self.hand.do(
                "Reading the clusters",
                lambda: outcome.result[step]["labels"].load(),
                lambda labels: self._labels_read(part, labels),
                key="map",
            )
            return
        self.hand.do(
            "Reading the component",
            lambda: session.component(outcome, step, k),
            lambda view: self._component_read(part, view, session, outcome),
            key="map",
        )

    def _labels_read(self, part: tuple[int, str, int], labels: xr.DataArray) -> None:
        self.part, self.component, self.shown = part, None, labels
        self._after_part("")

    def _component_read(
        self,
        part: tuple[int, str, int],
        view: ComponentView,
        session: Session,
        outcome: Outcome,
    ) -> None:
        self.part, self.component, self.shown = part, view, view
        self._after_part(view.rule)
        if view.mean is not None and not view.mean.exact and not outcome.preview:
            self._soon("component", lambda: self._exact_part(part, session, outcome))

    def _exact_part(self, part: tuple[int, str, int], session: Session, outcome: Outcome) -> None:
        if part != self.part or session is not self.session:
            return

        def exact(view: ComponentView) -> None:
            if self.part == part:
                self.component = self.shown = view
                self._after_part(view.rule)

        self.hand.do(
            "Reading the component's pixels",
            lambda: session.exact_component(outcome, part[1], part[2]),
            lambda job: self._follow("component", job, exact),
            key="exact map",
        )

    def _after_part(self, note: str) -> None:
        self._map_note = note
        self._draw_map()
        self._draw_spectrum()
        self._show_outcomes()
        self._show_view()
        self._show_record()

    def do_compare(self, asked: Mapping[str, Any]) -> None:
        """Match the components of two results."""
        session = self._need()
        first, second = self._outcome(asked["first"]), self._outcome(asked["second"])
        steps = asked.get("steps")
        step = (str(steps[0]), str(steps[1])) if steps else None
        self.hand.do(
            "Comparing",
            lambda: panes.comparison_pane(session.compare(first, second, step)),
            lambda pane: self._put("comparison", pane),
            key="compare",
        )

    # --------------------------------------------------------------------------------------------- keeping

    def do_save(self, asked: Mapping[str, Any]) -> None:
        """Keep a result in a folder."""
        session, outcome, path = self._need(), self._outcome(asked["outcome"]), _path(asked)
        overwrite = bool(asked.get("overwrite"))
        self.hand.do(
            "Saving",
            lambda: session.save(path, outcome, overwrite=overwrite),
            lambda found: self._kept("Saved", found),
        )

    def do_report(self, asked: Mapping[str, Any]) -> None:
        """Write a report."""
        session, outcome, path = self._need(), self._outcome(asked["outcome"]), _path(asked)
        overwrite = bool(asked.get("overwrite"))
        self.hand.do(
            "Writing the report",
            lambda: session.report(path, outcome, overwrite=overwrite),
            lambda found: self._kept("Report written", found, link=True),
        )

    def do_publish(self, asked: Mapping[str, Any]) -> None:
        """Pack a result for publication."""
        session, outcome, path = self._need(), self._outcome(asked["outcome"]), _path(asked)
        options: dict[str, Any] = {
            "overwrite": bool(asked.get("overwrite")),
            "include_data": bool(asked.get("data")),
        }
        for key in ("title", "creators", "license"):
            if str(asked.get(key) or "").strip():
                options[key] = str(asked[key]).strip()
        self.hand.do(
            "Packing",
            lambda: session.publish(path, outcome, **options),
            lambda found: self._kept("Packed", found, link=True),
        )

    def _kept(self, what: str, path: Path, *, link: bool = False) -> None:
        key = f"{len(self.files)}-{_ascii(path.name)}"
        if link:
            self.files[key] = Path(path)
        self._good(what, clean(panes.short_path(path)), key if link else "")
        self._show_record()

    # ----------------------------------------------------------------------------------------- small things

    def do_scheme(self, asked: Mapping[str, Any]) -> None:
        """Take the colours of the browser's scheme."""
        self._paint(bool(asked["dark"]))

    def _paint(self, dark: bool) -> None:
        for plot in (self.image, self.map, self.pattern, self.spectrum):
            plot.paint(dark)
        if self.part is not None and self.part[2] < 0:
            self._draw_map()

    def do_dismiss(self, asked: Mapping[str, Any]) -> None:
        """Take a message away."""
        self._notices = [n for n in self._notices if n["id"] != int(asked["id"])]
        self._put("notices", self._notices)

    def do_record(self, asked: Mapping[str, Any]) -> None:
        """Bring the record up to date."""
        self._show_record()

    # ------------------------------------------------------------------------------------------ panes again

    def _show_cube(self) -> None:
        if self.session is None:
            self._put("cube", None)
            return
        self._put("cube", panes.cube_pane(self.session, list(self.images), self.entry))

    def _show_settings(self) -> None:
        session = self.session
        if session is None or not session.has_cube:
            self._put("settings", None)
            return
        settings = session.settings
        masked = bool(settings.prepared_with("select"))

        def pane() -> dict[str, Any]:
            selected = None
            if masked:
                used = session.selected()
                selected = (int(used.sum()), int(used.size))
            return panes.settings_pane(settings, selected)

        self.hand.do("Setting", pane, lambda found: self._put("settings", found), key="settings")
        self._show_record()

    def _show_record(self) -> None:
        session = self.session
        if session is None or not session.has_cube:
            self._put("record", None)
            return

        def pane() -> dict[str, Any]:
            actions = [
                {"at": a.at[11:19], "verb": a.verb, "what": _brief(a.parameters)}
                for a in list(session.actions)[-300:]
            ]
            return {
                # To the letter: whoever runs them gets what ran here.
                "recipe": session.recipe_text(),
                "script": session.script(),
                "actions": actions,
            }

        def shown(found: dict[str, Any]) -> None:
            self._put("record", found)

        self.hand.do("Writing the record", pane, shown, key="record")

    def _show_view(self) -> None:
        session = self.session
        if session is None or not session.has_cube:
            self._put("view", {"ready": False, "cwd": panes.short_path(Path.cwd())})
            return
        image = list(self.images).index(self.image_name) if self.image_name in self.images else 0
        self._put(
            "view",
            {
                "ready": session.is_ready,
                "reading": "coarse" in self._jobs,
                "image": image,
                "at": self.at,
                "aspect": None if self.frame is None else self.frame.aspect,
                "line": self.frame is not None and self.frame.is_line,
                "flat": self.frame is None,
                "pattern": self.pattern_frame is not None,
                "region": self._region_pane(session),
                "window": {d: [f"{v:.6g}" for v in ends] for d, ends in self.window.items()},
                "map": self._map_pane(),
                "imageScale": self._scales.get("image"),
                "spectrum": self._spectrum_pane(),
                "legend": self._legend(),
                "scaling": self.spectrum.scaling,
                "elements": " ".join(shorten(e, 12) for e in self.elements),
                "reads": [k for k in ("spectrum", "map", "component") if k in self._jobs],
                "cwd": panes.short_path(Path.cwd()),
            },
        )

    def _region_pane(self, session: Session) -> dict[str, Any]:
        fields: list[dict[str, Any]] = []
        frame, region = self.frame, self.region
        if frame is not None:
            spans = {d: (a, b - 1) for d, a, b in (region.spans if region is not None else ())}
            for dim, n in zip(frame.dims, frame.shape[-len(frame.dims) :], strict=True):
                first, last = spans.get(dim, (0, n - 1))
                fields.append(
                    {"dim": dim, "label": shorten(dim, 24), "n": n, "first": first, "last": last}
                )
        said = "All pixels"
        if region is not None and self.mean is not None and self.mean.region == region:
            said = plural(max(round(self.mean.n_pixels), 1), "pixel")
        elif region is not None:
            said = "Region"
        return {"on": region is not None, "said": said, "fields": fields}

    def _map_pane(self) -> dict[str, Any]:
        scale = self._scales.get("map")
        if self.part is not None:
            number_, step, k = self.part
            pane = self._outcomes.get(number_, {})
            title = next((s["title"] for s in pane.get("steps", []) if s["step"] == step), step)
            kind = (
                "clusters" if k < 0 else f"{'cluster' if self._is_clusters() else 'component'} {k}"
            )
            said = f"{title} {kind}"
            return {"title": said, "note": "", "scale": scale, "tint": k if k >= 0 else None}
        if self.window:
            said = ", ".join(
                f"{shorten(d, 24)} {a:.4g} to {b:.4g} {self._unit(d)}".strip()
                for d, (a, b) in self.window.items()
            )
            return {"title": said, "note": self._map_note, "scale": scale, "tint": None}
        what = "pattern" if self.pattern_frame is not None else "spectrum"
        return {"title": "Map", "note": "", "scale": None, "tint": None, "empty": what}

    def _is_clusters(self) -> bool:
        return self.component is not None and self.component.verb == "kmeans"

    def _unit(self, dim: str) -> str:
        cube = self._need().cube
        here = cube.coords.get(dim)
        return "" if here is None else clean(pretty(str(here.attrs.get("units") or "")))[:24]

    def _spectrum_pane(self) -> dict[str, Any]:
        mean = self.mean
        if mean is None:
            return {"note": "", "x": "", "y": ""}
        total = float(np.nansum(np.asarray(mean.values.values, dtype=np.float64)))
        unit = clean(pretty(str(mean.values.attrs.get("units") or "")))[:24] or "counts"
        if unit == "1":
            unit = "counts"
        dim = str(mean.values.dims[0])
        source = "" if mean.exact else ", from the binned copy"
        return {
            "note": f"{count(total)} {unit} in {plural(max(round(mean.n_pixels), 1), 'pixel')}{source}",
            "x": f"{shorten(dim, 24)} ({self._unit(dim)})" if self._unit(dim) else shorten(dim, 24),
            "y": f"{unit} per pixel",
        }

    def _legend(self) -> list[dict[str, Any]]:
        words = {
            "all": "all pixels",
            "region": "all pixels" if self.region is None else "region",
            "own": "its pixels",
            "component": "component",
            "other": "the other",
        }
        found = []
        for key in ("region", "all", "component", "own", "other"):
            one = self.spectrum.series.get(key)
            if one is not None:
                found.append({"label": words[key], "tint": one.tint, "dashed": key == "own"})
        return found if len(found) > 1 else []


# ------------------------------------------------------------------------------------------------ helpers


def _span(a: float, b: float, n: int) -> tuple[int, int]:
    """First pixel, and the one after the last, of those that a stretch of positions touches."""
    low, high = sorted((a, b))
    start = min(max(int(np.floor(low + 0.5)), 0), n - 1)
    stop = min(max(int(np.ceil(high + 0.5)), start + 1), n)
    return start, stop


def _simple(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """An outline without the corners that lie closer than half a pixel to the one before."""
    kept: list[tuple[float, float]] = []
    for row, column in points:
        if not kept or max(abs(row - kept[-1][0]), abs(column - kept[-1][1])) >= 0.5:
            kept.append((round(row, 2), round(column, 2)))
    return kept


def _whole(value: Any, what: str) -> int:
    try:
        return int(str(value).strip())
    except ValueError:
        raise InputError(
            f"{shorten(what, 40)}: got {shorten(value, 40)!r}, expected a whole number",
            hint="type digits only",
        ) from None


def _real(value: Any, what: str) -> float:
    try:
        found = float(str(value).strip())
    except ValueError:
        found = float("nan")
    if not np.isfinite(found):
        raise InputError(
            f"{shorten(what, 40)}: got {shorten(value, 40)!r}, expected a number",
            hint="type both ends of the window",
        )
    return found


def _value(verb: str, parameter: str, text: str) -> Any:
    """What was typed for a parameter, as a recipe has it; the recipe's schema judges it."""
    known = {f.name: f for f in fields_of(verb)}
    if parameter not in known:
        raise InputError(
            f"{verb} has no parameter {shorten(parameter, 40)!r}", hint="reload the page"
        )
    field = known[parameter]
    if text == "none" and None in field.choices:
        return None
    if text in field.choices:
        return text
    if field.kind == "yes or no":
        return text == "yes"
    try:
        return (
            float(text) if field.kind == "number" else int(text) if field.kind != "text" else text
        )
    except ValueError:
        return text


def _name_of(step: Mapping[str, Any]) -> str:
    (verb, given), *_ = step.items()
    return str((given or {}).get("name") or verb)


def _path(asked: Mapping[str, Any]) -> Path:
    text = str(asked.get("path") or "").strip()
    if not text:
        raise InputError("no place was named", hint="give a path")
    return Path(os.path.expandvars(text)).expanduser()


def _ascii(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in ".-_") else "_" for c in name)[-60:]


def _brief(parameters: Mapping[str, Any]) -> str:
    text = ", ".join(f"{k} {json.dumps(v, ensure_ascii=False)}" for k, v in parameters.items())
    return shorten(text, 300)
