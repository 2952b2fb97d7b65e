"""How sure loadings and components are, and how much of them nothing fixes.

Letters: P pixels, E used channels, K components, R replicates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.engine import resident
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.kernels.fisher import flat_intervals, poisson_intervals, shared_variance
from emcube.kernels.poisson_nmf import as_rows
from emcube.models.base import resolve_seed
from emcube.models.cloud_rotation import cloud_turns
from emcube.models.fields import Fields, selections, several
from emcube.models.information import (
    Fitted,
    component_errors,
    fitted_of,
    information_of,
)
from emcube.models.labels import as_source, dtype_of, map_pixels
from emcube.models.nmf_gain import in_counts, noise_gain
from emcube.models.nmf_start import sketch
from emcube.models.nmf_variants import variant_words
from emcube.models.rebuild import pixels_only
from emcube.models.refits import replicates
from emcube.models.rotation import Rotations, beside

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource

__all__ = ["METHODS", "PixelUncertainty", "Uncertainty", "evaluate"]
__all__ += ["rotation_range", "uncertainty"]

METHODS = ("fisher", "bootstrap", "thinning", "area", "restarts")

REPLICATES = {"fisher": 0, "bootstrap": 20, "thinning": 20, "area": 20, "restarts": 5}
"""Replicates of each method, where the user does not say. Thinning makes them in pairs."""


def refuse_variants(parameters: Any) -> None:
    """Refuse a model whose spread is not that of the plain likelihood.

    Raises
    ------
    InputError
        Components are known or made of a basis, or loadings are penalised.
    """
    if words := variant_words(parameters):
        raise InputError(
            f"uncertainty of a MiniBatchNMF with {', '.join(words)}: a model without is expected, since "
            "what is known or asked for takes away spread, and adds bias that no spread shows",
            hint="ask for the uncertainty of a fit without it, and hold the answers side by side",
        )


# ----------------------------------------------------------------------------------------- answers


@dataclass(frozen=True, eq=False)
class PixelUncertainty:
    """Uncertainty of the loadings of a block's pixels; pickles.

    Parameters
    ----------
    fitted : Fitted
    z : float
        Half width of an interval, in standard deviations.
    noise : float
        Least squares: variance of a value.
    quadratic : ndarray, shape (K, K, K), or None
        What the components' error does to loadings (see `shared_variance`).
    replicates : ndarray, shape (R, K, E), or None
        Or components of replicates, with which loadings are solved.
    rotations : Rotations
        Other factorisations that are as good.
    paired : bool
        Replicates are pairs of independent halves.
    """

    fitted: Fitted
    z: float
    noise: float
    quadratic: NDArray[np.float64] | None
    replicates: NDArray[np.float64] | None
    rotations: Rotations
    paired: bool = False

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        """Names of variables to values (p, K) or (p, K, 2)."""
        packed = self.packed(block)
        return {
            "loadings_std_counting": packed[..., 0],
            "loadings_std_shared": packed[..., 1],
            "loadings_interval": packed[..., 2:4],
            "loadings_rotation_range": packed[..., 4:6],
        }

    def packed(self, block: Block) -> NDArray[np.float64]:
        """All of them side by side, shape (p, K, 6)."""
        fitted, loss = self.fitted, self.fitted.loss
        loss.check(block)
        data = block.data if fitted.gain == 1.0 else block.dense() / fitted.gain
        data = as_rows(data) if loss.counts else data
        loadings = loss.loadings(data, fitted.components)
        shared, moved = self._shared(data, loadings)
        out = np.empty((*loadings.shape, 6))
        apart = np.abs(moved)
        if loss.counts:
            found = poisson_intervals(loadings, fitted.components, self.z, shared, apart)
        else:
            found = flat_intervals(loadings, fitted.components, self.z, shared, self.noise, apart)
        out[..., 0] = found[..., 0]
        out[..., 1] = np.sqrt(shared + moved * moved)
        out[..., 2:4] = found[..., 1:]
        turned = self.rotations.loadings(loadings)
        out[..., 4], out[..., 5] = beside(
            turned[..., 0], turned[..., 1], (out[..., 2], out[..., 3]), loadings
        )
        return fitted.as_answered(out * fitted.gain, loadings)

    def _shared(
        self, data: Any, loadings: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Variance that the components bring, and where replicates have moved on average, (p, K) each.

        Either the answer has moved from the truth as replicates have from it (a bias, which repeats: the
        truth lies on the other side), or the answer is an extreme of its kind and they come back (the truth
        lies on theirs). Both are met and nothing tells which it is: intervals reach as far on either side.
        """
        if self.replicates is not None:
            loss = self.fitted.loss
            return spread(
                (loss.loadings(data, c) - loadings for c in self.replicates), paired=self.paired
            )
        nothing = np.zeros(loadings.shape)
        if self.quadratic is None:
            return nothing, nothing
        found = np.einsum("pl,klm,pm->pk", loadings, self.quadratic, loadings, optimize=True)
        return np.maximum(found, 0.0), nothing


