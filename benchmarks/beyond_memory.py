"""A cube that no memory holds, within a budget: ``python -m benchmarks.beyond_memory``.

The SRM 2135c scene with many more pixels: at the default scale 1e11 cells, 100 GB as uint8, written as events
without the cells ever being made. Number of components, PCA, NMF and k-means then run on it as one
recipe with its result written, in a process of its own with a budget of memory, and what the engine
projected is held against what the process needed at its peak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.clock import load, machine

ROOT = Path(__file__).parent.parent
FULL = 75.0
"""Times the pixels of the talk's tilt series, 1.34e9 cells."""

STEPS = [
    {"estimate_n_components": {}},
    {"pca": {"n_components": 4}},
    {"nmf": {"n_components": 3, "random_state": 0}},
    {"kmeans": {"n_clusters": 4, "random_state": 0}},
]

RUN = """
import json, sys, time
import emcube as em
from benchmarks.clock import peak_bytes
from emcube.engine import listen
from emcube.engine.memory import memory_budget
projected, passes = [], []
def hear(event):
    if event.kind == "start":
        projected.append(event.projected_bytes or 0)
    if event.kind == "round" or (event.kind == "end" and event.n_rounds == 1):
        passes.append([event.name, event.resident_blocks, event.n_blocks, round(event.seconds, 1)])
began = time.perf_counter()
with listen(hear):
    result = em.run(json.loads(sys.argv[1]), out=sys.argv[2], overwrite=True)
print(json.dumps({
    "seconds": time.perf_counter() - began,
    "cpu_seconds": time.process_time(),
    "budget_bytes": memory_budget(),
    "projected_bytes": projected[0],
    "largest_projected_bytes": max(projected),
    "peak_bytes": peak_bytes(),
    "passes": passes,
    "steps": {name: node.attrs.get("seconds") for name, node in result.tree.children.items()},
    "n_components": result.tree["estimate_n_components"].attrs["n_components"],
}))
"""

SIMULATE = """
import json, sys, time
import emcube as em
from benchmarks.clock import peak_bytes
began = time.perf_counter()
scene = em.scenes.srm2135c(scale=float(sys.argv[2]), random_state=0)
em.ingest(scene.cube, sys.argv[1], layout="events")
print(json.dumps({"seconds": time.perf_counter() - began, "peak_bytes": peak_bytes()}))
"""

JUDGE = """
import json, sys
import numpy as np
import emcube as em
from emcube.scenes.metrics import match_components
scene = em.scenes.srm2135c(scale=float(sys.argv[2]), random_state=0)
result = em.open_result(sys.argv[1])
totals = np.asarray(result.tree["input"]["sum_spectrum"])
found = np.asarray(result.tree["nmf"]["components"])
_, angles = match_components(found, scene.components.values, totals)
print(json.dumps({"angles_deg": [round(float(a), 3) for a in angles]}))
"""


def measure(
    scale: float = FULL,
    folder: Path | None = None,
    budget: str = "2GiB",
    steps: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Simulate, run within the budget, and compare with the projection and with the truth.

    Parameters
    ----------
    scale : float
        Times the pixels of the full tilt series.
    folder : Path, optional
        Keeps the store (used again where it is there) and the result; default a temporary one.
    budget : str
        ``EMCUBE_MEMORY`` of the run.
    steps : list of dict, optional
        Steps of the recipe; default `STEPS`.
    """
    with tempfile.TemporaryDirectory(prefix="emcube-beyond-") as scratch:
        place = Path(scratch if folder is None else folder).absolute()
        place.mkdir(parents=True, exist_ok=True)
        store, result = place / f"srm2135c-{scale:g}.zarr", place / f"result-{scale:g}"
        simulated = None
        if not store.exists():
            simulated = _child(SIMULATE, str(store), str(scale))
        import emcube as em

        shape = em.open(store).shape
        before = load()
        recipe = {"emcube": 1, "input": {"path": str(store)}, "steps": steps or STEPS}
        run = _child(RUN, json.dumps(recipe), str(result), EMCUBE_MEMORY=budget)
        judged = _child(JUDGE, str(result), str(scale))
        on_disk = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
    cells = 1
    for n in shape:
        cells *= n
    return {
        "shape": list(shape),
        "cells": cells,
        "store_bytes": on_disk,
        "simulate": simulated,
        **run,
        **judged,
        "projected_over_peak": round(run["projected_bytes"] / run["peak_bytes"], 3),
        "load_before": before,
        "machine": machine(),
    }


def markdown(found: dict[str, Any]) -> str:
    """Write what `measure` returned as Markdown."""
    rows = {
        "cells": f"{found['cells']:.3g} ({' x '.join(map(str, found['shape']))})",
        "as uint8, and on disk": (
            f"{found['cells'] / 1e9:.1f} GB, {found['store_bytes'] / 1e9:.2f} GB as events"
        ),
        "budget of memory": f"{found['budget_bytes'] / 2**30:.2f} GiB",
        "projected, and largest memory of the process": (
            f"{found['projected_bytes'] / 2**30:.2f} and {found['peak_bytes'] / 2**30:.2f} GiB "
            f"({found['projected_over_peak']:.2f})"
        ),
        "blocks that stayed in memory": "{} of {}".format(*_stayed(found)),
        "passes over the blocks": str(len(found["passes"])),
        "time, all cores": f"{found['seconds']:.0f} s, {found['cpu_seconds']:.0f} s",
        "steps": ", ".join(
            f"{name} {seconds:.0f} s" for name, seconds in found["steps"].items() if seconds
        ),
        "components": (
            f"{found['n_components']} found; angles to the true ones "
            f"{', '.join(f'{a:.2f}' for a in found['angles_deg'])} degrees"
        ),
    }
    return "\n".join(
        [
            "| beyond memory | |",
            "|---|---|",
            *(f"| {what} | {value} |" for what, value in rows.items()),
        ]
    )


def _stayed(found: dict[str, Any]) -> tuple[int, int]:
    """Blocks of the cube that stayed after its first pass, of how many."""
    _, stayed, n_blocks, _ = next(p for p in found["passes"] if p[1] is not None)
    return stayed, n_blocks


def _child(code: str, *arguments: str, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beyond_memory", description=__doc__)
    parser.add_argument("--scale", type=float, default=FULL, help="times the talk's pixels")
    parser.add_argument("--budget", default="2GiB", help="memory of the run, as EMCUBE_MEMORY")
    parser.add_argument("--folder", type=Path, help="keep store and result here")
    wanted = parser.parse_args(arguments)
    began = time.perf_counter()
    found = measure(wanted.scale, wanted.folder, wanted.budget)
    print(json.dumps({**found, "benchmark_seconds": time.perf_counter() - began}, indent=2))


if __name__ == "__main__":
    main()
