"""How far VCA, N-FINDR and SISAL are from the truth, scene by scene.

    python -m benchmarks.geometry [--seeds 3] [--write]

For each scene and method the angle to the truth of the endmember that is worst (degrees, weighted for
counting noise; the median over seeds), beside what it may be: 2 degrees, or 1.5 times the counting limit
that the method reports. For the ranges of SISAL, of `emcube.uncertainty` of minimum-volume NMF (by default,
that is with bootstrap) and of `emcube.rotation_range` of it (with Fisher's intervals), as they are
reported, the smallest share of a true spectrum's signal in channels that the range holds. ``--write`` puts
the table into benchmarks/results/geometry.md and into the page on endmembers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import emcube as em
from emcube.scenes.metrics import match_components

ROOT = Path(__file__).parents[1]
FIRST = 100
"""Seeds from here on: the ones before it were used while the methods were written."""

Made = tuple[xr.DataArray, NDArray[np.float64]]


def mixtures(seed: int, k: int = 4, cap: float = 0.8, counts: float = 3000.0) -> Made:
    """Mixtures of lines on a background, none of which holds more than `cap` of one component."""
    rng = np.random.default_rng(seed)
    channel = np.linspace(0.0, 1.0, 156)
    lines = np.exp(-0.5 * np.square((channel - rng.random((k, 4, 1))) / 0.012))
    spectra = 0.1 * np.exp(-channel / 0.4) + (rng.random((k, 4, 1)) * lines).sum(axis=1)
    return _drawn(rng, spectra, cap, counts)


def samson_like(seed: int, cap: float = 0.8, counts: float = 2000.0) -> Made:
    """Smooth spectra like those of soil, tree and water, none purer than `cap`."""
    x = np.linspace(0.0, 1.0, 156)
    tree = 0.08 + 0.12 * np.exp(-0.5 * np.square((x - 0.25) / 0.06))
    tree += 0.6 / (1.0 + np.exp(-(x - 0.55) / 0.03))
    spectra = np.array([0.3 + 0.5 * x, tree, 0.25 * np.exp(-x / 0.25) + 0.02])
    return _drawn(np.random.default_rng(seed), spectra, cap, counts)


def _drawn(
    rng: np.random.Generator, spectra: NDArray[np.float64], cap: float, counts: float
) -> Made:
    spectra = spectra / spectra.sum(axis=1, keepdims=True)
    shares = rng.dirichlet(np.ones(len(spectra)), 40_000)
    shares = shares[shares.max(axis=1) <= cap][:3600]
    drawn = rng.poisson(counts * shares @ spectra).reshape(60, 60, -1).astype(np.uint16)
    return em.make_cube(drawn, dims=("y", "x", "energy"), sig_dims=("energy",)), spectra


def _of_scene(scene: em.scenes.Scene) -> Made:
    return scene.cube.load(), np.asarray(scene.components.values)


SCENES: dict[str, Callable[[int], Made]] = {
    "jadeite, 4 % pure pixels of each": lambda s: _of_scene(
        em.scenes.jadeite(scale=0.06, random_state=s, pure_pixels=0.04)
    ),
    "SRM 2135c needle (pure layers)": lambda s: _of_scene(
        em.scenes.srm2135c(scale=0.03, random_state=s)
    ),
    "jadeite, no pure pixels": lambda s: _of_scene(em.scenes.jadeite(scale=0.06, random_state=s)),
    "four spectra, at most 0.8 of one": mixtures,
    "soil, tree, water, at most 0.8 of one": samson_like,
    "EELS, edges on their background": lambda s: _of_scene(
        em.scenes.eels(scale=0.5, random_state=s)
    ),
}


def held(low: Any, high: Any, truth: NDArray[np.float64]) -> float:
    """Smallest share of a true spectrum's signal in channels that the range holds."""
    inside = (np.asarray(low) <= truth + 1e-12) & (truth <= np.asarray(high) + 1e-12)
    return float(((inside * truth).sum(axis=1) / truth.sum(axis=1)).min())


def measured(make: Callable[[int], Made], seed: int) -> dict[str, tuple[float, float]]:
    """Figures of one scene: largest angle and what it may be, or share held and nothing."""
    cube, truth = make(seed)
    mean = cube.values.reshape(-1, cube.shape[-1]).mean(axis=0)
    found = {}
    for estimator in (em.VCA, em.NFINDR, em.SISAL):
        model = estimator(len(truth), random_state=seed).fit(cube)
        order, angles = match_components(model.components_.values, truth, mean)
        allowed = np.maximum(2.0, 1.5 * np.asarray(model.counting_limit_)[order])
        worst = int(np.argmax(angles / allowed))
        found[estimator.__name__] = float(angles[worst]), float(allowed[worst])
        if isinstance(model, em.SISAL):
            ends = model.components_range_.values[order]
            found["held"] = held(ends[:, 0], ends[:, 1], truth), np.nan
    nmf = em.MiniBatchNMF(len(truth), random_state=seed).fit(cube)
    order, _ = match_components(nmf.components_.values, truth, mean)
    for name, sure in (
        ("uncertainty held", em.uncertainty(nmf, cube)),
        ("rotation held", em.rotation_range(nmf, cube)),
    ):
        ends = sure.rotation_range.values[order]
        found[name] = held(ends[..., 0], ends[..., 1], truth), np.nan
    return found


def table(n_seeds: int) -> str:
    """The table, as Markdown; prints each row as soon as it is there."""
    lines = [
        (
            "| scene | VCA | N-FINDR | SISAL | SISAL's range holds | NMF: `uncertainty` holds "
            "| NMF: `rotation_range` holds |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name, make in SCENES.items():
        rows = [measured(make, FIRST + s) for s in range(n_seeds)]
        cells = []
        for method in ("VCA", "NFINDR", "SISAL"):
            angle, allowed = np.median([row[method] for row in rows], axis=0)
            cells.append(f"{angle:.1f} ({allowed:.1f})")
        ranges = ("held", "uncertainty held", "rotation held")
        least = (min(row[name][0] for row in rows) for name in ranges)
        cells.extend(f"{100 * share:.1f} %" for share in least)
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    lines.append("")
    lines.append(
        "Degrees: the endmember that is worst against what it may be (in brackets: 2, or 1.5 times the "
        f"counting limit); median of {n_seeds} seeds. Ranges: the smallest share of a true spectrum's "
        "signal in channels that the range holds, over all seeds and endmembers. NMF is of minimum "
        "volume; its range is that of `em.uncertainty` with bootstrap, and that of `em.rotation_range`, with "
        "Fisher's intervals on either side."
    )
    return "\n".join(lines) + "\n"


def write(text: str) -> None:
    """Put the table beside other results, and into the page on endmembers."""
    (ROOT / "benchmarks" / "results" / "geometry.md").write_text(text, encoding="utf-8")
    page = ROOT / "docs" / "methods" / "geometry.md"
    begin, end = "<!-- geometry-table -->\n", "<!-- /geometry-table -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    text = table(options.seeds)
    if options.write:
        write(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
