"""What emcube does, from the store, in process: ``python -m benchmarks.method_emcube JOB``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bare import read_pass_apart
from benchmarks.child import Answer, Job, Method, Run, serve
from benchmarks.whole import recipe, settings

RACE_PASSES = 200
"""Full passes in which the race's objective is looked for."""


def _timed(task: Callable[[Job, Run], Answer]) -> Method:
    """Run a task once on a small scene of the same kind, so that all is compiled and loaded."""

    def method(job: Job) -> Callable[[Run], Answer]:
        task(job.at(job.warm), Run())
        return lambda run: task(job, run)

    return method


def _open(job: Job) -> Any:
    import emcube as em

    return em.open(str(job.scene / job.store))


def _numbers(values: Any) -> np.ndarray:
    return np.nan_to_num(np.asarray(values))


def _pca(job: Job, run: Run) -> Answer:
    import emcube as em

    model = em.IncrementalPCA(20, noise="poisson").fit(_open(job))
    return {
        "components": _numbers(model.components_[: job.k]),
        "eigenvalues": _numbers(model.eigenvalues_) * model.n_samples_seen_,
        "settings": repr(model),
    }


def _pca_scores(job: Job, run: Run) -> Answer:
    import emcube as em

    cube = _open(job)
    model = em.IncrementalPCA(20, noise="poisson")
    scores = model.fit_transform(cube).astype("float32").compute()
    if not np.isfinite(scores).all():
        raise SystemExit("the loadings are not finite")
    return {"components": _numbers(model.components_), "settings": repr(model)}


def _count(job: Job, run: Run) -> Answer:
    import emcube as em

    found = em.estimate_n_components(_open(job))
    return {"n_components": found.n_components, "settings": "estimate_n_components(cube)"}


def _race_model(job: Job, passes: int) -> Any:
    import emcube as em

    return em.MiniBatchNMF(job.k, volume=0, tol=0, max_iter=passes, random_state=0)


def _nmf_race(job: Job) -> Callable[[Run], Answer]:
    """Fit the bare objective with so many passes as reach the target.

    How many was looked up in a longer fit before, untimed: a user would see it in ``objective_path_``.
    """
    _race(job.at(job.warm), Run(), 2)
    passes = 3
    if job.target is not None:
        path = _race_model(job, RACE_PASSES).fit(_open(job)).objective_path_
        there = np.flatnonzero(path <= job.target)
        passes = int(there[0]) + 1 if there.size else RACE_PASSES
    return lambda run: _race(job, run, passes)


def _race(job: Job, run: Run, passes: int) -> Answer:
    cube = _open(job)
    model = _race_model(job, passes).fit(cube)
    run.clock.lap("fit")
    model.transform(cube).astype("float32").compute()
    return {
        "components": _numbers(model.components_),
        "n_iter": int(model.n_iter_),
        "objective": float(model.objective_),
        "settings": repr(model),
    }


def _nmf(job: Job, run: Run) -> Answer:
    import emcube as em

    cube = _open(job)
    model = em.MiniBatchNMF(job.k, random_state=0).fit(cube)
    run.clock.lap("fit")
    model.transform(cube).astype("float32").compute()
    return {
        "components": _numbers(model.components_),
        "n_iter": int(model.n_iter_),
        "settings": repr(model),
    }


def _kmeans(features: str) -> Callable[[Job, Run], Answer]:
    def task(job: Job, run: Run) -> Answer:
        import emcube as em

        model = em.KMeans(job.n_clusters, features=features, random_state=0).fit(_open(job))
        run.clock.lap("fit")
        labels = np.asarray(model.labels_).reshape(-1)
        return {
            "labels": labels.astype(np.int32),
            "inertia": float(model.inertia_),
            "settings": repr(model),
        }

    return task


def _run(steps: Callable[[Job], list[dict[str, Any]]]) -> Callable[[Job, Run], Answer]:
    """Run a recipe whose result is written anew each time."""

    def task(job: Job, run: Run) -> Answer:
        import emcube as em

        out = job.out / "result"
        shutil.rmtree(out, ignore_errors=True)  # one that is there would be recognised and kept
        wanted = {"emcube": 1, "input": {"path": str(Path(job.scene).absolute() / job.store)}}
        run.restart()
        result = em.run({**wanted, "steps": steps(job)}, out=out)
        run.clock.lap("fit")
        tree = result.tree
        return {
            "n_components": tree["estimate_n_components"].attrs["n_components"],
            "steps": {name: node.attrs.get("seconds") for name, node in tree.children.items()},
            "settings": settings(steps(job)),
        }

    return task


def _from_events(method: Method) -> Method:
    """The same from the store that keeps the counts as events."""

    def other(job: Job) -> Callable[[Run], Answer]:
        job = job.at(job.scene)
        job.store = "events.zarr"
        return method(job)

    return other


METHODS: dict[str, Method] = {
    "pca": _timed(_pca),
    "pca-events": _from_events(_timed(_pca)),
    "pca-scores": _timed(_pca_scores),
    "count": _timed(_count),
    "count-and-pca": _timed(_run(lambda job: recipe(job.k, job.n_clusters)[:2])),
    "nmf-race": _nmf_race,
    "nmf": _timed(_nmf),
    "kmeans-counts": _timed(_kmeans("counts")),
    "kmeans-counts-events": _from_events(_timed(_kmeans("counts"))),
    "kmeans-profiles": _timed(_kmeans("profiles")),
    "whole": _timed(_run(lambda job: recipe(job.k, job.n_clusters))),
    "whole-events": _from_events(_timed(_run(lambda job: recipe(job.k, job.n_clusters)))),
}

PACKAGES = ("emcube", "numpy", "scipy", "dask", "numba", "zarr", "xarray")


def _bare(job: Job) -> Callable[[], float]:
    """A bare read pass in a process of its own: what it leaves in memory is not ours."""
    return lambda: read_pass_apart(job.scene / "counts.zarr", job.threads)


if __name__ == "__main__":
    serve(METHODS, PACKAGES, between=_bare)
