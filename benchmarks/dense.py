"""Dense cubes against the machine's bounds: ``python -m benchmarks.dense [--scale 1]``.

PCA and NMF of an EELS map (256 x 256 x 2048, float32) and PCA of a 4D-STEM map (128^4, uint16: 16,384
channels, by the randomized solver), each in a process of its own. Two bounds are measured in the same
process: the bare read pass of the store, and the bare BLAS products of the same size and number on as many
threads. An exact answer, slow and without emcube, tells by what angle the components are off; scikit-learn
gets the same values in memory, as float32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bare import read_pass
from benchmarks.clock import Clock, load, machine, peak_bytes
from benchmarks.cubes import CUBES, make

ROOT = Path(__file__).parent.parent
TOLERANCE_DEG = 0.5
"""Of the leading components; those that the fit bounds closer are judged."""

WORKS: dict[str, dict[str, Any]] = {
    "EELS PCA 20": {"cube": "eels", "model": "pca", "k": 20, "noise": None},
    "EELS PCA all": {"cube": "eels", "model": "pca", "k": None, "noise": None},
    "EELS NMF": {"cube": "eels", "model": "nmf", "k": 6},
    "4D-STEM weighted PCA 6": {"cube": "stem4d", "model": "pca", "k": 6, "noise": "poisson"},
    "4D-STEM weighted PCA 20": {"cube": "stem4d", "model": "pca", "k": 20, "noise": "poisson"},
    "4D-STEM PCA 20": {"cube": "stem4d", "model": "pca", "k": 20, "noise": None},
}

PEERS: dict[str, dict[str, Any]] = {
    "EELS PCA 20, scikit-learn covariance_eigh": {"cube": "eels", "solver": "covariance_eigh"},
    "EELS PCA 20, scikit-learn randomized": {"cube": "eels", "solver": "randomized"},
    "4D-STEM PCA 20, scikit-learn randomized": {"cube": "stem4d", "solver": "randomized"},
}


def measure(
    scale: float = 1.0,
    folder: Path | str | None = None,
    repeat: int = 3,
    threads: int | None = None,
    peers: bool = True,
    only: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Time, peak memory and angle of each work, with the bounds beside it.

    Parameters
    ----------
    scale : float
        Share of the cells; every length shrinks alike.
    folder : Path, optional
        Where the cubes are kept; default ``.bench`` beside the sources.
    repeat : int
        Runs of ours, after one on a small piece that compiles the kernels.
    threads : int, optional
        Default: the cores.
    peers : bool
        Run scikit-learn too, once.
    only : tuple of str
        Works, by their beginning; default all.
    """
    place = Path(folder) if folder is not None else ROOT / ".bench"
    threads = threads or len(os.sched_getaffinity(0))
    found: dict[str, Any] = {"scale": scale, "threads": threads, "load": [load()]}
    with tempfile.TemporaryDirectory() as scratch:
        for title, work in {**WORKS, **(PEERS if peers else {})}.items():
            if only and not title.startswith(only):
                continue
            store = make(CUBES[work["cube"]], place, scale)
            answer = Path(scratch) / "answer.npz"
            job = {**work, "store": str(store), "repeat": repeat, "threads": threads}
            job |= {"out": str(answer), "randomized": work["cube"] == "stem4d"}
            row = _child({**job, "task": "peer" if title in PEERS else work["model"]}, threads)
            if row.get("judged"):
                row |= _child({**job, "task": "judge", "judged": row["judged"]}, threads)
            found[title] = row
    found["load"].append(load())
    return found


