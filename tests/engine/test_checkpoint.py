"""Checkpoints: a run that was stopped anywhere goes on, to the bits of one that was not."""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

import emcube as em
from emcube.engine import (
    ArraySource,
    DaskSource,
    Event,
    ZarrTarget,
    checkpointing,
    listen,
    map_blocks,
    plan_blocks,
    resident,
    run_sweep,
    run_sweeps,
    stop_on_signals,
    use_threads,
)
from emcube.engine.checkpoint import look, remembered
from emcube.engine.executor import ThreadExecutor
from emcube.engine.states import MAGIC, pack, unpack
from emcube.errors import (
    EngineError,
    InputError,
    InterruptedRunError,
    PreemptedRunError,
    StoreError,
)
from emcube.models.labels import as_source
from emcube.models.noise import PoissonNoise
from emcube.models.pca_sweeps import GramSweep
from emcube.models.sweeps import TotalsSweep
from tests.engine.sweeps_for_tests import CountsLoads, FailsAt, SharedSums, Sums, totals

SHAPE = (13, 16, 20, 50)


@pytest.fixture(scope="module")
def values() -> Any:
    return np.random.default_rng(0).poisson(0.05, SHAPE).astype(np.uint8)


@pytest.fixture(scope="module")
def source(values: Any) -> DaskSource:
    whole = DaskSource.from_array(da.from_array(values, chunks=(1, 16, 20, 50), name="v"), 3)
    return replace(whole, plan=plan_blocks(SHAPE[:3], 50, 1, (1, 16, 20), target_bytes=20_000))


def same(a: Any, b: Any) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


@contextmanager
def interrupted_at(matches: Callable[[Event], bool]) -> Iterator[None]:
    """Ctrl-C at the first event that matches."""

    def watch(event: Event) -> None:
        if matches(event):
            raise KeyboardInterrupt

    with listen(watch), pytest.raises(KeyboardInterrupt):
        yield


@contextmanager
def expected(error: type[BaseException], match: str | None = None) -> Iterator[None]:
    """What is inside ends with an error."""
    with pytest.raises(error, match=match):
        yield


@contextmanager
def dies() -> Iterator[None]:
    """Innermost of several contexts: they end with an interrupt."""
    yield
    raise KeyboardInterrupt


def fails(event: Event) -> None:
    """Whoever listens with this wants no pass."""
    raise AssertionError(f"a pass was made: {event}")


def in_round(number: int) -> Callable[[Event], bool]:
    return lambda e: e.kind == "block" and e.round == number


# --------------------------------------------------------------------------------------- one sweep


def test_goes_on_after_the_last_round(source: DaskSource, tmp_path: Path) -> None:
    marks, folder = tmp_path / "marks", tmp_path / "kept"
    marks.mkdir()
    sweep = CountsLoads(rounds=6, folder=str(marks))
    whole = run_sweep(sweep, source, seed=3, max_rounds=6)
    with interrupted_at(in_round(3)), checkpointing(folder, interval=0):
        run_sweep(sweep, source, seed=3, max_rounds=6)
    assert [h["rounds"] for h in look(folder)] == [3]
    for mark in marks.iterdir():
        mark.unlink()
    with checkpointing(folder, interval=0) as kept:
        again = run_sweep(sweep, source, seed=3, max_rounds=6)
        assert kept.restored == 1
    assert same(again.state, whole.state)
    assert (again.n_rounds, again.converged) == (6, True)
    assert {m.name.split("-")[0] for m in marks.iterdir()} == {"3", "4", "5"}
    assert not folder.exists()  # complete: nothing is left