def spread(
    apart: Iterable[NDArray[np.float64]], *, paired: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variance of what replicates estimate, and where they have moved on average.

    Parameters
    ----------
    apart : iterable of ndarray
        Each replicate less the answer: sums of squares of large numbers would lose digits.
    paired : bool
        They are pairs of independent halves of the counts, each with twice the variance of the whole: half
        their difference has that of the whole, and has it whatever both halves share.
    """
    n, total, square, halves = 0, None, None, None
    last: Any = None
    for one in apart:
        n += 1
        total = one.copy() if total is None else total + one
        square = one * one if square is None else square + one * one
        if paired and n % 2 == 0:
            half = np.square(0.5 * (one - last))
            halves = half if halves is None else halves + half
        last = one
    assert total is not None
    assert square is not None
    moved = total / n
    if halves is not None:
        return halves / (n // 2), moved
    return np.maximum(square - n * moved * moved, 0.0) / (n - 1), moved


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Everything that is known before pixels are asked one by one.

    Attributes
    ----------
    pixels : PixelUncertainty
    components_std : ndarray, shape (K, E)
    components_low, components_high : ndarray, shape (K, E)
    rotation_low, rotation_high : ndarray, shape (K, E)
    rotation_share : ndarray, shape (K, 2)
        Least and largest total of each component's loadings, over its own, among what is as good.
    facts : dict
        Attributes of the answer: method, level, replicates, and what they found.
    """

    pixels: PixelUncertainty
    components_std: NDArray[np.float64]
    components_low: NDArray[np.float64]
    components_high: NDArray[np.float64]
    rotation_low: NDArray[np.float64]
    rotation_high: NDArray[np.float64]
    rotation_share: NDArray[np.float64]
    facts: dict[str, Any] = field(default_factory=dict)

    def spectra(self) -> xr.Dataset:
        """Answers about the components, labelled."""
        labels = replace(self.pixels.fitted.labels, plain=False)
        unit = {"units": "1 per channel"}
        std = labels.spectra(self.components_std, name="components_std", attrs=unit)
        pairs = {
            "components_interval": (self.components_low, self.components_high),
            "rotation_range": (self.rotation_low, self.rotation_high),
        }
        found = {"components_std": std}
        for name, ends in pairs.items():
            both = [labels.spectra(end, name=name, attrs=unit) for end in ends]
            joined = xr.concat(both, dim="bound", combine_attrs="override")
            found[name] = joined.transpose(*std.dims, "bound")
        found["rotation_share"] = xr.DataArray(
            self.rotation_share,
            dims=("component", "bound"),
            coords={"component": np.arange(len(self.rotation_share))},
            attrs={"units": "1"},
        )
        return xr.Dataset(found)


def evaluate(
    fitted: Fitted,
    cube: Any,
    where: Any,
    *,
    level: float,
    method: str,
    n_replicates: int | None,
    seed: int,
    ranges: bool = True,
) -> Uncertainty:
    """Make the passes that `uncertainty` needs; nothing is asked of single pixels yet.

    Parameters
    ----------
    fitted : Fitted
    cube, where
        As for the fit.
    level, method, n_replicates
        As for `uncertainty`.
    seed : int
    ranges : bool
        Look for other factorisations that are as good; without them ranges are the intervals.
    """
    _check(level, method, n_replicates, fitted)
    source, labels = as_source(cube, pixels_only(cube, where), channels=fitted.labels.channels)
    fitted.labels.require_same_signal(labels, "uncertainty")
    n = REPLICATES[method] if n_replicates is None else int(n_replicates)
    z = NormalDist().inv_cdf(0.5 + 0.5 * level)
    with resident():
        fitted = _as_noisy(fitted, source, seed) if dtype_of(cube).kind == "f" else fitted
        counted = in_counts(source, fitted.gain)
        fitted, found = information_of(fitted, counted)
        with single_threaded_blas():
            noise, covariance, variance = component_errors(fitted, found)
            rotations = Rotations(np.eye(len(fitted.components))[None])
            if ranges:
                turns = cloud_turns(
                    counted,
                    fitted.loss,
                    labels.nav_dims,
                    fitted.pool,
                    fitted.components,
                    np.sqrt(np.maximum(variance, np.finfo(float).tiny)),
                    level=level,
                    seed=seed,
                )
                rotations = Rotations(turns)
        facts: dict[str, Any] = {"method": method, "level": level, "n_replicates": n, "seed": seed}
        values = replicates(fitted, cube, where, counted, labels, method, n, seed, facts)
    with single_threaded_blas():
        return _collected(fitted, covariance, variance, noise, rotations, values, z, level, facts)


def _as_noisy(fitted: Fitted, source: BlockSource, seed: int) -> Fitted:
    """Counts that are worth more than one each, as their noise says; two passes over fractions."""
    if not fitted.loss.counts or fitted.gain != 1.0:
        return fitted
    k = len(fitted.components)
    with single_threaded_blas():
        gain = noise_gain(source, sketch(source, fitted.loss, k, seed, "uncertainty"), k)
    return replace(fitted, gain=gain, totals=fitted.totals / gain)


def _check(level: Any, method: str, n_replicates: Any, fitted: Fitted) -> None:
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0.0 < level < 1.0:
        raise InputError(f"level must be a number between 0 and 1, got {level!r}", hint="try 0.9")
    if method not in METHODS:
        raise InputError(
            f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}",
            hint="'fisher' is the fast one",
        )
    if n_replicates is not None and (
        isinstance(n_replicates, bool)
        or not isinstance(n_replicates, int | np.integer)
        or n_replicates < 2
    ):
        raise InputError(
            f"n_replicates must be None or a whole number from 2 on, got {n_replicates!r}",
            hint="None takes as many as the method needs",
        )
    if n_replicates is not None and method == "fisher":
        raise InputError(
            f"method='fisher' makes no replicates, got n_replicates={n_replicates}",
            hint="leave it out, or take method='bootstrap'",
        )
    if method != "fisher" and fitted.parameters is None:
        raise InputError(
            f"method={method!r} fits the model again, which is done for MiniBatchNMF only",
            hint="take method='fisher'",
        )
    if method == "thinning" and not fitted.loss.counts:
        raise InputError(
            "method='thinning' deals counts to two halves; this model is of least squares",
            hint="take method='bootstrap', which flips the signs of residuals",
        )


