"""Fixtures for all tests: real data, what may not be skipped, Hypothesis' settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import scheduling

# Machines differ in speed and so do first calls (compilation), hence no deadline; the same examples
# each time, so that a failure is a failure of the change at hand.
settings.register_profile(
    "emcube",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("emcube")


def required(what: str) -> bool:
    """Whether tests may not be skipped for want of `what`: EMCUBE_REQUIRE=data,chromium,slurm."""
    return what in os.environ.get("EMCUBE_REQUIRE", "").replace(",", " ").split()


def skip_or_fail(what: str, reason: str) -> None:
    """Skip the test for want of `what`, or fail it where EMCUBE_REQUIRE names that."""
    if required(what):
        pytest.fail(f"{reason}, and EMCUBE_REQUIRE names {what!r}", pytrace=False)
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, where tests run in several processes (pytest-xdist)."""
    items.sort(key=lambda item: scheduling.rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process of pytest-xdist whole files: what shares fixtures stays together."""
    return scheduling.by_group(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_warning_recorded(warning_message: Any) -> None:
    """Leave out what a warning is about: pytest-xdist sends it on as text, which half-made objects lack."""
    warning_message.source = None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the real instrument files."""
    place = os.environ.get("EMCUBE_TEST_DATA", "")
    if not place:
        skip_or_fail("data", "EMCUBE_TEST_DATA is not set: no real instrument files")
    folder = Path(place)
    if not folder.is_dir():
        pytest.fail(f"EMCUBE_TEST_DATA is {place!r}, which is not a folder", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def cluster_client() -> Iterator[Any]:
    """Client of two worker processes, not the default one: tests make it current themselves."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
