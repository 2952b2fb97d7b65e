"""Scores on data that the loadings have not seen. Letters: P pixels, E channels, K components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from emcube.kernels.frobenius_nmf import frobenius_loadings
from emcube.kernels.poisson_nmf import as_rows, floored, poisson_loadings
from emcube.kernels.rows import CountRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["held_out_counts", "held_out_squares", "thin"]


def thin(rows: CountRows, rng: np.random.Generator) -> tuple[CountRows, CountRows]:
    """Deal each count to one of two halves at random: two independent Poisson cubes of half the counts.

    Of a value that is no whole number (a scaled or corrected cube) the fraction is dealt as a whole.
    """
    whole = np.floor(rows.counts).astype(np.int64)
    first: NDArray[Any] = rng.binomial(whole, 0.5)
    second: NDArray[Any] = whole - first
    if rows.counts.dtype.kind == "f" and (rest := rows.counts - whole).any():
        mine = rng.random(rest.size) < 0.5
        first, second = first + np.where(mine, rest, 0.0), second + np.where(mine, 0.0, rest)
    return _without_zeros(rows, first), _without_zeros(rows, second)


def _without_zeros(rows: CountRows, counts: NDArray[Any]) -> CountRows:
    kept = counts > 0
    before = np.concatenate(([0], np.cumsum(kept)))
    return CountRows(
        before[rows.indptr],
        rows.channels[kept],
        counts[kept].astype(rows.counts.dtype),
        rows.n_channels,
    )


def held_out_counts(
    data: CountRows | NDArray[Any], components: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Poisson log-likelihood of one half of the counts, given loadings from the other half.

    Returns
    -------
    ndarray, shape (2,)
        Sum of log p(x | mu), and the number of counts it is of; both ways round.
    """
    from scipy.special import gammaln

    components = floored(components)
    rows = as_rows(data)
    halves = thin(rows, rng)
    out = np.zeros(2)
    for seen, hidden in (halves, halves[::-1]):
        loadings = poisson_loadings(seen, components)
        pixel = np.repeat(np.arange(hidden.n_pixels), np.diff(hidden.indptr))
        counts = hidden.counts.astype(np.float64)
        expected = np.zeros(hidden.nnz)
        for h, s in zip(loadings.T, components, strict=True):
            expected += h[pixel] * s[hidden.channels]
        # A pixel whose seen half is empty expects next to nothing, not nothing.
        expected = np.maximum(expected, 1e-12)
        out[0] += (counts * np.log(expected) - gammaln(counts + 1.0)).sum() - loadings.sum()
        out[1] += counts.sum()
    return out


def held_out_squares(
    data: CountRows | NDArray[Any], components: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Squared residuals of every other channel, given loadings from the channels between them.

    Returns
    -------
    ndarray, shape (2,)
        Sum of squared residuals, and sum of squares; both ways round.
    """
    dense = data.to_dense() if isinstance(data, CountRows) else np.asarray(data, dtype=np.float64)
    out = np.zeros(2)
    for seen in (0, 1):
        hidden = 1 - seen
        loadings = frobenius_loadings(
            np.ascontiguousarray(dense[:, seen::2]), np.ascontiguousarray(components[:, seen::2])
        )
        residual = dense[:, hidden::2] - loadings @ components[:, hidden::2]
        out += (float(np.square(residual).sum()), float(np.square(dense[:, hidden::2]).sum()))
    return out
