"""What is known of the components of NMF: some of them, or what they are made of.

Letters: E used channels, K components, M features of a basis, C known components. The first C components
stay as they are. Of a basis G (M, E), whose rows sum to one, components are S = A G with A >= 0 (K, M), whose
rows then sum to one as well: passes step A.

References
----------
A. Teurtrie et al., "espm: A Python library for the simulation of STEM-EDXS datasets", Ultramicroscopy 249
(2023) 113719: X-ray physics as a basis. https://doi.org/10.1016/j.ultramic.2023.113719
C. H. Q. Ding, T. Li, M. I. Jordan, "Convex and semi-nonnegative matrix factorizations", IEEE Trans. Pattern
Anal. Mach. Intell. 32 (2010) 45. https://doi.org/10.1109/TPAMI.2008.277
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels.poisson_nmf import floored
from emcube.kernels.volume import (
    frobenius_step,
    project_to_simplex,
    simplex_root,
    volume_slope,
)
from emcube.models.nmf_losses import LossAround, Slope
from emcube.models.nmf_penalties import data_pass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.kernels.quasi_newton import Memory
    from emcube.kernels.rows import CountRows

__all__ = ["StructuredLoss", "coefficients_of"]

INNER_STEPS = 10
"""Steps of A for the statistic of one pass: they cost no look at the data."""

START_STEPS = 500
"""Steps of the coefficients that a start is turned into."""


@dataclass(frozen=True, eq=False)
class StructuredLoss(LossAround):
    """A loss of components of which something is known.

    Parameters
    ----------
    inner : Loss
    known : ndarray, shape (C, E)
    basis : ndarray, shape (M, E), or None
        Rows sum to one.

    Notes
    -----
    What passes step are spectra (K, E), or coefficients (K, M) where there is a basis. Rows of known
    components never move (with a basis they say nothing).
    """

    known: NDArray[np.float64]
    basis: NDArray[np.float64] | None = None

    @property
    def n_known(self) -> int:
        """C."""
        return len(self.known)

    def spectra(self, components: NDArray[np.float64]) -> NDArray[np.float64]:
        """Spectra (K, E) of what is stepped."""
        c = self.n_known
        free = components[c:] if self.basis is None else components[c:] @ self.basis
        return np.concatenate((self.known, free))

    def numbers(self, spectra: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is stepped, for spectra (K, E) to start from."""
        if self.basis is None:
            return np.concatenate((self.known, spectra[self.n_known :]))
        return coefficients_of(spectra, self.basis)

    def evaluate(self, data: CountRows | NDArray[Any], components: NDArray[np.float64]) -> Any:
        """Statistic of some pixels."""
        return self.inner.evaluate(data, self.spectra(components))

    def loadings(
        self, data: CountRows | NDArray[Any], components: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Loadings (p, K) of some pixels."""
        return np.asarray(self.inner.loadings(data, self.spectra(components)))

    def earlier(self, components: NDArray[np.float64], statistic: Any) -> float:
        """Bound of the loss of pixels seen before."""
        return float(self.inner.earlier(self.spectra(components), statistic))

    def ahead(
        self,
        components: NDArray[np.float64],
        stepped: NDArray[np.float64],
        length: float,
        slope: Slope | None,
        memory: Memory,
    ) -> tuple[NDArray[np.float64], float]:
        """What to evaluate next."""
        found, length = self.inner.ahead(components, stepped, length, slope, memory)
        return self._held(found, components), length

    def _held(self, new: NDArray[np.float64], old: NDArray[np.float64]) -> NDArray[np.float64]:
        """New numbers with the rows of known components as they were."""
        return np.concatenate((old[: self.n_known], new[self.n_known :]))

    def slope(
        self,
        components: NDArray[np.float64],
        statistic: Any,
        weights: NDArray[np.float64],
        strength: float,
        delta: float,
    ) -> Slope | None:
        """By the logarithms of what is stepped; zero along known components."""
        if not self.counts:
            return None
        slope = (
            self.inner.slope(self.spectra(components), statistic, weights, strength, delta)
            if self.basis is None
            else self._slope_of_coefficients(components, statistic, weights, strength, delta)
        )
        if slope is None:
            return None
        gradient = slope.gradient.copy()
        gradient[: self.n_known] = 0.0
        return replace(slope, gradient=gradient)

    def _slope_of_coefficients(
        self,
        components: NDArray[np.float64],
        statistic: Any,
        weights: NDArray[np.float64],
        strength: float,
        delta: float,
    ) -> Slope:
        basis = self._basis
        counts = data_pass(statistic).counts
        components = floored(components)
        spectra = floored(self.spectra(components))
        expected = components * counts.sum(axis=1, keepdims=True)
        gradient = expected - components * ((counts / spectra) @ basis.T)
        scale = np.maximum(expected, 1.0)
        if strength:
            by_spectra, curvature = volume_slope(spectra, weights, delta)
            part = components * (by_spectra @ basis.T)
            gradient = gradient + strength * (part - components * part.sum(axis=1, keepdims=True))
            scale = scale + strength * components * ((curvature * spectra) @ basis.T)
        return Slope(np.log(components), gradient, scale)

    @property
    def _basis(self) -> NDArray[np.float64]:
        assert self.basis is not None
        return self.basis

    def step(
        self,
        components: NDArray[np.float64],
        statistic: Any,
        weights: NDArray[np.float64],
        strength: float,
        delta: float,
    ) -> NDArray[np.float64]:
        """New numbers that lower the loss plus ``strength`` times the volume."""
        found = data_pass(statistic)
        if self.basis is None:
            if self.counts:
                # The bound of each component stands alone: those that are known are left out afterwards.
                new = self.inner.step(self.spectra(components), statistic, weights, strength, delta)
            else:
                new = frobenius_step(
                    components, found.products, found.gram, strength, delta, n_known=self.n_known
                )
        elif self.counts:
            new = self._count_step(components, found.counts, weights, strength, delta)
        else:
            new = self._square_step(components, found, strength, delta)
        return self._held(new, components)

    def _count_step(
        self,
        components: NDArray[np.float64],
        counts: NDArray[np.float64],
        weights: NDArray[np.float64],
        strength: float,
        delta: float,
    ) -> NDArray[np.float64]:
        """EM steps of A on -sum C log (A G), with the tangent of the volume.

        The tangent is a sum over channels of (a / 2) s^2 + b s; by convexity (Jensen) the square of s = sum_m
        A_m G_m lies below sum_m (A0_m G_m / s0) (s0 A_m / A0_m)^2, which takes the features apart.
        """
        basis = self._basis
        touched = floored(self.spectra(components))
        bend, linear = np.zeros_like(touched), np.zeros_like(touched)
        if strength:
            gradient, curvature = volume_slope(touched, weights, delta)
            bend = strength * curvature
            linear = strength * gradient - bend * touched
        new = floored(components)
        for _ in range(INNER_STEPS):
            spectra = floored(self.spectra(new))
            expected = new * ((counts / spectra) @ basis.T)
            if strength:
                bent = ((bend * spectra) @ basis.T) / new
                expected = simplex_root(bent, linear @ basis.T, expected)
            sums = expected.sum(axis=1, keepdims=True)
            kept = np.where(sums > 0.0, expected / np.where(sums > 0.0, sums, 1.0), new)
            new = floored(self._held(kept, new))
        return new

    def _square_step(
        self, components: NDArray[np.float64], found: Any, strength: float, delta: float
    ) -> NDArray[np.float64]:
        """Projected gradient steps (accelerated) of A on the squares, with the tangent of the volume."""
        basis, c = self._basis, self.n_known
        spectra = self.spectra(components)
        quadratic = found.gram.copy()
        if strength > 0.0:
            gram = spectra @ spectra.T
            gram[np.diag_indices_from(gram)] += delta
            quadratic = quadratic + 2.0 * strength * np.linalg.inv(gram)
        inner = basis @ basis.T
        free = quadratic[c:, c:]
        target = (found.products[c:] - quadratic[c:, :c] @ self.known) @ basis.T
        length = float(np.linalg.norm(free, 2) * np.linalg.norm(inner, 2))
        if not length > 0.0:
            return components
        at = ahead = components[c:]
        pace = 1.0
        for _ in range(20 * INNER_STEPS):
            slope = free @ ahead @ inner - target
            new = np.array([project_to_simplex(row) for row in ahead - slope / length])
            faster = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * pace * pace))
            ahead = new + (pace - 1.0) / faster * (new - at)
            at, pace = new, faster
        return np.concatenate((components[:c], at))


def coefficients_of(
    spectra: NDArray[np.float64], basis: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Coefficients A (K, M) for which A G comes nearest to spectra (K, E), by the likelihood of counts."""
    spectra = floored(spectra)
    found = np.full((len(spectra), len(basis)), 1.0 / len(basis))
    for _ in range(START_STEPS):
        mixed = np.maximum(found @ basis, 1e-12)
        found = found * ((spectra / mixed) @ basis.T)
        found /= found.sum(axis=1, keepdims=True)
    return floored(found)
