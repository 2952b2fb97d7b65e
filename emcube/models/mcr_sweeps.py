"""Alternating least squares over pixels that were reduced to scores.

Letters: P pixels, E used channels, K components, D dims of the subspace.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels.fcls import constrained_shares
from emcube.kernels.frobenius_nmf import bounded_loadings
from emcube.kernels.products import gram_of
from emcube.kernels.unimodal import unimodal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey
    from emcube.models.nmf_start import Projector, Sketch

__all__ = ["ALSState", "ALSSweep", "Constraints", "Scores", "allowed", "loadings_of"]
__all__ += ["DEFAULT_TOL", "ALSStatistic", "spectra_step"]

DEFAULT_TOL = 1e-3
"""Share of what is left below which a round was the last."""

SWEEPS = 10
"""Times that the spectra are visited one after the other, where a bound couples their channels."""


@dataclass(frozen=True)
class Constraints:
    """What is asked of loadings and spectra.

    Attributes
    ----------
    loadings, spectra : bool
        They must not be negative.
    closure : bool
        The loadings of a pixel sum to its total.
    unimodal : bool
        Spectra have one peak.
    """

    loadings: bool = True
    spectra: bool = True
    closure: bool = False
    unimodal: bool = False

    @property
    def loadings_by(self) -> str:
        """How loadings are solved."""
        if self.closure:
            return "fcls"
        return "nnls" if self.loadings else "ls"


@dataclass(frozen=True, eq=False)
class Scores:
    """A block's pixels as scores in the weighted subspace, with their total as the last column."""

    projector: Projector

    def __call__(self, block: Block) -> NDArray[np.float64]:
        """Scores (p, D + 1)."""
        return self.projector.scores(block)


@dataclass(frozen=True, eq=False)
class ALSStatistic:
    """Sums over pixels with weights w: they add.

    Attributes
    ----------
    gram : ndarray, shape (K, K)
        sum w l l'.
    cross : ndarray, shape (K, D)
        sum w l z'.
    totals : ndarray, shape (K,)
        sum l.
    left : float
        sum w |z - l S|^2, in the subspace and where components leave it.
    square : float
        sum w |z|^2.
    """

    gram: NDArray[np.float64]
    cross: NDArray[np.float64]
    totals: NDArray[np.float64]
    left: float
    square: float

    def __add__(self, other: ALSStatistic) -> ALSStatistic:
        return ALSStatistic(
            self.gram + other.gram,
            self.cross + other.cross,
            self.totals + other.totals,
            self.left + other.left,
            self.square + other.square,
        )


@dataclass(frozen=True, eq=False)
class ALSState:
    """State of the passes; it pickles as its components alone, which are all that `map` needs."""

    components: NDArray[np.float64]
    best: NDArray[np.float64] | None = None
    statistic: ALSStatistic | None = None
    path: tuple[float, ...] = field(default=())

    def __reduce__(self) -> Any:
        return type(self), (self.components,)


@dataclass(frozen=True, eq=False)
class ALSSweep:
    """Each round solves the loadings of all pixels, then the spectra.

    Parameters
    ----------
    first : ndarray, shape (K, E)
        Components to start from; each sums to one.
    fixed : int
        The first so many components stay as they are.
    found : Sketch
        The subspace.
    constraints : Constraints
    by_counts : bool
        A pixel weighs one over its total.
    tol : float
        Done when a round takes less than this share off what is left, or (at `DEFAULT_TOL`, and in
        proportion)
        less than fitting noise would: its variance for each of the K D numbers that the spectra are.
    noise : float
        Variance of the noise of a score.
    earlier : ALSStatistic or None
        Of pixels of earlier calls of ``partial_fit``.
    """

    first: NDArray[np.float64]
    fixed: int
    found: Sketch
    constraints: Constraints
    by_counts: bool
    tol: float
    noise: float
    earlier: ALSStatistic | None = None
    name: str = "MCR"

    def start(self) -> ALSState:
        """The given components."""
        return ALSState(self.first)

    def map(self, block: Block, state: ALSState, rng_key: RngKey) -> ALSStatistic:
        """Loadings of a block's pixels, and the sums that the spectra follow from."""
        rows = block.data
        assert isinstance(rows, np.ndarray)  # scores are dense
        scores, totals = rows[:, :-1], rows[:, -1]
        seen = state.components * self.found.scale
        products = scores @ (seen @ self.found.vectors).T
        gram = gram_of(seen)
        loadings = loadings_of(products, gram, totals, self.constraints)
        weights = _weights(totals, by_counts=self.by_counts)
        weighted = loadings * weights[:, None]
        square = float(np.square(scores).sum(axis=1) @ weights)
        own = weighted.T @ loadings
        left = square - 2.0 * float((weighted * products).sum()) + float((own * gram).sum())
        return ALSStatistic(own, weighted.T @ scores, loadings.sum(axis=0), left, square)

    def combine(self, a: ALSStatistic, b: ALSStatistic) -> ALSStatistic:
        """Add."""
        return a + b

    def step(
        self, state: ALSState, statistic: ALSStatistic, round_number: int
    ) -> tuple[ALSState, bool]:
        """New spectra; the end where what is left hardly falls, or rises."""
        left = max(statistic.left, 0.0)
        if state.path and not left < state.path[-1]:
            # Bounds that are not exact, or rounding: what was there before is the answer.
            best = state.components if state.best is None else state.best
            return replace(state, components=best), True
        fitted = 2.0 * self.noise * len(state.components) * statistic.cross.shape[1]
        least = self.tol * max(left, fitted / DEFAULT_TOL)
        done = bool(state.path) and state.path[-1] - left <= least
        path = (*state.path, left)
        if done:
            return ALSState(state.components, state.components, statistic, path), True
        seen = statistic if self.earlier is None else statistic + self.earlier
        unscale = np.divide(
            1.0, self.found.scale, out=np.zeros_like(self.found.scale), where=self.found.scale > 0.0
        )
        products = (seen.cross @ self.found.vectors.T) * unscale
        ahead = spectra_step(
            state.components,
            seen.gram,
            products,
            np.square(self.found.scale),
            self.fixed,
            self.constraints,
        )
        return ALSState(ahead, state.components, statistic, path), False

    def objective(self, state: ALSState) -> float:
        """What is left, of the best components so far."""
        return state.path[-1] if state.path else np.inf

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        k = len(self.first)
        return int(8 * k * (k + self.found.vectors.shape[1] + 1))


