"""Plans of more blocks than groups: output spans blocks, parts are small, bits are the same everywhere."""

from __future__ import annotations

import pickle
from dataclasses import replace

import cloudpickle
import dask.array as da
import numpy as np
import pytest
import zarr

from emcube.engine import (
    ArraySource,
    ArrayTarget,
    DaskSource,
    Writing,
    ZarrTarget,
    map_blocks,
    plan,
    plan_blocks,
    project_memory,
    resident,
    run_sweep,
    run_sweeps,
    use_threads,
)
from emcube.engine.executor import DistributedExecutor, ThreadExecutor
from emcube.engine.source import StoreSource
from emcube.errors import BudgetError, EngineError
from tests.engine.sweeps_for_tests import Sums, TotalsBut, totals

SHAPE = (11, 30, 4)


@pytest.fixture
def few_groups(monkeypatch):
    """As if sixteen groups were many."""
    monkeypatch.setattr(plan, "MAX_GROUPS", 16)


@pytest.fixture
def values():
    return np.random.default_rng(0).poisson(3.0, SHAPE).astype(np.uint8)


@pytest.fixture
def source(values, few_groups):
    """60 blocks of 2 x 3 pixels, the last row of them one pixel high, in 12 groups of five."""
    whole = DaskSource.from_array(da.from_array(values, chunks=(2, 3, 4), name="many"), 2)
    cut = plan_blocks(SHAPE[:2], 4, 1, (2, 3), target_bytes=1)
    assert cut.grid == (6, 10)
    assert cut.group_shape == (1, 5)
    assert len(cut.groups) == 12
    return replace(whole, plan=cut)


def target_in(path, plan, trailing=()):
    chunks = plan.output_shape(8)
    zarr.create_array(
        str(path), shape=(*SHAPE[:2], *trailing), chunks=(*chunks, *trailing), dtype="f8"
    )
    return ZarrTarget(str(path), "")


def files_of(path):
    return sorted(str(f.relative_to(path)) for f in (path / "c").rglob("*") if f.is_file())


def test_chunks_that_span_blocks_are_written_whole(source, values, cluster_client, tmp_path):
    expected = values.sum(axis=-1, dtype=float)
    for name, executor in (
        ("one", ThreadExecutor(1)),
        ("two", ThreadExecutor(2)),
        ("processes", DistributedExecutor(cluster_client)),
    ):
        target = target_in(tmp_path / name, source.plan)
        assert target.box(source.plan) == (1, 5)
        map_blocks(totals, source, {"total": target}, executor=executor)
        np.testing.assert_array_equal(zarr.open_array(str(tmp_path / name))[:], expected)
        assert len(files_of(tmp_path / name)) == 12


def test_each_chunk_is_written_once(source, monkeypatch, tmp_path):
    written = []
    write = ZarrTarget.write

    def noted(self, region, values):
        written.append(region)
        write(self, region, values)

    monkeypatch.setattr(ZarrTarget, "write", noted)
    map_blocks(totals, source, {"total": target_in(tmp_path / "z", source.plan)})
    assert len(written) == 12
    assert sum((r.stop - r.start) * (c.stop - c.start) for r, c in written) == 11 * 30


def test_pixels_that_are_not_selected_get_the_fill_value(values, few_groups, tmp_path):
    pixels = np.random.default_rng(2).random(SHAPE[:2]) < 0.5
    source = ArraySource.from_array(values, 2, pixels=pixels)
    source = replace(source, plan=plan_blocks(SHAPE[:2], 4, 1, (2, 3), target_bytes=1))
    target = target_in(tmp_path / "z", source.plan)
    map_blocks(totals, source, {"total": replace(target, fill=-1.0)})
    expected = np.where(pixels, values.sum(axis=-1, dtype=float), -1)
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "z"))[:], expected)


