"""An EELS map of silicon and its oxide at the Si L edge: float data with gain and read noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from emcube.errors import InputError
from emcube.scenes.base import Axis, Scene, assemble, check_scale, expected_from, named_seed
from emcube.scenes.fields import smooth_field, step

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["eels"]

FULL_SHAPE = (80, 60, 601)
PIXEL_NM = 0.5
PHASES = ("background", "Si", "SiO2")
_BROADENING_EV = 0.35

WHY = (
    "three: the power-law background, the Si L2,3 edge of silicon and that of its oxide. One exponent "
    "holds for the whole map"
)


@dataclass(frozen=True)
class _Film:
    """An oxide film between silicon below and above; lengths in pixels of the full size."""

    seed: int
    electrons: float
    gain: float

    def loadings(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the expected counts (..., phase)."""
        rough = 1.2 * smooth_field(y, x, seed=self.seed, wavelength=18.0)
        wave = smooth_field(y, x, seed=self.seed + 1, wavelength=60.0)
        thickness = 1.0 + 0.2 * np.tanh(wave)
        oxide = step(y - 30.0 - rough, 0.0, 2.5) * (1.0 - step(y - 52.0 - 0.6 * rough, 0.0, 2.5))
        # Contamination adds background but no edge: without it the background would follow from the edges.
        film = 0.2 + 0.2 * np.tanh(smooth_field(y, x, seed=self.seed + 2, wavelength=45.0))
        # The oxide is lighter: less background for its edge.
        background = thickness * (1.0 - 0.25 * oxide) + film
        shares = np.stack(
            [background, 0.16 * thickness * (1.0 - oxide), 0.13 * thickness * oxide], axis=-1
        )
        return np.asarray(self.electrons * self.gain * shares)


def _edge(energy: NDArray[np.float64], onset: float, rise: float) -> NDArray[np.float64]:
    """Return an L2,3 edge with a delayed maximum: rising over `rise` eV, then falling as E^-2."""
    beyond = np.maximum(energy - onset, 0.0)
    return np.asarray((1.0 - np.exp(-beyond / rise)) * (energy / onset) ** -2.0)


def _line(energy: NDArray[np.float64], at: float, sigma: float) -> NDArray[np.float64]:
    return np.exp(-0.5 * ((energy - at) / sigma) ** 2)


