"""Eigenproblem of a symmetric matrix of which all values are wanted, and the vectors of a few.

Letters: E channels, K components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh, eigh_tridiagonal, lapack

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["leading_eigen"]

FEW = 0.25
"""Share of the vectors up to which they are computed one by one."""


def leading_eigen(
    matrix: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All eigenvalues of a symmetric matrix, and the vectors of the largest K.

    Parameters
    ----------
    matrix : ndarray of float64, shape (E, E)
        Both triangles filled; it is left as it is.
    k : int
        K, from 0 to E.

    Returns
    -------
    values : ndarray of float64, shape (E,)
        Descending.
    vectors : ndarray of float64, shape (E, K), C-contiguous
        Orthonormal columns, those of the largest values.

    Raises
    ------
    numpy.linalg.LinAlgError
        LAPACK did not converge.

    Notes
    -----
    The matrix is made tridiagonal once, by Householder's reflections. All values of that cost next to
    nothing (the Pal-Walker-Kahan variant of QR, LAPACK's ``sterf``), and so do a few vectors (relatively
    robust representations, ``stemr``), which the same reflections turn back: half the time of all vectors.

    References
    ----------
    I. S. Dhillon, B. N. Parlett, Linear Algebra Appl. 387 (2004) 1. https://doi.org/10.1016/j.laa.2003.12.028
    """
    n = matrix.shape[0]
    if k > FEW * n or n < 3:
        values, vectors = eigh(matrix, driver="evd")
        return values[::-1].copy(), np.ascontiguousarray(vectors[:, n - k :][:, ::-1])
    reduced, diagonal, beside, factors = _tridiagonal(matrix)
    values = eigh_tridiagonal(diagonal, beside, eigvals_only=True, lapack_driver="sterf")[::-1]
    if not k:
        return values.copy(), np.zeros((n, 0))
    _, narrow = eigh_tridiagonal(
        diagonal, beside, select="i", select_range=(n - k, n - 1), lapack_driver="stemr"
    )
    # The reflections leave the first row alone; those of the others are kept below the diagonal.
    vectors = np.asfortranarray(narrow)
    work = int(lapack.dormqr("L", "N", reduced[1:, :-1], factors, vectors[1:], -1)[1][0])
    turned, _, info = lapack.dormqr("L", "N", reduced[1:, :-1], factors, vectors[1:], work)
    _require(info, "dormqr")
    vectors[1:] = turned
    return values.copy(), np.ascontiguousarray(vectors[:, ::-1])


def _tridiagonal(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Reflections below the diagonal, the diagonal, what is beside it, and the reflections' factors."""
    work, info = lapack.dsytrd_lwork(matrix.shape[0], lower=1)
    _require(info, "dsytrd")
    # Symmetric: its transpose is the same matrix as LAPACK wants it. It is overwritten.
    own = matrix.T.copy(order="F")
    reduced, diagonal, beside, factors, info = lapack.dsytrd(
        own, lower=1, lwork=int(work), overwrite_a=1
    )
    _require(info, "dsytrd")
    return reduced, diagonal, beside, factors


def _require(info: int, routine: str) -> None:
    if info:
        raise np.linalg.LinAlgError(f"LAPACK's {routine} failed with code {info}")
