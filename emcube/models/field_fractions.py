"""Is one image representative? Fractions of phases by field of view, and where their spread comes from.

Letters: P pixels, K phases, F fields, T tiles of a field, R measurements drawn anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.engine import run_sweep
from emcube.errors import InputError
from emcube.kernels.fractions import (
    coarser,
    fraction_of,
    levels,
    ratio_variance,
    redraw_variance,
    resampled,
    tile_grid,
    tile_number,
)
from emcube.models.base import Estimator, NotFittedError, resolve_seed
from emcube.models.fields import Fields, selections, several
from emcube.models.labels import Labels, as_source
from emcube.models.nmf_start import tile_of
from emcube.models.rebuild import pixels_only
from emcube.models.replicates import EventDraw
from emcube.models.sweeps import OnePass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource, RngKey

__all__ = ["phase_fractions", "summarised", "tables_of"]

N_RESAMPLES = 999
"""Fields made of a field's own tiles, for intervals."""

Amounts = Callable[["Block"], "NDArray[np.float64]"]
"""``function(block) -> ndarray (p, K)``: how much of each phase a pixel holds; zeros where none is told."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Amounts by tile of each field.

    Attributes
    ----------
    tables : list of ndarray, shape (1 + R, T, K)
        As measured, then of measurements drawn anew.
    grids : list of tuple of int
        Tiles along the dims of each field.
    n_pixels : ndarray of int, shape (F,)
        Pixels that are used.
    names : tuple of str
    what : {"labels", "probabilities", "loadings"}
        What fractions are of.
    phases : ndarray, shape (K,)
        Numbers of the phases.
    """

    tables: list[NDArray[np.float64]]
    grids: list[tuple[int, ...]]
    n_pixels: NDArray[np.int64]
    names: tuple[str, ...]
    what: str
    phases: NDArray[np.int64]


# --------------------------------------------------------------------------------- amounts of pixels


@dataclass(frozen=True, eq=False)
class _ModelAmounts:
    """What a model says of a block's pixels."""

    function: Callable[[Block], dict[str, NDArray[Any]]]
    what: str
    n_phases: int

    def __call__(self, block: Block) -> NDArray[np.float64]:
        found = self.function(block)
        if self.what == "labels":
            return _one_hot(found["labels"], self.n_phases)
        values = np.asarray(found[self.what], dtype=np.float64)
        if self.what == "probabilities":
            # Shares of a pixel without counts are those of the clusters: they say nothing of it.
            values = np.where((found["labels"] >= 0)[:, None], values, 0.0)
        return values


@dataclass(frozen=True, eq=False)
class _LabelAmounts:
    """Labels that are the values of the blocks, one a pixel."""

    n_phases: int

    def __call__(self, block: Block) -> NDArray[np.float64]:
        return _one_hot(block.dense(np.int64)[:, 0], self.n_phases)


def _loading_amounts(block: Block) -> NDArray[np.float64]:
    """Loadings that are the values of the blocks; NaN where a pixel was not used."""
    values = np.asarray(block.dense(), dtype=np.float64)
    return np.where(np.isfinite(values), values, 0.0)


