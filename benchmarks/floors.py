"""What stands between us and the targets that were not reached: ``python -m benchmarks.floors [STORE]``.

Each step that an answer cannot do without is timed by itself on the full jadeite map, with nothing around
it: reading, rows of counts, the Gram matrix of resident rows, its eigenproblem, products with components,
the assignment of k-means, imports, and the memory of a process that has imported what it stands on. A floor
is the sum of such steps, on all cores, without scheduling, sampling, further passes or results. Beside it
stands what a target asks for: the peer's time in benchmarks/results/full.json over the factor that was set.
Where the floor is higher, no order of these steps reaches the target; where it is lower, ours may.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bare import read_pass_apart
from benchmarks.clock import load, machine
from benchmarks.environments import ROOT
from benchmarks.startup import COMMANDS

RESULTS = ROOT / "benchmarks" / "results" / "floors.json"
FULL = ROOT / "benchmarks" / "results" / "full.json"

STEPS = {
    "read": "bare read: every chunk read and decoded by zarr-python, in a process of its own",
    "rows": "every chunk read and decoded by emcube, and rows of counts made of them",
    "gram": "Gram matrix of resident rows",
    "eigenvectors": "all eigenvalues and eigenvectors of it",
    "eigenvalues": "all eigenvalues of it, 20 eigenvectors",
    "scores": "products of resident rows with 20 components",
    "assign": "one pass of k-means over resident rows",
    "imports": "a process that imports xarray, zarr, dask, scikit-learn's base, numba, pydantic, typer",
}
"""Steps, by name."""

TARGETS: tuple[tuple[str, str, float, tuple[str, ...]], ...] = (
    (
        "weighted PCA, all components",
        "jadeite/sklearn-pca-covariance",
        4.0,
        ("rows", "gram", "eigenvectors"),
    ),
    (
        "weighted PCA, all eigenvalues and 20 components",
        "jadeite/sklearn-pca-covariance",
        4.0,
        ("rows", "gram", "eigenvalues"),
    ),
    (
        "weighted PCA, all eigenvalues and 20 components",
        "jadeite/sklearn-pca-incremental",
        50.0,
        ("rows", "gram", "eigenvalues"),
    ),
    (
        "weighted PCA, 20 components with their loadings",
        "jadeite/hyperspy-lazy-svd-incremental",
        50.0,
        ("rows", "gram", "eigenvalues", "scores"),
    ),
    ("k-means on raw counts", "jadeite/sklearn-kmeans-sparse", 20.0, ("rows", "assign")),
    ("k-means on raw counts", "jadeite/sklearn-kmeans", 20.0, ("rows", "assign")),
    ("k-means on raw counts", "jadeite/dask-ml-kmeans", 50.0, ("rows", "assign")),
    (
        "k-means on profiles",
        "jadeite/sklearn-kmeans-profiles-restarts",
        20.0,
        ("rows", "gram", "assign"),
    ),
)
"""What was set: the work, the peer's row, how many times faster, and the steps of the floor."""

N_COMPONENTS = 20


def _median(repeat: int, function: Callable[[], Any]) -> float:
    taken = []
    for _ in range(repeat):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def steps(store: Path, *, threads: int, repeat: int) -> dict[str, float]:
    """Seconds of each step, the median of some."""
    from scipy.linalg import eigh

    import emcube as em
    from emcube.engine import use_threads
    from emcube.engine.threads import single_threaded_blas
    from emcube.kernels.eigen import leading_eigen
    from emcube.kernels.gram import add_symmetric, add_upper, weighted_gram
    from emcube.kernels.kmeans import assign
    from emcube.kernels.poisson_nmf import as_rows
    from emcube.kernels.products import pixel_products
    from emcube.models.labels import as_source

    found = {"read": statistics.median(read_pass_apart(store, threads) for _ in range(repeat))}
    with use_threads(threads), single_threaded_blas(), ThreadPoolExecutor(threads) as pool:
        source, _ = as_source(em.open(store))
        blocks = range(source.plan.n_blocks)
        found["rows"] = _median(repeat, lambda: list(pool.map(_kept_nothing(source), blocks)))
        rows = [as_rows(source.load(i).data) for i in blocks]
        totals = [np.asarray(one.pixel_totals(), dtype=np.float64) for one in rows]
        weights = [1.0 / np.maximum(one, 1.0) for one in totals]

        def gram() -> NDArray[np.float64]:
            parts = pool.map(weighted_gram, rows, weights)
            whole = next(parts)
            for part in parts:
                whole = add_upper(whole, part)
            return add_symmetric(whole)

        matrix = gram()
        found["gram"] = _median(repeat, gram)
        found["eigenvectors"] = _median(repeat, lambda: eigh(matrix, driver="evd"))
        _, wanted = leading_eigen(matrix, N_COMPONENTS)
        found["eigenvalues"] = _median(repeat, lambda: leading_eigen(matrix, N_COMPONENTS))
        found["scores"] = _median(
            repeat, lambda: list(pool.map(lambda one: pixel_products(one, wanted), rows))
        )
        centers = rows[0].take(np.arange(4)).to_dense()
        found["assign"] = _median(
            repeat, lambda: list(pool.map(lambda one: assign(one, centers), rows))
        )
    return {name: round(seconds, 4) for name, seconds in found.items()}


