"""How far other simplices reach that hold the pixels as well as the components of a model do.

The likelihood with loadings solved pixel by pixel says little here: it rewards components that lie too far
out, since each pixel's loadings are fitted to its noise. The cloud of pixels does not (see
`emcube.kernels.facets`).

Letters: E used channels, K components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emcube.engine.threads import default_threads
from emcube.kernels.corners import log_volume
from emcube.kernels.extremes import extreme_turns, slack_of
from emcube.kernels.facets import NoisyCloud, smallest_within_noise
from emcube.models.cloud import gather, in_plane
from emcube.models.nmf_start import sketch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.engine import BlockSource
    from emcube.models.nmf_losses import Loss

__all__ = ["POINTS", "cloud_turns"]

POINTS = 4096
"""Pixels (or tiles) that say what else is as good, at most. Fewer say less: the range grows."""


def cloud_turns(
    source: BlockSource,
    loss: Loss,
    nav_dims: tuple[str, ...],
    side: int,
    components: NDArray[np.float64],
    errors: NDArray[np.float64],
    *,
    level: float,
    seed: int,
) -> NDArray[np.float64]:
    """Extreme matrices T whose components T S hold the pixels as well; one pass, and those of the subspace.

    Parameters
    ----------
    source : BlockSource
        In counts where the loss is theirs.
    loss : Loss
    nav_dims : tuple of str
    side : int
        Of the tiles in which pixels are summed.
    components : ndarray, shape (K, E)
        S, not negative; each sums to one.
    errors : ndarray, shape (K, E)
        Standard errors of their values.
    level : float
        Of the likelihood ratio that says "as well".
    seed : int
        Of the choice of points.

    Returns
    -------
    ndarray, shape (n, K, K)
        The first is the identity. Rows sum to one.
    """
    k = len(components)
    if k == 1:
        return np.ones((1, 1, 1))
    found = sketch(source, loss, k, seed, "uncertainty")
    cloud = gather(source, loss, found, nav_dims, side, seed, "uncertainty").heavy(k)
    if len(cloud.weights) > POINTS:
        cloud = cloud.some(np.random.default_rng((seed, 0, 6)), POINTS)
    corners = in_plane(cloud, (components * found.scale) @ found.vectors)
    if not np.isfinite(log_volume(corners)):
        # Two components of the same spectrum: nothing holds them apart.
        return np.eye(k)[None]
    covariance = cloud.covariance(loss)
    # What is as good is measured from what is best, which the model need not be.
    best, _, _, _ = smallest_within_noise(
        cloud.values, cloud.noise, covariance, corners, max_iter=500, tol=1e-4
    )
    noisy = NoisyCloud.of(cloud.values, cloud.noise, covariance, corners)
    first = np.asarray(best @ np.linalg.inv(corners), dtype=np.float64)
    return extreme_turns(
        noisy, components, errors, slack_of(level, k), first=first, n_threads=default_threads()
    )
