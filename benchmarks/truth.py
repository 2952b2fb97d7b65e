"""How far every way of unmixing is from the truth, where it is known: ``python -m benchmarks.truth``.

Simulated scenes, each with several seeds of specimen and counts, and Samson, a remote-sensing map with
reference spectra (``--data FOLDER``, or EMCUBE_TEST_DATA). Figures go to benchmarks/results/truth.json, .md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.clock import machine

RESULTS = Path(__file__).parent / "results" / "truth.json"

Floats = NDArray[np.float64]
Limit = Callable[[Any, NDArray[np.intp]], Floats]


def degrees(most: float) -> Limit:
    """The same limit for each component."""
    return lambda model, order: np.full(len(order), most)


def counting(model: Any, order: NDArray[np.intp]) -> Floats:
    """Two degrees, or one and a half times what counting noise alone does to the spectra used."""
    return np.asarray(np.maximum(2.0, 1.5 * np.asarray(model.counting_limit_)[order]))


@dataclass(frozen=True)
class Claim:
    """A method on a scene, and how far its components may be from the true ones.

    Attributes
    ----------
    scene : str
        Of `emcube.scenes`.
    options : dict
        Of the scene.
    scales : tuple of float
        Shares of the full number of pixels.
    make : callable
        Model from the package, K and a seed.
    limit : callable
        Degrees that each component may be off, from the model and the order of its components.
    """

    title: str
    scene: str
    scales: tuple[float, ...]
    make: Callable[[Any, int, int], Any]
    limit: Limit
    options: tuple[tuple[str, float], ...] = ()


PURE = (("pure_pixels", 0.01),)

CLAIMS = (
    Claim(
        "FastICA",
        "srm2135c",
        (0.03, 0.1, 0.3),
        lambda em, k, seed: em.FastICA(k, random_state=seed),
        degrees(5.0),
    ),
    Claim(
        "MCRALS",
        "srm2135c",
        (0.03, 0.1, 0.3),
        lambda em, k, seed: em.MCRALS(k, random_state=seed),
        degrees(3.0),
    ),
    Claim(
        "VCA", "srm2135c", (0.03, 0.1), lambda em, k, seed: em.VCA(k, random_state=seed), counting
    ),
    Claim(
        "VCA",
        "jadeite",
        (0.1, 0.3),
        lambda em, k, seed: em.VCA(k, random_state=seed),
        counting,
        PURE,
    ),
    Claim(
        "SISAL",
        "srm2135c",
        (0.03, 0.1),
        lambda em, k, seed: em.SISAL(k, random_state=seed),
        counting,
    ),
    Claim(
        "SISAL",
        "jadeite",
        (0.1, 0.3),
        lambda em, k, seed: em.SISAL(k, random_state=seed),
        counting,
        PURE,
    ),
    Claim(
        "NFINDR",
        "srm2135c",
        (0.03, 0.1),
        lambda em, k, seed: em.NFINDR(k, random_state=seed),
        counting,
    ),
    Claim(
        "NFINDR",
        "jadeite",
        (0.1, 0.3),
        lambda em, k, seed: em.NFINDR(k, random_state=seed),
        counting,
        PURE,
    ),
)
"""Add a claim here."""


def judge(claim: Claim, scene: Any, cube: Any, seed: int) -> dict[str, Any]:
    """Fit a claim's method to a scene, and compare its components with the true ones."""
    import emcube as em
    from emcube.scenes.metrics import match_components

    model = claim.make(em, scene.n_components, seed).fit(cube)
    mean = np.asarray(cube.em.sum_spectrum())
    order, angles = match_components(model.components_.values, scene.components.values, mean)
    allowed = claim.limit(model, order)
    return {
        "method": claim.title,
        "scene": claim.scene,
        "angles_deg": [round(float(a), 2) for a in angles],
        "allowed_deg": [round(float(a), 2) for a in allowed],
        "holds": bool((angles <= allowed).all()),
    }


def scenes(
    claims: tuple[Claim, ...], seeds: int, largest: float
) -> Iterator[tuple[list[Claim], float, int, Any, Any]]:
    """Claims on the same scene, its scale and seed, the scene, and its cube in memory."""
    import emcube as em

    kinds = sorted({(c.scene, c.options, s) for c in claims for s in c.scales if s <= largest})
    for name, options, scale in kinds:
        asked = [c for c in claims if (c.scene, c.options) == (name, options) and scale in c.scales]
        for seed in range(seeds):
            made = getattr(em.scenes, name)(scale=scale, random_state=seed, **dict(options))
            yield asked, scale, seed, made, made.cube.load()


