"""The board says what is going on, in few words, and costs next to nothing."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

import emcube as em
from emcube.feedback import board as boards
from emcube.feedback.board import Board
from emcube.feedback.events import Event, group, step, working
from emcube.feedback.words import Line
from tests.feedback.conftest import Recorder


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch, board: Board) -> Board:
    """The board that work of this test tells of itself."""
    monkeypatch.setattr(boards, "board", board)
    return board


def fields(line: Line) -> list[str]:
    return [text for _, text in line.fields]


def at(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    monkeypatch.setattr(boards, "_now", lambda: now)


def test_a_fit_with_passes(board: Board, recorder: Recorder, monkeypatch: Any) -> None:
    at(monkeypatch, 100.0)
    board.take(Event("start", "MiniBatchNMF", work=1))
    board.take(Event("start", "NMF", 0, 10, 0, 4, 0, 400, work=2, parent=1))
    at(monkeypatch, 102.0)
    board.take(Event("round", "NMF", 0, 10, 4, 4, 400, 400, objective=1.5, work=2, parent=1))
    at(monkeypatch, 103.0)
    board.take(Event("block", "NMF", 1, 10, 2, 4, 200, 400, work=2, parent=1, resident_blocks=1))
    board._draw()
    (line,) = recorder.drawn[-1]
    assert line.name == "MiniBatchNMF: NMF"
    assert line.share == pytest.approx(0.15)
    assert fields(line) == [
        "pass 2/10",
        "2/4 blocks",
        "200 pixels/s",
        "objective 1.5",
        "3 blocks read in each pass",
        "at most 0:17 left",
    ]
    board.take(Event("end", "NMF", 1, 10, 4, 4, 400, 400, work=2, parent=1, outcome="done"))
    board._draw()
    (line,) = recorder.drawn[-1]
    assert (line.name, line.share, fields(line)) == ("MiniBatchNMF", None, ["working  0:03"])
    board.take(Event("end", "MiniBatchNMF", work=1, outcome="done"))
    assert recorder.closed == [
        ("MiniBatchNMF: 2 passes, 400 pixels, 267 pixels/s, objective 1.5, 3.0 s", False)
    ]
    assert not board.busy


def test_a_run_has_a_line_of_its_own(events: Board, recorder: Recorder) -> None:
    with group("run map.yaml", 3):
        step(1, "pca")
        with group("IncrementalPCA"), working("gram matrix", n_blocks=4) as work:
            work.advance(blocks=1)
            events._draw()
        step(2, "nmf")
        with group("MiniBatchNMF"):
            events._draw()
    first, second = recorder.drawn
    assert [line.name for line in first] == ["run map.yaml", "IncrementalPCA: gram matrix"]
    assert fields(first[0])[0] == "step 2/3 (pca)"
    assert first[0].share == pytest.approx(1 / 3)
    assert first[1].share == pytest.approx(1 / 4)
    assert [line.name for line in second] == ["run map.yaml", "MiniBatchNMF"]
    (last, failed) = recorder.closed[0]
    assert not failed
    assert last.startswith("run map.yaml: IncrementalPCA 0.0")
    assert "MiniBatchNMF" in last


def test_downloads_count_bytes(board: Board, recorder: Recorder, monkeypatch: Any) -> None:
    at(monkeypatch, 10.0)
    board.take(Event("start", "download a.bcf", bytes_done=2**20, n_bytes=4 * 2**20, work=5))
    at(monkeypatch, 12.0)
    board.take(
        Event(
            "block",
            "download a.bcf",
            bytes_done=3 * 2**20,
            n_bytes=4 * 2**20,
            work=5,
            message="slow",
        )
    )
    board._draw()
    (line,) = recorder.drawn[0]
    assert line.share == pytest.approx(0.75)
    assert fields(line) == ["3.0 MiB/4.0 MiB", "1.0 MiB/s", "slow", "0:01 left"]
    # Nobody said how long it is: no share, no time left, and no crash.
    board.take(Event("start", "download b", bytes_done=0, work=6))
    board.take(Event("block", "download b", bytes_done=5 * 2**20, work=6))
    board._draw()


@pytest.mark.parametrize(
    ("error", "words"), [(ValueError, "failed after"), (KeyboardInterrupt, "stopped after")]
)
def test_what_goes_wrong_is_said(
    error: type[BaseException], words: str, events: Board, recorder: Recorder
) -> None:
    def work() -> None:
        with group("KMeans"), working("k-means", n_blocks=4) as told:
            told.advance(blocks=1)
            raise error

    with pytest.raises(error):
        work()
    ((last, failed),) = recorder.closed
    assert failed
    assert last.startswith("KMeans: 4 blocks")
    assert words in last
    assert not events.busy


def test_a_fit_that_is_stopped_leaves_a_clean_board(events: Board, recorder: Recorder) -> None:
    from emcube.engine import listen

    counts = np.random.default_rng(0).poisson(3.0, (40, 30, 20)).astype(np.uint8)
    cube = em.make_cube(counts, dims=("y", "x", "energy"))

    def stop(event: Event) -> None:
        if event.kind == "block":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listen(stop):
        em.IncrementalPCA(3).fit(cube)
    assert not events.busy
    assert recorder.closed[-1][1]


def test_quick_work_leaves_no_trace(
    events: Board, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "DELAY", 60.0)
    with working("quick", n_blocks=1):
        events._draw()
    assert recorder.drawn == recorder.closed == []


def test_parts_of_what_is_hidden_are_hidden(
    events: Board, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "surface", lambda: None)
    with group("hidden"):
        monkeypatch.setattr(boards, "surface", lambda: "terminal")
        with working("part", n_blocks=1) as work:
            work.advance(blocks=1)
            assert not events.busy
    assert recorder.closed == []


def test_several_at_a_time_are_shown_and_ended_each_on_its_own(
    events: Board, recorder: Recorder
) -> None:
    ready, go = threading.Barrier(3), threading.Event()

    def one(name: str) -> None:
        with working(name, n_blocks=2) as work:
            work.advance(blocks=1)
            ready.wait(60)
            go.wait(60)

    threads = [threading.Thread(target=one, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    ready.wait(60)
    events._draw()
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(lines[0].name for lines in recorder.drawn) == ["a", "b"]
    assert sorted(last[0] for last, _ in recorder.closed) == ["a", "b"]
    assert not events.busy


def test_parts_that_never_said_their_end_go_with_the_whole(board: Board) -> None:
    board.take(Event("start", "fit", work=1))
    board.take(Event("start", "inner", work=2, parent=1))
    board.take(Event("start", "sweep", n_blocks=2, work=3, parent=2))
    board.take(Event("end", "fit", work=1))
    assert not board.busy


def test_events_without_numbers_go_by_their_name(board: Board, recorder: Recorder) -> None:
    """As from the file of a run on another machine, whose first events nobody saw."""
    board.take(Event("block", "gram matrix", blocks_done=3, n_blocks=4))
    board._draw()
    assert recorder.drawn[0][0].share == pytest.approx(0.75)
    board.take(Event("end", "gram matrix", blocks_done=4, n_blocks=4))
    assert recorder.closed[0][0].startswith("gram matrix: 4 blocks")
    board.take(Event("end", "gram matrix", blocks_done=4, n_blocks=4))  # again: nothing


@pytest.mark.parametrize(
    "error", [OSError("gone"), ValueError("closed file"), RuntimeError("loop")]
)
def test_a_display_that_is_gone_costs_no_work(
    error: Exception, events: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def draw(self, lines: list[Line]) -> None:
            raise error

        def close(self, last: str, *, failed: bool) -> None:
            raise error

    monkeypatch.setattr(boards, "_display", lambda where: Broken())
    with working("fit", n_blocks=2) as work:
        work.advance(blocks=1)
        events._draw()
        events._draw()
        work.advance(blocks=1)
    assert not events.busy


def test_drawing_takes_a_hundredth_of_the_time_however_slow_it_is(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A display that takes 30 ms is drawn twice, to see what it takes, and then at most every 3 s."""
    monkeypatch.undo()
    drawn: list[float] = []

    class Slow:
        def draw(self, lines: list[Line]) -> None:
            drawn.append(time.monotonic())
            time.sleep(0.03)

        def close(self, last: str, *, failed: bool) -> None:
            pass

    monkeypatch.setattr(boards, "surface", lambda: "terminal")
    monkeypatch.setattr(boards, "_display", lambda where: Slow())
    monkeypatch.setattr(boards, "DELAY", 0.0)
    found = Board()
    found.take(Event("start", "fit", n_blocks=100, work=1))
    deadline = time.monotonic() + 60
    while not drawn and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1.2)
    found.take(Event("end", "fit", n_blocks=100, work=1))
    assert 1 <= len(drawn) <= 2


def test_telling_costs_microseconds(board: Board) -> None:
    """A block takes milliseconds: a hundredth of that is plenty, and this machine may be busy."""
    board.take(Event("start", "fit", n_blocks=10**6, n_pixels=10**6, work=1))
    event = Event("block", "fit", blocks_done=5, n_blocks=10**6, n_pixels=10**6, work=1)
    began = time.process_time()
    for _ in range(20_000):
        board.take(event)
    assert (time.process_time() - began) / 20_000 < 50e-6


def test_a_child_process_begins_anew(board: Board) -> None:
    board.take(Event("start", "fit", n_blocks=2, work=1))
    board.forget()
    assert not board.busy


def test_the_end_of_the_process_takes_the_bars_away(board: Board, recorder: Recorder) -> None:
    board.take(Event("start", "fit", n_blocks=2, work=1))
    board._draw()
    board.leave()
    assert len(recorder.closed) == 1
    assert not board.busy
