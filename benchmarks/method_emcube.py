"""One method of emcube on a store, in a process of its own: from the file to components and loadings."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.clock import Clock, peak_bytes


def _estimator(method: str, k: int) -> Any:
    import emcube as em

    if method == "pca":
        return em.IncrementalPCA(n_components=max(20, k), noise="poisson")
    if method == "nmf":
        return em.MiniBatchNMF(n_components=k, random_state=0)
    raise SystemExit(f"no such method: {method}")


def _warm(method: str) -> None:
    """Import everything and compile, or load what was compiled before."""
    rng = np.random.default_rng(0)
    shapes = rng.dirichlet(np.full(40, 0.3), 3)
    loads = 300.0 * rng.dirichlet(np.full(3, 0.3), 400)
    counts = rng.poisson(loads @ shapes).astype("uint8")
    _estimator(method, 3).fit(counts).transform(counts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method")
    parser.add_argument("store")
    parser.add_argument("out")
    parser.add_argument("-k", type=int, required=True)
    wanted = parser.parse_args()
    import emcube as em

    _warm(wanted.method)
    clock = Clock()
    cube = em.open(wanted.store)
    model = _estimator(wanted.method, wanted.k).fit(cube)
    loadings = model.transform(cube).astype("float32").compute()
    used = clock.read()
    peak = peak_bytes()
    if not np.isfinite(loadings).all():
        raise SystemExit("the loadings are not finite")
    np.save(wanted.out, np.nan_to_num(np.asarray(model.components_)))
    names = ("emcube", "numpy", "scipy", "dask", "numba", "zarr")
    print(
        json.dumps(
            {
                **used,
                "peak_bytes": peak,
                "n_iter": getattr(model, "n_iter_", None),
                "settings": repr(model),
                "versions": {name: version(name) for name in names},
            }
        )
    )


if __name__ == "__main__":
    main()
