"""A whole recipe on the talk's tilt series, against bare read passes: ``python -m benchmarks.whole``.

The scene is written once and kept; a pass that only reads and decodes every chunk (zarr-python, as many
threads as the run) and the recipe each run in a process of their own. The first run compiles the kernels,
whose cache is new; the others find them there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BARE_READ = """
import itertools, json, os, sys, time
from concurrent.futures import ThreadPoolExecutor
import zarr
array = zarr.open_array(sys.argv[1], path="data", mode="r")
step = array.chunks
regions = [
    tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, step))
    for index in itertools.product(*(range(-(-n // c)) for n, c in zip(array.shape, step)))
]
def read(region):
    return array[region].nbytes
seconds = []
with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    for _ in range(int(sys.argv[2])):
        began = time.perf_counter()
        read_bytes = sum(pool.map(read, regions))
        seconds.append(time.perf_counter() - began)
print(json.dumps({"seconds": seconds, "bytes": read_bytes}))
"""

RUN = """
import json, sys, time
from benchmarks.clock import peak_bytes
began = time.perf_counter()
import emcube as em
result = em.run(json.loads(sys.argv[1]), out=sys.argv[2], overwrite=True)
print(json.dumps({
    "seconds": time.perf_counter() - began,
    "peak_bytes": peak_bytes(),
    "steps": {name: node.attrs.get("seconds") for name, node in result.tree.children.items()},
    "n_components": result.tree["estimate_n_components"].attrs["n_components"],
}))
"""

STEPS = [
    {"estimate_n_components": {"method": "biwhitening"}},
    {"pca": {"n_components": 20, "noise": "poisson"}},
    {"nmf": {"n_components": 3, "random_state": 0}},
    {"kmeans": {"n_clusters": 4, "random_state": 0}},
]


def measure(scale: float, folder: Path, repeat: int = 3) -> dict[str, Any]:
    """Time and peak memory of the four steps on the scene, with the bare read passes beside it.

    Parameters
    ----------
    scale : float
        Share of the full 73 x 124 x 165 pixels.
    folder : Path
        Where store and results go; a store of this scale that is there already is used.
    repeat : int
        Bare read passes, and runs after the first one.
    """
    import emcube as em

    store = folder.absolute() / f"srm2135c-{scale:g}.zarr"
    if not store.exists():
        em.ingest(em.scenes.srm2135c(scale=scale, random_state=0).cube, store)
    shape = em.open(store).shape
    recipe = {"emcube": 1, "input": {"path": str(store)}, "steps": STEPS}
    runs, reads = [], []
    kernels = tempfile.mkdtemp(prefix="kernels-", dir=folder.absolute())
    for i in range(repeat + 1):
        # A result of the same run would be recognised and kept: there must be none.
        shutil.rmtree(folder / f"result-{i}", ignore_errors=True)
        reads += _child(kernels, BARE_READ, str(store), str(repeat))["seconds"]
        runs.append(
            _child(kernels, RUN, json.dumps(recipe), str(folder.absolute() / f"result-{i}"))
        )
    shutil.rmtree(kernels)
    bare = statistics.median(reads)
    warm = [run["seconds"] for run in runs[1:]]
    return {
        "shape": list(shape),
        "bare_read_seconds": bare,
        "first_run_in_bare_reads": runs[0]["seconds"] / bare,
        "run_in_bare_reads": statistics.median(warm) / bare,
        "run_in_bare_reads_spread": [min(warm) / bare, max(warm) / bare],
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "steps_in_bare_reads": {
            name: seconds / bare for name, seconds in runs[-1]["steps"].items() if seconds
        },
        "n_components": runs[-1]["n_components"],
    }


def _child(kernels: str, code: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "NUMBA_CACHE_DIR": kernels},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a measured process failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the talk's pixels")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep store and results here")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(wanted.scale, wanted.folder or Path(scratch), wanted.repeat)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
