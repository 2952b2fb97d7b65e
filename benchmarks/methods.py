"""What is measured: works, and who does them how.

A work is a task that both sides do. Ours comes first: what a peer may cost before it has lost is known then.
"""

from __future__ import annotations

from dataclasses import dataclass

PATIENCE = 30.0
"""A peer is never stopped sooner (seconds)."""

ENOUGH = 15.0
"""A peer is run again (five times at most) until its runs took so many seconds together."""

WARM_SCALE = 0.003
"""Share of the full pixels on which everything is compiled and loaded before the clock starts."""

N_CLUSTERS = 4


@dataclass(frozen=True)
class Scene:
    """A simulated cube, by the name of its function in ``emcube.scenes``."""

    name: str
    title: str
    n_components: int
    options: tuple[tuple[str, float], ...] = ()


SCENES = {
    # With no pure pixels no method's NMF is determined: one in a hundred is pure, for each phase.
    "jadeite": Scene("jadeite", "jadeite map", 5, (("pure_pixels", 0.01),)),
    "srm2135c": Scene("srm2135c", "SRM 2135c tilt series", 3),
}


@dataclass(frozen=True)
class Work:
    """A task, the quality of its answers, and what is said about it in the table."""

    name: str
    title: str
    quality: str


WORKS = {
    w.name: w
    for w in (
        Work("start", "Starting up", ""),
        Work("pca", "Weighted PCA, 20 components and all eigenvalues", "angle"),
        Work("pca-scores", "Weighted PCA, 20 components with their loadings", "angle"),
        Work("count", "Number of components", "found"),
        Work("count-and-pca", "Number of components and PCA 20 in one recipe, written", "found"),
        Work(
            "nmf-race", "Poisson NMF, bare objective, to within 1 % of the last component", "excess"
        ),
        Work("nmf", "NMF, the default's components and loadings", "truth"),
        Work("kmeans-counts", "k-means on raw counts, labels", "inertia"),
        Work("kmeans-profiles", "k-means on profiles, labels", "inertia"),
        Work("whole", "Whole recipe: number, PCA 20, NMF, k-means, result written", "found"),
    )
}


