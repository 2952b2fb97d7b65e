"""Variants of NMF beside espm's: ``python -m benchmarks.nmf_variants [--seconds N] [--scale S]``.

One scene (simulated jadeite), one start, the same objective: Kullback-Leibler divergence plus lambda / 2
tr(H L H'), spectra that sum to one; once smooth, once smooth with a basis of X-ray physics (the one that
`emcube.xray_basis` makes is given to espm as its matrix G). emcube runs here, espm in its own environment
(``.venv-bench/espm``); both answers are judged by the same function. espm's factors are rescaled so that its
spectra sum to one first. Seconds are those of all cores, so that a busy machine hardly counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.environments import ROOT, Unavailable, python_of

RESULTS = Path(__file__).parent / "results" / "nmf_variants.json"


def objective(
    counts: Any, loadings: Any, spectra: Any, smoothness: float, shape: tuple[int, int]
) -> float:
    """What both minimise, of loadings (P, K) and spectra (K, E) that sum to one."""
    mu = np.maximum(loadings @ spectra, 1e-30)
    terms = np.where(counts > 0, counts * np.log(np.maximum(counts, 1e-30) / mu), 0.0)
    value = float((terms - counts + mu).sum())
    image = loadings.reshape(*shape, -1)
    apart = sum(float(np.square(np.diff(image, axis=d)).sum()) for d in (0, 1))
    return value + 0.5 * smoothness * apart


def judged(
    counts: Any, loadings: Any, numbers: Any, basis: Any, smoothness: float, shape: tuple[int, int]
) -> tuple[float, Any, Any]:
    """Objective, spectra and loadings on the common scale."""
    spectra = numbers @ basis if basis is not None else numbers
    sums = spectra.sum(axis=1)
    spectra, loadings = spectra / sums[:, None], loadings * sums
    return objective(counts, loadings, spectra, smoothness, shape), spectra, loadings


def measure(scale: float, seconds: float, smoothness: float, *, physics: bool) -> dict[str, Any]:
    """Both programs on one problem: objective, time and truth."""
    import emcube as em
    from emcube.engine import resident
    from emcube.models.nmf_structure import coefficients_of
    from emcube.scenes.metrics import loadings_error, match_components

    scene = em.scenes.jadeite(scale=scale, random_state=1, pure_pixels=0.01)
    cube = scene.cube.load()
    shape = cube.shape[:2]
    counts = cube.values.reshape(-1, cube.shape[-1]).astype(np.float64)
    mean = counts.mean(axis=0)
    truth = scene.components.values
    true_maps = scene.loadings.values.reshape(-1, len(truth))
    k = len(truth)
    elements = ["C", "O", "Na", "Mg", "Al", "Si", "Ca", "Fe"]
    parameters = {"elements": elements, "layers": {"C": 42.0}} if physics else None
    basis = em.xray_basis(cube, **parameters).values if physics else None
    first = em.MiniBatchNMF(k, volume=0, max_iter=1, random_state=0).fit(cube)
    start = np.asarray(first.components_)
    loadings = first.transform(cube).values.reshape(-1, k)
    options: dict[str, Any] = {"volume": 0, "tol": 0, "init": start, "random_state": 0}
    options |= {"smoothness": smoothness, "basis": parameters, "max_iter": 100}
    with resident():
        em.MiniBatchNMF(k, **{**options, "max_iter": 1}).fit(cube)  # warm
        begun = time.process_time()
        model = em.MiniBatchNMF(k, **options).fit(cube)
        took = time.process_time() - begun
    maps = model.transform(cube).values.reshape(-1, k)
    tau = float(model.smoothness_strength_)
    ours = objective(counts, maps, np.asarray(model.components_), tau, shape)
    problem = {
        "counts": counts, "shape": shape, "smoothness": tau, "limit": seconds,
        "start": start if basis is None else coefficients_of(start, basis),
        "loadings": np.maximum(loadings, 1e-6), "basis": np.zeros(0) if basis is None else basis,
    }  # fmt: skip
    theirs = _espm(problem)
    path = [
        (float(t), *judged(counts, h, w, basis, tau, shape))
        for t, w, h in zip(theirs["seconds"], theirs["numbers"], theirs["loadings"], strict=True)
    ]
    last = path[-1]
    reached = next((t for t, value, _, _ in path if value <= ours), None)

    def truthful(spectra: Any, found: Any) -> dict[str, Any]:
        order, angles = match_components(spectra, truth, mean)
        return {
            "angles_deg": [round(float(a), 2) for a in angles],
            "map_error": round(float(loadings_error(found[:, order], true_maps)), 4),
        }

    return {
        "pixels": int(np.prod(shape)), "counts_per_pixel": float(counts.sum(axis=1).mean()),
        "lambda_L": tau, "basis": list(elements) if physics else None,
        "emcube": {"objective": ours, "told": float(model.objective_), "seconds": round(took, 2),
                   "passes": model.n_iter_, **truthful(np.asarray(model.components_), maps)},
        "espm": {"objective": last[1], "seconds": round(last[0], 2), "kept": len(path),
                 "reaches_ours_after": reached, **truthful(last[2], last[3])},
    }  # fmt: skip


def _espm(problem: dict[str, Any]) -> Any:
    python = python_of("espm", print)
    with TemporaryDirectory() as folder:
        np.savez(Path(folder) / "problem.npz", **problem)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
        subprocess.run(
            [python, "-m", "benchmarks.variants_espm", folder],
            check=True,
            cwd=ROOT,
            env=environment,
        )
        found = np.load(Path(folder) / "espm.npz")
        return {name: found[name] for name in found.files}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="espm's, of all cores")
    parser.add_argument("--scale", type=float, default=0.05)
    parser.add_argument("--smoothness", type=float, default=1.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    try:
        for name, physics in (("smooth", False), ("smooth, in a basis", True)):
            found[name] = measure(given.scale, given.seconds, given.smoothness, physics=physics)
            print(name, json.dumps(found[name], indent=1), flush=True)
            given.results.write_text(json.dumps(found, indent=1) + "\n")
    except Unavailable as error:
        raise SystemExit(f"espm {error}") from error
    print(f"wrote {given.results}")


if __name__ == "__main__":
    main()