def _collected(
    fitted: Fitted,
    covariance: NDArray[np.float64],
    variance: NDArray[np.float64],
    noise: float,
    rotations: Rotations,
    values: NDArray[np.float64] | None,
    z: float,
    level: float,
    facts: dict[str, Any],
) -> Uncertainty:
    components = fitted.components
    paired = facts["method"] == "thinning"
    if values is None:
        std = np.sqrt(variance)
        low, high = _score_interval(fitted, variance, z)
        quadratic = shared_variance(covariance, components, fitted.weights)
    else:
        from scipy.special import stdtrit

        free = len(values) // 2 if paired else len(values) - 1
        found, moved = spread(values - components, paired=paired)
        wide = float(stdtrit(free, 0.5 + 0.5 * level)) * np.sqrt(found)
        wide = wide + np.abs(moved)
        low, high = np.maximum(components - wide, 0.0), components + wide
        std = np.sqrt(found + np.square(moved))
        quadratic = None
    solved = None if values is None else _positive(values)
    rotation_low, rotation_high = rotations.components(components, np.sqrt(variance), (low, high))
    # Each sums to one and is nowhere negative.
    high, rotation_high = np.minimum(high, 1.0), np.minimum(rotation_high, 1.0)
    facts["noise_variance"] = float(noise)
    facts["n_feasible"] = len(rotations.turns)
    return Uncertainty(
        PixelUncertainty(fitted, z, noise, quadratic, solved, rotations, paired),
        std,
        low,
        high,
        rotation_low,
        rotation_high,
        rotations.shares(fitted.totals),
        facts,
    )


