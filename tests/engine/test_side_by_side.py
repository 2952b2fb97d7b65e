"""Runs of several threads: each is heard and stopped alone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from emcube.engine.checkpoint import checkpointing
from emcube.engine.progress import Event, emit, listen, listen_here
from emcube.engine.stopping import check_stop, request_stop, stop_check, stop_on_signals, stop_when
from emcube.errors import InterruptedRunError, PreemptedRunError
from emcube.feedback.events import emitter


def elsewhere(function: Any) -> BaseException | None:
    """Call a function on another thread; what it raised."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return raised[0] if raised else None


def test_a_thread_hears_itself_and_whoever_listens_to_all_hears_every_one() -> None:
    here: list[str] = []
    everywhere: list[str] = []
    with listen(lambda e: everywhere.append(e.name)):
        with listen_here(lambda e: here.append(e.name)):
            emit(Event("block", "mine"))
            assert elsewhere(lambda: emit(Event("block", "another's"))) is None
            send = emitter()
            assert elsewhere(lambda: send(Event("block", "my helper's"))) is None
        emit(Event("block", "later"))
    emit(Event("block", "unheard"))
    assert here == ["mine", "my helper's"]
    assert everywhere == ["mine", "another's", "my helper's", "later"]


def test_listeners_of_a_thread_nest() -> None:
    outer: list[str] = []
    inner: list[str] = []
    with listen_here(lambda e: outer.append(e.name)):
        with listen_here(lambda e: inner.append(e.name)):
            emit(Event("block", "both"))
        emit(Event("block", "outer"))
    assert (outer, inner) == (["both", "outer"], ["both"])


def test_a_thread_stops_alone() -> None:
    wanted = threading.Event()
    with stop_when(wanted.is_set):
        check_stop()
        check = stop_check()
        wanted.set()
        with pytest.raises(InterruptedRunError, match="cancelled") as caught:
            check_stop()
        assert not isinstance(caught.value, PreemptedRunError)
        assert elsewhere(check_stop) is None
        assert isinstance(elsewhere(check), InterruptedRunError), "a helper stops with its run"
    check_stop()


def test_a_signal_stops_every_thread() -> None:
    with stop_on_signals(()):
        request_stop("SIGTERM")
        with pytest.raises(PreemptedRunError):
            check_stop()
        assert isinstance(elsewhere(check_stop), PreemptedRunError)
    check_stop()


def test_checkpoints_tell_the_part_that_is_under_way(tmp_path: Path) -> None:
    with checkpointing(tmp_path / "kept") as kept:
        assert kept.part == ""
        with kept.scope("nmf"):
            assert kept.part == "nmf"
            with kept.scope("within"):
                assert kept.part == "nmf"
            assert kept.part == "nmf"
        assert kept.part == ""
