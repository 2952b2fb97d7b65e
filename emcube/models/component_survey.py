"""How many components, by several methods at once: one recommendation with its reason, or a refusal.

Letters: P pixels, E channels, K components.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.engine import resident, run_sweep
from emcube.errors import InputError
from emcube.kernels.poisson_nmf import floored, poisson_loadings
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

__all__ = ["ComponentSurvey", "gavish_donoho", "indicator", "malinowski", "optimal_threshold"]
__all__ += ["survey_n_components"]

METHODS = {
    "biwhitening": "biwhitening",
    "parallel": "parallel analysis",
    "gavish-donoho": "Gavish and Donoho's threshold",
    "malinowski": "Malinowski's indicator",
    "elbow": "elbow",
    "held-out": "held-out counts",
    "stability": "stability between halves",
    "consensus": "consensus of restarts",
}
"""Each method by its name in tables and in words."""

ALIKE = 20.0
"""Degrees (weighted) within which each component of one half must be found in the other one."""

AGREED = 0.9
"""Share of the components that restarts must find again, on average over pairs of them."""

AS_GOOD = 0.01
"""Share of the objective within which a start has ended as well as the best one."""

RESTART_TOL = 1e-6
"""Tolerance of fits from random starts."""

SURE = 3.0
"""Standard errors by which a further component must predict held-out counts better."""

WORTH = 0.02
"""Gain over that of the component before, below which a component may do no more than make up for small
errors of the others: with very many counts these are significant, too."""

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
        Over ``component`` (from 1): ``singular_value`` of the biwhitened matrix, ``accepted`` and
        ``indicator`` (Malinowski's); over ``n`` (numbers of components that were fitted): ``gain``, by which
        the n-th component raises the log-likelihood of held-out counts (nats; half of what their deviance
        falls by), ``gain_error``, ``worst_angle``, the largest angle between matched components of the two
        halves (degrees), and ``consensus``, the share of components that restarts find again. The scalars
        ``threshold`` and ``optimal_threshold`` are those of biwhitening, and of Gavish and Donoho.
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

        return component_survey(self.table, self.numbers, n_components=self.n_components, **options)

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
    return int(np.count_nonzero(singular_values > optimal_threshold(n_rows, n_columns)))


def optimal_threshold(n_rows: int, n_columns: int) -> float:
    """Singular value above which keeping a component lowers the squared error (see `gavish_donoho`)."""
    small, large = sorted((n_rows, n_columns))
    beta = small / large
    width = 8.0 * beta / (beta + 1.0 + math.sqrt(beta * beta + 14.0 * beta + 1.0))
    return math.sqrt(2.0 * (beta + 1.0) + width) * math.sqrt(large)


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
    values = indicator(singular_values, n_rows, n_columns)
    return int(np.argmin(values)) + 1 if values.size else None


def indicator(
    singular_values: NDArray[np.float64], n_rows: int, n_columns: int
) -> NDArray[np.float64]:
    """Malinowski's indicator of 1, 2, ... components; empty where there are too few values."""
    c, r = sorted((n_rows, n_columns))
    values = np.square(singular_values[:c])
    most = int(0.9 * min(values.size, c - 1))
    if most < 3:
        return np.zeros(0)
    left = values.sum() - np.cumsum(values)
    k = np.arange(1, most + 1)
    error = np.sqrt(np.maximum(left[:most], 0.0) / (r * (c - k)))
    return np.asarray(error / np.square(c - k))


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
        seen, hidden = self.draws[0].parts(block)
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
    cube: Any,
    *,
    max_components: int = 6,
    n_restarts: int = 4,
    where: Any = None,
    random_state: Any = 0,
) -> ComponentSurvey:
    """Ask several methods how many components counts support, and recommend one number or none.

    Parameters
    ----------
    cube : DataArray, or matrix of shape (P, E)
        Counts.
    max_components : int
        Models of up to so many components are fitted to halves of the counts.
    n_restarts : int
        Fits from random starts, of each number of components.
    where : DataArray of bool, optional
        What is used (True).
    random_state : int, Generator or None
        Seed of halves, fits, starts and simulated counts.

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
    components of both halves are the same within 20 degrees. Consensus asks something else: whether the
    objective has one answer, whatever the noise. All counts are fitted from random starts, and the number
    is the largest of which 90 % of the components are found again within 20 degrees, on average over pairs of
    those that end within 1 % of the best objective.
    The recommendation needs one of each of the first two families; it says so where restarts do not agree.
    Where held-out counts ask for more components than singular values do, and gain less than 2 % of what the
    last of these gained, the smaller number is recommended: in tens of millions of counts it is significant,
    too, that spectra are off by a fraction of a degree, and a further component makes up for some of that.
    All fits sum the same tiles of pixels.
    Costs two fits of half the counts, and `n_restarts` of all, for each number; they are read once while
    they fit in memory.

    References
    ----------
    B. Landa, T. T. C. K. Zhang, Y. Kluger, SIAM J. Math. Data Sci. 4 (2022) 1420. https://doi.org/10.1137/21M1456807
    A. Neufeld et al., "Data thinning for convolution-closed distributions", J. Mach. Learn. Res. 25 (2024)
    57. https://doi.org/10.48550/arXiv.2301.07276
    S. Wu et al., "Stability-driven nonnegative matrix factorization", PNAS 113 (2016) 4290 (consensus).
    https://doi.org/10.1073/pnas.1521171113

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> spectra = rng.dirichlet(np.ones(120), 2) * 200
    >>> counts = rng.poisson(rng.dirichlet(np.ones(2), 500) @ spectra)
    >>> em.survey_n_components(counts, max_components=3).n_components
    2
    """
    given: Any
    for name, given in (("max_components", max_components), ("n_restarts", n_restarts)):
        if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 2:
            raise InputError(f"{name} must be a whole number from 2 on, got {given!r}")
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
        likely = min(found.n_components or most, most)
        gains, angles, pool = _halves(source, labels, most, likely, seed)
        shares = _restarts(source, labels, most, pool, int(n_restarts), seed)
    numbers = _numbers(found, gains, angles, shares)
    n, reason = _recommended(
        found,
        numbers,
        most,
        gains[:, 0],
        frozenset(int(i) + 1 for i in np.flatnonzero(angles <= ALIKE)),
        frozenset(int(i) + 1 for i in np.flatnonzero(shares >= AGREED)),
    )
    table = _table(found, gains, angles, shares)
    return ComponentSurvey(n, reason, numbers, table, _shortened(found))


