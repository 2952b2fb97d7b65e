"""Endmembers as the corners of the smallest simplex around the cloud of pixels: SISAL.

Letters: P pixels, E used channels, K components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.errors import InputError
from emcube.kernels.corners import shares_of, vertex_components
from emcube.kernels.sisal import extreme_points, smallest_simplex, support_points
from emcube.models.geometry import Geometry
from emcube.models.mixing import require_whole
from emcube.models.nmf_start import n_purest, spectra_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.models.cloud import Cloud
    from emcube.models.nmf_losses import Loss

__all__ = ["SISAL"]

LOOKED_AT = 32768
"""Points among which the ends of the cloud are sought, at most."""

DIRECTIONS = 200
"""Directions for each component along which they are sought."""

SPLITS = 8

GROUPS = 64
"""Neighbouring channels whose sum must not be negative, in groups of about equal signal."""

ERRORS = 2.0
"""Standard errors within which a bound counts as kept."""


class SISAL(Geometry):
    """Find endmembers by simplex identification: corners of the smallest simplex around the pixels.

    No pixel need be pure: it is enough that pixels lie on all faces of the simplex, near enough its corners
    to hold them in place. How far the corners might still lie out is told by `range_`.

    Parameters
    ----------
    n_components, noise, abundances, pool, random_state
        As for `VCA`.
    n_average : int or "auto"
        Points that are averaged where the cloud ends along a direction; "auto" is a five hundredth of all,
        five at least.
    slack : float
        About the share of these ends that may lie outside of a face, 0 to 0.5. With 0 all lie inside (MVSA), as
        far as that goes.
    max_iter : int
        Approximations, at most.
    tol : float
        Fall of the objective, in units of the logarithm of the volume, at which it ends.

    Attributes
    ----------
    components_, component_totals_, counting_limit_, purest_, pool_, loadings_by_, seed_, axes_
        As for `VCA`. The purest pixel of a component may be a mixture.
    range_ : DataArray (bound, component, signal dims), or ndarray (2, K, E)
        The lowest and highest value of each channel that the data leave to a component: purer until a group of
        channels would be negative by two standard errors, less pure until pixels would lie outside by as much.
    purity_ : DataArray (component,), or ndarray
        Largest share of a component in any end of the cloud: one where a pixel is pure.
    n_iter_ : int
    converged_ : bool

    Notes
    -----
    Passes as for `VCA`. Same bits on any number of workers.

    References
    ----------
    J. M. Bioucas-Dias, WHISPERS 2009. https://doi.org/10.1109/WHISPERS.2009.5289072
    J. Li et al., IEEE Trans. Geosci. Remote Sens. 53 (2015) 5067. https://doi.org/10.1109/TGRS.2015.2417162

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> true = rng.dirichlet(np.full(40, 0.3), 3)
    >>> shares = rng.dirichlet(np.full(3, 0.8), 2000)
    >>> counts = rng.poisson(2000 * shares[shares.max(axis=1) < 0.8] @ true)
    >>> sisal = em.SISAL(3, random_state=0).fit(counts)
    >>> sisal.components_.shape, sisal.range_.shape
    ((3, 40), (2, 3, 40))
    """

    _name = "SISAL"
    range_: Any
    purity_: Any

    def __init__(
        self,
        n_components: int = 2,
        *,
        noise: str | None = "auto",
        abundances: str = "auto",
        pool: int | str = "auto",
        n_average: int | str = "auto",
        slack: float = 0.02,
        max_iter: int = 200,
        tol: float = 1e-6,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.noise = noise
        self.abundances = abundances
        self.pool = pool
        self.n_average = n_average
        self.slack = slack
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _check_own_parameters(self) -> None:
        require_whole("n_average", self.n_average, 1, auto=True)
        require_whole("max_iter", self.max_iter, 1)
        for name, most in (("slack", 0.5), ("tol", np.inf)):
            value: Any = getattr(self, name)
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not number or not 0.0 <= value <= most:
                raise InputError(f"{name} must be a number from 0 to {most:g}, got {value!r}")

    def _n_averaged(self, cloud: Cloud) -> int:
        n = len(cloud.weights)
        given = n_purest(n) if isinstance(self.n_average, str) else int(self.n_average)
        return max(1, min(given, n // int(self.n_components)))

    def _corners(self, cloud: Cloud, loss: Loss) -> NDArray[np.float64]:
        k = int(self.n_components)
        rng = np.random.default_rng((self.seed_, 0, 3))
        looked = cloud
        if len(cloud.weights) > LOOKED_AT:
            looked = cloud.some(rng, LOOKED_AT)
        n_average = self._n_averaged(looked)
        if k == 1:
            self.n_iter_, self.converged_ = 0, True
            self._ends = np.average(cloud.values, axis=0, weights=cloud.weights)[None, :]
            return self._ends
        centre = np.average(looked.values, axis=0, weights=looked.weights)
        self._ends = support_points(
            looked.values,
            looked.weights,
            looked.noise,
            cloud.covariance(loss)(centre),
            n_directions=DIRECTIONS * k,
            n_average=n_average,
            n_splits=1 if n_average == 1 else SPLITS,
            rng=rng,
        )
        ones, nothing = np.ones(len(self._ends)), np.zeros(len(self._ends))
        first = vertex_components(
            self._ends, ones, nothing, k, n_average=1, n_init=10, rng=rng
        )
        corners, self.n_iter_, self.converged_ = smallest_simplex(
            self._ends,
            first,
            slack=float(self.slack),
            max_iter=int(self.max_iter),
            tol=float(self.tol),
        )
        return corners

    def _describe(self, cloud: Cloud, corners: NDArray[np.float64], loss: Loss) -> None:
        super()._describe(cloud, corners, loss)
        ends = shares_of(self._ends, corners)
        purity = ends.max(axis=0)
        low, high = self._range(cloud, corners, ends)
        plain = self.axes_.plain
        self.purity_ = purity if plain else _by_component(purity)
        both = [self.axes_.spectra(v, attrs={"units": "1 per channel"}) for v in (low, high)]
        self.range_ = np.stack(both) if plain else _bounds(both)

    def _range(
        self, cloud: Cloud, corners: NDArray[np.float64], ends: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest spectra (K, E) that the data leave to each component."""
        found, k = cloud.found, len(corners)
        spectra = spectra_at(found, corners)
        low, high = spectra.copy(), spectra.copy()
        if k == 1:
            return low, high
        limits = np.deg2rad(np.asarray(self.counting_limit_, dtype=np.float64))
        for i in range(k):
            # Corners of another simplex in shares of the corners found: t = sum_j share_j s_j.
            error = np.tan(limits[i]) * np.linalg.norm(corners[i])
            normals, bounds = self._limits(i, corners, spectra, ends, error, found)
            others = np.delete(np.arange(k), i)
            # The own share is one less the others: in their coordinates all bounds are linear.
            reduced = normals[:, others] - normals[:, [i]]
            shares = extreme_points(reduced, bounds - normals[:, i], np.zeros(k - 1))
            shares = shares[np.isfinite(shares).all(axis=1)]
            whole = np.zeros((len(shares), k))
            whole[:, others] = shares
            whole[:, i] = 1.0 - shares.sum(axis=1)
            spread = ERRORS * error * self._error_of_channels(found)
            candidates = np.vstack((spectra[i], whole @ spectra))
            low[i] = np.maximum(candidates.min(axis=0) - spread, 0.0)
            high[i] = candidates.max(axis=0) + spread
        return low, high

    def _error_of_channels(self, found: Any) -> NDArray[np.float64]:
        """What an error of length one in the subspace is in each channel, (E,)."""
        unscale = np.divide(
            1.0, found.scale, out=np.zeros_like(found.scale), where=found.scale > 0.0
        )
        size = np.linalg.norm(found.vectors, axis=1) / np.sqrt(found.vectors.shape[1])
        return np.asarray(size * unscale)

    def _limits(
        self,
        i: int,
        corners: NDArray[np.float64],
        spectra: NDArray[np.float64],
        ends: NDArray[np.float64],
        error: float,
        found: Any,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Normals (C, K) and bounds (C,) of what shares another corner i may have of the corners found."""
        k = len(corners)
        mean = np.maximum(found.totals, 0.0) / max(float(found.totals.sum()), 1e-300)
        group = np.minimum(np.floor(np.cumsum(mean) * GROUPS), GROUPS - 1).astype(np.int64)
        _, group = np.unique(group, return_inverse=True)
        sums = np.stack([np.bincount(group, s) for s in spectra])
        errors = np.sqrt(np.bincount(group, np.square(error * self._error_of_channels(found))))
        rows, bounds = [-sums.T], [ERRORS * errors + 1e-9]
        # Less pure by a share of j: until the end that holds least of j, for what it holds of i, lies outside.
        steep = error * np.linalg.norm(np.linalg.pinv(corners), axis=0)
        for j in range(k):
            if j == i:
                continue
            holds = ends[:, i] > 0.25 * ends[:, i].max()
            least = float((ends[holds, j] / ends[holds, i]).min(initial=np.inf))
            row = np.zeros(k)
            row[j] = 1.0
            rows.append(row[None, :])
            bounds.append(np.array([max(least, 0.0) + ERRORS * steep[j] + 1e-9]))
        return np.concatenate(rows), np.concatenate(bounds)


def _bounds(both: list[xr.DataArray]) -> xr.DataArray:
    joined = xr.concat(both, dim="bound").assign_coords(bound=["lower", "upper"])
    return joined.rename("range").assign_attrs(
        **both[0].attrs, long_name="range that the data leave to each component"
    )


def _by_component(values: NDArray[np.float64]) -> xr.DataArray:
    return xr.DataArray(
        values,
        dims=("component",),
        coords={"component": np.arange(len(values))},
        name="purity",
        attrs={"units": "1", "long_name": "largest share of a component in any end of the cloud"},
    )
