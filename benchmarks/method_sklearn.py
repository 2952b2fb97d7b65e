"""What scikit-learn does, in memory: ``python -m benchmarks.method_sklearn JOB`` in its own environment.

Reading the counts from disk, making the dense or sparse matrix it wants, weighting it for PCA and (for
minibatches) shuffling its rows are not timed, in its favour. Nothing of emcube is imported.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import NMF, PCA, IncrementalPCA, MiniBatchNMF, _nmf

from benchmarks.child import Answer, Job, Method, Run, serve
from benchmarks.data import blocks, pixels, rows, totals

DTYPE = np.float32
"""Half the memory of double precision, and faster in all of these."""

N_COMPONENTS = 20


def dense(job: Job, weight: str = "", order: np.ndarray | None = None) -> np.ndarray:
    """Counts as a dense matrix of floats; weighted as `weights` says, rows in the order given."""
    found = np.empty(pixels(job.scene).shape, DTYPE)
    left, right = weights(job, weight)
    place = np.arange(len(found)) if order is None else np.argsort(order)
    for start, counts in blocks(job.scene):
        take = slice(start, start + len(counts))
        block = counts.astype(DTYPE)
        if weight:
            block *= left[take, None] * right
        found[place[take]] = block
    return found


def sparse(job: Job, weight: str = "", order: np.ndarray | None = None) -> csr_array:
    """Counts as a sparse matrix of floats in compressed rows."""
    indptr, indices, data, shape = rows(job.scene)
    values = data.astype(DTYPE)
    if weight:
        left, right = weights(job, weight)
        values *= np.repeat(left, np.diff(indptr)).astype(DTYPE)
        values *= right[indices]
    found = csr_array((values, indices, indptr.astype(np.int32)), shape=shape)
    return found if order is None else found[order]


def weights(job: Job, weight: str) -> tuple[np.ndarray, np.ndarray]:
    """Return factors of the pixels (P,) and the channels (E,).

    "poisson": sqrt(N / (g h)), Keenan and Kotula's; "profiles": 1 / g and 1 / sqrt(h), for profiles in the
    same metric.
    """
    g, h = totals(job.scene)
    total = g.sum()
    g, h = (np.where(t > 0, t, 1.0) for t in (g, h))
    if weight == "profiles":
        return (1.0 / g).astype(DTYPE), (1.0 / np.sqrt(h)).astype(DTYPE)
    return np.sqrt(total / g).astype(DTYPE), (1.0 / np.sqrt(h)).astype(DTYPE)


def _shuffled(job: Job) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(pixels(job.scene)))


def _timed(
    load: Callable[[Job], Any], task: Callable[[Job, Any, Run], Answer], spoils: bool = False
) -> Method:
    """Load, and run the task once on a small scene before.

    A task that spoils its matrix gets a new one for each run.
    """

    def method(job: Job) -> Callable[[Run], Answer]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small = job.at(job.warm)
            small.limit = min(1.0, job.limit or 1.0)
            task(small, load(small), Run())
        matrices = [] if spoils else [load(job)]

        def timed(run: Run) -> Answer:
            matrix = matrices[0] if matrices else load(job)
            run.restart()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return task(job, matrix, run)

        return timed

    return method


# -- principal components ---------------------------------------------------------------------------


def _pca_answer(job: Job, model: Any) -> Answer:
    """Put components back into counts, as the judge takes them: times sqrt(h)."""
    _, h = totals(job.scene)
    eigenvalues = np.asarray(model.singular_values_, np.float64) ** 2
    return {
        "components": np.asarray(model.components_[: job.k], np.float64) * np.sqrt(h),
        "eigenvalues": eigenvalues,
        "settings": f"{model!r}, {DTYPE.__name__}",
    }


def _pca(**options: Any) -> Callable[[Job, Any, Run], Answer]:
    def task(job: Job, matrix: Any, run: Run) -> Answer:
        return _pca_answer(job, PCA(random_state=0, copy=False, **options).fit(matrix))

    return task


def _pca_incremental(job: Job, matrix: Any, run: Run) -> Answer:
    model = IncrementalPCA(N_COMPONENTS, batch_size=5 * matrix.shape[1])
    return _pca_answer(job, model.fit(matrix))


# -- non-negative components ------------------------------------------------------------------------


class _Stop(Exception):
    """The limit is over: what was kept on the way is judged."""


@contextlib.contextmanager
def _watched(job: Job, run: Run) -> Iterator[None]:
    """Keep the components after each of scikit-learn's updates of them."""
    update = _nmf._multiplicative_update_h

    def watched(*args: Any, **options: Any) -> Any:
        components = update(*args, **options)
        if options.get("A") is not None:  # minibatches: forgetting sums, components are their ratio
            components = components.copy()
        run.snapshot(components)
        if job.limit is not None and run.clock.seconds() > job.limit:
            raise _Stop
        return components

    _nmf._multiplicative_update_h = watched
    try:
        yield
    finally:
        _nmf._multiplicative_update_h = update