def _halves(
    source: BlockSource, labels: Labels, most: int, likely: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Gains (most - 1, 2) with their errors, worst angles (most,), of 1 to `most` components; and pooling.

    All fits sum the tiles that the `likely` number asks for. Fits on larger tiles suffer less from noise:
    left to choose, one component more may ask for larger tiles, and predict better for that reason alone.
    """
    halves = (0.5, 0.5)
    draws = (ThinDraw(seed, 0, halves, 0), ThinDraw(seed, 0, halves, 1))
    sources = [DrawnSource(source, draw, f"half{seed}.{i}") for i, draw in enumerate(draws)]
    first = _fit(sources[0], labels, likely, seed)
    pool = int(first.pool_)
    models = []
    for k in range(1, most + 1):
        one = first if k == likely else _fit(sources[0], labels, k, seed, pool=pool)
        models.append((one, _fit(sources[1], labels, k, seed, pool=pool)))
    angles = np.array([_worst_angle(a._values, b._values) for a, b in models])
    sweep = HeldOutSweep(tuple(a._values for a, _ in models), draws)
    sums = run_sweep(sweep, source, seed=seed).state[: most - 1]
    return np.column_stack((sums[:, 0], np.sqrt(sums[:, 1]))), angles, pool


def _fit(source: BlockSource, labels: Labels, k: int, seed: int, **options: Any) -> MiniBatchNMF:
    model = MiniBatchNMF(k, random_state=seed, **options)
    model._fit_source(source, labels, PoissonLoss())
    return model


def _restarts(
    source: BlockSource, labels: Labels, most: int, pool: int, n_restarts: int, seed: int
) -> NDArray[np.float64]:
    """Share of components that random starts find again, (most,), with the pooling of the halves."""
    shares = np.ones(most)
    for k in range(2, most + 1):
        seeds = np.random.SeedSequence((seed, k)).generate_state(n_restarts)
        # To the end: what stops early is still on its way from where it began.
        fits = [
            _fit(source, labels, k, int(one), init="random", pool=pool, tol=RESTART_TOL)
            for one in seeds
        ]
        least = min(fit.objective_path_[-1] for fit in fits)
        good = [f._values for f in fits if f.objective_path_[-1] - least <= AS_GOOD * abs(least)]
        pairs = [_found_again(one, other) for one, other in combinations(good, 2)]
        shares[k - 1] = np.mean(pairs) if pairs else 0.0
    return shares


def _found_again(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Share of components that have a partner within `ALIKE` degrees."""
    return float(np.mean(_angles(a, b) <= ALIKE))


def _worst_angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(_angles(a, b).max())


def _angles(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted angles between matched components, (K,) degrees."""
    mean = a.mean(axis=0)
    weights = np.divide(1.0, mean, out=np.zeros_like(mean), where=mean > 0.0)
    order, angles = match_values(b, a, weights)
    return np.asarray(angles[order[:, 0], order[:, 1]])


def _numbers(
    found: NComponentsEstimate,
    gains: NDArray[np.float64],
    angles: NDArray[np.float64],
    shares: NDArray[np.float64],
) -> dict[str, int | None]:
    values = found.curve["singular_value"].values.astype(np.float64)
    side = _sides(found)
    return {
        "biwhitening": found.alternatives.get("biwhitening"),
        "parallel": found.alternatives.get("parallel"),
        "gavish-donoho": gavish_donoho(values, *side) if side else None,
        "malinowski": malinowski(values, *side) if side else None,
        "elbow": found.alternatives.get("elbow"),
        "held-out": _predicted(gains),
        "stability": _stable(angles),
        "consensus": int(np.flatnonzero(shares >= AGREED)[-1]) + 1,
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
    found: NComponentsEstimate,
    numbers: dict[str, int | None],
    most: int,
    gains: NDArray[np.float64],
    halves: frozenset[int],
    restarts: frozenset[int],
) -> tuple[int | None, str]:
    """One number that both families support, or none, with the reason.

    `gains` are those of 2, 3, ... components over one less in held-out counts; `halves` and `restarts` are
    the numbers of components that are the same in both halves, and from all starts.
    """
    spectral = numbers["biwhitening"] if found.trusted else None
    predicted = numbers["held-out"]
    assert predicted is not None
    told = f"held-out counts say {predicted}" + (" or more" if predicted >= most else "")
    if spectral is None:
        return _without_spectrum(found, predicted, told, most, halves, restarts)
    if spectral > most:
        return None, (
            f"biwhitening says {spectral}, and models of up to {most} were fitted: raise max_components"
        )
    if abs(spectral - predicted) > APART:
        return None, f"biwhitening says {spectral}, {told}: too far apart to recommend either"
    low, high = sorted((spectral, predicted))
    if low == high:
        n, same = low, low in halves
        reason = "biwhitening and held-out counts agree" + (
            " and both halves of the data give the same components"
            if same
            else ", though the halves do not give the same components"
        )
    elif high == predicted and (share := _worth(gains, low, high)) < WORTH:
        n = low
        reason = (
            f"biwhitening says {spectral}, {told}; what is gained beyond {low} is {100 * share:.2g} % of "
            "what the last of these gains, no more than small errors of the others are worth"
        )
    elif high in halves:
        n = high
        reason = (
            f"biwhitening says {spectral}, {told}; {high} components are the same in both halves"
        )
    else:
        n = low
        reason = (
            f"biwhitening says {spectral}, {told}; {high} components are not the same in both halves, so the "
            "smaller number is taken"
        )
    if n not in restarts:
        reason += f"; fits from random starts do not agree on {n} components, so look at them"
    return n, reason


def _worth(gains: NDArray[np.float64], low: int, high: int) -> float:
    """Largest gain of the components beyond `low`, up to `high`, over that of the last of these."""
    if low < 2:
        return math.inf
    return float(gains[low - 1 : high - 1].max() / gains[low - 2])


def _without_spectrum(
    found: NComponentsEstimate,
    predicted: int,
    told: str,
    most: int,
    halves: frozenset[int],
    restarts: frozenset[int],
) -> tuple[int | None, str]:
    """The recommendation where the singular values are not to be trusted: all others must agree."""
    if predicted < most and predicted in halves and predicted in restarts:
        return predicted, (
            f"{told}, and both halves of the data and all starts give the same components; the spectrum of "
            "the noise does not follow its law, so that methods by singular values are not trusted"
        )
    doubts = [
        word
        for agreed, word in (
            (predicted < most, f"no more than {most} were fitted"),
            (predicted in halves, "both halves of the data do not give the same components"),
            (predicted in restarts, "fits from random starts do not agree"),
        )
        if not agreed
    ]
    return None, (
        f"the spectrum of the noise does not follow its law ({found.reason}); {told}, but "
        + " and ".join(doubts)
    )


def _table(
    found: NComponentsEstimate,
    gains: NDArray[np.float64],
    angles: NDArray[np.float64],
    shares: NDArray[np.float64],
) -> xr.Dataset:
    n = np.arange(1, angles.size + 1)
    curve = _shortened(found).curve
    first = [[math.nan, math.nan]]
    both = np.concatenate((first, gains)) if gains.size else np.array(first)
    shown = np.full(curve.sizes["component"], math.nan)
    optimal = math.nan
    side = _sides(found)
    if side is not None:
        values = found.curve["singular_value"].values.astype(np.float64)
        known = indicator(values, *side)[: shown.size]
        shown[: known.size] = known
        optimal = optimal_threshold(*side)
    return xr.Dataset(
        {
            "singular_value": curve["singular_value"].assign_attrs(units="1"),
            "accepted": curve["accepted"].assign_attrs(units="1"),
            "indicator": ("component", shown, {"units": "1"}),
            "threshold": ((), float(found.threshold), {"units": "1"}),
            "optimal_threshold": ((), optimal, {"units": "1"}),
            "gain": ("n", both[:, 0], {"units": "1"}),
            "gain_error": ("n", both[:, 1], {"units": "1"}),
            "worst_angle": ("n", angles, {"units": "deg"}),
            "consensus": ("n", shares, {"units": "1"}),
        },
        coords={"n": n},
    )


def _sides(found: NComponentsEstimate) -> tuple[int, int] | None:
    """Rows and columns of the biwhitened matrix, where there is one."""
    side = (int(found.noise.get("pixels", 0) or 0), int(found.noise.get("channels", 0) or 0))
    return side if found.curve.sizes["component"] > 0 and min(side) > 0 else None


def _shortened(found: NComponentsEstimate) -> NComponentsEstimate:
    """The estimate with a curve of the usual length."""
    return replace(found, curve=found.curve.isel(component=slice(30)))
