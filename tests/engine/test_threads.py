"""One BLAS thread a run, on whatever thread the run begins and ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import threadpoolctl

from emcube.engine.threads import single_threaded_blas


def blas_threads() -> set[int]:
    return {
        pool["num_threads"]
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    }


def elsewhere(function: Callable[[], Any]) -> Any:
    """Answer of a function on a new thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def inside() -> set[int]:
    with single_threaded_blas():
        return blas_threads()


@pytest.fixture
def two_threads():
    """BLAS with two threads, whatever this machine has."""
    before = threadpoolctl.threadpool_limits(limits=2, user_api="blas")
    if blas_threads() != {2}:
        pytest.skip("the number of BLAS threads cannot be set here")
    yield
    before.restore_original_limits()


def test_limits_hold_on_other_threads_than_the_first(two_threads):
    # The first one that sets limits is not the only one that may.
    assert inside() == {1}
    assert blas_threads() == {2}
    assert elsewhere(inside) == {1}
    assert blas_threads() == {2}
    assert inside() == {1}


def test_the_last_to_leave_restores_on_its_own_thread(two_threads):
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with single_threaded_blas():
            entered.set()
            leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        with single_threaded_blas():
            waiting = pool.submit(stay)
            assert entered.wait(10)
        assert blas_threads() == {1}
        leave.set()
        waiting.result()
        assert blas_threads() == {2}
