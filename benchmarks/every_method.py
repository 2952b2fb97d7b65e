"""What each way of unmixing costs and finds: ``python -m benchmarks.every_method [VERB]``.

``run`` (the default) measures every method on the jadeite map, each in a process of its own: seconds, bare
read passes of the same store (see `benchmarks.bare`) that they are worth, peak memory, and how good the
answer is. Figures go to benchmarks/results/methods.json and .md; ``table`` writes the table from figures that
are there. ``one`` is the measuring process.

Each fit starts from opening the store, with warm kernels; what it costs is its own time over the median of
bare read passes made before, between and after the fits.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.bare import read_pass
from benchmarks.child import BEGIN, END
from benchmarks.clock import load, machine, peak_bytes
from benchmarks.environments import ROOT
from benchmarks.methods import SCENES, WARM_SCALE
from benchmarks.readme import write_table
from benchmarks.runner import ChildFailed, measured_child

RESULTS = Path(__file__).parent / "results" / "methods.json"
PAGE = ROOT / "docs" / "comparison.md"
BEGIN_TABLE = "<!-- methods: written by `python -m benchmarks.every_method table` -->"
END_TABLE = "<!-- end of methods -->"

MOST = 20.0
"""Bare read passes that a fit may cost."""

MOST_SAMPLING = 200.0
"""The same of methods that draw from a posterior."""

MOST_FITS = 10.0
"""Fits that uncertainty with 20 bootstrap replicates may cost."""

Lap = Callable[[str], None]
Answer = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """A method, how it is run, and what it may cost.

    Attributes
    ----------
    work : callable
        ``work(cube, k, lap)`` calls ``lap`` with the name of each part that it has done, the fit first,
        and returns components or labels to be judged, or anything to be told.
    most : float or None
        Bare read passes that the fit may cost.
    """

    name: str
    title: str
    work: Callable[[Any, int, Lap], Answer]
    most: float | None = MOST


# --------------------------------------------------------------------------------------- what is run


def factorise(make: Callable[[Any, int], Any]) -> Callable[[Any, int, Lap], Answer]:
    """Fit, then solve the loadings of all pixels."""

    def work(cube: Any, k: int, lap: Lap) -> Answer:
        import emcube as em

        model = make(em, k).fit(cube)
        lap("fit")
        maps = model.transform(cube).astype("float32").compute()
        lap("pixels")
        assert maps.shape == (*cube.shape[:-1], k)
        return {"components": np.nan_to_num(np.asarray(model.components_)), "model": repr(model)}

    return work


def cluster(make: Callable[[Any, int], Any]) -> Callable[[Any, int, Lap], Answer]:
    """Find the clusters, then label all pixels."""

    def work(cube: Any, k: int, lap: Lap) -> Answer:
        import emcube as em

        model = make(em, k)
        model.find_clusters(cube)
        lap("fit")
        labels = np.asarray(model.predict(cube))
        lap("pixels")
        return {"labels": labels, "model": repr(model)}

    return work


def _quality(cube: Any, k: int, lap: Lap) -> Answer:
    import emcube as em

    model = em.KMeans(k, random_state=0)
    model.find_clusters(cube)
    em.cluster_quality(model, cube)
    lap("fit")
    return {"model": f"cluster_quality({model!r}, cube)"}


def _uncertainty(cube: Any, k: int, lap: Lap) -> Answer:
    import emcube as em

    began = time.perf_counter()
    model = em.MiniBatchNMF(k, random_state=0).fit(cube)
    fit = time.perf_counter() - began
    lap("nmf")
    found = em.uncertainty(model, cube, n_replicates=20)
    found.components_std.load()
    lap("fit")
    found.loadings_std_counting.astype("float32").compute()
    lap("pixels")
    return {"nmf_seconds": fit, "model": "uncertainty(nmf, cube, n_replicates=20)"}


def _diagnostics(cube: Any, k: int, lap: Lap) -> Answer:
    import emcube as em

    model = em.MiniBatchNMF(k, random_state=0).fit(cube)
    lap("nmf")
    found = em.diagnostics(model, cube)
    lap("fit")
    found.chi_square.astype("float32").compute()
    lap("pixels")
    return {"model": "diagnostics(nmf, cube)"}


def _estimate(cube: Any, k: int, lap: Lap) -> Answer:
    import emcube as em

    found = em.estimate_n_components(cube)
    lap("fit")
    return {"n_components": found.n_components, "model": "estimate_n_components(cube)"}


def _survey(cube: Any, k: int, lap: Lap) -> Answer:
    import emcube as em

    found = em.survey_n_components(cube)
    lap("fit")
    return {"n_components": found.n_components, "model": "survey_n_components(cube)"}


WAYS = (
    Way("pca", "`IncrementalPCA`", factorise(lambda em, k: em.IncrementalPCA(k))),
    Way(
        "ica",
        "`FastICA`, spectra independent",
        factorise(lambda em, k: em.FastICA(k, random_state=0)),
    ),
    Way(
        "ica-spatial",
        "`FastICA`, maps independent",
        factorise(lambda em, k: em.FastICA(k, domain="spatial", random_state=0)),
    ),
    Way("varimax", "`Varimax`", factorise(lambda em, k: em.Varimax(k, random_state=0))),
    Way("nmf", "`MiniBatchNMF`", factorise(lambda em, k: em.MiniBatchNMF(k, random_state=0))),
    Way("mcr", "`MCRALS`", factorise(lambda em, k: em.MCRALS(k, random_state=0))),
    Way(
        "mcr-closed",
        "`MCRALS(closure=True)`",
        factorise(lambda em, k: em.MCRALS(k, closure=True, random_state=0)),
    ),
    Way("vca", "`VCA`", factorise(lambda em, k: em.VCA(k, random_state=0))),
    Way("nfindr", "`NFINDR`", factorise(lambda em, k: em.NFINDR(k, random_state=0))),
    Way("sisal", "`SISAL`", factorise(lambda em, k: em.SISAL(k, random_state=0))),
    Way(
        "bayesian",
        "`BayesianUnmixing`",
        factorise(lambda em, k: em.BayesianUnmixing(k, random_state=0)),
        most=MOST_SAMPLING,
    ),
    Way("kmeans", "`KMeans`", cluster(lambda em, k: em.KMeans(k, random_state=0))),
    Way(
        "gaussian-mixture",
        "`GaussianMixture`",
        cluster(lambda em, k: em.GaussianMixture(k, random_state=0)),
    ),
    Way(
        "poisson-mixture",
        "`PoissonMixture`",
        cluster(lambda em, k: em.PoissonMixture(k, random_state=0)),
    ),
    Way("cluster-quality", "`KMeans` and `cluster_quality`", _quality),
    Way("estimate", "`estimate_n_components`", _estimate),
    Way("survey", "`survey_n_components`", _survey, most=None),
    Way("uncertainty", "`uncertainty`, 20 bootstrap replicates", _uncertainty, most=None),
    Way("diagnostics", "`diagnostics`", _diagnostics),
)
"""Add a method here."""

BY_NAME = {way.name: way for way in WAYS}


# ------------------------------------------------------------------------------------------- measuring


def one(way: Way, scene: Path, warm: Path, *, threads: int, repeats: int) -> dict[str, Any]:
    """Measure one method in this process.

    Parameters
    ----------
    scene, warm : Path
        Folders as `benchmarks.data` makes them; on the second everything is compiled and loaded first.
    """
    import emcube as em
    from emcube.engine import use_threads

    store = scene / "counts.zarr"
    k = int(json.loads((scene / "scene.json").read_text())["n_components"])
    laps: list[dict[str, float]] = []
    bare: list[float] = []
    answer: Answer = {}
    with use_threads(threads):
        way.work(em.open(str(warm / "counts.zarr")), k, lambda name: None)
        for _ in range(repeats):
            bare.append(read_pass(store, threads))
            print(BEGIN, flush=True)
            took: dict[str, float] = {}
            clock = [time.perf_counter()]

            def lap(name: str, took: dict[str, float] = took, clock: list[float] = clock) -> None:
                clock.append(time.perf_counter())
                took[name] = clock[-1] - clock[-2]

            answer = way.work(em.open(str(store)), k, lap)
            print(END, flush=True)
            laps.append(took)
        bare.append(read_pass(store, threads))
    seconds = {name: statistics.median(took[name] for took in laps) for name in laps[0]}
    unit = statistics.median(bare)
    return {
        "seconds": {name: round(value, 6) for name, value in seconds.items()},
        "fits": [round(took["fit"], 3) for took in laps],
        "bare_reads": [round(value, 6) for value in bare],
        "passes": round(seconds["fit"] / unit, 3),
        "passes_with_pixels": round((seconds["fit"] + seconds.get("pixels", 0.0)) / unit, 3),
        "peak_bytes": peak_bytes(),
        "model": answer["model"],
        **judged(answer, scene),
    }


def judged(answer: Answer, scene: Path) -> dict[str, Any]:
    """How good an answer is, by the truth of the scene."""
    found: dict[str, Any] = {}
    if "components" in answer:
        import emcube as em
        from emcube.scenes.metrics import match_components

        mean = np.asarray(em.open(str(scene / "counts.zarr")).em.sum_spectrum())
        _, angles = match_components(answer["components"], np.load(scene / "truth.npy"), mean)
        found["angles_deg"] = [round(float(a), 2) for a in angles]
    if "labels" in answer:
        found["rand"] = round(_rand(answer["labels"], scene), 3)
    if "nmf_seconds" in answer:
        found["nmf_seconds"] = round(answer["nmf_seconds"], 3)
    if "n_components" in answer:
        found["n_components"] = answer["n_components"]
    return found


def _rand(labels: Any, scene: Path) -> float:
    """Adjusted Rand index of labels to the phase that most of a pixel is."""
    from sklearn.metrics import adjusted_rand_score

    import emcube as em

    about = json.loads((scene / "scene.json").read_text())
    options = dict(SCENES[about["name"]].options)
    made = getattr(em.scenes, about["name"])(
        scale=about["scale"], random_state=about["random_state"], **options
    )
    phase = np.asarray(made.loadings).argmax(axis=-1)
    used = labels >= 0
    return float(adjusted_rand_score(phase[used], labels[used]))


def run(
    folder: Path,
    results: Path,
    *,
    scale: float = 1.0,
    only: tuple[str, ...] = (),
    threads: int = 2,
    repeats: int = 3,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure the methods, each in a process of its own; figures are kept as they come in.

    Parameters
    ----------
    folder : Path
        Scenes are made in it once, and kept.
    results : Path
        Figures of other methods that are there stay.
    scale : float
        Share of the full map's pixels.
    only : tuple of str
        Names of methods; default all.
    """
    scene, warm = (folder.absolute() / f"jadeite-{s:g}" for s in (scale, min(scale, WARM_SCALE)))
    for place, size in ((warm, min(scale, WARM_SCALE)), (scene, scale)):
        about = data.make(place, "jadeite", size, full=False)
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    found = {
        **found,
        "scene": about,
        "machine": machine(),
        "options": {"threads": threads, "repeats": repeats},
        "ways": found.get("ways", {}) if found.get("scene") == about else {},
    }
    for way in WAYS:
        if only and way.name not in only:
            continue
        say(way.name)
        row = {"measured": time.strftime("%Y-%m-%d %H:%M"), "load": load()}
        wanted = [way.name, str(scene), str(warm), str(threads), str(repeats)]
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.every_method", "one", *wanted]
        try:
            row |= measured_child(command, _environment(threads), None)
        except ChildFailed as problem:
            row["failed"] = str(problem)
        found["ways"][way.name] = row
        say(f"  {row.get('passes', row.get('failed'))}")
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _environment(threads: int) -> dict[str, str]:
    n = str(threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        **os.environ,
        **dict.fromkeys((*names, "EMCUBE_THREADS", "NUMBA_NUM_THREADS"), n),
        "PYTHONPATH": str(ROOT),
    }


