from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import zarr

from emcube.engine import (
    ArrayTarget,
    DaskSource,
    ZarrTarget,
    listen,
    map_blocks,
    plan_blocks,
    project_memory,
    resident,
    run_sweep,
    use_threads,
)
from emcube.engine.executor import DistributedExecutor, ThreadExecutor, current_executor
from emcube.engine.memory import Projection, Residency, format_bytes, parse_bytes
from emcube.errors import (
    BudgetError,
    ConservationError,
    EngineError,
    InputError,
    InterruptedRunError,
    StoreError,
)
from tests.engine.sweeps_for_tests import (
    CountsLoads,
    FailsAt,
    HugeStatistic,
    Interrupts,
    Leaves,
    Sums,
    leaves,
    totals,
)

SHAPE = (13, 16, 20, 50)


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).poisson(0.05, SHAPE).astype(np.uint8)


@pytest.fixture(scope="module")
def source(values):
    whole = DaskSource.from_array(da.from_array(values, chunks=(1, 16, 20, 50), name="v"), 3)
    plan = plan_blocks(SHAPE[:3], 50, 1, (1, 16, 20), target_bytes=20_000)
    assert plan.n_blocks == 13
    return replace(whole, plan=plan)


@pytest.fixture
def client(cluster_client):
    return cluster_client


def same_bits(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.state, b.state, strict=True))


def test_one_two_and_four_threads_and_two_processes_give_the_same_bits(source, values, client):
    outcomes = []
    for n in (1, 2, 4):
        with use_threads(n):
            outcomes.append(run_sweep(Sums(3), source, seed=5, max_rounds=9))
    outcomes.append(
        run_sweep(Sums(3), source, seed=5, max_rounds=9, executor=DistributedExecutor(client))
    )
    assert all(same_bits(outcomes[0], o) for o in outcomes[1:])
    assert outcomes[0].n_rounds == 3
    assert outcomes[0].converged
    expected = values.sum(axis=(0, 1, 2), dtype=float) * np.pi
    np.testing.assert_allclose(outcomes[0].state[0], expected)
    assert not same_bits(outcomes[0], run_sweep(Sums(3), source, seed=6, max_rounds=9))


def test_an_active_client_is_used_and_nothing_else_is_started(client):
    assert isinstance(current_executor(), ThreadExecutor)
    with client.as_current():
        assert isinstance(current_executor(), DistributedExecutor)


def test_maps_are_written_region_by_region(source, values, client, tmp_path):
    from emcube.engine.executor import ThreadExecutor

    expected = values.sum(axis=-1, dtype=float)
    out = np.zeros(SHAPE[:3])
    map_blocks(totals, source, {"total": ArrayTarget(out)})
    np.testing.assert_array_equal(out, expected)
    for name, executor in (("t", ThreadExecutor(2)), ("d", DistributedExecutor(client))):
        array = zarr.create_array(
            str(tmp_path / name), shape=SHAPE[:3], chunks=(1, 16, 10), dtype="f8"
        )
        target = ZarrTarget(str(tmp_path / name), "")
        map_blocks(totals, source, {"total": target}, executor=executor)
        np.testing.assert_array_equal(array[:], expected)


def test_a_chunk_of_fill_values_is_written_too(tmp_path):
    store = str(tmp_path / "z")
    zarr.create_array(store, shape=(8, 2), chunks=(4, 2), dtype="f8", fill_value=np.nan)
    target = ZarrTarget(store, "")
    region = (slice(4, 8), slice(0, 2))
    assert not target.holds(region)
    target.write(region, np.full((4, 2), np.nan))
    assert target.holds(region)
    assert zarr.open_array(store).nchunks_initialized == 1


def test_a_chunk_that_two_blocks_would_write_is_refused_before_anything_runs(source, tmp_path):
    zarr.create_array(str(tmp_path / "z"), shape=SHAPE[:3], chunks=(2, 16, 20), dtype="f8")
    with pytest.raises(EngineError, match="dim 0 has chunks of 2 and blocks of 1"):
        map_blocks(totals, source, {"total": ZarrTarget(str(tmp_path / "z"), "")})


def test_pixels_that_are_not_selected_get_the_fill_value(values):
    pixels = np.random.default_rng(2).random(SHAPE[:3]) < 0.5
    source = DaskSource.from_array(da.from_array(values), 3, pixels=pixels)
    out = np.zeros(SHAPE[:3])
    map_blocks(totals, source, {"total": ArrayTarget(out, -1.0)})
    np.testing.assert_array_equal(out, np.where(pixels, values.sum(axis=-1, dtype=float), -1))