def _spectra(energy: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Return the components (K, E): shapes after textbook spectra, blurred by the energy spread."""
    from scipy.ndimage import gaussian_filter1d

    step_ev = float(energy[1] - energy[0])
    silicon = _edge(energy, 99.4, 4.5) * (
        1.0 + 0.25 * _line(energy, 101.2, 0.6) + 0.18 * _line(energy, 103.4, 0.9)
    )
    oxide = (
        0.75 * _edge(energy, 104.6, 4.0)
        + 0.35 * _line(energy, 105.9, 0.35)
        + 0.85 * _line(energy, 108.2, 0.75)
        + 0.55 * _line(energy, 115.2, 2.2)
    )
    edges = gaussian_filter1d(np.stack([silicon, oxide]), _BROADENING_EV / step_ev, axis=-1)
    # The blur of the oxide's lines must not reach far below its onset.
    edges[1] *= step(energy, 104.0, 1.2)
    edges[0] *= energy > 97.5
    edges[1] *= energy > 100.0
    spectra = np.concatenate([(energy / energy[0])[None, :] ** -exponent, edges])
    return np.asarray(spectra / spectra.sum(axis=1, keepdims=True))


def _rows_block(
    rows: NDArray[np.float64], film: _Film, x: NDArray[np.float64]
) -> NDArray[np.float64]:
    yy, xx = np.broadcast_arrays(rows[:, None], x[None, :])
    return film.loadings(yy, xx)


def _detect(
    expected: NDArray[np.float64],
    seed: int,
    gain: float,
    gain_noise: float,
    read_noise: float,
    block_info: Any = None,
) -> NDArray[np.float32]:
    """Record rows of pixels; each row of the map draws from a stream of its own."""
    first = block_info[0]["array-location"][0][0]
    recorded = np.empty(expected.shape, dtype=np.float32)
    for i, row in enumerate(expected):
        rng = np.random.default_rng((seed, first + i))
        counts = gain * rng.poisson(row / gain)
        counts = counts * (1.0 + gain_noise * rng.standard_normal(row.shape))
        recorded[i] = counts + read_noise * rng.standard_normal(row.shape)
    return recorded


def eels(
    scale: float = 1.0,
    random_state: int = 0,
    *,
    electrons: float = 6e5,
    exponent: float = 3.0,
    gain: float = 2.0,
    gain_noise: float = 0.002,
    read_noise: float = 3.0,
) -> Scene:
    """Simulate an EELS map of an oxide film on silicon from 60 to 120 eV.

    recorded = gain * Poisson(electrons) * (1 + gain_noise * e1) + read_noise * e2 with normal e1 and e2 in
    each cell, hence a variance of gain * D + gain_noise^2 * D^2 + read_noise^2 (and a term smaller than
    the first by gain_noise^2) at the expectation D.

    Parameters
    ----------
    scale : float
        Share of the full number of pixels; 1 gives (y 80, x 60, energy 601), 0.1 eV a channel.
    random_state : int
        Of specimen and noise.
    electrons : float
        Electrons in the background of a pixel of mean thickness, summed over the channels.
    exponent : float
        r of the background A E^-r.
    gain : float
        Counts an electron.
    gain_noise : float
        Relative spread of the gain from cell to cell.
    read_noise : float
        Standard deviation of the read-out, counts.

    Returns
    -------
    Scene
        float32. Components "background", "Si" (onset 99.4 eV) and "SiO2" (105 eV); ``n_components`` 3.
        Nothing but background lies below 97.5 eV.

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    >>> scene = eels(scale=0.1)
    >>> str(scene.cube.dtype), scene.n_components
    ('float32', 3)
    """
    share = np.sqrt(check_scale(scale))
    for name, value, lowest in (
        ("electrons", electrons, 1.0),
        ("gain", gain, 1e-6),
        ("gain_noise", gain_noise, 0.0),
        ("read_noise", read_noise, 0.0),
        ("exponent", exponent, 0.0),
    ):
        if not lowest <= value < np.inf:
            raise InputError(
                f"{name} of the EELS scene: got {value!r}, expected a finite number of at least {lowest}",
                hint=f"leave {name} out for a typical detector",
            )
    n_y, n_x = (max(8, round(size * share)) for size in FULL_SHAPE[:2])
    seed = named_seed(random_state, "eels film") % 2**62
    film = _Film(seed, float(electrons), float(gain))
    y = (np.arange(n_y) + 0.5) * (FULL_SHAPE[0] / n_y)
    x = (np.arange(n_x) + 0.5) * (FULL_SHAPE[1] / n_x)
    rows = da.from_array(y, chunks=max(1, min(n_y, 2**16 // n_x)), name=False)
    loadings = da.map_blocks(
        _rows_block,
        rows,
        film=film,
        x=x,
        new_axis=[1, 2],
        chunks=(rows.chunks[0], (n_x,), (len(PHASES),)),
        meta=np.empty((0, 0, 0)),
    )
    energy = np.round(60.0 + 0.1 * np.arange(FULL_SHAPE[2]), 6)
    components = _spectra(energy, float(exponent))
    expected = expected_from(loadings, components)
    if len(expected.chunks[1]) > 1:  # rows draw as a whole
        expected = expected.rechunk({1: -1, 0: 1})
    recorded = da.map_blocks(
        _detect,
        expected,
        seed=named_seed(random_state, "eels noise"),
        gain=float(gain),
        gain_noise=float(gain_noise),
        read_noise=float(read_noise),
        dtype=np.float32,
        meta=np.empty((0, 0, 0), dtype=np.float32),
    )
    noise = {"gain": float(gain), "gain_noise": float(gain_noise), "read_noise": float(read_noise)}
    return assemble(
        data=recorded,
        loadings=loadings,
        components=components,
        names=PHASES,
        nav=(Axis("y", y * PIXEL_NM, "nm"), Axis("x", x * PIXEL_NM, "nm")),
        sig=(Axis("energy", energy, "eV"),),
        why=WHY,
        expected=expected,
        metadata={
            "title": "Simulated EELS map of silicon oxide on silicon",
            "modality": "EELS",
            "beam_energy_keV": 200.0,
            "elements": ("Si", "O"),
            "detector": {"type": "CCD", "convergence_mrad": 10.0, "collection_mrad": 15.0},
            "specimen": "oxide film between silicon",
            "source": {
                "format": "simulation",
                "reader": "emcube.scenes.eels",
                "extra": {
                    "scale": float(scale),
                    "random_state": int(random_state),
                    "electrons": float(electrons),
                    "exponent": float(exponent),
                    **noise,
                },
            },
        },
    )
