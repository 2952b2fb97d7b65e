"""Looking at a cube: images, regions and their spectra, windows and their maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.cube import nav_dims, sig_dims
from emcube.errors import EmcubeError, InputError
from emcube.explore.board import Board
from emcube.explore.plots import INK, Frame, ImagePlot, Shades, colour, shades_of
from emcube.explore.regions import Region
from emcube.explore.typed import real, simple, span, whole
from emcube.plot.style import positions
from emcube.report.text import clean, number, shorten
from emcube.units import pretty

if TYPE_CHECKING:
    import xarray as xr

    from emcube.explore.session import Session
    from emcube.explore.views import Map, Spectrum

__all__ = ["Looking"]

FAINT = 0.2
"""Lines that are weaker than this, beside the strongest of their element, are not drawn."""


class Looking(Board):
    """What is looked at, before anything is analysed."""

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
            return Region.polygon(simple(points))
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
            spans[dim] = span(corners[0][axis], corners[1][axis], frame.shape[axis])
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
            first, last = (whole(v, f"{dim}") for v in asked["spans"][dim])
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
            start, stop = span(corners[0][i], corners[1][i], frame.shape[i])
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
            low, high = sorted(real(v, dim) for v in ends)
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
                    spans[dim] = span(float(ends[0]), float(ends[1]), n)
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

    def do_scheme(self, asked: Mapping[str, Any]) -> None:
        """Take the colours of the browser's scheme."""
        self._paint(bool(asked["dark"]))

    def _paint(self, dark: bool) -> None:
        for plot in (self.image, self.map, self.pattern, self.spectrum):
            plot.paint(dark)
        if self.part is not None and self.part[2] < 0:
            self._draw_map()
