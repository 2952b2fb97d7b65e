"""Cards in notebooks: HTML without scripts, style sheets or anything that is fetched.

Colours are the page's own text colour at several strengths, so that a card fits light and dark themes; styles
stand at the elements, since notebooks take style sheets out of what they do not trust.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emcube.cards.card import Card, Table, card_of
from emcube.cards.quicklooks import counts_per_pixel, flat_image, in_memory, store_of, total_counts
from emcube.errors import CubeError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from emcube.models.n_components import NComponentsEstimate
    from emcube.results import Result

__all__ = ["card_page", "cube_page", "estimate_page", "result_page"]

_LINE = "rgba(128,128,128,.35)"
_FRAME = (
    f"border:1px solid {_LINE};border-radius:6px;padding:.7em 1em;max-width:min(54em,100%);"
    "display:inline-block;box-sizing:border-box;line-height:1.45;overflow-wrap:anywhere"
)
_CELL = "text-align:{};vertical-align:top;padding:.1em 1.2em .1em 0;background:none;border:0"
_DIM = "opacity:.9"
_PICTURE = f"image-rendering:pixelated;border:1px solid {_LINE};border-radius:3px;display:block"
_MOST_PARTS = 12
_LARGE = 128 * 2**20
"""Bytes of maps that are read to be shown."""


@dataclass(frozen=True)
class Picture:
    """An image beside a card, or one of several below it.

    Attributes
    ----------
    png : bytes
    width, height : int
        As it is shown, in pixels of the page.
    text : str
        What it is.
    curve : str
        SVG under it; ours, no stranger's text is in it.
    """

    png: bytes
    width: int
    height: int
    text: str
    curve: str = ""


# ---------------------------------------------------------------------------------------------- cards


def cube_page(cube: xr.DataArray) -> str | None:
    """The card of a cube in hand; None where it is no cube, so that its text is shown."""
    from emcube.cards.describing import describe_cube, stored

    try:
        described = describe_cube(cube)
    except CubeError:
        return None
    described |= {"kind": "cube", **({} if store_of(cube) is None else stored(cube, None))}
    described["in_memory"] = in_memory(cube)
    counts = counts_per_pixel(cube)
    if counts is not None:
        described["counts_per_pixel"] = counts
    beside = []
    totals = total_counts(cube)
    image = None if totals is None else flat_image(np.asarray(totals.values))
    if image is not None:
        beside.append(_picture(image, "total counts", 180))
    return card_page(card_of(described), beside)


def result_page(result: Result) -> str:
    """The card of a result, with the maps of its main step, and xarray's view of all variables folded in."""
    from emcube.cards.describing import describe_result

    described = describe_result(result)
    below, note = _parts(result) if result.complete else ([], "")
    tree = str(result.tree._repr_html_())  # type: ignore[no-untyped-call]
    return card_page(card_of(described), below=below, note=note, more=("All variables", tree))


def estimate_page(found: NComponentsEstimate) -> str:
    """The card of an estimate of the number of components, with its curve."""
    from emcube.cards.describing import describe_estimate

    described = describe_estimate(found)
    values = np.asarray(described["singular_values"], dtype=np.float64)
    curve = _scree(values, described["threshold"]) if values.size > 1 else ""
    return card_page(card_of(described), curve=curve)


