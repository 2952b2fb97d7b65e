"""Dense pixels times a few spectra and back, in float64 and straight from the precision they are kept in.

Letters: P pixels, E channels, K spectra.

BLAS would need a copy in float64, and copies what it is given once more into tiles of its own, which is most
of its work where spectra are few. Here a value is converted in the register in which it is multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels._numba import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "PIECE",
    "add_back",
    "channel_sums",
    "few_products",
    "in_few",
    "piece_pixels",
    "values_of",
]

PIECE = 1 << 19
"""Bytes in float64 of the pixels that are worked on at a time: they stay in the cache."""

FUSED = {"reassoc", "contract", "nsz"}
"""Sums of products in whatever order fills vectors."""


def in_few(cells: NDArray[Any], spectra: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply each pixel (P, E) of a dense block by spectra (K, E); (P, K) in float64.

    What a pixel gives does not depend on the pixels beside it.
    """
    spectra = np.ascontiguousarray(spectra, dtype=np.float64)
    out = np.empty((len(cells), len(spectra)))
    for first, part in values_of(cells):
        few_products(part, spectra, out[first : first + len(part)])
    return out


def there_and_back(
    cells: NDArray[Any], vectors: NDArray[np.float64], *, by_totals: bool = False
) -> NDArray[np.float64]:
    """Multiply a dense block by vectors (E, K) and back: sum_p w_p x_p x_p' B, of shape (E, K).

    The weights w are one, or with `by_totals` one over a pixel's sum (one where that is not positive).
    """
    spectra = np.ascontiguousarray(vectors.T, dtype=np.float64)
    if by_totals:
        spectra = np.concatenate([spectra, np.ones((1, spectra.shape[1]))])
    image = np.zeros(vectors.shape[::-1])
    step = piece_pixels(cells.shape[1])
    for _, part in values_of(cells):
        _there_and_back(part, spectra, step, by_totals, image)
    return np.ascontiguousarray(image.T)