def test_what_is_finished_needs_no_pass(source: DaskSource, tmp_path: Path) -> None:
    def both(rounds: int) -> list[Any]:
        a = run_sweep(Sums(rounds=2), source, seed=1, max_rounds=2).state
        b = run_sweep(Sums(rounds=rounds, name="second"), source, seed=2, max_rounds=9).state
        return [*a, *b]

    whole = both(3)
    with interrupted_at(lambda e: e.name == "second"), checkpointing(tmp_path / "k", interval=0):
        both(3)
    seen: list[str] = []
    with listen(lambda e: seen.append(e.name)), checkpointing(tmp_path / "k", interval=0):
        assert same(both(3), whole)
    assert "sums" not in seen


def test_the_message_says_what_is_kept(source: DaskSource, tmp_path: Path) -> None:
    def watch(event: Event) -> None:
        if event.kind == "block" and event.round == 2:
            raise KeyboardInterrupt

    with (
        listen(watch),
        pytest.raises(
            InterruptedRunError, match="in round 3, after 1 of 13 blocks: 2 of its rounds"
        ),
        checkpointing(tmp_path, interval=0),
    ):
        run_sweep(Sums(rounds=5), source, max_rounds=5)
    with listen(watch), pytest.raises(InterruptedRunError, match="it has no result"):
        run_sweep(Sums(rounds=5), source, max_rounds=5)


def test_a_failing_block_leaves_the_rounds_before_it(source: DaskSource, tmp_path: Path) -> None:
    with expected(EngineError, "no such luck"), checkpointing(tmp_path / "k", interval=3600):
        run_sweep(Sums(rounds=2), source, max_rounds=2)
        run_sweep(FailsAt(), source)
    assert [h["name"] for h in look(tmp_path / "k")] == ["sums"]


def test_short_runs_write_nothing(source: DaskSource, tmp_path: Path) -> None:
    seen: list[Any] = []

    def watch(event: Event) -> None:
        seen.extend(tmp_path.rglob("*.checkpoint"))

    with listen(watch), checkpointing(tmp_path / "k") as kept:
        run_sweep(Sums(rounds=5), source, max_rounds=5)
    assert kept.seconds == 0
    assert seen == []


@pytest.mark.parametrize(("threads", "limit"), [(1, 0), (2, 1 << 30), (5, 40_000)])
def test_threads_and_budgets_may_change(
    source: DaskSource, tmp_path: Path, threads: int, limit: int
) -> None:
    whole = run_sweep(Sums(rounds=4), source, seed=5, max_rounds=4)
    with (
        interrupted_at(in_round(2)),
        use_threads(3),
        resident(60_000),
        checkpointing(tmp_path, interval=0),
    ):
        run_sweep(Sums(rounds=4), source, seed=5, max_rounds=4)
    with use_threads(threads), resident(limit), checkpointing(tmp_path, interval=0) as kept:
        again = run_sweep(Sums(rounds=4), source, seed=5, max_rounds=4)
    assert kept.restored == 1
    assert same(again.state, whole.state)


@pytest.mark.slow
def test_threads_and_processes_take_turns(
    source: DaskSource, tmp_path: Path, cluster_client: Any
) -> None:
    whole = run_sweep(Sums(rounds=4), source, seed=5, max_rounds=4)
    with interrupted_at(in_round(1)), checkpointing(tmp_path, interval=0):
        run_sweep(Sums(rounds=4), source, seed=5, max_rounds=4)
    with use_threads(2), interrupted_at(in_round(3)), checkpointing(tmp_path, interval=0) as kept:
        run_sweep(Sums(rounds=4), source, seed=5, max_rounds=4, executor=ThreadExecutor())
    assert kept.restored == 1
    with checkpointing(tmp_path, interval=0) as kept:
        again = run_sweep(Sums(rounds=4), source, seed=5, max_rounds=4)
    assert kept.restored == 1
    assert same(again.state, whole.state)


# ---------------------------------------------------------------------------- answers that are shared


