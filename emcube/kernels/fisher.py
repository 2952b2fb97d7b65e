"""How far counting noise moves loadings and components: Fisher information and score intervals.

With components S and loadings h the expected counts of a pixel are mu_e = sum_k h_k s_ke, and what one pixel
says about its loadings is

    H_kl = sum_e s_ke s_le / mu_e        (Fisher information, components known),

what all pixels say about channel e of the components is

    J_kl = sum_p h_pk h_pl / mu_pe       (loadings known).

Both hold expected information: the observed one, with the counts themselves, is as noisy as the counts.
Half a
count is added to each component where 1 / mu is taken, so that a pixel (or channel) without counts is not
known for certain.

Letters: P pixels, E channels, K components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.poisson_nmf import FLOOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "HALF",
    "component_information",
    "component_shares",
    "flat_intervals",
    "poisson_intervals",
    "shared_variance",
]

HALF = 0.5
"""Counts that are added to each component before 1 / mu is taken."""

CLAIM = 2.0
"""How often the components' error is counted where a lower end would say that a component is there.

Errors of components in such pixels have a sign: corners are chosen, and lie too far out or too far in for all
pixels of a phase together. What replicates do is then of the same size as the bias itself, and may hide it.
"""

_SLAB = 1 << 18
"""Cells of a slab of pixels in float64: three such arrays stay in the cache of most processors."""


def _slabs(n_pixels: int, n_channels: int) -> Iterator[slice]:
    step = max(1, _SLAB // max(1, n_channels))
    for first in range(0, n_pixels, step):
        yield slice(first, min(first + step, n_pixels))


def component_information(
    loadings: NDArray[np.float64], components: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum J_kl = sum_p h_pk h_pl / mu_pe over some pixels.

    Parameters
    ----------
    loadings : ndarray, shape (P, K)
        In counts.
    components : ndarray, shape (K, E)
        Positive where anything may be expected (see `HALF`).

    Returns
    -------
    ndarray, shape (K (K + 1) / 2, E)
        The lower triangle of J for each channel: (0, 0), (1, 0), (1, 1), (2, 0) ...
    """
    k, n_channels = components.shape
    rows, columns = np.tril_indices(k)
    out = np.zeros((rows.size, n_channels))
    model = np.maximum(components, FLOOR)
    held = loadings[loadings.sum(axis=1) > 0.0]
    for part in _slabs(len(held), n_channels):
        h = held[part]
        out += (h[:, rows] * h[:, columns]).T @ (1.0 / (h @ model))
    return out


