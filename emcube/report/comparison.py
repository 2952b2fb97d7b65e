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
    "Components are matched so that the sum of the angles to the first method is smallest. "
    "Angles are weighted as the "
    "noise of counts asks, so that minor lines have a say. The held-out score is of counts (or "
    "squares) that the "
    "loadings have not seen: more is better. Methods that predict as well are not told apart by "
    "it; which of them is "
    "true is a matter of their assumptions."
)


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
        f"<p>{html.escape(_MEANING)}</p>",
        _table(["method", "components", "held-out score"], _methods(comparison), "Methods"),
        "<h2>Component by component</h2>",
        _table(_HEAD, _rows(comparison), "Components by method"),
        "<h2>Spectra</h2>",
        _figure(comparison),
        *_maps(comparison),
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


_IMAGES = "\nimg { max-width: 100%; height: auto; background: #fff; }"

_HEAD = [
    "component",
    "method",
    "its number",
    "angle",
    "spectra correlate",
    "maps correlate",
    "share of the signal",
]


def _methods(comparison: Comparison) -> Iterable[list[str]]:
    for name in comparison.methods:
        one = comparison.table.sel(model=name)
        yield [clean(name), str(int(one["n_components"])), _number(float(one["held_out"]), 6)]


def _rows(comparison: Comparison) -> Iterable[list[str]]:
    table = comparison.table
    for k in range(table.sizes["component"]):
        for i, name in enumerate(comparison.methods):
            one = table.isel(model=i, component=k)
            partner = int(one["partner"])
            yield [
                f"component {k}",
                clean(name),
                "none" if partner < 0 else str(partner),
                _number(float(one["angle"]), 3, "°"),
                _number(float(one["correlation"]), 4),
                _number(float(one["map_correlation"]), 4),
                _share(float(one["share"])),
            ]


def _number(value: float, digits: int, unit: str = "") -> str:
    return f"{number(value, digits)}{unit}" if math.isfinite(value) else "not known"


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

    drawn = {n: m for n, m in comparison.loadings.items() if 2 <= m.ndim <= 4}
    if drawn and "pixel" not in next(iter(drawn.values())).dims:
        yield "<h2>Maps</h2>"
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
