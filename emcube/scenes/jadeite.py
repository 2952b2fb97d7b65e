"""The talk's other example: an SEM-EDS map of jadeite and omphacite, a solid solution without pure pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from emcube.errors import InputError
from emcube.scenes.base import Axis, Scene, assemble, check_scale, counts_from, named_seed
from emcube.scenes.fields import blobs, smooth_field, step
from emcube.scenes.spectra import Detector, thick_spectrum

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["jadeite"]

FULL_SHAPE = (384, 512, 1564)
PIXEL_UM = 2.0
PHASES = ("jadeite", "augite", "aegirine", "silica", "carbon")
FORMULAS: dict[str, dict[str, float]] = {
    "jadeite": {"Na": 1.0, "Al": 1.0, "Si": 2.0, "O": 6.0},
    "augite": {"Ca": 0.9, "Mg": 0.75, "Fe": 0.35, "Si": 2.0, "O": 6.0},
    "aegirine": {"Na": 1.0, "Fe": 1.0, "Si": 2.0, "O": 6.0},
    "silica": {"Si": 1.0, "O": 2.0},
    # Epoxy with what polishing left in it: the talk's "mostly carbon, some residual silicon".
    "carbon": {"C": 8.0, "H": 9.0, "O": 1.2, "Si": 0.045},
}
_COUNTS = np.array([330.0, 345.0, 340.0, 310.0, 170.0])  # a pixel of each phase
# Pure pixels come as round grains of about this radius, each in a square of its own.
_GRAIN, _TILE = 10.0, 24.0
_MOST_PURE = 0.15

WHY = (
    "five: the three end members of the pyroxene solid solution (jadeite, augite, aegirine), silica, and "
    "the embedding carbon whose residual silicon is part of its own spectrum"
)


@dataclass(frozen=True)
class _Section:
    """The polished section: fractions of the phases at any place. Lengths in pixels of the full size."""

    seed: int
    pure_pixels: float

    def loadings(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the expected counts (..., phase)."""
        pick = [self.seed + 101 * i for i in range(10)]
        # The solid solution: three smooth shares, none of which ever reaches 0 or 1.
        logits = np.stack(
            [
                1.3 * smooth_field(y, x, seed=pick[0], wavelength=170.0) + 0.5,
                1.5 * smooth_field(y, x, seed=pick[1], wavelength=130.0) + 0.1,
                1.4 * smooth_field(y, x, seed=pick[2], wavelength=110.0) - 0.5,
            ],
            axis=-1,
        )
        shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        shares = 0.06 + 0.82 * shares
        # Embedding outside the grain and in cracks that follow a field's zero line.
        outline = smooth_field(y, x, seed=pick[3], wavelength=380.0)
        crack = np.abs(smooth_field(y, x, seed=pick[4], wavelength=210.0))
        carbon = np.maximum(
            0.97 * step(outline, 0.95, 0.10), 0.85 * (1.0 - step(crack, 0.02, 0.025))
        )
        silica = 0.92 * blobs(
            y, x, seed=pick[5], cell=56.0, radius=(5.0, 15.0), edge=5.0, filled=0.55
        )
        silica = silica * (1.0 - carbon)
        rock = 1.0 - carbon - silica
        fractions = np.concatenate(
            [rock[..., None] * shares, silica[..., None], carbon[..., None]], axis=-1
        )
        fractions = self._purified(fractions, y, x)
        # Relief and beam current: a free factor for each pixel.
        relief = 1.0 + 0.07 * np.tanh(smooth_field(y, x, seed=pick[6], wavelength=240.0))
        return np.asarray(relief[..., None] * fractions * _COUNTS)

    def _purified(
        self, fractions: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Make the share `pure_pixels` of the area pure, for each phase."""
        if not self.pure_pixels:
            return fractions
        rows, columns = (int(size // _TILE) for size in FULL_SHAPE[:2])
        area = self.pure_pixels * FULL_SHAPE[0] * FULL_SHAPE[1]
        # As many grains of the wanted size as come nearest; their radius then makes the area exact.
        grains = max(1, round(area / (np.pi * _GRAIN**2)))
        grains = min(grains, rows * columns // len(PHASES))
        radius = np.sqrt(area / (grains * np.pi))
        phase_of = np.full(rows * columns, -1)
        squares = np.random.default_rng(self.seed + 7).permutation(rows * columns)
        for phase in range(len(PHASES)):
            phase_of[squares[phase * grains : (phase + 1) * grains]] = phase
        row, column = np.floor(y / _TILE).astype(int), np.floor(x / _TILE).astype(int)
        on_grid = (row < rows) & (column < columns)
        square = np.where(on_grid, row * columns + column, 0)
        away = np.hypot(y - (row + 0.5) * _TILE, x - (column + 0.5) * _TILE)
        pure = np.where(on_grid & (away < radius), phase_of[square], -1)
        return np.where(pure[..., None] >= 0, np.eye(len(PHASES))[pure], fractions)


def _rows_block(
    rows: NDArray[np.float64], section: _Section, x: NDArray[np.float64]
) -> NDArray[np.float64]:
    yy, xx = np.broadcast_arrays(rows[:, None], x[None, :])
    return section.loadings(yy, xx)


def jadeite(scale: float = 1.0, random_state: int = 0, pure_pixels: float = 0.0) -> Scene:
    """Simulate an SEM-EDS map (30 keV) of a jadeite rock.

    A continuum of jadeite NaAlSi2O6, augite (Ca,Mg,Fe)SiO3 and aegirine NaFeSi2O6 (smooth fields; none is
    ever pure), grains of silica that share the rock's Si line, and embedding carbon around the rock and
    in its cracks which holds a little silicon.

    Parameters
    ----------
    scale : float
        Share of the full number of pixels: rows and columns go with sqrt(scale), the field of view, the
        channels and the counts a pixel stay. 1 gives (y 384, x 512, energy 1564).
    random_state : int
        Of the specimen and of the counts.
    pure_pixels : float
        Share of the pixels made pure for *each* phase (round grains some 20 full-size pixels wide); 0 to
        0.15.

    Returns
    -------
    Scene
        Components "jadeite", "augite", "aegirine", "silica", "carbon"; ``n_components`` is 5 (see
        ``why``). uint8 counts, about 300 a pixel.

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    >>> scene = jadeite(scale=0.01, pure_pixels=0.01)
    >>> scene.cube.shape, scene.n_components
    ((38, 51, 1564), 5)
    """
    share = np.sqrt(check_scale(scale))
    if not 0.0 <= pure_pixels <= _MOST_PURE:
        raise InputError(
            f"pure_pixels is a share of the pixels for each of {len(PHASES)} phases: got {pure_pixels!r}, "
            f"expected 0 to {_MOST_PURE}",
            hint="use pure_pixels=0.01 for one pixel in a hundred of each phase",
        )
    n_y, n_x = (max(8, round(size * share)) for size in FULL_SHAPE[:2])
    seed = named_seed(random_state, "jadeite section")
    section = _Section(seed % 2**62, float(pure_pixels))
    y = (np.arange(n_y) + 0.5) * (FULL_SHAPE[0] / n_y)
    x = (np.arange(n_x) + 0.5) * (FULL_SHAPE[1] / n_x)
    rows = da.from_array(y, chunks=max(1, min(n_y, 2**16 // n_x)), name=False)
    loadings = da.map_blocks(
        _rows_block,
        rows,
        section=section,
        x=x,
        new_axis=[1, 2],
        chunks=(rows.chunks[0], (n_x,), (len(PHASES),)),
        meta=np.empty((0, 0, 0)),
    )
    energy = np.round(0.01 * np.arange(FULL_SHAPE[2]) + 0.01, 6)
    detector = Detector(resolution_ev=129.0, window_um=0.3, tail=0.01)
    components = np.stack(
        [
            thick_spectrum(
                energy, FORMULAS[name], beam_kev=30.0, detector=detector, bremsstrahlung=brems
            )
            for name, brems in zip(PHASES, (0.22, 0.24, 0.24, 0.20, 0.30), strict=True)
        ]
    )
    counts_seed = named_seed(random_state, "jadeite counts")
    return assemble(
        data=counts_from(loadings, components, seed=counts_seed, dtype="uint8"),
        loadings=loadings,
        components=components,
        names=PHASES,
        nav=(Axis("y", y * PIXEL_UM, "um"), Axis("x", x * PIXEL_UM, "um")),
        sig=(Axis("energy", energy, "keV"),),
        why=WHY,
        metadata=_metadata(detector, scale, random_state, pure_pixels),
    )


def _metadata(
    detector: Detector, scale: float, random_state: int, pure_pixels: float
) -> dict[str, Any]:
    return {
        "title": "Simulated SEM-EDS map of jadeite with augite, aegirine and silica",
        "modality": "EDS",
        "beam_energy_keV": 30.0,
        "elements": ("Na", "Mg", "Al", "Si", "Ca", "Fe", "O", "C"),
        "detector": {"type": "SDD", "energy_resolution_eV": detector.resolution_ev},
        "specimen": "polished section of a jadeite rock in epoxy",
        "source": {
            "format": "simulation",
            "reader": "emcube.scenes.jadeite",
            "extra": {
                "scale": float(scale),
                "random_state": int(random_state),
                "pure_pixels": float(pure_pixels),
            },
        },
    }