def card_page(
    card: Card,
    beside: Sequence[Picture] = (),
    below: Sequence[Picture] = (),
    *,
    note: str = "",
    curve: str = "",
    more: tuple[str, str] | None = None,
) -> str:
    """Write a card as HTML.

    Parameters
    ----------
    card : Card
    beside, below : sequence of Picture
    note : str
        Under the pictures.
    curve : str
        SVG of ours.
    more : (str, str), optional
        Title and HTML, not escaped, of what is folded away at the end.

    Returns
    -------
    str
        Every text of the card is escaped.
    """
    head = (
        f'<div style="margin-bottom:.35em"><b style="font-size:1.1em" dir="auto">{_text(card.title)}</b> '
        f'<span style="{_DIM}">{_text(card.kind)}</span></div>'
    )
    about = (
        f'<div dir="auto" style="{_DIM};margin-bottom:.5em">{_text(card.about)}</div>'
        if card.about
        else ""
    )
    warnings = "".join(
        f'<div style="border-left:.25em solid #b8860b;padding-left:.6em;margin:.4em 0">{_text(w)}</div>'
        for w in card.warnings
    )
    words = about + warnings + (_table(card.table) if card.table else "") + _facts(card)
    if beside:
        shown = "".join(map(_figure, beside))
        words = (
            '<div style="display:flex;flex-wrap:wrap;gap:.4em 2em;align-items:flex-start;'
            f'justify-content:space-between"><div style="flex:1 1 18em;min-width:0">{words}</div>'
            f"<div>{shown}</div></div>"
        )
    row = ""
    if below:
        row = (
            '<div style="display:flex;flex-wrap:wrap;gap:.8em 1.2em;margin-top:.7em">'
            f"{''.join(map(_figure, below))}</div>"
        )
    said = f'<div style="{_DIM};margin-top:.4em">{_text(note)}</div>' if note else ""
    folded = ""
    if more is not None:
        folded = (
            f'<details style="margin-top:.6em"><summary style="cursor:pointer;{_DIM}">{_text(more[0])}'
            f"</summary>{more[1]}</details>"
        )
    return (
        f'<div class="emcube-card" style="{_FRAME}">{head}{words}{curve}{row}{said}{folded}</div>'
    )


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _cell(tag: str, text: str, *, right: bool = False, style: str = "") -> str:
    place = _CELL.format("right" if right else "left")
    # Short words stay whole; a stranger's long one is broken anywhere.
    whole = _WHOLE if tag == "th" or right else _WHOLE // 2
    style += ";white-space:nowrap" if len(text) <= whole else ""
    return f'<{tag} style="{place};{style}"><bdi>{_text(text)}</bdi></{tag}>'