def _one_hot(labels: NDArray[Any], n: int) -> NDArray[np.float64]:
    return np.asarray(labels[:, None] == np.arange(n), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class TileSweep(OnePass):
    """Amounts by tile of one field, as measured and drawn anew, in one round."""

    amounts: Amounts
    draws: tuple[EventDraw, ...]
    dims: tuple[int, ...]
    lengths: tuple[int, ...]
    grid: tuple[int, ...]
    name: str = "phase fractions"

    def map(self, block: Block, state: Any, rng_key: RngKey) -> tuple[NDArray[np.float64], int]:
        """Amounts (1 + R, T, K) of one block, and its pixels."""
        inside = np.unravel_index(block.box_index(), block.nav_shape) if block.nav_shape else ()
        places = np.zeros((block.n_pixels, len(self.dims)), dtype=np.int64)
        for i, d in enumerate(self.dims):
            places[:, i] = inside[d] + block.offset[d]
        number = tile_number(places, self.lengths, self.grid)
        parts = [self.amounts(block), *(self.amounts(draw(block)) for draw in self.draws)]
        n = math.prod(self.grid)
        out = np.zeros((len(parts), n, parts[0].shape[1]))
        for table, values in zip(out, parts, strict=True):
            for k, column in enumerate(values.T):
                table[:, k] = np.bincount(number, column, minlength=n)
        return out, block.n_pixels


def _table(
    source: BlockSource, labels: Labels, amounts: Amounts, draws: Sequence[EventDraw]
) -> tuple[NDArray[np.float64], tuple[int, ...], int]:
    """Table of one field, its grid of tiles, and its pixels."""
    # Over space, not over time or angle; a field without either is one tile.
    dims = tuple(d for d, n in enumerate(tile_of(labels.nav_dims, 2)) if n > 1)
    lengths = tuple(labels.nav_shape[d] for d in dims)
    grid = tile_grid(lengths)
    sweep = TileSweep(amounts, tuple(draws), dims, lengths, grid)
    table, n_pixels = run_sweep(sweep, source).state
    return table, grid, n_pixels


# ------------------------------------------------------------------------------------------ the tables


def tables_of(
    of: Any, cubes: Any = None, *, where: Any = None, n_draws: int = 4, seed: int = 0
) -> Tables:
    """Sum amounts by tile; parameters as for `phase_fractions`."""
    if isinstance(of, Estimator):
        if cubes is None:
            raise InputError(
                f"phase_fractions: a {type(of).__name__} says something of cubes, and none was given",
                hint="write em.phase_fractions(model, [cube, cube, ...])",
            )
        return _by_model(of, _as_fields(cubes, "cubes"), where, n_draws, seed)
    if cubes is not None:
        raise InputError(
            f"phase_fractions: cubes belong to a fitted model, got them beside a {type(of).__name__}",
            hint="give labels or loadings alone: em.phase_fractions([labels, labels, ...])",
        )
    return _in_hand(_as_fields(of, "labels or loadings"), where)


def _as_fields(X: Any, what: str) -> Fields:
    found = several([X] if isinstance(X, xr.DataArray) else X)
    if found is None:
        raise InputError(
            f"phase_fractions: {what} must be labelled (a DataArray, or a list of them), got "
            f"{type(X).__name__}",
            hint="label them with emcube.make_cube: fractions of a field need to know where its pixels are",
        )
    return found


def _by_model(model: Any, fields: Fields, where: Any, n_draws: int, seed: int) -> Tables:
    if not hasattr(model, "axes_"):
        raise NotFittedError(
            f"this {type(model).__name__} has not been fitted",
            hint="call fit([cube, cube, ...]) first",
        )
    what = _told_by(model)
    n_phases = int(model._n_features_out)
    amounts = _ModelAmounts(model.pixel_function(), what, n_phases)
    tables, grids, n_pixels = [], [], []
    for i, (cube, one) in enumerate(zip(fields.cubes, selections(where, fields), strict=True)):
        model._check_signal(cube)
        source, labels = as_source(cube, pixels_only(cube, one), channels=model.axes_.channels)
        counts = cube.dtype.kind in "iub"
        draws = [EventDraw(seed, i * n_draws + r) for r in range(n_draws)] if counts else []
        table, grid, n = _table(source, labels, amounts, draws)
        tables.append(table)
        grids.append(grid)
        n_pixels.append(n)
    return Tables(tables, grids, np.array(n_pixels), fields.names, what, np.arange(n_phases))


def _told_by(model: Any) -> str:
    """What a model says of pixels that adds up over an area.

    Raises
    ------
    InputError
        It says nothing of that kind.
    """
    if hasattr(model, "predict_proba"):
        return "probabilities"
    if hasattr(model, "predict"):
        return "labels"
    spectra = np.asarray(getattr(model, "components_", np.nan), dtype=np.float64)
    signed = not np.nanmin(spectra) >= 0 or getattr(model, "loadings_by_", "") == "ls"
    if signed or hasattr(model, "explained_variance_") or hasattr(model, "variance_share_"):
        raise InputError(
            f"phase_fractions: loadings of {type(model).__name__} have any sign, and are no amounts of "
            "phases",
            hint="take a model whose loadings are not negative (MiniBatchNMF, MCRALS, VCA, NFINDR), or "
            "clusters (KMeans, GaussianMixture, PoissonMixture)",
        )
    return "loadings"


def _in_hand(fields: Fields, where: Any) -> Tables:
    """Tables of labels or loadings; nothing tells the counts behind them."""
    loadings = ["component" in map(str, one.dims) for one in fields.cubes]
    if len(set(loadings)) > 1:
        raise InputError(
            "phase_fractions: got labels for some fields and loadings for others, expected one of them",
            hint="give what one model says of all fields",
        )
    tables, grids, n_pixels = [], [], []
    if loadings[0]:
        prepared = [_as_loadings(one) for one in fields.cubes]
        n_phases = int(prepared[0].sizes["component"])
        amounts: Amounts = _loading_amounts
    else:
        prepared = [_as_cube(one) for one in fields.cubes]
        n_phases = 1 + max(int(one.max()) for one in fields.cubes)
        amounts = _LabelAmounts(n_phases)
    for one, chosen in zip(prepared, selections(where, fields), strict=True):
        if loadings[0] and one.sizes["component"] != n_phases:
            raise InputError(
                f"phase_fractions: loadings of {one.sizes['component']} and of {n_phases} components, "
                "expected those of one model",
                hint="fit one model to all fields: model.fit([cube, cube, ...])",
            )
        source, labels = as_source(one, chosen)
        table, grid, n = _table(source, labels, amounts, ())
        tables.append(table)
        grids.append(grid)
        n_pixels.append(n)
    what = "loadings" if loadings[0] else "labels"
    return Tables(tables, grids, np.array(n_pixels), fields.names, what, np.arange(n_phases))


def _as_loadings(loadings: xr.DataArray) -> xr.DataArray:
    """Loadings as a cube, whatever their attributes say."""
    units = loadings.attrs.get("units", "1")
    return loadings.transpose(..., "component").assign_attrs(sig_dims=["component"], units=units)


def _as_cube(labels: xr.DataArray) -> xr.DataArray:
    """Labels (nav...) with a signal dim of one channel."""
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"phase_fractions: labels are whole numbers from 0 on (-1 for none), got {labels.dtype}",
            hint="give loadings with the dim 'component', or model.predict(cube)",
        )
    return labels.expand_dims("channel", axis=-1).assign_attrs(sig_dims=["channel"], units="1")


