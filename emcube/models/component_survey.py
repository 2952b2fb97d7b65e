"""How many components, by several methods at once: one recommendation with its reason, or a refusal.

Letters: P pixels, E channels, K components.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.engine import resident, run_sweep
from emcube.errors import InputError
from emcube.kernels.poisson_nmf import as_rows, floored, poisson_loadings
from emcube.models.base import resolve_seed
from emcube.models.labels import Labels, as_source, dtype_of, require_finite_counts
from emcube.models.matching import match_values
from emcube.models.n_components import NComponentsEstimate, estimate_n_components
from emcube.models.nmf import MiniBatchNMF
from emcube.models.nmf_losses import PoissonLoss
from emcube.models.replicates import DrawnSource, ThinDraw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource, RngKey

__all__ = ["ComponentSurvey", "gavish_donoho", "malinowski", "survey_n_components"]

METHODS = {
    "biwhitening": "biwhitening",
    "parallel": "parallel analysis",
    "gavish-donoho": "Gavish and Donoho's threshold",
    "malinowski": "Malinowski's indicator",
    "elbow": "elbow",
    "held-out": "held-out counts",
    "stability": "stability between halves",
}
"""Each method by its name in tables and in words."""

ALIKE = 20.0
"""Degrees (weighted) within which each component of one half must be found in the other one."""

SURE = 3.0
"""Standard errors by which a further component must predict held-out counts better."""

APART = 2
"""Methods that rest on different assumptions and differ by more than this name no number together."""


@dataclass(frozen=True, eq=False)
class ComponentSurvey:
    """Answer of `survey_n_components`.

    Attributes
    ----------
    n_components : int or None
        The recommendation; None where it is refused.
    reason : str
        Why, in plain words.
    numbers : dict
        Number by each method; None where it names none.
    table : Dataset
        Over ``component`` (from 1): ``singular_value`` of the biwhitened matrix and ``accepted``; over
        ``n`` (numbers of
        components that were fitted): ``gain``, by which the n-th component raises the log-likelihood of
        held-out
        counts (nats), ``gain_error``, and ``worst_angle``, the largest angle between matched components of
        the two halves (degrees).
    estimate : NComponentsEstimate
        Of the biwhitened matrix.
    """

    n_components: int | None
    reason: str
    numbers: dict[str, int | None]
    table: xr.Dataset
    estimate: NComponentsEstimate

    @property
    def refused(self) -> bool:
        """Whether there is no number."""
        return self.n_components is None

    def plot(self, **options: Any) -> Any:
        """Draw all methods in one figure (see `emcube.plot.component_survey`)."""
        from emcube.plot import component_survey

        return component_survey(
            self.table, self.numbers, n_components=self.n_components,
            threshold=self.estimate.threshold, **options,
        )  # fmt: skip

    def __str__(self) -> str:
        number = "refused" if self.refused else str(self.n_components)
        told = ", ".join(
            f"{METHODS[k]}: {'no number' if v is None else v}" for k, v in self.numbers.items()
        )
        return f"number of components: {number} ({self.reason})\n{told}"

    __repr__ = __str__


def gavish_donoho(singular_values: NDArray[np.float64], n_rows: int, n_columns: int) -> int:
    """Count singular values above the optimal hard threshold for white noise of variance one.

    References
    ----------
    M. Gavish, D. L. Donoho, IEEE Trans. Inf. Theory 60 (2014) 5040. https://doi.org/10.1109/TIT.2014.2323359
    """
    small, large = sorted((n_rows, n_columns))
    beta = small / large
    width = 8.0 * beta / (beta + 1.0 + math.sqrt(beta * beta + 14.0 * beta + 1.0))
    threshold = math.sqrt(2.0 * (beta + 1.0) + width) * math.sqrt(large)
    return int(np.count_nonzero(singular_values > threshold))


def malinowski(singular_values: NDArray[np.float64], n_rows: int, n_columns: int) -> int | None:
    """Number at which Malinowski's indicator function is least; None where there are too few values.

    IND(k) = RE(k) / (c - k)^2 with the real error RE(k)^2 = sum_(j > k) lambda_j / (r (c - k)), r the
    longer side and
    c the shorter one. The sum needs all singular values; the last tenth is left out, where the function
    turns down to nothing.

    References
    ----------
    E. R. Malinowski, Anal. Chem. 49 (1977) 612. https://doi.org/10.1021/ac50012a027
    """
    c, r = sorted((n_rows, n_columns))
    values = np.square(singular_values[:c])
    most = int(0.9 * min(values.size, c - 1))
    if most < 3:
        return None
    left = values.sum() - np.cumsum(values)
    k = np.arange(1, most + 1)
    error = np.sqrt(np.maximum(left[:most], 0.0) / (r * (c - k)))
    return int(k[np.argmin(error / np.square(c - k))])


# ------------------------------------------------------------------------------------ held-out counts


@dataclass(frozen=True, eq=False)
class HeldOutSweep:
    """Log-likelihood of one half of the counts, with loadings from the other, for several models.

    Statistic: sums of the gain of each model over the one before, and of its square over pixels, (K - 1, 2).
    """

    models: tuple[NDArray[np.float64], ...]
    draws: tuple[ThinDraw, ThinDraw]
    name: str = "held-out counts"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> NDArray[np.float64]:
        """Gains of one block."""
        require_finite_counts(block)
        seen, hidden = (as_rows(draw(block).data) for draw in self.draws)
        pixel = np.repeat(np.arange(hidden.n_pixels), np.diff(hidden.indptr))
        counts = hidden.counts.astype(np.float64)
        before: NDArray[np.float64] | None = None
        out = np.zeros((max(1, len(self.models) - 1), 2))
        for i, components in enumerate(self.models):
            loadings = poisson_loadings(seen, components)
            expected = np.zeros(hidden.nnz)
            for h, s in zip(loadings.T, floored(components), strict=True):
                expected += h[pixel] * s[hidden.channels]
            # A pixel whose seen half is empty expects next to nothing, not nothing.
            terms = counts * np.log(np.maximum(expected, 1e-12))
            score = np.bincount(pixel, terms, minlength=hidden.n_pixels) - loadings.sum(axis=1)
            if before is not None:
                gain = score - before
                out[i - 1] = gain.sum(), np.square(gain).sum()
            before = score
        return out

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add."""
        return a + b

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True


