"""The page's plots, drawn by Bokeh: images with regions, spectra with windows and lines, patterns.

Coordinates of an image are those of the cube where both of its dims have steps in one unit, else positions.
Nothing that a stranger wrote is given to Bokeh as a text: names and units stand on the page around the plots.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.core.properties import value
from bokeh.core.property.descriptors import UnsetValueError
from bokeh.models import (
    BoxSelectTool,
    BoxZoomTool,
    ColumnDataSource,
    CrosshairTool,
    DataRange1d,
    FixedTicker,
    HoverTool,
    LassoSelectTool,
    LinearColorMapper,
    PanTool,
    Range1d,
    WheelZoomTool,
)
from bokeh.models.annotations import BoxAnnotation, ScaleBar
from bokeh.models.annotations.dimensional import MetricLength
from bokeh.plotting import figure

from emcube.cube import nav_dims
from emcube.plot.style import map_scale, positions, step_of
from emcube.report.text import number
from emcube.units import pretty

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from emcube.explore.regions import Region
    from emcube.explore.views import LineMark

__all__ = ["INK", "Frame", "ImagePlot", "Shades", "SpectrumPlot", "colour", "shades_of"]

# The style sheet's colours of components, by scheme.
LIGHT = (
    "#0072b2", "#d55e00", "#009e73", "#c98900", "#3a93c4", "#b85f90", "#000000", "#8c7a00",
    "#332288", "#882255", "#7c7c22", "#2f8f80", "#aa4499", "#a08a20", "#661100", "#707070",
)  # fmt: skip
DARK = (
    "#4aa3dd", "#f0803c", "#2fc79a", "#f0b429", "#86cdf2", "#e29cc4", "#ffffff", "#c9b52e",
    "#9d8df0", "#dd6c9f", "#c2c257", "#62cdbd", "#dd82cd", "#ddcc77", "#d9755f", "#a8a8a8",
)  # fmt: skip

FONT = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, Helvetica Neue, Arial, sans-serif"

MOST_PIXELS = 1200
"""Longest side of an image that is sent to a browser; larger ones are averaged."""

LENGTHS = {"pm", "nm", "µm", "mm", "cm", "m"}
"""Units that a scale bar can be written in."""


@dataclass(frozen=True)
class Ink:
    """Colours of what is not data, by scheme."""

    text: str
    rule: str
    line: str
    missing: str
    under: str
    ink: str


INKS = {
    False: Ink("#565c64", "#8a9099", "#e3e6e9", "#dbdbdb", "#8a9099", "#17191c"),
    True: Ink("#a9b0b8", "#7b838c", "#2a3036", "#3a3f45", "#7b838c", "#eceef0"),
}


def colour(index: int, dark: bool) -> str:
    """Colour of a component or cluster, the same one all over the page."""
    return (DARK if dark else LIGHT)[index % len(LIGHT)]


# --------------------------------------------------------------------------------------------- images


@dataclass(frozen=True)
class Frame:
    """How positions of a cube's last one or two navigation dims lie on an image.

    Attributes
    ----------
    dims : tuple of str
        Dim of the rows and dim of the columns; of a line only that of the columns.
    shape : (int, int)
        Rows and columns.
    origin, step : (float, float)
        Coordinate of the first pixel, and from one to the next, for rows and columns; positions where the two
        have no unit in common.
    unit : str
        Of the coordinates; "" for positions.
    """

    dims: tuple[str, ...]
    shape: tuple[int, int]
    origin: tuple[float, float]
    step: tuple[float, float]
    unit: str

    @classmethod
    def of(cls, cube: xr.DataArray) -> Frame | None:
        """The frame of a cube's images; None where it has no navigation dims."""
        dims = nav_dims(cube)[-2:]
        return cls.over(cube, dims) if dims else None

    @classmethod
    def over(cls, cube: xr.DataArray, dims: tuple[str, ...]) -> Frame:
        """The frame of one dim (columns) or two (rows, columns) of a cube."""
        shape = (1, *(cube.sizes[d] for d in dims))[-2:]
        steps = [step_of(cube, d) for d in dims]
        units = [
            pretty(str(cube[d].attrs.get("units") or "")) if d in cube.coords else "" for d in dims
        ]
        known = all(s is not None and s > 0 for s in steps) and len(set(units)) == 1
        if not known:
            return cls(dims, (shape[0], shape[1]), (0.0, 0.0), (1.0, 1.0), "")
        firsts = [float(positions(cube, d)[0]) for d in dims]
        sizes = [float(s or 1.0) for s in steps]
        # The one row of a line is as high as one of its pixels is wide.
        origin, step = (0.0, *firsts)[-2:], (sizes[-1], *sizes)[-2:]
        return cls(dims, (shape[0], shape[1]), (origin[0], origin[1]), (step[0], step[1]), units[0])

    @property
    def aspect(self) -> float:
        """Height by width of the whole image."""
        return self.shape[0] * self.step[0] / (self.shape[1] * self.step[1])

    @property
    def is_line(self) -> bool:
        """Whether it shows one navigation dim only."""
        return len(self.dims) == 1

    def position(self, x: float, y: float) -> tuple[float, float]:
        """Row and column, in positions, of a point of the image."""
        return (y - self.origin[0]) / self.step[0], (x - self.origin[1]) / self.step[1]

    def point(self, row: float, column: float) -> tuple[float, float]:
        """Coordinates x and y of a row and column."""
        return self.origin[1] + column * self.step[1], self.origin[0] + row * self.step[0]

    def extent(self, values: xr.DataArray, cube: xr.DataArray) -> tuple[float, float, float, float]:
        """Left, top, width and height of an image of the cube, whose pixels may be larger.

        Parameters
        ----------
        values : DataArray over the frame's dims
        cube : DataArray
            Whose frame this is.
        """
        ends = [self._ends(values, cube, dim, n) for dim, n in self._sizes()]
        (top, bottom), (left, right) = [(-0.5, 0.5), *ends][-2:]
        x0, y0 = self.point(top, left)
        return (
            float(x0),
            float(y0),
            (right - left) * self.step[1],
            (bottom - top) * self.step[0],
        )

    def _sizes(self) -> Iterable[tuple[str, int]]:
        return zip(self.dims, self.shape[-len(self.dims) :], strict=True)

    @staticmethod
    def _ends(values: xr.DataArray, cube: xr.DataArray, dim: str, n: int) -> tuple[float, float]:
        mine, own = values.sizes[dim], positions(cube, dim)
        if mine == n or n < 2 or own[1] == own[0]:
            return -0.5, n - 0.5
        middles = (positions(values, dim) - own[0]) / ((own[-1] - own[0]) / (n - 1))
        size = float(middles[1] - middles[0]) if mine > 1 else n
        return float(middles[0]) - size / 2, float(middles[-1]) + size / 2

    def outline(self, region: Region | None) -> tuple[list[float], list[float]]:
        """Coordinates x and y of a region's outline; empty for all pixels."""
        if region is None:
            return [], []
        if region.vertices:
            points = [self.point(row, column) for row, column in region.vertices]
        else:
            spans = {dim: (start - 0.5, stop - 0.5) for dim, start, stop in region.spans}
            whole = [(-0.5, self.shape[0] - 0.5), (-0.5, self.shape[1] - 0.5)]
            named = [spans.get(d, whole[i - len(self.dims)]) for i, d in enumerate(self.dims)]
            (top, bottom), (left, right) = [whole[0], *named][-2:]
            corners = [(top, left), (top, right), (bottom, right), (bottom, left)]
            points = [self.point(row, column) for row, column in corners]
        return [p[0] for p in points], [p[1] for p in points]