def test_lost_pixels_are_noticed(source):
    class Leaky(type(source)):
        def load(self, block_id):
            block = super().load(block_id)
            return block.subset(np.arange(block.n_pixels - 1)) if block_id == 3 else block

    leaky = Leaky(source.plan, source.selection, "leaky", source.array)
    with pytest.raises(ConservationError, match="4159 pixels of 13 blocks were counted, 4160"):
        run_sweep(Sums(), leaky)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_names_its_block(source, threads):
    with use_threads(threads), pytest.raises(EngineError) as caught:
        run_sweep(FailsAt(), source)
    assert "block 2 (positions 2:3, 0:16, 0:20): ZeroDivisionError" in str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_failure_on_a_worker_process_names_its_block(source, client):
    with pytest.raises(EngineError, match=r"block 2 \(positions 2:3"):
        run_sweep(FailsAt(), source, executor=DistributedExecutor(client))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit])
def test_whatever_a_map_raises_names_its_block(source, threads, kind):
    with (
        use_threads(threads),
        pytest.raises(EngineError, match=r"block 2 \(positions 2:3") as caught,
    ):
        run_sweep(Leaves(kind=kind), source)
    assert isinstance(caught.value.__cause__, kind)
    out = np.empty(SHAPE[:3])
    with use_threads(threads), pytest.raises(EngineError, match=r"block \d+ .*SystemExit: gone"):
        map_blocks(leaves, source, {"total": ArrayTarget(out)})


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_whatever_a_map_raises_on_a_worker_names_its_block(source, client, kind):
    with pytest.raises(EngineError, match=rf"block 2 \(positions 2:3.*{kind.__name__}: gone"):
        run_sweep(Leaves(kind=kind), source, executor=DistributedExecutor(client))


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_says_what_is_incomplete(source, threads):
    with use_threads(threads), pytest.raises(InterruptedRunError, match="stopped in round 1") as e:
        run_sweep(Interrupts(), source)
    assert "it has no result" in str(e.value)
    assert isinstance(e.value, KeyboardInterrupt)


def test_no_pixels_is_an_error(source):
    empty = DaskSource.from_array(source.array, 3, pixels=np.zeros(SHAPE[:3], dtype=bool))
    with pytest.raises(EngineError, match="no pixels"):
        run_sweep(Sums(), empty)


