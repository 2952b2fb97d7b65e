"""X-ray spectra as a silicon drift detector records them: lines, escape, tails, bremsstrahlung.

Line energies and relative intensities, fluorescence yields and attenuation coefficients come from
xraydb; nothing here is measured data. Energies in keV throughout, densities in g/cm^3, lengths in cm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from emcube import xray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Detector", "characteristic_lines", "thick_spectrum", "thin_spectrum"]

_SI_KA = 1.740
_SI_K_EDGE = 1.839


@cache
def characteristic_lines(element: str, shell: str) -> tuple[tuple[float, float], ...]:
    """Return the lines of a shell ("K" or "L") as (energy in keV, share); the shares sum to one.

    The three L subshells are weighted 1 : 2 : 4 by their occupation (L1 counted half, since most of its
    vacancies move on to L2 and L3).
    """
    import xraydb

    weights = {"K": {"K": 1.0}, "L": {"L1": 0.5, "L2": 1.0, "L3": 2.0}}[shell]
    found = [
        (line.energy / 1000.0, line.intensity * weights[line.initial_level])
        for line in xraydb.xray_lines(element).values()
        if line.initial_level in weights and line.energy > 0
    ]
    total = sum(weight for _, weight in found)
    return tuple((energy, weight / total) for energy, weight in found)


@cache
def _attenuation(element: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tabulate the mass attenuation coefficient (cm^2/g) on a fine grid of energies (keV)."""
    import xraydb

    energy = np.geomspace(0.1, 40.0, 1200)
    return energy, np.asarray(xraydb.mu_elam(element, energy * 1000.0), dtype=np.float64)


def attenuation(composition: Mapping[str, float], energy: ArrayLike) -> NDArray[np.float64]:
    """Return the mass attenuation coefficient (cm^2/g) of a mixture of mass fractions."""
    e = np.clip(np.asarray(energy, dtype=np.float64), 0.1, 40.0)
    mu = np.zeros_like(e)
    for element, fraction in composition.items():
        grid, values = _attenuation(element)
        mu += fraction * np.exp(np.interp(np.log(e), np.log(grid), np.log(values)))
    return mu


@dataclass(frozen=True)
class Detector:
    """A silicon drift detector behind a polymer window.

    Parameters
    ----------
    resolution_ev : float
        Full width at half maximum of Mn Ka (5.895 keV), eV.
    window_um : float
        Thickness of the polymer window (taken as carbon of 1.4 g/cm^3), micrometres.
    tail : float
        Share of a line's counts in its low-energy tail (incomplete charge collection).
    crystal_mm : float
        Thickness of the silicon.
    """

    resolution_ev: float = 130.0
    window_um: float = 0.3
    tail: float = 0.04
    crystal_mm: float = 0.45

    def fwhm(self, energy: ArrayLike) -> NDArray[np.float64]:
        """Return the full width at half maximum (keV) at an energy (keV): noise and Fano in quadrature."""
        return np.asarray(xray.fwhm(np.asarray(energy, dtype=np.float64), self.resolution_ev))

    def efficiency(self, energy: ArrayLike) -> NDArray[np.float64]:
        """Return the share of photons that are counted."""
        e = np.asarray(energy, dtype=np.float64)
        window = attenuation({"C": 1.0}, e) * 1.4 * self.window_um * 1e-4
        silicon = attenuation({"Si": 1.0}, e) * 2.33
        dead = silicon * 0.03e-4
        return np.asarray(np.exp(-window - dead) * -np.expm1(-silicon * self.crystal_mm * 0.1))

    def escape(self, energy: float) -> float:
        """Return the share of counts from which a Si Ka photon left the crystal.

        References
        ----------
        S. J. B. Reed, N. G. Ware, J. Phys. E 5 (1972) 582, doi:10.1088/0022-3735/5/6/029.
        """
        if energy <= _SI_K_EDGE:
            return 0.0
        ratio = float(attenuation({"Si": 1.0}, _SI_KA)[()] / attenuation({"Si": 1.0}, energy)[()])
        return float(0.0205 * (1.0 - ratio * np.log1p(1.0 / ratio)))

    def line(self, axis: NDArray[np.float64], energy: float) -> NDArray[np.float64]:
        """Return the recorded shape of one line (share of its counts in each channel)."""
        lost = self.escape(energy)
        shape = (1.0 - lost) * self._peak(axis, energy)
        if lost:
            shape += lost * self._peak(axis, energy - _SI_KA)
        return shape

    def _peak(self, axis: NDArray[np.float64], energy: float) -> NDArray[np.float64]:
        from scipy.special import erfc, erfcx, ndtr

        step = float(axis[1] - axis[0])
        sigma = float(self.fwhm(max(energy, 0.05))) / np.sqrt(8.0 * np.log(2.0))
        edges = np.append(axis - step / 2, axis[-1] + step / 2)
        gauss = np.diff(ndtr((edges - energy) / sigma))
        # Exponential tail convolved with the Gaussian; its length grows with the energy, as seen in
        # published factor spectra.
        slope = 0.055 * max(energy, 0.2)
        a = (axis - energy) / slope + sigma**2 / (2 * slope**2)
        b = (axis - energy) / (np.sqrt(2) * sigma) + sigma / (np.sqrt(2) * slope)
        # exp(a) erfc(b) overflows times underflows far above the line: erfcx is the stable form there.
        stable = np.exp(-((axis - energy) ** 2) / (2 * sigma**2)) * erfcx(np.maximum(b, 0.0))
        tail = 0.5 / slope * step * np.where(b > 0, stable, np.exp(np.minimum(a, 50.0)) * erfc(b))
        return np.asarray((1.0 - self.tail) * gauss + self.tail * tail)