# --------------------------------------------------------------------------------------- their spread


def phase_fractions(
    of: Any,
    cubes: Any = None,
    *,
    where: Any = None,
    level: float = 0.95,
    relative_error: float = 0.1,
    n_draws: int = 4,
    random_state: Any = 0,
) -> xr.Dataset:
    """Measure the fraction of each phase in several fields of view, and whether one of them stands for all.

    Of clusters it is the fraction of the area, of other models the share of all loadings, which is a share of
    the signal (for abundances, with ``sum_to_one``, the mean abundance). The fractions of F fields scatter
    with the variance s^2, which is parted:

        s^2 = counting + finite area + fields that differ.

    Parameters
    ----------
    of : fitted model, or DataArray of labels or loadings, or list of them
        What `model.predict` or `model.transform` give.
    cubes : DataArray, list of DataArray, or a catalog's search
        With a model: the fields.
    where : DataArray of bool, or list with one a field
        Pixels that are used.
    level : float
        Of all intervals.
    relative_error : float
        Half width of the interval of the mean fraction, over that fraction, for which fields are asked.
    n_draws : int
        Times that counts are drawn anew (the event bootstrap) to tell what counting noise does.
    random_state : int, Generator or None
        Seed of drawn counts and of resampled tiles.

    Returns
    -------
    Dataset
        Over ``field`` and ``phase``: ``fraction``, ``fraction_std_counting`` (another measurement of the same
        place; NaN where values are no counts, or labels are given alone), ``fraction_std_area`` (another
        place of the same field, of this size; counting comes with it), ``fraction_interval`` (with ``bound``;
        bootstrap of tiles). Over ``phase``: ``mean_fraction`` (pooled over the area), ``spread`` (standard
        deviation from field to field), ``standard_error`` of the mean and ``mean_interval`` (Student's t),
        ``share_counting``, ``share_area`` and ``share_fields`` (parts of s^2; they sum to one),
        ``p_value`` (that fields as alike as their own tiles would scatter as much), ``fields_needed`` with
        ``fields_needed_interval``, and ``fields_needed_area`` (if fields differ by no more than finite areas
        of one specimen do: the least number, and all that one field can tell). Over ``field``: ``n_pixels``,
        ``n_tiles``. The attribute ``said`` says it in words.

    Raises
    ------
    InputError
        Nothing says where pixels are; loadings have any sign; a parameter is out of range.

    Notes
    -----
    One pass over the cubes, in which each pixel is asked 1 + `n_draws` times. A field is cut into tiles, up
    to sixteen by sixteen; they are joined two by two as long as this raises the variance that they give,
    since tiles smaller than the microstructure are not independent, and what the rims of tiles still share
    is extrapolated from the last two sizes. At least 16 tiles are left (4, where there are fields enough): a
    structure larger than that makes the finite area look smaller than it is. Same bits for any number of
    workers.

    For loadings the counting part is right to some ten per cent. Labels are no linear function of the
    counts: theirs is too large where phases are told apart well, and small then (see the page on fields).

    References
    ----------
    ASTM E562-19 (systematic point count: fields for a relative accuracy). https://doi.org/10.1520/E0562-19
    H. Flyvbjerg, H. G. Petersen, J. Chem. Phys. 91 (1989) 461 (joining of blocks).
    https://doi.org/10.1063/1.457480
    R. DerSimonian, N. Laird, Control. Clin. Trials 7 (1986) 177 (variance between).
    https://doi.org/10.1016/0197-2456(86)90046-2

    Examples
    --------
    >>> import numpy as np, xarray as xr, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> labels = [xr.DataArray(rng.integers(0, 2, (32, 32)), dims=("y", "x")) for _ in range(5)]
    >>> em.phase_fractions(labels)["mean_fraction"].values.round(1)
    array([0.5, 0.5])
    """
    level, relative_error = _fraction("level", level), _fraction("relative_error", relative_error)
    given: Any = n_draws
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 2:
        raise InputError(f"n_draws must be a whole number from 2 on, got {n_draws!r}")
    seed = resolve_seed(random_state)
    tables = tables_of(of, cubes, where=where, n_draws=int(n_draws), seed=seed)
    return summarised(tables, level=level, relative_error=relative_error, seed=seed)