def _kept_nothing(source: Any) -> Callable[[int], None]:
    def run(index: int) -> None:
        source.load(index)

    return run


def starting(repeat: int) -> tuple[float, int]:
    """Seconds of a process that imports what a run stands on, and its resident memory in bytes."""
    words = COMMANDS["import what a run stands on"][1]
    tell = "from benchmarks.clock import peak_bytes; print(peak_bytes())"
    taken, memory = [], 0
    for i in range(repeat + 1):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", f"{words}\n{tell}"],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        if i:  # the first one fills the disk cache
            taken.append(time.perf_counter() - began)
        memory = int(done.stdout)
    return round(statistics.median(taken), 3), memory


def measure(
    store: Path, full: dict[str, Any], *, threads: int = 2, repeat: int = 5
) -> dict[str, Any]:
    """Time the steps, and hold sums of them beside what the targets ask for.

    Parameters
    ----------
    store : Path
        The full jadeite map, as `make bench-full` makes it.
    full : dict
        Of `benchmarks/results/full.json`: times of the peers.
    """
    found = steps(store, threads=threads, repeat=repeat)
    found["imports"], memory = starting(repeat)
    return {
        "measured": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine(),
        "load": load(),
        "threads": threads,
        "steps": found,
        "memory_of_imports": memory,
    } | beside(found, full)


def beside(found: dict[str, float], full: dict[str, Any]) -> dict[str, Any]:
    """Floors of the targets, and the memory of peers on a sparse matrix."""
    rows = []
    for work, peer, factor, needed in TARGETS:
        one = full["methods"].get(peer)
        if one is None or "seconds" not in one:
            continue
        floor = sum(found[name] for name in needed)
        rows.append(
            {
                "work": work,
                "peer": peer.split("/")[1],
                "peer_seconds": one["seconds"],
                "factor": factor,
                "asked_seconds": round(one["seconds"] / factor, 3),
                "floor_seconds": round(floor, 3),
                "at_most": round(one["seconds"] / floor, 1),
                "steps": list(needed),
            }
        )
    small = {
        name: one["peak_bytes"]
        for name, one in full["methods"].items()
        if name.startswith("jadeite/") and "sparse" in name and "peak_bytes" in one
    }
    return {"targets": rows, "memory_of_peers": small}


def markdown(found: dict[str, Any]) -> str:
    """Both tables."""
    steps = "\n".join(f"| {words} | {found['steps'][name]:.2f} |" for name, words in STEPS.items())
    targets = "\n".join(
        f"| {one['work']} | {one['peer']} | {one['peer_seconds']:.2f} s | {one['factor']:g} "
        f"| {one['asked_seconds']:.2f} s | {one['floor_seconds']:.2f} s | {one['at_most']:g} times "
        f"| {', '.join(one['steps'])} |"
        for one in found["targets"]
    )
    peers = [size / 1e9 for size in found["memory_of_peers"].values()]
    return (
        "# What stands between us and the targets\n\n"
        f"Each step by itself on the full jadeite map, {found['threads']} threads, {found['measured']}, load "
        f"{found['load']} (`python -m benchmarks.floors`).\n\n"
        f"| step | seconds |\n|---|---:|\n{steps}\n\n"
        "A floor is the sum of the steps that no answer can do without, and nothing else: no scheduling, no "
        "sampling, no second pass, no result. Where it lies above what is asked for, faster steps are "
        "needed, not a better order of them.\n\n"
        "| work | peer | takes | times faster | asks for | floor | at most | steps |\n"
        f"|---|---|---:|---:|---:|---:|---:|---|\n{targets}\n\n"
        "Memory: a process that has imported what a run stands on holds "
        f"{found['memory_of_imports'] / 1e9:.2f} GB. Peers on a sparse matrix "
        f"take {min(peers):.2f} to {max(peers):.2f} GB at their peak.\n\n"
        "Start-up: a run of a whole recipe on a tiny cube may take 4 s; those imports alone take "
        f"{found['steps']['imports']:.2f} s.\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floors", description=__doc__)
    parser.add_argument(
        "store", type=Path, nargs="?", default=ROOT / ".bench" / "jadeite-1" / "counts.zarr"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--full", type=Path, default=FULL)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--remembered", action="store_true", help="measure nothing: targets beside the steps there"
    )
    wanted = parser.parse_args(arguments)
    full = json.loads(wanted.full.read_text())
    if wanted.remembered:
        found = json.loads(wanted.results.read_text())
        found |= beside(found["steps"], full)
    else:
        found = measure(wanted.store, full, threads=wanted.threads, repeat=wanted.repeat)
    wanted.results.write_text(json.dumps(found, indent=1) + "\n")
    wanted.results.with_suffix(".md").write_text(markdown(found))
    print(markdown(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
