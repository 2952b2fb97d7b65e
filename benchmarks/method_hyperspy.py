"""One method of HyperSpy on a file, in a process and an environment of its own.

``prepare`` writes the counts into HyperSpy's own chunked format first. Nothing of emcube is imported.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from typing import Any

import hyperspy.api as hs
import numpy as np

from benchmarks.clock import Clock, peak_bytes

METHODS: dict[str, dict[str, Any]] = {
    "svd": {"lazy": False, "algorithm": "SVD"},
    "lazy-svd": {"lazy": True, "algorithm": "SVD"},
    "lazy-svd-incremental": {"lazy": True, "algorithm": "SVD", "svd_solver": "incremental"},
    "nmf": {"lazy": False, "algorithm": "NMF"},
    "lazy-nmf": {"lazy": True, "algorithm": "NMF"},
}


def _options(method: str, k: int) -> dict[str, Any]:
    how = {key: value for key, value in METHODS[method].items() if key != "lazy"}
    return {
        **how,
        "normalize_poissonian_noise": True,
        "output_dimension": k if how["algorithm"] == "NMF" else max(20, k),
    }


def _decompose(signal: Any, method: str, k: int) -> tuple[np.ndarray, np.ndarray, int | None]:
    # Counts are integers, and decomposition wants floats; single precision is its thriftier choice.
    signal.change_dtype("float32")
    info = signal.decomposition(print_info=False, return_info=True, **_options(method, k))
    found = signal.learning_results
    return np.asarray(found.factors), np.asarray(found.loadings), getattr(info, "n_iter_", None)


def _warm(method: str) -> None:
    rng = np.random.default_rng(0)
    shapes = rng.dirichlet(np.full(40, 0.3), 3)
    counts = rng.poisson(300.0 * rng.dirichlet(np.full(3, 0.3), (20, 20)) @ shapes).astype("uint8")
    signal = hs.signals.Signal1D(counts)
    _decompose(signal.as_lazy() if METHODS[method]["lazy"] else signal, method, 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method")
    parser.add_argument("file")
    parser.add_argument("out")
    parser.add_argument("-k", type=int, default=0)
    wanted = parser.parse_args()
    hs.preferences.General.show_progressbar = False
    if wanted.method == "prepare":
        hs.signals.Signal1D(np.load(wanted.file)).save(wanted.out, overwrite=True)
        print("{}")
        return
    _warm(wanted.method)
    clock = Clock()
    signal = hs.load(wanted.file, lazy=METHODS[wanted.method]["lazy"])
    factors, loadings, n_iter = _decompose(signal, wanted.method, wanted.k)
    used = clock.read()
    peak = peak_bytes()
    if not np.isfinite(loadings).all():
        raise SystemExit("the loadings are not finite")
    np.save(wanted.out, factors.T)
    names = ("hyperspy", "rosettasciio", "numpy", "scipy", "dask", "scikit-learn", "zarr")
    text = ", ".join(f"{key}={value!r}" for key, value in _options(wanted.method, wanted.k).items())
    lazy = ", lazy=True" if METHODS[wanted.method]["lazy"] else ""
    print(
        json.dumps(
            {
                **used,
                "peak_bytes": peak,
                "n_iter": None if n_iter is None else int(n_iter),
                "settings": f"decomposition({text}){lazy}",
                "versions": {name: version(name) for name in names},
            }
        )
    )


if __name__ == "__main__":
    main()