def _fraction(name: str, value: Any) -> float:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not 0.0 < value < 1.0:
        raise InputError(f"{name} must be a number between 0 and 1, got {value!r}")
    return float(value)


def summarised(found: Tables, *, level: float, relative_error: float, seed: int) -> xr.Dataset:
    """What the tables of fields say; parameters as for `phase_fractions`."""
    plain = [table[0] for table in found.tables]
    fraction = np.array([fraction_of(table) for table in plain])
    if not np.isfinite(fraction).all():
        empty = int(np.flatnonzero(~np.isfinite(fraction).all(axis=1))[0])
        raise InputError(
            f"phase_fractions: field {empty} ({found.names[empty]!r}) holds nothing that belongs to a phase",
            hint="leave it out, or look at its selection (where=)",
        )
    counting = np.array(
        [
            redraw_variance(t[1:]) if len(t) > 2 else np.full(t.shape[-1], np.nan)
            for t in found.tables
        ]
    )
    tiles = _area_variance(plain, found.grids)
    area = tiles.variance
    wholes = np.array([table.sum() for table in plain])
    weights = wholes / wholes.sum()
    dataset = xr.Dataset(
        {
            "fraction": (("field", "phase"), fraction),
            "fraction_std_counting": (("field", "phase"), np.sqrt(counting)),
            "fraction_std_area": (("field", "phase"), np.sqrt(area)),
            "fraction_interval": (
                ("field", "phase", "bound"),
                _intervals(plain, found.grids, tiles, level, seed),
            ),
            **_between(fraction, weights, counting, area, tiles.freedom, level, relative_error),
            "n_pixels": ("field", found.n_pixels),
            "n_tiles": (
                ("field", "phase"),
                np.array(
                    [
                        [len(coarser(t, g, j)) for j in tiles.joined]
                        for t, g in zip(plain, found.grids, strict=True)
                    ]
                ),
            ),
        },
        coords={"field": np.arange(len(plain)), "phase": found.phases},
    )
    for name in dataset.data_vars:
        dataset[name].attrs["units"] = "1"
    dataset.attrs = {
        "of": found.what,
        "level": level,
        "relative_error": relative_error,
        "fields": list(found.names),
        "seed": seed,
    }
    dataset.attrs["said"] = _said(dataset)
    return dataset


