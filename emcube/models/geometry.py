"""Endmembers as the corners of the cloud of pixels: VCA and N-FINDR (SISAL is in `emcube.models.sisal`).

Letters: P pixels, E used channels, K components.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xarray as xr

from emcube.engine import resident, run_sweep
from emcube.engine.threads import single_threaded_blas
from emcube.kernels.corners import n_finder, shares_of, vertex_components
from emcube.kernels.fcls import constrained_shares
from emcube.kernels.vertices import settled
from emcube.models.base import resolve_seed
from emcube.models.cloud import Cloud, gather
from emcube.models.labels import Labels, as_source, dtype_of
from emcube.models.mixing import (
    MixingModel,
    loss_of,
    refuse_empty,
    refuse_too_many,
    require_choice,
    require_whole,
)
from emcube.models.nmf_losses import FrobeniusLoss, Loss, PoissonLoss
from emcube.models.nmf_start import choose_side, n_purest, sketch, spectra_at
from emcube.models.rebuild import pixels_only
from emcube.models.sweeps import TotalsSweep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import BlockSource

__all__ = ["NFINDR", "VCA", "Geometry", "Noise", "Purest", "by_component"]

ABUNDANCES = ("auto", "poisson", "fcls")

LIMIT_WORDS = {
    "name": "counting_limit",
    "units": "deg",
    "words": "angle by which counting noise alone turns each endmember",
}


@dataclass(frozen=True, eq=False)
class Noise:
    """Counting noise of corners.

    Attributes
    ----------
    within : ndarray, shape (K, D, D)
        Covariance of each corner in the subspace.
    out : ndarray, shape (K,)
        Variance in each of the dims out of it.
    """

    within: NDArray[np.float64]
    out: NDArray[np.float64]


class Geometry(MixingModel):
    """Base of what finds endmembers at the corners of the cloud of pixels.

    In the K-dim weighted subspace of the signal a pixel over its total is a point; mixtures of K
    spectra fill a simplex whose corners are the spectra. A subclass finds the corners (`_corners`).
    """

    n_components: int
    noise: Any
    abundances: str
    pool: int | str
    random_state: Any
    pool_: int
    seed_: int
    component_totals_: NDArray[np.float64]
    counting_limit_: Any
    purest_: NDArray[np.int64]
    _cloud: Cloud
    _fit_loss: PoissonLoss | FrobeniusLoss
    _name: str

    @abstractmethod
    def _corners(self, cloud: Cloud, loss: Loss) -> NDArray[np.float64]:
        """Corners (K, K) of the cloud, from what `random_state` has drawn."""

    @abstractmethod
    def _check_own_parameters(self) -> None:
        """Refuse parameters that are out of range."""

    # -- fitting ------------------------------------------------------------------------------------

    def fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Fit the model anew.

        Parameters
        ----------
        X : DataArray, or matrix of shape (P, E)
        y : None
            Ignored, as scikit-learn's pipelines want it.
        where : DataArray of bool, optional
            What is used (True).

        Raises
        ------
        InputError
            Values are not finite, or negative where counts are meant; fewer pixels or channels than
            components hold anything; a parameter is out of range.
        """
        self._check_parameters()
        source, labels = as_source(X, where)
        k = int(self.n_components)
        refuse_too_many(source, k)
        loss = loss_of(self.noise, dtype_of(X))
        seed = resolve_seed(self.random_state)
        with resident(), single_threaded_blas():
            found = sketch(source, loss, k, seed, self._name)
            refuse_empty(found, k)
            side = self._side(source, labels, loss, found)
            cloud = gather(source, loss, found, labels.nav_dims, side, seed, self._name)
            self._remember(labels)
            self._take(cloud, loss, seed)
        self._remember_columns(X)
        return self

    def partial_fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Add pixels to the cloud and find its corners anew.

        The first call is `fit`; it fixes the channels, the subspace and the pooling, so that what only
        later pixels hold is not seen. Later `where` selects pixels only, and ``purest_`` counts
        positions in the cube that a pixel came with.

        Raises
        ------
        InputError
            As for `fit`, or the signal differs from that of the first call.
        """
        if not hasattr(self, "axes_"):
            return self.fit(X, where=where)
        self._check_parameters()
        source, labels = as_source(X, pixels_only(X, where), channels=self.axes_.channels)
        self._require_same_signal(X, labels)
        loss = self._fit_loss
        earlier = self._cloud
        with resident(), single_threaded_blas():
            # Values are checked before they are projected.
            run_sweep(TotalsSweep(counts=loss.counts), source)
            new = gather(
                source, loss, earlier.found, labels.nav_dims, self.pool_, self.seed_, self._name
            )
            rng = np.random.default_rng((self.seed_, 1, len(earlier.weights)))
            self._take(earlier.joined(new, rng), loss, self.seed_)
        return self

    def _check_parameters(self) -> None:
        require_whole("n_components", self.n_components, 1)
        require_choice("abundances", self.abundances, ABUNDANCES)
        require_whole("pool", self.pool, 1, auto=True)
        loss_of(self.noise, np.dtype(np.float64))
        self._check_own_parameters()

    @property
    def _counts_only(self) -> bool:
        return self.noise == "poisson" or self.abundances == "poisson"

    def _side(self, source: BlockSource, labels: Labels, loss: Loss, found: Any) -> int:
        if not isinstance(self.pool, str):
            return int(self.pool)
        return choose_side(source, loss, found, labels.nav_dims, self._name)

    def _take(self, cloud: Cloud, loss: PoissonLoss | FrobeniusLoss, seed: int) -> None:
        """Find the corners, and set the public attributes."""
        self.seed_, self.pool_ = seed, cloud.side
        self._cloud, self._fit_loss = cloud, loss
        corners = self._corners(cloud.heavy(int(self.n_components)), loss)
        totals = _totals_of(cloud, corners, loss)
        order = np.argsort(-totals, kind="stable")
        corners = corners[order]
        self._values = spectra_at(cloud.found, corners)
        self._weights = np.square(cloud.found.scale)
        choice = "poisson" if loss.counts else "fcls"
        self.loadings_by_ = choice if self.abundances == "auto" else self.abundances
        self.component_totals_ = totals[order]
        self.components_ = self.axes_.spectra(self._values, attrs={"units": "1 per channel"})
        self._describe(cloud.heavy(int(self.n_components)), corners, loss)

    def _describe(self, cloud: Cloud, corners: NDArray[np.float64], loss: Loss) -> None:
        """Where the purest pixels are, and how well counting noise lets the endmembers be known."""
        shares = shares_of(cloud.values, corners)
        steep = np.linalg.norm(np.linalg.pinv(corners), axis=0)
        purest = np.argmax(shares - np.outer(cloud.noise, steep), axis=0)
        self.purest_ = cloud.place[purest]
        noise = self._noise_of(cloud, corners, shares, loss)
        n_dims = max(int(np.count_nonzero(cloud.found.totals != 0.0)) - len(corners), 0)
        limits = np.array(
            [
                _angle_of_noise(corner, within, n_dims * out)
                for corner, within, out in zip(corners, noise.within, noise.out, strict=True)
            ]
        )
        self.counting_limit_ = limits if self.axes_.plain else by_component(limits, **LIMIT_WORDS)

    def _noise_of(
        self,
        cloud: Cloud,
        corners: NDArray[np.float64],
        shares: NDArray[np.float64],
        loss: Loss,
    ) -> Noise:
        """Counting noise of each corner: of its purest points, and of the subspace."""
        n = self._n_averaged(cloud)
        covariance = cloud.covariance(loss)
        within = np.zeros((len(corners), *corners.shape[1:], corners.shape[1]))
        for k, corner in enumerate(corners):
            far = np.argsort(-shares[:, k], kind="stable")[:n]
            square = float(np.average(np.square(cloud.noise[far]), weights=cloud.weights[far])) / n
            within[k] = square * covariance(corner)
        return Noise(within, _subspace_errors(self._cloud, corners))

    @abstractmethod
    def _n_averaged(self, cloud: Cloud) -> int:
        """Points of the cloud that stand behind one endmember."""


class Purest(Geometry):
    """Endmembers that are means of the purest points."""

    n_average: int | str
    n_init: int

    def _check_own_parameters(self) -> None:
        require_whole("n_average", self.n_average, 1, auto=True)
        require_whole("n_init", self.n_init, 1)

    def _n_averaged(self, cloud: Cloud) -> int:
        n = len(cloud.weights)
        given = n_purest(n) if isinstance(self.n_average, str) else int(self.n_average)
        return max(1, min(given, n // int(self.n_components)))

    def _settled(
        self, cloud: Cloud, corners: NDArray[np.float64], loss: Loss
    ) -> NDArray[np.float64]:
        """Means of the purest points that are free of the noise that chose them; pixels stay as they are."""
        n = self._n_averaged(cloud)
        if n == 1:
            return corners
        return settled(
            cloud.values,
            cloud.weights,
            cloud.noise,
            corners,
            n_average=n,
            covariance=cloud.covariance(loss),
            rng=np.random.default_rng((self.seed_, 0, 2)),
            n_sweeps=3,
        )

    def _random_corners(self, cloud: Cloud) -> NDArray[np.float64]:
        return vertex_components(
            cloud.values,
            cloud.weights,
            cloud.noise,
            int(self.n_components),
            n_average=self._n_averaged(cloud),
            n_init=int(self.n_init),
            rng=np.random.default_rng((self.seed_, 0, 3)),
        )


class VCA(Purest):
    """Find endmembers by vertex component analysis: pixels that are extreme along random directions.

    It assumes that somewhere each component is pure. In the K-dim weighted subspace of the signal
    each pixel (or tile of pixels) over its total is a point. One corner after the other is the point that
    reaches farthest along a random direction at right angles to the corners found so far.

    Parameters
    ----------
    n_components : int
        K.
    noise : {"auto", "poisson"} or None
        "auto" is "poisson" for integer counts and None for everything else.
    abundances : {"auto", "poisson", "fcls"}
        How `transform` solves loadings: "poisson" by the likelihood of counts, "fcls" by fully
        constrained least
        squares (not negative, and their sum is the pixel's own), weighted as the noise asks. "auto" is
        "poisson" for counts.
    pool : int or "auto"
        Side of the square tiles whose pixels are summed while endmembers are sought (loadings are
        always those
        of single pixels). "auto" sums until noise is a quarter of the weakest component's spread, as long as
        neighbours are alike.
    n_average : int or "auto"
        Points whose mean is an endmember. "auto" is a five hundredth of all, five at least: a single point is
        an outlier of the noise. 1 is the method as published.
    n_init : int
        Times that it is done with other directions; the largest simplex is kept.
    random_state : int, Generator or None
        Of the directions, and of the sample of points where a cube has more than 131,072 (pooled) pixels.

    Attributes
    ----------
    components_ : DataArray (component, signal dims), or ndarray (K, E)
        The endmembers. Each sums to one over the used channels; zero where no counts are; NaN in unused
        channels. Ordered by their total loading, the largest first.
    component_totals_ : ndarray, shape (K,)
        Sum of the loadings of each component, as the points of the cloud tell it.
    counting_limit_ : DataArray (component,), or ndarray
        Angle in degrees, weighted for counting noise, by which noise alone turns each endmember: that of the
        points that were averaged, and that of the subspace, which all pixels tell.
    purest_ : ndarray of int, shape (K, navigation dims)
        Position of the purest pixel of each component (of the first pixel of its tile).
    pool_ : int
        Side of the tiles that was used.
    loadings_by_ : str
        "poisson" or "fcls".
    seed_ : int
    axes_ : Labels

    Notes
    -----
    Passes: one for the subspace (four for least squares, or beyond 2048 channels), one for the pooling, one
    for the points. Memory: 8 E^2 bytes up to 2048 channels, and the points. Same bits on any number of
    workers.

    References
    ----------
    J. M. P. Nascimento, J. M. Bioucas-Dias, IEEE Trans. Geosci. Remote Sens. 43 (2005) 898.
    https://doi.org/10.1109/TGRS.2005.844293
    N. Nadisic, N. Gillis, C. Kervazo, Linear Algebra Appl. 676 (2023) 174.
    https://doi.org/10.1016/j.laa.2023.07.013

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> true = rng.dirichlet(np.full(40, 0.3), 3)
    >>> counts = rng.poisson(500 * rng.dirichlet(np.full(3, 0.2), 900) @ true)
    >>> vca = em.VCA(3, random_state=0).fit(counts)
    >>> vca.components_.shape, vca.transform(counts).shape
    ((3, 40), (900, 3))
    """

    _name = "VCA"

    def __init__(
        self,
        n_components: int = 2,
        *,
        noise: str | None = "auto",
        abundances: str = "auto",
        pool: int | str = "auto",
        n_average: int | str = "auto",
        n_init: int = 10,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.noise = noise
        self.abundances = abundances
        self.pool = pool
        self.n_average = n_average
        self.n_init = n_init
        self.random_state = random_state

    def _corners(self, cloud: Cloud, loss: Loss) -> NDArray[np.float64]:
        return self._settled(cloud, self._random_corners(cloud), loss)


class NFINDR(Purest):
    """Find endmembers by N-FINDR: the pixels that span the largest simplex.

    It assumes that somewhere each component is pure. It starts from the corners of `VCA` and replaces one
    after the other by the point that makes the simplex largest, until none does.

    Parameters
    ----------
    n_components, noise, abundances, pool, n_average, n_init, random_state
        As for `VCA`, which gives the start. With ``n_average=1`` corners are single points, as published.
    max_iter : int
        Times that all corners are visited, at most.

    Attributes
    ----------
    components_, component_totals_, counting_limit_, purest_, pool_, loadings_by_, seed_, axes_
        As for `VCA`.
    n_iter_ : int
        Times that all corners were visited.
    converged_ : bool
        No other point in place of one corner makes the simplex larger.

    Notes
    -----
    As for `VCA`: the same passes, and the same bits on any number of workers.

    References
    ----------
    M. E. Winter, Proc. SPIE 3753 (1999) 266. https://doi.org/10.1117/12.366289

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> true = rng.dirichlet(np.full(40, 0.3), 3)
    >>> counts = rng.poisson(500 * rng.dirichlet(np.full(3, 0.2), 900) @ true)
    >>> em.NFINDR(3, random_state=0).fit(counts).converged_
    True
    """

    _name = "N-FINDR"

    def __init__(
        self,
        n_components: int = 2,
        *,
        noise: str | None = "auto",
        abundances: str = "auto",
        pool: int | str = "auto",
        n_average: int | str = "auto",
        n_init: int = 10,
        max_iter: int = 100,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.noise = noise
        self.abundances = abundances
        self.pool = pool
        self.n_average = n_average
        self.n_init = n_init
        self.max_iter = max_iter
        self.random_state = random_state

    def _check_own_parameters(self) -> None:
        super()._check_own_parameters()
        require_whole("max_iter", self.max_iter, 1)

    def _corners(self, cloud: Cloud, loss: Loss) -> NDArray[np.float64]:
        corners, self.n_iter_, self.converged_ = n_finder(
            cloud.values,
            cloud.weights,
            self._random_corners(cloud),
            n_average=self._n_averaged(cloud),
            max_sweeps=int(self.max_iter),
        )
        return self._settled(cloud, corners, loss)


def _totals_of(cloud: Cloud, corners: NDArray[np.float64], loss: Loss) -> NDArray[np.float64]:
    """Sum of each component's loadings, as the points of the cloud tell it; all together the cube's sum."""
    products = cloud.values @ corners.T
    shares = constrained_shares(products, corners @ corners.T, np.ones(len(products)))
    held = cloud.weights @ shares
    return np.asarray(held * (float(cloud.found.totals.sum()) / float(held.sum())))


def _subspace_errors(cloud: Cloud, corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance (K,) of the noise that turns each corner out of the true subspace, in each dim out of it.

    The subspace is found from noisy pixels: out of it each spectrum is known as well as least squares
    with known loadings let it be.
    """
    products = cloud.values @ corners.T
    shares = constrained_shares(products, corners @ corners.T, np.ones(len(products)))
    # Of a sample, as if all pixels were like it.
    whole = float(cloud.found.totals.sum()) / float(cloud.weights.sum())
    square = np.square(cloud.weights)
    # Data without noise are known to rounding.
    variance = np.maximum(cloud.variance, np.finfo(float).eps ** 2 * square)
    information = (shares * (square / variance)[:, None]).T @ shares * whole
    return np.asarray(np.diagonal(np.linalg.pinv(information, hermitian=True)))


def _angle_of_noise(
    corner: NDArray[np.float64], covariance: NDArray[np.float64], out: float
) -> float:
    """Root mean square angle (degrees) by which noise turns a vector, in the subspace and out of it."""
    length = float(np.linalg.norm(corner))
    along = corner / max(length, np.finfo(float).tiny)
    across = max(float(np.trace(covariance) - along @ covariance @ along), 0.0)
    return float(np.rad2deg(np.arctan2(np.sqrt(across + out), length)))


def by_component(values: NDArray[np.float64], *, name: str, units: str, words: str) -> xr.DataArray:
    """One number for each component, labelled."""
    return xr.DataArray(
        values,
        dims=("component",),
        coords={"component": np.arange(len(values))},
        name=name,
        attrs={"units": units, "long_name": words},
    )