def survey_n_components(
    cube: Any, *, max_components: int = 6, where: Any = None, random_state: Any = 0
) -> ComponentSurvey:
    """Ask several methods how many components counts support, and recommend one number or none.

    Parameters
    ----------
    cube : DataArray, or matrix of shape (P, E)
        Counts.
    max_components : int
        Models of up to so many components are fitted to halves of the counts.
    where : DataArray of bool, optional
        What is used (True).
    random_state : int, Generator or None
        Seed of halves, fits and simulated counts.

    Returns
    -------
    ComponentSurvey

    Raises
    ------
    InputError
        The cube holds no counts; a parameter is out of range.

    Notes
    -----
    Two families are asked. Spectral ones look at the singular values of the biwhitened matrix:
    biwhitening's own
    threshold, parallel analysis, Gavish and Donoho's threshold (stricter: the least squared error asks
    that a component
    stands out by more than the edge of the noise), Malinowski's indicator and the elbow. Predictive ones
    deal the counts to
    two halves: a further component counts where loadings found on one half predict the other better by three
    standard errors (with components of the first half, so that nothing is scored that was fitted), and
    where the
    components of both halves are the same within 20 degrees. The recommendation needs one of each family.
    Costs two fits for each number, of half the counts; they are read once while they fit in memory.

    References
    ----------
    B. Landa, T. T. C. K. Zhang, Y. Kluger, SIAM J. Math. Data Sci. 4 (2022) 1420. https://doi.org/10.1137/21M1456807
    A. Neufeld et al., "Data thinning for convolution-closed distributions", J. Mach. Learn. Res. 25 (2024)
    57. https://doi.org/10.48550/arXiv.2301.07276

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> spectra = rng.dirichlet(np.ones(120), 2) * 200
    >>> counts = rng.poisson(rng.dirichlet(np.ones(2), 500) @ spectra)
    >>> em.survey_n_components(counts, max_components=3).n_components
    2
    """
    given: Any = max_components
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 2:
        raise InputError(f"max_components must be a whole number from 2 on, got {max_components!r}")
    if dtype_of(cube).kind not in "iub":
        raise InputError(
            f"the survey deals counts to halves, got values of {dtype_of(cube)}",
            hint="for other data use em.estimate_n_components(cube, noise='quadratic')",
        )
    seed = resolve_seed(random_state)
    with resident():
        found = estimate_n_components(cube, where=where, n_shown=1 << 20, random_state=seed)
        source, labels = as_source(cube, where)
        most = int(min(max_components, source.n_pixels, source.n_channels))
        gains, angles = _halves(source, labels, most, seed)
    numbers = _numbers(found, gains, angles)
    n, reason = _recommended(found, numbers, most)
    return ComponentSurvey(n, reason, numbers, _table(found, gains, angles), _shortened(found))


