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
from emcube.models.base import resolve_seed
from emcube.models.denoising import (
    HALVES,
    HalvesSweep,
    LevelSweep,
    LineSweep,
    denoiser_of,
    edges_of_levels,
)
from emcube.models.diagnosis_words import (
    WORDS,
    chi_words,
    correlation_words,
    level_words,
    line_words,
)
from emcube.models.fields import FIELD, Fields, selections, several
from emcube.models.information import Fitted, InformationSweep, TotalsSweep, fitted_of
from emcube.models.labels import Labels, as_source, map_pixels
from emcube.models.nmf_gain import in_counts
from emcube.models.noise import PoissonNoise
from emcube.models.pca import MAX_GRAM
from emcube.models.pca_sweeps import GramSweep
from emcube.models.rebuild import pixels_only
from emcube.models.replicates import ThinDraw
from emcube.models.residual_sweeps import Left, PixelMisfit, ResidualSweep, misfit_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource

__all__ = ["WORDS", "Diagnosis", "diagnose", "diagnostics"]


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
        left: Left = run_sweep(ResidualSweep(misfit, max_lag, weights), source).state
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


def _curves(left: Left, labels: Labels, fitted: Fitted) -> xr.Dataset:
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


def _facts(left: Left, small: xr.Dataset, fitted: Fitted, said: list[str]) -> dict[str, Any]:
    total, square, n = (float(v) for v in left.pixels)
    mean = total / n if n else math.nan
    spread = math.sqrt(max(square / n - mean * mean, 0.0)) if n else math.nan
    whole = float(left.square.sum() / left.expected.sum()) if left.expected.sum() > 0 else math.nan
    facts = {"chi_square_mean": mean, "chi_square_spread": spread, "square_ratio": whole}
    if fitted.loss.counts:
        said.append(chi_words(mean, spread / math.sqrt(n) if n else math.nan))
    else:
        said.append(
            "The size of the noise is not known beforehand: it was taken from what the model leaves, so that "
            "chi-square is one on average whatever the model misses. Only its shape says something."
        )
    said += correlation_words(small)
    return facts


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
        one, two = pool.map(partial(denoiser_of, k=k), halves)
    sums = run_sweep(LevelSweep((one, two), draw), source).state
    with single_threaded_blas():
        there = sums[1:, 0] > 0
        kept = sums[1:][there]
        n = kept[:, 0]
        low = edges_of_levels()
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
    level_words(found, sums, k, facts, said)
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
    said += line_words(bias, error, names)
    over = ("component", "line")
    return xr.Dataset(
        {
            "line_bias": (over, bias, {"units": "1"}),
            "line_bias_error": (over, error, {"units": "1"}),
        },
        coords={"line": names, "component": np.arange(len(bias))},
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
