"""The Methods paragraph of a result: what was done, in words for a journal, from what was recorded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.package.names import MANIFEST
from emcube.package.references import Reference
from emcube.results.kinds import ESTIMATES

if TYPE_CHECKING:
    import xarray as xr

    from emcube.results import Result

__all__ = ["methods_page", "methods_paragraph", "summary"]

_LOSSES = {
    "kullback-leibler": "the Kullback-Leibler divergence (the likelihood of Poisson counts)",
    "frobenius": "the sum of squared differences",
}


def methods_page(
    result: Result, references: Sequence[Reference], version: str, data: Reference | None
) -> bytes:
    """Write METHODS.md: the paragraph, and the references that it calls.

    Parameters
    ----------
    result : Result
        Complete.
    references : sequence of Reference
        Those of the analysis.
    version : str
        Of emcube in the run.
    data : Reference, optional
        How the data are cited.
    """
    called = references if data is None else [*references, data]
    listed = "\n".join(f"- {_listed(reference)}" for reference in called)
    return (
        "# Methods\n\n"
        f"{methods_paragraph(result, references, version, data)}\n\n"
        "This text was generated from the result's own records; change it as your journal wants it. "
        f"`references.bib` has these entries:\n\n{listed}\n"
    ).encode()


def summary(result: Result, name: str, version: str) -> str:
    """Say in one or two sentences what a package holds."""
    found = [_brief_step(result, step) for step in result.steps]
    modality = f"{result.metadata['modality']} " if result.metadata.get("modality") else ""
    return (
        f"The {modality}data set “{name}”, {_extent(result)}, analysed with emcube {version}: "
        f"{_listing(found)}. Every number can be computed again from the recipe in this package."
    )


def _brief_step(result: Result, step: str) -> str:
    node = result[step]
    for dim in ("cluster", "component"):
        if dim in node.sizes and result.verb(step) not in ESTIMATES:
            return f"{step} ({_count(node.sizes[dim], dim)})"
    number = node.attrs.get("n_components")
    return f"{step} ({number})" if number is not None else step


def _listed(reference: Reference) -> str:
    given = reference.fields
    where = given.get("journal") or given.get("booktitle") or ""
    number = ", ".join(
        x for x in (given.get("volume"), given.get("pages", "").replace("--", "-")) if x
    )
    people = given.get("author", "").split(" and ")
    author = (
        "; ".join(people[:-1]) + " et al." if people[-1] == "others" else "; ".join(people)
    ).rstrip(".")
    # A volume follows the name of its journal; of proceedings only pages are known.
    where = f"{where}{' ' if given.get('volume') else ', '}{number}" if number else where
    text = ". ".join(x for x in (author, given.get("title"), where) if x)
    year = f" ({given['year']})" if given.get("year") else ""
    if reference.kind == "software":
        year = f". Version {given['version']}{year}"
    link = f" https://doi.org/{reference.doi}" if reference.doi else ""
    return f"{text}{year}.{link}"


def methods_paragraph(
    result: Result, references: Sequence[Reference], version: str, data: Reference | None = None
) -> str:
    """Write the paragraph.

    Parameters
    ----------
    result : Result
        Complete.
    references : sequence of Reference
        What may be called in brackets.
    version : str
        Of emcube in the run.
    data : Reference, optional
        How the data are cited.

    Notes
    -----
    The same text for the same result, always.
    """
    cite = {reference.key: f" ({reference.short})" for reference in references}
    sentences = [_cube_sentence(result, data), f"It was analysed with emcube {version}."]
    sentences += _preparation(result.recipe)
    for step in result.steps:
        sentences += _step_sentences(result, step, cite)
    sentences += _identity(result, version)
    return " ".join(sentences)


# ------------------------------------------------------------------------------------------- the data


def _cube_sentence(result: Result, data: Reference | None) -> str:
    metadata, cube = result.metadata, result.provenance["cube"]
    modality = f"{metadata['modality']} " if metadata.get("modality") else ""
    name = f"“{metadata['title']}” " if metadata.get("title") else ""
    cited = "" if data is None or metadata.get("title") else f"“{data.short}” "
    where = [
        f"{text} {metadata[key]:g} {unit}"
        for key, text, unit in (
            ("beam_energy_keV", "a beam energy of", "keV"),
            ("dwell_time_s", "a dwell time of", "s a pixel"),
            ("live_time_s", "a live time of", "s"),
        )
        if isinstance(metadata.get(key), int | float)
    ]
    taken = f", recorded with {_listing(where)}" if where else ""
    units = "" if cube["units"] in ("1", None) else f" in {cube['units']}"
    return (
        f"The {modality}data set {name or cited}holds {_extent(result)} as {cube['dtype']}{units}{taken}; "
        f"the content of the whole cube has the digest {result.provenance['input']['digest']}."
    )


def _extent(result: Result) -> str:
    cube = result.provenance["cube"]
    spectrum = result["input"]["sum_spectrum"]
    sig = [str(dim) for dim in spectrum.dims]
    sizes = dict(zip(cube["dims"], cube["shape"], strict=True))
    nav = [dim for dim in cube["dims"] if dim not in sig]
    pixels = " x ".join(f"{sizes[dim]:,} ({dim})" for dim in nav) or "1"
    channels = " x ".join(f"{sizes[dim]:,}" for dim in sig)
    axes = [text for dim in sig if (text := _axis(spectrum, dim))]
    return f"{pixels} pixels of {channels} channels" + (f" ({'; '.join(axes)})" if axes else "")


def _axis(spectrum: xr.DataArray, dim: str) -> str:
    if dim not in spectrum.coords or spectrum.coords[dim].dtype.kind not in "iuf":
        return ""
    values = np.asarray(spectrum.coords[dim].values)
    units = spectrum.coords[dim].attrs.get("units", "1")
    return (
        f"{dim} from {values[0]:.5g} to {values[-1]:.5g}{'' if units == '1' else ' ' + str(units)}"
    )


# ------------------------------------------------------------------------------------------- the steps


def _preparation(recipe: Mapping[str, Any]) -> Iterator[str]:
    done = [_prepared(verb, given) for one in recipe["prepare"] for verb, given in one.items()]
    if done:
        yield f"Before the analysis {_listing(done)}."
    where = recipe.get("where")
    if where:
        yield (
            f"Pixels were used whose total counts, smoothed by a Gaussian of {where['sigma']:g} pixels, "
            f"reached {where['min_smoothed_counts']:g}."
        )


def _prepared(verb: str, given: Mapping[str, Any]) -> str:
    dims = {k: v for k, v in given.items() if k not in ("boundary", "region", "outside")}
    ranges = _listing([f"{dim} {v[0]:g} to {v[1]:g}" for dim, v in dims.items() if _is_pair(v)])
    if verb == "remove_background":
        return f"a power-law background fitted in {ranges} was subtracted"
    if verb == "window":
        return f"channels were kept with {ranges}"
    if verb == "select":
        parts = [f"positions were kept with {ranges} (the last not included)"] if dims else []
        for word, side in (("region", "inside"), ("outside", "outside")):
            if given.get(word) is not None:
                corners = len(given[word])
                parts.append(f"the pixels {side} a polygon of {corners} corners were kept")
        return _listing(parts)
    factors = _listing([f"{factor} along {dim}" for dim, factor in dims.items()])
    return f"neighbours were summed, {factors}"


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def _step_sentences(result: Result, step: str, cite: Mapping[str, str]) -> Iterator[str]:
    attributes = dict(result[step].attrs)
    write = {
        "estimate_n_components": _estimate,
        "survey_n_components": _survey,
        "pca": _pca,
        "nmf": _nmf,
        "mcr": _mcr,
        "bayesian_unmixing": _bayesian_unmixing,
        "ica": _rotated,
        "varimax": _rotated,
        "vca": _endmembers,
        "nfindr": _endmembers,
        "sisal": _endmembers,
        "kmeans": _kmeans,
        "gaussian_mixture": _gaussian_mixture,
        "poisson_mixture": _poisson_mixture,
        "cluster_quality": _cluster_quality,
        "uncertainty": _uncertainty,
        "diagnostics": _diagnostics,
        "phase_fractions": _phase_fractions,
    }[result.verb(step)]
    yield write(result, step, attributes, cite)


def _estimate(result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]) -> str:
    number = found.get("n_components")
    method = str(found.get("method"))
    by = f"{method}{cite.get('Landa2022', '') if method == 'biwhitening' else ''}"
    if number is None:
        return f"The number of components was not named by {by}: {found.get('reason')}."
    margin = found.get("margin") or {}
    above = margin.get("above")
    text = f"The number of components was estimated as {number} by {by}"
    if isinstance(above, int | float) and math.isfinite(above):
        text += f", the last one {above:.1f} % above the largest value that noise gives"
    return text + "."


def _survey(result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]) -> str:
    number, reason = found.get("n_components"), found.get("reason")
    told = "no number was named" if number is None else f"{number} were recommended"
    return (
        "The number of components was asked of singular values after "
        f"biwhitening{cite.get('Landa2022', '')}, "
        f"of held-out counts{cite.get('Neufeld2024', '')}, of halves of the counts and of fits from random "
        f"starts: {told} ({reason})."
    )


def _pca(result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]) -> str:
    n = result[step].sizes["component"]
    poisson = found.get("noise") == "poisson"
    weights = f" weighted for Poisson noise{cite.get('Keenan2004', '')}" if poisson else ""
    solver = (
        f"a randomised solver{cite.get('Halko2011', '')}"
        if found.get("solver") == "randomized"
        else "the exact Gram matrix"
    )
    return f"Principal component analysis{weights} gave {_count(n, 'component')}, from {solver}."


def _nmf(result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]) -> str:
    given = found.get("parameters") or {}
    n = result[step].sizes["component"]
    loss = _LOSSES.get(str(given.get("beta_loss")), str(given.get("beta_loss")))
    volume = (
        f" with a minimum-volume term of weight {given['volume']:g}{cite.get('Leplat2020', '')}"
        if given.get("volume")
        else ""
    )
    passes = _count(int(found.get("n_iter", 0)), "pass", "passes")
    end = "until it converged, in" if found.get("converged") else "not to convergence, in"
    return (
        f"Non-negative matrix factorisation{cite.get('Lee2001', '')} into "
        f"{_count(n, 'component')}{_given(result, step)} minimised "
        f"{loss}{volume}, {end} {passes}{_seed(found)}."
    )


def _given(result: Result, step: str) -> str:
    """Which spectra the step was given, in half a sentence."""
    node = result[step]
    named = [
        Path(str(one["path"]).rstrip("/")).name
        for one in result.provenance.get("spectra") or ()
        if one.get("step") == step and one.get("parameter") == "known" and one.get("path")
    ]
    parts = []
    if "known" in node:
        of = f" ({_listing(named)})" if named else ""
        n = node["known"].sizes["known_component"]
        parts.append(f"of which {n} {'was' if n == 1 else 'were'} known beforehand{of}")
    if "init" in node:
        parts.append("started from given spectra")
    return f", {', '.join(parts)}," if parts else ""


def _mcr(result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]) -> str:
    given = found.get("parameters") or {}
    n = result[step].sizes["component"]
    asked = {"both": ["non-negativity"], "neither": []}.get(
        str(given.get("nonnegative")), [f"non-negativity of the {given.get('nonnegative')}"]
    )
    asked = [*asked, *(name for name in ("closure", "unimodal") if given.get(name))]
    asked = ["unimodality" if name == "unimodal" else name for name in asked]
    under = f" with {_listing(asked)}" if asked else ""
    poisson = found.get("noise") == "poisson"
    weights = f", weighted for Poisson noise{cite.get('Keenan2004', '')}" if poisson else ""
    end = "until it converged" if found.get("converged") else "not to convergence"
    return (
        f"Multivariate curve resolution by alternating least squares{cite.get('Tauler1995', '')} resolved "
        f"{_count(n, 'component')}{_given(result, step)}{under}{weights}, in "
        f"{_count(int(found.get('n_iter', 0)), 'round')}, {end}"
        f"{_seed(found)}."
    )


def _bayesian_unmixing(
    result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]
) -> str:
    given = found.get("parameters") or {}
    n = result[step].sizes["component"]
    counts = found.get("likelihood") == "gamma-poisson"
    law = (
        f"a gamma-Poisson model{cite.get('Cemgil2009', '')}"
        if counts
        else f"a Gaussian model{cite.get('Dobigeon2009', '')}"
    )
    chains, draws = int(given.get("n_chains", 0)), int(given.get("n_draws", 0))
    met = "had met" if found.get("converged") else "had not met"
    return (
        f"Bayesian unmixing into {_count(n, 'component')} by Gibbs sampling of {law} kept "
        f"{_count(draws, 'draw')} of each of {_count(chains, 'chain')}, which {met} (R-hat"
        f"{cite.get('Vehtari2021', '')} {float(found.get('worst_r_hat', float('nan'))):.2f}); intervals are "
        f"credible intervals of {100.0 * float(found.get('level', 0.0)):g} %{_seed(found)}."
    )


def _rotated(result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]) -> str:
    n = result[step].sizes["component"]
    given = found.get("parameters") or {}
    poisson = found.get("noise") == "poisson"
    weights = f" weighted for Poisson noise{cite.get('Keenan2004', '')}" if poisson else ""
    domain = str(found.get("domain"))
    if result.verb(step) == "varimax":
        how = f"a varimax rotation{cite.get('Kaiser1958', '')} in the {domain} domain"
    else:
        how = (
            f"independent component analysis (FastICA, {given.get('fun')}"
            f"{cite.get('Hyvarinen2000', '')}) in the {domain} domain"
        )
    return (
        f"The {_count(n, 'leading principal component')}{weights} "
        f"{'was' if n == 1 else 'were'} turned by {how}{_seed(found)}."
    )


def _endmembers(
    result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]
) -> str:
    n = result[step].sizes["component"]
    pool = int(found.get("pool", 1))
    of = "pixels" if pool == 1 else f"sums over squares of {pool} x {pool} pixels"
    name, key, how = {
        "vca": (
            "vertex component analysis",
            "Nascimento2005",
            f"{of} that are extreme along random directions",
        ),
        "nfindr": ("N-FINDR", "Winter1999", f"{of} that are the corners of the largest simplex"),
        "sisal": ("SISAL", "Li2015", f"the corners of the smallest simplex around {of}"),
    }[result.verb(step)]
    solved = (
        "by the likelihood of Poisson counts"
        if found.get("loadings_by") == "poisson"
        else f"by fully constrained least squares{cite.get('Heinz2001', '')}"
    )
    return (
        f"{_count(n, 'endmember').capitalize()} {'was' if n == 1 else 'were'} found by {name}"
        f"{cite.get(key, '')} as {how} in the weighted subspace of the signal"
        f"{_seed(found)}; loadings were solved {solved}."
    )


def _kmeans(result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]) -> str:
    n = result[step].sizes["cluster"]
    on = found.get("on")
    what = {
        "profiles": f"pixels' profiles in a subspace weighted for Poisson noise{cite.get('Keenan2004', '')}",
        "counts": "pixels' spectra",
    }.get(str(found.get("features")), "pixels")
    of = f"the loadings of {on}" if on else what
    by = f"by k-means{cite.get('Bachem2018', '')}"
    return f"Pixels were grouped into {_count(n, 'cluster')} {by} on {of}{_seed(found)}."


def _gaussian_mixture(
    result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]
) -> str:
    given = found.get("parameters") or {}
    n = result[step].sizes["cluster"]
    on = found.get("on")
    what = {
        "profiles": "pixels' profiles in a subspace weighted for Poisson noise"
        f"{cite.get('Keenan2004', '')}, each with the scatter of its counts{cite.get('Gebru2016', '')}",
        "scores": "pixels' principal component scores",
    }.get(str(found.get("features")), "pixels' spectra")
    of = f"the loadings of {on}" if on else what
    kind = {"full": "full", "diag": "diagonal", "tied": "tied"}[str(given.get("covariance_type"))]
    return (
        f"A mixture of {_count(n, 'Gaussian cluster')} with {kind} covariances was fitted to {of} by "
        f"expectation and maximisation{cite.get('Dempster1977', '')}, {_end(found)}{_seed(found)}."
    )


def _poisson_mixture(
    result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]
) -> str:
    n = result[step].sizes["cluster"]
    return (
        f"A mixture of {_count(n, 'spectrum', 'spectra')} of Poisson counts, with a free brightness of each "
        f"pixel, was fitted by expectation and maximisation{cite.get('Dempster1977', '')}, "
        f"{_end(found)}{_seed(found)}."
    )


def _cluster_quality(
    result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]
) -> str:
    return (
        f"The clusters of {found['of']} were judged on a sample of {found['n_samples']:,} pixels: their mean "
        f"silhouette{cite.get('Rousseeuw1987', '')} is {found['silhouette']:.2f}; models fitted to "
        f"{found['n_repeats']} random halves of the sample agree with them{cite.get('Hennig2007', '')} to an "
        f"adjusted Rand index of {found['agreement']:.2f}{_seed(found)}."
    )


def _end(found: Mapping[str, Any]) -> str:
    passes = _count(int(found.get("n_iter", 0)), "pass", "passes")
    return (
        f"{'until it converged' if found.get('converged') else 'not to convergence'}, in {passes}"
    )


_SURE = {
    "fisher": "the Fisher information of the data",
    "bootstrap": "a bootstrap of {n} replicates{efron}",
    "thinning": "fits to independent halves of the counts ({n} fits)",
    "area": "a bootstrap of {n} replicates over areas of the field of view{efron}",
    "restarts": "{n} fits from random starts",
}


def _uncertainty(
    result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]
) -> str:
    by = _SURE[str(found.get("method"))].format(
        n=found.get("n_replicates"), efron=cite.get("Efron1979", "")
    )
    return (
        f"Intervals of {100.0 * float(found['level']):g} % for the components and loadings of "
        f"{found['on']} come "
        f"from {by}; factorisations that describe the data as well were searched for as in MCR-BANDS"
        f"{cite.get('Tauler2001', '')} and are reported as ranges of their own."
    )


def _diagnostics(
    result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]
) -> str:
    return (
        f"What {found['on']} leaves of the data was held against counting noise: chi-square per "
        "degree of freedom is "
        f"{float(found['chi_square_mean']):.3f} on average over the pixels."
    )


def _phase_fractions(
    result: Result, step: str, found: Mapping[str, Any], cite: Mapping[str, str]
) -> str:
    n = result[step].sizes["field"]
    return (
        f"Fractions of the phases of {found['of']} were measured in {_count(n, 'field')} of view; counts "
        f"were drawn anew {found['parameters']['n_draws']} times to tell what counting noise does, and tiles "
        f"of each field what its finite area does{cite.get('Flyvbjerg1989', '')}, at a level of "
        f"{100.0 * float(found['level']):g} %."
    )


def _seed(found: Mapping[str, Any]) -> str:
    return f" (seed {found['seed']})" if found.get("seed") is not None else ""


def _identity(result: Result, version: str) -> Iterator[str]:
    stack = result.provenance.get("stack") or {}
    libraries = stack.get("libraries") or {}
    named = [f"{n} {libraries[n]}" for n in ("numpy", "scipy", "numba", "dask") if n in libraries]
    yield (
        f"Calculations ran on Python {stack.get('python', '?')} with {_listing(named)}."
        if named
        else f"Calculations ran on Python {stack.get('python', '?')}."
    )
    yield (
        f"The run has the identity {result.run_id}; its recipe, its result, the versions of all libraries "
        f"and the digests of all files ({MANIFEST}) are in the published package, which "
        f"`emcube reproduce` runs again and compares."
    )


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _listing(parts: Iterable[str]) -> str:
    given = list(parts)
    if len(given) < 2:
        return "".join(given)
    return f"{', '.join(given[:-1])} and {given[-1]}"
