from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcube.engine import BlockPlan, plan_blocks
from emcube.errors import InputError


@pytest.mark.parametrize(
    ("nav", "channels", "itemsize", "chunks", "block"),
    [
        # The talk's tilt series: one tilt a chunk is 18 MB, and one tilt a block.
        ((73, 124, 165), 900, 1, (1, 124, 165), (1, 124, 165)),
        # The jadeite map from memory: rows are joined up to 32 MiB, in even shares.
        ((384, 512), 1564, 1, None, (39, 512)),
        # A small map is one block.
        ((64, 64), 992, 4, (16, 64), (64, 64)),
        # A chunk above the target is never split.
        ((512, 512), 4096, 1, (512, 512), (512, 512)),
        # A line scan, a single spectrum, an empty cube.
        ((1000,), 2048, 4, None, (1000,)),
        ((), 2048, 4, (), ()),
        ((0, 5), 10, 1, None, (1, 5)),
    ],
)
def test_block_shapes(nav, channels, itemsize, chunks, block):
    assert plan_blocks(nav, channels, itemsize, chunks).block_shape == block


@given(
    st.lists(st.integers(1, 9), min_size=0, max_size=3),
    st.data(),
    st.integers(1, 5000),
    st.integers(1, 4000),
)
def test_every_pixel_lies_in_exactly_one_block(nav, data, channels, target):
    nav = tuple(nav)
    chunks = tuple(data.draw(st.integers(1, 12)) for _ in nav)
    plan = plan_blocks(nav, channels, 1, chunks, target_bytes=target)
    seen: dict[tuple[int, ...], int] = {}
    for block_id in range(plan.n_blocks):
        assert math.prod(plan.shape(block_id)) > 0
        ranges = [range(s.start, s.stop) for s in plan.slices(block_id)]
        positions = [()]
        for r in ranges:
            positions = [(*p, i) for p in positions for i in r]
        for p in positions:
            assert p not in seen
            seen[p] = block_id
    assert len(seen) == plan.n_pixels
    for b, c, n in zip(plan.block_shape, chunks, nav, strict=True):
        assert b == n or b % min(c, n) == 0


def test_groups_cover_the_blocks_in_order():
    plan = BlockPlan((10_001,), (1,), 3, 1)
    ids = [i for group in plan.groups for i in group]
    assert ids == list(range(10_001))
    assert len(plan.groups) <= 4096


def test_chunks_of_another_rank_are_refused():
    with pytest.raises(InputError, match="2 navigation dims"):
        plan_blocks((4, 4), 3, 1, (2,))
