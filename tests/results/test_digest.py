"""Digests of stored arrays are the same wherever their chunks are read."""

from __future__ import annotations

import numpy as np
import pytest

from emcube.results import digest
from emcube.results.digest import array_digest, stored_digest


@pytest.fixture
def stored(tmp_path):
    import zarr

    values = np.random.default_rng(0).normal(size=(13, 9, 4))
    zarr.create_array(str(tmp_path / "r.zarr"), name="a", data=values, chunks=(2, 4, 4))
    return tmp_path / "r.zarr"


def test_workers_give_the_digest_that_this_process_gives(stored, monkeypatch):
    import zarr
    from distributed import Client, LocalCluster

    array = zarr.open_array(str(stored), path="a", mode="r")
    here = array_digest(array)
    monkeypatch.setattr(digest, "SPREAD_BYTES", 100)
    assert stored_digest(stored, "a") == here
    for max_tasks in (4096, 5):
        monkeypatch.setattr(digest, "MAX_TASKS", max_tasks)
        with (
            LocalCluster(
                n_workers=2, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0"
            ) as it,
            Client(it) as client,
        ):
            client.get_task_stream()
            assert stored_digest(stored, "a") == here
            assert any("emcube_map" in str(task["key"]) for task in client.get_task_stream())


def test_a_changed_value_changes_it(stored):
    import zarr

    array = zarr.open_array(str(stored), path="a", mode="r+")
    before = array_digest(array)
    array[12, 8, 3] += 1e-9
    assert array_digest(array) != before
