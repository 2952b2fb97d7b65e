from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcube.engine import BlockPlan, plan_blocks
from emcube.engine.plan import MAX_GROUPS, OUTPUT_BYTES
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


SHAPES = [
    (1_000_000,),
    (1000, 1000),
    (5000, 3),
    (2, 3, 4000),
    (4097, 244),
    (3, 70, 90, 50),
    (8192, 128),
]


@given(st.sampled_from(SHAPES) | st.lists(st.integers(1, 80), min_size=1, max_size=4).map(tuple))
def test_groups_are_boxes_of_blocks_in_order(grid):
    plan = BlockPlan(tuple(2 * n for n in grid), (2,) * len(grid), 3, 1)
    assert plan.grid == grid
    groups = plan.groups
    assert [g.start for g in groups] == [0, *(g.stop for g in groups[:-1])]
    assert groups[-1].stop == plan.n_blocks
    assert len(groups) <= MAX_GROUPS
    if plan.n_blocks <= MAX_GROUPS:
        assert all(len(g) == 1 for g in groups)
    else:
        assert len(groups) > MAX_GROUPS // 4
    for group in {groups[0], groups[len(groups) // 2], groups[-1]}:
        first, last = plan.slices(group.start), plan.slices(group.stop - 1)
        box = [slice(a.start, b.stop) for a, b in zip(first, last, strict=True)]
        size = [(s.stop - s.start) // 2 for s in box]
        assert math.prod(size) == len(group)
        for s, k in zip(box, plan.group_shape, strict=True):
            assert s.start % (2 * k) == 0


def test_small_plans_are_what_they_were():
    plan = plan_blocks((73, 124, 165), 900, 1, (1, 124, 165))
    assert plan.group_shape == (1, 1, 1)
    assert plan.groups == tuple(range(i, i + 1) for i in range(73))
    assert plan.output_shape(8 * 20) == plan.block_shape
    assert set(plan.as_dict()) == {"nav_shape", "block_shape", "n_channels", "itemsize"}
    assert plan_blocks((), 2048, 4, ()).groups == (range(1),)
    assert plan_blocks((0, 5), 10, 1).groups == ()


def test_the_groups_of_many_blocks_belong_to_the_identity_of_a_run():
    plan = BlockPlan((2000, 2000), (2, 2), 8, 1)
    assert plan.as_dict()["group_shape"] == [1, 256]


@given(st.sampled_from(SHAPES), st.integers(1, 50_000_000))
def test_output_of_many_blocks_is_cut_into_boxes_that_fill_groups(grid, pixel_bytes):
    plan = BlockPlan(tuple(3 * n - 1 for n in grid), (3,) * len(grid), 3, 1)
    shape = plan.output_shape(pixel_bytes)
    block_bytes = math.prod(plan.block_shape) * pixel_bytes
    assert math.prod(shape) * pixel_bytes <= max(OUTPUT_BYTES, block_bytes)
    box = [-(-n // 3) for n in shape]
    for d, (k, group, n) in enumerate(zip(box, plan.group_shape, plan.grid, strict=True)):
        assert group % k == 0 or group == n
        # A run of blocks: nothing before it is finished stays open.
        assert all(b == g for b, g in zip(box[d + 1 :], grid[d + 1 :], strict=True)) or k == 1
    n_files = math.prod(-(-n // s) for n, s in zip(plan.nav_shape, shape, strict=True))
    n_bytes = math.prod(3 * n for n in grid) * pixel_bytes
    assert n_files <= max(2 * MAX_GROUPS, min(plan.n_blocks, 16 * n_bytes // OUTPUT_BYTES))


def test_the_box_of_a_block():
    plan = BlockPlan((7, 10), (2, 3), 1, 1)
    assert plan.box_of(0, (2, 2)) == ((slice(0, 4), slice(0, 6)), 4)
    assert plan.box_of(plan.n_blocks - 1, (2, 3)) == ((slice(4, 7), slice(9, 10)), 2)


def test_a_plan_travels_without_its_groups():
    plan = BlockPlan((2_000_000,), (2,), 8, 1)
    assert len(plan.groups) > 1000
    sent = pickle.dumps(plan)
    assert len(sent) < 300
    assert pickle.loads(sent) == plan
