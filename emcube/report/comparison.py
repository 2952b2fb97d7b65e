"""The page of a comparison: methods side by side, as one file that needs no network and no script."""

from __future__ import annotations

import base64
import html
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.report.text import clean, number, percent

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray as xr

    from emcube.models.matching import Comparison

__all__ = ["comparison_page"]

_MEANING = (
    "Components are matched so that the sum of the angles to the first method is smallest. Angles are "
    "weighted as the noise of counts asks, so that minor lines have a say. The held-out score is of counts "
    "(the log-likelihood of one) or of squares (the share explained) that the loadings have not seen: more "
    "is better. Methods that predict as well are not told apart by it; which of them is true is a matter of "
    "their assumptions."
)

MOST_COLUMNS = 10
"""Components whose angles stand in one table; with more the table of every number tells them."""


def comparison_page(comparison: Comparison, style: str, mark: str) -> str:
    """Write the page as text.

    Parameters
    ----------
    comparison : Comparison
    style : str
        CSS.
    mark : str
        Start of the element that says who wrote the page.
    """
    from emcube import __version__

    names = [clean(name) for name in comparison.methods]
    title = "Comparison: " + ", ".join(names)
    parts = [
        *_section(None, _summary(comparison)),
        *_section("Spectra", [_figure(comparison)]),
        *_section("Maps", list(_maps(comparison))),
        *_section("Every number", [_table(_HEAD, _rows(comparison), "Components by method")]),
    ]
    generator = f'{mark}{html.escape(__version__)}">'
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            generator,
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{style}{_IMAGES}</style></head><body>",
            '<header><div class="wide"><p class="kind">Comparison with emcube</p>',
            f'<h1 dir="auto">{html.escape(title)}</h1></div></header><main>',
            *parts,
            "</main></body></html>",
        ]
    )


_IMAGES = (
    "\nimg { max-width: 100%; height: auto; background: #fff; }"
    "\n.scroll td, .scroll th { white-space: nowrap; overflow-wrap: normal; }"
)

_HEAD = [
    "component",
    "method",
    "its number",
    "angle",
    "spectra correlate",
    "maps correlate",
    "share of the signal",
]


def _section(title: str | None, parts: list[str]) -> list[str]:
    if not parts:
        return []
    head = [] if title is None else [f"<h2>{html.escape(title)}</h2>"]
    return ["<section>", *head, *parts, "</section>"]


def _summary(comparison: Comparison) -> list[str]:
    """What agrees, in words and in one table."""
    said = "".join(f"<li>{html.escape(text)}</li>" for text in _said(comparison))
    n = comparison.table.sizes["component"]
    columns = [f"component {k}" for k in range(n)] if n <= MOST_COLUMNS else []
    head = ["method", "components", "held-out score", *columns]
    first = html.escape(clean(comparison.methods[0]))
    return [
        f"<ul>{said}</ul>",
        _table(head, _methods(comparison, len(columns)), "Methods"),
        f'<p class="note">Angles to {first}. {html.escape(_MEANING)}</p>',
    ]


def _said(comparison: Comparison) -> Iterable[str]:
    """Each method in a sentence."""
    table, first = comparison.table, clean(comparison.methods[0])
    for i, name in enumerate(comparison.methods[1:], 1):
        angles = np.asarray(table["angle"].isel(model=i).values, dtype=np.float64)
        values = comparison.components.isel(model=i).values
        if np.nanmin(values) < -1e-9 * np.nanmax(np.abs(values)):
            yield (
                f"{clean(name)} has components of both signs, which are no spectra of phases: its angles say "
                "how its coordinates lie."
            )
            continue
        there = np.isfinite(angles)
        if not there.any():
            yield f"{clean(name)} has no component of {first}."
            continue
        worst = int(np.nanargmax(angles))
        told = f"{clean(name)} is within {angles[worst]:.1f}° of {first}"
        told += f" (component {worst} is farthest)" if there.sum() > 1 else ""
        lacking = [str(k) for k in np.flatnonzero(~there)]
        if lacking:
            told += f", and has no component {' or '.join(lacking)}"
        n, own = table.sizes["component"], int(table["n_components"].isel(model=i))
        if own > n:
            told += f", and {own - n} more than {first}"
        yield f"{told}."


def _methods(comparison: Comparison, n_angles: int) -> Iterable[list[str]]:
    for name in comparison.methods:
        one = comparison.table.sel(model=name)
        angles = [_angle(float(one["angle"].isel(component=k))) for k in range(n_angles)]
        score = _number(float(one["held_out"]), 6)
        yield [clean(name), str(int(one["n_components"])), score, *angles]


def _angle(value: float) -> str:
    return f"{value:.1f}°" if math.isfinite(value) else "none"


def _rows(comparison: Comparison) -> Iterable[list[str]]:
    table = comparison.table
    for k in range(table.sizes["component"]):
        for i, name in enumerate(comparison.methods):
            one = table.isel(model=i, component=k)
            partner = int(one["partner"])
            if partner < 0:
                yield [f"component {k}", clean(name), *["none"] * (len(_HEAD) - 2)]
                continue
            yield [
                f"component {k}",
                clean(name),
                str(partner),
                _angle(float(one["angle"])),
                _number(float(one["correlation"]), 4),
                _number(float(one["map_correlation"]), 4),
                _share(float(one["share"])),
            ]


def _number(value: float, digits: int) -> str:
    return number(value, digits) if math.isfinite(value) else "not known"


def _share(value: float) -> str:
    return percent(value) if math.isfinite(value) else "not known"


def _table(head: list[str], rows: Iterable[list[str]], label: str) -> str:
    cells = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in head)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(text)}</td>" for text in row[1:])
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _figure(comparison: Comparison) -> str:
    if comparison.components.ndim != 3:
        return "<p>The signal is no spectrum: nothing is drawn.</p>"
    return _image(comparison.plot(), "Matched components of all methods, a panel for each")


def _maps(comparison: Comparison) -> Iterable[str]:
    from emcube.plot import maps

    drawn = {n: m for n, m in comparison.loadings.items() if 2 <= m.ndim <= 5}
    if not drawn or "pixel" in next(iter(drawn.values())).dims:
        return
    alike = min(m.ndim for m in drawn.values()) > 2
    if alike and max(m.sizes["component"] for m in drawn.values()) <= MOST_COLUMNS:
        said = (
            "Loadings, a row for each method. Maps of one component have one scale, those with signs one of "
            "their own"
        )
        yield _image(comparison.plot_maps(), said)
        return
    for name, loadings in drawn.items():
        yield f"<h3>{html.escape(clean(name))}</h3>"
        there = _there(loadings)
        yield _image(maps(there), f"Loadings of {clean(name)}")


def _there(loadings: xr.DataArray) -> xr.DataArray:
    """Only components that the method has."""
    nav = [d for d in loadings.dims if d != "component"]
    kept = np.flatnonzero(np.asarray(loadings.notnull().any(nav).values))
    return loadings.isel(component=kept)


def _image(figure: Any, said: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    text = html.escape(said)
    source = f"data:image/png;base64,{data}"
    return f'<figure><img alt="{text}" src="{source}"><figcaption>{text}</figcaption></figure>'
