"""Memory goes back to the system, and is told to be there or not."""

import platform

import numpy as np
import psutil
import pytest

from emcube.engine import resident
from emcube.engine.memory import Residency, all_resident, return_memory
from emcube.models import KMeans
from emcube.models.labels import as_source

N, KIB = 2000, 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep nothing")
def test_what_is_free_goes_back_to_the_system() -> None:
    process = psutil.Process()
    kept = [np.ones(100 * KIB, dtype=np.uint8) for _ in range(N)]
    kept = kept[-1:]  # the last one lies behind all others: their pages stay
    before = process.memory_info().rss
    return_memory()
    assert kept[0].all()
    assert before - process.memory_info().rss > 0.5 * N * 100 * KIB


def test_residency_of_a_source() -> None:
    counts = np.random.default_rng(0).poisson(3.0, (60, 12))
    source, _ = as_source(counts)
    assert not all_resident(source)
    with resident():
        KMeans(2, random_state=0).fit(counts)
        assert all_resident(as_source(counts)[0])
    assert not all_resident(source)


def test_notes_on_blocks_count_and_are_the_first_to_go() -> None:
    block, note = np.zeros(100, dtype=np.uint8), np.zeros(40, dtype=np.uint8)
    residency = Residency(200)
    assert residency.keep("cube", 0, block)
    assert residency.note("labels", 0, note)
    assert residency.noted("labels", 0) is note
    assert residency.noted("labels", 1) is None
    assert residency.used == 140
    # What is noted anew takes the place of what was there; what does not fit is not kept, nor the old.
    assert residency.note("labels", 0, note[:20])
    assert residency.used == 120
    assert not residency.note("labels", 0, np.zeros(101, dtype=np.uint8))
    assert residency.noted("labels", 0) is None
    assert residency.used == 100
    assert residency.note("labels", 0, note)
    assert residency.take_note("labels", 0) is note
    assert residency.take_note("labels", 0) is None
    assert residency.used == 100
    assert residency.note("labels", 0, note)
    assert residency.note("others", 0, note[:5])
    residency.forget("others")
    assert residency.noted("others", 0) is None
    assert residency.used == 140
    assert residency.shrink(10) == 40
    assert residency.get("cube", 0) is block
    assert residency.noted("labels", 0) is None


def test_notes_give_way_to_shared_answers() -> None:
    residency = Residency(400)
    assert residency.note("labels", 0, np.zeros(390, dtype=np.uint8))
    assert residency.keep_answer("totals", np.zeros(10))
    assert residency.noted("labels", 0) is None
    assert residency.used == 80
