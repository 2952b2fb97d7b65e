"""What HyperSpy does: ``python -m benchmarks.method_hyperspy JOB`` in its own environment.

Lazy methods start from HyperSpy's own chunked format .zspy, which is written beforehand; the others from a
signal in memory, and reading it is not timed, in their favour. Nothing of emcube is imported.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import hyperspy.api as hs
import numpy as np

from benchmarks.child import Answer, Job, Method, Run, serve

DECOMPOSITIONS: dict[str, tuple[bool, dict[str, Any]]] = {
    "svd": (False, {"algorithm": "SVD"}),
    "lazy-svd": (True, {"algorithm": "SVD"}),
    "lazy-svd-full": (True, {"algorithm": "SVD", "svd_solver": "full"}),
    "lazy-svd-incremental": (True, {"algorithm": "SVD", "svd_solver": "incremental"}),
    "nmf": (False, {"algorithm": "NMF"}),
    "lazy-nmf": (True, {"algorithm": "NMF"}),
}
"""Whether it is lazy, and its options."""


def prepare(scene: Path) -> None:
    """Write the counts into HyperSpy's own format, where they are not yet."""
    target = scene / "counts.zspy"
    if not target.exists():
        unfinished = scene / "unfinished.zspy"
        counts = np.load(scene / "counts.npy", mmap_mode="r")
        # Chunks of its own choice: of the whole spectrum, and about 100 MB large.
        hs.signals.Signal1D(np.asarray(counts)).save(unfinished, overwrite=True)
        unfinished.rename(target)


def _prepare_apart(scene: Path) -> None:
    """Prepare in a process of its own: its memory is not this one's."""
    if not (scene / "counts.zspy").exists():
        command = [sys.executable, "-m", "benchmarks.method_hyperspy", "prepare", str(scene)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def options(method: str, k: int) -> dict[str, Any]:
    """Arguments of `decomposition`."""
    _, how = DECOMPOSITIONS[method]
    return {
        **how,
        "normalize_poissonian_noise": True,
        "output_dimension": k if how["algorithm"] == "NMF" else max(20, k),
    }


def decompose(signal: Any, method: str, k: int) -> Answer:
    """Decompose, and return components (in counts) and what they were asked for."""
    info = signal.decomposition(print_info=False, return_info=True, **options(method, k))
    found = signal.learning_results
    if not np.isfinite(np.asarray(found.loadings)).all():
        raise SystemExit("the loadings are not finite")
    text = ", ".join(f"{key}={value!r}" for key, value in options(method, k).items())
    lazy = ", lazy=True" if DECOMPOSITIONS[method][0] else ""
    n_iter = getattr(info, "n_iter_", None)
    return {
        "components": np.asarray(found.factors, np.float64).T,
        "n_iter": None if n_iter is None else int(n_iter),
        "settings": f"decomposition({text}), float32{lazy}",
    }


def _load(scene: Path, lazy: bool) -> Any:
    signal = hs.load(scene / "counts.zspy", lazy=lazy)
    # Counts are integers, and decomposition wants floats; single precision is its thriftier choice.
    signal.change_dtype("float32")
    return signal


def _timed(method: str) -> Method:
    lazy = DECOMPOSITIONS[method][0]

    def make(job: Job) -> Callable[[Run], Answer]:
        hs.preferences.General.show_progressbar = False
        for scene in (job.warm, job.scene):
            _prepare_apart(scene)
        with dask.config.set(num_workers=job.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decompose(_load(job.warm, lazy), method, job.k)
        signal = None if lazy else _load(job.scene, lazy=False)

        def timed(run: Run) -> Answer:
            with dask.config.set(num_workers=job.threads), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return decompose(_load(job.scene, True) if lazy else signal, method, job.k)

        return timed

    return make


METHODS: dict[str, Method] = {name: _timed(name) for name in DECOMPOSITIONS}

PACKAGES = ("hyperspy", "rosettasciio", "numpy", "scipy", "dask", "scikit-learn", "zarr")


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]))
    else:
        serve(METHODS, PACKAGES)
