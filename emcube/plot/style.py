"""What all figures share: sizes, colours, axes, scale bars, and how numbers and units are written."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import patheffects
from matplotlib.colors import Colormap, ListedColormap, LogNorm, Normalize, PowerNorm, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from emcube.errors import InputError
from emcube.plot import fonts
from emcube.units import pretty

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import xarray as xr
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

WIDTH = 7.0  # inches: the text width of most journals
DPI = 200
TEXT, SMALL = 9.0, 7.5  # points
GRID = "0.88"
MISSING = "0.86"  # pixels that were not used

# Okabe and Ito's colours, which people with any colour vision can tell apart (their yellow darkened, to be
# seen as a line on white), then Tol's muted ones.
CATEGORIES = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#56B4E9",
    "#CC79A7",
    "#000000",
    "#8C7A00",
    "#332288",
    "#882255",
    "#999933",
    "#44AA99",
    "#AA4499",
    "#DDCC77",
    "#661100",
    "#888888",
    "#6BAED6",
    "#F4A582",
    "#7FC97F",
    "#B15928",
    "#C2A5CF",
    "#1B7837",
    "#E7298A",
    "#4D4D8F",
)
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"

# Colours of maps that are added up: pure enough to be told apart where they meet, and of like brightness.
# The first three are those of the usual red-green-blue composite, a little towards each other.
LIGHTS = ("#FF4B3E", "#36C95F", "#3D8BFF", "#FFD23F", "#F25CE0", "#35D8E0", "#FF9A2E", "#B9B9B9")

#: Characters of the name of a panel, at most; and of a title, an inch of a line.
NAME, INCH = 32, 10


def plain(text: object, most: int = NAME) -> str:
    """Write a stranger's text as it is: on one line, of a length that fits, its dollars no formulas."""
    one = "".join(c if c.isprintable() else " " for c in str(text))
    one = " ".join(one.split())
    if len(one) > most:
        one = one[: most - 1].rstrip() + "…"
    return one.replace("$", r"\$")


def fitted(text: str, points: float) -> str:
    """Cut a label in small letters so that it is about as long as there is room."""
    most = max(int(points / 4.2), 6)
    return text if len(text) <= most else text[: most - 1].rstrip("\\ (") + "…"


class NotebookFigure(Figure):
    """A figure that shows itself in a notebook although pyplot knows nothing of it."""

    def draw(self, renderer: Any) -> None:
        """Draw, with other fonts where the usual one has not all letters of a text."""
        for text in self.findobj(Text):
            assert isinstance(text, Text)
            said = text.get_text()
            if said.isascii():
                continue
            families = fonts.families_for(said)
            if families is not None:
                text.set_fontfamily(families)
                text.set_text(fonts.spelled_out(said))
        super().draw(renderer)

    def _ipython_display_(self) -> None:
        """Show it in one size, always: once pyplot was used, a notebook has a way of its own with figures."""
        from IPython.display import publish_display_data

        shown = {"image/png": self._repr_png_(), "text/plain": repr(self)}
        publish_display_data(shown)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=120)
        return buffer.getvalue()


def new_figure(
    height: float, width: float = WIDTH, title: str | None = None, *, images: bool = False
) -> NotebookFigure:
    """Make an empty figure of `width` x `height` inches; `images` moves those close to each other."""
    lines = textwrap.wrap(plain(title, 3 * INCH * int(width)), int(INCH * width)) if title else []
    height += 0.1 + 0.2 * len(lines) if lines else 0.0
    layout: Literal["compressed", "constrained"] = "compressed" if images else "constrained"
    figure = NotebookFigure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    if lines:
        figure.suptitle("\n".join(lines[:3]), fontsize=TEXT + 2)
    return figure


def color(index: int) -> str:
    """Give the colour of a component or cluster, the same one in every figure."""
    return CATEGORIES[index % len(CATEGORIES)]


