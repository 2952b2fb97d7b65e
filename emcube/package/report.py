"""The report of a package: one page with figures and numbers of every step, which needs no other file."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.package.crate import Publication

if TYPE_CHECKING:
    from emcube.results import Result

__all__ = ["STYLE", "report_page"]

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h1{line-height:1.2}td,th{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0}"
    "th{font-weight:600;white-space:nowrap}td{overflow-wrap:anywhere}code,pre{font-size:.9em}"
    "pre{background:#f4f4f4;padding:.6rem;overflow-x:auto}img{max-width:100%;height:auto}"
    "figure{margin:1rem 0}figcaption{font-size:.9em;color:#555}"
)

_CAPTIONS = {
    "scree": "Explained variance, or the curve of the estimate, by component.",
    "components": "Components: spectra or patterns.",
    "loadings": "Loadings: how much of each component is in each pixel.",
    "bands": "Components with their intervals, and the range of all factorisations that are as good.",
    "diagnostics": "What the model leaves: chi-square, correlations, and variances after denoising.",
    "labels": "Clusters: which one each pixel belongs to.",
}

_TOLD_ELSEWHERE = frozenset({"emcube", "parameters"})
MAX_TEXT = 300
"""Characters of a value that are shown: longer ones are in the result."""


def report_page(result: Result, about: Publication, methods: str, scratch: Path | None) -> bytes:
    """Write report.html.

    Parameters
    ----------
    result : Result
        Complete.
    about : Publication
        What the package says of itself.
    methods : str
        The Methods paragraph.
    scratch : Path, optional
        Folder in which figures are drawn, which are put into the page; without it there are none.

    Notes
    -----
    No scripts, nothing that is fetched from elsewhere. The same bytes for the same result and installed
    versions.
    """
    figures = {} if scratch is None else _figures(result, scratch / "figures")
    parts = [_step(result, step, figures) for step in result.steps]
    title = html.escape(f"Report: {about.title}")
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>
<body>
<h1>{title}</h1>
<h2>Methods</h2>
<p>{html.escape(methods)}</p>
{"".join(parts)}</body>
</html>
""".encode()


def _figures(result: Result, folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in result.save_figures(folder)}


def _step(result: Result, step: str, figures: Mapping[str, bytes]) -> str:
    attributes = result[step].attrs
    verb = result.verb(step)
    name = html.escape(step if step == verb else f"{step} ({verb})")
    parameters = attributes.get("parameters") or {}
    given = "".join(_rows({k: v for k, v in parameters.items() if v is not None}))
    found = "".join(_rows({k: v for k, v in attributes.items() if k not in _TOLD_ELSEWHERE}))
    drawn = "".join(
        f'<figure><img src="data:image/png;base64,{base64.b64encode(figures[key]).decode()}" '
        f'alt="{html.escape(f"{step}: {what}")}"><figcaption>{caption}</figcaption></figure>\n'
        for what, caption in _CAPTIONS.items()
        if (key := f"{step}-{what}") in figures
    )
    tables = "".join(
        f"<h3>{head}</h3>\n<table>\n{rows}</table>\n"
        for head, rows in (("Outcome", found), ("Parameters", given))
        if rows
    )
    return f"<h2>{name}</h2>\n{drawn}{tables}"


def _rows(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{before}{key}, ")
        else:
            text = html.escape(_short(value))
            yield f"<tr><th>{html.escape(before + str(key))}</th><td>{text}</td></tr>\n"


def _short(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        value = ", ".join(_short(one) for one in value)
    text = str(value)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."
