"""The talk's simple case: a tilt series of an atom-probe needle cut from SRM 2135c (Ni/Cr on Si)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from emcube.scenes.base import Axis, Scene, assemble, check_scale, counts_from, named_seed
from emcube.scenes.spectra import Detector, thin_spectrum

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["srm2135c"]

FULL_SHAPE = (73, 124, 165, 900)
FIELD_NM = (545.6, 726.0)  # y, x: pixels of 4.4 nm at full size
LAYER_NM = 56.0
N_LAYERS = 9
PHASES = ("Ni", "Cr", "Si")

# Steps of a full turn that divide 360 degrees evenly.
_TURNS = (4, 6, 8, 12, 18, 20, 24, 30, 36, 40, 45, 60, 72, 90, 120, 180, 240, 360, 720, 1440, 2880)

# Counts a nanometre at full detector view, for about 11 non-zero channels a pixel (1.2 %).
_COUNTS_PER_NM = np.array([0.42, 0.40, 0.29])

WHY = (
    "three phases were put in: nickel, chromium and silicon. The carbon film, the Cu line from the grid and "
    "the bremsstrahlung go with the specimen's own signal (contamination grows and electrons scatter where "
    "there is specimen), so they belong to the phases' spectra and are no components of their own"
)


@dataclass(frozen=True, eq=False)
class _Needle:
    """Geometry of the needle and of its turning; nm and radians. The tilt axis is x."""

    n_y: int
    n_x: int
    tilt_rad: NDArray[np.float64]
    shift_nm: NDArray[np.float64]  # (T, 2): dy, dx of each view
    shear_nm: NDArray[np.float64]  # (T,): drift in x while one view is scanned
    apex_x: float = 44.0
    apex_radius: float = 60.0
    half_angle: float = np.deg2rad(7.5)
    oval: float = 0.10  # the cross-section is a slight ellipse
    oval_at: float = 0.6
    run_out: float = 9.0  # the needle's axis lies this far from the tilt axis
    run_out_at: float = 0.9
    cone: float = np.deg2rad(0.8)  # and is tilted against it by this much
    in_plane: float = np.deg2rad(1.0)
    probe_sigma: float = 3.5
    halo_sigma: float = 45.0
    halo: float = 0.006  # share of the probe's current in its wide tails

    def view(self, t: int) -> NDArray[np.float64]:
        """Return the expected counts (y, x, phase) of view `t`.

        Chord lengths on a grid three times finer, averaged, then blurred by the probe.
        """
        from scipy.ndimage import gaussian_filter

        fine = 3
        theta = self.tilt_rad[t]
        y = (np.arange(self.n_y * fine) + 0.5) / (self.n_y * fine) * FIELD_NM[0]
        x = (np.arange(self.n_x * fine) + 0.5) / (self.n_x * fine) * FIELD_NM[1]
        yy = (y - FIELD_NM[0] / 2 - self.shift_nm[t, 0])[:, None]
        # The scan goes down in y: drift moves later rows along x.
        xx = x[None, :] - self.shift_nm[t, 1] - self.shear_nm[t] * (y / FIELD_NM[0] - 0.5)[:, None]
        axis_y = (
            self.run_out * np.cos(theta + self.run_out_at)
            + (xx - FIELD_NM[1] / 2) * np.tan(self.cone) * np.cos(theta)
            + (xx - FIELD_NM[1] / 2) * np.tan(self.in_plane)
        )
        depth = xx - self.apex_x
        chord = self._chord(depth, yy - axis_y, theta)
        layer = np.floor(depth / LAYER_NM)
        thickness = np.stack(
            [
                chord * ((layer < N_LAYERS) & (layer % 2 == 0)),
                chord * ((layer < N_LAYERS) & (layer % 2 == 1)),
                chord * (layer >= N_LAYERS),
            ]
        )
        shape = (len(PHASES), self.n_y, fine, self.n_x, fine)
        thickness = thickness.reshape(shape).mean(axis=(2, 4))
        pixel = np.array([FIELD_NM[0] / self.n_y, FIELD_NM[1] / self.n_x])
        sharp = np.stack([gaussian_filter(m, self.probe_sigma / pixel) for m in thickness])
        wide = np.stack([gaussian_filter(m, self.halo_sigma / pixel) for m in thickness])
        seen = (1.0 - self.halo) * sharp + self.halo * wide
        return np.asarray(self._shadow(theta) * np.moveaxis(seen, 0, -1) * _COUNTS_PER_NM)

    def _chord(
        self, depth: NDArray[np.float64], off: NDArray[np.float64], theta: float
    ) -> NDArray[np.float64]:
        """Return the length of the beam's path (nm) through the cross-section at `depth`."""
        r0, a = self.apex_radius, self.half_angle
        cap_end = r0 * (1.0 - np.sin(a))
        cap = np.sqrt(np.clip(r0**2 - (r0 - depth) ** 2, 0.0, None))
        shank = r0 * np.cos(a) + (depth - cap_end) * np.tan(a)
        radius = np.where(depth < cap_end, cap, shank)
        major, minor = radius * (1 + self.oval), radius * (1 - self.oval)
        turn = theta - self.oval_at
        half = np.sqrt((major * np.cos(turn)) ** 2 + (minor * np.sin(turn)) ** 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = 1.0 - (off / half) ** 2
            chord = 2.0 * major * minor / half * np.sqrt(np.clip(inside, 0.0, None))
        return np.where(half > 0, np.nan_to_num(chord), 0.0)

    @staticmethod
    def _shadow(theta: float) -> float:
        """Return the share of the detector that sees the specimen: the holder hides it near 120 degrees."""
        away = np.angle(np.exp(1j * (theta - np.deg2rad(120.0))))
        return float(1.0 - 0.55 * np.exp(-0.5 * (away / np.deg2rad(38.0)) ** 2))


def _sizes(scale: float) -> tuple[int, int, int]:
    """Return tilts, rows and columns whose product is about `scale` of the full one."""
    if scale == 1.0:
        return FULL_SHAPE[:3]
    wanted = 72 * scale ** (1 / 3)
    turns = min(_TURNS, key=lambda n: abs(np.log(n / wanted)))
    share = np.sqrt(scale * FULL_SHAPE[0] / (turns + 1))
    return turns + 1, max(8, round(FULL_SHAPE[1] * share)), max(12, round(FULL_SHAPE[2] * share))


def _motion(n_tilts: int, theta: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return dy, dx and shear (T, 3) in nm: slow periodic motion plus a random jump a view.

    The last view repeats the first, motion included, so that 0 and 360 degrees see the same.
    """
    rng = np.random.default_rng(seed)
    turns = np.arange(1, 4)
    size = np.array([7.0, 7.0, 4.0])[:, None] / turns
    phase = rng.uniform(0, 2 * np.pi, (3, turns.size))
    slow = (size[..., None] * np.cos(turns[:, None] * theta + phase[..., None])).sum(axis=1)
    jumps = rng.normal(0.0, 1.0, (3, n_tilts)) * np.array([2.0, 2.0, 1.0])[:, None]
    motion = slow + jumps
    motion[:, -1] = motion[:, 0]
    return np.asarray(motion.T)


def _view_block(index: NDArray[np.int64], needle: _Needle) -> NDArray[np.float64]:
    return np.stack([needle.view(int(t)) for t in index])


def _spectra(energy: NDArray[np.float64], detector: Detector) -> NDArray[np.float64]:
    stray = {("C", "K"): 0.030, ("Cu", "K"): 0.020}
    return np.stack(
        [
            thin_spectrum(energy, lines | stray, share, beam_kev=200.0, detector=detector)
            for lines, share in (
                ({("Ni", "K"): 0.65, ("Ni", "L"): 0.08}, 0.22),
                ({("Cr", "K"): 0.69, ("Cr", "L"): 0.07}, 0.19),
                ({("Si", "K"): 0.83}, 0.12),
            )
        ]
    )


def srm2135c(scale: float = 0.1, random_state: int = 0) -> Scene:
    """Simulate the tilt series of an atom-probe needle of SRM 2135c.

    A tapered needle turns about its own axis (x). From the apex it holds nine discs of 56 nm, nickel and
    chromium in turn (five of Ni, four of Cr), on silicon; their faces stay edge-on while it turns. A pixel
    sees the chord through a slightly oval cross-section. The needle's axis runs out of the tilt axis a
    little, each view is shifted by a few nm and drifts while it is scanned, and the holder hides part of
    the detector near 120 degrees. Spectra: K and L lines with escape peaks and low-energy tails,
    bremsstrahlung of one shape, a carbon film and the Cu line of the grid.

    Parameters
    ----------
    scale : float
        Share of the full number of pixels. 1 gives the talk's (tilt 73, y 124, x 165, energy 900). Other
        scales keep the field of view, the 900 channels and the counts a pixel: tilts go about with
        scale**(1/3) to the nearest even step of a full turn, rows and columns share the rest (0.1: tilt
        37 by 10 degrees, y 55, x 73). Below about 0.01 the discs are thinner than two pixels.
    random_state : int
        Of the counts and of the motion between views.

    Returns
    -------
    Scene
        Components "Ni", "Cr", "Si"; ``n_components`` is 3 (see ``why``). uint8 counts, about 16 a pixel
        (vacuum included) in 11 channels; the highest channel of a typical pixel holds single digits.
        0 and 360 degrees have the same expectation and different counts.

    Raises
    ------
    InputError
        If `scale` is not positive or `random_state` not a non-negative integer.

    Examples
    --------
    >>> scene = srm2135c(scale=0.01, random_state=0)
    >>> scene.cube.dims, scene.n_components
    (('tilt', 'y', 'x', 'energy'), 3)
    """
    n_tilts, n_y, n_x = _sizes(check_scale(scale))
    theta = np.linspace(0.0, 2 * np.pi, n_tilts)
    motion = _motion(n_tilts, theta, named_seed(random_state, "srm2135c motion"))
    # The last angle is the first, to the bit: cos(2 pi) is, sin(2 pi) is not.
    turned = np.where(np.arange(n_tilts) == n_tilts - 1, 0.0, theta)
    needle = _Needle(n_y, n_x, turned, motion[:, :2], motion[:, 2])
    views = da.from_array(np.arange(n_tilts), chunks=1, name=False)
    loadings = da.map_blocks(
        _view_block,
        views,
        needle=needle,
        new_axis=[1, 2, 3],
        chunks=(views.chunks[0], (n_y,), (n_x,), (len(PHASES),)),
        meta=np.empty((0, 0, 0, 0)),
    )
    energy = np.round(0.15 + 0.01 * np.arange(FULL_SHAPE[3]), 6)
    detector = Detector(resolution_ev=142.0, window_um=0.1)
    components = _spectra(energy, detector)
    seed = named_seed(random_state, "srm2135c counts")
    return assemble(
        data=counts_from(loadings, components, seed=seed, dtype="uint8"),
        loadings=loadings,
        components=components,
        names=PHASES,
        nav=(
            Axis("tilt", np.linspace(0.0, 360.0, n_tilts), "deg"),
            Axis("y", (np.arange(n_y) + 0.5) * (FIELD_NM[0] / n_y), "nm"),
            Axis("x", (np.arange(n_x) + 0.5) * (FIELD_NM[1] / n_x), "nm"),
        ),
        sig=(Axis("energy", energy, "keV"),),
        why=WHY,
        metadata=_metadata(detector, scale, random_state),
    )


def _metadata(detector: Detector, scale: float, random_state: int) -> dict[str, Any]:
    return {
        "title": "Simulated tilt series of a Ni/Cr multilayer needle (after SRM 2135c)",
        "modality": "EDS",
        "beam_energy_keV": 200.0,
        "elements": ("Ni", "Cr", "Si", "C", "Cu"),
        "detector": {"type": "SDD", "energy_resolution_eV": detector.resolution_ev},
        "specimen": "nine alternating discs of Ni and Cr, 56 nm each, on Si",
        "source": {
            "format": "simulation",
            "reader": "emcube.scenes.srm2135c",
            "extra": {"scale": float(scale), "random_state": int(random_state)},
        },
    }