def test_blocks_stay_between_rounds_as_far_as_the_budget_goes(source, values):
    loads = []

    class Watched(type(source)):
        def load(self, block_id):
            loads.append(block_id)
            return super().load(block_id)

    watched = Watched(source.plan, source.selection, "watched", source.array)
    with resident() as residency:
        first = run_sweep(Sums(4), watched, max_rounds=4)
        again = run_sweep(Sums(4), watched, max_rounds=4)
        assert sorted(loads) == list(range(13))
        assert residency.used > 0
    assert residency.used == 0
    loads.clear()
    with resident(limit=residency_of(source) // 2) as small:
        tight = run_sweep(Sums(4), watched, max_rounds=4)
        assert small.used <= small.limit
    assert 13 < len(loads) < 4 * 13
    assert same_bits(first, again)
    assert same_bits(first, tight)


def residency_of(source):
    return sum(source.load(i).nbytes for i in range(source.plan.n_blocks))


def test_the_blocks_of_worker_processes_are_let_go(source, client, tmp_path):
    from emcube.engine.adoption import _sessions

    def held():
        return len(_sessions)

    run_sweep(
        CountsLoads(2, folder=str(tmp_path)),
        source,
        max_rounds=2,
        executor=DistributedExecutor(client),
    )
    assert len(list(tmp_path.iterdir())) == 26
    assert set(client.run(held).values()) == {0}


def test_a_run_that_cannot_fit_is_refused_with_advice(source, monkeypatch):
    monkeypatch.setenv("EMCUBE_MEMORY", "10 kB")
    with pytest.raises(BudgetError) as caught:
        run_sweep(Sums(), source)
    assert "ingest the cube into a store with chunks of at most" in str(caught.value)
    assert isinstance(caught.value, MemoryError)
    monkeypatch.setenv("EMCUBE_MEMORY", "1 GB")
    with pytest.raises(BudgetError, match="window or bin the signal"):
        run_sweep(HugeStatistic(), source)


def test_progress_events_tell_blocks_and_rounds(source):
    events = []
    with listen(events.append):
        run_sweep(Sums(2), source, max_rounds=2)
    kinds = [e.kind for e in events]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("block") == 26
    assert kinds.count("round") == 2
    assert events[13].blocks_done == 13
    assert events[13].pixels_done == events[13].n_pixels == 4160


def test_what_does_not_stay_is_told_with_every_round_and_logged_once(source, client, caplog):
    caplog.set_level("INFO", logger="emcube.engine.loop")
    for executor, limit in ((ThreadExecutor(2), residency_of(source) // 2), (None, None)):
        events = []
        with resident(limit=limit), listen(events.append):
            for _ in range(2):
                run_sweep(Sums(3), source, seed=5, max_rounds=9, executor=executor)
        stay = {e.resident_blocks for e in events if e.kind == "round"}
        (number,) = stay
        assert (number == 13) if limit is None else (0 < number < 13)
    (record,) = [r for r in caplog.records if "read" in r.message]
    assert "of 13 blocks fit the memory budget and stay" in record.message
    events = []
    with resident(), listen(events.append):
        run_sweep(Sums(3), source, max_rounds=9, executor=DistributedExecutor(client))
    assert {e.resident_blocks for e in events if e.kind == "round"} == {13}


def test_the_projection_holds_process_resident_blocks_and_what_flies(source):
    with resident(limit=1000):
        found = project_memory(HugeStatistic(), source, 2)
    assert found.resident == 1000
    assert found.process > 20_000_000
    assert found.peak == found.process + found.resident + found.blocks + found.statistics
    assert found.total == found.blocks + found.statistics
    events = []
    with listen(events.append):
        run_sweep(Sums(2), source, max_rounds=2)
    start, *others = events
    assert start.projected_bytes > found.process
    assert all(e.projected_bytes is None for e in others)


def test_output_never_goes_into_what_takes_its_place(source, tmp_path):
    """A worker that was frozen wakes when another run has an array in the same place."""
    path = str(tmp_path / "z")
    shape = source.plan.nav_shape

    def make(value):
        zarr.create_array(
            path, shape=shape, chunks=source.plan.block_shape, dtype="f8", overwrite=True
        )[...] = value

    make(0.0)
    target = ZarrTarget(path, "").bound()
    target.write(source.plan.slices(0), np.ones(source.plan.shape(0)))
    make(2.0)
    with pytest.raises(StoreError, match="removed or replaced while"):
        target.write(source.plan.slices(0), np.ones(source.plan.shape(0)))
    assert (zarr.open_array(path)[...] == 2.0).all()


def test_workers_are_held_to_their_own_memory(source, cluster_client, monkeypatch):
    executor = DistributedExecutor(cluster_client)
    limits = [w["memory_limit"] for w in cluster_client.scheduler_info()["workers"].values()]
    assert executor.process == (1, min(limits) // 2)  # threads of one worker, not of all
    monkeypatch.setenv("EMCUBE_MEMORY", "10 kB")  # what the client has does not matter
    assert run_sweep(Sums(), source, executor=executor).n_rounds == 1
    monkeypatch.setattr(executor.watch, "memory", dict.fromkeys(executor.watch.memory, 20_000))
    with pytest.raises(BudgetError, match="give workers more memory"):
        run_sweep(Sums(), source, executor=executor)


def test_sizes():
    assert parse_bytes("2 GiB") == 2**31
    assert parse_bytes("500MB") == 500_000_000
    assert parse_bytes("12") == 12
    with pytest.raises(InputError, match="not a size"):
        parse_bytes("lots")
    assert format_bytes(1536) == "1.5 KiB"


def test_the_projection_names_the_larger_item():
    with pytest.raises(BudgetError, match="blocks of"):
        Projection(100, 10, 2, 20).require(50, "x")
    with pytest.raises(BudgetError, match="statistics"):
        Projection(10, 100, 2, 20).require(50, "x")


def test_a_full_residency_keeps_what_it_has():
    class Thing:
        nbytes = 6

    residency = Residency(10)
    assert residency.keep("a", 0, Thing())
    assert not residency.keep("a", 1, Thing())
    assert residency.get("a", 0) is not None
    assert residency.get("a", 1) is None
