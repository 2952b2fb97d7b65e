"""Do we find what others find? ``python -m benchmarks.peers``: same data, same constraints, same objective.

scikit-learn runs here, pyMCR and espm in environments of their own (`benchmarks/environments.py`). Figures go
to benchmarks/results/peers.json and .md. Problems are small enough for the peers; times are of the same one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.clock import load, machine
from benchmarks.environments import ROOT, Unavailable, python_of

RESULTS = Path(__file__).parent / "results" / "peers.json"
VERSIONS = {"pyMCR": "pymcr", "espm": "espm", "scikit-learn": "scikit-learn"}

Floats = NDArray[np.float64]
Row = dict[str, Any]


def row(peer: str, what: str, figure: str, value: float, most: float, **seconds: float) -> Row:
    """One comparison: what was asked, by how much answers differ, and by how much they may."""
    return {
        "peer": peer,
        "what": what,
        "figure": figure,
        "value": float(f"{value:.3g}"),
        "most": most,
        "holds": bool(value <= most),
        **{name: round(value, 3) for name, value in seconds.items()},
    }


def angle(a: Floats, b: Floats) -> float:
    """Largest angle (degrees) between spectra and those of others that they are paired with."""
    from emcube.models.matching import match_values

    pairs, angles = match_values(a, b, np.ones(a.shape[1]))
    return float(angles[pairs[:, 0], pairs[:, 1]].max())


def weighted(cube: Any) -> Floats:
    """Counts (P, E) of used channels, weighted so that their noise is even (Keenan and Kotula)."""
    counts = cube.values.reshape(-1, cube.shape[-1]).astype(np.float64)
    g, h = counts.sum(axis=1), counts.sum(axis=0)
    counts = counts[:, h > 0]
    return np.asarray(counts / np.sqrt(np.maximum(g, 1.0)[:, None] * h[h > 0]) * np.sqrt(g.sum()))


# ----------------------------------------------------------------------------------------- scikit-learn


def independent_maps(cube: Any, k: int) -> list[Row]:
    """FastICA of maps: the scores of weighted PCA, all pixels, the same contrast."""
    from sklearn.decomposition import FastICA

    import emcube as em

    began = time.perf_counter()
    model = em.FastICA(k, domain="spatial", random_state=0).fit(cube)
    ours = time.perf_counter() - began
    x = weighted(cube)
    began = time.perf_counter()
    left, values, right = np.linalg.svd(x, full_matrices=False)
    scores = left[:, :k] * values[:k]
    peer = FastICA(k, max_iter=1000, tol=1e-8, random_state=0, whiten="unit-variance").fit(scores)
    theirs = time.perf_counter() - began
    h = cube.values.reshape(-1, cube.shape[-1]).sum(axis=0, dtype=np.float64)
    spectra = (np.linalg.inv(peer.components_.T) @ right[:k]) * np.sqrt(h[h > 0])
    # Signs and sizes are free.
    found = np.asarray(model.components_)[:, h > 0]
    spectra *= np.sign((spectra * np.abs(spectra)).sum(axis=1, keepdims=True))
    found = found * np.sign((found * np.abs(found)).sum(axis=1, keepdims=True))
    what = f"`FastICA(domain='spatial')`, {x.shape[0]:,} pixels"
    return [
        row("scikit-learn", what, "degrees", angle(found, spectra), 0.1, ours=ours, theirs=theirs)
    ]


def mixture(cube: Any, k: int) -> list[Row]:
    """GaussianMixture of scores, to the same optimum: log-likelihood and labels."""
    from sklearn.metrics import adjusted_rand_score
    from sklearn.mixture import GaussianMixture

    import emcube as em

    scores = np.asarray(em.IncrementalPCA(k).fit_transform(cube)).reshape(-1, k)
    rows = []
    for kind in ("full", "diag", "tied"):
        model = em.GaussianMixture(
            k, covariance_type=kind, features="counts", tol=1e-7, max_iter=500, random_state=0
        ).fit(scores)
        spread = np.asarray(model.covariances_)
        # From where ours ended: theirs finds nothing better near by, and its likelihood is the same.
        peer = GaussianMixture(
            k,
            covariance_type=kind,
            tol=1e-7,
            max_iter=500,
            weights_init=model.weights_,
            means_init=model.means_,
            precisions_init=1.0 / spread if kind == "diag" else np.linalg.inv(spread),
            reg_covar=model._ridge,
            random_state=0,
        ).fit(scores)
        apart = abs(float(model.lower_bound_) - float(peer.score(scores)))
        alike = adjusted_rand_score(peer.predict(scores), np.asarray(model.labels_))
        what = f"`GaussianMixture(covariance_type={kind!r})`"
        rows.append(row("scikit-learn", what, "nats a pixel", apart, 1e-5))
        rows.append(row("scikit-learn", what, "1 - Rand index of labels", 1.0 - alike, 0.01))
    return rows


# ----------------------------------------------------------------------------------- pyMCR and espm


def ask(peer: str, problem: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Have a peer solve a problem in its own environment.

    Raises
    ------
    Unavailable
        It does not install or does not run.
    """
    python = python_of(peer, say)
    with tempfile.TemporaryDirectory(prefix="emcube-peer-") as scratch:
        asked, answer = Path(scratch) / "problem.npz", Path(scratch) / "answer.npz"
        np.savez(asked, **problem)
        command = [python, "-W", "ignore", "-m", f"benchmarks.peer_{peer}", str(asked), str(answer)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()
            raise Unavailable(f"does not run: {last[-1] if last else done.returncode}")
        with np.load(answer) as found:
            return dict(found)


def resolved(cube: Any, k: int, say: Callable[[str], None], rounds: int = 50) -> list[Row]:
    """MCR by exact non-negative least squares: the same rounds from the same spectra."""
    import emcube as em

    x = weighted(cube)
    left, values, right = np.linalg.svd(x, full_matrices=False)
    reduced = np.asarray((left[:, :k] * values[:k]) @ right[:k])
    first = np.asarray(em.VCA(k, random_state=0).fit(cube).components_)
    h = cube.values.reshape(-1, cube.shape[-1]).sum(axis=0, dtype=np.float64)
    first = np.maximum(first[:, h > 0] / np.sqrt(h[h > 0]), 0.0)
    first /= first.sum(axis=1, keepdims=True)
    rows = []
    for fixed in ([], [0]):
        known = first[fixed] if fixed else None
        began = time.perf_counter()
        model = em.MCRALS(
            k, noise=None, known=known, init=first, pool=1, tol=0.0, max_iter=rounds, random_state=0
        ).fit(reduced)
        ours = time.perf_counter() - began
        problem = {"matrix": reduced, "first": first, "fixed": fixed, "rounds": rounds}
        peer = ask("pymcr", problem, say)
        # Its last error is of the spectra that its last round ends with, ours of those it began with.
        theirs_left = np.sqrt(peer["errors"][-2] * reduced.size / np.square(reduced).sum())
        what = f"`MCRALS`, {rounds} rounds{', one spectrum known' if fixed else ''}"
        rows.append(
            row(
                "pyMCR",
                what,
                "degrees",
                angle(np.asarray(model.components_), peer["components"]),
                0.5,
                ours=ours,
                theirs=float(peer["seconds"]),
            )
        )
        excess = abs(model.lack_of_fit_ / theirs_left - 1.0)
        rows.append(row("pyMCR", what, "lack of fit, relative", excess, 0.01))
    return rows


def deviance(counts: Floats, components: Floats, rounds: int = 400) -> float:
    """Sum of x log(x / m) - x + m at the best loadings for the components, by plain steps of EM."""
    spectra = np.maximum(components, 1e-12)
    spectra = spectra / spectra.sum(axis=1, keepdims=True)
    loads = np.repeat(counts.sum(axis=1, keepdims=True) / len(spectra), len(spectra), axis=1)
    for _ in range(rounds):
        loads = loads * ((counts / np.maximum(loads @ spectra, 1e-300)) @ spectra.T)
    model = np.maximum(loads @ spectra, 1e-300)
    logs = np.where(counts > 0, counts * np.log(np.maximum(counts, 1e-300) / model), 0.0)
    return float((logs - counts + model).sum())


def factorised(cube: Any, k: int, say: Callable[[str], None], rounds: int = 1000) -> list[Row]:
    """Poisson NMF without any regularisation: the objective that is reached from the same start."""
    import emcube as em

    counts = cube.values.reshape(-1, cube.shape[-1]).astype(np.float64)
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    rng = np.random.default_rng(0)
    first = rng.gamma(1.0, size=(k, counts.shape[1])) * counts.mean(axis=0)
    first /= first.sum(axis=1, keepdims=True)
    loadings = np.repeat(counts.sum(axis=1, keepdims=True) / k, k, axis=1)
    bare: dict[str, Any] = {"volume": 0, "tol": 0, "random_state": 0}
    began = time.perf_counter()
    model = em.MiniBatchNMF(k, init=first, max_iter=rounds, **bare).fit(counts.astype(np.uint16))
    ours = time.perf_counter() - began
    fewer = em.MiniBatchNMF(k - 1, max_iter=rounds, **bare).fit(counts.astype(np.uint16))
    peer = ask(
        "espm",
        {"matrix": counts, "first": first, "loadings": loadings, "rounds": rounds},
        say,
    )
    mine, theirs, less = (
        deviance(counts, np.asarray(found))
        for found in (model.components_, peer["components"], fewer.components_)
    )
    # Ours may be lower; that theirs is not lower is what is held.
    return [
        row(
            "espm",
            f"`MiniBatchNMF(volume=0)`, {rounds} passes, beside `SmoothNMF`",
            "objective over theirs, share of the last component's gain",
            (mine - theirs) / (less - mine),
            1e-3,
            ours=ours,
            theirs=float(peer["seconds"]),
        )
    ]


# ------------------------------------------------------------------------------------------ all of it


def measure(
    *, scale: float = 0.01, say: Callable[[str], None] = print, peers: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Compare with all peers, or with those that are named.

    Parameters
    ----------
    scale : float
        Of the SRM 2135c scene.
    """
    import emcube as em

    made = em.scenes.srm2135c(scale=scale, random_state=0)
    cube = made.cube.load()
    part = cube.isel(tilt=slice(0, None, 6))
    k = made.n_components
    asked: dict[str, list[Callable[[], list[Row]]]] = {
        "scikit-learn": [lambda: independent_maps(cube, k), lambda: mixture(part, k)],
        "pyMCR": [lambda: resolved(part, k, say)],
        "espm": [lambda: factorised(part, k, say)],
    }
    rows, failed = [], {}
    for peer, questions in asked.items():
        if peers and peer not in peers:
            continue
        for question in questions:
            say(peer)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    rows += question()
            except Unavailable as problem:
                failed[peer] = str(problem)
    return {
        "measured": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "load": load(),
        "shape": list(cube.shape),
        "part": list(part.shape),
        "rows": rows,
        "failed": failed,
    }


def markdown(found: dict[str, Any]) -> str:
    """Write the comparisons as a table."""
    lines = [
        "# The same answers as others",
        "",
        (
            "Same data, same constraints, same objective: the SRM 2135c scene, "
            f"{' x '.join(map(str, found['shape']))} for scikit-learn, "
            f"{' x '.join(map(str, found['part']))} for the others. "
            f"{found['measured']}, load {found['load']}."
        ),
        "",
        "| peer | method | differ by | at most | holds | ours | theirs |",
        "|---|---|---:|---:|---|---:|---:|",
    ]
    for one in found["rows"]:
        times = [f"{one[n]:.2f} s" if n in one else "" for n in ("ours", "theirs")]
        held = "yes" if one["holds"] else "**no**"
        lines.append(
            f"| {one['peer']} | {one['what']} | {one['value']:.2g} {one['figure']} | {one['most']:g} | "
            f"{held} | "
            f"{' | '.join(times)} |"
        )
    lines += [f"\n{peer} {why}" for peer, why in found["failed"].items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Compare, write the figures, and fail where answers differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--peers", nargs="+", default=[], choices=list(VERSIONS))
    parser.add_argument("--scale", type=float, default=0.01)
    parser.add_argument("--results", type=Path, default=RESULTS)
    wanted = parser.parse_args(arguments)
    found = measure(scale=wanted.scale, peers=tuple(wanted.peers))
    wanted.results.parent.mkdir(parents=True, exist_ok=True)
    wanted.results.write_text(json.dumps(found, indent=1) + "\n")
    text = markdown(found)
    wanted.results.with_suffix(".md").write_text(text)
    print(text)
    return 0 if all(one["holds"] for one in found["rows"]) and not found["failed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
