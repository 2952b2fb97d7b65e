"""What takes its time tells of itself, truly, and under the name of what it is part of."""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import emcube as em
from emcube.errors import InterruptedRunError
from emcube.feedback.board import Board
from emcube.feedback.events import (
    Event,
    group,
    listen,
    parent_work,
    read_event,
    step,
    working,
    write_progress,
)
from emcube.store import compute_digest, verify, write_cube
from tests.feedback.conftest import Recorder


@pytest.fixture(scope="module")
def cube() -> em.make_cube:  # type: ignore[valid-type]
    rng = np.random.default_rng(0)
    spectra = rng.dirichlet(np.full(64, 0.3), 3) * 60
    loadings = rng.dirichlet(np.full(3, 0.3), (20, 24))
    return em.make_cube(rng.poisson(loadings @ spectra).astype(np.uint8), dims=("y", "x", "energy"))


def test_work_says_how_it_ended() -> None:
    seen: list[Event] = []
    with listen(seen.append):
        with working("a", n_blocks=2, n_bytes=10) as work:
            work.advance(blocks=1, bytes=4)
            work.at(blocks_done=2, message="again")
        with pytest.raises(ValueError, match="no"), working("b"):
            raise ValueError("no")
        for stop in (KeyboardInterrupt, InterruptedRunError("stop")):
            with pytest.raises(KeyboardInterrupt), working("c"):
                raise stop
    ends = [(e.name, e.outcome) for e in seen if e.kind == "end"]
    assert ends == [("a", "done"), ("b", "failed"), ("c", "stopped"), ("c", "stopped")]
    counts = [(e.kind, e.blocks_done, e.bytes_done, e.message) for e in seen if e.name == "a"]
    assert counts == [
        ("start", 0, 0, ""),
        ("block", 1, 4, ""),
        ("block", 2, 4, "again"),
        ("end", 2, 4, ""),
    ]
    assert parent_work() == 0


def test_parts_name_their_whole_and_groups_are_for_the_board_alone() -> None:
    seen: list[Event] = []
    elsewhere: list[int] = []
    with listen(seen.append), group("fit") as whole:
        with working("outer") as outer, working("inner"):
            pass
        other = threading.Thread(target=lambda: elsewhere.append(parent_work()))
        other.start()
        other.join()
    starts = {e.name: e.parent for e in seen if e.kind == "start"}
    assert starts == {"outer": whole.number, "inner": outer.number}
    assert elsewhere == [0]
    step(3, "outside of any group nothing happens")


def test_work_may_be_told_of_from_many_threads() -> None:
    seen: list[Event] = []
    with listen(seen.append), working("many", n_blocks=400) as work:
        threads = [
            threading.Thread(target=lambda: [work.advance(blocks=1) for _ in range(100)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen[-1].blocks_done == 400


def test_events_in_files_lose_numbers_of_their_process(tmp_path: Path) -> None:
    file = tmp_path / "progress.json"
    with write_progress(file), group("run"), working("ingest", n_blocks=2) as work:
        work.advance(blocks=2)
    event = read_event(file.read_text())
    assert (event.kind, event.name, event.blocks_done, event.outcome) == (
        "end",
        "ingest",
        2,
        "done",
    )
    assert (event.work, event.parent) == (0, 0)
    assert asdict(event)["n_blocks"] == 2


def test_stores_tell_what_they_do(cube, tmp_path: Path) -> None:
    seen: list[Event] = []
    with listen(seen.append):
        write_cube(cube, tmp_path / "a.zarr")
        compute_digest(cube)
        verify(tmp_path / "a.zarr")
    last = {e.name: e for e in seen if e.kind == "end"}
    assert set(last) == {"ingest", "digest", "verify"}
    assert last["ingest"].blocks_done == last["ingest"].n_blocks >= 1
    assert last["ingest"].pixels_done == last["ingest"].n_pixels == 480
    assert last["digest"].blocks_done == last["digest"].n_blocks >= 1
    assert last["verify"].bytes_done == last["verify"].n_bytes > 1000


def test_passes_of_a_fit_are_parts_of_it(cube, recorder: Recorder, monkeypatch) -> None:
    from emcube.feedback import board as boards

    seen: list[Event] = []
    monkeypatch.setattr(boards, "board", Board())
    with listen(seen.append):
        model = em.MiniBatchNMF(3, random_state=0).fit(cube)
    assert len({e.parent for e in seen}) == 1
    assert all(e.parent for e in seen)
    (last, failed) = recorder.closed[-1]
    assert not failed
    assert last.startswith("MiniBatchNMF: ")
    assert "objective" in last
    # Bars change nothing.
    again = em.MiniBatchNMF(3, random_state=0).fit(cube)
    np.testing.assert_array_equal(model.components_.values, again.components_.values)


def test_signatures_of_models_stay() -> None:
    import inspect

    assert list(inspect.signature(em.MiniBatchNMF.fit).parameters) == ["self", "X", "y", "where"]
    assert em.IncrementalPCA.partial_fit.__doc__
    assert list(inspect.signature(em.estimate_n_components).parameters)[:2] == ["cube", "method"]
