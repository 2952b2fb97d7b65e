"""A scheduler with two workers that somebody else runs, and the processes that tests look at."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from emcube.deploy.local import Command
from emcube.deploy.tls import make_credentials


@dataclass(frozen=True)
class Site:
    """A running scheduler with workers."""

    file: Path
    address: str
    credentials: Path
    logs: Path


def wait_until(true: Callable[[], bool], what: str, patience: float = 60.0) -> None:
    until = time.monotonic() + patience
    while not true():
        assert time.monotonic() < until, f"not in {patience:g} s: {what}"
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def _own_profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test depends on the profiles or the environment of who runs it."""
    empty = tmp_path / "no-profiles.toml"
    empty.write_text("")
    monkeypatch.setenv("EMCUBE_PROFILES", str(empty))
    monkeypatch.delenv("EMCUBE_DEPLOY", raising=False)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A scheduler file with credentials beside it, as a site or a batch job leaves them."""
    folder = tmp_path_factory.mktemp("site")
    credentials = make_credentials(folder / "tls")
    file = folder / "scheduler.json"
    shared = ["--scheduler-file", str(file), "--credentials", str(credentials), "--watch-parent"]
    with ExitStack() as stack:
        Command(stack, "scheduler", shared, folder / "scheduler.log")
        many = [*shared, "--workers", "2", "--scratch", str(folder / "scratch")]
        Command(stack, "worker", many, folder / "workers.log")
        wait_until(lambda: file.exists() and file.read_text().endswith("}"), "scheduler file")
        yield Site(file, json.loads(file.read_text())["address"], credentials, folder)
