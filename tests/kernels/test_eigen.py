"""All eigenvalues and a few vectors, against NumPy's full decomposition."""

import numpy as np
import pytest

from emcube.kernels.eigen import leading_eigen


def spd(n, rank=None, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, rank or 2 * n)) * rng.gamma(0.3, size=(n, 1))
    return x @ x.T


@pytest.mark.parametrize(
    ("n", "k"), [(1, 1), (2, 1), (3, 0), (3, 1), (40, 0), (40, 1), (40, 10), (40, 11), (200, 20)]
)
def test_values_and_vectors_are_those_of_the_full_decomposition(n, k):
    matrix = spd(n)
    before = matrix.copy()
    values, vectors = leading_eigen(matrix, k)
    wanted = np.linalg.eigvalsh(matrix)[::-1]
    assert values.shape == (n,)
    assert vectors.shape == (n, k)
    assert vectors.flags.c_contiguous
    np.testing.assert_array_equal(matrix, before)
    np.testing.assert_allclose(values, wanted, atol=1e-13 * wanted[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-12)
    np.testing.assert_allclose(matrix @ vectors, vectors * values[:k], atol=1e-12 * wanted[0])


@pytest.mark.parametrize("order", ["C", "F"])
def test_equal_and_vanishing_values_keep_orthonormal_vectors(order):
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    true = np.r_[np.full(4, 9.0), np.full(3, 2.0), np.zeros(53)]
    matrix = np.array((turn * true) @ turn.T, order=order)
    matrix = np.array(0.5 * (matrix + matrix.T), order=order)
    values, vectors = leading_eigen(matrix, 12)
    np.testing.assert_allclose(values, true, atol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(12), atol=1e-12)
    np.testing.assert_allclose(matrix @ vectors, vectors * true[:12], atol=1e-12)


def test_a_diagonal_and_an_empty_matrix():
    values, vectors = leading_eigen(np.diag([1.0, 5.0, 3.0, 2.0, 4.0]), 1)
    assert values.tolist() == [5, 4, 3, 2, 1]
    np.testing.assert_array_equal(np.abs(vectors[:, 0]), [0, 1, 0, 0, 0])
    values, vectors = leading_eigen(np.zeros((9, 9)), 2)
    assert not values.any()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(2), atol=1e-15)
