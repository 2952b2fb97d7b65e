"""What uncertainty costs: ``python -m benchmarks.uncertainty_cost [STORE K] [--scale 0.05]``.

Each method of `emcube.uncertainty` with its default replicates is timed beside one fit, from opening the
store to the components' answers, and from there to the last pixel's (``maps``; of a fit: its loadings), with
warm kernels.
Ratios are those of processor seconds, which other work on the machine disturbs less than wall-clock ones,
which stand beside them; bare read passes of the same store are timed before and after. Without a store the
jadeite scene is made in the given scale. Written to benchmarks/results/uncertainty_cost.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bare import read_pass
from benchmarks.environments import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "uncertainty_cost.json"

METHODS = ("fisher", "bootstrap", "thinning", "area")

MOST_FITS = 10.0
"""Fits that 20 replicates may cost."""

MOST_READS = 20.0
"""Bare read passes that Fisher's method may cost."""


def measure(
    store: Path, n_components: int, *, threads: int = 2, repeats: int = 1
) -> dict[str, Any]:
    """Time a fit and each method.

    Parameters
    ----------
    store : Path
        Of counts, as dense chunks.
    n_components : int
        K.
    threads, repeats : int

    Returns
    -------
    dict
        ``fit`` and each method: processor and wall seconds of the components' answers and of the maps, and
        their ratios to the fit's; and the bare read pass in seconds.
    """
    import emcube as em
    from emcube.engine import use_threads

    def opened() -> Any:
        return em.open(str(store))

    def fit() -> Any:
        return em.MiniBatchNMF(n_components, random_state=0).fit(opened())

    found: dict[str, Any] = {"store": store.name, "n_components": n_components, "threads": threads}
    with use_threads(threads):
        model = fit()
        bare = [read_pass(store, threads)]
        found["fit"] = _timed(fit, lambda m: m.transform(opened()), repeats)
        for method in METHODS:
            em.uncertainty(model, opened(), method=method)  # compiled kernels
            found[method] = _timed(
                lambda method=method: em.uncertainty(model, opened(), method=method),
                _maps,
                repeats,
            )
        bare.append(read_pass(store, threads))
    unit = statistics.median(bare)
    found["bare_read_seconds"] = round(unit, 3)
    for name in ("fit", *METHODS):
        one = found[name]
        one["bare_reads"] = round(one["wall"] / unit, 1)
        one["fits"] = round(one["processor"] / found["fit"]["processor"], 2)
        whole = one["processor"] + one["maps_processor"]
        base = found["fit"]["processor"] + found["fit"]["maps_processor"]
        one["fits_with_maps"] = round(whole / base, 2)
    return found


def _maps(sure: Any) -> Any:
    names = [n for n in sure.data_vars if "loadings" in n]
    return sure[names].mean()


def _timed(answer: Callable[[], Any], maps: Callable[[Any], Any], repeats: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {}
    for _ in range(repeats):
        clock = _Clock(taken)
        with clock("processor", "wall"):
            made = answer()
        with clock("maps_processor", "maps_wall"):
            maps(made).compute()
    return {name: round(statistics.median(values), 3) for name, values in taken.items()}


class _Clock:
    """Processor and wall seconds of a block of code, added to lists."""

    def __init__(self, taken: dict[str, list[float]]) -> None:
        self.taken, self.names, self.began = taken, ("", ""), (0.0, 0.0)

    def __call__(self, *names: str) -> _Clock:
        self.names = (names[0], names[1])
        return self

    def __enter__(self) -> None:
        self.began = time.process_time(), time.perf_counter()

    def __exit__(self, *error: object) -> None:
        ended = time.process_time(), time.perf_counter()
        for name, a, b in zip(self.names, self.began, ended, strict=True):
            self.taken.setdefault(name, []).append(b - a)


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; 1 where a limit is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("n_components", type=int, nargs="?", default=5)
    parser.add_argument("--scale", type=float, default=0.05, help="of the jadeite scene")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        store = given.store or _scene(Path(folder) / "jadeite.zarr", given.scale)
        found = measure(store, given.n_components, threads=given.threads, repeats=given.repeats)
    if given.store is None:
        found["scale"] = given.scale
    text = json.dumps(found, indent=1)
    given.results.write_text(text + "\n")
    print(text)
    kept = found["bootstrap"]["fits"] <= MOST_FITS and found["fisher"]["bare_reads"] <= MOST_READS
    return 0 if kept else 1


def _scene(place: Path, scale: float) -> Path:
    import emcube as em

    em.ingest(em.scenes.jadeite(scale=scale, random_state=0).cube, place)
    return place


if __name__ == "__main__":
    raise SystemExit(main())
