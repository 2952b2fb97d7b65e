"""A 4D-STEM map: a diffraction pattern at each pixel, from a few phases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

from emcube.errors import InputError
from emcube.scenes.base import Axis, Scene, assemble, check_scale, counts_from, named_seed
from emcube.scenes.fields import blobs, smooth_field, step

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["stem4d"]

FULL_SHAPE = (48, 64, 64, 64)
PIXEL_NM = 1.5
K_STEP = 0.32  # 1/nm a detector pixel
PHASES = ("matrix", "grain", "precipitate", "amorphous")
_DISK = 0.95  # radius of a disk, 1/nm

WHY = (
    "four patterns were put in: a crystalline matrix, a grain of the same crystal turned by 24 degrees, "
    "precipitates of a hexagonal phase and an amorphous rim"
)


@dataclass(frozen=True)
class _Foil:
    """Where the phases are; lengths in pixels of the full size."""

    seed: int
    counts: float

    def loadings(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the expected counts (..., phase)."""
        wander = 3.0 * smooth_field(y, x, seed=self.seed, wavelength=40.0)
        amorphous = step(x - 54.0 - wander, 0.0, 4.0)
        grain = step(y - 0.35 * x - 20.0 - wander, 0.0, 2.0)
        particles = blobs(
            y, x, seed=self.seed + 11, cell=14.0, radius=(2.5, 5.5), edge=1.5, filled=0.6
        )
        particles = particles * (1.0 - amorphous)
        crystal = (1.0 - amorphous) * (1.0 - particles)
        wave = smooth_field(y, x, seed=self.seed + 5, wavelength=70.0)
        thickness = 1.0 + 0.15 * np.tanh(wave)
        shares = np.stack(
            [crystal * (1.0 - grain), crystal * grain, particles, 0.8 * amorphous], axis=-1
        )
        return np.asarray(self.counts * thickness[..., None] * shares)


def _pattern(
    ky: NDArray[np.float64],
    kx: NDArray[np.float64],
    basis: tuple[tuple[float, float], tuple[float, float]],
    turn_deg: float,
    decay: float,
) -> NDArray[np.float64]:
    """Return disks on a reciprocal lattice (basis in 1/nm, turned), fainter outwards."""
    turn = np.deg2rad(turn_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    first, second = (rotation @ np.array(vector) for vector in basis)
    image = np.zeros(np.broadcast(ky, kx).shape)
    for h in range(-5, 6):
        for k in range(-5, 6):
            at_x, at_y = h * first + k * second
            away = np.hypot(ky - at_y, kx - at_x)
            # Structure factors that differ from reflection to reflection, symmetric under inversion.
            strength = (
                1.0 if h == k == 0 else 0.30 + 0.20 * np.cos(1.7 * h * h + 2.3 * k * k + h * k)
            )
            strength *= np.exp(-decay * (at_x**2 + at_y**2))
            image += strength * step(_DISK - away, 0.0, 0.25)
    return np.asarray(image + 0.02 * np.exp(-np.hypot(ky, kx) / 3.0))


def _patterns(k: NDArray[np.float64]) -> NDArray[np.float64]:
    ky, kx = np.broadcast_arrays(k[:, None], k[None, :])
    square = ((4.1, 0.0), (0.0, 4.1))
    hexagonal = ((3.1, 0.0), (1.55, 2.685))
    radius = np.hypot(ky, kx)
    halo = 0.10 * np.exp(-0.5 * ((radius - 4.6) / 0.8) ** 2)
    halo += 0.03 * np.exp(-0.5 * ((radius - 8.0) / 1.1) ** 2)
    amorphous = step(_DISK - radius, 0.0, 0.25) + halo + 0.03 * np.exp(-radius / 3.0)
    images = np.stack(
        [
            _pattern(ky, kx, square, 5.0, 0.018),
            _pattern(ky, kx, square, 29.0, 0.018),
            _pattern(ky, kx, hexagonal, 14.0, 0.022),
            amorphous,
        ]
    )
    return np.asarray(images / images.sum(axis=(1, 2), keepdims=True))


def _rows_block(
    rows: NDArray[np.float64], foil: _Foil, x: NDArray[np.float64]
) -> NDArray[np.float64]:
    yy, xx = np.broadcast_arrays(rows[:, None], x[None, :])
    return foil.loadings(yy, xx)


def stem4d(scale: float = 1.0, random_state: int = 0, *, counts_per_pixel: float = 3000.0) -> Scene:
    """Simulate a 4D-STEM map of a crystalline foil with a turned grain, precipitates and a rim.

    Parameters
    ----------
    scale : float
        Share of the full number of pixels; 1 gives (y 48, x 64, ky 64, kx 64).
    random_state : int
        Of the specimen and of the counts.
    counts_per_pixel : float
        Mean counts in a pattern of the matrix; at most 1e6 (the counts are uint16).

    Returns
    -------
    Scene
        uint16 counts; components "matrix", "grain", "precipitate", "amorphous"; ``n_components`` 4.

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    >>> scene = stem4d(scale=0.1)
    >>> scene.cube.dims
    ('y', 'x', 'ky', 'kx')
    """
    share = np.sqrt(check_scale(scale))
    if not 0 < counts_per_pixel <= 1e6:
        raise InputError(
            f"counts_per_pixel of the 4D-STEM scene: got {counts_per_pixel!r}, expected 0 to 1e6",
            hint="leave it out for 3000 counts a pattern",
        )
    n_y, n_x = (max(6, round(size * share)) for size in FULL_SHAPE[:2])
    seed = named_seed(random_state, "stem4d foil") % 2**62
    foil = _Foil(seed, float(counts_per_pixel))
    y = (np.arange(n_y) + 0.5) * (FULL_SHAPE[0] / n_y)
    x = (np.arange(n_x) + 0.5) * (FULL_SHAPE[1] / n_x)
    rows = da.from_array(y, chunks=max(1, min(n_y, 2**16 // n_x)), name=False)
    loadings = da.map_blocks(
        _rows_block,
        rows,
        foil=foil,
        x=x,
        new_axis=[1, 2],
        chunks=(rows.chunks[0], (n_x,), (len(PHASES),)),
        meta=np.empty((0, 0, 0)),
    )
    k = np.round((np.arange(FULL_SHAPE[2]) - (FULL_SHAPE[2] - 1) / 2) * K_STEP, 6)
    components = _patterns(k)
    return assemble(
        data=counts_from(
            loadings, components, seed=named_seed(random_state, "stem4d counts"), dtype="uint16"
        ),
        loadings=loadings,
        components=components,
        names=PHASES,
        nav=(Axis("y", y * PIXEL_NM, "nm"), Axis("x", x * PIXEL_NM, "nm")),
        sig=(Axis("ky", k, "1/nm"), Axis("kx", k, "1/nm")),
        why=WHY,
        metadata={
            "title": "Simulated 4D-STEM map of a foil with four kinds of pattern",
            "modality": "4D-STEM",
            "beam_energy_keV": 200.0,
            "detector": {"type": "pixelated", "convergence_mrad": 2.4},
            "specimen": "crystalline foil with precipitates and an amorphous rim",
            "source": {
                "format": "simulation",
                "reader": "emcube.scenes.stem4d",
                "extra": {
                    "scale": float(scale),
                    "random_state": int(random_state),
                    "counts_per_pixel": float(counts_per_pixel),
                },
            },
        },
    )