def samson(folder: Path, seed: int) -> list[dict[str, Any]]:
    """Plain angles in radians to the reference spectra of soil, tree and water."""
    from scipy.optimize import linear_sum_assignment

    import emcube as em

    path = folder / "unmix_gt" / "Samson.mat"
    cube, reference = em.open(path).load(), np.asarray(em.open(path, "GT"))
    found = []
    for name in ("VCA", "NFINDR", "MCRALS", "MiniBatchNMF"):
        more = {"beta_loss": "frobenius"} if name == "MiniBatchNMF" else {}
        components = getattr(em, name)(3, random_state=seed, **more).fit(cube).components_.values
        a, b = (s / np.linalg.norm(s, axis=1, keepdims=True) for s in (components, reference))
        between = np.arccos(np.clip(b @ a.T, -1, 1))
        soil, tree, water = between[linear_sum_assignment(between)]
        found.append(
            {
                "method": name,
                "scene": "Samson",
                "seed": seed,
                "soil_rad": round(float(soil), 4),
                "tree_rad": round(float(tree), 4),
                "water_rad": round(float(water), 4),
                "holds": bool(max(soil, tree) < 0.1),
            }
        )
    return found


def measure(
    *,
    claims: tuple[Claim, ...] = CLAIMS,
    seeds: int = 3,
    largest: float = 1.0,
    folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Judge all claims.

    Parameters
    ----------
    seeds : int
        Scenes (and random states of methods) of each claim.
    largest : float
        Scales above it are left out.
    folder : Path, optional
        Real data; without it Samson is left out.
    """
    rows = []
    for asked, scale, seed, made, cube in scenes(claims, seeds, largest):
        for claim in asked:
            row = {**judge(claim, made, cube, seed), "scale": scale, "seed": seed}
            say(f"{claim.title}, {claim.scene} {scale:g}, seed {seed}: {row['angles_deg']}")
            rows.append(row)
    real = [] if folder is None else [row for seed in range(seeds) for row in samson(folder, seed)]
    return {
        "measured": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "seeds": seeds,
        "rows": rows,
        "samson": real,
    }


def markdown(found: dict[str, Any]) -> str:
    """Write the figures: for each method, scene and scale the worst of all seeds."""
    lines = [
        "# How far from the truth",
        "",
        (
            f"The worst component of {found['seeds']} seeds of specimen, counts and method, weighted for "
            "counting noise. Where the limit is that of counting noise, it is 2 degrees or 1.5 times what "
            "noise does to the spectra used."
        ),
        "",
        "| method | scene | scale | off by, seed by seed | allowed | holds |",
        "|---|---|---:|---:|---:|---|",
    ]
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for row in found["rows"]:
        groups.setdefault((row["method"], row["scene"], row["scale"]), []).append(row)
    for (method, scene, scale), rows in sorted(groups.items()):
        worst = ", ".join(f"{max(r['angles_deg']):.1f}" for r in rows)
        allowed = [a for r in rows for a in r["allowed_deg"]]
        most = f"{min(allowed):.1f}"
        most += "" if min(allowed) == max(allowed) else f" to {max(allowed):.1f}"
        held = "yes" if all(r["holds"] for r in rows) else "**no**"
        lines.append(f"| `{method}` | {scene} | {scale:g} | {worst}° | {most}° | {held} |")
    if found["samson"]:
        lines += [
            "",
            "Samson, plain angles in radians; the dark water is reported, soil and tree are held to 0.1:",
            "",
        ]
        lines += [
            "| method | seed | soil | tree | water | holds |",
            "|---|---:|---:|---:|---:|---|",
        ]
        for row in found["samson"]:
            cells = (f"{row[f'{name}_rad']:.3f}" for name in ("soil", "tree", "water"))
            held = "yes" if row["holds"] else "**no**"
            lines.append(f"| `{row['method']}` | {row['seed']} | {' | '.join(cells)} | {held} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Judge all claims, write the figures, and fail where one does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truth", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--largest", type=float, default=1.0, help="leave larger scales out")
    parser.add_argument("--data", type=Path, default=os.environ.get("EMCUBE_TEST_DATA"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    wanted = parser.parse_args(arguments)
    folder = None if wanted.data is None else Path(wanted.data)
    found = measure(seeds=wanted.seeds, largest=wanted.largest, folder=folder)
    wanted.results.parent.mkdir(parents=True, exist_ok=True)
    wanted.results.write_text(json.dumps(found, indent=1) + "\n")
    text = markdown(found)
    wanted.results.with_suffix(".md").write_text(text)
    print(text)
    return 0 if all(row["holds"] for row in (*found["rows"], *found["samson"])) else 1


if __name__ == "__main__":
    raise SystemExit(main())
