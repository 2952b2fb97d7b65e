"""Kernels compile with a cache where there can be one, and work where there cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
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


def test_other_errors_of_numba_are_not_swallowed() -> None:
    with pytest.raises(Exception, match="no_such_option"):
        jit(no_such_option=True)(lambda x: x)


@pytest.fixture
def unwritable_package(tmp_path: Path) -> Path:
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
    # The way to it must be open to the user whom the process becomes.
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    yield copy.parent
    for folder, _, _ in os.walk(copy.parent):
        Path(folder).chmod(0o755)


def test_works_where_neither_package_nor_home_can_be_written(unwritable_package: Path) -> None:
    code = f"""
import os, sys
if os.getuid() == 0:  # root may write anywhere: become nobody
    import numba, llvmlite.binding  # the interpreter's own folders may be closed to nobody
    os.setgid(65534); os.setuid(65534)
sys.path.insert(0, {str(unwritable_package)!r})
import emcube
assert emcube.__file__.startswith({str(unwritable_package)!r}), emcube.__file__
from emcube.kernels import probe_kernels
for folder in ({str(unwritable_package / "emcube" / "kernels")!r}, os.environ["HOME"]):
    assert not os.access(folder, os.W_OK), folder
print(probe_kernels.double(21), probe_kernels.triple(5))
"""
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    home = "/proc/self"  # nobody can make a folder there, whoever runs this
    env |= {"HOME": home, "XDG_CACHE_HOME": f"{home}/cache", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["42", "15"]
    # One notice for the two kernels.
    assert done.stderr.count("NUMBA_CACHE_DIR") == 1, done.stderr