@dataclass(frozen=True, eq=False)
class _Area:
    """What tiles tell of other places of a field.

    Attributes
    ----------
    joined : list of int
        How often tiles are joined, for each phase.
    variance : ndarray, shape (F, K)
    freedom : ndarray, shape (K,)
        Degrees of freedom of the variances of all fields together.
    width : ndarray, shape (K,)
        What deviations of tiles that are joined `drawn` times are multiplied with, for intervals.
    drawn : list of int
    """

    joined: list[int]
    variance: NDArray[np.float64]
    freedom: NDArray[np.float64]
    width: NDArray[np.float64]
    drawn: list[int]


def _area_variance(
    tables: Sequence[NDArray[np.float64]], grids: Sequence[tuple[int, ...]]
) -> _Area:
    """Variances of other places, from tiles that are joined as long as it raises the variance.

    Tiles of side b that touch are not independent along their rims: the variance is too small by a share
    of about 1 / b, which the last two sizes tell (Richardson's extrapolation).
    """
    deepest = min(levels(grid, len(grids))[-1] for grid in grids)
    tried = [
        [ratio_variance(coarser(t, g, level)) for t, g in zip(tables, grids, strict=True)]
        for level in range(deepest + 1)
    ]
    variances = np.array([[v for v, _ in level] for level in tried])  # (levels, F, K)
    freedom = np.array([sum(n for _, n in level) for level in tried])
    mean = variances.mean(axis=1)
    chosen = [_enough(mean[:, k], freedom) for k in range(mean.shape[1])]
    safe = min(levels(grid)[-1] for grid in grids)
    drawn = [min(level, safe) for level in chosen]
    grown, width = np.ones(len(chosen)), np.ones(len(chosen))
    for k, level in enumerate(chosen):
        last, before = mean[level, k], mean[max(0, level - 1), k]
        if last > 0:
            grown[k] = 1.0 + max(0.0, last - before) / last
        if mean[drawn[k], k] > 0:
            width[k] = math.sqrt(last * grown[k] / mean[drawn[k], k])
    picked = np.array([variances[level, :, k] for k, level in enumerate(chosen)]).T
    return _Area(chosen, picked * grown, freedom[chosen], width, drawn)


def _enough(mean: NDArray[np.float64], freedom: NDArray[np.int64]) -> int:
    """Times that tiles are joined: as long as the variance grows by more than its own error."""
    level = 0
    while level + 1 < len(mean):
        error = math.sqrt(2.0 / max(1, freedom[level + 1]))
        if not mean[level + 1] > mean[level] * (1.0 + error):
            break
        level += 1
    return level


def _intervals(
    tables: Sequence[NDArray[np.float64]],
    grids: Sequence[tuple[int, ...]],
    found: _Area,
    level: float,
    seed: int,
) -> NDArray[np.float64]:
    """Percentiles (F, K, 2) of fractions of fields made of a field's own tiles."""
    ends = (0.5 - 0.5 * level, 0.5 + 0.5 * level)
    out = np.zeros((len(tables), len(found.joined), 2))
    for f, (table, grid) in enumerate(zip(tables, grids, strict=True)):
        own = fraction_of(table)
        drawn = {
            j: resampled(coarser(table, grid, j), N_RESAMPLES, np.random.default_rng((seed, f, j)))
            for j in sorted(set(found.drawn))
        }
        for k, j in enumerate(found.drawn):
            ends_k = np.quantile(drawn[j][:, k], ends)
            out[f, k] = np.clip(own[k] + found.width[k] * (ends_k - own[k]), 0.0, 1.0)
    return out