def test_shared_answers_outlive_the_process(source: DaskSource, tmp_path: Path) -> None:
    marks: list[int] = []
    with resident():
        whole = run_sweep(SharedSums(), source).state
    with (
        interrupted_at(lambda e: e.name == "sums"),
        checkpointing(tmp_path, interval=0),
        resident(),
    ):
        run_sweep(SharedSums(), source)
        run_sweep(Sums(), source)
    with checkpointing(tmp_path, interval=0), resident():
        # Another order of questions: answers go by what is asked.
        halves, again = run_sweeps([SharedSums(factor=2.0), SharedSums(marks=marks)], source)
        assert marks == []
        assert again.state[0].tobytes() == whole[0].tobytes()
        assert not again.state[0].flags.writeable
        assert halves.state[0].shape == whole[0].shape


def test_an_answer_is_of_its_data(values: Any, tmp_path: Path) -> None:
    def of(array: Any) -> Any:
        return run_sweep(TotalsSweep(counts=True), ArraySource.from_array(array, 3)).state.channels

    other = values.copy()
    other[3, 2, 1, 0] += 1
    with (
        expected(KeyboardInterrupt),
        checkpointing(tmp_path, interval=0),
        resident(),
        dies(),
    ):
        of(values)
    with (
        expected(KeyboardInterrupt),
        checkpointing(tmp_path, interval=0) as kept,
        resident(),
        dies(),
    ):
        np.testing.assert_array_equal(of(values), values.sum((0, 1, 2)))
        assert kept.restored
    with checkpointing(tmp_path, interval=0) as kept, resident():
        np.testing.assert_array_equal(of(other), other.sum((0, 1, 2)))
        assert not kept.restored


def test_a_store_that_was_written_anew_is_another(values: Any, tmp_path: Path) -> None:
    """One count changed between the first block and the last."""
    place, kept = tmp_path / "map.zarr", tmp_path / "kept"

    def ingest(counts: Any) -> None:
        dims = ("tilt", "y", "x", "energy")
        cube = em.make_cube(counts, dims=dims, sig_dims=("energy",)).chunk({"tilt": 1})
        em.ingest(cube, place, overwrite=True)

    def found() -> Any:
        source, _ = as_source(em.open(place))
        plan = plan_blocks(SHAPE[:3], 50, 1, (1, 16, 20), target_bytes=20_000)
        return run_sweep(TotalsSweep(counts=True), replace(source, plan=plan)).state.channels

    ingest(values)
    with expected(KeyboardInterrupt), checkpointing(kept, interval=0), dies():
        before = found()
    with expected(KeyboardInterrupt), checkpointing(kept, interval=0), dies(), listen(fails):
        np.testing.assert_array_equal(found(), before)
    other = values.copy()
    other[3, 2, 1, 0] += 1
    ingest(other)
    with checkpointing(kept, interval=0):
        np.testing.assert_array_equal(found(), other.sum(axis=(0, 1, 2)))


# ------------------------------------------------------------------------------- what is not usable


@pytest.fixture
def stopped(source: DaskSource, tmp_path: Path) -> tuple[Path, Any]:
    """Folder with a checkpoint of three rounds, and the answer."""
    with interrupted_at(in_round(3)), checkpointing(tmp_path / "k", interval=0, identity="run 1"):
        run_sweep(Sums(rounds=5), source, seed=5, max_rounds=5)
    return tmp_path / "k", run_sweep(Sums(rounds=5), source, seed=5, max_rounds=5).state


