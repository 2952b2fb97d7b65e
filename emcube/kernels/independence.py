"""Take out of each component what makes its spectrum depend on the others.

Letters: E channels, K components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["independent_shares"]


def independent_shares(
    components: NDArray[np.float64],
    freedom: NDArray[np.float64],
    seed: int,
    contrast: str = "logcosh",
) -> NDArray[np.float64]:
    """Shares of the other components without which the derivatives of all spectra are independent.

    Independent component analysis of the first differences of the spectra; of its unmixing matrix, scaled
    to ones on the diagonal, what lies between nothing and `freedom` is taken.

    Parameters
    ----------
    components : ndarray, shape (K, E)
        Each sums to one.
    freedom : ndarray, shape (K, K)
        Largest share of component k (row) that may be component j (column).
    seed : int
        Of the first guess of the unmixing.
    contrast : {"logcosh", "exp", "cube"}
        FastICA's measure of independence.

    Returns
    -------
    ndarray, shape (K, K)
        b with zeros on the diagonal; the purer components are s_k - sum_j b_kj s_j, up to their norm.

    References
    ----------
    A. Hyvarinen, E. Oja, Neural Netw. 13 (2000) 411. https://doi.org/10.1016/S0893-6080(00)00026-5
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.decomposition import FastICA

    k = len(components)
    if k == 1:
        return np.zeros((1, 1))
    slopes = np.diff(components, axis=1)
    analysis = FastICA(
        k, random_state=seed, fun=contrast, max_iter=5000, tol=1e-8, whiten="unit-variance"
    )
    analysis.fit(slopes.T)
    unmixing = np.asarray(analysis.components_)
    # Each source belongs to the component that contributes most to it.
    sources, order = linear_sum_assignment(-np.abs(unmixing) * np.linalg.norm(slopes, axis=1))
    unmixing = unmixing[sources[np.argsort(order)]]
    shares = np.clip(-unmixing / np.diagonal(unmixing)[:, None], 0.0, freedom)
    np.fill_diagonal(shares, 0.0)
    return np.asarray(shares)