def _table(table: Table) -> str:
    heads = "".join(
        _cell("th", h, right=i in table.right, style=f"font-weight:normal;{_DIM}")
        for i, h in enumerate(table.heads)
    )
    rows = "".join(
        '<tr style="background:none">'
        + "".join(
            _cell(
                "th" if i == 0 else "td",
                cell,
                right=i in table.right,
                style="font-weight:600" if i == 0 else "",
            )
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in table.rows[:_ROWS]
    )
    left = len(table.rows) - _ROWS
    said = f'<div style="{_DIM}">and {left:,} more</div>' if left > 0 else ""
    head = f'<thead><tr style="background:none">{heads}</tr></thead>'
    return f"{_scrolling(f'{head}<tbody>{rows}</tbody>')}{said}"


_ROWS, _WHOLE = 40, 24
_GRID = "border-collapse:collapse;margin:0 0 .6em 0;font-size:1em;color:inherit;border:0;table-layout:auto"


def _facts(card: Card) -> str:
    if not card.facts:
        return ""
    rows = "".join(
        '<tr style="background:none">'
        + _cell("th", key, style=f"font-weight:normal;{_DIM}")
        + _cell("td", value)
        + "</tr>"
        for key, value in card.facts
    )
    return _scrolling(f"<tbody>{rows}</tbody>")


def _scrolling(rows: str) -> str:
    """A table that scrolls by itself where the page is narrow."""
    return f'<div style="overflow-x:auto"><table style="{_GRID}">{rows}</table></div>'


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    text = _text(picture.text)
    image = (
        f'<img alt="{text}" width="{picture.width}" height="{picture.height}" style="{_PICTURE}" '
        f'src="data:image/png;base64,{data}">'
        if picture.png
        else ""
    )
    return (
        f'<figure style="margin:0;max-width:16em">{image}{picture.curve}'
        f'<figcaption style="{_DIM};font-size:.9em">{text}</figcaption></figure>'
    )


# ------------------------------------------------------------------------------------------- pictures


def _picture(image: NDArray[np.float64], text: str, side: int, curve: str = "") -> Picture:
    """A map as it looks in all figures: from the darkest to the brightest but for a few hot pixels."""
    tall, wide = image.shape
    scale = side / max(tall, wide)
    return Picture(
        _png(image), max(8, round(wide * scale)), max(8, round(tall * scale)), text, curve
    )


def _png(image: NDArray[np.float64]) -> bytes:
    from io import BytesIO

    import matplotlib.image

    from emcube.plot.style import map_scale

    norm, colors, _ = map_scale(image)
    buffer = BytesIO()
    pixels = colors(norm(np.ma.masked_invalid(image)), bytes=True)
    matplotlib.image.imsave(buffer, pixels, format="png")
    return buffer.getvalue()


def _parts(result: Result) -> tuple[list[Picture], str]:
    """A small map and spectrum of each component of the step that gives the answer."""
    found = _main(result)
    if found is None:
        return [], ""
    step, name = found
    node = result[step]
    maps = node[name]
    if name == "labels":
        return _labels(step, maps), ""
    nav = [str(d) for d in maps.dims if d != "component"]
    maps = maps.isel({d: maps.sizes[d] // 2 for d in nav[:-2]}).isel(component=slice(_MOST_PARTS))
    if maps.ndim < 3 or maps.nbytes > _LARGE:
        return [], ""
    values = np.asarray(maps.transpose("component", ...).values, dtype=np.float64)
    spectra = node["components"].values if "components" in node else None
    pictures = []
    for i, one in enumerate(values):
        image = flat_image(one)
        if image is not None:
            curve = "" if spectra is None or spectra.ndim != 2 else _spark(spectra[i])
            pictures.append(_picture(image, f"{step} {i}", 116, curve))
    more = node[name].sizes["component"] - len(pictures)
    said = [f"{nav[0]} at its middle" if len(nav) > 2 else "", f"{more} more" if more else ""]
    return pictures, "; ".join(s for s in said if s)


def _main(result: Result) -> tuple[str, str] | None:
    """The last step with loadings, rather not a PCA; else the last with labels."""
    ranked = sorted(result.steps, key=lambda s: result.verb(s) == "pca")
    order = [s for s in reversed(result.steps) if result.verb(s) != "pca"]
    order += [s for s in ranked if result.verb(s) == "pca"]
    for name in ("loadings", "labels"):
        for step in order:
            if name in result[step] and result[step][name].ndim >= 2:
                return step, name
    return None


def _labels(step: str, labels: xr.DataArray) -> list[Picture]:
    from io import BytesIO

    import matplotlib.image
    from matplotlib.colors import to_rgba

    from emcube.plot.style import color

    if labels.ndim < 2 or labels.nbytes > _LARGE:
        return []
    image = flat_image(np.asarray(labels.values))
    if image is None:
        return []
    pixels = np.zeros((*image.shape, 4))
    for label in np.unique(image[image >= 0]):
        pixels[image == label] = to_rgba(color(int(label)))
    buffer = BytesIO()
    matplotlib.image.imsave(buffer, pixels, format="png")
    tall, wide = image.shape
    scale = 180 / max(tall, wide)
    size = (max(8, round(wide * scale)), max(8, round(tall * scale)))
    return [Picture(buffer.getvalue(), *size, f"{step}: clusters")]


def _spark(values: NDArray[np.float64], width: int = 116, height: int = 30) -> str:
    """A spectrum in a few strokes; square roots, so that minor lines are seen beside major ones."""
    finite = np.nan_to_num(np.asarray(values, dtype=np.float64))
    # The largest of each few channels: lines must not fall between them.
    groups = np.array_split(finite, min(width, finite.size))
    tops = np.array([g[np.abs(g).argmax()] for g in groups])
    if tops.min() >= 0:
        tops = np.sqrt(tops)
    low, high = min(0.0, float(tops.min())), float(tops.max())
    span = high - low or 1.0
    y = height - 1 - (tops - low) / span * (height - 2)
    x = np.linspace(0, width, tops.size)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return _svg(
        width,
        height,
        f'<polyline points="{points}" fill="none" stroke="currentColor"/>',
        "spectrum",
    )


def _scree(values: NDArray[np.float64], threshold: float) -> str:
    """Singular values on a logarithmic axis, beside the largest of pure noise."""
    width, height = 300, 90
    shown = np.log(np.maximum(values, 1e-12))
    rule = np.log(max(threshold, 1e-12))
    low, high = min(float(shown.min()), rule), max(float(shown.max()), rule)
    span = high - low or 1.0

    def place(value: float) -> float:
        return float(6 + (high - value) / span * (height - 12))

    x = np.linspace(6, width - 6, values.size)
    dots = "".join(
        f'<circle cx="{a:.1f}" cy="{place(float(v)):.1f}" r="2.6" fill="{_dot(float(v) > rule)}" '
        'stroke="currentColor"/>'
        for a, v in zip(x, shown, strict=True)
    )
    line = (
        f'<line x1="0" x2="{width}" y1="{place(rule):.1f}" y2="{place(rule):.1f}" stroke="currentColor" '
        'stroke-dasharray="4 3" opacity=".6"/>'
    )
    said = "singular values, and the largest that noise alone would make (dashed)"
    drawn = _svg(width, height, line + dots, said)
    return f'<div>{drawn}<div style="{_DIM};font-size:.9em">{said}</div></div>'


def _dot(above: bool) -> str:
    return "currentColor" if above else "none"


def _svg(width: int, height: int, content: str, text: str) -> str:
    return (
        f'<svg role="img" aria-label="{text}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" '
        f'style="display:block;margin-top:.2em;max-width:100%">{content}</svg>'
    )
