"""What the two losses of NMF know: how a block is checked, solved and stepped.

Letters: P pixels, E used channels, K components.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from emcube.errors import InputError
from emcube.kernels.frobenius_nmf import FrobeniusPass, frobenius_loadings, frobenius_pass
from emcube.kernels.poisson_nmf import (
    PoissonPass,
    as_rows,
    floored,
    poisson_loadings,
    poisson_pass,
)
from emcube.kernels.volume import frobenius_step, poisson_step, volume_slope
from emcube.models.labels import require_finite_counts, require_finite_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block
    from emcube.kernels.quasi_newton import Memory
    from emcube.kernels.rows import CountRows

__all__ = ["FrobeniusLoss", "Loss", "LossAround", "PoissonLoss", "Slope", "resolve_loss"]

GROWTH = 1.25
"""Factor of the length of an over-relaxed step after each one that was accepted."""

LONGEST = 8.0
"""Longest step, in plain steps."""


@dataclass(frozen=True, eq=False)
class Slope:
    """Where the objective falls, in the coordinates in which steps are made.

    Attributes
    ----------
    point, gradient, scale : ndarray, shape (K, E)
        Coordinates of the components, gradient by them, and a rough curvature along each, positive.
    """

    point: NDArray[np.float64]
    gradient: NDArray[np.float64]
    scale: NDArray[np.float64]


class Loss(Protocol):
    """What NMF asks of its loss. Losses are frozen, pickle and have no state."""

    @property
    def name(self) -> str:
        """The parameter ``beta_loss``."""
        ...

    @property
    def counts(self) -> bool:
        """Whether negative values make no sense."""
        ...

    def check(self, block: Block) -> None:
        """Refuse values that the loss cannot take."""
        ...

    def spectra(self, components: NDArray[np.float64]) -> NDArray[np.float64]:
        """Spectra (K, E) that numbers stand for: themselves, but where components are made of a basis."""
        ...

    def evaluate(self, data: CountRows | NDArray[Any], components: NDArray[np.float64]) -> Any:
        """Statistic of some pixels: it adds, and has ``divergence``, ``objective`` and ``loadings``."""
        ...

    def loadings(
        self, data: CountRows | NDArray[Any], components: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Exact loadings (p, K) of some pixels."""
        ...

    def step(
        self,
        components: NDArray[np.float64],
        statistic: Any,
        weights: NDArray[np.float64],
        strength: float,
        delta: float,
    ) -> NDArray[np.float64]:
        """New components that lower the loss plus ``strength`` times the volume."""
        ...

    def earlier(self, components: NDArray[np.float64], statistic: Any) -> float:
        """Bound of the loss of pixels seen before, up to a constant, from their statistic alone."""
        ...

    def mixed(self, old: Any, new: Any, rate: float) -> Any:
        """``(1 - rate) old + rate new`` of two statistics, as far as `step` needs them."""
        ...

    def noise(self, divergence: float, n_values: int) -> float:
        """Loss that the noise of one value adds on average, times two (a variance)."""
        ...

    def n_effective(self, statistic: Any, n_pixels: int) -> float:
        """Pixels that have a say: those of the vacuum do not count."""
        ...

    def slope(
        self,
        components: NDArray[np.float64],
        statistic: Any,
        weights: NDArray[np.float64],
        strength: float,
        delta: float,
    ) -> Slope | None:
        """Gradient of the loss plus volume, where `ahead` makes use of it."""
        ...

    def ahead(
        self,
        components: NDArray[np.float64],
        stepped: NDArray[np.float64],
        length: float,
        slope: Slope | None,
        memory: Memory,
    ) -> tuple[NDArray[np.float64], float]:
        """What to evaluate next, and how long a step that is: one is the plain step to `stepped`.

        `length` is that of the last step, `memory` of curvature; valid components whatever they are.
        """
        ...

    def errors(
        self, components: NDArray[np.float64], statistic: Any, divergence: float
    ) -> NDArray[np.float64]:
        """Standard errors (K, E) of the components, as if the loadings were known."""
        ...

    def channel_weights(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights (E,) that even out the noise of the channels; zero for channels never seen."""
        ...


@dataclass(frozen=True)
class PoissonLoss:
    """Kullback-Leibler divergence: the log-likelihood of counts."""

    name: str = "kullback-leibler"
    counts: bool = True

    def check(self, block: Block) -> None:
        """Refuse NaN, infinities and negative values."""
        require_finite_counts(block)

    def spectra(self, components: NDArray[np.float64]) -> NDArray[np.float64]:
        """Themselves."""
        return components

    def evaluate(
        self, data: CountRows | NDArray[Any], components: NDArray[np.float64]
    ) -> PoissonPass:
        """Statistic of some pixels."""
        return poisson_pass(as_rows(data), components)

    def loadings(
        self, data: CountRows | NDArray[Any], components: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Maximum-likelihood loadings of some pixels."""
        return poisson_loadings(as_rows(data), components)

    def step(
        self,
        components: NDArray[np.float64],
        statistic: PoissonPass,
        weights: NDArray[np.float64],
        strength: float,
        delta: float,
    ) -> NDArray[np.float64]:
        """EM step with the tangent of the volume."""
        return poisson_step(floored(components), statistic.counts, weights, strength, delta)

    def earlier(self, components: NDArray[np.float64], statistic: PoissonPass) -> float:
        """-sum C log S: the bound of the EM algorithm (Neal and Hinton 1998)."""
        return -float((statistic.counts * np.log(floored(components))).sum())

    def mixed(self, old: PoissonPass, new: PoissonPass, rate: float) -> PoissonPass:
        """Moving average of the expected counts."""
        return PoissonPass(
            (1.0 - rate) * old.counts + rate * new.counts,
            (1.0 - rate) * old.loadings + rate * new.loadings,
            new.divergence,
            new.total,
            new.square,
            new.n_steps,
        )

    def noise(self, divergence: float, n_values: int) -> float:
        """One: counts carry their noise with them."""
        return 1.0

    def n_effective(self, statistic: PoissonPass, n_pixels: int) -> float:
        """(sum g)^2 / sum g^2 of the pixels' counts g."""
        return statistic.total**2 / statistic.square if statistic.square > 0.0 else 0.0

    def slope(
        self,
        components: NDArray[np.float64],
        statistic: PoissonPass,
        weights: NDArray[np.float64],
        strength: float,
        delta: float,
    ) -> Slope | None:
        """By the logarithms of the components, whose sum stays one; the curvature is that of their counts."""
        components = floored(components)
        expected = components * statistic.loadings[:, None]
        gradient = expected - statistic.counts
        scale = np.maximum(expected, 1.0)
        if strength:
            by_component, curvature = volume_slope(components, weights, delta)
            part = components * by_component
            gradient += strength * (part - components * part.sum(axis=1, keepdims=True))
            scale += strength * components * components * curvature
        return Slope(np.log(components), gradient, scale)

    def moved(
        self, components: NDArray[np.float64], move: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Components after a step in their logarithms: positive whatever it is."""
        return floored(floored(components) * np.exp(move))

    def ahead(
        self,
        components: NDArray[np.float64],
        stepped: NDArray[np.float64],
        length: float,
        slope: Slope | None,
        memory: Memory,
    ) -> tuple[NDArray[np.float64], float]:
        """By a quasi-Newton step, once something is known of the curvature."""
        if slope is None or not memory.pairs:
            return stepped, 1.0
        move = memory.direction(slope.gradient, slope.scale)
        if not float(np.vdot(move, slope.gradient)) < 0.0:
            return stepped, 1.0
        return self.moved(components, move), LONGEST

    def errors(
        self, components: NDArray[np.float64], statistic: PoissonPass, divergence: float
    ) -> NDArray[np.float64]:
        """Counting errors of the expected counts, of one count at least."""
        loadings = np.maximum(statistic.loadings, 1.0)[:, None]
        return np.asarray(np.sqrt(np.maximum(components * loadings, 1.0)) / loadings)

    def channel_weights(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """One over the mean spectrum that sums to one (Keenan and Kotula)."""
        weights = np.zeros(totals.shape)
        np.divide(totals.sum(), totals, out=weights, where=totals > 0.0)
        return weights


@dataclass(frozen=True)
class FrobeniusLoss:
    """Half the sum of squares: noise of one size everywhere."""

    name: str = "frobenius"
    counts: bool = False

    def check(self, block: Block) -> None:
        """Refuse NaN and infinities; noise around zero may be negative."""
        require_finite_values(block)

    def spectra(self, components: NDArray[np.float64]) -> NDArray[np.float64]:
        """Themselves."""
        return components

    def evaluate(
        self, data: CountRows | NDArray[Any], components: NDArray[np.float64]
    ) -> FrobeniusPass:
        """Statistic of some pixels."""
        return frobenius_pass(data, components)

    def loadings(
        self, data: CountRows | NDArray[Any], components: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Non-negative least-squares loadings of some pixels."""
        return frobenius_loadings(data, components)

    def step(
        self,
        components: NDArray[np.float64],
        statistic: FrobeniusPass,
        weights: NDArray[np.float64],
        strength: float,
        delta: float,
    ) -> NDArray[np.float64]:
        """Block coordinate descent with the tangent of the volume."""
        return frobenius_step(components, statistic.products, statistic.gram, strength, delta)

    def earlier(self, components: NDArray[np.float64], statistic: FrobeniusPass) -> float:
        """The loss with the loadings that those pixels had."""
        gram = components @ components.T
        return float(0.5 * (statistic.gram * gram).sum() - (statistic.products * components).sum())

    def mixed(self, old: FrobeniusPass, new: FrobeniusPass, rate: float) -> FrobeniusPass:
        """Moving average of the products."""
        return FrobeniusPass(
            (1.0 - rate) * old.products + rate * new.products,
            (1.0 - rate) * old.gram + rate * new.gram,
            (1.0 - rate) * old.loadings + rate * new.loadings,
            new.square,
            new.fitted,
            new.n_pixels,
        )

    def noise(self, divergence: float, n_values: int) -> float:
        """Mean squared residual."""
        return 2.0 * divergence / max(1, n_values)

    def n_effective(self, statistic: FrobeniusPass, n_pixels: int) -> float:
        """All of them."""
        return float(n_pixels)

    def slope(
        self,
        components: NDArray[np.float64],
        statistic: FrobeniusPass,
        weights: NDArray[np.float64],
        strength: float,
        delta: float,
    ) -> Slope | None:
        """None: components may be zero, where no logarithm is."""
        return None

    def ahead(
        self,
        components: NDArray[np.float64],
        stepped: NDArray[np.float64],
        length: float,
        slope: Slope | None,
        memory: Memory,
    ) -> tuple[NDArray[np.float64], float]:
        """Along the straight line through the plain step, ever farther, cut at zero."""
        length = min(LONGEST, GROWTH * length)
        far = np.maximum(components + length * (stepped - components), 0.0)
        sums = far.sum(axis=1, keepdims=True)
        return np.where(sums > 0.0, far / np.where(sums > 0.0, sums, 1.0), stepped), length

    def errors(
        self, components: NDArray[np.float64], statistic: FrobeniusPass, divergence: float
    ) -> NDArray[np.float64]:
        """Noise of a value over the length of the loadings."""
        free = max(1, statistic.n_pixels * (components.shape[1] - len(components)))
        noise = self.noise(divergence, free)
        length = np.maximum(np.diagonal(statistic.gram), np.finfo(float).tiny)
        return np.broadcast_to(np.sqrt(noise / length)[:, None], components.shape)

    def channel_weights(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ones."""
        return np.ones_like(totals)


@dataclass(frozen=True, eq=False)
class LossAround:
    """Base of a loss that adds something to another one, whose answers it hands on.

    Parameters
    ----------
    inner : Loss
    """

    inner: Any

    def _data(self, statistic: Any) -> Any:
        """What the inner loss knows of a statistic."""
        return statistic

    @property
    def name(self) -> str:
        """The parameter ``beta_loss``."""
        return str(self.inner.name)

    @property
    def counts(self) -> bool:
        """Whether negative values make no sense."""
        return bool(self.inner.counts)

    def check(self, block: Block) -> None:
        """Refuse values that the loss cannot take."""
        self.inner.check(block)

    def mixed(self, old: Any, new: Any, rate: float) -> Any:
        """Moving average."""
        return self.inner.mixed(self._data(old), self._data(new), rate)

    def noise(self, divergence: float, n_values: int) -> float:
        """Loss that the noise of one value adds on average, times two."""
        return float(self.inner.noise(divergence, n_values))

    def n_effective(self, statistic: Any, n_pixels: int) -> float:
        """Pixels that have a say."""
        return float(self.inner.n_effective(self._data(statistic), n_pixels))

    def errors(
        self, components: NDArray[np.float64], statistic: Any, divergence: float
    ) -> NDArray[np.float64]:
        """Standard errors (K, E) of spectra, as if the loadings were known."""
        return np.asarray(self.inner.errors(components, self._data(statistic), divergence))

    def channel_weights(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights (E,) that even out the noise of the channels."""
        return np.asarray(self.inner.channel_weights(totals))


def resolve_loss(beta_loss: Any) -> PoissonLoss | FrobeniusLoss:
    """Turn the parameter ``beta_loss`` into a loss.

    Raises
    ------
    InputError
        The word is not known.
    """
    if beta_loss in ("kullback-leibler", 1):
        return PoissonLoss()
    if beta_loss in ("frobenius", 2):
        return FrobeniusLoss()
    raise InputError(
        f"beta_loss must be 'kullback-leibler' or 'frobenius', got {beta_loss!r}",
        hint="'kullback-leibler' for counts (EDS), 'frobenius' for noise of one size (EELS)",
    )