def unpacked(triangle: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Symmetric matrices (E, K, K) from lower triangles (K (K + 1) / 2, E)."""
    rows, columns = np.tril_indices(k)
    out = np.empty((triangle.shape[1], k, k))
    out[:, rows, columns] = triangle.T
    out[:, columns, rows] = triangle.T
    return out


def component_shares(
    information: NDArray[np.float64], components: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Covariance of the components in each channel, and the variance of each once they sum to one.

    Parameters
    ----------
    information : ndarray, shape (E, K, K)
        J, loadings known.
    components : ndarray, shape (K, E)
        Each sums to one.

    Returns
    -------
    covariance : ndarray, shape (E, K, K)
        Of the values of all components in a channel; channels are independent.
    variance : ndarray, shape (K, E)
        Of s_ke / sum_e s_ke, to first order: (1 - 2 s_e) v_e + s_e^2 sum v.
    """
    k = len(components)
    trace = np.einsum("ekk->e", information) / k
    ridge = 1e-10 * np.maximum(trace, np.finfo(float).tiny)
    covariance = np.linalg.inv(information + ridge[:, None, None] * np.eye(k))
    own = np.einsum("ekk->ke", covariance)
    whole = own.sum(axis=1, keepdims=True)
    variance = own * (1.0 - 2.0 * components) + np.square(components) * whole
    return covariance, np.maximum(variance, 0.0)


def shared_variance(
    covariance: NDArray[np.float64],
    components: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How an error of the components moves loadings: Var(h_k) = h' Q_k h, the same Q for all pixels.

    An error dS turns the loadings of every pixel by one and the same matrix, dh = -(S W S')^-1 S W dS' h,
    with
    the weights W of the mean pixel; the covariance of dS in each channel gives that of the matrix. Pixels
    are therefore wrong together: averaging over pixels does not make this part smaller.

    Parameters
    ----------
    covariance : ndarray, shape (E, K, K)
    components : ndarray, shape (K, E)
    weights : ndarray, shape (E,)
        One over the mean spectrum (least squares: ones).

    Returns
    -------
    ndarray, shape (K, K, K)
        Q_k for each k.
    """
    weighted = components * weights
    gram = weighted @ components.T
    gram[np.diag_indices_from(gram)] *= 1.0 + 1e-10
    solver = np.linalg.solve(gram, weighted)
    return np.einsum("ke,elm->klm", np.square(solver), covariance)


def poisson_intervals(
    loadings: NDArray[np.float64],
    components: NDArray[np.float64],
    z: float,
    shared: NDArray[np.float64],
    moved: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Standard deviations and intervals of Poisson loadings, components known.

    A loading at zero is left out where another one is asked about; where it is asked about itself it is let
    free. The interval is that of the score: all t with (h - t)^2 <= z^2 V(t), where the variance V(t) =
    V(h) + q (t - h) grows with the loading itself. For a single component that is Wilson's interval,
    h + z^2 / 2 -+ z sqrt(h + z^2 / 4), which holds its level down to a few counts, and whose upper end is z^2
    for a pixel without any.

    Parameters
    ----------
    loadings : ndarray, shape (P, K)
        Of maximum likelihood, in counts.
    components : ndarray, shape (K, E)
        Each sums to one.
    z : float
        Standard deviations of the interval's half width.
    shared : ndarray, shape (P, K)
        Variance from elsewhere that is added for the interval.
    moved : ndarray, shape (P, K), optional
        By how much both ends lie farther out, not negative.

    Returns
    -------
    ndarray, shape (P, K, 3)
        Standard deviation of counting (of the Fisher information, half a count added to each component),
        lower and upper end; the lower one is zero at least.

    Notes
    -----
    A lower end above zero claims that the component is there. It is made only where it would stand with twice
    the variance from elsewhere and twice the move (`CLAIM`); otherwise the lower end is zero.

    References
    ----------
    E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209. https://doi.org/10.1080/01621459.1927.10502953
    C. R. Rao, Math. Proc. Camb. Philos. Soc. 44 (1948) 50. https://doi.org/10.1017/S0305004100023987
    """
    k, n_channels = components.shape
    model = np.maximum(np.nan_to_num(components), FLOOR)
    pairs, pair_of = _products(model, 2)
    triples, triple_of = _products(model, 3)
    out = np.empty((len(loadings), k, 3))
    for part in _slabs(len(loadings), n_channels):
        h = np.ascontiguousarray(loadings[part])
        inverse = 1.0 / ((h + HALF) @ model)
        second = inverse @ pairs
        np.square(inverse, out=inverse)
        third = inverse @ triples
        _fill(h, second, third, pair_of, triple_of, z, *_parts(shared, moved, part), out[part])
    return out


def _parts(
    shared: NDArray[np.float64], moved: NDArray[np.float64] | None, part: slice
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mine = np.ascontiguousarray(shared[part])
    return mine, np.zeros_like(mine) if moved is None else np.ascontiguousarray(moved[part])


def flat_intervals(
    loadings: NDArray[np.float64],
    components: NDArray[np.float64],
    z: float,
    shared: NDArray[np.float64],
    noise: float,
    moved: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Standard deviations and intervals of least-squares loadings; as `poisson_intervals`.

    Parameters
    ----------
    loadings, components, z, shared, moved
        As there.
    noise : float
        Variance of a value, the same everywhere.
    """
    k = len(components)
    model = np.nan_to_num(components)
    rows, columns = np.tril_indices(k)
    gram = (model @ model.T)[rows, columns] / noise
    out = np.empty((len(loadings), k, 3))
    _, pair_of = _products(model[:, :1], 2)
    nothing = np.zeros((1, 0))
    for part in _slabs(len(loadings), k * k):
        h = np.ascontiguousarray(loadings[part])
        second = np.ascontiguousarray(np.broadcast_to(gram, (len(h), gram.size)))
        _fill(
            h,
            second,
            nothing,
            pair_of,
            np.zeros((k, k, k), dtype=np.int64),
            z,
            *_parts(shared, moved, part),
            out[part],
        )
    return out


def _products(
    components: NDArray[np.float64], order: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Products of `order` components (E, M), each set once, and where each set of numbers stands."""
    k = len(components)
    grid = np.indices((k,) * order).reshape(order, -1)
    sets, index = np.unique(np.sort(grid, axis=0)[::-1], axis=1, return_inverse=True)
    made = np.prod(components[sets], axis=0)
    return np.ascontiguousarray(made.T), index.reshape((k,) * order).astype(np.int64)


@jit(error_model="numpy")
def _fill(loadings, second, third, pair_of, triple_of, z, shared, moved, out):
    """Standard deviation and interval of each loading of each pixel."""
    n_pixels, k = loadings.shape
    flat = third.shape[1] == 0
    active = np.empty(k, dtype=np.int64)
    lower = np.empty((k, k))
    x = np.empty(k)
    for p in range(n_pixels):
        for asked in range(k):
            n = 0
            at = 0
            for j in range(k):
                if j == asked:
                    at = n
                if j == asked or loadings[p, j] > 0.0:
                    active[n] = j
                    n += 1
            # Cholesky factor of the information, then the column of its inverse that is asked about.
            for a in range(n):
                for b in range(a + 1):
                    value = second[p, pair_of[active[a], active[b]]]
                    if a == b:
                        value *= 1.0 + 1e-10
                    for c in range(b):
                        value -= lower[a, c] * lower[b, c]
                    if a == b:
                        lower[a, a] = np.sqrt(max(value, 1e-300))
                    else:
                        lower[a, b] = value / lower[b, b]
            for a in range(n):
                value = 1.0 if a == at else 0.0
                for c in range(a):
                    value -= lower[a, c] * x[c]
                x[a] = value / lower[a, a]
            for back in range(n):
                a = n - 1 - back
                value = x[a]
                for c in range(a + 1, n):
                    value -= lower[c, a] * x[c]
                x[a] = value / lower[a, a]
            regular = x[at]
            variance = regular
            slope = 0.0
            if not flat:
                variance = 0.0
                for a in range(n):
                    for b in range(n):
                        weight = x[a] * x[b]
                        i = active[a]
                        j = active[b]
                        slope += weight * third[p, triple_of[i, j, asked]]
                        for c in range(n):
                            held = loadings[p, active[c]]
                            if held > 0.0:
                                variance += weight * held * third[p, triple_of[i, j, active[c]]]
            middle = 0.5 * z * z * slope
            asymmetric = middle * middle
            far = moved[p, asked]
            center = loadings[p, asked] + middle
            half = np.sqrt(asymmetric + z * z * max(variance + shared[p, asked], 0.0)) + far
            held = max(variance + CLAIM * shared[p, asked], 0.0)
            claim = np.sqrt(asymmetric + z * z * held) + CLAIM * far
            out[p, asked, 0] = np.sqrt(regular)
            out[p, asked, 1] = max(center - half, 0.0) if center > claim else 0.0
            out[p, asked, 2] = center + half
