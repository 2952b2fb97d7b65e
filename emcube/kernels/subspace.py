"""One step of subspace iteration over rows of counts.

Letters: P pixels, E channels, Q vectors of a basis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels._numba import jit
from emcube.kernels.poisson_nmf import FAST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.kernels.rows import CountRows

__all__ = ["scatter_image"]

WIDTH = 8
"""Vectors of the basis that are multiplied at once."""


def scatter_image(
    rows: CountRows, basis: NDArray[np.float64], *, by_counts: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multiply the scatter matrix M = sum_p w_p x_p x_p' by a basis, visiting each pixel once.

    Parameters
    ----------
    rows : CountRows, (P, E)
    basis : ndarray, shape (E, Q)
    by_counts : bool
        Weights w are one over the counts of a pixel; else one.

    Returns
    -------
    image : ndarray, shape (E, Q)
        M B.
    inner : ndarray, shape (Q, Q)
        B' M B.
    """
    n_channels, q = basis.shape
    width = -(-q // WIDTH) * WIDTH
    padded = np.zeros((n_channels, width))
    padded[:, :q] = basis
    image = np.zeros((n_channels, width))
    inner = np.zeros((width, width))
    _scatter(
        rows.indptr,
        rows.channels,
        rows.counts,
        padded,
        by_counts,
        np.zeros(width),
        image,
        inner,
    )
    return np.ascontiguousarray(image[:, :q]), np.ascontiguousarray(inner[:q, :q])


@jit(**FAST)
def _scatter(indptr, channels, counts, basis, by_counts, t, image, inner):
    width = basis.shape[1]
    for p in range(indptr.size - 1):
        n = indptr[p + 1] - indptr[p]
        if n == 0:
            continue
        first = np.uint64(indptr[p])
        total = 0.0
        for i in range(n):
            total += float(counts[first + np.uint64(i)])
        for k in range(0, width, WIDTH):
            a0, a1, a2, a3, a4, a5, a6, a7 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(n):
                e = channels[first + np.uint64(i)]
                c = float(counts[first + np.uint64(i)])
                a0 += c * basis[e, k]
                a1 += c * basis[e, k + 1]
                a2 += c * basis[e, k + 2]
                a3 += c * basis[e, k + 3]
                a4 += c * basis[e, k + 4]
                a5 += c * basis[e, k + 5]
                a6 += c * basis[e, k + 6]
                a7 += c * basis[e, k + 7]
            t[k], t[k + 1], t[k + 2], t[k + 3] = a0, a1, a2, a3
            t[k + 4], t[k + 5], t[k + 6], t[k + 7] = a4, a5, a6, a7
        weight = 1.0 / total if by_counts else 1.0
        for a in range(width):
            weighted = weight * t[a]
            for b in range(width):
                inner[a, b] += weighted * t[b]
        for k in range(0, width, WIDTH):
            t0, t1, t2, t3 = weight * t[k], weight * t[k + 1], weight * t[k + 2], weight * t[k + 3]
            t4, t5 = weight * t[k + 4], weight * t[k + 5]
            t6, t7 = weight * t[k + 6], weight * t[k + 7]
            # All are read before any is written: then they are one vector.
            for i in range(n):
                e = channels[first + np.uint64(i)]
                c = float(counts[first + np.uint64(i)])
                a0 = image[e, k] + c * t0
                a1 = image[e, k + 1] + c * t1
                a2 = image[e, k + 2] + c * t2
                a3 = image[e, k + 3] + c * t3
                a4 = image[e, k + 4] + c * t4
                a5 = image[e, k + 5] + c * t5
                a6 = image[e, k + 6] + c * t6
                a7 = image[e, k + 7] + c * t7
                image[e, k] = a0
                image[e, k + 1] = a1
                image[e, k + 2] = a2
                image[e, k + 3] = a3
                image[e, k + 4] = a4
                image[e, k + 5] = a5
                image[e, k + 6] = a6
                image[e, k + 7] = a7
