"""Products of rows with each other have the same bits wherever in memory the rows lie."""

from __future__ import annotations

import numpy as np
import pytest

from emcube.kernels.products import gram_of


@pytest.mark.parametrize("offset", [0, 1, 4, 8])
def test_an_odd_address_changes_no_bit(offset: int) -> None:
    rows = np.random.default_rng(0).random((3, 601)) * 1e4
    raw = np.zeros(rows.nbytes + 128, dtype=np.uint8)
    start = -raw.ctypes.data % 64 + offset
    moved = raw[start : start + rows.nbytes].view(np.float64).reshape(rows.shape)
    moved[...] = rows
    assert moved.flags.aligned == (offset % 8 == 0)
    np.testing.assert_array_equal(gram_of(moved), gram_of(rows))
    np.testing.assert_array_equal(gram_of(np.asfortranarray(moved)), gram_of(rows))
    np.testing.assert_allclose(gram_of(rows), [[(a * b).sum() for b in rows] for a in rows])