@dataclass(frozen=True)
class Shades:
    """How the values of an image become colours.

    Attributes
    ----------
    low, high : float
    palette : tuple of str
    kind : {"sequential", "diverging", "categories"}
        For the bar beside the image.
    """

    low: float
    high: float
    palette: tuple[str, ...]
    kind: str


def shades_of(values: NDArray[Any], *, signed: bool = True) -> Shades:
    """Colours for the values of a map, as the figures of `emcube.plot` choose them."""
    from matplotlib.colors import to_hex

    norm, shades, _ = map_scale(np.asarray(values, dtype=np.float64), signed=signed)
    kind = "sequential" if shades.name == "viridis" else "diverging"
    palette = tuple(to_hex(shades(i / 255)) for i in range(256))
    return Shades(float(norm.vmin or 0.0), float(norm.vmax or 0.0), palette, kind)


class ImagePlot:
    """An image whose pixels can be chosen.

    Parameters
    ----------
    name : str
        Of the Bokeh model, by which the page places it; its tools are ``name-rectangle``,
        ``name-polygon`` and ``name-pan``.
    beside : ImagePlot, optional
        Moves and zooms with it.
    """

    def __init__(self, name: str, beside: ImagePlot | None = None) -> None:
        self.source: Any = ColumnDataSource(_nothing())
        self.chosen: Any = ColumnDataSource({"x": [], "y": []})
        self.mapper: Any = LinearColorMapper(palette=["#440154", "#fde725"], low=0.0, high=1.0)
        self.plot: Any = figure(
            name=name,
            sizing_mode="stretch_both",
            match_aspect=True,
            x_range=beside.plot.x_range if beside else DataRange1d(range_padding=0.0),
            y_range=beside.plot.y_range if beside else DataRange1d(range_padding=0.0, flipped=True),
            toolbar_location=None,
            tools=[],
            min_border=0,
            min_width=60,
            min_height=60,
        )
        shading: dict[str, Any] = {"color_mapper": self.mapper}
        image = self.plot.image(
            image="image", x="x", y="y", dw="dw", dh="dh", source=self.source, **shading
        )
        for halo in (True, False):
            line: dict[str, Any] = {"line_color": "#000000", "line_width": 4, "line_alpha": 0.55}
            self.plot.patch(
                "x",
                "y",
                source=self.chosen,
                fill_alpha=0.0,
                **(line if halo else {"line_color": "#ffffff", "line_width": 1.6}),
            )
        if not beside:
            ranges: tuple[Any, ...] = (self.plot.x_range, self.plot.y_range)
            for side in ranges:
                side.renderers = [image]
        self.bar: Any = ScaleBar(
            range=self.plot.x_range,
            unit="nm",
            dimensional=MetricLength(),
            location="bottom_left",
            orientation="horizontal",
            background_fill_color="#000000",
            background_fill_alpha=0.45,
            border_line_color=None,
            bar_line_color="#ffffff",
            bar_line_width=3,
            label_text_color="#ffffff",
            label_text_font=FONT,
            label_text_font_size="12px",
            label_location="above",
            padding=6,
            margin=8,
            visible=False,
        )
        self.plot.add_layout(self.bar)
        self._add_tools(name, image)
        _bare(self.plot)

    def _add_tools(self, name: str, image: Any) -> None:
        shade = {"fill_color": "#ffffff", "fill_alpha": 0.18, "line_color": "#ffffff"}
        box: Any = BoxSelectTool(name=f"{name}-rectangle")
        lasso: Any = LassoSelectTool(name=f"{name}-polygon", continuous=False)
        for tool in (box, lasso):
            tool.overlay.update(**shade, line_width=2, line_dash="solid")
        pan, wheel = PanTool(name=f"{name}-pan"), WheelZoomTool()
        self.hover: Any = HoverTool(renderers=[image], tooltips=[("value", "@image{0.[000]}")])
        self.plot.add_tools(box, lasso, pan, wheel, self.hover)
        self.plot.toolbar.active_drag = box
        self.plot.toolbar.active_scroll = wheel

    def show(
        self,
        values: NDArray[Any],
        extent: tuple[float, float, float, float],
        shades: Shades,
        unit: str,
    ) -> None:
        """Draw an image.

        Parameters
        ----------
        values : ndarray, shape (rows, columns)
        extent : (float, float, float, float)
            Left, top, width, height.
        shades : Shades
        unit : str
            Of the image's coordinates.
        """
        image, factor = _thin(np.asarray(values, dtype=np.float64))
        x, y, width, height = extent
        # Blocks at the far ends may hang over.
        wide = width * image.shape[1] * factor / values.shape[1]
        high = height * image.shape[0] * factor / values.shape[0]
        self.mapper.update(palette=list(shades.palette), low=shades.low, high=shades.high)
        self.source.data = {
            "image": [image.astype(np.float32)],
            "x": [x],
            "y": [y],
            "dw": [wide],
            "dh": [high],
        }
        sane = unit if unit in LENGTHS else ""
        self.bar.update(visible=bool(sane), unit=sane or "nm")
        places = [("x", f"$x{{0.[00]}} {sane}"), ("y", f"$y{{0.[00]}} {sane}")]
        self.hover.tooltips = [("value", "@image{0.[000]}"), *places]

    def clear(self) -> None:
        """Show nothing."""
        self.source.data = _nothing()
        self.bar.visible = False

    def mark(self, outline: tuple[list[float], list[float]]) -> None:
        """Draw the outline of a region."""
        self.chosen.data = {"x": outline[0], "y": outline[1]}

    def reset(self) -> None:
        """Show the whole image: ranges follow the data again."""
        for side in (self.plot.x_range, self.plot.y_range):
            # A change that the browser sees makes it compute the ranges anew.
            side.range_padding = 1e-9 if side.range_padding == 0 else 0.0

    def paint(self, dark: bool) -> None:
        """Take the colours of a scheme."""
        self.mapper.nan_color = INKS[dark].missing


