"""Scenes on disk, made once and kept: ``python -m benchmarks.data FOLDER NAME SCALE FULL``.

A scene's folder holds its store (``counts.zarr``), what it is (``scene.json``), its true components, and
where peers or judges want them the same counts as plain numbers (``counts.npy``) and as sparse rows
(``rows-*.npy``, the three arrays of a CSR matrix over pixels).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.methods import SCENES

FORMAT = 1
"""Folders of another number are made anew."""

ROW_PARTS = ("indptr", "indices", "data")


def make(folder: Path, name: str, scale: float, full: bool) -> dict[str, Any]:
    """Write what is missing of a scene, and return what it is.

    Parameters
    ----------
    folder : Path
    name : str
        Of `SCENES`.
    scale : float
        Share of the full size's pixels; 10 is ten times as many.
    full : bool
        With plain numbers and sparse rows; without them only the store.
    """
    about = folder / "scene.json"
    wanted = {"name": name, "scale": scale, "random_state": 0, "format": FORMAT}
    wanted |= dict(SCENES[name].options)
    known: dict[str, Any] = json.loads(about.read_text()) if about.exists() else {}
    if not (known and all(known.get(key) == value for key, value in wanted.items())):
        known = {**wanted, **_simulate(folder, name, scale)}
        about.write_text(json.dumps(known, indent=2) + "\n")
    if full and not (folder / "rows-data.npy").exists():
        _plain(folder)
    return known


def _simulate(folder: Path, name: str, scale: float) -> dict[str, Any]:
    import emcube as em

    for old in folder.glob("*.npy"):
        old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    scene = getattr(em.scenes, name)(scale=scale, random_state=0, **dict(SCENES[name].options))
    em.ingest(scene.cube, folder / "counts.zarr", overwrite=True)
    np.save(folder / "truth.npy", scene.components.values)
    cube = em.open(str(folder / "counts.zarr"))
    totals = cube.em.total_counts()
    return {
        "shape": list(cube.shape),
        "dtype": str(cube.dtype),
        "dense_bytes": int(cube.size * cube.dtype.itemsize),
        "counts_per_pixel": float(totals.mean()),
        "n_components": scene.n_components,
    }


def _plain(folder: Path) -> None:
    """Write the counts as plain numbers and as sparse rows, block by block."""
    import zarr

    array = zarr.open_array(str(folder / "counts.zarr"), path="data", mode="r")
    shape = array.shape
    plain = np.lib.format.open_memmap(
        folder / "counts.npy", mode="w+", dtype=array.dtype, shape=shape
    )
    per_pixel, channels, values = [], [], []
    for start in range(0, shape[0], array.chunks[0]):
        block = np.asarray(array[start : start + array.chunks[0]])
        plain[start : start + len(block)] = block
        rows = block.reshape(-1, shape[-1])
        filled = np.flatnonzero(rows)
        per_pixel.append(np.count_nonzero(rows, axis=1))
        channels.append((filled % shape[-1]).astype(np.int32))
        values.append(rows.reshape(-1)[filled])
    plain.flush()
    np.save(folder / "rows-indptr.npy", np.concatenate([[0], np.cumsum(np.concatenate(per_pixel))]))
    np.save(folder / "rows-indices.npy", np.concatenate(channels))
    np.save(folder / "rows-data.npy", np.concatenate(values))


def pixels(folder: Path) -> NDArray[Any]:
    """Counts as a matrix (P, E) that stays on disk until it is touched."""
    counts = np.load(folder / "counts.npy", mmap_mode="r")
    return counts.reshape(-1, counts.shape[-1])


def rows(folder: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], tuple[int, int]]:
    """indptr (int64), indices (int32) and data of the sparse rows, and the shape (P, E)."""
    parts = [np.load(folder / f"rows-{part}.npy") for part in ROW_PARTS]
    parts[0] = parts[0].astype(np.int64, copy=False)
    n_channels = np.load(folder / "counts.npy", mmap_mode="r").shape[-1]
    return parts[0], parts[1], parts[2], (len(parts[0]) - 1, n_channels)


def totals(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Totals of the pixels g (P,) and of the channels h (E,)."""
    indptr, indices, data, (_, n_channels) = rows(folder)
    sums = np.concatenate([[0.0], np.cumsum(data, dtype=np.float64)])
    h = np.bincount(indices, weights=data, minlength=n_channels).astype(np.float64)
    return sums[indptr[1:]] - sums[indptr[:-1]], h


if __name__ == "__main__":
    place, scene_name, share, whole = sys.argv[1:]
    print(json.dumps(make(Path(place), scene_name, float(share), whole == "full")))
