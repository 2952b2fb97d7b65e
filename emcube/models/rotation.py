"""How far other factorisations reach that describe the data as well: what neither counts nor refits fix.

L S = (L T^-1)(T S) for every T that can be inverted, and the likelihood limits T only as far as spectra and
loadings must not be negative. Any model with components that are not negative can be asked.

Letters: P pixels, E used channels, K components, N factorisations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.engine import resident, run_sweep
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.kernels.feasible import Profile, feasible_turns, slack_of
from emcube.kernels.poisson_nmf import as_rows, floored
from emcube.kernels.rows import CountRows, joined_rows
from emcube.models.base import resolve_seed
from emcube.models.information import Fitted, component_errors, fitted_of, information_of
from emcube.models.labels import Labels, as_source, map_pixels
from emcube.models.nmf_gain import in_counts
from emcube.models.nmf_losses import Loss
from emcube.models.nmf_start import tile_of
from emcube.models.nmf_sweeps import PooledSource
from emcube.models.rebuild import pixels_only

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource, RngKey

__all__ = ["Rotations", "check_level", "pooled_source", "rotation_range", "rotations_of"]

SAMPLE = 2000
"""Pixels (or tiles) whose likelihood says what else is as good. Fewer say less: the range grows."""


@dataclass(frozen=True, eq=False)
class Rotations:
    """Factorisations (L T^-1)(T S) that describe the data as well as L S.

    Attributes
    ----------
    turns : ndarray, shape (N, K, K)
        T; the first is the identity. Rows sum to one.
    """

    turns: NDArray[np.float64]

    @property
    def mixings(self) -> NDArray[np.float64]:
        """T^-1, shape (N, K, K)."""
        return np.asarray(np.linalg.inv(self.turns), dtype=np.float64)

    def components(
        self, components: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and largest values (K, E) of components S among all T S, zero at least."""
        turned = np.maximum(np.einsum("nkl,le->nke", self.turns, components), 0.0)
        return turned.min(axis=0), turned.max(axis=0)

    def loadings(self, loadings: NDArray[np.float64]) -> NDArray[np.float64]:
        """Least and largest loadings, shape (p, K, 2), of pixels with the loadings (p, K)."""
        out = np.empty((*loadings.shape, 2))
        turned = np.einsum("pk,nkl->npl", loadings, self.mixings)
        out[..., 0] = np.maximum(turned.min(axis=0), 0.0)
        out[..., 1] = np.maximum(turned.max(axis=0), 0.0)
        return out

    def shares(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Least and largest total (K, 2) of each component's loadings, over its own (K,)."""
        turned = np.einsum("k,nkl->nl", totals, self.mixings)
        share = np.maximum(turned, 0.0) / np.maximum(totals, np.finfo(float).tiny)
        return np.column_stack((share.min(axis=0), share.max(axis=0)))


def rotations_of(
    fitted: Fitted,
    source: BlockSource,
    labels: Labels,
    *,
    noise: float,
    variance: NDArray[np.float64],
    level: float,
    seed: int,
) -> Rotations:
    """Look for the factorisations that are as good (see `emcube.kernels.feasible`), in one pass.

    Parameters
    ----------
    fitted : Fitted
        The model's components, over the channels of `source`.
    source : BlockSource
        In counts where the loss is theirs.
    labels : Labels
        Of the cube.
    noise : float
        Least squares: variance of a value.
    variance : ndarray, shape (K, E)
        Of the components' values (see `component_errors`).
    level : float
        Of the likelihood ratio that says "as good".
    seed : int
        Of the sample.
    """
    pooled = pooled_source(source, labels, fitted.pool)
    chance = min(1.0, SAMPLE / max(1, pooled.n_pixels))
    sample = run_sweep(SampleSweep(chance), pooled, seed=seed).state
    profile: Profile
    if fitted.loss.counts:
        profile = _CountProfile(fitted.loss, as_rows(sample))
    else:
        tile_noise = noise * math.prod(tile_of(labels.nav_dims, fitted.pool))
        profile = _FlatProfile(fitted.loss, np.asarray(sample, dtype=np.float64), tile_noise)
    errors = np.sqrt(np.maximum(variance, np.finfo(float).tiny))
    slack = slack_of(level, len(fitted.components))
    return Rotations(feasible_turns(profile, fitted.components, errors, slack))


def pooled_source(source: BlockSource, labels: Labels, side: int) -> BlockSource:
    """The tiles that components were fitted on."""
    return source if side == 1 else PooledSource(source, tile_of(labels.nav_dims, side))


@dataclass(frozen=True, eq=False)
class SampleSweep:
    """Some pixels as they are, each with the same chance."""

    chance: float
    name: str = "uncertainty (sample)"

    def start(self) -> None:
        """Nothing."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> CountRows | NDArray[Any]:
        """Pixels of one block."""
        drawn = np.random.default_rng(rng_key).random(block.n_pixels) < self.chance
        data = block.data
        return data.take(drawn) if isinstance(data, CountRows) else np.asarray(data[drawn])

    def combine(self, a: Any, b: Any) -> CountRows | NDArray[Any]:
        """Append."""
        if isinstance(a, CountRows) or isinstance(b, CountRows):
            return joined_rows([as_rows(a), as_rows(b)])
        return np.concatenate((a, b))

    def step(self, state: Any, statistic: Any, round_number: int) -> tuple[Any, bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return 8 * n_channels * SAMPLE


@dataclass(frozen=True, eq=False)
class _CountProfile:
    """Objective of components on counts, with its gradient."""

    loss: Loss
    data: CountRows

    def __call__(self, components: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        found = self.loss.evaluate(self.data, components)
        return found.divergence, found.loadings[:, None] - found.counts / floored(components)


@dataclass(frozen=True, eq=False)
class _FlatProfile:
    """The same for least squares, over the variance of the noise."""

    loss: Loss
    data: NDArray[np.float64]
    noise: float

    def __call__(self, components: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        found = self.loss.evaluate(self.data, components)
        slope = found.gram @ components - found.products
        return found.divergence / self.noise, slope / self.noise


# -------------------------------------------------------------------------------------- on its own


def check_level(level: Any) -> None:
    """Refuse what is no level of an interval."""
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0.0 < level < 1.0:
        raise InputError(f"level must be a number between 0 and 1, got {level!r}", hint="try 0.9")


def rotation_range(
    model: Any,
    cube: Any,
    *,
    level: float = 0.9,
    where: Any = None,
    random_state: Any = 0,
) -> xr.Dataset:
    """Say how much of a factorisation nothing in the data fixes.

    Looked for are the mixtures T of the components that describe the data within the likelihood ratio of the
    level, with loadings solved anew and neither spectra nor loadings negative: for each pair of
    components those
    with the least and the largest share of the one in the other. No number of counts makes this range small;
    pure pixels and channels that one component leaves empty do.

    Parameters
    ----------
    model : fitted estimator
        With components that are not negative, however they were found (`MiniBatchNMF`, `MCRALS`, `VCA`, ...).
    cube : DataArray, or matrix of shape (P, E)
        What it was fitted on.
    level : float
        Of the likelihood ratio.
    where : DataArray of bool, optional
        Pixels that are used (True), as for the fit.
    random_state : int, Generator or None
        Seed of the sample of pixels whose likelihood is asked.

    Returns
    -------
    Dataset
        ``rotation_range`` (component, signal dims, bound), ``rotation_share`` (component, bound) and, lazily
        where the cube is lazy, ``loadings_rotation_range`` (navigation dims, component, bound): as of
        `uncertainty`.

    Raises
    ------
    InputError
        The model has negative components or was fitted on another signal; the level is no level.

    Notes
    -----
    Two passes. The same bits on any number of threads and workers.

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
    check_level(level)
    fitted = fitted_of(model, cube)
    seed = resolve_seed(random_state)
    source, labels = as_source(cube, pixels_only(cube, where), channels=fitted.labels.channels)
    fitted.labels.require_same_signal(labels, "rotation_range")
    with resident():
        counted = in_counts(source, fitted.gain)
        fitted, information = information_of(fitted, counted)
        with single_threaded_blas():
            noise, _, variance = component_errors(fitted, information)
            found = rotations_of(
                fitted, counted, labels, noise=noise, variance=variance, level=level, seed=seed
            )
    packed = map_pixels(
        cube,
        _PixelRanges(fitted, found),
        (len(fitted.components), 2),
        labels=fitted.labels,
        where=pixels_only(cube, where),
    )
    return _labelled(fitted, found, cube, packed, level, seed)


@dataclass(frozen=True, eq=False)
class _PixelRanges:
    """Least and largest loadings (p, K, 2) of a block's pixels; pickles."""

    fitted: Fitted
    found: Rotations

    def __call__(self, block: Block) -> NDArray[np.float64]:
        loadings = self.fitted.loadings_of(block)
        out = self.found.loadings(loadings) * self.fitted.gain
        return self.fitted.as_answered(out, loadings)


def _labelled(
    fitted: Fitted, found: Rotations, cube: Any, packed: Any, level: float, seed: int
) -> xr.Dataset:
    over = replace(fitted.labels, plain=False)
    _, labels = as_source(cube)
    ends = [
        over.spectra(end, name="rotation_range", attrs={"units": "1 per channel"})
        for end in found.components(fitted.components)
    ]
    spectra = xr.concat(ends, dim="bound", combine_attrs="override")
    maps = replace(labels, plain=False).maps(
        packed,
        dims=("component", "bound"),
        name="loadings_rotation_range",
        attrs={"units": "1"} if fitted.sum_to_one else {},
    )
    dataset = xr.Dataset(
        {
            "rotation_range": spectra.transpose(*ends[0].dims, "bound"),
            "rotation_share": (
                ("component", "bound"),
                found.shares(fitted.totals),
                {"units": "1"},
            ),
            "loadings_rotation_range": maps.drop_vars("bound", errors="ignore"),
        },
        attrs={"level": level, "seed": seed, "n_feasible": len(found.turns)},
    )
    dataset = dataset.assign_coords(bound=["low", "high"])
    for name in dataset.data_vars:
        dataset[name].attrs["long_name"] = WORDS[str(name)]
    return dataset


WORDS = {
    "loadings_rotation_range": "loadings of all factorisations that are as good",
    "rotation_range": "components of all factorisations that are as good",
    "rotation_share": "total loading of all factorisations that are as good, over that of the model",
}
"""What each variable is, in a few words."""