def _nmf_task(job: Job, matrix: Any, run: Run) -> Answer:
    model = NMF(
        job.k,
        solver="mu",
        beta_loss="kullback-leibler",
        init="nndsvda",
        tol=1e-12,
        max_iter=10**6,
        random_state=0,
    )
    return _race(job, model, matrix, run)


def _minibatch_nmf_task(job: Job, matrix: Any, run: Run) -> Answer:
    model = MiniBatchNMF(
        job.k,
        beta_loss="kullback-leibler",
        init="nndsvda",
        batch_size=4096,
        tol=0.0,
        max_no_improvement=None,
        max_iter=10**6,
        random_state=0,
    )
    return _race(job, model, matrix, run)


def _race(job: Job, model: Any, matrix: Any, run: Run) -> Answer:
    settings = f"{model!r}, {DTYPE.__name__}"
    with _watched(job, run):
        try:
            model.fit(matrix)
        except _Stop:
            return {"settings": settings, "stopped": True}
    return {"components": model.components_.astype(np.float64), "settings": settings}


# -- clusters ---------------------------------------------------------------------------------------


def _kmeans_answer(model: Any) -> Answer:
    return {
        "labels": model.labels_.astype(np.int32),
        "inertia": float(model.inertia_),
        "n_iter": int(model.n_iter_),
        "settings": f"{model!r}, {DTYPE.__name__}",
    }


def _kmeans(job: Job, matrix: Any, run: Run) -> Answer:
    return _kmeans_answer(KMeans(job.n_clusters, n_init=1, random_state=0).fit(matrix))


def _minibatch_kmeans(job: Job, matrix: Any, run: Run) -> Answer:
    model = MiniBatchKMeans(job.n_clusters, batch_size=4096, n_init=3, random_state=0)
    return _kmeans_answer(model.fit(matrix))


def _kmeans_profiles(n_init: int) -> Callable[[Job, Any, Run], Answer]:
    def task(job: Job, matrix: Any, run: Run) -> Answer:
        g, _ = totals(job.scene)
        model = KMeans(job.n_clusters, n_init=n_init, random_state=0)
        return _kmeans_answer(model.fit(matrix, sample_weight=g))

    return task


def _plain(load: Callable[..., Any], weight: str = "") -> Callable[[Job], Any]:
    return lambda job: load(job, weight)


def _mixed(load: Callable[..., Any]) -> Callable[[Job], Any]:
    return lambda job: load(job, "", _shuffled(job))


METHODS: dict[str, Method] = {
    "pca-covariance": _timed(_plain(dense, "poisson"), _pca(svd_solver="covariance_eigh"), True),
    "pca-covariance-sparse": _timed(
        _plain(sparse, "poisson"), _pca(svd_solver="covariance_eigh"), True
    ),
    "pca-randomized": _timed(
        _plain(dense, "poisson"), _pca(n_components=N_COMPONENTS, svd_solver="randomized"), True
    ),
    "pca-incremental": _timed(_plain(dense, "poisson"), _pca_incremental),
    "nmf": _timed(_plain(dense), _nmf_task),
    "nmf-sparse": _timed(_plain(sparse), _nmf_task),
    "minibatch-nmf": _timed(_mixed(dense), _minibatch_nmf_task),
    "minibatch-nmf-sparse": _timed(_mixed(sparse), _minibatch_nmf_task),
    "kmeans": _timed(_plain(dense), _kmeans),
    "kmeans-sparse": _timed(_plain(sparse), _kmeans),
    "minibatch-kmeans": _timed(_plain(dense), _minibatch_kmeans),
    "minibatch-kmeans-sparse": _timed(_plain(sparse), _minibatch_kmeans),
    "kmeans-profiles": _timed(_plain(dense, "profiles"), _kmeans_profiles(1)),
    "kmeans-profiles-sparse": _timed(_plain(sparse, "profiles"), _kmeans_profiles(1)),
    "kmeans-profiles-restarts": _timed(_plain(sparse, "profiles"), _kmeans_profiles(10)),
}

PACKAGES = ("scikit-learn", "numpy", "scipy", "threadpoolctl")


if __name__ == "__main__":
    serve(METHODS, PACKAGES)