@dataclass(frozen=True)
class Method:
    """Who does a work, and how.

    Attributes
    ----------
    name : str
        Also the key in the module's table of methods.
    peer : str
        Whose environment it runs in: "emcube" is this one.
    target : float
        So many times faster we mean to be; a peer that has taken longer than that is stopped.
    scenes : tuple of str
        Where it runs. Cubes that a peer must hold as dense floats are left out where they do not fit.
    blas : int or None
        Threads of BLAS, where not as many as all threads (Dask's own threads call it).
    centred : bool
        It subtracts the mean spectrum, and is judged against the exact answer of that problem.
    once : bool
        Runs once: its progress is judged, not its end.
    """

    name: str
    peer: str
    work: str
    title: str
    target: float = 10.0
    scenes: tuple[str, ...] = ("jadeite",)
    blas: int | None = None
    centred: bool = False
    once: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is emcube."""
        return self.peer == "emcube"


BOTH = ("jadeite", "srm2135c")

METHODS = (
    Method("start", "emcube", "start", "emcube, command line", scenes=BOTH),
    # -- principal components
    Method("pca", "emcube", "pca", "emcube `IncrementalPCA`", scenes=BOTH),
    Method("pca-events", "emcube", "pca", "the same, from a store of events", scenes=BOTH),
    Method(
        "pca-covariance",
        "sklearn",
        "pca",
        "scikit-learn `PCA(covariance_eigh)`, in memory",
        target=4,
        scenes=BOTH,
        centred=True,
    ),
    Method(
        "pca-covariance-sparse",
        "sklearn",
        "pca",
        "scikit-learn `PCA(covariance_eigh)`, sparse, in memory",
        target=4,
        centred=True,
    ),
    Method(
        "pca-randomized",
        "sklearn",
        "pca",
        "scikit-learn `PCA(randomized)`, 20 only, in memory",
        centred=True,
    ),
    Method(
        "pca-incremental",
        "sklearn",
        "pca",
        "scikit-learn `IncrementalPCA`, 20 only, in memory",
        target=50,
        centred=True,
    ),
    Method("pca-tsqr", "dask-ml", "pca", "dask-ml `PCA(tsqr)`, in memory", blas=1, centred=True),
    Method(
        "pca-randomized",
        "dask-ml",
        "pca",
        "dask-ml `PCA(randomized)`, 20 only, in memory",
        blas=1,
        centred=True,
    ),
    Method("pca-scores", "emcube", "pca-scores", "emcube `IncrementalPCA`", scenes=BOTH),
    Method("svd", "hyperspy", "pca-scores", "HyperSpy `SVD`, in memory"),
    Method(
        "lazy-svd",
        "hyperspy",
        "pca-scores",
        "HyperSpy `SVD`, lazy (default)",
        scenes=BOTH,
        blas=1,
    ),
    Method(
        "lazy-svd-full",
        "hyperspy",
        "pca-scores",
        'HyperSpy `SVD`, lazy, `svd_solver="full"`',
        blas=1,
    ),
    Method(
        "lazy-svd-incremental",
        "hyperspy",
        "pca-scores",
        "HyperSpy `SVD`, lazy, incremental",
        target=50,
    ),
    # -- number of components: no peer estimates it
    Method("count", "emcube", "count", "emcube `estimate_n_components`", scenes=BOTH),
    Method("count-and-pca", "emcube", "count-and-pca", "emcube `run`", scenes=BOTH),
    # -- non-negative components
    Method(
        "nmf-race", "emcube", "nmf-race", "emcube `MiniBatchNMF(volume=0)`", scenes=BOTH, once=False
    ),
    Method(
        "nmf",
        "sklearn",
        "nmf-race",
        'scikit-learn `NMF("mu")`, in memory',
        target=20,
        once=True,
    ),
    Method(
        "nmf-sparse",
        "sklearn",
        "nmf-race",
        'scikit-learn `NMF("mu")`, sparse, in memory',
        target=20,
        scenes=BOTH,
        once=True,
    ),
    Method(
        "minibatch-nmf",
        "sklearn",
        "nmf-race",
        "scikit-learn `MiniBatchNMF`, in memory",
        once=True,
    ),
    Method(
        "minibatch-nmf-sparse",
        "sklearn",
        "nmf-race",
        "scikit-learn `MiniBatchNMF`, sparse, in memory",
        scenes=BOTH,
        once=True,
    ),
    Method("nmf", "espm", "nmf-race", "espm `SmoothNMF`, in memory", once=True),
    Method("nmf", "emcube", "nmf", "emcube `MiniBatchNMF`", scenes=BOTH),
    Method("nmf", "hyperspy", "nmf", "HyperSpy `NMF`, in memory"),
    Method("lazy-nmf", "hyperspy", "nmf", "HyperSpy `NMF`, lazy"),
    # -- clusters
    Method(
        "kmeans-counts",
        "emcube",
        "kmeans-counts",
        'emcube `KMeans(features="counts")`',
        scenes=BOTH,
    ),
    Method(
        "kmeans-counts-events",
        "emcube",
        "kmeans-counts",
        "the same, from a store of events",
        scenes=BOTH,
    ),
    Method("kmeans", "sklearn", "kmeans-counts", "scikit-learn `KMeans`, in memory", target=20),
    Method(
        "kmeans-sparse",
        "sklearn",
        "kmeans-counts",
        "scikit-learn `KMeans`, sparse, in memory",
        target=20,
        scenes=BOTH,
    ),
    Method(
        "minibatch-kmeans",
        "sklearn",
        "kmeans-counts",
        "scikit-learn `MiniBatchKMeans`, in memory",
    ),
    Method(
        "minibatch-kmeans-sparse",
        "sklearn",
        "kmeans-counts",
        "scikit-learn `MiniBatchKMeans`, sparse, in memory",
        scenes=BOTH,
    ),
    Method("kmeans", "dask-ml", "kmeans-counts", "dask-ml `KMeans`, in memory", target=50, blas=1),
    Method("kmeans-profiles", "emcube", "kmeans-profiles", "emcube `KMeans`", scenes=BOTH),
    Method(
        "kmeans-profiles",
        "sklearn",
        "kmeans-profiles",
        "scikit-learn `KMeans` on weighted profiles, in memory",
        target=20,
    ),
    Method(
        "kmeans-profiles-sparse",
        "sklearn",
        "kmeans-profiles",
        "scikit-learn `KMeans` on weighted profiles, sparse, in memory",
        target=20,
        scenes=BOTH,
    ),
    # One start ends above our inertia: ten, scikit-learn's default until 1.4, are its way to a better one.
    Method(
        "kmeans-profiles-restarts",
        "sklearn",
        "kmeans-profiles",
        "scikit-learn `KMeans(n_init=10)` on weighted profiles, sparse, in memory",
        target=40,
        scenes=BOTH,
    ),
    # -- everything
    Method("whole", "emcube", "whole", "emcube `run`", scenes=BOTH),
    Method("whole-events", "emcube", "whole", "the same, from a store of events", scenes=BOTH),
)

LINEAR = ("srm2135c", (0.1, 1.0, 10.0))
"""The whole recipe also runs on so many times the pixels of this scene."""

EXTRAS = ("dense", "beyond_memory")
"""Modules of this folder with ``measure(**options)`` of their own, measured where they are there."""


def key(method: Method) -> str:
    """Name a method, alone: "sklearn-nmf"."""
    return f"{method.peer}-{method.name}"


BY_KEY = {key(m): m for m in METHODS}
