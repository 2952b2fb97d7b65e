"""Workers that run something else than the client are refused by name."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import emcube
import emcube as em
from emcube.deploy.local import Command
from emcube.deploy.versions import _require_same, compare_versions, installed
from emcube.errors import EngineError
from tests.deploy.conftest import Site, wait_until

HERE = {"emcube": "1.2.0", "python": "3.12.4"}


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ({"emcube": "1.3.0", "python": "3.12.4"}, r"runs emcube 1\.3\.0, 1\.2\.0 expected"),
        ({"emcube": "1.2.0", "python": "3.11.9"}, r"runs Python 3\.11\.9, 3\.12 expected"),
        (ModuleNotFoundError("No module named 'emcube'"), r"has no emcube 1\.2\.0"),
        (RuntimeError("broken"), "could not say what it runs: broken"),
    ],
)
def test_what_is_refused(there: Any, message: str) -> None:
    with pytest.raises(EngineError, match=f"the worker at tcp://w:1 {message}"):
        _require_same("tcp://w:1", HERE, there)


def test_another_patch_of_python_will_do() -> None:
    _require_same("tcp://w:1", HERE, {"emcube": "1.2.0", "python": "3.12.9"})


def test_a_worker_with_another_emcube_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(
        Path(emcube.__file__).parent, other / "emcube", ignore=shutil.ignore_patterns("__pycache__")
    )
    init = other / "emcube" / "__init__.py"
    init.write_text(init.read_text().replace(f'"{emcube.__version__}"', '"9.9.9"'))
    file = tmp_path / "scheduler.json"
    with ExitStack() as stack:
        one = ["--scheduler-file", str(file), "--watch-parent"]
        Command(stack, "scheduler", one, tmp_path / "scheduler.log")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(other))
            many = ["--scheduler-file", str(file), "--watch-parent"]
            Command(stack, "worker", many, tmp_path / "worker.log")
        wait_until(file.exists, "scheduler file")
        with pytest.raises(EngineError, match=r"runs emcube 9\.9\.9, .* expected as here"):
            em.deploy(str(file))


def test_other_libraries_are_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    with em.deploy(str(site.file), workers=2) as deployment:
        compare_versions(deployment.client)  # known by now: nobody is asked again
        from emcube.deploy import versions

        versions._seen.pop(deployment.client)
        real = importlib.metadata.version
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name: "0.1" if name == "numpy" else real(name)
        )
        assert installed()["numpy"] == "0.1"
        with pytest.warns(UserWarning, match=r"other libraries than this process.*numpy"):
            compare_versions(deployment.client)
