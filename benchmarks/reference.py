"""The exact answers, and how far a method's answer is from them: none of emcube's own models judges.

Letters: P pixels, E channels, K components, R clusters. ``python -m benchmarks.reference exact FOLDER`` makes
a scene's exact answers once; ``... judge SCENE ANSWER WORK CENTRED`` prints the quality of an answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.data import pixels, rows, totals
from benchmarks.methods import N_CLUSTERS

Floats = NDArray[np.float64]

FLOOR = 1e-12
"""Components are given at least so much in every channel, as scikit-learn's are."""

REFERENCE_PASSES = 60
"""Full passes of each fit that the race is measured against: more change the objective by some hundredths
of a percent of what the last component gains."""

VERSION = 2
"""Exact answers of another number are made anew."""


# -- principal components ---------------------------------------------------------------------------


def weighted_gram(counts: NDArray[Any], g: Floats, h: Floats) -> tuple[Floats, Floats]:
    """Sum X' X and the columns of X = D sqrt(N / (g h)) over pixels, in double precision."""
    gram = np.zeros((counts.shape[1], counts.shape[1]))
    sums = np.zeros(counts.shape[1])
    total = g.sum()
    g, h = (np.where(t > 0, t, 1.0) for t in (g, h))
    for start in range(0, len(counts), 4096):
        take = slice(start, start + 4096)
        weighted = counts[take].astype(np.float64) * np.sqrt(total / g[take, None]) / np.sqrt(h)
        gram += weighted.T @ weighted
        sums += weighted.sum(axis=0)
    return gram, sums


def exact_components(
    gram: Floats, sums: Floats, n_pixels: int, centred: bool
) -> tuple[Floats, Floats]:
    """Eigenvalues (E,), descending, and right singular vectors (E, E) as rows."""
    if centred:
        gram = gram - np.outer(sums, sums) / n_pixels
    values, vectors = np.linalg.eigh(gram)
    return values[::-1], vectors[:, ::-1].T


def worst_angle(found: Floats, vectors: Floats, h: Floats) -> float:
    """Return the largest principal angle (degrees) of the span of components to the exact one.

    Parameters
    ----------
    found : ndarray, shape (K', E), K' >= k
        Components in counts; the first k of them are taken, and weighted as the exact ones are.
    vectors : ndarray, shape (k, E)
    h : ndarray, shape (E,)
        Channel totals.
    """
    weighted = found[: len(vectors)] / np.sqrt(np.where(h > 0, h, 1.0))
    basis, _ = np.linalg.qr(weighted.T)
    # The part of the exact directions that the found ones cannot say: sines, exact for small angles.
    missed = vectors.T - basis @ (basis.T @ vectors.T)
    return float(np.rad2deg(np.arcsin(min(1.0, np.linalg.norm(missed, 2)))))


# -- non-negative components ------------------------------------------------------------------------


def bare_objective(scene: Path, components: Floats) -> float:
    """Return sum x log(x / mu) - x + mu at the best loadings h >= 0 of each pixel, mu = h S.

    Parameters
    ----------
    scene : Path
        Folder of a scene with its sparse rows.
    components : ndarray, shape (K, E)
        Of any scale.
    """
    indptr, indices, data, _ = rows(scene)
    data = data.astype(np.float64)  # one type, compiled once
    scaled = np.maximum(components, 0.0)
    scaled = np.maximum(scaled / scaled.sum(axis=1, keepdims=True), FLOOR)
    found = np.zeros(len(indptr) - 1)
    spectra = np.ascontiguousarray(scaled.T)
    _in_threads(len(found), lambda a, b: _deviances(indptr, indices, data, spectra, a, b, found))
    return float(found.sum())


