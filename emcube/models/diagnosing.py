"""Do count statistics survive? What a model leaves, and what denoising does to variances.

Letters: P pixels, E used channels, G groups of channels, K components, L lags, B levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.engine import resident, run_sweep
from emcube.engine.threads import default_threads, single_threaded_blas
from emcube.errors import InputError
from emcube.kernels.gram import add_symmetric
from emcube.kernels.levels import level_edges, level_guide, level_sums
from emcube.kernels.misfit import deviance_pixels, lagged, residual_slab, slabs
from emcube.kernels.residuals import channel_groups
from emcube.models.base import resolve_seed
from emcube.models.fields import FIELD, Fields, selections, several
from emcube.models.information import Fitted, InformationSweep, TotalsSweep, fitted_of
from emcube.models.labels import Labels, as_source, map_pixels
from emcube.models.nmf_gain import in_counts
from emcube.models.noise import PoissonNoise
from emcube.models.pca import MAX_GRAM
from emcube.models.pca_sweeps import GramSweep, Moments
from emcube.models.rebuild import pixels_only
from emcube.models.replicates import ThinDraw
from emcube.models.subspace import leading_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource, RngKey
    from emcube.kernels.rows import CountRows

__all__ = ["Diagnosis", "PixelMisfit", "diagnose", "diagnostics"]

LEAST_COUNTS = 1.0
"""Neighbouring channels are summed until the mean pixel holds as many counts: with hardly any, single
counts rule a sum of squares."""

LEVELS = 24
"""Levels of the mean, two and a half to a decade, from `LOWEST` on."""

LOWEST = 1e-3
PER_DECADE = 5.0
HALVES = (0.5, 0.5)

MUCH = 4.0
"""Standard errors from which a correlation is told as one."""

MOST_LINES = 4
"""Biases of lines that have a sentence of their own."""

LINE_WORTH = 0.02
"""Bias of a line below which it is not worth a word."""

WORTH = 0.02
"""Correlations below this are not worth a word, however sure they are."""


# ------------------------------------------------------------------------------------- what is left


@dataclass(frozen=True, eq=False)
class PixelMisfit:
    """Chi-square and deviance of a block's pixels, of noise alone one; pickles.

    Parameters
    ----------
    fitted : Fitted
    starts : ndarray of int, shape (G,)
        First channels of groups.
    weights : ndarray, shape (G,)
        Of squares.
    noise : float
        Least squares: variance of a value.
    """

    fitted: Fitted
    starts: NDArray[np.int64]
    weights: NDArray[np.float64]
    noise: float = 1.0

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        """Names of variables to values (p,)."""
        packed = self.packed(block)
        found = {"chi_square": packed[:, 0]}
        if self.fitted.loss.counts:
            found["deviance"] = packed[:, 1]
        return found

    def packed(self, block: Block) -> NDArray[np.float64]:
        """Both side by side, shape (p, 2)."""
        fitted = self.fitted
        fitted.loss.check(block)
        data = block.data if fitted.gain == 1.0 else block.dense() / fitted.gain
        loadings = fitted.loss.loadings(data, fitted.components)
        out = np.empty((block.n_pixels, 2))
        for part, values in slabs(data):
            x = np.add.reduceat(values, self.starts, axis=1)
            out[part] = self.of_groups(x, self.model(loadings[part]))
        return out

    def model(self, loadings: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is expected of groups of channels, shape (p, G)."""
        return loadings @ np.add.reduceat(self.fitted.components, self.starts, axis=1)

    def of_groups(self, x: NDArray[np.float64], m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Both from data and model by groups of channels (p, G)."""
        out = np.full((len(x), 2), np.nan)
        out[:, 0] = self.chi_square(x - m, m)
        if self.fitted.loss.counts:
            two = deviance_pixels(x, m)
            np.divide(two[:, 0], two[:, 1], out=out[:, 1], where=two[:, 1] > 0.0)
            out[:, 1] *= self._factor()
        return out

    def chi_square(self, rest: NDArray[np.float64], m: NDArray[np.float64]) -> NDArray[np.float64]:
        """The first, from what is left and the model (p, G); NaN where the model has nothing."""
        found = np.full(len(rest), np.nan)
        square = np.square(rest) @ self.weights
        if self.fitted.loss.counts:
            expected = m @ self.weights
        else:
            expected = np.full(len(rest), self.noise * self.weights.sum())
        np.divide(square, expected, out=found, where=expected > 0.0)
        return found * self._factor()

    def _factor(self) -> float:
        """Groups over degrees of freedom: loadings were fitted."""
        k, g = len(self.fitted.components), self.starts.size
        return g / max(g - k, 1)


def misfit_of(fitted: Fitted, n_pixels: int, noise: float) -> PixelMisfit:
    """Groups and weights that suit a model: of counts, each group holds one in the mean pixel."""
    k, n_channels = fitted.components.shape
    if not fitted.loss.counts:
        return PixelMisfit(fitted, np.arange(n_channels), np.ones(n_channels), noise)
    mean = fitted.totals @ fitted.components / max(1, n_pixels)
    # Few counts leave few groups: there must be more of them than components.
    starts = channel_groups(mean, min(LEAST_COUNTS, float(mean.sum()) / (2 * k + 2)))
    held = np.add.reduceat(mean, starts)
    weights = np.divide(1.0, held, out=np.zeros_like(held), where=held > 0.0)
    return PixelMisfit(fitted, starts, weights)


@dataclass(frozen=True, eq=False)
class _Left:
    """Sums over pixels of what is left.

    `square`, `expected`: by channel (E,). `pairs`: (axes, lags, 3), see `lagged`. `pixels`: sums of
    chi-square, of its square, and number of pixels that hold anything.
    """

    square: NDArray[np.float64]
    expected: NDArray[np.float64]
    pairs: NDArray[np.float64]
    pixels: NDArray[np.float64]

    def __add__(self, other: _Left) -> _Left:
        return _Left(
            self.square + other.square,
            self.expected + other.expected,
            self.pairs + other.pairs,
            self.pixels + other.pixels,
        )


@dataclass(frozen=True, eq=False)
class ResidualSweep:
    """Squares by channel, and how residuals of neighbours go together, in one round.

    Pairs of neighbours are those within a block. The last axis is that of the channels.
    """

    misfit: PixelMisfit
    n_lags: int
    channel_weights: NDArray[np.float64]
    name: str = "diagnostics (residuals)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> _Left:
        """Sums of one block."""
        fitted, misfit = self.misfit.fitted, self.misfit
        fitted.loss.check(block)
        loadings = fitted.loss.loadings(block.data, fitted.components)
        n_groups = misfit.starts.size
        square = np.zeros(fitted.components.shape[1])
        expected = np.zeros_like(square)
        along = np.zeros((self.n_lags, 3))
        box = np.zeros((math.prod(block.nav_shape), n_groups))
        index = block.box_index()
        roots = np.sqrt(self.channel_weights)
        sums = np.zeros(3)
        for part, values in slabs(block.data):
            rest = np.empty((len(values), n_groups))
            residual_slab(
                values,
                loadings[part],
                fitted.components,
                misfit.starts,
                roots,
                square,
                expected,
                along,
                rest,
            )
            chi = misfit.chi_square(rest, misfit.model(loadings[part]))
            chi = chi[np.isfinite(chi)]
            sums += (chi.sum(), np.square(chi).sum(), chi.size)
            box[index[part]] = rest * np.sqrt(misfit.weights)
        if not fitted.loss.counts:
            expected[:] = misfit.noise * block.n_pixels
        used = np.zeros(len(box), dtype=bool)
        used[index] = loadings.sum(axis=1) > 0.0 if fitted.loss.counts else True
        pairs = self._pairs(box.reshape(*block.nav_shape, n_groups), used.reshape(block.nav_shape))
        return _Left(square, expected, np.concatenate((pairs, along[None])), sums)

    def _pairs(self, rest: NDArray[np.float64], used: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Sums over neighbours along each navigation axis, shape (axes, L, 3)."""
        squares = np.einsum("...g,...g->...", rest, rest)
        pairs = [
            [lagged(rest, used, axis, lag, squares=squares) for lag in range(1, self.n_lags + 1)]
            for axis in range(used.ndim)
        ]
        return np.array(pairs).reshape(-1, self.n_lags, 3)

    def combine(self, a: _Left, b: _Left) -> _Left:
        """Add."""
        return a + b

    def step(self, state: Any, statistic: _Left, round_number: int) -> tuple[_Left, bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 16 * n_channels


# ---------------------------------------------------------------------------- variance against mean


@dataclass(frozen=True, eq=False)
class _Denoiser:
    """Weighted PCA of one half of the counts: from a pixel's counts to what the components leave of them.

    Attributes
    ----------
    vectors : ndarray, shape (E, K)
        In the weighted space.
    scale : ndarray, shape (E,)
        Of the channels.
    values : ndarray, shape (K,)
        Squares of the singular values.
    """

    vectors: NDArray[np.float64]
    scale: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def inverse(self) -> NDArray[np.float64]:
        """One over the scale (E,); zero where there is none."""
        return np.divide(1.0, self.scale, out=np.zeros_like(self.scale), where=self.scale > 0.0)

    def scores(
        self, rows: CountRows, totals: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Scores (p, K), the root of the totals (p,), and |u|^2 (p,)."""
        factors = np.sqrt(np.maximum(totals, 1.0))
        scores = rows.matmul(np.ascontiguousarray(self.scale[:, None] * self.vectors))
        scores /= factors[:, None]
        return scores, factors, np.square(scores) @ (1.0 / np.maximum(self.values, 1e-300))

    def denoised(self, rows: CountRows, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Denoised counts, summed over windows (E, L): shape (p, L)."""
        scores, factors, _ = self.scores(rows, rows.pixel_totals().astype(np.float64))
        within = self.vectors.T @ (self.inverse[:, None] * windows)
        return np.asarray((scores * factors[:, None]) @ within)


@dataclass(frozen=True, eq=False)
class HalvesSweep:
    """Moments of both halves of the counts, in one round."""

    draw: ThinDraw
    gram: GramSweep
    name: str = "diagnostics (halves)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> tuple[Moments, ...]:
        """Moments of one block's halves."""
        return tuple(
            self.gram.map(replace(block, data=half), state, rng_key)
            for half in self.draw.parts(block)
        )

    def combine(self, a: tuple[Moments, ...], b: tuple[Moments, ...]) -> tuple[Moments, ...]:
        """Add."""
        return tuple(self.gram.combine(x, y) for x, y in zip(a, b, strict=True))

    def combine_into(self, a: tuple[Moments, ...], b: tuple[Moments, ...]) -> tuple[Moments, ...]:
        """Add to the first."""
        return tuple(self.gram.combine_into(x, y) for x, y in zip(a, b, strict=True))

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 2 * self.gram.statistic_bytes(n_channels)


def _denoiser(moments: Moments, k: int) -> _Denoiser:
    totals = moments.totals.channels
    scale = np.sqrt(np.divide(totals.sum(), totals, out=np.zeros_like(totals), where=totals > 0))
    gram = add_symmetric(moments.gram.copy())
    gram *= scale
    gram *= scale[:, None]
    vectors = leading_vectors(gram, k)
    values = np.einsum("ek,ek->k", vectors, gram @ vectors)
    return _Denoiser(np.ascontiguousarray(vectors), scale, values)


@dataclass(frozen=True, eq=False)
class LevelSweep:
    """Cells by their denoised value: means, variance between halves, what theory and counting say; one round.

    The level of a cell is the mean of both denoised halves. Sums over a level (B + 1, 6), the first of
    them for all
    below `LOWEST`: cells, denoised value, raw value of the other half, squared difference of the halves
    over two, the theory's variance, and the pixel's expected counts there.
    """

    denoisers: tuple[_Denoiser, _Denoiser]
    draw: ThinDraw
    name: str = "diagnostics (levels)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> NDArray[np.float64]:
        """Sums of one block."""
        halves = self.draw.parts(block)
        totals = [half.pixel_totals().astype(np.float64) for half in halves]
        found = [
            d.scores(half, t) for d, half, t in zip(self.denoisers, halves, totals, strict=True)
        ]
        scores, factors, shares = (np.stack(one) for one in zip(*found, strict=True))
        edges = np.append(level_edges(LOWEST, PER_DECADE, LEVELS), np.inf)
        out = np.zeros((LEVELS + 1, 6))
        level_sums(
            scores,
            shares,
            factors,
            np.ascontiguousarray([d.vectors.T * d.inverse for d in self.denoisers]),
            np.stack([np.square(d.vectors).sum(axis=1) for d in self.denoisers]),
            np.square(self.denoisers[0].inverse),
            halves[1].indptr,
            halves[1].channels,
            halves[1].counts,
            0.5 * (totals[0] + totals[1]),
            edges,
            *level_guide(edges),
            out,
        )
        return out

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add."""
        return a + b

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True


@dataclass(frozen=True, eq=False)
class LineSweep:
    """Counts of lines before and after denoising, where each component is; one round.

    Pixels are weighed by the loadings of one half of the counts, and what denoising the other half makes of
    its counts is compared with them: the two halves are independent, so that the difference is bias alone.
    Both ways round. Sums (K, L, 3): h (denoised - counted), h counted, h^2 counted.

    Parameters
    ----------
    denoisers, draw
        Of both halves.
    fitted : Fitted
    windows : ndarray, shape (E, L)
        One where a channel belongs to a line.
    """

    denoisers: tuple[_Denoiser, _Denoiser]
    draw: ThinDraw
    fitted: Fitted
    windows: NDArray[np.float64]
    name: str = "diagnostics (lines)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> NDArray[np.float64]:
        """Sums of one block."""
        halves = self.draw.parts(block)
        out = np.zeros((len(self.fitted.components), self.windows.shape[1], 3))
        for mine, other in ((0, 1), (1, 0)):
            loadings = self.fitted.loss.loadings(halves[mine], self.fitted.components)
            counted = halves[other].matmul(self.windows)
            denoised = self.denoisers[other].denoised(halves[other], self.windows)
            out[..., 0] += loadings.T @ (denoised - counted)
            out[..., 1] += loadings.T @ counted
            out[..., 2] += np.square(loadings).T @ counted
        return out

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add."""
        return a + b

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True


# ----------------------------------------------------------------------------------------- together


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Everything but what is asked of single pixels.

    Attributes
    ----------
    pixels : PixelMisfit
    small : Dataset
        Curves.
    facts : dict
        Attributes: numbers, and under ``said`` what they mean in plain words.
    """

    pixels: PixelMisfit
    small: xr.Dataset
    facts: dict[str, Any] = field(default_factory=dict)


def diagnose(
    fitted: Fitted,
    cube: Any,
    where: Any,
    *,
    n_components: int | None,
    max_lag: int,
    seed: int,
    lines: Sequence[str] | None = None,
) -> Diagnosis:
    """Make the passes that `diagnostics` needs; nothing is asked of single pixels yet."""
    k = _check(fitted, n_components, max_lag)
    source, labels = as_source(cube, pixels_only(cube, where), channels=fitted.labels.channels)
    fitted.labels.require_same_signal(labels, "diagnostics")
    windows = _windows(cube, lines, fitted, source.n_channels)
    said: list[str] = []
    with resident():
        source = in_counts(source, fitted.gain)
        fitted, noise = _totals(fitted, source)
        misfit = misfit_of(fitted, source.n_pixels, noise)
        weights = fitted.weights if fitted.loss.counts else np.ones(fitted.components.shape[1])
        left: _Left = run_sweep(ResidualSweep(misfit, max_lag, weights), source).state
        small = _curves(left, labels, fitted)
        facts = _facts(left, small, fitted, said)
        if fitted.loss.counts and fitted.gain == 1.0 and source.n_channels <= MAX_GRAM:
            small = small.merge(_levels(source, k, seed, facts, said, fitted, windows))
        else:
            said.append(
                "Variances after denoising were not looked at: the data are no counts, or have more than "
                f"{MAX_GRAM} channels."
            )
    facts["said"] = said
    return Diagnosis(misfit, small, facts)


def _totals(fitted: Fitted, source: BlockSource) -> tuple[Fitted, float]:
    """The model with the totals of these data, and the noise of a value (least squares)."""
    if fitted.loss.counts:
        sweep = TotalsSweep(fitted.loss, fitted.components, name="diagnostics (loadings)")
        totals = run_sweep(sweep, source).state
        return replace(fitted, totals=totals), 1.0
    sums = run_sweep(InformationSweep(fitted.loss, fitted.components, fitted.totals), source).state
    n_free = max(1, sums.n_pixels * (fitted.components.shape[1] - len(fitted.components)))
    return replace(fitted, totals=sums.loadings), fitted.loss.noise(sums.misfit, n_free)


def _check(fitted: Fitted, n_components: Any, max_lag: Any) -> int:
    if isinstance(max_lag, bool) or not isinstance(max_lag, int | np.integer) or max_lag < 1:
        raise InputError(f"max_lag must be a whole number from 1 on, got {max_lag!r}")
    k = len(fitted.components) if n_components is None else n_components
    most = fitted.components.shape[1]
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= most:
        raise InputError(
            f"n_components must be None or a whole number from 1 to {most}, got {n_components!r}",
            hint="so many principal components are kept where denoising is looked at",
        )
    return int(k)


def _windows(
    cube: Any, lines: Sequence[str] | None, fitted: Fitted, n_channels: int
) -> xr.DataArray | None:
    """Which used channels belong to each line (channel, line); None where none are asked about."""
    if lines is None:
        return None
    from emcube.cube.lines import line_windows

    names = [lines] if isinstance(lines, str) else [str(name) for name in lines]
    if not fitted.loss.counts or fitted.gain != 1.0 or n_channels > MAX_GRAM:
        raise InputError(
            f"lines={names!r}: denoising is looked at for counts in up to {MAX_GRAM} channels",
            hint="leave lines out",
        )
    # Several cubes have one signal axis.
    cube = cube.cubes[0] if isinstance(cube, Fields) else cube
    if not isinstance(cube, xr.DataArray):
        raise InputError(
            f"lines={names!r} need an energy axis, got a {type(cube).__name__}",
            hint="give a cube with labels, as em.open or em.make_cube make it",
        )
    whole = np.zeros((fitted.labels.n_all_channels, len(names)))
    for column, window in enumerate(line_windows(cube, names)):
        whole[window, column] = 1.0
    channels = fitted.labels.channels
    used = whole if channels is None else whole[channels]
    empty = [name for name, column in zip(names, used.T, strict=True) if not column.any()]
    if empty:
        raise InputError(
            f"lines: the model has not used the channels of {', '.join(empty)}",
            hint="leave these lines out",
        )
    return xr.DataArray(used, dims=("channel", "line"), coords={"line": names})


def _curves(left: _Left, labels: Labels, fitted: Fitted) -> xr.Dataset:
    ratio = np.full_like(left.square, np.nan)
    np.divide(left.square, left.expected, out=ratio, where=left.expected > 0.0)
    spectrum = replace(labels, plain=False, channels=fitted.labels.channels).spectra(
        ratio, dim=None, name="chi_square_spectrum", attrs={"units": "1"}
    )
    # Cubes that lie beside each other in a list are no neighbours.
    axes = [*labels.nav_dims, "signal"]
    near = [i for i, axis in enumerate(axes) if axis != FIELD]
    product, variance, square = np.moveaxis(left.pairs[near], -1, 0)
    found, error = np.full(product.shape, np.nan), np.full(product.shape, np.nan)
    np.divide(product, square, out=found, where=square > 0.0)
    np.divide(np.sqrt(variance), square, out=error, where=square > 0.0)
    lags = np.arange(1, found.shape[1] + 1)
    over = ("axis", "lag")
    return xr.Dataset(
        {
            "chi_square_spectrum": spectrum,
            "residual_correlation": (over, found, {"units": "1"}),
            "residual_correlation_error": (over, error, {"units": "1"}),
        },
        coords={"axis": [axes[i] for i in near], "lag": lags},
    )


def _facts(left: _Left, small: xr.Dataset, fitted: Fitted, said: list[str]) -> dict[str, Any]:
    total, square, n = (float(v) for v in left.pixels)
    mean = total / n if n else math.nan
    spread = math.sqrt(max(square / n - mean * mean, 0.0)) if n else math.nan
    whole = float(left.square.sum() / left.expected.sum()) if left.expected.sum() > 0 else math.nan
    facts = {"chi_square_mean": mean, "chi_square_spread": spread, "square_ratio": whole}
    if fitted.loss.counts:
        said.append(_chi_words(mean, spread / math.sqrt(n) if n else math.nan))
    else:
        said.append(
            "The size of the noise is not known beforehand: it was taken from what the model leaves, so that "
            "chi-square is one on average whatever the model misses. Only its shape says something."
        )
    said += _correlation_words(small)
    return facts


def _chi_words(mean: float, error: float) -> str:
    if not math.isfinite(mean):
        return "There is nothing in the data that could be compared with the model."
    told = f"Chi-square is {mean:.3f} on average, where counting noise alone gives 1"
    if abs(mean - 1.0) <= max(0.02, MUCH * error):
        return f"{told}: the model leaves what counts leave."
    if mean > 1.0:
        return (
            f"{told}: the model misses something (a component, a peak that shifts), or the data "
            "scatter more than "
            "counts do."
        )
    return (
        f"{told}: the data scatter less than counts do. Were they smoothed, interpolated, "
        "denoised or scaled, or has "
        "the model too many components?"
    )


def _correlation_words(small: xr.Dataset) -> list[str]:
    said = []
    found, error = small["residual_correlation"], small["residual_correlation_error"]
    for axis in found["axis"].values:
        values, errors = (np.asarray(v.sel(axis=axis).values) for v in (found, error))
        if axis == "signal":
            # Farther channels are opposed by K / E, since loadings were fitted.
            values, errors = values[:1], errors[:1]
        told = np.nan_to_num(np.abs(values)) > np.maximum(WORTH, MUCH * np.nan_to_num(errors))
        if not told.any():
            continue
        sizes = np.where(told, np.abs(values), 0.0)
        far = 1 + int(np.argmax(sizes))
        # What falls off with the distance is told of neighbours; a pattern stands out from them.
        if told[0] and sizes[far - 1] - sizes[0] <= MUCH * errors[far - 1]:
            far = 1
        value = float(values[far - 1])
        if axis == "signal":
            why = (
                "channels are not independent (a detector that shares charge, interpolation, "
                "smoothing), or lines are "
                "described badly"
            )
            what = "neighbouring channels"
        elif far == 1:
            why = (
                "a probe wider than a pixel, drift, smoothing, or a structure that the model misses"
            )
            what = f"neighbours along {axis}"
        else:
            why = (
                "a pattern of the scan or of the electronics (a zero peak, mains hum), or a structure that "
                "the model misses"
            )
            what = f"pixels {far} apart along {axis}"
        sign = "alike" if value > 0 else "opposed"
        said.append(f"What is left of {what} is {sign} (correlation {value:+.2f}): {why}.")
    if not said:
        said.append("What is left of neighbouring pixels and channels is not correlated.")
    return said


def _levels(
    source: BlockSource,
    k: int,
    seed: int,
    facts: dict[str, Any],
    said: list[str],
    fitted: Fitted,
    windows: xr.DataArray | None,
) -> xr.Dataset:
    """Variance against mean, and bias of lines, of both halves of the counts denoised separately."""
    draw = ThinDraw(seed, 0, HALVES, 0)
    halves = run_sweep(HalvesSweep(draw, GramSweep(PoissonNoise())), source).state
    with single_threaded_blas(), ThreadPoolExecutor(default_threads()) as pool:
        one, two = pool.map(partial(_denoiser, k=k), halves)
    sums = run_sweep(LevelSweep((one, two), draw), source).state
    with single_threaded_blas():
        there = sums[1:, 0] > 0
        kept = sums[1:][there]
        n = kept[:, 0]
        low = level_edges(LOWEST, PER_DECADE, LEVELS)
        columns = {
            "denoised_mean": (kept[:, 1] / n, "counts"),
            "raw_mean": (kept[:, 2] / n, "counts"),
            "denoised_variance": (kept[:, 3] / n, "1"),
            "theory_variance": (kept[:, 4] / n, "1"),
            "n_cells": (n, "1"),
        }
        found = xr.Dataset(
            {name: ("level", values, {"units": unit}) for name, (values, unit) in columns.items()},
            coords={"level": ("level", low[there], {"units": "counts"})},
        )
    _level_words(found, sums, k, facts, said)
    if windows is None:
        return found
    sweep = LineSweep((one, two), draw, fitted, windows.values)
    return found.merge(_line_bias(run_sweep(sweep, source).state, windows, said))


def _line_bias(sums: NDArray[np.float64], windows: xr.DataArray, said: list[str]) -> xr.Dataset:
    names = [str(name) for name in windows["line"].values]
    apart, counted, square = np.moveaxis(sums, -1, 0)
    there = counted > 0.0
    bias, error = np.full(counted.shape, np.nan), np.full(counted.shape, np.nan)
    np.divide(apart, counted, out=bias, where=there)
    np.divide(np.sqrt(square), counted, out=error, where=there)
    beyond = np.abs(np.nan_to_num(bias)) > np.maximum(LINE_WORTH, MUCH * np.nan_to_num(error))
    found = np.argwhere(beyond)
    # The largest first: a table tells the others.
    found = found[np.argsort(-np.abs(bias[beyond]), kind="stable")]
    for k, i in found[:MOST_LINES]:
        way = "few" if bias[k, i] < 0 else "many"
        said.append(
            f"Where component {k} is, denoising makes too {way} counts of {names[i]}: "
            f"{100 * bias[k, i]:+.0f} % (standard error {100 * error[k, i]:.1f} %)."
        )
    if len(found) > MOST_LINES:
        said.append(f"So it is for {len(found) - MOST_LINES} more pairs of component and line.")
    if not beyond.any():
        said.append(
            f"Denoising changes no line ({', '.join(names)}) by more than {100 * LINE_WORTH:g} %, or than "
            "its counting error, where any component is."
        )
    over = ("component", "line")
    return xr.Dataset(
        {
            "line_bias": (over, bias, {"units": "1"}),
            "line_bias_error": (over, error, {"units": "1"}),
        },
        coords={"line": names, "component": np.arange(len(bias))},
    )


def _level_words(
    found: xr.Dataset, sums: NDArray[np.float64], k: int, facts: dict[str, Any], said: list[str]
) -> None:
    counted = sums[1:, 5].sum()
    measured = float(sums[1:, 3].sum() / counted) if counted > 0 else math.nan
    theory = float(sums[1:, 4].sum() / counted) if counted > 0 else math.nan
    facts |= {"denoised_over_counting": measured, "theory_over_counting": theory}
    facts["n_components_denoised"] = k
    if not measured > 0:
        said.append("There are too few counts to say what denoising does to variances.")
        return
    said.append(
        f"After denoising with {k} principal component{'' if k == 1 else 's'} a value scatters "
        f"with {measured:.2g} of "
        f"the variance of its counts (theory: {theory:.2g}), and neighbouring values scatter "
        "together. Count statistics "
        "do not survive: the root of a denoised value is no error bar of it."
    )
    below = float(sums[0, 0] / sums[:, 0].sum())
    weight = found["raw_mean"] * found["n_cells"]
    full = weight > 100.0
    bias = (found["denoised_mean"] - found["raw_mean"]) / found["raw_mean"].where(full)
    worst = float(np.abs(bias).max()) if bool(full.any()) else math.nan
    facts |= {"largest_bias": worst, "share_below_levels": below}
    # The counts of a level scatter, too, and the worst of two dozen levels is soon two errors off.
    bias = bias.where(np.abs(bias) > MUCH / np.sqrt(weight.where(full)))
    worst = float(np.abs(bias).max())
    if math.isfinite(worst) and worst > 0.05:
        at = float(found["denoised_mean"][int(np.nanargmax(np.abs(bias.values)))])
        said.append(
            "Denoised values are biased where they are chosen by their size: those of about "
            f"{at:.2g} counts differ by "
            f"{100 * worst:.0f} % from the counts of the other half of the data."
        )
    else:
        said.append(
            "At no level do denoised values differ from the other half of the counts by more than 5 %, or "
            "than counting explains."
        )


def _refuse_penalties(model: Any) -> None:
    """Refuse a model whose loadings are not those that describe each pixel best.

    Raises
    ------
    InputError
    """
    words = [name for name in ("sparsity", "smoothness") if getattr(model, name, 0.0)]
    if words:
        raise InputError(
            f"diagnostics of a MiniBatchNMF with {words[0]}: loadings of each pixel's own are expected, "
            "since what a penalty leaves is no sign of a bad model",
            hint="ask for the diagnostics of a fit without it, or look at model.plot_quality(cube)",
        )


def diagnostics(
    model: Any,
    cube: Any,
    *,
    n_components: int | None = None,
    lines: Sequence[str] | None = None,
    max_lag: int = 4,
    where: Any = None,
    random_state: Any = 0,
) -> Any:
    """Ask whether what a model leaves is counting noise, and what denoising does to count statistics.

    Parameters
    ----------
    model : fitted estimator
        With components that are not negative (`MiniBatchNMF`).
    cube : DataArray, or matrix of shape (P, E)
        What it was fitted on. Or several cubes, of a model of several.
    n_components : int, optional
        Principal components that denoising keeps; default as many as the model has.
    lines : sequence of str, optional
        X-ray lines, as ``"Fe_Ka"``, whose counts are compared before and after denoising.
    max_lag : int
        Farthest neighbours whose residuals are compared.
    where : DataArray of bool, optional
        Pixels that are used (True), as for the fit; of several cubes a list with one each.
    random_state : int, Generator or None
        Seed of the halves to which counts are dealt.

    Returns
    -------
    Dataset
        ``chi_square``, ``deviance`` (navigation dims): per degree of freedom, of counting noise alone 1;
        the first from squares, the second from the likelihood. ``chi_square_spectrum`` (signal dims).
        ``residual_correlation`` (axis, lag), with its standard error ``residual_correlation_error``: of
        weighted residuals with those so many pixels (or channels: "signal") away; counting noise gives 0.
        ``denoised_mean``, ``denoised_variance``, ``theory_variance``, ``raw_mean``, ``n_cells`` (level):
        of half of the
        counts. Cells are sorted by what weighted PCA of both halves makes of them; the variance is that
        between the
        halves, theory is ``g h / N (|u|^2 + |v|^2 - |u|^2 |v|^2)``, and ``raw_mean`` is what the other half
        counted there, which shows a bias. Of counts only.
        ``line_bias``, ``line_bias_error`` (component, line), where lines were given: by what share denoising
        makes the counts of a line too large where a component is, and the standard error of that. Half of the
        counts say where a component is, the other half are denoised and compared with themselves as counted.
        The attribute ``said`` says it in plain words.
        Of several cubes a list with one Dataset a cube: curves and words are those of all together.

    Raises
    ------
    InputError
        The model has negative components or was fitted on another signal; a parameter is out of range.

    Notes
    -----
    Two passes, for counts four (five with lines); another one where pixels are asked for. Neighbours across
    the borders of blocks are not compared. The same bits on any number of threads and workers.

    References
    ----------
    A. A. Shabalin, A. B. Nobel, J. Multivar. Anal. 118 (2013) 67. https://doi.org/10.1016/j.jmva.2013.03.005
    M. R. Keenan, P. G. Kotula, Surf. Interface Anal. 36 (2004) 203. https://doi.org/10.1002/sia.1657

    Examples
    --------
    >>> import emcube as em
    >>> scene = em.scenes.srm2135c(scale=0.002, random_state=0)
    >>> nmf = em.MiniBatchNMF(3, random_state=0).fit(scene.cube)
    >>> print(em.diagnostics(nmf, scene.cube).attrs["said"][0])  # doctest: +SKIP
    """
    fields = several(cube)
    cube = cube if fields is None else fields
    fitted = fitted_of(model, cube)
    _refuse_penalties(model)
    seed = resolve_seed(random_state)
    found = diagnose(
        fitted, cube, where, n_components=n_components, max_lag=max_lag, seed=seed, lines=lines
    )
    return _answered(found, fitted, cube, where)


def _answered(found: Diagnosis, fitted: Fitted, cube: Any, where: Any) -> Any:
    """The answer as a Dataset, with its maps; of several cubes one a cube."""
    if isinstance(cube, Fields):
        pairs = zip(cube.cubes, selections(where, cube), strict=True)
        return [_answered(found, fitted, one, chosen) for one, chosen in pairs]
    packed = map_pixels(
        cube,
        _Packed(found.pixels),
        (2,),
        labels=fitted.labels,
        where=pixels_only(cube, where),
    )
    _, labels = as_source(cube)
    labels = replace(labels, plain=False)
    dataset = found.small.copy()
    names = ("chi_square", "deviance") if fitted.loss.counts else ("chi_square",)
    for i, name in enumerate(names):
        dataset[name] = labels.maps(packed[..., i], dims=(), name=name, attrs={"units": "1"})
    for key in dataset.data_vars:
        dataset[key].attrs["long_name"] = WORDS[str(key)]
    return dataset.assign_attrs(found.facts)


@dataclass(frozen=True, eq=False)
class _Packed:
    pixels: PixelMisfit

    def __call__(self, block: Block) -> NDArray[np.float64]:
        return self.pixels.packed(block)


WORDS = {
    "chi_square": "chi-square per degree of freedom, of counting noise 1",
    "deviance": "Poisson deviance over its expectation, of counting noise 1",
    "chi_square_spectrum": "chi-square by channel, of counting noise 1",
    "residual_correlation": "correlation of residuals with those of neighbours",
    "residual_correlation_error": "standard error of the correlation",
    "denoised_mean": "mean of denoised values",
    "raw_mean": "mean of the counts of the other half",
    "denoised_variance": "variance of denoised values, between halves",
    "theory_variance": "variance of denoised values, by theory",
    "n_cells": "cells of a level",
    "line_bias": "share by which denoising makes the counts of a line too large",
    "line_bias_error": "standard error of the bias of a line",
}
"""What each variable is, in a few words."""