def test_sums_and_maps_of_one_pass(source, values, cluster_client, tmp_path):
    alone = run_sweep(Sums(), source).state
    expected = values.sum(axis=-1, dtype=float)
    for name, executor in (
        ("threads", ThreadExecutor(2)),
        ("processes", DistributedExecutor(cluster_client)),
    ):
        out = np.zeros(SHAPE[:2])
        targets = {"total": target_in(tmp_path / name, source.plan)}
        writings = [Writing(totals, source.plan, targets)]
        if not executor.remote:
            writings.append(Writing(totals, source.plan, {"total": ArrayTarget(out)}))
        sums, *_ = run_sweeps([Sums(), *writings], source, executor=executor)
        for a, b in zip(sums.state, alone, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(zarr.open_array(str(tmp_path / name))[:], expected)
        assert len(files_of(tmp_path / name)) == 12
        if not executor.remote:
            np.testing.assert_array_equal(out, expected)


def test_a_group_that_broke_off_is_written_again_whole(source, values, tmp_path):
    """What is left of a task that failed half-way is no part of what its second try writes."""
    target = target_in(tmp_path / "z", source.plan)
    with use_threads(1), pytest.raises(EngineError, match="block 13"):
        map_blocks(TotalsBut(13), source, {"total": target})
    # Two groups and no piece of the third.
    assert files_of(tmp_path / "z") == ["c/0/0", "c/0/1"]
    map_blocks(totals, source, {"total": target})
    np.testing.assert_array_equal(
        zarr.open_array(str(tmp_path / "z"))[:], values.sum(axis=-1, dtype=float)
    )


@pytest.mark.parametrize(
    ("chunks", "dim"), [((4, 3), 0), ((2, 12), 1), ((2, 4), 1), ((2, 18), 1), ((11, 30), 0)]
)
def test_chunks_that_two_tasks_would_write_are_refused(source, tmp_path, chunks, dim):
    zarr.create_array(str(tmp_path / "z"), shape=SHAPE[:2], chunks=chunks, dtype="f8")
    with pytest.raises(EngineError, match=f"would be written by two tasks: dim {dim} has"):
        map_blocks(totals, source, {"total": ZarrTarget(str(tmp_path / "z"), "")})


def test_output_that_is_gathered_is_projected_and_refused_where_it_does_not_fit(
    source, tmp_path, monkeypatch
):
    target = target_in(tmp_path / "z", source.plan)
    writing = Writing(totals, source.plan, {"total": target})
    assert writing.output_bytes() == 2 * 15 * 8
    found = project_memory(writing, source, 2)
    assert found.outputs == 3 * 2 * 2 * 15 * 8
    assert found.total == found.blocks + found.outputs
    monkeypatch.setenv("EMCUBE_MEMORY", "1kB")
    with pytest.raises(BudgetError, match="per-pixel output of 2 tasks needs"), use_threads(2):
        map_blocks(totals, source, {"total": target})


def test_a_part_holds_the_selection_of_its_blocks_and_the_name_of_the_whole(few_groups):
    class Reader:
        shape, chunks, dtype = (400, 400, 4), (10, 10, 4), np.dtype("u1")

        def __getitem__(self, key):
            return np.ones([s.stop - s.start for s in key[:2]] + [4], "u1")

    Reader.__module__, Reader.__qualname__ = "builtins", "object"
    pixels = np.random.default_rng(1).random((400, 400)) < 0.4
    source = StoreSource.from_reader(Reader(), 2, "r", pixels=pixels)
    source = replace(source, plan=plan_blocks((400, 400), 4, 1, (10, 10), target_bytes=1))
    group = source.plan.groups[3]
    part = source.part(group)
    assert part.selection.pixels.size == 100 * len(group)
    assert (part.token, part.n_pixels) == (source.token, source.n_pixels)
    for i in (group.start, group.stop - 1):
        np.testing.assert_array_equal(part.load(i).selected, source.load(i).selected)
    with pytest.raises(EngineError, match="is not in this part"):
        part.load(group.stop)
    assert part.part(group).selection is part.selection


def test_a_dask_array_of_a_million_chunks_is_cut_without_listing_them(few_groups):
    """A list of a million keys takes seconds; the parts of two hundred blocks are made in a fraction."""
    array = da.ones((2000, 2000, 4), chunks=(2, 2, 4), dtype="u1")
    lazy = (array + np.uint8(1)).map_blocks(lambda b: b, dtype="u1")
    source = DaskSource.from_array(lazy, 2)
    source = replace(source, plan=plan.BlockPlan((2000, 2000), (2, 2), 4, 1))
    blocks = range(500_000, 500_200)
    part = source.part(blocks)
    assert len(part.array.dask) <= 3 * len(blocks)
    assert len(cloudpickle.dumps(part)) < 1000 * len(blocks)
    # No layer of the cube's own graph was written out.
    assert not any(layer.is_materialized() for layer in lazy.dask.layers.values())
    again = pickle.loads(cloudpickle.dumps(part))
    np.testing.assert_array_equal(again.load(500_003).dense(), np.full((4, 4), 2.0))
    with pytest.raises(EngineError, match="block 500200 is not in this part"):
        again.load(500_200)


def test_what_a_graph_of_dask_needs_is_kept(few_groups):
    """Layers of every kind: arrays in memory, slices, neighbours, sums over chunks."""
    values = np.random.default_rng(5).integers(0, 200, (40, 30, 4)).astype("f8")
    array = da.from_array(values, chunks=(4, 5, 4), name="kept")
    array = da.concatenate([array[3:], array[:3]])
    array = array - array.mean(axis=2, keepdims=True)
    array = array.map_overlap(lambda b: b + np.roll(b, 1, axis=0), depth={0: 1}, boundary=0.0)
    source = DaskSource.from_array(array.rechunk((4, 5, 4)), 2)
    source = replace(source, plan=plan_blocks((40, 30), 4, 8, (4, 5), target_bytes=1))
    whole = array.compute(scheduler="synchronous")
    for group in source.plan.groups:
        part = pickle.loads(cloudpickle.dumps(source.part(group)))
        for i in group:
            expected = whole[source.plan.slices(i)].reshape(-1, 4)
            np.testing.assert_array_equal(part.load(i).dense(), expected)


def test_small_blocks_that_stay_count_what_python_needs_for_them(source):
    """A million of them would else take hundreds of megabytes that nobody sees."""
    size = source.load(0).nbytes
    assert size > source.load(0).data.nbytes + 500
    with resident(limit=20 * size) as kept:
        run_sweep(Sums(), source)
        assert len(kept._blocks) == 20