def _in_threads(n_pixels: int, work: Callable[[int, int], None], threads: int = 2) -> None:
    """Call work(begin, end) on equal shares of the pixels; compiled code that lets others run meanwhile."""
    edges = np.linspace(0, n_pixels, threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _deviances(indptr, indices, data, spectra, first, last, found):  # type: ignore[no-untyped-def]
    """Each pixel's part; spectra (E, K). Expectation maximisation, then Newton's method on what is free."""
    n_k = spectra.shape[1]
    sums = spectra.sum(axis=0)
    for p in range(first, last):
        begin, end = indptr[p], indptr[p + 1]
        if begin == end:
            continue
        total = 0.0
        for i in range(begin, end):
            total += data[i]
        loads = np.full(n_k, total / n_k)
        trial = np.empty(n_k)
        value = _value(indices, data, spectra, sums, begin, end, loads)
        for step in range(200):
            gradient, hessian = _slopes(indices, data, spectra, sums, begin, end, loads)
            # What is wrong with the optimum's conditions, in nats.
            wrong = 0.0
            for k in range(n_k):
                wrong = max(wrong, abs(loads[k] * gradient[k]), -gradient[k] * total * 1e-3)
            if wrong < 1e-7 * max(1.0, total):
                break
            better = False
            if step >= 4:
                better, value = _newton(
                    indices, data, spectra, sums, begin, end, loads, trial, gradient, hessian, value
                )
            if not better:
                for k in range(n_k):
                    loads[k] *= 1.0 - gradient[k] / sums[k]
                value = _value(indices, data, spectra, sums, begin, end, loads)
        found[p] = value


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _value(indices, data, spectra, sums, begin, end, loads):  # type: ignore[no-untyped-def]
    value = 0.0
    for k in range(loads.size):
        value += loads[k] * sums[k]
    for i in range(begin, end):
        mean = 0.0
        for k in range(loads.size):
            mean += loads[k] * spectra[indices[i], k]
        x = float(data[i])
        if mean <= 0.0:
            return np.inf
        value += x * np.log(x / mean) - x
    return value


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _slopes(indices, data, spectra, sums, begin, end, loads):  # type: ignore[no-untyped-def]
    n_k = loads.size
    gradient, hessian = sums.copy(), np.zeros((n_k, n_k))
    for i in range(begin, end):
        mean = 0.0
        for k in range(n_k):
            mean += loads[k] * spectra[indices[i], k]
        ratio = data[i] / mean
        for k in range(n_k):
            gradient[k] -= ratio * spectra[indices[i], k]
            for m in range(k + 1):
                hessian[k, m] += ratio / mean * spectra[indices[i], k] * spectra[indices[i], m]
    for k in range(n_k):
        for m in range(k):
            hessian[m, k] = hessian[k, m]
    return gradient, hessian


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _newton(  # type: ignore[no-untyped-def]
    indices, data, spectra, sums, begin, end, loads, trial, gradient, hessian, value
):
    """Take Newton's step among the loads that are free, cut at zero, halved until it is a gain."""
    n_k = loads.size
    n_free = 0
    free = np.empty(n_k, np.int64)
    for k in range(n_k):
        if gradient[k] < 0.0 or loads[k] > 1e-9:
            free[n_free] = k
            n_free += 1
    if n_free == 0:
        return False, value
    small = np.empty((n_free, n_free))
    right = np.empty(n_free)
    for a in range(n_free):
        right[a] = -gradient[free[a]]
        for b in range(n_free):
            small[a, b] = hessian[free[a], free[b]]
        small[a, a] = small[a, a] * (1.0 + 1e-10) + 1e-300
    way = np.linalg.solve(small, right)
    length = 1.0
    for _ in range(8):
        for k in range(n_k):
            trial[k] = loads[k] if loads[k] > 1e-9 else 0.0
        for a in range(n_free):
            trial[free[a]] = max(0.0, loads[free[a]] + length * way[a])
        there = _value(indices, data, spectra, sums, begin, end, trial)
        if there < value:
            loads[:] = trial
            return True, there
        length *= 0.5
    return False, value


# -- clusters ---------------------------------------------------------------------------------------


def inertia_of_labels(
    scene: Path, labels: NDArray[np.int32], n_clusters: int, profiles: bool
) -> float:
    """Weighted sum of squared distances of pixels to the means of their clusters."""
    values, weights = cluster_features(scene, profiles)
    indptr, indices, _, shape = rows(scene)
    sums, won = _cluster_sums(indptr, indices, values, weights, labels, n_clusters, shape[1])
    squares = _squares(indptr, values, weights)
    return float(squares - (np.square(sums).sum(axis=1) / np.where(won > 0, won, 1.0)).sum())


def total_inertia(scene: Path, profiles: bool) -> float:
    """Sum of squared distances to the mean of all pixels."""
    n_pixels = len(rows(scene)[0]) - 1
    return inertia_of_labels(scene, np.zeros(n_pixels, np.int32), 1, profiles)


def cluster_features(scene: Path, profiles: bool) -> tuple[Floats, Floats]:
    """Values of the sparse rows, and weights of the pixels.

    Counts as they are; or profiles x / (g sqrt(h)), in the metric of counting noise, weighted by g.
    """
    indptr, indices, data, _ = rows(scene)
    values = data.astype(np.float64)
    if not profiles:
        return values, np.ones(len(indptr) - 1)
    g, h = totals(scene)
    values /= np.repeat(np.where(g > 0, g, 1.0), np.diff(indptr))
    values /= np.sqrt(np.where(h > 0, h, 1.0))[indices]
    return values, g


def lowest_inertia(
    scene: Path, n_clusters: int, profiles: bool, directions: Floats | None = None
) -> float:
    """The lowest inertia of Lloyd's passes over all pixels from several starts.

    The starts are scikit-learn's, on a sample of the pixels; and, where directions (K, E) of the signal are
    given, on all pixels projected on them, where noise is not in the way.
    """
    from scipy.sparse import csr_array
    from sklearn.cluster import KMeans

    indptr, indices, _, shape = rows(scene)
    values, weights = cluster_features(scene, profiles)
    matrix = csr_array((values, indices, indptr.astype(np.int32)), shape=shape)
    sample = np.random.default_rng(0).permutation(np.flatnonzero(weights > 0))[:20000]
    starts = [
        KMeans(n_clusters, n_init=2, random_state=seed)
        .fit(matrix[sample], sample_weight=weights[sample])
        .cluster_centers_
        for seed in range(3)
    ]
    if directions is not None:
        projected = matrix @ directions.T
        rough = KMeans(n_clusters, n_init=10, random_state=0)
        labels = rough.fit(projected, sample_weight=weights).labels_
        sums, won = _cluster_sums(indptr, indices, values, weights, labels, n_clusters, shape[1])
        starts.append(sums / np.maximum(won, 1e-300)[:, None])
    lowest = np.inf
    for start in starts:
        centers, previous = np.ascontiguousarray(start), np.inf
        for _ in range(100):
            labels, inertia = _assign(indptr, indices, values, weights, centers)
            if previous - inertia < 1e-7 * inertia:
                break
            previous = inertia
            sums, won = _cluster_sums(
                indptr, indices, values, weights, labels, n_clusters, shape[1]
            )
            centers = np.where(won[:, None] > 0, sums / np.maximum(won, 1e-300)[:, None], centers)
        lowest = min(lowest, inertia)
    return float(lowest)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _squares(indptr, values, weights):  # type: ignore[no-untyped-def]
    total = 0.0
    for p in range(len(indptr) - 1):
        for i in range(indptr[p], indptr[p + 1]):
            total += weights[p] * values[i] * values[i]
    return total


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _cluster_sums(  # type: ignore[no-untyped-def]
    indptr, indices, values, weights, labels, n_clusters, n_channels
):
    sums, won = np.zeros((n_clusters, n_channels)), np.zeros(n_clusters)
    for p in range(len(indptr) - 1):
        won[labels[p]] += weights[p]
        for i in range(indptr[p], indptr[p + 1]):
            sums[labels[p], indices[i]] += weights[p] * values[i]
    return sums, won


def _assign(
    indptr: NDArray[Any], indices: NDArray[Any], values: Floats, weights: Floats, centers: Floats
) -> tuple[NDArray[np.int32], float]:
    """Labels of the nearest centers (R, E), and the weighted sum of squared distances to them."""
    labels = np.zeros(len(indptr) - 1, np.int32)
    costs = np.zeros(len(labels))
    lengths = np.square(centers).sum(axis=1)
    _in_threads(
        len(labels),
        lambda a, b: _nearest(
            indptr, indices, values, weights, centers, lengths, a, b, labels, costs
        ),
    )
    return labels, float(costs.sum())


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _nearest(  # type: ignore[no-untyped-def]
    indptr, indices, values, weights, centers, lengths, first, last, labels, costs
):
    n_clusters = len(centers)
    for p in range(first, last):
        square = 0.0
        for i in range(indptr[p], indptr[p + 1]):
            square += values[i] * values[i]
        least = np.inf
        for r in range(n_clusters):
            dot = 0.0
            for i in range(indptr[p], indptr[p + 1]):
                dot += values[i] * centers[r, indices[i]]
            away = square - 2.0 * dot + lengths[r]
            if away < least:
                least = away
                labels[p] = r
        costs[p] = weights[p] * max(least, 0.0)


# -- a scene's exact answers, and the judge -----------------------------------------------------------


def exact(scene: Path) -> dict[str, Any]:
    """Make a scene's exact answers where they are not there yet, and return the numbers among them."""
    about = scene / "exact.json"
    known: dict[str, Any] = json.loads(about.read_text()) if about.exists() else {}
    if known.get("version") == VERSION and about.stat().st_mtime > _mtime(scene):
        return known
    truth = np.load(scene / "truth.npy")
    g, h = totals(scene)
    gram, sums = weighted_gram(pixels(scene), g, h)
    arrays = {"h": h}
    for centred in (False, True):
        values, vectors = exact_components(gram, sums, len(g), centred)
        name = "centred" if centred else "plain"
        arrays |= {f"{name}_values": values, f"{name}_vectors": vectors[: len(truth)]}
    np.savez(scene / "exact.npz", **arrays)
    k = len(truth)
    most, best = lowest_objective(scene, ["bins", truth], k)
    less, _ = lowest_objective(scene, ["bins", one_less(scene, best)], k - 1)
    objective, gain = {str(k): most, str(k - 1): less}, less - most
    inertia = {}
    for profiles in (False, True):
        low = lowest_inertia(scene, N_CLUSTERS, profiles, arrays["plain_vectors"])
        kind = "profiles" if profiles else "counts"
        inertia[kind] = {"lowest": low, "between": total_inertia(scene, profiles) - low}
    known = {
        "version": VERSION,
        "objective": objective,
        "last_component_gains": gain,
        "target": most + 0.01 * gain,
        "inertia": inertia,
        "true_components_objective": bare_objective(scene, truth),
    }
    about.write_text(json.dumps(known, indent=2) + "\n")
    return known


def _mtime(scene: Path) -> float:
    return (scene / "rows-data.npy").stat().st_mtime


def lowest_objective(scene: Path, starts: Sequence[Any], k: int) -> tuple[float, Floats]:
    """The lowest bare objective of long fits from different starts, and its components.

    The fits are emcube's, which can only make the reference stricter: an objective is an objective whoever
    reached it, and it is evaluated here.
    """
    import emcube as em

    cube = em.open(str(scene / "counts.zarr"))
    lowest, best = np.inf, np.empty(0)
    for start in starts:
        model = em.MiniBatchNMF(
            k, volume=0, tol=0, max_iter=REFERENCE_PASSES, init=start, random_state=0
        )
        components = np.nan_to_num(np.asarray(model.fit(cube).components_))
        there = bare_objective(scene, components)
        if there < lowest:
            lowest, best = there, components
    return lowest, best


def one_less(scene: Path, components: Floats) -> Floats:
    """Components without the one that is missed least, to start a fit with one less from."""
    fewer = [np.delete(components, j, axis=0) for j in range(len(components))]
    return fewer[int(np.argmin([bare_objective(scene, f) for f in fewer]))]


def judge(scene: Path, answer: Path, work: str, centred: bool) -> dict[str, Any]:
    """Return the quality of a method's answer.

    Parameters
    ----------
    scene, answer : Path
        Folders.
    work : str
        Of `benchmarks.methods.WORKS`.
    centred : bool
        The method subtracts the mean spectrum first.
    """
    known = exact(scene)
    place = answer / "answer.npz"
    found = dict(np.load(place)) if place.exists() else {}
    if work in ("pca", "pca-scores"):
        return _judge_pca(scene, found, centred)
    if work == "nmf-race":
        return _judge_race(scene, known, answer, found)
    if work == "nmf":
        from emcube.scenes.metrics import match_components

        truth, h = np.load(scene / "truth.npy"), np.load(scene / "exact.npz")["h"]
        _, angles = match_components(found["components"], truth, h)
        excess = _excess(scene, known, found["components"])
        return {"truth_deg": round(float(angles.max()), 4), "excess": excess}
    if work.startswith("kmeans"):
        profiles = work == "kmeans-profiles"
        reference = known["inertia"]["profiles" if profiles else "counts"]
        inertia = inertia_of_labels(scene, found["labels"], N_CLUSTERS, profiles)
        return {
            "inertia_from_labels": inertia,
            "inertia_excess": (inertia - reference["lowest"]) / reference["between"],
        }
    return {}


def _judge_pca(scene: Path, found: dict[str, Any], centred: bool) -> dict[str, Any]:
    exact_answer = np.load(scene / "exact.npz")
    name = "centred" if centred else "plain"
    vectors, values = exact_answer[f"{name}_vectors"], exact_answer[f"{name}_values"]
    if centred:
        # Without the mean spectrum one direction less holds signal; the next is noise, for everybody.
        vectors = vectors[:-1]
    quality = {
        "subspace_deg": round(worst_angle(found["components"], vectors, exact_answer["h"]), 6)
    }
    if "eigenvalues" in found:
        eigenvalues = found["eigenvalues"]
        n = min(len(eigenvalues), len(values))
        kept = values[:n] > 1e-6 * values[0]
        wrong = np.abs(eigenvalues[:n] / np.where(kept, values[:n], 1.0) - 1.0)[kept]
        quality |= {"n_eigenvalues": n, "eigenvalue_error": float(f"{wrong.max():.2g}")}
    return quality


def _excess(scene: Path, known: dict[str, Any], components: Floats) -> float:
    k = str(len(components))
    there = bare_objective(scene, components)
    return (there - known["objective"][k]) / known["last_component_gains"]


def _judge_race(
    scene: Path, known: dict[str, Any], answer: Path, found: dict[str, Any]
) -> dict[str, Any]:
    """Excess at the end, and the first time on the way at which it was at most one percent."""
    snapshots = sorted(answer.glob("snapshot-????.npz"))
    if not snapshots:
        return {"excess": _excess(scene, known, found["components"])} if found else {}
    return _first_below(
        [lambda p=p: _excess(scene, known, np.load(p)["components"]) for p in snapshots],
        [float(np.load(p)["seconds"]) for p in snapshots],
    )


def _first_below(
    excesses: Sequence[Any], seconds: Sequence[float], target: float = 0.01
) -> dict[str, Any]:
    """Bisect for the first snapshot that reaches the target; objectives go down, all but a little."""
    last = excesses[-1]()
    if last > target:
        return {"excess": last, "seconds_judged": seconds[-1]}
    low, high, reached = -1, len(excesses) - 1, last
    while high - low > 1:
        middle = (low + high) // 2
        there = excesses[middle]()
        if there <= target:
            high, reached = middle, there
        else:
            low = middle
    return {"excess": reached, "seconds_to_target": seconds[high], "seconds_judged": seconds[-1]}


if __name__ == "__main__":
    verb, place, *rest = sys.argv[1:]
    if verb == "exact":
        print(json.dumps(exact(Path(place))))
    else:
        print(json.dumps(judge(Path(place), Path(rest[0]), rest[1], rest[2] == "centred")))
