"""What the page shows beside the plots, as plain data: words, numbers and small pictures.

Texts of strangers are cleaned of control characters here and set as text, never as HTML, by the page.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from emcube.cube import nav_dims, sig_dims
from emcube.explore.outcomes import spectra_of
from emcube.explore.plots import shades_of
from emcube.explore.settings import Field, Settings, fields_of
from emcube.recipe import schema
from emcube.report.text import clean, count, number, plural, shorten
from emcube.units import pretty

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from emcube.explore.comparing import Comparison
    from emcube.explore.entries import EntryCard
    from emcube.explore.jobs import Job, Problem
    from emcube.explore.outcomes import Outcome
    from emcube.explore.session import Session
    from emcube.models.n_components import NComponentsEstimate

__all__ = [
    "catalog_pane",
    "comparison_pane",
    "cube_pane",
    "curve_pane",
    "forms_pane",
    "job_pane",
    "outcome_pane",
    "problem_notice",
    "settings_pane",
    "verbs",
]

Plain = dict[str, Any]

ENTRIES = 300
"""Datasets of a catalog that are listed at once; a search finds the others."""

SHOWN = ("shape", "cells", "values")
"""Facts of a session that stand elsewhere on the page."""

THUMB = 96
"""Longest side of a small picture, in pixels."""

MAIN = ("method", "n_components", "n_clusters", "on", "noise", "random_state")
"""Parameters that are in view where there is room for them; the others are one click away."""

USUAL = ("estimate_n_components", "pca", "nmf", "kmeans")
"""Steps that are in view; other methods are one click away."""

TITLES = {
    "estimate_n_components": "Number of components",
    "survey_n_components": "Number of components, by several methods",
    "pca": "PCA",
    "nmf": "NMF",
    "kmeans": "k-means",
    "mcr": "MCR-ALS",
    "bayesian_unmixing": "Bayesian unmixing",
    "ica": "ICA",
    "varimax": "Varimax",
    "vca": "VCA",
    "nfindr": "N-FINDR",
    "sisal": "SISAL",
    "gaussian_mixture": "Gaussian mixture",
    "poisson_mixture": "Poisson mixture",
    "cluster_quality": "Cluster quality",
    "phase_fractions": "Phase fractions",
}

LABELS = {
    "n_components": "components",
    "n_clusters": "clusters",
    "random_state": "seed",
    "noise": "noise",
    "on": "on",
    "method": "method",
}


# ------------------------------------------------------------------------------------------- the data


def catalog_pane(session: Session, cards: Sequence[EntryCard]) -> Plain:
    """Entries of a catalog."""
    catalog = session.catalog
    known = {} if catalog is None else catalog.metadata
    where = "" if catalog is None else Path(str(catalog.path)).name
    return {
        "title": shorten(known.get("title") or where, 120),
        "count": len(cards),
        "all": 0 if catalog is None else len(catalog),
        "entries": [_entry(card) for card in cards[:ENTRIES]],
    }


def _entry(card: EntryCard) -> Plain:
    facts = [
        shorten(card.modality, 40),
        " ".join(shorten(e, 12) for e in card.elements[:12]),
        " × ".join(f"{n:,}" for n in card.shape),
    ]
    return {
        # The key goes back as it is; what is read is cleaned.
        "key": card.name,
        "title": shorten(card.title or card.name, 200),
        "name": shorten(card.name, 120) if card.title else "",
        "facts": " · ".join(f for f in facts if f),
        "problem": shorten(card.problem, 240),
        "kind": card.kind,
        "can": card.kind != "refused" and (card.available or not card.problem),
    }


def cube_pane(session: Session, images: Sequence[str], entry: str) -> Plain:
    """What is looked at: title, facts, dims."""
    if not session.has_cube:
        return {"has": False, "title": "", "entry": entry}
    cube = session.cube
    nav, sig = nav_dims(cube), sig_dims(cube)
    pixels = int(np.prod([cube.sizes[d] for d in nav], dtype=np.int64)) if nav else 1
    channels = int(np.prod([cube.sizes[d] for d in sig], dtype=np.int64))
    return {
        "has": True,
        "title": shorten(session.title or "Cube", 200),
        "subtitle": f"{_shape(cube, nav)} pixels · {_shape(cube, sig)} channels · "
        f"{count(pixels * channels)} cells · {cube.dtype}",
        "entry": entry,
        "facts": [[shorten(d, 24), _extent(cube, d)] for d in cube.dims]
        + [[shorten(k, 60), clean(v)[:2000]] for k, v in session.facts.items() if k not in SHOWN],
        "images": [shorten(i, 80) for i in images],
        "nav": [_axis(cube, d, named=d not in nav[-2:]) for d in nav],
        "sig": [_axis(cube, d, named=False) for d in sig],
    }


def _shape(cube: xr.DataArray, dims: Sequence[str]) -> str:
    return " × ".join(f"{cube.sizes[d]:,}" for d in dims) or "1"


def _extent(cube: xr.DataArray, dim: Any) -> str:
    """How many positions a dim has, and from where to where."""
    said = f"{cube.sizes[dim]:,}"
    if dim not in cube.coords or not cube.sizes[dim]:
        return said
    values = cube.coords[dim].values
    unit = clean(pretty(str(cube.coords[dim].attrs.get("units") or "")))[:24]
    unit = "" if unit == "1" else unit
    ends = " to ".join(
        f"{v:.4g}" if isinstance(v, np.number) else place(v) for v in values[[0, -1]]
    )
    return f"{said}: {ends}{'' if unit == '°' else ' '}{unit}".strip()


def _axis(cube: xr.DataArray, dim: str, *, named: bool) -> Plain:
    """A dim; where it is `named`, with what its positions are called."""
    here = cube.coords.get(dim)
    unit = "" if here is None else clean(pretty(str(here.attrs.get("units") or "")))
    n = cube.sizes[dim]
    said: list[str] = []
    if named and n <= 5000:
        values = np.arange(n) if here is None else here.values
        said = [f"{place(v)}{'' if unit == '°' else ' '}{unit}".strip() for v in values]
    return {"dim": dim, "label": shorten(dim, 24), "n": n, "unit": unit[:24], "said": said}


def place(value: Any) -> str:
    """A coordinate in few digits."""
    if isinstance(value, int | float | np.number):
        return f"{float(value):.6g}"
    return shorten(value, 40)


# -------------------------------------------------------------------------------------------- the steps


def forms_pane() -> list[Plain]:
    """Parameters of every step, for a form."""
    return [
        {
            "verb": verb,
            "title": TITLES.get(verb, verb),
            "usual": verb in USUAL,
            "fields": [_field(verb, field) for field in fields_of(verb)],
        }
        for verb in verbs()
    ]


def verbs() -> tuple[str, ...]:
    """Steps of a recipe, in the order in which they run when they are ticked."""
    return tuple(m.model_fields["verb"].default for m in get_args(schema.AnyStep))


def _field(verb: str, field: Field) -> Plain:
    seen = field.name in MAIN and (verb, field.name) != ("pca", "random_state")
    return {
        "name": field.name,
        "label": LABELS.get(field.name, field.name.replace("_", " ")),
        "default": _word(field.default),
        "choices": [_word(c) for c in field.choices],
        "kind": field.kind,
        "main": seen and not (verb == "nmf" and field.name == "noise"),
    }


def _word(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_pane(settings: Settings, selected: tuple[int, int] | None) -> Plain:
    """Preparation and steps as they stand."""
    steps = []
    for entry in settings.steps:
        (verb, given), *_ = entry.items()
        values = {k: _word(v) for k, v in (given or {}).items() if k != "name"}
        steps.append({"verb": verb, "name": (given or {}).get("name") or verb, "values": values})
    said = [_said(entry) for entry in settings.prepare]
    if settings.where is not None:
        said.append(f"Pixels of {settings.where['min_smoothed_counts']:g} smoothed counts or more")
    used = "" if selected is None else f"{selected[0]:,} of {selected[1]:,} pixels are used"
    return {"steps": steps, "prepare": said, "used": used}


def _said(entry: Plain) -> str:
    """A preparation in words."""
    (verb, given), *_ = entry.items()
    if verb == "bin":
        parts = [f"{d} by {n}" for d, n in given.items() if d != "boundary"]
        return f"Bin {', '.join(parts)}"
    if verb == "select":
        if "outside" in given:
            return f"Leave out {_polygon(given['outside'])}"
        parts = [f"{d} {a} to {b - 1}" for d, (a, b) in given.items() if d != "region"]
        if "region" in given:
            parts.append(_polygon(given["region"]))
        return f"Use {', '.join(parts)}"
    what = "Window" if verb == "window" else "Background fitted in"
    return f"{what} {', '.join(f'{d} {a:.6g} to {b:.6g}' for d, (a, b) in given.items())}"


def _polygon(corners: Sequence[Sequence[float]]) -> str:
    rows, columns = zip(*corners, strict=True)
    if len(corners) == 4 and len(set(rows)) == 2 and len(set(columns)) == 2:
        size = f"{max(rows) - min(rows):.0f} × {max(columns) - min(columns):.0f}"
        return f"a rectangle of {size} pixels"
    return f"an outline of {len(corners)} corners"


def curve_pane(estimate: NComponentsEstimate) -> Plain:
    """The curve of the number of components."""
    values = np.asarray(estimate.curve["singular_value"].values, dtype=np.float64)[:30]
    n = estimate.n_components
    said = f"{plural(n, 'component')}: " if n is not None else "No number: "
    return {
        "values": [float(v) for v in values],
        # Where the noise cannot be told there is none, and JSON has no NaN.
        "threshold": float(estimate.threshold) if np.isfinite(estimate.threshold) else None,
        "n": n,
        "said": said + clean(estimate.reason),
    }


# ------------------------------------------------------------------------------------------ jobs, trouble


def job_pane(job: Job[Any] | None, title: str) -> Plain:
    """How far a job is."""
    if job is None:
        return {"on": False}
    progress = job.progress
    known = progress.n_blocks > 0
    return {
        "on": not job.done,
        "title": title,
        "said": clean(str(progress)) or "Starting",
        "fraction": progress.fraction if known else None,
        "part": clean(progress.part),
        "seconds": round(progress.seconds, 1),
    }


def problem_notice(doing: str, problem: Problem) -> Plain:
    """An error as a message."""
    unexpected = problem.message.startswith("unexpected ")
    return {
        "kind": "error",
        "head": clean(doing),
        "what": clean(problem.message)[:4000],
        "hint": clean(problem.hint)[:1000],
        "more": clean(problem.details)[:20_000] if unexpected else "",
        "notes": [clean(n)[:400] for n in problem.notes[:4]],
    }


# ---------------------------------------------------------------------------------------------- results


def outcome_pane(outcome: Outcome) -> Plain:
    """A result with the components of its steps, in words and small pictures."""
    result = outcome.result
    return {
        "number": outcome.number,
        "title": "Preview" if outcome.preview else "Run",
        "of": ", ".join(TITLES.get(result.verb(s), s) for s in outcome.steps),
        "preview": outcome.preview,
        "run_id": outcome.run_id,
        "took": f"{outcome.seconds:.1f} s" if outcome.seconds else "",
        "steps": [_step(outcome, step) for step in outcome.steps],
    }


def _step(outcome: Outcome, step: str) -> Plain:
    from emcube.report.figures import parts_of

    result = outcome.result
    verb = result.verb(step)
    words = parts_of(result, step, primary=False).parts
    spectra = spectra_of(outcome, step)
    thumbs = _thumbs(result[step], verb)
    names = [
        {
            "k": k,
            "name": clean(word.name),
            "lines": clean(word.lines),
            "share": clean(word.share),
            "thumb": thumbs[k] if k < len(thumbs) else "",
            "spark": _spark(np.asarray(spectra[k].values, dtype=np.float64)),
        }
        for k, word in enumerate(words)
    ]
    title = TITLES.get(verb, verb) if step == verb else f"{TITLES.get(verb, verb)}: {clean(step)}"
    return {"step": step, "verb": verb, "title": title, "parts": names}


def _spark(values: NDArray[np.float64]) -> list[float]:
    """A spectrum in a hundred numbers between 0 and 1; by square root where nothing is below zero."""
    if values.ndim != 1 or values.size < 2:
        return []
    size = -(-values.size // 100)
    starts = np.arange(0, values.size, size)
    highest = np.maximum.reduceat(np.nan_to_num(values), starts)
    if highest.min() >= 0:
        highest = np.sqrt(highest)
    low, high = min(float(highest.min()), 0.0), float(highest.max())
    return [round((float(v) - low) / (high - low or 1.0), 3) for v in highest]


def _thumbs(node: xr.Dataset, verb: str) -> list[str]:
    """Pictures of the maps, as data URLs; none where there is no image to show."""
    maps = node["labels"] if "labels" in node else node.get("loadings")
    if maps is None:
        return []
    dims = [str(d) for d in maps.dims if d != "component"]
    if len(dims) < 2:
        return []
    at: dict[str, Any] = {d: maps.sizes[d] // 2 for d in dims[:-2]}
    at |= {d: slice(None, None, -(-maps.sizes[d] // THUMB)) for d in dims[-2:]}
    small = maps.isel(at).load()
    if verb == "kmeans" or "labels" in node:
        n = node.sizes.get("cluster", 0)
        return [_picture(np.where(small.values == k, 1.0, 0.0)) for k in range(n)]
    return [
        _picture(np.asarray(small.isel(component=k).values))
        for k in range(small.sizes["component"])
    ]


def _picture(values: NDArray[Any]) -> str:
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.image import imsave

    shades = shades_of(values)
    rgba = ListedColormap(list(shades.palette)).with_extremes(bad=(0, 0, 0, 0))(
        Normalize(shades.low, shades.high)(np.ma.masked_invalid(values))
    )
    buffer = io.BytesIO()
    imsave(buffer, rgba, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def comparison_pane(found: Comparison) -> Plain:
    """Matched components of two outcomes."""

    def names(outcome: Outcome, step: str) -> str:
        verb = TITLES.get(outcome.result.verb(step), step)
        return (
            f"{outcome.number}: {verb}"
            if step == outcome.result.verb(step)
            else f"{outcome.number}: {step}"
        )

    return {
        "first": clean(names(found.first, found.first_step)),
        "second": clean(names(found.second, found.second_step)),
        "keys": [found.first.number, found.first_step, found.second.number, found.second_step],
        "pairs": [[p.first, p.second, f"{number(p.angle, 3)}°"] for p in found.pairs],
        "alone": [list(found.first_alone), list(found.second_alone)],
        "note": "Angles between spectra, weighted as counting noise asks, on "
        f"{plural(found.n_channels, 'channel')}.",
    }


def short_path(path: str | os.PathLike[str]) -> str:
    """A path as people read it: from home, or whole."""
    text = os.fspath(path)
    home = str(Path.home())
    return "~" + text[len(home) :] if text.startswith(home + os.sep) else text
