"""The command line: exit status, messages in four parts, JSON, and what help costs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import emcube.cli.app as app_module
from emcube import errors
from emcube.cli.failure import exit_status, message

Run = Callable[..., Any]

VERBS = (
    *("demo", "ingest", "info", "run", "plan", "submit", "estimate", "catalog", "doctor"),
    *("explore", "export", "publish", "report", "reproduce"),
)


def command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from emcube.cli import main; sys.exit(main())",
            *arguments,
        ],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


# ------------------------------------------------------------------------------------------------ help


def test_help_names_every_verb(emcube: Run) -> None:
    found = emcube("--help")
    assert found.status == 0
    assert all(verb in found.out for verb in VERBS)
    assert "130 stopped" in " ".join(found.out.split())
    assert {c.name for c in app_module.app.registered_commands} | {"catalog"} == set(VERBS)


CATALOG_VERBS = ["init", "add", "crawl", "show", "search", "verify", "remove", "fetch", "export"]


@pytest.mark.parametrize(
    "verb",
    [
        *((v,) for v in VERBS),
        *(("catalog", v) for v in CATALOG_VERBS),
    ],
)
def test_every_verb_has_help(emcube: Run, verb: tuple[str, ...]) -> None:
    found = emcube(*verb, "--help")
    assert found.status == 0
    assert "Usage: emcube" in found.out
    assert "--json" in found.out or verb == ("catalog",)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from emcube.cli import main; main(['--help']); main(['run', '--help'])\n"
        "heavy = ('xarray', 'numpy', 'numba', 'sklearn', 'dask', 'dask_ml', 'distributed', 'rsciio',"
        " 'pandas', 'matplotlib', 'zarr')\n"
        "sys.exit(','.join(m for m in heavy if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(emcube: Run) -> None:
    import emcube as package

    assert emcube("--version").out.strip() == f"emcube {package.__version__}"


# ----------------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rn",), "Did you mean 'run'?"),
        (("run",), "Missing argument"),
        (("run", "a.yaml", "--bogus"), "--bogus"),
        (("demo", "--scale", "7"), "--scale"),
        (("ingest", "a", "b", "--values", "1,x"), "numbers separated by commas"),
    ],
)
def test_wrong_usage_is_status_2(emcube: Run, arguments: tuple[str, ...], said: str) -> None:
    found = emcube(*arguments)
    assert found.status == 2
    assert said in found.err
    assert found.err.startswith("emcube: ")
    assert "Traceback" not in found.err
    assert found.out == ""


def test_nothing_typed_shows_help(emcube: Run) -> None:
    found = emcube()
    assert found.status == 2
    assert "Usage" in found.out
    assert found.err == ""


# ---------------------------------------------------------------------------------------------- errors


def test_a_missing_file_is_status_2_and_one_line(emcube: Run, tmp_path: Path) -> None:
    for verb in ("info", "estimate"):
        found = emcube(verb, tmp_path / "missing.bcf")
        assert found.status == 2
        assert "there is no such file" in found.err
        assert len(found.err.strip().splitlines()) == 1
        assert found.out == ""
    assert emcube("run", tmp_path / "missing.yaml").status == 2


def test_a_bad_recipe_names_its_line(emcube: Run, folder: Path) -> None:
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("n_components: 5", "n_componets: 5"))
    found = emcube("run", recipe)
    assert found.status == 2
    expected = "emcube: recipe.yaml, line 5: unknown key 'n_componets' in pca; did you mean"
    assert found.err.startswith(expected)
    assert not (folder / "results").exists()


def test_debug_adds_the_traceback_wherever_it_stands(emcube: Run, tmp_path: Path) -> None:
    for arguments in (("--debug", "info", tmp_path / "a"), ("info", tmp_path / "a", "--debug")):
        found = emcube(*arguments)
        assert found.status == 2
        assert "Traceback (most recent call last)" in found.err
        assert found.err.splitlines()[-1].startswith("emcube: ")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InputError("a"), 2),
        (errors.RecipeError("a"), 2),
        (errors.ReadError("a"), 2),
        (errors.CatalogError("a"), 2),
        (errors.IncompleteError("a"), 2),
        (errors.StoreError("nothing there"), 2),
        (errors.MissingDependencyError("a"), 1),
        (errors.EngineError("a"), 1),
        (errors.BudgetError("a"), 1),
        (errors.InterruptedRunError("a"), 130),
        (KeyboardInterrupt(), 130),
        (FileNotFoundError(2, "No such file", "a"), 2),
        (OSError(28, "No space left on device", "a"), 1),
        (MemoryError(), 1),
        (ZeroDivisionError("a"), 1),
    ],
)
def test_exit_status(error: BaseException, status: int) -> None:
    assert exit_status(error) == status
    assert message(error)


def test_a_full_disk_is_status_1() -> None:
    error = errors.StoreError("cannot be written")
    error.__cause__ = OSError(28, "No space left on device")
    assert exit_status(error) == 1


def test_an_unexpected_error_asks_for_a_report(
    emcube: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emcube.doctor.examine", lambda: 1 / 0)
    found = emcube("doctor")
    assert found.status == 1
    assert "unexpected ZeroDivisionError" in found.err
    assert "--debug" in found.err
    assert "Traceback" not in found.err


# --------------------------------------------------------------------------------------- run and info


def test_run_info_and_json(emcube: Run, finished: Path) -> None:
    result = finished / "results" / "map"
    card = emcube("info", result)
    assert card.status == 0
    assert "estimate_n_components" in card.out
    assert "3 clusters" in card.out
    found = emcube("info", result, "--json").json
    assert found["complete"] is True
    assert list(found["steps"]) == ["estimate_n_components", "pca", "kmeans"]
    assert found["input"]["path"] == "map.zarr"


def test_the_same_run_is_kept(emcube: Run, finished: Path) -> None:
    result = finished / "results" / "map"
    before = (result / "zarr.json").stat().st_mtime_ns
    again = emcube("run", finished / "recipe.yaml", "--json")
    assert again.status == 0
    assert again.json["run_id"] == emcube("info", result, "--json").json["run_id"]
    assert (result / "zarr.json").stat().st_mtime_ns == before


def test_another_run_needs_overwrite(emcube: Run, finished: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "other.yaml"
    text = (finished / "recipe.yaml").read_text().replace("n_components: 5", "n_components: 4")
    recipe.write_text(
        text.replace("map.zarr", str(finished / "map.zarr")).replace("results/map", "r")
    )
    (tmp_path / "r").symlink_to(finished / "results" / "map")
    found = emcube("run", recipe)
    assert found.status == 2
    assert "another run" in found.err
    assert "--overwrite" in found.err
    assert emcube("run", recipe, "--out", tmp_path / "elsewhere").status == 0


def test_progress_is_quiet_in_a_pipe(finished: Path, tmp_path: Path) -> None:
    done = command("run", str(finished / "recipe.yaml"), "--out", str(tmp_path / "r"), "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    assert json.loads(done.stdout)["complete"] is True


def test_info_of_a_store_and_estimate(emcube: Run, finished: Path) -> None:
    store = finished / "map.zarr"
    card = emcube("info", store)
    assert "y           24" in card.out
    assert "beam energy: 200 keV" in card.out
    described = emcube("info", store, "--json").json
    assert described["shape"] == [24, 30, 100]
    assert described["digest"].startswith("sha256:")
    told = emcube("estimate", store)
    assert told.status == 0
    assert "number of components: 3" in told.out
    assert "reason:" in told.out
    assert "margin:" in told.out
    assert emcube("estimate", store, "--json").json["n_components"] == 3
    assert emcube("estimate", store, "--method", "guess").status == 2


def test_ingest_shows_the_new_store(emcube: Run, finished: Path, tmp_path: Path) -> None:
    found = emcube("ingest", finished / "map.zarr", tmp_path / "copy.zarr", "--json")
    assert found.status == 0
    original = emcube("info", finished / "map.zarr", "--json").json
    assert found.json["digest"] == original["digest"]


def test_ingest_into_the_other_layout(emcube: Run, finished: Path, tmp_path: Path) -> None:
    original = emcube("info", finished / "map.zarr", "--json").json
    found = emcube("ingest", finished / "map.zarr", tmp_path / "e.zarr", "--layout", "events")
    assert found.status == 0
    assert "on disk as events" in found.out
    card = emcube("info", tmp_path / "e.zarr", "--json").json
    assert card["layout"] == "events"
    assert original["layout"] == "dense"
    for same in ("digest", "dims", "shape", "dtype", "axes", "chunks"):
        assert card[same] == original[same]
    wrong = emcube("ingest", finished / "map.zarr", tmp_path / "f.zarr", "--layout", "rows")
    assert wrong.status == 2
    assert "'auto', 'dense', 'events'" in wrong.err


def test_an_unfinished_result_is_shown_as_such(emcube: Run, folder: Path) -> None:
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("n_clusters: 3", "n_clusters: 100000"))
    failed = emcube("run", recipe)
    assert failed.status == 2
    assert "in step 'kmeans', recipe.yaml, line 6" in failed.err
    card = emcube("info", folder / "results" / "map")
    assert card.status == 0
    assert "INCOMPLETE" in card.out


def test_ctrl_c_says_what_is_incomplete(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from emcube.cli import main; import emcube.recipe.running as running\n"
        "def stop(step, run):\n"
        "    if step.verb == 'pca': raise KeyboardInterrupt\n"
        "    return real(step, run)\n"
        "real, running.run_step = running.run_step, stop\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["run", str(folder / "recipe.yaml")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert "incomplete, finished: estimate_n_components" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_traceback(finished: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from emcube.cli import main; sys.exit(main())",
            "info",
            str(finished / "map.zarr"),
        ],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert "Traceback" not in done.stderr


# --------------------------------------------------------------------------------------------- doctor


def test_doctor(emcube: Run) -> None:
    found = emcube("doctor", "--json")
    assert found.status == 0
    report = found.json
    assert report["healthy"]
    assert report["versions"]["xarray"]
    assert set(report["extras"]) == {"vendor", "hpc", "report", "explore", "remote"}
    assert report["machine"]["threads"] >= 1
    text = emcube("doctor").out
    assert "vendor" in text
    assert "BLAS" in text


def test_doctor_names_what_is_missing(emcube: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import emcube.doctor as doctor

    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: None if n == "rosettasciio" else real(n))
    report = emcube("doctor", "--json").json
    assert report["healthy"]
    assert not report["extras"]["vendor"]["installed"]
    assert any('pip install "emcube[vendor]"' in line for line in report["advice"])
    monkeypatch.setattr(doctor, "_version", lambda n: None if n == "numba" else real(n))
    broken = emcube("doctor")
    assert broken.status == 1
    assert "MISSING" in broken.out


# -------------------------------------------------------------------------------------------- catalogs


def test_catalog_add_show_search(emcube: Run, finished: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "lab.yaml"
    added = emcube("catalog", "add", catalog, finished / "map.zarr", "--name", "first")
    assert added.status == 0
    assert "lab.yaml: 1 entry" in added.out
    assert "EDS, Si O, 24 x 30 x 100" in added.out
    assert emcube("catalog", "add", catalog, finished / "map.zarr", "--name", "first").status == 2
    assert emcube("catalog", "add", catalog, finished / "map.zarr").status == 0
    listed = emcube("catalog", "show", catalog, "--json").json
    assert list(listed["entries"]) == ["first", "map"]
    assert listed["entries"]["first"]["available"] is True
    assert emcube("info", catalog).out == emcube("catalog", "show", catalog).out
    one = emcube("catalog", "show", catalog, "first", "--json").json
    assert one["shape"] == [24, 30, 100]
    found = emcube("catalog", "search", catalog, "--modality", "EDX", "--element", "Si", "--json")
    assert list(found.json["entries"]) == ["first", "map"]
    assert emcube("catalog", "search", catalog, "--element", "Au", "--json").json["entries"] == {}
    assert list(emcube("catalog", "search", catalog, "first", "--json").json["entries"]) == [
        "first"
    ]
    assert emcube("catalog", "search", catalog, "--element", "Xx").status == 2
    assert emcube("catalog", "show", tmp_path / "none.yaml").status == 2
    assert emcube("estimate", f"{catalog}:first").status == 0


def test_a_recipe_may_name_a_catalog_entry(emcube: Run, finished: Path, tmp_path: Path) -> None:
    emcube("catalog", "add", tmp_path / "lab.yaml", finished / "map.zarr", "--name", "first")
    recipe = tmp_path / "recipe.yaml"
    text = (finished / "recipe.yaml").read_text()
    recipe.write_text(text.replace("{path: map.zarr}", "{catalog: lab.yaml, dataset: first}"))
    found = emcube("run", recipe, "--json").json
    by_path = emcube("info", finished / "results" / "map", "--json").json
    assert found["run_id"] == by_path["run_id"]
    assert found["input"]["dataset"] == "first"


# ------------------------------------------------------------------------------------------- progress


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from emcube.cli.output import progress
    from emcube.feedback.setting import VARIABLE, surface

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    before = surface()
    with progress():
        assert surface() == "terminal"
    assert surface() == before
    monkeypatch.setenv(VARIABLE, "off")
    with progress():
        assert surface() is None


def test_cards_on_a_terminal(
    emcube: Run, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")  # a dumb one has 80 columns whatever is said
    for columns in (80, 40):
        monkeypatch.setenv("COLUMNS", str(columns))
        for what in (finished / "map.zarr", finished / "results" / "map"):
            card = emcube("info", what)
            assert card.status == 0, card.err
            rows = re.sub(r"\x1b\[[0-9;]*m", "", card.out).splitlines()
            assert rows[0].startswith("╭")
            assert max(len(row) for row in rows if row[0] in "│╭╰") <= columns
    monkeypatch.setenv("COLUMNS", "80")
    card = re.sub(r"\x1b\[[0-9;]*m", "", emcube("info", finished / "map.zarr").out)
    assert "0.5 to 2.48 keV" in card
    assert "EDS · Si O · 200 keV" in card
    assert re.search(r"counts +\d+\.?\d* per pixel", card)


def test_info_of_a_package(emcube: Run, finished: Path, tmp_path: Path) -> None:
    crate = tmp_path / "crate.zip"
    done = emcube("publish", finished / "results" / "map", crate, "--include-data", "--no-figures")
    assert done.status == 0, done.err
    assert emcube("info", crate).out == done.out
    plain = emcube("info", crate, "--json").json
    assert plain["kind"] == "package"
    assert plain["input"]["included"] is True
    (tmp_path / "other.zip").write_bytes(b"PK no package")
    assert emcube("info", tmp_path / "other.zip").status == 2


# ------------------------------------------------------------------------------------------------ plan


def test_plan(emcube: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from emcube.recipe import calibration, planning

    # Imported only now, it would bind the stand-in for good.
    assert planning.calibrate is calibration.calibrate
    rates = dict.fromkeys(calibration.RATES, 1e-9)
    known = calibration.Calibration(rates, rates, 1.0, 300 << 20, "any")
    monkeypatch.setattr(calibration, "calibrate", lambda *, again: known)
    found = emcube("plan", folder / "recipe.yaml", "--workers", "2", "--memory", "2GiB")
    assert found.status == 0, found.err
    for word in ("blocks", "passes", "memory", "moved", "result", "time", "2 worker processes"):
        assert word in found.out
    plain = emcube("plan", folder / "recipe.yaml", "--json").json
    assert plain["fits"] is True
    assert [s["name"] for s in plain["steps"]] == [
        "input",
        "estimate_n_components",
        "pca",
        "kmeans",
    ]
    assert plain["seconds"]["low"] < plain["seconds"]["high"]
    assert not (folder / "results").exists()
    tight = emcube("plan", folder / "recipe.yaml", "--memory", "10kB")
    assert tight.status == 1
    assert "EMCUBE_MEMORY" in tight.err
    (folder / "wrong.yaml").write_text("emcube: 1\nsteps:\n  - pca: {k: 3}\n")
    assert emcube("plan", folder / "wrong.yaml").status == 2
