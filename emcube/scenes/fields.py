"""Random maps that can be evaluated anywhere: no block needs its neighbours, no size needs memory.

Coordinates y, x are in pixels of the scene's full size, whatever grid they are asked on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["blobs", "smooth_field", "step", "tile_uniform"]


def smooth_field(
    y: NDArray[np.float64], x: NDArray[np.float64], *, seed: int, wavelength: float, modes: int = 40
) -> NDArray[np.float64]:
    """Evaluate a smooth random field of zero mean and unit variance as a sum of plane waves.

    Parameters
    ----------
    y, x : ndarray
        Coordinates of the same shape, in pixels.
    seed : int
        Of directions, lengths and phases.
    wavelength : float
        Typical wavelength in pixels; they spread from 0.7 to 2 times this.
    modes : int
        Number of waves.

    Returns
    -------
    ndarray
        Same shape as `y`.
    """
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, modes)
    wave = 2 * np.pi / (wavelength * np.exp(rng.uniform(np.log(0.7), np.log(2.0), modes)))
    phase = rng.uniform(0, 2 * np.pi, modes)
    field = np.zeros(np.broadcast(y, x).shape)
    for a, k, p in zip(angle, wave, phase, strict=True):
        field += np.cos(k * np.sin(a) * y + k * np.cos(a) * x + p)
    return np.asarray(field * np.sqrt(2.0 / modes))


def step(field: NDArray[np.float64], at: float, width: float) -> NDArray[np.float64]:
    """Go smoothly from 0 below `at` to 1 above it, within about `width`."""
    return np.asarray(0.5 * (1.0 + np.tanh(2.0 * (field - at) / width)))


def blobs(
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    *,
    seed: int,
    cell: float,
    radius: tuple[float, float],
    edge: float,
    filled: float = 1.0,
) -> NDArray[np.float64]:
    """Evaluate round grains, at most one in each square of side `cell`: 1 inside, 0 outside.

    Parameters
    ----------
    y, x : ndarray
        Coordinates in pixels.
    seed : int
        Of places and sizes.
    cell : float
        Side of the squares, pixels; at least the largest radius.
    radius : (float, float)
        Smallest and largest radius, pixels.
    edge : float
        Width of the rim, pixels.
    filled : float
        Share of the squares that hold a grain.

    Returns
    -------
    ndarray
        Same shape as `y`.
    """
    row, column = np.floor(y / cell), np.floor(x / cell)
    inside = np.zeros(np.broadcast(y, x).shape)
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            r, c = row + dr, column + dc
            u = [tile_uniform(r, c, seed=seed + i) for i in range(4)]
            centre_y, centre_x = (r + u[0]) * cell, (c + u[1]) * cell
            size = radius[0] + (radius[1] - radius[0]) * u[2]
            away = np.hypot(y - centre_y, x - centre_x)
            grain = np.where(u[3] < filled, step(size - away, 0.0, edge), 0.0)
            inside = np.maximum(inside, grain)
    return inside


def tile_uniform(
    row: NDArray[np.float64], column: NDArray[np.float64], *, seed: int
) -> NDArray[np.float64]:
    """Give each tile of an endless grid its own uniform number in [0, 1)."""
    from emcube.kernels.sampling import hash_uniform

    # Tiles number from -2**31: neighbours of the first one have negative indices.
    r = (np.asarray(row) + 2.0**31).astype(np.uint64)
    c = (np.asarray(column) + 2.0**31).astype(np.uint64)
    return hash_uniform(r * np.uint64(2**32) + c, seed=seed)
