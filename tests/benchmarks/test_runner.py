"""Methods run one after the other, are stopped when they have lost, and nothing that was measured is lost."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import data, environments, reference, report, runner
from benchmarks.bare import read_pass
from benchmarks.methods import BY_KEY
from benchmarks.readme import BEGIN, END, with_table
from benchmarks.runner import ChildFailed, Options, measured_child


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


BEGINS = "import time\nprint('@begin', flush=True)\n"


def test_a_run_that_takes_too_long_is_stopped_with_its_figures() -> None:
    hungry = "x = bytearray(200_000_000)\nx[::4096] = b'1' * len(x[::4096])\n"
    found = measured_child(script(f"{BEGINS}{hungry}time.sleep(60)"), dict(os.environ), 1.5)
    assert found["killed"]
    assert 1.0 < found["runs"][0] < 30
    assert found["peak_bytes"] > 150e6
    assert found["cpu_runs"][0] >= 0


def test_time_between_runs_does_not_count() -> None:
    slow = "print('@end', flush=True)\ntime.sleep(1.2)\nprint('{\"runs\": [0.1]}')"
    assert measured_child(script(BEGINS + slow), dict(os.environ), 0.8) == {"runs": [0.1]}


def test_a_failure_says_why() -> None:
    with pytest.raises(ChildFailed, match="does not run: ImportError: no such peer"):
        measured_child(script("raise ImportError('no such peer')"), dict(os.environ), None)
    with pytest.raises(ChildFailed, match="printed no answer"):
        measured_child(script("print('hello')"), dict(os.environ), None)


def options(folder: Path, **more: object) -> Options:
    here = lambda peer, say: sys.executable
    return Options(
        **{
            "folder": folder,
            "scales": {"srm2135c": 0.002},
            "repeat": 1,
            "threads": 1,
            "linear": False,
            "extras": False,
            "environments": here,
            **more,
        }
    )


def inline(options: Options, module: str, *arguments: str) -> object:
    """What the side processes do, here: starting each takes seconds."""
    if module == "benchmarks.data":
        folder, name, scale, whole = arguments
        return data.make(Path(folder), name, float(scale), whole == "full")
    if module == "benchmarks.bare":
        return [read_pass(Path(arguments[0]), 1)]
    assert module == "benchmarks.reference"
    if arguments[0] == "exact":
        return reference.exact(Path(arguments[1]))
    _, scene, answer, work, centred = arguments
    return reference.judge(Path(scene), Path(answer), work, centred == "centred")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "WARM_SCALE", 0.002)
    monkeypatch.setattr(runner, "_child", inline)


def test_side_by_side_and_on_again(scene: Path, exact: dict, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    said: list[str] = []
    only = ("emcube-pca", "sklearn-pca-covariance")
    found = runner.run(options(scene.parent, only=only), results, said.append)
    mine = found["methods"]["srm2135c/emcube-pca"]
    peer = found["methods"]["srm2135c/sklearn-pca-covariance"]
    for row in (mine, peer):
        assert row["quality"]["subspace_deg"] < 0.01
        assert row["seconds"] > 0
        assert row["cpu_seconds"] >= 0
        assert 20e6 < row["peak_bytes"] < 4e9
        assert len(row["bare_reads"]) >= 2
        assert min(row["bare_reads"]) > 0
    assert mine["versions"]["emcube"]
    assert peer["versions"]["scikit-learn"]
    assert peer["limit"] >= 30
    assert json.loads(results.read_text()) == found
    # As if the run had been stopped before the peer's turn: only that is measured.
    del found["methods"]["srm2135c/sklearn-pca-covariance"]
    assert "only" not in found
    found["only"] = {"names": sorted(only), "done": ["srm2135c/emcube-pca"]}
    results.write_text(json.dumps(found))
    said.clear()
    again = runner.run(options(scene.parent, only=only), results, said.append)
    assert again["methods"]["srm2135c/emcube-pca"] == mine
    assert "srm2135c/sklearn-pca-covariance" in again["methods"]
    assert not any("emcube-pca" in line for line in said)
    text = report.full(again)
    assert "| emcube `IncrementalPCA` |" in text
    assert "PCA(covariance_eigh)" in text
    assert report.readme(again)
    with pytest.raises(ValueError, match="other options"):
        runner.run(options(scene.parent, only=only, repeat=2), results, said.append)


def test_a_whole_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    begun = runner._begin(options(tmp_path), results)
    begun["done"], begun["methods"] = ["a"], {"a": {"seconds": 1.0}}
    runner._write(results, begun)
    assert runner._begin(options(tmp_path), results) == begun
    assert runner._begin(options(tmp_path, only=("pca",)), results) == begun
    # With other code, or once it is finished, a run begins anew.
    for change in ({"code": "other"}, {"finished": True}):
        runner._write(results, begun | change)
        assert runner._begin(options(tmp_path), results)["done"] == []


def test_a_peer_that_cannot_be_installed_is_told(tmp_path: Path) -> None:
    def nothing(peer: str, say: object) -> str:
        raise environments.Unavailable("does not install: no matching distribution")

    scene = {"folder": tmp_path, "about": {"name": "srm2135c"}, "exact": None}
    row = runner._one(options(tmp_path, environments=nothing), scene, BY_KEY["espm-nmf"], {}, print)
    assert row["failed"] == "does not install: no matching distribution"
    found = synthetic({"srm2135c/espm-nmf": row})
    assert "does not install: no matching distribution" in report.full(found)


def test_bare_read_reads_everything(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # as a process of its own
    found = runner._bare(options(scene.parent), {"folder": scene})
    assert len(found) == 2
    assert min(found) > 0


def test_startup(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import startup

    assert set(startup.COMMANDS) >= {"python", "import emcube", "emcube --help"}
    commands = {name: startup.COMMANDS[name] for name in ("python", "emcube --help")}
    monkeypatch.setattr(startup, "COMMANDS", commands)
    found = startup.measure(scene / "counts.zarr", tmp_path, repeat=1)
    assert set(found["medians"]) == {"python", "emcube --help", "emcube run, tiny cube"}
    assert found["medians"]["emcube run, tiny cube"] > found["medians"]["python"] > 0
    assert (tmp_path / "start").is_dir()


def test_linear_cost_is_measured_by_size(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LINEAR", ("srm2135c", (1.0, 2.0)))
    wanted = options(scene.parent, only=("linear",), linear=True)
    found = runner.run(wanted, tmp_path / "results.json", print)
    small, large = (found["linear"][name] for name in ("1", "2"))
    assert small["pixels"] < large["pixels"]
    assert large["n_components"] == small["n_components"]
    assert "microseconds a pixel" in report.full(found)


def test_other_modules_plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "another.py").write_text("def measure(scale=1.0):\n    return {'asked': scale}\n")
    monkeypatch.setattr(runner, "EXTRAS", ("another", "not_there"))
    import benchmarks

    monkeypatch.setattr(benchmarks, "__path__", [*benchmarks.__path__, str(package)])
    monkeypatch.setattr(
        runner,
        "_environment",
        lambda options, threads: {**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    wanted = options(tmp_path, only=("another",), extras=True)
    found = runner.run(wanted, tmp_path / "results.json", print)
    assert found["extras"]["another"]["asked"] == 0.01
    assert "asked: 0.01" in report.full(found)


# -- tables -------------------------------------------------------------------------------------------


def synthetic(methods: dict[str, dict]) -> dict:
    about = {
        "shape": [4, 5, 6],
        "counts_per_pixel": 300.0,
        "dense_bytes": 120,
        "dtype": "uint8",
        "scale": 1.0,
        "n_components": 3,
    }
    return {
        "scenes": {"jadeite": about, "srm2135c": about},
        "machine": {"cores": 2, "processor": "P", "memory_GiB": 4.0, "system": "S", "python": "3"},
        "options": {"threads": 2, "repeat": 5, "enough": 15.0, "patience": 30.0},
        "load": [0.5, 0.6],
        "started": "2026-01-01 10:00",
        "methods": methods,
        "linear": {},
        "extras": {},
    }


def row(name: str, scene: str, seconds: float, quality: dict | None = None, **rest: object) -> dict:
    method = BY_KEY[name]
    return {
        "scene": scene,
        "work": method.work,
        "peer": method.peer,
        "title": method.title,
        "seconds": seconds,
        "cpu_seconds": seconds,
        "spread": [seconds, seconds],
        "runs": [seconds],
        "peak_bytes": 10**9,
        "bare_reads": [0.5, 0.5],
        "quality": quality or {},
        "versions": {},
    } | rest


def verdicts(found: dict) -> dict[str, bool | None]:
    return {c["what"]: c["holds"] for c in report.checks(found)}


def test_targets_are_held_against_the_figures() -> None:
    good = {"subspace_deg": 0.0}
    found = synthetic(
        {
            "jadeite/emcube-pca": row("emcube-pca", "jadeite", 2.0, good, peak_bytes=5e8),
            "jadeite/sklearn-pca-covariance": row("sklearn-pca-covariance", "jadeite", 9.0, good),
            "jadeite/sklearn-pca-covariance-sparse": row(
                "sklearn-pca-covariance-sparse", "jadeite", 7.0, good
            ),
            "srm2135c/emcube-pca": row("emcube-pca", "srm2135c", 0.9, good),
        }
    )
    held = verdicts(found)
    # The faster of the peer's variants counts: 7 / 2.
    what = "jadeite map, Weighted PCA, 20 components and all eigenvalues: faster than "
    assert held[f"{what}scikit-learn `PCA(covariance_eigh)`, sparse, in memory"] is False
    assert held["SRM 2135c tilt series, Weighted PCA, 20 components and all eigenvalues"] is True
    assert held["Whole recipe, ten times the pixels"] is None
    assert held["Peers that are not beaten in time, memory and quality"] is True
    text = report.full(found)
    assert "| 9.00 s (4.5 x) |" in text
    assert "**no**" in text


def test_variants_whose_clusters_are_too_wide_do_not_count() -> None:
    """An inertia more than a percent too large is no answer to the same question."""
    methods = {"jadeite/emcube-kmeans-profiles": row("emcube-kmeans-profiles", "jadeite", 2.0)} | {
        f"jadeite/{name}": row(name, "jadeite", seconds, {"inertia_excess": excess})
        for name, seconds, excess in (
            ("sklearn-kmeans-profiles-sparse", 8.0, 0.11),
            ("sklearn-kmeans-profiles-restarts", 50.0, 1e-6),
        )
    }
    what = "jadeite map, k-means on profiles, labels: faster than scikit-learn"
    (check,) = [c for c in report._kmeans_checks(synthetic(methods)) if c["what"].startswith(what)]
    assert check["value"] == 25.0
    assert check["holds"] is True


def test_what_was_measured_on_another_machine_is_named() -> None:
    found = synthetic({})
    here = found["machine"]["processor"]
    found["extras"] = {
        "dense": {"processor": "another", "measured": "2026-01-02 03:04"},
        "many_blocks": {"processor": here, "measured": "2026-01-02 03:05"},
    }
    text = report.full(found)
    assert "with the code of that day: Dense: 2026-01-02, another." in text
    found["extras"].pop("dense")
    assert "elsewhere" not in report.full(found)


def test_a_peer_that_is_better_somewhere_is_named() -> None:
    methods = {
        "jadeite/emcube-pca": row("emcube-pca", "jadeite", 2.0, {"subspace_deg": 3.0}),
        "jadeite/sklearn-pca-covariance": row(
            "sklearn-pca-covariance", "jadeite", 9.0, {"subspace_deg": 0.0}, peak_bytes=10
        ),
    }
    (check,) = report._peer_checks(synthetic(methods))
    assert check["value"] == 1
    assert check["holds"] is False
    assert "(memory, quality)" in check["named"]


def test_a_race_counts_until_the_target() -> None:
    mine = row("emcube-nmf-race", "jadeite", 2.0, {"excess": 0.009})
    there = row("sklearn-nmf", "jadeite", 50.0, {"excess": 0.01, "seconds_to_target": 30.0})
    never = row("sklearn-nmf-sparse", "jadeite", 50.0, {"excess": 0.5, "seconds_judged": 44.0})
    assert report.times_of(there, mine) == (15.0, False)
    assert report.times_of(never, mine) == (22.0, True)
    assert "over 44.0 s (over 22.0 x)" in " ".join(report._cells(never, mine))


def test_pictures(tmp_path: Path) -> None:
    from benchmarks import plots

    found = synthetic(
        {
            "jadeite/emcube-pca": row("emcube-pca", "jadeite", 2.0, {"subspace_deg": 0.0}),
            "jadeite/sklearn-pca-covariance": row(
                "sklearn-pca-covariance", "jadeite", 9.0, killed=True
            ),
            "jadeite/emcube-whole": row("emcube-whole", "jadeite", 2.0),
        }
    )
    size = {"seconds": 1.0, "spread": [1, 1], "peak_bytes": 1, "bare_reads": [1.0]}
    found["linear"] = {"1": size | {"pixels": 10}, "10": size | {"pixels": 100}}
    made = plots.draw(found, tmp_path)
    assert {path.name for path in made} == {"jadeite.png", "linear.png"}
    assert all(path.stat().st_size > 5000 for path in made)


def test_the_command_line_writes_tables_and_pictures(tmp_path: Path, capsys) -> None:
    results = tmp_path / "figures.json"
    results.write_text(
        json.dumps(synthetic({"jadeite/emcube-pca": row("emcube-pca", "jadeite", 2.0)}))
    )
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    command.main(["table", "--results", str(results), "--write", str(readme)])
    text = readme.read_text()
    assert "IncrementalPCA" in text
    assert "old" not in text
    assert text.startswith("before")
    command.main(["plot", "--results", str(results)])
    assert (tmp_path / "jadeite.png").exists()
    command.main(["list"])
    assert "sklearn-minibatch-kmeans" in capsys.readouterr().out


def test_a_file_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="0 times"):
        with_table("no markers", "table")
