"""What importing costs, and what it leaves out."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import pytest

import emcube

HEAVY = ["numba", "sklearn", "dask_ml", "distributed", "rsciio", "matplotlib", "intake", "pint"]


def python(*args: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        check=check,
        env={**os.environ, **env},
        timeout=120,
    )


def modules_after(code: str) -> set[str]:
    """Top-level modules that are there after running `code`."""
    report = "import json, sys; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    return set(json.loads(python("-c", f"{code}\n{report}").stdout.splitlines()[-1]))


def test_importing_leaves_heavy_packages_alone() -> None:
    assert not modules_after("import emcube") & {*HEAVY, "xarray"}
    assert not modules_after("import xarray, emcube") & set(HEAVY)
    assert not modules_after("import emcube, xarray") & set(HEAVY)


def test_help_of_the_command_line_imports_no_xarray() -> None:
    code = (
        "import sys; sys.argv = ['emcube', '--help']\n"
        "from emcube.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
    )
    assert not modules_after(code) & {*HEAVY, "xarray", "pandas", "dask", "zarr"}


def test_import_costs_little_over_xarray() -> None:
    # Alternating in one run, the median of some, and processor time: this machine may be busy.
    clock = "import time; start = time.process_time(); {}; print(time.process_time() - start)"

    def seconds(code: str) -> float:
        return float(python("-c", clock.format(code)).stdout)

    seconds("import xarray, emcube")
    pairs = [(seconds("import xarray"), seconds("import xarray; import emcube")) for _ in range(5)]
    extra = statistics.median(both - alone for alone, both in pairs)
    assert extra <= 0.3, pairs


@pytest.mark.parametrize(
    "code",
    [
        "import emcube, xarray",
        "import xarray, emcube",
        "import emcube; from xarray import DataArray",
        "import emcube; emcube.make_cube; import xarray",
        "import emcube.units, xarray.core.dataarray, xarray",
    ],
)
def test_accessor_is_there_in_any_order_of_import(code: str) -> None:
    python(
        "-W",
        "error::UserWarning",
        "-c",
        f"{code}; import xarray; assert hasattr(xarray.DataArray, 'em')\n"
        "import sys; assert not any(type(f).__module__ == 'emcube._hooks' for f in sys.meta_path)",
    )


def test_the_hook_leaves_a_missing_module_missing() -> None:
    code = (
        "from emcube import _hooks\n"
        "_hooks.after_import('no_such_module_at_all', 'emcube.cube')\n"
        "try:\n    import no_such_module_at_all\n"
        "except ModuleNotFoundError as error:\n    assert 'no_such' in str(error)\n"
        "else:\n    raise AssertionError\n"
    )
    python("-c", code)


def test_public_names_resolve_and_are_listed() -> None:
    for name in emcube.__all__:
        assert name in dir(emcube)
        assert getattr(emcube, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = emcube.nonsense


def test_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert emcube.__version__ == version("emcube")