def _halves(
    source: BlockSource, labels: Labels, most: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gains (most - 1, 2) with their errors, and worst angles (most,), of 1 to `most` components."""
    halves = (0.5, 0.5)
    draws = (ThinDraw(seed, 0, halves, 0), ThinDraw(seed, 0, halves, 1))
    sources = [DrawnSource(source, draw, f"half{seed}.{i}") for i, draw in enumerate(draws)]
    models = [tuple(_fit(half, labels, k, seed) for half in sources) for k in range(1, most + 1)]
    angles = np.array([_worst_angle(a, b) for a, b in models])
    sweep = HeldOutSweep(tuple(a for a, _ in models), draws)
    sums = run_sweep(sweep, source, seed=seed).state[: most - 1]
    return np.column_stack((sums[:, 0], np.sqrt(sums[:, 1]))), angles


def _fit(half: BlockSource, labels: Labels, k: int, seed: int) -> NDArray[np.float64]:
    model = MiniBatchNMF(k, random_state=seed)
    model._fit_source(half, labels, PoissonLoss())
    return model._values


def _worst_angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    mean = a.mean(axis=0)
    weights = np.divide(1.0, mean, out=np.zeros_like(mean), where=mean > 0.0)
    order, angles = match_values(b, a, weights)
    return float(angles[order[:, 0], order[:, 1]].max())


def _numbers(
    found: NComponentsEstimate, gains: NDArray[np.float64], angles: NDArray[np.float64]
) -> dict[str, int | None]:
    values = found.curve["singular_value"].values.astype(np.float64)
    side = (int(found.noise.get("pixels", 0) or 0), int(found.noise.get("channels", 0) or 0))
    known = values.size > 0 and min(side) > 0
    return {
        "biwhitening": found.alternatives.get("biwhitening"),
        "parallel": found.alternatives.get("parallel"),
        "gavish-donoho": gavish_donoho(values, *side) if known else None,
        "malinowski": malinowski(values, *side) if known else None,
        "elbow": found.alternatives.get("elbow"),
        "held-out": _predicted(gains),
        "stability": _stable(angles),
    }


def _predicted(gains: NDArray[np.float64]) -> int:
    """Components up to the first that predicts no better by `SURE` standard errors."""
    n = 1
    for gain, error in gains:
        if not gain > SURE * max(error, 1e-12):
            break
        n += 1
    return n


def _stable(angles: NDArray[np.float64]) -> int | None:
    """Largest number of components that both halves agree on."""
    good = np.flatnonzero(angles <= ALIKE)
    return int(good[-1]) + 1 if good.size else None


def _recommended(
    found: NComponentsEstimate, numbers: dict[str, int | None], most: int
) -> tuple[int | None, str]:
    """One number that both families support, or none, with the reason."""
    spectral = numbers["biwhitening"] if found.trusted else None
    predicted = numbers["held-out"]
    assert predicted is not None
    stable = numbers["stability"] or 0
    told = f"held-out counts say {predicted}" + (" or more" if predicted >= most else "")
    if spectral is None:
        if predicted < most and predicted <= stable:
            return predicted, (
                f"{told}, and both halves of the data give the same components; the spectrum of "
                "the noise does not "
                "follow its law, so that methods by singular values are not trusted"
            )
        return None, (
            f"the spectrum of the noise does not follow its law ({found.reason}), {told}, and "
            "both halves of the data "
            f"agree on {stable} components at most"
        )
    if spectral > most:
        return None, (
            f"biwhitening says {spectral}, and models of up to {most} were fitted: raise max_components"
        )
    if spectral == predicted:
        same = " and both halves of the data give the same components"
        return spectral, (
            f"biwhitening and held-out counts agree{same if spectral <= stable else ''}"
            + ("" if spectral <= stable else ", though the halves do not give the same components")
        )
    if abs(spectral - predicted) > APART:
        return None, f"biwhitening says {spectral}, {told}: too far apart to recommend either"
    low, high = sorted((spectral, predicted))
    if high <= stable:
        return high, (
            f"biwhitening says {spectral}, {told}; up to {high} components are the same in both "
            "halves of the data"
        )
    return low, (
        f"biwhitening says {spectral}, {told}; more than {max(low, stable)} components are not "
        "the same in both halves "
        "of the data, so the smaller number is taken"
    )


def _table(
    found: NComponentsEstimate, gains: NDArray[np.float64], angles: NDArray[np.float64]
) -> xr.Dataset:
    n = np.arange(1, angles.size + 1)
    curve = _shortened(found).curve
    first = [[math.nan, math.nan]]
    both = np.concatenate((first, gains)) if gains.size else np.array(first)
    return xr.Dataset(
        {
            "singular_value": curve["singular_value"].assign_attrs(units="1"),
            "accepted": curve["accepted"].assign_attrs(units="1"),
            "gain": ("n", both[:, 0], {"units": "1"}),
            "gain_error": ("n", both[:, 1], {"units": "1"}),
            "worst_angle": ("n", angles, {"units": "deg"}),
        },
        coords={"n": n},
    )


def _shortened(found: NComponentsEstimate) -> NComponentsEstimate:
    """The estimate with a curve of the usual length."""
    return replace(found, curve=found.curve.isel(component=slice(30)))
