"""How good clusters are: how far apart they lie, and whether they would be found again.

Letters: n sampled pixels, F features, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emcube.engine import Block, RngKey, resident, run_sweep
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.kernels import kmeans as kernel
from emcube.models.base import as_source, resolve_seed
from emcube.models.kmeans_start import Sample, sample_size

__all__ = ["Sampled", "cluster_quality"]


class Sampled(Protocol):
    """What an estimator tells of a sample of its pixels."""

    def features(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Features (n, F) in which distances mean something, and weights (n,)."""
        ...

    def labels(self) -> NDArray[np.int32]:
        """Cluster of each pixel."""
        ...

    def labels_of_another(self, pixels: NDArray[np.int64], seed: int) -> NDArray[np.int32]:
        """Cluster of each pixel by a model of the same parameters that was fitted to some of them."""
        ...


@dataclass(frozen=True, eq=False)
class _Draw:
    """A sample of the pixels that hold anything, drawn alike."""

    cells: Callable[[Block], tuple[kernel.Cells, NDArray[np.bool_]]]
    n_samples: int
    n_clusters: int
    name: str = "cluster quality sample"

    def start(self) -> None:
        return None

    def map(self, block: Block, state: None, rng_key: RngKey) -> Sample:
        values, used = self.cells(block)
        chances = used.astype(np.float64)
        drawn = Sample.draw(values, chances, chances, rng_key, sample_size(self.n_clusters))
        return drawn.first(self.n_samples).gathered()

    def combine(self, a: Sample, b: Sample) -> Sample:
        return a.merge(b, sample_size(self.n_clusters)).first(self.n_samples)

    def step(self, state: None, statistic: Sample, round_number: int) -> tuple[Any, bool]:
        return statistic.gathered(), True

    def statistic_bytes(self, n_channels: int) -> int:
        return 8 * 2 * (1 << 19)


def cluster_quality(
    model: Any,
    X: Any,
    *,
    where: Any = None,
    n_samples: int = 2000,
    n_repeats: int = 10,
    random_state: Any = 0,
) -> xr.Dataset:
    """Measure how well clusters are separated and how stable they are, on a sample of the pixels.

    Parameters
    ----------
    model : KMeans, GaussianMixture or PoissonMixture
        Fitted.
    X : DataArray, or matrix of shape (P, E)
        Of which the sample is drawn: one pass.
    where : DataArray of bool, optional
        Pixels to draw from (True).
    n_samples : int
        Pixels, at most. Distances between all of them are computed.
    n_repeats : int
        Models of the same parameters, with other seeds, that are fitted to halves of the sample.
    random_state : int, Generator or None
        Of the sample and the halves.

    Returns
    -------
    Dataset (cluster)
        ``silhouette``: mean of (b - a) / max(a, b), a being a pixel's mean distance to the others of its
        cluster and b that to the nearest other cluster, both in the space of the model's features (profiles
        are weighted by their counts); 1 where clusters lie far apart, 0 where they touch, negative where
        pixels are nearer to another one. NaN for clusters of which nothing was drawn, and where there is only
        one. ``silhouette_error``: its standard error. ``stability``: mean over the repeats of the Jaccard
        index ``|A and B| / |A or B|`` of a cluster A and the one of the other model most like it; above
        0.85 it would be found again, below 0.6 it would not (Hennig). ``stability_least``: the smallest.
        ``sampled``: pixels drawn of each cluster. Attributes: ``silhouette`` of all, ``agreement`` (mean
        adjusted Rand index of the repeats), ``n_samples``, ``n_repeats``, ``seed``.

    Raises
    ------
    InputError
        The model is none of these or has another signal; a number is out of range; too few pixels hold
        anything.

    Notes
    -----
    One pass; the rest is done on the sample in the client, in the subspace of the model, whose own
    uncertainty is not asked for. The same bits on any number of workers.

    References
    ----------
    P. J. Rousseeuw, J. Comput. Appl. Math. 20 (1987) 53. https://doi.org/10.1016/0377-0427(87)90125-7
    C. Hennig, Comput. Stat. Data Anal. 52 (2007) 258. https://doi.org/10.1016/j.csda.2006.11.025
    L. Hubert, P. Arabie, J. Classif. 2 (1985) 193. https://doi.org/10.1007/BF01908075

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> counts = np.random.default_rng(0).poisson([[30, 1, 1]] * 50 + [[1, 1, 30]] * 50)
    >>> model = em.KMeans(2, random_state=0).fit(counts)
    >>> em.cluster_quality(model, counts).stability.values.tolist()
    [1.0, 1.0]
    """
    _check(model, n_samples, n_repeats)
    model._check_signal(X)
    seed = resolve_seed(random_state)
    k = len(np.asarray(model.cluster_centers_))
    with resident(), single_threaded_blas():
        source, _ = as_source(X, where, channels=model.axes_.channels)
        draw = _Draw(model._quality_cells(), n_samples, k)
        drawn: Sample = run_sweep(draw, source, seed=seed).state
        n = drawn.keys.size
        if n < 2 * k:
            raise InputError(
                f"cluster_quality: {n} pixels that hold anything were drawn, {2 * k} are needed for "
                f"{k} clusters",
                hint="give more pixels, or raise n_samples",
            )
        sampled = cast("Sampled", model._quality_sample(drawn.values))
        labels = sampled.labels()
        silhouettes = _silhouettes(*sampled.features(), labels, k)
        stable, agreement = _stability(sampled, labels, k, n_repeats, seed)
    return _dataset(labels, silhouettes, stable, agreement, n_repeats, seed, k)


