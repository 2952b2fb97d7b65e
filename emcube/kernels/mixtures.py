"""Mixtures over some pixels: densities, posterior probabilities, and the sums that EM needs.

Letters: P pixels, E channels, F features, K clusters, r_pk the probability that pixel p belongs to
cluster k. A pixel of weight w has the density N(x; m_k, V_k / w): a mean of w events scatters so much less
than one (Gebru, Alameda-Pineda, Forbes, Horaud, IEEE Trans. Pattern Anal. Mach. Intell. 38 (2016) 2402,
doi:10.1109/TPAMI.2016.2522425). Pixels of weight zero belong to no sum. All sums are float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from emcube.errors import InputError
from emcube.kernels._numba import jit
from emcube.kernels.kmeans import Cells, assign
from emcube.kernels.rows import CountRows

__all__ = [
    "KINDS",
    "Categories",
    "CategorySums",
    "GaussianSums",
    "Gaussians",
    "category_posterior",
    "category_sums",
    "gaussian_posterior",
    "gaussian_sums",
    "hard_category_sums",
    "hard_gaussian_sums",
    "maximised",
    "spectrum_sums",
]

KINDS = ("full", "diag", "tied")
"""Covariances: one for each cluster, one variance for each cluster and feature, one for all clusters."""

TILE_CELLS = 1 << 18
"""Pixels are turned into float64 this many cells at a time, which stay in the cache."""

SPENT = 1e-10
"""A cluster that holds a smaller share of a pixel keeps the mean and the covariance that it had."""


# ---------------------------------------------------------------------------------------- Gaussians


@dataclass(frozen=True, eq=False)
class Gaussians:
    """K Gaussian clusters.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    shares : ndarray, shape (K,)
        Share of the pixels in each; they sum to one.
    means : ndarray, shape (K, F)
    covariances : ndarray
        Of shape (K, F, F), for "diag" (K, F), for "tied" (1, F, F).
    factors : ndarray, of the same shape
        Inverses of the lower Cholesky factors; for "diag" one over the standard deviations.
    """

    kind: str
    shares: NDArray[np.float64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]
    factors: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        kind: str,
        shares: NDArray[np.float64],
        means: NDArray[np.float64],
        covariances: NDArray[np.float64],
    ) -> Gaussians:
        """Factorise the covariances.

        Raises
        ------
        InputError
            One is not positive definite.
        """
        return cls(kind, shares, means, covariances, _factors(kind, covariances))

    @property
    def constants(self) -> NDArray[np.float64]:
        """Logarithm of share and height of each cluster's density at a weight of one, shape (K,)."""
        if self.kind == "diag":
            heights = np.log(self.factors).sum(axis=1)
        else:
            heights = np.log(np.diagonal(self.factors, axis1=1, axis2=2)).sum(axis=1)
        with np.errstate(divide="ignore"):  # a cluster that nobody belongs to any more
            shares = np.log(self.shares)
        return np.asarray(shares + heights - 0.5 * self.means.shape[1] * np.log(2.0 * np.pi))

    def taken(self, order: NDArray[np.int64]) -> Gaussians:
        """The clusters in another order."""
        shared = self.kind == "tied"
        return Gaussians(
            self.kind,
            self.shares[order],
            self.means[order],
            self.covariances if shared else self.covariances[order],
            self.factors if shared else self.factors[order],
        )

    @property
    def n_parameters(self) -> int:
        """Free numbers: means, covariances, shares."""
        k, f = self.means.shape
        each = {"full": k * f * (f + 1) // 2, "diag": k * f, "tied": f * (f + 1) // 2}
        return int(each[self.kind] + k * f + k - 1)


def _factors(kind: str, covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    if kind == "diag":
        if not (covariances > 0).all():
            k, f = (int(i) for i in np.argwhere(~(covariances > 0))[0])
            raise _degenerate(f"the variance of cluster {k} along feature {f} is zero")
        return np.asarray(1.0 / np.sqrt(covariances))
    factors = np.zeros_like(covariances)
    for k, covariance in enumerate(covariances):
        try:
            lower = cholesky(covariance, lower=True)
        except LinAlgError:
            of = "of all clusters" if kind == "tied" else f"of cluster {k}"
            raise _degenerate(f"the covariance {of} is not positive definite") from None
        factors[k] = solve_triangular(lower, np.eye(len(lower)), lower=True)
    return factors


def _degenerate(what: str) -> InputError:
    return InputError(
        f"Gaussian mixture: {what}",
        hint="raise reg_covar, ask for fewer clusters, or take fewer features (n_subspace)",
    )


@dataclass(frozen=True, eq=False)
class GaussianSums:
    """What EM sums over pixels; sums about the same means add.

    Attributes
    ----------
    counts : ndarray, shape (K,)
        sum_p r_pk.
    weights : ndarray, shape (K,)
        sum_p r_pk w_p.
    first : ndarray, shape (K, F)
        sum_p r_pk w_p (x_p - m_k).
    second : ndarray
        sum_p r_pk w_p (x_p - m_k)(x_p - m_k)', lower triangle; shaped as covariances are, "tied" summed
        over clusters.
    log_likelihood : float
        Of the clusters that gave the r_pk.
    n_pixels : float
        Pixels of a weight above zero.
    """

    counts: NDArray[np.float64]
    weights: NDArray[np.float64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    log_likelihood: float
    n_pixels: float

    @classmethod
    def zeros(cls, kind: str, n_clusters: int, n_features: int) -> GaussianSums:
        """Nothing summed yet."""
        k, f = n_clusters, n_features
        second = {"full": (k, f, f), "diag": (k, f), "tied": (1, f, f)}[kind]
        return cls(np.zeros(k), np.zeros(k), np.zeros((k, f)), np.zeros(second), 0.0, 0.0)

    def __add__(self, other: GaussianSums) -> GaussianSums:
        return GaussianSums(
            self.counts + other.counts,
            self.weights + other.weights,
            self.first + other.first,
            self.second + other.second,
            self.log_likelihood + other.log_likelihood,
            self.n_pixels + other.n_pixels,
        )

    def taken(self, order: NDArray[np.int64]) -> GaussianSums:
        """The clusters in another order."""
        shared = self.second.ndim == 3 and len(self.second) < len(self.counts)
        return GaussianSums(
            self.counts[order],
            self.weights[order],
            self.first[order],
            self.second if shared else self.second[order],
            self.log_likelihood,
            self.n_pixels,
        )

    def about(self, move: NDArray[np.float64]) -> GaussianSums:
        """The same sums about means that have moved, by `move` (K, F)."""
        first = self.first - self.weights[:, None] * move
        if self.second.ndim == 2:
            second = self.second - 2.0 * self.first * move + self.weights[:, None] * move**2
        else:
            cross = np.einsum("ki,kj->kij", self.first, move)
            change = np.einsum("k,ki,kj->kij", self.weights, move, move)
            change -= cross + cross.transpose(0, 2, 1)
            change = change if len(self.second) == len(move) else change.sum(axis=0, keepdims=True)
            second = self.second + np.tril(change)
        return GaussianSums(
            self.counts, self.weights, first, second, self.log_likelihood, self.n_pixels
        )


def gaussian_posterior(
    values: NDArray[np.float64], weights: NDArray[np.float64], model: Gaussians
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities of the clusters (P, K), and the log-likelihood (P,), of P pixels (P, F).

    Both are zero for a pixel of weight zero.
    """
    logs = np.empty((len(values), len(model.means)))
    if model.kind == "diag":
        _diag_logs(values, weights, model.means, model.factors, model.constants, logs)
    else:
        _full_logs(values, weights, model.means, model.factors, model.constants, logs)
    evidence = np.empty(len(values))
    _normalise(logs, weights, 0.5 * model.means.shape[1], evidence)
    return logs, evidence


def gaussian_sums(cells: Cells, weights: NDArray[np.float64], model: Gaussians) -> GaussianSums:
    """Sums of EM over P pixels (P, F), about the means of the model."""
    out = GaussianSums.zeros(model.kind, *model.means.shape)
    evidence = 0.0
    for start, values in tiles(cells):
        part = weights[start : start + len(values)]
        posterior, logs = gaussian_posterior(values, part, model)
        _add(values, part, posterior, model.means, out)
        evidence += float(logs.sum())
    n_pixels = float(np.count_nonzero(weights > 0))
    return GaussianSums(out.counts, out.weights, out.first, out.second, evidence, n_pixels)


def hard_gaussian_sums(
    cells: Cells, weights: NDArray[np.float64], centers: NDArray[np.float64], kind: str
) -> GaussianSums:
    """The same where each pixel belongs to the nearest of K centers (K, F), about these."""
    out = GaussianSums.zeros(kind, *centers.shape)
    for start, values in tiles(cells):
        part = weights[start : start + len(values)]
        posterior = np.zeros((len(values), len(centers)))
        posterior[np.arange(len(values)), assign(values, centers).labels] = 1.0
        posterior[part <= 0] = 0.0
        _add(values, part, posterior, centers, out)
    return GaussianSums(
        out.counts,
        out.weights,
        out.first,
        out.second,
        -np.inf,
        float(np.count_nonzero(weights > 0)),
    )


def maximised(
    sums: GaussianSums,
    means: NDArray[np.float64],
    kind: str,
    ridge: float,
    before: Gaussians | None,
) -> Gaussians:
    """Clusters of the largest expected likelihood.

    Parameters
    ----------
    sums : GaussianSums
        About `means`, shape (K, F).
    kind : str
    ridge : float
        Added to all variances.
    before : Gaussians or None
        What a cluster keeps that nobody belongs to any more; None: its place, and the variance of all.
    """
    left = sums.counts > SPENT
    weights = np.where(sums.weights > 0, sums.weights, 1.0)
    counts = np.where(left, sums.counts, 1.0)
    shift = np.where(left[:, None], sums.first, 0.0) / weights[:, None]
    shares = np.where(left, sums.counts, 0.0)
    shares = shares / shares.sum()
    about = sums.about(shift)
    if kind == "diag":
        covariances = np.maximum(about.second, 0.0) / counts[:, None] + ridge
    else:
        whole = _symmetric(about.second)
        over = np.array([sums.counts.sum()]) if kind == "tied" else counts
        covariances = whole / over[:, None, None] + ridge * np.eye(means.shape[1])
    if kind != "tied" and not left.all():
        pooled = about.second.sum(axis=0) / sums.counts.sum()
        spare = pooled + ridge if kind == "diag" else _symmetric(pooled[None])[0]
        if kind == "full":
            spare = spare + ridge * np.eye(means.shape[1])
        for k in np.flatnonzero(~left):
            covariances[k] = spare if before is None else before.covariances[k]
    return Gaussians.of(kind, shares, means + shift, covariances)


def _symmetric(lower: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(lower + np.tril(lower, -1).transpose(0, 2, 1))


# ------------------------------------------------------------------------------------ Poisson counts


@dataclass(frozen=True, eq=False)
class Categories:
    """K spectra of counts.

    Attributes
    ----------
    shares : ndarray, shape (K,)
    logs : ndarray, shape (K, E)
        Logarithms of the spectra, each of which sums to one.
    """

    shares: NDArray[np.float64]
    logs: NDArray[np.float64]

    def taken(self, order: NDArray[np.int64]) -> Categories:
        """The clusters in another order."""
        return Categories(self.shares[order], self.logs[order])


@dataclass(frozen=True, eq=False)
class CategorySums:
    """What EM sums over pixels of counts.

    Attributes
    ----------
    counts : ndarray, shape (K,)
        sum_p r_pk.
    spectra : ndarray, shape (K, E)
        sum_p r_pk x_p.
    log_likelihood, n_pixels : float
        As of `GaussianSums`; pixels without counts are not among them.
    """

    counts: NDArray[np.float64]
    spectra: NDArray[np.float64]
    log_likelihood: float
    n_pixels: float

    def taken(self, order: NDArray[np.int64]) -> CategorySums:
        """The clusters in another order."""
        return CategorySums(
            self.counts[order], self.spectra[order], self.log_likelihood, self.n_pixels
        )

    def __add__(self, other: CategorySums) -> CategorySums:
        return CategorySums(
            self.counts + other.counts,
            self.spectra + other.spectra,
            self.log_likelihood + other.log_likelihood,
            self.n_pixels + other.n_pixels,
        )


def category_posterior(
    cells: Cells, model: Categories
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities of the clusters (P, K), and the log-likelihood (P,), of P pixels of counts (P, E).

    The likelihood is that of a pixel's counts given their sum, without the multinomial coefficient, which is
    the same for all clusters. Both are zero for a pixel without counts.
    """
    matrix = np.ascontiguousarray(model.logs.T)
    if isinstance(cells, CountRows):
        logs = cells.matmul(matrix)
        totals = cells.pixel_totals().astype(np.float64)
    else:
        parts = [(values @ matrix, values.sum(axis=1)) for _, values in tiles(cells)]
        logs = np.concatenate([p[0] for p in parts] or [np.zeros((0, matrix.shape[1]))])
        totals = np.concatenate([p[1] for p in parts] or [np.zeros(0)])
    with np.errstate(divide="ignore"):
        logs += np.log(model.shares)
    evidence = np.empty(len(logs))
    _normalise(logs, totals, 0.0, evidence)
    return logs, evidence


def category_sums(cells: Cells, model: Categories) -> CategorySums:
    """Sums of EM over P pixels of counts."""
    posterior, evidence = category_posterior(cells, model)
    return CategorySums(
        posterior.sum(axis=0),
        spectrum_sums(cells, posterior),
        float(evidence.sum()),
        float(np.count_nonzero(posterior.any(axis=1))),
    )


def hard_category_sums(cells: Cells, labels: NDArray[np.int32], n_clusters: int) -> CategorySums:
    """The same where each pixel belongs to one cluster; to none where its label is -1."""
    posterior = np.zeros((labels.size, n_clusters))
    used = np.flatnonzero(labels >= 0)
    posterior[used, labels[used]] = 1.0
    spectra = spectrum_sums(cells, posterior)
    return CategorySums(posterior.sum(axis=0), spectra, -np.inf, float(used.size))


def spectrum_sums(cells: Cells, posterior: NDArray[np.float64]) -> NDArray[np.float64]:
    """sum_p r_pk x_p, shape (K, E), of P pixels (P, E) with probabilities (P, K)."""
    if isinstance(cells, CountRows):
        return cells.rmatmul(posterior)
    out = np.zeros((posterior.shape[1], cells.shape[1]))
    for start, values in tiles(cells):
        out += posterior[start : start + len(values)].T @ values
    return out


def tiles(cells: Cells) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(start, contiguous float64 pixels) of a block, a few at a time."""
    n_pixels, n_features = cells.shape
    step = max(1, TILE_CELLS // max(1, n_features))
    for start in range(0, n_pixels, step):
        stop = min(start + step, n_pixels)
        if isinstance(cells, CountRows):
            values = np.empty((stop - start, n_features))
            cells.fill(start, stop, values)
        else:
            values = np.ascontiguousarray(cells[start:stop], dtype=np.float64)
        yield start, values


# -------------------------------------------------------------------------------------------- loops


def _add(
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    posterior: NDArray[np.float64],
    means: NDArray[np.float64],
    out: GaussianSums,
) -> None:
    add: Any = _add_diag if out.second.ndim == 2 else _add_full
    add(values, weights, posterior, means, out.counts, out.weights, out.first, out.second)


@jit
def _full_logs(values, weights, means, factors, constants, out):
    n_pixels, n_features = values.shape
    n_clusters = means.shape[0]
    apart = np.empty(n_features)
    for p in range(n_pixels):
        w = weights[p]
        for k in range(n_clusters):
            g = k if factors.shape[0] > 1 else 0
            for i in range(n_features):
                apart[i] = values[p, i] - means[k, i]
            square = 0.0
            for i in range(n_features):
                y = 0.0
                for j in range(i + 1):
                    y += factors[g, i, j] * apart[j]
                square += y * y
            out[p, k] = constants[k] - 0.5 * w * square


@jit
def _diag_logs(values, weights, means, factors, constants, out):
    n_pixels, n_features = values.shape
    for p in range(n_pixels):
        w = weights[p]
        for k in range(means.shape[0]):
            square = 0.0
            for i in range(n_features):
                y = factors[k, i] * (values[p, i] - means[k, i])
                square += y * y
            out[p, k] = constants[k] - 0.5 * w * square


@jit
def _normalise(logs, weights, half, evidence):
    """Turn logarithms (P, K) into probabilities, in place; their sums' logarithms plus half log w go
    aside.
    """
    n_pixels, n_clusters = logs.shape
    for p in range(n_pixels):
        w = weights[p]
        if not w > 0.0:
            evidence[p] = 0.0
            for k in range(n_clusters):
                logs[p, k] = 0.0
            continue
        largest = logs[p, 0]
        for k in range(1, n_clusters):
            largest = max(largest, logs[p, k])
        total = 0.0
        for k in range(n_clusters):
            value = np.exp(logs[p, k] - largest)
            logs[p, k] = value
            total += value
        for k in range(n_clusters):
            logs[p, k] /= total
        evidence[p] = largest + np.log(total)
        if half > 0.0:
            evidence[p] += half * np.log(w)


@jit
def _add_full(values, weights, posterior, means, counts, won, first, second):
    n_pixels, n_features = values.shape
    apart = np.empty(n_features)
    for p in range(n_pixels):
        w = weights[p]
        for k in range(means.shape[0]):
            r = posterior[p, k]
            if r == 0.0:
                continue
            g = k if second.shape[0] > 1 else 0
            counts[k] += r
            won[k] += r * w
            for i in range(n_features):
                apart[i] = values[p, i] - means[k, i]
            for i in range(n_features):
                part = r * w * apart[i]
                first[k, i] += part
                for j in range(i + 1):
                    second[g, i, j] += part * apart[j]


@jit
def _add_diag(values, weights, posterior, means, counts, won, first, second):
    n_pixels, n_features = values.shape
    for p in range(n_pixels):
        w = weights[p]
        for k in range(means.shape[0]):
            r = posterior[p, k]
            if r == 0.0:
                continue
            counts[k] += r
            won[k] += r * w
            for i in range(n_features):
                apart = values[p, i] - means[k, i]
                part = r * w * apart
                first[k, i] += part
                second[k, i] += part * apart