def _child(job: dict[str, Any], threads: int) -> dict[str, Any]:
    """Do a job in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.dense", "--job", json.dumps(job)],
        cwd=ROOT,
        env={**os.environ, "EMCUBE_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a measured process failed:\n{done.stderr[-3000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _ours(job: dict[str, Any], fit: Callable[[Any], Any]) -> tuple[Any, dict[str, Any]]:
    """Fit as often as asked, with a bare read pass before, between and after; and its figures."""
    import emcube as em
    from emcube.engine import listen

    store = Path(job["store"])
    cube = em.open(str(store))
    piece = cube.isel(y=slice(0, max(1, 64 // cube.sizes["x"] + 1)))
    fit(piece)  # compiles, and loads libraries
    before = peak_bytes()
    projected: list[int] = []
    runs, reads = [], [_bare_read(store, job["threads"])]
    with listen(lambda event: projected.append(event.projected_bytes or 0)):
        for _ in range(job["repeat"]):
            clock = Clock()
            model = fit(cube)
            runs.append(clock.read())
            reads.append(_bare_read(store, job["threads"]))
    seconds = statistics.median(r["seconds"] for r in runs)
    cpu = statistics.median(r["cpu_seconds"] for r in runs)
    bare = {name: statistics.median(r[name] for r in reads) for name in reads[0]}
    row: dict[str, Any] = {
        "shape": list(cube.shape),
        "seconds": seconds,
        "runs": [r["seconds"] for r in runs],
        "cpu_seconds": cpu,
        "bare_read": bare,
        "in_bare_reads": _ratios(seconds, cpu, bare),
        "peak_bytes": peak_bytes(),
        "peak_of_a_small_piece_bytes": before,
        "projected_bytes": max(projected),
        "passes": int(model.n_iter_),
    }
    return model, row


def _pca(job: dict[str, Any]) -> dict[str, Any]:
    import emcube as em

    def fit(cube: Any) -> Any:
        most = min(cube.sizes["y"] * cube.sizes["x"], cube[0, 0].size)
        return em.IncrementalPCA(
            min(job["k"] or most, most),
            noise=job["noise"],
            svd_solver="randomized" if job["randomized"] else "auto",
            random_state=0,
        ).fit(cube)

    model, row = _ours(job, fit)
    n_channels = int(np.prod(row["shape"][2:]))
    n_pixels = row["shape"][0] * row["shape"][1]
    components = np.asarray(model.components_).reshape(model.n_components_, -1)
    np.savez(job["out"], components=components)
    angles = np.asarray(model.angle_)
    row["solver"] = model.solver_
    row["converged"] = bool(model.converged_)
    most = min(CUBES[job["cube"]].n_components, model.n_components_)
    told = np.flatnonzero(angles[:most] <= TOLERANCE_DEG)
    row["judged"] = int(told[-1]) + 1 if told.size else 0
    row["bound_deg"] = round(float(angles[row["judged"] - 1]), 4) if row["judged"] else None
    if model.solver_ == "randomized":
        width = min(model.n_components_ + model.n_oversamples, n_pixels, n_channels)
        bare = {
            kind: _bare_products(n_pixels, n_channels, width, kind, job, model.n_iter_)
            for kind in ("float32", "float64")
        }
    else:
        bare = {"float64": _bare_grams(n_pixels, n_channels, job)}
    for kind, used in bare.items():
        row[f"bare_{kind}"] = used
        row[f"in_bare_{kind}"] = _ratios(row["seconds"], row["cpu_seconds"], used)
    first = next(iter(bare.values()))
    both = {name: row["bare_read"][name] + first[name] for name in first}
    row["in_read_and_bare_products"] = _ratios(row["seconds"], row["cpu_seconds"], both)
    return row


def _nmf(job: dict[str, Any]) -> dict[str, Any]:
    import emcube as em
    from emcube.models.nmf_start import OVERSAMPLES, ROUNDS

    def fit(cube: Any) -> Any:
        return em.MiniBatchNMF(job["k"], beta_loss="frobenius", random_state=0).fit(cube)

    model, row = _ours(job, fit)
    n_channels, n_pixels = row["shape"][-1], row["shape"][0] * row["shape"][1]
    k = job["k"]
    for kind in ("float32", "float64"):
        full = _bare_products(n_pixels, n_channels, k, kind, job, 1)
        wide = _bare_products(n_pixels, n_channels, min(k + OVERSAMPLES, n_channels), kind, job, 1)
        row[f"bare_{kind}_a_pass"] = full
        # Passes for the subspace; for pooling and for corners, one product each; and the full ones.
        both = {
            name: row["bare_read"][name] + ROUNDS * wide[name] + (1 + row["passes"]) * full[name]
            for name in full
        }
        row[f"in_read_and_bare_{kind}"] = _ratios(row["seconds"], row["cpu_seconds"], both)
    cube = em.open(job["store"])
    components = np.asarray(model.components_)
    weights = np.asarray(model.transform(cube)).reshape(-1, job["k"])
    values = np.maximum(np.asarray(cube.values).reshape(n_pixels, -1), 0).astype(np.float64)
    best = np.linalg.eigvalsh(values.T @ values)[: -job["k"]].sum()
    residual = float(np.square(values - weights @ components).sum())
    # Of any matrix of this rank; a non-negative one is no better.
    row["residual_over_best_of_its_rank"] = round(residual / float(best), 5)
    row["judged"] = 0
    return row


def _bare_products(
    n_pixels: int, n_channels: int, width: int, kind: str, job: dict[str, Any], n_times: int
) -> dict[str, float]:
    """What so many times X B and X'(X B) cost, tile by tile on threads, X already in this precision."""
    rows = max(64, min(n_pixels, (4 << 20) // (np.dtype(kind).itemsize * n_channels)))
    rng = np.random.default_rng(0)
    tiles = [rng.random((rows, n_channels)).astype(kind) for _ in range(job["threads"])]
    vectors = rng.random((n_channels, width)).astype(kind)

    def work(tile: NDArray[Any], n_tiles: int) -> float:
        return sum(float((tile.T @ (tile @ vectors))[0, 0]) for _ in range(n_tiles))

    return _on_threads(work, tiles, n_pixels / rows, job, n_times)


def _bare_grams(n_pixels: int, n_channels: int, job: dict[str, Any]) -> dict[str, float]:
    """What X'X costs by dsyrk (half the products of a full matrix), tile by tile on threads."""
    from emcube.kernels._blas import add_outer_products

    rows = min(n_pixels, 1024)
    rng = np.random.default_rng(0)
    tiles = [rng.random((rows, n_channels)) for _ in range(job["threads"])]

    def work(tile: NDArray[Any], n_tiles: int) -> float:
        out = np.zeros((n_channels, n_channels))
        for _ in range(n_tiles):
            add_outer_products(tile, out)
        return float(out[0, 0])

    return _on_threads(work, tiles, n_pixels / rows, job)


def _on_threads(
    work: Callable[[Any, int], float],
    tiles: list[Any],
    n_tiles: float,
    job: dict[str, Any],
    n_times: int = 1,
) -> dict[str, float]:
    """What so many tiles cost in the median, one thread of BLAS each, times `n_times`."""
    from threadpoolctl import threadpool_limits

    n_each = max(1, round(n_tiles / len(tiles)))
    used = []
    with threadpool_limits(1), ThreadPoolExecutor(len(tiles)) as pool:
        for _ in range(job["repeat"] + 1):
            clock = Clock()
            list(pool.map(work, tiles, [n_each] * len(tiles)))
            used.append(clock.read())
    share = n_times * n_tiles / (n_each * len(tiles))
    return {
        name: round(share * statistics.median(u[name] for u in used[1:]), 4) for name in used[0]
    }


def _bare_read(store: Path, threads: int) -> dict[str, float]:
    """What a bare read pass costs."""
    clock = Clock()
    seconds = read_pass(store, threads)
    return {"seconds": round(seconds, 4), "cpu_seconds": clock.read()["cpu_seconds"]}


def _ratios(seconds: float, cpu: float, bare: dict[str, float]) -> dict[str, float]:
    """Time and CPU time in units of something bare; CPU time is what a busy machine leaves alone."""
    return {
        "seconds": round(seconds / max(bare["seconds"], 1e-4), 2),
        "cpu_seconds": round(cpu / max(bare["cpu_seconds"], 1e-4), 2),
    }


def _peer(job: dict[str, Any]) -> dict[str, Any]:
    """Fit scikit-learn's PCA to the values in memory, in a precision that it works in."""
    import zarr
    from sklearn.decomposition import PCA

    stored = np.asarray(zarr.open_array(job["store"], path="data", mode="r")[:])
    values = stored.reshape(stored.shape[0] * stored.shape[1], -1).astype(np.float32)
    k = min(20, *values.shape)
    PCA(min(3, k), svd_solver=job["solver"]).fit(values[:64])
    clock = Clock()
    model = PCA(k, svd_solver=job["solver"], random_state=0).fit(values)
    used = clock.read()
    np.savez(job["out"], components=model.components_)
    judged = 5 if job["cube"] == "stem4d" else CUBES[job["cube"]].n_components
    return {**used, "peak_bytes": peak_bytes(), "judged": judged}


def _judge(job: dict[str, Any]) -> dict[str, Any]:
    """Worst angle between the span of the first components and the exact one, in degrees."""
    import zarr
    from scipy.linalg import eigh, subspace_angles

    stored = np.asarray(zarr.open_array(job["store"], path="data", mode="r")[:])
    values = stored.reshape(stored.shape[0] * stored.shape[1], -1).astype(np.float64)
    del stored
    scale = np.ones(values.shape[1])
    if job.get("noise") == "poisson":
        g, h = values.sum(axis=1), values.sum(axis=0)
        scale = np.sqrt(h.sum() / np.where(h > 0, h, 1.0))
        values *= scale
        values /= np.sqrt(np.where(g > 0, g, 1.0))[:, None]
    else:
        values -= values.mean(axis=0)
    k, n = job["judged"], values.shape[1]
    if n <= 4096:
        _, vectors = eigh(values.T @ values, subset_by_index=(n - k, n - 1))
    else:
        vectors = _lanczos(values, k)
    found = np.load(job["out"])["components"][:k] * scale
    angle = np.rad2deg(subspace_angles(found.T, vectors).max())
    return {"angle_deg": round(float(angle), 6)}


def _lanczos(values: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Leading right singular vectors (E, k) by ARPACK, in float64 to nine digits."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    def product(v: NDArray[np.float64]) -> NDArray[np.float64]:
        return values.T @ (values @ v)

    operator = LinearOperator((values.shape[1],) * 2, matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(values.shape[1])
    _, vectors = eigsh(operator, k=k, tol=1e-9, v0=start)
    return np.asarray(vectors)


TASKS = {"pca": _pca, "nmf": _nmf, "peer": _peer, "judge": _judge}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dense", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cells")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--folder", type=Path, help="keep the cubes here")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--only", action="append", default=[], help="works by their beginning")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    wanted = parser.parse_args(arguments)
    if wanted.job:
        job = json.loads(wanted.job)
        print(json.dumps(TASKS[job["task"]](job)))
        return
    found = measure(
        wanted.scale,
        wanted.folder,
        wanted.repeat,
        wanted.threads,
        not wanted.without_peers,
        tuple(wanted.only),
    )
    print(json.dumps({"machine": machine(), **found}, indent=2))


if __name__ == "__main__":
    main()