def go_on(folder: Path, source: Any, *, identity: str = "run 1", seed: int = 5) -> tuple[Any, int]:
    with checkpointing(folder, interval=0, identity=identity) as kept:
        state = run_sweep(Sums(rounds=5), source, seed=seed, max_rounds=5).state
    return state, kept.restored


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:],
        lambda data: b"\x80\x04" + data,
    ],
    ids=["truncated", "empty", "a flipped bit", "something else"],
)
def test_a_damaged_checkpoint_is_named_and_not_used(
    stopped: tuple[Path, Any],
    source: DaskSource,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, whole = stopped
    (file,) = folder.rglob("*.checkpoint")
    file.write_bytes(damage(file.read_bytes()))
    assert look(folder) == []
    state, restored = go_on(folder, source)
    assert restored == 0
    assert same(state, whole)
    assert f"the checkpoint {file} is not used: it is damaged" in caplog.text


@pytest.mark.parametrize("what", ["a number", "no texts", "a folder", "text for numbers"])
def test_an_odd_checkpoint_with_the_right_digest_is_not_used(
    stopped: tuple[Path, Any], source: DaskSource, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, whole = stopped
    (file,) = folder.rglob("*.checkpoint")
    header, value = unpack(file.read_bytes())
    if what == "a folder":
        file.unlink()
        file.mkdir()
    else:
        header = {"name": 3} if what == "no texts" else header
        header = {**header, "rounds": "3"} if what == "text for numbers" else header
        file.write_bytes(b"".join(pack(header, 5 if what == "a number" else value)))
    state, restored = go_on(folder, source)
    assert restored == 0
    assert same(state, whole)
    assert f"the checkpoint {file} is not used: it is damaged" in caplog.text


def test_a_lock_that_is_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with (
        pytest.raises(StoreError, match=r"the lock of checkpoints .* cannot be opened"),
        checkpointing(tmp_path),
    ):
        pass
    assert (tmp_path / "lock").is_dir()


def test_a_checkpoint_of_something_else_is_not_used(
    stopped: tuple[Path, Any], source: DaskSource, caplog: pytest.LogCaptureFixture
) -> None:
    folder, _ = stopped
    state, restored = go_on(folder, source, seed=6)
    assert restored == 0
    assert same(state, run_sweep(Sums(rounds=5), source, seed=6, max_rounds=5).state)
    assert "it is of other data, parameters or another order of calls" in caplog.text


def test_a_checkpoint_of_another_run_is_not_used(
    stopped: tuple[Path, Any], source: DaskSource, caplog: pytest.LogCaptureFixture
) -> None:
    folder, whole = stopped
    state, restored = go_on(folder, source, identity="run 2")
    assert restored == 0
    assert same(state, whole)
    assert "it is of another run" in caplog.text


@contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond some bytes: the system refuses to write more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)


def test_a_full_disk_does_not_spoil_the_run(
    source: DaskSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run_sweep(Sums(rounds=6), source, max_rounds=6).state
    folder = tmp_path / "k"
    with interrupted_at(in_round(2)), checkpointing(folder, interval=0):
        run_sweep(Sums(rounds=6), source, max_rounds=6)
    with interrupted_at(in_round(4)), full_disk(300), checkpointing(folder, interval=0):
        run_sweep(Sums(rounds=6), source, max_rounds=6)
    assert caplog.text.count("a checkpoint could not be written") == 1
    # The one before is still there and whole; nothing lies beside it.
    assert [h["rounds"] for h in look(folder)] == [2]
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["000000.checkpoint", "lock"]
    with checkpointing(folder, interval=0) as kept:
        assert same(run_sweep(Sums(rounds=6), source, max_rounds=6).state, whole)
    assert kept.restored == 1


def test_a_folder_serves_one_process(tmp_path: Path) -> None:
    with (
        checkpointing(tmp_path),
        pytest.raises(StoreError, match="another process is writing checkpoints"),
        checkpointing(tmp_path),
    ):
        pass


def test_other_files_in_the_folder_stay(source: DaskSource, tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    for name in ("notes.txt", "calls/notes.txt"):
        (tmp_path / name).write_text("mine")
    with checkpointing(tmp_path, interval=0):
        run_sweep(Sums(rounds=3), source, max_rounds=3)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"notes.txt", "lock"}


def test_files_that_look_like_checkpoints_stay(source: DaskSource, tmp_path: Path) -> None:
    names = ["models/epoch3.checkpoint", "in-house/000000.checkpoint", "calls/epoch3.checkpoint"]
    names += ["calls/.epoch3.checkpoint.1.partial", "answers/.000000.checkpoint.1.partial", "lock"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    with checkpointing(tmp_path, interval=0):
        run_sweep(Sums(rounds=3), source, max_rounds=3)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(names)
    assert all((tmp_path / name).read_text() == "mine" for name in names)


def test_a_folder_with_a_lock_of_others_stays(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("mine")
    with checkpointing(tmp_path):
        pass
    assert (tmp_path / "lock").read_text() == "mine"


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    for number, head in enumerate([b"", MAGIC[:5], MAGIC + b"more"]):
        (tmp_path / "calls" / f".000000.checkpoint.{number}.partial").write_bytes(head)
    with checkpointing(tmp_path):
        assert not list((tmp_path / "calls").iterdir())
    assert not tmp_path.exists()


@pytest.mark.parametrize("wish", [-1, "soon", float("nan"), True])
def test_the_interval_must_be_seconds(tmp_path: Path, wish: Any) -> None:
    with (
        pytest.raises(InputError, match="seconds from 0 on"),
        checkpointing(tmp_path, interval=wish),
    ):
        pass


def test_the_environment_sets_the_interval(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("EMCUBE_CHECKPOINT", "12.5")
    with checkpointing(tmp_path) as kept:
        assert kept.interval == 12.5
    monkeypatch.setenv("EMCUBE_CHECKPOINT", "often")
    with pytest.raises(InputError, match="EMCUBE_CHECKPOINT"), checkpointing(tmp_path):
        pass


def test_other_threads_are_not_numbered(source: DaskSource, tmp_path: Path) -> None:
    with checkpointing(tmp_path / "k", interval=0):
        thread = threading.Thread(target=run_sweep, args=(Sums(rounds=1), source))
        thread.start()
        thread.join()
        assert list((tmp_path / "k").rglob("*.checkpoint")) == []
        run_sweep(Sums(rounds=1), source)
        assert [p.name for p in (tmp_path / "k").rglob("*.checkpoint")] == ["000000.checkpoint"]


def test_what_was_drawn_is_drawn_once(tmp_path: Path) -> None:
    drawn = iter(range(10))

    def draw() -> int:
        return next(drawn)

    with expected(KeyboardInterrupt), checkpointing(tmp_path, interval=3600), dies():
        assert [remembered("seed", draw), remembered("seed", draw)] == [0, 1]
    with checkpointing(tmp_path):
        assert [remembered("seed", draw) for _ in range(3)] == [0, 1, 2]
    assert remembered("seed", draw) == 3


# -------------------------------------------------------------------------------- per-pixel output


def test_written_groups_stay_unless_they_are_damaged(source: DaskSource, tmp_path: Path) -> None:
    store = str(tmp_path / "out.zarr")
    array = zarr.create_array(
        store,
        name="total",
        shape=SHAPE[:3],
        chunks=(1, 16, 20),
        dtype="f8",
        fill_value=np.nan,
        compressors=[zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()],
    )
    target = {"total": ZarrTarget(store, "total")}

    def write(continues: str | None = "first") -> None:
        map_blocks(totals, source, target, continues=continues)

    with (
        interrupted_at(lambda e: e.blocks_done == 8),
        use_threads(1),
        checkpointing(tmp_path / "k", interval=0),
    ):
        write()
    (header,) = look(tmp_path / "k")
    assert (header["groups"], header["n_groups"]) == (8, 13)
    chunks = sorted((tmp_path / "out.zarr" / "total" / "c").rglob("0"), key=str)
    files = [p for p in chunks if p.is_file()]
    assert len(files) == 8
    damaged, gone = files[2], files[4]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    gone.unlink()
    before = {p: p.stat().st_mtime_ns for p in files if p != gone}
    with checkpointing(tmp_path / "k", interval=0):
        write()
    after = {p: p.stat().st_mtime_ns for p in files}
    changed = {p for p in files if before.get(p) != after[p]}
    assert changed == {damaged, gone}
    np.testing.assert_array_equal(array[:], source.array.sum(-1).compute())


def test_groups_of_other_targets_are_written_anew(source: DaskSource, tmp_path: Path) -> None:
    def write(name: str, continues: str | None) -> Any:
        store = str(tmp_path / name)
        out = zarr.create_array(
            store, name="t", shape=SHAPE[:3], chunks=(1, 16, 20), dtype="f8", fill_value=-1.0
        )
        map_blocks(totals, source, {"total": ZarrTarget(store, "t", -1.0)}, continues=continues)
        return out

    for continues in ("a", None):
        with (
            interrupted_at(lambda e: e.blocks_done == 8),
            checkpointing(tmp_path / "k", interval=0),
        ):
            write(f"first-{continues}", continues)
    expected = source.array.sum(-1).compute()
    with checkpointing(tmp_path / "k", interval=0):
        np.testing.assert_array_equal(write("second", "b")[:], expected)


# ------------------------------------------------------------------------------------------ signals


def test_a_signal_lets_the_pass_finish_its_groups(source: DaskSource, tmp_path: Path) -> None:
    whole = run_sweep(Sums(rounds=5), source, max_rounds=5).state

    def watch(event: Event) -> None:
        if event.kind == "block" and (event.round, event.blocks_done) == (2, 4):
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(PreemptedRunError, match="stopped by SIGTERM: sums was stopped in round 3"),
        listen(watch),
        stop_on_signals(),
        checkpointing(tmp_path / "k", interval=3600),
    ):
        run_sweep(Sums(rounds=5), source, max_rounds=5)
    assert signal.getsignal(signal.SIGTERM) is before
    assert [h["rounds"] for h in look(tmp_path / "k")] == [2]
    with checkpointing(tmp_path / "k") as kept:
        assert same(run_sweep(Sums(rounds=5), source, max_rounds=5).state, whole)
    assert kept.restored == 1


def test_a_signal_at_the_end_of_a_round_does_not_lose_it(
    source: DaskSource, tmp_path: Path
) -> None:
    def watch(event: Event) -> None:
        if event.kind == "block" and (event.round, event.blocks_done) == (2, 13):
            os.kill(os.getpid(), signal.SIGUSR1)

    with (
        pytest.raises(PreemptedRunError, match=r"stopped by SIGUSR1: .* 3 of its rounds are kept"),
        listen(watch),
        stop_on_signals(),
        checkpointing(tmp_path / "k", interval=3600),
    ):
        run_sweep(Sums(rounds=5), source, max_rounds=5)


def test_outside_a_pass_a_signal_stops_at_once() -> None:
    with expected(PreemptedRunError, "stopped by SIGTERM"), stop_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal was not heard")


def test_signals_need_the_main_thread() -> None:
    caught: list[Exception] = []

    def elsewhere() -> None:
        try:
            with stop_on_signals():
                pass
        except EngineError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


# ------------------------------------------------------------------------------------ every estimator


def cube(seed: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    spectra = rng.dirichlet(np.full(40, 0.3), 3)
    phase = (np.add.outer(np.arange(18) // 6, np.zeros(20, int))) % 3
    counts = rng.poisson(60 * (0.85 * np.eye(3)[phase] + 0.05) @ spectra).astype(np.uint16)
    return em.make_cube(
        counts, dims=("y", "x", "energy"), sig_dims=("energy",), units={"energy": "keV"}
    )


def estimate(**options: Any) -> Callable[[], Any]:
    return lambda: em.estimate_n_components(cube(), random_state=0, **options).curve


def fitted(make: Callable[[], Any], more: bool = False) -> Callable[[], Any]:
    def fit() -> Any:
        model = make().fit(cube())
        return model.partial_fit(cube(4)) if more else model

    return fit


WORK: dict[str, Callable[[], Any]] = {
    "pca": fitted(lambda: em.IncrementalPCA(3, noise="poisson"), more=True),
    "pca-centred": fitted(lambda: em.IncrementalPCA(3, noise=None), more=True),
    "pca-randomized": fitted(
        lambda: em.IncrementalPCA(3, noise="poisson", svd_solver="randomized", random_state=0)
    ),
    "nmf": fitted(lambda: em.MiniBatchNMF(3, random_state=0, max_iter=8), more=True),
    "nmf-batches": fitted(
        lambda: em.MiniBatchNMF(3, init="random", batch_size=90, max_iter=4, random_state=0)
    ),
    "nmf-frobenius": fitted(
        lambda: em.MiniBatchNMF(3, beta_loss="frobenius", max_iter=8, random_state=0)
    ),
    "kmeans-profiles": fitted(lambda: em.KMeans(3, features="profiles", random_state=0), more=True),
    "kmeans-counts": fitted(lambda: em.KMeans(3, features="counts", max_iter=3, random_state=0)),
    "gaussian-mixture": fitted(
        lambda: em.GaussianMixture(3, max_iter=6, random_state=0), more=True
    ),
    "poisson-mixture": fitted(lambda: em.PoissonMixture(3, max_iter=6, random_state=0), more=True),
    "estimate": estimate(),
    "estimate-quadratic": estimate(noise="quadratic"),
    "score": lambda: np.array(em.MiniBatchNMF(2, random_state=0).fit(cube()).score(cube(4))),
    "drawn-seed": fitted(lambda: em.KMeans(3, features="counts", max_iter=3)),
}


def arrays(found: Any) -> dict[str, bytes]:
    """Bits of everything that an estimator found."""
    if isinstance(found, np.ndarray):
        return {"value": found.tobytes()}
    if hasattr(found, "data_vars"):
        return {str(k): v.values.tobytes() for k, v in found.data_vars.items()}
    answers = {k: v for k, v in vars(found).items() if k.endswith("_") and hasattr(v, "dtype")}
    return {k: np.asarray(v).tobytes() for k, v in answers.items()}


@pytest.mark.parametrize("name", WORK)
def test_every_estimator_goes_on_from_anywhere(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Interrupted every few events until it is through: each try gets further, to the bits of one try."""
    caplog.set_level(logging.INFO, logger="emcube.engine.checkpoint")
    found, tries = None, 0
    while found is None:
        tries += 1
        assert tries < 200
        left = [5 if name.startswith("pca") else 11]

        def watch(event: Event, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        try:
            with listen(watch), checkpointing(tmp_path / "k", interval=0) as kept:
                found = WORK[name]()
                seeds = getattr(found, "seed_", None)
        except KeyboardInterrupt:
            continue
    assert tries > 1
    assert kept.restored
    assert "not kept" not in caplog.text
    assert "is not used" not in caplog.text
    if name == "drawn-seed":
        whole = em.KMeans(3, features="counts", max_iter=3, random_state=seeds).fit(cube())
    else:
        whole = WORK[name]()
    assert len(arrays(whole)) > 0
    assert arrays(found) == arrays(whole)
    assert getattr(found, "n_iter_", 0) == getattr(whole, "n_iter_", 0)


def test_a_gram_matrix_is_kept_for_all_who_ask(tmp_path: Path) -> None:
    source = ArraySource.from_array(cube().values, 2)
    with expected(KeyboardInterrupt), checkpointing(tmp_path, interval=0), resident(), dies():
        run_sweep(GramSweep(PoissonNoise()), source)
    seen: list[Event] = []
    with listen(seen.append), checkpointing(tmp_path, interval=0), resident():
        run_sweeps([GramSweep(PoissonNoise()), TotalsSweep(counts=True)], source)
    assert seen == []
