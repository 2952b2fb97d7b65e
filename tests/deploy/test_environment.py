"""``EMCUBE_DEPLOY`` and ``--deploy``: asked for outside of the code, started once, never in vain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import emcube as em
from emcube.cli import main
from emcube.deploy.deployment import in_force
from emcube.deploy.environment import _end, chosen
from emcube.engine.executor import DistributedExecutor, ThreadExecutor, current_executor
from emcube.errors import EngineError, InputError
from tests.cli.conftest import make_folder
from tests.deploy.conftest import Site


@pytest.fixture(autouse=True)
def _ended() -> Any:
    yield
    _end()
    assert in_force() is None


def test_nothing_asked_for_is_threads_and_nothing_is_started() -> None:
    assert isinstance(current_executor(), ThreadExecutor)
    assert in_force() is None


def test_the_environment_is_asked_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCUBE_DEPLOY", f"{site.file} workers=2")
    first = current_executor()
    assert isinstance(first, DistributedExecutor)
    second = current_executor()
    assert isinstance(second, DistributedExecutor)
    assert second.client is first.client
    # Code goes before the environment, and the environment is back after it.
    with em.deploy("threads"):
        assert isinstance(current_executor(), ThreadExecutor)
    assert isinstance(current_executor(), DistributedExecutor)


def test_threads_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCUBE_DEPLOY", "threads workers=3")
    for _ in range(2):
        executor = current_executor()
        assert isinstance(executor, ThreadExecutor)
        assert executor.slots == 3
    monkeypatch.setenv("EMCUBE_DEPLOY", "threads workers=2")
    assert current_executor().slots == 2


def test_a_client_of_the_user_goes_before_the_environment(
    cluster_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMCUBE_DEPLOY", "nowhere")
    with cluster_client.as_current():
        executor = current_executor()
        assert isinstance(executor, DistributedExecutor)
        assert executor.client is cluster_client
        with em.deploy("threads"):
            assert isinstance(current_executor(), ThreadExecutor)
    with em.deploy("threads"), cluster_client.as_current():
        assert isinstance(current_executor(), DistributedExecutor)


def test_what_cannot_be_used_is_an_error_and_not_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCUBE_DEPLOY", "nowhere")
    with pytest.raises(InputError, match="got 'nowhere', which is neither"):
        current_executor()
    monkeypatch.setenv("EMCUBE_DEPLOY", "tcp://127.0.0.1:9 timeout=1")
    with pytest.raises(EngineError, match="no connection to the scheduler"):
        current_executor()


def test_chosen_starts_when_it_is_needed_and_ends(site: Site) -> None:
    with chosen(str(site.file)):
        assert in_force() is None
        current_executor()
        deployment = in_force()
        assert deployment is not None
        assert deployment.kind == "address"
    assert deployment.closed
    with pytest.raises(InputError, match="got 'nowhere', which is neither"), chosen("nowhere"):
        raise AssertionError("not reached")


def test_the_command_line(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path)
    asked = ["estimate", str(folder / "map.zarr"), "--json"]
    assert main(asked) == 0
    here = json.loads(capsys.readouterr().out)
    assert main([*asked, "--deploy", f"{site.file} workers=2"]) == 0
    assert json.loads(capsys.readouterr().out) == here
    assert in_force() is None
    assert main([*asked, "--deploy", "nowhere"]) == 2
    assert "got 'nowhere', which is neither" in capsys.readouterr().err
    # A mistake in the environment is named before anything is read, by the verbs that would use it.
    monkeypatch.setenv("EMCUBE_DEPLOY", "local wrokers=2")
    assert main(["run", str(folder / "recipe.yaml")]) == 2
    assert "there is no option 'wrokers'" in capsys.readouterr().err
    assert not (folder / "results").exists()
