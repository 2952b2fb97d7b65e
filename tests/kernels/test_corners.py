"""Corners along random directions: rounding does not choose among them."""

import numpy as np

from emcube.kernels.corners import vertex_components


def test_rounding_does_not_choose_among_equal_tries():
    """The same corners in another order have the same volume: the first try is kept, whatever the last bits."""
    rng = np.random.default_rng(4)
    points = rng.dirichlet(np.full(3, 0.3), 400) @ rng.random((3, 3))
    weights, noise = np.ones(400), np.full(400, 0.01)

    def found(scale):
        rng = np.random.default_rng(0)
        return vertex_components(
            points * scale, weights, noise * scale, 3, n_average=10, n_init=12, rng=rng
        )

    first = found(1.0)
    for scale in 1.0 + 1e-14 * np.arange(1, 9):
        np.testing.assert_allclose(found(scale), first, rtol=1e-10)
