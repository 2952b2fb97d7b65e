"""Endmembers as the corners of the smallest simplex around the cloud of pixels: SISAL.

Letters: P pixels, E used channels, K components, N points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.engine.threads import default_threads
from emcube.errors import InputError
from emcube.kernels.bands import component_bands
from emcube.kernels.corners import log_volume, n_finder, shares_of
from emcube.kernels.extremes import extreme_turns, slack_of
from emcube.kernels.facets import PRICE, NoisyCloud, smallest_within_noise
from emcube.kernels.sisal import smallest_simplex
from emcube.models.cloud import in_plane
from emcube.models.geometry import Purest, by_component
from emcube.models.mixing import require_whole
from emcube.models.nmf_start import spectra_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.models.cloud import Cloud
    from emcube.models.geometry import Noise
    from emcube.models.nmf_losses import Loss

__all__ = ["SISAL"]

LOOKED_AT = 16384
"""Points that the simplex is fitted to, at most: a random choice of more."""

ASKED = 4096
"""Points that say what else is as good. Fewer say less: the range grows."""

ERRORS = 2.0
"""Standard errors of counting that are added to the range on either side."""

PURITY_WORDS = {
    "name": "purity",
    "units": "1",
    "words": "share of each component where it is purest",
}


class SISAL(Purest):
    """Find endmembers as the corners of the smallest simplex that holds the pixels within their noise.

    No pixel need be pure: it is enough that beside each face of the simplex there are pixels that lack a
    component. Noise pushes pixels out of the simplex; how far is known, and the simplex is the smallest one
    outside of which noise explains all pixels. What the data leave open is told by ``components_range_``.

    Parameters
    ----------
    n_components, noise, abundances, pool, n_average, n_init, random_state
        As for `NFINDR`, whose corners are the start.
    hinge : "noise" or float
        What keeps pixels inside. "noise": the likelihood of the cloud, given the noise of each point. A
        number is the weight of the hinge of the published method, which knows nothing of noise: 1 / hinge
        is about the sum of all shares that may be negative, and with a large one every point lies inside
        (MVSA).
    level : float
        Of the likelihood ratio within which another simplex is as good.
    max_iter : int
        Steps, at most.
    tol : float
        Fall of the objective, in units of the logarithm of the volume, at which it ends.

    Attributes
    ----------
    components_, component_totals_, counting_limit_, purest_, pool_, loadings_by_, seed_, axes_
        As for `VCA`. The purest pixel of a component may be a mixture.
    components_range_ : DataArray (component, bound, signal dims), or ndarray (K, 2, E)
        Least and largest value of each channel among all simplices outside of which noise explains all points
        and whose corners are not negative, with two standard errors of counting on either side.
    purity_ : DataArray (component,), or ndarray
        Share of each component in the mean of its purest points: one where some are pure.
    n_iter_ : int
    converged_ : bool
        False, too, where noise explains all pixels whatever the simplex: the corners are then those of
        `NFINDR` or `VCA`.

    Notes
    -----
    Passes as for `VCA`. The simplex is fitted to at most 16,384 points, the range to 4,096; both are
    chosen by `random_state`. Memory: 8 K^2 bytes a point. Same bits on any number of workers.

    References
    ----------
    J. M. Bioucas-Dias, WHISPERS 2009. https://doi.org/10.1109/WHISPERS.2009.5289072
    J. Li et al., IEEE Trans. Geosci. Remote Sens. 53 (2015) 5067. https://doi.org/10.1109/TGRS.2015.2417162
    J. Kiefer, J. Wolfowitz, Ann. Math. Stat. 27 (1956) 887. https://doi.org/10.1214/aoms/1177728066

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> true = rng.dirichlet(np.full(40, 0.3), 3)
    >>> shares = rng.dirichlet(np.full(3, 0.8), 2000)
    >>> counts = rng.poisson(2000 * shares[shares.max(axis=1) < 0.8] @ true)
    >>> sisal = em.SISAL(3, random_state=0).fit(counts)
    >>> sisal.components_.shape, sisal.components_range_.shape
    ((3, 40), (3, 2, 40))
    """

    _name = "SISAL"
    components_range_: Any
    purity_: Any

    def __init__(
        self,
        n_components: int = 2,
        *,
        noise: str | None = "auto",
        abundances: str = "auto",
        pool: int | str = "auto",
        n_average: int | str = "auto",
        n_init: int = 10,
        hinge: str | float = "noise",
        level: float = 0.9,
        max_iter: int = 500,
        tol: float = 1e-4,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.noise = noise
        self.abundances = abundances
        self.pool = pool
        self.n_average = n_average
        self.n_init = n_init
        self.hinge = hinge
        self.level = level
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _check_own_parameters(self) -> None:
        super()._check_own_parameters()
        require_whole("max_iter", self.max_iter, 1)
        if not (isinstance(self.hinge, str) and self.hinge == "noise"):
            _require_between("hinge", self.hinge, 0.0, np.inf, "'noise' or ")
        _require_between("level", self.level, 0.0, 1.0)
        _require_between("tol", self.tol, 0.0, np.inf)

    # -- corners

    def _corners(self, cloud: Cloud, loss: Loss) -> NDArray[np.float64]:
        looked = self._some(cloud, LOOKED_AT, 4)
        random = self._random_corners(looked)
        largest, _, _ = n_finder(
            looked.values, looked.weights, random, n_average=self._n_averaged(looked)
        )
        self._inner = self._settled(looked, largest, loss)
        if len(random) == 1:
            self.n_iter_, self.converged_ = 1, True
            return self._inner
        starts = [in_plane(looked, c) for c in (self._inner, self._settled(looked, random, loss))]
        found = [self._smallest(looked, start, loss) for start in starts]
        _, corners, self.n_iter_, self.converged_ = min(found, key=lambda one: one[0])
        return corners

    def _smallest(
        self, cloud: Cloud, first: NDArray[np.float64], loss: Loss
    ) -> tuple[float, NDArray[np.float64], int, bool]:
        """Objective, corners, steps, and whether it converged."""
        max_iter, tol = int(self.max_iter), float(self.tol)
        if not isinstance(self.hinge, str):
            found, n, done = smallest_simplex(
                cloud.values, first, hinge=float(self.hinge), max_iter=max_iter, tol=tol
            )
            outside = np.maximum(-shares_of(cloud.values, found), 0.0).sum()
            return log_volume(found) + float(self.hinge) * float(outside), found, n, done
        corners, nats, n, done = smallest_within_noise(
            cloud.values, cloud.noise, cloud.covariance(loss), first, max_iter=max_iter, tol=tol
        )
        return log_volume(corners) + PRICE * nats, corners, n, done

    def _some(self, cloud: Cloud, most: int, stream: int) -> Cloud:
        """At most so many points."""
        if len(cloud.weights) <= most:
            return cloud
        return cloud.some(np.random.default_rng((self.seed_, 0, stream)), most)

    # -- what is told of them

    def _describe(self, cloud: Cloud, corners: NDArray[np.float64], loss: Loss) -> None:
        super()._describe(cloud, corners, loss)
        shares = shares_of(cloud.values, corners)
        purity = shares_of(in_plane(cloud, self._inner), corners).max(axis=0)
        plain = self.axes_.plain
        self.purity_ = purity if plain else by_component(purity, **PURITY_WORDS)
        noise = self._noise_of(cloud, corners, shares, loss)
        low, high = self._range(
            self._some(cloud, ASKED, 5), corners, _errors_of(cloud, noise), loss
        )
        both = [self.axes_.spectra(v, attrs={"units": "1 per channel"}) for v in (low, high)]
        self.components_range_ = np.stack(both, axis=1) if plain else _bounds(both)

    def _range(
        self,
        cloud: Cloud,
        corners: NDArray[np.float64],
        errors: NDArray[np.float64],
        loss: Loss,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and largest spectra (K, E) that the data leave to each component."""
        # As they are, be they negative: those of a turned simplex are mixtures of them.
        spectra, k = _unclipped(cloud, corners), len(corners)
        turns = np.eye(k)[None]
        if k > 1:
            noisy = NoisyCloud.of(
                cloud.values, cloud.noise, cloud.covariance(loss), in_plane(cloud, corners)
            )
            turns = extreme_turns(
                noisy,
                spectra,
                errors,
                slack_of(float(self.level), k),
                n_threads=default_threads(),
            )
        low, high = component_bands(turns, spectra, errors)
        low, high = np.minimum(low, self._values), np.maximum(high, self._values)
        # Errors of what a component may be made of come with its largest shares in it.
        wide = ERRORS * np.sqrt(np.square(np.abs(turns).max(axis=0)) @ np.square(errors))
        return np.maximum(low - wide, 0.0), high + wide