def kramers(axis: NDArray[np.float64], beam_kev: float) -> NDArray[np.float64]:
    """Return Kramers' bremsstrahlung (E0 - E) / E in photons a channel, up to a factor."""
    e = np.maximum(axis, 0.05)
    return np.maximum(beam_kev - e, 0.0) / e


def thin_spectrum(
    axis: NDArray[np.float64],
    lines: Mapping[tuple[str, str], float],
    bremsstrahlung: float,
    *,
    beam_kev: float,
    detector: Detector,
) -> NDArray[np.float64]:
    """Build the spectrum of a thin specimen from shares of the counts.

    Parameters
    ----------
    axis : ndarray, shape (E,)
        Channel centres, keV, evenly spaced.
    lines : mapping of (element, shell) to float
        Share of the counts in a series of lines.
    bremsstrahlung : float
        Share of the counts in the continuum.
    beam_kev : float
        Energy of the electrons.
    detector : Detector

    Returns
    -------
    ndarray, shape (E,)
        Sums to one.
    """
    continuum = kramers(axis, beam_kev) * detector.efficiency(axis)
    spectrum = bremsstrahlung * continuum / continuum.sum()
    for (element, shell), share in lines.items():
        for energy, weight in characteristic_lines(element, shell):
            spectrum = spectrum + share * weight * detector.line(axis, energy)
    spectrum = np.maximum(spectrum, 0.0)
    return np.asarray(spectrum / spectrum.sum())


def thick_spectrum(
    axis: NDArray[np.float64],
    formula: Mapping[str, float],
    *,
    beam_kev: float,
    detector: Detector,
    bremsstrahlung: float,
    take_off_deg: float = 35.0,
) -> NDArray[np.float64]:
    """Build the spectrum of a thick specimen under an electron beam (SEM) from its formula.

    A line's photons go with atoms per mass x ionisation (ln U / (U Ec^2)) x fluorescence yield x
    absorption on the way out x detector efficiency: enough for plausible ratios between lines, not
    for quantification.

    Parameters
    ----------
    axis : ndarray, shape (E,)
        Channel centres, keV.
    formula : mapping of str to float
        Atoms of each element.
    beam_kev : float
        Energy of the electrons.
    detector : Detector
    bremsstrahlung : float
        Share of the counts in the continuum.
    take_off_deg : float
        Angle at which the X-rays leave the specimen.

    Returns
    -------
    ndarray, shape (E,)
        Sums to one.
    """
    import xraydb

    mass = {el: n * xraydb.atomic_mass(el) for el, n in formula.items()}
    total = sum(mass.values())
    fractions = {el: m / total for el, m in mass.items()}
    # Mean depth of generation in g/cm^2; about 2 um in a silicate at 30 keV.
    depth = 5e-4 * (beam_kev / 30.0) ** 1.67

    def out(energy: ArrayLike) -> NDArray[np.float64]:
        chi = attenuation(fractions, energy) / np.sin(np.deg2rad(take_off_deg))
        return np.asarray(1.0 / (1.0 + chi * depth))

    photons = np.zeros_like(axis)
    for element, atoms in formula.items():
        for shell, edge_name in (("K", "K"), ("L", "L3")):
            edge = xraydb.xray_edges(element).get(edge_name)
            lines = characteristic_lines(element, shell)
            if edge is None or not lines or not 0.1 < edge.energy / 1000.0 < beam_kev:
                continue
            overvoltage = beam_kev / (edge.energy / 1000.0)
            ionised = np.log(overvoltage) / (overvoltage * (edge.energy / 1000.0) ** 2)
            electrons = 2.0 if shell == "K" else 4.0
            rate = atoms * electrons * ionised * edge.fyield
            for energy, weight in lines:
                seen = float(out(energy) * detector.efficiency(energy))
                photons += rate * weight * seen * detector.line(axis, energy)
    continuum = kramers(axis, beam_kev) * out(axis) * detector.efficiency(axis)
    photons = np.maximum(photons, 0.0)
    spectrum = (1.0 - bremsstrahlung) * photons / photons.sum()
    spectrum += bremsstrahlung * continuum / continuum.sum()
    return np.asarray(spectrum / spectrum.sum())
