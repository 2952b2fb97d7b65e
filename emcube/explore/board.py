"""What one browser sees: panes and messages, and the tasks and jobs whose news are shown.

Nothing here waits: slow calls are done by a `Hand`, runs are jobs, and both tell the page when they
have news.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.core.properties import String
from bokeh.model import DataModel

from emcube.errors import EmcubeError, InputError
from emcube.explore import panes
from emcube.explore.hand import Hand
from emcube.explore.jobs import Job, Problem
from emcube.explore.plots import Frame, ImagePlot, SpectrumPlot
from emcube.explore.regions import Region
from emcube.explore.typed import brief
from emcube.report.text import clean, count, plural, shorten
from emcube.units import pretty

if TYPE_CHECKING:
    import xarray as xr
    from bokeh.document import Document

    from emcube.explore.outcomes import ComponentView, Outcome
    from emcube.explore.session import Session
    from emcube.explore.views import Map, Spectrum

__all__ = ["Board", "Bridge"]

_log = logging.getLogger(__name__)

MESSAGE = 200_000
"""Longest message of the page, in characters: an outline of some thousand corners."""

PATIENCE = 350
"""Milliseconds without a further move before a window or region is read from the data themselves."""


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


class Board:
    """State of a visit, and its panes.

    Parameters
    ----------
    document : bokeh.document.Document
        Of the visit.

    Attributes
    ----------
    session : Session or None
        None until something is open.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.session: Session | None = None
        self.files: dict[str, Path] = {}
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

    def do_dismiss(self, asked: Mapping[str, Any]) -> None:
        """Take a message away."""
        self._notices = [n for n in self._notices if n["id"] != int(asked["id"])]
        self._put("notices", self._notices)

    def do_record(self, asked: Mapping[str, Any]) -> None:
        """Bring the record up to date."""
        self._show_record()

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
                {"at": a.at[11:19], "verb": a.verb, "what": brief(a.parameters)}
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

    def _show_outcomes(self) -> None:
        chosen = list(self.part) if self.part is not None else None
        found = [self._outcomes[n] for n in sorted(self._outcomes, reverse=True)]
        self._put("outcomes", [{**pane, "chosen": chosen} for pane in found])

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
