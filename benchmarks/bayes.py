"""Do Bayesian intervals hold what they promise, and what do they cost?

    python -m benchmarks.bayes coverage [--realisations 200] [--counts 60 300] [--first-seed 1000]
    python -m benchmarks.bayes speed STORE K

`coverage` draws many realisations of the scenes of `benchmarks.calibration`, samples from the posterior of
each and counts the true values that its intervals hold, by stratum; it writes benchmarks/results/bayes.json
and bayes.md. `speed` times a fit with all loadings and intervals beside bare read passes of the same store.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import emcube as em
from benchmarks.bare import read_pass
from benchmarks.calibration import (
    LEVEL,
    TARGETS,
    Coverage,
    Truth,
    inside,
    scene,
    strata,
    widened,
)

RESULTS = Path(__file__).parent / "results"

LIMIT = 200.0
"""Bare read passes that Bayesian unmixing may cost."""

FIRST_SEED = 1000
"""Seeds below were used while the sampler was made."""


def one(truth: Truth, seed: int, found: Coverage, *, pure: bool) -> float:
    """Add one realisation; return the worst R-hat of its fit."""
    cube = truth.draw(np.random.default_rng(seed))
    model = em.BayesianUnmixing(3, level=LEVEL, random_state=seed).fit(cube)
    order, _ = em.scenes.metrics.match_components(
        model.components_.values, truth.components, truth.components.mean(axis=0)
    )
    if pure:
        held = inside(model.loadings_interval(cube).isel(component=order), truth.loadings)
        for name, where in strata(truth).items():
            found.add(name, held, where)
        seen = truth.components * truth.loadings.sum(axis=(0, 1))[:, None] > 5.0
        interval = model.components_interval_.isel(component=order)
        found.add("components", inside(interval, truth.components), seen)
        return model.worst_r_hat_
    sure = em.uncertainty(model, cube, level=LEVEL, method="posterior", random_state=seed)
    sure = sure.isel(component=order)
    wide = widened(
        sure.loadings_rotation_range, sure.loadings_interval, model.transform(cube), order
    )
    found.add("range of loadings", inside(wide, truth.loadings), truth.loadings > 0.0)
    band = widened(sure.rotation_range, sure.components_interval, model.components_, order)
    found.add("range of components", inside(band, truth.components), truth.components > 0.0)
    return model.worst_r_hat_


def coverage(
    seeds: Iterable[int], counts: float, *, pure: bool = True
) -> tuple[Coverage, list[float]]:
    """Coverage over realisations of one scene, and the worst R-hat of each fit."""
    found, truth = Coverage(), scene(counts, pure=pure)
    return found, [one(truth, seed, found, pure=pure) for seed in seeds]


def rows(of: dict[str, Any], found: Coverage) -> list[dict[str, Any]]:
    """A line for each stratum of one scene."""
    lines = []
    for name in found.asked:
        low, high = TARGETS[name]
        share = found.share(name)
        answer = {"held": round(share, 4), "low": low, "high": high, "values": found.asked[name]}
        lines.append({**of, "stratum": name, **answer, "holds": bool(low <= share <= high)})
    return lines


def table(facts: dict[str, Any]) -> str:
    """What was found, in Markdown."""
    lines = [
        "# Coverage of Bayesian intervals",
        "",
        (
            f"`BayesianUnmixing(3)`, nominal level {100 * LEVEL:g} %, scenes of 24 x 24 pixels and 60 "
            f"channels (`python -m benchmarks.bayes coverage`). Seeds below {FIRST_SEED} were used while the "
            "sampler was made; those of this table were not."
        ),
        "",
        "| counts a pixel | stratum | held | must hold | | values | realisations |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['counts']:g} | {row['stratum']} | {100 * row['held']:.1f} % | "
        f"{100 * row['low']:g} to {100 * row['high']:g} % | {'holds' if row['holds'] else 'MISSES'} | "
        f"{row['values']:,} | {row['realisations']} |"
        for row in facts["rows"]
    ]
    lines += [
        "",
        "| counts a pixel | pure pixels | chains that met (R-hat up to 1.1) | median R-hat |",
    ]
    lines += ["|---|---|---|---|"]
    lines += [
        f"| {chain['counts']:g} | {'yes' if chain['pure'] else 'no'} | "
        f"{100 * chain['met']:.0f} % | {chain['median_r_hat']:.3f} |"
        for chain in facts["chains"]
    ]
    return "\n".join(lines) + "\n"


def run_coverage(options: argparse.Namespace) -> None:
    """Measure, print, and keep; scenes that are not asked for now stay as they were found."""
    seeds = range(options.first_seed, options.first_seed + options.realisations)
    place = RESULTS / "bayes.json"
    facts: dict[str, Any] = {"level": LEVEL, "rows": [], "chains": []}
    if options.write and place.exists():
        facts = json.loads(place.read_text())
    for counts in options.counts:
        for pure in (True, False):
            if options.scenes not in ("both", "pure" if pure else "mixed"):
                continue
            began = time.perf_counter()
            found, r_hats = coverage(seeds, counts, pure=pure)
            of = {"counts": counts, "pure": pure, "realisations": len(seeds)}
            of["first_seed"] = options.first_seed
            chains = {
                "met": float(np.mean(np.array(r_hats) <= 1.1)),
                "median_r_hat": round(float(np.median(r_hats)), 4),
            }
            for kind, new in (("rows", rows(of, found)), ("chains", [{**of, **chains}])):
                kept = [r for r in facts[kind] if (r["counts"], r["pure"]) != (counts, pure)]
                facts[kind] = sorted([*kept, *new], key=lambda r: (not r["pure"], r["counts"]))
            print(f"{counts:g}, pure {pure}: {time.perf_counter() - began:.0f} s", flush=True)
            if options.write:
                place.write_text(json.dumps(facts, indent=1) + "\n")
                place.with_suffix(".md").write_text(table(facts))
    print(table(facts))


def speed(store: Path, n_components: int, *, threads: int = 2, repeats: int = 1) -> dict[str, Any]:
    """Time fit and answers of all pixels beside bare read passes of the same store."""
    from emcube.engine import use_threads

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
    covering.add_argument("--counts", nargs="+", type=float, default=[60.0, 300.0])
    covering.add_argument("--scenes", choices=("both", "pure", "mixed"), default="both")
    covering.add_argument("--first-seed", type=int, default=FIRST_SEED)
    covering.add_argument("--write", action=argparse.BooleanOptionalAction, default=True)
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
