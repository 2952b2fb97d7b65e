"""What it costs to start: ``python -m benchmarks.startup RECIPE OUT``.

Everything else is measured with imports done and kernels compiled. Here nothing is: each figure is a fresh
process, start to end. Kernels were compiled on this machine before, as they are from the second run on.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.whole import recipe


def _seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - start


def _several(repeat: int, *command: str) -> list[float]:
    _seconds(*command)  # fills the disk cache, and compiles
    return [round(_seconds(*command), 3) for _ in range(repeat)]


COMMANDS = {
    "python": ("-c", "pass"),
    "import emcube": ("-c", "import emcube"),
    "import xarray": ("-c", "import xarray"),
    "import xarray, emcube": ("-c", "import xarray, emcube"),
    "import what a run stands on": (
        "-c",
        # scikit-learn's base as the models import it
        "import xarray, zarr, dask.array, emcube.models.base, scipy.linalg, numba, pydantic, typer",
    ),
    "emcube --help": ("-m", "emcube", "--help"),
}


N_CHANNELS = 128
"""Channels of the tiny cube: products and eigenproblems of few channels take no time."""


def measure(store: Path, folder: Path, repeat: int = 5) -> dict[str, Any]:
    """Seconds of starting Python, of imports, of ``emcube --help``, and of a run on a tiny cube.

    Parameters
    ----------
    store : Path
        A small cube; some channels of it make one so tiny that a run of the whole recipe is all start-up.
    folder : Path
        For that cube, the recipe and its result.
    repeat : int
    """
    import emcube as em

    out, path = folder / "start", folder / "start.yaml"
    cube = em.open(store)
    tiny = folder.absolute() / "tiny.zarr"
    few = cube.em.bin(energy=cube.sizes["energy"] // N_CHANNELS, boundary="trim")
    em.ingest(few, tiny, overwrite=True)
    inputs = {"path": str(tiny)}
    path.write_text(json.dumps({"emcube": 1, "input": inputs, "steps": recipe(3, 4)}))
    run = []
    for _ in range(repeat + 1):
        shutil.rmtree(out, ignore_errors=True)
        run.append(round(_seconds("-m", "emcube", "run", str(path), "--out", str(out)), 3))
    runs = {name: _several(repeat, *command) for name, command in COMMANDS.items()}
    runs["emcube run, tiny cube"] = run[1:]
    return {
        "runs": run[1:],
        "laps": runs,
        "first_run_seconds": run[0],
        "medians": {name: statistics.median(found) for name, found in runs.items()},
        "settings": f"emcube run on a cube of {dict(em.open(tiny).sizes)}, in a fresh process",
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]))))
