"""Principal components of a cube larger than memory, with the counting noise evened out first.

Letters: P pixels, E used channels, K components. D is the data, g and h are the totals of its pixels
and channels, N the grand total, X the weighted matrix, V its right singular vectors as columns.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xarray as xr
from scipy.linalg import qr

from emcube.engine import resident, run_sweep
from emcube.engine.threads import single_threaded_blas
from emcube.errors import InputError
from emcube.kernels.eigen import leading_eigen
from emcube.kernels.gram import add_outer, scaled_symmetric
from emcube.models.base import Estimator, resolve_seed
from emcube.models.figures import ComponentFigures
from emcube.models.labels import (
    Labels,
    as_source,
    at_once_where_resident,
    dtype_of,
    map_pixels,
)
from emcube.models.noise import NoiseModel, resolve_noise, weighs
from emcube.models.pca_sweeps import (
    GatherSweep,
    GramSweep,
    LikelihoodSweep,
    Moments,
    Project,
    pixel_totals,
)
from emcube.models.rebuild import in_order, pixels_only, times
from emcube.models.subspace import SketchSweep, SubspaceSweep, new_directions
from emcube.models.sweeps import TotalsSweep
from emcube.results.model import with_column

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from emcube.engine import Block, BlockSource, Sweep

__all__ = ["IncrementalPCA"]

MAX_GRAM = 4096
"""Channels (or pixels) up to which the Gram matrix is summed exactly: 128 MiB at this size."""

MAX_GATHER_BYTES = 1 << 30
"""Pixels are gathered for a Gram matrix between pixels up to this size."""


class IncrementalPCA(ComponentFigures, Estimator):
    """Find principal components of a cube in passes over its blocks.

    With Poisson noise (counts) the matrix that is decomposed is X_ij = D_ij sqrt(N / (g_i h_j)), after
    Keenan and Kotula, whose noise has variance one. It is not centred: the first component is exactly
    the mean spectrum, its weight carries no contrast (``trivial_first_``), and `remove_trivial` leaves
    it out (D - g h' / N). Without a noise model the mean spectrum is subtracted, as scikit-learn does.

    Parameters
    ----------
    n_components : int, optional
        K; None keeps all.
    noise : {"auto", "poisson"}, None or NoiseModel
        "auto" is "poisson" for integer counts and None for everything else.
    remove_trivial : bool
        Leave the mean spectrum out of the components of a weighted decomposition.
    svd_solver : {"auto", "gram", "randomized"}
        "gram" sums the Gram matrix exactly: in one pass and E^2 numbers of 8 bytes.
        "randomized" makes several passes with K + `n_oversamples` vectors, whose products with the
        data span a block Krylov space. "auto" is "gram" up to 4096 channels; beyond, the pixels are
        compared with each other where they are few enough, else it is "randomized".
    n_oversamples : int
        Vectors beside the K of the randomized solver.
    max_iter : int
        Passes of the randomized solver, at most.
    tol : float
        Degrees. It stops when, for each k at which the eigenvalues k and k + 1 differ by a tenth, the
        span of the first k components is within this angle of the exact one (see ``angle_``).
    random_state : int, Generator or None
        Of the randomized solver's first basis.

    Attributes
    ----------
    components_ : DataArray (component, signal dims), or ndarray (K, E)
        V' unscaled: D is about ``scores @ components_`` (plus ``mean_`` where centred). With weights
        component k is V_jk sqrt(h_j / N), so that the first, trivial one is the mean spectrum divided
        by its sum; without weights its rows are orthonormal.
    explained_variance_ : DataArray or ndarray, shape (K,)
        s^2 / P of the weighted matrix, in which pure Poisson noise has variance one; without weights
        s^2 / (P - 1) in the square of the cube's unit, as in scikit-learn.
    explained_variance_ratio_ : same shape
        Share of all variance.
    eigenvalues_ : DataArray or ndarray, shape (min(P, E),)
        ``explained_variance_`` of all components, kept or not, for a scree plot that shows where the
        noise begins. The randomized solver knows those of the K components only.
    singular_values_ : same shape
        s.
    mean_ : DataArray or ndarray, shape (E,)
        Mean spectrum.
    noise_variance_ : float
        Mean variance of what the components leave: about one where only Poisson noise is left.
    angle_ : DataArray or ndarray, shape (K,)
        Bound, from the residuals, of the largest angle in degrees between the span of the first k
        components and the exact one. 90 where component k and the next are not told apart: only the
        span of more or fewer of them means something then. Zero for the exact solvers.
    trivial_first_ : bool
        Whether the first component is the mean spectrum and its variance no measure of contrast.
    n_components_, n_samples_seen_ : int
    noise_ : NoiseModel
    solver_ : str
        "gram", "pixels" (Gram matrix between pixels) or "randomized".
    n_iter_ : int
        Passes of the solver.
    converged_ : bool
        False where the randomized solver ran out of passes: ``angle_`` says how far it came.
    seed_ : int
        Seed of the randomized solver.

    Notes
    -----
    All sums are float64. The sign of a component is such that its largest entry (of V) is positive.
    `partial_fit` equals one fit on everything to rounding, on the "gram" solver.

    References
    ----------
    M. R. Keenan, P. G. Kotula, Surf. Interface Anal. 36 (2004) 203. https://doi.org/10.1002/sia.1657
    N. Halko, P. G. Martinsson, J. A. Tropp, SIAM Rev. 53 (2011) 217. https://doi.org/10.1137/090771806
    C. Musco, C. Musco, NeurIPS 28 (2015), block Krylov methods. https://arxiv.org/abs/1504.05477

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> rng = np.random.default_rng(0)
    >>> counts = rng.poisson(rng.dirichlet(np.ones(3), 400) @ rng.gamma(1.0, size=(3, 50)) * 10)
    >>> pca = em.IncrementalPCA(n_components=5).fit(counts)
    >>> pca.components_.shape, pca.trivial_first_
    ((5, 50), True)
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        noise: str | NoiseModel | None = "auto",
        remove_trivial: bool = False,
        svd_solver: str = "auto",
        n_oversamples: int = 10,
        max_iter: int = 12,
        tol: float = 0.1,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.noise = noise
        self.remove_trivial = remove_trivial
        self.svd_solver = svd_solver
        self.n_oversamples = n_oversamples
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

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
            Values are not finite, or negative where counts are meant; more components are asked for
            than there are pixels or channels; a parameter is out of range.
        """
        self._check_parameters()
        source, labels = as_source(X, where)
        noise = resolve_noise(self.noise, dtype_of(X))
        self._refuse_too_many(source)
        solver = self._choose_solver(source)
        seed = resolve_seed(self.random_state)
        # One thread for the decomposition too: its bits must not depend on the machine's load.
        # What is read once need not stay.
        once = solver != "randomized" and not _mean_first(noise)
        with resident(0 if once else None), single_threaded_blas():
            if solver == "gram":
                shift = self._shift(source, noise)
                moments = run_sweep(GramSweep(noise, shift), source).state
                self._forget()
                self._take_moments(moments, shift, noise, labels)
                self.n_iter_ = 1 if shift is None else 2
            elif solver == "pixels":
                self._forget()
                self._fit_pixels(source, noise, labels)
            else:
                self._forget()
                self._fit_randomized(source, noise, labels, seed)
        self._remember_columns(X)
        self.seed_ = seed
        return self

    def partial_fit(self, X: Any, y: None = None, *, where: Any = None) -> Self:
        """Add pixels to the fit; equals one fit on everything.

        The first call fixes the channels that are used; later `where` selects pixels only.

        Raises
        ------
        InputError
            The solver is not "gram" (too many channels), the signal differs from that of the first
            call, or values are not valid.
        """
        self._check_parameters()
        first = not hasattr(self, "axes_")
        source, labels = as_source(X, where, channels=... if first else self.axes_.channels)
        if source.n_channels > MAX_GRAM or self.svd_solver == "randomized":
            raise InputError(
                f"partial_fit needs the exact summed Gram matrix: {source.n_channels} channels, "
                f"svd_solver={self.svd_solver!r}, at most {MAX_GRAM} channels and 'auto' or 'gram'",
                hint="use fit on the whole cube, or bin channels with cube.em.bin(...)",
            )
        if first:
            noise = resolve_noise(self.noise, dtype_of(X))
            shift = self._shift(source, noise)
            earlier = None
        else:
            self._require_same_signal(X, labels)
            noise, shift, earlier, labels = self.noise_, self._anchor, self._moments, self.axes_
            if earlier is None:
                raise InputError(
                    "partial_fit cannot go on from a fit of another solver than 'gram'",
                    hint="fit everything at once",
                )
        with single_threaded_blas():
            moments = run_sweep(GramSweep(noise, shift), source).state
            if earlier is not None:
                moments = earlier + moments
            self._take_moments(moments, shift, noise, labels)
        if first:
            self._remember_columns(X)
        self.n_iter_ = 1 if shift is None else 2
        self.seed_ = resolve_seed(self.random_state)
        return self

    def first_sums(self, source: BlockSource, dtype: np.dtype[Any]) -> list[Sweep]:
        """Sums over pixels that `fit` begins with and that need no other before them.

        A run of several steps makes them in the pass that it makes anyway (see `emcube.engine.run_sweeps`);
        the number of components plays no part.
        """
        noise = resolve_noise(self.noise, dtype)
        summed = self.svd_solver == "gram" or (
            self.svd_solver == "auto" and source.n_channels <= MAX_GRAM
        )
        return [GramSweep(noise)] if summed and not _mean_first(noise) else []

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    @property
    def _counts_only(self) -> bool:
        return self.noise == "poisson" or bool(getattr(self.noise, "needs_counts", False))

    def _check_parameters(self) -> None:
        k: Any = self.n_components
        if k is not None and (not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1):
            raise InputError(f"n_components must be a whole number from 1 on or None, got {k!r}")
        if self.svd_solver not in ("auto", "gram", "randomized"):
            raise InputError(
                f"svd_solver must be 'auto', 'gram' or 'randomized', got {self.svd_solver!r}"
            )
        for name, least in (("n_oversamples", 0), ("max_iter", 1)):
            value = getattr(self, name)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or value < least:
                raise InputError(f"{name} must be a whole number from {least} on, got {value!r}")
        tol: Any = self.tol
        if isinstance(tol, bool) or not isinstance(tol, int | float | np.number) or not tol >= 0:
            raise InputError(f"tol must be a number from 0 on, got {tol!r}")
        if not isinstance(self.remove_trivial, bool | np.bool_):
            raise InputError(f"remove_trivial must be True or False, got {self.remove_trivial!r}")

    def _refuse_too_many(self, source: BlockSource) -> None:
        most = min(source.n_pixels, source.n_channels)
        if most < 1:
            raise InputError(
                f"principal components need pixels and channels, got {source.n_pixels} and "
                f"{source.n_channels}",
                hint="check the selection (where=)",
            )
        if self.n_components is not None and self.n_components > most:
            raise InputError(
                f"{self.n_components} components are asked of {source.n_pixels} pixels and "
                f"{source.n_channels} channels, at most {most} exist",
                hint="ask for fewer components",
            )

    def _choose_solver(self, source: BlockSource) -> str:
        n_pixels, n_channels = source.n_pixels, source.n_channels
        if self.svd_solver == "gram" or (self.svd_solver == "auto" and n_channels <= MAX_GRAM):
            return "gram"
        small = n_pixels <= MAX_GRAM and 8 * n_pixels * n_channels <= MAX_GATHER_BYTES
        if self.svd_solver == "auto" and small:
            return "pixels"
        if self.n_components is None:
            raise InputError(
                f"n_components is needed for {n_pixels} pixels and {n_channels} channels: all "
                "components would not fit",
                hint="ask for 20 or so, or take estimate_n_components",
            )
        return "randomized"

    @staticmethod
    def _shift(source: BlockSource, noise: NoiseModel) -> NDArray[np.float64] | None:
        """Mean spectrum of these pixels, where it is needed beforehand."""
        if not _mean_first(noise):
            return None
        totals = run_sweep(TotalsSweep(counts=noise.needs_counts), source).state
        return np.asarray(totals.channels / totals.n_pixels)

    def _forget(self) -> None:
        for name in [n for n in vars(self) if n.endswith("_") and not n.startswith("_")]:
            delattr(self, name)
        self._moments: Moments | None = None
        self._anchor: NDArray[np.float64] | None = None

    def _take_moments(
        self,
        moments: Moments,
        shift: NDArray[np.float64] | None,
        noise: NoiseModel,
        labels: Labels,
    ) -> None:
        """Decompose the summed Gram matrix."""
        n, n_channels = moments.n_pixels, moments.sums.size
        gram = moments.gram
        if shift is not None:
            gram = add_outer(gram.copy(), moments.sums / n - shift, -float(n))
        total = float(moments.sums.sum())
        scale = noise.channel_scale(moments.sums, total)
        gram = scaled_symmetric(gram, scale)
        # Channels that are zero everywhere have no part in it.
        used = np.flatnonzero(np.diagonal(gram) > 0)
        trivial = self._trivial(moments.sums, total, noise)
        energy = float(np.trace(gram))
        _refuse_overflow(energy)
        small = gram if used.size == n_channels else gram[np.ix_(used, used)]
        most = min(n, n_channels)
        k = most if self.n_components is None else min(int(self.n_components), most)
        found = min(k, used.size)
        if trivial is not None and self.remove_trivial:
            # Twice, so that its eigenvalue is below all others and it is none of the empty directions:
            # `inverse_transform` would add the mean spectrum once more.
            direction = trivial[used]
            small -= 2 * total * np.outer(direction, direction)
            energy -= total
            found = min(k, used.size - 1)
        every, small_vectors = leading_eigen(small, found)
        vectors = np.zeros((n_channels, k))
        vectors[used, :found] = small_vectors
        # As many as there are pixels or channels: rounding makes up others, and empty channels none.
        values = np.zeros(most)
        values[: min(every.size, most)] = np.maximum(every[:most], 0.0)
        self._moments, self._anchor = moments, shift
        self._finish(
            values, vectors, energy, scale, moments.sums, n, noise, labels, trivial, "gram"
        )
        self.converged_ = True

    def _trivial(
        self, sums: NDArray[np.float64], total: float, noise: NoiseModel
    ) -> NDArray[np.float64] | None:
        """Direction sqrt(h / N) of the mean spectrum, where the matrix is weighted and not centred."""
        if noise.centred or not noise.needs_counts or total <= 0:
            return None
        return np.sqrt(sums / total)

    def _fit_pixels(self, source: BlockSource, noise: NoiseModel, labels: Labels) -> None:
        n, n_channels = source.n_pixels, source.n_channels
        sweep = GatherSweep(noise, 8 * n * n_channels, source.plan.n_blocks)
        rows, sums = run_sweep(sweep, source).state
        total = float(sums.sum())
        scale = noise.channel_scale(sums, total)
        if noise.centred:
            rows = rows - sums / n
        rows = rows * scale
        trivial = self._trivial(sums, total, noise)
        if trivial is not None and self.remove_trivial:
            rows = rows - np.outer(rows @ trivial, trivial)
        energy = float(np.square(rows).sum())
        _refuse_overflow(energy)
        k = n if self.n_components is None else int(self.n_components)
        values, left = leading_eigen(rows @ rows.T, k)
        values = np.maximum(values, 0.0)
        back = rows.T @ left
        lengths = np.sqrt(np.square(back).sum(axis=0))
        vectors = np.divide(back, lengths, out=np.zeros_like(back), where=lengths > 0)
        if (values[:k] <= values[0] * n * np.finfo(float).eps).any():
            fixed = [trivial] if trivial is not None and self.remove_trivial else []
            vectors = _orthonormal(vectors, fixed, np.flatnonzero(np.square(rows).sum(axis=0) > 0))
        self._finish(values, vectors, energy, scale, sums, n, noise, labels, trivial, "pixels")
        self.n_iter_, self.converged_ = 1, True

    def _fit_randomized(
        self, source: BlockSource, noise: NoiseModel, labels: Labels, seed: int
    ) -> None:
        n, n_channels = source.n_pixels, source.n_channels
        k = int(self.n_components)  # type: ignore[arg-type]  # _choose_solver refuses None
        rng = np.random.default_rng((seed, 0, 0))
        width = min(k + self.n_oversamples, n, n_channels)
        drawn = rng.standard_normal((n_channels, width))
        sketch = run_sweep(SketchSweep(noise, drawn), source).state
        sums, total = sketch.sums, float(sketch.sums.sum())
        scale = noise.channel_scale(sums, total)
        trivial = self._trivial(sums, total, noise)
        # The mean spectrum is an eigenvector, of value N: it needs no passes.
        n_found = k if trivial is None or self.remove_trivial else k - 1
        n_dims = min(n, int(np.count_nonzero(sums)) if noise.needs_counts else n_channels)
        n_dims -= 0 if trivial is None else 1
        against = () if trivial is None else (trivial[:, None],)
        tamed = _taming(sketch.image)
        steady = scale * tamed
        first = new_directions(steady[:, None] * sketch.image, against, n_dims)
        if first.shape[1] == 0:  # an empty cube
            first = np.zeros((n_channels, 1))
        sweep = SubspaceSweep(
            noise,
            steady,
            sums / n if noise.centred else None,
            trivial,
            first,
            n_found,
            self.tol,
            n_dims,
            max(1, self.max_iter - 1),
        )
        outcome = run_sweep(sweep, source, seed=seed, max_rounds=sweep.max_rounds)
        found = outcome.state
        values, vectors = np.maximum(found.eigenvalues, 0.0) / tamed**2, found.vectors
        angles, energy = found.angles, found.energy / tamed**2
        _refuse_overflow(energy)
        if trivial is not None and self.remove_trivial:
            energy -= total
        elif trivial is not None:
            values, angles = np.append(total, values), np.append(0.0, angles)
            vectors = np.column_stack((trivial, vectors))
        self._finish(
            values, vectors, energy, scale, sums, n, noise, labels, trivial, "randomized", angles
        )
        self.n_iter_, self.converged_ = 1 + outcome.n_rounds, outcome.converged

    def _finish(
        self,
        values: NDArray[np.float64],
        vectors: NDArray[np.float64],
        energy: float,
        scale: NDArray[np.float64],
        sums: NDArray[np.float64],
        n: int,
        noise: NoiseModel,
        labels: Labels,
        trivial: NDArray[np.float64] | None,
        solver: str,
        angles: NDArray[np.float64] | None = None,
    ) -> None:
        """Set the public attributes from vectors (E, K) of X'X and its eigenvalues, K or all of them."""
        vectors = vectors * _signs(vectors)
        every, values = values, values[: vectors.shape[1]]
        if trivial is not None:
            self._warn_of_ties(values, float(sums.sum()))
        k, most = values.size, min(n, sums.size)
        count = max(n - 1, 1) if noise.centred else n
        self._remember(labels)
        self.noise_, self.solver_ = noise, solver
        self.n_components_, self.n_samples_seen_ = k, n
        self.trivial_first_ = trivial is not None and not self.remove_trivial
        self._scale, self._vectors, self._sums = scale, vectors, sums
        components = (vectors / scale[:, None]).T
        weighted = not noise.centred
        unit = "1 per channel" if weighted else labels.units
        self.components_ = labels.spectra(
            components,
            attrs={
                "units": unit,
                "long_name": "principal components",
                "trivial_first": int(self.trivial_first_),
            },
        )
        self.mean_ = labels.spectra(
            sums / n, dim=None, beside="component", name="mean", attrs={"units": labels.units}
        )
        note = {"trivial_first": int(self.trivial_first_)}
        squared = "1" if weighted or labels.units == "1" else f"{labels.units}^2"
        unsquared = "1" if weighted else labels.units
        self.explained_variance_ = _curve(
            labels, values / count, "explained_variance", {"units": squared, **note}
        )
        self.eigenvalues_ = _curve(labels, every / count, "eigenvalues", {"units": squared, **note})
        share = values / energy if energy > 0 else np.zeros_like(values)
        self.explained_variance_ratio_ = _curve(
            labels, share, "explained_variance_ratio", {"units": "1", **note}
        )
        self.singular_values_ = _curve(
            labels, np.sqrt(values), "singular_values", {"units": unsquared, **note}
        )
        self.angle_ = _curve(
            labels, np.zeros(k) if angles is None else angles, "angle", {"units": "deg"}
        )
        rest = most - k
        left = max(energy - float(values.sum()), 0.0)
        self.noise_variance_ = left / count / rest if rest > 0 else 0.0

    def _warn_of_ties(self, values: NDArray[np.float64], total: float) -> None:
        """Say so where counts are too rare for a weighted decomposition.

        A pixel whose counts lie in channels that no other pixel has makes a value as large as the mean
        spectrum's, N. No contrast of a specimen reaches that.
        """
        others = values if self.remove_trivial else values[1:]
        n_tied = int(np.count_nonzero(others > 0.999 * total))
        if n_tied:
            warnings.warn(
                f"{n_tied} components are as strong as the mean spectrum: they are single counts in "
                "channels that hold hardly any; bin pixels and channels (cube.em.bin) or leave rare "
                "channels out (where=)",
                UserWarning,
                stacklevel=3,
            )

    # -- using it -----------------------------------------------------------------------------------

    def pixel_function(self) -> Callable[[Block], dict[str, NDArray[Any]]]:
        """Picklable ``function(block) -> {"loadings": scores (p, K)}``."""
        self._require_fitted()
        # sqrt(g) of the scores and 1 / sqrt(g) of the weighted pixel cancel: scores are linear in D.
        matrix = self._scale[:, None] * self._vectors
        offset = None
        if self.noise_.centred:
            offset = (self._sums / self.n_samples_seen_) @ matrix
        return Project(matrix, offset)

    def transform(self, X: Any, *, where: Any = None) -> Any:
        """Compute the scores of each pixel, lazily where the cube is lazy.

        Parameters
        ----------
        X : DataArray with the signal of the fit, or matrix of shape (P, E)
        where : DataArray of bool, optional
            Pixels to compute; others are NaN.

        Returns
        -------
        DataArray (nav dims, component), or ndarray (P, K)
            In the cube's units. Where the trivial part is removed the pixels' totals come along as the
            coordinate ``pixel_total``, which `inverse_transform` needs.
        """
        self._require_fitted()
        scores = self._map(
            X, "loadings", (self.n_components_,), where=where, attrs={"long_name": "scores"}
        )
        if self._trivial_removed() and isinstance(scores, xr.DataArray):
            totals = map_pixels(X, _row_totals, (), labels=self.axes_, where=where)
            dims = scores.dims[:-1]
            scores = scores.assign_coords(
                pixel_total=(dims, totals, {"units": self.axes_.units, "long_name": "pixel total"})
            )
        return scores

    def fit_transform(self, X: Any, y: None = None, *, where: Any = None) -> Any:
        """Fit, then compute the scores (see `transform`).

        Of a lazy cube they are computed at once where its blocks stayed in memory during the fit, up to
        256 MiB of them; lazy otherwise.
        """
        with at_once_where_resident():
            return self.fit(X, where=where).transform(X, where=pixels_only(X, where))

    def inverse_transform(self, scores: Any, *, totals: Any = None, shrinkage: bool = False) -> Any:
        """Rebuild the cube from scores: what is left out is noise.

        Parameters
        ----------
        scores : DataArray (nav dims, component), or ndarray (P, K)
            As `transform` gives them.
        totals : array over the pixels, optional
            Pixel totals, needed where the trivial part was removed and `scores` has no coordinate
            ``pixel_total``.
        shrinkage : bool
            Shorten each component by as much as noise made it longer (`emcube.kernels.shrinkage`): the
            rebuilt cube
            is nearer to the truth on average where some components hardly stand out of the noise. What is
            below the edge of the noise is left out.

        Returns
        -------
        DataArray (nav dims, signal dims), or ndarray (P, E)
            Lazy where the scores are; NaN at channels that were not used. Values may be negative.

        Raises
        ------
        InputError
            The scores have another number of components, or totals are missing.
        """
        self._require_fitted()
        labelled = isinstance(scores, xr.DataArray)
        if labelled:
            scores = in_order(scores, self.n_components_, "scores")
        values = scores.data if labelled else scores
        values = values if hasattr(values, "dask") else np.asarray(values)
        if values.ndim < 1 or values.shape[-1] != self.n_components_:
            raise InputError(
                f"scores of {self.n_components_} components are expected, got shape {values.shape}"
            )
        axes = self.axes_
        components = axes.full_channels((self._vectors / self._scale[:, None]).T)
        if shrinkage:
            # What each component is multiplied with is the same for all pixels.
            components = components * self._shrink_factors()[:, None]
        rebuilt = times(values, components)
        if self.noise_.centred:
            rebuilt = rebuilt + axes.full_channels(self._sums / self.n_samples_seen_)
        elif self._trivial_removed():
            rebuilt = rebuilt + self._trivial_part(scores, totals, labelled)
        if not labelled or axes.plain:
            return rebuilt
        return self._label_rebuilt(scores, rebuilt)

    def _shrink_factors(self) -> NDArray[np.float64]:
        from emcube.kernels.shrinkage import shrink_factors

        shape = (int(self.n_samples_seen_), len(self._vectors))
        return shrink_factors(np.asarray(self.singular_values_), float(self.noise_variance_), shape)

    def score(self, X: Any, y: None = None, *, where: Any = None) -> float:
        """Mean log-likelihood of a pixel under probabilistic PCA, in the weighted space.

        As scikit-learn's ``PCA.score``, to which it is equal without weights. Where components are left
        out their mean variance is that of the noise; it must not be zero, as with fewer pixels than channels
        and all components kept.

        Raises
        ------
        InputError
            The signal is not that of the fit, or the model leaves no noise in some direction.

        References
        ----------
        M. E. Tipping, C. M. Bishop, J. R. Stat. Soc. B 61 (1999) 611.
        https://doi.org/10.1111/1467-9868.00196
        """
        self._check_signal(X)
        source, _ = as_source(X, where, channels=self.axes_.channels)
        centred = self.noise_.centred
        sweep = LikelihoodSweep(
            self.noise_,
            self._scale,
            self._sums / self.n_samples_seen_ if centred else None,
            self._vectors,
            float(self._sums.sum()) if self._trivial_removed() else None,
        )
        inside, energy, n = run_sweep(sweep, source).state
        n_dims = self._sums.size - (1 if self._trivial_removed() else 0)
        values = np.asarray(self.explained_variance_)
        n_outside = n_dims - values.size
        if (n_outside > 0 and self.noise_variance_ <= 0) or not (values > 0).all():
            raise InputError(
                f"the score needs noise to be left: the {self.n_components_} components explain "
                f"everything, and {n_dims} directions have a variance",
                hint="fit with fewer components",
            )
        log_det = float(np.log(values).sum())
        fit = float((inside / n / values).sum())
        if n_outside > 0:
            log_det += n_outside * math.log(self.noise_variance_)
            fit += max(energy - float(inside.sum()), 0.0) / n / self.noise_variance_
        return float(-0.5 * (n_dims * math.log(2 * math.pi) + log_det + fit))

    def plot_scree(self, **options: Any) -> Figure:
        """Draw the explained variance by component, with the noise floor (see `emcube.plot.scree`).

        Components that were not kept are grey.
        """
        from emcube.plot import scree

        self._require_fitted()
        curve = self.eigenvalues_
        if not isinstance(curve, xr.DataArray):
            curve = xr.DataArray(curve, dims="component")
        shown: dict[str, Any] = {
            "trivial_first": self.trivial_first_,
            "noise_floor": self.noise_variance_,
        }
        if curve.size > self.n_components_:
            shown["n_components"] = self.n_components_
        return scree(curve.rename("explained_variance"), **shown | options)

    def _model_of(self, X: Any, where: Any) -> tuple[xr.DataArray, xr.DataArray]:
        scores, components = super()._model_of(X, where)
        if self.noise_.centred:
            pixels = xr.ones_like(scores.isel(component=0, drop=True))
            return with_column(scores, pixels), with_column(components, self.mean_)
        if self._trivial_removed():
            share = self.mean_ / self.mean_.sum()
            return with_column(scores, scores["pixel_total"]), with_column(components, share)
        return scores, components

    def _trivial_removed(self) -> bool:
        return not self.noise_.centred and self.noise_.needs_counts and not self.trivial_first_

    def _trivial_part(self, scores: Any, totals: Any, labelled: bool) -> Any:
        if totals is None and labelled and "pixel_total" in scores.coords:
            totals = scores.coords["pixel_total"]
        if totals is None:
            raise InputError(
                "the mean spectrum was removed from these scores, so the pixels' totals are needed",
                hint="pass totals=, or scores with the coordinate pixel_total as transform gives them",
            )
        values = totals.data if isinstance(totals, xr.DataArray) else totals
        values = values if hasattr(values, "dask") else np.asarray(values, dtype=np.float64)
        profile = self.axes_.full_channels(self._sums / self._sums.sum())
        return values[..., None] * profile

    def _label_rebuilt(self, scores: xr.DataArray, rebuilt: Any) -> xr.DataArray:
        axes = self.axes_
        nav = scores.dims[:-1]
        coords: dict[Any, Any] = {
            name: c
            for name, c in scores.coords.items()
            if "component" not in c.dims and name != "pixel_total"
        }
        coords.update(axes.sig_coords)
        kept = {k: v for k, v in axes.attrs.items() if k in ("units", "metadata")}
        return xr.DataArray(
            rebuilt.reshape(rebuilt.shape[:-1] + axes.sig_shape),
            dims=nav + axes.sig_dims,
            coords=coords,
            name="data",
            attrs={"units": axes.units, **kept, "sig_dims": list(axes.sig_dims)},
        )


def _mean_first(noise: NoiseModel) -> bool:
    """Whether the mean must be known before pixels are summed: where it is not that of the weighted ones."""
    return noise.centred and weighs(noise)


def _curve(labels: Labels, values: NDArray[np.float64], name: str, attrs: dict[str, Any]) -> Any:
    """One value per component, labelled where the input was."""
    if labels.plain:
        return values
    return xr.DataArray(
        values,
        dims=("component",),
        coords={"component": np.arange(values.size)},
        name=name,
        attrs=attrs,
    )


def _taming(image: NDArray[np.float64]) -> float:
    """Factor of the data, a power of two, that keeps fourth powers of extreme values within float64."""
    largest = float(np.abs(image).max(initial=0.0))
    _refuse_overflow(largest)
    if largest == 0.0 or 1e-60 < largest < 1e60:
        return 1.0
    # The image goes with the square of the data.
    return float(2.0 ** -round(math.log2(largest) / 2))


def _refuse_overflow(square: float) -> None:
    """Refuse values whose squares are beyond float64.

    Raises
    ------
    InputError
        A sum of squares is not finite.
    """
    if not math.isfinite(square):
        raise InputError(
            f"values are too large: a sum of their squares is {square}, it must be below 1.8e308",
            hint="divide the cube by a constant first",
        )


def _row_totals(block: Block) -> NDArray[np.float64]:
    return pixel_totals(block.data).astype(np.float64)


def _signs(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sign that makes the largest entry of each column positive, as scikit-learn's PCA does."""
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return np.where(largest < 0, -1.0, 1.0)


def _orthonormal(
    vectors: NDArray[np.float64], fixed: list[NDArray[np.float64]], used: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Vectors (E, K) in descending order, those that rounding made up turned at right angles.

    They lie in the `used` channels and at right angles to the `fixed` ones too.
    """
    columns = np.column_stack((*fixed, vectors))[used]
    basis, _ = qr(columns, mode="economic")
    out = np.zeros_like(vectors)
    found = basis[:, len(fixed) :]
    out[used, : found.shape[1]] = found
    return out
