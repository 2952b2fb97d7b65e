"""Corners along random directions: rounding does not choose among tries that found the same."""

import numpy as np
import pytest

from emcube.kernels.corners import largest

BEST = np.array([[-1.0, -0.5, -0.9], [-1.0, -0.7, 1.0], [-1.0, 1.1, 0.1]])


@pytest.mark.parametrize("larger", [1, 2, 3])
def test_of_tries_with_the_same_corners_the_first_is_kept(larger):
    tries = [0.9 * BEST, BEST, BEST[[2, 0, 1]], BEST[[1, 2, 0]]]
    # In one of them the last bits make the volume larger.
    tries[larger] = tries[larger] * (1.0 + 4e-15)
    assert largest(tries) is tries[1]


def test_a_truly_larger_one_wins_wherever_it_stands():
    tries = [BEST, 1.001 * BEST, np.zeros((3, 3))]
    assert largest(tries) is tries[1]
    assert largest(tries[::-1]) is tries[1]
