"""How tests are spread over processes: a file, with its fixtures, in one; tests of processes one by one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scheduling import FIRST, PROCESSES, group, rank

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", [*PROCESSES, *FIRST[1:]])
def test_what_is_named_is_there(name: str) -> None:
    assert (ROOT / name).exists()


def test_groups_and_their_order() -> None:
    assert group("tests/slurm/test_submit.py::test_a[x::y]") == "processes"
    assert group("tests/recipe/test_going_on.py::test_a") == "processes"
    assert group("tests/recipe/test_running.py::test_a") == "tests/recipe/test_running.py"
    assert rank("tests/chaos/test_deaths.py::test_a") == 0
    assert rank("tests/test_demo.py::test_a") < rank("tests/test_units.py::test_a")
    assert rank("emcube/units.py::emcube.units") == rank("tests/test_units.py::test_a")


def test_two_processes_take_whole_files(tmp_path: Path) -> None:
    """Whatever the versions of pytest and pytest-xdist: a fixture of a file is made once."""
    (tmp_path / "conftest.py").write_text(
        "from tests.conftest import pytest_xdist_make_scheduler\n"
    )
    for name in "abc":
        (tmp_path / f"test_{name}.py").write_text(
            "import pytest\n@pytest.mark.parametrize('i', range(6))\ndef test(i): pass\n"
        )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist", "-n", "2", "-v", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    found = re.findall(r"\[(gw\d)\] .* PASSED (test_\w).py", done.stdout)
    assert len(found) == 18, done.stdout + done.stderr
    assert len(set(found)) == 3
    assert {worker for worker, _ in found} == {"gw0", "gw1"}
