"""Memory goes back to the system, and is told to be there or not."""

import platform

import numpy as np
import psutil
import pytest

from emcube.engine import resident
from emcube.engine.memory import all_resident, return_memory
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
