"""Several sources as one: the blocks of a cube with one more dim, that may be ragged."""

from __future__ import annotations

import pickle
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest

from emcube.engine import (
    ArraySource,
    BlockPlan,
    ChainedSource,
    DaskSource,
    plan_blocks,
    run_sweep,
)
from emcube.engine.chained import ChainedPlan
from emcube.engine.identity import content_of, shape_of
from emcube.engine.source import place_of
from emcube.errors import EngineError
from emcube.kernels.rows import CountRows
from emcube.models.sweeps import TotalsSweep


def counts(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(0.4, shape).astype(np.uint8)


@pytest.fixture
def arrays() -> list[np.ndarray]:
    return [counts(7, 5, 30), counts(4, 9, 30, seed=1), counts(6, 6, 30, seed=2)]


@pytest.fixture
def chained(arrays: list[np.ndarray]) -> ChainedSource:
    selected = np.zeros((4, 9), bool)
    selected[1:, ::2] = True
    lazy = DaskSource.from_array(da.from_array(arrays[0], chunks=(3, 5, 30)), 2)
    # Blocks of one chunk, so that there are three.
    lazy = replace(lazy, plan=plan_blocks((7, 5), 30, 1, (3, 5), target_bytes=1))
    return ChainedSource.of(
        [
            lazy,
            ArraySource.from_array(arrays[1], 2, pixels=selected),
            ArraySource.from_array(arrays[2], 2),
        ]
    )


def test_every_pixel_comes_once_and_says_where_it_is(chained, arrays) -> None:
    seen = [np.zeros(a.shape[:2], int) for a in arrays]
    for i in range(chained.plan.n_blocks):
        block = chained.load(i)
        assert block.id == i
        assert block.nav_shape == chained.plan.shape(i)
        assert block.offset == chained.plan.offset(i)
        field, *corner = block.offset
        inside = np.unravel_index(block.box_index(), block.nav_shape)
        y, x = inside[1] + corner[0], inside[2] + corner[1]
        seen[field][y, x] += 1
        np.testing.assert_array_equal(block.dense(int), arrays[field][y, x])
    assert chained.n_pixels == sum(int(s.sum()) for s in seen) == 35 + 15 + 36
    assert all(s.max() == 1 for s in seen)


def test_of_equal_cubes_it_is_the_stacked_cube() -> None:
    """Same blocks, so same bits of whatever is computed of them."""
    one, two = counts(6, 5, 20), counts(6, 5, 20, seed=1)
    chained = ChainedSource.of([ArraySource.from_array(a, 2) for a in (one, two)])
    plan = BlockPlan((2, 6, 5), (1, 6, 5), 20, 1)
    assert chained.plan.groups == plan.groups
    assert chained.plan.n_tiles((1, 4, 4)) == plan.n_tiles((1, 4, 4)) == 8
    assert (chained.plan.nav_shape, chained.plan.block_shape) == (plan.nav_shape, plan.block_shape)
    for i, array in enumerate((one, two)):
        block = chained.load(i)
        assert (block.nav_shape, block.offset) == (plan.shape(i), plan.offset(i))
        np.testing.assert_array_equal(block.dense(int), array.reshape(-1, 20))


def test_a_part_pickles_and_holds_what_it_was_asked_for(chained) -> None:
    part = pickle.loads(pickle.dumps(chained.part([1, 4])))
    for i in (1, 4):
        np.testing.assert_array_equal(part.load(i).dense(), chained.load(i).dense())
    assert (part.n_pixels, part.token, part.plan) == (chained.n_pixels, chained.token, chained.plan)
    assert [s is None for s in part.sources] == [False, True, False]
    with pytest.raises(EngineError, match="not in this part"):
        part.load(3)


def test_sums_are_those_of_the_parts(chained, arrays) -> None:
    found = run_sweep(TotalsSweep(counts=True), chained).state
    used = [arrays[0], arrays[1][1:, ::2], arrays[2]]
    np.testing.assert_array_equal(found.channels, sum(a.sum((0, 1), dtype=int) for a in used))
    assert not isinstance(chained.load(4).data, CountRows)  # too full for rows


def test_groups_are_runs_of_blocks_that_stay_within_a_cube(chained) -> None:
    flat = [i for group in chained.plan.groups for i in group]
    assert flat == list(range(chained.plan.n_blocks))
    assert all(len({chained.plan.place(i)[0] for i in g}) == 1 for g in chained.plan.groups)


def test_tiles_do_not_reach_from_cube_to_cube(chained) -> None:
    # Blocks of 3, 3 and 1 rows of five pixels; 4 x 9 and 6 x 6.
    assert chained.plan.n_tiles((1, 2, 2)) == (2 + 2 + 1) * 3 + 2 * 5 + 9
    with pytest.raises(EngineError, match="each lies in one"):
        chained.plan.n_tiles((2, 2, 2))


def test_there_is_no_grid_to_write_to(chained) -> None:
    for ask in (
        lambda: chained.plan.output_shape(8),
        lambda: chained.plan.box_of(0, (1, 1, 1)),
        lambda: chained.plan.grid,
        lambda: chained.plan.group_shape,
    ):
        with pytest.raises(EngineError, match="no common grid"):
            ask()


def test_what_does_not_belong_together_is_refused(arrays) -> None:
    one = ArraySource.from_array(arrays[0], 2)
    with pytest.raises(EngineError, match=r"\[30, 150\] channels"):
        ChainedSource.of([one, ArraySource.from_array(arrays[0], 1)])
    with pytest.raises(EngineError, match="channels"):
        ChainedSource.of([])


def test_identity_is_that_of_all_in_their_order(chained, arrays) -> None:
    other = ChainedSource.of(list(reversed(chained.sources)))
    assert other.token != chained.token
    assert content_of(chained, trusted=False) != content_of(other, trusted=False)
    assert shape_of(chained) != shape_of(other)
    again = ChainedSource.of([ArraySource.from_array(a.copy(), 2) for a in arrays])
    twin = ChainedSource.of([ArraySource.from_array(a.copy(), 2) for a in arrays])
    assert content_of(again, trusted=False) == content_of(twin, trusted=False)
    assert place_of(chained) == "a Dask array, an array in memory"
    assert pickle.loads(pickle.dumps(chained.plan)) == chained.plan
    assert ChainedPlan.of([chained.plan.parts[1]]).as_dict()["parts"][0]["nav_shape"] == [4, 9]
