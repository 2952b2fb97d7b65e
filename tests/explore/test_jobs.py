"""Jobs: heard, stopped and failed each for itself."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from emcube.engine import listen, run_sweep
from emcube.engine.progress import Event
from emcube.errors import EngineError, InputError, InterruptedRunError
from emcube.explore.exact import SpectrumSweep
from emcube.explore.jobs import Job, Problem, Progress, finished
from emcube.feedback.events import Work, emitter, working
from emcube.models.labels import as_source
from tests.explore.cubes_for_tests import got


class Gate(SpectrumSweep):
    """A sum that waits before all blocks but the first until it is let on."""

    def __init__(self, begun: threading.Event, go: threading.Event) -> None:
        object.__setattr__(self, "name", "gate")
        object.__setattr__(self, "begun", begun)
        object.__setattr__(self, "go", go)

    def map(self, block: Any, state: Any, rng_key: Any) -> Any:
        # All of them: another thread would do the rest meanwhile, and a round that ends is not stopped.
        if block.id >= 1:
            self.begun.set()
            assert self.go.wait(60)
        return super().map(block, state, rng_key)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Any:
    from emcube.engine import plan

    monkeypatch.setattr(plan.plan_blocks, "__kwdefaults__", {"target_bytes": 400})
    values = np.random.default_rng(0).poisson(1.0, (60, 20)).astype("uint8")
    found, _ = as_source(values)
    assert found.plan.n_blocks > 2
    return found


def total(source: Any, sweep: Any = None) -> float:
    return float(run_sweep(sweep or SpectrumSweep(), source).state.sum())


def test_a_job_does_its_work_and_tells_how_far_it_is(source: Any) -> None:
    told: list[Progress] = []
    job = Job("sum", lambda job: total(source))
    job.listen(lambda j: told.append(j.progress))
    assert got(job.start()) == total(source)
    last = [p for p in told if p.what == "sum spectrum"][-1]
    assert (last.blocks_done, last.n_pixels) == (source.plan.n_blocks, 60)
    assert last.fraction == 1
    assert "of " in str(last)
    assert any(p.pixels_per_second for p in told)
    assert job.error is None


def test_a_job_hears_its_own_run_and_no_other(source: Any) -> None:
    first, second = threading.Event(), threading.Event()
    go = threading.Event()
    jobs = [Job("sum", lambda j, e=e: total(source, Gate(e, go))) for e in (first, second)]
    heard: list[list[int]] = [[], []]
    threads: list[set[int]] = [set(), set()]
    for i, job in enumerate(jobs):

        def tell(j: Job[float], i: int = i) -> None:
            heard[i].append(j.progress.blocks_done)
            threads[i].add(threading.get_ident())

        job.listen(tell)
        job.start()
    assert first.wait(60)
    assert second.wait(60)
    go.set()
    assert got(jobs[0]) == got(jobs[1])
    for blocks, idents in zip(heard, threads, strict=True):
        assert len(idents) == 1
        # Start, a block each, round, end, and the end of the job: of one run, not of two.
        assert len([b for b in blocks if b]) <= source.plan.n_blocks + 3


def test_cancelling_one_leaves_the_other(source: Any) -> None:
    begun = [threading.Event(), threading.Event()]
    go = threading.Event()
    jobs = [Job("sum", lambda j, e=e: total(source, Gate(e, go))).start() for e in begun]
    assert all(e.wait(60) for e in begun)
    jobs[0].cancel()
    go.set()
    assert jobs[0].wait(60)
    assert jobs[0].state == "cancelled"
    assert jobs[0].error is None
    with pytest.raises(InterruptedRunError):
        _ = jobs[0].result
    assert got(jobs[1]) == total(source)
    assert total(source) > 0, "and later runs are not stopped"


def test_those_who_listen_to_everything_hear_jobs_too(source: Any) -> None:
    events: list[Event] = []
    with listen(events.append):
        got(Job("sum", lambda job: total(source)).start())
    assert {e.name for e in events} == {"sum spectrum"}


def test_helpers_of_a_run_tell_its_job() -> None:
    def work(job: Job[int]) -> int:
        send = emitter()
        helper = threading.Thread(target=lambda: send(Event("block", "helped", n_blocks=2)))
        helper.start()
        helper.join()
        return 1

    job = Job("work", work)
    told: list[str] = []
    job.listen(lambda j: told.append(j.progress.what))
    got(job.start())
    assert "helped" in told


def test_progress_is_one_line_for_people() -> None:
    progress = Progress(
        part="nmf", part_number=2, n_parts=3, what="NMF", round=4, n_rounds=9, blocks_done=5, n_blocks=10,
        pixels_per_second=12345.6, objective=1.5e6, seconds_left=2.4,
    )  # fmt: skip
    assert str(progress) == (
        "nmf (2 of 3), NMF, pass 4, 5 of 10 blocks, 12,346 pixels/s, objective 1.5e+06, "
        "2 s left of this pass"
    )
    assert progress.fraction == 0.5
    assert str(Progress(part="input", n_parts=3)) == "input", "no step of the recipe"
    assert str(Progress()) == ""


def test_an_ingest_tells_its_job_and_is_stopped() -> None:
    from emcube.recipe.inputs import stopping
    from emcube.store import IngestProgress

    def work(job: Job[None]) -> None:
        look, raised = stopping(), []

        def help_on(telling: Work) -> None:
            telling.advance(blocks=1)
            look(IngestProgress(1, 3, 10, 30, 0.1))
            job.cancel()
            try:
                look(IngestProgress(2, 3, 20, 30, 0.2))
            except InterruptedRunError as error:
                raised.append(error)
            # What is all there is kept.
            look(IngestProgress(3, 3, 30, 30, 0.3))

        with working("ingest", n_blocks=3) as telling:
            helper = threading.Thread(target=help_on, args=(telling,))
            helper.start()
            helper.join()
        raise raised[0]

    job = Job("ingest", work)
    told: list[tuple[str, int]] = []
    job.listen(lambda j: told.append((j.progress.what, j.progress.blocks_done)))
    job.start()
    assert job.wait(60)
    assert job.state == "cancelled"
    assert ("ingest", 1) in told


def test_an_error_has_its_four_parts() -> None:
    def work(job: Job[None]) -> None:
        error = InputError("x must be 1, got 2", hint="say 1")
        error.add_note("in step 'nmf'")
        raise error

    job = Job("work", work).start()
    assert job.wait(60)
    assert job.state == "failed"
    assert job.error is not None
    assert (job.error.message, job.error.hint, job.error.notes) == (
        *("x must be 1, got 2", "say 1"),
        ("in step 'nmf'",),
    )
    assert str(job.error) == "x must be 1, got 2; say 1 (in step 'nmf')"
    assert "Traceback" in job.error.details
    with pytest.raises(InputError):
        _ = job.result


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ZeroDivisionError("division by zero"), "unexpected ZeroDivisionError: division by zero"),
        (MemoryError(), "out of memory"),
        (FileNotFoundError(2, "No such file", "map.bcf"), "No such file: 'map.bcf'"),
        (SystemExit(3), "unexpected SystemExit: 3"),
        (KeyboardInterrupt(), "unexpected KeyboardInterrupt"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_whatever_is_raised_is_told(error: BaseException, says: str) -> None:
    def work(job: Job[None]) -> None:
        raise error

    job = Job("work", work).start()
    assert job.wait(60)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error.message == says
    assert Problem.of(error).hint


def test_a_loop_of_its_own_is_stopped() -> None:
    begun = threading.Event()

    def work(job: Job[None]) -> None:
        while True:
            begun.set()
            job.check()

    job = Job("loop", work).start()
    assert begun.wait(60)
    job.cancel()
    assert job.wait(60)
    assert job.state == "cancelled"


def test_a_listener_that_fails_costs_no_run(source: Any, caplog: pytest.LogCaptureFixture) -> None:
    job = Job("sum", lambda job: total(source))
    job.listen(lambda j: 1 / 0)
    assert got(job.start()) == total(source)
    assert "a listener of sum failed" in caplog.text


def test_who_listens_late_hears_the_end() -> None:
    job = finished("sum", 3)
    told: list[str] = []
    job.listen(lambda j: told.append(j.state))
    assert told == ["done"]
    assert job.wait(0)
    assert job.result == 3


def test_a_result_before_the_end_is_refused() -> None:
    go = threading.Event()
    job = Job("wait", lambda job: go.wait(60)).start()
    with pytest.raises(EngineError, match="has not ended yet"):
        _ = job.result
    go.set()
    got(job)