def _positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Components that can be solved with: not negative, each summing to one."""
    kept = np.maximum(values, 0.0)
    return np.asarray(kept / kept.sum(axis=-1, keepdims=True))


def _score_interval(
    fitted: Fitted, variance: NDArray[np.float64], z: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interval of the components' values, in which the variance grows with the value for counts."""
    slope = np.zeros(variance.shape)
    if fitted.loss.counts:
        slope += 1.0 / np.maximum(fitted.totals, 1.0)[:, None]
    middle = 0.5 * z * z * slope
    half = np.sqrt(middle * middle + z * z * variance)
    return np.maximum(fitted.components + middle - half, 0.0), fitted.components + middle + half


# ---------------------------------------------------------------------------------------- in words


def uncertainty(
    model: Any,
    cube: Any,
    *,
    level: float = 0.9,
    method: str = "bootstrap",
    n_replicates: int | None = None,
    where: Any = None,
    random_state: Any = 0,
) -> Any:
    """Say how sure the loadings and components of a model are.

    Three parts are kept apart, because averaging treats them differently: counting noise of each pixel, which
    averages out; the error of the components, which all pixels share; and rotation, the freedom that no
    number of counts takes away, which is no standard deviation and is never hidden in one.

    Parameters
    ----------
    model : fitted estimator
        With components that are not negative (`MiniBatchNMF`).
    cube : DataArray, or matrix of shape (P, E)
        What it was fitted on. Or several cubes, of a model of several.
    level : float
        Of the intervals.
    method : {"bootstrap", "fisher", "thinning", "area", "restarts", "posterior"}
        How components are made uncertain. "bootstrap": every count is drawn anew from a Poisson law (least
        squares: residuals get new signs) and components are found again, corners first. "fisher":
        information of the counts as if loadings were known: fast, and too sure where components
        are found from few pixels. "thinning": the counts are dealt to two halves, which are fitted
        separately. "area": about 64 areas of the field are drawn with replacement, which asks another
        question: what another field of view of the same specimen would give. "restarts": fits from random
        starts, which ask whether the answer is the only one; those that end as well as the best are compared.
        "posterior": the draws of a `BayesianUnmixing`, which other methods but "fisher" do not take.
    n_replicates : int, optional
        20 (thinning: as 10 pairs), for restarts 5; fisher makes none.
    where : DataArray of bool, optional
        Pixels that are used (True), as for the fit; of several cubes a list with one each.
    random_state : int, Generator or None
        Seed of replicates, and of the sample on which rotations are tried.

    Returns
    -------
    Dataset
        ``loadings_std_counting`` (navigation dims, component): of counting, components known (Fisher
        information of the pixel). Independent from pixel to pixel.
        ``loadings_std_shared``: what the error of the components adds; one and the same error in all pixels.
        ``components_std`` (component, signal dims): by the method.
        ``loadings_interval`` (..., bound), ``components_interval`` (..., bound): at the level, from "low" to
        "high"; zero is the lowest low end, so that an interval there is one-sided.
        ``rotation_range`` (component, signal dims, bound), ``loadings_rotation_range``: the least and the
        largest value among factorisations that describe the data as well (see `emcube.kernels.facets`),
        with the interval on either side: what holds the truth where the data do not fix the answer. For
        components the intervals of all of them, each as often as the largest share of it in what is found.
        ``rotation_share`` (component, bound): totals of these factorisations over those of the model, without
        noise; 1 to 1 where all is fixed.
        Attributes tell method, level, replicates and seed. Lazy per pixel where the cube is.
        Of several cubes a list with one Dataset a cube: what is said of components is the same in each.

    Raises
    ------
    InputError
        The model has negative components or was fitted on another signal; a parameter is out of range; the
        method does not fit the model.

    Notes
    -----
    One pass for the information, one for the points that say what else is as good (and those of the
    subspace, where it is not known); replicates take one for their subspaces, one for their corners and up
    to 10 further ones, all of them together. Counts that are no whole numbers take two more, which tell what
    one count is worth (the gain of a camera; one at least). An interval reaches farther out on both sides by
    as much as replicates move away from the answer on average. Memory: K (K + 1) / 2 sums a channel, and
    16 K E bytes a replicate. The same bits on any number of threads and workers.

    References
    ----------
    R. A. Fisher, Math. Proc. Camb. Philos. Soc. 22 (1925) 700. https://doi.org/10.1017/S0305004100009580
    B. Efron, Ann. Stat. 7 (1979) 1. https://doi.org/10.1214/aos/1176344552
    R. Tauler, J. Chemom. 15 (2001) 627. https://doi.org/10.1002/cem.667

    Examples
    --------
    >>> import emcube as em
    >>> scene = em.scenes.srm2135c(scale=0.002, random_state=0)
    >>> nmf = em.MiniBatchNMF(3, random_state=0).fit(scene.cube)
    >>> sure = em.uncertainty(nmf, scene.cube)
    >>> sure.components_interval.dims
    ('component', 'energy', 'bound')
    """
    seed = resolve_seed(random_state)
    fields = several(cube)
    cube = cube if fields is None else fields
    if method == "posterior":
        from emcube.models.bayes_uncertainty import posterior_uncertainty

        _refuse_replicates(n_replicates)
        return posterior_uncertainty(model, cube, level=level, where=where, seed=seed)
    fitted = fitted_of(model, cube)
    refuse_variants(model)
    found = evaluate(
        fitted, cube, where, level=level, method=method, n_replicates=n_replicates, seed=seed
    )
    return answered(found, _Packed(found.pixels), cube, where)


