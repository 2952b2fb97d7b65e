"""Dense cubes of the benchmarks: an EELS map and a 4D-STEM map, simulated block by block.

The same bits on any number of threads: each row of the map draws from a stream of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
"""Stores of another number are made anew."""

BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Cube:
    """A dense cube of full size; `scale` shrinks every length alike."""

    name: str
    title: str
    shape: tuple[int, ...]
    dtype: str
    n_components: int

    def shape_at(self, scale: float) -> tuple[int, ...]:
        """Shape with a share of the cells."""
        factor = scale ** (1 / len(self.shape))
        return tuple(max(6, round(n * factor)) for n in self.shape)


EELS = Cube("eels", "EELS", (256, 256, 2048), "float32", 6)
STEM4D = Cube("stem4d", "4D-STEM", (128, 128, 128, 128), "uint16", 6)
CUBES = {c.name: c for c in (EELS, STEM4D)}


def loadings(rows: NDArray[np.float64], n_x: int, k: int) -> NDArray[np.float64]:
    """Shares of k phases, shape (y, x, k): each later one is rarer, the last a few particles.

    Parameters
    ----------
    rows : ndarray
        y of the wanted rows as a share of the map, 0 to 1.
    """
    from emcube.scenes.fields import smooth_field, step

    y, x = np.broadcast_arrays(256 * rows[:, None], 256 * (np.arange(n_x) + 0.5) / n_x)
    parts = [np.ones(y.shape)]
    for i in range(1, k):
        field = smooth_field(y, x, seed=40 + i, wavelength=70.0 / np.sqrt(i))
        parts.append(step(field, 0.35 * i - 0.5, 0.5))
    shares = np.stack(parts, axis=-1)
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


def eels_spectra(n: int, k: int) -> NDArray[np.float64]:
    """Power laws with an edge each, shape (k, n), mean one: from 100 to 1000 eV."""
    energy = np.linspace(100.0, 1000.0, n)
    spectra = []
    for i in range(k):
        onset = 180.0 + 620.0 * i / k
        beyond = np.maximum(energy - onset, 0.0)
        edge = (1.0 - np.exp(-beyond / 8.0)) * (energy / onset) ** -2.5
        edge += 0.6 * np.exp(-0.5 * ((energy - onset - 9.0) / 4.0) ** 2)
        spectra.append((energy / 100.0) ** -(2.6 + 0.1 * i) + 0.12 * (energy[0] / onset) * edge)
    shapes = np.array(spectra)
    return np.asarray(shapes / shapes.mean(axis=1, keepdims=True))


def patterns(n_y: int, n_x: int, k: int) -> NDArray[np.float64]:
    """Diffraction patterns of crystals turned and strained against each other, (k, n_y, n_x), mean one."""
    ky, kx = np.meshgrid(np.linspace(-10, 10, n_y), np.linspace(-10, 10, n_x), indexing="ij")
    images = []
    for i in range(k):
        turn, length = np.deg2rad(11.0 * i), 3.6 + 0.2 * i
        image = np.full((n_y, n_x), 0.0) + 0.25 * np.exp(-np.hypot(ky, kx) / 4.0)
        for h in range(-3, 4):
            for j in range(-3, 4):
                at_x = length * (h * np.cos(turn) - j * np.sin(turn))
                at_y = length * (h * np.sin(turn) + j * np.cos(turn))
                strength = np.exp(-0.05 * (at_x**2 + at_y**2)) * (1.0 if h == j == 0 else 0.5)
                away = np.hypot(ky - at_y, kx - at_x)
                image += strength / (1.0 + np.exp((away - 0.9) / 0.12))
        images.append(image)
    shapes = np.array(images)
    return np.asarray(shapes / shapes.mean(axis=(1, 2), keepdims=True))


def _draw(
    rows: NDArray[np.float64],
    n_x: int,
    spectra: NDArray[np.float64],
    level: float,
    counted: bool,
    block_info: Any = None,
) -> NDArray[Any]:
    """Some rows of the map, in the cube's dtype."""
    first = block_info[0]["array-location"][0][0]
    shares = loadings(rows, n_x, len(spectra))
    out = np.empty(shares.shape[:2] + spectra.shape[1:], np.uint16 if counted else np.float32)
    for i, share in enumerate(shares):
        rng = np.random.default_rng((7, int(first) + i))
        expected = level * np.tensordot(share, spectra, axes=1)
        if counted:
            out[i] = rng.poisson(expected)
        else:
            # Counting noise of some hundred electrons, and the read-out's.
            noise = rng.standard_normal(expected.shape, dtype=np.float32)
            out[i] = expected + np.sqrt(expected + 25.0) * noise
    return out


def make(cube: Cube, folder: Path, scale: float) -> Path:
    """Write the store of a cube unless it is there, and return its path."""
    import dask.array as da

    import emcube as em

    shape = cube.shape_at(scale)
    store, about = folder / f"{cube.name}-{scale:g}.zarr", folder / f"{cube.name}-{scale:g}.json"
    wanted = {"shape": list(shape), "format": FORMAT}
    if about.exists() and json.loads(about.read_text()) == wanted:
        return store
    folder.mkdir(parents=True, exist_ok=True)
    n_y, n_x, sig = shape[0], shape[1], shape[2:]
    counted = cube.dtype == "uint16"
    spectra = (
        patterns(*sig, cube.n_components) if counted else eels_spectra(*sig, cube.n_components)
    )
    row_bytes = n_x * int(np.prod(sig)) * np.dtype(cube.dtype).itemsize
    rows = da.from_array((np.arange(n_y) + 0.5) / n_y, chunks=max(1, BLOCK_BYTES // row_bytes))
    data = da.map_blocks(
        _draw,
        rows,
        n_x=n_x,
        spectra=spectra,
        level=12.0 if counted else 400.0,
        counted=counted,
        new_axis=list(range(1, len(shape))),
        chunks=(rows.chunks[0], (n_x,), *((n,) for n in sig)),
        dtype=cube.dtype,
        meta=np.empty((0,) * len(shape), dtype=cube.dtype),
    )
    sig_dims = ("ky", "kx") if counted else ("energy",)
    labelled = em.make_cube(data, dims=("y", "x", *sig_dims), sig_dims=sig_dims)
    em.ingest(labelled, store, overwrite=True)
    about.write_text(json.dumps(wanted))
    return store
