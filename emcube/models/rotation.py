"""How far other factorisations reach that describe the data as well: what neither counts nor refits fix.

L S = (L T^-1)(T S) for every T that can be inverted, and the likelihood limits T only as far as spectra and
loadings must not be negative. Any model with components that are not negative can be asked.

Letters: P pixels, E used channels, K components, N factorisations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emcube.kernels.bands import component_bands
from emcube.models.nmf_start import tile_of
from emcube.models.nmf_sweeps import PooledSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import BlockSource
    from emcube.models.labels import Labels

__all__ = ["Rotations", "beside", "pooled_source"]


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
        self,
        components: NDArray[np.float64],
        errors: NDArray[np.float64],
        interval: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and largest values (K, E) of components S between the extremes, with noise on either side.

        Parameters
        ----------
        components, errors : ndarray, shape (K, E)
            Each component sums to one; standard errors of the values (see `component_bands`).
        interval : (ndarray, ndarray), each of shape (K, E)
            Ends of the interval about each value.

        Notes
        -----
        Rotations leave the span of the components as it is; the noise of counts does not. A mixture has the
        noise of its parts, each as often as the largest share of it: far out that is many times.
        """
        low, high = component_bands(self.turns, components, errors)
        most = np.square(np.abs(self.turns).max(axis=0))
        own = np.diagonal(most)[:, None]
        below, above = components - interval[0], interval[1] - components
        others = (most - np.diag(np.diagonal(most))) @ np.square(np.maximum(below, above))
        low = low - np.sqrt(own * np.square(below) + others)
        return np.maximum(low, 0.0), high + np.sqrt(own * np.square(above) + others)

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


def pooled_source(source: BlockSource, labels: Labels, side: int) -> BlockSource:
    """The tiles that components were fitted on."""
    return source if side == 1 else PooledSource(source, tile_of(labels.nav_dims, side))


def beside(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    interval: tuple[NDArray[np.float64], NDArray[np.float64]],
    value: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A range of rotations with the interval about the value on either side of it, zero at least.

    Rotations leave the span of the components as it is; the noise of counts does not.
    """
    return np.maximum(low - (value - interval[0]), 0.0), high + (interval[1] - value)