def _weights(totals: NDArray[np.float64], *, by_counts: bool) -> NDArray[np.float64]:
    """One over the total of a pixel, whose noise it is; nothing where it is empty."""
    if not by_counts:
        return np.ones(totals.shape)
    return np.divide(1.0, totals, out=np.zeros(totals.shape), where=totals > 0.0)


def loadings_of(
    products: NDArray[np.float64],
    gram: NDArray[np.float64],
    totals: NDArray[np.float64],
    constraints: Constraints,
) -> NDArray[np.float64]:
    """Loadings (P, K) of least squares with what is asked of them."""
    if constraints.closure:
        return constrained_shares(products, gram, totals)
    if constraints.loadings:
        return bounded_loadings(products, gram)
    return np.asarray(products @ np.linalg.pinv(gram, hermitian=True))


def spectra_step(
    spectra: NDArray[np.float64],
    gram: NDArray[np.float64],
    products: NDArray[np.float64],
    weights: NDArray[np.float64],
    fixed: int,
    constraints: Constraints,
) -> NDArray[np.float64]:
    """Spectra (K, E) of least squares for given loadings L, with what is asked of them; they sum to one.

    Parameters
    ----------
    spectra : ndarray, shape (K, E)
        Those before: a start, and what the first `fixed` stay.
    gram : ndarray, shape (K, K)
        L' W L.
    products : ndarray, shape (K, E)
        L' W D.
    weights : ndarray, shape (E,)
        Of the channels.
    fixed : int
    constraints : Constraints
    """
    new = spectra.copy()
    known = gram[fixed:, :fixed] @ spectra[:fixed]
    own, wanted = gram[fixed:, fixed:], products[fixed:] - known
    if constraints.unimodal:
        new[fixed:] = _one_peak(spectra[fixed:], own, wanted, weights, constraints)
    elif constraints.spectra:
        new[fixed:] = bounded_loadings(np.ascontiguousarray(wanted.T), own).T
    else:
        new[fixed:] = np.linalg.pinv(own, hermitian=True) @ wanted
    new[:, weights == 0.0] = 0.0
    sums = new.sum(axis=1, keepdims=True)
    # A component that nothing needs any more keeps its spectrum.
    good = sums > 1e-9 * np.abs(new).sum(axis=1, keepdims=True)
    return np.where(good, new / np.where(good, sums, 1.0), spectra)


def allowed(
    spectra: NDArray[np.float64],
    weights: NDArray[np.float64],
    fixed: int,
    constraints: Constraints,
) -> NDArray[np.float64]:
    """Spectra (K, E) to start from that obey what is asked: what is left could rise otherwise."""
    if not constraints.unimodal:
        return spectra
    new = spectra.copy()
    for k in range(fixed, len(new)):
        new[k] = unimodal(new[k], weights, positive=True)
    return np.asarray(new / new.sum(axis=1, keepdims=True))


def _one_peak(
    spectra: NDArray[np.float64],
    gram: NDArray[np.float64],
    products: NDArray[np.float64],
    weights: NDArray[np.float64],
    constraints: Constraints,
) -> NDArray[np.float64]:
    """Block descent over the spectra, each projected onto curves of one peak."""
    new = spectra.copy()
    for _ in range(SWEEPS):
        for k in range(len(new)):
            if gram[k, k] <= 0.0:
                continue
            others = gram[k] @ new - gram[k, k] * new[k]
            wanted = (products[k] - others) / gram[k, k]
            new[k] = unimodal(wanted, weights, positive=constraints.spectra)
    return new
