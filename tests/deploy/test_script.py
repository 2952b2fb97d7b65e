"""One and the same script file, wherever it runs: the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.deploy.conftest import Site
from tests.deploy.script import run_script


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_script(tmp_path_factory.mktemp("laptop") / "run", None)


def test_threads(laptop: dict[str, Any]) -> None:
    assert laptop["kind"] is None
    assert len(set(laptop["bits"].values())) == 4


def test_local_processes(laptop: dict[str, Any], tmp_path: Path) -> None:
    found = run_script(tmp_path / "run", "local workers=2")
    assert found == {**laptop, "kind": "local"}


def test_scheduler_of_others(laptop: dict[str, Any], tmp_path: Path, site: Site) -> None:
    found = run_script(tmp_path / "run", str(site.file))
    assert found == {**laptop, "kind": "address"}