def _check(model: Any, n_samples: Any, n_repeats: Any) -> None:
    if not hasattr(model, "_quality_sample"):
        raise InputError(
            f"cluster_quality: got {type(model).__name__}, expected KMeans, GaussianMixture or "
            "PoissonMixture"
        )
    model._require_fitted()
    for name, value, least in (("n_samples", n_samples, 10), ("n_repeats", n_repeats, 1)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < least:
            raise InputError(
                f"cluster_quality: {name} must be a whole number from {least}, got {value!r}"
            )


def _silhouettes(
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    labels: NDArray[np.int32],
    k: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Weighted mean and standard error of each cluster, and the mean of all."""
    from sklearn.metrics import silhouette_samples

    means, errors = np.full(k, np.nan), np.full(k, np.nan)
    if not 2 <= np.unique(labels).size < labels.size:
        return means, errors, float("nan")
    each = silhouette_samples(values, labels)
    for i in range(k):
        mine = labels == i
        if mine.any():
            w = weights[mine] / weights[mine].sum()
            means[i] = float(w @ each[mine])
            errors[i] = float(np.sqrt(np.square(w) @ np.square(each[mine] - means[i])))
    return means, errors, float(np.average(each, weights=weights))


def _stability(
    sampled: Sampled, labels: NDArray[np.int32], k: int, n_repeats: int, seed: int
) -> tuple[NDArray[np.float64], float]:
    """Jaccard index of each cluster in each repeat (repeats, K), and the mean adjusted Rand index."""
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng((seed, 1))
    found, agreements = np.full((n_repeats, k), np.nan), []
    for repeat in range(n_repeats):
        half = np.sort(rng.permutation(labels.size)[: labels.size // 2])
        with _enough(labels.size // 2, k):
            other = sampled.labels_of_another(half, int(rng.integers(2**32)))
        agreements.append(adjusted_rand_score(labels, other))
        for i in range(k):
            if (labels == i).any():
                found[repeat, i] = max(_jaccard(labels == i, other == j) for j in range(k))
    return found, float(np.mean(agreements))


@contextmanager
def _enough(n: int, k: int) -> Iterator[None]:
    """Say of what kind of fit an error tells."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"cluster_quality: half of the sample, {n} pixels, does not bear {k} clusters: {error}",
            hint="raise n_samples, or ask for fewer clusters",
        ) from error


def _jaccard(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    either = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / either if either else 0.0


def _dataset(
    labels: NDArray[np.int32],
    silhouettes: tuple[NDArray[np.float64], NDArray[np.float64], float],
    stable: NDArray[np.float64],
    agreement: float,
    n_repeats: int,
    seed: int,
    k: int,
) -> xr.Dataset:
    means, errors, whole = silhouettes
    columns = {
        "silhouette": (means, "silhouette: 1 far apart, 0 touching"),
        "silhouette_error": (errors, "standard error of the silhouette"),
        "stability": (stable.mean(axis=0), "Jaccard index with models of other halves"),
        "stability_least": (stable.min(axis=0), "smallest of these"),
    }
    data: dict[str, Any] = {
        name: ("cluster", values, {"units": "1", "long_name": words})
        for name, (values, words) in columns.items()
    }
    drawn = np.bincount(labels, minlength=k).astype(np.int64)
    data["sampled"] = ("cluster", drawn, {"units": "1", "long_name": "pixels drawn"})
    return xr.Dataset(
        data,
        coords={"cluster": np.arange(k)},
        attrs={
            "silhouette": whole,
            "agreement": agreement,
            "n_samples": int(labels.size),
            "n_repeats": int(n_repeats),
            "seed": seed,
        },
    )