def rotation_range(
    model: Any,
    cube: Any,
    *,
    level: float = 0.9,
    where: Any = None,
    random_state: Any = 0,
) -> Any:
    """Say how much of a factorisation nothing in the data fixes, however it was found.

    Looked for are the mixtures T of the components that describe the data within the likelihood ratio of the
    level, with loadings solved anew and neither spectra nor loadings negative: for each pair of components
    those with the least and the largest share of the one in the other. No number of counts makes this range
    small; pure pixels, and channels that a component leaves empty, do.

    Parameters
    ----------
    model : fitted estimator
        With components that are not negative (`MiniBatchNMF`, `MCRALS`, `VCA`, ...).
    cube : DataArray, or matrix of shape (P, E)
        What it was fitted on. Or several cubes, of a model of several.
    level : float
        Of the likelihood ratio, and of the counting noise beside it.
    where : DataArray of bool, optional
        Pixels that are used (True), as for the fit; of several cubes a list with one each.
    random_state : int, Generator or None
        Seed of the sample of pixels whose likelihood is asked.

    Returns
    -------
    Dataset
        ``rotation_range``, ``rotation_share`` and ``loadings_rotation_range``, as of `uncertainty` by
        ``method="fisher"``; of several cubes a list, one a cube.

    Raises
    ------
    InputError
        The model has negative components or was fitted on another signal; the level is no level.

    Notes
    -----
    Two passes, and one where pixels are asked for. The same bits on any number of threads and workers.

    References
    ----------
    R. Tauler, J. Chemom. 15 (2001) 627. https://doi.org/10.1002/cem.667
    J. Jaumot, R. Tauler, Chemom. Intell. Lab. Syst. 103 (2010) 96.
    https://doi.org/10.1016/j.chemolab.2010.05.020

    Examples
    --------
    >>> import emcube as em
    >>> scene = em.scenes.srm2135c(scale=0.002, random_state=0)
    >>> vca = em.VCA(3, random_state=0).fit(scene.cube)
    >>> em.rotation_range(vca, scene.cube).rotation_share.dims
    ('component', 'bound')
    """
    found = uncertainty(
        model, cube, level=level, method="fisher", where=where, random_state=random_state
    )
    names = ["rotation_range", "rotation_share", "loadings_rotation_range"]
    return [one[names] for one in found] if isinstance(found, list) else found[names]


