"""What the page says: the answer, the evidence, the doubts, and where everything came from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.report.diagnosed import Diagnosed, diagnosed
from emcube.report.figures import Parts, curve, parts_of
from emcube.report.quality import Quality, quality_of, sum_residual
from emcube.report.references import Reference, bibtex, references_of
from emcube.report.sure import METHODS, Sure, sure_of, wide_rotations
from emcube.report.text import clean, count, number, percent, plural, shorten, with_unit
from emcube.results.kinds import AXES, CLUSTERS, ESTIMATES, PARTS
from emcube.units import pretty

if TYPE_CHECKING:
    import xarray as xr

    from emcube.results import Result

__all__ = ["Card", "Contents", "Estimate", "StepText", "contents_of", "of_package"]

Row = tuple[str, str]

STABLE = 0.85
"""Jaccard index from which a cluster counts as stable (Hennig 2007)."""

CLOSE = 5.0
"""Percent below which a margin is a close call."""

TITLES = {
    "estimate_n_components": "Number of components",
    "survey_n_components": "Number of components, by several methods",
    "pca": "Principal components",
    "nmf": "Non-negative matrix factorization",
    "mcr": "Multivariate curve resolution",
    "bayesian_unmixing": "Bayesian unmixing",
    "ica": "Independent components",
    "varimax": "Rotated principal components (varimax)",
    "vca": "Endmembers by vertex component analysis",
    "nfindr": "Endmembers by N-FINDR",
    "sisal": "Endmembers by the smallest simplex (SISAL)",
    "kmeans": "k-means clusters",
    "gaussian_mixture": "Gaussian mixture",
    "poisson_mixture": "Poisson mixture",
    "cluster_quality": "Quality of the clusters",
    "uncertainty": "How sure the components are",
    "diagnostics": "Do count statistics survive?",
    "phase_fractions": "Is one image representative?",
}
_WITH_PARTS = (*PARTS, *AXES, *CLUSTERS)
_PLAIN = {
    "biwhitening": "biwhitening",
    "parallel": "parallel analysis",
    "elbow": "the elbow",
    "survey": "several methods",
    "gavish-donoho": "Gavish and Donoho's threshold",
    "malinowski": "Malinowski's indicator",
    "held-out": "held-out counts",
    "stability": "stability between halves",
    "consensus": "consensus of restarts",
}
_PYTHON = """\
import emcube as em