def channel_sums(cells: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Sum and sum of squares of each channel (E,) of a dense block, and pixels that hold nothing."""
    sums, squares, n_empty = np.zeros(cells.shape[1]), np.zeros(cells.shape[1]), 0
    for _, part in values_of(cells):
        n_empty += _add_channel_sums(part, sums, squares)
    return sums, squares, int(n_empty)


def piece_pixels(n_channels: int) -> int:
    """Pixels that are worked on at a time, a multiple of four."""
    return int(max(4, PIECE // max(1, 8 * n_channels) // 4 * 4))


def values_of(cells: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """First pixel and values in a precision that kernels are compiled for.

    Floats of 32 and 64 bits as they are, everything else in float64 by pieces, each good until the next one.
    """
    if (
        cells.dtype in (np.float32, np.float64)
        and cells.dtype.isnative
        and cells.flags.c_contiguous
    ):
        yield 0, cells
        return
    step = piece_pixels(cells.shape[1])
    room = np.empty((min(step, len(cells)), cells.shape[1]))
    for first in range(0, len(cells), step):
        part = cells[first : first + step]
        np.copyto(room[: len(part)], part)
        yield first, room[: len(part)]


@jit(fastmath=FUSED)
def few_products(cells, spectra, out):
    """Fill `out` (P, K) with the products of pixels (P, E) and spectra (K, E), C-contiguous."""
    last, top = cells.shape[0] - 1, spectra.shape[0] - 1
    # Four pixels and three spectra fill the registers. At the end one is taken several times: then all
    # products are summed in the same order.
    for p in range(0, last + 1, 4):
        q, r, s = min(p + 1, last), min(p + 2, last), min(p + 3, last)
        for k in range(0, top + 1, 3):
            m, n = min(k + 1, top), min(k + 2, top)
            pk = pm = pn = qk = qm = qn = rk = rm = rn = sk = sm = sn = 0.0
            for e in range(cells.shape[1]):
                at_p, at_q = np.float64(cells[p, e]), np.float64(cells[q, e])
                at_r, at_s = np.float64(cells[r, e]), np.float64(cells[s, e])
                at_k, at_m, at_n = spectra[k, e], spectra[m, e], spectra[n, e]
                pk += at_p * at_k
                pm += at_p * at_m
                pn += at_p * at_n
                qk += at_q * at_k
                qm += at_q * at_m
                qn += at_q * at_n
                rk += at_r * at_k
                rm += at_r * at_m
                rn += at_r * at_n
                sk += at_s * at_k
                sm += at_s * at_m
                sn += at_s * at_n
            out[p, k], out[p, m], out[p, n] = pk, pm, pn
            out[q, k], out[q, m], out[q, n] = qk, qm, qn
            out[r, k], out[r, m], out[r, n] = rk, rm, rn
            out[s, k], out[s, m], out[s, n] = sk, sm, sn


@jit(fastmath=FUSED)
def add_back(cells, loadings, out):
    """Add the products H'X of loadings (P, K) and pixels (P, E) to `out` (K, E), C-contiguous."""
    n_pixels, n = loadings.shape
    whole = n - n % 3
    for p in range(0, n_pixels, 4):
        # Beyond the last pixel that one is taken again, times nothing.
        q, r, s = min(p + 1, n_pixels - 1), min(p + 2, n_pixels - 1), min(p + 3, n_pixels - 1)
        has_q = np.float64(p + 1 == q)
        has_r, has_s = np.float64(p + 2 == r), np.float64(p + 3 == s)
        for k in range(0, whole, 3):
            pk, pm, pn = loadings[p, k], loadings[p, k + 1], loadings[p, k + 2]
            qk, qm, qn = loadings[q, k], loadings[q, k + 1], loadings[q, k + 2]
            rk, rm, rn = loadings[r, k], loadings[r, k + 1], loadings[r, k + 2]
            sk, sm, sn = loadings[s, k], loadings[s, k + 1], loadings[s, k + 2]
            qk, qm, qn = qk * has_q, qm * has_q, qn * has_q
            rk, rm, rn = rk * has_r, rm * has_r, rn * has_r
            sk, sm, sn = sk * has_s, sm * has_s, sn * has_s
            for e in range(cells.shape[1]):
                at_p, at_q = np.float64(cells[p, e]), np.float64(cells[q, e])
                at_r, at_s = np.float64(cells[r, e]), np.float64(cells[s, e])
                out[k, e] += pk * at_p + qk * at_q + rk * at_r + sk * at_s
                out[k + 1, e] += pm * at_p + qm * at_q + rm * at_r + sm * at_s
                out[k + 2, e] += pn * at_p + qn * at_q + rn * at_r + sn * at_s
        for k in range(whole, n):
            pk, qk = loadings[p, k], loadings[q, k] * has_q
            rk, sk = loadings[r, k] * has_r, loadings[s, k] * has_s
            for e in range(cells.shape[1]):
                at_p, at_q = np.float64(cells[p, e]), np.float64(cells[q, e])
                at_r, at_s = np.float64(cells[r, e]), np.float64(cells[s, e])
                out[k, e] += pk * at_p + qk * at_q + rk * at_r + sk * at_s


@jit(fastmath=FUSED)
def _there_and_back(cells, spectra, step, by_totals, image):
    n = len(image)
    room = np.empty((step, len(spectra)))
    for first in range(0, cells.shape[0], step):
        part = cells[first : first + step]
        products = room[: len(part)]
        few_products(part, spectra, products)
        if by_totals:
            for p in range(len(part)):
                total = products[p, n]
                for k in range(n):
                    products[p, k] /= total if total > 0.0 else 1.0
        add_back(part, products[:, :n], image)


@jit(fastmath=FUSED)
def _add_channel_sums(cells, sums, squares):
    n_empty = 0
    for p in range(cells.shape[0]):
        stored = 0
        for e in range(cells.shape[1]):
            value = np.float64(cells[p, e])
            sums[e] += value
            squares[e] += value * value
            stored += value != 0.0
        n_empty += stored == 0
    return n_empty
