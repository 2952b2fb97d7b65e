"""Scenes on disk, made once and kept: ``python -m benchmarks.data FOLDER NAME SCALE FULL``.

A scene's folder holds its store (``counts.zarr``; ``events.zarr`` is the same as events), what it is
(``scene.json``), its true components, and where peers or judges want them the same counts as plain
numbers (``counts.npy``) and as sparse rows (``rows-*.npy``, the three arrays of a CSR matrix over pixels).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.methods import SCENES

FORMAT = 2
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
    if full and not (folder / "events.json").exists():
        _events(folder)
    return known


def _events(folder: Path) -> None:
    """Keep the counts as events too."""
    import emcube as em

    em.ingest(folder / "counts.zarr", folder / "events.zarr", layout="events", overwrite=True)
    (folder / "events.json").write_text("{}")


def _simulate(folder: Path, name: str, scale: float) -> dict[str, Any]:
    import emcube as em

    for old in [*folder.glob("*.npy"), folder / "events.json"]:
        old.unlink(missing_ok=True)
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
    per_pixel, channels, values, pixel_totals = [], [], [], []
    channel_totals = np.zeros(shape[-1])
    for start in range(0, shape[0], array.chunks[0]):
        block = np.asarray(array[start : start + array.chunks[0]])
        plain[start : start + len(block)] = block
        rows = block.reshape(-1, shape[-1])
        filled = np.flatnonzero(rows)
        per_pixel.append(np.count_nonzero(rows, axis=1))
        channels.append((filled % shape[-1]).astype(np.int32))
        values.append(rows.reshape(-1)[filled])
        pixel_totals.append(rows.sum(axis=1, dtype=np.float64))
        channel_totals += rows.sum(axis=0, dtype=np.float64)
    plain.flush()
    np.save(folder / "rows-indptr.npy", np.concatenate([[0], np.cumsum(np.concatenate(per_pixel))]))
    np.save(folder / "rows-indices.npy", np.concatenate(channels))
    np.save(folder / "pixel-totals.npy", np.concatenate(pixel_totals))
    np.save(folder / "channel-totals.npy", channel_totals)
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


def blocks(folder: Path, size: int = 8192) -> Iterator[tuple[int, NDArray[Any]]]:
    """First pixel and counts (p, E) of each block, read as from any file.

    A mapped file would count as memory of the process that reads it.
    """
    mapped = pixels(folder)
    (n_pixels, n_channels), dtype, offset = mapped.shape, mapped.dtype, _offset(folder)
    with (folder / "counts.npy").open("rb") as file:
        file.seek(offset)
        for start in range(0, n_pixels, size):
            n = min(size, n_pixels - start)
            yield start, np.fromfile(file, dtype, n * n_channels).reshape(n, n_channels)


def _offset(folder: Path) -> int:
    mapped = np.load(folder / "counts.npy", mmap_mode="r")
    return int(mapped.offset)


def totals(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Totals of the pixels g (P,) and of the channels h (E,)."""
    return np.load(folder / "pixel-totals.npy"), np.load(folder / "channel-totals.npy")


if __name__ == "__main__":
    place, scene_name, share, whole = sys.argv[1:]
    print(json.dumps(make(Path(place), scene_name, float(share), whole == "full")))