result = em.run("recipe.yaml", out="results/again")
print(result.run_id)"""
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


VISIBLE = 0.02
"""Share of a channel's counts that the model may miss before the first screen says so; many counts make less
than that significant.
"""


@dataclass(frozen=True)
class Missed:
    """A channel whose sum the model misses: where, by how many standard errors, and by what share."""

    place: str
    errors: float
    share: float


@dataclass(frozen=True)
class Card:
    """One of the few numbers under the title."""

    label: str
    value: str
    note: str = ""


@dataclass
class Estimate:
    """Evidence for the number of components: one per estimate step."""

    step: str
    sentence: str
    figure: str
    rows: list[tuple[str, str, str, str]]
    others: list[Row]
    noise: list[Row]


@dataclass
class StepText:
    """One step in words and figures."""

    name: str
    title: str
    summary: str
    facts: list[Row]
    parameters: list[Row]
    parts: Parts | None = None
    curves: list[tuple[str, str]] = field(default_factory=list)
    scree: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class Contents:
    """Everything that the template needs; texts are plain, not HTML."""

    title: str
    subtitle: str
    answer: list[str]
    cards: list[Card]
    cautions: list[str]
    main: Parts | None
    main_title: str
    estimates: list[Estimate]
    fit: list[str]
    fit_figures: list[tuple[str, str]]
    missed: list[Row]
    diagnoses: list[Diagnosed]
    sure: list[Sure]
    axes: list[tuple[str, str, str, str]]
    data: list[Row]
    preparation: list[Row]
    steps: list[StepText]
    provenance: list[Row]
    stack: list[Row]
    libraries: list[Row]
    features: str
    recipe: str
    command: str
    python: str
    rerun_notes: list[str]
    bibtex: str
    citation: str
    references: list[Reference]
    generator: str
    figures: dict[str, Any]
    groups: list[dict[str, Any]]
    methods: str = ""
    package: bool = False


def of_package(contents: Contents, title: str, methods: str, *, figures: bool) -> Contents:
    """What the page says where it lies in a package for publication.

    Parameters
    ----------
    contents : Contents
        Of the result, without places of anybody's machine.
    title : str
        Of the package.
    methods : str
        The paragraph for a paper.
    figures : bool
        Keep maps, spectra and curves; else numbers and texts only.
    """
    found = replace(contents, title=shorten(title), methods=clean(methods), package=True)
    if figures:
        return found
    steps = [replace(s, parts=None, curves=[]) for s in found.steps]
    estimates = [replace(e, figure="") for e in found.estimates]
    return replace(
        found,
        figures={},
        groups=[],
        main=None,
        fit_figures=[],
        steps=steps,
        estimates=estimates,
        diagnoses=[replace(one, figures=[]) for one in found.diagnoses],
    )


def contents_of(result: Result) -> Contents:
    """Collect what the page of a result says and draws.

    Parameters
    ----------
    result : Result
        Complete.
    """
    from emcube import __version__

    figures: dict[str, Any] = {}
    main_step = _main_step(result)
    steps = [_step(result, s, figures, primary=s == main_step) for s in result.steps]
    texts = {s.name: s for s in steps}
    estimates = [
        _estimate(result, s, figures)
        for s in result.steps
        if result.verb(s) == "estimate_n_components"
    ]
    quality = None
    if main_step is not None and result.verb(main_step) == "nmf":
        quality = quality_of(result, main_step)
    main = texts[main_step].parts if main_step else None
    fit, fit_figures, missed = _fit(result, main_step, quality, figures)
    recipe, notes = _recipe(result)
    groups = [s.parts.data for s in steps if s.parts is not None]
    return Contents(
        title=_title(result),
        subtitle=_subtitle(result),
        answer=_answer(result, main_step, main, quality, missed),
        cards=_cards(result, main_step, quality),
        cautions=_cautions(result, main_step, quality, missed),
        main=main,
        main_title=_main_title(result, main_step),
        estimates=estimates,
        fit=fit,
        fit_figures=fit_figures,
        missed=[
            (m.place, f"{m.errors:+.1f} standard errors ({100 * m.share:+.2g} %)") for m in missed
        ],
        diagnoses=diagnosed(result, figures),
        sure=sure_of(result),
        axes=_axes(result),
        data=_data(result),
        preparation=_preparation(result),
        steps=steps,
        provenance=_provenance(result),
        stack=_stack(result),
        libraries=[(clean(k), clean(v)) for k, v in _libraries(result).items()],
        features=_features(result),
        recipe=recipe,
        command="emcube run recipe.yaml --out results/again",
        python=_PYTHON,
        rerun_notes=notes,
        bibtex=bibtex(_libraries(result).get("emcube", __version__)),
        citation=f"The emcube developers: emcube, version {_libraries(result).get('emcube', __version__)}.",
        references=references_of(result),
        generator=f"emcube {__version__}",
        figures=figures,
        groups=groups,
    )


# -------------------------------------------------------------------------------------- first screen


def _main_step(result: Result) -> str | None:
    """The step that gives the answer: the last NMF, else what else adds up, else PCA, else clusters."""
    for verb in (*PARTS, *AXES, *CLUSTERS):
        for step in reversed(result.steps):
            if result.verb(step) == verb:
                return step
    return None


def _is(result: Result, step: str | None, verb: str) -> bool:
    return step is not None and result.verb(step) == verb


def _title(result: Result) -> str:
    address = result.provenance["input"]
    source = result.metadata.get("source") or {}
    for candidate in (
        result.metadata.get("title"),
        address.get("name"),
        address.get("dataset"),
        source.get("file"),
        address.get("path"),
    ):
        if isinstance(candidate, str) and candidate.strip():
            return shorten(candidate)
    if result.fields:
        return shorten(", ".join(result.fields))
    return shorten(result.path.name)


def _subtitle(result: Result) -> str:
    known = result.metadata
    parts = [
        known.get("modality"),
        " ".join(known.get("elements") or []),
        known.get("specimen"),
        known.get("instrument"),
        (known.get("source") or {}).get("file"),
        f"{number(float(known['beam_energy_keV']))} keV" if known.get("beam_energy_keV") else None,
    ]
    return " · ".join(shorten(p) for p in parts if p)


def _spell(n: int) -> str:
    return _NUMBERS[n] if n < len(_NUMBERS) else f"{n:,}"


def _components(n: int) -> str:
    return f"{_spell(n)} component{'' if n == 1 else 's'}"


def _main_title(result: Result, step: str | None) -> str:
    if step is None:
        return ""
    verb = result.verb(step)
    n = _size(result, step)
    node = result[step]
    name = "cluster_centers" if verb in CLUSTERS else "components"
    what = "patterns" if node[name].ndim == 3 else "spectra"
    if result.fields:
        parts = plural(n, "cluster") if verb in CLUSTERS else _components(n)
        return f"The {parts} of {plural(len(result.fields), 'field')}: their {what}"
    if verb in PARTS:
        many = f"The {_components(n)}: where they are, and their {what}"
        return (
            many
            if n > 1
            else f"The component: where it is, and its {what[:-1] if what == 'patterns' else 'spectrum'}"
        )
    if verb in AXES:
        return f"{TITLES[verb]}: where they are, and their {what}"
    return f"The {plural(n, 'cluster')}: where they are, and their mean {what}"


def _size(result: Result, step: str) -> int:
    name = "cluster_centers" if result.verb(step) in CLUSTERS else "components"
    return int(result[step][name].shape[0])


def _answer(
    result: Result,
    step: str | None,
    main: Parts | None,
    quality: Quality | None,
    missed: list[Missed],
) -> list[str]:
    said: list[str] = []
    found = _last_estimate(result)
    if step is None or main is None:
        if found is not None and found.get("n_components") is not None:
            n = int(found["n_components"])
            said.append(f"The data support {_components(n)}.")
        return said
    verb, n = result.verb(step), _size(result, step)
    if verb in PARTS:
        said.append(
            f"{_components(n).capitalize()} {'describes' if n == 1 else 'describe'} this data."
        )
        said += _told_apart(main, n)
    elif verb == "pca":
        said.append(f"{_components(n).capitalize()} of a principal component analysis.")
    elif verb in AXES:
        kind = "independent" if verb == "ica" else "rotated"
        said.append(f"{_spell(n).capitalize()} {kind} component{'' if n == 1 else 's'}.")
    else:
        said.append(f"{_spell(n).capitalize()} cluster{'' if n == 1 else 's'} of pixels.")
    if found is not None:
        said.append(_support(found, n if verb in PARTS else None))
    if quality is not None:
        beyond = _beyond_counting(result, step)
        if quality.is_noise and beyond is not None:
            said.append(
                f"By the likelihood counting noise explains what the model leaves, but chi-square is "
                f"{beyond:.2f} where that alone gives 1: see the counts."
            )
        elif quality.is_noise:
            all_of = "all" if quality.ratio < 1.02 and not _visible(missed) else "nearly all"
            said.append(f"Counting noise explains {all_of} that the model leaves.")
        else:
            said.append(
                f"The model leaves {percent(quality.ratio - 1)} more than counting noise explains."
            )
    told = [s for s in result.steps if result.verb(s) == "phase_fractions"]
    if told:
        said.append(clean(result[told[-1]].attrs["said"]))
    return said


NOTABLE = 0.05
"""Excess of the mean chi-square from which the first screen says so."""


def _beyond_counting(result: Result, step: str | None) -> float | None:
    """Mean chi-square that diagnostics of a step found, where it is more than that of counting noise."""
    for name in reversed(result.steps):
        if result.verb(name) == "diagnostics" and result[name].attrs["on"] == step:
            mean = float(result[name].attrs["chi_square_mean"])
            return mean if mean > 1.0 + NOTABLE else None
    return None


def _visible(missed: list[Missed]) -> float:
    """Largest share of a channel that the model misses, or zero where none is worth a word."""
    most = max((abs(m.share) for m in missed), default=0.0)
    return most if most >= VISIBLE else 0.0


def _told_apart(main: Parts, n: int) -> list[str]:
    named = [p for p in main.parts if p.lines]
    if not named or n > 6:
        return []
    # A line's name stays together at the end of a row.
    named = [replace(p, lines=p.lines.replace(" ", "\xa0").replace(",\xa0", ", ")) for p in named]
    if len(named) == n:
        told = "; ".join(f"{p.lines} ({p.share})" for p in named)
        return [f"{'Its strongest lines' if n == 1 else 'Told apart by'}: {told}."]
    told = "; ".join(f"{p.name} has {p.lines} ({p.share})" for p in named)
    return [f"By their lines: {told}."]


def _support(found: Mapping[str, Any], used: int | None) -> str:
    n = found["n_components"]
    if n is None:
        return f"The data name no number of components: {clean(found['reason'])}."
    method = _PLAIN.get(found["method"], clean(found["method"]))
    if used is None or used == n:
        return (
            f"That many stand out of the noise ({method})."
            if used
            else (f"The data support {_components(int(n))} ({method}).")
        )
    return f"The data support {_components(int(n))} ({method}); {_spell(used)} were asked for."


def _last_estimate(result: Result) -> dict[str, Any] | None:
    for step in reversed(result.steps):
        if result.verb(step) in ESTIMATES:
            return _of_survey(dict(result[step].attrs))
    return None


def _of_survey(found: dict[str, Any]) -> dict[str, Any]:
    """A survey in the words of an estimate."""
    if "numbers" not in found:
        return found
    named = {k: v for k, v in found["numbers"].items() if v is not None}
    return {**found, "method": "survey", "alternatives": named}


def _cards(result: Result, step: str | None, quality: Quality | None) -> list[Card]:
    cards = []
    found = _last_estimate(result)
    if step is not None:
        n = _size(result, step)
        word = "Clusters" if result.verb(step) in CLUSTERS else "Components"
        note = ""
        if found is not None and result.verb(step) in PARTS:
            supported = found["n_components"]
            note = (
                "the data name no number"
                if supported is None
                else f"supported by the data: {supported}"
            )
        cards.append(Card(word, f"{n:,}", note))
    elif found is not None and found["n_components"] is not None:
        cards.append(Card("Components", f"{found['n_components']:,}", "supported by the data"))
    if quality is not None:
        cards.append(
            Card("Misfit", f"{100 * quality.ratio:.1f} %", "of what counting noise leaves")
        )
    if step is not None and "n_iter" in result[step].attrs:
        attributes = result[step].attrs
        turned = result.verb(step) in ("ica", "varimax")
        steps = plural(int(attributes["n_iter"]), "step" if turned else "pass")
        converged = bool(attributes["converged"])
        note = "of the search for the rotation" if turned else "over the whole data"
        cards.append(Card("Converged" if converged else "Not converged", steps, note))
    cards.append(_size_card(result))
    return cards


def _size_card(result: Result) -> Card:
    cube = result.provenance["cube"]
    shape = dict(zip(cube["dims"], cube["shape"], strict=True))
    nav = _nav(result.field(result.fields[0]) if result.fields else result)
    pixels = _n_pixels(result)
    channels = math.prod(n for d, n in shape.items() if d not in (*nav, "field"))
    note = f"{count(channels)} channel{'' if channels == 1 else 's'} each"
    if "input" in result and cube["units"] == "counts":
        total = float(result["input"]["sum_spectrum"].sum())
        note += f", {count(total)} counts"
    return Card("Pixels", count(pixels), note)


def _input(result: Result) -> xr.Dataset | None:
    if "input" not in result:
        return None
    return result["input"]


def _nav(result: Result) -> list[str]:
    if "input" in result and "total_counts" in result["input"]:
        return [str(d) for d in result["input"]["total_counts"].dims]
    return []


def _n_pixels(result: Result) -> int:
    """Pixels of the cube, or of all cubes of a run of several."""
    if result.fields:
        return sum(_n_pixels(result.field(name)) for name in result.fields)
    if "input" in result:
        return int(result["input"]["total_counts"].size)
    return 1


def _cautions(
    result: Result, step: str | None, quality: Quality | None, missed: list[Missed]
) -> list[str]:
    """What a careful reader should know before believing the answer."""
    said: list[str] = []
    found = _last_estimate(result)
    if found is not None:
        margin = found.get("margin") or {}
        if not found.get("trusted", True):
            said.append(
                "The estimate of the number of components is not to be trusted here: "
                f"{clean(found['reason'])}."
            )
        for key, what, then in (
            ("above", "The last component stands only {} above the noise", "compare with one less"),
            ("below", "The next value lies only {} below the noise", "compare with one more"),
        ):
            value = margin.get(key)
            if isinstance(value, int | float) and 0 <= value < CLOSE:
                said.append(f"{what.format(f'{value:.1f} %')}: {then} component.")
        others = {
            k: v for k, v in (found.get("alternatives") or {}).items() if v != found["n_components"]
        }
        if others:
            told = ", ".join(
                f"{_PLAIN.get(k, clean(k))} says {'no number' if v is None else v}"
                for k, v in others.items()
            )
            said.append(f"Methods disagree on the number of components: {told}.")
        if step is not None and result.verb(step) in PARTS and found["n_components"] is not None:
            n = _size(result, str(step))
            if n != found["n_components"]:
                said.append(
                    f"{n} components were asked for; the data support {found['n_components']}."
                )
    for name in result.steps:
        attributes = result[name].attrs
        if attributes.get("converged") is False:
            n_iter = attributes.get("n_iter")
            turned = result.verb(name) in ("ica", "varimax")
            word = "step" if turned else "pass"
            within = "" if n_iter is None else f" in {plural(int(n_iter), word)}"
            said.append(
                f"Step {clean(name)} did not converge{within}: raise max_iter and run again."
            )
    if quality is not None and not quality.is_noise:
        said.append(
            f"What the model leaves is {100 * quality.ratio:.0f} % of what counting noise would: something "
            "is missing, such as a component, or the noise is not that of counts."
        )
    if step is not None:
        said += wide_rotations(result, step)
    most = _visible(missed)
    if most:
        said.append(
            f"In some channels the sum spectrum differs from the model's by up to {percent(most)}, "
            "which is more than noise allows: see the fit."
        )
    return said


# ---------------------------------------------------------------------------- number of components


def _estimate(result: Result, step: str, figures: dict[str, Any]) -> Estimate:
    node = result[step]
    attributes = node.attrs
    values = node["singular_value"].values.astype(np.float64)
    threshold = float(node["threshold"])
    n = attributes["n_components"]
    at = np.arange(1, len(values) + 1)
    if "component" in node.coords and len(values):
        at = node["component"].values
    key = f"scree-{step}"
    if len(values):
        figures[key] = curve(
            at,
            values,
            x_label="component",
            y_label="singular value over the noise",
            log=True,
            rule=(threshold, "largest value of pure noise") if threshold > 0 else None,
            accepted=0 if n is None else int(n),
            value="singular value",
        )
    shown = min(len(values), max(10, (n or 0) + 5))
    accepted = node["accepted"].values
    relative = node["relative"].values.astype(np.float64)
    rows = [
        (
            str(at[i]),
            number(float(values[i])),
            number(float(relative[i]), 3),
            "yes" if accepted[i] else "no",
        )
        for i in range(shown)
    ]
    others = [
        (_PLAIN.get(k, clean(k)), "no number" if v is None else f"{v}")
        for k, v in (attributes.get("alternatives") or {}).items()
    ]
    sentence = (
        f"The data name no number: {clean(attributes['reason'])}."
        if n is None
        else f"{_components(int(n)).capitalize()} {'stands' if n == 1 else 'stand'} above the noise: "
        f"{clean(attributes['reason'])}."
    )
    noise = [(_words(k), _value(v)) for k, v in (attributes.get("noise") or {}).items()]
    return Estimate(step, sentence, key if len(values) else "", rows, others, noise)


# ------------------------------------------------------------------------------------ quality of fit


def _fit(
    result: Result, step: str | None, quality: Quality | None, figures: dict[str, Any]
) -> tuple[list[str], list[tuple[str, str]], list[Missed]]:
    said: list[str] = []
    drawn: list[tuple[str, str]] = []
    missed: list[Missed] = []
    if quality is not None:
        sampled = " (expected from a sample of the pixels)" if quality.sampled else ""
        said.append(
            f"The fit leaves a misfit of {quality.misfit:,.0f} nats; counting noise alone would leave "
            f"{quality.expected:,.0f}{sampled}. Their ratio, {quality.ratio:.3f}, is one "
            f"where the model is as good as the counts can tell (noise alone scatters it by "
            f"{quality.scatter / quality.expected:.1g}), and larger where something is missing. "
            "It is half the Poisson deviance of all pixels; a chi-square, as maps of the quality of fit show "
            "it pixel by pixel, is another measure and another number."
        )
    if step is not None and result.verb(step) in PARTS:
        compared = sum_residual(result, str(step))
        if compared is not None:
            counts = result.provenance["cube"]["units"] == "counts"
            said.append(
                f"The model holds {percent(compared['share'])} of the "
                f"{'counts' if counts else 'signal'} in the sum spectrum"
                + (
                    f"; channel by channel the two differ by {compared['scatter']:.2f} standard errors "
                    "(root mean square)."
                    if counts and math.isfinite(compared["scatter"])
                    else "."
                )
            )
            if counts:
                missed = _residual(result, str(step), compared, figures, drawn)
    elif _is(result, step, "pca"):
        ratios = result[str(step)]["explained_variance_ratio"].values.astype(np.float64)
        said.append(
            f"The {_components(len(ratios))} hold {percent(float(ratios.sum()))} of the variance of the "
            "weighted data; most of the rest is noise."
        )
    return said, drawn, missed


def _residual(
    result: Result,
    step: str,
    compared: dict[str, Any],
    figures: dict[str, Any],
    drawn: list[tuple[str, str]],
) -> list[Missed]:
    """Draw what the model leaves of the sum spectrum; name the channels it misses by far."""
    node = result[step]
    sig = [str(d) for d in node["components"].dims if d != "component"]
    if len(sig) != 1:
        return []
    dim = sig[0]
    x = np.arange(len(compared["measured"]), dtype=np.float64)
    unit = ""
    if dim in node.coords and node[dim].dtype.kind in "iuf":
        x, unit = node[dim].values.astype(np.float64), str(node[dim].attrs.get("units") or "")
    key = f"residual-{step}"
    residual = np.where(compared["full"], compared["residual"], np.nan)
    sign = pretty(unit)
    figures[key] = curve(
        x,
        residual,
        x_label=f"{clean(dim)} ({clean(sign)})" if sign else clean(dim),
        y_label="standard errors",
        points=False,
        value="measured less model",
        band=2.0,
    )
    drawn.append((key, "Sum spectrum: measured less model, in standard errors"))
    far = np.flatnonzero(np.nan_to_num(np.abs(residual)) > 5.0)
    far = far[np.argsort(-np.abs(residual[far]))][:10]
    share = residual / np.sqrt(np.maximum(compared["model"], 1.0))
    return [Missed(with_unit(float(x[i]), unit), float(residual[i]), float(share[i])) for i in far]


# ------------------------------------------------------------------------------------------- the data


def _axes(result: Result) -> list[tuple[str, str, str, str]]:
    cube = result.provenance["cube"]
    nav = _nav(result)
    rows = []
    for dim, n in zip(cube["dims"], cube["shape"], strict=True):
        extent = "positions only"
        for node in (
            _input(result),
            *(result[s] for s in result.steps),
        ):
            if node is not None and dim in node.coords and node[dim].size:
                values = node[dim].values
                unit = str(node[dim].attrs.get("units") or "")
                ends = [v.item() if hasattr(v, "item") else v for v in (values[0], values[-1])]
                extent = f"{with_unit(ends[0], None)} to {with_unit(ends[1], unit)}"
                break
        rows.append(
            (clean(dim), "navigation" if dim in nav else "signal", f"{n:,}", shorten(extent, 200))
        )
    return rows


def _data(result: Result) -> list[Row]:
    cube = result.provenance["cube"]
    rows = [("values", f"{clean(cube['dtype'])}, {clean(pretty(cube['units'])) or 'no unit'}")]
    if "input" in result and "used" in result["input"]:
        used = result["input"]["used"]
        share = float(used.mean())
        rows.append(("pixels used", f"{int(used.sum()):,} of {used.size:,} ({percent(share)})"))
    rows += _flat(result.metadata)
    return rows


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[Row]:
    """Metadata as rows, one level after the other."""
    rows: list[Row] = []
    for key, value in values.items():
        name = f"{prefix}{_words(key)}"
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name}: ")
        elif value not in (None, "", [], ()):
            word, _, unit = name.rpartition(" ")
            known = word and unit in ("keV", "eV", "deg", "s", "sr", "mrad")
            rows.append((word, with_unit(value, unit)) if known else (name, _value(value)))
    return rows


def _words(key: Any) -> str:
    return clean(str(key).replace("_", " "))


def _value(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool | int | float):
        return (
            number(value)
            if isinstance(value, bool)
            else f"{value:.6g}"
            if isinstance(value, float)
            else f"{value}"
        )
    if isinstance(value, list | tuple):
        return ", ".join(_value(v) for v in value)
    if isinstance(value, Mapping):
        return clean(json.dumps(value, ensure_ascii=False, default=str))
    return clean(value)


def _preparation(result: Result) -> list[Row]:
    recipe = result.recipe
    rows = []
    for entry in recipe.get("prepare") or []:
        for verb, options in entry.items():
            told = "; ".join(f"{_words(k)} {_value(v)}" for k, v in options.items())
            rows.append((_words(verb), told))
    where = recipe.get("where")
    if where:
        told = "; ".join(f"{_words(k)} {_value(v)}" for k, v in where.items())
        rows.append(("pixels used", told))
    return rows


# ------------------------------------------------------------------------------------------- the steps


def _step(result: Result, step: str, figures: dict[str, Any], *, primary: bool) -> StepText:
    node, verb = result[step], result.verb(step)
    attributes = node.attrs
    facts: list[Row] = []
    curves: list[tuple[str, str]] = []
    text = StepText(
        name=clean(step),
        title=TITLES.get(verb, clean(verb)),
        summary=_summary(result, step),
        facts=facts,
        parameters=[(clean(k), _value(v)) for k, v in attributes["parameters"].items()],
        curves=curves,
    )
    for key, label in (
        ("on", "computed on the loadings of" if verb == "kmeans" else "about the step"),
        ("features", "features"),
        ("noise", "noise model"),
        ("domain", "domain"),
        ("solver", "solver"),
        ("pool", "pixels summed to squares with this side"),
        ("loadings_by", "loadings solved by"),
        ("noise_variance", "variance of the noise"),
        ("seed", "seed"),
    ):
        value = attributes.get(key)
        if value is not None and not isinstance(value, Mapping):
            facts.append((label, _value(value)))
    if "seconds" in attributes:
        facts.append(("time", f"{number(float(attributes['seconds']), 3)} s"))
    if verb == "phase_fractions":
        _fractions(node, step, figures, curves, facts)
    if verb == "survey_n_components":
        _survey(node, step, figures, curves, facts)
    if verb in _WITH_PARTS:
        text.parts = parts_of(result, step, primary=primary)
    if verb == "nmf":
        facts.append(("objective at the end", number(float(node["objective"]), 7)))
        path = node["objective_path"].values.astype(np.float64)
        if path.size > 1:
            key = f"objective-{step}"
            figures[key] = curve(
                np.arange(1, path.size + 1),
                path,
                x_label="pass over the data",
                y_label="objective",
                value="objective",
            )
            curves.append((key, "Objective after each pass (with the volume term)"))
    if verb == "mcr":
        path = node["lack_of_fit_path"].values.astype(np.float64)
        facts.append(("lack of fit, within the subspace", percent(float(path[-1]))))
        if path.size > 1:
            key = f"lack-of-fit-{step}"
            figures[key] = curve(
                np.arange(1, path.size + 1),
                path,
                x_label="round",
                y_label="lack of fit",
                value="lack of fit",
            )
            curves.append((key, "Lack of fit after each round"))
    if verb == "kmeans":
        facts.append(("inertia", number(float(node["inertia"]), 7)))
    if verb == "cluster_quality":
        facts += _quality_rows(node)
    if "probabilities" in node:
        _mixture(node, step, figures, curves, facts)
    if verb == "pca":
        _scree(node, step, figures, curves, text)
    return text


_MOST_PHASES = 8
"""Phases of which fractions are drawn."""


def _fractions(
    node: Any,
    step: str,
    figures: dict[str, Any],
    curves: list[tuple[str, str]],
    facts: list[Row],
) -> None:
    """Fractions of phases by field, in words and drawn."""
    facts.append(("representative?", clean(node.attrs["said"])))
    if node.attrs.get("fields"):
        named = ", ".join(f"{i} {clean(name)}" for i, name in enumerate(node.attrs["fields"]))
        facts.append(("fields", named))
    several = node.sizes["field"] > 1
    for k in range(node.sizes["phase"]):
        one = node.isel(phase=k)
        mean = float(one["mean_fraction"])
        facts.append((f"phase {int(one['phase'])}", _fraction_words(one, several=several)))
        if several and k < _MOST_PHASES:
            key = f"fractions-{step}-{k}"
            figures[key] = curve(
                one["field"].values.astype(np.float64),
                one["fraction"].values.astype(np.float64),
                x_label="field",
                y_label="fraction",
                rule=(mean, "of all fields"),
                value="fraction",
            )
            curves.append((key, f"Phase {int(one['phase'])}: fraction in each field"))


def _fraction_words(one: Any, *, several: bool) -> str:
    """Mean, spread and what it comes from, of one phase."""
    mean = percent(float(one["mean_fraction"]))
    if not several:
        area = percent(float(one["fraction_std_area"][0]))
        return f"{mean} ± {area} (another place of this field's size, one standard error)"
    low, high = (percent(float(v)) for v in one["mean_interval"].values)
    shares = [float(one[name]) for name in ("share_counting", "share_area", "share_fields")]
    words = zip(("counting", "finite area", "fields that differ"), shares, strict=True)
    told = ", ".join(f"{word} {percent(v)}" for word, v in words if np.isfinite(v))
    needed = float(one["fields_needed"])
    fields = f"; {plural(int(needed), 'field')} needed" if np.isfinite(needed) else ""
    return (
        f"{mean} ({low} to {high}); from field to field ± {percent(float(one['spread']))}, of which "
        f"{told}{fields}"
    )


def _survey(
    node: Any,
    step: str,
    figures: dict[str, Any],
    curves: list[tuple[str, str]],
    facts: list[Row],
) -> None:
    """What each method says of the number of components, and what it looked at."""
    facts.append(("reason", clean(node.attrs["reason"])))
    for method, n in node.attrs["numbers"].items():
        facts.append((_PLAIN.get(method, clean(method)), "no number" if n is None else str(n)))
    error = node["gain_error"].values
    sure = node["gain"].values / np.where(error > 0, error, np.nan)
    n = node["n"].values.astype(np.float64)
    for key, values, label, rule, what in (
        (
            "gain", sure, "standard errors", (3.0, "three standard errors"),
            "Held-out counts: what each further component gains",
        ),
        (
            "angle", node["worst_angle"].values, "degrees", (20.0, "the same within this"),
            "Halves of the counts: largest angle between their components",
        ),
        (
            "consensus", node["consensus"].values, "share", (0.9, "agreed from here"),
            "Fits from random starts: components that are found again",
        ),
    ):  # fmt: skip
        known = np.isfinite(values)
        if known.sum() < 2:
            continue
        name = f"survey-{key}-{step}"
        figures[name] = curve(
            n[known], values[known].astype(np.float64), x_label="components", y_label=label,
            value=label, rule=rule,
        )  # fmt: skip
        curves.append((name, what))


def _quality_rows(node: Any) -> list[Row]:
    """Separation and stability of each cluster, in words."""
    rows = [
        ("clusters of", clean(node.attrs["of"])),
        ("sampled pixels", f"{int(node.attrs['n_samples']):,}"),
        ("silhouette of all", number(float(node.attrs["silhouette"]), 3)),
        ("agreement of repeats (adjusted Rand index)", number(float(node.attrs["agreement"]), 3)),
    ]
    for k in range(node.sizes["cluster"]):
        one = node.isel(cluster=k)
        rows.append(
            (
                f"cluster {k}",
                _separation(one),
            )
        )
    return rows


def _separation(one: Any) -> str:
    told = {str(name): number(float(value), 3) for name, value in one.data_vars.items()}
    return (
        f"silhouette {told['silhouette']} ± {told['silhouette_error']}, stability {told['stability']} "
        f"(least {told['stability_least']})"
    )


def _mixture(
    node: Any,
    step: str,
    figures: dict[str, Any],
    curves: list[tuple[str, str]],
    facts: list[Row],
) -> None:
    """Likelihood and criteria of a mixture."""
    for name, label in (
        ("log_likelihood", "log-likelihood (nats)"),
        ("bic", "Bayesian information criterion"),
    ):
        facts.append((label, number(float(node[name]), 7)))
    facts.append(("free parameters", f"{int(node.attrs['n_parameters']):,}"))
    path = node["log_likelihood_path"].values.astype(np.float64)
    if path.size > 1:
        key = f"likelihood-{step}"
        figures[key] = curve(
            np.arange(1, path.size + 1),
            path,
            x_label="pass over the data",
            y_label="nats a pixel",
            value="log-likelihood",
        )
        curves.append((key, "Log-likelihood of a pixel after each pass"))


def _scree(
    node: Any, step: str, figures: dict[str, Any], curves: list[tuple[str, str]], text: StepText
) -> None:
    values = node["explained_variance"].values.astype(np.float64)
    ratios = node["explained_variance_ratio"].values.astype(np.float64)
    trivial = bool(node.attrs["trivial_first"])
    noise = float(node.attrs.get("noise_variance") or 0.0)
    key = f"variance-{step}"
    figures[key] = curve(
        np.arange(len(values)),
        values,
        x_label="component",
        y_label="explained variance",
        log=True,
        rule=(noise, "variance of the noise") if noise > 0 else None,
        faint=[0] if trivial else None,
        value="explained variance",
    )
    what = "Explained variance" + (
        "; the first is the mean spectrum and carries no contrast" if trivial else ""
    )
    curves.append((key, what))
    text.scree = [
        (str(i), number(float(v)), percent(float(r)))
        for i, (v, r) in enumerate(zip(values, ratios, strict=True))
    ]


def _summary(result: Result, step: str) -> str:
    attributes, verb = result[step].attrs, result.verb(step)
    if verb in ESTIMATES:
        n = attributes["n_components"]
        return "no number" if n is None else _components(int(n))
    if verb == "cluster_quality":
        stable = result[step]["stability"].values
        return f"{int((stable >= STABLE).sum())} of {plural(stable.size, 'cluster')} stable"
    if verb == "phase_fractions":
        return f"of {clean(attributes['of'])}: {plural(result[step].sizes['field'], 'field')}"
    if verb == "diagnostics":
        return (
            f"of {clean(attributes['on'])}: chi-square {float(attributes['chi_square_mean']):.3f}"
        )
    if verb == "uncertainty":
        level = 100.0 * float(attributes["level"])
        return (
            f"of {clean(attributes['on'])}: {level:g} % intervals, {METHODS[attributes['method']]}"
        )
    n = _size(result, step)
    what = plural(n, "cluster") if verb in CLUSTERS else plural(n, "component")
    if "n_iter" not in attributes:
        return what
    # The search for a rotation goes over scores and spectra, not over the data.
    word = "step" if verb in ("ica", "varimax", "mcr") else "pass"
    passes = plural(int(attributes["n_iter"]), word)
    done = f"converged after {passes}" if attributes["converged"] else f"not converged in {passes}"
    return f"{what}, {done}"


# ------------------------------------------------------------------------------- where it came from


def _provenance(result: Result) -> list[Row]:
    found = result.provenance
    address = {k: v for k, v in found["input"].items() if k != "digest"}
    seeds = [f"{clean(k)} {v}" for k, v in found["seeds"].items()]
    drawn = ", ".join(clean(s) for s in found.get("drawn_seeds") or [])
    rows = [
        ("run_id", clean(result.run_id)),
        ("digest of the input", clean(found["input"]["digest"])),
        ("input", "; ".join(f"{_words(k)} {_value(v)}" for k, v in address.items())),
        ("seeds", ", ".join(seeds) + (f" (drawn: {drawn})" if drawn else "")),
        ("block layout", "; ".join(f"{_words(k)} {_value(v)}" for k, v in found["layout"].items())),
        ("started", clean(found.get("started", "not recorded"))),
        ("finished", clean(found.get("finished", "not recorded"))),
    ]
    return [(k, v) for k, v in rows if v]


def _stack(result: Result) -> list[Row]:
    stack = result.provenance.get("stack") or {}
    rows = [
        ("Python", f"{clean(stack.get('python', ''))} ({clean(stack.get('implementation', ''))})"),
        ("platform", clean(stack.get("platform", ""))),
        ("processors", _value(stack.get("n_cpus"))),
        ("Numba compiles for", clean((stack.get("numba") or {}).get("cpu", ""))),
    ]
    for library in stack.get("blas") or []:
        said = [library.get("internal_api"), library.get("version"), library.get("architecture")]
        rows.append(("linear algebra", ", ".join(clean(s) for s in said if s)))
    return [(k, v) for k, v in rows if v]


def _features(result: Result) -> str:
    stack = result.provenance.get("stack") or {}
    return clean(" ".join((stack.get("numba") or {}).get("features") or []))


def _libraries(result: Result) -> dict[str, str]:
    return dict((result.provenance.get("stack") or {}).get("libraries") or {})


def _without(mapping: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in keys}


def _name_spectra(
    steps: list[dict[str, Any]], recorded: Iterable[Mapping[str, Any]], notes: list[str]
) -> None:
    """Put the places of given spectra where a recorded recipe names their digests."""
    places = {(one["step"], one["parameter"], one["digest"]): one for one in recorded}
    for step in steps:
        for parameters in step.values():
            for key in ("known", "init"):
                named = parameters.get(key)
                if isinstance(named, list):
                    at = (parameters["name"], key)
                    parameters[key] = [
                        _named(one, places.get((*at, one.get("digest")), {})) for one in named
                    ]
    if places:
        notes.append(
            "Spectra that were given are named as the recipe named them, relative to its folder; the result "
            "keeps them, too: em.run(result.recipe, cube, spectra=result, out=...)."
        )


def _named(one: Mapping[str, Any], place: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: place[key] for key in ("path", "name", "component") if key in place}
    if "of_step" in place:
        found["step"] = place["of_step"]
    return found if "path" in found else dict(one)


def _recipe(result: Result) -> tuple[str, list[str]]:
    """The recipe that makes this result again, and what to mind."""
    import yaml

    found = result.provenance
    address = _without(found["input"], ("digest", "in_hand"))
    fields = found["input"].get("fields") or ()
    in_hand = found["input"].get("in_hand") or any(one.get("in_hand") for one in fields)
    if fields:
        address = {"fields": [_without(one, ("digest", "in_hand")) for one in fields]}
    notes: list[str] = []
    recipe = json.loads(json.dumps(result.recipe))
    _name_spectra(recipe["steps"], found.get("spectra") or (), notes)
    whole: dict[str, Any] = {"emcube": recipe["emcube"]}
    if in_hand:
        notes.append(
            "The cube was in memory when this was run: give it as em.run(recipe, cube, out=...), "
            "or write its address as 'input' into the recipe."
        )
    elif address:
        whole["input"] = address
        notes.append("Paths of the input are relative to the folder of the recipe.")
    for key in ("where", "prepare"):
        if recipe.get(key):
            whole[key] = recipe[key]
    whole["steps"] = recipe["steps"]
    drawn = found.get("drawn_seeds") or []
    for step in whole["steps"]:
        for parameters in step.values():
            if parameters["name"] in drawn:
                parameters["random_state"] = found["seeds"][parameters["name"]]
    if drawn:
        notes.append(
            "Seeds that were drawn stand in the recipe, so that the numbers are the same; the run_id is "
            "another one, since it says that they were left open."
        )
    notes.append(
        "The same run_id on the same stack gives the same bits; other library versions give another run_id."
    )
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=88), notes