# ---------------------------------------------------------------------------------------------- table


def table(found: dict[str, Any]) -> str:
    """Write the figures as a table in Markdown, with what was measured below."""
    lines = [
        "| method | fit | bare read passes | with loadings or labels | peak memory | answer |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for way in WAYS:
        row = found["ways"].get(way.name)
        if row is None:
            continue
        cells = [row["failed"], "", "", "", ""] if "failed" in row else _cells(way, row)
        lines.append(f"| {way.title} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _conditions(found)])


def _cells(way: Way, row: dict[str, Any]) -> list[str]:
    missed = way.most is not None and row["passes"] > way.most
    passes = f"{row['passes']:.1f}"
    return [
        f"{row['seconds']['fit']:.1f} s",
        f"**{passes}**" if missed else passes,
        f"{row['passes_with_pixels']:.1f}" if "pixels" in row["seconds"] else "",
        f"{row['peak_bytes'] / 1e9:.2f} GB",
        _answer(row),
    ]


def _answer(row: dict[str, Any]) -> str:
    if "angles_deg" in row:
        angles = row["angles_deg"]
        return f"{max(angles):.1f}° worst, {statistics.median(angles):.1f}° median"
    if "rand" in row:
        return f"adjusted Rand index {row['rand']:.2f}"
    if "nmf_seconds" in row:
        return f"{row['seconds']['fit'] / row['nmf_seconds']:.1f} fits"
    if "n_components" in row:
        return f"{row['n_components']} components"
    return ""


def _conditions(found: dict[str, Any]) -> str:
    about, where, options = found["scene"], found["machine"], found["options"]
    shape = " x ".join(map(str, about["shape"]))
    rows = [r for r in found["ways"].values() if "passes" in r]
    loads = [r["load"] for r in rows if r["load"] is not None]
    busy = f", load {min(loads):g} to {max(loads):g}" if loads else ""
    unit = statistics.median(b for r in rows for b in r["bare_reads"])
    repeats = sorted({len(r["fits"]) for r in rows})
    times = " to ".join(map(str, sorted({repeats[0], repeats[-1]})))
    days = sorted({r["measured"][:10] for r in rows})
    return (
        f"Simulated jadeite map {shape}, {about['counts_per_pixel']:.0f} counts a pixel, "
        f"{about.get('pure_pixels', 0):.0%} of the pixels pure for each of {about['n_components']} phases; "
        f"a bare read pass takes {unit:.2f} s; median of {times}, "
        f"{options['threads']} threads on {where['cores']} cores of {where['processor']}{busy}, {days[-1]}. "
        f"Bold: more than the {MOST:g} passes that a fit may cost. Angles are to the true spectra, weighted "
        "for counting noise; the Rand index is to the phase that most of a pixel is."
    )


def checks(found: dict[str, Any]) -> list[tuple[str, float, float, bool]]:
    """What must hold: what, at most, measured, whether it holds."""
    made = []
    for way in WAYS:
        row = found["ways"].get(way.name, {})
        if way.most is not None and "passes" in row:
            made.append(
                (
                    f"{way.title}: bare read passes",
                    way.most,
                    row["passes"],
                    row["passes"] <= way.most,
                )
            )
        if "nmf_seconds" in row:
            fits = row["seconds"]["fit"] / row["nmf_seconds"]
            made.append((f"{way.title}: fits", MOST_FITS, fits, fits <= MOST_FITS))
    return made


def markdown(found: dict[str, Any]) -> str:
    """Write everything: the table, targets, and how each method was called."""
    lines = ["# Every method on the jadeite map", "", table(found), "", "## Targets", ""]
    lines += ["| what | at most | measured | holds |", "|---|---:|---:|---|"]
    for what, most, value, holds in checks(found):
        lines.append(f"| {what} | {most:g} | {value:.1f} | {'yes' if holds else '**no**'} |")
    lines += ["", "## Calls", ""]
    for way in WAYS:
        row = found["ways"].get(way.name, {})
        if "model" in row:
            parts = ", ".join(f"{name} {value:.2f} s" for name, value in row["seconds"].items())
            lines.append(f"- `{' '.join(row['model'].split())}`: {parts}")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure, or write the table."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["one"]:
        name, scene, warm, threads, repeats = given[1:]
        found = one(
            BY_NAME[name], Path(scene), Path(warm), threads=int(threads), repeats=int(repeats)
        )
        print(json.dumps(found))
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.every_method", description=__doc__)
    parser.add_argument("verb", nargs="?", default="run", choices=["run", "table"])
    parser.add_argument("--only", nargs="+", default=[], choices=list(BY_NAME), metavar="NAME")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full map's pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="keeps the scenes")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", type=Path, help="put the table into this page")
    wanted = parser.parse_args(given)
    if wanted.verb == "run":
        run(
            wanted.folder,
            wanted.results,
            scale=wanted.scale,
            only=tuple(wanted.only),
            threads=wanted.threads,
            repeats=wanted.repeats,
        )
    measured = json.loads(wanted.results.read_text())
    wanted.results.with_suffix(".md").write_text(markdown(measured))
    if wanted.write is not None:
        write_table(wanted.write, table(measured), BEGIN_TABLE, END_TABLE)
    print(table(measured))


if __name__ == "__main__":
    main()