def _between(
    fraction: NDArray[np.float64],
    weights: NDArray[np.float64],
    counting: NDArray[np.float64],
    area: NDArray[np.float64],
    freedom: NDArray[np.float64],
    level: float,
    relative_error: float,
) -> dict[str, Any]:
    """What fields say together, over phases (K,)."""
    from scipy import stats

    n = len(fraction)
    mean = weights @ fraction
    within, noise = weights @ area, weights @ counting
    nothing = np.full(len(mean), np.nan)
    square = spread = error = nothing
    p_value, needed, half = nothing, nothing, nothing
    needed_ends = np.full((len(mean), 2), np.nan)
    tail = 0.5 - 0.5 * level
    z = float(stats.norm.isf(tail))
    goal = relative_error * np.where(mean > 0, mean, np.nan)
    if n > 1:
        away = np.square(fraction - mean)
        square = n / (n - 1) * (weights @ away)
        spread = np.sqrt(square)
        error = np.sqrt(n / (n - 1) * (np.square(weights) @ away))
        t = float(stats.t.isf(tail, n - 1))
        half = t * error
        needed = _whole(np.square(t * spread / goal))
        # The spread of few fields is itself hardly known: chi-square.
        ends = (n - 1) * square[:, None] / stats.chi2.isf([tail, 1.0 - tail], n - 1)
        needed_ends = _whole(z * z * ends / np.square(goal)[:, None])
        some = (within > 0) & (freedom > 0)
        ratio = np.divide(square, within, out=np.full_like(square, np.inf), where=some)
        p_value = np.where(some, stats.f.sf(ratio, n - 1, np.maximum(freedom, 1)), np.nan)
    counted, placed, differ = _shares(square, noise, within)
    return {
        "mean_fraction": ("phase", mean),
        "spread": ("phase", spread),
        "standard_error": ("phase", error),
        "mean_interval": (
            ("phase", "bound"),
            np.clip(np.column_stack((mean - half, mean + half)), 0.0, 1.0),
        ),
        "share_counting": ("phase", counted),
        "share_area": ("phase", placed),
        "share_fields": ("phase", differ),
        "p_value": ("phase", p_value),
        "fields_needed": ("phase", needed),
        "fields_needed_interval": (("phase", "bound"), needed_ends),
        "fields_needed_area": ("phase", _whole(z * z * within / np.square(goal))),
    }


def _whole(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fields from a real number of them: one at least."""
    return np.maximum(1.0, np.ceil(values - 1e-9))


def _shares(
    square: NDArray[np.float64], noise: NDArray[np.float64], within: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Parts of the spread (as a variance) from counting, finite area and fields that differ.

    Where counting is not known it counts with the area: tiles tell both together.
    """
    whole = np.where(square > 0, square, np.nan)
    counted = np.minimum(1.0, noise / whole)
    known = np.where(np.isfinite(counted), counted, 0.0)
    placed = np.clip(within / whole - known, 0.0, 1.0 - known)
    return counted, placed, 1.0 - known - placed


def _said(found: xr.Dataset) -> str:
    """The answer in plain words."""
    n, goal, level = found.sizes["field"], found.attrs["relative_error"], found.attrs["level"]
    about = f"within {100 * goal:g} % of its mean at a level of {100 * level:g} %"
    phases = [int(k) for k in found["phase"].values]
    if n == 1:
        least = _listed(phases, found["fields_needed_area"].values)
        return (
            f"One field cannot tell how fields differ. By its own tiles alone, a fraction {about} takes at "
            f"least this many fields of its size: {least}."
        )
    needed = found["fields_needed"].values
    one = [k for k, m in zip(phases, needed, strict=True) if m <= 1]
    more = [(k, m) for k, m in zip(phases, needed, strict=True) if m > 1]
    absent = [k for k, m in zip(phases, needed, strict=True) if not np.isfinite(m)]
    words = []
    if one:
        words.append(f"One field is representative of phase {_and(one)} ({about})")
    if more:
        told = _listed([k for k, _ in more], np.array([m for _, m in more]))
        verb = "not of the others" if one else f"One field is not representative ({about})"
        words.append(f"{verb}; fields needed: {told}")
    if absent:
        words.append(f"phase {_and(absent)} occurs in no field")
    text = ", ".join(words) if one and more else "; ".join(words)
    differ = [
        k
        for k, p in zip(phases, found["p_value"].values, strict=True)
        if np.isfinite(p) and p < 1.0 - level
    ]
    beyond = (
        f" Fields differ by more than counting and finite area explain in phase {_and(differ)}."
        if differ
        else " Fields differ by no more than counting and finite area explain."
    )
    p_values = found["p_value"].values
    known = p_values[np.isfinite(p_values)]
    if known.size and known.min() > level:
        beyond = (
            " Fields are more alike than places that were chosen apart would be: if they are one place, "
            "measured again, their number says nothing of the specimen."
        )
    return text + "." + beyond


def _and(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _listed(phases: Sequence[int], numbers: NDArray[np.float64]) -> str:
    return ", ".join(
        f"{int(m)} (phase {k})" for k, m in zip(phases, numbers, strict=True) if np.isfinite(m)
    )