@dataclass(frozen=True, eq=False)
class _Packed:
    pixels: PixelUncertainty

    def __call__(self, block: Block) -> NDArray[np.float64]:
        return self.pixels.packed(block)


WORDS = {
    "loadings_std_counting": "standard deviation of counting, components known",
    "loadings_std_shared": "standard deviation from the components, shared by all pixels",
    "loadings_interval": "interval of the loadings",
    "loadings_rotation_range": "loadings of all factorisations that are as good",
    "components_std": "standard deviation of the components",
    "components_interval": "interval of the components",
    "rotation_range": "components of all factorisations that are as good",
    "rotation_share": "total loading of all factorisations that are as good, over that of the model",
}
"""What each variable is, in a few words."""


def _refuse_replicates(n_replicates: Any) -> None:
    if n_replicates is not None:
        raise InputError(
            f"method='posterior' makes no replicates, got n_replicates={n_replicates}",
            hint="leave it out; the draws are those of the fit",
        )


def answered(found: Uncertainty, function: Any, cube: Any, where: Any) -> Any:
    """The answer as a Dataset, with what `function` says of each pixel; of several cubes one a cube."""
    if isinstance(cube, Fields):
        pairs = zip(cube.cubes, selections(where, cube), strict=True)
        return [answered(found, function, one, chosen) for one, chosen in pairs]
    labels = found.pixels.fitted.labels
    k = len(found.components_std)
    packed = map_pixels(cube, function, (k, 6), labels=labels, where=pixels_only(cube, where))
    return labelled(found, cube, packed)


def labelled(found: Uncertainty, cube: Any, packed: Any) -> xr.Dataset:
    fitted = found.pixels.fitted
    _, labels = as_source(cube)
    labels = replace(labels, plain=False)
    attrs = {"units": "1"} if fitted.sum_to_one else {}
    dataset = found.spectra()
    parts = {
        "loadings_std_counting": (packed[..., 0], ("component",)),
        "loadings_std_shared": (packed[..., 1], ("component",)),
        "loadings_interval": (packed[..., 2:4], ("component", "bound")),
        "loadings_rotation_range": (packed[..., 4:6], ("component", "bound")),
    }
    for name, (values, dims) in parts.items():
        maps = labels.maps(values, dims=dims, name=name, attrs=attrs)
        dataset[name] = maps.drop_vars("bound", errors="ignore")
    dataset = dataset.assign_coords(bound=["low", "high"])
    for name, words in WORDS.items():
        dataset[name].attrs["long_name"] = words
    return dataset[list(WORDS)].assign_attrs(found.facts)
