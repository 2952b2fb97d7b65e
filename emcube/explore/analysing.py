"""Analysing a cube: settings, runs, results, and keeping them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.errors import InputError
from emcube.explore import panes
from emcube.explore.jobs import Job
from emcube.explore.looking import Looking
from emcube.explore.settings import Settings
from emcube.explore.typed import ascii_name, name_of, path_of, value_of, whole
from emcube.report.text import clean, shorten

if TYPE_CHECKING:
    import xarray as xr

    from emcube.explore.outcomes import ComponentView, Outcome
    from emcube.explore.session import Session

__all__ = ["Analysing"]

TELL = 0.15
"""Seconds between two looks at a job's progress."""


class Analysing(Looking):
    """What is set, run, compared and kept."""

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
            factor = whole(text or "1", str(dim))
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
            if name not in panes.verbs():
                raise InputError(f"there is no step {shorten(name, 40)!r}", hint="reload the page")
            usual = {k: v for s in Settings.default().steps for k, v in s.items()}
            given = usual.get(name) or {}
            if given.get("on") not in (None, *settings.names()):
                given = {k: v for k, v in given.items() if k != "on"}
            added = (*settings.steps, {name: given})
            ranks = {verb: i for i, verb in enumerate(panes.verbs())}
            return replace(settings, steps=tuple(sorted(added, key=lambda s: ranks[next(iter(s))])))

        self._set(changed)

    def do_set(self, asked: Mapping[str, Any]) -> None:
        """Give a parameter of a step another value; an empty one is the default."""
        name, parameter, text = (str(asked[k]) for k in ("step", "name", "value"))

        def changed(settings: Settings) -> Settings:
            verb = next(v for s in settings.steps for v in s if name_of(s) == name)
            given = settings.step(name)
            given.pop(parameter, None)
            if text.strip():
                given[parameter] = value_of(verb, parameter, text.strip())
            label = {} if name == verb else {"name": name}
            steps = [
                {verb: {**given, **label}} if name_of(s) == name else s for s in settings.steps
            ]
            return replace(settings, steps=tuple(steps))

        self._set(changed)

    def do_curve(self, asked: Mapping[str, Any]) -> None:
        """Estimate the number of components."""
        self._start("Number of components", self._need().curve, self._curve_found)

    def _curve_found(self, estimate: Any) -> None:
        self._put("curve", panes.curve_pane(estimate))

    def do_parts(self, asked: Mapping[str, Any]) -> None:
        """Take a number of components for every method."""
        n = whole(asked["n"], "components")
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

    def do_save(self, asked: Mapping[str, Any]) -> None:
        """Keep a result in a folder."""
        session, outcome, path = self._need(), self._outcome(asked["outcome"]), path_of(asked)
        overwrite = bool(asked.get("overwrite"))
        self.hand.do(
            "Saving",
            lambda: session.save(path, outcome, overwrite=overwrite),
            lambda found: self._kept("Saved", found),
        )

    def do_report(self, asked: Mapping[str, Any]) -> None:
        """Write a report."""
        session, outcome, path = self._need(), self._outcome(asked["outcome"]), path_of(asked)
        overwrite = bool(asked.get("overwrite"))
        self.hand.do(
            "Writing the report",
            lambda: session.report(path, outcome, overwrite=overwrite),
            lambda found: self._kept("Report written", found, link=True),
        )

    def do_publish(self, asked: Mapping[str, Any]) -> None:
        """Pack a result for publication."""
        session, outcome, path = self._need(), self._outcome(asked["outcome"]), path_of(asked)
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
        key = f"{len(self.files)}-{ascii_name(path.name)}"
        if link:
            self.files[key] = Path(path)
        self._good(what, clean(panes.short_path(path)), key if link else "")
        self._show_record()
