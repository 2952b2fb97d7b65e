"""What importing costs, and what it leaves out."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import emcube
from emcube._hooks import postponed

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


RUN = """
import sys
from emcube.cli import main
sys.argv = ["emcube", "run", {recipe!r}, "--out", {out!r}]
status = main()
assert status == 0, status
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A whole recipe on a tiny cube."""
    counts = np.random.default_rng(0).poisson(2.0, (6, 7, 16)).astype(np.uint16)
    coords = {"energy": 0.5 + 0.02 * np.arange(16)}
    cube = emcube.make_cube(counts, ["y", "x", "energy"], coords=coords, units={"energy": "keV"})
    emcube.ingest(cube, tmp_path / "map.zarr")
    steps = [
        {"estimate_n_components": {"method": "biwhitening"}},
        {"pca": {"n_components": 3, "noise": "poisson"}},
        {"nmf": {"n_components": 2, "random_state": 0}},
        {"kmeans": {"n_clusters": 2, "random_state": 0}},
    ]
    document = {"emcube": 1, "input": {"path": str(tmp_path / "map.zarr")}, "steps": steps}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(document))
    return path


def test_a_run_on_threads_loads_nothing_that_it_does_not_use(recipe: Path) -> None:
    code = RUN.format(recipe=str(recipe), out=str(recipe.parent / "out"))
    # Each takes a tenth of a second or more: clusters, pictures, catalogs, tables on disk, statistics.
    needless = (
        "distributed dask_ml dask.dataframe tornado matplotlib intake rsciio h5py bokeh scipy.stats"
    )
    needless += " sklearn.decomposition sklearn.cluster sklearn.metrics emcube.report emcube.plot"
    report = f"print([m for m in {needless.split()!r} if m in sys.modules])"
    assert python("-c", f"{code}\n{report}").stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "name", ["IncrementalPCA", "MiniBatchNMF", "KMeans", "GaussianMixture", "VCA"]
)
def test_an_estimator_loads_no_statistics(name: str) -> None:
    code = f"import sys, emcube; emcube.{name}; print('scipy.stats' in sys.modules)"
    assert python("-c", code).stdout.strip() == "False"


def test_names_without_estimators_load_no_scikit_learn() -> None:
    assert "sklearn" not in modules_after("import emcube; emcube.match; emcube.xray_basis")


def test_a_postponed_import_is_made_when_it_is_asked_for() -> None:
    code = """
import sys, threading
from emcube._hooks import postponed
with postponed("scipy.stats"):
    import scipy.stats
    import sklearn.base
    assert "scipy.stats._stats_py" not in sys.modules
assert "scipy.stats" not in sys.modules
# Scikit-learn has it where it calls it, and so has who comes later.
from sklearn.utils.fixes import _mode
assert _mode([[1, 1, 2]], axis=1)[0].tolist() == [[1]]
import scipy
assert scipy.stats is sys.modules["scipy.stats"] and scipy.stats.__file__
with postponed("scipy.stats"):
    assert sys.modules["scipy.stats"] is scipy.stats
"""
    python("-c", code)
    code = """
import sys
from emcube._hooks import postponed
with postponed("scipy.stats"):
    from scipy import stats as kept  # the stand-in
    from scipy.stats import rankdata
    assert sys.modules["scipy.stats"].rankdata is rankdata is kept.rankdata
    import scipy.stats.distributions
assert sys.modules["scipy.stats"].norm is kept.norm is scipy.stats.norm
try:
    kept.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
else:
    raise AssertionError
"""
    python("-c", code)


def test_a_postponed_import_leaves_nothing_where_the_context_fails() -> None:
    name = "emcube_no_such_module"
    with pytest.raises(ModuleNotFoundError, match=name), postponed(name):
        _ = sys.modules[name].anything
    assert name not in sys.modules
    with pytest.raises(RuntimeError, match="stop"), postponed(name):
        raise RuntimeError("stop")
    assert name not in sys.modules


def test_the_command_line_leaves_the_collector_as_it_was(recipe: Path) -> None:
    # In a process of its own what was imported is set aside, and garbage of the run is still found.
    code = "import atexit, gc\natexit.register(lambda: print(len(gc.get_objects())))\n"
    code += RUN.format(recipe=str(recipe), out=str(recipe.parent / "out"))
    code += "print(gc.isenabled(), gc.get_freeze_count() > 50_000, len(gc.get_objects()) > 1000)"
    # And nobody goes through it all once more at the end.
    assert python("-c", code).stdout.splitlines()[-2:] == ["True True True", "0"]
    # Called with arguments it is a guest.
    code = "import gc; from emcube.cli import main; main(['run', '--help'])\n"
    code += "from emcube.cli.collecting import loading\n"
    code += "with loading():\n    print(gc.isenabled())\n"
    code += "print(gc.isenabled(), gc.get_freeze_count())"
    assert python("-c", code).stdout.splitlines()[-2:] == ["True", "True 0"]


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
