"""Kernels compile with a cache where there can be one, and work where there cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emcube.kernels._numba import jit

PACKAGE = Path(__file__).parents[2] / "emcube"


@jit
def double(x):  # type: ignore[no-untyped-def]
    return 2 * x


@jit(fastmath=True, cache=False)
def total(x):  # type: ignore[no-untyped-def]
    s = 0.0
    for value in x:
        s += value
    return s


def test_plain_and_with_options() -> None:
    assert double(21) == 42
    assert total(np.arange(5.0)) == 10.0
    assert double.targetoptions["nogil"]
    assert total.targetoptions["fastmath"]


def test_other_errors_of_numba_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr("numba.njit", refuse)
    with pytest.raises(RuntimeError, match="something else"):
        jit(lambda x: x)


@pytest.fixture
def unwritable_package(tmp_path: Path) -> Iterator[Path]:
    """A copy of the package whose folders nobody may write to."""
    copy = tmp_path / "site" / "emcube"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "kernels" / "probe_kernels.py").write_text(
        textwrap.dedent(
            """
            from emcube.kernels._numba import jit

            @jit
            def double(x):
                return 2 * x

            @jit
            def triple(x):
                return 3 * x
            """
        )
    )
    for folder, _, files in os.walk(copy.parent, topdown=False):
        for name in files:
            (Path(folder) / name).chmod(0o444)
        Path(folder).chmod(0o555)
    yield copy.parent
    for folder, _, _ in os.walk(copy.parent):
        Path(folder).chmod(0o755)


@pytest.mark.skipif(sys.platform != "linux", reason="permissions and capabilities of Linux")
def test_works_where_neither_package_nor_home_can_be_written(unwritable_package: Path) -> None:
    code = f"""
import ctypes, os, sys
if os.geteuid() == 0:
    # root writes where it likes by a capability: give up all of them, and permissions count again
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0
sys.path.insert(0, {str(unwritable_package)!r})
import emcube
assert emcube.__file__.startswith({str(unwritable_package)!r}), emcube.__file__
from emcube.kernels import probe_kernels
for folder in ({str(unwritable_package / "emcube" / "kernels")!r}, os.environ["HOME"]):
    assert not os.access(folder, os.W_OK), folder
print(probe_kernels.double(21), probe_kernels.triple(5))
"""
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    home = str(unwritable_package)
    env |= {"HOME": home, "XDG_CACHE_HOME": f"{home}/cache", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["42", "15"]
    # One notice for the two kernels.
    assert done.stderr.count("NUMBA_CACHE_DIR") == 1, done.stderr