def _nothing() -> dict[str, list[Any]]:
    """One pixel without a value: an image without any leaves its ranges unknown, of which Bokeh complains."""
    image = np.full((1, 1), np.nan, dtype=np.float32)
    return {"image": [image], "x": [0.0], "y": [0.0], "dw": [1.0], "dh": [1.0]}


def _bare(plot: Any) -> None:
    plot.axis.visible = False
    plot.grid.visible = False
    plot.outline_line_color = None
    plot.background_fill_color = None
    plot.border_fill_color = None


def _thin(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """An image no longer than a browser needs, as means of squares, and the side of those."""
    factor = -(-max(values.shape) // MOST_PIXELS)
    if factor <= 1:
        return values, 1
    starts = [np.arange(0, n, factor) for n in values.shape]
    known = np.isfinite(values)

    def add(part: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = np.add.reduceat(part, starts[0], axis=0)
        return np.add.reduceat(rows, starts[1], axis=1)

    count = add(known.astype(np.float64))
    total = add(np.where(known, values, 0.0))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0), factor


# -------------------------------------------------------------------------------------------- spectra

INK = -1
"""Number of the colour of text."""

SERIES = ("all", "region", "own", "component", "other")
"""What may be drawn, from the back to the front."""


@dataclass(frozen=True)
class Series:
    """A curve of the spectrum plot: values by channel, and the number of its colour (`INK`, None: grey)."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    tint: int | None


class SpectrumPlot:
    """Spectra over an axis, with a window that can be dragged, and lines of elements.

    Parameters
    ----------
    name : str
        Of the Bokeh model; its tools are ``name-window``, ``name-zoom`` and ``name-pan``.
    """

    def __init__(self, name: str) -> None:
        self.series: dict[str, Series] = {}
        self.scaling = "linear"
        self.dark = False
        self.marks: list[LineMark] = []
        self.full = (0.0, 1.0)
        self.plot: Any = figure(
            name=name,
            sizing_mode="stretch_both",
            x_range=Range1d(start=0.0, end=1.0),
            y_range=Range1d(start=0.0, end=1.0),
            toolbar_location=None,
            tools=[],
            min_border_left=62,
            min_border_right=14,
            min_border_top=4,
            min_border_bottom=36,
            min_width=120,
            min_height=90,
        )
        self.sources: dict[str, Any] = {
            key: ColumnDataSource({"x": [], "y": [], "value": [], "base": []}) for key in SERIES
        }
        self.area = self.plot.varea(
            "x", "base", "y", source=self.sources["region"], fill_alpha=0.13
        )
        self.lines = {
            key: self.plot.line(
                "x",
                "y",
                source=self.sources[key],
                line_width=1.4 if key != "own" else 1.2,
                line_dash="dashed" if key == "own" else "solid",
                line_join="round",
            )
            for key in SERIES
        }
        self.mark_source: Any = ColumnDataSource(
            {"x": [], "top": [], "foot": [], "text": [], "tint": []}
        )
        self.mark_lines = self.plot.segment(
            x0="x", x1="x", y0="foot", y1=0, source=self.mark_source, line_alpha=0.55
        )
        self.mark_texts = self.plot.text(
            x="x",
            y="top",
            text="text",
            source=self.mark_source,
            text_font_size="11.5px",
            text_font=value(FONT),
            text_align="center",
            text_baseline="top",
        )
        self.ticker: Any = FixedTicker(ticks=[])
        self.plot.yaxis.ticker = self.ticker
        self.window: Any = BoxAnnotation(
            name=f"{name}-box",
            visible=False,
            editable=True,
            movable="x",
            resizable="x",
            fill_alpha=0.16,
            line_alpha=0.9,
            line_width=1.2,
        )
        self.plot.add_layout(self.window)
        self._add_tools(name)
        self.plot.background_fill_color = None
        self.plot.border_fill_color = None
        self.plot.outline_line_color = None
        self.plot.xgrid.visible = False
        self.paint(False)

    def _add_tools(self, name: str) -> None:
        band: Any = BoxSelectTool(name=f"{name}-window", dimensions="width")
        zoom: Any = BoxZoomTool(name=f"{name}-zoom", dimensions="width")
        for tool in (band, zoom):
            tool.overlay.update(fill_color="#56b4e9", fill_alpha=0.2, line_color=None)
        wheel = WheelZoomTool(dimensions="width")
        pan = PanTool(name=f"{name}-pan", dimensions="width")
        hover = HoverTool(
            renderers=[self.lines["region"]],
            mode="vline",
            tooltips=[("at", "$snap_x{0.[0000]}"), ("counts", "@value{0.[0000]}")],
            line_policy="nearest",
        )
        cross = CrosshairTool(dimensions="height", line_alpha=0.35)
        self.plot.add_tools(band, zoom, pan, wheel, hover, cross)
        self.plot.toolbar.active_drag = band
        self.plot.toolbar.active_scroll = wheel

    # ------------------------------------------------------------------------------------ what is drawn

    def put(self, key: str, x: NDArray[Any], y: NDArray[Any], tint: int | None = None) -> None:
        """Draw or replace a curve.

        Parameters
        ----------
        key : str
            One of `SERIES`.
        x, y : ndarray of shape (E,)
        tint : int, optional
            Number of a component's colour, or `INK`; grey without.
        """
        at = np.argsort(np.asarray(x, dtype=np.float64), kind="stable")
        self.series[key] = Series(
            np.asarray(x, dtype=np.float64)[at], np.asarray(y, dtype=np.float64)[at], tint
        )

    def drop(self, *keys: str) -> None:
        """Take curves away."""
        for key in keys:
            self.series.pop(key, None)

    def draw(self) -> None:
        """Bring what was put or dropped, the scaling and the marks onto the plot."""
        low, high, floor = self._range()
        for key in SERIES:
            one = self.series.get(key)
            data: dict[str, Any] = {"x": [], "y": [], "value": [], "base": []}
            if one is not None:
                y = _scaled(one.y, self.scaling, floor)
                base = np.full(y.shape, _scaled(np.zeros(1), self.scaling, floor)[0])
                data = {"x": one.x, "y": y, "value": one.y, "base": base}
                self._tint(key, one)
            self.sources[key].data = data
        self._scale(low, high, floor)
        self._place_marks()

    def _tint(self, key: str, one: Series) -> None:
        ink = INKS[self.dark]
        shade = ink.under if one.tint is None else ink.ink
        if one.tint is not None and one.tint >= 0:
            shade = colour(one.tint, self.dark)
        self.lines[key].glyph.line_color = shade
        if key == "region":
            self.area.glyph.fill_color = shade

    def fit_x(self, x: NDArray[Any]) -> None:
        """Show a whole axis."""
        edges = np.sort(np.asarray(x, dtype=np.float64))
        half = (edges[-1] - edges[0]) / max(edges.size - 1, 1) / 2 or 0.5
        self.full = (float(edges[0] - half), float(edges[-1] + half))
        self.plot.x_range.update(start=self.full[0], end=self.full[1])

    def reset(self) -> None:
        """Show the whole axis again."""
        self.plot.x_range.update(start=self.full[0], end=self.full[1])
        self.draw()

    def rescale(self) -> None:
        """Fit the vertical range to what is seen, after the horizontal one has changed."""
        low, high, floor = self._range()
        self._scale(low, high, floor)
        self._place_marks()

    def _range(self) -> tuple[float, float, float]:
        """Lowest and highest value that is seen, and the lowest that a logarithm shows."""
        start, end = sorted((float(self.plot.x_range.start), float(self.plot.x_range.end)))
        seen = [s.y[(s.x >= start) & (s.x <= end)] for s in self.series.values()]
        values = np.concatenate([v[np.isfinite(v)] for v in seen]) if seen else np.empty(0)
        if values.size == 0:
            return 0.0, 1.0, 0.1
        every = np.concatenate([s.y for s in self.series.values()])
        above = every[np.isfinite(every) & (every > 0)]
        floor = max(float(above.min()) / 2, float(above.max()) * 1e-6) if above.size else 0.1
        return min(float(values.min()), 0.0), float(values.max()), floor

    def _scale(self, low: float, high: float, floor: float) -> None:
        high = high if high > low else low + 1.0
        if self.scaling == "log":
            low, high = floor, max(high, floor * 10)
        ends = _scaled(np.array([low, high]), self.scaling, floor)
        rows = 2.4 if self.marks else 0.4
        room = min(16.0 * rows / self._height(), 0.5)
        self.plot.y_range.update(
            start=float(ends[0]), end=float(ends[1] + room * (ends[1] - ends[0]))
        )
        values = _ticks(low, high, self.scaling)
        at = [float(v) for v in _scaled(np.array(values), self.scaling, floor)]
        self.plot.yaxis.major_label_overrides = {
            a: number(v, 3) for a, v in zip(at, values, strict=True)
        }
        self.ticker.ticks = at

    def _place_marks(self) -> None:
        """Write the names of lines at the top, in rows where they would meet; the strongest go first."""
        start, end = float(self.plot.x_range.start), float(self.plot.x_range.end)
        bottom, top = float(self.plot.y_range.start), float(self.plot.y_range.end)
        per_pixel = abs(end - start) / self._width()
        taken: list[tuple[float, float, int]] = []
        data: dict[str, list[Any]] = {"x": [], "top": [], "foot": [], "text": [], "tint": []}
        elements = list(dict.fromkeys(mark.element for mark in self.marks))
        for mark in sorted(self.marks, key=lambda m: -m.weight):
            if not min(start, end) <= mark.energy <= max(start, end):
                continue
            half = (3.4 * len(mark.text) + 4) * per_pixel
            row = _free_row(taken, mark.energy - half, mark.energy + half)
            if row < 0:
                continue
            height = 16.0 / self._height() * (top - bottom)
            data["x"].append(mark.energy)
            data["top"].append(top - height * row)
            data["foot"].append(top - height * (row + 1))
            data["text"].append(mark.text)
            data["tint"].append(colour(elements.index(mark.element), self.dark))
        self.mark_lines.glyph.y1 = bottom
        self.mark_source.data = data

    def _height(self) -> float:
        """Pixels of the plot's height; a guess until a browser has drawn it."""
        try:
            return float(self.plot.inner_height or 0) or 180.0
        except UnsetValueError:
            return 180.0

    def _width(self) -> float:
        """Pixels of the plot's width; a guess until a browser has drawn it."""
        try:
            return float(self.plot.inner_width or 0) or 900.0
        except UnsetValueError:
            return 900.0

    def paint(self, dark: bool) -> None:
        """Take the colours of a scheme."""
        self.dark = dark
        ink = INKS[dark]
        for axis in (*self.plot.xaxis, *self.plot.yaxis):
            axis.update(
                axis_line_color=ink.rule,
                major_tick_line_color=ink.rule,
                minor_tick_line_color=None,
                major_label_text_color=ink.text,
                axis_label_text_color=ink.text,
                major_label_text_font=FONT,
                axis_label_text_font=FONT,
                major_label_text_font_size="12px",
                axis_label_text_font_size="12px",
                axis_label_text_font_style="normal",
                axis_label_standoff=4,
            )
        for grid in self.plot.ygrid:
            grid.grid_line_color = ink.line
        self.window.update(
            fill_color=colour(0, dark), line_color=colour(0, dark), hover_fill_color=colour(0, dark)
        )
        self.mark_lines.glyph.update(line_color="tint", y1=float(self.plot.y_range.start))
        self.mark_texts.glyph.text_color = "tint"
        self.draw()

    def show_window(self, window: tuple[float, float] | None) -> None:
        """Shade a window."""
        if window is None:
            self.window.visible = False
            return
        self.window.update(left=window[0], right=window[1], visible=True)


def _free_row(taken: list[tuple[float, float, int]], left: float, right: float) -> int:
    """First row of two in which a text has room; -1 where it has none."""
    for row in range(2):
        if not any(row == r and left < b and right > a for a, b, r in taken):
            taken.append((left, right, row))
            return row
    return -1


def _scaled(values: NDArray[Any], scaling: str, floor: float) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if scaling == "sqrt":
        return np.sign(numbers) * np.sqrt(np.abs(numbers))
    if scaling == "log":
        return np.log10(np.maximum(numbers, floor))
    return numbers


def _ticks(low: float, high: float, scaling: str) -> list[float]:
    """A few round values between two, evenly spread on the scale that is drawn."""
    from matplotlib.ticker import MaxNLocator

    if scaling == "log":
        powers = range(int(np.ceil(np.log10(low))), int(np.floor(np.log10(high))) + 1)
        step = max(1, -(-len(powers) // 5))
        if len(powers) >= 2:
            return [10.0**p for p in list(powers)[::-step]]
        wide = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        return [f * 10.0**p for p in wide for f in (1, 2, 5) if low <= f * 10.0**p <= high]
    bins = MaxNLocator(nbins=5, steps=[1, 2, 5, 10])
    found = [float(v) for v in bins.tick_values(low, high) if low <= v <= high]
    if scaling == "sqrt" and high > 0:
        return _root_ticks(high)
    return found


def _root_ticks(high: float) -> list[float]:
    """Round values from zero whose square roots keep a distance."""
    power = int(np.floor(np.log10(high)))
    rounds = [
        f * 10.0**p for p in (power, power - 1, power - 2, power - 3) for f in (8, 6, 5, 4, 3, 2, 1)
    ]
    kept = [max((v for v in rounds if v <= high), default=high)]
    for one in rounds:
        apart = np.sqrt(kept[-1]) - np.sqrt(one)
        if apart >= 0.17 * np.sqrt(high) and np.sqrt(one) >= 0.13 * np.sqrt(high):
            kept.append(one)
    return [0.0, *kept[::-1]]
