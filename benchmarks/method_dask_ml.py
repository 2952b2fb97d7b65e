"""What dask-ml does, in memory: ``python -m benchmarks.method_dask_ml JOB`` in its own environment.

It starts from a Dask array of rows in memory: reading and weighting are not timed, in its favour. Dask's
threads do the work, BLAS has one thread each. Nothing of emcube is imported.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask_ml.cluster import KMeans
from dask_ml.decomposition import PCA

from benchmarks.child import Answer, Job, Method, Run, serve
from benchmarks.data import totals
from benchmarks.method_sklearn import DTYPE, N_COMPONENTS, dense

ROWS = 16384
"""Pixels of a chunk: 100 MB of 1564 channels."""


def _timed(weight: str, task: Callable[[Job, Any, Run], Answer]) -> Method:
    def rows_of(job: Job) -> Any:
        matrix = dense(job, weight)
        # No name by content: hashing a large array costs seconds.
        return da.from_array(matrix, chunks=(ROWS, -1), name=False)

    def method(job: Job) -> Callable[[Run], Answer]:
        def quietly(job: Job, matrix: Any, run: Run) -> Answer:
            how = {"scheduler": "threads", "num_workers": job.threads}
            with dask.config.set(how), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return task(job, matrix, run)

        small = job.at(job.warm)
        quietly(small, rows_of(small), Run())
        matrix = rows_of(job)
        return lambda run: quietly(job, matrix, run)

    return method


def _pca(**options: Any) -> Callable[[Job, Any, Run], Answer]:
    def task(job: Job, matrix: Any, run: Run) -> Answer:
        model = PCA(random_state=0, **options).fit(matrix)
        _, h = totals(job.scene)
        return {
            "components": np.asarray(model.components_[: job.k], np.float64) * np.sqrt(h),
            "eigenvalues": np.asarray(model.singular_values_, np.float64) ** 2,
            "settings": f"{model!r}, {DTYPE.__name__}, chunks of {ROWS} rows",
        }

    return task


def _kmeans(job: Job, matrix: Any, run: Run) -> Answer:
    model = KMeans(job.n_clusters, random_state=0).fit(matrix)
    return {
        "labels": np.asarray(model.labels_).astype(np.int32),
        "inertia": float(model.inertia_),
        "n_iter": int(model.n_iter_),
        "settings": f"{model!r}, {DTYPE.__name__}, chunks of {ROWS} rows",
    }


METHODS: dict[str, Method] = {
    "pca-tsqr": _timed("poisson", _pca(svd_solver="tsqr")),
    "pca-randomized": _timed("poisson", _pca(n_components=N_COMPONENTS, svd_solver="randomized")),
    "kmeans": _timed("", _kmeans),
}

PACKAGES = ("dask-ml", "dask", "scikit-learn", "numpy", "scipy")


if __name__ == "__main__":
    serve(METHODS, PACKAGES)
