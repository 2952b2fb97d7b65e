"""Where variants of NMF help and where they mislead: ``python -m benchmarks.variants_truth [--seeds N]``.

Spectra are those of the jadeite scene in 391 channels, maps are made to suit or to hurt each variant. Written
for each case and model: the mean angle of the components (degrees, weighted) and the relative error of the
maps, medians over the seeds, which are not those of the tests.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "variants_truth.json"
ELEMENTS = ["O", "Na", "Mg", "Al", "Si", "Ca", "Fe"]


def shares_of(n: int, seed: int, steep: float) -> Any:
    """Three shares (n, n, 3) that change slowly over the image."""
    rng = np.random.default_rng((seed, 1))
    y, x = np.mgrid[:n, :n] * (40 / n)
    a, b, c, d = rng.uniform(7, 15, 4)
    fields = np.stack([1.4 * np.sin(x / a + y / b), 1.4 * np.cos(y / c - x / d), 0 * x], axis=-1)
    shares = np.exp(steep * fields)
    return shares / shares.sum(axis=-1, keepdims=True)


def grains_of(seed: int) -> Any:
    """Grains (40, 40, 4) of one phase each."""
    phase = np.random.default_rng((seed, 2)).integers(0, 4, (8, 8)).repeat(5, 0).repeat(5, 1)
    return np.eye(4)[phase]


def cases(seed: int, spectra: Any) -> dict[str, tuple[tuple[int, ...], Any, dict[str, Any]]]:
    """Name to phases, loadings, and models by name."""
    smooth = shares_of(40, seed, 1.5)
    plain: dict[str, Any] = {"plain": {}}
    basis = {"basis": {"basis": {"elements": ELEMENTS}}}
    return {
        "slow changes, 30 counts": ((0, 1, 3), 30 * smooth, {**plain, "smoothness 1": {"smoothness": 1.0}}),
        "grains of 5 pixels, 60 counts": (
            (0, 1, 2, 3),
            60 * grains_of(seed),
            {**plain, "sparsity 1": {"sparsity": 1.0}, "smoothness 3": {"smoothness": 3.0}},
        ),
        "all mixed, 300 counts": (
            (0, 1, 3),
            300 * shares_of(40, seed, 0.6),
            {
                **plain,
                "two known": {"known": spectra[[3, 0]]},
                "sparsity 1": {"sparsity": 1.0},
            },
        ),
        "256 pixels of 30 counts": ((0, 1, 3), 30 * shares_of(16, seed, 1.5), {**plain, **basis}),
        "256 pixels of 3000 counts": ((0, 1, 3), 3000 * shares_of(16, seed, 1.5), {**plain, **basis}),
    }  # fmt: skip


def measure(seeds: list[int]) -> dict[str, dict[str, Any]]:
    """Medians over seeds, by case and model."""
    import emcube as em
    from emcube.scenes.metrics import loadings_error, match_components

    scene = em.scenes.jadeite(scale=0.01, random_state=0)
    spectra = scene.components.values.reshape(5, -1, 4).sum(axis=-1)
    energy = scene.components.energy.values.reshape(-1, 4).mean(axis=1)
    metadata = {k: scene.metadata[k] for k in ("beam_energy_keV",)}
    found: dict[str, dict[str, list[Any]]] = {}
    for seed in seeds:
        for case, (phases, loadings, models) in cases(seed, spectra).items():
            truth = spectra[list(phases)]
            counts = np.random.default_rng((seed, 3)).poisson(loadings @ truth).astype(np.uint16)
            cube = em.make_cube(
                counts, dims=("y", "x", "energy"), sig_dims=("energy",),
                coords={"energy": energy}, units={"energy": "keV"}, metadata=metadata,
            )  # fmt: skip
            for name, options in models.items():
                model = em.MiniBatchNMF(len(phases), random_state=seed, **options).fit(cube)
                values = np.nan_to_num(model.components_.values)
                order, angles = match_components(values, truth, counts.mean(axis=(0, 1)))
                maps = model.transform(cube).values[..., order].reshape(-1, len(phases))
                error = loadings_error(maps, loadings.reshape(maps.shape))
                found.setdefault(case, {}).setdefault(name, []).append(
                    (float(angles.mean()), error)
                )
    return {
        case: {
            name: {
                "angle_deg": round(float(np.median([a for a, _ in runs])), 1),
                "map_error": round(float(np.median([e for _, e in runs])), 3),
            }
            for name, runs in models.items()
        }
        for case, models in found.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a table, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    found = measure(list(range(101, 101 + given.seeds)))
    print("| case | model | mean angle | map error |\n|---|---|---|---|")
    for case, models in found.items():
        for name, value in models.items():
            print(f"| {case} | {name} | {value['angle_deg']} | {value['map_error']} |")
    given.results.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
