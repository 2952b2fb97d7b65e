"""One browser's visit: what the page asks for becomes calls of a `Session`, what comes of them becomes
panes and plots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bokeh.events import RangesUpdate, SelectionGeometry, Tap

from emcube.cube import nav_dims, sig_dims
from emcube.errors import InputError
from emcube.explore import panes
from emcube.explore.analysing import Analysing
from emcube.explore.plots import Frame
from emcube.explore.session import Session
from emcube.plot.style import positions

if TYPE_CHECKING:
    from bokeh.document import Document

__all__ = ["Visit"]


class Visit(Analysing):
    """One browser's visit.

    Parameters
    ----------
    document : bokeh.document.Document
        Of the visit; its plots and the bridge are added to it.
    begin : callable, optional
        Opens what the explorer was started with; called by the hand.
    open_other : callable
        Opens what the page names.

    Notes
    -----
    Methods ``do_...`` are what the page may ask for; each gets the message as a mapping and returns at once.
    """

    def __init__(
        self,
        document: Document,
        begin: Callable[[], Session] | None,
        open_other: Callable[[str], Session],
    ) -> None:
        super().__init__(document)
        self._open_other = open_other
        self._connect()
        self._put("forms", panes.forms_pane())
        self._put("notices", [])
        self._show_view()
        if begin is not None:
            self.hand.do("Opening", begin, self._opened, key="open")

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