def dress(axes: Axes, *, grid: bool = False) -> None:
    """Give a curve's axes their frame, ticks and font sizes."""
    axes.tick_params(which="both", labelsize=SMALL, direction="out")
    axes.tick_params(length=3, width=0.6)
    axes.tick_params(which="minor", length=1.8, width=0.4)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.6)
    axes.xaxis.label.set_fontsize(TEXT)
    axes.yaxis.label.set_fontsize(TEXT)
    if grid:
        axes.grid(color=GRID, linewidth=0.5)
        axes.set_axisbelow(True)


def number_axis(axes: Axes, *, top: float | None = None, ticks: int = 4) -> None:
    """Put few ticks on the vertical axis, none above `top`: there is only room for labels there."""
    low, high = axes.get_ylim()
    high = high if top is None else min(top, high)
    if axes.get_yscale() == "log":
        lowest, highest = int(np.ceil(np.log10(low))), int(np.floor(np.log10(high)))
        step = max(1, -(-(highest - lowest) // ticks))
        values = [10.0**power for power in range(highest, lowest - 1, -step)]
        if len(values) < 3:  # hardly a decade: 1, 2, 5
            powers = range(lowest - 1, highest + 1)
            values = [f * 10.0**p for p in powers for f in (1, 2, 5) if low <= f * 10.0**p <= high]
    else:
        values = [v for v in MaxNLocator(nbins=ticks).tick_values(low, high) if low <= v <= high]
    axes.yaxis.set_major_locator(FixedLocator(values))
    axes.yaxis.set_minor_locator(NullLocator())
    powers_only = axes.get_yscale() == "log" and all(_is_power(value) for value in values)
    write = _power if powers_only else short_number
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axes.spines["left"].set_bounds(low, high)


def _is_power(value: float) -> bool:
    return bool(abs(np.log10(value) - round(np.log10(value))) < 1e-6)


def _power(value: float) -> str:
    return f"$10^{{{round(np.log10(value))}}}$"


def short_number(value: float) -> str:
    """Write a number as a tick label: plain where that is short, else with a power of ten."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.6g}"
    power = int(np.floor(np.log10(abs(value)) + 1e-9))
    mantissa = value / 10.0**power
    if abs(mantissa - 1) < 1e-6:
        return f"$10^{{{power}}}$"
    return f"${mantissa:.3g}{{\\times}}10^{{{power}}}$"


def units_of(data: xr.DataArray, dim: Hashable | None = None) -> str:
    """Return the unit of an array, or of the coordinate of one of its dims, as figures write it."""
    attrs = data.attrs if dim is None else data.coords[dim].attrs if dim in data.coords else {}
    return plain(pretty(attrs.get("units")), 24)


def axis_label(data: xr.DataArray, dim: Hashable) -> str:
    """Write the label of an axis: its name, and its unit in parentheses where it has one."""
    name = str(dim).replace("_", " ")
    if dim in data.coords:
        name = str(data.coords[dim].attrs.get("long_name", name))
    name = plain(name)
    unit = units_of(data, dim)
    return f"{name} ({unit})" if unit else name


def value_label(data: xr.DataArray) -> str:
    """Write the label of an array's values: name and unit, or what of the two there is."""
    name = plain(data.attrs.get("long_name") or "", NAME)
    unit = units_of(data)
    if name and unit:
        return f"{name} ({unit})"
    return name or unit


def positions(data: xr.DataArray, dim: Hashable) -> NDArray[np.float64]:
    """Return where the points of a dim lie: its coordinate, or 0..n-1 where that has no numbers."""
    if dim in data.coords and np.issubdtype(data.coords[dim].dtype, np.number):
        return np.asarray(data.coords[dim].values, dtype=np.float64)
    return np.arange(data.sizes[dim], dtype=np.float64)


def step_of(data: xr.DataArray, dim: Hashable) -> float | None:
    """Return the distance between neighbours of a dim; None where it varies or is unknown."""
    steps = np.diff(positions(data, dim))
    if steps.size == 0:
        return None
    mean = float(steps.mean())
    if mean == 0 or not np.allclose(steps, mean, rtol=1e-2):
        return None
    return mean


def names_along(data: xr.DataArray, dim: Hashable, names: Sequence[str] | None) -> list[str]:
    """Return what the panels along a dim are called.

    Raises
    ------
    InputError
        If there are not as many names as panels.
    """
    n = data.sizes[dim]
    if names is not None:
        if len(names) != n:
            raise InputError(
                f"names of the panels along {dim!r}: got {len(names)}, expected {n}",
                hint="give one name for each, or none at all",
            )
        return [plain(name) for name in names]
    if dim not in data.coords:
        return [f"{plain(dim)} {i}" for i in range(n)]
    values = data.coords[dim].values
    if values.dtype.kind in "iu":
        return [f"{plain(dim)} {value}" for value in values]
    return [plain(value) for value in values]


def intensity_norm(values: NDArray[Any], yscale: str) -> Normalize:
    """Choose how values become colours: linear, by square root, or by logarithm."""
    finite = values[np.isfinite(values)]
    top = float(finite.max()) if finite.size else 1.0
    if yscale == "log":
        positive = finite[finite > 0]
        low = float(np.percentile(positive, 2)) if positive.size else 0.1
        # Six decades at most: models leave numbers like 1e-70 where nothing is.
        low = min(max(low, 1e-6 * top), top / 10) if top > 0 else 0.1
        return LogNorm(vmin=low, vmax=top if top > 0 else 1.0, clip=True)
    low = float(finite.min()) if finite.size else 0.0
    if yscale == "sqrt":
        return PowerNorm(0.5, vmin=max(low, 0.0), vmax=max(top, 1e-300), clip=True)
    return Normalize(vmin=low, vmax=top if top > low else low + 1.0)


def map_scale(values: NDArray[Any], *, signed: bool = True) -> tuple[Normalize, Colormap, str]:
    """Choose range, colours, and the ends at which the colour bar says "and beyond".

    Values of both signs (scores of principal components) are drawn symmetrically about zero, unless they
    are not `signed` by nature: net counts below zero are noise, and shown as zero. The ends are
    percentiles: one hot pixel must not hide the map.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return Normalize(0, 1), colormap(SEQUENTIAL), "neither"
    low, high = (float(v) for v in np.percentile(finite, (0.2, 99.8)))
    least, most = float(finite.min()), float(finite.max())
    if not signed:
        low = max(low, 0.0)
    if low < -0.02 * max(high, 0.0) and high > 0:
        end = max(-low, high)
        extend = ("min" if least < -end else "") + ("max" if most > end else "")
        return Normalize(-end, end), colormap(DIVERGING), _extend(extend)
    if low >= 0 and low < 0.25 * high:
        low = 0.0  # an honest zero, unless all of the contrast is far above it
    if high <= low:
        low, high = least, most if most > least else least + 1.0
    extend = ("min" if least < low else "") + ("max" if most > high else "")
    return Normalize(low, high), colormap(SEQUENTIAL), _extend(extend)


def centred_scale(values: NDArray[Any], center: float = 0.0) -> tuple[Normalize, Colormap, str]:
    """Choose a range that lies evenly about `center`, in colours that part there."""
    finite = values[np.isfinite(values)]
    away = np.abs(finite - center) if finite.size else np.ones(1)
    end = float(np.percentile(away, 99.8)) or float(away.max()) or 1.0
    extend = ("min" if finite.size and finite.min() < center - end else "") + (
        "max" if finite.size and finite.max() > center + end else ""
    )
    return Normalize(center - end, center + end), colormap(DIVERGING), _extend(extend)


def ratio_scale(values: NDArray[Any]) -> tuple[Normalize, Colormap, str]:
    """Choose a range from zero whose colours part at one: less than expected, and more."""
    finite = values[np.isfinite(values)]
    end = max(2.0, float(np.percentile(finite, 99.8)) if finite.size else 2.0)
    over = bool(finite.size) and float(finite.max()) > end
    return TwoSlopeNorm(1.0, 0.0, end), colormap(DIVERGING), "max" if over else "neither"


def _extend(ends: str) -> str:
    return {"minmax": "both", "": "neither"}.get(ends, ends)


def colormap(name: str) -> Colormap:
    """Return a colour map that draws missing values grey."""
    return mpl.colormaps[name].with_extremes(bad=MISSING)


def category_map(indices: Sequence[int]) -> Colormap:
    """Return the colour map of clusters; what belongs to none stays transparent."""
    return ListedColormap([color(i) for i in indices]).with_extremes(bad=(0.0, 0.0, 0.0, 0.0))


def frame_image(axes: Axes) -> None:
    """Leave only a thin frame around an image whose scale bar says the rest."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.4)
        spine.set_color("0.4")


def scale_bar(axes: Axes, width: float, height: float, unit: str) -> None:
    """Draw a scale bar of a round length into the lower left corner of an image.

    Parameters
    ----------
    axes : Axes
        Whose data coordinates are in `unit`.
    width, height : float
        Of the image, in `unit`.
    unit : str
        As the bar says it.
    """
    length = round_length(width / 3.5)
    x0, x1 = sorted(axes.get_xlim())
    low, high = axes.get_ylim()  # low is at the bottom of the picture, whichever way y runs
    up = 1.0 if high > low else -1.0
    left = x0 + 0.05 * (x1 - x0)
    bottom = low + up * 0.055 * height
    thickness = 0.02 * height
    bar = Rectangle(
        (left, bottom),
        length,
        up * thickness,
        facecolor="white",
        edgecolor="black",
        linewidth=0.5,
        zorder=5,
    )
    bar.set_label("scale bar")
    axes.add_patch(bar)
    axes.text(
        left,
        bottom + up * 1.6 * thickness,
        _with_prefix(length, unit),
        color="white",
        fontsize=SMALL,
        ha="left",
        va="bottom",
        zorder=6,
        clip_on=True,
        path_effects=[patheffects.withStroke(linewidth=1.6, foreground="black")],
    )


_LENGTHS = ("pm", "nm", "µm", "mm")


def _with_prefix(length: float, unit: str) -> str:
    """A length in the unit that people say it in: 200 µm, not 200000 nm."""
    while unit in _LENGTHS[:-1] and length >= 1000.0:
        length, unit = length / 1000.0, _LENGTHS[_LENGTHS.index(unit) + 1]
    return f"{length:g} {unit}".strip()


def round_length(length: float) -> float:
    """Round a length down to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(length))
    for factor in (5.0, 2.0, 1.0):
        if factor * power <= length * (1 + 1e-9):
            return float(factor * power)
    return float(power)


def spread(
    targets: Sequence[float], gap: float, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> NDArray[np.float64]:
    """Move increasing positions as little as possible so that neighbours keep a distance.

    Minimises the sum of squared moves under ``x[i+1] - x[i] >= gap``: isotonic regression of
    ``targets[i] - i * gap`` by pooling adjacent violators. What lies out of bounds then is pushed inwards;
    where all do not fit, the upper bound gives way.
    """
    pools: list[tuple[float, int]] = []
    for i, target in enumerate(targets):
        mean, count = target - i * gap, 1
        while pools and pools[-1][0] > mean:
            before, n = pools.pop()
            mean, count = (before * n + mean * count) / (n + count), n + count
        pools.append((mean, count))
    base = np.concatenate([np.full(n, mean) for mean, n in pools]) if pools else np.empty(0)
    n = len(targets)
    # Bounded isotonic regression is the unbounded one, clipped.
    low, high = bounds[0], max(bounds[0], bounds[1] - (n - 1) * gap)
    moved: NDArray[np.float64] = np.clip(base, low, high) + gap * np.arange(n)
    return moved


def need_dims(data: xr.DataArray, dim: Hashable, kind: str) -> None:
    """Refuse an array that has no dim of that name.

    Raises
    ------
    InputError
        Naming the dims that there are.
    """
    if dim not in data.dims:
        raise InputError(
            f"{kind}: got dims {tuple(data.dims)}, expected one called {dim!r}",
            hint="name the dim to be shown as panels with by=",
        )
