"""The scene of the comparison, and the exact answers: slow, obvious, and none of emcube's own models.

``python -m benchmarks.reference simulate FOLDER SCALE`` and ``... judge FOLDER METHOD...``; both print JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.comparison import PURE_PIXELS


def simulate(folder: Path, scale: float) -> dict[str, Any]:
    """Write the counts as a store and as plain numbers, and the true components."""
    import emcube as em

    scene = em.scenes.jadeite(scale=scale, random_state=0, pure_pixels=PURE_PIXELS)
    em.ingest(scene.cube, folder / "counts.zarr")
    counts = em.open(str(folder / "counts.zarr")).values
    np.save(folder / "counts.npy", counts)
    np.save(folder / "truth.npy", scene.components.values)
    return {
        "name": "jadeite",
        "scale": scale,
        "random_state": 0,
        "pure_pixels": PURE_PIXELS,
        "shape": list(counts.shape),
        "dtype": str(counts.dtype),
        "dense_bytes": counts.nbytes,
        "counts_per_pixel": float(counts.sum(dtype=np.int64) / counts[..., 0].size),
        "n_components": scene.n_components,
    }


def weighted_directions(
    counts: NDArray[Any], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the k leading right singular vectors of X = D sqrt(N / (g h)), and h.

    In double precision, from the sum of X' X over pixels. Letters: P pixels, E channels.

    Parameters
    ----------
    counts : ndarray, shape (P, E)
    k : int

    Returns
    -------
    vectors : ndarray, shape (k, E)
    channel_totals : ndarray, shape (E,)
    """
    gram = np.zeros((counts.shape[1], counts.shape[1]))
    h = counts.sum(axis=0, dtype=np.float64)
    scale = np.sqrt(1.0 / np.where(h > 0, h, 1.0))
    for start in range(0, len(counts), 4096):
        rows = counts[start : start + 4096].astype(np.float64)
        g = rows.sum(axis=1, keepdims=True)
        rows *= scale / np.sqrt(np.where(g > 0, g, 1.0))
        gram += rows.T @ rows
    _, vectors = np.linalg.eigh(gram)
    return vectors[:, : -k - 1 : -1].T, h


def worst_angle(
    found: NDArray[np.float64], vectors: NDArray[np.float64], h: NDArray[np.float64]
) -> float:
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


def judge(folder: Path, names: list[str]) -> dict[str, dict[str, float]]:
    """Return each method's worst angles: to the exact subspace, and to the true components."""
    from emcube.scenes.metrics import match_components

    counts = np.load(folder / "counts.npy", mmap_mode="r")
    counts = counts.reshape(-1, counts.shape[-1])
    truth = np.load(folder / "truth.npy")
    vectors, h = weighted_directions(counts, len(truth))
    answers = {}
    for name in names:
        found = np.load(folder / f"{name}.npy").astype(np.float64)
        _, angles = match_components(found, truth, h)
        answers[name] = {
            "subspace_deg": round(worst_angle(found, vectors, h), 6),
            "truth_deg": round(float(angles.max()), 4),
        }
    return answers


if __name__ == "__main__":
    verb, place, *rest = sys.argv[1:]
    if verb == "simulate":
        print(json.dumps(simulate(Path(place), float(rest[0]))))
    else:
        print(json.dumps(judge(Path(place), rest)))
