"""Answers that are shared inside a context, and several sweeps in one pass."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import zarr

from emcube.engine import (
    ArrayTarget,
    DaskSource,
    Writing,
    ZarrTarget,
    listen,
    plan_blocks,
    resident,
    run_sweep,
    run_sweeps,
    use_threads,
)
from emcube.engine.executor import DistributedExecutor
from emcube.engine.memory import Residency
from emcube.errors import EngineError
from tests.engine.sweeps_for_tests import SharedSums, Sums, totals

SHAPE = (13, 16, 20, 50)


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).poisson(0.05, SHAPE).astype(np.uint8)


@pytest.fixture(scope="module")
def source(values):
    whole = DaskSource.from_array(da.from_array(values, chunks=(1, 16, 20, 50), name="s"), 3)
    return replace(whole, plan=plan_blocks(SHAPE[:3], 50, 1, (1, 16, 20), target_bytes=20_000))


def test_an_answer_is_found_once_inside_a_context_and_forgotten_after_it(source):
    marks: list[int] = []
    with resident() as residency:
        first = run_sweep(SharedSums(marks=marks), source)
        before = residency.used
        again = run_sweep(SharedSums(marks=marks, name="other name"), source)
        assert sorted(marks) == list(range(13))
        assert again is first
        assert residency.used == before
        with pytest.raises(ValueError, match="read-only"):
            first.state[0][0] = 1.0
        run_sweep(SharedSums(factor=2.0, marks=marks), source)
        assert len(marks) == 26
    assert residency.used == 0
    run_sweep(SharedSums(marks=marks), source)
    assert len(marks) == 39


def test_answers_belong_to_the_values_and_the_selection(source, values):
    marks: list[int] = []
    some = np.arange(13 * 16 * 20).reshape(SHAPE[:3]) % 2 == 0
    others = [
        DaskSource.from_array(source.array, 3, pixels=some),
        DaskSource.from_array(source.array, 3, channels=np.arange(7)),
        DaskSource.from_array(da.from_array(values + 1, chunks=(1, 16, 20, 50)), 3),
    ]
    with resident():
        whole = run_sweep(SharedSums(marks=marks), source)
        for other in others:
            marks.clear()
            found = run_sweep(SharedSums(marks=marks), other)
            assert len(marks) == other.plan.n_blocks
            assert found is not whole


def test_an_answer_that_is_not_accepted_is_asked_anew(source):
    marks: list[int] = []
    with resident():
        run_sweep(SharedSums(marks=marks), source)
        run_sweep(SharedSums(marks=marks, least=np.inf), source)
        assert len(marks) == 26


def test_answers_that_follow_from_another_are_kept(source):
    class Halves(SharedSums):
        answers_to = ("halves", np.pi)

        def map(self, block, state, rng_key):
            raise AssertionError("known already")

    with resident():
        whole = run_sweep(SharedSums(), source).state[0]
        np.testing.assert_array_equal(run_sweep(Halves(), source).state[0], whole / 2)


def test_a_given_state_and_random_sweeps_are_never_shared(source):
    marks: list[int] = []
    with resident():
        run_sweep(SharedSums(marks=marks), source)
        run_sweep(SharedSums(marks=marks), source, state="mine")
        assert len(marks) == 26
        a = run_sweep(Sums(), source, seed=1).state[1]
        b = run_sweep(Sums(), source, seed=2).state[1]
        assert not np.array_equal(a, b)


def test_several_sweeps_take_one_pass_and_keep_their_bits(source, values, cluster_client, tmp_path):
    sweeps = [SharedSums(), Sums(), SharedSums(factor=2.0), SharedSums()]
    alone = [run_sweep(s, source) for s in sweeps]
    loads = []

    class Watched(type(source)):
        def load(self, block_id):
            loads.append(block_id)
            return super().load(block_id)

    watched = Watched(source.plan, source.selection, "watched one pass", source.array)
    for threads in (1, 2):
        loads.clear()
        out = np.zeros(SHAPE[:3])
        writing = Writing(totals, source.plan, {"total": ArrayTarget(out)})
        with use_threads(threads):
            *together, written = run_sweeps([*sweeps, writing], watched)
        assert sorted(loads) == list(range(13))
        assert written.state is None
        np.testing.assert_array_equal(out, values.sum(axis=-1, dtype=float))
        for one, other in zip(alone, together, strict=True):
            assert other.converged
            assert all(np.array_equal(a, b) for a, b in zip(one.state, other.state, strict=True))
    path = str(tmp_path / "z")
    array = zarr.create_array(path, shape=SHAPE[:3], chunks=(1, 16, 20), dtype="f8")
    writing = Writing(totals, source.plan, {"total": ZarrTarget(path, "")})
    remote = run_sweeps([*sweeps, writing], source, executor=DistributedExecutor(cluster_client))
    np.testing.assert_array_equal(array[:], values.sum(axis=-1, dtype=float))
    for one, other in zip(alone, remote[:-1], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.state, other.state, strict=True))


def test_what_is_known_is_not_run_with_the_others(source):
    marks: list[int] = []
    events = []
    with resident(), listen(events.append):
        run_sweep(SharedSums(), source)
        events.clear()
        known, new = run_sweeps([SharedSums(marks=marks), SharedSums(2.0)], source)
        assert not marks
        assert {e.name for e in events} == {"shared sums"}
        np.testing.assert_allclose(known.state[0] * 2 / np.pi, new.state[0])
        events.clear()
        run_sweeps([SharedSums(marks=marks), SharedSums(2.0, marks=marks)], source)
        assert not marks
        assert not events


def test_writing_two_blocks_into_one_chunk_is_refused_before_anything_runs(source, tmp_path):
    path = str(tmp_path / "z")
    zarr.create_array(path, shape=SHAPE[:3], chunks=(2, 16, 20), dtype="f8")
    with pytest.raises(EngineError, match="dim 0 has chunks of 2 and blocks of 1"):
        run_sweeps([Writing(totals, source.plan, {"total": ZarrTarget(path, "")})], source)


def test_a_sweep_of_several_rounds_does_not_go_with_others(source):
    with pytest.raises(EngineError, match="sums is not done after one round"):
        run_sweeps([SharedSums(), Sums(rounds=2)], source)


def test_blocks_give_way_to_answers_of_a_quarter_of_the_limit():
    class Thing:
        nbytes = 40

    residency = Residency(160)
    assert all(residency.keep("a", i, Thing()) for i in range(4))
    assert not residency.keep_answer("large", np.zeros(6))
    assert residency.used == 160
    assert residency.keep_answer("small", {"x": (np.zeros(2), 1)})
    assert residency.answer("small") is not None
    assert residency.get("a", 0) is not None
    assert residency.get("a", 3) is None
    assert residency.used == 3 * 40 + 16
    shared = residency.answer("small")["x"][0]
    assert residency.keep_answer("same array", [shared])
    assert residency.used == 3 * 40 + 16
    assert not residency.keep_answer("too much", np.zeros(4))
    residency.clear()
    assert residency.used == 0
    assert residency.answer("small") is None


def test_resident_blocks_are_those_of_the_same_cut(values):
    """One array as a cube of pixels and of lines: neither gets the blocks of the other."""
    array = da.from_array(values, chunks=(4, 16, 20, 50), name="cut")
    pixels, lines = (DaskSource.from_array(array, n_nav) for n_nav in (3, 2))
    finer = replace(pixels, plan=plan_blocks(SHAPE[:3], 50, 1, (1, 16, 20), target_bytes=20_000))
    with resident():
        for source in (pixels, lines, finer, pixels):
            (sums,) = run_sweep(SharedSums(), source).state
            expected = values.reshape(source.n_pixels, source.n_channels).sum(axis=0)
            np.testing.assert_allclose(sums, expected * np.pi, rtol=1e-12)