def _unclipped(cloud: Cloud, corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spectra (K, E) of corners, negative where their place in the subspace makes them so."""
    found = cloud.found
    unscale = np.divide(1.0, found.scale, out=np.zeros_like(found.scale), where=found.scale > 0.0)
    spectra = (corners @ found.vectors.T) * unscale
    sums = spectra.sum(axis=1, keepdims=True)
    if not (sums > 0.0).all():
        return spectra_at(found, corners)
    return np.asarray(spectra / sums)


def _errors_of(cloud: Cloud, noise: Noise) -> NDArray[np.float64]:
    """Standard errors (K, E) of the corners' spectra."""
    found = cloud.found
    unscale = np.divide(1.0, found.scale, out=np.zeros_like(found.scale), where=found.scale > 0.0)
    within = np.einsum("ed,kdf,ef->ke", found.vectors, noise.within, found.vectors, optimize=True)
    out = noise.out[:, None] * found.noise_profile
    return np.asarray(np.sqrt(np.maximum(within + out, 0.0)) * unscale)


def _bounds(both: list[xr.DataArray]) -> xr.DataArray:
    joined = xr.concat(both, dim="bound", combine_attrs="override")
    joined = joined.assign_coords(bound=["low", "high"])
    joined = joined.transpose("component", "bound", ...)
    return joined.rename("components_range").assign_attrs(
        long_name="range that the data leave to each component"
    )


def _require_between(name: str, value: Any, low: float, high: float, also: str = "") -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not low <= value <= high or (name != "tol" and value in (low, high)):
        words = f"above {low:g}" if np.isinf(high) else f"between {low:g} and {high:g}"
        words = "of at least 0" if name == "tol" else words
        raise InputError(f"{name} must be {also}a number {words}, got {value!r}")
