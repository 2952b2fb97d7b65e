"""Corners along random directions: rounding does not choose among tries that found the same."""

import numpy as np
import pytest

from emcube.kernels import corners


@pytest.mark.parametrize("larger", [0, 1, 2])
def test_of_tries_with_the_same_corners_the_first_is_kept(monkeypatch, larger):
    best = np.array([[-1.0, -0.5, -0.9], [-1.0, -0.7, 1.0], [-1.0, 1.1, 0.1]])
    tries = [0.9 * best, best, best[[2, 0, 1]], best[[1, 2, 0]]]
    # In one of them the last bits make the volume larger.
    tries[1 + larger] = tries[1 + larger] * (1.0 + 4e-15)
    left = iter(tries)
    monkeypatch.setattr(corners, "_once", lambda *given: next(left))
    points, ones = np.zeros((9, 3)), np.ones(9)
    rng = np.random.default_rng(0)
    found = corners.vertex_components(points, ones, ones, 3, n_average=1, n_init=4, rng=rng)
    assert found is tries[1]
