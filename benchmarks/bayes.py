"""Do Bayesian intervals hold what they promise, and what do they cost?

    python -m benchmarks.bayes coverage [--realisations 200] [--scenes stripes ...] [--counts 60 300]
    python -m benchmarks.bayes speed STORE K

`coverage` draws many realisations of the scenes of `benchmarks.coverage`, samples from the posterior of each
and counts the true values that its intervals hold, by stratum; it writes benchmarks/results/bayes.md. Each
realisation is remembered under .bench/bayes, so that a stopped study goes on where it was; --fresh forgets
them, which is needed where the sampler has changed. `speed` times a
fit with all loadings and intervals beside bare read passes of the same store.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

import emcube as em
from benchmarks.bare import read_pass
from benchmarks.coverage import (
    HEAD,
    LEVEL,
    MET,
    SCENES,
    TUNING,
    Coverage,
    Intervals,
    Truth,
    ends,
    file_name,
    order_of,
    rows,
    study,
)
from benchmarks.environments import ROOT
from emcube.engine import use_threads

RESULTS = ROOT / "benchmarks" / "results" / "bayes.md"
FOLDER = ROOT / ".bench" / "bayes"

COUNTS = (60.0, 300.0)
"""Of a pixel."""

FIRST_SEED = 1000
"""Seeds below were used while the sampler was made, and those from `coverage.TUNING` on."""

MET_HEAD = (
    "| scene | counts a pixel | chains met | realisations | held where they met | where they did not |\n"
    "|---|---|---|---|---|---|"
)


def by_posterior(cube: xr.DataArray, truth: Truth, seed: int, **settings: int) -> Intervals:
    """Credible intervals; where no pixel is pure the ranges of rotations."""
    with use_threads(1):
        model = em.BayesianUnmixing(
            len(truth.components), level=LEVEL, random_state=seed, **settings
        ).fit(cube)
        order = order_of(model.components_, truth)
        if truth.pure:
            return Intervals(
                ends(model.loadings_interval(cube), order),
                ends(model.components_interval_, order),
                met=model.converged_,
            )
        sure = em.uncertainty(model, cube, level=LEVEL, method="posterior", random_state=seed)
        return Intervals(
            loadings_range=ends(sure.loadings_rotation_range, order),
            components_range=ends(sure.rotation_range, order),
            met=model.converged_,
        )


def apart(found: Coverage, *, mine: int) -> str:
    """Shares held of the first stratum and the last one, where chains have met (1) or have not (0)."""
    some = Coverage([one for one in found.tallies if one[MET][0] == mine])
    if not some.tallies:
        return ""
    return " and ".join(f"{100 * some.share(some.strata[i]):.1f}" for i in (0, -1)) + " %"


def run_coverage(options: argparse.Namespace) -> None:
    """Measure, print, write."""
    if options.fresh:
        shutil.rmtree(options.folder, ignore_errors=True)
    seeds = range(options.first_seed, options.first_seed + options.realisations)
    settings = dict(one.split("=") for one in options.set)
    answer = partial(by_posterior, **{key: int(value) for key, value in settings.items()})
    told, met = [HEAD], [MET_HEAD]
    for scene in options.scenes:
        for counts in options.counts:
            name = "-".join([*options.set, file_name(scene, counts)])
            found = study(
                answer,
                scene,
                counts,
                seeds,
                file=options.folder / name,
                jobs=options.jobs,
                known_only=options.remembered,
            )
            if not found.tallies:
                continue
            mine = rows("posterior", scene, counts, found)
            met.append(
                f"| {scene} | {counts:g} | {100 * found.share(MET):.0f} % | {len(found.tallies)} "
                f"| {apart(found, mine=1)} | {apart(found, mine=0)} |"
            )
            print("\n".join([*mine, met[-1]]), flush=True)
            told += mine
    page = (
        f"# Coverage of Bayesian intervals\n\n`BayesianUnmixing`, nominal level {100 * LEVEL:g} %, "
        "`python -m benchmarks.bayes coverage`.\n"
        f"Seeds below {FIRST_SEED} and from {TUNING} on were used while the sampler was made; those of this "
        "table were not. The error is that of the share; values of one realisation share what went wrong "
        "with it.\n\n"
    )
    page += "\n".join(told) + "\n\n## How often the chains met\n\n"
    page += (
        "R-hat of all mixings at most 1.1 (`converged_`); and what intervals held where they had met and "
        "where they had not: interiors of phases and components, of scenes without pure pixels the ranges of "
        "loadings and components.\n\n"
    )
    page += "\n".join(met) + "\n"
    whole = options.scenes == list(SCENES) and options.counts == list(COUNTS) and not options.set
    if whole if options.write is None else options.write:
        RESULTS.write_text(page)
        print(f"wrote {RESULTS}")
    else:
        print(page)


def speed(store: Path, n_components: int, *, threads: int = 2, repeats: int = 1) -> dict[str, Any]:
    """Time fit and answers of all pixels beside bare read passes of the same store."""
    bare, fits, answers = [], [], []
    with use_threads(threads):
        small = em.open(str(store)).isel(y=slice(0, 16), x=slice(0, 16)).compute()
        warm = em.BayesianUnmixing(n_components, n_warmup=1, n_draws=4, pool=2, random_state=0)
        warm.fit(small).loadings_interval(small)
        for _ in range(repeats):
            bare.append(read_pass(store, threads))
            cube = em.open(str(store))
            began = time.perf_counter()
            model = em.BayesianUnmixing(n_components, random_state=0).fit(cube)
            fits.append(time.perf_counter() - began)
            model.loadings_interval(cube).compute()
            answers.append(time.perf_counter() - began - fits[-1])
            bare.append(read_pass(store, threads))
    unit = statistics.median(bare)
    fit, answer = statistics.median(fits), statistics.median(answers)
    return {
        "fit_seconds": round(fit, 1),
        "loadings_seconds": round(answer, 1),
        "bare_read_seconds": round(unit, 3),
        "bare_read_passes": round((fit + answer) / unit, 1),
        "worst_r_hat": round(model.worst_r_hat_, 3),
        "pool": model.pool_,
        "passes": model.n_iter_,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run one of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    which = parser.add_subparsers(dest="which", required=True)
    covering = which.add_parser("coverage")
    covering.add_argument("--realisations", type=int, default=200)
    covering.add_argument("--scenes", nargs="+", default=list(SCENES), choices=list(SCENES))
    covering.add_argument("--counts", nargs="+", type=float, default=list(COUNTS))
    covering.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=N", help="other settings, as n_steps=3"
    )
    covering.add_argument("--first-seed", type=int, default=FIRST_SEED)
    covering.add_argument("--jobs", type=int, default=1, help="processes")
    covering.add_argument("--folder", type=Path, default=FOLDER, help="realisations, remembered")
    covering.add_argument(
        "--remembered", action="store_true", help="compute nothing, write what is there"
    )
    covering.add_argument("--fresh", action="store_true", help="forget what was computed before")
    covering.add_argument(
        "--write",
        action=argparse.BooleanOptionalAction,
        help="the page of results; by default where all scenes and counts are asked for",
    )
    timing = which.add_parser("speed")
    timing.add_argument("store", type=Path)
    timing.add_argument("n_components", type=int)
    timing.add_argument("--threads", type=int, default=2)
    timing.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.which == "coverage":
        run_coverage(options)
    else:
        found = speed(
            options.store, options.n_components, threads=options.threads, repeats=options.repeats
        )
        print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
