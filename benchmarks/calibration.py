"""Do intervals hold what they promise? Many realisations of small scenes, with the truth known.

    python -m benchmarks.calibration [--realisations 200] [--methods fisher bootstrap ...] [--jobs 2]

Writes the share of true values that the intervals of `emcube.uncertainty` hold, by stratum, and where
components are not identifiable the share that the reported range holds, to
benchmarks/results/calibration.md and .json. A
stratum is what a user would ask about: the interior of a phase, mixed pixels, pixels where the truth is zero,
and few counts. Each realisation is remembered under .bench/calibration, so that a stopped study goes on where
it was; --fresh forgets them. Methods were tuned on seeds that are not among those reported.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from benchmarks.coverage import (
    HEAD,
    LEVEL,
    SCENES,
    TARGETS,
    TUNING,
    Answer,
    Coverage,
    Intervals,
    Pair,
    Truth,
    file_name,
    order_of,
    rows,
    study,
)
from benchmarks.environments import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "calibration.json"
FOLDER = ROOT / ".bench" / "calibration"

FIRST = 3000
"""Seeds from here on are reported; of those below some were looked at while rules were made."""

SUITS = {
    "fisher": "components that every pixel helps to fix: many counts, no corner that decides",
    "bootstrap": "all strata",
    "thinning": "all strata; asks nothing of a law but that counts are independent",
    "restarts": "no stratum: whether there are other optima, which intervals do not tell",
}
"""What each method is meant for. Where the truth is not fixed, only the range is meant to hold it."""


def by_uncertainty(method: str, cube: xr.DataArray, truth: Truth, seed: int) -> Intervals:
    """Intervals of `emcube.uncertainty` for Poisson NMF; ranges where no pixel is pure."""
    import emcube as em
    from emcube.engine import use_threads
    from emcube.models.information import fitted_of
    from emcube.models.labels import as_source
    from emcube.models.uncertainties import evaluate

    with use_threads(1):
        nmf = em.MiniBatchNMF(len(truth.components), random_state=0).fit(cube)
        order = order_of(nmf.components_, truth)
        # What em.uncertainty calls; ranges, which cost most here, are left out where they are not judged.
        sure = evaluate(
            fitted_of(nmf, cube), cube, None, level=LEVEL, method=method, n_replicates=None,
            seed=seed, ranges=not truth.pure,
        )  # fmt: skip
        source, _ = as_source(cube)
        pixels = [sure.pixels(source.load(i)) for i in range(source.plan.n_blocks)]

    def maps(name: str) -> Pair:
        """Ends of intervals in the pixels; a small scene is one block."""
        (found,) = [one[name].reshape(*truth.loadings.shape, 2)[:, :, order] for one in pixels]
        return found[..., 0], found[..., 1]

    if truth.pure:
        return Intervals(
            maps("loadings_interval"), (sure.components_low[order], sure.components_high[order])
        )
    return Intervals(
        loadings_range=maps("loadings_rotation_range"),
        components_range=(sure.rotation_low[order], sure.rotation_high[order]),
    )


ANSWERS: dict[str, Answer] = {name: partial(by_uncertainty, name) for name in SUITS}
"""Methods by name."""


def measured(
    methods: list[str],
    scenes: list[str],
    counts: list[float],
    seeds: range,
    *,
    folder: Path = FOLDER,
    jobs: int = 1,
    known_only: bool = False,
) -> list[tuple[str, str, float, Coverage]]:
    """Coverage of each method on each scene at each number of counts."""
    found = []
    for scene in scenes:
        for method in methods:
            for c in counts:
                began = time.perf_counter()
                file = folder / f"{method}-{file_name(scene, c)}"
                one = study(
                    ANSWERS[method], scene, c, seeds, file=file, jobs=jobs, known_only=known_only
                )
                if not one.tallies:
                    continue
                found.append((method, scene, c, one))
                print("\n".join(rows(method, scene, c, one)), flush=True)
                seconds = time.perf_counter() - began
                print(f"{method}, {scene}, {c:g}: {seconds:.0f} s", file=sys.stderr)
    return found


def page(found: list[tuple[str, str, float, Coverage]], n: int) -> str:
    """The table, with what it means."""
    table = "\n".join(row for one in found for row in rows(*one))
    meant = "\n".join(f"- {name}: {words}" for name, words in SUITS.items())
    return (
        f"# Coverage of intervals\n\nNominal level {100 * LEVEL:g} %, up to {n} realisations of each scene "
        "(`python -m benchmarks.calibration`). The error is that of the share; values of one realisation "
        f"share what went wrong with it.\n\nMeant for:\n\n{meant}\n\n{HEAD}\n{table}\n"
    )


def as_json(found: list[tuple[str, str, float, Coverage]], n: int) -> dict[str, Any]:
    """The same, for programs."""
    return {
        "level": LEVEL,
        "most_realisations": n,
        "rows": [
            {
                "method": method,
                "scene": scene,
                "counts": counts,
                "stratum": stratum,
                "held": round(coverage.share(stratum), 4),
                "error": round(coverage.error(stratum), 4),
                "target": TARGETS[stratum],
                "values": coverage.asked(stratum),
                "realisations": len(coverage.tallies),
            }
            for method, scene, counts, coverage in found
            for stratum in coverage.strata
        ],
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--realisations", type=int, default=200)
    parser.add_argument("--methods", nargs="+", default=list(SUITS), choices=list(ANSWERS))
    parser.add_argument("--scenes", nargs="+", default=list(SCENES), choices=list(SCENES))
    parser.add_argument("--counts", nargs="+", type=float, default=[60.0, 300.0])
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--tuning", action="store_true", help="other seeds, and no results written")
    parser.add_argument("--fresh", action="store_true", help="forget what was computed before")
    parser.add_argument(
        "--remembered", action="store_true", help="compute nothing, write what is there"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="realisations, remembered")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    folder = options.folder / "tuning" if options.tuning else options.folder
    if options.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    n = options.realisations
    first = TUNING if options.tuning else FIRST
    seeds = range(first, first + n)
    print(HEAD)
    found = measured(
        options.methods,
        options.scenes,
        options.counts,
        seeds,
        folder=folder,
        jobs=options.jobs,
        known_only=options.remembered,
    )
    if not options.tuning:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(as_json(found, n), indent=1) + "\n")
        options.results.with_suffix(".md").write_text(page(found, n))
        print(f"wrote {options.results.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
